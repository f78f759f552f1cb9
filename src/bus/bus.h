/*
 * The bus: who answers at a port or a device-memory address, and how interrupts travel.
 *
 * A device maps ranges and is called with offsets into them; it raises lines and sends messages
 * (MSI) that the board has connected to the interrupt controllers. An access with nobody behind it
 * goes through one counted path: it reads as all ones, and the policy (--unhandled) says whether
 * that is ignored, logged or ends the run.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

/* One access as a device sees it. */
struct bus_access {
	uint64_t offset;     /* from the start of the mapped range */
	unsigned size_bytes; /* 1, 2, 4 or 8 (8 only for MMIO) */
	unsigned vcpu;	     /* index of the vcpu that makes it */
};

struct bus_ops {
	uint64_t (*read)(void *opaque, struct bus_access access);
	void (*write)(void *opaque, struct bus_access access, uint64_t value);
};

/* An interrupt line. The receiver fills it; the device calls irq_line_set. A line with no receiver
 * does nothing. */
struct irq_line {
	void (*set)(void *opaque, unsigned number, bool level);
	void *opaque; /* borrowed */
	unsigned number;
};

static inline void irq_line_set(const struct irq_line *line, bool level)
{
	if (line->set)
		line->set(line->opaque, line->number, level);
}

/* Raise and lower at once: an edge. */
static inline void irq_line_pulse(const struct irq_line *line)
{
	irq_line_set(line, true);
	irq_line_set(line, false);
}

/* Where message-signalled interrupts go (the local APICs). */
struct msi_sink {
	void (*send)(void *opaque, uint64_t address, uint32_t data);
	void *opaque; /* borrowed */
};

enum unhandled_policy { UNHANDLED_IGNORE, UNHANDLED_LOG, UNHANDLED_STOP };

#define BUS_RANGES_MAX 64

struct bus_range {
	uint64_t base;
	uint64_t size;
	const struct bus_ops *ops;
	void *opaque; /* borrowed */
	const char *name;
};

struct bus {
	struct bus_range ports[BUS_RANGES_MAX];
	struct bus_range mmio[BUS_RANGES_MAX];
	unsigned port_range_count;
	unsigned mmio_range_count;
	struct msi_sink msi;
	enum unhandled_policy unhandled;
	uint64_t unhandled_port_count;
	uint64_t unhandled_mmio_count;
	bool stop_requested; /* UNHANDLED_STOP met one; stop_text says which */
	char stop_text[128];
};

void bus_init(struct bus *b);

/* Maps [base, base + size). -EEXIST if it overlaps (the message names both), -ENOSPC. `name` lives
 * as long as the bus. */
int bus_map_ports(struct bus *b, uint16_t base, unsigned count, const struct bus_ops *ops,
		  void *opaque, const char *name, struct error *e);
int bus_map_mmio(struct bus *b, gpa_t base, uint64_t size_bytes, const struct bus_ops *ops,
		 void *opaque, const char *name, struct error *e);
/* Removes the ranges that start at `base` (a PCI BAR that moves). */
void bus_unmap_ports(struct bus *b, uint16_t base);
void bus_unmap_mmio(struct bus *b, gpa_t base);

/* The access itself. An access that straddles two ranges is split by bytes. Returns the value,
 * zero-extended; *handled (may be NULL) says whether a device answered. */
uint64_t bus_port_read(struct bus *b, unsigned vcpu, uint16_t port, unsigned size_bytes,
		       bool *handled);
bool bus_port_write(struct bus *b, unsigned vcpu, uint16_t port, unsigned size_bytes,
		    uint64_t value);
uint64_t bus_mmio_read(struct bus *b, unsigned vcpu, gpa_t a, unsigned size_bytes, bool *handled);
bool bus_mmio_write(struct bus *b, unsigned vcpu, gpa_t a, unsigned size_bytes, uint64_t value);

static inline void bus_msi_send(struct bus *b, uint64_t address, uint32_t data)
{
	if (b->msi.send)
		b->msi.send(b->msi.opaque, address, data);
}
