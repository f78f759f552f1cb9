/*
 * The shadow's invariants, looked at from outside: every present entry is what the guest's entry,
 * the memory map and the role say; lists are consistent both ways; what must be protected is; the
 * counts are right. Tests call it for everything at once; --verify and hard mode after each exit
 * for the entries that it had to do with, and for one page in turn.
 */
#include "paging/shadow.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct audit {
	const struct shadow *s;
	char *why;
	size_t size;
};

__attribute__((format(printf, 2, 3))) static bool wrong(const struct audit *a, const char *format,
							...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(a->why, a->size, format, args);
	va_end(args);
	return false;
}

static bool is_watched_table(const struct shadow *s, const struct shadow_page *p)
{
	return s->policy.is_watching && shadow_is_table(p);
}

static bool is_out_of_sync(const struct shadow *s, const struct shadow_page *p)
{
	const struct shadow_frame *f = shadow_is_table(p) ? shadow_frame_of(s, p->gfn) : NULL;
	return f && f->table_epoch == s->epoch && f->unsync_slot;
}

static bool audit_links(const struct audit *a, uint32_t at, uint32_t first)
{
	const struct shadow_link *links = a->s->links;
	struct shadow_link l = links[at];
	if (l.previous == SHADOW_NONE ? first != at : links[l.previous].next != at)
		return wrong(a, "entry %u: the list before it", at);
	if (l.next != SHADOW_NONE && links[l.next].previous != at)
		return wrong(a, "entry %u: the list after it", at);
	return true;
}

static uint32_t first_of(const struct shadow *s, const struct shadow_head *h)
{
	return h->epoch == s->epoch ? h->first : SHADOW_NONE;
}

/* A leaf: in its list, and not writable where somebody watches. */
static bool audit_leaf(const struct audit *a, uint32_t at, uint64_t entry, unsigned level)
{
	const struct shadow *s = a->s;
	uint64_t host_address = entry & SHADOW_ADDRESS;
	if (entry & SHADOW_SWITCH)
		level = 1;
	if (host_address + BIT(PAGE_SHIFT + 9 * (level - 1)) > s->mmu->memory->ram_bytes)
		return wrong(a, "entry %u: %#" PRIx64 " is not RAM", at, entry);
	if (level > 1) {
		const struct shadow_region *r =
			&s->regions[level - 2][host_address >> (level == 2 ? 21 : 30)];
		if (r->epoch == s->epoch && r->protected_count)
			return wrong(a, "entry %u: a large leaf over a protected page", at);
		return audit_links(a, at, first_of(s, &r->mappings));
	}
	const struct shadow_frame *f = &s->frames[host_address >> PAGE_SHIFT];
	bool is_protected = f->table_epoch == s->epoch && f->table_count && !f->unsync_slot;
	if ((entry & PTE_W) && is_protected)
		return wrong(a, "entry %u: %#" PRIx64 " may write a protected page", at, entry);
	return audit_links(a, at, first_of(s, &f->mappings));
}

/* An entry of a direct page: a part of the page, with its rights. */
static bool audit_direct(const struct audit *a, uint32_t at, uint64_t entry)
{
	const struct shadow *s = a->s;
	const struct shadow_page *p = &s->pages[shadow_page_of(at)];
	unsigned level = p->role.level;
	uint64_t gfn = p->gfn + ((uint64_t)(at % SHADOW_ENTRIES) << (9 * (level - 1)));
	if (!s->policy.is_watching)
		return true;
	if ((entry & SHADOW_SIZE) >> SHADOW_SIZE_SHIFT != p->role.size)
		return wrong(a, "entry %u: the guest page's size", at);
	if (!shadow_is_leaf(entry, level)) {
		const struct shadow_page *child = &s->pages[shadow_child(s, entry)];
		if (!child->role.is_direct || child->gfn != gfn ||
		    child->role.access != p->role.access)
			return wrong(a, "entry %u: another page's direct table", at);
		return true;
	}
	unsigned rights = shadow_flags(entry) & WALK_RIGHTS;
	if (((entry & PTE_G) != 0) != p->role.is_global)
		return wrong(a, "entry %u: not as global as its page", at);
	if ((entry & SHADOW_ADDRESS) != hpa_from_gpa(s->mmu->memory, gpa_from_gfn(gfn)).v ||
	    (rights | WALK_W) != (p->role.access | WALK_W) || (rights & ~p->role.access & WALK_W))
		return wrong(a, "entry %u: %#" PRIx64 " in a direct table", at, entry);
	return true;
}

/* An entry of a table page in sync: what the guest says. */
static bool audit_table(const struct audit *a, uint32_t at, uint64_t entry)
{
	const struct shadow *s = a->s;
	uint32_t page = shadow_page_of(at);
	unsigned index = at % SHADOW_ENTRIES;
	const struct shadow_page *p = &s->pages[page];
	uint64_t e = p->role.is_register ? s->pdpte[index & 3] : shadow_guest_entry(s, page, index);
	if (!s->policy.is_watching || is_out_of_sync(s, p) ||
	    (p->role.is_register && page != s->root))
		return true;
	if (s->mmu->is_observer && (e & PTE_P) && !p->role.is_register)
		e |= PTE_A | PTE_D; /* as the guest's will be, when the primary has set them */
	struct shadow_want w = shadow_want(s, page, index, e);
	if (entry & PTE_P ? !shadow_is_as_wanted(s, at, &w)
			  : (entry & SHADOW_NOT_PRESENT) && w.is_present)
		return wrong(a,
			     "level %u of table %#" PRIx64 ", entry %u: the guest has %#" PRIx64
			     ", the shadow %#" PRIx64,
			     p->role.level, p->gfn, index, e, entry);
	return true;
}

static bool audit_entry(const struct audit *a, uint32_t at, uint64_t entry)
{
	const struct shadow *s = a->s;
	const struct shadow_page *p = &s->pages[shadow_page_of(at)];
	if ((entry & PTE_P) && shadow_is_leaf(entry, p->role.level)) {
		if (!audit_leaf(a, at, entry, p->role.level))
			return false;
	} else if (entry & PTE_P) {
		uint32_t child = shadow_child(s, entry);
		if (child >= s->pool.fresh || s->pages[child].role.level + 1u != p->role.level)
			return wrong(a, "entry %u: %#" PRIx64 " points to no table", at, entry);
		if (!audit_links(a, at, s->pages[child].parents))
			return false;
	}
	if (p->role.is_direct)
		return !(entry & PTE_P) || audit_direct(a, at, entry);
	return audit_table(a, at, entry);
}

/* The page of an entry may have been freed since. */
static bool is_live(const struct shadow *s, uint32_t page)
{
	const struct shadow_page *p = &s->pages[page];
	return !s->policy.is_watching || shadow_find(s, p->gfn, p->role) == page;
}

bool shadow_audit_noted(const struct shadow *s, char *why, size_t size)
{
	const struct audit a = {s, why, size};
	for (unsigned k = 0; k < s->noted_count; k++) {
		uint32_t at = s->noted[k];
		uint64_t entry = *shadow_entry(s, at);
		if (entry && is_live(s, shadow_page_of(at)) && !audit_entry(&a, at, entry))
			return false;
	}
	return true;
}

static bool audit_parents(const struct audit *a, uint32_t page)
{
	const struct shadow *s = a->s;
	for (uint32_t at = s->pages[page].parents; at != SHADOW_NONE; at = s->links[at].next) {
		uint64_t entry = *shadow_entry(s, at);
		if (!(entry & PTE_P) || shadow_child(s, entry) != page)
			return wrong(a, "page %u: its parent %u does not point to it", page, at);
	}
	return true;
}

bool shadow_audit_page(const struct shadow *s, uint32_t page, char *why, size_t size)
{
	const struct audit a = {s, why, size};
	const struct shadow_page *p = &s->pages[page];
	unsigned used_count = 0;
	for (unsigned i = 0; i < SHADOW_ENTRIES; i++) {
		uint32_t at = page * SHADOW_ENTRIES + i;
		uint64_t entry = *shadow_entry(s, at);
		used_count += entry & PTE_P ? 1 : 0;
		if (entry && !audit_entry(&a, at, entry))
			return false;
	}
	if (used_count != p->used_count)
		return wrong(&a, "page %u: %u entries, %u counted", page, used_count,
			     p->used_count);
	if (is_watched_table(s, p) && shadow_frame_of(s, p->gfn)) {
		bool is_flagged = memory_page_flags(s->mmu->memory, gpa_from_gfn(p->gfn)) &
				  PAGE_TABLE;
		if (is_out_of_sync(s, p) ? p->role.level > 1 : !is_flagged)
			return wrong(&a, "table %#" PRIx64 " at level %u: nobody watches it",
				     p->gfn, p->role.level);
	}
	if (s->policy.is_watching && shadow_find(s, p->gfn, p->role) != page)
		return wrong(&a, "page %u: its key finds another", page);
	return audit_parents(&a, page);
}

/* Leaves that map one place. */
static bool audit_mappings(const struct audit *a, const struct shadow_head *h,
			   uint64_t host_address)
{
	for (uint32_t at = first_of(a->s, h); at != SHADOW_NONE; at = a->s->links[at].next) {
		uint64_t entry = *shadow_entry(a->s, at);
		if (!(entry & PTE_P) || (entry & SHADOW_ADDRESS) != host_address)
			return wrong(a, "entry %u is listed as mapping %#" PRIx64, at,
				     host_address);
	}
	return true;
}

static bool audit_frames(const struct audit *a)
{
	const struct shadow *s = a->s;
	const struct memory *m = s->mmu->memory;
	uint64_t table_count = 0;
	for (uint64_t i = 0; i < m->page_count; i++) {
		const struct shadow_frame *f = &s->frames[i];
		if (!audit_mappings(a, &f->mappings, i << PAGE_SHIFT))
			return false;
		if (f->table_epoch != s->epoch || !f->table_count)
			continue;
		table_count += f->table_count;
		gpa_t at = gpa(0);
		memory_gpa(m, m->ram + (i << PAGE_SHIFT), &at);
		if (f->unsync_slot && (f->unsync_slot > s->unsync_count ||
				       s->unsync[f->unsync_slot - 1].gfn != gpa_gfn(at)))
			return wrong(a, "table %#" PRIx64 ": its place out of sync", gpa_gfn(at));
	}
	uint64_t live = 0;
	for (uint32_t page = s->newest; page != SHADOW_NONE; page = s->pages[page].older)
		live += is_watched_table(s, &s->pages[page]) &&
			shadow_frame_of(s, s->pages[page].gfn) != NULL;
	return live == table_count ||
	       wrong(a, "%" PRIu64 " shadows of tables, %" PRIu64 " counted", live, table_count);
}

static bool audit_regions(const struct audit *a)
{
	const struct shadow *s = a->s;
	for (unsigned i = 0; i < 2; i++) {
		unsigned shift = i ? 30 : 21;
		uint64_t pages = 1ull << (shift - PAGE_SHIFT);
		for (uint64_t n = 0; n <= s->mmu->memory->ram_bytes >> shift; n++) {
			const struct shadow_region *r = &s->regions[i][n];
			uint32_t count = 0;
			if (!audit_mappings(a, &r->mappings, n << shift))
				return false;
			for (uint64_t p = n * pages;
			     p < (n + 1) * pages && p < s->mmu->memory->page_count; p++) {
				const struct shadow_frame *f = &s->frames[p];
				count += f->table_epoch == s->epoch && f->table_count &&
					 !f->unsync_slot;
			}
			if (count != (r->epoch == s->epoch ? r->protected_count : 0))
				return wrong(a, "region %" PRIu64 " of 2^%u: %u protected pages", n,
					     shift, count);
		}
	}
	return true;
}

bool shadow_audit(const struct shadow *s, char *why, size_t size)
{
	const struct audit a = {s, why, size};
	uint32_t live_count = 0, root_count = 0;
	for (uint32_t page = s->newest; page != SHADOW_NONE; page = s->pages[page].older) {
		if (++live_count > s->live_count)
			return wrong(&a, "more pages in order of use than there are");
		if (!shadow_audit_page(s, page, why, size))
			return false;
		root_count += s->pages[page].is_root;
	}
	if (live_count != s->live_count)
		return wrong(&a, "%u pages in order of use, %u live", live_count, s->live_count);
	if (root_count != s->root_count)
		return wrong(&a, "%u roots, %u in the list", root_count, s->root_count);
	for (unsigned i = 0; i < s->root_count; i++)
		if (!s->pages[s->roots[i]].is_root)
			return wrong(&a, "root %u is not one", i);
	if (s->root != SHADOW_NONE && (!s->root_count || s->roots[0] != s->root))
		return wrong(&a, "the current root is not the last used");
	return audit_frames(&a) && audit_regions(&a);
}
