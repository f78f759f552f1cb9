/*
 * The mmu: that the fast map is invisible to the model, what each event costs in the ledger, and
 * what the guest's invalidations and control bits do.
 */
#include "paging_world.h"

#include "paging/mmu_private.h"
#include "x86/cache_geometry.h"

static struct mmu *open_mmu(struct world *w, const char *strategy, const struct tlb_geometry *g)
{
	struct mmu_config config = {.strategy = strategy, .geometry = g, .verify = true};
	struct mmu *mmu;
	assert_int_equal(mmu_create(&mmu, &config, &w->vcpu, w->memory, NULL), 0);
	return mmu;
}

/* As an engine does it: the fast map first. */
static bool access_page(struct mmu *mmu, uint64_t at, enum access_kind kind, enum mmu_mode mode,
			struct mmu_page *page, struct page_fault *fault)
{
	struct mmu_fast_entry *e = mmu_fast_lookup(mmu, at, at, kind, mode);
	if (!e)
		return mmu_translate(mmu, gva(at), kind, mode, page, fault);
	mmu_fast_hit(mmu, e, at, 1);
	page->host = (uint8_t *)(uintptr_t)(at + e->addend);
	page->flags = 0;
	page->gpa = gpa(e->gfn << 12 | (at & 0xfff));
	return true;
}

static uint64_t charged(const struct world *w, enum event e)
{
	return ledger_total(&w->ledger, e);
}

static uint64_t sum(const struct world *w, enum event first, enum event last)
{
	uint64_t n = 0;
	for (enum event e = first; e <= last; e++)
		n += charged(w, e);
	return n;
}

static void flat_tables(struct world *w, enum world_mode mode, unsigned pages)
{
	uint64_t next = 0x300000;
	world_set_mode(w, mode);
	w->vcpu.state.cr3 = 0x200000;
	for (unsigned i = 0; i < 4; i++)
		w->vcpu.state.pdpte[i] = (0x201000 + i * 4096) | PTE_P;
	for (unsigned i = 0; i < pages; i++)
		world_map(w, i * 4096ull, 0x1000000 + i * 4096ull, 12, PTE_P | PTE_W | PTE_U,
			  &next);
}

static void must_read(struct mmu *mmu, uint64_t at, uint64_t to)
{
	struct mmu_page page;
	struct page_fault fault;
	assert_true(access_page(mmu, at, ACCESS_READ, MMU_SUPERVISOR, &page, &fault));
	assert_true(page.gpa.v == to);
	assert_ptr_equal(page.host, memory_host(mmu->memory, gpa(to), 1));
	assert_null(mmu->difference);
}

/* The law of the filter: with the fast map and with it emptied before every access the model is the
 * same, event for event. */
struct twin {
	struct world w;
	struct mmu *mmu;
};

static void twin_step(struct twin *t, bool empty)
{
	struct world *w = &t->w;
	struct vcpu_state *s = &w->vcpu.state;
	unsigned what = world_below(w, 1000);
	static const uint8_t pages[] = {1, 2, 3, 4, 6, 9};
	uint64_t at = world_below(w, 40) * 4096ull + (world_chance(w, 20) ? 0x400000 : 0);
	if (world_chance(w, 60))
		at = pages[world_below(w, 6)] * 4096ull;
	if (what < 6) {
		uint64_t cr3 = s->cr3;
		s->cr3 = (cr3 & ~0xfffull) | (s->cr4 & CR4_PCIDE ? world_below(w, 3) : 0);
		mmu_cr3_written(t->mmu, (s->cr4 & CR4_PCIDE) && world_chance(w, 50));
	} else if (what < 16) {
		mmu_invlpg(t->mmu, gva(at));
	} else if (what < 18) {
		mmu_invpcid(t->mmu, world_below(w, 4), world_below(w, 3), gva(at));
	} else if (what < 20) {
		mmu_note_engine_exit(t->mmu);
	} else if (what < 22) {
		memory_set_page_flag(w->memory, gpa(0x1000000 + (at & 0x3ff000)), PAGE_CODE);
	} else if (what < 24) {
		memory_clear_page_flag(w->memory, gpa(0x1000000 + (at & 0x3ff000)), PAGE_CODE);
	} else if (what < 25) {
		uint64_t old = s->cr0;
		s->cr0 ^= CR0_WP;
		mmu_controls_changed(t->mmu, old, s->cr4, s->efer);
	} else {
		struct mmu_page page;
		struct page_fault fault;
		unsigned slot = mmu_fast_slot(at >> PAGE_SHIFT); /* all that the access can find */
		for (unsigned m = 0; empty && m < MMU_MODE_COUNT; m++)
			for (unsigned k = 0; k < ACCESS_KIND_COUNT; k++)
				t->mmu->fast[m][k][slot].tag = MMU_FAST_EMPTY;
		access_page(t->mmu, at + world_below(w, 4096), (enum access_kind)world_below(w, 3),
			    (enum mmu_mode)world_below(w, 3), &page, &fault);
	}
}

static void twin_open(struct twin *t, const char *strategy, const struct tlb_geometry *g,
		      enum world_mode mode)
{
	uint64_t next = 0x380000;
	world_open(&t->w);
	t->w.vcpu.state.cr4 = CR4_PGE | CR4_PSE;
	flat_tables(&t->w, mode, 40);
	for (unsigned i = 0; i < 40; i += 3) /* some global, some read-only, some supervisor */
		world_map(&t->w, i * 4096ull, 0x1000000 + i * 4096ull, 12,
			  PTE_P | PTE_G | (i & 1 ? PTE_W : PTE_U), &next);
	world_map(&t->w, 0x400000, 0x1400000, mode == WORLD_32BIT ? 22 : 21, PTE_P | PTE_W | PTE_U,
		  &next);
	if (mode >= WORLD_4LEVEL)
		t->w.vcpu.state.cr4 |= CR4_PCIDE;
	t->mmu = open_mmu(&t->w, strategy, g);
}

static void one_filter_trace(const char *strategy, const struct tlb_geometry *g,
			     enum world_mode mode)
{
	struct twin with, without;
	twin_open(&with, strategy, g, mode);
	twin_open(&without, strategy, g, mode);
	for (unsigned i = 0; i < 20000; i++) {
		twin_step(&with, false);
		twin_step(&without, true);
		assert_null(with.mmu->difference);
	}
	assert_memory_equal(&with.w.ledger, &without.w.ledger, sizeof(struct ledger));
	assert_int_equal(with.mmu->use_clock, without.mmu->use_clock);
	assert_true(charged(&with.w, EVENT_DTLB1_MISS) > 1000);
	assert_int_equal(sum(&with.w, EVENT_DTLB1_MISS, EVENT_ITLB1_MISS),
			 sum(&with.w, EVENT_TLB2_HIT, EVENT_TLB_MISS));
	mmu_destroy(with.mmu);
	mmu_destroy(without.mmu);
	world_close(&with.w);
	world_close(&without.w);
}

static void the_fast_map_is_invisible(void **state)
{
	struct tlb_geometry g[] = {geometry_intel(), geometry_amd(), geometry_tiny(),
				   geometry_single()};
	const char *name;
	for (size_t s = 0; (name = mmu_strategy_name(s, NULL)); s++)
		for (unsigned i = 0; i < ARRAY_COUNT(g); i++)
			for (enum world_mode m = WORLD_32BIT; m < WORLD_MODES; m++)
				one_filter_trace(name, &g[i], m);
}

/* References of one miss with cold TLBs and warm host tables. */

struct expected_references {
	const char *strategy;
	enum world_mode mode;
	unsigned host_levels, host_page_shift;
	bool is_large; /* guest page of 2M */
	unsigned count;
};

static void walks_cost_the_references_that_theory_says(void **state)
{
	static const struct expected_references rows[] = {
		{"native", WORLD_4LEVEL, 0, 0, false, 4},
		{"native", WORLD_5LEVEL, 0, 0, false, 5},
		{"native", WORLD_32BIT, 0, 0, false, 2},
		{"native", WORLD_PAE, 0, 0, false, 2},
		{"native", WORLD_4LEVEL, 0, 0, true, 3},
		{"shadow", WORLD_4LEVEL, 0, 0, false, 4},
		{"shadow", WORLD_5LEVEL, 0, 0, false, 5},
		{"shadow", WORLD_32BIT, 0, 0, false, 2},
		{"shadow", WORLD_4LEVEL, 0, 0, true, 4},
		{"shadow", WORLD_4LEVEL, 0, 21, true, 3},
		{"nested", WORLD_4LEVEL, 4, 12, false, 24},
		{"nested", WORLD_4LEVEL, 4, 21, false, 19},
		{"nested", WORLD_4LEVEL, 4, 21, true, 15},
		{"nested", WORLD_4LEVEL, 4, 12, true, 19},
		{"nested", WORLD_32BIT, 4, 12, false, 14},
		{"nested", WORLD_PAE, 4, 12, false, 14},
		{"nested", WORLD_32BIT, 2, 12, false, 8},
		{"nested", WORLD_5LEVEL, 5, 12, false, 35},
		{"nested", WORLD_4LEVEL, 1, 12, false, 9},
		{"nested", WORLD_4LEVEL, 3, 12, false, 19},
	};
	struct tlb_geometry g = geometry_intel();
	g.tagged = false; /* an exit empties the TLB and nothing else */
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		const struct expected_references *r = &rows[i];
		struct mmu_config config = {.strategy = r->strategy,
					    .geometry = &g,
					    .verify = true,
					    .host_levels = r->host_levels,
					    .host_page_shift = r->host_page_shift};
		struct world w;
		struct mmu *mmu;
		uint64_t next = 0x380000;
		world_open(&w);
		flat_tables(&w, r->mode, 4);
		world_map(&w, 0x600000, 0x1600000, r->mode == WORLD_32BIT ? 12 : 21, PTE_P, &next);
		assert_int_equal(mmu_create(&mmu, &config, &w.vcpu, w.memory, NULL), 0);
		uint64_t at = r->is_large ? 0x601000 : 0x1000;
		must_read(mmu, at, 0x1000000 + at);
		uint64_t before = sum(&w, EVENT_WALK_G1, EVENT_WALK_S5);
		uint64_t misses = charged(&w, EVENT_TLB_MISS);
		if (mmu_is_virtualized(mmu))
			mmu_note_engine_exit(mmu);
		else
			mmu_invlpg(mmu, gva(at));
		must_read(mmu, at, 0x1000000 + at);
		assert_int_equal(sum(&w, EVENT_WALK_G1, EVENT_WALK_S5) - before, r->count);
		assert_int_equal(charged(&w, EVENT_TLB_MISS), misses + 1);
		mmu_destroy(mmu);
		world_close(&w);
	}
}

/* A shadow's warm miss: evicted from an untagged TLB by an exit, still in the shadow. */
static void a_warm_shadow_miss_walks_the_shadow_alone(void **state)
{
	static const unsigned counts[] = {2, 2, 4, 5};
	struct tlb_geometry g = geometry_amd();
	g.tagged = false;
	for (enum world_mode m = WORLD_32BIT; m < WORLD_MODES; m++) {
		struct world w;
		world_open(&w);
		flat_tables(&w, m, 4);
		struct mmu *mmu = open_mmu(&w, "shadow", &g);
		must_read(mmu, 0x1000, 0x1001000);
		assert_int_equal(charged(&w, EVENT_EXIT_PF_HIDDEN), 1);
		assert_int_equal(charged(&w, EVENT_SHADOW_FILL), 1);
		uint64_t before = sum(&w, EVENT_WALK_S1, EVENT_WALK_S5);
		mmu_note_engine_exit(mmu);
		must_read(mmu, 0x1000, 0x1001000);
		assert_int_equal(sum(&w, EVENT_WALK_S1, EVENT_WALK_S5) - before, counts[m]);
		assert_int_equal(charged(&w, EVENT_EXIT_PF_HIDDEN), 1);
		assert_int_equal(sum(&w, EVENT_WALK_G1, EVENT_WALK_H5), 0);
		mmu_destroy(mmu);
		world_close(&w);
	}
}

static void shadow_charges_its_exits(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu_page page;
	struct page_fault fault;
	uint64_t next = 0x380000;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	world_map(&w, 0x10000, 0xfee00000, 12, PTE_P | PTE_W, &next);
	struct mmu *mmu = open_mmu(&w, "shadow", &g);
	must_read(mmu, 0x1000, 0x1001000);
	assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_WRITE, MMU_USER, &page, &fault));
	assert_int_equal(charged(&w, EVENT_EXIT_PF_HIDDEN), 2); /* the second sets D */
	assert_false(mmu_translate(mmu, gva(0x9000), ACCESS_WRITE, MMU_USER, &page, &fault));
	assert_int_equal(fault.error_code, PF_W | PF_U);
	assert_true(fault.address.v == 0x9000);
	assert_int_equal(charged(&w, EVENT_EXIT_PF_TRUE), 1);
	for (unsigned i = 0; i < 2; i++) { /* device memory: each access comes back */
		assert_true(mmu_translate(mmu, gva(0x10020), ACCESS_READ, MMU_SUPERVISOR, &page,
					  &fault));
		assert_true(page.gpa.v == 0xfee00020);
		assert_null(page.host);
	}
	assert_int_equal(charged(&w, EVENT_EXIT_PF_HIDDEN), 2);
	mmu_invlpg(mmu, gva(0x1000));
	assert_int_equal(charged(&w, EVENT_EXIT_INVLPG), 1);
	/* Hard mode's few tables are thrown away for want of room, too. */
	uint64_t flushes = charged(&w, EVENT_SHADOW_FLUSH);
	mmu_cr3_written(mmu, false);
	assert_int_equal(charged(&w, EVENT_EXIT_CR3_WRITE), 1);
	assert_int_equal(charged(&w, EVENT_SHADOW_FLUSH), flushes + 1);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_EXIT_PF_HIDDEN), 3);
	mmu_destroy(mmu);
	world_close(&w);
}

static void nested_violates_once_a_page(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	struct mmu *mmu = open_mmu(&w, "nested", &g);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_EXIT_NESTED_VIOLATION),
			 5); /* four tables and the page */
	assert_int_equal(charged(&w, EVENT_NESTED_FILL), 5);
	must_read(mmu, 0x2000, 0x1002000);
	assert_int_equal(charged(&w, EVENT_EXIT_NESTED_VIOLATION), 6);
	mmu_cr3_written(mmu, false);
	mmu_invlpg(mmu, gva(0x1000));
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_EXIT_NESTED_VIOLATION), 6);
	assert_int_equal(charged(&w, EVENT_EXIT_CR3_WRITE) + charged(&w, EVENT_EXIT_INVLPG), 0);
	assert_int_equal(charged(&w, EVENT_GUEST_CR3_WRITE), 1);
	mmu_memory_changed(mmu);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_EXIT_NESTED_VIOLATION), 11);
	mmu_destroy(mmu);
	world_close(&w);
}

static void a_clean_page_walks_again_for_its_first_write(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu_page page;
	struct page_fault fault;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	struct mmu *mmu = open_mmu(&w, "native", &g);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_AD_UPDATE), 4);
	assert_true(access_page(mmu, 0x1000, ACCESS_WRITE, MMU_USER, &page, &fault));
	assert_int_equal(charged(&w, EVENT_WALK_G1), 2);
	assert_int_equal(charged(&w, EVENT_AD_UPDATE), 5);
	assert_true(access_page(mmu, 0x1000, ACCESS_WRITE, MMU_USER, &page, &fault));
	assert_int_equal(charged(&w, EVENT_WALK_G1), 2);
	assert_non_null(mmu_fast_lookup(mmu, 0x1000, 0x1fff, ACCESS_WRITE, MMU_USER));
	assert_null(mmu_fast_lookup(mmu, 0x1fff, 0x2000, ACCESS_WRITE, MMU_USER));
	mmu_destroy(mmu);
	world_close(&w);
}

/* Every reference is answered by one cache, under every strategy; and data push tables out. */
static void each_reference_has_one_answer(void **state)
{
	static const struct {
		enum event walk, ref;
	} kinds[] = {{EVENT_WALK_G1, EVENT_REF_GUEST_L1},
		     {EVENT_WALK_H1, EVENT_REF_HOST_L1},
		     {EVENT_WALK_S1, EVENT_REF_SHADOW_L1}};
	struct cache_geometry caches = {{{1 << 10, 4}, {2 << 10, 4}, {8 << 10, 8}}};
	struct tlb_geometry g = geometry_tiny();
	const char *name;
	for (size_t s = 0; (name = mmu_strategy_name(s, NULL)); s++) {
		struct mmu_config config = {.strategy = name, .geometry = &g, .caches = &caches};
		struct world w;
		uint64_t total = 0;
		world_open(&w);
		flat_tables(&w, WORLD_4LEVEL, 600);
		struct mmu *mmu;
		assert_int_equal(mmu_create(&mmu, &config, &w.vcpu, w.memory, NULL), 0);
		for (unsigned i = 0; i < 20000; i++) {
			uint64_t at = world_below(&w, world_chance(&w, 50) ? 600 : 20) * 4096ull;
			must_read(mmu, at, 0x1000000 + at);
		}
		for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++) {
			uint64_t walks = sum(&w, kinds[k].walk, kinds[k].walk + 4);
			assert_int_equal(walks, sum(&w, kinds[k].ref, kinds[k].ref + 3));
			total += walks;
			assert_true(!walks || charged(&w, kinds[k].ref + CACHE_ARRAY_COUNT));
#ifndef GNOMON_HARD /* where all levels have two lines */
			for (unsigned level = 0; walks && level < CACHE_ARRAY_COUNT; level++)
				assert_true(charged(&w, kinds[k].ref + level));
#endif
		}
		assert_true(total > 20000);
		mmu_destroy(mmu);
		world_close(&w);
	}
}

static void data_push_page_tables_out(void **state)
{
	struct cache_geometry caches = {{{4 << 10, 64}, {0, 0}, {16 << 10, 16}}};
	struct tlb_geometry g = geometry_intel();
	struct mmu_config config = {.strategy = "native", .geometry = &g, .caches = &caches};
	struct world w;
	struct mmu *mmu;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	assert_int_equal(mmu_create(&mmu, &config, &w.vcpu, w.memory, NULL), 0);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_REF_GUEST_DRAM), 4);
	for (unsigned i = 0; i < 2; i++) {
		mmu_invlpg(mmu, gva(0x1000));
		must_read(mmu, 0x1000, 0x1001000);
	}
#ifndef GNOMON_HARD /* whose caches have two lines */
	assert_int_equal(charged(&w, EVENT_REF_GUEST_L1), 8);
	assert_int_equal(charged(&w, EVENT_REF_GUEST_DRAM), 4);
#endif
	for (uint64_t line = 0; line < (16 << 10) / 64; line++)
		mmu_data_line(mmu, 0x2000000 + line * 64);
	uint64_t before = charged(&w, EVENT_REF_GUEST_DRAM);
	mmu_invlpg(mmu, gva(0x1000));
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_REF_GUEST_DRAM), before + 4);
	mmu_destroy(mmu);
	world_close(&w);
}

/* SDM 3A 4.10.4.1: a page fault takes the TLB entry of its address with it. */
static void a_fault_drops_the_entry_it_met(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu_page page;
	struct page_fault fault;
	uint64_t next = 0x380000;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	world_map(&w, 0x1000, 0x1001000, 12, PTE_P | PTE_U, &next);
	struct mmu *mmu = open_mmu(&w, "native", &g);
	must_read(mmu, 0x1000, 0x1001000);
	world_map(&w, 0x1000, 0x1005000, 12, PTE_P | PTE_U, &next);
	must_read(mmu, 0x1000, 0x1001000); /* not invalidated yet */
	assert_false(access_page(mmu, 0x1000, ACCESS_WRITE, MMU_USER, &page, &fault));
	assert_int_equal(fault.error_code, PF_P | PF_W | PF_U);
	must_read(mmu, 0x1000, 0x1005000);
	mmu_destroy(mmu);
	world_close(&w);
}

static void watched_pages_are_not_written_fast(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu_page page;
	struct page_fault fault;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	struct mmu *mmu = open_mmu(&w, "native", &g);
	assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_WRITE, MMU_USER, &page, &fault));
	assert_int_equal(page.flags, 0);
	assert_non_null(mmu_fast_lookup(mmu, 0x1000, 0x1000, ACCESS_WRITE, MMU_USER));
	memory_set_page_flag(w.memory, gpa(0x1001000), PAGE_CODE);
	assert_null(mmu_fast_lookup(mmu, 0x1000, 0x1000, ACCESS_WRITE, MMU_USER));
	assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_WRITE, MMU_USER, &page, &fault));
	assert_int_equal(page.flags, PAGE_CODE);
	assert_null(mmu_fast_lookup(mmu, 0x1000, 0x1000, ACCESS_WRITE, MMU_USER));
	mmu_destroy(mmu);
	/* The listener went with its mmu. */
	memory_set_page_flag(w.memory, gpa(0x1002000), PAGE_CODE);
	world_close(&w);
}

static void without_paging_addresses_are_physical(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu_page page;
	struct page_fault fault;
	gpa_t at;
	world_open(&w);
	w.vcpu.state.cr0 = CR0_PE;
	struct mmu *mmu = open_mmu(&w, "shadow", &g);
	must_read(mmu, 0x12345, 0x12345);
	assert_non_null(mmu_fast_lookup(mmu, 0x12000, 0x12fff, ACCESS_READ, MMU_SUPERVISOR));
	assert_true(
		mmu_translate(mmu, gva(0xfee00010), ACCESS_READ, MMU_SUPERVISOR, &page, &fault));
	assert_null(page.host);
	assert_null(mmu_fast_lookup(mmu, 0xfee00000, 0xfee00000, ACCESS_READ, MMU_SUPERVISOR));
	assert_int_equal(sum(&w, EVENT_DTLB1_MISS, EVENT_TLB_MISS), 0);
	assert_true(mmu_peek(mmu, gva(0x777), &at) && at.v == 0x777);
	flat_tables(&w, WORLD_4LEVEL, 2);
	w.vcpu.state.cr0 |= CR0_PG;
	mmu_controls_changed(mmu, CR0_PE, 0, 0);
	must_read(mmu, 0x1000, 0x1001000);
	mmu_destroy(mmu);
	world_close(&w);
}

static void peeking_changes_nothing(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu_walk_step steps[6];
	gpa_t at;
	world_open(&w);
	flat_tables(&w, WORLD_5LEVEL, 2);
	struct mmu *mmu = open_mmu(&w, "nested", &g);
	struct ledger before = w.ledger;
	uint64_t entry = world_table(&w, 0x303000)[1];
	assert_true(mmu_peek(mmu, gva(0x1234), &at));
	assert_true(at.v == 0x1001234);
	assert_false(mmu_peek(mmu, gva(0x5000), &at));
	assert_false(mmu_peek(mmu, gva(1ull << 60), &at));
	assert_int_equal(mmu_walk_steps(mmu, gva(0x1234), steps), 6);
	assert_int_equal(steps[0].level, 5);
	assert_true(steps[0].entry_address.v == 0x200000);
	assert_int_equal(steps[5].level, 0);
	assert_true(steps[5].entry_address.v == 0x1001234);
	assert_int_equal(mmu_walk_steps(mmu, gva(0x5000), steps), 5);
	assert_int_equal(mmu_walk_steps(mmu, gva(1ull << 60), steps), 0);
	assert_memory_equal(&before, &w.ledger, sizeof(before));
	assert_true(world_table(&w, 0x303000)[1] == entry && mmu->use_clock == 0);
	mmu_destroy(mmu);
	world_close(&w);
}

static void pcids_keep_what_no_flush_says(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	w.vcpu.state.cr4 |= CR4_PCIDE | CR4_PGE;
	w.vcpu.state.cr3 |= 1;
	struct mmu *mmu = open_mmu(&w, "native", &g);
	must_read(mmu, 0x1000, 0x1001000);
	w.vcpu.state.cr3 = 0x200002;
	mmu_cr3_written(mmu, true);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_TLB_MISS), 2);
	w.vcpu.state.cr3 = 0x200001;
	mmu_cr3_written(mmu, true);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_TLB_MISS), 2);
	mmu_cr3_written(mmu, false);
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_TLB_MISS), 3);
	w.vcpu.state.cr3 = 0x200002;
	mmu_cr3_written(mmu, true);
	must_read(mmu, 0x1000, 0x1001000); /* the other space was not flushed */
	assert_int_equal(charged(&w, EVENT_TLB_MISS), 3);
	mmu_invpcid(mmu, 1, 1, gva(0));
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_TLB_MISS), 3);
	mmu_invpcid(mmu, 3, 0, gva(0));
	must_read(mmu, 0x1000, 0x1001000);
	assert_int_equal(charged(&w, EVENT_TLB_MISS), 4);
	mmu_destroy(mmu);
	world_close(&w);
}

static void untagged_tlbs_are_lost_with_every_exit(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	world_open(&w);
	flat_tables(&w, WORLD_4LEVEL, 4);
	for (unsigned tagged = 0; tagged < 2; tagged++) {
		g.tagged = tagged;
		struct mmu *native = open_mmu(&w, "native", &g),
			   *nested = open_mmu(&w, "nested", &g);
		must_read(native, 0x1000, 0x1001000);
		must_read(nested, 0x1000, 0x1001000);
		uint64_t misses = charged(&w, EVENT_TLB_MISS);
		mmu_note_engine_exit(native);
		must_read(native, 0x1000, 0x1001000);
		assert_int_equal(charged(&w, EVENT_TLB_MISS), misses);
		mmu_note_engine_exit(nested);
		must_read(nested, 0x1000, 0x1001000);
		assert_int_equal(charged(&w, EVENT_TLB_MISS), misses + !tagged);
		mmu_destroy(native);
		mmu_destroy(nested);
	}
	world_close(&w);
}

static void impossible_configurations_are_refused(void **state)
{
	struct tlb_geometry g = geometry_intel();
	static const struct mmu_config bad[] = {
		{.strategy = "nestled"},
		{.strategy = "nested", .host_levels = 6},
		{.strategy = "nested", .host_page_shift = 13},
		{.strategy = "nested", .host_levels = 1, .host_page_shift = 21},
		{.strategy = "nested", .host_levels = 2, .host_page_shift = 30},
	};
	struct world w;
	world_open(&w);
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		struct mmu_config config = bad[i];
		struct mmu *mmu;
		struct error e = {0};
		config.geometry = &g;
		assert_int_equal(mmu_create(&mmu, &config, &w.vcpu, w.memory, &e), -22);
		assert_null(mmu);
		if (i == 0)
			assert_non_null(strstr(e.text, "native, nested, shadow"));
	}
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_fast_map_is_invisible),
		cmocka_unit_test(walks_cost_the_references_that_theory_says),
		cmocka_unit_test(a_warm_shadow_miss_walks_the_shadow_alone),
		cmocka_unit_test(shadow_charges_its_exits),
		cmocka_unit_test(nested_violates_once_a_page),
		cmocka_unit_test(a_clean_page_walks_again_for_its_first_write),
		cmocka_unit_test(each_reference_has_one_answer),
		cmocka_unit_test(data_push_page_tables_out),
		cmocka_unit_test(a_fault_drops_the_entry_it_met),
		cmocka_unit_test(watched_pages_are_not_written_fast),
		cmocka_unit_test(without_paging_addresses_are_physical),
		cmocka_unit_test(peeking_changes_nothing),
		cmocka_unit_test(pcids_keep_what_no_flush_says),
		cmocka_unit_test(untagged_tlbs_are_lost_with_every_exit),
		cmocka_unit_test(impossible_configurations_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
