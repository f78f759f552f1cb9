#include "cli/measures.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "hw/hw.h"

const char *const measures_formats[] = {"table", "json", NULL};

void measures_progress(void *opaque, enum measure_id next, unsigned done)
{
	fprintf(stderr, "\r\033[K%2u/%d %s", done + 1, MEASURE_COUNT, measure_text(next));
	fflush(stderr);
}

void measures_print_head(void)
{
	printf("  %-40s %14s %11s %12s %7s %7s\n", "", "median", "ns", "lowest", "spread",
	       "samples");
}

void measures_print(enum measure_id id, const struct measure *m)
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

/* JSON: schema "gnomon-calibration", version 1 (docs/profiles.md) */

json_t *measures_json(enum measure_id id, const struct measure *m)
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

int measures_save(const struct calibration *c, const char *path, int fd, const char *base,
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

int measures_open(const struct measures_arguments *a, int *fd, struct error *e)
{
	struct profile *p;

	*fd = -1;
	if (a->base && profile_load(a->base, &p, e))
		return e->code;
	if (a->base)
		profile_destroy(p);
	if (!a->out)
		return 0;
	*fd = open(a->out, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	return *fd < 0 ? error_set(e, -EIO, "%s: %s", a->out, strerror(errno)) : 0;
}

int measures_fail(const char *command, const struct error *e)
{
	fprintf(stderr, "gnomon %s: error: %s\n", command, e->text);
	return e->code == -EINVAL || e->code == -ENOENT ? EXIT_CODE_USAGE : EXIT_CODE_VMM;
}
