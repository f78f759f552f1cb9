/*
 * What is left of the system instructions: CPUID, MSRs, time stamps, random numbers, XCR0, FS and
 * GS bases, HLT, PAUSE, cache flushes, hypercalls.
 */
#include <stdio.h>

#include "base/log.h"
#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/msr.h"
#include "engine/interp/block.h"
#include "engine/interp/system.h"

/* Pause-loop exiting as KVM sets it up: PAUSEs no further apart than the gap make one loop; a loop
 * older than the window exits. */
#define PAUSE_GAP_CYCLES 128
#define PAUSE_WINDOW_CYCLES 4096

#define KVM_ENOSYS 1000ull
#define KVM_EPERM 1ull

static bool is_code64(const struct interp_vcpu *c)
{
	return (c->key & KEY_CODE64) != 0;
}

/* ---- CPUID ---- */

static void leave_with_mark(struct interp_vcpu *c)
{
	struct vcpu_state *s = c->s;

	c->exit = (struct vm_exit){.reason = EXIT_MARK, .mark = (uint32_t)s->gpr[GPR_RCX]};
	c->attention |= ATTENTION_EXIT;
	s->gpr[GPR_RAX] = 1;
	s->gpr[GPR_RBX] = s->gpr[GPR_RCX] = s->gpr[GPR_RDX] = 0;
}

HANDLER(op_cpuid)
{
	uint32_t leaf = (uint32_t)s->gpr[GPR_RAX];

	if (leaf == MARK_LEAF) {
		leave_with_mark(c);
		FINISH;
	}
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_CPUID);
	struct cpuid_regs r = cpu_cpuid(c->v, leaf, (uint32_t)s->gpr[GPR_RCX]);
	s->gpr[GPR_RAX] = r.eax;
	s->gpr[GPR_RBX] = r.ebx;
	s->gpr[GPR_RCX] = r.ecx;
	s->gpr[GPR_RDX] = r.edx;
	ledger_exit_end(c->ledger, EVENT_EXIT_CPUID, start);
	FINISH;
}

/* ---- MSRs ---- */

/* Registers that every hardware-assisted VMM lets through. */
static bool is_passed_through(uint32_t index, bool is_write)
{
	switch (index) {
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE:
	case MSR_SYSENTER_CS:
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
	case MSR_STAR:
	case MSR_LSTAR:
	case MSR_FMASK: return true;
	case MSR_TSC: return !is_write;
	default: return false;
	}
}

static uint64_t charge_msr(struct interp_vcpu *c, uint32_t index, bool is_write)
{
	if (is_passed_through(index, is_write))
		return 0;
	return interp_charge_exit(c, is_write ? EVENT_EXIT_MSR_WRITE : EVENT_EXIT_MSR_READ);
}

void attend_bus(struct interp_vcpu *c)
{
	interp_attend(c);
	if (!c->bus->stop_requested)
		return;
	c->exit = (struct vm_exit){.reason = EXIT_UNHANDLED, .text = c->bus->stop_text};
	c->attention |= ATTENTION_EXIT;
}

static _Noreturn void unhandled(struct interp_vcpu *c, const struct insn *i, uint32_t index,
				bool is_write)
{
	struct bus *bus = c->bus;

	ledger_charge(c->ledger, EVENT_UNHANDLED_MSR);
	if (bus->unhandled == UNHANDLED_LOG)
		log_warn("%s of MSR %#x, which is unknown", is_write ? "write" : "read", index);
	if (bus->unhandled == UNHANDLED_STOP) {
		if (!bus->stop_requested)
			snprintf(bus->stop_text, sizeof(bus->stop_text),
				 "%s of MSR %#x, which is unknown", is_write ? "write" : "read",
				 index);
		bus->stop_requested = true;
		attend_bus(c);
	}
	raise_gp0(c, i);
}

HANDLER(op_rdmsr)
{
	uint32_t index = (uint32_t)s->gpr[GPR_RCX];
	uint64_t value = 0;

	require_cpl0(c, i);
	interp_sync_clock(c, i);
	uint64_t start = charge_msr(c, index, false);
	enum msr_result r = msr_read(c->v, index, &value);
	if (r == MSR_UNHANDLED)
		unhandled(c, i, index, false);
	if (r == MSR_FAULT)
		raise_gp0(c, i);
	s->gpr[GPR_RAX] = (uint32_t)value;
	s->gpr[GPR_RDX] = value >> 32;
	ledger_exit_end(c->ledger, EVENT_EXIT_MSR_READ, start);
	NEXT;
}

HANDLER(op_wrmsr)
{
	uint32_t index = (uint32_t)s->gpr[GPR_RCX];
	uint64_t value = (uint32_t)s->gpr[GPR_RAX] | s->gpr[GPR_RDX] << 32;
	uint64_t old_efer = s->efer;

	require_cpl0(c, i);
	interp_sync_clock(c, i);
	uint64_t start = charge_msr(c, index, true);
	enum msr_result r = msr_write(c->v, index, value);
	if (r == MSR_UNHANDLED)
		unhandled(c, i, index, true);
	if (r == MSR_FAULT)
		raise_gp0(c, i);
	if (r == MSR_MODE_CHANGED)
		mmu_controls_changed(c->mmu, s->cr0, s->cr4, old_efer);
	attend_bus(c);
	interp_mode_changed(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_MSR_WRITE, start);
	FINISH;
}

/* ---- time ---- */

static void read_tsc(struct interp_vcpu *c, const struct insn *i)
{
	struct vcpu_state *s = c->s;

	if ((s->cr4 & CR4_TSD) && s->cpl)
		raise_gp0(c, i);
	uint64_t start = 0;
	if (c->vm->config.intercept_rdtsc)
		start = interp_charge_exit(c, EVENT_EXIT_RDTSC);
	interp_sync_clock(c, i);
	uint64_t tsc = vcpu_tsc(c->v);
	s->gpr[GPR_RAX] = (uint32_t)tsc;
	s->gpr[GPR_RDX] = tsc >> 32;
	ledger_exit_end(c->ledger, EVENT_EXIT_RDTSC, start);
}

HANDLER(op_rdtsc)
{
	(void)s;
	read_tsc(c, i);
	NEXT;
}

HANDLER(op_rdtscp)
{
	read_tsc(c, i);
	s->gpr[GPR_RCX] = (uint32_t)s->tsc_aux;
	NEXT;
}

/* No counter exists, so every index is bad; without the right to read any it is #GP(0) too. */
HANDLER(op_rdpmc)
{
	(void)s;
	raise_gp0(c, i);
}

HANDLER(op_rdpid)
{
	register_write(s, i->rm, s->tsc_aux, i->mode == 64 ? 8 : 4);
	NEXT;
}

/* ---- RDRAND, RDSEED: splitmix64 ---- */

HANDLER(op_random)
{
	uint64_t z = s->random_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	register_write(s, i->rm, z, i->op_bytes);
	s->flags_low = 2 | FLAG_CF;
	s->flags_of = 0;
	NEXT;
}

/* ---- XCR0 ---- */

static bool is_any_set(const uint8_t *bytes, size_t count)
{
	for (size_t n = 0; n < count; n++)
		if (bytes[n])
			return true;
	return false;
}

/* Which components are not in their initial state: exact, as XSAVE's XINUSE is. */
static uint64_t components_in_use(const struct vcpu_state *s, bool code64)
{
	const struct fpu_state *f = &s->fpu;
	uint64_t in_use = 0;

	if (f->fcw != 0x37f || f->fsw || f->ftw || f->fop || f->fip || f->fdp || f->fcs || f->fds ||
	    is_any_set(&f->st[0][0], sizeof(f->st)))
		in_use |= XCR0_X87;
	for (unsigned r = 0; r < (code64 ? 16 : 8); r++) {
		in_use |= is_any_set(f->ymm[r], 16) ? XCR0_SSE : 0;
		in_use |= is_any_set(f->ymm[r] + 16, 16) ? XCR0_AVX : 0;
	}
	return in_use;
}

HANDLER(op_xgetbv)
{
	uint32_t index = (uint32_t)s->gpr[GPR_RCX];
	uint64_t value = s->xcr0;

	if (!(s->cr4 & CR4_OSXSAVE))
		interp_raise(c, i, VECTOR_UD);
	if (index > 1 || (index == 1 && !cpu_has(c->v->model, FEATURE_XGETBV1)))
		raise_gp0(c, i);
	if (index == 1)
		value &= components_in_use(s, is_code64(c));
	s->gpr[GPR_RAX] = (uint32_t)value;
	s->gpr[GPR_RDX] = value >> 32;
	NEXT;
}

HANDLER(op_xsetbv)
{
	uint64_t value = (uint32_t)s->gpr[GPR_RAX] | s->gpr[GPR_RDX] << 32;

	if (!(s->cr4 & CR4_OSXSAVE))
		interp_raise(c, i, VECTOR_UD);
	require_cpl0(c, i);
	if ((uint32_t)s->gpr[GPR_RCX] || !(value & XCR0_X87) ||
	    (value & ~cpu_xcr0_mask(c->v->model)) || ((value & XCR0_AVX) && !(value & XCR0_SSE)))
		raise_gp0(c, i);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_XSETBV);
	s->xcr0 = value;
	interp_mode_changed(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_XSETBV, start);
	FINISH;
}

/* ---- FS and GS ---- */

HANDLER(op_swapgs)
{
	uint64_t base = s->seg[SEG_GS].base;

	if (!is_code64(c))
		interp_raise(c, i, VECTOR_UD);
	require_cpl0(c, i);
	s->seg[SEG_GS].base = s->kernel_gs_base;
	s->kernel_gs_base = base;
	NEXT;
}

HANDLER(op_read_base)
{
	if (!is_code64(c) || !(s->cr4 & CR4_FSGSBASE))
		interp_raise(c, i, VECTOR_UD);
	register_write(s, i->rm, s->seg[i->sub].base, i->op_bytes);
	NEXT;
}

HANDLER(op_write_base)
{
	uint64_t base = s->gpr[i->rm] & mask_bytes(i->op_bytes);

	if (!is_code64(c) || !(s->cr4 & CR4_FSGSBASE))
		interp_raise(c, i, VECTOR_UD);
	if (!vcpu_is_canonical(s, base))
		raise_gp0(c, i);
	s->seg[i->sub].base = base;
	NEXT;
}

/* ---- HLT, PAUSE, caches, hypercalls ---- */

HANDLER(op_hlt)
{
	require_cpl0(c, i);
	if (interp_charge_exit(c, EVENT_EXIT_HLT))
		ledger_halt_begin(c->ledger);
	s->activity = ACTIVITY_HALTED;
	interp_attend(c);
	FINISH;
}

static void charge_pause_loop(struct interp_vcpu *c, const struct insn *i)
{
	interp_sync_clock(c, i);
	uint64_t now = clock_now(c->clock);
	if (now - c->pause_last > PAUSE_GAP_CYCLES) {
		c->pause_first = now;
	} else if (now - c->pause_first > PAUSE_WINDOW_CYCLES) {
		uint64_t start = interp_charge_exit(c, EVENT_EXIT_PAUSE);
		c->pause_first = now;
		ledger_exit_end(c->ledger, EVENT_EXIT_PAUSE, start);
	}
	c->pause_last = now;
}

/* Ends its block, for it takes more than a cycle: nothing may run past a deadline. */
HANDLER(op_pause)
{
	if (!s->cpl && c->virtualized)
		charge_pause_loop(c, i);
	interp_spend(c, INTERP_PAUSE_CYCLES - 1);
	FINISH;
}

/* WBINVD, INVD: caches are not modelled. */
HANDLER(op_flush_caches)
{
	(void)s;
	require_cpl0(c, i);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_WBINVD);
	ledger_exit_end(c->ledger, EVENT_EXIT_WBINVD, start);
	NEXT;
}

/* A guest that was shown KVM's leaves may try a hypercall; there is none, and KVM's answer says so.
 */
HANDLER(op_hypercall)
{
	if (!c->v->model->kvm_leaves)
		interp_raise(c, i, VECTOR_UD);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_VMCALL);
	s->gpr[GPR_RAX] = 0 - (s->cpl ? KVM_EPERM : KVM_ENOSYS);
	ledger_exit_end(c->ledger, EVENT_EXIT_VMCALL, start);
	NEXT;
}

/* ---- lowering ---- */

static bool lower_exec(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS), bool ends_block)
{
	l->out->exec = exec;
	l->ends_block = ends_block;
	return true;
}

static bool lower_register_only(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS), unsigned sub)
{
	l->out->rm = (uint8_t)lower_register(l->operands[0].reg.value);
	l->out->sub = (uint8_t)sub;
	return lower_exec(l, exec, false);
}

bool lower_privileged(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_CPUID: return lower_exec(l, op_cpuid, true);
	case ZYDIS_MNEMONIC_RDMSR: return lower_exec(l, op_rdmsr, false);
	case ZYDIS_MNEMONIC_WRMSR: return lower_exec(l, op_wrmsr, true);
	case ZYDIS_MNEMONIC_RDTSC: return lower_exec(l, op_rdtsc, false);
	case ZYDIS_MNEMONIC_RDTSCP: return lower_exec(l, op_rdtscp, false);
	case ZYDIS_MNEMONIC_RDPMC: return lower_exec(l, op_rdpmc, true);
	case ZYDIS_MNEMONIC_RDPID: return lower_register_only(l, op_rdpid, 0);
	case ZYDIS_MNEMONIC_RDRAND:
	case ZYDIS_MNEMONIC_RDSEED: return lower_register_only(l, op_random, 0);
	case ZYDIS_MNEMONIC_XGETBV: return lower_exec(l, op_xgetbv, false);
	case ZYDIS_MNEMONIC_XSETBV: return lower_exec(l, op_xsetbv, true);
	case ZYDIS_MNEMONIC_SWAPGS: return lower_exec(l, op_swapgs, false);
	case ZYDIS_MNEMONIC_RDFSBASE: return lower_register_only(l, op_read_base, SEG_FS);
	case ZYDIS_MNEMONIC_RDGSBASE: return lower_register_only(l, op_read_base, SEG_GS);
	case ZYDIS_MNEMONIC_WRFSBASE: return lower_register_only(l, op_write_base, SEG_FS);
	case ZYDIS_MNEMONIC_WRGSBASE: return lower_register_only(l, op_write_base, SEG_GS);
	case ZYDIS_MNEMONIC_HLT: return lower_exec(l, op_hlt, true);
	case ZYDIS_MNEMONIC_PAUSE: return lower_exec(l, op_pause, true);
	case ZYDIS_MNEMONIC_WBINVD:
	case ZYDIS_MNEMONIC_INVD: return lower_exec(l, op_flush_caches, false);
	case ZYDIS_MNEMONIC_VMCALL:
	case ZYDIS_MNEMONIC_VMMCALL: return lower_exec(l, op_hypercall, false);
	default: return false;
	}
}
