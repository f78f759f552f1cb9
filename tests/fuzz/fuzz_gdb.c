/*
 * gdb's remote protocol: bytes of a hostile debugger, through the socket and every command, against
 * a machine that does not run. What is found is a crash or a sanitizer's report.
 */
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <stdio.h>

#include "debug/gdb.h"
#include "debug/gdb_packet.h"
#include "vm/poller.h"
#include "vm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vm *make_machine(void)
{
	static const uint8_t program[512] = {0xf4, [510] = 0x55, [511] = 0xaa};
	static char file[] = "/tmp/gnomon-fuzz-XXXXXX"; /* the configuration borrows it */
	int fd = mkstemp(file);
	if (fd < 0 || write(fd, program, sizeof(program)) != sizeof(program))
		abort();
	close(fd);
	struct vm_config config;
	struct vm *vm;
	struct error e = {0};
	vm_config_defaults(&config);
	config.kernel = file;
	config.kernel_format = BOOT_FORMAT_RAW;
	config.memory_bytes = 2 << 20;
	config.cpu_count = 2;
	if (vm_create(&vm, &config, &e)) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	unlink(file);
	return vm;
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)))
		abort();
	return fd;
}

static void drain(int fd)
{
	uint8_t bytes[4096];
	while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

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
		shared = make_machine();
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
