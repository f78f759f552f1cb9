/*
 * How many references a walk takes: one page mapped, everything built that is built at first touch,
 * the TLB emptied, and one more access counted. No walk caches.
 */
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "papers/private.h"
#include "x86/arch.h"

#define ROOT 0x100000ull
#define PAGE_AT 0x40600000ull
#define PAGE_TO 0x600000ull

/* The guest's tables: one a level, in consecutive pages from ROOT. */
static void map_page(struct memory *m, const struct walk_case *c)
{
	bool is_wide = c->guest_levels > 2;
	unsigned last = c->has_large_guest_page ? 2 : 1;
	for (unsigned level = c->guest_levels; level >= last; level--) {
		uint64_t table = ROOT + (c->guest_levels - level) * PAGE_SIZE_BYTES;
		unsigned shift = 12 + (is_wide ? 9 : 10) * (level - 1);
		uint64_t index = PAGE_AT >> shift & (is_wide ? 511 : 1023);
		uint64_t entry = (level == last ? PAGE_TO : table + PAGE_SIZE_BYTES) | PTE_P |
				 PTE_W;
		if (level == last && level > 1)
			entry |= PTE_PS;
		memory_write(m, gpa(table + index * (is_wide ? 8 : 4)), &entry, is_wide ? 8 : 4);
	}
}

static uint64_t references(const struct ledger *l)
{
	uint64_t sum = 0;
	for (unsigned e = EVENT_WALK_G1; e <= EVENT_WALK_S5; e++)
		sum += ledger_total(l, (enum event)e);
	return sum;
}

static bool touch(struct mmu *mmu)
{
	struct mmu_page page;
	struct page_fault fault;
	return mmu_translate(mmu, gva(PAGE_AT), ACCESS_READ, MMU_SUPERVISOR, &page, &fault) &&
	       page.gpa.v == PAGE_TO;
}

int walks_count(const struct walk_case *c)
{
	static const struct tlb_geometry geometry = {
		.l1d = {{{"L1 D", 64, 0, TLB_ALL_SIZES}}, 1},
		.l1i = {{{"L1 I", 64, 0, TLB_ALL_SIZES}}, 1},
		.tagged = false,
	};
	struct cpu_model model = {.physical_bits = 40,
				  .linear_bits = c->guest_levels > 4 ? 57 : 48};
	struct ledger ledger = {0};
	struct vcpu v = {.model = &model, .ledger = &ledger};
	struct mmu_config config = {
		.strategy = c->strategy,
		.geometry = &geometry,
		.verify = true,
		.host_levels = c->host_levels,
		.host_page_shift = c->has_large_host_page ? 21 : 12,
	};
	struct memory *m = NULL;
	struct mmu *mmu = NULL;
	int count = -1;
	if (memory_create(&m, 16 << 20, NULL))
		return -1;
	map_page(m, c);
	v.state.cr0 = CR0_PE | CR0_PG | CR0_WP;
	v.state.cr3 = ROOT;
	v.state.cr4 = c->guest_levels > 2 ? CR4_PAE : CR4_PSE;
	if (c->guest_levels > 4)
		v.state.cr4 |= CR4_LA57;
	if (c->guest_levels > 3)
		v.state.efer = EFER_LMA | EFER_LME;
	if (!mmu_create(&mmu, &config, &v, m, NULL) && touch(mmu)) {
		uint64_t before = references(&ledger);
		/* The TLB goes, and what the VMM built stays. */
		if (mmu_is_virtualized(mmu))
			mmu_note_engine_exit(mmu);
		else
			mmu_cr3_written(mmu, false);
		count = touch(mmu) && !mmu->difference ? (int)(references(&ledger) - before) : -1;
	}
	mmu_destroy(mmu);
	memory_destroy(m);
	return count;
}
