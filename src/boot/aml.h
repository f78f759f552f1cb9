/*
 * Private to boot/: writing ACPI Machine Language (ACPI 6.4 chapter 20) into a fixed buffer. A
 * write past the end is dropped and remembered in `overflow`, so that callers check once, at the
 * end.
 */
#pragma once

#include "base/types.h"

struct aml {
	uint8_t *bytes;
	size_t size, capacity;
	bool overflow;
};

/* An open package length; aml_end() closes it. They nest. */
struct aml_mark {
	size_t at;
};

void aml_put(struct aml *a, const void *bytes, size_t size);
void aml_u8(struct aml *a, unsigned v);
void aml_u16(struct aml *a, unsigned v);
void aml_u32(struct aml *a, uint32_t v);
void aml_u64(struct aml *a, uint64_t v);

/* A name: segments of four characters, '_'-padded here, separated by '.', optionally rooted:
 * "\\_SB", "PCI0". */
void aml_name(struct aml *a, const char *name);
void aml_integer(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *text);
/* "PNP0A08" in its compressed form. */
void aml_eisa_id(struct aml *a, const char *id);

/* Name (name, value) */
void aml_name_integer(struct aml *a, const char *name, uint64_t v);
void aml_name_eisa_id(struct aml *a, const char *name, const char *id);
void aml_name_string(struct aml *a, const char *name, const char *text);

struct aml_mark aml_scope(struct aml *a, const char *name);
struct aml_mark aml_device(struct aml *a, const char *name);
/* Package () of `count` elements, which follow. */
struct aml_mark aml_package(struct aml *a, unsigned count);
void aml_end(struct aml *a, struct aml_mark mark);

/* Name (_CRS, ResourceTemplate () ...): descriptors follow, ACPI 6.4 chapter 6.4. */
struct aml_resources {
	struct aml_mark package;
	size_t size_at;
};
struct aml_resources aml_resources(struct aml *a);
void aml_resources_end(struct aml *a, struct aml_resources r);
void aml_io(struct aml *a, uint16_t base, uint8_t count);
void aml_irq(struct aml *a, unsigned irq);
/* A shared, level-triggered, active-high line of the I/O APIC. */
void aml_gsi(struct aml *a, unsigned gsi);
void aml_memory32(struct aml *a, uint32_t base, uint32_t size_bytes);
/* Windows of a host bridge: buses, ports, memory; inclusive. */
void aml_bus_window(struct aml *a, uint16_t first, uint16_t last);
void aml_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_memory_window(struct aml *a, uint32_t first, uint32_t last);
