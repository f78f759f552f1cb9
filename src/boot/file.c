/*
 * Reading a file whole, with a bound, whatever kind of file it is.
 */
#include "boot/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES (1ull << 20)

static int read_all(int fd, uint64_t max, uint64_t expected, uint8_t **out, uint64_t *out_size)
{
	uint64_t capacity = expected + 1, size = 0; /* one more, so that the end is seen at once */
	uint8_t *bytes = malloc(capacity);
	if (!bytes)
		return -ENOMEM;
	for (;;) {
		ssize_t n = read(fd, bytes + size, capacity - size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			*out = bytes;
			*out_size = size;
			return n < 0 ? -errno : 0;
		}
		size += (uint64_t)n;
		if (size > max) {
			*out = bytes;
			return -EFBIG;
		}
		if (size < capacity)
			continue;
		capacity += capacity / 2 + CHUNK_BYTES;
		uint8_t *bigger = realloc(bytes, capacity);
		if (!bigger) {
			*out = bytes;
			return -ENOMEM;
		}
		bytes = bigger;
	}
}

static int fail(struct error *e, int code, const char *what, const char *path, uint64_t max)
{
	if (code == -EFBIG)
		return error_set(e, code, "%s: the %s is bigger than %llu MiB", path, what,
				 (unsigned long long)(max >> 20));
	return error_set(e, code, "%s: cannot read the %s: %s", path, what, strerror(-code));
}

int file_read(const char *path, const char *what, uint64_t max, uint8_t **out, uint64_t *out_size,
	      struct error *e)
{
	*out = NULL;
	*out_size = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(e, -errno, what, path, max);
	struct stat st;
	int r = 0;
	if (fstat(fd, &st))
		r = -errno;
	else if (S_ISDIR(st.st_mode))
		r = -EISDIR;
	else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max)
		r = -EFBIG;
	else
		r = read_all(fd, max, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : CHUNK_BYTES, out,
			     out_size);
	close(fd);
	if (r)
		r = fail(e, r, what, path, max);
	else if (*out_size == 0)
		r = error_set(e, -ENOEXEC, "%s: the %s is an empty file", path, what);
	if (r) {
		free(*out);
		*out = NULL;
	}
	return r;
}
