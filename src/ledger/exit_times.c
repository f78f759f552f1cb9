#include "ledger/exit_times.h"

#include <math.h>

void exit_times_set_rate(struct exit_times *t, uint64_t ticks, uint64_t ns)
{
	t->ns_per_tick = ticks ? (uint64_t)(((unsigned __int128)ns << 32) / ticks) : 0;
}

static unsigned bucket_of(uint64_t ns)
{
	uint64_t scaled = ns >> EXIT_TIME_SHIFT;
	unsigned bucket = scaled ? 64 - (unsigned)__builtin_clzll(scaled) : 0;
	return bucket < EXIT_TIME_BUCKETS ? bucket : EXIT_TIME_BUCKETS - 1;
}

uint64_t exit_time_bound_ns(unsigned bucket)
{
	return bucket + 1 < EXIT_TIME_BUCKETS ? 1ull << (bucket + EXIT_TIME_SHIFT) : UINT64_MAX;
}

void exit_time_sample(struct exit_time *t, uint64_t ns)
{
	if (!t->count || ns < t->min_ns)
		t->min_ns = ns;
	if (ns > t->max_ns)
		t->max_ns = ns;
	t->count++;
	t->sum_ns += ns;
	t->sum_squares += (double)ns * (double)ns;
	t->buckets[bucket_of(ns)]++;
}

void exit_times_add(struct exit_times *t, enum event e, uint64_t start)
{
	uint64_t now = __rdtsc();
	/* Processors whose counters differ: rather no sample than a wrong one. */
	if (now < start)
		return;
	uint64_t ns = (uint64_t)(((unsigned __int128)(now - start) * t->ns_per_tick) >> 32);
	exit_time_sample(&t->of[e - EVENT_EXIT_CR_READ], ns);
}

void exit_time_merge(struct exit_time *t, const struct exit_time *from)
{
	if (!from->count)
		return;
	if (!t->count || from->min_ns < t->min_ns)
		t->min_ns = from->min_ns;
	if (from->max_ns > t->max_ns)
		t->max_ns = from->max_ns;
	t->count += from->count;
	t->sum_ns += from->sum_ns;
	t->sum_squares += from->sum_squares;
	for (unsigned b = 0; b < EXIT_TIME_BUCKETS; b++)
		t->buckets[b] += from->buckets[b];
}

void exit_time_subtract(struct exit_time *t, const struct exit_time *before)
{
	t->count -= before->count;
	t->sum_ns -= before->sum_ns;
	t->sum_squares -= before->sum_squares;
	for (unsigned b = 0; b < EXIT_TIME_BUCKETS; b++)
		t->buckets[b] -= before->buckets[b];
}

double exit_time_error_percent(const struct exit_time *t)
{
	double n = (double)t->count, mean = n > 0 ? (double)t->sum_ns / n : 0;
	if (t->count < 2 || mean <= 0)
		return 0;
	double variance = (t->sum_squares - n * mean * mean) / (n - 1);
	return variance > 0 ? 100 * sqrt(variance / n) / mean : 0;
}
