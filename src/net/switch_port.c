/* A port of a switch that other machines are at, too: frames through a unix socket (stream.h). */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/private.h"
#include "net/stream.h"

struct switch_port {
	struct net net;
	struct net_stream stream;
};

static int port_open(struct net **out, const char *spec, const struct net_config *c,
		     struct error *e)
{
	struct switch_port *p = calloc(1, sizeof(*p));
	(void)spec;
	if (!p)
		return error_set(e, -ENOMEM, "out of memory");
	p->net.ops = &net_switch_ops;
	p->net.fd = p->stream.fd = net_unix_connect(c->path, e);
	if (p->net.fd < 0) {
		int r = p->net.fd;
		free(p);
		bool is_absent = r == -ENOENT || r == -ECONNREFUSED;
		return error_prefix(e, is_absent ? "switch (gnomon switch makes one)" : "switch");
	}
	*out = &p->net;
	return 0;
}

static int port_send(struct net *n, const struct iovec *parts, unsigned part_count)
{
	return net_stream_send(&((struct switch_port *)n)->stream, parts, part_count);
}

static int port_flush(struct net *n)
{
	return net_stream_flush(&((struct switch_port *)n)->stream);
}

static ssize_t port_receive(struct net *n, uint8_t *frame, size_t room)
{
	return net_stream_receive(&((struct switch_port *)n)->stream, frame, room);
}

static void port_close(struct net *n)
{
	close(n->fd);
	free(n);
}

const struct net_ops net_switch_ops = {port_open, port_send, port_flush, port_receive, port_close};
