/*
 * What a machine has counted until now, as it leaves the machine: `gnomon stat` and `gnomon top`
 * see nothing else. It travels as JSON (docs/schema/control.json) and becomes text in three ways:
 * a table as `perf kvm stat` prints it, OpenMetrics, and that JSON.
 *
 * What an engine cannot count is unavailable and nowhere 0: null in JSON, "unavailable" in the
 * table, absent in OpenMetrics.
 */
#pragma once

#include <stdio.h>

#include <jansson.h>

#include "base/error.h"
#include "base/types.h"
#include "hw/hw.h"
#include "ledger/exit_times.h"
#include "ledger/ledger.h"

#define STAT_VCPUS_MAX 1024u
#define STAT_TEXT_BYTES 128

struct machine_stat {
	char name[STAT_TEXT_BYTES];
	char engine[STAT_TEXT_BYTES];
	char paging[STAT_TEXT_BYTES];  /* the strategy as it was asked for */
	char profile[STAT_TEXT_BYTES]; /* whose prices */
	char mode[STAT_TEXT_BYTES];    /* what serves vcpu 0 now: adaptive's present choice */
	int64_t pid;
	bool is_paused, is_virtualized; /* not: exits are counted, and native pays none */
	uint64_t frequency_hz, host_ns, guest_ns;
	bool is_counted[EVENT_COUNT]; /* else unavailable */
	bool is_priced[EVENT_COUNT];
	uint64_t price_millis[EVENT_COUNT]; /* thousandths of a cycle */
	unsigned vcpu_count;
	uint64_t (*counts)[EVENT_COUNT]; /* vcpu_count of them, owned */
	/* What this host took over each exit; vcpu_count of them, owned. Without a sample:
	 * unavailable.
	 */
	struct exit_time (*times)[EXIT_CAUSES];
	bool is_interval; /* the shortest and longest are of all time, and so unavailable */
};

/* Makes room for the counts; all else is the caller's to fill. -ENOMEM. */
int stat_init(struct machine_stat *s, unsigned vcpu_count);
void stat_fini(struct machine_stat *s);

/* Puts a ledger's counts in place, and the profile's prices. */
void stat_take_ledger(struct machine_stat *s, unsigned vcpu, const struct ledger *l);
void stat_take_profile(struct machine_stat *s, const struct profile *p);

/* Over all vcpus. */
uint64_t stat_total(const struct machine_stat *s, enum event e);
struct exit_time stat_total_time(const struct machine_stat *s, enum event e);
/* What `now` counted since `before`; false if they are not of the same machine. `now` keeps the
 * difference. */
bool stat_subtract(struct machine_stat *now, const struct machine_stat *before);

/* NULL without memory. */
json_t *stat_to_json(const struct machine_stat *s);
/* -EINVAL with a message. Events that this program does not know are left out; those that the other
 * does not know are unavailable. */
int stat_from_json(struct machine_stat *s, const json_t *document, struct error *e);

/* Exits by cause, the most frequent first, in perf's layout with columns of prices; then what else
 * counts. With `wants_all` every counter. */
void stat_write_table(FILE *f, const struct machine_stat *s, bool wants_all);
/* How long exits took, cause by cause: how many in each power of two of nanoseconds. */
void stat_write_histogram(FILE *f, const struct machine_stat *s);
/* OpenMetrics 1.0, several machines in one document. */
void stat_write_openmetrics(FILE *f, const struct machine_stat *const *list, size_t count);
