/* The tree of forms (decode.h): nodes, forms and what they are told apart from lie in one arena and
 * refer to each other by their offsets in it. */
#include "x86/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/hard.h"
#include "base/pages.h"

#define INSN_BYTES_MAX 15u
#define ARENA_BYTES (8u << 20)
#define ARENA_TINY (64u << 10) /* in hard mode, at first */
#define ARENA_PATIENCE 256u
#define UNIT 64u /* of offsets */

/* An entry of a node: */
#define UNKNOWN 0u			/* no instruction came this way */
#define REFUSED 1u			/* an instruction that is none of a form */
#define IS_FORM 0x80000000u		/* a form's offset in units; else a node's */
#define FIRST_UNIT (ARENA_START / UNIT) /* so that offsets are neither UNKNOWN nor REFUSED */
#define ARENA_START (2 * UNIT)

struct node {
	uint32_t next[256];
};

/* A number among the instruction's bytes, and where in `struct decoded` it goes. */
struct value {
	uint8_t offset, size_bytes : 7, is_signed : 1;
	uint16_t raw, operand; /* offsets; operand 0: none */
};

/* A byte of `struct decoded` that is not the base's. */
struct delta {
	uint8_t offset[2], value;
};

#define DELTA_COUNT_MAX 24

/* Behind DECODE_KEPT_BYTES that are not ours. */
struct form {
	uint8_t length, operand_count, value_count, delta_count;
	uint32_t base; /* a struct decoded without values, as many operands as needed */
	struct value values[DECODE_VALUES_MAX];
	struct delta deltas[DELTA_COUNT_MAX];
};

#define BASE_BITS 10

/* A form in full, with the values of the instruction that was last of it. */
struct answer {
	uint32_t entry;
	struct decoded x;
};

#define ANSWER_COUNT 64u /* no more than a processor's second cache spares */

struct decoder {
	ZydisDecoder zydis[DECODE_MODE_COUNT];
	uint32_t roots[DECODE_MODE_COUNT]; /* entries */
	uint8_t *arena;
	size_t used;
	uint64_t hit_count, full_count;
	uint32_t bases[1u << BASE_BITS];	 /* the last of an opcode, hashed; 0: none */
	struct answer answers[ANSWER_COUNT + 1]; /* by form; the last: what is of none */
};

static void *at(const struct decoder *decoder, uint32_t entry)
{
	return decoder->arena + (size_t)(entry & ~IS_FORM) * UNIT;
}

static bool is_node(uint32_t entry)
{
	return entry >= FIRST_UNIT && !(entry & IS_FORM);
}

/* UNKNOWN if there is no room. */
static uint32_t take(struct decoder *decoder, size_t size_bytes)
{
	uint64_t limit = hard_limit(ARENA_TINY, ARENA_BYTES, decoder->full_count, ARENA_PATIENCE);
	size_t used = decoder->used;
	if (used + size_bytes > limit)
		return UNKNOWN;
	decoder->used = align_up(used + size_bytes, UNIT);
	return (uint32_t)(used / UNIT);
}

static void forget(struct decoder *decoder)
{
	memset(decoder->arena, 0, decoder->used);
	decoder->used = ARENA_START;
	memset(decoder->bases, 0, sizeof(decoder->bases));
	for (unsigned k = 0; k < ANSWER_COUNT; k++)
		decoder->answers[k].entry = UNKNOWN;
	for (unsigned mode = 0; mode < DECODE_MODE_COUNT; mode++)
		decoder->roots[mode] = take(decoder, sizeof(struct node));
}

int decoder_create(struct decoder **out, struct error *e)
{
	struct decoder *decoder = calloc(1, sizeof(*decoder));
	if (decoder)
		decoder->arena = pages_map_large(ARENA_BYTES);
	if (!decoder || !decoder->arena) {
		decoder_destroy(decoder);
		return error_set(e, -ENOMEM, "no memory for the decoder");
	}
	ZydisDecoder *z = decoder->zydis;
	ZydisDecoderInit(&z[DECODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	ZydisDecoderInit(&z[DECODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	ZydisDecoderInit(&z[DECODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	forget(decoder);
	*out = decoder;
	return 0;
}

void decoder_destroy(struct decoder *decoder)
{
	if (!decoder)
		return;
	pages_unmap(decoder->arena, ARENA_BYTES);
	free(decoder);
}

uint64_t decoder_hit_count(const struct decoder *decoder)
{
	return decoder->hit_count;
}

uint64_t decoder_full_count(const struct decoder *decoder)
{
	return decoder->full_count;
}

/* ---- forms ---- */

static uint64_t read_value(const struct value *v, const uint8_t *bytes)
{
	uint64_t value = 0;
	bytes += v->offset;
	switch (v->size_bytes) {
	case 1: value = *bytes; break;
	case 2: memcpy(&value, bytes, 2); break;
	case 4: memcpy(&value, bytes, 4); break;
	default: memcpy(&value, bytes, 8); break;
	}
	return v->is_signed ? sign_extend(value, 8u * v->size_bytes) : value;
}

static void put_value(const struct value *v, uint64_t value, struct decoded *x)
{
	memcpy((uint8_t *)x + v->raw, &value, sizeof(value));
	if (v->operand)
		memcpy((uint8_t *)x + v->operand, &value, sizeof(value));
}

static void expand(const struct decoder *decoder, const struct form *f, struct decoded *x)
{
	size_t size_bytes = offsetof(struct decoded, operands[f->operand_count]);
	size_t zero_from = offsetof(struct decoded, operands[DECODE_OPERANDS]);
	memcpy(x, at(decoder, f->base), size_bytes);
	if (size_bytes < zero_from)
		memset((uint8_t *)x + size_bytes, 0, zero_from - size_bytes);
	for (const struct delta *k = f->deltas; k < f->deltas + f->delta_count; k++)
		((uint8_t *)x)[k->offset[0] | (unsigned)k->offset[1] << 8] = k->value;
}

/* What `f`, that `entry` is, says of `bytes`. */
static const struct decoded *answer(struct decoder *decoder, uint32_t entry, const struct form *f,
				    const uint8_t *bytes)
{
	struct answer *a = &decoder->answers[(entry ^ entry >> 6) % ANSWER_COUNT];
	decoder->hit_count++;
	if (a->entry != entry)
		expand(decoder, f, &a->x);
	a->entry = entry;
	for (const struct value *v = f->values; v < f->values + f->value_count; v++)
		put_value(v, read_value(v, bytes), &a->x);
	return &a->x;
}

static void add_displacement(struct form *f, const struct decoded *x)
{
	struct value v = {.offset = x->d.raw.disp.offset,
			  .size_bytes = x->d.raw.disp.size / 8,
			  .is_signed = true,
			  .raw = offsetof(struct decoded, d.raw.disp.value)};
	for (unsigned k = 0; k < x->d.operand_count; k++)
		if (x->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    x->operands[k].mem.disp.has_displacement)
			v.operand = (uint16_t)offsetof(struct decoded, operands[k].mem.disp.value);
	f->values[f->value_count++] = v;
}

/* Immediate number `index`, which the next immediate operand from *operand on is. */
static void add_immediate(struct form *f, const struct decoded *x, unsigned index,
			  unsigned *operand)
{
	struct value v = {.offset = x->d.raw.imm[index].offset,
			  .size_bytes = x->d.raw.imm[index].size / 8,
			  .is_signed = x->d.raw.imm[index].is_signed,
			  .raw = (uint16_t)offsetof(struct decoded, d.raw.imm[index].value)};
	for (; *operand < x->d.operand_count && !v.operand; ++*operand)
		if (x->operands[*operand].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
			v.operand =
				(uint16_t)offsetof(struct decoded, operands[*operand].imm.value);
	f->values[f->value_count++] = v;
}

static void describe(struct form *f, const struct decoded *x)
{
	unsigned operand = 0;
	*f = (struct form){.length = x->d.length, .operand_count = x->d.operand_count};
	if (x->d.raw.disp.size)
		add_displacement(f, x);
	for (unsigned k = 0; k < 2; k++)
		if (x->d.raw.imm[k].size)
			add_immediate(f, x, k, &operand);
}

/* How many of the first bytes make it what it is. */
static unsigned fixed_bytes(const struct form *f)
{
	return f->value_count ? f->values[0].offset : f->length;
}

/* Are the rest its values, and nothing else? */
static bool is_tiled(const struct form *f)
{
	unsigned end = fixed_bytes(f);
	for (unsigned k = 0; k < f->value_count; k++) {
		const struct value *v = &f->values[k];
		unsigned n = v->size_bytes;
		if (v->offset != end || (n != 1 && n != 2 && n != 4 && n != 8))
			return false;
		end += n;
	}
	return end == f->length;
}

static ZyanStatus ask(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		      unsigned available, struct decoded *x)
{
	memset(x, 0, sizeof(*x)); /* so that equal ones have equal bytes */
	return ZydisDecoderDecodeFull(&decoder->zydis[mode], bytes, available, &x->d, x->operands);
}

/* Does Zydis say `x` of `bytes` with all values turned around, but for the values? */
static bool is_sound(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		     const struct form *f, const struct decoded *x)
{
	uint8_t other[INSN_BYTES_MAX];
	struct decoded said, expected = *x;
	for (unsigned k = 0; k < f->length; k++)
		other[k] = k < fixed_bytes(f) ? bytes[k] : (uint8_t)~bytes[k];
	if (!is_tiled(f) || !ZYAN_SUCCESS(ask(decoder, mode, other, f->length, &said)))
		return false;
	for (unsigned k = 0; k < f->value_count; k++)
		put_value(&f->values[k], read_value(&f->values[k], other), &expected);
	return !memcmp(&expected, &said, sizeof(said));
}

/* ---- the tree ---- */

/* What `x` differs in from *base. False: in too much. */
static bool compare(struct form *f, const struct decoded *base, const struct decoded *x)
{
	const uint8_t *a = (const uint8_t *)base, *b = (const uint8_t *)x;
	size_t size_bytes = offsetof(struct decoded, operands[f->operand_count]);
	f->delta_count = 0;
	for (unsigned k = 0; k < size_bytes; k++) {
		if (a[k] == b[k])
			continue;
		if (f->delta_count == DELTA_COUNT_MAX)
			return false;
		f->deltas[f->delta_count++] = (struct delta){{(uint8_t)k, (uint8_t)(k >> 8)}, b[k]};
	}
	return true;
}

/* Finds a base for `x`, or makes it one. False: no room. */
static bool choose_base(struct decoder *decoder, struct form *f, const struct decoded *x)
{
	uint32_t hash = (x->d.opcode | (uint32_t)x->d.opcode_map << 8 |
			 (uint32_t)x->d.raw.modrm.mod << 12 | (uint32_t)x->d.operand_width << 14) *
			0x9e3779b1u;
	uint32_t *slot = &decoder->bases[hash >> (32 - BASE_BITS)];
	const struct decoded *known = at(decoder, *slot);
	if (!*slot || known->d.operand_count != f->operand_count || !compare(f, known, x)) {
		size_t size_bytes = offsetof(struct decoded, operands[f->operand_count]);
		*slot = take(decoder, size_bytes);
		if (!*slot)
			return false;
		memcpy(at(decoder, *slot), x, size_bytes);
		f->delta_count = 0;
	}
	f->base = *slot;
	return true;
}

/* The entry that the first `count` bytes lead to, or NULL if there is no room. */
static uint32_t *entry_of(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
			  unsigned count)
{
	uint32_t *entry = &decoder->roots[mode];
	for (unsigned k = 0; k < count; k++) {
		if (*entry == UNKNOWN && !(*entry = take(decoder, sizeof(struct node))))
			return NULL;
		if (!is_node(*entry))
			return NULL;
		entry = &((struct node *)at(decoder, *entry))->next[bytes[k]];
	}
	return entry;
}

/* Remembers what Zydis made of `bytes`. False: no room. */
static bool learn(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		  const struct decoded *said)
{
	struct form f;
	struct decoded x = *said;
	describe(&f, &x);
	bool is_form = is_sound(decoder, mode, bytes, &f, &x);
	uint32_t *entry = entry_of(decoder, mode, bytes, fixed_bytes(&f));
	if (!entry)
		return false;
	if (*entry != UNKNOWN)
		return true;
	for (unsigned k = 0; k < f.value_count; k++) /* they are no form's own */
		put_value(&f.values[k], 0, &x);
	if (is_form && !choose_base(decoder, &f, &x))
		return false;
	size_t size_bytes = offsetof(struct form, deltas[f.delta_count]);
	*entry = is_form ? take(decoder, DECODE_KEPT_BYTES + size_bytes) : REFUSED;
	if (!is_form || !*entry)
		return *entry;
	*entry += DECODE_KEPT_BYTES / UNIT;
	memcpy(at(decoder, *entry), &f, size_bytes);
	*entry |= IS_FORM;
	return true;
}

/* Where the first of the bytes lead. */
static uint32_t walk(const struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		     unsigned available)
{
	uint32_t entry = decoder->roots[mode];
	for (unsigned k = 0; is_node(entry) && k < available; k++)
		entry = ((const struct node *)at(decoder, entry))->next[bytes[k]];
	return entry;
}

bool decoder_find(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		  unsigned available, struct decode_found *out)
{
	uint32_t entry = walk(decoder, mode, bytes, available);
	struct form *f = entry & IS_FORM ? at(decoder, entry) : NULL;
	if (!f || f->length > available)
		return false;
	decoder->hit_count++;
	out->kept = (uint8_t *)f - DECODE_KEPT_BYTES;
	out->length = f->length;
	out->value_count = f->value_count;
	for (unsigned k = 0; k < f->value_count; k++)
		out->values[k] = (struct decode_value){.offset = f->values[k].offset,
						       .size_bytes = f->values[k].size_bytes,
						       .value = read_value(&f->values[k], bytes)};
	return true;
}

const struct decoded *decoder_decode(struct decoder *decoder, enum decode_mode mode,
				     const uint8_t *bytes, unsigned available, ZyanStatus *status)
{
	uint32_t entry = walk(decoder, mode, bytes, available);
	if (entry & IS_FORM) {
		const struct form *f = at(decoder, entry);
		if (f->length <= available)
			return answer(decoder, entry, f, bytes);
	}
	struct decoded *x = &decoder->answers[ANSWER_COUNT].x;
	ZyanStatus said = ask(decoder, mode, bytes, available, x);
	if (status)
		*status = said;
	if (!ZYAN_SUCCESS(said))
		return NULL;
	if (entry == UNKNOWN && !learn(decoder, mode, bytes, x)) {
		decoder->full_count++;
		forget(decoder);
	}
	return x;
}
