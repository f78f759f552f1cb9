/*
 * A machine for which the host has no memory, no file, no thread left: while it is made each call
 * for one of them fails once, and the machine is refused with a message, leaving nothing behind, or
 * does without and runs. The calls go through this file (the linker's --wrap). Then the same
 * machine made and run again and again: nothing grows.
 */
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <liburing.h>
#include <cmocka.h>

#include "vm/vm.h"

/* ---- the host's calls ---- */

static struct {
	bool is_on;
	unsigned left; /* calls until the one that fails */
	bool has_failed;
	const char *call; /* that failed */
} fault;

static bool must_fail(const char *call, int error)
{
	if (!fault.is_on || fault.has_failed || fault.left--)
		return false;
	fault.has_failed = true;
	fault.call = call;
	errno = error;
	return true;
}

#define WRAP(type, name, error, failed, parameters, arguments)                       \
	type __real_##name parameters;                                               \
	type __wrap_##name parameters;                                               \
	type __wrap_##name parameters                                                \
	{                                                                            \
		return must_fail(#name, error) ? (failed) : __real_##name arguments; \
	}

WRAP(void *, malloc, ENOMEM, NULL, (size_t n), (n))
WRAP(void *, calloc, ENOMEM, NULL, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, ENOMEM, NULL, (void *p, size_t n), (p, n))
WRAP(void *, aligned_alloc, ENOMEM, NULL, (size_t a, size_t n), (a, n))
WRAP(char *, strdup, ENOMEM, NULL, (const char *s), (s))
WRAP(FILE *, open_memstream, ENOMEM, NULL, (char **p, size_t *n), (p, n))
WRAP(void *, mmap64, ENOMEM, MAP_FAILED, (void *p, size_t n, int prot, int flags, int fd, off_t at),
     (p, n, prot, flags, fd, at))
WRAP(int, open64, EMFILE, -1, (const char *p, int flags, mode_t mode), (p, flags, mode))
WRAP(int, memfd_create, EMFILE, -1, (const char *name, unsigned flags), (name, flags))
WRAP(int, eventfd, EMFILE, -1, (unsigned n, int flags), (n, flags))
WRAP(int, epoll_create1, EMFILE, -1, (int flags), (flags))
WRAP(int, socket, EMFILE, -1, (int d, int t, int p), (d, t, p))
WRAP(int, io_uring_queue_init, ENOMEM, -ENOMEM, (unsigned n, struct io_uring *r, unsigned flags),
     (n, r, flags))
WRAP(int, pthread_create, EAGAIN, EAGAIN,
     (pthread_t * t, const pthread_attr_t *a, void *(*f)(void *), void *o), (t, a, f, o))

/* ---- a machine with everything ---- */

struct world {
	char folder[32], kernel[64], options[8][100];
	struct vm_config config;
};

/* mov dx, 604h; mov ax, 3400h; out dx, ax: off */
static const uint8_t power_off[] = {0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef, 0xf4};

static void write_file(const char *path, const void *bytes, size_t count, off_t size)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, count, f), count);
	fclose(f);
	assert_int_equal(truncate(path, size), 0);
}

/* `file` is in the world's folder; may be NULL. */
static void add(struct world *w, const char *kind, const char *option, const char *file)
{
	unsigned i = w->config.device_count++;
	char *to = w->options[i];
	strcpy(to, option);
	if (file)
		strcat(strcat(to, w->folder), file);
	w->config.devices[i] = (struct vm_device){.kind = kind, .text = w->options[i]};
}

static void make_world(struct world *w, const char *engine, const char *paging)
{
	uint8_t boot[512] = {0};
	char path[64];
	memset(w, 0, sizeof(*w));
	assert_non_null(mkdtemp(strcpy(w->folder, "/tmp/gnomon-faults-XXXXXX")));
	memcpy(boot, power_off, sizeof(power_off));
	boot[510] = 0x55;
	boot[511] = 0xaa;
	snprintf(w->kernel, sizeof(w->kernel), "%s/kernel", w->folder);
	write_file(w->kernel, boot, sizeof(boot), sizeof(boot));
	snprintf(path, sizeof(path), "%s/disk", w->folder);
	write_file(path, "", 0, 65536);
	vm_config_defaults(&w->config);
	w->config.kernel = w->kernel;
	w->config.kernel_format = BOOT_FORMAT_RAW;
	w->config.memory_bytes = 4 << 20;
	w->config.timeout_ms = 60000;
	w->config.cpu_count = 2;
	w->config.engine = engine;
	w->config.paging = paging;
	w->config.clock = CLOCK_REAL;
	add(w, "rng", "transport=mmio", NULL);
	add(w, "balloon", "", NULL);
	add(w, "blk", "", "/disk");
	add(w, "vsock", "path=", "/vsock");
	add(w, "pvpanic", "", NULL);
	add(w, "i6300esb", "", NULL);
	add(w, "console", "", NULL);
}

static void remove_world(struct world *w)
{
	static const char *const names[] = {"kernel", "disk", "vsock"};
	char path[64];
	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", w->folder, names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(w->folder), 0);
}

static unsigned open_files(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void run_to_the_end(struct vm *vm)
{
	struct vm_outcome o;
	vm_run(vm, &o);
	assert_int_equal(o.end, VM_END_POWER_OFF);
}

/* ---- each call in turn ---- */

/* False: there were not that many calls. */
static bool fails_at(const struct world *w, unsigned number, unsigned *without)
{
	struct vm *vm = NULL;
	struct error e = {0};
	unsigned before = open_files();
	fault.left = number;
	fault.has_failed = false;
	fault.is_on = true;
	int r = vm_create(&vm, &w->config, &e);
	fault.is_on = false;
	if (r && (!fault.has_failed || r != e.code || !*e.text))
		fail_msg("call %u, %s: %d, '%s'", number, fault.call, r, e.text);
	if (!r) {
		*without += fault.has_failed;
		run_to_the_end(vm);
		vm_destroy(vm);
	}
	if (open_files() != before)
		fail_msg("call %u, %s: files are left open", number, fault.call);
	return fault.has_failed;
}

static void test_no_room_for_a_machine(void **state)
{
	static const char *const kinds[][2] = {
		{"interp", "shadow-cache"}, {"interp", "agile"}, {"trans", "nested"}};
	for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
		struct world w;
		unsigned number = 0, without = 0;
		make_world(&w, kinds[i][0], kinds[i][1]);
		while (fails_at(&w, number, &without))
			number++;
		print_message("%s, %s: %u calls, %u of which it can do without\n", kinds[i][0],
			      kinds[i][1], number, without);
		assert_true(number > 40);
		remove_world(&w);
	}
}

/* ---- again and again ---- */

static size_t allocated(void)
{
	return mallinfo2().uordblks + mallinfo2().hblkhd;
}

static void test_nothing_grows(void **state)
{
	struct world w;
	size_t first = 0;
	unsigned files = open_files();
	make_world(&w, "trans", "shadow-cache");
	for (unsigned round = 0; round < 60; round++) {
		struct vm *vm;
		struct error e = {0};
		if (vm_create(&vm, &w.config, &e))
			fail_msg("%s", e.text);
		run_to_the_end(vm);
		vm_destroy(vm);
		assert_int_equal(open_files(), files);
		/* Libraries keep what they made the first time. */
		if (round == 9)
			first = allocated();
	}
	assert_in_range(allocated(), 0, first + 4096);
	remove_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_room_for_a_machine),
		cmocka_unit_test(test_nothing_grows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
