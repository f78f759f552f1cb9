/*
 * Reading a profile's JSON: a cursor that knows where in the document it stands, so that each
 * refusal names the place (in jq's notation, .prices["exit.cpuid"].handling) and says what would be
 * right there. Private to hw/.
 *
 * Every function answers 0 or a negative errno with reader->error filled; the first refusal ends
 * the reading.
 */
#pragma once

#include <jansson.h>

#include "hw/hw.h"

struct reader {
	struct profile *profile; /* being filled; facts are appended as numbers are read */
	struct error *error;
	const char *origin;
	size_t fact_capacity;
	size_t path_length;
	char path[240];
};

/* Steps into a member or an element; reader_leave() takes what it returned. */
size_t reader_enter(struct reader *r, const char *key);
size_t reader_enter_index(struct reader *r, size_t index);
void reader_leave(struct reader *r, size_t mark);

/* Refuses at the present place: "ORIGIN: PLACE: text". Always -EINVAL. */
int reader_refuse(struct reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `object` is a JSON object whose keys are all among `keys`: else refused with the nearest one. */
int reader_check_keys(struct reader *r, const json_t *object, const char *const *keys,
		      size_t key_count);

/* What a place demands of the number that stands there. */
struct number_rule {
	const char *unit;
	uint64_t min, max;
	bool may_be_fraction; /* up to three decimals */
};

/* Reads {"value", "unit", "class", "source"}, the value as `object`.`key`, and notes the fact. */
int reader_number(struct reader *r, const json_t *object, const char *key,
		  const struct number_rule *rule, struct number *out);
/* Notes a number as a fact at the present place. */
int reader_note_number(struct reader *r, const struct number *n, const char *unit);
int reader_bool(struct reader *r, const json_t *object, const char *key, bool *out);
/* The members "class" and "source" of a fact. */
int reader_basis(struct reader *r, const json_t *fact, enum mark *mark, const char **source);
/* A string of at least one and at most `max_length` printable characters; borrowed from the
 * document. */
int reader_string(struct reader *r, const json_t *object, const char *key, size_t max_length,
		  const char **out);
/* Appends a fact at the present place; `value` is copied. */
int reader_note(struct reader *r, const char *value, const char *unit, enum mark mark,
		const char *source);

/* "extends": adds to the document what the profiles that it extends have and it has
 * not. base.c. */
int reader_resolve(struct reader *r, json_t *root);
/* "prices": every price, stated or derived. prices.c. */
int reader_prices(struct reader *r, const json_t *root);

/* The word of `words` that is the fewest edits from `word`; NULL if none is near. Words may be
 * NULL. */
const char *nearest_word(const char *word, const char *const *words, size_t word_count);
