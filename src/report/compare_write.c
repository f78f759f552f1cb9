/* Picks the format of a comparison and reports what writing failed with. */
#include <errno.h>
#include <string.h>

#include "report/compare.h"

int compare_write(FILE *out, enum compare_format format, const struct compare *c, bool is_fancy,
		  struct error *e)
{
	int rc = -EINVAL;

	errno = 0;
	switch (format) {
	case COMPARE_TABLE: rc = compare_write_table(out, c, is_fancy); break;
	case COMPARE_JSON: rc = compare_write_json(out, c); break;
	case COMPARE_CSV: rc = compare_write_csv(out, c); break;
	case COMPARE_HTML: rc = compare_write_page(out, c); break;
	case COMPARE_FORMATS: break;
	}
	if (rc == -ENOMEM)
		return error_set(e, rc, "no memory for a comparison");
	if (fflush(out) || ferror(out) || rc) {
		rc = errno ? -errno : rc ? rc : -EIO;
		return error_set(e, rc, "cannot write the comparison: %s", strerror(-rc));
	}
	return 0;
}
