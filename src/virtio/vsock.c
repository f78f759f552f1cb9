/*
 * Sockets between host and guest (VIRTIO 1.2, 5.10), by Firecracker's convention for the host's
 * side:
 *
 *   into the guest    a program connects to the unix socket PATH and writes "CONNECT PORT\n"; if
 *                     somebody listens at that port in the guest it reads "OK NUMBER\n", and what
 *                     follows either way is the connection's
 *   out of the guest  a connection to port P of the host (CID 2) is one to the unix socket PATH_P
 *
 * Streams only. Each side says how many bytes it has room for and how many it has passed on; nobody
 * sends more. What the guest sends is kept until the host's program reads it, and what would
 * overflow that is a broken rule and ends the connection. Packets to the guest wait for its
 * buffers, so a guest that gives none costs its own connections only.
 *
 * Connections are not part of a snapshot: a restored guest is told that all have ended.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/stream.h"
#include "virtio/options.h"
#include "virtio/vsock.h"

#define HOST_CID 2u
#define CONNECTIONS_MAX 64
#define REFUSALS_MAX 64
#define QUEUE_SIZE 128
#define LATENCY_NS 5000
#define ROOM_BYTES (64u << 10) /* for what a guest sends, a connection */
#define PAYLOAD_MAX (16u << 10)
#define GREETING_MAX 32
#define PACKETS_A_VISIT 256
#define FIRST_HOST_PORT (1u << 30)
#define PATH_MAX_BYTES 96 /* a unix socket's, with _PORT behind it */

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUE_COUNT };

enum op { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT, OP_CREDIT_REQUEST };
#define SHUTDOWN_BOTH 3u
#define STREAM 1

struct packet {
	uint64_t from_cid, to_cid;
	uint32_t from_port, to_port;
	uint32_t length;
	uint16_t type, op;
	uint32_t flags;
	uint32_t room, passed_on; /* the sender's: buf_alloc, fwd_cnt */
} __attribute__((packed));

_Static_assert(sizeof(struct packet) == 44, "VIRTIO 1.2, 5.10.6");

enum life {
	FREE,
	GREETING, /* a program of the host has not said yet where it wants to go */
	ASKED,	  /* the guest has not answered yet */
	OPEN,
};

struct connection {
	enum life life;
	int fd;
	uint32_t host_port, guest_port;
	uint32_t guest_room, guest_passed_on; /* as the guest said last */
	uint32_t sent;			      /* bytes to the guest, ever */
	uint32_t passed_on, told;	      /* bytes to the program, ever; as the guest knows */
	uint32_t waiting;		      /* ops to send, a bit each */
	bool is_ended;			      /* the program will send no more */
	bool is_shut;			      /* the guest will send no more */
	uint8_t out[ROOM_BYTES];	      /* to the program */
	size_t out_start, out_end;
	char greeting[GREETING_MAX];
	unsigned greeting_bytes;
};

struct vsock {
	struct virtio_device virtio;
	struct {
		uint64_t cid;
	} config;
	char path[PATH_MAX_BYTES];
	int listener, epoll;
	uint32_t next_port;
	bool must_tell_reset, is_watching;
	struct packet refusals[REFUSALS_MAX]; /* to be sent; those that find no room are not */
	unsigned refusal_count;
	struct virtq_chain chain;
	uint8_t payload[PAYLOAD_MAX];
	struct connection connections[CONNECTIONS_MAX];
};

static void serve(struct vsock *v);

/* ---- connections ---- */

static struct connection *find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *c = &v->connections[i];
		if (c->life >= ASKED && c->host_port == host_port && c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

/* How much the guest has room for. What it says may be nonsense, which is its own loss. */
static uint32_t credit(const struct connection *c)
{
	uint32_t under_way = c->sent - c->guest_passed_on;
	return under_way < c->guest_room ? c->guest_room - under_way : 0;
}

/* What we want to hear of: bytes that can be passed on to the guest, room for those that wait. */
static void listen_for(struct vsock *v, struct connection *c, int operation)
{
	bool wants_in = c->life == GREETING || (c->life == OPEN && !c->is_ended && credit(c));
	struct epoll_event event = {.data.u32 = (uint32_t)(c - v->connections)};
	event.events = (wants_in ? EPOLLIN : 0) | (c->out_end ? EPOLLOUT : 0);
	if (c->fd >= 0)
		epoll_ctl(v->epoll, operation, c->fd, &event);
}

/* Takes `fd`; NULL when there is no room. */
static struct connection *add(struct vsock *v, int fd, enum life life)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *c = &v->connections[i];
		if (c->life != FREE)
			continue;
		memset(c, 0, offsetof(struct connection, out));
		c->out_start = c->out_end = 0;
		c->greeting_bytes = 0;
		c->life = life;
		c->fd = fd;
		listen_for(v, c, EPOLL_CTL_ADD);
		return c;
	}
	close(fd);
	return NULL;
}

static void drop(struct connection *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->life = FREE;
}

static void drop_all(struct vsock *v)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (v->connections[i].life != FREE)
			drop(&v->connections[i]);
	v->refusal_count = 0;
}

static void want(struct connection *c, enum op op)
{
	/* After an end nothing else is of interest. */
	c->waiting = op == OP_RST ? 1u << OP_RST : c->waiting | 1u << op;
}

/* ---- to the guest ---- */

/* Takes a buffer for a packet; false if the guest has none. */
static bool take_buffer(struct vsock *v)
{
	if (!virtio_pop(&v->virtio, QUEUE_RX, &v->chain))
		return false;
	if (v->chain.in_bytes >= sizeof(struct packet))
		return true;
	virtio_fail(&v->virtio, "a buffer to receive into has no room for a header");
	return false;
}

static void put_packet(struct vsock *v, const struct packet *p)
{
	struct virtq *q = &v->virtio.queues[QUEUE_RX];
	uint64_t n = virtq_write(q, &v->chain, 0, p, sizeof(*p));
	n += virtq_write(q, &v->chain, sizeof(*p), v->payload, p->length);
	virtio_push(&v->virtio, QUEUE_RX, virtq_ticket(&v->chain), n);
}

static struct packet packet_of(struct vsock *v, struct connection *c, enum op op)
{
	c->told = c->passed_on;
	return (struct packet){.from_cid = HOST_CID,
			       .to_cid = v->config.cid,
			       .from_port = c->host_port,
			       .to_port = c->guest_port,
			       .type = STREAM,
			       .op = op,
			       .room = ROOM_BYTES,
			       .passed_on = c->passed_on};
}

/* What waits to be said of a connection. False: no buffers. */
static bool say(struct vsock *v, struct connection *c)
{
	while (c->life != FREE && c->waiting) {
		enum op op = (enum op)__builtin_ctz(c->waiting);
		if (!take_buffer(v))
			return false;
		struct packet p = packet_of(v, c, op);
		p.flags = op == OP_SHUTDOWN ? SHUTDOWN_BOTH : 0;
		put_packet(v, &p);
		c->waiting &= ~(1u << op);
		if (op == OP_RST)
			drop(c);
	}
	return true;
}

/* Bytes of the host's program, as many as the guest takes. False: no buffers. */
static bool pass_in(struct vsock *v, struct connection *c)
{
	struct virtq *q = &v->virtio.queues[QUEUE_RX];
	while (c->life == OPEN && !c->is_ended && credit(c)) {
		struct virtq_state before = *q->state;
		if (!take_buffer(v))
			return false;
		size_t room = v->chain.in_bytes - sizeof(struct packet);
		room = room < PAYLOAD_MAX ? room : PAYLOAD_MAX;
		room = room < credit(c) ? room : credit(c);
		ssize_t n = recv(c->fd, v->payload, room, MSG_DONTWAIT);
		if (n <= 0) {
			virtq_rewind(q, &before);
			if (n < 0 && (errno == EAGAIN || errno == EINTR))
				return true;
			c->is_ended = true;
			want(c, OP_SHUTDOWN);
			return say(v, c);
		}
		struct packet p = packet_of(v, c, OP_RW);
		p.length = (uint32_t)n;
		c->sent += (uint32_t)n;
		put_packet(v, &p);
	}
	return true;
}

/* ---- to the host's program ---- */

static void pass_out(struct connection *c)
{
	while (c->life == OPEN && c->out_start < c->out_end) {
		ssize_t n = send(c->fd, c->out + c->out_start, c->out_end - c->out_start,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0) {
			want(c, OP_RST);
			return;
		}
		c->out_start += (size_t)n;
		c->passed_on += (uint32_t)n;
	}
	if (c->out_start == c->out_end)
		c->out_start = c->out_end = 0;
	/* The guest hears in time before it has to stop. */
	if (c->passed_on - c->told >= ROOM_BYTES / 2)
		want(c, OP_CREDIT);
	if (c->life == OPEN && c->is_shut && !c->out_end) {
		shutdown(c->fd, SHUT_WR);
		if (c->is_ended)
			want(c, OP_RST);
	}
}

/* The payload of a packet, which is in v->chain. */
static void keep(struct vsock *v, struct connection *c, uint32_t length)
{
	size_t waiting = c->out_end - c->out_start;
	if (length > ROOM_BYTES - waiting || c->is_shut) {
		want(c, OP_RST);
		return;
	}
	memmove(c->out, c->out + c->out_start, waiting);
	c->out_start = 0;
	c->out_end =
		waiting + virtq_read(&v->chain, sizeof(struct packet), c->out + waiting, length);
	pass_out(c);
}

/* ---- from the guest ---- */

static void refuse(struct vsock *v, const struct packet *p)
{
	if (p->op == OP_RST || v->refusal_count == REFUSALS_MAX)
		return;
	v->refusals[v->refusal_count++] = (struct packet){.from_cid = p->to_cid,
							  .to_cid = p->from_cid,
							  .from_port = p->to_port,
							  .to_port = p->from_port,
							  .type = p->type,
							  .op = OP_RST};
}

static struct connection *connect_out(struct vsock *v, const struct packet *p)
{
	char path[PATH_MAX_BYTES + 12];
	if (find(v, p->to_port, p->from_port))
		return NULL;
	snprintf(path, sizeof(path), "%s_%u", v->path, p->to_port);
	int fd = net_unix_connect(path, NULL);
	struct connection *c = fd < 0 ? NULL : add(v, fd, OPEN);
	if (c) {
		c->host_port = p->to_port;
		c->guest_port = p->from_port;
		want(c, OP_RESPONSE);
	}
	return c;
}

static void accepted(struct connection *c)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);
	if (c->life != ASKED || send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
		want(c, OP_RST);
	else
		c->life = OPEN;
}

static void act(struct vsock *v, struct connection *c, const struct packet *p)
{
	c->guest_room = p->room;
	c->guest_passed_on = p->passed_on;
	switch (p->op) {
	case OP_REQUEST: break; /* has been seen to */
	case OP_RESPONSE: accepted(c); break;
	case OP_RST: drop(c); return;
	case OP_RW: keep(v, c, p->length); break;
	case OP_CREDIT: break;
	case OP_CREDIT_REQUEST: want(c, OP_CREDIT); break;
	case OP_SHUTDOWN:
		c->is_shut |= (p->flags & 2) != 0;
		c->is_ended |= p->flags & 1;
		pass_out(c);
		break;
	default: want(c, OP_RST);
	}
	listen_for(v, c, EPOLL_CTL_MOD);
}

static void hear(struct vsock *v)
{
	struct packet p;
	uint64_t n = virtq_read(&v->chain, 0, &p, sizeof(p));
	if (n < sizeof(p) || p.length > v->chain.out_bytes - sizeof(p)) {
		virtio_fail(&v->virtio, "a packet that is shorter than it says");
		return;
	}
	/* From somebody else, or to: nobody can answer. */
	if (p.from_cid != v->config.cid || p.to_cid != HOST_CID)
		return;
	struct connection *c = NULL;
	if (p.type == STREAM)
		c = p.op == OP_REQUEST ? connect_out(v, &p) : find(v, p.to_port, p.from_port);
	if (c)
		act(v, c, &p);
	else
		refuse(v, &p);
}

/* ---- from the host's programs ---- */

static void accept_program(struct vsock *v)
{
	int fd = accept4(v->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		add(v, fd, GREETING);
}

/* A port that no connection has. */
static uint32_t pick_port(struct vsock *v)
{
	for (;;) {
		uint32_t port = FIRST_HOST_PORT + v->next_port++ % FIRST_HOST_PORT;
		bool is_used = false;
		for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
			is_used |= v->connections[i].life >= ASKED &&
				   v->connections[i].host_port == port;
		if (!is_used)
			return port;
	}
}

bool virtio_vsock_greeting(const char *line, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	uint64_t n = 0;
	if (strncmp(line, word, strlen(word)))
		return false;
	line += strlen(word);
	if (!*line || strlen(line) > 10 || line[strspn(line, "0123456789")])
		return false;
	while (*line)
		n = n * 10 + (uint64_t)(*line++ - '0');
	*port = (uint32_t)n;
	return n < UINT32_MAX;
}

/* Byte by byte: what comes behind the line is the guest's. */
static void greet(struct vsock *v, struct connection *c)
{
	while (c->greeting_bytes < GREETING_MAX) {
		char *byte = &c->greeting[c->greeting_bytes];
		ssize_t n = recv(c->fd, byte, 1, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0)
			break;
		if (*byte != '\n') {
			c->greeting_bytes++;
			continue;
		}
		*byte = 0;
		if (!virtio_vsock_greeting(c->greeting, &c->guest_port))
			break;
		c->life = ASKED;
		c->host_port = pick_port(v);
		want(c, OP_REQUEST);
		listen_for(v, c, EPOLL_CTL_MOD);
		return;
	}
	drop(c);
}

static void happened(struct vsock *v, const struct epoll_event *event)
{
	if (event->data.u32 == CONNECTIONS_MAX) {
		accept_program(v);
		return;
	}
	struct connection *c = &v->connections[event->data.u32];
	if (c->life == GREETING)
		greet(v, c);
	if (c->life == ASKED && event->events & (EPOLLHUP | EPOLLERR))
		want(c, OP_RST);
	if (c->life == OPEN && event->events & (EPOLLOUT | EPOLLERR))
		pass_out(c);
	/* Its end is known; epoll would say so for ever. What can be read still is. */
	if (c->life > GREETING && event->events & (EPOLLHUP | EPOLLERR))
		epoll_ctl(v->epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

static void ready(void *device, int fd)
{
	struct vsock *v = device;
	struct epoll_event events[16];
	(void)fd;
	int n = epoll_wait(v->epoll, events, ARRAY_COUNT(events), 0);
	for (int i = 0; i < n; i++)
		happened(v, &events[i]);
	serve(v);
}

/* ---- the device ---- */

static bool say_refusals(struct vsock *v)
{
	unsigned done = 0;
	while (done < v->refusal_count && take_buffer(v))
		put_packet(v, &v->refusals[done++]);
	v->refusal_count -= done;
	memmove(v->refusals, v->refusals + done, v->refusal_count * sizeof(*v->refusals));
	return !v->refusal_count;
}

/* All that waits for the guest, as far as its buffers go. */
static void serve(struct vsock *v)
{
	bool has_buffers = virtio_is_running(&v->virtio) && say_refusals(v);
	for (unsigned i = 0; has_buffers && i < CONNECTIONS_MAX; i++) {
		struct connection *c = &v->connections[i];
		if (c->life == FREE)
			continue;
		has_buffers = say(v, c) && pass_in(v, c) && say(v, c);
		if (c->life != FREE)
			listen_for(v, c, EPOLL_CTL_MOD);
	}
	virtio_signal(&v->virtio, QUEUE_RX);
	const struct virtio_host *host = v->virtio.host;
	if (has_buffers == v->is_watching)
		return;
	v->is_watching = has_buffers;
	if (!has_buffers)
		host->unwatch(host->opaque, v->epoll);
	else if (!host->watch(host->opaque, v->epoll, ready, v))
		host->set_waker(host->opaque, v->epoll, true);
}

static void tell_reset(struct vsock *v)
{
	const uint32_t transport_reset = 0;
	struct virtio_device *d = &v->virtio;
	if (!v->must_tell_reset || !virtio_pop(d, QUEUE_EVENT, &v->chain))
		return;
	v->must_tell_reset = false;
	uint64_t n = virtq_write(&d->queues[QUEUE_EVENT], &v->chain, 0, &transport_reset,
				 sizeof(transport_reset));
	virtio_push(d, QUEUE_EVENT, virtq_ticket(&v->chain), n);
	virtio_signal(d, QUEUE_EVENT);
}

static void kicked(struct virtio_device *d, unsigned index)
{
	struct vsock *v = (struct vsock *)d;
	unsigned count = 0;
	tell_reset(v);
	while (index == QUEUE_TX && count++ < PACKETS_A_VISIT &&
	       virtio_pop(d, QUEUE_TX, &v->chain)) {
		struct virtq_ticket t = virtq_ticket(&v->chain);
		hear(v);
		virtio_push(d, QUEUE_TX, t, 0);
	}
	if (index == QUEUE_TX) {
		virtio_signal(d, QUEUE_TX);
		if (count > PACKETS_A_VISIT)
			virtio_kick_later(d, QUEUE_TX, 0);
	}
	serve(v);
}

static void started(struct virtio_device *d)
{
	serve((struct vsock *)d);
}

static void reset(struct virtio_device *d)
{
	struct vsock *v = (struct vsock *)d;
	drop_all(v);
	v->must_tell_reset = false;
	serve(v);
}

static int resume(struct virtio_device *d, struct error *e)
{
	struct vsock *v = (struct vsock *)d;
	(void)e;
	drop_all(v);
	v->must_tell_reset = virtio_is_running(d);
	if (v->must_tell_reset)
		virtio_kick_later(d, QUEUE_EVENT, 0);
	serve(v);
	return 0;
}

static void destroy(struct virtio_device *d)
{
	struct vsock *v = (struct vsock *)d;
	if (v->is_watching)
		d->host->unwatch(d->host->opaque, v->epoll);
	drop_all(v);
	if (v->listener >= 0) {
		close(v->listener);
		unlink(v->path);
	}
	if (v->epoll >= 0)
		close(v->epoll);
	free(v);
}

static const struct virtio_ops ops = {
	.name = "vsock",
	.type = 19,
	.class_code = 0x028000,
	.version = 1,
	.latency_ns = LATENCY_NS,
	.kicked = kicked,
	.started = started,
	.reset = reset,
	.resume = resume,
	.destroy = destroy,
};

/* ---- options ---- */

struct vsock_options {
	struct virtio_options common;
	uint64_t cid;
	const char *path;
};

static const struct spec_row option_rows[] = {
	{.name = "cid",
	 .kind = SPEC_NUMBER,
	 .offset = offsetof(struct vsock_options, cid),
	 .min = 3,
	 .max = UINT32_MAX - 1},
	{.name = "path", .kind = SPEC_TEXT, .offset = offsetof(struct vsock_options, path)},
	VIRTIO_OPTION_ROWS,
};

static int parse(struct vsock_options *o, const char *text, struct error *e)
{
	*o = (struct vsock_options){.common = VIRTIO_OPTION_DEFAULTS, .cid = 3};
	int r = virtio_options_parse(text, option_rows, ARRAY_COUNT(option_rows), o, e);
	if (!r && (!o->path || !*o->path))
		r = error_set(e, -EINVAL, "path=SOCKET is missing");
	if (!r && strlen(o->path) >= PATH_MAX_BYTES)
		r = error_set(e, -EINVAL, "path: '%s' has more than %d characters", o->path,
			      PATH_MAX_BYTES - 1);
	return r;
}

static int check(const char *text, struct error *e)
{
	struct vsock_options o;
	int r = parse(&o, text, e);
	virtio_options_free(&o);
	return r;
}

static int start(struct vsock *v, struct error *e)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = CONNECTIONS_MAX};
	v->listener = net_unix_listen(v->path, e);
	if (v->listener < 0)
		return v->listener;
	v->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (v->epoll < 0 || epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->listener, &event))
		return error_set(e, -errno, "no epoll: %s", strerror(errno));
	return 0;
}

static int create(struct virtio_device **out, const char *text, const struct virtio_host *host,
		  struct error *e)
{
	struct vsock_options o;
	int r = parse(&o, text, e);
	struct vsock *v = r ? NULL : calloc(1, sizeof(*v));
	if (!r && !v)
		r = error_set(e, -ENOMEM, "out of memory");
	if (!r) {
		v->listener = v->epoll = -1;
		virtio_init(&v->virtio, &ops, host, 0);
		for (unsigned i = 0; i < QUEUE_COUNT; i++)
			virtio_add_queue(&v->virtio, QUEUE_SIZE);
		virtio_set_config(&v->virtio, &v->config, sizeof(v->config));
		v->config.cid = o.cid;
		strcpy(v->path, o.path);
		v->virtio.is_live = true;
		r = virtio_options_apply(&v->virtio, &o.common, text, e);
	}
	if (!r)
		r = start(v, e);
	virtio_options_free(&o);
	if (r)
		virtio_destroy(v ? &v->virtio : NULL);
	else
		*out = &v->virtio;
	return r;
}

const struct virtio_row virtio_vsock_row = {
	.name = "vsock",
	.argument = ",path=SOCKET[,cid=N]",
	.text = "sockets between host and guest; --vsock is the same",
	.check = check,
	.create = create,
};
