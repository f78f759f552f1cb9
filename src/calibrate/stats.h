/* Arithmetic on samples: no clock, no memory, so that tests can give it any curve. Private. */
#pragma once

#include "base/types.h"

struct summary {
	double median, lowest;
	double spread; /* the distance of the quartiles, in percent of the median */
	unsigned count;
};

/* Sorts the samples. All zero for none. */
struct summary summarize(double *samples, unsigned count);

struct curve_point {
	unsigned x;
	double y;
};

/*
 * Where a curve that is `low` at first rises past half the way to `high` and stays there: the last
 * x below if the next is up already, else the x between them in proportion. 0 if it never does.
 */
double knee(const struct curve_point *curve, unsigned count, double low, double high);

/* The size that TLBs come in that is nearest to what a knee suggests. */
unsigned nearest_tlb_size(double entries);
