#include "cli/signals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "vm/poller.h"

struct signals {
	int fd;
	struct poller *poller; /* borrowed */
	void (*arrived)(void *opaque, int number);
	void *opaque; /* borrowed */
};

static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGTSTP, SIGCONT};
static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

static void fill(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < ARRAY_COUNT(wanted); i++)
		sigaddset(set, wanted[i]);
}

void signals_restore_terminal(void)
{
	struct termios t;
	if (tcgetattr(STDIN_FILENO, &t) == 0) {
		t.c_iflag |= ICRNL | IXON;
		t.c_lflag |= ECHO | ICANON | IEXTEN | ISIG;
		tcsetattr(STDIN_FILENO, TCSANOW, &t);
	}
}

/* We are dying: a terminal in a usual mode is all that can still be done. The disposition is the
 * default again. */
static void crashed(int number)
{
	signals_restore_terminal();
	raise(number);
}

void signals_block(void)
{
	sigset_t set;
	fill(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	struct sigaction action = {.sa_handler = crashed, .sa_flags = SA_RESETHAND | SA_NODEFER};
	for (size_t i = 0; isatty(STDIN_FILENO) && i < ARRAY_COUNT(fatal); i++)
		sigaction(fatal[i], &action, NULL);
}

static void readable(void *opaque, int fd)
{
	struct signals *s = opaque;
	struct signalfd_siginfo info;
	if (read(fd, &info, sizeof(info)) == sizeof(info))
		s->arrived(s->opaque, (int)info.ssi_signo);
}

int signals_open(struct signals **out, struct poller *poller,
		 void (*arrived)(void *opaque, int number), void *opaque, struct error *e)
{
	sigset_t set;
	fill(&set);
	struct signals *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(e, -ENOMEM, "out of memory");
	*s = (struct signals){.poller = poller, .arrived = arrived, .opaque = opaque};
	s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	int r = s->fd < 0 ? -errno : poller_add(poller, s->fd, (struct poller_watch){readable, s});
	if (r) {
		signals_close(s);
		return error_set(e, r, "no signal file: %s", strerror(-r));
	}
	*out = s;
	return 0;
}

void signals_close(struct signals *s)
{
	if (!s)
		return;
	poller_remove(s->poller, s->fd);
	if (s->fd >= 0)
		close(s->fd);
	free(s);
	sigset_t set;
	fill(&set);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}
