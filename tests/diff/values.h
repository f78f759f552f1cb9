/* Random numbers, and values at which instructions have their corners. Deterministic from a seed.
 */
#pragma once

#include "base/types.h"

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline unsigned rng_below(struct rng *r, unsigned n)
{
	return (unsigned)((rng_next(r) >> 32) * n >> 32);
}

/* True once in n. */
static inline bool rng_one_in(struct rng *r, unsigned n)
{
	return rng_below(r, n) == 0;
}

uint64_t value_integer(struct rng *r);
void value_st(struct rng *r, uint8_t st[10]);
/* Fills with lanes of one kind: integers, floats, doubles, bytes. */
void value_fill(struct rng *r, uint8_t *bytes, unsigned count);
