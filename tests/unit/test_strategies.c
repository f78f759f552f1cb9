/*
 * Laws that hold for every strategy in the catalogue: the translation, the fault and the accessed
 * and dirty bits are those of the manual, and a retaining strategy is never older than the guest's
 * last invalidation.
 */
#include "paging_world.h"

#include "paging/mmu_private.h"

/* As --paging takes them. */
static const char *const variants[] = {
	"native",
	"nested",
	"nested:host-page=2M",
	"nested:host-levels=5:host-page=1G",
	"nested:host-levels=1",
	"nested:host-levels=2:host-page=2M",
	"nested:tables=confined:host-page=2M:walk-cache=2d",
	"nested:tables=scattered:host-levels=3:nested-tlb=4",
	"shadow",
	"shadow:host-page=2M",
	"shadow:host-page=1G",
	"shadow-sync",
	"shadow-sync:host-page=1G:pf-filter=on",
	"shadow-prefetch:pf-filter=on",
	"shadow-prefetch:prefetch=8:host-page=2M",
	"shadow-cache",
	"shadow-cache:host-page=1G:limit=64K:pf-filter=on",
	"shadow-cache:prefetch=table:roots=2:cr3-exits=off:host-page=2M",
	"shadow-cache:sync=oos",
	"shadow-cache:sync=oos:pf-filter=on:prefetch=8:limit=64K:host-page=1G",
	"shadow-cache:sync=oos:roots=1:cr3-exits=off:host-page=2M",
	"agile",
	"agile:host-page=1G:host-levels=3",
};

static struct mmu *open_variant(struct world *w, const char *text, const struct tlb_geometry *g)
{
	struct mmu_config config = {.geometry = g, .verify = true};
	struct mmu *mmu;
	assert_int_equal(mmu_parse_strategy(text, &config, NULL), 0);
	assert_int_equal(mmu_create(&mmu, &config, &w->vcpu, w->memory, NULL), 0);
	return mmu;
}

static void no_difference(const struct mmu *mmu)
{
	if (mmu->difference)
		fail_msg("%s", mmu->difference);
}

/* Looks at every page of RAM: now and then only. */
static void is_sound(const struct mmu *mmu)
{
	char why[200];
	no_difference(mmu);
	if (!mmu_audit(mmu, why, sizeof(why)))
		fail_msg("%s", why);
}

/* One access against the oracle: the answer, and every byte of the tables after it. */
static void checked_access(struct world *w, struct mmu *mmu, uint64_t at, enum access_kind kind,
			   enum mmu_mode mode)
{
	size_t bytes = WORLD_TABLE_PAGES * 4096;
	static uint8_t before[WORLD_TABLE_PAGES * 4096], after[WORLD_TABLE_PAGES * 4096];
	struct mmu_page page;
	struct page_fault fault;
	struct oracle o = oracle_ask(w, at, kind, mode);
	memory_read(w->memory, gpa(WORLD_TABLES), before, bytes);
	oracle_commit(w, &o, kind);
	memory_read(w->memory, gpa(WORLD_TABLES), after, bytes);
	memcpy(memory_host(w->memory, gpa(WORLD_TABLES), bytes), before, bytes);
	bool ok = mmu_translate(mmu, gva(at), kind, mode, &page, &fault);
	no_difference(mmu);
	assert_int_equal(ok, o.ok);
	world_has_tables(w, after);
	if (!ok) {
		assert_int_equal(fault.error_code, o.error_code);
		assert_true(fault.address.v == at);
		return;
	}
	assert_true(page.gpa.v == o.gpa);
	assert_ptr_equal(page.host, memory_host(w->memory, gpa(o.gpa), 1));
}

static void every_strategy_answers_as_the_manual(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	world_open(&w);
	for (unsigned v = 0; v < ARRAY_COUNT(variants); v++) {
		struct mmu *mmu = open_variant(&w, variants[v], &g);
		for (unsigned round = 0; round < 120; round++) {
			world_random_controls(&w);
			world_random_tables(&w);
			for (unsigned i = 0; i < 25; i++) {
				mmu_reset(mmu);
				checked_access(&w, mmu, world_random_gva(&w),
					       (enum access_kind)world_below(&w, 3),
					       (enum mmu_mode)world_below(&w, 3));
			}
			is_sound(mmu);
		}
		mmu_destroy(mmu);
	}
	world_close(&w);
}

/* Many accesses between flushes: TLBs, shadow flavours and splinters in play, the tables only
 * touched by A and D. */
static void warm_structures_answer_as_cold_ones(void **state)
{
	struct tlb_geometry shapes[] = {geometry_intel(), geometry_amd(), geometry_tiny()};
	struct world w;
	world_open(&w);
	for (unsigned v = 0; v < ARRAY_COUNT(variants); v++) {
		struct mmu *mmu = open_variant(&w, variants[v], &shapes[v % 3]);
		for (unsigned round = 0; round < 150; round++) {
			world_random_controls(&w);
			world_random_tables(&w);
			mmu_reset(mmu);
			uint64_t some[4];
			for (unsigned i = 0; i < 4; i++)
				some[i] = world_random_gva(&w) & ~0xfffull;
			for (unsigned i = 0; i < 60; i++) {
				struct mmu_page page;
				struct page_fault fault;
				uint64_t at = some[world_below(&w, 4)];
				enum access_kind kind = (enum access_kind)world_below(&w, 3);
				enum mmu_mode mode = (enum mmu_mode)world_below(&w, 3);
				if (world_chance(&w, 10))
					at ^= 0x40000 + 0x1000;
				struct oracle o = oracle_ask(&w, at, kind, mode);
				bool ok = mmu_translate(mmu, gva(at), kind, mode, &page, &fault);
				no_difference(mmu);
				assert_int_equal(ok, o.ok);
				assert_true(ok ? page.gpa.v == o.gpa
					       : fault.error_code == o.error_code);
			}
			is_sound(mmu);
		}
		mmu_destroy(mmu);
	}
	world_close(&w);
}

static void change_some_entry(struct world *w)
{
	unsigned page = world_below(w, WORLD_TABLE_PAGES);
	unsigned index = world_indexes[world_below(w, ARRAY_COUNT(world_indexes))];
	uint64_t e = world_random_entry(w, 1 + page % 5);
	bool is_wide = w->vcpu.state.cr4 & CR4_PAE;
	uint64_t at = WORLD_TABLES + page * 4096ull + index * 8;
	memory_write(w->memory, gpa(at), &e, is_wide ? 8 : 4);
}

/* The guest changes entries and flushes afterwards: what it sees then is new. */
static void after_a_flush_nothing_old_remains(void **state)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	world_open(&w);
	for (unsigned v = 0; v < ARRAY_COUNT(variants); v++) {
		struct mmu *mmu = open_variant(&w, variants[v], &g);
		for (unsigned round = 0; round < 60; round++) {
			world_random_controls(&w);
			w.vcpu.state.cr4 &= ~CR4_PGE; /* CR3 writes take everything */
			world_random_tables(&w);
			mmu_reset(mmu);
			for (unsigned i = 0; i < 40; i++) {
				change_some_entry(&w);
				mmu_cr3_written(mmu, false);
				for (unsigned n = 0; n < 3; n++)
					checked_access(&w, mmu, world_random_gva(&w),
						       (enum access_kind)world_below(&w, 3),
						       (enum mmu_mode)world_below(&w, 3));
			}
			is_sound(mmu);
		}
		mmu_destroy(mmu);
	}
	world_close(&w);
}

/* The guest changes entries and says nothing, or invalidates just one page: old answers are legal,
 * invented ones are not, and the invalidated page is new. */
static void stale_answers_are_only_legal_ones(void **state)
{
	struct tlb_geometry g = geometry_tiny();
	struct world w;
	world_open(&w);
	for (unsigned v = 0; v < ARRAY_COUNT(variants); v++) {
		struct mmu *mmu = open_variant(&w, variants[v], &g);
		for (unsigned round = 0; round < 120; round++) {
			world_random_controls(&w);
			world_random_tables(&w);
			mmu_reset(mmu);
			for (unsigned i = 0; i < 100; i++) {
				struct mmu_page page;
				struct page_fault fault;
				if (world_chance(&w, 20))
					change_some_entry(&w);
				if (world_chance(&w, 10)) {
					uint64_t at = world_random_gva(&w);
					mmu_invlpg(mmu, gva(at));
					checked_access(&w, mmu, at,
						       (enum access_kind)world_below(&w, 3),
						       (enum mmu_mode)world_below(&w, 3));
				}
				mmu_translate(mmu, gva(world_random_gva(&w)),
					      (enum access_kind)world_below(&w, 3),
					      (enum mmu_mode)world_below(&w, 3), &page, &fault);
				no_difference(mmu);
			}
			is_sound(mmu);
		}
		mmu_destroy(mmu);
	}
	world_close(&w);
}

/* INVLPG reaches all of a large page, from any address in it, however it was splintered. */
static void invlpg_drops_whole_large_pages(void **state)
{
	static const struct {
		enum world_mode mode;
		unsigned shift;
	} rows[] = {{WORLD_32BIT, 22}, {WORLD_PAE, 21}, {WORLD_4LEVEL, 21}, {WORLD_4LEVEL, 30}};
	struct tlb_geometry g = geometry_amd();
	for (unsigned v = 0; v < ARRAY_COUNT(variants); v++) {
		for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
			struct world w;
			struct mmu_page page;
			struct page_fault fault;
			uint64_t next = 0x300000, at = 1ull << 30, size = 1ull << rows[i].shift;
			world_open(&w);
			w.vcpu.state.cr4 = CR4_PSE | CR4_PGE;
			world_set_mode(&w, rows[i].mode);
			w.vcpu.state.cr3 = 0x200000;
			for (unsigned n = 0; n < 4; n++)
				w.vcpu.state.pdpte[n] = (0x201000 + n * 4096) | PTE_P;
			world_map(&w, at, 0, rows[i].shift, PTE_P | PTE_W | PTE_G, &next);
			struct mmu *mmu = open_variant(&w, variants[v], &g);
			for (unsigned n = 0; n < 8; n++) {
				uint64_t a = at + n * (0x400000 / 8);
				if (a < at + size)
					assert_true(mmu_translate(mmu, gva(a), ACCESS_READ,
								  MMU_SUPERVISOR, &page, &fault));
			}
			/* Not present any more; one INVLPG at the page's end. */
			world_map(&w, at, 0, rows[i].shift, 0, &next);
			mmu_invlpg(mmu, gva(at + size - 1));
			for (unsigned n = 0; n < 8; n++) {
				uint64_t a = at + n * (0x400000 / 8);
				if (a < at + size)
					assert_false(mmu_translate(mmu, gva(a), ACCESS_READ,
								   MMU_SUPERVISOR, &page, &fault));
			}
			no_difference(mmu);
			mmu_destroy(mmu);
			world_close(&w);
		}
	}
}

/* CR0.WP off: the supervisor writes to a read-only user page, and the user still cannot. */
static void write_protect_off_needs_two_flavours(void **state)
{
	struct tlb_geometry g = geometry_intel();
	for (unsigned v = 0; v < ARRAY_COUNT(variants); v++) {
		for (unsigned smap = 0; smap < 2; smap++) {
			struct world w;
			struct mmu_page page;
			struct page_fault fault;
			uint64_t next = 0x300000;
			world_open(&w);
			world_set_mode(&w, WORLD_4LEVEL);
			w.vcpu.state.cr0 &= ~CR0_WP;
			w.vcpu.state.cr4 |= CR4_SMEP | (smap ? CR4_SMAP : 0);
			w.vcpu.state.cr3 = 0x200000;
			world_map(&w, 0x1000, 0x5000, 12, PTE_P | PTE_U, &next);
			struct mmu *mmu = open_variant(&w, variants[v], &g);
			enum mmu_mode kernel = smap ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
			for (unsigned n = 0; n < 3; n++) {
				assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_READ, MMU_USER,
							  &page, &fault));
				assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_WRITE, kernel,
							  &page, &fault));
				assert_false(mmu_translate(mmu, gva(0x1000), ACCESS_FETCH,
							   MMU_SUPERVISOR, &page, &fault));
				assert_int_equal(fault.error_code, PF_P | PF_I);
				assert_int_equal(mmu_translate(mmu, gva(0x1000), ACCESS_READ,
							       MMU_SUPERVISOR, &page, &fault),
						 !smap);
				assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_FETCH, MMU_USER,
							  &page, &fault));
				assert_false(mmu_translate(mmu, gva(0x1000), ACCESS_WRITE, MMU_USER,
							   &page, &fault));
				assert_int_equal(fault.error_code, PF_P | PF_W | PF_U);
			}
			no_difference(mmu);
			mmu_destroy(mmu);
			world_close(&w);
		}
	}
}

/* More pages than a small shadow pool, and than any TLB. */
static void large_working_sets_survive_eviction(void **state)
{
	struct tlb_geometry g = geometry_tiny();
	for (unsigned v = 0; v < ARRAY_COUNT(variants); v++) {
		struct world w;
		struct mmu_page page;
		struct page_fault fault;
		uint64_t next = 0x300000;
		world_open(&w);
		world_set_mode(&w, WORLD_4LEVEL);
		w.vcpu.state.cr3 = 0x200000;
		for (unsigned i = 0; i < 64; i++)
			world_map(&w, i * 0x8000201000ull, 0x1000000 + i * 4096ull, 12,
				  PTE_P | PTE_W | PTE_U, &next);
		struct mmu *mmu = open_variant(&w, variants[v], &g);
		for (unsigned n = 0; n < 2000; n++) {
			unsigned i = world_below(&w, 64);
			assert_true(mmu_translate(mmu, gva(i * 0x8000201000ull), ACCESS_WRITE,
						  MMU_USER, &page, &fault));
			assert_true(page.gpa.v == 0x1000000 + i * 4096ull);
		}
		no_difference(mmu);
		mmu_destroy(mmu);
		world_close(&w);
	}
}

/* The verifier itself. A shadow entry whose guest entry changed is legal until INVLPG; a
 * translation that the tables never gave is not. */
static void verify_tells_old_from_wrong(void **state)
{
	struct tlb_geometry g = geometry_tiny();
	struct world w;
	struct mmu_page page;
	struct page_fault fault;
	uint64_t next = 0x300000;
	world_open(&w);
	world_set_mode(&w, WORLD_4LEVEL);
	w.vcpu.state.cr3 = 0x200000;
	world_map(&w, 0x1000, 0x5000, 12, PTE_P | PTE_W, &next);
	struct mmu *mmu = open_variant(&w, "shadow", &g);
	assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_READ, MMU_SUPERVISOR, &page, &fault));
	world_map(&w, 0x1000, 0, 12, 0, &next);
	mmu_note_engine_exit(mmu); /* the TLB forgets, the shadow does not */
	assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_READ, MMU_SUPERVISOR, &page, &fault));
	no_difference(mmu);
	/* The guest loads CR3 and nobody tells the shadow, as a bug would: only the verifier knows.
	 */
	verify_flush(mmu->private->verify);
	mmu_note_engine_exit(mmu);
	assert_true(mmu_translate(mmu, gva(0x1000), ACCESS_READ, MMU_SUPERVISOR, &page, &fault));
	assert_non_null(mmu->difference);
	assert_non_null(strstr(mmu->difference, "shadow: gpa 0x5000"));
	assert_non_null(strstr(mmu->difference, "reference: fault 0;"));
	mmu_destroy(mmu);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_strategy_answers_as_the_manual),
		cmocka_unit_test(warm_structures_answer_as_cold_ones),
		cmocka_unit_test(after_a_flush_nothing_old_remains),
		cmocka_unit_test(stale_answers_are_only_legal_ones),
		cmocka_unit_test(invlpg_drops_whole_large_pages),
		cmocka_unit_test(write_protect_off_needs_two_flavours),
		cmocka_unit_test(large_working_sets_survive_eviction),
		cmocka_unit_test(verify_tells_old_from_wrong),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
