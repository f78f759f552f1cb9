/*
 * A web server that forks for each request: WebBench's pattern in "Improving Virtualization
 * Performance and Scalability with Advanced Hardware Accelerations" (figures 17 and 18), where
 * exits for write-protected guest tables, most of them out of fork, are 95 % of a shadow VMM's. The
 * server has HEAP bytes in use, so a fork copies page tables of that size; the child writes TOUCH
 * of these pages (copy on write), answers and exits. Clients ask one request after the other over a
 * local stream socket.
 */
#include "suite.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REQUESTS, HEAP, TOUCH, REPLY, CLIENTS };

#define PAGE_BYTES 4096u
#define CLIENT_MAX 16u
#define REPLY_MAX (64u << 10)

struct server {
	const uint64_t *knob;
	unsigned char *heap;
	struct sockaddr_un address;
	socklen_t address_bytes;
	int socket;
};

/* An abstract address: nothing to remove, and two servers do not meet. */
static void open_server(struct server *s)
{
	s->socket = socket(AF_UNIX, SOCK_STREAM, 0);
	s->address.sun_family = AF_UNIX;
	s->address_bytes = (socklen_t)(sizeof(s->address.sun_family) + 1 +
				       (size_t)snprintf(s->address.sun_path + 1, 64, "suite-%d",
							(int)getpid()));
	if (s->socket < 0 || bind(s->socket, (struct sockaddr *)&s->address, s->address_bytes) ||
	    listen(s->socket, CLIENT_MAX))
		give_up("socket");
}

static void read_all(int fd, void *buffer, size_t size_bytes)
{
	for (size_t at = 0; at < size_bytes;) {
		ssize_t got = read(fd, (char *)buffer + at, size_bytes - at);

		if (got <= 0)
			give_up("read");
		at += (size_t)got;
	}
}

/* The child's work for one request; its answer depends on the request and the heap alone. */
static void answer(struct server *s, int connection)
{
	static unsigned char reply[REPLY_MAX];
	uint64_t page_count = s->knob[HEAP] / PAGE_BYTES, random, sum;

	read_all(connection, &random, sizeof(random));
	sum = random;
	for (uint64_t i = 0; i < s->knob[TOUCH]; i++) {
		unsigned char *page = s->heap + next_random(&random) % page_count * PAGE_BYTES;

		sum = fold(sum, page[128]);
		page[64] = (unsigned char)sum;
	}
	for (size_t i = 0; i + 8 <= s->knob[REPLY]; i += 8) {
		memcpy(reply + i, &sum, 8);
		sum = sum * 0x5851f42d4c957f2dull + 1;
	}
	if (write(connection, reply, (size_t)s->knob[REPLY]) != (ssize_t)s->knob[REPLY])
		_exit(1);
	_exit(0);
}

static uint64_t ask(struct server *s, uint64_t request)
{
	static unsigned char reply[REPLY_MAX];
	int connection = socket(AF_UNIX, SOCK_STREAM, 0);
	uint64_t sum = 0, word;

	if (connection < 0 ||
	    connect(connection, (struct sockaddr *)&s->address, s->address_bytes) ||
	    write(connection, &request, sizeof(request)) != sizeof(request))
		give_up("connect");
	read_all(connection, reply, (size_t)s->knob[REPLY]);
	close(connection);
	for (size_t i = 0; i + 8 <= s->knob[REPLY]; i += 512) {
		memcpy(&word, reply + i, 8);
		sum = fold(sum, word);
	}
	return sum;
}

/* Client `index` waits for its start, asks its share and sends back one sum. */
static void be_client(struct server *s, uint64_t index, int start, int result)
{
	uint64_t count = s->knob[CLIENTS], sum = 0;
	char byte;

	read_all(start, &byte, 1);
	for (uint64_t i = index; i < s->knob[REQUESTS]; i += count)
		sum += ask(s, i * 977 + 13);
	if (write(result, &sum, sizeof(sum)) != sizeof(sum))
		_exit(1);
	_exit(0);
}

static void serve(struct server *s)
{
	for (uint64_t i = 0; i < s->knob[REQUESTS]; i++) {
		int connection = accept(s->socket, NULL, NULL);
		pid_t child = connection < 0 ? -1 : fork();

		if (child < 0)
			give_up("accept and fork");
		if (!child)
			answer(s, connection);
		close(connection);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

static uint64_t run_server(struct server *s)
{
	int start[2], result[2];
	uint64_t sum = 0, part;

	if (pipe(start) || pipe(result))
		give_up("pipe");
	for (uint64_t i = 0; i < s->knob[CLIENTS]; i++) {
		pid_t child = fork();

		if (child < 0)
			give_up("fork");
		if (!child)
			be_client(s, i, start[0], result[1]);
	}
	measure_begin();
	if (write(start[1], "................", (size_t)s->knob[CLIENTS]) !=
	    (ssize_t)s->knob[CLIENTS])
		give_up("pipe");
	serve(s);
	for (uint64_t i = 0; i < s->knob[CLIENTS]; i++) {
		read_all(result[0], &part, sizeof(part));
		sum += part;
	}
	while (waitpid(-1, NULL, 0) > 0)
		;
	measure_end();
	close(start[0]), close(start[1]), close(result[0]), close(result[1]);
	return sum;
}

static uint64_t forkserver(const uint64_t *knob)
{
	struct server s = {.knob = knob, .heap = fresh_pages((size_t)knob[HEAP])};
	uint64_t sum;

	madvise(s.heap, (size_t)knob[HEAP], MADV_NOHUGEPAGE);
	for (size_t i = 0; i < knob[HEAP]; i += PAGE_BYTES)
		s.heap[i + 128] = (unsigned char)(i >> 12);
	open_server(&s);
	sum = run_server(&s);
	close(s.socket);
	munmap(s.heap, (size_t)knob[HEAP]);
	return fold(sum, knob[REQUESTS]);
}

const struct study forkserver_study = {
	"forkserver",
	"a web server that forks for each request, with its clients",
	{
		[REQUESTS] = {"requests", 500, 30, 1, 1ull << 32, "requests in all"},
		[HEAP] = {"heap", 1 << 20, 1 << 20, PAGE_BYTES, 1u << 30,
			  "bytes the server has in use"},
		[TOUCH] = {"touch", 24, 16, 0, 1 << 20, "pages a child writes"},
		[REPLY] = {"reply", 8 << 10, 4 << 10, 8, REPLY_MAX, "bytes of an answer"},
		[CLIENTS] = {"clients", 2, 2, 1, CLIENT_MAX, "clients at a time"},
	},
	forkserver,
};
