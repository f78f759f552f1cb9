/*
 * What a serial port says, on its way to somebody who may not read: a queue in front of a file.
 * A guest never waits for a reader. What one does not take in time is kept, up to a bound, and
 * beyond that lost and counted.
 */
#pragma once

#include "base/types.h"

struct poller;

struct serial_output {
	struct poller *poller; /* borrowed */
	int fd;		       /* borrowed; -1: none, and what is said goes nowhere */
	bool is_watched;       /* by us: input of the same file is somebody else's business */
	uint8_t *bytes;	       /* owned */
	size_t count, room;
	uint64_t lost;
};

/* The same file without ever waiting for it, where that needs a description of our own so that
 * others who have it do not notice: a pipe's or a terminal's. Otherwise `fd` itself. */
int serial_output_without_waiting(int fd);

/* `is_input`: the poller knows the file already. */
void serial_output_set(struct serial_output *o, struct poller *poller, int fd, bool is_input);
void serial_output_add(struct serial_output *o, const uint8_t *bytes, size_t count);
void serial_output_flush(struct serial_output *o);
/* Waits for a slow reader, not for one that takes nothing: what that one was to get is lost. */
void serial_output_settle(struct serial_output *o);
/* Settles and frees. */
void serial_output_end(struct serial_output *o);
