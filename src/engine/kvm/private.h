/*
 * What the files of engine/kvm say to each other.
 *
 *   host.c       /dev/kvm, deadlines       registers.c  vcpu_state to KVM and back
 *   engine.c     the contract              xstate.c     its x87 and vector part
 *   run.c        KVM_RUN in a loop         exit.c       what each KVM exit means
 *   cpuid.c      the model, shown          statistics.c what the kernel counts
 *   self_test.c  small guests              probe.c      what such a guest is made of
 */
#pragma once

#include "engine/kvm/host.h"
#include "engine/kvm/kvm.h"
#include "ledger/exit_times.h"
#include "ledger/ledger.h"

#define KVM_BREAKPOINTS_MAX 4 /* the processor's own debug registers */

struct kvm_vcpu {
	struct kvm_cpu cpu;
	struct vcpu *v;	  /* borrowed */
	struct mmu *mmu;  /* borrowed: for those who look at guest addresses from outside */
	bool is_loaded;	  /* KVM has v->state; else v->state is newer */
	bool is_attached; /* to the engine's deadline */
	bool is_stepping;
	bool is_stepping_over; /* a breakpoint that was met already */
	bool has_debug;	       /* KVM was told of breakpoints or a step */
	/* An access was answered; the next KVM_RUN ends its instruction. */
	bool is_unfinished;
	uint64_t tsc_offset; /* as KVM was told last */
	bool has_tsc_offset;
	uint64_t clock_changes; /* clock->changes as seen last */
};

struct kvm_engine {
	struct engine engine;
	struct engine_config config;
	int kvm, vm;
	struct kvm_vcpu *vcpus;
	unsigned vcpu_count; /* added so far */
	struct kvm_deadline deadline;
	uint64_t breakpoints[KVM_BREAKPOINTS_MAX];
	unsigned breakpoint_count;
	uint64_t until; /* of the run that goes on, in cycles */
	uint64_t armed; /* what the deadline is set for; 0: something else */
	char text[200]; /* of the last exit that has one */
};

/* ---- registers.c ---- */
/* All of v->state into KVM; and out of it again. -errno, `what` names the part. */
int kvm_registers_put(struct kvm_vcpu *c, const char **what);
int kvm_registers_get(struct kvm_vcpu *c, const char **what);
/* Is something on its way into the guest that vcpu_state has no place for? */
bool kvm_is_delivering(struct kvm_vcpu *c);

/* ---- xstate.c ---- */
struct kvm_xsave;
void kvm_xstate_put(const struct fpu_state *f, bool has_avx, struct kvm_xsave *out);
void kvm_xstate_get(const struct kvm_xsave *in, struct fpu_state *f);

/* ---- cpuid.c ---- */
int kvm_cpuid_set(struct kvm_engine *k, struct kvm_vcpu *c, struct error *e);

/* ---- exit.c ---- */
/* What KVM_RUN came back with, handled. False: run() ends with *exit. */
bool kvm_handle_exit(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit);
/* The kernel's or the machine's fault: formats k->text. Always false. */
bool kvm_give_up(struct kvm_engine *k, struct vm_exit *exit, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- run.c ---- */
void kvm_run_vcpu(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit);
