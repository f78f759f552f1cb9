/*
 * The bill: events x prices = what virtualization cost, cause by cause (docs/report.md).
 *
 * A report is made from ledgers (facts) and a profile (prices) and nothing else; it may be made at
 * any time, from a run that goes on, and for any profile, not only the one the run used. Every
 * priced event is on one side: native (what bare metal pays too) or overhead (what virtualization
 * adds). Invariant: total = native + overhead = the sum of count x price over all events, rings and
 * vcpus, in exact integers; the bill is computed in two orders that must agree.
 *
 * Callers: cli/, with the ledgers of a vm. Nothing here prints but to the stream it is given.
 */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"
#include "hw/hw.h"
#include "ledger/ledger.h"

enum bill_format { BILL_TABLE, BILL_JSON, BILL_CSV, BILL_FORMAT_COUNT };

/* "table", "json", "csv"; -1 if `name` is none of them. */
int bill_format_from_name(const char *name);

struct report_input {
	const struct profile *profile;
	const struct ledger *const *ledgers; /* vcpu_count of them */
	unsigned vcpu_count;
	const char *strategy;
	bool is_virtualized; /* false (native): exits and the host's tables are counted, not paid */
	unsigned guest_levels; /* of the guest's page tables at the end; 0: paging off or unknown */
	const char *engine;    /* may be NULL */
	const char *scope;     /* what the ledgers cover; NULL: "the whole run" */
	bool is_unavailable[GROUP_COUNT]; /* groups that the engine cannot count */
	/* Facts of the run; 0: not known. */
	uint64_t virtual_cycles;
	uint64_t host_ns;
	uint64_t peak_rss_bytes;
};

/* Writes the report. 0, -ENOMEM, or what writing to `out` failed with. `is_fancy` allows the table
 * bold and colour. */
int report_write(FILE *out, enum bill_format format, const struct report_input *input,
		 bool is_fancy, struct error *e);

/* The profile as people read it, or the JSON as it was loaded. */
int report_profile_show(FILE *out, const struct profile *p, bool is_json, struct error *e);
/* How well it is founded: facts by mark on one line, and what is odd about it, one a line. */
int report_profile_basis(FILE *out, const struct profile *p, struct error *e);
/* The facts whose value or mark differs. */
int report_profile_diff(FILE *out, const struct profile *a, const struct profile *b, bool is_json,
			struct error *e);
