/* What the files of papers/ share. */
#pragma once

#include "papers/papers.h"
#include "vm/vm.h"

/* ---- guest.c ---- */

#define PAPERS_PARTS_MAX 48
#define PAPERS_MARK_FIRST 1000u /* `suite mark 1000+i` names the part that follows */

/* One workload of a machine: what every scheme counted inside its marks. */
struct part {
	const char *name;
	bool has_run;
	uint64_t instructions;
	struct ledger *ledgers; /* by scheme */
	const struct ledger **pointers;
	struct compare_scheme *schemes;
	struct compare_input input;
	struct compare compare;
};

struct machine_run {
	struct part parts[PAPERS_PARTS_MAX];
	unsigned part_count;
	struct vm *vm; /* lives as long as the comparisons: it owns the profiles */
	bool has_run;
};

int guest_run(struct machine_run *run, enum papers_machine m, const struct papers_options *o,
	      struct error *e);
void guest_fini(struct machine_run *run);
const char *guest_machine_name(enum papers_machine m);
/* What it stands for, a sentence. */
const char *guest_machine_text(enum papers_machine m);

/* ---- walks.c ---- */

/* References of one cold walk. */
struct walk_case {
	unsigned guest_levels, host_levels;
	bool has_large_guest_page, has_large_host_page; /* 2M */
	const char *strategy;
};
/* -1 if it could not be set up. */
int walks_count(const struct walk_case *c);

/* ---- items_*.c ---- */

struct papers {
	struct papers_options options;
	struct machine_run run[PAPERS_MACHINE_COUNT];
	struct papers_answer *answers;
	unsigned answer_count;
};

struct papers_item {
	const char *id;
	const char *what;     /* the paper's statement */
	const char *expected; /* its figure */
	char class;	      /* A: direct; B: the workload is a stand-in; D: documentary */
	void (*answer)(const struct papers *p, struct papers_answer *a);
};

extern const struct papers_item papers_items_000[], papers_items_002[], papers_items_004[];
extern const unsigned papers_items_000_count, papers_items_002_count, papers_items_004_count;
