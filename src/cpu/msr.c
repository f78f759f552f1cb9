/*
 * Model-specific registers: what RDMSR and WRMSR mean for the state of a vcpu (SDM volume 4, table
 * 2-2).
 *
 * Four owners are asked in turn: the core (this file's switches, tables for the MTRRs and
 * machine-check banks), the local APIC, and the registers of a floor above (msr_ops). What nobody
 * knows is MSR_UNHANDLED. A write checks all of the value before it changes anything. Called by the
 * engines.
 */
#include "cpu/msr.h"

#include "base/bits.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"

enum more_msr {
	MSR_SMI_COUNT = 0x34,
	MSR_MISC_FEATURES = 0x140,
};

/* Nothing of what sharing a processor leaked over the years leaks here (SDM 4,
 * IA32_ARCH_CAPABILITIES): RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO,
 * SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO. */
#define ARCH_CAPABILITIES_VALUE                                                             \
	(BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | \
	 BIT(15) | BIT(20) | BIT(24) | BIT(26) | BIT(27) | BIT(62))

#define MTRRCAP_VALUE (MTRR_VARIABLE_COUNT | BIT(8) /* fixed */ | BIT(10) /* write-combining */)
#define MCG_CAP_VALUE (MC_BANK_COUNT | BIT(8) /* MCG_CTL is there */)
#define UCODE_REVISION (0x2b000590ull << 32)
#define FEATURE_CONTROL_LOCKED BIT(0)
#define SPEC_CTRL_MASK 7ull
#define DEBUGCTL_MASK 3ull

static bool is_canonical(const struct vcpu *v, uint64_t address)
{
	return sign_extend(address, v->model->linear_bits) == address;
}

static bool is_memory_type(uint64_t type)
{
	return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

static bool are_types(uint64_t value, bool is_pat)
{
	for (unsigned i = 0; i < 64; i += 8) {
		uint64_t type = bits(value, i + 7, i);
		if (!is_memory_type(type) && !(is_pat && type == 7))
			return false;
	}
	return true;
}

/* Position of a fixed-range MTRR in mtrr_fixed[], or -1. */
static int fixed_mtrr(uint32_t index)
{
	if (index == MSR_MTRR_FIX64K_00000)
		return 0;
	if (index == MSR_MTRR_FIX16K_80000 || index == MSR_MTRR_FIX16K_80000 + 1)
		return (int)(index - MSR_MTRR_FIX16K_80000) + 1;
	if (index >= MSR_MTRR_FIX4K_C0000 && index < MSR_MTRR_FIX4K_C0000 + 8)
		return (int)(index - MSR_MTRR_FIX4K_C0000) + 3;
	return -1;
}

/* The MTRR that `index` names, or NULL. */
static uint64_t *mtrr(struct vcpu_state *s, uint32_t index)
{
	if (index == MSR_MTRR_DEF_TYPE)
		return &s->mtrr_def_type;
	if (fixed_mtrr(index) >= 0)
		return &s->mtrr_fixed[fixed_mtrr(index)];
	if (index < MSR_MTRR_PHYSBASE0 || index >= MSR_MTRR_PHYSBASE0 + 2 * MTRR_VARIABLE_COUNT)
		return NULL;
	unsigned i = (index - MSR_MTRR_PHYSBASE0) / 2;
	return index & 1 ? &s->mtrr_physmask[i] : &s->mtrr_physbase[i];
}

static enum msr_result write_mtrr(struct vcpu *v, uint32_t index, uint64_t value)
{
	uint64_t address_bits = bits(~0ull, v->model->physical_bits - 1, 0) & ~PAGE_OFFSET_MASK;
	bool ok;

	if (index == MSR_MTRR_DEF_TYPE)
		ok = !(value & ~0xcffull) && is_memory_type(value & 0xff);
	else if (fixed_mtrr(index) >= 0)
		ok = are_types(value, false);
	else if (index & 1)
		ok = !(value & ~(address_bits | BIT(11)));
	else
		ok = !(value & ~(address_bits | 0xff)) && is_memory_type(value & 0xff);
	if (!ok)
		return MSR_FAULT;
	*mtrr(&v->state, index) = value;
	return MSR_OK;
}

/* MCi_CTL, _STATUS, _ADDR, _MISC. Nothing is ever recorded, so the last two are 0 and only 0 may be
 * written to the last three. */
static bool is_bank(uint32_t index)
{
	return index >= MSR_MC0_CTL && index < MSR_MC0_CTL + 4 * MC_BANK_COUNT;
}

static uint64_t read_bank(const struct vcpu_state *s, uint32_t index)
{
	unsigned i = (index - MSR_MC0_CTL) / 4;

	return index % 4 == 0 ? s->mc_ctl[i] : index % 4 == 1 ? s->mc_status[i] : 0;
}

static enum msr_result write_bank(struct vcpu_state *s, uint32_t index, uint64_t value)
{
	unsigned i = (index - MSR_MC0_CTL) / 4;

	if (index % 4 == 0)
		s->mc_ctl[i] = value;
	else if (value)
		return MSR_FAULT;
	else if (index % 4 == 1)
		s->mc_status[i] = 0;
	return MSR_OK;
}

/* Registers that are one field of the state, read and (after write_check) written as they are. */
static uint64_t *plain(struct vcpu *v, uint32_t index)
{
	struct vcpu_state *s = &v->state;

	switch (index) {
	case MSR_STAR: return &s->star;
	case MSR_LSTAR: return &s->lstar;
	case MSR_CSTAR: return &s->cstar;
	case MSR_FMASK: return &s->fmask;
	case MSR_FS_BASE: return &s->seg[SEG_FS].base;
	case MSR_GS_BASE: return &s->seg[SEG_GS].base;
	case MSR_KERNEL_GS_BASE: return &s->kernel_gs_base;
	case MSR_SYSENTER_CS: return &s->sysenter_cs;
	case MSR_SYSENTER_ESP: return &s->sysenter_esp;
	case MSR_SYSENTER_EIP: return &s->sysenter_eip;
	case MSR_PAT: return &s->pat;
	case MSR_MISC_ENABLE: return &s->misc_enable;
	case MSR_DEBUGCTL: return &s->debugctl;
	case MSR_MCG_STATUS: return &s->mcg_status;
	case MSR_MCG_CTL: return &s->mcg_ctl;
	case MSR_XSS: return cpu_has(v->model, FEATURE_XSAVES) ? &s->xss : NULL;
	case MSR_SPEC_CTRL: return cpu_has(v->model, FEATURE_SPEC_CTRL) ? &s->spec_ctrl : NULL;
	case MSR_TSC_AUX:
		return cpu_has(v->model, FEATURE_RDTSCP) || cpu_has(v->model, FEATURE_RDPID)
			       ? &s->tsc_aux
			       : NULL;
	default: return NULL;
	}
}

static bool plain_accepts(const struct vcpu *v, uint32_t index, uint64_t value)
{
	switch (index) {
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE:
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP: return is_canonical(v, value);
	case MSR_SYSENTER_CS:
	case MSR_FMASK:
	case MSR_TSC_AUX: return value <= UINT32_MAX;
	case MSR_PAT: return are_types(value, true);
	case MSR_DEBUGCTL: return !(value & ~DEBUGCTL_MASK);
	case MSR_MCG_STATUS:
	case MSR_XSS: return value == 0;
	case MSR_SPEC_CTRL: return !(value & ~SPEC_CTRL_MASK);
	default: return true;
	}
}

/* Read-only registers, and those whose value is computed. */
static enum msr_result read_computed(struct vcpu *v, uint32_t index, uint64_t *value)
{
	const struct vcpu_state *s = &v->state;

	switch (index) {
	case MSR_TSC: *value = vcpu_tsc(v); return MSR_OK;
	case MSR_TSC_ADJUST: *value = s->tsc_adjust; return MSR_OK;
	case MSR_EFER: *value = s->efer; return MSR_OK;
	case MSR_FEATURE_CONTROL: *value = FEATURE_CONTROL_LOCKED; return MSR_OK;
	case MSR_UCODE_REV: *value = UCODE_REVISION; return MSR_OK;
	case MSR_PLATFORM_INFO: *value = (v->model->tsc_hz / 100000000 & 0xff) << 8; return MSR_OK;
	case MSR_MTRRCAP: *value = MTRRCAP_VALUE; return MSR_OK;
	case MSR_MCG_CAP: *value = MCG_CAP_VALUE; return MSR_OK;
	case MSR_PLATFORM_ID:
	case MSR_SMI_COUNT:
	case MSR_MISC_FEATURES: *value = 0; return MSR_OK;
	case MSR_ARCH_CAPABILITIES:
		if (!cpu_has(v->model, FEATURE_ARCH_CAPABILITIES))
			return MSR_UNHANDLED;
		*value = ARCH_CAPABILITIES_VALUE;
		return MSR_OK;
	default: return MSR_UNHANDLED;
	}
}

static enum msr_result write_efer(struct vcpu *v, uint64_t value)
{
	struct vcpu_state *s = &v->state;

	if (value & ~cpu_efer_mask(v->model))
		return MSR_FAULT;
	if ((s->cr0 & CR0_PG) && ((value ^ s->efer) & EFER_LME))
		return MSR_FAULT;
	value = (value & ~EFER_LMA) | (s->efer & EFER_LMA);
	if (value == s->efer)
		return MSR_OK;
	s->efer = value;
	return MSR_MODE_CHANGED;
}

/* The counter moves; TSC_ADJUST says by how much it has been moved in all (SDM 3B 18.17.3). */
static void move_tsc(struct vcpu *v, uint64_t by)
{
	uint64_t deadline;
	v->state.tsc_offset += by;
	v->state.tsc_adjust += by;
	/* The APIC's deadline is a value of the TSC: writing it again arms its timer anew. */
	if (v->apic_ops && v->apic_ops->read_msr(v->apic, MSR_TSC_DEADLINE, &deadline) && deadline)
		v->apic_ops->write_msr(v->apic, MSR_TSC_DEADLINE, deadline);
}

static enum msr_result write_computed(struct vcpu *v, uint32_t index, uint64_t value)
{
	switch (index) {
	case MSR_TSC: move_tsc(v, value - vcpu_tsc(v)); return MSR_OK;
	case MSR_TSC_ADJUST: move_tsc(v, value - v->state.tsc_adjust); return MSR_OK;
	case MSR_EFER: return write_efer(v, value);
	case MSR_UCODE_WRITE:
	case MSR_UCODE_REV: return MSR_OK;
	case MSR_MISC_FEATURES: return value ? MSR_FAULT : MSR_OK;
	case MSR_PRED_CMD:
		if (!cpu_has(v->model, FEATURE_SPEC_CTRL))
			return MSR_UNHANDLED;
		return value & ~1ull ? MSR_FAULT : MSR_OK;
	case MSR_ARCH_CAPABILITIES:
	case MSR_FEATURE_CONTROL:
	case MSR_MTRRCAP:
	case MSR_MCG_CAP:
	case MSR_PLATFORM_ID:
	case MSR_PLATFORM_INFO:
	case MSR_SMI_COUNT: return MSR_FAULT;
	default: return MSR_UNHANDLED;
	}
}

static bool is_apic(uint32_t index)
{
	return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
	       (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST);
}

static bool is_offered_apic(const struct vcpu *v, uint32_t index)
{
	if (!v->apic_ops)
		return false;
	if (index == MSR_TSC_DEADLINE)
		return cpu_has(v->model, FEATURE_TSC_DEADLINE);
	return index == MSR_APIC_BASE || cpu_has(v->model, FEATURE_X2APIC);
}

enum msr_result msr_read(struct vcpu *v, uint32_t index, uint64_t *value)
{
	const uint64_t *field = plain(v, index);

	if (!field)
		field = mtrr(&v->state, index);
	if (field) {
		*value = *field;
		return MSR_OK;
	}
	if (is_bank(index)) {
		*value = read_bank(&v->state, index);
		return MSR_OK;
	}
	if (is_apic(index))
		return is_offered_apic(v, index) && v->apic_ops->read_msr(v->apic, index, value)
			       ? MSR_OK
			       : MSR_FAULT;
	enum msr_result r = read_computed(v, index, value);
	if (r == MSR_UNHANDLED && v->msr_ops && v->msr_ops->read(v->msr_opaque, index, value))
		return MSR_OK;
	return r;
}

enum msr_result msr_write(struct vcpu *v, uint32_t index, uint64_t value)
{
	uint64_t *field = plain(v, index);

	if (field) {
		if (!plain_accepts(v, index, value))
			return MSR_FAULT;
		*field = value;
		return MSR_OK;
	}
	if (mtrr(&v->state, index))
		return write_mtrr(v, index, value);
	if (is_bank(index))
		return write_bank(&v->state, index, value);
	if (is_apic(index))
		return is_offered_apic(v, index) && v->apic_ops->write_msr(v->apic, index, value)
			       ? MSR_OK
			       : MSR_FAULT;
	enum msr_result r = write_computed(v, index, value);
	if (r == MSR_UNHANDLED && v->msr_ops && v->msr_ops->write(v->msr_opaque, index, value))
		return MSR_OK;
	return r;
}
