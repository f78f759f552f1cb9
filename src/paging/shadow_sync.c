/*
 * What the guest does to tables that have shadows.
 *
 * In sync: each write is seen after it happened (the memory's watcher), whoever did it and however
 * many entries it covers. The entries behind it are compared with what the guest now says, and
 * those that differ are renewed or dropped.
 *
 * Out of sync: a table all of whose shadows are of level 1 may be let go at its first write. It is
 * then an ordinary page, and its shadows may be as old as a TLB: they are compared again, and the
 * page protected, at the events at which a TLB would have to forget (KVM's `unsync` pages, Xen's
 * out-of-sync tables). A page is never linked to a new place while out of sync.
 */
#include "paging/shadow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Writes that a table may get without one of its entries being in use. */
#define IDLE_WRITES_MAX 3u

/* Compares entry `index` with the guest's; true if it was there and had to change or go. */
static bool renew(struct shadow *s, uint32_t page, unsigned index)
{
	uint32_t at = page * SHADOW_ENTRIES + index;
	struct shadow_want w = shadow_want(s, page, index, shadow_guest_entry(s, page, index));
	bool was_present = *shadow_entry(s, at) & PTE_P;
	shadow_note(s, at);
	if (was_present && shadow_is_as_wanted(s, at, &w))
		return false;
	shadow_clear_entry(s, at);
	bool is_made = s->policy.is_updating && shadow_try_leaf(s, at, &w);
	if (!is_made && s->policy.is_pf_filtered && s->pages[page].role.level == 1)
		*shadow_entry(s, at) = w.is_present ? 0 : SHADOW_NOT_PRESENT;
	return was_present || is_made;
}

/* The entries of `page` behind `count` guest entries from `first` on. Returns how many were in use.
 */
static unsigned renew_entries(struct shadow *s, uint32_t page, unsigned first, unsigned count)
{
	union shadow_role role = s->pages[page].role;
	bool is_two_level = s->mmu->private->context.mode->entry_bytes == 4;
	unsigned used_count = 0;
	for (unsigned g = first; g < first + count; g++) {
		unsigned index = g, copies = 1;
		if (is_two_level && role.level == 1) {
			if (g >> 9 != role.quadrant)
				continue;
			index = g & 511;
		} else if (is_two_level) {
			if (g >> 8 != role.quadrant)
				continue;
			index = (g & 255) * 2;
			copies = 2;
		}
		for (unsigned i = 0; i < copies; i++) {
			uint32_t at = page * SHADOW_ENTRIES + index + i;
			used_count += (*shadow_entry(s, at) & PTE_P) != 0;
			if (renew(s, page, index + i))
				ledger_charge(s->mmu->ledger, EVENT_SHADOW_UPDATE);
		}
	}
	return used_count;
}

/* Is this a page that is no table any more? Stores that no table gets (KVM's signs of it: not of
 * whole entries), or several in a row where nothing is in use: no entry written over, none walked
 * through since (KVM of 2008 looked at the A of the shadow's entry, last_updated_pte_accessed();
 * now it does not count writes to last-level tables at all). A program that touches fresh pages
 * one after the other has its table written once a page, and is using it. */
static bool looks_like_data(const struct shadow *s, const struct shadow_frame *f, gpa_t a,
			    unsigned size_bytes)
{
	unsigned entry_bytes = s->mmu->private->context.mode->entry_bytes;
	uint64_t offset = a.v & (entry_bytes - 1);
	if (!s->policy.is_zapping)
		return false;
	if (size_bytes == 1 && !offset)
		return false; /* clears of one bit */
	return size_bytes < 4 || offset + size_bytes > entry_bytes ||
	       f->idle_write_count >= IDLE_WRITES_MAX;
}

void shadow_written(void *opaque, gpa_t a, unsigned size_bytes)
{
	struct shadow *s = opaque;
	uint64_t gfn = gpa_gfn(a);
	if (!shadow_is_protected(s, gfn) || !s->mode->level_count)
		return;
	struct shadow_frame *f = shadow_frame_of(s, gfn);
	unsigned entry_bytes = s->mmu->private->context.mode->entry_bytes;
	unsigned offset = a.v & PAGE_OFFSET_MASK;
	unsigned first = offset / entry_bytes;
	unsigned count = (offset + size_bytes - 1) / entry_bytes - first + 1;
	unsigned used_count = 0;
	for (uint32_t page = shadow_first_of(s, gfn); page != SHADOW_NONE;
	     page = shadow_next_of(s, page))
		if (shadow_is_table(&s->pages[page]))
			used_count += renew_entries(s, page, first, count);
	f->idle_write_count = used_count ? 0 : (uint8_t)(f->idle_write_count + 1);
	if (looks_like_data(s, f, a, size_bytes)) {
		unsigned zapped = shadow_zap_table(s, gfn);
		ledger_charge_many(s->mmu->ledger, EVENT_SHADOW_UPDATE, zapped);
	}
	if (s->is_flush_due)
		mmu_flush_tlb(s->mmu);
	s->is_flush_due = false;
}

/* Out of sync */

static bool has_room(struct shadow *s)
{
	if (s->unsync_count < s->unsync_room)
		return true;
	uint32_t room = s->unsync_room ? s->unsync_room * 2 : 64;
	struct shadow_unsync *more = realloc(s->unsync, room * sizeof(*more));
	if (!more)
		return false;
	s->unsync = more;
	s->unsync_room = room;
	return true;
}

static void forget_absent(struct shadow *s, uint32_t page)
{
	for (unsigned i = 0; i < SHADOW_ENTRIES; i++) {
		uint64_t *entry = shadow_entry(s, page * SHADOW_ENTRIES + i);
		if (!(*entry & PTE_P))
			*entry = 0;
	}
}

static uint8_t *table_bytes(const struct shadow *s, uint64_t gfn)
{
	return memory_host(s->mmu->memory, gpa_from_gfn(gfn), PAGE_SIZE_BYTES);
}

bool shadow_let_go(struct shadow *s, uint64_t gfn)
{
	struct shadow_frame *f = shadow_frame_of(s, gfn);
	for (uint32_t page = shadow_first_of(s, gfn); page != SHADOW_NONE;
	     page = shadow_next_of(s, page))
		if (shadow_is_table(&s->pages[page]) && s->pages[page].role.level > 1)
			return false;
	if (!has_room(s))
		return false;
	struct shadow_unsync u = {.gfn = gfn};
	if (s->mmu->private->verify) {
		u.snapshot = malloc(PAGE_SIZE_BYTES);
		if (!u.snapshot)
			return false;
		memcpy(u.snapshot, table_bytes(s, gfn), PAGE_SIZE_BYTES);
	}
	if (s->policy.is_pf_filtered)
		for (uint32_t page = shadow_first_of(s, gfn); page != SHADOW_NONE;
		     page = shadow_next_of(s, page))
			if (shadow_is_table(&s->pages[page]))
				forget_absent(s, page);
	s->unsync[s->unsync_count++] = u;
	f->unsync_slot = s->unsync_count;
	f->idle_write_count = 0;
	shadow_unprotect(s, gfn);
	ledger_charge(s->mmu->ledger, EVENT_SHADOW_UNSYNC);
	return true;
}

void shadow_forget_unsync(struct shadow *s, uint64_t gfn)
{
	struct shadow_frame *f = shadow_frame_of(s, gfn);
	assert(f->unsync_slot);
	struct shadow_unsync *u = &s->unsync[f->unsync_slot - 1];
	free(u->snapshot);
	*u = s->unsync[--s->unsync_count];
	if (f->unsync_slot <= s->unsync_count)
		shadow_frame_of(s, u->gfn)->unsync_slot = f->unsync_slot;
	f->unsync_slot = 0;
}

static void compare_page(struct shadow *s, uint32_t page)
{
	for (unsigned i = 0; i < SHADOW_ENTRIES; i++) {
		uint32_t at = page * SHADOW_ENTRIES + i;
		if (!(*shadow_entry(s, at) & PTE_P))
			continue;
		ledger_charge(s->mmu->ledger, EVENT_SHADOW_SYNC_ENTRY);
		renew(s, page, i);
	}
	if (s->policy.is_pf_filtered)
		shadow_mark_absent(s, page);
}

void shadow_sync(struct shadow *s, uint64_t gfn)
{
	shadow_forget_unsync(s, gfn);
	shadow_protect(s, gfn);
	ledger_charge(s->mmu->ledger, EVENT_SHADOW_SYNC);
	for (uint32_t page = shadow_first_of(s, gfn); page != SHADOW_NONE;
	     page = shadow_next_of(s, page))
		if (shadow_is_table(&s->pages[page]))
			compare_page(s, page);
}

/* Does any chain of pointers lead from `root` to `page`? Levels rise by one towards the root, so
 * the search ends. */
static bool is_below(const struct shadow *s, uint32_t page, uint32_t root)
{
	if (page == root)
		return true;
	for (uint32_t at = s->pages[page].parents; at != SHADOW_NONE; at = s->links[at].next)
		if (is_below(s, shadow_page_of(at), root))
			return true;
	return false;
}

static bool is_reachable(const struct shadow *s, uint64_t gfn, uint32_t root)
{
	for (uint32_t page = shadow_first_of(s, gfn); page != SHADOW_NONE;
	     page = shadow_next_of(s, page))
		if (shadow_is_table(&s->pages[page]) && is_below(s, page, root))
			return true;
	return false;
}

unsigned shadow_unsync_reachable(const struct shadow *s, uint32_t root)
{
	unsigned count = 0;
	for (uint32_t i = 0; root != SHADOW_NONE && i < s->unsync_count; i++)
		count += is_reachable(s, s->unsync[i].gfn, root);
	return count;
}

unsigned shadow_sync_reachable(struct shadow *s, uint32_t root)
{
	unsigned count = 0;
	if (root == SHADOW_NONE)
		return 0;
	for (uint32_t i = s->unsync_count; i-- > 0;)
		if (i < s->unsync_count && is_reachable(s, s->unsync[i].gfn, root)) {
			shadow_sync(s, s->unsync[i].gfn);
			count++;
		}
	return count;
}

static void refresh_snapshot(struct shadow *s, uint32_t page, unsigned index)
{
	const struct shadow_page *p = &s->pages[page];
	unsigned bytes = s->mmu->private->context.mode->entry_bytes;
	const struct shadow_frame *f = shadow_frame_of(s, p->gfn);
	uint8_t *snapshot = s->unsync[f->unsync_slot - 1].snapshot;
	unsigned guest_index = bytes == 4 ? p->role.quadrant * 512 + index : index;
	if (snapshot)
		memcpy(snapshot + guest_index * bytes, table_bytes(s, p->gfn) + guest_index * bytes,
		       bytes);
}

void shadow_sync_address(struct shadow *s, gva_t address)
{
	uint32_t page = s->root;
	if (page == SHADOW_NONE || !s->unsync_count)
		return;
	for (unsigned level = s->mode->level_count; level > 1; level--) {
		uint64_t entry =
			*shadow_entry(s, page * SHADOW_ENTRIES + shadow_index(s, level, address));
		if (!(entry & PTE_P) || shadow_is_leaf(entry, level))
			return;
		page = shadow_child(s, entry);
	}
	const struct shadow_page *p = &s->pages[page];
	const struct shadow_frame *f = shadow_is_table(p) ? shadow_frame_of(s, p->gfn) : NULL;
	unsigned index = shadow_index(s, 1, address);
	if (!f || !f->unsync_slot)
		return;
	ledger_charge(s->mmu->ledger, EVENT_SHADOW_SYNC_ENTRY);
	if (*shadow_entry(s, page * SHADOW_ENTRIES + index) & PTE_P)
		renew(s, page, index);
	refresh_snapshot(s, page, index);
}

const uint8_t *shadow_old_table(const struct shadow *s, gpa_t a)
{
	const struct shadow_frame *f = shadow_frame_of(s, gpa_gfn(a));
	if (!f || f->table_epoch != s->epoch || !f->unsync_slot)
		return NULL;
	return s->unsync[f->unsync_slot - 1].snapshot;
}
