/*
 * Waiting for the host's files: console input, debuggers' sockets, signals.
 *
 * One poller a machine, on the thread of its run loop. The loop asks it between turns without
 * waiting, and waits in it while the machine is paused or idle. A handler may add and remove
 * watches, its own too.
 */
#pragma once

#include "base/types.h"

struct poller;

struct poller_watch {
	/* `fd` is readable, at its end or broken; with poller_set_output() it can be written. */
	void (*ready)(void *opaque, int fd);
	void *opaque; /* borrowed */
};

int poller_create(struct poller **out); /* -ENOMEM */
void poller_destroy(struct poller *p);

/* The file stays the caller's. -ENOSPC. Adding a file again replaces its handler. */
int poller_add(struct poller *p, int fd, struct poller_watch watch);
/* Stops watching; nothing if it is not watched. */
void poller_remove(struct poller *p, int fd);
/* A watch that is present but not asked about while off (nobody can take its input now). */
void poller_enable(struct poller *p, int fd, bool on);
/* Wait until the file can be written instead of until it can be read: who has an answer to get rid
 * of takes no further question. */
void poller_set_output(struct poller *p, int fd, bool is_output);
/* Watches from which guest input may come are wakers; without one an idle guest never wakes. */
void poller_set_waker(struct poller *p, int fd, bool is_waker);
bool poller_has_waker(const struct poller *p);

#define POLLER_FOREVER UINT64_MAX
/* Waits at most `timeout_ns` and calls handlers. Returns how many. */
unsigned poller_wait(struct poller *p, uint64_t timeout_ns);
