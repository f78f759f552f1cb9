/* long double: the x87 stack, its 80-bit format, its transcendental-free core and its control word.
 */
#include "suite.h"

#include <string.h>

static long double square_root(long double v)
{
	__asm__("fsqrt" : "+t"(v));
	return v;
}

static long double round_to_integer(long double v)
{
	__asm__("frndint" : "+t"(v));
	return v;
}

static uint64_t fold_bits(uint64_t sum, long double v)
{
	uint64_t low;
	uint16_t high;

	memcpy(&low, &v, 8);
	memcpy(&high, (char *)&v + 8, 2);
	return fold(fold(sum, low), high);
}

uint64_t x87(unsigned scale)
{
	long double a = 1.0L, b = 0.5L, total = 0.0L;
	uint64_t sum = 0;

	measure_begin();
	for (size_t i = 1; i <= 150000ul * scale; i++) {
		a = square_root(a + (long double)i / 3.0L) + b;
		b = b * 0.999L + 1.0L / (long double)i;
		total += a / b - round_to_integer(a);
		if (!(i & 0xfff))
			sum = fold_bits(sum, total);
	}
	measure_end();
	return fold_bits(sum, total + (long double)(int64_t)a + (long double)(float)b);
}
