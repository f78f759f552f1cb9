/* Associative arrays against lists kept by hand: what is found, and who goes. */
#include "paging_world.h"

#include "paging/assoc.h"

#define WAYS_MAX 200u
#define SETS_MAX 64u

/* Each set a list of keys, the most recent first; 0: empty. */
struct naive {
	uint32_t sets, ways;
	uint64_t key[SETS_MAX][WAYS_MAX];
};

/* The place of `key` in its set; `ways` if it is not there. */
static uint32_t naive_find(const struct naive *n, uint64_t key)
{
	const uint64_t *set = n->key[(uint32_t)key % n->sets];
	uint32_t i = 0;
	while (i < n->ways && set[i] != key)
		i++;
	return i;
}

/* Puts `key` first, in place of the one at `at`. */
static void naive_use(struct naive *n, uint64_t key, uint32_t at)
{
	uint64_t *set = n->key[(uint32_t)key % n->sets];
	memmove(set + 1, set, at * sizeof(*set));
	set[0] = key;
}

static void naive_remove(struct naive *n, uint64_t key)
{
	uint64_t *set = n->key[(uint32_t)key % n->sets];
	uint32_t at = naive_find(n, key);
	memmove(set + at, set + at + 1, (n->ways - at - 1) * sizeof(*set));
	set[n->ways - 1] = 0;
}

static const struct {
	uint32_t entries, ways;
} shapes[] = {{64, 4}, {32, 2}, {16, 1},  {12, 3},   {48, 12}, {64, 16}, {17, 0},
	      {48, 0}, {64, 0}, {96, 24}, {130, 65}, {200, 0}, {1, 1},	 {3, 0}};

static void one_trace(unsigned shape)
{
	static struct naive n;
	struct world w = {.random = 77 + shape};
	struct assoc a;
	uint32_t ways = shapes[shape].ways ? shapes[shape].ways : shapes[shape].entries;
	uint64_t hits = 0, evictions = 0;
	assert_int_equal(assoc_init(&a, shapes[shape].entries, shapes[shape].ways, NULL), 0);
	memset(&n, 0, sizeof(n));
#ifdef GNOMON_HARD
	n.sets = 1;
	n.ways = shapes[shape].entries < 2 ? 1 : 2;
	(void)ways;
#else
	n.sets = shapes[shape].entries / ways;
	n.ways = ways;
#endif
	for (uint64_t now = 1; now < 60000; now++) {
		/* Pages that differ in low and in high bits, in two spaces. */
		uint64_t rest = world_below(&w, shapes[shape].entries * 5 / 4 + 2);
		rest |= (uint64_t)world_below(&w, 2) << 33;
		uint32_t space = 1 + world_below(&w, 2);
		uint64_t key = assoc_key(space, rest), other = assoc_key(3 - space, rest);
		uint32_t at = assoc_find(&a, rest, space, space), by_hand = naive_find(&n, key);
		assert_int_equal(at != ASSOC_NONE, by_hand < n.ways);
		assert_true(at == ASSOC_NONE || a.keys[at] == key);
		bool has_either = by_hand < n.ways || naive_find(&n, other) < n.ways;
		assert_int_equal(assoc_find(&a, rest, space, 3 - space) != ASSOC_NONE, has_either);
		if (at != ASSOC_NONE && world_chance(&w, 3)) {
			assoc_remove(&a, at);
			naive_remove(&n, key);
		} else if (at != ASSOC_NONE) {
			hits++;
			a.stamps[at] = now;
			naive_use(&n, key, by_hand);
		} else {
			at = assoc_victim(&a, rest);
			uint64_t last = n.key[(uint32_t)key % n.sets][n.ways - 1];
			evictions += last != 0;
			assert_true(a.keys[at] == last);
			assoc_put(&a, at, key, now);
			naive_use(&n, key, n.ways - 1);
		}
	}
	assert_true(hits > 100 && evictions > 100);
	assoc_clear(&a);
	for (uint32_t at = 0; at < assoc_slots(&a); at++)
		assert_true(a.keys[at] == 0 && a.stamps[at] == 0);
	assoc_fini(&a);
}

static void every_shape_finds_and_evicts_as_by_hand(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(shapes); i++)
		one_trace(i);
}

static void impossible_shapes_are_refused(void **state)
{
	struct assoc a;
	assert_int_equal(assoc_init(&a, 0, 0, NULL), -22);
	assert_int_equal(assoc_init(&a, 64, 5, NULL), -22);
	assert_int_equal(assoc_init(&a, 48, 4, NULL), -22); /* 12 sets */
	assert_int_equal(assoc_init(&a, ASSOC_ENTRIES_MAX + 1, 0, NULL), -22);
	assoc_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_shape_finds_and_evicts_as_by_hand),
		cmocka_unit_test(impossible_shapes_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
