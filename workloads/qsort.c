/* libc's qsort, which calls back for every comparison. */
#include "suite.h"

#include <stdlib.h>

#define COUNT 10000

static uint32_t numbers[COUNT];

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

uint64_t quicksort(unsigned scale)
{
	uint64_t random = 11, sum = 0;

	measure_begin();
	for (size_t round = 0; round < 4ul * scale; round++) {
		for (size_t i = 0; i < COUNT; i++)
			numbers[i] = (uint32_t)next_random(&random);
		qsort(numbers, COUNT, sizeof(numbers[0]), by_value);
		for (size_t i = 0; i < COUNT; i += 31)
			sum = fold(sum, numbers[i]);
	}
	measure_end();
	return sum;
}
