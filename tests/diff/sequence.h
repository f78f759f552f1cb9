/* Sequences of random instructions; see sequence.c. */
#pragma once

#include "diff.h"

#define SEQUENCE_STEPS 16
#define SEQUENCE_BYTES 2048

struct sequence {
	unsigned mode;
	uint64_t rip; /* of the first byte; also in `start` */
	struct test_state start;
	uint8_t bytes[SEQUENCE_BYTES];
	unsigned length;
	/* What each step put there, for shrinking: the bytes from here to the next one's. */
	unsigned step_at[SEQUENCE_STEPS + 1];
	unsigned step_count;
};

/* Runs what there is of a sequence on the host, from the data that it began with. */
typedef void (*sequence_trial)(void *opaque, const struct sequence *s, struct test_state *out);

/* Makes one. `data` is the sandbox's contents at its begin, which the generator may change. */
void sequence_generate(struct generator *g, struct sequence *s, uint8_t *data, sequence_trial trial,
		       void *opaque);
/* The instruction at which the host ended, as a test case whose peculiarities compare() knows. */
void sequence_end(const struct sequence *s, const struct test_state *host, struct test_case *t);
/* Puts NOPs in place of a step. */
void sequence_blank(struct sequence *s, unsigned step);
void sequence_print(const struct sequence *s);
