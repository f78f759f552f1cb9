/* A shared folder as a driver sees it: requests and answers through rings, in both clocks, and a
 * server that stops or dies. (What the requests mean is test_share.c's.) */
#include "virtio_world.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER (WORLD_BUFFER + 0x8000)
#define RLERROR 7

struct folder {
	char path[32], text[300];
};

static int setup(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));
	char path[64];
	strcpy(f->path, "/tmp/gnomon-9p-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	snprintf(path, sizeof(path), "%s/hello", f->path);
	int fd = open(path, O_CREAT | O_WRONLY, 0644);
	assert_int_equal(write(fd, "hello, guest", 12), 12);
	close(fd);
	snprintf(f->text, sizeof(f->text), "%s,tag=host,server=" SHARE_PROGRAM, f->path);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct folder *f = *state;
	char command[64];
	snprintf(command, sizeof(command), "rm -rf %s", f->path);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

/* Makes a request available, its answer's room `room` bytes at ANSWER + 4096 * `slot`. */
static void ask(struct virtio_world *w, const void *bytes, uint8_t size, unsigned slot,
		uint32_t room)
{
	uint64_t at = WORLD_BUFFER + 256 * slot;
	const struct world_segment s[2] = {{at, size, false}, {ANSWER + 0x1000 * slot, room, true}};
	put(w, at, bytes, size);
	put(w, at, &size, 1);
	world_add(w, 0, s, 2);
}

/* The type of the next answer, and its bytes; -1 if there is none. */
static int answer(struct virtio_world *w, unsigned slot, uint8_t *bytes, uint32_t *count)
{
	uint16_t id;
	if (!world_used(w, 0, 2, &id, count))
		return -1;
	get(w, ANSWER + 0x1000 * slot, bytes, *count < 200 ? *count : 200);
	return bytes[4];
}

#define VERSION                            \
	"\0\0\0\0\x64\1\0\0\x20\0\0\x08\0" \
	"9P2000.L"
#define ATTACH "\0\0\0\0\x68\2\0\1\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0"
#define WALK "\0\0\0\0\x6e\3\0\1\0\0\0\2\0\0\0\1\0\5\0hello"
#define OPEN "\0\0\0\0\x0c\4\0\2\0\0\0\0\0\0\0"
#define READ "\0\0\0\0\x74\5\0\2\0\0\0\7\0\0\0\0\0\0\0\x40\0\0\0"
#define OPEN_TO_WRITE "\0\0\0\0\x0c\4\0\2\0\0\0\2\0\0\0"

static int do_one(struct virtio_world *w, const void *bytes, uint8_t size, uint8_t *out)
{
	uint32_t count;
	ask(w, bytes, size, 0, 4096);
	world_kick(w, 0);
	return answer(w, 0, out, &count);
}

#define DO(w, text, out) do_one(w, text, sizeof(text) - 1, out)

static void reads(struct folder *f, uint64_t features)
{
	struct virtio_world w;
	uint8_t out[200];
	world_open(&w, "9p", f->text);
	world_start(&w, features);
	assert_memory_equal(w.device->config, "\4\0host", 6);
	assert_int_equal(DO(&w, VERSION, out), 0x65);
	assert_int_equal(DO(&w, ATTACH, out), 0x69);
	assert_int_equal(DO(&w, WALK, out), 0x6f);
	assert_int_equal(DO(&w, OPEN, out), 0x0d);
	for (unsigned i = 0; i < 3 * WORLD_SIZE; i++) {
		assert_int_equal(DO(&w, READ, out), 0x75);
		assert_memory_equal(out, "\x10\0\0\0\x75\5\0\5\0\0\0guest", 16);
	}
	assert_false(world_needs_reset(&w));
	assert_int_equal(w.device->in_flight, 0);
	world_close(&w);
}

static void test_reads(void **state)
{
	reads(*state, 0);
	reads(*state, VIRTIO_F_PACKED);
}

/* Real time: answers come when they come, in order, and a machine that is saved waits for them. */
static void test_real_time(void **state)
{
	struct folder *f = *state;
	struct virtio_world w;
	uint8_t out[200];
	uint32_t count;
	world_open_at(&w, "9p", f->text, CLOCK_REAL);
	world_start(&w, 0);
	ask(&w, VERSION, sizeof(VERSION) - 1, 0, 4096);
	ask(&w, ATTACH, sizeof(ATTACH) - 1, 1, 4096);
	ask(&w, WALK, sizeof(WALK) - 1, 2, 4096);
	world_kick(&w, 0);
	assert_int_equal(w.device->in_flight, 3);
	virtio_drain(w.device);
	assert_int_equal(w.device->in_flight, 0);
	assert_int_equal(answer(&w, 0, out, &count), 0x65);
	assert_int_equal(answer(&w, 1, out, &count), 0x69);
	assert_int_equal(answer(&w, 2, out, &count), 0x6f);
	ask(&w, OPEN, sizeof(OPEN) - 1, 0, 4096);
	world_kick(&w, 0);
	struct pollfd p = {.fd = w.watched_fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 5000), 1);
	w.ready(w.device, w.watched_fd);
	assert_int_equal(answer(&w, 0, out, &count), 0x0d);
	/* A reset waits, too: no answer may find another's request. */
	ask(&w, READ, sizeof(READ) - 1, 0, 4096);
	world_kick(&w, 0);
	world_start(&w, 0);
	assert_int_equal(w.device->in_flight, 0);
	assert_int_equal(answer(&w, 0, out, &count), -1);
	world_close(&w);
}

static void test_small_room(void **state)
{
	struct folder *f = *state;
	struct virtio_world w;
	uint8_t out[200];
	uint32_t count;
	world_open(&w, "9p", f->text);
	world_start(&w, 0);
	ask(&w, VERSION, sizeof(VERSION) - 1, 0, 15); /* the answer has 21 bytes */
	world_kick(&w, 0);
	assert_int_equal(answer(&w, 0, out, &count), RLERROR);
	assert_int_equal(out[7], EMSGSIZE);
	ask(&w, VERSION, sizeof(VERSION) - 1, 0, 10);
	world_kick(&w, 0);
	assert_true(world_needs_reset(&w));
	world_start(&w, 0);
	ask(&w, "\0\0\0\0\x64\1", 6, 0, 100);
	world_kick(&w, 0);
	assert_true(world_needs_reset(&w));
	world_close(&w);
}

static void test_read_only(void **state)
{
	struct folder *f = *state;
	struct virtio_world w;
	uint8_t out[200];
	strcat(f->text, ",readonly=on");
	world_open(&w, "9p", f->text);
	world_start(&w, 0);
	DO(&w, VERSION, out);
	DO(&w, ATTACH, out);
	DO(&w, WALK, out);
	assert_int_equal(DO(&w, OPEN_TO_WRITE, out), RLERROR);
	assert_int_equal(out[7], EROFS);
	world_close(&w);
}

/* A server that is gone is an error for each request, and nobody waits. */
static void test_server_dies(void **state)
{
	struct folder *f = *state;
	struct virtio_world w;
	uint8_t out[200];
	uint32_t count;
	char path[64], text[32] = "";
	world_open_at(&w, "9p", f->text, CLOCK_REAL);
	world_start(&w, 0);
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	FILE *children = fopen(path, "r");
	if (!children || !fgets(text, sizeof(text), children) || atoi(text) <= 0) {
		world_close(&w);
		skip(); /* a kernel without that file */
	}
	fclose(children);
	assert_int_equal(kill((pid_t)atoi(text), SIGSTOP), 0);
	ask(&w, VERSION, sizeof(VERSION) - 1, 0, 4096);
	world_kick(&w, 0);
	assert_int_equal(answer(&w, 0, out, &count), -1);
	assert_int_equal(kill((pid_t)atoi(text), SIGKILL), 0);
	struct pollfd p = {.fd = w.watched_fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 5000), 1);
	w.ready(w.device, w.watched_fd);
	assert_int_equal(answer(&w, 0, out, &count), RLERROR);
	assert_int_equal(out[5], 1); /* the request's tag */
	assert_int_equal(out[7], EIO);
	assert_int_equal(w.watched_fd, -1);
	assert_int_equal(DO(&w, ATTACH, out), RLERROR);
	assert_int_equal(out[7], EIO);
	world_close(&w);
}

static void test_options(void **state)
{
	const struct virtio_row *row = virtio_find("9p", 2);
	struct error e = {0};
	assert_int_equal(row->check("/tmp,tag=x,readonly", &e), 0);
	assert_int_equal(row->check("", &e), -EINVAL);
	assert_non_null(strstr(e.text, "the folder is missing"));
	assert_int_equal(row->check("/tmp,tag=", &e), -EINVAL);
	assert_int_equal(row->check("/tmp,tag=a-name-of-more-than-32-characters", &e), -EINVAL);
	struct virtio_device *d;
	struct virtio_world w;
	world_open(&w, "rng", "");
	assert_int_equal(row->create(&d, "/no/such/folder", &w.host, &e), -ENOENT);
	assert_int_not_equal(row->create(&d, "/etc/passwd,server=" SHARE_PROGRAM, &w.host, &e), 0);
	assert_non_null(strstr(e.text, "cannot open folder '/etc/passwd'"));
	world_close(&w);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reads),     TEST(test_real_time),   TEST(test_small_room),
		TEST(test_read_only), TEST(test_server_dies), TEST(test_options),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
