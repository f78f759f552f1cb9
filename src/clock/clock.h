/*
 * The machine's time, in cycles of the guest's time-stamp counter, and the timers that wait for it.
 *
 * A cycle here is one tick of a counter of `hz` (the profile's frequency). With CLOCK_VIRTUAL the
 * run loop moves time: an instruction is a cycle, HLT jumps to the next deadline, and two runs see
 * the same time at the same instruction. With CLOCK_REAL time is the host's monotonic clock scaled
 * to `hz`. Devices only ask for the time and arm timers; they never learn which it is.
 *
 * Invariant: time never goes back, except that the run loop may rewind a virtual clock to the start
 * of a turn when it gives the same stretch of time to the next vcpu; no timer fires inside a turn.
 */
#pragma once

#include "base/types.h"
#include "clock/interpolation.h"

enum clock_kind { CLOCK_VIRTUAL, CLOCK_REAL };

struct timer {
	/* Called by clock_run_due() with the timer already disarmed; may arm it again.
	 * `deadline_cycles` is when it should have fired. */
	void (*fire)(void *opaque, uint64_t deadline_cycles);
	void *opaque; /* borrowed */
	uint64_t deadline_cycles;
	struct timer *next; /* sorted by (deadline, order of arming) */
	bool is_armed;
};

struct clock {
	enum clock_kind kind;
	uint64_t hz;
	uint64_t now_cycles;	      /* virtual kind: the time; real kind: the last time read */
	uint64_t real_start_ns;	      /* real kind: the host's monotonic time at cycle 0 */
	struct interpolation between; /* real kind, of two readings of the host's time */
	bool is_tsc;		      /* real kind: counts the host's TSC, which ticks at `hz` */
	uint64_t tsc_start;	      /* the host's TSC at cycle 0 */
	uint64_t wall_start_s;	      /* seconds since 1970 at cycle 0, what the RTC shows */
	struct timer *timers;	      /* armed ones, earliest first */
	struct timer *due; /* armed ones that clock_run_due() has taken and not fired yet */
	uint64_t changes;  /* counts arming and cancelling: the run loop notices a new earlier
			      deadline by it */
};

#define CLOCK_NEVER UINT64_MAX

/* Caller's storage. `hz` > 0. Virtual clocks start at wall time 2000-01-01 00:00:00 unless told;
 * real ones at the host's. */
void clock_init(struct clock *c, enum clock_kind kind, uint64_t hz);

/* Goes on from `now_cycles`, which a clock of the same `hz` had reached; the calendar, too, goes on
 * from there, however long the machine did not exist. No timer is armed yet. */
void clock_resume(struct clock *c, uint64_t now_cycles, uint64_t wall_start_s);

/* A real clock goes on with the host's TSC for its measure instead of the monotonic clock, which
 * runs apart from it by some millionths: for guests whose RDTSC reads the host's. `hz` is the TSC's
 * rate. */
void clock_follow_tsc(struct clock *c);
/* The host's TSC at cycle 0 of such a clock; it may lie before the host's own start. */
uint64_t clock_tsc_zero(const struct clock *c);

/* Now, in cycles since the machine was made. */
uint64_t clock_now(struct clock *c);

/* Virtual clocks only: sets the time. The engine calls it before anything that may look at the
 * time. */
static inline void clock_set(struct clock *c, uint64_t now_cycles)
{
	c->now_cycles = now_cycles;
}

/* Exact conversions (128-bit): cycles to nanoseconds rounds down, nanoseconds to cycles rounds up,
 * so that a timer armed for ns N never fires at a time that reads less than N. Both saturate at
 * UINT64_MAX. */
uint64_t clock_ns_from_cycles(const struct clock *c, uint64_t cycles);
uint64_t clock_cycles_from_ns(const struct clock *c, uint64_t ns);
/* ticks of an `other_hz` counter that have passed at `cycles`, rounded down; and the first cycle at
 * which `ticks` have passed. */
uint64_t clock_ticks_from_cycles(const struct clock *c, uint64_t other_hz, uint64_t cycles);
uint64_t clock_cycles_from_ticks(const struct clock *c, uint64_t other_hz, uint64_t ticks);

/* Arms or re-arms `t` (its fire and opaque set by the owner). A deadline in the past fires at the
 * next clock_run_due(). */
void timer_arm(struct clock *c, struct timer *t, uint64_t deadline_cycles);
/* Idempotent. */
void timer_cancel(struct clock *c, struct timer *t);

/* The earliest armed deadline, or CLOCK_NEVER. */
uint64_t clock_next_deadline(const struct clock *c);

/* Fires every timer whose deadline is at or before now, in order. */
void clock_run_due(struct clock *c);
