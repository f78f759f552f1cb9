/*
 * The engine `trans`: a same-ISA dynamic binary translator, x86-64 to x86-64.
 *
 * It is the interpreter with a hot half. Everything begins in engine/interp: its run loop, its
 * decoded blocks, its delivery of faults and interrupts, its handlers. A block of 64-bit or flat
 * 32-bit code that has become warm is translated to host code that runs straight on the host's
 * registers, and translated blocks lead to each other without the loop. What has no translation is
 * a call of the interpreter's handler, so the engine runs whatever `interp` runs.
 * docs/translator.md tells the whole story.
 */
#pragma once

#include "engine/engine.h"

extern const struct engine_ops trans_ops;

/* Why the interpreter executed an instruction of translated code. */
enum trans_why {
	TRANS_NOT_TRANSLATED,
	TRANS_RARE,   /* a case that its translation leaves out */
	TRANS_ACCESS, /* of its memory: a device, two pages, a watched page */
	TRANS_WHY_COUNT
};

struct trans_interpreted {
	const char *name; /* the instruction's mnemonic */
	enum trans_why why;
	uint64_t count;
};

struct trans_statistics {
	uint64_t executed;   /* instructions since the engine was made */
	uint64_t translated; /* of them */
	/* What translated code left to the interpreter, the most frequent first. */
	struct trans_interpreted *list;
	unsigned count;
};

/* Of all vcpus. -ENOMEM. */
int trans_statistics_read(const struct engine *engine, struct trans_statistics *out,
			  struct error *e);
void trans_statistics_fini(struct trans_statistics *statistics);
