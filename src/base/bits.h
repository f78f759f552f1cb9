/* Bit arithmetic that the manuals' tables are written in. */
#pragma once

#include "base/types.h"

#define BIT(n) (1ull << (n))

/* Bits hi..lo of `v`, shifted down to bit 0, as the manuals write v[hi:lo]. 0 <= lo <= hi <= 63. */
static inline uint64_t bits(uint64_t v, unsigned hi, unsigned lo)
{
	return (v >> lo) & (~0ull >> (63 - (hi - lo)));
}

/* All ones in the low `size_bytes` * 8 bits; size_bytes is 1..8. */
static inline uint64_t mask_bytes(unsigned size_bytes)
{
	return ~0ull >> (64 - 8 * size_bytes);
}

static inline uint64_t sign_extend(uint64_t v, unsigned from_bits)
{
	return (uint64_t)((int64_t)(v << (64 - from_bits)) >> (64 - from_bits));
}

static inline uint64_t align_up(uint64_t v, uint64_t alignment)
{
	return (v + alignment - 1) & ~(alignment - 1);
}

static inline uint64_t align_down(uint64_t v, uint64_t alignment)
{
	return v & ~(alignment - 1);
}

static inline bool is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}
