/*
 * Returns between code segments: RET far and IRET, to the same and to outer privilege levels, to
 * virtual-8086 mode and to the task that nested this one.
 */
#include "engine/interp/system.h"

/* ---- RET far ---- */

static void return_real(struct interp_vcpu *c, const struct insn *i, struct stack *k, uint64_t rip,
			unsigned selector)
{
	struct segment_register cs = segment_real(c->s, SEG_CS, selector);

	check_target(c, i, &cs, rip);
	k->sp = (k->sp & ~k->mask) | ((k->sp + i->imm) & k->mask);
	arrive(c, k, cs, rip);
}

/* A data segment that the outer privilege could not have loaded is taken away (SDM 3A 5.8.6). */
static void drop_inner_segments(struct vcpu_state *s)
{
	static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

	for (unsigned n = 0; n < ARRAY_COUNT(data); n++) {
		struct segment_register *g = &s->seg[data[n]];
		unsigned dpl = (g->attributes & ATTR_DPL) >> ATTR_DPL_SHIFT;
		bool is_conforming = (g->attributes & (ATTR_CODE | ATTR_CONFORMING)) ==
				     (ATTR_CODE | ATTR_CONFORMING);
		/* What is null already stays as it is: FS and GS keep the bases that MSRs gave
		 * them. */
		if (is_null_selector(g->selector) || (g->attributes & ATTR_UNUSABLE))
			continue;
		if (dpl < s->cpl && !is_conforming)
			*g = segment_null(0, 0);
	}
}

/* The code segment that a far return goes to. */
static struct segment_register return_segment(struct interp_vcpu *c, const struct insn *i,
					      unsigned selector)
{
	struct descriptor d;
	unsigned rpl = selector & 3;

	if (is_null_selector(selector))
		raise_gp0(c, i);
	if (!descriptor_read(c, i, selector, &d) || !descriptor_is_code(&d) || rpl < c->s->cpl)
		raise_selector(c, i, VECTOR_GP, selector);
	if (descriptor_is_conforming_code(&d) ? descriptor_dpl(&d) > rpl
					      : descriptor_dpl(&d) != rpl)
		raise_selector(c, i, VECTOR_GP, selector);
	require_valid_code(c, i, &d, selector);
	if (!descriptor_is_present(&d))
		raise_selector(c, i, VECTOR_NP, selector);
	descriptor_mark_accessed(c, i, &d);
	return descriptor_segment(&d, selector);
}

/* SS of a return to an outer level; null is legal for 64-bit code above ring 3. */
static struct segment_register return_stack(struct interp_vcpu *c, const struct insn *i,
					    const struct segment_register *cs, unsigned selector)
{
	unsigned rpl = cs->selector & 3;

	if (is_null_selector(selector) && is_long(c->s) && (cs->attributes & ATTR_L) && rpl != 3 &&
	    (selector & 3) == rpl)
		return segment_null(selector, rpl);
	return segment_check_stack(c, i, selector, rpl, VECTOR_GP);
}

static void set_outer_sp(struct vcpu_state *s, const struct segment_register *cs,
			 const struct segment_register *ss, uint64_t sp)
{
	if (is_long(s) && (cs->attributes & ATTR_L))
		s->gpr[GPR_RSP] = sp;
	else if (ss->attributes & ATTR_DB)
		s->gpr[GPR_RSP] = (uint32_t)sp;
	else
		register_write(s, GPR_RSP, sp, 2);
}

HANDLER(op_far_return)
{
	struct stack k = stack_current(c);
	uint64_t rip = stack_pop(c, i, &k, i->op_bytes);
	unsigned selector = (uint16_t)stack_pop(c, i, &k, i->op_bytes);

	if (!is_protected(s)) {
		return_real(c, i, &k, rip, selector);
		return;
	}
	struct segment_register cs = return_segment(c, i, selector);
	k.sp = k.mask == 0xffff ? (k.sp & ~k.mask) | ((k.sp + i->imm) & k.mask)
				: (k.sp + i->imm) & k.mask;
	if ((selector & 3) == s->cpl) {
		check_target(c, i, &cs, rip);
		arrive(c, &k, cs, rip);
		return;
	}
	uint64_t sp = stack_pop(c, i, &k, i->op_bytes);
	unsigned ss_selector = (uint16_t)stack_pop(c, i, &k, i->op_bytes);
	struct segment_register ss = return_stack(c, i, &cs, ss_selector);
	check_target(c, i, &cs, rip);
	s->seg[SEG_SS] = ss;
	set_outer_sp(s, &cs, &ss, sp + i->imm);
	load_code_segment(c, cs, rip);
	drop_inner_segments(s);
	interp_mode_changed(c);
}

/* ---- IRET: the parts of protected mode ---- */

#define FLAGS_IRET_ANY (FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT)

/* Which flags IRET may change at the old CPL. */
static uint64_t iret_flags(const struct vcpu_state *s, unsigned size_bytes)
{
	uint64_t mask = FLAGS_IRET_ANY;

	if (size_bytes > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (s->cpl <= iopl(s))
		mask |= FLAG_IF;
	if (s->cpl == 0)
		mask |= FLAG_IOPL | (size_bytes > 2 ? FLAG_VIF | FLAG_VIP : 0);
	return mask;
}

static void iret_done(struct interp_vcpu *c)
{
	c->s->nmi_blocked = 0;
	ledger_charge(c->ledger, EVENT_GUEST_IRET);
	interp_mode_changed(c);
}

static void iret_real(struct interp_vcpu *c, const struct insn *i, struct stack *k, uint64_t rip,
		      unsigned selector, uint64_t flags)
{
	struct vcpu_state *s = c->s;
	uint64_t mask = FLAGS_IRET_ANY | FLAG_IF | (is_v86(s) ? 0 : FLAG_IOPL);
	bool is_vme = is_v86(s) && iopl(s) < 3;

	if (is_vme && (!(s->cr4 & CR4_VME) || i->op_bytes > 2))
		raise_gp0(c, i);
	if (is_vme && ((flags & FLAG_TF) || ((flags & FLAG_IF) && (s->rflags & FLAG_VIP))))
		raise_gp0(c, i);
	struct segment_register cs = segment_real(s, SEG_CS, selector);
	check_target(c, i, &cs, rip);
	if (i->op_bytes > 2)
		mask |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (is_vme) {
		mask = (mask & ~FLAG_IF) | FLAG_VIF;
		flags = (flags & ~FLAG_VIF) | (flags & FLAG_IF ? FLAG_VIF : 0);
	}
	s->gpr[GPR_RSP] = k->sp;
	load_code_segment(c, cs, rip);
	write_rflags(c, flags, mask);
	iret_done(c);
}

static void iret_task(struct interp_vcpu *c, const struct insn *i)
{
	struct vcpu_state *s = c->s;
	struct descriptor d;

	if (is_long(s))
		raise_gp0(c, i);
	unsigned link = (unsigned)system_read(c, i, s->tr.base, 2);
	if ((link & 4) || !descriptor_read(c, i, link, &d) || descriptor_is_segment(&d) ||
	    (descriptor_type(&d) != TYPE_TSS16_BUSY && descriptor_type(&d) != TYPE_TSS32_BUSY))
		raise_selector(c, i, VECTOR_TS, link);
	s->nmi_blocked = 0;
	ledger_charge(c->ledger, EVENT_GUEST_IRET);
	task_switch(c, i, TASK_RETURN, link, &d, interp_next_rip(s, i));
}

/* To virtual-8086 mode: ESP, SS, ES, DS, FS, GS follow on the stack. */
static void iret_to_v86(struct interp_vcpu *c, const struct insn *i, struct stack *k, uint64_t rip,
			unsigned selector, uint64_t flags)
{
	static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	struct vcpu_state *s = c->s;
	unsigned selectors[ARRAY_COUNT(order)];
	uint64_t sp = stack_pop(c, i, k, 4);

	for (unsigned n = 0; n < ARRAY_COUNT(order); n++)
		selectors[n] = (uint16_t)stack_pop(c, i, k, 4);
	if ((uint32_t)rip > 0xffff)
		raise_gp0(c, i);
	write_rflags(c, flags,
		     FLAGS_IRET_ANY | FLAG_IF | FLAG_IOPL | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_VIF |
			     FLAG_VIP | FLAG_ID);
	s->gpr[GPR_RSP] = (uint32_t)sp;
	for (unsigned n = 0; n < ARRAY_COUNT(order); n++)
		s->seg[order[n]] = segment_real(s, order[n], selectors[n]);
	load_code_segment(c, segment_real(s, SEG_CS, selector), (uint16_t)rip);
	s->cpl = 3;
	iret_done(c);
}

HANDLER(op_iret)
{
	struct stack k = stack_current(c);
	bool is_64 = k.is_flat;

	if (is_protected(s) && (s->rflags & FLAG_NT)) {
		iret_task(c, i);
		return;
	}
	uint64_t frame[3], outer[2];
	stack_pop_many(c, i, &k, frame, 3, i->op_bytes);
	uint64_t rip = frame[0], flags = frame[2];
	unsigned selector = (uint16_t)frame[1];
	if (!is_protected(s)) {
		iret_real(c, i, &k, rip, selector, flags);
		return;
	}
	if (i->op_bytes == 4 && (flags & FLAG_VM) && s->cpl == 0 && !is_long(s)) {
		iret_to_v86(c, i, &k, rip, selector, flags);
		return;
	}
	uint64_t mask = iret_flags(s, i->op_bytes);
	struct segment_register cs = return_segment(c, i, selector);
	bool is_outer = (selector & 3) > s->cpl;
	if (is_outer || is_64) {
		stack_pop_many(c, i, &k, outer, 2, i->op_bytes);
		struct segment_register ss = return_stack(c, i, &cs, (uint16_t)outer[1]);
		check_target(c, i, &cs, rip);
		s->seg[SEG_SS] = ss;
		set_outer_sp(s, &cs, &ss, outer[0]);
	} else {
		check_target(c, i, &cs, rip);
		s->gpr[GPR_RSP] = k.sp;
	}
	load_code_segment(c, cs, rip);
	write_rflags(c, flags, mask);
	if (is_outer)
		drop_inner_segments(s);
	iret_done(c);
}

/* ---- lowering ---- */

static bool lower_exec(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS))
{
	l->out->exec = exec;
	return l->ends_block = true;
}

static bool lower_return(struct lowering *l)
{
	const ZydisDecodedOperand *o = &l->operands[0];

	if (l->d->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
		return false;
	l->out->imm = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? o->imm.value.u & 0xffff : 0;
	return lower_exec(l, op_far_return);
}

bool lower_returns(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_RET: return lower_return(l);
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ: return lower_exec(l, op_iret);
	default: return false;
	}
}
