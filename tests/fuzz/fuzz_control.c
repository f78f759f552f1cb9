/*
 * The control socket: lines of a hostile client, through the socket and every command, against a
 * machine that does not run. The first byte chooses between raw bytes and lines built around a
 * command, so that mutations reach the commands and not only the JSON.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/control.h"

#include "socket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void stop(void *opaque, bool is_at_once)
{
}

static void say(struct vm *vm, int fd, const void *bytes, size_t size)
{
	if (size && send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		for (unsigned i = 0; i < 8 && poller_wait(vm_poller(vm), 0); i++)
			drain(fd);
}

/* A command with the input as the value of its field. Snapshots go where nothing can be made. */
static void say_command(struct vm *vm, int fd, uint8_t which, const uint8_t *data, size_t size)
{
	static const char *const heads[] = {
		"{\"command\":\"monitor\",\"line\":\"",
		"{\"command\":\"monitor\",\"line\":\"x/",
		"{\"command\":\"monitor\",\"line\":\"info ",
		"{\"command\":\"monitor\",\"line\":\"walk ",
		"{\"command\":\"snapshot\",\"file\":\"/nowhere/",
		"{\"command\":\"stat\",\"id\":\"",
		"{\"command\":\"stop\",\"now\":",
		"{\"command\":\"balloon\",\"target_bytes\":",
		"{\"command\":\"",
	};
	char line[8192];
	const char *head = heads[which % (sizeof(heads) / sizeof(heads[0]))];
	bool is_text = head[strlen(head) - 1] != ':';
	size_t n = (size_t)snprintf(line, sizeof(line), "%s", head);
	for (size_t i = 0; i < size && n < sizeof(line) - 4; i++) {
		/* The monitor's snapshot would write where the name says. */
		bool is_plain = data[i] >= ' ' && data[i] < 0x7f && data[i] != '"';
		line[n++] = is_plain ? (char)data[i] : ' ';
	}
	n += (size_t)snprintf(line + n, sizeof(line) - n, "%s}\n", is_text ? "\"" : "");
	if (!strstr(line, "sn") || which % 9 > 3)
		say(vm, fd, line, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vm *vm; /* nothing that a client can do harms the next one */
	static struct control *control;
	static char path[64] = "/tmp/gnomon-fuzz-XXXXXX";
	struct error e = {0};
	if (!vm) {
		vm = make_machine(1);
		if (!mkdtemp(path))
			abort();
		strcat(path, "/s");
		if (control_open(&control, vm, "fuzz", path, (struct control_host){stop, NULL}, &e))
			abort();
	}
	int fd = connect_to(path);
	poller_wait(vm_poller(vm), 0);
	if (size && data[0] & 1)
		say(vm, fd, data + 1, size - 1);
	else if (size > 1)
		say_command(vm, fd, data[0] / 2, data + 1, size - 1);
	close(fd);
	poller_wait(vm_poller(vm), 0);
	return 0;
}
