/*
 * Spaces: which shadow page the hardware's CR3 names. The retained roots are a short list, the last
 * used first; one that falls out of it is dropped, and what lies below stays until it is the
 * oldest.
 */
#include "paging/shadow.h"

#include <assert.h>
#include <string.h>

#include "cpu/vcpu.h"

static union shadow_role root_role(const struct shadow *s)
{
	union shadow_role role = s->controls;
	role.level = s->mode->level_count;
	role.is_register = s->mode->level[s->mode->level_count].is_register;
	if (s->policy.is_watching)
		role.access = WALK_W | WALK_U;
	return role;
}

static uint64_t root_gfn(const struct shadow *s)
{
	struct walk_source source = mmu_walk_source(s->mmu);
	bool is_pae = s->mmu->private->context.mode == &paging_modes[PAGING_PAE];
	if (!s->policy.is_watching)
		return 0;
	return source.root.v >> (is_pae ? 5 : PAGE_SHIFT);
}

uint32_t shadow_find_root(const struct shadow *s)
{
	union shadow_role role = root_role(s);
	uint64_t gfn = root_gfn(s);
	for (unsigned i = 0; i < s->root_count; i++) {
		const struct shadow_page *p = &s->pages[s->roots[i]];
		if (p->gfn == gfn && p->role.bits == role.bits)
			return s->roots[i];
	}
	return SHADOW_NONE;
}

void shadow_forget_root(struct shadow *s, uint32_t page)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < s->root_count; i++)
		if (s->roots[i] != page)
			s->roots[kept++] = s->roots[i];
	s->root_count = kept;
	s->pages[page].is_root = false;
}

/* To the front of the list. */
static void retain(struct shadow *s, uint32_t page)
{
	if (s->root_count && s->roots[0] == page)
		return;
	shadow_forget_root(s, page);
	if (s->root_count == s->policy.root_count) {
		uint32_t last = s->roots[s->root_count - 1];
		shadow_forget_root(s, last);
		if (s->pages[last].parents == SHADOW_NONE) {
			shadow_zap(s, last);
			ledger_charge(s->mmu->ledger, EVENT_SHADOW_EVICT);
		}
	}
	memmove(s->roots + 1, s->roots, s->root_count * sizeof(*s->roots));
	s->roots[0] = page;
	s->root_count++;
	s->pages[page].is_root = true;
}

void shadow_set_root(struct shadow *s, uint32_t page)
{
	s->root = page;
	if (page == SHADOW_NONE)
		return;
	retain(s, page);
	shadow_touch(s, page);
	s->pdpte[0] = ~s->mmu->vcpu->state.pdpte[0]; /* compare them all */
	shadow_check_registers(s);
}

uint32_t shadow_take_root(struct shadow *s)
{
	if (s->root == SHADOW_NONE) {
		uint32_t page = shadow_get(s, root_gfn(s), root_role(s));
		assert(page != SHADOW_NONE);
		shadow_set_root(s, page);
	}
	return s->root;
}

void shadow_check_registers(struct shadow *s)
{
	const struct walk_context *c = &s->mmu->private->context;
	const uint64_t *now = s->mmu->vcpu->state.pdpte;
	if (c->mode != &paging_modes[PAGING_PAE] || s->root == SHADOW_NONE ||
	    !s->policy.is_watching || !memcmp(s->pdpte, now, sizeof(s->pdpte)))
		return;
	memcpy(s->pdpte, now, sizeof(s->pdpte));
	for (unsigned i = 0; i < 4; i++) {
		uint32_t at = s->root * SHADOW_ENTRIES + i;
		struct shadow_want w = shadow_want(s, s->root, i, now[i]);
		if ((*shadow_entry(s, at) & PTE_P) && !shadow_is_as_wanted(s, at, &w))
			shadow_clear_entry(s, at);
	}
}
