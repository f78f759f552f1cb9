/* System instructions and delivery in real and protected mode, through the
 * interpreter. */
#include "machine.h"

/* ---- real mode ---- */

static void test_real_int_and_frame(void **state)
{
	struct machine *m = *state;

	enter_real(m);
	m->v.state.rflags |= FLAG_IF;
	run_code(m, 0xcd, 0x21); /* int 0x21 */
	assert_vector(m, 0x21);
	assert_int_equal(m->v.state.gpr[GPR_RSP], 0x7ffa);
	assert_int_equal(slot(m, 0, 2), 2);
	assert_int_equal(slot(m, 1, 2), CODE / 16);
	assert_int_equal(slot(m, 2, 2), FLAG_IF | 2);
	assert_false(m->v.state.rflags & FLAG_IF);
	assert_int_equal(ledger_total(&m->ledger, EVENT_GUEST_SOFTINT), 1);
}

static void test_real_iret(void **state)
{
	struct machine *m = *state;

	enter_real(m);
	m->v.state.gpr[GPR_RSP] = 0x7000;
	poke_value(m, 0x7000, 0x10, 2);
	poke_value(m, 0x7002, CODE / 16, 2);
	poke_value(m, 0x7004, 0xffff, 2);
	poke_value(m, CODE + 0x10, 0x90, 1);
	m->v.state.nmi_blocked = 1;
	run_code(m, 0xcf);
	assert_vector(m, VECTOR_DB); /* TF came along */
	assert_int_equal(slot(m, 0, 2), 0x11);
	assert_int_equal(m->v.state.nmi_blocked, 0);
}

static void test_real_far_call_and_return(void **state)
{
	struct machine *m = *state;

	enter_real(m);
	poke_value(m, 0x18000, 0xcb, 1); /* retf at 1800:0000 */
	run_code(m, 0x9a, 0x00, 0x00, 0x00, 0x18, 0xf4);
	assert_halted_at(m, 6);
	assert_int_equal(m->v.state.gpr[GPR_RSP], 0x8000);
}

static void test_real_double_and_triple_fault(void **state)
{
	struct machine *m = *state;

	enter_real(m);
	m->v.state.idtr.limit = 8 * 4 + 3; /* #DF still fits, #GP does not */
	run_code(m, 0xcd, 0x21);
	assert_vector(m, VECTOR_DF);
	enter_real(m);
	m->v.state.idtr.limit = 3;
	run_code(m, 0xcd, 0x21);
	assert_int_equal(m->exit.reason, EXIT_SHUTDOWN);
}

static void test_real_segments_keep_limits(void **state)
{
	struct machine *m = *state;

	enter_real(m);
	m->v.state.seg[SEG_DS].limit = 0xffffffff; /* "unreal mode" */
	m->v.state.gpr[GPR_RAX] = 0x1234;
	m->v.state.gpr[GPR_RBX] = DATA - 0x12340 + 0x20000;
	run_code(m, 0x8e, 0xd8,		 /* mov ds, ax */
		 0x67, 0xc6, 0x03, 0x77, /* mov byte [ebx], 0x77 */
		 0xf4);
	assert_halted_at(m, 7);
	assert_int_equal(m->v.state.seg[SEG_DS].base, 0x12340);
	assert_int_equal(m->v.state.seg[SEG_DS].limit, 0xffffffff);
	assert_int_equal(peek(m, DATA + 0x20000, 1), 0x77);
}

/* ---- faults: one instruction, one vector, one error code ---- */

struct fault_case {
	const char *name;
	uint8_t bytes[12];
	uint8_t length;
	uint8_t cpl;
	int vector;
	int64_t error; /* -1: none is pushed */
};

static void run_fault_case(struct machine *m, const struct fault_case *f)
{
	poke(m, CODE, f->bytes, f->length);
	go(m);
	if (ended_in(m) != f->vector)
		fail_msg("%s: ended in %d at %#llx", f->name, ended_in(m),
			 (unsigned long long)m->v.state.rip);
	unsigned n = 0;
	if (f->error >= 0 && (int64_t)slot(m, n++, 4) != f->error)
		fail_msg("%s: error code %#llx", f->name, (unsigned long long)slot(m, 0, 4));
	if (slot(m, n, 4) != CODE)
		fail_msg("%s: EIP %#llx", f->name, (unsigned long long)slot(m, n, 4));
}

static void test_faults_of_ring_3(void **state)
{
	static const struct fault_case cases[] = {
		{"cli", {0xfa}, 1, 3, VECTOR_GP, 0},
		{"sti", {0xfb}, 1, 3, VECTOR_GP, 0},
		{"hlt", {0xf4}, 1, 3, VECTOR_GP, 0},
		{"clts", {0x0f, 0x06}, 2, 3, VECTOR_GP, 0},
		{"invd", {0x0f, 0x08}, 2, 3, VECTOR_GP, 0},
		{"wbinvd", {0x0f, 0x09}, 2, 3, VECTOR_GP, 0},
		{"rdmsr", {0x0f, 0x32}, 2, 3, VECTOR_GP, 0},
		{"wrmsr", {0x0f, 0x30}, 2, 3, VECTOR_GP, 0},
		{"rdpmc", {0x0f, 0x33}, 2, 3, VECTOR_GP, 0},
		{"mov eax, cr0", {0x0f, 0x20, 0xc0}, 3, 3, VECTOR_GP, 0},
		{"mov cr3, eax", {0x0f, 0x22, 0xd8}, 3, 3, VECTOR_GP, 0},
		{"mov eax, dr7", {0x0f, 0x21, 0xf8}, 3, 3, VECTOR_GP, 0},
		{"lgdt", {0x0f, 0x01, 0x10}, 3, 3, VECTOR_GP, 0},
		{"lidt", {0x0f, 0x01, 0x18}, 3, 3, VECTOR_GP, 0},
		{"lldt ax", {0x0f, 0x00, 0xd0}, 3, 3, VECTOR_GP, 0},
		{"ltr ax", {0x0f, 0x00, 0xd8}, 3, 3, VECTOR_GP, 0},
		{"lmsw ax", {0x0f, 0x01, 0xf0}, 3, 3, VECTOR_GP, 0},
		{"invlpg", {0x0f, 0x01, 0x38}, 3, 3, VECTOR_GP, 0},
		{"in al, dx", {0xec}, 1, 3, VECTOR_GP, 0},
		{"out 0x80, al", {0xe6, 0x80}, 2, 3, VECTOR_GP, 0},
		{"int 0x81", {0xcd, 0x81}, 2, 3, VECTOR_GP, 0x81 * 8 + 2},
		{"sysexit", {0x0f, 0x35}, 2, 3, VECTOR_GP, 0},
		{"mov ds, kernel", {0x8e, 0xdb}, 2, 3, VECTOR_GP, KERNEL_DS},
		{"mov ss, null", {0x8e, 0xd1}, 2, 3, VECTOR_GP, 0},
		{"jmp far kernel", {0xea, 0, 0, 1, 0, KERNEL_CS, 0}, 7, 3, VECTOR_GP, KERNEL_CS},
		{"stac", {0x0f, 0x01, 0xcb}, 3, 3, VECTOR_UD, -1},
		{"ud2", {0x0f, 0x0b}, 2, 3, VECTOR_UD, -1},
		{"swapgs", {0x0f, 0x01, 0xf8}, 3, 3, VECTOR_UD, -1},
		{"monitor", {0x0f, 0x01, 0xc8}, 3, 3, VECTOR_UD, -1},
	};
	struct machine *m = *state;

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		enter_protected(m, 3);
		m->v.state.gpr[GPR_RBX] = KERNEL_DS;
		run_fault_case(m, &cases[i]);
	}
}

static void test_faults_of_ring_0(void **state)
{
	static const struct fault_case cases[] = {
		{"cr0: PG without PE", {0x0f, 0x22, 0xc0}, 3, 0, VECTOR_GP, 0},
		{"cr4: reserved", {0x0f, 0x22, 0xe0}, 3, 0, VECTOR_GP, 0},
		{"mov ds: outside the table", {0x8e, 0xdb}, 2, 0, VECTOR_GP, 0x1000},
		{"mov ss: wrong rpl", {0x8e, 0xd1}, 2, 0, VECTOR_GP, USER_DS & ~3},
		{"mov ds: not present", {0x8e, 0xda}, 2, 0, VECTOR_NP, SPARE},
		{"mov ss: not present", {0x8e, 0xd2}, 2, 0, VECTOR_SS, SPARE},
		{"jmp to data", {0xea, 0, 0, 1, 0, KERNEL_DS, 0}, 7, 0, VECTOR_GP, KERNEL_DS},
		{"jmp to null", {0xea, 0, 0, 1, 0, 0, 0}, 7, 0, VECTOR_GP, 0},
		{"jmp to busy tss",
		 {0xea, 0, 0, 1, 0, TSS_SELECTOR, 0},
		 7,
		 0,
		 VECTOR_GP,
		 TSS_SELECTOR},
		{"lldt: not an ldt", {0x0f, 0x00, 0xd1}, 3, 0, VECTOR_GP, USER_DS & ~3},
		{"ltr: busy", {0x0f, 0x00, 0xde}, 3, 0, VECTOR_GP, TSS_SELECTOR},
		{"ltr: null", {0x0f, 0x00, 0xdf}, 3, 0, VECTOR_GP, 0},
		{"sysenter without cs", {0x0f, 0x34}, 2, 0, VECTOR_GP, 0},
		{"rdmsr: unknown", {0x0f, 0x32}, 2, 0, VECTOR_GP, 0},
		{"xgetbv without OSXSAVE", {0x0f, 0x01, 0xd0}, 3, 0, VECTOR_UD, -1},
	};
	struct machine *m = *state;

	set_descriptor(m, SPARE, 0, 0xfffff, 0x13, 0xc);
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		enter_protected(m, 0);
		m->v.state.gpr[GPR_RAX] = 0x80000000;
		m->v.state.gpr[GPR_RBX] = 0x1000;
		m->v.state.gpr[GPR_RCX] = USER_DS;
		m->v.state.gpr[GPR_RDX] = SPARE;
		m->v.state.gpr[GPR_RSI] = TSS_SELECTOR;
		run_fault_case(m, &cases[i]);
	}
	assert_int_equal(ledger_total(&m->ledger, EVENT_UNHANDLED_MSR), 1);
}

static void test_cr0_pg_needs_pe(void **state)
{
	struct machine *m = *state;

	enter_real(m);
	m->v.state.gpr[GPR_RAX] = CR0_PG;
	run_code(m, 0x0f, 0x22, 0xc0);
	assert_vector(m, VECTOR_GP);
}

/* ---- delivery in protected mode ---- */

static void test_int_from_ring_3(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	m->v.state.rflags |= FLAG_IF;
	run_code(m, 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(m->v.state.cpl, 0);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 20);
	assert_int_equal(slot(m, 0, 4), CODE + 2);
	assert_int_equal(slot(m, 1, 4), USER_CS);
	assert_int_equal(slot(m, 2, 4), FLAG_IF | 2);
	assert_int_equal(slot(m, 3, 4), USER_STACK);
	assert_int_equal(slot(m, 4, 4), USER_DS);
	assert_false(m->v.state.rflags & FLAG_IF);
	assert_int_equal(m->v.state.seg[SEG_SS].selector, KERNEL_DS);
}

static void test_trap_gate_keeps_if(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	set_idt32(m, 0x81, KERNEL_CS, handler(0x81), 0x8f);
	m->v.state.rflags |= FLAG_IF;
	run_code(m, 0xcd, 0x81);
	assert_vector(m, 0x81);
	assert_true(m->v.state.rflags & FLAG_IF);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 12);
}

static void test_16_bit_gate(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	set_descriptor(m, SPARE, HANDLERS, 0xffff, 0x9b, 0);
	set_idt32(m, 0x81, SPARE, 0x81 * 16, 0x86);
	run_code(m, 0xcd, 0x81);
	assert_vector(m, 0x81);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 6);
	assert_int_equal(slot(m, 0, 2), 2); /* the low half of CODE + 2 */
	assert_int_equal(slot(m, 1, 2), KERNEL_CS);
}

static void test_faults_on_the_way(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	set_idt32(m, 0x80, KERNEL_CS, 0, 0x6e); /* not present */
	run_code(m, 0xcd, 0x80);
	assert_vector(m, VECTOR_NP);
	assert_int_equal(slot(m, 0, 4), 0x80 * 8 + 2);
	assert_int_equal(slot(m, 1, 4), CODE);

	enter_protected(m, 3);
	set_idt32(m, 0x80, 0, 0, 0xee); /* null code segment */
	run_code(m, 0xcd, 0x80);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 0, 4), 0);

	enter_protected(m, 0);
	m->v.state.idtr.limit = 0x80 * 8 - 1;
	run_code(m, 0xcd, 0x80);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 0, 4), 0x80 * 8 + 2);
}

static void test_bad_inner_stack(void **state)
{
	struct machine *m = *state;

	/* #TS would meet the same stack: a task takes the double fault in a real system; here all
	 * end in shutdown. */
	enter_protected(m, 3);
	poke_value(m, TSS + 8, USER_DS, 4);
	run_code(m, 0xcd, 0x80);
	assert_int_equal(m->exit.reason, EXIT_SHUTDOWN);
}

static void test_double_fault(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	set_idt32(m, VECTOR_GP, KERNEL_CS, 0, 0x0e); /* not present: #NP on #GP */
	run_code(m, 0xfa);
	assert_vector(m, VECTOR_DF);
	assert_int_equal(slot(m, 0, 4), 0);
	assert_int_equal(slot(m, 1, 4), CODE);
}

static void test_benign_faults_are_served_in_turn(void **state)
{
	struct machine *m = *state;

	/* #UD then #NP is no double fault; the error code has EXT. */
	enter_protected(m, 3);
	set_idt32(m, VECTOR_UD, KERNEL_CS, 0, 0x0e);
	run_code(m, 0x0f, 0x0b);
	assert_vector(m, VECTOR_NP);
	assert_int_equal(slot(m, 0, 4), VECTOR_UD * 8 + 3);
}

static void test_faults_set_rf_and_traps_do_not(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	run_code(m, 0x0f, 0x0b);
	assert_vector(m, VECTOR_UD);
	assert_true(slot(m, 2, 4) & FLAG_RF);
	enter_protected(m, 0);
	run_code(m, 0xcc);
	assert_vector(m, VECTOR_BP);
	assert_false(slot(m, 2, 4) & FLAG_RF);
	assert_int_equal(slot(m, 0, 4), CODE + 1);
}

static void test_external_interrupt_and_shadow(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->pending = 0x55;
	vcpu_request(&m->v, REQUEST_INTERRUPT);
	run_code(m, 0xfb, 0x40, 0x40, 0xf4); /* sti; inc eax; inc eax; hlt */
	assert_vector(m, 0x55);
	assert_int_equal(slot(m, 0, 4), CODE + 2); /* one instruction later */
	assert_int_equal(m->v.state.gpr[GPR_RAX], 1);
	assert_int_equal(ledger_total(&m->ledger, EVENT_GUEST_INTERRUPT), 1);
}

static void test_mov_ss_shadow(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.gpr[GPR_RCX] = KERNEL_DS;
	m->v.state.rflags |= FLAG_TF;
	run_code(m, 0x8e, 0xd1, 0x40, 0x40, 0xf4); /* mov ss, cx; inc eax ... */
	assert_vector(m, VECTOR_DB);
	assert_int_equal(slot(m, 0, 4), CODE + 3); /* the trap waited */
	assert_true(m->v.state.dr[6] & BIT(14));
}

/* ---- returns ---- */

static void test_iret_to_ring_3(void **state)
{
	struct machine *m = *state;
	static const uint32_t frame[] = {CODE + 0x100, USER_CS, 0x3202, USER_STACK, USER_DS};

	enter_protected(m, 0);
	m->v.state.gpr[GPR_RSP] = KERNEL_STACK - 20;
	poke(m, KERNEL_STACK - 20, frame, sizeof(frame));
	poke_value(m, CODE + 0x100, 0x80cd, 2);
	run_code(m, 0xcf);
	assert_vector(m, 0x80);
	assert_int_equal(slot(m, 0, 4), CODE + 0x102);
	assert_int_equal(slot(m, 2, 4), 0x3202);
	/* The kernel's data segments did not follow. */
	assert_true(m->v.state.seg[SEG_DS].attributes & ATTR_UNUSABLE);
	assert_int_equal(ledger_total(&m->ledger, EVENT_GUEST_IRET), 1);
}

static void test_iret_of_ring_3_cannot_raise_privilege(void **state)
{
	struct machine *m = *state;
	static const uint32_t frame[] = {CODE + 0x100, USER_CS, 0x3302, USER_STACK, USER_DS};
	static const uint32_t bad[] = {CODE + 0x100, KERNEL_CS, 0x3202};

	enter_protected(m, 3);
	m->v.state.gpr[GPR_RSP] = USER_STACK - 20;
	poke(m, USER_STACK - 20, frame, sizeof(frame));
	poke_value(m, CODE + 0x100, 0x90, 1);
	run_code(m, 0xcf);
	/* TF arrived, IF and IOPL did not. */
	assert_vector(m, VECTOR_DB);
	assert_int_equal(slot(m, 2, 4) & (FLAG_IF | FLAG_IOPL), 0);

	enter_protected(m, 3);
	m->v.state.gpr[GPR_RSP] = USER_STACK - 20;
	poke(m, USER_STACK - 20, bad, sizeof(bad));
	run_code(m, 0xcf);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 0, 4), KERNEL_CS);
}

static void test_popf_at_ring_3(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	m->v.state.rflags |= FLAG_IF;
	m->v.state.gpr[GPR_RSP] = USER_STACK - 4;
	poke_value(m, USER_STACK - 4, 0x3cd7 & ~FLAG_IF, 4);
	run_code(m, 0x9d, 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(slot(m, 2, 4), (0xcd7 | FLAG_IF | 2));
}

/* ---- call gates ---- */

static void test_call_gate_with_parameters(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	set_gate(m, GDT + SPARE, KERNEL_CS, handler(0xf0), 0xec, 2);
	poke_value(m, USER_STACK - 8, 0x1111, 4);
	poke_value(m, USER_STACK - 4, 0x2222, 4);
	m->v.state.gpr[GPR_RSP] = USER_STACK - 8;
	run_code(m, 0x9a, 0, 0, 0, 0, SPARE | 3, 0);
	assert_vector(m, 0xf0);
	assert_int_equal(m->v.state.cpl, 0);
	assert_int_equal(slot(m, 0, 4), CODE + 7);
	assert_int_equal(slot(m, 1, 4), USER_CS);
	assert_int_equal(slot(m, 2, 4), 0x1111);
	assert_int_equal(slot(m, 3, 4), 0x2222);
	assert_int_equal(slot(m, 4, 4), USER_STACK - 8);
	assert_int_equal(slot(m, 5, 4), USER_DS);
}

static void test_call_gate_and_return(void **state)
{
	struct machine *m = *state;
	static const uint8_t back[] = {0xca, 8, 0}; /* retf 8 */

	enter_protected(m, 3);
	set_gate(m, GDT + SPARE, KERNEL_CS, CODE + 0x200, 0xec, 2);
	poke(m, CODE + 0x200, back, sizeof(back));
	m->v.state.gpr[GPR_RSP] = USER_STACK - 8;
	run_code(m, 0x9a, 0, 0, 0, 0, SPARE | 3, 0, 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(slot(m, 0, 4), CODE + 9);
	assert_int_equal(slot(m, 3, 4), USER_STACK); /* RETF took the parameters */
}

static void test_gate_privilege(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	set_gate(m, GDT + SPARE, KERNEL_CS, handler(0xf0), 0x8c, 0); /* DPL 0 */
	run_code(m, 0x9a, 0, 0, 0, 0, SPARE | 3, 0);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 0, 4), SPARE);
	enter_protected(m, 3);
	set_gate(m, GDT + SPARE, KERNEL_CS, handler(0xf0), 0xec, 0);
	run_code(m, 0xea, 0, 0, 0, 0, SPARE | 3, 0); /* JMP cannot go inwards */
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 0, 4), KERNEL_CS);
}

/* ---- descriptors ---- */

static void test_questions_about_descriptors(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.gpr[GPR_RCX] = USER_CS;
	run_code(m, 0x0f, 0x02, 0xc1,		     /* lar eax, ecx */
		 0x0f, 0x03, 0xd9,		     /* lsl ebx, ecx */
		 0x0f, 0x00, 0xe1, 0x0f, 0x94, 0xc2, /* verr cx; setz dl */
		 0x0f, 0x00, 0xe9, 0x0f, 0x94, 0xc6, /* verw cx; setz dh */
		 0xf4);
	assert_halted_at(m, 19);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0xcffb00 & 0xf0ff00);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 0xffffffff);
	assert_int_equal(m->v.state.gpr[GPR_RDX] & 0xffff, 1);
}

static void test_accessed_and_busy_bits(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	set_descriptor(m, SPARE, 0x1000, 0xfff, 0x92, 0x4);
	m->v.state.gpr[GPR_RAX] = SPARE;
	m->v.state.gpr[GPR_RCX] = TSS_B_SELECTOR;
	run_code(m, 0x8e, 0xc0, 0x0f, 0x00, 0xd9, 0xf4); /* mov es, ax; ltr cx; hlt */
	assert_halted_at(m, 6);
	assert_int_equal(peek(m, GDT + SPARE + 5, 1), 0x93);
	assert_int_equal(m->v.state.seg[SEG_ES].base, 0x1000);
	assert_int_equal(m->v.state.seg[SEG_ES].limit, 0xfff);
	assert_int_equal(peek(m, GDT + TSS_B_SELECTOR + 5, 1), 0x8b);
	assert_int_equal(m->v.state.tr.base, TSS_B);
}

static void test_umip(void **state)
{
	static const uint8_t codes[][3] = {
		{0x0f, 0x01, 0x00}, {0x0f, 0x01, 0x08}, /* sgdt, sidt [eax] */
		{0x0f, 0x00, 0xc0}, {0x0f, 0x00, 0xc8}, /* sldt, str eax */
		{0x0f, 0x01, 0xe0},			/* smsw eax */
	};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(codes); n++)
		for (unsigned on = 0; on < 2; on++) {
			enter_protected(m, 3);
			m->v.state.cr4 = on ? CR4_UMIP : 0;
			m->v.state.gpr[GPR_RAX] = DATA;
			poke_value(m, CODE + 3, 0x80cd, 2);
			poke(m, CODE, codes[n], 3);
			go(m);
			assert_vector(m, on ? VECTOR_GP : 0x80);
		}
	assert_int_equal(peek(m, DATA, 2), 0xfff); /* SIDT was the last to write */
	assert_int_equal(peek(m, DATA + 2, 4), IDT);
}

/* ---- SYSENTER ---- */

static void test_sysenter_and_sysexit(void **state)
{
	struct machine *m = *state;
	static const uint8_t back[] = {0x0f, 0x35}; /* sysexit */

	enter_protected(m, 3);
	m->v.state.sysenter_cs = KERNEL_CS;
	m->v.state.sysenter_esp = KERNEL_STACK;
	m->v.state.sysenter_eip = CODE + 0x400;
	m->v.state.gpr[GPR_RDX] = CODE + 2;
	m->v.state.gpr[GPR_RCX] = USER_STACK - 64;
	m->v.state.rflags |= FLAG_IF;
	poke(m, CODE + 0x400, back, 2);
	run_code(m, 0x0f, 0x34, 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(slot(m, 0, 4), CODE + 4);
	assert_int_equal(slot(m, 1, 4), USER_CS);
	assert_int_equal(slot(m, 2, 4) & FLAG_IF, 0); /* SYSEXIT leaves it */
	assert_int_equal(slot(m, 3, 4), USER_STACK - 64);
	assert_int_equal(slot(m, 4, 4), USER_DS);
	assert_int_equal(ledger_total(&m->ledger, EVENT_GUEST_SYSCALL), 1);
}

/* ---- ports ---- */

static void test_port_permission_map(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	poke_value(m, TSS + 0x68 + 0x10, 0xfe, 1); /* port 80H alone */
	m->v.state.gpr[GPR_RAX] = 0x5a;
	run_code(m, 0xe6, 0x80, 0xe5, 0x80); /* out 0x80, al; in eax, 0x80 */
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 1, 4), CODE + 2);
	assert_int_equal(m->last_port_value, 0x5a);
}

static void test_ports_and_iopl(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 3);
	m->v.state.rflags |= FLAG_IOPL;
	m->v.state.gpr[GPR_RDX] = 0x80;
	m->v.state.gpr[GPR_RDI] = DATA;
	m->v.state.gpr[GPR_RCX] = 3;
	run_code(m, 0xe5, 0x80, /* in eax, 0x80 */
		 0xf3, 0x6d,	/* rep insd */
		 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x11223344);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 0);
	assert_int_equal(m->v.state.gpr[GPR_RDI], DATA + 12);
	assert_int_equal(peek(m, DATA + 8, 4), 0x11223344);
	assert_int_equal(peek(m, DATA + 12, 4), 0);
}

static void test_outs_and_nobody(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.gpr[GPR_RDX] = 0x87;
	m->v.state.gpr[GPR_RSI] = DATA + 2;
	m->v.state.gpr[GPR_RCX] = 2;
	m->v.state.rflags |= FLAG_DF;
	poke_value(m, DATA, 0x332211, 4);
	run_code(m, 0xf3, 0x6e,		 /* rep outsb */
		 0x66, 0xba, 0x00, 0x05, /* mov dx, 0x500 */
		 0xec, 0xf4);		 /* in al, dx */
	assert_halted_at(m, 8);
	assert_int_equal(m->last_port_value, 0x22);
	assert_int_equal(m->v.state.gpr[GPR_RSI], DATA);
	assert_int_equal(m->v.state.gpr[GPR_RAX] & 0xff, 0xff);
	assert_int_equal(ledger_total(&m->ledger, EVENT_UNHANDLED_PORT), 1);
}

/* ---- debug registers ---- */

static void test_breakpoints(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.dr[0] = CODE + 1;
	m->v.state.dr[7] = 0x402; /* G0, execute */
	run_code(m, 0x40, 0x40, 0xf4);
	assert_vector(m, VECTOR_DB);
	assert_int_equal(slot(m, 0, 4), CODE + 1);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 1);
	assert_int_equal(m->v.state.dr[6] & 0xf, 1);

	enter_protected(m, 0);
	m->v.state.dr[1] = DATA;
	m->v.state.dr[7] = 0x408 | 1u << 20 | 3u << 22;	      /* G1, write, 4 bytes */
	run_code(m, 0xc6, 0x05, 0x03, 0x00, 0x06, 0x00, 0x09, /* mov byte [DATA + 3], 9 */
		 0x40, 0xf4);
	assert_vector(m, VECTOR_DB);
	assert_int_equal(slot(m, 0, 4), CODE + 7);
	assert_int_equal(m->v.state.dr[6] & 0xf, 2);
	assert_int_equal(peek(m, DATA + 3, 1), 9);
}

static void test_general_detect(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.dr[7] = 0x400 | BIT(13);
	run_code(m, 0x0f, 0x21, 0xf0); /* mov eax, dr6 */
	assert_vector(m, VECTOR_DB);
	assert_int_equal(slot(m, 0, 4), CODE);
	assert_true(m->v.state.dr[6] & BIT(13));
	assert_false(m->v.state.dr[7] & BIT(13));
}

static void test_single_step(void **state)
{
	struct machine *m = *state;

	enter_protected(m, 0);
	m->v.state.rflags |= FLAG_TF;
	run_code(m, 0x40, 0x40, 0xf4);
	assert_vector(m, VECTOR_DB);
	assert_int_equal(slot(m, 0, 4), CODE + 1);
	assert_true(m->v.state.dr[6] & BIT(14));
	assert_true(slot(m, 2, 4) & FLAG_TF);
	assert_false(m->v.state.rflags & FLAG_TF);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_real_int_and_frame),
		T(test_real_iret),
		T(test_real_far_call_and_return),
		T(test_real_double_and_triple_fault),
		T(test_real_segments_keep_limits),
		T(test_faults_of_ring_3),
		T(test_faults_of_ring_0),
		T(test_cr0_pg_needs_pe),
		T(test_int_from_ring_3),
		T(test_trap_gate_keeps_if),
		T(test_16_bit_gate),
		T(test_faults_on_the_way),
		T(test_bad_inner_stack),
		T(test_double_fault),
		T(test_benign_faults_are_served_in_turn),
		T(test_faults_set_rf_and_traps_do_not),
		T(test_external_interrupt_and_shadow),
		T(test_mov_ss_shadow),
		T(test_iret_to_ring_3),
		T(test_iret_of_ring_3_cannot_raise_privilege),
		T(test_popf_at_ring_3),
		T(test_call_gate_with_parameters),
		T(test_call_gate_and_return),
		T(test_gate_privilege),
		T(test_questions_about_descriptors),
		T(test_accessed_and_busy_bits),
		T(test_umip),
		T(test_sysenter_and_sysexit),
		T(test_port_permission_map),
		T(test_ports_and_iopl),
		T(test_outs_and_nobody),
		T(test_breakpoints),
		T(test_general_detect),
		T(test_single_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
