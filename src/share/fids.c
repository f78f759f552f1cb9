/* Fids: numbers that the client gives to files, and the descriptors behind them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/private.h"

static struct fid **place(struct share *s, uint32_t number)
{
	struct fid **p = &s->fids[number % BUCKETS];
	while (*p && (*p)->number != number)
		p = &(*p)->next;
	return p;
}

struct fid *fid_find(struct share *s, uint32_t number)
{
	return *place(s, number);
}

int fid_add(struct share *s, uint32_t number, int path, struct fid **out)
{
	struct fid **p = place(s, number);
	int r = *p ? EBADF : s->fid_count >= SHARE_FIDS_MAX ? ENFILE : 0;
	struct fid *f = r ? NULL : malloc(sizeof(*f));
	if (!f) {
		close(path);
		return r ? r : ENOMEM;
	}
	*f = (struct fid){.number = number, .path = path, .open = -1};
	*p = f;
	s->fid_count++;
	if (out)
		*out = f;
	return 0;
}

void fid_remove(struct share *s, uint32_t number)
{
	struct fid **p = place(s, number), *f = *p;
	if (!f)
		return;
	*p = f->next;
	close(f->path);
	if (f->open >= 0)
		close(f->open);
	free(f);
	s->fid_count--;
}

void fid_remove_all(struct share *s)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		while (s->fids[i])
			fid_remove(s, s->fids[i]->number);
}

int fid_get(struct request *q, struct fid **out)
{
	*out = fid_find(q->share, (uint32_t)get(&q->in, 4));
	return *out ? 0 : EBADF;
}

int open_named(const struct share *s, int path, int flags, int *out)
{
	char number[16];
	struct stat st;
	if (fstat(path, &st))
		return errno;
	if (S_ISLNK(st.st_mode))
		return ELOOP;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return EACCES;
	snprintf(number, sizeof(number), "%d", path);
	*out = openat(s->descriptors, number, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return *out < 0 ? errno : 0;
}

int name_get(struct request *q, char name[NAME_BYTES])
{
	if (!get_text(&q->in, name, NAME_BYTES))
		return q->in.is_short ? EBADMSG : ENAMETOOLONG;
	if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return EINVAL;
	return 0;
}

int open_path(int folder, const char *name, int *out)
{
	*out = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return *out < 0 ? errno : 0;
}

/* A file system that is mounted inside has numbers of its own; a mix of both is as good as one. */
static uint64_t unique(const struct share *s, const struct stat *st)
{
	uint64_t other = (uint64_t)(st->st_dev ^ s->device);
	return st->st_ino ^ other * 0x9e3779b97f4a7c15ull;
}

void put_qid(struct request *q, const struct stat *st)
{
	unsigned type = S_ISDIR(st->st_mode) ? 0x80 : S_ISLNK(st->st_mode) ? 0x02 : 0;
	put(&q->out, 1, type);
	put(&q->out, 4, (uint32_t)(st->st_mtim.tv_sec ^ st->st_mtim.tv_nsec ^ st->st_size << 8));
	put(&q->out, 8, unique(q->share, st));
}

int put_qid_of(struct request *q, int fd)
{
	struct stat st;
	if (fstat(fd, &st))
		return errno;
	put_qid(q, &st);
	return 0;
}
