/*
 * Disk images: what is behind a guest's disk on the host. Raw files and block devices are read and
 * written here; every other format, and what is written to none, by qemu-nbd, over a socket
 * (nbd.c).
 *
 * A request is done at once by block_execute(), or later: block_submit() hands it to the kernel
 * (io_uring) or to threads, block_fd() becomes readable when something has finished, and
 * block_reap() calls `done` on the caller's thread. One request never touches bytes outside the
 * image; whatever the host answers (a full disk, a bad sector, a short read, an interrupted call)
 * ends in its `result`.
 *
 * An image that is written belongs to one opener: a lock keeps others out, in this process or in
 * another. Errors of block_open() name the file.
 *
 * Locking: one thread uses a struct block. The worker threads are private.
 */
#pragma once

#include <sys/uio.h>

#include "base/error.h"
#include "base/types.h"

struct block;

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

struct block_request {
	enum block_op op;
	bool may_discard; /* BLOCK_WRITE_ZEROES: the space may be given back */
	uint64_t offset, size_bytes;
	const struct iovec *pieces; /* borrowed until it is done; their sum is size_bytes */
	unsigned piece_count;
	int result;			       /* 0 or -errno */
	void (*done)(struct block_request *r); /* for block_submit() */
	void *opaque;
	struct block_request *next; /* ours while it is under way */
};

enum block_format { BLOCK_RAW, BLOCK_QCOW2, BLOCK_VMDK, BLOCK_VHDX, BLOCK_VDI };
enum block_cache {
	BLOCK_WRITEBACK,    /* the host's page cache; a flush makes it last */
	BLOCK_WRITETHROUGH, /* every write lasts when it is done */
	BLOCK_UNSAFE,	    /* flushes are ignored */
	BLOCK_NONE,	    /* not the host's page cache; through qemu-nbd */
	BLOCK_DIRECTSYNC,   /* that, and every write lasts */
};
enum block_aio { BLOCK_AIO_AUTO, BLOCK_AIO_URING, BLOCK_AIO_THREADS };

extern const char *const block_format_names[], *const block_cache_names[], *const block_aio_names[];

struct block_config {
	const char *path;
	enum block_format format;
	enum block_cache cache;
	enum block_aio aio; /* auto: io_uring where the host lets us, else threads */
	bool is_read_only;
	bool is_temporary; /* what is written is kept aside and forgotten at the end; through
			      qemu-nbd */
	unsigned
		answer_ms; /* not raw: after so long without an answer requests fail; 0: a minute */
};

struct block_info {
	uint64_t size_bytes;   /* a multiple of 512 */
	uint32_t sector_bytes; /* the smallest that is written without reading */
	bool can_discard, can_write_zeroes;
};

int block_open(struct block **out, const struct block_config *c, struct error *e);
void block_close(struct block *b); /* after block_drain(); block_close(NULL) is legal */
const struct block_info *block_info(const struct block *b);

/* Returns r->result. */
int block_execute(struct block *b, struct block_request *r);

/* Makes block_submit() possible: threads or a ring. "io_uring" or "threads" in *name (may be NULL).
 */
int block_start(struct block *b, const char **name, struct error *e);
int block_fd(const struct block *b);
/* At most BLOCK_IN_FLIGHT_MAX at a time. */
void block_submit(struct block *b, struct block_request *r);
#define BLOCK_IN_FLIGHT_MAX 256
/* Ends what has finished; returns how many. */
unsigned block_reap(struct block *b);
/* Waits for all and ends them. */
void block_drain(struct block *b);
