/*
 * Signals as input of the run loop: they are blocked and read from a file by the machine's poller,
 * so a handler runs between turns and may do anything.
 */
#pragma once

#include <signal.h>

#include "base/error.h"
#include "base/types.h"

struct poller;
struct signals;

/* Holds back what signals_open() will read, before anything that takes long. Ignores SIGPIPE. Makes
 * a crash put the terminal back. */
void signals_block(void);

/* For who dies in a signal's handler: the terminal is in a usual mode again. */
void signals_restore_terminal(void);

/* `arrived` is called for INT, TERM, HUP, QUIT, USR1, TSTP and CONT. */
int signals_open(struct signals **out, struct poller *poller,
		 void (*arrived)(void *opaque, int number), void *opaque, struct error *e);
/* Lets the signals do what they do by default again. */
void signals_close(struct signals *s);
