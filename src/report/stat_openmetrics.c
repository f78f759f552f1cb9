/* OpenMetrics 1.0 for `gnomon stat --openmetrics`: families in one piece, bounded label sets. What
 * is unavailable has no sample but in gnomon_event_available. */
#include <string.h>

#include "report/stat.h"

static void print_label(FILE *f, const char *text)
{
	for (; *text; text++)
		if (*text == '\\' || *text == '"')
			fprintf(f, "\\%c", *text);
		else if (*text == '\n')
			fputs("\\n", f);
		else
			fputc(*text, f);
}

static void print_vm(FILE *f, const struct machine_stat *s)
{
	fputs("{vm=\"", f);
	print_label(f, s->name);
	fputc('"', f);
}

static void head(FILE *f, const char *name, const char *type, const char *unit, const char *help)
{
	fprintf(f, "# TYPE %s %s\n", name, type);
	if (unit)
		fprintf(f, "# UNIT %s %s\n", name, unit);
	fprintf(f, "# HELP %s %s\n", name, help);
}

static void write_machines(FILE *f, const struct machine_stat *const *list, size_t count)
{
	head(f, "gnomon_machine", "info", NULL, "What runs, and how.");
	for (size_t i = 0; i < count; i++) {
		fputs("gnomon_machine_info", f);
		print_vm(f, list[i]);
		fprintf(f, ",pid=\"%lld\",engine=\"", (long long)list[i]->pid);
		print_label(f, list[i]->engine);
		fputs("\",paging=\"", f);
		print_label(f, list[i]->paging);
		fputs("\",profile=\"", f);
		print_label(f, list[i]->profile);
		fputs("\"} 1\n", f);
	}
	head(f, "gnomon_paused", "gauge", NULL, "1 while no vcpu may run.");
	for (size_t i = 0; i < count; i++) {
		fputs("gnomon_paused", f);
		print_vm(f, list[i]);
		fprintf(f, "} %d\n", list[i]->is_paused);
	}
}

static void write_seconds(FILE *f, const struct machine_stat *const *list, size_t count,
			  const char *name, const char *help, size_t offset)
{
	head(f, name, "counter", "seconds", help);
	for (size_t i = 0; i < count; i++) {
		uint64_t ns = *(const uint64_t *)((const char *)list[i] + offset);
		fprintf(f, "%s_total", name);
		print_vm(f, list[i]);
		fprintf(f, "} %.9f\n", (double)ns / 1e9);
	}
}

/* exit: with the cause alone, as `cause`; else by the event's name. */
static void write_counts(FILE *f, const struct machine_stat *const *list, size_t count,
			 bool is_exit)
{
	const char *name = is_exit ? "gnomon_exits" : "gnomon_events";
	head(f, name, "counter", NULL,
	     is_exit ? "Exits that a hardware-assisted VMM would take, by cause."
		     : "Everything else that the ledger counts.");
	for (size_t i = 0; i < count; i++)
		for (unsigned v = 0; v < list[i]->vcpu_count; v++)
			for (int e = 0; e < EVENT_COUNT; e++) {
				const char *what = event_name((enum event)e);
				if (!list[i]->is_counted[e] ||
				    event_is_exit((enum event)e) != is_exit)
					continue;
				fprintf(f, "%s_total", name);
				print_vm(f, list[i]);
				fprintf(f, ",vcpu=\"%u\",%s=\"%s\"} %llu\n", v,
					is_exit ? "cause" : "event",
					is_exit ? strchr(what, '.') + 1 : what,
					(unsigned long long)list[i]->counts[v][e]);
			}
}

static void write_exit_seconds(FILE *f, const struct machine_stat *const *list, size_t count)
{
	head(f, "gnomon_exit_modelled_seconds", "counter", "seconds",
	     "What the exits would have taken: count x price of the profile.");
	for (size_t i = 0; i < count; i++)
		for (unsigned v = 0; v < list[i]->vcpu_count; v++)
			for (int e = event_first(GROUP_EXIT); e >= 0; e = event_next(e)) {
				const struct machine_stat *s = list[i];
				if (!s->is_counted[e] || !s->is_priced[e] || !s->frequency_hz)
					continue;
				double cycles = (double)s->counts[v][e] *
						(double)s->price_millis[e] / MILLIS_PER_CYCLE;
				fputs("gnomon_exit_modelled_seconds_total", f);
				print_vm(f, s);
				fprintf(f, ",vcpu=\"%u\",cause=\"%s\"} %.9f\n", v,
					strchr(event_name((enum event)e), '.') + 1,
					cycles / (double)s->frequency_hz);
			}
}

static void print_exit_label(FILE *f, const char *suffix, const struct machine_stat *s,
			     unsigned vcpu, enum event e)
{
	fprintf(f, "gnomon_exit_seconds%s", suffix);
	print_vm(f, s);
	fprintf(f, ",vcpu=\"%u\",cause=\"%s\"", vcpu, strchr(event_name(e), '.') + 1);
}

static void write_histogram(FILE *f, const struct machine_stat *s, unsigned vcpu, enum event e)
{
	const struct exit_time *t = &s->times[vcpu][e - EVENT_EXIT_CR_READ];
	uint64_t below = 0;
	if (!t->count)
		return;
	for (unsigned b = 0; b < EXIT_TIME_BUCKETS; b++) {
		uint64_t bound = exit_time_bound_ns(b);
		below += t->buckets[b];
		print_exit_label(f, "_bucket", s, vcpu, e);
		if (bound == UINT64_MAX)
			fprintf(f, ",le=\"+Inf\"} %llu\n", (unsigned long long)below);
		else
			fprintf(f, ",le=\"%.9g\"} %llu\n", (double)bound / 1e9,
				(unsigned long long)below);
	}
	print_exit_label(f, "_count", s, vcpu, e);
	fprintf(f, "} %llu\n", (unsigned long long)t->count);
	print_exit_label(f, "_sum", s, vcpu, e);
	fprintf(f, "} %.9f\n", (double)t->sum_ns / 1e9);
}

/* Only of causes that were met and timed: a histogram has many lines. */
static void write_histograms(FILE *f, const struct machine_stat *const *list, size_t count)
{
	head(f, "gnomon_exit_seconds", "histogram", "seconds",
	     "What this host took over the exits that were timed.");
	for (size_t i = 0; i < count; i++)
		for (unsigned v = 0; v < list[i]->vcpu_count; v++)
			for (int e = event_first(GROUP_EXIT); e >= 0; e = event_next(e))
				write_histogram(f, list[i], v, (enum event)e);
}

static void write_available(FILE *f, const struct machine_stat *const *list, size_t count)
{
	head(f, "gnomon_event_available", "gauge", NULL,
	     "0: the engine cannot count this event, and its counter is absent.");
	for (size_t i = 0; i < count; i++)
		for (int e = 0; e < EVENT_COUNT; e++) {
			fputs("gnomon_event_available", f);
			print_vm(f, list[i]);
			fprintf(f, ",event=\"%s\"} %d\n", event_name((enum event)e),
				list[i]->is_counted[e]);
		}
}

void stat_write_openmetrics(FILE *f, const struct machine_stat *const *list, size_t count)
{
	write_machines(f, list, count);
	write_seconds(f, list, count, "gnomon_host_seconds", "The host's time since the start.",
		      offsetof(struct machine_stat, host_ns));
	write_seconds(f, list, count, "gnomon_guest_seconds", "The guest's time since power-on.",
		      offsetof(struct machine_stat, guest_ns));
	write_counts(f, list, count, true);
	write_exit_seconds(f, list, count);
	write_histograms(f, list, count);
	write_counts(f, list, count, false);
	write_available(f, list, count);
	fputs("# EOF\n", f);
}
