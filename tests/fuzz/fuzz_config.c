/*
 * --config: bytes of a file that somebody else wrote, and objects built from the option table with
 * the input as values. What is accepted is dumped and must be accepted again.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/config.h"
#include "cli/run_options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int parse(struct run_options *o, const char *text, size_t size, struct error *e)
{
	size_t count;
	const struct option_row *rows = run_option_rows(&count);
	run_options_init(o);
	struct option_set set = {rows, count, o, o->given};
	return config_parse("fuzz", text, size, &set, &o->document, e);
}

static void check(const char *text, size_t size)
{
	static struct run_options first, second;
	struct error e = {0};
	char *once = NULL, *twice = NULL;
	size_t length;
	if (!parse(&first, text, size, &e)) {
		FILE *f = open_memstream(&once, &length);
		if (!f || run_options_dump(&first, f, &e) || fclose(f))
			abort();
		f = open_memstream(&twice, &length);
		if (parse(&second, once, strlen(once), &e) || !f ||
		    run_options_dump(&second, f, &e) || fclose(f))
			abort();
		/* An option with a value that another one stands for reads as both. */
		if (strlen(once) != strlen(twice))
			abort();
		run_options_fini(&second);
	} else if (!e.text[0]) {
		abort();
	}
	run_options_fini(&first);
	free(once);
	free(twice);
}

/* {"KEY": VALUE}, with a key of the table. */
static void check_key(const uint8_t *data, size_t size)
{
	size_t count;
	const struct option_row *rows = run_option_rows(&count);
	char text[4200];
	int n = snprintf(text, sizeof(text), "{\"%s\": ", rows[data[0] % count].name);
	size_t room = sizeof(text) - (size_t)n - 2;
	size_t used = size - 1 < room ? size - 1 : room;
	memcpy(text + n, data + 1, used);
	text[(size_t)n + used] = '}';
	check(text, (size_t)n + used + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] & 1 && size > 1)
		check_key(data + 1, size - 1);
	else
		check((const char *)data + 1, size - 1);
	return 0;
}
