/*
 * The workloads' own contract. Each workload is one file with one function that does the same work
 * at every call with the same parameters and returns a checksum of what it computed: no pids,
 * times, addresses or anything else that differs between a guest and the machine that the same
 * binary ran on natively, or between the 64-bit and the 32-bit build.
 *
 * There are two kinds. The plain ones have one parameter, a scale: 1 is some millions of
 * instructions, and the work grows about linearly with it. The studies stand for the workloads of
 * the papers and have knobs by name. Both put the part that is to be measured, not its set-up,
 * between measure_begin() and measure_end().
 *
 * The programs use no libm function and no x86-64-v2+ instruction, so a checksum does not depend on
 * the processor.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* splitmix64: the only randomness here. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Folds `value` into a checksum; order matters. */
static inline uint64_t fold(uint64_t sum, uint64_t value)
{
	sum ^= value;
	sum *= 0x100000001b3ull;
	return sum ^ (sum >> 29);
}

/* Says why on standard error and ends the process: a workload that cannot run has no checksum. */
_Noreturn void give_up(const char *what);

/* Ends the process with status 2: parameters that make no sense together. */
_Noreturn void refuse(const char *workload, const char *why);

/* Fresh zeroed memory, or give_up(). */
void *fresh_pages(size_t size_bytes);

/*
 * The region of interest (gnomon/mark.h). Pairs may nest, and the outermost counts, so that a
 * workload made of others is one region. For one process of a workload only: the first.
 */
void measure_begin(void);
void measure_end(void);

/* Anonymous memory that a later fork() shares, zeroed, or give_up(). */
void *shared_pages(size_t size_bytes);

/* A file without a name: in $TMPDIR, /tmp or /dev/shm, whichever can be written. */
int open_unnamed_file(void);

struct knob {
	const char *name;	/* --NAME VALUE; K, M and G are understood */
	uint64_t normal, small; /* small: for tests, a few million instructions in all */
	uint64_t least, most;
	const char *what;
};

#define KNOB_MAX 8

struct study {
	const char *name, *what;
	struct knob knobs[KNOB_MAX]; /* the first is the amount of work: SCALE multiplies it */
	uint64_t (*run)(const uint64_t *knob); /* knob[i]: the value of knobs[i] */
};

extern const struct study chase_study;
extern const struct study dial_study;
extern const struct study forkserver_study;
extern const struct study gups_study;
extern const struct study kbuild_study;
extern const struct study mmapstorm_study;
extern const struct study phases_study;
extern const struct study tpch_study;
extern const struct study vpr_study;
extern const struct study worstcase_study;

uint64_t chase64_16k(unsigned scale);
uint64_t chase64_2m(unsigned scale);
uint64_t chase64_64m(unsigned scale);
uint64_t chase4k_1m(unsigned scale);
uint64_t chase4k_16m(unsigned scale);
uint64_t chase4k_256m(unsigned scale);
uint64_t chase_huge_64m(unsigned scale);
uint64_t triad(unsigned scale);
uint64_t strops(unsigned scale);
uint64_t intloop(unsigned scale);
uint64_t sha256(unsigned scale);
uint64_t interp(unsigned scale);
uint64_t fib(unsigned scale);
uint64_t icall(unsigned scale);
uint64_t quicksort(unsigned scale);
uint64_t fploop(unsigned scale);
uint64_t nbody(unsigned scale);
uint64_t x87(unsigned scale);
uint64_t syscalls(unsigned scale);
uint64_t ctxsw(unsigned scale);
uint64_t forkexec(unsigned scale);
uint64_t forkwait(unsigned scale);
uint64_t pgfault(unsigned scale);
uint64_t mprotects(unsigned scale);
uint64_t sigsegv(unsigned scale);
uint64_t devzero(unsigned scale);
uint64_t tmpfiles(unsigned scale);
uint64_t stats(unsigned scale);
uint64_t smc(unsigned scale);
uint64_t jit(unsigned scale);
uint64_t atomics(unsigned scale);
