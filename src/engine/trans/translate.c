/*
 * Translating a block: the loop over its instructions, and what is written behind it.
 *
 * Each instruction is copied (instruction.c), translated (stack, branches), or left to the
 * interpreter by a call of its handler, which ends nothing: the block goes on behind it.
 */
#include "engine/trans/translate_private.h"

#include <assert.h>
#include <string.h>

/* SYSCALL from user code and SYSRET to it; from elsewhere they are legal and nobody does it. */
static const uint8_t *end_thunk(struct work *w)
{
	const struct guest_insn *g = w->g;
	if (w->is_code32 || !g->is_decoded)
		return w->trans->to_end;
	if (g->d.mnemonic == ZYDIS_MNEMONIC_SYSCALL && w->x->mode == MMU_USER) {
		emit_address(w, HOST_T1, branch_next(g));
		return w->trans->to_syscall;
	}
	if (g->d.mnemonic == ZYDIS_MNEMONIC_SYSRET && g->d.operand_width == 64 &&
	    w->x->mode == MMU_SUPERVISOR)
		return w->trans->to_sysret;
	return w->trans->to_end;
}

/* What ends the translation and is not a near branch leads anywhere. */
static void emit_interpreted_end(struct work *w)
{
	flags_to_frame(w);
	const uint8_t *thunk = end_thunk(w);
	emit_call_helper(w, add_site(w, (struct site){0}), thunk);
	w->is_left = true;
}

static void emit_interpreted(struct work *w)
{
	assert(!w->region); /* C may take away what its look-ups found */
	if (w->g->index + 1u == w->count) {
		emit_interpreted_end(w);
		return;
	}
	w->is_flags_kept = true; /* it may do anything with them */
	flags_to_frame(w);
	uint32_t site = add_site(w, (struct site){0});
	emit_call_helper(w, site, w->trans->to_interpret);
	w->trans->sites[site].next = emitter_here(&w->e);
	flags_lost(w);
	w->is_flags_kept = false;
}

bool is_nothing(const struct guest_insn *g)
{
	switch (g->d.meta.category) {
	case ZYDIS_CATEGORY_PREFETCH:
	case ZYDIS_CATEGORY_WIDENOP: return true;
	default: break;
	}
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_ENDBR32:
	case ZYDIS_MNEMONIC_ENDBR64:
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE: return true;
	default: return false;
	}
}

/* The slow paths of what was just written come back here. */
static void end_slow(struct work *w)
{
	for (unsigned k = w->slow_of_insn; k < w->slow_count; k++) {
		w->slow[k].after = w->e.at;
		w->slow[k].is_flags_needed = w->flags != FLAGS_FRAME;
	}
}

void translate_one(struct work *w)
{
	if (!w->g->is_decoded || !(is_nothing(w->g) || translate_stack(w) || translate_system(w) ||
				   translate_string(w) || translate_copied(w)))
		emit_interpreted(w);
	end_slow(w);
}

/* Counts the block, or leaves if that is more than there is left. */
static uint8_t *emit_entry(struct work *w)
{
	emit_rm(&w->e, 0, 0x83, 5, FRAME(budget)); /* sub dword, imm8 */
	emit_byte(&w->e, w->count);
	return emit_jcc_forward(&w->e, CONDITION_L);
}

static void emit_out_of_budget(struct work *w, uint8_t *patch)
{
	emit_patch(patch, w->e.at);
	for (unsigned k = 0; k < w->changed_count; k++)
		emit_patch(w->changed[k], w->e.at);
	emit_rm(&w->e, 0, 0x83, 0, FRAME(budget)); /* add */
	emit_byte(&w->e, w->count);
	emit_call_helper(w, add_site(w, (struct site){0}), w->trans->to_budget);
}

/* Leaves if the guest's bytes are not the `count` that the translation was made of. */
static void emit_compare(struct work *w, const uint8_t *guest, const uint8_t *bytes, unsigned count)
{
	struct emitter *e = &w->e;
	unsigned n;
	emit_constant(e, HOST_T0, (uint64_t)(uintptr_t)guest);
	for (unsigned at = 0; at < count; at += n) {
		struct host_memory m = {.base = HOST_T0, .index = NO_INDEX, .disp = (int32_t)at};
		n = count - at >= 4 ? 4 : 1;
		emit_rm(e, 0, n == 4 ? 0x81 : 0x80, 7, m); /* cmp */
		for (unsigned k = 0; k < n; k++)
			emit_byte(e, bytes[at + k]);
		w->changed[w->changed_count++] = emit_jcc_forward(e, CONDITION_NE);
	}
}

/*
 * Where nobody watches a block's bytes for writes it begins by comparing them: those of a checked
 * block, which also counts how often they were the same (block.h), and those in the second page of
 * an instruction that lies in two.
 */
static void emit_bytes_check(struct work *w, struct block *b, const uint8_t *second)
{
	struct emitter *e = &w->e;
	unsigned have = (unsigned)(PAGE_SIZE_BYTES - (b->gpa & PAGE_OFFSET_MASK));
	const uint8_t *first = w->page + (b->gpa & PAGE_OFFSET_MASK);
	if (b->gfn2 == BLOCK_CHECKED) {
		emit_constant(e, HOST_T0, (uint64_t)(uintptr_t)&b->page->calm);
		emit_rm(e, 0, 0x83, 5, at_t0(0)); /* sub dword, 1 */
		emit_byte(e, 1);
		w->changed[w->changed_count++] = emit_jcc_forward(e, CONDITION_L);
		emit_compare(w, first, block_copy(b), b->bytes);
	} else if (b->gfn2 != ~0ull) {
		if (w->is_checked)
			emit_compare(w, first, b->crossing, have);
		emit_compare(w, second, b->crossing + have, b->bytes - have);
	}
}

/* A block with vector instructions begins by asking whether the registers are there. */
static void emit_vectors_check(struct work *w)
{
	bool is_wanted = false, is_avx = false;
	for (unsigned k = 0; k < w->count; k++) {
		const struct guest_insn *g = &w->trans->insns[k];
		if (!g->is_decoded || !is_vector(g))
			continue;
		is_wanted = true;
		is_avx |= g->d.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	}
	if (!is_wanted)
		return;
	uint32_t site = add_site(w, (struct site){.size_bytes = is_avx});
	emit_rm(&w->e, 0, 0x80, 7, FRAME(vectors)); /* cmp byte */
	emit_byte(&w->e, is_avx ? VECTORS_AVX : VECTORS_SSE);
	add_slow(w, SLOW_VECTORS, emit_jcc_forward(&w->e, CONDITION_B))->site = site;
	w->trans->sites[site].resume = emitter_here(&w->e);
}

static void emit_x87_check(struct work *w)
{
	bool is_wanted = false;
	for (unsigned k = 0; k < w->count; k++)
		is_wanted |= w->trans->insns[k].is_decoded && is_x87(&w->trans->insns[k]);
	if (!is_wanted || !w->trans->has_x87)
		return;
	uint32_t site = add_site(w, (struct site){0});
	emit_rm(&w->e, 0, 0x80, 7, FRAME(x87)); /* cmp byte, 0 */
	emit_byte(&w->e, 0);
	add_slow(w, SLOW_X87, emit_jcc_forward(&w->e, CONDITION_E))->site = site;
	w->trans->sites[site].resume = emitter_here(&w->e);
}

/* The instruction w->g. False: the translation ends with it. */
static bool translate_next(struct work *w)
{
	bool is_last = w->g->index + 1u == w->count;
	w->slow_of_insn = w->slow_count;
	group_begin(w);
	if (w->g->goes_on)
		translate_inner_branch(w);
	else if (is_last && w->g->is_decoded && translate_branch(w))
		return false;
	else
		translate_one(w);
	group_end(w);
	return !w->is_left;
}

static void translate_all(struct work *w)
{
	const struct part *last = &w->x->parts[w->part_count - 1];
	flags_find_live(w);
	emit_vectors_check(w);
	emit_x87_check(w);
	group_plan(w);
	for (unsigned k = 0; k < w->count; k++) {
		w->g = &w->trans->insns[k];
		if (!translate_next(w))
			return;
	}
	w->g = &w->trans->insns[w->count - 1];
	flags_leave(w);
	uint64_t next = last->rip + last->block->bytes;
	if (w->is_code32)
		next = (uint32_t)next;
	if (w->next_mode == w->x->mode) {
		emit_exit(w, next);
		return;
	}
	ask_space(w, w->next_mode);
	emit_far_exit(w, next);
	ask_space(w, w->x->mode);
}

struct translation *translate(struct trans_vcpu *t, struct block *b)
{
	struct trans *trans = t->trans;
	bool is_crossing = b->gfn2 < BLOCK_CHECKED;
	gpa_t first = gpa_from_gfn(gpa_gfn(gpa(b->gpa)));
	const uint8_t *page = memory_host(t->c->memory, first, PAGE_SIZE_BYTES), *second = NULL;
	if (is_crossing)
		second = memory_host(t->c->memory, gpa_from_gfn(b->gfn2), INSN_BYTES_MAX);
	if (!page || !b->count || (is_crossing && !second))
		return NULL;
	bool is_code32 = b->key & KEY_CODE32;
	if (is_code32 && t->c->s->rip + b->bytes - 1 > UINT32_MAX)
		return NULL; /* beyond CS's limit */
	struct slow slow[SLOW_MAX];
	struct miss misses[MISSES_MAX];
	struct work w = {
		.trans = trans,
		.t = t,
		.page = page,
		.slow = slow,
		.misses = misses,
		.is_code32 = is_code32,
		.is_checked = b->page && b->page->is_checked,
		.next_mode = t->c->mode,
		.e = {trans->writable + trans->code_used, trans->running - trans->writable, 0},
	};
	struct loop loop;
	ask_space(&w, t->c->mode);
	trace_choose(&w, b, t->c->s->rip);
	value_find_accesses(&w);
	w.loop = loop_find(&w, &loop) ? &loop : NULL;
	w.x = cache_add(trans, w.parts, w.part_count);
	w.x->block = b;
	w.x->rip = t->c->s->rip;
	w.x->mode = t->c->mode;
	w.x->count = (uint8_t)w.count;
	w.x->code = emitter_here(&w.e);
	w.x->first_site = trans->site_count;
	w.x->variant = b->translation;
	if (w.loop)
		loop_emit_begin(&w);
	uint8_t *budget = emit_entry(&w);
	emit_bytes_check(&w, b, second);
	translate_all(&w);
	if (w.loop)
		loop_emit(&w);
	block_depend(trans->interp, b, w.granules);
	w.g = NULL;
	emit_out_of_budget(&w, budget);
	emit_slow(&w);
	w.x->code_bytes = (uint32_t)(emitter_here(&w.e) - w.x->code);
	w.x->site_count = (uint16_t)(trans->site_count - w.x->first_site);
	cache_take_code(trans, (uint64_t)(w.e.at - trans->writable) - trans->code_used);
	cache_keep_places(trans, w.x);
	b->translation = w.x;
	perf_map_add(trans, w.x);
	return w.x;
}
