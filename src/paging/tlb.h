/*
 * The modelled translation look-aside buffers of one processor.
 *
 * Two levels, each with a data and an instruction side (the second may be one for both, and the
 * first may have a third side for stores), each side up to four arrays (assoc.h) for some page
 * sizes each. They replace the least recently used entry of a set, exactly (where several arrays of
 * a side hold a page size, of all their sets that it may go to): every use stores the mmu's use
 * clock in the entry's stamp. The engine's fast map stores through that same pointer, so a hit
 * there counts here.
 *
 * Tags. An entry's key holds the page number, the size and the number of a "space". Each live PCID
 * has one, global entries share one, and flushing a space is giving it a new number: what carries
 * an old one can never match again and is replaced first.
 *
 * Invariants: a key is in an array at most once; entries of one side's first level do not overlap
 * for the same space; when a first-level entry goes, the owner is told before (`dropped`), so that
 * it can forget what it derived from the entry. The second level does not include the first:
 * filling happens at a walk, and a victim goes nowhere.
 */
#pragma once

#include "base/bits.h"
#include "base/error.h"
#include "paging/mmu.h"
#include "paging/strategy.h"
#include "x86/tlb_geometry.h"

struct tlb_entry {
	uint64_t *stamp; /* recency: the use clock at the last use; 0 while the entry is empty */
	uint64_t frame;	 /* guest-physical address of the page */
	uint8_t *host;	 /* of the page; NULL as in struct translation */
	uint8_t page_shift;
	uint8_t guest_shift;
	uint8_t flags; /* WALK_* */
	/* First level only: the accesses for which the fast map has, or once had, entries that were
	 * derived from this one: bit WALK_ACCESS(mode, kind). */
	uint16_t fast_accesses;
};

/* TLB_STORE is a first level of its own where the processor has one for stores (Intel from Ice Lake
 * on); else, and in the second level, it is TLB_DATA. */
enum tlb_side_id { TLB_DATA, TLB_INSTRUCTION, TLB_STORE, TLB_SIDE_COUNT };

struct tlb;

/* Of the page of 2^shift bytes at `address`. */
static inline uint64_t tlb_page_number(uint64_t address, unsigned shift)
{
	return address >> shift & (BIT(45) - 1);
}

/* `page`: the number of the entry's page in its own size, as tlb_page_number() gives it. */
typedef void tlb_dropped_fn(void *opaque, enum tlb_side_id side, const struct tlb_entry *entry,
			    uint64_t page);

/* `dropped` hears of each first-level entry with fast_accesses that goes one by one; of flushes the
 * caller knows itself. -EINVAL for a shape that cannot be. */
int tlb_create(struct tlb **out, const struct tlb_geometry *g, tlb_dropped_fn *dropped,
	       void *opaque, struct error *e);
void tlb_destroy(struct tlb *t);

/* NULL on a miss. Does not count as a use: the caller stores the stamp. */
struct tlb_entry *tlb_find(struct tlb *t, unsigned level, enum tlb_side_id side, gva_t address);

/* The caller looked `address` up in the level before, and missed.
 * Puts a translation of the page at `address` into a level for the current space, or the global one
 * if its flags have WALK_G. The first level breaks a page that it has no array for into smaller
 * ones; the second leaves it out (NULL). */
struct tlb_entry *tlb_insert(struct tlb *t, unsigned level, enum tlb_side_id side, gva_t address,
			     const struct translation *translation, uint64_t now);

/* Puts a second-level entry into the first. */
struct tlb_entry *tlb_promote(struct tlb *t, enum tlb_side_id side, gva_t address,
			      const struct tlb_entry *from, uint64_t now);

/* From now on look-ups and fills are for `pcid`. */
void tlb_set_pcid(struct tlb *t, unsigned pcid);

/* The number of `pcid`'s space, 0 if it has none now; and of the current one's. It is another one
 * once the space was flushed, and never the same for anything else: 17 bits, and above them how
 * often they began anew. */
uint64_t tlb_space_of(const struct tlb *t, unsigned pcid);
uint64_t tlb_space(const struct tlb *t);

/* Drops every translation of the guest page at `address`: of `pcid`, and of the global space if
 * asked. */
void tlb_invalidate(struct tlb *t, unsigned pcid, bool with_global, gva_t address);
void tlb_flush_pcid(struct tlb *t, unsigned pcid);
void tlb_flush_non_global(struct tlb *t);
void tlb_flush_all(struct tlb *t);
