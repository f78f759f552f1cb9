/*
 * Disks: what requests do to an image, in the driver's order and under the host's errors. The
 * host's calls go through this file (the linker's --wrap), which fails or cuts them when it is
 * asked to.
 */
#include "virtio_world.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "block/block.h"

#define IMAGE_BYTES (256u << 10)
#define HEADER WORLD_TABLE
#define DATA WORLD_BUFFER
#define STATUS (WORLD_BUFFER + 0x10000)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2 };

/* ---- the host's calls ---- */

struct fault {
	int error;	  /* errno of the next calls; 0: none */
	unsigned count;	  /* how many of them fail */
	bool is_cut;	  /* transfers do one byte less than asked, at least one */
	unsigned flushes; /* seen */
};
static struct fault fault;

ssize_t __real_preadv64(int fd, const struct iovec *v, int n, off_t at);
ssize_t __real_pwritev64(int fd, const struct iovec *v, int n, off_t at);
int __real_fdatasync(int fd);
int __real_fallocate64(int fd, int mode, off_t at, off_t count);
ssize_t __wrap_preadv64(int fd, const struct iovec *v, int n, off_t at);
ssize_t __wrap_pwritev64(int fd, const struct iovec *v, int n, off_t at);
int __wrap_fdatasync(int fd);
int __wrap_fallocate64(int fd, int mode, off_t at, off_t count);

static bool must_fail(void)
{
	if (!fault.error || !fault.count)
		return false;
	fault.count--;
	errno = fault.error;
	return true;
}

/* Half of the first piece. */
static struct iovec cut(const struct iovec *v)
{
	return (struct iovec){v->iov_base, v->iov_len > 1 ? v->iov_len / 2 : 1};
}

ssize_t __wrap_preadv64(int fd, const struct iovec *v, int n, off_t at)
{
	struct iovec part = cut(v);
	if (must_fail())
		return -1;
	return fault.is_cut ? __real_preadv64(fd, &part, 1, at) : __real_preadv64(fd, v, n, at);
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *v, int n, off_t at)
{
	struct iovec part = cut(v);
	if (must_fail())
		return -1;
	return fault.is_cut ? __real_pwritev64(fd, &part, 1, at) : __real_pwritev64(fd, v, n, at);
}

int __wrap_fdatasync(int fd)
{
	fault.flushes++;
	return must_fail() ? -1 : __real_fdatasync(fd);
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t count)
{
	return must_fail() ? -1 : __real_fallocate64(fd, mode, at, count);
}

/* ---- a disk ---- */

struct disk {
	struct virtio_world w;
	char path[32];
	uint64_t features;
};

#define ALL_FEATURES (VIRTIO_F_INDIRECT | 1u << 9 | 1u << 13 | 1u << 14)

static void make_image(struct disk *d)
{
	strcpy(d->path, "/tmp/gnomon-disk-XXXXXX");
	int fd = mkstemp(d->path);
	uint8_t bytes[IMAGE_BYTES];
	for (unsigned i = 0; i < IMAGE_BYTES; i++)
		bytes[i] = (uint8_t)(i >> 9 ^ i);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), IMAGE_BYTES);
	close(fd);
}

static void open_disk(struct disk *d, const char *options, enum clock_kind kind)
{
	char text[128];
	fault = (struct fault){0};
	make_image(d);
	snprintf(text, sizeof(text), "%s%s", d->path, options);
	world_open_at(&d->w, "blk", text, kind);
	d->features = ALL_FEATURES & d->w.device->offered;
	world_start(&d->w, d->features);
}

static void close_disk(struct disk *d)
{
	world_close(&d->w);
	unlink(d->path);
}

static void add_request(struct disk *d, uint32_t type, uint64_t sector, uint32_t out, uint32_t in)
{
	struct world_segment s[3] = {{HEADER, 16, false}};
	unsigned n = 1;
	uint8_t header[16] = {0}, status = 0xee;
	memcpy(header, &type, 4);
	memcpy(header + 8, &sector, 8);
	put(&d->w, HEADER, header, sizeof(header));
	put(&d->w, STATUS, &status, 1);
	if (out)
		s[n++] = (struct world_segment){DATA, out, false};
	if (in)
		s[n++] = (struct world_segment){DATA, in, true};
	s[n++] = (struct world_segment){STATUS, 1, true};
	world_add(&d->w, 0, s, n);
}

/* Waits for what is under way, as the run loop would. */
static void wait_for(struct disk *d)
{
	while (d->w.device->in_flight) {
		struct pollfd p = {.fd = d->w.watched_fd, .events = POLLIN};
		assert_int_equal(ppoll(&p, 1, NULL, NULL), 1);
		d->w.ready(d->w.device, p.fd);
	}
}

static uint8_t status_of(struct disk *d, unsigned descriptors)
{
	uint16_t id;
	uint32_t written;
	uint8_t status;
	assert_true(world_used(&d->w, 0, descriptors, &id, &written));
	get(&d->w, STATUS, &status, 1);
	return status;
}

static uint8_t request(struct disk *d, uint32_t type, uint64_t sector, uint32_t out, uint32_t in)
{
	add_request(d, type, sector, out, in);
	world_kick(&d->w, 0);
	wait_for(d);
	return status_of(d, 2 + !!out + !!in);
}

static void image_bytes(struct disk *d, uint64_t at, uint8_t *bytes, size_t count)
{
	int fd = open(d->path, O_RDONLY);
	assert_int_equal(pread(fd, bytes, count, (off_t)at), count);
	close(fd);
}

static void fill_data(struct disk *d, uint8_t value, size_t count)
{
	uint8_t bytes[8192];
	memset(bytes, value, sizeof(bytes));
	put(&d->w, DATA, bytes, count);
}

static void range(struct disk *d, uint64_t sector, uint32_t count, uint32_t flags)
{
	uint8_t bytes[16];
	memcpy(bytes, &sector, 8);
	memcpy(bytes + 8, &count, 4);
	memcpy(bytes + 12, &flags, 4);
	put(&d->w, DATA, bytes, sizeof(bytes));
}

/* ---- requests, at once and by each engine ---- */

static void requests_with(const char *options, enum clock_kind kind)
{
	struct disk d;
	uint8_t data[4096], image[4096];
	open_disk(&d, options, kind);
	assert_int_equal(request(&d, IN, 8, 0, 4096), OK);
	get(&d.w, DATA, data, 4096);
	image_bytes(&d, 4096, image, 4096);
	assert_memory_equal(data, image, 4096);

	fill_data(&d, 0x5a, 4096);
	assert_int_equal(request(&d, OUT, 16, 4096, 0), OK);
	image_bytes(&d, 8192, image, 4096);
	memset(data, 0x5a, sizeof(data));
	assert_memory_equal(data, image, 4096);
	assert_int_equal(request(&d, FLUSH, 0, 0, 0), OK);

	range(&d, 16, 8, 0);
	assert_int_equal(request(&d, DISCARD, 0, 16, 0), OK);
	image_bytes(&d, 8192, image, 4096);
	memset(data, 0, sizeof(data));
	assert_memory_equal(data, image, 4096);
	for (uint32_t unmap = 0; unmap < 2; unmap++) {
		range(&d, 24, 8, unmap);
		assert_int_equal(request(&d, ZEROES, 0, 16, 0), OK);
		image_bytes(&d, 12288, image, 4096);
		assert_memory_equal(data, image, 4096);
		fill_data(&d, 0x5a, 4096);
		assert_int_equal(request(&d, OUT, 24, 4096, 0), OK);
	}
	assert_true(d.w.interrupts[0] >= 8);
	close_disk(&d);
}

static void test_requests(void **state)
{
	requests_with("", CLOCK_VIRTUAL);
	requests_with(",packed=off", CLOCK_VIRTUAL);
	requests_with(",aio=threads", CLOCK_REAL);
	requests_with("", CLOCK_REAL);
	requests_with(",cache=writethrough", CLOCK_REAL);
}

/* In pieces of odd sizes, header and data in one descriptor, an indirect table. */
static void test_any_layout(void **state)
{
	struct disk d;
	uint8_t data[1024], image[1024], header[16] = {IN};
	open_disk(&d, "", CLOCK_VIRTUAL);
	header[8] = 3;
	put(&d.w, HEADER, header, sizeof(header));
	const struct world_segment s[] = {{HEADER, 7, false},	   {HEADER + 7, 9, false},
					  {DATA, 1, true},	   {DATA + 1, 511, true},
					  {DATA + 512, 100, true}, {DATA + 612, 413, true}};
	world_add_indirect(&d.w, 0, HEADER + 0x1000, s, ARRAY_COUNT(s));
	world_kick(&d.w, 0);
	uint16_t id;
	uint32_t written;
	assert_true(world_used(&d.w, 0, 1, &id, &written));
	assert_int_equal(written, 1025);
	get(&d.w, DATA, data, 1024);
	image_bytes(&d, 3 * 512, image, 1024);
	assert_memory_equal(data, image, 1024);
	get(&d.w, DATA + 1024, data, 1);
	assert_int_equal(data[0], OK);
	close_disk(&d);
}

static void test_what_is_refused(void **state)
{
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t out, in;
		uint8_t status;
	} rows[] = {
		{IN, IMAGE_BYTES / 512, 0, 512, IOERR},
		{IN, IMAGE_BYTES / 512 - 1, 0, 1024, IOERR},
		{IN, UINT64_MAX, 0, 512, IOERR},
		{IN, 1ull << 55, 0, 512, IOERR},
		{IN, 0, 0, 100, IOERR},
		{OUT, UINT64_MAX - 1, 1024, 0, IOERR},
		{OUT, IMAGE_BYTES / 512, 512, 0, IOERR},
		{2, 0, 0, 512, UNSUPP},
		{GET_ID, 0, 0, 19, IOERR},
		{DISCARD, 0, 8, 0, IOERR},
		{DISCARD, 0, 32, 0, IOERR},
		{UINT32_MAX, 0, 0, 512, UNSUPP},
	};
	struct disk d;
	uint8_t before[IMAGE_BYTES], after[IMAGE_BYTES];
	open_disk(&d, "", CLOCK_VIRTUAL);
	image_bytes(&d, 0, before, sizeof(before));
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		assert_int_equal(request(&d, rows[i].type, rows[i].sector, rows[i].out, rows[i].in),
				 rows[i].status);
	range(&d, IMAGE_BYTES / 512 - 1, 2, 0);
	assert_int_equal(request(&d, DISCARD, 0, 16, 0), IOERR);
	range(&d, UINT64_MAX, 2, 0);
	assert_int_equal(request(&d, ZEROES, 0, 16, 0), IOERR);
	range(&d, 0, UINT32_MAX, 0);
	assert_int_equal(request(&d, ZEROES, 0, 16, 0), IOERR);
	range(&d, 0, 8, 1);
	assert_int_equal(request(&d, DISCARD, 0, 16, 0), UNSUPP);
	range(&d, 0, 8, 4);
	assert_int_equal(request(&d, ZEROES, 0, 16, 0), UNSUPP);
	assert_false(world_needs_reset(&d.w));
	image_bytes(&d, 0, after, sizeof(after));
	assert_memory_equal(before, after, sizeof(before));
	/* Without room for the status there is nobody to tell but the whole device. */
	world_add(&d.w, 0, &(struct world_segment){HEADER, 16, false}, 1);
	world_kick(&d.w, 0);
	assert_true(world_needs_reset(&d.w));
	close_disk(&d);
}

static void test_read_only_and_serial(void **state)
{
	struct disk d;
	char id[21] = "";
	open_disk(&d, ",readonly=on,serial=gnomon-1", CLOCK_VIRTUAL);
	assert_true(d.w.device->offered & 1u << 5);
	assert_false(d.w.device->offered & (1u << 13 | 1u << 14));
	assert_int_equal(request(&d, OUT, 0, 512, 0), IOERR);
	range(&d, 0, 8, 0);
	assert_int_equal(request(&d, DISCARD, 0, 16, 0), UNSUPP);
	assert_int_equal(request(&d, FLUSH, 0, 0, 0), OK);
	assert_int_equal(request(&d, GET_ID, 0, 0, 20), OK);
	get(&d.w, DATA, id, 20);
	assert_string_equal(id, "gnomon-1");
	close_disk(&d);
}

/* A driver that knows no flush has a disk on which every write lasts. */
static void test_without_flush(void **state)
{
	static const enum clock_kind kinds[] = {CLOCK_VIRTUAL, CLOCK_REAL};
	for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
		struct disk d;
		open_disk(&d, ",aio=threads", kinds[i]);
		assert_int_equal(request(&d, OUT, 0, 512, 0), OK);
		assert_int_equal(fault.flushes, 0);
		world_start(&d.w, d.features & ~(1ull << 9));
		assert_int_equal(request(&d, OUT, 0, 512, 0), OK);
		assert_int_equal(fault.flushes, 1);
		fault.error = EIO;
		fault.count = 1;
		assert_int_equal(request(&d, OUT, 0, 512, 0), IOERR);
		close_disk(&d);
	}
}

/* ---- the host's errors ---- */

static const uint32_t kinds_of_request[] = {IN, OUT, FLUSH, DISCARD, ZEROES};

static uint8_t request_of(struct disk *d, uint32_t type)
{
	range(d, 0, 8, 1 & (type == ZEROES));
	uint32_t out = type == OUT ? 512 : type >= DISCARD ? 16 : 0;
	return request(d, type, 0, out, type == IN ? 512 : 0);
}

static void test_host_errors(void **state)
{
	static const int errors[] = {EIO, ENOSPC, EDQUOT, EFBIG, ENOMEM, EBADF, ENXIO};
	static const enum clock_kind clocks[] = {CLOCK_VIRTUAL, CLOCK_REAL};
	for (size_t c = 0; c < ARRAY_COUNT(clocks); c++) {
		struct disk d;
		open_disk(&d, ",aio=threads", clocks[c]);
		for (size_t k = 0; k < ARRAY_COUNT(kinds_of_request); k++)
			for (size_t i = 0; i < ARRAY_COUNT(errors); i++) {
				fault.error = errors[i];
				fault.count = 1;
				assert_int_equal(request_of(&d, kinds_of_request[k]), IOERR);
				assert_int_equal(fault.count, 0);
				assert_int_equal(request_of(&d, kinds_of_request[k]), OK);
			}
		assert_false(world_needs_reset(&d.w));
		close_disk(&d);
	}
}

/* Interrupted calls are made again, unsupported ones done another way, short ones continued. */
static void test_host_is_slow(void **state)
{
	struct disk d;
	uint8_t data[4096], image[4096];
	open_disk(&d, "", CLOCK_VIRTUAL);
	for (size_t k = 0; k < ARRAY_COUNT(kinds_of_request); k++) {
		fault.error = EINTR;
		fault.count = 5;
		assert_int_equal(request_of(&d, kinds_of_request[k]), OK);
		assert_int_equal(fault.count, 0);
	}
	fault = (struct fault){.error = EOPNOTSUPP, .count = 1};
	assert_int_equal(request_of(&d, DISCARD), OK);
	fault = (struct fault){.error = EOPNOTSUPP, .count = 2};
	fill_data(&d, 0x77, 4096);
	assert_int_equal(request(&d, OUT, 0, 4096, 0), IOERR); /* not for a write */
	fault = (struct fault){0};
	assert_int_equal(request(&d, OUT, 0, 4096, 0), OK);
	fault = (struct fault){.error = EOPNOTSUPP, .count = 2};
	assert_int_equal(request_of(&d, ZEROES), OK); /* both kinds of fallocate, then plainly */
	assert_int_equal(fault.count, 0);
	memset(data, 0, sizeof(data));
	image_bytes(&d, 0, image, 4096);
	assert_memory_equal(data, image, 4096);
	fault = (struct fault){.is_cut = true};
	fill_data(&d, 0x33, 4096);
	assert_int_equal(request(&d, OUT, 8, 4096, 0), OK);
	image_bytes(&d, 4096, image, 4096);
	memset(data, 0x33, sizeof(data));
	assert_memory_equal(data, image, 4096);
	fill_data(&d, 0, 4096);
	assert_int_equal(request(&d, IN, 8, 0, 4096), OK);
	get(&d.w, DATA, image, 4096);
	assert_memory_equal(data, image, 4096);
	close_disk(&d);
}

/* The file is cut off while the guest has it, for each engine. */
static void test_file_cut_off(void **state)
{
	static const char *const options[] = {"", ",aio=threads"};
	for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
		struct disk d;
		open_disk(&d, options[i], CLOCK_REAL);
		assert_int_equal(truncate(d.path, 4096 + 256), 0);
		assert_int_equal(request(&d, IN, 0, 0, 4096), OK);
		assert_int_equal(request(&d, IN, 4, 0, 4096), IOERR); /* half of it is there */
		assert_int_equal(request(&d, IN, 64, 0, 4096), IOERR);
		close_disk(&d);
	}
}

/* A limit on file sizes is what a full disk is to a file with holes. */
static void test_no_room(void **state)
{
	struct rlimit old, low = {4096, RLIM_INFINITY};
	struct disk d;
	open_disk(&d, "", CLOCK_REAL);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	uint8_t inside = request(&d, OUT, 0, 4096, 0), outside = request(&d, OUT, 64, 4096, 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(inside, OK);
	assert_int_equal(outside, IOERR);
	assert_int_equal(request(&d, OUT, 64, 4096, 0), OK);
	close_disk(&d);
}

/* ---- under way ---- */

/* Many at once; drained, reset in the middle, closed in the middle. */
static void test_under_way(void **state)
{
	static const char *const options[] = {"", ",aio=threads"};
	for (size_t i = 0; i < ARRAY_COUNT(options); i++)
		for (unsigned how = 0; how < 3; how++) {
			struct disk d;
			uint16_t id;
			uint32_t written;
			open_disk(&d, options[i], CLOCK_REAL);
			for (unsigned k = 0; k < 5; k++)
				add_request(&d, IN, 8 * k, 0, 4096);
			world_kick(&d.w, 0);
			if (how == 0)
				virtio_drain(d.w.device);
			else if (how == 1)
				world_start(&d.w, d.features);
			assert_true(how == 2 || !d.w.device->in_flight);
			for (unsigned k = 0; how < 2 && k < 5; k++)
				assert_true(world_used(&d.w, 0, 3, &id, &written) == (how == 0));
			close_disk(&d);
		}
}

static void test_another_disk_is_refused(void **state)
{
	struct disk d, other;
	struct state_writer *w;
	struct state_reader *r;
	struct error e = {0};
	size_t n;
	open_disk(&d, "", CLOCK_VIRTUAL);
	open_disk(&other, "", CLOCK_VIRTUAL);
	assert_int_equal(state_buffer_create(&w), 0);
	device_save(&d.w.device->own, w);
	const uint8_t *bytes = state_buffer_bytes(w, &n);
	assert_int_equal(state_reader_create(&r, bytes, n, &e), 0);
	assert_int_equal(device_load(&other.w.device->own, r, &e), 0);
	close_disk(&other);
	make_image(&other);
	assert_int_equal(truncate(other.path, 4096), 0);
	world_open(&other.w, "blk", other.path);
	assert_int_equal(device_load(&other.w.device->own, r, &e), -EINVAL);
	assert_non_null(strstr(e.text, "had 512 when it was saved"));
	close_disk(&other);
	state_reader_destroy(r);
	state_writer_destroy(w);
	close_disk(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_any_layout),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_read_only_and_serial),
		cmocka_unit_test(test_without_flush),
		cmocka_unit_test(test_host_errors),
		cmocka_unit_test(test_host_is_slow),
		cmocka_unit_test(test_file_cut_off),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_under_way),
		cmocka_unit_test(test_another_disk_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
