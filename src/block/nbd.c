/*
 * Every format but raw: qemu-nbd reads and writes the image, in a process of its own, and libnbd
 * talks to it over a socket that nobody else has. If it dies, requests fail from then on and the
 * machine goes on.
 */
#include <errno.h>
#include <libgen.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/block_private.h"

#define SERVER "qemu-nbd"
#define CHUNK_BYTES (16u << 20) /* servers take 32 MiB at once */

static int nbd_problem(void)
{
	int code = nbd_get_errno();
	return code > 0 ? -code : -EIO;
}

/* One piece or range, in chunks. */
static int nbd_range(struct nbd_handle *h, const struct block_request *r, uint8_t *bytes,
		     uint64_t offset, uint64_t count)
{
	uint32_t no_hole = r->may_discard ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
	while (count) {
		uint64_t n = count < CHUNK_BYTES ? count : CHUNK_BYTES;
		int result = 0;
		switch (r->op) {
		case BLOCK_READ: result = nbd_pread(h, bytes, n, offset, 0); break;
		case BLOCK_WRITE: result = nbd_pwrite(h, bytes, n, offset, 0); break;
		case BLOCK_DISCARD: result = nbd_trim(h, n, offset, 0); break;
		case BLOCK_WRITE_ZEROES: result = nbd_zero(h, n, offset, no_hole); break;
		case BLOCK_FLUSH: break;
		}
		if (result)
			return nbd_problem();
		bytes = bytes ? bytes + n : NULL;
		offset += n;
		count -= n;
	}
	return 0;
}

static int nbd_execute(struct block *b, const struct block_request *r)
{
	if (r->op == BLOCK_FLUSH)
		return nbd_flush(b->nbd, 0) ? nbd_problem() : 0;
	if (r->op == BLOCK_DISCARD || r->op == BLOCK_WRITE_ZEROES)
		return nbd_range(b->nbd, r, NULL, r->offset, r->size_bytes);
	uint64_t at = r->offset;
	for (unsigned i = 0; i < r->piece_count; i++) {
		int result = nbd_range(b->nbd, r, r->pieces[i].iov_base, at, r->pieces[i].iov_len);
		if (result)
			return result;
		at += r->pieces[i].iov_len;
	}
	return 0;
}

static bool is_in_path(const char *program)
{
	const char *path = getenv("PATH");
	char name[4096];
	while (path && *path) {
		size_t n = strcspn(path, ":");
		snprintf(name, sizeof(name), "%.*s/%s", (int)n, path, program);
		if (!access(name, X_OK))
			return true;
		path += n + (path[n] == ':');
	}
	return false;
}

static int start_server(struct block *b, const struct block_config *c, struct error *e)
{
	char format[32], cache[32];
	const char *arguments[] = {SERVER,
				   format,
				   cache,
				   "--discard=unmap",
				   c->is_read_only ? "--read-only" : "--shared=1",
				   "--",
				   c->path,
				   NULL};
	snprintf(format, sizeof(format), "--format=%s", block_format_names[c->format]);
	snprintf(cache, sizeof(cache), "--cache=%s", block_cache_names[c->cache]);
	if (access(c->path, c->is_read_only ? R_OK : R_OK | W_OK))
		return error_set(e, -errno, "cannot open '%s': %s", c->path, strerror(errno));
	if (!is_in_path(SERVER))
		return error_set(e, -ENOENT,
				 "format=%s needs the program " SERVER " (Debian: qemu-utils)",
				 block_format_names[c->format]);
	if (nbd_connect_systemd_socket_activation(b->nbd, (char **)arguments))
		return error_set(e, nbd_problem(),
				 SERVER " cannot open '%s' as %s; is it that, and does nobody else "
					"use it?",
				 c->path, block_format_names[c->format]);
	return 0;
}

/* libnbd keeps the socket's name, in a folder of its own, until the end; by then we may no longer
 * be allowed to remove it. Nobody else shall connect, so it goes at once. */
static void remove_socket(struct nbd_handle *h)
{
	struct sockaddr_un a = {0};
	socklen_t size = sizeof(a) - 1;
	if (getpeername(nbd_aio_get_fd(h), (struct sockaddr *)&a, &size) ||
	    a.sun_family != AF_UNIX || !a.sun_path[0])
		return;
	unlink(a.sun_path);
	rmdir(dirname(a.sun_path));
}

static int nbd_open_image(struct block *b, const struct block_config *c, struct error *e)
{
	b->nbd = nbd_create();
	if (!b->nbd)
		return error_set(e, -ENOMEM, "libnbd: %s", nbd_get_error());
	int r = start_server(b, c, e);
	if (r)
		return r;
	remove_socket(b->nbd);
	int64_t size = nbd_get_size(b->nbd);
	if (size <= 0 || size % 512)
		return error_set(e, -EINVAL, "'%s' is a disk of %lld bytes, not a multiple of 512",
				 c->path, (long long)size);
	b->info = (struct block_info){.size_bytes = (uint64_t)size,
				      .sector_bytes = 512,
				      .can_discard = nbd_can_trim(b->nbd) == 1,
				      .can_write_zeroes = nbd_can_zero(b->nbd) == 1};
	return 0;
}

/* The server ends when its one client has said goodbye; libnbd waits for it. */
static void nbd_close_image(struct block *b)
{
	if (!b->nbd)
		return;
	if (nbd_aio_is_ready(b->nbd))
		nbd_shutdown(b->nbd, 0);
	nbd_close(b->nbd);
}

const struct block_ops block_nbd_ops = {nbd_open_image, nbd_execute, nbd_close_image, 1};
