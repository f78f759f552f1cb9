/* Indirect calls through a table in an order that no predictor knows. */
#include "suite.h"

typedef uint64_t (*step_fn)(uint64_t);

static uint64_t step_add(uint64_t v)
{
	return v + 0x1234567;
}

static uint64_t step_xor(uint64_t v)
{
	return v ^ (v >> 13);
}

static uint64_t step_mul(uint64_t v)
{
	return v * 0x5851f42d4c957f2dull;
}

static uint64_t step_rot(uint64_t v)
{
	return v << 17 | v >> 47;
}

static uint64_t step_not(uint64_t v)
{
	return ~v;
}

static uint64_t step_sub(uint64_t v)
{
	return v - (v >> 7);
}

uint64_t icall(unsigned scale)
{
	static const step_fn volatile steps[] = {step_add, step_xor, step_mul, step_rot,
						 step_not, step_sub, step_mul, step_xor};
	uint64_t v = 1;

	measure_begin();
	for (size_t i = 0; i < 500000ul * scale; i++)
		v = steps[(v >> 5 ^ i) & 7](v);
	measure_end();
	return v;
}
