/*
 * One static binary that holds every workload, for guests and for the host. `suite NAME [SCALE]`
 * prints "NAME checksum=XXXXXXXXXXXXXXXX"; the same line must come out natively and in a guest
 * under every engine and strategy.
 */
#include "suite.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct workload {
	const char *name;
	const char *what;
	uint64_t (*run)(unsigned scale);
	bool is_big; /* needs 64 MB or more: run by name or by `big`, not by `all` */
};

static const struct workload workloads[] = {
	{"chase64_16K", "pointer chase, a node per line, 16 KiB", chase64_16k, false},
	{"chase64_2M", "the same, 2 MiB", chase64_2m, false},
	{"chase64_64M", "the same, 64 MiB", chase64_64m, true},
	{"chase4K_1M", "pointer chase, a node per 4K page, 1 MiB", chase4k_1m, false},
	{"chase4K_16M", "the same, 16 MiB", chase4k_16m, false},
	{"chase4K_256M", "the same, 256 MiB", chase4k_256m, true},
	{"chaseTHP_64M", "64 MiB, a node per line, on huge pages if there are any", chase_huge_64m,
	 true},
	{"gups", "random updates of a table", gups, false},
	{"triad", "STREAM triad, doubles", triad, false},
	{"strops", "memcpy, memset, strlen, memchr", strops, false},
	{"intloop", "sieve, hash table, table CRC", intloop, false},
	{"sha256", "SHA-256 in plain C", sha256, false},
	{"interp", "a bytecode interpreter", interp, false},
	{"fib", "recursive calls", fib, false},
	{"icall", "indirect calls", icall, false},
	{"qsort", "libc's qsort with a callback", quicksort, false},
	{"fploop", "matrix product, doubles", fploop, false},
	{"nbody", "n-body simulation, doubles", nbody, false},
	{"x87", "long double arithmetic", x87, false},
	{"syscall", "the cheapest system call", syscalls, false},
	{"ctxsw", "pipe ping-pong of two processes", ctxsw, false},
	{"forkexec", "fork, exec, wait", forkexec, false},
	{"fork", "fork, wait", forkwait, false},
	{"pgfault", "map, touch, unmap", pgfault, false},
	{"mprotect", "protect and touch", mprotects, false},
	{"sigsegv", "delivery of a fault as a signal", sigsegv, false},
	{"devzero", "read /dev/zero", devzero, false},
	{"tmpfile", "write and read a temporary file", tmpfiles, false},
	{"stat", "stat system calls", stats, false},
	{"smc", "self-modifying code", smc, false},
	{"jit", "generate and call functions", jit, false},
	{"atomic", "locked operations", atomics, false},
};

#define WORKLOAD_COUNT (sizeof(workloads) / sizeof(workloads[0]))

_Noreturn void give_up(const char *what)
{
	fprintf(stderr, "suite: %s: %s\n", what, strerror(errno));
	exit(1);
}

void *fresh_pages(size_t size_bytes)
{
	void *p =
		mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		give_up("mmap");
	return p;
}

static void run(const struct workload *w, unsigned scale)
{
	uint64_t sum = w->run(scale);

	printf("%s checksum=%016llx\n", w->name, (unsigned long long)sum);
	fflush(stdout);
}

static int usage(void)
{
	fprintf(stderr, "usage: suite NAME [SCALE]   one workload; prints its checksum\n"
			"       suite all [SCALE]    every workload but the big ones\n"
			"       suite big [SCALE]    the ones that need 64 MB or more\n"
			"       suite list           names and what each does\n");
	return 2;
}

static int run_group(bool big, unsigned scale)
{
	for (size_t i = 0; i < WORKLOAD_COUNT; i++)
		if (workloads[i].is_big == big)
			run(&workloads[i], scale);
	return 0;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	unsigned scale = 1;
	char *end = NULL;

	if (argc == 3)
		scale = (unsigned)strtoul(argv[2], &end, 10);
	if (argc < 2 || argc > 3 || !scale || (end && *end))
		return usage();
	if (!strcmp(name, "exit")) /* what forkexec executes: scale is the status */
		_exit((int)(scale & 0x7f));
	if (!strcmp(name, "all"))
		return run_group(false, scale);
	if (!strcmp(name, "big"))
		return run_group(true, scale);
	for (size_t i = 0; i < WORKLOAD_COUNT; i++) {
		if (!strcmp(name, "list"))
			printf("%-14s %s%s\n", workloads[i].name, workloads[i].what,
			       workloads[i].is_big ? " (big)" : "");
		else if (!strcmp(name, workloads[i].name))
			return run(&workloads[i], scale), 0;
	}
	return strcmp(name, "list") ? usage() : 0;
}
