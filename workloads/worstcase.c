/*
 * The worst case for nested paging, section 4.1 of Bae, Lange and Dinda's "Comparing Approaches to
 * Virtualized Page Translation in Modern VMMs": data, and the tables that map it, with as little
 * locality as can be had. The paper gives no source; this is what its description says and its
 * figures measure.
 *
 *	page 0		page 1			page 2			page N-1
 *	|--.----------- |-----------.-------	|---.---------------	...	one page a STRIDE
 *
 * One page is used in each STRIDE bytes of address space, at a place in it that differs from page
 *to page. With 1G every page has a page table and a page directory of its own, so each level of a
 *walk reads a line that no other walk reads, but for the two top ones. The pages are visited in one
 *fixed random order, all before one comes again: under LRU nothing smaller than the whole set ever
 *hits. Each visit takes another line of its page, LINES in turn. A step is one load, 20 steps an
 *iteration of 22 instructions: 0.91 memory accesses an instruction, as in the paper.
 *
 * A 32-bit program has no room for that: STRIDE is halved until the pages fit 1.5G. From 32K on
 *each page still has a line of page-table entries of its own.
 */
#include "suite.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { STEPS, PAGES, LINES, STRIDE };

#define PAGE_BYTES 4096u
#define LINE_BYTES 64u
#define SPAN_MAX (sizeof(void *) == 4 ? 3ull << 29 : 1ull << 46)
#define STEPS_A_TURN 20

struct node {
	struct node *next;
	uint64_t value;
};

static uint64_t fitting_stride(uint64_t stride, uint64_t page_count)
{
	while (stride > PAGE_BYTES && stride * page_count > SPAN_MAX)
		stride /= 2;
	return stride;
}

/* Where in its stride page i lies: spread over the entries of tables and the sets of TLBs. */
static char *page_at(char *base, uint64_t stride, uint32_t i)
{
	uint64_t random = i;

	return base + i * stride + next_random(&random) % (stride / PAGE_BYTES) * PAGE_BYTES;
}

static struct node *node_at(char **page, uint32_t i, uint32_t line)
{
	return (struct node *)(page[i] + (line + i * 7u) % (PAGE_BYTES / LINE_BYTES) * LINE_BYTES);
}

/* Links line 0 of all pages in a random order, then line 1 in the same order, and so on. */
static struct node *link_nodes(char **page, uint32_t page_count, uint32_t line_count)
{
	uint32_t *order = malloc(page_count * sizeof(*order));
	uint64_t random = 23;
	struct node *first, *last = NULL;

	if (!order)
		give_up("memory");
	for (uint32_t i = 0; i < page_count; i++) {
		uint32_t j = (uint32_t)(next_random(&random) % (i + 1));

		order[i] = order[j];
		order[j] = i;
	}
	first = node_at(page, order[0], 0);
	for (uint32_t line = 0; line < line_count; line++)
		for (uint32_t i = 0; i < page_count; i++) {
			struct node *n = node_at(page, order[i], line);

			n->value = (uint64_t)line << 32 | order[i];
			if (last)
				last->next = n;
			last = n;
		}
	last->next = first;
	free(order);
	return first;
}

static struct node *follow(struct node *n, uint64_t turn_count)
{
#define FOUR_STEPS   \
	n = n->next; \
	n = n->next; \
	n = n->next; \
	n = n->next;
	for (uint64_t i = turn_count; i; i--) {
		FOUR_STEPS FOUR_STEPS FOUR_STEPS FOUR_STEPS FOUR_STEPS
	}
#undef FOUR_STEPS
	return n;
}

static uint64_t worstcase(const uint64_t *knob)
{
	uint32_t page_count = (uint32_t)knob[PAGES];
	uint64_t stride = fitting_stride(knob[STRIDE] & ~(uint64_t)(PAGE_BYTES - 1), page_count);
	size_t span = (size_t)(stride * page_count);
	char **page = malloc(page_count * sizeof(*page));
	struct node *n;
	uint64_t sum = 0;
	char *base;

	if (!page || stride * page_count > SPAN_MAX)
		refuse("worstcase", "--pages times --stride must fit the address space");
	base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (base == MAP_FAILED)
		give_up("mmap");
	madvise(base, span, MADV_NOHUGEPAGE);
	for (uint32_t i = 0; i < page_count; i++)
		page[i] = page_at(base, stride, i);
	n = link_nodes(page, page_count, (uint32_t)knob[LINES]);
	measure_begin();
	n = follow(n, knob[STEPS] / STEPS_A_TURN);
	measure_end();
	sum = fold(sum, n->value);
	for (uint32_t i = 0; i < page_count; i++)
		sum = fold(sum, node_at(page, i, 0)->value);
	munmap(base, span);
	free(page);
	return sum;
}

const struct study worstcase_study = {
	"worstcase",
	"loads with no locality of data nor of page tables",
	{
		[STEPS] = {"steps", 1000000, 100000, STEPS_A_TURN, 1ull << 40, "loads"},
		[PAGES] = {"pages", 8192, 2048, 2, 1 << 22,
			   "data pages; up to two pages of tables each come on top"},
		[LINES] = {"lines", 32, 4, 1, 64, "lines of each page used in turn"},
		[STRIDE] = {"stride", 1 << 30, 1 << 30, PAGE_BYTES, 1ull << 39,
			    "bytes of address space for each page"},
	},
	worstcase,
};
