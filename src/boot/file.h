/*
 * Private to boot/: reading a file whole.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

/* Reads all of `path` (a file, a pipe) into *out, the caller's to free; refuses directories, empty
 * files and more than `max` bytes. The message names the path and `what` it should have been. */
int file_read(const char *path, const char *what, uint64_t max, uint8_t **out, uint64_t *out_size,
	      struct error *e);
