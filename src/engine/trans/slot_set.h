/*
 * A set of slots of a table. Tables are large and mostly empty, and are walked whenever the guest
 * changes its address space: a second bitmap says which words of the first have any bit.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/bits.h"

#define SLOT_SET_BITS 16
#define SLOT_SET_WORDS ((1u << SLOT_SET_BITS) / 64)

struct slot_set {
	uint64_t word[SLOT_SET_WORDS];
	uint64_t any[SLOT_SET_WORDS / 64]; /* words that may not be 0 */
};

static inline void slot_set_add(struct slot_set *s, unsigned slot)
{
	s->word[slot / 64] |= BIT(slot % 64);
	s->any[slot / 4096] |= BIT(slot / 64 % 64);
}

/* Moves *slot to the first one in the set that is not below it. False: there is none. */
static inline bool slot_set_next(const struct slot_set *s, unsigned *slot)
{
	unsigned w = *slot / 64;
	if (w >= SLOT_SET_WORDS)
		return false;
	uint64_t bits = s->word[w] >> *slot % 64 << *slot % 64;
	while (!bits) {
		if (++w == SLOT_SET_WORDS)
			return false;
		uint64_t any = s->any[w / 64] >> w % 64;
		if (any)
			bits = s->word[w += (unsigned)__builtin_ctzll(any)];
		else
			w |= 63;
	}
	*slot = w * 64 + (unsigned)__builtin_ctzll(bits);
	return true;
}

static inline void slot_set_clear(struct slot_set *s)
{
	for (unsigned k = 0; k < SLOT_SET_WORDS / 64; k++) {
		for (uint64_t any = s->any[k]; any; any &= any - 1)
			s->word[k * 64 + (unsigned)__builtin_ctzll(any)] = 0;
		s->any[k] = 0;
	}
}
