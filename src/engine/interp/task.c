/*
 * Hardware task switches (SDM 3A chapter 7), to 16-bit and 32-bit TSSs. Never in long mode.
 *
 * A switch has a commit point: until the old TSS is written a fault belongs to the old task and
 * nothing has happened; from the moment TR and the registers are the new task's, a fault (a bad
 * selector in the new TSS) is the new task's, raised at its first instruction.
 */
#include "engine/interp/system.h"

#define TSS16_LIMIT_MIN 0x2bu
#define TSS32_LIMIT_MIN 0x67u

/* What a TSS holds, of either width. */
struct task_image {
	uint32_t eip, eflags, cr3;
	uint32_t gpr[8];
	uint16_t seg[SEG_COUNT];
	uint16_t ldt;
	bool traps;
};

static bool is_wide(uint16_t attributes)
{
	return (attributes & 8) != 0;
}

static uint64_t tss_read(struct interp_vcpu *c, const struct insn *i, uint64_t base, unsigned at,
			 unsigned size_bytes)
{
	return system_read(c, i, base + at, size_bytes);
}

static void read_image(struct interp_vcpu *c, const struct insn *i, uint64_t base, bool wide,
		       struct task_image *t)
{
	unsigned n = wide ? 4 : 2, at = wide ? 0x20 : 0xe;

	*t = (struct task_image){0};
	t->eip = (uint32_t)tss_read(c, i, base, at, n);
	t->eflags = (uint32_t)tss_read(c, i, base, at + n, n);
	at += 2 * n;
	for (unsigned r = 0; r < 8; r++, at += n)
		t->gpr[r] = (uint32_t)tss_read(c, i, base, at, n) | (wide ? 0 : 0xffff0000u);
	for (unsigned r = 0; r < (wide ? 6u : 4u); r++, at += n)
		t->seg[r] = (uint16_t)tss_read(c, i, base, at, 2);
	t->ldt = (uint16_t)tss_read(c, i, base, at, 2);
	if (!wide)
		return;
	t->cr3 = (uint32_t)tss_read(c, i, base, 0x1c, 4);
	t->traps = tss_read(c, i, base, 0x64, 2) & 1;
}

static void save_old(struct interp_vcpu *c, const struct insn *i, uint32_t eip, uint64_t eflags)
{
	struct vcpu_state *s = c->s;
	bool wide = is_wide(s->tr.attributes);
	unsigned n = wide ? 4 : 2, at = wide ? 0x20 : 0xe;
	uint64_t base = s->tr.base;

	interp_write_system(c, i, (uint32_t)(base + at), n, eip & mask_bytes(n));
	interp_write_system(c, i, (uint32_t)(base + at + n), n, eflags & mask_bytes(n));
	at += 2 * n;
	for (unsigned r = 0; r < 8; r++, at += n)
		interp_write_system(c, i, (uint32_t)(base + at), n, s->gpr[r] & mask_bytes(n));
	for (unsigned r = 0; r < (wide ? 6u : 4u); r++, at += n)
		interp_write_system(c, i, (uint32_t)(base + at), 2, s->seg[r].selector);
}

/* A fault of the new task: its EIP is what the frame gets. */
static _Noreturn void raise_new(struct interp_vcpu *c, const struct insn *i, unsigned vector,
				unsigned selector)
{
	c->s->gpr[REG_BLOCK] = c->s->rip - i->offset;
	interp_mode_changed(c);
	raise_selector(c, i, vector, selector);
}

static void load_ldt(struct interp_vcpu *c, const struct insn *i, unsigned selector)
{
	struct descriptor d;

	c->s->ldtr = segment_null(selector, 0);
	if (is_null_selector(selector))
		return;
	if ((selector & 4) || !descriptor_read(c, i, selector, &d) || descriptor_is_segment(&d) ||
	    descriptor_type(&d) != TYPE_LDT || !descriptor_is_present(&d))
		raise_new(c, i, VECTOR_TS, selector);
	c->s->ldtr = descriptor_segment(&d, selector);
}

static void load_cs(struct interp_vcpu *c, const struct insn *i, unsigned selector)
{
	struct descriptor d;

	if (is_null_selector(selector) || !descriptor_read(c, i, selector, &d) ||
	    !descriptor_is_code(&d))
		raise_new(c, i, VECTOR_TS, selector);
	unsigned dpl = descriptor_dpl(&d), rpl = selector & 3;
	if (descriptor_is_conforming_code(&d) ? dpl > rpl : dpl != rpl)
		raise_new(c, i, VECTOR_TS, selector);
	if (!descriptor_is_present(&d))
		raise_new(c, i, VECTOR_NP, selector);
	descriptor_mark_accessed(c, i, &d);
	c->s->seg[SEG_CS] = descriptor_segment(&d, selector);
}

static void load_ss(struct interp_vcpu *c, const struct insn *i, unsigned selector)
{
	struct descriptor d;
	unsigned cpl = c->s->cpl;

	if (is_null_selector(selector) || !descriptor_read(c, i, selector, &d) ||
	    !descriptor_is_writable_data(&d) || descriptor_dpl(&d) != cpl || (selector & 3) != cpl)
		raise_new(c, i, VECTOR_TS, selector);
	if (!descriptor_is_present(&d))
		raise_new(c, i, VECTOR_SS, selector);
	descriptor_mark_accessed(c, i, &d);
	c->s->seg[SEG_SS] = descriptor_segment(&d, selector);
}

static void load_data(struct interp_vcpu *c, const struct insn *i, unsigned seg, unsigned selector)
{
	struct descriptor d;

	if (is_null_selector(selector))
		return;
	if (!descriptor_read(c, i, selector, &d) || !descriptor_is_segment(&d) ||
	    (descriptor_is_code(&d) && !(d.high >> 8 & ATTR_READABLE)))
		raise_new(c, i, VECTOR_TS, selector);
	unsigned dpl = descriptor_dpl(&d);
	if (!descriptor_is_conforming_code(&d) && (c->s->cpl > dpl || (selector & 3) > dpl))
		raise_new(c, i, VECTOR_TS, selector);
	if (!descriptor_is_present(&d))
		raise_new(c, i, VECTOR_NP, selector);
	descriptor_mark_accessed(c, i, &d);
	c->s->seg[seg] = descriptor_segment(&d, selector);
}

/* The registers that need no checks; segment registers get their selectors, so that a fault's
 * handler sees them. */
static void commit(struct interp_vcpu *c, const struct task_image *t, bool wide, uint64_t eflags)
{
	struct vcpu_state *s = c->s;

	for (unsigned r = 0; r < 8; r++)
		s->gpr[r] = t->gpr[r];
	s->rip = t->eip;
	vcpu_set_rflags(c->v, (eflags & 0x3f7fd5u) | FLAG_FIXED1);
	s->cr0 |= CR0_TS;
	s->dr[7] &= ~0x155ull; /* the local enables */
	if (wide && (s->cr0 & CR0_PG) && t->cr3 != s->cr3) {
		s->cr3 = t->cr3;
		mmu_cr3_written(c->mmu, false);
	}
	for (unsigned r = 0; r < SEG_COUNT; r++)
		s->seg[r] = is_v86(s) ? segment_real(s, r, t->seg[r]) : segment_null(t->seg[r], 0);
	s->cpl = is_v86(s) ? 3 : t->seg[SEG_CS] & 3;
	c->taken = 2;
}

static void load_segments(struct interp_vcpu *c, const struct insn *i, const struct task_image *t)
{
	load_ldt(c, i, t->ldt);
	if (!is_v86(c->s)) {
		load_cs(c, i, t->seg[SEG_CS]);
		load_ss(c, i, t->seg[SEG_SS]);
		load_data(c, i, SEG_DS, t->seg[SEG_DS]);
		load_data(c, i, SEG_ES, t->seg[SEG_ES]);
		load_data(c, i, SEG_FS, t->seg[SEG_FS]);
		load_data(c, i, SEG_GS, t->seg[SEG_GS]);
	}
	if (c->s->rip > c->s->seg[SEG_CS].limit)
		raise_new(c, i, VECTOR_GP, 0);
}

void task_switch(struct interp_vcpu *c, const struct insn *i, enum task_reason reason,
		 unsigned selector, const struct descriptor *d, uint64_t return_rip)
{
	struct vcpu_state *s = c->s;
	struct segment_register tr = descriptor_segment(d, selector);
	bool wide = is_wide(tr.attributes);
	bool nests = reason == TASK_CALL || reason == TASK_EVENT;
	uint64_t old_flags = vcpu_rflags(c->v), new_flags;
	unsigned old_selector = s->tr.selector;
	struct task_image t;

	if (!descriptor_is_present(d))
		raise_selector(c, i, VECTOR_NP, selector);
	if (tr.limit < (wide ? TSS32_LIMIT_MIN : TSS16_LIMIT_MIN))
		raise_selector(c, i, VECTOR_TS, selector);
	read_image(c, i, tr.base, wide, &t);
	new_flags = nests ? t.eflags | FLAG_NT : t.eflags;
	if (wide && uses_pdptes(s->cr0, s->cr4, s->efer) && t.cr3 != s->cr3)
		load_pdptes(c, i, t.cr3);
	save_old(c, i, (uint32_t)return_rip,
		 reason == TASK_RETURN ? old_flags & ~FLAG_NT : old_flags);
	if (!nests)
		descriptor_set_busy(c, i, old_selector, false);
	if (nests)
		interp_write_system(c, i, (uint32_t)tr.base, 2, old_selector);
	if (reason != TASK_RETURN)
		descriptor_set_busy(c, i, selector, true);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_TASK_SWITCH);
	tr.attributes |= 2;
	s->tr = tr;
	commit(c, &t, wide, new_flags);
	interp_mode_changed(c);
	load_segments(c, i, &t);
	if (t.traps)
		s->pending_db |= 1u << 15;
	interp_mode_changed(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_TASK_SWITCH, start);
}

void task_gate(struct interp_vcpu *c, const struct insn *i, enum task_reason reason,
	       const struct descriptor *gate, uint64_t return_rip)
{
	unsigned selector = gate->low >> 16;
	struct descriptor d;

	if ((selector & 4) || !descriptor_read(c, i, selector, &d) || descriptor_is_segment(&d) ||
	    (descriptor_type(&d) != TYPE_TSS16 && descriptor_type(&d) != TYPE_TSS32))
		raise_selector(c, i, VECTOR_GP, selector);
	task_switch(c, i, reason, selector, &d, return_rip);
}
