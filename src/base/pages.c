/* Anonymous mappings. See pages.h. */
#include "base/pages.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/types.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; glibc 2.37 */
#endif

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

/* Room at the boundary of a large page. */
static uint8_t *reserve(size_t size_bytes)
{
	uint8_t *p = mmap(NULL, size_bytes + LARGE_PAGE_BYTES, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	size_t before = -(uintptr_t)p % LARGE_PAGE_BYTES;
	if (before)
		munmap(p, before);
	munmap(p + before + size_bytes, LARGE_PAGE_BYTES - before);
	return p + before;
}

/* Shared memory, new. */
static bool map_shared(uint8_t *at, size_t size_bytes)
{
	return mmap(at, size_bytes, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

/* Such memory a second time. Of 0 bytes: what is moved stays where it was, too. */
static bool map_again(uint8_t *from, uint8_t *at, size_t size_bytes)
{
	return mremap(from, 0, size_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED;
}

bool pages_share(void *p, size_t size_bytes, size_t step_bytes, unsigned count)
{
	uint8_t *first = p;
	if (!map_shared(first, size_bytes))
		return false;
	for (size_t at = 0; at < size_bytes; at += LARGE_PAGE_BYTES)
		first[at] = 0; /* where nothing is nothing is gathered */
	pages_gather(first, size_bytes);
	for (unsigned k = 1; k < count; k++)
		if (!map_again(first, first + k * step_bytes, size_bytes))
			return false;
	return true;
}

bool pages_map_twice(size_t size_bytes, void **writable, void **running)
{
	uint8_t *first = reserve(size_bytes), *second = first ? reserve(size_bytes) : NULL;
	bool is_mapped = second && map_shared(first, size_bytes) &&
			 map_again(first, second, size_bytes);
	if (!is_mapped || mprotect(second, size_bytes, PROT_READ | PROT_EXEC)) {
		int error = errno;
		if (first)
			munmap(first, size_bytes);
		if (second)
			munmap(second, size_bytes);
		errno = error;
		return false;
	}
	*writable = first;
	*running = second;
	return true;
}

void pages_gather(void *p, size_t size_bytes)
{
	madvise(p, size_bytes, MADV_COLLAPSE);
}

void pages_unmap(void *p, size_t size_bytes)
{
	if (p)
		munmap(p, size_bytes);
}
