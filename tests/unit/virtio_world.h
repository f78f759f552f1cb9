/*
 * A virtio device without a machine: RAM, a clock, and a driver that sets queues up and adds chains
 * to split or packed rings, well behaved or, with the world's raw functions, not.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "clock/clock.h"
#include "memory/memory.h"
#include "state/state.h"
#include "virtio/virtio.h"

#include <cmocka.h>

#define WORLD_RAM (1u << 20)
#define WORLD_HZ 1000000000ull
#define WORLD_SIZE 16 /* entries a queue */
#define WORLD_QUEUE_BYTES 0x4000
#define WORLD_TABLE 0x60000  /* indirect tables */
#define WORLD_BUFFER 0x80000 /* data */

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u

struct world_ring {
	uint16_t avail, used; /* split: indexes; packed: places */
	bool avail_wrap, used_wrap;
	uint16_t next_free; /* the descriptors are used round and round */
};

struct virtio_world {
	struct clock clock;
	struct memory *memory;
	struct virtio_host host;
	struct virtio_device *device;
	bool is_packed;
	unsigned interrupts[VIRTIO_QUEUES_MAX], config_interrupts;
	struct world_ring rings[VIRTIO_QUEUES_MAX];
	int watched_fd;
	void (*ready)(void *device, int fd);
};

/* Of a chain: what the device reads, then what it writes. */
struct world_segment {
	uint64_t address;
	uint32_t size_bytes;
	bool is_writable;
};

static inline void world_interrupt(void *opaque, int index)
{
	struct virtio_world *w = opaque;
	if (index == VIRTIO_CONFIG)
		w->config_interrupts++;
	else
		w->interrupts[index]++;
}

static inline int world_watch(void *opaque, int fd, void (*ready)(void *, int), void *device)
{
	struct virtio_world *w = opaque;
	(void)device;
	w->watched_fd = fd;
	w->ready = ready;
	return 0;
}

static inline void world_set_waker(void *opaque, int fd, bool is_waker)
{
	(void)opaque;
	(void)fd;
	(void)is_waker;
}

static inline void world_unwatch(void *opaque, int fd)
{
	struct virtio_world *w = opaque;
	assert_int_equal(w->watched_fd, fd);
	w->watched_fd = -1;
}

static inline void world_open_at(struct virtio_world *w, const char *name, const char *text,
				 enum clock_kind kind)
{
	struct error e = {0};
	const struct virtio_row *row = virtio_find(name, strlen(name));
	*w = (struct virtio_world){.watched_fd = -1};
	clock_init(&w->clock, kind, WORLD_HZ);
	assert_int_equal(memory_create(&w->memory, WORLD_RAM, &e), 0);
	w->host = (struct virtio_host){.memory = w->memory,
				       .clock = &w->clock,
				       .seed = 1,
				       .watch = world_watch,
				       .set_waker = world_set_waker,
				       .unwatch = world_unwatch,
				       .opaque = w};
	assert_non_null(row);
	if (row->create(&w->device, text, &w->host, &e))
		fail_msg("%s", e.text);
	virtio_attach(w->device, 0, (struct virtio_wire){world_interrupt, w});
	device_reset(&w->device->device);
}

static inline void world_open(struct virtio_world *w, const char *name, const char *text)
{
	world_open_at(w, name, text, CLOCK_VIRTUAL);
}

static inline void world_close(struct virtio_world *w)
{
	device_fini(&w->device->device);
	virtio_destroy(w->device);
	memory_destroy(w->memory);
}

/* ---- setting up ---- */

static inline uint64_t ring_base(unsigned queue, enum virtio_ring ring)
{
	return 0x1000 + queue * WORLD_QUEUE_BYTES + 0x1000u * (unsigned)ring;
}

static inline void world_agree(struct virtio_world *w, uint64_t features)
{
	struct virtio_device *d = w->device;
	virtio_write_status(d, 0);
	virtio_write_status(d, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	virtio_write_features(d, 0, (uint32_t)features);
	virtio_write_features(d, 1, (uint32_t)(features >> 32));
	virtio_write_status(d, d->state.status | VIRTIO_STATUS_FEATURES_OK);
	w->is_packed = features & VIRTIO_F_PACKED;
}

/* All queues, and DRIVER_OK. */
static inline void world_start(struct virtio_world *w, uint64_t features)
{
	struct virtio_device *d = w->device;
	world_agree(w, features | VIRTIO_F_VERSION_1);
	assert_true(d->state.status & VIRTIO_STATUS_FEATURES_OK);
	for (unsigned i = 0; i < d->queue_count; i++) {
		uint8_t zeros[WORLD_QUEUE_BYTES] = {0};
		memory_write(w->memory, gpa(ring_base(i, VIRTIO_RING_DESC)), zeros, sizeof(zeros));
		virtio_set_queue_size(d, i, WORLD_SIZE);
		for (int r = VIRTIO_RING_DESC; r <= VIRTIO_RING_DEVICE; r++)
			virtio_set_whole_ring(d, i, (enum virtio_ring)r,
					      ring_base(i, (enum virtio_ring)r));
		virtio_enable_queue(d, i);
		w->rings[i] = (struct world_ring){.avail_wrap = true, .used_wrap = true};
	}
	virtio_write_status(d, d->state.status | VIRTIO_STATUS_DRIVER_OK);
	assert_true(virtio_is_running(d));
}

/* ---- memory ---- */

static inline void put(struct virtio_world *w, uint64_t address, const void *bytes, size_t count)
{
	assert_int_equal(memory_write(w->memory, gpa(address), bytes, count), 0);
}

static inline void get(struct virtio_world *w, uint64_t address, void *bytes, size_t count)
{
	assert_int_equal(memory_read(w->memory, gpa(address), bytes, count), 0);
}

static inline void put16(struct virtio_world *w, uint64_t address, uint16_t v)
{
	put(w, address, &v, sizeof(v));
}

static inline uint16_t get16(struct virtio_world *w, uint64_t address)
{
	uint16_t v;
	get(w, address, &v, sizeof(v));
	return v;
}

/* ---- rings, raw ---- */

/* `last` is the next descriptor of a split ring, the id of a packed one. */
static inline void put_descriptor(struct virtio_world *w, uint64_t at, uint64_t address,
				  uint32_t size_bytes, uint16_t flags, uint16_t last)
{
	uint8_t bytes[16];
	uint16_t a = w->is_packed ? last : flags, b = w->is_packed ? flags : last;
	memcpy(bytes, &address, 8);
	memcpy(bytes + 8, &size_bytes, 4);
	memcpy(bytes + 12, &a, 2);
	memcpy(bytes + 14, &b, 2);
	put(w, at, bytes, sizeof(bytes));
}

/* What makes a packed descriptor the device's. */
static inline uint16_t available_flags(const struct world_ring *r)
{
	return r->avail_wrap ? 0x80 : 0x8000;
}

static inline void step(uint16_t *at, bool *wrap)
{
	if (++*at == WORLD_SIZE) {
		*at = 0;
		*wrap = !*wrap;
	}
}

/* Puts descriptor `at` of the queue there and, in a packed ring, gives it away. */
static inline void raw_descriptor(struct virtio_world *w, unsigned queue, uint16_t at,
				  uint64_t address, uint32_t size_bytes, uint16_t flags,
				  uint16_t last)
{
	if (w->is_packed)
		flags |= available_flags(&w->rings[queue]);
	put_descriptor(w, ring_base(queue, VIRTIO_RING_DESC) + 16u * at, address, size_bytes, flags,
		       last);
}

/* Makes the chain of a split ring that begins at `head` available. */
static inline void raw_offer(struct virtio_world *w, unsigned queue, uint16_t head)
{
	struct world_ring *r = &w->rings[queue];
	uint64_t base = ring_base(queue, VIRTIO_RING_DRIVER);
	if (w->is_packed)
		return;
	put16(w, base + 4 + 2u * (r->avail % WORLD_SIZE), head);
	put16(w, base + 2, ++r->avail);
}

/* ---- rings, well behaved ---- */

static inline uint16_t world_add(struct virtio_world *w, unsigned queue,
				 const struct world_segment *s, unsigned count)
{
	struct world_ring *r = &w->rings[queue];
	uint16_t head = r->next_free, id = head;
	for (unsigned i = 0; i < count; i++) {
		uint16_t at = w->is_packed ? r->avail : (uint16_t)((head + i) % WORLD_SIZE);
		uint16_t flags = (i + 1 < count ? DESC_NEXT : 0) |
				 (s[i].is_writable ? DESC_WRITE : 0);
		uint16_t next = (uint16_t)((head + i + 1) % WORLD_SIZE);
		raw_descriptor(w, queue, at, s[i].address, s[i].size_bytes, flags,
			       w->is_packed ? id : next);
		if (w->is_packed)
			step(&r->avail, &r->avail_wrap);
	}
	r->next_free = (uint16_t)((head + count) % WORLD_SIZE);
	raw_offer(w, queue, head);
	return id;
}

/* The same chain, in an indirect table at `table`. */
static inline uint16_t world_add_indirect(struct virtio_world *w, unsigned queue, uint64_t table,
					  const struct world_segment *s, unsigned count)
{
	struct world_ring *r = &w->rings[queue];
	uint16_t id = r->next_free;
	for (unsigned i = 0; i < count; i++)
		put_descriptor(w, table + 16u * i, s[i].address, s[i].size_bytes,
			       (!w->is_packed && i + 1 < count ? DESC_NEXT : 0) |
				       (s[i].is_writable ? DESC_WRITE : 0),
			       (uint16_t)(i + 1));
	raw_descriptor(w, queue, w->is_packed ? r->avail : id, table, 16 * count, DESC_INDIRECT,
		       id);
	if (w->is_packed)
		step(&r->avail, &r->avail_wrap);
	r->next_free = (uint16_t)((id + 1) % WORLD_SIZE);
	raw_offer(w, queue, id);
	return id;
}

/* Time goes on until nothing is due any more. */
static inline void world_settle(struct virtio_world *w)
{
	while (clock_next_deadline(&w->clock) != CLOCK_NEVER) {
		if (w->clock.kind == CLOCK_VIRTUAL &&
		    clock_next_deadline(&w->clock) > w->clock.now_cycles)
			clock_set(&w->clock, clock_next_deadline(&w->clock));
		clock_run_due(&w->clock);
	}
}

static inline void world_kick(struct virtio_world *w, unsigned queue)
{
	virtio_kick(w->device, queue);
	world_settle(w);
}

/* Takes the next used chain, `count` descriptors long; false if there is none. */
static inline bool world_used(struct virtio_world *w, unsigned queue, unsigned count, uint16_t *id,
			      uint32_t *written)
{
	struct world_ring *r = &w->rings[queue];
	uint64_t base = ring_base(queue, VIRTIO_RING_DEVICE);
	if (!w->is_packed) {
		if (get16(w, base + 2) == r->used)
			return false;
		uint64_t element = base + 4 + 8u * (r->used++ % WORLD_SIZE);
		*id = get16(w, element);
		get(w, element + 4, written, 4);
		return true;
	}
	uint64_t at = ring_base(queue, VIRTIO_RING_DESC) + 16u * r->used;
	uint16_t flags = get16(w, at + 14);
	if (!!(flags & 0x80) != r->used_wrap || !!(flags & 0x8000) != r->used_wrap)
		return false;
	*id = get16(w, at + 12);
	get(w, at + 8, written, 4);
	while (count--)
		step(&r->used, &r->used_wrap);
	return true;
}

static inline bool world_needs_reset(const struct virtio_world *w)
{
	return w->device->state.status & VIRTIO_STATUS_NEEDS_RESET;
}
