#include "vm/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "vm/poller.h"
#include "vm/serial_output.h"

enum serial_kind {
	SERIAL_NULL,
	SERIAL_STDIO,
	SERIAL_FILE,
	SERIAL_PTY,
	SERIAL_UNIX,
	SERIAL_UNIX_SERVER
};

#define ESCAPE_KEY 1 /* Ctrl-A */
#define INPUT_BYTES 256

struct serial {
	enum serial_kind kind;
	struct poller *poller; /* borrowed */
	struct serial_sink sink, monitor;
	struct serial_escape escape;
	bool is_diverted;
	bool is_escaped; /* the last byte was Ctrl-A */
	int in;		 /* -1: none */
	int listener;	 /* -1: none */
	int slave;	 /* our own end of the pseudo-terminal, which keeps it from hanging up */
	char path[108];
	struct termios cooked;
	bool has_cooked, is_raw;
	uint8_t input[INPUT_BYTES];
	size_t input_count;
	struct serial_output output;
};

static int parse(const char *spec, enum serial_kind *kind, const char **path, size_t *path_length,
		 struct error *e)
{
	*path = "";
	*path_length = 0;
	if (!strcmp(spec, "stdio") || !strcmp(spec, "mon:stdio")) {
		*kind = SERIAL_STDIO;
		return 0;
	}
	if (!strcmp(spec, "null") || !strcmp(spec, "none")) {
		*kind = SERIAL_NULL;
		return 0;
	}
	if (!strcmp(spec, "pty")) {
		*kind = SERIAL_PTY;
		return 0;
	}
	bool is_file = !strncmp(spec, "file:", 5);
	if (!is_file && strncmp(spec, "unix:", 5))
		return error_set(e, -EINVAL,
				 "'%s' is no serial backend: use stdio, file:PATH, pty, "
				 "unix:PATH, unix:PATH,server or null",
				 spec);
	*path = spec + 5;
	*path_length = strlen(*path);
	*kind = is_file ? SERIAL_FILE : SERIAL_UNIX;
	const char *comma = is_file ? NULL : strchr(*path, ',');
	if (comma) {
		*path_length = (size_t)(comma - *path);
		if (strcmp(comma, ",server") && strcmp(comma, ",server=on,wait=off") &&
		    strcmp(comma, ",server,nowait"))
			return error_set(e, -EINVAL,
					 "'%s': after the path only ',server' may follow", spec);
		*kind = SERIAL_UNIX_SERVER;
	}
	if (!*path_length)
		return error_set(e, -EINVAL, "'%s': the path is missing", spec);
	if (!is_file && *path_length >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return error_set(e, -ENAMETOOLONG,
				 "'%s': a socket's path has at most 107 characters", spec);
	return 0;
}

int serial_check(const char *spec, struct error *e)
{
	enum serial_kind kind;
	const char *path;
	size_t length;
	return parse(spec, &kind, &path, &length, e);
}

static void write_to(struct serial *s, int fd)
{
	serial_output_set(&s->output, s->poller, fd, fd == s->in);
}

/* ---- input ---- */

static size_t offer(struct serial *s, const uint8_t *bytes, size_t count)
{
	const struct serial_sink *sink = s->is_diverted ? &s->monitor : &s->sink;
	return sink->receive ? sink->receive(sink->opaque, bytes, count) : count;
}

static void deliver(struct serial *s)
{
	size_t taken = offer(s, s->input, s->input_count);
	memmove(s->input, s->input + taken, s->input_count - taken);
	s->input_count -= taken;
	poller_enable(s->poller, s->in, s->input_count < INPUT_BYTES / 2);
}

static void escape_key(struct serial *s, uint8_t key)
{
	if (key == ESCAPE_KEY || key == 'a')
		s->input[s->input_count++] = ESCAPE_KEY;
	else if (key == 's' && s->sink.send_break)
		s->sink.send_break(s->sink.opaque);
	else if (s->escape.pressed)
		s->escape.pressed(s->escape.opaque, (char)key);
}

/* `count` fits into what is free of s->input. */
static void take(struct serial *s, const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (s->is_escaped) {
			s->is_escaped = false;
			/* What was typed before belongs to the side that was listening then. */
			deliver(s);
			escape_key(s, bytes[i]);
		} else if (s->kind == SERIAL_STDIO && bytes[i] == ESCAPE_KEY) {
			s->is_escaped = true;
		} else {
			s->input[s->input_count++] = bytes[i];
		}
	}
	deliver(s);
}

static void input_lost(struct serial *s)
{
	poller_remove(s->poller, s->in);
	if (s->kind == SERIAL_UNIX || s->kind == SERIAL_UNIX_SERVER) {
		close(s->in);
		write_to(s, -1);
	}
	s->in = -1;
}

static void readable(void *opaque, int fd)
{
	struct serial *s = opaque;
	uint8_t bytes[INPUT_BYTES];
	size_t room = INPUT_BYTES - s->input_count;
	if (!room) {
		deliver(s);
		return;
	}
	ssize_t n = read(fd, bytes, room);
	if (n > 0)
		take(s, bytes, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		input_lost(s);
}

static int watch_input(struct serial *s)
{
	int r = poller_add(s->poller, s->in, (struct poller_watch){readable, s});
	if (!r)
		poller_set_waker(s->poller, s->in, true);
	return r;
}

static void connected(void *opaque, int fd)
{
	struct serial *s = opaque;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client < 0)
		return;
	if (s->in >= 0) {
		close(client); /* one at a time */
		return;
	}
	s->in = client;
	write_to(s, client);
	if (watch_input(s))
		input_lost(s);
}

/* ---- output ---- */

void serial_write(struct serial *s, const uint8_t *bytes, size_t count)
{
	serial_output_add(&s->output, bytes, count);
}

void serial_pump(struct serial *s)
{
	if (s->input_count)
		deliver(s);
	serial_output_flush(&s->output);
}

void serial_settle(struct serial *s)
{
	serial_output_settle(&s->output);
}

/* ---- opening ---- */

void serial_terminal_enter(struct serial *s)
{
	if (!s->has_cooked)
		return;
	struct termios raw = s->cooked;
	raw.c_iflag &=
		~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	s->is_raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

void serial_terminal_leave(struct serial *s)
{
	if (s->is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &s->cooked);
	s->is_raw = false;
}

static int open_stdio(struct serial *s, struct error *e)
{
	s->in = STDIN_FILENO;
	write_to(s, serial_output_without_waiting(STDOUT_FILENO));
	if (fcntl(s->in, F_GETFD) < 0) {
		s->in = -1;
		return 0;
	}
	if (isatty(s->in) && tcgetattr(s->in, &s->cooked) == 0) {
		s->has_cooked = true;
		serial_terminal_enter(s);
	}
	if (watch_input(s))
		return error_set(e, -ENOSPC, "too many open serial backends");
	return 0;
}

static int open_pty(struct serial *s, struct error *e)
{
	s->in = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (s->in < 0 || grantpt(s->in) || unlockpt(s->in) ||
	    ptsname_r(s->in, s->path, sizeof(s->path)))
		return error_set(e, -errno, "no pseudo-terminal: %s", strerror(errno));
	write_to(s, s->in);
	s->slave = open(s->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios t;
	if (s->slave >= 0 && tcgetattr(s->slave, &t) == 0) {
		cfmakeraw(&t);
		tcsetattr(s->slave, TCSANOW, &t);
	}
	return watch_input(s);
}

static int unix_address(struct sockaddr_un *a, const char *path)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(a->sun_path, path, strnlen(path, sizeof(a->sun_path) - 1));
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int open_unix(struct serial *s, struct error *e)
{
	struct sockaddr_un a;
	int fd = unix_address(&a, s->path);
	if (fd < 0)
		return error_set(e, -errno, "no socket: %s", strerror(errno));
	if (s->kind == SERIAL_UNIX) {
		s->in = fd;
		write_to(s, fd);
		if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
			return error_set(e, -errno, "cannot connect to '%s': %s", s->path,
					 strerror(errno));
		return watch_input(s);
	}
	s->listener = fd;
	/* Our own socket from an earlier run is replaced; anything else at that path is not ours to
	 * remove. */
	struct stat st;
	if (lstat(s->path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(s->path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 1)) {
		int code = -errno;
		char path[sizeof(s->path)];
		memcpy(path, s->path, sizeof(path));
		s->path[0] = 0;
		return error_set(e, code, "cannot listen at '%s': %s", path, strerror(-code));
	}
	int r = poller_add(s->poller, fd, (struct poller_watch){connected, s});
	poller_set_waker(s->poller, fd, true);
	return r;
}

/* A pipe's other end may be waited for here, and not any more later. */
static int open_file(struct serial *s, const char *path, struct error *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK))
		return error_set(e, -errno, "cannot write '%s': %s", path, strerror(errno));
	write_to(s, fd);
	return 0;
}

static int open_kind(struct serial *s, const char *path, struct error *e)
{
	switch (s->kind) {
	case SERIAL_NULL: return 0;
	case SERIAL_STDIO: return open_stdio(s, e);
	case SERIAL_PTY: return open_pty(s, e);
	case SERIAL_FILE: return open_file(s, path, e);
	case SERIAL_UNIX:
	case SERIAL_UNIX_SERVER: return open_unix(s, e);
	}
	return -EINVAL;
}

int serial_open(struct serial **out, const char *spec, struct poller *poller, struct error *e)
{
	enum serial_kind kind;
	const char *path;
	size_t length;
	int r = parse(spec, &kind, &path, &length, e);
	if (r)
		return r;
	struct serial *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(e, -ENOMEM, "out of memory");
	s->kind = kind;
	s->poller = poller;
	s->in = s->output.fd = s->listener = s->slave = -1;
	if (kind == SERIAL_UNIX || kind == SERIAL_UNIX_SERVER)
		memcpy(s->path, path, length);
	r = open_kind(s, path, e);
	if (r) {
		serial_close(s);
		return r;
	}
	*out = s;
	return 0;
}

void serial_close(struct serial *s)
{
	if (!s)
		return;
	int out = s->output.fd;
	serial_output_end(&s->output);
	serial_terminal_leave(s);
	poller_remove(s->poller, s->in);
	poller_remove(s->poller, s->listener);
	if (out >= 0 && out != s->in && (s->kind != SERIAL_STDIO || out != STDOUT_FILENO))
		close(out);
	if (s->in >= 0 && s->kind != SERIAL_STDIO)
		close(s->in);
	if (s->slave >= 0)
		close(s->slave);
	if (s->listener >= 0) {
		close(s->listener);
		if (s->path[0])
			unlink(s->path);
	}
	free(s);
}

void serial_set_sink(struct serial *s, struct serial_sink sink)
{
	s->sink = sink;
}

void serial_set_escape(struct serial *s, struct serial_escape escape)
{
	s->escape = escape;
}

void serial_divert(struct serial *s, const struct serial_sink *monitor)
{
	s->is_diverted = monitor != NULL;
	if (monitor)
		s->monitor = *monitor;
}

bool serial_is_diverted(const struct serial *s)
{
	return s->is_diverted;
}

bool serial_is_stdio(const struct serial *s)
{
	return s->kind == SERIAL_STDIO;
}

bool serial_is_interactive(const struct serial *s)
{
	return s->kind == SERIAL_PTY || s->kind == SERIAL_UNIX || s->kind == SERIAL_UNIX_SERVER ||
	       s->has_cooked;
}

const char *serial_path(const struct serial *s)
{
	return s->kind == SERIAL_PTY ? s->path : NULL;
}
