/* Requests about one file: opening, reading and writing, attributes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "share/private.h"

/* Bits of Tlopen's flags that mean something here: those of x86-64's Linux. */
#define KNOWN_FLAGS (O_ACCMODE | O_TRUNC | O_DSYNC | O_SYNC)
#define CREATE_MODE 0777u

enum set_bits {
	SET_MODE = 1,
	SET_UID = 2,
	SET_GID = 4,
	SET_SIZE = 8,
	SET_ATIME = 0x10,
	SET_MTIME = 0x20,
	SET_ATIME_TO = 0x80,
	SET_MTIME_TO = 0x100,
};

static bool writes(uint32_t flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

static int answer_open(struct request *q, const struct fid *f)
{
	int r = put_qid_of(q, f->open);
	put(&q->out, 4, 0); /* iounit: what fits into a message */
	return r;
}

int do_lopen(struct request *q)
{
	struct fid *f;
	int r = fid_get(q, &f);
	uint32_t flags = (uint32_t)get(&q->in, 4);
	if (r || f->open >= 0)
		return r ? r : EBADF;
	if (writes(flags) && q->share->is_read_only)
		return EROFS;
	r = open_named(q->share, f->path, (int)(flags & KNOWN_FLAGS), &f->open);
	return r ? r : answer_open(q, f);
}

/* What is there already is opened like any other file: it may be no regular one. */
static int open_or_create(const struct share *s, int folder, const char *name, uint32_t flags,
			  uint32_t mode, int *out)
{
	int wanted = (int)(flags & KNOWN_FLAGS);
	for (unsigned tries = 0; tries < 8; tries++) {
		int path;
		*out = openat(folder, name,
			      wanted | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
			      mode & CREATE_MODE);
		if (*out >= 0)
			return 0;
		if (errno != EEXIST || flags & O_EXCL)
			return errno;
		int r = open_path(folder, name, &path);
		if (r == ENOENT)
			continue; /* gone again */
		if (r)
			return r;
		r = open_named(s, path, wanted, out);
		close(path);
		return r;
	}
	return EBUSY;
}

int do_lcreate(struct request *q)
{
	char name[NAME_BYTES];
	struct fid *f;
	int opened, r = fid_get(q, &f);
	int r2 = name_get(q, name);
	uint32_t flags = (uint32_t)get(&q->in, 4), mode = (uint32_t)get(&q->in, 4);
	if (r || r2 || q->in.is_short || f->open >= 0)
		return r ? r : r2 ? r2 : EBADF;
	if (q->share->is_read_only)
		return EROFS;
	r = open_or_create(q->share, f->path, name, flags, mode, &opened);
	if (r)
		return r;
	int path = fcntl(opened, F_DUPFD_CLOEXEC, 0);
	if (path < 0) {
		r = errno;
		close(opened);
		return r;
	}
	close(f->path);
	f->path = path;
	f->open = opened;
	return answer_open(q, f);
}

int do_getattr(struct request *q)
{
	const uint64_t basic = 0x7ff;
	struct stat st;
	struct fid *f;
	int r = fid_get(q, &f);
	if (r)
		return r;
	if (fstat(f->path, &st))
		return errno;
	struct writer *w = &q->out;
	put(w, 8, basic);
	put_qid(q, &st);
	put(w, 4, st.st_mode);
	put(w, 4, st.st_uid);
	put(w, 4, st.st_gid);
	put(w, 8, st.st_nlink);
	put(w, 8, st.st_rdev);
	put(w, 8, (uint64_t)st.st_size);
	put(w, 8, (uint64_t)st.st_blksize);
	put(w, 8, (uint64_t)st.st_blocks);
	const struct timespec *times[] = {&st.st_atim, &st.st_mtim, &st.st_ctim};
	for (size_t i = 0; i < ARRAY_COUNT(times); i++) {
		put(w, 8, (uint64_t)times[i]->tv_sec);
		put(w, 8, (uint64_t)times[i]->tv_nsec);
	}
	for (unsigned i = 0; i < 4; i++) /* birth, generation, version: not known */
		put(w, 8, 0);
	return 0;
}

static struct timespec time_of(uint32_t valid, unsigned now_bit, unsigned to_bit, uint64_t seconds,
			       uint64_t ns)
{
	if (!(valid & now_bit))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (!(valid & to_bit))
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){.tv_sec = (time_t)seconds,
				 .tv_nsec = ns < 1000000000 ? (long)ns : 0};
}

static int resize(struct request *q, const struct fid *f, uint64_t bytes)
{
	int fd, r = open_named(q->share, f->path, O_WRONLY, &fd);
	if (r)
		return r;
	r = bytes > INT64_MAX || ftruncate(fd, (off_t)bytes) ? EINVAL : 0;
	close(fd);
	return r;
}

/* fchmod() does not take descriptors that only name. */
static int change_mode(struct request *q, const struct fid *f, uint32_t mode)
{
	char number[16];
	struct stat st;
	if (fstat(f->path, &st))
		return errno;
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return EOPNOTSUPP;
	snprintf(number, sizeof(number), "%d", f->path);
	return fchmodat(q->share->descriptors, number, mode & CREATE_MODE, 0) ? errno : 0;
}

int do_setattr(struct request *q)
{
	struct fid *f;
	int r = fid_get(q, &f);
	uint32_t valid = (uint32_t)get(&q->in, 4), mode = (uint32_t)get(&q->in, 4);
	uint32_t uid = (uint32_t)get(&q->in, 4), gid = (uint32_t)get(&q->in, 4);
	uint64_t bytes = get(&q->in, 8), v[4];
	for (unsigned i = 0; i < 4; i++)
		v[i] = get(&q->in, 8);
	if (r || q->in.is_short)
		return r ? r : EBADMSG;
	if (q->share->is_read_only)
		return EROFS;
	if (valid & (SET_UID | SET_GID) &&
	    fchownat(f->path, "", valid & SET_UID ? uid : (uid_t)-1,
		     valid & SET_GID ? gid : (gid_t)-1, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return errno;
	if (valid & SET_MODE && (r = change_mode(q, f, mode)))
		return r;
	if (valid & SET_SIZE && (r = resize(q, f, bytes)))
		return r;
	const struct timespec times[2] = {time_of(valid, SET_ATIME, SET_ATIME_TO, v[0], v[1]),
					  time_of(valid, SET_MTIME, SET_MTIME_TO, v[2], v[3])};
	if (valid & (SET_ATIME | SET_MTIME) && utimensat(f->path, "", times, AT_EMPTY_PATH))
		return errno;
	return 0;
}

/* Reads into the answer itself, behind the count. */
int do_read(struct request *q)
{
	struct fid *f;
	int r = fid_get(q, &f);
	uint64_t offset = get(&q->in, 8);
	size_t count = get(&q->in, 4);
	if (r || q->in.is_short || f->open < 0 || offset > INT64_MAX)
		return r ? r : EBADF;
	uint8_t *data = q->out.at + 4;
	size_t room = q->out.end > data ? (size_t)(q->out.end - data) : 0;
	ssize_t n = pread(f->open, data, count < room ? count : room, (off_t)offset);
	if (n < 0)
		return errno;
	put(&q->out, 4, (uint64_t)n);
	q->out.at += n;
	return 0;
}

int do_write(struct request *q)
{
	struct fid *f;
	int r = fid_get(q, &f);
	uint64_t offset = get(&q->in, 8);
	size_t count = get(&q->in, 4), there = (size_t)(q->in.end - q->in.at);
	if (r || q->in.is_short || f->open < 0 || offset > INT64_MAX || count > there)
		return r ? r : EBADF;
	if (q->share->is_read_only)
		return EROFS;
	ssize_t n = pwrite(f->open, q->in.at, count, (off_t)offset);
	if (n < 0)
		return errno;
	put(&q->out, 4, (uint64_t)n);
	return 0;
}

int do_fsync(struct request *q)
{
	struct fid *f;
	int r = fid_get(q, &f);
	bool is_data = get(&q->in, 4);
	if (r || f->open < 0)
		return r ? r : EBADF;
	return (is_data ? fdatasync(f->open) : fsync(f->open)) ? errno : 0;
}

int do_statfs(struct request *q)
{
	const uint32_t v9fs_magic = 0x01021997;
	struct statfs st;
	struct fid *f;
	int r = fid_get(q, &f);
	if (r)
		return r;
	if (fstatfs(f->path, &st))
		return errno;
	put(&q->out, 4, v9fs_magic);
	put(&q->out, 4, (uint64_t)st.f_bsize);
	put(&q->out, 8, st.f_blocks);
	put(&q->out, 8, st.f_bfree);
	put(&q->out, 8, st.f_bavail);
	put(&q->out, 8, st.f_files);
	put(&q->out, 8, st.f_ffree);
	put(&q->out, 8, 0);
	put(&q->out, 4, NAME_BYTES - 1);
	return 0;
}

/* There is one client, whose own kernel arbitrates between its processes: it always gets the lock,
 * and the host's processes do not see it. */
int do_lock(struct request *q)
{
	struct fid *f;
	int r = fid_get(q, &f);
	if (!r)
		put(&q->out, 1, 0);
	return r;
}

int do_getlock(struct request *q)
{
	char client[NAME_BYTES];
	struct fid *f;
	int r = fid_get(q, &f);
	get(&q->in, 1);
	uint64_t start = get(&q->in, 8), length = get(&q->in, 8), process = get(&q->in, 4);
	if (r || !get_text(&q->in, client, sizeof(client)))
		return r ? r : EINVAL;
	put(&q->out, 1, F_UNLCK);
	put(&q->out, 8, start);
	put(&q->out, 8, length);
	put(&q->out, 4, process);
	put_text(&q->out, client, strlen(client));
	return 0;
}
