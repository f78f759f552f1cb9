/* Anonymous mappings. See pages.h. */
#include "base/pages.h"

#include <errno.h>
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

bool pages_map_twice(size_t size_bytes, void **writable, void **running)
{
	void *first = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (first == MAP_FAILED)
		return false;
	/* Of 0 bytes: what is moved stays here, too. */
	void *second = mremap(first, 0, size_bytes, MREMAP_MAYMOVE);
	bool is_mapped = second != MAP_FAILED;
	if (!is_mapped || mprotect(second, size_bytes, PROT_READ | PROT_EXEC)) {
		int error = errno;
		munmap(first, size_bytes);
		if (is_mapped)
			munmap(second, size_bytes);
		errno = error;
		return false;
	}
	madvise(second, size_bytes, MADV_HUGEPAGE); /* where the host gives them to shared memory */
	*writable = first;
	*running = second;
	return true;
}

void pages_unmap(void *p, size_t size_bytes)
{
	if (p)
		munmap(p, size_bytes);
}
