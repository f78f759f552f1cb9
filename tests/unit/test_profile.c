/* Profiles: the shipped ones are complete and say what shared facts they state; each kind of
 * malformed one has its message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hw/hw.h"
#include "hw/lint.h"

static struct profile *load(const char *name)
{
	struct error e = {0};
	struct profile *p = NULL;

	if (profile_load(name, &p, &e))
		fail_msg("%s: %s", name, e.text);
	return p;
}

static void test_shipped_profiles_are_complete(void **state)
{
	size_t count = 0;

	for (; profile_name(count); count++) {
		struct profile *p = load(profile_name(count));

		assert_string_equal(p->name, profile_name(count));
		assert_true(p->fact_count > 75);
		for (int e = 0; e < EVENT_COUNT; e++) {
			const struct price *price = profile_price(p, (enum event)e);

			if (event_must_be_priced((enum event)e))
				assert_true(price->is_priced && price_millis(price) > 0);
			for (int part = 0; part < PRICE_PART_COUNT; part++)
				if (price->has_part[part])
					assert_true(strlen(price->part[part].source) > 8);
			if (event_group((enum event)e) == GROUP_EXIT)
				assert_true(price->has_part[PRICE_HARDWARE] &&
					    price->has_part[PRICE_SOFTWARE]);
		}
		profile_destroy(p);
	}
	assert_int_equal(count, 10);
}

static void test_files_are_what_is_built_in(void **state)
{
	for (size_t i = 0; profile_name(i); i++) {
		char path[300];

		snprintf(path, sizeof(path), "%s/profiles/%s.json", SOURCE_ROOT, profile_name(i));
		struct profile *p = load(path);
		assert_string_equal(p->name, profile_name(i));
		assert_string_equal(p->origin, path);
		profile_destroy(p);
	}
}

static void test_barcelona(void **state)
{
	struct profile *p = load("k10-2350");
	const struct tlb_geometry *g = &p->tlb;

	assert_int_equal(p->frequency_hz, 2000000000);
	assert_int_equal(g->l1d.array_count, 1);
	assert_int_equal(g->l1d.array[0].entries, 48);
	assert_int_equal(g->l1d.array[0].ways, 0);
	assert_int_equal(g->l1d.array[0].sizes, TLB_ALL_SIZES);
	assert_int_equal(g->l2d.array[0].entries, 512);
	assert_int_equal(g->l2d.array[0].ways, 4);
	assert_int_equal(g->l2i.array[0].entries, 512);
	assert_true(g->tagged && !g->pcid && !g->l2_unified);
	assert_int_equal(g->walk_cache.nested_tlb_entries, 16);
	assert_true(g->walk_cache.is_shared && g->walk_cache.pde_entries == 24);
	assert_int_equal(p->latency[CACHE_L1D].millis, 3000);
	assert_int_equal(profile_price(p, EVENT_EXIT_CPUID)->part[PRICE_HARDWARE].millis, 1300000);
	profile_destroy(p);
}

static void test_skylake(void **state)
{
	struct profile *p = load("skylake-sp");
	const struct tlb_geometry *g = &p->tlb;

	assert_int_equal(g->l1d.array_count, 3);
	assert_int_equal(g->l2d.array[0].entries, 1536);
	assert_int_equal(g->l2d.array[0].ways, 12);
	assert_int_equal(g->l2i.array_count, 0);
	assert_true(g->tagged && g->pcid && g->l2_unified && !g->walk_cache.is_shared);
	assert_int_equal(profile_price(p, EVENT_GUEST_CR3_WRITE)->part[0].mark, MARK_READ);
	profile_destroy(p);
}

static unsigned entries(const struct tlb_side *side)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < side->array_count; i++)
		if (side->array[i].sizes & TLB_4K)
			sum += side->array[i].entries;
	return sum;
}

/* Facts of each, typed in once more from the sources. */
static const struct {
	const char *name;
	unsigned mhz, l1d, l1i, l2d, l2i; /* entries for 4K pages */
	bool is_nested, is_filter, is_tagged, is_unified;
	unsigned cache_kb[CACHE_ARRAY_COUNT];
	unsigned dram, transition; /* cycles */
} said[] = {
	{"harpertown-5472",
	 3000,
	 16,
	 128,
	 256,
	 0,
	 false,
	 true,
	 false,
	 false,
	 {32, 6144, 0},
	 171,
	 1266},
	{"icelake-sp",
	 3500,
	 64,
	 128,
	 2048,
	 0,
	 true,
	 true,
	 true,
	 true,
	 {48, 1280, 61440},
	 267,
	 1150},
	{"k10-2350", 2000, 48, 32, 512, 512, true, false, true, false, {64, 512, 2048}, 200, 1300},
	{"k8-8212", 2000, 32, 32, 512, 512, false, false, true, false, {64, 1024, 0}, 171, 1500},
	{"nehalem-5570", 2930, 64, 64, 512, 0, true, true, true, true, {32, 256, 8192}, 194, 1009},
	{"p4-672", 3800, 64, 64, 0, 0, false, true, false, false, {16, 2048, 0}, 411, 3963},
	{"simics-002", 2000, 64, 64, 0, 0, false, false, true, false, {16, 0, 0}, 171, 1500},
	{"skylake-sp", 3500, 64, 128, 1536, 0, true, true, true, true, {32, 1024, 8448}, 282, 1150},
	{"tulsa-7130m", 3200, 64, 64, 0, 0, false, true, false, false, {16, 1024, 8192}, 400, 3500},
	{"zen3-milan",
	 3700,
	 64,
	 64,
	 2048,
	 512,
	 true,
	 false,
	 true,
	 false,
	 {32, 512, 32768},
	 275,
	 1360},
};

static void test_what_the_profiles_say(void **state)
{
	for (size_t i = 0; i < ARRAY_COUNT(said); i++) {
		struct profile *p = load(said[i].name);

		assert_int_equal(p->frequency_hz, said[i].mhz * 1000000ull);
		assert_int_equal(entries(&p->tlb.l1d), said[i].l1d);
		assert_int_equal(entries(&p->tlb.l1i), said[i].l1i);
		assert_int_equal(entries(&p->tlb.l1s), strcmp(p->name, "icelake-sp") ? 0 : 16);
		assert_int_equal(entries(&p->tlb.l2d), said[i].l2d);
		assert_int_equal(entries(&p->tlb.l2i), said[i].l2i);
		assert_int_equal(p->has_nested_paging, said[i].is_nested);
		assert_int_equal(p->has_pf_filter, said[i].is_filter);
		assert_int_equal(p->tlb.tagged, said[i].is_tagged);
		assert_int_equal(p->tlb.l2_unified, said[i].is_unified);
		for (int level = 0; level < CACHE_ARRAY_COUNT; level++)
			assert_int_equal(p->caches.level[level].size_bytes,
					 said[i].cache_kb[level] * 1024ull);
		assert_int_equal(p->latency[CACHE_DRAM].millis, said[i].dram * 1000);
		assert_int_equal(profile_price(p, EVENT_EXIT_CPUID)->part[PRICE_HARDWARE].millis,
				 said[i].transition * 1000);
		profile_destroy(p);
	}
}

static void expect_load_error(const char *name, int code, const char *text)
{
	struct error e = {0};
	struct profile *p = NULL;

	assert_int_equal(profile_load(name, &p, &e), code);
	assert_null(p);
	if (!strstr(e.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, e.text);
}

static void test_names_and_files_that_are_not(void **state)
{
	expect_load_error("skylake-ps", -2, "did you mean \"skylake-sp\"?");
	expect_load_error("vax", -2, "there are: harpertown-5472, icelake-sp, k10-2350");
	expect_load_error("", -2, "no profile is called");
	expect_load_error("/nowhere/x.json", -2, "No such file");
	expect_load_error("/tmp", -22, "not a regular file");
	expect_load_error("/dev/zero", -22, "not a regular file");
	expect_load_error("/dev/null", -22, "not a regular file");
	expect_load_error("../etc.json", -2, "../etc.json");
}

static void test_files_that_are_no_profiles(void **state)
{
	char path[] = "/tmp/gnomon-profile-XXXXXX.json";
	int fd = mkstemps(path, 5);

	assert_true(fd >= 0);
	expect_load_error(path, -22, "line 1"); /* empty */
	assert_int_equal(write(fd, "\0\377{", 3), 3);
	expect_load_error(path, -22, path);
	assert_int_equal(ftruncate(fd, 2 << 20), 0);
	expect_load_error(path, -22, "larger than 1 MB");
	close(fd);
	unlink(path);
}

/* A good profile as one document that extends no other, every price stated in it. */
static char *good_text(void)
{
	struct profile *p = load("k10-2350");
	char *text = profile_text(p);

	assert_non_null(text);
	profile_destroy(p);
	return text;
}

/* The good profile with the first `from` become `to`. */
static char *edited_text(const char *from, const char *to)
{
	char *good = good_text(), *text;
	const char *at = strstr(good, from);

	if (!at)
		fail_msg("the profile has no %s", from);
	assert_true(asprintf(&text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from)) > 0);
	free(good);
	return text;
}

/* One edit of a good profile, and what the refusal must say. */
struct edit {
	const char *from, *to; /* the first `from` becomes `to` */
	const char *message;
};

static void expect_refusal(const struct edit *edit)
{
	char *text = edited_text(edit->from, edit->to);
	struct error e = {0};
	struct profile *p = NULL;

	if (!profile_parse("x.json", text, strlen(text), &p, &e))
		fail_msg("accepted: %s instead of %s", edit->to, edit->from);
	if (!strstr(e.text, edit->message))
		fail_msg("\"%s\" is not in \"%s\"", edit->message, e.text);
	assert_int_equal(e.code, -22);
	assert_null(p);
	free(text);
}

static const struct edit edits[] = {
	{"{", "", "x.json: line"},
	{"\"schema\": \"gnomon-profile\"", "\"schema\": \"other\"",
	 "\"schema\" must be \"gnomon-profile\""},
	{"\"version\": 1", "\"version\": 2", "\"version\" must be 1"},
	{"\"version\": 1", "\"version\": 1, \"version\": 1", "duplicate"},
	{"\"name\": \"k10-2350\"", "\"name\": \"\"", "\"name\" must be a string that is not empty"},
	{"\"name\": \"k10-2350\"", "\"name\": \"a/b\"", "\"name\" must have no '/'"},
	{"\"name\": \"k10-2350\"", "\"name\": \"a\\tb\"", "control character"},
	{"\"caches\"", "\"cache\"", "x.json: .: unknown key \"cache\"; did you mean \"caches\"?"},
	{"\"frequency\"", "\"zzzzzzzzzzz\"", "there may be: schema, version"},
	{"\"value\": 2000000000", "\"value\": 0",
	 ".frequency: \"value\" must be an integer from 1000000 to 100000000000"},
	{"\"value\": 2000000000", "\"value\": \"fast\"", "\"value\" must be a number"},
	{"\"value\": 2000000000", "\"value\": 1e300", "\"value\" must be an integer"},
	{"\"value\": 2000000000", "\"value\": 9223372036854775807", "\"value\" must be an integer"},
	{"\"unit\": \"hz\"", "\"unit\": \"GHz\"", "\"unit\" is \"GHz\"; here it must be \"hz\""},
	{"\"unit\": \"hz\", ", "", ".frequency: \"unit\" is missing"},
	{"\"class\": \"K\"", "\"class\": \"X\"",
	 "\"class\" is \"X\", which is none of S, T, K, D, E"},
	{"\"source\"", "\"sourc\"", ".frequency: unknown key \"sourc\"; did you mean \"source\"?"},
	{"\"tagged\": {\"value\": true", "\"tagged\": {\"value\": 1",
	 ".tlb.tagged: \"value\" must be true or false"},
	{"\"entries\": 48", "\"entries\": 0",
	 ".tlb.l1d[0]: \"entries\" must be an integer from 1 to 65536"},
	{"\"entries\": 512, \"ways\": 4", "\"entries\": 500, \"ways\": 4",
	 ".tlb.l2d[0]: 500 entries in 4 ways are no power of two of sets"},
	{"\"sizes\": [\"4K\", \"2M\"", "\"sizes\": [\"4K\", \"4K\"", "at most once"},
	{"\"sizes\": [\"4K\", \"2M\"", "\"sizes\": [\"8K\"", "at most once"},
	{"\"sizes\": [\"4K\", \"2M\", \"4M\", \"1G\"]", "\"sizes\": []",
	 ".tlb.l1d[0]: \"sizes\" must be a list of page sizes"},
	{"\"sizes\": [\"4K\", \"2M\", \"4M\", \"1G\"]", "\"sizes\": [\"2M\"]",
	 ".tlb: \"l1d\" must have an array that holds 4K pages"},
	{"\"l2_unified\": {\"value\": false", "\"l2_unified\": {\"value\": true",
	 ".tlb: \"l2i\" must be empty"},
	{"\"l1d\": [", "\"l1d\": 7, \"l1x\": [", "unknown key \"l1x\""},
	{"\"walk_cache\": {", "\"walk_cache\": {\"pte\": 3, ",
	 ".tlb.walk_cache: unknown key \"pte\"; did you mean \"pde\"?"},
	{"\"pdpte\": {\"value\": 0", "\"pdpte\": {\"value\": 4",
	 ".tlb.walk_cache: where \"shared\" is true, \"pde\" holds all levels"},
	{"\"dram\"", "\"dran\"", ".caches: unknown key \"dran\"; did you mean \"dram\"?"},
	{"\"dram\"", "\"l4\"", ".caches: unknown key \"l4\""},
	{"\"l2\": {", "\"l2\": {\"line\": 64, ", ".caches.l2: unknown key \"line\""},
	{"\"size_kb\": 64, \"ways\": 2", "\"size_kb\": 64, \"ways\": 3",
	 ".caches.l1d.array: 64 KB in 3 ways are no whole number"},
	{"\"size_kb\": 64", "\"size_kb\": 0",
	 ".caches.l1d.array: \"size_kb\" must be an integer from 1 to"},
	{"\"value\": 15,", "\"value\": 2,",
	 ".caches: the latency of \"l1d\" is above that of \"l2\""},
	{"\"value\": 200,", "\"value\": 51.999,",
	 ".caches: the latency of \"l3\" is above that of \"dram\""},
	{"\"nested_paging\"", "\"npt\"", ".virtualization: unknown key \"npt\"; there may be"},
	{"\"version\": 1,", "\"version\": 1, \"extends\": \"skylake-ps\",",
	 "which is no built-in profile; did you mean \"skylake-sp\"?"},
	{"\"version\": 1,", "\"version\": 1, \"extends\": 7,",
	 "\"extends\" must be a string that is not empty"},
	{"\"name\": \"k10-2350\"", "\"extends\": \"k10-2350\"", "\"name\" is missing"},
	{"\"tlb.l2_hit\"", "\"tlb.l2_hits\"",
	 ".prices: no event is called \"tlb.l2_hits\"; did you mean \"tlb.l2_hit\"?"},
	{"\"walk.ad_update\": ", "\"walk.ad_update\": 5, \"unhandled.msr\": ",
	 ".prices[\"walk.ad_update\"]: must be an object"},
	{"\"instruction\": ", "\"walk.guest.l1\": ",
	 ".prices: \"walk.guest.l1\" has no price: a reference costs what answers it takes"},
	{"\"instruction\": {\"value\": 1", "\"instruction\": {\"value\": -1",
	 ".prices.instruction: \"value\" must be a number with at most three decimals"},
	{"\"instruction\": {\"value\": 1", "\"instruction\": {\"value\": 0.0001",
	 "at most three decimals"},
	{"\"instruction\": {\"value\": 1", "\"instruction\": {\"value\": 1000000001",
	 "from 0 to 1000000000"},
	{"\"transition\"", "\"trans\"", ".prices[\"exit.*\"]: unknown key \"trans\""},
	{"\"instruction\": ", "\"unhandled.msr\": ",
	 ".prices: the price of \"instruction\" is missing (guest instructions retired"},
};

static void test_each_malformed_profile_has_its_message(void **state)
{
	for (size_t i = 0; i < ARRAY_COUNT(edits); i++)
		expect_refusal(&edits[i]);
}

static void test_every_truncation_is_refused(void **state)
{
	char *good = good_text();

	for (size_t n = 0; n + 2 < strlen(good); n += 37) {
		struct error e = {0};
		struct profile *p = NULL;

		assert_int_equal(profile_parse("cut", good, n, &p, &e), -22);
		assert_true(e.text[0]);
	}
	free(good);
}

static struct profile *parse_edited(const char *from, const char *to)
{
	char *text = edited_text(from, to);
	struct profile *p = NULL;
	struct error e = {0};

	if (profile_parse("edited", text, strlen(text), &p, &e))
		fail_msg("%s", e.text);
	free(text);
	return p;
}

static void test_prices_may_have_thousandths(void **state)
{
	struct profile *p = parse_edited("\"instruction\": {\"value\": 1",
					 "\"instruction\": {\"value\": 0.123");

	assert_int_equal(price_millis(profile_price(p, EVENT_INSTRUCTION)), 123);
	profile_destroy(p);
	p = parse_edited("\"instruction\": {\"value\": 1", "\"instruction\": {\"value\": 6.5");
	assert_int_equal(price_millis(profile_price(p, EVENT_INSTRUCTION)), 6500);
	profile_destroy(p);
}

/* A reference costs what answers it; a level that is not there is the next one. */
static void test_prices_of_references_follow_the_caches(void **state)
{
	struct profile *p = load("k10-2350");

	for (int level = 0; level < CACHE_LEVEL_COUNT; level++) {
		uint64_t millis = p->latency[level].millis;

		assert_int_equal(price_millis(&p->price[EVENT_REF_GUEST_L1 + level]), millis);
		assert_int_equal(price_millis(&p->price[EVENT_REF_HOST_L1 + level]), millis);
		assert_int_equal(price_millis(&p->price[EVENT_REF_SHADOW_L1 + level]), millis);
		assert_int_equal(price_millis(&p->price[EVENT_REF_DATA_L1 + level]), millis - 3000);
	}
	assert_false(p->price[EVENT_REF_DATA_L1].is_priced);
	assert_int_equal(p->price[EVENT_REF_GUEST_L1].part[PRICE_HARDWARE].mark, MARK_DERIVED);
	assert_int_equal(p->price[EVENT_REF_GUEST_DRAM].part[PRICE_HARDWARE].mark, MARK_ESTIMATE);
	assert_int_equal(p->caches.level[CACHE_L2].size_bytes, 512 << 10);
	assert_int_equal(p->caches.level[CACHE_L3].ways, 32);
	p->latency[CACHE_DRAM].millis = 250500;
	profile_derive_prices(p);
	assert_int_equal(price_millis(&p->price[EVENT_REF_HOST_DRAM]), 250500);
	profile_destroy(p);
}

static void test_a_stated_price_of_references_stays(void **state)
{
	struct profile *p = parse_edited("\"instruction\": ",
					 "\"ref.host.l3\": {\"value\": 7, \"unit\": \"cycles\", "
					 "\"class\": \"E\", \"source\": \"a whim\"}, "
					 "\"instruction\": ");

	assert_int_equal(price_millis(&p->price[EVENT_REF_HOST_L3]), 7000);
	assert_int_equal(price_millis(&p->price[EVENT_REF_GUEST_L3]), 52000);
	profile_destroy(p);
}

/* Cuts the member `key` of caches, which the text lays out as a group. */
static struct profile *without_level(const char *key)
{
	char *text = good_text(), *from, *edited;
	struct error e = {0};
	struct profile *p = NULL;

	assert_true(asprintf(&from, "\t\t\"%s\": {", key) > 0);
	char *at = strstr(text, from);
	assert_non_null(at);
	assert_true(asprintf(&edited, "%.*s%s", (int)(at - text), text,
			     strstr(at, "\n\t\t},\n") + 6) > 0);
	if (profile_parse("cut", edited, strlen(edited), &p, &e))
		assert_non_null(strstr(e.text, "\"l3\" is there without \"l2\""));
	free(edited);
	free(from);
	free(text);
	return p;
}

static void test_levels_that_are_not_there(void **state)
{
	struct profile *p = without_level("l3");

	assert_non_null(p);
	assert_int_equal(p->caches.level[CACHE_L3].size_bytes, 0);
	assert_int_equal(p->latency[CACHE_L3].millis, p->latency[CACHE_DRAM].millis);
	assert_int_equal(price_millis(&p->price[EVENT_REF_GUEST_L3]), 200000);
	profile_destroy(p);
	assert_null(without_level("l2"));
}

/* A profile that says only what differs; a fact is taken whole. */
static void test_a_profile_extends_another(void **state)
{
	static const char text[] =
		"{\"schema\": \"gnomon-profile\", \"version\": 1, \"name\": \"mine\", "
		"\"description\": \"k10 with dear exits\", \"extends\": \"k10-2350\", \"prices\": "
		"{\"exit.*\": {\"transition\": {\"value\": 4000, \"unit\": \"cycles\", "
		"\"class\": \"E\", \"source\": \"a what-if\"}}}}";
	struct profile *p = NULL, *k10 = load("k10-2350");
	struct error e = {0};

	if (profile_parse("mine", text, strlen(text), &p, &e))
		fail_msg("%s", e.text);
	assert_string_equal(p->name, "mine");
	assert_int_equal(p->fact_count, k10->fact_count);
	for (int i = EVENT_EXIT_CR_READ; i <= EVENT_EXIT_TRIPLE_FAULT; i++) {
		assert_int_equal(p->price[i].part[PRICE_HARDWARE].millis, 4000000);
		assert_int_equal(p->price[i].part[PRICE_SOFTWARE].millis,
				 k10->price[i].part[PRICE_SOFTWARE].millis);
	}
	assert_int_equal(p->latency[CACHE_L3].millis, k10->latency[CACHE_L3].millis);
	profile_destroy(p);
	profile_destroy(k10);
}

static void test_a_fact_is_never_half_inherited(void **state)
{
	static const char text[] =
		"{\"schema\": \"gnomon-profile\", \"version\": 1, \"name\": \"mine\", "
		"\"description\": \"no source\", \"extends\": \"k10-2350\", \"frequency\": "
		"{\"value\": 3000000000, \"unit\": \"hz\", \"class\": \"E\"}}";
	struct profile *p = NULL;
	struct error e = {0};

	assert_int_equal(profile_parse("mine", text, strlen(text), &p, &e), -22);
	assert_string_equal(e.text, "mine: .frequency: \"source\" is missing (a string)");
}

static void test_the_text_of_a_profile_is_a_profile(void **state)
{
	for (size_t i = 0; profile_name(i); i++) {
		struct profile *p = load(profile_name(i)), *again = NULL;
		char *text = profile_text(p), *text_again;
		struct error e = {0};

		if (profile_parse("again", text, strlen(text), &again, &e))
			fail_msg("%s", e.text);
		text_again = profile_text(again);
		assert_string_equal(text, text_again);
		assert_null(strstr(text, "\"extends\""));
		free(text);
		free(text_again);
		profile_destroy(p);
		profile_destroy(again);
	}
}

static void test_exits_without_a_price_take_the_default(void **state)
{
	char *text = good_text();
	const char *at = strstr(text, "\"exit.task_switch\"");
	char *member = strndup(at, (size_t)(strstr(at, "},\n\t\t\"") + 2 - at));
	struct profile *p = parse_edited(member, "");
	const struct price *price = profile_price(p, EVENT_EXIT_TASK_SWITCH);

	free(member);
	free(text);
	assert_int_equal(price_millis(price), price_millis(profile_price(p, EVENT_EXIT_WBINVD)));
	profile_destroy(p);
}

static void test_nothing_is_odd_about_what_is_shipped(void **state)
{
	struct finding findings[FINDINGS_MAX];

	for (size_t i = 0; profile_name(i); i++) {
		struct profile *p = load(profile_name(i));

		if (profile_lint(p, findings))
			fail_msg("%s: %s: %s", p->name, findings[0].place, findings[0].text);
		profile_destroy(p);
	}
}

static void test_what_is_odd_is_found(void **state)
{
	static const struct edit odd[] = {
		{"\"value\": 2000000000", "\"value\": 20000000", ".frequency: not between"},
		{"\"entries\": 512, \"ways\": 4", "\"entries\": 32, \"ways\": 4",
		 ".tlb.l2d: 32 entries for 4K pages behind 48"},
		{"\"tagged\": {\"value\": true", "\"tagged\": {\"value\": false", NULL},
		{"\"nested_paging\": {\"value\": true", "\"nested_paging\": {\"value\": false",
		 ".tlb.walk_cache: caches of the nested dimension"},
		{"\"size_kb\": 512", "\"size_kb\": 64", ".caches.l2.array: not larger"},
		{"\"value\": 15,", "\"value\": 3,", ".caches.l2.latency: as fast as"},
		{"\"value\": 1300,", "\"value\": 13,", ".prices[\"exit.cr_read\"]: a transition"},
		{"\"tlb.miss\": {\"value\": 6", "\"tlb.miss\": {\"value\": 0",
		 ".prices[\"tlb.miss\"]: costs nothing"},
		{"\"tlb.l2_hit\": {\"value\": 6", "\"tlb.l2_hit\": {\"value\": 600",
		 ".prices[\"tlb.l2_hit\"]: dearer than an access to memory"},
		{"\"class\": \"E\", \"source\": \"no source",
		 "\"class\": \"T\", \"source\": \"no source",
		 "class T, but the source says \"no source\": that is class E"},
		{"AMD: Opteron 2350, 2.0 GHz", "AMD", ".frequency: the source is too short"},
	};

	for (size_t i = 0; i < ARRAY_COUNT(odd); i++) {
		struct profile *p = parse_edited(odd[i].from, odd[i].to);
		struct finding findings[FINDINGS_MAX];
		size_t count = profile_lint(p, findings);
		char text[300] = "";

		if (count)
			snprintf(text, sizeof(text), "%s: %s", findings[0].place, findings[0].text);
		if (!odd[i].message != !count || (count && !strstr(text, odd[i].message)))
			fail_msg("%s: found \"%s\"", odd[i].to, text);
		profile_destroy(p);
	}
}

static void test_destroy_takes_null(void **state)
{
	profile_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shipped_profiles_are_complete),
		cmocka_unit_test(test_files_are_what_is_built_in),
		cmocka_unit_test(test_barcelona),
		cmocka_unit_test(test_skylake),
		cmocka_unit_test(test_what_the_profiles_say),
		cmocka_unit_test(test_names_and_files_that_are_not),
		cmocka_unit_test(test_files_that_are_no_profiles),
		cmocka_unit_test(test_each_malformed_profile_has_its_message),
		cmocka_unit_test(test_every_truncation_is_refused),
		cmocka_unit_test(test_prices_may_have_thousandths),
		cmocka_unit_test(test_prices_of_references_follow_the_caches),
		cmocka_unit_test(test_a_stated_price_of_references_stays),
		cmocka_unit_test(test_levels_that_are_not_there),
		cmocka_unit_test(test_a_profile_extends_another),
		cmocka_unit_test(test_a_fact_is_never_half_inherited),
		cmocka_unit_test(test_the_text_of_a_profile_is_a_profile),
		cmocka_unit_test(test_exits_without_a_price_take_the_default),
		cmocka_unit_test(test_nothing_is_odd_about_what_is_shipped),
		cmocka_unit_test(test_what_is_odd_is_found),
		cmocka_unit_test(test_destroy_takes_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
