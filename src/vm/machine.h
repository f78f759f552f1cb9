/*
 * struct vm itself, and what the files of vm/ say to each other. Private to vm/.
 *
 *   vm.c     life cycle and accessors          run.c    turns, time, idling
 *   board.c  the devices and their wires       exit.c   what each exit means; ends
 *   hash.c   the state hash                    region.c marks and traced exits
 *   save.c   state to save, and loaded again   console.c what the guest prints, watched
 *   devices.c what the configuration adds to the board
 *   scheme.c what the run carries: the primary and its observers
 *   engines.c the catalogue, what goes with which, the processor that each can show
 */
#pragma once

#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "hw/hw.h"
#include "ledger/exit_times.h"
#include "ledger/ledger.h"
#include "memory/memory.h"
#include "paging/adaptive_policy.h"
#include "paging/mmu.h"
#include "vm/console.h"
#include "vm/devices.h"
#include "vm/poller.h"
#include "vm/serial.h"
#include "vm/vm.h"

#define VM_OBSERVERS_MAX 4

struct board;
struct devices;

/* The run loop's view of one vcpu. */
struct vcpu_turn {
	uint64_t time;	/* virtual clock: how far it has come */
	bool is_halted; /* the engine said so; it may have been woken since */
};

/* Marks (cpu/exit.h) cut the run: what was counted between begin and end. Allocated at the first
 * mark. */
struct region {
	struct ledger begin, inside;
};

/* Who listens to the primary's charges on one vcpu. */
struct trace_ring {
	struct vm_traced_exit *exits; /* config.trace_exits of them; NULL for none */
	uint64_t count;		      /* ever recorded */
	struct vm *vm;
	unsigned vcpu;
};

/* See scheme.c. */
struct scheme {
	const struct profile *profile; /* one of vm->profiles */
	struct mmu_config config;
	struct adaptive_prices adaptive_prices; /* from the profile; config points here */
	char text[MMU_STRATEGY_TEXT_MAX];
	unsigned simulation; /* whose ledger: 0 the primary's mmu, n its observer n - 1 */
};

struct vm {
	struct vm_config config;
	struct poller *poller;
	struct memory *memory;
	struct bus bus;
	struct clock clock;
	struct scheme *schemes;
	unsigned scheme_count, simulation_count;
	struct profile **profiles; /* each once, loaded by profile_names */
	const char **profile_names;
	unsigned profile_count;
	struct cpu_model model;
	const struct engine_ops *engine_ops;
	struct engine *engine;
	struct vcpu *vcpus; /* config.cpu_count each */
	struct mmu **mmus;
	struct ledger
		*ledgers; /* simulation by simulation: config.cpu_count for the primary first */
	struct exit_times *times;	    /* one a vcpu; the primary's ledgers lead here */
	uint64_t created_ticks, created_ns; /* the host's TSC and clock, to tell its rate */
	struct vcpu_turn *turns;
	struct board *board;
	struct devices *devices;
	struct serial *serials[VM_SERIAL_MAX];
	struct console console;

	struct vm_observer observers[VM_OBSERVERS_MAX];
	unsigned observer_count;
	struct vm_outcome outcome; /* end is VM_END_NONE while the guest lives */
	bool has_panicked;	   /* Linux's panic line was printed */
	bool is_reset_wanted;
	bool is_paused;
	int step_vcpu; /* the vcpu to step before anything else; -1: none */
	uint64_t instruction_limit;
	uint64_t time_limit_ns; /* host's monotonic; UINT64_MAX: none */
	uint64_t next_poll_ns, poll_interval_ns;

	/* vm_call_at()'s; call is NULL if there is none. */
	struct {
		void (*call)(void *opaque);
		void *opaque; /* borrowed */
		uint64_t instruction;
	} pending;
	char tracked[40];	      /* vm_track_memory()'s name, or "" */
	uint64_t instructions_before; /* retired before the machine was saved */

	struct region *regions; /* NULL until the first mark */
	bool is_region_open;
	bool is_region_done;	   /* one that instruction counts bound happens once */
	struct trace_ring *traces; /* NULL unless config.trace_exits or charge_hook.told */
	struct vm_charge_hook charge_hook;
};

/* What the run loop does after an exit. */
enum vm_action {
	ACTION_CONTINUE, /* the same vcpu goes on in the same turn */
	ACTION_YIELD,	 /* the next vcpu */
	ACTION_LEAVE,	 /* out of the turn: the machine ended, was paused or wants a reset */
};
enum vm_action vm_handle_exit(struct vm *vm, unsigned vcpu, const struct vm_exit *exit);

/* Ends the run with a formatted text, on behalf of `vcpu`. The first one wins. */
void vm_end_with(struct vm *vm, unsigned vcpu, enum vm_end end, uint32_t detail, const char *format,
		 ...) __attribute__((format(printf, 5, 6)));
/* Makes every engine run return soon. */
void vm_interrupt_engines(struct vm *vm);
/* The guest asked for a reset, on purpose. */
void vm_guest_reset(struct vm *vm);
/* The first serial port printed these. */
void vm_console_printed(struct vm *vm, unsigned port, const uint8_t *bytes, size_t count);

/* Puts every vcpu and device back and loads the kernel. */
int vm_power_on(struct vm *vm, struct error *e);

/* ---- save.c ---- */
/* What vm_save() wrote, into a machine that was built alike and has its memory; before any run. */
int vm_load(struct vm *vm, struct state_reader *r, struct error *e);
/* A vcpu's state without what an engine leaves in it, so that it can be compared and saved. */
void vm_canonical_vcpu(const struct vm *vm, unsigned vcpu, struct vcpu_state *out);

/* ---- scheme.c ---- */
int schemes_create(struct vm *vm, struct error *e);
void schemes_destroy(struct vm *vm);
int schemes_make_mmu(struct vm *vm, unsigned vcpu, struct error *e);

static inline struct ledger *vm_simulation_ledger(const struct vm *vm, unsigned simulation,
						  unsigned vcpu)
{
	return &vm->ledgers[simulation * vm->config.cpu_count + vcpu];
}

/* ---- engines.c ---- */
const struct engine_ops *engine_find(const char *name, struct error *e);
/* Do the engine and the rest of the configuration go together? */
int engine_check(const struct vm_config *c, struct error *e);
/* Can this host run that engine? -EOPNOTSUPP with what is missing. */
int engine_check_host(const struct vm_config *c, struct error *e);
/* Fills vm->model: the processor that the engine can show and the guest shall see. */
int engine_make_model(struct vm *vm, struct error *e);

/* ---- region.c ---- */
void vm_mark(struct vm *vm, uint32_t mark);
/* The machine was saved inside a region; the rest of it is counted from here on. */
void region_resume(struct vm *vm);
/* The guest printed the text that begins or ends the region. */
void region_text_printed(struct vm *vm, bool is_from);
/* The instruction count at which the region begins or ends next; UINT64_MAX: none. */
uint64_t region_edge(const struct vm *vm);
/* That count is reached. */
void region_pass(struct vm *vm);
bool region_ledger(const struct vm *vm, unsigned simulation, unsigned vcpu, struct ledger *out);
int vm_trace_start(struct vm *vm); /* -ENOMEM */
void vm_trace_stop(struct vm *vm);

/* ---- board.c ---- */
int board_create(struct vm *vm, struct error *e);
void board_destroy(struct vm *vm);
void board_reset(struct vm *vm);
bool board_power_button(struct vm *vm);
void board_save(const struct vm *vm, struct state_writer *w);
int board_load(struct vm *vm, struct state_reader *r, struct error *e);
/* Serial ports take input from their backends from now on. */
void board_connect_serials(struct vm *vm);
/* Lets the serial ports take waiting input and write what they have. */
void board_pump(struct vm *vm);
