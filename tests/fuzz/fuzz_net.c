/*
 * Bytes of a network that we did not write: --net's text, what a program says to a vsock, a stream
 * of frames as one machine reads it, and a switch with three hostile ports. What is found is a
 * crash or a sanitizer's report, and a frame that no frame may be.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/net.h"
#include "net/stream.h"
#include "net/switch.h"
#include "virtio/vsock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const uint8_t *data, size_t size)
{
	static const char *const heads[] = {"user,hostfwd=", "user,net=", "tap,", "",
					    "user,",	     "CONNECT "};
	char text[5000];
	struct net_config c;
	struct error e = {0};
	const char *head = size ? heads[data[0] % ARRAY_COUNT(heads)] : "";
	size_t used = strlen(head);
	memcpy(text, head, used);
	for (size_t i = 1; i < size && used + 1 < sizeof(text); i++)
		if (data[i])
			text[used++] = (char)data[i];
	text[used] = 0;
	uint32_t port;
	if (virtio_vsock_greeting(text, &port) && port == UINT32_MAX)
		abort();
	if (!net_parse(&c, text, &e) && c.kind == NET_USER &&
	    (c.user.dhcp_start.s_addr & c.user.mask.s_addr) != c.user.net.s_addr)
		abort();
}

static void check_frame(ssize_t n)
{
	if (n >= 0 && (n < NET_HEADER_BYTES || n > (ssize_t)NET_FRAME_MAX))
		abort();
}

static void receive(const uint8_t *data, size_t size)
{
	static struct net_stream s;
	static uint8_t frame[NET_FRAME_MAX];
	int fds[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		abort();
	memset(&s, 0, offsetof(struct net_stream, in));
	s.in_start = s.in_end = s.out_start = s.out_end = 0;
	s.fd = fds[0];
	for (size_t at = 0; at < size;) {
		size_t part = 1 + data[at] % 61;
		part = part < size - at ? part : size - at;
		if (write(fds[1], data + at, part) != (ssize_t)part)
			break;
		at += part;
		ssize_t n;
		do {
			n = net_stream_receive(&s, frame, sizeof(frame));
			check_frame(n);
		} while (n >= 0);
		if (n == -EPIPE)
			break;
		/* Back to the sender, who reads nothing. */
		if (net_stream_send(&s, &(struct iovec){frame, 60}, 1) == -EPIPE)
			break;
	}
	close(fds[0]);
	close(fds[1]);
}

/* Two bits say which port, six how long the next piece is; a piece is a frame of its own (its
 * addresses are the input's), or bytes as they are. */
static void switched(const uint8_t *data, size_t size)
{
	static struct net_switch *s;
	static char path[64];
	int ports[3];
	if (!s) {
		snprintf(path, sizeof(path), "/tmp/gnomon-fuzz-net-%d", (int)getpid());
		if (net_switch_open(&s, path, NULL))
			abort();
	}
	for (unsigned i = 0; i < 3; i++) {
		ports[i] = net_unix_connect(path, NULL);
		if (ports[i] < 0)
			abort();
		net_switch_turn(s, -1, 0);
	}
	while (size > 1) {
		uint8_t piece[4 + 64] = {0, 0, 0, 14};
		size_t length = data[0] >> 2;
		bool is_frame = data[0] & 3;
		int port = ports[data[0] % 3];
		length = length < size - 1 ? length : size - 1;
		memcpy(piece + (is_frame ? 4 : 0), data + 1, length);
		if (is_frame)
			piece[3] = (uint8_t)(length < 14 ? 14 : length);
		send(port, piece, is_frame ? piece[3] + 4u : length, MSG_NOSIGNAL | MSG_DONTWAIT);
		net_switch_turn(s, -1, 0);
		data += 1 + length;
		size -= 1 + length;
	}
	for (unsigned i = 0; i < 3; i++)
		close(ports[i]);
	while (net_switch_counts(s).ports)
		net_switch_turn(s, -1, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (data[0] % 3) {
	case 0: parse(data + 1, size - 1); break;
	case 1: receive(data + 1, size - 1); break;
	default: switched(data + 1, size - 1); break;
	}
	return 0;
}
