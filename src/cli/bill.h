/* The bill of a run, as report/ makes it, printed where the options say. */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"

struct vm;

/* At the end: the guest's regions of interest if it marked any, else the whole run. `format` is an
 * enum report_format; `file` NULL is standard output. */
int bill_print(struct vm *vm, int format, const char *file, struct error *e);
/* The whole run so far, while it goes on. */
void bill_print_now(struct vm *vm, int format, FILE *f);
