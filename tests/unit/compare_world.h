/*
 * A made run under five strategies on two made processors: counts that somebody chose, prices that
 * are round, so that the figures of reports can be followed by hand and do not move with the
 * shipped profiles. Each step of the run has a phase of its own: few CR3 writes and many TLB
 * misses, then the other way round.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/compare.h"
#include "report/series.h"

#define WORLD_STRATEGIES 5
#define WORLD_PROFILES 2
#define WORLD_SCHEMES (WORLD_STRATEGIES * WORLD_PROFILES)
#define WORLD_STEPS 40

static const char *const world_strategies[WORLD_STRATEGIES] = {
	"native", "nested:host-page=2M", "shadow", "shadow-cache:sync=oos", "adaptive"};

struct compare_world {
	struct profile *profiles[WORLD_PROFILES];
	struct ledger ledgers[WORLD_SCHEMES];
	const struct ledger *lists[WORLD_SCHEMES][1];
	struct compare_scheme schemes[WORLD_SCHEMES];
	struct series series;
	struct compare_input input;
};

/* Everything has a price; what is not named costs nothing. Hardware is an estimate, software read
 * somewhere. */
static void world_price(struct profile *p, unsigned times)
{
	static const struct {
		enum event event;
		unsigned hardware, software;
	} prices[] = {{EVENT_INSTRUCTION, 1, 0},
		      {EVENT_TLB2_HIT, 7, 0},
		      {EVENT_TLB_MISS, 5, 0},
		      {EVENT_REF_GUEST_L3, 15, 0},
		      {EVENT_REF_GUEST_L1, 4, 0},
		      {EVENT_REF_HOST_L3, 15, 0},
		      {EVENT_REF_HOST_L1, 4, 0},
		      {EVENT_REF_SHADOW_L3, 15, 0},
		      {EVENT_REF_SHADOW_L1, 4, 0},
		      {EVENT_EXIT_PF_HIDDEN, 1000, 1500},
		      {EVENT_EXIT_PF_TRUE, 1000, 2000},
		      {EVENT_EXIT_CR3_WRITE, 1000, 500},
		      {EVENT_EXIT_TABLE_WRITE, 1000, 2500},
		      {EVENT_EXIT_NESTED_VIOLATION, 1000, 3000},
		      {EVENT_EXIT_PORT_WRITE, 1000, 4000},
		      {EVENT_SHADOW_FILL, 0, 150},
		      {EVENT_NESTED_FILL, 0, 200},
		      {EVENT_PAGING_SWITCH, 0, 50000}};

	for (int e = 0; e < EVENT_COUNT; e++)
		p->price[e] = (struct price){.is_priced = true,
					     .has_part = {true, true},
					     .part = {{.mark = MARK_ESTIMATE, .source = "made"},
						      {.mark = MARK_READ, .source = "made"}}};
	for (size_t i = 0; i < ARRAY_COUNT(prices); i++) {
		struct price *price = &p->price[prices[i].event];

		price->part[PRICE_HARDWARE].millis = prices[i].hardware * MILLIS_PER_CYCLE;
		price->part[PRICE_SOFTWARE].millis = prices[i].software * MILLIS_PER_CYCLE;
		if (event_is_exit(prices[i].event))
			price->part[PRICE_HARDWARE].millis *= times;
	}
}

static inline int world_profile(struct compare_world *w, unsigned i)
{
	static const char *const names[WORLD_PROFILES] = {"made-cheap", "made-dear"};
	struct error e = {0};

	if (profile_load("k10-2350", &w->profiles[i], &e)) {
		fprintf(stderr, "%s\n", e.text);
		return -1;
	}
	w->profiles[i]->name = names[i];
	w->profiles[i]->description = i ? "dear exits </script> & \"quotes\"" : "cheap exits";
	w->profiles[i]->frequency_hz = 2000000000;
	free(w->profiles[i]->origin);
	w->profiles[i]->origin = strdup("made");
	world_price(w->profiles[i], i ? 4 : 1);
	return 0;
}

static inline void world_count(struct ledger *l, enum event e, uint64_t kernel, uint64_t user)
{
	l->count[e][RING_KERNEL] += kernel;
	l->count[e][RING_USER] += user;
}

/* References to level 1 are answered by the third data cache, to level 2 by the first. */
static void world_walk(struct ledger *l, enum event level1, enum event by_l1, uint64_t leaves,
		       uint64_t uppers)
{
	world_count(l, level1, 0, leaves);
	world_count(l, level1 + 1, 0, uppers);
	world_count(l, by_l1 + 2, 0, leaves);
	world_count(l, by_l1, 0, uppers);
}

static void world_nested(struct ledger *l, uint64_t misses)
{
	world_walk(l, EVENT_WALK_H1, EVENT_REF_HOST_L1, 3 * misses, 2 * misses);
	world_walk(l, EVENT_WALK_G1, EVENT_REF_GUEST_L1, misses, misses);
}

static void world_shadow(struct ledger *l, uint64_t misses, uint64_t fills)
{
	world_walk(l, EVENT_WALK_S1, EVENT_REF_SHADOW_L1, misses, misses);
	world_count(l, EVENT_EXIT_PF_HIDDEN, fills / 2, fills / 2);
	world_count(l, EVENT_SHADOW_FILL, fills, 0);
}

/* One step of a million instructions: the first half of the run is a chase, the second forks. */
static void world_step(struct ledger *l, unsigned strategy, unsigned step)
{
	bool is_chase = step < WORLD_STEPS / 2;
	uint64_t misses = is_chase ? 40000 : 900 + step, cr3_writes = is_chase ? 1 : 400;

	world_count(l, EVENT_INSTRUCTION, 200000, 800000);
	world_count(l, EVENT_TLB2_HIT, 0, 1000);
	world_count(l, EVENT_TLB_MISS, 0, misses);
	world_count(l, EVENT_GUEST_CR3_WRITE, cr3_writes, 0);
	world_count(l, EVENT_EXIT_PORT_WRITE, 3, 0);
	switch (strategy) {
	case 0: world_walk(l, EVENT_WALK_G1, EVENT_REF_GUEST_L1, misses, misses); break;
	case 1:
		world_nested(l, misses);
		world_count(l, EVENT_EXIT_NESTED_VIOLATION, 2, 1);
		world_count(l, EVENT_NESTED_FILL, 3, 0);
		break;
	case 2:
		world_shadow(l, misses, 10 * cr3_writes);
		world_count(l, EVENT_EXIT_CR3_WRITE, cr3_writes, 0);
		break;
	case 3:
		world_shadow(l, misses, 10);
		world_count(l, EVENT_EXIT_CR3_WRITE, cr3_writes, 0);
		world_count(l, EVENT_EXIT_TABLE_WRITE, is_chase ? 0 : 150, 0);
		break;
	default:
		if (is_chase)
			world_shadow(l, misses, 20);
		else
			world_nested(l, misses);
		world_count(l, EVENT_PAGING_SWITCH, step == WORLD_STEPS / 2, 0);
		break;
	}
}

/* -1 with a message on standard error. */
static inline int compare_world_init(struct compare_world *w)
{
	memset(w, 0, sizeof(*w));
	for (unsigned i = 0; i < WORLD_PROFILES; i++)
		if (world_profile(w, i))
			return -1;
	for (unsigned s = 0; s < WORLD_SCHEMES; s++) {
		w->lists[s][0] = &w->ledgers[s];
		w->schemes[s] = (struct compare_scheme){
			.strategy = world_strategies[s % WORLD_STRATEGIES],
			.profile = w->profiles[s / WORLD_STRATEGIES],
			.is_virtualized = s % WORLD_STRATEGIES != 0,
			.ledgers = w->lists[s],
		};
	}
	series_init(&w->series, WORLD_SCHEMES, 1000000);
	for (unsigned step = 0; step < WORLD_STEPS; step++) {
		for (unsigned s = 0; s < WORLD_SCHEMES; s++)
			world_step(&w->ledgers[s], s % WORLD_STRATEGIES, step);
		if (series_add(&w->series, w->schemes, 1))
			return -1;
	}
	w->input = (struct compare_input){.schemes = w->schemes,
					  .scheme_count = WORLD_SCHEMES,
					  .primary = 2,
					  .vcpu_count = 1,
					  .guest_levels = 2,
					  .engine = "interp",
					  .ending = "the region of interest ended",
					  .host_ns = 2500000000,
					  .peak_rss_bytes = 96ull << 20,
					  .series = &w->series};
	return 0;
}

static inline void compare_world_fini(struct compare_world *w)
{
	series_fini(&w->series);
	for (unsigned i = 0; i < WORLD_PROFILES; i++)
		profile_destroy(w->profiles[i]);
}
