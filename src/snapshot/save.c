/*
 * Saving. Everything goes to PATH.partial, which is flushed to the disk and then renamed: whenever
 * we die, PATH is the old snapshot, the new one or none. A ".partial" that somebody left by dying
 * is taken over by the next save; a lock keeps two that live apart.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "memory/memory.h"
#include "snapshot/format.h"
#include "state/state.h"

#define CHUNK_PAGES (SNAPSHOT_CHUNK_BYTES / PAGE_SIZE_BYTES)

struct saving {
	const char *path;
	char partial[PATH_MAX];
	int fd;
	struct memory *memory;
	struct snapshot *base;
	struct memory *base_memory;
	uint64_t *pages; /* of a difference */
	uint64_t page_count;
	uint64_t *sums;
	uint8_t *chunk; /* pages of a difference, gathered */
	char *machine;
	struct state_writer *state;
	struct snapshot_header header;
};

static int host_error(const struct saving *s, const char *what, struct error *e)
{
	return error_set(e, -errno, "cannot %s '%s': %s", what, s->path, strerror(errno));
}

/* ---- the file ---- */

static bool is_still_there(const struct saving *s)
{
	struct stat here, there;
	return !fstat(s->fd, &here) && !stat(s->partial, &there) && here.st_dev == there.st_dev &&
	       here.st_ino == there.st_ino;
}

/* Whoever held the lock before us has renamed or removed what we opened: then once more. */
static int open_partial(struct saving *s, struct error *e)
{
	int n = snprintf(s->partial, sizeof(s->partial), "%s.partial", s->path);
	if (n < 0 || (size_t)n >= sizeof(s->partial))
		return error_set(e, -ENAMETOOLONG, "cannot write '%.80s...': the name is too long",
				 s->path);
	for (;;) {
		s->fd = open(s->partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (s->fd < 0 && errno == EACCES)
			return error_set(e, -EACCES,
					 "cannot write '%s': Permission denied (gnomon run "
					 "--snapshots FOLDER lets its sandbox)",
					 s->path);
		if (s->fd < 0)
			return host_error(s, "write", e);
		if (flock(s->fd, LOCK_EX | LOCK_NB)) {
			int r = error_set(e, -EBUSY, "'%s' is being written by somebody else",
					  s->path);
			close(s->fd);
			s->fd = -1;
			return r;
		}
		if (is_still_there(s))
			break;
		close(s->fd);
	}
	return ftruncate(s->fd, 0) ? host_error(s, "write", e) : 0;
}

static int put(struct saving *s, const void *bytes, uint64_t size_bytes, uint64_t offset,
	       struct error *e)
{
	for (uint64_t done = 0; done < size_bytes;) {
		ssize_t n = pwrite(s->fd, (const uint8_t *)bytes + done, size_bytes - done,
				   (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return host_error(s, "write", e);
		done += (uint64_t)n;
	}
	return 0;
}

static int flush_folder(const struct saving *s, struct error *e)
{
	char copy[PATH_MAX];
	strcpy(copy, s->partial);
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return host_error(s, "flush the folder of", e);
	int r = fsync(fd) ? host_error(s, "flush the folder of", e) : 0;
	close(fd);
	return r;
}

static int commit(struct saving *s, struct error *e)
{
	if (fsync(s->fd))
		return host_error(s, "write", e);
	if (rename(s->partial, s->path))
		return host_error(s, "rename to", e);
	s->partial[strlen(s->path)] = 0; /* nothing to remove any more */
	return flush_folder(s, e);
}

/* ---- what is to be written ---- */

static bool has_changed(const struct saving *s, uint64_t page)
{
	uint64_t at = page * PAGE_SIZE_BYTES;
	return memcmp(s->memory->ram + at, s->base_memory->ram + at, PAGE_SIZE_BYTES) != 0;
}

/* With a dirty log since the base only what was written may differ: a bit a page, else NULL. */
static const uint8_t *written_pages(const struct saving *s, const struct vm *vm)
{
	const char *tracked = vm_tracked_memory(vm);
	return tracked && !strcmp(tracked, s->base->id) ? memory_dirty_now(s->memory) : NULL;
}

static int find_differences(struct saving *s, const struct vm *vm, struct error *e)
{
	const uint8_t *written = written_pages(s, vm);
	uint64_t limit = s->memory->ram_bytes / PAGE_SIZE_BYTES;
	int r = memory_create(&s->base_memory, s->memory->ram_bytes, e);
	if (!r)
		r = snapshot_fill_memory(s->base, s->base_memory, e);
	if (r)
		return r;
	s->pages = malloc(limit * sizeof(*s->pages));
	s->chunk = malloc(SNAPSHOT_CHUNK_BYTES);
	if (!s->pages || !s->chunk)
		return error_set(e, -ENOMEM, "no memory to save '%s'", s->path);
	for (uint64_t i = 0; i < limit; i++)
		if ((!written || (written[i / 8] >> (i % 8) & 1)) && has_changed(s, i))
			s->pages[s->page_count++] = i;
	return 0;
}

static int open_base(struct saving *s, const struct vm *vm, const char *base, struct error *e)
{
	struct stat old, of_base;
	int r = snapshot_open(&s->base, base, e);
	if (r)
		return error_prefix(e, "the base");
	if (s->base->header.ram_bytes != s->memory->ram_bytes)
		return error_set(e, -EINVAL,
				 "'%s' cannot be the base: it has %llu MiB of memory, the machine "
				 "has %llu",
				 base, (unsigned long long)(s->base->header.ram_bytes >> 20),
				 (unsigned long long)(s->memory->ram_bytes >> 20));
	if (!stat(s->path, &old) && !fstat(s->base->fd, &of_base) && old.st_dev == of_base.st_dev &&
	    old.st_ino == of_base.st_ino)
		return error_set(e, -EINVAL, "'%s' cannot be its own base; take another name",
				 s->path);
	return find_differences(s, vm, e);
}

static void lay_out(struct saving *s)
{
	struct snapshot_header *h = &s->header;
	size_t state_bytes;
	state_buffer_bytes(s->state, &state_bytes);
	uint64_t ram_bytes = s->base ? s->page_count * PAGE_SIZE_BYTES : s->memory->ram_bytes;
	const uint64_t sizes[PART_COUNT] = {
		[PART_MACHINE] = strlen(s->machine),
		[PART_STATE] = state_bytes,
		[PART_PAGES] = s->page_count * sizeof(*s->pages),
		[PART_SUMS] = snapshot_chunk_count(ram_bytes) * sizeof(*s->sums),
		[PART_RAM] = ram_bytes,
	};
	uint64_t at = sizeof(*h);
	for (unsigned i = 0; i < PART_COUNT; i++) {
		struct snapshot_section *part = &h->sections[i];
		at = align_up(at, i == PART_RAM ? PAGE_SIZE_BYTES : 8);
		strcpy(part->name, snapshot_part_names[i]);
		part->offset = at;
		part->size_bytes = sizes[i];
		at += sizes[i];
	}
	memcpy(h->magic, SNAPSHOT_MAGIC, sizeof(h->magic));
	h->version = SNAPSHOT_VERSION;
	h->section_count = PART_COUNT;
	h->file_bytes = at;
	h->ram_bytes = s->memory->ram_bytes;
}

/* ---- writing it ---- */

/* Pages that are all zero stay holes. */
static int put_chunk(struct saving *s, const uint8_t *bytes, uint64_t size_bytes, uint64_t offset,
		     struct error *e)
{
	for (uint64_t at = 0, n; at < size_bytes; at += n) {
		bool is_zero = snapshot_is_zero(bytes + at, PAGE_SIZE_BYTES);
		for (n = PAGE_SIZE_BYTES; at + n < size_bytes; n += PAGE_SIZE_BYTES)
			if (snapshot_is_zero(bytes + at + n, PAGE_SIZE_BYTES) != is_zero)
				break;
		int r = is_zero ? 0 : put(s, bytes + at, n, offset + at, e);
		if (r)
			return r;
	}
	return 0;
}

static const uint8_t *gather(struct saving *s, uint64_t chunk, uint64_t size_bytes)
{
	if (!s->base)
		return s->memory->ram + chunk * SNAPSHOT_CHUNK_BYTES;
	for (uint64_t i = 0; i < size_bytes / PAGE_SIZE_BYTES; i++)
		memcpy(s->chunk + i * PAGE_SIZE_BYTES,
		       s->memory->ram + s->pages[chunk * CHUNK_PAGES + i] * PAGE_SIZE_BYTES,
		       PAGE_SIZE_BYTES);
	return s->chunk;
}

static int put_ram(struct saving *s, struct error *e)
{
	uint64_t offset = s->header.sections[PART_RAM].offset;
	uint64_t left = s->header.sections[PART_RAM].size_bytes;
	s->sums = calloc(snapshot_chunk_count(left) + 1, sizeof(*s->sums));
	if (!s->sums)
		return error_set(e, -ENOMEM, "no memory to save '%s'", s->path);
	for (uint64_t i = 0; left; i++) {
		uint64_t n = left < SNAPSHOT_CHUNK_BYTES ? left : SNAPSHOT_CHUNK_BYTES;
		const uint8_t *bytes = gather(s, i, n);
		s->sums[i] = snapshot_chunk_sum(bytes, n);
		int r = s->sums[i] ? put_chunk(s, bytes, n, offset, e) : 0;
		if (r)
			return r;
		offset += n;
		left -= n;
	}
	return 0;
}

static int put_everything(struct saving *s, struct error *e)
{
	struct snapshot_header *h = &s->header;
	size_t state_bytes;
	lay_out(s);
	/* At once as long as it will be: a limit on sizes refuses here, before the work. */
	if (ftruncate(s->fd, (off_t)h->file_bytes))
		return host_error(s, "write", e);
	int r = put_ram(s, e);
	const void *parts[PART_RAM] = {
		[PART_MACHINE] = s->machine,
		[PART_STATE] = state_buffer_bytes(s->state, &state_bytes),
		[PART_PAGES] = s->pages,
		[PART_SUMS] = s->sums,
	};
	for (unsigned i = 0; !r && i < PART_RAM; i++) {
		struct snapshot_section *part = &h->sections[i];
		part->checksum = snapshot_checksum(parts[i], part->size_bytes);
		r = put(s, parts[i], part->size_bytes, part->offset, e);
	}
	h->checksum = snapshot_header_checksum(h);
	return r ? r : put(s, h, sizeof(*h), 0, e);
}

static int prepare(struct saving *s, struct vm *vm, const char *base, struct error *e)
{
	size_t size_bytes;
	const char *why = vm_unsavable(vm);
	if (why)
		return error_set(e, -EINVAL, "cannot save this machine: %s", why);
	int r = base ? open_base(s, vm, base, e) : 0;
	if (!r)
		r = snapshot_machine_write(vm, s->base, &s->machine, e);
	if (r)
		return r;
	if (state_buffer_create(&s->state))
		return error_set(e, -ENOMEM, "no memory to save '%s'", s->path);
	vm_save(vm, s->state);
	if (!state_buffer_bytes(s->state, &size_bytes))
		return error_set(e, -ENOMEM, "no memory to save '%s'", s->path);
	return 0;
}

static void clean_up(struct saving *s, bool is_failed)
{
	if (s->fd >= 0) {
		if (is_failed && strcmp(s->partial, s->path))
			unlink(s->partial);
		close(s->fd);
	}
	snapshot_close(s->base);
	memory_destroy(s->base_memory);
	state_writer_destroy(s->state);
	free(s->pages);
	free(s->sums);
	free(s->chunk);
	free(s->machine);
}

int snapshot_save(struct vm *vm, const char *path, const char *base, struct error *e)
{
	struct saving s = {.path = path, .fd = -1, .memory = vm_memory(vm)};
	int r = prepare(&s, vm, base, e);
	if (!r)
		r = open_partial(&s, e);
	if (!r)
		r = put_everything(&s, e);
	if (!r)
		r = commit(&s, e);
	clean_up(&s, r != 0);
	return r;
}

int snapshot_track(struct vm *vm, const char *path, struct error *e)
{
	struct snapshot *s;
	int r = snapshot_open(&s, path, e);
	if (!r)
		r = vm_track_memory(vm, s->id, e);
	snapshot_close(s);
	return r;
}
