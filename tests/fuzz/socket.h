/*
 * What the fuzz targets of a running machine's sockets share: a machine that does not run, and the
 * other side of the socket.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vm/poller.h"
#include "vm/vm.h"

static inline struct vm *make_machine(unsigned cpu_count)
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
	config.cpu_count = cpu_count;
	if (vm_create(&vm, &config, &e)) {
		fprintf(stderr, "%s\n", e.text);
		abort();
	}
	unlink(file);
	return vm;
}

static inline int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)))
		abort();
	return fd;
}

static inline void drain(int fd)
{
	uint8_t bytes[4096];
	while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}
