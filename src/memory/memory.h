/*
 * Guest-physical memory: RAM slots, page watches, the dirty log.
 *
 * RAM is one host mapping cut into memslots: [0, ram) with the PC hole (3 GiB..4 GiB, see
 * MEMORY_HOLE_*) left out, the rest above 4 GiB. Everything that is not in a slot is the bus's
 * business (MMIO).
 *
 * Watches: each 4 KiB page has a byte of flags. Who writes guest memory (engine, device, loader)
 * must go through memory_write*, or must have asked memory_page_flags() first and call
 * memory_notify_write() after writing to a page whose flags are not 0. The floors above (block
 * cache, shadow paging, dirty log) plug in as watchers, typed here.
 *
 * Locking: one vcpu thread in `interp`. Flags are single bytes, so other threads may read them.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

#define MEMORY_HOLE_START 0xc0000000ull /* 3 GiB: below it RAM */
#define MEMORY_HOLE_END 0x100000000ull	/* 4 GiB: above it the rest of RAM */

struct memslot {
	gpa_t base;
	uint64_t size_bytes;
	uint8_t *host;
	bool is_rom; /* guest writes are dropped */
};

/* Why writes to a page must be seen. */
enum page_flag {
	PAGE_CODE = 1 << 0,  /* a cached block was decoded from it */
	PAGE_TABLE = 1 << 1, /* a strategy holds translations derived from it */
	PAGE_CLEAN = 1 << 2, /* dirty log is on and the page was not yet written */
	PAGE_ROM = 1 << 3,
};

struct memory_watcher {
	/* Called after `size_bytes` bytes at `address` (all in one page) were written while the
	 * page had one of `flags` set. */
	void (*written)(void *opaque, gpa_t address, unsigned size_bytes);
	void *opaque; /* borrowed */
	uint8_t flags;
};

/* Told whenever a flag is set on a page, so that cached write permissions can be dropped: this is
 * how a software TLB learns that a page it may write directly is now watched. */
struct memory_flag_listener {
	void (*changed)(void *opaque, gpa_t page);
	void *opaque; /* borrowed */
};

/* Somebody who writes memory past the flags (the host's processor, under KVM) and keeps a log of
 * his own while the dirty log is on. */
struct memory_dirty_source {
	int (*log)(void *opaque, bool is_on, struct error *e);
	/* Sets the bits of what was written since the last time. -errno. */
	int (*collect)(void *opaque, uint8_t *bitmap);
	void *opaque; /* borrowed */
};

#define MEMORY_SLOTS_MAX 8
#define MEMORY_WATCHERS_MAX 256 /* many strategies may watch one guest */

struct memory {
	struct memslot slots[MEMORY_SLOTS_MAX];
	unsigned slot_count;
	uint64_t ram_bytes;
	uint8_t *ram;	       /* the one mapping behind the RAM slots */
	uint8_t *page_flags;   /* one byte per page of every slot, indexed by memory_page_index */
	uint64_t page_count;   /* of page_flags */
	uint16_t *table_holds; /* how many hold PAGE_TABLE, indexed like page_flags */
	struct memory_watcher watchers[MEMORY_WATCHERS_MAX];
	unsigned watcher_count;
	struct memory_flag_listener listeners[MEMORY_WATCHERS_MAX];
	unsigned listener_count;
	bool has_file;	       /* memory_map_file() was called */
	uint8_t *dirty_bitmap; /* NULL while the dirty log is off */
	struct memory_dirty_source dirty_source;
};

/* Makes `ram_bytes` of zeroed RAM (a multiple of 4 KiB; mapped without reserving, so untouched
 * pages cost nothing). -EINVAL, -ENOMEM with a message. */
int memory_create(struct memory **out, uint64_t ram_bytes, struct error *e);
void memory_destroy(struct memory *m);

/* The `size_bytes` of RAM from its byte `start` on become a private copy of those at `offset` of
 * `fd` (all multiples of 4 KiB), read when they are first touched; the file is never written.
 * Before anything holds translations. The file must stay as long as it is: what was cut off behind
 * our back is a SIGBUS. */
int memory_map_file(struct memory *m, uint64_t start, uint64_t size_bytes, int fd, uint64_t offset,
		    struct error *e);

/* The slot that holds `a`, or NULL. */
static inline const struct memslot *memory_slot(const struct memory *m, gpa_t a)
{
	for (unsigned i = 0; i < m->slot_count; i++)
		if (likely(a.v - m->slots[i].base.v < m->slots[i].size_bytes))
			return &m->slots[i];
	return NULL;
}

/* Where the guest sees `size_bytes` bytes at `a`, all inside one slot, in host memory; NULL if not
 * all of it is in one slot. Reading is free; before writing see the rule above. */
static inline uint8_t *memory_host(const struct memory *m, gpa_t a, uint64_t size_bytes)
{
	const struct memslot *slot = memory_slot(m, a);
	if (unlikely(!slot))
		return NULL;
	uint64_t offset = a.v - slot->base.v;
	return likely(size_bytes <= slot->size_bytes - offset) ? slot->host + offset : NULL;
}

/* Where page_flags and the dirty bitmap have the page at `a`; MEMORY_NO_PAGE for what is not in a
 * slot. */
#define MEMORY_NO_PAGE UINT64_MAX
static inline uint64_t memory_page_index(const struct memory *m, gpa_t a)
{
	const struct memslot *slot = memory_slot(m, a);
	if (unlikely(!slot))
		return MEMORY_NO_PAGE;
	return ((uint64_t)(slot->host - m->ram) + (a.v - slot->base.v)) >> PAGE_SHIFT;
}

/* The other way: the guest-physical address behind a host pointer into RAM; false if it is none. */
bool memory_gpa(const struct memory *m, const uint8_t *host, gpa_t *out);

/* The flags of the page at `a`; 0 for what is not in a slot. */
static inline uint8_t memory_page_flags(const struct memory *m, gpa_t a)
{
	uint64_t index = memory_page_index(m, a);
	return likely(index != MEMORY_NO_PAGE) ? m->page_flags[index] : 0;
}

/* A page's listeners hear of a flag that was not set before. Pages outside the slots are left
 * alone. */
void memory_set_page_flag(struct memory *m, gpa_t a, enum page_flag flag);
void memory_clear_page_flag(struct memory *m, gpa_t a, enum page_flag flag);

/* PAGE_TABLE for many: the flag is set while somebody holds it, each hold is released once. */
void memory_hold_table(struct memory *m, gpa_t a);
void memory_release_table(struct memory *m, gpa_t a);

/* Copies; every byte must lie in slots (it may cross from one to the next): -EFAULT and nothing
 * copied if not. Writes to ROM are dropped. Writes call the watchers. For loaders and devices' DMA.
 */
int memory_read(const struct memory *m, gpa_t a, void *bytes, uint64_t size_bytes);
int memory_write(struct memory *m, gpa_t a, const void *bytes, uint64_t size_bytes);

/* Whole pages that the guest does not need: zero from now on, and the host has what was behind them
 * back. Watchers hear of a write. What is not all in one slot, or read-only, is left alone. */
void memory_discard(struct memory *m, gpa_t a, uint64_t size_bytes);

/* Tells the watchers of a write the caller did through a host pointer, within one page. */
void memory_notify_write(struct memory *m, gpa_t a, unsigned size_bytes);

/* The same for a device's DMA through host pointers: any size, over as many pages as it takes. */
void memory_notify_range(struct memory *m, gpa_t a, uint64_t size_bytes);

/* The same for accessed and dirty bits that a walk set: no change of what a table says, so watchers
 * of PAGE_TABLE alone do not hear of it. */
void memory_notify_walk(struct memory *m, gpa_t a, unsigned size_bytes);

/* -ENOSPC when there are too many. */
int memory_add_watcher(struct memory *m, struct memory_watcher watcher);
/* Removes all that have this opaque pointer. */
void memory_remove_watcher(struct memory *m, const void *opaque);

/* -ENOSPC when there are too many. */
int memory_add_flag_listener(struct memory *m, struct memory_flag_listener listener);
/* Removes all that have this opaque pointer. */
void memory_remove_flag_listener(struct memory *m, void *opaque);

/* The dirty log. Start marks every page PAGE_CLEAN (-ENOMEM); from then on a page's first write
 * sets its bit. Collect copies the bitmap (one bit a page, memory_page_index order,
 * memory_dirty_bytes() long) and starts a new round. Stop ends it. */
int memory_dirty_start(struct memory *m, struct error *e);
uint64_t memory_dirty_bytes(const struct memory *m);
void memory_dirty_collect(struct memory *m, uint8_t *bitmap);
void memory_dirty_stop(struct memory *m);
/* The bits as they are now, the source's included, without a new round; NULL while it is off. */
const uint8_t *memory_dirty_now(struct memory *m);
/* One at a time; {0}: none any more. What it logs is added to the dirty log, also to one that is
 * on already. */
int memory_set_dirty_source(struct memory *m, struct memory_dirty_source source, struct error *e);
