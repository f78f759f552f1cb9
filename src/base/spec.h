/*
 * Options that are lists: "FILE,readonly=on,serial=abc", as QEMU writes them. A table of rows names
 * the keys; a comma inside a value is written twice.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

enum spec_kind {
	SPEC_TEXT,   /* const char *, in the list's copy */
	SPEC_ON_OFF, /* bool: on|off, yes|no, true|false, or the key alone */
	SPEC_CHOICE, /* int: index into `choices` */
	SPEC_NUMBER, /* uint64_t in min..max, decimal or 0x */
	SPEC_SIZE,   /* the same, with K, M, G or T behind it */
};

struct spec_row {
	const char *name;
	enum spec_kind kind;
	size_t offset; /* in the target */
	const char *const *choices;
	uint64_t min, max;
	bool is_first; /* a first word without a key is its value */
};

/* Fills `target`'s fields, which hold their defaults. *copy gets what the texts point into, for
 * free(), also after an error. -EINVAL with the key and what would be legal; -ENOMEM. */
int spec_parse(const char *text, const struct spec_row *rows, size_t count, void *target,
	       char **copy, struct error *e);
