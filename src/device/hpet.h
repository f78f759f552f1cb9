/*
 * The high precision event timer: one 64-bit counter of 100 MHz, three comparators. IA-PC HPET
 * specification 1.0a.
 */
#pragma once

#include "bus/bus.h"
#include "bus/platform.h"
#include "clock/clock.h"
#include "device/device.h"

#define HPET_TIMERS 3

struct hpet_timer_state {
	uint64_t config; /* the writable bits */
	uint64_t comparator;
	uint64_t period;  /* last value written in periodic mode */
	uint64_t fsb;	  /* address in the high half, data in the low one */
	uint64_t settled; /* the main counter up to which matches were dealt with */
};

struct hpet_state {
	uint64_t config; /* bit 0 enable, bit 1 legacy replacement */
	uint64_t status;
	uint64_t counter; /* main counter at start_cycles; while halted, its value */
	uint64_t start_cycles;
	struct hpet_timer_state timer[HPET_TIMERS];
};

struct hpet;

struct hpet_timer {
	struct hpet *hpet; /* borrowed */
	struct timer timer;
	unsigned number;
};

struct hpet_wires {
	struct irq_line
		lines[PLATFORM_IOAPIC_PINS]; /* by I/O APIC pin; those of `route_mask` are used */
	struct irq_line legacy[2];	     /* IRQ 0 and IRQ 8 when they replace PIT and RTC */
	void (*replace_legacy)(void *opaque, bool is_replaced);
	void *opaque;	     /* borrowed */
	uint32_t route_mask; /* pins a timer may be routed to */
	bool has_fsb;	     /* offers messages (MSI) */
};

struct hpet {
	struct device device;
	struct hpet_state state;
	struct clock *clock; /* borrowed */
	struct bus *bus;     /* borrowed */
	struct hpet_wires wires;
	struct hpet_timer timers[HPET_TIMERS];
};

struct irq_router;

/* The usual wires through the router: pins 20 to 23, legacy replacement, no messages. */
struct hpet_wires hpet_wires_from_router(struct irq_router *r);

int hpet_init(struct hpet *h, struct clock *clock, const struct hpet_wires *wires, struct bus *bus,
	      struct error *e);
