/*
 * A place where one program at a time may connect: a loopback TCP port, a unix socket, or the
 * terminal. Under the monitor's server and gdb's. Private to debug/.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct poller;
struct listener;

struct listener_ops {
	void (*connected)(void *opaque);
	void (*received)(void *opaque, const uint8_t *bytes, size_t count);
	void (*disconnected)(void *opaque);
};

/* `where`: PORT, tcp:PORT, tcp::PORT, tcp:localhost:PORT, unix:PATH, and stdio if `allows_stdio`
 * (connected from the start). TCP listens on 127.0.0.1 only; who can connect owns the guest. */
int listener_open(struct listener **out, struct poller *poller, const char *where,
		  bool allows_stdio, const struct listener_ops *ops, void *opaque, struct error *e);
void listener_close(struct listener *l); /* NULL is legal */

/* Writes all, or hangs up if the other side does not read for some seconds. Nothing without a
 * connection. */
void listener_send(struct listener *l, const void *bytes, size_t count);
void listener_hang_up(struct listener *l);
bool listener_is_connected(const struct listener *l);
/* For port 0: which one the system gave. */
uint16_t listener_port(const struct listener *l);
