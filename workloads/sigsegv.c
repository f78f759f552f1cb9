/* A write to a read-only page, delivered as a signal whose handler lifts the protection. */
#include "suite.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

static unsigned char *guarded;
static volatile sig_atomic_t fault_count;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	if (info->si_addr != guarded)
		give_up("a fault at another address");
	fault_count++;
	mprotect(guarded, 4096, PROT_READ | PROT_WRITE);
}

uint64_t sigsegv(unsigned scale)
{
	struct sigaction action, before;
	uint64_t sum = 0;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_fault;
	action.sa_flags = SA_SIGINFO;
	guarded = fresh_pages(4096);
	fault_count = 0;
	sigaction(SIGSEGV, &action, &before);
	measure_begin();
	for (size_t round = 0; round < 500ul * scale; round++) {
		mprotect(guarded, 4096, PROT_READ);
		*(volatile unsigned char *)guarded = (unsigned char)(round * 3);
		sum = fold(sum, *(volatile unsigned char *)guarded);
	}
	measure_end();
	sigaction(SIGSEGV, &before, NULL);
	munmap(guarded, 4096);
	return fold(sum, (uint64_t)fault_count);
}
