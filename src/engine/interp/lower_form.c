/*
 * Lowering with a memory: what became of an instruction is kept with its form (x86/decode.h), and
 * the next one of the form, which differs in its numbers alone, is a copy with its own numbers in.
 *
 * Where the numbers go nobody says: an instruction is lowered a second time with every bit of its
 * numbers turned around and at another place in its block, and what differs tells. Each of the
 * immediate and the displacement must be a constant plus at most one of the numbers and the place;
 * forms that put a number anywhere else are lowered each time, and where more than one sum explains
 * both samples the form's next instruction is asked. No lower_*() chooses a handler by a number,
 * which is what makes two samples enough.
 *
 * Only 64-bit code: there the block's key is always the same.
 */
#include "engine/interp/lower_form.h"

#include <assert.h>
#include <string.h>

#define SOURCE_NONE 0xff

struct source {
	uint8_t value;	/* of the form's, or SOURCE_NONE */
	bool is_placed; /* its place in the block is added */
};

enum { LOWERED_UNKNOWN, LOWERED_EACH_TIME, LOWERED_ONCE };

/* Lies in what the decoder keeps with a form. */
struct lowered {
	struct insn insn; /* at offset 0, all numbers 0 */
	uint8_t kind;
	bool ends_block, writes_memory;
	struct source imm, disp;
};
static_assert(sizeof(struct lowered) <= DECODE_KEPT_BYTES, "it has room with the form");

static uint64_t number(struct source from, const struct decode_found *f, unsigned offset)
{
	uint64_t value = from.value == SOURCE_NONE ? 0 : f->values[from.value].value;
	return from.is_placed ? value + offset : value;
}

bool lower_recall(struct lowering *l, const struct decode_found *f, struct insn *out,
		  bool *writes_memory)
{
	const struct lowered *k = f->kept;
	uint16_t offset = out->offset;
	if (k->kind != LOWERED_ONCE)
		return false;
	*out = k->insn;
	out->offset = offset;
	out->imm += number(k->imm, f, offset);
	out->disp += (int64_t)number(k->disp, f, offset);
	l->ends_block = k->ends_block;
	*writes_memory = k->writes_memory;
	return true;
}

/* ---- learning ---- */

/* One of the two samples. */
struct sample {
	struct decode_found found;
	struct insn insn;
	bool ends_block;
};

/* Which number and place explain that a has x and b has y? Returns how many ways there are. */
static unsigned find_source(const struct sample *a, uint64_t x, const struct sample *b, uint64_t y,
			    struct source *out)
{
	unsigned ways = 0;
	for (unsigned k = 0; k <= 2 * a->found.value_count + 1u; k++) {
		struct source s = {SOURCE_NONE, k % 2};
		if (k / 2 < a->found.value_count)
			s.value = (uint8_t)(k / 2);
		if (x - number(s, &a->found, a->insn.offset) !=
		    y - number(s, &b->found, b->insn.offset))
			continue;
		*out = s;
		ways++;
	}
	return ways;
}

static struct insn without_numbers(const struct sample *a)
{
	struct insn i = a->insn;
	i.imm = 0;
	i.disp = 0;
	i.offset = 0;
	return i;
}

static void explain(struct lowered *k, const struct sample *a, const struct sample *b)
{
	struct insn x = without_numbers(a), y = without_numbers(b);
	unsigned imm_ways = find_source(a, a->insn.imm, b, b->insn.imm, &k->imm);
	unsigned disp_ways =
		find_source(a, (uint64_t)a->insn.disp, b, (uint64_t)b->insn.disp, &k->disp);
	k->kind = LOWERED_EACH_TIME;
	if (a->ends_block != b->ends_block || memcmp(&x, &y, sizeof(x)) != 0 || !imm_ways ||
	    !disp_ways)
		return;
	k->kind = imm_ways > 1 || disp_ways > 1 ? LOWERED_UNKNOWN : LOWERED_ONCE;
	k->insn = x;
	k->insn.imm = a->insn.imm - number(k->imm, &a->found, a->insn.offset);
	k->insn.disp = a->insn.disp - (int64_t)number(k->disp, &a->found, a->insn.offset);
	k->ends_block = a->ends_block;
}

static uint8_t note_of(const struct interp *vm, const struct decoded *x, const uint8_t *bytes,
		       const struct insn *i)
{
	return vm->translator && !interp_is_undefined(i) ? vm->translator->note(x, bytes) : 0;
}

/* Another instruction of the form, somewhere else. */
static bool make_other(struct lowering *l, const uint8_t *bytes, struct sample *out)
{
	uint8_t other[INSN_BYTES_MAX];
	struct decoder *decoder = l->vm->decoder;
	const struct decode_found *f = &out->found;
	unsigned length = f->length;
	memcpy(other, bytes, length);
	for (unsigned k = 0; k < f->value_count; k++)
		for (unsigned n = 0; n < f->values[k].size_bytes; n++)
			other[f->values[k].offset + n] ^= 0xff;
	const struct decoded *x = decoder_decode(decoder, DECODE_64, other, length, NULL);
	if (!x)
		return false;
	struct lowering m = *l;
	m.bytes = other;
	lower_one(&m, &out->insn, x);
	out->insn.note = note_of(l->vm, x, other, &out->insn);
	out->ends_block = m.ends_block;
	return decoder_find(decoder, DECODE_64, other, length, &out->found);
}

void lower_learn(struct lowering *l, const uint8_t *bytes, const struct insn *insn,
		 bool writes_memory)
{
	struct sample a = {.insn = *insn, .ends_block = l->ends_block}, b = {0};
	struct decoder *decoder = l->vm->decoder;
	if (!decoder_find(decoder, DECODE_64, bytes, insn->length, &a.found))
		return;
	struct lowered *k = a.found.kept;
	if (k->kind != LOWERED_UNKNOWN)
		return;
	k->kind = LOWERED_EACH_TIME;
	k->writes_memory = writes_memory;
	if (insn->flags & INSN_STUB)
		return;
	b.found = a.found;
	b.insn = (struct insn){.offset = (uint16_t)(insn->offset + PAGE_SIZE_BYTES), .mode = 64};
	if (!make_other(l, bytes, &b) || b.found.kept != k)
		return;
	a.insn.note = b.insn.note;
	explain(k, &a, &b);
}
