/*
 * Other runs for the phase diagram of a page: documents that `gnomon compare` or `gnomon bench
 * papers` wrote as JSON.
 */
#pragma once

#include "base/error.h"

/* The document as compact JSON, the caller's. -EINVAL where it is none of the two schemas (the
 * message says which), -EIO and the like, -ENOMEM. */
int points_load(const char *path, char **text, struct error *e);
