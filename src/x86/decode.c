/* The tree of forms (decode.h): its nodes and leaves lie in one arena and refer to each other by
 * their offsets in it. */
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
	uint8_t offset, size_bytes;
	bool is_signed;
	uint16_t raw, operand; /* offsets; operand 0: none */
};

#define VALUE_COUNT_MAX 3

struct form {
	uint8_t length, value_count;
	struct value values[VALUE_COUNT_MAX];
	_Alignas(8) struct decoded decoded;
};

#define OPERANDS_BYTES_MAX (ZYDIS_MAX_OPERAND_COUNT * sizeof(ZydisDecodedOperand))

union scratch {
	struct decoded decoded;
	uint8_t room[sizeof(struct decoded) + OPERANDS_BYTES_MAX];
};

struct decoder {
	ZydisDecoder zydis[DECODE_MODE_COUNT];
	uint32_t roots[DECODE_MODE_COUNT]; /* entries */
	uint8_t *arena;
	size_t used;
	uint64_t hit_count, full_count;
	union scratch answer; /* what is of no form */
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

static void put_values(struct form *f, const uint8_t *bytes)
{
	uint8_t *decoded = (uint8_t *)&f->decoded;
	for (unsigned k = 0; k < f->value_count; k++) {
		const struct value *v = &f->values[k];
		uint64_t value = read_value(v, bytes);
		memcpy(decoded + v->raw, &value, sizeof(value));
		if (v->operand)
			memcpy(decoded + v->operand, &value, sizeof(value));
	}
}

static uint16_t offset_of_operand(unsigned index, size_t member)
{
	return (uint16_t)(offsetof(struct decoded, operands) + index * sizeof(ZydisDecodedOperand) +
			  member);
}

static void add_displacement(struct form *f)
{
	const ZydisDecodedInstruction *d = &f->decoded.d;
	struct value v = {.offset = d->raw.disp.offset,
			  .size_bytes = d->raw.disp.size / 8,
			  .is_signed = true,
			  .raw = offsetof(struct decoded, d.raw.disp.value)};
	for (unsigned k = 0; k < d->operand_count; k++) {
		const ZydisDecodedOperand *o = &f->decoded.operands[k];
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.disp.has_displacement)
			v.operand =
				offset_of_operand(k, offsetof(ZydisDecodedOperand, mem.disp.value));
	}
	f->values[f->value_count++] = v;
}

/* Immediate number `index`, which the next immediate operand from *operand on is. */
static void add_immediate(struct form *f, unsigned index, unsigned *operand)
{
	const ZydisDecodedInstruction *d = &f->decoded.d;
	struct value v = {
		.offset = d->raw.imm[index].offset,
		.size_bytes = d->raw.imm[index].size / 8,
		.is_signed = d->raw.imm[index].is_signed,
		.raw = (uint16_t)(offsetof(struct decoded, d.raw.imm[0].value) +
				  index * sizeof(d->raw.imm[0])),
	};
	for (; *operand < d->operand_count && !v.operand; ++*operand)
		if (f->decoded.operands[*operand].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
			v.operand = offset_of_operand(*operand,
						      offsetof(ZydisDecodedOperand, imm.value));
	f->values[f->value_count++] = v;
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

static size_t decoded_bytes(const struct decoded *x)
{
	return sizeof(*x) + x->d.operand_count * sizeof(x->operands[0]);
}

static ZyanStatus ask(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		      unsigned available, union scratch *s)
{
	memset(s, 0, sizeof(*s)); /* so that equal ones have equal bytes */
	return ZydisDecoderDecodeFull(&decoder->zydis[mode], bytes, available, &s->decoded.d,
				      s->decoded.operands);
}

/* Does Zydis say the same of `bytes` with all values turned around? */
static bool is_sound(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		     struct form *f)
{
	uint8_t other[INSN_BYTES_MAX];
	union scratch s;
	for (unsigned k = 0; k < f->length; k++)
		other[k] = k < fixed_bytes(f) ? bytes[k] : (uint8_t)~bytes[k];
	if (!is_tiled(f) || !ZYAN_SUCCESS(ask(decoder, mode, other, f->length, &s)))
		return false;
	put_values(f, other);
	bool is_same = !memcmp(&f->decoded, &s.decoded, decoded_bytes(&s.decoded));
	put_values(f, bytes);
	return is_same;
}

/* ---- the tree ---- */

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

static void describe(struct form *f, const union scratch *s)
{
	unsigned operand = 0;
	f->value_count = 0;
	f->length = s->decoded.d.length;
	memcpy(&f->decoded, &s->decoded, decoded_bytes(&s->decoded));
	if (s->decoded.d.raw.disp.size)
		add_displacement(f);
	for (unsigned k = 0; k < 2; k++)
		if (s->decoded.d.raw.imm[k].size)
			add_immediate(f, k, &operand);
}

/* Remembers `s`, what Zydis made of `bytes`. False: no room. */
static bool learn(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		  const union scratch *s)
{
	union {
		struct form f;
		uint8_t room[sizeof(struct form) + OPERANDS_BYTES_MAX];
	} u;
	size_t size_bytes = offsetof(struct form, decoded) + decoded_bytes(&s->decoded);
	describe(&u.f, s);
	bool is_form = is_sound(decoder, mode, bytes, &u.f);
	uint32_t *entry = entry_of(decoder, mode, bytes, fixed_bytes(&u.f));
	if (!entry)
		return false;
	if (*entry != UNKNOWN)
		return true;
	*entry = is_form ? take(decoder, size_bytes) : REFUSED;
	if (!is_form || !*entry)
		return *entry;
	memcpy(at(decoder, *entry), &u.f, size_bytes);
	*entry |= IS_FORM;
	return true;
}

const struct decoded *decoder_decode(struct decoder *decoder, enum decode_mode mode,
				     const uint8_t *bytes, unsigned available, ZyanStatus *status)
{
	uint32_t entry = decoder->roots[mode];
	for (unsigned k = 0; is_node(entry) && k < available; k++)
		entry = ((const struct node *)at(decoder, entry))->next[bytes[k]];
	if (entry & IS_FORM) {
		struct form *f = at(decoder, entry);
		if (f->length <= available) {
			decoder->hit_count++;
			put_values(f, bytes);
			return &f->decoded;
		}
	}
	union scratch *s = &decoder->answer;
	ZyanStatus said = ask(decoder, mode, bytes, available, s);
	if (status)
		*status = said;
	if (!ZYAN_SUCCESS(said))
		return NULL;
	if (entry == UNKNOWN && !learn(decoder, mode, bytes, s)) {
		decoder->full_count++;
		forget(decoder);
	}
	return &s->decoded;
}
