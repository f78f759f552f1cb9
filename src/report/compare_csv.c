/*
 * The comparison in long form: one value a line, for spreadsheets and data frames.
 *
 *   profile,strategy,record,name,part,unit,value
 *
 * `record` is total, cause, rate, share, counter, sample, oracle, verdict or break-even; `part` the
 * ring of a counter (kernel, user), the number of a sample, or the strategy that the oracle used.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "report/compare.h"
#include "report/csv_row.h"
#include "report/series.h"

struct place {
	FILE *out;
	const char *profile, *strategy;
};

static void put(const struct place *at, const char *record, const char *name, const char *part,
		const char *unit, const char *value)
{
	const char *const fields[] = {at->profile, at->strategy, record, name, part, unit, value};

	csv_put_row(at->out, fields, ARRAY_COUNT(fields));
}

static void put_real(const struct place *at, const char *record, const char *name, const char *unit,
		     double value)
{
	char text[40];

	snprintf(text, sizeof(text), "%.6f", value);
	put(at, record, name, "", unit, text);
}

static void put_counters(const struct place *at, const struct compare_row *r)
{
	static const char *const rings[RING_COUNT] = {"kernel", "user"};
	char text[AMOUNT_TEXT_MAX];

	for (int e = 0; e < EVENT_COUNT; e++)
		for (int ring = 0; ring < RING_COUNT; ring++)
			put(at, "counter", event_name((enum event)e), rings[ring], "events",
			    count_text(r->bill.line[e].count[ring], 0, text));
}

static void put_references(const struct place *at, const struct compare_row *r)
{
	for (int d = 0; d < DIMENSION_COUNT; d++)
		for (unsigned level = 1; level <= COMPARE_LEVELS; level++) {
			char name[40];

			snprintf(name, sizeof(name), "walk.%s.l%u",
				 compare_dimension_name((enum compare_dimension)d), level);
			put_real(at, "rate", name, "references/walk",
				 compare_references(r, (enum compare_dimension)d, level));
		}
	put_real(at, "rate", "walk", "references/walk", compare_all_references(r));
}

static void put_row(const struct place *at, const struct compare_row *r, struct amount native)
{
	char text[AMOUNT_TEXT_MAX];

	put(at, "total", "cycles", "", "cycles", amount_text(r->bill.total, 0, text));
	put(at, "total", "beyond_native", "", "cycles", difference_text(r->beyond, 0, text));
	put_real(at, "total", "slowdown", "percent", compare_percent(r->beyond, native));
	for (int c = 0; c < CAUSE_COUNT; c++)
		put(at, "cause", compare_cause_name((enum compare_cause)c), "", "cycles",
		    difference_text(r->cause[c], 0, text));
	put_real(at, "rate", "tlb.miss", "misses/1000 instructions", compare_misses_per_1000(r));
	put_references(at, r);
	put_real(at, "share", "estimates_of_overhead", "percent", compare_estimates_of_overhead(r));
	put_real(at, "share", "estimates_of_total", "percent", compare_estimates_of_total(r));
	put_counters(at, r);
}

static void put_verdict(FILE *out, const struct compare *c, const struct compare_group *g)
{
	const struct place at = {out, g->profile->name, ""};
	const struct {
		const char *name;
		unsigned row;
	} winners[] = {{"best", g->best},
		       {"worst", g->worst},
		       {"best_shadow", g->best_shadow},
		       {"nested", g->nested}};

	for (size_t i = 0; i < ARRAY_COUNT(winners); i++)
		if (winners[i].row != COMPARE_NONE)
			put(&at, "verdict", winners[i].name, "", "strategy",
			    c->rows[winners[i].row].scheme->strategy);
	if (g->best != COMPARE_NONE)
		put_real(&at, "verdict", "worst_to_best", "times",
			 compare_ratio(&c->rows[g->best], &c->rows[g->worst]));
	if (g->best_shadow != COMPARE_NONE && g->nested != COMPARE_NONE)
		put_real(&at, "verdict", "nested_to_best_shadow", "times",
			 compare_ratio(&c->rows[g->best_shadow], &c->rows[g->nested]));
}

static void put_oracle(FILE *out, const struct compare *c, const struct compare_group *g)
{
	const struct place at = {out, g->profile->name, "oracle"};
	const struct oracle *o = &g->oracle;
	struct difference beyond = {o->beyond_millis};
	char text[AMOUNT_TEXT_MAX];

	if (!o->is_known)
		return;
	put(&at, "total", "cycles", "", "cycles", amount_text(o->total, 0, text));
	put(&at, "total", "beyond_native", "", "cycles", difference_text(beyond, 0, text));
	put_real(&at, "total", "slowdown", "percent",
		 compare_percent(beyond, compare_native(c, g)->bill.total));
	put(&at, "oracle", "changes", "", "events", count_text(o->change_count, 0, text));
	for (unsigned i = 0; i < g->count; i++)
		if (o->instructions[i])
			put(&at, "oracle", "instruction", c->rows[g->first + i].scheme->strategy,
			    "events", count_text(o->instructions[i], 0, text));
}

/* Break-even points; `part` says below which value and above which strategy is cheaper. */
static int put_varied(FILE *out, const struct compare *c, const struct compare_group *g)
{
	const struct place at = {out, g->profile->name, ""};
	const char **names = calloc(g->count, sizeof(*names));
	char part[2 * 160 + 20], value[40];

	if (!names)
		return -ENOMEM;
	compare_varied_names(c, g, names);
	for (unsigned i = 0; i < g->vary_count; i++)
		for (unsigned k = 0; k < g->vary[i]->crossing_count; k++) {
			const struct vary_crossing *x = &g->vary[i]->crossing[k];

			snprintf(part, sizeof(part), "below %s above %s", names[x->before],
				 names[x->after]);
			snprintf(value, sizeof(value), "%.3f", x->value);
			put(&at, "break-even", g->vary[i]->vary.key, part, "cycles", value);
		}
	free(names);
	return 0;
}

static void put_series(FILE *out, const struct compare_input *in)
{
	const struct series *s = in->series;

	if (in->is_series_internal)
		return;
	for (unsigned i = 0; s && i < s->scheme_count; i++)
		for (size_t n = 0; n < s->count; n++) {
			const struct series_point *p = series_at(s, n, i);
			const struct place at = {out, in->schemes[i].profile->name,
						 in->schemes[i].strategy};
			char part[24], text[AMOUNT_TEXT_MAX];

			snprintf(part, sizeof(part), "%zu", n);
			put(&at, "sample", "cycles", part, "cycles",
			    amount_text(p->total, 0, text));
			put(&at, "sample", "instruction", part, "events",
			    count_text(p->instructions, 0, text));
			put(&at, "sample", "tlb.miss", part, "events",
			    count_text(p->tlb_misses, 0, text));
			put(&at, "sample", "guest.cr3_write", part, "events",
			    count_text(p->cr3_writes, 0, text));
			put(&at, "sample", "paging.switch", part, "events",
			    count_text(p->switches, 0, text));
		}
}

int compare_write_csv(FILE *out, const struct compare *c)
{
	int rc = 0;

	fputs("profile,strategy,record,name,part,unit,value\n", out);
	for (unsigned g = 0; g < c->group_count && !rc; g++) {
		const struct compare_group *group = &c->groups[g];

		for (unsigned i = group->first; i < group->first + group->count; i++) {
			const struct place at = {out, group->profile->name,
						 c->rows[i].scheme->strategy};

			put_row(&at, &c->rows[i], compare_native(c, group)->bill.total);
		}
		put_oracle(out, c, group);
		put_verdict(out, c, group);
		rc = put_varied(out, c, group);
	}
	put_series(out, c->input);
	return rc;
}
