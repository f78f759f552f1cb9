#include "report/series.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void series_init(struct series *s, unsigned scheme_count, uint64_t interval)
{
	*s = (struct series){.scheme_count = scheme_count, .interval = interval};
}

void series_fini(struct series *s)
{
	free(s->points);
	*s = (struct series){0};
}

static uint64_t sum_levels(const struct bill *b, enum event first)
{
	uint64_t sum = 0;

	for (int level = 0; level < COMPARE_LEVELS; level++)
		sum += bill_count(&b->line[first + level]);
	return sum;
}

static void fill(struct series_point *p, const struct bill *b)
{
	*p = (struct series_point){
		.total = b->total,
		.instructions = bill_count(&b->line[EVENT_INSTRUCTION]),
		.tlb_misses = bill_count(&b->line[EVENT_TLB_MISS]),
		.host_references = sum_levels(b, EVENT_WALK_H1),
		.shadow_references = sum_levels(b, EVENT_WALK_S1),
		.cr3_writes = bill_count(&b->line[EVENT_GUEST_CR3_WRITE]),
		.table_writes = bill_count(&b->line[EVENT_EXIT_TABLE_WRITE]) +
				bill_count(&b->line[EVENT_SHADOW_UNSYNC]),
		.switches = bill_count(&b->line[EVENT_PAGING_SWITCH]),
	};
}

static int grow(struct series *s)
{
	if (s->count < s->capacity)
		return 0;
	size_t wanted = s->capacity ? 2 * s->capacity : 64;
	struct series_point *more =
		reallocarray(s->points, wanted, s->scheme_count * sizeof(*s->points));
	if (!more)
		return -ENOMEM;
	s->points = more;
	s->capacity = wanted;
	return 0;
}

int series_add(struct series *s, const struct compare_scheme *schemes, unsigned vcpu_count)
{
	struct bill *b = malloc(sizeof(*b));
	int rc = b ? grow(s) : -ENOMEM;

	for (unsigned i = 0; !rc && i < s->scheme_count; i++) {
		struct report_input in = {.profile = schemes[i].profile,
					  .ledgers = schemes[i].ledgers,
					  .vcpu_count = vcpu_count,
					  .strategy = schemes[i].strategy,
					  .is_virtualized = schemes[i].is_virtualized};

		bill_make(b, &in);
		fill(&s->points[s->count * s->scheme_count + i], b);
	}
	if (!rc)
		s->count++;
	free(b);
	return rc;
}

void series_thin(struct series *s)
{
	size_t row = s->scheme_count, kept = 0;

	for (size_t n = s->count % 2 ? 0 : 1; n < s->count; n += 2, kept++)
		memmove(&s->points[kept * row], &s->points[n * row], row * sizeof(*s->points));
	s->count = kept;
	s->interval *= 2;
}

const struct series_point *series_at(const struct series *s, size_t sample, unsigned scheme)
{
	assert(sample < s->count && scheme < s->scheme_count);
	return &s->points[sample * s->scheme_count + scheme];
}
