/*
 * The machine's state, all of it but RAM, as sections: written from a machine that stands between
 * two turns, and read into one that was just built with the same configuration.
 *
 * What is derived is not saved and comes back by itself: TLBs, shadow tables, cached blocks, timers
 * (each device arms its own again), an APIC's request to its vcpu. What belongs to the run and not
 * to the machine starts anew: ledgers, limits, breakpoints, the host's side of the serial ports.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "state/state.h"
#include "vm/machine.h"

#define VCPU_VERSION 1
#define TURN_VERSION 1
#define MACHINE_VERSION 1
/* An APIC raises REQUEST_INTERRUPT again when it is loaded, and REQUEST_STOP is the run's. */
#define REQUESTS_SAVED ((uint32_t)(REQUEST_NMI | REQUEST_INIT | REQUEST_SIPI))

/* No holes: sections are written as they lie in memory. */
struct saved_turn {
	uint64_t time;
	uint32_t requests;
	uint32_t is_halted;
};

struct saved_machine {
	uint64_t now_cycles;
	uint64_t wall_start_s;
	uint8_t has_panicked, is_reset_wanted, is_region_open, zero[5];
};

void vm_canonical_vcpu(const struct vm *vm, unsigned i, struct vcpu_state *out)
{
	/* With its holes, which are zero since creation. */
	memcpy(out, &vm->vcpus[i].state, sizeof(*out));
	out->gpr[16] = out->gpr[17] = 0;  /* the engine's scratch */
	out->rflags &= ~FLAGS_ARITHMETIC; /* stale by contract */
	out->flags_low &= 0xd5u;
}

static void vcpu_section(char name[32], const char *what, unsigned i)
{
	snprintf(name, 32, "%s.%u", what, i);
}

void vm_save(struct vm *vm, struct state_writer *w)
{
	char name[32];
	board_pump(vm);
	devices_drain(vm);
	struct saved_machine machine = {
		.now_cycles = clock_now(&vm->clock),
		.wall_start_s = vm->clock.wall_start_s,
		.has_panicked = vm->has_panicked,
		.is_reset_wanted = vm->is_reset_wanted,
		.is_region_open = vm->is_region_open,
	};
	state_put(w, "machine", MACHINE_VERSION, &machine, sizeof(machine));
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		struct vcpu_state state;
		vm_canonical_vcpu(vm, i, &state);
		vcpu_section(name, "vcpu", i);
		state_put(w, name, VCPU_VERSION, &state, sizeof(state));
		struct saved_turn turn = {
			/* What a real clock's turns took is nobody's business. */
			.time = vm->clock.kind == CLOCK_VIRTUAL ? vm->turns[i].time
								: machine.now_cycles,
			.requests = atomic_load(&vm->vcpus[i].requests) & REQUESTS_SAVED,
			.is_halted = vm->turns[i].is_halted,
		};
		vcpu_section(name, "turn", i);
		state_put(w, name, TURN_VERSION, &turn, sizeof(turn));
	}
	board_save(vm, w);
	console_save(&vm->console, w);
}

static int load_vcpu(struct vm *vm, struct state_reader *r, unsigned i, struct error *e)
{
	char name[32];
	struct vcpu_state *state = &vm->vcpus[i].state;
	struct saved_turn turn;
	vcpu_section(name, "vcpu", i);
	int result = state_get(r, name, VCPU_VERSION, state, sizeof(*state), e);
	if (!result && vcpu_state_check(state, &vm->model, e))
		return error_prefix(e, "saved state: section '%s'", name);
	vcpu_section(name, "turn", i);
	if (!result)
		result = state_get(r, name, TURN_VERSION, &turn, sizeof(turn), e);
	if (result)
		return result;
	if ((turn.requests & ~REQUESTS_SAVED) || turn.is_halted > 1)
		return error_set(e, -EINVAL, "saved state: section '%s': no such request", name);
	vcpu_set_rflags(&vm->vcpus[i], vcpu_rflags(&vm->vcpus[i]));
	atomic_store(&vm->vcpus[i].requests, turn.requests);
	vm->turns[i] = (struct vcpu_turn){.time = turn.time, .is_halted = turn.is_halted};
	return 0;
}

int vm_load(struct vm *vm, struct state_reader *r, struct error *e)
{
	struct saved_machine machine;
	int result = state_get(r, "machine", MACHINE_VERSION, &machine, sizeof(machine), e);
	if (result)
		return result;
	/* Devices read the time and their vcpu when they arm their timers, so these come first. */
	clock_resume(&vm->clock, machine.now_cycles, machine.wall_start_s);
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		if ((result = load_vcpu(vm, r, i, e)))
			return result;
	if ((result = board_load(vm, r, e)) || (result = console_load(&vm->console, r, e)))
		return result;
	vm->has_panicked = machine.has_panicked;
	vm->is_reset_wanted = machine.is_reset_wanted;
	if (machine.is_region_open)
		region_resume(vm);
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		vm_state_changed(vm, i);
	return 0;
}

int vm_track_memory(struct vm *vm, const char *name, struct error *e)
{
	vm->tracked[0] = 0;
	memory_dirty_stop(vm->memory);
	if (!name)
		return 0;
	int r = memory_dirty_start(vm->memory, e);
	if (!r)
		snprintf(vm->tracked, sizeof(vm->tracked), "%s", name);
	return r;
}

const char *vm_tracked_memory(const struct vm *vm)
{
	return vm->tracked[0] ? vm->tracked : NULL;
}
