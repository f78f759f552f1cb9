/* What surrounds a machine on the host's side: text matching, the poller, serial backends. */
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
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vm/console.h"
#include "vm/poller.h"
#include "vm/serial.h"
#include "vm/vm.h"

#include <cmocka.h>

/* How often `pattern` ends somewhere in `text`, looked for the slow way. */
static unsigned count_slowly(const char *text, const char *pattern)
{
	unsigned n = 0;
	for (const char *p = text; (p = strstr(p, pattern)); p++)
		n++;
	return n;
}

static unsigned count(const char *text, const char *pattern)
{
	struct matcher m;
	unsigned n = 0;
	matcher_init(&m, pattern);
	for (; *text; text++)
		n += matcher_feed(&m, (uint8_t)*text);
	return n;
}

static void test_matcher(void **state)
{
	assert_int_equal(count("login login: login:", "login:"), 2);
	assert_int_equal(count("aaaa", "aa"), 3);
	assert_int_equal(count("ababababc", "ababc"), 1);
	assert_int_equal(count("anything", NULL), 0);
	uint32_t random = 1;
	for (unsigned round = 0; round < 2000; round++) {
		char text[65] = "", pattern[6] = "";
		for (unsigned i = 0; i < 64; i++)
			text[i] = "ab"[(random = random * 1664525 + 1013904223) >> 31];
		for (unsigned i = 0; i < 1 + round % 5; i++)
			pattern[i] = "ab"[(random = random * 1664525 + 1013904223) >> 31];
		assert_int_equal(count(text, pattern), count_slowly(text, pattern));
	}
}

static void test_console_news(void **state)
{
	struct console c;
	console_init(&c, &(struct vm_config){.stop_at = "ready"});
	unsigned news = 0;
	for (const char *p = "[    1.0] Kernel panic - not syncing: x\n---[ end Kernel panic"; *p;
	     p++)
		news |= console_printed(&c, (uint8_t)*p);
	assert_int_equal(news, CONSOLE_PANIC | CONSOLE_PANIC_END);
	for (const char *p = "ready"; *p; p++)
		news = console_printed(&c, (uint8_t)*p);
	assert_int_equal(news, CONSOLE_STOP_AT);
	uint8_t a[16], b[16];
	console_digest(&c, a);
	console_printed(&c, 'x');
	console_digest(&c, b);
	assert_memory_not_equal(a, b, 16);
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void count_ready(void *opaque, int fd)
{
	char bytes[8];
	++*(unsigned *)opaque;
	assert_true(read(fd, bytes, sizeof(bytes)) > 0);
}

static void test_poller(void **state)
{
	struct poller *p;
	unsigned calls = 0;
	int ends[2];
	assert_int_equal(poller_create(&p), 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(poller_add(p, ends[0], (struct poller_watch){count_ready, &calls}), 0);
	assert_int_equal(poller_wait(p, 0), 0);
	assert_false(poller_has_waker(p));
	poller_set_waker(p, ends[0], true);
	assert_true(poller_has_waker(p));
	assert_int_equal(write(ends[1], "x", 1), 1);
	poller_enable(p, ends[0], false);
	assert_int_equal(poller_wait(p, 1000), 0);
	poller_enable(p, ends[0], true);
	assert_int_equal(poller_wait(p, POLLER_FOREVER), 1);
	assert_int_equal(calls, 1);
	poller_remove(p, ends[0]);
	poller_remove(p, ends[0]);
	assert_false(poller_has_waker(p));
	int r = 0, n = 0;
	while (!r && n < 1000)
		r = poller_add(p, 1000 + n++, (struct poller_watch){count_ready, &calls});
	assert_int_equal(r, -ENOSPC);
	close(ends[0]);
	close(ends[1]);
	poller_destroy(p);
}

/* A UART with room for `room` bytes. */
struct taker {
	char bytes[64];
	size_t count, room;
	unsigned breaks;
	char keys[8];
};

static size_t take(void *opaque, const uint8_t *bytes, size_t n)
{
	struct taker *t = opaque;
	if (n > t->room)
		n = t->room;
	memcpy(t->bytes + t->count, bytes, n);
	t->count += n;
	t->room -= n;
	return n;
}

static void take_break(void *opaque)
{
	((struct taker *)opaque)->breaks++;
}

static void take_key(void *opaque, char key)
{
	struct taker *t = opaque;
	t->keys[strlen(t->keys)] = key;
}

static struct serial *open_one(const char *spec, struct poller *p, struct taker *t)
{
	struct serial *s = NULL;
	struct error e = {0};
	if (serial_open(&s, spec, p, &e))
		fail_msg("%s", e.text);
	serial_set_sink(s, (struct serial_sink){take, take_break, t});
	serial_set_escape(s, (struct serial_escape){take_key, t});
	return s;
}

/* Standard input and output as pipes, for the time of a test. */
struct terminal {
	int in, out; /* our ends */
	int old_in, old_out;
};

static void terminal_begin(struct terminal *t)
{
	int in[2], out[2];
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	fflush(stdout);
	t->old_in = dup(0);
	t->old_out = dup(1);
	dup2(in[0], 0);
	dup2(out[1], 1);
	close(in[0]);
	close(out[1]);
	t->in = in[1];
	t->out = out[0];
}

static void terminal_end(struct terminal *t)
{
	dup2(t->old_in, 0);
	dup2(t->old_out, 1);
	close(t->old_in);
	close(t->old_out);
	if (t->in >= 0)
		close(t->in);
	close(t->out);
}

static void test_stdio(void **state)
{
	struct terminal t;
	struct poller *p;
	struct taker guest = {.room = 5}, monitor = {.room = 64};
	struct serial_sink diverted = {take, NULL, &monitor};
	char text[16] = "";
	terminal_begin(&t);
	poller_create(&p);
	struct serial *s = open_one("stdio", p, &guest);
	assert_true(serial_is_stdio(s));
	assert_false(serial_is_interactive(s));
	serial_write(s, (const uint8_t *)"hello", 5);
	serial_pump(s);
	assert_int_equal(read(t.out, text, 15), 5);
	assert_string_equal(text, "hello");

	assert_int_equal(write(t.in, "ab\1xcd\1\1ef\1s", 12), 12);
	poller_wait(p, 0);
	assert_int_equal(guest.count, 5);
	assert_memory_equal(guest.bytes, "abcd\1", 5);
	assert_string_equal(guest.keys, "x");
	assert_int_equal(guest.breaks, 1);
	guest.room = 10;
	serial_pump(s);
	assert_memory_equal(guest.bytes, "abcd\1ef", 7);

	serial_divert(s, &diverted);
	assert_true(serial_is_diverted(s));
	assert_int_equal(write(t.in, "info", 4), 4);
	poller_wait(p, 0);
	assert_int_equal(monitor.count, 4);
	assert_int_equal(guest.count, 7);
	serial_divert(s, NULL);
	close(t.in);
	t.in = -1;
	assert_true(poller_has_waker(p));
	poller_wait(p, 0);
	assert_false(poller_has_waker(p));
	serial_close(s);
	poller_destroy(p);
	terminal_end(&t);
}

static void test_flow_control(void **state)
{
	struct terminal t;
	struct poller *p;
	struct taker guest = {.room = 0};
	char flood[600];
	memset(flood, 'x', sizeof(flood));
	terminal_begin(&t);
	poller_create(&p);
	struct serial *s = open_one("stdio", p, &guest);
	assert_int_equal(write(t.in, flood, sizeof(flood)), sizeof(flood));
	for (unsigned i = 0; i < 10; i++)
		poller_wait(p, 0);
	size_t total = 0;
	for (unsigned i = 0; i < 200 && total < sizeof(flood); i++) {
		guest.room = 16;
		guest.count = 0;
		serial_pump(s);
		total += guest.count;
		poller_wait(p, 0);
	}
	assert_int_equal(total, sizeof(flood));
	serial_close(s);
	poller_destroy(p);
	terminal_end(&t);
}

static void test_pty(void **state)
{
	struct poller *p;
	struct taker guest = {.room = 64};
	char text[16] = "";
	poller_create(&p);
	struct serial *s = open_one("pty", p, &guest);
	assert_non_null(serial_path(s));
	assert_true(serial_is_interactive(s));
	int fd = open(serial_path(s), O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "\1x\r", 3), 3); /* no escapes here */
	poller_wait(p, POLLER_FOREVER);
	assert_int_equal(guest.count, 3);
	assert_memory_equal(guest.bytes, "\1x\r", 3);
	serial_write(s, (const uint8_t *)"out\n", 4);
	serial_pump(s);
	assert_int_equal(read(fd, text, 15), 4);
	close(fd);
	/* Nobody there: neither an end nor a busy loop. */
	assert_int_equal(poller_wait(p, 1000), 0);
	serial_close(s);
	poller_destroy(p);
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void test_unix(void **state)
{
	char folder[] = "/tmp/gnomon-test-XXXXXX", path[64], spec[96], text[16] = "";
	struct poller *p;
	struct taker guest = {.room = 64};
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	snprintf(spec, sizeof(spec), "unix:%s,server", path);
	poller_create(&p);
	struct serial *s = open_one(spec, p, &guest);
	serial_write(s, (const uint8_t *)"lost", 4); /* before anybody listens */
	serial_pump(s);
	for (unsigned round = 0; round < 2; round++) {
		int fd = connect_to(path);
		poller_wait(p, POLLER_FOREVER);
		assert_int_equal(write(fd, "in", 2), 2);
		poller_wait(p, POLLER_FOREVER);
		serial_write(s, (const uint8_t *)"out", 3);
		serial_pump(s);
		assert_int_equal(read(fd, text, 15), 3);
		close(fd);
		poller_wait(p, POLLER_FOREVER);
	}
	assert_memory_equal(guest.bytes, "inin", 4);
	serial_close(s);
	assert_int_equal(access(path, F_OK), -1);
	poller_destroy(p);
	rmdir(folder);
}

static void test_file_and_errors(void **state)
{
	char path[] = "/tmp/gnomon-test-XXXXXX", spec[64], text[16] = "";
	struct poller *p;
	struct serial *s;
	struct taker guest = {0};
	struct error e = {0};
	poller_create(&p);
	int fd = mkstemp(path);
	snprintf(spec, sizeof(spec), "file:%s", path);
	s = open_one(spec, p, &guest);
	serial_write(s, (const uint8_t *)"kept", 4);
	serial_close(s);
	assert_int_equal(read(fd, text, 15), 4);
	close(fd);
	/* A file that is there and is no socket is not replaced by one. */
	snprintf(spec, sizeof(spec), "unix:%s,server", path);
	assert_int_not_equal(serial_open(&s, spec, p, &e), 0);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	assert_int_not_equal(serial_open(&s, "file:/no/such/folder/x", p, &e), 0);
	assert_non_null(strstr(e.text, "/no/such/folder/x"));
	assert_int_not_equal(serial_open(&s, "unix:/no/such/socket", p, &e), 0);
	assert_int_not_equal(serial_open(&s, "telnet", p, &e), 0);
	serial_close(NULL);
	poller_destroy(p);
}

/* What an unread pipe gets, in numbered lines, until much is lost; all that comes through is whole
 * and in order. Nobody waits but the end, a little. */
static void test_nobody_reads(void **state)
{
	enum { LINES = 400000, LINE_BYTES = 8 };
	char folder[] = "/tmp/gnomon-test-XXXXXX", path[64], spec[80], line[16];
	struct taker guest = {0};
	struct poller *p;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/fifo", folder);
	snprintf(spec, sizeof(spec), "file:%s", path);
	assert_int_equal(mkfifo(path, 0600), 0);
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	poller_create(&p);
	struct serial *s = open_one(spec, p, &guest);
	int64_t slowest = 0;
	for (unsigned i = 0; i < LINES; i++) {
		int64_t start = now_ms();
		snprintf(line, sizeof(line), "%07u\n", i);
		serial_write(s, (const uint8_t *)line, LINE_BYTES);
		if (i % 100 == 0)
			serial_pump(s);
		if (now_ms() - start > slowest)
			slowest = now_ms() - start;
	}
	assert_in_range(slowest, 0, 100);
	/* The reader is back: it gets what was kept, by itself. */
	unsigned count = 0;
	for (unsigned idle = 0; idle < 3; idle++)
		for (ssize_t n; (n = read(fd, line, LINE_BYTES)) > 0; idle = 0) {
			assert_int_equal(n, LINE_BYTES);
			assert_int_equal(strtoul(line, NULL, 10), count++);
			if (count % 100 == 0)
				poller_wait(p, 0);
		}
	assert_in_range(count * LINE_BYTES, 1 << 20, 2 << 20);
	serial_write(s, (const uint8_t *)"again\n", 6);
	serial_pump(s);
	assert_int_equal(read(fd, line, sizeof(line)), 6);
	/* At the end what is there for a reader comes before anything else. */
	serial_write(s, (const uint8_t *)"last\n", 5);
	serial_settle(s);
	assert_int_equal(read(fd, line, sizeof(line)), 5);
	serial_close(s);
	close(fd);
	poller_destroy(p);
	unlink(path);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matcher),	     cmocka_unit_test(test_console_news),
		cmocka_unit_test(test_poller),	     cmocka_unit_test(test_stdio),
		cmocka_unit_test(test_flow_control), cmocka_unit_test(test_pty),
		cmocka_unit_test(test_unix),	     cmocka_unit_test(test_file_and_errors),
		cmocka_unit_test(test_nobody_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
