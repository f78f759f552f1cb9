/*
 * pvpanic on PCI (QEMU's docs/specs/pvpanic.txt): one register by which a guest's kernel says that
 * it has panicked. It has nothing to remember, so its section is its configuration space.
 */
#pragma once

#include "device/pci.h"

#define PVPANIC_PANICKED 1u
#define PVPANIC_CRASH_LOADED 2u /* a crash kernel takes over */

struct pvpanic {
	struct pci_device pci;
	struct device_signal event; /* with the bits above that the guest wrote */
};

/* Puts it on the bus as function 0 of `slot`; pci_host_assign() follows. */
int pvpanic_init(struct pvpanic *p, struct device_signal event, struct pci_host *host,
		 unsigned slot, struct error *e);
