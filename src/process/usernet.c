/*
 * gnomon-usernet: TCP/IP for one guest, with libslirp, in a process of its own (sandbox/child.h).
 * Its argument is --net's text; a message is a frame.
 *
 * It ends when the other end is closed, and with the process that started it. After the start it
 * may open internet sockets and read files (the resolver's configuration, what TFTP serves), and
 * nothing else (sandbox/). A frame that the guest has no room for makes it wait a little: its
 * connections then fill up and the senders wait, instead of frames being lost and sent again.
 */
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/host_time.h"
#include "net/net.h"
#include "sandbox/child.h"
#include "sandbox/sandbox.h"

#define FRAMES_A_ROUND 64
#define STALL_MS 100
#define TIMERS_MAX 4

struct alarm {
	SlirpTimerCb fire;
	void *opaque;
	int64_t at_ms; /* -1: not set */
};

struct usernet {
	Slirp *slirp;
	struct pollfd *fds; /* the machine's first */
	size_t fd_count, fd_room;
	struct alarm alarms[TIMERS_MAX];
	bool is_over; /* the machine is gone */
	uint8_t frame[NET_FRAME_MAX];
};

/* ---- what libslirp asks of us ---- */

static int64_t now_ns(void *opaque)
{
	(void)opaque;
	return (int64_t)host_time_ns();
}

static ssize_t send_packet(const void *bytes, size_t count, void *opaque)
{
	struct usernet *u = opaque;
	struct pollfd p = {.fd = CHILD_FD, .events = POLLOUT};
	for (unsigned i = 0; i < 2; i++) {
		ssize_t n = send(CHILD_FD, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n >= 0)
			return n;
		if (errno == EPIPE || errno == ECONNRESET)
			u->is_over = true;
		if (errno != EAGAIN || poll(&p, 1, STALL_MS) <= 0)
			break;
	}
	return (ssize_t)count; /* lost, as on any network */
}

static void guest_error(const char *message, void *opaque)
{
	(void)message;
	(void)opaque;
}

static void *timer_new(SlirpTimerCb fire, void *fire_opaque, void *opaque)
{
	struct usernet *u = opaque;
	for (unsigned i = 0; i < TIMERS_MAX; i++)
		if (!u->alarms[i].fire) {
			u->alarms[i] = (struct alarm){fire, fire_opaque, -1};
			return &u->alarms[i];
		}
	abort(); /* libslirp 4 has one */
}

static void timer_free(void *timer, void *opaque)
{
	(void)opaque;
	*(struct alarm *)timer = (struct alarm){.at_ms = -1};
}

static void timer_mod(void *timer, int64_t at_ms, void *opaque)
{
	(void)opaque;
	((struct alarm *)timer)->at_ms = at_ms;
}

/* poll() is told each time what there is. */
static void ignore_fd(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void notify(void *opaque)
{
	(void)opaque;
}

static const SlirpCb callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = now_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = ignore_fd,
	.unregister_poll_fd = ignore_fd,
	.notify = notify,
};

/* ---- the loop ---- */

static const struct {
	int slirp, poll;
} event_bits[] = {
	{SLIRP_POLL_IN, POLLIN},   {SLIRP_POLL_OUT, POLLOUT}, {SLIRP_POLL_PRI, POLLPRI},
	{SLIRP_POLL_ERR, POLLERR}, {SLIRP_POLL_HUP, POLLHUP},
};

static int add_poll(int fd, int events, void *opaque)
{
	struct usernet *u = opaque;
	if (u->fd_count == u->fd_room) {
		size_t room = u->fd_room ? 2 * u->fd_room : 64;
		struct pollfd *fds = realloc(u->fds, room * sizeof(*fds));
		if (!fds)
			return -1;
		u->fds = fds;
		u->fd_room = room;
	}
	struct pollfd *p = &u->fds[u->fd_count];
	*p = (struct pollfd){.fd = fd};
	for (size_t i = 0; i < ARRAY_COUNT(event_bits); i++)
		if (events & event_bits[i].slirp)
			p->events = (short)(p->events | event_bits[i].poll);
	return (int)u->fd_count++;
}

static int got_events(int index, void *opaque)
{
	const struct usernet *u = opaque;
	int events = 0;
	if (index < 0 || (size_t)index >= u->fd_count)
		return 0;
	for (size_t i = 0; i < ARRAY_COUNT(event_bits); i++)
		if (u->fds[index].revents & event_bits[i].poll)
			events |= event_bits[i].slirp;
	return events;
}

static void read_machine(struct usernet *u)
{
	for (unsigned i = 0; i < FRAMES_A_ROUND && !u->is_over; i++) {
		ssize_t n = recv(CHILD_FD, u->frame, sizeof(u->frame), MSG_DONTWAIT);
		if (n > 0)
			slirp_input(u->slirp, u->frame, (int)n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			u->is_over = true;
		else
			break;
	}
}

/* How long until the first alarm; those that are due ring. */
static uint32_t ring(struct usernet *u, uint32_t timeout_ms)
{
	int64_t now = now_ns(u) / 1000000;
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct alarm *a = &u->alarms[i];
		if (!a->fire || a->at_ms < 0)
			continue;
		if (a->at_ms <= now) {
			a->at_ms = -1;
			a->fire(a->opaque);
		}
		if (a->at_ms > now && a->at_ms - now < timeout_ms)
			timeout_ms = (uint32_t)(a->at_ms - now);
	}
	return timeout_ms;
}

static void serve(struct usernet *u)
{
	while (!u->is_over) {
		uint32_t timeout_ms = ring(u, INT32_MAX);
		u->fd_count = 0;
		if (add_poll(CHILD_FD, SLIRP_POLL_IN, u) < 0)
			return;
		slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
		int ready = poll(u->fds, u->fd_count, (int)timeout_ms);
		if (ready > 0 && u->fds[0].revents)
			read_machine(u);
		slirp_pollfds_poll(u->slirp, ready < 0, got_events, u);
	}
}

/* ---- the start ---- */

static int start_slirp(struct usernet *u, const struct net_config *c, struct error *e)
{
	const struct net_user_config *n = &c->user;
	struct stat st;
	SlirpConfig config = {
		.version = 4,
		.restricted = n->is_restricted,
		.in_enabled = true,
		.vnetwork = n->net,
		.vnetmask = n->mask,
		.vhost = n->host,
		.vhostname = *n->hostname ? n->hostname : NULL,
		.tftp_path = *n->tftp ? n->tftp : NULL,
		.bootfile = *n->bootfile ? n->bootfile : NULL,
		.vdhcp_start = n->dhcp_start,
		.vnameserver = n->dns,
		.if_mtu = c->mtu,
		.if_mru = c->mtu,
	};
	if (*n->tftp && (stat(n->tftp, &st) || !S_ISDIR(st.st_mode)))
		return error_set(e, -ENOTDIR, "tftp: '%s' is no folder", n->tftp);
	if (!n->has_no_ipv6) {
		config.in6_enabled = true;
		config.vprefix_len = 64;
		inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
		inet_pton(AF_INET6, "fec0::2", &config.vhost6);
		inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
	}
	u->slirp = slirp_new(&config, &callbacks, u);
	return u->slirp ? 0 : error_set(e, -ENOMEM, "libslirp does not come up");
}

static int add_forwards(struct usernet *u, const struct net_user_config *n, struct error *e)
{
	for (unsigned i = 0; i < n->forward_count; i++) {
		const struct net_forward *f = &n->forwards[i];
		char address[INET_ADDRSTRLEN];
		if (!slirp_add_hostfwd(u->slirp, f->is_udp, f->host, f->host_port, f->guest,
				       f->guest_port))
			continue;
		int code = errno ? errno : EINVAL;
		return error_set(e, -code, "hostfwd: cannot listen on %s port %u of %s: %s",
				 f->is_udp ? "udp" : "tcp", f->host_port,
				 inet_ntop(AF_INET, &f->host, address, sizeof(address)),
				 strerror(code));
	}
	return 0;
}

static int give_up_privileges(struct error *e)
{
	static const char *const calls[] = {
		"connect",     "bind",	     "listen",	   "accept",   "accept4", "getsockname",
		"getpeername", "setsockopt", "getsockopt", "shutdown", "fcntl",	  "ioctl",
		"newfstatat",  "stat",	     "statx",	   NULL,
	};
	const struct sandbox s = {.name = "user networking",
				  .calls = calls,
				  .grants = SANDBOX_OPEN_TO_READ | SANDBOX_INTERNET};
	return sandbox_enter(&s, e);
}

static int start(struct usernet *u, const char *spec, struct error *e)
{
	struct net_config c;
	int r = net_parse(&c, spec, e);
	if (!r && c.kind != NET_USER)
		r = error_set(e, -EINVAL, "'%s' is not for user networking", spec);
	if (!r)
		r = start_slirp(u, &c, e);
	if (!r)
		r = add_forwards(u, &c.user, e);
	return r ? r : give_up_privileges(e);
}

int main(int argc, char **argv)
{
	static struct usernet u;
	struct error e = {0};
	/* The time zone's file is read now, not behind the filter. */
	tzset();
	child_begin();
	int r = argc == 2 ? start(&u, argv[1], &e) : error_set(&e, -EINVAL, "started by hand");
	if (!child_say_started(r, &e))
		return 1;
	serve(&u);
	return 0;
}
