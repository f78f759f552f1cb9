/*
 * Walk caches and the nested TLB: how many references they leave of a walk (the matrix of guest by
 * host levels), what invalidates them, and that nothing but counts shows that they are there.
 */
#include "paging_world.h"

#include <stdio.h>

#include "paging/mmu_private.h"

static uint64_t sum(const struct world *w, enum event first, enum event last)
{
	uint64_t n = 0;
	for (enum event e = first; e <= last; e++)
		n += ledger_total(&w->ledger, e);
	return n;
}

static uint64_t references(const struct world *w)
{
	return sum(w, EVENT_WALK_G1, EVENT_WALK_S5);
}

/* What one access costs. */
static uint64_t cost(struct world *w, struct mmu *mmu, uint64_t at)
{
	struct mmu_page page;
	struct page_fault fault;
	uint64_t before = references(w);
	assert_true(mmu_translate(mmu, gva(at), ACCESS_READ, MMU_SUPERVISOR, &page, &fault));
	if (mmu->difference)
		fail_msg("%s", mmu->difference);
	return references(w) - before;
}

static void map_pages(struct world *w, enum world_mode mode, bool is_large)
{
	uint64_t next = 0x300000;
	world_set_mode(w, mode);
	w->vcpu.state.cr4 |= CR4_PSE;
	w->vcpu.state.cr3 = 0x200000;
	for (unsigned i = 0; i < 4; i++)
		w->vcpu.state.pdpte[i] = (0x201000 + i * 4096) | PTE_P;
	uint64_t size = is_large ? (mode == WORLD_32BIT ? 1 << 22 : 1 << 21) : 4096;
	for (uint64_t i = 0; i < 8; i++)
		world_map(w, i * size, 0x1000000 + i * size, (unsigned)__builtin_ctzll(size),
			  PTE_P | PTE_W | PTE_U, &next);
}

/* Skylake's sizes, and K10's. */
static const struct walk_cache_geometry split = {
	.pde_entries = 32, .pdpte_entries = 4, .pml4e_entries = 4};
static const struct walk_cache_geometry shared = {.pde_entries = 24, .is_shared = true};

static struct mmu *open_cached(struct world *w, const char *text, struct tlb_geometry *g,
			       const struct walk_cache_geometry *caches)
{
	struct mmu_config config = {.verify = true};
	struct mmu *mmu;
	g->walk_cache = *caches;
	assert_int_equal(mmu_parse_strategy(text, &config, NULL), 0);
	config.geometry = g;
	assert_int_equal(mmu_create(&mmu, &config, &w->vcpu, w->memory, NULL), 0);
	return mmu;
}

enum { NONE, ONE_D, TWO_D, TWO_D_NTLB, VARIANTS };
static const char *const variant_keys[VARIANTS] = {
	"walk-cache=none:nested-tlb=0", "walk-cache=1d:nested-tlb=0", "walk-cache=2d:nested-tlb=0",
	"walk-cache=2d:nested-tlb=16"};

struct cell {
	enum world_mode mode;
	bool is_large;
	unsigned g; /* guest references without caches */
	unsigned host_levels;
	const char *host_page;
	unsigned n;
};

static const struct cell cells[] = {
	{WORLD_4LEVEL, false, 4, 4, "4K", 4}, {WORLD_4LEVEL, false, 4, 4, "2M", 3},
	{WORLD_4LEVEL, true, 3, 4, "2M", 3},  {WORLD_4LEVEL, true, 3, 4, "4K", 4},
	{WORLD_PAE, false, 2, 4, "4K", 4},    {WORLD_32BIT, false, 2, 4, "4K", 4},
	{WORLD_32BIT, false, 2, 2, "4K", 2},  {WORLD_5LEVEL, false, 5, 5, "4K", 5},
	{WORLD_4LEVEL, false, 4, 1, "4K", 1}, {WORLD_4LEVEL, false, 4, 3, "4K", 3},
};

/* A page beside one that was just walked: its upper entries are known. */
static unsigned expected(const struct cell *c, bool is_shared, unsigned variant)
{
	unsigned all = (c->g + 1) * (c->n + 1) - 1;
	if (variant == NONE)
		return all;
	if (!is_shared) /* the last guest entry, and the page; in 1-D also where its table is */
		return variant == ONE_D ? 1 + 2 * c->n : 2;
	if (variant == ONE_D) /* every table is located still */
		return all - (c->g - 1);
	/* Each location's last entry, and the guest's. */
	return variant == TWO_D ? c->g + 2 : 2;
}

/* A TLB so small that walking over eight pages misses every time. */
static struct tlb_geometry geometry_two(void)
{
	return (struct tlb_geometry){
		.l1d = {{{"L1 D", 2, 0, TLB_ALL_SIZES}}, 1},
		.l1i = {{{"L1 I", 2, 0, TLB_ALL_SIZES}}, 1},
		.tagged = true,
		.pcid = true,
	};
}

static void warm_walks_cost_what_the_matrix_says(void **state)
{
#ifdef GNOMON_HARD
	skip(); /* two entries hold no walk */
#endif
	for (unsigned i = 0; i < ARRAY_COUNT(cells) * 2 * VARIANTS; i++) {
		const struct cell *c = &cells[i / VARIANTS / 2];
		bool is_shared = i / VARIANTS % 2;
		struct tlb_geometry g = geometry_two();
		struct world w;
		char text[160];
		world_open(&w);
		map_pages(&w, c->mode, c->is_large);
		snprintf(text, sizeof(text), "nested:host-levels=%u:host-page=%s:%s",
			 c->host_levels, c->host_page, variant_keys[i % VARIANTS]);
		struct mmu *mmu = open_cached(&w, text, &g, is_shared ? &shared : &split);
		for (unsigned n = 0; n < 24; n++) {
			uint64_t count = cost(&w, mmu, n % 8 * (c->is_large ? 1 << 21 : 4096));
			if (n >= 16)
				assert_int_equal(count, expected(c, is_shared, i % VARIANTS));
		}
		mmu_destroy(mmu);
		world_close(&w);
	}
}

static void one_dimension_is_shortened_too(void **state)
{
#ifdef GNOMON_HARD
	skip();
#endif
	static const struct {
		const char *text;
		unsigned count;
	} rows[] = {{"native", 1},
		    {"native:walk-cache=none", 4},
		    {"native:walk-cache=2d", 1},
		    {"shadow", 1}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows) * 2; i++) {
		struct tlb_geometry g = geometry_two();
		struct world w;
		world_open(&w);
		map_pages(&w, WORLD_4LEVEL, false);
		struct mmu *mmu = open_cached(&w, rows[i / 2].text, &g, i % 2 ? &shared : &split);
		for (unsigned n = 0; n < 24; n++) {
			uint64_t count = cost(&w, mmu, n % 8 * 4096);
			if (n >= 8)
				assert_int_equal(count, rows[i / 2].count);
		}
		uint64_t hits = ledger_total(&w.ledger, EVENT_WALK_CACHE_HIT);
		assert_true(rows[i / 2].count == 1 ? hits >= 23 : hits == 0);
		mmu_destroy(mmu);
		world_close(&w);
	}
}

/* What takes guest entries with it, each after a walk that left them: the references of the next
 * walk. */
static void invalidations_reach_the_caches(void **state)
{
#ifdef GNOMON_HARD
	skip();
#endif
	struct world w;
	struct mmu_page page;
	struct page_fault fault;
	uint64_t next = 0x380000;
	world_open(&w);
	map_pages(&w, WORLD_4LEVEL, false);
	w.vcpu.state.cr4 |= CR4_PCIDE;
	w.vcpu.state.cr3 |= 1;
	for (unsigned i = 0; i < 2; i++) {
		struct tlb_geometry g = geometry_two();
		struct mmu *mmu = open_cached(&w, "native", &g, i ? &shared : &split);
		cost(&w, mmu, 0);
		assert_int_equal(cost(&w, mmu, 0x1000), 1);
		mmu_invlpg(mmu, gva(0x5000)); /* of any address */
		assert_int_equal(cost(&w, mmu, 0x2000), 4);
		mmu_cr3_written(mmu, true); /* the same space, nothing flushed */
		assert_int_equal(cost(&w, mmu, 0x3000), 1);
		mmu_cr3_written(mmu, false);
		assert_int_equal(cost(&w, mmu, 0x4000), 4);
		w.vcpu.state.cr3 = 0x200002;
		mmu_cr3_written(mmu, true); /* another space */
		assert_int_equal(cost(&w, mmu, 0x5000), 4);
		w.vcpu.state.cr3 = 0x200001;
		mmu_cr3_written(mmu, true); /* the first one's were kept */
		assert_int_equal(cost(&w, mmu, 0x6000), 1);
		mmu_invpcid(mmu, INVPCID_ADDRESS, 2, gva(0));
		assert_int_equal(cost(&w, mmu, 0x7000), 1);
		mmu_invpcid(mmu, INVPCID_ADDRESS, 1, gva(0));
		assert_int_equal(cost(&w, mmu, 0), 4);
		/* A fault takes those of its address; the shared kind keeps its entries, which are
		 * of no address. */
		uint64_t before = references(&w);
		assert_false(mmu_translate(mmu, gva(0x9000), ACCESS_READ, MMU_SUPERVISOR, &page,
					   &fault));
		assert_int_equal(references(&w) - before, 1);
		assert_int_equal(cost(&w, mmu, 0x1000), i ? 1 : 4);
		mmu_reset(mmu);
		assert_int_equal(cost(&w, mmu, 0x2000), 4);
		mmu_destroy(mmu);
	}
	/* The guest moves a page table and says nothing: the walk is whole, its answer the new one.
	 */
	struct tlb_geometry g = geometry_two();
	struct mmu *mmu = open_cached(&w, "native", &g, &split);
	cost(&w, mmu, 0);
	uint64_t *pd = world_table(&w, 0x301000), old = pd[0];
	pd[0] = 0;
	world_map(&w, 0x1000, 0x1800000, 12, PTE_P | PTE_W, &next);
	assert_true(pd[0] && pd[0] != old);
	assert_int_equal(cost(&w, mmu, 0x1000), 2); /* the level-3 entry is as it was */
	assert_true(mmu_peek(mmu, gva(0x1000), &page.gpa) && page.gpa.v == 0x1800000);
	mmu_destroy(mmu);
	world_close(&w);
}

/* A table that the host does not have yet is not known to the nested TLB: the walk after the exit
 * locates it. */
static void a_violation_teaches_the_nested_tlb_nothing(void **state)
{
	struct tlb_geometry g = geometry_two();
	struct world w;
	world_open(&w);
	map_pages(&w, WORLD_4LEVEL, false);
	struct mmu *mmu = open_cached(&w, "nested:walk-cache=none:nested-tlb=16", &g, &split);
	/* Four tables and the page: the walk after violation k finds k tables located, all but the
	 * newest by the nested TLB. */
	cost(&w, mmu, 0);
	assert_int_equal(ledger_total(&w.ledger, EVENT_EXIT_NESTED_VIOLATION), 5);
#ifndef GNOMON_HARD
	assert_int_equal(ledger_total(&w.ledger, EVENT_NESTED_TLB_HIT), 0 + 1 + 2 + 3 + 4);
#endif
	mmu_destroy(mmu);
	world_close(&w);
}

static void only_references_differ(const struct world *without, const struct world *with)
{
	for (enum event e = 0; e < EVENT_COUNT; e++) {
		uint64_t before = ledger_total(&without->ledger, e);
		uint64_t after = ledger_total(&with->ledger, e);
		if (e == EVENT_WALK_CACHE_HIT || e == EVENT_NESTED_TLB_HIT)
			continue;
		if (e >= EVENT_WALK_G1 && e <= EVENT_WALK_S5)
			assert_true(after <= before);
		else
			assert_int_equal(after, before);
	}
	assert_true(references(with) < references(without));
}

/* Two machines, alike but for the walk caches, on random tables that change with and without
 * invalidation: the guest sees the same, and so does every count but those of references. */
static void nothing_but_references_differs(void **state)
{
	static const char *const texts[] = {
		"native:walk-cache=", "nested:walk-cache=",
		"nested:host-page=2M:nested-tlb=4:walk-cache=", "shadow:walk-cache="};
	for (unsigned t = 0; t < ARRAY_COUNT(texts) * 2; t++) {
		struct world w[2];
		struct mmu *mmu[2];
		struct tlb_geometry g[2] = {geometry_tiny(), geometry_tiny()};
		for (unsigned k = 0; k < 2; k++) {
			char text[80];
			snprintf(text, sizeof(text), "%s%s", texts[t / 2], k ? "2d" : "none");
			world_open(&w[k]);
			mmu[k] = open_cached(&w[k], text, &g[k], t % 2 ? &shared : &split);
		}
		for (unsigned i = 0; i < 6000; i++) {
			bool ok[2];
			struct mmu_page page[2];
			struct page_fault fault[2];
			for (unsigned k = 0; k < 2; k++) {
				unsigned what = world_below(&w[k], 1000);
				uint64_t at;
				if (i % 300 == 0) {
					world_random_controls(&w[k]);
					world_random_tables(&w[k]);
					mmu_reset(mmu[k]);
				}
				at = world_random_gva(&w[k]);
				if (what < 60)
					world_table(&w[k],
						    WORLD_TABLES)[world_below(&w[k], 2048)] ^=
						what < 30 ? PTE_A : 0x1000;
				else if (what < 80)
					mmu_invlpg(mmu[k], gva(at));
				else if (what < 100)
					mmu_cr3_written(mmu[k], false);
				else if (what < 105)
					mmu_note_exit(mmu[k]);
				ok[k] = mmu_translate(
					mmu[k], gva(at), (enum access_kind)world_below(&w[k], 3),
					(enum mmu_mode)world_below(&w[k], 3), &page[k], &fault[k]);
				if (mmu[k]->difference)
					fail_msg("%s", mmu[k]->difference);
			}
			assert_int_equal(ok[0], ok[1]);
			assert_true(!ok[0] || page[0].gpa.v == page[1].gpa.v);
			assert_true(ok[0] || fault[0].error_code == fault[1].error_code);
		}
		only_references_differ(&w[0], &w[1]);
		for (unsigned k = 0; k < 2; k++) {
			mmu_destroy(mmu[k]);
			world_close(&w[k]);
		}
	}
}

static void sizes_come_from_the_profile_or_from_who_asks(void **state)
{
	struct tlb_geometry g = geometry_two();
	struct world w;
	struct mmu_config config = {.strategy = "nested", .geometry = &g};
	struct walk_cache *c;
	struct error e = {0};
	world_open(&w);
	assert_int_equal(walk_cache_create(&c, &config, &e), 0);
	assert_null(c); /* nothing to model */
	config.walk_cache = MMU_WALK_CACHE_2D;
	assert_int_equal(walk_cache_create(&c, &config, &e), 0);
	assert_non_null(c);
	walk_cache_destroy(c);
	g.walk_cache = split;
	g.walk_cache.nested_tlb_entries = 16;
	config.walk_cache = MMU_WALK_CACHE_NONE;
	assert_int_equal(walk_cache_create(&c, &config, &e), 0);
	assert_null(c);
	config.has_nested_tlb_entries = true;
	config.nested_tlb_entries = 8;
	assert_int_equal(walk_cache_create(&c, &config, &e), 0);
	assert_non_null(c);
	walk_cache_destroy(c);
	config.walk_cache = MMU_WALK_CACHE_1D;
	g.walk_cache.pde_entries = 1u << 20;
	assert_int_equal(walk_cache_create(&c, &config, &e), -22);
	assert_null(c);
	assert_non_null(strstr(e.text, "1048576 entries"));
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(warm_walks_cost_what_the_matrix_says),
		cmocka_unit_test(one_dimension_is_shortened_too),
		cmocka_unit_test(invalidations_reach_the_caches),
		cmocka_unit_test(a_violation_teaches_the_nested_tlb_nothing),
		cmocka_unit_test(nothing_but_references_differs),
		cmocka_unit_test(sizes_come_from_the_profile_or_from_who_asks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
