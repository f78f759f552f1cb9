/*
 * The paging contract: what a guest-virtual address means, and what finding out cost.
 *
 * One `struct mmu` per vcpu. It holds the modelled TLBs of the profile's processor and the strategy
 * (native, nested, shadow) that answers when they miss. The strategy is the real thing: the
 * translations the guest runs on come out of its tables.
 *
 * Three layers, fastest first:
 *   1. the fast map: direct-mapped, per privilege mode and access kind, read inline by the engine.
 * Invariant: an entry is there only while the first-level modelled TLB holds the translation, the
 * page is RAM that this access may touch without anybody having to know (no watch on a write, D
 * already set), so a fast hit IS a modelled first-level hit; the hit's only effect on the model is
 * the entry's recency, and that is the store of the use counter through `stamp`. LRU by such stamps
 * is exact.
 *   2. mmu_translate(): the modelled TLBs, first and second level.
 *   3. the strategy's fill(): walks, builds shadow or nested entries, sets A and D bits, reports
 * faults, charges the ledger.
 *
 * With paging off there is no TLB: the fast map still caches the identity map, with a stamp that
 * nobody reads. Memory type, protection keys: PKU is not offered.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct memory;
struct vcpu;
struct adaptive_prices;
struct cache_geometry;
struct ledger;
struct tlb_geometry;
struct strategy_ops;

enum access_kind { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH, ACCESS_KIND_COUNT };

/* Whose access it is. Implicit supervisor accesses (descriptor tables, TSS) are MMU_SUPERVISOR at
 * any CPL. MMU_SUPERVISOR_AC is an explicit supervisor access with RFLAGS.AC set, for which SMAP
 * does not hold. */
enum mmu_mode { MMU_SUPERVISOR, MMU_USER, MMU_SUPERVISOR_AC, MMU_MODE_COUNT };

struct page_fault {
	gva_t address;
	uint32_t error_code; /* as pushed: PF_* */
};

/* Where one access, inside one 4 KiB page, goes. */
struct mmu_page {
	gpa_t gpa;	     /* of the byte asked for */
	uint8_t *host;	     /* the same byte in host memory; NULL: not RAM, ask the bus */
	uint8_t flags;	     /* enum page_flag of the page: not 0 means a write must go through
				memory_notify_write() */
	uint8_t guest_shift; /* of the guest's page: INVLPG drops all of it; 0: must not be
				remembered */
	bool is_global;	     /* outlives CR3 writes */
};

#ifdef GNOMON_HARD
#define MMU_FAST_BITS 1
#else
#define MMU_FAST_BITS 7
#endif
#define MMU_FAST_COUNT (1u << MMU_FAST_BITS)
#define MMU_FAST_EMPTY (~0ull)

/*
 * The slot of a page in a fast map. Adding the upper bits keeps pages apart that are a power of two
 * apart (two arrays, a source and a destination). Neighbouring pages must never share a slot, for a
 * look-up goes to the slot of an access's first page and compares the tag with its last: the sum
 * differs by 1 or 2 between neighbours.
 */
static inline unsigned mmu_fast_slot(uint64_t page_number)
{
#ifdef GNOMON_HARD /* two slots: 2 would be 0 */
	return (unsigned)page_number & (MMU_FAST_COUNT - 1);
#else
	return (unsigned)(page_number + (page_number >> MMU_FAST_BITS)) & (MMU_FAST_COUNT - 1);
#endif
}

struct mmu_fast_entry {
	uint64_t tag;	 /* gva >> 12 of the page, or MMU_FAST_EMPTY */
	uint64_t addend; /* host address = gva + addend */
	uint64_t *stamp; /* recency of the modelled first-level entry */
	uint64_t gfn;	 /* guest frame */
};

/* What the guest may no longer use of what it was told. */
enum mmu_flush {
	MMU_FLUSH_ALL,	   /* every translation of every space */
	MMU_FLUSH_SPACE,   /* CR3 was written: the new space's translations must go but for global
			      ones */
	MMU_SWITCH_SPACE,  /* CR3 was written; the new space's translations may stay */
	MMU_FLUSH_PAGE,	   /* one page, in the present space and if it is global */
	MMU_FLUSH_ADDRESS, /* one page, in whichever space */
};

/* Of an engine that remembers translations itself, longer than the fast map does. */
struct mmu_listener {
	void (*flushed)(void *opaque, enum mmu_flush what, gva_t address); /* NULL: nobody */
	void *opaque;							   /* borrowed */
};

struct mmu {
	struct mmu_fast_entry fast[MMU_MODE_COUNT][ACCESS_KIND_COUNT][MMU_FAST_COUNT];
	uint64_t use_clock; /* counts every access, fast or slow: the source of stamps */
	bool is_observed;   /* a fast hit has more to do than its stamp: observers, data caches */
	bool is_observer;   /* rides along on another mmu: changes nothing that the guest sees */
	/* The engine's. With `is_unmodelled` no TLB of the processor is modelled: what misses the
	 * fast map and the engine's own TLB goes straight to the strategy. tlb.* then counts those.
	 */
	struct mmu_listener listener;
	/* Was there ever a fetch from a large page, from a page that is not global? By half of the
	 * address space, [1] is the kernel's. What such a listener must do when told depends on it.
	 */
	bool has_large_code[2], has_local_code[2];
	bool has_global[2]; /* likewise: any translation of a global page */
	bool is_unmodelled;
	const char *difference; /* set once --verify found a difference: both sides as text, owned
				   by the mmu */
	/* What follows belongs to paging/. */
	const struct strategy_ops *strategy;
	struct vcpu *vcpu;     /* borrowed */
	struct memory *memory; /* borrowed */
	struct ledger *ledger; /* borrowed */
	struct mmu_private *private;
};

/* What a profile says, or what somebody wants to know instead. */
enum mmu_choice { MMU_AS_PROFILE, MMU_ON, MMU_OFF };
enum mmu_walk_cache {
	MMU_WALK_CACHE_PROFILE,
	MMU_WALK_CACHE_NONE,
	MMU_WALK_CACHE_1D,
	MMU_WALK_CACHE_2D
};
/* Where the nested dimension finds the guest pages that are page tables (Dong et al., 4.B): where
 * the guest put them, side by side in as few 2M regions as hold them, or no two in one. */
enum mmu_table_placement { MMU_TABLES_AS_IS, MMU_TABLES_CONFINED, MMU_TABLES_SCATTERED };

#define MMU_PREFETCH_TABLE 1024u /* the whole table that holds the faulting entry */

/* A strategy with everything that can be chosen about it. All zero but for `strategy` and
 * `geometry` is the default. What a strategy does not know it ignores; mmu_parse_strategy() refuses
 * it before. */
struct mmu_config {
	const char *strategy;		     /* a name from the catalogue */
	const struct tlb_geometry *geometry; /* borrowed */
	const struct cache_geometry *caches; /* borrowed; NULL: references are not put through
						data caches */
	bool has_data_caches;		     /* the guest's own accesses go through `caches`, too */
	bool verify;			     /* check every miss against the reference walk */
	enum mmu_choice tlb_tagged;	     /* do TLB entries survive exits? */
	unsigned host_page_shift; /* 12, 21 or 30 (large where alignment allows); 0 = 12 */
	enum mmu_table_placement table_placement;
	/* nested, agile */
	unsigned host_levels; /* 1..5, 0 = 4 */
	enum mmu_walk_cache walk_cache;
	bool has_nested_tlb_entries;
	unsigned nested_tlb_entries; /* in place of the profile's, if has_nested_tlb_entries */
	/* The shadow strategies */
	bool is_pf_filtered;  /* the processor tells the guest's own page faults apart: no exit */
	bool is_cr3_exitless; /* a CR3 write to a space whose shadow is kept does not exit */
	bool is_oos;	      /* shadow-cache: last-level tables may be out of sync; else strict */
	unsigned prefetch_count;     /* entries per fill, 1 (it alone) to MMU_PREFETCH_TABLE; 0:
					the strategy's default */
	unsigned root_count;	     /* shadow-cache: retained roots; 0: 64 */
	uint64_t shadow_limit_bytes; /* of shadow tables; 0: 32 MiB */
	/* adaptive: "nested" and a shadow strategy, and when to look */
	const struct adaptive_prices *adaptive_prices; /* borrowed; NULL: the defaults */
	const char *adaptive_shadow; /* a name from the catalogue; NULL: shadow-cache */
	bool is_adaptive_by_rates;   /* the paper's rule */
	uint64_t adaptive_interval;  /* instructions; 0: the default */
};

/*
 * Parses NAME[:KEY=VALUE]... into the fields that a strategy is chosen by (the others are left
 * alone): host-page=4K|2M|1G, host-levels=1..5, walk-cache=profile|none|1d|2d, nested-tlb=N,
 * tlb-tag=on|off, tables=as-is|confined|scattered, pf-filter=on|off, cr3-exits=on|off,
 * sync=strict|oos, prefetch=N|table, roots=N, limit=SIZE, shadow=NAME, rule=cost|paper, interval=N.
 * -EINVAL; the message names the key and what would be right.
 */
int mmu_parse_strategy(const char *text, struct mmu_config *out, struct error *e);
/* The other way: the name and what differs from the default; equal texts are equal strategies. */
#define MMU_STRATEGY_TEXT_MAX 160
const char *mmu_format_strategy(const struct mmu_config *c, char text[MMU_STRATEGY_TEXT_MAX]);

/* The caller keeps `v`, `m` and the geometry alive. Errors: -EINVAL for an unknown strategy (the
 * message lists the legal ones). */
int mmu_create(struct mmu **out, const struct mmu_config *config, struct vcpu *v, struct memory *m,
	       struct error *e);
/* Observers go with it. */
void mmu_destroy(struct mmu *mmu);

/* The catalogue: names for --paging, NULL after the last; *text (may be NULL) gets one sentence of
 * help. */
const char *mmu_strategy_name(size_t i, const char **text);
/* False for `native`: nothing is virtualised and no exits are charged. */
bool mmu_is_virtualized(const struct mmu *mmu);
/* The name of the strategy that serves the guest at present; another than the configured one under
 * `adaptive`, which moves between two. */
const char *mmu_present_strategy(const struct mmu *mmu);

/*
 * Observers: other strategies that ride along on `mmu`, the primary. Each sees every access and
 * every event that the primary sees, has TLBs, walk caches, data caches and tables of its own, and
 * charges what it would have cost to its own `ledger` (translation events only:
 * event_is_translation(); all others are the same under every strategy and are in the vcpu's
 * ledger). An observer changes nothing that the guest can see: it does not set A or D, and a wrong
 * answer of it is reported as
 * --verify reports the primary's. Call before the first access. -EINVAL, -ENOMEM.
 */
int mmu_add_observer(struct mmu *mmu, const struct mmu_config *config, struct ledger *ledger,
		     struct error *e);
/* NULL after the last. */
const struct mmu *mmu_observer(const struct mmu *mmu, unsigned i);

/*
 * Translates one access of the running vcpu with its present CR0, CR3, CR4, EFER. The address must
 * be canonical and the access must not cross a page. True: *out is filled, A (and D for a write)
 * are set, TLBs and fast map updated, one use counted. False: *fault is what the guest must get; no
 * state changed but what the architecture changes (CR2 is the caller's).
 */
bool mmu_translate(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct mmu_page *out, struct page_fault *fault);

/* For debuggers: supervisor read access, no side effects at all. False if nothing is mapped there.
 */
bool mmu_peek(const struct mmu *mmu, gva_t address, gpa_t *out);

/* One step of the reference walk, for the monitor's level-by-level display. */
struct mmu_walk_step {
	unsigned level; /* 5..1; 0 is the page */
	gpa_t entry_address;
	uint64_t entry;
};
/* Fills at most 6 steps; returns how many; no side effects. */
unsigned mmu_walk_steps(const struct mmu *mmu, gva_t address, struct mmu_walk_step steps[6]);

/* The invariants of a shadow strategy's tables. False: `why` says what is wrong. */
bool mmu_audit(const struct mmu *mmu, char *why, size_t size);

/* The guest wrote CR3 (state.cr3 is new already, without bit 63; `no_flush` is bit 63 with
 * CR4.PCIDE). PDPTEs are loaded by the engine. */
void mmu_cr3_written(struct mmu *mmu, bool no_flush);
void mmu_invlpg(struct mmu *mmu, gva_t address);
/* Types 0..3 of SDM 2A INVPCID; the engine has checked the operands. */
void mmu_invpcid(struct mmu *mmu, unsigned type, unsigned pcid, gva_t address);
/* CR0, CR4 or EFER changed; state holds the new values. Flushes what the architecture flushes (PG,
 * WP, PGE, PAE, PSE, SMEP, PCIDE, LA57 ...). */
void mmu_controls_changed(struct mmu *mmu, uint64_t old_cr0, uint64_t old_cr4, uint64_t old_efer);
/* Everything (reset, state loaded from outside). */
void mmu_reset(struct mmu *mmu);
/* Guest-physical memory map changed (slots): strategies drop what they derived from it. */
void mmu_memory_changed(struct mmu *mmu);

/* The engine charged an exit: a processor that does not tag its TLBs (geometry->tagged false) loses
 * them with every exit. Exits that paging/ charges itself are known here already. */
void mmu_note_engine_exit(struct mmu *mmu);
/* Must the engine charge exits: is the primary or an observer virtualized? */
bool mmu_needs_exits(const struct mmu *mmu);

/* A look-up in the fast map: NULL if it misses. `last` is the address of the access's last byte:
 * its page must be the entry's. */
static inline struct mmu_fast_entry *mmu_fast_lookup(struct mmu *mmu, uint64_t first, uint64_t last,
						     enum access_kind kind, enum mmu_mode mode)
{
	struct mmu_fast_entry *e = &mmu->fast[mode][kind][mmu_fast_slot(first >> PAGE_SHIFT)];
	if (unlikely(e->tag != last >> PAGE_SHIFT))
		return NULL;
	return e;
}

/* The rest of a hit, for mmus that are observed: `count` accesses, `size_bytes` bytes in all from
 * `address` on, in the entry's page. */
void mmu_observe_hit(struct mmu *mmu, const struct mmu_fast_entry *e, uint64_t address,
		     uint64_t size_bytes, uint64_t count);

/* Records the same in the model. */
static inline void mmu_fast_hits(struct mmu *mmu, struct mmu_fast_entry *e, uint64_t address,
				 uint64_t size_bytes, uint64_t count)
{
	*e->stamp = mmu->use_clock += count;
	if (unlikely(mmu->is_observed))
		mmu_observe_hit(mmu, e, address, size_bytes, count);
}

static inline void mmu_fast_hit(struct mmu *mmu, struct mmu_fast_entry *e, uint64_t address,
				uint64_t size_bytes)
{
	mmu_fast_hits(mmu, e, address, size_bytes, 1);
}
