/*
 * What five papers measured on machines of their time, measured again: `gnomon bench papers`.
 *
 * An item (items_*.c) is one statement of a paper with its number there: "002-20: on the worst
 * case shadow paging is 2.56 times faster than nested". What answers it is measured, on page tables
 * made for the purpose (walks.c) or on a guest that runs the papers' workloads with every strategy
 * riding along (guest.c), and a function says what came out and whether that is what the paper
 * found.
 *
 * No price is tuned to a result: profiles state their sources, and where a result differs the item
 * says so. An item that one vcpu of this machine cannot answer says that.
 */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "report/compare.h"

/* One guest run: a machine as a paper had one. */
enum papers_machine {
	PAPERS_KVM,	 /* 64-bit guest, tagged TLB, Opteron 2350; and later processors */
	PAPERS_PALACIOS, /* 32-bit guest, TLB flushed at each exit, Opteron 2350 */
	PAPERS_MACHINE_COUNT
};

struct papers_guest {
	const char *kernel; /* NULL: none; its items are not answered */
	const char *initrd; /* scripts/make-initramfs --workloads */
};

struct papers_options {
	struct papers_guest guest[PAPERS_MACHINE_COUNT];
	const char *only; /* ids, a comma between them, or NULL: all */
	bool is_small;	  /* workloads a tenth as long: to see that it works */
	bool is_verified; /* --verify for the primary, too */
	/* Called when a workload begins, by the thread of its guest; may be NULL. */
	void (*progress)(void *opaque, const char *machine, const char *workload);
	void *opaque; /* borrowed */
};

enum papers_verdict {
	PAPERS_REPRODUCED,
	PAPERS_SAME_ORDER, /* the sign or the order, not the size */
	PAPERS_CONTRADICTED,
	PAPERS_NOT_ANSWERABLE,
	PAPERS_VERDICT_COUNT
};
const char *papers_verdict_name(enum papers_verdict v);

struct papers_item;

/* What an item came to. */
struct papers_answer {
	const struct papers_item *item;
	enum papers_verdict verdict;
	char measured[200];
	char explanation[400]; /* may be empty */
};

struct papers;

/* Runs the guests, at the same time, and answers every item. -EINVAL, -ENOENT with a message;
 * -ENOMEM. */
int papers_run(struct papers **out, const struct papers_options *options, struct error *e);
void papers_destroy(struct papers *p);

unsigned papers_count(const struct papers *p);
const struct papers_answer *papers_answer(const struct papers *p, unsigned i);

/* The results as docs/reproduction.md has them, or as JSON (docs/papers.md). 0, -ENOMEM, -EIO. */
int papers_write_document(FILE *out, const struct papers *p, struct error *e);
int papers_write_json(FILE *out, const struct papers *p, struct error *e);
