/* The ledger's words and sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_find_their_events),
		cmocka_unit_test(test_groups_hold_each_event_once),
		cmocka_unit_test(test_exits_are_one_run_of_the_list),
		cmocka_unit_test(test_walk_levels_stand_in_order),
		cmocka_unit_test(test_charges_go_to_the_ring_that_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
