#include "report/interpreted.h"

#include <errno.h>
#include <inttypes.h>

#include "report/json_values.h"

static const struct {
	const char *name, *text;
} reasons[TRANS_WHY_COUNT] = {
	[TRANS_NOT_TRANSLATED] = {"not-translated", "has no translation"},
	[TRANS_RARE] = {"rare", "a case that its translation leaves out"},
	[TRANS_ACCESS] = {"access", "a device, two pages, or a watched page"},
};

/* In blocks that had not run often enough. */
static uint64_t cold(const struct trans_statistics *s)
{
	uint64_t in_code = s->translated;
	for (unsigned k = 0; k < s->count; k++)
		in_code += s->list[k].count;
	return s->executed - in_code;
}

static void put_share(FILE *out, const char *what, uint64_t count, uint64_t all)
{
	fprintf(out, "%-44s %16" PRIu64 " %9.4f %%\n", what, count,
		all ? 100.0 * (double)count / (double)all : 0.0);
}

void report_write_interpreted(FILE *out, const struct trans_statistics *s)
{
	put_share(out, "instructions", s->executed, s->executed);
	put_share(out, "  translated", s->translated, s->executed);
	put_share(out, "  interpreted, in blocks that stayed cold", cold(s), s->executed);
	put_share(out, "  interpreted, in translated code", s->executed - s->translated - cold(s),
		  s->executed);
	for (unsigned k = 0; k < s->count; k++) {
		const struct trans_interpreted *i = &s->list[k];
		fprintf(out, "    %-40s %16" PRIu64 " %9.4f %%  %s\n", i->name, i->count,
			100.0 * (double)i->count / (double)s->executed, reasons[i->why].text);
	}
}

int report_write_interpreted_json(FILE *out, const struct trans_statistics *s, struct error *e)
{
	json_t *list = json_array();
	for (unsigned k = 0; k < s->count; k++) {
		const struct trans_interpreted *i = &s->list[k];
		json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "instruction", i->name,
						      "why", reasons[i->why].name, "count",
						      json_count(i->count)));
	}
	json_t *root = json_pack("{s:s, s:i, s:o, s:o, s:o, s:o}", "schema", "gnomon-interpreted",
				 "version", 1, "instructions", json_count(s->executed),
				 "translated", json_count(s->translated), "cold",
				 json_count(cold(s)), "interpreted", list);
	if (!root)
		return error_set(e, -ENOMEM, "out of memory");
	int r = json_dumpf(root, out, JSON_INDENT(2)) ? -EIO : 0;
	fputc('\n', out);
	json_decref(root);
	return r ? error_set(e, r, "cannot write it") : 0;
}
