/*
 * The phase diagram's workload: three rates that decide between shadow and nested paging, each with
 * its own knob and 0 for "never".
 *
 *	TLB misses	every TOUCH-EVERY steps a load from the next of PAGES pages, in an order
 *			in which a page comes again only after all others: with more pages than the
 *			TLB has entries each of these loads misses, with fewer none
 *	CR3 writes	every SWITCH-EVERY steps the other of two processes goes on
 *	table writes	every REMAP-EVERY steps an mprotect() changes REMAP-PAGES entries
 *
 * A step is three arithmetic instructions on registers, so the knobs are rates per instruction as
 *far as the user part goes. The two processes have equal pages and one state, which travels with
 *the turn, so SWITCH-EVERY does not change the checksum.
 */
#include "pair.h"
#include "suite.h"

#include <sys/mman.h>

enum { STEPS, PAGES, TOUCH_EVERY, SWITCH_EVERY, REMAP_EVERY, REMAP_PAGES };

#define PAGE_BYTES 4096u

/* In memory that both processes share. */
struct progress {
	uint64_t step, sum;
	uint32_t page;
};

struct job {
	const uint64_t *knob;
	unsigned char *pages, *remapped;
	struct progress *progress;
	uint64_t remap_count; /* this process's */
};

/* Private to the process: after a fork the second one gets pages of its own by writing them. */
static void fill_pages(void *opaque)
{
	struct job *job = opaque;
	uint64_t random = 77;

	for (uint64_t i = 0; i < job->knob[PAGES]; i++) {
		uint64_t value = next_random(&random);

		*(uint64_t *)(job->pages + i * PAGE_BYTES + i * 64 % PAGE_BYTES) = value;
	}
	for (uint64_t i = 0; i < job->knob[REMAP_PAGES]; i++)
		job->remapped[i * PAGE_BYTES] = (unsigned char)i;
}

static uint64_t touch(struct job *job, struct progress *p)
{
	/* A full-period congruential sequence: multiplier 1 modulo 4, odd addend. */
	p->page = (p->page * 0x9e3779b9u + 0x7f4a7c15u) & ((uint32_t)job->knob[PAGES] - 1);
	return *(uint64_t *)(job->pages + p->page * (size_t)PAGE_BYTES + p->page * 64 % PAGE_BYTES);
}

static uint64_t remap(struct job *job, uint64_t step)
{
	size_t at = step % job->knob[REMAP_PAGES] * PAGE_BYTES;
	int protection = job->remap_count++ & 1 ? PROT_READ | PROT_WRITE : PROT_READ;

	if (mprotect(job->remapped, (size_t)job->knob[REMAP_PAGES] * PAGE_BYTES, protection))
		give_up("mprotect");
	return job->remapped[at];
}

static uint64_t steps_until(uint64_t step, uint64_t every, uint64_t limit)
{
	uint64_t left = every ? every - step % every : limit;

	return left < limit ? left : limit;
}

/* Steps up to the next switch or the end. */
static void run_turn(void *opaque)
{
	struct job *job = opaque;
	struct progress p = *job->progress;
	const uint64_t *knob = job->knob;
	uint64_t end = p.step + steps_until(p.step, knob[SWITCH_EVERY], knob[STEPS] - p.step);

	while (p.step < end) {
		uint64_t run = steps_until(p.step, knob[TOUCH_EVERY], end - p.step);

		run = steps_until(p.step, knob[REMAP_EVERY], run);
		for (uint64_t i = run; i; i--)
			p.sum = (p.sum ^ p.sum >> 7) + ++p.step;
		if (knob[TOUCH_EVERY] && p.step % knob[TOUCH_EVERY] == 0)
			p.sum += touch(job, &p);
		if (knob[REMAP_EVERY] && p.step % knob[REMAP_EVERY] == 0)
			p.sum += remap(job, p.step);
	}
	*job->progress = p;
}

static void run_pair(struct job *job)
{
	struct pair pair;

	pair_start(&pair, fill_pages, run_turn, job);
	measure_begin();
	while (job->progress->step < job->knob[STEPS]) {
		run_turn(job);
		pair_turn(&pair);
	}
	measure_end();
	pair_end(&pair);
}

static uint64_t dial(const uint64_t *knob)
{
	size_t size_bytes = (size_t)knob[PAGES] * PAGE_BYTES;
	struct job job = {.knob = knob,
			  .pages = fresh_pages(size_bytes),
			  .remapped = fresh_pages((size_t)knob[REMAP_PAGES] * PAGE_BYTES),
			  .progress = shared_pages(sizeof(struct progress))};
	uint64_t sum;

	if (knob[PAGES] & (knob[PAGES] - 1))
		refuse("dial", "--pages must be a power of two");
	madvise(job.pages, size_bytes, MADV_NOHUGEPAGE);
	fill_pages(&job);
	job.progress->sum = 1;
	if (knob[SWITCH_EVERY]) {
		run_pair(&job);
	} else {
		measure_begin();
		run_turn(&job);
		measure_end();
	}
	sum = fold(job.progress->sum, job.progress->page);
	munmap(job.pages, size_bytes);
	munmap(job.remapped, (size_t)knob[REMAP_PAGES] * PAGE_BYTES);
	munmap(job.progress, sizeof(struct progress));
	return sum;
}

const struct study dial_study = {
	"dial",
	"TLB misses, CR3 writes and page-table writes at rates of one's choice",
	{
		[STEPS] = {"steps", 30000000, 600000, 1, 1ull << 40, "steps of 7 instructions"},
		[PAGES] = {"pages", 4096, 2048, 1, 1 << 18,
			   "pages touched in turn, a power of two"},
		[TOUCH_EVERY] = {"touch-every", 20, 20, 0, 1ull << 40, "steps between touches"},
		[SWITCH_EVERY] = {"switch-every", 0, 30000, 0, 1ull << 40,
				  "steps between context switches"},
		[REMAP_EVERY] = {"remap-every", 0, 20000, 0, 1ull << 40,
				 "steps between changes of protection"},
		[REMAP_PAGES] = {"remap-pages", 16, 16, 1, 4096, "table entries changed each time"},
	},
	dial,
};
