/*
 * Changing one number of a profile: the ground of "what if this price were another".
 *
 * Only numbers that counts do not depend on can be changed after a run: prices and latencies. The
 * shape of a TLB or a cache decides which events happen, so it is refused. report/vary.h asks how
 * totals move; cli/ passes the user's words.
 */
#pragma once

#include "hw/hw.h"

enum knob_kind { KNOB_PRICE, KNOB_EXITS, KNOB_LATENCY };

/* One number of a profile that can be turned. */
struct knob {
	enum knob_kind kind;
	int index;	      /* the event, or the cache level */
	enum price_part part; /* of a price; of "exit.*" */
	uint64_t millis;      /* what the profile says: cycles x 1000 */
	enum mark mark;	      /* how well that is founded */
	uint64_t min_millis, max_millis;
};

/*
 * Finds what `key` names in the profile: "exit.pf_hidden.transition", "shadow.fill",
 * "exit.*.handling" (the exits that state none of their own), "caches.dram"; also with "prices."
 * before it and as `gnomon profile show` writes it. -EINVAL with the reason.
 */
int profile_find_knob(const struct profile *p, const char *key, struct knob *out, struct error *e);

/* Turns it: `p` is the caller's copy (a struct profile may be copied to change prices; the copy
 * borrows from the original and is not destroyed). `millis` is within the knob's bounds. */
void profile_turn(struct profile *p, const struct knob *k, uint64_t millis);
