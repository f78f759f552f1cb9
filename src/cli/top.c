/* `gnomon top`: a live view of the machines that run, with kvm_stat's keys; once, without a
 * terminal, with -1. */
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curses.h>

#include "base/host_time.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/top_view.h"

#define FRAME_BYTES 65536
#define DELAY_MAX_S 3600.0

struct top_options {
	const char *machine, *filter;
	double delay_s;
	bool is_once, wants_help;
};

static int set_delay(void *target, const char *value, struct error *e)
{
	struct top_options *o = target;
	char *end;
	o->delay_s = strtod(value, &end);
	if (end == value || *end || !(o->delay_s >= 0.1) || o->delay_s > DELAY_MAX_S)
		return error_set(e, -EINVAL, "'%s' is not a number of seconds from 0.1 to 3600",
				 value);
	return 0;
}

#define FIELD(f) .offset = offsetof(struct top_options, f)
static const struct option_row rows[] = {
	{"MACHINE", NULL, NULL, "whose events are shown; all machines' sum if left out", "Machine",
	 OPTION_WORD, FIELD(machine)},
	{"once", "-1 --batch", NULL, "print what was counted within one interval, and end",
	 "Options", OPTION_SWITCH, FIELD(is_once)},
	{"set-delay", "-s", "SECONDS", "how long an interval is [1]", NULL, OPTION_CUSTOM,
	 .set = set_delay},
	{"fields", "-f", "REGEX", "only events whose name it fits", NULL, OPTION_TEXT,
	 FIELD(filter)},
	{"help", "-h -help", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help)},
};

static const char head[] =
	"usage: gnomon top [MACHINE] [OPTION]...\n"
	"\n"
	"The machines of this user that run: instructions and exits a second, what the\n"
	"exits would cost, TLB misses, which strategy adaptive has chosen; and their events.\n";
static const char keys[] =
	"b machines alone  c clear filter  f filter by regex  g machine by name  h help\n"
	"o order: rate, total, cost  p machine by PID  q quit  r reset totals  s interval\n"
	"x rates by vcpu\n";

static int print_help(void)
{
	fputs(head, stdout);
	options_print(stdout, rows, ARRAY_COUNT(rows));
	printf("\nKeys\n%s", keys);
	return fflush(stdout) ? EXIT_CODE_VMM : EXIT_CODE_OK;
}

static void wait_s(double seconds)
{
	usleep((useconds_t)(seconds * 1e6));
}

static int run_once(struct top_view *v, const struct top_options *o, struct error *e)
{
	int r = top_view_sample(v, e);
	if (r)
		return r;
	wait_s(o->delay_s);
	r = top_view_sample(v, e);
	if (!r)
		top_view_print(v, stdout, EVENT_COUNT);
	return r;
}

/* ---- the terminal ---- */

static int draw(const struct top_view *v)
{
	char *text = calloc(1, FRAME_BYTES);
	FILE *f = text ? fmemopen(text, FRAME_BYTES, "w") : NULL;
	unsigned used = v->count + 5;
	unsigned rows_left = (unsigned)LINES > used ? (unsigned)LINES - used : 0;
	if (!f) {
		free(text);
		return -ENOMEM;
	}
	top_view_print(v, f, rows_left);
	fclose(f);
	erase();
	int y = 0;
	for (char *line = text, *end; y < LINES && *line; line = end + 1, y++) {
		end = line + strcspn(line, "\n");
		bool is_last = !*end;
		*end = 0;
		/* The two heads: of the machines, and of the events. */
		bool is_head = y == 1 || !strncmp(line, "Event ", 6);
		if (is_head)
			attron(A_REVERSE);
		mvaddnstr(y, 0, line, COLS);
		if (is_head)
			attroff(A_REVERSE);
		if (is_last)
			break;
	}
	refresh();
	free(text);
	return 0;
}

/* Asks on the first line; false if nothing was typed. */
static void prompt(const char *question, char *answer, int size)
{
	move(0, 0);
	clrtoeol();
	attron(A_BOLD);
	addstr(question);
	attroff(A_BOLD);
	echo();
	curs_set(1);
	timeout(-1);
	if (getnstr(answer, size - 1) == ERR)
		answer[0] = 0;
	noecho();
	curs_set(0);
}

static void show_help(void)
{
	erase();
	mvaddstr(0, 0, keys);
	addstr("\nCOST is the share of a processor's time that the exits would take on the "
	       "profile's.\nAny key goes back.");
	refresh();
	timeout(-1);
	getch();
}

/* False: the end. */
static bool handle_key(struct top_view *v, struct top_options *o, int key)
{
	char text[100] = "";
	struct error e = {0};
	v->message[0] = 0;
	switch (key) {
	case 'q': return false;
	case 'b': v->hides_events = !v->hides_events; break;
	case 'x': v->wants_vcpus = !v->wants_vcpus; break;
	case 'o': v->order = (v->order + 1) % TOP_ORDER_COUNT; break;
	case 'r': top_view_reset(v); break;
	case 'h': show_help(); break;
	case 'c':
		top_view_filter(v, "");
		v->selected[0] = 0;
		break;
	case 'f':
		prompt("Events that fit (regular expression): ", text, sizeof(text));
		if (!top_view_filter(v, text))
			snprintf(v->message, sizeof(v->message), "'%s' is none", text);
		break;
	case 'g':
		prompt("Machine (none: all): ", text, sizeof(text));
		snprintf(v->selected, sizeof(v->selected), "%s", text);
		break;
	case 'p':
		prompt("PID of a machine (none: all): ", text, sizeof(text));
		if (!top_view_select_pid(v, text))
			snprintf(v->message, sizeof(v->message), "'%s' is no machine's", text);
		break;
	case 's':
		prompt("Seconds: ", text, sizeof(text));
		double old = o->delay_s;
		if (set_delay(o, text, &e)) {
			snprintf(v->message, sizeof(v->message), "%.150s", e.text);
			o->delay_s = old;
		}
		break;
	default: break;
	}
	return true;
}

static double now_s(void)
{
	return (double)host_time_ns() / 1e9;
}

static int run_live(struct top_view *v, struct top_options *o, struct error *e)
{
	double next = 0;
	int r = 0;
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return error_set(e, -ENOTTY, "no terminal; -1 prints once");
	setlocale(LC_ALL, "");
	if (!newterm(NULL, stdout, stdin))
		return error_set(e, -EINVAL, "the terminal's type ($TERM) is not known");
	noecho();
	cbreak();
	curs_set(0);
	for (;;) {
		if (now_s() >= next) {
			r = top_view_sample(v, e);
			next = now_s() + o->delay_s;
		}
		if (r || (r = draw(v)))
			break;
		double left = next - now_s();
		timeout(left > 0 ? (int)(left * 1000) + 1 : 0);
		int key = getch();
		if (key != ERR && !handle_key(v, o, key))
			break;
	}
	endwin();
	return r;
}

int cmd_top(int argc, char **argv)
{
	struct top_options o = {.delay_s = 1};
	struct top_view v = {0};
	struct error e = {0};
	if (options_parse(rows, ARRAY_COUNT(rows), &o, argc, argv, &e))
		return cli_usage_error("top", e.text);
	if (o.wants_help)
		return print_help();
	if (o.filter && !top_view_filter(&v, o.filter)) {
		error_set(&e, -EINVAL, "--fields: '%s' is no regular expression", o.filter);
		return cli_usage_error("top", e.text);
	}
	snprintf(v.selected, sizeof(v.selected), "%s", o.machine ? o.machine : "");
	int r = o.is_once ? run_once(&v, &o, &e) : run_live(&v, &o, &e);
	top_view_fini(&v);
	if (!r && fflush(stdout))
		r = error_set(&e, -EIO, "cannot write to standard output");
	if (r)
		fprintf(stderr, "gnomon top: error: %s\n", e.text);
	return r ? EXIT_CODE_VMM : EXIT_CODE_OK;
}
