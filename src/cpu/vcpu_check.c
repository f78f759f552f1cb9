/*
 * Is a vcpu's state one that a processor of this model could be in? Asked of every state that comes
 * from a file before an engine sees it.
 *
 * Engines keep the invariants checked here by never letting a guest break them (a MOV to CR4 with a
 * bit that the model lacks is #GP), and rely on them: modes that exclude each other, indices that
 * are in range, control words that the host's own instructions will load. What merely makes no
 * sense, such as a segment that ends before it begins, faults as it would have for the guest's own
 * doing, and is not checked.
 */
#include <errno.h>

#include "base/error.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"

#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)
#define MXCSR_KNOWN 0xffffu

static int bad(struct error *e, const char *what, uint64_t value)
{
	return error_set(e, -EINVAL, "%s is %#llx, which this processor cannot have", what,
			 (unsigned long long)value);
}

static int check_small(const struct vcpu_state *s, struct error *e)
{
	if (s->cpl > 3)
		return bad(e, "CPL", s->cpl);
	if (s->activity > ACTIVITY_SHUTDOWN)
		return bad(e, "the activity", s->activity);
	if (s->interrupt_shadow > SHADOW_MOV_SS)
		return bad(e, "the interrupt shadow", s->interrupt_shadow);
	if (s->flags_of > 1)
		return bad(e, "OF", s->flags_of);
	if (s->nmi_blocked > 1 || s->nmi_pending > 1 || s->init_pending > 1 || s->sipi_pending > 1)
		return error_set(e, -EINVAL, "a pending event is neither there nor not there");
	if (s->gpr[16])
		return bad(e, "the register that is always 0", s->gpr[16]);
	if (s->fpu.mxcsr & ~MXCSR_KNOWN)
		return bad(e, "MXCSR", s->fpu.mxcsr);
	return 0;
}

static int check_control(const struct vcpu_state *s, const struct cpu_model *model, struct error *e)
{
	uint64_t xcr0_known = cpu_xcr0_mask(model) | XCR0_X87;
	if ((s->cr0 & ~CR0_KNOWN) || ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE)))
		return bad(e, "CR0", s->cr0);
	if (s->cr3 >> model->physical_bits)
		return bad(e, "CR3", s->cr3);
	if (s->cr4 & ~cpu_cr4_mask(model))
		return bad(e, "CR4", s->cr4);
	if (s->efer & ~cpu_efer_mask(model))
		return bad(e, "EFER", s->efer);
	if ((s->xcr0 & ~xcr0_known) || !(s->xcr0 & XCR0_X87) ||
	    ((s->xcr0 & XCR0_AVX) && !(s->xcr0 & XCR0_SSE)))
		return bad(e, "XCR0", s->xcr0);
	return 0;
}

static int check_modes(const struct vcpu_state *s, struct error *e)
{
	bool is_paged = (s->cr0 & CR0_PG) != 0, is_long = (s->efer & EFER_LMA) != 0;
	if (is_long != (is_paged && (s->efer & EFER_LME)) || (is_long && !(s->cr4 & CR4_PAE)))
		return error_set(e, -EINVAL, "EFER, CR0 and CR4 do not agree on long mode");
	if ((s->rflags & FLAG_VM) && (is_long || !(s->cr0 & CR0_PE) || s->cpl != 3))
		return error_set(e, -EINVAL, "virtual 8086 mode outside of 32-bit ring 3");
	if (!(s->cr0 & CR0_PE) && s->cpl)
		return error_set(e, -EINVAL, "CPL is %u in real mode", s->cpl);
	return 0;
}

int vcpu_state_check(const struct vcpu_state *s, const struct cpu_model *model, struct error *e)
{
	int r = check_small(s, e);
	if (!r)
		r = check_control(s, model, e);
	return r ? r : check_modes(s, e);
}
