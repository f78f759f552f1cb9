/*
 * Each virtio device, on each transport, under a driver that writes anything anywhere: registers of
 * every width at every offset, configuration space, MSI-X, rings and descriptors, kicks, time, and
 * now and then a save whose load must save the same bytes, or the load of a damaged one.
 *
 * An input begins with a byte that picks device and transport; 8-byte operations follow. So that
 * most inputs come far, one operation sets the device up as a good driver would, and descriptors
 * are made of few places, most of them in memory.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock/clock.h"
#include "memory/memory.h"
#include "virtio/mmio.h"
#include "virtio/pci.h"

#include "devices.h"

#define RAM_BYTES (256u << 10)
#define OPERATIONS_MAX 512
#define FIRES_MAX 64
#define RING_BYTES 0x1000
#define SIZE 8

struct machine {
	struct clock clock;
	struct bus bus;
	struct memory *memory;
	struct virtio_host host;
	struct virtio_device *virtio;
	struct pci_host pci;
	struct virtio_pci on_pci;
	struct virtio_mmio on_mmio;
	struct device *devices[12];
	unsigned device_count;
	uint64_t base; /* of the registers */
	bool is_mmio;
	unsigned interrupt_count;
};

/* What each kind needs to be made; NULL: a disk image; %d: our process. */
static const struct {
	const char *name, *text;
} texts[] = {{"rng", ""},
	     {"net", "loop"},
	     {"blk", NULL},
	     {"console", ""},
	     {"balloon", ""},
	     {"9p", "/etc,readonly=on,server=" SHARE_PROGRAM},
	     {"vsock", "path=/tmp/gnomon-fuzz-%d"}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void line_set(void *opaque, unsigned number, bool level)
{
	(void)number;
	((struct machine *)opaque)->interrupt_count += level;
}

static void message(void *opaque, uint64_t address, uint32_t data)
{
	(void)address;
	(void)data;
	((struct machine *)opaque)->interrupt_count++;
}

static int watch(void *opaque, int fd, void (*ready)(void *, int), void *device)
{
	(void)opaque, (void)fd, (void)ready, (void)device;
	return 0;
}

static void set_waker(void *opaque, int fd, bool is_waker)
{
	(void)opaque, (void)fd, (void)is_waker;
}

static void unwatch(void *opaque, int fd)
{
	(void)opaque, (void)fd;
}

static void add(struct machine *m, struct device *d)
{
	m->devices[m->device_count++] = d;
	device_reset(d);
}

static void make_device(struct machine *m, const struct virtio_row *row)
{
	const char *text = NULL;
	bool is_known = false;
	char whole[4200];
	for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
		if (!strcmp(texts[i].name, row->name)) {
			is_known = true;
			text = texts[i].text;
		}
	must(is_known);
	int fd = text ? -1 : memfd_create("disk", 0);
	must(text || !ftruncate(fd, 65536));
	snprintf(whole, sizeof(whole), text ? text : "/proc/self/fd/%d", text ? (int)getpid() : fd);
	must(!row->create(&m->virtio, whole, &m->host, NULL));
	if (fd >= 0)
		close(fd);
}

static void make_machine(struct machine *m, uint8_t choice)
{
	size_t count = 0;
	while (virtio_row(count))
		count++;
	const struct virtio_row *row = virtio_row(choice % count);
	m->is_mmio = choice >= 128;
	clock_init(&m->clock, CLOCK_VIRTUAL, 1000000000);
	bus_init(&m->bus);
	m->bus.msi = (struct msi_sink){message, m};
	must(!memory_create(&m->memory, RAM_BYTES, NULL));
	m->host = (struct virtio_host){.memory = m->memory,
				       .clock = &m->clock,
				       .watch = watch,
				       .set_waker = set_waker,
				       .unwatch = unwatch};
	make_device(m, row);
	must(!pci_host_init(&m->pci, (struct device_signal){0}, &m->bus, NULL));
	if (m->is_mmio) {
		must(!virtio_mmio_init(&m->on_mmio, m->virtio, 0, 0,
				       (struct irq_line){line_set, m, 0}, &m->bus, NULL));
		m->base = PLATFORM_VIRTIO_MMIO_BASE;
	} else {
		must(!virtio_pci_init(&m->on_pci, m->virtio, 0, &m->pci, 1, NULL));
		must(!pci_host_assign(&m->pci, NULL));
		m->on_pci.line = (struct irq_line){line_set, m, 0};
		m->base = PLATFORM_PCI_MMIO_BASE;
	}
	add(m, &m->virtio->device);
	if (m->virtio->own_bytes)
		add(m, &m->virtio->own);
	if (m->is_mmio) {
		add(m, &m->on_mmio.device);
		return;
	}
	add(m, &m->on_pci.pci.device);
	add(m, &m->on_pci.msix.device);
	add(m, &m->on_pci.device);
}

/* ---- saving ---- */

/* ---- the driver ---- */

static uint64_t ring_at(unsigned queue, unsigned ring)
{
	return 0x4000 + (queue * 3 + ring) * RING_BYTES;
}

static void set_up(struct machine *m, uint64_t refused)
{
	struct virtio_device *d = m->virtio;
	uint64_t features = (d->offered & ~refused) | VIRTIO_F_VERSION_1;
	virtio_write_status(d, 0);
	virtio_write_status(d, 3);
	virtio_write_features(d, 0, (uint32_t)features);
	virtio_write_features(d, 1, (uint32_t)(features >> 32));
	virtio_write_status(d, 11);
	for (unsigned q = 0; q < d->queue_count; q++) {
		virtio_set_queue_size(d, q, SIZE);
		for (unsigned r = 0; r < 3; r++)
			virtio_set_whole_ring(d, q, (enum virtio_ring)r, ring_at(q, r));
		virtio_enable_queue(d, q);
	}
	virtio_write_status(d, 15);
}

static void put(struct machine *m, uint64_t at, const void *bytes, unsigned count)
{
	memory_write(m->memory, gpa(at), bytes, count);
}

/* A descriptor of either format: place, flags and length from the input. */
static void put_descriptor(struct machine *m, const uint8_t *op)
{
	static const uint64_t places[] = {0x30000, 0x38000, 0x3fff0,	0x20000,
					  0x4000,  0x1000,  0xfea00000, UINT64_MAX - 7};
	static const uint32_t sizes[] = {16, 512, 64, 1, 4096, 0, 8, UINT32_MAX};
	unsigned queue = op[1] % (m->virtio->queue_count + 1);
	uint64_t table = queue == m->virtio->queue_count ? 0x20000 : ring_at(queue, 0);
	uint8_t bytes[16];
	uint64_t address = places[op[3] & 7] + (op[3] >> 3) * 16;
	uint32_t size = sizes[op[4] & 7] + (op[4] >> 6);
	uint16_t flags = (uint16_t)((op[5] & 7) | (op[5] & 8) << 4 | (op[5] & 16) << 11);
	uint16_t other = op[6] % (SIZE + 1);
	bool is_packed = virtio_has(m->virtio, VIRTIO_F_PACKED);
	memcpy(bytes, &address, 8);
	memcpy(bytes + 8, &size, 4);
	memcpy(bytes + 12, is_packed ? &other : &flags, 2);
	memcpy(bytes + 14, is_packed ? &flags : &other, 2);
	put(m, table + 16 * (op[2] % SIZE), bytes, sizeof(bytes));
}

/* The next entries of a split ring's available list. */
static void offer(struct machine *m, const uint8_t *op)
{
	unsigned queue = op[1] % m->virtio->queue_count;
	uint16_t index;
	uint64_t base = ring_at(queue, 1);
	must(!memory_read(m->memory, gpa(base + 2), &index, 2));
	for (unsigned i = 0; i <= op[2] % 4u; i++) {
		uint16_t head = op[3 + i] % SIZE;
		put(m, base + 4 + 2 * (index++ % SIZE), &head, 2);
	}
	put(m, base + 2, &index, 2);
}

static void access_registers(struct machine *m, const uint8_t *op, uint64_t value)
{
	static const uint16_t regions[] = {0x0000, 0x0000, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000};
	unsigned bytes = 1u << (op[1] >> 6);
	uint64_t offset = m->is_mmio ? (op[2] | op[3] << 8) & 0x1ff
				     : regions[op[1] % ARRAY_COUNT(regions)] + op[2] % 0x60u;
	if (op[0] & 0x80)
		bus_mmio_write(&m->bus, 0, gpa(m->base + offset), bytes, value);
	else
		bus_mmio_read(&m->bus, 0, gpa(m->base + offset), bytes, NULL);
}

static void access_config_space(struct machine *m, const uint8_t *op, uint64_t value)
{
	gpa_t a = gpa(PLATFORM_ECAM_BASE + (1u << 15) + op[2]);
	unsigned bytes = 1u << (op[1] >> 6) % 3;
	if (op[0] & 0x80)
		bus_mmio_write(&m->bus, 0, a, bytes, value);
	else
		bus_mmio_read(&m->bus, 0, a, bytes, NULL);
}

static void pass_time(struct machine *m)
{
	uint64_t next = clock_next_deadline(&m->clock);
	if (next != CLOCK_NEVER && next > m->clock.now_cycles)
		clock_set(&m->clock, next);
	clock_run_due(&m->clock);
}

static void run_operation(struct machine *m, const uint8_t *op)
{
	uint64_t value = 0;
	memcpy(&value, op + 2, 6);
	switch (op[0] & 15) {
	case 0:
	case 1:
	case 2: access_registers(m, op, value >> 16); break;
	case 3: access_config_space(m, op, value >> 8); break;
	case 4: set_up(m, value << 24); break;
	case 5:
	case 6:
	case 7: put_descriptor(m, op); break;
	case 8:
	case 9: offer(m, op); break;
	case 10:
	case 11:
		virtio_kick(m->virtio, op[1] % m->virtio->queue_count);
		pass_time(m);
		break;
	case 12: put(m, (op[1] | op[2] << 8) & 0x3fff8, op + 3, 5); break;
	case 13: pass_time(m); break;
	case 14: device_reset(m->devices[op[1] % m->device_count]); break;
	default:
		virtio_drain(m->virtio); /* as a machine does before it saves */
		if (op[1] & 1)
			devices_save_load_save(m->devices, m->device_count);
		else
			devices_load_damaged(m->devices, m->device_count, value >> 8, op[1]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = calloc(1, sizeof(*m));
	must(m != NULL);
	make_machine(m, size ? data[0] : 0);
	set_up(m, size > 1 ? (uint64_t)(data[1] & 7) << 28 | (uint64_t)(data[1] & 8) << 31 : 0);
	for (size_t at = 2; at + 8 <= size && at < 8 * OPERATIONS_MAX; at += 8)
		run_operation(m, data + at);
	virtio_drain(m->virtio);
	devices_save_load_save(m->devices, m->device_count);
	for (unsigned i = 0; i < FIRES_MAX && clock_next_deadline(&m->clock) != CLOCK_NEVER; i++)
		pass_time(m);
	for (unsigned i = 0; i < m->device_count; i++)
		device_fini(m->devices[i]);
	must(clock_next_deadline(&m->clock) == CLOCK_NEVER);
	virtio_destroy(m->virtio);
	memory_destroy(m->memory);
	free(m);
	return 0;
}
