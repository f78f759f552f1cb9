/*
 * Configuration space, its two ways in, and the BARs' places on the bus. A function's configuration
 * is bytes and masks; whatever the guest writes, the masks say what changes, and afterwards the
 * BARs are mapped again where they now belong.
 */
#include "device/pci.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"

#define CONFIG_COMMAND 0x04
#define CONFIG_STATUS 0x06
#define CONFIG_CLASS 0x08
#define CONFIG_CACHE_LINE 0x0c
#define CONFIG_LATENCY 0x0d
#define CONFIG_HEADER_TYPE 0x0e
#define CONFIG_BARS 0x10
#define CONFIG_CAPABILITIES 0x34
#define CONFIG_INTERRUPT_LINE 0x3c
#define CONFIG_INTERRUPT_PIN 0x3d

#define COMMAND_IO 0x0001u
#define COMMAND_MEMORY 0x0002u
#define COMMAND_WRITABLE 0x0547u /* I/O, memory, master, parity, SERR, INTx off */
#define STATUS_CAPABILITIES 0x10u
#define FIRST_CAPABILITY 0x40
#define BAR_IO 0x1u
#define BAR_64BIT 0x4u

#define ADDRESS_ENABLE 0x80000000u
#define RESET_NOW 0x04u

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static void store(uint8_t *p, uint64_t v, unsigned size_bytes)
{
	memcpy(p, &v, size_bytes);
}

/* ---- BARs ---- */

static uint64_t bar_base(const struct pci_device *d, unsigned i)
{
	const struct pci_bar *bar = &d->bar[i];
	uint64_t value = load32(&d->config[CONFIG_BARS + 4 * i]);
	if (bar->is_io)
		return value & ~3ull;
	if (bar->is_64bit)
		value |= (uint64_t)load32(&d->config[CONFIG_BARS + 4 * i + 4]) << 32;
	return value & ~15ull;
}

static bool is_inside(uint64_t base, uint64_t size, uint64_t window, uint64_t window_size)
{
	return base >= window && size <= window_size && base - window <= window_size - size;
}

/* Nowhere but in the windows that the tables name: RAM and the other devices cannot be covered. */
static bool bar_may_be_mapped(const struct pci_device *d, unsigned i)
{
	const struct pci_bar *bar = &d->bar[i];
	uint32_t command = load32(&d->config[CONFIG_COMMAND]);
	uint64_t base = bar_base(d, i);
	if (bar->is_io)
		return (command & COMMAND_IO) &&
		       is_inside(base, bar->size_bytes, PLATFORM_PCI_IO_BASE,
				 PLATFORM_PCI_IO_COUNT);
	return (command & COMMAND_MEMORY) &&
	       is_inside(base, bar->size_bytes, PLATFORM_PCI_MMIO_BASE, PLATFORM_PCI_MMIO_BYTES);
}

static void bar_unmap(struct pci_device *d, struct pci_bar *bar)
{
	if (!bar->is_mapped)
		return;
	if (bar->is_io)
		bus_unmap_ports(d->host->bus, (uint16_t)bar->mapped_base);
	else
		bus_unmap_mmio(d->host->bus, gpa(bar->mapped_base));
	bar->is_mapped = false;
}

/* Two BARs at one place: the second is not there until the first has gone. */
static void bar_remap(struct pci_device *d, unsigned i)
{
	struct pci_bar *bar = &d->bar[i];
	if (!bar->size_bytes || !d->host)
		return;
	bool is_wanted = bar_may_be_mapped(d, i);
	uint64_t base = bar_base(d, i);
	if (bar->is_mapped && is_wanted && bar->mapped_base == base)
		return;
	bar_unmap(d, bar);
	if (!is_wanted)
		return;
	int r = bar->is_io ? bus_map_ports(d->host->bus, (uint16_t)base, (unsigned)bar->size_bytes,
					   bar->ops, bar->opaque, d->name, NULL)
			   : bus_map_mmio(d->host->bus, gpa(base), bar->size_bytes, bar->ops,
					  bar->opaque, d->name, NULL);
	bar->is_mapped = !r;
	bar->mapped_base = base;
}

/* All functions, because a place that one has left may be another's. */
static void remap_all(struct pci_host *h)
{
	for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
		for (unsigned i = 0; h->functions[f] && i < PCI_BARS; i++)
			bar_remap(h->functions[f], i);
}

/* ---- configuration space ---- */

static uint8_t config_read_byte(const struct pci_host *h, unsigned devfn, unsigned offset)
{
	const struct pci_device *d = h->functions[devfn];
	if (!d)
		return 0xff;
	return offset < PCI_CONFIG_BYTES ? d->config[offset] : 0;
}

static uint64_t config_read(const struct pci_host *h, unsigned devfn, unsigned offset,
			    unsigned size_bytes)
{
	uint64_t value = 0;
	const struct pci_device *d = h->functions[devfn];
	if (d && d->config_reading && offset < PCI_CONFIG_BYTES)
		d->config_reading(d->opaque, offset, size_bytes);
	for (unsigned i = 0; i < size_bytes; i++)
		value |= (uint64_t)config_read_byte(h, devfn, offset + i) << (8 * i);
	return value;
}

static void config_write(struct pci_host *h, unsigned devfn, unsigned offset, unsigned size_bytes,
			 uint64_t value)
{
	struct pci_device *d = h->functions[devfn];
	if (!d)
		return;
	bool is_mapping = false;
	for (unsigned i = 0; i < size_bytes && offset + i < PCI_CONFIG_BYTES; i++) {
		unsigned at = offset + i;
		uint8_t byte = (uint8_t)(value >> (8 * i)), old = d->config[at];
		d->config[at] = (old & (uint8_t)~d->writable[at]) | (byte & d->writable[at]);
		d->config[at] &= (uint8_t) ~(byte & d->write_one_to_clear[at]);
		is_mapping |= at == CONFIG_COMMAND || (at >= CONFIG_BARS && at < CONFIG_BARS + 24);
	}
	if (is_mapping)
		remap_all(h);
	if (d->config_written && offset < PCI_CONFIG_BYTES)
		d->config_written(d->opaque, offset, size_bytes);
}

static uint64_t ecam_read(void *opaque, struct bus_access access)
{
	/* Bus 0 only; whatever crosses into the next function reads there as a bus would not. */
	if (access.offset >> 20)
		return UINT64_MAX;
	return config_read(opaque, (unsigned)(access.offset >> 12), (unsigned)access.offset & 0xfff,
			   access.size_bytes);
}

static void ecam_write(void *opaque, struct bus_access access, uint64_t value)
{
	if (access.offset >> 20)
		return;
	config_write(opaque, (unsigned)(access.offset >> 12), (unsigned)access.offset & 0xfff,
		     access.size_bytes, value);
}

/* ---- ports 0xcf8 to 0xcff ---- */

static bool selected(const struct pci_host *h, unsigned *devfn)
{
	*devfn = (h->state.address >> 8) & 0xff;
	return (h->state.address & ADDRESS_ENABLE) && !(h->state.address >> 16 & 0xff);
}

static uint64_t ports_read(void *opaque, struct bus_access access)
{
	const struct pci_host *h = opaque;
	unsigned offset = (unsigned)access.offset, devfn;
	if (offset == 0 && access.size_bytes == 4)
		return h->state.address;
	if (offset == 1 && access.size_bytes == 1)
		return h->state.reset;
	if (offset < 4)
		return UINT64_MAX;
	if (!selected(h, &devfn))
		return UINT64_MAX;
	return config_read(h, devfn, (h->state.address & 0xfc) + offset - 4, access.size_bytes);
}

/* Bit 2 rising resets the machine; bit 1 says how hard, which is the same here. */
static void write_reset(struct pci_host *h, uint8_t value)
{
	bool is_rising = (value & RESET_NOW) && !(h->state.reset & RESET_NOW);
	h->state.reset = value & 0x0e;
	if (is_rising)
		device_signal_raise(&h->reset, 0);
}

static void ports_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pci_host *h = opaque;
	unsigned offset = (unsigned)access.offset, devfn;
	if (offset == 0 && access.size_bytes == 4)
		h->state.address = (uint32_t)value & ~(0x7f000003u);
	else if (offset == 1 && access.size_bytes == 1)
		write_reset(h, (uint8_t)value);
	else if (offset >= 4 && selected(h, &devfn))
		config_write(h, devfn, (h->state.address & 0xfc) + offset - 4, access.size_bytes,
			     value);
}

static const struct bus_ops ports_ops = {ports_read, ports_write};
static const struct bus_ops ecam_ops = {ecam_read, ecam_write};

/* ---- devices ---- */

void pci_device_init(struct pci_device *d, const char *name, uint16_t vendor, uint16_t device,
		     uint32_t class_code, uint8_t revision)
{
	*d = (struct pci_device){.name = name};
	store(&d->config[0], vendor, 2);
	store(&d->config[2], device, 2);
	store(&d->config[CONFIG_CLASS], (uint64_t)class_code << 8 | revision, 4);
	store(&d->writable[CONFIG_COMMAND], COMMAND_WRITABLE, 2);
	store(&d->write_one_to_clear[CONFIG_STATUS], 0xf900, 2);
	d->writable[CONFIG_CACHE_LINE] = 0xff;
	d->writable[CONFIG_LATENCY] = 0xff;
	d->writable[CONFIG_INTERRUPT_LINE] = 0xff;
}

void pci_device_set_bar(struct pci_device *d, unsigned index, const struct pci_bar *bar)
{
	if (index >= PCI_BARS)
		return;
	unsigned at = CONFIG_BARS + 4 * index;
	uint64_t writable = ~(bar->size_bytes - 1);
	d->bar[index] = *bar;
	d->bar[index].is_mapped = false;
	store(&d->writable[at], (uint32_t)writable & ~(bar->is_io ? 3u : 15u), 4);
	store(&d->config[at], bar->is_io ? BAR_IO : bar->is_64bit ? BAR_64BIT : 0, 4);
	if (bar->is_64bit && !bar->is_io && index + 1 < PCI_BARS)
		store(&d->writable[at + 4], writable >> 32, 4);
}

unsigned pci_device_add_capability(struct pci_device *d, uint8_t id, unsigned size_bytes)
{
	unsigned at = d->capability_end ? d->capability_end : FIRST_CAPABILITY;
	assert(at + size_bytes <= PCI_CONFIG_BYTES);
	d->config[at] = id;
	d->config[at + 1] = d->config[CONFIG_CAPABILITIES];
	d->config[CONFIG_CAPABILITIES] = (uint8_t)at;
	d->config[CONFIG_STATUS] |= STATUS_CAPABILITIES;
	d->capability_end = (uint8_t)align_up(at + size_bytes, 4);
	return at;
}

void pci_device_set_interrupt_pin(struct pci_device *d, unsigned pin)
{
	d->config[CONFIG_INTERRUPT_PIN] = (uint8_t)(pin > 4 ? 0 : pin);
}

unsigned pci_device_gsi(const struct pci_device *d)
{
	unsigned pin = d->config[CONFIG_INTERRUPT_PIN];
	return PLATFORM_PCI_GSI_FIRST + ((d->devfn >> 3) + (pin ? pin - 1 : 0)) % 4;
}

static void pci_device_fini(struct device *device)
{
	struct pci_device *d = (struct pci_device *)device;
	for (unsigned i = 0; i < PCI_BARS; i++)
		bar_unmap(d, &d->bar[i]);
}

static void pci_device_reset(struct device *device)
{
	struct pci_device *d = (struct pci_device *)device;
	memcpy(d->config, d->power_on, sizeof(d->config));
	remap_all(d->host);
}

/* What a guest cannot write cannot have changed. */
static int pci_device_resume(struct device *device, struct error *e)
{
	struct pci_device *d = (struct pci_device *)device;
	for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
		uint8_t fixed = (uint8_t) ~(d->writable[i] | d->write_one_to_clear[i]);
		if ((d->config[i] ^ d->power_on[i]) & fixed)
			return error_set(e, -EINVAL, "byte %#x is not this device's", i);
	}
	remap_all(d->host);
	return 0;
}

static const struct device_ops pci_device_ops = {1, pci_device_reset, pci_device_resume,
						 pci_device_fini};

static int check_bars(const struct pci_device *d, struct error *e)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *bar = &d->bar[i];
		uint64_t least = bar->is_io ? 4 : 16;
		if (!bar->size_bytes)
			continue;
		bool is_last = i + 1 == PCI_BARS;
		if (!is_power_of_two(bar->size_bytes) || bar->size_bytes < least ||
		    (bar->is_io && bar->size_bytes > 256) ||
		    (bar->is_64bit && (bar->is_io || is_last || d->bar[i + 1].size_bytes)) ||
		    (!bar->is_64bit && bar->size_bytes > 0x80000000u))
			return error_set(e, -EINVAL, "PCI device %s: BAR %u is impossible", d->name,
					 i);
	}
	return 0;
}

int pci_host_add(struct pci_host *h, struct pci_device *d, unsigned slot, unsigned function,
		 struct error *e)
{
	if (slot > 31 || function > 7)
		return error_set(e, -EINVAL, "PCI device %s: no slot %u.%u", d->name, slot,
				 function);
	unsigned devfn = slot << 3 | function;
	if (h->functions[devfn])
		return error_set(e, -EEXIST, "PCI slot %u.%u: %s and %s", slot, function,
				 h->functions[devfn]->name, d->name);
	int r = check_bars(d, e);
	if (r)
		return r;
	char instance[16];
	snprintf(instance, sizeof(instance), "%02x.%u", slot, function);
	device_init(&d->device, &pci_device_ops, "pci", instance, d->config, sizeof(d->config));
	d->host = h;
	d->devfn = (uint8_t)devfn;
	h->functions[devfn] = d;
	struct pci_device *first = h->functions[slot << 3];
	if (function && first)
		first->power_on[CONFIG_HEADER_TYPE] = first->config[CONFIG_HEADER_TYPE] |= 0x80;
	memcpy(d->power_on, d->config, sizeof(d->config));
	return 0;
}

int pci_host_assign(struct pci_host *h, struct error *e)
{
	uint64_t io = PLATFORM_PCI_IO_BASE, memory = PLATFORM_PCI_MMIO_BASE;
	for (unsigned f = 0; f < PCI_FUNCTIONS; f++) {
		struct pci_device *d = h->functions[f];
		uint16_t command = 0;
		for (unsigned i = 0; d && i < PCI_BARS; i++) {
			struct pci_bar *bar = &d->bar[i];
			if (!bar->size_bytes)
				continue;
			uint64_t *next = bar->is_io ? &io : &memory;
			uint64_t base = align_up(*next, bar->size_bytes);
			uint8_t *reg = &d->config[CONFIG_BARS + 4 * i];
			store(reg, base | (load32(reg) & (bar->is_io ? 3 : 15)),
			      bar->is_64bit ? 8 : 4);
			*next = base + bar->size_bytes;
			command |= bar->is_io ? COMMAND_IO : COMMAND_MEMORY;
		}
		if (command)
			store(&d->config[CONFIG_COMMAND], command, 2);
		if (d && d->config[CONFIG_INTERRUPT_PIN])
			d->config[CONFIG_INTERRUPT_LINE] = (uint8_t)pci_device_gsi(d);
		if (d)
			memcpy(d->power_on, d->config, sizeof(d->config));
	}
	if (io > PLATFORM_PCI_IO_BASE + PLATFORM_PCI_IO_COUNT ||
	    memory > PLATFORM_PCI_MMIO_BASE + PLATFORM_PCI_MMIO_BYTES)
		return error_set(e, -ENOSPC, "the PCI devices' BARs do not fit into the windows");
	remap_all(h);
	return 0;
}

/* ---- the host bridge itself ---- */

static void pci_host_reset(struct device *d)
{
	memset(d->state, 0, d->state_bytes);
}

static const struct device_ops pci_host_ops = {1, pci_host_reset, NULL, NULL};

int pci_host_init(struct pci_host *h, struct device_signal reset, struct bus *bus, struct error *e)
{
	*h = (struct pci_host){.reset = reset, .bus = bus};
	device_init(&h->device, &pci_host_ops, "pci", NULL, &h->state, sizeof(h->state));
	/* Q35's host bridge and ICH9's ISA bridge, whose drivers ask for nothing more. */
	pci_device_init(&h->bridge, "PCI host bridge", 0x8086, 0x29c0, 0x060000, 0);
	pci_device_init(&h->isa, "ISA bridge", 0x8086, 0x2918, 0x060100, 2);
	int r = pci_host_add(h, &h->bridge, 0, 0, e);
	if (!r)
		r = pci_host_add(h, &h->isa, 31, 0, e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_PCI_ADDRESS_PORT, 8, &ports_ops, h, "PCI", e);
	if (!r)
		r = bus_map_mmio(bus, gpa(PLATFORM_ECAM_BASE), PLATFORM_ECAM_BYTES, &ecam_ops, h,
				 "PCI ECAM", e);
	return r;
}
