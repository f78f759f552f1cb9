/*
 * Measuring the machine we run on, and writing what was found as a profile.
 *
 * What user space can time is measured: latencies of caches and memory with small and large pages,
 * how far the TLBs reach, system calls, faults, signals, context switches, locked instructions,
 * CPUID, exits through /dev/kvm where it opens, and our own VMM's software. Every figure is a
 * median of many with its spread, because the machine is often a noisy virtual one; latencies are
 * counted in cycles by timing a chain of additions beside them, so that a changing clock rate
 * cancels. What cannot be measured from here is said to be unavailable and inherited from the
 * built-in profile that is nearest.
 *
 * Callers: cli/. Nothing here prints. The process's affinity is changed for the duration.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

enum measure_id {
	MEASURE_FREQUENCY, /* of the core, by a chain of additions */
	MEASURE_L1,	   /* load-to-use, few TLB misses */
	MEASURE_L2,
	MEASURE_L3,
	MEASURE_DRAM,
	MEASURE_L1_4K, /* the same all over, in 4 KB pages */
	MEASURE_L2_4K,
	MEASURE_L3_4K,
	MEASURE_DRAM_4K,
	MEASURE_TLB1_ENTRIES, /* data side, 4 KB pages, by the knee of the curve */
	MEASURE_TLB2_ENTRIES,
	MEASURE_TLB2_HIT, /* what a first-level miss adds that the second level answers */
	MEASURE_TLB_WALK, /* what a miss of both adds, tables in the caches */
	MEASURE_LOCK,	  /* LOCK XADD on a line in the first-level cache */
	MEASURE_CPUID,	  /* leaf 0; an exit, where a hypervisor is below us */
	MEASURE_SYSCALL,  /* the cheapest system call, there and back */
	MEASURE_FAULT,	  /* a minor page fault, with the kernel's work */
	MEASURE_SIGNAL,	  /* to a handler and back */
	MEASURE_SWITCH,	  /* from one process to another through a pipe, one way */
	/* Exits of a guest of ours through /dev/kvm, round trip. KVM answers the first by itself,
	 * with or without an exit as the processor has it. */
	MEASURE_EXIT_CPUID,
	MEASURE_EXIT_MSR_KERNEL, /* RDMSR of EFER */
	MEASURE_EXIT_CR3,
	MEASURE_EXIT_INVLPG,
	MEASURE_EXIT_RDTSC,
	MEASURE_EXIT_FAULT,	/* a page that the host has and KVM's tables have not */
	MEASURE_EXIT_PORT_READ, /* these and all below go to user space */
	MEASURE_EXIT_PORT,
	MEASURE_EXIT_MMIO_READ,
	MEASURE_EXIT_MMIO,
	MEASURE_EXIT_MSR,
	MEASURE_EXIT_HLT,
	MEASURE_VMM_FILL, /* our own VMM's software: see the events of the same names */
	MEASURE_VMM_TABLE,
	MEASURE_VMM_PREFETCH,
	MEASURE_VMM_UPDATE,
	MEASURE_COUNT
};

struct measure {
	bool is_available;
	/* The median: cycles; hz for the frequency; entries. Of a latency whose median is far above
	 * the lowest sample, that: neighbours can only add to it. */
	double value;
	double lowest;	    /* of the samples */
	double spread;	    /* the middle half of the samples against the median, in percent */
	double nanoseconds; /* the median as time; 0 where that means nothing */
	unsigned sample_count;
	char note[120]; /* why it is not available, or what to know about it; may be empty */
};

/* What CPUID says of the host. */
struct host_cache {
	unsigned size_kb, ways; /* 0: CPUID does not say */
};

struct host {
	char vendor[13], brand[49];
	unsigned family, model, stepping;
	bool is_virtualized; /* a hypervisor says that it is there */
	char hypervisor[13];
	bool has_vmx_or_svm;	    /* the processor offers hardware support for guests of ours */
	struct host_cache cache[3]; /* L1 data, L2, L3 */
	unsigned tlb1_entries, tlb1_ways; /* data, 4 KB; 0: not said; ways 0: fully associative */
	unsigned tlb2_entries, tlb2_ways;
};

struct calibration {
	struct host host;
	char date[11]; /* 2026-11-21 */
	struct measure measure[MEASURE_COUNT];
};

/* "caches.l2", and a phrase for people; "cycles", "hz" or "entries". */
const char *measure_name(enum measure_id id);
const char *measure_text(enum measure_id id);
const char *measure_unit(enum measure_id id);

struct calibrate_options {
	bool is_quick;	 /* fewer samples and less memory: a third of the time */
	bool only_exits; /* and what belongs to them; the rest says that it was not asked for */
	/* Told what comes next, `done` of MEASURE_COUNT; may be NULL. */
	void (*progress)(void *opaque, enum measure_id next, unsigned done);
	void *opaque;
};

/* 0, or -ENOMEM where not even the buffers are to be had. */
int calibrate_run(const struct calibrate_options *options, struct calibration *out,
		  struct error *e);

/* The built-in profile that is nearest to a processor. */
const char *calibrate_nearest_profile(const struct host *h);

/*
 * The measurements as a profile called `name`: what was measured in class T, what follows from it
 * in class D, and the rest from the profile `base`, in no better class than D. The text is the
 * caller's to free and is accepted by profile_parse(). -ENOENT for the base, -ENOMEM.
 */
int calibrate_profile(const struct calibration *c, const char *name, const char *base, char **text,
		      struct error *e);
