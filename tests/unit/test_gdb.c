/*
 * gdb's remote protocol: the framing, the registers, and a whole session against a small machine,
 * spoken by hand and by the real gdb if it is there.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/vcpu.h"
#include "debug/gdb.h"
#include "debug/gdb_packet.h"
#include "debug/gdb_registers.h"
#include "vm/poller.h"
#include "vm/vm.h"

#include <cmocka.h>

/* ---- framing ---- */

static enum gdb_event feed(struct gdb_parser *p, const char *text)
{
	enum gdb_event event = GDB_NOTHING;
	for (; *text; text++)
		event = gdb_parse(p, (uint8_t)*text);
	return event;
}

static void test_parser(void **state)
{
	static struct gdb_parser p;
	assert_int_equal(feed(&p, "+$g#67"), GDB_PACKET);
	assert_string_equal((char *)p.data, "g");
	assert_int_equal(feed(&p, "$g#68"), GDB_DAMAGED);
	assert_int_equal(feed(&p, "$g#6x"), GDB_DAMAGED);
	assert_int_equal(feed(&p, "-"), GDB_RESEND);
	assert_int_equal(feed(&p, "\3"), GDB_INTERRUPT);
	assert_int_equal(feed(&p, "$X0,1:}\3#9f"), GDB_PACKET);
	assert_int_equal(p.length, 6);
	assert_int_equal(p.data[5], '#');
	assert_int_equal(gdb_parse(&p, '$'), GDB_NOTHING);
	for (unsigned i = 0; i < 3 * GDB_PACKET_BYTES; i++)
		assert_int_equal(gdb_parse(&p, 'a'), GDB_NOTHING);
	assert_int_equal(feed(&p, "#00"), GDB_DAMAGED);
	assert_int_equal(feed(&p, "$g#67"), GDB_PACKET);
}

static void test_answers(void **state)
{
	static struct gdb_answer a;
	static uint8_t frame[sizeof(a.data) + 4];
	gdb_answer_text(&a, "O%c", 'K');
	assert_int_equal(gdb_frame(&a, frame), 6);
	assert_memory_equal(frame, "$OK#9a", 6);
	a.length = 0;
	gdb_answer_binary(&a, "a#}\0*", 5);
	assert_int_equal(a.length, 8);
	assert_memory_equal(a.data, "a}\3}]\0}\n", 8);
	for (unsigned i = 0; i < 100000; i++)
		gdb_answer_hex(&a, "x", 1);
	assert_true(a.is_cut);
	assert_true(a.length <= sizeof(a.data));
	uint8_t bytes[2];
	const char *number = "ffffffffffffffffZ";
	uint64_t v;
	assert_int_equal(gdb_unhex("0aFf", bytes, 2), 2);
	assert_int_equal(bytes[1], 0xff);
	assert_int_equal(gdb_unhex("0aFf00", bytes, 2), -1);
	assert_int_equal(gdb_unhex("0", bytes, 2), -1);
	assert_int_equal(gdb_unhex("zz", bytes, 2), -1);
	assert_true(gdb_number(&number, &v) && v == UINT64_MAX && *number == 'Z');
	assert_false(gdb_number(&number, &v));
	number = "10000000000000000";
	assert_false(gdb_number(&number, &v));
}

/* ---- registers ---- */

static void test_registers(void **state)
{
	static struct vcpu v;
	uint8_t bytes[GDB_REGISTER_BYTES_MAX];
	char xml[GDB_XML_BYTES];
	size_t length = gdb_target_xml(xml, sizeof(xml));
	assert_true(length < sizeof(xml) - 100);
	unsigned described = 0;
	for (const char *p = xml; (p = strstr(p, "<reg ")); p++)
		described++;
	assert_int_equal(described, gdb_register_count());
	assert_int_equal(gdb_register_bytes(gdb_register_count()), 0);
	/* What is written reads back, but for selectors and control registers, which are shown
	 * only. */
	unsigned kept = 0;
	for (unsigned i = 0; i < gdb_register_count(); i++) {
		uint8_t pattern[GDB_REGISTER_BYTES_MAX];
		memset(pattern, 0, sizeof(pattern));
		pattern[0] = 0x47;
		gdb_register_set(&v, i, pattern);
		gdb_register_get(&v, i, bytes);
		kept += !memcmp(bytes, pattern, gdb_register_bytes(i));
	}
	/* eflags has a bit that is always 1 (0x47 has it); ftag 0x47 is a pair of no meaning: empty
	 * or valid only. */
	assert_true(kept >= gdb_register_count() - 6 - 9 - 1);
	v.state.gpr[GPR_RSP] = 0x1122334455667788ull;
	gdb_register_get(&v, 7, bytes);
	assert_memory_equal(bytes, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
}

/* ---- a session ---- */

/* Real mode at 7c00: some arithmetic, a store, then 10h to isa-debug-exit. */
static const uint8_t program[512] = {
	0xb8,	      0x34,	    0x12, /* 7c00 mov ax, 1234h */
	0x40,				  /* 7c03 inc ax */
	0x40,				  /* 7c04 inc ax */
	0xbb,	      0x78,	    0x56, /* 7c05 mov bx, 5678h */
	0xa3,	      0x00,	    0x80, /* 7c08 mov [8000h], ax */
	0xba,	      0xf4,	    0x00, /* 7c0b mov dx, 0f4h */
	0xb0,	      0x10,		  /* 7c0e mov al, 10h */
	0xee,				  /* 7c10 out dx, al */
	0xf4,				  /* 7c11 hlt */
	[510] = 0x55, [511] = 0xaa,
};

struct session {
	struct vm *vm;
	struct gdb *gdb;
	int fd;
	char file[32];
};

static int connect_to(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static int begin(void **state)
{
	struct session *s = calloc(1, sizeof(*s));
	struct vm_config config;
	struct error e = {0};
	strcpy(s->file, "/tmp/gnomon-gdb-XXXXXX");
	int fd = mkstemp(s->file);
	if (write(fd, program, sizeof(program)) != sizeof(program))
		return -1;
	close(fd);
	vm_config_defaults(&config);
	config.kernel = s->file;
	config.kernel_format = BOOT_FORMAT_RAW;
	config.memory_bytes = 4 << 20;
	config.timeout_ms = 30000;
	if (vm_create(&s->vm, &config, &e) || gdb_open(&s->gdb, s->vm, "tcp:0", &e)) {
		fprintf(stderr, "%s\n", e.text);
		return -1;
	}
	s->fd = -1;
	*state = s;
	return 0;
}

static int end(void **state)
{
	struct session *s = *state;
	gdb_close(s->gdb);
	vm_destroy(s->vm);
	if (s->fd >= 0)
		close(s->fd);
	unlink(s->file);
	free(s);
	return 0;
}

static void send_packet(struct session *s, const char *text)
{
	char frame[600];
	uint8_t sum = 0;
	for (const char *p = text; *p; p++)
		sum = (uint8_t)(sum + *p);
	int n = snprintf(frame, sizeof(frame), "$%s#%02x", text, sum);
	assert_int_equal(write(s->fd, frame, (size_t)n), n);
	poller_wait(vm_poller(s->vm), 1000000000);
}

/* The next answer's data. Acknowledgements are passed over. */
static const char *receive(struct session *s)
{
	static char text[40000];
	size_t n = 0;
	char c = 0;
	while (c != '$')
		assert_int_equal(read(s->fd, &c, 1), 1);
	while (read(s->fd, &c, 1) == 1 && c != '#')
		text[n++] = c;
	text[n] = 0;
	assert_int_equal(read(s->fd, &c, 1), 1);
	assert_int_equal(read(s->fd, &c, 1), 1);
	return text;
}

static const char *ask(struct session *s, const char *text)
{
	send_packet(s, text);
	return receive(s);
}

static uint64_t rip(struct session *s)
{
	return vm_vcpu(s->vm, 0)->state.rip;
}

static void open_session(struct session *s)
{
	s->fd = connect_to(gdb_port(s->gdb));
	poller_wait(vm_poller(s->vm), 1000000000);
	assert_true(vm_is_paused(s->vm));
	assert_non_null(strstr(ask(s, "qSupported:swbreak+"), "vContSupported+"));
	assert_string_equal(ask(s, "QStartNoAckMode"), "OK");
}

static void test_looking(void **state)
{
	struct session *s = *state;
	open_session(s);
	assert_string_equal(ask(s, "?"), "T05thread:1;");
	assert_string_equal(ask(s, "qfThreadInfo"), "m1");
	assert_string_equal(ask(s, "qsThreadInfo"), "l");
	assert_string_equal(ask(s, "p10"), "007c000000000000");
	assert_string_equal(ask(s, "m7c00,4"), "b8341240");
	assert_string_equal(ask(s, "M8100,2:beef"), "OK");
	assert_string_equal(ask(s, "m8100,2"), "beef");
	assert_string_equal(ask(s, "X8100,1:z"), "OK");
	assert_string_equal(ask(s, "m8100,1"), "7a");
	assert_string_equal(ask(s, "me0000000000,4"), "E0e");
	assert_string_equal(ask(s, "M7c00,4:00"), "E16");
	assert_string_equal(ask(s, "P0=efbeadde00000000"), "OK");
	assert_int_equal(vm_vcpu(s->vm, 0)->state.gpr[GPR_RAX], 0xdeadbeef);
	assert_string_equal(ask(s, "pffff"), "E16");
	assert_string_equal(ask(s, "Hg2"), "E16");
	assert_string_equal(ask(s, "T1"), "OK");
	assert_string_equal(ask(s, "vMustReplyEmpty"), "");
	assert_string_equal(ask(s, "Z2,8000,2"), "");
	const char *all = ask(s, "g");
	assert_memory_equal(all, "efbeadde00000000", 16);
	const char *xml = ask(s, "qXfer:features:read:target.xml:0,3fff");
	assert_int_equal(xml[0], 'l');
	assert_non_null(strstr(xml, "i386:x86-64"));
	assert_int_equal(ask(s, "qXfer:features:read:target.xml:0,10")[0], 'm');
	assert_string_equal(ask(s, "qXfer:features:read:nothing:0,10"), "E02");
	/* monitor help, as gdb sends it: console output, then OK. */
	assert_int_equal(ask(s, "qRcmd,68656c70")[0], 'O');
	while (strcmp(receive(s), "OK"))
		;
}

static void test_running(void **state)
{
	struct session *s = *state;
	struct vm_outcome outcome;
	open_session(s);
	send_packet(s, "vCont;s:1");
	vm_run_for(s->vm, 1, &outcome);
	assert_string_equal(receive(s), "T05thread:1;");
	assert_int_equal(rip(s), 0x7c03);
	assert_string_equal(ask(s, "Z0,7c08,1"), "OK");
	send_packet(s, "vCont;c");
	vm_run_for(s->vm, 3, &outcome);
	assert_int_equal(outcome.end, VM_END_NONE);
	vm_run_for(s->vm, 0, &outcome);
	if (!vm_is_paused(s->vm))
		vm_run_for(s->vm, 1, &outcome);
	assert_string_equal(receive(s), "T05thread:1;swbreak:;");
	assert_int_equal(rip(s), 0x7c08);
	assert_int_equal(vm_vcpu(s->vm, 0)->state.gpr[GPR_RAX] & 0xffff, 0x1236);
	assert_string_equal(ask(s, "z0,7c08,1"), "OK");
	send_packet(s, "s");
	vm_run_for(s->vm, 1, &outcome);
	assert_string_equal(receive(s), "T05thread:1;");
	assert_string_equal(ask(s, "m8000,2"), "3612");
	send_packet(s, "c");
	vm_run(s->vm, &outcome);
	assert_int_equal(outcome.end, VM_END_DEBUG_EXIT);
	assert_int_equal(outcome.detail, 0x10);
	assert_string_equal(receive(s), "W01");
}

static void test_going_away(void **state)
{
	struct session *s = *state;
	struct vm_outcome outcome;
	open_session(s);
	assert_string_equal(ask(s, "Z0,7c08,1"), "OK");
	close(s->fd);
	s->fd = -1;
	/* No breakpoint is left behind, and the machine runs on. */
	vm_run(s->vm, &outcome);
	assert_int_equal(outcome.end, VM_END_DEBUG_EXIT);
}

static void test_real_gdb(void **state)
{
	struct session *s = *state;
	struct vm_outcome outcome;
	if (system("command -v gdb > /dev/null 2>&1")) {
		print_message("skipped: gdb is not installed\n");
		skip();
	}
	char command[700], text[8192] = "";
	snprintf(
		command, sizeof(command),
		"gdb -nx -batch -ex 'set confirm off' -ex 'target remote 127.0.0.1:%u' -ex 'stepi' "
		"-ex 'printf \"at %%lx\\n\", $rip' -ex 'break *0x7c08' -ex 'continue' "
		"-ex 'printf \"ax %%lx\\n\", $rax' -ex 'x/4xb 0x7c00' -ex 'delete' "
		"-ex 'info threads' "
		"-ex 'monitor info cpus' -ex 'continue' 2>&1",
		gdb_port(s->gdb));
	FILE *gdb = popen(command, "r");
	assert_non_null(gdb);
	vm_pause(s->vm);
	vm_run(s->vm, &outcome);
	gdb_close(s->gdb); /* hangs up on a gdb that still waits */
	s->gdb = NULL;
	assert_true(fread(text, 1, sizeof(text) - 1, gdb) > 0);
	pclose(gdb);
	assert_int_equal(outcome.end, VM_END_DEBUG_EXIT);
	static const char *const wanted[] = {"at 7c03", "ax 1236", "0xb8	0x34", "vcpu 0"};
	for (size_t i = 0; i < ARRAY_COUNT(wanted); i++)
		if (!strstr(text, wanted[i]))
			fail_msg("gdb did not say '%s':\n%s", wanted[i], text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parser),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_registers),
		cmocka_unit_test_setup_teardown(test_looking, begin, end),
		cmocka_unit_test_setup_teardown(test_running, begin, end),
		cmocka_unit_test_setup_teardown(test_going_away, begin, end),
		cmocka_unit_test_setup_teardown(test_real_gdb, begin, end),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
