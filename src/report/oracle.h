/*
 * The oracle: what a run would have cost if somebody who knows the future had changed between the
 * strategies. It is what `adaptive` is measured against.
 *
 * Out of the samples of a run (series.h) dynamic programming finds the cheapest way through the
 * fixed strategies of a profile: in each interval one of them is paid for what it cost there, and
 * every change costs the profile's paging.switch. adaptive and agile are not among its choices:
 * they are what it is the bound for, and what no processor has.
 *
 * It assumes that the tables of the strategy it changes to are as they would be had that strategy
 * run all along, and that they were kept up for nothing; and it changes at samples only. The first
 * makes it cheaper than any VMM, the second dearer than one that changes in between, and a
 * VMM that builds a shadow at once may be cheaper than any fixed strategy that faults for it.
 */
#pragma once

#include "base/error.h"
#include "report/bill.h"

struct compare;
struct compare_group;

struct oracle {
	bool is_known;	     /* the run was sampled, and there are strategies to choose from */
	struct amount total; /* cycles, native's part included */
	__int128 beyond_millis;
	unsigned change_count;
	uint64_t interval;	/* instructions from sample to sample */
	uint64_t *instructions; /* under each row of the group, native's and others' being 0 */
};

/* Fills g->oracle; it stays unknown without samples. -ENOMEM. */
int oracle_find(const struct compare *c, struct compare_group *g, struct error *e);
void oracle_fini(struct oracle *o);
