/* The items of papers 000 (Drepper) and 001 (De Gelas). Expected figures are the papers' own. */
#include <math.h>
#include <string.h>

#include "papers/judge.h"

static void answer_000_1(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "chase-16K");
	if (!has(a, q, "nested", NULL))
		return;
	double more = percent_more(q, "nested", "native");
	say(a, "nested %+.2f %%", more);
	judge(a, fabs(more) < 2);
}

static void answer_000_2(const struct papers *p, struct papers_answer *a)
{
	struct question q = on_nehalem(p, "chase-128M");
	if (!has(a, q, "nested", NULL))
		return;
	double more = percent_more(q, "nested", "native");
	say(a, "nested on nehalem-5570 %+.1f %%", more);
	judge_percent(a, more, 17);
	explain(a,
		"The paper's working sets and machine are not named; here 128 MiB, a node a line, "
		"in random order.");
}

static void answer_000_3(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "chase-128M"), intel = on_nehalem(p, "chase-128M");
	if (!has(a, q, "nested", NULL) || !has(a, intel, "nested", NULL))
		return;
	double amd_more = percent_more(q, "nested", "native");
	double intel_more = percent_more(intel, "nested", "native");
	say(a, "nested on k10-2350 %+.1f %% (Intel %+.1f %%)", amd_more, intel_more);
	judge_percent(a, amd_more, 38);
	if (amd_more <= intel_more)
		a->verdict = PAPERS_CONTRADICTED;
	explain_difference(a, "The paper puts its AMD figure down to the version of its "
			      "processor, which it does not name, and expects less of others.");
}

static void answer_000_4(const struct papers *p, struct papers_answer *a)
{
	(void)p;
	int count = walks_count(&(struct walk_case){4, 0, false, false, "shadow"});
	int large = walks_count(&(struct walk_case){4, 0, true, true, "shadow"});
	say(a, "%d; %d for a 2M page", count, large);
	judge(a, count >= 3 && count <= 5 && large >= 3);
}

static void answer_000_5(const struct papers *p, struct papers_answer *a)
{
	(void)p;
	int nested = walks_count(&(struct walk_case){4, 4, false, false, "nested"});
	int native = walks_count(&(struct walk_case){4, 0, false, false, "native"});
	say(a, "%d against %d: %d times", nested, native, nested / native);
	judge(a, nested <= 2 * native);
	explain(a, "A contradiction between the papers: (g+1)(n+1)-1 is 24 for two four-level "
		   "tables. Twice "
		   "is what walk caches may leave of it.");
}

/* At the access itself, which is the program's. The kernel then clears the page through a mapping
 * of its own, which plain shadow paging misses, too: that is another page's fault. */
static void answer_000_6(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "newpages");
	if (!has(a, q, "shadow", "nested"))
		return;
	double faults = measure_user_events(q, "native", EVENT_GUEST_PAGE_FAULT);
	double shadow = measure_user_events(q, "shadow", EVENT_EXIT_PF_TRUE) +
			measure_user_events(q, "shadow", EVENT_EXIT_PF_HIDDEN);
	double nested = measure_user_events(q, "nested", EVENT_EXIT_PF_TRUE) +
			measure_user_events(q, "nested", EVENT_EXIT_PF_HIDDEN);
	double kernel = measure_events(q, "shadow", EVENT_EXIT_PF_TRUE) +
			measure_events(q, "shadow", EVENT_EXIT_PF_HIDDEN) - shadow;
	if (!(faults > 0))
		return;
	say(a,
	    "%.2f exits of the program a guest fault under shadow, %.2f under nested; %.2f more of "
	    "the kernel",
	    shadow / faults, nested / faults, kernel / faults);
	judge(a, shadow / faults > 1.6 && shadow / faults < 2.6 && nested == 0);
	explain(a, "The kernel clears a new page through its own mapping of it, which plain shadow "
		   "paging has to fill as well.");
}

static void answer_000_7(const struct papers *p, struct papers_answer *a)
{
	(void)p;
	int both = walks_count(&(struct walk_case){4, 4, true, true, "nested"});
	int guest = walks_count(&(struct walk_case){4, 4, true, false, "nested"});
	int host = walks_count(&(struct walk_case){4, 4, false, true, "nested"});
	int small = walks_count(&(struct walk_case){4, 4, false, false, "nested"});
	say(a,
	    "references: none %d, guest %d, host %d, both %d; the TLB holds a 2M entry with both "
	    "only",
	    small, guest, host, both);
	a->verdict = both < guest && both < host ? PAPERS_SAME_ORDER : PAPERS_CONTRADICTED;
	explain(a, "In reach of the TLB the statement holds; a walk gets shorter by large pages in "
		   "either "
		   "table alone.");
}

static void answer_000_8(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "forkserver");
	if (!has(a, q, "nested", "nested:tlb-tag=off"))
		return;
	double on_misses = measure_events(q, "nested", EVENT_TLB_MISS);
	double off_misses = measure_events(q, "nested:tlb-tag=off", EVENT_TLB_MISS);
	double s_on = measure_events(q, "shadow", EVENT_TLB_MISS);
	double s_off = measure_events(q, "shadow:tlb-tag=off", EVENT_TLB_MISS);
	say(a, "misses untagged / tagged: nested %.2f, shadow %.2f", off_misses / on_misses,
	    s_on > 0 ? s_off / s_on : 0);
	judge(a, off_misses > on_misses && s_off > s_on);
}

static void answer_001_1(const struct papers *p, struct papers_answer *a)
{
	(void)p;
	refuse(a, "Counted from the manual (Robin and Irvine), not measured; an interpreter has no "
		  "instruction that does not trap.");
}

static void answer_001_2(const struct papers *p, struct papers_answer *a)
{
	struct question q = {p, PAPERS_KVM, "syscall", "p4-672"};
	if (!has(a, q, "native", NULL))
		return;
	double calls = measure_events(q, "native", EVENT_GUEST_SYSCALL);
	say(a, "%.0f cycles a getppid with the kernel's entry and exit",
	    calls > 0 ? measure_time(q, "native") / calls : 0);
	judge(a, calls > 0 && is_near(measure_time(q, "native") / calls, 242));
	explain(a, "The figure is an input to the profile; the paper's call did less than Linux "
		   "6.1's.");
}

static void answer_001_3(const struct papers *p, struct papers_answer *a)
{
	(void)p;
	refuse(a, "The engine trans does not price what it executes.");
}

static void answer_001_4(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "newpages"), f = on(p, PAPERS_KVM, "fork");
	if (!has(a, q, "shadow-cache", "shadow") || !has(a, f, "shadow-cache", "shadow"))
		return;
	double writes = measure_events(f, "shadow-cache", EVENT_EXIT_TABLE_WRITE);
	double cause = measure_cause_share(f, "shadow-cache", CAUSE_TABLE_WRITE) / 100 *
		       measure_time(f, "shadow-cache");
	say(a,
	    "a table write %.0f cycles instead of about 1 to 5; fork %.1fx, new pages %.1fx as "
	    "long",
	    writes > 0 ? cause / writes : 0, measure_ratio(f, "shadow-cache", "native"),
	    measure_ratio(q, "shadow", "native"));
	judge(a, writes > 0 && cause / writes > 3 && measure_ratio(q, "shadow", "native") > 1.5);
}

static void answer_001_7(const struct papers *p, struct papers_answer *a)
{
	double low = 1e12, high = 0;
	struct question q = on(p, PAPERS_KVM, "boot");
	if (!has(a, q, "shadow", NULL))
		return;
	const struct part *boot = &p->run[PAPERS_KVM].parts[0];
	for (unsigned e = 0; e < EVENT_COUNT; e++) {
		const struct price *price = &boot->schemes[0].profile->price[e];
		double cycles = (double)price_millis(price) / MILLIS_PER_CYCLE;
		if (!event_is_exit((enum event)e) || !price->is_priced)
			continue;
		low = fmin(low, cycles);
		high = fmax(high, cycles);
	}
	say(a, "exits of k10-2350: %.0f to %.0f cycles", low, high);
	judge(a, low >= 200 && high < 10000);
}

static void answer_001_8(const struct papers *p, struct papers_answer *a)
{
	unsigned closed = 0, all = 0;
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT; m++)
		for (unsigned i = 0; p->run[m].has_run && i < p->run[m].part_count; i++) {
			all += p->run[m].parts[i].has_run;
			closed += p->run[m].parts[i].has_run && p->run[m].parts[i].compare.closes;
		}
	if (!all) {
		refuse(a, "No guest ran.");
		return;
	}
	say(a, "%u of %u comparisons close to the thousandth of a cycle", closed, all);
	judge(a, closed == all);
}

static void answer_001_9(const struct papers *p, struct papers_answer *a)
{
	static const char *const names[] = {"kbuild", "forkserver", "vpr", "tpch", "forkexec"};
	double most = -100;
	const char *which = "";
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
		struct question q = on(p, PAPERS_KVM, names[i]);
		if (!has(a, q, "nested", "shadow-cache"))
			return;
		double gain = 100 * (1 - measure_ratio(q, "nested", "shadow-cache"));
		if (gain > most) {
			most = gain;
			which = names[i];
		}
	}
	say(a, "up to %.0f %% (%s)", most, which);
	judge_percent(a, most, 23);
	explain_difference(a,
			   "The article's gain is of whole benchmarks; forkexec does nothing but "
			   "fork and exec.");
}

static void answer_001_10(const struct papers *p, struct papers_answer *a)
{
	judge_walk(a, (struct walk_case){4, 4, false, false, "nested"}, 16);
	(void)p;
	explain(a, "A contradiction between the papers: 16 leaves out the guest's own references "
		   "and the "
		   "page's.");
}

static void answer_001_12(const struct papers *p, struct papers_answer *a)
{
	struct question q = on(p, PAPERS_KVM, "latency");
	if (!has(a, q, "nested", "nested:tlb-tag=off"))
		return;
	double tagged = measure_events(q, "nested", EVENT_TLB_MISS);
	double untagged = measure_events(q, "nested:tlb-tag=off", EVENT_TLB_MISS);
	say(a, "misses %.0f tagged, %.0f untagged, with one machine and its host", tagged,
	    untagged);
	judge(a, untagged > tagged);
}

static void answer_001_18(const struct papers *p, struct papers_answer *a)
{
	struct question cpu = on(p, PAPERS_KVM, "intloop+sha256");
	struct question web = on(p, PAPERS_KVM, "forkserver"), build = on(p, PAPERS_KVM, "kbuild");
	if (!has(a, cpu, "shadow-cache", "nested") || !has(a, web, "shadow-cache", "nested") ||
	    !has(a, build, "shadow-cache", "nested"))
		return;
	double c = percent_more(cpu, "shadow-cache", "native");
	double w = percent_more(web, "shadow-cache", "native");
	double b = percent_more(build, "shadow-cache", "native");
	say(a, "shadow-cache: computation %+.1f %%, compilation %+.0f %%, server %+.0f %%", c, b,
	    w);
	judge(a, c < 10 && w > 2 * c && b > 2 * c);
}

static void answer_001_20(const struct papers *p, struct papers_answer *a)
{
	struct question f = on(p, PAPERS_KVM, "forkexec"), c = on(p, PAPERS_KVM, "latency");
	struct question s = {p, PAPERS_KVM, "forkexec", "p4-672"};
	if (!has(a, f, "shadow-cache", NULL) || !has(a, s, "shadow-cache", NULL))
		return;
	double early = measure_ratio(s, "shadow-cache", "native");
	double later = measure_ratio(f, "shadow-cache", "native");
	say(a,
	    "fork and exec with exits %.1fx native on p4-672, %.1fx on k10-2350; context switch "
	    "%.1fx",
	    early, later, measure_ratio(c, "shadow-cache", "native"));
	judge(a, early > 1.2 && early > later * 0.8);
	explain(a, "The exit model's side of the statement; the translator's side is the engine "
		   "trans.");
}

const struct papers_item papers_items_000[] = {
	{"000-1", "A pointer chase that stays in the caches is not slower in a guest", "about 0 %",
	 'A', answer_000_1},
	{"000-2", "Beyond the caches, Intel with EPT: slower", "about 17 %", 'A', answer_000_2},
	{"000-3", "The same on AMD: slower than on Intel", "about 38 %", 'A', answer_000_3},
	{"000-4", "A miss under shadow paging takes as many references as a native one", "3 to 5",
	 'A', answer_000_4},
	{"000-5",
	 "A nested miss takes \"up to twice\" as many (flagged: papers 002 and 004 say 24)",
	 "up to twice", 'D', answer_000_5},
	{"000-6", "A new page faults twice under shadow paging, once under nested", "2 and 1", 'A',
	 answer_000_6},
	{"000-7", "Large pages help only where both tables have them", "no gain otherwise", 'A',
	 answer_000_7},
	{"000-8", "An untagged TLB is refilled after every exit, a tagged one is not",
	 "more misses untagged", 'A', answer_000_8},
	{"001-1", "Sensitive instructions of x86 that do not trap", "17", 'D', answer_001_1},
	{"001-2", "A native system call, Pentium 4 at 3.8 GHz", "242 cycles", 'A', answer_001_2},
	{"001-3", "The same under binary translation", "2308 cycles", 'A', answer_001_3},
	{"001-4", "Work on page tables is 3 to 400 times as dear under shadow paging", "3x to 400x",
	 'A', answer_001_4},
	{"001-7", "An event costs from a few hundred to a few thousand cycles", "as stated", 'A',
	 answer_001_7},
	{"001-8", "Overhead is the sum of frequency times latency", "an identity", 'A',
	 answer_001_8},
	{"001-9", "Nested paging gains over shadow paging, AMD", "up to 23 %", 'B', answer_001_9},
	{"001-10", "4 native against 16 nested look-ups (flagged: papers 002 and 004 say 24)", "16",
	 'D', answer_001_10},
	{"001-12", "Address-space identifiers keep the TLB over switches between machines",
	 "fewer misses", 'A', answer_001_12},
	{"001-18",
	 "Computation is near native under every technique; compilation and servers are not",
	 "ordering", 'B', answer_001_18},
	{"001-20",
	 "First hardware virtualization is slow at process creation and small table updates",
	 "ordering", 'A', answer_001_20},
};

const unsigned papers_items_000_count = ARRAY_COUNT(papers_items_000);
