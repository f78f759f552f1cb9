/*
 * How large a register can be: what an instruction leaves in one, as far as its bytes and how large
 * the registers before it were tell. A table's index mostly is one of few: a byte, what a mask or
 * a shift leaves. All of that is tables of a known length, which share a look-up (value.c).
 *
 * A bound is one of all 64 bits, as the host's register has them. Nothing is known of what is not
 * listed here: some instructions keep what they say they write, and then its upper half, too.
 */
#include "engine/trans/translate_private.h"

#include <string.h>

static uint64_t mask_of(unsigned bits)
{
	return bits < 64 ? BIT(bits) - 1 : UINT64_MAX;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What an operand, as wide as it is, can be at most. */
static uint64_t operand_most(const ZydisDecodedOperand *o, const uint64_t *most, uint64_t mask)
{
	uint64_t own = mask_of(o->size);
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return o->imm.value.u & mask;
	int guest = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? general_register(o->reg.value) : -1;
	return guest >= 0 && guest < GPR_COUNT ? least(most[guest], own) : own;
}

/* The largest number that has no more digits. */
static uint64_t all_ones(uint64_t value)
{
	return value ? UINT64_MAX >> __builtin_clzll(value) : 0;
}

static uint64_t sum_most(uint64_t a, uint64_t b, uint64_t mask)
{
	return a <= mask && b <= mask - a ? a + b : mask;
}

static uint64_t shifted_most(const struct guest_insn *g, uint64_t value, uint64_t mask)
{
	const ZydisDecodedOperand *o = &g->operands[1];
	unsigned count = (unsigned)o->imm.value.u & (g->operands[0].size == 64 ? 63 : 31);
	if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !count)
		return UINT64_MAX;
	if (g->d.mnemonic == ZYDIS_MNEMONIC_SHR)
		return value >> count;
	return value <= mask >> count ? value << count : mask;
}

static uint64_t lea_most(const struct guest_insn *g, const uint64_t *most, uint64_t mask)
{
	struct guest_address a;
	if (!address_of(g, &g->operands[1], &a) || a.is_32bit || a.is_constant || a.disp < 0)
		return mask;
	uint64_t base = a.base == GPR_NONE ? 0 : most[a.base];
	uint64_t index = a.index == GPR_NONE ? 0 : most[a.index];
	if (index > UINT32_MAX)
		return mask;
	return sum_most(sum_most(base, index << a.shift, mask), (uint64_t)a.disp, mask);
}

/* The result, as wide as its operand; UINT64_MAX: it is not known that there is one. */
static uint64_t result_most(const struct guest_insn *g, const uint64_t *most, uint64_t mask)
{
	const ZydisDecodedOperand *o = g->operands;
	uint64_t a = operand_most(&o[0], most, mask), b = operand_most(&o[1], most, mask);
	bool is_same = o[1].type == ZYDIS_OPERAND_TYPE_REGISTER && o[1].reg.value == o[0].reg.value;
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVZX: return b;
	case ZYDIS_MNEMONIC_AND: return least(a, b);
	case ZYDIS_MNEMONIC_OR: return all_ones(a | b);
	case ZYDIS_MNEMONIC_XOR: return is_same ? 0 : all_ones(a | b);
	case ZYDIS_MNEMONIC_SUB: return is_same ? 0 : mask;
	case ZYDIS_MNEMONIC_ADD: return sum_most(a, b, mask);
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SHL: return shifted_most(g, a, mask);
	case ZYDIS_MNEMONIC_LEA: return lea_most(g, most, mask);
	case ZYDIS_MNEMONIC_INC: return sum_most(a, 1, mask);
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_POPCNT:
	case ZYDIS_MNEMONIC_TZCNT: return o[0].size;
	case ZYDIS_MNEMONIC_BEXTR:
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_NOT: return mask;
	default: break;
	}
	bool is_set = g->d.mnemonic >= ZYDIS_MNEMONIC_SETB &&
		      g->d.mnemonic <= ZYDIS_MNEMONIC_SETZ &&
		      g->d.mnemonic != ZYDIS_MNEMONIC_SETSSBSY;
	return is_set ? 1 : UINT64_MAX;
}

/* Of a register that the operand is, or is a part of. */
static uint64_t written_most(const struct guest_insn *g, const ZydisDecodedOperand *o, int guest,
			     const uint64_t *most)
{
	uint64_t mask = mask_of(o->size), result = UINT64_MAX;
	if (guest >= GPR_COUNT) /* AH..BH */
		return most[guest - 16] | 0xffff;
	if (o == g->operands)
		result = result_most(g, most, mask);
	if (o->size >= 32)
		return result;
	/* The rest of the register stays as it is. */
	return most[guest] <= mask ? least(result, mask) : most[guest] | mask;
}

void bound_step(const struct guest_insn *g, uint64_t *most)
{
	uint64_t before[GPR_COUNT];
	memcpy(before, most, sizeof(before));
	for (unsigned k = 0; k < g->d.operand_count; k++) {
		const ZydisDecodedOperand *o = &g->operands[k];
		int guest = -1;
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			guest = general_register(o->reg.value);
		if (guest >= 0)
			most[guest % GPR_COUNT] = written_most(g, o, guest, before);
	}
}
