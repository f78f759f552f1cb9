/*
 * Shared look-ups: accesses of one trace whose addresses lie a known, small distance apart
 * (value.c) share the look-up of the window that holds them all, and its host address is kept, in
 * T0 while nothing else wants T0, in a slot of the frame after that. Those of a table whose index
 * is bounded have a window that holds all of the table, and add the index to its host address.
 *
 * Windows that overlap in time make a region. A region runs without calling C: what its look-ups
 * found stays right to its end because nothing can take it away, and nothing but a look-up can
 * fail. What fails, because a window is not within one page, may not be accessed as its most
 * demanding member wants, or is not in the TLB, leads to a second copy of the region behind the
 * block, at the very instruction, where each has its own look-up and goes its own slow way. So
 * shared look-ups change neither which faults there are nor their order. A look-up that shares
 * with nobody leads there as well while it lies in a region.
 */
#include "engine/trans/translate_private.h"

/* ---- planning ---- */

/* Takes what the access must be aligned to into what the window must. False: they do not agree. */
static bool align(struct window *v, const struct access *i)
{
	unsigned least = v->align && v->align < i->size_bytes ? v->align : i->size_bytes;
	if (!i->is_aligned)
		return true;
	if (v->align && (i->at - v->aligned_at) & (least - 1))
		return false;
	if (i->size_bytes > v->align) {
		v->align = i->size_bytes;
		v->aligned_at = i->at;
	}
	return true;
}

static bool widen(struct window *v, const struct access *i, unsigned index)
{
	int64_t low = i->at < v->low ? i->at : v->low;
	int64_t high = access_end(i) > v->high ? access_end(i) : v->high;
	bool is_long = v->is_long || i->is_long;
	if (i->origin != v->origin ||
	    (high - low > WINDOW_BYTES_MAX && !(is_long && access_is_in_page(i, low, high))) ||
	    !align(v, i))
		return false;
	v->low = low;
	v->high = high;
	v->is_long = is_long;
	v->is_write |= i->is_write;
	v->last = (uint8_t)index;
	v->uses++;
	return true;
}

/* The newest window that takes the access in, or a new one. */
static void find_window(struct work *w, unsigned index)
{
	const struct access *i = &w->accesses[index];
	w->window_of[index] = WINDOW_NONE;
	if (!i->size_bytes || !i->origin)
		return;
	unsigned k = w->window_count;
	while (k > 0 && !widen(&w->windows[k - 1], i, index))
		k--;
	if (!k) {
		k = ++w->window_count;
		w->windows[k - 1] = (struct window){
			.origin = i->origin, .low = i->at, .high = i->at, .first = (uint8_t)index};
		widen(&w->windows[k - 1], i, index);
	}
	w->window_of[index] = (uint8_t)(k - 1);
}

/* Gives it a slot of the frame for as long as it is used. */
static bool take_slot(struct window *v, uint8_t *busy_until)
{
	for (unsigned k = 0; k < WINDOW_SLOTS; k++)
		if (busy_until[k] <= v->first) {
			busy_until[k] = v->last;
			v->slot = (uint8_t)k;
			v->left = v->uses;
			return true;
		}
	return false;
}

/* Takes the window into the last region, if it begins there, or into a new one. */
static void add_to_regions(struct work *w, const struct window *v)
{
	struct region *r = w->region_count ? &w->regions[w->region_count - 1] : NULL;
	if (!r || v->first > r->last) {
		r = &w->regions[w->region_count++];
		*r = (struct region){.first = v->first};
	}
	if (v->last > r->last)
		r->last = v->last;
}

void group_plan(struct work *w)
{
	uint8_t busy_until[WINDOW_SLOTS] = {0};
	for (unsigned k = 0; k < w->count; k++)
		find_window(w, k);
	for (unsigned k = 0; k < w->window_count; k++) {
		struct window *v = &w->windows[k];
		if (v->align) /* which keeps it in its page */
			v->low -= (v->low - v->aligned_at) & (v->align - 1);
		if (v->uses > 1 && take_slot(v, busy_until))
			add_to_regions(w, v);
		else
			v->uses = 0;
	}
}

/* ---- translating ---- */

void group_free_t1(struct work *w)
{
	if (w->adds_later && w->in_t0->left)
		emit_lea(&w->e, HOST_T0, AT_OPERAND);
	w->adds_later = false;
}

void group_begin(struct work *w)
{
	unsigned index = w->g->index;
	if (w->adds_later && !copy_spares_t1(w, w->g))
		group_free_t1(w);
	for (unsigned k = 0; !w->region && k < w->region_count; k++)
		if (w->regions[k].first == index) {
			w->region = &w->regions[k];
			add_slow(w, SLOW_GROUP, NULL)->region = w->region;
		}
	if (w->region && stack_step_of(w->g) == STACK_OTHER)
		stack_settle(w);
}

void group_end(struct work *w)
{
	if (w->region && w->region->last == w->g->index)
		group_leave(w);
}

void group_leave(struct work *w)
{
	struct region *r = w->region;
	if (!r)
		return;
	stack_settle(w);
	r->after = w->e.at;
	r->flags = w->flags;
	w->region = NULL;
	w->in_t0 = NULL;
	w->adds_later = false;
}

void group_free_t0(struct work *w)
{
	struct window *v = w->in_t0;
	group_free_t1(w);
	if (v && v->left && !v->is_in_slot) {
		emit_store(&w->e, frame_slot(offsetof(struct frame, windows) + 8 * v->slot),
			   HOST_T0);
		v->is_in_slot = true;
	}
	w->in_t0 = NULL;
	if (w->loop)
		w->loop->in_t0 = STREAM_NONE;
}

static struct host_memory look_up(struct work *w, const struct guest_address *a,
				  unsigned size_bytes, bool is_write, bool is_aligned)
{
	stack_settle(w);
	flags_to_frame(w);
	group_free_t0(w);
	struct look_up l = access_look_up(w, a, size_bytes, is_write, is_aligned);
	w->entries[w->g->index][0] = l.patch;
	return l.operand;
}

/* T0 = the host address of `low`, or T0 + T1 if that may be: who waits for an access, as a walk
 * along a list does, need not wait for the sum. */
static void open_window(struct work *w, struct window *v, const struct guest_address *a)
{
	const struct access *i = &w->accesses[w->g->index];
	struct guest_address b = i->bounded == GPR_NONE ? *a : access_without(a, i->bounded);
	b.disp += v->low - (i->at - i->skew);
	struct host_memory at = look_up(w, &b, (unsigned)(v->high - v->low), v->is_write, false);
	if (at.index == NO_INDEX) { /* a fixed one: T0 is the page */
		v->low -= at.disp;
		return;
	}
	if (v->align) {
		emit_rr(&w->e, 0, 0xf6, 0, HOST_T1); /* test byte */
		emit_byte(&w->e, v->align - 1u);
		w->entries[w->g->index][1] = emit_jcc_forward(&w->e, CONDITION_NE);
	}
	if (w->may_add_later && i->bounded == GPR_NONE)
		w->adds_later = true;
	else
		access_in_t0(w, at);
}

/* `m` is where an access of a table would be if its index were 0. */
static struct host_memory add_index(struct work *w, const struct access *i, struct host_memory m)
{
	m.index = (int8_t)register_or_load(w, i->bounded, HOST_T1);
	m.shift = i->shift;
	if (m.index != HOST_T1 || w->may_add_later)
		return m;
	group_free_t0(w); /* T1 is wanted, too */
	emit_lea(&w->e, HOST_T0, m);
	return at_t0(0);
}

struct host_memory group_access(struct work *w, const struct guest_address *a, unsigned size_bytes,
				bool is_write, bool is_aligned)
{
	unsigned index = w->g->index, n = w->window_of[index];
	struct window *v = n == WINDOW_NONE ? NULL : &w->windows[n];
	if (!v || !v->uses)
		return look_up(w, a, size_bytes, is_write, is_aligned);
	if (v->first == index) {
		open_window(w, v, a);
	} else if (w->in_t0 != v) {
		group_free_t0(w);
		emit_load(&w->e, HOST_T0,
			  frame_slot(offsetof(struct frame, windows) + 8 * v->slot));
	}
	w->in_t0 = v;
	const struct access *i = &w->accesses[index];
	if (i->bounded != GPR_NONE)
		group_free_t1(w);
	v->left--;
	struct host_memory m = {.base = HOST_T0,
				.index = w->adds_later ? HOST_T1 : NO_INDEX,
				.disp = (int32_t)(i->at - i->skew - v->low)};
	return i->bounded == GPR_NONE ? m : add_index(w, i, m);
}

/* ---- the second copy ---- */

/* An instruction, but for where it leads. */
static void repeat(struct work *w)
{
	bool is_end = w->g->index + 1u == w->count;
	w->slow_of_insn = w->slow_count;
	if (w->g->goes_on)
		translate_inner_branch(w);
	else if (is_end && w->g->d.mnemonic == ZYDIS_MNEMONIC_CALL)
		emit_push_return(w);
	else if (is_end && w->g->d.mnemonic == ZYDIS_MNEMONIC_RET)
		emit_pop_return(w);
	else
		translate_one(w);
}

void group_emit_slow(struct work *w, const struct slow *s)
{
	struct region *r = s->region;
	w->flags = FLAGS_FRAME;
	w->is_flags_kept = false;
	for (unsigned k = r->first; k <= r->last; k++) {
		w->g = &w->trans->insns[k];
		if (w->entries[k][0]) { /* with the flags in the frame */
			flags_to_frame(w);
			flags_lost(w);
		}
		for (unsigned n = 0; n < ENTRIES_MAX; n++)
			if (w->entries[k][n])
				emit_patch(w->entries[k][n], w->e.at);
		repeat(w);
	}
	w->is_flags_kept = true;
	if (r->flags != FLAGS_HOST)
		flags_to_frame(w);
	if (r->flags != FLAGS_FRAME)
		flags_to_host(w);
	emit_jmp(&w->e, r->after + w->e.to_running);
	w->g = NULL;
}
