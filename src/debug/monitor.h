/*
 * The monitor: text commands that look at a machine and steer it. Reached by Ctrl-A c on the
 * terminal, by --monitor's socket, and by gdb's `monitor`. Commands run between the machine's
 * turns, so what they show is one consistent moment; the guest goes on meanwhile unless `stop` was
 * said.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct monitor;
struct monitor_server;
struct vm;

/* Where answers go. */
typedef void monitor_output_fn(void *opaque, const char *text, size_t count);

/* Answers are for a terminal in raw mode: typed characters are echoed and lines edited. */
int monitor_create(struct monitor **out, struct vm *vm, monitor_output_fn *output, void *opaque,
		   struct error *e);
void monitor_destroy(struct monitor *m);
/* Echo and "\r\n" off: the other side is a program or a terminal in its usual mode. */
void monitor_set_plain(struct monitor *m);

/* Says what this is and prompts. */
void monitor_greet(struct monitor *m);
/* Typed bytes; a line's end executes it. */
void monitor_receive(struct monitor *m, const uint8_t *bytes, size_t count);
/* One command, without the prompt. */
void monitor_execute(struct monitor *m, const char *line);

/* A server on `where`: stdio, unix:PATH or tcp:PORT (loopback only). Errors say what would be
 * right. */
int monitor_server_open(struct monitor_server **out, struct vm *vm, const char *where,
			struct error *e);
void monitor_server_close(struct monitor_server *s);
