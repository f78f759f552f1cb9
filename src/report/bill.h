/* The bill as numbers, before any format. Private to report/; tests look at it too. */
#pragma once

#include "report/report.h"

enum bill_side {
	SIDE_NONE,     /* counted; no price of its own, or not paid under this strategy */
	SIDE_NATIVE,   /* bare metal pays it too */
	SIDE_OVERHEAD, /* virtualization adds it */
	SIDE_COUNT
};

/* Thousandths of a cycle: a count of 64 bits times a price of 50. */
struct amount {
	unsigned __int128 millis;
};

struct bill_line {
	enum event event;
	enum bill_side side;
	const struct price *price; /* borrowed from the profile */
	bool is_unavailable;
	uint64_t count[RING_COUNT]; /* over all vcpus */
	struct amount cost;	    /* 0 for SIDE_NONE */
};

struct bill {
	const struct report_input *input; /* borrowed */
	struct bill_line line[EVENT_COUNT];
	struct amount side[SIDE_COUNT];
	struct amount total;			     /* native + overhead */
	struct amount basis[SIDE_COUNT][MARK_COUNT]; /* what of a side rests on which mark */
	struct amount group[SIDE_COUNT][GROUP_COUNT];
	bool closes; /* always; asserted */
};

void bill_make(struct bill *b, const struct report_input *input);

static inline uint64_t bill_count(const struct bill_line *l)
{
	return l->count[RING_KERNEL] + l->count[RING_USER];
}

/* What the strategy used and the profile's processor lacks ("nested paging"): the bill is what it
 * would cost if it had. NULL: nothing. */
const char *bill_hypothesis(const struct bill *b);

static inline bool bill_is_hypothetical(const struct bill *b)
{
	return bill_hypothesis(b) != NULL;
}

const char *bill_side_name(enum bill_side side);
/* "measured" (it happened), "modelled" (the hardware model says so), "unavailable". */
const char *bill_source_name(const struct bill_line *l);

/* a / b in percent; 0 for an empty b. */
double amount_percent(struct amount a, struct amount b);

/* Decimal cycles, with thousandths only where there are some; `separator` 0 for none. */
#define AMOUNT_TEXT_MAX 72
const char *amount_text(struct amount a, char separator, char text[AMOUNT_TEXT_MAX]);
const char *count_text(uint64_t count, char separator, char text[AMOUNT_TEXT_MAX]);
/* The price's marks: "T", "E", or "K+E" where its parts differ. */
const char *price_marks(const struct price *p, char text[8]);

/* The formats. 0 or -ENOMEM. */
int bill_write_table(FILE *out, const struct bill *b, bool is_fancy);
int bill_write_json(FILE *out, const struct bill *b);
int bill_write_csv(FILE *out, const struct bill *b);
