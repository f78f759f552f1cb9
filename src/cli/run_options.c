#include "cli/run_options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "cli/config.h"
#include "control/place.h"

#define FIELD(f) .offset = offsetof(struct run_options, f)
#define TRACE_EXITS_DEFAULT 64u
#define GRACE_DEFAULT_S 30u
/* A sanitizer's own doings (it looks at itself through ptrace) are what a sandbox forbids. */
#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_DEFAULT SANDBOX_CHOICE_OFF
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_DEFAULT SANDBOX_CHOICE_OFF
#endif
#endif
#ifndef SANDBOX_DEFAULT
#define SANDBOX_DEFAULT SANDBOX_CHOICE_ON
#endif

static const char *const clock_names[] = {"virtual", "real", NULL};
/* By its address it is known that no other was given. */
static const char paging_default[] = "nested";
static const char *const limits_names[] = {"refuse", "ignore", NULL};
static const char *const unhandled_names[] = {"ignore", "log", "stop", NULL};
static const char *const format_names[] = {"table", "json", "csv", NULL};
static const char *const sandbox_names[] = {"off", "on", "log", NULL};
static const char *const level_names[] = {"error", "warn", "info", "debug", "trace", NULL};

_Static_assert(BILL_TABLE == 0 && BILL_JSON == 1 && BILL_CSV == 2, "as format_names has them");
_Static_assert(CLOCK_VIRTUAL == 0 && CLOCK_REAL == 1, "as clock_names has them");
_Static_assert(UNHANDLED_IGNORE == 0 && UNHANDLED_LOG == 1 && UNHANDLED_STOP == 2,
	       "as unhandled_names has them");

static int set_initrd(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	if (o->vm.initrd_count == VM_INITRD_MAX)
		return error_set(e, -EINVAL, "at most %d of them", VM_INITRD_MAX);
	o->vm.initrd[o->vm.initrd_count++] = value;
	return 0;
}

static int set_memory(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	/* QEMU writes -m size=1G, too. */
	if (!strncmp(value, "size=", 5))
		value += 5;
	o->has_memory = true;
	return option_parse_size(value, 1ull << 20, &o->vm.memory_bytes, e);
}

static int set_cpus(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	uint64_t n;
	if (!strncmp(value, "cpus=", 5))
		value += 5;
	int r = option_parse_number(value, 1, VM_CPUS_MAX, &n, e);
	o->has_cpus = true;
	if (!r)
		o->vm.cpu_count = (unsigned)n;
	return r;
}

static int set_serial(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	if (o->serial_count == VM_UART_MAX)
		return error_set(e, -EINVAL, "the machine has %d serial ports", VM_UART_MAX);
	o->vm.serial[o->serial_count++] = value;
	return 0;
}

static int add_device(struct run_options *o, struct vm_device d, struct error *e)
{
	if (o->vm.device_count == VM_DEVICES_MAX)
		return error_set(e, -EINVAL, "the machine has room for %d devices", VM_DEVICES_MAX);
	o->vm.devices[o->vm.device_count++] = d;
	return 0;
}

static int set_device(void *target, const char *value, struct error *e)
{
	const char *comma = strchr(value, ',');
	struct vm_device d = {.kind = value, .text = comma ? comma + 1 : ""};
	return add_device(target, d, e);
}

/* "none" is what there is without the option. */
static int set_net(void *target, const char *value, struct error *e)
{
	if (!strcmp(value, "none"))
		return 0;
	return add_device(target, (struct vm_device){"net", value, "net"}, e);
}

static int set_disk(void *target, const char *value, struct error *e)
{
	return add_device(target, (struct vm_device){"blk", value, "disk"}, e);
}

static int set_vsock(void *target, const char *value, struct error *e)
{
	return add_device(target, (struct vm_device){"vsock", value, "vsock"}, e);
}

static int set_share(void *target, const char *value, struct error *e)
{
	return add_device(target, (struct vm_device){"9p", value, "share"}, e);
}

static int set_format(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	return boot_format_parse(value, &o->vm.kernel_format, e);
}

static int set_interpreted(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	bool is_json = value && !strcmp(value, "json");
	if (value && !is_json && strcmp(value, "table"))
		return error_set(e, -EINVAL, "'%s' is neither table nor json", value);
	o->vm.interpreted = true;
	o->interpreted_format = is_json ? BILL_JSON : BILL_TABLE;
	return 0;
}

static int set_report(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	if (value && !*value)
		return error_set(e, -EINVAL, "the file's name is missing");
	o->wants_report = true;
	o->report_file = value;
	return 0;
}

static int set_host_pages(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	if (!strcasecmp(value, "4K"))
		o->vm.host_page_shift = 12;
	else if (!strcasecmp(value, "2M"))
		o->vm.host_page_shift = 21;
	else if (!strcasecmp(value, "1G"))
		o->vm.host_page_shift = 30;
	else
		return error_set(e, -EINVAL, "'%s' is not one of 4K, 2M, 1G", value);
	return 0;
}

static int set_timeout(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	char *end;
	double s = strtod(value, &end);
	if (end == value || *end || !isfinite(s) || s <= 0 || s > 1e9)
		return error_set(e, -EINVAL, "'%s' is not a number of seconds above 0", value);
	o->vm.timeout_ms = (uint64_t)(s * 1000 + 0.5);
	if (!o->vm.timeout_ms)
		o->vm.timeout_ms = 1;
	return 0;
}

/* 2024-05-31, 2024-05-31T12:30:00, or seconds since 1970; UTC. */
static int set_rtc(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	struct tm t = {0};
	if (!strncmp(value, "base=", 5))
		value += 5;
	const char *rest = strptime(value, "%Y-%m-%d", &t);
	if (rest && (*rest == 'T' || *rest == ' '))
		rest = strptime(rest + 1, "%H:%M:%S", &t);
	uint64_t s;
	if (rest && !*rest && t.tm_year >= 70)
		s = (uint64_t)timegm(&t);
	else if (!strcmp(value, "utc") || !strcmp(value, "now"))
		s = (uint64_t)time(NULL);
	else if (option_parse_number(value, 0, 253402300799ull, &s, NULL))
		return error_set(e, -EINVAL,
				 "'%s' is no date; write 2024-05-31, 2024-05-31T12:30:00, "
				 "seconds since 1970, or now",
				 value);
	o->vm.has_wall_start = true;
	o->vm.wall_start_s = s;
	return 0;
}

/* gdb's spelling of ports as QEMU takes them: tcp::1234, tcp:localhost:1234, 1234. */
static int set_gdb(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	o->gdb = value ? value : "tcp:1234";
	return 0;
}

static int set_gdb_default(void *target, const char *value, struct error *e)
{
	return set_gdb(target, NULL, e);
}

static int set_nographic(void *target, const char *value, struct error *e)
{
	return 0; /* it is always so */
}

static int set_name(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	o->name = value;
	return control_check_name(value, e);
}

static int set_control(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	o->control = value;
	if (!strcmp(value, "none") || strchr(value, '/'))
		return 0;
	return error_set(e, -EINVAL, "'%s' is neither none nor a path with a slash: ./%s?", value,
			 value);
}

static int set_trace(void *target, const char *value, struct error *e)
{
	struct run_options *o = target;
	uint64_t n = TRACE_EXITS_DEFAULT;
	int r = value ? option_parse_number(value, 1, 1u << 24, &n, e) : 0;
	o->vm.trace_exits = (unsigned)n;
	return r;
}

static const struct option_row rows[] = {
	{"config", NULL, "FILE",
	 "options from a JSON file whose keys are their names; those of the command line go before",
	 "Configuration", OPTION_TEXT, FIELD(config), .is_command_only = true},
	{"dump-config", NULL, NULL, "print all options in effect as such a file, and end", NULL,
	 OPTION_SWITCH, FIELD(wants_config), .is_command_only = true},

	{"kernel", "-kernel", "FILE",
	 "what to boot: a Linux bzImage or vmlinux, a PVH or Multiboot 1 image, a flat one",
	 "The guest", OPTION_TEXT, FIELD(vm.kernel)},
	{"initrd", "-initrd", "FILE", "initial RAM disk; several are put together in order", NULL,
	 OPTION_CUSTOM, .set = set_initrd},
	{"append", "-append", "TEXT", "kernel command line [" VM_DEFAULT_APPEND "]", NULL,
	 OPTION_TEXT, FIELD(vm.append)},
	{"kernel-format", NULL, "FORMAT",
	 "auto, bzimage (payload unpacked on the host), bzimage-stub (it unpacks itself), "
	 "vmlinux, pvh, multiboot, raw [auto]",
	 NULL, OPTION_CUSTOM, .set = set_format},

	{"memory", "-m", "SIZE", "512M, 2G; a plain number is MiB [512M]", "The machine",
	 OPTION_CUSTOM, .set = set_memory, .initial = "512M"},
	{"cpus", "-smp", "N", "processors [1]", NULL, OPTION_CUSTOM, .set = set_cpus,
	 .initial = "1"},
	{"cpu", "-cpu", "MODEL",
	 "x86-64, x86-64-v2, x86-64-v3 or max, and single features: x86-64-v3,+aes,-avx2 "
	 "[x86-64-v3 if this host can, else v2]",
	 NULL, OPTION_TEXT, FIELD(vm.cpu)},
	{"kvmclock", NULL, "on|off",
	 "KVM's CPUID leaves and clock; off shows the guest bare hardware [on]", NULL,
	 OPTION_ON_OFF, FIELD(vm.kvm_leaves)},
	{"tsc-hz", NULL, "N",
	 "how often the guest's TSC ticks in a second [the profile's frequency; kvm: the host's]",
	 NULL, OPTION_NUMBER, FIELD(vm.tsc_hz), .min = 1000000, .max = 100000000000},
	{"rtc", "-rtc", "DATE",
	 "what the clock shows at power-on: 2024-05-31T12:30:00, seconds, now "
	 "[virtual time: 2000-01-01; real time: now]",
	 NULL, OPTION_CUSTOM, .set = set_rtc},
	{"seed", NULL, "N", "of the guest's RDRAND and RDSEED [1]", NULL, OPTION_NUMBER,
	 FIELD(vm.seed), .max = UINT64_MAX},
	{"serial", "-serial", "WHERE",
	 "stdio, file:PATH, pty, unix:PATH[,server], null; once for COM1, again for COM2 "
	 "[stdio, null]",
	 NULL, OPTION_CUSTOM, .set = set_serial},
	{"net", NULL, "KIND[,KEY=VALUE]...",
	 "a network card: user[,hostfwd=tcp::2222-:22]... needs no privileges; tap,ifname=NAME; "
	 "switch,path=SOCKET (gnomon switch); none [none]",
	 NULL, OPTION_CUSTOM, .set = set_net},
	{"disk", "-drive -hda -d", "FILE[,KEY=VALUE]...",
	 "a disk, a file or block device: readonly=on, serial=TEXT, format=raw|qcow2|..., "
	 "transport=pci|mmio, cache=writeback|writethrough|unsafe, discard=on|off",
	 NULL, OPTION_CUSTOM, .set = set_disk},
	{"console", NULL, "WHERE",
	 "a console device, Linux's hvc0 (console=hvc0), to the same places as --serial", NULL,
	 OPTION_TEXT, FIELD(vm.serial[VM_SERIAL_CONSOLE])},
	{"vsock", NULL, "path=SOCKET[,cid=N]",
	 "sockets between host and guest: connect to SOCKET and say \"CONNECT PORT\"; the guest's "
	 "port P of the host is SOCKET_P [cid=3]",
	 NULL, OPTION_CUSTOM, .set = set_vsock},
	{"share", NULL, "FOLDER[,tag=NAME][,readonly=on]",
	 "a folder of the host, which the guest mounts with 'mount -t 9p -o "
	 "trans=virtio,version=9p2000.L NAME /mnt' [tag=share]",
	 NULL, OPTION_CUSTOM, .set = set_share},
	{"device", "-device", "KIND[,KEY=VALUE]...",
	 "add a device, on PCI or with transport=mmio: the list is below", NULL, OPTION_CUSTOM,
	 .set = set_device},
	{"nographic", "-nographic", NULL, "there is no other way; accepted for QEMU's sake", NULL,
	 OPTION_CUSTOM, .set = set_nographic},

	{"engine", NULL, "NAME",
	 "how instructions are executed: interp, trans, kvm, or auto: kvm where its self-test "
	 "passes, else trans; interp for a bill or a strategy [interp]",
	 "Execution and time", OPTION_TEXT, FIELD(vm.engine)},
	{"clock", NULL, "KIND",
	 "virtual: an instruction is a cycle, idle time is skipped, runs repeat exactly; "
	 "real: the host's [interp: virtual; trans: real, or virtual with --lockstep, "
	 "--max-instructions, --snapshot-at or --state-hash; kvm: real]",
	 NULL, OPTION_CHOICE, FIELD(clock), .choices = clock_names},
	{"kvm-limits", NULL, "WHAT",
	 "kvm: what the self-test finds missing: refuse, or ignore and try [refuse]", NULL,
	 OPTION_CHOICE, FIELD(kvm_limits), .choices = limits_names},
	{"max-instructions", NULL, "N", "end after so many, exit code 124", NULL, OPTION_NUMBER,
	 FIELD(vm.max_instructions), .min = 1, .max = UINT64_MAX},
	{"timeout", NULL, "SECONDS", "end after so much host time, exit code 124", NULL,
	 OPTION_CUSTOM, .set = set_timeout},
	{"stop-at", NULL, "TEXT", "end well when the guest prints TEXT", NULL, OPTION_TEXT,
	 FIELD(vm.stop_at)},
	{"no-reboot", "-no-reboot", NULL, "a reset ends the run, exit code 5", NULL, OPTION_SWITCH,
	 FIELD(vm.no_reboot)},
	{"ignore-panic", NULL, NULL,
	 "go on after a Linux panic's last line instead of ending with exit code 3", NULL,
	 OPTION_SWITCH, FIELD(vm.ignore_panic)},
	{"unhandled", NULL, "WHAT",
	 "ports, addresses and MSRs with nothing behind them: ignore, log or stop [ignore]", NULL,
	 OPTION_CHOICE, FIELD(vm.unhandled), .choices = unhandled_names},

	{"restore", NULL, "FILE",
	 "go on from a snapshot instead of booting: the machine is what it was; engine, clock, "
	 "strategy and profile are free",
	 "Snapshots", OPTION_TEXT, FIELD(restore)},
	{"snapshot", NULL, "FILE", "save the machine to FILE at the guest's mark 1, and end", NULL,
	 OPTION_TEXT, FIELD(snapshot)},
	{"snapshot-at", NULL, "N", "save after N instructions instead", NULL, OPTION_NUMBER,
	 FIELD(snapshot_at), .min = 1, .max = UINT64_MAX - 1},
	{"snapshot-base", NULL, "FILE", "save only what differs from this snapshot", NULL,
	 OPTION_TEXT, FIELD(snapshot_base)},
	{"snapshot-continue", NULL, NULL, "go on after saving", NULL, OPTION_SWITCH,
	 FIELD(snapshot_continue)},

	{"paging", NULL, "STRATEGY",
	 "how guest addresses are translated: NAME[:KEY=VALUE]..., as the manual "
	 "page lists them [nested; kvm: native]",
	 "Translation and the bill", OPTION_TEXT, FIELD(vm.paging)},
	{"from", NULL, "N",
	 "the region of interest begins at instruction N (else at the guest's mark 1); the "
	 "report is of the region alone",
	 NULL, OPTION_NUMBER, FIELD(vm.region_from), .max = UINT64_MAX - 1},
	{"to", NULL, "N", "it ends at instruction N (else at mark 2)", NULL, OPTION_NUMBER,
	 FIELD(vm.region_to), .min = 1, .max = UINT64_MAX - 1},
	{"from-text", NULL, "TEXT", "it begins when the guest prints TEXT", NULL, OPTION_TEXT,
	 FIELD(vm.region_from_text)},
	{"to-text", NULL, "TEXT", "it ends when the guest prints TEXT", NULL, OPTION_TEXT,
	 FIELD(vm.region_to_text)},
	{"stop-after-region", NULL, NULL, "end well when the region of interest ends", NULL,
	 OPTION_SWITCH, FIELD(vm.ends_with_region)},
	{"host-levels", NULL, "N", "nested: levels of the host's table, 1 to 5 [4]", NULL,
	 OPTION_COUNT, FIELD(vm.host_levels), .min = 1, .max = 5},
	{"host-pages", NULL, "SIZE", "nested: pages of the host's table, 4K, 2M or 1G [4K]", NULL,
	 OPTION_CUSTOM, .set = set_host_pages},
	{"verify", NULL, NULL,
	 "check every translation against the reference walk; stop at a difference", NULL,
	 OPTION_SWITCH, FIELD(vm.verify)},
	{"intercept-rdtsc", NULL, NULL, "RDTSC exits, too", NULL, OPTION_SWITCH,
	 FIELD(vm.intercept_rdtsc)},
	{"perf-map", NULL, NULL, "trans: name translated code for perf in /tmp/perf-PID.map", NULL,
	 OPTION_SWITCH, FIELD(vm.perf_map)},
	{"lockstep", NULL, NULL,
	 "trans: run every block in interp, too; end at the first difference", NULL, OPTION_SWITCH,
	 FIELD(vm.lockstep)},
	{"interpreted", NULL, "[FORMAT]",
	 "trans: say at the end how much was translated, and which instructions were not: table "
	 "or json [table]",
	 NULL, OPTION_CUSTOM, .set = set_interpreted},
	{"profile", NULL, "NAME",
	 "the processor whose TLBs and prices are taken: k10-2350, skylake-sp, or a file "
	 "(gnomon profile) [skylake-sp]",
	 NULL, OPTION_TEXT, FIELD(vm.profile)},
	{"report", NULL, "[FILE]", "print the bill at the end, and at each SIGUSR1", NULL,
	 OPTION_CUSTOM, .set = set_report},
	{"format", NULL, "FORMAT", "of the report: table, json or csv [table]", NULL, OPTION_CHOICE,
	 FIELD(format), .choices = format_names},
	{"folded", NULL, "FILE",
	 "write folded stacks for flame graphs: event and kernel function, weighed in cycles of "
	 "the strategy that serves the guest",
	 NULL, OPTION_TEXT, FIELD(folded_file)},
	{"symbols", NULL, "FILE",
	 "the guest kernel's System.map, vmlinux or nm's output, for --folded", NULL, OPTION_TEXT,
	 FIELD(symbols_file)},
	{"state-hash", NULL, NULL,
	 "print the hash of the final state: processors, devices, memory, console", NULL,
	 OPTION_SWITCH, FIELD(wants_state_hash)},

	{"monitor", "-monitor", "WHERE",
	 "stdio, unix:PATH or tcp:PORT (loopback); Ctrl-A c is always there", "Looking inside",
	 OPTION_TEXT, FIELD(monitor)},
	{"gdb", "-gdb", "PORT", "serve gdb: PORT, tcp::PORT (loopback) or unix:PATH", NULL,
	 OPTION_CUSTOM, .set = set_gdb},
	{"gdb-default", "-s", NULL, "the same as --gdb 1234", NULL, OPTION_CUSTOM,
	 .set = set_gdb_default},
	{"paused", "-S", NULL, "do not start until the debugger or the monitor says so", NULL,
	 OPTION_SWITCH, FIELD(is_paused)},
	{"trace-exits", NULL, "[N]",
	 "remember the last N exits for the monitor's 'info exits' [64]", NULL, OPTION_CUSTOM,
	 .set = set_trace},
	{"name", NULL, "NAME", "what gnomon ps, stop, stat and the like call the machine [vm-PID]",
	 "Control", OPTION_CUSTOM, .set = set_name},
	{"control", NULL, "PATH",
	 "where the control socket is, or none [NAME.sock in $XDG_RUNTIME_DIR/gnomon, else in "
	 "/tmp/gnomon-UID]",
	 NULL, OPTION_CUSTOM, .set = set_control},
	{"grace", NULL, "SECONDS",
	 "how long the guest may take to power off after SIGTERM, SIGINT or gnomon stop have "
	 "pressed its button; then it is ended [30]",
	 NULL, OPTION_COUNT, FIELD(grace_s), .max = 86400},
	{"sandbox", NULL, "MODE",
	 "on: before the guest starts, give up system calls and files that are not needed; log: "
	 "have the kernel log them instead; off [on]",
	 "Safety", OPTION_CHOICE, FIELD(sandbox), .choices = sandbox_names},
	{"snapshots", NULL, "FOLDER",
	 "the sandbox lets gnomon snapshot save and the monitor save there [the present folder]",
	 NULL, OPTION_TEXT, FIELD(snapshots)},
	{"log-level", NULL, "LEVEL", "error, warn, info, debug or trace [warn]", "Messages",
	 OPTION_CHOICE, FIELD(log_level), .choices = level_names},
	{"log-file", "-D", "FILE", "the log goes there instead of standard error", NULL,
	 OPTION_TEXT, FIELD(log_file)},
	{"quiet", NULL, NULL, "do not say how the guest ended", NULL, OPTION_SWITCH,
	 FIELD(is_quiet)},
	{"help", "-h -help", NULL, "this", NULL, OPTION_SWITCH, FIELD(wants_help),
	 .is_command_only = true},
};

_Static_assert(ARRAY_COUNT(rows) <= RUN_OPTIONS_MAX, "room for what was given");

void run_options_init(struct run_options *o)
{
	memset(o, 0, sizeof(*o));
	vm_config_defaults(&o->vm);
	o->log_level = LOG_WARN;
	o->grace_s = GRACE_DEFAULT_S;
	o->clock = -1;
	o->vm.paging = paging_default;
	o->sandbox = SANDBOX_DEFAULT;
}

static bool takes_terminal(const char *spec)
{
	return spec && (!strcmp(spec, "stdio") || !strcmp(spec, "mon:stdio"));
}

/* The machine of a snapshot is what its guest has seen. */
static int check_snapshots(const struct run_options *o, struct error *e)
{
	const struct {
		const char *name;
		bool is_given;
	} machine[] = {
		{"kernel", o->vm.kernel},
		{"initrd", o->vm.initrd_count},
		{"append", o->vm.append},
		{"kernel-format", o->vm.kernel_format != BOOT_FORMAT_AUTO},
		{"memory", o->has_memory},
		{"cpus", o->has_cpus},
		{"device", o->vm.device_count},
		{"kvmclock", !o->vm.kvm_leaves},
		{"tsc-hz", o->vm.tsc_hz},
		{"rtc", o->vm.has_wall_start},
	};
	for (size_t i = 0; o->restore && i < ARRAY_COUNT(machine); i++)
		if (machine[i].is_given)
			return error_set(e, -EINVAL,
					 "--%s: the machine of --restore has its own; leave it out",
					 machine[i].name);
	const char *name = o->snapshot_at ? "at" : o->snapshot_base ? "base" : "continue";
	if (!o->snapshot && (o->snapshot_at || o->snapshot_base || o->snapshot_continue))
		return error_set(e, -EINVAL, "--snapshot-%s: there is no --snapshot FILE", name);
	return 0;
}

static int check_combinations(const struct run_options *o, struct error *e)
{
	if (takes_terminal(o->monitor) &&
	    (takes_terminal(o->vm.serial[0]) || takes_terminal(o->vm.serial[1])))
		return error_set(
			e, -EINVAL,
			"--monitor stdio: a serial port has the terminal already; Ctrl-A c "
			"changes between the two, or give --serial null");
	if (o->is_paused && !o->gdb && !o->monitor && !takes_terminal(o->vm.serial[0]))
		return error_set(e, -EINVAL,
				 "--paused: nobody could let the guest go; add --gdb or --monitor");
	if (o->symbols_file && !o->folded_file)
		return error_set(e, -EINVAL, "--symbols: there is no --folded to name");
	bool is_kvm = !strcmp(o->vm.engine, "kvm");
	if (is_kvm && o->snapshot)
		return error_set(e, -EINVAL,
				 "--snapshot: 'kvm' sees neither marks nor instruction counts; the "
				 "monitor's 'snapshot' saves its machines");
	if (is_kvm && (o->folded_file || o->vm.trace_exits))
		return error_set(e, -EINVAL,
				 "--%s: 'kvm' does not see each exit; it goes with --engine interp "
				 "or trans",
				 o->folded_file ? "folded" : "trace-exits");
	if (o->format != BILL_TABLE && !o->wants_report)
		return error_set(e, -EINVAL, "--format: there is no --report to format");
	return 0;
}

/* Is something asked for that only virtual time repeats? */
static bool wants_repeatable(const struct run_options *o)
{
	return o->vm.lockstep || o->vm.max_instructions || o->snapshot_at || o->wants_state_hash;
}

/* `auto` becomes an engine; what was not given follows from the engine. */
static void settle_engine(struct run_options *o)
{
	bool has_paging = o->vm.paging != paging_default;
	const struct vm_purpose purpose = {
		.wants_costs = o->wants_report || o->folded_file || o->vm.trace_exits,
		.wants_paging = has_paging && strcmp(o->vm.paging, "native") != 0,
		.wants_virtual_time = o->clock == CLOCK_VIRTUAL,
		.wants_counts = o->snapshot != NULL,
	};
	if (o->clock >= 0)
		o->vm.clock = (enum clock_kind)o->clock;
	o->vm.skips_kvm_test = o->kvm_limits == 1;
	if (!strcmp(o->vm.engine, "auto")) {
		o->vm.engine = vm_choose_engine(&o->vm, &purpose, o->engine_why);
		o->vm.skips_kvm_test = !strcmp(o->vm.engine, "kvm"); /* it was tested just now */
	}
	bool is_kvm = !strcmp(o->vm.engine, "kvm"), is_trans = !strcmp(o->vm.engine, "trans");
	if (o->clock < 0 && (is_kvm || (is_trans && !wants_repeatable(o))))
		o->vm.clock = CLOCK_REAL;
	if (is_kvm && !has_paging)
		o->vm.paging = "native";
}

int run_options_complete(struct run_options *o, struct error *e)
{
	const char *console = o->vm.serial[VM_SERIAL_CONSOLE];
	settle_engine(o);
	if (!o->serial_count)
		o->vm.serial[0] = takes_terminal(o->monitor) || takes_terminal(console) ? "null"
											: "stdio";
	int r = check_combinations(o, e);
	/* That of a snapshot is there already. */
	if (!r && console && !o->restore)
		r = add_device(o, (struct vm_device){"console", "", "console"}, e);
	if (!r)
		r = check_snapshots(o, e);
	struct vm_config c = o->vm;
	/* Its kernel is loaded already. The rest of the machine is checked when the file is open.
	 */
	if (o->restore)
		c.kernel = o->restore;
	return r ? r : vm_config_check(&c, e);
}

static struct option_set whole_set(const struct run_options *o)
{
	/* Who dumps only reads. */
	struct run_options *target = (struct run_options *)(uintptr_t)o;
	return (struct option_set){rows, ARRAY_COUNT(rows), target, target->given};
}

int run_options_parse(struct run_options *o, int argc, char **argv, struct error *e)
{
	struct option_set set = whole_set(o);
	int r = options_parse_sets(&set, 1, argc, argv, e);
	if (r || o->wants_help)
		return r;
	r = o->config ? config_read(o->config, &set, &o->document, e) : 0;
	if (r)
		return error_prefix(e, "--config");
	return run_options_complete(o, e);
}

void run_options_fini(struct run_options *o)
{
	json_decref(o->document);
	o->document = NULL;
}

int run_options_dump(const struct run_options *o, FILE *f, struct error *e)
{
	struct run_options effective = *o;
	effective.clock = (int)o->vm.clock;
	/* It depends on the host, and the restored machine's is in its file. */
	if (!o->vm.cpu && !o->restore)
		effective.vm.cpu = vm_default_cpu(effective.vm.engine);
	if (o->clock < 0) /* as the engine has it */
		effective.clock = (int)o->vm.clock;
	struct option_set set = whole_set(&effective);
	json_t *document = config_to_json(&set);
	if (!document)
		return error_set(e, -EINVAL, "--dump-config: a text is no UTF-8");
	if (o->restore) {
		json_object_del(document, "memory");
		json_object_del(document, "cpus");
	}
	int r = json_dumpf(document, f, JSON_INDENT(2)) || fputc('\n', f) == EOF || fflush(f);
	json_decref(document);
	return r ? error_set(e, -EIO, "--dump-config: cannot write") : 0;
}

const struct option_row *run_option_rows(size_t *count)
{
	*count = ARRAY_COUNT(rows);
	return rows;
}

static const char head[] =
	"usage: gnomon run --kernel FILE [OPTION]...\n"
	"\n"
	"Boots an unmodified x86-64 guest without hardware support and prices its\n"
	"virtualization.\n"
	"\n"
	"  gnomon run --kernel vmlinuz --initrd initramfs.cpio --append \"console=ttyS0 quiet\"\n"
	"  gnomon run --kernel vmlinuz --initrd rd.cpio --paging shadow --report\n"
	"  gnomon run -kernel test.elf -m 64M -nographic -no-reboot --timeout 60\n"
	"  gnomon run --kernel vmlinux --gdb 1234 --paused\n"
	"      and then: gdb vmlinux -ex 'target remote :1234'\n"
	"  gnomon run --kernel vmlinuz --initrd rd.cpio --snapshot booted.snap\n"
	"  gnomon run --restore booted.snap --paging shadow --report\n"
	"\n"
	"QEMU's short spellings are understood where they mean the same. On the terminal\n"
	"Ctrl-A x ends, Ctrl-A c changes to the monitor and back, Ctrl-A h says more.\n";

static const char foot[] =
	"\nExit code: 0 power-off (or --stop-at, Ctrl-A x), 1 our fault or the host's,\n"
	"2 impossible options, 3 kernel panic, 4 triple fault, 5 reset with --no-reboot,\n"
	"6 halted forever, 7 --unhandled=stop, 8 watchdog, 124 --timeout or --max-instructions,\n"
	"128+n signal n; isa-debug-exit gives (value << 1) | 1.\n"
	"More in gnomon(1).\n";

void run_options_help(FILE *f)
{
	fputs(head, f);
	options_print(f, rows, ARRAY_COUNT(rows));
	fputs("\nDevices (--device):\n", f);
	const char *argument, *text, *kind;
	for (size_t i = 0; (kind = vm_device_kind(i, &argument, &text)); i++)
		fprintf(f, "  %s%s\n      %s\n", kind, argument, text);
	fputs(foot, f);
}
