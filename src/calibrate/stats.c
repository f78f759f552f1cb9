#include "calibrate/stats.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

/* Between neighbours, as the usual definition of a quantile has it. */
static double quantile(const double *sorted, unsigned count, double q)
{
	double at = q * (count - 1);
	unsigned i = (unsigned)at;

	return i + 1 < count ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[i];
}

struct summary summarize(double *samples, unsigned count)
{
	struct summary s = {.count = count};

	if (!count)
		return s;
	qsort(samples, count, sizeof(*samples), by_value);
	s.median = quantile(samples, count, 0.5);
	s.lowest = samples[0];
	if (s.median > 0)
		s.spread = 100 * (quantile(samples, count, 0.75) - quantile(samples, count, 0.25)) /
			   s.median;
	return s;
}

double knee(const struct curve_point *curve, unsigned count, double low, double high)
{
	double middle = (low + high) / 2;

	for (unsigned i = 1; i < count; i++) {
		const struct curve_point *a = &curve[i - 1], *b = &curve[i];

		/* One noisy point is no knee: the next must be above, too. */
		if (b->y < middle || (i + 1 < count && curve[i + 1].y < middle))
			continue;
		if (a->y >= middle || b->y >= high - (high - low) / 10)
			return a->x;
		return a->x + (b->x - a->x) * (middle - a->y) / (b->y - a->y);
	}
	return 0;
}

unsigned nearest_tlb_size(double entries)
{
	static const unsigned sizes[] = {8,    16,   24,   32,	 40,   48,   64,  72,	80,
					 96,   128,  192,  256,	 384,  512,  768, 1024, 1280,
					 1536, 2048, 2304, 3072, 4096, 6144, 8192};
	unsigned best = sizes[0];

	for (size_t i = 1; i < ARRAY_COUNT(sizes); i++)
		if (fabs(log(sizes[i] / entries)) < fabs(log(best / entries)))
			best = sizes[i];
	return best;
}
