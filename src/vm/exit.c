/*
 * What each exit of an engine means, and the ways a run ends. Everything that ends a run comes
 * through vm_end_with(): the first reason wins, later ones (a power-off while a signal is handled)
 * change nothing.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vm/machine.h"

void vm_interrupt_engines(struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		vcpu_request(&vm->vcpus[i], REQUEST_STOP);
}

void vm_end_with(struct vm *vm, unsigned vcpu, enum vm_end end, uint32_t detail, const char *format,
		 ...)
{
	if (vm->outcome.end != VM_END_NONE)
		return;
	vm->outcome = (struct vm_outcome){.end = end, .detail = detail, .vcpu = vcpu};
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(vm->outcome.text, sizeof(vm->outcome.text), format, arguments);
	va_end(arguments);
	vm_interrupt_engines(vm);
}

void vm_end(struct vm *vm, enum vm_end end, uint32_t detail, const char *text)
{
	vm_end_with(vm, 0, end, detail, "%s", text ? text : "");
}

void vm_guest_reset(struct vm *vm)
{
	if (vm->has_panicked && !vm->config.ignore_panic)
		vm_end_with(vm, 0, VM_END_PANIC, 0,
			    "the guest's kernel panicked and reset the machine");
	else if (vm->config.no_reboot)
		vm_end_with(vm, 0, VM_END_RESET, 0, "the guest reset the machine");
	else
		vm_reset(vm);
}

void vm_reset(struct vm *vm)
{
	vm->is_reset_wanted = true;
	vm_interrupt_engines(vm);
}

void vm_console_printed(struct vm *vm, unsigned port, const uint8_t *bytes, size_t count)
{
	if (vm->serials[port])
		serial_write(vm->serials[port], bytes, count);
	for (size_t i = 0; i < count; i++) {
		unsigned news = console_printed(&vm->console, bytes[i]);
		if (news & CONSOLE_PANIC)
			vm->has_panicked = true;
		if (news & CONSOLE_REGION_FROM)
			region_text_printed(vm, true);
		if (news & CONSOLE_REGION_TO)
			region_text_printed(vm, false);
		if (news & CONSOLE_STOP_AT)
			vm_end_with(vm, 0, VM_END_STOP_AT, 0, "--stop-at: '%s' was printed",
				    vm->config.stop_at);
		/* Linux will spin forever now. */
		if ((news & CONSOLE_PANIC_END) && !vm->config.ignore_panic)
			vm_end_with(vm, 0, VM_END_PANIC, 0, "the guest's kernel panicked");
	}
}

static void log_registers(const struct vcpu *v)
{
	static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
	const struct vcpu_state *s = &v->state;
	for (unsigned i = 0; i < GPR_COUNT; i += 4)
		log_info("%3s=%016llx %3s=%016llx %3s=%016llx %3s=%016llx", names[i],
			 (unsigned long long)s->gpr[i], names[i + 1],
			 (unsigned long long)s->gpr[i + 1], names[i + 2],
			 (unsigned long long)s->gpr[i + 2], names[i + 3],
			 (unsigned long long)s->gpr[i + 3]);
	log_info("rip=%016llx rflags=%08llx cpl=%u cs=%04x ss=%04x", (unsigned long long)s->rip,
		 (unsigned long long)vcpu_rflags(v), s->cpl, s->seg[SEG_CS].selector,
		 s->seg[SEG_SS].selector);
	log_info("cr0=%llx cr2=%llx cr3=%llx cr4=%llx efer=%llx", (unsigned long long)s->cr0,
		 (unsigned long long)s->cr2, (unsigned long long)s->cr3, (unsigned long long)s->cr4,
		 (unsigned long long)s->efer);
	log_info("gdtr=%llx/%x idtr=%llx/%x tr=%04x", (unsigned long long)s->gdtr.base,
		 s->gdtr.limit, (unsigned long long)s->idtr.base, s->idtr.limit, s->tr.selector);
}

static void triple_fault(struct vm *vm, unsigned i)
{
	const struct vcpu *v = &vm->vcpus[i];
	log_registers(v);
	vm_end_with(vm, i, VM_END_TRIPLE_FAULT, 0,
		    "triple fault on vcpu %u at cs:rip %04x:%llx (cr2 %llx, cr3 %llx)", i,
		    v->state.seg[SEG_CS].selector, (unsigned long long)v->state.rip,
		    (unsigned long long)v->state.cr2, (unsigned long long)v->state.cr3);
}

static void debug_stop(struct vm *vm, unsigned i, enum exit_reason reason)
{
	vm->is_paused = true;
	for (unsigned k = 0; k < vm->observer_count; k++)
		if (vm->observers[k].stopped)
			vm->observers[k].stopped(vm->observers[k].opaque, i, reason);
}

static void end_by_fault_of(struct vm *vm, unsigned i, const struct vm_exit *exit)
{
	const char *text = exit->text ? exit->text : vm->bus.stop_text;
	unsigned long long rip = vm->vcpus[i].state.rip;
	if (exit->reason == EXIT_UNHANDLED)
		vm_end_with(vm, i, VM_END_UNHANDLED, 0, "--unhandled=stop: %s (vcpu %u, rip %llx)",
			    text, i, rip);
	else if (exit->reason == EXIT_DIFFERENCE)
		vm_end_with(vm, i, VM_END_DIFFERENCE, 0,
			    "--verify: the strategy differs from the reference walk "
			    "(vcpu %u, rip %llx)\n%s",
			    i, rip, text);
	else if (exit->reason == EXIT_HOST)
		vm_end_with(vm, i, VM_END_ERROR, 0, "%s (vcpu %u, rip %llx)", text, i, rip);
	else
		vm_end_with(vm, i, VM_END_ERROR, 0, "internal error: %s (vcpu %u, rip %llx)", text,
			    i, rip);
}

/* Somebody asked the engine to return: see whether there was more to it than looking up. */
static enum vm_action stopped(struct vm *vm, unsigned i)
{
	vcpu_withdraw(&vm->vcpus[i], REQUEST_STOP);
	if (vm->outcome.end == VM_END_NONE && vm->bus.stop_requested)
		vm_end_with(vm, i, VM_END_UNHANDLED, 0, "--unhandled=stop: %s (vcpu %u, rip %llx)",
			    vm->bus.stop_text, i, (unsigned long long)vm->vcpus[i].state.rip);
	bool must_leave = vm->outcome.end != VM_END_NONE || vm->is_paused || vm->is_reset_wanted;
	return must_leave ? ACTION_LEAVE : ACTION_CONTINUE;
}

enum vm_action vm_handle_exit(struct vm *vm, unsigned i, const struct vm_exit *exit)
{
	switch (exit->reason) {
	case EXIT_BUDGET:
		/* Before the end of the turn: a timer was armed that is due before it. */
		return ACTION_YIELD;
	case EXIT_HALT: vm->turns[i].is_halted = true; return ACTION_YIELD;
	case EXIT_STOP: return stopped(vm, i);
	case EXIT_MARK: vm_mark(vm, exit->mark); return ACTION_CONTINUE;
	case EXIT_SHUTDOWN: triple_fault(vm, i); return ACTION_LEAVE;
	case EXIT_BREAKPOINT:
	case EXIT_STEPPED: debug_stop(vm, i, exit->reason); return ACTION_LEAVE;
	case EXIT_UNHANDLED:
	case EXIT_DIFFERENCE:
	case EXIT_INTERNAL:
	case EXIT_HOST: break;
	}
	end_by_fault_of(vm, i, exit);
	return ACTION_LEAVE;
}
