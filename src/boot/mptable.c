/*
 * The MultiProcessor tables (Intel MultiProcessor Specification 1.4, chapter 4): floating pointer,
 * configuration table.
 */
#include <errno.h>
#include <stdlib.h>

#include "boot/aml.h"
#include "boot/firmware.h"
#include "bus/platform.h"

#define FLOATING_POINTER_BYTES 16
#define ENTRY_COUNT_OFFSET 34

#define BUS_PCI 0
#define BUS_ISA 1
#define ISA_IRQS 16
#define PCI_SLOTS 32
#define PCI_PINS 4

#define INTERRUPT_VECTORED 0
#define INTERRUPT_NMI 1
#define INTERRUPT_EXTINT 3
#define CONFORMING 0
#define ACTIVE_HIGH_LEVEL 0xd

static unsigned described_cpus(unsigned vcpu_count)
{
	return vcpu_count <= XAPIC_ID_MAX ? vcpu_count : XAPIC_ID_MAX;
}

static unsigned add_processors(struct aml *a, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		aml_u8(a, 0);
		aml_u8(a, i);
		aml_u8(a, 0x14);	   /* APIC version */
		aml_u8(a, i == 0 ? 3 : 1); /* enabled, boot processor */
		aml_u32(a, 0x600);	   /* signature: family 6 */
		aml_u32(a, 0x201);	   /* features: FPU, APIC */
		aml_u64(a, 0);
	}
	return count;
}

static unsigned add_bus(struct aml *a, unsigned id, const char *type)
{
	aml_u8(a, 1);
	aml_u8(a, id);
	aml_put(a, type, 6);
	return 1;
}

static unsigned add_io_apic(struct aml *a)
{
	aml_u8(a, 2);
	aml_u8(a, PLATFORM_IOAPIC_ID);
	aml_u8(a, 0x11);
	aml_u8(a, 1); /* enabled */
	aml_u32(a, PLATFORM_IOAPIC_BASE);
	return 1;
}

/* `entry` 3: to a pin of the I/O APIC `apic`; 4: to LINT `pin` of local APIC `apic` (0xff: all). */
static unsigned add_interrupt(struct aml *a, unsigned entry, unsigned type, unsigned flags,
			      unsigned bus, unsigned irq, unsigned apic, unsigned pin)
{
	aml_u8(a, entry);
	aml_u8(a, type);
	aml_u16(a, flags);
	aml_u8(a, bus);
	aml_u8(a, irq);
	aml_u8(a, apic);
	aml_u8(a, pin);
	return 1;
}

static unsigned add_interrupts(struct aml *a)
{
	unsigned n = 0;
	for (unsigned irq = 0; irq < ISA_IRQS; irq++) {
		if (irq == PLATFORM_IRQ_CASCADE)
			continue;
		n += add_interrupt(a, 3, INTERRUPT_VECTORED,
				   irq == PLATFORM_IRQ_SCI ? ACTIVE_HIGH_LEVEL : CONFORMING,
				   BUS_ISA, irq, PLATFORM_IOAPIC_ID,
				   irq == PLATFORM_IRQ_TIMER ? PLATFORM_TIMER_GSI : irq);
	}
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < PCI_PINS; pin++)
			n += add_interrupt(a, 3, INTERRUPT_VECTORED, CONFORMING, BUS_PCI,
					   slot << 2 | pin, PLATFORM_IOAPIC_ID,
					   PLATFORM_PCI_GSI_FIRST + (slot + pin) % PCI_PINS);
	n += add_interrupt(a, 4, INTERRUPT_EXTINT, CONFORMING, BUS_ISA, 0, 0xff, 0);
	n += add_interrupt(a, 4, INTERRUPT_NMI, CONFORMING, BUS_ISA, 0, 0xff, 1);
	return n;
}

static void add_header(struct aml *a)
{
	aml_put(a, "PCMP", 4);
	aml_u16(a, 0); /* length */
	aml_u8(a, 4);  /* specification 1.4 */
	aml_u8(a, 0);  /* checksum */
	aml_put(a, "GNOMON  ", 8);
	aml_put(a, "VM          ", 12);
	aml_u32(a, 0); /* OEM table */
	aml_u16(a, 0);
	aml_u16(a, 0); /* entry count */
	aml_u32(a, PLATFORM_LAPIC_BASE);
	aml_u32(a, 0); /* no extended table */
}

static void build(struct aml *a, unsigned vcpu_count)
{
	uint8_t pointer[FLOATING_POINTER_BYTES] = "_MP_";
	put_u32(pointer + 4, MP_TABLE_BASE + sizeof(pointer));
	pointer[8] = 1; /* length in paragraphs */
	pointer[9] = 4;
	pointer[10] = firmware_checksum(pointer, sizeof(pointer));
	aml_put(a, pointer, sizeof(pointer));
	add_header(a);
	unsigned n = add_processors(a, described_cpus(vcpu_count));
	n += add_bus(a, BUS_PCI, "PCI   ");
	n += add_bus(a, BUS_ISA, "ISA   ");
	n += add_io_apic(a);
	n += add_interrupts(a);
	assert(!a->overflow);
	uint8_t *table = a->bytes + FLOATING_POINTER_BYTES;
	uint64_t size = a->size - FLOATING_POINTER_BYTES;
	put_u16(table + 4, size);
	put_u16(table + ENTRY_COUNT_OFFSET, n);
	table[7] = firmware_checksum(table, size);
}

int mp_write_table(struct boot_load *l)
{
	struct aml a = {.bytes = calloc(1, MP_TABLE_BYTES), .capacity = MP_TABLE_BYTES};
	if (!a.bytes)
		return error_set(l->error, -ENOMEM, "no host memory for the MP table");
	build(&a, l->config->vcpu_count);
	int r = load_place(l, MP_TABLE_BASE, (struct bytes){a.bytes, a.size}, MP_TABLE_BYTES,
			   "the MP table");
	free(a.bytes);
	return r;
}
