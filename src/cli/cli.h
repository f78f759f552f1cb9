/*
 * The command line: the only place that prints, reads arguments and decides exit codes. One file a
 * command.
 */
#pragma once

#include <stdio.h>

#include "base/types.h"

/* argv[0] is the command's name. Returns the process's exit code. */
int cmd_run(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_profile(int argc, char **argv);
int cmd_calibrate(int argc, char **argv);
int cmd_exits(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_switch(int argc, char **argv);
/* `bench papers`: argv[0] is "papers". */
int cmd_bench_papers(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_powerbutton(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_balloon(int argc, char **argv);
int cmd_monitor(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_version(int argc, char **argv);

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *text;
};

/* Ends with a NULL name. */
extern const struct command cli_commands[];

/* How `gnomon run` ends (man page, EXIT STATUS). Signals are 128 + n, isa-debug-exit is (value <<
 * 1) | 1. */
enum exit_code {
	EXIT_CODE_OK = 0,    /* power-off, --stop-at, Ctrl-A x */
	EXIT_CODE_VMM = 1,   /* our fault or the host's; --verify found a difference */
	EXIT_CODE_USAGE = 2, /* what was asked for is impossible */
	EXIT_CODE_PANIC = 3,
	EXIT_CODE_TRIPLE_FAULT = 4,
	EXIT_CODE_RESET = 5,
	EXIT_CODE_HALTED = 6,
	EXIT_CODE_UNHANDLED = 7,
	EXIT_CODE_WATCHDOG = 8,
	EXIT_CODE_LIMIT = 124,
	EXIT_CODE_SIGNAL = 128,
};

/* Colour, bold and the like make sense on `f`: it is a terminal and NO_COLOR is not set. */
bool cli_is_fancy(FILE *f);
/* "gnomon COMMAND: error: TEXT" on standard error, and where help is; returns EXIT_CODE_USAGE. */
int cli_usage_error(const char *command, const char *text);
/* Prints `text` wrapped at 80 columns, every line but the first after `indent` columns; the first
 * begins at `column`. */
void cli_print_wrapped(FILE *f, const char *text, unsigned column, unsigned indent);
