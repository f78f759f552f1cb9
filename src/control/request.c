/*
 * What a line asks for. Nothing is guessed: a request has a command, the command's fields and
 * perhaps "version" and "id", and whatever else stands in it is refused with the name that was
 * probably meant.
 */
#include <errno.h>
#include <string.h>

#include "base/nearest.h"
#include "control/private.h"

#define ID_BYTES 256 /* of the id's own JSON */

static bool refuse(struct control_failure *f, const char *code)
{
	f->code = code;
	return false;
}

static const char *command_name(const void *opaque, size_t i)
{
	return ((const struct control_command *)opaque)[i].name;
}

static bool find_command(struct request *r, const char *name, struct control_failure *f)
{
	for (size_t i = 0; i < control_command_count; i++)
		if (!strcmp(control_commands[i].name, name)) {
			r->command = &control_commands[i];
			return true;
		}
	const char *near = nearest(name, control_command_count, command_name, control_commands);
	error_set(&f->error, -EINVAL, "there is no command '%.60s'%s%s%s", name,
		  near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
	return refuse(f, "unknown-command");
}

static const char *field_name(const void *opaque, size_t i)
{
	return ((const struct control_field *)opaque)[i].name;
}

static bool has_type(const json_t *value, enum control_field_kind kind)
{
	switch (kind) {
	case FIELD_TEXT: return json_is_string(value);
	case FIELD_SWITCH: return json_is_boolean(value);
	case FIELD_COUNT: return json_is_integer(value) && json_integer_value(value) >= 0;
	}
	return false;
}

static bool check_field(const struct control_command *c, const char *name, const json_t *value,
			struct control_failure *f)
{
	static const char *const types[] = {"a string", "true or false", "a whole number"};
	for (size_t i = 0; i < CONTROL_FIELDS_MAX && c->fields[i].name; i++) {
		if (strcmp(c->fields[i].name, name) != 0)
			continue;
		if (has_type(value, c->fields[i].kind))
			return true;
		error_set(&f->error, -EINVAL, "%s: '%s' must be %s", c->name, name,
			  types[c->fields[i].kind]);
		return refuse(f, "bad-field");
	}
	const char *near = nearest(name, CONTROL_FIELDS_MAX, field_name, c->fields);
	error_set(&f->error, -EINVAL, "%s has no field '%.60s'%s%s%s", c->name, name,
		  near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
	return refuse(f, "unknown-field");
}

static bool check_fields(const struct request *r, struct control_failure *f)
{
	const struct control_command *c = r->command;
	const char *name;
	json_t *value;
	json_object_foreach(r->document, name, value)
	{
		bool is_common = !strcmp(name, "command") || !strcmp(name, "version") ||
				 !strcmp(name, "id");
		if (!is_common && !check_field(c, name, value, f))
			return false;
	}
	for (size_t i = 0; i < CONTROL_FIELDS_MAX && c->fields[i].name; i++)
		if (c->fields[i].is_required && !json_object_get(r->document, c->fields[i].name)) {
			error_set(&f->error, -EINVAL, "%s needs '%s'", c->name, c->fields[i].name);
			return refuse(f, "missing-field");
		}
	return true;
}

/* An id comes back with the answer: a number or a short string. */
static bool take_id(struct request *r, struct control_failure *f)
{
	json_t *id = json_object_get(r->document, "id");
	if (!id)
		return true;
	if (json_is_integer(id) || (json_is_string(id) && json_string_length(id) <= ID_BYTES)) {
		r->id = id;
		return true;
	}
	error_set(&f->error, -EINVAL, "'id' must be a whole number or a string of at most %d bytes",
		  ID_BYTES);
	return refuse(f, "bad-field");
}

bool request_parse(struct request *r, const char *line, size_t length, struct control_failure *f)
{
	json_error_t error;
	*r = (struct request){0};
	r->document = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
	if (!json_is_object(r->document)) {
		error_set(&f->error, -EINVAL, "a request is one JSON object on one line: %s",
			  r->document ? "this is none" : error.text);
		return refuse(f, "bad-json");
	}
	if (!take_id(r, f))
		return false;
	const json_t *version = json_object_get(r->document, "version");
	if (version && json_integer_value(version) != CONTROL_VERSION) {
		error_set(&f->error, -EINVAL, "this is version %d of the protocol",
			  CONTROL_VERSION);
		return refuse(f, "bad-version");
	}
	const char *name = json_string_value(json_object_get(r->document, "command"));
	if (!name) {
		error_set(&f->error, -EINVAL, "'command' is missing or no string");
		return refuse(f, "missing-field");
	}
	return find_command(r, name, f) && check_fields(r, f);
}

void request_fini(struct request *r)
{
	json_decref(r->document);
	*r = (struct request){0};
}
