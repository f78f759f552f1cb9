/*
 * From the guest's encoding to the host's: the same opcode in 64-bit form, its memory operand
 * replaced by a plain pointer in a register, and RSP (which the stub needs itself) by a stand-in.
 *
 * The bytes are edited, not encoded anew, so that prefixes and redundant encodings keep the meaning
 * that the processor gives them. What differs between 16/32-bit and 64-bit code is put right:
 * the operand-size prefix in 16-bit code, VEX fields that 32-bit mode ignores.
 */
#include "engine/interp/host.h"

#include <string.h>

struct rewriting {
	const struct lowering *l;
	struct host_shape *shape;
	uint16_t used; /* registers that the instruction names */
	bool keep_66, add_66;
	bool drop_f3; /* LZCNT and TZCNT where the model has only BSR and BSF */
};

static int gpr_number(ZydisRegister r)
{
	switch (ZydisRegisterGetClass(r)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r) -
		       ZYDIS_REGISTER_RAX;
	default: return -1;
	}
}

/* Which registers go in and out. */
static bool find_registers(struct rewriting *w)
{
	struct host_shape *shape = w->shape;
	shape->vector_bytes = 16;
	for (unsigned k = 0; k < w->l->d->operand_count; k++) {
		const ZydisDecodedOperand *o = &w->l->operands[k];
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		bool is_written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
		bool is_read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
		int n = gpr_number(o->reg.value);
		if (n >= 0) {
			w->used |= (uint16_t)(1u << n);
			shape->gpr_load |= (uint16_t)(1u << n);
			shape->gpr_store |= (uint16_t)(is_written << n);
			continue;
		}
		ZydisRegisterClass class = ZydisRegisterGetClass(o->reg.value);
		if (class == ZYDIS_REGCLASS_ZMM || class == ZYDIS_REGCLASS_MASK)
			return false;
		if (class != ZYDIS_REGCLASS_XMM && class != ZYDIS_REGCLASS_YMM)
			continue;
		n = ZydisRegisterGetId(o->reg.value);
		if (class == ZYDIS_REGCLASS_YMM)
			shape->vector_bytes = 32;
		if (is_read || !shape->is_vex)
			shape->vector_load |= (uint16_t)(1u << n);
		shape->vector_store |= (uint16_t)(is_written << n);
	}
	return true;
}

/* A low register that the instruction does not name; never RAX (flags pass through it) and none
 * that would need a SIB byte or displacement as a base. */
static uint8_t pick_low(struct rewriting *w)
{
	static const uint8_t order[] = {GPR_RSI, GPR_RDI, GPR_RCX, GPR_RDX, GPR_RBX};
	for (unsigned k = 0; k < sizeof(order); k++) {
		if (w->used & 1u << order[k])
			continue;
		w->used |= (uint16_t)(1u << order[k]);
		return order[k];
	}
	return GPR_RSP;
}

static void find_flags(struct rewriting *w)
{
	const ZydisAccessedFlags *f = w->l->d->cpu_flags;
	if (!f)
		return;
	uint32_t written = f->modified | f->set_0 | f->set_1 | f->undefined;
	uint32_t defined = f->modified | f->set_0 | f->set_1;
	w->shape->flags_store = (written & FLAGS_ARITHMETIC) != 0;
	w->shape->flags_load =
		(f->tested & FLAGS_ARITHMETIC) ||
		(w->shape->flags_store && (defined & FLAGS_ARITHMETIC) != FLAGS_ARITHMETIC);
}

static bool is_operand_sized(const ZydisDecodedInstruction *d)
{
	switch (d->meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
	case ZYDIS_ISA_EXT_LZCNT:
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_MOVBE: return true;
	default:
		return d->meta.isa_set == ZYDIS_ISA_SET_POPCNT ||
		       d->mnemonic == ZYDIS_MNEMONIC_CRC32;
	}
}

static void put(struct host_shape *shape, uint8_t byte)
{
	shape->insn[shape->insn_bytes++] = byte;
}

/* Legacy prefixes that keep their meaning, then REX. Returns the offset of the opcode. */
static unsigned put_legacy_prefixes(struct rewriting *w, uint8_t rex, bool has_rex)
{
	const ZydisDecodedInstruction *d = w->l->d;
	if (w->add_66)
		put(w->shape, 0x66);
	unsigned count = d->raw.prefix_count;
	for (unsigned k = 0; k < count; k++) {
		uint8_t byte = w->l->bytes[k];
		bool keep = byte == 0x66 ? w->keep_66
					 : byte == 0xf2 || (byte == 0xf3 && !w->drop_f3);
		if (keep)
			put(w->shape, byte);
	}
	if (has_rex || rex)
		put(w->shape, (uint8_t)(0x40 | rex));
	return count;
}

struct vex {
	uint8_t rxb_map, wvlp;
};

static struct vex read_vex(const struct rewriting *w)
{
	const uint8_t *bytes = w->l->bytes + w->l->d->raw.vex.offset;
	if (bytes[0] == 0xc5)
		return (struct vex){(uint8_t)((bytes[1] & 0x80) | 0x61), bytes[1] & 0x7f};
	return (struct vex){bytes[1], bytes[2]};
}

/* In 32-bit mode VEX.R and X are 1, B and the top of vvvv are ignored, and W does not widen a
 * general register. */
static void normalise_vex(const struct rewriting *w, struct vex *v)
{
	if (w->l->d->machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
		return;
	v->rxb_map |= 0xe0;
	v->wvlp |= 0x40;
	bool is_general = w->shape->gpr_load != 0;
	switch (w->l->d->mnemonic) {
	case ZYDIS_MNEMONIC_VMOVD:
	case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VPEXTRD:
	case ZYDIS_MNEMONIC_VCVTSI2SD:
	case ZYDIS_MNEMONIC_VCVTSI2SS: is_general = true; break;
	default: break;
	}
	if (is_general)
		v->wvlp &= 0x7f;
}

static const ZydisDecodedOperand *operand_with(const struct rewriting *w,
					       ZydisOperandEncoding encoding)
{
	for (unsigned k = 0; k < w->l->d->operand_count; k++)
		if (w->l->operands[k].encoding == encoding &&
		    w->l->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER)
			return &w->l->operands[k];
	return NULL;
}

static bool is_rsp(const struct rewriting *w, ZydisOperandEncoding encoding)
{
	const ZydisDecodedOperand *o = operand_with(w, encoding);
	return o && gpr_number(o->reg.value) == GPR_RSP;
}

/* Opcode, ModRM, and what follows it, without SIB and displacement. */
static bool put_rest(struct rewriting *w, unsigned opcode, bool has_memory)
{
	const ZydisDecodedInstruction *d = w->l->d;
	const uint8_t *bytes = w->l->bytes;
	uint8_t stand_in = w->shape->stand_in;
	if (!(d->attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
		while (opcode < d->length)
			put(w->shape, bytes[opcode++]);
		if (is_rsp(w, ZYDIS_OPERAND_ENCODING_OPCODE))
			w->shape->insn[w->shape->insn_bytes - 1] ^= GPR_RSP ^ stand_in;
		return !has_memory;
	}
	unsigned at = d->raw.modrm.offset;
	while (opcode < at)
		put(w->shape, bytes[opcode++]);
	uint8_t modrm = bytes[at++];
	if (is_rsp(w, ZYDIS_OPERAND_ENCODING_MODRM_REG))
		modrm ^= (uint8_t)((GPR_RSP ^ stand_in) << 3);
	if (has_memory) {
		at += (d->attributes & ZYDIS_ATTRIB_HAS_SIB ? 1 : 0) + d->raw.disp.size / 8;
		modrm = (modrm & 0x38) | w->shape->memory_register;
	} else if (is_rsp(w, ZYDIS_OPERAND_ENCODING_MODRM_RM)) {
		modrm ^= GPR_RSP ^ stand_in;
	}
	/* 82 is 80 by another name, but not in 64-bit code. */
	if (d->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d->opcode == 0x82)
		w->shape->insn[w->shape->insn_bytes - 1] = 0x80;
	put(w->shape, modrm);
	while (at < d->length)
		put(w->shape, bytes[at++]);
	if (d->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 &&
	    operand_with(w, ZYDIS_OPERAND_ENCODING_IS4))
		w->shape->insn[w->shape->insn_bytes - 1] &= 0x7f;
	return true;
}

static void choose_prefixes(struct rewriting *w)
{
	const ZydisDecodedInstruction *d = w->l->d;
	w->keep_66 = true;
	if (d->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 && is_operand_sized(d)) {
		w->keep_66 = false;
		w->add_66 = d->operand_width == 16;
	}
	w->drop_f3 =
		(d->mnemonic == ZYDIS_MNEMONIC_LZCNT && !cpu_has(w->l->model, FEATURE_LZCNT)) ||
		(d->mnemonic == ZYDIS_MNEMONIC_TZCNT && !cpu_has(w->l->model, FEATURE_BMI1));
}

static bool put_vex(struct rewriting *w, bool has_memory)
{
	struct vex v = read_vex(w);
	normalise_vex(w, &v);
	if (has_memory)
		v.rxb_map |= 0x60;
	if (is_rsp(w, ZYDIS_OPERAND_ENCODING_NDSNDD))
		v.wvlp ^= (uint8_t)((GPR_RSP ^ w->shape->stand_in) << 3);
	put(w->shape, 0xc4);
	put(w->shape, v.rxb_map);
	put(w->shape, v.wvlp);
	return put_rest(w, w->l->d->raw.vex.offset + w->l->d->raw.vex.size, has_memory);
}

bool host_shape_encode(const struct lowering *l, int memory, struct host_shape *shape)
{
	struct rewriting w = {.l = l, .shape = shape};
	const ZydisDecodedInstruction *d = l->d;
	bool has_memory = memory >= 0;
	shape->is_vex = d->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	if (!shape->is_vex && d->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	if (!find_registers(&w))
		return false;
	find_flags(&w);
	shape->stand_in = shape->memory_register = GPR_RSP;
	if (w.used & 1u << GPR_RSP)
		shape->stand_in = pick_low(&w);
	if (has_memory)
		shape->memory_register = pick_low(&w);
	choose_prefixes(&w);
	if (shape->is_vex)
		return put_vex(&w, has_memory);
	uint8_t rex = 0;
	bool has_rex = d->attributes & ZYDIS_ATTRIB_HAS_REX;
	if (has_rex)
		rex = l->bytes[d->raw.rex.offset] & (has_memory ? 0xc : 0xf);
	return put_rest(&w, put_legacy_prefixes(&w, rex, has_rex), has_memory);
}
