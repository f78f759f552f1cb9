/* The MMIO transport (VIRTIO 1.2, 4.2), version 2: one page of registers, one line, announced to
 * the guest by ACPI (boot/dsdt.c) at PLATFORM_VIRTIO_MMIO_BASE. */
#pragma once

#include "virtio/virtio.h"

struct virtio_mmio_state {
	uint32_t device_feature_select, driver_feature_select;
	uint32_t queue_select;
	uint32_t unused;
};

struct virtio_mmio {
	struct device device; /* section "virtio-mmio.N" */
	struct virtio_mmio_state state;
	struct virtio_device *virtio; /* borrowed */
	struct irq_line line;
};

/* Maps `d` as the `place`-th device of the transport, and attaches it as number `index`. */
int virtio_mmio_init(struct virtio_mmio *m, struct virtio_device *d, unsigned index, unsigned place,
		     struct irq_line line, struct bus *bus, struct error *e);
