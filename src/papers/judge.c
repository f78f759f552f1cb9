/*
 * Verdicts: how far a measured figure may be from a paper's.
 *   reproduced     the figure within a factor of 1.5 (shares: within 1.5, too), or the statement
 * holds same order     the figure is off by more, the direction is the paper's contradicted   the
 * direction is another
 */
#include "papers/judge.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NEAR 1.5  /* a factor */
#define EVEN 0.05 /* ratios so close to 1 are even */

const char *const kvm_set[] = {"nested", "shadow", "shadow-cache", NULL};
const char *const kvm_shadows[] = {"shadow", "shadow-cache", NULL};
const char *const palacios_set[] = {"nested:tlb-tag=off", "shadow:tlb-tag=off",
				    "shadow-cache:tlb-tag=off", "shadow-prefetch:tlb-tag=off",
				    NULL};
const char *const palacios_shadows[] = {"shadow:tlb-tag=off", "shadow-cache:tlb-tag=off",
					"shadow-prefetch:tlb-tag=off", NULL};

struct question on(const struct papers *p, enum papers_machine m, const char *workload)
{
	return (struct question){p, m, workload, NULL};
}

struct question on_nehalem(const struct papers *p, const char *workload)
{
	return (struct question){p, PAPERS_KVM, workload, "nehalem-5570"};
}

void say(struct papers_answer *a, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(a->measured, sizeof(a->measured), format, args);
	va_end(args);
}

void explain(struct papers_answer *a, const char *text)
{
	snprintf(a->explanation, sizeof(a->explanation), "%s", text);
}

void explain_difference(struct papers_answer *a, const char *text)
{
	if (a->verdict == PAPERS_SAME_ORDER || a->verdict == PAPERS_CONTRADICTED)
		explain(a, text);
}

void judge(struct papers_answer *a, bool holds)
{
	a->verdict = holds ? PAPERS_REPRODUCED : PAPERS_CONTRADICTED;
}

int side(double ratio)
{
	return ratio > 1 + EVEN ? 1 : ratio < 1 - EVEN ? -1 : 0;
}

bool is_near(double value, double expected)
{
	return value > 0 && value < expected * NEAR && value > expected / NEAR;
}

void judge_ratio(struct papers_answer *a, double value, double expected)
{
	if (is_near(value, expected) && side(value) * side(expected) >= 0)
		a->verdict = PAPERS_REPRODUCED;
	else
		a->verdict = side(value) == side(expected) ? PAPERS_SAME_ORDER
							   : PAPERS_CONTRADICTED;
}

/* A share or a gain in percent; both signs count. */
void judge_percent(struct papers_answer *a, double value, double expected)
{
	if (is_near(value, expected))
		a->verdict = PAPERS_REPRODUCED;
	else
		a->verdict = value > 1 ? PAPERS_SAME_ORDER : PAPERS_CONTRADICTED;
}

void refuse(struct papers_answer *a, const char *why)
{
	a->verdict = PAPERS_NOT_ANSWERABLE;
	say(a, "-");
	explain(a, why);
}

/* False, and the answer given, if one of the strategies has no figures. */
bool has(struct papers_answer *a, struct question q, const char *x, const char *y)
{
	if (measure_has(q, x) && (!y || measure_has(q, y)))
		return true;
	refuse(a, "The guest or the strategy that answers it did not run.");
	return false;
}

double percent_more(struct question q, const char *a, const char *b)
{
	return 100 * (measure_ratio(q, a, b) - 1);
}

void judge_walk(struct papers_answer *a, struct walk_case c, int expected)
{
	int count = walks_count(&c);
	say(a, "%d references", count);
	judge(a, count == expected);
}

/* One row of figures 13 and 14: best over worst, and nested over the best shadow. */
void figure(const struct papers *p, struct papers_answer *a, enum papers_machine m,
	    const char *workload, double best_worst, double shadow_nested)
{
	bool is_kvm = m == PAPERS_KVM;
	const char *const *set = is_kvm ? kvm_set : palacios_set;
	struct question q = on(p, m, workload);
	if (!has(a, q, set[0], set[1]))
		return;
	const char *best = measure_best(q, set), *worst = measure_worst(q, set);
	const char *shadow = measure_best(q, is_kvm ? kvm_shadows : palacios_shadows);
	double spread = measure_ratio(q, worst, best), gain = measure_ratio(q, set[0], shadow);
	say(a, "best %.*s; best/worst %.2fx; best shadow/nested %.2fx", (int)strcspn(best, ":"),
	    best, spread, gain);
	judge_ratio(a, gain, shadow_nested);
	if (a->verdict == PAPERS_REPRODUCED && !is_near(spread, best_worst))
		a->verdict = PAPERS_SAME_ORDER;
}
