/*
 * PUSH, POP and LEAVE. Where neighbours share a look-up (group.c) they move RSP together, too.
 */
#include "engine/trans/translate_private.h"

struct guest_address stack_address(const struct guest_insn *g, int base, int disp)
{
	return (struct guest_address){.base = (int8_t)base,
				      .index = GPR_NONE,
				      .disp = disp,
				      .seg = SEG_SS,
				      .is_32bit = is_code32(g),
				      .is_code32 = is_code32(g)};
}

static void emit_stack_pointer(struct work *w, unsigned base, int32_t plus)
{
	emit_rm(&w->e, word_flags(w), 0x8d, HOST_GUEST_RSP, /* lea */
		(struct host_memory){.base = (uint8_t)base, .index = NO_INDEX, .disp = plus});
}

void stack_settle(struct work *w)
{
	if (w->sp_pending)
		emit_stack_pointer(w, HOST_GUEST_RSP, w->sp_pending);
	w->sp_pending = 0;
}

void stack_move(struct work *w, int32_t by)
{
	w->sp_pending += by;
	if (!w->region)
		stack_settle(w);
}

/* Is what it pushes or pops as wide as the stack? */
static bool is_word(const struct guest_insn *g)
{
	return g->d.operand_width == (is_code32(g) ? 32 : 64);
}

enum stack_step stack_step_of(const struct guest_insn *g)
{
	const ZydisDecodedOperand *o = &g->operands[0];
	if (!g->is_decoded || g->d.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
		return STACK_OTHER;
	if (g->d.mnemonic == ZYDIS_MNEMONIC_CALL)
		return branch_is_direct(g) ? STACK_PUSH : STACK_OTHER;
	if (g->d.mnemonic == ZYDIS_MNEMONIC_RET)
		return g->d.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR &&
				       o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE
			       ? STACK_RETURN
			       : STACK_OTHER;
	bool is_register = o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
			   general_register(o->reg.value) >= 0 &&
			   general_register(o->reg.value) != GPR_RSP;
	if (!is_word(g))
		return STACK_OTHER;
	if (g->d.mnemonic == ZYDIS_MNEMONIC_PUSH)
		return is_register || o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? STACK_PUSH
									      : STACK_OTHER;
	return g->d.mnemonic == ZYDIS_MNEMONIC_POP && is_register ? STACK_POP : STACK_OTHER;
}

static bool translate_push(struct work *w)
{
	const ZydisDecodedOperand *o = &w->g->operands[0];
	int bytes = word_bytes(w);
	const struct guest_address below = stack_address(w->g, GPR_RSP, -bytes);
	struct emitter *e = &w->e;
	int guest = -1;
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		guest = general_register(o->reg.value);
		if (guest < 0)
			return false; /* FS, GS */
	} else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		struct guest_address a;
		if (!address_of(w->g, o, &a))
			return false;
		emit_load_word(w, HOST_T0, access_emit(w, &a, (unsigned)bytes, false));
		emit_store(e, FRAME(value), HOST_T0);
	}
	struct host_memory at = access_emit(w, &below, (unsigned)bytes, true);
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		emit_rm(e, word_flags(w), 0xc7, 0, at);
		emit_word(e, (uint32_t)o->imm.value.u);
	} else if (guest >= 0 && host_register(guest) >= 0) {
		emit_store_word(w, at, (unsigned)host_register(guest));
	} else {
		at = access_in_t0(w, at);
		emit_load(e, HOST_T1, guest >= 0 ? home_of(guest) : FRAME(value));
		emit_store_word(w, at, HOST_T1);
	}
	stack_move(w, -bytes);
	return true;
}

static bool translate_pop(struct work *w)
{
	const ZydisDecodedOperand *o = &w->g->operands[0];
	const struct guest_address top = stack_address(w->g, GPR_RSP, 0);
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	int guest = general_register(o->reg.value);
	if (guest < 0)
		return false;
	unsigned host = host_register(guest) < 0 ? HOST_T1 : (unsigned)host_register(guest);
	emit_load_word(w, host, access_emit(w, &top, (unsigned)word_bytes(w), false));
	if (host_register(guest) < 0)
		emit_store(&w->e, home_of(guest), HOST_T1);
	if (guest != GPR_RSP)
		stack_move(w, word_bytes(w));
	return true;
}

static bool translate_leave(struct work *w)
{
	const struct guest_address top = stack_address(w->g, GPR_RBP, 0);
	emit_load_word(w, HOST_T1, access_emit(w, &top, (unsigned)word_bytes(w), false));
	emit_stack_pointer(w, GPR_RBP, word_bytes(w));
	emit_mov(&w->e, GPR_RBP, HOST_T1);
	return true;
}

bool translate_stack(struct work *w)
{
	if (!is_word(w->g))
		return false;
	switch (w->g->d.mnemonic) {
	case ZYDIS_MNEMONIC_PUSH: return translate_push(w);
	case ZYDIS_MNEMONIC_POP: return translate_pop(w);
	case ZYDIS_MNEMONIC_LEAVE: return translate_leave(w);
	default: return false;
	}
}
