#include "sandbox/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 10000
#define SOCKET_BYTES (4 << 20)

/* Beside our own program, or where `meson install` puts it. */
static int find_program(char *path, size_t size, const char *name, struct error *e)
{
	static const char *const places[] = {"", "../libexec/gnomon/"};
	char self[4000];
	if (strchr(name, '/'))
		return snprintf(path, size, "%s", name) < (int)size
			       ? 0
			       : error_set(e, -ENAMETOOLONG, "%s: is too long", name);
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;
	if (!slash)
		return error_set(e, -ENOENT, "cannot tell where %s is", name);
	slash[1] = 0;
	for (size_t i = 0; i < ARRAY_COUNT(places); i++)
		if (snprintf(path, size, "%s%s%s", self, places[i], name) < (int)size &&
		    !access(path, X_OK))
			return 0;
	return error_set(e, -ENOENT, "%s is missing: it belongs beside gnomon, in %s", name, self);
}

/* The socket becomes CHILD_FD, all others are gone. A process group of its own: Ctrl-C is for us.
 */
static int spawn(struct child *c, const char *program, char *const *argv, int fd, struct error *e)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none;
	char *const environment[] = {NULL};
	sigemptyset(&none);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attributes);
	posix_spawn_file_actions_adddup2(&files, fd, CHILD_FD);
	for (int i = 0; i < CHILD_FD; i++)
		posix_spawn_file_actions_addopen(&files, i, "/dev/null", i ? O_WRONLY : O_RDONLY,
						 0);
	posix_spawn_file_actions_addclosefrom_np(&files, CHILD_FD + 1);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	int r = posix_spawn(&c->pid, program, &files, &attributes, argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	return r ? error_set(e, -r, "cannot start %s: %s", program, strerror(r)) : 0;
}

static int await_start(struct child *c, const char *program, struct error *e)
{
	char text[sizeof(e->text)];
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	if (poll(&p, 1, START_MS) <= 0)
		return error_set(e, -ETIMEDOUT, "%s does not come up", program);
	ssize_t n = recv(c->fd, text, sizeof(text) - 1, MSG_DONTWAIT);
	if (n <= 0)
		return error_set(e, -EPIPE, "%s ended before it had come up", program);
	text[n] = 0;
	return strcmp(text, "ok") ? error_set(e, -EIO, "%s", text) : 0;
}

static int make_sockets(int fds[2], struct error *e)
{
	int bytes = SOCKET_BYTES;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return error_set(e, -errno, "no socket: %s", strerror(errno));
	/* More than the host's limit is for root; the limit is still enough. */
	for (int i = 0; i < 2; i++)
		if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)))
			setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	return 0;
}

int child_start(struct child *c, const char *program, const char *const *arguments, struct error *e)
{
	char path[4096];
	const char *argv[CHILD_ARGUMENTS_MAX + 2] = {program};
	int fds[2];
	for (unsigned i = 0; i < CHILD_ARGUMENTS_MAX && arguments[i]; i++)
		argv[i + 1] = arguments[i];
	*c = (struct child){.fd = -1};
	int r = find_program(path, sizeof(path), program, e);
	if (!r)
		r = make_sockets(fds, e);
	if (r)
		return r;
	c->fd = fds[0];
	r = spawn(c, path, (char *const *)argv, fds[1], e);
	close(fds[1]);
	if (!r)
		r = await_start(c, program, e);
	if (r)
		child_end(c);
	return r;
}

void child_end(struct child *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->pid > 0) {
		kill(c->pid, SIGKILL);
		while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	*c = (struct child){.fd = -1};
}

/* ---- for the program ---- */

void child_begin(void)
{
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

bool child_say_started(int r, const struct error *e)
{
	const char *word = r ? e->text : "ok";
	return send(CHILD_FD, word, strlen(word), MSG_NOSIGNAL) >= 0 && !r;
}
