#include "cli/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/host_time.h"
#include "base/log.h"
#include "cli/cli.h"
#include "clock/clock.h"
#include "debug/gdb.h"
#include "debug/monitor.h"
#include "report/folded.h"
#include "report/symbols.h"
#include "snapshot/snapshot.h"
#include "vm/poller.h"
#include "vm/serial.h"

/* ---- signals ---- */

/* Somebody moved the log away: what follows goes into a new file of its name. */
static void reopen_log(struct session *s)
{
	int fd = open(s->options.log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	fflush(stderr);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
		fprintf(s->say, "gnomon: --log-file: cannot write '%s' anew: %s\n",
			s->options.log_file, strerror(errno));
	else
		log_info("the log was opened anew");
	if (fd >= 0)
		close(fd);
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
	case SIGHUP:
		if (s->options.log_file)
			reopen_log(s);
		else
			session_signal_end(s, number);
		break;
	case SIGCONT:
		if (terminal)
			serial_terminal_enter(terminal);
		break;
	default: session_signal_end(s, number); break;
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

int session_open_log(struct session *s)
{
	log_set_level((enum log_level)s->options.log_level);
	s->say = stderr;
	if (!s->options.log_file)
		return 0;
	int fd = open(s->options.log_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int old = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || old < 0 || !(s->say = fdopen(old, "w"))) {
		s->say = stderr;
		fprintf(stderr, "gnomon %s: error: --log-file: cannot write '%s': %s\n", s->command,
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
	return session_open_control(s, e);
}

/* Only the region of interest, once there is one. */
static void fold(void *opaque, const struct vm_charge *c)
{
	struct session *s = opaque;

	if (c->has_region && !s->is_folding_region) {
		folded_restart(s->folded);
		s->is_folding_region = true;
	}
	if (s->is_folding_region && !c->is_in_region)
		folded_leave(s->folded, c->vcpu);
	else
		folded_charge(s->folded, c->vcpu, c->ledger, c->event, c->address);
}

static int start_folding(struct session *s, struct error *e)
{
	const struct run_options *o = &s->options;

	if (!o->folded_file)
		return 0;
	int r = o->symbols_file ? symbols_load(o->symbols_file, &s->symbols, e) : 0;
	if (r)
		return error_prefix(e, "--symbols");
	if (folded_create(&s->folded, vm_cpu_count(s->vm)) ||
	    vm_on_charge(s->vm, (struct vm_charge_hook){fold, s}))
		return error_set(e, -ENOMEM, "out of memory");
	return 0;
}

int session_open(struct session *s, struct error *e)
{
	s->grace_timer = -1;
	signals_block();
	int r = session_restore(s, e);
	if (!r)
		r = vm_create(&s->vm, &s->options.vm, e);
	if (!r && s->options.engine_why[0] && !s->options.is_quiet)
		fprintf(s->say, "gnomon: engine: %s (%s)\n", vm_config(s->vm)->engine,
			s->options.engine_why);
	if (!r)
		r = start_folding(s, e);
	if (!r)
		r = session_arm_snapshot(s, e);
	return r ? r : attach(s, e);
}

void session_leave_terminal(struct session *s)
{
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		if (vm_serial(s->vm, i))
			serial_terminal_leave(vm_serial(s->vm, i));
}

int session_fail(struct session *s, const struct error *e)
{
	fprintf(s->say, "gnomon %s: error: %s\n", s->command, e->text);
	return EXIT_CODE_VMM;
}

/* ---- the end ---- */

int session_exit_code(const struct vm_outcome *o)
{
	switch (o->end) {
	case VM_END_NONE:
	case VM_END_POWER_OFF:
	case VM_END_STOP_AT:
	case VM_END_REGION:
	case VM_END_SAVED:
	case VM_END_QUIT: return EXIT_CODE_OK;
	case VM_END_DEBUG_EXIT: return (int)((o->detail << 1 | 1) & 0xff);
	case VM_END_PANIC: return EXIT_CODE_PANIC;
	case VM_END_WATCHDOG: return EXIT_CODE_WATCHDOG;
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

void session_say_outcome(struct session *s, const struct vm_outcome *o)
{
	char number[32];
	uint64_t done = vm_instructions(s->vm);
	double host_s = (double)(host_time_ns() - s->bill.start_ns) / 1e9;
	struct clock *clock = vm_clock(s->vm);
	double guest_s = (double)clock_ns_from_cycles(clock, clock_now(clock)) / 1e9;
	fprintf(s->say, "gnomon: %s\n", o->text);
	if (!strcmp(vm_config(s->vm)->engine, "kvm")) {
		fprintf(s->say, "gnomon: %.3f s guest time, %.3f s host time\n", guest_s, host_s);
		return;
	}
	fprintf(s->say, "gnomon: %s instructions, %.3f s guest time, %.3f s host time, %.1f MIPS\n",
		grouped(done, number), guest_s, host_s,
		host_s > 0 ? (double)done / host_s / 1e6 : 0.0);
}

void session_close(struct session *s)
{
	session_close_stop(s);
	gdb_close(s->gdb);
	monitor_server_close(s->monitor_server);
	monitor_destroy(s->monitor);
	signals_close(s->signals);
	vm_destroy(s->vm);
	folded_destroy(s->folded);
	symbols_destroy(s->symbols);
	snapshot_close(s->restored);
	if (s->say != stderr)
		fclose(s->say);
}

static int write_folded(struct session *s, FILE *f, struct error *e)
{
	const struct ledger *ledgers[VM_CPUS_MAX];
	struct report_input in = {
		.profile = vm_profile(s->vm),
		.ledgers = ledgers,
		.vcpu_count = vm_cpu_count(s->vm),
		.strategy = vm_scheme_paging(s->vm, 0),
		.is_virtualized = vm_scheme_is_virtualized(s->vm, 0),
	};

	for (unsigned i = 0; i < in.vcpu_count; i++) {
		ledgers[i] = vm_ledger(s->vm, i);
		folded_finish(s->folded, i, ledgers[i]);
	}
	return folded_write(f, s->folded, &in, s->symbols, e);
}

int session_write_folded(struct session *s)
{
	const char *name = s->options.folded_file;
	struct error e = {0};

	if (!s->folded)
		return EXIT_CODE_OK;
	FILE *f = fopen(name, "we");
	int r = f ? write_folded(s, f, &e) : -errno;
	if (!f || (fclose(f) && !r))
		r = error_set(&e, -errno, "cannot write '%s': %s", name, strerror(errno));
	if (!r)
		return EXIT_CODE_OK;
	error_prefix(&e, "--folded");
	return session_fail(s, &e);
}

int session_print_state_hash(struct session *s)
{
	struct error e = {0};
	char text[33];

	if (!s->options.wants_state_hash)
		return EXIT_CODE_OK;
	if (vm_state_hash(s->vm, text, &e)) {
		error_prefix(&e, "--state-hash");
		return session_fail(s, &e);
	}
	printf("state hash: %s\n", text);
	return EXIT_CODE_OK;
}
