/*
 * The translator's own TLB, and where indirect branches lead: one `struct space` for each guest
 * address space and privilege, addressed through GS while translated code runs.
 *
 * GS points to a window: a user's address space and, mapped again in each window, the kernel's two.
 * A translation is made for one mode and has its space's place in the window in its displacements,
 * so that a change of ring or of RFLAGS.AC leaves GS alone: writing it takes some 60 cycles.
 *
 * The TLB is three arrays, for an access wants one tag and the page, and a scaled index saves the
 * way to an address an instruction. Invariant of a slot: `page` is the host address of the 4 KiB
 * page of guest RAM that the tag names, `read` is the page's address if the space's mode may read
 * it, `write` if it may write it and nobody has to hear of a write (no watch, D already set).
 * Otherwise a tag is EMPTY: a page of another slot, so that no address that comes to this slot can
 * match; that is 0 but for slot 0, so that memory that nobody used is right. The check is
 *
 *     (address ^ tag) <= 4096 - size
 *
 * which fails for every other page and for accesses that leave the page; a hit leaves the offset in
 * the page, to which `page` is added.
 */
#pragma once

#include "base/bits.h"
#include "base/pages.h"
#include "base/types.h"
#include "engine/trans/slot_set.h"
#include "paging/mmu.h"
#include "x86/arch.h"

#ifdef GNOMON_HARD
#define SPACE_TLB_BITS 1
#define SPACE_JUMP_BITS 2
#else
#define SPACE_TLB_BITS 16
#define SPACE_JUMP_BITS 16
#endif
#define SPACE_TLB_COUNT (1u << SPACE_TLB_BITS)
#define SPACE_JUMP_COUNT (1u << SPACE_JUMP_BITS)
#define SPACE_USER_COUNT 3
#define SPACE_CODE_BITS 4096u

/*
 * A copy of one TLB entry that may be written; its place is known when code is translated
 * (micro.c). Any address may be compared with it, so there is no tag that can never be found. An
 * empty entry's is a page that is not canonical, one of 2^50 chosen at random, and leads to memory
 * that nothing else uses: a guest that puts its stack there, of all places, does not fault.
 */
struct micro {
	uint64_t tag;
	uint8_t *page;
};

/* Where a jump leads. One line of the host's cache has both, and those of the second place. */
struct space_jump {
	uint64_t rip;
	const uint8_t *code;
};

struct space {
	/* Aligned to their size: relocate.c finds the slot in a displacement. */
	uint64_t read[SPACE_TLB_COUNT], write[SPACE_TLB_COUNT];
	uint8_t *page[SPACE_TLB_COUNT];
	_Alignas(64) struct micro stack;      /* of the page that the stack is in */
	struct micro nothing;		      /* what it is when it is empty */
	uint8_t guest_shift[SPACE_TLB_COUNT]; /* of the guest's page */
	struct space_jump jumps[SPACE_JUMP_COUNT];
	struct slot_set tlb_used;		      /* slots that may be filled */
	struct slot_set jump_used;		      /* likewise */
	struct slot_set tlb_local;		      /* ... with pages that are not global */
	uint64_t code_pages[SPACE_CODE_BITS / 64];    /* pages that jumps may lead to, hashed */
	uint64_t code_regions[SPACE_CODE_BITS / 64];  /* their 2 MiB, hashed */
	uint64_t large_regions[SPACE_CODE_BITS / 64]; /* 2 MiB with entries of large pages */
	bool has_large[2]; /* any entries of large pages, by half of the address space */
	bool has_huge[2];  /* of larger ones than 2 MiB */
	bool has_jumps[2];
	uint64_t cr3; /* of a user's space */
	uint8_t key;  /* ... and the mode of the code that it has jumps of (enum block_key) */
	uint64_t last_use;
	bool is_valid;						    /* has a space, user's ones */
	_Alignas(PAGE_SIZE_BYTES) uint8_t nowhere[PAGE_SIZE_BYTES]; /* nothing's page */
};

/* A window: the user's space, then the kernel's and the one with RFLAGS.AC. Each array stays
 * aligned to its size. */
#define SPACE_STRIDE                                                                          \
	align_up(sizeof(struct space), sizeof(((struct space *)NULL)->read) > PAGE_SIZE_BYTES \
					       ? sizeof(((struct space *)NULL)->read)         \
					       : PAGE_SIZE_BYTES)
#define SPACE_USER_BYTES align_up(SPACE_STRIDE, LARGE_PAGE_BYTES)
#define SPACE_SHARED_BYTES align_up(2 * SPACE_STRIDE, LARGE_PAGE_BYTES)
#define SPACE_WINDOW_BYTES (SPACE_USER_BYTES + SPACE_SHARED_BYTES)

static inline int32_t space_place(unsigned mode)
{
	return mode == MMU_USER		? 0
	       : mode == MMU_SUPERVISOR ? (int32_t)SPACE_USER_BYTES
					: (int32_t)(SPACE_USER_BYTES + SPACE_STRIDE);
}

static inline unsigned space_slot(uint64_t address)
{
	return (unsigned)(address >> PAGE_SHIFT) & (SPACE_TLB_COUNT - 1);
}

static inline uint64_t space_empty_tag(unsigned slot)
{
	return slot ? 0 : PAGE_SIZE_BYTES;
}

/* A hash that translated code computes in three cycles: who waits for an indirect jump waits for
 * it. Bit 0 tells hardly any two targets apart. */
#define SPACE_JUMP_SHIFT 12
static inline unsigned space_jump_slot(uint64_t rip)
{
	uint32_t low = (uint32_t)rip;
	return (low ^ low >> SPACE_JUMP_SHIFT) >> 1 & (SPACE_JUMP_COUNT - 1);
}

/* What an empty slot has for an address: one that comes to other slots. Being one that RIP cannot
 * be would not do, for a branch may well try to go there. */
static inline uint64_t space_jump_empty(unsigned slot)
{
	return slot < 2 ? 4 : 0;
}

void space_init(struct space *p);
void space_fill(struct space *p, uint64_t address, const struct mmu_page *page, bool is_write);
void space_flush(struct space *p);
/* Forgets where branches lead. */
void space_flush_jumps(struct space *p);
/* A page is invalidated; with `is_large_code` its code may lie anywhere in 2 MiB. */
void space_drop_page(struct space *p, uint64_t address, bool is_large_code);
/* What a CR3 write takes from a space that several address spaces share; with `drops_code` the code
 * of the upper half, too. */
void space_drop_local(struct space *p, bool drops_code);
/* No write to the page at `host` goes unheard from now on. */
void space_protect(struct space *p, const uint8_t *host);
/* The same for one entry. */
void space_protect_slot(struct space *p, unsigned slot);
/* Is the micro-TLB empty, or a copy of what the TLB has? */
bool space_is_sound(const struct space *p);

/* Where a jump to `rip` leads, or NULL. It is in its slot or in the next one: translated code asks
 * the first itself, the way to a helper asks the second (thunk.c). */
static inline const uint8_t *space_recall(const struct space *p, uint64_t rip)
{
	unsigned slot = space_jump_slot(rip);
	if (p->jumps[slot].rip != rip)
		slot ^= 1;
	return p->jumps[slot].rip == rip ? p->jumps[slot].code : NULL;
}

/* What its slot has, if it is that one's own, moves to the second, so that two that want the same
 * one both find a place; what has moved there gives way, so that it drives nobody out of his own.
 */
static inline void space_remember(struct space *p, uint64_t rip, const uint8_t *code)
{
	unsigned slot = space_jump_slot(rip), second = slot ^ 1;
	if (p->jumps[second].rip == rip) {
		slot = second;
	} else if (p->jumps[slot].rip != rip && space_jump_slot(p->jumps[slot].rip) == slot) {
		p->jumps[second] = p->jumps[slot];
	}
	p->jumps[slot] = (struct space_jump){rip, code};
	slot_set_add(&p->jump_used, slot);
	slot_set_add(&p->jump_used, second);
	/* The last byte that it may depend on may lie in the next page. */
	for (unsigned k = 0; k < INSN_BYTES_MAX; k += INSN_BYTES_MAX - 1) {
		unsigned page = ((rip + k) >> PAGE_SHIFT) % SPACE_CODE_BITS,
			 region = ((rip + k) >> 21) % SPACE_CODE_BITS;
		p->code_pages[page / 64] |= BIT(page % 64);
		p->code_regions[region / 64] |= BIT(region % 64);
	}
	p->has_jumps[rip >> 63] = p->has_jumps[(rip + INSN_BYTES_MAX - 1) >> 63] = true;
}

static inline void space_forget(struct space *p, uint64_t rip)
{
	unsigned slot = space_jump_slot(rip);
	if (p->jumps[slot].rip == rip)
		p->jumps[slot].rip = space_jump_empty(slot);
	if (p->jumps[slot ^ 1].rip == rip)
		p->jumps[slot ^ 1].rip = space_jump_empty(slot ^ 1);
}
