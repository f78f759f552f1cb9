#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/cli.h"

#define TEXT_COLUMN 28

/* QEMU options that people will try here, and what to say. */
static const struct {
	const char *name, *hint;
} strangers[] = {
	{"-enable-kvm", "Gnomon executes every guest instruction itself and uses no /dev/kvm"},
	{"-accel", "the way of execution is chosen with --engine"},
	{"-machine", "there is one machine; leave it out"},
	{"-M", "there is one machine; leave it out"},
	{"-netdev", "there is no network yet"},
	{"-nic", "there is no network yet"},
	{"-net", "there is no network yet"},
	{"-icount", "virtual time is the default; --clock real switches it off"},
	{"-display", "there is no display, only serial ports"},
	{"-bios", "there is no firmware; --kernel is entered directly"},
};

/* ---- values ---- */

int option_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out,
			struct error *e)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 0);
	if (*text < '0' || *text > '9' || *end || errno)
		return error_set(e, -EINVAL, "'%s' is not a number", text);
	if (v < min || v > max) {
		if (max == UINT64_MAX)
			return error_set(e, -EINVAL, "%s is too small: at least %llu", text,
					 (unsigned long long)min);
		return error_set(e, -EINVAL, "%s is out of range: %llu to %llu", text,
				 (unsigned long long)min, (unsigned long long)max);
	}
	*out = v;
	return 0;
}

int option_parse_size(const char *text, uint64_t unit_bytes, uint64_t *out, struct error *e)
{
	static const char units[] = "BKMGT";
	char *end;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	uint64_t unit = unit_bytes;
	bool is_number = *text >= '0' && *text <= '9' && !errno;
	if (is_number && *end) {
		char c = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;
		const char *found = strchr(units, c);
		is_number = found && (!end[1] || !strcmp(end + 1, "iB") || !strcmp(end + 1, "B"));
		if (found)
			unit = 1ull << (10 * (found - units));
	}
	if (!is_number)
		return error_set(e, -EINVAL, "'%s' is not a size; sizes look like 512M or 2G",
				 text);
	if (v > UINT64_MAX / unit)
		return error_set(e, -EINVAL, "'%s' is too large", text);
	*out = v * unit;
	return 0;
}

static int parse_on_off(const char *text, bool *out, struct error *e)
{
	if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true"))
		*out = true;
	else if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false"))
		*out = false;
	else
		return error_set(e, -EINVAL, "'%s' must be on or off", text);
	return 0;
}

static const char *choice_name(const void *opaque, size_t i)
{
	return ((const char *const *)opaque)[i];
}

static int parse_choice(const struct option_row *row, const char *text, int *out, struct error *e)
{
	size_t count = 0;
	char names[300] = "";
	for (; row->choices[count]; count++) {
		if (!strcmp(row->choices[count], text)) {
			*out = (int)count;
			return 0;
		}
		if (count)
			strncat(names, ", ", sizeof(names) - strlen(names) - 1);
		strncat(names, row->choices[count], sizeof(names) - strlen(names) - 1);
	}
	const char *near = nearest(text, count, choice_name, row->choices);
	if (near)
		return error_set(e, -EINVAL, "'%s' is not one of %s; did you mean '%s'?", text,
				 names, near);
	return error_set(e, -EINVAL, "'%s' is not one of %s", text, names);
}

static int store(const struct option_row *row, void *base, const char *value, struct error *e)
{
	void *target = (char *)base + row->offset;
	uint64_t number;
	int r = 0;
	switch (row->kind) {
	case OPTION_SWITCH:
		*(bool *)target = true;
		r = value ? parse_on_off(value, target, e) : 0;
		break;
	case OPTION_ON_OFF: r = parse_on_off(value, target, e); break;
	case OPTION_TEXT: *(const char **)target = value; break;
	case OPTION_NUMBER: r = option_parse_number(value, row->min, row->max, target, e); break;
	case OPTION_COUNT:
		r = option_parse_number(value, row->min, row->max, &number, e);
		if (!r)
			*(unsigned *)target = (unsigned)number;
		break;
	case OPTION_CHOICE: r = parse_choice(row, value, target, e); break;
	case OPTION_CUSTOM: r = row->set(base, value, e); break;
	case OPTION_WORD: *(const char **)target = value; break;
	}
	return r;
}

int options_set(struct option_set *set, const struct option_row *row, const char *value,
		struct error *e)
{
	struct option_given *given = set->given ? &set->given[row - set->rows] : NULL;
	int r = store(row, set->target, value, e);
	if (r || !given)
		return r;
	if (given->count == OPTION_VALUES_MAX)
		return error_set(e, -EINVAL, "at most %d of them", OPTION_VALUES_MAX);
	given->values[given->count++] = value;
	return 0;
}

/* ---- finding ---- */

static bool has_alias(const struct option_row *row, const char *spelling, size_t length)
{
	const char *a = row->aliases;
	while (a && *a) {
		size_t n = strcspn(a, " ");
		if (n == length && !strncmp(a, spelling, n))
			return true;
		a += n + (a[n] == ' ');
	}
	return false;
}

/* `length` characters of `argument` are the option's spelling. */
static const struct option_row *find(const struct option_row *rows, size_t count,
				     const char *argument, size_t length)
{
	for (size_t i = 0; i < count; i++) {
		if (rows[i].kind == OPTION_WORD)
			continue;
		if (length > 2 && argument[1] == '-' && strlen(rows[i].name) == length - 2 &&
		    !strncmp(rows[i].name, argument + 2, length - 2))
			return &rows[i];
		if (has_alias(&rows[i], argument, length))
			return &rows[i];
	}
	return NULL;
}

static const char *row_name(const void *opaque, size_t i)
{
	const struct option_row *row = (const struct option_row *)opaque + i;
	return row->kind == OPTION_WORD ? NULL : row->name;
}

static int unknown(const struct option_set *sets, size_t set_count, const char *argument,
		   size_t length, struct error *e)
{
	bool is_word = argument[0] != '-' || !argument[1];
	if (is_word && find(sets[0].rows, sets[0].count, "--kernel", 8))
		return error_set(e, -EINVAL, "'%s' is not an option; did you mean '--kernel %s'?",
				 argument, argument);
	if (is_word)
		return error_set(e, -EINVAL, "'%s' is one word too many", argument);
	char spelling[64];
	snprintf(spelling, sizeof(spelling), "%.*s", (int)length, argument);
	for (size_t i = 0; i < ARRAY_COUNT(strangers); i++)
		if (!strcmp(strangers[i].name, spelling))
			return error_set(e, -EINVAL, "there is no option '%s': %s", spelling,
					 strangers[i].hint);
	const char *bare = spelling + strspn(spelling, "-");
	for (size_t i = 0; i < set_count; i++) {
		const char *near = nearest(bare, sets[i].count, row_name, sets[i].rows);
		if (near)
			return error_set(e, -EINVAL,
					 "there is no option '%s'; did you mean '--%s'?", spelling,
					 near);
	}
	return error_set(e, -EINVAL, "there is no option '%s'", spelling);
}

/* A word without dashes goes to the first row of words that has none. */
static bool take_word(const struct option_set *sets, size_t set_count, const char *word)
{
	for (size_t n = 0; n < set_count; n++)
		for (size_t i = 0; i < sets[n].count; i++) {
			const struct option_row *row = &sets[n].rows[i];
			const char **target = (const char **)((char *)sets[n].target + row->offset);
			if (row->kind != OPTION_WORD || *target)
				continue;
			*target = word;
			return true;
		}
	return false;
}

/* Parses argv[*i] and its argument; *i is then at the last word used. */
static int parse_one(struct option_set *sets, size_t set_count, int argc, char **argv, int *i,
		     struct error *e)
{
	const char *argument = argv[*i];
	bool is_long = argument[0] == '-' && argument[1] == '-';
	const char *equals = is_long ? strchr(argument, '=') : NULL;
	size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
	const struct option_row *row = NULL;
	struct option_set *set = NULL;
	if (argument[0] != '-' && take_word(sets, set_count, argument))
		return 0;
	for (size_t n = 0; n < set_count && !row; n++) {
		set = &sets[n];
		row = find(set->rows, set->count, argument, length);
	}
	if (!row)
		return unknown(sets, set_count, argument, length, e);
	const char *value = equals ? equals + 1 : NULL;
	if (!row->argument && value && row->kind != OPTION_SWITCH)
		return error_set(e, -EINVAL, "%.*s takes no value", (int)length, argument);
	if (row->argument && row->argument[0] != '[' && !value) {
		if (*i + 1 >= argc)
			return error_set(e, -EINVAL, "%s needs a value: %s %s", argument, argument,
					 row->argument);
		value = argv[++*i];
	}
	int r = options_set(set, row, value, e);
	if (!r && set->given)
		set->given[row - set->rows].is_on_command_line = true;
	return r ? error_prefix(e, "%.*s", (int)length, argument) : 0;
}

int options_parse_sets(struct option_set *sets, size_t set_count, int argc, char **argv,
		       struct error *e)
{
	for (int i = 1; i < argc; i++) {
		int r = parse_one(sets, set_count, argc, argv, &i, e);
		if (r)
			return r;
	}
	return 0;
}

int options_parse(const struct option_row *rows, size_t count, void *target, int argc, char **argv,
		  struct error *e)
{
	struct option_set set = {.rows = rows, .count = count, .target = target};
	return options_parse_sets(&set, 1, argc, argv, e);
}

/* ---- help ---- */

static unsigned print_spelling(FILE *f, const struct option_row *row)
{
	int n = fprintf(f, row->kind == OPTION_WORD ? "  %s" : "  --%s", row->name);
	if (row->argument && row->argument[0] == '[')
		n += fprintf(f, "[=%s", row->argument + 1);
	else if (row->argument)
		n += fprintf(f, " %s", row->argument);
	return (unsigned)n;
}

void options_print(FILE *f, const struct option_row *rows, size_t count)
{
	bool is_fancy = cli_is_fancy(f);
	for (size_t i = 0; i < count; i++) {
		const struct option_row *row = &rows[i];
		if (row->group)
			fprintf(f, "\n%s%s%s\n", is_fancy ? "\033[1m" : "", row->group,
				is_fancy ? "\033[0m" : "");
		unsigned column = print_spelling(f, row);
		if (column >= TEXT_COLUMN - 1) {
			fputc('\n', f);
			column = 0;
		}
		char text[1000];
		snprintf(text, sizeof(text), "%s%s%s%s", row->text, row->aliases ? " (also " : "",
			 row->aliases ? row->aliases : "", row->aliases ? ")" : "");
		cli_print_wrapped(f, text, column, TEXT_COLUMN);
	}
}
