/*
 * The ACPI tables (ACPI 6.4 chapter 5), laid one behind the other at ACPI_TABLES_BASE. A table is
 * begun, filled and ended; ending it writes its length and checksum, so no table can be left
 * without.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "boot/dsdt.h"
#include "boot/firmware.h"
#include "bus/platform.h"

#define HEADER_BYTES 36
#define RSDP_BYTES 36
#define FADT_BYTES 276
#define FACS_BYTES 64
#define TABLES_MAX 8

/* FADT: what the machine has (IAPC_BOOT_ARCH) and how (Flags). */
#define BOOT_ARCH_LEGACY_DEVICES 0x1
#define BOOT_ARCH_NO_VGA 0x4
#define FADT_WBINVD BIT(0)
#define FADT_C1_ON_ALL BIT(2)
#define FADT_NO_SLEEP_BUTTON BIT(5)
#define FADT_RTC_NO_WAKE BIT(6)
#define FADT_RESET_REGISTER BIT(10)

#define MADT_PCAT_COMPAT 1

struct tables {
	struct aml out; /* AML's writer does for every table */
	uint64_t base;
	uint64_t listed[TABLES_MAX]; /* addresses for RSDT and XSDT */
	unsigned listed_count;
};

uint8_t firmware_checksum(const uint8_t *bytes, uint64_t size)
{
	uint8_t sum = 0;
	for (uint64_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return (uint8_t)-sum;
}

static void align_to(struct tables *t, size_t alignment)
{
	while (t->out.size % alignment && !t->out.overflow)
		aml_u8(&t->out, 0);
}

/* Returns the table's offset. */
static size_t begin_table(struct tables *t, const char *signature, unsigned revision)
{
	align_to(t, 16);
	size_t at = t->out.size;
	aml_put(&t->out, signature, 4);
	aml_u32(&t->out, 0); /* length */
	aml_u8(&t->out, revision);
	aml_u8(&t->out, 0); /* checksum */
	aml_put(&t->out, "GNOMON", 6);
	aml_put(&t->out, "GNOMONVM", 8);
	aml_u32(&t->out, 1);
	aml_put(&t->out, "GNMN", 4);
	aml_u32(&t->out, 1);
	return at;
}

static uint64_t end_table(struct tables *t, size_t at)
{
	if (t->out.overflow)
		return 0;
	uint8_t *table = t->out.bytes + at;
	uint32_t size = (uint32_t)(t->out.size - at);
	put_u32(table + 4, size);
	table[9] = firmware_checksum(table, size);
	return t->base + at;
}

static void list_table(struct tables *t, uint64_t address)
{
	assert(t->listed_count < TABLES_MAX);
	t->listed[t->listed_count++] = address;
}

/* A Generic Address Structure: an I/O port. */
static void put_port(uint8_t *p, unsigned bits_wide, unsigned access_size, uint64_t port)
{
	p[0] = 1;
	p[1] = (uint8_t)bits_wide;
	p[2] = 0;
	p[3] = (uint8_t)access_size;
	put_u64(p + 4, port);
}

static uint64_t add_facs(struct tables *t)
{
	uint8_t facs[FACS_BYTES] = "FACS";
	put_u32(facs + 4, sizeof(facs));
	facs[32] = 2; /* version */
	align_to(t, 64);
	uint64_t address = t->base + t->out.size;
	aml_put(&t->out, facs, sizeof(facs));
	return address;
}

static uint64_t add_dsdt(struct tables *t, const struct boot_config *c)
{
	size_t at = begin_table(t, "DSDT", 2);
	dsdt_build(&t->out, c->vcpu_count, c->virtio_mmio_count);
	return end_table(t, at);
}

/* `f` is the table from its signature on. Offsets: ACPI 6.4 table 5-9. */
static void fill_fadt(uint8_t *f, uint64_t facs, uint64_t dsdt)
{
	put_u32(f + 36, facs);
	put_u32(f + 40, dsdt);
	f[45] = 1; /* preferred profile: desktop */
	put_u16(f + 46, PLATFORM_IRQ_SCI);
	put_u32(f + 56, PLATFORM_PM1A_EVENT_PORT);
	put_u32(f + 64, PLATFORM_PM1A_CONTROL_PORT);
	put_u32(f + 76, PLATFORM_PM_TIMER_PORT);
	f[88] = 4; /* lengths of the three */
	f[89] = 2;
	f[91] = 4;
	put_u16(f + 96, 0xfff); /* no C2, no C3 */
	put_u16(f + 98, 0xfff);
	put_u16(f + 109, BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_NO_VGA);
	put_u32(f + 112, FADT_WBINVD | FADT_C1_ON_ALL | FADT_NO_SLEEP_BUTTON | FADT_RTC_NO_WAKE |
				 FADT_RESET_REGISTER);
	put_port(f + 116, 8, 1, PLATFORM_RESET_PORT);
	f[128] = PLATFORM_RESET_VALUE;
	f[131] = 4; /* minor revision */
	put_u64(f + 140, dsdt);
	put_port(f + 148, 32, 2, PLATFORM_PM1A_EVENT_PORT);
	put_port(f + 172, 16, 2, PLATFORM_PM1A_CONTROL_PORT);
	put_port(f + 208, 32, 3, PLATFORM_PM_TIMER_PORT);
}

static void add_fadt(struct tables *t, uint64_t facs, uint64_t dsdt)
{
	static const uint8_t zeros[FADT_BYTES - HEADER_BYTES];
	size_t at = begin_table(t, "FACP", 6);
	aml_put(&t->out, zeros, sizeof(zeros));
	if (!t->out.overflow)
		fill_fadt(t->out.bytes + at, facs, dsdt);
	list_table(t, end_table(t, at));
}

static void add_local_apic(struct aml *a, unsigned i)
{
	if (i <= XAPIC_ID_MAX) {
		aml_u16(a, 0x0800); /* type 0, 8 bytes */
		aml_u8(a, i);
		aml_u8(a, i);
		aml_u32(a, 1); /* enabled */
		return;
	}
	aml_u16(a, 0x1009); /* type 9 (x2APIC), 16 bytes */
	aml_u16(a, 0);
	aml_u32(a, i);
	aml_u32(a, 1);
	aml_u32(a, i);
}

static void add_override(struct aml *a, unsigned irq, unsigned gsi, unsigned flags)
{
	aml_u16(a, 0x0a02); /* type 2, 10 bytes */
	aml_u8(a, 0);	    /* ISA */
	aml_u8(a, irq);
	aml_u32(a, gsi);
	aml_u16(a, flags);
}

static void add_madt(struct tables *t, unsigned vcpu_count)
{
	struct aml *a = &t->out;
	size_t at = begin_table(t, "APIC", 4);
	aml_u32(a, PLATFORM_LAPIC_BASE);
	aml_u32(a, MADT_PCAT_COMPAT);
	for (unsigned i = 0; i < vcpu_count; i++)
		add_local_apic(a, i);
	aml_u16(a, 0x0c01); /* I/O APIC, 12 bytes */
	aml_u8(a, PLATFORM_IOAPIC_ID);
	aml_u8(a, 0);
	aml_u32(a, PLATFORM_IOAPIC_BASE);
	aml_u32(a, 0); /* first GSI */
	add_override(a, PLATFORM_IRQ_TIMER, PLATFORM_TIMER_GSI, 0);
	add_override(a, PLATFORM_IRQ_SCI, PLATFORM_IRQ_SCI, 0xd); /* active high, level */
	aml_u16(a, 0x0604); /* local APIC NMI, 6 bytes: all processors, LINT1 */
	aml_u8(a, 0xff);
	aml_u16(a, 0);
	aml_u8(a, 1);
	list_table(t, end_table(t, at));
}

static void add_mcfg(struct tables *t)
{
	size_t at = begin_table(t, "MCFG", 1);
	aml_u64(&t->out, 0);
	aml_u64(&t->out, PLATFORM_ECAM_BASE);
	aml_u16(&t->out, 0); /* segment */
	aml_u8(&t->out, 0);
	aml_u8(&t->out, PLATFORM_ECAM_BYTES / (1 << 20) - 1);
	aml_u32(&t->out, 0);
	list_table(t, end_table(t, at));
}

static void add_hpet(struct tables *t)
{
	size_t at = begin_table(t, "HPET", 1);
	aml_u32(&t->out,
		0x8086a201);	   /* Intel, legacy routing, 64 bits, 3 comparators, revision 1 */
	aml_u32(&t->out, 64 << 8); /* GAS: memory, 64 bits wide */
	aml_u64(&t->out, PLATFORM_HPET_BASE);
	aml_u8(&t->out, 0);
	aml_u16(&t->out, 100); /* shortest period without lost interrupts, in ticks */
	aml_u8(&t->out, 0);
	list_table(t, end_table(t, at));
}

static void add_root_tables(struct tables *t)
{
	size_t at = begin_table(t, "RSDT", 1);
	for (unsigned i = 0; i < t->listed_count; i++)
		aml_u32(&t->out, (uint32_t)t->listed[i]);
	uint64_t rsdt = end_table(t, at);
	at = begin_table(t, "XSDT", 1);
	for (unsigned i = 0; i < t->listed_count; i++)
		aml_u64(&t->out, t->listed[i]);
	uint64_t xsdt = end_table(t, at);

	uint8_t *rsdp = t->out.bytes;
	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "GNOMON", 6);
	rsdp[15] = 2;
	put_u32(rsdp + 16, rsdt);
	put_u32(rsdp + 20, RSDP_BYTES);
	put_u64(rsdp + 24, xsdt);
	rsdp[8] = firmware_checksum(rsdp, 20);
	rsdp[32] = firmware_checksum(rsdp, RSDP_BYTES);
}

int acpi_write_tables(struct boot_load *l)
{
	static const uint8_t room_for_rsdp[RSDP_BYTES];
	unsigned vcpu_count = l->config->vcpu_count;
	struct tables t = {.base = ACPI_TABLES_BASE};
	t.out = (struct aml){.bytes = calloc(1, ACPI_TABLES_BYTES), .capacity = ACPI_TABLES_BYTES};
	if (!t.out.bytes)
		return error_set(l->error, -ENOMEM, "no host memory for the ACPI tables");
	aml_put(&t.out, room_for_rsdp, sizeof(room_for_rsdp));
	uint64_t facs = add_facs(&t);
	uint64_t dsdt = add_dsdt(&t, l->config);
	add_fadt(&t, facs, dsdt);
	add_madt(&t, vcpu_count);
	add_mcfg(&t);
	add_hpet(&t);
	add_root_tables(&t);
	int r = 0;
	if (t.out.overflow)
		r = error_set(l->error, -EINVAL,
			      "%u vcpus are more than the ACPI tables can describe", vcpu_count);
	else
		r = load_place(l, ACPI_TABLES_BASE, (struct bytes){t.out.bytes, t.out.size},
			       ACPI_TABLES_BYTES, "the ACPI tables");
	if (!r)
		l->rsdp = ACPI_TABLES_BASE;
	free(t.out.bytes);
	return r;
}
