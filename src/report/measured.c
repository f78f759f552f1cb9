#include "report/measured.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "report/csv_row.h"
#include "report/json_values.h"

#define SCHEMA_NAME "gnomon-measured"
#define SCHEMA_VERSION 1
#define LINE_MAX_BYTES 76u

static uint64_t total_of(const struct measured_input *in, enum event e)
{
	uint64_t sum = 0;

	for (unsigned v = 0; v < in->vcpu_count; v++)
		sum += ledger_total(in->ledgers[v], e);
	return sum;
}

/* ---- table ---- */

static void put_head(FILE *out, const struct measured_input *in)
{
	fprintf(out, "Measured: %u vcpu%s, engine %s, the host translates by %s", in->vcpu_count,
		in->vcpu_count == 1 ? "" : "s", in->engine,
		!strcmp(in->translation, "unknown") ? "means it does not tell" : in->translation);
	fprintf(out, ", %.2f s of host time, %" PRIu64 " MB at most\n", (double)in->host_ns / 1e9,
		in->peak_rss_bytes >> 20);
}

static void put_counts(FILE *out, const struct measured_input *in)
{
	char text[AMOUNT_TEXT_MAX];

	fprintf(out, "\n%-34s %15s\n", "Seen from user space", "count");
	for (int e = 0; e < EVENT_COUNT; e++)
		if (in->is_counted[e])
			fprintf(out, "  %-32s %15s\n", event_name((enum event)e),
				count_text(total_of(in, (enum event)e), ',', text));
}

static void put_unavailable(FILE *out, const struct measured_input *in)
{
	size_t used = 0;

	fprintf(out, "\nUnavailable: the processor and the kernel do these by themselves\n");
	for (int e = 0; e < EVENT_COUNT; e++) {
		if (in->is_counted[e])
			continue;
		size_t length = strlen(event_name((enum event)e)) + 1;
		if (used + length > LINE_MAX_BYTES)
			fputc('\n', out);
		if (!used || used + length > LINE_MAX_BYTES)
			used = (size_t)fprintf(out, " ");
		used += (size_t)fprintf(out, " %s", event_name((enum event)e));
	}
	fputc('\n', out);
}

static void put_statistics(FILE *out, const struct measured_input *in)
{
	char text[AMOUNT_TEXT_MAX], scale[32];

	fprintf(out, "\n%-34s %15s  %s\n", "Counted by KVM", "value", "unit, of");
	if (!in->statistics)
		fprintf(out, "  unavailable: %s\n", in->why_none);
	for (unsigned i = 0; in->statistics && i < in->statistic_count; i++) {
		const struct kvm_statistic *s = &in->statistics[i];
		scale[0] = 0;
		if (s->exponent)
			snprintf(scale, sizeof(scale), " x %u^%d", s->base, s->exponent);
		fprintf(out, "  %-32s %15s  %s%s, %s%s\n", s->name, count_text(s->value, ',', text),
			strcmp(s->unit, "none")	  ? s->unit
			: strstr(s->type, "hist") ? "samples"
						  : "events",
			scale, s->is_of_vm ? "machine" : "vcpus",
			strcmp(s->type, "cumulative") ? "" : ", cumulative");
	}
}

/* ---- JSON ---- */

static json_t *json_counters(const struct measured_input *in)
{
	json_t *list = json_array();

	for (int e = 0; e < EVENT_COUNT; e++) {
		bool is_known = in->is_counted[e];
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s, s:s, s:o}", "name",
						event_name((enum event)e), "unit", "events", "kind",
						"cumulative", "source",
						is_known ? "measured" : "unavailable", "value",
						is_known ? json_count(total_of(in, (enum event)e))
							 : json_null()));
	}
	return list;
}

static json_t *json_statistics(const struct measured_input *in)
{
	json_t *list;

	if (!in->statistics)
		return json_null();
	list = json_array();
	for (unsigned i = 0; i < in->statistic_count; i++) {
		const struct kvm_statistic *s = &in->statistics[i];
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:o}", "name", s->name,
					"kind", s->type, "unit", s->unit, "base", (int)s->base,
					"exponent", s->exponent, "of", s->is_of_vm ? "vm" : "vcpus",
					"source", "measured", "value", json_count(s->value)));
	}
	return list;
}

static int put_json(FILE *out, const struct measured_input *in)
{
	json_t *root = json_pack(
		"{s:s, s:i, s:{s:s, s:s, s:i, s:o, s:o}, s:o, s:o}", "schema", SCHEMA_NAME,
		"version", SCHEMA_VERSION, "run", "engine", in->engine, "host_translation",
		in->translation, "vcpus", (int)in->vcpu_count, "host_time",
		json_measure("ns", "measured", json_count(in->host_ns)), "peak_rss",
		json_measure("bytes", "measured", json_count(in->peak_rss_bytes)), "counters",
		json_counters(in), "kvm_statistics", json_statistics(in));
	int r = root ? 0 : -ENOMEM;

	if (root && json_dumpf(root, out, JSON_INDENT(2)))
		r = -EIO;
	fputc('\n', out);
	json_decref(root);
	return r;
}

/* ---- CSV: name,kind,unit,source,value ---- */

static void put_row(FILE *out, const char *name, const char *kind, const char *unit, bool is_known,
		    uint64_t value)
{
	char text[AMOUNT_TEXT_MAX];

	csv_put_row(out,
		    (const char *const[]){name, kind, unit, is_known ? "measured" : "unavailable",
					  is_known ? count_text(value, 0, text) : ""},
		    5);
}

static void put_csv(FILE *out, const struct measured_input *in)
{
	char unit[48];

	csv_put_row(out, (const char *const[]){"name", "kind", "unit", "source", "value"}, 5);
	for (int e = 0; e < EVENT_COUNT; e++)
		put_row(out, event_name((enum event)e), "cumulative", "events", in->is_counted[e],
			total_of(in, (enum event)e));
	for (unsigned i = 0; in->statistics && i < in->statistic_count; i++) {
		const struct kvm_statistic *s = &in->statistics[i];
		char name[64];
		snprintf(name, sizeof(name), "kvm.%s.%s", s->is_of_vm ? "vm" : "vcpu", s->name);
		snprintf(unit, sizeof(unit), s->exponent ? "%s*%u^%d" : "%s", s->unit, s->base,
			 s->exponent);
		put_row(out, name, s->type, unit, true, s->value);
	}
}

int report_write_measured(FILE *out, enum bill_format format, const struct measured_input *in,
			  struct error *e)
{
	int r = 0;

	if (format == BILL_JSON) {
		r = put_json(out, in);
	} else if (format == BILL_CSV) {
		put_csv(out, in);
	} else {
		put_head(out, in);
		put_counts(out, in);
		put_unavailable(out, in);
		put_statistics(out, in);
	}
	if (!r && (fflush(out) || ferror(out)))
		r = -EIO;
	return r ? error_set(e, r, "cannot write the report: %s", strerror(-r)) : 0;
}
