/* --monitor: the monitor for programs and people on a socket, or on a terminal that no serial port
 * has. */
#include <errno.h>
#include <stdlib.h>

#include "debug/listener.h"
#include "debug/monitor.h"
#include "vm/vm.h"

struct monitor_server {
	struct listener *listener;
	struct monitor *monitor;
};

static void output(void *opaque, const char *text, size_t count)
{
	struct monitor_server *s = opaque;
	listener_send(s->listener, text, count);
}

static void connected(void *opaque)
{
	struct monitor_server *s = opaque;
	monitor_greet(s->monitor);
}

static void received(void *opaque, const uint8_t *bytes, size_t count)
{
	struct monitor_server *s = opaque;
	monitor_receive(s->monitor, bytes, count);
}

static void disconnected(void *opaque)
{
}

static const struct listener_ops ops = {connected, received, disconnected};

int monitor_server_open(struct monitor_server **out, struct vm *vm, const char *where,
			struct error *e)
{
	struct monitor_server *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(e, -ENOMEM, "out of memory");
	int r = monitor_create(&s->monitor, vm, output, s, e);
	if (!r) {
		monitor_set_plain(s->monitor);
		r = listener_open(&s->listener, vm_poller(vm), where, true, &ops, s, e);
	}
	if (r) {
		monitor_server_close(s);
		return r;
	}
	*out = s;
	return 0;
}

void monitor_server_close(struct monitor_server *s)
{
	if (!s)
		return;
	listener_close(s->listener);
	monitor_destroy(s->monitor);
	free(s);
}
