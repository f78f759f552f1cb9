/*
 * The PCI host bridge. A configuration space is bytes and masks; what a write means beyond that is
 * where the BARs are mapped, and that is computed anew for all functions whenever a command
 * register or a BAR changes: a BAR that found its place taken gets it when the other one leaves.
 *
 * A device's `config` is its power-on contents, with the BARs that pci_host_assign() chose; what
 * the guest sees and changes is in the host's state, by devfn. The RESET pin copies the one to the
 * other.
 */
#include "device/pci.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"

#define PORTS 8
#define ECAM_FUNCTION_BYTES 4096u

#define REG_COMMAND 0x04
#define REG_STATUS 0x06
#define REG_CACHE_LINE 0x0c
#define REG_HEADER_TYPE 0x0e
#define REG_BAR 0x10
#define REG_BAR_END 0x28
#define REG_INTERRUPT_LINE 0x3c
#define REG_INTERRUPT_PIN 0x3d

#define COMMAND_IO 0x01u
#define COMMAND_MEMORY 0x02u
#define MULTIFUNCTION 0x80u

#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_BITS 0x80fffffcu
#define RESET_CPU 0x04u
#define RESET_BITS 0x0eu

/* Where an access to configuration space goes. */
struct target {
	struct pci_device *device; /* NULL: nobody there */
	uint8_t *config;
	unsigned at;
};

static uint8_t *live_config(const struct pci_device *d)
{
	return d->host->state.config[d->devfn];
}

static uint32_t get_u32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* ---- BARs ---- */

/* Where the BAR shall be mapped; false if it shall not. */
static bool bar_place(const struct pci_device *d, unsigned index, uint64_t *base)
{
	const struct pci_bar *bar = &d->bar[index];
	const uint8_t *config = live_config(d);
	const uint8_t *reg = config + REG_BAR + 4 * index;
	if (!bar->size_bytes || !bar->ops)
		return false;
	if (!(config[REG_COMMAND] & (bar->is_io ? COMMAND_IO : COMMAND_MEMORY)))
		return false;
	uint64_t address = get_u32(reg) & (bar->is_io ? ~3u : ~15u);
	if (bar->is_64bit)
		address |= (uint64_t)get_u32(reg + 4) << 32;
	uint64_t window = bar->is_io ? PLATFORM_PCI_IO_BASE : PLATFORM_PCI_MMIO_BASE;
	uint64_t window_bytes = bar->is_io ? PLATFORM_PCI_IO_COUNT : PLATFORM_PCI_MMIO_BYTES;
	*base = address;
	return address >= window && bar->size_bytes <= window_bytes &&
	       address - window <= window_bytes - bar->size_bytes;
}

static void bar_unmap(struct bus *bus, struct pci_bar *bar)
{
	if (bar->is_io)
		bus_unmap_ports(bus, (uint16_t)bar->mapped_base);
	else
		bus_unmap_mmio(bus, gpa(bar->mapped_base));
	bar->is_mapped = false;
}

static void bar_map(struct bus *bus, struct pci_bar *bar, uint64_t base, const char *name)
{
	int r = bar->is_io ? bus_map_ports(bus, (uint16_t)base, (unsigned)bar->size_bytes, bar->ops,
					   bar->opaque, name, NULL)
			   : bus_map_mmio(bus, gpa(base), bar->size_bytes, bar->ops, bar->opaque,
					  name, NULL);
	bar->is_mapped = !r;
	bar->mapped_base = base;
}

/* First everything leaves that must, then everything comes that may. */
static void map_bars(struct pci_host *h)
{
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned f = 0; f < PCI_FUNCTIONS; f++) {
			struct pci_device *d = h->functions[f];
			for (unsigned i = 0; d && i < PCI_BARS; i++) {
				struct pci_bar *bar = &d->bar[i];
				uint64_t base;
				bool is_wanted = bar_place(d, i, &base);
				if (!pass && bar->is_mapped &&
				    (!is_wanted || base != bar->mapped_base))
					bar_unmap(h->bus, bar);
				if (pass && is_wanted && !bar->is_mapped)
					bar_map(h->bus, bar, base, d->name);
			}
		}
}

/* ---- configuration space ---- */

static struct target find_target(struct pci_host *h, unsigned bus, unsigned devfn, unsigned at)
{
	struct pci_device *d = bus ? NULL : h->functions[devfn];
	return (struct target){d, d ? live_config(d) : NULL, at};
}

/* The part of an access that lies in the function's 256 bytes; what comes after reads as 0. */
static uint64_t config_read(const struct target *t, unsigned size_bytes)
{
	if (!t->device)
		return mask_bytes(size_bytes);
	uint64_t value = 0;
	for (unsigned i = 0; i < size_bytes && t->at + i < PCI_CONFIG_BYTES; i++)
		value |= (uint64_t)t->config[t->at + i] << (8 * i);
	return value;
}

static bool touches(const struct target *t, unsigned size_bytes, unsigned first, unsigned end)
{
	return t->at < end && t->at + size_bytes > first;
}

static void config_write(struct pci_host *h, const struct target *t, unsigned size_bytes,
			 uint64_t value)
{
	struct pci_device *d = t->device;
	if (!d || t->at >= PCI_CONFIG_BYTES)
		return;
	if (size_bytes > PCI_CONFIG_BYTES - t->at)
		size_bytes = PCI_CONFIG_BYTES - t->at;
	for (unsigned i = 0; i < size_bytes; i++) {
		unsigned at = t->at + i;
		uint8_t byte = (uint8_t)(value >> 8 * i), mask = d->writable[at];
		uint8_t kept = t->config[at] & (uint8_t)~mask;
		kept &= (uint8_t) ~(byte & d->write_one_to_clear[at]);
		t->config[at] = kept | (byte & mask);
	}
	if (touches(t, size_bytes, REG_COMMAND, REG_STATUS) ||
	    touches(t, size_bytes, REG_BAR, REG_BAR_END))
		map_bars(h);
	if (d->config_written)
		d->config_written(d->opaque, t->at, size_bytes);
}

/* ---- ports 0xcf8 to 0xcff ---- */

static struct target port_target(struct pci_host *h, struct bus_access access)
{
	uint32_t a = h->state.address;
	if (!(a & ADDRESS_ENABLE))
		return (struct target){0};
	return find_target(h, a >> 16 & 0xff, a >> 8 & 0xff,
			   (a & 0xfc) | ((unsigned)access.offset & 3));
}

static uint64_t ports_read(void *opaque, struct bus_access access)
{
	struct pci_host *h = opaque;
	if (access.offset >= 4) {
		struct target t = port_target(h, access);
		return config_read(&t, access.size_bytes);
	}
	if (!access.offset && access.size_bytes == 4)
		return h->state.address;
	if (access.offset == 1 && access.size_bytes == 1)
		return h->state.reset;
	return mask_bytes(access.size_bytes);
}

/* The reset happens when its bit rises; the others say how hard it shall be. */
static void write_reset(struct pci_host *h, uint8_t value)
{
	bool is_rising = value & RESET_CPU && !(h->state.reset & RESET_CPU);
	h->state.reset = value & RESET_BITS;
	if (is_rising)
		device_signal_raise(&h->reset, value);
}

static void ports_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pci_host *h = opaque;
	if (access.offset >= 4) {
		struct target t = port_target(h, access);
		config_write(h, &t, access.size_bytes, value);
	} else if (!access.offset && access.size_bytes == 4) {
		h->state.address = (uint32_t)value & ADDRESS_BITS;
	} else if (access.offset == 1 && access.size_bytes == 1) {
		write_reset(h, (uint8_t)value);
	}
}

/* ---- the memory-mapped window ---- */

/* bus << 20 | devfn << 12 | register. An access that leaves the function's page is cut. */
static struct target ecam_target(struct pci_host *h, struct bus_access *access)
{
	unsigned at = access->offset % ECAM_FUNCTION_BYTES;
	if (access->size_bytes > ECAM_FUNCTION_BYTES - at)
		access->size_bytes = ECAM_FUNCTION_BYTES - at;
	return find_target(h, access->offset >> 20 & 0xff, access->offset >> 12 & 0xff, at);
}

static uint64_t ecam_read(void *opaque, struct bus_access access)
{
	struct target t = ecam_target(opaque, &access);
	return config_read(&t, access.size_bytes);
}

static void ecam_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct target t = ecam_target(opaque, &access);
	config_write(opaque, &t, access.size_bytes, value);
}

/* ---- devices ---- */

void pci_device_init(struct pci_device *d, const char *name, uint16_t vendor, uint16_t device,
		     uint32_t class_code, uint8_t revision)
{
	memset(d, 0, sizeof(*d));
	d->name = name;
	put_u32(d->config, vendor | (uint32_t)device << 16);
	put_u32(d->config + 8, revision | class_code << 8);
	d->writable[REG_COMMAND] = 0x47;     /* I/O, memory, bus master, parity */
	d->writable[REG_COMMAND + 1] = 0x05; /* SERR, INTx disable */
	d->writable[REG_CACHE_LINE] = 0xff;
	d->writable[REG_INTERRUPT_LINE] = 0xff;
	d->write_one_to_clear[REG_STATUS + 1] = 0xf9;
}

void pci_device_set_bar(struct pci_device *d, unsigned index, const struct pci_bar *bar)
{
	if (index >= PCI_BARS)
		return;
	d->bar[index] = *bar;
	d->bar[index].is_mapped = false;
	unsigned at = REG_BAR + 4 * index;
	uint64_t mask = ~(bar->size_bytes - 1);
	uint32_t type = bar->is_io ? 1 : bar->is_64bit ? 4 : 0;
	put_u32(d->config + at, type);
	put_u32(d->writable + at, (uint32_t)mask & (bar->is_io ? ~3u : ~15u));
	if (bar->is_64bit && index + 1 < PCI_BARS)
		put_u32(d->writable + at + 4, (uint32_t)(mask >> 32));
}

void pci_device_set_interrupt_pin(struct pci_device *d, unsigned pin)
{
	d->config[REG_INTERRUPT_PIN] = (uint8_t)(pin <= 4 ? pin : 0);
}

unsigned pci_device_gsi(const struct pci_device *d)
{
	unsigned pin = d->config[REG_INTERRUPT_PIN];
	return PLATFORM_PCI_GSI_FIRST + ((d->devfn >> 3) + (pin ? pin - 1 : 0)) % 4;
}

static int check_bars(const struct pci_device *d, struct error *e)
{
	for (unsigned i = 0; i < PCI_BARS; i++) {
		const struct pci_bar *bar = &d->bar[i];
		uint64_t least = bar->is_io ? 4 : 16;
		if (!bar->size_bytes)
			continue;
		if (!is_power_of_two(bar->size_bytes) || bar->size_bytes < least)
			return error_set(e, -EINVAL, "%s: BAR %u of %llu bytes", d->name, i,
					 (unsigned long long)bar->size_bytes);
		if (bar->is_64bit && (bar->is_io || i + 1 == PCI_BARS || d->bar[i + 1].size_bytes))
			return error_set(e, -EINVAL, "%s: BAR %u cannot be a 64-bit one", d->name,
					 i);
	}
	return 0;
}

int pci_host_add(struct pci_host *h, struct pci_device *d, unsigned slot, unsigned function,
		 struct error *e)
{
	if (slot > 31 || function > 7)
		return error_set(e, -EINVAL, "%s: there is no PCI place %u.%u", d->name, slot,
				 function);
	unsigned devfn = slot << 3 | function;
	if (h->functions[devfn])
		return error_set(e, -EEXIST, "%s: PCI place %u.%u is taken by %s", d->name, slot,
				 function, h->functions[devfn]->name);
	int r = check_bars(d, e);
	if (r)
		return r;
	d->host = h;
	d->devfn = (uint8_t)devfn;
	if (d->config[REG_INTERRUPT_PIN])
		d->config[REG_INTERRUPT_LINE] = (uint8_t)pci_device_gsi(d);
	h->functions[devfn] = d;
	memcpy(live_config(d), d->config, PCI_CONFIG_BYTES);
	struct pci_device *first = h->functions[slot << 3];
	for (unsigned i = 1; first && i < 8; i++)
		if (h->functions[slot << 3 | i]) {
			first->config[REG_HEADER_TYPE] |= MULTIFUNCTION;
			live_config(first)[REG_HEADER_TYPE] |= MULTIFUNCTION;
		}
	map_bars(h);
	return 0;
}

/* Takes the next aligned place of a window [*next, end). */
static int assign_bar(struct pci_device *d, unsigned index, uint64_t *next, uint64_t end,
		      struct error *e)
{
	const struct pci_bar *bar = &d->bar[index];
	uint64_t base = align_up(*next, bar->size_bytes);
	if (base < *next || base > end || bar->size_bytes > end - base)
		return error_set(e, -ENOSPC, "%s: no room for BAR %u of %llu bytes", d->name, index,
				 (unsigned long long)bar->size_bytes);
	*next = base + bar->size_bytes;
	uint8_t *reg = d->config + REG_BAR + 4 * index;
	put_u32(reg, (uint32_t)base | (reg[0] & (bar->is_io ? 3 : 15)));
	d->config[REG_COMMAND] |= bar->is_io ? COMMAND_IO : COMMAND_MEMORY;
	return 0;
}

static void copy_configs(struct pci_host *h)
{
	memset(h->state.config, 0, sizeof(h->state.config));
	for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
		if (h->functions[f])
			memcpy(h->state.config[f], h->functions[f]->config, PCI_CONFIG_BYTES);
	map_bars(h);
}

int pci_host_assign(struct pci_host *h, struct error *e)
{
	uint64_t next[2] = {PLATFORM_PCI_MMIO_BASE, PLATFORM_PCI_IO_BASE};
	uint64_t end[2] = {PLATFORM_PCI_MMIO_BASE + PLATFORM_PCI_MMIO_BYTES,
			   PLATFORM_PCI_IO_BASE + PLATFORM_PCI_IO_COUNT};
	for (unsigned f = 0; f < PCI_FUNCTIONS; f++) {
		struct pci_device *d = h->functions[f];
		for (unsigned i = 0; d && i < PCI_BARS; i++) {
			bool is_io = d->bar[i].is_io;
			int r = d->bar[i].size_bytes ? assign_bar(d, i, &next[is_io], end[is_io], e)
						     : 0;
			if (r)
				return r;
		}
	}
	copy_configs(h);
	return 0;
}

/* ---- the host ---- */

static void pci_host_reset(struct device *d)
{
	struct pci_host *h = (struct pci_host *)d;
	h->state.address = 0;
	h->state.reset = 0;
	memset(h->state.unused, 0, sizeof(h->state.unused));
	copy_configs(h);
}

/* What no guest can change must be what this machine has; BARs go where the registers say. */
static int pci_host_resume(struct device *device, struct error *e)
{
	struct pci_host *h = (struct pci_host *)device;
	for (unsigned f = 0; f < PCI_FUNCTIONS; f++) {
		const struct pci_device *d = h->functions[f];
		if (d && memcmp(h->state.config[f], d->config, 4))
			return error_set(e, -EINVAL, "another PCI device was at %u.%u than %s",
					 f >> 3, f & 7, d->name);
		for (unsigned i = REG_BAR; d && i < REG_BAR_END; i++)
			if ((h->state.config[f][i] ^ d->config[i]) & ~d->writable[i])
				return error_set(e, -EINVAL, "%s: other BARs than this one's",
						 d->name);
	}
	h->state.address &= ADDRESS_BITS;
	h->state.reset &= RESET_BITS;
	map_bars(h);
	return 0;
}

int pci_host_init(struct pci_host *h, struct device_signal reset, struct bus *bus, struct error *e)
{
	static const struct device_ops ops = {
		.version = 1, .reset = pci_host_reset, .resume = pci_host_resume};
	static const struct bus_ops ports = {ports_read, ports_write},
				    ecam = {ecam_read, ecam_write};
	memset(h, 0, sizeof(*h));
	h->reset = reset;
	h->bus = bus;
	device_init(&h->device, &ops, "pci", NULL, &h->state, sizeof(h->state));
	/* QEMU's generic host bridge, which no driver has quirks for, and ICH9's LPC bridge. */
	pci_device_init(&h->bridge, "PCI host bridge", 0x1b36, 0x0008, 0x060000, 0);
	pci_device_init(&h->isa, "ISA bridge", 0x8086, 0x2918, 0x060100, 2);
	int r = pci_host_add(h, &h->bridge, 0, 0, e);
	if (!r)
		r = pci_host_add(h, &h->isa, 31, 0, e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_PCI_ADDRESS_PORT, PORTS, &ports, h, "pci", e);
	if (!r)
		r = bus_map_mmio(bus, gpa(PLATFORM_ECAM_BASE), PLATFORM_ECAM_BYTES, &ecam, h,
				 "pci ecam", e);
	return r;
}
