/*
 * Exits through /dev/kvm, with guests of a few bytes (engine/kvm's probes): one instruction in a
 * loop, in 64-bit mode. What KVM answers in the kernel the guest does many times before a HLT ends
 * the turn; the rest comes back to user space each time.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "calibrate/private.h"
#include "engine/kvm/probe.h"

#define ROUND 200u	      /* repetitions in one turn of what is answered in the kernel */
#define TURNS 100u	      /* of what is not */
#define TURN_NS 2000000000ull /* none may take longer */

struct exit_row {
	enum measure_id id;
	struct kvm_guest_code code;
	int reason;	 /* that each turn must end with */
	unsigned events; /* in a turn */
	bool is_touching;
};

struct guest {
	struct kvm_probe probe;
	const struct exit_row *row;
	int reason; /* what the last turn ended with */
};

static double run_turns(struct guest *g, unsigned turns)
{
	double start = now_seconds();

	for (unsigned i = 0; i < turns; i++) {
		g->reason = kvm_probe_run(&g->probe, i ? 0 : TURN_NS);
		if (g->reason != g->row->reason)
			return -1;
	}
	return (now_seconds() - start) / (turns * g->row->events);
}

static double run_once(void *opaque)
{
	struct guest *g = opaque;

	return run_turns(g, g->row->events > 1 ? 1 : TURNS);
}

/* KVM forgets the pages, the host gets them back before the guest asks: what is left is KVM's own
 * fault. The second pass finds them there, and is taken off. */
static double touch_once(void *opaque)
{
	struct guest *g = opaque;
	volatile uint8_t *pages = g->probe.memory + PROBE_TOUCHED;

	if (madvise((void *)(uintptr_t)pages, PROBE_PAGES_MAX * 4096u, MADV_DONTNEED))
		return -1;
	for (unsigned i = 0; i < PROBE_PAGES_MAX; i++)
		pages[i * 4096u] = 1;
	double first = run_turns(g, 1);
	double second = first < 0 ? -1 : run_turns(g, 1);

	return second < 0 || first <= second ? -1 : first - second;
}

static void note_conditions(const struct host *h, struct measure *m)
{
	if (!h->has_vmx_or_svm)
		snprintf(m->note, sizeof(m->note),
			 "this machine shows neither VT-x nor SVM: its /dev/kvm is a software one");
	else if (h->is_virtualized)
		snprintf(m->note, sizeof(m->note),
			 "nested: this machine is a guest itself, and each exit is several");
}

static void refuse(struct measure *m, const struct guest *g)
{
	if (g->reason == g->row->reason)
		measure_refuse(m, "the first touch of a page takes no longer than the second");
	else
		measure_refuse(m, "the guest ended with exit reason %d", g->reason);
}

/* A virtual machine for each: what one leaves behind is not the next one's. */
static void measure_exit(struct run *r, const struct exit_row *row)
{
	struct guest g = {.row = row};
	struct measure *m = &r->out->measure[row->id];
	struct error e = {0};
	int rc = kvm_probe_open(&g.probe, NULL, &e);

	if (!rc && row->reason == KVM_EXIT_X86_RDMSR)
		rc = kvm_filter_msrs(g.probe.vm, false, false, &e);
	if (!rc)
		rc = kvm_probe_start(&g.probe, PROBE_LONG, row->code, row->events, &e);
	if (rc)
		measure_refuse(m, "%.110s", e.text);
	else if (!sample(&(struct sampler){row->is_touching ? touch_once : run_once, &g,
					   run_samples(r), 3},
			 m))
		refuse(m, &g);
	else
		note_conditions(&r->out->host, m);
	kvm_probe_close(&g.probe);
}

void measure_exits(struct run *r)
{
	const struct exit_row rows[] = {
		{MEASURE_EXIT_CPUID, KVM_GUEST(time_cpuid), KVM_EXIT_HLT, ROUND, false},
		{MEASURE_EXIT_MSR_KERNEL, KVM_GUEST(time_msr_kernel), KVM_EXIT_HLT, ROUND, false},
		{MEASURE_EXIT_CR3, KVM_GUEST(time_cr3), KVM_EXIT_HLT, ROUND, false},
		{MEASURE_EXIT_INVLPG, KVM_GUEST(time_invlpg), KVM_EXIT_HLT, ROUND, false},
		{MEASURE_EXIT_RDTSC, KVM_GUEST(time_rdtsc), KVM_EXIT_HLT, ROUND, false},
		{MEASURE_EXIT_FAULT, KVM_GUEST(time_touch), KVM_EXIT_HLT, PROBE_PAGES_MAX, true},
		{MEASURE_EXIT_PORT_READ, KVM_GUEST(time_port_in), KVM_EXIT_IO, 1, false},
		{MEASURE_EXIT_PORT, KVM_GUEST(time_port), KVM_EXIT_IO, 1, false},
		{MEASURE_EXIT_MMIO_READ, KVM_GUEST(time_mmio_read), KVM_EXIT_MMIO, 1, false},
		{MEASURE_EXIT_MMIO, KVM_GUEST(time_mmio), KVM_EXIT_MMIO, 1, false},
		{MEASURE_EXIT_MSR, KVM_GUEST(time_msr_read), KVM_EXIT_X86_RDMSR, 1, false},
		{MEASURE_EXIT_HLT, KVM_GUEST(time_hlt), KVM_EXIT_HLT, 1, false},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		run_next(r, rows[i].id);
		measure_exit(r, &rows[i]);
	}
}
