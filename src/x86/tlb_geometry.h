/*
 * The shape of one processor's translation caches: facts that a profile (hw/) states and the TLB
 * (paging/) is built from. Plain data, no code; the two folders are siblings and meet here.
 *
 * An array is one physical structure of the processor. Intel's first level is several arrays, one
 * for each page size; AMD's is one fully associative array that holds all sizes. A look-up asks
 * every array of its side and level. Sources: profiles' own; CPUID leaves 2, 0x18, 0x80000005,
 * 0x80000006, 0x80000019.
 */
#pragma once

#include "base/bits.h"

/* Page sizes an array can hold, a mask. 4M is the two-level tables' large page (often held as two
 * 2M entries). */
#define TLB_4K 1u
#define TLB_2M 2u
#define TLB_4M 4u
#define TLB_1G 8u
#define TLB_ALL_SIZES (TLB_4K | TLB_2M | TLB_4M | TLB_1G)

#define TLB_ARRAY_MAX 4

struct tlb_array {
	char name[24];	  /* for people: "L1 D 4K" */
	unsigned entries; /* more than 0 */
	unsigned ways;	  /* divides `entries`, to a power of two of sets; 0: fully associative */
	uint8_t sizes;	  /* TLB_* mask, not 0 */
};

/* One side (data or instruction) of one level. */
struct tlb_side {
	struct tlb_array array[TLB_ARRAY_MAX];
	unsigned array_count; /* 0: this side has no such level */
};

/* Caches of upper levels and of the host dimension. All 0 where a processor has none, or where none
 * is modelled. */
struct walk_cache_geometry {
	unsigned pde_entries;	/* entries that name a page table (level 2) */
	unsigned pdpte_entries; /* level 3 */
	unsigned pml4e_entries; /* level 4 */
	/* AMD's page-directory cache: one array of pde_entries holds entries of every upper level
	 * (2 and above) side by side, found by their own addresses, and the other two are 0. Else
	 * (Intel's paging-structure caches) each level's are found by the address translated. */
	bool is_shared;
	unsigned nested_tlb_entries;
	bool is_two_dimensional; /* the caches also hold nested (host) entries */
};

struct tlb_geometry {
	struct tlb_side l1d, l1i;
	struct tlb_side l1s; /* for stores, where l1d is for loads alone; empty: l1d is for both */
	struct tlb_side l2d, l2i; /* with l2_unified, l2d serves both sides and l2i is empty */
	bool l2_unified;
	bool tagged; /* by ASID or VPID: entries survive exits and entries; false: both flush */
	bool pcid;   /* by process-context identifier too */
	struct walk_cache_geometry walk_cache;
};
