/* What the files of paging/ share of an mmu, and nobody else sees. */
#pragma once

#include "cpu/vcpu.h"
#include "ledger/exit_times.h"
#include "ledger/ledger.h"
#include "paging/data_cache.h"
#include "paging/mmu.h"
#include "paging/strategy.h"
#include "paging/tlb.h"
#include "paging/walk.h"
#include "paging/walk_cache.h"

struct verify;

#define FAST_WORDS ((MMU_FAST_COUNT + 63) / 64)
#define FAST_ENTRIES (MMU_MODE_COUNT * ACCESS_KIND_COUNT * MMU_FAST_COUNT)

/* The data caches of one shape, for the guest's own accesses: common to all schemes of that shape.
 */
struct data_model {
	struct data_cache *cache;
	struct cache_geometry geometry;
	struct ledger *ledger; /* borrowed: of the first scheme that has the shape */
};

#define WATCHED_COUNT 64u

struct watched_page {
	uint64_t tag;	      /* page number and mode */
	struct mmu_page page; /* its first byte */
};

struct mmu_private {
	struct walk_context context;	  /* the guest's, as its control registers have it */
	uint16_t permit[WALK_RIGHTS + 1]; /* what the hardware grants: like the context's, but for
					     the strategy's own CR0.WP */
	struct tlb *tlb;
	struct data_cache *caches;     /* for page-table references; NULL: not modelled */
	struct walk_cache *walk_cache; /* NULL: none */
	bool is_fed_data;	       /* mmu_data_line() hears of the guest's data */
	struct strategy *strategy;
	const struct strategy_entry *entry;
	bool is_tagged, is_pcid_tagged;
	struct verify *verify;		/* NULL: off */
	uint64_t fast_used[FAST_WORDS]; /* indexes of the fast map that are in use in some mode and
					   kind */
	/* Unmodelled: writes to watched pages, which the fast map does not take, are translated
	 * once, too. Emptied with the fast map. */
	struct watched_page watched[WATCHED_COUNT];
	bool has_watched;
	bool has_large_fast[2]; /* unmodelled: entries of large pages in the fast map, by half of
				   the address space */
	uint64_t unread_stamp;	/* where the fast map's entries store while paging is off */
	char difference[1200];

	/* Observers (observe.c). */
	struct mmu *primary; /* of an observer, the mmu it rides on; else the mmu itself */
	struct mmu *next;    /* the primary's first observer; an observer's next; NULL: no more */
	unsigned observer_count;
	struct tlb_entry *held; /* an observer's first-level entry for the running access; NULL: it
				   has none */
	uint64_t **stamps; /* the primary's: by fast entry and observer, where a hit is stored */
	uint64_t last_hit; /* the primary's: fast entry of the last access; FAST_ENTRIES: none */
	struct data_model *data; /* the primary's; data_count of them */
	unsigned data_count;
	unsigned data_shape;	      /* which of the primary's this scheme's caches are like */
	uint64_t last_line;	      /* of the last data access */
	struct walk_result reference; /* the primary's: of the access at use clock... */
	uint64_t reference_clock;
};

static inline struct walk_source mmu_walk_source(const struct mmu *mmu)
{
	struct walk_source source =
		walk_source_of(&mmu->private->context, &mmu->vcpu->state, mmu->memory);
	source.is_readonly = mmu->is_observer;
	return source;
}

/* The dimension of a page-table reference: whose tables. */
enum table_kind { TABLE_GUEST, TABLE_HOST, TABLE_SHADOW };

/* references.c */

#define MMU_UNCACHED UINT64_MAX /* the address of a reference that no cache can answer */

/* One reference of the walking hardware to an entry of `kind` at `level` (1..5), `address`
 * host-physical: charged by level, and by the data cache that answers. */
void mmu_charge_reference(struct mmu *mmu, enum table_kind kind, unsigned level, uint64_t address);

/* All references of one walk through tables of `kind` that the hardware walks for the guest's
 * `address`, less what the walk caches save; host-physical addresses or MMU_UNCACHED. */
void mmu_charge_path(struct mmu *mmu, enum table_kind kind, gva_t address,
		     const struct walk_path *path, bool has_faulted);
/* The same for the guest's own tables, in one dimension. */
void mmu_charge_walk(struct mmu *mmu, gva_t address, const struct walk_result *r);

/* In two: `host` are the walks that located the tables whose entries were read, in that order, and
 * the page; one more than entries where the walk was cut short. */
struct host_walk {
	gpa_t address;
	struct walk_path path;
};
/* A location without references was known. */
void mmu_charge_nested_path(struct mmu *mmu, gva_t address, const struct walk_path *path,
			    const struct host_walk *host, unsigned host_count, bool has_faulted);
void mmu_charge_nested(struct mmu *mmu, gva_t address, const struct walk_result *r,
		       const struct host_walk *host, unsigned host_count);

/* A line of data that the guest's own caches did not have passes through this scheme's: it pushes
 * out page tables, and costs nothing here. */
void mmu_data_line(struct mmu *mmu, uint64_t hpa);

/* Without modelled data (is_fed_data) that is all that is known of it: the line of an access that
 * missed the TLB. */
void mmu_missed_line(struct mmu *mmu, gpa_t address);

static inline void mmu_tell(const struct mmu *mmu, enum mmu_flush what, gva_t address)
{
	if (mmu->listener.flushed)
		mmu->listener.flushed(mmu->listener.opaque, what, address);
}

/* fast_map.c: the engine's filter in front of the TLBs. */

/* Enters `page` for accesses like this one, if they may go straight to memory. `entry` NULL: paging
 * is off. */
void fast_map_fill(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct tlb_entry *entry, const struct mmu_page *page);
/* The same for writes to watched pages of an unmodelled mmu. */
void watched_fill(struct mmu *mmu, gva_t address, enum mmu_mode mode, const struct mmu_page *page);
bool watched_find(const struct mmu *mmu, gva_t address, enum mmu_mode mode, struct mmu_page *out);
void fast_map_empty(struct mmu *mmu);
/* Unmodelled: the guest invalidated the page at `address`, of whatever size. */
void fast_map_drop_page(struct mmu *mmu, gva_t address);
/* Drops what was derived from a first-level entry of `mmu`, which may be an observer: the TLB's
 * callback. */
void fast_map_drop(void *mmu, enum tlb_side_id side, const struct tlb_entry *entry, uint64_t page);
/* Drops write entries to a page: the memory's flag listener. */
void fast_map_page_flagged(void *mmu, gpa_t page);

/* observe.c */

/* Lets every observer do the access that its primary is about to do. False: one of them has no
 * first-level entry for it, so that the next such access must come here again. */
/* mmu_create(), for the primary or for an observer of `primary`, which charges to `ledger`. */
int mmu_create_scheme(struct mmu **out, const struct mmu_config *config, struct vcpu *v,
		      struct memory *m, struct ledger *ledger, struct mmu *primary,
		      struct error *e);
bool observe_access(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode);
/* A data access that was no fast hit, for the data caches. */
void observe_data(struct mmu *mmu, const struct mmu_page *page);
/* The guest's data accesses go through caches of this scheme's shape, too. -ENOMEM. */
int observe_add_data(struct mmu *mmu, const struct cache_geometry *g, struct error *e);
void observe_fini(struct mmu *mmu);

/* mmu.c: one access in the model of `mmu` alone. *held (may be NULL at the end) is the first-level
 * entry that grants it. */
bool mmu_access(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		struct tlb_entry **held, struct translation *uncached, struct page_fault *fault);
/* A strategy charged an exit: a processor that does not tag its TLBs (tlb_tagged) loses them. */
void mmu_note_exit(struct mmu *mmu);
/* adaptive: the mode in use decides what the hardware is set to. */
void mmu_use_entry(struct mmu *mmu, const struct strategy_entry *entry);
/* The processor forgets everything, charged. */
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
