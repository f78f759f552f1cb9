/*
 * The guest's arithmetic flags: which instructions touch them, and moving them between the host's
 * flags and the frame.
 *
 * Moving uses LAHF and SETO, and ADD and SAHF back: PUSHF would need the guest's stack pointer and
 * POPF is slow. Nothing here changes a guest register.
 */
#include "engine/trans/translate_private.h"

#define LIVE_OF 2u

static uint8_t live_mask(uint32_t flags)
{
	return (uint8_t)((flags & 0xd5) | (flags & FLAG_OF ? LIVE_OF : 0));
}

uint8_t flags_read(const struct guest_insn *g)
{
	const ZydisAccessedFlags *f = g->d.cpu_flags;
	return f ? live_mask(f->tested) : 0;
}

bool flags_written(const struct guest_insn *g)
{
	const ZydisAccessedFlags *f = g->d.cpu_flags;
	return f && live_mask(f->modified | f->set_0 | f->set_1 | f->undefined);
}

/* Flags that the manual calls undefined are written by some processors and kept by others; only of
 * these instructions do we know that what they leave does not depend on what was there. No guest
 * can: unless they are to be the interpreter's, undefined is what they may be. */
static bool overwrites_undefined(const struct guest_insn *g)
{
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_ANDN: return true;
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
		return g->operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		       g->operands[1].imm.value.u & 31;
	default: return false;
	}
}

/* Shifts by a count of 0 change nothing. */
static bool may_do_nothing(const struct guest_insn *g)
{
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR: return !overwrites_undefined(g);
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD: return true;
	default: return false;
	}
}

uint8_t flags_killed(const struct guest_insn *g, bool is_exact)
{
	const ZydisAccessedFlags *f = g->d.cpu_flags;
	if (!f || may_do_nothing(g))
		return 0;
	uint32_t written = f->modified | f->set_0 | f->set_1;
	if (!is_exact || overwrites_undefined(g))
		written |= f->undefined;
	return live_mask(written);
}

/* Flags that matter behind the last instruction; of a loop's, if it ends. */
static uint8_t live_at_end(struct work *w)
{
	struct guest_insn *g = &w->trans->insns[w->count - 1];
	if (w->loop)
		return g->side = branch_is_jcc(&g->d) ? trace_live_at(w, w->loop->exit) : 0;
	if (!g->is_decoded)
		return FLAGS_ALL;
	if (branch_is_jcc(&g->d))
		return trace_live_at(w, branch_next(g)) | trace_live_at(w, branch_target(g));
	if (branch_is_direct(g))
		return trace_live_at(w, branch_target(g));
	return is_quiet(g) ? trace_live_at(w, branch_next(g)) : FLAGS_ALL;
}

/* Is what it does with the flags all that it does with what they were? */
static bool is_known(const struct guest_insn *g)
{
	return g->is_decoded && (is_quiet(g) || branch_is_jcc(&g->d) || branch_is_direct(g));
}

/*
 * Which flags matter before and after each instruction, from the end backwards. With exact
 * flags all of them always do, for an exception anywhere shows them to the guest. Otherwise flags
 * that are overwritten before anybody reads them need not be kept: a handler that looked at the
 * interrupted program's flags would find older ones.
 */
static uint8_t find_live(struct work *w, uint8_t live)
{
	for (unsigned k = w->count; k-- > 0;) {
		struct guest_insn *g = &w->trans->insns[k];
		if (g->goes_on)
			live |= g->side;
		w->live_after[k] = live;
		if (w->trans->exact_flags || !is_known(g))
			live = FLAGS_ALL;
		else
			live = (uint8_t)((live & ~flags_killed(g, false)) | flags_read(g));
		w->live_before[k] = live;
	}
	return live;
}

void flags_find_live(struct work *w)
{
	for (unsigned k = 0; k < w->count; k++) {
		struct guest_insn *g = &w->trans->insns[k];
		if (!g->goes_on || !branch_is_jcc(&g->d))
			continue;
		g->side = trace_live_at(w, g->is_inverted ? branch_next(g) : branch_target(g));
	}
	uint8_t live = live_at_end(w);
	if (w->loop)
		live |= find_live(w, live);
	find_live(w, live);
}

static void emit_sahf(struct emitter *e)
{
	emit_rm(e, EMIT_0F, 0xb7, GPR_RAX, FRAME(flags)); /* movzx eax, word */
	emit_byte(e, 0x04);				  /* add al, 127: OF if AL is 1 */
	emit_byte(e, 0x7f);
	emit_byte(e, 0x9e); /* sahf */
}

void flags_emit_save(struct emitter *e)
{
	emit_mov(e, HOST_T1, GPR_RAX);
	emit_rr(e, EMIT_0F, 0x90, 0, GPR_RAX); /* seto al */
	emit_byte(e, 0x9f);		       /* lahf */
	emit_rm(e, 0, 0x89, GPR_RAX, FRAME(flags));
	emit_mov(e, GPR_RAX, HOST_T1);
}

void flags_to_frame(struct work *w)
{
	if (w->flags != FLAGS_HOST)
		return;
	if (w->g && !w->live_before[w->g->index] && !w->is_flags_kept) {
		w->flags = FLAGS_FRAME; /* nobody will miss them */
		return;
	}
	group_free_t1(w);
	flags_emit_save(&w->e);
	w->flags = FLAGS_BOTH;
}

unsigned flags_want_condition(struct work *w, unsigned condition)
{
	/* O, B, E, BE, S, P: bits of the frame's two bytes. L and LE compare two. */
	static const uint8_t masks[] = {1, FLAG_CF, FLAG_ZF, FLAG_ZF | FLAG_CF, FLAG_SF, FLAG_PF};
	unsigned kind = condition >> 1;
	if (w->flags != FLAGS_FRAME || kind >= ARRAY_COUNT(masks)) {
		flags_to_host(w);
		return condition;
	}
	struct host_memory byte = FRAME(flags);
	byte.disp += kind != CONDITION_O >> 1;
	emit_rm(&w->e, 0, 0xf6, 0, byte); /* test */
	emit_byte(&w->e, masks[kind]);
	return condition & 1 ? CONDITION_E : CONDITION_NE;
}

void flags_want(struct work *w, uint8_t wanted)
{
	if (!wanted || w->flags != FLAGS_FRAME)
		return;
	if (wanted != FLAG_CF) {
		flags_to_host(w);
		return;
	}
	emit_rm(&w->e, EMIT_66 | EMIT_0F, 0xba, 4, FRAME(flags)); /* bt word, 8: LAHF's bit 0 */
	emit_byte(&w->e, 8);
}

void flags_leave(struct work *w)
{
	w->is_flags_kept = w->live_after[w->g->index];
	if (w->is_flags_kept)
		flags_to_frame(w);
	else
		w->flags = FLAGS_FRAME;
}

void flags_emit_load(struct emitter *e)
{
	emit_store(e, FRAME(rax), GPR_RAX);
	emit_sahf(e);
	emit_load(e, GPR_RAX, FRAME(rax));
}

void flags_to_host(struct work *w)
{
	if (w->flags != FLAGS_FRAME)
		return;
	flags_emit_load(&w->e);
	w->flags = FLAGS_BOTH;
}
