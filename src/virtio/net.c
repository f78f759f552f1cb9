/*
 * The network card (VIRTIO 1.2, 5.1), over a backend of net/.
 *
 * Queue 0 receives, 1 transmits, 2 controls (the card's address, no more). Frames come and go
 * whole; of the offloads it has checksums: those of the guest are filled in here, and what user
 * networking sends came through no wire and needs no check. Large frames come of a large MTU
 * instead.
 *
 * Nobody waits for anybody. A guest that gives no buffers stops the reading, so its peer's queue
 * fills; a peer whose queue is full is tried again for STALL_NS and then loses frames until it
 * reads. A peer that is gone is a link that is down. A frame that is half done when the machine is
 * saved does not exist: rings are rewound, not left in flight.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/net.h"
#include "virtio/options.h"

#define F_CSUM (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MTU (1ull << 3)
#define F_MAC (1ull << 5)
#define F_MRG_RXBUF (1ull << 15)
#define F_STATUS (1ull << 16)
#define F_CTRL_VQ (1ull << 17)
#define F_CTRL_MAC_ADDR (1ull << 23)

enum { QUEUE_RX, QUEUE_TX, QUEUE_CONTROL, QUEUE_COUNT };

#define QUEUE_SIZE 256
#define CONTROL_SIZE 16
#define LATENCY_NS 5000
#define LINK_UP 1
#define CONFIG_BYTES 12 /* of struct net_state */
#define HEADER_NEEDS_CSUM 1
#define HEADER_DATA_VALID 2
#define CONTROL_MAC 1
#define CONTROL_MAC_ADDR_SET 1

/* One visit of a queue: others want their turn, too. */
#define FRAMES_A_VISIT 256
/* A peer that does not read: how soon it is asked again, and after how long frames are lost. */
#define RETRY_NS 200000
#define STALL_NS 100000000

struct header {
	uint8_t flags, gso_type;
	uint16_t header_bytes, gso_bytes, csum_start, csum_offset;
	uint16_t buffer_count;
} __attribute__((packed));

_Static_assert(sizeof(struct header) == 12, "VIRTIO 1.2, 5.1.6");

struct net_state {
	uint8_t mac[NET_MAC_BYTES];
	uint16_t status, queue_pairs, mtu;
	uint32_t unused;
};

struct card {
	struct virtio_device virtio;
	struct net_state state;	    /* as the driver reads it */
	uint8_t mac[NET_MAC_BYTES]; /* at power-on */
	struct net *net;	    /* NULL: no cable */
	bool is_trusted;	    /* what comes from it needs no checksum */
	bool is_watching;
	uint64_t stalled_since; /* cycles; 0: the peer reads */
	uint64_t lost;		/* frames, either way */
	size_t held;		/* bytes of `received` that no buffer was there for */
	uint8_t received[NET_FRAME_MAX], sent[sizeof(struct header) + NET_FRAME_MAX];
	struct virtq_chain chain, first;
};

/* ---- the link ---- */

static void readable(void *device, int fd);

static void set_watching(struct card *c, bool on)
{
	const struct virtio_host *host = c->virtio.host;
	if (!c->net || on == c->is_watching)
		return;
	c->is_watching = on;
	if (!on) {
		host->unwatch(host->opaque, c->net->fd);
	} else if (host->watch(host->opaque, c->net->fd, readable, c)) {
		log_warn("net: no room to watch the network");
		c->is_watching = false;
	} else {
		host->set_waker(host->opaque, c->net->fd, true);
	}
}

static void link_down(struct card *c)
{
	set_watching(c, false);
	log_warn("net: the other end of the network is gone; the guest's link is down");
	net_close(c->net);
	c->net = NULL;
	c->virtio.is_live = false;
	c->held = 0;
	c->state.status = 0;
	virtio_config_changed(&c->virtio);
}

/* ---- to the guest ---- */

/* How many buffers a frame may be spread over. */
static unsigned buffers_max(const struct card *c)
{
	return virtio_has(&c->virtio, F_MRG_RXBUF) ? QUEUE_SIZE : 1;
}

/* Puts `held` bytes into the guest's buffers. -EAGAIN: there are too few, and none is taken;
 * -EMSGSIZE: no buffer of this driver holds so much. */
static int deliver(struct card *c)
{
	struct virtio_device *d = &c->virtio;
	struct virtq *q = &d->queues[QUEUE_RX];
	struct virtq_state before = *q->state;
	struct virtq_ticket tickets[QUEUE_SIZE];
	uint64_t lengths[QUEUE_SIZE];
	struct header h = {0};
	size_t done = 0;
	uint16_t count = 0;
	while (done < c->held || !count) {
		struct virtq_chain *chain = count ? &c->chain : &c->first;
		unsigned skip = count ? 0 : sizeof(h);
		if (count == buffers_max(c) || !virtio_pop(d, QUEUE_RX, chain)) {
			virtq_rewind(q, &before);
			return count == buffers_max(c) ? -EMSGSIZE : -EAGAIN;
		}
		uint64_t n = virtq_write(q, chain, skip, c->received + done, c->held - done);
		tickets[count] = virtq_ticket(chain);
		lengths[count++] = skip + n;
		done += n;
		if (chain->in_bytes <= skip) {
			virtio_fail(d, "a buffer to receive into has no room for a frame");
			return -EMSGSIZE;
		}
	}
	h.buffer_count = count;
	if (c->is_trusted && virtio_has(d, F_GUEST_CSUM))
		h.flags = HEADER_DATA_VALID;
	virtq_write(q, &c->first, 0, &h, sizeof(h));
	for (unsigned i = 0; i < count; i++)
		virtio_push(d, QUEUE_RX, tickets[i], lengths[i]);
	return 0;
}

/* False when there is no more now, or no room. */
static bool receive_one(struct card *c)
{
	if (!c->held) {
		ssize_t n = net_receive(c->net, c->received, sizeof(c->received));
		if (n == -EPIPE)
			link_down(c);
		if (n <= 0)
			return false;
		c->held = (size_t)n;
	}
	int r = deliver(c);
	if (r == -EAGAIN) {
		set_watching(c, false); /* until the driver brings buffers */
		return false;
	}
	c->lost += r != 0;
	c->held = 0;
	return true;
}

static void receive(struct card *c)
{
	unsigned frames = 0;
	if (!c->net || !virtio_is_running(&c->virtio))
		return;
	set_watching(c, true);
	while (frames < FRAMES_A_VISIT && virtio_is_running(&c->virtio) && receive_one(c))
		frames++;
	if (frames)
		virtio_signal(&c->virtio, QUEUE_RX);
}

static void readable(void *device, int fd)
{
	struct card *c = device;
	(void)fd;
	if (virtio_is_running(&c->virtio))
		receive(c);
	else
		set_watching(c, false); /* it waits until there is a driver */
}

/* ---- from the guest ---- */

/* The sum of 16-bit words (RFC 1071), in either byte order. */
static uint16_t checksum(const uint8_t *bytes, size_t count)
{
	uint64_t sum = 0;
	for (; count >= 4; bytes += 4, count -= 4) {
		uint32_t word;
		memcpy(&word, bytes, sizeof(word));
		sum += word;
	}
	uint32_t rest = 0;
	memcpy(&rest, bytes, count);
	sum += rest;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* Does what the header asks for to the frame behind it. False: it makes no sense. */
static bool complete(uint8_t *frame, size_t bytes, const struct header *h)
{
	if (h->gso_type)
		return false; /* not offered */
	if (!(h->flags & HEADER_NEEDS_CSUM))
		return true;
	size_t start = h->csum_start, offset = h->csum_offset;
	if (start > bytes || offset + sizeof(uint16_t) > bytes - start)
		return false;
	uint16_t sum = checksum(frame + start, bytes - start);
	/* Of UDP, 0 would mean that there is none; to TCP both are the same. */
	if (!sum)
		sum = 0xffff;
	memcpy(frame + start + offset, &sum, sizeof(sum));
	return true;
}

/* -EAGAIN: the peer does not take it now. Anything else is done with. */
static int transmit(struct card *c)
{
	const struct virtq_chain *chain = &c->chain;
	struct header h;
	uint64_t bytes = virtq_read(chain, 0, c->sent, sizeof(c->sent));
	if (bytes < sizeof(h) + NET_HEADER_BYTES || chain->out_bytes > bytes) {
		c->lost++;
		return 0;
	}
	memcpy(&h, c->sent, sizeof(h));
	struct iovec part = {c->sent + sizeof(h), bytes - sizeof(h)};
	if (!complete(part.iov_base, part.iov_len, &h) || !c->net) {
		c->lost++;
		return 0;
	}
	int r = net_send(c->net, &part, 1);
	if (r == -EPIPE)
		link_down(c);
	if (r != -EAGAIN)
		c->lost += r != 0;
	return r == -EAGAIN ? r : 0;
}

/* Shall a frame that the peer did not take be tried again? */
static bool may_wait(struct card *c)
{
	struct clock *clock = c->virtio.host->clock;
	uint64_t now = clock_now(clock);
	if (!c->stalled_since)
		c->stalled_since = now ? now : 1;
	return now - c->stalled_since < clock_cycles_from_ns(clock, STALL_NS);
}

/* True if there may be more to send, now or later. */
static bool transmit_one(struct card *c, bool *is_stuck)
{
	struct virtio_device *d = &c->virtio;
	struct virtq *q = &d->queues[QUEUE_TX];
	struct virtq_state before = *q->state;
	if (!virtio_pop(d, QUEUE_TX, &c->chain))
		return false;
	int r = transmit(c);
	*is_stuck = r && may_wait(c);
	if (*is_stuck) {
		virtq_rewind(q, &before);
		return true;
	}
	c->lost += r != 0;
	if (!r)
		c->stalled_since = 0;
	virtio_push(d, QUEUE_TX, virtq_ticket(&c->chain), 0);
	return true;
}

static void transmit_all(struct card *c)
{
	struct virtio_device *d = &c->virtio;
	bool is_more = true, is_stuck = false;
	for (unsigned i = 0; i < FRAMES_A_VISIT && is_more && !is_stuck; i++)
		is_more = transmit_one(c, &is_stuck);
	virtio_signal(d, QUEUE_TX);
	/* The end of a frame may still be here when the queue is empty. */
	if (!is_more && c->net && net_flush(c->net) == -EAGAIN)
		is_stuck = is_more = true;
	if (is_more)
		virtio_kick_later(d, QUEUE_TX, is_stuck ? RETRY_NS : 0);
}

/* ---- control ---- */

static bool obey(struct card *c)
{
	uint8_t command[2 + NET_MAC_BYTES];
	if (virtq_read(&c->chain, 0, command, sizeof(command)) != sizeof(command) ||
	    command[0] != CONTROL_MAC || command[1] != CONTROL_MAC_ADDR_SET)
		return false;
	memcpy(c->state.mac, command + 2, NET_MAC_BYTES);
	return true;
}

static void control(struct card *c)
{
	struct virtio_device *d = &c->virtio;
	for (unsigned i = 0; i < CONTROL_SIZE && virtio_pop(d, QUEUE_CONTROL, &c->chain); i++) {
		uint8_t answer = !obey(c);
		uint64_t n = virtq_write(&d->queues[QUEUE_CONTROL], &c->chain, 0, &answer, 1);
		virtio_push(d, QUEUE_CONTROL, virtq_ticket(&c->chain), n);
	}
	virtio_signal(d, QUEUE_CONTROL);
}

/* ---- the device ---- */

static void kicked(struct virtio_device *d, unsigned index)
{
	struct card *c = (struct card *)d;
	switch (index) {
	case QUEUE_TX: transmit_all(c); break;
	case QUEUE_CONTROL: control(c); return;
	default: break;
	}
	/* What is sent is often answered at once. */
	receive(c);
}

static void started(struct virtio_device *d)
{
	set_watching((struct card *)d, true);
}

static void reset(struct virtio_device *d)
{
	struct card *c = (struct card *)d;
	set_watching(c, false);
	memcpy(c->state.mac, c->mac, sizeof(c->mac));
	c->held = 0;
	c->stalled_since = 0;
}

static int resume(struct virtio_device *d, struct error *e)
{
	struct card *c = (struct card *)d;
	(void)e;
	/* The link is the one that is here now. */
	c->state.status = c->net ? LINK_UP : 0;
	c->state.queue_pairs = 1;
	if (virtio_is_running(d))
		set_watching(c, true);
	return 0;
}

static void destroy(struct virtio_device *d)
{
	struct card *c = (struct card *)d;
	set_watching(c, false);
	if (c->lost)
		log_info("net: %llu frames were lost", (unsigned long long)c->lost);
	net_close(c->net);
	free(c);
}

static const struct virtio_ops ops = {
	.name = "net",
	.type = 1,
	.class_code = 0x020000,
	.version = 1,
	.latency_ns = LATENCY_NS,
	.kicked = kicked,
	.started = started,
	.reset = reset,
	.resume = resume,
	.destroy = destroy,
};

/* ---- options ---- */

struct card_options {
	struct virtio_options common;
	struct net_config net;
	char spec[NET_SPEC_MAX];	/* what the network is told */
	char common_spec[NET_SPEC_MAX]; /* what is for every device */
};

static const struct spec_row common_rows[] = {VIRTIO_OPTION_ROWS};

static bool is_common(const char *text)
{
	for (size_t i = 0; i < ARRAY_COUNT(common_rows); i++) {
		size_t n = strlen(common_rows[i].name);
		if (!strncmp(text, common_rows[i].name, n) && strchr("=,", text[n]))
			return true;
	}
	return false;
}

/* Both lists are shorter than the text, which has room in them. */
static void split(struct card_options *o, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, ",");
		char *to = is_common(text) ? o->common_spec : o->spec;
		to += strlen(to);
		sprintf(to, "%s%.*s", to == o->spec || to == o->common_spec ? "" : ",", (int)n,
			text);
		text += n + (text[n] == ',');
	}
}

static int parse(struct card_options *o, const char *text, struct error *e)
{
	memset(o, 0, sizeof(*o));
	o->common = (struct virtio_options)VIRTIO_OPTION_DEFAULTS;
	if (strlen(text) >= NET_SPEC_MAX)
		return error_set(e, -EINVAL, "more than %d characters", NET_SPEC_MAX - 1);
	split(o, text);
	int r = virtio_options_parse(o->common_spec, common_rows, ARRAY_COUNT(common_rows), o, e);
	return r ? r : net_parse(&o->net, o->spec, e);
}

static int check(const char *text, struct error *e)
{
	struct card_options o;
	int r = parse(&o, text, e);
	virtio_options_free(&o);
	return r;
}

/* The same card in another machine: its address belongs to it. */
static int apply(struct card *c, const struct card_options *o, const char *text, struct error *e)
{
	char *whole;
	const uint8_t *mac = c->mac;
	if (o->net.has_mac)
		return virtio_options_apply(&c->virtio, &o->common, text, e);
	if (asprintf(&whole, "%s,mac=%02x:%02x:%02x:%02x:%02x:%02x", text, mac[0], mac[1], mac[2],
		     mac[3], mac[4], mac[5]) < 0)
		return error_set(e, -ENOMEM, "out of memory");
	int r = virtio_options_apply(&c->virtio, &o->common, whole, e);
	free(whole);
	return r;
}

static void make_card(struct card *c, const struct card_options *o, const struct virtio_host *host)
{
	const uint64_t offered = F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_MRG_RXBUF | F_STATUS |
				 F_CTRL_VQ | F_CTRL_MAC_ADDR;
	virtio_init(&c->virtio, &ops, host, offered);
	virtio_add_queue(&c->virtio, QUEUE_SIZE);
	virtio_add_queue(&c->virtio, QUEUE_SIZE);
	virtio_add_queue(&c->virtio, CONTROL_SIZE);
	virtio_set_config(&c->virtio, &c->state, CONFIG_BYTES);
	virtio_set_own_state(&c->virtio, &c->state, sizeof(c->state));
	if (o->net.has_mac)
		memcpy(c->mac, o->net.mac, sizeof(c->mac));
	else
		net_default_mac(c->mac, o->net.kind == NET_TAP || o->net.kind == NET_SWITCH);
	memcpy(c->state.mac, c->mac, sizeof(c->mac));
	c->state.queue_pairs = 1;
	c->state.mtu = (uint16_t)o->net.mtu;
	c->is_trusted = o->net.kind == NET_USER;
}

static int create(struct virtio_device **out, const char *text, const struct virtio_host *host,
		  struct error *e)
{
	struct card_options o;
	int r = parse(&o, text, e);
	struct card *c = r ? NULL : calloc(1, sizeof(*c));
	if (!r && !c)
		r = error_set(e, -ENOMEM, "out of memory");
	if (!r) {
		make_card(c, &o, host);
		r = apply(c, &o, text, e);
	}
	if (!r)
		r = net_open(&c->net, o.spec, e);
	virtio_options_free(&o);
	if (r) {
		virtio_destroy(c ? &c->virtio : NULL);
		return r;
	}
	c->state.status = c->net ? LINK_UP : 0;
	c->virtio.is_live = c->net != NULL;
	*out = &c->virtio;
	return 0;
}

const struct virtio_row virtio_net_row = {
	.name = "net",
	.argument = ",user|tap|switch|loop|none[,KEY=VALUE]...",
	.text = "a network card; --net is the same",
	.check = check,
	.create = create,
};
