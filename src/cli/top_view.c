#include "cli/top_view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One line of events: sums over the machines that are shown. */
struct row {
	enum event event;
	bool is_counted;
	double total, per_s, cost; /* cost: seconds of the priced processor's a second */
	struct exit_time time;	   /* of the last interval */
	double per_vcpu[STAT_VCPUS_MAX];
};

static void machine_fini(struct top_machine *m)
{
	stat_fini(&m->base);
	stat_fini(&m->before);
	stat_fini(&m->now);
}

void top_view_fini(struct top_view *v)
{
	for (unsigned i = 0; i < v->count; i++)
		machine_fini(&v->machines[i]);
	free(v->machines);
	top_view_filter(v, "");
	*v = (struct top_view){0};
}

/* ---- samples ---- */

static int copy(struct machine_stat *to, const struct machine_stat *from)
{
	struct machine_stat s, room;
	if (stat_init(&room, from->vcpu_count))
		return -ENOMEM;
	memcpy(room.counts, from->counts, from->vcpu_count * sizeof(*s.counts));
	memcpy(room.times, from->times, from->vcpu_count * sizeof(*s.times));
	s = *from;
	s.counts = room.counts;
	s.times = room.times;
	stat_fini(to);
	*to = s;
	return 0;
}

/* Moves the machine of that process from the last list into `m`; a new one has no past. */
static int inherit(struct top_machine *m, struct top_view *last)
{
	for (unsigned i = 0; i < last->count; i++) {
		struct top_machine *old = &last->machines[i];
		if (!old->now.counts || old->now.pid != m->now.pid ||
		    old->now.vcpu_count != m->now.vcpu_count || old->now.host_ns > m->now.host_ns)
			continue;
		m->base = old->base;
		m->before = old->now;
		old->base = old->now = (struct machine_stat){0};
		return 0;
	}
	m->is_new = true;
	int r = copy(&m->base, &m->now);
	for (unsigned i = 0; !r && i < m->base.vcpu_count; i++)
		memset(m->base.counts[i], 0, sizeof(m->base.counts[i]));
	return r ? r : copy(&m->before, &m->now);
}

int top_view_sample(struct top_view *v, struct error *e)
{
	json_t *answers[MACHINES_MAX];
	struct top_view last = {.machines = v->machines, .count = v->count};
	int n = machines_ask("stat", answers, MACHINES_MAX, e);
	if (n < 0)
		return n;
	struct top_machine *list = calloc(n ? (size_t)n : 1, sizeof(*list));
	unsigned count = 0;
	for (int i = 0; i < n; i++) {
		struct top_machine *m = &list[count];
		if (list && !stat_from_json(&m->now, answers[i], NULL)) {
			if (inherit(m, &last))
				machine_fini(m);
			else
				count++;
		}
		json_decref(answers[i]);
	}
	for (unsigned i = 0; i < last.count; i++)
		machine_fini(&last.machines[i]);
	free(last.machines);
	v->machines = list;
	v->count = count;
	return list ? 0 : error_set(e, -ENOMEM, "out of memory");
}

void top_view_reset(struct top_view *v)
{
	for (unsigned i = 0; i < v->count; i++)
		copy(&v->machines[i].base, &v->machines[i].now);
}

bool top_view_select_pid(struct top_view *v, const char *pid)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->machines[i].now.pid == strtoll(pid, NULL, 10)) {
			snprintf(v->selected, sizeof(v->selected), "%s", v->machines[i].now.name);
			return true;
		}
	if (!*pid)
		v->selected[0] = 0;
	return !*pid;
}

bool top_view_filter(struct top_view *v, const char *text)
{
	regex_t filter;
	if (*text && regcomp(&filter, text, REG_EXTENDED | REG_NOSUB | REG_ICASE))
		return false;
	if (v->has_filter)
		regfree(&v->filter);
	v->has_filter = *text;
	if (*text)
		v->filter = filter;
	return true;
}

/* ---- what is shown ---- */

static double seconds_of(const struct top_machine *m)
{
	return (double)(m->now.host_ns - m->before.host_ns) / 1e9;
}

static double rate(const struct top_machine *m, enum event e)
{
	double seconds = seconds_of(m);
	if (m->is_new || seconds <= 0)
		seconds = (double)m->now.host_ns / 1e9;
	double count = (double)stat_total(&m->now, e);
	if (!m->is_new)
		count -= (double)stat_total(&m->before, e);
	return seconds > 0 ? count / seconds : 0;
}

static double cost(const struct top_machine *m, enum event e)
{
	if (!m->now.is_priced[e] || !m->now.frequency_hz || !m->now.is_virtualized)
		return 0;
	return rate(m, e) * (double)m->now.price_millis[e] / MILLIS_PER_CYCLE /
	       (double)m->now.frequency_hz;
}

/* A number, or that nobody knows it: never 0 for what is not counted. */
static const char *known(char text[16], bool is_known, const char *format, double value)
{
	if (!is_known)
		return "unavail.";
	snprintf(text, 16, format, value);
	return text;
}

static void print_machine(const struct top_view *v, const struct top_machine *m, FILE *f)
{
	const struct machine_stat *s = &m->now;
	char mips[16], exits[16], share[16], misses[16];
	double exit_rate = 0, exit_cost = 0;
	bool has_exits = false;
	for (int e = event_first(GROUP_EXIT); e >= 0; e = event_next(e)) {
		if (!s->is_counted[e])
			continue;
		has_exits = true;
		exit_rate += rate(m, (enum event)e);
		exit_cost += cost(m, (enum event)e);
	}
	fprintf(f, "%c%-19s %8lld %-7s %4u %8s %10s %8s %10s %-13.13s %s",
		strcmp(v->selected, s->name) ? ' ' : '*', s->name, (long long)s->pid,
		s->is_paused ? "paused" : "running", s->vcpu_count,
		known(mips, s->is_counted[EVENT_INSTRUCTION], "%.1f",
		      rate(m, EVENT_INSTRUCTION) / 1e6),
		known(exits, has_exits, "%.0f", exit_rate),
		known(share, has_exits, "%.2f%%", 100 * exit_cost),
		known(misses, s->is_counted[EVENT_TLB_MISS], "%.0f", rate(m, EVENT_TLB_MISS)),
		s->mode, s->paging);
	if (!strncmp(s->paging, "adaptive", 8))
		fprintf(f, ", %llu switches",
			(unsigned long long)stat_total(s, EVENT_PAGING_SWITCH));
	fputc('\n', f);
}

static bool is_shown(const struct top_view *v, const struct top_machine *m)
{
	return !v->selected[0] || !strcmp(v->selected, m->now.name);
}

/* What the host took over the exits of the last interval; of all, where there was none yet. */
static void add_time(const struct top_machine *m, enum event e, struct exit_time *out)
{
	struct exit_time now = stat_total_time(&m->now, e);
	if (!m->is_new) {
		struct exit_time before = stat_total_time(&m->before, e);
		exit_time_subtract(&now, &before);
	}
	exit_time_merge(out, &now);
}

static void sum(const struct top_view *v, struct row *row)
{
	enum event e = row->event;
	for (unsigned i = 0; i < v->count; i++) {
		const struct top_machine *m = &v->machines[i];
		if (!is_shown(v, m) || !m->now.is_counted[e])
			continue;
		row->is_counted = true;
		row->total += (double)stat_total(&m->now, e) - (double)stat_total(&m->base, e);
		row->per_s += rate(m, e);
		row->cost += cost(m, e);
		if (event_is_exit(e))
			add_time(m, e, &row->time);
		double seconds = seconds_of(m);
		for (unsigned k = 0; k < m->now.vcpu_count && seconds > 0; k++)
			row->per_vcpu[k] +=
				(double)(m->now.counts[k][e] - m->before.counts[k][e]) / seconds;
	}
}

static double key(const struct row *r, enum top_order order)
{
	return order == TOP_BY_RATE ? r->per_s : order == TOP_BY_TOTAL ? r->total : r->cost;
}

static int by_rate(const void *a, const void *b)
{
	double x = key(a, TOP_BY_RATE), y = key(b, TOP_BY_RATE);
	return x < y ? 1 : x > y ? -1 : 0;
}

static int by_total(const void *a, const void *b)
{
	double x = key(a, TOP_BY_TOTAL), y = key(b, TOP_BY_TOTAL);
	return x < y ? 1 : x > y ? -1 : 0;
}

static int by_cost(const void *a, const void *b)
{
	double x = key(a, TOP_BY_COST), y = key(b, TOP_BY_COST);
	return x < y ? 1 : x > y ? -1 : by_rate(a, b);
}

static size_t collect(const struct top_view *v, struct row *rows, double *total)
{
	static int (*const orders[])(const void *, const void *) = {by_rate, by_total, by_cost};
	size_t n = 0;
	*total = 0;
	for (int e = 0; e < EVENT_COUNT; e++) {
		struct row *row = &rows[n];
		*row = (struct row){.event = (enum event)e};
		if (v->has_filter && regexec(&v->filter, event_name((enum event)e), 0, NULL, 0))
			continue;
		sum(v, row);
		/* Instructions would leave nothing of the other shares. */
		if (row->is_counted && event_group((enum event)e) != GROUP_WORK)
			*total += row->total;
		n += row->total > 0 || !row->is_counted;
	}
	qsort(rows, n, sizeof(*rows), orders[v->order]);
	return n;
}

static void print_row(const struct top_view *v, const struct row *row, double total, FILE *f)
{
	if (!row->is_counted) {
		fprintf(f, "%-24s %16s\n", event_name(row->event), "unavailable");
		return;
	}
	fprintf(f, "%-24s %16.0f", event_name(row->event), row->total);
	if (event_group(row->event) == GROUP_WORK || total <= 0)
		fprintf(f, " %7s", "");
	else
		fprintf(f, " %6.1f%%", 100 * row->total / total);
	fprintf(f, " %12.0f", row->per_s);
	if (row->cost > 0)
		fprintf(f, " %8.3f%%", 100 * row->cost);
	else
		fprintf(f, " %9s", "");
	if (row->time.count)
		fprintf(f, " %9.2fus", (double)row->time.sum_ns / (double)row->time.count / 1000);
	else
		fprintf(f, " %11s", event_is_exit(row->event) ? "unavail." : "");
	for (unsigned i = 0; v->wants_vcpus && i < STAT_VCPUS_MAX && row->per_vcpu[i] > 0; i++)
		fprintf(f, " vcpu%u %.0f", i, row->per_vcpu[i]);
	fputc('\n', f);
}

void top_view_print(const struct top_view *v, FILE *f, unsigned row_count)
{
	static const char *const orders[] = {"rate", "total", "cost"};
	double total;
	fprintf(f, "gnomon top: %u machine%s%s%s\n", v->count, v->count == 1 ? "" : "s",
		v->message[0] ? "   " : "", v->message);
	fprintf(f, " %-19s %8s %-7s %4s %8s %10s %8s %10s %-13s %s\n", "MACHINE", "PID", "STATE",
		"CPUS", "MIPS", "EXITS/s", "COST", "TLBMISS/s", "NOW", "PAGING");
	for (unsigned i = 0; i < v->count; i++)
		print_machine(v, &v->machines[i], f);
	if (v->hides_events)
		return;
	fprintf(f, "\n%-24s %16s %7s %12s %9s %11s   of %s, by %s\n", "Event", "Total", "%Total",
		"CurAvg/s", "Cost", "AvgTime", v->selected[0] ? v->selected : "all machines",
		orders[v->order]);
	struct row *rows = calloc(EVENT_COUNT, sizeof(*rows));
	size_t n = rows ? collect(v, rows, &total) : 0;
	for (size_t i = 0; i < n && i < row_count; i++)
		print_row(v, &rows[i], total, f);
	free(rows);
}
