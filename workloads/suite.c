/*
 * One static binary that holds every workload, for guests and for the host. `suite NAME` prints
 * "NAME checksum=XXXXXXXXXXXXXXXX"; the same line must come out natively and in a guest under every
 * engine and strategy. README.md here says what each workload stands for.
 */
#include "suite.h"

#include <errno.h>
#include <fcntl.h>
#include <gnomon/mark.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

static const struct study *const studies[] = {
	&worstcase_study, &chase_study,	     &gups_study,      &vpr_study,  &tpch_study,
	&kbuild_study,	  &forkserver_study, &mmapstorm_study, &dial_study, &phases_study,
};

#define STUDY_COUNT (sizeof(studies) / sizeof(studies[0]))

_Noreturn void give_up(const char *what)
{
	fprintf(stderr, errno ? "suite: %s: %s\n" : "suite: %s\n", what, strerror(errno));
	exit(1);
}

_Noreturn void refuse(const char *workload, const char *why)
{
	fprintf(stderr, "suite %s: %s\n", workload, why);
	exit(2);
}

static void *map_pages(size_t size_bytes, int sharing)
{
	void *p = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		give_up("mmap");
	return p;
}

void *fresh_pages(size_t size_bytes)
{
	return map_pages(size_bytes, MAP_PRIVATE);
}

void *shared_pages(size_t size_bytes)
{
	return map_pages(size_bytes, MAP_SHARED);
}

int open_unnamed_file(void)
{
	const char *folders[] = {getenv("TMPDIR"), "/tmp", "/dev/shm"};
	char path[4096];

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		if (!folders[i] || snprintf(path, sizeof(path), "%s/suite-XXXXXX", folders[i]) >=
					   (int)sizeof(path))
			continue;
		int fd = mkstemp(path);
		if (fd < 0)
			continue;
		unlink(path);
		return fd;
	}
	give_up("a temporary file");
}

static unsigned measure_depth;

void measure_begin(void)
{
	if (!measure_depth++)
		gnomon_region_begin();
}

void measure_end(void)
{
	if (!--measure_depth)
		gnomon_region_end();
}

static void print_checksum(const char *name, uint64_t sum)
{
	printf("%s checksum=%016llx\n", name, (unsigned long long)sum);
	fflush(stdout);
}

static int usage(void)
{
	fprintf(stderr, "usage: suite NAME [SCALE]         one workload; prints its checksum\n"
			"       suite NAME [SCALE] [--small] [--KNOB VALUE]...   a study\n"
			"       suite NAME --help          its knobs\n"
			"       suite all [SCALE]          every plain workload but the big ones\n"
			"       suite big [SCALE]          the ones that need 64 MB or more\n"
			"       suite small                every study, as small as for tests\n"
			"       suite mark begin|end|N     a region around other programs, a mark\n"
			"       suite list                 names and what each does\n");
	return 2;
}

static int help_study(const struct study *s)
{
	printf("usage: suite %s [SCALE] [--small] [--KNOB VALUE]...\n%s\n\n", s->name, s->what);
	printf("%-16s %12s %12s  %s\n", "knob", "default", "--small", "");
	for (const struct knob *k = s->knobs; k < s->knobs + KNOB_MAX && k->name; k++)
		printf("--%-14s %12llu %12llu  %s\n", k->name, (unsigned long long)k->normal,
		       (unsigned long long)k->small, k->what);
	printf("\nSCALE multiplies --%s. Values may end in K, M or G.\n", s->knobs[0].name);
	return 0;
}

static bool parse_value(const char *text, uint64_t *value)
{
	static const char suffixes[] = "KMG";
	char *end;
	const char *suffix;

	errno = 0;
	*value = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-')
		return false;
	suffix = *end ? strchr(suffixes, *end) : NULL;
	if (!suffix)
		return !*end;
	*value <<= 10 * (suffix - suffixes + 1);
	return !end[1];
}

/* One "--KNOB VALUE" or "--small"; how many words it took, 0 if it is wrong, having said why. */
static int take_option(const struct study *s, uint64_t *value, char **word)
{
	bool is_small = !strcmp(word[0], "--small");

	for (unsigned i = 0; i < KNOB_MAX && s->knobs[i].name; i++) {
		const struct knob *k = &s->knobs[i];

		if (is_small) {
			value[i] = k->small;
		} else if (!strncmp(word[0], "--", 2) && !strcmp(word[0] + 2, k->name)) {
			if (word[1] && parse_value(word[1], &value[i]) && value[i] >= k->least &&
			    value[i] <= k->most)
				return 2;
			fprintf(stderr, "suite %s: --%s takes %llu to %llu, not %s\n", s->name,
				k->name, (unsigned long long)k->least, (unsigned long long)k->most,
				word[1] ? word[1] : "nothing");
			return 0;
		}
	}
	if (!is_small)
		fprintf(stderr, "suite %s: unknown option %s; --help names the knobs\n", s->name,
			word[0]);
	return is_small;
}

static int run_study(const struct study *s, char **word)
{
	uint64_t value[KNOB_MAX] = {0}, scale = 1;

	for (unsigned i = 0; i < KNOB_MAX; i++)
		value[i] = s->knobs[i].normal;
	if (*word && !strcmp(*word, "--help"))
		return help_study(s);
	if (*word && **word != '-') {
		if (!parse_value(*word, &scale) || !scale || scale > UINT32_MAX)
			return usage();
		word++;
	}
	while (*word) {
		int taken = take_option(s, value, word);

		if (!taken)
			return 2;
		word += taken;
	}
	value[0] *= scale;
	/* Pages of 4K, here and in whatever is executed, unless a study asks for others: the
	 * kernel's default is not the same everywhere. */
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	print_checksum(s->name, s->run(value));
	return 0;
}

static int run_group(bool big, unsigned scale)
{
	for (size_t i = 0; i < WORKLOAD_COUNT; i++)
		if (workloads[i].is_big == big)
			print_checksum(workloads[i].name, workloads[i].run(scale));
	return 0;
}

static int run_small(void)
{
	char small[] = "--small", *words[] = {small, NULL};

	for (size_t i = 0; i < STUDY_COUNT; i++)
		run_study(studies[i], words);
	return 0;
}

static int list(void)
{
	for (size_t i = 0; i < STUDY_COUNT; i++)
		printf("%-14s %s (study)\n", studies[i]->name, studies[i]->what);
	for (size_t i = 0; i < WORKLOAD_COUNT; i++)
		printf("%-14s %s%s\n", workloads[i].name, workloads[i].what,
		       workloads[i].is_big ? " (big)" : "");
	return 0;
}

/* A region of interest for programs that set no marks: one process begins it, another ends it.
 * Other marks tell whoever counts what comes next. */
static int set_mark(const char *which)
{
	uint64_t number;

	if (!strcmp(which, "begin"))
		gnomon_region_begin();
	else if (!strcmp(which, "end"))
		gnomon_region_end();
	else if (parse_value(which, &number) && number <= UINT32_MAX)
		gnomon_mark((unsigned)number);
	else
		return usage();
	return 0;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	uint64_t scale = 1;

	for (size_t i = 0; i < STUDY_COUNT; i++)
		if (!strcmp(name, studies[i]->name))
			return run_study(studies[i], argv + 2);
	if (argc == 3 && !strcmp(name, "mark"))
		return set_mark(argv[2]);
	if (argc < 2 || argc > 3 ||
	    (argc == 3 && (!parse_value(argv[2], &scale) || !scale || scale > UINT32_MAX)))
		return usage();
	if (!strcmp(name, "exit")) /* what forkexec executes: scale is the status */
		_exit((int)(scale & 0x7f));
	if (!strcmp(name, "list"))
		return list();
	if (!strcmp(name, "all"))
		return run_group(false, (unsigned)scale);
	if (!strcmp(name, "big"))
		return run_group(true, (unsigned)scale);
	if (!strcmp(name, "small"))
		return run_small();
	for (size_t i = 0; i < WORKLOAD_COUNT; i++)
		if (!strcmp(name, workloads[i].name))
			return print_checksum(name, workloads[i].run((unsigned)scale)), 0;
	return usage();
}
