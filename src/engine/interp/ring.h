/*
 * Between ring 3 and ring 0 of 64-bit code: the part of interp_mode_changed() that every such way
 * needs, and what SYSCALL and SYSRET do to the registers.
 *
 * Inline, for a guest takes these ways hundreds of thousands of times a second, and a translator
 * does so without the run loop.
 */
#pragma once

#include "base/bits.h"
#include "cpu/vcpu.h"
#include "engine/interp/interp.h"

/* The accesses since the last fold, which were made in the ledger's ring. */
static inline void ring_fold_accesses(struct interp_vcpu *c)
{
	uint64_t uses = c->mmu->use_clock - c->folded_uses;
	uint64_t others = c->write_count + c->fetch_count;
	ledger_charge_many(c->ledger, EVENT_WRITE, c->write_count);
	ledger_charge_many(c->ledger, EVENT_FETCH, c->fetch_count);
	ledger_charge_many(c->ledger, EVENT_READ, uses > others ? uses - others : 0);
	c->folded_uses = c->mmu->use_clock;
	c->write_count = c->fetch_count = 0;
}

/* CPL or RFLAGS.AC changed. Enough where no access is checked for itself (slow_checks), neither
 * before nor after. */
static inline void ring_changed(struct interp_vcpu *c)
{
	const struct vcpu_state *s = c->s;
	enum ring ring = s->cpl == 3 ? RING_USER : RING_KERNEL;
	if (ring != c->ledger->ring) {
		ring_fold_accesses(c);
		c->ledger->ring = ring;
	}
	c->fetch_mode = s->cpl == 3 ? MMU_USER : MMU_SUPERVISOR;
	c->mode = s->cpl == 3 ? MMU_USER : s->rflags & FLAG_AC ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
	c->fast_read = c->mmu->fast[c->mode][ACCESS_READ];
	c->fast_write = c->mmu->fast[c->mode][ACCESS_WRITE];
}

/* Flat segments as SYSCALL and SYSENTER make them without a look at any table. */
static inline struct segment_register ring_flat_segment(unsigned selector, unsigned attributes,
							unsigned dpl)
{
	return (struct segment_register){
		.limit = 0xffffffff,
		.selector = (uint16_t)selector,
		.attributes = (uint16_t)(attributes | dpl << ATTR_DPL_SHIFT),
	};
}

#define RING_FLAT_CODE (ATTR_P | ATTR_S | ATTR_CODE | ATTR_READABLE | ATTR_ACCESSED | ATTR_G)
#define RING_FLAT_DATA (ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_G | ATTR_DB)

/* SYSCALL in 64-bit code; it is allowed. */
static inline void ring_syscall(struct vcpu *v, uint64_t next_rip)
{
	struct vcpu_state *s = &v->state;
	unsigned selector = bits(s->star, 47, 32) & 0xfffc;
	s->gpr[GPR_RCX] = next_rip;
	s->gpr[GPR_R11] = vcpu_rflags(v) & ~FLAG_RF;
	vcpu_set_rflags(v, s->gpr[GPR_R11] & ~s->fmask);
	s->seg[SEG_SS] = ring_flat_segment(selector + 8, RING_FLAT_DATA, 0);
	s->seg[SEG_CS] = ring_flat_segment(selector, RING_FLAT_CODE | ATTR_L, 0);
	s->cpl = 0;
	s->rip = s->lstar;
}

/* SYSRET, to 64-bit code or to 32-bit code; it is allowed. */
#define RING_SYSRET_FLAGS 0x3c7fd7ull
static inline void ring_sysret(struct vcpu *v, bool to_64)
{
	struct vcpu_state *s = &v->state;
	unsigned selector = (unsigned)bits(s->star, 63, 48),
		 code = to_64 ? selector + 16 : selector;
	vcpu_set_rflags(v, (s->gpr[GPR_R11] & RING_SYSRET_FLAGS) | FLAG_FIXED1);
	s->seg[SEG_SS] = ring_flat_segment((selector + 8) | 3, RING_FLAT_DATA, 3);
	s->seg[SEG_CS] =
		ring_flat_segment(code | 3, RING_FLAT_CODE | (to_64 ? ATTR_L : ATTR_DB), 3);
	s->cpl = 3;
	s->rip = to_64 ? s->gpr[GPR_RCX] : (uint32_t)s->gpr[GPR_RCX];
}
