/*
 * Two processes that work in turn: what makes the kernel load CR3 at a rate that one chooses. The
 * second process is a fork of the first. Who has no turn yields the processor until it has one, as
 * the processes of a message-passing program do that wait for each other; on one processor a turn
 * is two context switches, one there and one back, and little else.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct pair_turns;

struct pair {
	struct pair_turns *turns; /* in memory that both share */
	pid_t child;
};

/* One turn of the second process; `opaque` is as it was at the fork. */
typedef void (*pair_turn_fn)(void *opaque);

/* Starts the second process and waits until `prepare` (may be NULL) is done there. */
void pair_start(struct pair *pair, pair_turn_fn prepare, pair_turn_fn turn, void *opaque);

/* Lets the second process have one turn and waits until it is over. */
void pair_turn(struct pair *pair);

void pair_end(struct pair *pair);
