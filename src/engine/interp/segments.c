/*
 * Loads and stores of segment registers and of the table registers, and the instructions that ask
 * about descriptors.
 *
 * The order of checks is that of volume 2's MOV, LDS, LLDT, LTR, LAR, LSL, VERR and ARPL. In 64-bit
 * code loads of DS, ES, FS and GS change nothing that the fast paths know, so they do not end their
 * block.
 */
#include "engine/interp/system.h"

#define FLAG_ZF_LOW 0x40u

static void set_zf(struct vcpu_state *s, bool on)
{
	s->flags_low = (uint8_t)(on ? s->flags_low | FLAG_ZF_LOW : s->flags_low & ~FLAG_ZF_LOW);
}

static bool is_code64(const struct interp_vcpu *c)
{
	return (c->key & KEY_CODE64) != 0;
}

static void load_null(struct interp_vcpu *c, const struct insn *i, unsigned seg, unsigned selector)
{
	struct vcpu_state *s = c->s;

	if (seg == SEG_SS && (!is_code64(c) || s->cpl == 3 || (selector & 3) != s->cpl))
		raise_gp0(c, i);
	s->seg[seg] = segment_null(selector, seg == SEG_SS ? s->cpl : 0);
}

void segment_load(struct interp_vcpu *c, const struct insn *i, unsigned seg, unsigned selector)
{
	struct vcpu_state *s = c->s;
	struct descriptor d;

	if (!is_protected(s)) {
		s->seg[seg] = segment_real(s, seg, selector);
		return;
	}
	if (is_null_selector(selector)) {
		load_null(c, i, seg, selector);
		return;
	}
	if (seg == SEG_SS) {
		s->seg[seg] = segment_check_stack(c, i, selector, s->cpl, VECTOR_GP);
		return;
	}
	if (!descriptor_read(c, i, selector, &d) || !descriptor_is_segment(&d) ||
	    (descriptor_is_code(&d) && !(d.high >> 8 & ATTR_READABLE)))
		raise_selector(c, i, VECTOR_GP, selector);
	unsigned rpl = selector & 3, dpl = descriptor_dpl(&d);
	if (!descriptor_is_conforming_code(&d) && (rpl > dpl || s->cpl > dpl))
		raise_selector(c, i, VECTOR_GP, selector);
	if (!descriptor_is_present(&d))
		raise_selector(c, i, VECTOR_NP, selector);
	descriptor_mark_accessed(c, i, &d);
	s->seg[seg] = descriptor_segment(&d, selector);
}

static void shadow_after_ss(struct interp_vcpu *c)
{
	c->s->interrupt_shadow = SHADOW_MOV_SS;
	c->attention |= ATTENTION_SHADOW;
}

/* ---- MOV, PUSH, POP, LxS ---- */

static unsigned read_selector(struct interp_vcpu *c, const struct insn *i)
{
	if (i->flags & INSN_MEMORY)
		return interp_read_2(c, i, interp_ea(c, i, 2, ACCESS_READ));
	return (uint16_t)c->s->gpr[i->rm];
}

HANDLER(op_mov_to_data_segment64)
{
	segment_load(c, i, i->sub, read_selector(c, i));
	NEXT;
}

HANDLER(op_mov_to_segment)
{
	segment_load(c, i, i->sub, read_selector(c, i));
	if (i->sub == SEG_SS)
		shadow_after_ss(c);
	interp_mode_changed(c);
	FINISH;
}

HANDLER(op_mov_from_segment)
{
	uint16_t selector = s->seg[i->sub].selector;

	if (i->flags & INSN_MEMORY)
		interp_write_2(c, i, interp_ea(c, i, 2, ACCESS_WRITE), selector);
	else
		register_write(s, i->rm, selector, i->op_bytes);
	NEXT;
}

HANDLER(op_push_segment)
{
	struct stack k = stack_current(c);

	stack_push(c, i, &k, s->seg[i->sub].selector, i->op_bytes);
	s->gpr[GPR_RSP] = k.sp;
	NEXT;
}

static void pop_segment(struct interp_vcpu *c, const struct insn *i)
{
	struct stack k = stack_current(c);
	unsigned selector = (uint16_t)stack_pop(c, i, &k, i->op_bytes);

	segment_load(c, i, i->sub, selector);
	c->s->gpr[GPR_RSP] = k.sp;
}

HANDLER(op_pop_data_segment64)
{
	pop_segment(c, i);
	NEXT;
}

HANDLER(op_pop_segment)
{
	pop_segment(c, i);
	if (i->sub == SEG_SS)
		shadow_after_ss(c);
	interp_mode_changed(c);
	FINISH;
}

HANDLER(op_load_far_pointer)
{
	uint64_t linear = interp_ea(c, i, i->op_bytes + 2u, ACCESS_READ);
	uint64_t offset = data_read(c, i, linear, i->op_bytes);
	unsigned selector = interp_read_2(c, i, wrap_linear(s, linear + i->op_bytes));

	segment_load(c, i, i->sub, selector);
	register_write(s, i->reg, offset, i->op_bytes);
	interp_mode_changed(c);
	FINISH;
}

/* ---- GDTR, IDTR ---- */

static struct table_register *table(struct vcpu_state *s, const struct insn *i)
{
	return i->sub ? &s->idtr : &s->gdtr;
}

HANDLER(op_load_table)
{
	unsigned base_bytes = is_code64(c) ? 8 : 4;

	require_cpl0(c, i);
	uint64_t linear = interp_ea(c, i, base_bytes + 2, ACCESS_READ);
	uint16_t limit = interp_read_2(c, i, linear);
	uint64_t base = data_read(c, i, wrap_linear(s, linear + 2), base_bytes);
	if (!is_code64(c) && i->op_bytes == 2)
		base &= 0xffffff;
	if (is_code64(c) && !vcpu_is_canonical(s, base))
		raise_gp0(c, i);
	*table(s, i) = (struct table_register){.base = base, .limit = limit};
	NEXT;
}

static void require_no_umip(struct interp_vcpu *c, const struct insn *i)
{
	if ((c->s->cr4 & CR4_UMIP) && c->s->cpl)
		raise_gp0(c, i);
}

HANDLER(op_store_table)
{
	uint8_t bytes[10];
	unsigned base_bytes = is_code64(c) ? 8 : 4;

	require_no_umip(c, i);
	uint64_t linear = interp_ea(c, i, base_bytes + 2, ACCESS_WRITE);
	__builtin_memcpy(bytes, &table(s, i)->limit, 2);
	__builtin_memcpy(bytes + 2, &table(s, i)->base, 8);
	interp_write_bytes(c, i, linear, bytes, base_bytes + 2);
	NEXT;
}

/* ---- LDTR, TR ---- */

static void require_protected(struct interp_vcpu *c, const struct insn *i)
{
	if (!is_protected(c->s))
		interp_raise(c, i, VECTOR_UD);
}

/* Reads and checks the descriptor of an LDT or a TSS; `types` has a bit for each legal type. */
static struct segment_register read_system_segment(struct interp_vcpu *c, const struct insn *i,
						   unsigned selector, unsigned types)
{
	struct descriptor d;
	uint64_t upper = 0;

	if ((selector & 4) || !descriptor_read(c, i, selector, &d))
		raise_selector(c, i, VECTOR_GP, selector);
	if (is_long(c->s) &&
	    (!descriptor_read_upper(c, i, selector, &d, &upper) || (upper >> 32 & 0x1f00)))
		raise_selector(c, i, VECTOR_GP, selector);
	if (descriptor_is_segment(&d) || !(types >> descriptor_type(&d) & 1))
		raise_selector(c, i, VECTOR_GP, selector);
	if (!descriptor_is_present(&d))
		raise_selector(c, i, VECTOR_NP, selector);
	struct segment_register g = descriptor_segment(&d, selector);
	g.base |= upper << 32;
	if (!vcpu_is_canonical(c->s, g.base))
		raise_selector(c, i, VECTOR_GP, selector);
	return g;
}

HANDLER(op_lldt)
{
	require_protected(c, i);
	require_cpl0(c, i);
	unsigned selector = read_selector(c, i);
	if (is_null_selector(selector))
		s->ldtr = segment_null(selector, 0);
	else
		s->ldtr = read_system_segment(c, i, selector, 1u << TYPE_LDT);
	NEXT;
}

HANDLER(op_ltr)
{
	unsigned types = 1u << TYPE_TSS32 | (is_long(s) ? 0 : 1u << TYPE_TSS16);

	require_protected(c, i);
	require_cpl0(c, i);
	unsigned selector = read_selector(c, i);
	if (is_null_selector(selector))
		raise_gp0(c, i);
	struct segment_register g = read_system_segment(c, i, selector, types);
	descriptor_set_busy(c, i, selector, true);
	g.attributes |= 2;
	s->tr = g;
	NEXT;
}

/* SLDT and STR. */
HANDLER(op_store_selector)
{
	uint16_t selector = i->sub ? s->tr.selector : s->ldtr.selector;

	require_protected(c, i);
	require_no_umip(c, i);
	if (i->flags & INSN_MEMORY)
		interp_write_2(c, i, interp_ea(c, i, 2, ACCESS_WRITE), selector);
	else
		register_write(s, i->rm, selector, i->op_bytes);
	NEXT;
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

#define LAR_TYPES_LEGACY 0x1a3eu /* 1 2 3 4 5 9 B C */
#define LAR_TYPES_LONG 0x1a04u	 /* 2 9 B C */
#define LSL_TYPES_LEGACY 0x0a0eu /* 1 2 3 9 B */
#define LSL_TYPES_LONG 0x0a04u	 /* 2 9 B */

/* Reads the descriptor if the program could use its selector: inside its table, of a known type,
 * privileged enough. */
static bool look_up(struct interp_vcpu *c, const struct insn *i, unsigned selector,
		    unsigned system_types, struct descriptor *d)
{
	unsigned dpl;

	if (is_null_selector(selector) || !descriptor_read(c, i, selector, d))
		return false;
	if (!descriptor_is_segment(d) && !(system_types >> descriptor_type(d) & 1))
		return false;
	if (descriptor_is_conforming_code(d))
		return true;
	dpl = descriptor_dpl(d);
	return c->s->cpl <= dpl && (selector & 3) <= dpl;
}

HANDLER(op_lar)
{
	struct descriptor d;

	require_protected(c, i);
	unsigned selector = read_selector(c, i);
	bool ok = look_up(c, i, selector, is_long(s) ? LAR_TYPES_LONG : LAR_TYPES_LEGACY, &d);
	if (ok)
		register_write(s, i->reg, d.high & (i->op_bytes == 2 ? 0xff00u : 0xf0ff00u),
			       i->op_bytes);
	set_zf(s, ok);
	NEXT;
}

HANDLER(op_lsl)
{
	struct descriptor d;

	require_protected(c, i);
	unsigned selector = read_selector(c, i);
	bool ok = look_up(c, i, selector, is_long(s) ? LSL_TYPES_LONG : LSL_TYPES_LEGACY, &d);
	if (ok)
		register_write(s, i->reg, descriptor_limit(&d), i->op_bytes);
	set_zf(s, ok);
	NEXT;
}

HANDLER(op_verify)
{
	struct descriptor d;

	require_protected(c, i);
	unsigned selector = read_selector(c, i);
	bool ok = look_up(c, i, selector, 0, &d);
	if (ok && i->sub) /* VERW */
		ok = descriptor_is_writable_data(&d);
	else if (ok)
		ok = !descriptor_is_code(&d) || (d.high >> 8 & ATTR_READABLE);
	set_zf(s, ok);
	NEXT;
}

HANDLER(op_arpl)
{
	unsigned rpl = s->gpr[i->reg] & 3;

	require_protected(c, i);
	if (i->flags & INSN_MEMORY) {
		uint64_t linear = interp_ea(c, i, 2, ACCESS_WRITE);
		interp_operand_2 *p = interp_rmw_2(c, i, linear);
		bool raises = (*p & 3u) < rpl;
		if (raises)
			*p = (uint16_t)((*p & ~3u) | rpl);
		interp_rmw_done(c, i, linear, p, 2);
		set_zf(s, raises);
	} else {
		bool raises = (s->gpr[i->rm] & 3) < rpl;
		if (raises)
			register_write(s, i->rm, (s->gpr[i->rm] & ~3ull) | rpl, 2);
		set_zf(s, raises);
	}
	NEXT;
}

/* ---- lowering ---- */

static int segment_operand(const ZydisDecodedOperand *o)
{
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || o->reg.value < ZYDIS_REGISTER_ES ||
	    o->reg.value > ZYDIS_REGISTER_GS)
		return -1;
	return (int)(o->reg.value - ZYDIS_REGISTER_ES);
}

/* The operand that rm describes, register or memory. */
static void lower_rm(struct lowering *l, const ZydisDecodedOperand *o)
{
	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
		lower_memory(l, o);
	else
		l->out->rm = (uint8_t)lower_register(o->reg.value);
}

static bool lower_mov(struct lowering *l)
{
	struct insn *out = l->out;
	int to = segment_operand(&l->operands[0]), from = segment_operand(&l->operands[1]);

	if (from >= 0) {
		out->sub = (uint8_t)from;
		lower_rm(l, &l->operands[0]);
		out->exec = op_mov_from_segment;
		return true;
	}
	if (to < 0 || to == SEG_CS)
		return false;
	out->sub = (uint8_t)to;
	lower_rm(l, &l->operands[1]);
	l->ends_block = out->mode != 64 || to == SEG_SS;
	out->exec = l->ends_block ? op_mov_to_segment : op_mov_to_data_segment64;
	return true;
}

static bool lower_push_pop(struct lowering *l)
{
	struct insn *out = l->out;
	int seg = segment_operand(&l->operands[0]);

	if (seg < 0)
		return false;
	out->sub = (uint8_t)seg;
	if (l->d->mnemonic == ZYDIS_MNEMONIC_PUSH) {
		out->exec = op_push_segment;
		return true;
	}
	l->ends_block = out->mode != 64 || seg == SEG_SS;
	out->exec = l->ends_block ? op_pop_segment : op_pop_data_segment64;
	return true;
}

static bool lower_far_pointer(struct lowering *l, unsigned seg)
{
	l->out->sub = (uint8_t)seg;
	l->out->reg = (uint8_t)lower_register(l->operands[0].reg.value);
	lower_memory(l, &l->operands[1]);
	l->out->exec = op_load_far_pointer;
	l->ends_block = true;
	return true;
}

static bool lower_rm_only(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS), unsigned sub)
{
	l->out->sub = (uint8_t)sub;
	lower_rm(l, &l->operands[0]);
	l->out->exec = exec;
	return true;
}

static bool lower_reg_rm(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS))
{
	l->out->reg = (uint8_t)lower_register(l->operands[0].reg.value);
	lower_rm(l, &l->operands[1]);
	l->out->exec = exec;
	return true;
}

static bool lower_arpl(struct lowering *l)
{
	l->out->reg = (uint8_t)lower_register(l->operands[1].reg.value);
	return lower_rm_only(l, op_arpl, 0);
}

bool lower_segments(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_MOV: return lower_mov(l);
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP: return lower_push_pop(l);
	case ZYDIS_MNEMONIC_LDS: return lower_far_pointer(l, SEG_DS);
	case ZYDIS_MNEMONIC_LES: return lower_far_pointer(l, SEG_ES);
	case ZYDIS_MNEMONIC_LFS: return lower_far_pointer(l, SEG_FS);
	case ZYDIS_MNEMONIC_LGS: return lower_far_pointer(l, SEG_GS);
	case ZYDIS_MNEMONIC_LSS: return lower_far_pointer(l, SEG_SS);
	case ZYDIS_MNEMONIC_LGDT: return lower_rm_only(l, op_load_table, 0);
	case ZYDIS_MNEMONIC_LIDT: return lower_rm_only(l, op_load_table, 1);
	case ZYDIS_MNEMONIC_SGDT: return lower_rm_only(l, op_store_table, 0);
	case ZYDIS_MNEMONIC_SIDT: return lower_rm_only(l, op_store_table, 1);
	case ZYDIS_MNEMONIC_LLDT: return lower_rm_only(l, op_lldt, 0);
	case ZYDIS_MNEMONIC_LTR: return lower_rm_only(l, op_ltr, 0);
	case ZYDIS_MNEMONIC_SLDT: return lower_rm_only(l, op_store_selector, 0);
	case ZYDIS_MNEMONIC_STR: return lower_rm_only(l, op_store_selector, 1);
	case ZYDIS_MNEMONIC_VERR: return lower_rm_only(l, op_verify, 0);
	case ZYDIS_MNEMONIC_VERW: return lower_rm_only(l, op_verify, 1);
	case ZYDIS_MNEMONIC_LAR: return lower_reg_rm(l, op_lar);
	case ZYDIS_MNEMONIC_LSL: return lower_reg_rm(l, op_lsl);
	case ZYDIS_MNEMONIC_ARPL: return lower_arpl(l);
	default: return false;
	}
}
