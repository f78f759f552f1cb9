/*
 * Lowering: guest bytes, decoded by Zydis, become the insns of a block.
 *
 * The instruction set is shared out: each lower_*() knows its part and says so. What nobody knows,
 * what the CPU model does not offer and what does not decode become an insn that raises #UD when it
 * is reached, never earlier.
 */
#include "engine/interp/lower_form.h"

#include <string.h>

static void op_undefined(HANDLER_ARGUMENTS)
{
	(void)s;
	interp_raise(c, i, VECTOR_UD);
}

bool interp_is_undefined(const struct insn *i)
{
	return i->exec == op_undefined;
}

/* More than 15 bytes. */
static void op_too_long(HANDLER_ARGUMENTS)
{
	(void)s;
	interp_raise_error(c, i, VECTOR_GP, 0);
}

static void op_end(HANDLER_ARGUMENTS)
{
	uint64_t rip = s->gpr[REG_BLOCK] + i->offset;
	s->rip = i->mode == 64 ? rip : (uint32_t)rip;
	c->taken = 0;
}

void lower_end(struct insn *out, unsigned offset, unsigned mode)
{
	*out = (struct insn){.exec = op_end, .offset = (uint16_t)offset, .mode = (uint8_t)mode};
}

static int general_register(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return (int)(r - ZYDIS_REGISTER_RAX);
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return (int)(r - ZYDIS_REGISTER_EAX);
	if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
		return (int)(r - ZYDIS_REGISTER_AX);
	return -1;
}

int lower_register(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
		return (int)(r - ZYDIS_REGISTER_AL) * 8;
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return (int)(r - ZYDIS_REGISTER_AH) * 8 + 1;
	if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
		return (int)(r - ZYDIS_REGISTER_SPL + 4) * 8;
	return general_register(r);
}

static unsigned segment_index(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_ES: return SEG_ES;
	case ZYDIS_REGISTER_CS: return SEG_CS;
	case ZYDIS_REGISTER_SS: return SEG_SS;
	case ZYDIS_REGISTER_FS: return SEG_FS;
	case ZYDIS_REGISTER_GS: return SEG_GS;
	default: return SEG_DS;
	}
}

void lower_memory(struct lowering *l, const ZydisDecodedOperand *operand)
{
	struct insn *out = l->out;
	out->flags |= INSN_MEMORY;
	out->seg = (uint8_t)segment_index(operand->mem.segment);
	out->disp = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
	ZydisRegister base = operand->mem.base;
	bool is_displacement_alone = (l->d->attributes & ZYDIS_ATTRIB_HAS_SIB) &&
				     !l->d->raw.modrm.mod && l->d->raw.sib.base == 5;
	if (is_displacement_alone && operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
		/* Zydis 4.0 calls it R13D under prefix 67 with REX.B. */
		out->base = REG_ZERO;
		out->disp = l->d->raw.disp.value;
	} else if (base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP) {
		out->base = REG_BLOCK;
		out->disp += out->offset + out->length;
	} else {
		int r = general_register(base);
		out->base = (uint8_t)(r < 0 ? REG_ZERO : r);
	}
	int index = general_register(operand->mem.index);
	out->index = (uint8_t)(index < 0 ? REG_ZERO : index);
	out->scale = operand->mem.scale <= 1 ? 0 : (uint8_t)__builtin_ctz(operand->mem.scale);
	if (out->mode == 64 && out->address_bytes == 8 && out->seg != SEG_FS && out->seg != SEG_GS)
		out->flags |= INSN_PLAIN;
	if (l->key & KEY_FLAT && out->address_bytes == 4 && out->seg != SEG_FS &&
	    out->seg != SEG_GS && out->seg != SEG_CS)
		out->flags |= INSN_FLAT;
}

static bool lower_any(struct lowering *l)
{
	return lower_integer(l) || lower_flow(l) || lower_string(l) || lower_system(l) ||
	       lower_host(l);
}

/* LOCK is legal only on read-modify-write instructions with a memory destination. Zydis refuses the
 * rest when decoding. */
void lower_one(struct lowering *l, struct insn *out, const struct decoded *x)
{
	const ZydisDecodedInstruction *d = &x->d;
	l->d = d;
	l->operands = x->operands;
	l->out = out;
	out->length = d->length;
	out->op_bytes = (uint8_t)(d->operand_width / 8);
	out->address_bytes = (uint8_t)(d->address_width / 8);
	if (d->attributes & ZYDIS_ATTRIB_HAS_REP || d->attributes & ZYDIS_ATTRIB_HAS_REPE)
		out->flags |= INSN_REP;
	if (d->attributes & ZYDIS_ATTRIB_HAS_REPNE)
		out->flags |= INSN_REPNE;
	if (d->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		out->flags |= INSN_LOCK;
	l->ends_block = false;
	if (lower_is_offered(l) && lower_any(l))
		return;
	out->exec = op_undefined;
	l->ends_block = true;
}

static bool is_too_long(const uint8_t *bytes, unsigned available)
{
	/* 15 bytes of nothing but prefixes and no end: the processor gives #GP, not #UD. */
	return available >= 15 &&
	       (bytes[0] == 0x66 || bytes[0] == 0x67 || bytes[0] == 0x2e || bytes[0] == 0x36 ||
		bytes[0] == 0x3e || bytes[0] == 0x26 || bytes[0] == 0x64 || bytes[0] == 0x65 ||
		bytes[0] == 0xf2 || bytes[0] == 0xf3 || bytes[0] == 0xf0);
}

static void lower_undecodable(struct insn *out, ZyanStatus status, const uint8_t *bytes,
			      unsigned available)
{
	bool is_long = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ||
		       (status == ZYDIS_STATUS_NO_MORE_DATA && is_too_long(bytes, available));
	out->exec = is_long ? op_too_long : op_undefined;
	out->length = 1;
}

static bool writes_memory(const struct decoded *x)
{
	for (unsigned k = 0; k < x->d.operand_count; k++)
		if (x->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    x->operands[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			return true;
	return false;
}

/* The instruction at l->bytes, of which there are `have`. Returns how many of them it depends on;
 * 0: it crosses into the next page. */
static unsigned lower_next(struct lowering *l, enum decode_mode mode, unsigned have,
			   struct insn *out, bool *writes)
{
	struct decoder *decoder = l->vm->decoder;
	struct decode_found found;
	ZyanStatus status;
	if (mode == DECODE_64 && decoder_find(decoder, mode, l->bytes, have, &found) &&
	    lower_recall(l, &found, out, writes))
		return found.length;
	const struct decoded *x = decoder_decode(decoder, mode, l->bytes, have, &status);
	if (!x && status == ZYDIS_STATUS_NO_MORE_DATA && have < INSN_BYTES_MAX)
		return 0;
	*writes = x && writes_memory(x);
	if (!x) {
		lower_undecodable(out, status, l->bytes, have);
		l->ends_block = true;
		return have; /* any of them may make sense of what does not decode */
	}
	lower_one(l, out, x);
	if (mode == DECODE_64)
		lower_learn(l, l->bytes, out, *writes);
	return out->length;
}

void lower_block(struct interp_vcpu *c, struct block *b, const uint8_t *bytes, unsigned available,
		 unsigned insns_max)
{
	enum decode_mode mode = c->key & KEY_CODE64   ? DECODE_64
				: c->key & KEY_CODE32 ? DECODE_32
						      : DECODE_16;
	struct lowering l = {.vm = c->vm, .model = c->v->model, .key = c->key};
	unsigned offset = 0;
	b->count = 0;
	while (b->count < insns_max && offset < available) {
		unsigned have = available - offset;
		struct insn *out = &b->insns[b->count];
		bool writes;
		have = have < INSN_BYTES_MAX ? have : INSN_BYTES_MAX;
		*out = (struct insn){.offset = (uint16_t)offset, .mode = (uint8_t)(16u << mode)};
		l.bytes = bytes + offset;
		unsigned used = lower_next(&l, mode, have, out, &writes);
		if (!used)
			break;
		b->count++;
		if (b->gfn2 == BLOCK_CHECKED && writes)
			l.ends_block = true;
		offset += used;
		if (l.ends_block)
			break;
	}
	b->bytes = offset;
	if (b->count)
		lower_end(&b->insns[b->count], offset, 16u << mode);
}
