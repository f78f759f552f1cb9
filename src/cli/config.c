#include "cli/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"

/* ---- in ---- */

static const char *row_name(const void *opaque, size_t i)
{
	const struct option_row *row = (const struct option_row *)opaque + i;
	return row->is_command_only || row->kind == OPTION_WORD ? NULL : row->name;
}

static const struct option_row *find(const struct option_set *set, const char *name,
				     struct error *e)
{
	for (size_t i = 0; i < set->count; i++)
		if (row_name(set->rows, i) && !strcmp(set->rows[i].name, name))
			return &set->rows[i];
	const char *near = nearest(name, set->count, row_name, set->rows);
	error_set(e, -EINVAL, "there is no such key%s%s%s", near ? "; did you mean \"" : "",
		  near ? near : "", near ? "\"?" : "");
	return NULL;
}

/* A number as the command line would have it; the document owns the text. */
static int number_text(json_t *owner, const json_t *value, const char **out, struct error *e)
{
	char text[40];
	if (json_is_integer(value))
		snprintf(text, sizeof(text), "%lld", json_integer_value(value));
	else
		snprintf(text, sizeof(text), "%.17g", json_real_value(value));
	json_t *kept = json_string(text);
	if (!kept || json_array_append_new(owner, kept))
		return error_set(e, -ENOMEM, "out of memory");
	*out = json_string_value(kept);
	return 0;
}

static int wrong_type(const struct option_row *row, struct error *e)
{
	static const char *const wanted[] = {
		[OPTION_SWITCH] = "true or false",
		[OPTION_ON_OFF] = "true or false",
		[OPTION_TEXT] = "a string",
		[OPTION_NUMBER] = "a whole number",
		[OPTION_COUNT] = "a whole number",
		[OPTION_CHOICE] = "a string",
		[OPTION_CUSTOM] = "a string, a number or a list of them",
	};
	return error_set(e, -EINVAL, "it must be %s", wanted[row->kind]);
}

static bool has_type(const struct option_row *row, const json_t *value)
{
	switch (row->kind) {
	case OPTION_SWITCH:
	case OPTION_ON_OFF: return json_is_boolean(value);
	case OPTION_TEXT:
	case OPTION_CHOICE: return json_is_string(value);
	/* Beyond 2^63 a number does not fit JSON's. */
	case OPTION_NUMBER:
	case OPTION_COUNT: return json_is_integer(value) || json_is_string(value);
	case OPTION_CUSTOM:
		return json_is_string(value) || json_is_number(value) || json_is_true(value);
	case OPTION_WORD: break;
	}
	return false;
}

static int set_value(struct option_set *set, const struct option_row *row, json_t *owner,
		     const json_t *value, struct error *e)
{
	const char *text = NULL;
	if (!has_type(row, value))
		return wrong_type(row, e);
	if (row->kind == OPTION_SWITCH || row->kind == OPTION_ON_OFF)
		text = json_is_true(value) ? "on" : "off";
	else if (json_is_string(value))
		text = json_string_value(value);
	else if (json_is_number(value) && number_text(owner, value, &text, e))
		return -ENOMEM;
	if (!text && row->argument && row->argument[0] != '[')
		return wrong_type(row, e);
	return options_set(set, row, text, e);
}

static int set_key(struct option_set *set, const char *name, json_t *owner, const json_t *value,
		   struct error *e)
{
	const struct option_row *row = find(set, name, e);
	if (!row)
		return -EINVAL;
	if (set->given[row - set->rows].is_on_command_line)
		return 0;
	if (row->kind != OPTION_CUSTOM || !json_is_array(value))
		return set_value(set, row, owner, value, e);
	size_t i;
	const json_t *item;
	int r = 0;
	json_array_foreach(value, i, item)
	{
		r = r ? r : set_value(set, row, owner, item, e);
		if (r)
			return error_prefix(e, "[%zu]", i);
	}
	return r;
}

static int check_version(const json_t *value, struct error *e)
{
	if (json_integer_value(value) == CONFIG_VERSION)
		return 0;
	return error_set(e, -EINVAL, "this program reads version %d", CONFIG_VERSION);
}

int config_parse(const char *origin, const char *bytes, size_t size_bytes, struct option_set *set,
		 json_t **document, struct error *e)
{
	json_error_t error;
	json_t *file = json_loadb(bytes, size_bytes, JSON_REJECT_DUPLICATES, &error);
	json_t *numbers = json_array();
	const char *name;
	json_t *value;
	int r = 0;
	if (!file)
		r = error_set(e, -EINVAL, "%s:%d:%d: %s", origin, error.line, error.column,
			      error.text);
	else if (!json_is_object(file))
		r = error_set(e, -EINVAL, "%s: must hold one object: {\"kernel\": \"...\"}",
			      origin);
	json_object_foreach(file, name, value)
	{
		r = !strcmp(name, "version") ? check_version(value, e)
					     : set_key(set, name, numbers, value, e);
		if (r) {
			error_prefix(e, "%s: \"%.60s\"", origin, name);
			break;
		}
	}
	/* The texts of what was set live in both. */
	*document = json_pack("[o?, o?]", file, numbers);
	if (!r && !*document)
		r = error_set(e, -ENOMEM, "out of memory");
	return r;
}

int config_read(const char *file, struct option_set *set, json_t **document, struct error *e)
{
	FILE *f = fopen(file, "re");
	char *bytes = f ? malloc(CONFIG_BYTES_MAX) : NULL;
	size_t n = bytes ? fread(bytes, 1, CONFIG_BYTES_MAX, f) : 0;
	int r = 0;
	if (!f || ferror(f))
		r = error_set(e, -errno, "cannot read '%s': %s", file, strerror(errno));
	else if (!bytes)
		r = error_set(e, -ENOMEM, "out of memory");
	else if (n == CONFIG_BYTES_MAX)
		r = error_set(e, -EFBIG, "'%s' is too long to be a configuration", file);
	else
		r = config_parse(file, bytes, n, set, document, e);
	free(bytes);
	if (f)
		fclose(f);
	return r;
}

/* ---- out ---- */

/* Whole numbers that JSON's integers hold are numbers, others strings. */
static json_t *number_to_json(uint64_t v)
{
	char text[24];
	if (v <= INT64_MAX)
		return json_integer((json_int_t)v);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	return json_string(text);
}

/* A number if it reads back as the same text. */
static json_t *given_value(const char *text)
{
	char again[24];
	if (!text)
		return json_true();
	long long v = strtoll(text, NULL, 10);
	snprintf(again, sizeof(again), "%lld", v);
	return strcmp(again, text) ? json_string(text) : json_integer(v);
}

static json_t *custom_to_json(const struct option_row *row, const struct option_given *given)
{
	if (!given->count)
		return row->initial ? given_value(row->initial) : NULL;
	if (given->count == 1)
		return given_value(given->values[0]);
	json_t *list = json_array();
	for (unsigned i = 0; i < given->count; i++)
		json_array_append_new(list, given_value(given->values[i]));
	return list;
}

/* NULL: nothing to say, it is nowhere. */
static json_t *row_to_json(const struct option_set *set, size_t i)
{
	const struct option_row *row = &set->rows[i];
	const void *target = (const char *)set->target + row->offset;
	const char *text;
	switch (row->kind) {
	case OPTION_SWITCH:
	case OPTION_ON_OFF: return json_boolean(*(const bool *)target);
	case OPTION_TEXT:
		text = *(const char *const *)target;
		return text ? json_string(text) : NULL;
	case OPTION_NUMBER:
		/* 0 below a row's least is "not". */
		if (*(const uint64_t *)target < row->min)
			return NULL;
		return number_to_json(*(const uint64_t *)target);
	case OPTION_COUNT:
		if (*(const unsigned *)target < row->min)
			return NULL;
		return number_to_json(*(const unsigned *)target);
	case OPTION_CHOICE:
		if (*(const int *)target < 0)
			return NULL;
		return json_string(row->choices[*(const int *)target]);
	case OPTION_CUSTOM: return custom_to_json(row, &set->given[i]);
	case OPTION_WORD: break;
	}
	return NULL;
}

json_t *config_to_json(const struct option_set *set)
{
	json_t *document = json_pack("{s:i}", "version", CONFIG_VERSION);
	for (size_t i = 0; document && i < set->count; i++) {
		if (!row_name(set->rows, i))
			continue;
		json_t *value = row_to_json(set, i);
		if (value)
			json_object_set_new(document, set->rows[i].name, value);
	}
	return document;
}
