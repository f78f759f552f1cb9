/*
 * Snapshots as files: what is restored is what was saved, under every strategy; a file that is not
 * whole is refused; whatever happens while one is written, the old one stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "counting_guest.h"
#include "memory/memory.h"
#include "snapshot/format.h"

struct world {
	void *guest;
	struct vm_config *config;
	char folder[40];
	struct snapshot *restored[128]; /* as long as their machines */
	unsigned restored_count;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	make_guest(&w->guest);
	w->config = &((struct guest *)w->guest)->config;
	strcpy(w->folder, "/tmp/gnomon-snapshot-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	*state = w;
	return 0;
}

static void close_restored(struct world *w)
{
	while (w->restored_count)
		snapshot_close(w->restored[--w->restored_count]);
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[80];
	close_restored(w);
	snprintf(command, sizeof(command), "rm -r %s", w->folder);
	assert_int_equal(system(command), 0);
	drop_guest(&w->guest);
	free(w);
	return 0;
}

/* Four names may be in use at once. */
static const char *path(const struct world *w, const char *name)
{
	static char names[4][80];
	static unsigned next;
	char *p = names[next++ % 4];
	snprintf(p, sizeof(names[0]), "%s/%s", w->folder, name);
	return p;
}

static void save(struct vm *vm, const char *file, const char *base)
{
	struct error e = {0};
	if (snapshot_save(vm, file, base, &e))
		fail_msg("%s", e.text);
}

static struct snapshot *open_good(const char *file)
{
	struct snapshot *s = NULL;
	struct error e = {0};
	if (snapshot_open(&s, file, &e))
		fail_msg("%s", e.text);
	return s;
}

static struct vm *restore(struct world *w, const char *file, const char *paging)
{
	struct snapshot *s = open_good(file);
	struct vm_config c;
	vm_config_defaults(&c);
	c.timeout_ms = 60000;
	c.paging = paging;
	snapshot_configure(s, &c);
	assert_in_range(w->restored_count, 0, ARRAY_COUNT(w->restored) - 1);
	w->restored[w->restored_count++] = s;
	return make(&c);
}

static uint8_t *contents(const char *file, size_t *size_bytes)
{
	struct stat st;
	int fd = open(file, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	uint8_t *bytes = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
	close(fd);
	*size_bytes = (size_t)st.st_size;
	return bytes;
}

static void write_file(const char *file, const uint8_t *bytes, size_t size_bytes)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size_bytes), size_bytes);
	close(fd);
}

static void assert_same_files(const char *a, const char *b)
{
	size_t na, nb;
	uint8_t *bytes_a = contents(a, &na), *bytes_b = contents(b, &nb);
	assert_int_equal(na, nb);
	assert_memory_equal(bytes_a, bytes_b, na);
	free(bytes_a);
	free(bytes_b);
}

/* GNOMON_ROUNDS=1000 in the environment is for those who have a minute. */
static unsigned rounds(unsigned usual)
{
	const char *asked = getenv("GNOMON_ROUNDS");
	return asked ? (unsigned)strtoul(asked, NULL, 10) : usual;
}

/* ---- laws ---- */

static void test_save_restore_save(void **state)
{
	struct world *w = *state;
	for (uint64_t n = 0; n < 20000; n = n * 5 + 3) {
		struct vm *a = make(w->config);
		advance(a, n);
		save(a, path(w, "a"), NULL);
		for (unsigned i = 0; i < strategy_count(); i++) {
			struct vm *b = restore(w, path(w, "a"), strategy(i));
			assert_true(vm_instructions_ever(b) == n);
			save(b, path(w, "b"), NULL);
			assert_same_files(path(w, "a"), path(w, "b"));
			vm_destroy(b);
		}
		vm_destroy(a);
	}
}

/* The file says nothing of how the guest was executed. */
static void test_every_strategy_saves_the_same(void **state)
{
	struct world *w = *state;
	for (unsigned i = 0; i < strategy_count(); i++) {
		struct vm_config c = *w->config;
		c.paging = strategy(i);
		struct vm *vm = make(&c);
		advance(vm, 4321);
		save(vm, path(w, strategy(i)), NULL);
		vm_destroy(vm);
		assert_same_files(path(w, strategy(0)), path(w, strategy(i)));
	}
}

static void test_going_on_from_a_file(void **state)
{
	struct world *w = *state;
	enum { STEP = 2999 };
	unsigned count = rounds(100);
	char expected[33], seen[33];
	struct vm *whole = make(w->config);
	advance(whole, (uint64_t)count * STEP);
	hash(whole, expected);
	vm_destroy(whole);
	struct vm *vm = make(w->config);
	/* From file to file, each under the next strategy. */
	for (unsigned i = 0; i < count; i++) {
		advance(vm, STEP);
		save(vm, path(w, "s"), NULL);
		vm_destroy(vm);
		close_restored(w);
		vm = restore(w, path(w, "s"), strategy(i));
	}
	hash(vm, seen);
	assert_string_equal(seen, expected);
	vm_destroy(vm);
}

/* A machine whose file is replaced or removed keeps the RAM it was made with. */
static void test_the_file_may_be_replaced(void **state)
{
	struct world *w = *state;
	char expected[33], seen[33];
	struct vm *vm = make(w->config);
	advance(vm, 5000);
	hash(vm, expected);
	save(vm, path(w, "s"), NULL);
	struct vm *b = restore(w, path(w, "s"), "nested");
	advance(vm, 5000);
	save(vm, path(w, "s"), NULL);
	unlink(path(w, "s"));
	hash(b, seen);
	assert_string_equal(seen, expected);
	vm_destroy(b);
	vm_destroy(vm);
}

static void test_zero_pages_are_holes(void **state)
{
	struct world *w = *state;
	struct vm_config c = *w->config;
	struct stat st;
	struct error e = {0};
	c.memory_bytes = 1ull << 30;
	struct vm *vm = make(&c);
	advance(vm, 1000);
	save(vm, path(w, "s"), NULL);
	vm_destroy(vm);
	assert_int_equal(stat(path(w, "s"), &st), 0);
	assert_in_range(st.st_size, 1 << 30, (1 << 30) + (1 << 20));
	assert_in_range(st.st_blocks * 512, 1, 1 << 20);
	struct snapshot *s = open_good(path(w, "s"));
	assert_int_equal(snapshot_verify(s, &e), 0);
	snapshot_close(s);
}

/* ---- differences ---- */

static void test_differences(void **state)
{
	struct world *w = *state;
	struct stat whole, difference;
	struct vm *vm = make(w->config);
	advance(vm, 5000);
	save(vm, path(w, "0"), NULL);
	for (char name[] = "1", base[] = "0"; name[0] < '5'; name[0]++, base[0]++) {
		advance(vm, 3000);
		memory_write(vm_memory(vm), gpa(0x100000u * (unsigned)(name[0] - '0')), name, 1);
		save(vm, path(w, name), path(w, base));
		save(vm, path(w, "whole"), NULL);
		assert_int_equal(stat(path(w, name), &difference), 0);
		assert_int_equal(stat(path(w, "whole"), &whole), 0);
		assert_in_range(difference.st_size, 4096, 64 << 10);
		struct vm *b = restore(w, path(w, name), "shadow");
		save(b, path(w, "again"), NULL);
		assert_same_files(path(w, "whole"), path(w, "again"));
		vm_destroy(b);
	}
	vm_destroy(vm);
	struct error e = {0};
	struct snapshot *s = open_good(path(w, "4"));
	assert_int_equal(snapshot_verify(s, &e), 0);
	snapshot_close(s);
}

/* The dirty log finds what comparing everything finds, under every strategy. */
static void test_differences_by_the_dirty_log(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	struct vm *vm = make(w->config);
	advance(vm, 5000);
	save(vm, path(w, "base"), NULL);
	vm_destroy(vm);
	for (unsigned i = 0; i < strategy_count(); i++) {
		vm = restore(w, path(w, "base"), strategy(i));
		assert_int_equal(snapshot_track(vm, path(w, "base"), &e), 0);
		advance(vm, 7000);
		memory_write(vm_memory(vm), gpa(0x123456), "by a device", 11);
		memory_write(vm_memory(vm), gpa(0x234567), "", 1); /* written, and the same */
		save(vm, path(w, "by-log"), path(w, "base"));
		/* Would it be seen if the log had missed something? */
		memory_host(vm_memory(vm), gpa(0x300000), 1)[0] = 1;
		save(vm, path(w, "blind"), path(w, "base"));
		assert_same_files(path(w, "by-log"), path(w, "blind"));
		memory_host(vm_memory(vm), gpa(0x300000), 1)[0] = 0;
		assert_int_equal(vm_track_memory(vm, NULL, &e), 0);
		assert_null(vm_tracked_memory(vm));
		save(vm, path(w, "by-comparing"), path(w, "base"));
		assert_same_files(path(w, "by-log"), path(w, "by-comparing"));
		vm_destroy(vm);
	}
}

static void refused(const char *file, int error, const char *text)
{
	struct snapshot *s = (void *)1;
	struct error e = {0};
	assert_int_equal(snapshot_open(&s, file, &e), error);
	assert_null(s);
	if (!strstr(e.text, text))
		fail_msg("'%s' does not say '%s'", e.text, text);
}

static void test_bases_that_will_not_do(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	struct vm *vm = make(w->config);
	save(vm, path(w, "base"), NULL);
	advance(vm, 5000);
	save(vm, path(w, "diff"), path(w, "base"));
	assert_int_equal(snapshot_save(vm, path(w, "base"), path(w, "base"), &e), -EINVAL);
	assert_non_null(strstr(e.text, "its own base"));
	/* Both moved: found beside it. */
	char command[200];
	snprintf(command, sizeof(command), "mkdir %s && mv %s %s %s", path(w, "d"), path(w, "base"),
		 path(w, "diff"), path(w, "d"));
	assert_int_equal(system(command), 0);
	vm_destroy(restore(w, path(w, "d/diff"), "nested"));
	save(vm, path(w, "d/base"), NULL);
	refused(path(w, "d/diff"), -EINVAL, "is now another");
	unlink(path(w, "d/base"));
	refused(path(w, "d/diff"), -ENOENT, "the base of");
	vm_destroy(vm);
	struct vm_config c = *w->config;
	c.memory_bytes *= 2;
	vm = make(&c);
	save(vm, path(w, "large"), NULL);
	vm_destroy(vm);
	vm = make(w->config);
	assert_int_equal(snapshot_save(vm, path(w, "x"), path(w, "large"), &e), -EINVAL);
	assert_non_null(strstr(e.text, "8 MiB"));
	vm_destroy(vm);
}

/* ---- damage ---- */

static void test_what_is_no_snapshot(void **state)
{
	struct world *w = *state;
	refused(path(w, "missing"), -ENOENT, "No such file");
	refused(w->folder, -EINVAL, "not a regular file");
	refused("/dev/null", -EINVAL, "not a regular file");
	write_file(path(w, "x"), (const uint8_t *)"", 0);
	refused(path(w, "x"), -EINVAL, "no snapshot");
	write_file(path(w, "x"), (const uint8_t *)"GNOMSNAQ and more", 17);
	refused(path(w, "x"), -EINVAL, "no snapshot");
}

/* Every bit before RAM counts, and every length but the right one is refused. */
static void test_damage_before_ram(void **state)
{
	struct world *w = *state;
	size_t n;
	struct vm *vm = make(w->config);
	advance(vm, 5000);
	save(vm, path(w, "s"), NULL);
	vm_destroy(vm);
	uint8_t *bytes = contents(path(w, "s"), &n);
	struct snapshot_header *h = (struct snapshot_header *)bytes;
	uint64_t end = h->sections[PART_SUMS].offset + h->sections[PART_SUMS].size_bytes;
	int fd = open(path(w, "s"), O_RDWR);
	for (uint64_t at = 0; at < end; at += at < sizeof(*h) ? 1 : 13) {
		bool is_padding = false;
		for (unsigned i = 1; i < PART_COUNT; i++)
			is_padding |=
				at < h->sections[i].offset &&
				at >= h->sections[i - 1].offset + h->sections[i - 1].size_bytes;
		uint8_t b = bytes[at] ^ (uint8_t)(1u << (at % 8));
		struct snapshot *s;
		assert_int_equal(pwrite(fd, &b, 1, (off_t)at), 1);
		assert_int_equal(snapshot_open(&s, path(w, "s"), NULL), is_padding ? 0 : -EINVAL);
		snapshot_close(s);
		assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
	}
	for (size_t length = 0; length < n; length += 1 + length / 3) {
		write_file(path(w, "x"), bytes, length);
		refused(path(w, "x"), -EINVAL, length < 8 ? "no snapshot" : "x'");
	}
	assert_int_equal(ftruncate(fd, (off_t)n + 1), 0);
	refused(path(w, "s"), -EINVAL, "longer");
	h->version++;
	write_file(path(w, "x"), bytes, n);
	refused(path(w, "x"), -EINVAL, "reads version 1");
	close(fd);
	free(bytes);
}

static void test_damage_in_ram(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	struct vm *vm = make(w->config);
	advance(vm, 5000);
	save(vm, path(w, "s"), NULL);
	vm_destroy(vm);
	struct snapshot *s = open_good(path(w, "s"));
	uint64_t ram = s->header.sections[PART_RAM].offset;
	assert_int_equal(snapshot_verify(s, &e), 0);
	int fd = open(path(w, "s"), O_RDWR);
	/* In a page with contents, and in a hole of a part that has no contents at all. */
	const uint64_t places[] = {ram + 0x7c00, ram + (3 << 20)};
	for (unsigned i = 0; i < 2; i++) {
		uint8_t good, bad;
		assert_int_equal(pread(fd, &good, 1, (off_t)places[i]), 1);
		bad = good ^ 0x10;
		assert_int_equal(pwrite(fd, &bad, 1, (off_t)places[i]), 1);
		assert_int_equal(snapshot_verify(s, &e), -EINVAL);
		assert_non_null(strstr(e.text, "does not fit"));
		assert_int_equal(pwrite(fd, &good, 1, (off_t)places[i]), 1);
		assert_int_equal(snapshot_verify(s, &e), 0);
	}
	assert_int_equal(
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)ram, 2 << 20), 0);
	assert_int_equal(snapshot_verify(s, &e), -EINVAL);
	assert_non_null(strstr(e.text, "hole"));
	close(fd);
	snapshot_close(s);
}

/* ---- hosts that will not ---- */

static void test_no_room(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	struct rlimit old, small = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY};
	struct vm *vm = make(w->config);
	save(vm, path(w, "s"), NULL);
	save(vm, path(w, "first"), NULL);
	advance(vm, 5000);
	void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int r = snapshot_save(vm, path(w, "s"), NULL, &e);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, before);
	assert_int_equal(r, -EFBIG);
	assert_non_null(strstr(e.text, "File too large"));
	assert_int_equal(access(path(w, "s.partial"), F_OK), -1);
	assert_same_files(path(w, "s"), path(w, "first"));
	assert_int_equal(snapshot_save(vm, path(w, "none/s"), NULL, &e), -ENOENT);
	assert_non_null(strstr(e.text, "none/s"));
	assert_int_equal(mkdir(path(w, "folder"), 0700), 0);
	assert_int_equal(snapshot_save(vm, path(w, "folder"), NULL, &e), -EISDIR);
	assert_int_equal(access(path(w, "folder.partial"), F_OK), -1);
	vm_destroy(vm);
}

static void test_one_writer_at_a_time(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	struct vm *vm = make(w->config);
	int fd = open(path(w, "s.partial"), O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, "left behind", 11), 11);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(snapshot_save(vm, path(w, "s"), NULL, &e), -EBUSY);
	assert_int_equal(access(path(w, "s"), F_OK), -1);
	close(fd); /* as dying would */
	save(vm, path(w, "s"), NULL);
	assert_int_equal(access(path(w, "s.partial"), F_OK), -1);
	snapshot_close(open_good(path(w, "s")));
	vm_destroy(vm);
}

static void sleep_us(unsigned us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};
	nanosleep(&t, NULL);
}

/* Killed at any time: the old one or a new one, whole. */
static void test_killed_while_saving(void **state)
{
	struct world *w = *state;
	struct vm *vm = make(w->config);
	struct error e = {0};
	struct timespec before, after;
	unsigned finished = 0, count = rounds(200);
	/* Something to write: a page takes a while. */
	for (uint64_t at = 0x100000; at < 0x380000; at += 4096)
		memory_write(vm_memory(vm), gpa(at), &at, sizeof(at));
	clock_gettime(CLOCK_MONOTONIC, &before);
	save(vm, path(w, "s"), NULL);
	clock_gettime(CLOCK_MONOTONIC, &after);
	unsigned us = (unsigned)((after.tv_sec - before.tv_sec) * 1000000 +
				 (after.tv_nsec - before.tv_nsec) / 1000);
	for (unsigned round = 0; round < count; round++) {
		advance(vm, 10);
		pid_t child = fork();
		if (!child) {
			for (;;)
				snapshot_save(vm, path(w, "s"), NULL, NULL);
		}
		sleep_us(us * (round % 32) / 16); /* up to twice what one takes */
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, NULL, 0), child);
		struct snapshot *s = open_good(path(w, "s"));
		assert_int_equal(snapshot_verify(s, &e), 0);
		finished += s->machine.instructions == vm_instructions(vm);
		snapshot_close(s);
	}
	save(vm, path(w, "s"), NULL);
	assert_int_equal(access(path(w, "s.partial"), F_OK), -1);
	assert_in_range(finished, 1, count - 1);
	vm_destroy(vm);
}

/* ---- what is restored where ---- */

static void test_processors_that_lack_something(void **state)
{
	struct world *w = *state;
	struct error e = {0};
	struct vm_config c = *w->config;
	struct vm *vm;
	c.cpu = "x86-64-v2";
	vm = make(&c);
	save(vm, path(w, "s"), NULL);
	vm_destroy(vm);
	struct snapshot *s = open_good(path(w, "s"));
	vm_config_defaults(&c);
	snapshot_configure(s, &c);
	c.cpu = "x86-64-v2,-popcnt,-sse4_2";
	assert_int_equal(vm_create(&vm, &c, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.text, "popcnt"));
	assert_non_null(strstr(e.text, "sse4_2"));
	c.cpu = "max";
	assert_int_equal(vm_create(&vm, &c, &e), 0);
	assert_false(cpu_has(vm_model(vm), FEATURE_AVX)); /* what its guest has seen, no more */
	vm_destroy(vm);
	snapshot_close(s);
}

static void test_descriptions(void **state)
{
	struct world *w = *state;
	char *text = NULL;
	size_t n;
	struct error e = {0};
	struct vm *vm = make(w->config);
	advance(vm, 5000);
	save(vm, path(w, "base"), NULL);
	advance(vm, 5000);
	save(vm, path(w, "s"), path(w, "base"));
	vm_destroy(vm);
	struct snapshot *s = open_good(path(w, "s"));
	for (unsigned is_json = 0; is_json < 2; is_json++) {
		FILE *f = open_memstream(&text, &n);
		assert_int_equal(snapshot_describe(s, false, is_json, f, &e), 0);
		fclose(f);
		assert_non_null(strstr(text, "10000"));
		assert_non_null(strstr(text, w->config->kernel));
		assert_non_null(strstr(text, s->base->id));
		assert_non_null(strstr(text, s->id));
		assert_non_null(strstr(text, "sse2"));
		free(text);
	}
	snapshot_close(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_save_restore_save),
		TEST(test_every_strategy_saves_the_same),
		TEST(test_going_on_from_a_file),
		TEST(test_the_file_may_be_replaced),
		TEST(test_zero_pages_are_holes),
		TEST(test_differences),
		TEST(test_differences_by_the_dirty_log),
		TEST(test_bases_that_will_not_do),
		TEST(test_what_is_no_snapshot),
		TEST(test_damage_before_ram),
		TEST(test_damage_in_ram),
		TEST(test_no_room),
		TEST(test_one_writer_at_a_time),
		TEST(test_killed_while_saving),
		TEST(test_processors_that_lack_something),
		TEST(test_descriptions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
