/*
 * Which blocks a translation runs through: the one that it is made for, and behind it those that a
 * direct branch inside the page leads to, as long as they are warm, too. The budget is taken for
 * all of them at the entry, and flags that the next one overwrites are never saved. What leads back
 * to its start goes on with the same blocks again: the iterations of a loop share look-ups, too.
 *
 * What is known of code that is not the first block's own holds as long as the bytes do: the
 * translation depends on the 64-byte granules (block.h) of all that was looked at here.
 */
#include "engine/trans/translate_private.h"

#include <string.h>

#define PEEK_MAX 16	 /* instructions, to learn what becomes of the flags */
#define FORKS_MAX 2	 /* branches on the way */
#define ITERATIONS_MAX 4 /* of a loop in one translation */

static bool is_in_page(const struct work *w, uint64_t rip)
{
	return rip >> PAGE_SHIFT == w->parts[0].rip >> PAGE_SHIFT;
}

static bool is_in_trace(const struct work *w, uint64_t rip)
{
	for (unsigned k = 0; k < w->part_count; k++)
		if (w->parts[k].rip == rip)
			return true;
	return false;
}

static void depend(struct work *w, uint64_t rip, unsigned size_bytes)
{
	unsigned first = rip & PAGE_OFFSET_MASK;
	w->granules |= block_granules(first, first + size_bytes - 1);
}

/* LZCNT and TZCNT are BSR and BSF to a processor that does not know their prefix. */
static bool is_other_here(const struct work *w, const ZydisDecodedInstruction *d)
{
	const struct cpu_model *model = w->t->c->v->model;
	return (d->mnemonic == ZYDIS_MNEMONIC_LZCNT && !cpu_has(model, FEATURE_LZCNT)) ||
	       (d->mnemonic == ZYDIS_MNEMONIC_TZCNT && !cpu_has(model, FEATURE_BMI1));
}

static bool decode_bytes(struct work *w, struct guest_insn *g, unsigned available)
{
	const struct decoded *x = decoder_decode(w->trans->interp->decoder,
						 w->is_code32 ? DECODE_32 : DECODE_64, g->bytes,
						 available, NULL);
	if (!x)
		return false;
	g->d = x->d;
	unsigned count = x->d.operand_count;
	count = count < DECODE_OPERANDS ? DECODE_OPERANDS : count;
	memcpy(g->operands, x->operands, count * sizeof(x->operands[0]));
	return !is_other_here(w, &g->d);
}

static bool decode(struct work *w, struct guest_insn *g, const struct part *part, unsigned index)
{
	const struct insn *i = &part->block->insns[index];
	memset(&g->bytes, 0, sizeof(*g) - offsetof(struct guest_insn, bytes));
	g->rip = part->rip + i->offset;
	g->index = (uint8_t)(part->first + index);
	g->part = (uint8_t)(w->part_count - 1);
	bool is_crossing = part->block->gfn2 < BLOCK_CHECKED;
	g->bytes = is_crossing ? part->block->crossing : w->page + (g->rip & PAGE_OFFSET_MASK);
	if (!interp_is_undefined(i) && decode_bytes(w, g, i->length))
		return true;
	memset(&g->d, 0, offsetof(struct guest_insn, bytes)); /* d and operands */
	return false;
}

/* Returns its last instruction. */
static struct guest_insn *add_part(struct work *w, struct block *b, uint64_t rip)
{
	struct part *part = &w->parts[w->part_count++];
	struct guest_insn *g = NULL;
	*part = (struct part){.block = b, .rip = rip, .first = (uint8_t)w->count};
	for (unsigned k = 0; k < b->count; k++) {
		g = &w->trans->insns[w->count++];
		g->is_decoded = decode(w, g, part, k);
	}
	return g;
}

/* The block at `rip` if it may be the next part. */
static struct block *warm_block(struct work *w, uint64_t rip)
{
	const struct block *head = w->parts[0].block;
	if (!is_in_page(w, rip) || is_in_trace(w, rip) || w->part_count == PARTS_MAX)
		return NULL;
	struct block *b = block_find(
		w->trans->interp, align_down(head->gpa, PAGE_SIZE_BYTES) | (rip & PAGE_OFFSET_MASK),
		head->key);
	if (!b || b->gfn2 != ~0ull || !b->count || w->count + b->count > BLOCK_INSNS_MAX)
		return NULL;
	return b->heat >= (w->trans->translator.warm_count + 1) / 2 ? b : NULL;
}

/* Where the branch `g` goes on, or NULL. */
static struct block *follow(struct work *w, struct guest_insn *g, uint64_t *rip)
{
	if (!g->is_decoded || g->d.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
		return NULL;
	if (branch_is_jcc(&g->d)) {
		if (is_in_trace(w, branch_target(g)) || branch_next(g) == w->parts[0].rip)
			return NULL; /* a loop */
		struct block *next = warm_block(w, *rip = branch_next(g));
		if (next)
			return next;
		g->is_inverted = true;
		return warm_block(w, *rip = branch_target(g));
	}
	return branch_is_direct(g) ? warm_block(w, *rip = branch_target(g)) : NULL;
}

bool trace_is_back_edge(const struct work *w, const struct guest_insn *g)
{
	if (w->is_checked || w->parts[0].block->gfn2 != ~0ull || !g->is_decoded ||
	    g->d.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
		return false;
	bool is_jcc = branch_is_jcc(&g->d);
	bool is_jump = is_jcc || (branch_is_direct(g) && g->d.mnemonic == ZYDIS_MNEMONIC_JMP);
	return (is_jump && branch_target(g) == w->parts[0].rip) ||
	       (is_jcc && branch_next(g) == w->parts[0].rip);
}

/* An iteration of a loop is followed by others. */
static void unroll(struct work *w, struct guest_insn *last)
{
	const unsigned parts = w->part_count, count = w->count;
	if (!trace_is_back_edge(w, last))
		return;
	for (unsigned n = 1; n < ITERATIONS_MAX && w->part_count + parts <= PARTS_MAX &&
			     w->count + count <= BLOCK_INSNS_MAX;
	     n++)
		for (unsigned k = 0; k < parts; k++) {
			const struct part *again = &w->parts[k];
			last->goes_on = true;
			last->is_inverted = branch_is_jcc(&last->d) &&
					    branch_target(last) == again->rip;
			last = add_part(w, again->block, again->rip);
		}
}

void trace_choose(struct work *w, struct block *b, uint64_t rip)
{
	struct guest_insn *last = add_part(w, b, rip);
	while ((b = follow(w, last, &rip))) {
		last->goes_on = true;
		depend(w, rip, b->bytes);
		last = add_part(w, b, rip);
	}
	unroll(w, last);
	for (unsigned k = 0; k + 1 < w->part_count; k++)
		w->parts[k].rest = (uint8_t)(w->count - w->parts[k + 1].first);
}

/* Of the flags `left`, those that matter at `rip`: of branches both ways, as many in a row as
 * `forks` says. */
static uint8_t live_at(struct work *w, uint64_t rip, uint8_t left, unsigned forks)
{
	uint8_t read = 0;
	for (unsigned k = 0; left && k < PEEK_MAX && is_in_page(w, rip); k++) {
		unsigned offset = rip & PAGE_OFFSET_MASK;
		struct guest_insn g;
		g.bytes = w->page + offset;
		g.rip = rip;
		if (!decode_bytes(w, &g, PAGE_SIZE_BYTES - offset))
			break;
		bool is_jcc = branch_is_jcc(&g.d) &&
			      !(g.d.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
		bool is_direct = branch_is_direct(&g);
		if (!is_jcc && !is_direct && !is_quiet(&g))
			break;
		depend(w, rip, g.d.length);
		read |= flags_read(&g) & left;
		left &= (uint8_t)~flags_killed(&g, w->trans->exact_flags);
		if (is_jcc && !forks)
			break;
		if (is_jcc)
			return read | live_at(w, branch_next(&g), left, forks - 1) |
			       live_at(w, branch_target(&g), left, forks - 1);
		rip = is_direct ? branch_target(&g) : branch_next(&g);
	}
	return read | left;
}

uint8_t trace_live_at(struct work *w, uint64_t rip)
{
	bool is_known = !w->trans->exact_flags && !w->is_checked;
	return is_known ? live_at(w, rip, FLAGS_ALL, FORKS_MAX) : FLAGS_ALL;
}
