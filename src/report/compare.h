/*
 * One run under many strategies and processors, as numbers before any format.
 *
 * Input: what each scheme (a strategy on a processor) would have counted on the same run, `native`
 * among them for every processor. Each scheme gets its bill; against native's bill the difference
 * is split by cause. Invariant, in exact integers and asserted:
 *
 *     total of a scheme = total of native on that processor + the sum of its differences by cause
 *
 * A cause is a set of events; every event is in exactly one. Callers: cli/compare.c; tests.
 */
#pragma once

#include "report/bill.h"
#include "report/oracle.h"
#include "report/vary.h"

struct series;

/* Why a scheme costs other than native. */
enum compare_cause {
	CAUSE_WALK,	 /* references to tables: a second dimension, or longer or shorter walks */
	CAUSE_TLB,	 /* second-level look-ups and misses more or fewer than native's */
	CAUSE_PF_HIDDEN, /* exits, by the events of the same names */
	CAUSE_PF_TRUE,
	CAUSE_CR3_WRITE,
	CAUSE_INVLPG,
	CAUSE_TABLE_WRITE,
	CAUSE_VIOLATION,
	CAUSE_OTHER_EXIT, /* devices, interrupts, ...: the same under every strategy but native */
	CAUSE_PAGING,	  /* the strategy's software */
	CAUSE_REST,	  /* what is left: the guest's own work; 0 unless something is wrong */
	CAUSE_COUNT
};

enum compare_cause compare_cause_of(enum event e);
/* "walk", "exit.cr3_write", ...; a heading of at most 8 characters; a sentence. */
const char *compare_cause_name(enum compare_cause c);
const char *compare_cause_heading(enum compare_cause c);
const char *compare_cause_text(enum compare_cause c);

struct compare_scheme {
	const char *strategy; /* as mmu_format_strategy() writes it */
	const struct profile *profile;
	bool is_virtualized;		     /* false: the native baseline */
	const struct ledger *const *ledgers; /* compare_input.vcpu_count of them */
};

struct compare_input {
	const struct compare_scheme *schemes; /* those of one profile need not be neighbours */
	unsigned scheme_count;
	unsigned primary; /* the scheme that served the guest */
	unsigned vcpu_count;
	unsigned guest_levels; /* 0: paging off or unknown */
	const char *engine;    /* may be NULL */
	const char *scope;     /* what the ledgers cover; NULL: "the whole run" */
	const char *ending;    /* how the run ended; may be NULL */
	/* Facts of the run; 0: not known. */
	uint64_t host_ns;
	uint64_t peak_rss_bytes;
	const struct series *series; /* may be NULL */
	bool is_series_internal;     /* it is the oracle's alone: the formats do not show it */
	const char *const *points;   /* documents of points.h for the page; point_count of them */
	unsigned point_count;
};

/* A signed amount, in thousandths of a cycle. */
struct difference {
	__int128 millis;
};

struct compare_row {
	const struct compare_scheme *scheme;
	struct report_input input; /* of the bill */
	struct bill bill;
	struct difference cause[CAUSE_COUNT]; /* beyond native */
	struct difference beyond;	      /* their sum */
	bool is_primary;
};

#define COMPARE_VARY_MAX 8

/* The rows of one profile: native first, the others as the input lists them. */
struct compare_group {
	const struct profile *profile;
	unsigned first, count;
	/* Rows by total, native not among them; ~0u where there is none. The first of equals. */
	unsigned best, worst, best_shadow, nested;
	/* What if a number were another: over the rows but native, in their order. */
	struct vary_result *vary[COMPARE_VARY_MAX];
	unsigned vary_count;
	struct oracle oracle;
};
#define COMPARE_NONE (~0u)

struct compare {
	const struct compare_input *input; /* borrowed */
	struct compare_row *rows;
	unsigned row_count;
	struct compare_group *groups;
	unsigned group_count;
	bool closes; /* always; asserted */
};

/* -ENOMEM; -EINVAL if a profile has no native scheme. compare_fini() after either. */
int compare_init(struct compare *c, const struct compare_input *input, struct error *e);
void compare_fini(struct compare *c);
/* Adds to every group with a strategy but native how its totals move with one number of its
 * profile. -EINVAL where a profile has no such number, -E2BIG, -ENOMEM. */
int compare_vary(struct compare *c, const struct vary *v, struct error *e);
/* The strategies that a group's vary results are about: fills `names`, returns how many. */
unsigned compare_varied_names(const struct compare *c, const struct compare_group *g,
			      const char **names);

/* The first row of the row's group: native. */
const struct compare_row *compare_native(const struct compare *c, const struct compare_group *g);
/* a's share of native's total in percent, signed. */
double compare_percent(struct difference a, struct amount native);
/* How many times b's total is a's; 0 if a's is 0. */
double compare_ratio(const struct compare_row *a, const struct compare_row *b);
/* Misses of every TLB level for 1000 instructions. */
double compare_misses_per_1000(const struct compare_row *r);
/* References for each miss of every TLB level, by table: guest, host, shadow. 0 without a miss. */
enum compare_dimension { DIMENSION_GUEST, DIMENSION_HOST, DIMENSION_SHADOW, DIMENSION_COUNT };
#define COMPARE_LEVELS 5
const char *compare_dimension_name(enum compare_dimension d);
double compare_references(const struct compare_row *r, enum compare_dimension d, unsigned level);
double compare_all_references(const struct compare_row *r);
/* What share of the overhead side, or of the total, rests on estimates; percent. */
double compare_estimates_of_overhead(const struct compare_row *r);
double compare_estimates_of_total(const struct compare_row *r);
/* "strategy" without its settings is `name`. */
bool compare_is_strategy(const struct compare_row *r, const char *name);

/* As amount_text(), with a sign. */
const char *difference_text(struct difference d, char separator, char text[AMOUNT_TEXT_MAX]);

enum compare_format { COMPARE_TABLE, COMPARE_JSON, COMPARE_CSV, COMPARE_HTML, COMPARE_FORMATS };

/* Writes it. 0, -ENOMEM, or what writing to `out` failed with. `is_fancy` allows the table bold and
 * colour. */
int compare_write(FILE *out, enum compare_format format, const struct compare *c, bool is_fancy,
		  struct error *e);

/* The formats, private to report/. 0 or -ENOMEM. */
struct json_t;
int compare_write_table(FILE *out, const struct compare *c, bool is_fancy);
int compare_write_json(FILE *out, const struct compare *c);
int compare_write_csv(FILE *out, const struct compare *c);
int compare_write_page(FILE *out, const struct compare *c);
struct json_t *compare_json(const struct compare *c);
