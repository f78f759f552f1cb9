/* Protection changes and touches: a table write and an invalidation of a live translation each
 * time. */
#include "suite.h"

#include <sys/mman.h>

#define PAGES 8

uint64_t mprotects(unsigned scale)
{
	unsigned char *memory = fresh_pages(PAGES * 4096);
	uint64_t sum = 0;

	measure_begin();
	for (size_t round = 0; round < 1000ul * scale; round++) {
		unsigned char *page = memory + round % PAGES * 4096;

		if (mprotect(page, 4096, PROT_READ))
			give_up("mprotect");
		sum = fold(sum, *page);
		if (mprotect(page, 4096, PROT_READ | PROT_WRITE))
			give_up("mprotect");
		*page = (unsigned char)(*page + round);
	}
	measure_end();
	munmap(memory, PAGES * 4096);
	return sum;
}
