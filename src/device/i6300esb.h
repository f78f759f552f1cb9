/*
 * The watchdog of Intel's 6300ESB (data sheet 300641, chapter 17): two timers, one after the other.
 * When the first runs out nothing happens but a bit (its interrupt is not wired), when the second
 * does the machine is reset, unless the driver has reloaded them in time. Writes of the timers and
 * the reload register must be unlocked, each by two writes.
 */
#pragma once

#include "clock/clock.h"
#include "device/pci.h"

struct i6300esb_state {
	uint64_t deadline;	  /* cycles; of the stage that runs */
	uint32_t preload[2];	  /* 20 bits each */
	uint8_t stage;		  /* 0: stopped, 1, 2 */
	uint8_t unlocked;	  /* writes of the sequence seen: 0 to 2 */
	uint8_t is_first_expired; /* the first timer ran out */
	uint8_t has_bitten;	  /* the second did: what a driver finds after the reset */
	uint8_t lock;		  /* the lock register, which a locked one keeps */
	uint8_t unused[3];
};

struct i6300esb {
	struct device device; /* section "i6300esb" */
	struct i6300esb_state state;
	struct pci_device pci;
	struct clock *clock; /* borrowed */
	struct timer timer;
	struct device_signal bite;
};

/* Puts it on the bus as function 0 of `slot`; pci_host_assign() follows. */
int i6300esb_init(struct i6300esb *w, struct clock *clock, struct device_signal bite,
		  struct pci_host *host, unsigned slot, struct error *e);
