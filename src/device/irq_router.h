/*
 * The traces on the board between interrupt sources and the controllers: ISA interrupt n reaches
 * pin n of the PICs and pin n of the I/O APIC, but the timer's reaches pin 2 there; 16 to 23 (PCI)
 * reach the I/O APIC only. Several sources may share a line: it is high while any of them holds it.
 */
#pragma once

#include "bus/bus.h"
#include "bus/platform.h"
#include "device/device.h"

struct ioapic;
struct pic;

#define IRQ_SOURCES_MAX 32

struct irq_router_state {
	uint32_t levels[PLATFORM_IOAPIC_PINS]; /* a bit a source */
	uint32_t is_legacy_replaced;	       /* HPET: sources 0 of IRQ 0 and 8 are cut off */
	uint32_t unused;
};

struct irq_router {
	struct device device;
	struct irq_router_state state;
	struct pic *pic;       /* borrowed */
	struct ioapic *ioapic; /* borrowed */
};

void irq_router_init(struct irq_router *r, struct pic *pic, struct ioapic *ioapic);

/* A line for one source. irq 0..23; sources of one irq have different numbers below
 * IRQ_SOURCES_MAX: 0 for the device that owns the ISA interrupt, 1 for the HPET, others free. Out
 * of range gives a line that does nothing. */
struct irq_line irq_router_line(struct irq_router *r, unsigned irq, unsigned source);

/* HPET's LegacyReplacement: timer 0 takes IRQ 0 from the PIT, timer 1 IRQ 8 from the RTC. */
void irq_router_replace_legacy(struct irq_router *r, bool is_replaced);
