/* The oracle against every way through a few samples, and on a run whose best way is plain to see.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compare_world.h"

static struct compare_world world;

static int set_up(void **state)
{
	(void)state;
	return compare_world_init(&world);
}

static int tear_down(void **state)
{
	(void)state;
	compare_world_fini(&world);
	return 0;
}

static void make(struct compare *c, const struct compare_input *in)
{
	struct error e = {0};
	assert_int_equal(compare_init(c, in, &e), 0);
}

static unsigned __int128 total(size_t sample, unsigned scheme)
{
	return series_at(&world.series, sample, scheme)->total.millis;
}

/* The chase under a shadow, the forks under nested paging: one change, paid for. */
static void test_changes_where_the_run_does(void **state)
{
	struct compare c;
	(void)state;
	make(&c, &world.input);
	for (unsigned g = 0; g < WORLD_PROFILES; g++) {
		const struct oracle *o = &c.groups[g].oracle;
		unsigned nested = g * WORLD_STRATEGIES + 1, shadow = g * WORLD_STRATEGIES + 2;
		size_t half = WORLD_STEPS / 2 - 1;
		assert_true(o->is_known);
		assert_int_equal(o->change_count, 1);
		assert_int_equal(o->instructions[1], 20000000);
		assert_int_equal(o->instructions[2] + o->instructions[3], 20000000);
		assert_true(o->total.millis == total(half, shadow) + 50000 * MILLIS_PER_CYCLE +
						       total(WORLD_STEPS - 1, nested) -
						       total(half, nested));
	}
	compare_fini(&c);
}

/* Where a change costs more than it saves it is the best fixed strategy. */
static void test_stays_where_changes_are_dear(void **state)
{
	struct compare c;
	(void)state;
	world.profiles[0]->price[EVENT_PAGING_SWITCH].part[PRICE_SOFTWARE].millis =
		1000000000 * MILLIS_PER_CYCLE;
	make(&c, &world.input);
	const struct compare_group *g = &c.groups[0];
	unsigned __int128 best = c.rows[1].bill.total.millis;
	for (unsigned i = 2; i < 4; i++)
		if (c.rows[i].bill.total.millis < best)
			best = c.rows[i].bill.total.millis;
	assert_int_equal(g->oracle.change_count, 0);
	assert_true(g->oracle.total.millis == best);
	compare_fini(&c);
}

#define FEW 6u /* samples */

/* What a way costs whose base-3 digits name the scheme of each sample. */
static unsigned __int128 cost_of_way(unsigned way, unsigned __int128 change)
{
	unsigned __int128 sum = 0;
	unsigned before = ~0u;
	for (size_t n = 0; n < FEW; n++, way /= 3) {
		unsigned scheme = 1 + way % 3;
		sum += total(n, scheme) - (n ? total(n - 1, scheme) : 0);
		sum += before != ~0u && before != scheme ? change : 0;
		before = scheme;
	}
	return sum;
}

static void test_no_way_is_cheaper(void **state)
{
	uint64_t random = 7;
	(void)state;
	world.input.scheme_count = WORLD_STRATEGIES;
	world.series.count = FEW;
	for (unsigned round = 0; round < 200; round++) {
		struct compare c;
		uint64_t dear = round % 20 * 10000;
		world.profiles[0]->price[EVENT_PAGING_SWITCH].part[PRICE_SOFTWARE].millis = dear;
		for (unsigned s = 0; s < WORLD_STRATEGIES; s++) {
			unsigned __int128 sum = 0;
			for (size_t n = 0; n < FEW; n++) {
				random = random * 6364136223846793005ull + 1442695040888963407ull;
				sum += (random >> 33) % 300000;
				world.series.points[n * world.series.scheme_count + s]
					.total.millis = sum;
			}
		}
		make(&c, &world.input);
		unsigned __int128 best = cost_of_way(0, dear);
		for (unsigned way = 1; way < 729; way++)
			if (cost_of_way(way, dear) < best)
				best = cost_of_way(way, dear);
		assert_true(c.groups[0].oracle.total.millis == best);
		compare_fini(&c);
	}
}

static void test_unknown_without_samples_or_choices(void **state)
{
	struct compare c;
	(void)state;
	world.input.series = NULL;
	make(&c, &world.input);
	assert_false(c.groups[0].oracle.is_known);
	compare_fini(&c);
	world.input.series = &world.series;
	world.input.scheme_count = 1;
	world.input.primary = 0;
	make(&c, &world.input);
	assert_false(c.groups[0].oracle.is_known);
	compare_fini(&c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_changes_where_the_run_does),
		TEST(test_stays_where_changes_are_dear),
		TEST(test_no_way_is_cheaper),
		TEST(test_unknown_without_samples_or_choices),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
