/* See papers.h. */
#include "papers/papers.h"

#include <errno.h>
#include <pthread.h>
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

/* A machine's run on a thread of its own: machines of one process do not know of each other. */
struct guest_thread {
	struct papers *papers;
	enum papers_machine machine;
	pthread_t thread;
	bool is_running;
	int result;
	struct error error;
};

static void *run_guest(void *opaque)
{
	struct guest_thread *t = opaque;
	struct papers *p = t->papers;
	t->result = guest_run(&p->run[t->machine], t->machine, &p->options, &t->error);
	return NULL;
}

static int run_guests(struct papers *p, struct error *e)
{
	struct guest_thread threads[PAPERS_MACHINE_COUNT] = {0};
	int r = 0;
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT && !r; m++) {
		struct guest_thread *t = &threads[m];
		if (!p->options.guest[m].kernel)
			continue;
		t->papers = p;
		t->machine = (enum papers_machine)m;
		if (pthread_create(&t->thread, NULL, run_guest, t))
			r = error_set(e, -EAGAIN, "the host gives no thread for a guest");
		else
			t->is_running = true;
	}
	for (unsigned m = 0; m < PAPERS_MACHINE_COUNT; m++) {
		struct guest_thread *t = &threads[m];
		if (t->is_running)
			pthread_join(t->thread, NULL);
		if (t->result && !r) {
			r = t->result;
			if (e)
				*e = t->error;
		}
	}
	return r;
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
	int r = run_guests(p, e);
	if (r) {
		papers_destroy(p);
		return r;
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
