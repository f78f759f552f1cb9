/*
 * The console device (VIRTIO 1.2, 5.3) with one port, Linux's hvc0. What the driver writes goes to
 * the machine's output at once; what comes in waits outside until the driver has given buffers.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "virtio/options.h"

#define QUEUE_RECEIVE 0
#define QUEUE_TRANSMIT 1
#define QUEUE_SIZE 64
#define LATENCY_NS 1000
/* Of one buffer; a driver that says more in one go loses the rest. */
#define BYTES_MAX (1u << 20)
#define CHUNK_BYTES 4096

#define F_EMERGENCY BIT(2)
#define CONFIG_EMERGENCY 8

/* struct virtio_console_config */
struct console_config {
	uint16_t columns, rows;
	uint32_t port_count;
	uint32_t emergency; /* a character that must get out without queues */
};

struct console {
	struct virtio_device virtio;
	struct console_config config;
	struct virtq_chain chain;
};

static void say(struct console *c, const uint8_t *bytes, size_t count)
{
	const struct virtio_host *h = c->virtio.host;
	byte_sink_send(&h->console, bytes, count);
}

static void transmit(struct console *c)
{
	uint64_t count = c->chain.out_bytes < BYTES_MAX ? c->chain.out_bytes : BYTES_MAX;
	for (uint64_t at = 0; at < count;) {
		uint8_t bytes[CHUNK_BYTES];
		uint64_t left = count - at;
		uint64_t n =
			virtq_read(&c->chain, at, bytes, left < CHUNK_BYTES ? left : CHUNK_BYTES);
		say(c, bytes, n);
		at += n;
	}
}

static void kicked(struct virtio_device *d, unsigned index)
{
	struct console *c = (struct console *)d;
	const struct virtio_host *h = d->host;
	if (index == QUEUE_RECEIVE) {
		if (h->console_has_room)
			h->console_has_room(h->opaque);
		return;
	}
	while (virtio_pop(d, QUEUE_TRANSMIT, &c->chain)) {
		transmit(c);
		virtio_push(d, QUEUE_TRANSMIT, virtq_ticket(&c->chain), 0);
	}
	virtio_signal(d, QUEUE_TRANSMIT);
}

size_t virtio_console_receive(struct virtio_device *d, const uint8_t *bytes, size_t count)
{
	struct console *c = (struct console *)d;
	size_t taken = 0;
	while (taken < count && virtio_pop(d, QUEUE_RECEIVE, &c->chain)) {
		uint64_t n = virtq_write(&d->queues[QUEUE_RECEIVE], &c->chain, 0, bytes + taken,
					 count - taken);
		virtio_push(d, QUEUE_RECEIVE, virtq_ticket(&c->chain), n);
		taken += n;
	}
	if (taken)
		virtio_signal(d, QUEUE_RECEIVE);
	return taken;
}

static void config_written(struct virtio_device *d, unsigned offset, unsigned size_bytes)
{
	struct console *c = (struct console *)d;
	const uint8_t byte = (uint8_t)c->config.emergency;
	(void)size_bytes;
	if (offset == CONFIG_EMERGENCY)
		say(c, &byte, 1);
	c->config = (struct console_config){.port_count = 1};
}

static void reset(struct virtio_device *d)
{
	(void)d; /* nothing is kept */
}

static void destroy(struct virtio_device *d)
{
	free(d);
}

static const struct virtio_ops ops = {
	.name = "console",
	.type = 3,
	.class_code = 0x078000,
	.version = 1,
	.latency_ns = LATENCY_NS,
	.kicked = kicked,
	.config_written = config_written,
	.reset = reset,
	.destroy = destroy,
};

/* ---- options ---- */

static const struct spec_row option_rows[] = {VIRTIO_OPTION_ROWS};

static int parse(struct virtio_options *o, const char *text, struct error *e)
{
	*o = (struct virtio_options)VIRTIO_OPTION_DEFAULTS;
	return virtio_options_parse(text, option_rows, ARRAY_COUNT(option_rows), o, e);
}

static int check(const char *text, struct error *e)
{
	struct virtio_options o;
	int r = parse(&o, text, e);
	virtio_options_free(&o);
	return r;
}

static int create(struct virtio_device **out, const char *text, const struct virtio_host *host,
		  struct error *e)
{
	struct virtio_options o;
	int r = parse(&o, text, e);
	struct console *c = r ? NULL : calloc(1, sizeof(*c));
	if (!r && !c)
		r = error_set(e, -ENOMEM, "out of memory");
	if (!r) {
		virtio_init(&c->virtio, &ops, host, F_EMERGENCY);
		virtio_add_queue(&c->virtio, QUEUE_SIZE);
		virtio_add_queue(&c->virtio, QUEUE_SIZE);
		c->config.port_count = 1;
		virtio_set_config(&c->virtio, &c->config, sizeof(c->config));
		r = virtio_options_apply(&c->virtio, &o, text, e);
	}
	virtio_options_free(&o);
	if (r)
		virtio_destroy(c ? &c->virtio : NULL);
	else
		*out = &c->virtio;
	return r;
}

const struct virtio_row virtio_console_row = {
	.name = "console",
	.argument = "",
	.text = "hvc0, whose other end is --console's",
	.check = check,
	.create = create,
};
