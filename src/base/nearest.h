/* The legal name that somebody probably meant. */
#pragma once

#include "base/types.h"

/* Of `count` names that name(opaque, i) gives (NULL ones are skipped) the one nearest to `wanted`
 * in edits (insert, delete, replace, swap neighbours); NULL if none is near. */
const char *nearest(const char *wanted, size_t count,
		    const char *(*name)(const void *opaque, size_t i), const void *opaque);
