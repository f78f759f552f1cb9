#include "net/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/private.h"

ssize_t net_stream_frame(const uint8_t *bytes, size_t count)
{
	if (count < NET_STREAM_HEADER)
		return -EAGAIN;
	uint32_t length = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 |
			  (uint32_t)bytes[2] << 8 | bytes[3];
	if (length < NET_HEADER_BYTES || length > NET_FRAME_MAX)
		return -EPROTO;
	return count - NET_STREAM_HEADER < length ? -EAGAIN : (ssize_t)length;
}

/* ---- in ---- */

static ssize_t take(struct net_stream *s, uint8_t *frame, size_t room)
{
	const uint8_t *at = s->in + s->in_start;
	ssize_t length = net_stream_frame(at, s->in_end - s->in_start);
	if (length == -EPROTO || length > (ssize_t)room)
		return -EPIPE;
	if (length < 0)
		return length;
	memcpy(frame, at + NET_STREAM_HEADER, (size_t)length);
	s->in_start += NET_STREAM_HEADER + (size_t)length;
	return length;
}

ssize_t net_stream_receive(struct net_stream *s, uint8_t *frame, size_t room)
{
	ssize_t length = take(s, frame, room);
	if (length != -EAGAIN)
		return length;
	/* Half of `in` holds any frame, so there is always room behind what is left. */
	s->in_end -= s->in_start;
	memmove(s->in, s->in + s->in_start, s->in_end);
	s->in_start = 0;
	ssize_t got = recv(s->fd, s->in + s->in_end, sizeof(s->in) - s->in_end, MSG_DONTWAIT);
	if (got <= 0)
		return got ? net_io_error(errno) : -EPIPE;
	s->in_end += (size_t)got;
	return take(s, frame, room);
}

/* ---- out ---- */

int net_stream_flush(struct net_stream *s)
{
	while (s->out_start < s->out_end) {
		ssize_t n = send(s->fd, s->out + s->out_start, s->out_end - s->out_start,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return net_io_error(errno) == -EAGAIN ? -EAGAIN : -EPIPE;
		s->out_start += (size_t)n;
	}
	s->out_start = s->out_end = 0;
	return 0;
}

int net_stream_send(struct net_stream *s, const struct iovec *parts, unsigned part_count)
{
	size_t length = 0;
	for (unsigned i = 0; i < part_count; i++)
		length += parts[i].iov_len;
	if (length < NET_HEADER_BYTES || length > NET_FRAME_MAX)
		return -EINVAL;
	int r = net_stream_flush(s);
	if (r == -EPIPE)
		return r;
	if (s->out_end + NET_STREAM_HEADER + length > sizeof(s->out)) {
		memmove(s->out, s->out + s->out_start, s->out_end - s->out_start);
		s->out_end -= s->out_start;
		s->out_start = 0;
		if (s->out_end + NET_STREAM_HEADER + length > sizeof(s->out))
			return -EAGAIN;
	}
	uint8_t *at = s->out + s->out_end;
	at[0] = (uint8_t)(length >> 24);
	at[1] = (uint8_t)(length >> 16);
	at[2] = (uint8_t)(length >> 8);
	at[3] = (uint8_t)length;
	at += NET_STREAM_HEADER;
	for (unsigned i = 0; i < part_count; i++) {
		memcpy(at, parts[i].iov_base, parts[i].iov_len);
		at += parts[i].iov_len;
	}
	s->out_end = (size_t)(at - s->out);
	return net_stream_flush(s) == -EPIPE ? -EPIPE : 0;
}

/* ---- sockets ---- */

static int unix_socket(struct sockaddr_un *a, const char *path, struct error *e)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof(a->sun_path))
		return error_set(e, -ENAMETOOLONG, "'%s': a socket's path has 1 to 107 characters",
				 path);
	memcpy(a->sun_path, path, strlen(path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? error_set(e, -errno, "no socket: %s", strerror(errno)) : fd;
}

int net_unix_connect(const char *path, struct error *e)
{
	struct sockaddr_un a;
	int fd = unix_socket(&a, path, e);
	if (fd < 0 || !connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fd;
	int code = -errno;
	close(fd);
	return error_set(e, code, "cannot connect to '%s': %s", path, strerror(-code));
}

int net_unix_listen(const char *path, struct error *e)
{
	struct sockaddr_un a;
	struct stat st;
	int old = net_unix_connect(path, NULL);
	if (old >= 0) {
		close(old);
		return error_set(e, -EADDRINUSE, "somebody listens at '%s' already", path);
	}
	/* Left behind by one that was killed; anything but a socket is not ours to remove. */
	if (old == -ECONNREFUSED && !lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
	int fd = unix_socket(&a, path, e);
	if (fd < 0)
		return fd;
	mode_t mask = umask(0177);
	int r = bind(fd, (struct sockaddr *)&a, sizeof(a));
	int code = -errno;
	umask(mask);
	if (!r && !listen(fd, 16))
		return fd;
	code = r ? code : -errno;
	close(fd);
	return error_set(e, code, "cannot listen at '%s': %s", path, strerror(-code));
}
