/* The bills of all schemes of a run, and each one's difference from native, cause by cause. */
#include "report/compare.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name, *heading, *text;
} causes[CAUSE_COUNT] = {
	[CAUSE_WALK] = {"walk", "walks", "references to page tables beyond native's"},
	[CAUSE_TLB] = {"tlb", "tlb", "misses of the first TLB level beyond native's"},
	[CAUSE_PF_HIDDEN] = {"exit.pf_hidden", "hidden", "page faults of the shadow only"},
	[CAUSE_PF_TRUE] = {"exit.pf_true", "true pf", "page faults of the guest, taken by the VMM"},
	[CAUSE_CR3_WRITE] = {"exit.cr3_write", "cr3", "exits for CR3 writes"},
	[CAUSE_INVLPG] = {"exit.invlpg", "invlpg", "exits for INVLPG and INVPCID"},
	[CAUSE_TABLE_WRITE] = {"exit.table_write", "tables", "exits for writes to guest tables"},
	[CAUSE_VIOLATION] = {"exit.nested_violation", "nested", "first touches of guest pages"},
	[CAUSE_OTHER_EXIT] = {"exit.other", "other",
			      "exits that no strategy can avoid: devices, "
			      "interrupts, CPUID"},
	[CAUSE_PAGING] = {"paging", "paging", "the strategy's own software"},
	[CAUSE_REST] = {"rest", "rest", "the guest's own work"},
};

const char *compare_cause_name(enum compare_cause c)
{
	return causes[c].name;
}

const char *compare_cause_heading(enum compare_cause c)
{
	return causes[c].heading;
}

const char *compare_cause_text(enum compare_cause c)
{
	return causes[c].text;
}

static enum compare_cause cause_of_exit(enum event e)
{
	switch (e) {
	case EVENT_EXIT_PF_HIDDEN: return CAUSE_PF_HIDDEN;
	case EVENT_EXIT_PF_TRUE: return CAUSE_PF_TRUE;
	case EVENT_EXIT_CR3_WRITE: return CAUSE_CR3_WRITE;
	case EVENT_EXIT_INVLPG: return CAUSE_INVLPG;
	case EVENT_EXIT_TABLE_WRITE: return CAUSE_TABLE_WRITE;
	case EVENT_EXIT_NESTED_VIOLATION: return CAUSE_VIOLATION;
	default: return CAUSE_OTHER_EXIT;
	}
}

enum compare_cause compare_cause_of(enum event e)
{
	switch (event_group(e)) {
	case GROUP_WALK: return CAUSE_WALK;
	case GROUP_TLB: return CAUSE_TLB;
	case GROUP_EXIT: return cause_of_exit(e);
	case GROUP_PAGING: return CAUSE_PAGING;
	default: return CAUSE_REST;
	}
}

/* ---- making ---- */

static void add_difference(struct compare_row *r, const struct compare_row *native)
{
	for (int e = 0; e < EVENT_COUNT; e++) {
		__int128 mine = (__int128)r->bill.line[e].cost.millis;
		__int128 theirs = (__int128)native->bill.line[e].cost.millis;

		r->cause[compare_cause_of((enum event)e)].millis += mine - theirs;
	}
	for (int c = 0; c < CAUSE_COUNT; c++)
		r->beyond.millis += r->cause[c].millis;
}

static void add_row(struct compare *c, unsigned scheme)
{
	const struct compare_input *in = c->input;
	struct compare_row *r = &c->rows[c->row_count++];

	r->scheme = &in->schemes[scheme];
	r->is_primary = scheme == in->primary;
	r->input = (struct report_input){
		.profile = r->scheme->profile,
		.ledgers = r->scheme->ledgers,
		.vcpu_count = in->vcpu_count,
		.strategy = r->scheme->strategy,
		.is_virtualized = r->scheme->is_virtualized,
		.guest_levels = in->guest_levels,
		.engine = in->engine,
		.scope = in->scope,
	};
	bill_make(&r->bill, &r->input);
}

static int total_order(const struct compare *c, unsigned a, unsigned b)
{
	unsigned __int128 left = c->rows[a].bill.total.millis, right = c->rows[b].bill.total.millis;

	return left < right ? -1 : left > right;
}

/* Keeps the cheaper of two rows; the earlier of equals. */
static void keep_cheaper(const struct compare *c, unsigned *kept, unsigned row)
{
	if (*kept == COMPARE_NONE || total_order(c, row, *kept) < 0)
		*kept = row;
}

static void judge(const struct compare *c, struct compare_group *g)
{
	g->best = g->worst = g->best_shadow = g->nested = COMPARE_NONE;
	for (unsigned i = g->first; i < g->first + g->count; i++) {
		const struct compare_row *r = &c->rows[i];

		if (!r->scheme->is_virtualized)
			continue;
		keep_cheaper(c, &g->best, i);
		if (g->worst == COMPARE_NONE || total_order(c, i, g->worst) > 0)
			g->worst = i;
		if (!strncmp(r->scheme->strategy, "shadow", 6))
			keep_cheaper(c, &g->best_shadow, i);
		if (compare_is_strategy(r, "nested"))
			keep_cheaper(c, &g->nested, i);
	}
}

/* All schemes of one profile; native goes first. */
static int add_group(struct compare *c, const struct profile *p, struct error *e)
{
	const struct compare_input *in = c->input;
	struct compare_group *g = &c->groups[c->group_count];
	bool has_native = false;

	*g = (struct compare_group){.profile = p, .first = c->row_count};
	for (int pass = 0; pass < 2; pass++)
		for (unsigned s = 0; s < in->scheme_count; s++) {
			bool is_baseline = !in->schemes[s].is_virtualized && !has_native;

			if (in->schemes[s].profile != p || in->schemes[s].is_virtualized != pass)
				continue;
			if (!pass && !is_baseline)
				continue;
			has_native = true;
			add_row(c, s);
		}
	if (!has_native || c->rows[g->first].scheme->is_virtualized)
		return error_set(e, -EINVAL, "no native baseline on %s", p->name);
	g->count = c->row_count - g->first;
	for (unsigned i = g->first; i < c->row_count; i++)
		add_difference(&c->rows[i], &c->rows[g->first]);
	judge(c, g);
	c->group_count++;
	return oracle_find(c, g, e);
}

static bool does_close(const struct compare *c)
{
	for (unsigned g = 0; g < c->group_count; g++) {
		const struct compare_group *group = &c->groups[g];
		const struct compare_row *native = compare_native(c, group);

		for (unsigned i = group->first; i < group->first + group->count; i++) {
			const struct compare_row *r = &c->rows[i];
			__int128 sum = (__int128)native->bill.total.millis;

			for (int cause = 0; cause < CAUSE_COUNT; cause++)
				sum += r->cause[cause].millis;
			if (sum != (__int128)r->bill.total.millis)
				return false;
		}
	}
	return true;
}

int compare_init(struct compare *c, const struct compare_input *input, struct error *e)
{
	*c = (struct compare){.input = input};
	c->rows = calloc(input->scheme_count + 1, sizeof(*c->rows));
	c->groups = calloc(input->scheme_count + 1, sizeof(*c->groups));
	if (!c->rows || !c->groups)
		return error_set(e, -ENOMEM, "no memory for a comparison");
	for (unsigned s = 0; s < input->scheme_count; s++) {
		bool is_new = true;

		for (unsigned g = 0; g < c->group_count; g++)
			is_new = is_new && c->groups[g].profile != input->schemes[s].profile;
		int rc = is_new ? add_group(c, input->schemes[s].profile, e) : 0;
		if (rc)
			return rc;
	}
	c->closes = does_close(c);
	assert(c->closes);
	return 0;
}

unsigned compare_varied_names(const struct compare *c, const struct compare_group *g,
			      const char **names)
{
	unsigned n = 0;

	for (unsigned i = g->first; i < g->first + g->count; i++)
		if (c->rows[i].scheme->is_virtualized)
			names[n++] = c->rows[i].scheme->strategy;
	return n;
}

static int vary_group(struct compare *c, struct compare_group *g, const struct vary *v,
		      struct error *e)
{
	struct report_input *inputs = calloc(g->count, sizeof(*inputs));
	unsigned n = 0;

	if (!inputs)
		return error_set(e, -ENOMEM, "no memory for a comparison");
	for (unsigned i = g->first; i < g->first + g->count; i++)
		if (c->rows[i].scheme->is_virtualized)
			inputs[n++] = c->rows[i].input;
	int rc = n ? vary_run(inputs, n, v, &g->vary[g->vary_count], e) : 0;
	if (n && !rc)
		g->vary_count++;
	free(inputs);
	return rc;
}

int compare_vary(struct compare *c, const struct vary *v, struct error *e)
{
	int rc = 0;

	for (unsigned g = 0; g < c->group_count && !rc; g++) {
		if (c->groups[g].vary_count == COMPARE_VARY_MAX)
			return error_set(e, -E2BIG, "at most %d numbers can be varied",
					 COMPARE_VARY_MAX);
		rc = vary_group(c, &c->groups[g], v, e);
	}
	return rc;
}

void compare_fini(struct compare *c)
{
	for (unsigned g = 0; g < c->group_count; g++) {
		for (unsigned i = 0; i < c->groups[g].vary_count; i++)
			vary_free(c->groups[g].vary[i]);
		oracle_fini(&c->groups[g].oracle);
	}
	free(c->rows);
	free(c->groups);
	*c = (struct compare){0};
}

/* ---- asking ---- */

const struct compare_row *compare_native(const struct compare *c, const struct compare_group *g)
{
	return &c->rows[g->first];
}

double compare_percent(struct difference a, struct amount native)
{
	return native.millis ? 100.0 * (double)a.millis / (double)native.millis : 0.0;
}

double compare_ratio(const struct compare_row *a, const struct compare_row *b)
{
	if (!a->bill.total.millis)
		return 0.0;
	return (double)b->bill.total.millis / (double)a->bill.total.millis;
}

double compare_misses_per_1000(const struct compare_row *r)
{
	uint64_t instructions = bill_count(&r->bill.line[EVENT_INSTRUCTION]);
	uint64_t misses = bill_count(&r->bill.line[EVENT_TLB_MISS]);

	return instructions ? 1000.0 * (double)misses / (double)instructions : 0.0;
}

const char *compare_dimension_name(enum compare_dimension d)
{
	static const char *const names[DIMENSION_COUNT] = {"guest", "host", "shadow"};

	return names[d];
}

double compare_references(const struct compare_row *r, enum compare_dimension d, unsigned level)
{
	static const enum event firsts[DIMENSION_COUNT] = {EVENT_WALK_G1, EVENT_WALK_H1,
							   EVENT_WALK_S1};
	uint64_t misses = bill_count(&r->bill.line[EVENT_TLB_MISS]);
	uint64_t references = bill_count(&r->bill.line[firsts[d] + level - 1]);

	return misses ? (double)references / (double)misses : 0.0;
}

double compare_all_references(const struct compare_row *r)
{
	double sum = 0.0;

	for (int d = 0; d < DIMENSION_COUNT; d++)
		for (unsigned level = 1; level <= COMPARE_LEVELS; level++)
			sum += compare_references(r, (enum compare_dimension)d, level);
	return sum;
}

double compare_estimates_of_overhead(const struct compare_row *r)
{
	return amount_percent(r->bill.basis[SIDE_OVERHEAD][MARK_ESTIMATE],
			      r->bill.side[SIDE_OVERHEAD]);
}

double compare_estimates_of_total(const struct compare_row *r)
{
	struct amount guessed = {r->bill.basis[SIDE_NATIVE][MARK_ESTIMATE].millis +
				 r->bill.basis[SIDE_OVERHEAD][MARK_ESTIMATE].millis};

	return amount_percent(guessed, r->bill.total);
}

bool compare_is_strategy(const struct compare_row *r, const char *name)
{
	size_t length = strlen(name);

	return !strncmp(r->scheme->strategy, name, length) &&
	       (!r->scheme->strategy[length] || r->scheme->strategy[length] == ':');
}

const char *difference_text(struct difference d, char separator, char text[AMOUNT_TEXT_MAX])
{
	bool is_negative = d.millis < 0;
	struct amount size = {(unsigned __int128)(is_negative ? -d.millis : d.millis)};

	amount_text(size, separator, text);
	if (is_negative) {
		memmove(text + 1, text, strlen(text) + 1);
		text[0] = '-';
	}
	return text;
}
