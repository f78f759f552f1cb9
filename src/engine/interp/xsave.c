/*
 * The XSAVE family (SDM 1 chapter 13), for the components x87, SSE and AVX.
 *
 * The area: 512 bytes as FXSAVE has them, 64 bytes of header, 256 bytes for the upper halves of the
 * YMM registers (in the compacted format, too: it is the only extended component). What an
 * instruction does not save it does not write. XINUSE is exact: a component is in use if it differs
 * from its initial configuration. The modified optimisation, which a processor may make, is never
 * made.
 */
#include "engine/interp/host.h"

#include <string.h>

#define HEADER_OFFSET 512u
#define AVX_OFFSET 576u
#define AREA_BYTES 832u
#define XCOMP_COMPACTED BIT(63)

enum save_kind { SAVE_PLAIN, SAVE_OPT, SAVE_COMPACTED, SAVE_SUPERVISOR };

struct header {
	uint64_t xstate_bv, xcomp_bv, reserved[6];
};

static unsigned vector_count(const struct insn *i)
{
	return i->mode == 64 ? 16 : 8;
}

static bool is_all_zero(const void *bytes, size_t count)
{
	const uint8_t *b = bytes;
	return !count || (!b[0] && !memcmp(b, b + 1, count - 1));
}

static uint64_t in_use(const struct fpu_state *f, unsigned vectors)
{
	uint64_t used = 0;
	if (f->fcw != FCW_DEFAULT || f->fsw || f->ftw || f->fop || f->fip || f->fdp || f->fcs ||
	    f->fds || !is_all_zero(f->st, sizeof(f->st)))
		used |= XCR0_X87;
	for (unsigned k = 0; k < vectors; k++) {
		if (!is_all_zero(f->ymm[k], 16))
			used |= XCR0_SSE;
		if (!is_all_zero(f->ymm[k] + 16, 16))
			used |= XCR0_AVX;
	}
	return used;
}

static void check(HANDLER_ARGUMENTS, bool is_supervisor)
{
	if (!(s->cr4 & CR4_OSXSAVE))
		interp_raise(c, i, VECTOR_UD);
	if (s->cr0 & CR0_TS)
		interp_raise(c, i, VECTOR_NM);
	if (is_supervisor && s->cpl)
		interp_raise_error(c, i, VECTOR_GP, 0);
}

static uint64_t area_address(HANDLER_ARGUMENTS, uint64_t components, enum access_kind kind)
{
	unsigned size_bytes = components & XCR0_AVX ? AREA_BYTES : AVX_OFFSET;
	uint64_t linear = interp_ea(c, i, size_bytes, kind);
	if (linear & 63)
		interp_raise_error(c, i, VECTOR_GP, 0);
	return linear;
}

static uint64_t requested(const struct vcpu_state *s)
{
	uint64_t mask = (s->gpr[GPR_RDX] << 32) | (uint32_t)s->gpr[GPR_RAX];
	return mask & s->xcr0;
}

/* Walks the parts of an area that are saved: first to see that each can be written, then to write.
 */
struct saving {
	struct interp_vcpu *c;
	const struct insn *i;
	uint64_t area;
	bool is_probe;
};

static void save_part(const struct saving *w, uint64_t offset, const void *bytes, size_t count)
{
	if (w->is_probe)
		interp_probe_write(w->c, w->i, w->area + offset, (unsigned)count);
	else
		interp_write_bytes(w->c, w->i, w->area + offset, bytes, (unsigned)count);
}

static void save_components(const struct saving *w, uint64_t saved, bool with_mxcsr)
{
	const struct fpu_state *f = &w->c->s->fpu;
	unsigned vectors = vector_count(w->i);
	struct fx_image m;
	uint8_t halves[16][16];
	fpu_x87_to_image(f, &m, w->i->op_bytes == 8);
	m.mxcsr = f->mxcsr;
	m.mxcsr_mask = MXCSR_VALID;
	for (unsigned k = 0; k < vectors; k++) {
		memcpy(m.xmm[k], f->ymm[k], 16);
		memcpy(halves[k], f->ymm[k] + 16, 16);
	}
	if (saved & XCR0_X87) {
		save_part(w, 0, &m, offsetof(struct fx_image, mxcsr));
		save_part(w, offsetof(struct fx_image, st), m.st, sizeof(m.st));
	}
	if (with_mxcsr)
		save_part(w, offsetof(struct fx_image, mxcsr), &m.mxcsr, 8);
	if (saved & XCR0_SSE)
		save_part(w, offsetof(struct fx_image, xmm), m.xmm, 16 * vectors);
	if (saved & XCR0_AVX)
		/* Outside 64-bit mode half of the component is kept, but all of it is checked. */
		save_part(w, AVX_OFFSET, halves, w->is_probe ? sizeof(halves) : 16 * vectors);
}

/* i->sub: enum save_kind. */
HANDLER(op_xsave)
{
	check(s, i, c, i->sub == SAVE_SUPERVISOR);
	uint64_t mask = requested(s);
	bool is_compacted = i->sub >= SAVE_COMPACTED;
	uint64_t used = in_use(&s->fpu, vector_count(i)) & mask;
	if (is_compacted && (mask & XCR0_SSE) && s->fpu.mxcsr != MXCSR_DEFAULT)
		used |= XCR0_SSE;
	uint64_t saved = i->sub == SAVE_PLAIN ? mask : used;
	bool with_mxcsr = is_compacted ? (saved & XCR0_SSE) != 0
				       : (mask & (XCR0_SSE | XCR0_AVX)) != 0;
	struct saving w = {.c = c, .i = i, .is_probe = true};
	w.area = area_address(s, i, c, mask, ACCESS_WRITE);
	save_components(&w, saved, with_mxcsr);
	interp_probe_write(c, i, w.area + HEADER_OFFSET, is_compacted ? 16 : 8);
	uint64_t header[2] = {used, mask | XCOMP_COMPACTED};
	if (!is_compacted)
		header[0] |= interp_read_8(c, i, w.area + HEADER_OFFSET) & ~mask;
	w.is_probe = false;
	save_components(&w, saved, with_mxcsr);
	interp_write_bytes(c, i, w.area + HEADER_OFFSET, header, is_compacted ? 16 : 8);
	NEXT;
}

/* #GP for what XRSTOR does not accept in a header. */
static bool is_header_good(const struct header *h, uint64_t xcr0, bool needs_compacted)
{
	if (h->xcomp_bv & XCOMP_COMPACTED) {
		uint64_t format = h->xcomp_bv & ~XCOMP_COMPACTED;
		return !(format & ~xcr0) && !(h->xstate_bv & ~format) &&
		       is_all_zero(h->reserved, sizeof(h->reserved));
	}
	return !needs_compacted && !(h->xstate_bv & ~xcr0) && !h->xcomp_bv && !h->reserved[0];
}

static void restore_vectors(struct fpu_state *f, uint64_t mask, uint64_t present,
			    const uint8_t *area, unsigned vectors)
{
	for (unsigned k = 0; k < vectors; k++) {
		if (mask & XCR0_SSE) {
			if (present & XCR0_SSE)
				memcpy(f->ymm[k], area + offsetof(struct fx_image, xmm) + 16 * k,
				       16);
			else
				memset(f->ymm[k], 0, 16);
		}
		if (mask & XCR0_AVX) {
			if (present & XCR0_AVX)
				memcpy(f->ymm[k] + 16, area + AVX_OFFSET + 16 * k, 16);
			else
				memset(f->ymm[k] + 16, 0, 16);
		}
	}
}

/* Reads what the components in `mask` need, in the processor's order: the legacy region is touched
 * before the header is judged. */
static void read_area(HANDLER_ARGUMENTS, uint64_t mask, uint64_t linear, uint8_t area[AREA_BYTES])
{
	struct header h;
	if (mask & XCR0_X87)
		interp_read_bytes(c, i, linear, area, offsetof(struct fx_image, xmm));
	else if (mask)
		interp_read_bytes(c, i, linear + offsetof(struct fx_image, mxcsr),
				  area + offsetof(struct fx_image, mxcsr), 8);
	interp_read_bytes(c, i, linear + HEADER_OFFSET, area + HEADER_OFFSET, sizeof(h));
	memcpy(&h, area + HEADER_OFFSET, sizeof(h));
	if (!is_header_good(&h, s->xcr0, i->sub))
		interp_raise_error(c, i, VECTOR_GP, 0);
	if (mask & h.xstate_bv & XCR0_SSE)
		interp_read_bytes(c, i, linear + offsetof(struct fx_image, xmm),
				  area + offsetof(struct fx_image, xmm), 16 * vector_count(i));
	if (mask & h.xstate_bv & XCR0_AVX)
		interp_read_bytes(c, i, linear + AVX_OFFSET, area + AVX_OFFSET,
				  16 * vector_count(i));
}

/* i->sub: is it XRSTORS. */
HANDLER(op_xrstor)
{
	check(s, i, c, i->sub);
	uint64_t mask = requested(s);
	uint64_t linear = area_address(s, i, c, mask, ACCESS_READ);
	struct header h;
	_Alignas(64) uint8_t area[AREA_BYTES] = {0};
	read_area(s, i, c, mask, linear, area);
	memcpy(&h, area + HEADER_OFFSET, sizeof(h));
	const struct fx_image *m = (const struct fx_image *)(const void *)area;
	bool is_compacted = h.xcomp_bv & XCOMP_COMPACTED;
	bool with_mxcsr = is_compacted ? (mask & h.xstate_bv & XCR0_SSE) != 0
				       : (mask & (XCR0_SSE | XCR0_AVX)) != 0;
	if (with_mxcsr && (m->mxcsr & ~MXCSR_VALID))
		interp_raise_error(c, i, VECTOR_GP, 0);

	struct fpu_state *f = &s->fpu;
	if (mask & XCR0_X87) {
		if (h.xstate_bv & XCR0_X87) {
			fpu_x87_from_image(f, m, i->op_bytes == 8);
		} else {
			fpu_initialise(f);
			memset(f->st, 0, sizeof(f->st));
		}
	}
	restore_vectors(f, mask, h.xstate_bv, area, vector_count(i));
	if (with_mxcsr)
		f->mxcsr = m->mxcsr;
	else if (is_compacted && (mask & XCR0_SSE))
		f->mxcsr = MXCSR_DEFAULT;
	NEXT;
}

static bool as(struct lowering *l, void (*exec)(HANDLER_ARGUMENTS), unsigned sub, bool is_64bit)
{
	l->out->exec = exec;
	l->out->sub = (uint8_t)sub;
	l->out->op_bytes = is_64bit ? 8 : 4;
	for (unsigned k = 0; k < l->d->operand_count; k++)
		if (l->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			lower_memory(l, &l->operands[k]);
			return true;
		}
	return false;
}

bool lower_xsave(struct lowering *l)
{
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_XSAVE: return as(l, op_xsave, SAVE_PLAIN, false);
	case ZYDIS_MNEMONIC_XSAVE64: return as(l, op_xsave, SAVE_PLAIN, true);
	case ZYDIS_MNEMONIC_XSAVEOPT: return as(l, op_xsave, SAVE_OPT, false);
	case ZYDIS_MNEMONIC_XSAVEOPT64: return as(l, op_xsave, SAVE_OPT, true);
	case ZYDIS_MNEMONIC_XSAVEC: return as(l, op_xsave, SAVE_COMPACTED, false);
	case ZYDIS_MNEMONIC_XSAVEC64: return as(l, op_xsave, SAVE_COMPACTED, true);
	case ZYDIS_MNEMONIC_XSAVES: return as(l, op_xsave, SAVE_SUPERVISOR, false);
	case ZYDIS_MNEMONIC_XSAVES64: return as(l, op_xsave, SAVE_SUPERVISOR, true);
	case ZYDIS_MNEMONIC_XRSTOR: return as(l, op_xrstor, false, false);
	case ZYDIS_MNEMONIC_XRSTOR64: return as(l, op_xrstor, false, true);
	case ZYDIS_MNEMONIC_XRSTORS: return as(l, op_xrstor, true, false);
	case ZYDIS_MNEMONIC_XRSTORS64: return as(l, op_xrstor, true, true);
	default: return false;
	}
}
