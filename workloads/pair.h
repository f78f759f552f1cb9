/*
 * Two processes that work in turn: what makes the kernel load CR3 at a rate that one chooses. The
 * second process is a fork of the first and sleeps until it is given a turn; on one processor each
 * turn costs two context switches, one there and one back.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct pair {
	int to, from; /* pipes */
	pid_t child;
};

/* One turn of the second process; `opaque` is as it was at the fork. */
typedef void (*pair_turn_fn)(void *opaque);

/* Starts the second process and waits until `prepare` (may be NULL) is done there. */
void pair_start(struct pair *pair, pair_turn_fn prepare, pair_turn_fn turn, void *opaque);

/* Lets the second process have one turn and waits until it is over. */
void pair_turn(struct pair *pair);

void pair_end(struct pair *pair);
