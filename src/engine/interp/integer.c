/*
 * The integer instructions that programs are made of, each in a handler of its own for its size and
 * operand form. What is rarer is left to the host stubs (host.c), which take any instruction of
 * this kind.
 */
#include "engine/interp/condition.h"
#include "engine/interp/interp.h"

/* Flags as LAHF and SETO leave them in AX. */
static inline void set_flags_ax(struct vcpu_state *s, uint32_t ax)
{
	s->flags_low = (uint8_t)(ax >> 8);
	s->flags_of = (uint8_t)ax;
}

static inline uint32_t flags_ax(const struct vcpu_state *s)
{
	return (uint32_t)s->flags_low << 8 | s->flags_of;
}

#define SIZE 1
#define TYPE uint8_t
#define STYPE int8_t
#define SUFFIX "b"
#include "engine/interp/integer_sized.inc"
#define SIZE 2
#define TYPE uint16_t
#define STYPE int16_t
#define SUFFIX "w"
#include "engine/interp/integer_sized.inc"
#define SIZE 4
#define TYPE uint32_t
#define STYPE int32_t
#define SUFFIX "l"
#include "engine/interp/integer_sized.inc"
#define SIZE 8
#define TYPE uint64_t
#define STYPE int64_t
#define SUFFIX "q"
#include "engine/interp/integer_sized.inc"

typedef void handler_function(HANDLER_ARGUMENTS);

#define BY_SIZE(name)                                  \
	{                                              \
		name##_1, name##_2, name##_4, name##_8 \
	}
#define BY_WIDE_SIZE(name)                         \
	{                                          \
		NULL, name##_2, name##_4, name##_8 \
	}

static unsigned size_index(unsigned size_bytes)
{
	return size_bytes == 1 ? 0 : size_bytes == 2 ? 1 : size_bytes == 4 ? 2 : 3;
}

/* ---- multiply and divide by one operand ---- */

static uint64_t single_source(struct interp_vcpu *c, const struct insn *i)
{
	const struct vcpu_state *s = c->s;
	if (!(i->flags & INSN_MEMORY))
		return i->op_bytes == 1 ? get_1(s, i->reg)
					: s->gpr[i->reg] & mask_bytes(i->op_bytes);
	uint64_t ea = interp_ea(c, i, i->op_bytes, ACCESS_READ);
	switch (i->op_bytes) {
	case 1: return interp_read_1(c, i, ea);
	case 2: return interp_read_2(c, i, ea);
	case 4: return interp_read_4(c, i, ea);
	default: return interp_read_8(c, i, ea);
	}
}

#define MULTIPLY(mnemonic, suffix, low, high, source)                                           \
	__asm__("addb $0x7f, %%al\n\tsahf\n\tmovq %%r10, %%rax\n\t" mnemonic suffix " %[b]\n\t" \
		"movq %%rax, %%r10\n\tlahf\n\tseto %%al"                                        \
		: "+&a"(ax), "+r"(low), "+&d"(high)                                             \
		: [b] "r"(source)                                                               \
		: "cc")

static void multiply(HANDLER_ARGUMENTS)
{
	uint64_t source = single_source(c, i);
	uint64_t ax = flags_ax(s);
	register uint64_t low __asm__("r10") = s->gpr[GPR_RAX];
	uint64_t high = s->gpr[GPR_RDX];
	bool is_signed = i->sub;
	switch (i->op_bytes) {
	case 1: {
		uint8_t b = (uint8_t)source;
		if (is_signed)
			MULTIPLY("imul", "b", low, high, b);
		else
			MULTIPLY("mul", "b", low, high, b);
		*(uint16_t *)&s->gpr[GPR_RAX] = (uint16_t)low;
		break;
	}
	case 2: {
		uint16_t b = (uint16_t)source;
		if (is_signed)
			MULTIPLY("imul", "w", low, high, b);
		else
			MULTIPLY("mul", "w", low, high, b);
		set_2(s, GPR_RAX, (uint16_t)low);
		set_2(s, GPR_RDX, (uint16_t)high);
		break;
	}
	case 4: {
		uint32_t b = (uint32_t)source;
		if (is_signed)
			MULTIPLY("imul", "l", low, high, b);
		else
			MULTIPLY("mul", "l", low, high, b);
		set_4(s, GPR_RAX, (uint32_t)low);
		set_4(s, GPR_RDX, (uint32_t)high);
		break;
	}
	default:
		if (is_signed)
			MULTIPLY("imul", "q", low, high, source);
		else
			MULTIPLY("mul", "q", low, high, source);
		s->gpr[GPR_RAX] = low;
		s->gpr[GPR_RDX] = high;
		break;
	}
	set_flags_ax(s, (uint32_t)ax);
	NEXT;
}

/* Quotient and remainder of a `size_bytes` * 2 dividend; false when DIV raises #DE. Flags are
 * undefined; the processors that we know of leave them alone. */
static bool divide_unsigned(uint64_t high, uint64_t low, uint64_t divisor, unsigned size_bytes,
			    uint64_t *quotient, uint64_t *remainder)
{
	unsigned __int128 dividend = (unsigned __int128)high << (8 * size_bytes) | low;
	if (!divisor || high >= divisor)
		return false;
	if (size_bytes == 8) {
		__asm__("divq %[d]"
			: "=a"(*quotient), "=d"(*remainder)
			: "a"(low), "d"(high), [d] "r"(divisor)
			: "cc");
		return true;
	}
	*quotient = (uint64_t)dividend / divisor;
	*remainder = (uint64_t)dividend % divisor;
	return true;
}

static bool divide_signed(uint64_t high, uint64_t low, uint64_t divisor, unsigned size_bytes,
			  uint64_t *quotient, uint64_t *remainder)
{
	unsigned width = 8 * size_bytes;
	__int128 dividend = (__int128)((unsigned __int128)high << width | low);
	int64_t d = (int64_t)sign_extend(divisor, width);
	if (size_bytes < 8)
		dividend = (int64_t)sign_extend((uint64_t)dividend, 2 * width);
	if (!d)
		return false;
	bool negative = dividend < 0;
	unsigned __int128 magnitude = negative ? -(unsigned __int128)dividend
					       : (unsigned __int128)dividend;
	uint64_t absolute = d < 0 ? -(uint64_t)d : (uint64_t)d;
	unsigned __int128 q = magnitude / absolute;
	uint64_t r = (uint64_t)(magnitude % absolute);
	unsigned __int128 limit = (unsigned __int128)1 << (width - 1);
	bool q_negative = negative != (d < 0);
	if (q_negative ? q > limit : q >= limit)
		return false;
	*quotient = q_negative ? -(uint64_t)q : (uint64_t)q;
	*remainder = negative ? -r : r;
	return true;
}

static void divide(HANDLER_ARGUMENTS)
{
	uint64_t divisor = single_source(c, i);
	unsigned n = i->op_bytes;
	uint64_t mask = mask_bytes(n);
	uint64_t low = s->gpr[GPR_RAX] & mask, high = s->gpr[GPR_RDX] & mask;
	if (n == 1)
		high = (s->gpr[GPR_RAX] >> 8) & 0xff;
	uint64_t quotient, remainder;
	bool ok = i->sub ? divide_signed(high, low, divisor, n, &quotient, &remainder)
			 : divide_unsigned(high, low, divisor, n, &quotient, &remainder);
	if (!ok)
		interp_raise(c, i, VECTOR_DE);
	if (n == 1)
		set_2(s, GPR_RAX, (uint16_t)((quotient & 0xff) | (remainder & 0xff) << 8));
	else if (n == 2) {
		set_2(s, GPR_RAX, (uint16_t)quotient);
		set_2(s, GPR_RDX, (uint16_t)remainder);
	} else {
		s->gpr[GPR_RAX] = quotient & mask;
		s->gpr[GPR_RDX] = remainder & mask;
	}
	NEXT;
}

/* ---- sign extension of the accumulator ---- */

HANDLER(convert_accumulator) /* CBW, CWDE, CDQE */
{
	if (i->op_bytes == 2)
		set_2(s, GPR_RAX, (uint16_t)(int8_t)s->gpr[GPR_RAX]);
	else if (i->op_bytes == 4)
		set_4(s, GPR_RAX, (uint32_t)(int16_t)s->gpr[GPR_RAX]);
	else
		s->gpr[GPR_RAX] = (uint64_t)(int32_t)s->gpr[GPR_RAX];
	NEXT;
}

HANDLER(convert_pair) /* CWD, CDQ, CQO */
{
	uint64_t a = sign_extend(s->gpr[GPR_RAX], 8 * i->op_bytes);
	uint64_t sign = (int64_t)a < 0 ? ~0ull : 0;
	if (i->op_bytes == 2)
		set_2(s, GPR_RDX, (uint16_t)sign);
	else
		s->gpr[GPR_RDX] = sign & mask_bytes(i->op_bytes);
	NEXT;
}

/* ---- SETcc ---- */

HANDLER(setcc_r)
{
	set_1(s, i->reg, condition_holds(s, i->sub));
	NEXT;
}

HANDLER(setcc_m)
{
	interp_write_1(c, i, interp_ea(c, i, 1, ACCESS_WRITE), condition_holds(s, i->sub));
	NEXT;
}

/* ---- flags ---- */

HANDLER(flag_carry) /* CLC 0, STC 1, CMC 2 */
{
	uint8_t carry = i->sub == 2 ? !(s->flags_low & 1) : i->sub;
	s->flags_low = (uint8_t)((s->flags_low & ~1u) | carry);
	NEXT;
}

HANDLER(flag_direction)
{
	s->rflags = i->sub ? s->rflags | FLAG_DF : s->rflags & ~FLAG_DF;
	NEXT;
}

HANDLER(lahf)
{
	((uint8_t *)s->gpr)[1] = (uint8_t)((s->flags_low & 0xd5) | 2);
	NEXT;
}

HANDLER(sahf)
{
	s->flags_low = (uint8_t)((((uint8_t *)s->gpr)[1] & 0xd5) | 2);
	NEXT;
}

HANDLER(op_nop)
{
	NEXT;
}

HANDLER(bswap)
{
	if (i->op_bytes == 8)
		s->gpr[i->reg] = __builtin_bswap64(s->gpr[i->reg]);
	else if (i->op_bytes == 4)
		s->gpr[i->reg] = __builtin_bswap32((uint32_t)s->gpr[i->reg]);
	else
		set_2(s, i->reg, 0); /* undefined by the manual; processors give 0 */
	NEXT;
}

HANDLER(xlat)
{
	struct insn table = *i;
	table.base = GPR_RBX;
	table.index = REG_ZERO;
	table.disp = (uint8_t)s->gpr[GPR_RAX];
	uint64_t ea = interp_ea_offset(c, &table);
	ea = interp_linear(c, i, i->seg, ea, 1, ACCESS_READ);
	set_1(s, 0, interp_read_1(c, i, ea));
	NEXT;
}

/* ---- wide compare and exchange ---- */

HANDLER(cmpxchg8b)
{
	uint64_t ea = interp_ea(c, i, 8, ACCESS_WRITE);
	interp_operand_8 *p = interp_rmw_8(c, i, ea);
	uint64_t old = *p;
	uint64_t expected = (uint32_t)s->gpr[GPR_RAX] | s->gpr[GPR_RDX] << 32;
	bool equal = old == expected;
	if (equal)
		*p = (uint32_t)s->gpr[GPR_RBX] | s->gpr[GPR_RCX] << 32;
	interp_rmw_done(c, i, ea, p, 8);
	if (!equal) {
		s->gpr[GPR_RAX] = (uint32_t)old;
		s->gpr[GPR_RDX] = old >> 32;
	}
	s->flags_low = (uint8_t)((s->flags_low & ~0x40u) | (equal ? 0x40 : 0));
	NEXT;
}

HANDLER(cmpxchg16b)
{
	uint64_t ea = interp_ea(c, i, 16, ACCESS_WRITE);
	if (ea & 15)
		interp_raise_error(c, i, VECTOR_GP, 0);
	uint64_t *p = interp_rmw_slow(c, i, ea, 16);
	bool equal = p[0] == s->gpr[GPR_RAX] && p[1] == s->gpr[GPR_RDX];
	uint64_t low = p[0], high = p[1];
	if (equal) {
		p[0] = s->gpr[GPR_RBX];
		p[1] = s->gpr[GPR_RCX];
	}
	interp_rmw_done(c, i, ea, p, 16);
	if (!equal) {
		s->gpr[GPR_RAX] = low;
		s->gpr[GPR_RDX] = high;
	}
	s->flags_low = (uint8_t)((s->flags_low & ~0x40u) | (equal ? 0x40 : 0));
	NEXT;
}

/* ---- decimal arithmetic of 16 and 32-bit code (no host instruction in 64-bit mode) ---- */

static void set_result_flags(struct vcpu_state *s, uint8_t al, uint8_t carry, uint8_t adjust)
{
	uint8_t parity = __builtin_parity(al) ? 0 : 4;
	s->flags_low =
		(uint8_t)(2 | carry | parity | (adjust ? 0x10 : 0) | (al ? 0 : 0x40) | (al & 0x80));
}

HANDLER(decimal_adjust) /* DAA 0, DAS 1 */
{
	uint8_t old = (uint8_t)s->gpr[GPR_RAX], al = old;
	uint8_t carry = s->flags_low & 1, adjust = (s->flags_low & 0x10) != 0;
	uint8_t new_carry = 0;
	int direction = i->sub ? -1 : 1;
	if ((al & 15) > 9 || adjust) {
		new_carry = carry | (i->sub ? al < 6 : al > 0xf9);
		al = (uint8_t)(al + 6 * direction);
		adjust = 1;
	}
	if (old > 0x99 || carry) {
		al = (uint8_t)(al + 0x60 * direction);
		new_carry = 1;
	}
	set_1(s, 0, al);
	s->flags_of = 0;
	set_result_flags(s, al, new_carry, adjust);
	NEXT;
}

HANDLER(ascii_adjust) /* AAA 0, AAS 1 */
{
	uint16_t ax = (uint16_t)s->gpr[GPR_RAX];
	bool adjust = (ax & 15) > 9 || s->flags_low & 0x10;
	if (adjust)
		ax = (uint16_t)(i->sub ? ax - 0x106 : ax + 0x106);
	set_2(s, GPR_RAX, ax & 0xff0f);
	s->flags_of = 0;
	set_result_flags(s, (uint8_t)(ax & 0x0f), adjust, adjust);
	NEXT;
}

HANDLER(ascii_multiply) /* AAM */
{
	uint8_t al = (uint8_t)s->gpr[GPR_RAX], base = (uint8_t)i->imm;
	if (!base)
		interp_raise(c, i, VECTOR_DE);
	set_2(s, GPR_RAX, (uint16_t)((al / base) << 8 | al % base));
	s->flags_of = 0;
	set_result_flags(s, al % base, 0, 0);
	NEXT;
}

HANDLER(ascii_divide) /* AAD */
{
	uint16_t ax = (uint16_t)s->gpr[GPR_RAX];
	uint8_t al = (uint8_t)(ax + (ax >> 8) * (uint8_t)i->imm);
	set_2(s, GPR_RAX, al);
	s->flags_of = 0;
	set_result_flags(s, al, 0, 0);
	NEXT;
}

HANDLER(salc)
{
	set_1(s, 0, s->flags_low & 1 ? 0xff : 0);
	NEXT;
}

/* ---- lowering ---- */

enum form { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_NONE };

/* Fills registers, memory and immediate of a two-operand instruction. */
static enum form two_operands(struct lowering *l)
{
	const ZydisDecodedOperand *a = &l->operands[0], *b = &l->operands[1];
	struct insn *out = l->out;
	if (a->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		lower_memory(l, a);
		if (b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			out->imm = b->imm.value.u;
			return FORM_MI;
		}
		int r = b->type == ZYDIS_OPERAND_TYPE_REGISTER ? lower_register(b->reg.value) : -1;
		out->reg = (uint8_t)r;
		return r < 0 ? FORM_NONE : FORM_MR;
	}
	int r = a->type == ZYDIS_OPERAND_TYPE_REGISTER ? lower_register(a->reg.value) : -1;
	if (r < 0)
		return FORM_NONE;
	out->reg = (uint8_t)r;
	if (b->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		out->imm = b->imm.value.u;
		return FORM_RI;
	}
	if (b->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		lower_memory(l, b);
		return FORM_RM;
	}
	int rm = b->type == ZYDIS_OPERAND_TYPE_REGISTER ? lower_register(b->reg.value) : -1;
	out->rm = (uint8_t)rm;
	return rm < 0 ? FORM_NONE : FORM_RR;
}

struct binary_row {
	uint16_t mnemonic;
	handler_function *by_form[5][4];
};

#define BINARY_ROW(MNEMONIC, name)                                                  \
	{                                                                           \
		ZYDIS_MNEMONIC_##MNEMONIC,                                          \
		{                                                                   \
			BY_SIZE(name##_rr), BY_SIZE(name##_ri), BY_SIZE(name##_rm), \
				BY_SIZE(name##_mr), BY_SIZE(name##_mi)              \
		}                                                                   \
	}

static const struct binary_row binary_rows[] = {
	BINARY_ROW(ADD, add),	BINARY_ROW(OR, or),   BINARY_ROW(ADC, adc), BINARY_ROW(SBB, sbb),
	BINARY_ROW(AND, and),	BINARY_ROW(SUB, sub), BINARY_ROW(XOR, xor), BINARY_ROW(CMP, cmp),
	BINARY_ROW(TEST, test), BINARY_ROW(MOV, mov),
};

static unsigned data_size(const ZydisDecodedOperand *operand)
{
	return operand->size / 8;
}

static bool lower_binary(struct lowering *l)
{
	for (size_t n = 0; n < ARRAY_COUNT(binary_rows); n++) {
		if (binary_rows[n].mnemonic != l->d->mnemonic)
			continue;
		unsigned size = data_size(&l->operands[0]);
		enum form form = two_operands(l);
		if (form == FORM_NONE)
			return false; /* segment, control and debug registers */
		l->out->op_bytes = (uint8_t)size;
		l->out->exec = binary_rows[n].by_form[form][size_index(size)];
		return true;
	}
	return false;
}

struct unary_row {
	uint16_t mnemonic;
	handler_function *reg[4], *mem[4];
};

#define UNARY_ROW(MNEMONIC, name)                                               \
	{                                                                       \
		ZYDIS_MNEMONIC_##MNEMONIC, BY_SIZE(name##_r), BY_SIZE(name##_m) \
	}

static const struct unary_row unary_rows[] = {UNARY_ROW(INC, inc), UNARY_ROW(DEC, dec),
					      UNARY_ROW(NEG, neg), UNARY_ROW(NOT, not )};

/* The one explicit operand in reg or memory; returns its size in bytes. */
static unsigned one_operand(struct lowering *l)
{
	const ZydisDecodedOperand *a = &l->operands[0];
	if (a->type == ZYDIS_OPERAND_TYPE_MEMORY)
		lower_memory(l, a);
	else
		l->out->reg = (uint8_t)lower_register(a->reg.value);
	l->out->op_bytes = (uint8_t)data_size(a);
	return data_size(a);
}

static bool lower_unary(struct lowering *l)
{
	for (size_t n = 0; n < ARRAY_COUNT(unary_rows); n++) {
		if (unary_rows[n].mnemonic != l->d->mnemonic)
			continue;
		unsigned k = size_index(one_operand(l));
		l->out->exec = l->out->flags & INSN_MEMORY ? unary_rows[n].mem[k]
							   : unary_rows[n].reg[k];
		return true;
	}
	return false;
}

struct shift_row {
	uint16_t mnemonic;
	handler_function *by_imm[4], *by_cl[4], *mem[4];
};

#define SHIFT_ROW(MNEMONIC, name)                                                  \
	{                                                                          \
		ZYDIS_MNEMONIC_##MNEMONIC, BY_SIZE(name##_ri), BY_SIZE(name##_rc), \
			BY_SIZE(name##_m)                                          \
	}

static const struct shift_row shift_rows[] = {
	SHIFT_ROW(ROL, rol), SHIFT_ROW(ROR, ror), SHIFT_ROW(RCL, rcl), SHIFT_ROW(RCR, rcr),
	SHIFT_ROW(SHL, shl), SHIFT_ROW(SHR, shr), SHIFT_ROW(SAR, sar),
};

static bool lower_shift(struct lowering *l)
{
	for (size_t n = 0; n < ARRAY_COUNT(shift_rows); n++) {
		const struct shift_row *row = &shift_rows[n];
		if (row->mnemonic != l->d->mnemonic)
			continue;
		unsigned k = size_index(one_operand(l));
		bool by_imm = l->operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
		l->out->imm = by_imm ? l->operands[1].imm.value.u : 0;
		l->out->sub = !by_imm;
		l->out->exec = l->out->flags & INSN_MEMORY ? row->mem[k]
			       : by_imm			   ? row->by_imm[k]
							   : row->by_cl[k];
		return true;
	}
	return false;
}

static bool lower_widening(struct lowering *l)
{
	static handler_function *const zero_1[2][4] = {
		{NULL, movzx_1_r_2, movzx_1_r_4, movzx_1_r_8},
		{NULL, movzx_1_m_2, movzx_1_m_4, movzx_1_m_8}};
	static handler_function *const zero_2[2][4] = {
		{NULL, movzx_2_r_2, movzx_2_r_4, movzx_2_r_8},
		{NULL, movzx_2_m_2, movzx_2_m_4, movzx_2_m_8}};
	static handler_function *const sign_1[2][4] = {
		{NULL, movsx_1_r_2, movsx_1_r_4, movsx_1_r_8},
		{NULL, movsx_1_m_2, movsx_1_m_4, movsx_1_m_8}};
	static handler_function *const sign_2[2][4] = {
		{NULL, movsx_2_r_2, movsx_2_r_4, movsx_2_r_8},
		{NULL, movsx_2_m_2, movsx_2_m_4, movsx_2_m_8}};
	bool is_zero = l->d->mnemonic == ZYDIS_MNEMONIC_MOVZX;
	unsigned to = size_index(data_size(&l->operands[0])), from = data_size(&l->operands[1]);
	if (two_operands(l) == FORM_NONE)
		return false;
	unsigned m = l->out->flags & INSN_MEMORY ? 1 : 0;
	if (from == 1)
		l->out->exec = is_zero ? zero_1[m][to] : sign_1[m][to];
	else if (from == 2)
		l->out->exec = is_zero ? zero_2[m][to] : sign_2[m][to];
	else if (to == 3)
		l->out->exec = m ? movsx_4_m_8 : movsx_4_r_8;
	else /* MOVSXD without REX.W moves 32 (or 16) bits */
		l->out->exec = to == 2 ? (m ? mov_rm_4 : mov_rr_4) : (m ? mov_rm_2 : mov_rr_2);
	return l->out->exec != NULL;
}

static bool lower_exchange(struct lowering *l)
{
	static handler_function *const xchg_r[] = BY_SIZE(xchg_rr), *const xchg_mem[] =
									    BY_SIZE(xchg_m);
	static handler_function *const xadd_r[] = BY_SIZE(xadd_rr), *const xadd_mem[] =
									    BY_SIZE(xadd_m);
	static handler_function *const cas_r[] = BY_SIZE(cmpxchg_rr), *const cas_mem[] =
									      BY_SIZE(cmpxchg_m);
	unsigned k = size_index(data_size(&l->operands[0]));
	enum form form = two_operands(l);
	bool is_mem = form == FORM_MR || form == FORM_RM;
	if (form == FORM_NONE)
		return false;
	if (l->d->mnemonic == ZYDIS_MNEMONIC_XCHG)
		l->out->exec = is_mem ? xchg_mem[k] : xchg_r[k];
	else if (l->d->mnemonic == ZYDIS_MNEMONIC_XADD)
		l->out->exec = is_mem ? xadd_mem[k] : xadd_r[k];
	else
		l->out->exec = is_mem ? cas_mem[k] : cas_r[k];
	return true;
}

static bool lower_bit_test(struct lowering *l, unsigned operation)
{
	static handler_function *const reg[] = BY_WIDE_SIZE(bt_r), *const mem[] =
									   BY_WIDE_SIZE(bt_m);
	unsigned size = data_size(&l->operands[0]);
	const ZydisDecodedOperand *index = &l->operands[1];
	bool is_mem = l->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
	if (is_mem)
		lower_memory(l, &l->operands[0]);
	else
		l->out->reg = (uint8_t)lower_register(l->operands[0].reg.value);
	if (index->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		l->out->rm = REG_ZERO;
		l->out->imm = index->imm.value.u & (size * 8 - 1);
	} else
		l->out->rm = (uint8_t)lower_register(index->reg.value);
	l->out->sub = (uint8_t)operation;
	l->out->exec = is_mem ? mem[size_index(size)] : reg[size_index(size)];
	return true;
}

static bool lower_imul(struct lowering *l)
{
	static handler_function *const rr[] = BY_WIDE_SIZE(imul_rr), *const rm[] =
									     BY_WIDE_SIZE(imul_rm);
	static handler_function *const rri[] = BY_WIDE_SIZE(imul_rri), *const rmi[] = BY_WIDE_SIZE(
									       imul_rmi);
	unsigned count = l->d->operand_count_visible;
	if (count == 1) {
		one_operand(l);
		l->out->sub = 1;
		l->out->exec = multiply;
		return true;
	}
	unsigned k = size_index(data_size(&l->operands[0]));
	if (two_operands(l) == FORM_NONE)
		return false;
	bool is_mem = l->out->flags & INSN_MEMORY;
	if (count == 3) {
		l->out->imm = l->operands[2].imm.value.u;
		l->out->exec = is_mem ? rmi[k] : rri[k];
	} else
		l->out->exec = is_mem ? rm[k] : rr[k];
	return true;
}

/* The condition code of Jcc, SETcc, CMOVcc is the opcode's low nibble. */
static bool lower_condition(struct lowering *l)
{
	static handler_function *const cmov_reg[] = BY_WIDE_SIZE(cmov_r), *const cmov_mem[] =
										  BY_WIDE_SIZE(
											  cmov_m);
	if (l->d->opcode_map != ZYDIS_OPCODE_MAP_0F ||
	    l->d->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	l->out->sub = l->d->opcode & 15;
	if ((l->d->opcode & 0xf0) == 0x40) {
		unsigned k = size_index(data_size(&l->operands[0]));
		two_operands(l);
		l->out->exec = l->out->flags & INSN_MEMORY ? cmov_mem[k] : cmov_reg[k];
		return true;
	}
	if ((l->d->opcode & 0xf0) != 0x90)
		return false;
	one_operand(l);
	l->out->exec = l->out->flags & INSN_MEMORY ? setcc_m : setcc_r;
	return true;
}

static bool simple(struct lowering *l, handler_function *exec, unsigned sub)
{
	l->out->exec = exec;
	l->out->sub = (uint8_t)sub;
	return true;
}

/* Instructions without visible operands, and those with an implied accumulator. */
static bool lower_accumulator(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_CBW:
	case ZYDIS_MNEMONIC_CWDE:
	case ZYDIS_MNEMONIC_CDQE: return simple(l, convert_accumulator, 0);
	case ZYDIS_MNEMONIC_CWD:
	case ZYDIS_MNEMONIC_CDQ:
	case ZYDIS_MNEMONIC_CQO: return simple(l, convert_pair, 0);
	case ZYDIS_MNEMONIC_MUL: one_operand(l); return simple(l, multiply, 0);
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		one_operand(l);
		return simple(l, divide, l->d->mnemonic == ZYDIS_MNEMONIC_IDIV);
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
		return simple(l, decimal_adjust, l->d->mnemonic == ZYDIS_MNEMONIC_DAS);
	case ZYDIS_MNEMONIC_AAA:
	case ZYDIS_MNEMONIC_AAS:
		return simple(l, ascii_adjust, l->d->mnemonic == ZYDIS_MNEMONIC_AAS);
	case ZYDIS_MNEMONIC_AAM:
	case ZYDIS_MNEMONIC_AAD:
		l->out->imm = l->operands[0].imm.value.u;
		return simple(
			l, l->d->mnemonic == ZYDIS_MNEMONIC_AAM ? ascii_multiply : ascii_divide, 0);
	case ZYDIS_MNEMONIC_SALC: return simple(l, salc, 0);
	case ZYDIS_MNEMONIC_LAHF: return simple(l, lahf, 0);
	case ZYDIS_MNEMONIC_SAHF: return simple(l, sahf, 0);
	case ZYDIS_MNEMONIC_CLC: return simple(l, flag_carry, 0);
	case ZYDIS_MNEMONIC_STC: return simple(l, flag_carry, 1);
	case ZYDIS_MNEMONIC_CMC: return simple(l, flag_carry, 2);
	case ZYDIS_MNEMONIC_CLD: return simple(l, flag_direction, 0);
	case ZYDIS_MNEMONIC_STD: return simple(l, flag_direction, 1);
	default: return false;
	}
}

/* Hints and fences do nothing here: one vcpu runs at a time, in order. */
static bool is_no_operation(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1: return true;
	default: return false;
	}
}

/* CLFLUSH and its like read a byte, for the faults that brings. */
HANDLER(cache_line)
{
	interp_read_1(c, i, interp_ea(c, i, 1, ACCESS_READ));
	NEXT;
}

bool lower_integer(struct lowering *l)
{
	if (lower_binary(l) || lower_unary(l) || lower_shift(l) || lower_condition(l) ||
	    lower_accumulator(l))
		return true;
	if (is_no_operation(l->d->mnemonic))
		return simple(l, op_nop, 0);
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD: return lower_widening(l);
	case ZYDIS_MNEMONIC_LEA: {
		static handler_function *const lea[] = BY_WIDE_SIZE(lea);
		unsigned k = size_index(data_size(&l->operands[0]));
		two_operands(l);
		return simple(l, lea[k], 0);
	}
	case ZYDIS_MNEMONIC_XCHG:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_CMPXCHG: return lower_exchange(l);
	case ZYDIS_MNEMONIC_IMUL: return lower_imul(l);
	case ZYDIS_MNEMONIC_BT: return lower_bit_test(l, 0);
	case ZYDIS_MNEMONIC_BTS: return lower_bit_test(l, 1);
	case ZYDIS_MNEMONIC_BTR: return lower_bit_test(l, 2);
	case ZYDIS_MNEMONIC_BTC: return lower_bit_test(l, 3);
	case ZYDIS_MNEMONIC_BSWAP:
		l->out->op_bytes = (uint8_t)data_size(&l->operands[0]);
		l->out->reg = (uint8_t)lower_register(l->operands[0].reg.value);
		return simple(l, bswap, 0);
	case ZYDIS_MNEMONIC_XLAT:
		for (unsigned n = 0; n < l->d->operand_count; n++)
			if (l->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
				lower_memory(l, &l->operands[n]);
		return simple(l, xlat, 0);
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_CMPXCHG16B:
		lower_memory(l, &l->operands[0]);
		return simple(
			l, l->d->mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B ? cmpxchg8b : cmpxchg16b, 0);
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLFLUSHOPT:
	case ZYDIS_MNEMONIC_CLWB: lower_memory(l, &l->operands[0]); return simple(l, cache_line, 0);
	default: return false;
	}
}
