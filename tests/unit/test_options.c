/* The command line: every spelling, every kind of value, and messages that name the option and what
 * would be right. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/config.h"
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

/* Options from a file as config_parse() takes them, after those of the command line. */
static int read_config(const char *text, struct run_options *o)
{
	size_t count;
	const struct option_row *rows = run_option_rows(&count);
	struct option_set set = {rows, count, o, o->given};
	json_decref(o->document);
	error = (struct error){0};
	return config_parse("vm.json", text, strlen(text), &set, &o->document, &error);
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

/* Whose time it is where nobody says: trans repeats a run only for who asks for that. */
static void test_time(void **state)
{
	const struct {
		const char *engine, *option, *value;
		enum clock_kind clock;
	} cases[] = {
		{"interp", "--quiet", NULL, CLOCK_VIRTUAL},
		{"interp", "--clock", "real", CLOCK_REAL},
		{"trans", "--quiet", NULL, CLOCK_REAL},
		{"trans", "--clock", "virtual", CLOCK_VIRTUAL},
		{"trans", "--lockstep", NULL, CLOCK_VIRTUAL},
		{"trans", "--state-hash", NULL, CLOCK_VIRTUAL},
		{"trans", "--max-instructions", "9", CLOCK_VIRTUAL},
		{"kvm", "--quiet", NULL, CLOCK_REAL},
	};
	for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
		assert_int_equal(parse("--kernel", "k", "--engine", cases[k].engine,
				       cases[k].option, cases[k].value, NULL),
				 0);
		assert_int_equal(options.vm.clock, cases[k].clock);
	}
	assert_int_equal(parse("--kernel", "k", "--engine", "trans", "--snapshot", "f",
			       "--snapshot-at", "9", NULL),
			 0);
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
	assert_int_equal(options.clock, CLOCK_REAL);
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
	assert_int_not_equal(parse("--nographic=yes", NULL), 0);
	assert_says("takes no value");
	assert_int_not_equal(parse("--verify=maybe", NULL), 0);
	assert_says("must be on or off");
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

/* ---- the same in a file ---- */

static void test_config(void **state)
{
	parse("--kernel", "k", "--cpus", "2", "--verify", NULL);
	assert_int_equal(
		read_config("{\"version\": 1, \"kernel\": \"other\", \"cpus\": 4, "
			    "\"memory\": 64, \"initrd\": [\"a\", \"b\"], \"verify\": false, "
			    "\"timeout\": 1.5, \"clock\": \"real\", \"report\": true, "
			    "\"seed\": \"18446744073709551615\", \"host-levels\": 3}",
			    &options),
		0);
	/* The command line goes before. */
	assert_string_equal(options.vm.kernel, "k");
	assert_int_equal(options.vm.cpu_count, 2);
	assert_true(options.vm.verify);
	assert_int_equal(options.vm.memory_bytes, 64 << 20);
	assert_int_equal(options.vm.initrd_count, 2);
	assert_string_equal(options.vm.initrd[1], "b");
	assert_int_equal(options.vm.timeout_ms, 1500);
	assert_int_equal(options.clock, CLOCK_REAL);
	assert_true(options.wants_report && !options.report_file);
	assert_int_equal(options.vm.seed, UINT64_MAX);
	assert_int_equal(options.vm.host_levels, 3);
	run_options_fini(&options);
}

static void test_config_refuses(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"", "vm.json:1:0: "},
		{"[]", "vm.json: must hold one object"},
		{"{\"kernel\": \"a\",\n \"kernel\": \"b\"}", "vm.json:2:"},
		{"{\"kernle\": \"a\"}", "vm.json: \"kernle\": there is no such key; did you mean "
					"\"kernel\"?"},
		{"{\"config\": \"a\"}", "\"config\": there is no such key"},
		{"{\"help\": true}", "no such key"},
		{"{\"kernel\": 1}", "\"kernel\": it must be a string"},
		{"{\"kernel\": [\"a\"]}", "\"kernel\": it must be a string"},
		{"{\"verify\": \"on\"}", "\"verify\": it must be true or false"},
		{"{\"seed\": 1.5}", "\"seed\": it must be a whole number"},
		{"{\"seed\": -1}", "\"seed\": '-1' is not a number"},
		{"{\"host-levels\": 6}", "6 is out of range: 1 to 5"},
		{"{\"clock\": \"sundial\"}", "'sundial' is not one of virtual, real"},
		{"{\"memory\": true}", "\"memory\": it must be a string, a number"},
		{"{\"memory\": \"lots\"}", "\"memory\": 'lots' is not a size"},
		{"{\"initrd\": [\"a\", {}]}", "\"initrd\": [1]: it must be"},
		{"{\"memory\": null}", "\"memory\": it must be"},
		{"{\"version\": 2}", "\"version\": this program reads version 1"},
	};
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		parse("--kernel", "k", NULL);
		options.given[2].is_on_command_line = false; /* --kernel */
		assert_int_equal(read_config(cases[i].text, &options), -EINVAL);
		assert_says(cases[i].says);
		run_options_fini(&options);
	}
}

static char *dump(const struct run_options *o)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	assert_int_equal(run_options_dump(o, f, &error), 0);
	fclose(f);
	return text;
}

/* What is dumped, read and dumped is the same. */
static void test_config_law(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		switch (i) {
		case 0: parse("--kernel", "k", NULL); break;
		case 1:
			parse("--kernel", "k", "-initrd", "a", "-initrd", "b,c", "-m", "64", "-smp",
			      "3", "-serial", "null", "--rtc", "2024-05-31", NULL);
			break;
		case 2:
			parse("--restore", "r", "--report", "--format", "json", "-s", "--paused",
			      "--trace-exits=5", "--from-text", "\xc3\xa4\"\\", NULL);
			break;
		case 3:
			parse("--kernel", "k", "--report=f", "--seed", "18446744073709551615",
			      "--host-pages", "2M", "--timeout", "0.25", "--verify=off", NULL);
			break;
		}
		assert_string_equal(error.text, "");
		char *once = dump(&options);
		static struct run_options again;
		run_options_init(&again);
		assert_int_equal(read_config(once, &again), 0);
		run_options_complete(&again, &error);
		assert_string_equal(error.text, "");
		char *twice = dump(&again);
		assert_string_equal(once, twice);
		/* The machine is the same, not only its description. */
		assert_int_equal(again.vm.memory_bytes, options.vm.memory_bytes);
		assert_int_equal(again.vm.cpu_count, options.vm.cpu_count);
		assert_int_equal(again.vm.initrd_count, options.vm.initrd_count);
		assert_int_equal(again.vm.timeout_ms, options.vm.timeout_ms);
		assert_int_equal(again.vm.seed, options.vm.seed);
		assert_int_equal(again.vm.wall_start_s, options.vm.wall_start_s);
		assert_int_equal(again.vm.host_page_shift, options.vm.host_page_shift);
		run_options_fini(&again);
		free(once);
		free(twice);
	}
}

/* "initial" says what the defaults are; the two must not part. */
static void test_initial_values(void **state)
{
	size_t count;
	const struct option_row *rows = run_option_rows(&count);
	static struct run_options set, fresh;
	run_options_init(&set);
	run_options_init(&fresh);
	for (size_t i = 0; i < count; i++)
		if (rows[i].initial)
			assert_int_equal(rows[i].set(&set, rows[i].initial, &error), 0);
	assert_memory_equal(&set.vm, &fresh.vm, sizeof(set.vm));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),	cmocka_unit_test(test_time),
		cmocka_unit_test(test_spellings),	cmocka_unit_test(test_values),
		cmocka_unit_test(test_dates),		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_unknown_options), cmocka_unit_test(test_wrong_values),
		cmocka_unit_test(test_combinations),	cmocka_unit_test(test_snapshots),
		cmocka_unit_test(test_nearest),		cmocka_unit_test(test_help),
		cmocka_unit_test(test_config),		cmocka_unit_test(test_config_refuses),
		cmocka_unit_test(test_config_law),	cmocka_unit_test(test_initial_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
