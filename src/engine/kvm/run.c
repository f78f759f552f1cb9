/*
 * run() of the contract: KVM_RUN in a loop until the time is up or an exit is the run loop's.
 *
 * The time is up when the deadline's signal ends KVM_RUN. Interrupts are ours: the local APIC says
 * which, KVM when the guest would take one (ready_for_interrupt_injection, or an exit once the
 * window opens). Before it returns, run() lets the guest take whatever KVM has accepted on its
 * behalf (settle), so that v->state is all there is.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "clock/clock.h"
#include "engine/kvm/private.h"
#include "paging/mmu.h"

/* How long the guest may go on, after its time is up, to take an interrupt; and how often we try.
 */
#define SETTLE_NS 20000u
#define SETTLE_MAX 1000u

static bool leave(struct vm_exit *exit, enum exit_reason reason)
{
	*exit = (struct vm_exit){.reason = reason};
	return false;
}

/* ---- the state, both ways ---- */

int kvm_set_tsc_offset(const struct kvm_cpu *c, uint64_t offset)
{
	struct kvm_device_attr attribute = {.group = KVM_VCPU_TSC_CTRL,
					    .attr = KVM_VCPU_TSC_OFFSET,
					    .addr = (uintptr_t)&offset};

	return ioctl(c->fd, KVM_SET_DEVICE_ATTR, &attribute) < 0 ? -errno : 0;
}

/* KVM's offset is to the host's TSC, ours to the machine's clock, which counts from a TSC of its
 * own (clock_tsc_zero). */
static int put_tsc(struct kvm_engine *k, struct kvm_vcpu *c)
{
	uint64_t offset = c->v->state.tsc_offset - clock_tsc_zero(k->config.clock);

	if (c->has_tsc_offset && c->tsc_offset == offset)
		return 0;
	int r = kvm_set_tsc_offset(&c->cpu, offset);
	if (r)
		return r;
	c->tsc_offset = offset;
	c->has_tsc_offset = true;
	return 0;
}

static bool put_state(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	const char *what = "the TSC's offset";
	int r = c->is_loaded ? 0 : kvm_registers_put(c, &what);

	if (!r) {
		what = "the TSC's offset";
		r = put_tsc(k, c);
	}
	if (r)
		return kvm_give_up(k, exit, "this host's KVM refuses the guest's %s: %s", what,
				   strerror(-r));
	if (!c->is_loaded)
		c->cpu.run->ready_for_interrupt_injection = 0;
	c->is_loaded = true;
	return true;
}

/* Who looks at guest addresses from outside walks with the mmu's idea of the control registers. */
static void tell_mmu(struct kvm_vcpu *c, const struct vcpu_state *old)
{
	const struct vcpu_state *s = &c->v->state;

	if (s->cr0 != old->cr0 || s->cr3 != old->cr3 || s->cr4 != old->cr4 ||
	    s->efer != old->efer || s->cpl != old->cpl)
		mmu_reset(c->mmu);
}

static bool get_state(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	const char *what;
	struct vcpu_state *s = &c->v->state;
	const struct vcpu_state old = {
		.cr0 = s->cr0, .cr3 = s->cr3, .cr4 = s->cr4, .efer = s->efer, .cpl = s->cpl};
	int r = kvm_registers_get(c, &what);

	if (r)
		return kvm_give_up(k, exit, "this host's KVM does not tell the guest's %s: %s",
				   what, strerror(-r));
	tell_mmu(c, &old);
	c->v->ledger->ring = s->cpl == 3 ? RING_USER : RING_KERNEL;
	return true;
}

/* ---- entering ---- */

static void take_tpr(struct kvm_vcpu *c)
{
	struct vcpu *v = c->v;
	uint8_t tpr = (uint8_t)(c->cpu.run->cr8 << 4);

	/* The lower half of the TPR is the APIC's own. */
	if (v->apic_ops && v->apic_ops->get_tpr(v->apic) >> 4 != tpr >> 4)
		v->apic_ops->set_tpr(v->apic, tpr);
}

/* KVM_RUN once. 1: an exit, 0: interrupted, -errno. */
static int enter(struct kvm_vcpu *c)
{
	struct kvm_run *run = c->cpu.run;

	if (c->v->apic_ops)
		run->cr8 = c->v->apic_ops->get_tpr(c->v->apic) >> 4;
	int r = ioctl(c->cpu.fd, KVM_RUN, 0) < 0 ? -errno : 1;
	take_tpr(c);
	if (r == 1 || r == -EINTR)
		c->is_unfinished = false;
	return r == -EINTR || r == -EAGAIN ? 0 : r;
}

static bool fail_run(struct kvm_engine *k, struct vm_exit *exit, int code)
{
	return kvm_give_up(k, exit, "this host's KVM does not run the guest: %s", strerror(-code));
}

/* Ends an instruction whose access was answered. */
static bool finish_instruction(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	bool goes_on = true;

	while (goes_on && c->is_unfinished) {
		c->cpu.run->immediate_exit = 1;
		int r = enter(c);
		c->cpu.run->immediate_exit = 0;
		if (r < 0)
			return fail_run(k, exit, r);
		if (r == 1)
			goes_on = kvm_handle_exit(k, c, exit);
	}
	return goes_on;
}

/* Nothing is left on its way into the guest. A fault that keeps coming comes again by itself. */
static void settle(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	struct vm_exit late = {.reason = EXIT_BUDGET};
	bool goes_on = finish_instruction(k, c, &late);

	for (unsigned n = 0; goes_on && n < SETTLE_MAX && kvm_is_delivering(c); n++) {
		c->cpu.run->request_interrupt_window = 0;
		k->armed = 0;
		kvm_deadline_set(&k->deadline, SETTLE_NS);
		int r = enter(c);
		kvm_deadline_clear(&k->deadline);
		if (r < 0)
			goes_on = fail_run(k, &late, r);
		else if (r == 1)
			goes_on = kvm_handle_exit(k, c, &late);
		if (goes_on)
			goes_on = finish_instruction(k, c, &late);
	}
	if (exit->reason == EXIT_BUDGET)
		*exit = late;
}

/* Makes v->state all there is. */
static bool fetch(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	if (!c->is_loaded)
		return true;
	settle(k, c, exit);
	return exit->reason != EXIT_HOST && get_state(k, c, exit);
}

/* ---- what comes from outside ---- */

static bool take_signal(struct kvm_engine *k, struct kvm_vcpu *c, uint32_t requests,
			struct vm_exit *exit)
{
	*exit = (struct vm_exit){.reason = EXIT_BUDGET};
	if (!fetch(k, c, exit))
		return false;
	if (requests & REQUEST_INIT) {
		vcpu_withdraw(c->v, REQUEST_INIT);
		vcpu_init_signal(c->v);
	} else {
		vcpu_withdraw(c->v, REQUEST_SIPI);
		vcpu_sipi(c->v, c->v->state.sipi_vector);
	}
	mmu_reset(c->mmu);
	c->is_loaded = false;
	return true;
}

static void give_nmi(struct kvm_vcpu *c)
{
	vcpu_withdraw(c->v, REQUEST_NMI);
	ledger_halt_end(c->v->ledger);
	c->v->state.activity = ACTIVITY_RUNNING;
	ledger_charge(c->v->ledger, EVENT_EXIT_NMI);
	ioctl(c->cpu.fd, KVM_NMI);
}

static void give_interrupt(struct kvm_vcpu *c)
{
	struct vcpu *v = c->v;
	struct kvm_run *run = c->cpu.run;

	run->request_interrupt_window = 0;
	if (!(atomic_load_explicit(&v->requests, memory_order_acquire) & REQUEST_INTERRUPT) ||
	    !v->apic_ops || v->apic_ops->pending(v->apic) < 0)
		return;
	if (v->state.activity == ACTIVITY_HALTED) {
		if (!(v->state.rflags & FLAG_IF))
			return;
		ledger_halt_end(v->ledger);
		v->state.activity = ACTIVITY_RUNNING;
	}
	if (!run->ready_for_interrupt_injection) {
		run->request_interrupt_window = 1;
		return;
	}
	int vector = v->apic_ops->acknowledge(v->apic);
	if (vector < 0)
		return;
	struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};
	ioctl(c->cpu.fd, KVM_INTERRUPT, &interrupt);
	ledger_charge(v->ledger, EVENT_GUEST_INTERRUPT);
	run->ready_for_interrupt_injection = 0;
	run->request_interrupt_window = v->apic_ops->pending(v->apic) >= 0;
}

/* Like the interpreter's, with the same priorities. False: run() ends. */
static bool attend(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	struct vcpu_state *s = &c->v->state;
	uint32_t requests = atomic_load_explicit(&c->v->requests, memory_order_acquire);

	if (requests & REQUEST_STOP) {
		vcpu_withdraw(c->v, REQUEST_STOP);
		return leave(exit, EXIT_STOP);
	}
	if (s->activity == ACTIVITY_SHUTDOWN)
		return leave(exit, EXIT_SHUTDOWN);
	if (requests & (REQUEST_INIT | REQUEST_SIPI) && !take_signal(k, c, requests, exit))
		return false;
	if (s->activity == ACTIVITY_WAIT_SIPI)
		return leave(exit, EXIT_HALT);
	if (!put_state(k, c, exit))
		return false;
	if (requests & REQUEST_NMI)
		give_nmi(c);
	give_interrupt(c);
	return s->activity == ACTIVITY_RUNNING || leave(exit, EXIT_HALT);
}

/* ---- debuggers ---- */

static bool is_breakpoint(const struct kvm_engine *k, uint64_t rip)
{
	for (unsigned i = 0; i < k->breakpoint_count; i++)
		if (k->breakpoints[i] == rip)
			return true;
	return false;
}

static void set_debug(const struct kvm_engine *k, const struct kvm_vcpu *c, bool is_stepping)
{
	struct kvm_guest_debug d = {.control = 0};

	if (is_stepping)
		d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
	else if (k->breakpoint_count)
		d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	for (unsigned i = 0; !is_stepping && i < k->breakpoint_count; i++) {
		d.arch.debugreg[i] = k->breakpoints[i];
		d.arch.debugreg[7] |= 2ull << (2 * i); /* global, on execution, one byte */
	}
	ioctl(c->cpu.fd, KVM_SET_GUEST_DEBUG, &d);
}

/* A breakpoint at the first instruction was met when the last run ended: step over it. */
static void begin_debug(struct kvm_engine *k, struct kvm_vcpu *c)
{
	if (!k->breakpoint_count && !c->is_stepping && !c->has_debug)
		return;
	c->is_stepping_over = !c->is_stepping && is_breakpoint(k, c->v->state.rip);
	c->has_debug = k->breakpoint_count || c->is_stepping;
	set_debug(k, c, c->is_stepping || c->is_stepping_over);
}

/* ---- the loop ---- */

/* True: go on. */
static bool run_once(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	int r = enter(c);

	if (r < 0)
		return fail_run(k, exit, r);
	if (r == 0) {
		kvm_deadline_clear(&k->deadline);
		return true;
	}
	if (c->cpu.run->exit_reason == KVM_EXIT_DEBUG && c->is_stepping_over) {
		c->is_stepping_over = false;
		set_debug(k, c, false);
		return true;
	}
	return kvm_handle_exit(k, c, exit);
}

void kvm_run_vcpu(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	struct clock *clock = k->config.clock;
	bool goes_on = true;

	k->armed = 0;
	c->clock_changes = clock->changes;
	begin_debug(k, c);
	while (goes_on && attend(k, c, exit)) {
		uint64_t now = clock_now(clock);
		if (now >= k->until) {
			leave(exit, EXIT_BUDGET);
			break;
		}
		if (k->armed != k->until) {
			k->armed = k->until;
			kvm_deadline_set(&k->deadline,
					 clock_ns_from_cycles(clock, k->until - now) + 1);
		}
		goes_on = run_once(k, c, exit);
	}
	kvm_deadline_set(&k->deadline, 0);
	kvm_deadline_clear(&k->deadline);
	/* What was asked for after the instruction (a reset, a stop) finds it over. */
	struct vm_exit failed = *exit;
	if (!fetch(k, c, &failed) || exit->reason == EXIT_BUDGET)
		*exit = failed;
}
