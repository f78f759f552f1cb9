/* The switch: who gets which frame, what a hostile port can do to the others, and its socket. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/net.h"
#include "net/stream.h"
#include "net/switch.h"

#include <cmocka.h>

#define MACHINES 3

struct world {
	char folder[32], path[64], spec[80];
	struct net_switch *hub;
	struct net *machines[MACHINES];
	uint8_t frame[NET_FRAME_MAX];
};

static void turn(struct world *w)
{
	for (unsigned i = 0; i < 4; i++)
		net_switch_turn(w->hub, -1, 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct error e = {0};
	strcpy(w->folder, "/tmp/gnomon-switch-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/s", w->folder);
	snprintf(w->spec, sizeof(w->spec), "switch,path=%s", w->path);
	if (net_switch_open(&w->hub, w->path, &e))
		fail_msg("%s", e.text);
	for (unsigned i = 0; i < MACHINES; i++) {
		if (net_open(&w->machines[i], w->spec, &e))
			fail_msg("%s", e.text);
		turn(w);
	}
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	for (unsigned i = 0; i < MACHINES; i++)
		net_close(w->machines[i]);
	net_switch_close(w->hub);
	rmdir(w->folder);
	free(w);
	return 0;
}

/* From machine `from` to the address of machine `to` (9: to everybody). */
static int say(struct world *w, unsigned from, unsigned to, size_t size)
{
	uint8_t *frame = calloc(1, size);
	memset(frame, to == 9 ? 0xff : 0x52, NET_MAC_BYTES);
	memset(frame + 6, 0x52, NET_MAC_BYTES);
	frame[5] = to == 9 ? 0xff : (uint8_t)to;
	frame[11] = (uint8_t)from;
	frame[size - 1] = (uint8_t)size;
	/* In two parts, as a device has them. */
	struct iovec parts[2] = {{frame, 12}, {frame + 12, size - 12}};
	int r = net_send(w->machines[from], parts, 2);
	free(frame);
	turn(w);
	return r;
}

static ssize_t hear(struct world *w, unsigned machine)
{
	return net_receive(w->machines[machine], w->frame, sizeof(w->frame));
}

static void test_forwarding(void **state)
{
	struct world *w = *state;
	assert_int_equal(say(w, 0, 9, 60), 0);
	assert_int_equal(hear(w, 0), -EAGAIN);
	assert_int_equal(hear(w, 1), 60);
	assert_int_equal(w->frame[59], 60);
	assert_int_equal(hear(w, 2), 60);
	/* Nobody knows where 1 is; then everybody does. */
	say(w, 0, 1, 61);
	assert_int_equal(hear(w, 1), 61);
	assert_int_equal(hear(w, 2), 61);
	say(w, 1, 0, 62);
	assert_int_equal(hear(w, 0), 62);
	assert_int_equal(hear(w, 2), -EAGAIN);
	say(w, 0, 1, NET_FRAME_MAX);
	assert_int_equal(hear(w, 1), NET_FRAME_MAX);
	assert_int_equal(hear(w, 2), -EAGAIN);
	/* To itself: nowhere. */
	say(w, 1, 1, 60);
	for (unsigned i = 0; i < MACHINES; i++)
		assert_int_equal(hear(w, i), -EAGAIN);
	assert_int_equal(net_switch_counts(w->hub).floods, 2);
}

static void test_lengths(void **state)
{
	struct world *w = *state;
	assert_int_equal(net_stream_frame((uint8_t[]){0, 0, 0}, 3), -EAGAIN);
	assert_int_equal(net_stream_frame((uint8_t[]){0, 0, 0, 13}, 4), -EPROTO);
	assert_int_equal(net_stream_frame((uint8_t[]){0, 0, 0, 14}, 4), -EAGAIN);
	assert_int_equal(net_stream_frame((uint8_t[18]){0, 0, 0, 14}, 18), 14);
	assert_int_equal(net_stream_frame((uint8_t[]){0x80, 0, 0, 0}, 4), -EPROTO);
	assert_int_equal(net_stream_frame((uint8_t[]){0, 1, 0, 3}, 4), -EPROTO);
	uint8_t bytes[64] = {0};
	assert_int_equal(net_send(w->machines[0], &(struct iovec){bytes, 13}, 1), -EINVAL);
}

/* A connection that breaks the protocol is over; the others go on. */
static void test_hostile_port(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	int fd = net_unix_connect(w->path, &e);
	assert_true(fd >= 0);
	turn(w);
	assert_int_equal(net_switch_counts(w->hub).ports, MACHINES + 1);
	assert_int_equal(send(fd, "\xff\xff\xff\xff", 4, 0), 4);
	turn(w);
	assert_int_equal(net_switch_counts(w->hub).ports, MACHINES);
	char byte;
	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
	close(fd);
	say(w, 0, 9, 60);
	assert_int_equal(hear(w, 1), 60);
}

/* One that does not read loses its own frames, and later reads whole ones. */
static void test_slow_port(void **state)
{
	struct world *w = *state;
	say(w, 1, 9, 60);
	say(w, 2, 9, 60);
	assert_int_equal(hear(w, 0), 60);
	assert_int_equal(hear(w, 0), 60);
	for (unsigned i = 0; i < 2000; i++) {
		assert_int_equal(say(w, 0, 1, 1514), 0);
		assert_int_equal(say(w, 0, 2, 100), 0);
		while (hear(w, 2) >= 0)
			;
	}
	struct net_switch_counts c = net_switch_counts(w->hub);
	assert_true(c.drops > 100);
	unsigned heard = 0;
	for (ssize_t n = hear(w, 1); n >= 0 || heard == 0; n = hear(w, 1)) {
		heard += n == 1514;
		turn(w);
	}
	assert_true(heard > 100 && heard + c.drops == 2000);
}

/* A machine that leaves is forgotten: its address is for everybody again. */
static void test_leaving(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	say(w, 1, 9, 60);
	hear(w, 0);
	hear(w, 2);
	net_close(w->machines[1]);
	turn(w);
	assert_int_equal(net_switch_counts(w->hub).ports, MACHINES - 1);
	say(w, 0, 1, 60);
	assert_int_equal(hear(w, 2), 60);
	assert_int_equal(net_open(&w->machines[1], w->spec, &e), 0);
	turn(w);
	say(w, 0, 1, 60);
	assert_int_equal(hear(w, 1), 60);
	net_switch_close(w->hub);
	w->hub = NULL;
	assert_int_equal(hear(w, 0), -EPIPE);
	struct net *late;
	assert_int_equal(net_open(&late, w->spec, &e), -ENOENT);
	assert_non_null(strstr(e.text, "gnomon switch makes one"));
}

static void test_socket(void **state)
{
	struct world *w = *state;
	struct net_switch *second;
	struct error e = {0};
	struct stat st;
	char other[80];
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(net_switch_open(&second, w->path, &e), -EADDRINUSE);
	/* What is no socket is left alone; a dead one is replaced. */
	snprintf(other, sizeof(other), "%s/file", w->folder);
	close(open(other, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(net_switch_open(&second, other, &e), -EADDRINUSE);
	assert_int_equal(unlink(other), 0);
	int fd = net_unix_listen(other, &e);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(net_switch_open(&second, other, &e), 0);
	net_switch_close(second);
	assert_int_equal(access(other, F_OK), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_forwarding), TEST(test_lengths), TEST(test_hostile_port),
		TEST(test_slow_port),  TEST(test_leaving), TEST(test_socket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
