/*
 * What a process of ours gives up: each forbidden thing is tried in a child, and so is what must go
 * on working. A kernel without seccomp or Landlock skips, loudly.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/landlock.h"
#include "sandbox/sandbox.h"

#include <cmocka.h>

#define TOLD 77
#define FAILED 78

static void told(int number, siginfo_t *info, void *context)
{
	_exit(TOLD);
}

/* How a child ends that enters the sandbox and does `what`: an exit code, or 128 + a signal. */
static int try_it(enum sandbox_mode mode, unsigned grants, int (*what)(void))
{
	static const char *const calls[] = {"clock_getres", "set_robust_list", NULL};
	const struct sandbox box = {.name = "test",
				    .calls = calls,
				    .grants = grants,
				    .keeps_identity = true,
				    .keeps_dumps = true,
				    .mode = mode};
	struct error e = {0};
	int status;
	pid_t pid = fork();
	if (!pid) {
		const struct sigaction tell = {.sa_sigaction = told, .sa_flags = SA_SIGINFO};
		sigaction(SIGSYS, &tell, NULL);
		_exit(sandbox_enter(&box, &e) ? FAILED : what());
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int do_nothing(void)
{
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) < 0; /* prctl() is forbidden */
}

static int do_memory(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	free(malloc(1 << 20));
	return p == MAP_FAILED || munmap(p, 4096);
}

static int do_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED;
}

static int do_code_later(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static int do_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static int do_unix(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/nowhere/at/all"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	return fd < 0 || !connect(fd, (struct sockaddr *)&a, sizeof(a)) || errno != ENOENT;
}

static int do_fork(void)
{
	pid_t pid = fork();
	if (!pid)
		_exit(0);
	return pid < 0;
}

static int do_exec(void)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

static void *thread(void *opaque)
{
	return opaque;
}

/* A sanitizer does more at a thread's birth than a filter for programs lets it. */
#if defined(__SANITIZE_ADDRESS__)
#define IS_SANITIZED true
#elif defined(__has_feature)
#define IS_SANITIZED __has_feature(address_sanitizer)
#else
#define IS_SANITIZED false
#endif

static int do_thread(void)
{
	static int mark;
	pthread_t t;
	void *result = NULL;
	return pthread_create(&t, NULL, thread, &mark) || pthread_join(t, &result) ||
	       result != &mark;
}

static int do_type(void)
{
	char c = 'x';
	return ioctl(0, TIOCSTI, &c) == 0;
}

/* The kernel ignores the upper half of a request: so must the filter. */
static int do_type_wide(void)
{
	char c = 'x';
	return syscall(16 /* ioctl */, 0, TIOCSTI | 1ull << 32, &c) == 0;
}

static int do_size(void)
{
	struct winsize w;
	ioctl(0, TIOCGWINSZ, &w);
	return 0;
}

static void test_calls(void **state)
{
	const unsigned all = SANDBOX_OPEN | SANDBOX_THREADS | SANDBOX_DEVICES;
	static const struct {
		int (*what)(void);
		unsigned grants;
		bool is_allowed;
	} cases[] = {
		{do_nothing, SANDBOX_OPEN, false},
		{do_memory, 0, true},
		{do_code, SANDBOX_OPEN, false},
		{do_code_later, 0, false},
		{do_socket, SANDBOX_OPEN, false},
		{do_fork, 0, false},
		{do_fork, SANDBOX_THREADS, false},
		{do_exec, SANDBOX_THREADS, false},
		{do_thread, SANDBOX_THREADS, true},
		{do_type, SANDBOX_DEVICES, false},
		{do_type_wide, SANDBOX_DEVICES, false},
		{do_size, SANDBOX_DEVICES, true},
		{do_size, 0, false},
		{do_unix, SANDBOX_UNIX, true},
		{do_unix, SANDBOX_OPEN, false},
		{do_socket, SANDBOX_UNIX, false},
	};
	if (try_it(SANDBOX_TELLS, all, do_memory) == FAILED) {
		print_message("skip: this kernel has no seccomp\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		if (IS_SANITIZED && cases[i].what == do_thread)
			continue;
		int code = try_it(SANDBOX_TELLS, cases[i].grants, cases[i].what);
		if (code != (cases[i].is_allowed ? 0 : TOLD))
			fail_msg("case %zu ended with %d", i, code);
		code = try_it(SANDBOX_KILLS, cases[i].grants, cases[i].what);
		if (code != (cases[i].is_allowed ? 0 : 128 + SIGSYS))
			fail_msg("case %zu, killed, ended with %d", i, code);
	}
	assert_int_equal(try_it(SANDBOX_LOGS, 0, do_socket), 0);
}

/* ---- files ---- */

static char folder[] = "/tmp/gnomon-test-XXXXXX";

static const char *in(const char *name)
{
	static char path[2][80];
	static unsigned turn;
	char *p = path[turn++ % 2];
	snprintf(p, sizeof(path[0]), "%s/%s", folder, name);
	return p;
}

static int opens(const char *name, int flags)
{
	int fd = open(in(name), flags | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* Each line is a law; the number of the broken one is the exit code. */
static int check_files(void)
{
	if (opens("readable", O_RDONLY))
		return 1;
	if (opens("readable", O_WRONLY) != -EACCES)
		return 2;
	if (opens("secret", O_RDONLY) != -EACCES)
		return 3;
	if (opens("out/new", O_RDWR | O_CREAT))
		return 4;
	if (rename(in("out/new"), in("out/newer")))
		return 5;
	if (opens("out/newer", O_WRONLY | O_TRUNC) || unlink(in("out/newer")))
		return 6;
	if (opens("sockets/new", O_RDWR | O_CREAT) != -EACCES)
		return 7;
	if (unlink(in("sockets/old")))
		return 8;
	if (opens("new", O_RDWR | O_CREAT) != -EACCES)
		return 9;
	if (!unlink(in("secret")))
		return 10;
	return 0;
}

static void make(const char *name)
{
	int fd = open(in(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static void test_files(void **state)
{
	static const char *const names[] = {"readable", "secret", "sockets/old"};
	assert_non_null(mkdtemp(folder));
	mkdir(in("out"), 0700);
	mkdir(in("sockets"), 0700);
	for (size_t i = 0; i < ARRAY_COUNT(names); i++)
		make(names[i]);
	int status;
	pid_t pid = fork();
	if (!pid) {
		char readable[80], out[80], sockets[80];
		snprintf(readable, sizeof(readable), "%s/readable", folder);
		snprintf(out, sizeof(out), "%s/out", folder);
		snprintf(sockets, sizeof(sockets), "%s/sockets", folder);
		const struct landlock_place places[] = {{readable, LANDLOCK_READ},
							{out, LANDLOCK_CHANGE},
							{sockets, LANDLOCK_REMOVE},
							{"/nowhere/at/all", LANDLOCK_READ}};
		int r = landlock_enter(places, ARRAY_COUNT(places), NULL);
		_exit(r == -ENOSYS ? TOLD : r ? FAILED : check_files());
	}
	waitpid(pid, &status, 0);
	for (size_t i = 0; i < ARRAY_COUNT(names); i++)
		unlink(in(names[i]));
	rmdir(in("out"));
	rmdir(in("sockets"));
	rmdir(folder);
	if (WEXITSTATUS(status) == TOLD) {
		print_message("skip: this kernel has no Landlock\n");
		skip();
	}
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
