/* `nested`: what its host tables and the place of the guest's tables cost. */
#include "paging_world.h"

#include "paging/host_physical.h"

/* One page under each of `count` page tables of its own, and a table of level 2 for each. */
#define TABLE_SETS 16u

static struct mmu *open_world(struct world *w, const char *text)
{
	struct tlb_geometry g = geometry_tiny();
	static struct tlb_geometry kept;
	struct mmu_config config = {.verify = true};
	uint64_t next = 0x300000;
	struct mmu *mmu;
	g.tagged = true;
	kept = g;
	world_open(w);
	world_set_mode(w, WORLD_4LEVEL);
	w->vcpu.state.cr3 = 0x200000;
	for (uint64_t i = 0; i < TABLE_SETS; i++) {
		world_map(w, i << 30, 0x1000000 + i * 4096, 12, PTE_P | PTE_W, &next);
		next += 0x200000; /* the guest's own tables lie apart too */
	}
	assert_int_equal(mmu_parse_strategy(text, &config, NULL), 0);
	config.geometry = &kept;
	assert_int_equal(mmu_create(&mmu, &config, &w->vcpu, w->memory, NULL), 0);
	return mmu;
}

static void touch_all(struct mmu *mmu)
{
	struct mmu_page page;
	struct page_fault fault;
	for (uint64_t i = 0; i < TABLE_SETS; i++) {
		assert_true(mmu_translate(mmu, gva(i << 30), ACCESS_READ, MMU_SUPERVISOR, &page,
					  &fault));
		assert_true(page.gpa.v == 0x1000000 + i * 4096);
		if (mmu->difference)
			fail_msg("%s", mmu->difference);
	}
}

/* Root, level 3, and for each set level 2 and level 1. */
#define TABLES (2 + 2 * TABLE_SETS)

static void the_place_of_tables_decides_who_locates_them(void **state)
{
	static const struct {
		const char *text;
		unsigned violations;
	} rows[] = {
		{"nested", TABLES + TABLE_SETS},
		{"nested:host-page=2M", TABLE_SETS}, /* a 2M region each; the data is in one */
		{"nested:host-page=2M:tables=confined", 1 + 1},
		{"nested:host-page=2M:tables=scattered", TABLES + 1},
		{"nested:tables=confined", TABLES + TABLE_SETS},
		{"nested:host-page=1G:tables=scattered", 1 + 1},
		{"nested:host-levels=1:tables=scattered", TABLES + TABLE_SETS},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct world w;
		struct mmu *mmu = open_world(&w, rows[i].text);
		touch_all(mmu);
		assert_int_equal(ledger_total(&w.ledger, EVENT_EXIT_NESTED_VIOLATION),
				 rows[i].violations);
		assert_int_equal(ledger_total(&w.ledger, EVENT_NESTED_FILL), rows[i].violations);
		touch_all(mmu);
		assert_int_equal(ledger_total(&w.ledger, EVENT_EXIT_NESTED_VIOLATION),
				 rows[i].violations);
		mmu_memory_changed(mmu); /* everything anew */
		touch_all(mmu);
		assert_int_equal(ledger_total(&w.ledger, EVENT_EXIT_NESTED_VIOLATION),
				 2 * rows[i].violations);
		mmu_destroy(mmu);
		world_close(&w);
	}
}

static uint64_t host_references(const char *text)
{
	struct world w;
	struct mmu *mmu = open_world(&w, text);
	uint64_t n = 0;
	for (unsigned i = 0; i < 10; i++) {
		touch_all(mmu);
		mmu_invlpg(mmu, gva(0)); /* guest entries go, the host's stay */
	}
	for (enum event e = EVENT_WALK_H1; e <= EVENT_WALK_H5; e++)
		n += ledger_total(&w.ledger, e);
	mmu_destroy(mmu);
	world_close(&w);
	return n;
}

/* Without caches of host entries the place does not matter; with them it is what matters. */
static void confined_tables_are_located_with_fewer_references(void **state)
{
#ifdef GNOMON_HARD
	skip();
#endif
	uint64_t scattered = host_references("nested:tables=scattered:walk-cache=none");
	uint64_t confined = host_references("nested:tables=confined:walk-cache=none");
	assert_true(confined > 0 && scattered * 10 < confined * 12);
	scattered = host_references("nested:tables=scattered:walk-cache=2d");
	confined = host_references("nested:tables=confined:walk-cache=2d");
	assert_true(scattered > confined + confined / 10);
}

static void every_table_has_one_place_and_keeps_it(void **state)
{
	struct placed_tables p;
	struct world w = {.random = 5};
	static uint64_t place[1u << 17];
	for (unsigned shift = 12; shift <= 21; shift += 9) {
		uint64_t base = 1ull << 40;
		memset(place, 0, sizeof(place));
		assert_int_equal(placed_tables_init(&p, gpa(base), shift, NULL), 0);
		for (unsigned i = 0; i < 400000; i++) {
			uint64_t gfn = world_below(&w, 1u << 17);
			gpa_t at = placed_tables_place(&p, gpa(gfn << 12 | 0x38));
			if (!place[gfn])
				place[gfn] = at.v;
			assert_true(place[gfn] == at.v);
			if (!placed_tables_has(&p, at)) {
				assert_int_equal(p.count, PLACED_TABLES_MAX);
				assert_true(at.v == (gfn << 12 | 0x38));
				continue;
			}
			assert_int_equal((at.v - base) & ((1ull << shift) - 1), 0x38);
			assert_true(placed_tables_origin(&p, at).v == (gfn << 12 | 0x38));
		}
		assert_int_equal(p.count, PLACED_TABLES_MAX);
		placed_tables_fini(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_place_of_tables_decides_who_locates_them),
		cmocka_unit_test(confined_tables_are_located_with_fewer_references),
		cmocka_unit_test(every_table_has_one_place_and_keeps_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
