/* The clock: exact conversions, timer order, and timers that touch each other while they fire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/host_time.h"
#include "clock/clock.h"

#include <cmocka.h>

struct event_log {
	char text[32];
	struct clock *clock;
	struct timer *other;
	uint64_t rearm_at;
};

struct named_timer {
	struct timer timer;
	struct event_log *log;
	char name;
};

static void fire_named(void *opaque, uint64_t deadline_cycles)
{
	struct named_timer *t = opaque;
	size_t n = strlen(t->log->text);
	if (n + 1 < sizeof(t->log->text))
		t->log->text[n] = t->name;
	if (t->name == 'x')
		timer_cancel(t->log->clock, t->log->other);
	if (t->name == 'r')
		timer_arm(t->log->clock, &t->timer, t->log->rearm_at);
}

static void name_timer(struct named_timer *t, struct event_log *log, char name)
{
	*t = (struct named_timer){
		.timer = {.fire = fire_named, .opaque = t}, .log = log, .name = name};
}

static void test_conversions(void **state)
{
	struct clock c;
	clock_init(&c, CLOCK_VIRTUAL, 2350000000);
	assert_int_equal(clock_now(&c), 0);
	assert_int_equal(c.wall_start_s, 946684800);
	assert_int_equal(clock_ns_from_cycles(&c, 2350000000), 1000000000);
	assert_int_equal(clock_cycles_from_ns(&c, 1), 3);
	for (uint64_t ns = 0; ns < 1000; ns++) {
		uint64_t cycles = clock_cycles_from_ns(&c, ns);
		assert_true(clock_ns_from_cycles(&c, cycles) >= ns);
		assert_true(!cycles || clock_ns_from_cycles(&c, cycles - 1) < ns);
	}
	for (uint64_t ticks = 1; ticks < 1000; ticks++) {
		uint64_t cycles = clock_cycles_from_ticks(&c, 1193182, ticks);
		assert_int_equal(clock_ticks_from_cycles(&c, 1193182, cycles), ticks);
		assert_int_equal(clock_ticks_from_cycles(&c, 1193182, cycles - 1), ticks - 1);
	}
	assert_true(clock_cycles_from_ns(&c, UINT64_MAX) == UINT64_MAX);
	/* A hundred years without drift or overflow. */
	uint64_t century = 3155760000ull * 2350000000ull;
	assert_int_equal(clock_ticks_from_cycles(&c, 3579545, century), 3155760000ull * 3579545ull);
}

static void test_order(void **state)
{
	struct clock c;
	struct event_log log = {.clock = &c};
	struct named_timer a, b, d;
	clock_init(&c, CLOCK_VIRTUAL, 1000);
	name_timer(&a, &log, 'a');
	name_timer(&b, &log, 'b');
	name_timer(&d, &log, 'd');
	assert_true(clock_next_deadline(&c) == CLOCK_NEVER);
	timer_arm(&c, &d.timer, 30);
	timer_arm(&c, &a.timer, 10);
	timer_arm(&c, &b.timer, 10);
	assert_int_equal(clock_next_deadline(&c), 10);
	clock_set(&c, 9);
	clock_run_due(&c);
	assert_string_equal(log.text, "");
	clock_set(&c, 100);
	clock_run_due(&c);
	assert_string_equal(log.text, "abd");
	assert_false(a.timer.is_armed);
	assert_true(clock_next_deadline(&c) == CLOCK_NEVER);
	uint64_t changes = c.changes;
	timer_arm(&c, &a.timer, 200);
	timer_arm(&c, &a.timer, 150);
	assert_int_equal(clock_next_deadline(&c), 150);
	timer_cancel(&c, &a.timer);
	timer_cancel(&c, &a.timer);
	assert_true(c.changes > changes);
	assert_null(c.timers);
}

static void test_timers_that_touch_timers(void **state)
{
	struct clock c;
	struct event_log log = {.clock = &c, .rearm_at = 1};
	struct named_timer x, v, r;
	clock_init(&c, CLOCK_VIRTUAL, 1000);
	name_timer(&x, &log, 'x');
	name_timer(&v, &log, 'v');
	name_timer(&r, &log, 'r');
	log.other = &v.timer;
	timer_arm(&c, &x.timer, 1);
	timer_arm(&c, &v.timer, 2);
	timer_arm(&c, &r.timer, 3);
	clock_set(&c, 10);
	clock_run_due(
		&c); /* x takes v away although both were due; r rearms in the past, once a call */
	assert_string_equal(log.text, "xr");
	clock_run_due(&c);
	assert_string_equal(log.text, "xrr");
	assert_false(v.timer.is_armed);
	assert_true(r.timer.is_armed);
}

static void test_real(void **state)
{
	struct clock c;
	clock_init(&c, CLOCK_REAL, 1000000000);
	uint64_t before = clock_now(&c);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t now = clock_now(&c);
		assert_true(now >= before);
		before = now;
	}
	assert_true(c.wall_start_s > 946684800);
}

/* Answers as of a clock that ticks 3 cycles for 2 of the TSC. */
#define EVENLY(p, tsc) interpolation_answer(p, tsc, (tsc) + 100, ((tsc) + 100) / 2 * 3)

static void test_interpolation(void **state)
{
	const uint64_t start = 1ull << 40, long_ago = 1ull << 26;
	struct interpolation p = {0};
	EVENLY(&p, start);
	EVENLY(&p, start + 1000);
	assert_int_equal(p.ticks, 0); /* no rate yet */
	EVENLY(&p, start + long_ago);
	assert_true(p.ticks > 1000);
	assert_int_equal(interpolation_at(&p, 1000), (start + long_ago + 100) / 2 * 3 + 1500);
	/* Something ran between the clock and the TSC: it says nothing about either. */
	interpolation_answer(&p, start + long_ago, start + 2 * long_ago, 5);
	assert_int_equal(p.ticks, 0);
	EVENLY(&p, start + 3 * long_ago);
	assert_true(p.ticks > 1000);
	/* The TSC ticks otherwise: the rate is measured anew. */
	uint64_t then = start + 3 * long_ago + 100, cycles = then / 2 * 3;
	interpolation_answer(&p, then + long_ago, then + long_ago, cycles + long_ago);
	assert_int_equal(p.ticks, 0);
	interpolation_answer(&p, then + 2 * long_ago, then + 2 * long_ago, cycles + 2 * long_ago);
	assert_true(p.ticks > 1000);
	assert_int_equal(interpolation_at(&p, 1000), cycles + 2 * long_ago + 1000);
	/* One that does not tick evenly is not asked. */
	struct interpolation never = {.is_impossible = true};
	EVENLY(&never, start);
	EVENLY(&never, start + long_ago);
	assert_int_equal(never.ticks, 0);
}

/* A clock that counts in between never strays from the host's. */
static void test_real_in_between(void **state)
{
	const uint64_t hz = 3500000000u;
	struct clock c;
	clock_init(&c, CLOCK_REAL, hz);
	uint64_t start = host_time_ns(), last = 0, now_ns;
	do {
		uint64_t before = host_time_ns(), now = clock_now(&c);
		now_ns = host_time_ns();
		assert_true(now >= last);
		last = now;
		/* Between the readings around it, give or take 20 microseconds. */
		assert_true(clock_ns_from_cycles(&c, now) + c.real_start_ns + 20000 >= before);
		assert_true(clock_ns_from_cycles(&c, now) + c.real_start_ns <= now_ns + 20000);
	} while (now_ns < start + 100000000);
}

/* A clock that goes on, virtual or real, goes on from where the other was. */
static void test_resume(void **state)
{
	const uint64_t hour = 3600ull * 1000000000;
	struct clock c;
	clock_init(&c, CLOCK_VIRTUAL, 1000000000);
	clock_resume(&c, hour, 5);
	assert_true(clock_now(&c) == hour);
	assert_true(c.wall_start_s == 5);
	clock_init(&c, CLOCK_REAL, 1000000000);
	clock_resume(&c, hour, 5);
	uint64_t now = clock_now(&c);
	assert_true(now >= hour && now < hour + hour / 10);
	assert_true(clock_now(&c) >= now);
	/* Longer than the host is up: the start lies before its zero. */
	clock_resume(&c, 20000000 * (hour / 3600), 5);
	assert_true(clock_now(&c) >= 20000000 * (hour / 3600));
	assert_true(c.wall_start_s == 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conversions),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_timers_that_touch_timers),
		cmocka_unit_test(test_real),
		cmocka_unit_test(test_interpolation),
		cmocka_unit_test(test_real_in_between),
		cmocka_unit_test(test_resume),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
