/*
 * Moves of whole vector registers: the commonest vector instructions by far (every memcpy is made
 * of them), so they are done in C, which costs less than a stub.
 *
 * i->reg: the register; i->rm: the other one; i->sub: alignment of the memory operand - 1.
 */
#include "engine/interp/host.h"

#include <string.h>

/* VEX clears what is above the vector, legacy SSE keeps it. */
static HOST_INLINE void finish(uint8_t *to, enum host_class class, unsigned size_bytes)
{
	if (class == HOST_AVX && size_bytes == 16)
		memset(to + 16, 0, 16);
}

static HOST_INLINE void check_alignment(const struct insn *i, struct interp_vcpu *c,
					uint64_t linear)
{
	if (unlikely(linear & i->sub))
		interp_raise_error(c, i, VECTOR_GP, 0);
}

/* Through a copy, so that the register is whole when the second page faults. */
static __attribute__((noinline)) void load_slow(HANDLER_ARGUMENTS, uint64_t linear,
						unsigned size_bytes)
{
	uint8_t copy[32];
	interp_read_bytes(c, i, linear, copy, size_bytes);
	memcpy(s->fpu.ymm[i->reg], copy, size_bytes);
}

static HOST_INLINE void load(HANDLER_ARGUMENTS, enum host_class class, unsigned size_bytes)
{
	host_check_fast(s, i, c, class);
	uint8_t *to = s->fpu.ymm[i->reg];
	uint64_t linear = interp_ea(c, i, size_bytes, ACCESS_READ);
	check_alignment(i, c, linear);
	const void *from = host_operand(c, linear, size_bytes, false);
	if (likely(from))
		memcpy(to, from, size_bytes);
	else
		load_slow(s, i, c, linear, size_bytes);
	finish(to, class, size_bytes);
}

static HOST_INLINE void store(HANDLER_ARGUMENTS, enum host_class class, unsigned size_bytes)
{
	host_check_fast(s, i, c, class);
	uint64_t linear = interp_ea(c, i, size_bytes, ACCESS_WRITE);
	check_alignment(i, c, linear);
	void *to = host_operand(c, linear, size_bytes, true);
	if (likely(to))
		memcpy(to, s->fpu.ymm[i->reg], size_bytes);
	else
		interp_write_bytes(c, i, linear, s->fpu.ymm[i->reg], size_bytes);
}

static HOST_INLINE void copy_register(HANDLER_ARGUMENTS, enum host_class class, unsigned size_bytes)
{
	host_check_fast(s, i, c, class);
	memmove(s->fpu.ymm[i->reg], s->fpu.ymm[i->rm], size_bytes);
	finish(s->fpu.ymm[i->reg], class, size_bytes);
}

#define MOVE_HANDLERS(suffix, class, size_bytes)           \
	HANDLER(op_load_##suffix)                          \
	{                                                  \
		load(s, i, c, class, size_bytes);          \
		NEXT;                                      \
	}                                                  \
	HANDLER(op_store_##suffix)                         \
	{                                                  \
		store(s, i, c, class, size_bytes);         \
		NEXT;                                      \
	}                                                  \
	HANDLER(op_copy_##suffix)                          \
	{                                                  \
		copy_register(s, i, c, class, size_bytes); \
		NEXT;                                      \
	}
MOVE_HANDLERS(sse, HOST_SSE, 16)
MOVE_HANDLERS(avx128, HOST_AVX, 16)
MOVE_HANDLERS(avx256, HOST_AVX, 32)

enum alignment { NOT_A_MOVE, ANY, ALIGNED };

static enum alignment move_alignment(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_VMOVUPS:
	case ZYDIS_MNEMONIC_VMOVUPD:
	case ZYDIS_MNEMONIC_VMOVDQU:
	case ZYDIS_MNEMONIC_VLDDQU: return ANY;
	case ZYDIS_MNEMONIC_MOVAPS:
	case ZYDIS_MNEMONIC_MOVAPD:
	case ZYDIS_MNEMONIC_MOVDQA:
	case ZYDIS_MNEMONIC_MOVNTPS:
	case ZYDIS_MNEMONIC_MOVNTPD:
	case ZYDIS_MNEMONIC_MOVNTDQ:
	case ZYDIS_MNEMONIC_MOVNTDQA:
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA: return ALIGNED;
	default: return NOT_A_MOVE;
	}
}

bool lower_vector_move(struct lowering *l)
{
	static void (*const handlers[3][3])(HANDLER_ARGUMENTS) = {
		{op_load_sse, op_store_sse, op_copy_sse},
		{op_load_avx128, op_store_avx128, op_copy_avx128},
		{op_load_avx256, op_store_avx256, op_copy_avx256},
	};
	enum alignment alignment = move_alignment(l->d->mnemonic);
	const ZydisDecodedOperand *to = &l->operands[0], *from = &l->operands[1];
	bool is_vex = l->d->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	if (alignment == NOT_A_MOVE ||
	    (is_vex && (!(l->key & KEY_PROTECTED) || (l->key & KEY_V86))))
		return false;
	bool is_store = to->type == ZYDIS_OPERAND_TYPE_MEMORY;
	bool is_load = from->type == ZYDIS_OPERAND_TYPE_MEMORY;
	const ZydisDecodedOperand *vector = is_store ? from : to;
	unsigned kind = !is_vex ? 0 : vector->size == 256 ? 2 : 1;
	l->out->reg = (uint8_t)ZydisRegisterGetId(vector->reg.value);
	if (is_load || is_store) {
		lower_memory(l, is_store ? to : from);
		l->out->sub = alignment == ALIGNED ? (kind == 2 ? 31 : 15) : 0;
	} else {
		l->out->rm = (uint8_t)ZydisRegisterGetId(from->reg.value);
	}
	l->out->exec = handlers[kind][is_load ? 0 : is_store ? 1 : 2];
	return true;
}
