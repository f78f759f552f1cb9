/*
 * "extends": a profile that is another one but for what it says itself.
 *
 * What is missing in a document is taken from the built-in one that it extends, member by member
 * and down to single facts; a fact (what has a class) and a list are taken whole or not at all, so
 * no number ever gets another's source. Only built-in profiles can be extended: a file then means
 * the same wherever it lies.
 */
#include <errno.h>
#include <string.h>

#include "hw/builtin.h"
#include "hw/reader.h"

/* Deeper than any sensible chain; it also ends a circle. */
#define EXTENDS_MAX 4

static bool is_group(const json_t *value)
{
	return json_is_object(value) && !json_object_get(value, "class");
}

/* Adds to `own` what only `base` has. -1 without memory. */
static int add_missing(json_t *own, json_t *base)
{
	const char *key;
	json_t *value;

	json_object_foreach(base, key, value)
	{
		json_t *mine = json_object_get(own, key);

		if (!mine && json_object_set_new(own, key, json_deep_copy(value)))
			return -1;
		if (mine && is_group(mine) && is_group(value) && add_missing(mine, value))
			return -1;
	}
	return 0;
}

static const struct builtin_profile *find_builtin(const char *name)
{
	for (const struct builtin_profile *b = builtin_profiles; b->name; b++)
		if (!strcmp(b->name, name))
			return b;
	return NULL;
}

static int refuse_base(struct reader *r, const char *name)
{
	const char *names[32];
	size_t count = 0;

	for (; count < ARRAY_COUNT(names) && builtin_profiles[count].name; count++)
		names[count] = builtin_profiles[count].name;
	const char *near = nearest_word(name, names, count);
	return reader_refuse(r, "\"extends\" is \"%.60s\", which is no built-in profile%s%s%s",
			     name, near ? "; did you mean \"" : "", near ? near : "",
			     near ? "\"?" : "");
}

/* A base is asked for by "extends", which then names the base's own base. */
static int extend(struct reader *r, json_t *own, const char *name)
{
	/* What a profile must say itself. */
	static const char *const own_keys[] = {"schema", "version", "name", "description"};
	const struct builtin_profile *b = find_builtin(name);
	json_t *base;
	int rc = 0;

	if (!b)
		return refuse_base(r, name);
	base = json_loadb(b->text, b->size_bytes, JSON_REJECT_DUPLICATES, NULL);
	for (size_t i = 0; i < ARRAY_COUNT(own_keys); i++)
		json_object_del(base, own_keys[i]);
	if (!base || json_object_del(own, "extends") || add_missing(own, base))
		rc = error_set(r->error, -ENOMEM, "no memory for a profile");
	json_decref(base);
	return rc;
}

int reader_resolve(struct reader *r, json_t *root)
{
	if (!json_is_object(root))
		return 0; /* refused by the reader, which knows the words */
	for (unsigned depth = 0; json_object_get(root, "extends"); depth++) {
		const char *name;
		int rc = reader_string(r, root, "extends", 48, &name);
		char copy[49];

		if (rc)
			return rc;
		if (depth == EXTENDS_MAX)
			return reader_refuse(r, "\"extends\" leads through more than %d profiles",
					     EXTENDS_MAX);
		strcpy(copy, name); /* goes with the member */
		rc = extend(r, root, copy);
		if (rc)
			return rc;
	}
	return 0;
}
