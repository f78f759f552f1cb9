/*
 * `gnomon run`: makes a machine from the options, lets the person at the terminal, debuggers and
 * signals at it while it runs, and says how it ended. The main path: cmd_run -> vm_create -> vm_run
 * (vm/run.c) -> finish.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/bill.h"
#include "cli/cli.h"
#include "cli/run_options.h"
#include "cli/signals.h"
#include "clock/clock.h"
#include "debug/gdb.h"
#include "debug/monitor.h"
#include "vm/poller.h"
#include "vm/serial.h"

struct session {
	struct run_options options;
	struct vm *vm;
	struct signals *signals;
	struct monitor *monitor; /* of the terminal, Ctrl-A c */
	struct monitor_server *monitor_server;
	struct gdb *gdb;
	FILE *say; /* messages to the person: standard error as it was before --log-file took it */
	struct bill_order bill;
	unsigned end_requests; /* SIGINT and SIGTERM so far */
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- signals ---- */

static void asked_to_end(struct session *s, int number)
{
	bool is_gentle = (number == SIGINT || number == SIGTERM) && !s->end_requests++ &&
			 !vm_is_paused(s->vm);
	if (!is_gentle) {
		vm_end(s->vm, VM_END_SIGNAL, (uint32_t)number, strsignal(number));
		return;
	}
	fprintf(s->say, "gnomon: %s: pressed the guest's power button; once more ends at once\n",
		strsignal(number));
	vm_power_button(s->vm);
}

static void on_signal(void *opaque, int number)
{
	struct session *s = opaque;
	struct serial *terminal = NULL;
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		if (vm_serial(s->vm, i) && serial_is_stdio(vm_serial(s->vm, i)))
			terminal = vm_serial(s->vm, i);
	switch (number) {
	case SIGUSR1: bill_print_now(s->vm, &s->bill, s->say); break;
	case SIGTSTP:
		if (terminal)
			serial_terminal_leave(terminal);
		raise(SIGSTOP);
		if (terminal)
			serial_terminal_enter(terminal);
		break;
	case SIGCONT:
		if (terminal)
			serial_terminal_enter(terminal);
		break;
	default: asked_to_end(s, number); break;
	}
}

/* ---- the terminal's escapes ---- */

static void escape_help(struct session *s)
{
	fputs("\r\nCtrl-A x   end the guest at once\r\n"
	      "Ctrl-A c   change between the guest's console and the monitor\r\n"
	      "Ctrl-A s   send a break to the guest\r\n"
	      "Ctrl-A h   this\r\n"
	      "Ctrl-A Ctrl-A   send Ctrl-A to the guest\r\n",
	      s->say);
}

static size_t monitor_input(void *opaque, const uint8_t *bytes, size_t count)
{
	struct session *s = opaque;
	monitor_receive(s->monitor, bytes, count);
	return count;
}

static void terminal_output(void *opaque, const char *text, size_t count)
{
	(void)opaque;
	fwrite(text, 1, count, stdout);
	fflush(stdout);
}

static void toggle_monitor(struct session *s)
{
	struct serial_sink sink = {.receive = monitor_input, .opaque = s};
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++) {
		struct serial *serial = vm_serial(s->vm, i);
		if (!serial || !serial_is_stdio(serial))
			continue;
		serial_pump(serial);
		if (serial_is_diverted(serial)) {
			serial_divert(serial, NULL);
			fputs("\r\n(the guest's console again)\r\n", stdout);
			fflush(stdout);
		} else {
			serial_divert(serial, &sink);
			monitor_greet(s->monitor);
		}
	}
}

static void on_escape(void *opaque, char key)
{
	struct session *s = opaque;
	switch (key) {
	case 'x': vm_end(s->vm, VM_END_QUIT, 0, "ended by Ctrl-A x"); break;
	case 'c': toggle_monitor(s); break;
	case 'h':
	case '?': escape_help(s); break;
	default: break;
	}
}

/* ---- setting up ---- */

static int open_log(struct session *s)
{
	log_set_level((enum log_level)s->options.log_level);
	s->say = stderr;
	if (!s->options.log_file)
		return 0;
	int fd = open(s->options.log_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int old = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || old < 0 || !(s->say = fdopen(old, "w"))) {
		s->say = stderr;
		fprintf(stderr, "gnomon run: error: --log-file: cannot write '%s': %s\n",
			s->options.log_file, strerror(errno));
		return -1;
	}
	setvbuf(s->say, NULL, _IOLBF, 0);
	fflush(stderr);
	dup2(fd, STDERR_FILENO);
	close(fd);
	return 0;
}

static int attach(struct session *s, struct error *e)
{
	int r = signals_open(&s->signals, vm_poller(s->vm), on_signal, s, e);
	if (r)
		return r;
	r = monitor_create(&s->monitor, s->vm, terminal_output, s, e);
	if (r)
		return r;
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++) {
		struct serial *serial = vm_serial(s->vm, i);
		if (serial && serial_is_stdio(serial))
			serial_set_escape(serial, (struct serial_escape){on_escape, s});
		if (serial && serial_path(serial))
			fprintf(s->say, "gnomon: COM%u is at %s\n", i + 1, serial_path(serial));
	}
	if (s->options.monitor) {
		r = monitor_server_open(&s->monitor_server, s->vm, s->options.monitor, e);
		if (r)
			return error_prefix(e, "--monitor");
	}
	if (s->options.gdb) {
		r = gdb_open(&s->gdb, s->vm, s->options.gdb, e);
		if (r)
			return error_prefix(e, "--gdb");
	}
	if (s->options.is_paused)
		vm_pause(s->vm);
	return 0;
}

/* ---- the end ---- */

static int exit_code_of(const struct vm_outcome *o)
{
	switch (o->end) {
	case VM_END_NONE:
	case VM_END_POWER_OFF:
	case VM_END_STOP_AT:
	case VM_END_REGION:
	case VM_END_QUIT: return EXIT_CODE_OK;
	case VM_END_DEBUG_EXIT: return (int)((o->detail << 1 | 1) & 0xff);
	case VM_END_PANIC: return EXIT_CODE_PANIC;
	case VM_END_TRIPLE_FAULT: return EXIT_CODE_TRIPLE_FAULT;
	case VM_END_RESET: return EXIT_CODE_RESET;
	case VM_END_HALTED: return EXIT_CODE_HALTED;
	case VM_END_UNHANDLED: return EXIT_CODE_UNHANDLED;
	case VM_END_INSTRUCTIONS:
	case VM_END_TIMEOUT: return EXIT_CODE_LIMIT;
	case VM_END_SIGNAL: return EXIT_CODE_SIGNAL + (int)o->detail;
	case VM_END_DIFFERENCE:
	case VM_END_ERROR: break;
	}
	return EXIT_CODE_VMM;
}

/* 1234567 as 1,234,567. */
static const char *grouped(uint64_t v, char text[32])
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)v);
	char *p = text;
	for (int i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0)
			*p++ = ',';
		*p++ = digits[i];
	}
	*p = 0;
	return text;
}

static void say_outcome(struct session *s, const struct vm_outcome *o)
{
	char number[32];
	uint64_t done = vm_instructions(s->vm);
	double host_s = (double)(now_ns() - s->bill.start_ns) / 1e9;
	struct clock *clock = vm_clock(s->vm);
	double guest_s = (double)clock_ns_from_cycles(clock, clock_now(clock)) / 1e9;
	fprintf(s->say, "gnomon: %s\n", o->text);
	fprintf(s->say, "gnomon: %s instructions, %.3f s guest time, %.3f s host time, %.1f MIPS\n",
		grouped(done, number), guest_s, host_s,
		host_s > 0 ? (double)done / host_s / 1e6 : 0.0);
}

static int finish(struct session *s, const struct vm_outcome *outcome)
{
	struct error e = {0};
	int code = exit_code_of(outcome);
	bool is_fault = outcome->end == VM_END_ERROR || outcome->end == VM_END_DIFFERENCE;
	fflush(stdout);
	if (!s->options.is_quiet || is_fault)
		say_outcome(s, outcome);
	if (s->options.wants_state_hash) {
		char text[33];
		if (vm_state_hash(s->vm, text, &e)) {
			fprintf(s->say, "gnomon run: error: --state-hash: %s\n", e.text);
			return EXIT_CODE_VMM;
		}
		printf("state hash: %s\n", text);
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

static void close_session(struct session *s)
{
	gdb_close(s->gdb);
	monitor_server_close(s->monitor_server);
	monitor_destroy(s->monitor);
	signals_close(s->signals);
	vm_destroy(s->vm);
	if (s->say != stderr)
		fclose(s->say);
}

static int failed(struct session *s, const struct error *e)
{
	fprintf(s->say, "gnomon run: error: %s\n", e->text);
	return EXIT_CODE_VMM;
}

static int run_session(struct session *s)
{
	struct error e = {0};
	signals_block();
	if (vm_create(&s->vm, &s->options.vm, &e))
		return failed(s, &e);
	if (attach(s, &e))
		return failed(s, &e);
	struct vm_outcome outcome;
	s->bill = (struct bill_order){
		.format = (enum bill_format)s->options.format,
		.file = s->options.report_file,
		.start_ns = now_ns(),
	};
	vm_run(s->vm, &outcome);
	/* The terminal is the person's again before anything is said. */
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		if (vm_serial(s->vm, i))
			serial_terminal_leave(vm_serial(s->vm, i));
	return finish(s, &outcome);
}

int cmd_run(int argc, char **argv)
{
	struct session s = {.say = stderr};
	struct error e = {0};
	run_options_init(&s.options);
	if (run_options_parse(&s.options, argc, argv, &e))
		return cli_usage_error("run", e.text);
	if (s.options.wants_help) {
		run_options_help(stdout);
		return EXIT_CODE_OK;
	}
	if (open_log(&s))
		return EXIT_CODE_VMM;
	int code = run_session(&s);
	close_session(&s);
	return code;
}
