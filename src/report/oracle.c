/* The cheapest way through a run's samples, forward over the costs and back over the choices. */
#include "report/oracle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "report/compare.h"
#include "report/series.h"

struct search {
	const struct compare *compare;
	const struct compare_group *group;
	const struct series *series;
	unsigned *rows; /* that may be chosen */
	unsigned row_count;
	unsigned __int128 *cost; /* of the cheapest way that ends in each */
	unsigned *from;		 /* sample x row: what was chosen in the sample before */
	unsigned __int128 change;
};

static bool is_choice(const struct compare_row *r)
{
	return r->scheme->is_virtualized && !compare_is_strategy(r, "adaptive") &&
	       !compare_is_strategy(r, "agile");
}

/* What `row` cost between sample n - 1 and sample n. */
static unsigned __int128 step_cost(const struct search *s, unsigned row, size_t n)
{
	unsigned scheme = (unsigned)(s->compare->rows[row].scheme - s->compare->input->schemes);
	unsigned __int128 now = series_at(s->series, n, scheme)->total.millis;
	return n ? now - series_at(s->series, n - 1, scheme)->total.millis : now;
}

static uint64_t step_instructions(const struct search *s, size_t n)
{
	uint64_t now = series_at(s->series, n, 0)->instructions;
	return n ? now - series_at(s->series, n - 1, 0)->instructions : now;
}

static unsigned cheapest(const struct search *s)
{
	unsigned best = 0;
	for (unsigned i = 1; i < s->row_count; i++)
		if (s->cost[i] < s->cost[best])
			best = i;
	return best;
}

static void go_forward(struct search *s)
{
	for (size_t n = 0; n < s->series->count; n++) {
		unsigned best = cheapest(s);
		unsigned __int128 changed = s->cost[best] + (n ? s->change : 0);
		for (unsigned i = 0; i < s->row_count; i++) {
			bool stays = s->cost[i] <= changed;
			s->from[n * s->row_count + i] = stays ? i : best;
			s->cost[i] = (stays ? s->cost[i] : changed) + step_cost(s, s->rows[i], n);
		}
	}
}

static void go_back(const struct search *s, struct oracle *o)
{
	unsigned i = cheapest(s);
	o->total.millis = s->cost[i];
	for (size_t n = s->series->count; n-- > 0;) {
		o->instructions[s->rows[i] - s->group->first] += step_instructions(s, n);
		unsigned before = s->from[n * s->row_count + i];
		o->change_count += n && before != i;
		i = before;
	}
}

static int search_init(struct search *s, struct oracle *o)
{
	const struct compare_group *g = s->group;
	s->rows = calloc(g->count, sizeof(*s->rows));
	for (unsigned i = g->first; s->rows && i < g->first + g->count; i++)
		if (is_choice(&s->compare->rows[i]))
			s->rows[s->row_count++] = i;
	s->cost = calloc(g->count, sizeof(*s->cost));
	s->from = calloc(s->series->count * s->row_count + 1, sizeof(*s->from));
	o->instructions = calloc(g->count, sizeof(*o->instructions));
	s->change = price_millis(profile_price(g->profile, EVENT_PAGING_SWITCH));
	return s->rows && s->cost && s->from && o->instructions ? 0 : -ENOMEM;
}

int oracle_find(const struct compare *c, struct compare_group *g, struct error *e)
{
	struct search s = {.compare = c, .group = g, .series = c->input->series};
	if (!s.series || s.series->count < 2)
		return 0;
	int r = search_init(&s, &g->oracle);
	if (r)
		error_set(e, r, "no memory for a comparison");
	if (!r && s.row_count) {
		g->oracle.is_known = true;
		g->oracle.interval = s.series->interval;
		go_forward(&s);
		go_back(&s, &g->oracle);
		g->oracle.beyond_millis = (__int128)g->oracle.total.millis -
					  (__int128)compare_native(c, g)->bill.total.millis;
	}
	free(s.rows);
	free(s.cost);
	free(s.from);
	return r;
}

void oracle_fini(struct oracle *o)
{
	free(o->instructions);
	*o = (struct oracle){0};
}
