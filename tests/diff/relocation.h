/* The law of relocation (engine/trans/relocate.c). */
#pragma once

#include <stdbool.h>

struct interp;

/* For every block of the machine, which runs under trans, that has a translation: one that was
 * relocated is, to the byte, the one that is made at its place, and one that was moved there and
 * back is what it was. Returns what is not so, or NULL. */
const char *relocation_difference(struct interp *vm);
