/*
 * Where machines can be reached: the folder of sockets, the names in it, and the one socket that a
 * name means.
 *
 * The folder is $XDG_RUNTIME_DIR/gnomon, or /tmp/gnomon-UID where there is no such variable; it
 * belongs to the user alone. A socket is NAME.sock, and beside it lies NAME.sock.lock, which a
 * machine holds locked for as long as it lives: the kernel lets go of it however the machine ends,
 * so a socket whose lock is free is a dead machine's and may be replaced.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "base/types.h"

/* What sockaddr_un holds, with its NUL. */
#define CONTROL_PATH_BYTES 108
#define CONTROL_NAME_BYTES 64

/* 1 to 63 of A-Z a-z 0-9 . _ - and no dot first. -EINVAL with a message. */
int control_check_name(const char *name, struct error *e);

/* The folder; made if `is_made`. -EACCES if it belongs to somebody else or others may write in it.
 */
int control_folder(char path[CONTROL_PATH_BYTES], bool is_made, struct error *e);

/* The socket of a machine: `machine` itself if it has a slash, else NAME.sock in the folder. */
int control_find(const char *machine, char path[CONTROL_PATH_BYTES], bool is_made, struct error *e);

/* Calls `found` for each socket in the folder, in order of their names. None is no error. */
int control_list(void (*found)(void *opaque, const char *name, const char *path), void *opaque,
		 struct error *e);

/* Takes the place: locks it, removes what a dead machine left there. Returns the lock's file, or
 * -EADDRINUSE with a message if a machine lives there. */
int control_take_place(const char *path, struct error *e);
/* Removes socket and lock, and lets go of it. */
void control_leave_place(const char *path, int lock);
