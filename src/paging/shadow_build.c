/*
 * Building ahead: `agile` gives a shadow to tables that the guest uses already, between two walks
 * and not at a fault, so it can fill it with all that the guest has accessed there. Each table met
 * on the way is built with it, down to switches and leaves. See shadow.h.
 *
 * Nothing is evicted for it: what finds no room is left to the fault that asks for it.
 */
#include "paging/shadow.h"

static void build_page(struct shadow *s, uint32_t page);

/* Recursion ends with the levels, and each page is built once, when it is made. */
static void build_pointer(struct shadow *s, uint32_t at, const struct shadow_want *w)
{
	uint32_t live_count = s->live_count;
	if (shadow_free_count(s) <= SHADOW_FILL_PAGES)
		return;
	uint32_t child = shadow_get(s, w->gfn, w->role);
	shadow_set_pointer(s, at, child, 0);
	ledger_charge(s->mmu->ledger, EVENT_SHADOW_PREFETCH);
	if (s->live_count != live_count)
		build_page(s, child);
}

static void build_entry(struct shadow *s, uint32_t at)
{
	uint32_t page = shadow_page_of(at);
	unsigned index = at % SHADOW_ENTRIES;
	bool is_register = s->pages[page].role.is_register;
	if (*shadow_entry(s, at) & PTE_P || (is_register && page != s->root))
		return;
	uint64_t e = is_register ? s->pdpte[index & 3] : shadow_guest_entry(s, page, index);
	struct shadow_want w = shadow_want(s, page, index, e);
	if (w.kind == SHADOW_WANT_POINTER)
		build_pointer(s, at, &w);
	else if (shadow_try_leaf(s, at, &w))
		ledger_charge(s->mmu->ledger, EVENT_SHADOW_PREFETCH);
}

static void build_page(struct shadow *s, uint32_t page)
{
	for (unsigned i = 0; i < SHADOW_ENTRIES; i++)
		build_entry(s, page * SHADOW_ENTRIES + i);
}

void shadow_build_unswitched(struct shadow *s)
{
	for (unsigned i = 0; i < s->unswitched_count; i++)
		build_entry(s, s->unswitched[i]);
	s->unswitched_count = 0;
}

void shadow_build_root(struct shadow *s)
{
	if (s->root != SHADOW_NONE || shadow_free_count(s) <= SHADOW_FILL_PAGES)
		return;
	uint32_t root = shadow_take_root(s);
	if (!s->pages[root].used_count && !s->pages[root].role.is_register)
		build_page(s, root);
}
