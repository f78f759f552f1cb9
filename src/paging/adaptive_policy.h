/*
 * When `adaptive` goes from nested to shadow paging and back: the policy, which knows counts and
 * prices and nothing of how either mode works. There are two rules.
 *
 * The paper's (Bae et al., NWU-EECS-10-07, 6) goes by two rates: many TLB misses speak for shadow
 * paging, whose misses are cheap, many CR3 writes for nested paging, which does not exit for them;
 * with few of both nested paging will do. It says not how many are many: here what costs a cycle in
 * fifty. And a rate counts when it has been so for some intervals.
 *
 * Ours goes by cost. The paper's own kernel compile fits neither rate; what makes it dear under
 * shadow paging is the guest's writing of its tables, so that rate is the third input, and misses
 * on pages that were not used before are told from misses on pages that were: shadow paging makes
 * only the latter cheap. All are put on one scale with the processor's prices: what did the mode in
 * use cost more than native in the last interval, and what would the other have cost?
 *
 * Hysteresis is the rule of renting and buying: change when what the other mode would have saved,
 * in intervals in a row that agree, has paid for the change. Then phases as they come cost less
 * than twice the best fixed mode, and a guest that turns against each choice about three times. The
 * price of going to shadow paging is that of building the shadow of the pages in use; while that
 * lasts its faults are not held against it. Going back gives that shadow up, so it costs as much: a
 * burst of faults in a long phase is sat out. Going back need not wait for the interval's end.
 *
 * How often the guest writes its tables costs exits to find out under nested paging. So it is asked
 * only while everything else speaks for shadow paging, and a change waits for the answer. An answer
 * that speaks against it is good for a while, longer each time, unless much more is at stake than
 * it was then. What costs next to nothing is left alone: neither asked about nor changed.
 */
#pragma once

#include "base/types.h"

enum adaptive_mode { ADAPTIVE_NESTED, ADAPTIVE_SHADOW, ADAPTIVE_MODE_COUNT };

enum adaptive_rule { ADAPTIVE_BY_COST, ADAPTIVE_BY_RATES };

/* Cycles. */
struct adaptive_prices {
	uint64_t nested_miss; /* a nested TLB miss beyond a one-dimensional one, before any was seen
			       */
	uint64_t cr3_exit;    /* a CR3 write that exits */
	uint64_t invlpg_exit; /* an INVLPG that exits */
	uint64_t hidden_fault; /* a page fault of the shadow, filled */
	uint64_t true_fault;   /* a page fault of the guest that exits */
	uint64_t table_write;  /* a write to a watched table */
	uint64_t prefetch;     /* an entry that a hidden fault fills beside its own */
	uint64_t reference[4]; /* to a table, by what answers: L1, L2, L3, memory */
	uint64_t change;       /* a change of mode itself, before anything is built again */
};

/* What one interval counted. */
struct adaptive_sample {
	uint64_t instructions;
	uint64_t tlb_misses, cr3_writes, invlpgs, true_faults;
	uint64_t host_cycles;	/* nested: of walks, in the host's tables (processors count them) */
	uint64_t table_writes;	/* shadow: exits; nested: estimated from a sample of tables */
	uint64_t hidden_faults; /* shadow: exits; nested: misses on pages not seen before, estimated
				 */
	uint64_t prefetches;	/* shadow: entries filled ahead */
	bool has_table_writes;	/* nested: was asked for them in all of the interval */
	/* Nested: what building the shadow of all in use would take, estimated. */
	uint64_t build_faults, build_prefetches;
};

struct adaptive_policy {
	struct adaptive_prices prices;
	enum adaptive_rule rule;
	enum adaptive_mode mode;
	uint64_t saved;		 /* cycles the other mode would have saved, in intervals in a row */
	uint64_t miss_16;	 /* what a nested miss has cost of late, in sixteenths of a cycle */
	uint64_t built;		 /* shadow: cycles that building it was to take */
	uint64_t build_left;	 /* of these, not yet seen */
	bool wants_table_writes; /* nested: they would decide */
	unsigned agreed_count;	 /* by rates: intervals in a row that speak for the other mode */
	/* Nested: intervals until they are asked for again, after the last answer and now; and what
	 * the answer made nothing of. */
	unsigned pause, wait;
	uint64_t refused;
};

extern const struct adaptive_prices adaptive_default_prices;

/* `prices` NULL: the defaults. Starts in nested mode. */
void adaptive_policy_init(struct adaptive_policy *p, const struct adaptive_prices *prices,
			  enum adaptive_rule rule);

/* The overhead, in cycles, of `mode` in the interval: counted for the mode in use, estimated for
 * the other. */
uint64_t adaptive_overhead(const struct adaptive_policy *p, const struct adaptive_sample *s,
			   enum adaptive_mode mode);

/* The mode for the next interval. */
enum adaptive_mode adaptive_decide(struct adaptive_policy *p, const struct adaptive_sample *s);

/* Before the interval is over: would it go back to nested paging now? Shadow paging costs exits, so
 * a VMM can see it lose while it loses, and a guest that takes down what it built a moment ago
 * loses more in one interval than the change does. */
bool adaptive_is_overdue(const struct adaptive_policy *p, const struct adaptive_sample *s);
