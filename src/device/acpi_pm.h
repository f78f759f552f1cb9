/*
 * ACPI power management registers: the PM1a event and control blocks and the PM timer. ACPI 6.4
 * section 4.8. The machine is always in ACPI mode (SCI_EN reads as 1, there is no SMI command
 * port).
 */
#pragma once

#include "bus/bus.h"
#include "clock/clock.h"
#include "device/device.h"

struct acpi_pm_state {
	uint16_t status, enable, control;
	uint16_t unused;
	uint64_t settled_cycles; /* the timer's status bit is right up to here */
};

struct acpi_pm {
	struct device device;
	struct acpi_pm_state state;
	struct clock *clock; /* borrowed */
	struct irq_line sci;
	struct device_signal power_off;
	struct timer timer;
	unsigned timer_bits; /* 24 or 32: FADT flag TMR_VAL_EXT */
};

int acpi_pm_init(struct acpi_pm *a, struct clock *clock, unsigned timer_bits, struct irq_line sci,
		 struct device_signal power_off, struct bus *bus, struct error *e);

/* Somebody presses the power button: the guest is asked to shut down. False if it has not enabled
 * the event; the status bit waits for it. */
bool acpi_pm_press_power_button(struct acpi_pm *a);
