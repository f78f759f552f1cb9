/* A product of two matrices of doubles, the textbook's three loops. */
#include "suite.h"

#include <string.h>

#define SIDE 64

static double left[SIDE][SIDE], right[SIDE][SIDE], product[SIDE][SIDE];

static void multiply(void)
{
	for (int i = 0; i < SIDE; i++)
		for (int j = 0; j < SIDE; j++) {
			double sum = 0;

			for (int k = 0; k < SIDE; k++)
				sum += left[i][k] * right[k][j];
			product[i][j] = sum;
		}
}

uint64_t fploop(unsigned scale)
{
	uint64_t random = 5, sum = 0, word;

	for (int i = 0; i < SIDE; i++)
		for (int j = 0; j < SIDE; j++) {
			left[i][j] = (double)(next_random(&random) % 1000) / 1000.0;
			right[i][j] = (double)(next_random(&random) % 1000) / 1024.0;
		}
	measure_begin();
	for (size_t round = 0; round < 6ul * scale; round++) {
		multiply();
		left[round % SIDE][(round * 7) % SIDE] = product[1][round % SIDE] / 3.0;
	}
	measure_end();
	for (int i = 0; i < SIDE; i++) {
		memcpy(&word, &product[i][(i * 5) % SIDE], sizeof(word));
		sum = fold(sum, word);
	}
	return sum;
}
