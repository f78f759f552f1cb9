/*
 * Where a serial port's bytes go on the host: the terminal, a file, a pseudo-terminal, a unix
 * socket, nowhere.
 *
 * Output is buffered until serial_pump(), which the run loop calls at every poll, so that a byte is
 * not a system call. Input is offered to the sink (the UART) and what it does not take waits here;
 * while something waits the file is not read, so nothing is lost and nothing grows. On the terminal
 * Ctrl-A introduces a command, as in QEMU.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct poller;
struct serial;

/* Takes input; returns how many bytes it took. */
struct serial_sink {
	size_t (*receive)(void *opaque, const uint8_t *bytes, size_t count);
	void (*send_break)(void *opaque); /* may be NULL */
	void *opaque;			  /* borrowed */
};

/* A key that followed Ctrl-A on the terminal: 'x', 'c', 'h'. 's' and Ctrl-A are dealt with here. */
struct serial_escape {
	void (*pressed)(void *opaque, char key);
	void *opaque; /* borrowed */
};

/* `spec`: stdio (mon:stdio too), file:PATH, pty, unix:PATH[,server], null. Errors say what would be
 * right. The terminal is put into raw mode until serial_close(). The poller outlives the serial. */
int serial_open(struct serial **out, const char *spec, struct poller *poller, struct error *e);
void serial_close(struct serial *s); /* serial_close(NULL) is legal */
/* Is `spec` one that serial_open() would understand? Opens nothing. */
int serial_check(const char *spec, struct error *e);

void serial_set_sink(struct serial *s, struct serial_sink sink);
void serial_set_escape(struct serial *s, struct serial_escape escape);
/* While `monitor` is not NULL (it is copied) input goes there and the guest's output is still
 * shown. */
void serial_divert(struct serial *s, const struct serial_sink *monitor);
bool serial_is_diverted(const struct serial *s);

/* The guest's output. */
void serial_write(struct serial *s, const uint8_t *bytes, size_t count);
/* Offers waiting input again and writes buffered output, as far as somebody reads it. */
void serial_pump(struct serial *s);
/* The machine has ended: all output comes before what is said about that. */
void serial_settle(struct serial *s);

bool serial_is_stdio(const struct serial *s);
/* Somebody may sit there and watch time pass: a terminal, a pseudo-terminal, a socket. */
bool serial_is_interactive(const struct serial *s);
/* The pseudo-terminal's path, else NULL. */
const char *serial_path(const struct serial *s);

/* Puts the terminal back (before the process stops) and into raw mode again. */
void serial_terminal_leave(struct serial *s);
void serial_terminal_enter(struct serial *s);
