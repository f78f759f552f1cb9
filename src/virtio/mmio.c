#include "virtio/mmio.h"

#include <stdio.h>

#include "bus/platform.h"

#define MAGIC 0x74726976u /* "virt" */
#define VERSION 2
#define VENDOR 0x4d4e4f47u

enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SELECT = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SELECT = 0x024,
	REG_QUEUE_SELECT = 0x030,
	REG_QUEUE_SIZE_MAX = 0x034,
	REG_QUEUE_SIZE = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC = 0x080,
	REG_QUEUE_DRIVER = 0x090,
	REG_QUEUE_DEVICE = 0x0a0,
	REG_SHM_LENGTH_LOW = 0x0b0,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

static uint32_t read_register(struct virtio_mmio *m, unsigned reg)
{
	struct virtio_device *d = m->virtio;
	const struct virtq *q = virtio_queue(d, m->state.queue_select);
	switch (reg) {
	case REG_MAGIC: return MAGIC;
	case REG_VERSION: return VERSION;
	case REG_DEVICE_ID: return d->ops->type;
	case REG_VENDOR: return VENDOR;
	case REG_DEVICE_FEATURES: return virtio_read_features(d, m->state.device_feature_select);
	case REG_QUEUE_SIZE_MAX: return q ? q->size_max : 0;
	case REG_QUEUE_READY: return q ? q->state->is_enabled : 0;
	case REG_INTERRUPT_STATUS: return d->state.isr;
	case REG_STATUS: return d->state.status;
	case REG_GENERATION: return d->state.config_generation;
	default: break;
	}
	/* No shared memory: all ones say so. */
	return reg >= REG_SHM_LENGTH_LOW && reg <= REG_SHM_BASE_HIGH ? UINT32_MAX : 0;
}

static void set_ring(struct virtio_mmio *m, unsigned reg, uint32_t value)
{
	unsigned base = reg & ~0xfu;
	enum virtio_ring ring = base == REG_QUEUE_DESC	   ? VIRTIO_RING_DESC
				: base == REG_QUEUE_DRIVER ? VIRTIO_RING_DRIVER
							   : VIRTIO_RING_DEVICE;
	if ((reg & 0xf) <= 4)
		virtio_set_ring(m->virtio, m->state.queue_select, ring, reg & 4, value);
}

static void write_register(struct virtio_mmio *m, unsigned reg, uint32_t value)
{
	struct virtio_device *d = m->virtio;
	unsigned queue = m->state.queue_select;
	switch (reg) {
	case REG_DEVICE_FEATURES_SELECT: m->state.device_feature_select = value; break;
	case REG_DRIVER_FEATURES_SELECT: m->state.driver_feature_select = value; break;
	case REG_DRIVER_FEATURES:
		virtio_write_features(d, m->state.driver_feature_select, value);
		break;
	case REG_QUEUE_SELECT: m->state.queue_select = value; break;
	case REG_QUEUE_SIZE:
		virtio_set_queue_size(d, queue, value > 0xffff ? 0 : (uint16_t)value);
		break;
	case REG_QUEUE_READY:
		if (value)
			virtio_enable_queue(d, queue);
		else
			virtio_disable_queue(d, queue);
		break;
	case REG_QUEUE_NOTIFY: virtio_kick(d, value); break;
	case REG_INTERRUPT_ACK:
		d->state.isr &= (uint8_t)~value;
		irq_line_set(&m->line, d->state.isr != 0);
		break;
	case REG_STATUS:
		virtio_write_status(d, (uint8_t)value);
		irq_line_set(&m->line, d->state.isr != 0);
		break;
	default:
		if (reg >= REG_QUEUE_DESC && reg < REG_SHM_LENGTH_LOW)
			set_ring(m, reg, value);
		break;
	}
}

/* Registers are read and written whole (4.2.2.2); the device's configuration in any width. */
static uint64_t mmio_read(void *opaque, struct bus_access access)
{
	struct virtio_mmio *m = opaque;
	if (access.offset >= REG_CONFIG)
		return virtio_read_config(m->virtio, access.offset - REG_CONFIG, access.size_bytes);
	if (access.size_bytes != 4 || access.offset % 4)
		return 0;
	return read_register(m, (unsigned)access.offset);
}

static void mmio_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct virtio_mmio *m = opaque;
	if (access.offset >= REG_CONFIG)
		virtio_write_config(m->virtio, access.offset - REG_CONFIG, access.size_bytes,
				    value);
	else if (access.size_bytes == 4 && access.offset % 4 == 0)
		write_register(m, (unsigned)access.offset, (uint32_t)value);
}

static const struct bus_ops mmio_ops = {mmio_read, mmio_write};

static void interrupt(void *opaque, int index)
{
	struct virtio_mmio *m = opaque;
	m->virtio->state.isr |= index == VIRTIO_CONFIG ? 2 : 1;
	irq_line_set(&m->line, true);
}

static void transport_reset(struct device *device)
{
	struct virtio_mmio *m = (struct virtio_mmio *)device;
	m->state = (struct virtio_mmio_state){0};
}

static const struct device_ops transport_ops = {1, transport_reset, NULL, NULL};

int virtio_mmio_init(struct virtio_mmio *m, struct virtio_device *d, unsigned index, unsigned place,
		     struct irq_line line, struct bus *bus, struct error *e)
{
	char instance[12];
	snprintf(instance, sizeof(instance), "%u", index);
	*m = (struct virtio_mmio){.virtio = d, .line = line};
	device_init(&m->device, &transport_ops, "virtio-mmio", instance, &m->state,
		    sizeof(m->state));
	virtio_attach(d, index, (struct virtio_wire){interrupt, m});
	uint64_t base = PLATFORM_VIRTIO_MMIO_BASE + place * PLATFORM_VIRTIO_MMIO_BYTES;
	return bus_map_mmio(bus, gpa(base), PLATFORM_VIRTIO_MMIO_BYTES, &mmio_ops, m, d->ops->name,
			    e);
}
