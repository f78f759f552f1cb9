/* The modelled data caches against a list kept by hand, for shapes of real processors and odd ones.
 */
#include "paging_world.h"

#include "paging/data_cache.h"

#define SETS_MAX 4096u
#define WAYS_MAX 64u

/* One level as a person would write it: each set a list of lines, the most recent first. */
struct naive {
	uint64_t sets, ways;
	uint64_t line[SETS_MAX][WAYS_MAX]; /* plus one; 0: empty */
};

static void naive_open(struct naive *n, const struct cache_array *a)
{
	memset(n, 0, sizeof(*n));
	if (!a->size_bytes)
		return;
	n->ways = a->ways;
	n->sets = a->size_bytes / 64 / a->ways;
#ifdef GNOMON_HARD
	n->ways = a->ways < 2 ? a->ways : 2;
	n->sets = 1;
#endif
	assert_true(n->sets <= SETS_MAX);
}

static bool naive_access(struct naive *n, uint64_t hpa)
{
	uint64_t line = hpa / 64, at = 0;
	uint64_t *set = n->line[line % n->sets];
	while (at < n->ways && set[at] != line + 1)
		at++;
	bool is_hit = at < n->ways;
	for (uint64_t i = is_hit ? at : n->ways - 1; i; i--)
		set[i] = set[i - 1];
	set[0] = line + 1;
	return is_hit;
}

static unsigned naive_answer(struct naive levels[CACHE_ARRAY_COUNT], uint64_t hpa)
{
	for (unsigned i = 0; i < CACHE_ARRAY_COUNT; i++)
		if (levels[i].sets && naive_access(&levels[i], hpa))
			return i;
	return CACHE_ARRAY_COUNT;
}

static const struct cache_geometry shapes[] = {
	{{{32 << 10, 8}, {256 << 10, 8}, {2 << 20, 16}}},
	{{{64 << 10, 2}, {512 << 10, 16}, {0, 0}}},		    /* K8: no L3 */
	{{{48 << 10, 12}, {80 << 10, 20}, {3 * 48 * 64 * 64, 48}}}, /* sets by threes */
	{{{16 << 10, 8}, {64 * 7 * 24, 24}, {0, 0}}},		    /* 7 sets */
	{{{64 * 3, 3}, {64 * 5, 5}, {64 * 64, 64}}},		    /* fully associative */
	{{{64, 1}, {128, 1}, {64 * 5 * 11, 11}}},		    /* direct mapped */
	{{{0, 0}, {0, 0}, {64 * 6 * 4, 6}}},			    /* L3 alone */
	{{{0, 0}, {0, 0}, {0, 0}}},				    /* memory alone */
};

/* Addresses with locality at every scale, so that every level answers. */
static uint64_t some_address(struct world *w, uint64_t *last)
{
	unsigned what = world_below(w, 10);
	if (what < 3)
		return *last;
	if (what < 5)
		*last += 64;
	else if (what < 8)
		*last = world_below(w, 1u << (8 + world_below(w, 16)));
	else
		*last = world_random(w) & ((1ull << 37) - 1);
	return *last;
}

static void every_access_is_answered_as_by_hand(void **state)
{
	struct naive *levels = malloc(CACHE_ARRAY_COUNT * sizeof(*levels));
	for (unsigned s = 0; s < ARRAY_COUNT(shapes); s++) {
		struct world w = {.random = 11 + s};
		struct data_cache *c;
		uint64_t last = 0, answered[CACHE_ARRAY_COUNT + 1] = {0};
		assert_int_equal(data_cache_create(&c, &shapes[s], NULL), 0);
		for (unsigned i = 0; i < CACHE_ARRAY_COUNT; i++)
			naive_open(&levels[i], &shapes[s].level[i]);
		for (unsigned i = 0; i < 200000; i++) {
			uint64_t hpa = some_address(&w, &last);
			unsigned expected = naive_answer(levels, hpa);
			answered[expected]++;
			assert_int_equal(data_cache_access(c, hpa), expected);
		}
#ifndef GNOMON_HARD /* where all levels have two lines */
		for (unsigned i = 0; i < CACHE_ARRAY_COUNT; i++)
			assert_int_equal(answered[i] != 0, levels[i].sets != 0);
#endif
		assert_true(answered[CACHE_ARRAY_COUNT]);
		data_cache_destroy(c);
	}
	free(levels);
}

static void a_flush_empties_every_level(void **state)
{
	struct data_cache *c;
	assert_int_equal(data_cache_create(&c, &shapes[0], NULL), 0);
	assert_int_equal(data_cache_access(c, 0x1040), CACHE_ARRAY_COUNT);
	assert_int_equal(data_cache_access(c, 0x107f), 0); /* the same line */
	assert_int_equal(data_cache_access(c, 0x1080), CACHE_ARRAY_COUNT);
	data_cache_flush(c);
	assert_int_equal(data_cache_access(c, 0x1040), CACHE_ARRAY_COUNT);
	data_cache_destroy(c);
}

static void impossible_shapes_are_refused(void **state)
{
	static const struct cache_array bad[] = {
		{32 << 10, 0}, {32 << 10, 5}, {(32 << 10) + 32, 1},
		{65 * 64, 65}, {32, 1},	      {1ull << 40, 1},
	};
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
		for (unsigned level = 0; level < CACHE_ARRAY_COUNT; level++) {
			struct cache_geometry g = shapes[0];
			struct data_cache *c;
			struct error e = {0};
			g.level[level] = bad[i];
			assert_int_equal(data_cache_create(&c, &g, &e), -22);
			assert_null(c);
			assert_non_null(strstr(e.text, "is not a shape a cache has"));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_access_is_answered_as_by_hand),
		cmocka_unit_test(a_flush_empties_every_level),
		cmocka_unit_test(impossible_shapes_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
