/*
 * The walker: level descriptors, the reserved bits of each mode, the loop, and the atomic A/D
 * update. See walk.h.
 */
#include "paging/walk.h"

#include "cpu/cpuid.h"
#include "cpu/vcpu.h"

const struct paging_mode paging_modes[PAGING_MODE_COUNT] = {
	[PAGING_OFF] = {"off", 0, 0, {{0}}},
	[PAGING_32BIT] = {"32-bit", 2, 4, {{0}, {12, 0x3ff}, {22, 0x3ff}}},
	[PAGING_PAE] = {"PAE", 3, 8, {{0}, {12, 0x1ff}, {21, 0x1ff}, {30, 0x3, true}}},
	[PAGING_4LEVEL] = {"4-level",
			   4,
			   8,
			   {{0}, {12, 0x1ff}, {21, 0x1ff}, {30, 0x1ff}, {39, 0x1ff}}},
	[PAGING_5LEVEL] = {"5-level",
			   5,
			   8,
			   {{0}, {12, 0x1ff}, {21, 0x1ff}, {30, 0x1ff}, {39, 0x1ff}, {48, 0x1ff}}},
};

/* Large pages of two-level tables reach 40 bits at most (PSE-36, SDM 3A table 4-4). */
#define PSE36_BITS_MAX 40
#define FRAME_BITS_MAX 52

static enum paging_mode_id mode_of(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	if (!(cr0 & CR0_PG))
		return PAGING_OFF;
	if (!(cr4 & CR4_PAE))
		return PAGING_32BIT;
	if (!(efer & EFER_LMA))
		return PAGING_PAE;
	return cr4 & CR4_LA57 ? PAGING_5LEVEL : PAGING_4LEVEL;
}

/* Bits hi..lo as a mask; nothing when hi < lo. */
static uint64_t bit_range(unsigned hi, unsigned lo)
{
	return hi < lo ? 0 : (~0ull >> (63 - hi)) & (~0ull << lo);
}

/* SDM 3A 4.3: bits 21:(M-19) of a 4 MiB entry, M the width of a large page's address. */
static void init_32bit(struct walk_context *c, uint64_t cr4, const struct cpu_model *model)
{
	c->frame_mask = 0xfffff000u;
	if (!(cr4 & CR4_PSE))
		return;
	unsigned m = model->physical_bits < PSE36_BITS_MAX ? model->physical_bits : PSE36_BITS_MAX;
	if (!cpu_has(model, FEATURE_PSE36))
		m = 32;
	c->large_levels = 1u << 2;
	c->reserved[2][1] = bit_range(21, m <= 32 ? 13 : m - 19);
}

/* SDM 3A 4.4 and 4.5: entries of 8 bytes. */
static void init_wide(struct walk_context *c, enum paging_mode_id id, uint64_t efer,
		      const struct cpu_model *model)
{
	unsigned physical_bits = model->physical_bits;
	bool is_pae = id == PAGING_PAE;
	uint64_t all = bit_range(is_pae ? 62 : FRAME_BITS_MAX - 1, physical_bits);
	if (efer & EFER_NXE)
		c->nx_bit = PTE_NX;
	else
		all |= PTE_NX;
	c->frame_mask = bit_range(physical_bits - 1, PAGE_SHIFT);
	c->large_levels = 1u << 2;
	if (!is_pae && cpu_has(model, FEATURE_PDPE1GB))
		c->large_levels |= 1u << 3;
	for (unsigned level = 1; level <= c->mode->level_count; level++) {
		c->reserved[level][0] = c->reserved[level][1] = all;
		if (level == 1)
			continue;
		if (c->large_levels & (1u << level))
			c->reserved[level][1] |= bit_range(c->mode->level[level].shift - 1u, 13);
		else
			c->reserved[level][1] |= PTE_PS;
	}
	/* Loading CR3 refuses these with #GP (SDM 3A 4.4.1); AMD's processors check them at the
	 * walk, and so do we. */
	if (is_pae)
		c->reserved[3][0] = c->reserved[3][1] = bit_range(63, physical_bits) |
							bit_range(8, 5) | bit_range(2, 1);
}

void walk_permit_init(uint16_t permit[WALK_RIGHTS + 1], uint64_t cr0, uint64_t cr4)
{
	for (unsigned rights = 0; rights <= WALK_RIGHTS; rights++) {
		bool is_user_page = rights & WALK_U, is_writable = rights & WALK_W;
		bool is_executable = !(rights & WALK_NX);
		unsigned p = 0;
		if (is_user_page) {
			p |= 1u << WALK_ACCESS(MMU_USER, ACCESS_READ);
			p |= (unsigned)is_writable << WALK_ACCESS(MMU_USER, ACCESS_WRITE);
			p |= (unsigned)is_executable << WALK_ACCESS(MMU_USER, ACCESS_FETCH);
		}
		bool may_write = is_writable || !(cr0 & CR0_WP);
		bool may_fetch = is_executable && !(is_user_page && (cr4 & CR4_SMEP));
		for (unsigned m = 0; m < MMU_MODE_COUNT; m++) {
			bool is_smap = m == MMU_SUPERVISOR && is_user_page && (cr4 & CR4_SMAP);
			if (m == MMU_USER)
				continue;
			p |= (unsigned)!is_smap << WALK_ACCESS(m, ACCESS_READ);
			p |= (unsigned)(!is_smap && may_write) << WALK_ACCESS(m, ACCESS_WRITE);
			p |= (unsigned)may_fetch << WALK_ACCESS(m, ACCESS_FETCH);
		}
		permit[rights] = (uint16_t)p;
	}
}

void walk_context_init(struct walk_context *c, uint64_t cr0, uint64_t cr4, uint64_t efer,
		       const struct cpu_model *model)
{
	enum paging_mode_id id = mode_of(cr0, cr4, efer);
	*c = (struct walk_context){.mode = &paging_modes[id]};
	c->is_global_on = cr4 & CR4_PGE;
	if (((cr4 & CR4_PAE) && (efer & EFER_NXE)) || (cr4 & CR4_SMEP))
		c->fetch_error = PF_I;
	walk_permit_init(c->permit, cr0, cr4);
	if (id == PAGING_32BIT)
		init_32bit(c, cr4, model);
	else if (id != PAGING_OFF)
		init_wide(c, id, efer, model);
}

struct walk_source walk_source_of(const struct walk_context *c, const struct vcpu_state *s,
				  struct memory *m)
{
	struct walk_source source = {.memory = m, .pdpte = s->pdpte};
	/* With PAE the root table is the 32-byte one that the registers were loaded from. */
	source.root = gpa(c->mode == &paging_modes[PAGING_PAE] ? s->cr3 & 0xffffffe0u
							       : s->cr3 & c->frame_mask);
	return source;
}

static uint64_t load_entry(const uint8_t *host, unsigned entry_bytes)
{
	if (!host)
		return mask_bytes(entry_bytes);
	return entry_bytes == 4
		       ? __atomic_load_n((const uint32_t *)(const void *)host, __ATOMIC_RELAXED)
		       : __atomic_load_n((const uint64_t *)(const void *)host, __ATOMIC_RELAXED);
}

/* Reads the entry that `address` selects in `table`. False: aborted. */
static bool read_step(const struct walk_context *c, const struct walk_source *s, unsigned level,
		      gpa_t table, gva_t address, struct walk_step *step)
{
	const struct walk_level *l = &c->mode->level[level];
	unsigned index = (unsigned)(address.v >> l->shift) & l->index_mask;
	unsigned entry_bytes = c->mode->entry_bytes;
	step->level = (uint8_t)level;
	step->address = gpa(table.v + index * entry_bytes);
	step->host = NULL;
	if (l->is_register) {
		step->entry = s->pdpte[index];
		return true;
	}
	if (!s->locate)
		step->host = memory_host(s->memory, step->address, entry_bytes);
	else if (!s->locate(s->opaque, step->address, entry_bytes, &step->host))
		return false;
	step->entry = load_entry(step->host, entry_bytes);
	return true;
}

/* The page frame that a leaf names. */
static uint64_t leaf_frame(const struct walk_context *c, uint64_t entry, unsigned shift)
{
	uint64_t frame = entry & c->frame_mask & (~0ull << shift);
	if (shift == 22)
		frame |= bits(entry, 20, 13) << 32;
	return frame;
}

static enum walk_outcome fail(const struct walk_context *c, struct walk_result *r,
			      enum access_kind kind, enum mmu_mode mode, uint64_t why)
{
	r->error_code = (uint32_t)why;
	if (kind == ACCESS_WRITE)
		r->error_code |= PF_W;
	if (kind == ACCESS_FETCH)
		r->error_code |= c->fetch_error;
	if (mode == MMU_USER)
		r->error_code |= PF_U;
	return r->outcome = WALK_FAULT;
}

enum walk_outcome walk(const struct walk_context *c, const struct walk_source *s, gva_t address,
		       enum access_kind kind, enum mmu_mode mode, struct walk_result *r)
{
	uint64_t both = PTE_W | PTE_U, any = 0;
	gpa_t table = s->root;
	r->step_count = 0;
	for (unsigned level = c->mode->level_count;; level--) {
		struct walk_step *step = &r->step[r->step_count];
		if (!read_step(c, s, level, table, address, step))
			return r->outcome = WALK_ABORTED;
		r->step_count++;
		uint64_t entry = step->entry;
		if (!(entry & PTE_P))
			return fail(c, r, kind, mode, 0);
		bool is_large = (entry & PTE_PS) != 0;
		if (entry & c->reserved[level][is_large])
			return fail(c, r, kind, mode, PF_P | PF_RSVD);
		if (!c->mode->level[level].is_register) {
			both &= entry;
			any |= entry;
		}
		if (level != 1 && !(is_large && (c->large_levels & (1u << level)))) {
			table = gpa(entry & c->frame_mask);
			continue;
		}
		r->page_shift = c->mode->level[level].shift;
		r->flags =
			(uint8_t)((both & PTE_W ? WALK_W : 0) | (both & PTE_U ? WALK_U : 0) |
				  (any & c->nx_bit ? WALK_NX : 0) | (entry & PTE_D ? WALK_D : 0) |
				  (entry & PTE_G && c->is_global_on ? WALK_G : 0));
		if (!walk_permits(c->permit, r->flags, kind, mode))
			return fail(c, r, kind, mode, PF_P);
		r->gpa = gpa(leaf_frame(c, entry, r->page_shift) |
			     (address.v & ~(~0ull << r->page_shift)));
		return r->outcome = WALK_OK;
	}
}

uint64_t walk_committed_entry(const struct walk_result *r, unsigned i, enum access_kind kind)
{
	const struct walk_step *step = &r->step[i];
	if (!step->host)
		return step->entry;
	bool is_leaf = i + 1u == r->step_count;
	return step->entry | PTE_A | (is_leaf && kind == ACCESS_WRITE ? PTE_D : 0);
}

static bool exchange_entry(uint8_t *host, unsigned entry_bytes, uint64_t old, uint64_t new)
{
	if (entry_bytes == 4) {
		uint32_t expected = (uint32_t)old;
		return __atomic_compare_exchange_n((uint32_t *)(void *)host, &expected,
						   (uint32_t) new, false, __ATOMIC_SEQ_CST,
						   __ATOMIC_RELAXED);
	}
	return __atomic_compare_exchange_n((uint64_t *)(void *)host, &old, new, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

bool walk_commit(const struct walk_context *c, const struct walk_source *s, enum access_kind kind,
		 struct walk_result *r, unsigned *update_count)
{
	unsigned entry_bytes = c->mode->entry_bytes;
	for (unsigned i = 0; i < r->step_count; i++) {
		struct walk_step *step = &r->step[i];
		uint64_t new = walk_committed_entry(r, i, kind);
		if (likely(new == step->entry))
			continue;
		const struct memslot *slot = memory_slot(s->memory, step->address);
		uint8_t page_flags = memory_page_flags(s->memory, step->address);
		if (slot->is_rom || (page_flags & PAGE_ROM))
			continue;
		if (!s->is_readonly && !exchange_entry(step->host, entry_bytes, step->entry, new))
			return false;
		/* A table that points to itself has one entry at several levels. */
		for (unsigned j = i; j < r->step_count; j++)
			if (r->step[j].host == step->host)
				r->step[j].entry = new;
		if (update_count)
			(*update_count)++;
		if (page_flags && !s->is_readonly)
			memory_notify_walk(s->memory, step->address, entry_bytes);
	}
	if (kind == ACCESS_WRITE)
		r->flags |= WALK_D;
	return true;
}

enum walk_outcome walk_and_commit(const struct walk_context *c, const struct walk_source *s,
				  gva_t address, enum access_kind kind, enum mmu_mode mode,
				  struct walk_result *r, unsigned *update_count)
{
	while (walk(c, s, address, kind, mode, r) == WALK_OK &&
	       !walk_commit(c, s, kind, r, update_count))
		;
	return r->outcome;
}
