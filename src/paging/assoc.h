/*
 * The one shape of every translation cache in the model: an array of 64-bit keys, set associative
 * or fully associative, exactly least recently used. The TLBs, the caches of upper table levels and
 * the nested TLB are this plus what their entries hold.
 *
 * A key, from the high end: 17 bits of space, and 47 that the owner divides as it likes; the lowest
 * select the set. 0 is no key. One look-up asks for a key in either of two spaces, the current one
 * and the global one. It compares the low halves of four keys at a time (SSE2, which every x86-64
 * has) and reads a whole key only where that fits. In arrays of more than 16 ways a mark lies
 * beside each key, 16 bits of a hash of all but the space, and 16 of these are compared at a time.
 *
 * Recency is a stamp for each entry, which the owner stores the use clock in at every use; it may
 * hand the stamp's address to who can store faster (the fast map). The victim of a set is the
 * smallest stamp, and an empty entry's is 0.
 *
 * An entry's index, `at`, is set * 2^way_bits + way, with gaps where the ways are no power of two;
 * the owner's own arrays have assoc_slots() elements and the same index.
 */
#pragma once

#include <emmintrin.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/types.h"

#define ASSOC_SPACE_SHIFT 47
#define ASSOC_NONE UINT32_MAX

struct assoc {
	uint64_t *keys; /* by `at` */
	uint64_t *stamps;
	uint16_t *marks; /* by `at`; 0: empty. NULL: up to ASSOC_KEY_WAYS_MAX ways */
	uint32_t set_mask;
	uint16_t ways;
	uint8_t way_bits;
};

#define ASSOC_KEY_WAYS_MAX 16u

/* `entries` in sets of `ways` (0: one set). -EINVAL when that leaves no power of two of sets or is
 * more than ASSOC_ENTRIES_MAX, without a message; -ENOMEM with one. */
#define ASSOC_ENTRIES_MAX 32768u
int assoc_init(struct assoc *a, unsigned entries, unsigned ways, struct error *e);
void assoc_fini(struct assoc *a);
/* Empties it. */
void assoc_clear(struct assoc *a);

static inline uint32_t assoc_slots(const struct assoc *a)
{
	return (a->set_mask + 1) << a->way_bits;
}

/* One past the last entry of the set that begins at `first`. */
static inline uint32_t assoc_set_end(const struct assoc *a, uint32_t first)
{
	return first + a->ways;
}

static inline uint64_t assoc_key(uint32_t space, uint64_t rest)
{
	return (uint64_t)space << ASSOC_SPACE_SHIFT | rest;
}

static inline uint32_t assoc_space(uint64_t key)
{
	return (uint32_t)(key >> ASSOC_SPACE_SHIFT);
}

static inline uint64_t assoc_rest(uint64_t key)
{
	return key & (BIT(ASSOC_SPACE_SHIFT) - 1);
}

static inline uint16_t assoc_mark(uint64_t rest)
{
	return (uint16_t)(rest * 0x9e3779b97f4a7c15ull >> 48) | 1;
}

static inline uint32_t assoc_set(const struct assoc *a, uint64_t rest)
{
	return (uint32_t)rest & a->set_mask;
}

/* Bit i: the low half of keys[i] is that of `rest`; i below `ways`, rounded up to 4. */
static inline uint64_t assoc_match_keys(const uint64_t *keys, uint32_t ways, uint64_t rest)
{
	__m128i wanted = _mm_set1_epi32((int)(uint32_t)rest);
	uint64_t match = 0;
	uint32_t i = 0;
	do {
		__m128 low = _mm_load_ps((const float *)(const void *)(keys + i));
		__m128 high = _mm_load_ps((const float *)(const void *)(keys + i + 2));
		__m128i halves = _mm_castps_si128(_mm_shuffle_ps(low, high, 0x88));
		__m128i same = _mm_cmpeq_epi32(halves, wanted);
		match |= (uint64_t)_mm_movemask_ps(_mm_castsi128_ps(same)) << i;
		i += 4;
	} while (i < ways);
	return match;
}

/* Bit i: marks[i] is `mark`; i below `ways`, rounded up to 16, and below 64. */
static inline uint64_t assoc_match_marks(const uint16_t *marks, uint32_t ways, uint16_t mark)
{
	__m128i wanted = _mm_set1_epi16((short)mark);
	uint64_t match = 0;
	for (uint32_t i = 0; i < 64 && i < ways; i += 16) {
		const __m128i *m = (const __m128i *)(const void *)(marks + i);
		__m128i low = _mm_cmpeq_epi16(_mm_load_si128(m), wanted);
		__m128i high = _mm_cmpeq_epi16(_mm_load_si128(m + 1), wanted);
		__m128i both = _mm_packs_epi16(low, high);
		match |= (uint64_t)(uint32_t)_mm_movemask_epi8(both) << i;
	}
	return match;
}

/* The entry with `rest` in `space` or in `other`; ASSOC_NONE. Not a use. Up to 64 ways are compared
 * without a branch: which way has it nobody can predict. */
static inline uint32_t assoc_find(const struct assoc *a, uint64_t rest, uint32_t space,
				  uint32_t other)
{
	uint32_t first = assoc_set(a, rest) << a->way_bits;
	uint64_t key = assoc_key(space, rest), other_key = assoc_key(other, rest);
	for (uint32_t way = 0; way < a->ways; way += 64) {
		uint64_t match = likely(!a->marks)
					 ? assoc_match_keys(a->keys + first, a->ways, rest)
					 : assoc_match_marks(a->marks + first + way, a->ways - way,
							     assoc_mark(rest));
		for (; match; match &= match - 1) {
			uint32_t at = first + way + (uint32_t)__builtin_ctzll(match);
			if (likely(a->keys[at] == key || a->keys[at] == other_key))
				return at;
		}
	}
	return ASSOC_NONE;
}

/* The entry of the set of `rest` that goes next: an empty one, else the least recently used. */
static inline uint32_t assoc_victim(const struct assoc *a, uint64_t rest)
{
	uint32_t first = assoc_set(a, rest) << a->way_bits, best = 0, half = a->ways / 2;
	const uint64_t *stamps = &a->stamps[first];
	uint64_t oldest = stamps[0];
	if (a->ways > ASSOC_KEY_WAYS_MAX) { /* two chains of comparisons at a time */
		uint32_t other = half;
		uint64_t other_oldest = stamps[half];
		for (uint32_t way = 1; way < half; way++) {
			bool is_older = stamps[way] < oldest;
			bool is_other_older = stamps[half + way] < other_oldest;
			best = is_older ? way : best;
			oldest = is_older ? stamps[way] : oldest;
			other = is_other_older ? half + way : other;
			other_oldest = is_other_older ? stamps[half + way] : other_oldest;
		}
		best = other_oldest < oldest ? other : best;
		oldest = other_oldest < oldest ? other_oldest : oldest;
	}
	for (uint32_t way = a->ways > ASSOC_KEY_WAYS_MAX ? 2 * half : 1; way < a->ways; way++) {
		bool is_older = stamps[way] < oldest;
		best = is_older ? way : best;
		oldest = is_older ? stamps[way] : oldest;
	}
	return first + best;
}

/* Over whatever is at `at`. */
static inline void assoc_put(struct assoc *a, uint32_t at, uint64_t key, uint64_t now)
{
	a->keys[at] = key;
	a->stamps[at] = now;
	if (a->marks)
		a->marks[at] = assoc_mark(assoc_rest(key));
}

static inline void assoc_remove(struct assoc *a, uint32_t at)
{
	a->keys[at] = 0;
	a->stamps[at] = 0;
	if (a->marks)
		a->marks[at] = 0;
}
