/*
 * Images without a guest: opening, qemu-nbd, and what io_uring answers or does not. The ring's
 * submissions go through this file (the linker's --wrap), which refuses them or changes what the
 * kernel answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
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

/* ---- opening ---- */

static void refuses(const struct block_config *c, const char *text)
{
	struct block *b = NULL;
	struct error e = {0};
	assert_true(block_open(&b, c, &e) < 0);
	if (!strstr(e.text, text))
		fail_msg("'%s' does not say '%s'", e.text, text);
}

static void test_locks(void **state)
{
	char path[32];
	struct block *writer, *reader, *second;
	struct error e = {0};
	make_image(path);
	struct block_config c = {.path = path}, ro = {.path = path, .is_read_only = true};
	assert_int_equal(block_open(&writer, &c, &e), 0);
	refuses(&c, "in use by another machine; several may share it with readonly=on");
	refuses(&ro, "in use by another machine, which writes to it");
	block_close(writer);
	assert_int_equal(block_open(&reader, &ro, &e), 0);
	assert_int_equal(block_open(&second, &ro, &e), 0);
	refuses(&c, "in use by another machine");
	block_close(reader);
	block_close(second);
	unlink(path);
}

static void test_what_is_no_disk(void **state)
{
	char path[32];
	make_image(path);
	struct block_config c = {.path = path};
	assert_int_equal(truncate(path, 1000), 0);
	refuses(&c, "multiple of 512");
	assert_int_equal(truncate(path, 0), 0);
	refuses(&c, "multiple of 512");
	int fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "QFI\xfb", 4, 0), 4);
	close(fd);
	assert_int_equal(truncate(path, 4096), 0);
	refuses(&c, "is a qcow2 image; say format=qcow2");
	c.path = "/tmp";
	refuses(&c, "cannot open '/tmp'");
	c.path = "/dev/null";
	refuses(&c, "neither a file nor a block device");
	c.path = "/nonexistent/disk";
	refuses(&c, "cannot open '/nonexistent/disk': No such file");
	unlink(path);
}

/* ---- block devices: a loop device, which only root can make ---- */

static bool loop_open(const char *file, char *device, size_t size)
{
	char command[80];
	snprintf(command, sizeof(command), "losetup -f --show %s 2>/dev/null", file);
	FILE *f = popen(command, "r");
	assert_non_null(f);
	bool is_open = fgets(device, (int)size, f) != NULL;
	pclose(f);
	if (!is_open)
		print_message(
			"no loop devices here (root makes them): no block device is tested\n");
	else
		device[strcspn(device, "\n")] = 0;
	return is_open;
}

static bool is_all(const char *path, uint64_t at, size_t count, uint8_t value)
{
	uint8_t bytes[4096];
	int fd = open(path, O_RDONLY);
	assert_true(count <= sizeof(bytes));
	assert_int_equal(pread(fd, bytes, count, (off_t)at), count);
	close(fd);
	for (size_t i = 0; i < count; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

static void work_on_device(const char *device, const char *file, enum block_aio aio)
{
	uint8_t bytes[4096];
	struct error e = {0};
	struct block *second;
	const struct block_config c = {.path = device, .aio = aio};
	struct block *b = open_block(&c);
	assert_int_equal(block_info(b)->size_bytes, IMAGE_BYTES);
	assert_int_equal(block_open(&second, &c, &e), -EBUSY);
	memset(bytes, 0x42, sizeof(bytes));
	assert_int_equal(carry_out(b, BLOCK_WRITE, 8192, bytes, sizeof(bytes)), 0);
	assert_int_equal(carry_out(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_true(is_all(file, 8192, sizeof(bytes), 0x42));
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(carry_out(b, BLOCK_READ, 8192, bytes, sizeof(bytes)), 0);
	assert_int_equal(bytes[4095], 0x42);
	for (enum block_op op = BLOCK_DISCARD; op <= BLOCK_WRITE_ZEROES; op++) {
		memset(bytes, 0x17, sizeof(bytes));
		assert_int_equal(carry_out(b, BLOCK_WRITE, 8192, bytes, sizeof(bytes)), 0);
		assert_int_equal(carry_out(b, op, 8192, NULL, 4096), 0);
		assert_int_equal(carry_out(b, BLOCK_FLUSH, 0, NULL, 0), 0);
		assert_true(is_all(file, 8192, sizeof(bytes), 0));
	}
	assert_int_equal(carry_out(b, BLOCK_READ, IMAGE_BYTES, bytes, 512), -ERANGE);
	block_close(b);
}

static void test_block_device(void **state)
{
	char path[32], device[64], command[80];
	make_image(path);
	bool has_device = loop_open(path, device, sizeof(device));
	if (has_device) {
		work_on_device(device, path, BLOCK_AIO_AUTO);
		work_on_device(device, path, BLOCK_AIO_THREADS);
		snprintf(command, sizeof(command), "losetup -d %s", device);
		assert_int_equal(system(command), 0);
	}
	unlink(path);
	if (!has_device)
		skip();
}

/* ---- through qemu-nbd, if there is one ---- */

struct image {
	char folder[32], path[64];
};

static bool make_qcow2(struct image *i)
{
	char command[160];
	if (system("command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null")) {
		print_message("qemu-nbd (Debian: qemu-utils) is not installed: no qcow2\n");
		return false;
	}
	assert_non_null(mkdtemp(strcpy(i->folder, "/tmp/gnomon-qcow2-XXXXXX")));
	snprintf(i->path, sizeof(i->path), "%s/disk.qcow2", i->folder);
	snprintf(command, sizeof(command), "qemu-img create -q -f qcow2 %s 64M", i->path);
	assert_int_equal(system(command), 0);
	return true;
}

static void remove_image(const struct image *i)
{
	assert_int_equal(unlink(i->path), 0);
	assert_int_equal(rmdir(i->folder), 0);
}

static void test_qcow2(void **state)
{
	struct image image;
	struct error e = {0};
	struct block *b;
	uint8_t bytes[1024], read[1024];
	if (!make_qcow2(&image))
		skip();
	struct block_config c = {.path = image.path, .format = BLOCK_QCOW2};
	memset(bytes, 0x42, sizeof(bytes));
	for (unsigned round = 0; round < 2; round++) {
		struct iovec out = {bytes, sizeof(bytes)}, in = {read, sizeof(read)};
		struct block_request w = {.op = BLOCK_WRITE,
					  .offset = 1 << 20,
					  .size_bytes = 1024,
					  .pieces = &out,
					  .piece_count = 1};
		struct block_request r = w, flush = {.op = BLOCK_FLUSH};
		r.op = BLOCK_READ;
		r.pieces = &in;
		if (block_open(&b, &c, &e))
			fail_msg("%s", e.text);
		assert_int_equal(block_info(b)->size_bytes, 64 << 20);
		if (!round)
			assert_int_equal(block_execute(b, &w), 0);
		assert_int_equal(block_execute(b, &flush), 0);
		assert_int_equal(block_execute(b, &r), 0);
		assert_memory_equal(bytes, read, sizeof(read));
		block_close(b);
	}
	c.format = BLOCK_VHDX;
	refuses(&c, "qemu-nbd cannot open");
	remove_image(&image);
}

/* Past the host's cache, with buffers and places that no disk would take. */
static void test_direct(void **state)
{
	static const enum block_cache kinds[] = {BLOCK_NONE, BLOCK_DIRECTSYNC};
	char path[32];
	uint8_t bytes[4096];
	if (system("command -v qemu-nbd >/dev/null")) {
		print_message("qemu-nbd (Debian: qemu-utils) is not installed: no cache=none\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
		make_image(path);
		struct block *b =
			open_block(&(struct block_config){.path = path, .cache = kinds[i]});
		assert_int_equal(carry_out(b, BLOCK_READ, 512, bytes + 1, 1024), 0);
		expect(bytes + 1, 512, 1024);
		memset(bytes, 0x42, sizeof(bytes));
		assert_int_equal(carry_out(b, BLOCK_WRITE, 1536, bytes + 3, 512), 0);
		assert_int_equal(carry_out(b, BLOCK_FLUSH, 0, NULL, 0), 0);
		block_close(b);
		assert_true(is_all(path, 1536, 512, 0x42));
		assert_false(is_all(path, 1536, 513, 0x42));
		unlink(path);
	}
}

/* What is written is there for who wrote it, and for nobody else. */
static void test_temporary(void **state)
{
	char path[32];
	uint8_t bytes[4096];
	if (system("command -v qemu-nbd >/dev/null")) {
		print_message("qemu-nbd (Debian: qemu-utils) is not installed: no snapshot=on\n");
		skip();
	}
	make_image(path);
	const struct block_config c = {.path = path, .is_temporary = true};
	struct block *first = open_block(&c), *second = open_block(&c);
	memset(bytes, 0x42, sizeof(bytes));
	assert_int_equal(carry_out(first, BLOCK_WRITE, 4096, bytes, sizeof(bytes)), 0);
	assert_int_equal(carry_out(first, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(carry_out(second, BLOCK_READ, 4096, bytes, sizeof(bytes)), 0);
	expect(bytes, 4096, sizeof(bytes));
	assert_int_equal(carry_out(first, BLOCK_READ, 4096, bytes, sizeof(bytes)), 0);
	assert_int_equal(bytes[0], 0x42);
	assert_int_equal(bytes[4095], 0x42);
	block_close(first);
	block_close(second);
	struct block *raw = open_block(&(struct block_config){.path = path});
	assert_int_equal(carry_out(raw, BLOCK_READ, 4096, bytes, sizeof(bytes)), 0);
	expect(bytes, 4096, sizeof(bytes));
	block_close(raw);
	unlink(path);
}

/* Our only child. */
static pid_t server(void)
{
	char path[64];
	int pid = 0;
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &pid), 1);
	fclose(f);
	return pid;
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What is under way fails, and so does everything from then on. */
static void test_server_dies(void **state)
{
	struct image image;
	uint8_t bytes[4096];
	if (!make_qcow2(&image))
		skip();
	struct block *b =
		open_block(&(struct block_config){.path = image.path, .format = BLOCK_QCOW2});
	assert_int_equal(carry_out(b, BLOCK_WRITE, 0, bytes, sizeof(bytes)), 0);
	kill(server(), SIGKILL);
	for (unsigned i = 0; i < 3; i++)
		for (size_t k = 0; k < ARRAY_COUNT(ops); k++)
			assert_true(carry_out(b, ops[k], 0, bytes, sizeof(bytes)) < 0);
	block_drain(b);
	block_close(b);
	remove_image(&image);
}

/* Waited for as a snapshot, a reset and the end do: not for ever. A late answer changes nothing. */
static void test_server_hangs(void **state)
{
	struct image image;
	uint8_t bytes[4096] = {0};
	unsigned done = 0;
	if (!make_qcow2(&image))
		skip();
	struct block *b = open_block(&(struct block_config){
		.path = image.path, .format = BLOCK_QCOW2, .answer_ms = 200});
	memset(bytes, 0x42, sizeof(bytes));
	assert_int_equal(carry_out(b, BLOCK_WRITE, 0, bytes, sizeof(bytes)), 0);
	kill(server(), SIGSTOP);
	int64_t start = now_ms();
	struct iovec piece = {bytes, sizeof(bytes)};
	struct block_request r[REQUESTS];
	memset(bytes, 0, sizeof(bytes));
	for (unsigned i = 0; i < REQUESTS; i++) {
		r[i] = (struct block_request){.op = BLOCK_READ,
					      .size_bytes = sizeof(bytes),
					      .pieces = &piece,
					      .piece_count = 1,
					      .done = is_done,
					      .opaque = &done};
		block_submit(b, &r[i]);
	}
	block_drain(b);
	assert_in_range(now_ms() - start, 150, 2000);
	assert_int_equal(done, REQUESTS);
	for (unsigned i = 0; i < REQUESTS; i++)
		assert_true(r[i].result < 0);
	kill(server(), SIGCONT);
	assert_true(carry_out(b, BLOCK_READ, 0, bytes, sizeof(bytes)) < 0);
	for (size_t i = 0; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], 0);
	kill(server(), SIGSTOP);
	start = now_ms();
	block_close(b);
	assert_in_range(now_ms() - start, 0, 1000);
	remove_image(&image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring_errors),  cmocka_unit_test(test_ring_is_slow),
		cmocka_unit_test(test_ring_drains),  cmocka_unit_test(test_ring_is_restricted),
		cmocka_unit_test(test_locks),	     cmocka_unit_test(test_what_is_no_disk),
		cmocka_unit_test(test_block_device), cmocka_unit_test(test_temporary),
		cmocka_unit_test(test_direct),	     cmocka_unit_test(test_qcow2),
		cmocka_unit_test(test_server_dies),  cmocka_unit_test(test_server_hangs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
