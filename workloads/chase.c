/*
 * Pointer chasing: nodes in a random cyclic order, each load depends on the one before. The node's
 * distance (64 bytes or 4 KiB) and the footprint say whether the data cache, the TLB or the page
 * walk is what one pays for.
 */
#include "suite.h"

#include <sys/mman.h>

struct node {
	struct node *next;
	uint64_t value;
};

/* One cycle through all nodes (Sattolo's shuffle of the links). */
static struct node *link_nodes(char *memory, size_t count, size_t stride)
{
	uint64_t random = 42;

	for (size_t i = 0; i < count; i++) {
		struct node *n = (struct node *)(memory + i * stride);

		n->next = n;
		n->value = i;
	}
	for (size_t i = count - 1; i > 0; i--) {
		struct node *a = (struct node *)(memory + i * stride);
		struct node *b = (struct node *)(memory + next_random(&random) % i * stride);
		struct node *t = a->next;

		a->next = b->next;
		b->next = t;
	}
	return (struct node *)memory;
}

static uint64_t chase(size_t size_bytes, size_t stride, size_t step_count, int huge)
{
	char *memory = fresh_pages(size_bytes);
	struct node *n;
	uint64_t sum = 0;

	if (huge)
		madvise(memory, size_bytes, MADV_HUGEPAGE);
	n = link_nodes(memory, size_bytes / stride, stride);
	for (size_t i = 0; i < step_count; i++) {
		sum += n->value ^ i;
		n = n->next;
	}
	sum = fold(sum, n->value);
	munmap(memory, size_bytes);
	return sum;
}

uint64_t chase64_16k(unsigned scale)
{
	return chase(16 << 10, 64, 1000000ul * scale, 0);
}

uint64_t chase64_2m(unsigned scale)
{
	return chase(2 << 20, 64, 1000000ul * scale, 0);
}

uint64_t chase64_64m(unsigned scale)
{
	return chase(64 << 20, 64, 1000000ul * scale, 0);
}

uint64_t chase4k_1m(unsigned scale)
{
	return chase(1 << 20, 4096, 1000000ul * scale, 0);
}

uint64_t chase4k_16m(unsigned scale)
{
	return chase(16 << 20, 4096, 500000ul * scale, 0);
}

uint64_t chase4k_256m(unsigned scale)
{
	return chase(256 << 20, 4096, 500000ul * scale, 0);
}

uint64_t chase_huge_64m(unsigned scale)
{
	return chase(64 << 20, 64, 1000000ul * scale, 1);
}
