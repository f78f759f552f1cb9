/* What the host's kernel and processor let generated code use. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* May a program write its GS base without a system call? */
bool host_has_fsgsbase(void);
/* The calling thread's GS base. C does not use it; whoever called us may. */
uint64_t host_gs_base(void);
void host_set_gs_base(uint64_t base);
