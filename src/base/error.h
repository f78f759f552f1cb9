/*
 * What the host does wrong: a negative errno as the return value and one message for the person,
 * built where the most is known. Functions that can fail take a `struct error *` last, fill it once
 * with error_set() and hand the number up; only cli/ prints it. A message says what was wrong with
 * which file or flag and what would be right.
 */
#pragma once

#include "base/types.h"

struct error {
	int code; /* negative errno; 0 while nothing went wrong */
	char text[600];
};

/* Fills *e (which may be NULL) with `code` (a negative errno) and the formatted text; returns
 * `code`. */
int error_set(struct error *e, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of what is there already; returns the code. For callers that know the
 * file or flag. */
int error_prefix(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
