/*
 * A small machine for the tests of paging/: RAM, a processor, a hardware model, random page tables,
 * and an oracle.
 *
 * The oracle translates straight from the manual's tables (SDM 3A 4.3 to 4.8), mode by mode and
 * recursively, and shares nothing with paging/walk.c.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "ledger/ledger.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "x86/tlb_geometry.h"

#define WORLD_RAM (64ull << 20)
#define WORLD_TABLES 0x100000ull /* where random tables lie */
#define WORLD_TABLE_PAGES 24u

struct world {
	struct memory *memory;
	struct vcpu vcpu;
	struct cpu_model model;
	struct ledger ledger;
	uint64_t random;
};

static inline uint64_t world_random(struct world *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random * 0x2545f4914f6cdd1dull;
}

static inline unsigned world_below(struct world *w, unsigned n)
{
	return (unsigned)((world_random(w) >> 32) % n);
}

static inline bool world_chance(struct world *w, unsigned percent)
{
	return world_below(w, 100) < percent;
}

static inline void world_open(struct world *w)
{
	memset(w, 0, sizeof(*w));
	assert_int_equal(memory_create(&w->memory, WORLD_RAM, NULL), 0);
	w->random = 0x9e3779b97f4a7c15ull;
	w->model.physical_bits = 40;
	w->model.linear_bits = 48;
	w->model.has[FEATURE_PSE36] = true;
	w->model.has[FEATURE_PDPE1GB] = true;
	w->vcpu.model = &w->model;
	w->vcpu.ledger = &w->ledger;
	w->vcpu.state.cr0 = CR0_PE | CR0_PG | CR0_WP;
}

static inline void world_close(struct world *w)
{
	memory_destroy(w->memory);
}

/* All tables against a copy. cmocka compares byte by byte, 100 times as slow, and shows where. */
static inline void world_has_tables(struct world *w, const uint8_t *expected)
{
	const size_t bytes = WORLD_TABLE_PAGES * 4096;
	const uint8_t *tables = memory_host(w->memory, gpa(WORLD_TABLES), bytes);
	if (memcmp(tables, expected, bytes))
		assert_memory_equal(tables, expected, bytes);
}

static inline uint64_t *world_table(struct world *w, uint64_t at)
{
	return (uint64_t *)(void *)memory_host(w->memory, gpa(at), PAGE_SIZE_BYTES);
}

enum world_mode { WORLD_32BIT, WORLD_PAE, WORLD_4LEVEL, WORLD_5LEVEL, WORLD_MODES };

static inline void world_set_mode(struct world *w, enum world_mode mode)
{
	struct vcpu_state *s = &w->vcpu.state;
	s->cr0 |= CR0_PE | CR0_PG;
	s->cr4 &= ~(CR4_PAE | CR4_LA57);
	s->efer &= ~(EFER_LMA | EFER_LME);
	if (mode != WORLD_32BIT)
		s->cr4 |= CR4_PAE;
	if (mode >= WORLD_4LEVEL)
		s->efer |= EFER_LMA | EFER_LME;
	if (mode == WORLD_5LEVEL)
		s->cr4 |= CR4_LA57;
}

/* Hardware models. */

static inline struct tlb_geometry geometry_intel(void)
{
	return (struct tlb_geometry){
		.l1d = {{{"L1 D 4K", 64, 4, TLB_4K},
			 {"L1 D 2M", 32, 4, TLB_2M | TLB_4M},
			 {"L1 D 1G", 4, 4, TLB_1G}},
			3},
		.l1i = {{{"L1 I 4K", 128, 8, TLB_4K}, {"L1 I 2M", 8, 0, TLB_2M | TLB_4M}}, 2},
		.l2d = {{{"L2 4K/2M", 1536, 12, TLB_4K | TLB_2M}, {"L2 1G", 16, 4, TLB_1G}}, 2},
		.l2_unified = true,
		.tagged = true,
		.pcid = true,
	};
}

static inline struct tlb_geometry geometry_amd(void)
{
	return (struct tlb_geometry){
		.l1d = {{{"L1 D", 48, 0, TLB_ALL_SIZES}}, 1},
		.l1i = {{{"L1 I 4K", 32, 0, TLB_4K}, {"L1 I 2M", 16, 0, TLB_2M}}, 2},
		.l2d = {{{"L2 D 4K", 512, 4, TLB_4K}, {"L2 D 2M", 128, 2, TLB_2M}}, 2},
		.l2i = {{{"L2 I 4K", 512, 4, TLB_4K}}, 1},
		.tagged = true,
	};
}

static inline struct tlb_geometry geometry_tiny(void)
{
	return (struct tlb_geometry){
		.l1d = {{{"L1 D", 3, 0, TLB_4K | TLB_2M}}, 1},
		.l1i = {{{"L1 I", 2, 1, TLB_4K}}, 1},
		.l2d = {{{"L2", 8, 2, TLB_4K | TLB_2M | TLB_4M}}, 1},
		.l2_unified = true,
		.tagged = false,
		.pcid = true,
	};
}

static inline struct tlb_geometry geometry_single(void)
{
	return (struct tlb_geometry){
		.l1d = {{{"L1 D", 64, 0, TLB_4K | TLB_4M | TLB_2M}}, 1},
		.l1i = {{{"L1 I", 64, 0, TLB_4K | TLB_4M | TLB_2M}}, 1},
	};
}

/* The oracle. */

struct oracle {
	bool ok;
	uint32_t error_code;
	uint64_t gpa;
	unsigned shift;
	bool w, u, nx, g;
	unsigned count;
	uint64_t address[5]; /* of the entries used, from the root; all but PDPTEs */
	bool is_leaf[5];
};

struct oracle_request {
	struct world *w;
	uint64_t gva;
	enum access_kind kind;
	enum mmu_mode mode;
};

static inline uint64_t oracle_entry(struct world *w, uint64_t at, unsigned size)
{
	uint64_t value = size == 4 ? 0xffffffffu : ~0ull;
	memory_read(w->memory, gpa(at), &value, size);
	return value;
}

static inline void oracle_fault(const struct oracle_request *q, struct oracle *o, uint32_t code)
{
	const struct vcpu_state *s = &q->w->vcpu.state;
	o->ok = false;
	o->error_code = code | (q->kind == ACCESS_WRITE ? 2u : 0u) |
			(q->mode == MMU_USER ? 4u : 0u);
	bool has_nx = (s->cr4 & CR4_PAE) && (s->efer & EFER_NXE);
	if (q->kind == ACCESS_FETCH && (has_nx || (s->cr4 & CR4_SMEP)))
		o->error_code |= 16;
}

static inline void oracle_page(const struct oracle_request *q, struct oracle *o, uint64_t entry,
			       uint64_t frame, unsigned shift)
{
	const struct vcpu_state *s = &q->w->vcpu.state;
	bool allowed;
	o->shift = shift;
	o->g = (entry >> 8 & 1) && (s->cr4 & CR4_PGE);
	o->gpa = frame + (q->gva & ((1ull << shift) - 1));
	if (q->mode == MMU_USER) {
		allowed = o->u && (q->kind != ACCESS_WRITE || o->w) &&
			  (q->kind != ACCESS_FETCH || !o->nx);
	} else if (q->kind == ACCESS_FETCH) {
		allowed = !o->nx && !(o->u && (s->cr4 & CR4_SMEP));
	} else {
		allowed = !(o->u && (s->cr4 & CR4_SMAP) && q->mode != MMU_SUPERVISOR_AC);
		if (q->kind == ACCESS_WRITE && (s->cr0 & CR0_WP) && !o->w)
			allowed = false;
	}
	o->ok = true;
	if (!allowed)
		oracle_fault(q, o, 1);
}

/* Entries of 8 bytes; level 1 is the page table. */
static inline void oracle_wide(const struct oracle_request *q, struct oracle *o, unsigned level,
			       uint64_t table)
{
	const struct vcpu_state *s = &q->w->vcpu.state;
	bool is_long = s->efer & EFER_LMA;
	unsigned shift = 12 + 9 * (level - 1), m = q->w->model.physical_bits;
	uint64_t at = table + (q->gva >> shift & 511) * 8, e = oracle_entry(q->w, at, 8);
	uint64_t high = ~0ull << m; /* what is above the address */
	o->is_leaf[o->count] = false;
	o->address[o->count++] = at;
	if (!(e & 1))
		return oracle_fault(q, o, 0);
	uint64_t reserved = high & (is_long ? 0x000fffffffffffffull : 0x7fffffffffffffffull);
	if (!(s->efer & EFER_NXE))
		reserved |= 1ull << 63;
	bool ps = e >> 7 & 1, is_page = level == 1;
	if (level == 2 && ps)
		is_page = true, reserved |= 0x1fe000; /* 20:13 */
	if (level == 3 && ps && q->w->model.has[FEATURE_PDPE1GB])
		is_page = true, reserved |= 0x3fffe000; /* 29:13 */
	else if (level >= 3 && ps)
		reserved |= 1 << 7;
	if (e & reserved)
		return oracle_fault(q, o, 9);
	o->w = o->w && (e & 2);
	o->u = o->u && (e & 4);
	o->nx = o->nx || ((s->efer & EFER_NXE) && e >> 63);
	uint64_t address = e & ~high & 0x000ffffffffff000ull;
	if (!is_page)
		return oracle_wide(q, o, level - 1, address);
	o->is_leaf[o->count - 1] = true;
	oracle_page(q, o, e, address & (~0ull << shift), shift);
}

static inline void oracle_32bit(const struct oracle_request *q, struct oracle *o, unsigned level,
				uint64_t table)
{
	const struct vcpu_state *s = &q->w->vcpu.state;
	unsigned shift = level == 2 ? 22 : 12;
	uint64_t at = table + (q->gva >> shift & 1023) * 4, e = oracle_entry(q->w, at, 4);
	o->is_leaf[o->count] = false;
	o->address[o->count++] = at;
	if (!(e & 1))
		return oracle_fault(q, o, 0);
	bool is_large = level == 2 && (e & 0x80) && (s->cr4 & CR4_PSE);
	unsigned m = q->w->model.physical_bits > 40 ? 40 : q->w->model.physical_bits;
	for (unsigned bit = m - 19; is_large && bit <= 21; bit++)
		if (e >> bit & 1)
			return oracle_fault(q, o, 9);
	o->w = o->w && (e & 2);
	o->u = o->u && (e & 4);
	if (level == 2 && !is_large)
		return oracle_32bit(q, o, 1, e & 0xfffff000);
	o->is_leaf[o->count - 1] = true;
	if (is_large)
		oracle_page(q, o, e, (e & 0xffc00000) | (e >> 13 & 0xff) << 32, 22);
	else
		oracle_page(q, o, e, e & 0xfffff000, 12);
}

static inline struct oracle oracle_ask(struct world *w, uint64_t at, enum access_kind kind,
				       enum mmu_mode mode)
{
	const struct vcpu_state *s = &w->vcpu.state;
	struct oracle_request q = {w, at, kind, mode};
	struct oracle o = {.w = true, .u = true};
	uint64_t address_mask = ((1ull << w->model.physical_bits) - 1) & ~0xfffull;
	if (!(s->cr4 & CR4_PAE)) {
		oracle_32bit(&q, &o, 2, s->cr3 & 0xfffff000);
	} else if (s->efer & EFER_LMA) {
		oracle_wide(&q, &o, s->cr4 & CR4_LA57 ? 5 : 4, s->cr3 & address_mask);
	} else {
		uint64_t e = s->pdpte[at >> 30 & 3];
		uint64_t reserved = (~0ull << w->model.physical_bits) | 0x1e6;
		if (!(e & 1))
			oracle_fault(&q, &o, 0);
		else if (e & reserved)
			oracle_fault(&q, &o, 9);
		else
			oracle_wide(&q, &o, 2, e & address_mask);
	}
	return o;
}

/* Sets A and D in the guest's tables as a processor does after the successful access. */
static inline void oracle_commit(struct world *w, const struct oracle *o, enum access_kind kind)
{
	unsigned size = w->vcpu.state.cr4 & CR4_PAE ? 8 : 4;
	for (unsigned i = 0; o->ok && i < o->count; i++) {
		uint8_t *entry = memory_host(w->memory, gpa(o->address[i]), size);
		if (entry)
			*entry |= o->is_leaf[i] && kind == ACCESS_WRITE ? 0x60 : 0x20;
	}
}

/* Random tables: sparse, so that random addresses meet what is there. */

static const unsigned world_indexes[] = {0, 1, 2, 255, 256, 511};

static inline uint64_t world_random_entry(struct world *w, unsigned level)
{
	uint64_t e = world_chance(w, 93) ? 1 : 0;
	e |= world_chance(w, 75) ? 2 : 0;
	e |= world_chance(w, 75) ? 4 : 0;
	e |= world_chance(w, 50) ? 0x20 : 0;
	e |= world_chance(w, 50) ? 0x40 : 0;
	e |= world_chance(w, 20) ? 0x100 : 0;
	if (level > 1 && level < 4)
		e |= world_chance(w, 25) ? 0x80 : 0;
	else
		e |= world_chance(w, 2) ? 0x80 : 0;
	uint64_t address = WORLD_TABLES + world_below(w, WORLD_TABLE_PAGES) * 4096ull;
	if (e & 0x80 || level == 1)
		address = world_below(w, 20) * 0x200000ull * (level == 3 ? 512 : 1) +
			  (level == 1 ? world_below(w, 512) * 4096ull : 0);
	if (world_chance(w, 2))
		address = world_random(w) & 0xfffff000;
	if (w->vcpu.state.cr4 & CR4_PAE) {
		e |= world_chance(w, 20) && w->vcpu.state.efer & EFER_NXE ? 1ull << 63 : 0;
		if (world_chance(w, 2))
			e |= 1ull << (12 + world_below(w, 52));
	} else if (world_chance(w, 2)) {
		e |= 1u << (12 + world_below(w, 20));
	}
	return e | address;
}

static inline void world_random_tables(struct world *w)
{
	bool is_wide = w->vcpu.state.cr4 & CR4_PAE;
	for (unsigned page = 0; page < WORLD_TABLE_PAGES; page++) {
		uint64_t at = WORLD_TABLES + page * 4096ull;
		uint64_t *wide = world_table(w, at);
		memset(wide, 0, 4096);
		for (unsigned i = 0; i < ARRAY_COUNT(world_indexes); i++) {
			unsigned level = 1 + page % 5;
			uint64_t e = world_random_entry(w, level);
			if (is_wide)
				wide[world_indexes[i]] = e;
			else
				((uint32_t *)wide)[world_indexes[i] * 2] = (uint32_t)e;
		}
	}
	w->vcpu.state.cr3 = WORLD_TABLES + world_below(w, WORLD_TABLE_PAGES) * 4096ull;
	for (unsigned i = 0; i < 4; i++)
		w->vcpu.state.pdpte[i] =
			(WORLD_TABLES + world_below(w, WORLD_TABLE_PAGES) * 4096ull) |
			(world_chance(w, 95) ? 1 : 0) | (world_chance(w, 2) ? 1ull << 45 : 0);
}

static inline uint64_t world_random_gva(struct world *w)
{
	const struct vcpu_state *s = &w->vcpu.state;
	uint64_t a = world_random(w) & 0xfff;
	bool is_wide = s->cr4 & CR4_PAE;
	for (unsigned level = 1; level <= 5; level++) {
		unsigned index = world_indexes[world_below(w, ARRAY_COUNT(world_indexes))];
		if (is_wide)
			a |= (uint64_t)index << (12 + 9 * (level - 1));
		else if (level <= 2)
			a |= (uint64_t)(index * 2) << (level == 2 ? 22 : 12);
	}
	if (!(s->efer & EFER_LMA))
		return (uint32_t)a;
	return sign_extend(a, s->cr4 & CR4_LA57 ? 57 : 48);
}

static inline void world_random_controls(struct world *w)
{
	struct vcpu_state *s = &w->vcpu.state;
	s->cr0 = CR0_PE | CR0_PG | (world_chance(w, 60) ? CR0_WP : 0);
	s->cr4 = (world_chance(w, 80) ? CR4_PSE : 0) | (world_chance(w, 60) ? CR4_PGE : 0) |
		 (world_chance(w, 30) ? CR4_SMEP : 0) | (world_chance(w, 30) ? CR4_SMAP : 0);
	s->efer = world_chance(w, 80) ? EFER_NXE : 0;
	world_set_mode(w, (enum world_mode)world_below(w, WORLD_MODES));
	static const uint8_t widths[] = {36, 39, 40, 46, 52};
	w->model.physical_bits = widths[world_below(w, ARRAY_COUNT(widths))];
	w->model.has[FEATURE_PDPE1GB] = world_chance(w, 80);
}

/* A straight 4-level (or other) mapping: gva -> gpa of 2^shift bytes with `flags`, tables taken one
 * after the other from *next. */
static inline void world_map(struct world *w, uint64_t at, uint64_t to, unsigned shift,
			     uint64_t flags, uint64_t *next)
{
	const struct vcpu_state *s = &w->vcpu.state;
	bool is_wide = s->cr4 & CR4_PAE, is_long = s->efer & EFER_LMA;
	unsigned level = !is_wide ? 2 : !is_long ? 2 : s->cr4 & CR4_LA57 ? 5 : 4;
	uint64_t table = is_wide && !is_long ? s->pdpte[at >> 30 & 3] & ~0xfffull
					     : s->cr3 & ~0xfffull;
	for (;; level--) {
		unsigned here = is_wide ? 12 + 9 * (level - 1) : 12 + 10 * (level - 1);
		unsigned index = (unsigned)(at >> here) & (is_wide ? 511 : 1023);
		unsigned size = is_wide ? 8 : 4;
		gpa_t entry = gpa(table + index * size);
		uint64_t e = 0;
		memory_read(w->memory, entry, &e, size);
		if (here == shift) {
			e = to | flags | (level > 1 ? PTE_PS : 0);
			memory_write(w->memory, entry, &e, size);
			return;
		}
		if (!(e & PTE_P)) {
			e = *next | PTE_P | PTE_W | PTE_U;
			*next += 4096;
			memory_write(w->memory, entry, &e, size);
		}
		table = e & 0x000ffffffffff000ull;
	}
}
