/*
 * The host's monotonic time in the clock's cycles, read from the host's TSC in between.
 *
 * A guest's kernel reads its TSC at each system call, and the host's clock_gettime() takes twice as
 * long as the host's RDTSC. So the clock is asked about once a millisecond, and what lies between
 * two answers is counted in TSC ticks at the rate that was measured since the first one.
 *
 * Invariant: a reading is within a few microseconds of the clock's. An answer counts only if it
 * came at once (nothing else ran between it and the TSC's reading), a rate only after 10 ms, and a
 * prediction that the next answer does not confirm ends the rate: it is measured anew, and until
 * then each reading asks the clock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct interpolation {
	uint64_t tsc, cycles;		  /* at the last answer */
	uint64_t ticks;			  /* how long it counts; 0: not at all */
	uint64_t rate;			  /* cycles for 2^32 ticks */
	uint64_t first_tsc, first_cycles; /* since when the rate is measured; 0: it is not */
	bool is_impossible;		  /* the host's TSC does not tick evenly */
};

void interpolation_init(struct interpolation *p);
/* Now, in cycles, after this many ticks: of an answer that counts. */
static inline uint64_t interpolation_at(const struct interpolation *p, uint64_t ticks)
{
	return p->cycles + (uint64_t)((unsigned __int128)ticks * p->rate >> 32);
}
/* The clock said `cycles` between these two readings of the TSC. */
void interpolation_answer(struct interpolation *p, uint64_t before, uint64_t after,
			  uint64_t cycles);
