/* The first word names a command; the rest is its own business. */
#include <signal.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/cli.h"

const struct command cli_commands[] = {
	{"run", cmd_run, "boot a guest, and print what its virtualization costs"},
	{"compare", cmd_compare, "run a guest once, and print what every strategy would cost"},
	{"profile", cmd_profile,
	 "list, show, check and compare the processors whose prices are known"},
	{"calibrate", cmd_calibrate, "measure this machine, and write it as a profile"},
	{"exits", cmd_exits, "test this host's /dev/kvm, and measure its exits"},
	{"bench", cmd_bench, "measure Gnomon itself"},
	{"snapshot", cmd_snapshot, "save a machine that runs; show what is in a snapshot"},
	{"ps", cmd_ps, "list the machines that run"},
	{"stat", cmd_stat, "exits by cause and other counters of a machine that runs"},
	{"top", cmd_top, "the same, live"},
	{"stop", cmd_stop, "shut a machine down"},
	{"reset", cmd_reset, "reset a machine"},
	{"powerbutton", cmd_powerbutton, "press a machine's power button"},
	{"pause", cmd_pause, "hold a machine"},
	{"resume", cmd_resume, "let a machine go on"},
	{"balloon", cmd_balloon, "take memory back from a guest"},
	{"monitor", cmd_monitor, "commands of a machine's monitor"},
	{"switch", cmd_switch, "connect the networks of machines on this host"},
	{"help", cmd_help, "help on a command"},
	{"version", cmd_version, "print the version"},
	{NULL, NULL, NULL},
};

static const struct command *find(const char *name)
{
	for (const struct command *c = cli_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static const char *command_name(const void *opaque, size_t i)
{
	return ((const struct command *)opaque)[i].name;
}

static int unknown_command(const char *name)
{
	char text[200];
	size_t count = sizeof(cli_commands) / sizeof(cli_commands[0]);
	const char *near = nearest(name, count, command_name, cli_commands);
	if (name[0] == '-')
		snprintf(text, sizeof(text),
			 "a command comes first: 'gnomon run %.60s ...', perhaps?", name);
	else if (near)
		snprintf(text, sizeof(text), "there is no command '%.60s'; did you mean '%s'?",
			 name, near);
	else
		snprintf(text, sizeof(text), "there is no command '%.60s'", name);
	return cli_usage_error("", text);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return cli_usage_error("", "a command is missing; usage: gnomon run --kernel FILE");
	/* A limit on file sizes is an error of the write that meets it. */
	signal(SIGXFSZ, SIG_IGN);
	const char *name = argv[1];
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "-help"))
		name = "help";
	if (!strcmp(name, "--version") || !strcmp(name, "-V"))
		name = "version";
	const struct command *c = find(name);
	if (!c)
		return unknown_command(name);
	return c->run(argc - 1, argv + 1);
}
