/* What `gnomon calibrate` and `gnomon exits` print and write of their measurements. */
#pragma once

#include <jansson.h>

#include "calibrate/calibrate.h"

/* What both can be told. */
struct measures_arguments {
	const char *out, *base;
	bool is_quick, help;
	int format; /* 0 table, 1 JSON */
};
extern const char *const measures_formats[];

/* On standard error, for calibrate_options.progress. */
void measures_progress(void *opaque, enum measure_id next, unsigned done);

void measures_print_head(void);
void measures_print(enum measure_id id, const struct measure *m);
json_t *measures_json(enum measure_id id, const struct measure *m);

/* Opens --out and looks --base up, before the measuring: what could fail later fails now. *fd is -1
 * without --out. */
int measures_open(const struct measures_arguments *a, int *fd, struct error *e);
/* The measurements as a profile. */
int measures_save(const struct calibration *c, const char *path, int fd, const char *base,
		  struct error *e);
/* "gnomon COMMAND: error: TEXT"; the exit code. */
int measures_fail(const char *command, const struct error *e);
