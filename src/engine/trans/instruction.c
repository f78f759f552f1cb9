/*
 * Instructions that run as they are: the guest's own bytes with other registers in them.
 *
 * The bytes are edited, not encoded anew, so that redundant encodings keep the meaning that the
 * processor gives them. A register that lives elsewhere (RSP) is renamed; one that is at home in
 * the frame is loaded into T0 or T1 or, as the ModRM.rm operand, used where it is; a memory operand
 * becomes [T0 + T1] behind its look-up.
 */
#include "engine/trans/translate_private.h"

struct copy {
	const struct guest_insn *g;
	const ZydisDecodedOperand *memory, *rm_operand;
	int8_t reg, rm, opcode, vvvv; /* guest registers, or GPR_NONE */
	bool reg_written, rm_written, vvvv_written;
	bool has_high_byte; /* AH..BH: no REX prefix may come */
	bool is_vector;
	enum code32_form form;
};

/* The host's operands of the instruction. */
struct operands {
	unsigned reg, rm, opcode, vvvv;
	bool is_memory;
	struct host_memory memory;
};

static bool is_plain(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_ADC:
	case ZYDIS_MNEMONIC_ADCX:
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_ADOX:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_ANDN:
	case ZYDIS_MNEMONIC_BEXTR:
	case ZYDIS_MNEMONIC_BLSI:
	case ZYDIS_MNEMONIC_BLSMSK:
	case ZYDIS_MNEMONIC_BLSR:
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
	case ZYDIS_MNEMONIC_BSWAP:
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BZHI:
	case ZYDIS_MNEMONIC_CBW:
	case ZYDIS_MNEMONIC_CDQ:
	case ZYDIS_MNEMONIC_CDQE:
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_CMC:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_CQO:
	case ZYDIS_MNEMONIC_CRC32:
	case ZYDIS_MNEMONIC_CWD:
	case ZYDIS_MNEMONIC_CWDE:
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_INC:
	case ZYDIS_MNEMONIC_LAHF:
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVBE:
	case ZYDIS_MNEMONIC_MOVNTI:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_MULX:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_PDEP:
	case ZYDIS_MNEMONIC_PEXT:
	case ZYDIS_MNEMONIC_POPCNT:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RORX:
	case ZYDIS_MNEMONIC_SAHF:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SARX:
	case ZYDIS_MNEMONIC_SBB:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHLX:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SHRD:
	case ZYDIS_MNEMONIC_SHRX:
	case ZYDIS_MNEMONIC_STC:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_TZCNT:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_XCHG:
	case ZYDIS_MNEMONIC_XOR: return true;
	default:
		return (m >= ZYDIS_MNEMONIC_CMOVB && m <= ZYDIS_MNEMONIC_CMOVZ) ||
		       (m >= ZYDIS_MNEMONIC_SETB && m <= ZYDIS_MNEMONIC_SETZ &&
			m != ZYDIS_MNEMONIC_SETSSBSY);
	}
}

bool is_quiet(const struct guest_insn *g)
{
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64: return true;
	default: return is_plain(g->d.mnemonic) || is_vector(g);
	}
}

/* BT with a register as its index reaches beyond its operand's bytes. */
static bool is_bit_string(const struct guest_insn *g)
{
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTS:
		return g->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		       g->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
	default: return false;
	}
}

static bool is_vector_register(ZydisRegister r)
{
	ZydisRegisterClass class = ZydisRegisterGetClass(r);
	return class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM;
}

static bool is_x87_register(ZydisRegister r)
{
	return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_X87 ||
	       (r >= ZYDIS_REGISTER_X87CONTROL && r <= ZYDIS_REGISTER_X87TAG);
}

/* Those that move by a mask access memory as the mask says. */
static bool is_special_vector(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR: return true;
	default: return false;
	}
}

bool is_vector(const struct guest_insn *g)
{
	switch (g->d.meta.isa_ext) {
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_SHA:
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_F16C:
	case ZYDIS_ISA_EXT_FMA: break;
	default: return false;
	}
	if (is_special_vector(g->d.mnemonic))
		return false;
	for (unsigned k = 0; k < g->d.operand_count; k++)
		if (g->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    is_vector_register(g->operands[k].reg.value))
			return true;
	return g->d.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ||
	       g->d.mnemonic == ZYDIS_MNEMONIC_VZEROALL;
}

/* Must the memory operand of a vector instruction be aligned to its size? */
static bool is_aligned_vector(const struct guest_insn *g, unsigned size_bytes)
{
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM: return false;
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA: return true;
	default: return g->d.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && size_bytes == 16;
	}
}

int general_register(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15)
		return (int)(r - ZYDIS_REGISTER_RAX);
	if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D)
		return (int)(r - ZYDIS_REGISTER_EAX);
	if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W)
		return (int)(r - ZYDIS_REGISTER_AX);
	if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL)
		return (int)(r - ZYDIS_REGISTER_AL);
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return (int)(r - ZYDIS_REGISTER_AH) + 16;
	if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
		return (int)(r - ZYDIS_REGISTER_SPL) + 4;
	return -1;
}

static bool take_register(struct copy *c, const ZydisDecodedOperand *o)
{
	int n = general_register(o->reg.value);
	bool is_written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	if (n < 0)
		return is_vector_register(o->reg.value) || is_x87_register(o->reg.value) ||
		       ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_FLAGS ||
		       o->reg.value == ZYDIS_REGISTER_MXCSR;
	if (n >= 16) {
		c->has_high_byte = true;
		return true; /* its number stays as it is */
	}
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		c->reg = (int8_t)n;
		c->reg_written = is_written;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		c->rm = (int8_t)n;
		c->rm_written = is_written;
		c->rm_operand = o;
		return true;
	case ZYDIS_OPERAND_ENCODING_OPCODE: c->opcode = (int8_t)n; return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		c->vvvv = (int8_t)n;
		c->vvvv_written = is_written;
		return true;
	default: return host_register(n) == n; /* implied */
	}
}

static bool take_operands(struct copy *c)
{
	const struct guest_insn *g = c->g;
	c->reg = c->rm = c->opcode = c->vvvv = GPR_NONE;
	c->form = code32_form_of(g);
	if (c->form == CODE32_OTHER)
		return false;
	for (unsigned k = 0; k < g->d.operand_count; k++) {
		const ZydisDecodedOperand *o = &g->operands[k];
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !take_register(c, o))
			return false;
		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM && c->form != CODE32_MOFFS)
			return false;
		c->memory = o;
	}
	return true;
}

static bool is_vex(const struct guest_insn *g)
{
	return g->d.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
}

/* ---- writing ---- */

static unsigned rex_of(const struct copy *c, const struct operands *o)
{
	const ZydisDecodedInstruction *d = &c->g->d;
	unsigned rex = (unsigned)d->raw.rex.W << 3;
	rex |= c->reg != GPR_NONE ? o->reg >> 3 << 2 : (unsigned)d->raw.rex.R << 2;
	if (o->is_memory)
		return rex | emit_rex_bits(0, o->memory);
	if (c->rm != GPR_NONE)
		return rex | o->rm >> 3;
	if (c->opcode != GPR_NONE)
		return rex | o->opcode >> 3;
	return rex | d->raw.rex.B;
}

static unsigned emit_legacy(struct emitter *e, const struct copy *c, const struct operands *o)
{
	const ZydisDecodedInstruction *d = &c->g->d;
	for (unsigned k = 0; k < d->raw.prefix_count; k++) {
		uint8_t byte = c->g->bytes[k];
		if (byte == 0x66 || byte == 0xf2 || byte == 0xf3 || byte == 0xf0)
			emit_byte(e, byte);
	}
	unsigned rex = rex_of(c, o);
	if (rex || (d->attributes & ZYDIS_ATTRIB_HAS_REX && !c->has_high_byte))
		emit_byte(e, 0x40 | rex);
	return d->raw.prefix_count;
}

static unsigned emit_vex(struct emitter *e, const struct copy *c, const struct operands *o)
{
	const uint8_t *bytes = c->g->bytes + c->g->d.raw.vex.offset;
	bool is_short = bytes[0] == 0xc5;
	uint8_t map = is_short ? (uint8_t)((bytes[1] & 0x80) | 0x61) : bytes[1];
	uint8_t rest = is_short ? bytes[1] & 0x7f : bytes[2];
	if (c->reg != GPR_NONE)
		map = (uint8_t)((map & 0x7f) | (o->reg < 8) << 7);
	if (o->is_memory) {
		unsigned rex = emit_rex_bits(0, o->memory);
		map = (uint8_t)((map & 0x9f) | (rex & 2 ? 0 : 0x40) | (rex & 1 ? 0 : 0x20));
	} else if (c->rm != GPR_NONE) {
		map = (uint8_t)((map & 0xdf) | (o->rm < 8) << 5);
	}
	if (c->vvvv != GPR_NONE)
		rest = (uint8_t)((rest & 0x87) | (~o->vvvv & 15) << 3);
	emit_byte(e, 0xc4);
	emit_byte(e, map);
	emit_byte(e, rest);
	return c->g->d.raw.vex.offset + c->g->d.raw.vex.size;
}

/* What the opcodes 40..4F and A0..A3 of 32-bit code are in 64-bit code; behind the prefixes. */
static void emit_code32(struct emitter *e, const struct copy *c, const struct operands *o)
{
	unsigned opcode = c->g->d.opcode;
	if (c->form == CODE32_INC) {
		emit_byte(e, 0xff);
		emit_byte(e, 0xc0 | (opcode & 8) | (o->opcode & 7));
	} else {
		emit_byte(e, 0x88 | ((opcode & 2) ^ 2) | (opcode & 1)); /* A2, A3 store */
		emit_modrm(e, GPR_RAX, o->memory);
	}
}

static void emit_copy(struct emitter *e, const struct copy *c, const struct operands *o)
{
	const ZydisDecodedInstruction *d = &c->g->d;
	const uint8_t *bytes = c->g->bytes;
	unsigned at = is_vex(c->g) ? emit_vex(e, c, o) : emit_legacy(e, c, o);
	if (c->form != CODE32_SAME) {
		emit_code32(e, c, o);
		return;
	}
	if (!(d->attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
		unsigned opcode = at + (d->opcode_map == ZYDIS_OPCODE_MAP_0F ? 1 : 0);
		for (; at < d->length; at++)
			emit_byte(e, at == opcode && c->opcode != GPR_NONE
					     ? (bytes[at] & 0xf8u) | (o->opcode & 7)
					     : bytes[at]);
		return;
	}
	while (at < d->raw.modrm.offset)
		emit_byte(e, bytes[at++]);
	unsigned modrm = bytes[at++];
	unsigned reg = c->reg != GPR_NONE ? o->reg & 7 : modrm >> 3 & 7;
	if (d->attributes & ZYDIS_ATTRIB_HAS_SIB)
		at++;
	at += d->raw.disp.size / 8;
	if (o->is_memory)
		emit_modrm(e, reg, o->memory);
	else
		emit_byte(e, 0xc0 | reg << 3 | (c->rm != GPR_NONE ? o->rm & 7 : modrm & 7));
	while (at < d->length)
		emit_byte(e, bytes[at++]);
}

/* ---- the flags around it ---- */

/* Which flags must the host have before it: because they are read, or kept and wanted later? */
static uint8_t wanted_flags(const struct work *w)
{
	const struct guest_insn *g = w->g;
	uint8_t wanted = flags_read(g);
	if (flags_written(g))
		wanted |= w->live_after[g->index] &
			  (uint8_t)~flags_killed(g, w->trans->exact_flags);
	return wanted;
}

static void note_flags(struct work *w)
{
	if (flags_written(w->g))
		w->flags = FLAGS_HOST;
}

/* ---- with a memory operand ---- */

static bool is_at_home(int guest)
{
	return guest != GPR_NONE && host_register(guest) < 0;
}

static unsigned host_or(int guest, unsigned other)
{
	int host = guest == GPR_NONE ? -1 : host_register(guest);
	return host < 0 ? other : (unsigned)host;
}

/* Is all of the register that it writes overwritten, whatever was there? */
static bool is_overwriting(const struct copy *c)
{
	switch (c->g->d.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_MOVZX: return c->g->operands[0].size >= 32 && c->reg != c->rm;
	default: return false;
	}
}

static bool copy_with_memory(struct work *w, const struct copy *c)
{
	struct guest_address a;
	bool is_write = c->memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	bool reg_home = is_at_home(c->reg), vvvv_home = is_at_home(c->vvvv);
	if (c->has_high_byte || (reg_home && vvvv_home) || !address_of(w->g, c->memory, &a))
		return false;
	int home = reg_home ? c->reg : vvvv_home ? c->vvvv : GPR_NONE;
	unsigned size_bytes = c->memory->size / 8;
	if (!size_bytes || size_bytes > 32)
		return false;
	bool is_aligned = c->is_vector ? is_aligned_vector(w->g, size_bytes)
				       : w->g->d.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
	w->may_add_later = home == GPR_NONE; /* which wants T1 */
	struct operands o = {
		.reg = host_or(c->reg, HOST_T1),
		.vvvv = host_or(c->vvvv, HOST_T1),
		.is_memory = true,
		.memory = is_aligned ? access_emit_aligned(w, &a, size_bytes, is_write)
				     : access_emit(w, &a, size_bytes, is_write),
	};
	w->may_add_later = false;
	if (home != GPR_NONE)
		o.memory = access_in_t0(w, o.memory);
	if (home != GPR_NONE && (is_write || !is_overwriting(c)))
		emit_load(&w->e, HOST_T1, home_of(home));
	flags_want(w, wanted_flags(w));
	emit_copy(&w->e, c, &o);
	if (home != GPR_NONE && (reg_home ? c->reg_written : c->vvvv_written))
		emit_store(&w->e, home_of(home), HOST_T1);
	note_flags(w);
	return true;
}

/* ---- with registers alone ---- */

/* May the ModRM.rm register be used where it is at home? Not where memory means something else
 * than a register. */
static bool may_use_home(const struct copy *c)
{
	switch (c->g->d.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_XCHG: return false;
	default: return !c->is_vector && !c->has_high_byte && !(c->rm_written && c->rm == c->reg);
	}
}

/* Gives the homes that are in temporaries back. */
struct loaded {
	int8_t guest[2];
	bool is_written[2];
	unsigned count;
};

static const unsigned temporaries[] = {HOST_T1, HOST_T0};
#define TEMPORARY_COUNT ARRAY_COUNT(temporaries)

/* The host register for `guest`, loaded if it is at home and `is_read`; false if there is no
 * temporary left. */
static bool load_operand(struct work *w, struct loaded *l, int guest, bool is_read, bool is_written,
			 unsigned *host)
{
	if (guest == GPR_NONE)
		return true;
	if (!is_at_home(guest)) {
		*host = (unsigned)host_register(guest);
		return true;
	}
	for (unsigned k = 0; k < l->count; k++)
		if (l->guest[k] == guest) {
			*host = temporaries[k];
			l->is_written[k] |= is_written;
			return true;
		}
	if (l->count == TEMPORARY_COUNT)
		return false;
	*host = temporaries[l->count];
	if (*host == HOST_T0)
		group_free_t0(w);
	if (is_read)
		emit_load(&w->e, *host, home_of(guest));
	l->guest[l->count] = (int8_t)guest;
	l->is_written[l->count++] = is_written;
	return true;
}

/* Will copy_registers() do with the temporaries there are? */
static bool fits_registers(const struct copy *c)
{
	unsigned homes = is_at_home(c->reg) + is_at_home(c->vvvv) + is_at_home(c->opcode);
	if (homes + (is_at_home(c->rm) && !may_use_home(c)) > TEMPORARY_COUNT)
		return false;
	/* AH..BH go with no other register that needs REX. */
	return !c->has_high_byte ||
	       (!homes && !is_at_home(c->rm) && host_or(c->reg, 0) < 8 && host_or(c->rm, 0) < 8);
}

/* Does the ModRM.rm register stay where it is? Rather not if a part of it is written: the next load
 * of all of it would have to wait until the store is over. */
static bool uses_home_of(const struct copy *c)
{
	unsigned homes = is_at_home(c->reg) + is_at_home(c->vvvv) + is_at_home(c->opcode);
	if (!is_at_home(c->rm) || !may_use_home(c))
		return false;
	return !c->rm_written || c->rm_operand->size == 64 || homes >= TEMPORARY_COUNT;
}

static bool copy_registers(struct work *w, const struct copy *c)
{
	struct operands o = {0};
	struct loaded l = {0};
	if (!fits_registers(c))
		return false;
	bool uses_home = uses_home_of(c), is_move = is_overwriting(c);
	flags_want(w, wanted_flags(w));
	load_operand(w, &l, c->reg, !is_move || !c->reg_written, c->reg_written, &o.reg);
	load_operand(w, &l, c->vvvv, true, c->vvvv_written, &o.vvvv);
	load_operand(w, &l, c->opcode, !is_move, true, &o.opcode);
	if (uses_home) {
		o.is_memory = true;
		o.memory = home_of(c->rm);
	} else {
		load_operand(w, &l, c->rm, !is_move || !c->rm_written, c->rm_written, &o.rm);
	}
	emit_copy(&w->e, c, &o);
	if (uses_home && c->rm_written && c->rm_operand->size == 32) {
		o.memory.disp += 4; /* a 32-bit result clears the rest */
		emit_rm(&w->e, 0, 0xc7, 0, o.memory);
		emit_word(&w->e, 0);
	}
	for (unsigned k = 0; k < l.count; k++)
		if (l.is_written[k])
			emit_store(&w->e, home_of(l.guest[k]), temporaries[k]);
	note_flags(w);
	return true;
}

/* ---- LEA ---- */

static bool translate_lea(struct work *w)
{
	struct guest_address a;
	const ZydisDecodedOperand *to = &w->g->operands[0];
	int guest = general_register(to->reg.value);
	if (to->size < 32 || !address_of(w->g, &w->g->operands[1], &a))
		return false;
	a.seg = SEG_DS;
	unsigned host = host_or(guest, HOST_T1);
	if (a.is_relative && to->size == 64) {
		emit_address(w, host, (uint64_t)a.disp);
	} else if (a.is_constant) {
		emit_constant(&w->e, host, to->size == 32 ? (uint32_t)a.disp : (uint64_t)a.disp);
		w->x->is_bound |= a.is_relative;
	} else {
		struct host_memory m = {.index = NO_INDEX, .shift = a.shift};
		m.disp = (int32_t)a.disp;
		if (is_at_home(a.index))
			group_free_t0(w);
		if (a.index != GPR_NONE)
			m.index = (int8_t)register_or_load(w, a.index, HOST_T0);
		if (a.base != GPR_NONE)
			m.base = (uint8_t)register_or_load(w, a.base, HOST_T1);
		else
			m.no_base = true;
		bool is_wide = to->size == 64 && !a.is_32bit;
		emit_rm(&w->e, is_wide ? EMIT_W : 0, 0x8d, host, m);
	}
	if (is_at_home(guest))
		emit_store(&w->e, home_of(guest), HOST_T1);
	return true;
}

/* BT and its kin with a register as the bit's number: the operand that is touched lies as many
 * whole operands away as the number says. The host's instruction adds them too, so its address is
 * that of the touched one less them. */
static bool translate_bit_string(struct work *w)
{
	const ZydisDecodedOperand *memory = &w->g->operands[0];
	int guest = general_register(w->g->operands[1].reg.value);
	bool is_write = memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	struct guest_address a;
	struct copy c = {.g = w->g};
	struct emitter *e = &w->e;
	if (memory->size != 64 || is_at_home(guest) || !take_operands(&c) ||
	    !address_of(w->g, memory, &a))
		return false;
	unsigned host = (unsigned)host_register(guest);
	a.is_bit_string = true;
	a.bit_register = (uint8_t)host;
	access_in_t0(w, access_emit(w, &a, 8, is_write));
	emit_mov(e, HOST_T1, host);
	emit_rr(e, EMIT_W, 0xc1, 7, HOST_T1); /* sar */
	emit_byte(e, 6);
	emit_rr(e, EMIT_W, 0xf7, 3, HOST_T1); /* neg */
	emit_lea(e, HOST_T0, (struct host_memory){.base = HOST_T0, .index = HOST_T1, .shift = 3});
	flags_to_host(w);
	struct operands o = {
		.reg = host, .is_memory = true, .memory = {.base = HOST_T0, .index = NO_INDEX}};
	emit_copy(e, &c, &o);
	w->flags = FLAGS_HOST;
	return true;
}

bool translate_copied(struct work *w)
{
	struct copy c = {.g = w->g, .is_vector = is_vector(w->g)};
	if (is_bit_string(w->g))
		return translate_bit_string(w);
	bool is_fpu = w->trans->has_x87 && is_x87(w->g);
	if (is_fpu && w->g->d.mnemonic == ZYDIS_MNEMONIC_FLDCW)
		return translate_fldcw(w);
	if (!c.is_vector && !is_fpu && !is_plain(w->g->d.mnemonic))
		return false;
	if (w->g->d.mnemonic == ZYDIS_MNEMONIC_LEA)
		return translate_lea(w);
	if (!take_operands(&c))
		return false;
	return c.memory ? copy_with_memory(w, &c) : copy_registers(w, &c);
}

/* ---- what others want to know of it ---- */

static bool is_home_in(const ZydisDecodedOperand *o)
{
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
		return is_at_home(general_register(o->reg.value) & 15);
	return o->type == ZYDIS_OPERAND_TYPE_MEMORY && (is_at_home(general_register(o->mem.base)) ||
							is_at_home(general_register(o->mem.index)));
}

bool copy_spares_t1(const struct work *w, const struct guest_insn *g)
{
	struct copied i;
	if (!g->is_decoded || g->goes_on || !copy_describe(w, g, &i))
		return false;
	for (unsigned k = 0; k < g->d.operand_count; k++)
		if (is_home_in(&g->operands[k]))
			return false;
	return true;
}

static bool is_same_in_host(int guest)
{
	return guest == GPR_NONE || host_register(guest) == guest;
}

bool copy_is_verbatim(const struct guest_insn *g)
{
	struct copy c = {.g = g};
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_LZCNT: /* to some processors BSR and BSF */
	case ZYDIS_MNEMONIC_TZCNT: return false;
	default: break;
	}
	return is_plain(g->d.mnemonic) && !is_vector(g) && take_operands(&c) && !c.memory &&
	       is_same_in_host(c.reg) && is_same_in_host(c.rm) && is_same_in_host(c.opcode) &&
	       is_same_in_host(c.vvvv);
}

static void describe_written(const struct guest_insn *g, struct copied *out)
{
	for (unsigned k = 0; k < g->d.operand_count; k++) {
		const ZydisDecodedOperand *o = &g->operands[k];
		int n = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? general_register(o->reg.value)
							       : GPR_NONE;
		if (n == GPR_NONE)
			continue;
		n -= n >= 16 ? 16 : 0;
		if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			out->written |= (uint16_t)(1u << n);
	}
}

static bool describe_lea(const struct guest_insn *g)
{
	struct guest_address a;
	return g->operands[0].size >= 32 && address_of(g, &g->operands[1], &a);
}

bool copy_describe(const struct work *w, const struct guest_insn *g, struct copied *out)
{
	struct copy c = {.g = g, .is_vector = is_vector(g)};
	bool is_fpu = w->trans->has_x87 && is_x87(g) && g->d.mnemonic != ZYDIS_MNEMONIC_FLDCW;
	*out = (struct copied){0};
	if (is_bit_string(g) || (!c.is_vector && !is_fpu && !is_plain(g->d.mnemonic)))
		return false;
	describe_written(g, out);
	if (g->d.mnemonic == ZYDIS_MNEMONIC_LEA)
		return describe_lea(g);
	if (!take_operands(&c))
		return false;
	if (!c.memory)
		return fits_registers(&c);
	out->has_memory = true;
	out->is_write = c.memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	out->size_bytes = (uint8_t)(c.memory->size / 8);
	out->is_aligned = c.is_vector ? is_aligned_vector(g, out->size_bytes)
				      : g->d.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
	return !c.has_high_byte && !(is_at_home(c.reg) && is_at_home(c.vvvv)) && c.memory->size &&
	       c.memory->size <= 256 && address_of(g, c.memory, &out->a);
}
