/*
 * A machine and who sits at it: the person at the terminal, debuggers, signals. What `gnomon run`
 * and `gnomon compare` have in common.
 *
 * The order: options, session_open_log(), session_open(), the run, session_leave_terminal(), what
 * the command has to say, session_close() (after a failure, too).
 */
#pragma once

#include <stdio.h>

#include "cli/bill.h"
#include "cli/run_options.h"
#include "cli/signals.h"
#include "vm/vm.h"

struct folded;
struct monitor;
struct control;
struct monitor_server;
struct gdb;
struct symbols;
struct snapshot;

struct session {
	const char *command; /* for messages: "run" */
	struct run_options options;
	struct snapshot *restored; /* --restore: lives as long as the machine */
	struct vm *vm;
	struct signals *signals;
	struct monitor *monitor; /* of the terminal, Ctrl-A c */
	struct monitor_server *monitor_server;
	struct gdb *gdb;
	struct control *control; /* NULL: --control none */
	FILE *say; /* messages to the person: standard error as it was before --log-file took it */
	struct bill_order bill;
	const char *out_file;  /* written at the end beside what the options name; may be NULL */
	bool ends_at_once;     /* at the first SIGINT or SIGTERM, without the power button */
	unsigned end_requests; /* SIGINT and SIGTERM so far */
	int end_signal;	       /* whose number the exit code has if the grace period ends */
	int grace_timer;       /* -1 until the power button was pressed to end the machine */
	struct folded *folded; /* NULL unless the options want it */
	struct symbols *symbols;
	bool is_folding_region; /* the region of interest has begun */
	bool is_snapshot_asked, is_saved;
};

/* The log's level and file. -1 with the message printed. */
int session_open_log(struct session *s);
/* Makes the machine and lets signals, terminal and debuggers at it. */
int session_open(struct session *s, struct error *e);
/* The terminal is the person's again. */
void session_leave_terminal(struct session *s);
void session_close(struct session *s);

/* "gnomon COMMAND: error: TEXT"; returns EXIT_CODE_VMM. */
int session_fail(struct session *s, const struct error *e);
/* How the guest ended, and how fast it was. */
void session_say_outcome(struct session *s, const struct vm_outcome *o);
int session_exit_code(const struct vm_outcome *o);
/* Prints the state hash if the options want it; an exit code. */
int session_print_state_hash(struct session *s);
/* Writes the folded stacks if the options want them; an exit code. */
int session_write_folded(struct session *s);
/* Says so if --snapshot asked for what never came; an exit code. */
int session_check_snapshot(struct session *s);

/* ---- session_stop.c: ending the machine from outside ---- */
/* SIGINT, SIGTERM and the like: the power button first, the second time at once. */
void session_signal_end(struct session *s, int number);
/* The control socket, under --name or --control. */
int session_open_control(struct session *s, struct error *e);
void session_close_stop(struct session *s);

/* ---- session_sandbox.c ---- */
/* When all is open and before anything of the guest has run. */
int session_enter_sandbox(struct session *s, struct error *e);

/* ---- session_snapshot.c, for session_open() ---- */
/* Before the machine is made: it comes from --restore. */
int session_restore(struct session *s, struct error *e);
/* After it: --snapshot will happen. */
int session_arm_snapshot(struct session *s, struct error *e);
