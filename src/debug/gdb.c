/*
 * The commands of gdb's protocol. Threads are vcpus: thread n + 1 is vcpu n. Everything runs
 * between the machine's turns.
 */
#include "debug/gdb.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/vcpu.h"
#include "debug/gdb_packet.h"
#include "debug/gdb_registers.h"
#include "debug/listener.h"
#include "debug/monitor_private.h"
#include "vm/vm.h"

#define BREAKPOINTS_MAX 128
#define SIGNAL_INT 2
#define SIGNAL_TRAP 5

struct gdb {
	struct vm *vm; /* borrowed */
	struct listener *listener;
	struct monitor *monitor; /* for qRcmd */
	struct gdb_parser parser;
	struct gdb_answer answer;
	uint8_t frame[sizeof(((struct gdb_answer *)0)->data) +
		      4]; /* the last answer, for resending */
	size_t frame_bytes;
	bool is_acknowledging;
	bool has_swbreak; /* gdb understands "swbreak" in stop replies */
	bool is_running;  /* gdb waits for a stop reply */
	unsigned vcpu;	  /* of g, m and the like (Hg) */
	unsigned resumed; /* of c and s (Hc) */
	unsigned stopped; /* who stopped last */
	int signal;	  /* why */
	uint64_t breakpoints[BREAKPOINTS_MAX];
	unsigned breakpoint_count;
};

/* ---- answering ---- */

static void begin(struct gdb *g)
{
	g->answer.length = 0;
	g->answer.is_cut = false;
}

static void send_answer(struct gdb *g)
{
	g->frame_bytes = gdb_frame(&g->answer, g->frame);
	listener_send(g->listener, g->frame, g->frame_bytes);
}

static void answer(struct gdb *g, const char *text)
{
	begin(g);
	gdb_answer_text(&g->answer, "%s", text);
	send_answer(g);
}

static void answer_error(struct gdb *g, int code)
{
	begin(g);
	gdb_answer_text(&g->answer, "E%02x", code & 0xff);
	send_answer(g);
}

static void answer_stop(struct gdb *g, bool is_breakpoint)
{
	begin(g);
	gdb_answer_text(&g->answer, "T%02xthread:%x;", g->signal, g->stopped + 1);
	if (is_breakpoint && g->has_swbreak)
		gdb_answer_text(&g->answer, "swbreak:;");
	send_answer(g);
}

static void stopped(void *opaque, unsigned vcpu, enum exit_reason reason)
{
	struct gdb *g = opaque;
	g->stopped = g->vcpu = g->resumed = vcpu;
	g->signal = SIGNAL_TRAP;
	if (g->is_running && listener_is_connected(g->listener))
		answer_stop(g, reason == EXIT_BREAKPOINT);
	g->is_running = false;
}

static void ended(void *opaque, const struct vm_outcome *outcome)
{
	struct gdb *g = opaque;
	bool is_good = outcome->end == VM_END_POWER_OFF || outcome->end == VM_END_STOP_AT ||
		       outcome->end == VM_END_REGION || outcome->end == VM_END_SAVED ||
		       outcome->end == VM_END_QUIT;
	if (g->is_running && listener_is_connected(g->listener))
		answer(g, is_good ? "W00" : "W01");
	g->is_running = false;
}

/* ---- running ---- */

static void resume(struct gdb *g)
{
	g->is_running = true;
	vm_resume(g->vm);
}

static void step(struct gdb *g, unsigned vcpu)
{
	g->is_running = true;
	vm_step(g->vm, vcpu);
}

static void interrupt(struct gdb *g)
{
	vm_pause(g->vm);
	g->signal = SIGNAL_INT;
	if (g->is_running)
		answer_stop(g, false);
	g->is_running = false;
}

/* A thread id: -1 all, 0 any; *vcpu is left alone then. False if there is no such. */
static bool parse_thread(struct gdb *g, const char **text, unsigned *vcpu)
{
	uint64_t id;
	if (!strncmp(*text, "-1", 2)) {
		*text += 2;
		return true;
	}
	if (!gdb_number(text, &id) || id > vm_cpu_count(g->vm))
		return false;
	if (id)
		*vcpu = (unsigned)(id - 1);
	return true;
}

/* "vCont;s:1;c": the first action for a thread holds. A step stops all, so a step anywhere decides.
 */
static void run_vcont(struct gdb *g, const char *p)
{
	bool has_step = false;
	unsigned stepped = g->resumed;
	while (*p == ';') {
		char action = p[1];
		p += 2;
		uint64_t signal;
		if (action == 'C' || action == 'S')
			gdb_number(&p, &signal);
		unsigned vcpu = g->resumed;
		if (*p == ':') {
			p++;
			if (!parse_thread(g, &p, &vcpu)) {
				answer_error(g, EINVAL);
				return;
			}
		}
		if ((action == 's' || action == 'S') && !has_step) {
			has_step = true;
			stepped = vcpu;
		} else if (!strchr("cCsS", action)) {
			answer(g, "");
			return;
		}
		if (*p && *p != ';')
			break;
	}
	if (has_step)
		step(g, stepped);
	else
		resume(g);
}

static void run_old_style(struct gdb *g, const char *p)
{
	const char *address = p + 1;
	uint64_t rip;
	if (*address && gdb_number(&address, &rip)) {
		vm_vcpu(g->vm, g->resumed)->state.rip = rip;
		vm_state_changed(g->vm, g->resumed);
	}
	if (*p == 's')
		step(g, g->resumed);
	else
		resume(g);
}

/* ---- registers ---- */

static void read_registers(struct gdb *g)
{
	begin(g);
	for (unsigned i = 0; i < gdb_register_count(); i++) {
		uint8_t bytes[GDB_REGISTER_BYTES_MAX];
		gdb_register_get(vm_vcpu(g->vm, g->vcpu), i, bytes);
		gdb_answer_hex(&g->answer, bytes, gdb_register_bytes(i));
	}
	send_answer(g);
}

static void write_registers(struct gdb *g, const char *hex)
{
	uint8_t bytes[1024] = {0};
	int n = gdb_unhex(hex, bytes, sizeof(bytes));
	if (n < 0) {
		answer_error(g, EINVAL);
		return;
	}
	size_t at = 0;
	for (unsigned i = 0; i < gdb_register_count(); i++) {
		if (at + gdb_register_bytes(i) > (size_t)n)
			break;
		gdb_register_set(vm_vcpu(g->vm, g->vcpu), i, bytes + at);
		at += gdb_register_bytes(i);
	}
	vm_state_changed(g->vm, g->vcpu);
	answer(g, "OK");
}

static void read_register(struct gdb *g, const char *p)
{
	uint64_t number;
	uint8_t bytes[GDB_REGISTER_BYTES_MAX];
	if (!gdb_number(&p, &number) || number >= gdb_register_count()) {
		answer_error(g, EINVAL);
		return;
	}
	gdb_register_get(vm_vcpu(g->vm, g->vcpu), (unsigned)number, bytes);
	begin(g);
	gdb_answer_hex(&g->answer, bytes, gdb_register_bytes((unsigned)number));
	send_answer(g);
}

static void write_register(struct gdb *g, const char *p)
{
	uint64_t number;
	uint8_t bytes[GDB_REGISTER_BYTES_MAX];
	bool is_good = gdb_number(&p, &number) && number < gdb_register_count() && *p == '=' &&
		       gdb_unhex(p + 1, bytes, sizeof(bytes)) ==
			       (int)gdb_register_bytes((unsigned)number);
	if (!is_good) {
		answer_error(g, EINVAL);
		return;
	}
	gdb_register_set(vm_vcpu(g->vm, g->vcpu), (unsigned)number, bytes);
	vm_state_changed(g->vm, g->vcpu);
	answer(g, "OK");
}

/* ---- memory and breakpoints ---- */

static bool parse_range(const char **p, uint64_t *address, uint64_t *count)
{
	if (!gdb_number(p, address) || *(*p)++ != ',')
		return false;
	return gdb_number(p, count);
}

static void read_memory(struct gdb *g, const char *p)
{
	uint64_t address, count;
	if (!parse_range(&p, &address, &count)) {
		answer_error(g, EINVAL);
		return;
	}
	if (count > GDB_PACKET_BYTES / 2)
		count = GDB_PACKET_BYTES / 2;
	begin(g);
	uint64_t done = 0;
	uint8_t byte;
	while (done < count && debug_read_virtual(g->vm, g->vcpu, address + done, &byte, 1)) {
		gdb_answer_hex(&g->answer, &byte, 1);
		done++;
	}
	if (count && !done)
		answer_error(g, EFAULT);
	else
		send_answer(g);
}

static void write_memory(struct gdb *g, const char *p, bool is_binary)
{
	uint64_t address, count;
	uint8_t bytes[GDB_PACKET_BYTES];
	if (!parse_range(&p, &address, &count) || *p != ':') {
		answer_error(g, EINVAL);
		return;
	}
	p++;
	const uint8_t *data = (const uint8_t *)p;
	size_t present = g->parser.length - (size_t)(data - g->parser.data);
	if (!is_binary) {
		int n = gdb_unhex(p, bytes, sizeof(bytes));
		present = n < 0 ? 0 : (size_t)n;
		data = bytes;
	}
	if (count != present)
		answer_error(g, EINVAL);
	else if (!debug_write_virtual(g->vm, g->vcpu, address, data, count))
		answer_error(g, EFAULT);
	else
		answer(g, "OK");
}

static unsigned breakpoint_index(const struct gdb *g, uint64_t address)
{
	unsigned i = 0;
	while (i < g->breakpoint_count && g->breakpoints[i] != address)
		i++;
	return i;
}

static void set_breakpoint(struct gdb *g, const char *p, bool on)
{
	uint64_t address;
	bool is_code = (p[0] == '0' || p[0] == '1') && p[1] == ',';
	if (!is_code) {
		answer(g, ""); /* watchpoints: gdb steps instead */
		return;
	}
	p += 2;
	if (!gdb_number(&p, &address)) {
		answer_error(g, EINVAL);
		return;
	}
	unsigned i = breakpoint_index(g, address);
	bool is_set = i < g->breakpoint_count;
	if (on != is_set) {
		if ((on && g->breakpoint_count == BREAKPOINTS_MAX) ||
		    vm_set_breakpoint(g->vm, gva(address), on)) {
			answer_error(g, ENOSPC);
			return;
		}
		if (on)
			g->breakpoints[g->breakpoint_count++] = address;
		else
			g->breakpoints[i] = g->breakpoints[--g->breakpoint_count];
	}
	answer(g, "OK");
}

static void remove_breakpoints(struct gdb *g)
{
	for (unsigned i = 0; i < g->breakpoint_count; i++)
		vm_set_breakpoint(g->vm, gva(g->breakpoints[i]), false);
	g->breakpoint_count = 0;
}

/* ---- queries ---- */

static void read_xml(struct gdb *g, const char *p)
{
	uint64_t offset, count;
	if (strncmp(p, "target.xml:", 11)) {
		answer_error(g, ENOENT);
		return;
	}
	p += 11;
	if (!parse_range(&p, &offset, &count)) {
		answer_error(g, EINVAL);
		return;
	}
	char xml[GDB_XML_BYTES];
	size_t length = gdb_target_xml(xml, sizeof(xml));
	if (offset > length)
		offset = length;
	if (count > GDB_PACKET_BYTES / 2)
		count = GDB_PACKET_BYTES / 2;
	bool is_last = count >= length - offset;
	if (is_last)
		count = length - offset;
	begin(g);
	gdb_answer_text(&g->answer, is_last ? "l" : "m");
	gdb_answer_binary(&g->answer, xml + offset, count);
	send_answer(g);
}

static void list_threads(struct gdb *g)
{
	begin(g);
	for (unsigned i = 0; i < vm_cpu_count(g->vm); i++)
		gdb_answer_text(&g->answer, "%c%x", i ? ',' : 'm', i + 1);
	send_answer(g);
}

static void describe_thread(struct gdb *g, const char *p)
{
	unsigned vcpu = 0;
	if (!parse_thread(g, &p, &vcpu)) {
		answer_error(g, EINVAL);
		return;
	}
	static const char *const names[] = {"running", "halted", "waiting for SIPI", "shut down"};
	uint8_t activity = vm_vcpu(g->vm, vcpu)->state.activity;
	char text[64];
	int n = snprintf(text, sizeof(text), "vcpu %u (%s)", vcpu,
			 activity < ARRAY_COUNT(names) ? names[activity] : "?");
	begin(g);
	gdb_answer_hex(&g->answer, text, (size_t)n);
	send_answer(g);
}

static void monitor_said(void *opaque, const char *text, size_t count)
{
	struct gdb *g = opaque;
	begin(g);
	gdb_answer_text(&g->answer, "O");
	gdb_answer_hex(&g->answer, text, count);
	send_answer(g);
}

static void monitor_command(struct gdb *g, const char *hex)
{
	uint8_t line[MONITOR_LINE_BYTES];
	int n = gdb_unhex(hex, line, sizeof(line) - 1);
	if (n < 0) {
		answer_error(g, EINVAL);
		return;
	}
	line[n] = 0;
	monitor_execute(g->monitor, (const char *)line);
	answer(g, "OK");
}

static void query(struct gdb *g, const char *p)
{
	if (!strncmp(p, "qSupported", 10)) {
		g->has_swbreak = strstr(p, "swbreak+") != NULL;
		begin(g);
		gdb_answer_text(&g->answer,
				"PacketSize=%x;qXfer:features:read+;vContSupported+;"
				"QStartNoAckMode+;swbreak+;hwbreak+",
				GDB_PACKET_BYTES);
		send_answer(g);
	} else if (!strncmp(p, "qXfer:features:read:", 20)) {
		read_xml(g, p + 20);
	} else if (!strcmp(p, "qfThreadInfo")) {
		list_threads(g);
	} else if (!strcmp(p, "qsThreadInfo")) {
		answer(g, "l");
	} else if (!strncmp(p, "qThreadExtraInfo,", 17)) {
		describe_thread(g, p + 17);
	} else if (!strcmp(p, "qC")) {
		begin(g);
		gdb_answer_text(&g->answer, "QC%x", g->stopped + 1);
		send_answer(g);
	} else if (!strncmp(p, "qAttached", 9)) {
		answer(g, "1");
	} else if (!strncmp(p, "qRcmd,", 6)) {
		monitor_command(g, p + 6);
	} else {
		answer(g, "");
	}
}

static void set(struct gdb *g, const char *p)
{
	if (strcmp(p, "QStartNoAckMode")) {
		answer(g, "");
		return;
	}
	answer(g, "OK");
	g->is_acknowledging = false;
}

static void verbose(struct gdb *g, const char *p)
{
	if (!strcmp(p, "vCont?")) {
		answer(g, "vCont;c;C;s;S");
	} else if (!strncmp(p, "vCont;", 6)) {
		run_vcont(g, p + 5);
	} else if (!strncmp(p, "vKill", 5)) {
		answer(g, "OK");
		vm_end(g->vm, VM_END_QUIT, 0, "ended by gdb");
	} else {
		answer(g, "");
	}
}

static void choose_thread(struct gdb *g, const char *p)
{
	unsigned *target = *p == 'c' ? &g->resumed : &g->vcpu;
	const char *id = p + 1;
	if ((*p != 'c' && *p != 'g') || !parse_thread(g, &id, target))
		answer_error(g, EINVAL);
	else
		answer(g, "OK");
}

static void is_alive(struct gdb *g, const char *p)
{
	unsigned vcpu;
	if (parse_thread(g, &p, &vcpu))
		answer(g, "OK");
	else
		answer_error(g, EINVAL);
}

static void detach(struct gdb *g)
{
	remove_breakpoints(g);
	g->is_running = false;
	vm_resume(g->vm);
}

static void command(struct gdb *g, const char *p)
{
	switch (*p) {
	case '?':
		g->signal = SIGNAL_TRAP;
		answer_stop(g, false);
		break;
	case 'g': read_registers(g); break;
	case 'G': write_registers(g, p + 1); break;
	case 'p': read_register(g, p + 1); break;
	case 'P': write_register(g, p + 1); break;
	case 'm': read_memory(g, p + 1); break;
	case 'M': write_memory(g, p + 1, false); break;
	case 'X': write_memory(g, p + 1, true); break;
	case 'Z': set_breakpoint(g, p + 1, true); break;
	case 'z': set_breakpoint(g, p + 1, false); break;
	case 'c':
	case 's': run_old_style(g, p); break;
	case 'H': choose_thread(g, p + 1); break;
	case 'T': is_alive(g, p + 1); break;
	case 'q': query(g, p); break;
	case 'Q': set(g, p); break;
	case 'v': verbose(g, p); break;
	case 'D':
		answer(g, "OK");
		detach(g);
		break;
	case 'k': vm_end(g->vm, VM_END_QUIT, 0, "ended by gdb"); break;
	default: answer(g, ""); break;
	}
}

/* ---- the connection ---- */

static void connected(void *opaque)
{
	struct gdb *g = opaque;
	g->parser.state = GDB_IDLE;
	g->is_acknowledging = true;
	g->has_swbreak = g->is_running = false;
	g->vcpu = g->resumed = g->stopped = 0;
	g->signal = SIGNAL_TRAP;
	g->frame_bytes = 0;
	vm_pause(g->vm);
}

static void received(void *opaque, const uint8_t *bytes, size_t count)
{
	struct gdb *g = opaque;
	for (size_t i = 0; i < count && listener_is_connected(g->listener); i++) {
		switch (gdb_parse(&g->parser, bytes[i])) {
		case GDB_NOTHING: break;
		case GDB_INTERRUPT: interrupt(g); break;
		case GDB_RESEND: listener_send(g->listener, g->frame, g->frame_bytes); break;
		case GDB_DAMAGED: listener_send(g->listener, "-", 1); break;
		case GDB_PACKET:
			if (g->is_acknowledging)
				listener_send(g->listener, "+", 1);
			command(g, (const char *)g->parser.data);
			break;
		}
	}
}

static void disconnected(void *opaque)
{
	detach(opaque);
}

static const struct listener_ops listener_ops = {connected, received, disconnected};

int gdb_open(struct gdb **out, struct vm *vm, const char *where, struct error *e)
{
	struct gdb *g = calloc(1, sizeof(*g));
	if (!g)
		return error_set(e, -ENOMEM, "out of memory");
	g->vm = vm;
	int r = monitor_create(&g->monitor, vm, monitor_said, g, e);
	if (!r) {
		monitor_set_plain(g->monitor);
		r = listener_open(&g->listener, vm_poller(vm), where, false, &listener_ops, g, e);
	}
	if (!r &&
	    vm_observe(vm, (struct vm_observer){.stopped = stopped, .ended = ended, .opaque = g}))
		r = error_set(e, -ENOSPC, "too many debuggers");
	if (r) {
		gdb_close(g);
		return r;
	}
	*out = g;
	return 0;
}

void gdb_close(struct gdb *g)
{
	if (!g)
		return;
	listener_close(g->listener);
	monitor_destroy(g->monitor);
	free(g);
}

uint16_t gdb_port(const struct gdb *g)
{
	return listener_port(g->listener);
}
