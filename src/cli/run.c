/*
 * `gnomon run`: makes a machine from the options, lets the person at the terminal, debuggers and
 * signals at it while it runs (session.c), and says how it ended. The main path: cmd_run ->
 * vm_create -> vm_run (vm/run.c) -> finish.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/host_time.h"
#include "cli/cli.h"
#include "cli/notify.h"
#include "cli/session.h"
#include "report/interpreted.h"

static int print_interpreted(struct session *s, struct error *e)
{
	struct trans_statistics statistics;
	int r = vm_trans_statistics(s->vm, &statistics, e);
	if (r)
		return r;
	if (s->options.interpreted_format == BILL_JSON)
		r = report_write_interpreted_json(stdout, &statistics, e);
	else
		report_write_interpreted(stdout, &statistics);
	trans_statistics_fini(&statistics);
	return r;
}

static int finish(struct session *s, const struct vm_outcome *outcome)
{
	struct error e = {0};
	int code = session_exit_code(outcome);
	bool is_fault = outcome->end == VM_END_ERROR || outcome->end == VM_END_DIFFERENCE;
	fflush(stdout);
	if (!s->options.is_quiet || is_fault)
		session_say_outcome(s, outcome);
	if (session_check_snapshot(s) || session_print_state_hash(s) || session_write_folded(s))
		return EXIT_CODE_VMM;
	if (s->options.vm.interpreted && print_interpreted(s, &e)) {
		fprintf(s->say, "gnomon run: error: --interpreted: %s\n", e.text);
		return EXIT_CODE_VMM;
	}
	if (s->options.wants_report && bill_print(s->vm, &s->bill, &e)) {
		fprintf(s->say, "gnomon run: error: --report: %s\n", e.text);
		return EXIT_CODE_VMM;
	}
	if (fflush(stdout)) {
		fprintf(s->say, "gnomon run: error: standard output: %s\n", strerror(errno));
		return EXIT_CODE_VMM;
	}
	return code;
}

static int run_session(struct session *s)
{
	struct error e = {0};
	struct vm_outcome outcome;
	int manager = -1; /* reached before the sandbox, told when nothing can fail any more */
	if (session_open(s, &e) || notify_open(&manager, &e) || session_enter_sandbox(s, &e))
		return session_fail(s, &e);
	notify_ready(manager);
	if (manager >= 0)
		close(manager);
	s->bill = (struct bill_order){
		.format = (enum bill_format)s->options.format,
		.file = s->options.report_file,
		.start_ns = host_time_ns(),
	};
	vm_run(s->vm, &outcome);
	session_leave_terminal(s);
	return finish(s, &outcome);
}

int cmd_run(int argc, char **argv)
{
	struct session s = {.command = "run", .say = stderr};
	struct error e = {0};
	run_options_init(&s.options);
	int code = EXIT_CODE_OK;
	if (run_options_parse(&s.options, argc, argv, &e)) {
		code = cli_usage_error("run", e.text);
	} else if (s.options.wants_help) {
		run_options_help(stdout);
	} else if (s.options.wants_config) {
		if (run_options_dump(&s.options, stdout, &e))
			code = session_fail(&s, &e);
	} else if (session_open_log(&s)) {
		code = EXIT_CODE_VMM;
	} else {
		code = run_session(&s);
		session_close(&s);
	}
	run_options_fini(&s.options);
	return code;
}
