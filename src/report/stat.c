#include "report/stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int stat_init(struct machine_stat *s, unsigned vcpu_count)
{
	*s = (struct machine_stat){.vcpu_count = vcpu_count};
	s->counts = calloc(vcpu_count ? vcpu_count : 1, sizeof(*s->counts));
	s->times = calloc(vcpu_count ? vcpu_count : 1, sizeof(*s->times));
	if (s->counts && s->times)
		return 0;
	stat_fini(s);
	return -ENOMEM;
}

void stat_fini(struct machine_stat *s)
{
	free(s->counts);
	free(s->times);
	*s = (struct machine_stat){0};
}

void stat_take_ledger(struct machine_stat *s, unsigned vcpu, const struct ledger *l)
{
	for (int e = 0; e < EVENT_COUNT; e++)
		s->counts[vcpu][e] = ledger_total(l, (enum event)e);
	if (l->times)
		memcpy(s->times[vcpu], l->times->of, sizeof(s->times[vcpu]));
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

struct exit_time stat_total_time(const struct machine_stat *s, enum event e)
{
	struct exit_time sum = {0};
	for (unsigned i = 0; i < s->vcpu_count; i++)
		exit_time_merge(&sum, &s->times[i][e - EVENT_EXIT_CR_READ]);
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
	for (unsigned i = 0; i < now->vcpu_count; i++)
		for (unsigned c = 0; c < EXIT_CAUSES; c++)
			exit_time_subtract(&now->times[i][c], &before->times[i][c]);
	now->is_interval = true;
	return true;
}

/* ---- out ---- */

/* null for what nobody measured. */
static json_t *ns_to_json(bool is_known, uint64_t ns)
{
	return is_known ? json_integer((json_int_t)ns) : json_null();
}

static json_t *time_to_json(const struct exit_time *t, bool is_interval)
{
	json_t *buckets = json_array();
	for (unsigned b = 0; b < EXIT_TIME_BUCKETS; b++)
		json_array_append_new(buckets, json_integer((json_int_t)t->buckets[b]));
	bool has_ends = t->count && !is_interval;
	return json_pack("{s:I, s:I, s:o, s:o, s:f, s:o}", "samples", (json_int_t)t->count,
			 "sum_ns", (json_int_t)t->sum_ns, "min_ns", ns_to_json(has_ends, t->min_ns),
			 "max_ns", ns_to_json(has_ends, t->max_ns), "sum_squares", t->sum_squares,
			 "buckets", buckets);
}

/* One object a vcpu; null where no exit of the cause was timed, or the event is none. */
static json_t *times_to_json(const struct machine_stat *s, enum event e)
{
	if (!event_is_exit(e) || !stat_total_time(s, e).count)
		return json_null();
	json_t *list = json_array();
	for (unsigned i = 0; i < s->vcpu_count; i++)
		json_array_append_new(
			list, time_to_json(&s->times[i][e - EVENT_EXIT_CR_READ], s->is_interval));
	return list;
}

static json_t *event_to_json(const struct machine_stat *s, enum event e)
{
	json_t *counts = s->is_counted[e] ? json_array() : json_null();
	for (unsigned i = 0; s->is_counted[e] && i < s->vcpu_count; i++)
		json_array_append_new(counts, json_integer((json_int_t)s->counts[i][e]));
	json_t *price = s->is_priced[e] ? json_real((double)s->price_millis[e] / MILLIS_PER_CYCLE)
					: json_null();
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "name", event_name(e), "group",
			 event_group_name(event_group(e)), "source",
			 s->is_counted[e] ? "measured" : "unavailable", "counts", counts,
			 "price_cycles", price, "latency", times_to_json(s, e));
}

/* What a sample in each bucket is below; the last takes all the rest. */
static json_t *bounds_to_json(void)
{
	json_t *bounds = json_array();
	for (unsigned b = 0; b + 1 < EXIT_TIME_BUCKETS; b++)
		json_array_append_new(bounds, json_integer((json_int_t)exit_time_bound_ns(b)));
	return bounds;
}

json_t *stat_to_json(const struct machine_stat *s)
{
	json_t *events = json_array();
	for (int e = 0; e < EVENT_COUNT; e++)
		json_array_append_new(events, event_to_json(s, (enum event)e));
	return json_pack(
		"{s:s, s:I, s:s, s:s, s:s, s:b, s:s, s:s, s:I, s:I, s:I, s:i, s:o, s:o}", "name",
		s->name, "pid", (json_int_t)s->pid, "state", s->is_paused ? "paused" : "running",
		"engine", s->engine, "paging", s->paging, "is_virtualized", s->is_virtualized,
		"mode", s->mode, "profile", s->profile, "frequency_hz", (json_int_t)s->frequency_hz,
		"host_ns", (json_int_t)s->host_ns, "guest_ns", (json_int_t)s->guest_ns, "vcpus",
		(int)s->vcpu_count, "latency_bounds_ns", bounds_to_json(), "events", events);
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

static uint64_t number_of(const json_t *value)
{
	return json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value) : 0;
}

static bool take_time(struct exit_time *t, const json_t *row)
{
	const json_t *buckets = json_object_get(row, "buckets");
	if (json_array_size(buckets) != EXIT_TIME_BUCKETS)
		return false;
	*t = (struct exit_time){
		.count = number_of(json_object_get(row, "samples")),
		.sum_ns = number_of(json_object_get(row, "sum_ns")),
		.min_ns = number_of(json_object_get(row, "min_ns")),
		.max_ns = number_of(json_object_get(row, "max_ns")),
		.sum_squares = json_number_value(json_object_get(row, "sum_squares")),
	};
	for (unsigned b = 0; b < EXIT_TIME_BUCKETS; b++)
		t->buckets[b] = number_of(json_array_get(buckets, b));
	return true;
}

/* False: not as it should be. null, and nothing: nobody measured. */
static bool take_times(struct machine_stat *s, int event, const json_t *list)
{
	if (!json_is_array(list))
		return !list || json_is_null(list);
	if (!event_is_exit((enum event)event) || json_array_size(list) != s->vcpu_count)
		return false;
	for (unsigned i = 0; i < s->vcpu_count; i++)
		if (!take_time(&s->times[i][event - EVENT_EXIT_CR_READ], json_array_get(list, i)))
			return false;
	return true;
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
	if (!take_times(s, event, json_object_get(row, "latency")))
		return wrong(e, name);
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
