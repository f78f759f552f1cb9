/*
 * What each exit of KVM means for the machine: ports and device memory go to the bus, MSRs that the
 * filter sends up to cpu/msr.h, HLT and triple faults to the run loop.
 *
 * An access is answered in kvm_run, and the guest sees the answer at the next KVM_RUN: until then
 * the instruction is not over (`is_unfinished`).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "engine/kvm/private.h"
#include "memory/memory.h"

bool kvm_give_up(struct kvm_engine *k, struct vm_exit *exit, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(k->text, sizeof(k->text), format, arguments);
	va_end(arguments);
	*exit = (struct vm_exit){.reason = EXIT_HOST, .text = k->text};
	return false;
}

/* Was another vcpu sent something? This one may well wait for the answer. */
static bool is_other_wanted(const struct kvm_engine *k, const struct kvm_vcpu *c)
{
	for (unsigned i = 0; i < k->config.vcpu_count; i++) {
		struct vcpu *v = k->vcpus[i].v;
		if (v != c->v && atomic_load_explicit(&v->requests, memory_order_relaxed))
			return true;
	}
	return false;
}

/* After an access: a device may have armed a timer that is due before the turn's end, and
 * --unhandled=stop may have met something. */
static bool look_at_bus(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	const struct bus *bus = k->config.bus;

	if (k->config.clock->changes != c->clock_changes) {
		uint64_t next = clock_next_deadline(k->config.clock);
		c->clock_changes = k->config.clock->changes;
		if (next < k->until)
			k->until = next;
	}
	if (k->config.vcpu_count > 1 && is_other_wanted(k, c))
		k->until = clock_now(k->config.clock);
	if (!bus->stop_requested)
		return true;
	*exit = (struct vm_exit){.reason = EXIT_UNHANDLED, .text = bus->stop_text};
	return false;
}

/* ---- ports ---- */

static void port_read(struct kvm_engine *k, struct kvm_vcpu *c, void *bytes, unsigned size_bytes)
{
	bool handled;
	uint64_t value = bus_port_read(k->config.bus, c->v->index, c->cpu.run->io.port, size_bytes,
				       &handled);

	ledger_charge(c->v->ledger, EVENT_EXIT_PORT_READ);
	if (!handled)
		ledger_charge(c->v->ledger, EVENT_UNHANDLED_PORT);
	memcpy(bytes, &value, size_bytes);
}

static void port_write(struct kvm_engine *k, struct kvm_vcpu *c, const void *bytes,
		       unsigned size_bytes)
{
	uint64_t value = 0;

	memcpy(&value, bytes, size_bytes);
	ledger_charge(c->v->ledger, EVENT_EXIT_PORT_WRITE);
	if (!bus_port_write(k->config.bus, c->v->index, c->cpu.run->io.port, size_bytes, value))
		ledger_charge(c->v->ledger, EVENT_UNHANDLED_PORT);
}

static bool handle_port(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	struct kvm_run *run = c->cpu.run;
	uint8_t *bytes = (uint8_t *)run + run->io.data_offset;

	/* A string instruction brings several in one. */
	for (uint32_t i = 0; i < run->io.count; i++, bytes += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_IN)
			port_read(k, c, bytes, run->io.size);
		else
			port_write(k, c, bytes, run->io.size);
	}
	c->is_unfinished = true;
	return look_at_bus(k, c, exit);
}

/* ---- device memory ---- */

static bool handle_mmio(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	struct kvm_run *run = c->cpu.run;
	gpa_t address = gpa(run->mmio.phys_addr);
	uint8_t *bytes = run->mmio.data;
	unsigned left = run->mmio.len <= 8 ? run->mmio.len : 8;
	bool is_write = run->mmio.is_write;

	ledger_charge(c->v->ledger, is_write ? EVENT_EXIT_MMIO_WRITE : EVENT_EXIT_MMIO_READ);
	while (left) {
		unsigned n = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
		bool handled;
		uint64_t value = 0;
		if (is_write) {
			memcpy(&value, bytes, n);
			handled = bus_mmio_write(k->config.bus, c->v->index, address, n, value);
		} else {
			value = bus_mmio_read(k->config.bus, c->v->index, address, n, &handled);
			memcpy(bytes, &value, n);
		}
		if (!handled)
			ledger_charge(c->v->ledger, EVENT_UNHANDLED_MMIO);
		address.v += n;
		bytes += n;
		left -= n;
	}
	c->is_unfinished = true;
	return look_at_bus(k, c, exit);
}

/* ---- MSRs ---- */

static void unhandled_msr(struct kvm_engine *k, struct kvm_vcpu *c, uint32_t index, bool is_write)
{
	struct bus *bus = k->config.bus;
	const char *what = is_write ? "write" : "read";

	ledger_charge(c->v->ledger, EVENT_UNHANDLED_MSR);
	if (bus->unhandled == UNHANDLED_LOG)
		log_warn("%s of MSR %#x, which is unknown", what, index);
	if (bus->unhandled != UNHANDLED_STOP)
		return;
	if (!bus->stop_requested)
		snprintf(bus->stop_text, sizeof(bus->stop_text), "%s of MSR %#x, which is unknown",
			 what, index);
	bus->stop_requested = true;
}

static bool handle_msr(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	struct kvm_run *run = c->cpu.run;
	bool is_write = run->exit_reason == KVM_EXIT_X86_WRMSR;
	uint32_t index = run->msr.index;
	uint64_t value = run->msr.data;
	enum msr_result r = is_write ? msr_write(c->v, index, value)
				     : msr_read(c->v, index, &value);

	ledger_charge(c->v->ledger, is_write ? EVENT_EXIT_MSR_WRITE : EVENT_EXIT_MSR_READ);
	if (r == MSR_UNHANDLED)
		unhandled_msr(k, c, index, is_write);
	run->msr.error = r == MSR_UNHANDLED || r == MSR_FAULT;
	if (!is_write)
		run->msr.data = value;
	c->is_unfinished = true;
	return look_at_bus(k, c, exit);
}

/* Those that the processor itself needs stay in the kernel; all others are ours. The x2APIC's
 * cannot be filtered: KVM, which has no APIC, calls them faults, and those come to us, too. */
int kvm_filter_msrs(int vm, bool has_tsc_aux, bool has_spec_ctrl, struct error *e)
{
	static uint8_t all[8] = {0xff}; /* KVM reads whole longs */
	const uint32_t both = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_DENY,
		.ranges =
			{
				{KVM_MSR_FILTER_READ, 1, MSR_TSC, all},
				{both, 3, MSR_SYSENTER_CS, all},
				{both, 1, MSR_PAT, all},
				{both, 5, MSR_EFER, all},
				{both, 3, MSR_FS_BASE, all},
			},
	};
	unsigned n = 5;
	struct kvm_enable_cap user_msrs = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = {KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_INVAL |
			 KVM_MSR_EXIT_REASON_UNKNOWN},
	};

	if (has_tsc_aux)
		filter.ranges[n++] = (struct kvm_msr_filter_range){both, 1, MSR_TSC_AUX, all};
	if (has_spec_ctrl)
		filter.ranges[n++] = (struct kvm_msr_filter_range){both, 2, MSR_SPEC_CTRL, all};
	if (ioctl(vm, KVM_ENABLE_CAP, &user_msrs) < 0 ||
	    ioctl(vm, KVM_X86_SET_MSR_FILTER, &filter) < 0)
		return error_set(e, -errno, "KVM refuses the filter for MSRs: %s", strerror(errno));
	return 0;
}

/* ---- the rest ---- */

static bool handle_debug(struct kvm_vcpu *c, struct vm_exit *exit)
{
	bool is_step = c->is_stepping;

	c->is_stepping = false;
	*exit = (struct vm_exit){.reason = is_step ? EXIT_STEPPED : EXIT_BREAKPOINT};
	return false;
}

static bool handle_internal_error(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	const struct kvm_run *run = c->cpu.run;

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
		return kvm_give_up(k, exit, "this host's KVM cannot emulate an instruction");
	return kvm_give_up(k, exit, "this host's KVM failed: internal error %u",
			   run->internal.suberror);
}

static bool handle_halt(struct kvm_vcpu *c, struct vm_exit *exit)
{
	ledger_charge(c->v->ledger, EVENT_EXIT_HLT);
	ledger_halt_begin(c->v->ledger);
	c->v->state.activity = ACTIVITY_HALTED;
	*exit = (struct vm_exit){.reason = EXIT_HALT};
	return false;
}

static bool handle_shutdown(struct kvm_vcpu *c, struct vm_exit *exit)
{
	ledger_charge(c->v->ledger, EVENT_EXIT_TRIPLE_FAULT);
	c->v->state.activity = ACTIVITY_SHUTDOWN;
	*exit = (struct vm_exit){.reason = EXIT_SHUTDOWN};
	return false;
}

static bool handle(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	const struct kvm_run *run = c->cpu.run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO: return handle_port(k, c, exit);
	case KVM_EXIT_MMIO: return handle_mmio(k, c, exit);
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR: return handle_msr(k, c, exit);
	case KVM_EXIT_HLT: return handle_halt(c, exit);
	case KVM_EXIT_SHUTDOWN: return handle_shutdown(c, exit);
	case KVM_EXIT_DEBUG: return handle_debug(c, exit);
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		ledger_charge(c->v->ledger, EVENT_EXIT_INTERRUPT_WINDOW);
		return true;
	case KVM_EXIT_SET_TPR: ledger_charge(c->v->ledger, EVENT_EXIT_CR8_WRITE); return true;
	case KVM_EXIT_INTR: return true;
	case KVM_EXIT_INTERNAL_ERROR: return handle_internal_error(k, c, exit);
	case KVM_EXIT_FAIL_ENTRY:
		return kvm_give_up(
			k, exit, "this host's KVM cannot enter the guest: hardware reason %#llx",
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
	default:
		return kvm_give_up(k, exit,
				   "this host's KVM ended with reason %u, which we do not "
				   "know",
				   run->exit_reason);
	}
}

/* The cause of an exit that is over when it is handled; EVENT_COUNT for others. */
static enum event cause_of(const struct kvm_run *run)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		return run->io.direction == KVM_EXIT_IO_IN ? EVENT_EXIT_PORT_READ
							   : EVENT_EXIT_PORT_WRITE;
	case KVM_EXIT_MMIO:
		return run->mmio.is_write ? EVENT_EXIT_MMIO_WRITE : EVENT_EXIT_MMIO_READ;
	case KVM_EXIT_X86_RDMSR: return EVENT_EXIT_MSR_READ;
	case KVM_EXIT_X86_WRMSR: return EVENT_EXIT_MSR_WRITE;
	case KVM_EXIT_IRQ_WINDOW_OPEN: return EVENT_EXIT_INTERRUPT_WINDOW;
	default: return EVENT_COUNT;
	}
}

/* The time is ours, from KVM_RUN's return on: what KVM and the processor took is not seen. */
bool kvm_handle_exit(struct kvm_engine *k, struct kvm_vcpu *c, struct vm_exit *exit)
{
	enum event cause = cause_of(c->cpu.run);
	uint64_t start = cause == EVENT_COUNT ? 0 : ledger_exit_begin(c->v->ledger);
	bool goes_on = handle(k, c, exit);

	ledger_exit_end(c->v->ledger, cause, start);
	return goes_on;
}
