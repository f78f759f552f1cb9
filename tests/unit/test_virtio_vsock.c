/* Sockets between host and guest: connections in both directions, credit, ends, refusals, and what
 * neither side gets away with. */
#include "virtio_world.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/stream.h"
#include "virtio/vsock.h"

#define RX 0
#define TX 1
#define EVENT 2
#define HEADER 44
#define CID 7
#define ROOM 65536

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT, CREDIT_REQUEST };

struct packet {
	uint64_t from_cid, to_cid;
	uint32_t from_port, to_port, length;
	uint16_t type, op;
	uint32_t flags, room, passed_on;
} __attribute__((packed));

struct sockets {
	struct virtio_world w;
	char path[48], text[80];
	unsigned buffers; /* given to the device, ever */
	uint8_t payload[4096];
};

static void give(struct sockets *s, unsigned count)
{
	while (count--) {
		const struct world_segment segment = {
			WORLD_BUFFER + 0x1000 * (s->buffers++ % WORLD_SIZE), 0x1000, true};
		world_add(&s->w, RX, &segment, 1);
	}
	world_kick(&s->w, RX);
}

static int setup(void **state)
{
	struct sockets *s = calloc(1, sizeof(*s));
	snprintf(s->path, sizeof(s->path), "/tmp/gnomon-vsock-%d", (int)getpid());
	snprintf(s->text, sizeof(s->text), "cid=7,path=%s", s->path);
	world_open(&s->w, "vsock", s->text);
	world_start(&s->w, 0);
	assert_int_equal(s->w.device->config[0], CID);
	give(s, 8);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct sockets *s = *state;
	assert_false(world_needs_reset(&s->w));
	world_close(&s->w);
	assert_int_equal(access(s->path, F_OK), -1);
	free(s);
	return 0;
}

/* The next packet of the device; op 0 if there is none. Its buffer is given again. */
static struct packet hear(struct sockets *s)
{
	struct packet p = {0};
	uint16_t id;
	uint32_t written;
	unsigned number = s->w.rings[RX].used % WORLD_SIZE;
	if (s->w.ready && s->w.watched_fd >= 0)
		s->w.ready(s->w.device, s->w.watched_fd);
	if (!world_used(&s->w, RX, 1, &id, &written))
		return p;
	get(&s->w, WORLD_BUFFER + 0x1000 * number, &p, sizeof(p));
	assert_int_equal(written, HEADER + p.length);
	assert_int_equal(p.from_cid, 2);
	assert_int_equal(p.to_cid, CID);
	if (p.length)
		get(&s->w, WORLD_BUFFER + 0x1000 * number + HEADER, s->payload, p.length);
	return p;
}

static void say(struct sockets *s, uint32_t from, uint32_t to, uint16_t op, uint32_t flags,
		const void *bytes, uint32_t length, uint32_t passed_on)
{
	const uint64_t at = WORLD_BUFFER + 0x1000 * (WORLD_SIZE + 4);
	struct packet p = {CID, 2, from, to, length, 1, op, flags, ROOM, passed_on};
	const struct world_segment segments[2] = {{at, HEADER, false}, {at + 0x100, length, false}};
	uint16_t id;
	uint32_t written;
	put(&s->w, at, &p, sizeof(p));
	if (length)
		put(&s->w, at + 0x100, bytes, length);
	world_add(&s->w, TX, segments, length ? 2 : 1);
	world_kick(&s->w, TX);
	assert_true(world_used(&s->w, TX, length ? 2 : 1, &id, &written));
}

static int connect_in(struct sockets *s, const char *line)
{
	int fd = net_unix_connect(s->path, NULL);
	assert_true(fd >= 0);
	assert_int_equal(send(fd, line, strlen(line), 0), strlen(line));
	return fd;
}

static void expect(int fd, const char *text)
{
	char bytes[200] = "";
	ssize_t n = recv(fd, bytes, sizeof(bytes) - 1, MSG_DONTWAIT);
	assert_int_equal(n, *text ? (ssize_t)strlen(text) : n < 0 ? -1 : 0);
	assert_string_equal(bytes, text);
}

/* A program of the host that the guest has answered; *port is its own. */
static int open_in(struct sockets *s, uint32_t *port)
{
	char line[32];
	int fd = connect_in(s, "CONNECT 52\n");
	struct packet p = hear(s);
	if (!p.op)
		p = hear(s); /* accepted, then heard */
	assert_int_equal(p.op, REQUEST);
	assert_int_equal(p.to_port, 52);
	assert_int_equal(p.room, ROOM);
	*port = p.from_port;
	say(s, 52, *port, RESPONSE, 0, NULL, 0, 0);
	snprintf(line, sizeof(line), "OK %u\n", *port);
	expect(fd, line);
	return fd;
}

static void test_into_the_guest(void **state)
{
	struct sockets *s = *state;
	uint32_t port;
	int fd = open_in(s, &port);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	struct packet p = hear(s);
	assert_int_equal(p.op, RW);
	assert_int_equal(p.length, 5);
	assert_memory_equal(s->payload, "hello", 5);
	say(s, 52, port, RW, 0, "hi there", 8, 5);
	expect(fd, "hi there");
	say(s, 52, port, CREDIT_REQUEST, 0, NULL, 0, 5);
	p = hear(s);
	assert_int_equal(p.op, CREDIT);
	assert_int_equal(p.passed_on, 8);
	/* The program ends; so does the guest. */
	close(fd);
	p = hear(s);
	assert_int_equal(p.op, SHUTDOWN);
	say(s, 52, port, RST, 0, NULL, 0, 5);
	assert_int_equal(hear(s).op, 0);
	/* What is said of it now is refused. */
	say(s, 52, port, RW, 0, "x", 1, 5);
	assert_int_equal(hear(s).op, RST);
}

static void test_out_of_the_guest(void **state)
{
	struct sockets *s = *state;
	char path[64];
	snprintf(path, sizeof(path), "%s_99", s->path);
	say(s, 1000, 99, REQUEST, 0, NULL, 0, 0);
	assert_int_equal(hear(s).op, RST); /* nobody listens */
	int listener = net_unix_listen(path, NULL);
	say(s, 1000, 99, REQUEST, 0, NULL, 0, 0);
	struct packet p = hear(s);
	assert_int_equal(p.op, RESPONSE);
	assert_int_equal(p.from_port, 99);
	assert_int_equal(p.to_port, 1000);
	int fd = accept(listener, NULL, NULL);
	say(s, 1000, 99, RW, 0, "from the guest", 14, 0);
	expect(fd, "from the guest");
	/* Half an end: the program still speaks. */
	say(s, 1000, 99, SHUTDOWN, 2, NULL, 0, 0);
	expect(fd, "");
	assert_int_equal(send(fd, "last words", 10, 0), 10);
	assert_int_equal(hear(s).op, RW);
	say(s, 1000, 99, SHUTDOWN, 3, NULL, 0, 10);
	assert_int_equal(hear(s).op, RST);
	close(fd);
	close(listener);
	unlink(path);
}

/* Neither side sends more than the other has room for. */
static void test_credit(void **state)
{
	struct sockets *s = *state;
	uint32_t port, got = 0;
	int fd = open_in(s, &port);
	static uint8_t bytes[2 * ROOM];
	assert_true(send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > ROOM);
	for (struct packet p = hear(s); p.op; p = hear(s)) {
		assert_int_equal(p.op, RW);
		got += p.length;
		give(s, 1);
	}
	assert_int_equal(got, ROOM);
	say(s, 52, port, CREDIT, 0, NULL, 0, 1000);
	assert_int_equal(hear(s).length, 1000);
	assert_int_equal(hear(s).op, 0);
	/* The guest sends what the program does not read: it is kept up to a limit. */
	for (unsigned i = 0; i < 1000 && !hear(s).op; i++)
		say(s, 52, port, RW, 0, bytes, 4000, 1000);
	say(s, 52, port, RW, 0, bytes, 4000, 1000);
	close(fd);
}

static void test_no_buffers(void **state)
{
	struct sockets *s = *state;
	uint32_t port;
	int fd = open_in(s, &port);
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(send(fd, "x", 1, 0), 1);
		assert_int_equal(hear(s).op, RW);
	}
	assert_int_equal(send(fd, "last", 4, 0), 4);
	assert_int_equal(hear(s).op, 0);
	assert_int_equal(s->w.watched_fd, -1); /* it does not spin */
	give(s, 1);
	assert_int_equal(hear(s).length, 4);
	close(fd);
}

static void test_greetings(void **state)
{
	struct sockets *s = *state;
	static const char *const bad[] = {"CONNECT\n",
					  "CONNECT \n",
					  "CONNECT x\n",
					  "connect 5\n",
					  "CONNECT 4294967295\n",
					  "CONNECT 99999999999\n",
					  "\n",
					  "CONNECT 1 2\n",
					  "CONNECT 000000000000000000000000000000000000000005\n"};
	uint32_t port;
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		int fd = connect_in(s, bad[i]);
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(hear(s).op, 0);
		expect(fd, "");
		close(fd);
	}
	assert_true(virtio_vsock_greeting("CONNECT 4294967294", &port));
	assert_int_equal(port, 4294967294u);
	/* A guest that refuses ends the program's connection. */
	int fd = connect_in(s, "CONNECT 53\n");
	struct packet p = hear(s);
	if (!p.op)
		p = hear(s);
	say(s, 53, p.from_port, RST, 0, NULL, 0, 0);
	expect(fd, "");
	close(fd);
}

/* More programs than there is room for, each gone before the guest answers. */
static void test_many(void **state)
{
	struct sockets *s = *state;
	for (unsigned i = 0; i < 200; i++) {
		close(connect_in(s, i % 2 ? "CONNECT 5\n" : "CONN"));
		if (hear(s).op)
			give(s, 1);
	}
	for (unsigned i = 0; i < 400; i++)
		if (hear(s).op)
			give(s, 1);
	uint32_t port;
	close(open_in(s, &port));
	struct packet p;
	do
		p = hear(s);
	while (p.op && p.op != SHUTDOWN);
}

/* A machine that was saved tells its guest that all connections have ended. */
static void test_restored(void **state)
{
	struct sockets *s = *state;
	struct error e = {0};
	uint32_t port, written, number = 9;
	uint16_t id;
	int fd = open_in(s, &port);
	const struct world_segment segment = {WORLD_BUFFER + 0x3f000, 4, true};
	put(&s->w, segment.address, &number, 4);
	world_add(&s->w, EVENT, &segment, 1);
	assert_int_equal(s->w.device->device.ops->resume(&s->w.device->device, &e), 0);
	assert_int_equal(s->w.device->ops->resume(s->w.device, &e), 0);
	world_settle(&s->w);
	assert_true(world_used(&s->w, EVENT, 1, &id, &written));
	get(&s->w, segment.address, &number, 4);
	assert_int_equal(number, 0);
	expect(fd, "");
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_into_the_guest), TEST(test_out_of_the_guest), TEST(test_credit),
		TEST(test_no_buffers),	   TEST(test_greetings),	TEST(test_many),
		TEST(test_restored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
