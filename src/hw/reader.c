#include "hw/reader.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_plain_key(const char *key)
{
	if (!isalpha((unsigned char)*key))
		return false;
	for (; *key; key++)
		if (!isalnum((unsigned char)*key) && *key != '_')
			return false;
	return true;
}

/* A place deeper than the buffer loses its tail, never more. */
static void append_path(struct reader *r, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void append_path(struct reader *r, const char *format, ...)
{
	size_t room = sizeof(r->path) - r->path_length;
	va_list arguments;

	va_start(arguments, format);
	int n = vsnprintf(r->path + r->path_length, room, format, arguments);
	va_end(arguments);
	if (n > 0)
		r->path_length += (size_t)n < room ? (size_t)n : room - 1;
}

size_t reader_enter(struct reader *r, const char *key)
{
	size_t mark = r->path_length;

	append_path(r, is_plain_key(key) ? ".%.60s" : "[\"%.60s\"]", key);
	return mark;
}

size_t reader_enter_index(struct reader *r, size_t index)
{
	size_t mark = r->path_length;

	append_path(r, "[%zu]", index);
	return mark;
}

void reader_leave(struct reader *r, size_t mark)
{
	r->path_length = mark;
	r->path[mark] = 0;
}

int reader_refuse(struct reader *r, const char *format, ...)
{
	char text[400];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return error_set(r->error, -EINVAL, "%.100s: %s: %s", r->origin,
			 r->path_length ? r->path : ".", text);
}

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t least = a < b ? a : b;

	return least < c ? least : c;
}

#define WORD_MAX 48

/* Levenshtein's distance, one row at a time; words longer than WORD_MAX are near to nothing. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t length_b = strlen(b), row[WORD_MAX + 1];

	if (strlen(a) > WORD_MAX || length_b > WORD_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= length_b; j++)
		row[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = row[0];

		row[0] = i + 1;
		for (size_t j = 0; j < length_b; j++) {
			size_t above = row[j + 1];

			row[j + 1] = min3(row[j] + 1, above + 1, diagonal + (a[i] != b[j]));
			diagonal = above;
		}
	}
	return row[length_b];
}

const char *nearest_word(const char *word, const char *const *words, size_t word_count)
{
	size_t best_distance = strlen(word) / 2 + 1;
	const char *best = NULL;

	for (size_t i = 0; i < word_count; i++) {
		size_t distance = words[i] ? edit_distance(word, words[i]) : SIZE_MAX;

		if (distance <= best_distance && (!best || distance < best_distance)) {
			best = words[i];
			best_distance = distance;
		}
	}
	return best;
}

/* "a, b, c" for messages; cut at the buffer's end. */
static void list_words(const char *const *words, size_t word_count, char *text, size_t size)
{
	size_t at = 0;

	text[0] = 0;
	for (size_t i = 0; i < word_count && at < size; i++)
		at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", words[i]);
}

int reader_check_keys(struct reader *r, const json_t *object, const char *const *keys,
		      size_t key_count)
{
	char legal[240];
	const char *key;
	json_t *value;

	if (!json_is_object(object))
		return reader_refuse(r, "must be an object");
	json_object_foreach((json_t *)object, key, value)
	{
		size_t i = 0;

		while (i < key_count && strcmp(keys[i], key))
			i++;
		if (i < key_count)
			continue;
		const char *near = nearest_word(key, keys, key_count);
		if (near)
			return reader_refuse(r, "unknown key \"%.60s\"; did you mean \"%s\"?", key,
					     near);
		list_words(keys, key_count, legal, sizeof(legal));
		return reader_refuse(r, "unknown key \"%.60s\"; there may be: %s", key, legal);
	}
	return 0;
}

int reader_string(struct reader *r, const json_t *object, const char *key, size_t max_length,
		  const char **out)
{
	const json_t *value = json_object_get(object, key);
	const char *text = json_string_value(value);

	if (!value)
		return reader_refuse(r, "\"%s\" is missing (a string)", key);
	if (!text || !*text)
		return reader_refuse(r, "\"%s\" must be a string that is not empty", key);
	if (strlen(text) > max_length)
		return reader_refuse(r, "\"%s\" is longer than %zu bytes", key, max_length);
	for (const char *c = text; *c; c++)
		if (iscntrl((unsigned char)*c))
			return reader_refuse(r, "\"%s\" holds a control character", key);
	*out = text;
	return 0;
}

int reader_basis(struct reader *r, const json_t *fact, enum mark *mark, const char **source)
{
	const char *letter;
	int rc = reader_string(r, fact, "class", 32, &letter);

	if (rc)
		return rc;
	for (int m = 0; m < MARK_COUNT; m++) {
		if (letter[0] != mark_letter((enum mark)m) || letter[1])
			continue;
		*mark = (enum mark)m;
		return reader_string(r, fact, "source", 400, source);
	}
	return reader_refuse(r, "\"class\" is \"%s\", which is none of S, T, K, D, E", letter);
}

int reader_note(struct reader *r, const char *value, const char *unit, enum mark mark,
		const char *source)
{
	struct profile *p = r->profile;

	if (p->fact_count == r->fact_capacity) {
		size_t capacity = r->fact_capacity ? 2 * r->fact_capacity : 64;
		struct fact *facts = realloc(p->facts, capacity * sizeof(*facts));

		if (!facts)
			return error_set(r->error, -ENOMEM, "no memory for a profile");
		p->facts = facts;
		r->fact_capacity = capacity;
	}
	struct fact *f = &p->facts[p->fact_count];

	*f = (struct fact){.unit = unit, .mark = mark, .source = source};
	f->path = strdup(r->path);
	f->value = strdup(value);
	if (!f->path || !f->value) {
		free(f->path);
		free(f->value);
		return error_set(r->error, -ENOMEM, "no memory for a profile");
	}
	p->fact_count++;
	return 0;
}

/* The JSON value x 1000, exactly; false if it is negative, no number, too large or has more than
 * three decimals. */
static bool millis_of(const json_t *value, uint64_t *out)
{
	if (json_is_integer(value)) {
		json_int_t v = json_integer_value(value);

		if (v < 0 || v > INT64_MAX / 1000)
			return false;
		*out = (uint64_t)v * 1000;
		return true;
	}
	if (!json_is_real(value))
		return false;

	double scaled = json_real_value(value) * 1000.0;
	double whole = nearbyint(scaled);

	if (!(scaled >= 0 && scaled < 9e15) || fabs(scaled - whole) > 1e-6 * (1 + scaled * 1e-9))
		return false;
	*out = (uint64_t)whole;
	return true;
}

static int check_value(struct reader *r, const json_t *fact, const struct number_rule *rule,
		       uint64_t *millis)
{
	static const char *const keys[] = {"value", "unit", "class", "source"};
	const json_t *value = json_object_get(fact, "value");
	const char *unit;
	int rc = reader_check_keys(r, fact, keys, ARRAY_COUNT(keys));

	if (rc)
		return rc;
	if (!value)
		return reader_refuse(r, "\"value\" is missing (a number of %s)", rule->unit);
	if (!json_is_number(value))
		return reader_refuse(r, "\"value\" must be a number");
	if (!millis_of(value, millis) || (!rule->may_be_fraction && *millis % 1000) ||
	    *millis / 1000 > rule->max || *millis < rule->min * 1000 || *millis > rule->max * 1000)
		return reader_refuse(r, "\"value\" must be %s from %" PRIu64 " to %" PRIu64,
				     rule->may_be_fraction ? "a number with at most three decimals"
							   : "an integer",
				     rule->min, rule->max);
	rc = reader_string(r, fact, "unit", 32, &unit);
	if (rc)
		return rc;
	if (strcmp(unit, rule->unit))
		return reader_refuse(r, "\"unit\" is \"%s\"; here it must be \"%s\"", unit,
				     rule->unit);
	return 0;
}

int reader_note_number(struct reader *r, const struct number *n, const char *unit)
{
	unsigned thousandths = (unsigned)(n->millis % 1000);
	char value[40];
	int length = snprintf(value, sizeof(value), "%" PRIu64, n->millis / 1000);

	if (thousandths)
		snprintf(value + length, sizeof(value) - (size_t)length, ".%03u", thousandths);
	return reader_note(r, value, unit, n->mark, n->source);
}

int reader_number(struct reader *r, const json_t *object, const char *key,
		  const struct number_rule *rule, struct number *out)
{
	const json_t *fact = json_object_get(object, key);

	if (!fact)
		return reader_refuse(r, "\"%.60s\" is missing", key);

	size_t mark = reader_enter(r, key);
	int rc = check_value(r, fact, rule, &out->millis);

	if (!rc)
		rc = reader_basis(r, fact, &out->mark, &out->source);
	if (!rc)
		rc = reader_note_number(r, out, rule->unit);
	if (!rc)
		reader_leave(r, mark);
	return rc;
}

int reader_bool(struct reader *r, const json_t *object, const char *key, bool *out)
{
	static const char *const keys[] = {"value", "class", "source"};
	const json_t *fact = json_object_get(object, key);
	const char *source;
	enum mark basis;

	if (!fact)
		return reader_refuse(r, "\"%s\" is missing", key);

	size_t mark = reader_enter(r, key);
	const json_t *value = json_object_get(fact, "value");
	int rc = reader_check_keys(r, fact, keys, ARRAY_COUNT(keys));

	if (!rc && !json_is_boolean(value))
		rc = reader_refuse(r, "\"value\" must be true or false");
	if (!rc)
		rc = reader_basis(r, fact, &basis, &source);
	if (!rc) {
		*out = json_is_true(value);
		rc = reader_note(r, *out ? "true" : "false", "", basis, source);
	}
	if (!rc)
		reader_leave(r, mark);
	return rc;
}
