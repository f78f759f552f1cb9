/* A plug that leads what a card sends back into it: a network for tests, without anybody else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/private.h"

struct loop {
	struct net net;
	int send_fd;
};

static int loop_open(struct net **out, const char *spec, const struct net_config *c,
		     struct error *e)
{
	int fds[2];
	struct loop *l = calloc(1, sizeof(*l));
	(void)spec;
	(void)c;
	if (!l)
		return error_set(e, -ENOMEM, "out of memory");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds)) {
		free(l);
		return error_set(e, -errno, "no socket: %s", strerror(errno));
	}
	*l = (struct loop){.net = {.ops = &net_loop_ops, .fd = fds[0]}, .send_fd = fds[1]};
	*out = &l->net;
	return 0;
}

static int loop_send(struct net *n, const struct iovec *parts, unsigned part_count)
{
	const struct loop *l = (const struct loop *)n;
	return writev(l->send_fd, parts, (int)part_count) < 0 ? net_io_error(errno) : 0;
}

static ssize_t loop_receive(struct net *n, uint8_t *frame, size_t room)
{
	ssize_t got = read(n->fd, frame, room);
	return got < 0 ? net_io_error(errno) : got;
}

static void loop_close(struct net *n)
{
	struct loop *l = (struct loop *)n;
	close(n->fd);
	close(l->send_fd);
	free(l);
}

const struct net_ops net_loop_ops = {loop_open, loop_send, NULL, loop_receive, loop_close};
