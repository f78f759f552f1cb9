/*
 * Folded stacks: which code of the guest pays for what, as flame graph programs read it.
 *
 * A collector is told of each exit and each TLB miss of the primary, with the ledger as it is then
 * and the address of the instruction. What was charged between two of these (references of the
 * walk, the strategy's work) belongs to the place of the first. It keeps counts, by event, ring and
 * address; prices come in when it is written. Invariant: per event the counts add up to the
 * ledger's.
 *
 *     exit;exit.cr3_write;switch_mm_irqs_off 12250
 *
 * Frames are the event's group, the event, and the guest's function; weights are cycles. Callers:
 * cli/session.c.
 */
#pragma once

#include <stdio.h>

#include "report/report.h"

struct folded;
struct symbols;

int folded_create(struct folded **out, unsigned vcpu_count); /* -ENOMEM */
void folded_destroy(struct folded *f);			     /* folded_destroy(NULL) is legal */

/* `event` has just been counted in `l`, the ledger of `vcpu`, at `address`. */
void folded_charge(struct folded *f, unsigned vcpu, const struct ledger *l, enum event event,
		   uint64_t address);
/* Forgets what it has; what is in the ledgers now will not be counted. */
void folded_restart(struct folded *f);
/* The vcpu leaves what is to be counted: its charges from here to the next place are nobody's. */
void folded_leave(struct folded *f, unsigned vcpu);
/* The end: what was charged after the last place belongs there. */
void folded_finish(struct folded *f, unsigned vcpu, const struct ledger *l);

/* `in` says which prices are paid (native takes no exits). Instructions and the guest's own events
 * are left out. Addresses of the lower half are "user"; `symbols` (may be NULL) names the others.
 * 0, -ENOMEM, or what writing failed with. */
int folded_write(FILE *out, const struct folded *f, const struct report_input *in,
		 const struct symbols *symbols, struct error *e);
/* How often `event` was counted. */
uint64_t folded_count(const struct folded *f, enum event event);
