/* STREAM's triad: three arrays of doubles, one multiply and add an element, all the memory
 * bandwidth there is. */
#include "suite.h"

#include <string.h>
#include <sys/mman.h>

#define ELEMENTS (96u * 1024)

uint64_t triad(unsigned scale)
{
	size_t size_bytes = ELEMENTS * sizeof(double);
	double *a = fresh_pages(3 * size_bytes);
	double *b = a + ELEMENTS, *c = b + ELEMENTS;
	uint64_t sum = 0, word;

	madvise(a, 3 * size_bytes, MADV_HUGEPAGE);
	for (size_t i = 0; i < ELEMENTS; i++) {
		b[i] = (double)i;
		c[i] = (double)(i % 17);
	}
	measure_begin();
	for (size_t round = 0; round < 8ul * scale; round++) {
		double factor = (double)(round + 1) / 3.0;

		for (size_t i = 0; i < ELEMENTS; i++)
			a[i] = b[i] + factor * c[i];
		b[round % ELEMENTS] += a[round % 97];
	}
	measure_end();
	for (size_t i = 0; i < ELEMENTS; i += 13) {
		memcpy(&word, &a[i], sizeof(word));
		sum = fold(sum, word);
	}
	munmap(a, 3 * size_bytes);
	return sum;
}
