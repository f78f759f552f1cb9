/* Lowering with a memory (lower_form.h) makes of an instruction what lowering it for the first time
 * makes of it. */
#include "engine/interp/lower_form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/vcpu.h"
#include "engine/interp/host.h"

#define INSTRUCTIONS 30000
#define NUMBERS 4 /* of each instruction */
#define KNOWN_SHARE 2

struct world {
	struct interp vm;
	struct interp_vcpu c;
	struct vcpu v;
	struct cpu_model model;
	struct block *b;
	uint64_t random;
	unsigned known_count, asked_count;
};

static uint64_t next_random(struct world *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	return w->random ^= w->random << 17;
}

static int create(void **state)
{
	struct error e;
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	w->b = calloc(1, sizeof(*w->b) + 16 * sizeof(struct insn));
	assert_non_null(w->b);
	assert_int_equal(cpu_model_parse(&w->model, "x86-64-v2", &e), 0);
	assert_int_equal(decoder_create(&w->vm.decoder, &e), 0);
	assert_int_equal(host_stubs_create(&w->vm.stubs, &e), 0);
	w->v.model = &w->model;
	w->c.v = &w->v;
	w->c.vm = &w->vm;
	w->c.key = KEY_CODE64 | KEY_PROTECTED;
	w->random = 88172645463325252ull;
	*state = w;
	return 0;
}

static int destroy(void **state)
{
	struct world *w = *state;
	decoder_destroy(w->vm.decoder);
	host_stubs_destroy(w->vm.stubs);
	free(w->b);
	free(w);
	return 0;
}

/* One instruction behind `before` NOPs, as a block has it. */
static struct insn lower(struct world *w, const uint8_t *bytes, unsigned before)
{
	uint8_t code[8 + INSN_BYTES_MAX];
	memset(code, 0x90, before);
	memcpy(code + before, bytes, INSN_BYTES_MAX);
	w->b->gfn2 = ~0ull;
	lower_block(&w->c, w->b, code, before + INSN_BYTES_MAX, before + 1);
	assert_int_equal(w->b->count, before + 1);
	return w->b->insns[before];
}

static void assert_same(const struct insn *a, const struct insn *b)
{
	assert_ptr_equal(a->exec, b->exec);
	assert_int_equal(a->imm, b->imm);
	assert_int_equal(a->disp, b->disp);
	assert_memory_equal(&a->offset, &b->offset, sizeof(*a) - offsetof(struct insn, offset));
}

static void assert_lawful(struct world *w, const uint8_t *bytes)
{
	struct decode_found found;
	unsigned before = next_random(w) & 7;
	struct insn known = lower(w, bytes, before),
		    expected = {.offset = (uint16_t)before, .mode = 64};
	const struct decoded *x =
		decoder_decode(w->vm.decoder, DECODE_64, bytes, INSN_BYTES_MAX, NULL);
	struct lowering l = {.vm = &w->vm, .model = &w->model, .key = w->c.key, .bytes = bytes};
	bool writes;
	if (!x)
		return;
	lower_one(&l, &expected, x);
	assert_same(&known, &expected);
	w->asked_count++;
	w->known_count += decoder_find(w->vm.decoder, DECODE_64, bytes, INSN_BYTES_MAX, &found) &&
			  lower_recall(&l, &found, &known, &writes);
}

/* Random prefixes, opcodes and registers; of each what random numbers behind them, small ones
 * first, so that some are alike, make of it. */
static void test_law(void **state)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x65, 0x2e};
	struct world *w = *state;
	for (unsigned n = 0; n < INSTRUCTIONS; n++) {
		uint8_t bytes[INSN_BYTES_MAX];
		uint64_t r = next_random(w);
		unsigned at = 0;
		if (!(r & 7))
			bytes[at++] = prefixes[(r >> 3) % sizeof(prefixes)];
		if (r >> 24 & 1)
			bytes[at++] = 0x40 | (r >> 25 & 15);
		if ((r >> 32 & 3) == 0)
			bytes[at++] = 0x0f;
		bytes[at++] = (uint8_t)(r >> 8);
		bytes[at++] = (uint8_t)(r >> 16);
		for (unsigned k = 0; k < NUMBERS; k++) {
			for (unsigned i = at; i < INSN_BYTES_MAX; i++)
				bytes[i] = (uint8_t)(next_random(w) & (k % 2 ? 0xff : 3));
			assert_lawful(w, bytes);
		}
		host_stubs_reset(w->vm.stubs);
	}
	assert_true(w->known_count > w->asked_count / KNOWN_SHARE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_law, create, destroy)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
