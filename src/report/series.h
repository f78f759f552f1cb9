/*
 * A run in time: what every scheme had counted at points of it.
 *
 * A sample keeps, for each scheme, the few sums that curves are drawn from, summed over the vcpus
 * and priced at once; differences of neighbouring samples are what happened in between. Invariant:
 * samples are in the order of their instruction counts, and no sum ever falls. Callers:
 * cli/compare.c adds samples between slices of a run; the formats of compare.h read them.
 */
#pragma once

#include "report/compare.h"

struct series_point {
	struct amount total;   /* native and overhead sides, cycles */
	uint64_t instructions; /* inside the region of interest */
	uint64_t tlb_misses;   /* of every level */
	/* How nested and how shadowed the walks are: what adaptive and agile chose. */
	uint64_t host_references;
	uint64_t shadow_references;
	uint64_t cr3_writes;   /* by the guest */
	uint64_t table_writes; /* exits for them, and tables let out of sync */
	uint64_t switches;     /* paging.switch */
};

struct series {
	unsigned scheme_count;
	uint64_t interval; /* instructions from sample to sample */
	size_t count;	   /* samples */
	size_t capacity;
	struct series_point *points; /* count x scheme_count */
};

void series_init(struct series *s, unsigned scheme_count, uint64_t interval);
void series_fini(struct series *s);
/* What the schemes have counted so far: `schemes` as in struct compare_input. -ENOMEM. */
int series_add(struct series *s, const struct compare_scheme *schemes, unsigned vcpu_count);
/* Drops every other sample, the last one not, and doubles the interval: for runs of unknown length.
 */
void series_thin(struct series *s);
const struct series_point *series_at(const struct series *s, size_t sample, unsigned scheme);
