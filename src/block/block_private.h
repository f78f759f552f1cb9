/* What the files of block/ say to each other. Private to block/. */
#pragma once

#include "block/block.h"

struct block_workers;
struct block_uring;
struct nbd;

/* What can be behind an image. */
struct block_ops {
	/* Fills b->info. */
	int (*open)(struct block *b, const struct block_config *c, struct error *e);
	/* 0 or -errno; from any thread, several at a time. */
	int (*execute)(struct block *b, const struct block_request *r);
	void (*close)(struct block *b);
	unsigned thread_count; /* that are worth having */
};

struct block {
	const struct block_ops *ops;
	struct block_info info;
	struct block_config config; /* `path` is not ours after block_open() */
	int fd;			    /* raw; -1 */
	bool is_device;		    /* raw: a block device, not a file */
	struct nbd *nbd;
	struct block_workers *workers;
	struct block_uring *uring;
	unsigned in_flight;
};

extern const struct block_ops block_raw_ops, block_nbd_ops;

/* Is it inside the image, and does it have to be done at all? 1: do it; 0 or -errno is the result.
 */
int block_check(const struct block *b, const struct block_request *r);
/* Checked, done, with the rules of the cache. */
int block_do(struct block *b, const struct block_request *r);
/* Copies a part of the pieces' list: from `offset` on. Returns how many. */
unsigned block_pieces(const struct block_request *r, uint64_t offset, struct iovec *out,
		      unsigned out_max);

/* ---- threads.c ---- */
int block_workers_create(struct block_workers **out, struct block *b, unsigned count,
			 struct error *e);
void block_workers_destroy(struct block_workers *w);
int block_workers_fd(const struct block_workers *w);
void block_workers_submit(struct block_workers *w, struct block_request *r);
unsigned block_workers_reap(struct block_workers *w, bool must_wait);

/* ---- nbd_server.c ---- */
struct nbd_server {
	int pid; /* 0: none */
	int fd;	 /* the connection to it */
};

/* argv[0] is looked for in PATH. */
int nbd_server_start(struct nbd_server *s, const char *const *argv, struct error *e);
/* When the connection is closed: waits for its end, and makes one of it after `grace_ms`. */
void nbd_server_end(struct nbd_server *s, unsigned grace_ms);

/* ---- uring.c; raw images only ---- */
int block_uring_create(struct block_uring **out, struct block *b, struct error *e);
void block_uring_destroy(struct block_uring *u);
int block_uring_fd(const struct block_uring *u);
void block_uring_submit(struct block_uring *u, struct block_request *r);
unsigned block_uring_reap(struct block_uring *u, bool must_wait);
