/* The command line: every spelling, every kind of value, and messages that name the option and what
 * would be right. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/run_options.h"

#include <cmocka.h>

#define WORDS_MAX 16

static struct run_options options;
static struct error error;

/* Parses "gnomon run" and the words; the list ends with NULL. */
static int parse(const char *first, ...)
{
	static char words[WORDS_MAX][128];
	char *argv[WORDS_MAX + 1] = {words[0]};
	int argc = 1;
	va_list list;
	strcpy(words[0], "run");
	va_start(list, first);
	for (const char *w = first; w && argc < WORDS_MAX; w = va_arg(list, const char *)) {
		strcpy(words[argc], w);
		argv[argc] = words[argc];
		argc++;
	}
	va_end(list);
	error = (struct error){0};
	run_options_init(&options);
	return run_options_parse(&options, argc, argv, &error);
}

static void assert_says(const char *fragment)
{
	if (!strstr(error.text, fragment))
		fail_msg("'%s' lacks '%s'", error.text, fragment);
}

static void test_defaults(void **state)
{
	assert_int_equal(parse("--kernel", "k", NULL), 0);
	assert_string_equal(options.vm.kernel, "k");
	assert_int_equal(options.vm.memory_bytes, 512ull << 20);
	assert_int_equal(options.vm.cpu_count, 1);
	assert_string_equal(options.vm.paging, "nested");
	assert_string_equal(options.vm.serial[0], "stdio");
	assert_null(options.vm.serial[1]);
	assert_true(options.vm.kvm_leaves);
	assert_int_equal(options.vm.clock, CLOCK_VIRTUAL);
}

static void test_spellings(void **state)
{
	assert_int_equal(parse("--kernel=k=1", "--memory=64M", "--cpus=2", NULL), 0);
	assert_string_equal(options.vm.kernel, "k=1");
	assert_int_equal(options.vm.memory_bytes, 64ull << 20);
	assert_int_equal(options.vm.cpu_count, 2);
	assert_int_equal(parse("-kernel", "k", "-m", "64", "-smp", "3", "-nographic", "-no-reboot",
			       "-s", "-S", NULL),
			 0);
	assert_int_equal(options.vm.memory_bytes, 64ull << 20);
	assert_int_equal(options.vm.cpu_count, 3);
	assert_true(options.vm.no_reboot && options.is_paused);
	assert_string_equal(options.gdb, "tcp:1234");
	assert_int_equal(
		parse("-kernel", "k", "-initrd", "a", "--initrd", "b", "-append", "x y", NULL), 0);
	assert_int_equal(options.vm.initrd_count, 2);
	assert_string_equal(options.vm.initrd[1], "b");
	assert_string_equal(options.vm.append, "x y");
}

static void test_values(void **state)
{
	assert_int_equal(parse("--kernel", "k", "--timeout", "1.5", "--max-instructions", "0x10",
			       "--unhandled", "stop", "--clock", "real", "--kvmclock", "off",
			       "--report", "--format", "json", NULL),
			 0);
	assert_int_equal(options.vm.timeout_ms, 1500);
	assert_int_equal(options.vm.max_instructions, 16);
	assert_int_equal(options.vm.unhandled, UNHANDLED_STOP);
	assert_int_equal(options.vm.clock, CLOCK_REAL);
	assert_false(options.vm.kvm_leaves);
	assert_true(options.wants_report);
	assert_null(options.report_file);
	assert_int_equal(options.format, BILL_JSON);
	assert_int_equal(parse("--kernel", "k", "--report=f", "--trace-exits=9", NULL), 0);
	assert_string_equal(options.report_file, "f");
	assert_int_equal(options.vm.trace_exits, 9);
}

static void test_dates(void **state)
{
	assert_int_equal(parse("--kernel", "k", "--rtc", "2001-09-09T01:46:40", NULL), 0);
	assert_int_equal(options.vm.wall_start_s, 1000000000);
	assert_int_equal(parse("--kernel", "k", "-rtc", "base=2000-01-01", NULL), 0);
	assert_int_equal(options.vm.wall_start_s, 946684800);
	assert_int_equal(parse("--kernel", "k", "--rtc", "77", NULL), 0);
	assert_int_equal(options.vm.wall_start_s, 77);
	assert_int_not_equal(parse("--kernel", "k", "--rtc", "yesterday", NULL), 0);
	assert_says("2024-05-31");
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"1", 1 << 20},	{"512M", 512 << 20}, {"2G", 2ull << 30}, {"64K", 64 << 10},
		    {"1t", 1ull << 40}, {"4096B", 4096},     {"1GiB", 1 << 30},	 {"1MB", 1 << 20}};
	static const char *const bad[] = {
		"",	"lots",	     "-5M", "M", "5X", "5MM", "99999999999999999999G",
		"1.5G", "16777216T", " 5"};
	uint64_t v;
	for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
		assert_int_equal(option_parse_size(good[i].text, 1 << 20, &v, NULL), 0);
		assert_true(v == good[i].bytes);
	}
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		assert_int_not_equal(option_parse_size(bad[i], 1 << 20, &v, NULL), 0);
}

static void test_unknown_options(void **state)
{
	static const struct {
		const char *word, *fragment;
	} cases[] = {{"--kernal", "'--kernel'"},
		     {"--memry=1", "'--memory'"},
		     {"-kenrel", "'--kernel'"},
		     {"--max-instr", "'--max-instructions'"},
		     {"--pagign", "'--paging'"},
		     {"-enable-kvm", "/dev/kvm"},
		     {"-drive", "no disks"},
		     {"--xyzzyplugh", "--xyzzyplugh"},
		     {"vmlinuz", "--kernel vmlinuz"},
		     {"-", "'-'"},
		     {"--", "'--'"}};
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		assert_int_not_equal(parse(cases[i].word, NULL), 0);
		assert_says(cases[i].fragment);
	}
}

static void test_wrong_values(void **state)
{
	static const struct {
		const char *name, *value, *fragment;
	} cases[] = {
		{"--memory", "0", "--memory"},
		{"--memory", "1M", "at least 2M"},
		{"--memory", "33333333B", "multiple"},
		{"--memory", "900000G", "more than this host"},
		{"--cpus", "0", "1 to 64"},
		{"--cpus", "two", "'two' is not a number"},
		{"--cpus", "-1", "--cpus"},
		{"--paging", "shadowy", "nested"},
		{"--engine", "qemu", "interp"},
		{"--clock", "vitual", "did you mean 'virtual'"},
		{"--kvmclock", "maybe", "on or off"},
		{"--unhandled", "panic", "ignore, log, stop"},
		{"--serial", "carrier-pigeon", "file:PATH"},
		{"--serial", "file:", "path is missing"},
		{"--serial", "unix:/x,client", "server"},
		{"--timeout", "soon", "seconds"},
		{"--timeout", "-3", "seconds"},
		{"--timeout", "nan", "seconds"},
		{"--max-instructions", "0", "too small"},
		{"--host-pages", "16K", "4K, 2M, 1G"},
		{"--host-levels", "6", "1 to 5"},
		{"--log-level", "loud", "warn"},
		{"--stop-at", "", "--stop-at"},
		{"--kernel-format", "floppy", "multiboot"},
	};
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		if (!parse("--kernel", "k", cases[i].name, cases[i].value, NULL))
			fail_msg("%s %s was accepted", cases[i].name, cases[i].value);
		assert_says(cases[i].name);
		assert_says(cases[i].fragment);
	}
	assert_int_not_equal(parse("--memory", NULL), 0);
	assert_says("--memory SIZE");
	assert_int_not_equal(parse("--verify=yes", NULL), 0);
	assert_says("takes no value");
}

static void test_combinations(void **state)
{
	assert_int_not_equal(parse("--memory", "64M", NULL), 0);
	assert_says("--kernel FILE is missing");
	assert_int_not_equal(
		parse("--kernel", "k", "--monitor", "stdio", "--serial", "stdio", NULL), 0);
	assert_says("Ctrl-A c");
	assert_int_equal(parse("--kernel", "k", "--monitor", "stdio", NULL), 0);
	assert_string_equal(options.vm.serial[0], "null");
	assert_int_not_equal(parse("--kernel", "k", "--paused", "--serial", "null", NULL), 0);
	assert_says("--gdb");
	assert_int_not_equal(parse("--kernel", "k", "--format", "csv", NULL), 0);
	assert_says("--report");
	assert_int_not_equal(
		parse("--kernel", "k", "--paging", "shadow", "--host-levels", "3", NULL), 0);
	assert_says("nested");
	assert_int_not_equal(
		parse("--kernel", "k", "--host-levels", "1", "--host-pages", "2M", NULL), 0);
	assert_says("at least 2");
	assert_int_not_equal(parse("--kernel", "k", "--serial", "stdio", "--serial", "stdio", NULL),
			     0);
	assert_says("both ports");
	assert_int_not_equal(parse("--kernel", "k", "--serial", "null", "--serial", "null",
				   "--serial", "null", NULL),
			     0);
	assert_says("2 serial ports");
}

static const char *name_at(const void *opaque, size_t i)
{
	return ((const char *const *)opaque)[i];
}

static void test_nearest(void **state)
{
	static const char *const names[] = {"kernel", "initrd", "memory", "monitor", NULL, "cpu"};
	assert_string_equal(nearest("kernle", 6, name_at, names), "kernel");
	assert_string_equal(nearest("MEMORY", 6, name_at, names), "memory");
	assert_string_equal(nearest("mon", 6, name_at, names), "monitor");
	assert_null(nearest("frobnicate", 6, name_at, names));
	char huge[400];
	memset(huge, 'k', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = 0;
	assert_null(nearest(huge, 6, name_at, names));
}

static void test_help(void **state)
{
	char text[20000] = "";
	FILE *f = fmemopen(text, sizeof(text) - 1, "w");
	run_options_help(f);
	fclose(f);
	assert_non_null(strstr(text, "--kernel FILE"));
	assert_non_null(strstr(text, "--report[=FILE]"));
	assert_non_null(strstr(text, "124"));
	for (const char *line = text; *line;) {
		size_t n = strcspn(line, "\n");
		if (n > 100)
			fail_msg("too wide: %.*s", (int)n, line);
		line += n + (line[n] == '\n');
	}
}

/* What a snapshot decides cannot be chosen again; the rest can. */
static void test_snapshots(void **state)
{
	static const char *const machine[][2] = {
		{"--kernel", "k"},	    {"--initrd", "i"},	     {"--append", "a"},
		{"--kernel-format", "raw"}, {"--memory", "512M"},    {"--cpus", "1"},
		{"--kvmclock", "off"},	    {"--rtc", "2024-05-31"},
	};
	assert_int_equal(parse("--restore", "s", NULL), 0);
	assert_string_equal(options.restore, "s");
	assert_int_equal(parse("--restore", "s", "--paging", "shadow", "--clock", "real",
			       "--profile", "k10-2350", "--cpu", "max", "--snapshot", "t",
			       "--snapshot-at", "7", NULL),
			 0);
	assert_int_equal(options.snapshot_at, 7);
	for (size_t i = 0; i < ARRAY_COUNT(machine); i++) {
		assert_int_equal(parse("--restore", "s", machine[i][0], machine[i][1], NULL),
				 -EINVAL);
		assert_says(machine[i][0]);
		assert_says("leave it out");
	}
	assert_int_equal(parse("--kernel", "k", "--snapshot-at", "7", NULL), -EINVAL);
	assert_says("--snapshot-at");
	assert_int_equal(parse("--kernel", "k", "--snapshot-base", "b", NULL), -EINVAL);
	assert_says("--snapshot-base");
	assert_int_equal(parse("--kernel", "k", "--snapshot-continue", NULL), -EINVAL);
	assert_says("--snapshot-continue");
	assert_int_equal(parse("--kernel", "k", "--snapshot", "f", "--snapshot-at", "0", NULL),
			 -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),     cmocka_unit_test(test_spellings),
		cmocka_unit_test(test_values),	     cmocka_unit_test(test_dates),
		cmocka_unit_test(test_sizes),	     cmocka_unit_test(test_unknown_options),
		cmocka_unit_test(test_wrong_values), cmocka_unit_test(test_combinations),
		cmocka_unit_test(test_snapshots),    cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_help),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
