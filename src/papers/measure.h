/*
 * Questions to the runs: what the items' answers are made of. Times are cycles by the profile's
 * prices; a question about what did not run has the answer 0 (has_* says so beforehand).
 */
#pragma once

#include "papers/private.h"

/* A workload's name, or several with '+' between them, which are summed. */
struct question {
	const struct papers *papers;
	enum papers_machine machine;
	const char *workload;
	const char *profile; /* NULL: k10-2350 */
};

bool measure_has(struct question q, const char *strategy);
double measure_time(struct question q, const char *strategy);
/* Time without what all strategies but native have alike (devices, interrupts): translation alone
 * beyond native's. */
double measure_overhead(struct question q, const char *strategy);
/* time(a) / time(b); 0 if either did not run. */
double measure_ratio(struct question q, const char *a, const char *b);
double measure_events(struct question q, const char *strategy, enum event e);
/* Those in user mode alone. */
double measure_user_events(struct question q, const char *strategy, enum event e);
double measure_per_1000(struct question q, const char *strategy, enum event e);
/* The share of all exits, percent; of the time that a cause takes, percent. */
double measure_exit_share(struct question q, const char *strategy, enum event e);
double measure_cause_share(struct question q, const char *strategy, enum compare_cause c);
/* Data accesses for each instruction. */
double measure_accesses(struct question q);
/* The fastest and the slowest of a list of strategies that a NULL ends. */
const char *measure_best(struct question q, const char *const *strategies);
const char *measure_worst(struct question q, const char *const *strategies);
