#include "report/points.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static bool is_known(const json_t *document)
{
	static const char *const schemas[] = {"gnomon-compare", "gnomon-papers"};
	static const char *const members[] = {"profiles", "machines"};
	const char *schema = json_string_value(json_object_get(document, "schema"));

	for (size_t i = 0; schema && i < ARRAY_COUNT(schemas); i++)
		if (!strcmp(schema, schemas[i]))
			return json_object_get(document, members[i]) != NULL;
	return false;
}

int points_load(const char *path, char **text, struct error *e)
{
	json_error_t why;
	json_t *document = json_load_file(path, 0, &why);
	int r = 0;

	*text = NULL;
	if (!document)
		return error_set(e, -EINVAL, "'%s', line %d: %s", path, why.line, why.text);
	if (!is_known(document))
		r = error_set(e, -EINVAL,
			      "'%s' is neither what gnomon compare nor what gnomon bench papers "
			      "writes with --format json",
			      path);
	/* The curves of another run are no points, and they are long. */
	json_object_del(document, "series");
	if (!r && !(*text = json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(15))))
		r = error_set(e, -ENOMEM, "no memory for '%s'", path);
	json_decref(document);
	return r;
}
