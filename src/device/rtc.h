/*
 * The MC146818 real-time clock and its 128 bytes of CMOS memory. The date is that of the machine's
 * clock (clock.wall_start_s and what has passed since), plus what the guest has set; nothing ticks.
 */
#pragma once

#include "bus/bus.h"
#include "clock/clock.h"
#include "device/device.h"

#define RTC_BYTES 128

struct rtc_state {
	uint8_t cmos[RTC_BYTES]; /* time bytes are only valid while the clock is stopped (SET, or
				    divider in reset) */
	int64_t base_s;		 /* seconds since 1970 at base_cycles */
	uint64_t base_cycles;	 /* a moment at which a second began */
	uint64_t periodic_base_cycles; /* when the divider started */
	uint64_t settled_cycles;       /* flags in register C are right up to here */
	uint8_t index;		       /* port 0x70 */
	uint8_t unused[7];
};

struct rtc {
	struct device device;
	struct rtc_state state;
	struct clock *clock; /* borrowed */
	struct irq_line irq;
	struct timer timer;
	uint64_t ram_bytes;
	unsigned vcpu_count;
};

/* `ram_bytes` and `vcpu_count` show in the CMOS bytes where BIOSes keep them. */
int rtc_init(struct rtc *r, struct clock *clock, struct irq_line irq, uint64_t ram_bytes,
	     unsigned vcpu_count, struct bus *bus, struct error *e);
