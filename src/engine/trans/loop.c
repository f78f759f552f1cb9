/*
 * Inner loops: a translation that ends by branching to its own start, and whose addresses move by
 * the same number of bytes in each iteration or not at all, has its body a second time, without
 * look-ups, budget and the moves of flags that they need.
 *
 * Accesses whose addresses differ by a small constant are a stream. On the way into the inner body
 * each stream is looked up once, and from where it stands in its page follows how many iterations
 * stay there. The fewest of them, or of those that the budget has, is charged at once, and the
 * inner body runs until a register that moves in each iteration, the counter, has the value that it
 * then must have; then it is on the way in again. Who leaves earlier gives back what was not run.
 *
 * In between nothing can fault and no C runs, so what the look-ups found stays right, as in a group
 * (group.c). A look-up that fails, and any iteration with an access that lies in two pages, is the
 * ordinary body's, which also runs the first few: many loops have no more.
 *
 * An access of a table by a bounded index (value.c) moves anyhow but stays in the table: that is
 * the window of its stream, if the table does not move.
 *
 * A stream has a slot in the frame. If its address moves that is what makes a host address of the
 * guest's; otherwise it is the host address itself.
 */
#include <assert.h>

#include "engine/trans/translate_private.h"

#define STRIDE_MAX 1024
#define STEP_MAX (1 << 20)
/* Where no stream says how many. */
#define FREE_ITERATIONS 1024
/* So many iterations run the ordinary body first: a short loop is not worth the way in. */
#define PATIENCE 4

/* ---- what there is ---- */

/* Does the instruction do nothing but add a constant to a register? */
static bool is_step(const struct guest_insn *g, int *guest, int64_t *by)
{
	int from;
	return value_find_sum(g, guest, &from, by) && from == *guest && *by >= -STEP_MAX &&
	       *by <= STEP_MAX;
}

/* What moves how far in an iteration. False: there is something in it that the inner body cannot
 * have. */
static bool find_steps(const struct work *w, struct loop *l)
{
	for (unsigned k = 0; k + 1 < w->count; k++) {
		const struct guest_insn *g = &w->trans->insns[k];
		struct copied i;
		int guest;
		int64_t by;
		if (!g->is_decoded || (g->goes_on && g->d.mnemonic == ZYDIS_MNEMONIC_CALL))
			return false;
		if (g->goes_on || is_nothing(g))
			continue;
		if (!copy_describe(w, g, &i))
			return false;
		if (is_step(g, &guest, &by))
			l->step[guest] += by;
		else
			l->varying |= i.written;
	}
	for (unsigned guest = 0; guest < GPR_COUNT; guest++)
		if (l->varying & 1u << guest || l->step[guest] < -STEP_MAX ||
		    l->step[guest] > STEP_MAX)
			l->step[guest] = 0;
	return true;
}

/* One that is in a host register and whose moves are divided by with a shift, if there is one. */
static bool find_counter(struct loop *l)
{
	unsigned best = 0;
	for (int guest = 0; guest < GPR_COUNT; guest++) {
		int64_t step = l->step[guest];
		if (!step)
			continue;
		unsigned worth = 1 + (host_register(guest) >= 0) + !(step & (step - 1));
		if (worth > best)
			l->counter = (int8_t)guest;
		best = worth > best ? worth : best;
	}
	return best;
}

static bool is_varying(const struct loop *l, int guest)
{
	return guest != GPR_NONE && l->varying & 1u << guest;
}

/* What the address is moved by when its registers are by `by`. */
static int64_t move_of(const struct guest_address *a, const int64_t *by)
{
	return (a->base == GPR_NONE ? 0 : by[a->base]) +
	       (a->index == GPR_NONE ? 0 : by[a->index] * (1 << a->shift));
}

/* Is the window, which is at these distances from where `i` begins, not in two pages too often? */
static bool is_fit(const struct stream *s, const struct access *i, int64_t low, int64_t high)
{
	return high - low <= WINDOW_BYTES_MAX || ((i->is_long || s->is_long) && !s->stride &&
						  access_is_in_page(i, i->at + low, i->at + high));
}

/* Takes an access at `a` into the stream. False: it is none of its. */
static bool widen(struct stream *s, const struct access *i, const struct guest_address *a)
{
	int64_t low = a->disp < s->a.disp ? a->disp : s->a.disp;
	int64_t end = s->a.disp + s->size_bytes, own = a->disp + i->range + i->size_bytes;
	int64_t high = own > end ? own : end;
	if (s->a.base != a->base || s->a.index != a->index || s->a.shift != a->shift ||
	    s->a.is_relative != a->is_relative || !is_fit(s, i, low - a->disp, high - a->disp))
		return false;
	s->a.disp = low;
	s->size_bytes = (uint16_t)(high - low);
	s->is_write |= i->is_write;
	s->is_long |= i->is_long;
	return true;
}

/* `moved`: what the registers have been moved by in the iteration before the access. What must be
 * aligned was so in the ordinary body, and is if its steps are. */
static bool add_access(struct loop *l, unsigned index, const struct access *i,
		       struct guest_address a, const int64_t *moved)
{
	if (i->bounded != GPR_NONE)
		a = access_without(&a, i->bounded);
	a.disp += i->skew + move_of(&a, moved);
	int64_t stride = move_of(&a, l->step);
	if (is_varying(l, a.base) || is_varying(l, a.index) || a.is_32bit || a.seg == SEG_FS ||
	    a.seg == SEG_GS || i->size_bytes > 32)
		return false;
	if (stride < -STRIDE_MAX || stride > STRIDE_MAX ||
	    (i->is_aligned && stride & (i->size_bytes - 1)) || (i->bounded != GPR_NONE && stride))
		return false;
	unsigned n = 0;
	while (n < l->stream_count && !widen(&l->streams[n], i, &a))
		n++;
	if (n == STREAMS_MAX)
		return false;
	if (n == l->stream_count) {
		struct stream *s = &l->streams[l->stream_count++];
		*s = (struct stream){.a = a, .stride = (int32_t)stride};
		widen(s, i, &a);
	}
	l->stream_of[index] = (uint8_t)n;
	l->disp_of[index] = a.disp - i->skew;
	return true;
}

/* Can all windows be looked up? */
static bool are_possible(const struct loop *l)
{
	for (unsigned n = 0; n < l->stream_count; n++) {
		const struct stream *s = &l->streams[n];
		uint64_t offset = (uint64_t)s->a.disp & PAGE_OFFSET_MASK;
		if (s->a.is_constant ? offset + s->size_bytes > PAGE_SIZE_BYTES
				     : s->a.disp != (int32_t)s->a.disp)
			return false;
	}
	return true;
}

static bool find_streams(const struct work *w, struct loop *l)
{
	int64_t moved[GPR_COUNT] = {0}, by;
	for (unsigned k = 0; k < w->count; k++) {
		const struct guest_insn *g = &w->trans->insns[k];
		bool is_branch = g->goes_on || k + 1 == w->count;
		struct copied i = {0};
		int guest;
		if (!is_branch && !is_nothing(g))
			copy_describe(w, g, &i);
		if (i.has_memory && !add_access(l, k, &w->accesses[k], i.a, moved))
			return false;
		if (is_step(g, &guest, &by) && !is_varying(l, guest))
			moved[guest] += by;
		l->counted[k] = (int32_t)moved[l->counter];
	}
	return are_possible(l);
}

/* Its last branch goes back if it is taken, or if it is not. */
static void find_exit(const struct work *w, const struct guest_insn *last, struct loop *l)
{
	bool is_inverted = branch_target(last) != w->parts[0].rip;
	l->condition = (last->d.opcode & 15) ^ is_inverted;
	l->exit = is_inverted ? branch_target(last) : branch_next(last);
}

bool loop_find(struct work *w, struct loop *l)
{
	const struct guest_insn *last = &w->trans->insns[w->count - 1];
	*l = (struct loop){0};
	/* 32-bit registers wrap where the counter would not. */
	if (w->is_code32 || !trace_is_back_edge(w, last))
		return false;
	find_exit(w, last, l);
	return find_steps(w, l) && find_counter(l) && find_streams(w, l);
}

/* ---- the way in ---- */

static struct host_memory slot_of(unsigned stream)
{
	return frame_slot(offsetof(struct frame, streams) + 8 * stream);
}

/* An instruction with a 32-bit constant. */
static void emit_with(struct emitter *e, unsigned flags, unsigned opcode, unsigned extension,
		      unsigned reg, int64_t value)
{
	emit_rr(e, flags, opcode, extension, reg);
	emit_word(e, (uint32_t)value);
}

/* A member of the frame and a 32-bit constant. */
static void emit_frame_with(struct emitter *e, unsigned opcode, unsigned extension,
			    struct host_memory m, uint32_t value)
{
	emit_rm(e, 0, opcode, extension, m);
	emit_word(e, value);
}

/* The ordinary body runs an iteration. */
static void to_body(struct work *w, uint8_t *patch)
{
	emit_patch(patch, w->loop->body);
}

void loop_emit_begin(struct work *w)
{
	emit_frame_with(&w->e, 0xc7, 0, FRAME(loop_patience), PATIENCE); /* mov */
	w->loop->body = w->e.at;
}

/* Iterations, less one, that can be in one page however the streams begin there. */
static uint32_t iterations_max(const struct loop *l)
{
	int64_t most = 0;
	for (unsigned n = 0; n < l->stream_count; n++) {
		const struct stream *s = &l->streams[n];
		int64_t bytes = s->stride < 0 ? -s->stride : s->stride;
		int64_t fit = bytes ? ((int64_t)PAGE_SIZE_BYTES - s->size_bytes) / bytes : 0;
		if (fit && (!most || fit < most))
			most = fit;
	}
	return most ? (uint32_t)most : FREE_ITERATIONS;
}

/*
 * T1, the window's offset in its page, becomes the number of iterations that stay there behind this
 * one; fewer than so far is the new number. A constant that is too small by rounding takes the
 * place of a division; the one more that is divided makes up for it and never is too much.
 */
static void emit_fewer(struct work *w, const struct stream *s, bool is_first)
{
	struct emitter *e = &w->e;
	uint32_t bytes = (uint32_t)(s->stride < 0 ? -s->stride : s->stride);
	bool is_shift = !(bytes & (bytes - 1));
	if (s->stride > 0) {
		emit_rr(e, 0, 0xf7, 3, HOST_T1); /* neg */
		emit_with(e, 0, 0x81, 0, HOST_T1,
			  (int64_t)PAGE_SIZE_BYTES - s->size_bytes + !is_shift);
	} else if (!is_shift) {
		emit_with(e, 0, 0x81, 0, HOST_T1, 1);
	}
	if (!is_shift)
		emit_with(e, 0, 0x69, HOST_T1, HOST_T1, (1 << 19) / bytes); /* imul */
	emit_rr(e, 0, 0xc1, 5, HOST_T1);				    /* shr */
	emit_byte(e, is_shift ? (unsigned)__builtin_ctz(bytes) : 19);
	uint8_t *not_fewer = NULL;
	if (!is_first) {
		emit_rm(e, 0, 0x3b, HOST_T1, FRAME(loop_count)); /* cmp */
		not_fewer = emit_jcc_forward(e, CONDITION_AE);
	}
	emit_rm(e, 0, 0x89, HOST_T1, FRAME(loop_count));
	if (!is_first)
		emit_patch(not_fewer, e->at);
}

/* Is its operand [base + slot]? */
static bool is_base_alone(const struct guest_address *a)
{
	return a->index == GPR_NONE && host_register(a->base) >= 0;
}

static void emit_stream(struct work *w, unsigned n, bool *has_count)
{
	const struct stream *s = &w->loop->streams[n];
	struct emitter *e = &w->e;
	struct look_up l = access_look_up(w, &s->a, s->size_bytes, s->is_write, false);
	to_body(w, l.patch);
	emit_lea(e, HOST_T0, l.operand);
	if (s->stride && is_base_alone(&s->a))
		emit_rr(e, EMIT_W, 0x29, (unsigned)host_register(s->a.base), HOST_T0); /* sub */
	emit_store(e, slot_of(n), HOST_T0);
	if (!s->stride)
		return;
	emit_fewer(w, s, !*has_count);
	*has_count = true;
	if (is_base_alone(&s->a))
		return;
	access_address(w, &s->a);
	emit_rm(e, EMIT_W, 0x29, HOST_T1, slot_of(n)); /* sub */
}

/* T0 or T1 with `by` as its operand: the counter. */
static void emit_with_counter(struct work *w, unsigned opcode, unsigned reg)
{
	int host = host_register(w->loop->counter);
	if (host < 0)
		emit_rm(&w->e, EMIT_W, opcode, reg, home_of(w->loop->counter));
	else
		emit_rr(&w->e, EMIT_W, opcode, reg, (unsigned)host);
}

/* Charges the iterations and computes where the counter will be behind them. */
static void emit_charge(struct work *w, bool has_count, uint32_t most)
{
	struct emitter *e = &w->e;
	if (has_count)
		emit_rm(e, 0, 0x8b, HOST_T1, FRAME(loop_count));
	else
		emit_constant(e, HOST_T1, most);
	emit_with(e, 0, 0x81, 0, HOST_T1, 1);					       /* add */
	emit_with(e, 0, 0x69, HOST_T0, HOST_T1, w->count);			       /* imul */
	emit_rm(e, 0, 0x29, HOST_T0, FRAME(budget));				       /* sub */
	emit_with(e, EMIT_W, 0x69, HOST_T1, HOST_T1, w->loop->step[w->loop->counter]); /* imul */
	emit_with_counter(w, 0x03, HOST_T1);					       /* add */
	emit_store(e, FRAME(loop_limit), HOST_T1);
}

/* ---- the inner body ---- */

/* T0 = the stream's slot. */
static void take_slot(struct work *w, unsigned n)
{
	if (w->loop->in_t0 != n)
		emit_load(&w->e, HOST_T0, slot_of(n));
	w->loop->in_t0 = (uint8_t)n;
}

struct host_memory loop_operand(struct work *w, const struct guest_address *a)
{
	const struct loop *l = w->loop;
	const struct access *i = &w->accesses[w->g->index];
	unsigned n = l->stream_of[w->g->index];
	struct host_memory m = {.base = HOST_T0, .index = NO_INDEX};
	if (!l->streams[n].stride) {
		take_slot(w, n);
		m.disp = (int32_t)(l->disp_of[w->g->index] - l->streams[n].a.disp);
		if (i->bounded == GPR_NONE)
			return m;
		m.index = (int8_t)register_or_load(w, i->bounded, HOST_T1);
		m.shift = i->shift;
		return m;
	}
	if (is_base_alone(a)) {
		take_slot(w, n);
		m.base = (uint8_t)host_register(a->base);
		m.index = HOST_T0;
		m.disp = (int32_t)(a->disp - l->streams[n].a.disp);
		return m;
	}
	if (a->index != GPR_NONE && host_register(a->index) < 0)
		group_free_t0(w);
	access_address(w, a);
	take_slot(w, n);
	return AT_OPERAND;
}

/* The loop ends where the jump at `patch` is taken. */
static void add_exit(struct work *w, uint8_t *patch, uint64_t rip)
{
	const struct guest_insn *g = w->g;
	struct slow *s = add_slow(w, SLOW_LOOP, patch);
	s->rip = rip;
	s->first = g->index;
	s->rest = w->x->parts[g->part].rest;
	s->saves_flags = g->side && w->flags == FLAGS_HOST;
}

static void emit_inner_insn(struct work *w)
{
	const struct guest_insn *g = w->g;
	if (g->goes_on && branch_is_jcc(&g->d)) {
		unsigned condition = flags_want_condition(w, (g->d.opcode & 15) ^ g->is_inverted);
		add_exit(w, emit_jcc_forward(&w->e, condition),
			 g->is_inverted ? branch_next(g) : branch_target(g));
	} else if (!g->goes_on && !is_nothing(g) && !translate_copied(w)) {
		assert(!"copy_describe() knows what is copied");
	}
}

/* To the next iteration, if there is one. */
static void emit_next(struct work *w, const uint8_t *top, const uint8_t *way_in)
{
	struct emitter *e = &w->e;
	w->g = &w->trans->insns[w->count - 1];
	if (branch_is_jcc(&w->g->d)) {
		unsigned condition = flags_want_condition(w, w->loop->condition);
		add_exit(w, emit_jcc_forward(e, condition ^ 1), w->loop->exit);
	}
	if (w->live_before[0] && w->flags == FLAGS_HOST)
		flags_emit_save(e);
	unsigned counter = register_or_load(w, w->loop->counter, HOST_T0);
	emit_rm(e, EMIT_W, 0x3b, counter, FRAME(loop_limit)); /* cmp */
	emit_patch(emit_jcc_forward(e, CONDITION_NE), top);
	emit_patch(emit_jmp_forward(e), way_in);
}

void loop_emit(struct work *w)
{
	uint32_t most = iterations_max(w->loop);
	bool has_count = false;
	emit_patch(w->loop->back, w->e.at);
	emit_frame_with(&w->e, 0x81, 5, FRAME(loop_patience), 1); /* sub */
	to_body(w, emit_jcc_forward(&w->e, CONDITION_G));
	const uint8_t *way_in = w->e.at;
	w->g = NULL;
	emit_frame_with(&w->e, 0x81, 7, FRAME(budget), (most + 1) * w->count); /* cmp */
	to_body(w, emit_jcc_forward(&w->e, CONDITION_L));
	for (unsigned n = 0; n < w->loop->stream_count; n++)
		emit_stream(w, n, &has_count);
	emit_charge(w, has_count, most);
	const uint8_t *top = w->e.at;
	w->flags = FLAGS_FRAME;
	w->loop->is_inner = true;
	w->loop->in_t0 = STREAM_NONE;
	for (unsigned k = 0; k + 1 < w->count; k++) {
		w->g = &w->trans->insns[k];
		emit_inner_insn(w);
	}
	emit_next(w, top, way_in);
	w->loop->is_inner = false;
}

/* ---- the ways out of it ---- */

/* What an odd number is to be multiplied by for 1, modulo 2^32. */
static uint32_t inverse(uint32_t odd)
{
	uint32_t x = odd; /* right in the low 3 bits, and twice as many each time */
	for (unsigned k = 0; k < 4; k++)
		x *= 2 - odd * x;
	return x;
}

/*
 * In iteration j of n, counted from 0, limit - counter is (n - j) * step less what the counter has
 * been moved by in this one. Of what was charged, n - j - 1 iterations and the rest of this one do
 * not run. The division leaves no remainder, so it is a multiplication.
 */
void loop_emit_exit(struct work *w, const struct slow *s)
{
	struct emitter *e = &w->e;
	int64_t step = w->loop->step[w->loop->counter];
	unsigned zeros = (unsigned)__builtin_ctzll((uint64_t)step);
	if (s->saves_flags)
		flags_emit_save(e);
	emit_load(e, HOST_T1, FRAME(loop_limit));
	emit_with_counter(w, 0x2b, HOST_T1);				    /* sub */
	emit_with(e, EMIT_W, 0x81, 0, HOST_T1, w->loop->counted[s->first]); /* add */
	emit_rr(e, EMIT_W, 0xc1, 7, HOST_T1);				    /* sar */
	emit_byte(e, zeros);
	emit_with(e, 0, 0x69, HOST_T1, HOST_T1, inverse((uint32_t)(step >> zeros)) * w->count);
	emit_with(e, 0, 0x81, 0, HOST_T1, (int64_t)s->rest - w->count); /* add */
	emit_rm(e, 0, 0x01, HOST_T1, FRAME(budget));			/* add */
	emit_exit(w, s->rip);
}
