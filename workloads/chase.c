/*
 * Pointer chasing: nodes in a random cyclic order, each load depends on the one before. The node's
 * distance (64 bytes or 4 KiB) and the footprint say whether the data cache, the TLB or the page
 * walk is what one pays for. U. Drepper measured the cost of virtualization by such a list ("The
 * Cost of Virtualization", ACM Queue 2008, figure 2); the study is that program, the other names
 * are points of its curve.
 */
#include "suite.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#define HUGE_BYTES ((size_t)2 << 20)

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
	/* A huge page must begin at a multiple of its size. */
	size_t slack = huge ? HUGE_BYTES : 0;
	char *mapping = fresh_pages(size_bytes + slack);
	char *memory = mapping + (slack ? -(uintptr_t)mapping % HUGE_BYTES : 0);
	struct node *n;
	uint64_t sum = 0;

	if (huge)
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	madvise(memory, size_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	n = link_nodes(memory, size_bytes / stride, stride);
	measure_begin();
	for (size_t i = 0; i < step_count; i++) {
		sum += n->value ^ i;
		n = n->next;
	}
	measure_end();
	sum = fold(sum, n->value);
	munmap(mapping, size_bytes + slack);
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

enum { STEPS, SIZE, DISTANCE, HUGE };

static uint64_t chase_any(const uint64_t *knob)
{
	if (knob[SIZE] < 2 * knob[DISTANCE] || knob[DISTANCE] % 16)
		refuse("chase", "--size must hold two nodes, --distance be a multiple of 16");
	return chase((size_t)knob[SIZE], (size_t)knob[DISTANCE], (size_t)knob[STEPS],
		     (int)knob[HUGE]);
}

const struct study chase_study = {
	"chase",
	"a list in random order through SIZE bytes of memory",
	{
		[STEPS] = {"steps", 4000000, 100000, 1, UINT32_MAX, "links followed"},
		[SIZE] = {"size", 16 << 20, 1 << 20, 4096, 1u << 30, "working set in bytes"},
		[DISTANCE] = {"distance", 64, 4096, 16, 2 << 20,
			      "bytes between nodes: 64 a line, 4K a page, 2M a huge page"},
		[HUGE] = {"huge", 0, 0, 0, 1, "1: on 2M pages, if the kernel gives any"},
	},
	chase_any,
};
