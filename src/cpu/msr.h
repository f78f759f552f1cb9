/* Model-specific registers: RDMSR and WRMSR as functions. */
#pragma once

#include "base/types.h"

struct vcpu;

enum msr_result {
	MSR_OK,
	MSR_FAULT,     /* #GP(0) */
	MSR_UNHANDLED, /* nobody knows it: the caller counts it and applies the --unhandled policy
			  (reads give 0, then #GP) */
	MSR_MODE_CHANGED, /* OK, and EFER changed: the engine must tell the MMU and drop what
			     depends on the mode */
};

enum msr_result msr_read(struct vcpu *v, uint32_t index, uint64_t *value);
enum msr_result msr_write(struct vcpu *v, uint32_t index, uint64_t value);
