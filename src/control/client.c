#include "control/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/control.h"

/* A snapshot of a large machine takes its time; anything else milliseconds. */
#define TIMEOUT_S 120

struct control_client {
	int fd;
	char *answer;
	size_t length, capacity;
};

int control_connect(struct control_client **out, const char *path, struct error *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval timeout = {.tv_sec = TIMEOUT_S};
	struct control_client *c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(e, -ENOMEM, "out of memory");
	memcpy(a.sun_path, path, strnlen(path, sizeof(a.sun_path) - 1));
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a))) {
		int code = -errno;
		control_disconnect(c);
		return error_set(e, code, "no machine answers at '%s': %s", path, strerror(-code));
	}
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	*out = c;
	return 0;
}

void control_disconnect(struct control_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c->answer);
	free(c);
}

static int send_all(struct control_client *c, const char *text, size_t length, struct error *e)
{
	while (length) {
		ssize_t n = send(c->fd, text, length, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(e, n < 0 ? -errno : -EPIPE, "the machine hung up");
		text += n;
		length -= (size_t)n;
	}
	return 0;
}

/* One line. There is one answer to one question, so nothing follows it. */
static int receive_line(struct control_client *c, struct error *e)
{
	c->length = 0;
	while (!c->length || c->answer[c->length - 1] != '\n') {
		if (c->length == c->capacity) {
			size_t capacity = c->capacity ? 2 * c->capacity : 65536;
			char *grown = capacity <= 2 * CONTROL_ANSWER_BYTES
					      ? realloc(c->answer, capacity)
					      : NULL;
			if (!grown)
				return error_set(e, -ENOMEM, "the answer is too long");
			c->answer = grown;
			c->capacity = capacity;
		}
		ssize_t n = recv(c->fd, c->answer + c->length, c->capacity - c->length, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return error_set(e, -ETIMEDOUT, "the machine does not answer");
		if (n <= 0)
			return error_set(e, n < 0 ? -errno : -EPIPE, "the machine hung up");
		c->length += (size_t)n;
	}
	return 0;
}

static int take_answer(const struct control_client *c, json_t **result, struct error *e)
{
	json_t *answer = json_loadb(c->answer, c->length, 0, NULL);
	json_t *got = json_object_get(answer, "result");
	const char *text =
		json_string_value(json_object_get(json_object_get(answer, "error"), "text"));
	int r = 0;
	if (json_is_true(json_object_get(answer, "ok")) && json_is_object(got))
		*result = json_incref(got);
	else
		r = error_set(e, -EPROTO, "%s", text ? text : "the answer is not understood");
	json_decref(answer);
	return r;
}

int control_ask(struct control_client *c, json_t *request, json_t **result, struct error *e)
{
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	int r = 0;
	json_decref(request);
	if (!text)
		return error_set(e, -ENOMEM, "out of memory, or a name that is no UTF-8");
	size_t length = strlen(text);
	text[length++] = '\n';
	if (length > CONTROL_LINE_BYTES)
		r = error_set(e, -E2BIG, "a request has at most %u bytes", CONTROL_LINE_BYTES);
	r = r ? r : send_all(c, text, length, e);
	free(text);
	r = r ? r : receive_line(c, e);
	return r ? r : take_answer(c, result, e);
}

int control_wait_end(struct control_client *c, int timeout_ms, struct error *e)
{
	struct pollfd wait = {.fd = c->fd, .events = POLLIN};
	int n;
	do
		n = poll(&wait, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	return n > 0 ? 0 : error_set(e, -ETIMEDOUT, "the machine is still running");
}
