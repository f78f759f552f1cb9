/*
 * The commands that speak to a machine that runs: ps, stop, reset, powerbutton, pause, resume,
 * balloon, monitor. Each is a request on the machine's control socket (docs/control.md).
 */
#include "cli/machines.h"

#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"

struct machine_options {
	const char *machine, *word, *rest;
	int format;
	bool is_now, is_no_wait, wants_help;
};

#define FIELD(f) .offset = offsetof(struct machine_options, f)
#define MACHINE_ROW                                                                            \
	{                                                                                      \
		"MACHINE", NULL, NULL,                                                         \
			"its name, or its socket's path; may be left out where only one runs", \
			"Machine", OPTION_WORD, FIELD(machine)                                 \
	}
#define HELP_ROW                                                                              \
	{                                                                                     \
		"help", "-h -help", NULL, "this", "Options", OPTION_SWITCH, FIELD(wants_help) \
	}

static const char *const format_names[] = {"table", "json", NULL};

static const struct option_row ps_rows[] = {
	HELP_ROW,
	{"format", NULL, "FORMAT", "table or json [table]", NULL, OPTION_CHOICE, FIELD(format),
	 .choices = format_names},
};
static const struct option_row plain_rows[] = {MACHINE_ROW, HELP_ROW};
static const struct option_row stop_rows[] = {
	MACHINE_ROW,
	HELP_ROW,
	{"now", NULL, NULL, "pull the plug instead of pressing the power button", NULL,
	 OPTION_SWITCH, FIELD(is_now)},
	{"no-wait", NULL, NULL, "do not wait until the machine has ended", NULL, OPTION_SWITCH,
	 FIELD(is_no_wait)},
};
static const struct option_row monitor_rows[] = {
	MACHINE_ROW,
	{"COMMAND", NULL, NULL, "one command; without it they are read from standard input", NULL,
	 OPTION_WORD, FIELD(word)},
	HELP_ROW,
};
static const struct option_row balloon_rows[] = {
	MACHINE_ROW,
	{"SIZE", NULL, NULL, "what the guest shall keep, 256M", NULL, OPTION_WORD, FIELD(word)},
	HELP_ROW,
};

/* ---- finding ---- */

struct finder {
	unsigned count;
	char path[CONTROL_PATH_BYTES];
	char names[400];
	const char *command;
	json_t **answers;
	unsigned max;
};

static void count_one(void *opaque, const char *name, const char *path)
{
	struct finder *f = opaque;
	struct control_client *c;
	if (control_connect(&c, path, NULL))
		return;
	control_disconnect(c);
	if (!f->count++)
		memcpy(f->path, path, strlen(path) + 1);
	size_t used = strlen(f->names);
	snprintf(f->names + used, sizeof(f->names) - used, "%s%s", used ? ", " : "", name);
}

int machine_connect(struct control_client **out, const char *machine, struct error *e)
{
	struct finder f = {0};
	int r = machine ? control_find(machine, f.path, false, e) : control_list(count_one, &f, e);
	if (!r && !machine && !f.count)
		r = error_set(e, -ENOENT, "no machine is running");
	if (!r && !machine && f.count > 1)
		r = error_set(e, -EINVAL, "several machines are running; which one: %s?", f.names);
	if (!r)
		r = control_connect(out, f.path, e);
	if (machine && (r == -ENOENT || r == -ECONNREFUSED))
		return error_set(e, r, "there is no machine '%s'; gnomon ps lists them", machine);
	return r;
}

static void ask_one(void *opaque, const char *name, const char *path)
{
	struct finder *f = opaque;
	struct control_client *c;
	json_t *answer;
	if (f->count == f->max || control_connect(&c, path, NULL))
		return;
	if (!control_ask(c, json_pack("{s:s}", "command", f->command), &answer, NULL))
		f->answers[f->count++] = answer;
	control_disconnect(c);
}

int machines_ask(const char *command, json_t **answers, unsigned max, struct error *e)
{
	struct finder f = {.command = command, .answers = answers, .max = max};
	int r = control_list(ask_one, &f, e);
	return r ? r : (int)f.count;
}

/* ---- what all do alike ---- */

static int fail(const char *command, const struct error *e)
{
	fprintf(stderr, "gnomon %s: error: %s\n", command, e->text);
	return EXIT_CODE_VMM;
}

/* Parses; false if the command is over, with its exit code in *code. */
static bool begin(struct machine_options *o, const struct option_row *rows, size_t count, int argc,
		  char **argv, const char *usage, int *code)
{
	struct error e = {0};
	*o = (struct machine_options){0};
	if (options_parse(rows, count, o, argc, argv, &e)) {
		*code = cli_usage_error(argv[0], e.text);
		return false;
	}
	if (!o->wants_help)
		return true;
	printf("usage: gnomon %s\n", usage);
	options_print(stdout, rows, count);
	*code = fflush(stdout) ? EXIT_CODE_VMM : EXIT_CODE_OK;
	return false;
}

/* Asks for one thing whose result nobody looks at but for `result`, which may be NULL. */
static int ask(const struct machine_options *o, json_t *request, json_t **result, struct error *e)
{
	struct control_client *c;
	json_t *got = NULL;
	int r = machine_connect(&c, o->machine, e);
	if (r) {
		json_decref(request);
		return r;
	}
	r = control_ask(c, request, &got, e);
	control_disconnect(c);
	if (!r && result)
		*result = got;
	else
		json_decref(got);
	return r;
}

static int simple(int argc, char **argv, const char *usage)
{
	struct machine_options o;
	struct error e = {0};
	int code;
	if (!begin(&o, plain_rows, ARRAY_COUNT(plain_rows), argc, argv, usage, &code))
		return code;
	if (ask(&o, json_pack("{s:s}", "command", argv[0]), NULL, &e))
		return fail(argv[0], &e);
	return EXIT_CODE_OK;
}

/* ---- the commands ---- */

int cmd_reset(int argc, char **argv)
{
	return simple(argc, argv, "reset [MACHINE]\n\nResets the machine, which boots again.");
}

int cmd_pause(int argc, char **argv)
{
	return simple(argc, argv, "pause [MACHINE]\n\nHolds the guest; its time stands still.");
}

int cmd_resume(int argc, char **argv)
{
	return simple(argc, argv, "resume [MACHINE]\n\nLets the guest go on.");
}

int cmd_powerbutton(int argc, char **argv)
{
	struct machine_options o;
	struct error e = {0};
	json_t *result;
	int code;
	if (!begin(&o, plain_rows, ARRAY_COUNT(plain_rows), argc, argv,
		   "powerbutton [MACHINE]\n\nPresses the power button: a guest that listens shuts "
		   "down.",
		   &code))
		return code;
	if (ask(&o, json_pack("{s:s}", "command", argv[0]), &result, &e))
		return fail(argv[0], &e);
	if (!json_is_true(json_object_get(result, "heard")))
		fputs("gnomon powerbutton: the guest does not listen to its button (yet)\n",
		      stderr);
	json_decref(result);
	return EXIT_CODE_OK;
}

int cmd_stop(int argc, char **argv)
{
	struct machine_options o;
	struct control_client *c;
	struct error e = {0};
	json_t *result = NULL;
	int code;
	if (!begin(&o, stop_rows, ARRAY_COUNT(stop_rows), argc, argv,
		   "stop [MACHINE] [OPTION]...\n\nPresses the power button, ends the machine hard "
		   "after its grace period\n(gnomon run --grace), and waits until it has ended.",
		   &code))
		return code;
	int r = machine_connect(&c, o.machine, &e);
	if (r)
		return fail("stop", &e);
	r = control_ask(c, json_pack("{s:s, s:b}", "command", "stop", "now", o.is_now), &result,
			&e);
	json_decref(result);
	if (!r && !o.is_no_wait)
		r = control_wait_end(c, -1, &e);
	control_disconnect(c);
	return r ? fail("stop", &e) : EXIT_CODE_OK;
}

static void print_balloon(json_t *result)
{
	static const char *const sizes[] = {"memory", "target", "present"};
	const char *name;
	json_t *value;
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		char key[32];
		snprintf(key, sizeof(key), "%s_bytes", sizes[i]);
		printf("%-24s%8lld MiB\n", sizes[i],
		       (long long)json_integer_value(json_object_get(result, key)) >> 20);
	}
	json_object_foreach(json_object_get(result, "statistics"), name, value)
		printf("%-24s%12lld\n", name, (long long)json_integer_value(value));
}

int cmd_balloon(int argc, char **argv)
{
	json_t *result;
	struct machine_options o;
	struct error e = {0};
	uint64_t bytes = 0;
	int code;
	if (!begin(&o, balloon_rows, ARRAY_COUNT(balloon_rows), argc, argv,
		   "balloon MACHINE [SIZE]\n\nAsks the guest to give memory back, down to SIZE.",
		   &code))
		return code;
	if (o.word && option_parse_size(o.word, 1ull << 20, &bytes, &e))
		return cli_usage_error("balloon", e.text);
	json_t *request = json_pack("{s:s}", "command", "balloon");
	if (request && o.word)
		json_object_set_new(request, "target_bytes", json_integer((json_int_t)bytes));
	if (ask(&o, request, &result, &e))
		return fail("balloon", &e);
	print_balloon(result);
	json_decref(result);
	return EXIT_CODE_OK;
}

static int monitor_line(struct control_client *c, const char *line, struct error *e)
{
	json_t *result;
	int r = control_ask(c, json_pack("{s:s, s:s}", "command", "monitor", "line", line), &result,
			    e);
	if (r)
		return r;
	fputs(json_string_value(json_object_get(result, "text")), stdout);
	if (json_is_true(json_object_get(result, "cut")))
		fputs("(cut)\n", stdout);
	json_decref(result);
	fflush(stdout);
	return 0;
}

int cmd_monitor(int argc, char **argv)
{
	struct machine_options o;
	struct control_client *c;
	struct error e = {0};
	char line[1024];
	int code;
	if (!begin(&o, monitor_rows, ARRAY_COUNT(monitor_rows), argc, argv,
		   "monitor [MACHINE [COMMAND]]\n\nCommands of the monitor, as after Ctrl-A c.",
		   &code))
		return code;
	int r = machine_connect(&c, o.machine, &e);
	if (r)
		return fail("monitor", &e);
	if (o.word) {
		r = monitor_line(c, o.word, &e);
	} else {
		bool is_person = cli_is_fancy(stdin) && cli_is_fancy(stdout);
		while (!r && (is_person ? fputs("(gnomon) ", stdout), fflush(stdout) : 0,
			      fgets(line, sizeof(line), stdin))) {
			line[strcspn(line, "\n")] = 0;
			r = monitor_line(c, line, &e);
		}
	}
	control_disconnect(c);
	return r ? fail("monitor", &e) : EXIT_CODE_OK;
}

/* ---- ps ---- */

static void print_machine(const json_t *m)
{
	const char *kernel = json_string_value(json_object_get(m, "kernel"));
	uint64_t seconds =
		(uint64_t)json_integer_value(json_object_get(m, "host_ns")) / 1000000000u;
	printf("%-20s %8lld %-8s %4lld %7lldM %5llu:%02llu:%02llu %-6s %-16s %s\n",
	       json_string_value(json_object_get(m, "name")),
	       json_integer_value(json_object_get(m, "pid")),
	       json_string_value(json_object_get(m, "state")),
	       json_integer_value(json_object_get(m, "cpus")),
	       json_integer_value(json_object_get(m, "memory_bytes")) >> 20,
	       (unsigned long long)(seconds / 3600), (unsigned long long)(seconds / 60 % 60),
	       (unsigned long long)(seconds % 60), json_string_value(json_object_get(m, "engine")),
	       json_string_value(json_object_get(m, "paging")), kernel ? kernel : "(a snapshot)");
}

int cmd_ps(int argc, char **argv)
{
	struct machine_options o;
	struct error e = {0};
	json_t *machines[MACHINES_MAX], *list = json_array();
	int code;
	if (!begin(&o, ps_rows, ARRAY_COUNT(ps_rows), argc, argv,
		   "ps [OPTION]...\n\nLists the machines of this user that run.", &code)) {
		json_decref(list);
		return code;
	}
	int n = machines_ask("status", machines, MACHINES_MAX, &e);
	if (n >= 0 && o.format == 0)
		printf("%-20s %8s %-8s %4s %8s %11s %-6s %-16s %s\n", "NAME", "PID", "STATE",
		       "CPUS", "MEMORY", "UP", "ENGINE", "PAGING", "KERNEL");
	for (int i = 0; i < n; i++) {
		if (o.format == 0)
			print_machine(machines[i]);
		json_array_append_new(list, machines[i]);
	}
	if (n >= 0 && o.format == 1) {
		json_t *document = json_pack("{s:s, s:i, s:O}", "schema", "gnomon-ps", "version", 1,
					     "machines", list);
		json_dumpf(document, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(document);
	}
	json_decref(list);
	if (n >= 0 && fflush(stdout))
		n = error_set(&e, -EIO, "cannot write to standard output");
	return n < 0 ? fail("ps", &e) : EXIT_CODE_OK;
}
