#include "paging/adaptive_policy.h"

/* Of a processor of about 2015: an exit with its handler takes some 2000 cycles. */
const struct adaptive_prices adaptive_default_prices = {
	.nested_miss = 60,
	.cr3_exit = 2300,
	.invlpg_exit = 2100,
	.hidden_fault = 2600,
	.true_fault = 2400,
	.table_write = 2600,
	.switch_fixed = 20000,
};

#define MARGIN_PERCENT 15
#define PATIENCE_FIRST 2
#define PATIENCE_MAX 32
#define PATIENCE_FORGET 64 /* intervals after which a mode that stayed has its patience back */

void adaptive_policy_init(struct adaptive_policy *p, const struct adaptive_prices *prices)
{
	*p = (struct adaptive_policy){
		.prices = prices ? *prices : adaptive_default_prices,
		.mode = ADAPTIVE_NESTED,
		.patience = PATIENCE_FIRST,
		.faults_per_write_16 = 16,
	};
}

uint64_t adaptive_estimate(const struct adaptive_policy *p, const struct adaptive_sample *s,
			   enum adaptive_mode mode)
{
	const struct adaptive_prices *price = &p->prices;
	if (mode == ADAPTIVE_NESTED)
		return s->tlb_misses * price->nested_miss;
	uint64_t hidden = s->hidden_faults;
	/* From nested paging the faults that shadow paging would take are not seen: as many for each
	 * table write as were when it was last in use. */
	if (p->mode == ADAPTIVE_NESTED)
		hidden = s->table_writes * p->faults_per_write_16 / 16;
	return s->cr3_writes * price->cr3_exit + s->invlpgs * price->invlpg_exit +
	       s->table_writes * price->table_write + hidden * price->hidden_fault +
	       s->true_faults * price->true_fault;
}

static void learn(struct adaptive_policy *p, const struct adaptive_sample *s)
{
	if (p->mode != ADAPTIVE_SHADOW || s->table_writes < 16 || p->since_switch < 3)
		return;
	uint64_t now = s->hidden_faults * 16 / s->table_writes;
	p->faults_per_write_16 = (p->faults_per_write_16 * 3 + (now < 64 ? now : 64)) / 4;
}

static void go(struct adaptive_policy *p, enum adaptive_mode other)
{
	/* Back so soon: the last switch was a mistake, be slower next time. */
	if (p->since_switch < 2 * p->patience + 4 && p->patience < PATIENCE_MAX)
		p->patience *= 2;
	p->mode = other;
	p->agreed = 0;
	p->saved = 0;
	p->since_switch = 0;
}

enum adaptive_mode adaptive_decide(struct adaptive_policy *p, const struct adaptive_sample *s)
{
	enum adaptive_mode other = p->mode == ADAPTIVE_NESTED ? ADAPTIVE_SHADOW : ADAPTIVE_NESTED;
	uint64_t mine = adaptive_estimate(p, s, p->mode), its = adaptive_estimate(p, s, other);
	bool is_warm = p->mode == ADAPTIVE_NESTED || p->since_switch >= 2;
	learn(p, s);
	p->since_switch++;
	if (p->since_switch == PATIENCE_FORGET && p->patience > PATIENCE_FIRST) {
		p->patience /= 2;
		p->since_switch = 0;
	}
	if (!is_warm || its * 100 >= mine * (100 - MARGIN_PERCENT)) {
		p->agreed = 0;
		p->saved = 0;
		return p->mode;
	}
	p->agreed++;
	p->saved += mine - its;
	if (p->agreed >= p->patience && p->saved >= p->prices.switch_fixed)
		go(p, other);
	return p->mode;
}
