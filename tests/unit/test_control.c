/*
 * The control socket: what is asked and answered, and clients that are slow, many, loud or gone,
 * none of which may hold up the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "control/client.h"
#include "control/control.h"
#include "vm/poller.h"
#include "vm/vm.h"

#include <cmocka.h>

struct world {
	struct vm *vm;
	struct control *control;
	char folder[32], image[64], path[64];
	unsigned stops;
	bool is_at_once;
};

static void stop(void *opaque, bool is_at_once)
{
	struct world *w = opaque;
	w->stops++;
	w->is_at_once = is_at_once;
}

static void open_it(struct world *w)
{
	struct error e = {0};
	assert_int_equal(
		control_open(&w->control, w->vm, "me", w->path, (struct control_host){stop, w}, &e),
		0);
}

static int setup(void **state)
{
	static const uint8_t program[512] = {0xf4, [510] = 0x55, [511] = 0xaa};
	struct world *w = calloc(1, sizeof(*w));
	struct vm_config config;
	struct error e = {0};
	strcpy(w->folder, "/tmp/gnomon-test-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->image, sizeof(w->image), "%s/image", w->folder);
	snprintf(w->path, sizeof(w->path), "%s/me.sock", w->folder);
	int fd = open(w->image, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(write(fd, program, sizeof(program)), sizeof(program));
	close(fd);
	vm_config_defaults(&config);
	config.kernel = w->image;
	config.kernel_format = BOOT_FORMAT_RAW;
	config.memory_bytes = 2 << 20;
	config.cpu_count = 2;
	assert_int_equal(vm_create(&w->vm, &config, &e), 0);
	open_it(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	control_close(w->control);
	vm_destroy(w->vm);
	unlink(w->image);
	assert_int_equal(rmdir(w->folder), 0); /* nothing was left behind */
	free(w);
	return 0;
}

static int dial(struct world *w)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, w->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	poller_wait(vm_poller(w->vm), 0);
	return fd;
}

static void say(struct world *w, int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	poller_wait(vm_poller(w->vm), 0);
}

/* Takes one answer; serves meanwhile. */
static json_t *hear(struct world *w, int fd)
{
	static char text[CONTROL_ANSWER_BYTES];
	size_t length = 0;
	for (unsigned i = 0; i < 100000 && (!length || text[length - 1] != '\n'); i++) {
		ssize_t n = recv(fd, text + length, 1, MSG_DONTWAIT);
		if (n == 1)
			length++;
		else
			poller_wait(vm_poller(w->vm), 0);
	}
	assert_true(length > 0);
	json_t *answer = json_loadb(text, length, 0, NULL);
	assert_non_null(answer);
	assert_int_equal(json_integer_value(json_object_get(answer, "version")), CONTROL_VERSION);
	return answer;
}

static const char *failure(const json_t *answer)
{
	assert_true(json_is_false(json_object_get(answer, "ok")));
	json_t *error = json_object_get(answer, "error");
	assert_true(json_string_length(json_object_get(error, "text")) > 0);
	return json_string_value(json_object_get(error, "code"));
}

static bool is_hung_up(struct world *w, int fd)
{
	char bytes[4096];
	ssize_t n;
	poller_wait(vm_poller(w->vm), 0);
	while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		;
	return n == 0;
}

/* ---- questions and answers ---- */

static void test_failures(void **state)
{
	static const struct {
		const char *line, *code, *text;
	} cases[] = {
		{"\n", "bad-json", "one JSON object"},
		{"[]\n", "bad-json", "one JSON object"},
		{"{\"command\":\"stat\"\n", "bad-json", "one JSON object"},
		{"{\"command\":\"stat\",\"command\":\"stop\"}\n", "bad-json", "duplicate"},
		{"{\"command\":\"\\ud800\"}\n", "bad-json", "JSON"},
		{"{}\n", "missing-field", "'command'"},
		{"{\"command\":7}\n", "missing-field", "'command'"},
		{"{\"command\":\"snapshto\"}\n", "unknown-command", "did you mean 'snapshot'"},
		{"{\"command\":\"zzzzzzzzzz\"}\n", "unknown-command", "no command"},
		{"{\"command\":\"stop\",\"know\":true}\n", "unknown-field", "did you mean 'now'"},
		{"{\"command\":\"stop\",\"now\":1}\n", "bad-field", "true or false"},
		{"{\"command\":\"snapshot\"}\n", "missing-field", "'file'"},
		{"{\"command\":\"snapshot\",\"file\":\"here\"}\n", "bad-field", "from the root"},
		{"{\"command\":\"snapshot\",\"file\":\"/nowhere/at/all\"}\n", "failed", "/nowhere"},
		{"{\"command\":\"balloon\"}\n", "no-balloon", "no balloon"},
		{"{\"command\":\"balloon\",\"target_bytes\":-1}\n", "bad-field", "whole number"},
		{"{\"command\":\"stat\",\"version\":2}\n", "bad-version", "version 1"},
		{"{\"command\":\"stat\",\"id\":{}}\n", "bad-field", "'id'"},
	};
	struct world *w = *state;
	int fd = dial(w);
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		say(w, fd, cases[i].line);
		json_t *answer = hear(w, fd);
		assert_string_equal(failure(answer), cases[i].code);
		assert_non_null(strstr(json_string_value(json_object_get(
					       json_object_get(answer, "error"), "text")),
				       cases[i].text));
		json_decref(answer);
	}
	assert_int_equal(w->stops, 0);
	close(fd);
}

static json_t *ask(struct world *w, int fd, const char *line)
{
	say(w, fd, line);
	json_t *answer = hear(w, fd);
	assert_true(json_is_true(json_object_get(answer, "ok")));
	return answer;
}

static void test_steering(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	json_decref(ask(w, fd, "{\"command\":\"pause\",\"version\":1}\n"));
	assert_true(vm_is_paused(w->vm));
	json_t *answer = ask(w, fd, "{\"command\":\"status\",\"id\":\"a\"}\n");
	json_t *result = json_object_get(answer, "result");
	assert_string_equal(json_string_value(json_object_get(answer, "id")), "a");
	assert_string_equal(json_string_value(json_object_get(result, "state")), "paused");
	assert_string_equal(json_string_value(json_object_get(result, "name")), "me");
	assert_int_equal(json_integer_value(json_object_get(result, "cpus")), 2);
	json_decref(answer);
	json_decref(ask(w, fd, "{\"command\":\"resume\"}\n"));
	assert_false(vm_is_paused(w->vm));
	answer = ask(w, fd, "{\"command\":\"powerbutton\",\"id\":7}\n");
	assert_true(json_is_false(json_object_get(json_object_get(answer, "result"), "heard")));
	assert_int_equal(json_integer_value(json_object_get(answer, "id")), 7);
	json_decref(answer);
	json_decref(ask(w, fd, "{\"command\":\"stop\"}\n"));
	assert_true(w->stops == 1 && !w->is_at_once);
	json_decref(ask(w, fd, "{\"command\":\"stop\",\"now\":true}\n"));
	assert_true(w->stops == 2 && w->is_at_once);
	close(fd);
}

/* Each connection has a monitor of its own, which remembers its vcpu. */
static void test_monitor(void **state)
{
	struct world *w = *state;
	int fd = dial(w), other = dial(w);
	json_decref(ask(w, fd, "{\"command\":\"monitor\",\"line\":\"cpu 1\"}\n"));
	const struct {
		int fd;
		const char *text;
	} cases[] = {{fd, "vcpu 1"}, {other, "vcpu 0"}};
	for (unsigned i = 0; i < 2; i++) {
		json_t *answer =
			ask(w, cases[i].fd, "{\"command\":\"monitor\",\"line\":\"cpu\"}\n");
		assert_non_null(strstr(json_string_value(json_object_get(
					       json_object_get(answer, "result"), "text")),
				       cases[i].text));
		json_decref(answer);
	}
	char line[1200];
	memset(line, 'a', sizeof(line));
	int n = sprintf(line, "{\"command\":\"monitor\",\"line\":\"snapshot /");
	memset(line + n, 'a', 1000);
	strcpy(line + n + 1000, "\"}\n");
	json_t *answer = ask(w, fd, line);
	assert_non_null(strstr(
		json_string_value(json_object_get(json_object_get(answer, "result"), "text")),
		"at most"));
	json_decref(answer);
	close(fd);
	close(other);
}

static void test_stat(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	json_t *answer = ask(w, fd, "{\"command\":\"stat\"}\n");
	json_t *events = json_object_get(json_object_get(answer, "result"), "events"), *row;
	size_t i, measured = 0;
	assert_int_equal(json_array_size(events), EVENT_COUNT);
	json_array_foreach(events, i, row)
		measured += json_array_size(json_object_get(row, "counts")) == 2;
	assert_int_equal(measured, EVENT_COUNT); /* interp counts everything */
	json_decref(answer);
	close(fd);
}

/* ---- clients that are no good ---- */

/* A byte now and then: the others are served meanwhile. */
static void test_slow_client(void **state)
{
	static const char line[] = "{\"command\":\"status\"}\n";
	struct world *w = *state;
	int slow = dial(w), fd = dial(w);
	for (size_t i = 0; i < strlen(line); i++) {
		say(w, slow, (char[]){line[i], 0});
		json_decref(ask(w, fd, "{\"command\":\"status\"}\n"));
	}
	json_decref(hear(w, slow));
	close(slow);
	close(fd);
}

/* Two lines at once are two requests, each its own turn. */
static void test_pipelined(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	say(w, fd, "{\"command\":\"stop\",\"id\":1}\n{\"command\":\"stop\",\"id\":2}\n{\"comm");
	assert_int_equal(w->stops, 1);
	for (int i = 1; i <= 2; i++) {
		json_t *answer = hear(w, fd);
		assert_int_equal(json_integer_value(json_object_get(answer, "id")), i);
		json_decref(answer);
	}
	assert_int_equal(w->stops, 2);
	close(fd);
}

/* A line that does not end is answered once, and that was it. */
static void test_endless_line(void **state)
{
	static char bytes[4096];
	struct world *w = *state;
	int fd = dial(w);
	memset(bytes, ' ', sizeof(bytes));
	for (unsigned i = 0; i < CONTROL_LINE_BYTES / sizeof(bytes); i++) {
		assert_int_equal(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
		poller_wait(vm_poller(w->vm), 0);
	}
	json_t *answer = hear(w, fd);
	assert_string_equal(failure(answer), "bad-json");
	json_decref(answer);
	assert_true(is_hung_up(w, fd));
	close(fd);
}

/* Who takes no answers is asked for nothing more, and keeps nobody waiting. */
static void test_deaf_client(void **state)
{
	static const char line[] = "{\"command\":\"stat\"}\n";
	struct world *w = *state;
	int deaf = dial(w), fd = dial(w), taken = 0;
	for (unsigned i = 0; i < 2000; i++) {
		taken += send(deaf, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
		poller_wait(vm_poller(w->vm), 0);
	}
	json_decref(ask(w, fd, "{\"command\":\"status\"}\n"));
	/* When he listens after all, every question that the socket took has its answer. */
	for (int i = 0; i < taken; i++)
		json_decref(hear(w, deaf));
	close(deaf);
	close(fd);
}

/* Many connections that say nothing: who asks is served all the same. */
static void test_crowd(void **state)
{
	struct world *w = *state;
	int crowd[3 * CONTROL_CLIENTS_MAX], fd = dial(w);
	for (unsigned i = 0; i < ARRAY_COUNT(crowd); i++) {
		crowd[i] = dial(w);
		json_decref(ask(w, fd, "{\"command\":\"status\"}\n"));
	}
	unsigned kept = 0;
	for (unsigned i = 0; i < ARRAY_COUNT(crowd); i++) {
		kept += !is_hung_up(w, crowd[i]);
		close(crowd[i]);
	}
	assert_int_equal(kept, CONTROL_CLIENTS_MAX - 1);
	close(fd);
}

/* No file left in the process: the visitor is turned away, and the poller does not spin. */
static void test_no_files_left(void **state)
{
	struct world *w = *state;
	struct rlimit limit, less;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, w->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	getrlimit(RLIMIT_NOFILE, &limit);
	less = limit;
	less.rlim_cur = (rlim_t)fd + 1;
	setrlimit(RLIMIT_NOFILE, &less);
	/* A dup takes any hole below. */
	int held[64], count = 0;
	while (count < 64 && (held[count] = dup(fd)) >= 0)
		count++;
	assert_int_equal(poller_wait(vm_poller(w->vm), 0), 1);
	assert_int_equal(poller_wait(vm_poller(w->vm), 0), 0);
	while (count)
		close(held[--count]);
	setrlimit(RLIMIT_NOFILE, &limit);
	assert_true(is_hung_up(w, fd));
	close(fd);
	fd = dial(w);
	json_decref(ask(w, fd, "{\"command\":\"status\"}\n"));
	close(fd);
}

/* Gone before the answer, in the middle of a line, or with only its sending half. */
static void test_leaving(void **state)
{
	struct world *w = *state;
	int fd = dial(w);
	send(fd, "{\"command\":\"stat\"}\n", 19, MSG_NOSIGNAL);
	close(fd);
	poller_wait(vm_poller(w->vm), 0);
	fd = dial(w);
	send(fd, "{\"comma", 7, MSG_NOSIGNAL);
	close(fd);
	for (unsigned i = 0; i < 4; i++)
		poller_wait(vm_poller(w->vm), 0);
	fd = dial(w);
	send(fd, "{\"command\":\"status\"}\n", 21, MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	json_decref(hear(w, fd));
	assert_true(is_hung_up(w, fd));
	close(fd);
}

/* ---- the place ---- */

static void test_place(void **state)
{
	struct world *w = *state;
	struct control *second;
	struct error e = {0};
	struct stat st;
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(
		control_open(&second, w->vm, "me", w->path, (struct control_host){stop, w}, &e),
		-EADDRINUSE);
	assert_non_null(strstr(e.text, "a machine is running there"));
	/* The first one is not hurt by the attempt. */
	int fd = dial(w);
	json_decref(ask(w, fd, "{\"command\":\"status\"}\n"));
	close(fd);
}

/* A machine that was killed leaves socket and lock; the next one of that name takes them over. */
static void test_after_a_kill(void **state)
{
	struct world *w = *state;
	control_close(w->control);
	w->control = NULL;
	pid_t child = fork();
	if (!child) {
		open_it(w);
		raise(SIGKILL);
	}
	int status;
	waitpid(child, &status, 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(access(w->path, F_OK), 0);
	open_it(w);
	int fd = dial(w);
	json_decref(ask(w, fd, "{\"command\":\"status\"}\n"));
	close(fd);
}

static void test_no_socket_there(void **state)
{
	struct world *w = *state;
	struct control *second;
	struct error e = {0};
	char lock[80];
	assert_int_equal(
		control_open(&second, w->vm, "me", w->image, (struct control_host){stop, w}, &e),
		-EEXIST);
	assert_non_null(strstr(e.text, "no socket"));
	assert_int_equal(access(w->image, F_OK), 0);
	snprintf(lock, sizeof(lock), "%s.lock", w->image);
	assert_int_equal(access(lock, F_OK), -1); /* a refusal leaves nothing */
}

static void test_names(void **state)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "a b", "-x", ".hidden", "\xc3\xa4"};
	char long_name[CONTROL_NAME_BYTES + 1] = {0};
	struct error e = {0};
	memset(long_name, 'a', CONTROL_NAME_BYTES - 1);
	assert_int_equal(control_check_name(long_name, &e), 0);
	long_name[CONTROL_NAME_BYTES - 1] = 'a';
	assert_int_equal(control_check_name(long_name, &e), -EINVAL);
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_equal(control_check_name(bad[i], &e), -EINVAL);
}

/* Where others may write is no place for sockets. */
static void test_folder(void **state)
{
	struct world *w = *state;
	char runtime[48], folder[64], path[CONTROL_PATH_BYTES];
	struct error e = {0};
	snprintf(runtime, sizeof(runtime), "%s/run", w->folder);
	snprintf(folder, sizeof(folder), "%s/gnomon", runtime);
	mkdir(runtime, 0700);
	setenv("XDG_RUNTIME_DIR", runtime, 1);
	assert_int_equal(control_folder(path, false, &e), -ENOENT);
	assert_int_equal(control_find("vm", path, true, &e), 0);
	assert_non_null(strstr(path, "/run/gnomon/vm.sock"));
	chmod(folder, 0777);
	assert_int_equal(control_find("vm", path, true, &e), -EACCES);
	rmdir(folder);
	assert_int_equal(symlink("/tmp", folder), 0);
	assert_int_equal(control_find("vm", path, true, &e), -EACCES);
	unlink(folder);
	rmdir(runtime);
	unsetenv("XDG_RUNTIME_DIR");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_failures),	  TEST(test_steering),	      TEST(test_monitor),
		TEST(test_stat),	  TEST(test_slow_client),     TEST(test_pipelined),
		TEST(test_endless_line),  TEST(test_deaf_client),     TEST(test_crowd),
		TEST(test_no_files_left), TEST(test_leaving),	      TEST(test_place),
		TEST(test_after_a_kill),  TEST(test_no_socket_there), TEST(test_names),
		TEST(test_folder),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
