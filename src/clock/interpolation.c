/* Between two answers of the host's clock. See interpolation.h. */
#include "clock/interpolation.h"

#include <cpuid.h>

#include "base/bits.h"

#define LEAF_POWER 0x80000007u
#define INVARIANT_TSC BIT(8)
#define AT_ONCE_TICKS 2000u	 /* about a microsecond */
#define COUNTS_TICKS (1u << 21)	 /* about a millisecond */
#define MEASURE_TICKS (1u << 25) /* some 10 ms */
#define RATE_MAX (1ull << 40)

void interpolation_init(struct interpolation *p)
{
	unsigned a, b, c, d;
	*p = (struct interpolation){0};
	p->is_impossible = !__get_cpuid(LEAF_POWER, &a, &b, &c, &d) || !(d & INVARIANT_TSC);
}

/* Does the answer lie where it was expected? A thousandth is more than clocks are slewed by. */
static bool is_confirmed(const struct interpolation *p, uint64_t tsc, uint64_t cycles)
{
	uint64_t expected = interpolation_at(p, tsc - p->tsc);
	uint64_t apart = cycles > expected ? cycles - expected : expected - cycles;
	return apart <=
	       (cycles - p->cycles) / 1024 + AT_ONCE_TICKS * (p->rate >> 32) + AT_ONCE_TICKS;
}

void interpolation_answer(struct interpolation *p, uint64_t before, uint64_t after, uint64_t cycles)
{
	uint64_t since = after - p->first_tsc;
	p->ticks = 0;
	if (p->is_impossible || after - before > AT_ONCE_TICKS)
		return;
	if (!p->first_tsc || (p->rate && !is_confirmed(p, after, cycles)) ||
	    cycles < p->first_cycles) {
		p->first_tsc = after;
		p->first_cycles = cycles;
		p->rate = 0;
		return;
	}
	if (since < MEASURE_TICKS)
		return;
	unsigned __int128 rate = ((unsigned __int128)(cycles - p->first_cycles) << 32) / since;
	p->rate = rate < RATE_MAX ? (uint64_t)rate : 0;
	p->tsc = after;
	p->cycles = cycles;
	p->ticks = p->rate ? COUNTS_TICKS : 0;
}
