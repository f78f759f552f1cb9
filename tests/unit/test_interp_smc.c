/*
 * Code that changes while it runs: what a store writes is what the next fetch reads, wherever it
 * lies in the block cache's eyes.
 */
#include "window.h"

/* mov byte [rip + distance], value: 7 bytes */
#define STORE(distance, value) 0xc6, 0x05, (distance), 0, 0, 0, (value)

static void test_next_instruction(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	run_code(m, STORE(1, 0x77), 0xb0, 0x11, 0xf4); /* mov al, 0x11 becomes mov al, 0x77 */
	assert_halted_at(m, 10);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x77);
}

static void test_ahead_in_block(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	run_code(m, STORE(5, 0x0b),	 /* the operation of the last add becomes ... */
		 0xff, 0xc3, 0xff, 0xc3, /* inc ebx twice */
		 0x83, 0xc3, 0x05, 0xf4);
	/* 83 0b 05: or dword [rbx], 5 with rbx = 2: address 2 of the first page. */
	assert_halted_at(m, 15);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 2);
	assert_int_equal(peek(m, 2, 4) & 5, 5);
}

static void test_behind_in_loop(void **state)
{
	static const uint8_t code[] = {
		0x83, 0xc0, 0x01,		    /* add eax, 1: its operand is at CODE + 2 */
		0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, /* inc byte [rip - 7] */
		0xe2, 0xf5,			    /* loop */
		0xf4};
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RCX] = 10;
	poke(m, CODE, code, sizeof(code));
	go(m);
	assert_halted_at(m, sizeof(code));
	assert_int_equal(m->v.state.gpr[GPR_RAX], 55);
	assert_int_equal(peek(m, CODE + 2, 1), 11);
}

/* A REP that is overwritten by itself goes on to its end, or to where it makes room for interrupts;
 * then what it wrote is what is there. */
static void rep_stos_of_hlt(struct machine *m, uint64_t to, uint64_t count, uint64_t rflags)
{
	enter_long(m, 0);
	m->v.state.rflags |= rflags;
	m->v.state.gpr[GPR_RDI] = to;
	m->v.state.gpr[GPR_RCX] = count;
	m->v.state.gpr[GPR_RAX] = 0xf4;
	run_code(m, 0xf3, 0xaa, 0x90, 0x90, 0x90, 0x0f, 0x0b);
}

static void test_rep_stos_over_itself(void **state)
{
	struct machine *m = *state;

	rep_stos_of_hlt(m, CODE + 2, 8, 0); /* what is behind it */
	assert_halted_at(m, 3);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 0);
	assert_int_equal(peek(m, CODE, 4), 0xf4f4aaf3);
	rep_stos_of_hlt(m, CODE, 8, 0); /* itself first */
	assert_halted_at(m, 3);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 0);
	assert_int_equal(peek(m, CODE, 8), 0xf4f4f4f4f4f4f4f4);
	rep_stos_of_hlt(m, CODE + 9, 10, FLAG_DF); /* itself last */
	assert_halted_at(m, 3);
	assert_int_equal(m->v.state.gpr[GPR_RDI], CODE - 1);
	rep_stos_of_hlt(m, CODE, 4096, 0); /* all of its page */
	assert_halted_at(m, 3);
	assert_int_equal(peek(m, CODE + 0xfff, 1), 0xf4);
	rep_stos_of_hlt(m, CODE, 5000, 0); /* more than is done at once: it never begins again */
	assert_halted_at(m, 1);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 4096);
	assert_int_equal(m->v.state.gpr[GPR_RDI], CODE + 904);
}

static void test_rep_movs_over_itself(void **state)
{
	static const uint8_t new[] = {0x90, 0x90, 0xff, 0xc3, 0xff, 0xc3, 0xf4}; /* inc ebx twice */
	struct machine *m = *state;

	for (unsigned turn = 0; turn < 3; turn++) {
		enter_long(m, 0);
		poke(m, DATA, new, sizeof(new));
		m->v.state.gpr[GPR_RSI] = DATA;
		m->v.state.gpr[GPR_RDI] = CODE;
		m->v.state.gpr[GPR_RCX] = sizeof(new);
		m->v.state.gpr[GPR_RBX] = turn;
		run_code(m, 0xf3, 0xa4, 0x0f, 0x0b);
		assert_halted_at(m, sizeof(new));
		assert_int_equal(m->v.state.gpr[GPR_RBX], turn + 2);
		/* From its own bytes to the next: F3 everywhere, and prefixes without an end. */
		enter_long(m, 0);
		m->v.state.gpr[GPR_RSI] = CODE;
		m->v.state.gpr[GPR_RDI] = CODE + 1;
		m->v.state.gpr[GPR_RCX] = 40;
		run_code(m, 0xf3, 0xa4, 0xf4);
		assert_vector(m, VECTOR_GP);
		assert_int_equal(peek(m, CODE + 33, 8), 0xf3f3f3f3f3f3f3f3);
	}
}

static void test_second_page_of_crossing_instruction(void **state)
{
	struct machine *m = *state;

	/* add eax, imm32 whose immediate's upper bytes lie on the next page; twice with a change
	 * between. */
	static const uint8_t code[] = {0x05, 0x01, 0x00, 0x00, 0x00, /* at page end - 3 */
				       0xfe, 0x05, 0xf8, 0xff, 0xff,
				       0xff, /* inc byte [page start] */
				       0xe2, 0xf3, 0xf4};
	uint64_t start = CODE + 0xffd;

	enter_long(m, 0);
	m->v.state.rip = start;
	m->v.state.gpr[GPR_RCX] = 4;
	poke(m, start, code, sizeof(code));
	go(m);
	assert_halted_at(m, 0xffd + sizeof(code));
	/* 1, 0x10001, 0x20001, 0x30001: the byte at page start is bits 16..23. */
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x60004);
}

/* Runs `mov eax, value; ret`, called at WINDOW, and between two calls what `between` says. */
static void prepare_two_pages(struct machine *m)
{
	static const uint8_t first[] = {0xb8, 1, 0, 0, 0, 0xc3};
	static const uint8_t second[] = {0xb8, 2, 0, 0, 0, 0xc3};

	enter_window(m, 0);
	poke(m, DATA, first, sizeof(first));
	poke(m, DATA + 0x1000, second, sizeof(second));
	m->v.state.gpr[GPR_RSI] = WINDOW;
	m->v.state.gpr[GPR_RDI] = WINDOW_TABLE;
	m->v.state.gpr[GPR_RDX] = (DATA + 0x1000) | PAGE_PRESENT;
}

static void test_remap_and_invlpg(void **state)
{
	struct machine *m = *state;

	prepare_two_pages(m);
	run_code(m, 0xff, 0xd6,	   /* call rsi */
		 0x89, 0xc3,	   /* mov ebx, eax */
		 0x48, 0x89, 0x17, /* mov [rdi], rdx */
		 0x0f, 0x01, 0x3e, /* invlpg [rsi] */
		 0xff, 0xd6,	   /* call rsi */
		 0xf4);
	assert_halted_at(m, 13);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 1);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 2);
}

static void test_remap_and_cr3(void **state)
{
	struct machine *m = *state;

	prepare_two_pages(m);
	run_code(m, 0xff, 0xd6, 0x89, 0xc3, 0x48, 0x89, 0x17, /* as above */
		 0x0f, 0x20, 0xd9, 0x0f, 0x22, 0xd9,	      /* mov rcx, cr3; mov cr3, rcx */
		 0xff, 0xd6, 0xf4);
	assert_halted_at(m, 16);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 1);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 2);
}

static void test_one_page_at_two_addresses(void **state)
{
	struct machine *m = *state;

	prepare_two_pages(m);
	window_map(m, 3, DATA, PAGE_PRESENT);
	run_code(m, 0xff, 0xd6, 0x89, 0xc3,		    /* call rsi; mov ebx, eax */
		 0xc6, 0x86, 0x01, 0x30, 0x00, 0x00, 0x07,  /* mov byte [rsi + 0x3001], 7 */
		 0xff, 0xd6, 0x89, 0xc1,		    /* call rsi; mov ecx, eax */
		 0x48, 0x8d, 0x96, 0x00, 0x30, 0x00, 0x00,  /* lea rdx, [rsi + 0x3000] */
		 0xc6, 0x46, 0x01, 0x09, 0xff, 0xd2, 0xf4); /* mov byte [rsi+1], 9; call rdx */
	assert_halted_at(m, 29);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 1);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 7);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 9);
}

static void test_data_beside_code(void **state)
{
	static const uint8_t code[] = {
		0x83, 0x05, 0x39, 0x00, 0x00, 0x00, 0x01, /* add dword [rip + 0x39], 1 */
		0xff, 0x05, 0x01, 0x01, 0x00, 0x00,	  /* inc dword [rip + 0x101] */
		0xe2, 0xf1, 0xf4};
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RCX] = 100;
	poke(m, CODE, code, sizeof(code));
	go(m);
	assert_halted_at(m, sizeof(code));
	assert_int_equal(peek(m, CODE + 0x40, 4), 100);
	assert_int_equal(peek(m, CODE + 0x10e, 4), 100);
}

/* A byte behind the first makes an instruction of what was none. */
static void test_undefined_until_written(void **state)
{
	struct machine *m = *state;

	for (unsigned crossing = 0; crossing < 2; crossing++) {
		uint64_t at = CODE + crossing * 0xfff;

		enter_long(m, 0);
		m->v.state.rip = at;
		m->v.state.gpr[GPR_RBX] = at + 1;
		run_code(m, 0xc7, 0x3b, 1, 0, 0, 0, 0xf4); /* C7 /7 does not exist */
		assert_vector(m, VECTOR_UD);
		/* and [rbx], 3: 3b becomes 03, mov dword [rbx], 1 */
		enter_long(m, 0);
		m->v.state.rip = at + 0x40;
		m->v.state.gpr[GPR_RBX] = at + 1;
		run_code(m, 0x80, 0x23, 0x03, 0xeb, 0xbb);
		assert_halted_at(m, at + 7 - CODE);
		assert_int_equal(peek(m, at + 1, 4), 1);
	}
}

/* A device writes code (DMA) between two runs. */
static void test_written_from_outside(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	run_code(m, 0xb0, 0x01, 0xf4);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 1);
	m->v.state.activity = ACTIVITY_RUNNING;
	m->v.state.rip = CODE;
	poke_value(m, CODE + 1, 2, 1);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 100, &m->exit);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 2);
}

/* The same bytes mean other things in other modes. */
static void test_one_place_in_three_modes(void **state)
{
	static const uint8_t code[] = {0x48, 0x40, 0xb8, 0x01, 0x00, 0xf4, 0x00, 0xf4};
	struct machine *m = *state;

	for (unsigned turn = 0; turn < 2; turn++) {
		enter_long(m, 0);
		m->v.state.gpr[GPR_RAX] = 5;
		poke(m, CODE, code, sizeof(code));
		go(m); /* rex rex mov eax, 0x00f40001; hlt */
		assert_halted_at(m, 8);
		assert_int_equal(m->v.state.gpr[GPR_RAX], 0xf40001);
		enter_protected(m, 0);
		m->v.state.gpr[GPR_RAX] = 5;
		go(m); /* dec; inc; mov */
		assert_halted_at(m, 8);
		enter_real(m);
		go(m); /* mov ax, 1; hlt */
		assert_halted_at(m, 6);
		assert_int_equal(m->v.state.gpr[GPR_RAX] & 0xffff, 1);
	}
}

/* ---- pages that are compared instead of watched ---- */

/* In hard mode they change sides all the time. */
static void assert_watched(const struct machine *m, bool is_watched)
{
#ifdef GNOMON_HARD
	(void)m;
	(void)is_watched;
#else
	assert_int_equal(memory_page_flags(m->memory, gpa(CODE)), is_watched ? PAGE_CODE : 0);
#endif
}

/* Sums an immediate that each turn increments. */
static void rewrite_in_loop(struct machine *m)
{
	static const uint8_t code[] = {0x83, 0xc0, 0x01, 0xfe, 0x05, 0xf9,
				       0xff, 0xff, 0xff, 0xe2, 0xf5, 0xf4};

	enter_long(m, 0);
	m->v.state.gpr[GPR_RAX] = 0;
	m->v.state.gpr[GPR_RCX] = 100;
	poke(m, CODE, code, sizeof(code));
	go(m);
	assert_halted_at(m, sizeof(code));
	assert_int_equal(m->v.state.gpr[GPR_RAX], 5050);
}

static void test_code_that_is_often_written_is_compared(void **state)
{
	struct machine *m = *state;

	rewrite_in_loop(m);
	assert_watched(m, false);
	test_next_instruction(state);
	test_ahead_in_block(state);
	test_behind_in_loop(state);
	test_rep_stos_over_itself(state);
	test_rep_movs_over_itself(state);
	test_second_page_of_crossing_instruction(state);
	test_undefined_until_written(state);
	test_one_place_in_three_modes(state);
	assert_watched(m, false);
}

static void test_calm_code_is_watched_again(void **state)
{
	static const uint8_t code[] = {0xff, 0xc0, 0x39, 0xc8, 0x75, 0xfa, 0xf4};
	struct machine *m = *state;

	for (unsigned turn = 0; turn < 2; turn++) {
		rewrite_in_loop(m);
		assert_watched(m, false);
		enter_long(m, 0);
		m->v.state.gpr[GPR_RAX] = 0;
		m->v.state.gpr[GPR_RCX] = 90000;
		poke(m, CODE, code, sizeof(code)); /* inc eax; cmp eax, ecx; jne */
		for (unsigned k = 0; k < 20 && m->v.state.activity == ACTIVITY_RUNNING; k++)
			go(m);
		assert_halted_at(m, sizeof(code));
		assert_int_equal(m->v.state.gpr[GPR_RAX], 90000);
		assert_watched(m, true);
	}
}

static void test_much_is_written_beside_code(void **state)
{
	static const uint8_t code[] = {0xff, 0x05, 0x00, 0x01, 0x00,
				       0x00, 0xe2, 0xf8, 0xf4}; /* inc dword [rip + 0x100]; loop */
	struct machine *m = *state;

	for (unsigned turn = 1; turn < 3; turn++) {
		enter_long(m, 0);
		m->v.state.gpr[GPR_RCX] = 2000;
		poke(m, CODE, code, sizeof(code));
		go(m);
		assert_halted_at(m, sizeof(code));
		assert_int_equal(peek(m, CODE + 0x106, 4), 2000 * turn);
		assert_watched(m, false);
	}
}

/* A function of registers alone that is rewritten before every sixth call: its operation and an
 * operand. Flags go into it and come out of it. */
static void test_short_function_is_often_rewritten(void **state)
{
	enum { FUNCTION = CODE + 0x1000, ROUNDS = 300, CALLS = 6 };
	static const uint8_t caller[] = {
		0x81, 0x05, 0xfe, 0x0f, 0,   0, 0x67, 0x45, 0x23, 0x01, /* add [operand] */
		0x80, 0x35, 0xf6, 0x0f, 0,   0, 0x28, /* xor [operation]: ADD or SUB */
		0xba, 6,    0,	  0,	0,	      /* mov edx, 6 */
		0x83, 0xfa, 0x03,		      /* cmp edx, 3 */
		0xe8, 0xe2, 0x0f, 0,	0,	      /* call */
		0x48, 0x11, 0xc3,		      /* adc rbx, rax */
		0xff, 0xca, 0x75, 0xf1,		      /* dec edx; jne */
		0xff, 0xc9, 0x75, 0xd7, 0xf4};	      /* dec ecx; jne; hlt */
	static const uint8_t function[] = {0x48, 0x15, 1,    2,	   3,	4, /* adc rax, 0x4030201 */
					   0x48, 0x05, 0,    0,	   0,	0, /* add rax, operand */
					   0x48, 0xc1, 0xc0, 0x07, 0xc3};  /* rol rax, 7; ret */
	struct machine *m = *state;
	uint64_t rax = 0, rbx = 0;

	for (uint32_t round = 1; round <= ROUNDS; round++)
		for (unsigned call = CALLS; call; call--) {
			uint64_t operand = (uint64_t)(int32_t)(round * 0x1234567u);

			rax += 0x4030201 + (call < 3);
			rax += round % 2 ? -operand : operand;
			rax = rax << 7 | rax >> 57;
			rbx += rax + (rax & 1);
		}
	enter_long(m, 0);
	m->v.state.gpr[GPR_RAX] = m->v.state.gpr[GPR_RBX] = 0;
	m->v.state.gpr[GPR_RCX] = ROUNDS;
	poke(m, CODE, caller, sizeof(caller));
	poke(m, FUNCTION, function, sizeof(function));
	for (unsigned k = 0; k < 20 && m->v.state.activity == ACTIVITY_RUNNING; k++)
		go(m);
	assert_halted_at(m, sizeof(caller));
	assert_int_equal(m->v.state.gpr[GPR_RAX], rax);
	assert_int_equal(m->v.state.gpr[GPR_RBX], rbx);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_next_instruction),
		T(test_ahead_in_block),
		T(test_behind_in_loop),
		T(test_rep_stos_over_itself),
		T(test_rep_movs_over_itself),
		T(test_second_page_of_crossing_instruction),
		T(test_remap_and_invlpg),
		T(test_remap_and_cr3),
		T(test_one_page_at_two_addresses),
		T(test_data_beside_code),
		T(test_undefined_until_written),
		T(test_written_from_outside),
		T(test_one_place_in_three_modes),
		T(test_code_that_is_often_written_is_compared),
		T(test_calm_code_is_watched_again),
		T(test_much_is_written_beside_code),
		T(test_short_function_is_often_rewritten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
