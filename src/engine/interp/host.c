/*
 * Executing guest instructions with the host's own: lowering, and the handlers around the stubs.
 *
 * A handler does what the processor does before and after: control-register checks, the operand's
 * address, alignment and access rights, then the stub, then exceptions. The fast path hands the
 * stub a pointer into guest RAM; whatever is not plain RAM within one page goes through a copy.
 * Written operands are made writable before the stub runs, so that nothing has changed when a
 * fault leaves.
 *
 * MXCSR: with all exceptions masked (always, but for programs that test exceptions) the stub
 * runs under the guest's register. Otherwise it runs with everything masked on a copy of the state,
 * and what was raised decides. x87 and MMX stubs run between FXRSTOR and FXSAVE of an
 * image; an unmasked x87 exception only sets FSW.ES there, and is delivered to the guest by the
 * check before its next waiting instruction, as on the processor. The host never traps.
 */
#include "engine/interp/host.h"

#include <string.h>
#include <xmmintrin.h>

#include "engine/interp/block.h"

#define APART __attribute__((noinline))

/* ---- checks -------------------------------------------------------------------------------- */

APART void host_check(struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c,
		      enum host_class class, bool waits)
{
	bool em = s->cr0 & CR0_EM;
	switch (class) {
	case HOST_SSE:
		if (em || !(s->cr4 & CR4_OSFXSR))
			interp_raise(c, i, VECTOR_UD);
		break;
	case HOST_AVX:
		if (!(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & 6) != 6)
			interp_raise(c, i, VECTOR_UD);
		break;
	case HOST_MMX:
		if (em)
			interp_raise(c, i, VECTOR_UD);
		break;
	case HOST_X87:
		if (em)
			interp_raise(c, i, VECTOR_NM);
		break;
	default: return;
	}
	if (s->cr0 & CR0_TS)
		interp_raise(c, i, VECTOR_NM);
	if ((class == HOST_MMX || class == HOST_X87) && waits && (s->fpu.fsw & FSW_ES))
		interp_raise(c, i, VECTOR_MF);
}

/* ---- MXCSR --------------------------------------------------------------------------------- */

/*
 * Which exceptions the processor would have signalled, given those raised with all of them masked
 * (SDM 1 11.5.2): if an unmasked one is found before computing (IE, DE, ZE), those found after
 * (OE, UE, PE) are not looked at.
 */
static uint32_t signalled(uint32_t raised, uint32_t unmasked)
{
	const uint32_t before = 7;
	return raised & unmasked & before ? raised & before : raised;
}

/* What a stub may change, for taking it back. */
struct saved_state {
	uint8_t ymm[16][32];
	uint64_t gpr[16];
	uint8_t flags_low, flags_of;
};

static bool is_denormal(const uint8_t *bytes, unsigned size_bytes)
{
	uint64_t v = 0;
	memcpy(&v, bytes, size_bytes);
	unsigned fraction_bits = size_bytes == 8 ? 52 : size_bytes == 4 ? 23 : 10;
	uint64_t exponent = v >> fraction_bits & (size_bytes == 8   ? 0x7ff
						  : size_bytes == 4 ? 0xff
								    : 0x1f);
	return !exponent && (v & ((1ull << fraction_bits) - 1));
}

static bool has_denormal(const uint8_t *bytes, const struct insn *i)
{
	for (unsigned k = 0; k < i->op_bytes; k += i->sub)
		if (is_denormal(bytes + k, i->sub))
			return true;
	return false;
}

/*
 * With underflow unmasked, a tiny result raises UE even if it is exact, which a masked run does not
 * show: then a result of the computation is denormal. i->sub is the width of a result's elements,
 * i->op_bytes how many bytes of results there are.
 */
static bool has_tiny_result(const struct insn *i, const struct vcpu_state *s,
			    const struct host_stub *stub, const uint8_t *stored)
{
	if (stub->flags & STUB_WRITES)
		return has_denormal(stored, i);
	for (unsigned r = 0; r < 16; r++)
		if ((stub->vector_store & 1u << r) && has_denormal(s->fpu.ymm[r], i))
			return true;
	return false;
}

static inline const struct host_stub *stub_of(const struct insn *i)
{
	return (const struct host_stub *)(uintptr_t)i->imm;
}

static void take_back(struct vcpu_state *s, const struct saved_state *old)
{
	memcpy(s->fpu.ymm, old->ymm, sizeof(old->ymm));
	memcpy(s->gpr, old->gpr, sizeof(old->gpr));
	s->flags_low = old->flags_low;
	s->flags_of = old->flags_of;
}

static APART void run_unmasked(struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c,
			       void *operand)
{
	const struct host_stub *stub = stub_of(i);
	uint32_t guest = s->fpu.mxcsr & MXCSR_VALID;
	uint32_t unmasked = ~guest >> 7 & MXCSR_EXCEPTIONS;
	bool is_underflow = (unmasked & 0x10) && (stub->flags & STUB_ARITHMETIC);
	uint32_t control = (guest | MXCSR_MASKS) & ~MXCSR_EXCEPTIONS;
	struct saved_state old;
	memcpy(old.ymm, s->fpu.ymm, sizeof(old.ymm));
	memcpy(old.gpr, s->gpr, sizeof(old.gpr));
	old.flags_low = s->flags_low;
	old.flags_of = s->flags_of;

	/* A store (VCVTPS2PH) waits until it is known to happen. */
	_Alignas(64) uint8_t copy[64];
	bool is_store = stub->flags & STUB_WRITES;
	if (unmasked & 0x10)
		control &= ~0x8000u; /* flush-to-zero needs a masked underflow */
	_mm_setcsr(control);
	stub->code(s, is_store ? copy : operand, NULL);
	uint32_t raised = _mm_getcsr() & MXCSR_EXCEPTIONS;
	_mm_setcsr(MXCSR_DEFAULT);
	if (is_underflow && has_tiny_result(i, s, stub, copy))
		raised |= 0x10;
	raised = signalled(raised, unmasked);
	s->fpu.mxcsr = guest | raised;
	if (!(raised & unmasked)) {
		if (is_store)
			memcpy(operand, copy, stub->memory_bytes);
		return;
	}
	take_back(s, &old);
	interp_raise(c, i, s->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD);
}

static HOST_INLINE void run_float(struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c,
				  void *operand)
{
	uint32_t guest = s->fpu.mxcsr;
	if (unlikely((guest & MXCSR_MASKS) != MXCSR_MASKS)) {
		run_unmasked(s, i, c, operand);
		return;
	}
	_mm_setcsr(guest & MXCSR_VALID);
	stub_of(i)->code(s, operand, NULL);
	s->fpu.mxcsr = _mm_getcsr();
	if (unlikely(guest & ~(MXCSR_MASKS | MXCSR_EXCEPTIONS)))
		_mm_setcsr(MXCSR_DEFAULT);
}

/* ---- operands ------------------------------------------------------------------------------ */

/* Through a copy: device memory, page crossings, pages that are watched. */
static APART void run_copied(struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c,
			     uint64_t linear)
{
	const struct host_stub *stub = stub_of(i);
	_Alignas(64) uint8_t copy[64] = {0};
	bool is_write = stub->flags & STUB_WRITES;
	if (is_write && (stub->flags & STUB_READS) && stub->memory_bytes <= 8) {
		void *operand = interp_rmw_slow(c, i, linear, stub->memory_bytes);
		stub->code(s, operand, NULL);
		interp_rmw_done(c, i, linear, operand, stub->memory_bytes);
		return;
	}
	/* A float that is stored (VCVTPS2PH) is computed, with its exceptions, before the access.
	 */
	if (is_write && !(stub->flags & STUB_FLOAT))
		interp_probe_write(c, i, linear, stub->memory_bytes);
	if (stub->flags & STUB_READS)
		interp_read_bytes(c, i, linear, copy, stub->memory_bytes);
	if (stub->flags & STUB_FLOAT)
		run_float(s, i, c, copy);
	else
		stub->code(s, copy, NULL);
	if (is_write)
		interp_write_bytes(c, i, linear, copy, stub->memory_bytes);
}

/* ---- the handlers -------------------------------------------------------------------------- */

enum operand_kind { OPERAND_NONE, OPERAND_READ, OPERAND_WRITE };

/* i->imm: the stub, i->rm: bytes of the memory operand, i->reg: alignment - 1. */
static HOST_INLINE void host_execute(HANDLER_ARGUMENTS, enum host_class class,
				     enum operand_kind kind, bool is_float)
{
	host_check_fast(s, i, c, class);
	void *operand = NULL;
	if (kind != OPERAND_NONE) {
		bool is_write = kind == OPERAND_WRITE;
		uint64_t linear = interp_ea(c, i, i->rm, is_write ? ACCESS_WRITE : ACCESS_READ);
		if (unlikely(linear & i->reg))
			interp_raise_error(c, i, VECTOR_GP, 0);
		operand = host_operand(c, linear, i->rm, is_write);
		if (unlikely(!operand)) {
			run_copied(s, i, c, linear);
			return;
		}
	}
	if (is_float)
		run_float(s, i, c, operand);
	else
		stub_of(i)->code(s, operand, NULL);
}

#define HOST_HANDLER(name, class, kind, is_float)             \
	HANDLER(name)                                         \
	{                                                     \
		host_execute(s, i, c, class, kind, is_float); \
		NEXT;                                         \
	}
#define HOST_HANDLERS(name, class, is_float)                     \
	HOST_HANDLER(name##_reg, class, OPERAND_NONE, is_float)  \
	HOST_HANDLER(name##_read, class, OPERAND_READ, is_float) \
	HOST_HANDLER(name##_write, class, OPERAND_WRITE, is_float)
HOST_HANDLERS(op_integer, HOST_INTEGER, false)
HOST_HANDLERS(op_sse, HOST_SSE, false)
HOST_HANDLERS(op_sse_float, HOST_SSE, true)
HOST_HANDLERS(op_avx, HOST_AVX, false)
HOST_HANDLERS(op_avx_float, HOST_AVX, true)

static void (*const handlers[3][2][3])(HANDLER_ARGUMENTS) = {
	{{op_integer_reg, op_integer_read, op_integer_write}, {NULL, NULL, NULL}},
	{{op_sse_reg, op_sse_read, op_sse_write},
	 {op_sse_float_reg, op_sse_float_read, op_sse_float_write}},
	{{op_avx_reg, op_avx_read, op_avx_write},
	 {op_avx_float_reg, op_avx_float_read, op_avx_float_write}},
};

/* ---- x87 and MMX --------------------------------------------------------------------------- */

/* No address that an instruction or an operand of ours has, and no opcode (of mod 10). */
#define POINTER_UNTOUCHED 0x10ull
#define OPCODE_UNTOUCHED 0x5a5

static void image_fill(struct fx_image *m, const struct fpu_state *f, uint16_t vectors,
		       uint32_t mxcsr)
{
	memset(m, 0, offsetof(struct fx_image, st));
	m->fcw = f->fcw;
	m->fsw = f->fsw;
	m->ftw = f->ftw;
	m->fip = m->fdp = POINTER_UNTOUCHED;
	m->fop = OPCODE_UNTOUCHED;
	m->mxcsr = mxcsr;
	memcpy(m->st, f->st, sizeof(m->st));
	for (unsigned r = 0; r < 16; r++)
		if (vectors & 1u << r)
			memcpy(m->xmm[r], f->ymm[r], 16);
}

static void image_take(const struct fx_image *m, struct fpu_state *f, uint16_t vectors)
{
	f->fcw = m->fcw;
	f->fsw = m->fsw;
	f->ftw = m->ftw;
	memcpy(f->st, m->st, sizeof(m->st));
	for (unsigned r = 0; r < 8; r++)
		memset(&f->st[r][10], 0, 6);
	for (unsigned r = 0; r < 16; r++)
		if (vectors & 1u << r)
			memcpy(f->ymm[r], m->xmm[r], 16);
}

/* The pointers of the last x87 instruction, where the host's have moved. */
static void take_pointers(const struct fx_image *m, struct vcpu_state *s, const struct insn *i,
			  struct interp_vcpu *c)
{
	const struct host_stub *stub = stub_of(i);
	struct fpu_state *f = &s->fpu;
	if (m->fip != POINTER_UNTOUCHED) {
		bool is_ours = m->fip == (uint64_t)(uintptr_t)stub->code + stub->insn_offset;
		f->fip = is_ours ? sign_extend(s->gpr[REG_BLOCK] + i->offset, 48) : 0;
		f->fcs = f->fds = 0;
	}
	if (m->fop != OPCODE_UNTOUCHED)
		f->fop = m->fop ? stub->fop : 0;
	if (m->fdp != POINTER_UNTOUCHED)
		f->fdp = m->fdp && stub->memory_bytes ? interp_ea_offset(c, i) : 0;
}

/* After an MMX instruction that computes under MXCSR (the conversions). True: nothing may be
 * committed, #XM follows. */
static bool settle_mxcsr(const struct fx_image *m, struct vcpu_state *s)
{
	uint32_t guest = s->fpu.mxcsr & MXCSR_VALID;
	uint32_t unmasked = ~guest >> 7 & MXCSR_EXCEPTIONS;
	uint32_t raised = signalled(m->mxcsr & MXCSR_EXCEPTIONS, unmasked);
	s->fpu.mxcsr = guest | raised;
	return raised & unmasked;
}

/* What an unmasked exception keeps a store from writing stays as this. */
#define UNWRITTEN 0xa5

static bool is_unwritten(const uint8_t *bytes, unsigned count)
{
	for (unsigned k = 0; k < count; k++)
		if (bytes[k] != UNWRITTEN)
			return false;
	return true;
}

/* Reads the memory operand of an x87 or MMX instruction. A store is only prepared: it is made
 * afterwards, for an unmasked exception may keep it from touching memory at all. */
static void image_operand(struct interp_vcpu *c, const struct insn *i, uint8_t copy[64])
{
	const struct host_stub *stub = stub_of(i);
	if (stub->flags & STUB_WRITES) {
		memset(copy, UNWRITTEN, 64);
		return;
	}
	uint64_t linear = interp_ea(c, i, stub->memory_bytes, ACCESS_READ);
	if (unlikely(linear & i->reg))
		interp_raise_error(c, i, VECTOR_GP, 0);
	interp_read_bytes(c, i, linear, copy, stub->memory_bytes);
}

static APART void run_image(struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c)
{
	const struct host_stub *stub = stub_of(i);
	bool is_write = stub->flags & STUB_WRITES, is_float_mmx = stub->flags & STUB_FLOAT;
	if (stub->vector_load | stub->vector_store)
		host_check(s, i, c, HOST_SSE, false);
	host_check(s, i, c, stub->class, !(stub->flags & STUB_NO_WAIT));
	_Alignas(64) uint8_t copy[64];
	if (stub->memory_bytes)
		image_operand(c, i, copy);
	struct fx_image image;
	uint32_t mxcsr = MXCSR_DEFAULT;
	if (is_float_mmx)
		mxcsr = ((s->fpu.mxcsr & MXCSR_VALID) | MXCSR_MASKS) & ~MXCSR_EXCEPTIONS;
	image_fill(&image, &s->fpu, stub->vector_load | stub->vector_store, mxcsr);
	/* What writes general registers or flags neither stores to memory nor computes under MXCSR:
	 * it cannot fault any more. */
	stub->code(s, copy, &image);
	if (is_float_mmx) {
		_mm_setcsr(MXCSR_DEFAULT);
		if (settle_mxcsr(&image, s))
			interp_raise(c, i, s->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD);
	}
	bool is_lost = (image.fsw & FSW_ES) && !(stub->flags & STUB_NO_WAIT) &&
		       is_unwritten(copy, stub->memory_bytes);
	if (is_write && !is_lost)
		interp_write_bytes(c, i, interp_ea(c, i, stub->memory_bytes, ACCESS_WRITE), copy,
				   stub->memory_bytes);
	take_pointers(&image, s, i, c);
	image_take(&image, &s->fpu, stub->vector_store);
}

HANDLER(op_image)
{
	run_image(s, i, c);
	NEXT;
}

/* ---- hints --------------------------------------------------------------------------------- */

HANDLER(op_nop)
{
	NEXT;
}

/* ---- lowering ------------------------------------------------------------------------------ */

static bool is_base_instruction(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_ADC:
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
	case ZYDIS_MNEMONIC_BSWAP:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_INC:
	case ZYDIS_MNEMONIC_MOVNTI:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SBB:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SHRD:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_CRC32:
	case ZYDIS_MNEMONIC_POPCNT: return true;
	default:
		return (m >= ZYDIS_MNEMONIC_CMOVB && m <= ZYDIS_MNEMONIC_CMOVZ) ||
		       (m >= ZYDIS_MNEMONIC_SETB && m <= ZYDIS_MNEMONIC_SETZ &&
			m != ZYDIS_MNEMONIC_SETSSBSY);
	}
}

static bool names_mmx(const struct lowering *l)
{
	for (unsigned k = 0; k < l->d->operand_count; k++)
		if (l->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(l->operands[k].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

static enum host_class classify(const struct lowering *l)
{
	if (is_base_instruction(l->d->mnemonic))
		return HOST_INTEGER;
	/* Its 32-bit form is in another of the decoder's sets than the other two. */
	if (l->d->mnemonic == ZYDIS_MNEMONIC_FISTTP)
		return HOST_X87;
	switch (l->d->meta.isa_ext) {
	case ZYDIS_ISA_EXT_ADOX_ADCX:
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_BMI2:
	case ZYDIS_ISA_EXT_LZCNT:
	case ZYDIS_ISA_EXT_MOVBE: return HOST_INTEGER;
	case ZYDIS_ISA_EXT_X87: return HOST_X87;
	case ZYDIS_ISA_EXT_MMX: return HOST_MMX;
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_SHA: return names_mmx(l) ? HOST_MMX : HOST_SSE;
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_F16C:
	case ZYDIS_ISA_EXT_FMA: return HOST_AVX;
	default: return HOST_NONE;
	}
}

/* The mnemonic without VEX's V. */
static bool starts_with_any(const char *name, const char *const *prefixes)
{
	if (*name == 'v')
		name++;
	for (; *prefixes; prefixes++)
		if (!strncmp(name, *prefixes, strlen(*prefixes)))
			return true;
	return false;
}

/* Does it compute under MXCSR. By name: the decoder's element types are not reliable (ROUNDSS). */
static bool is_float(const struct lowering *l)
{
	static const char *const names[] = {"add",  "sub",  "mul", "div", "sqrt", "rsqrt", "rcp",
					    "min",  "max",  "cmp", "com", "ucom", "cvt",   "round",
					    "hadd", "hsub", "dp",  "fm",  "fnm",  NULL};
	return starts_with_any(ZydisMnemonicGetString(l->d->mnemonic), names);
}

static bool is_arithmetic(const struct lowering *l)
{
	static const char *const names[] = {"add",	"sub",	    "mul",  "div", "fm",
					    "fnm",	"hadd",	    "hsub", "dp",  "cvtsd2ss",
					    "cvtpd2ps", "cvtps2ph", NULL};
	return starts_with_any(ZydisMnemonicGetString(l->d->mnemonic), names);
}

/* Alignment - 1 of the memory operand; 0: any. */
static uint8_t alignment_mask(const struct lowering *l, enum host_class class, unsigned size_bytes)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM: return 0;
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA: return (uint8_t)(size_bytes - 1);
	default: return class != HOST_INTEGER && class != HOST_AVX && size_bytes == 16 ? 15 : 0;
	}
}

static bool waits(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_FDISI8087_NOP:
	case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FSETPM287_NOP:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FNINIT:
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW: return false;
	default: return true;
	}
}

/* The index of the memory operand, or -1; LEA's is none. */
static int find_memory(const struct lowering *l)
{
	for (unsigned k = 0; k < l->d->operand_count; k++)
		if (l->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return (int)k;
	return -1;
}

/* The results of a float instruction, for has_tiny_result(). */
static void describe_results(struct lowering *l, const struct host_stub *stub)
{
	const char *name = ZydisMnemonicGetString(l->d->mnemonic);
	size_t length = strlen(name);
	bool is_double = name[length - 1] == 'd', is_scalar = name[length - 2] == 's';
	l->out->sub = is_double ? 8 : 4;
	l->out->op_bytes = is_scalar ? l->out->sub : stub->is_vex ? stub->vector_bytes : 16;
	if (l->d->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH) {
		l->out->sub = 2;
		l->out->op_bytes = stub->vector_bytes / 2;
	}
}

static void shape_operand(const struct lowering *l, int memory, struct host_shape *shape)
{
	const ZydisDecodedOperand *o = &l->operands[memory];
	shape->memory_bytes = (uint8_t)(o->size / 8);
	if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		shape->flags |= STUB_WRITES;
	if (o->actions & (ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_CONDWRITE))
		shape->flags |= STUB_READS;
}

static bool is_encodable(const struct lowering *l, enum host_class class, int memory)
{
	const ZydisDecodedInstruction *d = l->d;
	/* 40..4F are REX prefixes in 64-bit code. */
	if (d->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (d->opcode & 0xf0) == 0x40)
		return false;
	if ((class == HOST_AVX || d->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) &&
	    (!(l->key & KEY_PROTECTED) || (l->key & KEY_V86)))
		return false;
	return memory < 0 || (l->operands[memory].size >= 8 && l->operands[memory].size <= 256 &&
			      l->operands[memory].mem.type == ZYDIS_MEMOP_TYPE_MEM);
}

static void choose_handler(struct lowering *l, const struct host_stub *stub)
{
	struct insn *out = l->out;
	out->flags |= INSN_STUB;
	out->imm = (uint64_t)(uintptr_t)stub;
	out->rm = stub->memory_bytes;
	if (stub->flags & STUB_ARITHMETIC)
		describe_results(l, stub);
	if (stub->class == HOST_X87 || stub->class == HOST_MMX) {
		out->exec = op_image;
		return;
	}
	enum operand_kind kind = !stub->memory_bytes	     ? OPERAND_NONE
				 : stub->flags & STUB_WRITES ? OPERAND_WRITE
							     : OPERAND_READ;
	out->exec = handlers[stub->class - HOST_INTEGER][!!(stub->flags & STUB_FLOAT)][kind];
}

static bool lower_hint(struct lowering *l)
{
	switch (l->d->meta.category) {
	case ZYDIS_CATEGORY_PREFETCH:
	case ZYDIS_CATEGORY_PREFETCHWT1:
	case ZYDIS_CATEGORY_WIDENOP:
	case ZYDIS_CATEGORY_MPX:
	case ZYDIS_CATEGORY_CLDEMOTE: l->out->exec = op_nop; return true;
	default: break;
	}
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_RDSSPD:
	case ZYDIS_MNEMONIC_RDSSPQ:
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64: l->out->exec = op_nop; return true;
	default: return false;
	}
}

bool lower_host(struct lowering *l)
{
	if (lower_hint(l) || lower_fpu_state(l) || lower_vector_memory(l) || lower_vector_move(l))
		return true;
	enum host_class class = classify(l);
	int memory = find_memory(l);
	if (class == HOST_NONE || !is_encodable(l, class, memory))
		return false;
	struct host_shape shape = {.class = (uint8_t) class};
	if (!host_shape_encode(l, memory, &shape))
		return false;
	if (memory >= 0)
		shape_operand(l, memory, &shape);
	if (class != HOST_INTEGER && class != HOST_X87 && is_float(l)) {
		shape.flags |= STUB_FLOAT;
		if (is_arithmetic(l))
			shape.flags |= STUB_ARITHMETIC;
	}
	if (class == HOST_X87) {
		if (!waits(l->d->mnemonic))
			shape.flags |= STUB_NO_WAIT;
		shape.fop = (uint16_t)((l->d->opcode & 7) << 8 | l->bytes[l->d->raw.modrm.offset]);
	}
	const struct host_stub *stub = host_stub_get(l->vm->stubs, &shape);
	if (!stub)
		return false;
	choose_handler(l, stub);
	if (memory >= 0) {
		lower_memory(l, &l->operands[memory]);
		l->out->reg = alignment_mask(l, class, shape.memory_bytes);
	}
	return true;
}
