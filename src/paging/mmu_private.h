/* What the files of paging/ share of an mmu, and nobody else sees. */
#pragma once

#include "cpu/vcpu.h"
#include "ledger/ledger.h"
#include "paging/mmu.h"
#include "paging/strategy.h"
#include "paging/tlb.h"
#include "paging/walk.h"

struct verify;

#define FAST_WORDS TLB_FAST_WORDS

struct mmu_private {
	struct walk_context context;	  /* the guest's, as its control registers have it */
	uint16_t permit[WALK_RIGHTS + 1]; /* what the hardware grants: like the context's, but for
					     the strategy's own CR0.WP */
	struct tlb *tlb;
	struct strategy *strategy;
	const struct strategy_entry *entry;
	bool is_tagged, is_pcid_tagged;
	struct verify *verify;		/* NULL: off */
	uint64_t fast_used[FAST_WORDS]; /* indexes of the fast map that are in use in some mode and
					   kind */
	uint64_t unread_stamp;		/* where the fast map's entries store while paging is off */
	char difference[1200];
};

static inline struct walk_source mmu_walk_source(const struct mmu *mmu)
{
	return walk_source_of(&mmu->private->context, &mmu->vcpu->state, mmu->memory);
}

/* The dimension of a page-table reference: whose tables. */
enum table_kind { TABLE_GUEST, TABLE_HOST, TABLE_SHADOW };

/* One reference of the walking hardware to an entry of `kind` at `level` (1..5), `address`
 * host-physical: charged by level, and by the data cache that answers. */
void mmu_charge_reference(struct mmu *mmu, enum table_kind kind, unsigned level, uint64_t address);

/* All references of a guest walk. */
void mmu_charge_walk(struct mmu *mmu, const struct walk_result *r);

/* fast_map.c: the engine's filter in front of the TLBs. */

/* Enters `page` for accesses like this one, if they may go straight to memory. `entry` NULL: paging
 * is off. */
void fast_map_fill(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct tlb_entry *entry, const struct mmu_page *page);
void fast_map_empty(struct mmu *mmu);
/* Drops what was derived from a first-level entry: the TLB's callback. */
void fast_map_drop(void *mmu, enum tlb_side_id side, struct tlb_entry *entry);
/* Drops write entries to a page: the memory's flag listener. */
void fast_map_page_flagged(void *mmu, gpa_t page);

/* mmu.c: the processor forgets everything, charged. */
void mmu_flush_tlb(struct mmu *mmu);

/* verify.c: every miss against the reference walk. The functions without an mmu accept NULL:
 * --verify is off. */
int verify_create(struct verify **out, struct error *e);
void verify_destroy(struct verify *v);
/* Before the strategy is asked: takes the reference. */
void verify_begin(const struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		  struct walk_result *reference);
/* After: sets mmu->difference if the answer is wrong. `t` NULL: the strategy reported a fault with
 * `error_code`. */
void verify_end(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		const struct walk_result *reference, const struct translation *t,
		uint32_t error_code);
/* The guest invalidated a page; everything. */
void verify_invalidate(struct verify *v, gva_t address);
void verify_flush(struct verify *v);
