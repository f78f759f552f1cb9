/* What if a price were another: the totals are straight lines, the crossings are where arithmetic
 * by hand says, and what cannot be varied is refused with the reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <cmocka.h>

#include "hw/vary.h"
#include "report/vary.h"

static struct profile *load(const char *name)
{
	struct error e = {0};
	struct profile *p = NULL;

	if (profile_load(name, &p, &e))
		fail_msg("%s", e.text);
	return p;
}

/* Three schemes of one run: nested pays references, shadow exits, a third a few of both. */
enum { NESTED, SHADOW, MIXED, SCHEME_COUNT };
static const char *const names[] = {"nested", "shadow", "mixed"};
static struct ledger ledgers[SCHEME_COUNT];
static const struct ledger *lists[SCHEME_COUNT][1];

static void make_schemes(const struct profile *p, struct report_input in[SCHEME_COUNT])
{
	memset(ledgers, 0, sizeof(ledgers));
	for (int s = 0; s < SCHEME_COUNT; s++) {
		ledgers[s].count[EVENT_INSTRUCTION][RING_USER] = 1000000;
		lists[s][0] = &ledgers[s];
		in[s] = (struct report_input){.profile = p,
					      .ledgers = lists[s],
					      .vcpu_count = 1,
					      .strategy = names[s],
					      .is_virtualized = true};
	}
	ledgers[NESTED].count[EVENT_REF_HOST_DRAM][RING_USER] = 10000;
	ledgers[SHADOW].count[EVENT_EXIT_PF_HIDDEN][RING_USER] = 1000;
	ledgers[MIXED].count[EVENT_REF_HOST_DRAM][RING_USER] = 6000;
	ledgers[MIXED].count[EVENT_EXIT_PF_HIDDEN][RING_KERNEL] = 600;
}

static struct vary_result *run(const struct report_input *in, unsigned count, const char *text)
{
	struct vary_result *r = NULL;
	struct error e = {0};
	struct vary v;

	if (vary_parse(&v, text, &e) || vary_run(in, count, &v, &r, &e))
		fail_msg("%s", e.text);
	return r;
}

static void test_words(void **state)
{
	static const struct {
		const char *text;
		const char *key;
		uint64_t low, high;
		unsigned steps;
	} good[] = {{"exit.*.transition=500..4000", "exit.*.transition", 500000, 4000000, 4},
		    {"caches.dram=1.5..200.125:7", "caches.dram", 1500, 200125, 7},
		    {"shadow.fill=0..1000000000:1", "shadow.fill", 0, 1000000000000, 1}};
	static const struct {
		const char *text, *message;
	} bad[] = {{"shadow.fill", "must be KEY=LO..HI"},
		   {"=1..2", "must be KEY=LO..HI"},
		   {"shadow.fill=1", "must be KEY=LO..HI"},
		   {"shadow.fill=1..", "must be KEY=LO..HI"},
		   {"shadow.fill=..2", "must be KEY=LO..HI"},
		   {"shadow.fill=-1..2", "must be KEY=LO..HI"},
		   {"shadow.fill=1.2345..2", "must be KEY=LO..HI"},
		   {"shadow.fill=1..2x", "must be KEY=LO..HI"},
		   {"shadow.fill=1..99999999999999999999999", "must be KEY=LO..HI"},
		   {"shadow.fill=2..2", "LO must be below HI"},
		   {"shadow.fill=1..2:0", "STEPS is a number"},
		   {"shadow.fill=1..2:5000", "STEPS is a number"},
		   {"shadow.fill=1..2:-5", "STEPS is a number"},
		   {"shadow.fill=1..2:", "STEPS is a number"}};
	struct error e = {0};
	struct vary v;

	for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
		assert_int_equal(vary_parse(&v, good[i].text, &e), 0);
		assert_string_equal(v.key, good[i].key);
		assert_int_equal(v.low_millis, good[i].low);
		assert_int_equal(v.high_millis, good[i].high);
		assert_int_equal(v.steps, good[i].steps);
	}
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		assert_int_equal(vary_parse(&v, bad[i].text, &e), -22);
		if (!strstr(e.text, bad[i].message))
			fail_msg("\"%s\" is not in \"%s\"", bad[i].message, e.text);
	}
}

/* K10: memory 200 cycles, a hidden fault's handling 1200. Nested is 2,000,000 dearer than native,
 * shadow 1000 x (v + 1200): equal at v = 800. */
static void test_the_break_even_point_is_where_arithmetic_says(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in[SCHEME_COUNT];

	make_schemes(p, in);
	struct vary_result *r = run(in, 2, "exit.pf_hidden.transition=500..4500:4");

	assert_int_equal(r->point_count, 5);
	assert_int_equal(r->stated_millis, 1300000);
	assert_int_equal(r->mark, MARK_ESTIMATE);
	for (unsigned i = 0; i < r->point_count; i++) {
		assert_int_equal(r->point[i], 500000 + 1000000 * i);
		assert_true(r->total[2 * i + NESTED].millis == 3000000000ull);
		assert_true(r->total[2 * i + SHADOW].millis ==
			    1000000000ull + 1000 * (r->point[i] + 1200000));
	}
	assert_int_equal(r->crossing_count, 1);
	assert_true(r->crossing[0].value == 800.0);
	assert_int_equal(r->crossing[0].before, SHADOW);
	assert_int_equal(r->crossing[0].after, NESTED);
	assert_int_equal(r->stretch_count, 2);
	assert_int_equal(r->stretch[0].scheme, SHADOW);
	assert_int_equal(r->stretch[1].scheme, NESTED);
	assert_true(r->stretch[0].from == 500.0 && r->stretch[0].to == 800.0);
	assert_true(r->stretch[1].from == 800.0 && r->stretch[1].to == 4500.0);
	vary_free(r);
	/* The profile that was given is as it was. */
	assert_int_equal(p->price[EVENT_EXIT_PF_HIDDEN].part[PRICE_HARDWARE].millis, 1300000);
	profile_destroy(p);
}

/* 6000 x 200 + 600 x (v + 1200) meets 2,000,000 at 133.33 and 1000 x (v + 1200) at 1800. */
static void test_three_schemes_and_their_envelope(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in[SCHEME_COUNT];

	make_schemes(p, in);
	struct vary_result *r = run(in, 3, "exit.pf_hidden.transition=0..4000");

	assert_int_equal(r->crossing_count, 3);
	assert_true(r->crossing[0].value > 133.333 && r->crossing[0].value < 133.334);
	assert_true(r->crossing[1].value == 800.0 && r->crossing[2].value == 1800.0);
	assert_int_equal(r->stretch_count, 2);
	assert_int_equal(r->stretch[0].scheme, SHADOW);
	assert_int_equal(r->stretch[1].scheme, NESTED);
	vary_free(r);
	profile_destroy(p);
}

static void test_latencies_move_what_is_derived_from_them(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in[SCHEME_COUNT];

	make_schemes(p, in);
	/* Shadow costs 2,500,000 more than native: at 250 cycles a reference nested does too. */
	struct vary_result *r = run(in, 2, "caches.dram=60..400");

	assert_int_equal(r->crossing_count, 1);
	assert_true(r->crossing[0].value == 250.0);
	assert_int_equal(r->crossing[0].before, NESTED);
	vary_free(r);
	/* A processor without a third level: memory answers for it. */
	struct profile *k8 = load("k8-8212");
	make_schemes(k8, in);
	ledgers[NESTED].count[EVENT_REF_HOST_L3][RING_USER] = 10000;
	r = run(in, 1, "caches.dram=100..200:1");
	assert_true(r->total[0].millis == 1000000000ull + 20000 * 100000ull);
	assert_true(r->total[1].millis == 1000000000ull + 20000 * 200000ull);
	vary_free(r);
	profile_destroy(k8);
	profile_destroy(p);
}

/* Exits that state their own transition are not moved by the default's. */
static void test_the_default_of_exits(void **state)
{
	struct profile *p = load("p4-672");
	struct report_input in[SCHEME_COUNT];

	make_schemes(p, in);
	ledgers[MIXED].count[EVENT_EXIT_CPUID][RING_USER] = 10;
	struct vary_result *r = run(in, 3, "exit.*.transition=1000..2000:1");

	assert_int_equal(r->stated_millis, 3963000);
	assert_true(r->total[SHADOW].millis == r->total[3 + SHADOW].millis);
	assert_true(r->total[3 + MIXED].millis - r->total[MIXED].millis == 10 * 1000000);
	assert_int_equal(r->crossing_count, 0);
	vary_free(r);
	profile_destroy(p);
}

static void test_keys(void **state)
{
	static const struct {
		const char *key, *message; /* NULL: found */
	} rows[] = {
		{"exit.cpuid.transition", NULL},
		{".prices[\"exit.cpuid\"].handling", NULL},
		{"prices.shadow.fill", NULL},
		{"prices.exit.*.handling", NULL},
		{".caches.l3.latency", NULL},
		{"caches.l1d", NULL},
		{"tlb.l2_hit", NULL},
		{"ref.host.dram", NULL},
		{"exit.cpuid", "which one: exit.cpuid.transition or exit.cpuid.handling?"},
		{"exit.*", "which one: exit.*.transition"},
		{"shadow.fill.handling", "has no parts"},
		{"walk.guest.l1", "counted only"},
		{"access.read", "counted only"},
		{"tlb.l1d[0]", "decides which events happen"},
		{"tlb.tagged", "decides which events happen"},
		{"virtualization.pf_filter", "decides which events happen"},
		{"caches.l2.array", "decides which cache answers"},
		{"caches.l4", "there are caches.l1d"},
		{"caches.l2x", "there are caches.l1d"},
		{"frequency", "changes seconds"},
		{"shadow.fil", "did you mean \"shadow.fill\"?"},
		{"", "no number that can be varied"},
	};
	struct profile *p = load("k10-2350"), *k8 = load("k8-8212");
	struct error e = {0};
	struct knob k;

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		int rc = profile_find_knob(p, rows[i].key, &k, &e);

		assert_int_equal(rc, rows[i].message ? -22 : 0);
		if (rc && !strstr(e.text, rows[i].message))
			fail_msg("\"%s\" is not in \"%s\"", rows[i].message, e.text);
	}
	assert_int_equal(profile_find_knob(k8, "caches.l3", &k, &e), -22);
	assert_non_null(strstr(e.text, "k8-8212 has no l3 cache"));
	assert_int_equal(profile_find_knob(k8, "caches.dram", &k, &e), 0);
	assert_int_equal(k.min_millis, 15500);
	profile_destroy(p);
	profile_destroy(k8);
}

static void test_a_range_that_turns_the_caches_over_is_refused(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in[SCHEME_COUNT];
	struct vary_result *r;
	struct error e = {0};
	struct vary v;

	make_schemes(p, in);
	assert_int_equal(vary_parse(&v, "caches.l3=10..100", &e), 0);
	assert_int_equal(vary_run(in, 2, &v, &r, &e), -22);
	assert_non_null(strstr(e.text, "caches.l3 can vary from 15 to 200 cycles"));
	assert_null(r);
	profile_destroy(p);
}

/* Every price of every profile gives straight lines: the middle is the mean of the ends. */
static void test_totals_are_straight_lines(void **state)
{
	for (size_t i = 0; profile_name(i); i++) {
		struct profile *p = load(profile_name(i));
		struct report_input in[SCHEME_COUNT];

		make_schemes(p, in);
		for (int e = 0; e < EVENT_COUNT; e++)
			ledgers[MIXED].count[e][RING_USER] = (uint64_t)(e * e + 3);
		for (int e = 0; e < EVENT_COUNT; e++) {
			char text[100];

			if (!p->price[e].is_priced)
				continue;
			snprintf(text, sizeof(text), "%s%s=10..1010:2", event_name((enum event)e),
				 event_is_exit((enum event)e) ? ".handling" : "");
			struct vary_result *r = run(&in[MIXED], 1, text);
			uint64_t n = ledger_total(&ledgers[MIXED], (enum event)e);
			assert_true(r->total[2].millis - r->total[1].millis ==
				    r->total[1].millis - r->total[0].millis);
			assert_true(r->total[2].millis - r->total[0].millis == n * 1000000);
			vary_free(r);
		}
		profile_destroy(p);
	}
}

static void test_formats(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in[SCHEME_COUNT];
	char *text = NULL;
	size_t size_bytes;
	FILE *f = open_memstream(&text, &size_bytes);

	make_schemes(p, in);
	struct vary_result *r = run(in, 2, "exit.pf_hidden.transition=500..4500");
	vary_write_table(f, r, names);
	fclose(f);
	assert_non_null(strstr(text, "the profile says 1,300 cycles, class E"));
	assert_non_null(strstr(text, "break-even at 800.000: shadow is cheaper below it, nested"));
	assert_non_null(strstr(text, "cheapest from 500.000 to 800.000: shadow"));

	json_t *root = vary_json(r, names);
	const json_t *crossing = json_array_get(json_object_get(root, "crossings"), 0);
	const json_t *first = json_array_get(json_object_get(root, "points"), 0);

	assert_true(json_real_value(json_object_get(crossing, "value")) == 800.0);
	assert_string_equal(json_string_value(json_object_get(crossing, "above")), "nested");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(first, "totals"), "nested")),
		3000000);
	assert_int_equal(json_array_size(json_object_get(root, "cheapest")), 2);
	json_decref(root);
	free(text);
	vary_free(r);
	profile_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_the_break_even_point_is_where_arithmetic_says),
		cmocka_unit_test(test_three_schemes_and_their_envelope),
		cmocka_unit_test(test_latencies_move_what_is_derived_from_them),
		cmocka_unit_test(test_the_default_of_exits),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_a_range_that_turns_the_caches_over_is_refused),
		cmocka_unit_test(test_totals_are_straight_lines),
		cmocka_unit_test(test_formats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
