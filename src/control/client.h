/* The other side of the control socket, for the commands of cli/. */
#pragma once

#include <jansson.h>

#include "base/error.h"
#include "base/types.h"
#include "control/place.h"

struct control_client;

/* Connects to the socket at `path`. -ECONNREFUSED or -ENOENT: no machine is there. */
int control_connect(struct control_client **out, const char *path, struct error *e);
void control_disconnect(struct control_client *c); /* NULL is legal */

/* Asks, and waits some seconds for the answer. *result is its "result"; the machine's own refusal
 * is -EPROTO with its message. Takes `request`, NULL too (out of memory). */
int control_ask(struct control_client *c, json_t *request, json_t **result, struct error *e);

/* Waits until the machine hangs up, which it does when it ends. -ETIMEDOUT after `timeout_ms` (-1:
 * never). */
int control_wait_end(struct control_client *c, int timeout_ms, struct error *e);
