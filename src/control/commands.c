/* What a client can have done. Each runs between two turns of the machine. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/host_time.h"
#include "control/private.h"
#include "paging/mmu.h"
#include "report/stat.h"
#include "snapshot/snapshot.h"
#include "vm/vm.h"

static json_t *fail(struct control_failure *f, const char *code)
{
	f->code = code;
	return NULL;
}

static uint64_t host_ns(const struct control *c)
{
	return host_time_ns() - c->start_ns;
}

static uint64_t guest_ns(const struct control *c)
{
	struct clock *clock = vm_clock(c->vm);
	return clock_ns_from_cycles(clock, clock_now(clock));
}

static json_t *state_of(const struct control *c)
{
	return json_pack("{s:s}", "state", vm_is_paused(c->vm) ? "paused" : "running");
}

static json_t *run_status(struct client *client, const json_t *request, struct control_failure *f)
{
	const struct control *c = client->control;
	const struct vm_config *config = vm_config(c->vm);
	return json_pack(
		"{s:s, s:I, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:s?}", "name", c->name, "pid",
		(json_int_t)getpid(), "state", vm_is_paused(c->vm) ? "paused" : "running", "engine",
		config->engine, "paging", vm_scheme_paging(c->vm, 0), "cpus",
		(int)vm_cpu_count(c->vm), "memory_bytes", (json_int_t)config->memory_bytes,
		"host_ns", (json_int_t)host_ns(c), "guest_ns", (json_int_t)guest_ns(c),
		"instructions", (json_int_t)vm_instructions_ever(c->vm), "kernel", config->kernel);
}

static json_t *run_stop(struct client *client, const json_t *request, struct control_failure *f)
{
	const struct control_host *host = &client->control->host;
	bool is_at_once = json_is_true(json_object_get(request, "now"));
	host->stop(host->opaque, is_at_once);
	return json_object();
}

static json_t *run_reset(struct client *client, const json_t *request, struct control_failure *f)
{
	vm_reset(client->control->vm);
	return json_object();
}

static json_t *run_powerbutton(struct client *client, const json_t *request,
			       struct control_failure *f)
{
	bool is_heard = vm_power_button(client->control->vm);
	return json_pack("{s:b}", "heard", is_heard);
}

static json_t *run_pause(struct client *client, const json_t *request, struct control_failure *f)
{
	vm_pause(client->control->vm);
	return state_of(client->control);
}

static json_t *run_resume(struct client *client, const json_t *request, struct control_failure *f)
{
	vm_resume(client->control->vm);
	return state_of(client->control);
}

static json_t *run_stat(struct client *client, const json_t *request, struct control_failure *f)
{
	const struct control *c = client->control;
	struct machine_stat s;
	if (stat_init(&s, vm_cpu_count(c->vm))) {
		error_set(&f->error, -ENOMEM, "out of memory");
		return fail(f, "failed");
	}
	stat_take_profile(&s, vm_profile(c->vm));
	for (unsigned i = 0; i < s.vcpu_count; i++)
		stat_take_ledger(&s, i, vm_ledger(c->vm, i));
	for (int e = 0; e < EVENT_COUNT; e++)
		s.is_counted[e] = vm_counts(c->vm, (enum event)e);
	snprintf(s.name, sizeof(s.name), "%s", c->name);
	snprintf(s.engine, sizeof(s.engine), "%s", vm_config(c->vm)->engine);
	snprintf(s.paging, sizeof(s.paging), "%s", vm_scheme_paging(c->vm, 0));
	snprintf(s.mode, sizeof(s.mode), "%s", mmu_present_strategy(vm_mmu(c->vm, 0)));
	s.pid = getpid();
	s.is_paused = vm_is_paused(c->vm);
	s.is_virtualized = vm_scheme_is_virtualized(c->vm, 0);
	s.host_ns = host_ns(c);
	s.guest_ns = guest_ns(c);
	json_t *document = stat_to_json(&s);
	stat_fini(&s);
	return document;
}

static json_t *run_snapshot(struct client *client, const json_t *request, struct control_failure *f)
{
	struct vm *vm = client->control->vm;
	const char *file = json_string_value(json_object_get(request, "file"));
	const char *base = json_string_value(json_object_get(request, "base"));
	if (file[0] != '/' || (base && base[0] != '/')) {
		error_set(&f->error, -EINVAL, "snapshot: '%.200s' is no path from the root",
			  file[0] != '/' ? file : base);
		return fail(f, "bad-field");
	}
	int r = snapshot_save(vm, file, base, &f->error);
	if (!r) /* the next one may be a difference from it */
		r = snapshot_track(vm, file, &f->error);
	if (r)
		return fail(f, "failed");
	return json_pack("{s:s, s:I}", "file", file, "instructions",
			 (json_int_t)vm_instructions_ever(vm));
}

static json_t *run_balloon(struct client *client, const json_t *request, struct control_failure *f)
{
	struct vm *vm = client->control->vm;
	const json_t *target = json_object_get(request, "target_bytes");
	uint64_t memory = vm_config(vm)->memory_bytes;
	/* The guest shall keep so much. */
	uint64_t keep = target ? (uint64_t)json_integer_value(target) : memory;
	uint64_t given = keep < memory ? memory - keep : 0;
	struct vm_balloon b;
	if (vm_balloon(vm, target ? &given : NULL, &b)) {
		error_set(&f->error, -ENODEV, "this machine has no balloon (--device balloon)");
		return fail(f, "no-balloon");
	}
	json_t *result = json_pack("{s:I, s:I, s:I}", "memory_bytes", (json_int_t)memory,
				   "target_bytes", (json_int_t)(memory - b.target_bytes),
				   "present_bytes", (json_int_t)(memory - b.actual_bytes));
	json_t *stats = b.has_stats ? json_object() : NULL;
	for (unsigned i = 0; stats && i < VM_BALLOON_STATS; i++)
		if (b.stats[i] <= INT64_MAX)
			json_object_set_new(stats, vm_balloon_stat_name(i),
					    json_integer((json_int_t)b.stats[i]));
	json_object_set_new(result, "statistics", stats ? stats : json_null());
	return result;
}

/* ---- the monitor ---- */

static void captured(void *opaque, const char *text, size_t count)
{
	struct capture *c = &((struct client *)opaque)->capture;
	/* Leaves room for what JSON makes of it: six characters of one at most. */
	size_t room = CONTROL_ANSWER_BYTES / 8 - c->length;
	if (count > room) {
		count = room;
		c->is_cut = true;
	}
	if (c->length + count > c->capacity) {
		size_t capacity = (c->length + count) * 2;
		char *grown = realloc(c->text, capacity);
		if (!grown) {
			c->is_cut = true;
			return;
		}
		c->text = grown;
		c->capacity = capacity;
	}
	memcpy(c->text + c->length, text, count);
	c->length += count;
}

/* JSON's strings are Unicode; what a guest's memory holds may be none. */
static void clean(struct capture *c)
{
	for (size_t i = 0; i < c->length; i++)
		if ((unsigned char)c->text[i] >= 0x7f || !c->text[i])
			c->text[i] = '?';
}

static json_t *run_monitor(struct client *client, const json_t *request, struct control_failure *f)
{
	struct capture *c = &client->capture;
	const char *line = json_string_value(json_object_get(request, "line"));
	if (!client->monitor) {
		int r = monitor_create(&client->monitor, client->control->vm, captured, client,
				       &f->error);
		if (r)
			return fail(f, "failed");
		monitor_set_plain(client->monitor);
	}
	*c = (struct capture){0};
	monitor_execute(client->monitor, line);
	clean(c);
	json_t *result = json_pack("{s:s%, s:b}", "text", c->text ? c->text : "", c->length, "cut",
				   c->is_cut);
	free(c->text);
	*c = (struct capture){0};
	return result;
}

static json_t *run_help(struct client *client, const json_t *request, struct control_failure *f);

const struct control_command control_commands[] = {
	{"help", {{0}}, run_help},
	{"status", {{0}}, run_status},
	{"stop", {{"now", FIELD_SWITCH, false}}, run_stop},
	{"reset", {{0}}, run_reset},
	{"powerbutton", {{0}}, run_powerbutton},
	{"pause", {{0}}, run_pause},
	{"resume", {{0}}, run_resume},
	{"stat", {{0}}, run_stat},
	{"snapshot", {{"file", FIELD_TEXT, true}, {"base", FIELD_TEXT, false}}, run_snapshot},
	{"balloon", {{"target_bytes", FIELD_COUNT, false}}, run_balloon},
	{"monitor", {{"line", FIELD_TEXT, true}}, run_monitor},
};
const size_t control_command_count = ARRAY_COUNT(control_commands);

static json_t *run_help(struct client *client, const json_t *request, struct control_failure *f)
{
	json_t *list = json_array();
	for (size_t i = 0; i < control_command_count; i++) {
		const struct control_command *c = &control_commands[i];
		json_t *fields = json_array();
		for (size_t k = 0; k < CONTROL_FIELDS_MAX && c->fields[k].name; k++)
			json_array_append_new(fields, json_string(c->fields[k].name));
		json_array_append_new(list,
				      json_pack("{s:s, s:o}", "name", c->name, "fields", fields));
	}
	return json_pack("{s:o}", "commands", list);
}

/* ---- a line and its answer ---- */

static json_t *carry_out(struct client *client, const struct request *r, struct control_failure *f)
{
	json_t *result = r->command->run(client, r->document, f);
	if (result)
		return json_pack("{s:i, s:b, s:o}", "version", CONTROL_VERSION, "ok", 1, "result",
				 result);
	if (!f->code) {
		f->code = "failed";
		error_set(&f->error, -ENOMEM, "out of memory");
	}
	return NULL;
}

char *control_answer(struct client *client, const char *line, size_t length, size_t *out_length)
{
	struct request r;
	struct control_failure f = {0};
	json_t *answer = NULL;
	if (request_parse(&r, line, length, &f))
		answer = carry_out(client, &r, &f);
	if (!answer)
		answer = json_pack("{s:i, s:b, s:{s:s, s:s}}", "version", CONTROL_VERSION, "ok", 0,
				   "error", "code", f.code, "text", f.error.text);
	/* Messages may name files by any bytes. */
	if (!answer)
		answer = json_pack("{s:i, s:b, s:{s:s, s:s}}", "version", CONTROL_VERSION, "ok", 0,
				   "error", "code", f.code ? f.code : "failed", "text",
				   "(the message is no UTF-8)");
	if (answer && r.id)
		json_object_set(answer, "id", r.id);
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	json_decref(answer);
	request_fini(&r);
	*out_length = text ? strlen(text) : 0;
	/* The NUL makes way for the line's end. */
	if (text)
		text[(*out_length)++] = '\n';
	return text;
}
