#include "vm/poller.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#define WATCHES_MAX 32

struct entry {
	int fd; /* -1: free */
	struct poller_watch watch;
	bool is_off;
	bool is_waker;
	bool is_output; /* room to write is waited for, not input */
};

struct poller {
	struct entry entries[WATCHES_MAX];
};

int poller_create(struct poller **out)
{
	struct poller *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	for (unsigned i = 0; i < WATCHES_MAX; i++)
		p->entries[i].fd = -1;
	*out = p;
	return 0;
}

void poller_destroy(struct poller *p)
{
	free(p);
}

static struct entry *find(struct poller *p, int fd)
{
	for (unsigned i = 0; i < WATCHES_MAX; i++)
		if (p->entries[i].fd == fd)
			return &p->entries[i];
	return NULL;
}

int poller_add(struct poller *p, int fd, struct poller_watch watch)
{
	struct entry *entry = find(p, fd);
	if (!entry)
		entry = find(p, -1);
	if (!entry)
		return -ENOSPC;
	*entry = (struct entry){.fd = fd, .watch = watch};
	return 0;
}

void poller_remove(struct poller *p, int fd)
{
	struct entry *entry = fd < 0 ? NULL : find(p, fd);
	if (entry)
		*entry = (struct entry){.fd = -1};
}

void poller_enable(struct poller *p, int fd, bool on)
{
	struct entry *entry = fd < 0 ? NULL : find(p, fd);
	if (entry)
		entry->is_off = !on;
}

void poller_set_output(struct poller *p, int fd, bool is_output)
{
	struct entry *entry = fd < 0 ? NULL : find(p, fd);
	if (entry)
		entry->is_output = is_output;
}

void poller_set_waker(struct poller *p, int fd, bool is_waker)
{
	struct entry *entry = fd < 0 ? NULL : find(p, fd);
	if (entry)
		entry->is_waker = is_waker;
}

bool poller_has_waker(const struct poller *p)
{
	for (unsigned i = 0; i < WATCHES_MAX; i++)
		if (p->entries[i].fd >= 0 && p->entries[i].is_waker)
			return true;
	return false;
}

unsigned poller_wait(struct poller *p, uint64_t timeout_ns)
{
	struct pollfd fds[WATCHES_MAX];
	nfds_t count = 0;
	for (unsigned i = 0; i < WATCHES_MAX; i++) {
		const struct entry *entry = &p->entries[i];
		if (entry->fd >= 0 && !entry->is_off)
			fds[count++] = (struct pollfd){
				.fd = entry->fd, .events = entry->is_output ? POLLOUT : POLLIN};
	}
	struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
				   .tv_nsec = (long)(timeout_ns % 1000000000u)};
	int ready = ppoll(fds, count, timeout_ns == POLLER_FOREVER ? NULL : &timeout, NULL);
	if (ready <= 0)
		return 0;
	unsigned called = 0;
	for (nfds_t i = 0; i < count; i++) {
		if (!fds[i].revents)
			continue;
		/* Looked up again: an earlier handler may have removed it. */
		struct entry *entry = find(p, fds[i].fd);
		if (!entry || entry->is_off)
			continue;
		entry->watch.ready(entry->watch.opaque, fds[i].fd);
		called++;
	}
	return called;
}
