#include "paging/adaptive_policy.h"

#define TINY 1000u     /* in so many instructions a cycle of overhead is not worth a thought */
#define PAUSE_MAX 16u  /* intervals */
#define MANY 50u       /* by rates: in so many instructions a cycle */
#define AGREED_MIN 3u  /* by rates: intervals */
#define STAKES_RISE 2u /* times what was refused: worth another question */

/* Of a processor of about 2015: an exit with its handler takes some 2000 cycles. */
const struct adaptive_prices adaptive_default_prices = {
	.nested_miss = 60,
	.cr3_exit = 2300,
	.invlpg_exit = 2100,
	.hidden_fault = 2600,
	.true_fault = 2400,
	.table_write = 2600,
	.prefetch = 120,
	.reference = {4, 14, 60, 280},
	.change = 10000,
};

void adaptive_policy_init(struct adaptive_policy *p, const struct adaptive_prices *prices,
			  enum adaptive_rule rule)
{
	*p = (struct adaptive_policy){
		.rule = rule,
		.prices = prices ? *prices : adaptive_default_prices,
		.mode = ADAPTIVE_NESTED,
	};
	p->miss_16 = p->prices.nested_miss * 16;
}

uint64_t adaptive_overhead(const struct adaptive_policy *p, const struct adaptive_sample *s,
			   enum adaptive_mode mode)
{
	const struct adaptive_prices *price = &p->prices;
	if (mode == ADAPTIVE_NESTED)
		return p->mode == ADAPTIVE_NESTED && s->host_cycles
			       ? s->host_cycles
			       : s->tlb_misses * p->miss_16 / 16;
	return s->cr3_writes * price->cr3_exit + s->invlpgs * price->invlpg_exit +
	       s->table_writes * price->table_write + s->hidden_faults * price->hidden_fault +
	       s->prefetches * price->prefetch + s->true_faults * price->true_fault;
}

/* The nested misses of the last intervals, the newest for a quarter. */
static void learn(struct adaptive_policy *p, const struct adaptive_sample *s)
{
	if (p->mode == ADAPTIVE_NESTED && s->host_cycles && s->tlb_misses > 16)
		p->miss_16 = (p->miss_16 * 3 + s->host_cycles * 16 / s->tlb_misses) / 4;
}

/* What of the shadow's overhead is its first building, which was paid for when it was chosen. */
static uint64_t building(const struct adaptive_policy *p, const struct adaptive_sample *s)
{
	uint64_t cycles =
		s->hidden_faults * p->prices.hidden_fault + s->prefetches * p->prices.prefetch;
	if (p->mode != ADAPTIVE_SHADOW)
		return 0;
	return cycles < p->build_left ? cycles : p->build_left;
}

/* Cycles of going to shadow paging. */
static uint64_t build_price(const struct adaptive_policy *p, const struct adaptive_sample *s)
{
	return s->build_faults * p->prices.hidden_fault + s->build_prefetches * p->prices.prefetch;
}

/* Should the next interval count table writes? `gain` is what the shadow would save if there were
 * none. */
static bool wants_table_writes(struct adaptive_policy *p, const struct adaptive_sample *s,
			       uint64_t gain)
{
	uint64_t writes = s->table_writes * p->prices.table_write;
	if (s->has_table_writes && gain > writes) {
		p->pause = p->wait = 0;
	} else if (s->has_table_writes) {
		p->pause = p->pause ? p->pause * 2 : 1;
		if (p->pause > PAUSE_MAX)
			p->pause = PAUSE_MAX;
		p->wait = p->pause;
		p->refused = gain ? gain : p->refused;
	}
	if (!gain)
		return false;
	if (!p->wait || gain > p->refused * STAKES_RISE)
		return true;
	p->wait--;
	return false;
}

static enum adaptive_mode decide_by_rates(struct adaptive_policy *p,
					  const struct adaptive_sample *s)
{
	uint64_t many = s->instructions / MANY;
	bool has_many_misses = s->tlb_misses * p->miss_16 / 16 > many;
	bool has_many_switches = s->cr3_writes * p->prices.cr3_exit > many;
	enum adaptive_mode asked = has_many_misses && !has_many_switches ? ADAPTIVE_SHADOW
									 : ADAPTIVE_NESTED;
	learn(p, s);
	p->agreed_count = asked == p->mode ? 0 : p->agreed_count + 1;
	if (p->agreed_count < AGREED_MIN)
		return p->mode;
	p->agreed_count = 0;
	p->mode = asked;
	return p->mode;
}

static enum adaptive_mode decide_by_cost(struct adaptive_policy *p, const struct adaptive_sample *s)
{
	enum adaptive_mode other = p->mode == ADAPTIVE_NESTED ? ADAPTIVE_SHADOW : ADAPTIVE_NESTED;
	uint64_t paid_for = building(p, s);
	uint64_t mine = adaptive_overhead(p, s, p->mode) - paid_for;
	uint64_t its = adaptive_overhead(p, s, other);
	uint64_t build = other == ADAPTIVE_SHADOW ? build_price(p, s) : p->built;
	bool is_known = p->mode == ADAPTIVE_SHADOW || s->has_table_writes;
	bool is_tiny = mine < s->instructions / TINY;
	learn(p, s);
	p->build_left -= paid_for;
	if (p->mode == ADAPTIVE_NESTED) {
		uint64_t least = its - s->table_writes * p->prices.table_write;
		p->wants_table_writes =
			wants_table_writes(p, s, !is_tiny && mine > least ? mine - least : 0);
	}
	if (mine <= its) {
		uint64_t lost = its - mine;
		p->saved -= lost < p->saved ? lost : p->saved;
		return p->mode;
	}
	if (!is_known || is_tiny)
		return p->mode;
	p->saved += mine - its;
	if (p->saved < p->prices.change + build)
		return p->mode;
	p->mode = other;
	p->saved = 0;
	p->build_left = other == ADAPTIVE_SHADOW ? build : 0;
	p->built = p->build_left;
	p->wants_table_writes = false;
	return p->mode;
}

enum adaptive_mode adaptive_decide(struct adaptive_policy *p, const struct adaptive_sample *s)
{
	return p->rule == ADAPTIVE_BY_RATES ? decide_by_rates(p, s) : decide_by_cost(p, s);
}

bool adaptive_is_overdue(const struct adaptive_policy *p, const struct adaptive_sample *s)
{
	if (p->mode != ADAPTIVE_SHADOW || p->rule != ADAPTIVE_BY_COST)
		return false;
	uint64_t mine = adaptive_overhead(p, s, ADAPTIVE_SHADOW) - building(p, s);
	uint64_t its = adaptive_overhead(p, s, ADAPTIVE_NESTED);
	return mine > its && p->saved + mine - its >= p->prices.change + p->built;
}
