/*
 * The comparison: it closes by cause for every ledger; its verdict is the cheapest and the dearest;
 * what people and programs read is pinned (GNOMON_GOLDEN=write rewrites); the JSON alone suffices
 * to make the sums again.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <cmocka.h>

#include "compare_world.h"
#include "golden.h"

static struct compare_world world;

static int set_up(void **state)
{
	return compare_world_init(&world);
}

static int tear_down(void **state)
{
	compare_world_fini(&world);
	return 0;
}

static void make(struct compare *c, const struct compare_input *in)
{
	struct error e = {0};

	if (compare_init(c, in, &e))
		fail_msg("%s", e.text);
}

static char *write_text(enum compare_format format, const struct compare *c, bool is_fancy)
{
	struct error e = {0};
	char *text = NULL;
	size_t size_bytes;
	FILE *f = open_memstream(&text, &size_bytes);

	assert_int_equal(compare_write(f, format, c, is_fancy, &e), 0);
	fclose(f);
	return text;
}

static uint64_t next_random(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	return z ^ (z >> 27);
}

/* The law, summed event by event from ledgers and prices, not from bills. */
static void check_row(const struct compare *c, const struct compare_group *g, unsigned i)
{
	const struct compare_row *native = compare_native(c, g), *r = &c->rows[i];
	__int128 by_cause[CAUSE_COUNT] = {0}, beyond = 0;

	for (int e = 0; e < EVENT_COUNT; e++) {
		__int128 price = price_millis(&g->profile->price[e]);
		const struct ledger *mine = r->scheme->ledgers[0];
		const struct ledger *base = native->scheme->ledgers[0];

		if (r->bill.line[e].side != SIDE_NONE)
			by_cause[compare_cause_of((enum event)e)] +=
				price * ledger_total(mine, (enum event)e);
		if (native->bill.line[e].side != SIDE_NONE)
			by_cause[compare_cause_of((enum event)e)] -=
				price * ledger_total(base, (enum event)e);
	}
	for (int cause = 0; cause < CAUSE_COUNT; cause++) {
		assert_true(r->cause[cause].millis == by_cause[cause]);
		beyond += by_cause[cause];
	}
	assert_true((__int128)r->bill.total.millis == (__int128)native->bill.total.millis + beyond);
	assert_true(r->beyond.millis == beyond);
}

static void test_random_ledgers_close_by_cause(void **state)
{
	uint64_t seed = 7;

	for (unsigned round = 0; round < 200; round++) {
		struct compare c;

		for (unsigned s = 0; s < WORLD_SCHEMES; s++)
			for (int e = 0; e < EVENT_COUNT; e++)
				for (int r = 0; r < RING_COUNT; r++)
					world.ledgers[s].count[e][r] = next_random(&seed) >>
								       (30 + round % 30);
		make(&c, &world.input);
		assert_true(c.closes);
		for (unsigned g = 0; g < c.group_count; g++)
			for (unsigned i = 0; i < c.groups[g].count; i++)
				check_row(&c, &c.groups[g], c.groups[g].first + i);
		compare_fini(&c);
	}
}

static void test_every_event_has_one_cause(void **state)
{
	assert_int_equal(compare_cause_of(EVENT_WALK_H3), CAUSE_WALK);
	assert_int_equal(compare_cause_of(EVENT_REF_SHADOW_DRAM), CAUSE_WALK);
	assert_int_equal(compare_cause_of(EVENT_TLB2_HIT), CAUSE_TLB);
	assert_int_equal(compare_cause_of(EVENT_EXIT_CR3_WRITE), CAUSE_CR3_WRITE);
	assert_int_equal(compare_cause_of(EVENT_EXIT_CPUID), CAUSE_OTHER_EXIT);
	assert_int_equal(compare_cause_of(EVENT_SHADOW_SYNC), CAUSE_PAGING);
	assert_int_equal(compare_cause_of(EVENT_INSTRUCTION), CAUSE_REST);
	assert_int_equal(compare_cause_of(EVENT_GUEST_PAGE_FAULT), CAUSE_REST);
	/* Only what a strategy makes happen, exits that it cannot avoid, and the rest. */
	for (int e = 0; e < EVENT_COUNT; e++) {
		enum compare_cause c = compare_cause_of((enum event)e);
		bool is_shared = c == CAUSE_REST || c == CAUSE_OTHER_EXIT;

		assert_int_equal(event_is_translation((enum event)e), !is_shared);
	}
}

static const char *name_of(const struct compare *c, unsigned row)
{
	return row == COMPARE_NONE ? "" : c->rows[row].scheme->strategy;
}

static void test_verdict(void **state)
{
	struct compare c;

	make(&c, &world.input);
	assert_int_equal(c.group_count, WORLD_PROFILES);
	for (unsigned g = 0; g < c.group_count; g++) {
		const struct compare_group *group = &c.groups[g];
		const struct compare_row *native = compare_native(&c, group);

		assert_string_equal(native->scheme->strategy, "native");
		assert_true(native->beyond.millis == 0);
		assert_string_equal(name_of(&c, group->best), "adaptive");
		assert_string_equal(name_of(&c, group->worst), "shadow");
		assert_string_equal(name_of(&c, group->best_shadow), "shadow-cache:sync=oos");
		assert_string_equal(name_of(&c, group->nested), "nested:host-page=2M");
		for (unsigned i = group->first + 1; i < group->first + group->count; i++) {
			assert_true(c.rows[group->best].bill.total.millis <=
				    c.rows[i].bill.total.millis);
			assert_true(c.rows[group->worst].bill.total.millis >=
				    c.rows[i].bill.total.millis);
		}
	}
	compare_fini(&c);
}

/* By hand: half of the steps have 40000 misses, half 900 + step; nested adds 3 + 2 references. */
static void test_nested_walks_by_hand(void **state)
{
	struct compare c;
	uint64_t misses = 20ull * 40000;

	for (unsigned step = 20; step < 40; step++)
		misses += 900 + step;
	make(&c, &world.input);
	const struct compare_row *r = &c.rows[1];
	assert_true(compare_is_strategy(r, "nested"));
	assert_true(r->cause[CAUSE_WALK].millis == (__int128)(misses * (3 * 15 + 2 * 4) * 1000));
	assert_true(r->cause[CAUSE_VIOLATION].millis == (__int128)40 * 3 * 4000 * 1000);
	assert_true(r->cause[CAUSE_PAGING].millis == (__int128)40 * 3 * 200 * 1000);
	assert_true(r->cause[CAUSE_OTHER_EXIT].millis == (__int128)40 * 3 * 5000 * 1000);
	assert_true(r->cause[CAUSE_TLB].millis == 0);
	assert_true(compare_references(r, DIMENSION_HOST, 1) == 3.0);
	assert_true(compare_references(r, DIMENSION_HOST, 2) == 2.0);
	assert_true(compare_all_references(r) == 7.0);
	assert_true(compare_misses_per_1000(r) == 1000.0 * (double)misses / 40e6);
	compare_fini(&c);
}

static void test_schemes_in_any_order(void **state)
{
	struct compare_scheme mixed[WORLD_SCHEMES];
	struct compare_input in = world.input;
	struct compare c;

	for (unsigned s = 0; s < WORLD_SCHEMES; s++)
		mixed[s] = world.schemes[(s * 7 + 3) % WORLD_SCHEMES];
	in.schemes = mixed;
	make(&c, &in);
	assert_int_equal(c.row_count, WORLD_SCHEMES);
	for (unsigned g = 0; g < c.group_count; g++)
		for (unsigned i = 0; i < c.groups[g].count; i++)
			check_row(&c, &c.groups[g], c.groups[g].first + i);
	compare_fini(&c);
}

static void test_no_baseline_is_refused(void **state)
{
	struct compare_input in = world.input;
	struct error e = {0};
	struct compare c;

	in.schemes = &world.schemes[1];
	in.scheme_count = 2;
	assert_int_equal(compare_init(&c, &in, &e), -EINVAL);
	assert_string_equal(e.text, "no native baseline on made-cheap");
	compare_fini(&c);
}

static void test_native_alone_has_no_verdict(void **state)
{
	struct compare_input in = world.input;
	struct compare c;

	in.scheme_count = 1;
	in.primary = 0;
	in.series = NULL;
	make(&c, &in);
	assert_int_equal(c.groups[0].best, COMPARE_NONE);
	char *text = write_text(COMPARE_TABLE, &c, false);
	assert_null(strstr(text, "verdict"));
	free(text);
	text = write_text(COMPARE_CSV, &c, false);
	assert_null(strstr(text, "verdict"));
	free(text);
	free(write_text(COMPARE_JSON, &c, false));
	compare_fini(&c);
}

/* Lines with one of these words are left out: their number grows with the list of events. */
static char *without(const char *text, const char *word)
{
	char *kept = calloc(1, strlen(text) + 1);

	while (*text) {
		size_t n = strcspn(text, "\n") + 1;
		char *line = strndup(text, n);

		if (!strstr(line, word))
			strcat(kept, line);
		free(line);
		text += n;
	}
	return kept;
}

static void test_golden(void **state)
{
	struct compare_input in = world.input;
	struct compare c;

	make(&c, &in);
	char *table = write_text(COMPARE_TABLE, &c, false);
	check_golden("compare.table", table);
	free(table);
	compare_fini(&c);

	in.scheme_count = WORLD_STRATEGIES;
	in.series = NULL;
	make(&c, &in);
	char *csv = write_text(COMPARE_CSV, &c, false);
	char *short_csv = without(csv, ",counter,");
	check_golden("compare.csv", short_csv);
	assert_non_null(strstr(csv, "made-cheap,native,counter,walk.guest.l1,user,events,8"));
	free(csv);
	free(short_csv);
	compare_fini(&c);
}

static unsigned count_lines(const char *text, const char *word)
{
	unsigned n = 0;

	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
		n++;
	return n;
}

static void test_csv_has_every_sample(void **state)
{
	struct compare c;

	make(&c, &world.input);
	char *csv = write_text(COMPARE_CSV, &c, false);
	assert_int_equal(count_lines(csv, ",sample,cycles,"), WORLD_SCHEMES * WORLD_STEPS);
	assert_int_equal(
		count_lines(csv, "made-dear,native,sample,instruction,39,events,40000000\n"), 1);
	assert_non_null(strstr(csv, "\nmade-dear,,verdict,best,,strategy,adaptive\n"));
	assert_non_null(strstr(csv, "\nmade-dear,oracle,oracle,changes,,events,1\n"));
	assert_non_null(
		strstr(csv, "\nmade-dear,oracle,oracle,instruction,shadow,events,20000000\n"));
	free(csv);
	compare_fini(&c);
}

/* Samples that were taken for the oracle alone are not shown. */
static void test_internal_series_are_not_shown(void **state)
{
	struct compare_input in = world.input;
	struct compare c;

	in.is_series_internal = true;
	make(&c, &in);
	char *csv = write_text(COMPARE_CSV, &c, false), *json = write_text(COMPARE_JSON, &c, false);
	assert_int_equal(count_lines(csv, ",sample,"), 0);
	assert_non_null(strstr(csv, ",oracle,changes,"));
	assert_non_null(strstr(json, "\"series\": null"));
	assert_non_null(strstr(json, "\"oracle\": {"));
	free(csv);
	free(json);
	compare_fini(&c);
}

static void test_colour_only_when_allowed(void **state)
{
	struct compare c;

	make(&c, &world.input);
	char *plain = write_text(COMPARE_TABLE, &c, false);
	char *fancy = write_text(COMPARE_TABLE, &c, true);
	assert_null(strchr(plain, '\033'));
	assert_non_null(strstr(fancy, "\033[32m  adaptive"));
	assert_non_null(strstr(fancy, "\033[31m  shadow*"));
	free(plain);
	free(fancy);
	compare_fini(&c);
}

/* By hand, on made-cheap: both write CR3 20 + 20 * 400 times under the shadow strategies, never
 * under nested, so one crossing is where shadow-cache's cheaper rest is used up. */
static void test_break_even(void **state)
{
	const double writes = 20 + 20 * 400;
	struct error e = {0};
	struct compare c;
	struct vary v;

	make(&c, &world.input);
	assert_int_equal(vary_parse(&v, "exit.cr3_write.transition=0..50000", &e), 0);
	assert_int_equal(compare_vary(&c, &v, &e), 0);
	const struct vary_result *r = c.groups[0].vary[0];
	double nested = (double)c.rows[1].bill.total.millis / 1000;
	double cache = (double)c.rows[3].bill.total.millis / 1000 - writes * 1000;
	bool is_there = false;
	for (unsigned i = 0; i < r->crossing_count; i++)
		is_there = is_there || (r->crossing[i].before == 2 && r->crossing[i].after == 0 &&
					r->crossing[i].value > (nested - cache) / writes - 0.01 &&
					r->crossing[i].value < (nested - cache) / writes + 0.01);
	assert_true(is_there);
	char *table = write_text(COMPARE_TABLE, &c, false);
	assert_non_null(strstr(table, "If exit.cr3_write.transition were another number"));
	assert_non_null(strstr(table, "shadow-cache:sync=oos is cheaper below it"));
	free(table);
	char *csv = write_text(COMPARE_CSV, &c, false);
	assert_non_null(strstr(csv, "made-cheap,,break-even,exit.cr3_write.transition,below "
				    "shadow-cache:sync=oos above nested:host-page=2M,cycles,"));
	free(csv);
	compare_fini(&c);
}

static void test_vary_of_nothing_is_refused(void **state)
{
	struct error e = {0};
	struct compare c;
	struct vary v;

	make(&c, &world.input);
	assert_int_equal(vary_parse(&v, "exit.cr3_rite.transition=0..50000", &e), 0);
	assert_int_equal(compare_vary(&c, &v, &e), -EINVAL);
	assert_non_null(strstr(e.text, "exit.cr3_rite"));
	compare_fini(&c);
}

/* ---- the JSON read by somebody else ---- */

static json_int_t integer(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	assert_true(json_is_integer(value));
	return json_integer_value(value);
}

static void check_json_scheme(const json_t *scheme, json_int_t native)
{
	const char *name;
	json_t *cause, *event;
	json_int_t sum = 0;

	json_object_foreach(json_object_get(scheme, "causes"), name, cause)
		sum += integer(cause, "cycles");
	assert_int_equal(integer(scheme, "beyond_native"), sum);
	assert_int_equal(integer(scheme, "cycles"), native + sum);
	json_object_foreach(json_object_get(scheme, "events"), name, event)
	{
		assert_true(event_from_name(name) >= 0);
		assert_true(integer(event, "kernel") >= 0 && integer(event, "user") >= 0);
	}
	assert_int_equal(json_object_size(json_object_get(scheme, "events")), EVENT_COUNT);
}

static void test_json_closes_from_outside(void **state)
{
	struct compare c;
	size_t i, k;
	json_t *profile, *scheme;

	make(&c, &world.input);
	char *text = write_text(COMPARE_JSON, &c, false);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "schema")), "gnomon-compare");
	assert_int_equal(integer(root, "version"), 1);
	assert_true(json_is_true(json_object_get(root, "closes")));
	json_array_foreach(json_object_get(root, "profiles"), i, profile)
	{
		const json_t *schemes = json_object_get(profile, "schemes");
		json_int_t native = integer(json_array_get(schemes, 0), "cycles");

		assert_int_equal(json_array_size(schemes), WORLD_STRATEGIES);
		json_array_foreach(schemes, k, scheme) check_json_scheme(scheme, native);
	}
	assert_int_equal(i, WORLD_PROFILES);
	json_decref(root);
	free(text);
	compare_fini(&c);
}

/* The last sample of each scheme is its total, and no curve falls. */
static void test_series_end_in_the_totals(void **state)
{
	struct compare c;

	make(&c, &world.input);
	assert_int_equal(world.series.count, WORLD_STEPS);
	for (unsigned s = 0; s < WORLD_SCHEMES; s++) {
		const struct series_point *last = series_at(&world.series, WORLD_STEPS - 1, s);

		for (unsigned i = 0; i < c.row_count; i++)
			if (c.rows[i].scheme == &world.schemes[s])
				assert_true(last->total.millis == c.rows[i].bill.total.millis);
		assert_int_equal(last->instructions, 40000000);
		for (size_t n = 1; n < WORLD_STEPS; n++)
			assert_true(series_at(&world.series, n, s)->total.millis >
				    series_at(&world.series, n - 1, s)->total.millis);
	}
	compare_fini(&c);
}

static void test_thin_series_keep_their_end(void **state)
{
	struct series *s = &world.series;
	unsigned __int128 end = series_at(s, WORLD_STEPS - 1, 3)->total.millis;
	unsigned __int128 second = series_at(s, 1, 3)->total.millis;

	series_thin(s);
	assert_int_equal(s->count, WORLD_STEPS / 2);
	assert_int_equal(s->interval, 2000000);
	assert_true(series_at(s, WORLD_STEPS / 2 - 1, 3)->total.millis == end);
	assert_true(series_at(s, 0, 3)->total.millis == second);
}

/* What is in the page's data must not end its script element. */
static void test_page_is_whole(void **state)
{
	struct compare c;

	make(&c, &world.input);
	char *page = write_text(COMPARE_HTML, &c, false);
	const char *begin = strstr(page, "id=\"data\">");
	assert_non_null(begin);
	const char *json = begin + strlen("id=\"data\">"), *end = strstr(json, "</script>");
	json_t *root = json_loadb(json, (size_t)(end - json), JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	json_t *profile = json_array_get(json_object_get(root, "profiles"), 1);
	assert_string_equal(json_string_value(json_object_get(profile, "description")),
			    "dear exits </script> & \"quotes\"");
	assert_non_null(strstr(page, "Chart.js v"));
	assert_non_null(strstr(page, "MIT"));
	assert_null(strstr(page, "src=\"http"));
	assert_string_equal(page + strlen(page) - 8, "</html>\n");
	json_decref(root);
	free(page);
	compare_fini(&c);
}

static void test_differences_as_text(void **state)
{
	char text[AMOUNT_TEXT_MAX];

	assert_string_equal(difference_text((struct difference){-1234500}, ',', text),
			    "-1,234.500");
	assert_string_equal(difference_text((struct difference){0}, ',', text), "0");
	assert_string_equal(difference_text((struct difference){2000}, 0, text), "2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(test_random_ledgers_close_by_cause),
		TEST(test_every_event_has_one_cause),
		TEST(test_verdict),
		TEST(test_nested_walks_by_hand),
		TEST(test_schemes_in_any_order),
		TEST(test_no_baseline_is_refused),
		TEST(test_native_alone_has_no_verdict),
		TEST(test_golden),
		TEST(test_csv_has_every_sample),
		TEST(test_internal_series_are_not_shown),
		TEST(test_colour_only_when_allowed),
		TEST(test_break_even),
		TEST(test_vary_of_nothing_is_refused),
		TEST(test_json_closes_from_outside),
		TEST(test_series_end_in_the_totals),
		TEST(test_thin_series_keep_their_end),
		TEST(test_page_is_whole),
		TEST(test_differences_as_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
