/* Hardware task switches and virtual-8086 mode, through the interpreter. */
#include "machine.h"

/* ---- tasks ---- */

static void fill_task(struct machine *m, uint32_t tss, uint32_t eip, uint32_t eflags)
{
	poke_value(m, tss + 0x1c, 0, 4);
	poke_value(m, tss + 0x20, eip, 4);
	poke_value(m, tss + 0x24, eflags, 4);
	poke_value(m, tss + 0x28, 0xabcd, 4);	    /* EAX */
	poke_value(m, tss + 0x38, KERNEL_STACK, 4); /* ESP */
	for (unsigned n = 0; n < 6; n++)
		poke_value(m, tss + 0x48 + n * 4, n == 1 ? KERNEL_CS : KERNEL_DS, 4);
	poke_value(m, tss + 0x60, 0, 4);
	poke_value(m, tss + 0x64, 0, 2);
}

static void test_task_jump(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	fill_task(m, TSS_B, handler(0xf1), 2);
	m->v.state.gpr[GPR_RBX] = 0x7777;
	run_code(m, 0xea, 0, 0, 0, 0, TSS_B_SELECTOR, 0);
	assert_vector(m, 0xf1);
	assert_int_equal(m->v.state.tr.selector, TSS_B_SELECTOR);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0xabcd);
	assert_true(m->v.state.cr0 & CR0_TS);
	assert_int_equal(peek(m, TSS + 0x20, 4), CODE + 7);
	assert_int_equal(peek(m, TSS + 0x34, 4), 0x7777);
	assert_int_equal(peek(m, GDT + TSS_SELECTOR + 5, 1), 0x89);
	assert_int_equal(peek(m, GDT + TSS_B_SELECTOR + 5, 1), 0x8b);
	assert_false(m->v.state.rflags & FLAG_NT);
}

static void test_task_call_and_return(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	fill_task(m, TSS_B, CODE + 0x300, 2);
	poke_value(m, CODE + 0x300, 0xcf, 1);
	run_code(m, 0x9a, 0, 0, 0, 0, TSS_B_SELECTOR, 0, 0xf4);
	assert_halted_at(m, 8);
	assert_int_equal(m->v.state.tr.selector, TSS_SELECTOR);
	assert_int_equal(peek(m, TSS_B, 2), TSS_SELECTOR);
	assert_int_equal(peek(m, GDT + TSS_SELECTOR + 5, 1), 0x8b);
	assert_int_equal(peek(m, GDT + TSS_B_SELECTOR + 5, 1), 0x89);
	assert_int_equal(peek(m, TSS_B + 0x20, 4), CODE + 0x301);
	assert_false(m->v.state.rflags & FLAG_NT);
	assert_false(peek(m, TSS_B + 0x24, 4) & FLAG_NT);
}

static void test_double_fault_task(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	fill_task(m, TSS_B, handler(0xf2), 2);
	set_gate(m, IDT + VECTOR_DF * 8, TSS_B_SELECTOR, 0, 0x85, 0);
	poke_value(m, TSS + 8, USER_DS, 4); /* a bad kernel stack */
	run_code(m, 0xfa);
	assert_vector(m, 0xf2);
	assert_true(m->v.state.rflags & FLAG_NT);
	assert_int_equal(slot(m, 0, 4), 0); /* the error code */
	assert_int_equal(peek(m, TSS + 0x20, 4), CODE);
}

static void test_task_with_a_bad_segment(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	fill_task(m, TSS_B, handler(0xf1), 2);
	poke_value(m, TSS_B + 0x54, 0x1000, 4); /* DS outside the GDT */
	run_code(m, 0xea, 0, 0, 0, 0, TSS_B_SELECTOR, 0);
	assert_vector(m, VECTOR_TS);
	assert_int_equal(slot(m, 0, 4), 0x1000);
	assert_int_equal(slot(m, 1, 4), handler(0xf1)); /* the new task's fault */
	assert_int_equal(m->v.state.tr.selector, TSS_B_SELECTOR);
}

/* ---- virtual-8086 mode ---- */

static void enter_v86(struct machine *m, unsigned level)
{
	struct vcpu_state *s = &m->v.state;

	enter_protected(m, 3);
	for (unsigned n = 0; n < SEG_COUNT; n++)
		s->seg[n] = (struct segment_register){.limit = 0xffff, .attributes = 0xf3};
	s->seg[SEG_CS].selector = CODE / 16;
	s->seg[SEG_CS].base = CODE;
	s->seg[SEG_DS].selector = 0x1234;
	s->seg[SEG_DS].base = 0x12340;
	s->rip = 0;
	s->gpr[GPR_RSP] = 0x7000;
	s->rflags |= FLAG_VM | FLAG_IF | (uint64_t)level << 12;
}

static void test_v86_int(void **state)
{
	struct machine *m = *state;

	enter_v86(m, 3);
	run_code(m, 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 36);
	assert_int_equal(slot(m, 0, 4), 2);
	assert_int_equal(slot(m, 1, 4), CODE / 16);
	assert_true(slot(m, 2, 4) & FLAG_VM);
	assert_int_equal(slot(m, 3, 4), 0x7000);
	assert_int_equal(slot(m, 6, 4), 0x1234); /* SS ES DS */
	assert_false(m->v.state.rflags & FLAG_VM);
	assert_true(m->v.state.seg[SEG_DS].attributes & ATTR_UNUSABLE);
}

static void test_v86_sensitive_instructions(void **state)
{
	static const uint8_t codes[] = {0xfa, 0xfb, 0x9c, 0x9d, 0xcf};
	struct machine *m = *state;

	for (size_t n = 0; n < sizeof(codes); n++) {
		enter_v86(m, 0);
		poke(m, CODE, &codes[n], 1);
		go(m);
		assert_vector(m, VECTOR_GP);
		assert_int_equal(slot(m, 0, 4), 0);
		assert_int_equal(slot(m, 1, 4), 0);
	}
	enter_v86(m, 0);
	run_code(m, 0xcd, 0x10);
	assert_vector(m, VECTOR_GP);
}

static void test_v86_redirected_int(void **state)
{
	struct machine *m = *state;

	enter_v86(m, 0);
	m->v.state.cr4 |= CR4_VME;
	poke_value(m, TSS + 0x66, 0x68 + 0, 2);
	/* The redirection map is the 32 bytes below the I/O map; it would start at 0x48. */
	poke_value(m, TSS + 0x48 + 0x10 / 8, 0, 1);
	poke_value(m, 0x10 * 4, CODE / 16 << 16 | 0x80, 4);
	poke_value(m, CODE + 0x80, 0xfa, 1); /* CLI is VIF's here */
	poke_value(m, CODE + 0x81, 0x80cd, 2);
	poke_value(m, TSS + 0x48 + 0x80 / 8, 1, 1);
	run_code(m, 0xcd, 0x10);
	/* INT 80H is not redirected and IOPL is 0. */
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 0, 4), 0);
	assert_int_equal(slot(m, 1, 4), 0x81);
	assert_int_equal(slot(m, 4, 4), 0x7000 - 6);
	assert_int_equal(peek(m, 0x7000 - 2, 2) & 0x3000, 0x3000);
}

static void test_iret_to_v86(void **state)
{
	struct machine *m = *state;
	static const uint32_t frame[] = {
		0x40, CODE / 16, FLAG_VM | 0x3202, 0x7000, 0x100, 0x200, 0x300, 0x400, 0x500};

	enter_protected(m, 0);
	m->v.state.gpr[GPR_RSP] = KERNEL_STACK - sizeof(frame);
	poke(m, KERNEL_STACK - sizeof(frame), frame, sizeof(frame));
	poke_value(m, CODE + 0x40, 0x80cd, 2);
	run_code(m, 0xcf);
	assert_vector(m, 0x80);
	assert_int_equal(slot(m, 0, 4), 0x42);
	assert_int_equal(slot(m, 4, 4), 0x100);
	assert_int_equal(slot(m, 5, 4), 0x200);
	assert_int_equal(slot(m, 6, 4), 0x300);
	assert_int_equal(slot(m, 7, 4), 0x400);
	assert_int_equal(slot(m, 8, 4), 0x500);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_task_jump),
		T(test_task_call_and_return),
		T(test_double_fault_task),
		T(test_task_with_a_bad_segment),
		T(test_v86_int),
		T(test_v86_sensitive_instructions),
		T(test_v86_redirected_int),
		T(test_iret_to_v86),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
