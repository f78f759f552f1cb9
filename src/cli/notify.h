/*
 * Tells the service manager that the machine is there, as sd_notify(3) describes: one datagram to
 * the socket that $NOTIFY_SOCKET names. Our own few lines, for libsystemd would be in every process
 * for them.
 */
#pragma once

#include "base/error.h"

/* A socket to $NOTIFY_SOCKET, to be closed; -1 where nobody asks. -errno with a message else. */
int notify_open(int *fd, struct error *e);
/* "READY=1", with the process's id. */
void notify_ready(int fd);
