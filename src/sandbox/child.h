/*
 * A program of ours in a process of its own, and the socket to it: for what reads hostile bytes.
 *
 * The program lies beside gnomon, or in libexec. It gets an empty environment, /dev/null as its
 * standard files, and one end of a socket pair as descriptor CHILD_FD: one message is one send().
 * Its first message says whether it came up: "ok", or what is wrong. After that it enters its
 * sandbox (sandbox.h) and serves until the other end is closed, or whoever started it dies.
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"
#include "base/types.h"

#define CHILD_FD 3
#define CHILD_ARGUMENTS_MAX 8

struct child {
	pid_t pid;
	int fd; /* not blocking by itself: MSG_DONTWAIT */
};

/* `program` is a name, or with a '/' a path; `arguments` end with NULL. Returns when it is up.
 * -errno with the message, its own if it gave one. */
int child_start(struct child *c, const char *program, const char *const *arguments,
		struct error *e);
/* Ends it, however it is. */
void child_end(struct child *c);

/* ---- for the program ---- */

/* First of all: dies with whoever started it. */
void child_begin(void);
/* Says "ok", or e->text if `r` is not 0. False: there is nobody to serve. */
bool child_say_started(int r, const struct error *e);
