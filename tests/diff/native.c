/*
 * One instruction on the host's processor.
 *
 * Entering and leaving is the kernel's work: a handler of SIGUSR1 keeps the frame it was called
 * with and puts the test's registers in its place; returning from it starts the test. The trap or
 * fault that ends the test brings a frame with everything the processor had, which is taken down
 * and replaced by the frame that was kept. Handlers run on their own stack, for the test's RSP is
 * anything.
 */
#include "diff.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define XSTATE_BV_OFFSET 512
#define AVX_OFFSET 576
#define USER_CS32 0x23 /* Linux's selectors */
#define USER_DS 0x2b

static struct native {
	const struct test_state *start;
	struct test_state *out;
	unsigned mode;
	gregset_t kept_registers;
	uint8_t kept_vectors[AVX_OFFSET + 256];
	bool has_avx;
	_Alignas(64) uint8_t stack[256 << 10]; /* of the handlers */
} native;				       /* signal handlers have no argument of ours */

/* In the order of the instruction encoding. */
static const int greg[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
			     REG_RSI, REG_RDI, REG_R8,	REG_R9,	 REG_R10, REG_R11,
			     REG_R12, REG_R13, REG_R14, REG_R15};

static size_t area_bytes(void)
{
	return native.has_avx ? AVX_OFFSET + 256 : 512;
}

static void put_vectors(uint8_t *area, const struct test_state *t)
{
	uint64_t components;
	memcpy(area, &t->x87, 24);
	memcpy(area + 24, &t->mxcsr, 4);
	memcpy(area + 32, t->x87.st, sizeof(t->x87.st));
	for (unsigned r = 0; r < 16; r++)
		memcpy(area + 160 + 16 * r, t->ymm[r], 16);
	if (!native.has_avx)
		return;
	memcpy(&components, area + XSTATE_BV_OFFSET, 8);
	components |= 7;
	memcpy(area + XSTATE_BV_OFFSET, &components, 8);
	for (unsigned r = 0; r < 16; r++)
		memcpy(area + AVX_OFFSET + 16 * r, t->ymm[r] + 16, 16);
}

/* A component that the frame does not have is in its initial state. */
static void take_vectors(const uint8_t *area, struct test_state *t)
{
	uint64_t components = 3;
	if (native.has_avx)
		memcpy(&components, area + XSTATE_BV_OFFSET, 8);
	memset(&t->x87, 0, sizeof(t->x87));
	memset(t->ymm, 0, sizeof(t->ymm));
	t->x87.fcw = 0x37f;
	if (components & 1) {
		memcpy(&t->x87, area, 24);
		memcpy(t->x87.st, area + 32, sizeof(t->x87.st));
	}
	memcpy(&t->mxcsr, area + 24, 4);
	for (unsigned r = 0; r < 16; r++) {
		if (components & 2)
			memcpy(t->ymm[r], area + 160 + 16 * r, 16);
		if (components & 4)
			memcpy(t->ymm[r] + 16, area + AVX_OFFSET + 16 * r, 16);
	}
}

static void enter(int number, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	const struct test_state *t = native.start;
	uint8_t *area = (uint8_t *)u->uc_mcontext.fpregs;
	(void)number;
	(void)info;
	memcpy(native.kept_registers, u->uc_mcontext.gregs, sizeof(gregset_t));
	memcpy(native.kept_vectors, area, area_bytes());
	for (unsigned r = 0; r < 16; r++)
		u->uc_mcontext.gregs[greg[r]] = (long long)t->gpr[r];
	u->uc_mcontext.gregs[REG_RIP] = (long long)t->rip;
	u->uc_mcontext.gregs[REG_EFL] = (long long)t->rflags;
	if (native.mode == 32)
		u->uc_mcontext.gregs[REG_CSGSFS] = (u->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) |
						   USER_CS32;
	put_vectors(area, t);
}

static void leave(int number, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	struct test_state *t = native.out;
	uint8_t *area = (uint8_t *)u->uc_mcontext.fpregs;
	(void)info;
	if (!t) {
		signal(number, SIG_DFL); /* a fault of our own */
		return;
	}
	for (unsigned r = 0; r < 16; r++)
		t->gpr[r] = (uint64_t)u->uc_mcontext.gregs[greg[r]];
	t->rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];
	t->rflags = (uint64_t)u->uc_mcontext.gregs[REG_EFL];
	t->vector = (unsigned)u->uc_mcontext.gregs[REG_TRAPNO];
	t->error = (uint32_t)u->uc_mcontext.gregs[REG_ERR];
	t->address = (uint64_t)u->uc_mcontext.gregs[REG_CR2];
	take_vectors(area, t);
	native.out = NULL;
	memcpy(u->uc_mcontext.gregs, native.kept_registers, sizeof(gregset_t));
	memcpy(area, native.kept_vectors, area_bytes());
}

void native_run(const struct test_state *start, unsigned mode, struct test_state *out)
{
	native.mode = mode;
	native.start = start;
	native.out = out;
	syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1);
}

static int catch_signal(int number, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = {.sa_sigaction = handler,
				   .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	return sigaction(number, &action, NULL);
}

static uint8_t *map_at(uint64_t address, size_t size_bytes, int protection)
{
	void *p = mmap((void *)(uintptr_t)address, size_bytes, protection,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

int native_open(uint8_t **code, uint8_t **data)
{
	static const int ends[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	stack_t stack = {.ss_sp = native.stack, .ss_size = sizeof(native.stack)};
	native.has_avx = __builtin_cpu_supports("avx");
	/* 64-bit programs run with null selectors, which 32-bit code cannot use. */
	__asm__ volatile("movl %0, %%ds; movl %0, %%es" ::"r"(USER_DS));
	*code = map_at(CODE, CODE_PAGES * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
	*data = map_at(DATA, DATA_BYTES, PROT_READ | PROT_WRITE);
	uint8_t *scratch = map_at(SCRATCH, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE);
	if (!*code || !*data || !scratch || sigaltstack(&stack, NULL))
		return -errno;
	for (unsigned k = 0; k < ARRAY_COUNT(ends); k++)
		if (catch_signal(ends[k], leave))
			return -errno;
	return catch_signal(SIGUSR1, enter) ? -errno : 0;
}

int native_seal(void)
{
	void *page = (void *)(uintptr_t)DATA_READONLY;
	return mprotect(page, PAGE_SIZE_BYTES, PROT_READ) ? -errno : 0;
}

bool native_is_amd(void)
{
	return __builtin_cpu_is("amd");
}
