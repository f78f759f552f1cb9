/*
 * How long this host took over the exits of one vcpu: the time from the moment an exit is met until
 * the guest can go on, by cause, in nanoseconds. It is what the machine really spends; what a
 * hardware-assisted VMM would take is the profile's price and something else.
 *
 * It is measured with the host's TSC and only where C code handles the exit anyhow, so two reads of
 * a register are all it adds. An exit that ends in a fault of the guest is counted but not timed.
 * HLT lasts until the interrupt that ends it. Written by the thread that runs the vcpu.
 */
#pragma once

#include <x86intrin.h>

#include "ledger/ledger.h"

#define EXIT_CAUSES (EVENT_EXIT_TRIPLE_FAULT - EVENT_EXIT_CR_READ + 1)
/* Bucket b has what took less than 2^(b + EXIT_TIME_SHIFT) ns and no less than half of that; the
 * first has all that is shorter, the last all that is longer (from 0.27 s on). */
#define EXIT_TIME_SHIFT 4
#define EXIT_TIME_BUCKETS 26

struct exit_time {
	uint64_t count, sum_ns, min_ns, max_ns; /* all 0 without a sample */
	double sum_squares;			/* of nanoseconds: for the standard deviation */
	uint64_t buckets[EXIT_TIME_BUCKETS];
};

struct exit_times {
	uint64_t ns_per_tick;  /* of the TSC, in 2^-32 ns; 0: not known yet, nothing is measured */
	uint64_t halted_since; /* HLT's beginning; 0: none goes on */
	struct exit_time of[EXIT_CAUSES];
};

/* The TSC's rate: so many ticks passed within so many nanoseconds. */
void exit_times_set_rate(struct exit_times *t, uint64_t ticks, uint64_t ns);
/* One more that began at `start`. */
void exit_times_add(struct exit_times *t, enum event e, uint64_t start);

/* In nanoseconds; one sample. */
void exit_time_sample(struct exit_time *t, uint64_t ns);
/* Adds what `from` has, as for totals over vcpus. */
void exit_time_merge(struct exit_time *t, const struct exit_time *from);
/* What was measured since `before`; the shortest and longest stay those of all time. */
void exit_time_subtract(struct exit_time *t, const struct exit_time *before);
/* The standard deviation of the mean in percent of it, as perf prints; 0 with fewer than two. */
double exit_time_error_percent(const struct exit_time *t);
/* What a sample of the bucket is below, in nanoseconds; UINT64_MAX for the last. */
uint64_t exit_time_bound_ns(unsigned bucket);

/* The moment, for ledger_exit_end(); 0 where nobody measures. */
static inline uint64_t ledger_exit_begin(const struct ledger *l)
{
	return l->times && l->times->ns_per_tick ? __rdtsc() : 0;
}

/* EVENT_COUNT: it was none after all. */
static inline void ledger_exit_end(struct ledger *l, enum event e, uint64_t start)
{
	if (start && e != EVENT_COUNT)
		exit_times_add(l->times, e, start);
}

/* HLT begins, and ends when something wakes the vcpu. */
static inline void ledger_halt_begin(struct ledger *l)
{
	if (l->times)
		l->times->halted_since = ledger_exit_begin(l);
}

static inline void ledger_halt_end(struct ledger *l)
{
	if (l->times && l->times->halted_since) {
		exit_times_add(l->times, EVENT_EXIT_HLT, l->times->halted_since);
		l->times->halted_since = 0;
	}
}
