/*
 * MOVS and STOS, with and without REP: the host's own instruction, on host addresses.
 *
 * That is right where all that it touches lies in one page at each end and is plain RAM: then two
 * places are the same byte to the guest exactly if they are to the host, so that overlapping copies
 * repeat what they should. A run that goes on in another page runs up to there, and once more from
 * its beginning with what is left, which is what the guest finds if the next page faults. Runs may
 * go backwards, as those of memmove() do: the direction flag is the host's for the one instruction.
 * Everything else (a longer run, one that goes backwards into another page, an element in two
 * pages) is the interpreter's, which takes its turns with interrupts.
 */
#include "engine/trans/translate_private.h"

/* The interpreter runs no more iterations without a look at interrupts. */
#define COUNT_MAX (uint32_t) PAGE_SIZE_BYTES

/* Of bytes; the next one is the larger sizes'. */
#define OPCODE_MOVS 0xa4u
#define OPCODE_STOS 0xaau

/* Has it REP, and none of the prefixes that make it another instruction? */
static bool is_known(const struct guest_insn *g, bool *is_rep)
{
	*is_rep = false;
	if (g->d.meta.category != ZYDIS_CATEGORY_STRINGOP ||
	    g->d.address_width != (is_code32(g) ? 32 : 64))
		return false;
	for (unsigned k = 0; k < g->d.raw.prefix_count; k++) {
		*is_rep |= g->bytes[k] == 0xf3;
		if (g->bytes[k] == 0xf2)
			return false;
	}
	return true;
}

static uint8_t *emit_if_backward(struct emitter *e)
{
	emit_rm(e, 0, 0xf7, 0, FRAME(rax)); /* test dword */
	emit_word(e, FLAG_DF);
	return emit_jcc_forward(e, CONDITION_NE);
}

static void emit_negate_count(struct emitter *e)
{
	emit_rr(e, EMIT_W, 0xf7, 3, GPR_RCX);
}

/* T0 = the host address of the operand, T1 = by how many bytes the RCX elements leave its page, if
 * that is above 0. */
static void emit_end(struct work *w, const struct guest_address *a, unsigned size_bytes,
		     bool is_write, bool is_rep)
{
	struct emitter *e = &w->e;
	struct host_memory beyond = {.base = HOST_T1,
				     .index = GPR_RCX,
				     .shift = (uint8_t)__builtin_ctz(size_bytes),
				     .disp = -(int32_t)PAGE_SIZE_BYTES};
	emit_lea(e, HOST_T0, access_emit(w, a, size_bytes, is_write));
	if (!is_rep)
		return;
	w->trans->sites[w->trans->site_count - 1].look_up_bytes = 0; /* it needs whole elements */
	uint8_t *backward = emit_if_backward(e);
	emit_lea(e, HOST_T1, beyond);
	uint8_t *done = emit_jmp_forward(e);
	emit_patch(backward, e->at);
	beyond.disp += (int32_t)size_bytes;
	emit_negate_count(e);
	emit_lea(e, HOST_T1, beyond); /* where the last one begins, counted from the page's end */
	emit_negate_count(e);
	emit_rr(e, EMIT_W, 0x81, 7, HOST_T1); /* cmp */
	emit_word(e, -(uint32_t)PAGE_SIZE_BYTES);
	add_rare(w, CONDITION_L);
	emit_patch(done, e->at);
}

/* Takes what lies behind the pages from RCX; T1 is from the destination's emit_end(). */
static void emit_clip(struct emitter *e, unsigned size_bytes, bool is_movs)
{
	if (is_movs) {
		emit_rm(e, EMIT_W, 0x3b, HOST_T1, FRAME(string_over));		 /* cmp */
		emit_rm(e, EMIT_W | EMIT_0F, 0x4c, HOST_T1, FRAME(string_over)); /* cmovl */
	}
	emit_rm(e, EMIT_W, 0xc7, 0, FRAME(string_rest)); /* mov */
	emit_word(e, 0);
	emit_rr(e, EMIT_W, 0x85, HOST_T1, HOST_T1); /* test */
	uint8_t *fits = emit_jcc_forward(e, CONDITION_LE);
	if (size_bytes > 1) {
		emit_rr(e, EMIT_W, 0x83, 0, HOST_T1); /* add */
		emit_byte(e, size_bytes - 1);
		emit_rr(e, EMIT_W, 0xc1, 7, HOST_T1); /* sar */
		emit_byte(e, (unsigned)__builtin_ctz(size_bytes));
	}
	emit_rr(e, EMIT_W, 0x29, HOST_T1, GPR_RCX); /* sub */
	emit_store(e, FRAME(string_rest), HOST_T1);
	emit_patch(fits, e->at);
}

/* To `again`, if there is a rest. */
static void emit_rest(struct emitter *e, const uint8_t *again)
{
	emit_load(e, GPR_RCX, FRAME(string_rest));
	emit_rr(e, EMIT_W, 0x85, GPR_RCX, GPR_RCX); /* test */
	emit_patch(emit_jcc_forward(e, CONDITION_NE), again);
}

static void emit_string(struct emitter *e, unsigned opcode, unsigned size_bytes, bool is_rep)
{
	if (is_rep)
		emit_byte(e, 0xf3);
	emit_opcode(e,
		    size_bytes == 8   ? EMIT_W
		    : size_bytes == 2 ? EMIT_66
				      : 0,
		    size_bytes == 1 ? opcode : opcode | 1, 0, false);
}

/* In the direction that the guest has set. */
static void emit_directed(struct emitter *e, unsigned opcode, unsigned size_bytes, bool is_rep)
{
	uint8_t *backward = emit_if_backward(e);
	emit_string(e, opcode, size_bytes, is_rep);
	uint8_t *done = emit_jmp_forward(e);
	emit_patch(backward, e->at);
	emit_byte(e, 0xfd); /* std */
	emit_string(e, opcode, size_bytes, is_rep);
	emit_byte(e, 0xfc); /* cld */
	emit_patch(done, e->at);
}

/* Lets the guest's pointer be the host's, which is in `host`, and `host` the way back. */
static void emit_lend(struct emitter *e, unsigned pointer, unsigned host)
{
	emit_rr(e, EMIT_W, 0x29, pointer, host); /* sub */
	emit_rr(e, EMIT_W, 0x01, host, pointer); /* add */
}

static void emit_give_back(struct work *w, unsigned pointer, unsigned host)
{
	emit_rr(&w->e, EMIT_W, 0x29, host, pointer); /* sub */
	if (w->is_code32)
		emit_rr(&w->e, 0, 0x89, pointer, pointer); /* it wraps at 4 GiB */
}

/* Leaves the common way if it is a long run; returns the way around all of it. The frame has
 * RFLAGS then. */
static uint8_t *emit_checks(struct work *w, bool is_rep)
{
	struct emitter *e = &w->e;
	uint8_t *nothing = NULL;
	flags_to_frame(w);
	flags_lost(w);
	if (is_rep) {
		emit_rr(e, EMIT_W, 0x85, GPR_RCX, GPR_RCX); /* test */
		nothing = emit_jcc_forward(e, CONDITION_E);
		emit_rr(e, EMIT_W, 0x81, 7, GPR_RCX); /* cmp */
		emit_word(e, COUNT_MAX);
		add_rare(w, CONDITION_A);
	}
	emit_load(e, HOST_T0, FRAME(state));
	emit_load(e, HOST_T0, at_t0(offsetof(struct vcpu_state, rflags)));
	emit_store(e, FRAME(rax), HOST_T0);
	return nothing;
}

bool translate_string(struct work *w)
{
	const ZydisDecodedOperand *to = &w->g->operands[0], *from = &w->g->operands[1];
	struct emitter *e = &w->e;
	struct guest_address source, destination;
	unsigned size_bytes = to->size / 8, opcode = w->g->d.opcode & 0xfe;
	bool is_rep, is_movs = opcode == OPCODE_MOVS;
	if (!is_known(w->g, &is_rep) || (!is_movs && opcode != OPCODE_STOS) ||
	    !address_of(w->g, to, &destination) || (is_movs && !address_of(w->g, from, &source)))
		return false;
	uint8_t *nothing = emit_checks(w, is_rep), *again = e->at;
	if (is_movs) {
		emit_end(w, &source, size_bytes, false, is_rep);
		emit_store(e, FRAME(value), HOST_T0);
		if (is_rep)
			emit_store(e, FRAME(string_over), HOST_T1);
	}
	emit_end(w, &destination, size_bytes, true, is_rep);
	if (is_rep)
		emit_clip(e, size_bytes, is_movs);
	emit_lend(e, GPR_RDI, HOST_T0);
	if (is_movs) {
		emit_load(e, HOST_T1, FRAME(value));
		emit_lend(e, GPR_RSI, HOST_T1);
	}
	emit_directed(e, opcode, size_bytes, is_rep);
	emit_give_back(w, GPR_RDI, HOST_T0);
	if (is_movs)
		emit_give_back(w, GPR_RSI, HOST_T1);
	if (!is_rep)
		return true;
	emit_rest(e, again);
	emit_patch(nothing, e->at);
	return true;
}
