/* Addresses and limits of 16 and 32-bit code: what wraps, what is #GP and what is #SS. */
#include "machine.h"

static void at_real(struct machine *m, uint16_t ip)
{
	enter_real(m);
	m->v.state.rip = ip;
}

/* ---- the end of the code segment ---- */

static void test_ip_past_the_limit(void **state)
{
	struct machine *m = *state;

	at_real(m, 0xfffe);
	run_code(m, 0x40, 0x40, 0x0f, 0x0b); /* inc ax twice; what lies after is not reached */
	assert_vector(m, VECTOR_GP);
	assert_int_equal(m->v.state.gpr[GPR_RAX] & 0xffff, 2);
	at_real(m, 0xfffe);
	run_code(m, 0x40, 0xb8, 0x34, 0x12); /* mov ax, 0x1234 crosses the limit */
	assert_vector(m, VECTOR_GP);
	assert_int_equal(m->v.state.gpr[GPR_RAX] & 0xffff, 1);
	assert_int_equal(slot(m, 0, 2), 0xffff);
}

static void test_limit_inside_a_page(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.seg[SEG_CS].limit = CODE + 3;
	run_code(m, 0x40, 0x40, 0x40, 0x40, 0x40, 0xf4);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 4);
	/* The same code, cached with a limit, runs on without one. */
	enter_protected(m, 0);
	go(m);
	assert_halted_at(m, 6);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 5);
	/* An instruction that begins within the limit and ends outside. */
	enter_protected(m, 0);
	m->v.state.seg[SEG_CS].limit = CODE + 3;
	run_code(m, 0x90, 0xb8, 1, 0, 0, 0, 0xf4);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 1, 4), CODE + 1);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0);
}

static void test_branch_past_the_limit(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.seg[SEG_CS].limit = CODE + 0xff;
	run_code(m, 0x41, 0xe9, 0x00, 0x01, 0x00, 0x00); /* jmp: the branch itself faults */
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 1, 4), CODE + 1);
	enter_protected(m, 0);
	m->v.state.seg[SEG_CS].limit = CODE + 0xff;
	uint64_t sp = m->v.state.gpr[GPR_RSP];
	run_code(m, 0xe8, 0x00, 0x01, 0x00, 0x00); /* call: nothing is pushed */
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 1, 4), CODE);
	assert_int_equal(m->v.state.gpr[GPR_RSP], sp - 16);
	/* A 16-bit jump wraps. */
	at_real(m, 0xfff0);
	poke_value(m, CODE + 0x10, 0xf4, 1);
	run_code(m, 0xeb, 0x1e);
	assert_halted_at(m, 0x11);
}

/* ---- effective addresses ---- */

static void test_16_bit_offsets_wrap(void **state)
{
	struct machine *m = *state;

	at_real(m, 0);
	m->v.state.seg[SEG_DS].base = DATA;
	m->v.state.gpr[GPR_RBX] = 0xfff0;
	m->v.state.gpr[GPR_RSI] = 0x0020;
	run_code(m, 0xc6, 0x40, 0x04, 0x99, 0xf4); /* mov byte [bx + si + 4], 0x99 */
	assert_halted_at(m, 5);
	assert_int_equal(peek(m, DATA + 0x14, 1), 0x99);
	at_real(m, 0); /* upper halves do not count */
	m->v.state.seg[SEG_DS].base = DATA;
	m->v.state.gpr[GPR_RBX] = 0xabcd0100;
	run_code(m, 0xc6, 0x07, 0x98, 0xf4);
	assert_int_equal(peek(m, DATA + 0x100, 1), 0x98);
	at_real(m, 0); /* a word at 0xffff */
	m->v.state.gpr[GPR_RBX] = 0xffff;
	run_code(m, 0x8b, 0x07);
	assert_vector(m, VECTOR_GP);
	at_real(m, 0); /* the same on the stack */
	m->v.state.gpr[GPR_RBP] = 0xffff;
	run_code(m, 0x8b, 0x46, 0x00);
	assert_vector(m, VECTOR_SS);
}

static void test_32_bit_addresses_in_16_bit_code(void **state)
{
	struct machine *m = *state;

	at_real(m, 0);
	m->v.state.seg[SEG_DS].base = DATA;
	m->v.state.gpr[GPR_RBX] = 0x100;
	m->v.state.gpr[GPR_RCX] = 0x10;
	run_code(m, 0x67, 0xc7, 0x44, 0x8b, 0x08, 0x34, 0x12, /* mov word [ebx + ecx * 4 + 8] */
		 0xf4);
	assert_halted_at(m, 8);
	assert_int_equal(peek(m, DATA + 0x148, 2), 0x1234);
	at_real(m, 0); /* past 64 KiB */
	m->v.state.gpr[GPR_RBX] = 0x10000;
	run_code(m, 0x67, 0x8a, 0x03);
	assert_vector(m, VECTOR_GP);
	at_real(m, 0); /* ESP is the base: the stack segment */
	m->v.state.gpr[GPR_RSP] = 0x8000;
	m->v.state.gpr[GPR_RAX] = 0xffff0000;
	run_code(m, 0x67, 0x8a, 0x44, 0x04, 0x00); /* mov al, [esp + eax] */
	assert_vector(m, VECTOR_SS);
}

static void test_stack_wraps(void **state)
{
	struct machine *m = *state;

	at_real(m, 0);
	m->v.state.seg[SEG_SS].base = DATA;
	m->v.state.gpr[GPR_RSP] = 0xabcd0000;
	m->v.state.gpr[GPR_RAX] = 0x7788;
	run_code(m, 0x50, 0x5b, 0xf4); /* push ax; pop bx */
	assert_halted_at(m, 3);
	assert_int_equal(peek(m, DATA + 0xfffe, 2), 0x7788);
	assert_int_equal(m->v.state.gpr[GPR_RBX] & 0xffff, 0x7788);
	assert_int_equal(m->v.state.gpr[GPR_RSP], 0xabcd0000);
}

static void test_string_registers_wrap(void **state)
{
	struct machine *m = *state;

	at_real(m, 0);
	m->v.state.seg[SEG_ES].base = DATA;
	m->v.state.gpr[GPR_RDI] = 0xaaaafffe;
	m->v.state.gpr[GPR_RCX] = 0xbbbb0004;
	m->v.state.gpr[GPR_RAX] = 0x33;
	run_code(m, 0xf3, 0xaa, 0xf4);
	assert_halted_at(m, 3);
	assert_int_equal(m->v.state.gpr[GPR_RDI], 0xaaaa0002);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 0xbbbb0000);
	assert_int_equal(peek(m, DATA + 0xfffe, 2), 0x3333);
	assert_int_equal(peek(m, DATA, 2), 0x3333);
}

/* ---- segment limits in protected mode ---- */

struct limit_case {
	const char *name;
	uint32_t limit;
	uint16_t attributes;
	uint32_t offset;
	uint8_t bytes[6];
	uint8_t length;
	int vector; /* -1: none */
};

#define READ_BX            \
	{                  \
		0x8b, 0x03 \
	}
#define WRITE_BX           \
	{                  \
		0x89, 0x03 \
	}

static void test_limits(void **state)
{
	static const struct limit_case cases[] = {
		{"last dword", 0xfff, 0x4093, 0xffc, READ_BX, 2, -1},
		{"one past", 0xfff, 0x4093, 0xffd, READ_BX, 2, VECTOR_GP},
		{"far past", 0xfff, 0x4093, 0xffffffff, WRITE_BX, 2, VECTOR_GP},
		{"read-only, read", 0xfff, 0x4091, 0, READ_BX, 2, -1},
		{"read-only, write", 0xfff, 0x4091, 0, WRITE_BX, 2, VECTOR_GP},
		{"code, read", 0xfff, 0x409b, 0, READ_BX, 2, -1},
		{"code, write", 0xfff, 0x409b, 0, WRITE_BX, 2, VECTOR_GP},
		{"execute-only, read", 0xfff, 0x4099, 0, READ_BX, 2, VECTOR_GP},
		{"expand-down, at the limit", 0xfff, 0x4097, 0xfff, READ_BX, 2, VECTOR_GP},
		{"expand-down, above", 0xfff, 0x4097, 0x1000, READ_BX, 2, -1},
		{"expand-down, 64 KiB, top", 0xfff, 0x0097, 0xfffc, READ_BX, 2, -1},
		{"expand-down, 64 KiB, over", 0xfff, 0x0097, 0xfffd, READ_BX, 2, VECTOR_GP},
		{"null", 0, ATTR_UNUSABLE, 0, READ_BX, 2, VECTOR_GP},
	};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(cases); n++) {
		const struct limit_case *l = &cases[n];

		enter_protected(m, 0);
		m->v.state.seg[SEG_DS] = (struct segment_register){
			DATA, l->limit, l->attributes & ATTR_UNUSABLE ? 0 : SPARE, l->attributes};
		m->v.state.gpr[GPR_RBX] = l->offset;
		poke(m, CODE, l->bytes, l->length);
		poke_value(m, CODE + l->length, 0xf4, 1);
		go(m);
		if (ended_in(m) != l->vector)
			fail_msg("%s: ended in %d", l->name, ended_in(m));
		if (l->vector >= 0) {
			assert_int_equal(slot(m, 0, 4), 0);
			assert_int_equal(slot(m, 1, 4), CODE);
		}
	}
}

static void test_16_bit_protected_code(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.seg[SEG_CS] = (struct segment_register){CODE, 0xffff, SPARE, 0x9b};
	set_descriptor(m, SPARE, CODE, 0xffff, 0x9b, 0);
	m->v.state.rip = 0;
	m->v.state.gpr[GPR_RAX] = 0x11110000;
	run_code(m, 0x40, 0x66, 0x05, 0, 0, 1, 0, 0xf4); /* inc ax; add eax, 0x10000; hlt */
	assert_halted_at(m, 8);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x11120001);
}

/* Real mode reaches over 1 MiB: A20 is open. */
static void test_linear_addresses_over_a_megabyte(void **state)
{
	struct machine *m = *state;

	at_real(m, 0);
	m->v.state.seg[SEG_DS].base = 0xffff0;
	m->v.state.gpr[GPR_RBX] = 0x20;
	run_code(m, 0xc6, 0x07, 0x44, 0xf4);
	assert_int_equal(peek(m, 0x100010, 1), 0x44);
}

/* ---- segments that are not flat in code whose others are ---- */

static void test_a_base_and_a_limit_in_flat_code(void **state)
{
	struct machine *m = *state;
	struct segment_register *gs = &m->v.state.seg[SEG_GS];

	poke_value(m, DATA + 0x10, 0x12345678, 4);
	enter_protected(m, 0);
	gs->base = DATA;
	gs->limit = 0x13;
	run_code(m, 0x65, 0xa1, 0x10, 0, 0, 0, 0xf4); /* mov eax, gs:[0x10] */
	assert_halted_at(m, 7);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x12345678);
	enter_protected(m, 0);
	gs->base = DATA;
	gs->limit = 0x12;
	go(m);
	assert_vector(m, VECTOR_GP);
	enter_protected(m, 0);
	gs->attributes |= ATTR_UNUSABLE;
	go(m);
	assert_vector(m, VECTOR_GP);
	enter_protected(m, 0);
	gs->base = DATA + 0x10;
	gs->attributes &= (uint16_t)~ATTR_WRITABLE;
	go(m);
	assert_halted_at(m, 7);
	enter_protected(m, 0);
	gs->attributes &= (uint16_t)~ATTR_WRITABLE;
	run_code(m, 0x65, 0xa3, 0x10, 0, 0, 0, 0xf4); /* mov gs:[0x10], eax */
	assert_vector(m, VECTOR_GP);
}

static void test_a_base_wraps_at_4_gib(void **state)
{
	struct machine *m = *state;

	poke_value(m, DATA + 0x10, 0x12345678, 4);
	enter_protected(m, 0);
	m->v.state.seg[SEG_GS].base = 0xffff0000;
	m->v.state.gpr[GPR_RBX] = DATA + 0x10000;
	run_code(m, 0x65, 0x8b, 0x43, 0x10, 0xf4); /* mov eax, gs:[ebx + 0x10] */
	assert_halted_at(m, 5);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x12345678);
	enter_protected(m, 0);
	m->v.state.gpr[GPR_RBX] = 0xffffffff;
	m->v.state.gpr[GPR_RCX] = DATA + 1;
	run_code(m, 0x8b, 0x44, 0x0b, 0x10, 0xf4); /* mov eax, [ebx + ecx + 0x10] */
	assert_halted_at(m, 5);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x12345678);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_ip_past_the_limit),
		T(test_limit_inside_a_page),
		T(test_branch_past_the_limit),
		T(test_16_bit_offsets_wrap),
		T(test_32_bit_addresses_in_16_bit_code),
		T(test_stack_wraps),
		T(test_string_registers_wrap),
		T(test_limits),
		T(test_16_bit_protected_code),
		T(test_linear_addresses_over_a_megabyte),
		T(test_a_base_and_a_limit_in_flat_code),
		T(test_a_base_wraps_at_4_gib),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
