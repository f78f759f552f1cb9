/*
 * Private to boot/: unpacking a kernel's payload on the host, so that the guest need not spend a
 * billion instructions on it.
 */
#pragma once

#include "base/error.h"
#include "boot/bytes.h"

/* A payload is refused when it unpacks to more. */
#define UNPACK_BYTES_MAX (1ull << 30)

/* The name of the compression that starts like this ("xz"), or NULL if none that we know does. */
const char *unpack_method(struct bytes packed);

/* Unpacks; *out is the caller's to free. -ENOEXEC for an unknown method or damaged data, -EFBIG
 * past the limit, -ENOMEM. */
int unpack(struct bytes packed, uint8_t **out, uint64_t *out_size, struct error *e);
