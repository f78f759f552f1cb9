/*
 * The comparison for people: a block for each profile, a line for each strategy, in percent of
 * native's cycles, and the verdict. A cause that no scheme shows is no column.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report/compare.h"

#define BOLD "\033[1m"
#define GREEN "\033[32m"
#define RED "\033[31m"
#define PLAIN "\033[0m"

struct table {
	FILE *out;
	const struct compare *compare;
	bool is_fancy;
	bool has_cause[CAUSE_COUNT];
	int name_columns;
};

static const char *style(const struct table *t, const char *escape)
{
	return t->is_fancy ? escape : "";
}

static void find_columns(struct table *t)
{
	t->name_columns = 12;
	for (unsigned i = 0; i < t->compare->row_count; i++) {
		const struct compare_row *r = &t->compare->rows[i];
		int length = (int)strlen(r->scheme->strategy) + r->is_primary;

		if (length > t->name_columns)
			t->name_columns = length;
		for (int c = 0; c < CAUSE_COUNT; c++)
			t->has_cause[c] = t->has_cause[c] || r->cause[c].millis;
	}
}

static void put_head(const struct table *t)
{
	const struct compare_input *in = t->compare->input;
	const struct compare_row *r = &t->compare->rows[0];
	char text[AMOUNT_TEXT_MAX];

	fprintf(t->out, "The comparison: %s, %s instructions",
		in->scope ? in->scope : "the whole run",
		count_text(bill_count(&r->bill.line[EVENT_INSTRUCTION]), ',', text));
	fprintf(t->out, "\n  %u vcpu%s", in->vcpu_count, in->vcpu_count == 1 ? "" : "s");
	if (in->guest_levels)
		fprintf(t->out, ", %u-level guest", in->guest_levels);
	if (in->engine)
		fprintf(t->out, ", engine %s", in->engine);
	fprintf(t->out, ", %u schemes on one run", in->scheme_count);
	if (in->host_ns)
		fprintf(t->out, ", %.2f s of host time", (double)in->host_ns / 1e9);
	if (in->peak_rss_bytes)
		fprintf(t->out, ", %" PRIu64 " MB at most", in->peak_rss_bytes >> 20);
	if (in->ending)
		fprintf(t->out, "; %s", in->ending);
	fputc('\n', t->out);
}

static void put_heading(const struct table *t, const struct compare_group *g)
{
	fprintf(t->out, "\n%s%s%s (%s, %.2f GHz)\n", style(t, BOLD), g->profile->name,
		style(t, PLAIN), g->profile->description, (double)g->profile->frequency_hz / 1e9);
	fprintf(t->out, "%s  %-*s %18s %10s", style(t, BOLD), t->name_columns, "strategy", "cycles",
		"slowdown");
	for (int c = 0; c < CAUSE_COUNT; c++)
		if (t->has_cause[c])
			fprintf(t->out, " %9s", compare_cause_heading((enum compare_cause)c));
	fprintf(t->out, " %9s %9s %6s%s\n", "miss/1000", "refs/walk", "est.", style(t, PLAIN));
}

/* "+12.34%"; "." for exactly nothing. */
static void put_percent(const struct table *t, int columns, struct difference d,
			struct amount native)
{
	char text[40] = ".";

	if (d.millis)
		snprintf(text, sizeof(text), "%+.2f%%", compare_percent(d, native));
	fprintf(t->out, " %*s", columns, text);
}

static void put_row(const struct table *t, const struct compare_group *g, unsigned i)
{
	const struct compare_row *r = &t->compare->rows[i];
	struct amount native = compare_native(t->compare, g)->bill.total;
	bool is_judged = g->best != g->worst;
	const char *colour = !is_judged ? "" : i == g->best ? GREEN : i == g->worst ? RED : "";
	char text[AMOUNT_TEXT_MAX];

	fprintf(t->out, "%s  %s%s%*s %18s", style(t, colour), r->scheme->strategy,
		r->is_primary ? "*" : "",
		t->name_columns - (int)strlen(r->scheme->strategy) - r->is_primary, "",
		amount_text(r->bill.total, ',', text));
	put_percent(t, 10, r->beyond, native);
	for (int c = 0; c < CAUSE_COUNT; c++)
		if (t->has_cause[c])
			put_percent(t, 9, r->cause[c], native);
	fprintf(t->out, " %9.3f %9.2f", compare_misses_per_1000(r), compare_all_references(r));
	if (r->bill.side[SIDE_OVERHEAD].millis)
		fprintf(t->out, " %5.0f%%", compare_estimates_of_overhead(r));
	fprintf(t->out, "%s\n", *colour ? style(t, PLAIN) : "");
}

/* After the strategies, for it is none: its total, and which it would have used how long. */
static void put_oracle(const struct table *t, const struct compare_group *g)
{
	const struct oracle *o = &g->oracle;
	const struct compare_row *native = compare_native(t->compare, g);
	double all = (double)bill_count(&native->bill.line[EVENT_INSTRUCTION]);
	char text[AMOUNT_TEXT_MAX];
	const char *before = "";

	if (!o->is_known)
		return;
	fprintf(t->out, "  %-*s %18s", t->name_columns, "oracle", amount_text(o->total, ',', text));
	put_percent(t, 10, (struct difference){o->beyond_millis}, native->bill.total);
	fprintf(t->out, "  %u change%s: ", o->change_count, o->change_count == 1 ? "" : "s");
	for (unsigned i = 0; i < g->count; i++) {
		if (!o->instructions[i])
			continue;
		fprintf(t->out, "%s%s %.0f%%", before,
			t->compare->rows[g->first + i].scheme->strategy,
			all > 0 ? 100 * (double)o->instructions[i] / all : 0);
		before = ", ";
	}
	fputs(" of the instructions\n", t->out);
}

static void put_verdict(const struct table *t, const struct compare_group *g)
{
	const struct compare_row *rows = t->compare->rows;
	struct amount native = compare_native(t->compare, g)->bill.total;

	if (g->best == COMPARE_NONE)
		return;
	fprintf(t->out, "  %sverdict%s: best %s, %+.2f%%", style(t, BOLD), style(t, PLAIN),
		rows[g->best].scheme->strategy, compare_percent(rows[g->best].beyond, native));
	if (g->worst != g->best)
		fprintf(t->out, "; worst %s takes %.2fx as long", rows[g->worst].scheme->strategy,
			compare_ratio(&rows[g->best], &rows[g->worst]));
	if (g->best_shadow != COMPARE_NONE && g->nested != COMPARE_NONE)
		fprintf(t->out, "; best shadow (%s) against nested (%s): %.2fx",
			rows[g->best_shadow].scheme->strategy, rows[g->nested].scheme->strategy,
			compare_ratio(&rows[g->best_shadow], &rows[g->nested]));
	fputc('\n', t->out);
}

static void put_hypothetical(const struct table *t, const struct compare_group *g)
{
	for (unsigned i = g->first; i < g->first + g->count; i++)
		if (bill_is_hypothetical(&t->compare->rows[i].bill))
			fprintf(t->out,
				"  hypothetical: %s has no %s; %s is what it would cost if it "
				"had\n",
				g->profile->name, bill_hypothesis(&t->compare->rows[i].bill),
				t->compare->rows[i].scheme->strategy);
}

static int put_varied(const struct table *t, const struct compare_group *g)
{
	const char **names = calloc(g->count, sizeof(*names));

	if (!names)
		return -ENOMEM;
	compare_varied_names(t->compare, g, names);
	for (unsigned i = 0; i < g->vary_count; i++)
		vary_write_table(t->out, g->vary[i], names);
	free(names);
	return 0;
}

static void put_foot(const struct table *t)
{
	const struct compare *c = t->compare;

	fputs("\ncycles = native's cycles + the columns of causes, exactly: ", t->out);
	fputs(c->closes ? "closes: yes\n" : "closes: NO\n", t->out);
	fputs("slowdown and causes in percent of native's cycles; miss/1000: misses of all TLB "
	      "levels for 1000\ninstructions; refs/walk: references to tables for each of them; "
	      "est.: share of the overhead that rests\non estimated prices (mark E); *: the "
	      "strategy that served the guest; 2x: twice as long\n",
	      t->out);
	if (c->groups[0].oracle.is_known)
		fputs("oracle: who knows the future and changes between the fixed strategies at "
		      "samples, their tables\nkept up for nothing: a bound for adaptive\n",
		      t->out);
}

int compare_write_table(FILE *out, const struct compare *c, bool is_fancy)
{
	struct table t = {.out = out, .compare = c, .is_fancy = is_fancy};
	int rc = 0;

	find_columns(&t);
	put_head(&t);
	for (unsigned g = 0; g < c->group_count && !rc; g++) {
		const struct compare_group *group = &c->groups[g];

		put_heading(&t, group);
		for (unsigned i = group->first; i < group->first + group->count; i++)
			put_row(&t, group, i);
		put_oracle(&t, group);
		put_verdict(&t, group);
		put_hypothetical(&t, group);
		rc = put_varied(&t, group);
	}
	put_foot(&t);
	return rc;
}
