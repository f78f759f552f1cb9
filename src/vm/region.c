/*
 * Cutting the count: marks that a guest program sets around its region of interest, and the ring of
 * the last exits.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "vm/machine.h"

static void add_difference(struct ledger *to, const struct ledger *now, const struct ledger *then)
{
	for (unsigned e = 0; e < EVENT_COUNT; e++)
		for (unsigned r = 0; r < RING_COUNT; r++)
			to->count[e][r] += now->count[e][r] - then->count[e][r];
}

static void region_begin(struct vm *vm)
{
	if (!vm->regions)
		vm->regions = calloc(vm->config.cpu_count, sizeof(*vm->regions));
	if (!vm->regions) {
		log_warn("no memory to count a region of interest");
		return;
	}
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		vm->regions[i].begin = vm->ledgers[i];
	vm->is_region_open = true;
}

static void region_end(struct vm *vm)
{
	if (!vm->is_region_open)
		return;
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		add_difference(&vm->regions[i].inside, &vm->ledgers[i], &vm->regions[i].begin);
	vm->is_region_open = false;
}

void vm_mark(struct vm *vm, uint32_t mark)
{
	log_debug("mark %u at instruction %llu", mark, (unsigned long long)vm_instructions(vm));
	if (mark == VM_MARK_BEGIN && !vm->is_region_open)
		region_begin(vm);
	else if (mark == VM_MARK_END)
		region_end(vm);
}

bool vm_region_ledger(const struct vm *vm, unsigned vcpu, struct ledger *out)
{
	if (!vm->regions)
		return false;
	*out = vm->regions[vcpu].inside;
	if (vm->is_region_open)
		add_difference(out, &vm->ledgers[vcpu], &vm->regions[vcpu].begin);
	return true;
}

static void record(void *opaque, enum event e)
{
	struct trace_ring *ring = opaque;
	const struct ledger *l = &ring->vm->ledgers[ring->vcpu];
	ring->exits[ring->count++ % ring->vm->config.trace_exits] = (struct vm_traced_exit){
		.instruction = ledger_total(l, EVENT_INSTRUCTION),
		.rip = ring->vm->vcpus[ring->vcpu].state.rip,
		.event = e,
		.ring = l->ring,
	};
}

int vm_trace_start(struct vm *vm)
{
	if (!vm->config.trace_exits)
		return 0;
	vm->traces = calloc(vm->config.cpu_count, sizeof(*vm->traces));
	if (!vm->traces)
		return -ENOMEM;
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		struct trace_ring *ring = &vm->traces[i];
		ring->exits = calloc(vm->config.trace_exits, sizeof(*ring->exits));
		if (!ring->exits)
			return -ENOMEM;
		ring->vm = vm;
		ring->vcpu = i;
		vm->ledgers[i].on_exit = record;
		vm->ledgers[i].on_exit_opaque = ring;
	}
	return 0;
}

void vm_trace_stop(struct vm *vm)
{
	for (unsigned i = 0; vm->traces && i < vm->config.cpu_count; i++)
		free(vm->traces[i].exits);
	free(vm->traces);
	vm->traces = NULL;
}

bool vm_trace(const struct vm *vm, unsigned vcpu, unsigned back, struct vm_traced_exit *out)
{
	if (!vm->traces || vcpu >= vm->config.cpu_count)
		return false;
	const struct trace_ring *ring = &vm->traces[vcpu];
	if (back >= ring->count || back >= vm->config.trace_exits)
		return false;
	*out = ring->exits[(ring->count - 1 - back) % vm->config.trace_exits];
	return true;
}
