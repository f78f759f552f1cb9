/*
 * The fast map: the engine's filter in front of the modelled TLBs.
 *
 * It must be invisible: with it or without, every modelled TLB holds the same entries with the same
 * recency. That holds because an entry exists only while the first-level entry that it was derived
 * from exists (the TLB tells when one goes), only for the mode and kind of access that was seen to
 * pass, and because a hit stores the same stamp as the slow path would.
 */
#include "paging/mmu_private.h"

#include <string.h>

void fast_map_fill(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct tlb_entry *entry, const struct mmu_page *page)
{
	if (!page->host || (kind == ACCESS_WRITE && page->flags))
		return;
	uint64_t number = address.v >> PAGE_SHIFT;
	unsigned index = mmu_fast_slot(number);
	uint64_t bit = BIT(index % 64);
	mmu->fast[mode][kind][index] = (struct mmu_fast_entry){
		.tag = number,
		.addend = (uint64_t)(uintptr_t)page->host - address.v,
		.stamp = entry ? entry->stamp : &mmu->private->unread_stamp,
		.gfn = gpa_gfn(page->gpa),
	};
	mmu->private->fast_used[index / 64] |= bit;
	if (entry) {
		entry->fast_used[index / 64] |= bit;
		entry->fast_accesses |= (uint16_t)(1u << WALK_ACCESS(mode, kind));
	}
}

void fast_map_empty(struct mmu *mmu)
{
	for (unsigned w = 0; w < FAST_WORDS; w++) {
		uint64_t used = mmu->private->fast_used[w];
		mmu->private->fast_used[w] = 0;
		for (; used; used &= used - 1) {
			unsigned index = w * 64 + (unsigned)__builtin_ctzll(used);
			for (unsigned m = 0; m < MMU_MODE_COUNT; m++)
				for (unsigned k = 0; k < ACCESS_KIND_COUNT; k++)
					mmu->fast[m][k][index].tag = MMU_FAST_EMPTY;
		}
	}
}

void fast_map_drop(void *opaque, enum tlb_side_id side, struct tlb_entry *entry)
{
	struct mmu *mmu = opaque;
	for (unsigned accesses = entry->fast_accesses; accesses; accesses &= accesses - 1) {
		unsigned access = (unsigned)__builtin_ctz(accesses);
		struct mmu_fast_entry *map =
			mmu->fast[access / ACCESS_KIND_COUNT][access % ACCESS_KIND_COUNT];
		for (unsigned w = 0; w < FAST_WORDS; w++)
			for (uint64_t used = entry->fast_used[w]; used; used &= used - 1) {
				struct mmu_fast_entry *e =
					&map[w * 64 + (unsigned)__builtin_ctzll(used)];
				if (e->stamp == entry->stamp)
					e->tag = MMU_FAST_EMPTY;
			}
	}
	entry->fast_accesses = 0;
	memset(entry->fast_used, 0, sizeof(entry->fast_used));
}

void fast_map_page_flagged(void *opaque, gpa_t page)
{
	struct mmu *mmu = opaque;
	for (unsigned w = 0; w < FAST_WORDS; w++) {
		for (uint64_t used = mmu->private->fast_used[w]; used; used &= used - 1) {
			unsigned index = w * 64 + (unsigned)__builtin_ctzll(used);
			for (unsigned m = 0; m < MMU_MODE_COUNT; m++)
				if (mmu->fast[m][ACCESS_WRITE][index].gfn == gpa_gfn(page))
					mmu->fast[m][ACCESS_WRITE][index].tag = MMU_FAST_EMPTY;
		}
	}
}
