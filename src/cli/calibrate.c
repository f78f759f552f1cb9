/*
 * `gnomon calibrate`: measures this machine (calibrate/), prints what was found, and writes it as a
 * profile for --profile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "calibrate/calibrate.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "hw/hw.h"

struct calibrate_arguments {
	const char *out, *base;
	bool is_quick, help;
	int format;
};

static const char *const formats[] = {"table", "json", NULL};

#define AT(field) offsetof(struct calibrate_arguments, field)
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
	 .choices = formats},
	{.name = "help", .text = "print this", .kind = OPTION_SWITCH, .offset = AT(help)},
};
#undef AT

static int fail(const struct error *e)
{
	fprintf(stderr, "gnomon calibrate: error: %s\n", e->text);
	return e->code == -EINVAL || e->code == -ENOENT ? EXIT_CODE_USAGE : EXIT_CODE_VMM;
}

static void show_progress(void *opaque, enum measure_id next, unsigned done)
{
	fprintf(stderr, "\r\033[K%2u/%d %s", done + 1, MEASURE_COUNT, measure_text(next));
	fflush(stderr);
}

/* Table */

static void print_measure(enum measure_id id, const struct measure *m)
{
	const char *unit = measure_unit(id);

	if (!m->is_available) {
		printf("  %-40s %14s  %s\n", measure_text(id), "unavailable", m->note);
		return;
	}
	if (!strcmp(unit, "hz"))
		printf("  %-40s %10.3f GHz", measure_text(id), m->value / 1e9);
	else
		printf("  %-40s %14.*f", measure_text(id), !strcmp(unit, "entries") ? 0 : 1,
		       m->value);
	if (m->nanoseconds > 0)
		printf(" %11.2f %12.1f", m->nanoseconds, m->lowest);
	else
		printf(" %11s %12s", "", "");
	if (strcmp(unit, "entries"))
		printf(" %6.1f%%", m->spread);
	else
		printf(" %7s", "");
	printf(" %7u  %s\n", m->sample_count, m->note);
}

static void print_table(const struct calibration *c, const char *base)
{
	const struct host *h = &c->host;

	printf("%s (family %u, model %u, stepping %u)%s%s\n", h->brand, h->family, h->model,
	       h->stepping, h->is_virtualized ? ", a virtual machine of " : "",
	       h->is_virtualized ? h->hypervisor : "");
	printf("nearest built-in profile: %s\n\n", base);
	printf("  %-40s %14s %11s %12s %7s %7s\n", "", "median", "ns", "lowest", "spread",
	       "samples");
	for (int i = 0; i < MEASURE_COUNT; i++)
		print_measure((enum measure_id)i, &c->measure[i]);
}

/* JSON: schema "gnomon-calibration", version 1 (docs/profiles.md) */

static json_t *json_measure(enum measure_id id, const struct measure *m)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "name", measure_name(id), "text",
			      measure_text(id), "unit", measure_unit(id), "source",
			      m->is_available ? "measured" : "unavailable");

	json_object_set_new(o, "value", m->is_available ? json_real(m->value) : json_null());
	if (m->is_available) {
		json_object_set_new(o, "lowest", json_real(m->lowest));
		json_object_set_new(o, "spread_percent", json_real(m->spread));
		json_object_set_new(o, "samples", json_integer(m->sample_count));
	}
	if (m->nanoseconds > 0)
		json_object_set_new(o, "nanoseconds", json_real(m->nanoseconds));
	if (*m->note)
		json_object_set_new(o, "note", json_string(m->note));
	return o;
}

static int print_json(const struct calibration *c, const char *base)
{
	const struct host *h = &c->host;
	json_t *measures = json_array();

	for (int i = 0; i < MEASURE_COUNT; i++)
		json_array_append_new(measures, json_measure((enum measure_id)i, &c->measure[i]));
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

/* The file */

/* "out/my host.json" is the profile my-host. */
static void profile_name_of(const char *path, char name[49])
{
	const char *base = strrchr(path, '/');
	size_t length;

	snprintf(name, 49, "%s", base ? base + 1 : path);
	length = strlen(name);
	if (length > 5 && !strcmp(name + length - 5, ".json"))
		name[length - 5] = 0;
	for (char *c = name; *c; c++)
		if ((unsigned char)*c <= ' ')
			*c = '-';
}

static int write_profile(int fd, const char *path, const char *text, struct error *e)
{
	size_t left = strlen(text);

	if (ftruncate(fd, 0))
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	while (left) {
		ssize_t n = write(fd, text, left);

		if (n < 0)
			return error_set(e, -errno, "%s: %s", path, strerror(errno));
		text += n;
		left -= (size_t)n;
	}
	return 0;
}

static int save(const struct calibration *c, const char *path, int fd, const char *base,
		struct error *e)
{
	char name[49], *text;
	int rc;

	profile_name_of(path, name);
	rc = calibrate_profile(c, name, base, &text, e);
	if (!rc)
		rc = write_profile(fd, path, text, e);
	free(text);
	return rc;
}

static int measure(const struct calibrate_arguments *a, int fd)
{
	bool is_shown = isatty(STDERR_FILENO);
	struct calibrate_options options = {.is_quick = a->is_quick,
					    .progress = is_shown ? show_progress : NULL};
	struct calibration c;
	struct error e = {0};
	int rc = calibrate_run(&options, &c, &e);
	const char *base = a->base ? a->base : calibrate_nearest_profile(&c.host);

	if (is_shown)
		fputs("\r\033[K", stderr);
	if (!rc && fd >= 0)
		rc = save(&c, a->out, fd, base, &e);
	if (rc)
		return fail(&e);
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
	struct calibrate_arguments a = {0};
	struct error e = {0};
	struct profile *p;
	int fd = -1, code;

	if (options_parse(rows, ARRAY_COUNT(rows), &a, argc, argv, &e))
		return cli_usage_error("calibrate", e.text);
	if (a.help) {
		print_help();
		return EXIT_CODE_OK;
	}
	/* What could fail after the measuring fails now. */
	if (a.base && profile_load(a.base, &p, &e))
		return fail(&e);
	if (a.base)
		profile_destroy(p);
	if (a.out) {
		fd = open(a.out, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		if (fd < 0) {
			error_set(&e, -EIO, "%s: %s", a.out, strerror(errno));
			return fail(&e);
		}
	}
	code = measure(&a, fd);
	if (fd >= 0)
		close(fd);
	return code;
}
