/*
 * The ledger: what happened, counted, per vcpu, split by who was running.
 *
 * Code charges events (events.def: one meaning a line); it never charges cycles. Prices live in
 * profiles (hw/), and the product is made in report/. Charging is one increment, always compiled
 * in, so there is one build and it always counts. A vcpu's ledger is written by the thread that
 * runs that vcpu and by nobody else.
 */
#pragma once

#include "base/types.h"

enum event {
#define EVENT(symbol, name, group, text) EVENT_##symbol,
#include "ledger/events.def"
#undef EVENT
	EVENT_COUNT
};

enum event_group {
	GROUP_WORK,   /* instructions, accesses: what the guest did */
	GROUP_TLB,    /* look-ups that missed */
	GROUP_WALK,   /* page-table references, by dimension and level */
	GROUP_EXIT,   /* exits a hardware-assisted VMM would take, by cause */
	GROUP_PAGING, /* what the strategy did inside its exits: fills, violations, flushes */
	GROUP_GUEST,  /* guest events that cost bare metal too: faults, interrupts */
	GROUP_COUNT
};

/* Who was running when it happened. */
enum ring { RING_KERNEL, RING_USER, RING_COUNT };

struct exit_times;

struct ledger {
	uint64_t count[EVENT_COUNT][RING_COUNT];
	enum ring ring; /* kept by the engine at every change of privilege */
	/* Told of each exit and each TLB miss as it is charged, for the monitor's list of the last
	 * exits and for who wants to know where the guest was; mostly NULL. */
	void (*on_charge)(void *opaque, enum event e);
	void *on_charge_opaque;	  /* borrowed */
	struct exit_times *times; /* how long exits took (exit_times.h); borrowed, may be NULL */
};

/* The exits are one run of the list. */
static inline bool event_is_exit(enum event e)
{
	return e >= EVENT_EXIT_CR_READ && e <= EVENT_EXIT_TRIPLE_FAULT;
}

/* Is it the paging strategy that makes it happen, so that another strategy would have other counts
 * on the same run? */
bool event_is_translation(enum event e);

static inline void ledger_charge(struct ledger *l, enum event e)
{
	l->count[e][l->ring]++;
	if ((event_is_exit(e) || e == EVENT_TLB_MISS) && __builtin_expect(l->on_charge != NULL, 0))
		l->on_charge(l->on_charge_opaque, e);
}

static inline void ledger_charge_many(struct ledger *l, enum event e, uint64_t n)
{
	l->count[e][l->ring] += n;
}

static inline uint64_t ledger_total(const struct ledger *l, enum event e)
{
	return l->count[e][RING_KERNEL] + l->count[e][RING_USER];
}

/* The name in reports and JSON ("exit.cr3_write"), its group, and one sentence saying what is
 * counted. */
const char *event_name(enum event e);
enum event_group event_group(enum event e);
const char *event_text(enum event e);
/* -1 if there is none of that name. */
int event_from_name(const char *name);

/* "work", "tlb", "walk", "exit", "paging", "guest". */
const char *event_group_name(enum event_group g);
/* The events of a group, in events.def's order: for (int e = event_first(g); e >= 0; e =
 * event_next(e)). -1 ends. */
int event_first(enum event_group g);
int event_next(int e);
/* The sum of both rings over all events of a group. */
uint64_t ledger_group_total(const struct ledger *l, enum event_group g);

/* Adds every count of `from` to `to` (for totals over vcpus). */
void ledger_add(struct ledger *to, const struct ledger *from);
