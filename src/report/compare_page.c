/*
 * The comparison as one HTML page that needs nothing else: the template, the plotting library, the
 * comparison's JSON and the script that draws it (page/page.js), one after the other. The browser
 * does the drawing; here nothing is computed.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "report/compare.h"
#include "report/page_parts.h"

/* JSON inside a script element: "<" could end the element, and may be written as an escape, since
 * it occurs only in strings. */
static void put_data(FILE *out, const char *json)
{
	for (; *json; json++) {
		if (*json == '<')
			fputs("\\u003c", out);
		else
			fputc(*json, out);
	}
}

int compare_write_page(FILE *out, const struct compare *c)
{
	json_t *root = compare_json(c);
	char *json = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;

	json_decref(root);
	if (!json)
		return -ENOMEM;
	fputs(page_head_text, out);
	fputs("<script>\n", out);
	fputs(page_charts_text, out);
	fputs("\n</script>\n<script type=\"application/json\" id=\"data\">", out);
	put_data(out, json);
	fputs("</script>\n<script type=\"application/json\" id=\"more\">[", out);
	for (unsigned i = 0; i < c->input->point_count; i++) {
		fputs(i ? "," : "", out);
		put_data(out, c->input->points[i]);
	}
	fputs("]</script>\n<script>\n", out);
	fputs(page_script_text, out);
	fputs("</script>\n</body>\n</html>\n", out);
	free(json);
	return 0;
}
