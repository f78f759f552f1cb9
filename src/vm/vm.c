/*
 * The machine's life cycle: checking a configuration, building, loading, taking down; and the
 * accessors. The main path of a run goes on in run.c.
 */
#include "vm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/host_time.h"
#include "vm/machine.h"

/* ---- configuration ---- */

void vm_config_defaults(struct vm_config *c)
{
	*c = (struct vm_config){
		.memory_bytes = 512ull << 20,
		.cpu_count = 1,
		.engine = "interp",
		.paging = "nested",
		.profile = "skylake-sp",
		.clock = CLOCK_VIRTUAL,
		.kvm_leaves = true,
		.seed = 1,
	};
}

static int check_memory(const struct vm_config *c, struct error *e)
{
	if (c->memory_bytes < VM_MEMORY_MIN_BYTES)
		return error_set(e, -EINVAL,
				 "--memory: %llu bytes are too little; a guest needs at least 2M",
				 (unsigned long long)c->memory_bytes);
	if (c->memory_bytes % PAGE_SIZE_BYTES)
		return error_set(e, -EINVAL, "--memory: must be a multiple of 4K");
	long pages = sysconf(_SC_PHYS_PAGES);
	uint64_t host_bytes = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
	if (host_bytes && c->memory_bytes > host_bytes)
		return error_set(e, -EINVAL, "--memory: %lluM is more than this host's %lluM",
				 (unsigned long long)(c->memory_bytes >> 20),
				 (unsigned long long)(host_bytes >> 20));
	return 0;
}

static int check_paging(const struct vm_config *c, struct error *e)
{
	struct mmu_config config = {0};
	if (mmu_parse_strategy(c->paging, &config, e))
		return error_prefix(e, "--paging");
	bool has_host_tables = !strcmp(config.strategy, "nested");
	if (c->host_levels && !has_host_tables)
		return error_set(
			e, -EINVAL,
			"--host-levels: '%s' has no host tables; it goes with --paging nested",
			c->paging);
	if (c->host_page_shift && !has_host_tables)
		return error_set(
			e, -EINVAL,
			"--host-pages: '%s' has no host tables; it goes with --paging nested",
			c->paging);
	if (c->host_levels > 5)
		return error_set(e, -EINVAL, "--host-levels: must be 1 to 5");
	unsigned leaf_level = c->host_page_shift ? (c->host_page_shift - 12) / 9 + 1 : 1;
	if (c->host_levels && leaf_level > c->host_levels)
		return error_set(e, -EINVAL,
				 "--host-pages: pages of 2^%u bytes need at least %u --host-levels",
				 c->host_page_shift, leaf_level);
	return 0;
}

static int check_profile(const struct vm_config *c, struct error *e)
{
	struct profile *p = NULL;
	int r = profile_load(c->profile, &p, e);
	profile_destroy(p);
	if (!r && c->observer_count > VM_SCHEMES_MAX - 1)
		return error_set(e, -E2BIG, "%u strategies and profiles at once; %u are possible",
				 c->observer_count + 1, VM_SCHEMES_MAX);
	return r ? error_prefix(e, "--profile") : 0;
}

static int check_cpu(const struct vm_config *c, struct error *e)
{
	struct cpu_model m;
	int r = c->cpu ? cpu_model_parse(&m, c->cpu, e) : 0;
	return r ? error_prefix(e, "--cpu") : 0;
}

static const char *serial_option(unsigned i)
{
	return i == VM_SERIAL_CONSOLE ? "--console" : "--serial";
}

static int check_serials(const struct vm_config *c, struct error *e)
{
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++) {
		const char *where = c->serial[i];
		if (!where)
			continue;
		if (serial_check(where, e))
			return error_prefix(e, "%s", serial_option(i));
		bool is_shared = !strcmp(where, "pty") || !strcmp(where, "null") ||
				 !strcmp(where, "none");
		for (unsigned k = 0; k < i && !is_shared; k++)
			if (c->serial[k] && !strcmp(c->serial[k], where))
				return error_set(e, -EINVAL, "%s: both ports would go to '%s'",
						 serial_option(i), where);
	}
	return 0;
}

int vm_config_check(const struct vm_config *c, struct error *e)
{
	if (!c->kernel && !c->saved)
		return error_set(e, -EINVAL, "--kernel FILE is missing: what shall be booted?");
	if (!c->cpu_count || c->cpu_count > VM_CPUS_MAX)
		return error_set(e, -EINVAL, "--cpus: must be 1 to %u", VM_CPUS_MAX);
	if (engine_check(c, e))
		return -EINVAL;
	if (c->stop_at && (!*c->stop_at || strlen(c->stop_at) > MATCH_MAX))
		return error_set(e, -EINVAL, "--stop-at: the text must have 1 to %d characters",
				 MATCH_MAX);
	if (c->region_to && c->region_to <= c->region_from)
		return error_set(e, -EINVAL, "--to: must be more than --from's %llu instructions",
				 (unsigned long long)c->region_from);
	int r = check_serials(c, e);
	if (!r)
		r = check_memory(c, e);
	if (!r)
		r = devices_check(c, e);
	if (!r)
		r = check_paging(c, e);
	if (!r)
		r = check_profile(c, e);
	return r ? r : check_cpu(c, e);
}

/* ---- building ---- */

static int make_memory(struct vm *vm, struct error *e)
{
	int r = memory_create(&vm->memory, vm->config.memory_bytes, e);
	if (r)
		return error_prefix(e, "--memory");
	bus_init(&vm->bus);
	vm->bus.unhandled = vm->config.unhandled;
	clock_init(&vm->clock, vm->config.clock, vm->model.tsc_hz);
	if (vm->config.has_wall_start)
		vm->clock.wall_start_s = vm->config.wall_start_s;
	return 0;
}

static int make_vcpus(struct vm *vm, struct error *e)
{
	unsigned n = vm->config.cpu_count;
	/* The state has vectors that want 32-byte alignment. */
	size_t bytes = align_up(n * sizeof(*vm->vcpus), 64);
	vm->vcpus = aligned_alloc(64, bytes);
	vm->mmus = calloc(n, sizeof(struct mmu *));
	vm->turns = calloc(n, sizeof(*vm->turns));
	vm->times = calloc(n, sizeof(*vm->times));
	if (!vm->vcpus || !vm->mmus || !vm->turns || !vm->times)
		return error_set(e, -ENOMEM, "out of memory");
	memset(vm->vcpus, 0, bytes);
	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = &vm->vcpus[i];
		v->index = i;
		v->model = &vm->model;
		v->clock = &vm->clock;
		v->ledger = &vm->ledgers[i];
		v->ledger->times = &vm->times[i];
		int r = schemes_make_mmu(vm, i, e);
		if (r)
			return r;
	}
	return 0;
}

static int make_engine(struct vm *vm, struct error *e)
{
	vm->engine_ops = engine_find(vm->config.engine, e);
	struct engine_config config = {
		.memory = vm->memory,
		.bus = &vm->bus,
		.clock = &vm->clock,
		.vcpu_count = vm->config.cpu_count,
		.intercept_rdtsc = vm->config.intercept_rdtsc,
		.perf_map = vm->config.perf_map,
		.lockstep = vm->config.lockstep,
	};
	int r = vm->engine_ops->create(&vm->engine, &config, e);
	for (unsigned i = 0; !r && i < vm->config.cpu_count; i++)
		r = vm->engine_ops->add_vcpu(vm->engine, &vm->vcpus[i], vm->mmus[i], e);
	return r;
}

static int open_serials(struct vm *vm, struct error *e)
{
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++) {
		if (!vm->config.serial[i])
			continue;
		int r = serial_open(&vm->serials[i], vm->config.serial[i], vm->poller, e);
		if (r)
			return error_prefix(e, "%s", serial_option(i));
	}
	return 0;
}

int vm_power_on(struct vm *vm, struct error *e)
{
	unsigned n = vm->config.cpu_count;
	for (unsigned i = 0; i < n; i++) {
		atomic_store(&vm->vcpus[i].requests, 0);
		vcpu_reset(&vm->vcpus[i]);
		vm->vcpus[i].state.random_state = vm->config.seed + i;
	}
	board_reset(vm);
	if (!vm->config.kernel)
		return error_set(e, -EINVAL, "the snapshot names no kernel to boot");
	struct boot_config boot = {
		.kernel = vm->config.kernel,
		.initrds = vm->config.initrd,
		.initrd_count = vm->config.initrd_count,
		.command_line = vm->config.append ? vm->config.append : VM_DEFAULT_APPEND,
		.format = vm->config.kernel_format,
		.vcpu_count = n,
		.virtio_mmio_count = devices_mmio_count(vm),
		.has_acpi = true,
		.has_mp_table = true,
	};
	int r = boot_load(&boot, vm->memory, &vm->vcpus[0], e);
	if (r)
		return r;
	for (unsigned i = 0; i < n; i++) {
		mmu_reset(vm->mmus[i]);
		vm->engine_ops->state_changed(vm->engine, i);
		vm->turns[i] = (struct vcpu_turn){.time = clock_now(&vm->clock)};
	}
	vm->has_panicked = false;
	return 0;
}

static int resume(struct vm *vm, struct error *e)
{
	const struct vm_saved *saved = vm->config.saved;
	vm->config.saved = NULL; /* borrowed no longer than this */
	vm->instructions_before = saved->instructions;
	int r = saved->fill_memory(saved->opaque, vm->memory, e);
	return r ? r : vm_load(vm, saved->state, e);
}

static int build(struct vm *vm, struct error *e)
{
	int r = vm_config_check(&vm->config, e);
	if (!r)
		r = engine_check_host(&vm->config, e);
	if (r)
		return r;
	if (poller_create(&vm->poller))
		return error_set(e, -ENOMEM, "out of memory");
	console_init(&vm->console, &vm->config);
	if ((r = schemes_create(vm, e)) || (r = engine_make_model(vm, e)) ||
	    (r = make_memory(vm, e)) || (r = make_vcpus(vm, e)) || (r = make_engine(vm, e)) ||
	    (r = board_create(vm, e)) ||
	    (r = vm->config.saved ? resume(vm, e) : vm_power_on(vm, e)))
		return r;
	if (vm_trace_start(vm))
		return error_set(e, -ENOMEM, "--trace-exits: out of memory");
	return 0;
}

int vm_create(struct vm **out, const struct vm_config *config, struct error *e)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_set(e, -ENOMEM, "out of memory");
	vm->config = *config;
	vm->created_ns = host_time_ns();
	vm->created_ticks = __rdtsc();
	vm->step_vcpu = -1;
	vm->poll_interval_ns = 1;
	vm->time_limit_ns = UINT64_MAX;
	int r = build(vm, e);
	/* Last, so that a terminal in raw mode never sees an error message. */
	if (!r)
		r = open_serials(vm, e);
	if (r) {
		vm_destroy(vm);
		return r;
	}
	board_connect_serials(vm);
	*out = vm;
	return 0;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		serial_close(vm->serials[i]);
	if (vm->engine)
		vm->engine_ops->destroy(vm->engine);
	board_destroy(vm);
	for (unsigned i = 0; vm->mmus && i < vm->config.cpu_count; i++)
		mmu_destroy(vm->mmus[i]);
	vm_trace_stop(vm);
	free(vm->regions);
	free(vm->turns);
	free(vm->times);
	free(vm->mmus);
	free(vm->vcpus);
	memory_destroy(vm->memory);
	schemes_destroy(vm);
	poller_destroy(vm->poller);
	free(vm);
}

/* ---- from outside the guest ---- */

bool vm_power_button(struct vm *vm)
{
	return board_power_button(vm);
}

void vm_inject_nmi(struct vm *vm)
{
	vcpu_request(&vm->vcpus[0], REQUEST_NMI);
}

void vm_pause(struct vm *vm)
{
	vm->is_paused = true;
	vm_interrupt_engines(vm);
}

void vm_resume(struct vm *vm)
{
	vm->is_paused = false;
}

bool vm_is_paused(const struct vm *vm)
{
	return vm->is_paused;
}

void vm_step(struct vm *vm, unsigned vcpu)
{
	vm->step_vcpu = (int)vcpu;
}

int vm_set_breakpoint(struct vm *vm, gva_t address, bool on)
{
	return vm->engine_ops->set_breakpoint(vm->engine, address, on);
}

void vm_state_changed(struct vm *vm, unsigned vcpu)
{
	mmu_reset(vm->mmus[vcpu]);
	vm->engine_ops->state_changed(vm->engine, vcpu);
}

int vm_observe(struct vm *vm, struct vm_observer observer)
{
	if (vm->observer_count == VM_OBSERVERS_MAX)
		return -ENOSPC;
	vm->observers[vm->observer_count++] = observer;
	return 0;
}

int vm_call_at(struct vm *vm, uint64_t instruction, void (*call)(void *opaque), void *opaque)
{
	if (vm->pending.call)
		return -EBUSY;
	vm->pending.call = call;
	vm->pending.opaque = opaque;
	vm->pending.instruction = instruction;
	return 0;
}

/* ---- accessors ---- */

const struct vm_config *vm_config(const struct vm *vm)
{
	return &vm->config;
}

unsigned vm_cpu_count(const struct vm *vm)
{
	return vm->config.cpu_count;
}

struct vcpu *vm_vcpu(struct vm *vm, unsigned i)
{
	return &vm->vcpus[i];
}

struct mmu *vm_mmu(struct vm *vm, unsigned i)
{
	return vm->mmus[i];
}

const struct ledger *vm_ledger(const struct vm *vm, unsigned i)
{
	return &vm->ledgers[i];
}

struct memory *vm_memory(struct vm *vm)
{
	return vm->memory;
}

struct bus *vm_bus(struct vm *vm)
{
	return &vm->bus;
}

struct clock *vm_clock(struct vm *vm)
{
	return &vm->clock;
}

struct poller *vm_poller(struct vm *vm)
{
	return vm->poller;
}

struct serial *vm_serial(struct vm *vm, unsigned i)
{
	return vm->serials[i];
}

const struct profile *vm_profile(const struct vm *vm)
{
	return vm->schemes[0].profile;
}

uint64_t vm_instructions(const struct vm *vm)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		sum += ledger_total(&vm->ledgers[i], EVENT_INSTRUCTION);
	return sum;
}

uint64_t vm_instructions_ever(const struct vm *vm)
{
	return vm->instructions_before + vm_instructions(vm);
}

const struct cpu_model *vm_model(const struct vm *vm)
{
	return &vm->model;
}

uint64_t vm_console_bytes(const struct vm *vm)
{
	return vm->console.state.byte_count;
}
