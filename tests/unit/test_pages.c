/* Memory by the page: what is mapped twice is one memory, and nowhere writable and runnable. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/pages.h"

#define AREA_BYTES (64u << 10)

/* What /proc/self/maps says of `address`: "r-xs" and the name behind the inode. */
static void look_up(const void *address, char rights[5], char name[64])
{
	char line[256];
	FILE *maps = fopen("/proc/self/maps", "re");
	assert_non_null(maps);
	rights[0] = name[0] = 0;
	while (fgets(line, sizeof(line), maps)) {
		uintptr_t first, end;
		char r[5], n[64] = "";
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %*s %63s", &first, &end, r,
			   n) < 3)
			continue;
		if ((uintptr_t)address < first || (uintptr_t)address >= end)
			continue;
		memcpy(rights, r, sizeof(r));
		memcpy(name, n, sizeof(n));
	}
	fclose(maps);
}

static void code_is_written_at_one_address_and_runs_at_another(void **state)
{
	(void)state;
	static const uint8_t answer[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
	void *writable, *running;
	char rights[5], name[64];
	assert_true(pages_map_twice(AREA_BYTES, &writable, &running));
	memcpy((uint8_t *)writable + AREA_BYTES - sizeof(answer), answer, sizeof(answer));
	int (*ask)(void) = (int (*)(void))((uintptr_t)running + AREA_BYTES - sizeof(answer));
	assert_int_equal(ask(), 42);
	look_up(writable, rights, name);
	assert_string_equal(rights, "rw-s");
	look_up(running, rights, name);
	assert_string_equal(rights, "r-xs");
	/* perf looks into /tmp/perf-PID.map for these and a few other names only. */
	assert_string_equal(name, "/dev/zero");
	pages_unmap(writable, AREA_BYTES);
	assert_int_equal(ask(), 42);
	pages_unmap(running, AREA_BYTES);
	look_up(running, rights, name);
	assert_string_not_equal(name, "/dev/zero");
}

static void gathered_code_is_the_same(void **state)
{
	(void)state;
	static const uint8_t answer[] = {0xb8, 42, 0, 0, 0, 0xc3};
	void *writable, *running;
	assert_true(pages_map_twice(2 * LARGE_PAGE_BYTES, &writable, &running));
	assert_int_equal((uintptr_t)writable % LARGE_PAGE_BYTES, 0);
	assert_int_equal((uintptr_t)running % LARGE_PAGE_BYTES, 0);
	uint8_t *last = (uint8_t *)writable + LARGE_PAGE_BYTES - sizeof(answer);
	int (*ask)(void) = (int (*)(void))((uintptr_t)running + LARGE_PAGE_BYTES - sizeof(answer));
	memcpy(last, answer, sizeof(answer));
	pages_gather(running, LARGE_PAGE_BYTES);
	assert_int_equal(ask(), 42);
	last[1] = 43;
	assert_int_equal(ask(), 43);
	pages_gather(running, LARGE_PAGE_BYTES); /* what is large already */
	assert_int_equal(ask(), 43);
	pages_unmap(writable, 2 * LARGE_PAGE_BYTES);
	pages_unmap(running, 2 * LARGE_PAGE_BYTES);
}

/* The pages between are each place's own. */
static void what_is_shared_is_the_same_memory_everywhere(void **state)
{
	(void)state;
	const size_t step = 2 * LARGE_PAGE_BYTES, all = 3 * step;
	uint8_t *p = pages_map_large(all);
	assert_non_null(p);
	assert_true(pages_share(p, LARGE_PAGE_BYTES, step, 3));
	p[5] = 1;
	p[step + LARGE_PAGE_BYTES - 1] = 2;
	p[LARGE_PAGE_BYTES] = 3;
	assert_int_equal(p[2 * step + 5], 1);
	assert_int_equal(p[LARGE_PAGE_BYTES - 1], 2);
	assert_int_equal(p[step + LARGE_PAGE_BYTES], 0);
	pages_unmap(p, all);
}

static void no_room_is_an_answer(void **state)
{
	(void)state;
	void *writable, *running;
	assert_false(pages_map_twice((size_t)1 << 62, &writable, &running));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_is_written_at_one_address_and_runs_at_another),
		cmocka_unit_test(gathered_code_is_the_same),
		cmocka_unit_test(what_is_shared_is_the_same_memory_everywhere),
		cmocka_unit_test(no_room_is_an_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
