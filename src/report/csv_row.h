/* Rows of RFC 4180, but for line ends, which are "\n". Private to report/. */
#pragma once

#include <stdio.h>

#include "base/types.h"

/* One row; a NULL field is empty. */
void csv_put_row(FILE *out, const char *const *fields, size_t count);
