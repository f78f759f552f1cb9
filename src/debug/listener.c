#include "debug/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vm/poller.h"

#define STALL_MS 5000

struct listener {
	struct poller *poller; /* borrowed */
	const struct listener_ops *ops;
	void *opaque;  /* borrowed */
	int listening; /* -1: none */
	int in, out;   /* -1: nobody is connected */
	bool is_stdio;
	char path[108];
};

static void dropped(struct listener *l)
{
	if (l->in < 0)
		return;
	poller_remove(l->poller, l->in);
	if (!l->is_stdio)
		close(l->in);
	l->in = l->out = -1;
	l->ops->disconnected(l->opaque);
}

static void readable(void *opaque, int fd)
{
	struct listener *l = opaque;
	uint8_t bytes[4096];
	ssize_t n = read(fd, bytes, sizeof(bytes));
	if (n > 0)
		l->ops->received(l->opaque, bytes, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		dropped(l);
}

static void connecting(void *opaque, int fd)
{
	struct listener *l = opaque;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client < 0)
		return;
	int on = 1;
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (l->in >= 0 || poller_add(l->poller, client, (struct poller_watch){readable, l})) {
		close(client);
		return;
	}
	l->in = l->out = client;
	l->ops->connected(l->opaque);
}

/* The number at the end of PORT, tcp:PORT, tcp::PORT, tcp:HOST:PORT with a loopback HOST. */
static int parse_port(const char *where, uint16_t *port, struct error *e)
{
	const char *p = where;
	if (!strncmp(p, "tcp:", 4)) {
		p += 4;
		const char *colon = strrchr(p, ':');
		size_t host = colon ? (size_t)(colon - p) : 0;
		bool is_loopback = !host || (host == 9 && !strncmp(p, "localhost", 9)) ||
				   (host == 9 && !strncmp(p, "127.0.0.1", 9));
		if (!is_loopback)
			return error_set(e, -EINVAL,
					 "'%s': only this host may connect; leave out the address",
					 where);
		p = colon ? colon + 1 : p;
	}
	char *end;
	unsigned long n = strtoul(p, &end, 10);
	if (*p < '0' || *p > '9' || *end || n > 65535)
		return error_set(e, -EINVAL, "'%s': use a port number, tcp:PORT or unix:PATH",
				 where);
	*port = (uint16_t)n;
	return 0;
}

static int listen_on(struct listener *l, const struct sockaddr *a, socklen_t length,
		     const char *where, struct error *e)
{
	int on = 1;
	l->listening = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->listening >= 0)
		setsockopt(l->listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (l->listening < 0 || bind(l->listening, a, length) || listen(l->listening, 1)) {
		int code = -errno;
		l->path[0] = 0; /* not ours to remove */
		return error_set(e, code, "cannot listen at '%s': %s", where, strerror(-code));
	}
	if (poller_add(l->poller, l->listening, (struct poller_watch){connecting, l}))
		return error_set(e, -ENOSPC, "'%s': too many open files to watch", where);
	return 0;
}

static int open_unix(struct listener *l, const char *where, struct error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const char *path = where + 5;
	size_t length = strcspn(path, ","); /* QEMU's ",server,nowait" is how it is anyway */
	if (!length || length >= sizeof(a.sun_path))
		return error_set(e, -EINVAL, "'%s': a socket's path has 1 to %zu characters", where,
				 sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, length);
	memcpy(l->path, path, length);
	struct stat st;
	if (lstat(l->path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(l->path);
	return listen_on(l, (struct sockaddr *)&a, sizeof(a), where, e);
}

static int open_tcp(struct listener *l, const char *where, struct error *e)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	uint16_t port;
	int r = parse_port(where, &port, e);
	if (r)
		return r;
	a.sin_port = htons(port);
	return listen_on(l, (struct sockaddr *)&a, sizeof(a), where, e);
}

static int open_stdio(struct listener *l, struct error *e)
{
	l->is_stdio = true;
	l->in = STDIN_FILENO;
	l->out = STDOUT_FILENO;
	if (poller_add(l->poller, l->in, (struct poller_watch){readable, l}))
		return error_set(e, -ENOSPC, "too many open files to watch");
	l->ops->connected(l->opaque);
	return 0;
}

int listener_open(struct listener **out, struct poller *poller, const char *where,
		  bool allows_stdio, const struct listener_ops *ops, void *opaque, struct error *e)
{
	struct listener *l = calloc(1, sizeof(*l));
	if (!l)
		return error_set(e, -ENOMEM, "out of memory");
	*l = (struct listener){.poller = poller,
			       .ops = ops,
			       .opaque = opaque,
			       .listening = -1,
			       .in = -1,
			       .out = -1};
	/* Before anything connects: its handlers will want to send. */
	*out = l;
	int r;
	if (allows_stdio && !strcmp(where, "stdio"))
		r = open_stdio(l, e);
	else if (!strncmp(where, "unix:", 5))
		r = open_unix(l, where, e);
	else
		r = open_tcp(l, where, e);
	if (r) {
		listener_close(l);
		*out = NULL;
	}
	return r;
}

void listener_close(struct listener *l)
{
	if (!l)
		return;
	poller_remove(l->poller, l->in);
	poller_remove(l->poller, l->listening);
	if (l->in >= 0 && !l->is_stdio)
		close(l->in);
	if (l->listening >= 0)
		close(l->listening);
	if (l->path[0])
		unlink(l->path);
	free(l);
}

void listener_send(struct listener *l, const void *bytes, size_t count)
{
	const uint8_t *p = bytes;
	while (count && l->out >= 0) {
		ssize_t n = l->is_stdio ? write(l->out, p, count)
					: send(l->out, p, count, MSG_NOSIGNAL);
		if (n > 0) {
			p += n;
			count -= (size_t)n;
			continue;
		}
		struct pollfd wait = {.fd = l->out, .events = POLLOUT};
		bool may_retry = n < 0 && (errno == EINTR ||
					   (errno == EAGAIN && poll(&wait, 1, STALL_MS) > 0));
		if (!may_retry)
			dropped(l);
	}
}

void listener_hang_up(struct listener *l)
{
	dropped(l);
}

bool listener_is_connected(const struct listener *l)
{
	return l->in >= 0;
}

uint16_t listener_port(const struct listener *l)
{
	struct sockaddr_in a = {0};
	socklen_t length = sizeof(a);
	if (l->listening < 0 || getsockname(l->listening, (struct sockaddr *)&a, &length) ||
	    a.sin_family != AF_INET)
		return 0;
	return ntohs(a.sin_port);
}
