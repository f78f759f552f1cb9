/*
 * Private to boot/: unpacking a kernel's payload on the host, so that the guest need not spend a
 * billion instructions on it.
 */
#pragma once

#include "base/error.h"
#include "boot/bytes.h"

/* The name of the compression that starts like this ("xz"), or NULL if none that we know does. */
const char *unpack_method(struct bytes packed);

/* Unpacks to at most `max` bytes; *out is the caller's to free. -ENOEXEC for an unknown method or
 * damaged data, -EFBIG past the limit, -ENOMEM. */
int unpack(struct bytes packed, uint64_t max, uint8_t **out, uint64_t *out_size, struct error *e);
