/*
 * Private to boot/: the tables that a PC's firmware leaves for an operating system, in
 * [FIRMWARE_BASE, FIRMWARE_END), which is RAM that e820 reserves.
 */
#pragma once

#include "boot/load.h"

#define ACPI_TABLES_BASE FIRMWARE_BASE
#define ACPI_TABLES_BYTES 0x1c000ull
#define MP_TABLE_BASE                                                                            \
	(FIRMWARE_BASE + ACPI_TABLES_BYTES) /* 0xfc000: inside what old kernels scan (0xf0000..) \
					     */
#define MP_TABLE_BYTES 0x3000ull

/* Local APIC ids in 8-bit tables end here; 0xff is broadcast. */
#define XAPIC_ID_MAX 0xfdu

/* Builds RSDP (at ACPI_TABLES_BASE), RSDT, XSDT, FADT, FACS, DSDT, MADT, MCFG and HPET; sets
 * l->rsdp. -EINVAL when the tables would not fit (too many vcpus). */
int acpi_write_tables(struct boot_load *l);

/* The Intel MultiProcessor tables (specification 1.4), for kernels that know no ACPI or shall not
 * use it. At most XAPIC_ID_MAX vcpus are described. */
int mp_write_table(struct boot_load *l);

/* The byte that makes `size` bytes sum up to 0. */
uint8_t firmware_checksum(const uint8_t *bytes, uint64_t size);
