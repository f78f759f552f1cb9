/*
 * The engine `kvm`: the host's /dev/kvm runs the guest, our devices serve it.
 *
 * Same vcpu state, bus and ledger as the other engines. What the kernel does alone, nobody here
 * sees: it retires no instruction that we could count, and a CPUID or a page fault may be an exit
 * that never comes to user space. kvm_counts() says which events the ledger does know, and
 * kvm_statistics_read() what the kernel itself counts.
 *
 * A /dev/kvm that opens need not be able to run an unmodified kernel: it may be a software one, or
 * lack modes. kvm_self_test() finds out with small guests and a deadline.
 */
#pragma once

#include "engine/engine.h"
#include "ledger/ledger.h"

extern const struct engine_ops kvm_ops;

struct cpu_model;

/* Does the ledger of a vcpu that this engine runs count `e`? Else its count is not 0 but unknown.
 */
bool kvm_counts(enum event e);

/* How often the processor's TSC ticks in a second, as the kernel says: the rate at which a guest
 * sees it tick, and so the rate of its clock. -errno with a message. */
int kvm_tsc_hz(uint64_t *hz, struct error *e);

/* Takes out of `m` what KVM cannot show to a guest; or, with `is_strict`, refuses such a model and
 * lists what is missing: -EOPNOTSUPP. */
int kvm_fit_model(struct cpu_model *m, bool is_strict, struct error *e);

/* ---- can it run a kernel? ---- */

enum kvm_check {
	KVM_CHECK_REAL,	     /* real mode */
	KVM_CHECK_PROTECTED, /* 32-bit protected mode without paging */
	KVM_CHECK_EXCEPTION, /* and an exception there */
	KVM_CHECK_PAGED,     /* with 32-bit paging */
	KVM_CHECK_LONG,	     /* 64-bit mode, entered as a kernel enters it */
	KVM_CHECK_PORT,	     /* IN and OUT come to us, and the answer reaches the guest */
	KVM_CHECK_MMIO,
	KVM_CHECK_HLT,
	KVM_CHECK_FAULT,     /* a page fault reaches the guest's handler, which mends it */
	KVM_CHECK_INTERRUPT, /* one of ours is delivered when the guest opens its window */
	KVM_CHECK_MSR,	     /* accesses to MSRs that we keep come to us */
	KVM_CHECK_FPU,	     /* x87 and vector registers */
	KVM_CHECK_CPUID,     /* the guest sees the processor that it was given */
	KVM_CHECK_TSC,	     /* and a time-stamp counter that starts where it was told */
	KVM_CHECK_COUNT
};

struct kvm_fitness {
	bool is_open; /* /dev/kvm opens and has what we need; else `reason` is why not */
	bool passed[KVM_CHECK_COUNT];
	char why[KVM_CHECK_COUNT][64]; /* what happened instead; "" if it passed */
	char reason[400]; /* "" if all passed; "32-bit paging: a triple fault; ...", or why it
			     cannot be opened */
};

const char *kvm_check_name(enum kvm_check c); /* "long mode" */

/* True if all passed. Each check has a second at most; all of them take some milliseconds where KVM
 * is well. `is_brief`: not beyond the first that fails. */
bool kvm_self_test(struct kvm_fitness *out, bool is_brief);

/* ---- what the kernel counts ---- */

enum kvm_paging {
	KVM_PAGING_UNKNOWN,
	KVM_PAGING_EPT,
	KVM_PAGING_NPT,
	KVM_PAGING_SHADOW, /* the host keeps shadow tables: no EPT or NPT, or switched off */
};

/* How the host translates guest addresses, by its modules' parameters. */
enum kvm_paging kvm_host_paging(void);
const char *kvm_paging_name(enum kvm_paging p); /* "ept", "npt", "shadow", "unknown" */

#define KVM_STATISTICS_MAX 128

/* One counter of KVM's, of a vcpu or of the machine, summed over its vcpus. */
struct kvm_statistic {
	char name[48];	  /* KVM's own: "pf_taken" */
	const char *type; /* "cumulative", "instant", "peak", "linear-hist", "log-hist" */
	const char *unit; /* "none", "bytes", "seconds", "cycles", "boolean" */
	int exponent;	  /* value * base ^ exponent, in units */
	unsigned base;	  /* 2 or 10 */
	bool is_of_vm;	  /* the machine's, not a vcpu's */
	uint64_t value;	  /* of a histogram: how many samples it has */
};

/* The statistics of a machine of this engine (kvm_ops); *count of them. -EOPNOTSUPP where the
 * kernel has none to tell. */
int kvm_statistics_read(struct engine *engine, struct kvm_statistic out[KVM_STATISTICS_MAX],
			unsigned *count, struct error *e);
