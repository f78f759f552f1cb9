/* The shadow core. See shadow.h. */
#include "paging/shadow.h"

#include <errno.h>
#include <stdlib.h>

/* At least one path of a five-level guest must fit. */
#ifdef GNOMON_HARD
#define SHADOW_PAGES 8
#else
#define SHADOW_PAGES 8192
#endif

static uint64_t size_code(unsigned guest_shift)
{
	static const uint8_t codes[] = {[12] = 0, [21] = 1, [22] = 2, [30] = 3};
	return (uint64_t)codes[guest_shift] << SHADOW_SIZE_SHIFT;
}

static unsigned size_shift(uint64_t entry)
{
	static const uint8_t shifts[] = {12, 21, 22, 30};
	return shifts[(entry & SHADOW_SIZE) >> SHADOW_SIZE_SHIFT];
}

static void take_mode(struct shadow *s)
{
	const struct paging_mode *guest = s->mmu->private->context.mode;
	s->mode = guest->entry_bytes == 4 ? &paging_modes[PAGING_PAE] : guest;
}

int shadow_init(struct shadow *s, struct mmu *mmu, const struct mmu_config *config, struct error *e)
{
	s->mmu = mmu;
	s->root = TABLE_POOL_NONE;
	s->page_shift_max = config->host_page_shift;
	s->tables = calloc(SHADOW_PAGES, sizeof(*s->tables));
	if (!s->tables)
		return error_set(e, -ENOMEM, "no host memory for shadow tables");
	take_mode(s);
	return table_pool_init(&s->pool, hpa(align_up(mmu->memory->ram_bytes, BIT(30))),
			       SHADOW_PAGES, e);
}

void shadow_fini(struct shadow *s)
{
	table_pool_fini(&s->pool);
	free(s->tables);
}

unsigned shadow_flags(uint64_t entry)
{
	return (entry & PTE_W ? WALK_W | WALK_D : 0) | (entry & PTE_U ? WALK_U : 0) |
	       (entry & PTE_NX ? WALK_NX : 0);
}

unsigned shadow_guest_shift(uint64_t entry, unsigned page_shift)
{
	unsigned shift = size_shift(entry);
	return shift > page_shift ? shift : page_shift;
}

static bool is_leaf(uint64_t entry, unsigned level)
{
	return level == 1 || (entry & PTE_PS);
}

static uint32_t child_of(const struct shadow *s, uint64_t entry)
{
	return table_pool_page(&s->pool, hpa(entry & SHADOW_ADDRESS));
}

static unsigned index_at(const struct shadow *s, unsigned level, gva_t address)
{
	const struct walk_level *l = &s->mode->level[level];
	return (unsigned)(address.v >> l->shift) & l->index_mask;
}

struct shadow_hit shadow_walk(const struct shadow *s, gva_t address)
{
	uint32_t table = s->root;
	if (table == TABLE_POOL_NONE) {
		/* The VMM gives the hardware an empty root (registers, for PAE). */
		if (!s->mode->level[s->mode->level_count].is_register)
			mmu_charge_reference(s->mmu, TABLE_SHADOW, s->mode->level_count,
					     s->pool.base.v);
		return (struct shadow_hit){0};
	}
	for (unsigned level = s->mode->level_count;; level--) {
		const uint64_t *at =
			table_pool_entries(&s->pool, table) + index_at(s, level, address);
		uint64_t entry = *at;
		if (!s->mode->level[level].is_register)
			mmu_charge_reference(s->mmu, TABLE_SHADOW, level,
					     table_pool_address(&s->pool, at).v);
		if (!(entry & PTE_P))
			return (struct shadow_hit){0};
		if (is_leaf(entry, level))
			return (struct shadow_hit){entry, s->mode->level[level].shift};
		table = child_of(s, entry);
	}
}

int shadow_leaf_flags(const struct walk_context *c, const struct vcpu_state *state,
		      unsigned guest_flags, enum access_kind kind, enum mmu_mode mode)
{
	unsigned flags = guest_flags & WALK_RIGHTS;
	bool is_wp = state->cr0 & CR0_WP, is_dirty = guest_flags & WALK_D;
	bool is_user_page = guest_flags & WALK_U;
	if (!is_wp && !is_user_page)
		flags |= WALK_W;
	if (!is_wp && is_user_page && !(flags & WALK_W) && kind == ACCESS_WRITE &&
	    mode != MMU_USER) {
		if (state->cr4 & CR4_SMAP)
			return -1;
		flags = (flags & ~WALK_U) | WALK_W;
		if (state->cr4 & CR4_SMEP)
			flags |= WALK_NX;
	}
	if (!is_dirty)
		flags &= ~WALK_W;
	return (int)flags;
}

/* Filling and dropping */

static void free_below(struct shadow *s, uint64_t entry, unsigned level)
{
	if (!(entry & PTE_P) || is_leaf(entry, level))
		return;
	uint32_t table = child_of(s, entry);
	uint64_t *entries = table_pool_entries(&s->pool, table);
	if (level > 2)
		for (unsigned i = 0; i < 512; i++)
			free_below(s, entries[i], level - 1);
	table_pool_free(&s->pool, table);
}

static void drop_entry(struct shadow *s, uint64_t *entry, unsigned level)
{
	free_below(s, *entry, level);
	*entry = 0;
}

static uint32_t make_table(struct shadow *s, uint32_t parent, unsigned parent_index, unsigned level)
{
	uint32_t table = table_pool_alloc(&s->pool, 1);
	if (table != TABLE_POOL_NONE)
		s->tables[table] =
			(struct shadow_table){parent, (uint16_t)parent_index, (uint8_t)level};
	return table;
}

/* The table that `entry` at `level` points to, made if need be. What it held for a guest page of
 * another size is stale: it goes. */
static uint32_t descend(struct shadow *s, uint32_t table, uint64_t *entry, unsigned level,
			uint64_t code)
{
	bool is_other = is_leaf(*entry, level) || (*entry & SHADOW_SIZE) != code;
	if (*entry & PTE_P && is_other)
		drop_entry(s, entry, level);
	if (*entry & PTE_P)
		return child_of(s, *entry);
	unsigned index = (unsigned)(entry - table_pool_entries(&s->pool, table));
	uint32_t child = make_table(s, table, index, level - 1);
	if (child != TABLE_POOL_NONE)
		*entry = table_pool_hpa(&s->pool, child).v | code | PTE_P | PTE_W | PTE_U;
	return child;
}

/* The level whose entries cover pages of at most `guest_shift` and of what host backing at `a`
 * allows. */
static unsigned leaf_level(const struct shadow *s, gpa_t a, unsigned guest_shift)
{
	unsigned shift_max = guest_shift == 22 ? 21 : guest_shift;
	if (shift_max > s->page_shift_max)
		shift_max = s->page_shift_max;
	unsigned shift = host_page_shift_at(s->mmu->memory, a, shift_max);
	return (shift - PAGE_SHIFT) / 9 + 1;
}

bool shadow_fill(struct shadow *s, gva_t address, const struct walk_result *r, unsigned flags)
{
	unsigned last = leaf_level(s, r->gpa, r->page_shift);
	if (s->root == TABLE_POOL_NONE)
		s->root = make_table(s, TABLE_POOL_NONE, 0, s->mode->level_count);
	uint32_t table = s->root;
	for (unsigned level = s->mode->level_count; table != TABLE_POOL_NONE; level--) {
		unsigned shift = s->mode->level[level].shift;
		uint64_t *entry = table_pool_entries(&s->pool, table) + index_at(s, level, address);
		uint64_t code = shift <= r->page_shift ? size_code(r->page_shift) : 0;
		if (level > last) {
			table = descend(s, table, entry, level, code);
			continue;
		}
		drop_entry(s, entry, level);
		gpa_t first = gpa(align_down(r->gpa.v, BIT(shift)));
		*entry = hpa_from_gpa(s->mmu->memory, first).v | code | PTE_P |
			 (flags & WALK_W ? PTE_W : 0) | (flags & WALK_U ? PTE_U : 0) |
			 (flags & WALK_NX ? PTE_NX : 0) | (level > 1 ? PTE_PS : 0);
		return true;
	}
	return false;
}

void shadow_drop_page(struct shadow *s, gva_t address)
{
	uint32_t table = s->root;
	if (table == TABLE_POOL_NONE)
		return;
	for (unsigned level = s->mode->level_count;; level--) {
		unsigned index = index_at(s, level, address);
		uint64_t *entries = table_pool_entries(&s->pool, table);
		uint64_t entry = entries[index];
		if (!(entry & PTE_P))
			return;
		if (is_leaf(entry, level) || (entry & SHADOW_SIZE)) {
			if (level == 2 && size_shift(entry) == 22)
				drop_entry(s, &entries[index ^ 1], level);
			drop_entry(s, &entries[index], level);
			return;
		}
		table = child_of(s, entry);
	}
}

bool shadow_drop_all(struct shadow *s)
{
	bool had_any = s->root != TABLE_POOL_NONE;
	table_pool_clear(&s->pool);
	s->root = TABLE_POOL_NONE;
	take_mode(s);
	return had_any;
}
