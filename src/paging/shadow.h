/*
 * The shadow core: radix tables from guest-virtual straight to host-physical addresses, built from
 * the guest's tables by software and walked by the (modelled) hardware in their place. What a
 * strategy retains, prefetches and watches is policy above this; the core makes tables, fills one
 * translation, walks, and drops.
 *
 * Shadow tables are always of the wide kind (8-byte entries): a two-level guest is shadowed in PAE
 * format, its 4M pages as pairs of 2M. One guest page may be splintered into smaller shadow
 * entries, because host backing is smaller.
 *
 *   63  62..52  51..........12  11  10..9  8   7    6..3   2   1   0
 *   NX   0      HPA              0  SIZE   0   PS    0     U   W   P
 *
 * SIZE names the guest's page when it is larger than 4K (1: 2M, 2: 4M, 3: 1G). It is on every entry
 * whose region lies within one such page, pointers to tables included, so that INVLPG can drop the
 * whole page from any address in it.
 *
 * Rights are in leaves alone; pointers grant everything. A leaf is writable only once the guest's D
 * is set, and is made only after A was set at every level: then hardware can never do what the
 * guest's A and D would not show.
 *
 * CR0.WP: the hardware runs with WP on. With the guest's WP off, supervisor writes to read-only
 * user pages need a leaf of another flavour, supervisor and writable (and NX under SMEP); the next
 * user access turns it back. Under SMAP such a leaf would hide the page's U from the hardware, so
 * none is made and each such write exits.
 */
#pragma once

#include "paging/host_physical.h"
#include "paging/mmu_private.h"

#define SHADOW_SIZE_SHIFT 9
#define SHADOW_SIZE (3ull << SHADOW_SIZE_SHIFT)
#define SHADOW_ADDRESS 0x000ffffffffff000ull

/* One table's record, beside its page in the pool. */
struct shadow_table {
	uint32_t parent;       /* the table that points here; TABLE_POOL_NONE for a root */
	uint16_t parent_index; /* at which entry */
	uint8_t level;
};

struct shadow {
	struct mmu *mmu; /* borrowed */
	struct table_pool pool;
	struct shadow_table *tables;	/* by page of the pool */
	uint32_t root;			/* of the current space; TABLE_POOL_NONE: none yet */
	const struct paging_mode *mode; /* of the tables */
	unsigned page_shift_max;
};

/* What the hardware found. */
struct shadow_hit {
	uint64_t entry; /* the leaf; 0: none */
	uint8_t page_shift;
};

int shadow_init(struct shadow *s, struct mmu *mmu, const struct mmu_config *config,
		struct error *e);
void shadow_fini(struct shadow *s);

/* The hardware's walk, charged. */
struct shadow_hit shadow_walk(const struct shadow *s, gva_t address);

/* What a leaf grants, as WALK_* flags. */
unsigned shadow_flags(uint64_t entry);
unsigned shadow_guest_shift(uint64_t entry, unsigned page_shift);

/* What the leaf for an access that the guest's tables allow may grant: WALK_* flags; -1 if no leaf
 * can serve it. */
int shadow_leaf_flags(const struct walk_context *c, const struct vcpu_state *state,
		      unsigned guest_flags, enum access_kind kind, enum mmu_mode mode);

/* Builds the leaf for `address` in the current space from the guest walk `r` of RAM. False: the
 * memory limit is reached; drop something. */
bool shadow_fill(struct shadow *s, gva_t address, const struct walk_result *r, unsigned flags);

/* Drops what the guest page at `address` has in the current space. */
void shadow_drop_page(struct shadow *s, gva_t address);

/* Drops everything, and takes the mode of the guest's present controls. Returns false if there was
 * nothing. */
bool shadow_drop_all(struct shadow *s);
