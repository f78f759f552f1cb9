/*
 * The fast map: the engine's filter in front of the modelled TLBs.
 *
 * It must be invisible: with it or without, every modelled TLB holds the same entries with the same
 * recency. That holds because an entry exists only while the first-level entries that it was
 * derived from exist, the primary's and every observer's (the TLBs tell when one goes), only for
 * the mode and kind of access that was seen to pass, and because a hit stores the same stamps as
 * the slow path would.
 */
#include "paging/mmu_private.h"

#include <string.h>

void fast_map_fill(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct tlb_entry *entry, const struct mmu_page *page)
{
	struct mmu_private *p = mmu->private;
	if (!page->host || (kind == ACCESS_WRITE && page->flags))
		return;
	uint64_t number = address.v >> PAGE_SHIFT;
	unsigned index = mmu_fast_slot(number);
	struct mmu_fast_entry *fast = &mmu->fast[mode][kind][index];
	*fast = (struct mmu_fast_entry){
		.tag = number,
		.addend = (uint64_t)(uintptr_t)page->host - address.v,
		.stamp = entry ? entry->stamp : &p->unread_stamp,
		.gfn = gpa_gfn(page->gpa),
	};
	p->fast_used[index / 64] |= BIT(index % 64);
	p->has_large_fast[address.v >> 63] |= page->guest_shift > PAGE_SHIFT;
	uint16_t access = (uint16_t)(1u << WALK_ACCESS(mode, kind));
	uint64_t **stamp = p->stamps; /* NULL without observers */
	if (stamp)
		stamp += (fast - &mmu->fast[0][0][0]) * p->observer_count;
	if (entry)
		entry->fast_accesses |= access;
	for (struct mmu *o = p->next; o; o = o->private->next) {
		if (entry)
			o->private->held->fast_accesses |= access;
		*stamp++ = entry ? o->private->held->stamp : &p->unread_stamp;
	}
}

static uint64_t watched_tag(gva_t address, enum mmu_mode mode)
{
	return address.v >> PAGE_SHIFT << 2 | (unsigned)mode;
}

void watched_fill(struct mmu *mmu, gva_t address, enum mmu_mode mode, const struct mmu_page *page)
{
	struct mmu_private *p = mmu->private;
	struct watched_page *w = &p->watched[(address.v >> PAGE_SHIFT) % WATCHED_COUNT];
	uint64_t offset = address.v & PAGE_OFFSET_MASK;
	if (!p->has_watched)
		memset(p->watched, 0xff, sizeof(p->watched));
	p->has_watched = true;
	*w = (struct watched_page){.tag = watched_tag(address, mode), .page = *page};
	w->page.gpa.v -= offset;
	w->page.host -= offset;
}

bool watched_find(const struct mmu *mmu, gva_t address, enum mmu_mode mode, struct mmu_page *out)
{
	const struct mmu_private *p = mmu->private;
	const struct watched_page *w = &p->watched[(address.v >> PAGE_SHIFT) % WATCHED_COUNT];
	if (!p->has_watched || w->tag != watched_tag(address, mode))
		return false;
	*out = w->page;
	out->gpa.v += address.v & PAGE_OFFSET_MASK;
	out->host += address.v & PAGE_OFFSET_MASK;
	return true;
}

void fast_map_empty(struct mmu *any)
{
	struct mmu *mmu = any->private->primary;
	mmu->private->has_watched = false;
	mmu->private->has_large_fast[0] = mmu->private->has_large_fast[1] = false;
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

void fast_map_drop_page(struct mmu *mmu, gva_t address)
{
	struct mmu_private *p = mmu->private;
	uint64_t number = address.v >> PAGE_SHIFT;
	unsigned index = mmu_fast_slot(number);
	if (p->has_large_fast[address.v >> 63]) {
		fast_map_empty(mmu);
		return;
	}
	p->has_watched = false;
	for (unsigned m = 0; m < MMU_MODE_COUNT; m++)
		for (unsigned k = 0; k < ACCESS_KIND_COUNT; k++)
			if (mmu->fast[m][k][index].tag == number)
				mmu->fast[m][k][index].tag = MMU_FAST_EMPTY;
}

/* Drops entries whose 4K page lies in page `page` of 2^shift bytes. */
static void drop_in(struct mmu *mmu, struct mmu_fast_entry *map, uint64_t page, unsigned shift)
{
	for (unsigned w = 0; w < FAST_WORDS; w++)
		for (uint64_t used = mmu->private->fast_used[w]; used; used &= used - 1) {
			struct mmu_fast_entry *e = &map[w * 64 + (unsigned)__builtin_ctzll(used)];
			if (tlb_page_number(e->tag << PAGE_SHIFT, shift) == page)
				e->tag = MMU_FAST_EMPTY;
		}
}

void fast_map_drop(void *opaque, enum tlb_side_id side, const struct tlb_entry *entry,
		   uint64_t page)
{
	struct mmu *mmu = ((struct mmu *)opaque)->private->primary;
	for (unsigned accesses = entry->fast_accesses; accesses; accesses &= accesses - 1) {
		unsigned access = (unsigned)__builtin_ctz(accesses);
		struct mmu_fast_entry *map =
			mmu->fast[access / ACCESS_KIND_COUNT][access % ACCESS_KIND_COUNT];
		if (entry->page_shift == PAGE_SHIFT) {
			struct mmu_fast_entry *e = &map[mmu_fast_slot(page)];
			if (tlb_page_number(e->tag << PAGE_SHIFT, PAGE_SHIFT) == page)
				e->tag = MMU_FAST_EMPTY;
		} else {
			drop_in(mmu, map, page, entry->page_shift);
		}
	}
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
