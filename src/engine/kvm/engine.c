/*
 * The engine's contract over /dev/kvm: making and unmaking the kernel's machine, with the guest's
 * RAM as its memory.
 *
 * KVM writes guest memory without asking our page flags, so nothing here may hold translations or
 * decoded code; the dirty log is the kernel's, and memory/ asks for it (kvm_dirty_source).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "engine/kvm/private.h"
#include "memory/memory.h"

/* ---- memory ---- */

static int set_slots(struct kvm_engine *k, bool is_logged, struct error *e)
{
	const struct memory *m = k->config.memory;

	for (unsigned i = 0; i < m->slot_count; i++) {
		const struct memslot *s = &m->slots[i];
		struct kvm_userspace_memory_region region = {
			.slot = i,
			.flags = (is_logged ? KVM_MEM_LOG_DIRTY_PAGES : 0) |
				 (s->is_rom ? KVM_MEM_READONLY : 0),
			.guest_phys_addr = s->base.v,
			.memory_size = s->size_bytes,
			.userspace_addr = (uintptr_t)s->host,
		};
		if (ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
			return error_set(e, -errno,
					 "KVM does not take %llu MiB at %#llx as guest memory: %s",
					 (unsigned long long)(s->size_bytes >> 20),
					 (unsigned long long)s->base.v, strerror(errno));
	}
	return 0;
}

static int log_dirty(void *opaque, bool is_on, struct error *e)
{
	return set_slots(opaque, is_on, e);
}

/* Adds a slot's bits to the machine's bitmap, which numbers the pages of all slots. */
static int add_slot_log(const struct kvm_engine *k, unsigned slot, uint8_t *bitmap)
{
	const struct memory *m = k->config.memory;
	const struct memslot *s = &m->slots[slot];
	uint64_t pages = s->size_bytes >> PAGE_SHIFT, first = memory_page_index(m, s->base);
	uint64_t *bits = calloc((pages + 63) / 64, 8);
	struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bits};

	if (!bits)
		return -ENOMEM;
	int r = ioctl(k->vm, KVM_GET_DIRTY_LOG, &log) < 0 ? -errno : 0;
	for (uint64_t i = 0; !r && i < pages; i++)
		if (bits[i / 64] >> (i % 64) & 1)
			bitmap[(first + i) / 8] |= (uint8_t)(1u << ((first + i) % 8));
	free(bits);
	return r;
}

static int collect_dirty(void *opaque, uint8_t *bitmap)
{
	const struct kvm_engine *k = opaque;
	int r = 0;

	for (unsigned i = 0; !r && i < k->config.memory->slot_count; i++)
		r = add_slot_log(k, i, bitmap);
	return r;
}

/* ---- life ---- */

static void kvm_destroy(struct engine *engine)
{
	struct kvm_engine *k = (struct kvm_engine *)engine;

	if (!k)
		return;
	if (k->config.memory)
		memory_set_dirty_source(k->config.memory, (struct memory_dirty_source){0}, NULL);
	for (unsigned i = 0; k->vcpus && i < k->config.vcpu_count; i++)
		kvm_cpu_close(&k->vcpus[i].cpu);
	kvm_deadline_close(&k->deadline);
	if (k->vm >= 0)
		close(k->vm);
	if (k->kvm >= 0)
		close(k->kvm);
	free(k->vcpus);
	free(k);
}

int kvm_tsc_hz(uint64_t *hz, struct error *e)
{
	struct kvm_cpu cpu = {.fd = -1};
	int kvm, vm = -1, khz = 0, r = kvm_host_open(&kvm, e);

	if (r)
		return r;
	r = kvm_host_create_vm(kvm, &vm, e);
	if (!r)
		r = kvm_cpu_open(&cpu, kvm, vm, 0, e);
	if (!r && (khz = ioctl(cpu.fd, KVM_GET_TSC_KHZ, 0)) <= 0)
		r = error_set(e, -EOPNOTSUPP, "KVM does not say how fast the host's TSC ticks");
	*hz = (uint64_t)khz * 1000;
	kvm_cpu_close(&cpu);
	if (vm >= 0)
		close(vm);
	close(kvm);
	return r;
}

/* The guest reads the host's TSC, so the machine's clock has to be that. */
static int follow_tsc(struct kvm_engine *k, struct error *e)
{
	struct clock *clock = k->config.clock;
	uint64_t hz;
	int r = kvm_tsc_hz(&hz, e);

	if (r)
		return r;
	/* What the kernel itself takes for equal: a thousandth. */
	uint64_t difference = hz > clock->hz ? hz - clock->hz : clock->hz - hz;
	if (difference > hz / 1000)
		return error_set(
			e, -EOPNOTSUPP,
			"the guest's TSC ticks at %.3f GHz, and under kvm it would be this "
			"host's at %.3f GHz",
			(double)clock->hz / 1e9, (double)hz / 1e9);
	clock_follow_tsc(clock);
	return 0;
}

static int kvm_create(struct engine **out, const struct engine_config *config, struct error *e)
{
	struct kvm_engine *k = calloc(1, sizeof(*k));

	if (!k)
		return error_set(e, -ENOMEM, "out of memory");
	k->engine.ops = &kvm_ops;
	k->config = *config;
	k->kvm = k->vm = -1;
	k->vcpus = calloc(config->vcpu_count, sizeof(*k->vcpus));
	for (unsigned i = 0; k->vcpus && i < config->vcpu_count; i++)
		k->vcpus[i].cpu.fd = -1;
	int r = k->vcpus ? 0 : error_set(e, -ENOMEM, "out of memory");
	if (r || (r = kvm_host_open(&k->kvm, e)) || (r = kvm_host_create_vm(k->kvm, &k->vm, e)) ||
	    (r = follow_tsc(k, e)) || (r = set_slots(k, false, e)) ||
	    (r = memory_set_dirty_source(config->memory,
					 (struct memory_dirty_source){log_dirty, collect_dirty, k},
					 e))) {
		kvm_destroy(&k->engine);
		return r;
	}
	*out = &k->engine;
	return 0;
}

static int kvm_add_vcpu(struct engine *engine, struct vcpu *v, struct mmu *mmu, struct error *e)
{
	struct kvm_engine *k = (struct kvm_engine *)engine;
	struct kvm_vcpu *c = &k->vcpus[v->index];
	int r = 0;

	/* KVM wants to know before there is a vcpu. */
	if (!k->vcpu_count++)
		r = kvm_filter_msrs(k->vm, cpu_has(v->model, FEATURE_RDTSCP),
				    cpu_has(v->model, FEATURE_SPEC_CTRL), e);
	c->v = v;
	c->mmu = mmu;
	if (!r)
		r = kvm_cpu_open(&c->cpu, k->kvm, k->vm, v->index, e);
	return r ? r : kvm_cpuid_set(k, c, e);
}

static void kvm_run(struct engine *engine, unsigned index, uint64_t until_cycles,
		    struct vm_exit *exit)
{
	struct kvm_engine *k = (struct kvm_engine *)engine;
	struct kvm_vcpu *c = &k->vcpus[index];
	struct error e;
	pid_t thread = k->deadline.thread;
	int r = kvm_deadline_open(&k->deadline, &e);

	if (!r && (!c->is_attached || thread != k->deadline.thread))
		r = kvm_deadline_attach(&k->deadline, &c->cpu);
	if (r) {
		kvm_give_up(k, exit, "no deadline for KVM_RUN: %s", strerror(-r));
		return;
	}
	c->is_attached = true;
	k->until = until_cycles;
	kvm_run_vcpu(k, c, exit);
}

static void kvm_state_changed(struct engine *engine, unsigned index)
{
	struct kvm_vcpu *c = &((struct kvm_engine *)engine)->vcpus[index];

	c->is_loaded = false;
	c->is_unfinished = false;
}

static int kvm_set_breakpoint(struct engine *engine, gva_t address, bool on)
{
	struct kvm_engine *k = (struct kvm_engine *)engine;
	unsigned kept = 0;

	for (unsigned i = 0; i < k->breakpoint_count; i++)
		if (k->breakpoints[i] != address.v)
			k->breakpoints[kept++] = k->breakpoints[i];
	k->breakpoint_count = kept;
	if (!on)
		return 0;
	if (kept == KVM_BREAKPOINTS_MAX)
		return -ENOSPC;
	k->breakpoints[k->breakpoint_count++] = address.v;
	return 0;
}

static void kvm_single_step(struct engine *engine, unsigned index)
{
	((struct kvm_engine *)engine)->vcpus[index].is_stepping = true;
}

bool kvm_counts(enum event e)
{
	switch (e) {
	case EVENT_EXIT_PORT_READ:
	case EVENT_EXIT_PORT_WRITE:
	case EVENT_EXIT_MMIO_READ:
	case EVENT_EXIT_MMIO_WRITE:
	case EVENT_EXIT_MSR_READ:
	case EVENT_EXIT_MSR_WRITE:
	case EVENT_EXIT_HLT:
	case EVENT_EXIT_INTERRUPT_WINDOW:
	case EVENT_EXIT_NMI:
	case EVENT_EXIT_TRIPLE_FAULT:
	case EVENT_GUEST_INTERRUPT:
	case EVENT_UNHANDLED_PORT:
	case EVENT_UNHANDLED_MMIO:
	case EVENT_UNHANDLED_MSR: return true;
	default: return false;
	}
}

const struct engine_ops kvm_ops = {
	.create = kvm_create,
	.destroy = kvm_destroy,
	.add_vcpu = kvm_add_vcpu,
	.run = kvm_run,
	.state_changed = kvm_state_changed,
	.set_breakpoint = kvm_set_breakpoint,
	.single_step = kvm_single_step,
};
