/* What all virtio devices share: status and features, the life of queues, kicks and interrupts,
 * saving and loading. */
#include "virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "state/state.h"

#define CORE_VERSION 1
#define ALWAYS_OFFERED \
	(VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_INDEX | VIRTIO_F_VERSION_1 | VIRTIO_F_PACKED)
#define STATUS_KNOWN 0xcfu
#define ISR_QUEUE 1
#define ISR_CONFIG 2

/* ---- state and sections ---- */

static void configure_queues(struct virtio_device *d)
{
	for (unsigned i = 0; i < d->queue_count; i++) {
		d->queues[i].is_packed = virtio_has(d, VIRTIO_F_PACKED);
		d->queues[i].has_event_index = virtio_has(d, VIRTIO_F_EVENT_INDEX);
		d->queues[i].has_indirect = virtio_has(d, VIRTIO_F_INDIRECT);
	}
}

static void core_reset(struct device *device)
{
	struct virtio_device *d = (struct virtio_device *)device;
	timer_cancel(d->host->clock, &d->timer);
	d->ops->reset(d);
	d->state = (struct virtio_state){.config_vector = VIRTIO_NO_VECTOR};
	d->problem = NULL;
	for (unsigned i = 0; i < d->queue_count; i++)
		virtq_reset(&d->queues[i]);
}

static void arm(struct virtio_device *d)
{
	if (d->state.kicked)
		timer_arm(d->host->clock, &d->timer, d->state.kick_deadline);
}

static bool is_acceptable(const struct virtio_device *d)
{
	return !(d->state.driver_features & ~d->offered) && virtio_has(d, VIRTIO_F_VERSION_1);
}

static int core_resume(struct device *device, struct error *e)
{
	struct virtio_device *d = (struct virtio_device *)device;
	const struct virtio_state *s = &d->state;
	bool is_good = !(s->status & ~STATUS_KNOWN) && !(s->kicked >> d->queue_count) &&
		       s->isr <= 3;
	if (s->status & VIRTIO_STATUS_FEATURES_OK)
		is_good &= is_acceptable(d);
	if (!is_good)
		return error_set(e, -EINVAL, "no driver could have brought it there");
	configure_queues(d);
	for (unsigned i = 0; i < d->queue_count; i++) {
		struct virtq *q = &d->queues[i];
		q->desc_host = q->driver_host = q->device_host = NULL;
		int r = virtq_check(q, e);
		if (r)
			return r;
		if (q->state->is_enabled && !q->state->is_broken)
			virtq_connect(q);
	}
	arm(d);
	return 0;
}

static void core_fini(struct device *device)
{
	struct virtio_device *d = (struct virtio_device *)device;
	timer_cancel(d->host->clock, &d->timer);
}

static const struct device_ops core_ops = {CORE_VERSION, core_reset, core_resume, core_fini};

static struct virtio_device *owner(struct device *own)
{
	return (struct virtio_device *)((char *)own - offsetof(struct virtio_device, own));
}

static void own_reset(struct device *own)
{
	struct virtio_device *d = owner(own);
	d->ops->reset(d);
}

static int own_resume(struct device *own, struct error *e)
{
	struct virtio_device *d = owner(own);
	return d->ops->resume ? d->ops->resume(d, e) : 0;
}

/* ---- making ---- */

static void fire(void *opaque, uint64_t deadline_cycles)
{
	struct virtio_device *d = opaque;
	uint32_t kicked = d->state.kicked;
	(void)deadline_cycles;
	d->state.kicked = 0;
	d->state.kick_deadline = 0;
	for (unsigned i = 0; i < d->queue_count; i++)
		if ((kicked >> i & 1) && virtio_is_running(d))
			d->ops->kicked(d, i);
}

void virtio_init(struct virtio_device *d, const struct virtio_ops *ops,
		 const struct virtio_host *host, uint64_t offered)
{
	d->ops = ops;
	d->host = host;
	d->offered = offered | ALWAYS_OFFERED;
	d->timer = (struct timer){.fire = fire, .opaque = d};
	d->state.config_vector = VIRTIO_NO_VECTOR;
}

void virtio_add_queue(struct virtio_device *d, uint16_t size)
{
	assert(d->queue_count < VIRTIO_QUEUES_MAX);
	struct virtq_state *state = &d->state.queues[d->queue_count];
	virtq_init(&d->queues[d->queue_count++], state, d->host->memory, size);
}

void virtio_set_config(struct virtio_device *d, void *config, unsigned size_bytes)
{
	d->config = config;
	d->config_bytes = size_bytes;
}

void virtio_set_own_state(struct virtio_device *d, void *state, size_t size_bytes)
{
	d->own_state = state;
	d->own_bytes = size_bytes;
}

void virtio_attach(struct virtio_device *d, unsigned index, struct virtio_wire wire)
{
	char instance[12];
	snprintf(instance, sizeof(instance), "%u", index);
	d->wire = wire;
	device_init(&d->device, &core_ops, "virtio", instance, &d->state, sizeof(d->state));
	d->own_ops = (struct device_ops){d->ops->version, own_reset, own_resume, NULL};
	device_init(&d->own, &d->own_ops, d->ops->name, instance, d->own_state, d->own_bytes);
}

void virtio_destroy(struct virtio_device *d)
{
	if (!d)
		return;
	timer_cancel(d->host->clock, &d->timer);
	free(d->text);
	d->ops->destroy(d);
}

void virtio_drain(struct virtio_device *d)
{
	if (d->ops->drain)
		d->ops->drain(d);
}

void virtio_poll(struct virtio_device *d)
{
	if (d->in_flight && d->ops->poll)
		d->ops->poll(d);
}

/* ---- queues ---- */

bool virtio_pop(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtq *q = &d->queues[queue];
	if (!virtio_is_running(d))
		return false;
	int r = virtq_pop(q, c);
	if (r < 0)
		virtio_fail(d, q->problem);
	return r > 0;
}

void virtio_push(struct virtio_device *d, unsigned queue, struct virtq_ticket t, uint64_t written)
{
	if (virtio_is_running(d))
		virtq_push(&d->queues[queue], t,
			   written < UINT32_MAX ? (uint32_t)written : UINT32_MAX);
}

void virtio_kick_later(struct virtio_device *d, unsigned queue, uint64_t delay_ns)
{
	struct clock *clock = d->host->clock;
	if (!virtio_is_running(d))
		return;
	if (!d->state.kicked)
		d->state.kick_deadline = clock_now(clock) + clock_cycles_from_ns(clock, delay_ns);
	d->state.kicked |= 1u << queue;
	if (!d->timer.is_armed)
		arm(d);
}

static void interrupt(struct virtio_device *d, int index)
{
	if (d->wire.interrupt)
		d->wire.interrupt(d->wire.opaque, index);
}

void virtio_signal(struct virtio_device *d, unsigned queue)
{
	if (virtio_is_running(d) && virtq_wants_signal(&d->queues[queue]))
		interrupt(d, (int)queue);
}

void virtio_config_changed(struct virtio_device *d)
{
	d->state.config_generation++;
	if (d->state.status & VIRTIO_STATUS_DRIVER_OK)
		interrupt(d, VIRTIO_CONFIG);
}

void virtio_fail(struct virtio_device *d, const char *problem)
{
	if (d->state.status & VIRTIO_STATUS_NEEDS_RESET)
		return;
	d->problem = problem;
	d->fail_count++;
	log_debug("%s: the driver broke the rules: %s", d->own.section, problem);
	d->state.status |= VIRTIO_STATUS_NEEDS_RESET;
	if (d->state.status & VIRTIO_STATUS_DRIVER_OK)
		interrupt(d, VIRTIO_CONFIG);
}

/* ---- what the driver sets ---- */

static void start(struct virtio_device *d)
{
	for (unsigned i = 0; i < d->queue_count; i++)
		if (d->queues[i].state->is_enabled && !d->queues[i].desc_host) {
			virtio_fail(d, "an enabled queue has no rings");
			return;
		}
	if (d->ops->started)
		d->ops->started(d);
	/* Drivers fill queues, and some kick, before they are ready: that kick was too early. */
	for (unsigned i = 0; i < d->queue_count; i++)
		if (virtq_has_chain(&d->queues[i]))
			virtio_kick(d, i);
}

void virtio_write_status(struct virtio_device *d, uint8_t status)
{
	struct virtio_state *s = &d->state;
	if (!status) {
		core_reset(&d->device);
		return;
	}
	/* Bits are only ever added; what the device set stays. */
	uint8_t now = (s->status | status) & STATUS_KNOWN;
	now = (uint8_t)((now & ~VIRTIO_STATUS_NEEDS_RESET) |
			(s->status & VIRTIO_STATUS_NEEDS_RESET));
	uint8_t added = now & (uint8_t)~s->status;
	if ((added & VIRTIO_STATUS_FEATURES_OK) && !is_acceptable(d))
		now &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
	if ((added & VIRTIO_STATUS_DRIVER_OK) && !(now & VIRTIO_STATUS_FEATURES_OK))
		now &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
	added = now & (uint8_t)~s->status;
	s->status = now;
	if (added & VIRTIO_STATUS_FEATURES_OK)
		configure_queues(d);
	if (added & VIRTIO_STATUS_DRIVER_OK)
		start(d);
}

uint32_t virtio_read_features(const struct virtio_device *d, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(d->offered >> (32 * select));
}

uint32_t virtio_driver_features(const struct virtio_device *d, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(d->state.driver_features >> (32 * select));
}

void virtio_write_features(struct virtio_device *d, uint32_t select, uint32_t value)
{
	if (select > 1 || virtio_driver_features(d, select) == value)
		return;
	if (d->state.status & VIRTIO_STATUS_FEATURES_OK) {
		virtio_fail(d, "features were changed after they were agreed on");
		return;
	}
	uint64_t half = (uint64_t)value << (32 * select);
	d->state.driver_features &= ~(0xffffffffull << (32 * select));
	d->state.driver_features |= half;
}

uint64_t virtio_read_config(const struct virtio_device *d, uint64_t offset, unsigned size_bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < size_bytes; i++)
		if (offset < d->config_bytes && offset + i < d->config_bytes)
			value |= (uint64_t)d->config[offset + i] << (8 * i);
	return value;
}

void virtio_write_config(struct virtio_device *d, uint64_t offset, unsigned size_bytes,
			 uint64_t value)
{
	if (!d->ops->config_written || offset >= d->config_bytes ||
	    size_bytes > d->config_bytes - offset)
		return;
	memcpy(d->config + offset, &value, size_bytes);
	d->ops->config_written(d, (unsigned)offset, size_bytes);
}

struct virtq *virtio_queue(struct virtio_device *d, unsigned index)
{
	return index < d->queue_count ? &d->queues[index] : NULL;
}

/* The queue, if the driver may set it up now. */
static struct virtq *queue_to_set(struct virtio_device *d, unsigned index)
{
	struct virtq *q = virtio_queue(d, index);
	if (q && (q->state->is_enabled || (d->state.status & VIRTIO_STATUS_DRIVER_OK))) {
		virtio_fail(d, "a queue was changed while it was in use");
		return NULL;
	}
	return q;
}

void virtio_set_queue_size(struct virtio_device *d, unsigned index, uint16_t size)
{
	struct virtq *q = virtio_queue(d, index);
	if (!q || size == q->state->size || !(q = queue_to_set(d, index)))
		return;
	if (!size || size > q->size_max)
		virtio_fail(d, "a queue of no legal size");
	else
		q->state->size = size;
}

static uint64_t *ring_address(struct virtq *q, enum virtio_ring ring)
{
	switch (ring) {
	case VIRTIO_RING_DESC: return &q->state->desc;
	case VIRTIO_RING_DRIVER: return &q->state->driver;
	case VIRTIO_RING_DEVICE: break;
	}
	return &q->state->device;
}

uint64_t virtio_ring(struct virtio_device *d, unsigned index, enum virtio_ring ring)
{
	struct virtq *q = virtio_queue(d, index);
	return q ? *ring_address(q, ring) : 0;
}

void virtio_set_whole_ring(struct virtio_device *d, unsigned index, enum virtio_ring ring,
			   uint64_t value)
{
	struct virtq *q = virtio_queue(d, index);
	if (q && *ring_address(q, ring) != value && (q = queue_to_set(d, index)))
		*ring_address(q, ring) = value;
}

void virtio_set_ring(struct virtio_device *d, unsigned index, enum virtio_ring ring, bool is_high,
		     uint32_t value)
{
	uint64_t old = virtio_ring(d, index, ring);
	uint64_t new = is_high ? (old & 0xffffffffu) | (uint64_t)value << 32
			       : (old & ~0xffffffffull) | value;
	virtio_set_whole_ring(d, index, ring, new);
}

void virtio_enable_queue(struct virtio_device *d, unsigned index)
{
	struct virtq *q = virtio_queue(d, index);
	if (!q || q->state->is_enabled || !(q = queue_to_set(d, index)))
		return;
	if (!(d->state.status & VIRTIO_STATUS_FEATURES_OK)) {
		virtio_fail(d, "a queue was enabled before features were agreed on");
		return;
	}
	q->state->is_enabled = 1;
	if (!virtq_connect(q))
		virtio_fail(d, q->problem);
}

/* Only the MMIO transport has it, and only for a driver that lets go of the device. */
void virtio_disable_queue(struct virtio_device *d, unsigned index)
{
	struct virtq *q = virtio_queue(d, index);
	if (!q || !q->state->is_enabled)
		return;
	if (q->state->in_flight || d->in_flight) {
		virtio_fail(d, "a queue was disabled while the device worked on it");
		return;
	}
	virtq_reset(q);
	d->state.kicked &= ~(1u << index);
}

void virtio_kick(struct virtio_device *d, unsigned index)
{
	struct virtio_state *s = &d->state;
	struct clock *clock = d->host->clock;
	if (index >= d->queue_count || !virtio_is_running(d))
		return;
	if (!s->kicked) {
		uint64_t now = clock_now(clock);
		s->kick_deadline = clock->kind == CLOCK_REAL
					   ? now
					   : now + clock_cycles_from_ns(clock, d->ops->latency_ns);
	}
	s->kicked |= 1u << index;
	if (!d->timer.is_armed)
		arm(d);
}
