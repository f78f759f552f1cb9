/*
 * Near branches and the stack.
 *
 * A branch stores state.rip and returns to the run loop with c->taken saying which way it went, so
 * that the loop can follow a remembered link. Targets are checked before anything is committed:
 * canonical in 64-bit code, inside CS's limit otherwise.
 */
#include "engine/interp/condition.h"
#include "engine/interp/interp.h"

/* ---- targets ---- */

static inline uint64_t target_mask(const struct insn *i)
{
	return i->mode == 64 ? ~0ull : i->op_bytes == 2 ? 0xffffull : 0xffffffffull;
}

/* Raises #GP(0) unless a branch may go to `rip`. */
static inline void check_target(struct interp_vcpu *c, const struct insn *i, uint64_t rip)
{
	if (likely(i->mode == 64)) {
		if (unlikely(!vcpu_is_canonical(c->s, rip)))
			interp_raise_error(c, i, VECTOR_GP, 0);
	} else if (unlikely(rip > c->s->seg[SEG_CS].limit))
		interp_raise_error(c, i, VECTOR_GP, 0);
}

static inline void go_direct(HANDLER_ARGUMENTS)
{
	uint64_t rip = (s->gpr[REG_BLOCK] + i->imm) & target_mask(i);
	if (unlikely(i->mode != 64))
		check_target(c, i, rip);
	s->rip = rip;
	c->taken = 1;
}

static inline void fall_through(HANDLER_ARGUMENTS)
{
	s->rip = interp_next_rip(s, i);
	c->taken = 0;
}

/* ---- jumps ---- */

HANDLER(jmp_direct)
{
	go_direct(s, i, c);
}

#define JCC(code)                                 \
	HANDLER(jcc_##code)                       \
	{                                         \
		if (condition_holds(s, 0x##code)) \
			go_direct(s, i, c);       \
		else                              \
			fall_through(s, i, c);    \
	}
JCC(0)
JCC(1)
JCC(2)
JCC(3)
JCC(4)
JCC(5)
JCC(6)
JCC(7)
JCC(8)
JCC(9)
JCC(a)
JCC(b)
JCC(c)
JCC(d)
JCC(e)
JCC(f)
#undef JCC

static void (*const jcc[16])(HANDLER_ARGUMENTS) = {jcc_0, jcc_1, jcc_2, jcc_3, jcc_4, jcc_5,
						   jcc_6, jcc_7, jcc_8, jcc_9, jcc_a, jcc_b,
						   jcc_c, jcc_d, jcc_e, jcc_f};

static uint64_t count_mask(const struct insn *i)
{
	return mask_bytes(i->address_bytes);
}

HANDLER(loop) /* LOOP 0, LOOPE 1, LOOPNE 2 */
{
	uint64_t mask = count_mask(i);
	uint64_t count = (s->gpr[GPR_RCX] - 1) & mask;
	bool zero = s->flags_low & 0x40;
	bool goes = count && (i->sub == 0 || (i->sub == 1) == zero);
	if (goes && i->mode != 64)
		check_target(c, i, (s->gpr[REG_BLOCK] + i->imm) & target_mask(i));
	s->gpr[GPR_RCX] = mask == 0xffff ? (s->gpr[GPR_RCX] & ~mask) | count : count;
	if (goes)
		go_direct(s, i, c);
	else
		fall_through(s, i, c);
}

HANDLER(jcxz)
{
	if (s->gpr[GPR_RCX] & count_mask(i))
		fall_through(s, i, c);
	else
		go_direct(s, i, c);
}

static uint64_t read_sized(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			   unsigned size_bytes)
{
	switch (size_bytes) {
	case 2: return interp_read_2(c, i, linear);
	case 4: return interp_read_4(c, i, linear);
	default: return interp_read_8(c, i, linear);
	}
}

static uint64_t branch_operand(struct interp_vcpu *c, const struct insn *i)
{
	if (!(i->flags & INSN_MEMORY))
		return c->s->gpr[i->reg] & target_mask(i);
	return read_sized(c, i, interp_ea(c, i, i->op_bytes, ACCESS_READ), i->op_bytes);
}

HANDLER(jmp_indirect)
{
	uint64_t rip = branch_operand(c, i);
	check_target(c, i, rip);
	s->rip = rip;
	c->taken = 2;
}

/* ---- the stack ---- */

static inline uint64_t stack_linear(struct interp_vcpu *c, const struct insn *i, uint64_t offset,
				    unsigned size_bytes, enum access_kind kind)
{
	if (likely(i->mode == 64))
		return offset;
	if (likely(c->key & KEY_FLAT))
		return (uint32_t)offset;
	return interp_linear(c, i, SEG_SS, offset & interp_stack_mask(c), size_bytes, kind);
}

static inline void push(struct interp_vcpu *c, const struct insn *i, uint64_t value,
			unsigned size_bytes)
{
	uint64_t sp = c->s->gpr[GPR_RSP] - size_bytes;
	uint64_t linear = stack_linear(c, i, sp, size_bytes, ACCESS_WRITE);
	if (size_bytes == 8)
		interp_write_8(c, i, linear, value);
	else if (size_bytes == 4)
		interp_write_4(c, i, linear, (uint32_t)value);
	else
		interp_write_2(c, i, linear, (uint16_t)value);
	interp_set_sp(c, sp);
}

/* What is `at` bytes above the stack pointer. */
static inline uint64_t peek(struct interp_vcpu *c, const struct insn *i, uint64_t at,
			    unsigned size_bytes)
{
	uint64_t offset = c->s->gpr[GPR_RSP] + at;
	return read_sized(c, i, stack_linear(c, i, offset, size_bytes, ACCESS_READ), size_bytes);
}

static inline void store_register(struct vcpu_state *s, unsigned r, uint64_t value,
				  unsigned size_bytes)
{
	if (size_bytes == 2)
		*(uint16_t *)&s->gpr[r] = (uint16_t)value;
	else
		s->gpr[r] = value;
}

HANDLER(push_r8)
{
	uint64_t sp = s->gpr[GPR_RSP] - 8;
	interp_write_8(c, i, sp, s->gpr[i->reg]);
	s->gpr[GPR_RSP] = sp;
	NEXT;
}

HANDLER(pop_r8)
{
	uint64_t value = interp_read_8(c, i, s->gpr[GPR_RSP]);
	s->gpr[GPR_RSP] += 8;
	s->gpr[i->reg] = value;
	NEXT;
}

HANDLER(push_r)
{
	push(c, i, s->gpr[i->reg], i->op_bytes);
	NEXT;
}

HANDLER(pop_r)
{
	uint64_t value = peek(c, i, 0, i->op_bytes);
	interp_set_sp(c, s->gpr[GPR_RSP] + i->op_bytes);
	store_register(s, i->reg, value, i->op_bytes);
	NEXT;
}

HANDLER(push_imm)
{
	push(c, i, i->imm, i->op_bytes);
	NEXT;
}

/* PUSH and CALL through memory: i->seg is the operand's, so the stack's own fault is raised here.
 */
static void check_stack(struct interp_vcpu *c, const struct insn *i)
{
	if (i->mode == 64 && !vcpu_is_canonical(c->s, c->s->gpr[GPR_RSP] - i->op_bytes))
		interp_raise_error(c, i, VECTOR_SS, 0);
}

HANDLER(push_m)
{
	uint64_t value = read_sized(c, i, interp_ea(c, i, i->op_bytes, ACCESS_READ), i->op_bytes);
	check_stack(c, i);
	push(c, i, value, i->op_bytes);
	NEXT;
}

/* The destination's address is computed with the stack pointer already raised (SDM 2B POP). */
HANDLER(pop_m)
{
	uint64_t value = peek(c, i, 0, i->op_bytes);
	uint64_t old = s->gpr[GPR_RSP];
	struct insn moved = *i;
	uint64_t address_sp = old + i->op_bytes;
	if (i->base == GPR_RSP)
		moved.disp += i->op_bytes;
	uint64_t ea =
		interp_linear(c, i, i->seg, interp_ea_offset(c, &moved), i->op_bytes, ACCESS_WRITE);
	if (i->op_bytes == 8)
		interp_write_8(c, i, ea, value);
	else if (i->op_bytes == 4)
		interp_write_4(c, i, ea, (uint32_t)value);
	else
		interp_write_2(c, i, ea, (uint16_t)value);
	interp_set_sp(c, address_sp);
	NEXT;
}

HANDLER(pusha)
{
	unsigned n = i->op_bytes;
	uint64_t sp = s->gpr[GPR_RSP];
	for (unsigned r = 8;
	     r-- > 0;) /* EDI, the last, is the lowest: check it first by writing from the bottom */
		interp_probe_write(c, i, stack_linear(c, i, sp - n * (r + 1), n, ACCESS_WRITE), n);
	for (unsigned r = 0; r < 8; r++) {
		uint64_t linear = stack_linear(c, i, sp - n * (r + 1), n, ACCESS_WRITE);
		if (n == 4)
			interp_write_4(c, i, linear, (uint32_t)s->gpr[r]);
		else
			interp_write_2(c, i, linear, (uint16_t)s->gpr[r]);
	}
	interp_set_sp(c, sp - 8 * n);
	NEXT;
}

HANDLER(popa)
{
	unsigned n = i->op_bytes;
	uint64_t value[8];
	for (unsigned r = 0; r < 8; r++)
		value[7 - r] = peek(c, i, n * r, n);
	for (unsigned r = 0; r < 8; r++)
		if (r != GPR_RSP)
			store_register(s, r, value[r], n);
	interp_set_sp(c, s->gpr[GPR_RSP] + 8 * n);
	NEXT;
}

HANDLER(leave)
{
	uint64_t mask = interp_stack_mask(c);
	uint64_t sp = s->gpr[GPR_RBP] & mask;
	uint64_t linear = stack_linear(c, i, sp, i->op_bytes, ACCESS_READ);
	uint64_t value = read_sized(c, i, linear, i->op_bytes);
	interp_set_sp(c, sp + i->op_bytes);
	store_register(s, GPR_RBP, value, i->op_bytes);
	NEXT;
}

/* ENTER: imm is the frame's size, sub the nesting level (SDM 2A ENTER). */
HANDLER(enter)
{
	unsigned n = i->op_bytes, level = i->sub;
	uint64_t mask = interp_stack_mask(c);
	uint64_t sp = s->gpr[GPR_RSP], bp = s->gpr[GPR_RBP];
	uint64_t frame = sp - n;
	struct {
		uint64_t linear, value;
	} pushes[33];
	unsigned count = 0;
	pushes[count].linear = stack_linear(c, i, frame & mask, n, ACCESS_WRITE);
	pushes[count++].value = bp;
	for (unsigned k = 1; k < level; k++) {
		uint64_t from = stack_linear(c, i, (bp - n * k) & mask, n, ACCESS_READ);
		pushes[count].value = read_sized(c, i, from, n);
		pushes[count++].linear =
			stack_linear(c, i, (frame - n * k) & mask, n, ACCESS_WRITE);
	}
	if (level) {
		pushes[count].linear =
			stack_linear(c, i, (frame - n * level) & mask, n, ACCESS_WRITE);
		pushes[count++].value = frame;
	}
	uint64_t final = sp - n * (uint64_t)count - i->imm;
	for (unsigned k = 0; k < count; k++)
		interp_probe_write(c, i, pushes[k].linear, n);
	interp_probe_write(c, i, stack_linear(c, i, final & mask, n, ACCESS_WRITE), n);
	for (unsigned k = 0; k < count; k++)
		interp_write_bytes(c, i, pushes[k].linear, &pushes[k].value, n);
	store_register(s, GPR_RBP, i->mode == 64 ? frame : (bp & ~mask) | (frame & mask), n);
	interp_set_sp(c, final);
	NEXT;
}

/* ---- calls and returns ---- */

HANDLER(call_direct)
{
	uint64_t target = (s->gpr[REG_BLOCK] + i->imm) & target_mask(i);
	if (i->mode != 64)
		check_target(c, i, target);
	push(c, i, interp_next_rip(s, i), i->op_bytes);
	s->rip = target;
	c->taken = 1;
}

HANDLER(call_indirect)
{
	uint64_t target = branch_operand(c, i);
	check_target(c, i, target);
	check_stack(c, i);
	push(c, i, interp_next_rip(s, i), i->op_bytes);
	s->rip = target;
	c->taken = 2;
}

HANDLER(ret)
{
	uint64_t target = peek(c, i, 0, i->op_bytes);
	check_target(c, i, target);
	interp_set_sp(c, s->gpr[GPR_RSP] + i->op_bytes + i->imm);
	s->rip = target;
	c->taken = 2;
}

/* ---- lowering ---- */

static bool branch(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS))
{
	l->out->exec = exec;
	l->ends_block = true;
	return true;
}

/* A relative branch: imm becomes the distance from the block's start. */
static void relative(struct lowering *l)
{
	l->out->imm = l->operands[0].imm.value.u + l->out->offset + l->out->length;
	if (l->out->mode == 64)
		l->out->op_bytes = 8;
}

/* The stack is the implied memory: faults of its addresses are #SS. */
static bool stack(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS))
{
	l->out->exec = exec;
	if (!(l->out->flags & INSN_MEMORY))
		l->out->seg = SEG_SS;
	return true;
}

static bool lower_indirect(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS))
{
	if (l->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY)
		lower_memory(l, &l->operands[0]);
	else
		l->out->reg = (uint8_t)lower_register(l->operands[0].reg.value);
	if (l->out->mode == 64)
		l->out->op_bytes = 8;
	return branch(l, exec);
}

static bool lower_push_pop(struct lowering *l)
{
	const ZydisDecodedOperand *a = &l->operands[0];
	bool is_push = l->d->mnemonic == ZYDIS_MNEMONIC_PUSH;
	struct insn *out = l->out;
	if (a->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		out->imm = a->imm.value.u;
		return stack(l, push_imm);
	}
	if (a->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		lower_memory(l, a);
		return stack(l, is_push ? push_m : pop_m);
	}
	int r = lower_register(a->reg.value);
	if (r < 0)
		return false; /* segment registers */
	out->reg = (uint8_t)r;
	if (out->mode == 64 && out->op_bytes == 8)
		return stack(l, is_push ? push_r8 : pop_r8);
	return stack(l, is_push ? push_r : pop_r);
}

static bool lower_near_branch(struct lowering *l)
{
	bool is_direct = l->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		if (!is_direct)
			return lower_indirect(l, jmp_indirect);
		relative(l);
		return branch(l, jmp_direct);
	case ZYDIS_MNEMONIC_CALL:
		l->out->seg = SEG_SS;
		if (!is_direct)
			return lower_indirect(l, call_indirect);
		relative(l);
		return branch(l, call_direct);
	case ZYDIS_MNEMONIC_RET:
		l->out->seg = SEG_SS;
		l->out->imm = is_direct ? l->operands[0].imm.value.u & 0xffff : 0;
		if (l->out->mode == 64)
			l->out->op_bytes = 8;
		return branch(l, ret);
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
		relative(l);
		l->out->sub = l->d->mnemonic == ZYDIS_MNEMONIC_LOOP    ? 0
			      : l->d->mnemonic == ZYDIS_MNEMONIC_LOOPE ? 1
								       : 2;
		return branch(l, loop);
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ: relative(l); return branch(l, jcxz);
	default: return false;
	}
}

static bool is_jcc(const ZydisDecodedInstruction *d)
{
	if (d->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	return (d->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (d->opcode & 0xf0) == 0x70) ||
	       (d->opcode_map == ZYDIS_OPCODE_MAP_0F && (d->opcode & 0xf0) == 0x80);
}

bool lower_flow(struct lowering *l)
{
	if (l->d->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return false;
	if (is_jcc(l->d)) {
		relative(l);
		return branch(l, jcc[l->d->opcode & 15]);
	}
	if (lower_near_branch(l))
		return true;
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP: return lower_push_pop(l);
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD: return stack(l, pusha);
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD: return stack(l, popa);
	case ZYDIS_MNEMONIC_LEAVE: return stack(l, leave);
	case ZYDIS_MNEMONIC_ENTER:
		l->out->imm = l->operands[0].imm.value.u & 0xffff;
		l->out->sub = l->operands[1].imm.value.u & 31;
		return stack(l, enter);
	default: return false;
	}
}
