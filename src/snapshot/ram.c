/*
 * RAM out of a file. A whole snapshot is mapped, so that restoring costs the same for any size and
 * the guest reads what it touches; the pages of a difference are read over it.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/memory.h"
#include "snapshot/format.h"

static uint64_t page_number(const struct snapshot *s, uint64_t i)
{
	uint64_t n;
	memcpy(&n, s->parts[PART_PAGES] + i * sizeof(n), sizeof(n));
	return n;
}

static int read_error(const struct snapshot *s, ssize_t got, struct error *e)
{
	return error_set(e, got < 0 ? -errno : -EIO, "cannot read '%s': %s", s->path,
			 got < 0 ? strerror(errno) : "it became shorter");
}

/* Runs of neighbours at once. */
static int read_pages(const struct snapshot *s, struct memory *m, struct error *e)
{
	uint64_t count = s->header.sections[PART_PAGES].size_bytes / sizeof(uint64_t);
	for (uint64_t i = 0, n; i < count; i += n) {
		uint64_t first = page_number(s, i);
		for (n = 1; i + n < count && page_number(s, i + n) == first + n;)
			n++;
		uint64_t done = 0, size_bytes = n * PAGE_SIZE_BYTES;
		uint64_t at = s->header.sections[PART_RAM].offset + i * PAGE_SIZE_BYTES;
		while (done < size_bytes) {
			ssize_t got = pread(s->fd, m->ram + first * PAGE_SIZE_BYTES + done,
					    size_bytes - done, (off_t)(at + done));
			if (got < 0 && errno == EINTR)
				continue;
			if (got <= 0)
				return read_error(s, got, e);
			done += (uint64_t)got;
		}
	}
	return 0;
}

static uint64_t chunk_sum(const struct snapshot *s, uint64_t i)
{
	uint64_t sum;
	memcpy(&sum, s->parts[PART_SUMS] + i * sizeof(sum), sizeof(sum));
	return sum;
}

/* Runs of chunks that have contents. The others stay as they were made, anonymous and zero: reading
 * a hole of a file would cost page cache. */
static int map_chunks(const struct snapshot *s, struct memory *m, struct error *e)
{
	const struct snapshot_section *ram = &s->header.sections[PART_RAM];
	uint64_t count = snapshot_chunk_count(ram->size_bytes);
	int r = 0;
	for (uint64_t i = 0, n; i < count && !r; i += n) {
		bool has_contents = chunk_sum(s, i) != 0;
		for (n = 1; i + n < count && (chunk_sum(s, i + n) != 0) == has_contents;)
			n++;
		uint64_t start = i * SNAPSHOT_CHUNK_BYTES, size_bytes = n * SNAPSHOT_CHUNK_BYTES;
		if (size_bytes > ram->size_bytes - start)
			size_bytes = ram->size_bytes - start;
		if (has_contents)
			r = memory_map_file(m, start, size_bytes, s->fd, ram->offset + start, e);
	}
	return r;
}

int snapshot_fill_memory(void *opaque, struct memory *m, struct error *e)
{
	struct snapshot *s = opaque;
	int r;
	if (s->base)
		r = snapshot_fill_memory(s->base, m, e);
	else
		r = map_chunks(s, m, e);
	return !r && s->base ? read_pages(s, m, e) : r;
}

/* Is [offset, offset + size) one hole? Where the file system cannot tell, nothing is. */
static bool is_hole(const struct snapshot *s, uint64_t offset, uint64_t size_bytes)
{
	off_t data = lseek(s->fd, (off_t)offset, SEEK_DATA);
	return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + size_bytes;
}

static int verify_chunk(const struct snapshot *s, uint64_t i, uint64_t size_bytes, struct error *e)
{
	uint64_t sum = chunk_sum(s, i);
	uint64_t offset = s->header.sections[PART_RAM].offset + i * SNAPSHOT_CHUNK_BYTES;
	if (is_hole(s, offset, size_bytes)) {
		if (!sum)
			return 0;
		return error_set(e, -EINVAL,
				 "'%s' is damaged: at byte %llu it has a hole where RAM should be",
				 s->path, (unsigned long long)offset);
	}
	uint8_t *bytes = mmap(NULL, size_bytes, PROT_READ, MAP_PRIVATE, s->fd, (off_t)offset);
	if (bytes == MAP_FAILED)
		return error_set(e, -errno, "cannot map '%s': %s", s->path, strerror(errno));
	bool is_good = snapshot_chunk_sum(bytes, size_bytes) == sum;
	munmap(bytes, size_bytes);
	if (is_good)
		return 0;
	return error_set(e, -EINVAL,
			 "'%s' is damaged: the checksum of RAM at bytes %llu to %llu does not fit",
			 s->path, (unsigned long long)offset,
			 (unsigned long long)(offset + size_bytes - 1));
}

int snapshot_verify(const struct snapshot *s, struct error *e)
{
	uint64_t left = s->header.sections[PART_RAM].size_bytes;
	for (uint64_t i = 0; left; i++) {
		uint64_t n = left < SNAPSHOT_CHUNK_BYTES ? left : SNAPSHOT_CHUNK_BYTES;
		int r = verify_chunk(s, i, n, e);
		if (r)
			return r;
		left -= n;
	}
	return s->base ? snapshot_verify(s->base, e) : 0;
}
