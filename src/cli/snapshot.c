/* `gnomon snapshot`: what is in a snapshot, and whether it is whole. */
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "snapshot/snapshot.h"

struct inspect_options {
	int format;
	bool wants_verify, wants_help;
};

static const char *const format_names[] = {"text", "json", NULL};

#define FIELD(f) .offset = offsetof(struct inspect_options, f)
static const struct option_row rows[] = {
	{"format", NULL, "FORMAT", "text or json [text]", "Options", OPTION_CHOICE, FIELD(format),
	 .choices = format_names},
	{"verify", NULL, NULL,
	 "read all of the memory, too, and its bases', against their checksums", NULL,
	 OPTION_SWITCH, FIELD(wants_verify)},
	{"help", "-h -help", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help)},
};

static const char head[] =
	"usage: gnomon snapshot inspect FILE [OPTION]...\n"
	"\n"
	"Shows what machine a snapshot holds, and where in the file. Snapshots are made by\n"
	"gnomon run --snapshot FILE or the monitor's snapshot, and taken by --restore FILE.\n";

static int print_help(void)
{
	fputs(head, stdout);
	options_print(stdout, rows, ARRAY_COUNT(rows));
	return fflush(stdout) ? EXIT_CODE_VMM : EXIT_CODE_OK;
}

static int inspect(const char *file, const struct inspect_options *o)
{
	struct error e = {0};
	struct snapshot *s;
	int r = snapshot_open(&s, file, &e);
	if (!r && o->wants_verify)
		r = snapshot_verify(s, &e);
	if (!r)
		r = snapshot_describe(s, o->wants_verify, o->format == 1, stdout, &e);
	snapshot_close(s);
	if (!r && fflush(stdout))
		r = error_set(&e, -5, "cannot write to standard output");
	if (r)
		fprintf(stderr, "gnomon snapshot: error: %s\n", e.text);
	return r ? EXIT_CODE_VMM : EXIT_CODE_OK;
}

int cmd_snapshot(int argc, char **argv)
{
	struct inspect_options o = {0};
	struct error e = {0};
	if (argc < 2)
		return cli_usage_error("snapshot", "inspect FILE?");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return print_help();
	if (strcmp(argv[1], "inspect") != 0) {
		error_set(&e, -22, "there is no '%.60s'; there is inspect", argv[1]);
		return cli_usage_error("snapshot", e.text);
	}
	/* The file stands before the options or behind them; options_parse() skips the first word.
	 */
	bool is_first = argc > 2 && argv[2][0] != '-';
	bool is_last = !is_first && argc > 3 && argv[argc - 1][0] != '-';
	const char *file = is_first ? argv[2] : is_last ? argv[argc - 1] : NULL;
	char **words = argv + (is_first ? 2 : 1);
	if (options_parse(rows, ARRAY_COUNT(rows), &o, argc - (is_first ? 2 : 1) - is_last, words,
			  &e))
		return cli_usage_error("snapshot", e.text);
	if (o.wants_help)
		return print_help();
	return file ? inspect(file, &o) : cli_usage_error("snapshot", "inspect: which FILE?");
}
