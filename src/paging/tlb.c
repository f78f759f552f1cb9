/*
 * The modelled TLBs. See tlb.h.
 *
 * A key, from the high end: 17 bits of space, 2 of page size, 45 of page number (57-bit addresses;
 * the sign extension above adds nothing). Spaces are handed out upwards; when the 17 bits are used
 * up everything is flushed and they start anew.
 */
#include "paging/tlb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PCID_COUNT 4096u
#define KEY_SIZE_SHIFT 45
#define KEY_SPACE_SHIFT 47
#define SPACE_COUNT (1u << 17)
#define SPACE_GLOBAL_FIRST 1u
#define HASH_ENTRIES_MIN 17 /* smaller sets are searched one by one */
#define CHAIN_END 0xffffu
#define ENTRIES_MAX 32768u

struct tlb {
	struct tlb_banks level[2][2]; /* [level][side]; a unified second level uses [1][TLB_DATA] */
	bool is_unified;
	tlb_dropped_fn *dropped;
	void *opaque; /* borrowed */
	unsigned pcid;
	uint32_t space, global_space; /* of the current PCID; of global entries */
	uint32_t next_space;
	uint32_t flush_round;		 /* counts the times that spaces died */
	uint32_t space_of[PCID_COUNT];	 /* 0: none yet */
	uint16_t live_pcids[PCID_COUNT]; /* those that have one */
	unsigned live_count;
	uint64_t live[SPACE_COUNT / 64]; /* spaces whose entries may still match */
};

static const uint8_t size_shifts[4] = {12, 21, 22, 30};

static unsigned size_index(unsigned page_shift)
{
	switch (page_shift) {
	case 12: return 0;
	case 21: return 1;
	case 22: return 2;
	default: return 3;
	}
}

static uint64_t make_key(uint32_t space, unsigned size, gva_t address)
{
	uint64_t page = tlb_page_number(address.v, size_shifts[size]);
	return (uint64_t)space << KEY_SPACE_SHIFT | (uint64_t)size << KEY_SIZE_SHIFT | page;
}

static uint64_t page_number(uint64_t key)
{
	return key & (BIT(KEY_SIZE_SHIFT) - 1);
}

static bool is_live(const struct tlb *t, uint64_t key)
{
	uint64_t space = key >> KEY_SPACE_SHIFT;
	return key && (t->live[space / 64] >> (space % 64) & 1);
}

/* Construction */

static int init_bank(struct tlb_bank *b, const struct tlb_array *a, bool is_first_level,
		     struct error *e)
{
	unsigned entries = a->entries, ways = a->ways ? a->ways : a->entries;
	if (!entries || entries > ENTRIES_MAX || entries % ways ||
	    !is_power_of_two(entries / ways) || !a->sizes || (a->sizes & ~TLB_ALL_SIZES))
		return error_set(
			e, -EINVAL,
			"TLB array \"%s\": %u entries in %u ways for sizes %#x is not a shape "
			"a TLB has",
			a->name, entries, a->ways, a->sizes);
#ifdef GNOMON_HARD
	entries = ways = entries < 2 ? entries : 2;
#endif
	*b = (struct tlb_bank){
		.entry_count = entries,
		.ways = ways,
		.set_mask = entries / ways - 1,
		.sizes = a->sizes,
		.is_first_level = is_first_level,
	};
	b->keys = calloc(entries, sizeof(*b->keys));
	b->stamps = calloc(entries, sizeof(*b->stamps));
	b->entries = calloc(entries, sizeof(*b->entries));
	b->fractured = calloc(entries, 1);
	if (!b->keys || !b->stamps || !b->entries || !b->fractured)
		return error_set(e, -ENOMEM, "no host memory for a TLB of %u entries", entries);
	for (unsigned i = 0; i < entries; i++)
		b->entries[i].stamp = &b->stamps[i];
	if (ways < HASH_ENTRIES_MIN || b->set_mask)
		return 0;
	while (1u << b->bucket_bits < 2 * entries)
		b->bucket_bits++;
	b->bucket = malloc(sizeof(*b->bucket) << b->bucket_bits);
	b->next = malloc(sizeof(*b->next) * entries);
	if (!b->bucket || !b->next)
		return error_set(e, -ENOMEM, "no host memory for a TLB of %u entries", entries);
	memset(b->bucket, 0xff, sizeof(*b->bucket) << b->bucket_bits);
	return 0;
}

static int init_side(struct tlb_banks *banks, const struct tlb_side *side, bool is_first_level,
		     struct error *e)
{
	for (unsigned i = 0; i < side->array_count && i < TLB_ARRAY_MAX; i++) {
		banks->count = i + 1;
		int r = init_bank(&banks->bank[i], &side->array[i], is_first_level, e);
		if (r)
			return r;
	}
	return 0;
}

static bool holds_small_pages(const struct tlb_side *side)
{
	for (unsigned i = 0; i < side->array_count; i++)
		if (side->array[i].sizes & TLB_4K)
			return true;
	return false;
}

int tlb_create(struct tlb **out, const struct tlb_geometry *g, tlb_dropped_fn *dropped,
	       void *opaque, struct error *e)
{
	*out = NULL;
	if (!holds_small_pages(&g->l1d) || !holds_small_pages(&g->l1i))
		return error_set(
			e, -EINVAL,
			"the profile's first-level TLBs must hold 4 KiB pages on both sides");
	struct tlb *t = calloc(1, sizeof(*t));
	if (!t)
		return error_set(e, -ENOMEM, "no host memory for the TLBs");
	t->dropped = dropped;
	t->opaque = opaque;
	t->is_unified = g->l2_unified;
	int r = init_side(&t->level[0][TLB_DATA], &g->l1d, true, e);
	if (!r)
		r = init_side(&t->level[0][TLB_INSTRUCTION], &g->l1i, true, e);
	if (!r)
		r = init_side(&t->level[1][TLB_DATA], &g->l2d, false, e);
	if (!r && !g->l2_unified)
		r = init_side(&t->level[1][TLB_INSTRUCTION], &g->l2i, false, e);
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
	for (unsigned i = 0; i < 4; i++) {
		struct tlb_banks *banks = &t->level[i / 2][i % 2];
		for (unsigned b = 0; b < banks->count; b++) {
			free(banks->bank[b].keys);
			free(banks->bank[b].stamps);
			free(banks->bank[b].entries);
			free(banks->bank[b].fractured);
			free(banks->bank[b].bucket);
			free(banks->bank[b].next);
		}
	}
	free(t);
}

static struct tlb_banks *banks_of(struct tlb *t, unsigned level, enum tlb_side_id side)
{
	return &t->level[level][level == 1 && t->is_unified ? TLB_DATA : side];
}

/* Search */

static unsigned hash_of(const struct tlb_bank *b, uint64_t key)
{
	return (unsigned)(key * 0x9e3779b97f4a7c15ull >> (64 - b->bucket_bits));
}

static unsigned set_first(const struct tlb_bank *b, uint64_t key)
{
	return ((unsigned)key & b->set_mask) * b->ways;
}

/* The index of `key`, or -1. */
static int find_key(const struct tlb_bank *b, uint64_t key)
{
	if (b->bucket) {
		for (unsigned i = b->bucket[hash_of(b, key)]; i != CHAIN_END; i = b->next[i])
			if (b->keys[i] == key)
				return (int)i;
		return -1;
	}
	unsigned first = set_first(b, key);
	for (unsigned i = first; i < first + b->ways; i++)
		if (b->keys[i] == key)
			return (int)i;
	return -1;
}

struct tlb_entry *tlb_find(struct tlb *t, unsigned level, enum tlb_side_id side, gva_t address)
{
	struct tlb_banks *banks = banks_of(t, level, side);
	for (unsigned i = 0; i < banks->count; i++) {
		struct tlb_bank *b = &banks->bank[i];
		for (unsigned sizes = b->sizes_seen; sizes; sizes &= sizes - 1) {
			unsigned size = (unsigned)__builtin_ctz(sizes);
			int at = find_key(b, make_key(t->space, size, address));
			if (at < 0)
				at = find_key(b, make_key(t->global_space, size, address));
			if (at >= 0)
				return &b->entries[at];
		}
	}
	return NULL;
}

/* Change */

static void chain_remove(struct tlb_bank *b, unsigned at)
{
	uint16_t *link = &b->bucket[hash_of(b, b->keys[at])];
	while (*link != at)
		link = &b->next[*link];
	*link = b->next[at];
}

static void chain_add(struct tlb_bank *b, unsigned at)
{
	uint16_t *head = &b->bucket[hash_of(b, b->keys[at])];
	b->next[at] = *head;
	*head = (uint16_t)at;
}

static void drop(struct tlb *t, struct tlb_bank *b, enum tlb_side_id side, unsigned at)
{
	if (!b->keys[at])
		return;
	if (b->is_first_level)
		t->dropped(t->opaque, side, &b->entries[at], page_number(b->keys[at]));
	if (b->bucket)
		chain_remove(b, at);
	b->keys[at] = 0;
	b->stamps[at] = 0;
	b->fractured[at] = 0;
}

/* Clears entries whose space died, so that the oldest stamp of a set names the victim. */
static void sweep(struct tlb *t, struct tlb_bank *b)
{
	b->swept = t->flush_round;
	for (unsigned i = 0; i < b->entry_count; i++) {
		if (!b->keys[i] || is_live(t, b->keys[i]))
			continue;
		if (b->bucket)
			chain_remove(b, i);
		b->keys[i] = 0;
		b->stamps[i] = 0;
		b->fractured[i] = 0;
	}
}

/* The first entry of the key's set that holds nothing live, else the least recently used. */
static unsigned find_victim(struct tlb *t, struct tlb_bank *b, uint64_t key)
{
	unsigned first = set_first(b, key), best = first;
	uint64_t oldest = UINT64_MAX;
	bool is_swept = b->is_first_level || b->bucket;
	if (is_swept && b->swept != t->flush_round)
		sweep(t, b);
	for (unsigned i = first; i < first + b->ways; i++) {
		uint64_t stamp = is_swept || is_live(t, b->keys[i]) ? b->stamps[i] : 0;
		best = stamp < oldest ? i : best;
		oldest = stamp < oldest ? stamp : oldest;
	}
	return best;
}

/* Drops smaller entries of this space that the large page at `address` covers, so that a side's
 * first level has one answer: only a guest that changed its tables without INVLPG has any. */
static void drop_covered(struct tlb *t, struct tlb_banks *banks, enum tlb_side_id side,
			 unsigned page_shift, gva_t address)
{
	uint64_t page = make_key(0, 0, address) >> (page_shift - PAGE_SHIFT);
	for (unsigned i = 0; i < banks->count; i++) {
		struct tlb_bank *b = &banks->bank[i];
		if (b->sizes_seen == TLB_1G)
			continue;
		for (unsigned at = 0; at < b->entry_count; at++) {
			uint64_t key = b->keys[at], space = key >> KEY_SPACE_SHIFT;
			unsigned shift = size_shifts[key >> KEY_SIZE_SHIFT & 3];
			if (space != t->space && space != t->global_space)
				continue;
			if (shift < page_shift && page_number(key) >> (page_shift - shift) == page)
				drop(t, b, side, at);
		}
	}
}

static struct tlb_bank *bank_for(struct tlb_banks *banks, unsigned size)
{
	for (unsigned i = 0; i < banks->count; i++)
		if (banks->bank[i].sizes & (1u << size))
			return &banks->bank[i];
	return NULL;
}

static struct tlb_entry *place(struct tlb *t, struct tlb_bank *b, enum tlb_side_id side,
			       uint64_t key, const struct tlb_entry *value, uint64_t now)
{
	unsigned at = find_victim(t, b, key);
	drop(t, b, side, at);
	struct tlb_entry *e = &b->entries[at];
	*e = *value;
	e->stamp = &b->stamps[at];
	*e->stamp = now;
	e->fast_accesses = 0;
	b->keys[at] = key;
	b->sizes_seen |= (uint8_t)(1u << (key >> KEY_SIZE_SHIFT & 3));
	if (value->guest_shift > value->page_shift) {
		b->fractured[at] = 1;
		b->has_fractured = true;
	}
	if (b->bucket)
		chain_add(b, at);
	return e;
}

/* Puts `value`, which covers `address`, into a level. */
static struct tlb_entry *insert(struct tlb *t, unsigned level, enum tlb_side_id side, gva_t address,
				struct tlb_entry value, uint64_t now)
{
	struct tlb_banks *banks = banks_of(t, level, side);
	unsigned size = size_index(value.page_shift);
	struct tlb_bank *b = bank_for(banks, size);
	while (!b && level == 0)
		b = bank_for(banks, --size);
	if (!b)
		return NULL;
	unsigned shift = size_shifts[size];
	if (shift < value.page_shift) {
		uint64_t part = address.v & (BIT(value.page_shift) - 1) & ~(BIT(shift) - 1);
		value.frame += part;
		if (value.host)
			value.host += part;
		value.page_shift = (uint8_t)shift;
	}
	if (level == 0 && shift > PAGE_SHIFT)
		drop_covered(t, banks, side, shift, address);
	uint32_t space = value.flags & WALK_G ? t->global_space : t->space;
	return place(t, b, side, make_key(space, size, address), &value, now);
}

struct tlb_entry *tlb_insert(struct tlb *t, unsigned level, enum tlb_side_id side, gva_t address,
			     const struct translation *translation, uint64_t now)
{
	uint64_t offset = address.v & (BIT(translation->page_shift) - 1);
	struct tlb_entry value = {
		.frame = translation->gpa.v - offset,
		.host = translation->host ? translation->host - offset : NULL,
		.page_shift = translation->page_shift,
		.guest_shift = translation->guest_shift,
		.flags = translation->flags,
	};
	return insert(t, level, side, address, value, now);
}

struct tlb_entry *tlb_promote(struct tlb *t, enum tlb_side_id side, gva_t address,
			      const struct tlb_entry *from, uint64_t now)
{
	return insert(t, 0, side, address, *from, now);
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
	for (unsigned i = 0; i < 4; i++) {
		struct tlb_banks *banks = &t->level[i / 2][i % 2];
		for (unsigned n = 0; n < banks->count; n++) {
			struct tlb_bank *b = &banks->bank[n];
			memset(b->keys, 0, b->entry_count * sizeof(*b->keys));
			memset(b->stamps, 0, b->entry_count * sizeof(*b->stamps));
			memset(b->fractured, 0, b->entry_count);
			b->has_fractured = false;
			b->sizes_seen = 0;
			if (b->bucket)
				memset(b->bucket, 0xff, sizeof(*b->bucket) << b->bucket_bits);
		}
	}
	memset(t->live, 0, sizeof(t->live));
	memset(t->space_of, 0, sizeof(t->space_of));
	t->live_count = 0;
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

/* Fragments of the guest page at `address` in one bank: what a look-up of the address itself would
 * not find. */
static void drop_fragments(struct tlb *t, struct tlb_bank *b, enum tlb_side_id side, uint32_t space,
			   gva_t address)
{
	uint8_t *from = b->fractured, *end = b->fractured + b->entry_count;
	while (from < end && (from = memchr(from, 1, (size_t)(end - from)))) {
		unsigned at = (unsigned)(from++ - b->fractured);
		uint64_t key = b->keys[at];
		unsigned shift = size_shifts[key >> KEY_SIZE_SHIFT & 3];
		unsigned guest_shift = b->entries[at].guest_shift;
		uint64_t page = make_key(0, 0, address) >> (guest_shift - PAGE_SHIFT);
		if (key >> KEY_SPACE_SHIFT == space &&
		    page_number(key) >> (guest_shift - shift) == page)
			drop(t, b, side, at);
	}
}

static void invalidate_in_space(struct tlb *t, struct tlb_bank *b, enum tlb_side_id side,
				uint32_t space, gva_t address)
{
	for (unsigned sizes = b->sizes_seen; sizes; sizes &= sizes - 1) {
		unsigned size = (unsigned)__builtin_ctz(sizes);
		int at = find_key(b, make_key(space, size, address));
		if (at >= 0)
			drop(t, b, side, (unsigned)at);
	}
	if (b->has_fractured)
		drop_fragments(t, b, side, space, address);
}

void tlb_invalidate(struct tlb *t, unsigned pcid, bool with_global, gva_t address)
{
	for (unsigned i = 0; i < 4; i++) {
		struct tlb_banks *banks = &t->level[i / 2][i % 2];
		for (unsigned n = 0; n < banks->count; n++) {
			enum tlb_side_id side = (enum tlb_side_id)(i % 2);
			if (t->space_of[pcid])
				invalidate_in_space(t, &banks->bank[n], side, t->space_of[pcid],
						    address);
			if (with_global)
				invalidate_in_space(t, &banks->bank[n], side, t->global_space,
						    address);
		}
	}
}
