/* A profile written out, in the layout of the shipped files: a fact takes one line. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "hw/hw.h"

static void indent(FILE *out, unsigned depth)
{
	while (depth--)
		fputc('\t', out);
}

/* Facts (what has a class) and scalars on one line. -1 without memory. */
static int write_line(FILE *out, const json_t *value)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

	if (text)
		fputs(text, out);
	free(text);
	return text ? 0 : -1;
}

static int write_value(FILE *out, const json_t *value, unsigned depth)
{
	const char *separator = "\n", *key;
	json_t *member, *list = (json_t *)value;
	int rc = 0;
	size_t i;

	if (json_is_array(value) && json_array_size(value)) {
		fputc('[', out);
		json_array_foreach(list, i, member)
		{
			fputs(separator, out);
			indent(out, depth + 1);
			rc |= write_line(out, member);
			separator = ",\n";
		}
		fputc('\n', out);
		indent(out, depth);
		fputc(']', out);
		return rc;
	}
	if (!json_is_object(value) || json_object_get(value, "class"))
		return write_line(out, value);
	fputc('{', out);
	json_object_foreach(list, key, member)
	{
		fputs(separator, out);
		indent(out, depth + 1);
		fprintf(out, "\"%s\": ", key); /* known words: nothing to escape */
		rc |= write_value(out, member, depth + 1);
		separator = ",\n";
	}
	fputc('\n', out);
	indent(out, depth);
	fputc('}', out);
	return rc;
}

char *profile_text(const struct profile *p)
{
	char *text = NULL;
	size_t size_bytes;
	FILE *out = open_memstream(&text, &size_bytes);

	if (!out)
		return NULL;
	int rc = write_value(out, p->document, 0);

	fputc('\n', out);
	rc |= ferror(out);
	if (fclose(out) || rc) {
		free(text);
		return NULL;
	}
	return text;
}
