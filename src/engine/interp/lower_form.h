/* Lowering that remembers what became of a form of instruction; lower.c's own. */
#pragma once

#include "engine/interp/block.h"

/* lower.c: lowers `x`, whose bytes are l->bytes, to *out, of which offset and mode are set. */
void lower_one(struct lowering *l, struct insn *out, const struct decoded *x);

/* Does the same for what was found in 64-bit code. False: it has to be decoded. */
bool lower_recall(struct lowering *l, const struct decode_found *f, struct insn *out,
		  bool *writes_memory);
/* `insn` is what lower_one() just made of `bytes`, 64-bit code. */
void lower_learn(struct lowering *l, const uint8_t *bytes, const struct insn *insn,
		 bool writes_memory);
