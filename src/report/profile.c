/* A profile shown: its facts, line by line, or as a document; and two of them held together. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "hw/lint.h"
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
	struct finding findings[FINDINGS_MAX];
	size_t count = profile_lint(p, findings);

	put_basis(out, p);
	for (size_t i = 0; i < count && i < FINDINGS_MAX; i++)
		fprintf(out, "%s: warning: %s: %s\n", p->name, findings[i].place, findings[i].text);
	if (count > FINDINGS_MAX)
		fprintf(out, "%s: %zu more warnings\n", p->name, count - FINDINGS_MAX);
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

/* Differences */

static const struct fact *find_fact(const struct profile *p, const char *path)
{
	for (size_t i = 0; i < p->fact_count; i++)
		if (!strcmp(p->facts[i].path, path))
			return &p->facts[i];
	return NULL;
}

/* What `p` says at the place; of an exit's part that it does not state, what all exits have. */
static const struct fact *effective_fact(const struct profile *p, const char *path)
{
	static const char exits[] = ".prices[\"exit.";
	const struct fact *f = find_fact(p, path);
	const char *part = strrchr(path, '.');
	char shared[64];

	if (f || strncmp(path, exits, sizeof(exits) - 1))
		return f;
	snprintf(shared, sizeof(shared), ".prices[\"exit.*\"]%s", part);
	return find_fact(p, shared);
}

static bool is_same(const struct fact *a, const struct fact *b)
{
	return a && b && !strcmp(a->value, b->value) && a->mark == b->mark;
}

static const char *fact_text(const struct fact *f, char text[80])
{
	if (!f)
		return "-";
	snprintf(text, 80, "%s%s%s %c", f->value, *f->unit ? " " : "", f->unit,
		 mark_letter(f->mark));
	return text;
}

static json_t *json_fact(const struct fact *f)
{
	char letter[2] = {f ? mark_letter(f->mark) : 0, 0};

	return f ? json_pack("{s:s, s:s, s:s, s:s}", "value", f->value, "unit", f->unit, "class",
			     letter, "source", f->source)
		 : json_null();
}

struct diff {
	FILE *out;
	json_t *rows; /* NULL: the table */
	size_t count;
};

static void put_difference(struct diff *d, const char *path, const struct fact *a,
			   const struct fact *b)
{
	char left[80], right[80];

	d->count++;
	if (d->rows)
		json_array_append_new(d->rows, json_pack("{s:s, s:o, s:o}", "place", path, "a",
							 json_fact(a), "b", json_fact(b)));
	else
		fprintf(d->out, "%-42s %-44s %s\n", path, fact_text(a, left), fact_text(b, right));
}

/* In the order of `a`'s file, then what only `b` states. */
static void compare_facts(struct diff *d, const struct profile *a, const struct profile *b)
{
	for (size_t i = 0; i < a->fact_count; i++) {
		const struct fact *left = &a->facts[i];
		const struct fact *right = effective_fact(b, left->path);

		if (!is_same(left, right))
			put_difference(d, left->path, left, right);
	}
	for (size_t i = 0; i < b->fact_count; i++) {
		const struct fact *right = &b->facts[i];
		const struct fact *left = effective_fact(a, right->path);

		if (!find_fact(a, right->path) && !is_same(left, right))
			put_difference(d, right->path, left, right);
	}
}

int report_profile_diff(FILE *out, const struct profile *a, const struct profile *b, bool is_json,
			struct error *e)
{
	struct diff d = {.out = out, .rows = is_json ? json_array() : NULL};

	if (!is_json)
		fprintf(out, "%-42s %-44s %s\n", "", a->name, b->name);
	compare_facts(&d, a, b);
	if (is_json) {
		json_t *root = json_pack("{s:s, s:s, s:o}", "a", a->name, "b", b->name,
					 "differences", d.rows);

		if (!root || json_dumpf(root, out, JSON_INDENT(2)))
			return error_set(e, -ENOMEM, "no memory to write the differences");
		fputc('\n', out);
		json_decref(root);
	} else {
		fprintf(out, "%zu facts differ\n", d.count);
	}
	return check_stream(out, e);
}
