/*
 * When things happen: a run ends at its exact instruction, however it is cut; interrupts, single
 * steps and breakpoints come between the instructions where the manual says.
 */
#include "twin.h"
#include "window.h"

/* ---- cuts ---- */

/* Loops, calls, strings, the FPU, memory: something of everything, for ever. */
static const uint8_t busy_code[] = {
	0xb9, 0x05, 0x00, 0x00, 0x00,			      /* 00 mov ecx, 5 */
	0x01, 0x0d, 0x20, 0x00, 0x00, 0x00,		      /* 05 add [rip + 0x20], ecx */
	0x0f, 0xaf, 0xc1,				      /* 0b imul eax, ecx */
	0x83, 0xc0, 0x07,				      /* 0e add eax, 7 */
	0x50, 0x5b,					      /* 11 push rax; pop rbx */
	0xe2, 0xf0,					      /* 13 loop 05 */
	0x48, 0x89, 0xf7,				      /* 15 mov rdi, rsi */
	0xb1, 0x10, 0xf3, 0xaa,				      /* 18 mov cl, 16; rep stosb */
	0xe8, 0x02, 0x00, 0x00, 0x00,			      /* 1c call 23 */
	0xeb, 0xdd,					      /* 21 jmp 00 */
	0x0f, 0x31, 0x01, 0xc2, 0xd9, 0xe8, 0xdd, 0x1e, 0xc3, /* 23 rdtsc; add; fld1; fstp; ret */
};

static void enter_busy(struct machine *m)
{
	enter_long(m, 0);
	poke(m, CODE, busy_code, sizeof(busy_code));
	m->v.state.gpr[GPR_RSI] = DATA;
	m->v.state.fpu.fcw = 0x37f; /* as FNINIT leaves it */
	m->v.state.fpu.ftw = 0;
	m->ledger = (struct ledger){0};
	interp_ops.state_changed(m->engine, 0);
}

static void run_until(struct machine *m, uint64_t until)
{
	interp_ops.run(m->engine, 0, until, &m->exit);
	assert_int_equal(m->exit.reason, EXIT_BUDGET);
	assert_int_equal(clock_now(&m->clock), until);
}

static void test_cuts_are_invisible(void **state)
{
	struct machine *whole = *state, *cut, *moved;
	uint32_t random = 1;
	void *other[2];

	machine_create(&other[0]);
	machine_create(&other[1]);
	cut = other[0];
	moved = other[1];
	enter_busy(whole);
	machine_copy(cut, whole);
	for (uint64_t until = 50; until < 5000; until += 50) {
		run_until(whole, until);
		while (clock_now(&cut->clock) < until) {
			random = random * 1664525 + 1013904223;
			uint64_t to = clock_now(&cut->clock) + 1 + (random >> 24) % 30;
			run_until(cut, to < until ? to : until);
		}
		assert_null(machine_difference(whole, cut));
		machine_copy(moved, whole); /* a fresh engine goes on from here */
		run_until(moved, until + 17);
		machine_copy(cut, moved);
		run_until(whole, until + 17);
		assert_null(machine_difference(whole, cut));
	}
	assert_int_equal(ledger_total(&whole->ledger, EVENT_INSTRUCTION), clock_now(&whole->clock));
	machine_destroy(&other[0]);
	machine_destroy(&other[1]);
}

/* Of a byte, of a word and of no memory: loops that have thousands of iterations in a page. */
static void test_cuts_in_loops(void **state)
{
	static const uint8_t loops[][11] = {
		{0x88, 0x07, 0x48, 0xff, 0xc7, 0x48, 0xff, 0xc9, 0x75, 0xf6}, /* mov [rdi], al */
		{0x8a, 0x07, 0x48, 0xff, 0xc7, 0x48, 0xff, 0xc9, 0x75, 0xf6}, /* mov al, [rdi] */
		{0x89, 0xc2, 0x48, 0xff, 0xc7, 0x48, 0xff, 0xc9, 0x75, 0xf6}, /* mov edx, eax */
		{0x66, 0x89, 0x07, 0x48, 0xff, 0xc7, 0x48, 0xff, 0xc9, 0x75, 0xf5},
	}; /* each with: inc rdi; dec rcx; jnz */
	struct machine *m = *state;

	for (unsigned k = 0; k < 4; k++)
		for (unsigned cut = 50; cut < 40000; cut += cut / 3) {
			enter_busy(m);
			poke(m, CODE, loops[k], sizeof(loops[k]));
			m->v.state.gpr[GPR_RDI] = DATA + 5;
			m->v.state.gpr[GPR_RCX] = 1u << 20;
			mmu_reset(m->mmu);
			interp_ops.state_changed(m->engine, 0);
			run_until(m, clock_now(&m->clock) + cut);
			assert_int_equal(m->v.state.gpr[GPR_RDI], DATA + 5 + (cut + 2) / 4);
			assert_int_equal(m->v.state.gpr[GPR_RCX], (1u << 20) - (cut + 1) / 4);
		}
}

/* Twice the same element, into registers that a translator may have no place for. */
static void test_loop_reads_twice(void **state)
{
	static const uint8_t loop[] = {
		0x4c, 0x8b, 0x34, 0xce, /* mov r14, [rsi + rcx * 8] */
		0x4c, 0x8b, 0x3c, 0xce, /* mov r15, [rsi + rcx * 8] */
		0x4c, 0x01, 0xf0,	/* add rax, r14 */
		0x4c, 0x01, 0xfb,	/* add rbx, r15 */
		0x48, 0xff, 0xc1,	/* inc rcx */
		0x48, 0x39, 0xd1,	/* cmp rcx, rdx */
		0x75, 0xea,		/* jne */
		0xeb, 0xfe,		/* jmp . */
	};
	const unsigned count = 400;
	struct machine *m = *state;
	uint64_t elements[400], sum = 0;

	for (unsigned k = 0; k < count; k++)
		sum += elements[k] = k * k + 3;
	enter_busy(m);
	poke(m, CODE, loop, sizeof(loop));
	poke(m, DATA, elements, sizeof(elements));
	m->v.state.gpr[GPR_RAX] = m->v.state.gpr[GPR_RBX] = m->v.state.gpr[GPR_RCX] = 0;
	m->v.state.gpr[GPR_RDX] = count;
	m->v.state.gpr[GPR_RSI] = DATA;
	mmu_reset(m->mmu);
	interp_ops.state_changed(m->engine, 0);
	run_until(m, clock_now(&m->clock) + 20000);
	assert_int_equal(m->v.state.gpr[GPR_RAX], sum);
	assert_int_equal(m->v.state.gpr[GPR_RBX], sum);
}

/* ---- interrupts ---- */

static void offer(struct machine *m, int vector)
{
	m->pending = vector;
	vcpu_request(&m->v, REQUEST_INTERRUPT);
}

static void test_shadows(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	offer(m, 0x50);
	run_code(m, 0x90, 0xfb, 0xff, 0xc0, 0xff, 0xc0, 0xf4); /* nop; sti; inc eax; inc eax */
	assert_vector(m, 0x50);
	assert_int_equal(slot(m, 0, 8), CODE + 4);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 1);

	enter_long(m, 0); /* the second STI in a row begins no shadow of its own */
	offer(m, 0x50);
	run_code(m, 0xfb, 0xfb, 0xff, 0xc0, 0xf4);
	assert_vector(m, 0x50);
	assert_int_equal(slot(m, 0, 8), CODE + 2);

	enter_long(m, 0); /* sti; cli: never */
	offer(m, 0x50);
	run_code(m, 0xfb, 0xfa, 0xff, 0xc0, 0xf4);
	assert_halted_at(m, 5);

	enter_long(m, 0); /* mov ss, too */
	m->v.state.rflags |= FLAG_IF;
	m->v.state.gpr[GPR_RAX] = KERNEL_DS;
	m->pending = -1;
	m->v.requests = 0;
	m->v.state.interrupt_shadow = SHADOW_MOV_SS;
	offer(m, 0x50);
	run_code(m, 0x90, 0x90, 0xf4);
	assert_vector(m, 0x50);
	assert_int_equal(slot(m, 0, 8), CODE + 1);
}

static void test_interrupt_at_its_cycle(void **state)
{
	struct machine *m = *state;

	for (unsigned at = 1; at < 40; at++) {
		enter_busy(m);
		m->v.state.rflags |= FLAG_IF;
		mmu_reset(m->mmu);
		interp_ops.state_changed(m->engine, 0);
		uint64_t start = clock_now(&m->clock);
		run_until(m, start + at);
		uint64_t rip = m->v.state.rip;
		offer(m, 0x50);
		interp_ops.run(m->engine, 0, start + at + 10, &m->exit);
		assert_int_equal(m->exit.reason, EXIT_HALT);
		assert_vector(m, 0x50);
		assert_int_equal(slot(m, 0, 8), rip);
	}
}

/* An interrupt that waits beside an NMI, with a gate that leaves IF on, comes before the first
 * instruction of the NMI's handler. */
static void test_two_at_once(void **state)
{
	struct machine *m = *state;

	for (unsigned cut = 0; cut < 2; cut++) {
		enter_busy(m);
		m->v.state.rflags |= FLAG_IF;
		mmu_reset(m->mmu);
		interp_ops.state_changed(m->engine, 0);
		run_until(m, clock_now(&m->clock) + 5);
		offer(m, 0x50);
		vcpu_request(&m->v, REQUEST_NMI);
		set_idt64(m, VECTOR_NMI, KERNEL_CS64, handler(VECTOR_NMI), 0x8f, 0);
		if (cut)
			run_until(m, clock_now(&m->clock) + 1);
		interp_ops.run(m->engine, 0, clock_now(&m->clock) + 10, &m->exit);
		assert_vector(m, 0x50); /* the NMI was first, the interrupt came on top of it */
		assert_int_equal(slot(m, 0, 8), handler(VECTOR_NMI));
		m->v.state.nmi_blocked = 0;
	}
}

static void test_interrupt_between_rep_pieces(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.rflags |= FLAG_IF;
	m->v.state.gpr[GPR_RDI] = DATA;
	m->v.state.gpr[GPR_RCX] = 3 * 4096;
	const uint8_t code[] = {0xf3, 0xaa, 0xf4};
	poke(m, CODE, code, 3);
	mmu_reset(m->mmu);
	interp_ops.state_changed(m->engine, 0);
	run_until(m, clock_now(&m->clock) + 1);
	assert_int_equal(m->v.state.rip, CODE);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 2 * 4096);
	assert_int_equal(m->v.state.gpr[GPR_RDI], DATA + 4096);
	offer(m, 0x50);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 100, &m->exit);
	assert_vector(m, 0x50);
	assert_int_equal(slot(m, 0, 8), CODE);
	assert_true(slot(m, 2, 8) & FLAG_RF);
	poke_value(m, handler(0x50) + 1, 0xcf48, 2); /* iretq */
	m->v.state.activity = ACTIVITY_RUNNING;
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 100, &m->exit);
	assert_halted_at(m, 3);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 0);
}

static void test_stop_and_halt(void **state)
{
	struct machine *m = *state;

	enter_busy(m);
	vcpu_request(&m->v, REQUEST_STOP);
	interp_ops.run(m->engine, 0, 1000, &m->exit);
	assert_int_equal(m->exit.reason, EXIT_STOP);
	assert_int_equal(m->v.state.rip, CODE);
	run_until(m, clock_now(&m->clock) + 10); /* once */

	enter_long(m, 0);
	m->v.state.rflags |= FLAG_IF;
	run_code(m, 0xf4, 0xff, 0xc0, 0xf4);
	assert_int_equal(m->exit.reason, EXIT_HALT);
	assert_halted_at(m, 1);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 100, &m->exit);
	assert_int_equal(m->exit.reason, EXIT_HALT); /* nothing woke it */
	offer(m, 0x50);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 100, &m->exit);
	assert_vector(m, 0x50);
	assert_int_equal(slot(m, 0, 8), CODE + 1);

	enter_long(m, 0); /* without IF only an NMI wakes */
	m->v.requests = 0;
	run_code(m, 0xf4);
	offer(m, 0x50);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 100, &m->exit);
	assert_halted_at(m, 1);
	vcpu_request(&m->v, REQUEST_NMI);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 100, &m->exit);
	assert_vector(m, VECTOR_NMI);
}

/* ---- single steps ---- */

/* Runs `bytes` with TF: the #DB's return address, or -1. */
static int64_t stepped_to(struct machine *m, const uint8_t *bytes, size_t n, bool begins_with_tf)
{
	poke(m, CODE, bytes, n);
	m->v.state.rflags |= begins_with_tf ? FLAG_TF : 0;
	go(m);
	if (ended_in(m) != VECTOR_DB)
		return -1;
	assert_true(m->v.state.dr[6] & BIT(14));
	return (int64_t)(slot(m, 0, 8) - CODE);
}

#define STEPPED(tf, ...) \
	stepped_to(m, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), tf)

static void test_single_steps(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	assert_int_equal(STEPPED(true, 0x90, 0x90, 0xf4), 1);
	enter_long(m, 0);
	assert_int_equal(STEPPED(true, 0xeb, 0x10), 0x12);
	/* POPF that sets TF: after the instruction that follows. */
	enter_long(m, 0);
	assert_int_equal(STEPPED(false, 0x68, 0x02, 0x01, 0, 0, 0x9d, 0x90, 0x90, 0xf4), 7);
	/* POPF that clears it: still after POPF. */
	enter_long(m, 0);
	m->v.state.gpr[GPR_RSP] = DATA;
	poke_value(m, DATA, 2, 8);
	assert_int_equal(STEPPED(true, 0x9d, 0x90, 0xf4), 1);
	/* REP: after each iteration. */
	enter_long(m, 0);
	m->v.state.gpr[GPR_RDI] = DATA;
	m->v.state.gpr[GPR_RCX] = 5;
	assert_int_equal(STEPPED(true, 0xf3, 0xaa, 0xf4), 0);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 4);
	enter_long(m, 0);
	m->v.state.gpr[GPR_RDI] = DATA;
	m->v.state.gpr[GPR_RCX] = 1;
	assert_int_equal(STEPPED(true, 0xf3, 0xaa, 0xf4), 2);
	/* MOV SS holds the trap off for an instruction. */
	enter_long(m, 0);
	m->v.state.gpr[GPR_RAX] = KERNEL_DS;
	assert_int_equal(STEPPED(true, 0x8e, 0xd0, 0x90, 0x90, 0xf4), 3);
	/* INT n clears TF and takes no trap. */
	enter_long(m, 0);
	assert_int_equal(STEPPED(true, 0xcd, 0x80), -1);
	assert_vector(m, 0x80);
	/* Neither does what faults. */
	enter_long(m, 0);
	assert_int_equal(STEPPED(true, 0x0f, 0x0b), -1);
	assert_vector(m, VECTOR_UD);
	assert_true(slot(m, 2, 8) & FLAG_TF);
}

/* ---- debug registers ---- */

static void test_data_breakpoints(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0); /* write of 4 bytes at DATA */
	m->v.state.dr[0] = DATA;
	m->v.state.dr[7] = 0x402 | 0xdull << 16;
	m->v.state.gpr[GPR_RBX] = DATA;
	run_code(m, 0x8b, 0x03, 0x89, 0x43, 0x04, 0x88, 0x43, 0x03, 0x90, 0xf4);
	assert_vector(m, VECTOR_DB);
	assert_int_equal(slot(m, 0, 8), CODE + 8); /* reading and the neighbour do not count */
	assert_int_equal(m->v.state.dr[6] & 0xf, 1);

	enter_long(m, 0); /* an iteration of a REP */
	m->v.state.dr[1] = DATA + 3;
	m->v.state.dr[7] = 0x408 | 1ull << 20;
	m->v.state.gpr[GPR_RDI] = DATA;
	m->v.state.gpr[GPR_RCX] = 10;
	run_code(m, 0xf3, 0xaa, 0xf4);
	assert_vector(m, VECTOR_DB);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 6);
	assert_int_equal(slot(m, 0, 8), CODE);
	assert_int_equal(m->v.state.dr[6] & 0xf, 2);

	/* An instruction that faults after the access has not happened. */
	enter_window(m, 0);
	m->v.state.dr[0] = DATA;
	m->v.state.dr[7] = 0x402 | 0xfull << 16;
	m->v.state.gpr[GPR_RSI] = DATA;
	m->v.state.gpr[GPR_RDI] = WINDOW + 0x8000;
	run_code(m, 0xa5);
	assert_vector(m, VECTOR_PF);
	assert_int_equal(m->v.state.dr[6] & 0xf, 0);
}

/* IRET with RF in the image passes the breakpoint that its target has. */
static void test_rf_passes_a_breakpoint(void **state)
{
	static const uint8_t handler_code[] = {0x81, 0x4c, 0x24, 0x10, 0, 0, 1, 0, 0x48, 0xcf};
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.dr[0] = CODE + 1;
	m->v.state.dr[7] = 0x402;
	poke(m, handler(VECTOR_DB), handler_code, sizeof(handler_code)); /* or [rsp + 16], RF */
	run_code(m, 0x90, 0xff, 0xc0, 0xff, 0xc0, 0xf4);
	assert_halted_at(m, 6);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 2);
	assert_int_equal(m->v.state.dr[6] & 0xf, 1);
}

/* ---- alignment ---- */

static void test_alignment(void **state)
{
	struct machine *m = *state;

	for (unsigned cpl = 0; cpl <= 3; cpl += 3)
		for (unsigned offset = 0; offset < 5; offset++) {
			enter_long(m, cpl);
			m->v.state.cr0 |= CR0_AM;
			m->v.state.rflags |= FLAG_AC;
			m->v.state.gpr[GPR_RBX] = DATA + offset;
			m->v.state.gpr[GPR_RDI] = DATA + offset;
			m->v.state.gpr[GPR_RCX] = 3;
			run_code(m, 0x88, 0x03, 0x01, 0x03, 0xf3, 0xab, 0x0f, 0x0b);
			bool checks = cpl == 3 && offset % 4;
			assert_vector(m, checks ? VECTOR_AC : VECTOR_UD);
			assert_int_equal(slot(m, checks, 8), CODE + (checks ? 2 : 6));
			if (checks)
				assert_int_equal(slot(m, 0, 8), 0);
		}
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_cuts_are_invisible),
		T(test_cuts_in_loops),
		T(test_loop_reads_twice),
		T(test_shadows),
		T(test_interrupt_at_its_cycle),
		T(test_two_at_once),
		T(test_interrupt_between_rep_pieces),
		T(test_stop_and_halt),
		T(test_single_steps),
		T(test_data_breakpoints),
		T(test_rf_passes_a_breakpoint),
		T(test_alignment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
