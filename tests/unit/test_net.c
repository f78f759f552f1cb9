/*
 * Networks: --net's text, and user networking's own process as a guest sees it: it answers ARP and
 * DHCP, it leads a connection from the host into the guest, its death is a link that is down and
 * nothing else, and it does not outlive us.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/net.h"
#include "net/private.h"

#include <cmocka.h>

/* ---- the text ---- */

static void test_defaults(void **state)
{
	struct net_config c;
	char text[INET_ADDRSTRLEN];
	assert_int_equal(net_parse(&c, "user", NULL), 0);
	assert_int_equal(c.kind, NET_USER);
	assert_int_equal(c.mtu, 65520);
	assert_false(c.has_mac);
	assert_string_equal(inet_ntop(AF_INET, &c.user.dhcp_start, text, sizeof(text)),
			    "10.0.2.15");
	assert_string_equal(inet_ntop(AF_INET, &c.user.host, text, sizeof(text)), "10.0.2.2");
	assert_int_equal(net_parse(&c, "none", NULL), 0);
	assert_int_equal(c.kind, NET_NONE);
	assert_int_equal(c.mtu, 1500);
}

static void test_user_keys(void **state)
{
	struct net_config c;
	char text[INET_ADDRSTRLEN];
	assert_int_equal(net_parse(&c,
				   "user,mac=52:54:00:AB:cd:ef,net=192.168.7.0/26,restrict=on,"
				   "hostname=box,mtu=9000,hostfwd=tcp::2222-:22,"
				   "hostfwd=udp:0.0.0.0:53-192.168.7.9:5353,hostfwd=tcp:80-:8080",
				   NULL),
			 0);
	assert_true(c.has_mac && c.mac[3] == 0xab && c.mac[5] == 0xef);
	assert_true(c.user.is_restricted);
	assert_true(c.user.has_no_ipv6);
	assert_int_equal(c.mtu, 9000);
	assert_string_equal(c.user.hostname, "box");
	assert_int_equal(ntohl(c.user.mask.s_addr), 0xffffffc0);
	assert_int_equal(c.user.forward_count, 3);
	const struct net_forward *f = c.user.forwards;
	assert_false(f[0].is_udp);
	assert_int_equal(ntohl(f[0].host.s_addr), INADDR_LOOPBACK);
	assert_int_equal(f[0].host_port, 2222);
	assert_int_equal(f[0].guest_port, 22);
	assert_string_equal(inet_ntop(AF_INET, &f[0].guest, text, sizeof(text)), "192.168.7.15");
	assert_true(f[1].is_udp && f[1].host.s_addr == 0);
	assert_string_equal(inet_ntop(AF_INET, &f[1].guest, text, sizeof(text)), "192.168.7.9");
	assert_int_equal(f[2].host_port, 80);
	/* A small network has its hosts at other places, none of them twice. */
	assert_int_equal(net_parse(&c, "user,net=10.9.8.0/255.255.255.248", NULL), 0);
	assert_int_equal(ntohl(c.user.dhcp_start.s_addr), 0x0a090804);
}

static void test_wrong(void **state)
{
	static const char *const cases[][2] = {
		{"", "the kinds are user, tap, switch, loop, none"},
		{"usr", "'usr' is no kind"},
		{"none,path=x", "it has mac, mtu"},
		{"tap", "ifname=NAME is missing"},
		{"tap,ifname=averylongnameofadevice", "1 to 15 characters"},
		{"tap,ifname=", "1 to 15 characters"},
		{"switch,ifname=x", "'switch' has no key 'ifname'; it has mac, mtu, path"},
		{"switch", "path=SOCKET is missing"},
		{"user,hostname", "write KEY=VALUE"},
		{"user,", "write KEY=VALUE"},
		{"user,mac=53:54:00:12:34:56", "mac: '53:54"},
		{"user,mac=52:54:00:12:34", "mac: "},
		{"user,mac=00:00:00:00:00:00", "mac: "},
		{"user,mac=52:54:00:12:34:567", "mac: "},
		{"user,mtu=9", "576 to 65520"},
		{"user,mtu=99999999999999999999", "576 to 65520"},
		{"user,mtu=-1", "576 to 65520"},
		{"user,net=10.0.2", "no IPv4 address"},
		{"user,net=10.0.2.0/30", "4 to 29 bits"},
		{"user,net=10.0.2.0/", "4 to 29 bits"},
		{"user,net=10.0.2.0/255.0.255.0", "no mask"},
		{"user,net=10.0.2.9/24", "bits behind its mask"},
		{"user,dns=10.0.3.3", "dns: is not inside"},
		{"user,dns=10.0.2.2", "must differ"},
		{"user,dhcpstart=10.0.2.255", "dhcpstart: is not inside"},
		{"user,restrict=maybe", "neither on nor off"},
		{"user,ipv6=perhaps", "neither on nor off"},
		{"user,restrict=on,ipv6=on", "restrict=on is for IPv4 only"},
		{"user,bootfile=x", "no tftp=FOLDER"},
		{"user,hostfwd=2222", "write tcp:"},
		{"user,hostfwd=tcp::2222", "write tcp:"},
		{"user,hostfwd=sctp::1-:2", "write tcp:"},
		{"user,hostfwd=tcp::0-:22", "'0' is no port"},
		{"user,hostfwd=tcp::65536-:22", "no port"},
		{"user,hostfwd=tcp::22-22", "write [ADDRESS]:PORT"},
		{"user,hostfwd=tcp:localhost:22-:22", "no IPv4 address"},
		{"user,hostfwd=tcp::2222-1.2.3.4:22", "not inside its network"},
	};
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct net_config c;
		struct error e = {0};
		assert_int_equal(net_parse(&c, cases[i][0], &e), -EINVAL);
		if (!strstr(e.text, cases[i][1]))
			fail_msg("'%s' gave '%s', not '%s'", cases[i][0], e.text, cases[i][1]);
	}
	char long_text[5000];
	memset(long_text, 'a', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = 0;
	struct net_config c;
	assert_int_equal(net_parse(&c, long_text, NULL), -EINVAL);
}

static void test_forwards_full(void **state)
{
	char text[4096] = "user";
	for (unsigned i = 0; i <= NET_FORWARDS_MAX; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), ",hostfwd=tcp::%u-:22",
			 1000 + i);
	struct net_config c;
	struct error e = {0};
	assert_int_equal(net_parse(&c, text, &e), -EINVAL);
	assert_non_null(strstr(e.text, "64 of them at most"));
}

static void test_default_mac(void **state)
{
	uint8_t a[NET_MAC_BYTES], b[NET_MAC_BYTES];
	net_default_mac(a, false);
	net_default_mac(b, false);
	assert_memory_equal(a, b, sizeof(a));
	net_default_mac(b, true);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_memory_equal(a, b, 3);
}

/* ---- user networking ---- */

static const uint8_t card[NET_MAC_BYTES] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

static struct net *start(const char *spec)
{
	struct net *n;
	struct error e = {0};
	if (net_open_user_program(&n, USERNET, spec, &e))
		fail_msg("%s", e.text);
	return n;
}

static void say(struct net *n, const void *bytes, size_t count)
{
	struct iovec part = {(void *)bytes, count};
	assert_int_equal(net_send(n, &part, 1), 0);
}

/* The next frame for which is_wanted() holds; the test fails after some seconds without. */
static size_t await(struct net *n, uint8_t *frame, bool (*is_wanted)(const uint8_t *f, size_t size))
{
	for (unsigned tries = 0; tries < 100; tries++) {
		struct pollfd p = {.fd = n->fd, .events = POLLIN};
		if (poll(&p, 1, 5000) <= 0)
			break;
		ssize_t size = net_receive(n, frame, NET_FRAME_MAX);
		if (size > 0 && is_wanted(frame, (size_t)size))
			return (size_t)size;
		assert_true(size > 0 || size == -EAGAIN);
	}
	fail_msg("no such frame");
	return 0;
}

static bool is_arp_reply(const uint8_t *f, size_t size)
{
	return size >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 2;
}

static bool is_arp_request(const uint8_t *f, size_t size)
{
	return size >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 1;
}

static void arp(uint8_t frame[42], uint8_t operation, const uint8_t *ours, const uint8_t *theirs)
{
	memset(frame, 0xff, NET_MAC_BYTES);
	memcpy(frame + 6, card, NET_MAC_BYTES);
	memcpy(frame + 12, "\x08\x06\0\x01\x08\0\x06\x04\0", 9);
	frame[21] = operation;
	memcpy(frame + 22, card, NET_MAC_BYTES);
	memcpy(frame + 28, ours, 4);
	memset(frame + 32, 0, NET_MAC_BYTES);
	memcpy(frame + 38, theirs, 4);
}

static void test_user_arp(void **state)
{
	uint8_t request[42], *frame = malloc(NET_FRAME_MAX);
	struct net *n = start("user");
	arp(request, 1, (uint8_t[]){10, 0, 2, 15}, (uint8_t[]){10, 0, 2, 2});
	say(n, request, sizeof(request));
	await(n, frame, is_arp_reply);
	assert_memory_equal(frame, card, NET_MAC_BYTES);
	assert_memory_equal(frame + 28, ((uint8_t[]){10, 0, 2, 2}), 4);
	/* Rubbish hurts nobody. */
	for (size_t size = 1; size < 200; size++)
		say(n, memset(frame, (int)size, size), size);
	say(n, request, sizeof(request));
	await(n, frame, is_arp_reply);
	assert_int_equal(net_receive(n, frame, NET_FRAME_MAX), -EAGAIN);
	net_close(n);
	free(frame);
}

static bool is_syn(const uint8_t *f, size_t size)
{
	return size >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6 && (f[47] & 2) && f[36] == 0 &&
	       f[37] == 22;
}

/* A connection to the host's port asks the guest who it is, then knocks at its port. */
static void test_user_forward(void **state)
{
	uint8_t request[42], *frame = malloc(NET_FRAME_MAX);
	char spec[80];
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(a);
	/* A port that is free now. */
	int probe = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(probe, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(probe, (struct sockaddr *)&a, &length), 0);
	close(probe);
	snprintf(spec, sizeof(spec), "user,hostfwd=tcp::%u-:22", ntohs(a.sin_port));
	struct net *n = start(spec);
	int s = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(s, (struct sockaddr *)&a, sizeof(a)), 0);
	await(n, frame, is_arp_request);
	arp(request, 2, (uint8_t[]){10, 0, 2, 15}, (uint8_t[]){10, 0, 2, 2});
	memcpy(request + 32, frame + 22, NET_MAC_BYTES);
	say(n, request, sizeof(request));
	await(n, frame, is_syn);
	/* Taken twice is an error that names the port. */
	struct net *second;
	struct error e = {0};
	assert_int_not_equal(net_open_user_program(&second, USERNET, spec, &e), 0);
	assert_non_null(strstr(e.text, "cannot listen on tcp port"));
	close(s);
	net_close(n);
	free(frame);
}

/* The process's number, from the only place that says it. */
static pid_t child_of_us(void)
{
	char path[64], text[32] = "";
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	FILE *f = fopen(path, "r");
	if (f && !fgets(text, sizeof(text), f))
		text[0] = 0;
	if (f)
		fclose(f);
	return (pid_t)atoi(text);
}

static void test_user_dies(void **state)
{
	uint8_t *frame = malloc(NET_FRAME_MAX), bytes[60] = {0xff};
	struct net *n = start("user");
	pid_t child = child_of_us();
	if (child <= 0) {
		net_close(n);
		free(frame);
		skip(); /* a kernel without /proc/PID/task/TID/children */
	}
	assert_int_equal(kill(child, SIGKILL), 0);
	struct pollfd p = {.fd = n->fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(net_receive(n, frame, NET_FRAME_MAX), -EPIPE);
	assert_int_equal(net_send(n, &(struct iovec){bytes, sizeof(bytes)}, 1), -EPIPE);
	net_close(n);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left to wait for */
	free(frame);
}

/* Nobody reads at the other end: the caller is told, at once. */
static void test_user_stuck(void **state)
{
	uint8_t bytes[1400] = {0xff};
	struct net *n = start("user");
	pid_t child = child_of_us();
	int r = 0;
	if (child > 0) {
		assert_int_equal(kill(child, SIGSTOP), 0);
		for (unsigned i = 0; i < 100000 && !r; i++)
			r = net_send(n, &(struct iovec){bytes, sizeof(bytes)}, 1);
		assert_int_equal(r, -EAGAIN);
	}
	net_close(n);
}

static void test_user_filter(void **state)
{
	char path[64], line[200];
	bool has_filter = false, has_no_new = false;
	struct net *n = start("user");
	snprintf(path, sizeof(path), "/proc/%d/status", (int)child_of_us());
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		has_filter |= !strncmp(line, "Seccomp:\t2", 10);
		has_no_new |= !strncmp(line, "NoNewPrivs:\t1", 13);
		if (!strncmp(line, "Uid:", 4))
			assert_null(strstr(line, "\t0"));
	}
	assert_true(!f || (has_filter && has_no_new));
	if (f)
		fclose(f);
	net_close(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),     cmocka_unit_test(test_user_keys),
		cmocka_unit_test(test_wrong),	     cmocka_unit_test(test_forwards_full),
		cmocka_unit_test(test_default_mac),  cmocka_unit_test(test_user_arp),
		cmocka_unit_test(test_user_forward), cmocka_unit_test(test_user_dies),
		cmocka_unit_test(test_user_stuck),   cmocka_unit_test(test_user_filter),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
