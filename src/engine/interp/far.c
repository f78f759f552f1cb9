/*
 * Far transfers: JMP, CALL and RET between code segments, through call gates, tasks and privilege
 * levels; INT n and BOUND; SYSCALL and SYSENTER with their returns. IRET has its own file.
 *
 * Each works in the order look, check, push, commit (system.h). `offset` and `selector` are the
 * operands of a direct or memory-indirect transfer.
 */
#include "engine/interp/ring.h"
#include "engine/interp/system.h"

/* ---- direct: JMP and CALL to a code segment ---- */

static void push_return(struct interp_vcpu *c, const struct insn *i, struct stack *k,
			unsigned size_bytes)
{
	stack_push(c, i, k, c->s->seg[SEG_CS].selector, size_bytes);
	stack_push(c, i, k, interp_next_rip(c->s, i), size_bytes);
}

static void transfer_real(struct interp_vcpu *c, const struct insn *i, unsigned selector,
			  uint64_t offset, bool is_call)
{
	struct segment_register cs = segment_real(c->s, SEG_CS, selector);
	struct stack k = stack_current(c);

	check_target(c, i, &cs, offset);
	if (is_call)
		push_return(c, i, &k, i->op_bytes);
	arrive(c, &k, cs, offset);
}

static void transfer_code(struct interp_vcpu *c, const struct insn *i, unsigned selector,
			  struct descriptor *d, uint64_t offset, bool is_call)
{
	struct vcpu_state *s = c->s;
	struct stack k = stack_current(c);
	unsigned dpl = descriptor_dpl(d);

	require_valid_code(c, i, d, selector);
	if (descriptor_is_conforming_code(d) ? dpl > s->cpl
					     : (selector & 3) > s->cpl || dpl != s->cpl)
		raise_selector(c, i, VECTOR_GP, selector);
	if (!descriptor_is_present(d))
		raise_selector(c, i, VECTOR_NP, selector);
	struct segment_register cs = descriptor_segment(d, (selector & ~3u) | s->cpl);
	check_target(c, i, &cs, offset);
	if (is_call)
		push_return(c, i, &k, i->op_bytes);
	descriptor_mark_accessed(c, i, d);
	cs.attributes |= ATTR_ACCESSED;
	arrive(c, &k, cs, offset);
}

/* ---- call gates ---- */

struct gate_target {
	unsigned selector;
	uint64_t offset;
	unsigned parameter_count;
	unsigned size_bytes;
	struct descriptor code;
};

static void read_call_gate(struct interp_vcpu *c, const struct insn *i, unsigned selector,
			   const struct descriptor *gate, struct gate_target *t)
{
	struct vcpu_state *s = c->s;
	unsigned dpl = descriptor_dpl(gate);
	uint64_t upper = 0;

	if (dpl < s->cpl || (selector & 3) > dpl)
		raise_selector(c, i, VECTOR_GP, selector);
	if (is_long(s) &&
	    (!descriptor_read_upper(c, i, selector, gate, &upper) || (upper >> 32 & 0x1f00)))
		raise_selector(c, i, VECTOR_GP, selector);
	if (!descriptor_is_present(gate))
		raise_selector(c, i, VECTOR_NP, selector);
	t->selector = gate->low >> 16;
	t->size_bytes = is_long(s) ? 8 : descriptor_type(gate) & 8 ? 4 : 2;
	t->offset = (gate->low & 0xffff) | (t->size_bytes > 2 ? gate->high & 0xffff0000u : 0) |
		    upper << 32;
	t->parameter_count = gate->high & 0x1f;
	if (is_null_selector(t->selector))
		raise_gp0(c, i);
	if (!descriptor_read(c, i, t->selector, &t->code) || !descriptor_is_code(&t->code) ||
	    descriptor_dpl(&t->code) > s->cpl)
		raise_selector(c, i, VECTOR_GP, t->selector);
	if (is_long(s) && (t->code.high & 0x600000u) != 0x200000u)
		raise_selector(c, i, VECTOR_GP, t->selector);
	if (!descriptor_is_present(&t->code))
		raise_selector(c, i, VECTOR_NP, t->selector);
}

static void copy_parameters(struct interp_vcpu *c, const struct insn *i, struct stack *to,
			    const struct gate_target *t)
{
	struct stack from = stack_current(c);
	uint64_t values[31];

	for (unsigned n = 0; n < t->parameter_count; n++)
		values[n] = stack_pop(c, i, &from, t->size_bytes);
	for (unsigned n = t->parameter_count; n > 0; n--)
		stack_push(c, i, to, values[n - 1], t->size_bytes);
}

static void call_inner(struct interp_vcpu *c, const struct insn *i, struct gate_target *t)
{
	struct vcpu_state *s = c->s;
	unsigned cpl = descriptor_dpl(&t->code), selector;
	uint64_t sp;

	tss_inner_stack(c, i, cpl, 0, &selector, &sp);
	struct segment_register ss = is_long(s)
					     ? segment_null(cpl, cpl)
					     : segment_check_stack(c, i, selector, cpl, VECTOR_TS);
	struct segment_register cs = descriptor_segment(&t->code, (t->selector & ~3u) | cpl);
	struct stack k = stack_new(c, ss, sp, is_long(s));
	check_target(c, i, &cs, t->offset);
	stack_push(c, i, &k, s->seg[SEG_SS].selector, t->size_bytes);
	stack_push(c, i, &k, s->gpr[GPR_RSP], t->size_bytes);
	if (!is_long(s))
		copy_parameters(c, i, &k, t);
	push_return(c, i, &k, t->size_bytes);
	descriptor_mark_accessed(c, i, &t->code);
	s->seg[SEG_SS] = ss;
	arrive(c, &k, cs, t->offset);
}

static void transfer_gate(struct interp_vcpu *c, const struct insn *i, unsigned selector,
			  const struct descriptor *gate, bool is_call)
{
	struct vcpu_state *s = c->s;
	struct gate_target t;
	struct stack k = stack_current(c);

	read_call_gate(c, i, selector, gate, &t);
	bool is_inner = !descriptor_is_conforming_code(&t.code) && descriptor_dpl(&t.code) < s->cpl;
	if (is_inner && is_call) {
		call_inner(c, i, &t);
		return;
	}
	if (is_inner)
		raise_selector(c, i, VECTOR_GP, t.selector);
	struct segment_register cs = descriptor_segment(&t.code, (t.selector & ~3u) | s->cpl);
	check_target(c, i, &cs, t.offset);
	if (is_long(s)) /* the gate's target is 64-bit code: so is the stack */
		k = stack_new(c, s->seg[SEG_SS], s->gpr[GPR_RSP], true);
	k.is_system = s->cpl < 3;
	if (is_call)
		push_return(c, i, &k, t.size_bytes);
	descriptor_mark_accessed(c, i, &t.code);
	arrive(c, is_call ? &k : NULL, cs, t.offset);
}

static void transfer_system(struct interp_vcpu *c, const struct insn *i, unsigned selector,
			    const struct descriptor *d, bool is_call)
{
	unsigned type = descriptor_type(d), dpl = descriptor_dpl(d);
	enum task_reason reason = is_call ? TASK_CALL : TASK_JUMP;

	if (type == TYPE_CALL_GATE32 || (type == TYPE_CALL_GATE16 && !is_long(c->s))) {
		transfer_gate(c, i, selector, d, is_call);
		return;
	}
	if (is_long(c->s) || dpl < c->s->cpl || (selector & 3) > dpl)
		raise_selector(c, i, VECTOR_GP, selector);
	if (type == TYPE_TASK_GATE) {
		if (!descriptor_is_present(d))
			raise_selector(c, i, VECTOR_NP, selector);
		task_gate(c, i, reason, d, interp_next_rip(c->s, i));
	} else if ((type == TYPE_TSS16 || type == TYPE_TSS32) && !(selector & 4)) {
		task_switch(c, i, reason, selector, d, interp_next_rip(c->s, i));
	} else {
		raise_selector(c, i, VECTOR_GP, selector);
	}
}

static void transfer(struct interp_vcpu *c, const struct insn *i, unsigned selector,
		     uint64_t offset, bool is_call)
{
	struct descriptor d;

	if (!is_protected(c->s)) {
		transfer_real(c, i, selector, offset, is_call);
		return;
	}
	if (is_null_selector(selector))
		raise_gp0(c, i);
	if (!descriptor_read(c, i, selector, &d))
		raise_selector(c, i, VECTOR_GP, selector);
	if (descriptor_is_code(&d))
		transfer_code(c, i, selector, &d, offset, is_call);
	else if (!descriptor_is_segment(&d))
		transfer_system(c, i, selector, &d, is_call);
	else
		raise_selector(c, i, VECTOR_GP, selector);
}

/* ptr16:16, ptr16:32: the selector is in reg's place (sub: is it CALL), the offset is the
 * immediate. */
HANDLER(op_far_direct)
{
	(void)s;
	transfer(c, i, (uint16_t)i->disp, i->imm & mask_bytes(i->op_bytes), i->sub);
}

HANDLER(op_far_indirect)
{
	uint64_t linear = interp_ea(c, i, i->op_bytes + 2u, ACCESS_READ);
	uint64_t offset = data_read(c, i, linear, i->op_bytes);
	unsigned selector = interp_read_2(c, i, wrap_linear(s, linear + i->op_bytes));

	transfer(c, i, selector, offset, i->sub);
}

/* ---- software interrupts ---- */

HANDLER(op_int)
{
	(void)s;
	deliver_software(c, i, (uint8_t)i->imm, true);
}

/* INT3 and INT1 are not subject to IOPL. */
HANDLER(op_int_short)
{
	(void)s;
	deliver_software(c, i, i->sub, false);
}

HANDLER(op_into)
{
	if (!s->flags_of)
		FINISH;
	deliver_software(c, i, VECTOR_OF, false);
}

HANDLER(op_bound)
{
	unsigned n = i->op_bytes;
	uint64_t linear = interp_ea(c, i, 2 * n, ACCESS_READ);
	int64_t low = (int64_t)sign_extend(data_read(c, i, linear, n), 8 * n);
	int64_t high = (int64_t)sign_extend(data_read(c, i, wrap_linear(s, linear + n), n), 8 * n);
	int64_t value = (int64_t)sign_extend(s->gpr[i->reg], 8 * n);

	if (value < low || value > high)
		interp_raise(c, i, VECTOR_BR);
	NEXT;
}

/* ---- SYSCALL, SYSENTER ---- */

HANDLER(op_syscall)
{
	if (!(s->efer & EFER_SCE) || !(c->key & KEY_CODE64))
		interp_raise(c, i, VECTOR_UD);
	ledger_charge(c->ledger, EVENT_GUEST_SYSCALL);
	ring_syscall(c->v, interp_next_rip(s, i));
	c->drops_step = !(s->rflags & FLAG_TF);
	c->taken = 2;
	interp_mode_changed(c);
}

HANDLER(op_sysret)
{
	bool to_64 = i->op_bytes == 8;

	if (!(s->efer & EFER_SCE) || !(c->key & KEY_CODE64))
		interp_raise(c, i, VECTOR_UD);
	require_cpl0(c, i);
	if (to_64 && !vcpu_is_canonical(s, s->gpr[GPR_RCX]))
		raise_gp0(c, i);
	ring_sysret(c->v, to_64);
	c->taken = 2;
	interp_mode_changed(c);
}

HANDLER(op_sysenter)
{
	unsigned selector = s->sysenter_cs & 0xfffc;
	bool long_mode = is_long(s);

	if (!(s->cr0 & CR0_PE) || !selector)
		raise_gp0(c, i);
	ledger_charge(c->ledger, EVENT_GUEST_SYSCALL);
	s->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
	s->gpr[GPR_RSP] = long_mode ? s->sysenter_esp : (uint32_t)s->sysenter_esp;
	s->seg[SEG_SS] = ring_flat_segment(selector + 8, RING_FLAT_DATA, 0);
	load_code_segment(
		c, ring_flat_segment(selector, RING_FLAT_CODE | (long_mode ? ATTR_L : ATTR_DB), 0),
		s->sysenter_eip);
	interp_mode_changed(c);
}

HANDLER(op_sysexit)
{
	unsigned selector = s->sysenter_cs & 0xfffc;
	bool to_64 = i->op_bytes == 8;

	if (!(s->cr0 & CR0_PE) || !selector || s->cpl)
		raise_gp0(c, i);
	if (to_64 &&
	    (!vcpu_is_canonical(s, s->gpr[GPR_RCX]) || !vcpu_is_canonical(s, s->gpr[GPR_RDX])))
		raise_gp0(c, i);
	selector += to_64 ? 32 : 16;
	s->gpr[GPR_RSP] = to_64 ? s->gpr[GPR_RCX] : (uint32_t)s->gpr[GPR_RCX];
	s->seg[SEG_SS] = ring_flat_segment((selector + 8) | 3, RING_FLAT_DATA, 3);
	load_code_segment(
		c, ring_flat_segment(selector | 3, RING_FLAT_CODE | (to_64 ? ATTR_L : ATTR_DB), 3),
		to_64 ? s->gpr[GPR_RDX] : (uint32_t)s->gpr[GPR_RDX]);
	interp_mode_changed(c);
}

/* ---- lowering ---- */

static bool lower_transfer(struct lowering *l)
{
	const ZydisDecodedOperand *o = &l->operands[0];
	struct insn *out = l->out;

	if (l->d->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
		return false;
	out->sub = l->d->mnemonic == ZYDIS_MNEMONIC_CALL;
	if (o->type == ZYDIS_OPERAND_TYPE_POINTER) {
		out->disp = o->ptr.segment;
		out->imm = o->ptr.offset;
		out->exec = op_far_direct;
	} else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		lower_memory(l, o);
		out->exec = op_far_indirect;
	} else {
		return false;
	}
	return true;
}

static bool lower_bound(struct lowering *l)
{
	l->out->reg = (uint8_t)lower_register(l->operands[0].reg.value);
	lower_memory(l, &l->operands[1]);
	l->out->exec = op_bound;
	return true;
}

static bool lower_exec(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS), unsigned sub)
{
	l->out->sub = (uint8_t)sub;
	l->out->exec = exec;
	return true;
}

static bool lower_int(struct lowering *l)
{
	l->out->imm = l->operands[0].imm.value.u & 0xff;
	return lower_exec(l, op_int, 0);
}

static bool lower_ending(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL: return lower_transfer(l);
	case ZYDIS_MNEMONIC_INT: return lower_int(l);
	case ZYDIS_MNEMONIC_INT1: return lower_exec(l, op_int_short, VECTOR_DB);
	case ZYDIS_MNEMONIC_INT3: return lower_exec(l, op_int_short, VECTOR_BP);
	case ZYDIS_MNEMONIC_INTO: return lower_exec(l, op_into, 0);
	case ZYDIS_MNEMONIC_SYSCALL: return lower_exec(l, op_syscall, 0);
	case ZYDIS_MNEMONIC_SYSRET: return lower_exec(l, op_sysret, 0);
	case ZYDIS_MNEMONIC_SYSENTER: return lower_exec(l, op_sysenter, 0);
	case ZYDIS_MNEMONIC_SYSEXIT: return lower_exec(l, op_sysexit, 0);
	default: return false;
	}
}

bool lower_far(struct lowering *l)
{
	if (l->d->mnemonic == ZYDIS_MNEMONIC_BOUND)
		return lower_bound(l);
	return l->ends_block = lower_ending(l);
}
