/*
 * The I/O APIC: 24 pins, each with a redirection entry that says which message to send. Intel
 * 82093AA data sheet; version 0x20 adds the EOI register (ICH9 data sheet).
 *
 * Levels are logical: `true` is "asserted", whatever polarity bit the guest has written, because
 * what a pin means is agreed in the tables and not measured in volts.
 */
#pragma once

#include "bus/bus.h"
#include "bus/platform.h"
#include "device/device.h"

struct apic_hub;

struct ioapic_state {
	uint64_t redirection[PLATFORM_IOAPIC_PINS];
	uint32_t levels; /* of the pins */
	uint32_t id;	 /* as the register has it, bits 27:24 */
	uint32_t select;
	uint32_t unused;
};

struct ioapic {
	struct device device;
	struct ioapic_state state;
	struct apic_hub *hub; /* borrowed */
	bool has_eoi_register;
};

/* Maps it and makes it the hub's listener for ended interrupts. */
int ioapic_init(struct ioapic *a, struct apic_hub *hub, bool has_eoi_register, struct bus *bus,
		struct error *e);

void ioapic_set_pin(struct ioapic *a, unsigned pin, bool level);
