/* `gnomon snapshot`: saves a machine that runs, and shows what is in a snapshot and whether it is
 * whole. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/machines.h"
#include "cli/options.h"
#include "snapshot/snapshot.h"

struct snapshot_options {
	const char *verb, *machine, *file, *base;
	int format;
	bool wants_verify, wants_help;
};

static const char *const format_names[] = {"text", "json", NULL};

#define FIELD(f) .offset = offsetof(struct snapshot_options, f)
static const struct option_row inspect_rows[] = {
	{"inspect", NULL, NULL, "show what machine a snapshot holds, and where in the file", "What",
	 OPTION_WORD, FIELD(verb)},
	{"FILE", NULL, NULL, "the snapshot", NULL, OPTION_WORD, FIELD(file)},
	{"format", NULL, "FORMAT", "text or json [text]", "Options", OPTION_CHOICE, FIELD(format),
	 .choices = format_names},
	{"verify", NULL, NULL,
	 "read all of the memory, too, and its bases', against their checksums", NULL,
	 OPTION_SWITCH, FIELD(wants_verify)},
	{"help", "-h -help", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help)},
};
static const struct option_row save_rows[] = {
	{"save", NULL, NULL, "save a machine that runs, which then goes on", "What", OPTION_WORD,
	 FIELD(verb)},
	{"MACHINE", NULL, NULL, "its name, or its socket's path", NULL, OPTION_WORD,
	 FIELD(machine)},
	{"FILE", NULL, NULL, "where to", NULL, OPTION_WORD, FIELD(file)},
	{"base", NULL, "FILE", "save only what differs from this snapshot", "Options", OPTION_TEXT,
	 FIELD(base)},
	{"help", "-h -help", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help)},
};

static const char head[] =
	"usage: gnomon snapshot inspect FILE [OPTION]...\n"
	"       gnomon snapshot save MACHINE FILE [--base FILE]\n"
	"\n"
	"Snapshots are made by this save, by gnomon run --snapshot FILE or by the monitor's\n"
	"snapshot, and taken by gnomon run --restore FILE.\n";

static int print_help(void)
{
	fputs(head, stdout);
	options_print(stdout, inspect_rows, ARRAY_COUNT(inspect_rows));
	options_print(stdout, save_rows, ARRAY_COUNT(save_rows));
	return fflush(stdout) ? EXIT_CODE_VMM : EXIT_CODE_OK;
}

static int finish(int r, const struct error *e)
{
	if (r)
		fprintf(stderr, "gnomon snapshot: error: %s\n", e->text);
	return r ? EXIT_CODE_VMM : EXIT_CODE_OK;
}

static int inspect(const struct snapshot_options *o)
{
	struct error e = {0};
	struct snapshot *s;
	if (!o->file)
		return cli_usage_error("snapshot", "inspect: which FILE?");
	int r = snapshot_open(&s, o->file, &e);
	if (!r && o->wants_verify)
		r = snapshot_verify(s, &e);
	if (!r)
		r = snapshot_describe(s, o->wants_verify, o->format == 1, stdout, &e);
	snapshot_close(s);
	if (!r && fflush(stdout))
		r = error_set(&e, -EIO, "cannot write to standard output");
	return finish(r, &e);
}

/* The machine may be in another folder than we are. */
static int from_root(const char *file, char out[PATH_MAX], struct error *e)
{
	char folder[PATH_MAX] = "";
	if (file[0] != '/' && !getcwd(folder, sizeof(folder)))
		return error_set(e, -errno, "no present folder: %s", strerror(errno));
	int n = snprintf(out, PATH_MAX, "%s%s%s", folder, folder[0] ? "/" : "", file);
	return n < PATH_MAX ? 0 : error_set(e, -ENAMETOOLONG, "'%.200s...' is too long", file);
}

static int save(const struct snapshot_options *o)
{
	struct error e = {0};
	struct control_client *c;
	char file[PATH_MAX], base[PATH_MAX];
	json_t *result;
	if (!o->machine || !o->file)
		return cli_usage_error("snapshot", "save: which MACHINE, and to what FILE?");
	int r = from_root(o->file, file, &e);
	if (!r && o->base)
		r = from_root(o->base, base, &e);
	if (!r)
		r = machine_connect(&c, o->machine, &e);
	if (r)
		return finish(r, &e);
	r = control_ask(c,
			json_pack("{s:s, s:s, s:s*}", "command", "snapshot", "file", file, "base",
				  o->base ? base : NULL),
			&result, &e);
	control_disconnect(c);
	if (!r) {
		printf("saved to %s after %lld instructions\n", file,
		       json_integer_value(json_object_get(result, "instructions")));
		json_decref(result);
		r = fflush(stdout) ? error_set(&e, -EIO, "cannot write to standard output") : 0;
	}
	return finish(r, &e);
}

int cmd_snapshot(int argc, char **argv)
{
	struct snapshot_options o = {0};
	struct error e = {0};
	if (argc < 2)
		return cli_usage_error("snapshot", "inspect FILE, or save MACHINE FILE?");
	bool is_save = !strcmp(argv[1], "save"), is_help = argv[1][0] == '-';
	if (!is_save && !is_help && strcmp(argv[1], "inspect") != 0) {
		error_set(&e, -EINVAL, "there is no '%.60s'; there are inspect and save", argv[1]);
		return cli_usage_error("snapshot", e.text);
	}
	int r = is_save ? options_parse(save_rows, ARRAY_COUNT(save_rows), &o, argc, argv, &e)
			: options_parse(inspect_rows, ARRAY_COUNT(inspect_rows), &o, argc, argv,
					&e);
	if (r)
		return cli_usage_error("snapshot", e.text);
	if (o.wants_help || is_help)
		return print_help();
	return is_save ? save(&o) : inspect(&o);
}
