/*
 * The block cache: decoded guest code, found by guest-physical address and mode.
 *
 * Blocks lie in one arena and are only ever freed all at once: an invalidated block stays where it
 * is with key KEY_DEAD, which matches no mode, so that pointers to it from other blocks (chains)
 * need no hunting. When the arena is full everything is dropped, between blocks. Pages with blocks
 * carry PAGE_CODE; each has a bitmap of the 64-byte granules that hold code, so that data written
 * beside code costs one test.
 *
 * Where code is written again and again, or much is written beside it, watching costs more than
 * comparing: such a page becomes a checked one. It loses PAGE_CODE, so that writes to it are like
 * any others, and its blocks compare their bytes with a copy before they run. They end behind each
 * instruction that writes memory, for that may be the block's own rest. When a page's code was
 * found unchanged often enough the page is watched again.
 */
#pragma once

#include "engine/interp/interp.h"
#include "memory/memory.h"
#include "x86/decode.h"

#define BLOCK_ARENA_BYTES (64u << 20)
#define BLOCK_ARENA_TINY (64u << 10) /* in hard mode, at first */
#define BLOCK_ARENA_PATIENCE 256u
#ifdef GNOMON_HARD
#define BLOCK_HASH_BITS 12
#else
#define BLOCK_HASH_BITS 18
#endif
#define CODE_PAGE_HASH_BITS 12
#define JUMP_CACHE_BITS 12

#define CHECKED_BYTES_MAX 64u /* of a checked block */

struct code_page {
	uint64_t gfn;
	uint64_t granules;    /* bit n: bytes n*64..n*64+63 hold watched code */
	struct block *blocks; /* by page_link */
	struct code_page *link;
	bool is_checked;
	bool was_hit;		/* code died here since the last block was decoded */
	uint16_t rewrite_count; /* how often that was so since the page was checked last */
	uint16_t beside_count;	/* writes beside code since then */
	int32_t calm;		/* checked: blocks that may still find their bytes unchanged */
	int32_t calm_full;	/* ... after one did not */
};

struct block_cache {
	uint8_t *arena;
	size_t arena_used;
	uint64_t full_count; /* how often it was full */
	struct block **hash;
	struct code_page **pages;
	struct block *jump_cache[1u << JUMP_CACHE_BITS]; /* by RIP: where indirect branches led */
	uint32_t generation; /* changes when everything was dropped: pointers to blocks are void */
	struct code_page *restless; /* wants to be checked as soon as no block runs; NULL: none */
	bool is_always_watched;	    /* tests: no page is ever checked */
};

struct host_stubs;

#define BREAKPOINTS_MAX 64

struct interp {
	struct engine engine;
	struct engine_config config;
	struct interp_vcpu **vcpus;
	unsigned vcpu_count;
	struct block_cache cache;
	struct host_stubs *stubs;
	struct decoder *decoder;
	uint64_t breakpoints[BREAKPOINTS_MAX];
	unsigned breakpoint_count;
	const struct interp_translator *translator; /* borrowed; NULL: none */
};

int block_cache_init(struct interp *vm, struct error *e);
void block_cache_fini(struct interp *vm);

/* The block at `address` for c's mode, or NULL. */
struct block *block_find(struct interp *vm, uint64_t address, uint8_t key);

/* Decodes a block that starts at c's RIP, which lies at guest-physical `address`. May drop the
 * whole cache first (generation changes). May raise a page fault of the second page of a
 * page-crossing first instruction. Never NULL: undecodable bytes become a block that raises #UD. */
struct block *block_decode(struct interp_vcpu *c, uint64_t address);

/* `b` at c's RIP crosses a page or is checked: is it still made of the same bytes? A checked one is
 * decoded anew if not. False: it is dead. May raise a page fault. Between blocks only. */
bool block_is_current(struct interp_vcpu *c, struct block *b);

/* Makes a page checked whose writes asked for it (cache.restless). Between blocks only. */
void block_settle(struct interp *vm);

/* The bytes that a checked block was made of. */
static inline uint8_t *block_copy(struct block *b)
{
	return (uint8_t *)&b->insns[b->room + 1];
}

/* The granules that [first, last] (offsets in one page) touches. */
static inline uint64_t block_granules(unsigned first, unsigned last)
{
	unsigned from = first >> 6, to = last >> 6;
	return (~0ull >> (63 - (to - from))) << from;
}

/* From now on `b` dies of a write to any of these granules of its page, too. */
void block_depend(struct interp *vm, struct block *b, uint64_t granules);

/* Is there decoded code in [address, address + size)? */
bool block_covers(const struct interp *vm, uint64_t address, unsigned size_bytes);

/* The bytes that `b` was made of; NULL if they are not in RAM. */
static inline const uint8_t *block_bytes(const struct memory *m, const struct block *b)
{
	return b->gfn2 >= BLOCK_CHECKED ? memory_host(m, gpa(b->gpa), b->bytes) : b->crossing;
}

/* `b` is not what lies at its address any more. */
void block_kill(struct interp *vm, struct block *b);

/* Drops everything. Between blocks only. */
void block_flush(struct interp *vm);

static inline unsigned block_jump_slot(uint64_t rip)
{
	return (unsigned)((rip ^ (rip >> JUMP_CACHE_BITS)) & ((1u << JUMP_CACHE_BITS) - 1));
}

/* Fills insns[] of a block from at most `available` bytes of one page (or of a lone page-crossing
 * instruction). lower.c */
void lower_block(struct interp_vcpu *c, struct block *b, const uint8_t *bytes, unsigned available,
		 unsigned insns_max);
/* The pseudo instruction that ends a block which does not end in a branch. */
void lower_end(struct insn *out, unsigned offset, unsigned mode);
