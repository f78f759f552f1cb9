/*
 * What the interpreter executed in translated code's place, by instruction and reason: the list of
 * what is left to translate. Always counted, for a call of the interpreter costs much more than to
 * note it.
 */
#include "engine/trans/trans_private.h"

#include <errno.h>
#include <stdlib.h>

#include "ledger/ledger.h"

void statistics_note(struct trans_vcpu *t, const struct site *site, enum trans_why why)
{
	t->c->attempt = &t->interpreted[why][site->mnemonic];
	++*t->c->attempt;
}

static int by_count(const void *a, const void *b)
{
	uint64_t x = ((const struct trans_interpreted *)a)->count;
	uint64_t y = ((const struct trans_interpreted *)b)->count;
	return x < y ? 1 : x > y ? -1 : 0;
}

static void add_vcpu(struct trans_statistics *s, const struct trans_vcpu *t)
{
	s->executed += t->executed;
	s->translated += t->in_code;
	for (unsigned why = 0; why < TRANS_WHY_COUNT; why++)
		for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
			s->list[why * (ZYDIS_MNEMONIC_MAX_VALUE + 1u) + m].count +=
				t->interpreted[why][m];
}

int trans_statistics_read(const struct engine *engine, struct trans_statistics *out,
			  struct error *e)
{
	const struct trans *trans =
		(const struct trans *)(uintptr_t)((const struct interp *)engine)->translator;
	const unsigned per_why = ZYDIS_MNEMONIC_MAX_VALUE + 1;
	unsigned used = 0;
	*out = (struct trans_statistics){0};
	out->list = calloc((size_t)TRANS_WHY_COUNT * per_why, sizeof(*out->list));
	if (!out->list)
		return error_set(e, -ENOMEM, "no memory for the translator's counts");
	for (unsigned n = 0; trans->vcpus[n]; n++)
		add_vcpu(out, trans->vcpus[n]);
	for (unsigned k = 0; k < TRANS_WHY_COUNT * per_why; k++) {
		uint64_t count = out->list[k].count;
		unsigned m = k % per_why;
		if (!count)
			continue;
		out->list[used++] = (struct trans_interpreted){
			.name = m ? ZydisMnemonicGetString((ZydisMnemonic)m) : "(undefined)",
			.why = k / per_why,
			.count = count};
	}
	out->count = used;
	qsort(out->list, used, sizeof(*out->list), by_count);
	return 0;
}

void trans_statistics_fini(struct trans_statistics *statistics)
{
	free(statistics->list);
}
