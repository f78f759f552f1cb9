/* The ledger's words and sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ledger/exit_times.h"
#include "ledger/ledger.h"

static void test_names_find_their_events(void **state)
{
	for (int e = 0; e < EVENT_COUNT; e++) {
		assert_int_equal(event_from_name(event_name((enum event)e)), e);
		assert_true(strlen(event_text((enum event)e)) > 2);
	}
	assert_int_equal(event_from_name("exit.cpuidd"), -1);
	assert_int_equal(event_from_name(""), -1);
}

static void test_groups_hold_each_event_once(void **state)
{
	unsigned seen[EVENT_COUNT] = {0};

	for (int g = 0; g < GROUP_COUNT; g++) {
		int last = -1;

		assert_non_null(event_group_name((enum event_group)g));
		for (int e = event_first((enum event_group)g); e >= 0; e = event_next(e)) {
			assert_true(e > last);
			assert_int_equal(event_group((enum event)e), g);
			seen[e]++;
			last = e;
		}
	}
	for (int e = 0; e < EVENT_COUNT; e++)
		assert_int_equal(seen[e], 1);
}

/* event_is_exit() asks for a range: the group must be just that range, in names too. */
static void test_exits_are_one_run_of_the_list(void **state)
{
	for (int e = 0; e < EVENT_COUNT; e++) {
		bool is_exit = event_group((enum event)e) == GROUP_EXIT;

		assert_int_equal(event_is_exit((enum event)e), is_exit);
		assert_int_equal(!strncmp(event_name((enum event)e), "exit.", 5), is_exit);
	}
}

/* report/ finds a walk's level and dimension by position. */
static void test_walk_levels_stand_in_order(void **state)
{
	static const char *const last[] = {"walk.guest.l5", "walk.host.l5", "walk.shadow.l5"};

	for (int d = 0; d < 3; d++)
		assert_string_equal(event_name((enum event)(EVENT_WALK_G1 + 5 * d + 4)), last[d]);
}

static void test_charges_go_to_the_ring_that_runs(void **state)
{
	struct ledger l = {.ring = RING_USER}, sum = {0};

	ledger_charge(&l, EVENT_EXIT_CPUID);
	l.ring = RING_KERNEL;
	ledger_charge_many(&l, EVENT_EXIT_CPUID, 41);
	ledger_charge(&l, EVENT_EXIT_HLT);
	assert_int_equal(l.count[EVENT_EXIT_CPUID][RING_USER], 1);
	assert_int_equal(l.count[EVENT_EXIT_CPUID][RING_KERNEL], 41);
	assert_int_equal(ledger_total(&l, EVENT_EXIT_CPUID), 42);
	assert_int_equal(ledger_group_total(&l, GROUP_EXIT), 43);
	assert_int_equal(ledger_group_total(&l, GROUP_WALK), 0);
	ledger_add(&sum, &l);
	ledger_add(&sum, &l);
	assert_int_equal(ledger_group_total(&sum, GROUP_EXIT), 86);
	assert_int_equal(sum.count[EVENT_EXIT_CPUID][RING_USER], 2);
}

static void test_times_go_to_their_bucket(void **state)
{
	struct exit_time t = {0}, other = {0};

	exit_time_sample(&t, 100);
	exit_time_sample(&t, 0);
	exit_time_sample(&t, 127);
	exit_time_sample(&t, 128);
	assert_int_equal(t.buckets[0], 1);
	assert_int_equal(exit_time_bound_ns(3), 128);
	assert_int_equal(t.buckets[3], 2);
	assert_int_equal(t.buckets[4], 1);
	exit_time_sample(&other, 1000000000000);
	assert_int_equal(other.buckets[EXIT_TIME_BUCKETS - 1], 1);
	assert_int_equal(exit_time_bound_ns(EXIT_TIME_BUCKETS - 1), UINT64_MAX);
	exit_time_merge(&t, &other);
	assert_int_equal(t.count, 5);
	assert_int_equal(t.min_ns, 0);
	assert_int_equal(t.max_ns, 1000000000000);
	assert_int_equal(t.sum_ns, 1000000000355);
	exit_time_subtract(&t, &other);
	assert_int_equal(t.count, 4);
	assert_int_equal(t.sum_ns, 355);
	assert_int_equal(t.buckets[EXIT_TIME_BUCKETS - 1], 0);
}

/* 2, 4, 4, 4, 5, 5, 7, 9: mean 5, standard deviation (n - 1) 2.138; of the mean 0.756, which is
 * 15.12 %. */
static void test_times_deviate_as_perf_computes(void **state)
{
	static const uint64_t ns[] = {2, 4, 4, 4, 5, 5, 7, 9};
	struct exit_time t = {0};

	for (size_t i = 0; i < ARRAY_COUNT(ns); i++) {
		assert_true(i > 1 || exit_time_error_percent(&t) == 0);
		exit_time_sample(&t, ns[i]);
	}
	assert_in_range((int)(exit_time_error_percent(&t) * 100), 1511, 1512);
}

/* Nothing is measured without a rate, and no exit that was none; HLT lasts until it is ended. */
static void test_exits_are_timed_from_begin_to_end(void **state)
{
	struct exit_times times = {0};
	struct ledger l = {.times = &times};
	const struct exit_time *hlt = &times.of[EVENT_EXIT_HLT - EVENT_EXIT_CR_READ];

	assert_int_equal(ledger_exit_begin(&(struct ledger){0}), 0);
	assert_int_equal(ledger_exit_begin(&l), 0);
	exit_times_set_rate(&times, 3, 1);
	assert_int_equal(times.ns_per_tick, (1ull << 32) / 3);
	uint64_t start = ledger_exit_begin(&l);
	assert_int_not_equal(start, 0);
	ledger_exit_end(&l, EVENT_COUNT, start);
	ledger_exit_end(&l, EVENT_EXIT_CPUID, 0);
	ledger_exit_end(&l, EVENT_EXIT_CPUID, UINT64_MAX); /* another processor's counter */
	assert_int_equal(times.of[EVENT_EXIT_CPUID - EVENT_EXIT_CR_READ].count, 0);
	ledger_exit_end(&l, EVENT_EXIT_CPUID, start);
	assert_int_equal(times.of[EVENT_EXIT_CPUID - EVENT_EXIT_CR_READ].count, 1);
	ledger_halt_begin(&l);
	assert_int_equal(hlt->count, 0);
	ledger_halt_end(&l);
	ledger_halt_end(&l);
	assert_int_equal(hlt->count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_find_their_events),
		cmocka_unit_test(test_groups_hold_each_event_once),
		cmocka_unit_test(test_exits_are_one_run_of_the_list),
		cmocka_unit_test(test_walk_levels_stand_in_order),
		cmocka_unit_test(test_charges_go_to_the_ring_that_runs),
		cmocka_unit_test(test_times_go_to_their_bucket),
		cmocka_unit_test(test_times_deviate_as_perf_computes),
		cmocka_unit_test(test_exits_are_timed_from_begin_to_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
