/*
 * The 8254 interval timer (three channels, 1.193182 MHz) and the part of port 0x61 that belongs to
 * it: channel 2's gate and output, the speaker's gate, and the refresh toggle. Intel 8254 data
 * sheet. Counters are computed from the clock, exactly.
 */
#pragma once

#include "bus/bus.h"
#include "clock/clock.h"
#include "device/device.h"

struct pit_channel {
	uint64_t start_tick; /* when the count that runs was loaded (or its gate rose), in PIT ticks
				since cycle 0 */
	uint64_t paused_ticks; /* modes 0 and 4 with the gate low: how far it had counted */
	uint32_t count;	       /* what it counts from, 1..65536 (BCD: 1..10000) */
	uint32_t next_count; /* written while counting: takes effect at the end of the period (modes
				2, 3) or trigger (1, 5) */
	uint16_t latched;    /* by the latch or read-back command */
	uint8_t latched_bytes; /* how many of them are still to be read */
	uint8_t latched_status, is_status_latched;
	uint8_t control;		     /* RW, mode, BCD as written (bits 5:0) */
	uint8_t write_low;		     /* RW=3: the low byte that waits for the high one */
	uint8_t is_write_high, is_read_high; /* RW=3: which byte is next */
	uint8_t is_null;		     /* no count was written since the control word */
	uint8_t is_counting;		     /* a count is loaded (and, modes 1 and 5, triggered) */
	uint8_t gate;
	uint8_t unused[4];
};

struct pit_state {
	struct pit_channel channel[3];
	uint64_t settled_tick; /* channel 0's edges up to here have been delivered */
	uint8_t speaker;       /* port 0x61 bits 1:0 as written */
	uint8_t unused[7];
};

struct pit {
	struct device device;
	struct pit_state state;
	struct clock *clock; /* borrowed */
	struct irq_line irq; /* channel 0's output */
	struct timer timer;
};

int pit_init(struct pit *p, struct clock *clock, struct irq_line irq, struct bus *bus,
	     struct error *e);
