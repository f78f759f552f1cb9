/*
 * Loops whose accesses lie so near each other that an engine may look their pages up together: what
 * stops being there, or writable, or is code, shows at the very instruction that meets it.
 */
#include "window.h"

#define PAGE(n) (WINDOW + (n)*0x1000ull)
#define PAGE_READABLE 5ull /* present, user */

struct loop {
	const char *name;
	uint8_t body[40]; /* up to the jump back */
	uint8_t length;
	uint64_t rbx, rcx, rsp; /* RBX and RCX are moved by the bodies */
	unsigned page;		/* that is another than its neighbours */
	uint64_t flags;		/* ... how; 0: not there */
	/* The fault. */
	uint8_t vector; /* 0: #PF */
	uint8_t at;
	uint64_t cr2;
	uint32_t error;
	uint64_t rsp_then; /* 0: does not matter */
	uint64_t count_at; /* where the body counts, or 0 */
	uint64_t count;	   /* ... what it has counted to */
};

static const struct loop loops[] = {
	{
		.name = "the window's end reaches a page that is not there",
		/* inc dword [rcx]; mov rax, [rbx]; mov [rcx+8], rax; mov rdx, [rbx+8]; add rbx, 8
		 */
		.body = {0xff, 0x01, 0x48, 0x8b, 0x03, 0x48, 0x89, 0x41, 0x08, 0x48, 0x8b, 0x53,
			 0x08, 0x48, 0x83, 0xc3, 0x08},
		.length = 17,
		.rbx = PAGE(3) - 80,
		.rcx = PAGE(0),
		.page = 3,
		.at = 9,
		.cr2 = PAGE(3),
		.count_at = PAGE(0),
		.count = 10,
	},
	{
		.name = "a window that is written reaches a page that may only be read",
		/* mov rdx, [rbx+0x1000]; mov rax, [rbx]; inc dword [rcx]; mov [rbx+8], rax;
		   add rbx, 0x1000 */
		.body = {0x48, 0x8b, 0x93, 0x00, 0x10, 0x00, 0x00, 0x48, 0x8b, 0x03, 0xff, 0x01,
			 0x48, 0x89, 0x43, 0x08, 0x48, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00},
		.length = 23,
		.rbx = PAGE(1),
		.rcx = PAGE(0),
		.page = 5,
		.flags = PAGE_READABLE,
		.at = 12,
		.cr2 = PAGE(5) + 8,
		.error = PF_P | PF_W,
		.count_at = PAGE(0),
		.count = 5,
	},
	{
		.name = "two bases, the second one's page is not there",
		/* mov rax, [rbx]; mov rdx, [rcx]; inc dword [rbx+8]; add rax, [rcx+16];
		   add rcx, 0x800 */
		.body = {0x48, 0x8b, 0x03, 0x48, 0x8b, 0x11, 0xff, 0x43, 0x08, 0x48,
			 0x03, 0x41, 0x10, 0x48, 0x81, 0xc1, 0x00, 0x08, 0x00, 0x00},
		.length = 20,
		.rbx = PAGE(0),
		.rcx = PAGE(2),
		.page = 4,
		.at = 3,
		.cr2 = PAGE(4),
		.count_at = PAGE(0) + 8,
		.count = 4,
	},
	{
		.name = "pushes run off their page",
		/* inc dword [rbx]; push rax; push rcx */
		.body = {0xff, 0x03, 0x50, 0x51},
		.length = 4,
		.rbx = PAGE(0),
		.rsp = PAGE(4) + 0x48,
		.page = 3,
		.at = 3,
		.cr2 = PAGE(4) - 8,
		.error = PF_W,
		.rsp_then = PAGE(4),
		.count_at = PAGE(0),
		.count = 5,
	},
	{
		.name = "pops run off their page",
		/* inc dword [rbx]; pop rax; pop rdx; pop rsi */
		.body = {0xff, 0x03, 0x58, 0x5a, 0x5e},
		.length = 5,
		.rbx = PAGE(0),
		.rsp = PAGE(3) - 32 * 3 - 8,
		.page = 3,
		.at = 3,
		.cr2 = PAGE(3),
		.rsp_then = PAGE(3),
		.count_at = PAGE(0),
		.count = 5,
	},
	{
		.name = "an index runs off the page",
		/* mov rax, [rbx+rdx*8]; inc dword [rcx]; mov [rbx+rdx*8], rax; inc rdx */
		.body = {0x48, 0x8b, 0x04, 0xd3, 0xff, 0x01, 0x48, 0x89, 0x04, 0xd3, 0x48, 0xff,
			 0xc2},
		.length = 13,
		.rbx = PAGE(2) - 64,
		.rcx = PAGE(0),
		.page = 2,
		.flags = PAGE_READABLE,
		.at = 6,
		.cr2 = PAGE(2),
		.error = PF_P | PF_W,
		.count_at = PAGE(0),
		.count = 9,
	},
	{
		.name = "an operand is not aligned any more",
		/* inc dword [rcx]; movaps xmm0, [rbx]; mov rax, [rbx+16]; movaps [rbx+32], xmm0;
		   add rbx, 40 */
		.body = {0xff, 0x01, 0x0f, 0x28, 0x03, 0x48, 0x8b, 0x43, 0x10, 0x0f, 0x29, 0x43,
			 0x20, 0x48, 0x83, 0xc3, 0x28},
		.length = 17,
		.rbx = PAGE(1),
		.rcx = PAGE(1) + 0x800,
		.vector = VECTOR_GP,
		.at = 2,
		.count_at = PAGE(1) + 0x800,
		.count = 2,
	},
	{
		.name = "two operands cannot both be aligned",
		/* inc dword [rcx]; movaps xmm0, [rbx]; movaps xmm1, [rbx+8]; add rbx, 16 */
		.body = {0xff, 0x01, 0x0f, 0x28, 0x03, 0x0f, 0x28, 0x4b, 0x08, 0x48, 0x83, 0xc3,
			 0x10},
		.length = 13,
		.rbx = PAGE(1),
		.rcx = PAGE(1) + 0x800,
		.vector = VECTOR_GP,
		.at = 5,
		.count_at = PAGE(1) + 0x800,
		.count = 1,
	},
};

static void start(struct machine *m, const struct loop *l)
{
	struct vcpu_state *s = &m->v.state;

	enter_window(m, 0);
	s->cr4 |= CR4_OSFXSR;
	s->cr2 = 0;
	if (l->page)
		window_map(m, l->page, l->flags ? DATA + l->page * 0x1000 : 0, l->flags);
	for (unsigned page = 0; page < 8; page++)
		for (unsigned at = 0; at < 0x1000; at += 8)
			poke_value(m, DATA + page * 0x1000 + at, 0, 8);
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[GPR_RBX] = l->rbx;
	s->gpr[GPR_RCX] = l->rcx;
	s->gpr[GPR_RSP] = l->rsp ? l->rsp : PAGE(7);
	/* The handlers' frames go to a stack that is there. */
	poke_value(m, TSS + 0x24, KERNEL_STACK, 8);
	set_idt64(m, VECTOR_PF, KERNEL_CS64, handler(VECTOR_PF), 0x8e, 1);
	set_idt64(m, VECTOR_GP, KERNEL_CS64, handler(VECTOR_GP), 0x8e, 1);
}

static void test_faults_in_the_middle(void **state)
{
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(loops); n++) {
		const struct loop *l = &loops[n];
		const uint8_t back[2] = {0xeb, (uint8_t)(0xfe - l->length)};

		start(m, l);
		poke(m, CODE, l->body, l->length);
		poke(m, CODE + l->length, back, sizeof(back));
		go(m);
		if (ended_in(m) != (l->vector ? l->vector : VECTOR_PF))
			fail_msg("%s: ended in %d", l->name, ended_in(m));
		if (m->v.state.cr2 != l->cr2 || slot(m, 1, 8) != CODE + l->at ||
		    slot(m, 0, 8) != l->error)
			fail_msg("%s: CR2 %#llx, RIP %#llx, error %llx", l->name,
				 (unsigned long long)m->v.state.cr2,
				 (unsigned long long)slot(m, 1, 8),
				 (unsigned long long)slot(m, 0, 8));
		if (l->rsp_then && slot(m, 4, 8) != l->rsp_then)
			fail_msg("%s: RSP %#llx", l->name, (unsigned long long)slot(m, 4, 8));
		assert_int_equal(peek(m, l->count_at - WINDOW + DATA, 4), l->count);
	}
}

/* One page at two addresses, each its own window: what one writes the other reads. */
static void test_two_bases_one_page(void **state)
{
	struct machine *m = *state;
	struct vcpu_state *s = &m->v.state;

	start(m, &(struct loop){.rbx = PAGE(1), .rcx = PAGE(2), .page = 2, .flags = PAGE_PRESENT});
	window_map(m, 2, DATA + 0x1000, PAGE_PRESENT);
	s->gpr[GPR_RAX] = 1;
	s->gpr[GPR_RBP] = 10;
	run_code(m, 0x48, 0x89, 0x03,		/* mov [rbx], rax */
		 0x48, 0x03, 0x11,		/* add rdx, [rcx] */
		 0x48, 0xff, 0xc0,		/* inc rax */
		 0x48, 0x89, 0x51, 0x08,	/* mov [rcx+8], rdx */
		 0x48, 0x03, 0x73, 0x08,	/* add rsi, [rbx+8] */
		 0xff, 0xcd, 0x75, 0xeb, 0xf4); /* dec ebp; jnz; hlt */
	assert_halted_at(m, 22);
	assert_int_equal(s->gpr[GPR_RDX], 55);
	assert_int_equal(s->gpr[GPR_RSI], 1 + 3 + 6 + 10 + 15 + 21 + 28 + 36 + 45 + 55);
}

/* A window's write reaches the code that it is in: the instruction behind is the new one. */
static void test_code_is_written(void **state)
{
	struct machine *m = *state;
	struct vcpu_state *s = &m->v.state;
	enum { PATCHED = 7, ROUNDS = 8 };

	start(m, &(struct loop){.rbx = PAGE(0) + 0x20,
				.rcx = PAGE(0) + (CODE & 0xfff) + PATCHED,
				.page = ROUNDS - 1,
				.flags = PAGE_PRESENT});
	window_map(m, ROUNDS - 1, CODE & ~0xfffull, PAGE_PRESENT);
	poke_value(m, DATA + 0x20, 0x22, 8);
	s->gpr[GPR_RBP] = ROUNDS;
	run_code(m, 0x48, 0x8b, 0x03,			   /* mov rax, [rbx] */
		 0x88, 0x01,				   /* mov [rcx], al */
		 0x90, 0xba, 0x11, 0, 0, 0,		   /* nop; mov edx, 0x11 */
		 0x0f, 0xb6, 0x71, 0x01,		   /* movzx esi, byte [rcx+1] */
		 0x48, 0x01, 0x53, 0x08,		   /* add [rbx+8], rdx */
		 0x48, 0x81, 0xc1, 0x00, 0x10, 0x00, 0x00, /* add rcx, 0x1000 */
		 0xff, 0xcd, 0x75, 0xe0, 0xf4);		   /* dec ebp; jnz; hlt */
	assert_halted_at(m, 31);
	assert_int_equal(peek(m, DATA + 0x28, 8), (ROUNDS - 1) * 0x11 + 0x22);
}

/* Ways of saying that the page which RSP is in is another one. */
static const struct change {
	const char *name;
	uint8_t code[12];
	uint8_t length;
} changes[] = {
	{"INVLPG", {0x0f, 0x01, 0x3c, 0x24}, 4},
	{"CR3", {0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8}, 6},
	/* mov rax, cr4; xor rax, PGE; mov cr4, rax */
	{"CR4", {0x0f, 0x20, 0xe0, 0x48, 0x35, 0x80, 0, 0, 0, 0x0f, 0x22, 0xe0}, 12},
};

#define STACK (PAGE(0) + 0x800)

/* Between a push and a read of what was pushed the stack is another page, each time. */
static void test_stack_is_elsewhere(void **state)
{
	static const uint8_t before[] = {0x51, 0x48, 0x89, 0x17, /* push rcx; mov [rdi], rdx */
					 0x48, 0x87, 0xd3};	 /* xchg rdx, rbx */
	static const uint8_t after[] = {0x4c, 0x8b, 0x04, 0x24,	 /* mov r8, [rsp] */
					0x4c, 0x01, 0xc6,	 /* add rsi, r8 */
					0x41, 0x58, 0xff, 0xc9}; /* pop r8; dec ecx */
	struct machine *m = *state;
	struct vcpu_state *s = &m->v.state;
	enum { ROUNDS = 40 };

	for (size_t n = 0; n < ARRAY_COUNT(changes); n++) {
		const struct change *c = &changes[n];
		const unsigned length = (unsigned)(sizeof(before) + c->length + sizeof(after));
		const uint8_t end[] = {0x75, (uint8_t)(0xfe - length), 0xf4}; /* jnz; hlt */
		uint64_t pages[2] = {0}, sum = 0;

		for (unsigned k = ROUNDS, now = 0; k > 0; k--) {
			pages[now] = k;
			now ^= 1;
			sum += pages[now];
		}
		start(m, &(struct loop){.rcx = ROUNDS, .rsp = STACK});
		s->gpr[GPR_RDI] = WINDOW_TABLE;
		s->gpr[GPR_RDX] = (DATA + 0x1000) | PAGE_PRESENT;
		s->gpr[GPR_RBX] = DATA | PAGE_PRESENT;
		poke(m, CODE, before, sizeof(before));
		poke(m, CODE + sizeof(before), c->code, c->length);
		poke(m, CODE + sizeof(before) + c->length, after, sizeof(after));
		poke(m, CODE + length, end, sizeof(end));
		go(m);
		assert_halted_at(m, length + sizeof(end));
		if (s->gpr[GPR_RSI] != sum)
			fail_msg("%s: %llu instead of %llu", c->name,
				 (unsigned long long)s->gpr[GPR_RSI], (unsigned long long)sum);
	}
}

/* In the last of many rounds the stack may not be written any more. */
static void test_stack_may_not_be_written(void **state)
{
	struct machine *m = *state;
	struct vcpu_state *s = &m->v.state;
	enum { ROUNDS = 40 };

	start(m, &(struct loop){.rcx = ROUNDS, .rsp = STACK});
	for (unsigned k = 1; k <= ROUNDS; k++)
		poke_value(m, DATA + 0x3000 + k * 8,
			   k == 1 ? DATA | PAGE_READABLE : DATA | PAGE_PRESENT, 8);
	s->gpr[GPR_RDI] = WINDOW_TABLE;
	s->gpr[GPR_R9] = DATA + 0x3000;
	run_code(m, 0x4a, 0x8d, 0x24, 0x14,	/* lea rsp, [rsp+r10], which is 0 */
		 0x51, 0x58,			/* push rcx; pop rax */
		 0x49, 0x8b, 0x14, 0xc9,	/* mov rdx, [r9+rcx*8] */
		 0x48, 0x89, 0x17,		/* mov [rdi], rdx */
		 0x0f, 0x01, 0x3c, 0x24,	/* invlpg [rsp] */
		 0x50, 0x58,			/* push rax; pop rax */
		 0xff, 0xc9, 0x75, 0xe9, 0xf4); /* dec ecx; jnz; hlt */
	assert_int_equal(ended_in(m), VECTOR_PF);
	assert_int_equal(s->cr2, STACK - 8);
	assert_int_equal(slot(m, 1, 8), CODE + 17);
	assert_int_equal(slot(m, 4, 8), STACK);
	assert_int_equal(peek(m, DATA + 0x7f8, 8), 1);
}

/* Pushes over code in the page of the stack, which was the stack alone at first. */
static void test_stack_becomes_code(void **state)
{
	struct machine *m = *state;
	struct vcpu_state *s = &m->v.state;
	enum { ROUNDS = 5 };

	start(m, &(struct loop){.rbx = ROUNDS, .rcx = 0x909090c300000001, .rsp = STACK});
	poke_value(m, DATA, 0xb8, 1); /* mov eax, ...; ret */
	s->gpr[GPR_RSI] = PAGE(0);
	s->gpr[GPR_RBP] = PAGE(0) + 9;
	run_code(m, 0x48, 0x89, 0xec, 0x51,		   /* mov rsp, rbp; push rcx */
		 0x48, 0x8d, 0xa5, 0x00, 0x04, 0x00, 0x00, /* lea rsp, [rbp+0x400] */
		 0xff, 0xd6, 0x48, 0x01, 0xc2,		   /* call rsi; add rdx, rax */
		 0x48, 0xff, 0xc1,			   /* inc rcx */
		 0xff, 0xcb, 0x75, 0xe7, 0xf4);		   /* dec ebx; jnz; hlt */
	assert_halted_at(m, 24);
	assert_int_equal(s->gpr[GPR_RDX], 1 + 2 + 3 + 4 + 5);
}

/* A CALL whose operand and return address lie 256 MiB apart, so that a TLB that is found by 16 bits
 * of the page's number, or fewer, has one place for both. */
static void test_call_drives_out_its_operand(void **state)
{
	struct machine *m = *state;
	struct vcpu_state *s = &m->v.state;
	enum { ROUNDS = 40, APART = 256 << 20, FUNCTION = CODE + 0x100 };
	static const uint8_t function[] = {0x48, 0xff, 0xc2, 0xc3}; /* inc rdx; ret */

	start(m, &(struct loop){.rbx = STACK + 8 + APART, .rcx = ROUNDS, .rsp = STACK});
	poke_value(m, TABLES + 0x2000 + ((WINDOW + APART) >> 21) * 8, WINDOW_TABLE | PAGE_PRESENT,
		   8);
	poke_value(m, DATA + 0x808, FUNCTION, 8);
	poke(m, FUNCTION, function, sizeof(function));
	run_code(m, 0xff, 0x13, 0xff, 0xc9, 0x75, 0xfa, 0xf4); /* call [rbx]; dec ecx; jnz; hlt */
	assert_halted_at(m, 7);
	assert_int_equal(s->gpr[GPR_RDX], ROUNDS);
	assert_int_equal(peek(m, DATA + 0x7f8, 8), CODE + 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_faults_in_the_middle),
		T(test_two_bases_one_page),
		T(test_code_is_written),
		T(test_stack_is_elsewhere),
		T(test_stack_may_not_be_written),
		T(test_stack_becomes_code),
		T(test_call_drives_out_its_operand),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
