/* libc's memory and string functions on buffers of many sizes and alignments: string instructions
 * and vector loads. */
#include "suite.h"

#include <string.h>
#include <sys/mman.h>

#define BUFFER_BYTES (64u * 1024)

/* Through volatile pointers, so that the compiler cannot know the functions. */
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static void *(*volatile set)(void *, int, size_t) = memset;
static size_t (*volatile length)(const char *) = strlen;
static void *(*volatile find)(const void *, int, size_t) = memchr;
static int (*volatile compare)(const void *, const void *, size_t) = memcmp;

uint64_t strops(unsigned scale)
{
	unsigned char *a = fresh_pages(2 * BUFFER_BYTES), *b = a + BUFFER_BYTES, *hit;
	uint64_t random = 3, sum = 0;

	for (size_t i = 0; i < BUFFER_BYTES; i++)
		a[i] = (unsigned char)(next_random(&random) | 1);
	measure_begin();
	for (size_t round = 0; round < 1500ul * scale; round++) {
		uint64_t r = next_random(&random);
		size_t from = r % 4096, count = (r >> 16) % (round % 8 ? 1024 : 32768);
		size_t to = (r >> 40) % 4096;

		copy(b + to, a + from, count);
		b[to + count] = 0;
		sum = fold(sum, length((char *)b + to));
		hit = find(a + from, (int)(r >> 56), count);
		sum = fold(sum, hit ? (uint64_t)(hit - a) : 0);
		sum = fold(sum, !compare(b + to, a + from, count));
		set(b + to, (int)(r >> 32), count / 2);
	}
	measure_end();
	for (size_t i = 0; i < BUFFER_BYTES; i += 8)
		sum = fold(sum, b[i]);
	munmap(a, 2 * BUFFER_BYTES);
	return sum;
}
