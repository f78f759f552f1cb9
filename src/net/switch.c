#include "net/switch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/private.h"
#include "net/stream.h"

/* What is forgotten first is what a hash puts into the same place: a guest that sends from
 * countless addresses makes frames of others be sent to all, and no more. */
#define ADDRESSES 4096u
#define FRAMES_A_TURN 64

struct address {
	uint8_t mac[NET_MAC_BYTES];
	uint16_t port; /* number + 1; 0: nothing is here */
};

struct net_switch {
	int listener;
	char path[108];
	struct net_stream *ports[NET_SWITCH_PORTS_MAX];
	struct address addresses[ADDRESSES];
	struct net_switch_counts counts;
	bool is_more; /* a port had more than one turn's frames */
	uint8_t frame[NET_FRAME_MAX];
};

/* ---- addresses ---- */

static struct address *place(struct net_switch *s, const uint8_t mac[NET_MAC_BYTES])
{
	uint64_t key = 0;
	memcpy(&key, mac, NET_MAC_BYTES);
	return &s->addresses[(key * 0x9e3779b97f4a7c15ull) >> 52];
}

_Static_assert(ADDRESSES == 1u << (64 - 52), "what place() shifts by");

static void learn(struct net_switch *s, const uint8_t mac[NET_MAC_BYTES], unsigned port)
{
	struct address *a = place(s, mac);
	if (mac[0] & 1) /* nobody is everybody */
		return;
	memcpy(a->mac, mac, NET_MAC_BYTES);
	a->port = (uint16_t)(port + 1);
}

/* The port behind which `mac` is; -1: behind any. */
static int find(struct net_switch *s, const uint8_t mac[NET_MAC_BYTES])
{
	const struct address *a = place(s, mac);
	return a->port && !memcmp(a->mac, mac, NET_MAC_BYTES) ? a->port - 1 : -1;
}

/* ---- ports ---- */

static void close_port(struct net_switch *s, unsigned port)
{
	close(s->ports[port]->fd);
	free(s->ports[port]);
	s->ports[port] = NULL;
	s->counts.ports--;
	for (unsigned i = 0; i < ADDRESSES; i++)
		if (s->addresses[i].port == port + 1)
			s->addresses[i].port = 0;
}

static void accept_port(struct net_switch *s)
{
	unsigned i = 0;
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (i < NET_SWITCH_PORTS_MAX && s->ports[i])
		i++;
	if (fd < 0)
		return;
	if (i < NET_SWITCH_PORTS_MAX)
		s->ports[i] = calloc(1, sizeof(*s->ports[i]));
	if (i == NET_SWITCH_PORTS_MAX || !s->ports[i]) {
		close(fd);
		return;
	}
	s->ports[i]->fd = fd;
	s->counts.ports++;
	s->counts.ports_ever++;
}

static void send_to(struct net_switch *s, unsigned port, size_t length)
{
	struct iovec part = {s->frame, length};
	if (net_stream_send(s->ports[port], &part, 1))
		s->counts.drops++;
}

static void forward(struct net_switch *s, unsigned from, size_t length)
{
	s->counts.frames++;
	learn(s, s->frame + NET_MAC_BYTES, from);
	int to = s->frame[0] & 1 ? -1 : find(s, s->frame);
	if (to >= 0) {
		if ((unsigned)to != from)
			send_to(s, (unsigned)to, length);
		return;
	}
	s->counts.floods++;
	for (unsigned i = 0; i < NET_SWITCH_PORTS_MAX; i++)
		if (s->ports[i] && i != from)
			send_to(s, i, length);
}

/* True if there may be more. */
static bool serve_port(struct net_switch *s, unsigned port)
{
	for (unsigned i = 0; i < FRAMES_A_TURN; i++) {
		ssize_t n = net_stream_receive(s->ports[port], s->frame, sizeof(s->frame));
		if (n == -EAGAIN)
			return false;
		if (n < 0) {
			close_port(s, port);
			return false;
		}
		forward(s, port, (size_t)n);
	}
	return true;
}

/* ---- the whole ---- */

bool net_switch_turn(struct net_switch *s, int stop_fd, int timeout_ms)
{
	struct pollfd fds[NET_SWITCH_PORTS_MAX + 2];
	for (unsigned i = 0; i < NET_SWITCH_PORTS_MAX; i++) {
		const struct net_stream *port = s->ports[i];
		short write = port && port->out_end ? POLLOUT : 0;
		fds[i] = (struct pollfd){.fd = port ? port->fd : -1,
					 .events = (short)(POLLIN | write)};
	}
	struct pollfd *listener = &fds[NET_SWITCH_PORTS_MAX], *stop = listener + 1;
	*listener = (struct pollfd){.fd = s->listener, .events = POLLIN};
	*stop = (struct pollfd){.fd = stop_fd, .events = POLLIN};
	/* Frames that are inside a stream already poll() does not see. */
	bool was_more = s->is_more;
	if (poll(fds, ARRAY_COUNT(fds), was_more ? 0 : timeout_ms) <= 0 && !was_more)
		return true;
	s->is_more = false;
	for (unsigned i = 0; i < NET_SWITCH_PORTS_MAX; i++) {
		if (fds[i].revents & POLLOUT && net_stream_flush(s->ports[i]) == -EPIPE)
			fds[i].revents |= POLLHUP;
		if (s->ports[i] && (was_more || fds[i].revents & ~POLLOUT))
			s->is_more |= serve_port(s, i);
	}
	if (listener->revents)
		accept_port(s);
	return !stop->revents;
}

int net_switch_open(struct net_switch **out, const char *path, struct error *e)
{
	struct net_switch *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(e, -ENOMEM, "out of memory");
	s->listener = net_unix_listen(path, e);
	if (s->listener < 0) {
		int r = s->listener;
		free(s);
		return r;
	}
	memcpy(s->path, path, strlen(path) + 1);
	*out = s;
	return 0;
}

void net_switch_close(struct net_switch *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < NET_SWITCH_PORTS_MAX; i++)
		if (s->ports[i])
			close_port(s, i);
	close(s->listener);
	unlink(s->path);
	free(s);
}

struct net_switch_counts net_switch_counts(const struct net_switch *s)
{
	return s->counts;
}
