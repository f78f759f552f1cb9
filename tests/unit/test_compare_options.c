/* The command line of gnomon compare: which schemes come of it, in which order, and who serves. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cli/compare_options.h"

#include <cmocka.h>

#define WORDS_MAX 24

static struct compare_options options;
static struct error error;

/* Parses "gnomon compare --kernel k" and the words; the list ends with NULL. */
static int parse(const char *first, ...)
{
	static char words[WORDS_MAX][128] = {"compare", "--kernel=k"};
	char *argv[WORDS_MAX + 1] = {words[0], words[1]};
	int argc = 2;
	va_list list;

	va_start(list, first);
	for (const char *w = first; w && argc < WORDS_MAX; w = va_arg(list, const char *)) {
		strcpy(words[argc], w);
		argv[argc] = words[argc];
		argc++;
	}
	va_end(list);
	error = (struct error){0};
	compare_options_init(&options);
	return compare_options_parse(&options, argc, argv, &error);
}

static void assert_says(const char *text)
{
	if (!strstr(error.text, text))
		fail_msg("'%s' lacks '%s'", error.text, text);
}

static void test_all_is_the_default(void **state)
{
	unsigned count = 0;

	assert_int_equal(parse(NULL), 0);
	while (mmu_strategy_name(count, NULL))
		count++;
	assert_int_equal(options.strategy_count, count);
	assert_int_equal(options.profile_count, 1);
	assert_string_equal(options.profiles[0], "skylake-sp");
	assert_string_equal(options.run.vm.paging, "native");
	assert_int_equal(options.run.vm.observer_count, count - 1);
	assert_int_equal(options.format, COMPARE_TABLE);
	assert_string_equal(options.run.vm.serial[0], "null");
}

static void assert_observer(unsigned i, const char *paging, const char *profile)
{
	assert_string_equal(options.run.vm.observers[i].paging, paging);
	assert_string_equal(options.run.vm.observers[i].profile, profile);
}

static void test_schemes_in_order(void **state)
{
	assert_int_equal(parse("--strategy", "shadow,nested:host-page=2m", "--profile",
			       "k10-2350,skylake-sp", "--paging", "shadow", NULL),
			 0);
	assert_int_equal(options.strategy_count, 3);
	assert_int_equal(options.primary, 1);
	assert_string_equal(options.run.vm.profile, "k10-2350");
	assert_int_equal(options.run.vm.observer_count, 5);
	assert_observer(0, "native", "k10-2350");
	assert_observer(1, "nested:host-page=2M", "k10-2350");
	assert_observer(2, "native", "skylake-sp");
	assert_observer(3, "shadow", "skylake-sp");
	assert_observer(4, "nested:host-page=2M", "skylake-sp");
}

/* Other spellings of one strategy are one strategy; who serves is compared, too. */
static void test_nothing_twice(void **state)
{
	assert_int_equal(parse("--strategy=nested,nested:host-page=4K", "--strategy=nested",
			       "--strategy=native", "--profile=k10-2350,k10-2350",
			       "--paging=shadow", NULL),
			 0);
	assert_int_equal(options.strategy_count, 3);
	assert_string_equal(options.strategies[0], "native");
	assert_string_equal(options.strategies[1], "nested");
	assert_string_equal(options.strategies[2], "shadow");
	assert_int_equal(options.profile_count, 1);
	assert_int_equal(options.primary, 2);
}

static void test_format_by_name(void **state)
{
	assert_int_equal(parse("--out", "a/b.html", NULL), 0);
	assert_int_equal(options.format, COMPARE_HTML);
	assert_int_equal(parse("--out", "b.csv", NULL), 0);
	assert_int_equal(options.format, COMPARE_CSV);
	assert_int_equal(parse("--out", "b.csv", "--format", "json", NULL), 0);
	assert_int_equal(options.format, COMPARE_JSON);
	assert_int_equal(parse("--out", "b.txt", NULL), 0);
	assert_int_equal(options.format, COMPARE_TABLE);
}

static void test_options_of_run(void **state)
{
	assert_int_equal(parse("-m", "64M", "--from=5", "--to-text", "end", "--serial", "stdio",
			       "--vary", "exit.cpuid.handling=1..100:7", NULL),
			 0);
	assert_int_equal(options.run.vm.memory_bytes, 64ull << 20);
	assert_int_equal(options.run.vm.region_from, 5);
	assert_string_equal(options.run.vm.region_to_text, "end");
	assert_string_equal(options.run.vm.serial[0], "stdio");
	assert_int_equal(options.vary_count, 1);
	assert_int_equal(options.vary[0].steps, 7);
}

static void test_what_is_wrong(void **state)
{
	assert_int_equal(parse("--strategy", "", NULL), -EINVAL);
	assert_says("--strategy: '': nothing between two commas");
	assert_int_equal(parse("--strategy", "nested,", NULL), -EINVAL);
	assert_says("nothing between two commas");
	assert_int_equal(parse("--paging", "nestled", NULL), -EINVAL);
	assert_says("--paging: unknown paging strategy \"nestled\"");
	assert_int_equal(parse("--profile", "k10-2350,z80", NULL), -ENOENT);
	assert_says("z80");
	assert_int_equal(parse("--interval", "10", NULL), -EINVAL);
	assert_says("--interval");
	assert_int_equal(parse("--report", NULL), -EINVAL);
	assert_says("--report");
	assert_int_equal(parse("--host-levels", "3", NULL), -EINVAL);
	assert_says("--paging nested");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_is_the_default), cmocka_unit_test(test_schemes_in_order),
		cmocka_unit_test(test_nothing_twice),	   cmocka_unit_test(test_format_by_name),
		cmocka_unit_test(test_options_of_run),	   cmocka_unit_test(test_what_is_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
