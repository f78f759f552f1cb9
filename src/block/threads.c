/* A few threads that take requests from a list and put them on another when they are done. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "block/block_private.h"

#define THREADS_MAX 8

struct list {
	struct block_request *first, **last;
};

struct block_workers {
	struct block *block; /* borrowed */
	pthread_mutex_t mutex;
	pthread_cond_t has_work, has_result;
	struct list waiting, finished;
	bool is_ending;
	int fd;
	unsigned count;
	pthread_t threads[THREADS_MAX];
};

static void list_init(struct list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static void list_add(struct list *l, struct block_request *r)
{
	r->next = NULL;
	*l->last = r;
	l->last = &r->next;
}

static struct block_request *list_take(struct list *l)
{
	struct block_request *r = l->first;
	if (r && !(l->first = r->next))
		l->last = &l->first;
	return r;
}

static void finish(struct block_workers *w, struct block_request *r)
{
	const uint64_t one = 1;
	list_add(&w->finished, r);
	pthread_cond_signal(&w->has_result);
	/* It cannot be full: the reader empties it, and adds are few. */
	ssize_t ignored = write(w->fd, &one, sizeof(one));
	(void)ignored;
}

static void *work(void *opaque)
{
	struct block_workers *w = opaque;
	pthread_mutex_lock(&w->mutex);
	for (;;) {
		struct block_request *r = list_take(&w->waiting);
		if (!r && w->is_ending)
			break;
		if (!r) {
			pthread_cond_wait(&w->has_work, &w->mutex);
			continue;
		}
		pthread_mutex_unlock(&w->mutex);
		r->result = block_do(w->block, r);
		pthread_mutex_lock(&w->mutex);
		finish(w, r);
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

/* Signals are the main thread's business. */
static int start_threads(struct block_workers *w, unsigned count)
{
	sigset_t all, old;
	int r = 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!r && w->count < count && w->count < THREADS_MAX) {
		r = pthread_create(&w->threads[w->count], NULL, work, w);
		w->count += !r;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

int block_workers_create(struct block_workers **out, struct block *b, unsigned count,
			 struct error *e)
{
	struct block_workers *w = calloc(1, sizeof(*w));
	if (!w)
		return error_set(e, -ENOMEM, "out of memory");
	w->block = b;
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->has_work, NULL);
	pthread_cond_init(&w->has_result, NULL);
	list_init(&w->waiting);
	list_init(&w->finished);
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = w->fd < 0 ? -errno : start_threads(w, count);
	if (r) {
		block_workers_destroy(w);
		return error_set(e, r, "no threads for the disk: %s", strerror(-r));
	}
	*out = w;
	return 0;
}

void block_workers_destroy(struct block_workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->mutex);
	w->is_ending = true;
	pthread_cond_broadcast(&w->has_work);
	pthread_mutex_unlock(&w->mutex);
	for (unsigned i = 0; i < w->count; i++)
		pthread_join(w->threads[i], NULL);
	if (w->fd >= 0)
		close(w->fd);
	pthread_cond_destroy(&w->has_result);
	pthread_cond_destroy(&w->has_work);
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

int block_workers_fd(const struct block_workers *w)
{
	return w->fd;
}

void block_workers_submit(struct block_workers *w, struct block_request *r)
{
	pthread_mutex_lock(&w->mutex);
	list_add(&w->waiting, r);
	pthread_cond_signal(&w->has_work);
	pthread_mutex_unlock(&w->mutex);
}

unsigned block_workers_reap(struct block_workers *w, bool must_wait)
{
	uint64_t count;
	ssize_t ignored = read(w->fd, &count, sizeof(count));
	(void)ignored;
	pthread_mutex_lock(&w->mutex);
	while (must_wait && !w->finished.first)
		pthread_cond_wait(&w->has_result, &w->mutex);
	struct list done = w->finished;
	if (!done.first)
		done.last = &done.first;
	list_init(&w->finished);
	pthread_mutex_unlock(&w->mutex);
	unsigned n = 0;
	for (struct block_request *r = done.first, *next; r; r = next, n++) {
		next = r->next; /* `done` may give r away */
		w->block->in_flight--;
		r->done(r);
	}
	return n;
}
