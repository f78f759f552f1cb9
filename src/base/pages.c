/* Anonymous mappings. See pages.h. */
#include "base/pages.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/types.h"

#define LARGE_PAGE_BYTES (2u << 20)

void *pages_map(size_t size_bytes)
{
	void *p = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void *pages_map_large(size_t size_bytes)
{
	size_bytes = align_up(size_bytes, PAGE_SIZE_BYTES);
	uint8_t *p = pages_map(size_bytes + LARGE_PAGE_BYTES);
	if (!p)
		return NULL;
	size_t before = -(uintptr_t)p % LARGE_PAGE_BYTES;
	if (before)
		munmap(p, before);
	p += before;
	munmap(p + size_bytes, LARGE_PAGE_BYTES - before);
	madvise(p, size_bytes, MADV_HUGEPAGE);
	return p;
}

void pages_unmap(void *p, size_t size_bytes)
{
	if (p)
		munmap(p, size_bytes);
}
