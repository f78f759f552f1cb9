/*
 * What a run under an engine that executes on the processor itself can tell: counts of what came to
 * user space, the kernel's own statistics, and which events nobody counted. No prices: it took what
 * it took.
 */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "engine/kvm/kvm.h"
#include "ledger/ledger.h"
#include "report/report.h"

struct measured_input {
	const char *engine;
	const char *translation; /* how the host translates: "ept", "npt", "shadow", "unknown" */
	const struct ledger *const *ledgers; /* vcpu_count of them */
	unsigned vcpu_count;
	bool is_counted[EVENT_COUNT]; /* else unavailable */
	uint64_t host_ns, peak_rss_bytes;
	const struct kvm_statistic *statistics; /* NULL: the kernel tells none, and `why_none` says
						   why */
	unsigned statistic_count;
	const char *why_none;
};

/* 0, -ENOMEM, or what writing to `out` failed with. */
int report_write_measured(FILE *out, enum bill_format format, const struct measured_input *input,
			  struct error *e);
