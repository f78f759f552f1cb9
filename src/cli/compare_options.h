/* What `gnomon compare` can be told: its own options before those of `gnomon run`, and the schemes
 * that come of them. */
#pragma once

#include "cli/run_options.h"
#include "paging/mmu.h"
#include "report/compare.h"

#define COMPARE_STRATEGIES_MAX 64
#define COMPARE_PROFILES_MAX 64
#define COMPARE_POINTS_MAX 64

struct compare_options {
	struct run_options run;
	/* As given, commas and all. */
	const char *strategy_lists[COMPARE_STRATEGIES_MAX];
	unsigned strategy_list_count;
	const char *profile_lists[COMPARE_PROFILES_MAX];
	unsigned profile_list_count;
	int format;	  /* enum compare_format; -1: by the name of `file` */
	const char *file; /* NULL: standard output */
	struct vary vary[COMPARE_VARY_MAX];
	unsigned vary_count;
	char *points[COMPARE_POINTS_MAX]; /* owned: the texts of --phases */
	unsigned point_count;
	uint64_t interval; /* instructions between samples; 0: as the format needs */
	bool wants_help;

	/* What comes of them: native first, nothing twice. run.vm.observers refers to these. */
	char strategies[COMPARE_STRATEGIES_MAX][MMU_STRATEGY_TEXT_MAX];
	unsigned strategy_count;
	char profiles[COMPARE_PROFILES_MAX][256];
	unsigned profile_count;
	unsigned primary; /* the strategy that serves the guest, on the first profile */
};

void compare_options_init(struct compare_options *o);
void compare_options_fini(struct compare_options *o);
/* Parses and completes run.vm with the schemes; -EINVAL and the like with the message. `o` must
 * stay where it is. */
int compare_options_parse(struct compare_options *o, int argc, char **argv, struct error *e);
void compare_options_help(FILE *f);
