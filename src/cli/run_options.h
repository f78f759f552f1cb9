/* What `gnomon run` can be told, and the table of its options. */
#pragma once

#include "cli/options.h"
#include "report/report.h"
#include "vm/vm.h"

#define RUN_OPTIONS_MAX 96

struct json_t;

enum sandbox_choice { SANDBOX_CHOICE_OFF, SANDBOX_CHOICE_ON, SANDBOX_CHOICE_LOG };

struct run_options {
	struct vm_config vm;
	unsigned serial_count;
	const char *monitor;   /* NULL: only by Ctrl-A c */
	const char *gdb;       /* NULL: no server */
	const char *name;      /* NULL: "vm-PID" */
	const char *control;   /* the socket's path, or "none"; NULL: where the name leads */
	const char *snapshots; /* the folder where snapshots may be saved; NULL: the present one */
	int sandbox;	       /* enum sandbox_choice */
	unsigned grace_s;      /* from the power button to the hard end */
	const char *restore;   /* NULL: boot */
	const char *snapshot;  /* NULL: save nothing */
	const char *snapshot_base; /* NULL: a whole one */
	uint64_t snapshot_at;	   /* instructions; 0: at the guest's mark 1 */
	bool snapshot_continue;
	bool has_memory, has_cpus;   /* --memory, --cpus were given */
	int clock;		     /* enum clock_kind; -1: as the engine wants it */
	int kvm_limits;		     /* 0 refuse, 1 ignore */
	char engine_why[VM_WHY_MAX]; /* why --engine auto took vm.engine; else "" */
	bool is_paused;		     /* -S: wait for the debugger or the monitor's cont */
	bool wants_report;
	const char *report_file;  /* NULL: standard output */
	int format;		  /* enum bill_format */
	int interpreted_format;	  /* likewise, of --interpreted; not csv */
	const char *folded_file;  /* NULL: no folded stacks */
	const char *symbols_file; /* names for them; may be NULL */
	bool wants_state_hash;
	bool is_quiet;
	int log_level;
	const char *log_file;
	bool wants_help;
	const char *config;	 /* NULL: the command line alone */
	struct json_t *document; /* of --config; owns its texts */
	bool wants_config;	 /* --dump-config */
	struct option_given given[RUN_OPTIONS_MAX];
};

void run_options_init(struct run_options *o);
/* The table, for a command that takes these options, too: their target is a struct run_options. */
const struct option_row *run_option_rows(size_t *count);
/* Defaults that depend on others, and what does not go together; -EINVAL with the message. */
int run_options_complete(struct run_options *o, struct error *e);
/* Parses and completes; -EINVAL with the message. */
int run_options_parse(struct run_options *o, int argc, char **argv, struct error *e);
void run_options_fini(struct run_options *o);
/* --dump-config: what is in effect, as JSON. */
int run_options_dump(const struct run_options *o, FILE *f, struct error *e);
void run_options_help(FILE *f);
