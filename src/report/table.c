/*
 * The bill for people: what the guest did, what bare metal pays for it, what virtualization adds,
 * the exits by cause in the manner of `perf kvm stat`, and the sum. Lines with a count of 0 are
 * left out; JSON and CSV have them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "report/bill.h"

struct table {
	FILE *out;
	const struct bill *bill;
	bool is_fancy;
};

static void heading(const struct table *t, const char *text, const char *columns)
{
	fprintf(t->out, "\n%s%-24s%s%s\n", t->is_fancy ? "\033[1m" : "", text, columns,
		t->is_fancy ? "\033[0m" : "");
}

#define COUNT_COLUMNS "           count         kernel           user"
#define PRICE_COLUMNS "    price mark             cycles   share"

static void put_counts(const struct table *t, const char *name, const uint64_t count[RING_COUNT])
{
	char all[AMOUNT_TEXT_MAX], kernel[AMOUNT_TEXT_MAX], user[AMOUNT_TEXT_MAX];

	fprintf(t->out, "  %-22s %15s %14s %14s", name,
		count_text(count[RING_KERNEL] + count[RING_USER], ',', all),
		count_text(count[RING_KERNEL], ',', kernel),
		count_text(count[RING_USER], ',', user));
}

static void put_priced_line(const struct table *t, const char *name, const struct bill_line *l,
			    struct amount whole)
{
	char price[AMOUNT_TEXT_MAX], cost[AMOUNT_TEXT_MAX], marks[8];

	put_counts(t, name, l->count);
	fprintf(t->out, " %8s %-4s %18s %6.2f%%\n",
		amount_text((struct amount){price_millis(l->price)}, ',', price),
		price_marks(l->price, marks), amount_text(l->cost, ',', cost),
		amount_percent(l->cost, whole));
}

/* A line without count and price: subtotals. */
static void put_sum(const struct table *t, const char *name, struct amount a, struct amount whole)
{
	char cost[AMOUNT_TEXT_MAX];

	fprintf(t->out, "  %-82s %18s %6.2f%%\n", name, amount_text(a, ',', cost),
		amount_percent(a, whole));
}

static void put_head(const struct table *t)
{
	const struct report_input *in = t->bill->input;
	char text[AMOUNT_TEXT_MAX];

	fprintf(t->out, "The bill: %s, priced for %s (%s)\n", in->strategy, in->profile->name,
		in->profile->description);
	fprintf(t->out, "  %u vcpu%s, ", in->vcpu_count, in->vcpu_count == 1 ? "" : "s");
	if (in->guest_levels)
		fprintf(t->out, "%u-level guest, ", in->guest_levels);
	fprintf(t->out, "%s", in->scope ? in->scope : "the whole run");
	if (in->engine)
		fprintf(t->out, ", engine %s", in->engine);
	if (in->virtual_cycles)
		fprintf(t->out, ", %s virtual cycles", count_text(in->virtual_cycles, ',', text));
	if (in->host_ns)
		fprintf(t->out, ", %.2f s of host time", (double)in->host_ns / 1e9);
	if (in->peak_rss_bytes)
		fprintf(t->out, ", %" PRIu64 " MB at most", in->peak_rss_bytes >> 20);
	fputc('\n', t->out);
	if (bill_is_hypothetical(t->bill))
		fprintf(t->out,
			"  hypothetical: %s has no %s; this is what it would cost if it had\n",
			in->profile->name, bill_hypothesis(t->bill));
	for (int g = 0; g < GROUP_COUNT; g++)
		if (in->is_unavailable[g])
			fprintf(t->out, "  unavailable on this engine, and not in the bill: %s\n",
				event_group_name((enum event_group)g));
}

static void put_unpriced(const struct table *t)
{
	heading(t, "Counted only", COUNT_COLUMNS);
	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct bill_line *l = &t->bill->line[e];

		if (l->side == SIDE_NONE && !l->is_unavailable && bill_count(l)) {
			put_counts(t, event_name(l->event), l->count);
			fputc('\n', t->out);
		}
	}
}

static void put_side(const struct table *t, enum bill_side side, const char *text)
{
	const struct bill *b = t->bill;

	heading(t, text, COUNT_COLUMNS PRICE_COLUMNS);
	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct bill_line *l = &b->line[e];

		if (l->side == side && bill_count(l) && event_group(l->event) != GROUP_EXIT)
			put_priced_line(t, event_name(l->event), l, b->total);
	}
	if (b->group[side][GROUP_EXIT].millis)
		put_sum(t, "exits, by cause below", b->group[side][GROUP_EXIT], b->total);
	put_sum(t, bill_side_name(side), b->side[side], b->total);
}

/* Dearest first; events.def's order among equals. */
static int by_cost(const void *left, const void *right)
{
	const struct bill_line *a = *(const struct bill_line *const *)left;
	const struct bill_line *b = *(const struct bill_line *const *)right;

	if (a->cost.millis != b->cost.millis)
		return a->cost.millis < b->cost.millis ? 1 : -1;
	return a->event < b->event ? -1 : 1;
}

static void put_exits(const struct table *t)
{
	const struct bill_line *lines[EVENT_COUNT];
	const struct bill *b = t->bill;
	uint64_t all = 0;
	size_t n = 0;

	for (int e = event_first(GROUP_EXIT); e >= 0; e = event_next(e))
		if (b->line[e].side == SIDE_OVERHEAD && bill_count(&b->line[e])) {
			lines[n++] = &b->line[e];
			all += bill_count(&b->line[e]);
		}
	if (!n)
		return;
	qsort(lines, n, sizeof(lines[0]), by_cost);
	heading(t, "Exits by cause", COUNT_COLUMNS PRICE_COLUMNS " of exits  count");
	for (size_t i = 0; i < n; i++) {
		char price[AMOUNT_TEXT_MAX], cost[AMOUNT_TEXT_MAX], marks[8];
		const struct bill_line *l = lines[i];

		put_counts(t, event_name(l->event), l->count);
		fprintf(t->out, " %8s %-4s %18s %6.2f%%   %6.2f%% %6.2f%%\n",
			amount_text((struct amount){price_millis(l->price)}, ',', price),
			price_marks(l->price, marks), amount_text(l->cost, ',', cost),
			amount_percent(l->cost, b->total),
			amount_percent(l->cost, b->group[SIDE_OVERHEAD][GROUP_EXIT]),
			100.0 * (double)bill_count(l) / (double)all);
	}
}

static void put_vcpus(const struct table *t)
{
	const struct report_input *in = t->bill->input;

	if (in->vcpu_count < 2)
		return;
	heading(t, "Per vcpu", "    instructions     tlb misses          exits");
	for (unsigned v = 0; v < in->vcpu_count; v++) {
		char work[AMOUNT_TEXT_MAX], misses[AMOUNT_TEXT_MAX], exits[AMOUNT_TEXT_MAX];
		const struct ledger *l = in->ledgers[v];

		fprintf(t->out, "  %-22u %15s %14s %14s\n", v,
			count_text(ledger_total(l, EVENT_INSTRUCTION), ',', work),
			count_text(ledger_total(l, EVENT_TLB_MISS), ',', misses),
			count_text(ledger_group_total(l, GROUP_EXIT), ',', exits));
	}
}

/* How long the walks were: 24 for a cold 4x4 nested one, 4 for a native one. */
static void put_walks(const struct table *t)
{
	static const char *const dimensions[] = {"guest", "host", "shadow"};
	const struct bill_line *line = t->bill->line;
	uint64_t misses = bill_count(&line[EVENT_TLB_MISS]);

	if (!misses || t->bill->input->is_unavailable[GROUP_WALK])
		return;
	fprintf(t->out, "\n  references for each walk of the tables:");
	for (int d = 0; d < 3; d++) {
		uint64_t references = 0;

		for (int level = 0; level < 5; level++)
			references += bill_count(&line[EVENT_WALK_G1 + 5 * d + level]);
		fprintf(t->out, "%s %.2f %s", d ? "," : "", (double)references / (double)misses,
			dimensions[d]);
	}
	fputc('\n', t->out);
}

static void put_total_line(const struct table *t, const char *name, struct amount a,
			   const char *rest)
{
	char text[AMOUNT_TEXT_MAX];

	fprintf(t->out, "  %-22s %20s  %s\n", name, amount_text(a, ',', text), rest);
}

static void put_totals(const struct table *t)
{
	const struct bill *b = t->bill;
	const struct amount *overhead = &b->side[SIDE_OVERHEAD];
	char rest[100];

	heading(t, "Sum", "              cycles");
	put_total_line(t, "native", b->side[SIDE_NATIVE], "what bare metal pays too");
	snprintf(rest, sizeof(rest), "%.2f%% of native: the sum of count x price",
		 amount_percent(*overhead, b->side[SIDE_NATIVE]));
	put_total_line(t, "overhead", *overhead, rest);
	snprintf(rest, sizeof(rest), "%.6f s at %.2f GHz",
		 (double)b->total.millis / 1000.0 / (double)b->input->profile->frequency_hz,
		 (double)b->input->profile->frequency_hz / 1e9);
	put_total_line(t, "total", b->total, rest);
	fprintf(t->out, "  closes: %s (native + overhead = total, exactly)\n",
		b->closes ? "yes" : "NO");

	struct amount guessed = {b->basis[SIDE_NATIVE][MARK_ESTIMATE].millis +
				 b->basis[SIDE_OVERHEAD][MARK_ESTIMATE].millis};
	fprintf(t->out,
		"  resting on estimates (mark E): %.1f%% of the overhead, %.1f%% of the total; "
		"see gnomon profile show %s\n",
		amount_percent(b->basis[SIDE_OVERHEAD][MARK_ESTIMATE], *overhead),
		amount_percent(guessed, b->total), b->input->profile->name);
}

int bill_write_table(FILE *out, const struct bill *b, bool is_fancy)
{
	struct table t = {.out = out, .bill = b, .is_fancy = is_fancy};

	put_head(&t);
	put_unpriced(&t);
	put_side(&t, SIDE_NATIVE, "Native part");
	put_side(&t, SIDE_OVERHEAD, "Overhead");
	put_walks(&t);
	put_exits(&t);
	put_vcpus(&t);
	put_totals(&t);
	return 0;
}
