/* What the items (items_*.c) say their answers with. */
#pragma once

#include "papers/measure.h"

/* Strategies that figures 13 and 14 of 002 compare, nested first; a NULL ends them. */
extern const char *const kvm_set[], *const kvm_shadows[];
extern const char *const palacios_set[], *const palacios_shadows[];
#define HPCC "randomaccess+stream+dgemm+latency"
#define NEHALEM_SHADOW "shadow-cache:pf-filter=on"

struct question on(const struct papers *p, enum papers_machine m, const char *workload);
struct question on_nehalem(const struct papers *p, const char *workload);

void say(struct papers_answer *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
void explain(struct papers_answer *a, const char *text);

/* Only where the figure or the direction is another. */
void explain_difference(struct papers_answer *a, const char *text);
void judge(struct papers_answer *a, bool holds);
/* 1: the ratio is above 1, -1: below, 0: about even. */
int side(double ratio);
bool is_near(double value, double expected);
void judge_ratio(struct papers_answer *a, double value, double expected);
/* A share or a gain in percent: more than nothing is the paper's direction. */
void judge_percent(struct papers_answer *a, double value, double expected);
void refuse(struct papers_answer *a, const char *why);
/* False, and the answer given, if a strategy has no figures; `y` may be NULL. */
bool has(struct papers_answer *a, struct question q, const char *x, const char *y);
/* How much longer `a` takes than `b`, percent. */
double percent_more(struct question q, const char *a, const char *b);
void judge_walk(struct papers_answer *a, struct walk_case c, int expected);
/* One row of figures 13 and 14: best over worst, and nested over the best shadow. */
void figure(const struct papers *p, struct papers_answer *a, enum papers_machine m,
	    const char *workload, double best_worst, double shadow_nested);
