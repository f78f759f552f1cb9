/*
 * Guest RAM as one anonymous mapping, cut into the slots below and above the PC hole, with one byte
 * of flags a page.
 *
 * Invariant: every slot lies inside the mapping `ram`, so a page's index is its distance from the
 * mapping's start, and page_flags has exactly one byte for each. A write is seen by a watcher if,
 * and only if, the page had one of the watcher's flags when the write happened.
 */
#include "memory/memory.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "base/bits.h"
#include "base/pages.h"

#define MIB (1ull << 20)

/* Overcommit would let a mapping of any size succeed and the host die later: refuse what can never
 * be there. */
static int check_size(uint64_t ram_bytes, struct error *e)
{
	if (ram_bytes == 0)
		return error_set(e, -EINVAL,
				 "guest memory of 0 bytes: a guest needs at least 1 MiB");
	if (ram_bytes % PAGE_SIZE_BYTES)
		return error_set(e, -EINVAL, "guest memory of %llu bytes: not a multiple of 4096",
				 (unsigned long long)ram_bytes);
	struct sysinfo host;
	if (sysinfo(&host))
		return 0;
	uint64_t have = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
	if (ram_bytes > have)
		return error_set(e, -ENOMEM,
				 "guest memory of %llu MiB: this host has %llu MiB, swap included",
				 (unsigned long long)(ram_bytes / MIB),
				 (unsigned long long)(have / MIB));
	return 0;
}

static void add_slot(struct memory *m, uint64_t base, uint64_t offset, uint64_t size_bytes)
{
	m->slots[m->slot_count++] = (struct memslot){
		.base = gpa(base),
		.size_bytes = size_bytes,
		.host = m->ram + offset,
	};
}

int memory_create(struct memory **out, uint64_t ram_bytes, struct error *e)
{
	*out = NULL;
	int r = check_size(ram_bytes, e);
	if (r)
		return r;
	struct memory *m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(e, -ENOMEM, "no host memory for the guest's memory map");
	m->ram_bytes = ram_bytes;
	m->page_count = ram_bytes >> PAGE_SHIFT;
	m->ram = pages_map_large(ram_bytes);
	m->page_flags = pages_map(m->page_count);
	m->table_holds = pages_map(m->page_count * sizeof(*m->table_holds));
	if (!m->ram || !m->page_flags || !m->table_holds) {
		memory_destroy(m);
		return error_set(e, -ENOMEM, "the host cannot map %llu MiB for guest memory",
				 (unsigned long long)(ram_bytes / MIB));
	}
	uint64_t low = ram_bytes < MEMORY_HOLE_START ? ram_bytes : MEMORY_HOLE_START;
	add_slot(m, 0, 0, low);
	if (ram_bytes > low)
		add_slot(m, MEMORY_HOLE_END, low, ram_bytes - low);
	*out = m;
	return 0;
}

void memory_destroy(struct memory *m)
{
	if (!m)
		return;
	pages_unmap(m->ram, m->ram_bytes);
	pages_unmap(m->page_flags, m->page_count);
	pages_unmap(m->table_holds, m->page_count * sizeof(*m->table_holds));
	free(m->dirty_bitmap);
	free(m);
}

int memory_map_file(struct memory *m, uint64_t start, uint64_t size_bytes, int fd, uint64_t offset,
		    struct error *e)
{
	if (start > m->ram_bytes || size_bytes > m->ram_bytes - start)
		return error_set(e, -EINVAL, "more of a file than the guest has memory");
	void *p = mmap(m->ram + start, size_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset);
	if (p == MAP_FAILED)
		return error_set(e, -errno, "the host cannot map %llu KiB of a file: %s",
				 (unsigned long long)(size_bytes >> 10), strerror(errno));
	m->has_file = true;
	return 0;
}

bool memory_gpa(const struct memory *m, const uint8_t *host, gpa_t *out)
{
	for (unsigned i = 0; i < m->slot_count; i++) {
		const struct memslot *slot = &m->slots[i];
		uint64_t offset = (uint64_t)((uintptr_t)host - (uintptr_t)slot->host);
		if (offset < slot->size_bytes) {
			*out = gpa(slot->base.v + offset);
			return true;
		}
	}
	return false;
}

static void tell_listeners(struct memory *m, gpa_t a)
{
	gpa_t page = gpa(align_down(a.v, PAGE_SIZE_BYTES));
	for (unsigned i = 0; i < m->listener_count; i++)
		m->listeners[i].changed(m->listeners[i].opaque, page);
}

void memory_set_page_flag(struct memory *m, gpa_t a, enum page_flag flag)
{
	uint64_t index = memory_page_index(m, a);
	if (index == MEMORY_NO_PAGE || (m->page_flags[index] & flag))
		return;
	m->page_flags[index] |= (uint8_t)flag;
	tell_listeners(m, a);
}

void memory_clear_page_flag(struct memory *m, gpa_t a, enum page_flag flag)
{
	uint64_t index = memory_page_index(m, a);
	if (index != MEMORY_NO_PAGE)
		m->page_flags[index] &= (uint8_t)~flag;
}

void memory_hold_table(struct memory *m, gpa_t a)
{
	uint64_t index = memory_page_index(m, a);
	if (index == MEMORY_NO_PAGE)
		return;
	assert(m->table_holds[index] < UINT16_MAX);
	if (!m->table_holds[index]++)
		memory_set_page_flag(m, a, PAGE_TABLE);
}

void memory_release_table(struct memory *m, gpa_t a)
{
	uint64_t index = memory_page_index(m, a);
	if (index == MEMORY_NO_PAGE)
		return;
	assert(m->table_holds[index]);
	if (!--m->table_holds[index])
		memory_clear_page_flag(m, a, PAGE_TABLE);
}

/* Do slots hold all of [a, a + size_bytes)? */
static bool is_all_in_slots(const struct memory *m, gpa_t a, uint64_t size_bytes)
{
	while (size_bytes) {
		const struct memslot *slot = memory_slot(m, a);
		if (!slot)
			return false;
		uint64_t here = slot->size_bytes - (a.v - slot->base.v);
		if (here >= size_bytes)
			return true;
		a.v += here;
		size_bytes -= here;
	}
	return true;
}

/* How much of `size_bytes` at `a` lies in a's own page, so that it has one set of flags. */
static uint64_t bytes_in_page(gpa_t a, uint64_t size_bytes)
{
	uint64_t room = PAGE_SIZE_BYTES - (a.v & PAGE_OFFSET_MASK);
	return size_bytes < room ? size_bytes : room;
}

int memory_read(const struct memory *m, gpa_t a, void *bytes, uint64_t size_bytes)
{
	if (!is_all_in_slots(m, a, size_bytes))
		return -EFAULT;
	uint8_t *to = bytes;
	while (size_bytes) {
		uint64_t n = bytes_in_page(a, size_bytes);
		memcpy(to, memory_host(m, a, n), n);
		to += n;
		a.v += n;
		size_bytes -= n;
	}
	return 0;
}

int memory_write(struct memory *m, gpa_t a, const void *bytes, uint64_t size_bytes)
{
	if (!is_all_in_slots(m, a, size_bytes))
		return -EFAULT;
	const uint8_t *from = bytes;
	while (size_bytes) {
		uint64_t n = bytes_in_page(a, size_bytes);
		uint8_t flags = memory_page_flags(m, a);
		if (!memory_slot(m, a)->is_rom && !(flags & PAGE_ROM)) {
			memcpy(memory_host(m, a, n), from, n);
			if (flags)
				memory_notify_write(m, a, (unsigned)n);
		}
		from += n;
		a.v += n;
		size_bytes -= n;
	}
	return 0;
}

/* Behind a page of a snapshot's file there would be the file again, so that is mapped over. */
static bool give_back(struct memory *m, uint8_t *host, uint64_t size_bytes)
{
	if (!m->has_file)
		return !madvise(host, size_bytes, MADV_DONTNEED);
	return mmap(host, size_bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

void memory_discard(struct memory *m, gpa_t a, uint64_t size_bytes)
{
	const struct memslot *slot = memory_slot(m, a);
	uint8_t *host = memory_host(m, a, size_bytes);
	if (!host || slot->is_rom || ((a.v | size_bytes) & PAGE_OFFSET_MASK))
		return;
	uint64_t index = memory_page_index(m, a);
	for (uint64_t i = 0; i < size_bytes >> PAGE_SHIFT; i++)
		if (m->page_flags[index + i] & PAGE_ROM)
			return;
	if (!give_back(m, host, size_bytes))
		memset(host, 0, size_bytes);
	memory_notify_range(m, a, size_bytes);
}

static void notify(struct memory *m, gpa_t a, unsigned size_bytes, uint8_t watched)
{
	uint64_t index = memory_page_index(m, a);
	if (index == MEMORY_NO_PAGE)
		return;
	/* Read once: a watcher may clear its own flag, and the others must still hear of this
	 * write. */
	uint8_t flags = m->page_flags[index];
	if (!flags)
		return;
	if ((flags & PAGE_CLEAN) && m->dirty_bitmap) {
		m->dirty_bitmap[index >> 3] |= (uint8_t)(1u << (index & 7));
		m->page_flags[index] &= (uint8_t)~PAGE_CLEAN;
	}
	for (unsigned i = 0; i < m->watcher_count; i++)
		if (m->watchers[i].flags & flags & watched)
			m->watchers[i].written(m->watchers[i].opaque, a, size_bytes);
}

void memory_notify_write(struct memory *m, gpa_t a, unsigned size_bytes)
{
	notify(m, a, size_bytes, UINT8_MAX);
}

void memory_notify_range(struct memory *m, gpa_t a, uint64_t size_bytes)
{
	while (size_bytes) {
		uint64_t n = bytes_in_page(a, size_bytes);
		if (memory_page_flags(m, a))
			memory_notify_write(m, a, (unsigned)n);
		a.v += n;
		size_bytes -= n;
	}
}

void memory_notify_walk(struct memory *m, gpa_t a, unsigned size_bytes)
{
	notify(m, a, size_bytes, (uint8_t)~PAGE_TABLE);
}

int memory_add_watcher(struct memory *m, struct memory_watcher watcher)
{
	if (m->watcher_count == MEMORY_WATCHERS_MAX)
		return -ENOSPC;
	m->watchers[m->watcher_count++] = watcher;
	return 0;
}

void memory_remove_watcher(struct memory *m, const void *opaque)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < m->watcher_count; i++)
		if (m->watchers[i].opaque != opaque)
			m->watchers[kept++] = m->watchers[i];
	m->watcher_count = kept;
}

int memory_add_flag_listener(struct memory *m, struct memory_flag_listener listener)
{
	if (m->listener_count == MEMORY_WATCHERS_MAX)
		return -ENOSPC;
	m->listeners[m->listener_count++] = listener;
	return 0;
}

void memory_remove_flag_listener(struct memory *m, void *opaque)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < m->listener_count; i++)
		if (m->listeners[i].opaque != opaque)
			m->listeners[kept++] = m->listeners[i];
	m->listener_count = kept;
}

uint64_t memory_dirty_bytes(const struct memory *m)
{
	return (m->page_count + 7) / 8;
}

static void mark_all_clean(struct memory *m)
{
	for (unsigned i = 0; i < m->slot_count; i++)
		for (uint64_t offset = 0; offset < m->slots[i].size_bytes;
		     offset += PAGE_SIZE_BYTES)
			memory_set_page_flag(m, gpa(m->slots[i].base.v + offset), PAGE_CLEAN);
}

static int source_log(struct memory *m, bool is_on, struct error *e)
{
	const struct memory_dirty_source *s = &m->dirty_source;
	return s->log ? s->log(s->opaque, is_on, e) : 0;
}

/* If the source cannot tell, anything may have been written. */
static void ask_source(struct memory *m)
{
	const struct memory_dirty_source *s = &m->dirty_source;
	if (s->collect && s->collect(s->opaque, m->dirty_bitmap))
		memset(m->dirty_bitmap, 0xff, memory_dirty_bytes(m));
}

int memory_dirty_start(struct memory *m, struct error *e)
{
	bool is_new = !m->dirty_bitmap;
	if (is_new)
		m->dirty_bitmap = calloc(1, memory_dirty_bytes(m));
	if (!m->dirty_bitmap)
		return error_set(e, -ENOMEM, "no host memory for the dirty log");
	int r = is_new ? source_log(m, true, e) : 0;
	if (r) {
		free(m->dirty_bitmap);
		m->dirty_bitmap = NULL;
		return r;
	}
	mark_all_clean(m);
	return 0;
}

void memory_dirty_collect(struct memory *m, uint8_t *bitmap)
{
	if (!m->dirty_bitmap) {
		memset(bitmap, 0, memory_dirty_bytes(m));
		return;
	}
	ask_source(m);
	memcpy(bitmap, m->dirty_bitmap, memory_dirty_bytes(m));
	memset(m->dirty_bitmap, 0, memory_dirty_bytes(m));
	mark_all_clean(m);
}

void memory_dirty_stop(struct memory *m)
{
	if (m->dirty_bitmap)
		source_log(m, false, NULL);
	free(m->dirty_bitmap);
	m->dirty_bitmap = NULL;
	for (uint64_t i = 0; i < m->page_count; i++)
		m->page_flags[i] &= (uint8_t)~PAGE_CLEAN;
}

const uint8_t *memory_dirty_now(struct memory *m)
{
	if (m->dirty_bitmap)
		ask_source(m);
	return m->dirty_bitmap;
}

int memory_set_dirty_source(struct memory *m, struct memory_dirty_source source, struct error *e)
{
	/* What the one before saw is kept. */
	if (m->dirty_bitmap)
		ask_source(m);
	m->dirty_source = source;
	return m->dirty_bitmap ? source_log(m, true, e) : 0;
}
