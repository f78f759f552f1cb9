/*
 * Cutting the count: the region of interest, between marks that a guest program sets, instruction
 * counts or lines that the guest prints, and the ring of the last exits.
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
	unsigned count = vm->config.cpu_count * vm->simulation_count;
	if (vm->is_region_open)
		return;
	if (!vm->regions)
		vm->regions = calloc(count, sizeof(*vm->regions));
	if (!vm->regions) {
		log_warn("no memory to count a region of interest");
		return;
	}
	for (unsigned i = 0; i < count; i++)
		vm->regions[i].begin = vm->ledgers[i];
	vm->is_region_open = true;
}

static void region_end(struct vm *vm)
{
	if (!vm->is_region_open)
		return;
	for (unsigned i = 0; i < vm->config.cpu_count * vm->simulation_count; i++)
		add_difference(&vm->regions[i].inside, &vm->ledgers[i], &vm->regions[i].begin);
	vm->is_region_open = false;
	if (vm->config.ends_with_region)
		vm_end_with(vm, 0, VM_END_REGION, 0, "the region of interest is over");
}

/* Where marks do not decide: the configuration names both ends or the begin in another way. */
static bool is_region_configured(const struct vm_config *c)
{
	return c->region_from || c->region_to || c->region_from_text || c->region_to_text;
}

void vm_mark(struct vm *vm, uint32_t mark)
{
	log_debug("mark %u at instruction %llu", mark, (unsigned long long)vm_instructions(vm));
	bool is_by_marks = !is_region_configured(&vm->config);
	if (is_by_marks && mark == VM_MARK_BEGIN)
		region_begin(vm);
	else if (is_by_marks && mark == VM_MARK_END)
		region_end(vm);
	for (unsigned i = 0; i < vm->observer_count; i++)
		if (vm->observers[i].marked)
			vm->observers[i].marked(vm->observers[i].opaque, mark);
}

void region_resume(struct vm *vm)
{
	if (!is_region_configured(&vm->config))
		region_begin(vm);
}

void region_text_printed(struct vm *vm, bool is_from)
{
	if (is_from)
		region_begin(vm);
	else
		region_end(vm);
}

uint64_t region_edge(const struct vm *vm)
{
	const struct vm_config *c = &vm->config;
	if (!vm->is_region_open && !vm->is_region_done && !c->region_from_text &&
	    (c->region_from || c->region_to))
		return c->region_from;
	return vm->is_region_open && c->region_to ? c->region_to : UINT64_MAX;
}

void region_pass(struct vm *vm)
{
	if (!vm->is_region_open) {
		region_begin(vm);
	} else {
		region_end(vm);
		vm->is_region_done = true;
	}
}

bool region_ledger(const struct vm *vm, unsigned simulation, unsigned vcpu, struct ledger *out)
{
	unsigned i = simulation * vm->config.cpu_count + vcpu;
	if (!vm->regions)
		return false;
	*out = vm->regions[i].inside;
	if (vm->is_region_open)
		add_difference(out, &vm->ledgers[i], &vm->regions[i].begin);
	return true;
}

bool vm_region_ledger(const struct vm *vm, unsigned vcpu, struct ledger *out)
{
	return region_ledger(vm, 0, vcpu, out);
}

static void remember(struct trace_ring *ring, const struct ledger *l, enum event e)
{
	ring->exits[ring->count++ % ring->vm->config.trace_exits] = (struct vm_traced_exit){
		.instruction = ledger_total(l, EVENT_INSTRUCTION),
		.rip = ring->vm->vcpus[ring->vcpu].state.rip,
		.event = e,
		.ring = l->ring,
	};
}

static void charged(void *opaque, enum event e)
{
	struct trace_ring *ring = opaque;
	struct vm *vm = ring->vm;
	const struct vcpu_state *s = &vm->vcpus[ring->vcpu].state;
	const struct ledger *l = &vm->ledgers[ring->vcpu];
	if (ring->exits && event_is_exit(e))
		remember(ring, l, e);
	if (vm->charge_hook.told)
		vm->charge_hook.told(vm->charge_hook.opaque,
				     &(struct vm_charge){
					     .ledger = l,
					     .event = e,
					     .address = s->seg[SEG_CS].base + s->rip,
					     .vcpu = ring->vcpu,
					     .has_region = vm->regions != NULL,
					     .is_in_region = vm->is_region_open,
				     });
}

static int make_traces(struct vm *vm)
{
	if (!vm->traces)
		vm->traces = calloc(vm->config.cpu_count, sizeof(*vm->traces));
	if (!vm->traces)
		return -ENOMEM;
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		vm->traces[i].vm = vm;
		vm->traces[i].vcpu = i;
		vm->ledgers[i].on_charge = charged;
		vm->ledgers[i].on_charge_opaque = &vm->traces[i];
	}
	return 0;
}

int vm_trace_start(struct vm *vm)
{
	if (!vm->config.trace_exits)
		return 0;
	int r = make_traces(vm);
	for (unsigned i = 0; i < vm->config.cpu_count && !r; i++) {
		vm->traces[i].exits = calloc(vm->config.trace_exits, sizeof(*vm->traces[i].exits));
		r = vm->traces[i].exits ? 0 : -ENOMEM;
	}
	return r;
}

int vm_on_charge(struct vm *vm, struct vm_charge_hook hook)
{
	vm->charge_hook = hook;
	return make_traces(vm);
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
