/*
 * The modelled TLBs. See tlb.h.
 *
 * What assoc.h calls the rest of a key is 2 bits of page size above 45 of page number (57-bit
 * addresses; the sign extension above adds nothing). Spaces are handed out upwards; when their 17
 * bits are used up everything is flushed and they start anew.
 *
 * Two things that a look-up of an address does not find are looked for in every entry, and both
 * almost never exist: small entries under a new large page, and fragments of a large guest page. So
 * entries are counted by a hash of the region they lie in, and who finds a count of 0 is done.
 */
#include "paging/tlb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "paging/assoc.h"

#define PCID_COUNT 4096u
#define PAGE_NUMBER_BITS 45
#define SPACE_COUNT (1u << (64 - ASSOC_SPACE_SHIFT))
#define SPACE_GLOBAL_FIRST 1u
#define SIZE_COUNT 4
#define LEVEL_COUNT 2
#define LARGE_SHIFT 21 /* small entries are counted by 2M region */
#define REGION_BITS 10

struct bank {
	struct assoc assoc;
	struct tlb_entry *entries; /* by the same index */
	uint32_t *swept; /* by set: the flush_round that its dead entries were cleared in */
	enum tlb_side_id side;
	uint8_t sizes;	    /* TLB_* it can hold */
	uint8_t sizes_seen; /* TLB_* it was given since it was last emptied */
	bool is_first_level;
};

/* What a look-up asks: one size in one bank. */
struct probe {
	const struct bank *bank;
	unsigned size, shift;
};

/* One side of one level. */
struct array {
	struct probe probe[TLB_ARRAY_MAX * SIZE_COUNT]; /* those that can find something */
	unsigned probe_count;
	struct bank bank[TLB_ARRAY_MAX];
	unsigned bank_count;
	struct bank *of_size[SIZE_COUNT]; /* the first that holds it; NULL: none */
	uint8_t shared_sizes;		  /* those that several banks hold */
	enum tlb_side_id side;
};

struct tlb {
	struct array array[LEVEL_COUNT * TLB_SIDE_COUNT];
	struct array
		*of[LEVEL_COUNT][TLB_SIDE_COUNT]; /* which of them serves that level and side */
	tlb_dropped_fn *dropped;
	void *opaque; /* borrowed */
	unsigned pcid;
	uint32_t space, global_space; /* of the current PCID; of global entries */
	uint32_t next_space;
	uint64_t epoch;	      /* counts the times that space numbers began anew */
	uint32_t flush_round; /* counts the times that spaces died */
	/* By hash of region: 4K entries of the first level, by side; entries of any level that are
	 * part of the guest page in the region. */
	uint16_t small_count[TLB_SIDE_COUNT][1u << REGION_BITS];
	uint32_t fragment_count[1u << REGION_BITS];
	uint32_t space_of[PCID_COUNT];	 /* 0: none yet */
	uint16_t live_pcids[PCID_COUNT]; /* those that have one */
	unsigned live_count;
	uint64_t live[SPACE_COUNT / 64]; /* spaces whose entries may still match */
};

static const uint8_t size_shifts[SIZE_COUNT] = {12, 21, 22, 30};

static unsigned size_index(unsigned page_shift)
{
	switch (page_shift) {
	case 12: return 0;
	case 21: return 1;
	case 22: return 2;
	default: return 3;
	}
}

/* The key of the page at `address`, but for its space. */
static uint64_t make_rest(unsigned size, gva_t address)
{
	return (uint64_t)size << PAGE_NUMBER_BITS | tlb_page_number(address.v, size_shifts[size]);
}

static unsigned shift_of(uint64_t key)
{
	return size_shifts[key >> PAGE_NUMBER_BITS & (SIZE_COUNT - 1)];
}

static uint64_t page_of(uint64_t key)
{
	return key & (BIT(PAGE_NUMBER_BITS) - 1);
}

static bool is_live(const struct tlb *t, uint64_t key)
{
	uint32_t space = assoc_space(key);
	return t->live[space / 64] >> (space % 64) & 1;
}

static unsigned region_hash(uint64_t page, unsigned shift)
{
	return (unsigned)((page * 64 + shift) * 0x9e3779b97f4a7c15ull >> (64 - REGION_BITS));
}

/* Construction */

static int init_bank(struct bank *b, const struct tlb_array *a, enum tlb_side_id side,
		     bool is_first_level, struct error *e)
{
	int r = -EINVAL;
	*b = (struct bank){.side = side, .sizes = a->sizes, .is_first_level = is_first_level};
	if (a->sizes && !(a->sizes & ~TLB_ALL_SIZES))
		r = assoc_init(&b->assoc, a->entries, a->ways, e);
	if (r == -EINVAL)
		return error_set(
			e, r,
			"TLB array \"%s\": %u entries in %u ways for sizes %#x is not a shape "
			"a TLB has",
			a->name, a->entries, a->ways, a->sizes);
	if (r)
		return r;
	uint32_t slots = assoc_slots(&b->assoc);
	b->entries = calloc(slots, sizeof(*b->entries));
	b->swept = calloc(b->assoc.set_mask + 1, sizeof(*b->swept));
	if (!b->entries || !b->swept)
		return error_set(e, -ENOMEM, "no host memory for a TLB of %u entries", a->entries);
	for (uint32_t i = 0; i < slots; i++)
		b->entries[i].stamp = &b->assoc.stamps[i];
	return 0;
}

static int init_array(struct array *array, const struct tlb_side *side, enum tlb_side_id id,
		      bool is_first_level, struct error *e)
{
	array->side = id;
	for (unsigned i = 0; i < side->array_count && i < TLB_ARRAY_MAX; i++) {
		struct bank *b = &array->bank[i];
		array->bank_count = i + 1;
		int r = init_bank(b, &side->array[i], id, is_first_level, e);
		if (r)
			return r;
		for (unsigned size = 0; size < SIZE_COUNT; size++) {
			if (!(b->sizes >> size & 1))
				continue;
			if (array->of_size[size])
				array->shared_sizes |= (uint8_t)(1u << size);
			else
				array->of_size[size] = b;
		}
	}
	return 0;
}

static int init_arrays(struct tlb *t, const struct tlb_geometry *g, struct error *e)
{
	const struct tlb_side *sides[LEVEL_COUNT][TLB_SIDE_COUNT] = {
		{&g->l1d, &g->l1i, g->l1s.array_count ? &g->l1s : NULL},
		{&g->l2d, g->l2_unified ? NULL : &g->l2i, NULL},
	};
	for (unsigned level = 0; level < LEVEL_COUNT; level++)
		for (unsigned side = 0; side < TLB_SIDE_COUNT; side++) {
			struct array *array = &t->array[level * TLB_SIDE_COUNT + side];
			t->of[level][side] = sides[level][side] ? array : t->of[level][TLB_DATA];
			if (!sides[level][side])
				continue;
			int r = init_array(array, sides[level][side], (enum tlb_side_id)side,
					   level == 0, e);
			if (r)
				return r;
			if (level == 0 && !array->of_size[0])
				return error_set(e, -EINVAL,
						 "the profile's first-level TLBs must hold 4 KiB "
						 "pages on every side");
		}
	return 0;
}

int tlb_create(struct tlb **out, const struct tlb_geometry *g, tlb_dropped_fn *dropped,
	       void *opaque, struct error *e)
{
	struct tlb *t = calloc(1, sizeof(*t));
	*out = NULL;
	if (!t)
		return error_set(e, -ENOMEM, "no host memory for the TLBs");
	t->dropped = dropped;
	t->opaque = opaque;
	int r = init_arrays(t, g, e);
	if (r) {
		tlb_destroy(t);
		return r;
	}
	tlb_flush_all(t);
	*out = t;
	return 0;
}

void tlb_destroy(struct tlb *t)
{
	if (!t)
		return;
	for (unsigned i = 0; i < ARRAY_COUNT(t->array); i++) {
		struct array *array = &t->array[i];
		for (unsigned n = 0; n < array->bank_count; n++) {
			assoc_fini(&array->bank[n].assoc);
			free(array->bank[n].entries);
			free(array->bank[n].swept);
		}
	}
	free(t);
}

struct tlb_entry *tlb_find(struct tlb *t, unsigned level, enum tlb_side_id side, gva_t address)
{
	const struct array *array = t->of[level][side];
	const struct probe *end = array->probe + array->probe_count;
	for (const struct probe *p = array->probe; p < end; p++) {
		uint64_t rest = (uint64_t)p->size << PAGE_NUMBER_BITS |
				tlb_page_number(address.v, p->shift);
		uint32_t at = assoc_find(&p->bank->assoc, rest, t->space, t->global_space);
		if (at != ASSOC_NONE)
			return &p->bank->entries[at];
	}
	return NULL;
}

/* Change */

/* The counts by region: an entry comes (1) or goes (-1). */
static inline void count(struct tlb *t, const struct bank *b, uint32_t at, int by)
{
	const struct tlb_entry *entry = &b->entries[at];
	uint64_t key = b->assoc.keys[at];
	unsigned shift = shift_of(key);
	if (b->is_first_level && shift == PAGE_SHIFT)
		t->small_count[b->side][region_hash(page_of(key) >> (LARGE_SHIFT - PAGE_SHIFT),
						    LARGE_SHIFT)] += (uint16_t)by;
	if (unlikely(entry->guest_shift > shift))
		t->fragment_count[region_hash(page_of(key) >> (entry->guest_shift - shift),
					      entry->guest_shift)] += (uint32_t)by;
}

static void remove_entry(struct tlb *t, struct bank *b, uint32_t at)
{
	count(t, b, at, -1);
	assoc_remove(&b->assoc, at);
}

static void drop(struct tlb *t, struct bank *b, uint32_t at)
{
	if (b->entries[at].fast_accesses)
		t->dropped(t->opaque, b->side, &b->entries[at], page_of(b->assoc.keys[at]));
	remove_entry(t, b, at);
}

/* Clears entries of the set whose space died, so that the oldest stamp names the victim. */
static void sweep(struct tlb *t, struct bank *b, uint32_t set)
{
	uint32_t first = set << b->assoc.way_bits;
	b->swept[set] = t->flush_round;
	for (uint32_t at = first; at < assoc_set_end(&b->assoc, first); at++)
		if (b->assoc.keys[at] && !is_live(t, b->assoc.keys[at]))
			remove_entry(t, b, at);
}

/* Drops smaller entries of this space that the large page at `address` covers, so that a side's
 * first level has one answer: only a guest that changed its tables without INVLPG has any. */
static void drop_covered(struct tlb *t, struct array *array, unsigned page_shift, gva_t address)
{
	uint64_t page = tlb_page_number(address.v, page_shift);
	for (struct bank *b = array->bank; b < array->bank + array->bank_count; b++)
		for (uint32_t at = 0; at < assoc_slots(&b->assoc); at++) {
			uint64_t key = b->assoc.keys[at];
			uint32_t space = assoc_space(key);
			unsigned shift = shift_of(key);
			if (space != t->space && space != t->global_space)
				continue;
			if (shift < page_shift && page_of(key) >> (page_shift - shift) == page)
				drop(t, b, at);
		}
}

static bool may_cover(const struct tlb *t, const struct array *array, unsigned page_shift,
		      gva_t address)
{
	unsigned sizes = 0;
	if (page_shift == LARGE_SHIFT)
		return t->small_count[array->side][region_hash(
			tlb_page_number(address.v, LARGE_SHIFT), LARGE_SHIFT)];
	for (unsigned i = 0; i < array->bank_count; i++)
		sizes |= array->bank[i].sizes_seen;
	return sizes & (BIT(size_index(page_shift)) - 1);
}

/* `b` is given its first entry of a size. */
static void see_size(struct array *array, struct bank *b, unsigned size)
{
	b->sizes_seen |= (uint8_t)(1u << size);
	array->probe_count = 0;
	for (unsigned i = 0; i < array->bank_count; i++)
		for (size = 0; size < SIZE_COUNT; size++)
			if (array->bank[i].sizes_seen >> size & 1)
				array->probe[array->probe_count++] =
					(struct probe){&array->bank[i], size, size_shifts[size]};
}

/* What an entry will hold, in registers: a struct on the stack would be written by bytes and read
 * by words, which no processor forwards. */
struct value {
	uint64_t frame;
	uint8_t *host;
	unsigned page_shift, guest_shift, flags;
};

static inline uint32_t victim(struct tlb *t, struct bank *b, uint64_t rest)
{
	uint32_t set = assoc_set(&b->assoc, rest);
	if (unlikely(b->swept[set] != t->flush_round))
		sweep(t, b, set);
	return assoc_victim(&b->assoc, rest);
}

/* Of the banks that hold a size, the one whose victim was used longest ago. */
static struct bank *choose_bank(struct tlb *t, struct array *array, unsigned size, uint64_t rest)
{
	struct bank *best = NULL;
	uint64_t oldest = UINT64_MAX;
	for (struct bank *b = array->bank; b < array->bank + array->bank_count; b++) {
		if (!(b->sizes >> size & 1))
			continue;
		uint64_t stamp = b->assoc.stamps[victim(t, b, rest)];
		if (stamp < oldest) {
			best = b;
			oldest = stamp;
		}
	}
	return best;
}

static inline struct tlb_entry *place(struct tlb *t, struct bank *b, uint64_t key, struct value v,
				      uint64_t now)
{
	uint32_t at = victim(t, b, assoc_rest(key));
	if (b->assoc.keys[at])
		drop(t, b, at);
	struct tlb_entry *e = &b->entries[at];
	e->frame = v.frame;
	e->host = v.host;
	e->page_shift = (uint8_t)v.page_shift;
	e->guest_shift = (uint8_t)v.guest_shift;
	e->flags = (uint8_t)v.flags;
	e->fast_accesses = 0;
	assoc_put(&b->assoc, at, key, now);
	count(t, b, at, 1);
	return e;
}

/* Puts `v`, which covers `address`, into a level. */
static inline __attribute__((always_inline)) struct tlb_entry *insert(struct tlb *t, unsigned level,
								      enum tlb_side_id side,
								      gva_t address, struct value v,
								      uint64_t now)
{
	struct array *array = t->of[level][side];
	unsigned size = size_index(v.page_shift);
	struct bank *b = array->of_size[size];
	while (!b && level == 0)
		b = array->of_size[--size];
	if (!b)
		return NULL;
	unsigned shift = size_shifts[size];
	if (unlikely(shift < v.page_shift)) {
		uint64_t part = address.v & (BIT(v.page_shift) - 1) & ~(BIT(shift) - 1);
		v.frame += part;
		if (v.host)
			v.host += part;
		v.page_shift = shift;
	}
	if (level == 0 && shift > PAGE_SHIFT && may_cover(t, array, shift, address))
		drop_covered(t, array, shift, address);
	uint64_t rest = make_rest(size, address);
	if (array->shared_sizes >> size & 1)
		b = choose_bank(t, array, size, rest);
	if (unlikely(!(b->sizes_seen >> size & 1)))
		see_size(array, b, size);
	uint32_t space = v.flags & WALK_G ? t->global_space : t->space;
	return place(t, b, assoc_key(space, rest), v, now);
}

struct tlb_entry *tlb_insert(struct tlb *t, unsigned level, enum tlb_side_id side, gva_t address,
			     const struct translation *translation, uint64_t now)
{
	uint64_t offset = address.v & (BIT(translation->page_shift) - 1);
	struct value v = {
		.frame = translation->gpa.v - offset,
		.host = translation->host ? translation->host - offset : NULL,
		.page_shift = translation->page_shift,
		.guest_shift = translation->guest_shift,
		.flags = translation->flags,
	};
	return insert(t, level, side, address, v, now);
}

struct tlb_entry *tlb_promote(struct tlb *t, enum tlb_side_id side, gva_t address,
			      const struct tlb_entry *from, uint64_t now)
{
	struct value v = {from->frame, from->host, from->page_shift, from->guest_shift,
			  from->flags};
	return insert(t, 0, side, address, v, now);
}

/* Spaces */

static void set_live(struct tlb *t, uint32_t space, bool on)
{
	if (on) {
		t->live[space / 64] |= BIT(space % 64);
	} else {
		t->live[space / 64] &= ~BIT(space % 64);
		t->flush_round++;
	}
}

/* Everything goes, and the space numbers start anew. */
static void start_over(struct tlb *t)
{
	for (unsigned i = 0; i < ARRAY_COUNT(t->array); i++)
		for (unsigned n = 0; n < t->array[i].bank_count; n++) {
			struct bank *b = &t->array[i].bank[n];
			assoc_clear(&b->assoc);
			memset(b->swept, 0, (b->assoc.set_mask + 1) * sizeof(*b->swept));
			b->sizes_seen = 0;
			t->array[i].probe_count = 0;
		}
	memset(t->small_count, 0, sizeof(t->small_count));
	memset(t->fragment_count, 0, sizeof(t->fragment_count));
	memset(t->live, 0, sizeof(t->live));
	memset(t->space_of, 0, sizeof(t->space_of));
	t->live_count = 0;
	t->epoch++;
	t->flush_round = 0;
	t->next_space = SPACE_GLOBAL_FIRST;
	t->global_space = t->next_space++;
	set_live(t, t->global_space, true);
}

/* The current PCID's space, a new one if it has none. */
static void take_space(struct tlb *t)
{
	if (!t->space_of[t->pcid]) {
		if (t->next_space == SPACE_COUNT)
			start_over(t);
		t->space_of[t->pcid] = t->next_space++;
		set_live(t, t->space_of[t->pcid], true);
		t->live_pcids[t->live_count++] = (uint16_t)t->pcid;
	}
	t->space = t->space_of[t->pcid];
}

void tlb_set_pcid(struct tlb *t, unsigned pcid)
{
	t->pcid = pcid;
	take_space(t);
}

uint64_t tlb_space_of(const struct tlb *t, unsigned pcid)
{
	return t->epoch << (64 - ASSOC_SPACE_SHIFT) | t->space_of[pcid];
}

uint64_t tlb_space(const struct tlb *t)
{
	return tlb_space_of(t, t->pcid);
}

void tlb_flush_pcid(struct tlb *t, unsigned pcid)
{
	uint32_t space = t->space_of[pcid];
	if (space) {
		unsigned i = 0;
		while (t->live_pcids[i] != pcid)
			i++;
		t->live_pcids[i] = t->live_pcids[--t->live_count];
		set_live(t, space, false);
		t->space_of[pcid] = 0;
	}
	take_space(t);
}

void tlb_flush_non_global(struct tlb *t)
{
	for (unsigned i = 0; i < t->live_count; i++) {
		unsigned pcid = t->live_pcids[i];
		set_live(t, t->space_of[pcid], false);
		t->space_of[pcid] = 0;
	}
	t->live_count = 0;
	take_space(t);
}

void tlb_flush_all(struct tlb *t)
{
	for (unsigned i = 0; i < t->live_count; i++) {
		unsigned pcid = t->live_pcids[i];
		set_live(t, t->space_of[pcid], false);
		t->space_of[pcid] = 0;
	}
	t->live_count = 0;
	if (!t->global_space || t->next_space + 2 >= SPACE_COUNT) {
		start_over(t);
	} else {
		set_live(t, t->global_space, false);
		t->global_space = t->next_space++;
		set_live(t, t->global_space, true);
	}
	take_space(t);
}

/* Invalidation */

/* Fragments of the guest page at `address`: what a look-up of the address itself would not find. */
static void drop_fragments(struct tlb *t, struct bank *b, uint32_t space, gva_t address)
{
	for (uint32_t at = 0; at < assoc_slots(&b->assoc); at++) {
		uint64_t key = b->assoc.keys[at];
		unsigned shift = shift_of(key), guest_shift = b->entries[at].guest_shift;
		if (assoc_space(key) == space && guest_shift > shift &&
		    page_of(key) >> (guest_shift - shift) ==
			    tlb_page_number(address.v, guest_shift))
			drop(t, b, at);
	}
}

static bool has_fragments(const struct tlb *t, gva_t address)
{
	uint32_t n = 0;
	for (unsigned size = 1; size < SIZE_COUNT; size++)
		n |= t->fragment_count[region_hash(tlb_page_number(address.v, size_shifts[size]),
						   size_shifts[size])];
	return n;
}

static void invalidate_in_space(struct tlb *t, uint32_t space, gva_t address)
{
	bool is_fractured = has_fragments(t, address);
	for (unsigned i = 0; i < ARRAY_COUNT(t->array); i++) {
		struct array *array = &t->array[i];
		for (struct bank *b = array->bank; b < array->bank + array->bank_count; b++) {
			for (unsigned sizes = b->sizes_seen; sizes; sizes &= sizes - 1) {
				uint64_t rest = make_rest((unsigned)__builtin_ctz(sizes), address);
				uint32_t at = assoc_find(&b->assoc, rest, space, space);
				if (at != ASSOC_NONE)
					drop(t, b, at);
			}
			if (unlikely(is_fractured))
				drop_fragments(t, b, space, address);
		}
	}
}

void tlb_invalidate(struct tlb *t, unsigned pcid, bool with_global, gva_t address)
{
	if (t->space_of[pcid])
		invalidate_in_space(t, t->space_of[pcid], address);
	if (with_global)
		invalidate_in_space(t, t->global_space, address);
}
