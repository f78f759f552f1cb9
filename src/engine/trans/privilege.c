/*
 * The ways between ring 3 and ring 0 that a system call takes, from generated code to generated
 * code.
 *
 * Each is what the interpreter does (ring.h), less what cannot matter: nothing is traced, checked
 * for itself or waiting (is_plain). Where something is, helper_end() has the interpreter execute
 * the instruction as any other. Mostly ring_thunk.c has done all this without coming here.
 */
#include "engine/interp/ring.h"
#include "engine/trans/trans_private.h"

/* Nothing to look at before the next instruction, nor at it. */
static bool is_plain(const struct frame *f)
{
	return !f->c->attention && !atomic_load_explicit(f->requests, memory_order_relaxed) &&
	       !f->t->lockstep;
}

/* RIP, CPL and the flags are new. */
static const uint8_t *arrive(struct frame *f)
{
	struct trans_vcpu *t = f->t;
	struct vcpu_state *s = f->state;
	ring_changed(f->c);
	helper_choose_space(t);
	const uint8_t *code = space_recall(t->space, s->rip);
	if (unlikely(!code))
		return helper_go_on(f);
	f->vectors = VECTORS_OUT;
	f->home[0] = s->gpr[GPR_R11];
	f->flags = (uint16_t)(s->flags_low << 8 | s->flags_of);
	return code;
}

static void note_gate(const struct frame *f, struct ring_gate *g)
{
	const struct vcpu_state *s = f->state;
	*g = (struct ring_gate){s->star, s->seg[SEG_CS], s->seg[SEG_SS], true};
}

const uint8_t *privilege_syscall(struct frame *f)
{
	struct interp_vcpu *c = f->c;
	if (unlikely(!is_plain(f) || !(f->state->efer & EFER_SCE)))
		return helper_end(f);
	helper_take(f);
	helper_count(f->t, f);
	ledger_charge(c->ledger, EVENT_GUEST_SYSCALL);
	ring_syscall(c->v, f->linear);
	note_gate(f, &f->t->syscall_gate);
	return arrive(f);
}

const uint8_t *privilege_sysret(struct frame *f)
{
	const struct vcpu_state *s = f->state;
	if (unlikely(!is_plain(f) || !(s->efer & EFER_SCE) || s->cpl ||
		     !vcpu_is_canonical(s, s->gpr[GPR_RCX]) || f->home[0] & (FLAG_TF | FLAG_AC)))
		return helper_end(f);
	helper_take(f);
	helper_count(f->t, f);
	ring_sysret(f->c->v, true);
	note_gate(f, &f->t->sysret_gate);
	return arrive(f);
}
