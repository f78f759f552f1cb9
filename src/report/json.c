/*
 * The bill as JSON: schema "gnomon-report", version 1 (docs/report.md). Every counter is an object
 * of name, unit, source and value; what an engine cannot count has the value null.
 */
#include "report/json_values.h"

#include <errno.h>

#define SCHEMA_NAME "gnomon-report"
#define SCHEMA_VERSION 1

json_t *json_cycles(struct amount a)
{
	if (a.millis % MILLIS_PER_CYCLE || a.millis / MILLIS_PER_CYCLE > INT64_MAX)
		return json_real((double)a.millis / MILLIS_PER_CYCLE);
	return json_integer((json_int_t)(a.millis / MILLIS_PER_CYCLE));
}

json_t *json_count(uint64_t n)
{
	return n > INT64_MAX ? json_real((double)n) : json_integer((json_int_t)n);
}

json_t *json_measure(const char *unit, const char *source, json_t *value)
{
	return json_pack("{s:s, s:s, s:o}", "unit", unit, "source", source, "value", value);
}

static json_t *json_price(const struct price *p)
{
	static const char *const parts[PRICE_PART_COUNT] = {"hardware", "software"};
	json_t *object;

	if (!p->is_priced)
		return json_null();
	object = json_object();
	for (int i = 0; i < PRICE_PART_COUNT; i++) {
		char letter[2] = {mark_letter(p->part[i].mark), 0};

		if (p->has_part[i])
			json_object_set_new(
				object, parts[i],
				json_pack("{s:o, s:s, s:s, s:s}", "value",
					  json_cycles((struct amount){p->part[i].millis}), "unit",
					  "cycles", "class", letter, "source", p->part[i].source));
	}
	return object;
}

static json_t *json_counter(const struct bill_line *l, const uint64_t count[RING_COUNT])
{
	bool is_known = !l->is_unavailable;

	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "name", event_name(l->event),
			 "group", event_group_name(event_group(l->event)), "unit", "events",
			 "source", bill_source_name(l), "value",
			 is_known ? json_count(count[RING_KERNEL] + count[RING_USER]) : json_null(),
			 "kernel", is_known ? json_count(count[RING_KERNEL]) : json_null(), "user",
			 is_known ? json_count(count[RING_USER]) : json_null());
}

static json_t *json_lines(const struct bill *b)
{
	json_t *lines = json_array();

	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct bill_line *l = &b->line[e];
		json_t *line = json_counter(l, l->count);

		json_object_set_new(line, "text", json_string(event_text(l->event)));
		json_object_set_new(line, "side", json_string(bill_side_name(l->side)));
		json_object_set_new(line, "price", json_price(l->price));
		json_object_set_new(line, "cost",
				    l->side == SIDE_NONE ? json_null()
							 : json_measure("cycles", "modelled",
									json_cycles(l->cost)));
		json_array_append_new(lines, line);
	}
	return lines;
}

static json_t *json_vcpus(const struct bill *b)
{
	const struct report_input *in = b->input;
	json_t *vcpus = json_array();

	for (unsigned v = 0; v < in->vcpu_count; v++) {
		json_t *counters = json_array();

		for (int e = 0; e < EVENT_COUNT; e++)
			json_array_append_new(counters,
					      json_counter(&b->line[e], in->ledgers[v]->count[e]));
		json_array_append_new(
			vcpus, json_pack("{s:i, s:o}", "vcpu", (int)v, "counters", counters));
	}
	return vcpus;
}

static json_t *json_side(const struct bill *b, enum bill_side side)
{
	json_t *basis = json_object();

	for (int m = 0; m < MARK_COUNT; m++) {
		char letter[2] = {mark_letter((enum mark)m), 0};

		json_object_set_new(basis, letter, json_cycles(b->basis[side][m]));
	}
	return json_pack("{s:s, s:s, s:o, s:o}", "unit", "cycles", "source", "modelled", "value",
			 json_cycles(b->side[side]), "by_class", basis);
}

static json_t *json_run(const struct bill *b)
{
	const struct report_input *in = b->input;
	json_t *run = json_pack("{s:s, s:b, s:b, s:s, s:i, s:i}", "strategy", in->strategy,
				"is_virtualized", in->is_virtualized, "is_hypothetical",
				bill_is_hypothetical(b), "scope",
				in->scope ? in->scope : "the whole run", "vcpus",
				(int)in->vcpu_count, "guest_levels", (int)in->guest_levels);
	const struct {
		const char *name, *unit;
		uint64_t value;
	} facts[] = {{"virtual_time", "cycles", in->virtual_cycles},
		     {"host_time", "ns", in->host_ns},
		     {"peak_rss", "bytes", in->peak_rss_bytes}};

	if (in->engine)
		json_object_set_new(run, "engine", json_string(in->engine));
	for (size_t i = 0; i < ARRAY_COUNT(facts); i++)
		json_object_set_new(
			run, facts[i].name,
			facts[i].value ? json_measure(facts[i].unit, "measured",
						      json_count(facts[i].value))
				       : json_measure(facts[i].unit, "unavailable", json_null()));
	return run;
}

static json_t *json_totals(const struct bill *b)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:b}", "native", json_side(b, SIDE_NATIVE),
			 "overhead", json_side(b, SIDE_OVERHEAD), "total",
			 json_measure("cycles", "modelled", json_cycles(b->total)),
			 "overhead_against_native",
			 json_measure("percent", "modelled",
				      json_real(amount_percent(b->side[SIDE_OVERHEAD],
							       b->side[SIDE_NATIVE]))),
			 "closes", b->closes);
}

int bill_write_json(FILE *out, const struct bill *b)
{
	const struct report_input *in = b->input;
	json_t *root = json_pack("{s:s, s:i, s:o, s:{s:s, s:s, s:s, s:o}, s:o, s:o, s:o}", "schema",
				 SCHEMA_NAME, "version", SCHEMA_VERSION, "run", json_run(b),
				 "profile", "name", in->profile->name, "description",
				 in->profile->description, "origin", in->profile->origin,
				 "frequency_hz", json_count(in->profile->frequency_hz), "lines",
				 json_lines(b), "vcpus", json_vcpus(b), "totals", json_totals(b));
	int rc = root ? 0 : -ENOMEM;

	if (root && json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15)))
		rc = -EIO;
	fputc('\n', out);
	json_decref(root);
	return rc;
}
