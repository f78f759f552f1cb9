/* Packed rings (VIRTIO 1.2, 2.8): one ring of descriptors that driver and device write in turn; two
 * bits of each say, against a counter that flips with every round, whose it is. */
#include <errno.h>
#include <string.h>

#include "virtio/queue_private.h"

#define DESC_AVAILABLE 0x0080u
#define DESC_USED 0x8000u
#define FLAGS_OFFSET 14

#define EVENTS_ENABLE 0
#define EVENTS_DISABLE 1
#define EVENTS_ONE 2

struct descriptor {
	uint64_t address;
	uint32_t size_bytes;
	uint16_t id;
	uint16_t flags;
};

_Static_assert(sizeof(struct descriptor) == DESC_BYTES, "as it lies in guest memory");

bool packed_has_chain(const struct virtq *q)
{
	const struct virtq_state *s = q->state;
	uint16_t flags = ring_load(q->desc_host + s->next_avail * DESC_BYTES + FLAGS_OFFSET);
	return !!(flags & DESC_AVAILABLE) == s->avail_wrap &&
	       !!(flags & DESC_USED) != s->avail_wrap;
}

/* The whole table, in order; its descriptors have no chain flags. */
static const char *collect_indirect(const struct virtq *q, struct virtq_chain *c,
				    const struct descriptor *from)
{
	const char *problem;
	unsigned count;
	const uint8_t *table = indirect_table(q, from->address, from->size_bytes, &count, &problem);
	for (unsigned i = 0; table && !problem && i < count; i++) {
		struct descriptor d;
		memcpy(&d, table + i * DESC_BYTES, sizeof(d));
		problem = d.flags & DESC_INDIRECT
				  ? "an indirect table names another"
				  : chain_add(q, c, d.address, d.size_bytes, d.flags & DESC_WRITE);
	}
	return problem;
}

static void advance(const struct virtq *q, uint16_t *at, uint8_t *wrap, unsigned count)
{
	unsigned next = *at + count;
	if (next >= q->state->size) {
		next -= q->state->size;
		*wrap ^= 1;
	}
	*at = (uint16_t)next;
}

/* Sets the chain's id and length in the ring, too. */
static const char *collect(const struct virtq *q, struct virtq_chain *c)
{
	const struct virtq_state *s = q->state;
	for (unsigned count = 0; count < s->size; count++) {
		struct descriptor d;
		unsigned at = (s->next_avail + count) % s->size;
		memcpy(&d, q->desc_host + at * DESC_BYTES, sizeof(d));
		c->id = d.id;
		c->entry_count = (uint16_t)(count + 1);
		if ((d.flags & DESC_INDIRECT) && (d.flags & DESC_NEXT))
			return "an indirect descriptor has a next one";
		const char *problem =
			d.flags & DESC_INDIRECT
				? collect_indirect(q, c, &d)
				: chain_add(q, c, d.address, d.size_bytes, d.flags & DESC_WRITE);
		if (problem || !(d.flags & DESC_NEXT))
			return problem;
	}
	return "a chain is longer than the queue, or has a loop";
}

int packed_pop(struct virtq *q, struct virtq_chain *c)
{
	struct virtq_state *s = q->state;
	if (!packed_has_chain(q))
		return 0;
	const char *problem = collect(q, c);
	if (!problem && c->entry_count > s->size - s->in_flight)
		problem = "more chains are available than the queue has entries";
	if (problem)
		return virtq_break(q, problem);
	s->in_flight += c->entry_count;
	advance(q, &s->next_avail, &s->avail_wrap, c->entry_count);
	return 1;
}

void packed_push(struct virtq *q, struct virtq_ticket t, uint32_t written)
{
	struct virtq_state *s = q->state;
	unsigned offset = s->next_used * DESC_BYTES;
	uint8_t *host = q->desc_host + offset;
	gpa_t address = gpa(s->desc + offset);
	uint16_t flags = s->used_wrap ? DESC_AVAILABLE | DESC_USED : 0;
	/* The flags last: with them the descriptor is the driver's. */
	struct descriptor d = {.size_bytes = written, .id = t.id};
	ring_write(q, gpa(address.v + 8), host + 8, &d.size_bytes, 6);
	ring_store(q, gpa(address.v + FLAGS_OFFSET), host + FLAGS_OFFSET,
		   written ? flags | DESC_WRITE : flags);
	advance(q, &s->next_used, &s->used_wrap, t.entry_count);
}

/* 2.8.10: the driver's area names the descriptor and round at which it wants to hear. */
bool packed_wants_signal(struct virtq *q)
{
	struct virtq_state *s = q->state;
	uint16_t flags = ring_load(q->driver_host + 2) & 3;
	uint16_t event = ring_load(q->driver_host);
	uint16_t new = s->next_used, old = s->signalled;
	bool had_signalled = s->has_signalled;
	uint8_t old_wrap = s->signalled_wrap;
	s->signalled = new;
	s->signalled_wrap = s->used_wrap;
	s->has_signalled = 1;
	if (flags == EVENTS_DISABLE)
		return false;
	if (flags != EVENTS_ONE || !q->has_event_index || !had_signalled)
		return true;
	/* All three as distances in one round's terms: what lies in the round before is negative.
	 */
	int size = s->size;
	int at = (event & 0x7fff) - ((event >> 15) != s->used_wrap ? size : 0);
	int from = old - (old_wrap != s->used_wrap ? size : 0);
	return at >= from && at < new;
}
