/* Split rings (VIRTIO 1.2, 2.7). */
#include <string.h>

#include "virtio/queue_private.h"

struct descriptor {
	uint64_t address;
	uint32_t size_bytes;
	uint16_t flags;
	uint16_t next;
};

_Static_assert(sizeof(struct descriptor) == DESC_BYTES, "as it lies in guest memory");

static gpa_t device_at(const struct virtq *q, unsigned offset)
{
	return gpa(q->state->device + offset);
}

/* The segments of the chain that begins at `head`. Loops end where a chain can be no longer. */
static const char *collect(const struct virtq *q, struct virtq_chain *c, uint16_t head)
{
	const uint8_t *table = q->desc_host;
	unsigned table_count = q->state->size, at = head;
	bool is_indirect = false;
	for (unsigned steps = 0; steps <= table_count; steps++) {
		struct descriptor d;
		if (at >= table_count)
			return "a descriptor is out of range";
		if (steps == table_count)
			break;
		memcpy(&d, table + at * DESC_BYTES, sizeof(d));
		if (d.flags & DESC_INDIRECT) {
			const char *problem;
			if (is_indirect)
				return "an indirect table names another";
			if (d.flags & DESC_NEXT)
				return "an indirect descriptor has a next one";
			table = indirect_table(q, d.address, d.size_bytes, &table_count, &problem);
			if (!table)
				return problem;
			is_indirect = true;
			at = 0;
			steps = UINT32_MAX; /* the table has its own count */
			continue;
		}
		const char *problem =
			chain_add(q, c, d.address, d.size_bytes, d.flags & DESC_WRITE);
		if (problem || !(d.flags & DESC_NEXT))
			return problem;
		at = d.next;
	}
	return "a chain is longer than the queue, or has a loop";
}

bool split_has_chain(const struct virtq *q)
{
	return ring_load(q->driver_host + 2) != q->state->next_avail;
}

int split_pop(struct virtq *q, struct virtq_chain *c)
{
	struct virtq_state *s = q->state;
	uint16_t waiting = (uint16_t)(ring_load(q->driver_host + 2) - s->next_avail);
	if (!waiting)
		return 0;
	if (waiting > s->size)
		return virtq_break(q, "the available index jumped");
	if (s->in_flight >= s->size)
		return virtq_break(q, "more chains are available than the queue has entries");
	uint16_t head = ring_load(q->driver_host + 4 + 2 * (s->next_avail & (s->size - 1)));
	const char *problem = collect(q, c, head);
	if (problem)
		return virtq_break(q, problem);
	c->id = head;
	c->entry_count = 1;
	s->in_flight++;
	s->next_avail++;
	if (q->has_event_index) {
		unsigned offset = 4 + 8u * s->size;
		ring_store(q, device_at(q, offset), q->device_host + offset, s->next_avail);
	}
	return 1;
}

void split_push(struct virtq *q, struct virtq_ticket t, uint32_t written)
{
	struct virtq_state *s = q->state;
	const uint32_t element[2] = {t.id, written};
	unsigned offset = 4 + 8u * (s->next_used & (s->size - 1));
	ring_write(q, device_at(q, offset), q->device_host + offset, element, sizeof(element));
	ring_store(q, device_at(q, 2), q->device_host + 2, ++s->next_used);
}

/* 2.7.10: the driver wants to hear when the index passes used_event. */
bool split_wants_signal(struct virtq *q)
{
	struct virtq_state *s = q->state;
	uint16_t new = s->next_used, old = s->signalled;
	bool had_signalled = s->has_signalled;
	if (!q->has_event_index)
		return !(ring_load(q->driver_host) & 1);
	s->signalled = new;
	s->has_signalled = 1;
	uint16_t event = ring_load(q->driver_host + 4 + 2u * s->size);
	return !had_signalled || (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}
