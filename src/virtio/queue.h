/*
 * Virtqueues (VIRTIO 1.2, 2.6 to 2.8): split and packed rings behind one interface, with indirect
 * descriptors and the event index.
 *
 * The other side is a guest that may write anything into the ring at any time. So everything is
 * read once, copied and checked before it is used: a chain that is handed out consists of segments
 * that lie in RAM, readable ones first. What the specification forbids a driver to do makes the
 * queue broken: nothing is taken from it any more until the device is reset. No call takes more
 * than as many steps as the queue has entries.
 *
 * Only what a virtq_state holds is the machine's state; host pointers are found again from it.
 *
 *	split:	desc (16 bytes each)	driver: flags, index, heads ..., used_event
 *					device: flags, index, {head, bytes} ..., avail_event
 *	packed:	desc (16 bytes each)	driver, device: {offset and wrap, flags} of the events
 */
#pragma once

#include <sys/uio.h>

#include "base/error.h"
#include "base/types.h"

struct memory;

#define VIRTQ_SIZE_MAX 256

struct virtq_state {
	uint64_t desc, driver, device; /* guest-physical, as the driver set them */
	uint16_t size;		       /* entries */
	uint16_t vector;	       /* of the transport's interrupts; 0xffff: none */
	uint16_t next_avail, next_used;
	uint16_t signalled; /* next_used when the driver was last told */
	uint16_t in_flight; /* ring entries handed out and not given back */
	uint8_t is_enabled;
	uint8_t is_broken;
	uint8_t avail_wrap, used_wrap; /* packed: the wrap counters */
	uint8_t has_signalled;	       /* `signalled` means something */
	uint8_t signalled_wrap;
	uint8_t unused[6];
};

/* Contiguous guest memory. */
struct virtq_segment {
	gpa_t address;
	uint8_t *host;
	uint32_t size_bytes;
};

/* What a driver made available at once: `out_count` segments to read, then `in_count` to write. */
struct virtq_chain {
	uint16_t id;	      /* what the driver knows it by */
	uint16_t entry_count; /* of the ring */
	unsigned out_count, in_count;
	uint64_t out_bytes, in_bytes;
	struct virtq_segment segments[VIRTQ_SIZE_MAX];
};

/* The handle by which a chain is given back, once the segments are no longer needed. */
struct virtq_ticket {
	uint16_t id, entry_count;
};

struct virtq {
	struct virtq_state *state; /* borrowed */
	uint16_t size_max;
	struct memory *memory; /* borrowed */
	bool is_packed, has_event_index, has_indirect;
	uint8_t *desc_host, *driver_host, *device_host; /* NULL while it is not enabled */
	const char *problem;				/* why it is broken; a constant */
};

/* To power-on: disabled, of `size_max` entries (a power of two). */
void virtq_init(struct virtq *q, struct virtq_state *state, struct memory *memory,
		uint16_t size_max);
void virtq_reset(struct virtq *q);
/* Finds the rings in memory, when it is enabled or loaded. False (and broken) if they are not where
 * a ring may be. */
bool virtq_connect(struct virtq *q);
/* Could a run have left this state? Sets *e. */
int virtq_check(const struct virtq *q, struct error *e);

/* Takes the next chain: 1; 0 if there is none (or the queue is not usable), -EPROTO if the queue
 * has just become broken. */
int virtq_pop(struct virtq *q, struct virtq_chain *c);
/* Gives back, untaken, all that was popped since `before` was the queue's state, none of it pushed.
 */
void virtq_rewind(struct virtq *q, const struct virtq_state *before);
/* Is there one to take? */
bool virtq_has_chain(struct virtq *q);
/* Gives it back, `written` bytes of it written. */
void virtq_push(struct virtq *q, struct virtq_ticket t, uint32_t written);
/* Does the driver want to be interrupted for what was pushed since the last time it was asked? */
bool virtq_wants_signal(struct virtq *q);

static inline struct virtq_ticket virtq_ticket(const struct virtq_chain *c)
{
	return (struct virtq_ticket){c->id, c->entry_count};
}

/* Copies from what the driver gave to read, from its byte `offset` on, and to what it gave to
 * write. They return how many bytes there were. */
uint64_t virtq_read(const struct virtq_chain *c, uint64_t offset, void *bytes, uint64_t count);
uint64_t virtq_write(const struct virtq *q, const struct virtq_chain *c, uint64_t offset,
		     const void *bytes, uint64_t count);
/* The same bytes in place, for readv() and its kind: at most VIRTQ_SIZE_MAX pieces. Returns how
 * many; *total (may be NULL) is the sum. What is written there is told with virtq_wrote(). */
unsigned virtq_out_pieces(const struct virtq_chain *c, uint64_t offset, uint64_t count,
			  struct iovec *pieces, uint64_t *total);
unsigned virtq_in_pieces(const struct virtq_chain *c, uint64_t offset, uint64_t count,
			 struct iovec *pieces, uint64_t *total);
void virtq_wrote(const struct virtq *q, const struct virtq_chain *c, uint64_t offset,
		 uint64_t count);
