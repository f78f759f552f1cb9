/*
 * Single ports that every PC has and that need no device of their own: the POST code port 0x80 and
 * 0xed (writes are delays), the fast A20 and reset port 0x92, a debug console at 0xe9, and the exit
 * device at 0xf4 (QEMU's isa-debug-exit: a guest under test writes its verdict there).
 */
#pragma once

#include "bus/bus.h"
#include "device/device.h"

struct legacy_ports_state {
	uint8_t post_code; /* last written to 0x80 */
	uint8_t a20;	   /* port 0x92 */
	uint8_t unused[6];
};

struct legacy_ports_wires {
	struct device_signal reset;
	struct device_signal
		debug_exit;	  /* value as written; QEMU's exit code would be (value << 1) | 1 */
	struct byte_sink console; /* port 0xe9 */
	bool has_debug_exit;
	bool has_console; /* a read of 0xe9 gives 0xe9 */
};

struct legacy_ports {
	struct device device;
	struct legacy_ports_state state;
	struct legacy_ports_wires wires;
};

int legacy_ports_init(struct legacy_ports *p, const struct legacy_ports_wires *wires,
		      struct bus *bus, struct error *e);
