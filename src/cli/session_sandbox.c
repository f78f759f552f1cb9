/*
 * What a machine's process gives up before the guest's first instruction (docs/security.md):
 * system calls that are not on the list, new privileges, code that is not there yet, and the files
 * that its options do not name.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/session.h"
#include "control/control.h"
#include "sandbox/landlock.h"
#include "sandbox/sandbox.h"

#define PLACES_MAX (RUN_OPTIONS_MAX + 2 * OPTION_VALUES_MAX)

/* Beside what every program does (sandbox.c). */
static const char *const calls[] = {
	/* disks, snapshots, reports */
	"pwrite64", "preadv", "pwritev", "fsync", "fdatasync", "fallocate", "ftruncate",
	"newfstatat", "stat", "lstat", "access", "rename", "renameat", "renameat2", "unlink",
	"unlinkat", "rmdir", "getdents64", "getcwd", "readlink", "io_uring_enter", "flock", "fcntl",
	"dup2", /* SIGHUP: a new log */
	/* sockets that listen already: monitor, gdb, control, consoles */
	"accept4", "getsockname", "getsockopt", "setsockopt", "shutdown",
	/* time, threads, children */
	"timerfd_create", "timerfd_settime", "eventfd2", "getrusage", "set_robust_list",
	"sched_yield", "sched_getaffinity", "kill", "wait4", "geteuid", "getppid", "epoll_wait",
	"epoll_ctl",
	/* kvm's deadline for each stretch of guest time */
	"timer_create", "timer_settime", "timer_delete", "rt_sigtimedwait",
	/* the translator's GS */
	"arch_prctl", NULL};

/* The call was not carried out. Only what a signal handler may: write and end. */
static void stopped(int number, siginfo_t *info, void *context)
{
	char text[160];
	int n = snprintf(text, sizeof(text),
			 "gnomon: the sandbox stopped system call %d, which no machine needs; "
			 "please report it, and --sandbox off does without\n",
			 info->si_syscall);
	signals_restore_terminal();
	if (write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(EXIT_CODE_VMM);
	_exit(EXIT_CODE_SIGNAL + number);
}

/* ---- places ---- */

struct places {
	struct landlock_place list[PLACES_MAX];
	char *owned[PLACES_MAX];
	size_t count;
};

static void add(struct places *p, const char *path, enum landlock_use use)
{
	if (p->count == PLACES_MAX || !(p->owned[p->count] = strdup(path)))
		return;
	p->list[p->count] = (struct landlock_place){p->owned[p->count], use};
	p->count++;
}

static void add_folder_of(struct places *p, const char *file, enum landlock_use use)
{
	char copy[PATH_MAX];
	if (!file || strlen(file) >= sizeof(copy))
		return;
	memcpy(copy, file, strlen(file) + 1);
	add(p, dirname(copy), use);
}

/* Sockets that we made are removed at the end: "unix:PATH" in whatever option. */
static void add_sockets(struct places *p, const struct option_given *given)
{
	for (unsigned i = 0; i < given->count; i++) {
		const char *at = given->values[i] ? strstr(given->values[i], "unix:") : NULL;
		char path[PATH_MAX];
		if (!at)
			continue;
		size_t length = strcspn(at + 5, ",");
		if (length >= sizeof(path))
			continue;
		memcpy(path, at + 5, length);
		path[length] = 0;
		add_folder_of(p, path, LANDLOCK_REMOVE);
	}
}

/* The path of a device "vsock"; false if `device` is none. */
static bool vsock_path(struct vm *vm, unsigned device, char path[PATH_MAX])
{
	const char *text;
	if (strcmp(vm_device(vm, device, &text), "vsock"))
		return false;
	const char *at = strstr(text, "path=");
	size_t length = at ? strcspn(at + 5, ",") : PATH_MAX;
	if (length >= PATH_MAX)
		return false;
	memcpy(path, at + 5, length);
	path[length] = 0;
	return true;
}

/* A guest's connections to programs of the host are made when it asks for them. */
static bool has_vsock(const struct session *s)
{
	char path[PATH_MAX];
	for (unsigned i = 0; i < vm_device_count(s->vm); i++)
		if (vsock_path(s->vm, i, path))
			return true;
	return false;
}

static void collect(struct places *p, const struct session *s)
{
	char path[PATH_MAX];
	for (unsigned i = 0; i < vm_device_count(s->vm); i++)
		if (vsock_path(s->vm, i, path))
			add_folder_of(p, path, LANDLOCK_REMOVE);
	const struct run_options *o = &s->options;
	/* A reset loads them again. */
	if (vm_config(s->vm)->kernel)
		add(p, vm_config(s->vm)->kernel, LANDLOCK_READ);
	for (unsigned i = 0; i < vm_config(s->vm)->initrd_count; i++)
		add(p, vm_config(s->vm)->initrd[i], LANDLOCK_READ);
	if (o->snapshot_base)
		add(p, o->snapshot_base, LANDLOCK_READ);
	if (o->restore)
		add(p, o->restore, LANDLOCK_READ);
	/* What the report says of the host's translation (engine/kvm/statistics.c). */
	if (!strcmp(vm_config(s->vm)->engine, "kvm")) {
		add(p, "/sys/module/kvm_intel/parameters/ept", LANDLOCK_READ);
		add(p, "/sys/module/kvm_amd/parameters/npt", LANDLOCK_READ);
	}
	add_folder_of(p, o->snapshot, LANDLOCK_CHANGE);
	add_folder_of(p, o->report_file, LANDLOCK_CHANGE);
	add_folder_of(p, o->folded_file, LANDLOCK_CHANGE);
	add_folder_of(p, s->out_file, LANDLOCK_CHANGE);
	add_folder_of(p, o->log_file, LANDLOCK_CHANGE); /* SIGHUP opens it anew */
	add(p, o->snapshots ? o->snapshots : ".", LANDLOCK_CHANGE);
	if (s->control)
		add_folder_of(p, control_path(s->control), LANDLOCK_REMOVE);
	for (size_t i = 0; i < RUN_OPTIONS_MAX; i++)
		add_sockets(p, &o->given[i]);
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		if (o->vm.serial[i] && !strncmp(o->vm.serial[i], "unix:", 5))
			add_folder_of(p, o->vm.serial[i] + 5, LANDLOCK_REMOVE);
	for (unsigned i = 0; i < 2; i++) {
		const char *where = i ? o->gdb : o->monitor;
		if (where && !strncmp(where, "unix:", 5))
			add_folder_of(p, where + 5, LANDLOCK_REMOVE);
	}
}

static int enter_landlock(const struct session *s, struct error *e)
{
	struct places *p = calloc(1, sizeof(*p));
	if (!p)
		return error_set(e, -ENOMEM, "out of memory");
	collect(p, s);
	int r = landlock_enter(p->list, p->count, e);
	for (size_t i = 0; i < p->count; i++)
		free(p->owned[i]);
	free(p);
	if (r == -ENOSYS) {
		log_info("this kernel has no Landlock: files are kept by their rights alone");
		return 0;
	}
	return r;
}

int session_enter_sandbox(struct session *s, struct error *e)
{
	const struct sigaction tell = {.sa_sigaction = stopped, .sa_flags = SA_SIGINFO};
	const struct sandbox box = {
		.name = "gnomon",
		.calls = calls,
		.grants = SANDBOX_OPEN | SANDBOX_THREADS | SANDBOX_DEVICES |
			  (has_vsock(s) ? SANDBOX_UNIX : 0),
		.keeps_identity = true,
		.keeps_dumps = true,
		.mode = s->options.sandbox == SANDBOX_CHOICE_LOG ? SANDBOX_LOGS : SANDBOX_TELLS,
	};
	if (s->options.sandbox == SANDBOX_CHOICE_OFF)
		return 0;
	int r = 0;
	if (s->options.sandbox == SANDBOX_CHOICE_ON)
		r = enter_landlock(s, e);
	if (!r && sigaction(SIGSYS, &tell, NULL))
		r = error_set(e, -errno, "SIGSYS: %s", strerror(errno));
	if (!r)
		r = sandbox_enter(&box, e);
	return r ? error_prefix(e, "--sandbox (off does without)") : 0;
}
