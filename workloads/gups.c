/* Random updates of a table much larger than any TLB level: 4 MiB times the scale, at most 64 MiB.
 */
#include "suite.h"

#include <sys/mman.h>

uint64_t gups(unsigned scale)
{
	size_t size_bytes = (size_t)4 << 20;
	size_t update_count = 400000ul * scale;
	uint64_t random = 7, sum = 0;
	uint64_t *table;

	while (size_bytes < (size_t)scale << 22 && size_bytes < (size_t)64 << 20)
		size_bytes *= 2;
	table = fresh_pages(size_bytes);
	for (size_t i = 0; i < update_count; i++) {
		uint64_t r = next_random(&random);

		table[r & (size_bytes / 8 - 1)] ^= r;
	}
	for (size_t i = 0; i < size_bytes / 8; i += 61)
		sum = fold(sum, table[i]);
	munmap(table, size_bytes);
	return sum;
}
