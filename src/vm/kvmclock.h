/*
 * KVM's paravirtual clock (Documentation/virt/kvm/x86/msr.rst and cpuid.rst of Linux): two MSRs by
 * which a guest names the memory where it wants to read the time. Private to vm/.
 *
 * The counter's frequency never changes, so a page is right forever once it is written; it is
 * written when the guest asks.
 */
#pragma once

#include "clock/clock.h"
#include "cpu/vcpu.h"
#include "device/device.h"

#define MSR_KVM_WALL_CLOCK 0x11u
#define MSR_KVM_SYSTEM_TIME 0x12u
#define MSR_KVM_WALL_CLOCK_NEW 0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

struct memory;

struct kvmclock_state {
	uint64_t wall_clock; /* as written */
	uint64_t system_time;
	uint32_t version; /* of the last page written */
	uint32_t wall_version;
};

/* One per vcpu: time pages are. */
struct kvmclock {
	struct device device;
	struct kvmclock_state state;
	struct vcpu *vcpu;     /* borrowed */
	struct memory *memory; /* borrowed */
	bool is_stable;	       /* all vcpus' counters agree: one vcpu */
};

/* Sets v->msr_ops. `instance` names the section. */
void kvmclock_init(struct kvmclock *k, const char *instance, struct vcpu *v, struct memory *memory,
		   bool is_stable);
