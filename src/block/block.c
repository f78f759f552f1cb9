/* The way in: which backend has the image, and which queue what is under way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_private.h"

const char *const block_format_names[] = {"raw", "qcow2", "vmdk", "vhdx", "vdi", NULL};
const char *const block_cache_names[] = {"writeback", "writethrough", "unsafe",
					 "none",      "directsync",   NULL};
const char *const block_aio_names[] = {"auto", "io_uring", "threads", NULL};

/* What needs nothing but the image's bytes. Bypassing the host's cache needs buffers and sectors
 * that fit together, whatever the guest asks: qemu-nbd sees to that. */
static bool is_plain(const struct block_config *c)
{
	return c->format == BLOCK_RAW && !c->is_temporary && c->cache != BLOCK_NONE &&
	       c->cache != BLOCK_DIRECTSYNC;
}

int block_open(struct block **out, const struct block_config *c, struct error *e)
{
	struct block *b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(e, -ENOMEM, "out of memory");
	b->ops = is_plain(c) ? &block_raw_ops : &block_nbd_ops;
	b->config = *c;
	b->fd = -1;
	int r = b->ops->open(b, c, e);
	b->config.path = NULL;
	if (r)
		block_close(b);
	else
		*out = b;
	return r;
}

void block_close(struct block *b)
{
	if (!b)
		return;
	block_workers_destroy(b->workers);
	block_uring_destroy(b->uring);
	b->ops->close(b);
	free(b);
}

const struct block_info *block_info(const struct block *b)
{
	return &b->info;
}

int block_check(const struct block *b, const struct block_request *r)
{
	if (r->op == BLOCK_FLUSH)
		return b->config.cache == BLOCK_UNSAFE || b->config.is_read_only ? 0 : 1;
	if (r->op != BLOCK_READ && b->config.is_read_only)
		return -EROFS;
	if (r->offset > b->info.size_bytes || r->size_bytes > b->info.size_bytes - r->offset)
		return -ERANGE;
	return r->size_bytes ? 1 : 0;
}

int block_do(struct block *b, const struct block_request *r)
{
	int result = block_check(b, r);
	return result > 0 ? b->ops->execute(b, r) : result;
}

int block_execute(struct block *b, struct block_request *r)
{
	r->result = block_do(b, r);
	return r->result;
}

unsigned block_pieces(const struct block_request *r, uint64_t offset, struct iovec *out,
		      unsigned out_max)
{
	unsigned n = 0;
	for (unsigned i = 0; i < r->piece_count && n < out_max; i++) {
		const struct iovec *p = &r->pieces[i];
		if (offset >= p->iov_len) {
			offset -= p->iov_len;
			continue;
		}
		out[n++] = (struct iovec){(uint8_t *)p->iov_base + offset, p->iov_len - offset};
		offset = 0;
	}
	return n;
}

/* ---- later ---- */

int block_start(struct block *b, const char **name, struct error *e)
{
	bool is_raw = b->ops == &block_raw_ops;
	if (b->config.aio == BLOCK_AIO_URING && !is_raw)
		return error_set(e, -EINVAL,
				 "io_uring serves raw images only, in the host's cache and without "
				 "snapshot=on");
	int r = -ENOSYS;
	if (is_raw && b->config.aio != BLOCK_AIO_THREADS)
		r = block_uring_create(&b->uring, b, e);
	if (r && b->config.aio == BLOCK_AIO_URING)
		return r;
	if (r)
		r = block_workers_create(&b->workers, b, b->ops->thread_count, e);
	if (!r && name)
		*name = b->uring ? "io_uring" : "threads";
	return r;
}

int block_fd(const struct block *b)
{
	return b->uring ? block_uring_fd(b->uring) : block_workers_fd(b->workers);
}

void block_submit(struct block *b, struct block_request *r)
{
	b->in_flight++;
	if (b->uring)
		block_uring_submit(b->uring, r);
	else
		block_workers_submit(b->workers, r);
}

static unsigned reap(struct block *b, bool must_wait)
{
	if (!b->in_flight)
		return 0;
	return b->uring ? block_uring_reap(b->uring, must_wait)
			: block_workers_reap(b->workers, must_wait);
}

unsigned block_reap(struct block *b)
{
	return reap(b, false);
}

void block_drain(struct block *b)
{
	while (b->in_flight)
		reap(b, true);
}
