/* `gnomon switch`: a switch that the networks of several machines meet at, until a signal ends it.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "net/switch.h"

struct switch_options {
	const char *path;
	bool is_quiet, wants_help;
};

#define FIELD(f) .offset = offsetof(struct switch_options, f)

static const struct option_row rows[] = {
	{"path", NULL, "SOCKET", "where machines with --net switch,path=SOCKET connect", "Options",
	 OPTION_TEXT, FIELD(path)},
	{"quiet", NULL, NULL, "say nothing but errors", NULL, OPTION_SWITCH, FIELD(is_quiet)},
	{"help", "-h", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help)},
};

static const char head[] =
	"usage: gnomon switch --path SOCKET\n"
	"\n"
	"Connects the networks of machines on this host, until a signal ends it: each of\n"
	"them runs with --net switch,path=SOCKET. QEMU's -netdev stream,server=off,\n"
	"addr.type=unix,addr.path=SOCKET is understood, too.\n";

static int wait_for_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static void say_counts(const struct net_switch *s)
{
	struct net_switch_counts c = net_switch_counts(s);
	fprintf(stderr,
		"gnomon switch: %u machines, %llu frames, %llu of them to everybody, %llu lost\n",
		c.ports_ever, (unsigned long long)c.frames, (unsigned long long)c.floods,
		(unsigned long long)c.drops);
}

int cmd_switch(int argc, char **argv)
{
	struct switch_options o = {0};
	struct error e = {0};
	struct net_switch *s;
	if (options_parse(rows, ARRAY_COUNT(rows), &o, argc, argv, &e))
		return cli_usage_error("switch", e.text);
	if (o.wants_help) {
		fputs(head, stdout);
		options_print(stdout, rows, ARRAY_COUNT(rows));
		return EXIT_CODE_OK;
	}
	if (!o.path)
		return cli_usage_error("switch", "--path SOCKET is missing");
	signal(SIGPIPE, SIG_IGN);
	int stop = wait_for_signals();
	if (stop < 0 || net_switch_open(&s, o.path, &e)) {
		fprintf(stderr, "gnomon switch: error: %s\n", stop < 0 ? strerror(errno) : e.text);
		return EXIT_CODE_VMM;
	}
	if (!o.is_quiet)
		fprintf(stderr, "gnomon switch: listening at %s\n", o.path);
	while (net_switch_turn(s, stop, -1))
		;
	if (!o.is_quiet)
		say_counts(s);
	net_switch_close(s);
	close(stop);
	return EXIT_CODE_OK;
}
