/*
 * The workloads' own contract. Each workload is one file with one function that does the same work
 * at every call with the same scale and returns a checksum of what it computed: no pids, times,
 * addresses or anything else that differs between a guest and the machine that the same binary ran
 * on natively. Scale 1 is some millions of instructions; the work grows about linearly with it.
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

/* Fresh zeroed memory, or give_up(). */
void *fresh_pages(size_t size_bytes);

uint64_t chase64_16k(unsigned scale);
uint64_t chase64_2m(unsigned scale);
uint64_t chase64_64m(unsigned scale);
uint64_t chase4k_1m(unsigned scale);
uint64_t chase4k_16m(unsigned scale);
uint64_t chase4k_256m(unsigned scale);
uint64_t chase_huge_64m(unsigned scale);
uint64_t gups(unsigned scale);
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
