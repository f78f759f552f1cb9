/*
 * qemu-nbd in a process of its own: started with one listening socket, the way systemd starts
 * servers (LISTEN_PID, LISTEN_FDS, descriptor 3), so that it serves the connection that is there
 * already and nothing else. The socket's name is gone before the server runs.
 *
 * It ends when its one client has said goodbye, writing what it still holds, and is killed when it
 * does not. It dies with gnomon: one that has lost its client before they had spoken waits for
 * another for ever, and SIGTERM is lost on it while it starts. What the guest has flushed is on the
 * disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "block/block_private.h"

#define LISTEN_FD 3
#define ENVIRONMENT_MAX 200

static bool find_in_path(char *out, size_t size, const char *program)
{
	const char *path = getenv("PATH");
	while (path && *path) {
		size_t n = strcspn(path, ":");
		if (snprintf(out, size, "%.*s/%s", (int)n, path, program) < (int)size &&
		    !access(out, X_OK))
			return true;
		path += n + (path[n] == ':');
	}
	return false;
}

/* Two ends of a connection that nobody else can make: fds[0] ours, fds[1] listens. */
static int make_sockets(int fds[2], struct error *e)
{
	char folder[] = "/tmp/gnomon-nbd-XXXXXX";
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (!mkdtemp(folder))
		return error_set(e, -errno, "cannot make a folder in /tmp: %s", strerror(errno));
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/socket", folder);
	for (int i = 0; i < 2; i++)
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r = 0;
	if (fds[0] < 0 || fds[1] < 0 || bind(fds[1], (struct sockaddr *)&a, sizeof(a)) ||
	    listen(fds[1], 1) || connect(fds[0], (struct sockaddr *)&a, sizeof(a)))
		r = error_set(e, -errno, "no socket for the disk: %s", strerror(errno));
	unlink(a.sun_path);
	rmdir(folder);
	for (int i = 0; r && i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return r;
}

/* Other threads may hold locks of the C library: from fork() on only what a signal handler may. */
static void write_decimal(char *to, unsigned value)
{
	char digits[12];
	unsigned n = 0;
	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		*to++ = digits[--n];
	*to = 0;
}

static _Noreturn void become_server(const char *program, char *const *argv, int listener,
				    char **environment, char *own_pid, pid_t parent)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	setpgid(0, 0); /* Ctrl-C is for us */
	write_decimal(own_pid, (unsigned)getpid());
	if (listener == LISTEN_FD ? !fcntl(listener, F_SETFD, 0)
				  : dup2(listener, LISTEN_FD) == LISTEN_FD) {
		close_range(LISTEN_FD + 1, ~0u, 0);
		execve(program, argv, environment);
	}
	_exit(127);
}

int nbd_server_start(struct nbd_server *s, const char *const *argv, struct error *e)
{
	extern char **environ;
	char program[4096], own_pid[32] = "LISTEN_PID=", fds_text[] = "LISTEN_FDS=1";
	char *environment[ENVIRONMENT_MAX + 3];
	int fds[2] = {-1, -1}, n = 0;
	if (!find_in_path(program, sizeof(program), argv[0]))
		return error_set(e, -ENOENT, "the program %s (Debian: qemu-utils) is missing",
				 argv[0]);
	/* The first of a name counts: gnomon itself may have been given sockets. */
	environment[n++] = own_pid;
	environment[n++] = fds_text;
	for (char **from = environ; *from && n < ENVIRONMENT_MAX + 2; from++)
		environment[n++] = *from;
	environment[n] = NULL;
	int r = make_sockets(fds, e);
	if (r)
		return r;
	pid_t parent = getpid();
	s->pid = fork();
	if (!s->pid)
		become_server(program, (char *const *)argv, fds[1], environment,
			      own_pid + strlen(own_pid), parent);
	if (s->pid < 0)
		r = error_set(e, -errno, "cannot start %s: %s", argv[0], strerror(errno));
	close(fds[1]);
	if (r)
		close(fds[0]);
	else
		s->fd = fds[0];
	return r;
}

void nbd_server_end(struct nbd_server *s, unsigned grace_ms)
{
	const struct timespec a_little = {.tv_nsec = 5000000};
	if (s->pid <= 0)
		return;
	for (unsigned ms = 0; !waitpid(s->pid, NULL, WNOHANG); ms += 5) {
		if (ms >= grace_ms) {
			if (grace_ms)
				log_warn("disk: qemu-nbd does not end and is killed");
			kill(s->pid, SIGKILL);
			waitpid(s->pid, NULL, 0);
			break;
		}
		nanosleep(&a_little, NULL);
	}
	s->pid = 0;
}
