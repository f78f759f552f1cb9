/*
 * How a session's machine is ended from outside: by signals and by the control socket. Both press
 * the guest's power button first and give it a grace period; a guest that is still there then, or
 * one that is told a second time, is ended as if its plug were pulled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/session.h"
#include "control/control.h"
#include "vm/poller.h"

static void grace_is_over(void *opaque, int fd)
{
	struct session *s = opaque;
	char text[120];
	snprintf(text, sizeof(text), "the guest did not power off within %u s of its button",
		 s->options.grace_s);
	vm_end(s->vm, VM_END_SIGNAL, (uint32_t)s->end_signal, text);
	poller_remove(vm_poller(s->vm), fd);
}

static int start_grace(struct session *s)
{
	/* Of 0 seconds the timer would never tell. */
	struct itimerspec t = {
		.it_value = {.tv_sec = s->options.grace_s, .tv_nsec = s->options.grace_s ? 0 : 1}};
	if (s->grace_timer >= 0)
		return 0;
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0 || timerfd_settime(fd, 0, &t, NULL) ||
	    poller_add(vm_poller(s->vm), fd, (struct poller_watch){grace_is_over, s})) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	s->grace_timer = fd;
	return 0;
}

/* `why` is what the person or program did; `number` says how the run ends if the guest does not. */
static void press(struct session *s, const char *why, int number)
{
	s->end_signal = number;
	if (start_grace(s)) {
		vm_end(s->vm, VM_END_SIGNAL, (uint32_t)number,
		       "ended: no timer for the grace period");
		return;
	}
	bool is_heard = vm_power_button(s->vm);
	fprintf(s->say,
		"gnomon: %s: pressed the guest's power button%s; it has %u s, once more "
		"ends at once\n",
		why, is_heard ? "" : " (it does not listen yet)", s->options.grace_s);
}

void session_signal_end(struct session *s, int number)
{
	bool is_gentle = !s->ends_at_once && (number == SIGINT || number == SIGTERM) &&
			 !s->end_requests++ && !vm_is_paused(s->vm);
	if (is_gentle)
		press(s, strsignal(number), number);
	else
		vm_end(s->vm, VM_END_SIGNAL, (uint32_t)number, strsignal(number));
}

/* Who pauses a machine and stops it wants it to shut down, not to wait for him. */
static void stop(void *opaque, bool is_at_once)
{
	struct session *s = opaque;
	if (is_at_once) {
		vm_end(s->vm, VM_END_QUIT, 0, "ended by gnomon stop --now");
		return;
	}
	vm_resume(s->vm);
	press(s, "gnomon stop", SIGTERM);
}

int session_open_control(struct session *s, struct error *e)
{
	const struct run_options *o = &s->options;
	char name[CONTROL_NAME_BYTES], path[CONTROL_PATH_BYTES];
	if (o->control && !strcmp(o->control, "none"))
		return 0;
	snprintf(name, sizeof(name), "vm-%ld", (long)getpid());
	const char *called = o->name ? o->name : name;
	int r = control_find(o->control ? o->control : called, path, true, e);
	if (!r)
		r = control_open(&s->control, s->vm, called, path, (struct control_host){stop, s},
				 e);
	if (!r)
		return 0;
	if (o->name || o->control)
		return error_prefix(e, o->control ? "--control" : "--name");
	/* Nobody asked for it. */
	log_info("no control socket: %s", e->text);
	*e = (struct error){0};
	return 0;
}

void session_close_stop(struct session *s)
{
	control_close(s->control);
	s->control = NULL;
	if (s->grace_timer >= 0) {
		poller_remove(vm_poller(s->vm), s->grace_timer);
		close(s->grace_timer);
	}
	s->grace_timer = -1;
}
