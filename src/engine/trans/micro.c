/*
 * Look-ups that ask one entry first: the space's micro-TLB.
 *
 * Nearly all accesses through RSP lie in one page, the top of the stack. A space has an entry for
 * it (struct micro in space.h), which is always the same, so that a look-up need not compute where
 * it is, nor has the page's host address to wait for the guest's: five instructions instead of
 * seven. What fails there goes to code behind the block, where the entry takes over what the TLB
 * has of the page, if it may be written, and the ordinary look-up follows.
 *
 * Who knows that an entry is right: it is a copy of one of its space's TLB, and the functions of
 * space.c that take one of those away or its right to write take the copy, too. Another space is
 * another GS, and so another copy. So nothing has to be done when C comes back to generated code.
 */
#include "engine/trans/translate_private.h"

bool micro_is_for(const struct work *w, const struct guest_address *a)
{
	bool is_stack = a->base == GPR_RSP && a->index == GPR_NONE && !a->is_bit_string;
	return is_stack && a->seg != SEG_FS && a->seg != SEG_GS && !w->is_behind &&
	       w->miss_count < MISSES_MAX;
}

struct look_up micro_look_up(struct work *w, const struct guest_address *a, unsigned size_bytes,
			     bool is_write, bool is_aligned)
{
	struct emitter *e = &w->e;
	access_address(w, a);
	emit_rm(e, EMIT_W, 0x33, HOST_T1, space_at(offsetof(struct space, stack.tag))); /* xor */
	uint8_t *patch = access_emit_check(e, size_bytes, is_aligned);
	emit_load(e, HOST_T0, space_at(offsetof(struct space, stack.page)));
	w->misses[w->miss_count++] = (struct miss){
		.patch = patch,
		.after = e->at,
		.a = *a,
		.size_bytes = (uint16_t)size_bytes,
		.is_write = is_write,
		.is_aligned = is_aligned,
		.mode = (uint8_t)w->asked,
	};
	return (struct look_up){.operand = AT_OPERAND, .patch = patch, .tag = access_tag(is_write)};
}

/* The entry has failed: the ordinary look-up, and where that fails to where the first would have
 * led. */
static void emit_miss(struct work *w, const struct miss *m)
{
	struct emitter *e = &w->e;
	const uint8_t *to = emit_target_of(m->patch);
	ask_space(w, m->mode);
	emit_patch(m->patch, e->at);
	access_address(w, &m->a);
	emit_byte(e, 0xe8); /* call */
	emit_rel32(e, w->trans->take_micro[m->mode]);
	place_add(w, PLACE_THUNK, e->at - 4);
	struct look_up l = access_emit_ordinary(w, m->size_bytes, m->is_write, m->is_aligned);
	emit_patch(l.patch, to);
	emit_patch(emit_jmp_forward(e), m->after);
}

void micro_emit_misses(struct work *w)
{
	for (unsigned k = 0; k < w->miss_count; k++)
		emit_miss(w, &w->misses[k]);
}
