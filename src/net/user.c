/*
 * User networking: the program gnomon-usernet in a process of its own, and the socket to it.
 *
 * TCP/IP for a hostile guest is a lot of code that reads hostile bytes. It gets an address space
 * without the guest's memory or the machine in it, no file of ours but one end of a socket pair
 * (one frame a message, so lengths cannot get out of step), and a filter on its system calls
 * (usernet/). When it dies the guest loses its link, nothing else.
 *
 * The first message says whether it came up: "ok", or what is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/private.h"

#define PROGRAM "gnomon-usernet"
#define START_MS 10000
#define SOCKET_BYTES (4 << 20)

struct user {
	struct net net;
	pid_t child;
};

/* Beside our own program, or where `meson install` puts it. */
static int find_program(char *path, size_t size, struct error *e)
{
	static const char *const places[] = {"", "../libexec/gnomon/"};
	char self[4000];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;
	if (!slash)
		return error_set(e, -ENOENT, "cannot tell where " PROGRAM " is");
	slash[1] = 0;
	for (size_t i = 0; i < ARRAY_COUNT(places); i++)
		if (snprintf(path, size, "%s%s" PROGRAM, self, places[i]) < (int)size &&
		    !access(path, X_OK))
			return 0;
	return error_set(e, -ENOENT, PROGRAM " is missing: it belongs beside gnomon, in %s", self);
}

/* The socket becomes descriptor 3, all others are gone. Its own process group: Ctrl-C is for us. */
static int spawn(struct user *u, const char *program, const char *spec, int fd, struct error *e)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none;
	char *const argv[] = {(char *)PROGRAM, (char *)spec, NULL};
	char *const environment[] = {NULL};
	sigemptyset(&none);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attributes);
	posix_spawn_file_actions_adddup2(&files, fd, 3);
	for (int i = 0; i < 3; i++)
		posix_spawn_file_actions_addopen(&files, i, "/dev/null", i ? O_WRONLY : O_RDONLY,
						 0);
	posix_spawn_file_actions_addclosefrom_np(&files, 4);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	int r = posix_spawn(&u->child, program, &files, &attributes, argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	return r ? error_set(e, -r, "cannot start %s: %s", program, strerror(r)) : 0;
}

static int await_start(struct user *u, struct error *e)
{
	char text[400];
	struct pollfd p = {.fd = u->net.fd, .events = POLLIN};
	if (poll(&p, 1, START_MS) <= 0)
		return error_set(e, -ETIMEDOUT, PROGRAM " does not come up");
	ssize_t n = recv(u->net.fd, text, sizeof(text) - 1, MSG_DONTWAIT);
	if (n <= 0)
		return error_set(e, -EPIPE, PROGRAM " ended before it had come up");
	text[n] = 0;
	return strcmp(text, "ok") ? error_set(e, -EIO, "%s", text) : 0;
}

static int make_sockets(int fds[2], struct error *e)
{
	int bytes = SOCKET_BYTES;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return error_set(e, -errno, "no socket: %s", strerror(errno));
	/* More than the host's limit is for root; the limit is still enough. */
	for (int i = 0; i < 2; i++)
		if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)))
			setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	return 0;
}

int net_open_user_program(struct net **out, const char *program, const char *spec, struct error *e)
{
	int fds[2];
	struct user *u = calloc(1, sizeof(*u));
	if (!u)
		return error_set(e, -ENOMEM, "out of memory");
	int r = make_sockets(fds, e);
	if (r) {
		free(u);
		return r;
	}
	u->net.ops = &net_user_ops;
	u->net.fd = fds[0];
	r = spawn(u, program, spec, fds[1], e);
	close(fds[1]);
	if (!r)
		r = await_start(u, e);
	if (r) {
		net_user_ops.close(&u->net);
		return r;
	}
	*out = &u->net;
	return 0;
}

static int user_open(struct net **out, const char *spec, const struct net_config *c,
		     struct error *e)
{
	char program[4096];
	(void)c;
	int r = find_program(program, sizeof(program), e);
	return r ? r : net_open_user_program(out, program, spec, e);
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
	close(n->fd);
	if (u->child > 0) {
		kill(u->child, SIGKILL);
		while (waitpid(u->child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	free(u);
}

const struct net_ops net_user_ops = {user_open, user_send, user_receive, user_close};
