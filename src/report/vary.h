/*
 * How a verdict depends on one uncertain number.
 *
 * Cost is linear in every price and every latency, so the totals of several schemes over one run
 * are straight lines over the number, and where two of them cross is solved, not searched. The
 * answer to "is nested paging better here?" is then often "below 1840 cycles an exit, no": the
 * break-even point, which is worth more than two totals when the price is an estimate.
 */
#pragma once

#include "report/bill.h"

#define VARY_STEPS_DEFAULT 4
#define VARY_STEPS_MAX 1000

/* "KEY=LO..HI[:STEPS]", as --vary takes it; KEY as profile_find_knob() says. */
struct vary {
	char key[80];
	uint64_t low_millis, high_millis; /* low < high */
	unsigned steps;			  /* points - 1 */
};

/* -EINVAL with what is wrong and the form. */
int vary_parse(struct vary *v, const char *text, struct error *e);

/* Between `low` and `high` the order changes: below `value` `before` is cheaper, above it `after`.
 */
struct vary_crossing {
	double value; /* cycles */
	unsigned before, after;
};

/* The cheapest scheme of a stretch; the stretches fill the range. */
struct vary_stretch {
	double from, to;
	unsigned scheme;
};

struct vary_result {
	struct vary vary;
	uint64_t stated_millis; /* what the profile says */
	enum mark mark;		/* and how well that is founded */
	unsigned scheme_count, point_count;
	uint64_t *point;      /* point_count values, x 1000 */
	struct amount *total; /* [point * scheme_count + scheme] */
	struct vary_crossing *crossing;
	unsigned crossing_count; /* in ascending order of value */
	struct vary_stretch *stretch;
	unsigned stretch_count; /* at least 1 */
};

/*
 * The schemes are bills-to-be of one run: same profile, one ledger set each. The result is the
 * caller's, for vary_free(); `schemes` is not kept. -EINVAL where the key or the range does not fit
 * the profile, -ENOMEM.
 */
int vary_run(const struct report_input *schemes, unsigned scheme_count, const struct vary *v,
	     struct vary_result **out, struct error *e);
void vary_free(struct vary_result *r);

/* `names` are the schemes' (scheme_count of them). The table is for people; the object is
 * {key, unit, stated, class, points: [{value, totals: {NAME: cycles}}], crossings, cheapest}. */
void vary_write_table(FILE *out, const struct vary_result *r, const char *const *names);
/* NULL without memory; the caller's. */
struct json_t *vary_json(const struct vary_result *r, const char *const *names);
