/*
 * Every format but raw: qemu-nbd reads and writes the image, in a process of its own, and libnbd
 * talks to it over a socket that nobody else has. If it dies, or does not answer for a minute,
 * requests fail from then on and the machine goes on: nothing waits for it for ever.
 */
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/host_time.h"
#include "base/log.h"
#include "block/block_private.h"

#define SERVER "qemu-nbd"
#define CHUNK_BYTES (16u << 20) /* servers take 32 MiB at once */
#define ANSWER_MS 60000u

struct nbd {
	struct nbd_handle *handle;
	struct nbd_server server;
	unsigned answer_ms;
	/* It did not answer in time. What it says later is never read: it would land in memory that
	 * is the guest's again. */
	bool is_dead;
};

static int nbd_problem(void)
{
	int code = nbd_get_errno();
	return code > 0 ? -code : -EIO;
}

/* ---- waiting ---- */

static int64_t now_ms(void)
{
	return (int64_t)(host_time_ns() / 1000000);
}

/* Lets libnbd work until the deadline: 0, or -errno. */
static int work(struct nbd *n, int64_t end_ms)
{
	int64_t left = end_ms - now_ms();
	int r = left > 0 ? nbd_poll(n->handle, (int)left) : 0;
	if (r < 0)
		return nbd_get_errno() == EINTR ? 0 : nbd_problem();
	if (r > 0)
		return 0;
	n->is_dead = true;
	log_warn("disk: " SERVER " has not answered for %u ms; the guest gets errors",
		 n->answer_ms);
	return -ETIMEDOUT;
}

/* `cookie` is a command's. */
static int await(struct nbd *n, int64_t cookie)
{
	int64_t end_ms = now_ms() + n->answer_ms;
	int done = 0, r = cookie < 0 ? nbd_problem() : 0;
	while (!r && !(done = nbd_aio_command_completed(n->handle, (uint64_t)cookie)))
		r = work(n, end_ms);
	return done < 0 ? nbd_problem() : r;
}

/* ---- requests ---- */

static int64_t begin(struct nbd_handle *h, const struct block_request *r, uint8_t *bytes,
		     uint64_t offset, uint64_t count)
{
	uint32_t no_hole = r->may_discard ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
	nbd_completion_callback none = NBD_NULL_COMPLETION;
	switch (r->op) {
	case BLOCK_READ: return nbd_aio_pread(h, bytes, count, offset, none, 0);
	case BLOCK_WRITE: return nbd_aio_pwrite(h, bytes, count, offset, none, 0);
	case BLOCK_DISCARD: return nbd_aio_trim(h, count, offset, none, 0);
	case BLOCK_WRITE_ZEROES: return nbd_aio_zero(h, count, offset, none, no_hole);
	case BLOCK_FLUSH: break;
	}
	return nbd_aio_flush(h, none, 0);
}

/* One piece or range, in chunks. */
static int nbd_range(struct nbd *n, const struct block_request *r, uint8_t *bytes, uint64_t offset,
		     uint64_t count)
{
	while (count) {
		uint64_t part = count < CHUNK_BYTES ? count : CHUNK_BYTES;
		int result = await(n, begin(n->handle, r, bytes, offset, part));
		if (result)
			return result;
		bytes = bytes ? bytes + part : NULL;
		offset += part;
		count -= part;
	}
	return 0;
}

static int carry_out(struct nbd *n, const struct block_request *r)
{
	if (r->op == BLOCK_FLUSH)
		return await(n, begin(n->handle, r, NULL, 0, 0));
	if (r->op == BLOCK_DISCARD || r->op == BLOCK_WRITE_ZEROES)
		return nbd_range(n, r, NULL, r->offset, r->size_bytes);
	uint64_t at = r->offset;
	for (unsigned i = 0; i < r->piece_count; i++) {
		int result = nbd_range(n, r, r->pieces[i].iov_base, at, r->pieces[i].iov_len);
		if (result)
			return result;
		at += r->pieces[i].iov_len;
	}
	return 0;
}

static int nbd_execute(struct block *b, const struct block_request *r)
{
	struct nbd *n = b->nbd;
	if (n->is_dead)
		return -EIO;
	int result = carry_out(n, r);
	if (result && !n->is_dead && nbd_aio_is_dead(n->handle)) {
		n->is_dead = true;
		log_warn("disk: " SERVER " is gone; the guest gets errors");
	}
	return result;
}

/* ---- opening ---- */

static int connect_server(struct nbd *n)
{
	int64_t end_ms = now_ms() + n->answer_ms;
	int r = nbd_aio_connect_socket(n->handle, n->server.fd) ? nbd_problem() : 0;
	if (!r)
		n->server.fd = -1; /* libnbd's */
	while (!r && !nbd_aio_is_ready(n->handle))
		r = nbd_aio_is_dead(n->handle) || nbd_aio_is_closed(n->handle) ? -EPIPE
									       : work(n, end_ms);
	return r;
}

/* Which option needs the server. */
static int blame_option(const struct block_config *c, struct error *e)
{
	if (c->is_temporary)
		return error_prefix(e, "snapshot=on");
	if (c->format != BLOCK_RAW)
		return error_prefix(e, "format=%s", block_format_names[c->format]);
	return error_prefix(e, "cache=%s", block_cache_names[c->cache]);
}

static int start_server(struct nbd *n, const struct block_config *c, struct error *e)
{
	char format[32], cache[32];
	const char *arguments[] = {SERVER,
				   format,
				   cache,
				   "--discard=unmap",
				   c->is_temporary   ? "--snapshot"
				   : c->is_read_only ? "--read-only"
						     : "--shared=1",
				   "--",
				   c->path,
				   NULL};
	snprintf(format, sizeof(format), "--format=%s", block_format_names[c->format]);
	snprintf(cache, sizeof(cache), "--cache=%s", block_cache_names[c->cache]);
	if (access(c->path, c->is_read_only || c->is_temporary ? R_OK : R_OK | W_OK))
		return error_set(e, -errno, "cannot open '%s': %s", c->path, strerror(errno));
	int r = nbd_server_start(&n->server, arguments, e);
	if (r)
		return blame_option(c, e);
	r = connect_server(n);
	if (r)
		error_set(e, r,
			  SERVER
			  " cannot open '%s' as %s; is it that, and does nobody else use it?",
			  c->path, block_format_names[c->format]);
	return r;
}

static int nbd_open_image(struct block *b, const struct block_config *c, struct error *e)
{
	struct nbd *n = b->nbd = calloc(1, sizeof(*n));
	if (!n)
		return error_set(e, -ENOMEM, "out of memory");
	n->server.fd = -1;
	n->answer_ms = c->answer_ms ? c->answer_ms : ANSWER_MS;
	n->handle = nbd_create();
	if (!n->handle)
		return error_set(e, -ENOMEM, "libnbd: %s", nbd_get_error());
	int r = start_server(n, c, e);
	if (r)
		return r;
	int64_t size = nbd_get_size(n->handle);
	if (size <= 0 || size % 512)
		return error_set(e, -EINVAL, "'%s' is a disk of %lld bytes, not a multiple of 512",
				 c->path, (long long)size);
	b->info = (struct block_info){.size_bytes = (uint64_t)size,
				      .sector_bytes = 512,
				      .can_discard = nbd_can_trim(n->handle) == 1,
				      .can_write_zeroes = nbd_can_zero(n->handle) == 1};
	return 0;
}

/* The server ends when its one client has said goodbye, and has written what it holds by then. */
static void nbd_close_image(struct block *b)
{
	struct nbd *n = b->nbd;
	if (!n)
		return;
	if (n->handle && !n->is_dead && nbd_aio_is_ready(n->handle))
		nbd_aio_disconnect(n->handle, 0);
	nbd_close(n->handle);
	if (n->server.fd >= 0)
		close(n->server.fd);
	nbd_server_end(&n->server, n->is_dead ? 0 : n->answer_ms);
	free(n);
	b->nbd = NULL;
}

const struct block_ops block_nbd_ops = {nbd_open_image, nbd_execute, nbd_close_image, 1};
