/*
 * Groups: neighbouring instructions that access memory off the same base register, with a constant
 * displacement each, share one look-up of the window that holds them all.
 *
 * A group is executed without looking anything up in between: what its first look-up found stays
 * right because no C runs before its end, and nothing in it can fault any more. If the window is
 * not in one page, or may not be accessed as the group's most demanding member wants, the group's
 * instructions are executed one by one instead, each with its own look-up, by code behind the
 * block. So a group changes neither which faults there are nor their order.
 */
#include <assert.h>

#include "engine/trans/translate_private.h"

#define WINDOW_BYTES_MAX 256

struct window {
	int8_t base;
	int64_t low, high;
	bool is_write;
	unsigned members; /* that access memory */
	unsigned count;	  /* instructions, up to the last of them */
};

/* Does `i` access memory in a way that a window can serve? */
static bool is_member(const struct copied *i)
{
	return i->has_memory && !i->is_aligned && i->a.base != GPR_NONE && i->a.index == GPR_NONE &&
	       !i->a.is_32bit && i->a.seg != SEG_FS && i->a.seg != SEG_GS;
}

/* Takes an access into the window. False: it has another base, or lies too far away. */
static bool widen(struct window *v, const struct copied *i)
{
	int64_t low = i->a.disp < v->low ? i->a.disp : v->low;
	int64_t end = i->a.disp + i->size_bytes;
	int64_t high = end > v->high ? end : v->high;
	if (!is_member(i) || i->a.base != v->base || high - low > WINDOW_BYTES_MAX)
		return false;
	v->low = low;
	v->high = high;
	v->is_write |= i->is_write;
	v->members++;
	return true;
}

static struct window find_window(const struct work *w, unsigned left)
{
	struct window v = {0};
	for (unsigned k = 0; k < left; k++) {
		const struct guest_insn *g = w->g + k;
		struct copied i = {0};
		if (!g->is_decoded || (!is_nothing(g) && !copy_describe(w, g, &i)))
			break;
		if (!k) {
			if (!is_member(&i))
				break;
			v.base = i.a.base;
			v.low = v.high = i.a.disp;
		}
		if (widen(&v, &i))
			v.count = k + 1;
		else if (i.has_memory)
			break;
		if (i.written & 1u << v.base)
			break;
	}
	return v;
}

struct host_memory group_operand(const struct work *w, const struct guest_address *a)
{
	return (struct host_memory){
		.base = HOST_T0, .index = NO_INDEX, .disp = (int32_t)(a->disp - w->window_disp)};
}

unsigned translate_group(struct work *w, unsigned left)
{
	const struct guest_insn *first = w->g;
	struct window v = find_window(w, left);
	if (v.members < 2)
		return 0;
	const struct guest_address a = {
		.base = v.base, .index = GPR_NONE, .disp = v.low, .seg = SEG_DS};
	struct slow *s = access_emit_window(w, &a, (unsigned)(v.high - v.low), v.is_write);
	s->first = first->index;
	s->count = (uint8_t)v.count;
	w->has_window = true;
	w->window_disp = (int32_t)v.low;
	for (unsigned k = 0; k < v.count; k++) {
		w->g = first + k;
		if (!is_nothing(w->g) && !translate_copied(w))
			assert(!"copy_describe() knows what is copied");
	}
	w->has_window = false;
	s->after = w->e.at;
	s->flags = w->flags;
	return v.count;
}

void group_emit_slow(struct work *w, const struct slow *s)
{
	w->flags = FLAGS_FRAME;
	w->is_flags_kept = false;
	for (unsigned k = 0; k < s->count; k++) {
		w->g = &w->trans->insns[s->first + k];
		w->slow_of_insn = w->slow_count;
		translate_one(w);
	}
	w->is_flags_kept = true;
	if (s->flags != FLAGS_HOST)
		flags_to_frame(w);
	if (s->flags != FLAGS_FRAME)
		flags_to_host(w);
	emit_jmp(&w->e, s->after + w->e.to_running);
	w->g = NULL;
}
