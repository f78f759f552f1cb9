/* The model's host-physical memory: page sizes and table pools. See host_physical.h. */
#include "paging/host_physical.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"

unsigned host_page_shift_at(const struct memory *m, gpa_t a, unsigned shift_max)
{
	const struct memslot *slot = memory_slot(m, a);
	if (!slot)
		return 0;
	for (unsigned shift = shift_max; shift > PAGE_SHIFT; shift -= 9) {
		uint64_t first = align_down(a.v, 1ull << shift);
		bool is_whole = first >= slot->base.v &&
				first + (1ull << shift) <= slot->base.v + slot->size_bytes;
		bool is_aligned = !((hpa_from_gpa(m, a).v ^ a.v) & ((1ull << shift) - 1));
		if (is_whole && is_aligned)
			return shift;
	}
	return PAGE_SHIFT;
}

#define PLACE_SLOTS (2 * PLACED_TABLES_MAX)

int placed_tables_init(struct placed_tables *p, gpa_t base, unsigned stride_shift, struct error *e)
{
	*p = (struct placed_tables){.base = base, .stride_shift = stride_shift};
	p->gfns = malloc(PLACED_TABLES_MAX * sizeof(*p->gfns));
	p->places = calloc(PLACE_SLOTS, sizeof(*p->places));
	if (p->gfns && p->places)
		return 0;
	placed_tables_fini(p);
	return error_set(e, -ENOMEM, "no host memory to place page tables");
}

void placed_tables_fini(struct placed_tables *p)
{
	free(p->gfns);
	free(p->places);
	*p = (struct placed_tables){0};
}

gpa_t placed_tables_end(const struct placed_tables *p)
{
	return gpa(p->base.v + ((uint64_t)PLACED_TABLES_MAX << p->stride_shift));
}

gpa_t placed_tables_place(struct placed_tables *p, gpa_t a)
{
	uint64_t gfn = gpa_gfn(a), slot = gfn * 0x9e3779b97f4a7c15ull % PLACE_SLOTS;
	while (p->places[slot] && p->gfns[p->places[slot] - 1] != gfn)
		slot = (slot + 1) % PLACE_SLOTS;
	if (!p->places[slot]) {
		if (p->count == PLACED_TABLES_MAX)
			return a;
		p->gfns[p->count] = gfn;
		p->places[slot] = ++p->count;
	}
	return gpa(p->base.v + ((uint64_t)(p->places[slot] - 1) << p->stride_shift) +
		   (a.v & (PAGE_SIZE_BYTES - 1)));
}

gpa_t placed_tables_origin(const struct placed_tables *p, gpa_t placed)
{
	uint64_t place = (placed.v - p->base.v) >> p->stride_shift;
	return gpa(p->gfns[place] << PAGE_SHIFT | (placed.v & (PAGE_SIZE_BYTES - 1)));
}

int table_pool_init(struct table_pool *p, hpa_t base, uint32_t page_count, struct error *e)
{
	*p = (struct table_pool){.base = base, .page_count = page_count};
	void *host = mmap(NULL, (size_t)page_count << PAGE_SHIFT, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	p->free_pages = malloc(page_count * sizeof(*p->free_pages));
	if (host == MAP_FAILED || !p->free_pages) {
		if (host != MAP_FAILED)
			munmap(host, (size_t)page_count << PAGE_SHIFT);
		free(p->free_pages);
		p->free_pages = NULL;
		return error_set(e, -ENOMEM, "no host memory for %u pages of page tables",
				 page_count);
	}
	p->host = host;
	return 0;
}

void table_pool_fini(struct table_pool *p)
{
	if (p->host)
		munmap(p->host, (size_t)p->page_count << PAGE_SHIFT);
	free(p->free_pages);
	*p = (struct table_pool){0};
}

uint32_t table_pool_alloc(struct table_pool *p, uint32_t count)
{
	uint32_t page;
	if (count == 1 && p->free_count) {
		page = p->free_pages[--p->free_count];
	} else {
		if (count > p->page_count - p->fresh)
			return TABLE_POOL_NONE;
		page = p->fresh;
		p->fresh += count;
	}
	memset(table_pool_entries(p, page), 0, (size_t)count << PAGE_SHIFT);
	return page;
}

void table_pool_free(struct table_pool *p, uint32_t page)
{
	p->free_pages[p->free_count++] = page;
}

void table_pool_clear(struct table_pool *p)
{
	p->fresh = 0;
	p->free_count = 0;
}
