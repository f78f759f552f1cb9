/*
 * The registers as the guest sees them. Both ways in use the x2APIC numbering: MSR 0x800 + n is
 * page offset 16 * n (SDM 3A table 10-6). The page is forgiving, the MSRs raise #GP for what does
 * not exist or has reserved bits set.
 */
#include "device/lapic_core.h"

#include "bus/platform.h"

enum {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_RRD = 0x0c,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR = 0x30,
	REG_ICR_HIGH = 0x31,
	REG_LVT = 0x32, /* in the order of enum lvt */
	REG_INITIAL = 0x38,
	REG_CURRENT = 0x39,
	REG_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f,
};

#define VERSION 0x00050014u /* 6 LVT entries, integrated APIC */
#define ICR_PENDING 0x1000u

/* Bits that software may write; without TSC-deadline mode, bit 18 of the timer's is reserved. */
static uint32_t lvt_writable(const struct lapic *l, enum lvt which)
{
	static const uint32_t writable[LVT_COUNT] = {
		[LVT_TIMER] = 0x300ff, [LVT_THERMAL] = 0x107ff, [LVT_PERFORMANCE] = 0x107ff,
		[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,	[LVT_ERROR] = 0x100ff,
	};
	return writable[which] |
	       (which == LVT_TIMER && l->config.has_tsc_deadline ? LVT_TIMER_DEADLINE : 0);
}

/* False: there is no such register. */
static bool read_register(struct lapic *l, unsigned reg, uint32_t *value)
{
	const struct lapic_state *s = &l->state;
	if (reg >= REG_ISR && reg < REG_ESR) {
		const uint32_t *set = reg < REG_TMR ? s->isr : reg < REG_IRR ? s->tmr : s->irr;
		*value = set[reg & 7];
		return true;
	}
	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT) {
		*value = s->lvt[reg - REG_LVT];
		return true;
	}
	switch (reg) {
	case REG_ID: *value = lapic_is_x2(l) ? s->id : s->id << 24; return true;
	case REG_VERSION: *value = VERSION; return true;
	case REG_TPR: *value = s->tpr; return true;
	case REG_APR: *value = 0; return !lapic_is_x2(l);
	case REG_PPR: *value = lapic_ppr(l); return true;
	case REG_EOI: *value = 0; return !lapic_is_x2(l);
	case REG_RRD: *value = 0; return !lapic_is_x2(l);
	case REG_LDR: *value = s->ldr; return true;
	case REG_DFR: *value = s->dfr; return !lapic_is_x2(l);
	case REG_SVR: *value = s->svr; return true;
	case REG_ESR: *value = s->esr; return true;
	case REG_ICR: *value = s->icr_low; return true;
	case REG_ICR_HIGH: *value = s->icr_high; return !lapic_is_x2(l);
	case REG_INITIAL: *value = s->timer_initial; return true;
	case REG_CURRENT: *value = lapic_timer_current(l); return true;
	case REG_DIVIDE: *value = s->divide; return true;
	default: return false;
	}
}

static void write_svr(struct lapic *l, uint32_t value)
{
	l->state.svr = value & 0x3ff;
	if (!(value & SVR_ENABLED))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->state.lvt[i] |= LVT_MASKED;
	lapic_timer_arm(l);
	lapic_evaluate_lints(l);
}

static void write_lvt(struct lapic *l, enum lvt which, uint32_t value)
{
	uint32_t entry = value & lvt_writable(l, which);
	if (!(l->state.svr & SVR_ENABLED))
		entry |= LVT_MASKED;
	if (which == LVT_TIMER) {
		/* 11b is reserved: what is left of it is periodic. */
		if ((entry & LVT_TIMER_MODE) == LVT_TIMER_MODE)
			entry &= ~LVT_TIMER_DEADLINE;
		lapic_timer_set_lvt(l, entry);
		return;
	}
	if (entry & LVT_LEVEL)
		entry |= l->state.lvt[which] & LVT_REMOTE_IRR;
	l->state.lvt[which] = entry;
	lapic_evaluate_lints(l);
}

static void write_esr(struct lapic *l)
{
	l->state.esr = l->state.esr_pending;
	l->state.esr_pending = 0;
}

/* What both ways of writing share. False: no such register, or it cannot be written. */
static bool write_register(struct lapic *l, unsigned reg, uint32_t value)
{
	if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT) {
		write_lvt(l, (enum lvt)(reg - REG_LVT), value);
		return true;
	}
	switch (reg) {
	case REG_TPR:
		l->state.tpr = value & 0xff;
		lapic_update(l);
		return true;
	case REG_EOI: lapic_end_of_interrupt(l); return true;
	case REG_SVR: write_svr(l, value); return true;
	case REG_ESR: write_esr(l); return true;
	case REG_INITIAL: lapic_timer_set_initial(l, value); return true;
	case REG_DIVIDE: lapic_timer_set_divide(l, value); return true;
	default: return false;
	}
}

/* ---- the page ---- */

static struct lapic *page_owner(void *opaque, struct bus_access access)
{
	const struct apic_hub *h = opaque;
	struct lapic *l = access.vcpu < h->lapic_count ? h->lapics[access.vcpu] : NULL;
	return l && lapic_is_enabled(l) && !lapic_is_x2(l) ? l : NULL;
}

static uint64_t page_read(void *opaque, struct bus_access access)
{
	struct lapic *l = page_owner(opaque, access);
	uint32_t value = 0;
	if (!l)
		return UINT64_MAX;
	lapic_timer_settle(l);
	if ((access.offset & 15) > 3)
		return 0;
	if (!read_register(l, (unsigned)(access.offset >> 4), &value))
		lapic_error(l, ESR_ILLEGAL_REGISTER);
	return value >> (8 * (access.offset & 3));
}

static void page_write(void *opaque, struct bus_access access, uint64_t wide)
{
	struct lapic *l = page_owner(opaque, access);
	uint32_t value = (uint32_t)wide;
	/* Registers are written whole, 32 bits at a time; anything else is undefined and does
	 * nothing. */
	if (!l || (access.offset & 15) || access.size_bytes < 4)
		return;
	lapic_timer_settle(l);
	unsigned reg = (unsigned)(access.offset >> 4);
	uint32_t unused;
	switch (reg) {
	case REG_LDR: l->state.ldr = value & 0xff000000u; break;
	case REG_DFR: l->state.dfr = value | 0x0fffffffu; break;
	case REG_ICR_HIGH: l->state.icr_high = value & 0xff000000u; break;
	case REG_ICR:
		l->state.icr_low = value & 0xccfff & ~ICR_PENDING;
		lapic_send_ipi(l, l->state.icr_low, l->state.icr_high >> 24);
		break;
	default:
		if (!write_register(l, reg, value) && !read_register(l, reg, &unused))
			lapic_error(l, ESR_ILLEGAL_REGISTER);
		break;
	}
}

const struct bus_ops lapic_bus_ops = {page_read, page_write};

/* ---- the MSRs ---- */

bool lapic_read_msr(void *opaque, uint32_t index, uint64_t *value)
{
	struct lapic *l = opaque;
	uint32_t low = 0;
	lapic_timer_settle(l);
	if (index == MSR_APIC_BASE) {
		*value = l->state.base_msr;
		return true;
	}
	if (index == MSR_TSC_DEADLINE) {
		*value = l->state.tsc_deadline;
		return l->config.has_tsc_deadline;
	}
	if (!lapic_is_x2(l) || index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST ||
	    !read_register(l, index - MSR_X2APIC_FIRST, &low))
		return false;
	*value = low;
	if (index == MSR_X2APIC_FIRST + REG_ICR)
		*value |= (uint64_t)l->state.icr_high << 32;
	return true;
}

/* SDM 3A 10.12.5: xAPIC and x2APIC are left through "disabled", and "disabled" only to xAPIC.
 * Moving the page is refused: nothing needs it, and the board would have to route one address per
 * vcpu. */
static bool write_base(struct lapic *l, uint64_t value)
{
	uint64_t changeable = BASE_ENABLED | (l->config.has_x2apic ? BASE_X2APIC : 0);
	uint64_t old = l->state.base_msr;
	bool was_x2 = lapic_is_x2(l), was_enabled = lapic_is_enabled(l);
	bool is_x2 = value & BASE_X2APIC, is_enabled = value & BASE_ENABLED;
	/* The BSP flag is written back by everybody and changed by nobody. */
	if ((value ^ old) & ~(changeable | BASE_BSP))
		return false;
	if ((is_x2 && !is_enabled) || (was_x2 && is_enabled && !is_x2) || (!was_enabled && is_x2))
		return false;
	l->state.base_msr = (old & ~changeable) | (value & changeable);
	if (was_enabled != is_enabled)
		lapic_reset_registers(l);
	else if (is_x2 && !was_x2)
		l->state.ldr = lapic_x2_ldr(l->state.id);
	lapic_update(l);
	return true;
}

static void write_x2_icr(struct lapic *l, uint64_t value)
{
	l->state.icr_low = (uint32_t)value;
	l->state.icr_high = (uint32_t)(value >> 32);
	lapic_send_ipi(l, l->state.icr_low, l->state.icr_high);
}

/* False: #GP, for reserved bits. */
static bool write_x2_register(struct lapic *l, unsigned reg, uint64_t value)
{
	if (reg == REG_ICR) {
		if (value & 0xfff32000ull)
			return false;
		write_x2_icr(l, value & ~(uint64_t)ICR_PENDING);
		return true;
	}
	if (value >> 32)
		return false;
	uint64_t reserved = 0;
	if (reg == REG_TPR || reg == REG_SELF_IPI)
		reserved = ~0xffull;
	else if (reg == REG_EOI || reg == REG_ESR)
		reserved = ~0ull;
	else if (reg == REG_SVR)
		reserved = ~0x3ffull;
	else if (reg == REG_DIVIDE)
		reserved = ~0xbull;
	else if (reg >= REG_LVT && reg < REG_LVT + LVT_COUNT)
		reserved = ~(uint64_t)(lvt_writable(l, (enum lvt)(reg - REG_LVT)) | 0x5000);
	if (value & reserved)
		return false;
	if (reg == REG_SELF_IPI) {
		if (value < 16)
			lapic_error(l, ESR_ILLEGAL_SENT);
		else
			lapic_accept(l, (uint8_t)value, false);
		return true;
	}
	return write_register(l, reg, (uint32_t)value);
}

bool lapic_write_msr(void *opaque, uint32_t index, uint64_t value)
{
	struct lapic *l = opaque;
	lapic_timer_settle(l);
	if (index == MSR_APIC_BASE)
		return write_base(l, value);
	if (index == MSR_TSC_DEADLINE) {
		if (l->config.has_tsc_deadline)
			lapic_timer_set_deadline(l, value);
		return l->config.has_tsc_deadline;
	}
	return lapic_is_x2(l) && index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST &&
	       write_x2_register(l, index - MSR_X2APIC_FIRST, value);
}
