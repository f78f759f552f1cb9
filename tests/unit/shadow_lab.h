/*
 * A guest for the tests of the shadow strategies: tables that it maps, stores through its own
 * mappings, counts since a mark; the audit runs after each step.
 */
#pragma once

#include "paging_world.h"

#include "paging/mmu_private.h"

#define ROOT 0x200000ull /* of the first space; PML4 or the like */
#define ROOT2 0x201000ull
#define AT 0x40000000ull	   /* a page that tests map */
#define PAGE 0x800000ull	   /* where to */
#define TABLE_WINDOW 0x7f000000ull /* where tests map tables */
#define RW (PTE_P | PTE_W | PTE_U)

struct lab {
	struct world w;
	struct tlb_geometry g;
	struct mmu *mmu;
	uint64_t next; /* free page for tables */
	struct ledger before;
};

static inline void lab_open(struct lab *l, enum world_mode mode)
{
	*l = (struct lab){.next = 0x300000};
	world_open(&l->w);
	world_set_mode(&l->w, mode);
	l->g = geometry_intel();
	l->w.vcpu.state.cr3 = ROOT;
	l->w.vcpu.state.cr4 |= CR4_PSE;
	l->w.vcpu.state.efer |= EFER_NXE;
	for (unsigned i = 0; mode == WORLD_PAE && i < 4; i++)
		l->w.vcpu.state.pdpte[i] = (ROOT + 0x10000 + i * 4096) | PTE_P;
}

static inline void lab_start(struct lab *l, const char *strategy)
{
	struct mmu_config config = {.geometry = &l->g, .verify = true};
	struct error e = {0};
	if (mmu_parse_strategy(strategy, &config, &e))
		fail_msg("%s", e.text);
	assert_int_equal(mmu_create(&l->mmu, &config, &l->w.vcpu, l->w.memory, NULL), 0);
}

static inline void is_sound(const struct mmu *mmu)
{
	char why[200];
	if (mmu->difference)
		fail_msg("%s", mmu->difference);
	if (!mmu_audit(mmu, why, sizeof(why)))
		fail_msg("%s", why);
}

static inline void lab_stop(struct lab *l)
{
	is_sound(l->mmu);
	mmu_destroy(l->mmu);
	l->mmu = NULL;
}

static inline void map(struct lab *l, uint64_t at, uint64_t to, uint64_t flags)
{
	world_map(&l->w, at, to, 12, flags, &l->next);
}

/* From here on the counts are since now. */
static inline void mark(struct lab *l)
{
	l->before = l->w.ledger;
}

static inline uint64_t counted(const struct lab *l, enum event e)
{
	return ledger_total(&l->w.ledger, e) - ledger_total(&l->before, e);
}

static inline void counts(const struct lab *l, enum event e, uint64_t n)
{
#ifndef GNOMON_HARD
	if (counted(l, e) != n)
		fail_msg("%s: %llu, not %llu", event_name(e), (unsigned long long)counted(l, e),
			 (unsigned long long)n);
#endif
}

static inline bool touch(struct lab *l, uint64_t at, enum access_kind kind, enum mmu_mode mode,
			 uint64_t *gpa_out)
{
	struct mmu_page page;
	struct page_fault fault;
	bool ok = mmu_translate(l->mmu, gva(at), kind, mode, &page, &fault);
	is_sound(l->mmu);
	if (gpa_out)
		*gpa_out = ok ? page.gpa.v : fault.error_code;
	return ok;
}

static inline void reads(struct lab *l, uint64_t at, uint64_t expected)
{
	uint64_t got;
	assert_true(touch(l, at, ACCESS_READ, MMU_SUPERVISOR, &got));
	assert_int_equal(got, expected);
}

static inline void faults(struct lab *l, uint64_t at, enum access_kind kind, enum mmu_mode mode,
			  uint32_t code)
{
	uint64_t got;
	assert_false(touch(l, at, kind, mode, &got));
	assert_int_equal(got, code);
}

/* A guest's store through its own mapping. */
static inline void store(struct lab *l, uint64_t at, const void *bytes, unsigned size_bytes)
{
	while (size_bytes) {
		struct mmu_page page;
		struct page_fault fault;
		unsigned room = (unsigned)(4096 - (at & 4095));
		unsigned n = size_bytes < room ? size_bytes : room;
		assert_true(mmu_translate(l->mmu, gva(at), ACCESS_WRITE, MMU_SUPERVISOR, &page,
					  &fault));
		memcpy(page.host, bytes, n);
		if (page.flags)
			memory_notify_write(l->w.memory, page.gpa, n);
		is_sound(l->mmu);
		at += n;
		bytes = (const uint8_t *)bytes + n;
		size_bytes -= n;
	}
}

static inline void store_entry(struct lab *l, uint64_t at, uint64_t e)
{
	store(l, at, &e, l->w.vcpu.state.cr4 & CR4_PAE ? 8 : 4);
}

/* Where the entry for `at` at `level` lies. */
static inline uint64_t entry_of(struct lab *l, uint64_t at, unsigned level)
{
	struct mmu_walk_step steps[6];
	unsigned n = mmu_walk_steps(l->mmu, gva(at), steps);
	for (unsigned i = 0; i < n; i++)
		if (steps[i].level == level)
			return steps[i].entry_address.v;
	fail_msg("no entry at level %u", level);
	return 0;
}

static inline uint64_t entry_value(struct lab *l, uint64_t at, unsigned level)
{
	uint64_t e = 0;
	memory_read(l->w.memory, gpa(entry_of(l, at, level)), &e,
		    l->w.vcpu.state.cr4 & CR4_PAE ? 8 : 4);
	return e;
}

/* Maps the table page with the entry for `at` at `level` at TABLE_WINDOW and returns where in it
 * the entry is to be seen. */
static inline uint64_t window(struct lab *l, uint64_t at, unsigned level)
{
	uint64_t entry = entry_of(l, at, level);
	map(l, TABLE_WINDOW, entry & ~0xfffull, RW);
	return TABLE_WINDOW + (entry & 0xfff);
}

static inline void write_cr3(struct lab *l, uint64_t cr3)
{
	l->w.vcpu.state.cr3 = cr3;
	mmu_cr3_written(l->mmu, false);
	is_sound(l->mmu);
}

static inline void write_controls(struct lab *l, uint64_t cr0, uint64_t cr4)
{
	struct vcpu_state *s = &l->w.vcpu.state;
	uint64_t old_cr0 = s->cr0, old_cr4 = s->cr4;
	s->cr0 = cr0;
	s->cr4 = cr4;
	mmu_controls_changed(l->mmu, old_cr0, old_cr4, s->efer);
	is_sound(l->mmu);
}

/* The second space shares the first one's tables below the root. */
static inline void share_space(struct lab *l)
{
	memcpy(world_table(&l->w, ROOT2), world_table(&l->w, ROOT), 4096);
}
