#include "report/stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int stat_init(struct machine_stat *s, unsigned vcpu_count)
{
	*s = (struct machine_stat){.vcpu_count = vcpu_count};
	s->counts = calloc(vcpu_count ? vcpu_count : 1, sizeof(*s->counts));
	return s->counts ? 0 : -ENOMEM;
}

void stat_fini(struct machine_stat *s)
{
	free(s->counts);
	*s = (struct machine_stat){0};
}

void stat_take_ledger(struct machine_stat *s, unsigned vcpu, const struct ledger *l)
{
	for (int e = 0; e < EVENT_COUNT; e++)
		s->counts[vcpu][e] = ledger_total(l, (enum event)e);
}

void stat_take_profile(struct machine_stat *s, const struct profile *p)
{
	snprintf(s->profile, sizeof(s->profile), "%s", p->name);
	s->frequency_hz = p->frequency_hz;
	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct price *price = profile_price(p, (enum event)e);
		s->is_priced[e] = price->is_priced;
		s->price_millis[e] = price_millis(price);
	}
}

uint64_t stat_total(const struct machine_stat *s, enum event e)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < s->vcpu_count; i++)
		sum += s->counts[i][e];
	return sum;
}

bool stat_subtract(struct machine_stat *now, const struct machine_stat *before)
{
	if (now->pid != before->pid || now->vcpu_count != before->vcpu_count ||
	    now->host_ns < before->host_ns)
		return false;
	now->host_ns -= before->host_ns;
	now->guest_ns -= now->guest_ns > before->guest_ns ? before->guest_ns : now->guest_ns;
	for (unsigned i = 0; i < now->vcpu_count; i++)
		for (int e = 0; e < EVENT_COUNT; e++)
			now->counts[i][e] -= before->counts[i][e];
	return true;
}

/* ---- out ---- */

static json_t *event_to_json(const struct machine_stat *s, enum event e)
{
	json_t *counts = s->is_counted[e] ? json_array() : json_null();
	for (unsigned i = 0; s->is_counted[e] && i < s->vcpu_count; i++)
		json_array_append_new(counts, json_integer((json_int_t)s->counts[i][e]));
	json_t *price = s->is_priced[e] ? json_real((double)s->price_millis[e] / MILLIS_PER_CYCLE)
					: json_null();
	return json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", event_name(e), "group",
			 event_group_name(event_group(e)), "source",
			 s->is_counted[e] ? "measured" : "unavailable", "counts", counts,
			 "price_cycles", price);
}

json_t *stat_to_json(const struct machine_stat *s)
{
	json_t *events = json_array();
	for (int e = 0; e < EVENT_COUNT; e++)
		json_array_append_new(events, event_to_json(s, (enum event)e));
	return json_pack("{s:s, s:I, s:s, s:s, s:s, s:b, s:s, s:s, s:I, s:I, s:I, s:i, s:o}",
			 "name", s->name, "pid", (json_int_t)s->pid, "state",
			 s->is_paused ? "paused" : "running", "engine", s->engine, "paging",
			 s->paging, "is_virtualized", s->is_virtualized, "mode", s->mode, "profile",
			 s->profile, "frequency_hz", (json_int_t)s->frequency_hz, "host_ns",
			 (json_int_t)s->host_ns, "guest_ns", (json_int_t)s->guest_ns, "vcpus",
			 (int)s->vcpu_count, "events", events);
}

/* ---- in ---- */

static int wrong(struct error *e, const char *what)
{
	return error_set(e, -EINVAL, "the machine's answer is not understood: '%.60s'", what);
}

static int take_text(const json_t *document, const char *name, char out[STAT_TEXT_BYTES],
		     struct error *e)
{
	const char *text = json_string_value(json_object_get(document, name));
	if (!text)
		return wrong(e, name);
	snprintf(out, STAT_TEXT_BYTES, "%s", text);
	return 0;
}

static int take_number(const json_t *document, const char *name, uint64_t *out, struct error *e)
{
	const json_t *value = json_object_get(document, name);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return wrong(e, name);
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

static int take_event(struct machine_stat *s, const json_t *row, struct error *e)
{
	const char *name = json_string_value(json_object_get(row, "name"));
	const json_t *counts = json_object_get(row, "counts");
	const json_t *price = json_object_get(row, "price_cycles");
	if (!name)
		return wrong(e, "events");
	int event = event_from_name(name);
	if (event < 0)
		return 0;
	s->is_counted[event] = json_is_array(counts);
	if (s->is_counted[event] && json_array_size(counts) != s->vcpu_count)
		return wrong(e, name);
	for (unsigned i = 0; s->is_counted[event] && i < s->vcpu_count; i++)
		s->counts[i][event] = (uint64_t)json_integer_value(json_array_get(counts, i));
	double cycles = json_number_value(price);
	s->is_priced[event] = json_is_number(price) && cycles >= 0 && cycles <= PRICE_MAX_CYCLES;
	if (s->is_priced[event])
		s->price_millis[event] = (uint64_t)(cycles * MILLIS_PER_CYCLE + 0.5);
	return 0;
}

static int take_head(struct machine_stat *s, const json_t *document, struct error *e)
{
	char state[STAT_TEXT_BYTES];
	uint64_t pid = 0;
	int r = take_text(document, "name", s->name, e);
	r = r ? r : take_text(document, "engine", s->engine, e);
	r = r ? r : take_text(document, "paging", s->paging, e);
	r = r ? r : take_text(document, "mode", s->mode, e);
	r = r ? r : take_text(document, "profile", s->profile, e);
	r = r ? r : take_text(document, "state", state, e);
	r = r ? r : take_number(document, "pid", &pid, e);
	r = r ? r : take_number(document, "frequency_hz", &s->frequency_hz, e);
	r = r ? r : take_number(document, "host_ns", &s->host_ns, e);
	r = r ? r : take_number(document, "guest_ns", &s->guest_ns, e);
	if (r)
		return r;
	s->pid = (int64_t)pid;
	s->is_paused = !strcmp(state, "paused");
	s->is_virtualized = json_is_true(json_object_get(document, "is_virtualized"));
	return 0;
}

int stat_from_json(struct machine_stat *s, const json_t *document, struct error *e)
{
	uint64_t vcpus;
	size_t i;
	json_t *row;
	*s = (struct machine_stat){0};
	int r = take_number(document, "vcpus", &vcpus, e);
	if (!r && vcpus > STAT_VCPUS_MAX)
		r = wrong(e, "vcpus");
	if (!r && stat_init(s, (unsigned)vcpus))
		r = error_set(e, -ENOMEM, "out of memory");
	if (!r)
		r = take_head(s, document, e);
	const json_t *events = json_object_get(document, "events");
	if (!r && !json_is_array(events))
		r = wrong(e, "events");
	if (!r)
		json_array_foreach(events, i, row) r = r ? r : take_event(s, row, e);
	if (r)
		stat_fini(s);
	return r;
}
