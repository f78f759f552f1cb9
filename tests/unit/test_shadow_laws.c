/*
 * The shadow core against hostile guests: tables that contain and map each other, changed by every
 * kind of write through every kind of mapping, with all the ways a guest has to invalidate. The
 * judges are the verifier at each miss, a second look at each answer, and the audit.
 */
#include "paging_world.h"

#include "paging/mmu_private.h"

#ifdef GNOMON_HARD
#define ROUNDS 6u
#else
#define ROUNDS 60u
#endif
#define OPERATIONS 500u

static const char *const strategies[] = {
	"shadow",
	"shadow:host-page=1G:limit=64K",
	"shadow-sync",
	"shadow-sync:host-page=2M:limit=64K:pf-filter=on",
	"shadow-prefetch:pf-filter=on",
	"shadow-prefetch:prefetch=5:host-page=1G:limit=64K",
	"shadow-cache",
	"shadow-cache:host-page=2M:limit=64K:pf-filter=on",
	"shadow-cache:host-page=1G:prefetch=table:roots=2:cr3-exits=off",
	"shadow-cache:sync=oos",
	"shadow-cache:sync=oos:host-page=2M:pf-filter=on:prefetch=8:limit=64K",
	"shadow-cache:sync=oos:host-page=1G:roots=1:cr3-exits=off",
	"agile:interval=20000",
	"agile:interval=9000:host-page=2M:limit=64K:host-levels=5",
};

static const char *running;

static void is_right(const struct mmu *mmu)
{
	if (mmu->difference)
		fail_msg("%s: %s", running, mmu->difference);
}

static void is_sound(const struct mmu *mmu)
{
	char why[200];
	is_right(mmu);
	if (!mmu_audit(mmu, why, sizeof(why)))
		fail_msg("%s: %s", running, why);
}

static uint64_t random_table(struct world *w)
{
	return WORLD_TABLES + world_below(w, WORLD_TABLE_PAGES) * 4096ull;
}

/* Like the world's, but half of the leaves map tables. */
static uint64_t random_entry(struct world *w)
{
	uint64_t e = world_random_entry(w, 1 + world_below(w, 4));
	if (world_chance(w, 40))
		e = random_table(w) | (e & ~0x000ffffffffff080ull) | PTE_P;
	if (world_chance(w, 10))
		e = (e & 0xf7f) | PTE_PS | PTE_P; /* a large page over all tables */
	if (world_chance(w, 70))
		e |= PTE_W | PTE_U;
	return e;
}

static void random_tables(struct world *w)
{
	bool is_wide = w->vcpu.state.cr4 & CR4_PAE;
	world_random_tables(w);
	for (unsigned i = 0; i < WORLD_TABLE_PAGES * 4; i++) {
		uint64_t at = random_table(w) + world_indexes[world_below(w, 6)] * 8, e;
		e = random_entry(w);
		memcpy(memory_host(w->memory, gpa(at), 8), &e, is_wide ? 8 : 4);
	}
}

/* Bytes as a guest may store them: entries, parts of them, many at once, across entries. */
static unsigned random_bytes(struct world *w, uint8_t bytes[64])
{
	static const uint8_t sizes[] = {1, 2, 4, 8, 8, 8, 16, 32, 64};
	for (unsigned i = 0; i < 64; i += 8) {
		uint64_t e = world_chance(w, 30) ? 0 : random_entry(w);
		memcpy(bytes + i, &e, 8);
	}
	return sizes[world_below(w, ARRAY_COUNT(sizes))];
}

static unsigned random_offset(struct world *w, unsigned size_bytes)
{
	unsigned offset = world_indexes[world_below(w, 6)] * 8;
	if (world_chance(w, 15))
		offset += world_below(w, 8);
	return offset + size_bytes > 4096 ? 4096 - size_bytes : offset;
}

/* One access as an engine does it; a write stores something. */
static void guest_access(struct world *w, struct mmu *mmu)
{
	uint8_t bytes[64];
	unsigned size_bytes = random_bytes(w, bytes);
	struct mmu_page page;
	struct page_fault fault;
	enum access_kind kind = (enum access_kind)world_below(w, 3);
	enum mmu_mode mode = (enum mmu_mode)world_below(w, 3);
	uint64_t at = (world_random_gva(w) & ~0xfffull) + random_offset(w, size_bytes);
	struct oracle o = oracle_ask(w, at, kind, mode);
	if (!mmu_translate(mmu, gva(at), kind, mode, &page, &fault))
		assert_true(!o.ok && o.error_code == fault.error_code);
	else if (kind == ACCESS_WRITE && page.host) {
		memcpy(page.host, bytes, size_bytes);
		if (page.flags)
			memory_notify_write(w->memory, page.gpa, size_bytes);
	}
}

static void device_write(struct world *w)
{
	uint8_t bytes[64];
	unsigned size_bytes = random_bytes(w, bytes);
	uint64_t at = random_table(w) + random_offset(w, size_bytes);
	if (world_chance(w, 20))
		at = (at | 0xfff) - size_bytes / 2; /* across pages */
	memory_write(w->memory, gpa(at), bytes, size_bytes);
}

static void load_cr3(struct world *w, struct mmu *mmu)
{
	struct vcpu_state *s = &w->vcpu.state;
	bool is_kept = (s->cr4 & CR4_PCIDE) && world_chance(w, 50);
	if (world_chance(w, 80))
		s->cr3 = WORLD_TABLES + world_below(w, 3) * 4096ull;
	if (s->cr4 & CR4_PCIDE)
		s->cr3 |= world_below(w, 3);
	if (world_chance(w, 50))
		s->pdpte[world_below(w, 4)] = random_table(w) | PTE_P;
	mmu_cr3_written(mmu, is_kept);
}

static void change_controls(struct world *w, struct mmu *mmu)
{
	struct vcpu_state *s = &w->vcpu.state;
	uint64_t cr0 = s->cr0, cr4 = s->cr4, efer = s->efer;
	switch (world_below(w, 8)) {
	case 0:
	case 1: s->cr0 ^= CR0_WP; break;
	case 2: s->cr4 ^= CR4_SMEP; break;
	case 3: s->cr4 ^= CR4_SMAP; break;
	case 4: s->cr4 ^= CR4_PGE; break;
	case 5: s->cr4 ^= s->efer & EFER_LMA ? CR4_PCIDE : CR4_PGE; break;
	case 6: s->efer ^= EFER_NXE; break;
	default: s->cr4 ^= CR4_PSE;
	}
	mmu_controls_changed(mmu, cr0, cr4, efer);
}

static void operate(struct world *w, struct mmu *mmu)
{
	unsigned dice = world_below(w, 100);
	ledger_charge_many(&w->ledger, EVENT_INSTRUCTION, 100);
	if (dice < 75)
		guest_access(w, mmu);
	else if (dice < 82)
		device_write(w);
	else if (dice < 87)
		load_cr3(w, mmu);
	else if (dice < 93)
		mmu_invlpg(mmu, gva(world_random_gva(w)));
	else if (dice < 95)
		mmu_invpcid(mmu, world_below(w, 4), world_below(w, 3), gva(world_random_gva(w)));
	else if (dice < 97)
		mmu_note_engine_exit(mmu);
	else if (dice < 99)
		change_controls(w, mmu);
	else
		w->vcpu.state.pdpte[world_below(w, 4)] = random_table(w) | PTE_P;
}

static struct mmu *open_strategy(struct world *w, const char *text, const struct tlb_geometry *g)
{
	struct mmu_config config = {.geometry = g, .verify = true};
	struct mmu *mmu;
	running = text;
	assert_int_equal(mmu_parse_strategy(text, &config, NULL), 0);
	assert_int_equal(mmu_create(&mmu, &config, &w->vcpu, w->memory, NULL), 0);
	return mmu;
}

static void hostile_guests_get_no_wrong_answer(void **state)
{
	struct tlb_geometry shapes[] = {geometry_tiny(), geometry_intel(), geometry_amd()};
	for (unsigned v = 0; v < ARRAY_COUNT(strategies); v++) {
		struct world w;
		world_open(&w);
		w.random += v;
		struct mmu *mmu = open_strategy(&w, strategies[v], &shapes[v % 3]);
		for (unsigned round = 0; round < ROUNDS; round++) {
			world_random_controls(&w);
			random_tables(&w);
			mmu_reset(mmu);
			for (unsigned i = 0; i < OPERATIONS; i++) {
				operate(&w, mmu);
				is_right(mmu);
				if (i % 50 == 0)
					is_sound(mmu);
			}
			is_sound(mmu);
		}
		mmu_destroy(mmu);
		world_close(&w);
	}
}

/* All of them at once on one guest, each watching its own set of tables. */
static void many_watch_one_guest(void **state)
{
	struct tlb_geometry g = geometry_intel();
	for (unsigned primary = 0; primary < 3; primary++) {
		struct world w;
		struct ledger ledgers[ARRAY_COUNT(strategies)] = {0};
		world_open(&w);
		w.random += primary;
		world_random_controls(&w);
		random_tables(&w);
		struct mmu *mmu = open_strategy(
			&w, primary ? strategies[6 + 3 * (primary - 1)] : "native", &g);
		for (unsigned v = 0; v < ARRAY_COUNT(strategies); v++) {
			struct mmu_config config = {.geometry = &g};
			assert_int_equal(mmu_parse_strategy(strategies[v], &config, NULL), 0);
			assert_int_equal(mmu_add_observer(mmu, &config, &ledgers[v], NULL), 0);
		}
		for (unsigned round = 0; round < ROUNDS; round++) {
			world_random_controls(&w);
			random_tables(&w);
			mmu_reset(mmu);
			for (unsigned i = 0; i < OPERATIONS; i++) {
				operate(&w, mmu);
				is_right(mmu);
			}
			for (unsigned v = 0; v < ARRAY_COUNT(strategies); v++) {
				running = strategies[v];
				is_sound(mmu_observer(mmu, v));
			}
		}
		mmu_destroy(mmu);
		for (uint64_t page = 0; page < w.memory->page_count; page++)
			assert_false(w.memory->page_flags[page] & PAGE_TABLE);
		world_close(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_guests_get_no_wrong_answer),
		cmocka_unit_test(many_watch_one_guest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
