/* What a program of the host says first when it connects to a machine's vsock; for its test. */
#pragma once

#include "base/types.h"

/* "CONNECT PORT", without the line's end. */
bool virtio_vsock_greeting(const char *line, uint32_t *port);
