/*
 * The traditional balloon (VIRTIO 1.2, 5.5): the driver gives pages that it does not need, and the
 * host has them back until the driver wants them again. With statistics, on demand, and with the
 * reporting of free pages, which needs no target at all.
 *
 * A page that is given is zero from then on: the same in every run, whatever was behind it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "memory/memory.h"
#include "virtio/options.h"

/* As Linux numbers them: those whose feature is there, in order. */
enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_REPORTING };
#define QUEUE_SIZE 128
#define LATENCY_NS 2000
#define PAGES_A_CHAIN_MAX 16384u

#define F_STATS BIT(1)
#define F_DEFLATE_ON_OOM BIT(2)
#define F_REPORTING BIT(5)

#define STAT_BYTES 10
#define STATS_BYTES_MAX (STAT_BYTES * 64)

/* struct virtio_balloon_config */
struct balloon_config {
	uint32_t target_pages, actual_pages;
	uint32_t hint_command, poison;
};

struct balloon_state {
	uint32_t target_pages, actual_pages;
	uint64_t stats[VIRTIO_BALLOON_STATS];
	struct virtq_ticket held; /* the buffer that will bring the next statistics */
	uint16_t has_held, has_stats;
};

_Static_assert(sizeof(struct balloon_state) % 8 == 0, "saved as it lies in memory");

struct balloon {
	struct virtio_device virtio;
	struct balloon_state state;
	struct balloon_config config;
	uint32_t wanted_pages; /* the host's wish, which a reset does not end */
	struct virtq_chain chain;
};

/* ---- pages ---- */

static void inflate(struct balloon *b)
{
	struct memory *m = b->virtio.host->memory;
	uint64_t count = b->chain.out_bytes / 4;
	for (uint64_t i = 0; i < count && i < PAGES_A_CHAIN_MAX; i++) {
		uint32_t page;
		virtq_read(&b->chain, 4 * i, &page, sizeof(page));
		memory_discard(m, gpa_from_gfn(page), PAGE_SIZE_BYTES);
	}
}

/* Each piece is free memory; what is not whole pages stays. */
static void report(struct balloon *b)
{
	for (unsigned i = 0; i < b->chain.in_count; i++) {
		const struct virtq_segment *s = &b->chain.segments[b->chain.out_count + i];
		uint64_t from = align_up(s->address.v, PAGE_SIZE_BYTES);
		uint64_t to = align_down(s->address.v + s->size_bytes, PAGE_SIZE_BYTES);
		if (from < to)
			memory_discard(b->virtio.host->memory, gpa(from), to - from);
	}
}

/* ---- statistics ---- */

/* The driver's last word; unknown tags are for later versions. */
static void take_stats(struct balloon *b)
{
	uint8_t bytes[STATS_BYTES_MAX];
	uint64_t count = virtq_read(&b->chain, 0, bytes, sizeof(bytes));
	for (uint64_t at = 0; at + STAT_BYTES <= count; at += STAT_BYTES) {
		uint16_t tag;
		memcpy(&tag, bytes + at, sizeof(tag));
		if (tag < VIRTIO_BALLOON_STATS)
			memcpy(&b->state.stats[tag], bytes + at + 2, sizeof(uint64_t));
	}
	b->state.has_stats = 1;
}

static void ask_for_stats(struct balloon *b)
{
	if (!b->state.has_held)
		return;
	b->state.has_held = 0;
	virtio_push(&b->virtio, QUEUE_STATS, b->state.held, 0);
	virtio_signal(&b->virtio, QUEUE_STATS);
}

/* The buffer is kept: giving it back asks for the next statistics. */
static void stats_came(struct balloon *b)
{
	while (virtio_pop(&b->virtio, QUEUE_STATS, &b->chain)) {
		if (b->state.has_held) {
			virtio_fail(&b->virtio, "two buffers of statistics at once");
			return;
		}
		take_stats(b);
		b->state.held = virtq_ticket(&b->chain);
		b->state.has_held = 1;
	}
}

/* ---- the device ---- */

static void kicked(struct virtio_device *d, unsigned index)
{
	struct balloon *b = (struct balloon *)d;
	if (index == QUEUE_STATS) {
		stats_came(b);
		return;
	}
	while (virtio_pop(d, index, &b->chain)) {
		if (index == QUEUE_INFLATE)
			inflate(b);
		else if (index == QUEUE_REPORTING)
			report(b);
		virtio_push(d, index, virtq_ticket(&b->chain), 0);
	}
	virtio_signal(d, index);
}

/* What the driver reads, from what we know. */
static void show(struct balloon *b)
{
	b->config = (struct balloon_config){
		.target_pages = b->state.target_pages,
		.actual_pages = b->state.actual_pages,
	};
}

/* Only `actual_pages` is the driver's to write. */
static void config_written(struct virtio_device *d, unsigned offset, unsigned size_bytes)
{
	struct balloon *b = (struct balloon *)d;
	if (offset == offsetof(struct balloon_config, actual_pages) && size_bytes == 4)
		b->state.actual_pages = b->config.actual_pages;
	show(b);
}

static void reset(struct virtio_device *d)
{
	struct balloon *b = (struct balloon *)d;
	/* The guest's pages are its own again. */
	b->state = (struct balloon_state){.target_pages = b->wanted_pages};
	show(b);
}

static int resume(struct virtio_device *d, struct error *e)
{
	struct balloon *b = (struct balloon *)d;
	const struct balloon_state *s = &b->state;
	show(b);
	bool is_good = s->has_held <= 1 && s->has_stats <= 1 && s->held.entry_count <= QUEUE_SIZE &&
		       s->target_pages <= d->host->memory->page_count;
	if (is_good)
		b->wanted_pages = s->target_pages;
	return is_good ? 0 : error_set(e, -EINVAL, "a balloon that no run could have left");
}

static void destroy(struct virtio_device *d)
{
	free(d);
}

static const struct virtio_ops ops = {
	.name = "balloon",
	.type = 5,
	.class_code = 0x00ff00,
	.version = 1,
	.latency_ns = LATENCY_NS,
	.kicked = kicked,
	.config_written = config_written,
	.reset = reset,
	.resume = resume,
	.destroy = destroy,
};

/* ---- for the machine ---- */

void virtio_balloon_set(struct virtio_device *d, uint64_t pages)
{
	struct balloon *b = (struct balloon *)d;
	uint64_t all = d->host->memory->page_count;
	b->wanted_pages = b->state.target_pages = (uint32_t)(pages < all ? pages : all);
	show(b);
	virtio_config_changed(d);
}

void virtio_balloon_ask(struct virtio_device *d, struct virtio_balloon_info *out)
{
	struct balloon *b = (struct balloon *)d;
	*out = (struct virtio_balloon_info){
		.target_pages = b->state.target_pages,
		.actual_pages = b->state.actual_pages,
		.has_stats = b->state.has_stats,
	};
	memcpy(out->stats, b->state.stats, sizeof(out->stats));
	ask_for_stats(b);
}

const char *virtio_balloon_stat_name(unsigned i)
{
	static const char *const names[VIRTIO_BALLOON_STATS] = {
		"swap_in",	     "swap_out",    "major_faults",
		"minor_faults",	     "free",	    "total",
		"available",	     "disk_caches", "huge_page_allocations",
		"huge_page_failures"};
	return i < VIRTIO_BALLOON_STATS ? names[i] : NULL;
}

/* ---- options ---- */

struct balloon_options {
	struct virtio_options common;
	bool deflate_on_oom;
	uint64_t size_bytes;
};

static const struct spec_row option_rows[] = {
	{.name = "size",
	 .kind = SPEC_SIZE,
	 .offset = offsetof(struct balloon_options, size_bytes),
	 .max = 1ull << 40},
	{.name = "deflate-on-oom",
	 .kind = SPEC_ON_OFF,
	 .offset = offsetof(struct balloon_options, deflate_on_oom)},
	VIRTIO_OPTION_ROWS,
};

static int parse(struct balloon_options *o, const char *text, struct error *e)
{
	*o = (struct balloon_options){.common = VIRTIO_OPTION_DEFAULTS};
	return virtio_options_parse(text, option_rows, ARRAY_COUNT(option_rows), o, e);
}

static int check(const char *text, struct error *e)
{
	struct balloon_options o;
	int r = parse(&o, text, e);
	virtio_options_free(&o);
	return r;
}

static int create(struct virtio_device **out, const char *text, const struct virtio_host *host,
		  struct error *e)
{
	struct balloon_options o;
	int r = parse(&o, text, e);
	struct balloon *b = r ? NULL : calloc(1, sizeof(*b));
	if (!r && !b)
		r = error_set(e, -ENOMEM, "out of memory");
	if (!r) {
		virtio_init(&b->virtio, &ops, host,
			    F_STATS | F_REPORTING | (o.deflate_on_oom ? F_DEFLATE_ON_OOM : 0));
		for (unsigned i = QUEUE_INFLATE; i <= QUEUE_REPORTING; i++)
			virtio_add_queue(&b->virtio, QUEUE_SIZE);
		virtio_set_config(&b->virtio, &b->config, sizeof(b->config));
		virtio_set_own_state(&b->virtio, &b->state, sizeof(b->state));
		r = virtio_options_apply(&b->virtio, &o.common, text, e);
	}
	if (!r && o.size_bytes >= host->memory->ram_bytes)
		r = error_set(e, -EINVAL, "size: the balloon would take all of the guest's memory");
	if (!r)
		b->wanted_pages = (uint32_t)(o.size_bytes >> PAGE_SHIFT);
	virtio_options_free(&o);
	if (r)
		virtio_destroy(b ? &b->virtio : NULL);
	else
		*out = &b->virtio;
	return r;
}

const struct virtio_row virtio_balloon_row = {
	.name = "balloon",
	.argument = "[,size=SIZE][,deflate-on-oom=on]",
	.text = "memory that the guest gives back, for gnomon balloon or size=, or unasked",
	.check = check,
	.create = create,
};
