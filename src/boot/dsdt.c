/*
 * The DSDT: \_SB with the processors, the PCI host bridge and below it what sits on the ISA side,
 * and \_S5. It has data only, no methods: a guest spends no time interpreting it.
 */
#include "boot/dsdt.h"

#include <stdio.h>

#include "bus/platform.h"

#define PCI_SLOTS 32
#define PCI_PINS 4

/* Package () {address, pin, 0, GSI} for each pin of each slot. */
static void add_interrupt_routing(struct aml *a)
{
	aml_u8(a, 0x08);
	aml_name(a, "_PRT");
	struct aml_mark table = aml_package(a, PCI_SLOTS * PCI_PINS);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < PCI_PINS; pin++) {
			struct aml_mark route = aml_package(a, 4);
			aml_integer(a, slot << 16 | 0xffff);
			aml_integer(a, pin);
			aml_integer(a, 0);
			aml_integer(a, PLATFORM_PCI_GSI_FIRST + (slot + pin) % PCI_PINS);
			aml_end(a, route);
		}
	aml_end(a, table);
}

static void add_bridge_windows(struct aml *a)
{
	struct aml_resources r = aml_resources(a);
	aml_bus_window(a, 0, PLATFORM_ECAM_BYTES / (1 << 20) - 1);
	aml_io(a, PLATFORM_PCI_ADDRESS_PORT, 8);
	aml_io_window(a, 0, PLATFORM_PCI_ADDRESS_PORT - 1);
	aml_io_window(a, PLATFORM_PCI_ADDRESS_PORT + 8, 0xffff);
	aml_memory_window(a, PLATFORM_PCI_MMIO_BASE,
			  PLATFORM_PCI_MMIO_BASE + PLATFORM_PCI_MMIO_BYTES - 1);
	aml_resources_end(a, r);
}

struct isa_device {
	const char *name, *id;
	unsigned unit;
	uint16_t port;
	uint8_t port_count;
	int irq; /* -1: none */
};

static void add_isa_device(struct aml *a, const struct isa_device *d)
{
	struct aml_mark device = aml_device(a, d->name);
	aml_name_eisa_id(a, "_HID", d->id);
	aml_name_integer(a, "_UID", d->unit);
	aml_name_integer(a, "_STA", 0xf);
	struct aml_resources r = aml_resources(a);
	aml_io(a, d->port, d->port_count);
	if (d->irq >= 0)
		aml_irq(a, (unsigned)d->irq);
	aml_resources_end(a, r);
	aml_end(a, device);
}

static void add_isa_devices(struct aml *a)
{
	static const struct isa_device devices[] = {
		{"RTC", "PNP0B00", 0, PLATFORM_RTC_PORT, 2, PLATFORM_IRQ_RTC},
		{"TIMR", "PNP0100", 0, PLATFORM_PIT_PORT, 4, PLATFORM_IRQ_TIMER},
		{"COM1", "PNP0501", 1, PLATFORM_COM1_PORT, 8, PLATFORM_IRQ_COM1},
		{"COM2", "PNP0501", 2, PLATFORM_COM2_PORT, 8, PLATFORM_IRQ_COM2},
	};
	for (size_t i = 0; i < ARRAY_COUNT(devices); i++)
		add_isa_device(a, &devices[i]);
}

static void add_host_bridge(struct aml *a)
{
	struct aml_mark bridge = aml_device(a, "PCI0");
	aml_name_eisa_id(a, "_HID", "PNP0A08");
	aml_name_eisa_id(a, "_CID", "PNP0A03");
	aml_name_integer(a, "_UID", 0);
	aml_name_integer(a, "_SEG", 0);
	aml_name_integer(a, "_BBN", 0);
	add_bridge_windows(a);
	add_interrupt_routing(a);
	add_isa_devices(a);
	aml_end(a, bridge);
}

/* What is taken but belongs to no driver: the ECAM and the power-management ports. */
static void add_motherboard_resources(struct aml *a)
{
	struct aml_mark board = aml_device(a, "MBRS");
	aml_name_eisa_id(a, "_HID", "PNP0C02");
	aml_name_integer(a, "_UID", 0);
	struct aml_resources r = aml_resources(a);
	aml_io(a, PLATFORM_ACPI_PORT, 16);
	aml_memory32(a, PLATFORM_ECAM_BASE, PLATFORM_ECAM_BYTES);
	aml_resources_end(a, r);
	aml_end(a, board);
}

static void add_hpet(struct aml *a)
{
	struct aml_mark hpet = aml_device(a, "HPET");
	aml_name_eisa_id(a, "_HID", "PNP0103");
	aml_name_integer(a, "_UID", 0);
	struct aml_resources r = aml_resources(a);
	aml_memory32(a, PLATFORM_HPET_BASE, PLATFORM_HPET_BYTES);
	aml_resources_end(a, r);
	aml_end(a, hpet);
}

static void add_processors(struct aml *a, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		char name[8];
		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		struct aml_mark processor = aml_device(a, name);
		aml_name_string(a, "_HID", "ACPI0007");
		aml_name_integer(a, "_UID", i);
		aml_end(a, processor);
	}
}

/* Devices of virtio's MMIO transport, which no guest could find by probing. */
static void add_virtio(struct aml *a, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		char name[8];
		snprintf(name, sizeof(name), "VR%02X", i & 0xff);
		struct aml_mark device = aml_device(a, name);
		aml_name_string(a, "_HID", "LNRO0005");
		aml_name_integer(a, "_UID", i);
		struct aml_resources r = aml_resources(a);
		aml_memory32(a,
			     (uint32_t)(PLATFORM_VIRTIO_MMIO_BASE + i * PLATFORM_VIRTIO_MMIO_BYTES),
			     PLATFORM_VIRTIO_MMIO_BYTES);
		aml_gsi(a, PLATFORM_VIRTIO_MMIO_GSI_FIRST + i % 4);
		aml_resources_end(a, r);
		aml_end(a, device);
	}
}

static void add_power_off(struct aml *a)
{
	aml_u8(a, 0x08);
	aml_name(a, "\\_S5");
	struct aml_mark package = aml_package(a, 4);
	aml_integer(a, PLATFORM_SLP_TYP_S5);
	aml_integer(a, PLATFORM_SLP_TYP_S5);
	aml_integer(a, 0);
	aml_integer(a, 0);
	aml_end(a, package);
}

void dsdt_build(struct aml *a, unsigned vcpu_count, unsigned virtio_mmio_count)
{
	struct aml_mark system = aml_scope(a, "\\_SB");
	add_processors(a, vcpu_count);
	add_motherboard_resources(a);
	add_hpet(a);
	add_host_bridge(a);
	add_virtio(a, virtio_mmio_count);
	aml_end(a, system);
	add_power_off(a);
}
