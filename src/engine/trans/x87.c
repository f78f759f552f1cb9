/*
 * The guest's x87 registers in the host's, while translated code uses them.
 *
 * C does not, so they may stay there while helpers run; whoever looks at the state's x87 part, or
 * leaves generated code, has them put back first (x87_put). They are only there while every
 * exception is masked, for the host must never trap.
 *
 * FIP, FDP and FOP: a processor that notes them only for unmasked exceptions (AMD's) leaves the
 * guest's alone, and so do we. One that always notes them would note addresses of generated code,
 * so there x87 runs translated only if nobody counts on runs that repeat to the bit.
 */
#include "engine/interp/host.h"
#include "engine/trans/translate_private.h"

#define XSAVE_X87 1u

struct x87_area {
	struct fx_image image;
	uint64_t header[8];
};

static void restore(const struct x87_area *area)
{
	__asm__ volatile("xrstor64 %0" : : "m"(*area), "a"(XSAVE_X87), "d"(0));
}

static void save(struct x87_area *area)
{
	__asm__ volatile("xsave64 %0\n\tfninit" : "+m"(*area) : "a"(XSAVE_X87), "d"(0));
}

bool x87_notes_pointers(void)
{
	_Alignas(64) struct x87_area area = {.image.fcw = FCW_DEFAULT, .header = {XSAVE_X87}};
	if (!__builtin_cpu_supports("avx")) /* then there is XSAVE, and its use is enabled */
		return true;
	restore(&area);
	__asm__ volatile("fld1");
	save(&area);
	return area.image.fip != 0;
}

bool x87_take(struct frame *f)
{
	const struct vcpu_state *s = f->state;
	const struct fpu_state *fpu = &s->fpu;
	if (s->cr0 & (CR0_EM | CR0_TS) || (fpu->fcw & 0x3f) != 0x3f || fpu->fsw & FSW_ES)
		return false;
	_Alignas(64) struct x87_area area = {.header = {XSAVE_X87}};
	fpu_x87_to_image(fpu, &area.image, true);
	area.image.fip = area.image.fdp = 0;
	area.image.fop = 0;
	restore(&area);
	f->x87 = true;
	return true;
}

void x87_put(struct frame *f)
{
	_Alignas(64) struct x87_area area;
	struct fpu_state *fpu = &f->state->fpu;
	if (!f->x87)
		return;
	memset(&area, 0, sizeof(area));
	save(&area);
	f->x87 = false;
	if (!(area.header[0] & XSAVE_X87)) { /* in its initial state: not stored */
		memset(&area.image, 0, sizeof(area.image));
		area.image.fcw = FCW_DEFAULT;
	}
	area.image.fop = fpu->fop;
	area.image.fip = fpu->fip;
	area.image.fdp = fpu->fdp;
	uint16_t fcs = fpu->fcs, fds = fpu->fds;
	fpu_x87_from_image(fpu, &area.image, true);
	fpu->fcs = fcs;
	fpu->fds = fds;
}

bool is_x87(const struct guest_insn *g)
{
	if (g->d.meta.isa_ext != ZYDIS_ISA_EXT_X87 && g->d.mnemonic != ZYDIS_MNEMONIC_FISTTP)
		return false;
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR: return false;
	default: return true;
	}
}

/* FLDCW must not unmask anything on the host. */
bool translate_fldcw(struct work *w)
{
	struct guest_address a;
	struct emitter *e = &w->e;
	if (!address_of(w->g, &w->g->operands[0], &a))
		return false;
	struct host_memory at = access_in_t0(w, access_emit(w, &a, 2, false));
	emit_rm(e, EMIT_0F, 0xb7, HOST_T1, at); /* movzx r14d, word */
	emit_rr(e, 0, 0xf7, 2, HOST_T1);	/* not */
	emit_rr(e, 0, 0xf7, 0, HOST_T1);	/* test */
	emit_word(e, 0x3f);
	add_rare(w, CONDITION_NE);
	emit_rm(e, 0, 0xd9, 5, at);
	return true;
}
