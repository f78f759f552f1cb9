/* What the host's kernel and processor let generated code use. */
#pragma once

#include <stdbool.h>

/* May a program write its GS base without a system call? */
bool host_has_fsgsbase(void);
