/*
 * Names of a guest kernel's addresses: from a System.map, from what nm prints, or from the symbol
 * table of a vmlinux. Invariant: sorted by address; of several names of one address the first.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct symbols;

/* -EINVAL for a file that has no symbols (the message says what would be right), -EIO and the like,
 * -ENOMEM. */
int symbols_load(const char *path, struct symbols **out, struct error *e);
/* The same from memory; `name` is what messages call it. */
int symbols_parse(const char *name, const char *bytes, size_t size_bytes, struct symbols **out,
		  struct error *e);
void symbols_destroy(struct symbols *s); /* symbols_destroy(NULL) is legal */

size_t symbols_count(const struct symbols *s);
/* The last symbol at or before the address; NULL if there is none, or if that one is more than
 * SYMBOL_SPAN_MAX bytes away. */
#define SYMBOL_SPAN_MAX (1ull << 20)
const char *symbols_find(const struct symbols *s, uint64_t address);
