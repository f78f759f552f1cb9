/*
 * Code that is rewritten again and again: a JIT compiler's functions, some of which hardly run more
 * often than it takes to find out that they are worth translating.
 *
 * Of most that a block of registers and constants does the host does the same, byte for byte. Such
 * a block of a checked page (block.h), if it ends in a near return, needs no translating: its bytes
 * are copied into a slot, between the comparison that a checked block begins with and a return.
 * Both are the same code for all blocks, so that they are written once, when a slot is made; what
 * differs are some numbers. A slot whose block has changed is another block's later, so rewriting
 * fills no cache; some others come first, so that no processor has fetched what is written anew.
 *
 * What the instructions are was noted when their forms were lowered for the first time
 * (rewritten_note()).
 *
 * Invariant: a slot on a list of trans->slots is led to by nothing (cache_forget()). The others
 * hang on their block like any translation.
 */
#include "engine/trans/translate_private.h"

#include <string.h>

#define SLOTS_MIN 16u /* before one is used again */
#define SLOTS_MAX 1024u
#define WORD_BYTES 8
/* Loading the flags, and the jump to the return. */
#define BODY_BYTES (CHECKED_BYTES_MAX + 32)

/* What an instruction is to its copy. */
enum note {
	NOTE_NONE,    /* it is none */
	NOTE_QUIET,   /* does nothing with flags */
	NOTE_KILLS,   /* writes all of them, whatever they were */
	NOTE_TOUCHES, /* reads some, or keeps some and writes others */
	NOTE_RETURN
};

/* ---- what is noted ---- */

static bool is_near_return(const ZydisDecodedInstruction *d)
{
	return d->mnemonic == ZYDIS_MNEMONIC_RET && d->opcode == 0xc3 &&
	       !(d->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE);
}

/* Do its flags depend on a number, which a note must not? */
static bool is_shift(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_SHL || m == ZYDIS_MNEMONIC_SHR || m == ZYDIS_MNEMONIC_SAR;
}

uint8_t rewritten_note(const struct decoded *x, const uint8_t *bytes)
{
	struct guest_insn g = {.d = x->d, .bytes = bytes, .is_decoded = true};
	memcpy(g.operands, x->operands, sizeof(g.operands));
	if (is_near_return(&g.d))
		return NOTE_RETURN;
	if (!copy_is_verbatim(&g))
		return NOTE_NONE;
	if (!flags_read(&g) && !flags_written(&g))
		return NOTE_QUIET;
	bool kills = !flags_read(&g) && flags_killed(&g, true) == FLAGS_ALL;
	return kills && !is_shift(g.d.mnemonic) ? NOTE_KILLS : NOTE_TOUCHES;
}

/* ---- a slot ---- */

/* T0 = a constant of 8 bytes. Returns where that is. */
static uint8_t *emit_pointer(struct emitter *e)
{
	emit_constant(e, HOST_T0, UINT64_MAX >> 1);
	return e->at - 8;
}

/* Compares the words of the guest at T0 + `at` and of the slot at `word`. */
static void emit_word_check(struct work *w, unsigned at, const uint8_t *word)
{
	static const uint8_t load[] = {0x4d, 0x8b, 0x73}, compare[] = {0x4c, 0x3b, 0x35};
	struct emitter *e = &w->e;
	for (unsigned k = 0; k < sizeof(load); k++) /* mov r14, [r11 + disp8] */
		emit_byte(e, load[k]);
	emit_byte(e, at);
	for (unsigned k = 0; k < sizeof(compare); k++) /* cmp r14, [rip + disp32] */
		emit_byte(e, compare[k]);
	emit_word(e, (uint32_t)(word - (e->at + 4)));
	w->changed[w->changed_count++] = emit_jcc_forward(e, CONDITION_NE);
}

/* Where emit_word_check(), of this many bytes, has its two displacements. */
#define CHECK_BYTES 17
#define CHECK_AT 3
#define CHECK_WORD 7

/* The block's last word is compared first, then the others from the last whole one down. */
static void emit_check(struct work *w, struct slot *s)
{
	struct emitter *e = &w->e;
	s->calm = emit_pointer(e);
	emit_rm(e, 0, 0x83, 5, at_t0(0)); /* sub dword, 1 */
	emit_byte(e, 1);
	w->changed[w->changed_count++] = emit_jcc_forward(e, CONDITION_L);
	s->guest = emit_pointer(e);
	s->last = e->at;
	emit_word_check(w, 0, s->bytes);
	s->whole = emit_jmp_forward(e);
	for (unsigned k = CHECKED_BYTES_MAX / WORD_BYTES; k-- > 0;)
		emit_word_check(w, k * WORD_BYTES, s->bytes + k * WORD_BYTES);
	s->body = e->at;
}

/* The budget is given back; `thunk` says why. */
static uint8_t *emit_back_out(struct work *w, const uint8_t *thunk)
{
	emit_rm(&w->e, 0, 0x83, 0, FRAME(budget)); /* add */
	emit_byte(&w->e, 0);
	uint8_t *count = w->e.at - 1;
	emit_call_helper(w, add_site(w, (struct site){0}), thunk);
	return count;
}

static void emit_slot(struct work *w, struct slot *s)
{
	struct emitter *e = &w->e;
	emit_rm(e, 0, 0x83, 5, FRAME(budget)); /* sub dword, imm8 */
	emit_byte(e, 0);
	s->count[0] = e->at - 1;
	uint8_t *out = emit_jcc_forward(e, CONDITION_L);
	emit_check(w, s);
	e->at += BODY_BYTES;
	s->saving_tail = e->at;
	flags_emit_save(e);
	s->tail = e->at;
	emit_pop_return(w);
	emit_indirect(w, -WORD_BYTES);
	emit_patch(out, e->at);
	s->count[1] = emit_back_out(w, w->trans->to_budget);
	for (unsigned k = 0; k < w->changed_count; k++)
		emit_patch(w->changed[k], e->at);
	s->count[2] = emit_back_out(w, w->trans->to_changed);
	emit_slow(w);
}

/* The one that has been free longest, or NULL. */
static struct slot *reuse_slot(struct slot_list *l)
{
	struct slot *s = l->first;
	if (!s)
		return NULL;
	l->first = s->next;
	if (!l->first)
		l->last = NULL;
	return s;
}

static struct slot *make_slot(struct trans_vcpu *t)
{
	struct trans *trans = t->trans;
	unsigned mode = t->c->mode;
	struct slot_list *l = &trans->slots[mode];
	static const struct part part;
	struct slow slow[SLOW_OF_INSN_MAX];
	struct miss misses[MISSES_MAX];
	struct guest_insn *g = &trans->insns[0];
	if (l->count == SLOTS_MAX || !cache_has_room(trans))
		return reuse_slot(l);
	struct slot *s = cache_take_slot(trans, mode);
	memset(g, 0, sizeof(*g));
	g->is_decoded = true;
	g->d.mnemonic = ZYDIS_MNEMONIC_RET;
	struct work w = {
		.trans = trans,
		.t = t,
		.slow = slow,
		.misses = misses,
		.g = g,
		.count = 1,
		.x = cache_add(trans, &part, 1),
		.e = {trans->writable + trans->code_used, trans->running - trans->writable, 0}};
	ask_space(&w, mode);
	s->x = w.x;
	w.x->mode = (uint8_t)mode;
	s->bytes = w.e.at;
	w.e.at += CHECKED_BYTES_MAX;
	w.x->slot = s;
	w.x->is_bound = true;
	w.x->code = emitter_here(&w.e);
	w.x->first_site = trans->site_count;
	emit_slot(&w, s);
	w.x->code_bytes = (uint32_t)(emitter_here(&w.e) - w.x->code);
	w.x->site_count = (uint16_t)(trans->site_count - w.x->first_site);
	cache_take_code(trans, (uint64_t)(w.e.at - trans->writable) - trans->code_used);
	return s;
}

/* ---- using it ---- */

/* May the block be copied? */
static bool is_copied(const struct block *b)
{
	unsigned last = b->count - 1u;
	if (b->gfn2 != BLOCK_CHECKED || b->bytes < WORD_BYTES || b->insns[last].note != NOTE_RETURN)
		return false;
	for (unsigned k = 0; k < last; k++)
		if (b->insns[k].note == NOTE_NONE || b->insns[k].note == NOTE_RETURN)
			return false;
	return true;
}

static void put_pointer(uint8_t *at, const void *p)
{
	memcpy(at, &p, sizeof(p));
}

/* What the comparison compares, and with what. */
static void put_check(struct slot *s, struct block *b, const uint8_t *guest)
{
	unsigned at = b->bytes - WORD_BYTES;
	uint32_t whole = b->bytes / WORD_BYTES;
	uint32_t word = (uint32_t)(s->bytes + at - (s->last + CHECK_WORD + 4));
	memcpy(s->bytes, block_copy(b), b->bytes);
	put_pointer(s->calm, &b->page->calm);
	put_pointer(s->guest, guest);
	s->last[CHECK_AT] = (uint8_t)at;
	memcpy(s->last + CHECK_WORD, &word, sizeof(word));
	emit_patch(s->whole, s->body - whole * CHECK_BYTES);
}

static void put_body(struct trans *trans, struct slot *s, const struct block *b)
{
	struct emitter e = {s->body, trans->running - trans->writable, 0};
	const uint8_t *from = s->bytes;
	bool is_in_host = false;
	for (unsigned k = 0; k + 1 < b->count; k++) {
		const struct insn *i = &b->insns[k];
		if (i->note == NOTE_TOUCHES && !is_in_host)
			flags_emit_load(&e);
		is_in_host |= i->note != NOTE_QUIET;
		memcpy(e.at, from + i->offset, i->length);
		e.at += i->length;
	}
	emit_patch(emit_jmp_forward(&e), is_in_host ? s->saving_tail : s->tail);
}

struct translation *rewritten_translate(struct trans_vcpu *t, struct block *b)
{
	struct trans *trans = t->trans;
	if (!is_copied(b))
		return NULL;
	const uint8_t *guest = memory_host(t->c->memory, gpa(b->gpa), b->bytes);
	struct slot_list *l = &trans->slots[t->c->mode];
	bool is_new = !l->first || l->count < SLOTS_MIN;
	struct slot *s = is_new ? make_slot(t) : reuse_slot(l);
	if (!s)
		return NULL;
	struct translation *x = s->x;
	x->block = b;
	x->rip = t->c->s->rip;
	x->count = (uint8_t)b->count;
	x->parts[0] = (struct part){.block = b, .rip = x->rip};
	for (unsigned k = 0; k < ARRAY_COUNT(s->count); k++)
		*s->count[k] = x->count;
	for (unsigned k = 0; k < x->site_count; k++)
		trans->sites[x->first_site + k].index = (uint8_t)(b->count - 1);
	put_check(s, b, guest);
	put_body(trans, s, b);
	x->variant = b->translation;
	b->translation = x;
	perf_map_add(trans, x);
	return x;
}

void rewritten_give_back(struct trans *trans, struct translation *x)
{
	if (!x->slot)
		return;
	struct slot_list *l = &trans->slots[x->mode];
	x->slot->next = NULL;
	*(l->last ? &l->last->next : &l->first) = x->slot;
	l->last = x->slot;
}
