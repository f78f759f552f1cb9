/* See papers.h. */
#include "papers/papers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "papers/private.h"

const char *papers_verdict_name(enum papers_verdict v)
{
	static const char *const names[] = {"reproduced", "same ordering", "contradicted",
					    "not answerable"};
	return names[v];
}

static bool is_wanted(const char *only, const char *id)
{
	size_t length = strlen(id), at_length;
	for (const char *at = only; at && *at; at += at_length + (at[at_length] == ',')) {
		at_length = strcspn(at, ",");
		if (at_length == length && !strncmp(at, id, length))
			return true;
	}
	return !only;
}

static void answer_all(struct papers *p, const struct papers_item *items, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (!is_wanted(p->options.only, items[i].id))
			continue;
		struct papers_answer *a = &p->answers[p->answer_count++];
		a->item = &items[i];
		items[i].answer(p, a);
	}
}

int papers_run(struct papers **out, const struct papers_options *options, struct error *e)
{
	unsigned all = papers_items_000_count + papers_items_002_count + papers_items_004_count;
	struct papers *p = calloc(1, sizeof(*p));
	*out = NULL;
	if (p)
		p->answers = calloc(all, sizeof(*p->answers));
	if (!p || !p->answers) {
		papers_destroy(p);
		return error_set(e, -ENOMEM, "out of memory");
	}
	p->options = *options;
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT; m++) {
		if (!options->guest[m].kernel)
			continue;
		int r = guest_run(&p->run[m], (enum papers_machine)m, options, e);
		if (r) {
			papers_destroy(p);
			return r;
		}
	}
	answer_all(p, papers_items_000, papers_items_000_count);
	answer_all(p, papers_items_002, papers_items_002_count);
	answer_all(p, papers_items_004, papers_items_004_count);
	*out = p;
	return 0;
}

void papers_destroy(struct papers *p)
{
	if (!p)
		return;
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT; m++)
		guest_fini(&p->run[m]);
	free(p->answers);
	free(p);
}

unsigned papers_count(const struct papers *p)
{
	return p->answer_count;
}

const struct papers_answer *papers_answer(const struct papers *p, unsigned i)
{
	return &p->answers[i];
}
