/* A profile shown: its facts, line by line, or the document it was read from. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "report/report.h"

/* "48 entries, fully associative, 4K 2M 4M 1G" is the widest. */
#define VALUE_COLUMNS 43

static int check_stream(FILE *out, struct error *e)
{
	if (!fflush(out) && !ferror(out))
		return 0;
	return error_set(e, errno ? -errno : -EIO, "cannot write the profile: %s",
			 strerror(errno ? errno : EIO));
}

static void put_basis(FILE *out, const struct profile *p)
{
	size_t by_mark[MARK_COUNT] = {0};

	for (size_t i = 0; i < p->fact_count; i++)
		by_mark[p->facts[i].mark]++;
	fprintf(out, "%s: %zu facts:", p->name, p->fact_count);
	for (int m = 0; m < MARK_COUNT; m++)
		fprintf(out, "%s %zu %c", m ? "," : "", by_mark[m], mark_letter((enum mark)m));
	fputc('\n', out);
}

int report_profile_basis(FILE *out, const struct profile *p, struct error *e)
{
	put_basis(out, p);
	return check_stream(out, e);
}

/* How wide the unit is printed, so that value and unit together fill a column. */
static int pad_after(const struct fact *f)
{
	int used = (int)strlen(f->value) + (*f->unit ? 1 : 0);

	return used < VALUE_COLUMNS ? VALUE_COLUMNS - used : 0;
}

int report_profile_show(FILE *out, const struct profile *p, bool is_json, struct error *e)
{
	if (is_json) {
		char *text = profile_text(p);

		if (!text)
			return error_set(e, -ENOMEM, "no memory to write the profile");
		fputs(text, out);
		free(text);
		return check_stream(out, e);
	}
	fprintf(out, "%s: %s\nfrom: %s\n", p->name, p->description, p->origin);
	put_basis(out, p);
	fputs("marks:", out);
	for (int m = 0; m < MARK_COUNT; m++)
		fprintf(out, "%s %c %s", m ? ";" : "", mark_letter((enum mark)m),
			mark_text((enum mark)m));
	fputs("\n\n", out);
	for (size_t i = 0; i < p->fact_count; i++) {
		const struct fact *f = &p->facts[i];

		fprintf(out, "%-42s %s%s%-*s %c  %s\n", f->path, f->value, *f->unit ? " " : "",
			pad_after(f), f->unit, mark_letter(f->mark), f->source);
	}
	return check_stream(out, e);
}
