/*
 * What `gnomon top` shows: the machines that run, and what one of them or all together count, as
 * lines of text. The samples come in, the text goes out; where it is shown is top.c's business.
 */
#pragma once

#include <regex.h>
#include <stdio.h>

#include "cli/machines.h"
#include "report/stat.h"

enum top_order { TOP_BY_RATE, TOP_BY_TOTAL, TOP_BY_COST, TOP_ORDER_COUNT };

/* One machine: since when its totals count, the sample before and the present one. */
struct top_machine {
	struct machine_stat base, before, now;
	bool is_new; /* has no `before` yet */
};

struct top_view {
	struct top_machine *machines;
	unsigned count;
	enum top_order order;
	bool wants_vcpus;   /* the events' rates by vcpu, too */
	bool hides_events;  /* the machines alone */
	char selected[128]; /* whose events; "" for all machines together */
	bool has_filter;
	regex_t filter; /* of the events' names */
	char message[200];
};

void top_view_fini(struct top_view *v);
/* Takes a sample of every machine that answers. */
int top_view_sample(struct top_view *v, struct error *e);
/* Totals count from now on. */
void top_view_reset(struct top_view *v);
/* The machine of that process alone; all for "". False: there is none. */
bool top_view_select_pid(struct top_view *v, const char *pid);
/* "" takes the filter away. False: no regular expression. */
bool top_view_filter(struct top_view *v, const char *text);
/* At most `row_count` lines of events. */
void top_view_print(const struct top_view *v, FILE *f, unsigned row_count);
