/*
 * The machine: what cli/ makes from a configuration, runs to its end, and asks about.
 *
 * Life cycle: vm_create() builds the board (memory, vcpus, devices, engine) and loads the kernel;
 * vm_run() runs until the guest or the person ends it and fills an outcome; vm_destroy() takes
 * everything down. Everything of one machine hangs on struct vm; two machines in one process do not
 * know of each other.
 *
 * Floors above (debug/, report/, cli/) look at the machine through the accessors here, are told of
 * stops through a vm_observer, and wait for their files through vm_poller(). All of it happens on
 * the thread that calls vm_run().
 */
#pragma once

#include "base/error.h"
#include "base/types.h"
#include "boot/boot.h"
#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/exit.h"
#include "ledger/ledger.h"

struct vcpu;
struct mmu;
struct memory;
struct vm;
struct poller;
struct cpu_model;
struct profile;
struct state_reader;
struct state_writer;

#define VM_CPUS_MAX 64
#define VM_INITRD_MAX 16
#define VM_UART_MAX 2
#define VM_SERIAL_CONSOLE 2 /* the console device, hvc0; below it COM1 and COM2 */
#define VM_SERIAL_MAX 3
#define VM_MEMORY_MIN_BYTES (2ull << 20)

/* One way of virtualizing on one processor. */
struct vm_scheme {
	const char *paging;  /* as mmu_parse_strategy() takes it */
	const char *profile; /* a profile's name or file */
};
#define VM_SCHEMES_MAX 128

/* A machine that goes on where another was saved, instead of booting: see snapshot/. Borrowed until
 * vm_create() has returned. */
struct vm_saved {
	const struct cpu_model *model; /* what CPUID shows; tsc_hz is also the clock's */
	struct state_reader *state;    /* what vm_save() wrote */
	uint64_t instructions;	       /* retired until then, since the machine was made */
	/* Puts the guest's RAM in place. */
	int (*fill_memory)(void *opaque, struct memory *memory, struct error *e);
	void *opaque;
};

/* A device beside those that every machine has: see vm_device_kind(). */
struct vm_device {
	const char *kind;   /* up to a comma */
	const char *text;   /* its own options, "" for none */
	const char *option; /* the command-line option for messages; NULL: --device */
};
#define VM_DEVICES_MAX 24

/* Everything that can be chosen about a machine. Strings are borrowed until vm_destroy().
 * vm_config_defaults() first. */
struct vm_config {
	const struct vm_saved *saved; /* NULL: boot; else the kernel is for resets only */
	const char *kernel;
	const char *initrd[VM_INITRD_MAX];
	unsigned initrd_count;
	const char *append; /* NULL: VM_DEFAULT_APPEND */
	enum boot_format kernel_format;
	uint64_t memory_bytes;
	unsigned cpu_count;
	const char *cpu; /* a model's specification (cpu/cpuid.h); NULL: x86-64-v3, or v2 if the
			    host is less */
	uint64_t tsc_hz; /* of the guest's TSC and clock; 0: the profile's frequency, kvm: the
			    host's */
	const char *engine;
	const char *paging;
	const char *profile;
	struct vm_scheme observers[VM_SCHEMES_MAX - 1]; /* that ride along; those that differ in
							   prices only are simulated once */
	unsigned observer_count;
	bool has_data_caches; /* put the guest's own accesses through the profile's data caches */
	unsigned host_levels; /* nested: 1..5, 0: 4 */
	unsigned host_page_shift; /* nested: 12, 21, 30, 0: 12 */
	bool verify;
	bool intercept_rdtsc;
	bool perf_map;	     /* trans: /tmp/perf-PID.map */
	bool lockstep;	     /* trans: interp runs every block, too */
	bool interpreted;    /* trans: somebody will ask vm_trans_statistics() */
	bool skips_kvm_test; /* kvm: run whatever the self-test finds missing */
	enum clock_kind clock;
	bool kvm_leaves; /* KVM's CPUID leaves and kvmclock */
	enum unhandled_policy unhandled;
	uint64_t seed; /* of RDRAND and RDSEED */
	bool has_wall_start;
	uint64_t wall_start_s;		   /* what the RTC shows at power-on, if has_wall_start */
	const char *serial[VM_SERIAL_MAX]; /* COM1, COM2, hvc0: a backend's specification, see
					      vm/serial.h; NULL: null */
	struct vm_device devices[VM_DEVICES_MAX];
	unsigned device_count;
	bool no_reboot;
	bool ignore_panic;	   /* do not end at a Linux panic's last line */
	uint64_t max_instructions; /* over all vcpus; 0: no limit */
	uint64_t timeout_ms;	   /* host time; 0: no limit */
	/* The region of interest by other means than the guest's marks: from and to an instruction
	 * count over all vcpus (0: not), or a line that the first serial port prints (NULL: not).
	 */
	uint64_t region_from, region_to;
	const char *region_from_text, *region_to_text;
	bool ends_with_region; /* end well when the region of interest ends */
	const char *stop_at;   /* end well when the first serial port prints this; may be NULL */
	unsigned trace_exits;  /* how many exits vm_trace() remembers per vcpu; 0: none */
};

#define VM_DEFAULT_APPEND "console=ttyS0"

void vm_config_defaults(struct vm_config *c);
/* Checks what can be checked without building: ranges and combinations. The message names the
 * option. */
int vm_config_check(const struct vm_config *c, struct error *e);

/* The kinds of devices, NULL after the last; what may follow the kind, and one sentence. */
const char *vm_device_kind(size_t i, const char **argument, const char **text);

/* What a configuration without a cpu gets: the best of x86-64-v3, v2 and x86-64 that the host has
 * and the engine can show. */
const char *vm_default_cpu(const char *engine);

/* The engines, NULL after the last. *text (may be NULL) gets one sentence. */
const char *vm_engine_name(size_t i, const char **text);

/* What a run is for, beyond its vm_config: what decides which engine `auto` stands for. */
struct vm_purpose {
	bool wants_costs;	 /* a bill, folded stacks, traced exits */
	bool wants_paging;	 /* a strategy was asked for */
	bool wants_virtual_time; /* --clock virtual was asked for */
	bool wants_counts;	 /* something happens at an instruction count */
};
#define VM_WHY_MAX 320
/* The name of the engine that `auto` stands for, and why: "kvm self-test: long mode: a triple
 * fault". May run KVM's self-test, some milliseconds, and a second if KVM hangs. */
const char *vm_choose_engine(const struct vm_config *c, const struct vm_purpose *purpose,
			     char why[VM_WHY_MAX]);

/* How a run ended. */
enum vm_end {
	VM_END_NONE, /* it did not: still running */
	VM_END_POWER_OFF,
	VM_END_DEBUG_EXIT, /* the guest wrote to isa-debug-exit; `detail` is the value */
	VM_END_STOP_AT,	   /* --stop-at's text was printed */
	VM_END_REGION,	   /* ends_with_region: it is over */
	VM_END_SAVED,	   /* a snapshot was taken, for which the run was made */
	VM_END_QUIT,	   /* Ctrl-A x, the monitor's quit, gdb's kill */
	VM_END_PANIC,
	VM_END_WATCHDOG, /* it bit, with no_reboot */
	VM_END_TRIPLE_FAULT,
	VM_END_RESET, /* with no_reboot */
	VM_END_HALTED,
	VM_END_INSTRUCTIONS,
	VM_END_TIMEOUT,
	VM_END_SIGNAL,	   /* `detail` is the number */
	VM_END_UNHANDLED,  /* --unhandled=stop met something */
	VM_END_DIFFERENCE, /* --verify found one */
	VM_END_ERROR,	   /* ours or the host's fault */
};

struct vm_outcome {
	enum vm_end end;
	uint32_t detail;
	unsigned vcpu;	 /* who did it */
	char text[6400]; /* --lockstep shows both sides of a block */
};

/* Builds and loads; nothing runs yet. On an error nothing is left. */
int vm_create(struct vm **out, const struct vm_config *config, struct error *e);
void vm_destroy(struct vm *vm); /* vm_destroy(NULL) is legal */

/* Runs to the end, or until vm_run_for()'s budget of instructions over all vcpus is used up (then
 * end is VM_END_NONE). */
void vm_run(struct vm *vm, struct vm_outcome *outcome);
void vm_run_for(struct vm *vm, uint64_t instructions, struct vm_outcome *outcome);

/* For callers outside the guest: ends the run with this outcome at the next boundary. The first one
 * wins. */
void vm_end(struct vm *vm, enum vm_end end, uint32_t detail, const char *text);
/* Presses the power button; guests with ACPI shut down. False if the guest does not listen: it has
 * not enabled the button's event (yet), and will learn of it when it does. */
bool vm_power_button(struct vm *vm);
/* Resets every vcpu and device and loads the kernel again, at the next boundary. Not subject to
 * no_reboot. */
void vm_reset(struct vm *vm);
void vm_inject_nmi(struct vm *vm);

/* While paused no vcpu runs and time stands still; vm_run() stays inside and waits for its poller.
 */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);
bool vm_is_paused(const struct vm *vm);
/* One instruction of one vcpu, then pause and tell the observers. Timers and other vcpus stand
 * still. */
void vm_step(struct vm *vm, unsigned vcpu);
int vm_set_breakpoint(struct vm *vm, gva_t address, bool on);
/* Somebody wrote vcpu->state: derived state is recomputed, translations dropped. */
void vm_state_changed(struct vm *vm, unsigned vcpu);

/* Told when the machine pauses by itself (a breakpoint, a step done) and when the run ends. */
struct vm_observer {
	void (*stopped)(void *opaque, unsigned vcpu, enum exit_reason reason);
	void (*ended)(void *opaque, const struct vm_outcome *outcome); /* may be NULL */
	void (*marked)(void *opaque, uint32_t mark); /* the guest set a mark; may be NULL */
	void *opaque;				     /* borrowed */
};
int vm_observe(struct vm *vm, struct vm_observer observer); /* -ENOSPC */

/* Calls once between two turns, when every vcpu stands between two instructions and the machine can
 * be saved: as soon as so many instructions are retired (0: at the next opportunity). One at a
 * time: -EBUSY. Everything else of this floor may be called from there. */
int vm_call_at(struct vm *vm, uint64_t instruction, void (*call)(void *opaque), void *opaque);

/* Writes the machine's state, all but RAM, for vm_saved. Between turns only: from vm_call_at(),
 * from the poller, or while no run is going on. */
void vm_save(struct vm *vm, struct state_writer *w);

/* From now on the dirty log says what differs from the RAM of this moment, which `name` (at most 39
 * characters) stands for; NULL ends it. Costs a slow write for each page once. */
int vm_track_memory(struct vm *vm, const char *name, struct error *e);
/* The name; NULL if nothing is tracked. */
const char *vm_tracked_memory(const struct vm *vm);

/* What is inside; all borrowed. */
const struct vm_config *vm_config(const struct vm *vm);
unsigned vm_cpu_count(const struct vm *vm);
struct vcpu *vm_vcpu(struct vm *vm, unsigned i);
struct mmu *vm_mmu(struct vm *vm, unsigned i);
const struct ledger *vm_ledger(const struct vm *vm, unsigned i);
/* Does the machine count this event? Otherwise its count in the ledger says nothing: an engine with
 * a TLB of its own does not know how often the processor's would have missed. */
bool vm_counts(const struct vm *vm, enum event e);
/* What the kernel counts of a machine under kvm, at most KVM_STATISTICS_MAX of them; -EOPNOTSUPP
 * under other engines, or where the kernel has none to tell. */
/* Under the engine trans; trans_statistics_fini() is the caller's. */
struct trans_statistics;
int vm_trans_statistics(const struct vm *vm, struct trans_statistics *out, struct error *e);
struct kvm_statistic;
int vm_kvm_statistics(struct vm *vm, struct kvm_statistic *out, unsigned *count, struct error *e);
struct memory *vm_memory(struct vm *vm);
struct bus *vm_bus(struct vm *vm);
struct clock *vm_clock(struct vm *vm);
struct poller *vm_poller(struct vm *vm);
struct serial *vm_serial(struct vm *vm, unsigned i);
const struct profile *vm_profile(const struct vm *vm);
/* The devices of the configuration: the kind, and a text that makes the same device again. */
unsigned vm_device_count(const struct vm *vm);
const char *vm_device(const struct vm *vm, unsigned i, const char **text);
/* Why no snapshot can hold a device; NULL: each can be held. */
const char *vm_unsavable(const struct vm *vm);
/* The balloon device: sets how much memory the guest shall give back (NULL: asks only), and what is
 * known. Statistics come with the next call; UINT64_MAX is unknown. -ENODEV. */
#define VM_BALLOON_STATS 10
struct vm_balloon {
	uint64_t target_bytes, actual_bytes; /* given back */
	bool has_stats;
	uint64_t stats[VM_BALLOON_STATS]; /* see vm_balloon_stat_name() */
};
int vm_balloon(struct vm *vm, const uint64_t *target_bytes, struct vm_balloon *out);
const char *vm_balloon_stat_name(unsigned i); /* NULL past the end */
/* Instructions retired, over all vcpus. */
uint64_t vm_instructions(const struct vm *vm);
/* The same since the machine first booted, if it was saved and goes on here. */
uint64_t vm_instructions_ever(const struct vm *vm);
const struct cpu_model *vm_model(const struct vm *vm);

/*
 * The region of interest. A guest's mark 1 begins it and mark 2 ends it (cpu/exit.h; several
 * begin-end pairs add up). False if the guest set no mark 1; else *out is what `vcpu` counted
 * inside, up to now if the region is open.
 */
bool vm_region_ledger(const struct vm *vm, unsigned vcpu, struct ledger *out);
#define VM_MARK_BEGIN 1
#define VM_MARK_END 2

/* Schemes: 0 is the primary, then the observers as config lists them. */
unsigned vm_scheme_count(const struct vm *vm);
const struct profile *vm_scheme_profile(const struct vm *vm, unsigned scheme);
/* As mmu_format_strategy() writes it. */
const char *vm_scheme_paging(const struct vm *vm, unsigned scheme);
bool vm_scheme_is_virtualized(const struct vm *vm, unsigned scheme);
/* What `vcpu` would have counted had this scheme been alone: the whole run, or with `is_region` the
 * region of interest (false if there was none). */
bool vm_scheme_ledger(const struct vm *vm, unsigned scheme, unsigned vcpu, bool is_region,
		      struct ledger *out);

/* An exit or a TLB miss of the primary, as it is charged, and where the guest was. */
struct vm_charge {
	const struct ledger *ledger; /* the vcpu's, with the event counted */
	enum event event;
	uint64_t address; /* linear, of the instruction; of its block where that is all that is
			     known */
	unsigned vcpu;
	bool has_region, is_in_region; /* has a region of interest begun; is it open? */
};

/* Told of each, until vm_destroy(). One at a time; before the first run. -ENOMEM. */
struct vm_charge_hook {
	void (*told)(void *opaque, const struct vm_charge *c);
	void *opaque; /* borrowed */
};
int vm_on_charge(struct vm *vm, struct vm_charge_hook hook);

/* One exit that a hardware-assisted VMM would have taken. */
struct vm_traced_exit {
	uint64_t instruction; /* this vcpu's instructions until then */
	uint64_t rip;
	enum event event;
	enum ring ring;
};
/* The `back`-th last exit of `vcpu`, 0 the newest; false if it is not remembered. */
bool vm_trace(const struct vm *vm, unsigned vcpu, unsigned back, struct vm_traced_exit *out);

/* The hash of everything the guest could observe: vcpus, devices, RAM, what it printed. 32 digits
 * and a NUL. */
int vm_state_hash(struct vm *vm, char text[33], struct error *e);
/* What was printed on the serial ports, all of them: bytes. */
uint64_t vm_console_bytes(const struct vm *vm);
