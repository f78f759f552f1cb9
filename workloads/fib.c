/* Recursive calls: the stack, call and return, nothing else. */
#include "suite.h"

static __attribute__((noinline)) uint64_t slow_fib(unsigned n)
{
	return n < 2 ? n : slow_fib(n - 1) + slow_fib(n - 2);
}

uint64_t fib(unsigned scale)
{
	volatile unsigned depth = 23;
	uint64_t sum = 0;

	measure_begin();
	for (size_t round = 0; round < 10ul * scale; round++)
		sum = fold(sum, slow_fib(depth + (round & 1)));
	measure_end();
	return sum;
}
