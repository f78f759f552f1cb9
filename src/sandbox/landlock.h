/*
 * Which files a process of ours may still open, make or remove, whatever it is made to do: Linux'
 * Landlock, from 5.13 on. What is open already is not touched. It also holds for io_uring, which
 * no filter of system calls sees.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

enum landlock_use {
	LANDLOCK_READ,	 /* the file may be read */
	LANDLOCK_CHANGE, /* in the folder: files may be made, written, renamed and removed */
	LANDLOCK_REMOVE, /* in the folder: files may be removed */
};

struct landlock_place {
	const char *path;
	enum landlock_use use;
};

/* From now on only these, for the calling thread and those it makes; new TCP connections and
 * listeners are over, too, where the kernel can say so. Places that do not exist are passed over.
 * -ENOSYS without a message: this kernel has no Landlock. */
int landlock_enter(const struct landlock_place *places, size_t count, struct error *e);
