#include "base/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 300

/* Cuts the next item off at `*rest`: commas that are doubled belong to it, once. */
static char *next_item(char **rest)
{
	char *item = *rest, *to = item, *from = item;
	if (!item || !*item)
		return NULL;
	while (*from && (*from != ',' || from[1] == ',')) {
		from += *from == ',';
		*to++ = *from++;
	}
	*rest = *from ? from + 1 : NULL;
	*to = 0;
	return item;
}

static void list_names(const struct spec_row *rows, size_t count, char text[NAMES_MAX])
{
	size_t used = 0;
	text[0] = 0;
	for (size_t i = 0; i < count; i++) {
		size_t n = strlen(rows[i].name);
		if (used + n + 3 > NAMES_MAX)
			return;
		if (used) {
			memcpy(text + used, ", ", 2);
			used += 2;
		}
		memcpy(text + used, rows[i].name, n + 1);
		used += n;
	}
}

static int set_number(const struct spec_row *row, uint64_t *out, const char *value, struct error *e)
{
	static const char units[] = "KMGT";
	char *end;
	errno = 0;
	uint64_t v = strtoull(value, &end, 0);
	bool is_number = end != value && *value != '-' && !errno;
	if (is_number && *end && row->kind == SPEC_SIZE) {
		const char *unit = strchr(units, *end & ~0x20);
		unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
		is_number = unit && v <= UINT64_MAX >> shift;
		v <<= shift;
		end++;
	}
	if (!is_number || *end || v < row->min || v > row->max)
		return error_set(e, -EINVAL, "%s: '%s' is not a number from %llu to %llu",
				 row->name, value, (unsigned long long)row->min,
				 (unsigned long long)row->max);
	*out = v;
	return 0;
}

static int set_on_off(const struct spec_row *row, bool *out, const char *value, struct error *e)
{
	static const char *const words[] = {"on", "yes", "true", "off", "no", "false"};
	for (size_t i = 0; i < ARRAY_COUNT(words); i++)
		if (!strcmp(value, words[i])) {
			*out = i < 3;
			return 0;
		}
	return error_set(e, -EINVAL, "%s: '%s' is not on or off", row->name, value);
}

static int set_choice(const struct spec_row *row, int *out, const char *value, struct error *e)
{
	char text[NAMES_MAX] = "";
	for (int i = 0; row->choices[i]; i++) {
		if (!strcmp(value, row->choices[i])) {
			*out = i;
			return 0;
		}
		if (strlen(text) + strlen(row->choices[i]) + 3 < sizeof(text)) {
			strcat(text, i ? ", " : "");
			strcat(text, row->choices[i]);
		}
	}
	return error_set(e, -EINVAL, "%s: '%s' is not one of %s", row->name, value, text);
}

static int set(const struct spec_row *row, void *target, const char *value, struct error *e)
{
	void *field = (char *)target + row->offset;
	switch (row->kind) {
	case SPEC_TEXT: *(const char **)field = value; return 0;
	case SPEC_ON_OFF: return set_on_off(row, field, value, e);
	case SPEC_CHOICE: return set_choice(row, field, value, e);
	case SPEC_NUMBER:
	case SPEC_SIZE: break;
	}
	return set_number(row, field, value, e);
}

static int set_item(char *item, bool is_first, const struct spec_row *rows, size_t count,
		    void *target, struct error *e)
{
	char *equals = strchr(item, '=');
	size_t length = equals ? (size_t)(equals - item) : strlen(item);
	for (size_t i = 0; i < count; i++) {
		if (strlen(rows[i].name) != length || strncmp(item, rows[i].name, length))
			continue;
		if (!equals && rows[i].kind != SPEC_ON_OFF)
			return error_set(e, -EINVAL, "%s: its value is missing", rows[i].name);
		return set(&rows[i], target, equals ? equals + 1 : "on", e);
	}
	for (size_t i = 0; is_first && i < count; i++)
		if (rows[i].is_first)
			return set(&rows[i], target, item, e);
	char names[NAMES_MAX];
	list_names(rows, count, names);
	return error_set(e, -EINVAL, "there is no '%.*s'; there are %s",
			 length < 40 ? (int)length : 40, item, names);
}

int spec_parse(const char *text, const struct spec_row *rows, size_t count, void *target,
	       char **copy, struct error *e)
{
	*copy = strdup(text);
	if (!*copy)
		return error_set(e, -ENOMEM, "out of memory");
	char *rest = *copy, *item;
	for (bool is_first = true; (item = next_item(&rest)); is_first = false) {
		int r = set_item(item, is_first, rows, count, target, e);
		if (r)
			return r;
	}
	return 0;
}
