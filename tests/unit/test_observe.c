/*
 * Observers: what one counts is what it would have counted alone, whoever is the primary, and the
 * guest sees the primary only.
 */
#include "paging_world.h"

#include "paging/adaptive_policy.h"
#include "x86/cache_geometry.h"

#define ACCESSES 4000u
#define SCHEMES_MAX 16u

/* What a run showed the guest, as a running hash. */
struct script {
	struct world w;
	uint64_t seen;
};

static void see(struct script *s, uint64_t value)
{
	s->seen = (s->seen ^ value) * 0x100000001b3ull;
	s->seen ^= s->seen >> 29;
}

static void access_as_an_engine(struct script *s, struct mmu *mmu, uint64_t at,
				enum access_kind kind, enum mmu_mode mode)
{
	struct mmu_fast_entry *e = mmu_fast_lookup(mmu, at, at, kind, mode);
	struct mmu_page page;
	struct page_fault fault;
	if (e) {
		mmu_fast_hit(mmu, e, at, 1);
		see(s, e->gfn << PAGE_SHIFT | (at & PAGE_OFFSET_MASK));
		return;
	}
	bool ok = mmu_translate(mmu, gva(at), kind, mode, &page, &fault);
	see(s, ok ? page.gpa.v : ~(uint64_t)fault.error_code);
	if (ok && kind == ACCESS_WRITE && page.flags)
		memory_notify_write(s->w.memory, page.gpa, 1);
}

static void change_an_entry(struct world *w)
{
	unsigned page = world_below(w, WORLD_TABLE_PAGES);
	unsigned index = world_indexes[world_below(w, ARRAY_COUNT(world_indexes))];
	uint64_t at = WORLD_TABLES + page * 4096ull, e = world_random_entry(w, 1 + page % 5);
	bool is_wide = w->vcpu.state.cr4 & CR4_PAE;
	memory_write(w->memory, gpa(at + index * 8ull), &e, is_wide ? 8 : 4);
}

/* A guest that keeps the rules: it flushes after it changed a table. Locality as in life: mostly
 * the page used last, or one of a few. */
static void run(struct script *s, struct mmu *mmu)
{
	struct world *w = &s->w;
	uint64_t recent[8] = {0};
	for (unsigned i = 0; i < ACCESSES; i++) {
		unsigned dice = world_below(w, 1000);
		if (dice < 3) {
			world_random_controls(w);
			w->vcpu.state.cr4 &= ~CR4_PGE;
			world_random_tables(w);
			mmu_reset(mmu);
		} else if (dice < 13) {
			change_an_entry(w);
			mmu_cr3_written(mmu, false);
		} else if (dice < 20) {
			mmu_note_engine_exit(mmu);
		} else if (dice < 30) {
			mmu_invlpg(mmu, gva(world_random_gva(w)));
		}
		uint64_t *slot = &recent[world_below(w, ARRAY_COUNT(recent))];
		if (!*slot || world_chance(w, 30))
			*slot = world_random_gva(w);
		ledger_charge(&w->ledger, EVENT_INSTRUCTION);
		access_as_an_engine(s, mmu, *slot, (enum access_kind)world_below(w, 3),
				    (enum mmu_mode)world_below(w, 3));
		if (mmu->difference)
			fail_msg("%s", mmu->difference);
	}
}

static void open_script(struct script *s, unsigned round)
{
	world_open(&s->w);
	s->w.random += round * 0x1234567ull;
	s->seen = 0;
	world_random_controls(&s->w);
	s->w.vcpu.state.cr4 &= ~CR4_PGE;
	world_random_tables(&s->w);
}

static void counts_equal(const struct ledger *observed, const struct ledger *alone,
			 const char *strategy)
{
	for (unsigned e = 0; e < EVENT_COUNT; e++)
		if (event_is_translation((enum event)e) &&
		    ledger_total(observed, (enum event)e) != ledger_total(alone, (enum event)e))
			fail_msg("%s: %s: %llu as an observer, %llu alone", strategy,
				 event_name((enum event)e),
				 (unsigned long long)ledger_total(observed, (enum event)e),
				 (unsigned long long)ledger_total(alone, (enum event)e));
}

/* The catalogue's, and an adaptive one that changes its mind all the time. */
static bool scheme(unsigned i, struct mmu_config *config)
{
	static const struct adaptive_prices restless = {.nested_miss = 3000, .hidden_fault = 2900};
	unsigned count = 0;
	while (mmu_strategy_name(count, NULL))
		count++;
	config->strategy = i < count ? mmu_strategy_name(i, NULL) : "adaptive";
	config->adaptive_interval = i < count ? 0 : 37;
	config->adaptive_prices = i < count ? NULL : &restless;
	return i <= count;
}

/* All strategies watch `primary`; then each runs alone on the same script. */
static void check(unsigned primary, const struct tlb_geometry *g, unsigned round)
{
	struct script s;
	struct mmu *mmu;
	struct ledger ledgers[SCHEMES_MAX] = {0};
	static const struct cache_geometry caches = {{{4096, 2}, {16384, 4}, {0, 0}}};
	struct mmu_config config = {.geometry = g, .verify = true};
	config.caches = round ? &caches : NULL;
	config.has_data_caches = round > 1;
	scheme(primary, &config);
	open_script(&s, round);
	assert_int_equal(mmu_create(&mmu, &config, &s.w.vcpu, s.w.memory, NULL), 0);
	for (unsigned i = 0; scheme(i, &config); i++)
		assert_int_equal(mmu_add_observer(mmu, &config, &ledgers[i], NULL), 0);
	mmu_reset(mmu);
	run(&s, mmu);
	uint64_t seen = s.seen;
	mmu_destroy(mmu);
	world_close(&s.w);
	for (unsigned i = 0; scheme(i, &config); i++) {
		open_script(&s, round);
		assert_int_equal(mmu_create(&mmu, &config, &s.w.vcpu, s.w.memory, NULL), 0);
		mmu_reset(mmu);
		run(&s, mmu);
		assert_true(s.seen == seen);
		counts_equal(&ledgers[i], &s.w.ledger, config.strategy);
		if (config.adaptive_interval)
			assert_true(ledger_total(&ledgers[i], EVENT_PAGING_SWITCH) > 0);
		uint64_t data = ledger_total(&s.w.ledger, EVENT_REF_DATA_L1) +
				ledger_total(&s.w.ledger, EVENT_REF_DATA_DRAM);
		assert_int_equal(data > 0, round > 1);
		mmu_destroy(mmu);
		world_close(&s.w);
	}
}

static void an_observer_counts_what_it_would_alone(void **state)
{
	const struct tlb_geometry shapes[] = {geometry_intel(), geometry_amd(), geometry_tiny(),
					      geometry_single()};
	for (unsigned round = 0; round < 3; round++)
		for (unsigned g = 0; g < ARRAY_COUNT(shapes); g++)
			for (unsigned i = 0; scheme(i, &(struct mmu_config){0}); i++)
				check(i, &shapes[g], round);
}

/* Steady phases: it settles on the cheaper mode, pays little for finding out, and follows. */
static void the_policy_follows_phases(void **state)
{
	static const struct adaptive_sample misses = {
		.tlb_misses = 50000, .has_table_writes = true, .build_faults = 500};
	static const struct adaptive_sample switches = {
		.tlb_misses = 300, .cr3_writes = 2000, .hidden_faults = 100};
	static const struct adaptive_sample writes = {.tlb_misses = 2000, .table_writes = 1500};
	struct adaptive_policy p;
	uint64_t paid = 0, best = 0;
	adaptive_policy_init(&p, NULL, ADAPTIVE_BY_COST);
	for (unsigned i = 0; i < 300; i++) {
		const struct adaptive_sample *s = i < 100 ? &misses : i < 200 ? &switches : &writes;
		uint64_t cost[] = {adaptive_overhead(&p, s, ADAPTIVE_NESTED),
				   adaptive_overhead(&p, s, ADAPTIVE_SHADOW)};
		paid += cost[p.mode];
		best += cost[0] < cost[1] ? cost[0] : cost[1];
		adaptive_decide(&p, s);
		if (i % 100 > 50)
			assert_int_equal(p.mode, i < 100 ? ADAPTIVE_SHADOW : ADAPTIVE_NESTED);
	}
	assert_true(paid < best * 2);
}

/* Exits to count table writes are asked for while everything else speaks for the shadow, and no
 * change is made without the answer. */
static void the_policy_asks_for_table_writes_when_they_decide(void **state)
{
	static const struct adaptive_sample quiet = {.tlb_misses = 100, .cr3_writes = 100};
	struct adaptive_sample misses = {.tlb_misses = 50000};
	struct adaptive_policy p;
	adaptive_policy_init(&p, NULL, ADAPTIVE_BY_COST);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(adaptive_decide(&p, &quiet), ADAPTIVE_NESTED);
	assert_false(p.wants_table_writes);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(adaptive_decide(&p, &misses), ADAPTIVE_NESTED);
	assert_true(p.wants_table_writes);
	misses.has_table_writes = true;
	misses.table_writes = 0;
	assert_int_equal(adaptive_decide(&p, &misses), ADAPTIVE_SHADOW);
	assert_false(p.wants_table_writes);
}

/* An answer that speaks against the shadow is not asked for again at once, and ever more rarely;
 * but it is when more is at stake. */
static void the_policy_asks_ever_more_rarely(void **state)
{
	struct adaptive_sample s = {.tlb_misses = 50000, .table_writes = 5000};
	struct adaptive_policy p;
	unsigned early = 0, late = 0;
	adaptive_policy_init(&p, NULL, ADAPTIVE_BY_COST);
	for (unsigned i = 0; i < 320; i++) {
		s.has_table_writes = p.wants_table_writes;
		assert_int_equal(adaptive_decide(&p, &s), ADAPTIVE_NESTED);
		early += i < 32 && p.wants_table_writes;
		late += i >= 288 && p.wants_table_writes;
	}
	assert_in_range(early, 4, 6);
	assert_in_range(late, 1, 2);
	assert_false(p.wants_table_writes && p.wait);
	s = (struct adaptive_sample){.tlb_misses = 150000};
	adaptive_decide(&p, &s);
	assert_true(p.wants_table_writes);
}

/* Where there is next to nothing to gain it does nothing. */
static void the_policy_leaves_small_things_alone(void **state)
{
	struct adaptive_sample s = {
		.instructions = 200000, .tlb_misses = 3, .has_table_writes = true};
	struct adaptive_policy p;
	adaptive_policy_init(&p, NULL, ADAPTIVE_BY_COST);
	for (unsigned i = 0; i < 10000; i++) {
		assert_int_equal(adaptive_decide(&p, &s), ADAPTIVE_NESTED);
		assert_false(p.wants_table_writes);
	}
	s.tlb_misses = 30;
	for (unsigned i = 0; i < 100; i++)
		adaptive_decide(&p, &s);
	assert_int_equal(p.mode, ADAPTIVE_SHADOW);
}

/* The paper's: shadow paging for many misses and few CR3 writes, after some intervals of them, and
 * whatever the guest does to its tables. */
static void the_papers_rule_knows_two_rates(void **state)
{
	static const struct {
		struct adaptive_sample s;
		enum adaptive_mode asked;
	} rows[] = {
		{{.instructions = 200000, .tlb_misses = 5000}, ADAPTIVE_SHADOW},
		{{.instructions = 200000, .tlb_misses = 5000, .cr3_writes = 50}, ADAPTIVE_NESTED},
		{{.instructions = 200000, .tlb_misses = 5000, .table_writes = 5000},
		 ADAPTIVE_SHADOW},
		{{.instructions = 200000, .tlb_misses = 10, .cr3_writes = 50}, ADAPTIVE_NESTED},
		{{.instructions = 200000, .tlb_misses = 5000, .cr3_writes = 1}, ADAPTIVE_SHADOW},
		{{.instructions = 200000, .tlb_misses = 10}, ADAPTIVE_NESTED},
	};
	struct adaptive_policy p;
	adaptive_policy_init(&p, NULL, ADAPTIVE_BY_RATES);
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		enum adaptive_mode before = p.mode;
		for (unsigned n = 0; n < 5; n++) {
			enum adaptive_mode expected = n < 2 ? before : rows[i].asked;
			assert_int_equal(adaptive_decide(&p, &rows[i].s), expected);
			assert_false(p.wants_table_writes);
		}
	}
}

/* Renting and buying: over phases as they come, at most about twice the best fixed mode. */
static void the_policy_is_never_far_from_the_best(void **state)
{
	struct world w;
	world_open(&w);
	for (unsigned round = 0; round < 50; round++) {
		struct adaptive_policy p;
		uint64_t paid = 0, fixed[2] = {0, 0};
		struct adaptive_sample s = {0};
		adaptive_policy_init(&p, NULL, ADAPTIVE_BY_COST);
		for (unsigned i = 0; i < 500; i++) {
			if (world_chance(&w, 5))
				s = (struct adaptive_sample){.tlb_misses = world_below(&w, 60000),
							     .cr3_writes = world_below(&w, 1500),
							     .has_table_writes = true,
							     .build_faults = world_below(&w, 300)};
			for (unsigned m = 0; m < 2; m++)
				fixed[m] += adaptive_overhead(&p, &s, (enum adaptive_mode)m);
			enum adaptive_mode before = p.mode;
			paid += adaptive_overhead(&p, &s, before);
			if (adaptive_decide(&p, &s) != before)
				paid += p.prices.change + p.build_left;
		}
		assert_true(paid < 2 * (fixed[0] < fixed[1] ? fixed[0] : fixed[1]));
	}
	world_close(&w);
}

/* A guest that turns against each choice as soon as it is made: waiting, the change and waiting to
 * go back each cost as much as the shadow, and the best fixed mode pays one of them. */
static void the_policy_withstands_a_guest_that_works_against_it(void **state)
{
	static const struct adaptive_sample against[] = {
		[ADAPTIVE_NESTED] = {.tlb_misses = 5000,
				     .has_table_writes = true,
				     .build_faults = 1000},
		[ADAPTIVE_SHADOW] = {.table_writes = 100},
	};
	struct adaptive_policy p;
	uint64_t paid = 0, fixed[2] = {0, 0};
	unsigned change_count = 0;
	adaptive_policy_init(&p, NULL, ADAPTIVE_BY_COST);
	for (unsigned i = 0; i < 1000; i++) {
		enum adaptive_mode before = p.mode;
		const struct adaptive_sample *s = &against[before];
		for (unsigned m = 0; m < 2; m++)
			fixed[m] += adaptive_overhead(&p, s, (enum adaptive_mode)m);
		paid += adaptive_overhead(&p, s, before);
		if (adaptive_decide(&p, s) == before)
			continue;
		change_count++;
		paid += p.prices.change + p.build_left;
		p.build_left = 0; /* seen */
	}
	assert_true(change_count > 40);
	assert_true(paid * 10 < 32 * (fixed[0] < fixed[1] ? fixed[0] : fixed[1]));
}

/* A shadow that loses is given up when the loss has paid for it, not when the interval is over; the
 * paper's rule and nested paging know whole intervals only. */
static void the_policy_does_not_wait_for_the_interval_to_end(void **state)
{
	const struct adaptive_sample misses = {
		.tlb_misses = 50000, .has_table_writes = true, .build_faults = 100};
	struct adaptive_sample writes = {.instructions = 100};
	struct adaptive_policy p;
	adaptive_policy_init(&p, NULL, ADAPTIVE_BY_COST);
	assert_false(adaptive_is_overdue(&p, &misses));
	assert_int_equal(adaptive_decide(&p, &misses), ADAPTIVE_SHADOW);
	uint64_t price = p.prices.change + p.built;
	writes.table_writes = (price - 1) / p.prices.table_write;
	assert_false(adaptive_is_overdue(&p, &writes));
	writes.table_writes++;
	assert_true(adaptive_is_overdue(&p, &writes));
	writes.tlb_misses = 50; /* which nested paging would pay */
	assert_false(adaptive_is_overdue(&p, &writes));
	writes.table_writes += 2;
	writes.hidden_faults = 100; /* its building was paid for when it was chosen */
	assert_true(adaptive_is_overdue(&p, &writes));
	assert_int_equal(adaptive_decide(&p, &writes), ADAPTIVE_NESTED);
	p.mode = ADAPTIVE_SHADOW;
	p.rule = ADAPTIVE_BY_RATES;
	assert_false(adaptive_is_overdue(&p, &writes));
}

static void observers_go_with_their_primary(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu *mmu;
	struct ledger ledger = {0};
	struct error e = {0};
	struct mmu_config config = {.strategy = "native", .geometry = &g};
	world_open(&w);
	assert_int_equal(mmu_create(&mmu, &config, &w.vcpu, w.memory, NULL), 0);
	assert_false(mmu_needs_exits(mmu));
	assert_null(mmu_observer(mmu, 0));
	config.strategy = "nested";
	assert_int_equal(mmu_add_observer(mmu, &config, &ledger, NULL), 0);
	assert_true(mmu_needs_exits(mmu));
	assert_false(mmu_is_virtualized(mmu));
	assert_true(mmu_is_virtualized(mmu_observer(mmu, 0)));
	config.host_levels = 9;
	assert_int_not_equal(mmu_add_observer(mmu, &config, &ledger, &e), 0);
	assert_non_null(strstr(e.text, "9 host levels"));
	assert_null(mmu_observer(mmu, 1));
	mmu_destroy(mmu);
	world_close(&w);
}

static void strategies_are_parsed_and_printed(void **state)
{
	static const struct {
		const char *text, *printed, *refused;
	} cases[] = {
		{"native", "native", NULL},
		{"nested:host-page=2m:walk-cache=1d", "nested:host-page=2M:walk-cache=1d", NULL},
		{"nested:host-page=4K:host-levels=3:nested-tlb=0",
		 "nested:host-levels=3:nested-tlb=0", NULL},
		{"shadow-sync:pf-filter=on:limit=4M", "shadow-sync:pf-filter=on:limit=4194304",
		 NULL},
		{"shadow-cache:prefetch=table:sync=strict", "shadow-cache:prefetch=table", NULL},
		{"adaptive:rule=paper:shadow=shadow", "adaptive:shadow=shadow:rule=paper", NULL},
		{"adaptive:rule=thumb", NULL, "one of cost, paper"},
		{"shadow:pf-filter=on", NULL, "has no setting \"pf-filter\""},
		{"nested:tlb-tag=off", "nested:tlb-tag=off", NULL},
		{"nestled", NULL, "there are: native, nested, shadow"},
		{"nested:sync=oos", NULL, "has no setting \"sync\""},
		{"nested:host-page=3M", NULL, "one of 4K, 2M, 1G"},
		{"nested:host-levels=6", NULL, "a number from 1 to 5"},
		{"nested:host-levels", NULL, "needs a value"},
		{"shadow:limit=lots", NULL, "a size such as"},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
		struct mmu_config config = {0};
		struct error e = {0};
		char text[MMU_STRATEGY_TEXT_MAX];
		int r = mmu_parse_strategy(cases[i].text, &config, &e);
		assert_int_equal(!r, !cases[i].refused);
		if (!r)
			assert_string_equal(mmu_format_strategy(&config, text), cases[i].printed);
		else if (!strstr(e.text, cases[i].refused))
			fail_msg("%s: %s", cases[i].text, e.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_observer_counts_what_it_would_alone),
		cmocka_unit_test(the_policy_follows_phases),
		cmocka_unit_test(the_policy_asks_for_table_writes_when_they_decide),
		cmocka_unit_test(the_policy_asks_ever_more_rarely),
		cmocka_unit_test(the_policy_leaves_small_things_alone),
		cmocka_unit_test(the_papers_rule_knows_two_rates),
		cmocka_unit_test(the_policy_is_never_far_from_the_best),
		cmocka_unit_test(the_policy_withstands_a_guest_that_works_against_it),
		cmocka_unit_test(the_policy_does_not_wait_for_the_interval_to_end),
		cmocka_unit_test(observers_go_with_their_primary),
		cmocka_unit_test(strategies_are_parsed_and_printed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
