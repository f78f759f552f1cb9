/*
 * The caches of a page walk: upper levels of tables, and where the host has the guest's tables.
 *
 * They save references and nothing else. The walk that answers the guest always reads its tables;
 * afterwards the model asks these caches which of the references the hardware would have made. An
 * entry remembers the table entry that it was made from, and one that has changed since counts as
 * no hit: so the model never uses what hardware might still use after a guest changed an upper
 * entry and did not invalidate it. That is the one thing that the guest could have noticed, and a
 * guest that relies on it is broken.
 *
 * Two kinds, told apart by the geometry (x86/tlb_geometry.h):
 *   - split (Intel; "translation caches"): one cache for each level, asked by the address that is
 *     translated. The walk begins below the deepest entry found.
 *   - shared (AMD; "page table cache"): one cache of table entries by their host-physical address.
 *     The walk goes through all levels, and what is found there is not read from memory.
 * Entries of the lowest level, and of large pages, are translations and belong in a TLB.
 *
 * In one dimension only the guest's entries (or a shadow's) are kept. A two-dimensional cache keeps
 * the host's too; and a split one then knows the host-physical address of the next guest table
 * ("combined mappings", SDM 3C 28.3.1), so that the table need not be located. The nested TLB keeps
 * where the host has pages that are guest tables (Bhargava et al., ASPLOS 2008).
 *
 * Guest entries carry the TLB's number of the space (tlb_space()), so they go when the TLB's do;
 * host entries stay until the map of guest memory changes.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"
#include "paging/mmu.h"
#include "x86/tlb_geometry.h"

struct walk_cache;

/* The references of one walk through one set of tables, from the root on: all but the last led on
 * to the next. */
#define WALK_PATH_MAX 5
struct walk_path {
	struct {
		uint64_t address; /* host-physical, of the entry */
		uint64_t entry;
		uint8_t level;
		uint8_t shift; /* of what an entry of this level covers */
	} ref[WALK_PATH_MAX];
	unsigned count;
};

static inline void walk_path_add(struct walk_path *path, unsigned level, unsigned shift,
				 uint64_t address, uint64_t entry)
{
	path->ref[path->count].address = address;
	path->ref[path->count].entry = entry;
	path->ref[path->count].level = (uint8_t)level;
	path->ref[path->count++].shift = (uint8_t)shift;
}

/* What the hardware does of a walk: bit i for reference i. */
struct walk_plan {
	unsigned refs;	  /* entries that it reads from memory */
	unsigned locates; /* entries whose table the host must locate first */
	bool is_shortened;
};

/* NULL in *out where the choice and the geometry leave nothing to model. A geometry without sizes
 * gets 32, 4 and 4 entries if the choice asks for some. -ENOMEM, -EINVAL. */
int walk_cache_create(struct walk_cache **out, const struct mmu_config *config, struct error *e);
void walk_cache_destroy(struct walk_cache *c);

/* All of these take NULL for "no walk caches": everything is read. They count as uses, and keep
 * what the walk has read. */

/* The guest's walk of `address` (or the one through a shadow's tables) in space `space`. One that
 * ended in a fault leaves nothing behind. */
struct walk_plan walk_cache_guest(struct walk_cache *c, uint64_t space, gva_t address,
				  const struct walk_path *path, bool has_faulted);
/* The host's walk of `address`: the references to make, one bit each. */
unsigned walk_cache_host(struct walk_cache *c, gpa_t address, const struct walk_path *path);
/* Does the nested TLB know where the host has the guest table at `address`? If it does not, it does
 * from now on. */
bool walk_cache_nested_tlb(struct walk_cache *c, gpa_t address);

/* INVLPG and its like: all guest entries of the space, whatever the address (SDM 3A 4.10.4.1). */
void walk_cache_invalidate(struct walk_cache *c, uint64_t space);
void walk_cache_flush(struct walk_cache *c);
