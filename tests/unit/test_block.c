/*
 * Images without a guest: what io_uring answers, or does not. The ring's submissions go through
 * this file (the linker's --wrap), which refuses them or changes what the kernel answered.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <liburing.h>
#include <cmocka.h>

#include "block/block.h"

#define IMAGE_BYTES (256u << 10)
#define REQUESTS 8

/* ---- the ring ---- */

static struct {
	int refused;	       /* -errno of the next submission; 0: none */
	int answer;	       /* what the next request comes to */
	bool is_changed;       /* whether `answer` counts */
	struct io_uring *last; /* borrowed */
} ring;

int __real_io_uring_submit(struct io_uring *r);
int __wrap_io_uring_submit(struct io_uring *r);

int __wrap_io_uring_submit(struct io_uring *r)
{
	struct io_uring_cqe *c;
	ring.last = r;
	if (ring.refused) {
		int code = ring.refused;
		ring.refused = 0;
		return code;
	}
	int n = __real_io_uring_submit(r);
	if (ring.is_changed && n > 0 && !io_uring_wait_cqe(r, &c)) {
		c->res = ring.answer;
		ring.is_changed = false;
	}
	return n;
}

/* ---- an image ---- */

static void make_image(char *path)
{
	uint8_t bytes[IMAGE_BYTES];
	int fd = mkstemp(strcpy(path, "/tmp/gnomon-block-XXXXXX"));
	for (unsigned i = 0; i < IMAGE_BYTES; i++)
		bytes[i] = (uint8_t)(i >> 9 ^ i);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), IMAGE_BYTES);
	close(fd);
}

static struct block *open_block(const struct block_config *c)
{
	struct block *b = NULL;
	struct error e = {0};
	const char *name;
	if (block_open(&b, c, &e) || block_start(b, &name, &e))
		fail_msg("%s", e.text);
	return b;
}

static void is_done(struct block_request *r)
{
	(*(unsigned *)r->opaque)++;
}

/* As the machine does: submitted, announced by the file, reaped. */
static int carry_out(struct block *b, enum block_op op, uint64_t at, uint8_t *bytes, size_t count)
{
	unsigned done = 0;
	struct iovec piece = {bytes, count};
	struct block_request r = {.op = op,
				  .offset = at,
				  .size_bytes = count,
				  .pieces = &piece,
				  .piece_count = count ? 1 : 0,
				  .result = 1,
				  .done = is_done,
				  .opaque = &done};
	block_submit(b, &r);
	while (!done) {
		struct pollfd p = {.fd = block_fd(b), .events = POLLIN};
		assert_int_equal(poll(&p, 1, 5000), 1);
		block_reap(b);
	}
	assert_int_equal(done, 1);
	return r.result;
}

/* A host without io_uring is no host to test it on: said, not passed over. */
static bool has_ring(void)
{
	struct io_uring r;
	if (!io_uring_queue_init(4, &r, 0)) {
		io_uring_queue_exit(&r);
		return true;
	}
	print_message("this host gives no io_uring\n");
	return false;
}

static void expect(const uint8_t *bytes, uint64_t at, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (bytes[i] != (uint8_t)((at + i) >> 9 ^ (at + i)))
			fail_msg("byte %zu is %u", i, bytes[i]);
}

/* ---- io_uring ---- */

static const enum block_op ops[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH};

static void test_ring_errors(void **state)
{
	static const int errors[] = {EIO, ENOSPC, EDQUOT, EFBIG, ENOMEM, EBADF, ENXIO, ECANCELED};
	char path[32];
	uint8_t bytes[4096] = {0};
	if (!has_ring())
		skip();
	make_image(path);
	struct block *b = open_block(&(struct block_config){.path = path, .aio = BLOCK_AIO_URING});
	for (size_t k = 0; k < ARRAY_COUNT(ops); k++)
		for (size_t i = 0; i < ARRAY_COUNT(errors); i++) {
			size_t count = ops[k] == BLOCK_FLUSH ? 0 : sizeof(bytes);
			ring.is_changed = true;
			ring.answer = -errors[i];
			assert_int_equal(carry_out(b, ops[k], 0, bytes, count), -errors[i]);
			assert_false(ring.is_changed);
			assert_int_equal(carry_out(b, ops[k], 0, bytes, count), 0);
		}
	block_close(b);
	unlink(path);
}

/* What is to be done again, or was done in part, is done whole; what the kernel does not take is
 * done without it, and the ring works on. */
static void test_ring_is_slow(void **state)
{
	static const int answers[] = {-EINTR, -EAGAIN, 1, 511, 512, 4095};
	static const int refusals[] = {-EAGAIN, -ENOMEM, -EBUSY, -EINTR};
	char path[32];
	uint8_t bytes[4096];
	if (!has_ring())
		skip();
	make_image(path);
	struct block *b = open_block(&(struct block_config){.path = path, .aio = BLOCK_AIO_URING});
	for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
		ring.is_changed = true;
		ring.answer = answers[i];
		memset(bytes, 0, sizeof(bytes));
		assert_int_equal(carry_out(b, BLOCK_READ, 4096, bytes, sizeof(bytes)), 0);
		expect(bytes, 4096, sizeof(bytes));
	}
	/* The end of the file, where there was none. */
	ring.is_changed = true;
	ring.answer = 0;
	assert_int_equal(carry_out(b, BLOCK_READ, 4096, bytes, sizeof(bytes)), 0);
	for (size_t i = 0; i < ARRAY_COUNT(refusals); i++)
		for (unsigned round = 0; round < 2; round++) {
			ring.refused = round ? 0 : refusals[i];
			memset(bytes, 0, sizeof(bytes));
			assert_int_equal(carry_out(b, BLOCK_READ, 8192, bytes, sizeof(bytes)), 0);
			expect(bytes, 8192, sizeof(bytes));
			assert_int_equal(carry_out(b, BLOCK_FLUSH, 0, NULL, 0), 0);
		}
	block_close(b);
	unlink(path);
}

/* Many at once, of which the kernel takes some; waited for as a snapshot does. */
static void test_ring_drains(void **state)
{
	static uint8_t bytes[REQUESTS][4096];
	char path[32];
	unsigned done = 0;
	struct block_request r[REQUESTS];
	struct iovec pieces[REQUESTS];
	if (!has_ring())
		skip();
	make_image(path);
	struct block *b = open_block(&(struct block_config){.path = path, .aio = BLOCK_AIO_URING});
	for (unsigned i = 0; i < REQUESTS; i++) {
		pieces[i] = (struct iovec){bytes[i], sizeof(bytes[i])};
		r[i] = (struct block_request){.op = BLOCK_READ,
					      .offset = 4096 * i,
					      .size_bytes = 4096,
					      .pieces = &pieces[i],
					      .piece_count = 1,
					      .done = is_done,
					      .opaque = &done};
		ring.refused = i % 3 ? 0 : -EAGAIN;
		block_submit(b, &r[i]);
	}
	block_drain(b);
	assert_int_equal(done, REQUESTS);
	for (unsigned i = 0; i < REQUESTS; i++) {
		assert_int_equal(r[i].result, 0);
		expect(bytes[i], 4096 * i, 4096);
	}
	block_close(b);
	unlink(path);
}

/* What a sandbox forbids is not to be had through the ring. */
static void test_ring_is_restricted(void **state)
{
	char path[32];
	uint8_t bytes[512];
	struct io_uring_cqe *c;
	if (!has_ring())
		skip();
	make_image(path);
	struct block *b = open_block(&(struct block_config){.path = path, .aio = BLOCK_AIO_URING});
	assert_int_equal(carry_out(b, BLOCK_READ, 0, bytes, sizeof(bytes)), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct io_uring_sqe *s = io_uring_get_sqe(ring.last);
		if (i == 0)
			io_uring_prep_openat(s, -1, "/etc/passwd", 0, 0);
		else if (i == 1)
			io_uring_prep_socket(s, 2, 1, 0, 0);
		else
			io_uring_prep_unlinkat(s, -1, path, 0);
		assert_int_equal(__real_io_uring_submit(ring.last), 1);
		assert_int_equal(io_uring_wait_cqe(ring.last, &c), 0);
		assert_int_equal(c->res, -EACCES);
		io_uring_cqe_seen(ring.last, c);
	}
	block_close(b);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring_errors),
		cmocka_unit_test(test_ring_is_slow),
		cmocka_unit_test(test_ring_drains),
		cmocka_unit_test(test_ring_is_restricted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
