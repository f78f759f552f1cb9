/* Finding machines that run, for the commands that speak to them. */
#pragma once

#include <jansson.h>

#include "base/error.h"
#include "control/client.h"

#define MACHINES_MAX 256u

/* Connects to `machine`: a name, or a socket's path with a slash; NULL: the only one that runs. */
int machine_connect(struct control_client **out, const char *machine, struct error *e);

/* The sockets of the machines that answer, in order of their names, and what they answer to
 * `command`. At most `max`; those that do not answer are passed over. Returns how many. */
int machines_ask(const char *command, json_t **answers, unsigned max, struct error *e);
