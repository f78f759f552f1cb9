/*
 * /dev/kvm itself: opening it, what it must have, and KVM_RUN with a deadline. Shared by the
 * engine, by the self-test's guests and by calibrate/, which times exits.
 */
#pragma once

#include <linux/kvm.h>
#include <signal.h>
#include <time.h>

#include "base/error.h"
#include "base/types.h"

/* /dev/kvm, open, with every capability that the engine needs. The message says what is missing. */
int kvm_host_open(int *fd, struct error *e);

/* A machine without memory or vcpus. */
int kvm_host_create_vm(int kvm, int *fd, struct error *e);

struct kvm_cpu {
	int fd;
	struct kvm_run *run;
	size_t run_bytes;
};

/* {.fd = -1} before; _close is idempotent. */
int kvm_cpu_open(struct kvm_cpu *c, int kvm, int vm, unsigned index, struct error *e);
void kvm_cpu_close(struct kvm_cpu *c);

/* Which MSRs exit to us: all but those that the processor itself needs. */
int kvm_filter_msrs(int vm, bool has_tsc_aux, bool has_spec_ctrl, struct error *e);
/* The guest's TSC is the host's and `offset`. */
int kvm_set_tsc_offset(const struct kvm_cpu *c, uint64_t offset);

/* The CPUID that KVM can show to guests; free() it. */
int kvm_host_cpuid(int kvm, struct kvm_cpuid2 **out, struct error *e);

/*
 * A deadline for KVM_RUN: a timer whose signal the thread keeps blocked, but which ends KVM_RUN
 * with EINTR. A signal that comes before KVM_RUN has begun ends it at once, so nothing is lost.
 * Belongs to the thread that opened it, which keeps the signal blocked from then on.
 */
struct kvm_deadline {
	timer_t timer;
	pid_t thread;
	bool is_open;
};

int kvm_deadline_open(struct kvm_deadline *d, struct error *e);
void kvm_deadline_close(struct kvm_deadline *d);
/* Lets the deadline's signal end KVM_RUN on this vcpu; from the deadline's thread. */
int kvm_deadline_attach(const struct kvm_deadline *d, const struct kvm_cpu *c);
/* So much from now on; 0: never. */
void kvm_deadline_set(const struct kvm_deadline *d, uint64_t ns);
/* Takes its signal, if it came. */
void kvm_deadline_clear(const struct kvm_deadline *d);
