/*
 * When `adaptive` goes from nested to shadow paging and back: the policy, which knows counts and
 * prices and nothing of how either mode works.
 *
 * The paper (Bae et al., NWU-EECS-10-07, 6) decides by two rates: many TLB misses speak for shadow
 * paging, whose misses are cheap, many CR3 writes for nested paging, which does not exit for them.
 * Its own kernel compile fits neither rate; what makes it dear under shadow paging is the guest's
 * writing of its tables, so that rate is the third input. The three are put on one scale with the
 * processor's prices: what did the mode in use cost more than native in the last interval, and what
 * would the other have cost?
 *
 * Hysteresis: the other mode must be cheaper by a margin in some intervals in a row, and what it
 * saved in them must pay for a switch. A switch that did not pay makes the next wait longer.
 */
#pragma once

#include "base/types.h"

enum adaptive_mode { ADAPTIVE_NESTED, ADAPTIVE_SHADOW, ADAPTIVE_MODE_COUNT };

/* Cycles. */
struct adaptive_prices {
	uint64_t nested_miss;  /* a nested TLB miss beyond a one-dimensional one */
	uint64_t cr3_exit;     /* a CR3 write that exits */
	uint64_t invlpg_exit;  /* an INVLPG that exits */
	uint64_t hidden_fault; /* a page fault of the shadow, filled */
	uint64_t true_fault;   /* a page fault of the guest that exits */
	uint64_t table_write;  /* a write to a watched table */
	uint64_t switch_fixed; /* a switch itself, before anything is built again */
};

/* What one interval counted. What cannot be seen in a mode is 0. */
struct adaptive_sample {
	uint64_t instructions;
	uint64_t tlb_misses, cr3_writes, invlpgs;
	uint64_t table_writes;	/* nested: pages of tables found dirty; shadow: exits */
	uint64_t hidden_faults; /* shadow only */
	uint64_t true_faults;	/* shadow only */
};

struct adaptive_policy {
	struct adaptive_prices prices;
	enum adaptive_mode mode;
	unsigned patience;	  /* intervals in a row that the other must be cheaper */
	unsigned agreed;	  /* so many were */
	uint64_t saved;		  /* cycles it would have saved in them */
	uint64_t rebuild;	  /* cycles that the last switch to shadow took to pay off */
	unsigned since_switch;	  /* intervals */
	uint64_t faults_per_write_16; /* hidden faults a table write brings, in sixteenths */
};

extern const struct adaptive_prices adaptive_default_prices;

/* `prices` NULL: the defaults. Starts in nested mode. */
void adaptive_policy_init(struct adaptive_policy *p, const struct adaptive_prices *prices);

/* The estimated overhead, in cycles, of `mode` in the interval. */
uint64_t adaptive_estimate(const struct adaptive_policy *p, const struct adaptive_sample *s,
			   enum adaptive_mode mode);

/* The mode for the next interval. */
enum adaptive_mode adaptive_decide(struct adaptive_policy *p, const struct adaptive_sample *s);
