/*
 * The keyboard controller with a keyboard and, if wanted, a PS/2 mouse that answer their set-up
 * commands and are never touched: enough for drivers to find them, and for the reset pulse (0xfe to
 * port 0x64) and the A20 gate.
 */
#pragma once

#include "bus/bus.h"
#include "device/device.h"

#define I8042_QUEUE 32

struct i8042_queue {
	uint8_t bytes[I8042_QUEUE];
	uint8_t head, count;
	uint8_t command;    /* of the device: its parameter byte is expected */
	uint8_t is_enabled; /* scanning, reporting */
	uint8_t unused[4];
};

struct i8042_state {
	struct i8042_queue keyboard, mouse;
	uint8_t status;	 /* bits 2 (system flag) and 3 (last write was a command) */
	uint8_t control; /* the command byte, CTR */
	uint8_t output_port;
	uint8_t command; /* that waits for its parameter at 0x60; 0 none */
	uint8_t data;	 /* the output buffer */
	uint8_t is_full;
	uint8_t is_from_mouse;
	uint8_t is_reply; /* the controller's own answer: raises no interrupt while disabled */
	uint8_t ram[32];  /* controller memory, commands 0x20..0x3f and 0x60..0x7f */
	uint8_t scancode_set;
	uint8_t unused[7];
};

struct i8042 {
	struct device device;
	struct i8042_state state;
	struct irq_line keyboard_irq, mouse_irq;
	struct device_signal reset;
	bool has_mouse;
};

int i8042_init(struct i8042 *k, struct irq_line keyboard_irq, struct irq_line mouse_irq,
	       bool has_mouse, struct device_signal reset, struct bus *bus, struct error *e);

/* Scan codes or mouse bytes from outside, all or none: false if there is no room. */
bool i8042_key(struct i8042 *k, const uint8_t *bytes, size_t count);
