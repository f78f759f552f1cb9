/* The table of `gnomon stat`: what `perf kvm stat report` prints, with a price; and the histogram
 * of the times. */
#include <stdlib.h>
#include <string.h>

#include "report/stat.h"

/* In the layout, a time has 12 columns. */
#define TIME_BYTES 16

struct line {
	enum event event;
	uint64_t count;
	struct exit_time time;
	double cycles; /* the price of all of them; below 0: none */
};

/* As perf sorts. */
static int more_first(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return (int)x->event - (int)y->event;
}

/* CPUID of "exit.cpuid". */
static void print_cause(FILE *f, enum event e)
{
	char text[32];
	size_t n = 0;
	for (const char *p = strchr(event_name(e), '.') + 1; *p && n < sizeof(text) - 1; p++)
		text[n++] = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
	text[n] = 0;
	fprintf(f, "%20s", text);
}

static void print_time(FILE *f, bool is_known, double ns)
{
	char text[TIME_BYTES] = "unavailable";
	if (is_known)
		snprintf(text, sizeof(text), "%.2fus", ns / 1000);
	fprintf(f, " %11s", text);
}

static void print_percent(FILE *f, bool is_known, double part, double whole)
{
	char text[TIME_BYTES] = "unavailable";
	if (is_known)
		snprintf(text, sizeof(text), "%.2f%%", whole > 0 ? 100 * part / whole : 0.0);
	fprintf(f, " %11s", text);
}

static void print_exit(FILE *f, const struct line *l, const struct line *total, bool is_interval)
{
	const struct exit_time *t = &l->time;
	char price[TIME_BYTES] = "unavailable";
	print_cause(f, l->event);
	fprintf(f, " %10llu %8.2f%%", (unsigned long long)l->count,
		100 * (double)l->count / (double)total->count);
	print_percent(f, t->count, (double)t->sum_ns, (double)total->time.sum_ns);
	print_time(f, t->count && !is_interval, (double)t->min_ns);
	print_time(f, t->count && !is_interval, (double)t->max_ns);
	print_time(f, t->count, t->count ? (double)t->sum_ns / (double)t->count : 0);
	if (t->count > 1)
		fprintf(f, " ( +-%7.2f%% )", exit_time_error_percent(t));
	else
		fprintf(f, " %12s", "");
	if (l->cycles >= 0)
		snprintf(price, sizeof(price), "%.0f", l->cycles / (double)l->count);
	fprintf(f, " %11s", price);
	print_percent(f, l->cycles >= 0, l->cycles, total->cycles);
	fputc('\n', f);
}

static size_t collect(const struct machine_stat *s, struct line *lines, size_t *unavailable)
{
	size_t n = 0;
	*unavailable = 0;
	for (int e = event_first(GROUP_EXIT); e >= 0; e = event_next(e)) {
		uint64_t count = stat_total(s, (enum event)e);
		*unavailable += !s->is_counted[e];
		if (!s->is_counted[e] || !count)
			continue;
		double cycles = -1;
		if (s->is_priced[e])
			cycles = (double)count * (double)s->price_millis[e] / MILLIS_PER_CYCLE;
		lines[n++] = (struct line){(enum event)e, count, stat_total_time(s, (enum event)e),
					   cycles};
	}
	qsort(lines, n, sizeof(*lines), more_first);
	return n;
}

static void print_totals(FILE *f, const struct machine_stat *s, const struct line *total)
{
	double hz = (double)s->frequency_hz;
	fprintf(f, "\nTotal Samples:%llu, Total events handled time:",
		(unsigned long long)total->count);
	if (total->time.count)
		fprintf(f, "%.2fus.\n", (double)total->time.sum_ns / 1000);
	else
		fputs("unavailable.\n", f);
	if (total->time.count < total->count)
		fprintf(f, "%llu of them were timed; the others are not in the times.\n",
			(unsigned long long)total->time.count);
	fprintf(f,
		"Times are what this host took over each exit (HLT: until the guest was woken). "
		"Prices, in cycles, are what an exit would take on %s at %.2f GHz: %.2fus in "
		"all%s.\n",
		s->profile, hz / 1e9, hz > 0 ? total->cycles * 1e6 / hz : 0.0,
		s->is_virtualized ? "" : "; native itself pays none of it");
	if (s->is_interval)
		fputs("The shortest and the longest of an interval are unavailable.\n", f);
}

static void print_exits(FILE *f, const struct machine_stat *s)
{
	struct line lines[EVENT_COUNT], total = {0};
	size_t unavailable, n = collect(s, lines, &unavailable);
	for (size_t i = 0; i < n; i++) {
		total.count += lines[i].count;
		total.cycles += lines[i].cycles > 0 ? lines[i].cycles : 0;
		exit_time_merge(&total.time, &lines[i].time);
	}
	fprintf(f, "%20s %10s %9s %11s %11s %11s %11s %12s %11s %11s\n\n", "VM-EXIT", "Samples",
		"Samples%", "Time%", "Min Time", "Max Time", "Avg time", "", "Price", "Price%");
	for (size_t i = 0; i < n; i++)
		print_exit(f, &lines[i], &total, s->is_interval);
	print_totals(f, s, &total);
	if (unavailable)
		fprintf(f, "%zu causes are unavailable: this engine cannot count them.\n",
			unavailable);
}

#define BAR_COLUMNS 40u

static void print_bucket(FILE *f, const struct exit_time *t, unsigned b, uint64_t most)
{
	uint64_t bound = exit_time_bound_ns(b), from = b ? exit_time_bound_ns(b - 1) : 0;
	unsigned length = (unsigned)((t->buckets[b] * BAR_COLUMNS + most - 1) / most);
	if (bound == UINT64_MAX)
		fprintf(f, "%20llu ns ..                ", (unsigned long long)from);
	else
		fprintf(f, "%20llu ns .. %12llu ns", (unsigned long long)from,
			(unsigned long long)bound);
	fprintf(f, " %10llu |%-*.*s|\n", (unsigned long long)t->buckets[b], (int)BAR_COLUMNS,
		(int)length, "########################################");
}

void stat_write_histogram(FILE *f, const struct machine_stat *s)
{
	struct line lines[EVENT_COUNT];
	size_t unavailable, n = collect(s, lines, &unavailable);
	for (size_t i = 0; i < n; i++) {
		const struct exit_time *t = &lines[i].time;
		unsigned first = 0, last = EXIT_TIME_BUCKETS - 1;
		uint64_t most = 0;
		fputc('\n', f);
		print_cause(f, lines[i].event);
		fprintf(f, "%s\n", t->count ? "" : "  unavailable");
		for (unsigned b = 0; b < EXIT_TIME_BUCKETS; b++)
			most = t->buckets[b] > most ? t->buckets[b] : most;
		for (; most && !t->buckets[first]; first++)
			;
		for (; most && !t->buckets[last]; last--)
			;
		for (unsigned b = first; most && b <= last; b++)
			print_bucket(f, t, b, most);
	}
}

static void print_counter(FILE *f, const struct machine_stat *s, enum event e)
{
	if (s->is_counted[e])
		fprintf(f, "%20llu  %s\n", (unsigned long long)stat_total(s, e), event_name(e));
	else
		fprintf(f, "%20s  %s\n", "unavailable", event_name(e));
}

void stat_write_table(FILE *f, const struct machine_stat *s, bool wants_all)
{
	static const enum event usual[] = {EVENT_INSTRUCTION,	   EVENT_TLB_MISS,
					   EVENT_WALK_CACHE_HIT,   EVENT_GUEST_CR3_WRITE,
					   EVENT_GUEST_PAGE_FAULT, EVENT_GUEST_INTERRUPT,
					   EVENT_PAGING_SWITCH};
	double seconds = (double)s->host_ns / 1e9;
	fprintf(f, "Analyze events for VM %s (pid %lld), all VCPUs (%u): %s, engine %s, paging %s",
		s->name, (long long)s->pid, s->vcpu_count, s->is_paused ? "paused" : "running",
		s->engine, s->paging);
	if (strncmp(s->paging, s->mode, strlen(s->mode)) != 0)
		fprintf(f, " (now %s)", s->mode);
	fputs("\n\n", f);
	print_exits(f, s);
	fprintf(f, "\n%20.3f  seconds of the host's time\n%20.3f  seconds of the guest's\n",
		seconds, (double)s->guest_ns / 1e9);
	for (size_t i = 0; !wants_all && i < ARRAY_COUNT(usual); i++)
		print_counter(f, s, usual[i]);
	for (int e = 0; wants_all && e < EVENT_COUNT; e++)
		print_counter(f, s, (enum event)e);
}
