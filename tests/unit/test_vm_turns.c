/*
 * The run loop's turns, seen from an engine that executes nothing: it only notes which vcpu was
 * given which stretch of time. The fake stands in for `interp` under its own name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock/clock.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "engine/interp/interp.h"
#include "ledger/ledger.h"
#include "vm/vm.h"

#include <cmocka.h>

#define STRETCHES_MAX 256
#define CPUS 2

struct stretch {
	unsigned vcpu;
	uint64_t from, to;
};

/* What one vcpu does when its time comes. */
struct script {
	uint64_t arm_at;  /* arms the timer ... */
	uint64_t arm_for; /* ... for this */
	uint64_t halt_at; /* and from then on halts until woken */
	bool is_armed, is_halted;
};

struct fake {
	struct engine engine;
	struct engine_config config;
	struct vcpu *vcpus[CPUS];
};

/* The test is one thread and one machine at a time. */
static struct script scripts[CPUS];
static struct stretch stretches[STRETCHES_MAX];
static unsigned stretch_count;
static struct timer timer;
static uint64_t fired_at[16], fired_deadline[16];
static unsigned fired_count;

static int fake_create(struct engine **out, const struct engine_config *config, struct error *e)
{
	struct fake *f = calloc(1, sizeof(*f));
	f->config = *config;
	*out = &f->engine;
	return 0;
}

static void fake_destroy(struct engine *engine)
{
	free(engine);
}

static int fake_add(struct engine *engine, struct vcpu *v, struct mmu *mmu, struct error *e)
{
	((struct fake *)engine)->vcpus[v->index] = v;
	return 0;
}

static void note(unsigned vcpu, uint64_t from, uint64_t to)
{
	if (stretch_count < STRETCHES_MAX)
		stretches[stretch_count++] = (struct stretch){vcpu, from, to};
}

/* An instruction a cycle, up to the nearest of: the end, the script's next act, an armed deadline.
 */
static void fake_run(struct engine *engine, unsigned index, uint64_t until, struct vm_exit *exit)
{
	struct fake *f = (struct fake *)engine;
	struct script *s = &scripts[index];
	struct clock *c = f->config.clock;
	uint64_t from = clock_now(c), now = from;
	exit->reason = EXIT_BUDGET;
	if (f->vcpus[index]->requests & REQUEST_STOP) {
		vcpu_withdraw(f->vcpus[index], REQUEST_STOP);
		exit->reason = EXIT_STOP;
		return;
	}
	if (s->is_halted) {
		exit->reason = EXIT_HALT;
		return;
	}
	if (s->arm_at && !s->is_armed && s->arm_at >= now && s->arm_at < until) {
		now = s->arm_at;
		clock_set(c, now);
		timer_arm(c, &timer, s->arm_for);
		s->is_armed = true;
		if (s->arm_for < until)
			until = s->arm_for;
	}
	if (s->halt_at && s->halt_at >= now && s->halt_at < until) {
		until = s->halt_at;
		s->is_halted = true;
		f->vcpus[index]->state.activity = ACTIVITY_HALTED;
		f->vcpus[index]->state.rflags |= FLAG_IF;
		exit->reason = EXIT_HALT;
	}
	clock_set(c, until);
	ledger_charge_many(f->vcpus[index]->ledger, EVENT_INSTRUCTION, until - from);
	note(index, from, until);
}

static void fake_changed(struct engine *engine, unsigned index)
{
}

static int fake_breakpoint(struct engine *engine, gva_t address, bool on)
{
	return 0;
}

const struct engine_ops interp_ops = {fake_create,  fake_destroy,    fake_add,	  fake_run,
				      fake_changed, fake_breakpoint, fake_changed};
const struct engine_ops trans_ops = {fake_create,  fake_destroy,    fake_add,	 fake_run,
				     fake_changed, fake_breakpoint, fake_changed};

static void fire(void *opaque, uint64_t deadline_cycles)
{
	struct vm *vm = opaque;
	fired_at[fired_count % 16] = clock_now(vm_clock(vm));
	fired_deadline[fired_count++ % 16] = deadline_cycles;
	for (unsigned i = 0; i < CPUS; i++)
		scripts[i].is_halted = false;
}

static struct vm *make(unsigned cpus)
{
	static char file[32];
	static const uint8_t image[512] = {[510] = 0x55, [511] = 0xaa};
	struct vm_config c;
	struct error e = {0};
	struct vm *vm;
	strcpy(file, "/tmp/gnomon-turn-XXXXXX");
	int fd = mkstemp(file);
	assert_int_equal(write(fd, image, sizeof(image)), sizeof(image));
	close(fd);
	vm_config_defaults(&c);
	c.kernel = file;
	c.kernel_format = BOOT_FORMAT_RAW;
	c.memory_bytes = 4 << 20;
	c.cpu_count = cpus;
	c.timeout_ms = 20000;
	if (vm_create(&vm, &c, &e))
		fail_msg("%s", e.text);
	unlink(file);
	memset(scripts, 0, sizeof(scripts));
	stretch_count = fired_count = 0;
	timer = (struct timer){.fire = fire, .opaque = vm};
	return vm;
}

static void test_same_stretch_for_all(void **state)
{
	struct vm *vm = make(2);
	struct vm_outcome o;
	vm_run_for(vm, 200000, &o);
	assert_int_equal(o.end, VM_END_NONE);
	assert_true(stretch_count >= 4);
	for (unsigned i = 0; i + 1 < stretch_count; i += 2) {
		assert_int_equal(stretches[i].vcpu, 0);
		assert_int_equal(stretches[i + 1].vcpu, 1);
		assert_int_equal(stretches[i].from, stretches[i + 1].from);
		assert_int_equal(stretches[i].to, stretches[i + 1].to);
		if (i)
			assert_int_equal(stretches[i].from, stretches[i - 1].to);
	}
	vm_destroy(vm);
}

static void test_timer_ends_a_turn(void **state)
{
	struct vm *vm = make(1);
	struct vm_outcome o;
	timer_arm(vm_clock(vm), &timer, 12345);
	vm_run_for(vm, 300000, &o);
	assert_int_equal(fired_count, 1);
	assert_int_equal(fired_at[0], 12345);
	assert_int_equal(stretches[0].to, 12345);
	assert_int_equal(stretches[1].from, 12345);
	vm_destroy(vm);
}

/* vcpu 1 arms a timer in the middle of a turn whose whole length vcpu 0 has run already. */
static void test_earlier_deadline(void **state)
{
	struct vm *vm = make(2);
	struct vm_outcome o;
	scripts[1].arm_at = 3000;
	scripts[1].arm_for = 4000;
	vm_run_for(vm, 200000, &o);
	assert_int_equal(fired_count, 1);
	assert_int_equal(fired_at[0], 4000);
	assert_int_equal(fired_deadline[0], 4000);
	/* Each vcpu's own time never goes back and leaves nothing out. */
	uint64_t at[CPUS] = {0};
	for (unsigned i = 0; i < stretch_count; i++) {
		assert_int_equal(stretches[i].from, at[stretches[i].vcpu]);
		at[stretches[i].vcpu] = stretches[i].to;
	}
	/* And never apart by more than a turn. */
	assert_in_range(at[0] > at[1] ? at[0] - at[1] : at[1] - at[0], 0, 10000);
	vm_destroy(vm);
}

static void test_idle_jumps(void **state)
{
	struct vm *vm = make(1);
	struct vm_outcome o;
	scripts[0].halt_at = 5000;
	timer_arm(vm_clock(vm), &timer, 900000000);
	vm_run_for(vm, 6000, &o);
	assert_int_equal(fired_count, 1);
	assert_int_equal(fired_at[0], 900000000);
	assert_int_equal(stretches[0].to, 5000);
	assert_int_equal(stretches[1].from, 900000000);
	vm_destroy(vm);
}

static void test_one_halted_one_runs(void **state)
{
	struct vm *vm = make(2);
	struct vm_outcome o;
	scripts[0].halt_at = 5000;
	scripts[1].arm_at = 7000;
	scripts[1].arm_for = 50001;
	vm_run_for(vm, 150000, &o);
	assert_int_equal(fired_count, 1);
	assert_int_equal(fired_at[0], 50001);
	/* The sleeper wakes at the timer's time, not in its own past. */
	bool has_woken = false;
	for (unsigned i = 0; i < stretch_count; i++)
		if (stretches[i].vcpu == 0 && stretches[i].from > 0) {
			assert_int_equal(stretches[i].from, 50001);
			has_woken = true;
			break;
		}
	assert_true(has_woken);
	vm_destroy(vm);
}

static void test_halted_forever(void **state)
{
	struct vm *vm = make(1);
	struct vm_outcome o;
	scripts[0].halt_at = 5000;
	vm_run(vm, &o);
	assert_int_equal(o.end, VM_END_HALTED);
	assert_non_null(strstr(o.text, "no timer"));
	vm_destroy(vm);
}

static void test_outside_requests(void **state)
{
	struct vm *vm = make(2);
	struct vm_outcome o;
	vm_end(vm, VM_END_SIGNAL, 15, "first");
	vm_end(vm, VM_END_QUIT, 0, "second");
	vm_run(vm, &o);
	assert_int_equal(o.end, VM_END_SIGNAL);
	assert_int_equal(o.detail, 15);
	assert_string_equal(o.text, "first");
	vm_destroy(vm);
	vm = make(1);
	vm_pause(vm);
	vm_run_for(vm, 1000, &o);
	assert_int_equal(o.end, VM_END_NONE);
	assert_int_equal(vm_instructions(vm), 0);
	vm_resume(vm);
	vm_run_for(vm, 1000, &o);
	assert_int_equal(vm_instructions(vm), 1000);
	vm_destroy(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_stretch_for_all),
		cmocka_unit_test(test_timer_ends_a_turn),
		cmocka_unit_test(test_earlier_deadline),
		cmocka_unit_test(test_idle_jumps),
		cmocka_unit_test(test_one_halted_one_runs),
		cmocka_unit_test(test_halted_forever),
		cmocka_unit_test(test_outside_requests),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
