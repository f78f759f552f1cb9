/*
 * Caches and TLBs, by following pointers.
 *
 * A chase visits lines of a buffer in a random order that is one cycle, each load needing the one
 * before, so its time is the latency and nothing overlaps. Block by block it shows the caches; with
 * one line in each small page it shows the TLBs, once as many lines without gaps are taken off.
 * (The same lines in large pages would not do: a hypervisor may back them with small ones.)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "calibrate/private.h"
#include "calibrate/stats.h"

#define LINE_BYTES 64u
#define PAGE_BYTES 4096u
#define LARGE_BYTES (2u << 20)
#define LOADS_PER_TURN 16u
/* 16 small pages: what a TLB holds even where a hypervisor backs large pages with small ones. */
#define BLOCK_LINES 1024u

struct buffer {
	char *bytes; /* aligned to a large page */
	void *mapping;
	size_t size_bytes, mapping_bytes;
};

static int buffer_map(struct buffer *b, size_t size_bytes, bool is_large)
{
	b->size_bytes = size_bytes;
	b->mapping_bytes = size_bytes + LARGE_BYTES;
	b->mapping = mmap(NULL, b->mapping_bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->mapping == MAP_FAILED)
		return -errno;
	b->bytes =
		(char *)(((uintptr_t)b->mapping + LARGE_BYTES - 1) & ~(uintptr_t)(LARGE_BYTES - 1));
	/* Nothing is touched yet: small pages get their frames in the random order of the chase,
	 * so that no neighbours lie together and a TLB cannot hold several in one entry. */
	madvise(b->mapping, b->mapping_bytes, is_large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return 0;
}

static void buffer_unmap(struct buffer *b)
{
	if (b->mapping && b->mapping != MAP_FAILED)
		munmap(b->mapping, b->mapping_bytes);
	b->mapping = NULL;
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Where the i-th line of a chase lies: every line, or one in each page, staggered over the sets. */
static size_t line_offset(size_t i, bool is_by_page)
{
	if (!is_by_page)
		return i * LINE_BYTES;
	return i * PAGE_BYTES + i % (PAGE_BYTES / LINE_BYTES) * LINE_BYTES;
}

struct chase {
	void **at; /* where the last run ended */
	size_t loads;
};

/* Which lines a chase visits. */
struct route {
	size_t count;	 /* lines */
	size_t block;	 /* visited block by block; `count` or more: in one random order */
	bool is_by_page; /* one line in each page */
};

static void shuffle(uint32_t *list, size_t count, uint64_t *seed)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = next_random(seed) % i;
		uint32_t swap = list[i - 1];

		list[i - 1] = list[j];
		list[j] = swap;
	}
}

/* Blocks in random order, the lines of each in random order. */
static void plan(const struct route *r, uint32_t *order, uint32_t *blocks)
{
	size_t block_count = r->count / r->block, at = 0;
	uint64_t seed = 88172645463325252ull;

	for (size_t i = 0; i < block_count; i++)
		blocks[i] = (uint32_t)i;
	shuffle(blocks, block_count, &seed);
	for (size_t i = 0; i < block_count; i++, at += r->block) {
		for (size_t k = 0; k < r->block; k++)
			order[at + k] = (uint32_t)(blocks[i] * r->block + k);
		shuffle(order + at, r->block, &seed);
	}
}

/* Links the lines into one cycle; what does not fill a block is left out. */
static int chase_link(struct chase *c, const struct buffer *b, const struct route *wanted)
{
	struct route r = *wanted;

	if (r.block > r.count)
		r.block = r.count;
	r.count -= r.count % r.block;
	uint32_t *order = malloc(r.count * sizeof(*order));
	uint32_t *blocks = malloc(r.count / r.block * sizeof(*blocks));
	size_t count = r.count;

	if (!order || !blocks) {
		free(order);
		free(blocks);
		return -ENOMEM;
	}
	plan(&r, order, blocks);
	for (size_t i = 0; i < count; i++) {
		size_t from = line_offset(order[i], r.is_by_page);
		size_t to = line_offset(order[(i + 1) % count], r.is_by_page);

		*(void **)(b->bytes + from) = b->bytes + to;
	}
	c->at = (void **)(b->bytes + line_offset(order[0], r.is_by_page));
	free(order);
	free(blocks);
	return 0;
}

static void chase_run(struct chase *c, size_t loads)
{
	void **at = c->at;

	for (size_t i = 0; i < loads; i += LOADS_PER_TURN) {
#define LOAD at = (void **)*at;
		LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD LOAD
#undef LOAD
	}
	*(void **volatile *)&c->at = at;
}

static double chase_once(void *opaque)
{
	struct chase *c = opaque;
	double start = now_seconds();

	chase_run(c, c->loads);
	return (now_seconds() - start) / (double)c->loads;
}

/* A chase, warm. */
static int chase_measure(const struct buffer *b, const struct route *r, unsigned samples,
			 struct measure *out)
{
	struct chase c = {.loads = 30000};
	int rc = chase_link(&c, b, r);

	if (rc)
		return rc;
	chase_run(&c, 2 * r->count < 4000000 ? 2 * r->count : r->count);
	sample(&(struct sampler){chase_once, &c, samples, 8}, out);
	if (out->value > DISTURBED * out->lowest) {
		out->nanoseconds *= out->lowest / out->value;
		out->value = out->lowest;
	}
	return 0;
}

/* Working sets that only one level can hold: half of what it has beyond the level before. */
static void choose_sizes(const struct host *h, bool is_quick, size_t sizes[4])
{
	size_t l1 = 1024ull * (h->cache[0].size_kb ? h->cache[0].size_kb : 32);
	size_t l2 = 1024ull * h->cache[1].size_kb, l3 = 1024ull * h->cache[2].size_kb;
	size_t last = l3 ? l3 : l2 ? l2 : l1;
	size_t most = is_quick ? 128u << 20 : 512u << 20;
	size_t memory = (size_t)sysconf(_SC_AVPHYS_PAGES) * PAGE_BYTES / 4;

	sizes[0] = l1 / 2;
	sizes[1] = l2 ? l1 + (l2 - l1) / 2 : 0;
	/* As little of the third level as shows it: others share it, on this machine and beside it.
	 */
	sizes[2] = l3 >= 3 * l2 ? 2 * l2 : l3 > l2 ? l2 + (l3 - l2) / 2 : 0;
	sizes[3] = 6 * last < most ? 6 * last : most;
	if (sizes[3] > memory)
		sizes[3] = memory;
	if (sizes[3] < 64u << 20)
		sizes[3] = 64u << 20;
}

/* How much of the third level is there for us: the largest working set that it still answers. */
static int note_third_level_reach(const struct buffer *b, size_t size, size_t l3, size_t block,
				  struct measure *m)
{
	size_t reach = size;
	int rc = 0;

	for (size_t try = 2 * size; !rc && try <= l3 && try <= b->size_bytes; try *= 2) {
		struct measure now = {0};

		rc = chase_measure(b, &(struct route){try / LINE_BYTES, block, false}, 1, &now);
		if (now.value > 2 * m->value)
			break;
		reach = try;
	}
	snprintf(m->note, sizeof(m->note),
		 "random in blocks of 64 KB over %zu KB; %zu MB of its %zu MB answer as fast",
		 size >> 10, reach >> 20, l3 >> 20);
	return rc;
}

static int measure_caches(struct run *r, enum measure_id first, bool is_large)
{
	size_t sizes[4], block = is_large ? BLOCK_LINES : SIZE_MAX;
	struct buffer b = {0};
	int rc;

	choose_sizes(&r->out->host, r->options->is_quick, sizes);
	rc = buffer_map(&b, sizes[3], is_large);
	for (unsigned i = 0; !rc && i < 4; i++) {
		struct measure *m = &r->out->measure[first + i];

		run_next(r, first + i);
		if (!sizes[i]) {
			measure_refuse(m, "CPUID names no such cache");
			continue;
		}
		rc = chase_measure(&b, &(struct route){sizes[i] / LINE_BYTES, block, false},
				   run_samples(r), m);
		snprintf(m->note, sizeof(m->note), "random %sover %zu KB",
			 is_large ? "in blocks of 64 KB " : "", sizes[i] >> 10);
		if (!rc && i == 2 && is_large)
			rc = note_third_level_reach(
				&b, sizes[i], 1024ull * r->out->host.cache[2].size_kb, block, m);
	}
	buffer_unmap(&b);
	return rc;
}

/* TLBs */

struct reach {
	struct buffer small, dense; /* a line in each page; as many lines without a gap */
	unsigned samples;
};

/* Cycles that translation adds at `pages` pages. */
static int translation_cycles(const struct reach *t, unsigned pages, struct measure *out)
{
	struct measure reference = {0};
	int rc = chase_measure(&t->small, &(struct route){pages, pages, true}, t->samples, out);

	if (!rc)
		rc = chase_measure(&t->dense, &(struct route){pages, pages, false}, t->samples,
				   &reference);
	if (rc)
		return rc;
	out->nanoseconds *= (out->value - reference.value) / out->value;
	out->value -= reference.value;
	out->lowest -= reference.lowest;
	return 0;
}

static int sweep(const struct reach *t, const unsigned *pages, unsigned count,
		 struct curve_point *curve, struct measure *at)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < count; i++) {
		rc = translation_cycles(t, pages[i], &at[i]);
		curve[i] = (struct curve_point){pages[i], at[i].value};
	}
	return rc;
}

static void put_knee(struct measure *m, const struct curve_point *curve, unsigned count, double low,
		     double high, unsigned said)
{
	double at = knee(curve, count, low, high);

	if (at <= 0 || high - low < 1) {
		measure_refuse(m, "no knee from %u to %u pages", curve[0].x, curve[count - 1].x);
		return;
	}
	*m = (struct measure){.is_available = true,
			      .value = nearest_tlb_size(at),
			      .lowest = at,
			      .sample_count = count};
	if (said)
		snprintf(m->note, sizeof(m->note), "knee at %.0f pages; CPUID says %u", at, said);
	else
		snprintf(m->note, sizeof(m->note), "knee at %.0f pages; CPUID does not say", at);
}

static int measure_first_level(struct run *r, const struct reach *t, struct measure *hit)
{
	static const unsigned pages[] = {8,  12, 16, 20,  24,  28,  32,	 40,  48,  56, 64,
					 72, 80, 96, 112, 128, 160, 192, 256, 320, 384};
	enum { count = ARRAY_COUNT(pages) };
	struct curve_point curve[count];
	struct measure at[count] = {{0}};
	double plateau[4];
	int rc;

	run_next(r, MEASURE_TLB1_ENTRIES);
	rc = sweep(t, pages, count, curve, at);
	if (rc)
		return rc;
	for (unsigned i = 0; i < 4; i++)
		plateau[i] = curve[count - 4 + i].y;
	struct summary s = summarize(plateau, 4);

	put_knee(&r->out->measure[MEASURE_TLB1_ENTRIES], curve, count, curve[0].y, s.median,
		 r->out->host.tlb1_entries);
	run_next(r, MEASURE_TLB2_HIT);
	*hit = at[count - 1];
	hit->value = s.median;
	hit->lowest = s.lowest;
	hit->spread = s.spread;
	if (!r->out->measure[MEASURE_TLB1_ENTRIES].is_available)
		measure_refuse(hit, "no knee that shows it");
	return 0;
}

/* A walk takes several cycles more than a hit, and how many depends on the tables: the knee is
 * where the curve leaves the hits, and a walk is looked at not far beyond, where its tables are
 * cached. */
static int measure_second_level(struct run *r, const struct reach *t, double hit)
{
	static const unsigned pages[] = {512,  640,  768,  896,	 1024, 1152, 1280,
					 1408, 1536, 1792, 2048, 2304, 2560, 3072,
					 3584, 4096, 5120, 6144, 8192, 10240};
	enum { count = ARRAY_COUNT(pages) };
	struct measure *walk = &r->out->measure[MEASURE_TLB_WALK];
	struct measure *m = &r->out->measure[MEASURE_TLB2_ENTRIES];
	struct curve_point curve[count];
	struct measure at[count] = {{0}};
	unsigned i = 0;
	int rc;

	run_next(r, MEASURE_TLB2_ENTRIES);
	rc = sweep(t, pages, count, curve, at);
	if (rc)
		return rc;
	if (hit < curve[0].y)
		hit = curve[0].y;
	put_knee(m, curve, count, hit, hit + (hit > 6 ? 2 * hit : 12), r->out->host.tlb2_entries);
	run_next(r, MEASURE_TLB_WALK);
	if (!m->is_available) {
		measure_refuse(walk, "no knee that shows it");
		return 0;
	}
	while (i + 1 < count && pages[i] < 1.5 * m->lowest)
		i++;
	*walk = at[i];
	snprintf(walk->note, sizeof(walk->note), "over %u pages%s", pages[i],
		 r->out->host.is_virtualized ? "; two-dimensional, below a hypervisor" : "");
	return 0;
}

int measure_memory(struct run *r, struct error *e)
{
	struct measure *hit = &r->out->measure[MEASURE_TLB2_HIT];
	struct reach t = {.samples = r->options->is_quick ? 2 : 5};
	int rc = measure_caches(r, MEASURE_L1, true);

	if (!rc)
		rc = measure_caches(r, MEASURE_L1_4K, false);
	if (!rc)
		rc = buffer_map(&t.small, 10240ull * PAGE_BYTES, false);
	if (!rc)
		rc = buffer_map(&t.dense, 10240ull * LINE_BYTES, true);
	if (!rc)
		rc = measure_first_level(r, &t, hit);
	if (!rc)
		rc = measure_second_level(r, &t, hit->value);
	buffer_unmap(&t.small);
	buffer_unmap(&t.dense);
	return rc ? error_set(e, rc, "no memory to measure with: %s", strerror(-rc)) : 0;
}
