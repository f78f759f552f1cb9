/* Map, touch every page, unmap: one page fault a page. */
#include "suite.h"

#include <sys/mman.h>

#define PAGES 256

uint64_t pgfault(unsigned scale)
{
	uint64_t sum = 0;

	measure_begin();
	for (size_t round = 0; round < 8ul * scale; round++) {
		unsigned char *memory = fresh_pages(PAGES * 4096);

		for (size_t page = 0; page < PAGES; page++) {
			sum += memory[page * 4096 + 8];
			memory[page * 4096] = (unsigned char)(page + round);
		}
		for (size_t page = 0; page < PAGES; page += 7)
			sum = fold(sum, memory[page * 4096]);
		munmap(memory, PAGES * 4096);
	}
	measure_end();
	return sum;
}
