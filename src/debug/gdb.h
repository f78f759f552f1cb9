/*
 * gdb's remote serial protocol (gdb's manual, appendix E): the machine as a target whose threads
 * are its vcpus. Serves one debugger at a time on a loopback port or a unix socket. A debugger that
 * connects stops the machine; when it goes, its breakpoints go with it and the machine runs on.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct gdb;
struct vm;

/* `where`: PORT, tcp:PORT, tcp::PORT, unix:PATH; errors say what would be right. */
int gdb_open(struct gdb **out, struct vm *vm, const char *where, struct error *e);
void gdb_close(struct gdb *g); /* NULL is legal */
/* The TCP port it listens at (it may have asked for port 0). */
uint16_t gdb_port(const struct gdb *g);
