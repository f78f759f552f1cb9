/*
 * gdb's remote protocol: bytes of a hostile debugger, through the socket and every command, against
 * a machine that does not run. What is found is a crash or a sanitizer's report.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "debug/gdb.h"
#include "debug/gdb_packet.h"

#include "socket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void say(struct vm *vm, int fd, const void *bytes, size_t size)
{
	if (size && send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		poller_wait(vm_poller(vm), 0);
	drain(fd);
}

/* The input as packets: a zero byte ends one, so that mutations reach the commands and not only the
 * checksum. */
static void say_packets(struct vm *vm, int fd, const uint8_t *data, size_t size)
{
	static struct gdb_answer packet;
	static uint8_t frame[sizeof(packet.data) + 4];
	while (size) {
		const uint8_t *end = memchr(data, 0, size);
		size_t n = end ? (size_t)(end - data) : size;
		packet.length = n < 4096 ? n : 4096;
		memcpy(packet.data, data, packet.length);
		say(vm, fd, frame, gdb_frame(&packet, frame));
		n += end != NULL;
		data += n;
		size -= n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char commands[] = "?gGpPmMXZzcsHTqQvDk";
	struct vm *vm;
	static char folder[] = "/tmp/gnomon-fuzz-XXXXXX";
	static bool has_folder;
	char path[64], where[80];
	struct error e = {0};
	static struct vm *shared; /* nothing that a debugger can do harms the next one */
	if (!has_folder && !mkdtemp(folder))
		abort();
	has_folder = true;
	if (!shared)
		shared = make_machine(2);
	vm = shared;
	static struct gdb *server;
	snprintf(path, sizeof(path), "%s/gdb", folder);
	snprintf(where, sizeof(where), "unix:%s", path);
	if (!server && gdb_open(&server, vm, where, &e))
		abort();
	int fd = connect_to(path);
	poller_wait(vm_poller(vm), 0);
	if (size && data[0] & 1) {
		say(vm, fd, data, size);
	} else if (size > 1) {
		uint8_t packet[4097];
		size_t n = size - 1 < 4096 ? size - 1 : 4096;
		packet[0] = (uint8_t)commands[data[0] / 2 % (sizeof(commands) - 1)];
		memcpy(packet + 1, data + 1, n);
		say_packets(vm, fd, packet, n + 1);
	}
	close(fd);
	poller_wait(vm_poller(vm), 0);
	return 0;
}
