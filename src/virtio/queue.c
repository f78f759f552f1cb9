/* What split and packed rings have in common: finding them in memory, chains of segments, copying
 * through them. */
#include <errno.h>
#include <string.h>

#include "memory/memory.h"
#include "virtio/queue_private.h"

#define NO_VECTOR 0xffff

void virtq_init(struct virtq *q, struct virtq_state *state, struct memory *memory,
		uint16_t size_max)
{
	*q = (struct virtq){.state = state, .memory = memory, .size_max = size_max};
	virtq_reset(q);
}

void virtq_reset(struct virtq *q)
{
	*q->state = (struct virtq_state){.size = q->size_max, .vector = NO_VECTOR};
	q->state->avail_wrap = q->state->used_wrap = q->state->signalled_wrap = 1;
	q->desc_host = q->driver_host = q->device_host = NULL;
	q->problem = NULL;
}

int virtq_break(struct virtq *q, const char *problem)
{
	q->state->is_broken = 1;
	q->problem = problem;
	return -EPROTO;
}

/* ---- rings in memory ---- */

static uint8_t *ring_host(const struct virtq *q, uint64_t address, uint64_t size_bytes,
			  unsigned alignment)
{
	return address % alignment ? NULL : memory_host(q->memory, gpa(address), size_bytes);
}

bool virtq_connect(struct virtq *q)
{
	const struct virtq_state *s = q->state;
	uint64_t n = s->size;
	bool is_split = !q->is_packed;
	q->desc_host = ring_host(q, s->desc, n * DESC_BYTES, 16);
	q->driver_host = ring_host(q, s->driver, is_split ? 6 + 2 * n : 4, is_split ? 2 : 4);
	q->device_host = ring_host(q, s->device, is_split ? 6 + 8 * n : 4, 4);
	bool is_good = n && n <= q->size_max && q->desc_host && q->driver_host && q->device_host;
	if (is_good && is_split)
		is_good = !(n & (n - 1));
	if (!is_good)
		virtq_break(q, "the rings are not in memory, or of no legal size");
	return is_good;
}

int virtq_check(const struct virtq *q, struct error *e)
{
	const struct virtq_state *s = q->state;
	bool is_flag = (s->is_enabled | s->is_broken | s->avail_wrap | s->used_wrap |
			s->has_signalled | s->signalled_wrap) <= 1;
	bool is_inside = !q->is_packed || (s->next_avail < s->size && s->next_used < s->size) ||
			 !s->is_enabled;
	if (!is_flag || !is_inside || s->size > q->size_max || s->in_flight > s->size)
		return error_set(e, -EINVAL, "a virtqueue's state is impossible");
	return 0;
}

void ring_write(struct virtq *q, gpa_t address, uint8_t *host, const void *bytes, unsigned count)
{
	memcpy(host, bytes, count);
	memory_notify_range(q->memory, address, count);
}

void ring_store(struct virtq *q, gpa_t address, uint8_t *host, uint16_t value)
{
	__atomic_store_n((uint16_t *)host, value, __ATOMIC_RELEASE);
	memory_notify_range(q->memory, address, sizeof(value));
}

/* ---- chains ---- */

static bool is_rom(const struct memory *m, gpa_t a, uint64_t size_bytes)
{
	if (memory_slot(m, a)->is_rom)
		return true;
	uint64_t last = memory_page_index(m, gpa(a.v + size_bytes - 1));
	for (uint64_t i = memory_page_index(m, a); i <= last; i++)
		if (m->page_flags[i] & PAGE_ROM)
			return true;
	return false;
}

const char *chain_add(const struct virtq *q, struct virtq_chain *c, uint64_t address,
		      uint32_t size_bytes, bool is_writable)
{
	unsigned count = c->out_count + c->in_count;
	if (count >= VIRTQ_SIZE_MAX || count >= q->size_max)
		return "a chain is longer than the queue, or has a loop";
	if (!size_bytes)
		return "a descriptor has length 0";
	uint8_t *host = memory_host(q->memory, gpa(address), size_bytes);
	if (!host)
		return "a descriptor is not in memory";
	if (is_writable && is_rom(q->memory, gpa(address), size_bytes))
		return "a descriptor to write is in read-only memory";
	if (!is_writable && c->in_count)
		return "a descriptor to read stands after one to write";
	c->segments[count] = (struct virtq_segment){gpa(address), host, size_bytes};
	if (is_writable) {
		c->in_count++;
		c->in_bytes += size_bytes;
	} else {
		c->out_count++;
		c->out_bytes += size_bytes;
	}
	return NULL;
}

const uint8_t *indirect_table(const struct virtq *q, uint64_t address, uint32_t size_bytes,
			      unsigned *count, const char **problem)
{
	*count = size_bytes / DESC_BYTES;
	const uint8_t *table = memory_host(q->memory, gpa(address), size_bytes);
	*problem = !q->has_indirect ? "an indirect descriptor was not negotiated"
		   : !size_bytes || size_bytes % DESC_BYTES ? "an indirect table of no legal size"
		   : *count > q->size_max ? "an indirect table is longer than the queue"
		   : !table		  ? "an indirect table is not in memory"
					  : NULL;
	return *problem ? NULL : table;
}

/* ---- copying ---- */

/* What of a segment lies at `*offset` and behind, `left` bytes at most; maybe nothing. The offset
 * becomes the next segment's. */
static struct iovec cut(const struct virtq_segment *s, uint64_t *offset, uint64_t left)
{
	struct iovec piece = {s->host, 0};
	if (*offset >= s->size_bytes) {
		*offset -= s->size_bytes;
		return piece;
	}
	uint64_t here = s->size_bytes - *offset;
	piece = (struct iovec){s->host + *offset, here < left ? here : left};
	*offset = 0;
	return piece;
}

/* Pieces of `count` bytes from `offset` on, of `segment_count` segments. */
static unsigned pieces_of(const struct virtq_segment *s, unsigned segment_count, uint64_t offset,
			  uint64_t count, struct iovec *pieces, uint64_t *total)
{
	unsigned n = 0;
	uint64_t sum = 0;
	for (unsigned i = 0; i < segment_count && sum < count; i++) {
		struct iovec piece = cut(&s[i], &offset, count - sum);
		if (piece.iov_len)
			pieces[n++] = piece;
		sum += piece.iov_len;
	}
	if (total)
		*total = sum;
	return n;
}

unsigned virtq_out_pieces(const struct virtq_chain *c, uint64_t offset, uint64_t count,
			  struct iovec *pieces, uint64_t *total)
{
	return pieces_of(c->segments, c->out_count, offset, count, pieces, total);
}

unsigned virtq_in_pieces(const struct virtq_chain *c, uint64_t offset, uint64_t count,
			 struct iovec *pieces, uint64_t *total)
{
	return pieces_of(c->segments + c->out_count, c->in_count, offset, count, pieces, total);
}

uint64_t virtq_read(const struct virtq_chain *c, uint64_t offset, void *bytes, uint64_t count)
{
	uint8_t *to = bytes;
	uint64_t done = 0;
	for (unsigned i = 0; i < c->out_count && done < count; i++) {
		struct iovec piece = cut(&c->segments[i], &offset, count - done);
		memcpy(to + done, piece.iov_base, piece.iov_len);
		done += piece.iov_len;
	}
	return done;
}

/* Goes through the bytes to write; with `from` they are copied, and the watchers told of them. */
static uint64_t put(const struct virtq *q, const struct virtq_chain *c, uint64_t offset,
		    const uint8_t *from, uint64_t count)
{
	uint64_t done = 0;
	for (unsigned i = 0; i < c->in_count && done < count; i++) {
		const struct virtq_segment *s = &c->segments[c->out_count + i];
		struct iovec piece = cut(s, &offset, count - done);
		if (!piece.iov_len)
			continue;
		if (from)
			memcpy(piece.iov_base, from + done, piece.iov_len);
		uint64_t start = (uint64_t)((uint8_t *)piece.iov_base - s->host);
		memory_notify_range(q->memory, gpa(s->address.v + start), piece.iov_len);
		done += piece.iov_len;
	}
	return done;
}

uint64_t virtq_write(const struct virtq *q, const struct virtq_chain *c, uint64_t offset,
		     const void *bytes, uint64_t count)
{
	return put(q, c, offset, bytes, count);
}

void virtq_wrote(const struct virtq *q, const struct virtq_chain *c, uint64_t offset,
		 uint64_t count)
{
	put(q, c, offset, NULL, count);
}

/* ---- the two kinds ---- */

static bool is_usable(const struct virtq *q)
{
	return q->state->is_enabled && !q->state->is_broken && q->desc_host;
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	c->out_count = c->in_count = 0;
	c->out_bytes = c->in_bytes = 0;
	if (!is_usable(q))
		return 0;
	return q->is_packed ? packed_pop(q, c) : split_pop(q, c);
}

void virtq_rewind(struct virtq *q, const struct virtq_state *before)
{
	q->state->next_avail = before->next_avail;
	q->state->avail_wrap = before->avail_wrap;
	q->state->in_flight = before->in_flight;
}

bool virtq_has_chain(struct virtq *q)
{
	if (!is_usable(q))
		return false;
	return q->is_packed ? packed_has_chain(q) : split_has_chain(q);
}

void virtq_push(struct virtq *q, struct virtq_ticket t, uint32_t written)
{
	if (!is_usable(q))
		return;
	q->state->in_flight -= t.entry_count < q->state->in_flight ? t.entry_count
								   : q->state->in_flight;
	if (q->is_packed)
		packed_push(q, t, written);
	else
		split_push(q, t, written);
}

bool virtq_wants_signal(struct virtq *q)
{
	if (!is_usable(q))
		return false;
	/* What was pushed must be seen before the driver's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return q->is_packed ? packed_wants_signal(q) : split_wants_signal(q);
}
