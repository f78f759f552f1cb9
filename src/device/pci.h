/*
 * The PCI host bridge: configuration mechanism #1 (ports 0xcf8, 0xcfc) and the memory-mapped window
 * (ECAM), the reset register 0xcf9, and one bus of up to 32 slots. Devices of the board itself: the
 * host bridge 00:00.0 and an ISA bridge 00:1f.0.
 *
 * A device is a configuration space with a mask of what the guest may write, and up to six BARs.
 * The host keeps the BARs mapped on the bus where the guest has put them, as long as the command
 * register says so and the place is free and inside the PCI windows; nowhere else, so that a guest
 * cannot cover its interrupt controllers.
 */
#pragma once

#include "bus/bus.h"
#include "bus/platform.h"
#include "device/device.h"

#define PCI_CONFIG_BYTES 256
#define PCI_BARS 6
#define PCI_FUNCTIONS 256 /* device and function numbers of bus 0 */

struct pci_host;

struct pci_bar {
	uint64_t size_bytes; /* a power of two; 0: there is none */
	const struct bus_ops *ops;
	void *opaque; /* borrowed */
	bool is_io;
	bool is_64bit; /* takes the next BAR's register too */
	bool is_mapped;
	uint64_t mapped_base;
};

struct pci_device {
	struct device
		device; /* the board lists it: a section of its own, whose state is `config` */
	uint8_t config[PCI_CONFIG_BYTES];
	uint8_t power_on[PCI_CONFIG_BYTES]; /* what `config` is after a reset */
	uint8_t writable[PCI_CONFIG_BYTES]; /* 1 bits: the guest may change them */
	uint8_t write_one_to_clear[PCI_CONFIG_BYTES];
	struct pci_bar bar[PCI_BARS];
	struct pci_host *host; /* borrowed */
	uint8_t devfn;
	const char *name;
	uint8_t capability_end; /* where the next capability goes */
	/* Called before the guest reads `size_bytes` bytes of config at `offset`, for the few that
	 * are a window to something else. May be NULL. */
	void (*config_reading)(void *opaque, unsigned offset, unsigned size_bytes);
	/* Called after the guest wrote to `size_bytes` bytes of config at `offset` (MSI enables and
	 * the like). May be NULL. */
	void (*config_written)(void *opaque, unsigned offset, unsigned size_bytes);
	void *opaque; /* borrowed */
};

struct pci_host_state {
	uint32_t address; /* 0xcf8 */
	uint8_t reset;	  /* 0xcf9 */
	uint8_t unused[3];
};

struct pci_host {
	struct device device;
	struct pci_host_state state;
	struct pci_device *functions[PCI_FUNCTIONS]; /* borrowed */
	struct pci_device bridge, isa;
	struct device_signal reset;
	struct bus *bus; /* borrowed */
};

/* `reset` is raised by the reset register 0xcf9. */
int pci_host_init(struct pci_host *h, struct device_signal reset, struct bus *bus, struct error *e);

/* Fills config with identity and the usual writable bits. class_code is 24 bits. */
void pci_device_init(struct pci_device *d, const char *name, uint16_t vendor, uint16_t device,
		     uint32_t class_code, uint8_t revision);
/* Before the device is added. size_bytes a power of two, at least 4 (I/O) or 16 (memory). */
void pci_device_set_bar(struct pci_device *d, unsigned index, const struct pci_bar *bar);
/* Room for a capability of `size_bytes` (its ID and link included), zero and read-only but for what
 * the caller puts there; returns its offset. Before the device is added. */
unsigned pci_device_add_capability(struct pci_device *d, uint8_t id, unsigned size_bytes);
/* INTA..INTD = 1..4; the line is PLATFORM_PCI_GSI_FIRST + (slot + pin - 1) % 4 of the I/O APIC. */
void pci_device_set_interrupt_pin(struct pci_device *d, unsigned pin);

/* -EEXIST if the place is taken; -EINVAL if a BAR is impossible. */
int pci_host_add(struct pci_host *h, struct pci_device *d, unsigned slot, unsigned function,
		 struct error *e);
/* Puts all BARs somewhere, as firmware does, and switches decoding on. -ENOSPC if the windows are
 * too small. */
int pci_host_assign(struct pci_host *h, struct error *e);

/* The I/O APIC pin of the interrupt of a device that was added. */
unsigned pci_device_gsi(const struct pci_device *d);
