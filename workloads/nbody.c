/* Bodies that attract each other: square roots and divisions of doubles, long dependency chains. */
#include "suite.h"

#include <string.h>

#define BODIES 5

struct body {
	double at[3], speed[3], mass;
};

static double square_root(double v)
{
	__asm__("sqrtsd %0, %0" : "+x"(v));
	return v;
}

static void attract(struct body *a, struct body *b, double step)
{
	double d[3], squared = 0, pull;

	for (int k = 0; k < 3; k++) {
		d[k] = a->at[k] - b->at[k];
		squared += d[k] * d[k];
	}
	pull = step / (squared * square_root(squared));
	for (int k = 0; k < 3; k++) {
		a->speed[k] -= d[k] * b->mass * pull;
		b->speed[k] += d[k] * a->mass * pull;
	}
}

uint64_t nbody(unsigned scale)
{
	struct body bodies[BODIES];
	uint64_t random = 9, sum = 0, word;

	for (int i = 0; i < BODIES; i++) {
		for (int k = 0; k < 3; k++) {
			bodies[i].at[k] = (double)(next_random(&random) % 2000) / 100.0 - 10.0;
			bodies[i].speed[k] = (double)(next_random(&random) % 200) / 1000.0;
		}
		bodies[i].mass = 1.0 + i;
	}
	measure_begin();
	for (size_t round = 0; round < 10000ul * scale; round++) {
		for (int i = 0; i < BODIES; i++)
			for (int j = i + 1; j < BODIES; j++)
				attract(&bodies[i], &bodies[j], 0.001);
		for (int i = 0; i < BODIES; i++)
			for (int k = 0; k < 3; k++)
				bodies[i].at[k] += 0.001 * bodies[i].speed[k];
	}
	measure_end();
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < 3; k++) {
			memcpy(&word, &bodies[i].at[k], sizeof(word));
			sum = fold(sum, word);
		}
	return sum;
}
