#include "control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/host_time.h"
#include "control/private.h"
#include "vm/poller.h"
#include "vm/vm.h"

/* ---- one client ---- */

static void drop(struct client *client)
{
	if (client->fd < 0)
		return;
	poller_remove(vm_poller(client->control->vm), client->fd);
	close(client->fd);
	monitor_destroy(client->monitor);
	free(client->line);
	free(client->answer);
	free(client->capture.text);
	*client = (struct client){.fd = -1};
}

/* As much of the answer as the client takes now; the rest when it has room. */
static void send_answer(struct client *client)
{
	while (client->answer_sent < client->answer_length) {
		ssize_t n = send(client->fd, client->answer + client->answer_sent,
				 client->answer_length - client->answer_sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0) {
			client->answer_sent += (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			poller_set_output(vm_poller(client->control->vm), client->fd, true);
			return;
		} else if (n == 0 || errno != EINTR) {
			drop(client);
			return;
		}
	}
	free(client->answer);
	client->answer = NULL;
	poller_set_output(vm_poller(client->control->vm), client->fd, false);
	if (client->is_leaving)
		drop(client);
}

static void answer(struct client *client, const char *line, size_t length)
{
	client->last = ++client->control->request_count;
	client->answer = control_answer(client, line, length, &client->answer_length);
	client->answer_sent = 0;
	if (client->answer)
		send_answer(client);
	else
		drop(client);
}

/* The bytes up to the line's end and no further: what follows is the next request's, and stays in
 * the kernel until it is its turn. */
static size_t wanted(const char *bytes, size_t count, bool *is_whole)
{
	const char *end = memchr(bytes, '\n', count);
	*is_whole = end != NULL;
	return end ? (size_t)(end - bytes) + 1 : count;
}

static void readable(struct client *client)
{
	char *at;
	bool is_whole = false;
	if (!client->line && !(client->line = malloc(CONTROL_LINE_BYTES))) {
		drop(client);
		return;
	}
	at = client->line + client->line_length;
	ssize_t n = recv(client->fd, at, CONTROL_LINE_BYTES - client->line_length,
			 MSG_PEEK | MSG_DONTWAIT);
	if (n > 0)
		n = recv(client->fd, at, wanted(at, (size_t)n, &is_whole), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(client);
		return;
	}
	client->line_length += (size_t)n;
	if (!is_whole && client->line_length < CONTROL_LINE_BYTES)
		return;
	size_t length = client->line_length;
	client->line_length = 0;
	client->is_leaving = !is_whole;
	answer(client, client->line, length);
}

static void client_ready(void *opaque, int fd)
{
	struct client *client = opaque;
	if (client->answer)
		send_answer(client);
	else
		readable(client);
}

/* ---- who comes ---- */

/* A free place, or that of the client that was silent longest. */
static struct client *find_place(struct control *c)
{
	struct client *oldest = &c->clients[0];
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++) {
		struct client *client = &c->clients[i];
		if (client->fd < 0)
			return client;
		if (client->last < oldest->last)
			oldest = client;
	}
	drop(oldest);
	return oldest;
}

/* Otherwise the one who waits would make the poller come back at once, for ever. */
static void turn_away(struct control *c)
{
	close(c->spare);
	int fd = accept4(c->listening, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		close(fd);
	c->spare = fcntl(c->listening, F_DUPFD_CLOEXEC, 0);
}

static void client_came(void *opaque, int listening)
{
	struct control *c = opaque;
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			turn_away(c);
		return;
	}
	struct client *client = find_place(c);
	if (poller_add(vm_poller(c->vm), fd, (struct poller_watch){client_ready, client})) {
		close(fd);
		return;
	}
	*client = (struct client){.fd = fd, .control = c, .last = ++c->request_count};
}

/* ---- opening and closing ---- */

static int listen_there(struct control *c, struct error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_Static_assert(sizeof(a.sun_path) == CONTROL_PATH_BYTES, "what a socket's path may have");
	memcpy(a.sun_path, c->path, strlen(c->path) + 1);
	c->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the socket becomes that of its name: at no moment can others connect. */
	if (c->listening < 0 || fchmod(c->listening, 0600) ||
	    bind(c->listening, (struct sockaddr *)&a, sizeof(a)) || listen(c->listening, 16))
		return error_set(e, -errno, "cannot listen at '%s': %s", c->path, strerror(errno));
	c->spare = fcntl(c->listening, F_DUPFD_CLOEXEC, 0);
	if (poller_add(vm_poller(c->vm), c->listening, (struct poller_watch){client_came, c}))
		return error_set(e, -ENOSPC, "'%s': too many open files to watch", c->path);
	return 0;
}

int control_open(struct control **out, struct vm *vm, const char *name, const char *path,
		 struct control_host host, struct error *e)
{
	struct control *c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(e, -ENOMEM, "out of memory");
	*c = (struct control){.vm = vm, .host = host, .lock = -1, .listening = -1, .spare = -1};
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		c->clients[i].fd = -1;
	c->start_ns = host_time_ns();
	memcpy(c->name, name, strnlen(name, sizeof(c->name) - 1));
	memcpy(c->path, path, strnlen(path, sizeof(c->path) - 1));
	int r = c->lock = control_take_place(c->path, e);
	if (r >= 0)
		r = listen_there(c, e);
	if (r < 0) {
		control_close(c);
		return r;
	}
	*out = c;
	return 0;
}

void control_close(struct control *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
		drop(&c->clients[i]);
	poller_remove(vm_poller(c->vm), c->listening);
	if (c->listening >= 0)
		close(c->listening);
	if (c->spare >= 0)
		close(c->spare);
	control_leave_place(c->path, c->lock);
	free(c);
}

const char *control_path(const struct control *c)
{
	return c->path;
}
