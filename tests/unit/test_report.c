/*
 * The bill: it closes for every ledger, strategy and profile; the sides are as docs/report.md says;
 * and what people and programs read is pinned by golden files (GNOMON_GOLDEN=write rewrites them).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <cmocka.h>

#include "golden.h"
#include "report/bill.h"

static uint64_t next_random(uint64_t *seed)
{
	uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static struct profile *load(const char *name)
{
	struct error e = {0};
	struct profile *p = NULL;

	if (profile_load(name, &p, &e))
		fail_msg("%s", e.text);
	return p;
}

/* The law, with arithmetic that shares nothing with the report: 128 bits by two 64-bit halves are
 * not needed, as the counts are below 2^40 and the prices below 2^23 thousandths. */
static void check_law(const struct bill *b)
{
	const struct report_input *in = b->input;
	uint64_t overhead = 0, native = 0;

	for (unsigned v = 0; v < in->vcpu_count; v++) {
		for (int e = 0; e < EVENT_COUNT; e++) {
			uint64_t cost = ledger_total(in->ledgers[v], (enum event)e) *
					price_millis(profile_price(in->profile, (enum event)e));

			if (b->line[e].side == SIDE_OVERHEAD)
				overhead += cost;
			if (b->line[e].side == SIDE_NATIVE)
				native += cost;
		}
	}
	assert_true(b->closes);
	assert_true(b->side[SIDE_OVERHEAD].millis == overhead);
	assert_true(b->side[SIDE_NATIVE].millis == native);
	assert_true(b->total.millis == (unsigned __int128)native + overhead);
}

static void fill(struct ledger *l, uint64_t *seed, unsigned bits)
{
	for (int e = 0; e < EVENT_COUNT; e++)
		for (int r = 0; r < RING_COUNT; r++)
			l->count[e][r] = next_random(seed) >> (64 - bits);
}

static void test_random_ledgers_close(void **state)
{
	const struct ledger *list[4];
	static struct ledger ledgers[4];
	static struct bill bill;
	uint64_t seed = 1;

	for (size_t i = 0; profile_name(i); i++) {
		struct profile *p = load(profile_name(i));

		for (unsigned round = 0; round < 500; round++) {
			struct report_input in = {.profile = p,
						  .ledgers = list,
						  .vcpu_count = 1 + round % 4,
						  .strategy = "any",
						  .is_virtualized = round % 3 != 0};

			for (unsigned v = 0; v < in.vcpu_count; v++) {
				fill(&ledgers[v], &seed, 1 + round % 30);
				list[v] = &ledgers[v];
			}
			bill_make(&bill, &in);
			check_law(&bill);
		}
		profile_destroy(p);
	}
}

/* Counts near 2^64 at the dearest price: the sums have the bits. */
static void test_the_largest_counts_close(void **state)
{
	struct profile *p = load("k10-2350");
	static struct ledger l;
	const struct ledger *list[] = {&l};
	static struct bill bill;
	char text[AMOUNT_TEXT_MAX];

	memset(&l, 0, sizeof(l));
	for (int e = 0; e < EVENT_COUNT; e++) {
		l.count[e][RING_USER] = UINT64_MAX;
		for (int part = 0; part < PRICE_PART_COUNT; part++)
			if (p->price[e].has_part[part])
				p->price[e].part[part].millis = PRICE_MAX_CYCLES * MILLIS_PER_CYCLE;
	}
	bill_make(&bill, &(struct report_input){.profile = p,
						.ledgers = list,
						.vcpu_count = 1,
						.strategy = "any",
						.is_virtualized = true});
	assert_true(bill.closes);
	assert_string_equal(amount_text(bill.line[EVENT_INSTRUCTION].cost, 0, text),
			    "18446744073709551615000000000");
	profile_destroy(p);
}

static enum bill_side side(const char *name, bool is_virtualized)
{
	struct profile *p = load("k10-2350");
	static struct ledger l;
	const struct ledger *list[] = {&l};
	static struct bill bill;
	int e = event_from_name(name);

	assert_true(e >= 0);
	bill_make(&bill, &(struct report_input){.profile = p,
						.ledgers = list,
						.vcpu_count = 1,
						.strategy = "any",
						.is_virtualized = is_virtualized});
	profile_destroy(p);
	return bill.line[e].side;
}

static void test_sides(void **state)
{
	static const char *const native[] = {"instruction",    "tlb.l2_hit",	 "tlb.miss",
					     "ref.guest.l1",   "ref.guest.dram", "walk.ad_update",
					     "ref.data.l2",    "walk_cache.hit", "guest.page_fault",
					     "guest.cr3_write"};
	static const char *const added[] = {"ref.host.l1",	 "ref.host.dram",  "nested_tlb.hit",
					    "exit.cr_read",	 "exit.pf_hidden", "shadow.fill",
					    "exit.triple_fault", "nested.fill"};
	static const char *const none[] = {"access.read",    "tlb.l1d_miss",  "tlb.flush",
					   "ref.data.l1",    "walk.guest.l1", "walk.host.l5",
					   "walk.shadow.l2", "unhandled.msr"};

	for (size_t i = 0; i < ARRAY_COUNT(native); i++) {
		assert_int_equal(side(native[i], true), SIDE_NATIVE);
		assert_int_equal(side(native[i], false), SIDE_NATIVE);
	}
	for (size_t i = 0; i < ARRAY_COUNT(added); i++) {
		assert_int_equal(side(added[i], true), SIDE_OVERHEAD);
		assert_int_equal(side(added[i], false), SIDE_NONE);
	}
	for (size_t i = 0; i < ARRAY_COUNT(none); i++)
		assert_int_equal(side(none[i], true), SIDE_NONE);
	assert_int_equal(side("ref.shadow.l1", true), SIDE_NATIVE);
	assert_int_equal(side("ref.shadow.l1", false), SIDE_NONE);
}

/* One 4x4 nested walk on a K10: 24 references, of which 4 are native. By hand: the leaf ones in
 * the second-level cache at 15, the fifteen and three upper ones in the first at 3. */
static void test_one_cold_nested_walk(void **state)
{
	struct profile *p = load("k10-2350");
	static struct ledger l;
	const struct ledger *list[] = {&l};
	static struct bill bill;
	char text[AMOUNT_TEXT_MAX];

	memset(&l, 0, sizeof(l));
	l.count[EVENT_TLB_MISS][RING_USER] = 1;
	for (int level = 0; level < 4; level++) {
		l.count[EVENT_WALK_G1 + level][RING_USER] = 1;
		l.count[EVENT_WALK_H1 + level][RING_USER] = 5;
	}
	l.count[EVENT_REF_GUEST_L1][RING_USER] = 3;
	l.count[EVENT_REF_GUEST_L2][RING_USER] = 1;
	l.count[EVENT_REF_HOST_L1][RING_USER] = 15;
	l.count[EVENT_REF_HOST_L2][RING_USER] = 5;
	bill_make(&bill, &(struct report_input){.profile = p,
						.ledgers = list,
						.vcpu_count = 1,
						.strategy = "nested",
						.is_virtualized = true});
	assert_string_equal(amount_text(bill.side[SIDE_OVERHEAD], 0, text), "120");
	assert_string_equal(amount_text(bill.side[SIDE_NATIVE], 0, text), "30");
	profile_destroy(p);
}

static void test_amounts_as_text(void **state)
{
	static const struct {
		uint64_t millis;
		const char *text, *plain;
	} rows[] = {{0, "0", "0"},
		    {999, "0.999", "0.999"},
		    {1000, "1", "1"},
		    {999000, "999", "999"},
		    {1000000, "1,000", "1000"},
		    {1234567050, "1,234,567.050", "1234567.050"}};
	char text[AMOUNT_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct amount a = {rows[i].millis};

		assert_string_equal(amount_text(a, ',', text), rows[i].text);
		assert_string_equal(amount_text(a, 0, text), rows[i].plain);
	}
	assert_int_equal(bill_format_from_name("json"), BILL_JSON);
	assert_int_equal(bill_format_from_name("xml"), -1);
}

/* A small nested run that every format below prints. */
static struct ledger sample[2];
static const struct ledger *const sample_list[] = {&sample[0], &sample[1]};

static struct report_input sample_input(const struct profile *p)
{
	static const struct {
		enum event event;
		uint64_t kernel, user;
	} counts[] = {{EVENT_INSTRUCTION, 1200300, 9000400},
		      {EVENT_READ, 400000, 2500000},
		      {EVENT_DTLB1_MISS, 900, 4100},
		      {EVENT_TLB2_HIT, 500, 2000},
		      {EVENT_TLB_MISS, 400, 2100},
		      {EVENT_WALK_G1, 400, 2100},
		      {EVENT_WALK_G4, 400, 2100},
		      {EVENT_WALK_H1, 2000, 10500},
		      {EVENT_WALK_H4, 2000, 10500},
		      {EVENT_REF_GUEST_L1, 500, 2200},
		      {EVENT_REF_GUEST_DRAM, 300, 2000},
		      {EVENT_REF_HOST_L1, 2500, 15000},
		      {EVENT_REF_HOST_L2, 1500, 6000},
		      {EVENT_WALK_CACHE_HIT, 100, 700},
		      {EVENT_EXIT_CPUID, 7, 1},
		      {EVENT_EXIT_PORT_WRITE, 310, 0},
		      {EVENT_EXIT_NESTED_VIOLATION, 60, 20},
		      {EVENT_NESTED_FILL, 60, 20},
		      {EVENT_GUEST_PAGE_FAULT, 3, 90},
		      {EVENT_GUEST_CR3_WRITE, 25, 0},
		      {EVENT_UNHANDLED_PORT, 2, 0}};

	memset(sample, 0, sizeof(sample));
	for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
		sample[0].count[counts[i].event][RING_KERNEL] = counts[i].kernel;
		sample[1].count[counts[i].event][RING_USER] = counts[i].user;
	}
	return (struct report_input){.profile = p,
				     .ledgers = sample_list,
				     .vcpu_count = 2,
				     .strategy = "nested",
				     .is_virtualized = true,
				     .guest_levels = 4,
				     .engine = "interp",
				     .virtual_cycles = 12345678,
				     .host_ns = 1500000000,
				     .peak_rss_bytes = 64ull << 20};
}

static char *write_text(enum bill_format format, const struct report_input *in, bool is_fancy)
{
	struct error e = {0};
	char *text = NULL;
	size_t size_bytes;
	FILE *f = open_memstream(&text, &size_bytes);

	assert_int_equal(report_write(f, format, in, is_fancy, &e), 0);
	fclose(f);
	return text;
}

static void test_golden(void **state)
{
	static const char *const names[] = {"report.table", NULL, "report.csv"};
	struct profile *p = load("k10-2350");
	struct report_input in = sample_input(p);

	for (int f = 0; f < BILL_FORMAT_COUNT; f++) {
		if (!names[f])
			continue;
		char *text = write_text((enum bill_format)f, &in, false);
		check_golden(names[f], text);
		free(text);
	}
	profile_destroy(p);
}

static void test_colour_only_when_allowed(void **state)
{
	struct profile *p = load("skylake-sp");
	struct report_input in = sample_input(p);
	char *plain = write_text(BILL_TABLE, &in, false);
	char *fancy = write_text(BILL_TABLE, &in, true);

	assert_null(strchr(plain, '\033'));
	assert_non_null(strchr(fancy, '\033'));
	assert_non_null(strstr(plain, "closes: yes"));
	free(plain);
	free(fancy);
	profile_destroy(p);
}

static json_int_t cycles_of(const json_t *object)
{
	const json_t *value = json_object_get(object, "value");

	assert_true(json_is_integer(value));
	assert_string_equal(json_string_value(json_object_get(object, "unit")), "cycles");
	return json_integer_value(value);
}

static json_int_t price_of(const json_t *line)
{
	const json_t *price = json_object_get(line, "price");
	const json_t *hardware = json_object_get(price, "hardware");
	const json_t *software = json_object_get(price, "software");

	return (hardware ? cycles_of(hardware) : 0) + (software ? cycles_of(software) : 0);
}

static void check_counter(const json_t *counter)
{
	static const char *const words[] = {"name", "unit", "source"};

	for (size_t i = 0; i < ARRAY_COUNT(words); i++)
		assert_true(json_is_string(json_object_get(counter, words[i])));
	assert_true(event_from_name(json_string_value(json_object_get(counter, "name"))) >= 0);
	assert_int_equal(json_integer_value(json_object_get(counter, "value")),
			 json_integer_value(json_object_get(counter, "kernel")) +
				 json_integer_value(json_object_get(counter, "user")));
}

/* A reader of the JSON alone can make the sum again. */
static void test_json_closes_from_outside(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in = sample_input(p);
	char *text = write_text(BILL_JSON, &in, false);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *line;
	json_int_t sums[SIDE_COUNT] = {0};
	size_t i;

	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "schema")), "gnomon-report");
	assert_int_equal(json_integer_value(json_object_get(root, "version")), 1);
	json_array_foreach(json_object_get(root, "lines"), i, line)
	{
		const char *name = json_string_value(json_object_get(line, "side"));
		const json_t *cost = json_object_get(line, "cost");

		check_counter(line);
		for (int s = SIDE_NATIVE; s < SIDE_COUNT; s++) {
			if (strcmp(name, bill_side_name((enum bill_side)s)))
				continue;
			assert_int_equal(cycles_of(cost),
					 price_of(line) * json_integer_value(
								  json_object_get(line, "value")));
			sums[s] += cycles_of(cost);
		}
	}
	assert_int_equal(i, EVENT_COUNT);

	const json_t *totals = json_object_get(root, "totals");
	assert_int_equal(cycles_of(json_object_get(totals, "native")), sums[SIDE_NATIVE]);
	assert_int_equal(cycles_of(json_object_get(totals, "overhead")), sums[SIDE_OVERHEAD]);
	assert_int_equal(cycles_of(json_object_get(totals, "total")),
			 sums[SIDE_NATIVE] + sums[SIDE_OVERHEAD]);
	assert_true(json_is_true(json_object_get(totals, "closes")));
	assert_int_equal(json_array_size(json_object_get(root, "vcpus")), 2);
	json_decref(root);
	free(text);
	profile_destroy(p);
}

static void test_unavailable_counters_are_null(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in = sample_input(p);

	in.is_unavailable[GROUP_WALK] = in.is_unavailable[GROUP_TLB] = true;
	char *text = write_text(BILL_JSON, &in, false);
	json_t *root = json_loads(text, 0, NULL);
	const json_t *line = json_array_get(json_object_get(root, "lines"), EVENT_WALK_G1);

	assert_string_equal(json_string_value(json_object_get(line, "source")), "unavailable");
	assert_true(json_is_null(json_object_get(line, "value")));
	assert_true(json_is_null(json_object_get(line, "cost")));
	json_decref(root);
	free(text);
	text = write_text(BILL_TABLE, &in, false);
	assert_non_null(strstr(text, "not in the bill: walk"));
	assert_null(strstr(text, "walk.guest"));
	free(text);
	profile_destroy(p);
}

/* Nested paging on a processor without it is priced, and called what it is. */
static void test_nested_paging_that_no_hardware_has(void **state)
{
	static const struct {
		const char *profile;
		bool is_virtualized, is_hypothetical;
	} rows[] = {{"k8-8212", true, true}, {"k8-8212", false, false}, {"k10-2350", true, false}};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct profile *p = load(rows[i].profile);
		struct report_input in = sample_input(p);

		in.is_virtualized = rows[i].is_virtualized;
		char *table = write_text(BILL_TABLE, &in, false);
		char *json = write_text(BILL_JSON, &in, false);
		char *csv = write_text(BILL_CSV, &in, false);
		json_t *root = json_loads(json, 0, NULL);
		const json_t *run = json_object_get(root, "run");

		assert_int_equal(strstr(table, "hypothetical: k8-8212 has no nested") != NULL,
				 rows[i].is_hypothetical);
		assert_int_equal(strstr(csv, "hypothetical") != NULL, rows[i].is_hypothetical);
		assert_int_equal(json_is_true(json_object_get(run, "is_hypothetical")),
				 rows[i].is_hypothetical);
		json_decref(root);
		free(table);
		free(json);
		free(csv);
		profile_destroy(p);
	}
}

static void test_settings_that_no_hardware_has(void **state)
{
	static const struct {
		const char *profile, *strategy, *lacks;
	} rows[] = {{"k10-2350", "shadow-cache:pf-filter=on", "filter of page faults"},
		    {"p4-672", "shadow-cache:pf-filter=on", NULL},
		    {"p4-672", "shadow:tlb-tag=on", "tags in its TLB"},
		    {"k8-8212", "shadow:tlb-tag=on", NULL},
		    {"k8-8212", "shadow:tlb-tag=off", NULL}};
	static const struct ledger nothing;
	const struct ledger *list[] = {&nothing};
	static struct bill bill;

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct profile *p = load(rows[i].profile);

		bill_make(&bill, &(struct report_input){.profile = p,
							.ledgers = list,
							.vcpu_count = 1,
							.strategy = rows[i].strategy,
							.is_virtualized = true});
		if (rows[i].lacks)
			assert_string_equal(bill_hypothesis(&bill), rows[i].lacks);
		else
			assert_null(bill_hypothesis(&bill));
		profile_destroy(p);
	}
}

static void test_an_empty_run_is_a_bill_too(void **state)
{
	struct profile *p = load("k10-2350");
	static const struct ledger nothing;
	const struct ledger *list[] = {&nothing};
	struct report_input in = {
		.profile = p, .ledgers = list, .vcpu_count = 1, .strategy = "native"};

	for (int f = 0; f < BILL_FORMAT_COUNT; f++) {
		char *text = write_text((enum bill_format)f, &in, false);

		assert_non_null(strstr(text, "closes"));
		assert_null(strstr(text, "nan%"));
		free(text);
	}
	profile_destroy(p);
}

static void test_a_full_disk_is_told(void **state)
{
	struct profile *p = load("k10-2350");
	struct report_input in = sample_input(p);

	for (int f = 0; f < BILL_FORMAT_COUNT; f++) {
		struct error e = {0};
		FILE *full = fopen("/dev/full", "w");

		assert_non_null(full);
		assert_true(report_write(full, (enum bill_format)f, &in, false, &e) < 0);
		assert_non_null(strstr(e.text, "cannot write the report"));
		fclose(full);
	}
	profile_destroy(p);
}

static void test_a_profile_is_shown(void **state)
{
	struct profile *p = load("k10-2350");
	struct error e = {0};
	char *text = NULL;
	size_t size_bytes;
	FILE *f = open_memstream(&text, &size_bytes);

	assert_int_equal(report_profile_show(f, p, false, &e), 0);
	fclose(f);
	assert_non_null(strstr(text, ".prices[\"exit.table_write\"].handling"));
	assert_non_null(strstr(text, "512 entries, 4-way, 4K"));
	free(text);

	f = open_memstream(&text, &size_bytes);
	assert_int_equal(report_profile_show(f, p, true, &e), 0);
	fclose(f);
	struct profile *again = NULL;
	assert_int_equal(profile_parse("shown", text, size_bytes, &again, &e), 0);
	assert_int_equal(again->fact_count, p->fact_count);
	profile_destroy(again);
	free(text);
	profile_destroy(p);
}

static char *diff_text(const struct profile *a, const struct profile *b, bool is_json)
{
	struct error e = {0};
	char *text = NULL;
	size_t size_bytes;
	FILE *f = open_memstream(&text, &size_bytes);

	assert_int_equal(report_profile_diff(f, a, b, is_json, &e), 0);
	fclose(f);
	return text;
}

static void test_profiles_are_held_together(void **state)
{
	struct profile *a = load("p4-672"), *b = load("harpertown-5472");
	char *same = diff_text(a, a, false), *table = diff_text(a, b, false);
	char *json = diff_text(a, b, true);
	json_t *root = json_loads(json, 0, NULL), *rows, *row;
	size_t i, absent = 0;

	assert_non_null(strstr(same, "0 facts differ"));
	assert_non_null(strstr(table, ".frequency"));
	assert_non_null(strstr(table, "3800000000 hz K"));
	assert_null(strstr(table, ".virtualization")); /* as on both: none */
	rows = json_object_get(root, "differences");
	assert_true(json_array_size(rows) > 20);
	json_array_foreach(rows, i, row)
	{
		absent += json_is_null(json_object_get(row, "a"));
		absent += json_is_null(json_object_get(row, "b"));
	}
	assert_true(absent >= 2 && absent < json_array_size(rows)); /* TLBs and caches */
	json_decref(root);
	free(same);
	free(table);
	free(json);
	profile_destroy(a);
	profile_destroy(b);
}

/* An exit that one states and the other has from "exit.*" is held against that. */
static void test_exits_are_compared_with_what_they_inherit(void **state)
{
	struct profile *a = load("p4-672"), *b = load("tulsa-7130m");
	char *json = diff_text(b, a, true);
	json_t *root = json_loads(json, 0, NULL), *row;
	size_t i;
	bool is_seen = false;

	json_array_foreach(json_object_get(root, "differences"), i, row)
	{
		const char *place = json_string_value(json_object_get(row, "place"));
		const json_t *left = json_object_get(row, "a"), *right = json_object_get(row, "b");

		if (strcmp(place, ".prices[\"exit.pf_true\"].transition"))
			continue;
		is_seen = true;
		assert_string_equal(json_string_value(json_object_get(left, "value")), "3500");
		assert_string_equal(json_string_value(json_object_get(right, "value")), "4340");
	}
	assert_true(is_seen);
	json_decref(root);
	free(json);
	profile_destroy(a);
	profile_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_ledgers_close),
		cmocka_unit_test(test_the_largest_counts_close),
		cmocka_unit_test(test_sides),
		cmocka_unit_test(test_one_cold_nested_walk),
		cmocka_unit_test(test_amounts_as_text),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_colour_only_when_allowed),
		cmocka_unit_test(test_json_closes_from_outside),
		cmocka_unit_test(test_unavailable_counters_are_null),
		cmocka_unit_test(test_nested_paging_that_no_hardware_has),
		cmocka_unit_test(test_settings_that_no_hardware_has),
		cmocka_unit_test(test_an_empty_run_is_a_bill_too),
		cmocka_unit_test(test_a_full_disk_is_told),
		cmocka_unit_test(test_a_profile_is_shown),
		cmocka_unit_test(test_profiles_are_held_together),
		cmocka_unit_test(test_exits_are_compared_with_what_they_inherit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
