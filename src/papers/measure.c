#include "papers/measure.h"

#include <string.h>

#define PROFILE_DEFAULT "k10-2350"

static const struct compare_row *find_row(struct question q, const char *name, size_t length,
					  const char *strategy)
{
	const struct machine_run *run = &q.papers->run[q.machine];
	const char *profile = q.profile ? q.profile : PROFILE_DEFAULT;
	for (unsigned i = 0; run->has_run && i < run->part_count; i++) {
		const struct part *part = &run->parts[i];
		if (!part->has_run || strlen(part->name) != length ||
		    strncmp(part->name, name, length) != 0)
			continue;
		for (unsigned r = 0; r < part->compare.row_count; r++) {
			const struct compare_row *row = &part->compare.rows[r];
			if (!strcmp(row->scheme->strategy, strategy) &&
			    !strcmp(row->scheme->profile->name, profile))
				return row;
		}
	}
	return NULL;
}

/* The next of the names that '+' joins; false at the end. */
static bool next_row(struct question q, const char **rest, const char *strategy,
		     const struct compare_row **row)
{
	if (!**rest)
		return false;
	size_t length = strcspn(*rest, "+");
	*row = find_row(q, *rest, length, strategy);
	*rest += length + ((*rest)[length] == '+');
	return true;
}

bool measure_has(struct question q, const char *strategy)
{
	const struct compare_row *row;
	for (const char *rest = q.workload; next_row(q, &rest, strategy, &row);)
		if (!row)
			return false;
	return true;
}

double measure_time(struct question q, const char *strategy)
{
	const struct compare_row *row;
	double sum = 0;
	for (const char *rest = q.workload; next_row(q, &rest, strategy, &row);)
		if (row)
			sum += (double)row->bill.total.millis / MILLIS_PER_CYCLE;
	return sum;
}

double measure_overhead(struct question q, const char *strategy)
{
	const struct compare_row *row;
	double sum = 0;
	for (const char *rest = q.workload; next_row(q, &rest, strategy, &row);)
		if (row)
			sum += (double)(row->beyond.millis - row->cause[CAUSE_OTHER_EXIT].millis) /
			       MILLIS_PER_CYCLE;
	return sum;
}

double measure_ratio(struct question q, const char *a, const char *b)
{
	double under = measure_time(q, b);
	return measure_has(q, a) && measure_has(q, b) && under > 0 ? measure_time(q, a) / under : 0;
}

double measure_events(struct question q, const char *strategy, enum event e)
{
	const struct compare_row *row;
	double sum = 0;
	for (const char *rest = q.workload; next_row(q, &rest, strategy, &row);)
		if (row)
			sum += (double)bill_count(&row->bill.line[e]);
	return sum;
}

double measure_user_events(struct question q, const char *strategy, enum event e)
{
	const struct compare_row *row;
	double sum = 0;
	for (const char *rest = q.workload; next_row(q, &rest, strategy, &row);)
		if (row)
			sum += (double)row->bill.line[e].count[RING_USER];
	return sum;
}

double measure_per_1000(struct question q, const char *strategy, enum event e)
{
	double instructions = measure_events(q, strategy, EVENT_INSTRUCTION);
	return instructions > 0 ? 1000 * measure_events(q, strategy, e) / instructions : 0;
}

double measure_exit_share(struct question q, const char *strategy, enum event e)
{
	double all = 0;
	for (unsigned x = 0; x < EVENT_COUNT; x++)
		if (event_is_exit((enum event)x))
			all += measure_events(q, strategy, (enum event)x);
	return all > 0 ? 100 * measure_events(q, strategy, e) / all : 0;
}

double measure_cause_share(struct question q, const char *strategy, enum compare_cause c)
{
	const struct compare_row *row;
	double sum = 0, time = measure_time(q, strategy);
	for (const char *rest = q.workload; next_row(q, &rest, strategy, &row);)
		if (row)
			sum += (double)row->cause[c].millis / MILLIS_PER_CYCLE;
	return time > 0 ? 100 * sum / time : 0;
}

double measure_accesses(struct question q)
{
	double instructions = measure_events(q, "native", EVENT_INSTRUCTION);
	double accesses =
		measure_events(q, "native", EVENT_READ) + measure_events(q, "native", EVENT_WRITE);
	return instructions > 0 ? accesses / instructions : 0;
}

static const char *extreme(struct question q, const char *const *strategies, bool is_slowest)
{
	const char *found = NULL;
	double time = 0;
	for (; *strategies; strategies++) {
		if (!measure_has(q, *strategies))
			continue;
		double its = measure_time(q, *strategies);
		if (!found || (is_slowest ? its > time : its < time)) {
			found = *strategies;
			time = its;
		}
	}
	return found;
}

const char *measure_best(struct question q, const char *const *strategies)
{
	return extreme(q, strategies, false);
}

const char *measure_worst(struct question q, const char *const *strategies)
{
	return extreme(q, strategies, true);
}
