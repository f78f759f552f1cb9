/* The table of `gnomon stat`: what `perf kvm stat report` prints, with a price. */
#include <stdlib.h>
#include <string.h>

#include "report/stat.h"

/* In the layout, a time has 12 columns. */
#define TIME_BYTES 16

struct line {
	enum event event;
	uint64_t count;
	double cycles; /* of all of them; below 0: no price */
};

static int dearer_first(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	if (x->cycles != y->cycles)
		return x->cycles < y->cycles ? 1 : -1;
	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return (int)x->event - (int)y->event;
}

static double microseconds(const struct machine_stat *s, double cycles)
{
	return s->frequency_hz ? cycles * 1e6 / (double)s->frequency_hz : 0;
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

static void print_exit(FILE *f, const struct machine_stat *s, const struct line *l, uint64_t count,
		       double cycles)
{
	char average[TIME_BYTES] = "unavailable", price[TIME_BYTES] = "unavailable",
	     share[TIME_BYTES] = "unavailable";
	if (l->cycles >= 0) {
		double one = l->cycles / (double)l->count;
		snprintf(average, sizeof(average), "%.2fus", microseconds(s, one));
		snprintf(price, sizeof(price), "%.0f", one);
		snprintf(share, sizeof(share), "%.2f%%", cycles ? 100 * l->cycles / cycles : 0.0);
	}
	print_cause(f, l->event);
	fprintf(f, " %10llu %8.2f%% %11s %11s %11s %11s %11s\n", (unsigned long long)l->count,
		100 * (double)l->count / (double)count, share, "unavailable", "unavailable",
		average, price);
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
		lines[n++] = (struct line){(enum event)e, count, cycles};
	}
	qsort(lines, n, sizeof(*lines), dearer_first);
	return n;
}

static void print_exits(FILE *f, const struct machine_stat *s)
{
	struct line lines[EVENT_COUNT];
	size_t unavailable, n = collect(s, lines, &unavailable);
	uint64_t count = 0;
	double cycles = 0;
	for (size_t i = 0; i < n; i++) {
		count += lines[i].count;
		cycles += lines[i].cycles > 0 ? lines[i].cycles : 0;
	}
	fprintf(f, "%20s %10s %9s %11s %11s %11s %11s %11s\n\n", "VM-EXIT", "Samples", "Samples%",
		"Time%", "Min Time", "Max Time", "Avg time", "Price");
	for (size_t i = 0; i < n; i++)
		print_exit(f, s, &lines[i], count, cycles);
	fprintf(f, "\nTotal Samples:%llu, Total events handled time:%.2fus.\n",
		(unsigned long long)count, microseconds(s, cycles));
	fprintf(f,
		"Time and price (in cycles) are modelled: what %s would take, at %.2f GHz%s. "
		"Nobody timed an exit, so the shortest and the longest are unavailable.\n",
		s->profile, (double)s->frequency_hz / 1e9,
		s->is_virtualized ? "" : "; native itself pays none of it");
	if (unavailable)
		fprintf(f, "%zu causes are unavailable: this engine cannot count them.\n",
			unavailable);
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
