/*
 * The devices that the configuration asks for (vm_config.devices): made by the catalogue of
 * virtio/, put on PCI or behind device memory, wired to interrupts and to the run loop's poller.
 * Private to vm/.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct device;
struct irq_router;
struct pci_host;
struct vm;
struct vm_config;

struct device_wires {
	struct pci_host *pci;
	struct irq_router *router;
	/* Lists a device for reset, save and the end. */
	void (*add)(void *opaque, struct device *d);
	void *opaque;
};

/* Opens nothing. The message names the device. */
int devices_check(const struct vm_config *c, struct error *e);
/* Before the PCI host assigns addresses. */
int devices_create(struct vm *vm, const struct device_wires *wires, struct error *e);
/* After it: lines are known. */
void devices_connect(struct vm *vm, struct irq_router *router);
/* The console device takes input from its backend from now on. */
void devices_connect_console(struct vm *vm);
/* After device_fini() of all. */
void devices_destroy(struct vm *vm);

/* How many the guest finds by ACPI. */
unsigned devices_mmio_count(const struct vm *vm);
/* Returns when none has work under way, so that the machine can be saved. */
void devices_drain(struct vm *vm);
/* Takes what has finished since; cheap. */
void devices_poll(struct vm *vm);
/* Is one connected to a world where real time passes? */
bool devices_are_live(const struct vm *vm);
/* Has one work under way that will finish by itself? */
bool devices_are_busy(const struct vm *vm);
