/*
 * The block device (VIRTIO 1.2, 5.2): one queue of requests on a disk image (block/).
 *
 *	read	{type, reserved, sector}			then to write: data, status
 *	write	{type, reserved, sector}, data			then to write: status
 *
 * Under the virtual clock a request is done when the kick's timer fires; under the real one it is
 * submitted then, and finished from poll() or when the image's file says so. Requests that are
 * under way keep their chain, so that nothing of the ring is read twice.
 *
 * Whatever is wrong with a request alone is its status (IOERR, UNSUPP); only a chain without room
 * for header and status breaks the device.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/block.h"
#include "virtio/options.h"

#define QUEUE_SIZE 128
#define LATENCY_NS 20000 /* of a fast disk */
#define SECTOR_SHIFT 9
#define HEADER_BYTES 16
#define ID_BYTES 20
#define RANGE_BYTES 16
#define RANGE_SECTORS_MAX (1u << 21) /* 1 GiB at once is enough, and does not take forever */
#define RANGE_UNMAP 1u

#define F_SEG_MAX BIT(2)
#define F_READ_ONLY BIT(5)
#define F_BLOCK_SIZE BIT(6)
#define F_FLUSH BIT(9)
#define F_TOPOLOGY BIT(10)
#define F_DISCARD BIT(13)
#define F_WRITE_ZEROES BIT(14)

enum {
	REQUEST_IN = 0,
	REQUEST_OUT = 1,
	REQUEST_FLUSH = 4,
	REQUEST_GET_ID = 8,
	REQUEST_DISCARD = 11,
	REQUEST_WRITE_ZEROES = 13
};
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2, STATUS_PENDING = 0xff };

/* struct virtio_blk_config */
struct blk_config {
	uint64_t capacity; /* sectors of 512 bytes */
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t block_bytes;
	uint8_t physical_block_exponent, alignment_offset;
	uint16_t min_io_blocks;
	uint32_t optimal_io_blocks;
	uint8_t writeback, unused;
	uint16_t queue_count;
	uint32_t max_discard_sectors, max_discard_segments, discard_alignment;
	uint32_t max_zeroes_sectors, max_zeroes_segments;
	uint8_t zeroes_may_unmap, unused2[3];
};

_Static_assert(sizeof(struct blk_config) == 64 && offsetof(struct blk_config, writeback) == 32 &&
		       offsetof(struct blk_config, max_discard_sectors) == 36,
	       "as the driver reads it");

/* The disk's contents are not the machine's; which disk it is, is. */
struct blk_state {
	uint64_t capacity;
};

struct blk;

struct request {
	struct block_request block;
	struct blk *blk;
	struct request *next_free;
	uint32_t type;
	bool is_synced; /* a write without F_FLUSH: flushed before it is done */
	struct virtq_chain chain;
	struct iovec pieces[VIRTQ_SIZE_MAX];
};

struct blk {
	struct virtio_device virtio;
	struct blk_state state;
	struct blk_config config;
	struct block *image;
	bool is_read_only;
	bool is_asynchronous;
	bool is_resetting; /* what ends now has no driver any more */
	char serial[ID_BYTES + 1];
	struct request *requests, *free;
};

/* ---- the end of a request ---- */

static void finish(struct request *r, uint8_t status)
{
	struct blk *b = r->blk;
	const struct virtq *q = &b->virtio.queues[0];
	uint64_t written = r->chain.in_bytes;
	if (!b->is_resetting) {
		if (r->type == REQUEST_IN)
			virtq_wrote(q, &r->chain, 0, written - 1);
		virtq_write(q, &r->chain, written - 1, &status, 1);
		virtio_push(&b->virtio, 0, virtq_ticket(&r->chain),
			    r->type == REQUEST_IN || r->type == REQUEST_GET_ID ? written : 1);
	}
	r->next_free = b->free;
	b->free = r;
}

static uint8_t status_of(int result)
{
	return result ? STATUS_IOERR : STATUS_OK;
}

static void is_done(struct block_request *block)
{
	struct request *r = block->opaque;
	struct blk *b = r->blk;
	if (!block->result && r->is_synced && block->op != BLOCK_FLUSH) {
		*block = (struct block_request){.op = BLOCK_FLUSH, .done = is_done, .opaque = r};
		block_submit(b->image, block);
		return;
	}
	b->virtio.in_flight--;
	finish(r, status_of(block->result));
}

static void carry_out(struct request *r)
{
	struct blk *b = r->blk;
	r->block.done = is_done;
	r->block.opaque = r;
	if (b->is_asynchronous) {
		b->virtio.in_flight++;
		block_submit(b->image, &r->block);
		return;
	}
	struct block_request flush = {.op = BLOCK_FLUSH};
	int result = block_execute(b->image, &r->block);
	if (!result && r->is_synced)
		result = block_execute(b->image, &flush);
	finish(r, status_of(result));
}

/* ---- the beginning ---- */

/* Does [sector, sector + bytes) lie on the disk? */
static bool is_on_disk(const struct blk *b, uint64_t sector, uint64_t size_bytes)
{
	uint64_t count = size_bytes >> SECTOR_SHIFT;
	return size_bytes % (1u << SECTOR_SHIFT) == 0 && sector <= b->config.capacity &&
	       count <= b->config.capacity - sector;
}

static bool must_sync(const struct blk *b)
{
	return !virtio_has(&b->virtio, F_FLUSH);
}

static uint8_t begin_transfer(struct request *r, uint64_t sector)
{
	struct blk *b = r->blk;
	bool is_read = r->type == REQUEST_IN;
	uint64_t size = is_read ? r->chain.in_bytes - 1 : r->chain.out_bytes - HEADER_BYTES;
	if ((!is_read && b->is_read_only) || !is_on_disk(b, sector, size))
		return STATUS_IOERR;
	r->block = (struct block_request){.op = is_read ? BLOCK_READ : BLOCK_WRITE,
					  .offset = sector << SECTOR_SHIFT,
					  .size_bytes = size,
					  .pieces = r->pieces};
	r->is_synced = !is_read && must_sync(b);
	r->block.piece_count =
		is_read ? virtq_in_pieces(&r->chain, 0, size, r->pieces, NULL)
			: virtq_out_pieces(&r->chain, HEADER_BYTES, size, r->pieces, NULL);
	return STATUS_PENDING;
}

/* One range a request, as the configuration says. */
static uint8_t begin_range(struct request *r)
{
	struct blk *b = r->blk;
	struct {
		uint64_t sector;
		uint32_t count, flags;
	} range;
	bool is_discard = r->type == REQUEST_DISCARD;
	if (!virtio_has(&b->virtio, is_discard ? F_DISCARD : F_WRITE_ZEROES))
		return STATUS_UNSUPP;
	if (r->chain.out_bytes != HEADER_BYTES + RANGE_BYTES)
		return STATUS_IOERR;
	virtq_read(&r->chain, HEADER_BYTES, &range, sizeof(range));
	if (range.flags & ~(is_discard ? 0 : RANGE_UNMAP))
		return STATUS_UNSUPP;
	uint64_t size = (uint64_t)range.count << SECTOR_SHIFT;
	if (range.count > RANGE_SECTORS_MAX || !is_on_disk(b, range.sector, size))
		return STATUS_IOERR;
	r->block = (struct block_request){
		.op = is_discard ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES,
		.may_discard = range.flags & RANGE_UNMAP,
		.offset = range.sector << SECTOR_SHIFT,
		.size_bytes = size,
	};
	r->is_synced = must_sync(b);
	return STATUS_PENDING;
}

static uint8_t get_id(struct request *r)
{
	struct blk *b = r->blk;
	if (r->chain.in_bytes < ID_BYTES + 1)
		return STATUS_IOERR;
	virtq_write(&b->virtio.queues[0], &r->chain, 0, b->serial, ID_BYTES);
	return STATUS_OK;
}

static uint8_t begin(struct request *r, uint64_t sector)
{
	switch (r->type) {
	case REQUEST_IN:
	case REQUEST_OUT: return begin_transfer(r, sector);
	case REQUEST_GET_ID: return get_id(r);
	case REQUEST_DISCARD:
	case REQUEST_WRITE_ZEROES: return begin_range(r);
	case REQUEST_FLUSH:
		r->block = (struct block_request){.op = BLOCK_FLUSH};
		r->is_synced = false;
		return STATUS_PENDING;
	default: return STATUS_UNSUPP;
	}
}

/* Takes one from the ring; false if there is none, or it was nonsense. */
static bool take(struct blk *b)
{
	struct request *r = b->free;
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	if (!r || !virtio_pop(&b->virtio, 0, &r->chain))
		return false;
	if (r->chain.out_bytes < HEADER_BYTES || !r->chain.in_bytes) {
		virtio_fail(&b->virtio, "a disk request without header or status");
		return false;
	}
	b->free = r->next_free;
	virtq_read(&r->chain, 0, &header, sizeof(header));
	r->type = header.type;
	uint8_t status = begin(r, header.sector);
	if (status == STATUS_PENDING)
		carry_out(r);
	else
		finish(r, status);
	return true;
}

/* ---- the device ---- */

static void note_waker(struct blk *b)
{
	const struct virtio_host *h = b->virtio.host;
	if (b->is_asynchronous)
		h->set_waker(h->opaque, block_fd(b->image), b->virtio.in_flight != 0);
}

static void kicked(struct virtio_device *d, unsigned index)
{
	struct blk *b = (struct blk *)d;
	while (take(b))
		;
	virtio_signal(d, index);
	note_waker(b);
}

static void poll(struct virtio_device *d)
{
	struct blk *b = (struct blk *)d;
	if (!block_reap(b->image))
		return;
	virtio_signal(d, 0);
	note_waker(b);
}

static void ready(void *opaque, int fd)
{
	(void)fd;
	poll(opaque);
}

static void drain(struct virtio_device *d)
{
	struct blk *b = (struct blk *)d;
	if (!d->in_flight)
		return;
	block_drain(b->image);
	virtio_signal(d, 0);
	note_waker(b);
}

/* Requests that are under way end on the disk, but not in the guest. */
static void reset(struct virtio_device *d)
{
	struct blk *b = (struct blk *)d;
	b->is_resetting = true;
	drain(d);
	b->is_resetting = false;
	b->state = (struct blk_state){.capacity = b->config.capacity};
}

static int resume(struct virtio_device *d, struct error *e)
{
	struct blk *b = (struct blk *)d;
	if (b->state.capacity == b->config.capacity)
		return 0;
	return error_set(e, -EINVAL, "the disk has %llu sectors, and had %llu when it was saved",
			 (unsigned long long)b->config.capacity,
			 (unsigned long long)b->state.capacity);
}

static void destroy(struct virtio_device *d)
{
	struct blk *b = (struct blk *)d;
	if (b->image && b->is_asynchronous) {
		b->is_resetting = true;
		block_drain(b->image);
		d->host->unwatch(d->host->opaque, block_fd(b->image));
	}
	block_close(b->image);
	free(b->requests);
	free(b);
}

static const struct virtio_ops ops = {
	.name = "blk",
	.type = 2,
	.class_code = 0x010000,
	.version = 1,
	.latency_ns = LATENCY_NS,
	.kicked = kicked,
	.reset = reset,
	.resume = resume,
	.drain = drain,
	.poll = poll,
	.destroy = destroy,
};

/* ---- options ---- */

struct blk_options {
	struct virtio_options common;
	const char *file, *serial;
	bool readonly, snapshot;
	int format, cache, aio, discard, interface;
};

static const char *const discard_names[] = {"on", "off", "unmap", "ignore", NULL};
static const char *const interface_names[] = {"virtio", NULL};

#define FIELD(f) .offset = offsetof(struct blk_options, f)

static const struct spec_row option_rows[] = {
	{.name = "file", .kind = SPEC_TEXT, FIELD(file), .is_first = true},
	{.name = "path", .kind = SPEC_TEXT, FIELD(file)},
	{.name = "readonly", .kind = SPEC_ON_OFF, FIELD(readonly)},
	{.name = "ro", .kind = SPEC_ON_OFF, FIELD(readonly)},
	{.name = "snapshot", .kind = SPEC_ON_OFF, FIELD(snapshot)},
	{.name = "serial", .kind = SPEC_TEXT, FIELD(serial)},
	{.name = "format", .kind = SPEC_CHOICE, FIELD(format), .choices = block_format_names},
	{.name = "cache", .kind = SPEC_CHOICE, FIELD(cache), .choices = block_cache_names},
	{.name = "aio", .kind = SPEC_CHOICE, FIELD(aio), .choices = block_aio_names},
	{.name = "discard", .kind = SPEC_CHOICE, FIELD(discard), .choices = discard_names},
	{.name = "if", .kind = SPEC_CHOICE, FIELD(interface), .choices = interface_names},
	VIRTIO_OPTION_ROWS,
};

static int parse(struct blk_options *o, const char *text, struct error *e)
{
	*o = (struct blk_options){.common = VIRTIO_OPTION_DEFAULTS};
	int r = virtio_options_parse(text, option_rows, ARRAY_COUNT(option_rows), o, e);
	if (!r && (!o->file || !*o->file))
		r = error_set(e, -EINVAL, "the image is missing: FILE[,readonly=on]...");
	if (!r && o->snapshot && o->readonly)
		r = error_set(
			e, -EINVAL,
			"snapshot=on is for disks that are written, and readonly=on for those "
			"that are not");
	if (!r && o->serial && strlen(o->serial) > ID_BYTES)
		r = error_set(e, -EINVAL, "serial: '%s' is longer than %d characters", o->serial,
			      ID_BYTES);
	return r;
}

static int check(const char *text, struct error *e)
{
	struct blk_options o;
	int r = parse(&o, text, e);
	virtio_options_free(&o);
	return r;
}

static void configure(struct blk *b, bool has_discard)
{
	const struct block_info *info = block_info(b->image);
	b->config = (struct blk_config){
		.capacity = info->size_bytes >> SECTOR_SHIFT,
		.seg_max = QUEUE_SIZE - 2,
		.block_bytes = info->sector_bytes,
		.min_io_blocks = 1,
		.writeback = 1,
		.queue_count = 1,
		.max_discard_sectors = RANGE_SECTORS_MAX,
		.max_discard_segments = 1,
		.discard_alignment = info->sector_bytes >> SECTOR_SHIFT,
		.max_zeroes_sectors = RANGE_SECTORS_MAX,
		.max_zeroes_segments = 1,
		.zeroes_may_unmap = has_discard && info->can_discard,
	};
	b->state.capacity = b->config.capacity;
}

static uint64_t features_of(const struct blk *b, bool has_discard)
{
	const struct block_info *info = block_info(b->image);
	uint64_t f = F_SEG_MAX | F_BLOCK_SIZE | F_FLUSH | F_TOPOLOGY;
	if (b->is_read_only)
		return f | F_READ_ONLY;
	if (has_discard && info->can_discard)
		f |= F_DISCARD;
	return info->can_write_zeroes ? f | F_WRITE_ZEROES : f;
}

static int start_image(struct blk *b, struct error *e)
{
	const struct virtio_host *h = b->virtio.host;
	if (h->clock->kind != CLOCK_REAL)
		return 0;
	int r = block_start(b->image, NULL, e);
	if (r)
		return r;
	b->is_asynchronous = true;
	r = h->watch(h->opaque, block_fd(b->image), ready, b);
	return r ? error_set(e, r, "too many devices wait for the host") : 0;
}

static int make_requests(struct blk *b, struct error *e)
{
	b->requests = calloc(QUEUE_SIZE, sizeof(*b->requests));
	if (!b->requests)
		return error_set(e, -ENOMEM, "out of memory");
	for (unsigned i = QUEUE_SIZE; i--;) {
		b->requests[i].blk = b;
		b->requests[i].next_free = b->free;
		b->free = &b->requests[i];
	}
	return 0;
}

/* The option again, with the file's whole name, so that a snapshot finds it. Commas are doubled. */
static int describe(const struct blk_options *o, const char *text, char **out, struct error *e)
{
	char absolute[PATH_MAX];
	const char *path = realpath(o->file, absolute) ? absolute : o->file;
	size_t size = strlen(text) + 2 * strlen(path) + 16, n;
	char *to = *out = malloc(size);
	if (!to)
		return error_set(e, -ENOMEM, "out of memory");
	/* Later keys win, so the whole name goes behind what was written. */
	n = (size_t)snprintf(to, size, "%s,file=", text);
	for (; *path; path++) {
		to[n++] = *path;
		if (*path == ',')
			to[n++] = ',';
	}
	to[n] = 0;
	return 0;
}

static int build(struct blk *b, const struct blk_options *o, const char *text,
		 const struct virtio_host *host, struct error *e)
{
	const struct block_config c = {
		.path = o->file,
		.format = (enum block_format)o->format,
		.cache = (enum block_cache)o->cache,
		.aio = (enum block_aio)o->aio,
		.is_read_only = o->readonly,
		.is_temporary = o->snapshot,
	};
	bool has_discard = o->discard == 0 || o->discard == 2;
	char *whole = NULL;
	virtio_init(&b->virtio, &ops, host, 0);
	b->is_read_only = o->readonly;
	if (o->snapshot)
		b->virtio.unsavable =
			"what is written to a disk with snapshot=on is gone with the machine";
	snprintf(b->serial, sizeof(b->serial), "%s", o->serial ? o->serial : "");
	int r = block_open(&b->image, &c, e);
	if (!r)
		r = make_requests(b, e);
	if (!r)
		r = start_image(b, e);
	if (r)
		return r;
	configure(b, has_discard);
	b->virtio.offered |= features_of(b, has_discard);
	virtio_add_queue(&b->virtio, QUEUE_SIZE);
	virtio_set_config(&b->virtio, &b->config, sizeof(b->config));
	virtio_set_own_state(&b->virtio, &b->state, sizeof(b->state));
	r = describe(o, text, &whole, e);
	if (!r)
		r = virtio_options_apply(&b->virtio, &o->common, whole, e);
	free(whole);
	return r;
}

static int create(struct virtio_device **out, const char *text, const struct virtio_host *host,
		  struct error *e)
{
	struct blk_options o;
	int r = parse(&o, text, e);
	struct blk *b = r ? NULL : calloc(1, sizeof(*b));
	if (!r && !b)
		r = error_set(e, -ENOMEM, "out of memory");
	if (!r)
		r = build(b, &o, text, host, e);
	virtio_options_free(&o);
	if (!r)
		*out = &b->virtio;
	else if (b)
		virtio_destroy(&b->virtio);
	return r;
}

const struct virtio_row virtio_blk_row = {
	.name = "blk",
	.argument = ",FILE[,KEY=VALUE]...",
	.text = "a disk: a file or block device of the host; the same as --disk",
	.check = check,
	.create = create,
};
