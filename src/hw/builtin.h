/* The files of profiles/, as scripts/embed.py puts them into the program. */
#pragma once

#include <stddef.h>

struct builtin_profile {
	const char *name; /* file name without ".json" */
	const char *text; /* NUL after the last byte */
	size_t size_bytes;
};

/* Ends with a NULL name. */
extern const struct builtin_profile builtin_profiles[];
