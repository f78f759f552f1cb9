/*
 * The comparison as JSON: schema "gnomon-compare", version 1 (docs/compare.md,
 * docs/schema/compare.json). Everything that the table shows, and under it the raw counts of every
 * event by ring, so that anybody can make the sums again with other prices.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "report/compare.h"
#include "report/json_values.h"
#include "report/series.h"

#define SCHEMA_NAME "gnomon-compare"
#define SCHEMA_VERSION 1

static json_t *json_difference(struct difference d)
{
	if (d.millis % (int)MILLIS_PER_CYCLE || d.millis / (int)MILLIS_PER_CYCLE > INT64_MAX ||
	    d.millis / (int)MILLIS_PER_CYCLE < INT64_MIN)
		return json_real((double)d.millis / MILLIS_PER_CYCLE);
	return json_integer((json_int_t)(d.millis / (int)MILLIS_PER_CYCLE));
}

static json_t *json_causes(const struct compare_row *r, struct amount native)
{
	json_t *causes = json_object();

	for (int c = 0; c < CAUSE_COUNT; c++)
		json_object_set_new(causes, compare_cause_name((enum compare_cause)c),
				    json_pack("{s:o, s:f}", "cycles", json_difference(r->cause[c]),
					      "percent_of_native",
					      compare_percent(r->cause[c], native)));
	return causes;
}

/* {"guest": [l1..l5], "host": ..., "shadow": ...}: references for each walk. */
static json_t *json_references(const struct compare_row *r)
{
	json_t *references = json_object();

	for (int d = 0; d < DIMENSION_COUNT; d++) {
		json_t *levels = json_array();

		for (unsigned level = 1; level <= COMPARE_LEVELS; level++)
			json_array_append_new(
				levels,
				json_real(compare_references(r, (enum compare_dimension)d, level)));
		json_object_set_new(references, compare_dimension_name((enum compare_dimension)d),
				    levels);
	}
	json_object_set_new(references, "all", json_real(compare_all_references(r)));
	return references;
}

static json_t *json_events(const struct compare_row *r)
{
	json_t *events = json_object();

	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct bill_line *l = &r->bill.line[e];

		json_object_set_new(events, event_name(l->event),
				    json_pack("{s:o, s:o}", "kernel",
					      json_count(l->count[RING_KERNEL]), "user",
					      json_count(l->count[RING_USER])));
	}
	return events;
}

static json_t *json_by_class(const struct bill *b)
{
	json_t *classes = json_object();

	for (int m = 0; m < MARK_COUNT; m++) {
		char letter[2] = {mark_letter((enum mark)m), 0};
		struct amount sum = {b->basis[SIDE_NATIVE][m].millis +
				     b->basis[SIDE_OVERHEAD][m].millis};

		json_object_set_new(classes, letter, json_cycles(sum));
	}
	return classes;
}

static json_t *json_row(const struct compare_row *r, struct amount native)
{
	json_t *row = json_pack(
		"{s:s, s:b, s:b, s:b, s:o, s:o, s:f, s:o, s:o, s:o}", "strategy",
		r->scheme->strategy, "is_primary", r->is_primary, "is_virtualized",
		r->scheme->is_virtualized, "is_hypothetical", bill_is_hypothetical(&r->bill),
		"cycles", json_cycles(r->bill.total), "beyond_native", json_difference(r->beyond),
		"slowdown_percent", compare_percent(r->beyond, native), "causes",
		json_causes(r, native), "references_per_walk", json_references(r),
		"cycles_by_class", json_by_class(&r->bill));

	json_object_set_new(row, "tlb_misses_per_1000_instructions",
			    json_real(compare_misses_per_1000(r)));
	json_object_set_new(row, "estimates_percent",
			    json_pack("{s:f, s:f}", "of_overhead", compare_estimates_of_overhead(r),
				      "of_total", compare_estimates_of_total(r)));
	json_object_set_new(row, "events", json_events(r));
	return row;
}

static json_t *json_name(const struct compare *c, unsigned row)
{
	return row == COMPARE_NONE ? json_null() : json_string(c->rows[row].scheme->strategy);
}

/* How many times as long `slow` takes; null if one of them is missing. */
static json_t *json_ratio(const struct compare *c, unsigned fast, unsigned slow)
{
	if (fast == COMPARE_NONE || slow == COMPARE_NONE)
		return json_null();
	return json_real(compare_ratio(&c->rows[fast], &c->rows[slow]));
}

static json_t *json_verdict(const struct compare *c, const struct compare_group *g)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "best", json_name(c, g->best), "worst",
			 json_name(c, g->worst), "best_shadow", json_name(c, g->best_shadow),
			 "nested", json_name(c, g->nested), "worst_to_best",
			 json_ratio(c, g->best, g->worst), "nested_to_best_shadow",
			 json_ratio(c, g->best_shadow, g->nested));
}

static json_t *json_varied(const struct compare *c, const struct compare_group *g)
{
	const char **names = calloc(g->count, sizeof(*names));
	json_t *varied = json_array();

	if (names)
		compare_varied_names(c, g, names);
	for (unsigned i = 0; names && i < g->vary_count; i++)
		json_array_append_new(varied, vary_json(g->vary[i], names));
	free(names);
	return varied;
}

/* null without samples. */
static json_t *json_oracle(const struct compare *c, const struct compare_group *g)
{
	const struct oracle *o = &g->oracle;
	json_t *instructions = json_object();

	for (unsigned i = 0; o->is_known && i < g->count; i++)
		if (o->instructions[i])
			json_object_set_new(instructions, c->rows[g->first + i].scheme->strategy,
					    json_count(o->instructions[i]));
	if (!o->is_known) {
		json_decref(instructions);
		return json_null();
	}
	return json_pack("{s:o, s:o, s:f, s:i, s:o, s:o}", "cycles", json_cycles(o->total),
			 "beyond_native", json_difference((struct difference){o->beyond_millis}),
			 "slowdown_percent",
			 compare_percent((struct difference){o->beyond_millis},
					 compare_native(c, g)->bill.total),
			 "changes", (int)o->change_count, "interval_instructions",
			 json_count(o->interval), "instructions", instructions);
}

static json_t *json_group(const struct compare *c, const struct compare_group *g)
{
	json_t *rows = json_array();

	for (unsigned i = g->first; i < g->first + g->count; i++)
		json_array_append_new(rows,
				      json_row(&c->rows[i], compare_native(c, g)->bill.total));
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "name", g->profile->name,
			 "description", g->profile->description, "origin", g->profile->origin,
			 "frequency_hz", json_count(g->profile->frequency_hz), "schemes", rows,
			 "verdict", json_verdict(c, g), "varied", json_varied(c, g), "oracle",
			 json_oracle(c, g));
}

static json_t *json_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static json_t *json_fact(const char *unit, uint64_t value)
{
	return value ? json_measure(unit, "measured", json_count(value))
		     : json_measure(unit, "unavailable", json_null());
}

static json_t *json_run(const struct compare *c)
{
	const struct compare_input *in = c->input;
	const struct bill_line *work = &c->rows[0].bill.line[EVENT_INSTRUCTION];

	return json_pack("{s:s, s:o, s:o, s:i, s:i, s:o, s:o, s:o, s:s, s:s}", "scope",
			 in->scope ? in->scope : "the whole run", "ending",
			 json_or_null(in->ending), "engine", json_or_null(in->engine), "vcpus",
			 (int)in->vcpu_count, "guest_levels", (int)in->guest_levels, "instructions",
			 json_count(bill_count(work)), "host_time", json_fact("ns", in->host_ns),
			 "peak_rss", json_fact("bytes", in->peak_rss_bytes), "primary_strategy",
			 in->schemes[in->primary].strategy, "primary_profile",
			 in->schemes[in->primary].profile->name);
}

/* ---- the series: one array a quantity, so that a page of them stays small ---- */

static json_t *json_curves(const struct series *s, unsigned scheme)
{
	static const struct {
		const char *name;
		size_t offset;
	} counts[] = {{"instructions", offsetof(struct series_point, instructions)},
		      {"tlb_misses", offsetof(struct series_point, tlb_misses)},
		      {"host_references", offsetof(struct series_point, host_references)},
		      {"shadow_references", offsetof(struct series_point, shadow_references)},
		      {"cr3_writes", offsetof(struct series_point, cr3_writes)},
		      {"table_writes", offsetof(struct series_point, table_writes)},
		      {"switches", offsetof(struct series_point, switches)}};
	json_t *curves = json_object(), *cycles = json_array();

	for (size_t n = 0; n < s->count; n++)
		json_array_append_new(cycles, json_cycles(series_at(s, n, scheme)->total));
	json_object_set_new(curves, "cycles", cycles);
	for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
		json_t *values = json_array();

		for (size_t n = 0; n < s->count; n++) {
			const struct series_point *p = series_at(s, n, scheme);
			uint64_t value;

			memcpy(&value, (const char *)p + counts[i].offset, sizeof(value));
			json_array_append_new(values, json_count(value));
		}
		json_object_set_new(curves, counts[i].name, values);
	}
	return curves;
}

static json_t *json_series(const struct compare_input *in)
{
	const struct series *s = in->series;

	if (!s || in->is_series_internal)
		return json_null();
	json_t *schemes = json_array();
	for (unsigned i = 0; i < s->scheme_count; i++)
		json_array_append_new(schemes, json_pack("{s:s, s:s, s:o}", "profile",
							 in->schemes[i].profile->name, "strategy",
							 in->schemes[i].strategy, "so_far",
							 json_curves(s, i)));
	return json_pack("{s:o, s:i, s:o}", "interval_instructions", json_count(s->interval),
			 "samples", (int)s->count, "schemes", schemes);
}

json_t *compare_json(const struct compare *c)
{
	json_t *groups = json_array();

	for (unsigned g = 0; g < c->group_count; g++)
		json_array_append_new(groups, json_group(c, &c->groups[g]));
	return json_pack("{s:s, s:i, s:o, s:o, s:o, s:b}", "schema", SCHEMA_NAME, "version",
			 SCHEMA_VERSION, "run", json_run(c), "profiles", groups, "series",
			 json_series(c->input), "closes", c->closes);
}

int compare_write_json(FILE *out, const struct compare *c)
{
	json_t *root = compare_json(c);
	int rc = root ? 0 : -ENOMEM;

	if (root && json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15)))
		rc = -EIO;
	fputc('\n', out);
	json_decref(root);
	return rc;
}
