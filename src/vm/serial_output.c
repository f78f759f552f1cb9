#include "vm/serial_output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/poller.h"

#define FIRST_BYTES 4096u
#define QUEUE_BYTES (1u << 20)
#define END_MS 3000

int serial_output_without_waiting(int fd)
{
	char path[32];
	struct stat st;
	if (fstat(fd, &st) || (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode)))
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return own < 0 ? fd : own;
}

static void writable(void *opaque, int fd)
{
	(void)fd;
	serial_output_flush(opaque);
}

void serial_output_set(struct serial_output *o, struct poller *poller, int fd, bool is_input)
{
	o->poller = poller;
	o->fd = fd;
	o->count = 0;
	o->is_watched = fd >= 0 && !is_input &&
			!poller_add(poller, fd, (struct poller_watch){writable, o});
	if (o->is_watched) {
		poller_set_output(poller, fd, true);
		poller_enable(poller, fd, false);
	}
}

/* The room doubles up to the bound; false: it is full. */
static bool make_room(struct serial_output *o)
{
	size_t room = o->room ? 2 * o->room : FIRST_BYTES;
	uint8_t *bytes = room <= QUEUE_BYTES ? realloc(o->bytes, room) : NULL;
	if (!bytes)
		return false;
	o->bytes = bytes;
	o->room = room;
	return true;
}

void serial_output_add(struct serial_output *o, const uint8_t *bytes, size_t count)
{
	if (o->fd < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		if (o->count == o->room) {
			if (o->room)
				serial_output_flush(o);
			if (o->count == o->room && !make_room(o)) {
				o->lost += count - i;
				return;
			}
		}
		o->bytes[o->count++] = bytes[i];
	}
}

void serial_output_flush(struct serial_output *o)
{
	size_t done = 0;
	if (!o->count)
		return;
	while (done < o->count) {
		ssize_t n = write(o->fd, o->bytes + done, o->count - done);
		if (n > 0) {
			done += (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			break;
		} else if (n >= 0 || errno != EINTR) {
			o->lost += o->count - done;
			done = o->count;
		}
	}
	memmove(o->bytes, o->bytes + done, o->count - done);
	o->count -= done;
	if (o->is_watched)
		poller_enable(o->poller, o->fd, o->count != 0);
}

void serial_output_settle(struct serial_output *o)
{
	size_t before = 0;
	serial_output_flush(o);
	while (o->count && o->count != before) {
		struct pollfd p = {.fd = o->fd, .events = POLLOUT};
		before = o->count;
		if (poll(&p, 1, END_MS) > 0)
			serial_output_flush(o);
	}
	o->lost += o->count;
	o->count = 0;
}

void serial_output_end(struct serial_output *o)
{
	serial_output_settle(o);
	if (o->lost)
		log_warn("serial: %llu bytes of output are lost: nobody reads them",
			 (unsigned long long)o->lost);
	if (o->is_watched)
		poller_remove(o->poller, o->fd);
	free(o->bytes);
	*o = (struct serial_output){.fd = -1};
}
