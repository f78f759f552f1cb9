#include "virtio/pci.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define VENDOR 0x1af4
#define FIRST_DEVICE_ID 0x1040 /* + the type */
#define REVISION 1

#define BAR_BYTES 0x8000
#define REGION_BYTES 0x1000
#define REGION_COMMON 0x0000
#define REGION_ISR 0x1000
#define REGION_DEVICE 0x2000
#define REGION_DOORBELLS 0x3000
#define REGION_MSIX_TABLE 0x4000
#define REGION_MSIX_PENDING 0x5000
#define DOORBELL_BYTES 4

#define CAPABILITY_VENDOR 0x09
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI_WINDOW };
/* Of a capability: length, type, BAR, ..., offset, length of the region. */
#define CAP_LENGTH 2
#define CAP_TYPE 3
#define CAP_BAR 4
#define CAP_OFFSET 8
#define CAP_REGION_LENGTH 12
#define CAP_EXTRA 16 /* doorbells: the multiplier; window: the data */

/* struct virtio_pci_common_cfg */
enum {
	COMMON_DEVICE_FEATURE_SELECT = 0x00,
	COMMON_DEVICE_FEATURE = 0x04,
	COMMON_DRIVER_FEATURE_SELECT = 0x08,
	COMMON_DRIVER_FEATURE = 0x0c,
	COMMON_CONFIG_VECTOR = 0x10,
	COMMON_QUEUE_COUNT = 0x12,
	COMMON_STATUS = 0x14,
	COMMON_GENERATION = 0x15,
	COMMON_QUEUE_SELECT = 0x16,
	COMMON_QUEUE_SIZE = 0x18,
	COMMON_QUEUE_VECTOR = 0x1a,
	COMMON_QUEUE_ENABLE = 0x1c,
	COMMON_QUEUE_NOTIFY_OFFSET = 0x1e,
	COMMON_QUEUE_DESC = 0x20,
	COMMON_QUEUE_DRIVER = 0x28,
	COMMON_QUEUE_DEVICE = 0x30,
	COMMON_END = 0x38,
};

/* ---- the common configuration ---- */

static uint64_t read_queue(struct virtio_pci *p, unsigned field)
{
	unsigned i = p->state.queue_select;
	const struct virtq *q = virtio_queue(p->virtio, i);
	if (!q)
		return field == COMMON_QUEUE_VECTOR ? VIRTIO_NO_VECTOR : 0;
	switch (field) {
	case COMMON_QUEUE_SIZE: return q->state->size;
	case COMMON_QUEUE_VECTOR: return q->state->vector;
	case COMMON_QUEUE_ENABLE: return q->state->is_enabled;
	case COMMON_QUEUE_NOTIFY_OFFSET: return i;
	case COMMON_QUEUE_DESC: return q->state->desc;
	case COMMON_QUEUE_DRIVER: return q->state->driver;
	case COMMON_QUEUE_DEVICE: return q->state->device;
	default: return 0;
	}
}

static uint64_t read_field(struct virtio_pci *p, unsigned field)
{
	const struct virtio_device *d = p->virtio;
	switch (field) {
	case COMMON_DEVICE_FEATURE_SELECT: return p->state.device_feature_select;
	case COMMON_DEVICE_FEATURE: return virtio_read_features(d, p->state.device_feature_select);
	case COMMON_DRIVER_FEATURE_SELECT: return p->state.driver_feature_select;
	case COMMON_DRIVER_FEATURE:
		return virtio_driver_features(d, p->state.driver_feature_select);
	case COMMON_CONFIG_VECTOR: return d->state.config_vector;
	case COMMON_QUEUE_COUNT: return d->queue_count;
	case COMMON_STATUS: return d->state.status;
	case COMMON_GENERATION: return d->state.config_generation & 0xff;
	case COMMON_QUEUE_SELECT: return p->state.queue_select;
	default: return read_queue(p, field);
	}
}

/* Where the field that holds byte `offset` begins, and its width. */
static unsigned field_of(unsigned offset, unsigned *width)
{
	static const uint8_t starts[] = {0x00, 0x04, 0x08, 0x0c, 0x10, 0x12, 0x14, 0x15, 0x16,
					 0x18, 0x1a, 0x1c, 0x1e, 0x20, 0x28, 0x30, 0x38};
	unsigned i = 0;
	while (i + 2 < ARRAY_COUNT(starts) && starts[i + 1] <= offset)
		i++;
	*width = starts[i + 1] - starts[i];
	return starts[i];
}

/* Any width at any place: drivers use the field's, and halves of the 64-bit ones. */
static uint64_t read_common(struct virtio_pci *p, unsigned offset, unsigned size_bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < size_bytes && offset + i < COMMON_END; i++) {
		unsigned width, field = field_of(offset + i, &width);
		uint64_t byte = read_field(p, field) >> (8 * (offset + i - field)) & 0xff;
		value |= byte << (8 * i);
	}
	return value;
}

static uint16_t valid_vector(const struct virtio_pci *p, uint16_t vector)
{
	return vector < p->msix.vector_count ? vector : VIRTIO_NO_VECTOR;
}

static void write_ring(struct virtio_pci *p, unsigned offset, unsigned size_bytes, uint64_t value)
{
	static const enum virtio_ring rings[] = {VIRTIO_RING_DESC, VIRTIO_RING_DRIVER,
						 VIRTIO_RING_DEVICE};
	enum virtio_ring ring = rings[(offset - COMMON_QUEUE_DESC) / 8];
	if (size_bytes == 8)
		virtio_set_whole_ring(p->virtio, p->state.queue_select, ring, value);
	else if (size_bytes == 4)
		virtio_set_ring(p->virtio, p->state.queue_select, ring, offset & 4,
				(uint32_t)value);
}

static void write_queue(struct virtio_pci *p, unsigned field, uint64_t value)
{
	unsigned i = p->state.queue_select;
	struct virtq *q = virtio_queue(p->virtio, i);
	if (!q)
		return;
	if (field == COMMON_QUEUE_SIZE)
		virtio_set_queue_size(p->virtio, i, (uint16_t)value);
	else if (field == COMMON_QUEUE_VECTOR)
		q->state->vector = valid_vector(p, (uint16_t)value);
	else if (field == COMMON_QUEUE_ENABLE && value == 1)
		virtio_enable_queue(p->virtio, i);
}

/* Only whole fields, as 4.1.3.1 demands of drivers; anything else changes nothing. */
static void write_common(struct virtio_pci *p, unsigned offset, unsigned size_bytes, uint64_t value)
{
	struct virtio_device *d = p->virtio;
	unsigned width, field = field_of(offset, &width);
	if (offset >= COMMON_END)
		return;
	if (field >= COMMON_QUEUE_DESC) {
		if (offset % size_bytes == 0)
			write_ring(p, offset, size_bytes, value);
		return;
	}
	if (offset != field || size_bytes != width)
		return;
	switch (field) {
	case COMMON_DEVICE_FEATURE_SELECT: p->state.device_feature_select = (uint32_t)value; break;
	case COMMON_DRIVER_FEATURE_SELECT: p->state.driver_feature_select = (uint32_t)value; break;
	case COMMON_DRIVER_FEATURE:
		virtio_write_features(d, p->state.driver_feature_select, (uint32_t)value);
		break;
	case COMMON_CONFIG_VECTOR: d->state.config_vector = valid_vector(p, (uint16_t)value); break;
	case COMMON_STATUS:
		virtio_write_status(d, (uint8_t)value);
		if (!value)
			irq_line_set(&p->line, false);
		break;
	case COMMON_QUEUE_SELECT: p->state.queue_select = (uint16_t)value; break;
	default: write_queue(p, field, value); break;
	}
}

/* ---- interrupts ---- */

static void interrupt(void *opaque, int index)
{
	struct virtio_pci *p = opaque;
	struct virtio_device *d = p->virtio;
	if (msix_is_enabled(&p->msix)) {
		uint16_t vector = index == VIRTIO_CONFIG ? d->state.config_vector
							 : d->state.queues[index].vector;
		msix_notify(&p->msix, vector);
		return;
	}
	d->state.isr |= index == VIRTIO_CONFIG ? 2 : 1;
	irq_line_set(&p->line, true);
}

/* Reading acknowledges. */
static uint64_t read_isr(struct virtio_pci *p)
{
	uint64_t value = p->virtio->state.isr;
	p->virtio->state.isr = 0;
	irq_line_set(&p->line, false);
	return value;
}

/* ---- the BAR ---- */

static uint64_t bar_read(void *opaque, struct bus_access access)
{
	struct virtio_pci *p = opaque;
	unsigned offset = (unsigned)access.offset % REGION_BYTES, n = access.size_bytes;
	switch (access.offset - offset) {
	case REGION_COMMON: return read_common(p, offset, n);
	case REGION_ISR: return offset ? 0 : read_isr(p);
	case REGION_DEVICE: return virtio_read_config(p->virtio, offset, n);
	case REGION_MSIX_TABLE: return msix_read_table(&p->msix, offset, n);
	case REGION_MSIX_PENDING: return msix_read_pending(&p->msix, offset, n);
	default: return 0;
	}
}

static void bar_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct virtio_pci *p = opaque;
	unsigned offset = (unsigned)access.offset % REGION_BYTES, n = access.size_bytes;
	switch (access.offset - offset) {
	case REGION_COMMON: write_common(p, offset, n, value); break;
	case REGION_DEVICE: virtio_write_config(p->virtio, offset, n, value); break;
	case REGION_DOORBELLS: virtio_kick(p->virtio, offset / DOORBELL_BYTES); break;
	case REGION_MSIX_TABLE: msix_write_table(&p->msix, offset, n, value); break;
	default: break;
	}
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

/* ---- configuration space ---- */

static uint32_t config32(const struct virtio_pci *p, unsigned offset)
{
	uint32_t v;
	memcpy(&v, &p->pci.config[offset], sizeof(v));
	return v;
}

/* 4.1.4.9: the window's registers say which bytes of the BAR its data stands for. */
static bool window_access(const struct virtio_pci *p, unsigned offset, struct bus_access *out)
{
	uint32_t at = config32(p, p->window + CAP_OFFSET);
	uint32_t n = config32(p, p->window + CAP_REGION_LENGTH);
	*out = (struct bus_access){.offset = at, .size_bytes = n};
	bool is_ours = offset >= p->window + CAP_EXTRA && offset < p->window + CAP_EXTRA + 4;
	return is_ours && !p->pci.config[p->window + CAP_BAR] && (n == 1 || n == 2 || n == 4) &&
	       at % n == 0 && at < BAR_BYTES;
}

static void config_reading(void *opaque, unsigned offset, unsigned size_bytes)
{
	struct virtio_pci *p = opaque;
	struct bus_access access;
	(void)size_bytes;
	if (!window_access(p, offset, &access))
		return;
	uint32_t value = (uint32_t)bar_read(p, access);
	memcpy(&p->pci.config[p->window + CAP_EXTRA], &value, access.size_bytes);
}

static void config_written(void *opaque, unsigned offset, unsigned size_bytes)
{
	struct virtio_pci *p = opaque;
	struct bus_access access;
	(void)size_bytes;
	msix_config_written(&p->msix);
	if (window_access(p, offset, &access))
		bar_write(p, access, config32(p, p->window + CAP_EXTRA));
}

static unsigned add_capability(struct virtio_pci *p, uint8_t type, uint32_t offset, uint32_t length,
			       unsigned extra_bytes)
{
	unsigned size = CAP_EXTRA + extra_bytes;
	unsigned at = pci_device_add_capability(&p->pci, CAPABILITY_VENDOR, size);
	uint8_t *c = &p->pci.config[at];
	c[CAP_LENGTH] = (uint8_t)size;
	c[CAP_TYPE] = type;
	memcpy(c + CAP_OFFSET, &offset, sizeof(offset));
	memcpy(c + CAP_REGION_LENGTH, &length, sizeof(length));
	return at;
}

static void add_capabilities(struct virtio_pci *p)
{
	const uint32_t multiplier = DOORBELL_BYTES;
	add_capability(p, CAP_COMMON, REGION_COMMON, COMMON_END, 0);
	add_capability(p, CAP_ISR, REGION_ISR, 1, 0);
	if (p->virtio->config_bytes)
		add_capability(p, CAP_DEVICE, REGION_DEVICE, p->virtio->config_bytes, 0);
	unsigned at = add_capability(p, CAP_NOTIFY, REGION_DOORBELLS,
				     p->virtio->queue_count * DOORBELL_BYTES, 4);
	memcpy(&p->pci.config[at + CAP_EXTRA], &multiplier, sizeof(multiplier));
	p->window = add_capability(p, CAP_PCI_WINDOW, 0, 0, 4);
	p->pci.writable[p->window + CAP_BAR] = 0xff;
	memset(&p->pci.writable[p->window + CAP_OFFSET], 0xff, 12);
}

/* ---- life ---- */

static void transport_reset(struct device *device)
{
	struct virtio_pci *p = (struct virtio_pci *)device;
	p->state = (struct virtio_pci_state){0};
}

static const struct device_ops transport_ops = {1, transport_reset, NULL, NULL};

int virtio_pci_init(struct virtio_pci *p, struct virtio_device *d, unsigned index,
		    struct pci_host *host, unsigned slot, struct error *e)
{
	char instance[12];
	snprintf(instance, sizeof(instance), "%u", index);
	*p = (struct virtio_pci){.virtio = d};
	device_init(&p->device, &transport_ops, "virtio-pci", instance, &p->state,
		    sizeof(p->state));
	pci_device_init(&p->pci, d->ops->name, VENDOR, (uint16_t)(FIRST_DEVICE_ID + d->ops->type),
			d->ops->class_code, REVISION);
	const uint16_t subsystem[2] = {VENDOR, (uint16_t)(FIRST_DEVICE_ID + d->ops->type)};
	memcpy(&p->pci.config[0x2c], subsystem, sizeof(subsystem));
	pci_device_set_bar(
		&p->pci, 0,
		&(struct pci_bar){.size_bytes = BAR_BYTES, .ops = &bar_ops, .opaque = p});
	pci_device_set_interrupt_pin(&p->pci, 1);
	p->pci.config_reading = config_reading;
	p->pci.config_written = config_written;
	p->pci.opaque = p;
	msix_init(&p->msix, instance, &p->pci, host->bus, d->queue_count + 1, 0, REGION_MSIX_TABLE,
		  REGION_MSIX_PENDING);
	add_capabilities(p);
	virtio_attach(d, index, (struct virtio_wire){interrupt, p});
	return pci_host_add(host, &p->pci, slot, 0, e);
}
