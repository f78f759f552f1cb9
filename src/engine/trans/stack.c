/*
 * PUSH, POP and LEAVE, and runs of them: what a function begins and ends with.
 *
 * Neighbouring pushes or pops of registers share one look-up for all their bytes. If that fails (a
 * fault, a page boundary), the interpreter executes the whole run, instruction by instruction.
 */
#include "engine/trans/translate_private.h"

/* ---- one at a time ---- */

static void emit_move_sp(struct work *w, int32_t by)
{
	emit_lea(&w->e, HOST_GUEST_RSP,
		 (struct host_memory){.base = HOST_GUEST_RSP, .index = NO_INDEX, .disp = by});
}

static bool translate_push(struct work *w)
{
	const ZydisDecodedOperand *o = &w->g->operands[0];
	const struct guest_address below = {
		.base = GPR_RSP, .index = GPR_NONE, .disp = -8, .seg = SEG_SS};
	struct host_memory at = {.base = HOST_T0, .index = NO_INDEX};
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
		access_emit(w, &a, 8, false);
		emit_load(e, HOST_T0, AT_OPERAND);
		emit_store(e, FRAME(value), HOST_T0);
	}
	access_emit(w, &below, 8, true);
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		emit_rm(e, EMIT_W, 0xc7, 0, AT_OPERAND);
		emit_word(e, (uint32_t)o->imm.value.u);
	} else if (guest >= 0 && host_register(guest) >= 0) {
		emit_store(e, AT_OPERAND, (unsigned)host_register(guest));
	} else {
		emit_lea(e, HOST_T0, AT_OPERAND);
		emit_load(e, HOST_T1, guest >= 0 ? home_of(guest) : FRAME(value));
		emit_store(e, at, HOST_T1);
	}
	emit_move_sp(w, -8);
	return true;
}

static bool translate_pop(struct work *w)
{
	const ZydisDecodedOperand *o = &w->g->operands[0];
	const struct guest_address top = {.base = GPR_RSP, .index = GPR_NONE, .seg = SEG_SS};
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	int guest = general_register(o->reg.value);
	if (guest < 0)
		return false;
	access_emit(w, &top, 8, false);
	emit_load(&w->e, host_register(guest) < 0 ? HOST_T0 : (unsigned)host_register(guest),
		  AT_OPERAND);
	if (host_register(guest) < 0)
		emit_store(&w->e, home_of(guest), HOST_T0);
	if (guest != GPR_RSP)
		emit_move_sp(w, 8);
	return true;
}

static bool translate_leave(struct work *w)
{
	const struct guest_address top = {.base = GPR_RBP, .index = GPR_NONE, .seg = SEG_SS};
	access_emit(w, &top, 8, false);
	emit_load(&w->e, HOST_T0, AT_OPERAND);
	emit_lea(&w->e, HOST_GUEST_RSP,
		 (struct host_memory){.base = GPR_RBP, .index = NO_INDEX, .disp = 8});
	emit_mov(&w->e, GPR_RBP, HOST_T0);
	return true;
}

bool translate_stack(struct work *w)
{
	if (w->g->d.operand_width != 64)
		return false;
	switch (w->g->d.mnemonic) {
	case ZYDIS_MNEMONIC_PUSH: return translate_push(w);
	case ZYDIS_MNEMONIC_POP: return translate_pop(w);
	case ZYDIS_MNEMONIC_LEAVE: return translate_leave(w);
	default: return false;
	}
}

/* ---- runs ---- */

#define RUN_MAX 8

/* The register that an instruction pushes or pops, or -1. RSP is a case of its own. */
static int stack_register(const struct guest_insn *g, ZydisMnemonic mnemonic)
{
	if (!g->is_decoded || g->d.mnemonic != mnemonic || g->d.operand_width != 64 ||
	    g->operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return -1;
	int guest = general_register(g->operands[0].reg.value);
	return guest == GPR_RSP ? -1 : guest;
}

static bool is_plain_ret(const struct guest_insn *g)
{
	return g->is_decoded && g->d.mnemonic == ZYDIS_MNEMONIC_RET &&
	       g->d.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR &&
	       !(g->d.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) &&
	       g->operands[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

/* T0 = the host address of the run's lowest byte. */
static void emit_run_access(struct work *w, int32_t disp, unsigned count, bool is_write)
{
	const struct guest_address a = {
		.base = GPR_RSP, .index = GPR_NONE, .disp = disp, .seg = SEG_SS};
	uint32_t site = w->trans->site_count;
	access_emit(w, &a, 8 * count, is_write);
	w->trans->sites[site].run = (uint8_t)count;
	emit_lea(&w->e, HOST_T0, AT_OPERAND);
}

static struct host_memory run_slot(unsigned n)
{
	return (struct host_memory){.base = HOST_T0, .index = NO_INDEX, .disp = (int32_t)(8 * n)};
}

static void emit_pushes(struct work *w, const struct guest_insn *g, unsigned count)
{
	emit_run_access(w, -8 * (int32_t)count, count, true);
	for (unsigned k = 0; k < count; k++) {
		int guest = stack_register(&g[k], ZYDIS_MNEMONIC_PUSH);
		unsigned host = register_or_load(w, guest, HOST_T1);
		emit_store(&w->e, run_slot(count - 1 - k), host);
	}
	emit_move_sp(w, -8 * (int32_t)count);
}

static void emit_pops(struct work *w, const struct guest_insn *g, unsigned count, bool returns)
{
	emit_run_access(w, 0, count + returns, false);
	for (unsigned k = 0; k < count; k++) {
		int guest = stack_register(&g[k], ZYDIS_MNEMONIC_POP);
		int host = host_register(guest);
		emit_load(&w->e, host < 0 ? HOST_T1 : (unsigned)host, run_slot(k));
		if (host < 0)
			emit_store(&w->e, home_of(guest), HOST_T1);
	}
	if (returns)
		emit_load(&w->e, HOST_T1, run_slot(count));
	emit_move_sp(w, 8 * (int32_t)(count + returns));
}

unsigned translate_stack_run(struct work *w, unsigned left, bool *ends)
{
	const struct guest_insn *g = w->g;
	unsigned pushes = 0, pops = 0;
	while (pushes < left && pushes < RUN_MAX &&
	       stack_register(&g[pushes], ZYDIS_MNEMONIC_PUSH) >= 0)
		pushes++;
	if (pushes > 1) {
		emit_pushes(w, g, pushes);
		return pushes;
	}
	while (pops < left && pops < RUN_MAX && stack_register(&g[pops], ZYDIS_MNEMONIC_POP) >= 0)
		pops++;
	bool returns = pops && pops + 1 == left && is_plain_ret(&g[pops]);
	if (pops + returns < 2)
		return 0;
	emit_pops(w, g, pops, returns);
	if (returns) {
		w->g = &g[pops];
		emit_indirect(w, -8);
		*ends = true;
	}
	return pops + returns;
}
