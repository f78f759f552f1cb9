/*
 * Options as a table: a command lists its options in rows, and gets parsing, the other spellings,
 * messages that name the nearest legal one, and help from them. `--name VALUE` and `--name=VALUE`
 * are the same.
 */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"

enum option_kind {
	OPTION_SWITCH, /* bool: present is true */
	OPTION_ON_OFF, /* bool: on|off, yes|no */
	OPTION_TEXT,   /* const char *, borrowed from argv */
	OPTION_NUMBER, /* uint64_t in min..max */
	OPTION_COUNT,  /* unsigned in min..max */
	OPTION_CHOICE, /* int: index into `choices` */
	OPTION_CUSTOM, /* set() */
	OPTION_WORD,   /* const char *: a word without dashes; the first row that has none yet */
};

struct option_row {
	const char *name; /* without the dashes */
	const char
		*aliases; /* other spellings with their dashes, a space between them; may be NULL */
	const char *argument; /* "FILE"; "[FILE]" if it may be missing (then only --name=FILE gives
				 one); NULL: a switch */
	const char *text;     /* help */
	const char *group;    /* heading in the help; NULL: as the row above */
	enum option_kind kind;
	size_t offset; /* of the target in the command's structure */
	uint64_t min, max;
	const char *const *choices; /* NULL after the last */
	/* `value` is NULL if the argument was optional and missing. */
	int (*set)(void *target, const char *value, struct error *e);
	const char *initial; /* OPTION_CUSTOM: the default, for who writes down what is in effect */
	bool is_command_only; /* says what to do, not how a machine is: no part of a configuration
			       */
};

#define OPTION_VALUES_MAX 64

/* What one option was given, in order. */
struct option_given {
	unsigned count;
	const char *values[OPTION_VALUES_MAX]; /* NULL: without a value */
	bool is_on_command_line;
};

/* Rows with the structure that they fill. */
struct option_set {
	const struct option_row *rows;
	size_t count;
	void *target;
	struct option_given *given; /* one a row, for who wants to know; may be NULL */
};

/* Goes through argv[1..argc). -EINVAL with a message for the first that is wrong. */
int options_parse(const struct option_row *rows, size_t count, void *target, int argc, char **argv,
		  struct error *e);
/* The same where a command's own rows come before those of another; the first set that knows a
 * spelling has it. */
int options_parse_sets(struct option_set *sets, size_t set_count, int argc, char **argv,
		       struct error *e);
/* Gives one option a value (NULL: none) from elsewhere. */
int options_set(struct option_set *set, const struct option_row *row, const char *value,
		struct error *e);
/* The help of all rows, group by group. */
void options_print(FILE *f, const struct option_row *rows, size_t count);

/* "512M", "2G", "64K", "1T", "12345B"; a plain number is in units of `unit_bytes`. */
int option_parse_size(const char *text, uint64_t unit_bytes, uint64_t *out, struct error *e);
/* Decimal or 0x hexadecimal, all of it. */
int option_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out,
			struct error *e);
