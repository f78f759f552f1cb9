/*
 * The control socket: how programs and people reach a machine that runs. One JSON object a line
 * asks, one answers (docs/control.md, docs/schema/control.json).
 *
 * It is served by the machine's poller between turns, so an answer shows one consistent moment, and
 * nothing a client does can hold up the guest: at most one request of a client is carried out
 * before the guest goes on, nothing is waited for, buffers are bounded, and who does not take his
 * answers is asked for nothing more. Who can connect owns the machine: the socket has mode 0600.
 *
 * Callers: cli/ opens it for `gnomon run`; control/client.h is the other side.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"
#include "control/place.h"

struct control;
struct vm;

#define CONTROL_VERSION 1
#define CONTROL_LINE_BYTES 65536u     /* of a request, with its line's end */
#define CONTROL_ANSWER_BYTES 4194304u /* of an answer */
#define CONTROL_CLIENTS_MAX 8u	      /* the one that was silent longest makes room */

/* What the machine's process does itself. */
struct control_host {
	/* Ends the machine: the power button and, after the grace period, hard; or at once. */
	void (*stop)(void *opaque, bool is_at_once);
	void *opaque; /* borrowed */
};

/* Opens the socket at `path`, for a machine called `name`. -EADDRINUSE if another machine has it;
 * the socket of one that is dead is replaced. */
int control_open(struct control **out, struct vm *vm, const char *name, const char *path,
		 struct control_host host, struct error *e);
void control_close(struct control *c); /* control_close(NULL) is legal */
const char *control_path(const struct control *c);
