/*
 * The hardware's walk of the shadow, and what its entries must be: one function (shadow_want) says
 * what a guest's entry asks of the shadow's, and filling, prefetching, updating, synchronising and
 * the audit all go by it. See shadow.h.
 */
#include "paging/shadow.h"

#include <assert.h>

#include "cpu/vcpu.h"

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

unsigned shadow_flags(uint64_t entry)
{
	return (entry & PTE_W ? WALK_W | WALK_D : 0) | (entry & PTE_U ? WALK_U : 0) |
	       (entry & PTE_NX ? WALK_NX : 0) | (entry & PTE_G ? WALK_G : 0);
}

static uint64_t flag_bits(unsigned flags)
{
	return (flags & WALK_W ? PTE_W : 0) | (flags & WALK_U ? PTE_U : 0) |
	       (flags & WALK_NX ? PTE_NX : 0) | (flags & WALK_G ? PTE_G : 0);
}

unsigned shadow_guest_shift(uint64_t entry, unsigned page_shift)
{
	unsigned shift = size_shift(entry);
	return shift > page_shift ? shift : page_shift;
}

static void note_reference(struct walk_path *path, const struct shadow *s, unsigned level,
			   uint64_t address, uint64_t entry)
{
	if (!s->mode->level[level].is_register)
		walk_path_add(path, level, s->mode->level[level].shift, address, entry);
}

struct shadow_hit shadow_walk(const struct shadow *s, gva_t address)
{
	struct walk_path path = {.count = 0};
	struct shadow_hit hit = {0};
	uint32_t page = s->root;
	unsigned level = s->mode->level_count;
	/* Without a root the VMM gives the hardware an empty one (registers, for PAE). */
	if (page == SHADOW_NONE)
		note_reference(&path, s, level, s->pool.base.v, 0);
	for (; page != SHADOW_NONE; level--) {
		const uint64_t *at =
			table_pool_entries(&s->pool, page) + shadow_index(s, level, address);
		uint64_t entry = *at;
		note_reference(&path, s, level, table_pool_address(&s->pool, at).v, entry);
		if (!(entry & PTE_P)) {
			hit.is_known_absent = entry & SHADOW_NOT_PRESENT;
			break;
		}
		if (shadow_is_leaf(entry, level)) {
			hit = (struct shadow_hit){entry, page, s->mode->level[level].shift, false};
			break;
		}
		page = shadow_child(s, entry);
	}
	mmu_charge_path(s->mmu, TABLE_SHADOW, address, &path, !hit.entry);
	return hit;
}

bool shadow_is_forced(const struct walk_context *c, unsigned guest_flags, enum access_kind kind,
		      enum mmu_mode mode)
{
	unsigned supervisor_write = WALK_ACCESS(MMU_SUPERVISOR_AC, ACCESS_WRITE);
	return kind == ACCESS_WRITE && mode != MMU_USER &&
	       (guest_flags & (WALK_U | WALK_W)) == WALK_U &&
	       (c->permit[WALK_U] >> supervisor_write & 1);
}

int shadow_leaf_flags(union shadow_role role, unsigned guest_flags, bool is_forced)
{
	unsigned flags = guest_flags & WALK_RIGHTS;
	if (!role.is_wp && !(flags & WALK_U))
		flags |= WALK_W;
	if (is_forced) {
		if (role.is_smap)
			return -1;
		flags = (flags & ~WALK_U) | WALK_W;
		if (role.is_smep)
			flags |= WALK_NX;
	}
	if (!(guest_flags & WALK_D))
		flags &= ~WALK_W;
	return (int)flags;
}

/* What the guest asks */

static bool is_two_level(const struct shadow *s)
{
	return s->mmu->private->context.mode->entry_bytes == 4;
}

/* The guest's entry behind entry `index` of `p`. */
static unsigned guest_index(const struct shadow *s, const struct shadow_page *p, unsigned index)
{
	if (!is_two_level(s))
		return index;
	return p->role.level == 1 ? p->role.quadrant * 512 + index
				  : p->role.quadrant * 256 + index / 2;
}

uint64_t shadow_guest_entry(const struct shadow *s, uint32_t page, unsigned index)
{
	const struct shadow_page *p = &s->pages[page];
	const struct memory *m = s->mmu->memory;
	unsigned bytes = s->mmu->private->context.mode->entry_bytes;
	gpa_t a = gpa((p->gfn << PAGE_SHIFT) + guest_index(s, p, index) * bytes);
	const uint8_t *host = memory_host(m, a, bytes);
	if (!host)
		return ~0ull;
	uint64_t e = bytes == 4 ? *(const uint32_t *)(const void *)host
				: *(const uint64_t *)(const void *)host;
	/* Walks cannot set A and D in ROM, and go on as if they had. */
	const struct memslot *slot = memory_slot(m, a);
	if (slot->is_rom || memory_page_flags(m, a) & PAGE_ROM)
		e |= PTE_A | PTE_D;
	for (unsigned i = 0; s->walk && i < s->walk->step_count; i++)
		if (s->walk->step[i].host == host)
			return s->walk->step[i].entry;
	return e;
}

/* The rights that entry `e` leaves of `access`. */
static unsigned narrow(const struct shadow *s, unsigned access, uint64_t e)
{
	return (access & (e & PTE_W ? ~0u : ~WALK_W) & (e & PTE_U ? ~0u : ~WALK_U)) |
	       (e & s->mmu->private->context.nx_bit ? WALK_NX : 0);
}

/* WALK_G for a guest's leaf `e`. */
static unsigned global_flag(const struct shadow *s, uint64_t e)
{
	return s->policy.is_global && (e & PTE_G) ? WALK_G : 0;
}

/* The role of the page below entry `index` of `p` on the way down the guest's tables. */
static union shadow_role role_below(const struct shadow *s, const struct shadow_page *p,
				    unsigned index, unsigned access)
{
	union shadow_role role = {.level = p->role.level - 1u};
	role.is_wp = p->role.is_wp;
	role.is_smep = p->role.is_smep;
	role.is_smap = p->role.is_smap;
	if (s->policy.is_watching)
		role.access = access;
	if (is_two_level(s))
		role.quadrant = p->role.is_register ? index : index & 1;
	return role;
}

/* The first page of the part of a large guest page at `frame` that entry `index` of `p` maps. */
static uint64_t part_of(const struct shadow_page *p, unsigned index, uint64_t frame,
			unsigned guest_shift)
{
	return (frame >> PAGE_SHIFT) +
	       (guest_shift == 22 && p->role.level == 2 ? (index & 1) * 512ull : 0);
}

static uint64_t large_frame(const struct walk_context *c, uint64_t e, unsigned shift)
{
	uint64_t frame = e & c->frame_mask & (~0ull << shift);
	return shift == 22 ? frame | bits(e, 20, 13) << 32 : frame;
}

static bool is_switch(const struct shadow *s, uint64_t gfn)
{
	return s->policy.is_nested && memory_slot(s->mmu->memory, gpa_from_gfn(gfn)) &&
	       s->policy.is_nested(s->policy.opaque, gfn);
}

static struct shadow_want want_of_register(const struct shadow *s, const struct shadow_page *p,
					   unsigned index, uint64_t e)
{
	const struct walk_context *c = &s->mmu->private->context;
	struct shadow_want w = {.is_present = e & PTE_P};
	w.role = role_below(s, p, index, p->role.access);
	w.gfn = is_two_level(s) ? p->gfn : (e & c->frame_mask) >> PAGE_SHIFT;
	if (is_two_level(s) || ((e & PTE_P) && !(e & c->reserved[3][0])))
		w.kind = is_switch(s, w.gfn) ? SHADOW_WANT_SWITCH : SHADOW_WANT_POINTER;
	w.flags = p->role.access;
	return w;
}

struct shadow_want shadow_want(const struct shadow *s, uint32_t page, unsigned index, uint64_t e)
{
	const struct walk_context *c = &s->mmu->private->context;
	const struct shadow_page *p = &s->pages[page];
	unsigned level = p->role.level;
	bool is_large = (e & PTE_PS) != 0;
	if (p->role.is_register)
		return want_of_register(s, p, index, e);
	struct shadow_want w = {.is_present = e & PTE_P};
	if (!(e & PTE_P) || (e & c->reserved[level][is_large]) || !(e & PTE_A))
		return w;
	unsigned access = narrow(s, p->role.access, e);
	if (level > 1 && !(is_large && (c->large_levels & (1u << level)))) {
		w.kind = SHADOW_WANT_POINTER;
		w.role = role_below(s, p, index, access);
		w.gfn = (e & c->frame_mask) >> PAGE_SHIFT;
		w.flags = access;
		if (is_switch(s, w.gfn))
			w.kind = SHADOW_WANT_SWITCH;
		return w;
	}
	w.kind = SHADOW_WANT_LEAF;
	w.guest_shift = c->mode->level[level].shift;
	w.gfn = part_of(p, index, large_frame(c, e, w.guest_shift), w.guest_shift);
	w.flags = access | (e & PTE_D ? WALK_D : 0) | global_flag(s, e);
	return w;
}

static bool is_leaf_flags(unsigned have, int want)
{
	return want >= 0 && !((have ^ (unsigned)want) & (WALK_U | WALK_NX)) &&
	       !(have & WALK_W & ~(unsigned)want);
}

/* A leaf's rights, or a direct page's: either flavour, and perhaps not yet writable. */
static bool are_rights_as_wanted(union shadow_role role, unsigned have, unsigned guest_flags)
{
	bool may_be_forced = !role.is_wp && (guest_flags & (WALK_U | WALK_W)) == WALK_U;
	return is_leaf_flags(have, shadow_leaf_flags(role, guest_flags, false)) ||
	       (may_be_forced && is_leaf_flags(have, shadow_leaf_flags(role, guest_flags, true)));
}

bool shadow_is_as_wanted(const struct shadow *s, uint32_t at, const struct shadow_want *w)
{
	uint64_t entry = *shadow_entry(s, at);
	const struct shadow_page *p = &s->pages[shadow_page_of(at)];
	bool is_leaf = shadow_is_leaf(entry, p->role.level);
	if (w->kind == SHADOW_WANT_NOTHING)
		return false;
	if (w->kind == SHADOW_WANT_SWITCH || entry & SHADOW_SWITCH)
		return w->kind == SHADOW_WANT_SWITCH &&
		       entry == shadow_switch_entry(s, w->gfn, w->flags);
	if (!is_leaf) {
		const struct shadow_page *child = &s->pages[shadow_child(s, entry)];
		if (w->kind == SHADOW_WANT_POINTER)
			return child->gfn == w->gfn && child->role.bits == w->role.bits;
		return child->role.is_direct && child->gfn == w->gfn &&
		       child->role.level + 1u == p->role.level &&
		       size_shift((uint64_t)child->role.size << SHADOW_SIZE_SHIFT) ==
			       w->guest_shift &&
		       child->role.is_global == !!(w->flags & WALK_G) &&
		       are_rights_as_wanted(p->role, child->role.access, w->flags);
	}
	return w->kind == SHADOW_WANT_LEAF && memory_slot(s->mmu->memory, gpa_from_gfn(w->gfn)) &&
	       hpa_from_gpa(s->mmu->memory, gpa_from_gfn(w->gfn)).v == (entry & SHADOW_ADDRESS) &&
	       size_shift(entry) == w->guest_shift && !(entry & PTE_G) == !(w->flags & WALK_G) &&
	       are_rights_as_wanted(p->role, shadow_flags(entry) & WALK_RIGHTS, w->flags);
}

/* Filling */

/* A leaf for the frames from `gfn` on. */
static void set_mapping(struct shadow *s, uint32_t at, uint64_t gfn, unsigned flags, uint64_t code)
{
	unsigned level = s->pages[shadow_page_of(at)].role.level;
	if (level == 1 && shadow_is_protected(s, gfn))
		flags &= ~WALK_W;
	shadow_set_leaf(s, at,
			hpa_from_gpa(s->mmu->memory, gpa_from_gfn(gfn)).v | code | PTE_P |
				flag_bits(flags) | (level > 1 ? PTE_PS : 0));
	if (s->policy.mapped)
		s->policy.mapped(s->policy.opaque, gfn);
}

bool shadow_try_leaf(struct shadow *s, uint32_t at, const struct shadow_want *w)
{
	const struct shadow_page *p = &s->pages[shadow_page_of(at)];
	unsigned level = p->role.level;
	if (w->kind == SHADOW_WANT_SWITCH) {
		shadow_set_leaf(s, at, shadow_switch_entry(s, w->gfn, w->flags));
		return true;
	}
	if (w->kind != SHADOW_WANT_LEAF || !memory_slot(s->mmu->memory, gpa_from_gfn(w->gfn)) ||
	    (level > 1 &&
	     shadow_shift_at(s, w->gfn, w->guest_shift) != s->mode->level[level].shift))
		return false;
	unsigned flags = (unsigned)shadow_leaf_flags(p->role, w->flags, false) |
			 (w->flags & WALK_G);
	set_mapping(s, at, w->gfn, flags, size_code(w->guest_shift));
	return true;
}

/* Where a fill is on its way down. */
struct descent {
	const struct walk_result *r;
	unsigned flags; /* of the leaf */
	unsigned step;	/* of r, for the page's own level */
	uint64_t code;
	bool is_let_go;
};

static union shadow_role direct_role(const struct shadow *s, unsigned level,
				     const struct descent *d)
{
	union shadow_role role = {.level = level, .is_direct = 1};
	role.size = d->code >> SHADOW_SIZE_SHIFT & 3;
	if (s->policy.is_watching)
		role.access = d->flags & WALK_RIGHTS;
	role.is_global = (d->flags & WALK_G) != 0;
	return role;
}

/* The page below entry `at`, found or made, and linked; SHADOW_NONE: it is walked in two dimensions
 * from here on. What the entry held for something else is stale: it goes. */
static uint32_t step_down(struct shadow *s, uint32_t at, gva_t address, const struct descent *d)
{
	uint32_t page = shadow_page_of(at);
	const struct shadow_page *p = &s->pages[page];
	unsigned level = p->role.level;
	const struct walk_step *leaf = &d->r->step[d->r->step_count - 1];
	uint64_t gfn = 0;
	union shadow_role role;
	if (level <= leaf->level) { /* inside the guest's page */
		role = direct_role(s, level - 1, d);
		if (s->policy.is_watching)
			gfn = align_down(d->r->gpa.v, BIT(s->mode->level[level].shift)) >>
			      PAGE_SHIFT;
	} else {
		unsigned access = p->role.access;
		if (!p->role.is_register)
			access = narrow(s, access, d->r->step[d->step].entry);
		role = role_below(s, p, at % SHADOW_ENTRIES, access);
		unsigned below = p->role.is_register && is_two_level(s) ? 0 : d->step + 1;
		if (s->policy.is_watching)
			gfn = d->r->step[below].address.v >> PAGE_SHIFT;
		if (is_switch(s, gfn)) {
			shadow_clear_entry(s, at);
			shadow_set_leaf(s, at, shadow_switch_entry(s, gfn, access));
			return SHADOW_NONE;
		}
	}
	uint64_t entry = *shadow_entry(s, at);
	if ((entry & PTE_P) && !shadow_is_leaf(entry, level) && (entry & SHADOW_SIZE) == d->code) {
		uint32_t child = shadow_child(s, entry);
		if (s->pages[child].gfn == gfn && s->pages[child].role.bits == role.bits) {
			shadow_touch(s, child);
			return child;
		}
	}
	shadow_clear_entry(s, at);
	uint32_t child = shadow_get(s, gfn, role);
	assert(child != SHADOW_NONE);
	shadow_set_pointer(s, at, child, d->code);
	return child;
}

/* The last level of a fill. */
static enum shadow_outcome place(struct shadow *s, uint32_t at, const struct descent *d,
				 enum access_kind kind)
{
	unsigned level = s->pages[shadow_page_of(at)].role.level;
	uint64_t gfn = align_down(d->r->gpa.v, BIT(s->mode->level[level].shift)) >> PAGE_SHIFT;
	bool is_refused = kind == ACCESS_WRITE && level == 1 && shadow_is_protected(s, gfn);
	/* What the TLBs hold of the old entry is the guest's to invalidate; a changed frame in a
	 * table that is watched was seen before. */
	bool was_due = s->is_flush_due;
	bool was_leaf = shadow_is_leaf(*shadow_entry(s, at), level);
	shadow_clear_entry(s, at);
	if (was_leaf)
		s->is_flush_due = was_due;
	set_mapping(s, at, gfn, d->flags, d->code);
	return is_refused ? SHADOW_EMULATE : d->is_let_go ? SHADOW_UNSYNCED : SHADOW_FILLED;
}

void shadow_note_use(struct shadow *s, uint32_t page)
{
	const struct shadow_page *p = &s->pages[page];
	struct shadow_frame *f = shadow_is_table(p) ? shadow_frame_of(s, p->gfn) : NULL;
	if (f)
		f->idle_write_count = 0;
}

enum shadow_outcome shadow_fill(struct shadow *s, gva_t address, const struct walk_result *r,
				unsigned flags, enum access_kind kind)
{
	flags |= global_flag(s, r->step[r->step_count - 1].entry);
	struct descent d = {.r = r, .flags = flags};
	uint64_t gfn = gpa_gfn(r->gpa);
	/* Before anything is linked: large pages may come together again when a table goes. */
	if (kind == ACCESS_WRITE && s->policy.is_oos && shadow_is_protected(s, gfn))
		d.is_let_go = shadow_let_go(s, gfn);
	uint32_t page = shadow_take_root(s);
	unsigned top = s->mode->level_count;
	unsigned guest_leaf = r->step[r->step_count - 1].level;
	for (unsigned level = top;; level--) {
		uint32_t at = page * SHADOW_ENTRIES + shadow_index(s, level, address);
		shadow_note(s, at);
		d.step = r->step[0].level - level; /* not for two-level guests' registers */
		d.code = level <= guest_leaf ? size_code(r->page_shift) : 0;
		if (s->policy.is_watching)
			shadow_note_use(s, page);
		if (level <= guest_leaf) {
			unsigned shift = shadow_shift_at(s, gfn, r->page_shift);
			if (s->mode->level[level].shift <= shift)
				return place(s, at, &d, kind);
		}
		page = step_down(s, at, address, &d);
		if (page == SHADOW_NONE)
			return SHADOW_SWITCHED;
	}
}

void shadow_drop_page(struct shadow *s, gva_t address)
{
	uint32_t page = s->root;
	if (page == SHADOW_NONE)
		return;
	for (unsigned level = s->mode->level_count;; level--) {
		uint32_t at = page * SHADOW_ENTRIES + shadow_index(s, level, address);
		uint64_t entry = *shadow_entry(s, at);
		if (!(entry & PTE_P))
			return;
		if (shadow_is_leaf(entry, level) || (entry & SHADOW_SIZE)) {
			if (level == 2 && size_shift(entry) == 22)
				shadow_clear_entry(s, at ^ 1);
			shadow_clear_entry(s, at);
			return;
		}
		page = shadow_child(s, entry);
	}
}

/* Prefetching */

/* Entries [first, first + count) of a page of level 1 that the guest has accessed before. */
static void prefetch_some(struct shadow *s, uint32_t page, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count; i++) {
		uint32_t at = page * SHADOW_ENTRIES + i;
		if (*shadow_entry(s, at) & PTE_P)
			continue;
		struct shadow_want w = shadow_want(s, page, i, shadow_guest_entry(s, page, i));
		if (shadow_try_leaf(s, at, &w))
			ledger_charge(s->mmu->ledger, EVENT_SHADOW_PREFETCH);
	}
}

/* The same for parts of a guest's large page. The guest has one A for all of it, so nothing says
 * which parts it uses: only near ones are worth having. */
#define DIRECT_PREFETCH_MAX 8u
static void prefetch_direct(struct shadow *s, uint32_t page, unsigned first, unsigned count)
{
	union shadow_role role = s->pages[page].role;
	uint64_t code = (uint64_t)role.size << SHADOW_SIZE_SHIFT;
	for (unsigned i = first; i < first + count; i++) {
		uint32_t at = page * SHADOW_ENTRIES + i;
		uint64_t gfn = s->pages[page].gfn + i;
		if ((*shadow_entry(s, at) & PTE_P) ||
		    !memory_slot(s->mmu->memory, gpa_from_gfn(gfn)))
			continue;
		set_mapping(s, at, gfn, role.access | (role.is_global ? WALK_G : 0), code);
		ledger_charge(s->mmu->ledger, EVENT_SHADOW_PREFETCH);
	}
}

/* The other half of a table of 1024 entries. */
static void prefetch_sibling(struct shadow *s, uint32_t page, uint32_t at_above)
{
	union shadow_role role = s->pages[page].role;
	uint32_t at = at_above ^ 1;
	role.quadrant ^= 1;
	if (!(*shadow_entry(s, at) & PTE_P)) {
		uint32_t sibling = shadow_get(s, s->pages[page].gfn, role);
		if (sibling == SHADOW_NONE)
			return;
		shadow_clear_entry(s, at);
		shadow_set_pointer(s, at, sibling, 0);
	}
	prefetch_some(s, shadow_child(s, *shadow_entry(s, at)), 0, SHADOW_ENTRIES);
}

void shadow_prefetch(struct shadow *s, gva_t address)
{
	uint32_t page = s->root, at = 0;
	for (unsigned level = s->mode->level_count; level > 1; level--) {
		at = page * SHADOW_ENTRIES + shadow_index(s, level, address);
		uint64_t entry = *shadow_entry(s, at);
		if (!(entry & PTE_P) || shadow_is_leaf(entry, level))
			return;
		page = shadow_child(s, entry);
	}
	const struct shadow_page *p = &s->pages[page];
	unsigned count = s->policy.prefetch_count, index = shadow_index(s, 1, address);
	unsigned first = count < SHADOW_ENTRIES ? index - index % count : 0;
	if (p->role.is_direct && count > DIRECT_PREFETCH_MAX) {
		count = DIRECT_PREFETCH_MAX;
		first = index - index % count;
	}
	unsigned room = SHADOW_ENTRIES - first;
	if (p->role.is_direct) {
		prefetch_direct(s, page, first, count < room ? count : room);
		return;
	}
	/* A table out of sync may change without a word where nothing was mapped before. */
	if (!shadow_is_protected(s, p->gfn))
		return;
	prefetch_some(s, page, first, count < room ? count : room);
	if (count > SHADOW_ENTRIES && is_two_level(s))
		prefetch_sibling(s, page, at);
}

void shadow_mark_absent(struct shadow *s, uint32_t page)
{
	for (unsigned i = 0; i < SHADOW_ENTRIES; i++) {
		uint32_t at = page * SHADOW_ENTRIES + i;
		uint64_t *entry = shadow_entry(s, at);
		if (*entry & PTE_P)
			continue;
		*entry = shadow_guest_entry(s, page, i) & PTE_P ? 0 : SHADOW_NOT_PRESENT;
		shadow_note(s, at);
	}
}
