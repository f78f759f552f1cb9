/*
 * Guest memory: the slots around the PC hole, the rule that a write to a flagged page is seen and
 * no other is, the dirty log.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "memory/memory.h"

#define MIB (1ull << 20)

struct seen {
	unsigned count;
	gpa_t address;
	unsigned size_bytes;
};

static void see_write(void *opaque, gpa_t address, unsigned size_bytes)
{
	struct seen *s = opaque;
	s->count++;
	s->address = address;
	s->size_bytes = size_bytes;
}

static void see_flag(void *opaque, gpa_t page)
{
	see_write(opaque, page, 0);
}

static struct memory *make(uint64_t ram_bytes)
{
	struct memory *m = NULL;
	struct error e = {0};
	if (memory_create(&m, ram_bytes, &e)) {
		print_message("memory_create: %s\n", e.text);
		return NULL;
	}
	return m;
}

static void test_sizes_that_cannot_be(void **unused)
{
	struct memory *m = NULL;
	struct error e = {0};
	assert_int_equal(memory_create(&m, 0, &e), -EINVAL);
	assert_non_null(strstr(e.text, "0 bytes"));
	assert_int_equal(memory_create(&m, 4097, &e), -EINVAL);
	assert_non_null(strstr(e.text, "multiple of 4096"));
	assert_int_equal(memory_create(&m, 1ull << 55, &e), -ENOMEM);
	assert_non_null(strstr(e.text, "this host has"));
	assert_null(m);
	memory_destroy(NULL);
}

static void test_small_memory_is_one_slot(void **unused)
{
	struct memory *m = make(MIB);
	assert_non_null(m);
	assert_int_equal(m->slot_count, 1);
	assert_non_null(memory_host(m, gpa(0), MIB));
	assert_null(memory_host(m, gpa(0), MIB + 1));
	assert_null(memory_host(m, gpa(MIB), 1));
	assert_null(memory_host(m, gpa(MIB - 4), 8));
	assert_null(memory_host(m, gpa(8), UINT64_MAX));
	assert_null(memory_host(m, gpa(UINT64_MAX), 2));
	assert_null(memory_slot(m, gpa(UINT64_MAX)));
	assert_int_equal(memory_page_index(m, gpa(MIB)), MEMORY_NO_PAGE);
	memory_destroy(m);
}

static void test_the_rest_is_above_the_hole(void **unused)
{
	struct memory *m = make(MEMORY_HOLE_START + 16 * MIB);
	if (!m)
		skip();
	assert_int_equal(m->slot_count, 2);
	assert_int_equal(m->slots[1].base.v, MEMORY_HOLE_END);
	assert_int_equal(m->slots[1].size_bytes, 16 * MIB);
	assert_null(memory_slot(m, gpa(MEMORY_HOLE_START)));
	assert_null(memory_slot(m, gpa(MEMORY_HOLE_END - 1)));
	assert_int_equal(memory_page_index(m, gpa(MEMORY_HOLE_END)),
			 MEMORY_HOLE_START >> PAGE_SHIFT);

	uint32_t v = 0x12345678, back = 0;
	assert_int_equal(memory_write(m, gpa(MEMORY_HOLE_END + 5), &v, 4), 0);
	assert_int_equal(memory_read(m, gpa(MEMORY_HOLE_END + 5), &back, 4), 0);
	assert_int_equal(back, v);
	assert_int_equal(memory_write(m, gpa(MEMORY_HOLE_START - 2), &v, 4), -EFAULT);
	assert_int_equal(memory_read(m, gpa(MEMORY_HOLE_START - 2), &back, 2), 0);
	assert_int_equal(back & 0xffff, 0); /* nothing was copied */

	gpa_t a;
	assert_true(memory_gpa(m, memory_host(m, gpa(MEMORY_HOLE_END + 5), 1), &a));
	assert_int_equal(a.v, MEMORY_HOLE_END + 5);
	assert_true(memory_gpa(m, m->ram + 77, &a));
	assert_int_equal(a.v, 77);
	assert_false(memory_gpa(m, (const uint8_t *)&a, &a));
	assert_false(memory_gpa(m, m->ram + m->ram_bytes, &a));
	memory_destroy(m);
}

static void test_only_flagged_pages_are_watched(void **unused)
{
	struct memory *m = make(MIB);
	struct seen code = {0}, table = {0};
	memory_add_watcher(m, (struct memory_watcher){see_write, &code, PAGE_CODE});
	memory_add_watcher(m, (struct memory_watcher){see_write, &table, PAGE_TABLE});
	memory_set_page_flag(m, gpa(0x3000), PAGE_CODE);

	uint8_t page[PAGE_SIZE_BYTES * 3];
	memset(page, 7, sizeof(page));
	memory_write(m, gpa(0x5000), page, 8);
	assert_int_equal(code.count, 0);
	memory_write(m, gpa(0x2800), page,
		     2 * PAGE_SIZE_BYTES); /* 2800..4800: page 3 is in the middle */
	assert_int_equal(code.count, 1);
	assert_int_equal(code.address.v, 0x3000);
	assert_int_equal(code.size_bytes, PAGE_SIZE_BYTES);
	assert_int_equal(table.count, 0);

	memory_set_page_flag(m, gpa(0x3abc), PAGE_TABLE);
	memory_notify_write(m, gpa(0x3ffc), 4);
	assert_int_equal(code.count, 2);
	assert_int_equal(table.count, 1);
	assert_int_equal(table.address.v, 0x3ffc);
	memory_clear_page_flag(m, gpa(0x3000), PAGE_CODE);
	assert_int_equal(memory_page_flags(m, gpa(0x3fff)), PAGE_TABLE);
	memory_notify_write(m, gpa(0x3000), 1);
	assert_int_equal(code.count, 2);
	memory_notify_write(m, gpa(MIB * 2), 1); /* nobody's */
	memory_destroy(m);
}

static void test_listeners_hear_of_new_flags_only(void **unused)
{
	struct memory *m = make(MIB);
	struct seen s = {0};
	memory_add_flag_listener(m, (struct memory_flag_listener){see_flag, &s});
	memory_set_page_flag(m, gpa(0x4567), PAGE_TABLE);
	assert_int_equal(s.count, 1);
	assert_int_equal(s.address.v, 0x4000);
	memory_set_page_flag(m, gpa(0x4000), PAGE_TABLE);
	assert_int_equal(s.count, 1);
	memory_set_page_flag(m, gpa(0x4000), PAGE_CODE);
	assert_int_equal(s.count, 2);
	memory_set_page_flag(m, gpa(MIB), PAGE_CODE);
	memory_clear_page_flag(m, gpa(MIB), PAGE_CODE);
	assert_int_equal(s.count, 2);
	assert_int_equal(memory_page_flags(m, gpa(MIB)), 0);
	memory_destroy(m);
}

/* A page is watched while anybody holds it; a watcher that left hears no more. */
static void test_held_tables(void **unused)
{
	struct memory *m = make(MIB);
	struct seen seen = {0};
	uint32_t value = 7;
	memory_add_watcher(m, (struct memory_watcher){see_write, &seen, PAGE_TABLE});
	memory_hold_table(m, gpa(0x3000));
	memory_hold_table(m, gpa(0x3abc));
	memory_release_table(m, gpa(0x3000));
	assert_int_equal(memory_page_flags(m, gpa(0x3000)), PAGE_TABLE);
	memory_write(m, gpa(0x3000), &value, 4);
	assert_int_equal(seen.count, 1);
	memory_notify_write(m, gpa(0x3000), 4);
	memory_release_table(m, gpa(0x3000));
	assert_int_equal(memory_page_flags(m, gpa(0x3000)), 0);
	memory_hold_table(m, gpa(MEMORY_HOLE_START));
	memory_release_table(m, gpa(MEMORY_HOLE_START));
	memory_hold_table(m, gpa(0x3000));
	memory_remove_watcher(m, &seen);
	memory_write(m, gpa(0x3000), &value, 4);
	assert_int_equal(seen.count, 2);
	memory_destroy(m);
}

static void test_tables_of_watchers_fill_up(void **unused)
{
	struct memory *m = make(MIB);
	struct seen s;
	for (unsigned i = 0; i < MEMORY_WATCHERS_MAX; i++) {
		assert_int_equal(memory_add_watcher(m, (struct memory_watcher){see_write, &s, 0}),
				 0);
		assert_int_equal(
			memory_add_flag_listener(m, (struct memory_flag_listener){see_flag, &s}),
			0);
	}
	assert_int_equal(memory_add_watcher(m, (struct memory_watcher){see_write, &s, 0}), -ENOSPC);
	assert_int_equal(memory_add_flag_listener(m, (struct memory_flag_listener){see_flag, &s}),
			 -ENOSPC);
	memory_destroy(m);
}

static void test_rom_drops_writes(void **unused)
{
	struct memory *m = make(MIB);
	uint8_t v = 9, back = 1;
	memory_set_page_flag(m, gpa(0xf0000), PAGE_ROM);
	assert_int_equal(memory_write(m, gpa(0xf0010), &v, 1), 0);
	memory_read(m, gpa(0xf0010), &back, 1);
	assert_int_equal(back, 0);
	memory_destroy(m);
}

static void test_dirty_log(void **unused)
{
	struct memory *m = make(MIB);
	uint8_t bitmap[32] = {0}, v = 1;
	assert_int_equal(memory_dirty_bytes(m), sizeof(bitmap));
	assert_int_equal(memory_dirty_start(m, NULL), 0);
	memory_write(m, gpa(0x9123), &v, 1);
	assert_int_equal(memory_page_flags(m, gpa(0x9000)), 0);
	memory_write(m, gpa(0x9124), &v, 1);
	memory_dirty_collect(m, bitmap);
	for (unsigned i = 0; i < sizeof(bitmap); i++)
		assert_int_equal(bitmap[i], i == 1 ? 2 : 0);
	assert_int_equal(memory_page_flags(m, gpa(0x9000)), PAGE_CLEAN);
	memory_dirty_collect(m, bitmap);
	assert_int_equal(bitmap[1], 0);
	memory_dirty_stop(m);
	assert_int_equal(memory_page_flags(m, gpa(0x9000)), 0);
	memory_dirty_collect(m, bitmap);
	memory_destroy(m);
}

/* A private copy: the file keeps what it has, holes read as zeroes. */
static void test_ram_from_a_file(void **unused)
{
	char path[] = "/tmp/gnomon-memory-XXXXXX";
	int fd = mkstemp(path);
	struct error e = {0};
	uint64_t word = 0x1122334455667788, other = 7, back;
	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, (off_t)(MIB + 8192)), 0);
	assert_int_equal(pwrite(fd, &word, 8, 8192 + 0x3000), 8);
	struct memory *m = make(MIB);
	assert_int_equal(memory_map_file(m, 0x2000, 0x4000, fd, 8192 + 0x2000, &e), 0);
	assert_int_equal(memory_read(m, gpa(0x3000), &back, 8), 0);
	assert_true(back == word);
	assert_int_equal(memory_read(m, gpa(0x5000), &back, 8), 0);
	assert_true(back == 0);
	assert_int_equal(memory_write(m, gpa(0x3000), &other, 8), 0);
	assert_int_equal(pread(fd, &back, 8, 8192 + 0x3000), 8);
	assert_true(back == word);
	assert_int_equal(memory_map_file(m, 0, 0x1000, fd, 100, &e), -EINVAL);
	assert_int_equal(memory_map_file(m, MIB - 0x1000, 0x2000, fd, 0, &e), -EINVAL);
	assert_non_null(strstr(e.text, "more of a file"));
	memory_destroy(m);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_that_cannot_be),
		cmocka_unit_test(test_small_memory_is_one_slot),
		cmocka_unit_test(test_the_rest_is_above_the_hole),
		cmocka_unit_test(test_only_flagged_pages_are_watched),
		cmocka_unit_test(test_listeners_hear_of_new_flags_only),
		cmocka_unit_test(test_held_tables),
		cmocka_unit_test(test_tables_of_watchers_fill_up),
		cmocka_unit_test(test_rom_drops_writes),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_ram_from_a_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
