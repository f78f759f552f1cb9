/*
 * Frames in a stream of bytes: the protocol of our switch, which is that of QEMU's
 * `-netdev stream`, of passt and of others: each frame has its length in front of it, 32 bits, most
 * significant byte first. Nothing else is ever sent.
 *
 * A receiver ends the connection at a length that no frame has: there is no way to find the next
 * one. A sender that cannot send at once drops whole frames, never parts.
 */
#pragma once

#include "net/net.h"

struct iovec;

#define NET_STREAM_HEADER 4
/* What is waiting to be sent when the other side reads slowly; frames beyond it are not taken. */
#define NET_STREAM_QUEUE (256u << 10)

struct net_stream {
	int fd; /* borrowed; not blocking */
	uint8_t in[2 * (NET_STREAM_HEADER + NET_FRAME_MAX)];
	size_t in_start, in_end;
	uint8_t out[NET_STREAM_QUEUE];
	size_t out_start, out_end;
};

/* As net_ops has them. */
int net_stream_send(struct net_stream *s, const struct iovec *parts, unsigned part_count);
ssize_t net_stream_receive(struct net_stream *s, uint8_t *frame, size_t room);
/* What is waiting goes out as far as it can; 0, -EAGAIN if some is left, -EPIPE. */
int net_stream_flush(struct net_stream *s);

/* The bytes of the frame at the start of `bytes`, which begins with its length: -EAGAIN if there
 * are too few to say or the frame is not all there, -EPROTO if no frame is so long. */
ssize_t net_stream_frame(const uint8_t *bytes, size_t count);

/* Connects to a unix socket, or listens there; an open descriptor, close-on-exec and not blocking,
 * or an error with its message. A socket that nobody listens at any more is replaced. */
int net_unix_connect(const char *path, struct error *e);
int net_unix_listen(const char *path, struct error *e);
