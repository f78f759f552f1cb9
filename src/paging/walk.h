/*
 * The one walker of guest page tables: every paging mode of x86 is an array of level descriptors,
 * walked by one short loop.
 *
 * A walk has two halves. walk() only looks: it reads entries from the root to the page, checks
 * reserved bits and permissions, and says what a processor would say. walk_commit() then does what
 * a successful walk does to memory: it sets A in every entry used and D in the leaf for a write,
 * each by compare-and-exchange on the guest's entry. So the reference walk of
 * --verify, the monitor and a debugger are the first half alone, and all of native, nested, shadow
 * use both.
 *
 * As in Bochs, and as SDM 3A 4.8 permits, accessed bits are set only when the whole walk succeeds.
 *
 * Entries that are not in RAM (a table in device memory or past the end) read as all ones, which is
 * what an empty bus answers; devices are never read. In most modes and levels that has reserved
 * bits set and ends in a page fault.
 *
 * Sources: SDM 3A 4.3 (32-bit), 4.4 (PAE), 4.5 (4- and 5-level), 4.6 (rights), 4.7 (error
 * codes), 4.8 (A and D).
 */
#pragma once

#include "memory/memory.h"
#include "paging/mmu.h"
#include "x86/arch.h"

struct vcpu_state;
struct cpu_model;

#define WALK_LEVELS_MAX 5

struct walk_level {
	uint8_t shift; /* of the region that one entry covers */
	uint16_t index_mask;
	bool is_register; /* PAE's PDPTEs: loaded with CR3, not read by walks, no rights */
};

struct paging_mode {
	const char *name;
	unsigned level_count; /* 0: paging is off */
	unsigned entry_bytes;
	struct walk_level
		level[WALK_LEVELS_MAX + 1]; /* by level, 1 is the page table; [0] unused */
};

enum paging_mode_id {
	PAGING_OFF,
	PAGING_32BIT,
	PAGING_PAE,
	PAGING_4LEVEL,
	PAGING_5LEVEL,
	PAGING_MODE_COUNT
};

extern const struct paging_mode paging_modes[PAGING_MODE_COUNT];

/* What a translation grants, all levels together. The low three index walk_context.permit. */
#define WALK_W (1u << 0)
#define WALK_U (1u << 1)
#define WALK_NX (1u << 2)
#define WALK_RIGHTS (WALK_W | WALK_U | WALK_NX)
#define WALK_D (1u << 3) /* the leaf is dirty: writes need no further walk */
#define WALK_G (1u << 4) /* global, and CR4.PGE is on */

/* All that a walk needs to know of CR0, CR4, EFER and the processor, worked out once when they
 * change. */
struct walk_context {
	const struct paging_mode *mode;
	uint64_t reserved[WALK_LEVELS_MAX + 1][2]; /* bits that must be 0, by level and by PS */
	uint64_t frame_mask;			   /* bits of an entry that are an address */
	uint64_t nx_bit;			   /* PTE_NX, or 0 when it means nothing */
	uint32_t fetch_error;			   /* PF_I when fetches are told apart, or 0 */
	uint8_t large_levels;			   /* bit l: PS at level l makes a leaf */
	bool is_global_on;			   /* CR4.PGE */
	uint16_t permit[WALK_RIGHTS + 1];	   /* by rights: bit WALK_ACCESS(mode, kind) */
};

#define WALK_ACCESS(mode, kind) ((unsigned)(mode)*ACCESS_KIND_COUNT + (unsigned)(kind))

void walk_context_init(struct walk_context *c, uint64_t cr0, uint64_t cr4, uint64_t efer,
		       const struct cpu_model *model);

/* Is `address` one that this mode can translate? */
static inline bool walk_is_canonical(const struct walk_context *c, gva_t address)
{
	unsigned top = c->mode->level_count < 4 ? 32 : 12 + 9 * c->mode->level_count;
	return top == 32 ? address.v >> 32 == 0 : sign_extend(address.v, top) == address.v;
}

/* Fills permit[] for given CR0 and CR4: SDM 3A 4.6.1. */
void walk_permit_init(uint16_t permit[WALK_RIGHTS + 1], uint64_t cr0, uint64_t cr4);

static inline bool walk_permits(const uint16_t permit[WALK_RIGHTS + 1], unsigned flags,
				enum access_kind kind, enum mmu_mode mode)
{
	return (permit[flags & WALK_RIGHTS] >> WALK_ACCESS(mode, kind)) & 1;
}

/* Where a walk starts, and how it finds entries. */
struct walk_source {
	struct memory *memory; /* borrowed */
	gpa_t root;	       /* the table of the highest level */
	const uint64_t *pdpte; /* borrowed: the PAE registers */
	/* Says where the entry at `a` lies (*host; NULL: not in RAM). False: give up the walk
	 * (WALK_ABORTED). NULL when guest-physical memory is asked straight. It is nested's second
	 * dimension. */
	bool (*locate)(void *opaque, gpa_t a, unsigned size_bytes, uint8_t **host);
	void *opaque;	  /* borrowed */
	bool is_readonly; /* walk_commit() says what it would set, and sets nothing */
};

/* The source for what the vcpu's CR3 names now. */
struct walk_source walk_source_of(const struct walk_context *c, const struct vcpu_state *s,
				  struct memory *m);

struct walk_step {
	uint8_t level;
	gpa_t address; /* of the entry */
	uint64_t entry;
	uint8_t *host; /* NULL: a register, or not in RAM */
};

enum walk_outcome { WALK_OK, WALK_FAULT, WALK_ABORTED };

struct walk_result {
	enum walk_outcome outcome;
	uint32_t error_code; /* WALK_FAULT */
	gpa_t gpa;	     /* WALK_OK: of the byte asked for */
	uint8_t page_shift;  /* of the guest's page */
	uint8_t flags;	     /* WALK_* */
	uint8_t step_count;
	struct walk_step
		step[WALK_LEVELS_MAX]; /* in walk order: the root's first, also up to a fault */
};

/* Looks; changes nothing. Paging must be on. */
enum walk_outcome walk(const struct walk_context *c, const struct walk_source *s, gva_t address,
		       enum access_kind kind, enum mmu_mode mode, struct walk_result *r);

/*
 * Sets A in the entries of the successful walk `r`, and D in its leaf for a write (then r->flags
 * has WALK_D). Writes to a watched table page are told to the watchers; what lies in ROM or outside
 * RAM stays as it is. *update_count (may be NULL) grows by the entries written. False: an entry
 * changed under the walk; walk again.
 */
bool walk_commit(const struct walk_context *c, const struct walk_source *s, enum access_kind kind,
		 struct walk_result *r, unsigned *update_count);

/* The value that step `i` of `r` must have after walk_commit(). */
uint64_t walk_committed_entry(const struct walk_result *r, unsigned i, enum access_kind kind);

/* Both halves, again and again until nobody interferes: for software that walks (the shadow's
 * fill). */
enum walk_outcome walk_and_commit(const struct walk_context *c, const struct walk_source *s,
				  gva_t address, enum access_kind kind, enum mmu_mode mode,
				  struct walk_result *r, unsigned *update_count);
