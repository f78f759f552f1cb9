/*
 * Precise faults: an instruction that faults has done nothing, and a REP that faults has done whole
 * iterations, so that both can be started again.
 */
#include "window.h"

#define EDGE (WINDOW + 0x8000) /* the first byte that is not there */
#define EDGE_DATA (DATA + 0x8000)

struct precise_case {
	const char *name;
	uint8_t bytes[12];
	uint8_t length;
	uint64_t rbx, rsp; /* 0: as always */
	uint64_t cr2;
	uint32_t error;
};

static const struct precise_case precise_cases[] = {
	{"mov [rbx], rax", {0x48, 0x89, 0x03}, 3, EDGE - 3, 0, EDGE, PF_W},
	{"mov rax, [rbx]", {0x48, 0x8b, 0x03}, 3, EDGE - 3, 0, EDGE, 0},
	{"add [rbx], eax", {0x01, 0x03}, 2, EDGE - 2, 0, EDGE, PF_W},
	{"xchg [rbx], eax", {0x87, 0x03}, 2, EDGE - 1, 0, EDGE, PF_W},
	{"lock xadd [rbx], rax", {0xf0, 0x48, 0x0f, 0xc1, 0x03}, 5, EDGE - 4, 0, EDGE, PF_W},
	{"cmpxchg [rbx], ecx", {0x0f, 0xb1, 0x0b}, 3, EDGE - 2, 0, EDGE, PF_W},
	{"cmpxchg8b [rbx]", {0x0f, 0xc7, 0x0b}, 3, EDGE - 4, 0, EDGE, PF_W},
	{"bts [rbx], eax", {0x0f, 0xab, 0x03}, 3, EDGE, 0, EDGE + 0x0, PF_W},
	{"shl [rbx], 3", {0xc1, 0x23, 0x03}, 3, EDGE, 0, EDGE, PF_W},
	{"setz [rbx]", {0x0f, 0x94, 0x03}, 3, EDGE, 0, EDGE, PF_W},
	{"push rax", {0x50}, 1, 0, EDGE + 4, EDGE, PF_W},
	{"push [rbx]", {0xff, 0x33}, 2, EDGE - 4, 0, EDGE, 0},
	{"push [rbx], stack", {0xff, 0x33}, 2, WINDOW, EDGE + 8, EDGE, PF_W},
	{"pushfq", {0x9c}, 1, 0, EDGE + 4, EDGE, PF_W},
	{"pop rax", {0x58}, 1, 0, EDGE - 4, EDGE, 0},
	{"pop [rbx]", {0x8f, 0x03}, 2, EDGE - 4, WINDOW, EDGE, PF_W},
	{"popfq", {0x9d}, 1, 0, EDGE - 4, EDGE, 0},
	{"call rel32", {0xe8, 1, 0, 0, 0}, 5, 0, EDGE + 4, EDGE, PF_W},
	{"call [rbx]", {0xff, 0x13}, 2, EDGE, 0, EDGE, 0},
	{"ret", {0xc3}, 1, 0, EDGE - 2, EDGE, 0},
	{"enter 0x1000, 0", {0xc8, 0, 0x10, 0}, 4, 0, EDGE + 0x800 + 0x800, EDGE + 0xff8, PF_W},
	{"enter 8, 2", {0xc8, 8, 0, 2}, 4, 0, EDGE + 8, EDGE, PF_W},
	{"movsq", {0x48, 0xa5}, 2, 0, 0, EDGE, PF_W},
	{"jmp [rbx]", {0xff, 0x23}, 2, EDGE - 7, 0, EDGE, 0},
	{"movdqu [rbx], xmm0", {0xf3, 0x0f, 0x7f, 0x03}, 4, EDGE - 15, 0, EDGE, PF_W},
	{"fstp qword [rbx]", {0xdd, 0x1b}, 2, EDGE - 7, 0, EDGE, PF_W},
	{"fxsave [rbx]", {0x0f, 0xae, 0x03}, 3, EDGE - 16, 0, EDGE, PF_W},
};

static void set_registers(struct machine *m, const struct precise_case *p)
{
	struct vcpu_state *s = &m->v.state;

	s->cr4 |= CR4_OSFXSR;
	for (unsigned r = 0; r < 16; r++)
		if (r != GPR_RSP)
			s->gpr[r] = 0x0101010101010101ull * (r + 1);
	s->gpr[GPR_RAX] &= 0x7;
	s->gpr[GPR_RBX] = p->rbx ? p->rbx : WINDOW;
	s->gpr[GPR_RBP] = WINDOW + 0x4000;
	s->gpr[GPR_RSI] = WINDOW;
	s->gpr[GPR_RDI] = EDGE - 4;
	if (p->rsp)
		s->gpr[GPR_RSP] = p->rsp;
	/* The handler's frame goes to a stack that is there. */
	poke_value(m, TSS + 0x24, KERNEL_STACK, 8);
	set_idt64(m, VECTOR_PF, KERNEL_CS64, handler(VECTOR_PF), 0x8e, 1);
}

static void test_nothing_is_done(void **state)
{
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(precise_cases); n++) {
		const struct precise_case *p = &precise_cases[n];
		uint8_t before[16], after[16];

		enter_window(m, 0);
		set_registers(m, p);
		for (unsigned k = 0; k < 16; k++)
			poke_value(m, EDGE_DATA - 16 + k, 0xa0 + k, 1);
		memory_read(m->memory, gpa(EDGE_DATA - 16), before, 16);
		struct vcpu_state old = m->v.state;
		poke(m, CODE, p->bytes, p->length);
		go(m);
		if (ended_in(m) != VECTOR_PF)
			fail_msg("%s: ended in %d", p->name, ended_in(m));
		memory_read(m->memory, gpa(EDGE_DATA - 16), after, 16);
		if (memcmp(before, after, 16))
			fail_msg("%s: wrote before it faulted", p->name);
		for (unsigned r = 0; r < 16; r++)
			if (r != GPR_RSP && m->v.state.gpr[r] != old.gpr[r])
				fail_msg("%s: register %u changed", p->name, r);
		if (m->v.state.cr2 != p->cr2)
			fail_msg("%s: CR2 %#llx", p->name, (unsigned long long)m->v.state.cr2);
		assert_int_equal(slot(m, 0, 8), p->error);
		assert_int_equal(slot(m, 1, 8), CODE);
		assert_int_equal(slot(m, 4, 8), old.gpr[GPR_RSP]);
		assert_int_equal(slot(m, 3, 8) & FLAGS_ARITHMETIC,
				 ((old.flags_low & 0xd5u) | (uint64_t)old.flags_of << 11));
		assert_true(slot(m, 3, 8) & FLAG_RF);
		assert_int_equal(memcmp(&m->v.state.fpu, &old.fpu, sizeof(old.fpu)), 0);
	}
}

/* REP into a page that is not there: registers stand at the element that faults; with the page
 * present the rest is done. */
static void run_rep(struct machine *m, uint8_t opcode, unsigned size_bytes, bool is_source_bad)
{
	enum { BEFORE = 5, COUNT = 20 };
	struct vcpu_state *s = &m->v.state;

	enter_window(m, 0);
	window_map(m, 8, EDGE_DATA, 0);
	for (unsigned k = 0; k < 0x200; k++)
		poke_value(m, DATA + k, k & 0xff, 1);
	for (unsigned k = 0; k < 0x200; k++)
		poke_value(m, EDGE_DATA - BEFORE * size_bytes + k, k & 0xff, 1);
	uint64_t bad = EDGE - BEFORE * size_bytes;

	s->gpr[GPR_RSI] = is_source_bad ? bad : WINDOW;
	s->gpr[GPR_RDI] = is_source_bad ? WINDOW : bad;
	s->gpr[GPR_RCX] = COUNT;
	s->gpr[GPR_RAX] = 0x5555;
	vcpu_set_rflags(&m->v, FLAG_CF | FLAG_FIXED1);
	const uint8_t code[] = {0xf3, opcode, 0xf4};
	poke(m, CODE, code, sizeof(code));
	go(m);
	assert_vector(m, VECTOR_PF);
	assert_int_equal(s->cr2, EDGE);
	assert_int_equal(s->gpr[GPR_RCX], COUNT - BEFORE);
	assert_int_equal(slot(m, 1, 8), CODE);
	assert_int_equal(slot(m, 3, 8) & FLAGS_ARITHMETIC, FLAG_CF);
	uint64_t at = is_source_bad ? s->gpr[GPR_RSI] : s->gpr[GPR_RDI];
	assert_int_equal(at, EDGE);

	window_map(m, 8, EDGE_DATA, PAGE_PRESENT);
	s->activity = ACTIVITY_RUNNING;
	s->rip = CODE;
	s->gpr[GPR_RSP] = KERNEL_STACK;
	go(m);
	assert_halted_at(m, 3);
	assert_int_equal(s->gpr[GPR_RCX], 0);
}

static void test_rep_faults_between_elements(void **state)
{
	struct machine *m = *state;

	for (unsigned size = 0; size < 2; size++) {
		unsigned bytes = size ? 4 : 1;

		run_rep(m, 0xa4 | size, bytes, false);
		assert_memory_equal(memory_host(m->memory, gpa(DATA), 20 * bytes),
				    memory_host(m->memory, gpa(EDGE_DATA - 5 * bytes), 20 * bytes),
				    20 * bytes);
		run_rep(m, 0xa4 | size, bytes, true);
		run_rep(m, 0xaa | size, bytes, false);
		assert_int_equal(peek(m, EDGE_DATA + 14 * bytes, 1), 0x55);
		run_rep(m, 0xac | size, bytes, true);
		run_rep(m, 0xa6 | size, bytes, false);
		run_rep(m, 0xa6 | size, bytes, true);
	}
}

/* One run over the window, whose pages lie in another order, and what must come of it. */
struct rep_run {
	uint16_t rsi, rdi, count; /* offsets into the window */
};

#define SHUFFLED(page) (DATA + (page)*3 % 8 * PAGE_SIZE_BYTES)

static void check_rep(struct machine *m, struct rep_run run, uint8_t opcode, unsigned shift,
		      bool is_backward)
{
	static const uint8_t prefix[] = {0x90, 0x66, 0x90, 0x90};
	static uint8_t expected[8 * PAGE_SIZE_BYTES];
	const uint64_t rax = 0x8877665544332211;
	struct vcpu_state *s = &m->v.state;
	int size = 1 << shift, step = is_backward ? -size : size;
	const uint8_t code[] = {prefix[shift], 0xf3, (uint8_t)(opcode | !!shift), 0xf4};
	const uint8_t wide[] = {0xf3, 0x48, (uint8_t)(opcode | 1), 0xf4};
	enter_window(m, 0);
	for (unsigned k = 0; k < sizeof(expected); k++)
		expected[k] = (uint8_t)(k * 7 ^ k >> 8);
	for (unsigned page = 0; page < 8; page++) {
		window_map(m, page, SHUFFLED(page), PAGE_PRESENT);
		poke(m, SHUFFLED(page), expected + page * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES);
	}
	for (int k = 0; k < run.count; k++)
		memmove(expected + run.rdi + k * step,
			opcode == 0xa4 ? expected + run.rsi + k * step : (const uint8_t *)&rax,
			(size_t)size);
	s->gpr[GPR_RSI] = WINDOW + run.rsi;
	s->gpr[GPR_RDI] = WINDOW + run.rdi;
	s->gpr[GPR_RCX] = run.count;
	s->gpr[GPR_RAX] = rax;
	vcpu_set_rflags(&m->v, FLAG_FIXED1 | (is_backward ? FLAG_DF : 0));
	poke(m, CODE, shift == 3 ? wide : code, sizeof(code));
	go(m);
	assert_halted_at(m, 4);
	assert_int_equal(s->gpr[GPR_RCX], 0);
	assert_int_equal(s->gpr[GPR_RDI], WINDOW + run.rdi + (uint64_t)(run.count * step));
	for (unsigned page = 0; page < 8; page++)
		assert_memory_equal(memory_host(m->memory, gpa(SHUFFLED(page)), PAGE_SIZE_BYTES),
				    expected + page * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES);
}

static void test_rep_goes_on_in_the_next_page(void **state)
{
	static const struct rep_run runs[] = {
		{0x3ff0, 0x4c08, 300},			      /* the source's page ends first */
		{0x4c08, 0x3ff0, 300}, {0x3ff0, 0x3ff8, 200}, /* repeats what it wrote */
		{0x3ff8, 0x3ff0, 200}, {0x3fed, 0x4bf3, 259}, /* elements in two pages */
		{0x3ff8, 0x4000, 1},   {0x3fff, 0x4fff, 2},   {0x3c00, 0x3400, 511},
	};
	for (unsigned k = 0; k < 4 * ARRAY_COUNT(runs); k++)
		for (unsigned kind = 0; kind < 4; kind++)
			check_rep(*state, runs[k / 4], kind & 1 ? 0xaa : 0xa4, k % 4, kind >> 1);
	check_rep(*state, (struct rep_run){0x5ff3, 0x103, 4096}, 0xa4, 0, false);
	check_rep(*state, (struct rep_run){0, 0x1005, 3000}, 0xaa, 3, false);
}

static void test_pop_into_the_stack(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RSP] = DATA;
	poke_value(m, DATA, 0x1234, 8);
	run_code(m, 0x8f, 0x44, 0x24, 0x10, 0xf4); /* pop [rsp + 16]: RSP is raised first */
	assert_halted_at(m, 5);
	assert_int_equal(peek(m, DATA + 24, 8), 0x1234);
	enter_long(m, 0);
	m->v.state.gpr[GPR_RSP] = DATA;
	poke_value(m, DATA, 0x4321, 8);
	run_code(m, 0x5c, 0xf4); /* pop rsp */
	assert_int_equal(m->v.state.gpr[GPR_RSP], 0x4321);
	enter_long(m, 0);
	m->v.state.gpr[GPR_RSP] = DATA;
	run_code(m, 0x54, 0xf4); /* push rsp: its old value */
	assert_int_equal(peek(m, DATA - 8, 8), DATA);
}

static void test_leave_and_enter(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RBP] = DATA;
	m->v.state.gpr[GPR_RSP] = DATA - 0x100;
	poke_value(m, DATA, 0x77, 8);
	run_code(m, 0xc9, 0xf4);
	assert_int_equal(m->v.state.gpr[GPR_RSP], DATA + 8);
	assert_int_equal(m->v.state.gpr[GPR_RBP], 0x77);
	enter_long(m, 0);
	m->v.state.gpr[GPR_RBP] = DATA + 0x100;
	m->v.state.gpr[GPR_RSP] = DATA;
	poke_value(m, DATA + 0xf8, 0x99, 8);
	run_code(m, 0xc8, 0x10, 0x00, 0x02, 0xf4); /* enter 16, 2 */
	assert_int_equal(m->v.state.gpr[GPR_RBP], DATA - 8);
	assert_int_equal(m->v.state.gpr[GPR_RSP], DATA - 8 - 16 - 16);
	assert_int_equal(peek(m, DATA - 8, 8), DATA + 0x100);
	assert_int_equal(peek(m, DATA - 16, 8), 0x99);
	assert_int_equal(peek(m, DATA - 24, 8), DATA - 8);
}

static void test_pusha_is_all_or_nothing(void **state)
{
	struct machine *m = *state;

	/* A stack segment of one page: seven registers fit, the eighth does not. */
	enter_protected(m, 0);
	m->v.state.seg[SEG_SS].base = DATA;
	m->v.state.seg[SEG_SS].attributes |= ATTR_EXPAND_DOWN;
	m->v.state.seg[SEG_SS].limit = 0xfff;
	m->v.state.gpr[GPR_RSP] = 0x1000 + 28;
	set_gate(m, IDT + VECTOR_SS * 8, TSS_B_SELECTOR, 0, 0x85, 0);
	m->exit.reason = EXIT_BUDGET;
	run_code(m, 0x60);
	for (unsigned n = 0; n < 32; n += 4)
		assert_int_equal(peek(m, DATA + 0x1000 - 4 + n, 4), 0);
}

/* ---- fetching ---- */

static void fetch_at(struct machine *m, unsigned cpl, uint64_t at, uint64_t cr2, uint32_t error)
{
	m->v.state.rip = at;
	go(m);
	assert_vector(m, VECTOR_PF);
	assert_int_equal(m->v.state.cr2, cr2);
	assert_int_equal(slot(m, 0, 8), error);
	assert_int_equal(slot(m, 1, 8), at);
}

/* A function is called twice, the second time where it is known to lead, and then an address that
 * is none: nothing is pushed. */
static void test_call_to_nowhere(void **state)
{
	static const uint8_t calls[] = {
		0xff, 0xd0,				     /* call rax */
		0x48, 0xc7, 0x44, 0x24, 0xf8, 0x5a, 0, 0, 0, /* mov qword [rsp-8], 0x5a */
		0x48, 0x89, 0xc8, 0x48, 0x89, 0xd1,	     /* mov rax, rcx; mov rcx, rdx */
		0xeb, 0xed,				     /* jmp to the call */
		0xc3,					     /* the function: ret */
	};
	const struct precise_case p = {.rsp = WINDOW + 0x100};
	const uint64_t bad[] = {0x800000000000, 0xffff7fffffffffff};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(bad); n++) {
		enter_window(m, 0);
		set_registers(m, &p);
		set_idt64(m, VECTOR_GP, KERNEL_CS64, handler(VECTOR_GP), 0x8e, 1);
		m->v.state.gpr[GPR_RAX] = m->v.state.gpr[GPR_RCX] = CODE + sizeof(calls) - 1;
		m->v.state.gpr[GPR_RDX] = bad[n];
		poke(m, CODE, calls, sizeof(calls));
		go(m);
		assert_int_equal(ended_in(m), VECTOR_GP);
		assert_int_equal(slot(m, 1, 8), CODE);
		assert_int_equal(slot(m, 4, 8), p.rsp);
		assert_int_equal(m->v.state.gpr[GPR_RAX], bad[n]);
		assert_int_equal(peek(m, DATA + 0x100 - 8, 8), 0x5a);
	}
}

static void test_fetch_faults(void **state)
{
	static const uint8_t crossing[] = {0xb8, 0x01, 0x00}; /* mov eax, imm32 */
	struct machine *m = *state;

	enter_window(m, 0);
	fetch_at(m, 0, EDGE + 5, EDGE + 5, PF_I);
	enter_window(m, 3);
	fetch_at(m, 3, EDGE, EDGE, PF_I | PF_U);
	enter_window(m, 0);
	window_map(m, 2, DATA, PAGE_PRESENT | PTE_NX);
	fetch_at(m, 0, WINDOW + 0x2004, WINDOW + 0x2004, PF_I | PF_P);
	enter_window(m, 3);
	window_map(m, 2, DATA, PTE_P | PTE_W);
	fetch_at(m, 3, WINDOW + 0x2004, WINDOW + 0x2004, PF_I | PF_P | PF_U);
	/* The second page of a crossing instruction. */
	enter_window(m, 0);
	poke(m, EDGE_DATA - 3, crossing, 3);
	m->v.state.gpr[GPR_RAX] = 0x5a;
	fetch_at(m, 0, EDGE - 3, EDGE, PF_I);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x5a);
	/* SMEP. */
	enter_window(m, 0);
	m->v.state.cr4 |= CR4_SMEP;
	poke_value(m, TABLES + 0x2000, 0x83, 8); /* the kernel's own pages are the kernel's */
	poke_value(m, TABLES, (TABLES + 0x1000) | 7, 8);
	fetch_at(m, 0, WINDOW, WINDOW, PF_I | PF_P);
}

static void test_fetch_from_device_memory(void **state)
{
	struct machine *m = *state;

	enter_window(m, 0);
	window_map(m, 2, 0xd0000000, PAGE_PRESENT);
	m->v.state.rip = WINDOW + 0x2000;
	go(m); /* all ones: FF FF does not exist */
	assert_vector(m, VECTOR_UD);
	assert_int_equal(slot(m, 0, 8), WINDOW + 0x2000);
}

/* ---- what does not decode ---- */

struct bad_case {
	const char *name;
	uint8_t bytes[18];
	uint8_t length;
	int vector;
};

static void test_undefined_and_too_long(void **state)
{
	static const struct bad_case cases[] = {
		{"ud2", {0x0f, 0x0b}, 2, VECTOR_UD},
		{"push es", {0x06}, 1, VECTOR_UD},
		{"daa", {0x27}, 1, VECTOR_UD},
		{"pusha", {0x60}, 1, VECTOR_UD},
		{"jmp far", {0xea, 0, 0, 0, 0, 8, 0}, 7, VECTOR_UD},
		{"0f 04", {0x0f, 0x04}, 2, VECTOR_UD},
		{"lock nop", {0xf0, 0x90}, 2, VECTOR_UD},
		{"lock mov", {0xf0, 0x89, 0x03}, 3, VECTOR_UD},
		{"lock add eax, ebx", {0xf0, 0x01, 0xd8}, 3, VECTOR_UD},
		{"lock cmp", {0xf0, 0x39, 0x03}, 3, VECTOR_UD},
		{"lock add eax, [rbx]", {0xf0, 0x03, 0x03}, 3, VECTOR_UD},
		{"lea eax, ebx", {0x8d, 0xc3}, 2, VECTOR_UD},
		{"mov cs", {0x8e, 0xc8}, 2, VECTOR_UD},
		{"15 prefixes",
		 {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		  0x66, 0x66, 0x90},
		 16,
		 VECTOR_GP},
		{"15 REX",
		 {0x48, 0x48, 0x48, 0x48, 0x48, 0x48, 0x48, 0x48, 0x48, 0x48, 0x48, 0x48, 0x48,
		  0x48, 0x48, 0x90},
		 16,
		 VECTOR_GP},
		{"16 bytes",
		 {0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0xc7, 0x03, 1, 0, 0,
		  0},
		 16,
		 VECTOR_GP},
	};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(cases); n++)
		for (unsigned crossing = 0; crossing < 2; crossing++) {
			enter_long(m, 0);
			m->v.state.gpr[GPR_RBX] = DATA;
			m->v.state.rip = CODE + crossing * 0xfff;
			uint64_t at = m->v.state.rip;
			poke(m, at, cases[n].bytes, cases[n].length);
			go(m);
			if (ended_in(m) != cases[n].vector)
				fail_msg("%s: ended in %d", cases[n].name, ended_in(m));
			assert_int_equal(slot(m, cases[n].vector == VECTOR_GP, 8), at);
		}
	enter_long(m, 0); /* 15 bytes are fine */
	run_code(m, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0xb8, 1, 0, 0, 0,
		 0xf4);
	assert_halted_at(m, 16);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_nothing_is_done),
		T(test_rep_faults_between_elements),
		T(test_rep_goes_on_in_the_next_page),
		T(test_pop_into_the_stack),
		T(test_leave_and_enter),
		T(test_pusha_is_all_or_nothing),
		T(test_call_to_nowhere),
		T(test_fetch_faults),
		T(test_fetch_from_device_memory),
		T(test_undefined_and_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
