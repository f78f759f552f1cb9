/*
 * 32-bit code: of compatibility mode, and of protected mode without long mode.
 *
 * Only code with flat segments (KEY_FLAT) comes here: CS, SS, DS and ES begin at 0, reach to 4 GiB
 * and allow all that data is for, so that no check of theirs can fail, and a block is only found
 * while that is so. What is left of 32-bit code is narrower, not different: addresses, RIP and what
 * is pushed have 32 bits, and most instructions are the same bytes. Those that are not are told
 * here.
 *
 * FS and GS have bases, and may be anything. Where one of them is not a writable segment of 4 GiB
 * its `bar` in the frame is not 0 and, put into an address, makes one that no look-up finds: the
 * interpreter gets the instruction and checks what is to be checked.
 */
#include "engine/trans/translate_private.h"

#define BAR (1ull << 63)

static uint64_t bar_of(const struct segment_register *r)
{
	const uint16_t mask = ATTR_P | ATTR_S | ATTR_CODE | ATTR_EXPAND_DOWN | ATTR_WRITABLE |
			      ATTR_UNUSABLE;
	bool is_plain = r->limit == UINT32_MAX &&
			(r->attributes & mask) == (ATTR_P | ATTR_S | ATTR_WRITABLE);
	return is_plain ? 0 : BAR;
}

void code32_take_segments(struct frame *f)
{
	const struct segment_register *fs = &f->state->seg[SEG_FS], *gs = &f->state->seg[SEG_GS];
	f->fs_base = fs->base;
	f->gs_base = gs->base;
	f->fs_bar = bar_of(fs);
	f->gs_bar = bar_of(gs);
}

void code32_add_base(struct work *w, unsigned seg)
{
	struct emitter *e = &w->e;
	emit_rm(e, 0, 0x8d, HOST_T1, AT_OPERAND); /* lea r14d */
	emit_rm(e, EMIT_W, 0x0b, HOST_T1, seg == SEG_FS ? FRAME(fs_bar) : FRAME(gs_bar)); /* or */
}

void emit_load_word(struct work *w, unsigned to, struct host_memory from)
{
	emit_rm(&w->e, word_flags(w), 0x8b, to, from);
}

void emit_store_word(struct work *w, struct host_memory to, unsigned from)
{
	emit_rm(&w->e, word_flags(w), 0x89, from, to);
}

/* ---- instructions ---- */

static bool has_general_register(const struct guest_insn *g)
{
	for (unsigned k = 0; k < g->d.operand_count; k++)
		if (g->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    general_register(g->operands[k].reg.value) >= 0)
			return true;
	return false;
}

/* Registers above 7, which 32-bit code does not have: it ignores bits that would name them, or
 * 64-bit operands, and clears none of them. */
static bool means_more(const struct guest_insn *g)
{
	const uint8_t *vex = g->bytes + g->d.raw.vex.offset;
	if (g->d.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || g->d.mnemonic == ZYDIS_MNEMONIC_VZEROALL)
		return true;
	for (unsigned k = 0; k < g->d.operand_count; k++)
		if (g->operands[k].encoding == ZYDIS_OPERAND_ENCODING_IS4 &&
		    g->bytes[g->d.length - 1u] & 0x80)
			return true;
	if (vex[0] == 0xc5)
		return false; /* there they are the opcode of LDS */
	return (vex[1] & 0xe0) != 0xe0 || !(vex[2] & 0x40) ||
	       (vex[2] & 0x80 && has_general_register(g));
}

enum code32_form code32_form_of(const struct guest_insn *g)
{
	if (!is_code32(g))
		return CODE32_SAME;
	if (g->d.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		return means_more(g) ? CODE32_OTHER : CODE32_SAME;
	if (g->d.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		return CODE32_SAME;
	if ((g->d.opcode & 0xf0) == 0x40)
		return CODE32_INC;
	if ((g->d.opcode & 0xfc) == 0xa0)
		return CODE32_MOFFS;
	return g->d.opcode == 0x82 ? CODE32_OTHER : CODE32_SAME; /* an alias of 80 */
}
