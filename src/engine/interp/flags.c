/*
 * RFLAGS as a whole: PUSHF, POPF, CLI, STI, CLAC, STAC, with what IOPL, virtual-8086 mode and its
 * extensions make of them.
 */
#include "engine/interp/system.h"

/* What a program may always change. */
#define FLAGS_FREE (FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID)

void write_rflags(struct interp_vcpu *c, uint64_t value, uint64_t mask)
{
	vcpu_set_rflags(c->v, (vcpu_rflags(c->v) & ~mask) | (value & mask) | FLAG_FIXED1);
}

/* Virtual-8086 mode with IOPL below 3: PUSHF and POPF work on VIF, or fault. */
static bool is_virtual(struct interp_vcpu *c, const struct insn *i)
{
	if (!is_v86(c->s) || iopl(c->s) == 3)
		return false;
	if (!(c->s->cr4 & CR4_VME) || i->op_bytes != 2)
		raise_gp0(c, i);
	return true;
}

HANDLER(op_pushf)
{
	bool virtual = is_virtual(c, i);
	uint64_t flags = vcpu_rflags(c->v) & ~(FLAG_VM | FLAG_RF);
	struct stack k = stack_current(c);

	if (virtual)
		flags = (flags & ~FLAG_IF) | FLAG_IOPL | (s->rflags & FLAG_VIF ? FLAG_IF : 0);
	stack_push(c, i, &k, flags, i->op_bytes);
	s->gpr[GPR_RSP] = k.sp;
	NEXT;
}

HANDLER(op_popf)
{
	bool virtual = is_virtual(c, i);
	struct stack k = stack_current(c);
	uint64_t flags = stack_pop(c, i, &k, i->op_bytes);
	uint64_t mask = FLAGS_FREE;

	if (virtual) {
		if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (s->rflags & FLAG_VIP)))
			raise_gp0(c, i);
		mask |= FLAG_VIF;
		flags |= flags & FLAG_IF ? FLAG_VIF : 0;
	} else if (is_v86(s) || s->cpl <= iopl(s)) {
		mask |= FLAG_IF;
	}
	if (s->cpl == 0)
		mask |= FLAG_IOPL;
	if (i->op_bytes == 2)
		mask &= 0xffff | (virtual ? FLAG_VIF : 0);
	s->gpr[GPR_RSP] = k.sp;
	write_rflags(c, flags, mask);
	s->rflags &= ~FLAG_RF;
	interp_mode_changed(c);
	FINISH;
}

/* Does CLI or STI mean VIF here? Faults if it means neither. */
static bool means_vif(struct interp_vcpu *c, const struct insn *i)
{
	const struct vcpu_state *s = c->s;

	if (!(s->cr0 & CR0_PE) || (is_v86(s) ? iopl(s) == 3 : s->cpl <= iopl(s)))
		return false;
	if (s->cpl == 3 && (s->cr4 & (is_v86(s) ? CR4_VME : CR4_PVI)))
		return true;
	raise_gp0(c, i);
}

/* Interrupts are looked at between blocks and IF with them, so clearing it needs no end of the
 * block. */
HANDLER(op_cli)
{
	s->rflags &= means_vif(c, i) ? ~FLAG_VIF : ~FLAG_IF;
	NEXT;
}

HANDLER(op_sti)
{
	if (means_vif(c, i)) {
		if (s->rflags & FLAG_VIP)
			raise_gp0(c, i);
		s->rflags |= FLAG_VIF;
	} else {
		if (!(s->rflags & FLAG_IF)) {
			s->interrupt_shadow = SHADOW_STI;
			c->attention |= ATTENTION_SHADOW;
		}
		s->rflags |= FLAG_IF;
	}
	interp_mode_changed(c);
	FINISH;
}

/* CLAC, STAC. */
HANDLER(op_set_ac)
{
	if (s->cpl)
		interp_raise(c, i, VECTOR_UD);
	s->rflags = i->sub ? s->rflags | FLAG_AC : s->rflags & ~FLAG_AC;
	interp_mode_changed(c);
	FINISH;
}

static bool lower_exec(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS), unsigned sub,
		       bool ends_block)
{
	l->out->exec = exec;
	l->out->sub = (uint8_t)sub;
	l->ends_block = ends_block;
	return true;
}

bool lower_flags(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ: return lower_exec(l, op_pushf, 0, false);
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ: return lower_exec(l, op_popf, 0, true);
	case ZYDIS_MNEMONIC_CLI: return lower_exec(l, op_cli, 0, false);
	case ZYDIS_MNEMONIC_STI: return lower_exec(l, op_sti, 0, true);
	case ZYDIS_MNEMONIC_CLAC: return lower_exec(l, op_set_ac, 0, true);
	case ZYDIS_MNEMONIC_STAC: return lower_exec(l, op_set_ac, 1, true);
	default: return false;
	}
}
