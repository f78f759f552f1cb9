/* The items of papers 003 (Bastoni et al.) and 004 (Dong et al.). Expected figures are the papers'
 * own. */
#include <math.h>
#include <string.h>

#include "papers/judge.h"

static void answer_003_7(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "intloop+sha256");
	if (!has(a, q, "shadow-cache", "shadow"))
		return;
	double more = percent_more(q, "shadow-cache", "native");
	say(a, "processor-bound work under shadow-cache %+.1f %%", more);
	judge(a, more < 8);
	explain(a, "The part of the statement that one vcpu can answer; the differences between "
		   "products "
		   "are theirs.");
}

static void answer_003_11(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "forkserver");
	if (!has(a, q, "shadow-cache", NULL))
		return;
	double guest = measure_time(q, "native"), all = measure_time(q, "shadow-cache");
	say(a, "cycles in the guest alone %.0f M, with its VMM %.0f M", guest / 1e6, all / 1e6);
	judge(a, all > guest);
	explain(a, "The ledger is such a counter; no PMU is shown to the guest.");
}

static void answer_004_1(const struct papers *p, struct papers_answer *a)
{
	(void)p;
	judge_walk(a, (struct walk_case){4, 4, false, false, "nested"}, 24);
}

static void answer_004_2(const struct papers *p, struct papers_answer *a)
{
	(void)p;
	judge_walk(a, (struct walk_case){4, 4, false, true, "nested"}, 19);
}

static void answer_004_5(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "kbuild");
	if (!has(a, q, NEHALEM_SHADOW, NULL))
		return;
	double exits = measure_exit_share(q, NEHALEM_SHADOW, EVENT_EXIT_TABLE_WRITE);
	double cycles = measure_cause_share(q, NEHALEM_SHADOW, CAUSE_TABLE_WRITE);
	say(a, "%.0f %% of exits, %.1f %% of cycles", exits, cycles);
	judge_percent(a, cycles, 12.5);
	if (!is_near(exits, 50) && a->verdict == PAPERS_REPRODUCED)
		a->verdict = PAPERS_SAME_ORDER;
	explain(a,
		"A tcc build of small files forks more for each cycle of compiling than gcc does.");
}

static void answer_004_7(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "kbuild");
	if (!has(a, q, NEHALEM_SHADOW, "nested"))
		return;
	double gain = percent_more(q, NEHALEM_SHADOW, "nested");
	say(a, "%+.0f %%", gain);
	judge_percent(a, gain, 24);
	explain(a,
		"A tcc build of small files forks more for each cycle of compiling than gcc does.");
}

static void answer_004_8(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "kbuild");
	if (!has(a, q, "nested:host-page=2M", "nested"))
		return;
	double gain = percent_more(q, "nested", "nested:host-page=2M");
	say(a, "%+.1f %%", gain);
	a->verdict = is_near(gain, 2) ? PAPERS_REPRODUCED
		     : gain > 0.1     ? PAPERS_SAME_ORDER
				      : PAPERS_CONTRADICTED;
}

static void answer_004_11(const struct papers *p, struct papers_answer *a)
{
	struct question j = on_nehalem(p, "vpr"), w = on_nehalem(p, "forkserver");
	if (!has(a, j, "nested:host-page=2M", "nested") || !has(a, w, "nested", NULL))
		return;
	double jbb = percent_more(j, "nested", "nested:host-page=2M");
	double web = percent_more(w, "nested", "nested:host-page=2M");
	say(a, "vpr (for SPECjbb) %+.1f %%, forkserver %+.1f %%", jbb, web);
	a->verdict = is_near(jbb, 8) && is_near(web, 14) ? PAPERS_REPRODUCED
		     : jbb > 0.2 && web > 0.2		 ? PAPERS_SAME_ORDER
							 : PAPERS_CONTRADICTED;
	explain_difference(a,
			   "Their guests had 4 GB (SPECjbb) and 1.5 GB (WebBench); vpr uses some "
			   "50 MB and forkserver less, so large pages save fewer entries of the "
			   "host's last level.");
}

static void answer_004_12(const struct papers *p, struct papers_answer *a)
{
	struct question w = on_nehalem(p, "forkserver"), j = on_nehalem(p, "vpr");
	if (!has(a, w, "nested:tables=confined", "nested:tables=scattered") ||
	    !has(a, j, "nested:tables=confined", "nested:tables=scattered"))
		return;
	double web = percent_more(w, "nested:tables=scattered", "nested:tables=confined");
	double jbb = percent_more(j, "nested:tables=scattered", "nested:tables=confined");
	say(a, "forkserver %+.2f %%, vpr (for SPECjbb) %+.2f %%", web, jbb);
	a->verdict = web > 0 && is_near(web, 3) ? PAPERS_REPRODUCED
		     : web > 0			? PAPERS_SAME_ORDER
						: PAPERS_CONTRADICTED;
	explain_difference(a, "forkserver's few processes have few table pages at a time; "
			      "WebBench scattered an Apache's over 1.5 GB.");
}

static void answer_004_13(const struct papers *p, struct papers_answer *a)
{
	struct question w = on_nehalem(p, "forkserver");
	if (!has(a, w, "nested:tables=confined", "nested:tables=scattered"))
		return;
	double sum[2] = {0, 0};
	static const char *const names[] = {"nested:tables=confined", "nested:tables=scattered"};
	for (unsigned i = 0; i < 2; i++)
		for (unsigned e = EVENT_REF_HOST_L2; e <= EVENT_REF_HOST_DRAM; e++)
			sum[i] += measure_events(w, names[i], (enum event)e);
	say(a, "references to the host's tables beyond L1: confined %.0f, scattered %.0f", sum[0],
	    sum[1]);
	judge(a, sum[1] > sum[0]);
}

static void answer_004_16(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "kbuild+forkserver+tpch+vpr");
	if (!has(a, q, NEHALEM_SHADOW, "nested:host-page=2M"))
		return;
	double gain = percent_more(q, NEHALEM_SHADOW, "nested:host-page=2M");
	say(a, "kbuild, forkserver, tpch and vpr together %+.0f %%", gain);
	judge_percent(a, gain, 29);
	explain_difference(a, "vConsolidate takes the geometric mean of its servers; in our sum "
			      "of cycles tpch and vpr, which shadow paging hardly slows, are "
			      "most.");
}

static void answer_004_17(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "forkserver");
	if (!has(a, q, NEHALEM_SHADOW, "nested:host-page=2M"))
		return;
	double ratio = measure_ratio(q, NEHALEM_SHADOW, "nested:host-page=2M");
	say(a, "forkserver %.2fx", ratio);
	judge_ratio(a, ratio, 2.15);
}

static void answer_004_18(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "forkserver");
	if (!has(a, q, NEHALEM_SHADOW, NULL))
		return;
	double exits = measure_exit_share(q, NEHALEM_SHADOW, EVENT_EXIT_TABLE_WRITE);
	double cycles = measure_cause_share(q, NEHALEM_SHADOW, CAUSE_TABLE_WRITE);
	say(a, "%.0f %% of exits, %.0f %% of cycles", exits, cycles);
	judge_percent(a, cycles, 38);
	if (!is_near(exits, 95) && a->verdict == PAPERS_REPRODUCED)
		a->verdict = PAPERS_SAME_ORDER;
	explain_difference(a,
			   "The other exits are faults on pages copied on write and their INVLPG; "
			   "a child's tables have no shadow yet when fork writes them.");
}

static void answer_004_24(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "forkserver");
	if (!has(a, q, "shadow-cache", "shadow-cache:sync=oos"))
		return;
	double strict = measure_events(q, "shadow-cache", EVENT_EXIT_TABLE_WRITE);
	double oos = measure_events(q, "shadow-cache:sync=oos", EVENT_EXIT_TABLE_WRITE);
	say(a, "table-write exits: strict %.0f, out-of-sync %.0f", strict, oos);
	judge(a, strict > oos);
}

const struct papers_item papers_items_004[] = {
	{"003-7", "bzip2: near native under every VMM", "5 % apart", 'B', answer_003_7},
	{"003-11", "Performance counters that run only in the guest differ by the exits",
	 "as stated", 'A', answer_003_11},
	{"004-1", "A nested walk is five rounds of a four-level walk", "24 references", 'A',
	 answer_004_1},
	{"004-2", "2 MB pages of the host save the last level of each round", "19 references", 'A',
	 answer_004_2},
	{"004-5", "Kernel build, shadow: half the exits are table writes, an eighth of the cycles",
	 "~50 %; 12.5 %", 'A', answer_004_5},
	{"004-7", "Kernel build: EPT over shadow", "~24 %", 'B', answer_004_7},
	{"004-8", "Kernel build: large pages of EPT on top", "~2 %", 'A', answer_004_8},
	{"004-11", "Large pages of EPT: SPECjbb +8 %, WebBench +14 %", "8 and 14 %", 'B',
	 answer_004_11},
	{"004-12", "Guest tables confined to 2 MB: WebBench +3 %, SPECjbb 0", "3 and 0 %", 'A',
	 answer_004_12},
	{"004-13", "Scattered table pages miss more in the caches of nested walks", "as stated",
	 'A', answer_004_13},
	{"004-16", "vConsolidate, one set: EPT with large pages over shadow", "29 %", 'B',
	 answer_004_16},
	{"004-17", "WebBench: EPT with large pages is 215 % of shadow; others at most 14 % more",
	 "2.15x", 'B', answer_004_17},
	{"004-18",
	 "WebBench, shadow: 95 % of exits and 38 % of cycles are table writes, mostly by fork",
	 "95 %; 38 %", 'A', answer_004_18},
	{"004-24",
	 "Strict write protection keeps shadow and guest tables equal; out-of-sync exits less",
	 "as stated", 'A', answer_004_24},
};

const unsigned papers_items_004_count = ARRAY_COUNT(papers_items_004);
