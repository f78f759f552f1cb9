/*
 * User networking: the program gnomon-usernet (process/usernet.c) in a process of its own.
 *
 * TCP/IP for a hostile guest is a lot of code that reads hostile bytes. It gets an address space
 * without the guest's memory or the machine in it and a socket, where one message is one frame, so
 * that lengths cannot get out of step. When it dies the guest loses its link, nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "net/private.h"
#include "sandbox/child.h"

struct user {
	struct net net;
	struct child child;
};

int net_open_user_program(struct net **out, const char *program, const char *spec, struct error *e)
{
	const char *const arguments[] = {spec, NULL};
	struct user *u = calloc(1, sizeof(*u));
	if (!u)
		return error_set(e, -ENOMEM, "out of memory");
	int r = child_start(&u->child, program, arguments, e);
	if (r) {
		free(u);
		return r;
	}
	u->net = (struct net){.ops = &net_user_ops, .fd = u->child.fd};
	*out = &u->net;
	return 0;
}

static int user_open(struct net **out, const char *spec, const struct net_config *c,
		     struct error *e)
{
	(void)c;
	return net_open_user_program(out, "gnomon-usernet", spec, e);
}

static int user_send(struct net *n, const struct iovec *parts, unsigned part_count)
{
	struct msghdr m = {.msg_iov = (struct iovec *)parts, .msg_iovlen = part_count};
	return sendmsg(n->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? net_io_error(errno) : 0;
}

static ssize_t user_receive(struct net *n, uint8_t *frame, size_t room)
{
	ssize_t got = recv(n->fd, frame, room, MSG_DONTWAIT);
	if (got > 0)
		return got;
	return got ? net_io_error(errno) : -EPIPE;
}

static void user_close(struct net *n)
{
	struct user *u = (struct user *)n;
	child_end(&u->child);
	free(u);
}

const struct net_ops net_user_ops = {user_open, user_send, NULL, user_receive, user_close};
