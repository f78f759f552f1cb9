/*
 * A folder of the host (9P over virtio: VIRTIO 1.2, 5.10 in name, Linux's net/9p/trans_virtio.c in
 * fact): a chain is a message out and room for the answer in.
 *
 * The card between the rings and the server, which is a process of its own (process/share.c): it
 * passes messages on and answers back, in order, and looks at nothing but lengths. A server that is
 * slow holds up nobody; one that is gone is an input/output error for each request from then on.
 * Under the virtual clock each answer is waited for, so that it comes at the same time in every
 * run.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "sandbox/child.h"
#include "share/share.h"
#include "virtio/options.h"

#define F_MOUNT_TAG 1
#define QUEUE_SIZE 128
#define LATENCY_NS 20000
#define PENDING_MAX 64
#define TAG_MAX 32
#define HEADER_BYTES 7
#define RETRY_NS 200000
/* How long a machine that is to be saved waits for the host's files. */
#define DRAIN_MS 10000

struct p9 {
	struct virtio_device virtio;
	struct child child; /* fd -1: gone */
	struct {
		uint16_t length;
		char tag[TAG_MAX];
	} config;
	uint8_t message[SHARE_MESSAGE_MAX];
	struct virtq_chain pending[PENDING_MAX]; /* a ring: what the server has not answered yet */
	unsigned first;
};

struct p9_options {
	struct virtio_options common;
	const char *path, *tag;
	const char *server; /* the program */
	bool is_read_only;
};

static const struct spec_row option_rows[] = {
	{.name = "path",
	 .kind = SPEC_TEXT,
	 .offset = offsetof(struct p9_options, path),
	 .is_first = true},
	{.name = "tag", .kind = SPEC_TEXT, .offset = offsetof(struct p9_options, tag)},
	{.name = "readonly",
	 .kind = SPEC_ON_OFF,
	 .offset = offsetof(struct p9_options, is_read_only)},
	{.name = "server", .kind = SPEC_TEXT, .offset = offsetof(struct p9_options, server)},
	VIRTIO_OPTION_ROWS,
};

/* ---- answers ---- */

static void answer(struct p9 *p, const struct virtq_chain *c, const void *bytes, size_t count)
{
	struct virtio_device *d = &p->virtio;
	uint64_t n = virtq_write(&d->queues[0], c, 0, bytes, count);
	virtio_push(d, 0, virtq_ticket(c), n);
}

static void answer_error(struct p9 *p, const struct virtq_chain *c, int error_number)
{
	uint8_t bytes[SHARE_ERROR_BYTES], header[HEADER_BYTES];
	uint16_t tag;
	virtq_read(c, 0, header, sizeof(header));
	memcpy(&tag, header + 5, sizeof(tag));
	share_error_answer(bytes, tag, error_number);
	answer(p, c, bytes, sizeof(bytes));
}

/* The oldest request is done with. */
static const struct virtq_chain *take_pending(struct p9 *p)
{
	const struct virtq_chain *c = &p->pending[p->first];
	p->first = (p->first + 1) % PENDING_MAX;
	p->virtio.in_flight--;
	return c;
}

static void lose_server(struct p9 *p)
{
	const struct virtio_host *host = p->virtio.host;
	log_warn("share: the process that serves the folder is gone; the guest gets errors");
	host->unwatch(host->opaque, p->child.fd);
	child_end(&p->child);
	while (p->virtio.in_flight)
		answer_error(p, take_pending(p), EIO);
	virtio_signal(&p->virtio, 0);
}

/* Takes the answers that are there; false when the server is gone. */
static bool take_answers(struct p9 *p)
{
	bool is_any = false;
	while (p->child.fd >= 0 && p->virtio.in_flight) {
		ssize_t n = recv(p->child.fd, p->message, sizeof(p->message), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < (ssize_t)HEADER_BYTES) {
			lose_server(p);
			return false;
		}
		const struct virtq_chain *c = take_pending(p);
		if ((uint64_t)n <= c->in_bytes)
			answer(p, c, p->message, (size_t)n);
		else
			answer_error(p, c, EMSGSIZE);
		is_any = true;
	}
	if (is_any)
		virtio_signal(&p->virtio, 0);
	return p->child.fd >= 0;
}

static void drain(struct virtio_device *d)
{
	struct p9 *p = (struct p9 *)d;
	while (d->in_flight && p->child.fd >= 0) {
		struct pollfd file = {.fd = p->child.fd, .events = POLLIN};
		if (poll(&file, 1, DRAIN_MS) <= 0)
			lose_server(p);
		else
			take_answers(p);
	}
}

/* ---- requests ---- */

/* -EAGAIN: the server has enough for now. */
static int pass_on(struct p9 *p, const struct virtq_chain *c)
{
	uint64_t n = virtq_read(c, 0, p->message, sizeof(p->message));
	if (n < HEADER_BYTES || c->in_bytes < SHARE_ERROR_BYTES) {
		virtio_fail(&p->virtio,
			    "a request that is too short, or has no room for an answer");
		return 0;
	}
	if (p->child.fd < 0 || c->out_bytes > n) {
		answer_error(p, c, p->child.fd < 0 ? EIO : EMSGSIZE);
		return 0;
	}
	if (send(p->child.fd, p->message, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno == EAGAIN || errno == ENOBUFS)
			return -EAGAIN;
		answer_error(p, c, EIO);
		lose_server(p);
		return 0;
	}
	p->virtio.in_flight++;
	return 0;
}

static void kicked(struct virtio_device *d, unsigned index)
{
	struct p9 *p = (struct p9 *)d;
	struct virtq *q = &d->queues[index];
	bool is_virtual = d->host->clock->kind == CLOCK_VIRTUAL;
	while (d->in_flight < PENDING_MAX) {
		struct virtq_state before = *q->state;
		struct virtq_chain *c = &p->pending[(p->first + d->in_flight) % PENDING_MAX];
		if (!virtio_pop(d, index, c))
			break;
		if (pass_on(p, c)) {
			virtq_rewind(q, &before);
			virtio_kick_later(d, index, RETRY_NS);
			break;
		}
		if (is_virtual)
			drain(d);
	}
	if (p->child.fd < 0)
		virtio_signal(d, index);
}

static void take_and_go_on(struct p9 *p)
{
	bool was_full = p->virtio.in_flight == PENDING_MAX;
	take_answers(p);
	if (was_full && p->virtio.in_flight < PENDING_MAX)
		virtio_kick_later(&p->virtio, 0, 0);
}

static void readable(void *device, int fd)
{
	struct p9 *p = device;
	(void)fd;
	if (!p->virtio.in_flight) /* nobody asked: it has ended */
		lose_server(p);
	else
		take_and_go_on(p);
}

static void poll_answers(struct virtio_device *d)
{
	take_and_go_on((struct p9 *)d);
}

/* ---- the device ---- */

static void reset(struct virtio_device *d)
{
	struct p9 *p = (struct p9 *)d;
	/* Answers to come must find their requests: nothing may be under way. */
	drain(d);
	p->first = 0;
}

static int resume(struct virtio_device *d, struct error *e)
{
	(void)e;
	if (virtio_is_running(d))
		log_warn("share: the server does not know the guest's files any more; it has to "
			 "mount the folder again");
	return 0;
}

static void destroy(struct virtio_device *d)
{
	struct p9 *p = (struct p9 *)d;
	if (p->child.fd >= 0)
		d->host->unwatch(d->host->opaque, p->child.fd);
	child_end(&p->child);
	free(p);
}

static const struct virtio_ops ops = {
	.name = "9p",
	.type = 9,
	.class_code = 0x018000,
	.version = 1,
	.latency_ns = LATENCY_NS,
	.kicked = kicked,
	.reset = reset,
	.resume = resume,
	.drain = drain,
	.poll = poll_answers,
	.destroy = destroy,
};

/* ---- options ---- */

static int parse(struct p9_options *o, const char *text, struct error *e)
{
	*o = (struct p9_options){
		.common = VIRTIO_OPTION_DEFAULTS, .tag = "share", .server = "gnomon-share"};
	int r = virtio_options_parse(text, option_rows, ARRAY_COUNT(option_rows), o, e);
	if (!r && (!o->path || !*o->path))
		r = error_set(e, -EINVAL, "the folder is missing: write FOLDER[,tag=NAME]");
	if (!r && (!*o->tag || strlen(o->tag) > TAG_MAX))
		r = error_set(e, -EINVAL, "tag: '%s' has not 1 to %d characters", o->tag, TAG_MAX);
	return r;
}

static int check(const char *text, struct error *e)
{
	struct p9_options o;
	int r = parse(&o, text, e);
	virtio_options_free(&o);
	return r;
}

/* The same share in a machine that is started in another folder. */
static int apply(struct p9 *p, const struct p9_options *o, const char *path, struct error *e)
{
	char *text;
	if (strchr(path, ','))
		return error_set(e, -EINVAL, "'%s': no folder with a comma in its name", path);
	if (asprintf(&text, "%s,tag=%s,readonly=%s,server=%s,transport=%s,packed=%s", path, o->tag,
		     o->is_read_only ? "on" : "off", o->server,
		     virtio_transport_names[o->common.transport],
		     o->common.packed ? "on" : "off") < 0)
		return error_set(e, -ENOMEM, "out of memory");
	int r = virtio_options_apply(&p->virtio, &o->common, text, e);
	free(text);
	return r;
}

static int start(struct p9 *p, const struct p9_options *o, struct error *e)
{
	const struct virtio_host *host = p->virtio.host;
	char path[PATH_MAX];
	const char *const arguments[] = {path, o->is_read_only ? "ro" : "rw", NULL};
	if (!realpath(o->path, path))
		return error_set(e, -errno, "'%s': %s", o->path, strerror(errno));
	int r = apply(p, o, path, e);
	if (!r)
		r = child_start(&p->child, o->server, arguments, e);
	if (r)
		return r;
	if (host->watch(host->opaque, p->child.fd, readable, p))
		return error_set(e, -ENOSPC, "too many files to watch");
	host->set_waker(host->opaque, p->child.fd, true);
	return 0;
}

static int create(struct virtio_device **out, const char *text, const struct virtio_host *host,
		  struct error *e)
{
	struct p9_options o;
	int r = parse(&o, text, e);
	struct p9 *p = r ? NULL : calloc(1, sizeof(*p));
	if (!r && !p)
		r = error_set(e, -ENOMEM, "out of memory");
	if (!r) {
		p->child.fd = -1;
		virtio_init(&p->virtio, &ops, host, F_MOUNT_TAG);
		virtio_add_queue(&p->virtio, QUEUE_SIZE);
		p->config.length = (uint16_t)strlen(o.tag);
		memcpy(p->config.tag, o.tag, p->config.length);
		virtio_set_config(&p->virtio, &p->config, 2u + p->config.length);
		r = start(p, &o, e);
	}
	virtio_options_free(&o);
	if (r)
		virtio_destroy(p ? &p->virtio : NULL);
	else
		*out = &p->virtio;
	return r;
}

const struct virtio_row virtio_9p_row = {
	.name = "9p",
	.argument = ",FOLDER[,tag=NAME][,readonly=on]",
	.text = "a folder of the host; --share is the same",
	.check = check,
	.create = create,
};
