/* Calibration without a clock: the arithmetic on samples, and what profile comes of which findings.
 * (What the clock says is nobody's to assert; tests/cli runs the command.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "calibrate/calibrate.h"
#include "calibrate/stats.h"
#include "hw/hw.h"
#include "hw/lint.h"

static void test_summaries(void **state)
{
	double odd[] = {5, 1, 3, 2, 4}, even[] = {4, 1, 3, 2}, one[] = {7};
	struct summary s = summarize(odd, 5);

	assert_true(s.median == 3 && s.lowest == 1 && s.count == 5);
	assert_true(s.spread > 66 && s.spread < 67); /* quartiles 2 and 4 */
	s = summarize(even, 4);
	assert_true(s.median == 2.5 && s.lowest == 1);
	s = summarize(one, 1);
	assert_true(s.median == 7 && s.lowest == 7 && s.spread == 0);
	s = summarize(one, 0);
	assert_true(s.median == 0 && s.count == 0);
}

static void test_knees(void **state)
{
	/* A sharp one: the last point below it. */
	static const struct curve_point sharp[] = {{32, 0}, {64, 0.1}, {72, 0}, {80, 7}, {96, 7}};
	/* A gradual one: half the way, in proportion. */
	static const struct curve_point slow[] = {{100, 0}, {200, 0}, {300, 4}, {400, 8}, {500, 8}};
	/* One noisy point is none. */
	static const struct curve_point noisy[] = {{10, 0}, {20, 9}, {30, 0}, {40, 0}, {50, 8}};
	static const struct curve_point flat[] = {{10, 1}, {20, 1.2}, {30, 0.9}};

	assert_true(knee(sharp, 5, 0, 7) == 72);
	assert_true(knee(slow, 5, 0, 8) == 300);
	assert_true(knee(noisy, 5, 0, 8) == 40);
	assert_true(knee(flat, 3, 1, 9) == 0);
	assert_true(knee(flat, 0, 1, 9) == 0);
	assert_int_equal(nearest_tlb_size(63), 64);
	assert_int_equal(nearest_tlb_size(72.4), 72);
	assert_int_equal(nearest_tlb_size(1490), 1536);
	assert_int_equal(nearest_tlb_size(1), 8);
}

static void test_the_nearest_profile(void **state)
{
	static const struct {
		const char *vendor;
		unsigned family, model;
		const char *name;
	} rows[] = {
		{"AuthenticAMD", 0x19, 0x11, "zen3-milan"},
		{"AuthenticAMD", 0x17, 1, "zen3-milan"},
		{"HygonGenuine", 0x18, 1, "zen3-milan"},
		{"AuthenticAMD", 0x10, 2, "k10-2350"},
		{"AuthenticAMD", 0x15, 2, "k10-2350"},
		{"AuthenticAMD", 0x0f, 65, "k8-8212"},
		{"GenuineIntel", 6, 0x55, "skylake-sp"},
		{"GenuineIntel", 6, 0x3f, "skylake-sp"},
		{"GenuineIntel", 6, 0x6a, "icelake-sp"},
		{"GenuineIntel", 6, 0x8f, "icelake-sp"},
		{"GenuineIntel", 6, 0x1a, "nehalem-5570"},
		{"GenuineIntel", 6, 0x2a, "nehalem-5570"},
		{"GenuineIntel", 6, 0x3e, "nehalem-5570"},
		{"GenuineIntel", 6, 0x17, "harpertown-5472"},
		{"GenuineIntel", 6, 0x0f, "harpertown-5472"},
		{"GenuineIntel", 15, 4, "p4-672"},
		{"GenuineIntel", 15, 6, "tulsa-7130m"},
		{"CentaurHauls", 7, 0, "skylake-sp"},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct host h = {.family = rows[i].family, .model = rows[i].model};

		strcpy(h.vendor, rows[i].vendor);
		assert_string_equal(calibrate_nearest_profile(&h), rows[i].name);
	}
}

static void set(struct calibration *c, enum measure_id id, double value)
{
	c->measure[id] = (struct measure){.is_available = true,
					  .value = value,
					  .lowest = value,
					  .spread = 3,
					  .sample_count = 15};
}

/* A bare machine on which everything could be measured. */
static struct calibration sample_calibration(void)
{
	struct calibration c = {.date = "2026-07-01"};

	strcpy(c.host.vendor, "AuthenticAMD");
	strcpy(c.host.brand, "AMD Test 9000");
	c.host.cache[0] = (struct host_cache){32, 8};
	c.host.cache[1] = (struct host_cache){1024, 8};
	c.host.cache[2] = (struct host_cache){32768, 16};
	c.host.tlb1_entries = 72;
	c.host.tlb2_entries = 3072;
	c.host.tlb2_ways = 24;
	set(&c, MEASURE_FREQUENCY, 3.6934e9);
	set(&c, MEASURE_L1, 4);
	set(&c, MEASURE_L2, 14.26);
	set(&c, MEASURE_L3, 47.7);
	set(&c, MEASURE_DRAM, 400);
	set(&c, MEASURE_TLB1_ENTRIES, 72);
	set(&c, MEASURE_TLB2_ENTRIES, 3072);
	c.measure[MEASURE_TLB2_ENTRIES].lowest = 2450; /* where the knee was */
	set(&c, MEASURE_TLB2_HIT, 7);
	set(&c, MEASURE_LOCK, 8);
	set(&c, MEASURE_CPUID, 128);
	set(&c, MEASURE_EXIT_CPUID, 2400);
	set(&c, MEASURE_EXIT_PORT, 4000);
	set(&c, MEASURE_EXIT_MMIO, 4700);
	set(&c, MEASURE_VMM_FILL, 300);
	set(&c, MEASURE_VMM_TABLE, 204.04);
	return c;
}

static struct profile *profile_of(const struct calibration *c, const char *base)
{
	struct error e = {0};
	struct profile *p = NULL;
	char *text;

	if (calibrate_profile(c, "here", base, &text, &e) ||
	    profile_parse("here", text, strlen(text), &p, &e))
		fail_msg("%s", e.text);
	free(text);
	return p;
}

static const struct fact *fact_at(const struct profile *p, const char *path)
{
	for (size_t i = 0; i < p->fact_count; i++)
		if (!strcmp(p->facts[i].path, path))
			return &p->facts[i];
	fail_msg("no fact at %s", path);
	return NULL;
}

static void expect_fact(const struct profile *p, const char *path, const char *value,
			enum mark mark)
{
	const struct fact *f = fact_at(p, path);

	assert_string_equal(f->value, value);
	if (f->mark != mark)
		fail_msg("%s has class %c", path, mark_letter(f->mark));
}

static void test_what_was_measured_is_in_the_profile(void **state)
{
	struct calibration c = sample_calibration();
	struct profile *p = profile_of(&c, "zen3-milan");
	struct finding findings[FINDINGS_MAX];

	assert_string_equal(p->name, "here");
	assert_string_equal(p->description,
			    "AMD Test 9000, measured by gnomon calibrate on 2026-07-01");
	expect_fact(p, ".frequency", "3693000000", MARK_READ);
	expect_fact(p, ".caches.l2.latency", "14.300", MARK_READ);
	expect_fact(p, ".caches.dram.latency", "400", MARK_READ);
	expect_fact(p, ".caches.l2.array", "1024 KB, 8-way", MARK_READ);
	expect_fact(p, ".tlb.l1d[0]", "72 entries, fully associative, 4K 2M 4M 1G", MARK_READ);
	expect_fact(p, ".tlb.l2d[0]", "3072 entries, 24-way, 4K 2M 4M", MARK_READ);
	expect_fact(p, ".prices[\"tlb.l2_hit\"]", "7", MARK_READ);
	expect_fact(p, ".prices[\"tlb.miss\"]", "7", MARK_ESTIMATE);
	expect_fact(p, ".prices[\"walk.ad_update\"]", "8", MARK_ESTIMATE);
	expect_fact(p, ".prices[\"shadow.fill\"]", "300", MARK_READ);
	expect_fact(p, ".prices[\"shadow.table\"]", "204", MARK_READ);
	expect_fact(p, ".prices[\"shadow.update\"]", "174", MARK_ESTIMATE); /* not measured */
	assert_non_null(strstr(fact_at(p, ".caches.dram.latency")->source,
			       "measured on this host on 2026-07-01 by gnomon calibrate"));
	/* 2400 in all, 991 of it the handler; a port is 4000 in all. */
	expect_fact(p, ".prices[\"exit.*\"].transition", "1409", MARK_DERIVED);
	expect_fact(p, ".prices[\"exit.*\"].handling", "991", MARK_DERIVED);
	expect_fact(p, ".prices[\"exit.port_write\"].handling", "2591", MARK_DERIVED);
	assert_int_equal(price_millis(&p->price[EVENT_EXIT_CPUID]), 2400000);
	assert_int_equal(price_millis(&p->price[EVENT_EXIT_PORT_READ]), 4000000);
	assert_int_equal(price_millis(&p->price[EVENT_EXIT_MMIO_READ]), 4700000);
	assert_int_equal(price_millis(&p->price[EVENT_REF_HOST_DRAM]), 400000);
	assert_int_equal(profile_lint(p, findings), 0);
	profile_destroy(p);
}

/* Another processor's number is never better than derived here. */
static void test_what_is_inherited_is_marked_down(void **state)
{
	for (size_t i = 0; profile_name(i); i++) {
		struct calibration c = {.date = "2026-07-01"};
		struct profile *p, *base;
		struct error e = {0};

		set(&c, MEASURE_FREQUENCY, 2e9);
		p = profile_of(&c, profile_name(i));
		assert_int_equal(profile_load(profile_name(i), &base, &e), 0);
		assert_int_equal(p->fact_count, base->fact_count);
		for (size_t k = 0; k < p->fact_count; k++) {
			const struct fact *f = &p->facts[k], *from = fact_at(base, f->path);

			if (!strcmp(f->path, ".frequency"))
				continue;
			assert_string_equal(f->value, from->value);
			assert_int_equal(f->mark,
					 from->mark > MARK_DERIVED ? from->mark : MARK_DERIVED);
			if (!strstr(f->path, "ref."))
				assert_memory_equal(f->source, "as ", 3);
		}
		profile_destroy(base);
		profile_destroy(p);
	}
}

/* Below a hypervisor our CPUID is an exit, and a guest of ours shows nested ones. */
static void test_exits_of_a_machine_that_is_a_guest(void **state)
{
	struct calibration c = sample_calibration();
	struct profile *p;

	c.host.is_virtualized = true;
	set(&c, MEASURE_CPUID, 2000);
	p = profile_of(&c, "zen3-milan");
	expect_fact(p, ".prices[\"exit.*\"].transition", "1009", MARK_DERIVED);
	expect_fact(p, ".prices[\"exit.port_write\"].handling", "2159", MARK_ESTIMATE);
	profile_destroy(p);
	/* Too cheap for an exit: whatever it was, it is not taken for one. */
	set(&c, MEASURE_CPUID, 120);
	p = profile_of(&c, "zen3-milan");
	expect_fact(p, ".prices[\"exit.*\"].transition", "1360", MARK_ESTIMATE);
	profile_destroy(p);
	/* Less than the handler alone is divided as the base's sum is. */
	set(&c, MEASURE_CPUID, 1000);
	p = profile_of(&c, "zen3-milan");
	assert_int_equal(price_millis(&p->price[EVENT_EXIT_CPUID]), 1000000);
	expect_fact(p, ".prices[\"exit.*\"].transition", "578.500", MARK_DERIVED);
	profile_destroy(p);
}

static void test_tlbs_that_cpuid_tells_wrong(void **state)
{
	struct calibration c = sample_calibration();
	struct profile *p;

	c.host.tlb1_entries = 16;
	c.host.tlb2_entries = 0;
	set(&c, MEASURE_TLB2_ENTRIES, 1536);
	p = profile_of(&c, "zen3-milan");
	expect_fact(p, ".tlb.l1d[0]", "72 entries, fully associative, 4K 2M 4M 1G", MARK_READ);
	expect_fact(p, ".tlb.l2d[0]", "1536 entries, 12-way, 4K 2M 4M", MARK_READ);
	profile_destroy(p);
	/* A second level that was seen on a base without one has no array to go to. */
	p = profile_of(&c, "p4-672");
	assert_int_equal(p->tlb.l2d.array_count, 0);
	profile_destroy(p);
}

static void test_caches_that_are_not_there(void **state)
{
	struct calibration c = sample_calibration();
	struct profile *p;

	c.host.cache[2].size_kb = 0;
	c.measure[MEASURE_L3].is_available = false;
	p = profile_of(&c, "zen3-milan");
	assert_int_equal(p->caches.level[CACHE_L3].size_bytes, 0);
	assert_int_equal(p->latency[CACHE_L3].millis, 400000);
	profile_destroy(p);
	/* A host with a level that the base lacks. */
	c = sample_calibration();
	p = profile_of(&c, "simics-002");
	assert_int_equal(p->caches.level[CACHE_L3].size_bytes, 32768ull << 10);
	assert_int_equal(p->latency[CACHE_L2].millis, 14300);
	profile_destroy(p);
}

/* A disturbed measurement cannot make the caches stand on their heads. */
static void test_latencies_out_of_order_are_put_right(void **state)
{
	struct calibration c = sample_calibration();
	struct profile *p;

	set(&c, MEASURE_DRAM, 30);
	p = profile_of(&c, "zen3-milan");
	assert_int_equal(p->latency[CACHE_DRAM].millis, 47700);
	expect_fact(p, ".caches.dram.latency", "47.700", MARK_ESTIMATE);
	profile_destroy(p);
}

static void test_a_base_that_is_none(void **state)
{
	struct calibration c = sample_calibration();
	struct error e = {0};
	char *text;

	assert_int_equal(calibrate_profile(&c, "here", "zen9", &text, &e), -2);
	assert_null(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_summaries),
		cmocka_unit_test(test_knees),
		cmocka_unit_test(test_the_nearest_profile),
		cmocka_unit_test(test_what_was_measured_is_in_the_profile),
		cmocka_unit_test(test_what_is_inherited_is_marked_down),
		cmocka_unit_test(test_exits_of_a_machine_that_is_a_guest),
		cmocka_unit_test(test_tlbs_that_cpuid_tells_wrong),
		cmocka_unit_test(test_caches_that_are_not_there),
		cmocka_unit_test(test_latencies_out_of_order_are_put_right),
		cmocka_unit_test(test_a_base_that_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
