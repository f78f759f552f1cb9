/*
 * Regions of many sizes that are mapped, touched, protected and unmapped in no order: what
 * allocators and loaders ask of a kernel. Every operation writes page tables, frees some or makes
 * some, and invalidates translations.
 */
#include "suite.h"

#include <sys/mman.h>

enum { OPERATIONS, REGIONS, PAGES };

#define PAGE_BYTES 4096u
#define REGION_MAX 4096u

struct region {
	unsigned char *memory; /* NULL: not mapped */
	uint32_t page_count;
	int is_writable;
};

static void map_region(struct region *r, uint64_t random, uint32_t page_max)
{
	r->page_count = 1 + (uint32_t)(random >> 8) % page_max;
	r->memory = fresh_pages((size_t)r->page_count * PAGE_BYTES);
	madvise(r->memory, (size_t)r->page_count * PAGE_BYTES, MADV_NOHUGEPAGE);
	r->is_writable = 1;
	for (uint32_t page = 0; page < r->page_count; page++)
		r->memory[page * PAGE_BYTES] = (unsigned char)(random + page);
}

static void protect_region(struct region *r)
{
	r->is_writable = !r->is_writable;
	if (mprotect(r->memory, (size_t)r->page_count * PAGE_BYTES,
		     PROT_READ | (r->is_writable ? PROT_WRITE : 0)))
		give_up("mprotect");
}

static uint64_t read_region(const struct region *r)
{
	uint64_t sum = 0;

	for (uint32_t page = 0; page < r->page_count; page++)
		sum = fold(sum, r->memory[page * PAGE_BYTES]);
	return sum;
}

static void write_region(struct region *r, uint64_t random)
{
	for (uint32_t page = 0; page < r->page_count; page += 3)
		r->memory[page * PAGE_BYTES] ^= (unsigned char)random;
}

static uint64_t operate(struct region *r, uint64_t random, uint32_t page_max)
{
	uint64_t sum = 0;

	if (!r->memory) {
		map_region(r, random, page_max);
		return r->page_count;
	}
	switch (random >> 4 & 3) {
	case 0: protect_region(r); break;
	case 1:
		if (r->is_writable)
			write_region(r, random);
		break;
	default:
		sum = read_region(r);
		munmap(r->memory, (size_t)r->page_count * PAGE_BYTES);
		r->memory = NULL;
	}
	return sum;
}

static uint64_t mmapstorm(const uint64_t *knob)
{
	static struct region regions[REGION_MAX];
	uint64_t random = 31, sum = 0;

	measure_begin();
	for (uint64_t i = 0; i < knob[OPERATIONS]; i++) {
		uint64_t r = next_random(&random);

		sum = fold(sum,
			   operate(&regions[(r >> 32) % knob[REGIONS]], r, (uint32_t)knob[PAGES]));
	}
	measure_end();
	for (uint64_t i = 0; i < knob[REGIONS]; i++)
		if (regions[i].memory) {
			sum = fold(sum, read_region(&regions[i]));
			munmap(regions[i].memory, (size_t)regions[i].page_count * PAGE_BYTES);
			regions[i].memory = NULL;
		}
	return sum;
}

const struct study mmapstorm_study = {
	"mmapstorm",
	"regions mapped, touched, protected and unmapped in random order",
	{
		[OPERATIONS] = {"operations", 10000, 1000, 1, 1ull << 40, "system calls, about"},
		[REGIONS] = {"regions", 256, 64, 1, REGION_MAX, "regions at a time, at most"},
		[PAGES] = {"pages", 32, 16, 1, 4096, "pages of a region, at most"},
	},
	mmapstorm,
};
