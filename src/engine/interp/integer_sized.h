/*
 * Integer handlers for one operand size; integer.c includes this four times with SIZE (bytes),
 * TYPE, STYPE and SUFFIX (of the assembler) defined. The arithmetic is the host's own instruction,
 * so that all flags, the undefined ones too, are a processor's: LAHF and SETO give them in AX,
 * which is stored as it is (flags_low from AH, flags_of from AL).
 */

#define CAT3_(a, b, c) a##b##c
#define CAT3(a, b, c) CAT3_(a, b, c)
#define SIZED(name) CAT3(name, _, SIZE)
#define READ_MEM SIZED(interp_read)
#define WRITE_MEM SIZED(interp_write)
#define RMW_MEM SIZED(interp_rmw)

static inline TYPE SIZED(get)(const struct vcpu_state *s, unsigned r)
{
#if SIZE == 1
	return ((const uint8_t *)s->gpr)[r];
#else
	return (TYPE)s->gpr[r];
#endif
}

static inline void SIZED(set)(struct vcpu_state *s, unsigned r, TYPE value)
{
#if SIZE == 1
	((uint8_t *)s->gpr)[r] = value;
#elif SIZE == 2
	*(uint16_t *)&s->gpr[r] = value;
#else
	s->gpr[r] = value;
#endif
}

/* ---- two operands ---- */

#define BINARY(name, mnemonic)                                                \
	static inline TYPE SIZED(name)(struct vcpu_state * s, TYPE a, TYPE b) \
	{                                                                     \
		uint32_t ax;                                                  \
		__asm__(mnemonic SUFFIX " %[b], %[a]\n\tlahf\n\tseto %%al"    \
			: [a] "+r"(a), "=&a"(ax)                              \
			: [b] "r"(b)                                          \
			: "cc");                                              \
		set_flags_ax(s, ax);                                          \
		return a;                                                     \
	}
#define BINARY_CARRY(name, mnemonic)                                                           \
	static inline TYPE SIZED(name)(struct vcpu_state * s, TYPE a, TYPE b)                  \
	{                                                                                      \
		uint32_t ax = s->flags_low;                                                    \
		__asm__("btl $0, %%eax\n\t" mnemonic SUFFIX " %[b], %[a]\n\tlahf\n\tseto %%al" \
			: [a] "+r"(a), "+&a"(ax)                                               \
			: [b] "r"(b)                                                           \
			: "cc");                                                               \
		set_flags_ax(s, ax);                                                           \
		return a;                                                                      \
	}
BINARY(add, "add")
BINARY(or, "or")
BINARY_CARRY(adc, "adc")
BINARY_CARRY(sbb, "sbb")
BINARY(and, "and")
BINARY(sub, "sub")
BINARY(xor, "xor")
#undef BINARY
#undef BINARY_CARRY

#define RESULT_FORMS(name)                                                                  \
	HANDLER(SIZED(name##_rr))                                                           \
	{                                                                                   \
		SIZED(set)                                                                  \
		(s, i->reg, SIZED(name)(s, SIZED(get)(s, i->reg), SIZED(get)(s, i->rm)));   \
		NEXT;                                                                       \
	}                                                                                   \
	HANDLER(SIZED(name##_ri))                                                           \
	{                                                                                   \
		SIZED(set)(s, i->reg, SIZED(name)(s, SIZED(get)(s, i->reg), (TYPE)i->imm)); \
		NEXT;                                                                       \
	}                                                                                   \
	HANDLER(SIZED(name##_rm))                                                           \
	{                                                                                   \
		TYPE b = READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ));                \
		SIZED(set)(s, i->reg, SIZED(name)(s, SIZED(get)(s, i->reg), b));            \
		NEXT;                                                                       \
	}                                                                                   \
	HANDLER(SIZED(name##_mr))                                                           \
	{                                                                                   \
		uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);                          \
		SIZED(interp_operand) *p = RMW_MEM(c, i, ea);                               \
		*p = SIZED(name)(s, *p, SIZED(get)(s, i->reg));                             \
		interp_rmw_done(c, i, ea, p, SIZE);                                         \
		NEXT;                                                                       \
	}                                                                                   \
	HANDLER(SIZED(name##_mi))                                                           \
	{                                                                                   \
		uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);                          \
		SIZED(interp_operand) *p = RMW_MEM(c, i, ea);                               \
		*p = SIZED(name)(s, *p, (TYPE)i->imm);                                      \
		interp_rmw_done(c, i, ea, p, SIZE);                                         \
		NEXT;                                                                       \
	}
RESULT_FORMS(add)
RESULT_FORMS(or)
RESULT_FORMS(adc)
RESULT_FORMS(sbb)
RESULT_FORMS(and)
RESULT_FORMS(sub)
RESULT_FORMS(xor)
#undef RESULT_FORMS

#define COMPARE_FORMS(name, operation)                                            \
	HANDLER(SIZED(name##_rr))                                                 \
	{                                                                         \
		SIZED(operation)(s, SIZED(get)(s, i->reg), SIZED(get)(s, i->rm)); \
		NEXT;                                                             \
	}                                                                         \
	HANDLER(SIZED(name##_ri))                                                 \
	{                                                                         \
		SIZED(operation)(s, SIZED(get)(s, i->reg), (TYPE)i->imm);         \
		NEXT;                                                             \
	}                                                                         \
	HANDLER(SIZED(name##_rm))                                                 \
	{                                                                         \
		TYPE b = READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ));      \
		SIZED(operation)(s, SIZED(get)(s, i->reg), b);                    \
		NEXT;                                                             \
	}                                                                         \
	HANDLER(SIZED(name##_mr))                                                 \
	{                                                                         \
		TYPE a = READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ));      \
		SIZED(operation)(s, a, SIZED(get)(s, i->reg));                    \
		NEXT;                                                             \
	}                                                                         \
	HANDLER(SIZED(name##_mi))                                                 \
	{                                                                         \
		TYPE a = READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ));      \
		SIZED(operation)(s, a, (TYPE)i->imm);                             \
		NEXT;                                                             \
	}
COMPARE_FORMS(cmp, sub)
COMPARE_FORMS(test, and)
#undef COMPARE_FORMS

/* ---- one operand; all flags in, so that what an instruction leaves alone stays ---- */

#define LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"
#define UNARY(name, mnemonic)                                                   \
	static inline TYPE SIZED(name)(struct vcpu_state * s, TYPE a)           \
	{                                                                       \
		uint32_t ax = flags_ax(s);                                      \
		__asm__(LOAD_FLAGS mnemonic SUFFIX " %[a]\n\tlahf\n\tseto %%al" \
			: [a] "+r"(a), "+&a"(ax)                                \
			:                                                       \
			: "cc");                                                \
		set_flags_ax(s, ax);                                            \
		return a;                                                       \
	}                                                                       \
	HANDLER(SIZED(name##_r))                                                \
	{                                                                       \
		SIZED(set)(s, i->reg, SIZED(name)(s, SIZED(get)(s, i->reg)));   \
		NEXT;                                                           \
	}                                                                       \
	HANDLER(SIZED(name##_m))                                                \
	{                                                                       \
		uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);              \
		SIZED(interp_operand) *p = RMW_MEM(c, i, ea);                   \
		*p = SIZED(name)(s, *p);                                        \
		interp_rmw_done(c, i, ea, p, SIZE);                             \
		NEXT;                                                           \
	}
UNARY(inc, "inc")
UNARY(dec, "dec")
UNARY(neg, "neg")
#undef UNARY

HANDLER(SIZED(not_r))
{
	SIZED(set)(s, i->reg, (TYPE)~SIZED(get)(s, i->reg));
	NEXT;
}

HANDLER(SIZED(not_m))
{
	uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);
	SIZED(interp_operand) *p = RMW_MEM(c, i, ea);
	*p = (TYPE) ~*p;
	interp_rmw_done(c, i, ea, p, SIZE);
	NEXT;
}

/* ---- shifts and rotates: the count is an immediate (i->imm) or CL ---- */

#define SHIFT(name, mnemonic)                                                                  \
	static inline TYPE SIZED(name)(struct vcpu_state * s, TYPE a, uint8_t count)           \
	{                                                                                      \
		uint32_t ax = flags_ax(s);                                                     \
		__asm__(LOAD_FLAGS mnemonic SUFFIX " %%cl, %[a]\n\tlahf\n\tseto %%al"          \
			: [a] "+r"(a), "+&a"(ax)                                               \
			: "c"(count)                                                           \
			: "cc");                                                               \
		set_flags_ax(s, ax);                                                           \
		return a;                                                                      \
	}                                                                                      \
	HANDLER(SIZED(name##_ri))                                                              \
	{                                                                                      \
		SIZED(set)(s, i->reg, SIZED(name)(s, SIZED(get)(s, i->reg), (uint8_t)i->imm)); \
		NEXT;                                                                          \
	}                                                                                      \
	HANDLER(SIZED(name##_rc))                                                              \
	{                                                                                      \
		TYPE a = SIZED(get)(s, i->reg);                                                \
		SIZED(set)(s, i->reg, SIZED(name)(s, a, (uint8_t)s->gpr[GPR_RCX]));            \
		NEXT;                                                                          \
	}                                                                                      \
	HANDLER(SIZED(name##_m))                                                               \
	{                                                                                      \
		uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);                             \
		SIZED(interp_operand) *p = RMW_MEM(c, i, ea);                                  \
		*p = SIZED(name)(s, *p, i->sub ? (uint8_t)s->gpr[GPR_RCX] : (uint8_t)i->imm);  \
		interp_rmw_done(c, i, ea, p, SIZE);                                            \
		NEXT;                                                                          \
	}
SHIFT(rol, "rol")
SHIFT(ror, "ror")
SHIFT(rcl, "rcl")
SHIFT(rcr, "rcr")
SHIFT(shl, "shl")
SHIFT(shr, "shr")
SHIFT(sar, "sar")
#undef SHIFT
#undef LOAD_FLAGS

/* ---- moves ---- */

HANDLER(SIZED(mov_rr))
{
	SIZED(set)(s, i->reg, SIZED(get)(s, i->rm));
	NEXT;
}

HANDLER(SIZED(mov_ri))
{
	SIZED(set)(s, i->reg, (TYPE)i->imm);
	NEXT;
}

HANDLER(SIZED(mov_rm))
{
	SIZED(set)(s, i->reg, READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ)));
	NEXT;
}

HANDLER(SIZED(mov_mr))
{
	WRITE_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_WRITE), SIZED(get)(s, i->reg));
	NEXT;
}

HANDLER(SIZED(mov_mi))
{
	WRITE_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_WRITE), (TYPE)i->imm);
	NEXT;
}

HANDLER(SIZED(xchg_rr))
{
	TYPE a = SIZED(get)(s, i->reg), b = SIZED(get)(s, i->rm);
	SIZED(set)(s, i->rm, a);
	SIZED(set)(s, i->reg, b);
	NEXT;
}

HANDLER(SIZED(xchg_m))
{
	uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);
	SIZED(interp_operand) *p = RMW_MEM(c, i, ea);
	TYPE old = *p;
	*p = SIZED(get)(s, i->reg);
	interp_rmw_done(c, i, ea, p, SIZE);
	SIZED(set)(s, i->reg, old);
	NEXT;
}

HANDLER(SIZED(xadd_rr))
{
	TYPE a = SIZED(get)(s, i->reg), b = SIZED(get)(s, i->rm);
	TYPE sum = SIZED(add)(s, a, b);
	SIZED(set)(s, i->rm, a);
	SIZED(set)(s, i->reg, sum);
	NEXT;
}

HANDLER(SIZED(xadd_m))
{
	uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);
	SIZED(interp_operand) *p = RMW_MEM(c, i, ea);
	TYPE old = *p;
	*p = SIZED(add)(s, old, SIZED(get)(s, i->reg));
	interp_rmw_done(c, i, ea, p, SIZE);
	SIZED(set)(s, i->reg, old);
	NEXT;
}

/* CMPXCHG writes its destination always: the old value when the comparison fails. */
HANDLER(SIZED(cmpxchg_rr))
{
	TYPE accumulator = SIZED(get)(s, GPR_RAX), a = SIZED(get)(s, i->reg);
	SIZED(sub)(s, accumulator, a);
	if (accumulator == a)
		SIZED(set)(s, i->reg, SIZED(get)(s, i->rm));
	else
		SIZED(set)(s, GPR_RAX, a);
	NEXT;
}

HANDLER(SIZED(cmpxchg_m))
{
	uint64_t ea = interp_ea(c, i, SIZE, ACCESS_WRITE);
	SIZED(interp_operand) *p = RMW_MEM(c, i, ea);
	TYPE accumulator = SIZED(get)(s, GPR_RAX), a = *p;
	if (accumulator == a)
		*p = SIZED(get)(s, i->reg);
	interp_rmw_done(c, i, ea, p, SIZE);
	SIZED(sub)(s, accumulator, a);
	if (accumulator != a)
		SIZED(set)(s, GPR_RAX, a);
	NEXT;
}

#if SIZE > 1
#define WIDEN(name, from, from_type, source_type)                                               \
	HANDLER(SIZED(name##_##from##_r))                                                       \
	{                                                                                       \
		SIZED(set)(s, i->reg, (TYPE)(source_type)get_##from(s, i->rm));                 \
		NEXT;                                                                           \
	}                                                                                       \
	HANDLER(SIZED(name##_##from##_m))                                                       \
	{                                                                                       \
		from_type value = interp_read_##from(c, i, interp_ea(c, i, from, ACCESS_READ)); \
		SIZED(set)(s, i->reg, (TYPE)(source_type)value);                                \
		NEXT;                                                                           \
	}
WIDEN(movzx, 1, uint8_t, uint8_t)
WIDEN(movsx, 1, uint8_t, int8_t)
#if SIZE > 2
WIDEN(movzx, 2, uint16_t, uint16_t)
WIDEN(movsx, 2, uint16_t, int16_t)
#else
WIDEN(movzx, 2, uint16_t, uint16_t)
WIDEN(movsx, 2, uint16_t, int16_t)
#endif
#if SIZE == 8
WIDEN(movsx, 4, uint32_t, int32_t)
#endif
#undef WIDEN

HANDLER(SIZED(lea))
{
	if (likely(i->flags & INSN_PLAIN)) {
		const uint64_t *g = s->gpr;
		SIZED(set)
		(s, i->reg, (TYPE)(g[i->base] + (g[i->index] << i->scale) + (uint64_t)i->disp));
	} else
		SIZED(set)(s, i->reg, (TYPE)interp_ea_offset(c, i));
	NEXT;
}

static inline TYPE SIZED(imul)(struct vcpu_state *s, TYPE a, TYPE b)
{
	uint32_t ax = flags_ax(s);
	__asm__("addb $0x7f, %%al\n\tsahf\n\timul" SUFFIX " %[b], %[a]\n\tlahf\n\tseto %%al"
		: [a] "+r"(a), "+&a"(ax)
		: [b] "r"(b)
		: "cc");
	set_flags_ax(s, ax);
	return a;
}

HANDLER(SIZED(imul_rr))
{
	SIZED(set)(s, i->reg, SIZED(imul)(s, SIZED(get)(s, i->reg), SIZED(get)(s, i->rm)));
	NEXT;
}

HANDLER(SIZED(imul_rm))
{
	TYPE b = READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ));
	SIZED(set)(s, i->reg, SIZED(imul)(s, SIZED(get)(s, i->reg), b));
	NEXT;
}

HANDLER(SIZED(imul_rri))
{
	SIZED(set)(s, i->reg, SIZED(imul)(s, SIZED(get)(s, i->rm), (TYPE)i->imm));
	NEXT;
}

HANDLER(SIZED(imul_rmi))
{
	TYPE a = READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ));
	SIZED(set)(s, i->reg, SIZED(imul)(s, a, (TYPE)i->imm));
	NEXT;
}

HANDLER(SIZED(cmov_r))
{
	TYPE value = SIZED(get)(s, i->rm);
	if (!condition_holds(s, i->sub))
		value = SIZED(get)(s, i->reg);
	SIZED(set)(s, i->reg, value);
	NEXT;
}

HANDLER(SIZED(cmov_m))
{
	TYPE value = READ_MEM(c, i, interp_ea(c, i, SIZE, ACCESS_READ));
	if (!condition_holds(s, i->sub))
		value = SIZED(get)(s, i->reg);
	SIZED(set)(s, i->reg, value);
	NEXT;
}

/* ---- bit tests: with a register index a memory operand is a bit string that reaches beyond the
 * operand ---- */

static inline TYPE SIZED(bit_operation)(struct vcpu_state *s, TYPE a, unsigned bit,
					unsigned operation)
{
	TYPE mask = (TYPE)((TYPE)1 << bit);
	s->flags_low = (uint8_t)((s->flags_low & ~1u) | ((a & mask) != 0));
	return operation == 1	? a | mask
	       : operation == 2 ? (TYPE)(a & ~mask)
	       : operation == 3 ? a ^ mask
				: a;
}

HANDLER(SIZED(bt_r))
{
	unsigned bit = (unsigned)(i->rm == REG_ZERO ? i->imm : s->gpr[i->rm]) & (SIZE * 8 - 1);
	TYPE a = SIZED(get)(s, i->reg);
	TYPE result = SIZED(bit_operation)(s, a, bit, i->sub);
	if (i->sub)
		SIZED(set)(s, i->reg, result);
	NEXT;
}

HANDLER(SIZED(bt_m))
{
	uint64_t index = i->imm;
	struct insn moved = *i;
	if (i->rm != REG_ZERO) {
		index = SIZED(get)(s, i->rm);
		moved.disp += ((STYPE)index >> (SIZE == 2 ? 4 : SIZE == 4 ? 5 : 6)) * SIZE;
	}
	unsigned bit = (unsigned)index & (SIZE * 8 - 1);
	uint64_t ea;
	if (likely(i->flags & INSN_PLAIN))
		ea = s->gpr[i->base] + (s->gpr[i->index] << i->scale) + (uint64_t)moved.disp;
	else
		ea = interp_linear(c, i, i->seg, interp_ea_offset(c, &moved), SIZE,
				   i->sub ? ACCESS_WRITE : ACCESS_READ);
	if (!i->sub) {
		SIZED(bit_operation)(s, READ_MEM(c, i, ea), bit, 0);
		NEXT;
	}
	SIZED(interp_operand) *p = RMW_MEM(c, i, ea);
	*p = SIZED(bit_operation)(s, *p, bit, i->sub);
	interp_rmw_done(c, i, ea, p, SIZE);
	NEXT;
}
#endif

#undef SIZED
#undef CAT3
#undef CAT3_
#undef READ_MEM
#undef WRITE_MEM
#undef RMW_MEM
#undef SIZE
#undef TYPE
#undef STYPE
#undef SUFFIX
