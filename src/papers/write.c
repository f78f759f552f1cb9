/*
 * The results as a document (Markdown) and as JSON: the items with their verdicts, then the figures
 * of 002 as tables, one row a workload.
 */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "papers/judge.h"

#define BAR_COLUMNS 40

static const char *const figure_workloads[] = {"worstcase", "boot", "vpr", HPCC, "tpch", "kbuild"};
static const char *const figure_names[] = {"Worst case", "Boot",  "VPR",
					   "HPCC",	 "TPC-H", "Kernel compile"};
static const char *const hpcc[] = {"randomaccess", "stream", "dgemm", "latency"};
static const char *const dials[] = {"dial-quiet",      "dial-tlb",    "dial-cr3",
				    "dial-tlb-cr3",    "dial-writes", "dial-tlb-writes",
				    "dial-cr3-writes", "dial-all"};

/* The strategies of a machine that figures compare. */
static const char *const sets[PAPERS_MACHINE_COUNT][9] = {
	{"native", "nested", "shadow", "shadow-sync", "shadow-prefetch", "shadow-cache", "agile",
	 "adaptive", NULL},
	{"native", "nested:tlb-tag=off", "shadow:tlb-tag=off", "shadow-sync:tlb-tag=off",
	 "shadow-prefetch:tlb-tag=off", "shadow-cache:tlb-tag=off", "adaptive:tlb-tag=off", NULL},
};

static struct question ask(const struct papers *p, unsigned m, const char *workload,
			   const char *profile)
{
	return (struct question){p, (enum papers_machine)m, workload, profile};
}

static unsigned count_of(const struct papers *p, enum papers_verdict v)
{
	unsigned count = 0;
	for (unsigned i = 0; i < p->answer_count; i++)
		count += p->answers[i].verdict == v;
	return count;
}

static void write_items(FILE *f, const struct papers *p)
{
	fputs("| id | class | what | expected | measured | verdict | why |\n"
	      "| --- | --- | --- | --- | --- | --- | --- |\n",
	      f);
	for (unsigned i = 0; i < p->answer_count; i++) {
		const struct papers_answer *a = &p->answers[i];
		fprintf(f, "| %s | %c | %s | %s | %s | %s | %s |\n", a->item->id, a->item->class,
			a->item->what, a->item->expected, a->measured,
			papers_verdict_name(a->verdict), a->explanation);
	}
}

/* Figures 8, 10 and 11. */
static void write_rates(FILE *f, const struct papers *p, unsigned m)
{
	fprintf(f,
		"\n### Figures 8, 10 and 11: what the workloads do (%s, profile simics-002)\n\n"
		"| workload | instructions, M | reads | writes | TLB misses | CR3 writes |\n"
		"| --- | --- | --- | --- | --- | --- |\n",
		guest_machine_name((enum papers_machine)m));
	for (unsigned w = 0; w < ARRAY_COUNT(figure_workloads); w++) {
		struct question q = ask(p, m, figure_workloads[w], "simics-002");
		if (!measure_has(q, "native"))
			continue;
		fprintf(f, "| %s | %.1f | %.3f | %.3f | %.5f | %.7f |\n", figure_names[w],
			measure_events(q, "native", EVENT_INSTRUCTION) / 1e6,
			measure_per_1000(q, "native", EVENT_READ) / 1000,
			measure_per_1000(q, "native", EVENT_WRITE) / 1000,
			measure_per_1000(q, "native", EVENT_TLB_MISS) / 1000,
			measure_per_1000(q, "native", EVENT_GUEST_CR3_WRITE) / 1000);
	}
	fputs("\nAll but the first column for each instruction.\n", f);
}

/* Figure 9: where data accesses were answered. */
static void write_hits(FILE *f, const struct papers *p, unsigned m)
{
	fprintf(f,
		"\n### Figure 9: data accesses by what answered (%s, profile simics-002)\n\n"
		"| workload | first level | memory |\n| --- | --- | --- |\n",
		guest_machine_name((enum papers_machine)m));
	for (unsigned w = 0; w < ARRAY_COUNT(figure_workloads); w++) {
		struct question q = ask(p, m, figure_workloads[w], "simics-002");
		double all = 0;
		for (unsigned e = EVENT_REF_DATA_L1; e <= EVENT_REF_DATA_DRAM; e++)
			all += measure_events(q, "native", (enum event)e);
		if (all > 0)
			fprintf(f, "| %s | %.1f %% | %.1f %% |\n", figure_names[w],
				100 * measure_events(q, "native", EVENT_REF_DATA_L1) / all,
				100 * measure_events(q, "native", EVENT_REF_DATA_DRAM) / all);
	}
}

static int name_length(const char *strategy)
{
	return (int)strcspn(strategy, ":");
}

/* Times relative to native's, a row a workload. */
static void write_times(FILE *f, const struct papers *p, unsigned m, const char *heading,
			const char *const *workloads, const char *const *names, unsigned count)
{
	fprintf(f, "\n### %s (%s)\n\n| workload |", heading,
		guest_machine_name((enum papers_machine)m));
	for (unsigned s = 0; sets[m][s]; s++)
		fprintf(f, " %.*s |", name_length(sets[m][s]), sets[m][s]);
	fputs("\n| --- |", f);
	for (unsigned s = 0; sets[m][s]; s++)
		fputs(" --- |", f);
	for (unsigned w = 0; w < count; w++) {
		struct question q = ask(p, m, workloads[w], NULL);
		if (!measure_has(q, "native"))
			continue;
		fprintf(f, "\n| %s | %.1f M |", names[w], measure_time(q, "native") / 1e6);
		for (unsigned s = 1; sets[m][s]; s++)
			if (measure_has(q, sets[m][s]))
				fprintf(f, " %.3f |", measure_ratio(q, sets[m][s], "native"));
			else
				fputs(" - |", f);
	}
	fputs("\n\nNative in cycles, the others relative to it.\n", f);
}

/* Figure 15, drawn: time relative to native. */
static void write_plot(FILE *f, const struct papers *p, unsigned m)
{
	fprintf(f, "\n```\n");
	for (unsigned w = 0; w < ARRAY_COUNT(figure_workloads); w++) {
		struct question q = ask(p, m, figure_workloads[w], NULL);
		double most = 1;
		for (unsigned s = 1; sets[m][s]; s++)
			if (measure_ratio(q, sets[m][s], "native") > most)
				most = measure_ratio(q, sets[m][s], "native");
		for (unsigned s = 1; sets[m][s] && measure_has(q, "native"); s++) {
			double ratio = measure_ratio(q, sets[m][s], "native");
			if (!measure_has(q, sets[m][s]))
				continue;
			fprintf(f, "%-15s %-16.*s %7.2f ", s == 1 ? figure_names[w] : "",
				name_length(sets[m][s]), sets[m][s], ratio);
			for (unsigned c = 0; c < (unsigned)(ratio / most * BAR_COLUMNS); c++)
				fputc('#', f);
			fputc('\n', f);
		}
	}
	fprintf(f, "```\n");
}

static int finish(FILE *f, struct error *e)
{
	if (fflush(f) || ferror(f))
		return error_set(e, -EIO, "the results could not be written");
	return 0;
}

int papers_write_document(FILE *f, const struct papers *p, struct error *e)
{
	fputs("# The papers' results, measured again\n\n"
	      "Written by `gnomon bench papers`; times are cycles by the profiles' prices, and no\n"
	      "price is tuned to a result. Class A: what the paper measured, directly; B: the\n"
	      "workload is a stand-in; D: a statement checked, or a contradiction between the "
	      "papers\n"
	      "flagged.\n\n",
	      f);
	for (unsigned v = 0; v < PAPERS_VERDICT_COUNT; v++)
		fprintf(f, "- %s: %u\n", papers_verdict_name((enum papers_verdict)v),
			count_of(p, (enum papers_verdict)v));
	fputs("\n## Items\n\n", f);
	write_items(f, p);
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT; m++) {
		if (!p->run[m].has_run)
			continue;
		fprintf(f, "\n## The %s machine\n\n%s.\n",
			guest_machine_name((enum papers_machine)m),
			guest_machine_text((enum papers_machine)m));
		write_rates(f, p, m);
		write_hits(f, p, m);
		write_times(f, p, m, "Figures 12 to 15: time by strategy", figure_workloads,
			    figure_names, ARRAY_COUNT(figure_workloads));
		write_plot(f, p, m);
		write_times(f, p, m, "Figure 16: HPCC's parts", hpcc, hpcc, ARRAY_COUNT(hpcc));
		write_times(f, p, m, "Phases: TLB misses, CR3 writes, table writes", dials, dials,
			    ARRAY_COUNT(dials));
	}
	return finish(f, e);
}

static json_t *item_json(const struct papers_answer *a)
{
	return json_pack("{s:s, s:s#, s:s, s:s, s:s, s:s, s:s}", "id", a->item->id, "class",
			 &a->item->class, 1, "what", a->item->what, "expected", a->item->expected,
			 "measured", a->measured, "verdict", papers_verdict_name(a->verdict),
			 "explanation", a->explanation);
}

static double cycles(__int128 millis)
{
	return (double)millis / MILLIS_PER_CYCLE;
}

static json_t *row_json(const struct compare_row *row)
{
	json_t *causes = json_object(), *events = json_object();
	for (unsigned c = 0; c < CAUSE_COUNT; c++)
		json_object_set_new(causes, compare_cause_name((enum compare_cause)c),
				    json_real(cycles(row->cause[c].millis)));
	for (unsigned e = 0; e < EVENT_COUNT; e++)
		if (bill_count(&row->bill.line[e]))
			json_object_set_new(
				events, event_name((enum event)e),
				json_integer((json_int_t)bill_count(&row->bill.line[e])));
	return json_pack("{s:s, s:s, s:f, s:f, s:o, s:o}", "strategy", row->scheme->strategy,
			 "profile", row->scheme->profile->name, "cycles",
			 cycles((__int128)row->bill.total.millis), "beyond_native_cycles",
			 cycles(row->beyond.millis), "causes", causes, "events", events);
}

static json_t *part_json(const struct part *part)
{
	json_t *schemes = json_array();
	for (unsigned r = 0; r < part->compare.row_count; r++)
		json_array_append_new(schemes, row_json(&part->compare.rows[r]));
	return json_pack("{s:s, s:I, s:o}", "workload", part->name, "instructions",
			 (json_int_t)part->instructions, "schemes", schemes);
}

int papers_write_json(FILE *f, const struct papers *p, struct error *e)
{
	json_t *items = json_array(), *verdicts = json_object(), *machines = json_object();
	for (unsigned i = 0; i < p->answer_count; i++)
		json_array_append_new(items, item_json(&p->answers[i]));
	for (unsigned v = 0; v < PAPERS_VERDICT_COUNT; v++)
		json_object_set_new(verdicts, papers_verdict_name((enum papers_verdict)v),
				    json_integer(count_of(p, (enum papers_verdict)v)));
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT; m++) {
		json_t *parts = json_array();
		for (unsigned i = 0; i < p->run[m].part_count; i++)
			if (p->run[m].parts[i].has_run)
				json_array_append_new(parts, part_json(&p->run[m].parts[i]));
		json_object_set_new(machines, guest_machine_name((enum papers_machine)m), parts);
	}
	json_t *root = json_pack("{s:s, s:i, s:o, s:o, s:o}", "schema", "gnomon-papers", "version",
				 1, "verdicts", verdicts, "items", items, "machines", machines);
	if (!root)
		return error_set(e, -ENOMEM, "out of memory");
	int r = json_dumpf(root, f, JSON_INDENT(2)) ? error_set(e, -EIO, "writing JSON failed") : 0;
	json_decref(root);
	fputc('\n', f);
	return r ? r : finish(f, e);
}
