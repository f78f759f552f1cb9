/* System instructions and delivery in long mode, and the way there, through the interpreter. */
#include <x86intrin.h>

#include "base/host_time.h"
#include "cpu/exit.h"
#include "cpu/msr.h"
#include "machine.h"

#define BAD_ADDRESS 0x0000800000000000ull

/* ---- the way to long mode, from the first instruction in real mode ---- */

__asm__(".pushsection .rodata\n"
	".balign 16\n"
	"boot_code_start:\n"
	".code16\n"
	"	cli\n"
	"	lgdtl %cs:boot_gdtr - boot_code_start\n"
	"	mov %cr0, %eax\n"
	"	or $1, %eax\n"
	"	mov %eax, %cr0\n"
	"	ljmpl $0x08, $(boot_protected - boot_code_start + 0x10000)\n"
	".code32\n"
	"boot_protected:\n"
	"	mov $0x10, %eax\n"
	"	mov %eax, %ds\n"
	"	mov %eax, %ss\n"
	"	mov $0x40000, %esp\n"
	"	mov $0x20, %eax\n"
	"	mov %eax, %cr4\n"
	"	mov $0x8000, %eax\n"
	"	mov %eax, %cr3\n"
	"	mov $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	or $0x100, %eax\n"
	"	wrmsr\n"
	"	mov $0x80000011, %eax\n"
	"	mov %eax, %cr0\n"
	"	rdmsr\n"
	"	mov %eax, %ebx\n"
	"	ljmpl $0x40, $(boot_long - boot_code_start + 0x10000)\n"
	".code64\n"
	"boot_long:\n"
	"	movabs $0x123456789abcdef0, %rax\n"
	"	hlt\n"
	"boot_gdtr:\n"
	"	.word 0x7f\n"
	"	.long 0x1000\n"
	"boot_code_end:\n"
	".popsection\n");

extern const uint8_t boot_code_start[], boot_code_end[];

static void test_real_to_long_mode(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0); /* for the tables */
	enter_real(m);
	poke(m, CODE, boot_code_start, (size_t)(boot_code_end - boot_code_start));
	go(m);
	assert_int_equal(m->v.state.activity, ACTIVITY_HALTED);
	assert_true(m->v.state.gpr[GPR_RAX] == 0x123456789abcdef0ull);
	assert_int_equal(m->v.state.gpr[GPR_RBX], EFER_LME | EFER_LMA);
	assert_true(vcpu_is_64bit(&m->v));
	assert_int_equal(m->v.state.cpl, 0);
}

/* ---- faults of single instructions ---- */

struct fault_case {
	const char *name;
	uint8_t bytes[12];
	uint8_t length;
	uint8_t cpl;
	uint64_t rax;
	int vector;
	int64_t error; /* -1: none is pushed */
};

static void test_faults(void **state)
{
	static const struct fault_case cases[] = {
		{"leave paging in 64-bit code", {0x0f, 0x22, 0xc0}, 3, 0, 0x11, VECTOR_GP, 0},
		{"cr0 above 32 bits", {0x0f, 0x22, 0xc0}, 3, 0, 0x180000011, VECTOR_GP, 0},
		{"cr0 NW without CD", {0x0f, 0x22, 0xc0}, 3, 0, 0xa0000011, VECTOR_GP, 0},
		{"cr4 without PAE", {0x0f, 0x22, 0xe0}, 3, 0, 0, VECTOR_GP, 0},
		{"cr4 LA57 not offered", {0x0f, 0x22, 0xe0}, 3, 0, 0x1020, VECTOR_GP, 0},
		{"cr4 VMXE", {0x0f, 0x22, 0xe0}, 3, 0, 0x2020, VECTOR_GP, 0},
		{"cr3 beyond the address width",
		 {0x0f, 0x22, 0xd8},
		 3,
		 0,
		 1ull << 52,
		 VECTOR_GP,
		 0},
		{"cr3 bit 63 without PCIDE", {0x0f, 0x22, 0xd8}, 3, 0, BIT(63), VECTOR_GP, 0},
		{"cr8 too big", {0x44, 0x0f, 0x22, 0xc0}, 4, 0, 0x10, VECTOR_GP, 0},
		{"dr7 above 32 bits", {0x0f, 0x23, 0xf8}, 3, 0, BIT(32), VECTOR_GP, 0},
		{"cr1", {0x0f, 0x22, 0xc8}, 3, 0, 0, VECTOR_UD, -1},
		{"into", {0xce}, 1, 0, 0, VECTOR_UD, -1},
		{"push es", {0x06}, 1, 0, 0, VECTOR_UD, -1},
		{"wrfsbase without CR4", {0xf3, 0x48, 0x0f, 0xae, 0xd0}, 5, 3, 0, VECTOR_UD, -1},
		{"swapgs", {0x0f, 0x01, 0xf8}, 3, 3, 0, VECTOR_GP, 0},
		{"sysret", {0x48, 0x0f, 0x07}, 3, 3, 0, VECTOR_GP, 0},
		{"xsetbv without OSXSAVE", {0x0f, 0x01, 0xd1}, 3, 0, 0, VECTOR_UD, -1},
		{"int 0x81", {0xcd, 0x81}, 2, 3, 0, VECTOR_GP, 0x81 * 8 + 2},
		{"mov ss null", {0x8e, 0xd0}, 2, 3, 0, VECTOR_GP, 0},
		{"vmlaunch", {0x0f, 0x01, 0xc2}, 3, 0, 0, VECTOR_UD, -1},
		{"mwait", {0x0f, 0x01, 0xc9}, 3, 0, 0, VECTOR_UD, -1},
		{"ltr: limit of 16 bytes", {0x0f, 0x00, 0xd8}, 3, 0, 0x78, VECTOR_GP, 0x78},
	};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(cases); n++) {
		const struct fault_case *f = &cases[n];
		unsigned at = 0;
		enter_long(m, f->cpl);
		m->v.state.gpr[GPR_RAX] = f->rax;
		set_descriptor(m, 0x78, 0, 0x67, 0x89, 0);
		poke(m, CODE, f->bytes, f->length);
		go(m);
		if (ended_in(m) != f->vector)
			fail_msg("%s: ended in %d", f->name, ended_in(m));
		if (f->error >= 0 && (int64_t)slot(m, at++, 8) != f->error)
			fail_msg("%s: error %#llx", f->name, (unsigned long long)slot(m, 0, 8));
		assert_int_equal(slot(m, at, 8), CODE);
	}
}

/* ---- delivery ---- */

static void test_int_from_ring_3(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	m->v.state.rflags |= FLAG_IF;
	poke_value(m, TSS + 4, KERNEL_STACK - 3, 8); /* is aligned */
	run_code(m, 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 16 - 40);
	assert_int_equal(slot(m, 0, 8), CODE + 2);
	assert_int_equal(slot(m, 1, 8), USER_CS64);
	assert_int_equal(slot(m, 2, 8), FLAG_IF | 2);
	assert_int_equal(slot(m, 3, 8), USER_STACK);
	assert_int_equal(slot(m, 4, 8), USER_DS64);
	assert_int_equal(m->v.state.seg[SEG_SS].selector, 0);
	assert_int_equal(m->v.state.cpl, 0);
}

static void test_same_privilege_pushes_ss_too(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RSP] = KERNEL_STACK - 9;
	run_code(m, 0xcd, 0x80);
	assert_vector(m, 0x80);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 16 - 40);
	assert_int_equal(slot(m, 3, 8), KERNEL_STACK - 9);
	assert_int_equal(slot(m, 4, 8), KERNEL_DS);
	assert_int_equal(m->v.state.seg[SEG_SS].selector, KERNEL_DS);
}

static void test_interrupt_stack_table(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	set_idt64(m, VECTOR_UD, KERNEL_CS64, handler(VECTOR_UD), 0x8e, 3);
	poke_value(m, TSS + 36 + 2 * 8, DATA, 8);
	run_code(m, 0x0f, 0x0b);
	assert_vector(m, VECTOR_UD);
	assert_int_equal(m->v.state.gpr[GPR_RSP], DATA - 40);
	assert_int_equal(slot(m, 3, 8), KERNEL_STACK);
}

static void test_error_code_and_page_fault(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	m->v.state.gpr[GPR_RAX] = 0x40000000;
	run_code(m, 0x48, 0x89, 0x00); /* mov [rax], rax */
	assert_vector(m, VECTOR_PF);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 48);
	assert_int_equal(slot(m, 0, 8), PF_W | PF_U);
	assert_int_equal(slot(m, 1, 8), CODE);
	assert_int_equal(m->v.state.cr2, 0x40000000);
	assert_int_equal(ledger_total(&m->ledger, EVENT_GUEST_PAGE_FAULT), 1);
}

static void test_bad_kernel_stack_is_a_double_fault_on_ist(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	poke_value(m, TSS + 4, 0x40000000, 8);
	set_idt64(m, VECTOR_DF, KERNEL_CS64, handler(VECTOR_DF), 0x8e, 1);
	poke_value(m, TSS + 36, DATA, 8);
	m->v.state.gpr[GPR_RAX] = 0x40000000;
	run_code(m, 0x48, 0x89, 0x00);
	assert_vector(m, VECTOR_DF);
	assert_int_equal(slot(m, 0, 8), 0);
	assert_int_equal(slot(m, 1, 8), CODE);
	assert_int_equal(slot(m, 4, 8), USER_STACK);
}

static void test_triple_fault(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	poke_value(m, TSS + 4, BAD_ADDRESS, 8);
	run_code(m, 0x0f, 0x0b);
	assert_int_equal(m->exit.reason, EXIT_SHUTDOWN);
}

static void test_software_int_fault_is_the_instructions(void **state)
{
	struct machine *m = *state;

	/* A stack fault while INT 80H is delivered is no double fault. */
	enter_long(m, 3);
	poke_value(m, TSS + 4, 0x40000000, 8);
	set_idt64(m, VECTOR_PF, KERNEL_CS64, handler(VECTOR_PF), 0x8e, 1);
	poke_value(m, TSS + 36, DATA, 8);
	run_code(m, 0xcd, 0x80);
	assert_vector(m, VECTOR_PF);
	assert_int_equal(slot(m, 0, 8), PF_W);
	assert_int_equal(slot(m, 1, 8), CODE);
}

/* ---- IRETQ ---- */

static void push_frame(struct machine *m, uint64_t rip, uint64_t cs, uint64_t flags, uint64_t rsp,
		       uint64_t ss)
{
	const uint64_t frame[] = {rip, cs, flags, rsp, ss};

	m->v.state.gpr[GPR_RSP] = KERNEL_STACK - sizeof(frame);
	poke(m, KERNEL_STACK - sizeof(frame), frame, sizeof(frame));
}

static void test_iretq_to_ring_3(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	poke_value(m, CODE + 0x100, 0x80cd, 2);
	push_frame(m, CODE + 0x100, USER_CS64, 0x202, USER_STACK, USER_DS64);
	run_code(m, 0x48, 0xcf);
	assert_vector(m, 0x80);
	assert_int_equal(slot(m, 0, 8), CODE + 0x102);
	assert_int_equal(slot(m, 3, 8), USER_STACK);
}

static void test_iretq_to_the_kernel_with_null_ss(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	push_frame(m, handler(0xf0), KERNEL_CS64, 2, KERNEL_STACK - 0x100, 0);
	run_code(m, 0x48, 0xcf);
	assert_vector(m, 0xf0);
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK - 0x100);
	assert_int_equal(m->v.state.seg[SEG_SS].selector, 0);
}

static void test_iretq_refusals(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	push_frame(m, CODE, USER_CS64, 2, USER_STACK, 3); /* null SS to ring 3 */
	run_code(m, 0x48, 0xcf);
	assert_vector(m, VECTOR_GP);
	enter_long(m, 0);
	push_frame(m, BAD_ADDRESS, KERNEL_CS64, 2, KERNEL_STACK, KERNEL_DS);
	run_code(m, 0x48, 0xcf);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 1, 8), CODE);
	enter_long(m, 0);
	m->v.state.rflags |= FLAG_NT;
	push_frame(m, CODE, KERNEL_CS64, 2, KERNEL_STACK, KERNEL_DS);
	run_code(m, 0x48, 0xcf);
	assert_vector(m, VECTOR_GP);
}

/* ---- compatibility mode ---- */

static void test_compatibility_mode(void **state)
{
	struct machine *m = *state;

	/* IRETQ to 32-bit user code; its INT comes to the 64-bit handler. */
	enter_long(m, 0);
	poke(m, CODE + 0x100, (const uint8_t[]){0x48, 0xcd, 0x80}, 3); /* dec eax; int 0x80 */
	push_frame(m, CODE + 0x100, USER_CS, 0x202, USER_STACK, USER_DS);
	m->v.state.gpr[GPR_RAX] = 0x100000000ull;
	run_code(m, 0x48, 0xcf);
	assert_vector(m, 0x80);
	assert_true(m->v.state.gpr[GPR_RAX] == 0xffffffff);
	assert_int_equal(slot(m, 1, 8), USER_CS);
	assert_true(vcpu_is_64bit(&m->v));
}

static void test_far_return_between_modes(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RSP] = KERNEL_STACK - 16;
	poke_value(m, KERNEL_STACK - 16, handler(0xf0), 8);
	poke_value(m, KERNEL_STACK - 8, KERNEL_CS, 8);
	run_code(m, 0x48, 0xcb); /* retfq to 32-bit code */
	assert_vector(m, 0xf0);
	assert_false(vcpu_is_64bit(&m->v));
	assert_int_equal(m->v.state.gpr[GPR_RSP], KERNEL_STACK);
}

static void test_call_gate_from_compatibility_mode(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	m->v.state.seg[SEG_CS] = flat(USER_CS, 0xc0fb);
	set_gate(m, GDT + SPARE64, KERNEL_CS64, handler(0xf3), 0xec, 0);
	poke_value(m, GDT + SPARE64 + 8, 0, 8);
	run_code(m, 0x9a, 0, 0, 0, 0, SPARE64 | 3, 0);
	assert_vector(m, 0xf3);
	assert_int_equal(slot(m, 0, 8), CODE + 7);
	assert_int_equal(slot(m, 1, 8), USER_CS);
	assert_int_equal(slot(m, 2, 8), USER_STACK);
	assert_int_equal(slot(m, 3, 8), USER_DS64);
	assert_int_equal(m->v.state.seg[SEG_SS].selector, 0);
}

/* ---- SYSCALL ---- */

static void set_syscall(struct machine *m)
{
	struct vcpu_state *s = &m->v.state;

	s->star = (uint64_t)KERNEL_CS64 << 32 | (uint64_t)(USER_DS64 - 8) << 48;
	s->lstar = CODE + 0x400;
	s->fmask = FLAG_IF | FLAG_DF;
}

static void test_syscall_and_sysret(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	set_syscall(m);
	m->v.state.rflags |= FLAG_IF | FLAG_DF;
	m->v.state.gpr[GPR_RBX] = 0;
	poke(m, CODE + 0x400, (const uint8_t[]){0x9c, 0x5b, 0x48, 0x0f, 0x07}, 5);
	m->v.state.gpr[GPR_RSP] = USER_STACK;
	run_code(m, 0x0f, 0x05, 0xcd, 0x80); /* pushfq; pop rbx; sysretq */
	assert_vector(m, 0x80);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 2);
	assert_int_equal(m->v.state.gpr[GPR_RCX], CODE + 2);
	assert_int_equal(m->v.state.gpr[GPR_R11], FLAG_IF | FLAG_DF | 2);
	assert_int_equal(slot(m, 0, 8), CODE + 4);
	assert_int_equal(slot(m, 1, 8), USER_CS64);
	assert_int_equal(slot(m, 2, 8), FLAG_IF | FLAG_DF | 2);
	assert_int_equal(slot(m, 4, 8), USER_DS64);
	assert_int_equal(ledger_total(&m->ledger, EVENT_GUEST_SYSCALL), 1);
}

#define CALLS 20
#define SYSCALL_CLEARS                                                                             \
	(FLAG_IF | FLAG_DF | FLAG_TF | FLAG_RF | FLAG_AC | FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | \
	 FLAG_SF | FLAG_OF)

/* As often as a translator needs for its shortest ways; the kernel's `tail` ends with SYSRET. */
static void run_calls(struct machine *m, const uint8_t *tail, size_t tail_bytes)
{
	static const uint8_t kernel[] = {0x9c, 0x41, 0x59,	 /* pushfq; pop r9 */
					 0x48, 0x83, 0xf8, 0xff, /* cmp rax, -1 */
					 0x8c, 0xd7,		 /* mov edi, ss */
					 0x49, 0x01, 0xf8};	 /* add r8, rdi */
	struct vcpu_state *s = &m->v.state;

	s->fmask = SYSCALL_CLEARS;
	s->rflags |= FLAG_IF | FLAG_DF;
	s->gpr[GPR_RBP] = CALLS;
	s->gpr[GPR_RSI] = s->gpr[GPR_R8] = 0;
	s->gpr[GPR_RSP] = USER_STACK;
	poke(m, CODE + 0x400, kernel, sizeof(kernel));
	poke(m, CODE + 0x400 + sizeof(kernel), tail, tail_bytes);
	run_code(m, 0xf9, 0x0f, 0x05,	 /* stc; syscall */
		 0x48, 0x83, 0xd6, 0x00, /* adc rsi, 0 */
		 0xff, 0xcd, 0x75, 0xf5, /* dec ebp; jnz */
		 0xcd, 0x80);
	assert_int_equal(s->gpr[GPR_R9], 2);
	assert_int_equal(s->gpr[GPR_R8], CALLS * (KERNEL_CS64 + 8));
	assert_int_equal(m->ledger.count[EVENT_GUEST_SYSCALL][RING_USER], CALLS);
}

static void test_many_syscalls(void **state)
{
	static const uint8_t sysret[] = {0x48, 0x0f, 0x07};
	struct machine *m = *state;

	for (unsigned n = 0; n < 2; n++) { /* with selectors of STAR's, then with others */
		uint64_t cs = USER_CS64 + 0x100 * n;
		m->ledger = (struct ledger){0};
		enter_long(m, 3);
		set_syscall(m);
		m->v.state.star += 0x100ull * n << 48;
		run_calls(m, sysret, sizeof(sysret));
		assert_vector(m, 0x80);
		assert_int_equal(m->v.state.gpr[GPR_RSI], CALLS);
		assert_int_equal(m->v.state.gpr[GPR_R11], FLAG_IF | FLAG_DF | FLAG_CF | 2);
		assert_int_equal(slot(m, 1, 8), cs);
		assert_int_equal(m->ledger.count[EVENT_INSTRUCTION][RING_USER], 5 * CALLS + 1);
		assert_int_equal(m->ledger.count[EVENT_INSTRUCTION][RING_KERNEL], 6 * CALLS + 1);
	}
}

static void test_the_last_of_many_sysrets_is_bad(void **state)
{
	static const uint8_t sysret[] = {0xff, 0xcd, 0x75, 0x04,	/* dec ebp; jnz */
					 0x48, 0xc1, 0xe1, 0x30,	/* shl rcx, 48 */
					 0xff, 0xc5, 0x48, 0x0f, 0x07}; /* inc ebp; sysretq */
	struct machine *m = *state;

	enter_long(m, 3);
	set_syscall(m);
	run_calls(m, sysret, sizeof(sysret));
	assert_vector(m, VECTOR_GP);
	assert_int_equal(m->v.state.gpr[GPR_RSI], CALLS - 1);
	assert_int_equal(slot(m, 2, 8), KERNEL_CS64);
}

static void test_sysret_to_a_bad_address(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	set_syscall(m);
	m->v.state.gpr[GPR_RCX] = BAD_ADDRESS;
	run_code(m, 0x48, 0x0f, 0x07);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(slot(m, 1, 8), CODE); /* still the kernel's */
	assert_int_equal(slot(m, 2, 8), KERNEL_CS64);
}

static void test_syscall_needs_sce_and_64_bit_code(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	set_syscall(m);
	m->v.state.efer &= ~EFER_SCE;
	run_code(m, 0x0f, 0x05);
	assert_vector(m, VECTOR_UD);
	enter_long(m, 3);
	set_syscall(m);
	m->v.state.seg[SEG_CS] = flat(USER_CS, 0xc0fb);
	run_code(m, 0x0f, 0x05);
	assert_vector(m, VECTOR_UD);
}

/* ---- registers of 64-bit mode ---- */

static void test_bases(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.cr4 |= CR4_FSGSBASE;
	m->v.state.kernel_gs_base = 0x1111;
	m->v.state.gpr[GPR_RAX] = 0xffff888000001000ull;
	run_code(m, 0xf3, 0x48, 0x0f, 0xae, 0xd8, /* wrgsbase rax */
		 0x0f, 0x01, 0xf8,		  /* swapgs */
		 0xf3, 0x48, 0x0f, 0xae, 0xcb,	  /* rdgsbase rbx */
		 0xf3, 0x0f, 0xae, 0xd0,	  /* wrfsbase eax */
		 0xf3, 0x48, 0x0f, 0xae, 0xc1,	  /* rdfsbase rcx */
		 0xf4);
	assert_halted_at(m, 23);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 0x1111);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 0x1000);
	assert_true(m->v.state.kernel_gs_base == 0xffff888000001000ull);
}

static void test_cr8_is_the_apics(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RAX] = 9;
	run_code(m, 0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3, 0xf4);
	assert_halted_at(m, 9);
	assert_int_equal(m->tpr, 0x90);
	assert_int_equal(m->v.state.gpr[GPR_RBX], 9);
}

static void test_pcid_rules(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.cr3 |= 5; /* a PCID's bits: PCIDE cannot be set */
	m->v.state.gpr[GPR_RAX] = CR4_PAE | CR4_PCIDE;
	run_code(m, 0x0f, 0x22, 0xe0);
	assert_vector(m, VECTOR_GP);
	enter_long(m, 0);
	m->v.state.gpr[GPR_RAX] = CR4_PAE | CR4_PCIDE;
	m->v.state.gpr[GPR_RBX] = TABLES | 5 | CR3_NO_FLUSH;
	run_code(m, 0x0f, 0x22, 0xe0, 0x0f, 0x22, 0xdb, 0x0f, 0x20, 0xd9, 0xf4);
	assert_halted_at(m, 10);
	assert_int_equal(m->v.state.gpr[GPR_RCX], TABLES | 5); /* bit 63 is not kept */
}

static void test_invpcid(void **state)
{
	static const struct {
		uint64_t type, pcid, address;
		bool ok;
	} cases[] = {{0, 0, 0x1000, true},
		     {1, 0, 0, true},
		     {2, 0, 0, true},
		     {3, 0, 0, true},
		     {4, 0, 0, false},
		     {0, 0x1000, 0, false},
		     {0, 0, BAD_ADDRESS, false},
		     {1, 7, 0, false},
		     {2, 7, 0, true}};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(cases); n++) {
		enter_long(m, 0);
		m->v.state.gpr[GPR_RAX] = cases[n].type;
		m->v.state.gpr[GPR_RBX] = DATA;
		poke_value(m, DATA, cases[n].pcid, 8);
		poke_value(m, DATA + 8, cases[n].address, 8);
		run_code(m, 0x66, 0x0f, 0x38, 0x82, 0x03, 0xf4);
		assert_int_equal(ended_in(m), cases[n].ok ? -1 : VECTOR_GP);
	}
}

static void test_xsetbv(void **state)
{
	static const struct {
		uint32_t value, index;
		bool ok;
	} cases[] = {{1, 0, true},  {3, 0, true},     {2, 0, false},
		     {5, 0, false}, {0x11, 0, false}, {3, 1, false}};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(cases); n++) {
		enter_long(m, 0);
		m->v.state.cr4 |= CR4_OSXSAVE;
		m->v.state.gpr[GPR_RAX] = cases[n].value;
		m->v.state.gpr[GPR_RCX] = cases[n].index;
		m->v.state.gpr[GPR_RDX] = 0;
		run_code(m, 0x0f, 0x01, 0xd1, 0x31, 0xc9, 0x0f, 0x01, 0xd0, 0xf4);
		assert_int_equal(ended_in(m), cases[n].ok ? -1 : VECTOR_GP);
		if (cases[n].ok)
			assert_int_equal(m->v.state.gpr[GPR_RAX], cases[n].value);
	}
}

static void test_msrs(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	m->v.state.gpr[GPR_RCX] = MSR_LSTAR;
	m->v.state.gpr[GPR_RAX] = 0xffffffff81000000ull;
	m->v.state.gpr[GPR_RDX] = 0xffffffff;
	run_code(m, 0x0f, 0x30, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x32, 0xf4);
	assert_halted_at(m, 9);
	assert_true(m->v.state.lstar == 0xffffffff81000000ull);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x81000000);
	assert_int_equal(m->v.state.gpr[GPR_RDX], 0xffffffff);
}

static void test_time_and_random(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	clock_set(&m->clock, 1000);
	m->v.state.tsc_offset = 0x100000000ull;
	m->v.state.tsc_aux = 0x77;
	m->v.state.random_state = 1;
	run_code(m, 0x90, 0x0f, 0x31,	 /* nop; rdtsc */
		 0x48, 0x89, 0xc6,	 /* mov rsi, rax */
		 0x0f, 0x01, 0xf9,	 /* rdtscp */
		 0x48, 0x0f, 0xc7, 0xf3, /* rdrand rbx */
		 0x48, 0x0f, 0xc7, 0xfd, /* rdseed rbp */
		 0xf4);
	assert_halted_at(m, 18);
	assert_int_equal(m->v.state.gpr[GPR_RSI], 1001);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 1003);
	assert_int_equal(m->v.state.gpr[GPR_RDX], 1);
	assert_int_equal(m->v.state.gpr[GPR_RCX], 0x77);
	assert_true(m->v.state.gpr[GPR_RBX] != m->v.state.gpr[GPR_RBP]);
	assert_int_equal(m->v.state.flags_low & 0xd5, FLAG_CF);
	enter_long(m, 3);
	m->v.state.cr4 |= CR4_TSD;
	run_code(m, 0x0f, 0x31);
	assert_vector(m, VECTOR_GP);
}

/* The clock's last answer was 5000 and counts for so many ticks of the host's. */
static void read_real_time(struct machine *m, uint64_t ticks)
{
	enter_long(m, 3);
	m->v.state.tsc_offset = 0x100000000ull;
	m->clock.kind = CLOCK_REAL;
	m->clock.between = (struct interpolation){.tsc = __rdtsc(), .cycles = 5000, .ticks = ticks};
	run_code(m, 0x0f, 0x31, 0x96, 0x0f, 0x01, 0xf9, 0xcd, 0x80); /* rdtsc; xchg; rdtscp */
	assert_vector(m, 0x80);
}

static void test_real_time_never_goes_back(void **state)
{
	struct machine *m = *state;
	const uint64_t *gpr = m->v.state.gpr;

	read_real_time(m, 1ull << 62);
	assert_true(gpr[GPR_RSI] == 5000 && gpr[GPR_RDX] == 1);
	m->clock.now_cycles = 9000;
	read_real_time(m, 1ull << 62);
	assert_int_equal(gpr[GPR_RSI], 9000);
	m->clock.real_start_ns = host_time_ns();
	read_real_time(m, 0); /* no answer that counts */
	assert_true(gpr[GPR_RSI] >= 9000 && gpr[GPR_RAX] >= gpr[GPR_RSI]);
}

static void test_mark_from_ring_3(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	m->v.state.gpr[GPR_RAX] = MARK_LEAF;
	m->v.state.gpr[GPR_RCX] = 2;
	run_code(m, 0x0f, 0xa2, 0xcd, 0x80);
	assert_int_equal(m->exit.reason, EXIT_MARK);
	assert_int_equal(m->exit.mark, 2);
	assert_int_equal(m->v.state.rip, CODE + 2);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 1);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 1000, &m->exit);
	assert_vector(m, 0x80);
}

static void test_smap_and_stac(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	/* All pages are the user's: fetches are fine without SMEP, data is not. */
	m->v.state.cr4 |= CR4_SMAP;
	m->v.state.gpr[GPR_RBX] = DATA;
	poke_value(m, DATA, 0x42, 1);
	run_code(m, 0x0f, 0x01, 0xcb,	  /* stac */
		 0x8a, 0x03,		  /* mov al, [rbx] */
		 0x0f, 0x01, 0xca, 0xf4); /* clac; hlt */
	assert_halted_at(m, 9);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 0x42);
}

static void test_lgdt_and_sgdt(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	poke_value(m, DATA, 0x1234, 2);
	poke_value(m, DATA + 2, 0xffff800000001000ull, 8);
	m->v.state.gpr[GPR_RAX] = DATA;
	m->v.state.gpr[GPR_RBX] = DATA + 0x100;
	run_code(m, 0x0f, 0x01, 0x10, 0x0f, 0x01, 0x03, 0xf4);
	assert_halted_at(m, 7);
	assert_int_equal(peek(m, DATA + 0x100, 2), 0x1234);
	assert_true(peek(m, DATA + 0x102, 8) == 0xffff800000001000ull);
	enter_long(m, 0);
	poke_value(m, DATA + 2, BAD_ADDRESS, 8);
	m->v.state.gpr[GPR_RAX] = DATA;
	run_code(m, 0x0f, 0x01, 0x10);
	assert_vector(m, VECTOR_GP);
}

static void test_ltr_reads_16_bytes(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	set_descriptor(m, SPARE64, 0x5000, 0x67, 0x89, 0);
	poke_value(m, GDT + SPARE64 + 8, 0xffff8000, 8);
	m->v.state.gpr[GPR_RAX] = SPARE64;
	run_code(m, 0x0f, 0x00, 0xd8, 0xf4);
	assert_halted_at(m, 4);
	assert_true(m->v.state.tr.base == 0xffff800000005000ull);
	assert_int_equal(peek(m, GDT + SPARE64 + 5, 1), 0x8b);
}

static void test_exits_are_charged_only_when_virtualized(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	run_code(m, 0x0f, 0xa2, 0xf4); /* cpuid; hlt */
	assert_halted_at(m, 3);
	assert_int_equal(ledger_group_total(&m->ledger, GROUP_EXIT), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create, machine_destroy)

static void test_stack_fault_of_memory_operands(void **state)
{
	struct machine *m = *state;

	enter_long(m, 3);
	m->v.state.gpr[GPR_RSP] = 0x8000000000000004;
	run_code(m, 0xff, 0x34, 0x25, DATA & 0xff, DATA >> 8 & 0xff, DATA >> 16 & 0xff,
		 DATA >> 24 & 0xff); /* push qword [DATA] */
	assert_vector(m, VECTOR_SS);
	enter_long(m, 3);
	m->v.state.gpr[GPR_RSP] = 0x8000000000000004;
	poke_value(m, DATA, CODE, 8);
	run_code(m, 0xff, 0x14, 0x25, DATA & 0xff, DATA >> 8 & 0xff, DATA >> 16 & 0xff,
		 DATA >> 24 & 0xff); /* call [DATA] */
	assert_vector(m, VECTOR_SS);
}

/* 48 ff c0 is INC RAX, or DEC EAX and INC EAX: each mode's branches lead to its own. */
static void test_one_address_in_two_modes(void **state)
{
	static const uint8_t bytes[] = {0x48, 0xff, 0xc0, 0xff, 0xe6}; /* ... jmp rsi */
	struct machine *m = *state;
	for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
		enter_long(m, cpl);
		poke(m, CODE + 0x100, bytes, sizeof(bytes));
		m->v.state.gpr[GPR_RAX] = 0;
		m->v.state.gpr[GPR_RBX] = CODE + 0x100;
		m->v.state.gpr[GPR_RDI] = 40;
		poke_value(m, CODE + 0x200, CODE + 17, 4); /* where the 32-bit part begins */
		poke_value(m, CODE + 0x204, cpl ? USER_CS : KERNEL_CS, 2);
		poke_value(m, CODE + 0x208, CODE, 4);
		poke_value(m, CODE + 0x20c, cpl ? USER_CS64 : KERNEL_CS64, 2);
		run_code(m, 0xbe, 7, 0, 1, 0, 0xff, 0xe3, /* mov esi, +7; jmp rbx */
			 0xff, 0x2c, 0x25, 0, 2, 1, 0,	  /* jmp far [CODE + 0x200] */
			 0xcc, 0xcc, 0xcc,		  /* in 32-bit code: */
			 0xbe, 24, 0, 1, 0, 0xff, 0xe3,	  /* mov esi, +24; jmp ebx */
			 0x4f, 0x74, 6,			  /* dec edi; jz +33 */
			 0xff, 0x2d, 8, 2, 1, 0,	  /* jmp far [CODE + 0x208] */
			 0xcc);
		assert_vector(m, VECTOR_BP);
		assert_int_equal(m->v.state.gpr[GPR_RAX], 40);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_real_to_long_mode),
		T(test_faults),
		T(test_int_from_ring_3),
		T(test_same_privilege_pushes_ss_too),
		T(test_interrupt_stack_table),
		T(test_error_code_and_page_fault),
		T(test_bad_kernel_stack_is_a_double_fault_on_ist),
		T(test_triple_fault),
		T(test_stack_fault_of_memory_operands),
		T(test_software_int_fault_is_the_instructions),
		T(test_iretq_to_ring_3),
		T(test_iretq_to_the_kernel_with_null_ss),
		T(test_iretq_refusals),
		T(test_compatibility_mode),
		T(test_far_return_between_modes),
		T(test_one_address_in_two_modes),
		T(test_call_gate_from_compatibility_mode),
		T(test_syscall_and_sysret),
		T(test_many_syscalls),
		T(test_the_last_of_many_sysrets_is_bad),
		T(test_sysret_to_a_bad_address),
		T(test_syscall_needs_sce_and_64_bit_code),
		T(test_bases),
		T(test_cr8_is_the_apics),
		T(test_pcid_rules),
		T(test_invpcid),
		T(test_xsetbv),
		T(test_msrs),
		T(test_time_and_random),
		T(test_real_time_never_goes_back),
		T(test_mark_from_ring_3),
		T(test_smap_and_stac),
		T(test_lgdt_and_sgdt),
		T(test_ltr_reads_16_bytes),
		T(test_exits_are_charged_only_when_virtualized),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
