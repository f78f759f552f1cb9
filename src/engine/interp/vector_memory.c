/*
 * Vector instructions that touch memory element by element: masked moves and gathers.
 *
 * A masked-off element is not accessed and cannot fault. Gathers commit each element as it comes
 * (lowest first) and clear its mask, so that after a fault the instruction starts again where it
 * stopped (SDM 2C VGATHER). Masked stores check every element before they write the first.
 */
#include "engine/interp/host.h"

#include <string.h>

/* How the operands were named, in the insn:
 * reg: destination or source vector; rm: mask vector; sub: bytes of an element; imm: see below. */
#define GATHER_INDEX(imm) ((imm)&0xff)
#define GATHER_INDEX_BYTES(imm) ((imm) >> 8 & 0xff)
#define GATHER_COUNT(imm) ((imm) >> 16 & 0xff)
#define GATHER_VECTOR_BYTES(imm) ((imm) >> 24 & 0xff)

static bool is_selected(const uint8_t *mask, unsigned element, unsigned element_bytes)
{
	return mask[element * element_bytes + element_bytes - 1] & 0x80;
}

static void read_element(struct interp_vcpu *c, const struct insn *i, uint64_t linear, void *out,
			 unsigned element_bytes)
{
	if (element_bytes == 8) {
		uint64_t v = interp_read_8(c, i, linear);
		memcpy(out, &v, 8);
	} else {
		uint32_t v = interp_read_4(c, i, linear);
		memcpy(out, &v, 4);
	}
}

/* ---- (V)MASKMOV: i->imm is the vector's length in bytes ------------------------------------ */

HANDLER(op_masked_load)
{
	host_check(s, i, c, HOST_AVX, false);
	uint8_t mask[32], loaded[32] = {0};
	memcpy(mask, s->fpu.ymm[i->rm], 32);
	uint64_t offset = interp_ea_offset(c, i);
	for (unsigned k = 0; k < i->imm / i->sub; k++)
		if (is_selected(mask, k, i->sub))
			read_element(c, i,
				     interp_linear(c, i, i->seg, offset + k * i->sub, i->sub,
						   ACCESS_READ),
				     loaded + k * i->sub, i->sub);
	memcpy(s->fpu.ymm[i->reg], loaded, 32);
	NEXT;
}

/* Both kinds of masked store, by elements of i->sub bytes. */
static void masked_store(struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c,
			 uint64_t offset, const uint8_t *mask, const uint8_t *data, unsigned count)
{
	uint64_t linear[32];
	for (unsigned k = 0; k < count; k++) {
		if (!is_selected(mask, k, i->sub))
			continue;
		linear[k] = interp_linear(c, i, i->seg, offset + k * i->sub, i->sub, ACCESS_WRITE);
		interp_probe_write(c, i, linear[k], i->sub);
	}
	for (unsigned k = 0; k < count; k++)
		if (is_selected(mask, k, i->sub))
			interp_write_bytes(c, i, linear[k], data + k * i->sub, i->sub);
}

HANDLER(op_masked_store)
{
	host_check(s, i, c, HOST_AVX, false);
	masked_store(s, i, c, interp_ea_offset(c, i), s->fpu.ymm[i->rm], s->fpu.ymm[i->reg],
		     (unsigned)i->imm / i->sub);
	NEXT;
}

/* (V)MASKMOVDQU: to DS:rDI, byte by byte. */
HANDLER(op_maskmovdqu)
{
	host_check(s, i, c, i->op_bytes ? HOST_AVX : HOST_SSE, false);
	masked_store(s, i, c, interp_ea_offset(c, i), s->fpu.ymm[i->rm], s->fpu.ymm[i->reg], 16);
	NEXT;
}

/* MASKMOVQ: the same on MMX registers, and it enters MMX state as every MMX instruction does. */
HANDLER(op_maskmovq)
{
	struct fpu_state *f = &s->fpu;
	host_check(s, i, c, HOST_MMX, true);
	unsigned top = f->fsw >> FSW_TOP_SHIFT;
	masked_store(s, i, c, interp_ea_offset(c, i), f->st[(i->rm - top) & 7],
		     f->st[(i->reg - top) & 7], 8);
	uint8_t physical[8][16];
	for (unsigned k = 0; k < 8; k++)
		memcpy(physical[(k + top) & 7], f->st[k], 16);
	memcpy(f->st, physical, sizeof(physical));
	f->fsw &= (uint16_t) ~(7u << FSW_TOP_SHIFT);
	f->ftw = 0xff;
	NEXT;
}

/* ---- gathers ------------------------------------------------------------------------------- */

static uint64_t element_offset(const struct interp_vcpu *c, const struct insn *i, unsigned element)
{
	unsigned index_bytes = GATHER_INDEX_BYTES(i->imm);
	const uint8_t *at = c->s->fpu.ymm[GATHER_INDEX(i->imm)] + element * index_bytes;
	int64_t index;
	if (index_bytes == 8) {
		memcpy(&index, at, 8);
	} else {
		int32_t narrow;
		memcpy(&narrow, at, 4);
		index = narrow;
	}
	uint64_t offset = c->s->gpr[i->base] + ((uint64_t)index << i->scale) + (uint64_t)i->disp;
	return i->address_bytes == 8 ? offset : (uint32_t)offset;
}

HANDLER(op_gather)
{
	host_check(s, i, c, HOST_AVX, false);
	uint8_t *to = s->fpu.ymm[i->reg], *mask = s->fpu.ymm[i->rm];
	unsigned count = GATHER_COUNT(i->imm), used_bytes = count * i->sub;
	for (unsigned k = 0; k < count; k++) /* the whole element, so that a restart sees it */
		memset(mask + k * i->sub, is_selected(mask, k, i->sub) ? 0xff : 0, i->sub);
	for (unsigned k = 0; k < count; k++) {
		if (!is_selected(mask, k, i->sub))
			continue;
		uint64_t linear =
			interp_linear(c, i, i->seg, element_offset(c, i, k), i->sub, ACCESS_READ);
		read_element(c, i, linear, to + k * i->sub, i->sub);
		memset(mask + k * i->sub, 0, i->sub);
	}
	memset(mask, 0, 32);
	memset(to + used_bytes, 0, 32 - used_bytes);
	NEXT;
}

/* ---- lowering ------------------------------------------------------------------------------ */

static unsigned vector_id(const ZydisDecodedOperand *o)
{
	return (unsigned)ZydisRegisterGetId(o->reg.value) & 15;
}

static bool lower_gather(struct lowering *l, unsigned element_bytes, unsigned index_bytes)
{
	const ZydisDecodedOperand *o = l->operands;
	unsigned index = (unsigned)ZydisRegisterGetId(o[1].mem.index);
	unsigned to = vector_id(&o[0]), mask = vector_id(&o[2]);
	if (l->d->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || to == mask || to == index ||
	    mask == index)
		return false;
	unsigned vector_bytes = l->d->avx.vector_length == 256 ? 32 : 16;
	unsigned wide = element_bytes > index_bytes ? element_bytes : index_bytes;
	lower_memory(l, &o[1]);
	l->out->index = REG_ZERO;
	l->out->flags &= (uint8_t) ~(INSN_PLAIN | INSN_FLAT);
	l->out->scale = (uint8_t)__builtin_ctz(o[1].mem.scale ? o[1].mem.scale : 1);
	l->out->exec = op_gather;
	l->out->reg = (uint8_t)to;
	l->out->rm = (uint8_t)mask;
	l->out->sub = (uint8_t)element_bytes;
	l->out->imm = index | index_bytes << 8 | (vector_bytes / wide) << 16 |
		      (uint64_t)vector_bytes << 24;
	return true;
}

static bool lower_masked(struct lowering *l, unsigned element_bytes)
{
	const ZydisDecodedOperand *o = l->operands;
	bool is_store = o[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
	lower_memory(l, &o[is_store ? 0 : 2]);
	l->out->exec = is_store ? op_masked_store : op_masked_load;
	l->out->reg = (uint8_t)vector_id(&o[is_store ? 2 : 0]);
	l->out->rm = (uint8_t)vector_id(&o[1]);
	l->out->sub = (uint8_t)element_bytes;
	l->out->imm = l->d->avx.vector_length == 256 ? 32 : 16;
	return true;
}

/* The memory operand is hidden: DS:rDI, or with another segment. */
static bool lower_maskmov(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS))
{
	const ZydisDecodedOperand *o = l->operands;
	for (unsigned k = 0; k < l->d->operand_count; k++)
		if (o[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
			lower_memory(l, &o[k]);
	l->out->exec = exec;
	l->out->reg = (uint8_t)vector_id(&o[0]);
	l->out->rm = (uint8_t)vector_id(&o[1]);
	l->out->sub = 1;
	l->out->op_bytes = l->d->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	return true;
}

bool lower_vector_memory(struct lowering *l)
{
	bool is_vex = l->d->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	if (is_vex && (!(l->key & KEY_PROTECTED) || (l->key & KEY_V86)))
		return false;
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD: return lower_masked(l, 4);
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ: return lower_masked(l, 8);
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU: return lower_maskmov(l, op_maskmovdqu);
	case ZYDIS_MNEMONIC_MASKMOVQ: return lower_maskmov(l, op_maskmovq);
	case ZYDIS_MNEMONIC_VGATHERDPS:
	case ZYDIS_MNEMONIC_VPGATHERDD: return lower_gather(l, 4, 4);
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VPGATHERQD: return lower_gather(l, 4, 8);
	case ZYDIS_MNEMONIC_VGATHERDPD:
	case ZYDIS_MNEMONIC_VPGATHERDQ: return lower_gather(l, 8, 4);
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERQQ: return lower_gather(l, 8, 8);
	default: return false;
	}
}
