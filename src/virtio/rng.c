/*
 * The entropy device (VIRTIO 1.2, 5.4): fills what the driver gives it. Under the virtual clock the
 * bytes are a sequence that the machine's seed determines, so that runs repeat; under the real one
 * they are the host's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "virtio/options.h"

#define QUEUE_SIZE 64
#define LATENCY_NS 2000
/* A driver gets this much for one buffer at most, however long it is; it will ask again. */
#define BYTES_MAX 65536u
#define CHUNK_BYTES 256

struct rng_state {
	uint64_t sequence; /* virtual clock: where we are in it */
};

struct rng {
	struct virtio_device virtio;
	struct rng_state state;
	struct virtq_chain chain;
};

struct rng_options {
	struct virtio_options common;
};

static const struct spec_row option_rows[] = {VIRTIO_OPTION_ROWS};

/* splitmix64 */
static uint64_t next(struct rng_state *s)
{
	uint64_t z = (s->sequence += 0x9e3779b97f4a7c15ull);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* How many bytes there are; fewer than asked for only if the host has none. */
static size_t draw(struct rng *r, uint8_t *bytes, size_t count)
{
	if (r->virtio.host->clock->kind == CLOCK_REAL) {
		ssize_t n;
		do
			n = getrandom(bytes, count, 0);
		while (n < 0 && errno == EINTR);
		return n < 0 ? 0 : (size_t)n;
	}
	for (size_t i = 0; i < count; i += sizeof(uint64_t)) {
		uint64_t v = next(&r->state);
		memcpy(bytes + i, &v, count - i < sizeof(v) ? count - i : sizeof(v));
	}
	return count;
}

static uint64_t fill(struct rng *r, const struct virtq *q)
{
	const struct virtq_chain *c = &r->chain;
	uint64_t wanted = c->in_bytes < BYTES_MAX ? c->in_bytes : BYTES_MAX, done = 0;
	while (done < wanted) {
		uint8_t bytes[CHUNK_BYTES];
		uint64_t n = wanted - done < CHUNK_BYTES ? wanted - done : CHUNK_BYTES;
		size_t drawn = draw(r, bytes, n);
		if (!drawn)
			break;
		done += virtq_write(q, c, done, bytes, drawn);
	}
	return done;
}

static void kicked(struct virtio_device *d, unsigned index)
{
	struct rng *r = (struct rng *)d;
	while (virtio_pop(d, index, &r->chain))
		virtio_push(d, index, virtq_ticket(&r->chain), fill(r, &d->queues[index]));
	virtio_signal(d, index);
}

static void reset(struct virtio_device *d)
{
	(void)d; /* the sequence goes on: a guest that boots again gets other bytes */
}

static void destroy(struct virtio_device *d)
{
	free(d);
}

static const struct virtio_ops ops = {
	.name = "rng",
	.type = 4,
	.class_code = 0x00ff00,
	.version = 1,
	.latency_ns = LATENCY_NS,
	.kicked = kicked,
	.reset = reset,
	.destroy = destroy,
};

static int parse(struct rng_options *o, const char *text, struct error *e)
{
	*o = (struct rng_options){VIRTIO_OPTION_DEFAULTS};
	return virtio_options_parse(text, option_rows, ARRAY_COUNT(option_rows), o, e);
}

static int check(const char *text, struct error *e)
{
	struct rng_options o;
	int r = parse(&o, text, e);
	virtio_options_free(&o);
	return r;
}

static int create(struct virtio_device **out, const char *text, const struct virtio_host *host,
		  struct error *e)
{
	struct rng_options o;
	int result = parse(&o, text, e);
	struct rng *r = result ? NULL : calloc(1, sizeof(*r));
	if (!result && !r)
		result = error_set(e, -ENOMEM, "out of memory");
	if (!result) {
		virtio_init(&r->virtio, &ops, host, 0);
		virtio_add_queue(&r->virtio, QUEUE_SIZE);
		virtio_set_own_state(&r->virtio, &r->state, sizeof(r->state));
		r->state.sequence = host->seed;
		result = virtio_options_apply(&r->virtio, &o.common, text, e);
	}
	virtio_options_free(&o);
	if (result)
		virtio_destroy(r ? &r->virtio : NULL);
	else
		*out = &r->virtio;
	return result;
}

const struct virtio_row virtio_rng_row = {
	.name = "rng",
	.argument = "",
	.text = "entropy: the host's, or with the virtual clock the seed's",
	.check = check,
	.create = create,
};
