/*
 * x87 and vector state moved as a whole: FXSAVE, FXRSTOR, the environment instructions, MXCSR,
 * FWAIT, VZEROUPPER. Formats: SDM 1 8.1.10, 10.5.1; SDM 2A FXSAVE.
 *
 * CPUID says that FCS and FDS are deprecated (they are 0) as the processors since Haswell do.
 */
#include "engine/interp/host.h"

#include <string.h>

/* ---- FXSAVE and FXRSTOR -------------------------------------------------------------------- */

void fpu_x87_to_image(const struct fpu_state *f, struct fx_image *m, bool is_64bit)
{
	m->fcw = f->fcw;
	m->fsw = f->fsw;
	m->ftw = f->ftw;
	m->unused = 0;
	m->fop = f->fop;
	m->fip = is_64bit ? f->fip : (uint32_t)f->fip | (uint64_t)f->fcs << 32;
	m->fdp = is_64bit ? f->fdp : (uint32_t)f->fdp | (uint64_t)f->fds << 32;
	memcpy(m->st, f->st, sizeof(m->st));
}

void fpu_x87_from_image(struct fpu_state *f, const struct fx_image *m, bool is_64bit)
{
	f->fcw = fpu_control(m->fcw);
	f->fsw = fpu_status(m->fsw, f->fcw);
	f->ftw = m->ftw;
	f->fop = m->fop & 0x7ff;
	f->fip = is_64bit ? sign_extend(m->fip, 48) : (uint32_t)m->fip;
	f->fdp = is_64bit ? m->fdp : (uint32_t)m->fdp;
	f->fcs = f->fds = 0;
	memcpy(f->st, m->st, sizeof(m->st));
	for (unsigned k = 0; k < 8; k++)
		memset(&f->st[k][10], 0, 6);
}

static unsigned vector_count(const struct insn *i)
{
	return i->mode == 64 ? 16 : 8;
}

static void check_area(HANDLER_ARGUMENTS, uint64_t linear)
{
	if (linear & 15)
		interp_raise_error(c, i, VECTOR_GP, 0);
}

HANDLER(op_fxsave)
{
	host_check(s, i, c, HOST_X87, false);
	uint64_t linear = interp_ea(c, i, 512, ACCESS_WRITE);
	check_area(s, i, c, linear);
	struct fx_image m;
	fpu_x87_to_image(&s->fpu, &m, i->op_bytes == 8);
	m.mxcsr = s->fpu.mxcsr;
	m.mxcsr_mask = MXCSR_VALID;
	for (unsigned k = 0; k < vector_count(i); k++)
		memcpy(m.xmm[k], s->fpu.ymm[k], 16);
	/* All of the area must be writable; what is not part of the format stays as it is. */
	interp_probe_write(c, i, linear, 512);
	interp_write_bytes(c, i, linear, &m,
			   (unsigned)offsetof(struct fx_image, xmm) + 16 * vector_count(i));
	NEXT;
}

HANDLER(op_fxrstor)
{
	host_check(s, i, c, HOST_X87, false);
	uint64_t linear = interp_ea(c, i, 512, ACCESS_READ);
	check_area(s, i, c, linear);
	struct fx_image m;
	interp_read_bytes(c, i, linear, &m, sizeof(m));
	if (m.mxcsr & ~MXCSR_VALID)
		interp_raise_error(c, i, VECTOR_GP, 0);
	fpu_x87_from_image(&s->fpu, &m, i->op_bytes == 8);
	s->fpu.mxcsr = m.mxcsr;
	for (unsigned k = 0; k < vector_count(i); k++)
		memcpy(s->fpu.ymm[k], m.xmm[k], 16);
	NEXT;
}

/* ---- the environment ----------------------------------------------------------------------- */

/* The two-bit tag of register `k` of the stack: valid, zero, special, empty. */
static unsigned tag_of(const struct fpu_state *f, unsigned physical)
{
	if (!(f->ftw & 1u << physical))
		return 3;
	const uint8_t *st = f->st[(physical - (f->fsw >> FSW_TOP_SHIFT)) & 7];
	uint64_t fraction;
	uint16_t exponent;
	memcpy(&fraction, st, 8);
	memcpy(&exponent, st + 8, 2);
	exponent &= 0x7fff;
	if (!exponent && !fraction)
		return 1;
	return exponent && exponent != 0x7fff && fraction >> 63 ? 0 : 2;
}

static uint16_t full_tags(const struct fpu_state *f)
{
	unsigned tags = 0;
	for (unsigned k = 0; k < 8; k++)
		tags |= tag_of(f, k) << 2 * k;
	return (uint16_t)tags;
}

static bool is_protected(const struct interp_vcpu *c)
{
	return (c->key & KEY_PROTECTED) && !(c->key & KEY_V86);
}

/* Seven fields of 2 or 4 bytes each: control, status, tags, and the four pointer words. */
static unsigned environment_fill(const struct interp_vcpu *c, const struct insn *i, uint8_t *out)
{
	const struct fpu_state *f = &c->s->fpu;
	uint32_t ip = (uint32_t)f->fip, dp = (uint32_t)f->fdp;
	bool is_wide = i->op_bytes != 2;
	uint32_t w[7] = {f->fcw | 0xffff0000u, f->fsw | 0xffff0000u, full_tags(f) | 0xffff0000u};
	if (is_protected(c)) {
		w[3] = ip;
		w[4] = f->fcs | (uint32_t)f->fop << 16;
		w[5] = dp;
		w[6] = f->fds | 0xffff0000u;
	} else if (is_wide) {
		w[3] = (ip & 0xffff) | 0xffff0000u;
		w[4] = (ip >> 16 << 12) | f->fop;
		w[5] = (dp & 0xffff) | 0xffff0000u;
		w[6] = dp >> 16 << 12;
	} else {
		w[3] = ip;
		w[4] = (ip >> 4 & 0xf000) | f->fop;
		w[5] = dp;
		w[6] = dp >> 4 & 0xf000;
	}
	unsigned size_bytes = is_wide ? 4 : 2;
	for (unsigned k = 0; k < 7; k++)
		memcpy(out + k * size_bytes, &w[k], size_bytes);
	return 7 * size_bytes;
}

static unsigned environment_bytes(const struct insn *i)
{
	return i->op_bytes != 2 ? 28 : 14;
}

static void environment_load(struct interp_vcpu *c, const struct insn *i, const uint8_t *in)
{
	struct fpu_state *f = &c->s->fpu;
	bool is_wide = i->op_bytes != 2;
	uint32_t w[7] = {0};
	for (unsigned k = 0; k < 7; k++)
		memcpy(&w[k], in + k * (is_wide ? 4 : 2), is_wide ? 4 : 2);
	f->fcw = fpu_control((uint16_t)w[0]);
	f->fsw = fpu_status((uint16_t)w[1], f->fcw);
	f->ftw = 0;
	for (unsigned k = 0; k < 8; k++)
		if ((w[2] >> 2 * k & 3) != 3)
			f->ftw |= (uint8_t)(1u << k);
	f->fcs = f->fds = 0;
	if (is_protected(c)) {
		f->fip = w[3];
		f->fdp = w[5];
		if (is_wide) /* the short format has no opcode */
			f->fop = w[4] >> 16 & 0x7ff;
		else
			f->fop = 0;
	} else if (is_wide) {
		f->fip = (w[3] & 0xffff) | (w[4] >> 12 & 0xffff) << 16;
		f->fdp = (w[5] & 0xffff) | (w[6] >> 12 & 0xffff) << 16;
		f->fop = w[4] & 0x7ff;
	} else {
		f->fip = w[3] | (w[4] & 0xf000) << 4;
		f->fdp = w[5] | (w[6] & 0xf000) << 4;
		f->fop = w[4] & 0x7ff;
	}
}

HANDLER(op_fnstenv)
{
	host_check(s, i, c, HOST_X87, false);
	uint64_t linear = interp_ea(c, i, environment_bytes(i), ACCESS_WRITE);
	uint8_t bytes[28];
	interp_write_bytes(c, i, linear, bytes, environment_fill(c, i, bytes));
	s->fpu.fcw |= 0x3f;
	s->fpu.fsw = fpu_status(s->fpu.fsw, s->fpu.fcw);
	NEXT;
}

HANDLER(op_fldenv)
{
	host_check(s, i, c, HOST_X87, true);
	uint64_t linear = interp_ea(c, i, environment_bytes(i), ACCESS_READ);
	uint8_t bytes[28];
	interp_read_bytes(c, i, linear, bytes, environment_bytes(i));
	/* The registers stay where they are while TOP moves. */
	uint8_t physical[8][16];
	for (unsigned k = 0; k < 8; k++)
		memcpy(physical[(k + (s->fpu.fsw >> FSW_TOP_SHIFT)) & 7], s->fpu.st[k], 16);
	environment_load(c, i, bytes);
	for (unsigned k = 0; k < 8; k++)
		memcpy(s->fpu.st[k], physical[(k + (s->fpu.fsw >> FSW_TOP_SHIFT)) & 7], 16);
	NEXT;
}

HANDLER(op_fnsave)
{
	host_check(s, i, c, HOST_X87, false);
	unsigned size_bytes = environment_bytes(i) + 80;
	uint64_t linear = interp_ea(c, i, size_bytes, ACCESS_WRITE);
	uint8_t bytes[108];
	unsigned at = environment_fill(c, i, bytes);
	for (unsigned k = 0; k < 8; k++)
		memcpy(bytes + at + 10 * k, s->fpu.st[k], 10);
	interp_write_bytes(c, i, linear, bytes, size_bytes);
	/* TOP becomes 0: what was ST(k) is physical register TOP + k. */
	uint8_t physical[8][16];
	for (unsigned k = 0; k < 8; k++)
		memcpy(physical[(k + (s->fpu.fsw >> FSW_TOP_SHIFT)) & 7], s->fpu.st[k], 16);
	memcpy(s->fpu.st, physical, sizeof(physical));
	fpu_initialise(&s->fpu);
	NEXT;
}

HANDLER(op_frstor)
{
	host_check(s, i, c, HOST_X87, true);
	unsigned size_bytes = environment_bytes(i) + 80;
	uint64_t linear = interp_ea(c, i, size_bytes, ACCESS_READ);
	uint8_t bytes[108];
	interp_read_bytes(c, i, linear, bytes, size_bytes);
	environment_load(c, i, bytes);
	for (unsigned k = 0; k < 8; k++)
		memcpy(s->fpu.st[k], bytes + environment_bytes(i) + 10 * k, 10);
	NEXT;
}

/* ---- small ones ---------------------------------------------------------------------------- */

/* i->sub: enum host_class, SSE or AVX. */
HANDLER(op_ldmxcsr)
{
	host_check(s, i, c, i->sub, false);
	uint32_t value = interp_read_4(c, i, interp_ea(c, i, 4, ACCESS_READ));
	if (value & ~MXCSR_VALID)
		interp_raise_error(c, i, VECTOR_GP, 0);
	s->fpu.mxcsr = value;
	NEXT;
}

HANDLER(op_stmxcsr)
{
	host_check(s, i, c, i->sub, false);
	interp_write_4(c, i, interp_ea(c, i, 4, ACCESS_WRITE), s->fpu.mxcsr);
	NEXT;
}

HANDLER(op_fwait)
{
	if ((s->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		interp_raise(c, i, VECTOR_NM);
	if (s->fpu.fsw & FSW_ES)
		interp_raise(c, i, VECTOR_MF);
	NEXT;
}

HANDLER(op_vzeroupper)
{
	host_check(s, i, c, HOST_AVX, false);
	for (unsigned k = 0; k < vector_count(i); k++)
		memset(&s->fpu.ymm[k][16], 0, 16);
	NEXT;
}

HANDLER(op_vzeroall)
{
	host_check(s, i, c, HOST_AVX, false);
	memset(s->fpu.ymm, 0, 32 * vector_count(i));
	NEXT;
}

/* ---- lowering ------------------------------------------------------------------------------ */

static void with_memory(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS))
{
	l->out->exec = exec;
	for (unsigned k = 0; k < l->d->operand_count; k++)
		if (l->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			lower_memory(l, &l->operands[k]);
			return;
		}
}

static bool lower_mxcsr(struct lowering *l)
{
	bool is_vex = l->d->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR: with_memory(l, op_ldmxcsr); break;
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR: with_memory(l, op_stmxcsr); break;
	case ZYDIS_MNEMONIC_VZEROUPPER: l->out->exec = op_vzeroupper; break;
	case ZYDIS_MNEMONIC_VZEROALL: l->out->exec = op_vzeroall; break;
	default: return false;
	}
	if (is_vex && (!(l->key & KEY_PROTECTED) || (l->key & KEY_V86)))
		return false;
	l->out->sub = is_vex ? HOST_AVX : HOST_SSE;
	return true;
}

bool lower_fpu_state(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE:
		l->out->op_bytes = 4;
		with_memory(l, op_fxsave);
		return true;
	case ZYDIS_MNEMONIC_FXSAVE64:
		l->out->op_bytes = 8;
		with_memory(l, op_fxsave);
		return true;
	case ZYDIS_MNEMONIC_FXRSTOR:
		l->out->op_bytes = 4;
		with_memory(l, op_fxrstor);
		return true;
	case ZYDIS_MNEMONIC_FXRSTOR64:
		l->out->op_bytes = 8;
		with_memory(l, op_fxrstor);
		return true;
	case ZYDIS_MNEMONIC_FNSTENV: with_memory(l, op_fnstenv); return true;
	case ZYDIS_MNEMONIC_FLDENV: with_memory(l, op_fldenv); return true;
	case ZYDIS_MNEMONIC_FNSAVE: with_memory(l, op_fnsave); return true;
	case ZYDIS_MNEMONIC_FRSTOR: with_memory(l, op_frstor); return true;
	case ZYDIS_MNEMONIC_FWAIT: l->out->exec = op_fwait; return true;
	default: return lower_mxcsr(l) || lower_xsave(l);
	}
}
