#include "debug/monitor.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/vcpu.h"
#include "debug/monitor_private.h"
#include "snapshot/snapshot.h"
#include "vm/vm.h"

/* ---- printing ---- */

void monitor_print(struct monitor *m, const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (m->is_plain) {
		m->output(m->opaque, text, strlen(text));
		return;
	}
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		m->output(m->opaque, p, n);
		p += n;
		if (*p == '\n') {
			m->output(m->opaque, "\r\n", 2);
			p++;
		}
	}
}

/* ---- arguments ---- */

static const char *const register_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					     "rsi", "rdi", "r8",  "r9",	 "r10", "r11",
					     "r12", "r13", "r14", "r15"};

static bool register_value(const struct vcpu *v, const char *name, size_t length, uint64_t *out)
{
	const struct vcpu_state *s = &v->state;
	const struct {
		const char *name;
		uint64_t value;
	} others[] = {
		{"rip", s->rip},
		{"pc", (vcpu_is_64bit(v) ? 0 : s->seg[SEG_CS].base) + s->rip},
		{"sp", s->gpr[GPR_RSP]},
		{"cr2", s->cr2},
		{"cr3", s->cr3},
		{"gdtr", s->gdtr.base},
		{"idtr", s->idtr.base},
		{"tr", s->tr.base},
		{"fs_base", s->seg[SEG_FS].base},
		{"gs_base", s->seg[SEG_GS].base},
	};
	for (size_t i = 0; i < ARRAY_COUNT(register_names); i++)
		if (strlen(register_names[i]) == length &&
		    !strncmp(register_names[i], name, length)) {
			*out = s->gpr[i];
			return true;
		}
	for (size_t i = 0; i < ARRAY_COUNT(others); i++)
		if (strlen(others[i].name) == length && !strncmp(others[i].name, name, length)) {
			*out = others[i].value;
			return true;
		}
	return false;
}

static bool term(struct monitor *m, const char **text, uint64_t *out)
{
	const char *p = *text;
	if (*p == '$') {
		size_t length = 1;
		while (isalnum((unsigned char)p[length]) || p[length] == '_')
			length++;
		*text = p + length;
		return register_value(vm_vcpu(m->vm, m->vcpu), p + 1, length - 1, out);
	}
	char *end;
	errno = 0;
	*out = strtoull(p, &end, 0);
	*text = end;
	return isdigit((unsigned char)*p) && !errno;
}

bool monitor_address(struct monitor *m, const char *text, uint64_t *out, const char **rest)
{
	const char *p = text;
	bool is_good = term(m, &p, out);
	while (is_good && (*p == '+' || *p == '-')) {
		char sign = *p++;
		uint64_t v;
		is_good = term(m, &p, &v);
		*out += sign == '+' ? v : -v;
	}
	if (!is_good || (*p && *p != ' ')) {
		monitor_print(m,
			      "'%s' is no address: write 0xffffffff81000000, $rip or $rsp+0x10\n",
			      text);
		return false;
	}
	if (rest)
		*rest = p + strspn(p, " ");
	return true;
}

/* ---- commands ---- */

static void say_running(struct monitor *m)
{
	monitor_print(m, "the guest is %s\n", vm_is_paused(m->vm) ? "stopped" : "running");
}

static void run_continue(struct monitor *m, const char *rest)
{
	vm_resume(m->vm);
	say_running(m);
}

static void run_stop(struct monitor *m, const char *rest)
{
	vm_pause(m->vm);
	say_running(m);
}

static void run_step(struct monitor *m, const char *rest)
{
	vm_pause(m->vm);
	vm_step(m->vm, m->vcpu);
	monitor_print(m, "one instruction of vcpu %u\n", m->vcpu);
}

static void run_reset(struct monitor *m, const char *rest)
{
	vm_reset(m->vm);
}

static void run_powerdown(struct monitor *m, const char *rest)
{
	vm_power_button(m->vm);
	monitor_print(m, "pressed the power button\n");
}

static void run_nmi(struct monitor *m, const char *rest)
{
	vm_inject_nmi(m->vm);
}

static void run_quit(struct monitor *m, const char *rest)
{
	vm_end(m->vm, VM_END_QUIT, 0, "ended by the monitor's quit");
}

static void run_hash(struct monitor *m, const char *rest)
{
	char text[33];
	struct error e = {0};
	if (vm_state_hash(m->vm, text, &e))
		monitor_print(m, "%s\n", e.text);
	else
		monitor_print(m, "state hash: %s\n", text);
}

/* The file, and after a space the base of a difference. */
static void run_snapshot(struct monitor *m, const char *rest)
{
	char file[MONITOR_LINE_BYTES];
	struct error e = {0};
	size_t length = strcspn(rest, " ");
	const char *base = rest + length + strspn(rest + length, " ");
	if (!length || strchr(base, ' ')) {
		monitor_print(m, "snapshot FILE, or snapshot FILE BASE to save the difference\n");
		return;
	}
	memcpy(file, rest, length);
	file[length] = 0;
	int r = snapshot_save(m->vm, file, *base ? base : NULL, &e);
	if (!r) /* the next one may be a difference from it */
		r = snapshot_track(m->vm, file, &e);
	if (r)
		monitor_print(m, "%s\n", e.text);
	else
		monitor_print(m, "saved to %s after %llu instructions\n", file,
			      (unsigned long long)vm_instructions_ever(m->vm));
}

static void run_cpu(struct monitor *m, const char *rest)
{
	char *end;
	unsigned long n = strtoul(rest, &end, 10);
	if (*rest && (*end || n >= vm_cpu_count(m->vm))) {
		monitor_print(m, "there are vcpus 0 to %u\n", vm_cpu_count(m->vm) - 1);
		return;
	}
	if (*rest)
		m->vcpu = (unsigned)n;
	monitor_print(m, "commands are about vcpu %u\n", m->vcpu);
}

static void run_help(struct monitor *m, const char *rest);

static const struct monitor_command commands[] = {
	{"help", "", "this list", run_help},
	{"info", "WHAT", "registers, cpus, mem (guest mappings), exits, time, devices",
	 monitor_info},
	{"cpu", "[N]", "which vcpu the other commands are about", run_cpu},
	{"x", "/FMT ADDR", "guest-virtual memory; FMT is count, x d u o c s i, b h w g: x/10i $rip",
	 monitor_examine},
	{"xp", "/FMT ADDR", "the same for guest-physical memory", monitor_examine_physical},
	{"walk", "ADDR", "an address level by level: table entries, guest-physical, host address",
	 monitor_walk},
	{"stop", "", "hold the guest", run_stop},
	{"cont", "", "let it go on", run_continue},
	{"step", "", "hold it and execute one instruction", run_step},
	{"hash", "", "the hash of the machine's state", run_hash},
	{"snapshot", "FILE", "save the machine; SNAPSHOT after it: only what differs from that one",
	 run_snapshot},
	{"nmi", "", "a non-maskable interrupt for vcpu 0", run_nmi},
	{"system_powerdown", "", "press the power button", run_powerdown},
	{"system_reset", "", "reset the machine and boot again", run_reset},
	{"quit", "", "end the guest at once", run_quit},
};

static void run_help(struct monitor *m, const char *rest)
{
	for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
		char left[40];
		snprintf(left, sizeof(left), "%s%s%s", commands[i].name,
			 commands[i].arguments[0] == '/' || !commands[i].arguments[0] ? "" : " ",
			 commands[i].arguments);
		monitor_print(m, "%-18s %s\n", left, commands[i].text);
	}
}

void monitor_execute(struct monitor *m, const char *line)
{
	line += strspn(line, " \t");
	if (!*line)
		return;
	if (strlen(line) >= MONITOR_LINE_BYTES) {
		monitor_print(m, "a line has at most %d characters\n", MONITOR_LINE_BYTES - 1);
		return;
	}
	size_t length = strcspn(line, " /\t");
	const struct monitor_command *found = NULL;
	unsigned matches = 0;
	for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
		if (strncmp(commands[i].name, line, length))
			continue;
		if (strlen(commands[i].name) == length) {
			found = &commands[i];
			matches = 1;
			break;
		}
		found = &commands[i];
		matches++;
	}
	if (matches != 1) {
		monitor_print(m, "%s '%.*s'; 'help' lists what there is\n",
			      matches ? "which one is" : "there is no command", (int)length, line);
		return;
	}
	const char *rest = line + length;
	found->run(m, rest + strspn(rest, " \t"));
}

/* ---- lines ---- */

static void prompt(struct monitor *m)
{
	monitor_print(m, "(gnomon) ");
}

void monitor_greet(struct monitor *m)
{
	monitor_print(m, "\nGnomon's monitor; 'help' lists the commands%s.\n",
		      m->is_plain ? "" : ", Ctrl-A c goes back");
	say_running(m);
	prompt(m);
}

static void end_of_line(struct monitor *m)
{
	if (!m->is_plain)
		monitor_print(m, "\n");
	m->line[m->length] = 0;
	m->length = 0;
	monitor_execute(m, m->line);
	prompt(m);
}

static void edit(struct monitor *m, uint8_t byte)
{
	bool is_printable = byte >= ' ' && byte < 0x7f;
	if ((byte == 8 || byte == 0x7f) && m->length) {
		m->length--;
		if (!m->is_plain)
			m->output(m->opaque, "\b \b", 3);
	} else if (byte == 3 || byte == 0x15) { /* Ctrl-C, Ctrl-U: forget the line */
		m->length = 0;
		if (!m->is_plain)
			monitor_print(m, "\n");
		prompt(m);
	} else if (is_printable && m->length < MONITOR_LINE_BYTES - 1) {
		m->line[m->length++] = (char)byte;
		if (!m->is_plain)
			m->output(m->opaque, (const char *)&byte, 1);
	}
}

void monitor_receive(struct monitor *m, const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		bool is_second = bytes[i] == '\n' && m->was_return;
		m->was_return = bytes[i] == '\r';
		if (is_second)
			continue;
		if (bytes[i] == '\n' || bytes[i] == '\r')
			end_of_line(m);
		else
			edit(m, bytes[i]);
	}
}

int monitor_create(struct monitor **out, struct vm *vm, monitor_output_fn *output, void *opaque,
		   struct error *e)
{
	struct monitor *m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(e, -ENOMEM, "out of memory");
	m->vm = vm;
	m->output = output;
	m->opaque = opaque;
	*out = m;
	return 0;
}

void monitor_destroy(struct monitor *m)
{
	free(m);
}

void monitor_set_plain(struct monitor *m)
{
	m->is_plain = true;
}
