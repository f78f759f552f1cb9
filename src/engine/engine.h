/*
 * The engine contract: runs a vcpu until something the run loop must know.
 *
 * An engine executes guest instructions on struct vcpu_state, asks the vcpu's mmu what an address
 * means, calls the bus for ports and device memory, charges the vcpu's ledger, and returns with an
 * exit record. All engines drive the same state, so a vcpu may move from one to another whenever
 * run() has returned.
 *
 * Time: before anything that may look at the clock the engine sets it (virtual kind); run() starts
 * no instruction at or after `until_cycles`. An instruction takes one cycle, and some take more
 * (PAUSE, accesses to devices), so run() may end a little past it; never earlier without a reason.
 */
#pragma once

#include "base/error.h"
#include "cpu/exit.h"
#include "cpu/vcpu.h"

struct bus;
struct clock;
struct memory;
struct mmu;
struct engine;

struct engine_config {
	struct memory *memory; /* borrowed, as all of these */
	struct bus *bus;
	struct clock *clock;
	unsigned vcpu_count;
	bool intercept_rdtsc; /* charge RDTSC as an exit */
	bool lockstep;	    /* trans: the interpreter runs every block, too; a difference ends it */
	bool perf_map;	    /* trans: name translated code for perf in /tmp/perf-PID.map */
	uint8_t warm_count; /* trans: a block is translated when it runs for this time; 0: a good
			       one */
};

struct engine_ops {
	int (*create)(struct engine **out, const struct engine_config *config, struct error *e);
	void (*destroy)(struct engine *engine);
	/* Ties vcpu->index to the engine. Called vcpu_count times before the first run. */
	int (*add_vcpu)(struct engine *engine, struct vcpu *v, struct mmu *mmu, struct error *e);
	/* Runs vcpu `index` from the clock's present time to at most `until_cycles`. Returns early
	 * with a reason. With reason EXIT_BUDGET the clock stands at until_cycles or at most one
	 * instruction's cost past it. */
	void (*run)(struct engine *engine, unsigned index, uint64_t until_cycles,
		    struct vm_exit *exit);
	/* Somebody else (debugger, loader, restore) changed the vcpu's state: recompute what was
	 * derived from it. */
	void (*state_changed)(struct engine *engine, unsigned index);
	/* Code breakpoints by guest-virtual address, for debuggers, on all vcpus. -ENOSPC. */
	int (*set_breakpoint)(struct engine *engine, gva_t address, bool on);
	/* The next run() of `index` executes one instruction and returns EXIT_STEPPED. */
	void (*single_step)(struct engine *engine, unsigned index);
};

/* First member of every engine. */
struct engine {
	const struct engine_ops *ops;
};

struct engine_entry {
	const char *name;
	const char *text; /* one sentence of help */
	const struct engine_ops *ops;
};
