/* Requests about names: walking, listing, making, moving and removing. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "share/private.h"

#define WALK_MAX 16
#define ENTRY_BYTES (13 + 8 + 1 + 2) /* without the name */

/* Goes down from `from`, closing what it passes; puts one qid a step. */
static int descend(struct request *q, int from, unsigned count, unsigned *steps, int *out)
{
	*out = fcntl(from, F_DUPFD_CLOEXEC, 0);
	if (*out < 0)
		return errno;
	for (*steps = 0; *steps < count; ++*steps) {
		char name[NAME_BYTES];
		int next, r = name_get(q, name);
		if (!r)
			r = open_path(*out, name, &next);
		if (r) {
			close(*out);
			return r;
		}
		close(*out);
		*out = next;
		r = put_qid_of(q, next);
		if (r) {
			close(next);
			return r;
		}
	}
	return 0;
}

int do_walk(struct request *q)
{
	struct fid *f;
	int fd, r = fid_get(q, &f);
	uint32_t number = (uint32_t)get(&q->in, 4);
	unsigned steps = 0, count = (unsigned)get(&q->in, 2);
	if (r || q->in.is_short || count > WALK_MAX)
		return r ? r : EINVAL;
	if (number != f->number && fid_find(q->share, number))
		return EBADF;
	if (number == f->number && f->open >= 0)
		return EBADF;
	struct writer count_at = q->out;
	put(&q->out, 2, 0);
	r = descend(q, f->path, count, &steps, &fd);
	put(&count_at, 2, steps);
	if (r) /* half the way is an answer, but no new fid */
		return steps ? 0 : r;
	if (number != f->number)
		return fid_add(q->share, number, fd, NULL);
	close(f->path);
	f->path = fd;
	return 0;
}

/* ---- listing ---- */

struct entry { /* as getdents64() has it */
	uint64_t inode, next;
	uint16_t bytes;
	uint8_t type;
	char name[];
} __attribute__((packed));

static bool put_entry(struct request *q, const struct entry *d, uint8_t *end)
{
	size_t length = strlen(d->name);
	if (length >= NAME_BYTES || (size_t)(end - q->out.at) < ENTRY_BYTES + length)
		return false;
	put(&q->out, 1, d->type == DT_DIR ? 0x80 : d->type == DT_LNK ? 0x02 : 0);
	put(&q->out, 4, 0);
	put(&q->out, 8, d->inode);
	put(&q->out, 8, d->next);
	put(&q->out, 1, d->type);
	put_text(&q->out, d->name, length);
	return true;
}

int do_readdir(struct request *q)
{
	_Alignas(8) char bytes[8192];
	struct fid *f;
	int r = fid_get(q, &f);
	uint64_t offset = get(&q->in, 8);
	size_t count = get(&q->in, 4), room = (size_t)(q->out.end - q->out.at);
	if (r || q->in.is_short || f->open < 0 || room < 4)
		return r ? r : EBADF;
	struct writer count_at = q->out;
	put(&q->out, 4, 0);
	uint8_t *start = q->out.at;
	uint8_t *end = start + (count < room - 4 ? count : room - 4);
	if (lseek(f->open, (off_t)offset, SEEK_SET) < 0)
		return errno;
	for (bool is_full = false; !is_full;) {
		long n = syscall(SYS_getdents64, f->open, bytes, sizeof(bytes));
		if (n < 0)
			return errno;
		if (!n)
			break;
		for (long at = 0; at < n && !is_full;) {
			const struct entry *d = (const struct entry *)(bytes + at);
			is_full = !put_entry(q, d, end);
			at += d->bytes;
		}
	}
	put(&count_at, 4, (uint64_t)(q->out.at - start));
	return 0;
}

int do_readlink(struct request *q)
{
	char target[PATH_MAX];
	struct fid *f;
	int r = fid_get(q, &f);
	if (r)
		return r;
	ssize_t n = readlinkat(f->path, "", target, sizeof(target));
	if (n < 0)
		return errno == ENOENT ? EINVAL : errno; /* it is no link */
	put_text(&q->out, target, (size_t)n);
	return 0;
}

/* ---- making ---- */

/* The folder and the name that a request begins with; only where something may be made. */
static int get_place(struct request *q, struct fid **folder, char name[NAME_BYTES])
{
	int r = fid_get(q, folder);
	int r2 = name_get(q, name);
	if (r || r2)
		return r ? r : r2;
	return q->share->is_read_only ? EROFS : 0;
}

static int answer_new(struct request *q, const struct fid *folder, const char *name)
{
	int fd, r = open_path(folder->path, name, &fd);
	if (r)
		return r;
	r = put_qid_of(q, fd);
	close(fd);
	return r;
}

int do_symlink(struct request *q)
{
	char name[NAME_BYTES], target[PATH_MAX];
	struct fid *f;
	int r = get_place(q, &f, name);
	if (r || !get_text(&q->in, target, sizeof(target)))
		return r ? r : ENAMETOOLONG;
	return symlinkat(target, f->path, name) ? errno : answer_new(q, f, name);
}

int do_mkdir(struct request *q)
{
	char name[NAME_BYTES];
	struct fid *f;
	int r = get_place(q, &f, name);
	uint32_t mode = (uint32_t)get(&q->in, 4);
	if (r || q->in.is_short)
		return r ? r : EBADMSG;
	return mkdirat(f->path, name, mode & 0777) ? errno : answer_new(q, f, name);
}

int do_link(struct request *q)
{
	char name[NAME_BYTES], number[16];
	struct fid *f, *old;
	int r = fid_get(q, &f);
	int r2 = fid_get(q, &old);
	int r3 = name_get(q, name);
	struct stat st;
	if (r || r2 || r3)
		return r ? r : r2 ? r2 : r3;
	if (q->share->is_read_only)
		return EROFS;
	if (fstat(old->path, &st) || !S_ISREG(st.st_mode))
		return EPERM;
	snprintf(number, sizeof(number), "%d", old->path);
	return linkat(q->share->descriptors, number, f->path, name, AT_SYMLINK_FOLLOW) ? errno : 0;
}

/* ---- moving and removing ---- */

int do_renameat(struct request *q)
{
	char from[NAME_BYTES], to[NAME_BYTES];
	struct fid *f, *g;
	int r = get_place(q, &f, from);
	int r2 = r ? r : get_place(q, &g, to);
	if (r2)
		return r2;
	return renameat(f->path, from, g->path, to) ? errno : 0;
}

/* By fid: nobody says where the file is. Clients use Trenameat where there is one. */
int do_rename(struct request *q)
{
	(void)q;
	return EOPNOTSUPP;
}

int do_unlinkat(struct request *q)
{
	char name[NAME_BYTES];
	struct fid *f;
	int r = get_place(q, &f, name);
	uint32_t flags = (uint32_t)get(&q->in, 4);
	if (r || q->in.is_short)
		return r ? r : EBADMSG;
	return unlinkat(f->path, name, flags & AT_REMOVEDIR) ? errno : 0;
}
