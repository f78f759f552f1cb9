/*
 * Private to boot/: the body of the DSDT, which describes what a guest cannot probe.
 */
#pragma once

#include "boot/aml.h"

void dsdt_build(struct aml *a, unsigned vcpu_count, unsigned virtio_mmio_count);
