/*
 * `gnomon exits`: can this host's /dev/kvm run a kernel (the self-test), how does it translate
 * guest addresses, and what does each exit cost there and back. With --out the prices become a
 * profile.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "calibrate/calibrate.h"
#include "cli/cli.h"
#include "cli/measures.h"
#include "cli/options.h"
#include "engine/kvm/kvm.h"

struct exits_arguments {
	struct measures_arguments m;
	bool only_test;
};

#define AT(field) offsetof(struct exits_arguments, field)
static const struct option_row rows[] = {
	{.name = "self-test",
	 .text = "only the self-test; exit code 1 if it does not pass",
	 .kind = OPTION_SWITCH,
	 .offset = AT(only_test)},
	{.name = "out",
	 .argument = "FILE",
	 .text = "write the prices there as a profile; its name is the file's without .json",
	 .kind = OPTION_TEXT,
	 .offset = AT(m.out)},
	{.name = "base",
	 .argument = "NAME",
	 .text = "where the rest of the profile comes from (the nearest built-in profile)",
	 .kind = OPTION_TEXT,
	 .offset = AT(m.base)},
	{.name = "quick", .text = "fewer samples", .kind = OPTION_SWITCH, .offset = AT(m.is_quick)},
	{.name = "format",
	 .argument = "FORMAT",
	 .text = "table or json",
	 .kind = OPTION_CHOICE,
	 .offset = AT(m.format),
	 .choices = measures_formats},
	{.name = "help", .text = "print this", .kind = OPTION_SWITCH, .offset = AT(m.help)},
};
#undef AT

static bool is_exit(enum measure_id id)
{
	return id >= MEASURE_EXIT_CPUID && id <= MEASURE_EXIT_HLT;
}

/* ---- table ---- */

static void print_test(const struct kvm_fitness *f, bool is_fit)
{
	if (!f->is_open) {
		printf("self-test: %s\n", f->reason);
		return;
	}
	printf("self-test: %s\n", is_fit ? "passed" : "this KVM cannot run an unmodified kernel");
	for (int i = 0; i < KVM_CHECK_COUNT; i++)
		printf("  %-20s %s%s\n", kvm_check_name((enum kvm_check)i),
		       f->passed[i] ? "passed" : "failed: ", f->why[i]);
	printf("host's translation: %s\n", kvm_paging_name(kvm_host_paging()));
}

static void print_measures(const struct calibration *c)
{
	printf("\n%s%s%s; %.3f GHz\n\n", c->host.brand,
	       c->host.is_virtualized ? ", a virtual machine of " : "",
	       c->host.is_virtualized ? c->host.hypervisor : "",
	       c->measure[MEASURE_FREQUENCY].value / 1e9);
	measures_print_head();
	for (int i = 0; i < MEASURE_COUNT; i++)
		if (is_exit((enum measure_id)i))
			measures_print((enum measure_id)i, &c->measure[i]);
}

/* ---- JSON: schema "gnomon-exits", version 1 (docs/kvm.md) ---- */

static json_t *json_test(const struct kvm_fitness *f, bool is_fit)
{
	json_t *checks = json_array();

	for (int i = 0; i < KVM_CHECK_COUNT && f->is_open; i++)
		json_array_append_new(checks, json_pack("{s:s, s:b, s:s}", "name",
							kvm_check_name((enum kvm_check)i), "passed",
							f->passed[i], "why", f->why[i]));
	return json_pack("{s:b, s:b, s:s, s:o}", "is_open", f->is_open, "passed", is_fit, "reason",
			 f->reason, "checks", checks);
}

/* `c` is NULL with --self-test. */
static int print_json(const struct kvm_fitness *f, bool is_fit, const struct calibration *c)
{
	json_t *measures = json_array();

	for (int i = 0; i < MEASURE_COUNT && c; i++)
		if (is_exit((enum measure_id)i))
			json_array_append_new(measures,
					      measures_json((enum measure_id)i, &c->measure[i]));
	json_t *root = json_pack("{s:s, s:i, s:o, s:s, s:o}", "schema", "gnomon-exits", "version",
				 1, "self_test", json_test(f, is_fit), "host_translation",
				 kvm_paging_name(kvm_host_paging()), "measures", measures);
	int r = root ? json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : -1;

	putchar('\n');
	json_decref(root);
	return r;
}

/* ---- the command ---- */

static int print(const struct exits_arguments *a, const struct kvm_fitness *f, bool is_fit,
		 const struct calibration *c)
{
	int r = 0;

	if (a->m.format)
		r = print_json(f, is_fit, c);
	else
		print_test(f, is_fit);
	if (!a->m.format && c)
		print_measures(c);
	if (r || fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "gnomon exits: error: cannot write to standard output\n");
		return EXIT_CODE_VMM;
	}
	return EXIT_CODE_OK;
}

static int measure(const struct exits_arguments *a, const struct kvm_fitness *f, bool is_fit,
		   int fd)
{
	bool is_shown = isatty(STDERR_FILENO);
	struct calibrate_options options = {.is_quick = a->m.is_quick,
					    .only_exits = true,
					    .progress = is_shown ? measures_progress : NULL};
	struct calibration c;
	struct error e = {0};
	int r = calibrate_run(&options, &c, &e);
	const char *base = a->m.base ? a->m.base : calibrate_nearest_profile(&c.host);

	if (is_shown)
		fputs("\r\033[K", stderr);
	if (!r && fd >= 0)
		r = measures_save(&c, a->m.out, fd, base, &e);
	if (r)
		return measures_fail("exits", &e);
	r = print(a, f, is_fit, &c);
	if (!r && fd >= 0 && !a->m.format)
		printf("\nwritten to %s; gnomon run --profile %s\n", a->m.out, a->m.out);
	return r;
}

static void print_help(void)
{
	printf("usage: gnomon exits [OPTION]...\n\n"
	       "Says whether this host's /dev/kvm can run an unmodified kernel, and measures\n"
	       "what an exit costs there and back: CPUID, MSRs, ports, device memory, HLT,\n"
	       "hidden faults. With --out the findings become a profile for --profile.\n");
	options_print(stdout, rows, ARRAY_COUNT(rows));
}

int cmd_exits(int argc, char **argv)
{
	struct exits_arguments a = {0};
	struct kvm_fitness fitness;
	struct error e = {0};
	int fd = -1, code;

	if (options_parse(rows, ARRAY_COUNT(rows), &a, argc, argv, &e))
		return cli_usage_error("exits", e.text);
	if (a.m.help) {
		print_help();
		return EXIT_CODE_OK;
	}
	if (a.only_test && a.m.out)
		return cli_usage_error("exits",
				       "--self-test measures nothing that --out could hold");
	if (measures_open(&a.m, &fd, &e))
		return measures_fail("exits", &e);
	bool is_fit = kvm_self_test(&fitness, false);
	if (a.only_test) {
		code = print(&a, &fitness, is_fit, NULL);
		return code ? code : is_fit ? EXIT_CODE_OK : EXIT_CODE_VMM;
	}
	if (fitness.is_open) {
		code = measure(&a, &fitness, is_fit, fd);
	} else {
		error_set(&e, -EOPNOTSUPP, "%s: no exit can be measured", fitness.reason);
		code = measures_fail("exits", &e);
	}
	if (fd >= 0)
		close(fd);
	return code;
}
