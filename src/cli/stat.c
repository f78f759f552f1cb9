/* `gnomon stat`: what machines that run have counted, as text, JSON or OpenMetrics. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/machines.h"
#include "cli/options.h"
#include "report/stat.h"

struct stat_options {
	const char *machine;
	unsigned interval_s;
	bool wants_all, wants_histogram, is_json, is_openmetrics, wants_help;
};

#define FIELD(f) .offset = offsetof(struct stat_options, f)
static const struct option_row rows[] = {
	{"MACHINE", NULL, NULL,
	 "its name, or its socket's path; may be left out where only one runs; --openmetrics then "
	 "takes all",
	 "Machine", OPTION_WORD, FIELD(machine)},
	{"interval", "-i", "SECONDS", "what is counted within so many seconds from now", "Options",
	 OPTION_COUNT, FIELD(interval_s), .min = 1, .max = 86400},
	{"all", NULL, NULL, "every counter, not only the usual ones", NULL, OPTION_SWITCH,
	 FIELD(wants_all)},
	{"histogram", NULL, NULL, "how long exits took, in powers of two of nanoseconds", NULL,
	 OPTION_SWITCH, FIELD(wants_histogram)},
	{"json", NULL, NULL, "as JSON (docs/schema/control.json)", NULL, OPTION_SWITCH,
	 FIELD(is_json)},
	{"openmetrics", NULL, NULL, "as OpenMetrics 1.0", NULL, OPTION_SWITCH,
	 FIELD(is_openmetrics)},
	{"help", "-h -help", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help)},
};

static const char head[] =
	"usage: gnomon stat [MACHINE] [OPTION]...\n"
	"\n"
	"Exits by cause, in the layout of perf kvm stat: how many, what this host took over\n"
	"them, and what they would take on the processor of the machine's profile. What the\n"
	"machine's engine cannot count or time is unavailable.\n";

static int take(struct control_client *c, struct machine_stat *s, struct error *e)
{
	json_t *result;
	int r = control_ask(c, json_pack("{s:s}", "command", "stat"), &result, e);
	if (r)
		return r;
	r = stat_from_json(s, result, e);
	json_decref(result);
	return r;
}

static int take_interval(struct control_client *c, const struct stat_options *o,
			 struct machine_stat *s, struct error *e)
{
	struct machine_stat before;
	if (!o->interval_s)
		return take(c, s, e);
	int r = take(c, &before, e);
	if (r)
		return r;
	sleep(o->interval_s);
	r = take(c, s, e);
	if (!r && !stat_subtract(s, &before)) {
		r = error_set(e, -EINVAL, "it is another machine now");
		stat_fini(s);
	}
	stat_fini(&before);
	return r;
}

static int print_json(const struct machine_stat *s, struct error *e)
{
	json_t *document = stat_to_json(s);
	if (!document)
		return error_set(e, -ENOMEM, "out of memory");
	json_object_set_new(document, "schema", json_string("gnomon-stat"));
	json_object_set_new(document, "version", json_integer(1));
	json_dumpf(document, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(document);
	return 0;
}

static int print_one(const struct stat_options *o, struct error *e)
{
	struct control_client *c;
	struct machine_stat s;
	int r = machine_connect(&c, o->machine, e);
	if (r)
		return r;
	r = take_interval(c, o, &s, e);
	control_disconnect(c);
	if (r)
		return r;
	if (o->is_json) {
		r = print_json(&s, e);
	} else if (o->is_openmetrics) {
		const struct machine_stat *list = &s;
		stat_write_openmetrics(stdout, &list, 1);
	} else {
		stat_write_table(stdout, &s, o->wants_all);
		if (o->wants_histogram)
			stat_write_histogram(stdout, &s);
	}
	stat_fini(&s);
	return r;
}

/* A scraper wants all there are, and none is no error. */
static int print_all(struct error *e)
{
	json_t *answers[MACHINES_MAX];
	struct machine_stat stats[MACHINES_MAX];
	const struct machine_stat *list[MACHINES_MAX];
	int n = machines_ask("stat", answers, MACHINES_MAX, e), r = n < 0 ? n : 0;
	size_t count = 0;
	for (int i = 0; i < n; i++) {
		if (!r && !(r = stat_from_json(&stats[count], answers[i], e))) {
			list[count] = &stats[count];
			count++;
		}
		json_decref(answers[i]);
	}
	if (!r)
		stat_write_openmetrics(stdout, list, count);
	while (count)
		stat_fini(&stats[--count]);
	return r;
}

int cmd_stat(int argc, char **argv)
{
	struct stat_options o = {0};
	struct error e = {0};
	if (options_parse(rows, ARRAY_COUNT(rows), &o, argc, argv, &e))
		return cli_usage_error("stat", e.text);
	if (o.wants_help) {
		fputs(head, stdout);
		options_print(stdout, rows, ARRAY_COUNT(rows));
		return fflush(stdout) ? EXIT_CODE_VMM : EXIT_CODE_OK;
	}
	if (o.is_json && o.is_openmetrics)
		return cli_usage_error("stat", "--json and --openmetrics: one of them");
	bool is_all = o.is_openmetrics && !o.machine && !o.interval_s;
	int r = is_all ? print_all(&e) : print_one(&o, &e);
	if (!r && fflush(stdout))
		r = error_set(&e, -EIO, "cannot write to standard output");
	if (r)
		fprintf(stderr, "gnomon stat: error: %s\n", e.text);
	return r ? EXIT_CODE_VMM : EXIT_CODE_OK;
}
