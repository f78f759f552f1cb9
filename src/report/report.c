/* The door of report/: makes the bill, picks the format, reports what writing failed with. */
#include "report/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "report/bill.h"

static const char *const format_names[BILL_FORMAT_COUNT] = {"table", "json", "csv"};

int bill_format_from_name(const char *name)
{
	for (int f = 0; f < BILL_FORMAT_COUNT; f++)
		if (!strcmp(name, format_names[f]))
			return f;
	return -1;
}

static int finish(FILE *out, int rc, struct error *e)
{
	if (rc == -ENOMEM)
		return error_set(e, rc, "no memory for a report");
	errno = 0;
	if (rc || fflush(out) || ferror(out)) {
		rc = errno ? -errno : rc ? rc : -EIO;
		return error_set(e, rc, "cannot write the report: %s", strerror(-rc));
	}
	return 0;
}

int report_write(FILE *out, enum bill_format format, const struct report_input *input,
		 bool is_fancy, struct error *e)
{
	struct bill *b = malloc(sizeof(*b));
	int rc = -EINVAL;

	if (!b)
		return finish(out, -ENOMEM, e);
	bill_make(b, input);
	switch (format) {
	case BILL_TABLE: rc = bill_write_table(out, b, is_fancy); break;
	case BILL_JSON: rc = bill_write_json(out, b); break;
	case BILL_CSV: rc = bill_write_csv(out, b); break;
	case BILL_FORMAT_COUNT: break;
	}
	free(b);
	return finish(out, rc, e);
}
