/*
 * Decoding with a memory: Zydis decodes an instruction once, and whatever differs from it only in
 * the values of its displacement and immediates is answered from what it said then.
 *
 * What an instruction is follows from its prefixes, opcode, ModRM and SIB; the bytes behind them
 * are numbers. So a program of a million instructions has some thousand forms of them. They are the
 * leaves of a tree of 256-way tables, one level for each of those bytes; a look-up walks it and
 * puts the numbers where Zydis would have put them. That nothing but the numbers depends on them is
 * not taken on trust: a form is remembered only if Zydis, asked about the same bytes with every bit
 * of the numbers turned around, says the same. The others (a register in an immediate's upper half,
 * an opcode behind the displacement) go to Zydis each time, and so does what it refuses.
 *
 * What Zydis says is 600 bytes and more, of which forms of one opcode share all but a few: a form
 * is a line of the processor's cache that says what differs from another one's, and what was said
 * last of some dozens is kept as it is.
 *
 * Who asks has room with each form, for what it makes of the instruction: with decoder_find() it
 * has that and the numbers, and needs not look at what Zydis said.
 *
 * The memory is bounded; when it is full all of it is forgotten.
 */
#pragma once

#include <Zydis/Zydis.h>

#include "base/error.h"

enum decode_mode { DECODE_16, DECODE_32, DECODE_64, DECODE_MODE_COUNT };

struct decoder;

/* What Zydis says of an instruction. Of the operands behind its `d.operand_count` the first
 * DECODE_OPERANDS are zeros. */
#define DECODE_OPERANDS 4
struct decoded {
	ZydisDecodedInstruction d;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

int decoder_create(struct decoder **out, struct error *e);
void decoder_destroy(struct decoder *decoder); /* decoder_destroy(NULL) is legal */

/* The instruction at the first of `available` bytes, until the next call; NULL: `*status` is what
 * ZydisDecoderDecodeFull() says of it. `status` may be NULL. */
const struct decoded *decoder_decode(struct decoder *decoder, enum decode_mode mode,
				     const uint8_t *bytes, unsigned available, ZyanStatus *status);

#define DECODE_VALUES_MAX 3
#define DECODE_KEPT_BYTES 64u

/* What the bytes of an instruction are: a form and numbers. */
struct decode_found {
	void *kept; /* DECODE_KEPT_BYTES, zeros at first; until the next decoder_decode() */
	uint8_t length, value_count;
	struct decode_value {
		uint8_t offset, size_bytes; /* in the instruction */
		uint64_t value;		    /* extended as Zydis does */
	} values[DECODE_VALUES_MAX];	    /* of displacement and immediates, in this order */
};

/* False: decoder_decode() has to be asked. It is no use to it that `available` bytes are more. */
bool decoder_find(struct decoder *decoder, enum decode_mode mode, const uint8_t *bytes,
		  unsigned available, struct decode_found *out);

/* How often Zydis was not asked, and how often everything was forgotten. */
uint64_t decoder_hit_count(const struct decoder *decoder);
uint64_t decoder_full_count(const struct decoder *decoder);
