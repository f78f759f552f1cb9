/*
 * Raw images through io_uring: reads, writes and flushes without a system call's wait. What the
 * kernel does in part, or asks to be done again, is finished here and now; so is what it does not
 * take at all, and what it has no operation for. No request waits for a later one.
 *
 * A ring carries out whatever it is asked to, past the sandbox's list of system calls. This one is
 * restricted to the operations below before its first.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "block/block_private.h"

struct block_uring {
	struct io_uring ring;
	struct block *block;		/* borrowed */
	struct block_request *finished; /* without the kernel */
	int fd;
	bool has_ring;
};

/* Plain calls: Debian 12's liburing declares functions for them that it does not export. */
static int restrict_and_enable(struct io_uring *ring)
{
	static const uint8_t operations[] = {IORING_OP_NOP, IORING_OP_READV, IORING_OP_WRITEV,
					     IORING_OP_FSYNC};
	struct io_uring_restriction only[ARRAY_COUNT(operations)] = {0};
	for (size_t i = 0; i < ARRAY_COUNT(operations); i++) {
		only[i].opcode = IORING_RESTRICTION_SQE_OP;
		only[i].sqe_op = operations[i];
	}
	int r = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, only,
				  ARRAY_COUNT(only));
	return r ? r
		 : io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
				     0);
}

static int open_ring(struct block_uring *u)
{
	u->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u->fd < 0)
		return -errno;
	int r = io_uring_queue_init(BLOCK_IN_FLIGHT_MAX, &u->ring, IORING_SETUP_R_DISABLED);
	u->has_ring = !r;
	if (!r)
		r = io_uring_register_eventfd(&u->ring, u->fd);
	return r ? r : restrict_and_enable(&u->ring);
}

int block_uring_create(struct block_uring **out, struct block *b, struct error *e)
{
	struct block_uring *u = calloc(1, sizeof(*u));
	if (!u)
		return error_set(e, -ENOMEM, "out of memory");
	u->block = b;
	int r = open_ring(u);
	if (r) {
		block_uring_destroy(u);
		return error_set(e, r, "the host gives no io_uring (%s); aio=threads works without",
				 strerror(-r));
	}
	*out = u;
	return 0;
}

void block_uring_destroy(struct block_uring *u)
{
	if (!u)
		return;
	if (u->has_ring)
		io_uring_queue_exit(&u->ring);
	if (u->fd >= 0)
		close(u->fd);
	free(u);
}

int block_uring_fd(const struct block_uring *u)
{
	return u->fd;
}

/* For the next reap, which the file announces. */
static void finish_here(struct block_uring *u, struct block_request *r, int result)
{
	const uint64_t one = 1;
	r->result = result;
	r->next = u->finished;
	u->finished = r;
	ssize_t ignored = write(u->fd, &one, sizeof(one));
	(void)ignored;
}

/* NULL if the kernel has no operation for it, or no place. */
static struct io_uring_sqe *prepare(struct block_uring *u, struct block_request *r)
{
	int fd = u->block->fd;
	struct io_uring_sqe *s = r->op <= BLOCK_FLUSH ? io_uring_get_sqe(&u->ring) : NULL;
	if (!s)
		return NULL;
	if (r->op == BLOCK_READ)
		io_uring_prep_readv(s, fd, r->pieces, r->piece_count, r->offset);
	else if (r->op == BLOCK_WRITE)
		io_uring_prep_writev(s, fd, r->pieces, r->piece_count, r->offset);
	else
		io_uring_prep_fsync(s, fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(s, r);
	return s;
}

/* What the kernel did not take (it has no memory, or it is told to wait) is in the ring and cannot
 * be called back: it becomes nothing, which goes along with a later request. */
static bool was_taken(struct block_uring *u, struct io_uring_sqe *s)
{
	while (io_uring_submit(&u->ring) == -EINTR)
		;
	if (!io_uring_sq_ready(&u->ring))
		return true;
	io_uring_prep_nop(s);
	io_uring_sqe_set_data(s, NULL);
	return false;
}

void block_uring_submit(struct block_uring *u, struct block_request *r)
{
	int result = block_check(u->block, r);
	if (result <= 0) {
		finish_here(u, r, result);
		return;
	}
	struct io_uring_sqe *s = prepare(u, r);
	if (!s || !was_taken(u, s))
		finish_here(u, r, u->block->ops->execute(u->block, r));
}

/* What is left after `done` bytes. */
static int finish_rest(struct block_uring *u, const struct block_request *r, uint64_t done)
{
	struct iovec pieces[BLOCK_IN_FLIGHT_MAX];
	struct block_request rest = *r;
	rest.offset += done;
	rest.size_bytes -= done;
	rest.piece_count = block_pieces(r, done, pieces, BLOCK_IN_FLIGHT_MAX);
	rest.pieces = pieces;
	return u->block->ops->execute(u->block, &rest);
}

static void complete(struct block_uring *u, struct block_request *r, int count)
{
	if (count == -EINTR || count == -EAGAIN)
		r->result = u->block->ops->execute(u->block, r);
	else if (count < 0)
		r->result = count;
	else if (r->op == BLOCK_FLUSH || (uint64_t)count == r->size_bytes)
		r->result = 0;
	else
		r->result = finish_rest(u, r, (uint64_t)count);
	u->block->in_flight--;
	r->done(r);
}

static unsigned take_finished(struct block_uring *u)
{
	unsigned n = 0;
	while (u->finished) {
		struct block_request *r = u->finished;
		u->finished = r->next;
		u->block->in_flight--;
		r->done(r);
		n++;
	}
	return n;
}

unsigned block_uring_reap(struct block_uring *u, bool must_wait)
{
	struct io_uring_cqe *c;
	uint64_t ignored_count;
	ssize_t ignored = read(u->fd, &ignored_count, sizeof(ignored_count));
	(void)ignored;
	unsigned n = take_finished(u);
	if (io_uring_sq_ready(&u->ring))
		io_uring_submit(&u->ring);
	if (must_wait && !n && io_uring_wait_cqe(&u->ring, &c))
		return 0;
	while (!io_uring_peek_cqe(&u->ring, &c)) {
		struct block_request *r = io_uring_cqe_get_data(c);
		int count = c->res;
		io_uring_cqe_seen(&u->ring, c);
		if (!r)
			continue;
		complete(u, r, count);
		n++;
	}
	return n;
}
