/* Hard mode's rations: constant at first, rarer and rarer, and nothing at all in a default build.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hard.h"

static void a_limit_doubles_up_to_the_full_one(void **state)
{
	(void)state;
#ifdef GNOMON_HARD
	assert_int_equal(hard_limit(8, 100, 0, 10), 8);
	assert_int_equal(hard_limit(8, 100, 9, 10), 8);
	assert_int_equal(hard_limit(8, 100, 10, 10), 16);
	assert_int_equal(hard_limit(8, 100, 39, 10), 64);
	assert_int_equal(hard_limit(8, 100, 40, 10), 100);
	assert_int_equal(hard_limit(8, 100, UINT64_MAX, 1), 100);
#else
	assert_int_equal(hard_limit(8, 100, 0, 10), 100);
#endif
}

/* Of the first thousand events each; of n about a thousand for every doubling. */
static void events_become_rare(void **state)
{
	unsigned early = 0, all = 0;
	(void)state;
	for (uint64_t n = 0; n < 1000; n++)
		early += hard_is_due(n, 1000);
	for (uint64_t n = 0; n < 1024000; n++)
		all += hard_is_due(n, 1000);
#ifdef GNOMON_HARD
	assert_int_equal(early, 1000);
	assert_in_range(all, 5000, 12000);
#else
	assert_int_equal(early + all, 0);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_limit_doubles_up_to_the_full_one),
		cmocka_unit_test(events_become_rare),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
