/*
 * `gnomon calibrate`: measures this machine (calibrate/), prints what was found, and writes it as a
 * profile for --profile.
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

#define AT(field) offsetof(struct measures_arguments, field)
static const struct option_row rows[] = {
	{.name = "out",
	 .argument = "FILE",
	 .text = "write the profile there; its name is the file's without .json",
	 .kind = OPTION_TEXT,
	 .offset = AT(out)},
	{.name = "base",
	 .argument = "NAME",
	 .text = "where what cannot be measured comes from (the nearest built-in profile)",
	 .kind = OPTION_TEXT,
	 .offset = AT(base)},
	{.name = "quick",
	 .text = "fewer samples and less memory",
	 .kind = OPTION_SWITCH,
	 .offset = AT(is_quick)},
	{.name = "format",
	 .argument = "FORMAT",
	 .text = "table or json",
	 .kind = OPTION_CHOICE,
	 .offset = AT(format),
	 .choices = measures_formats},
	{.name = "help", .text = "print this", .kind = OPTION_SWITCH, .offset = AT(help)},
};
#undef AT

static void print_table(const struct calibration *c, const char *base)
{
	const struct host *h = &c->host;

	printf("%s (family %u, model %u, stepping %u)%s%s\n", h->brand, h->family, h->model,
	       h->stepping, h->is_virtualized ? ", a virtual machine of " : "",
	       h->is_virtualized ? h->hypervisor : "");
	printf("nearest built-in profile: %s\n\n", base);
	measures_print_head();
	for (int i = 0; i < MEASURE_COUNT; i++)
		measures_print((enum measure_id)i, &c->measure[i]);
}

static int print_json(const struct calibration *c, const char *base)
{
	const struct host *h = &c->host;
	json_t *measures = json_array();

	for (int i = 0; i < MEASURE_COUNT; i++)
		json_array_append_new(measures, measures_json((enum measure_id)i, &c->measure[i]));
	json_t *root = json_pack("{s:s, s:i, s:s, s:s, s:{s:s, s:s, s:i, s:i, s:i, s:b, s:s}, s:o}",
				 "schema", "gnomon-calibration", "version", 1, "date", c->date,
				 "base", base, "host", "brand", h->brand, "vendor", h->vendor,
				 "family", (int)h->family, "model", (int)h->model, "stepping",
				 (int)h->stepping, "is_virtualized", h->is_virtualized,
				 "hypervisor", h->hypervisor, "measures", measures);
	int rc = root ? json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : -1;

	putchar('\n');
	json_decref(root);
	return rc;
}

static int measure(const struct measures_arguments *a, int fd)
{
	bool is_shown = isatty(STDERR_FILENO);
	struct calibrate_options options = {.is_quick = a->is_quick,
					    .progress = is_shown ? measures_progress : NULL};
	struct calibration c;
	struct error e = {0};
	int rc = calibrate_run(&options, &c, &e);
	const char *base = a->base ? a->base : calibrate_nearest_profile(&c.host);

	if (is_shown)
		fputs("\r\033[K", stderr);
	if (!rc && fd >= 0)
		rc = measures_save(&c, a->out, fd, base, &e);
	if (rc)
		return measures_fail("calibrate", &e);
	if (a->format)
		rc = print_json(&c, base);
	else
		print_table(&c, base);
	if (rc || fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "gnomon calibrate: error: cannot write to standard output\n");
		return EXIT_CODE_VMM;
	}
	if (fd >= 0 && !a->format)
		printf("\nwritten to %s; gnomon profile check %s, gnomon run --profile %s\n",
		       a->out, a->out, a->out);
	return EXIT_CODE_OK;
}

static void print_help(void)
{
	printf("usage: gnomon calibrate [OPTION]...\n\n"
	       "Measures this machine: latencies of caches and memory, reach of the TLBs, system\n"
	       "calls, faults, switches, exits through /dev/kvm where it opens. With --out the\n"
	       "findings become a profile; what could not be measured is taken from the nearest\n"
	       "built-in one and marked so. Some twenty seconds; with --quick, some five.\n");
	options_print(stdout, rows, ARRAY_COUNT(rows));
}

int cmd_calibrate(int argc, char **argv)
{
	struct measures_arguments a = {0};
	struct error e = {0};
	int fd = -1, code;

	if (options_parse(rows, ARRAY_COUNT(rows), &a, argc, argv, &e))
		return cli_usage_error("calibrate", e.text);
	if (a.help) {
		print_help();
		return EXIT_CODE_OK;
	}
	int rc = measures_open(&a, &fd, &e);
	code = rc ? measures_fail("calibrate", &e) : measure(&a, fd);
	if (fd >= 0)
		close(fd);
	return code;
}
