/* Time and timers: 128-bit conversions so that nothing drifts, and one sorted list of timers (a
 * machine has a dozen). */
#include "clock/clock.h"
#include "base/host_time.h"

#include <time.h>
#include <x86intrin.h>

#define NS_PER_S 1000000000ull

/* a * b / divisor, exact, and what is left; UINT64_MAX if that is too large. Guests read the time
 * at every system call, so it is the processor's multiplication and division, not the compiler's of
 * 128 bits. */
static uint64_t scale(uint64_t a, uint64_t b, uint64_t divisor, uint64_t *rest)
{
	uint64_t low, high, quotient;
	*rest = 0;
	__asm__("mulq %3" : "=a"(low), "=d"(high) : "0"(a), "rm"(b) : "cc");
	if (high >= divisor)
		return UINT64_MAX;
	__asm__("divq %4"
		: "=a"(quotient), "=d"(*rest)
		: "0"(low), "1"(high), "rm"(divisor)
		: "cc");
	return quotient;
}

/* Rounded down or up. */
static uint64_t scale_down(uint64_t a, uint64_t b, uint64_t divisor)
{
	uint64_t rest;
	return scale(a, b, divisor, &rest);
}

static uint64_t scale_up(uint64_t a, uint64_t b, uint64_t divisor)
{
	uint64_t rest, quotient = scale(a, b, divisor, &rest);
	return quotient + (rest && quotient != UINT64_MAX);
}

void clock_init(struct clock *c, enum clock_kind kind, uint64_t hz)
{
	*c = (struct clock){.kind = kind, .hz = hz, .wall_start_s = 946684800};
	if (kind == CLOCK_REAL) {
		interpolation_init(&c->between);
		c->real_start_ns = host_time_ns();
		c->wall_start_s = (uint64_t)time(NULL);
	}
}

void clock_resume(struct clock *c, uint64_t now_cycles, uint64_t wall_start_s)
{
	c->now_cycles = now_cycles;
	c->wall_start_s = wall_start_s;
	interpolation_init(&c->between);
	/* May lie before the host's own start: the difference is what counts, modulo 2^64. */
	if (c->kind == CLOCK_REAL)
		c->real_start_ns = host_time_ns() - clock_ns_from_cycles(c, now_cycles);
	if (c->is_tsc)
		c->tsc_start = __rdtsc() - now_cycles;
}

void clock_follow_tsc(struct clock *c)
{
	c->tsc_start = __rdtsc() - clock_now(c);
	c->is_tsc = true;
}

uint64_t clock_tsc_zero(const struct clock *c)
{
	return c->tsc_start;
}

static uint64_t real_now(struct clock *c)
{
	uint64_t before = __rdtsc(), ticks = before - c->between.tsc;
	if (c->is_tsc)
		return before - c->tsc_start;
	if (likely(ticks < c->between.ticks))
		return interpolation_at(&c->between, ticks);
	uint64_t ns = host_time_ns(), after = __rdtsc();
	uint64_t now = clock_cycles_from_ns(c, ns - c->real_start_ns);
	interpolation_answer(&c->between, before, after, now);
	return now;
}

uint64_t clock_now(struct clock *c)
{
	if (c->kind == CLOCK_REAL) {
		uint64_t now = real_now(c);
		/* Never back, even if the caller's threads read the host's clock out of order. */
		if (now > c->now_cycles)
			c->now_cycles = now;
	}
	return c->now_cycles;
}

uint64_t clock_ns_from_cycles(const struct clock *c, uint64_t cycles)
{
	return scale_down(cycles, NS_PER_S, c->hz);
}

uint64_t clock_cycles_from_ns(const struct clock *c, uint64_t ns)
{
	return scale_up(ns, c->hz, NS_PER_S);
}

uint64_t clock_ticks_from_cycles(const struct clock *c, uint64_t other_hz, uint64_t cycles)
{
	return scale_down(cycles, other_hz, c->hz);
}

uint64_t clock_cycles_from_ticks(const struct clock *c, uint64_t other_hz, uint64_t ticks)
{
	return scale_up(ticks, c->hz, other_hz);
}

/* Takes `t` out of the list; false if it is not in it. */
static bool list_remove(struct timer **list, struct timer *t)
{
	for (; *list; list = &(*list)->next)
		if (*list == t) {
			*list = t->next;
			return true;
		}
	return false;
}

void timer_cancel(struct clock *c, struct timer *t)
{
	if (!t->is_armed)
		return;
	if (!list_remove(&c->timers, t))
		list_remove(&c->due, t);
	t->is_armed = false;
	t->next = NULL;
	c->changes++;
}

void timer_arm(struct clock *c, struct timer *t, uint64_t deadline_cycles)
{
	timer_cancel(c, t);
	struct timer **at = &c->timers;
	while (*at && (*at)->deadline_cycles <= deadline_cycles)
		at = &(*at)->next;
	t->deadline_cycles = deadline_cycles;
	t->is_armed = true;
	t->next = *at;
	*at = t;
	c->changes++;
}

uint64_t clock_next_deadline(const struct clock *c)
{
	return c->timers ? c->timers->deadline_cycles : CLOCK_NEVER;
}

/* What is due is moved aside first: a timer that arms itself in the past fires at the next call and
 * cannot keep this one from ending. */
void clock_run_due(struct clock *c)
{
	uint64_t now = clock_now(c);
	struct timer **end = &c->timers;
	while (*end && (*end)->deadline_cycles <= now)
		end = &(*end)->next;
	if (end == &c->timers)
		return;
	c->due = c->timers;
	c->timers = *end;
	*end = NULL;
	while (c->due) {
		struct timer *t = c->due;
		c->due = t->next;
		t->next = NULL;
		t->is_armed = false;
		t->fire(t->opaque, t->deadline_cycles);
	}
}
