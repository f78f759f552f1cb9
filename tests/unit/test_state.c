/* Saved state: what is put can be got back, hashes are those of the bytes, damaged bytes are
 * refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "state/state.h"

#include <cmocka.h>

struct sample {
	uint64_t a;
	uint32_t b, c;
};

static void put_samples(struct state_writer *w)
{
	struct sample s = {1, 2, 3}, t = {4, 5, 6};
	state_put(w, "first", 1, &s, sizeof(s));
	state_put(w, "empty", 7, NULL, 0);
	state_put(w, "second", 2, &t, sizeof(t));
}

static void test_round_trip(void **state)
{
	struct state_writer *w = NULL, *h = NULL;
	struct state_reader *r = NULL;
	struct error e = {0};
	struct sample s;
	size_t n;
	char from_buffer[33], from_hasher[33], changed[33];
	assert_int_equal(state_buffer_create(&w), 0);
	assert_int_equal(state_hasher_create(&h), 0);
	put_samples(w);
	put_samples(h);
	state_hash_text(w, from_buffer);
	state_hash_text(h, from_hasher);
	assert_string_equal(from_buffer, from_hasher);
	assert_int_equal(strlen(from_buffer), 32);
	state_put(h, "x", 1, "", 1);
	state_hash_text(h, changed);
	assert_string_not_equal(changed, from_hasher);

	const uint8_t *bytes = state_buffer_bytes(w, &n);
	assert_int_equal(state_reader_create(&r, bytes, n, &e), 0);
	assert_int_equal(state_get(r, "second", 2, &s, sizeof(s), &e), 0);
	assert_int_equal(s.a, 4);
	assert_int_equal(s.c, 6);
	assert_int_equal(state_get(r, "empty", 7, NULL, 0, &e), 0);
	assert_int_equal(state_get(r, "third", 1, &s, sizeof(s), &e), -ENOENT);
	assert_int_equal(state_get(r, "first", 2, &s, sizeof(s), &e), -EINVAL);
	assert_int_equal(state_get(r, "first", 1, &s, 4, &e), -EINVAL);
	assert_non_null(strstr(e.text, "first"));
	state_reader_destroy(r);
	state_writer_destroy(w);
	state_writer_destroy(h);
	state_writer_destroy(NULL);
	state_reader_destroy(NULL);
}

/* Every truncation and every damaged header byte is either refused or read without touching what is
 * not there. */
static void test_damage(void **state)
{
	struct state_writer *w = NULL;
	size_t n;
	assert_int_equal(state_buffer_create(&w), 0);
	put_samples(w);
	const uint8_t *bytes = state_buffer_bytes(w, &n);
	for (size_t cut = 1; cut < n; cut++) {
		struct state_reader *r = NULL;
		uint8_t *copy = malloc(cut);
		memcpy(copy, bytes, cut);
		bool is_section_end = cut == 64 || cut == 112;
		struct error e = {0};
		assert_int_equal(state_reader_create(&r, copy, cut, &e),
				 is_section_end ? 0 : -EINVAL);
		assert_true(is_section_end || strstr(e.text, "byte"));
		state_reader_destroy(r);
		free(copy);
	}
	for (size_t at = 0; at < n; at++) {
		struct state_reader *r = NULL;
		struct sample s;
		uint8_t *copy = malloc(n);
		memcpy(copy, bytes, n);
		copy[at] = 0xff;
		if (!state_reader_create(&r, copy, n, NULL))
			state_get(r, "second", 2, &s, sizeof(s), NULL);
		state_reader_destroy(r);
		free(copy);
	}
	state_writer_destroy(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_damage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
