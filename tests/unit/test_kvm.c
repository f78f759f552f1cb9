/*
 * The engine kvm: vector state's format; and, where /dev/kvm opens, that the state which goes into
 * KVM comes out again, that what the guest writes is in the dirty log, that a run ends in time and
 * that the kernel's statistics are read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "engine/kvm/private.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "x86/tlb_geometry.h"

#define RAM_BYTES (4u << 20)
#define CODE 0x10000u
#define TABLES 0x20000u

struct machine {
	struct memory *memory;
	struct mmu *mmu;
	struct bus bus;
	struct clock clock;
	struct ledger ledger;
	struct cpu_model model;
	struct tlb_geometry geometry;
	struct vcpu v;
	struct engine *engine;
	struct vm_exit exit;
};

static void make_parts(struct machine *m)
{
	struct mmu_config config = {.geometry = &m->geometry, .strategy = "native"};

	struct tlb_array array = {.entries = 16, .ways = 4, .sizes = TLB_4K};
	m->geometry.l1d = m->geometry.l1i = (struct tlb_side){.array = {array}, .array_count = 1};
	assert_int_equal(memory_create(&m->memory, RAM_BYTES, NULL), 0);
	m->v = (struct vcpu){.model = &m->model, .clock = &m->clock, .ledger = &m->ledger};
	assert_int_equal(mmu_create(&m->mmu, &config, &m->v, m->memory, NULL), 0);
	bus_init(&m->bus);
}

/* False where /dev/kvm does not open. */
static bool machine_open(struct machine *m)
{
	struct error e = {0};
	uint64_t hz;

	memset(m, 0, sizeof(*m));
	if (kvm_tsc_hz(&hz, &e)) {
		print_message("[  SKIPPED ] %s\n", e.text);
		return false;
	}
	assert_int_equal(cpu_model_parse(&m->model, "x86-64", &e), 0);
	assert_int_equal(kvm_fit_model(&m->model, false, &e), 0);
	clock_init(&m->clock, CLOCK_REAL, hz);
	make_parts(m);
	struct engine_config config = {
		.memory = m->memory, .bus = &m->bus, .clock = &m->clock, .vcpu_count = 1};
	if (kvm_ops.create(&m->engine, &config, &e) ||
	    kvm_ops.add_vcpu(m->engine, &m->v, m->mmu, &e))
		fail_msg("%s", e.text);
	vcpu_reset(&m->v);
	kvm_ops.state_changed(m->engine, 0);
	return true;
}

static void machine_close(struct machine *m)
{
	kvm_ops.destroy(m->engine);
	mmu_destroy(m->mmu);
	memory_destroy(m->memory);
}

/* Flat 32-bit code at CODE. */
static void start_flat(struct machine *m, const void *code, size_t bytes)
{
	struct vcpu_state *s = &m->v.state;

	assert_int_equal(memory_write(m->memory, gpa(CODE), code, bytes), 0);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct segment_register){
			.limit = 0xffffffff,
			.selector = i == SEG_CS ? 8 : 16,
			.attributes =
				(uint16_t)(ATTR_P | ATTR_S | ATTR_DB | ATTR_G | ATTR_ACCESSED |
					   (i == SEG_CS ? ATTR_CODE | ATTR_READABLE
							: ATTR_WRITABLE))};
	s->cr0 = CR0_PE | CR0_ET;
	s->rip = CODE;
}

static void run_ms(struct machine *m, unsigned ms)
{
	uint64_t until = clock_now(&m->clock) + clock_cycles_from_ns(&m->clock, ms * 1000000ull);

	m->exit = (struct vm_exit){.reason = EXIT_BUDGET};
	kvm_ops.run(m->engine, 0, until, &m->exit);
}

static void fill(void *bytes, size_t count, uint8_t seed)
{
	for (size_t i = 0; i < count; i++)
		((uint8_t *)bytes)[i] = (uint8_t)(seed + i * 7);
}

static void test_vectors_keep_their_places(void **unused)
{
	struct fpu_state in = {.fcw = 0x27f,
			       .fsw = 0x3800,
			       .ftw = 0x80,
			       .mxcsr = 0x1fa0,
			       .fip = 0x123456789ab,
			       .fdp = 0xba987654321,
			       .fop = 0x1d9};
	struct fpu_state out;
	struct kvm_xsave area;

	fill(in.ymm, sizeof(in.ymm), 3);
	for (unsigned i = 0; i < 8; i++)
		fill(in.st[i], 10, (uint8_t)i);
	kvm_xstate_put(&in, true, &area);
	/* SDM 1, table 10-2 and 13.4: FCW, MXCSR, ST0, XMM0, XSTATE_BV, YMM0's upper half. */
	const uint8_t *bytes = (const uint8_t *)area.region;
	assert_int_equal(bytes[0] | bytes[1] << 8, 0x27f);
	assert_int_equal(bytes[24] | bytes[25] << 8, 0x1fa0);
	assert_memory_equal(bytes + 32, in.st[0], 10);
	assert_memory_equal(bytes + 160, in.ymm[0], 16);
	assert_int_equal(bytes[512], 7);
	assert_memory_equal(bytes + 576, in.ymm[0] + 16, 16);
	kvm_xstate_get(&area, &out);
	assert_memory_equal(&out, &in, sizeof(out));
}

static void test_absent_component_is_initial(void **unused)
{
	struct fpu_state in = {.fcw = 0x27f, .mxcsr = 0x1f80}, out;
	struct kvm_xsave area;

	fill(in.ymm, sizeof(in.ymm), 3);
	kvm_xstate_put(&in, true, &area);
	((uint8_t *)area.region)[512] = 2; /* SSE alone */
	kvm_xstate_get(&area, &out);
	assert_int_equal(out.fcw, 0x37f);
	assert_int_equal(out.mxcsr, 0x1f80);
	assert_memory_equal(out.ymm[0], in.ymm[0], 16);
	assert_int_equal(out.ymm[0][16], 0);
}

/* A state of 64-bit code with something everywhere. */
static void fill_state(struct vcpu_state *s)
{
	for (unsigned i = 0; i < GPR_COUNT; i++)
		s->gpr[i] = 0x1111111111111111ull * i + 1;
	s->rip = 0xffffffff81000123;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] =
			(struct segment_register){.limit = 0xffffffff,
						  .selector = 0x10,
						  .attributes = ATTR_P | ATTR_S | ATTR_G | ATTR_DB |
								ATTR_WRITABLE | ATTR_ACCESSED};
	s->seg[SEG_CS].selector = 8;
	s->seg[SEG_CS].attributes = ATTR_P | ATTR_S | ATTR_G | ATTR_L | ATTR_CODE | ATTR_READABLE |
				    ATTR_ACCESSED;
	s->seg[SEG_FS].base = 0x7fff12345000;
	s->seg[SEG_GS].base = 0xffff888000000000;
	s->tr = (struct segment_register){.base = 0xfffffe0000003000,
					  .limit = 0x67,
					  .selector = 0x40,
					  .attributes = ATTR_P | 0xb};
	s->gdtr = (struct table_register){.base = 0xfffffe0000001000, .limit = 0x7f};
	s->idtr = (struct table_register){.base = 0xfffffe0000000000, .limit = 0xfff};
	s->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP;
	s->cr2 = 0x1234567000;
	s->cr3 = TABLES;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_PGE;
	s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	s->star = 0x23001000000000;
	s->lstar = 0xffffffff81e00000;
	s->cstar = 0xffffffff81e01000;
	s->fmask = 0x47700;
	s->kernel_gs_base = 0x5000;
	s->sysenter_cs = 0x10;
	s->sysenter_esp = 0xfffffe0000002200;
	s->sysenter_eip = 0xffffffff81e01400;
	s->pat = 0x407050600070106;
	s->dr[0] = 0x1000;
	s->dr[3] = 0xffffffff81000000;
	fill(s->fpu.ymm, sizeof(s->fpu.ymm), 9);
	for (unsigned i = 0; i < 16; i++)
		memset(s->fpu.ymm[i] + 16, 0, 16); /* x86-64 has no AVX */
	s->fpu.fcw = 0x37f;
}

static void test_state_comes_back(void **unused)
{
	struct machine m;
	const char *what = "";

	if (!machine_open(&m))
		return;
	struct kvm_vcpu *c = &((struct kvm_engine *)m.engine)->vcpus[0];
	fill_state(&m.v.state);
	vcpu_set_rflags(&m.v, 0x246 | FLAG_OF);
	struct vcpu_state before = m.v.state;
	if (kvm_registers_put(c, &what))
		fail_msg("KVM refuses the %s", what);
	memset(m.v.state.gpr, 0, sizeof(before.gpr));
	memset(m.v.state.seg, 0, sizeof(before.seg));
	memset(&m.v.state.fpu, 0, sizeof(before.fpu));
	m.v.state.cr3 = m.v.state.lstar = m.v.state.rip = m.v.state.dr[3] = m.v.state.pat = 0;
	vcpu_set_rflags(&m.v, 2);
	if (kvm_registers_get(c, &what))
		fail_msg("KVM does not tell the %s", what);
	assert_memory_equal(m.v.state.gpr, before.gpr, 16 * sizeof(uint64_t));
	assert_int_equal(vcpu_rflags(&m.v), 0xa46);
	before.flags_low = m.v.state.flags_low;
	before.rflags = m.v.state.rflags;
	assert_memory_equal(m.v.state.seg, before.seg, sizeof(before.seg));
	assert_memory_equal(&m.v.state.fpu, &before.fpu, sizeof(before.fpu));
	assert_memory_equal(&m.v.state.star, &before.star,
			    offsetof(struct vcpu_state, tsc_offset) -
				    offsetof(struct vcpu_state, star));
	assert_memory_equal(m.v.state.dr, before.dr, sizeof(before.dr));
	assert_int_equal(m.v.state.cr3, before.cr3);
	assert_int_equal(m.v.state.pat, before.pat);
	assert_int_equal(m.v.state.rip, before.rip);
	machine_close(&m);
}

static void test_reset_state_is_taken(void **unused)
{
	struct machine m;
	const char *what = "";

	if (!machine_open(&m))
		return;
	struct kvm_vcpu *c = &((struct kvm_engine *)m.engine)->vcpus[0];
	struct vcpu_state before = m.v.state;
	if (kvm_registers_put(c, &what) || kvm_registers_get(c, &what))
		fail_msg("KVM refuses the %s", what);
	assert_int_equal(m.v.state.rip, 0xfff0);
	assert_int_equal(m.v.state.seg[SEG_CS].base, 0xffff0000);
	assert_memory_equal(&m.v.state.fpu, &before.fpu, sizeof(before.fpu));
	machine_close(&m);
}

static void test_writes_are_logged(void **unused)
{
	static const uint8_t code[] = {
		0xa2, 0x08, 0x50, 0x03, 0x00, /* mov [0x35008], al */
		0xf4,			      /* hlt */
	};
	struct machine m;

	if (!machine_open(&m))
		return;
	start_flat(&m, code, sizeof(code));
	assert_int_equal(memory_dirty_start(m.memory, NULL), 0);
	assert_null(memory_dirty_now(m.memory)[0x35 / 8] & 1 << 0x35 % 8 ? "dirty" : NULL);
	run_ms(&m, 1000);
	assert_int_equal(m.exit.reason, EXIT_HALT);
	assert_int_equal(m.v.state.rip, CODE + sizeof(code));
	assert_int_equal(m.v.state.activity, ACTIVITY_HALTED);
	const uint8_t *bits = memory_dirty_now(m.memory);
	assert_true(bits[0x35 / 8] & 1 << 0x35 % 8);
	assert_false(bits[0x36 / 8] & 1 << 0x36 % 8);
	memory_dirty_stop(m.memory);
	machine_close(&m);
}

static void test_endless_loop_ends_in_time(void **unused)
{
	static const uint8_t code[] = {0x40, 0xeb, 0xfd}; /* again: inc eax; jmp again */
	struct machine m;

	if (!machine_open(&m))
		return;
	start_flat(&m, code, sizeof(code));
	uint64_t before = clock_now(&m.clock);
	run_ms(&m, 20);
	uint64_t took_ns = clock_ns_from_cycles(&m.clock, clock_now(&m.clock) - before);
	assert_int_equal(m.exit.reason, EXIT_BUDGET);
	assert_true(took_ns >= 20000000 && took_ns < 10000000000);
	assert_true(m.v.state.gpr[GPR_RAX] > 0);
	/* It goes on where it was. */
	uint64_t rax = m.v.state.gpr[GPR_RAX];
	run_ms(&m, 20);
	assert_true(m.v.state.gpr[GPR_RAX] > rax);
	machine_close(&m);
}

static void test_steps_and_breakpoints(void **unused)
{
	static const uint8_t code[] = {0x40, 0x40, 0x40, 0x40, 0xf4}; /* inc eax ..., hlt */
	struct machine m;

	if (!machine_open(&m))
		return;
	start_flat(&m, code, sizeof(code));
	kvm_ops.single_step(m.engine, 0);
	run_ms(&m, 1000);
	assert_int_equal(m.exit.reason, EXIT_STEPPED);
	assert_int_equal(m.v.state.rip, CODE + 1);
	assert_int_equal(kvm_ops.set_breakpoint(m.engine, gva(CODE + 3), true), 0);
	run_ms(&m, 1000);
	assert_int_equal(m.exit.reason, EXIT_BREAKPOINT);
	assert_int_equal(m.v.state.rip, CODE + 3);
	assert_int_equal(m.v.state.gpr[GPR_RAX], 3);
	/* It is met once, and the run goes on behind it. */
	run_ms(&m, 1000);
	assert_int_equal(m.exit.reason, EXIT_HALT);
	assert_int_equal(m.v.state.gpr[GPR_RAX], 4);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(kvm_ops.set_breakpoint(m.engine, gva(i), true), 0);
	assert_int_equal(kvm_ops.set_breakpoint(m.engine, gva(9), true), -28);
	machine_close(&m);
}

static void test_statistics(void **unused)
{
	static const uint8_t code[] = {0xe6, 0x80, 0xe4, 0x81, 0xf4}; /* out, in, hlt */
	static struct kvm_statistic list[KVM_STATISTICS_MAX];
	struct machine m;
	struct error e = {0};
	unsigned count;

	if (!machine_open(&m))
		return;
	start_flat(&m, code, sizeof(code));
	run_ms(&m, 1000);
	assert_int_equal(m.exit.reason, EXIT_HALT);
	assert_int_equal(ledger_total(&m.ledger, EVENT_EXIT_PORT_WRITE), 1);
	assert_int_equal(ledger_total(&m.ledger, EVENT_EXIT_PORT_READ), 1);
	assert_int_equal(ledger_total(&m.ledger, EVENT_UNHANDLED_PORT), 2);
	assert_int_equal(ledger_total(&m.ledger, EVENT_EXIT_HLT), 1);
	assert_false(kvm_counts(EVENT_INSTRUCTION));
	int r = kvm_statistics_read(m.engine, list, &count, &e);
	if (!r) {
		assert_true(count > 10);
		bool has_exits = false;
		for (unsigned i = 0; i < count; i++)
			has_exits |= !strcmp(list[i].name, "exits") && !list[i].is_of_vm;
		assert_true(has_exits);
	} else {
		assert_int_equal(r, -95);
	}
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors_keep_their_places),
		cmocka_unit_test(test_absent_component_is_initial),
		cmocka_unit_test(test_state_comes_back),
		cmocka_unit_test(test_reset_state_is_taken),
		cmocka_unit_test(test_writes_are_logged),
		cmocka_unit_test(test_endless_loop_ends_in_time),
		cmocka_unit_test(test_steps_and_breakpoints),
		cmocka_unit_test(test_statistics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
