/*
 * The papers' items: walks against (g + 1)(n + 1) - 1, the verdicts' rules, and that no item of
 * class A or B is forgotten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <cmocka.h>

#include "papers/judge.h"

static void walks_take_what_the_formula_says(void **state)
{
	static const unsigned guests[] = {2, 4, 5};
	for (unsigned g = 0; g < ARRAY_COUNT(guests); g++) {
		unsigned levels = guests[g];
		for (unsigned h = 1; h <= 5; h++)
			assert_int_equal(
				walks_count(&(struct walk_case){levels, h, false, false, "nested"}),
				(levels + 1) * (h + 1) - 1);
		assert_int_equal(walks_count(&(struct walk_case){levels, 4, false, true, "nested"}),
				 (levels + 1) * 4 - 1);
		assert_int_equal(
			walks_count(&(struct walk_case){levels, 0, false, false, "native"}),
			levels);
	}
	assert_int_equal(walks_count(&(struct walk_case){4, 4, true, true, "nested"}), 15);
	assert_int_equal(walks_count(&(struct walk_case){4, 0, false, false, "shadow"}), 4);
	assert_int_equal(walks_count(&(struct walk_case){4, 0, false, false, "no such"}), -1);
}

static enum papers_verdict ratio(double value, double expected)
{
	struct papers_answer a = {0};
	judge_ratio(&a, value, expected);
	return a.verdict;
}

static void verdicts_follow_their_rules(void **state)
{
	struct papers_answer a = {0};
	assert_int_equal(ratio(2.0, 2.56), PAPERS_REPRODUCED);
	assert_int_equal(ratio(1.2, 2.56), PAPERS_SAME_ORDER);
	assert_int_equal(ratio(5.0, 2.56), PAPERS_SAME_ORDER);
	assert_int_equal(ratio(0.8, 2.56), PAPERS_CONTRADICTED);
	assert_int_equal(ratio(0.8, 1.2), PAPERS_CONTRADICTED);
	assert_int_equal(ratio(1.01, 0.98), PAPERS_REPRODUCED);
	assert_int_equal(ratio(0.6, 0.75), PAPERS_REPRODUCED);
	assert_int_equal(ratio(0, 0.75), PAPERS_SAME_ORDER);
	judge_percent(&a, 12, 17);
	assert_int_equal(a.verdict, PAPERS_REPRODUCED);
	judge_percent(&a, 4, 17);
	assert_int_equal(a.verdict, PAPERS_SAME_ORDER);
	judge_percent(&a, -4, 17);
	assert_int_equal(a.verdict, PAPERS_CONTRADICTED);
}

static void what_differs_is_explained_and_nothing_else(void **state)
{
	for (unsigned v = 0; v < PAPERS_VERDICT_COUNT; v++) {
		struct papers_answer a = {.verdict = (enum papers_verdict)v};
		explain_difference(&a, "because");
		assert_string_equal(a.explanation,
				    v == PAPERS_SAME_ORDER || v == PAPERS_CONTRADICTED ? "because"
										       : "");
	}
}

static const struct papers_answer *find(const struct papers *p, const char *id)
{
	for (unsigned i = 0; i < papers_count(p); i++)
		if (!strcmp(papers_answer(p, i)->item->id, id))
			return papers_answer(p, i);
	fail_msg("no item %s", id);
	return NULL;
}

/* Of one vcpu: what the papers' list calls A or B without more processors, networks or disks. */
static void no_item_is_forgotten(void **state)
{
	static const char *const ids[] = {
		"000-1",  "000-2",  "000-3",  "000-4",	"000-6",  "000-7",  "000-8",  "001-2",
		"001-3",  "001-4",  "001-7",  "001-8",	"001-9",  "001-12", "001-18", "001-20",
		"003-7",  "003-11", "004-1",  "004-2",	"004-5",  "004-7",  "004-8",  "004-11",
		"004-12", "004-13", "004-16", "004-17", "004-18", "004-24", "000-5",  "001-10"};
	struct papers_options options = {.only = NULL};
	struct papers *p;
	assert_int_equal(papers_run(&p, &options, NULL), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(ids); i++)
		find(p, ids[i]);
	for (unsigned n = 2; n <= 41; n++) {
		char id[16];
		snprintf(id, sizeof(id), "002-%u", n);
		if (n != 9) /* lines of code: of their VMMs */
			find(p, id);
	}
	assert_int_equal(find(p, "002-2")->verdict, PAPERS_REPRODUCED);
	assert_int_equal(find(p, "001-10")->verdict, PAPERS_CONTRADICTED);
	assert_int_equal(find(p, "002-20")->verdict, PAPERS_NOT_ANSWERABLE);
	papers_destroy(p);
}

static void the_json_can_be_read(void **state)
{
	struct papers_options options = {.only = "002-2,004-2"};
	struct papers *p;
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	assert_int_equal(papers_run(&p, &options, NULL), 0);
	assert_int_equal(papers_count(p), 2);
	assert_int_equal(papers_write_json(f, p, NULL), 0);
	fclose(f);
	json_t *root = json_loads(text, 0, NULL);
	assert_non_null(root);
	json_t *item = json_array_get(json_object_get(root, "items"), 1);
	assert_string_equal(json_string_value(json_object_get(item, "id")), "004-2");
	assert_string_equal(json_string_value(json_object_get(item, "verdict")), "reproduced");
	json_decref(root);
	free(text);
	papers_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walks_take_what_the_formula_says),
		cmocka_unit_test(verdicts_follow_their_rules),
		cmocka_unit_test(what_differs_is_explained_and_nothing_else),
		cmocka_unit_test(no_item_is_forgotten),
		cmocka_unit_test(the_json_can_be_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
