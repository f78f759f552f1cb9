/*
 * A machine that is saved and loaded is the same machine: what it does afterwards, and what it
 * would save again, is alike to the byte, whatever strategy it was saved from and goes on under.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "counting_guest.h"
#include "cpu/vcpu.h"
#include "memory/memory.h"
#include "state/state.h"
#include "vm/vm.h"

#include <cmocka.h>

static struct state_writer *save(struct vm *vm)
{
	struct state_writer *w = NULL;
	assert_int_equal(state_buffer_create(&w), 0);
	vm_save(vm, w);
	return w;
}

/* What a snapshot's file does, from machine to machine. */
static int copy_memory(void *opaque, struct memory *m, struct error *e)
{
	const struct memory *from = vm_memory(opaque);
	memcpy(m->ram, from->ram, m->ram_bytes);
	return 0;
}

static int try_load(const struct vm_config *config, struct vm *from, const uint8_t *bytes,
		    size_t size_bytes, struct vm **out, struct error *e)
{
	struct state_reader *r = NULL;
	int result = state_reader_create(&r, bytes, size_bytes, e);
	if (result)
		return result;
	struct vm_saved saved = {.model = vm_model(from),
				 .state = r,
				 .instructions = vm_instructions_ever(from),
				 .fill_memory = copy_memory,
				 .opaque = from};
	struct vm_config c = *config;
	c.saved = &saved;
	result = vm_create(out, &c, e);
	state_reader_destroy(r);
	return result;
}

static struct vm *move(const struct vm_config *config, struct vm *from)
{
	struct state_writer *w = save(from);
	struct vm *vm = NULL;
	struct error e = {0};
	size_t n;
	const uint8_t *bytes = state_buffer_bytes(w, &n);
	if (try_load(config, from, bytes, n, &vm, &e))
		fail_msg("%s", e.text);
	state_writer_destroy(w);
	return vm;
}

static void assert_saves_alike(struct vm *a, struct vm *b)
{
	struct state_writer *wa = save(a), *wb = save(b);
	size_t na, nb;
	const uint8_t *bytes_a = state_buffer_bytes(wa, &na),
		      *bytes_b = state_buffer_bytes(wb, &nb);
	assert_int_equal(na, nb);
	assert_memory_equal(bytes_a, bytes_b, na);
	state_writer_destroy(wa);
	state_writer_destroy(wb);
}

static void test_save_load_save(void **state)
{
	struct guest *g = *state;
	for (uint64_t n = 0; n < 3000; n += 7 + n / 3) {
		struct vm *a = make(&g->config);
		advance(a, n);
		struct vm *b = move(&g->config, a);
		char of_a[33], of_b[33];
		assert_saves_alike(a, b);
		hash(a, of_a);
		hash(b, of_b);
		assert_string_equal(of_a, of_b);
		assert_true(vm_instructions(b) == 0);
		assert_true(vm_instructions_ever(b) == n);
		vm_destroy(a);
		vm_destroy(b);
	}
}

/* Run n + m = run n, save, load, run m; from every strategy to every other. */
static void test_going_on(void **state)
{
	struct guest *g = *state;
	enum { TOTAL = 20000 };
	struct vm *whole = make(&g->config);
	char expected[33], seen[33];
	advance(whole, TOTAL);
	hash(whole, expected);
	assert_in_range(vm_console_bytes(whole), 20, TOTAL);
	for (uint64_t n = 1; n < TOTAL; n = n * 3 + 1)
		for (unsigned i = 0; i < strategy_count() * 2; i++) {
			struct vm_config from = g->config, to = g->config;
			from.paging = strategy(i);
			to.paging = strategy(i + 1 + i / strategy_count());
			to.profile = "k10-2350"; /* another frequency, which the guest never sees */
			struct vm *a = make(&from);
			advance(a, n);
			struct vm *b = move(&to, a);
			vm_destroy(a);
			advance(b, TOTAL - n);
			hash(b, seen);
			assert_string_equal(seen, expected);
			assert_saves_alike(whole, b);
			vm_destroy(b);
		}
	vm_destroy(whole);
}

/* Several vcpus: stopping cuts a turn, so both sides stop there. */
static void test_going_on_with_several_vcpus(void **state)
{
	struct guest *g = *state;
	g->config.cpu_count = 3;
	struct vm *a = make(&g->config);
	advance(a, 777);
	struct vm *b = move(&g->config, a);
	for (unsigned i = 0; i < 5; i++) {
		advance(a, 1000 + i);
		advance(b, 1000 + i);
		assert_saves_alike(a, b);
	}
	vm_destroy(a);
	vm_destroy(b);
	g->config.cpu_count = 1;
}

static void test_between_clocks(void **state)
{
	struct guest *g = *state;
	struct vm_config real = g->config;
	real.clock = CLOCK_REAL;
	struct vm *a = make(&g->config);
	advance(a, 5000);
	uint64_t then = clock_now(vm_clock(a));
	struct vm *b = move(&real, a);
	assert_true(clock_now(vm_clock(b)) >= then);
	advance(b, 3000);
	uint64_t printed = vm_console_bytes(b);
	struct vm *c = move(&g->config, b);
	assert_true(clock_now(vm_clock(c)) > then);
	advance(c, 3000);
	assert_true(vm_console_bytes(c) > printed);
	vm_destroy(a);
	vm_destroy(b);
	vm_destroy(c);
}

/* A reset afterwards loads the kernel's file again. */
static void test_reset_after_loading(void **state)
{
	struct guest *g = *state;
	struct vm *a = make(&g->config);
	advance(a, 5000);
	struct vm *b = move(&g->config, a);
	uint16_t ticks = 0xffff;
	vm_reset(b);
	advance(b, 30);
	assert_int_equal(memory_read(vm_memory(b), gpa(0x7c00), &ticks, 2), 0);
	assert_int_equal(ticks, 0x31fa);
	assert_in_range(vm_vcpu(b, 0)->state.rip, 0x7c00, 0x7c00 + sizeof(code));
	unlink(g->file);
	struct vm_outcome o;
	vm_reset(b);
	vm_run_for(b, 30, &o);
	assert_int_equal(o.end, VM_END_ERROR);
	assert_non_null(strstr(o.text, g->file));
	vm_destroy(a);
	vm_destroy(b);
}

/* Any byte of the state flipped: refused, or a machine that runs without breaking us. */
static void test_damaged_state(void **state)
{
	struct guest *g = *state;
	struct vm *a = make(&g->config);
	advance(a, 5000);
	struct state_writer *w = save(a);
	size_t n;
	const uint8_t *good = state_buffer_bytes(w, &n);
	uint8_t *bytes = malloc(n);
	unsigned refused = 0, count = 0;
	g->config.timeout_ms = 20; /* for those that fault for ever and retire nothing */
	for (size_t at = 0; at < n; at += 1 + at % 37) {
		struct error e = {0};
		struct vm *b = NULL;
		memcpy(bytes, good, n);
		bytes[at] ^= (uint8_t)(1u << (at % 8));
		count++;
		if (try_load(&g->config, a, bytes, n, &b, &e)) {
			assert_true(strlen(e.text) > 0);
			refused++;
			continue;
		}
		struct vm_outcome o;
		vm_run_for(b, 300, &o);
		vm_destroy(b);
	}
	assert_in_range(refused, 20, count);
	free(bytes);
	state_writer_destroy(w);
	vm_destroy(a);
}

/* ---- calls between turns, and marks ---- */

struct called {
	struct vm *vm;
	unsigned count;
	uint64_t instructions;
};

static void called(void *opaque)
{
	struct called *c = opaque;
	c->count++;
	c->instructions = vm_instructions(c->vm);
}

static void test_calls_come_exactly(void **state)
{
	struct guest *g = *state;
	struct vm *vm = make(&g->config);
	struct called c = {.vm = vm};
	assert_int_equal(vm_call_at(vm, 1234, called, &c), 0);
	assert_int_equal(vm_call_at(vm, 5, called, &c), -EBUSY);
	advance(vm, 1000);
	assert_int_equal(c.count, 0);
	advance(vm, 1000);
	assert_int_equal(c.count, 1);
	assert_true(c.instructions == 1234);
	assert_true(vm_instructions(vm) == 2000);
	assert_int_equal(vm_call_at(vm, 0, called, &c), 0);
	advance(vm, 1);
	assert_int_equal(c.count, 2);
	assert_true(c.instructions == 2000);
	vm_destroy(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_save_load_save, make_guest, drop_guest),
		cmocka_unit_test_setup_teardown(test_going_on, make_guest, drop_guest),
		cmocka_unit_test_setup_teardown(test_going_on_with_several_vcpus, make_guest,
						drop_guest),
		cmocka_unit_test_setup_teardown(test_between_clocks, make_guest, drop_guest),
		cmocka_unit_test_setup_teardown(test_reset_after_loading, make_guest, drop_guest),
		cmocka_unit_test_setup_teardown(test_damaged_state, make_guest, drop_guest),
		cmocka_unit_test_setup_teardown(test_calls_come_exactly, make_guest, drop_guest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
