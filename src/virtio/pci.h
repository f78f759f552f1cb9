/*
 * The PCI transport (VIRTIO 1.2, 4.1), modern only: one BAR with everything in it, capabilities
 * that say where, MSI-X or the interrupt pin.
 *
 *	BAR 0	0x0000 common configuration	0x3000 doorbells, 4 bytes a queue
 *		0x1000 interrupt status		0x4000 MSI-X table
 *		0x2000 device configuration	0x5000 MSI-X pending bits
 */
#pragma once

#include "device/msix.h"
#include "device/pci.h"
#include "virtio/virtio.h"

struct virtio_pci_state {
	uint32_t device_feature_select, driver_feature_select;
	uint16_t queue_select;
	uint16_t unused[3];
};

struct virtio_pci {
	struct device device; /* section "virtio-pci.N" */
	struct virtio_pci_state state;
	struct pci_device pci;
	struct msix msix;
	struct virtio_device *virtio; /* borrowed */
	struct irq_line line;	      /* INTA, while MSI-X is off */
	unsigned window;	      /* offset of the capability that is a window into the BAR */
};

/* Puts `d` on the bus as function 0 of `slot`, and attaches it as number `index`. pci_host_assign()
 * follows. The line is set by the caller, once pci_device_gsi() is known. */
int virtio_pci_init(struct virtio_pci *p, struct virtio_device *d, unsigned index,
		    struct pci_host *host, unsigned slot, struct error *e);
