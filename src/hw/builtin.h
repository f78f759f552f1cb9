/* The files of profiles/ and profiles/base/, as scripts/embed.py puts them into the program. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct builtin_profile {
	const char *name; /* file name without ".json" */
	const char *text; /* NUL after the last byte */
	size_t size_bytes;
	bool is_base; /* of profiles/base/: not complete, there to be extended */
};

/* The complete ones first, by name; ends with a NULL name. */
extern const struct builtin_profile builtin_profiles[];
