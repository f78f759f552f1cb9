/* Raw images: files and block devices, read and written where they lie. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/block_private.h"

#define SECTOR_BYTES 512u
#define PIECES_MAX 256
#define ZEROES_BYTES 65536u
#define THREADS 4

static int raw_transfer(struct block *b, const struct block_request *r)
{
	struct iovec pieces[PIECES_MAX];
	for (uint64_t done = 0; done < r->size_bytes;) {
		unsigned n = block_pieces(r, done, pieces, PIECES_MAX);
		off_t at = (off_t)(r->offset + done);
		ssize_t count = r->op == BLOCK_READ ? preadv(b->fd, pieces, (int)n, at)
						    : pwritev(b->fd, pieces, (int)n, at);
		if (count < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (count < 0)
			return -errno;
		/* Somebody cut the file off behind our back. */
		if (count == 0)
			return -EIO;
		done += (uint64_t)count;
	}
	return 0;
}

static int raw_flush(struct block *b)
{
	int r;
	do
		r = fdatasync(b->fd);
	while (r && errno == EINTR);
	return r ? -errno : 0;
}

static int allocate(struct block *b, int mode, const struct block_request *r)
{
	int result;
	do
		result = fallocate(b->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)r->offset,
				   (off_t)r->size_bytes);
	while (result && errno == EINTR);
	return result ? -errno : 0;
}

static int device_range(struct block *b, unsigned long command, const struct block_request *r)
{
	uint64_t range[2] = {r->offset, r->size_bytes};
	return ioctl(b->fd, command, range) ? -errno : 0;
}

static bool is_unsupported(int result)
{
	return result == -EOPNOTSUPP || result == -ENOTTY || result == -EINVAL || result == -ENOSYS;
}

/* A hint: what the host cannot do is done. */
static int raw_discard(struct block *b, const struct block_request *r)
{
	int result = b->is_device ? device_range(b, BLKDISCARD, r)
				  : allocate(b, FALLOC_FL_PUNCH_HOLE, r);
	return is_unsupported(result) ? 0 : result;
}

static int write_plain_zeroes(struct block *b, const struct block_request *r)
{
	static const uint8_t zeroes[ZEROES_BYTES];
	for (uint64_t done = 0; done < r->size_bytes;) {
		uint64_t left = r->size_bytes - done;
		struct iovec piece = {(void *)zeroes, left < ZEROES_BYTES ? left : ZEROES_BYTES};
		struct block_request part = {.op = BLOCK_WRITE,
					     .offset = r->offset + done,
					     .size_bytes = piece.iov_len,
					     .pieces = &piece,
					     .piece_count = 1};
		int result = raw_transfer(b, &part);
		if (result)
			return result;
		done += piece.iov_len;
	}
	return 0;
}

static int raw_write_zeroes(struct block *b, const struct block_request *r)
{
	int result = -EOPNOTSUPP;
	if (b->is_device)
		result = device_range(b, BLKZEROOUT, r);
	else if (r->may_discard)
		result = allocate(b, FALLOC_FL_PUNCH_HOLE, r);
	if (is_unsupported(result) && !b->is_device)
		result = allocate(b, FALLOC_FL_ZERO_RANGE, r);
	return is_unsupported(result) ? write_plain_zeroes(b, r) : result;
}

static int raw_execute(struct block *b, const struct block_request *r)
{
	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE: return raw_transfer(b, r);
	case BLOCK_FLUSH: return raw_flush(b);
	case BLOCK_DISCARD: return raw_discard(b, r);
	case BLOCK_WRITE_ZEROES: break;
	}
	int result = raw_write_zeroes(b, r);
	return !result && b->config.cache == BLOCK_WRITETHROUGH ? raw_flush(b) : result;
}

/* ---- opening ---- */

/* Readers share, a writer is alone; the lock goes with the open file, whoever holds it. */
static int lock(struct block *b, const struct block_config *c, struct error *e)
{
	struct flock range = {.l_type = c->is_read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	if (!fcntl(b->fd, F_OFD_SETLK, &range))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return error_set(e, -EBUSY, "'%s' is in use by another machine%s", c->path,
				 c->is_read_only ? ", which writes to it"
						 : "; several may share it with readonly=on");
	return error_set(e, -errno, "cannot lock '%s': %s", c->path, strerror(errno));
}

static int measure_device(struct block *b, const struct block_config *c, struct error *e)
{
	int sector = 0;
	if (ioctl(b->fd, BLKGETSIZE64, &b->info.size_bytes) || ioctl(b->fd, BLKSSZGET, &sector))
		return error_set(e, -errno, "cannot measure '%s': %s", c->path, strerror(errno));
	b->is_device = true;
	if (sector > 0)
		b->info.sector_bytes = (uint32_t)sector;
	return 0;
}

static int measure(struct block *b, const struct block_config *c, struct error *e)
{
	struct stat st;
	if (fstat(b->fd, &st))
		return error_set(e, -errno, "cannot measure '%s': %s", c->path, strerror(errno));
	b->info = (struct block_info){.size_bytes = (uint64_t)st.st_size,
				      .sector_bytes = SECTOR_BYTES,
				      .can_discard = true,
				      .can_write_zeroes = true};
	int r = 0;
	if (S_ISBLK(st.st_mode))
		r = measure_device(b, c, e);
	else if (!S_ISREG(st.st_mode))
		r = error_set(e, -EINVAL, "'%s' is neither a file nor a block device", c->path);
	if (!r && (!b->info.size_bytes || b->info.size_bytes % SECTOR_BYTES))
		r = error_set(e, -EINVAL,
			      "'%s' has %llu bytes; a disk is a multiple of 512 long (truncate -s "
			      "makes it so)",
			      c->path, (unsigned long long)b->info.size_bytes);
	return r;
}

/* A qcow2 image taken for a raw one would be a disk of rubbish, and be destroyed by writing. */
static int check_format(struct block *b, const struct block_config *c, struct error *e)
{
	static const struct {
		const char *name, *magic;
		size_t count;
	} others[] = {{"qcow2", "QFI\xfb", 4}, {"vmdk", "KDMV", 4}, {"vhdx", "vhdxfile", 8}};
	char start[8] = "";
	if (pread(b->fd, start, sizeof(start), 0) < 0)
		return error_set(e, -errno, "cannot read '%s': %s", c->path, strerror(errno));
	for (size_t i = 0; i < ARRAY_COUNT(others); i++)
		if (!memcmp(start, others[i].magic, others[i].count))
			return error_set(e, -EINVAL, "'%s' is a %s image; say format=%s", c->path,
					 others[i].name, others[i].name);
	return 0;
}

static int raw_open(struct block *b, const struct block_config *c, struct error *e)
{
	int flags = (c->is_read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;
	if (c->cache == BLOCK_WRITETHROUGH)
		flags |= O_DSYNC;
	b->fd = open(c->path, flags);
	if (b->fd < 0)
		return error_set(e, -errno, "cannot open '%s': %s%s", c->path, strerror(errno),
				 errno == EACCES || errno == EROFS ? " (readonly=on needs less)"
								   : "");
	int r = measure(b, c, e);
	if (!r)
		r = lock(b, c, e);
	return r ? r : check_format(b, c, e);
}

static void raw_close(struct block *b)
{
	if (b->fd >= 0)
		close(b->fd);
}

const struct block_ops block_raw_ops = {raw_open, raw_execute, raw_close, THREADS};
