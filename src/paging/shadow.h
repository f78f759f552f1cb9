/*
 * The shadow core: tables from guest-virtual straight to host-physical addresses, built from the
 * guest's tables by software and walked by the (modelled) hardware in their place. What is kept,
 * prefetched and watched is policy (struct shadow_policy); the mechanism is one.
 *
 * Shadow tables are always of the wide kind (8-byte entries): a two-level guest is shadowed in PAE
 * format, each of its tables as two (level 1) or four (level 2) quadrants, its 4M pages as pairs of
 * 2M. A root of four registers (PAE format) is a shadow page whose entries cost no reference.
 *
 *   63  62..53  52  51..........12  11  10..9  8   7    6..3   2   1   0
 *   NX   0      SW  HPA              NP  SIZE   G   PS    0     U   W   P
 *
 * SIZE names the guest's page when it is larger than 4K (1: 2M, 2: 4M, 3: 1G). It is on every entry
 * whose region lies within one such page, pointers to tables included, so that INVLPG can drop the
 * whole page from any address in it. NP, with P clear: the guest's entry is known to be not present
 * (the `pf-filter` setting). SW: HPA is a table of the guest, and the walk goes on in two
 * dimensions (`agile`); the rights are those of the entries above. G, where the policy wants it:
 * the guest's leaf is global.
 *
 * Rights are in leaves alone; pointers grant everything. A leaf is writable only once the guest's D
 * is set, and is made only after A was set at every level: then hardware can never do what the
 * guest's A and D would not show.
 *
 * CR0.WP: the hardware runs with WP on. With the guest's WP off, supervisor writes to read-only
 * user pages need a leaf of another flavour, supervisor and writable (and NX under SMEP); the next
 * user access turns it back. Under SMAP such a leaf would hide the page's U from the hardware, so
 * none is made and each such write exits.
 *
 * A shadow page is found by its key: the guest frame it derives from and its role, which is all
 * else that its entries depend on. `direct` pages splinter a guest page that is larger than the
 * host's backing, or that has a guest table inside; they derive from no table.
 *
 *      guest frame --frames[].table_count--> shadow pages (hash by frame)
 *      shadow page --parents--> every entry that points to it
 *      host frame, 2M and 1G region --mappings--> every leaf that maps it
 *
 * Each present entry is in exactly one of the last two kinds of list, so one array of links, one
 * for each entry of the pool, holds them all.
 *
 * Watching policies keep these invariants (shadow_audit.c): a guest frame with a shadow that is in
 * sync is protected (the memory's PAGE_TABLE, no writable leaf maps it, no large leaf covers it),
 * and every present entry of such a shadow is what the guest's entry, the memory map and the role
 * say. Without watching each shadow page belongs to one place, and all goes at a CR3 write.
 */
#pragma once

#include "paging/host_physical.h"
#include "paging/mmu_private.h"

#define SHADOW_SIZE_SHIFT 9
#define SHADOW_SIZE (3ull << SHADOW_SIZE_SHIFT)
#define SHADOW_NOT_PRESENT BIT(11)
#define SHADOW_SWITCH BIT(52)
#define SHADOW_ADDRESS 0x000ffffffffff000ull
#define SHADOW_ENTRIES 512u
#define SHADOW_NONE UINT32_MAX
#define SHADOW_UNSWITCHED_MAX 1024u /* the others wait for their faults */
#define SHADOW_NOTED_MAX 4096u	    /* more of them mean everything */

struct shadow_policy {
	bool is_watching;    /* guest tables are write-protected */
	bool is_keeping;     /* spaces survive CR3 writes */
	bool is_updating;    /* a write to a table renews its shadow's entries; else drops them */
	bool is_oos;	     /* last-level tables go out of sync at their first write */
	bool is_zapping;     /* a table written again and again without use loses its shadows */
	bool is_pf_filtered; /* not-present entries are told apart */
	bool is_cr3_exitless;
	/* The guest invalidates the processor's TLBs itself, which may be as old as it lets them:
	 * only where a page becomes protected is there something to flush. */
	bool is_invlpg_exitless;
	bool is_global;		 /* leaves of the guest's global pages are global */
	unsigned prefetch_count; /* entries in the group around the faulting one; 1: it alone */
	unsigned root_count;	 /* retained roots at most */
	/* `agile`: is this table of the guest walked in two dimensions? NULL: none is. */
	bool (*is_nested)(const void *opaque, uint64_t gfn);
	/* A leaf for `gfn` was made. NULL: nobody asks. */
	void (*mapped)(void *opaque, uint64_t gfn);
	void *opaque;
};

/* All that the entries of a shadow page depend on, beside the guest frame and the paging mode,
 * which is the same for all pages. */
union shadow_role {
	struct {
		uint32_t level : 3;
		uint32_t quadrant : 2; /* of a table of 4-byte entries */
		uint32_t is_direct : 1;
		uint32_t is_register : 1; /* PAE's four: never watched */
		uint32_t size : 2;	  /* direct: SIZE of the guest's page */
		uint32_t access : 3; /* WALK_RIGHTS of the entries above; direct: of the page */
		uint32_t is_wp : 1;
		uint32_t is_smep : 1; /* these two only where is_wp is clear */
		uint32_t is_smap : 1;
		uint32_t is_global : 1; /* direct: the guest's page is, and the policy wants it */
	};
	uint32_t bits;
};

struct shadow_page {
	uint64_t gfn; /* of the table, or direct: of the first page; of registers, their address by
			 32 bytes */
	union shadow_role role;
	uint32_t hash_next;
	uint32_t parents;      /* first entry that points here */
	uint32_t newer, older; /* by last use */
	uint16_t used_count;   /* present entries */
	bool is_root;	       /* among the retained roots */
};

/* Beside each entry: its neighbours in the list it is in. */
struct shadow_link {
	uint32_t next, previous;
};

/* The head of a list of entries or pages; empty unless the epoch is the shadow's. */
struct shadow_head {
	uint32_t first, epoch;
};

/* A page of guest RAM, by its place in the RAM's mapping. */
struct shadow_frame {
	struct shadow_head mappings; /* 4K leaves */
	uint32_t table_epoch;	     /* the rest is empty unless this is the shadow's epoch */
	uint16_t table_count;	     /* shadow pages that derive from it */
	uint8_t idle_write_count;    /* since one of them was used */
	uint32_t unsync_slot;	     /* 1 + place in shadow.unsync; 0: in sync */
};

struct shadow_region {
	struct shadow_head mappings; /* leaves of this size */
	uint32_t epoch;
	uint32_t protected_count; /* protected pages inside */
};

/* A table out of sync: what it said when it went. */
struct shadow_unsync {
	uint64_t gfn;
	uint8_t *snapshot; /* under --verify; else NULL */
};

/* What entries depend on beside their page's key: a change drops everything. */
struct shadow_context {
	const struct paging_mode *mode;
	uint64_t nx_bit, frame_mask;
	uint8_t large_levels;
};

struct shadow {
	struct mmu *mmu; /* borrowed */
	struct shadow_policy policy;
	struct table_pool pool;
	struct shadow_page *pages; /* by page of the pool */
	struct shadow_link *links; /* by entry of the pool */
	struct shadow_head *buckets;
	unsigned bucket_bits;
	struct shadow_frame *frames;
	struct shadow_region *regions[2]; /* 2M, 1G */
	uint32_t epoch;
	uint32_t newest, oldest;
	uint32_t live_count;
	uint64_t full_count; /* how often it was full */
	uint32_t root;	     /* of the current space; SHADOW_NONE: none yet */
	uint32_t *roots;     /* retained, the last used first */
	unsigned root_count;
	struct shadow_unsync *unsync;
	uint32_t unsync_count, unsync_room;
	const struct paging_mode *mode; /* of the tables */
	union shadow_role controls;	/* the guest's present is_wp, is_smep, is_smap */
	struct shadow_context context;
	uint64_t pdpte[4]; /* the guest's, that the root derives from */
	unsigned page_shift_max;
	const struct walk_result *walk; /* an observer's, while it fills: what the primary is about
					   to set; else NULL */
	/* Where there was a switch until shadow_build_unswitched(). */
	uint32_t unswitched[SHADOW_UNSWITCHED_MAX];
	unsigned unswitched_count;
	bool is_flush_due;     /* the TLBs may hold what the shadow no longer says */
	uint64_t exit_count;   /* when to audit */
	uint64_t exit_start;   /* for ledger_exit_end(); 0: not measured */
	enum event exit_cause; /* the one charged last */
	uint32_t audit_count;  /* and what */
	/* Entries that were made, renewed or come by since the last exit's end. */
	bool is_noting;
	unsigned noted_count;
	uint32_t noted[SHADOW_NOTED_MAX];
};

/* What the hardware found. */
struct shadow_hit {
	uint64_t entry; /* the leaf; 0: none */
	uint32_t page;	/* that it is in */
	uint8_t page_shift;
	bool is_known_absent; /* none, and the guest has none */
};

int shadow_init(struct shadow *s, struct mmu *mmu, const struct mmu_config *config,
		const struct shadow_policy *policy, struct error *e);
void shadow_fini(struct shadow *s);

/* shadow.c: pages, links and who may write what */

/* Drops everything, and takes the mode of the guest's present controls. Returns false if there was
 * nothing. */
bool shadow_drop_all(struct shadow *s);
uint32_t shadow_free_count(const struct shadow *s);
/* Evicts until `count` pages are free. */
void shadow_reserve(struct shadow *s, uint32_t count);
uint32_t shadow_find(const struct shadow *s, uint64_t gfn, union shadow_role role);
/* Finds or makes; SHADOW_NONE: the limit is reached. */
uint32_t shadow_get(struct shadow *s, uint64_t gfn, union shadow_role role);
/* Frees a page; entries that point to it go. */
void shadow_zap(struct shadow *s, uint32_t page);
/* Frees all that derives from the guest table `gfn`; returns how many. */
unsigned shadow_zap_table(struct shadow *s, uint64_t gfn);
/* The same, but what pointed to its shadows becomes a switch; and back: switches to it go. */
void shadow_switch_table(struct shadow *s, uint64_t gfn);
void shadow_unswitch_table(struct shadow *s, uint64_t gfn);
uint64_t shadow_switch_entry(const struct shadow *s, uint64_t gfn, unsigned access);
void shadow_touch(struct shadow *s, uint32_t page);
void shadow_clear_entry(struct shadow *s, uint32_t at);
void shadow_set_pointer(struct shadow *s, uint32_t at, uint32_t child, uint64_t size_code);
/* `entry` complete. */
void shadow_set_leaf(struct shadow *s, uint32_t at, uint64_t entry);
void shadow_protect(struct shadow *s, uint64_t gfn);
void shadow_unprotect(struct shadow *s, uint64_t gfn);
/* Is the page of guest RAM `gfn` a table that must not be written unseen? */
bool shadow_is_protected(const struct shadow *s, uint64_t gfn);
/* NULL for what is not RAM. */
struct shadow_frame *shadow_frame_of(const struct shadow *s, uint64_t gfn);
/* The first of a guest frame's shadow pages, and the next of the same frame. */
uint32_t shadow_first_of(const struct shadow *s, uint64_t gfn);
uint32_t shadow_next_of(const struct shadow *s, uint32_t page);

static inline uint64_t *shadow_entry(const struct shadow *s, uint32_t at)
{
	return (uint64_t *)(void *)s->pool.host + at;
}

/* To be audited when the exit ends. */
static inline void shadow_note(struct shadow *s, uint32_t at)
{
	if (likely(!s->is_noting))
		return;
	if (s->noted_count < SHADOW_NOTED_MAX)
		s->noted[s->noted_count] = at;
	s->noted_count++;
}

static inline uint32_t shadow_page_of(uint32_t at)
{
	return at / SHADOW_ENTRIES;
}

static inline uint32_t shadow_child(const struct shadow *s, uint64_t entry)
{
	return table_pool_page(&s->pool, hpa(entry & SHADOW_ADDRESS));
}

static inline bool shadow_is_leaf(uint64_t entry, unsigned level)
{
	return level == 1 || (entry & (PTE_PS | SHADOW_SWITCH));
}

static inline bool shadow_is_table(const struct shadow_page *p)
{
	return !p->role.is_direct && !p->role.is_register;
}

static inline unsigned shadow_index(const struct shadow *s, unsigned level, gva_t address)
{
	const struct walk_level *l = &s->mode->level[level];
	return (unsigned)(address.v >> l->shift) & l->index_mask;
}

/* shadow_fill.c: the hardware's walk, and what an entry must be */

/* The hardware's walk, charged. */
struct shadow_hit shadow_walk(const struct shadow *s, gva_t address);
/* What a leaf grants, as WALK_* flags. */
unsigned shadow_flags(uint64_t entry);
unsigned shadow_guest_shift(uint64_t entry, unsigned page_shift);

/* What the leaf for a page with `guest_flags` may grant: WALK_* flags. `is_forced`: for a
 * supervisor's write that only CR0.WP = 0 allows; -1 if no leaf can serve that. */
int shadow_leaf_flags(union shadow_role role, unsigned guest_flags, bool is_forced);
/* Is an access one that only CR0.WP = 0 allows? */
bool shadow_is_forced(const struct walk_context *c, unsigned guest_flags, enum access_kind kind,
		      enum mmu_mode mode);

enum shadow_outcome {
	SHADOW_FILLED,
	SHADOW_EMULATE,	 /* the page is protected: the write is to be done for the guest */
	SHADOW_UNSYNCED, /* filled; the page is a table that may now be written */
	SHADOW_SWITCHED, /* filled down to a table that is walked in two dimensions */
};

/* Builds the leaf for `address` in the current space from the committed guest walk `r` of RAM.
 * Needs SHADOW_FILL_PAGES free pages. */
#define SHADOW_FILL_PAGES 7u
enum shadow_outcome shadow_fill(struct shadow *s, gva_t address, const struct walk_result *r,
				unsigned flags, enum access_kind kind);
/* Drops what the guest page at `address` has in the current space. */
void shadow_drop_page(struct shadow *s, gva_t address);

/* The page was filled, or walked through: the guest uses it as a table. */
void shadow_note_use(struct shadow *s, uint32_t page);

/* What the guest's entry `e`, in a table that `page` derives from, asks of entry `index` there. */
enum shadow_want_kind {
	SHADOW_WANT_NOTHING,
	SHADOW_WANT_POINTER,
	SHADOW_WANT_LEAF,
	SHADOW_WANT_SWITCH
};
struct shadow_want {
	enum shadow_want_kind kind;
	bool is_present;	/* the guest's P */
	union shadow_role role; /* pointer: the child's */
	uint64_t gfn;		/* the child's, or the first page of the leaf */
	unsigned flags;		/* leaf: WALK_* of the guest's page, all levels together (and
				   WALK_G whatever CR4.PGE is, if the policy wants it); switch:
				   of those above */
	unsigned guest_shift;
};
struct shadow_want shadow_want(const struct shadow *s, uint32_t page, unsigned index, uint64_t e);
/* The guest's entry behind entry `index` of a table page. */
uint64_t shadow_guest_entry(const struct shadow *s, uint32_t page, unsigned index);
/* Is a present entry what is wanted (or less writable)? */
bool shadow_is_as_wanted(const struct shadow *s, uint32_t at, const struct shadow_want *w);
/* Makes a leaf if that needs no more pages. */
bool shadow_try_leaf(struct shadow *s, uint32_t at, const struct shadow_want *w);
/* The largest page that can be mapped at `gfn`. */
unsigned shadow_shift_at(const struct shadow *s, uint64_t gfn, unsigned shift_max);
/* Fills neighbours of the leaf for `address`. */
void shadow_prefetch(struct shadow *s, gva_t address);
/* Sets NP where the guest has nothing. */
void shadow_mark_absent(struct shadow *s, uint32_t page);

/* shadow_build.c: ahead of any fault, with all that lies below, as far as there is room */

/* What shadow_unswitch_table() left empty. */
void shadow_build_unswitched(struct shadow *s);
/* The current root, if it has no shadow. */
void shadow_build_root(struct shadow *s);

/* shadow_sync.c: what the guest does to its tables */

/* The memory's watcher. */
void shadow_written(void *shadow, gpa_t address, unsigned size_bytes);
/* Lets the guest write the table `gfn` unseen, if all its shadows are of level 1. */
bool shadow_let_go(struct shadow *s, uint64_t gfn);
/* Brings a table back in sync. */
void shadow_sync(struct shadow *s, uint64_t gfn);
/* The same for all that the current root can reach; returns how many. */
unsigned shadow_sync_reachable(struct shadow *s, uint32_t root);
unsigned shadow_unsync_reachable(const struct shadow *s, uint32_t root);
/* The entry for one address in the current space. */
void shadow_sync_address(struct shadow *s, gva_t address);
void shadow_forget_unsync(struct shadow *s, uint64_t gfn);
/* For --verify: what the table at `a` said when it went out of sync; NULL if it is in sync. */
const uint8_t *shadow_old_table(const struct shadow *s, gpa_t a);

/* shadow_root.c: spaces */

/* The root of the space that CR3 names: found (is it among the retained?) or SHADOW_NONE. */
uint32_t shadow_find_root(const struct shadow *s);
/* The current root from now on; SHADOW_NONE: made when it is needed. */
void shadow_set_root(struct shadow *s, uint32_t page);
/* The current root, made if need be. */
uint32_t shadow_take_root(struct shadow *s);
void shadow_forget_root(struct shadow *s, uint32_t page);
/* PAE: drops root entries that derive from other registers than the guest's present ones. */
void shadow_check_registers(struct shadow *s);

/* shadow_policy.c: what every VMM with shadows does */

/* First member of every strategy that has a shadow. */
struct shadow_strategy {
	struct strategy base;
	struct shadow core;
};

void shadow_take_controls(struct shadow *s);
/* The VMM begins to handle what may be an exit; shadow_resume() ends it. */
void shadow_exit_begin(struct shadow *s);
void shadow_charge_exit(struct shadow *s, enum event e);
/* The VMM resumes the guest: what has to be flushed is. */
void shadow_resume(struct shadow *s);
/* True and *out if what the hardware found grants the access. */
bool shadow_grants(struct shadow *s, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   const struct shadow_hit *hit, struct translation *out);
/* The access is done on the guest's behalf. */
void shadow_emulate(const struct walk_result *r, struct translation *out);
/* The root for the present CR3 and controls, if it is retained, in sync as far as it leads. */
void shadow_switch_root(struct shadow *s);
void shadow_policy_reset(struct strategy *strategy);
void shadow_keeping_controls_changed(struct strategy *strategy);

/* shadow_audit.c: the invariants of the noted entries, of one page, and of everything else. False:
 * *why says what is wrong. */
bool shadow_audit_noted(const struct shadow *s, char *why, size_t size);
bool shadow_audit_page(const struct shadow *s, uint32_t page, char *why, size_t size);
bool shadow_audit(const struct shadow *s, char *why, size_t size);
