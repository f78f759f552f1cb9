/* Values for registers and memory: half of them special. */
#include "values.h"

#include <string.h>

#include "base/bits.h"

uint64_t value_integer(struct rng *r)
{
	uint64_t random = rng_next(r);
	switch (rng_below(r, 12)) {
	case 0: return 0;
	case 1: return 1;
	case 2: return ~0ull;
	case 3: return 1ull << rng_below(r, 64);
	case 4: return (1ull << rng_below(r, 64)) - 1;
	case 5: return (uint64_t)(int64_t)(int8_t)random;
	case 6: return random & 0xff;
	case 7: return 0x8000000080008080ull;
	case 8: return 0x7fffffff7fff7f7full;
	case 9: return random & 0xffffffff;
	default: return random;
	}
}

static uint64_t value_double(struct rng *r)
{
	static const uint64_t special[] = {
		0,
		0x8000000000000000ull,
		0x3ff0000000000000ull,
		0xbff0000000000000ull,
		0x7ff0000000000000ull,
		0xfff0000000000000ull,
		0x7ff8000000000000ull,
		0x7ff0000000000001ull,
		0xfff8000000000123ull,
		0x0000000000000001ull,
		0x800fffffffffffffull,
		0x0010000000000000ull,
		0x7fefffffffffffffull,
		0x41dfffffffc00000ull,
		0x43e0000000000000ull,
		0x3fe0000000000000ull,
		0x4008000000000000ull,
		0xc1e0000000200000ull,
	};
	uint64_t random = rng_next(r);
	switch (rng_below(r, 4)) {
	case 0: return random;
	case 1: return (random & 0x800fffffffffffffull) | (uint64_t)(1013 + rng_below(r, 22)) << 52;
	default: return special[rng_below(r, ARRAY_COUNT(special))];
	}
}

static uint32_t value_float(struct rng *r)
{
	static const uint32_t special[] = {
		0,	    0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000,
		0x7f800001, 0xffc00123, 0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, 0x4effffff,
		0x5f000000, 0x3f000000, 0x40400000, 0xcf000001, 0x477fe000, 0x33800000,
	};
	uint32_t random = (uint32_t)rng_next(r);
	switch (rng_below(r, 4)) {
	case 0: return random;
	case 1: return (random & 0x807fffff) | (117 + rng_below(r, 22)) << 23;
	default: return special[rng_below(r, ARRAY_COUNT(special))];
	}
}

void value_st(struct rng *r, uint8_t st[10])
{
	static const struct {
		uint64_t fraction;
		uint16_t exponent;
	} special[] = {
		{0, 0},
		{0, 0x8000},
		{0x8000000000000000ull, 0x3fff},
		{0x8000000000000000ull, 0xbfff},
		{0x8000000000000000ull, 0x7fff}, /* infinity */
		{0x8000000000000000ull, 0xffff},
		{0xc000000000000000ull, 0xffff}, /* indefinite */
		{0x8000000000000001ull, 0x7fff}, /* signalling */
		{0x0000000000000001ull, 0},	 /* denormal */
		{0x8000000000000000ull, 0},	 /* pseudo-denormal */
		{0x4000000000000000ull, 0x4001}, /* unnormal */
		{0x0000000000000000ull, 0x7fff}, /* pseudo-infinity */
		{0xc90fdaa22168c235ull, 0x4000},
		{0xffffffffffffffffull, 0x7ffe},
		{0x8000000000000000ull, 0x0001},
		{0x8000000000000000ull, 0x403e},
	};
	uint64_t fraction = rng_next(r) | 1ull << 63;
	uint16_t exponent = (uint16_t)(0x3ff0 + rng_below(r, 0x30) + (rng_below(r, 2) << 15));
	switch (rng_below(r, 4)) {
	case 0: {
		unsigned k = rng_below(r, ARRAY_COUNT(special));
		fraction = special[k].fraction;
		exponent = special[k].exponent;
		break;
	}
	case 1: exponent = (uint16_t)rng_next(r); break;
	default: break;
	}
	memcpy(st, &fraction, 8);
	memcpy(st + 8, &exponent, 2);
}

void value_fill(struct rng *r, uint8_t *bytes, unsigned count)
{
	unsigned kind = rng_below(r, 4);
	for (unsigned at = 0; at < count; at += 8) {
		uint64_t v = kind == 0	 ? value_double(r)
			     : kind == 1 ? value_float(r) | (uint64_t)value_float(r) << 32
			     : kind == 2 ? value_integer(r)
					 : rng_next(r);
		memcpy(bytes + at, &v, count - at < 8 ? count - at : 8);
	}
}
