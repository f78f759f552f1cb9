/*
 * Opening a snapshot. Nothing in the file is believed before its checksum and its bounds are
 * checked, the header first: it says where everything else is. What stays unread is RAM.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/format.h"
#include "state/state.h"

/* More than any machine has, less than would hurt. */
#define MACHINE_BYTES_MAX (1ull << 20)
#define STATE_BYTES_MAX (64ull << 20)
#define RAM_BYTES_MAX (1ull << 46)

static int damaged(const struct snapshot *s, struct error *e, const char *what)
{
	return error_set(e, -EINVAL, "'%s' is damaged: %s", s->path, what);
}

static int read_exactly(const struct snapshot *s, void *bytes, uint64_t size_bytes, uint64_t offset,
			struct error *e)
{
	for (uint64_t done = 0; done < size_bytes;) {
		ssize_t got = pread(s->fd, (uint8_t *)bytes + done, size_bytes - done,
				    (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return error_set(e, got ? -errno : -EIO, "cannot read '%s': %s", s->path,
					 got ? strerror(errno) : "it became shorter");
		done += (uint64_t)got;
	}
	return 0;
}

static int open_file(struct snapshot *s, uint64_t *file_bytes, struct error *e)
{
	struct stat st;
	s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (s->fd < 0 || fstat(s->fd, &st))
		return error_set(e, -errno, "cannot open '%s': %s", s->path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(e, -EINVAL, "'%s' is no snapshot: not a regular file", s->path);
	*file_bytes = (uint64_t)st.st_size;
	s->disk_bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

static int read_header(struct snapshot *s, uint64_t file_bytes, struct error *e)
{
	struct snapshot_header *h = &s->header;
	uint64_t n = file_bytes < sizeof(*h) ? file_bytes : sizeof(*h);
	int r = read_exactly(s, h, n, 0, e);
	if (r)
		return r;
	if (n < sizeof(h->magic) || memcmp(h->magic, SNAPSHOT_MAGIC, sizeof(h->magic)))
		return error_set(e, -EINVAL, "'%s' is no snapshot: it does not begin with %s",
				 s->path, SNAPSHOT_MAGIC);
	if (n >= offsetof(struct snapshot_header, section_count) && h->version != SNAPSHOT_VERSION)
		return error_set(e, -EINVAL,
				 "'%s' has version %u of the format; this Gnomon reads version %u",
				 s->path, h->version, SNAPSHOT_VERSION);
	if (n < sizeof(*h))
		return damaged(s, e, "it ends inside its header");
	if (h->checksum != snapshot_header_checksum(h))
		return damaged(s, e, "the header's checksum does not fit");
	if (h->file_bytes != file_bytes)
		return error_set(e, -EINVAL, "'%s' is truncated or longer: %llu bytes of %llu",
				 s->path, (unsigned long long)file_bytes,
				 (unsigned long long)h->file_bytes);
	snapshot_header_id(h, s->id);
	return 0;
}

/* Sizes against each other and the file. */
static int check_layout(struct snapshot *s, struct error *e)
{
	const struct snapshot_header *h = &s->header;
	const struct snapshot_section *part = h->sections;
	if (h->section_count != PART_COUNT)
		return damaged(s, e, "the number of sections");
	for (unsigned i = 0; i < PART_COUNT; i++) {
		if (strncmp(part[i].name, snapshot_part_names[i], sizeof(part[i].name)))
			return damaged(s, e, "a section's name");
		if (part[i].offset < sizeof(*h) || part[i].offset > h->file_bytes ||
		    part[i].size_bytes > h->file_bytes - part[i].offset)
			return damaged(s, e, "a section outside of the file");
	}
	uint64_t ram_bytes = part[PART_RAM].size_bytes, pages_bytes = part[PART_PAGES].size_bytes;
	if (part[PART_MACHINE].size_bytes > MACHINE_BYTES_MAX ||
	    part[PART_STATE].size_bytes > STATE_BYTES_MAX || h->ram_bytes > RAM_BYTES_MAX ||
	    h->ram_bytes % PAGE_SIZE_BYTES || ram_bytes > h->ram_bytes ||
	    part[PART_RAM].offset % PAGE_SIZE_BYTES)
		return damaged(s, e, "a section of impossible size");
	if (pages_bytes % 8 || (ram_bytes != pages_bytes / 8 * PAGE_SIZE_BYTES &&
				(pages_bytes || ram_bytes != h->ram_bytes)))
		return damaged(s, e, "RAM and its pages do not agree");
	if (part[PART_SUMS].size_bytes != snapshot_chunk_count(ram_bytes) * 8)
		return damaged(s, e, "RAM and its checksums do not agree");
	return 0;
}

static int read_parts(struct snapshot *s, struct error *e)
{
	for (unsigned i = 0; i < PART_RAM; i++) {
		const struct snapshot_section *part = &s->header.sections[i];
		s->parts[i] = calloc(1, part->size_bytes + 1);
		if (!s->parts[i])
			return error_set(e, -ENOMEM, "no memory to read '%s'", s->path);
		int r = read_exactly(s, s->parts[i], part->size_bytes, part->offset, e);
		if (r)
			return r;
		if (snapshot_checksum(s->parts[i], part->size_bytes) != part->checksum)
			return error_set(e, -EINVAL,
					 "'%s' is damaged: the checksum of section '%s' does not "
					 "fit",
					 s->path, part->name);
	}
	return 0;
}

static int check_pages(struct snapshot *s, struct error *e)
{
	uint64_t count = s->header.sections[PART_PAGES].size_bytes / 8;
	uint64_t limit = s->header.ram_bytes / PAGE_SIZE_BYTES;
	for (uint64_t i = 0, last = 0; i < count; i++) {
		uint64_t n;
		memcpy(&n, s->parts[PART_PAGES] + i * 8, sizeof(n));
		if (n >= limit || (i && n <= last))
			return damaged(s, e, "a page that the machine does not have");
		last = n;
	}
	return 0;
}

/* ---- bases ---- */

static int open_at_depth(struct snapshot **out, const char *path, unsigned depth, struct error *e);

/* Where it was, or beside the difference if both were moved. */
static int open_base_file(struct snapshot *s, unsigned depth, struct error *e)
{
	char folder[PATH_MAX], name[PATH_MAX], beside[2 * PATH_MAX];
	const char *file = s->machine.base_file;
	if (strlen(s->path) >= PATH_MAX || strlen(file) >= PATH_MAX)
		return error_set(e, -ENAMETOOLONG, "the base's name is too long");
	int r = open_at_depth(&s->base, file, depth, e);
	if (r != -ENOENT)
		return r;
	strcpy(folder, s->path);
	strcpy(name, file);
	snprintf(beside, sizeof(beside), "%s/%s", dirname(folder), basename(name));
	struct error second = {0};
	r = open_at_depth(&s->base, beside, depth, &second);
	if (r && r != -ENOENT)
		*e = second;
	return r;
}

static int open_base(struct snapshot *s, unsigned depth, struct error *e)
{
	if (!s->machine.base_file) {
		if (s->header.sections[PART_RAM].size_bytes != s->header.ram_bytes ||
		    s->header.sections[PART_PAGES].size_bytes)
			return damaged(s, e, "a difference that names no base");
		return 0;
	}
	if (depth == SNAPSHOT_BASES_MAX)
		return error_set(e, -ELOOP, "'%s': more than %d differences upon each other",
				 s->path, SNAPSHOT_BASES_MAX);
	int r = open_base_file(s, depth + 1, e);
	if (r)
		return error_prefix(e, "the base of '%s'", s->path);
	if (strcmp(s->base->id, s->machine.base_id))
		return error_set(e, -EINVAL,
				 "'%s' needs the snapshot %.32s as its base; '%s' is now another, "
				 "%s",
				 s->path, s->machine.base_id, s->base->path, s->base->id);
	if (s->base->header.ram_bytes != s->header.ram_bytes)
		return damaged(s, e, "its base has another size of memory");
	return 0;
}

static int read_everything(struct snapshot *s, unsigned depth, struct error *e)
{
	uint64_t file_bytes = 0;
	int r = open_file(s, &file_bytes, e);
	if (r || (r = read_header(s, file_bytes, e)) || (r = check_layout(s, e)) ||
	    (r = read_parts(s, e)) || (r = check_pages(s, e)))
		return r;
	const struct snapshot_section *part = s->header.sections;
	r = snapshot_machine_read(&s->machine, (const char *)s->parts[PART_MACHINE],
				  part[PART_MACHINE].size_bytes, e);
	if (!r)
		r = state_reader_create(&s->state, s->parts[PART_STATE],
					part[PART_STATE].size_bytes, e);
	if (r)
		return error_prefix(e, "'%s'", s->path);
	if (s->machine.memory_bytes != s->header.ram_bytes)
		return damaged(s, e, "two sizes of memory");
	return open_base(s, depth, e);
}

static int open_at_depth(struct snapshot **out, const char *path, unsigned depth, struct error *e)
{
	struct snapshot *s = calloc(1, sizeof(*s));
	*out = NULL;
	if (s)
		s->fd = -1;
	if (!s || !(s->path = strdup(path))) {
		snapshot_close(s);
		return error_set(e, -ENOMEM, "no memory to open '%s'", path);
	}
	int r = read_everything(s, depth, e);
	if (r) {
		snapshot_close(s);
		return r;
	}
	s->saved = (struct vm_saved){
		.model = &s->machine.model,
		.state = s->state,
		.instructions = s->machine.instructions,
		.fill_memory = snapshot_fill_memory,
		.opaque = s,
	};
	*out = s;
	return 0;
}

int snapshot_open(struct snapshot **out, const char *path, struct error *e)
{
	return open_at_depth(out, path, 0, e);
}

void snapshot_close(struct snapshot *s)
{
	if (!s)
		return;
	snapshot_close(s->base);
	state_reader_destroy(s->state);
	snapshot_machine_drop(&s->machine);
	for (unsigned i = 0; i < PART_RAM; i++)
		free(s->parts[i]);
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	free(s);
}

void snapshot_configure(struct snapshot *s, struct vm_config *c)
{
	const struct snapshot_machine *m = &s->machine;
	c->saved = &s->saved;
	c->kernel = m->kernel;
	c->kernel_format = m->kernel_format;
	c->append = m->append;
	c->initrd_count = m->initrd_count;
	memcpy(c->initrd, m->initrds, sizeof(c->initrd));
	c->device_count = m->device_count;
	memcpy(c->devices, m->devices, sizeof(c->devices));
	c->memory_bytes = m->memory_bytes;
	c->cpu_count = m->vcpu_count;
	c->kvm_leaves = m->model.kvm_leaves;
	c->seed = m->seed;
}
