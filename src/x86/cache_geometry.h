/*
 * The shape of one processor's data caches, as page-table references see them: facts that a profile
 * (hw/) states and the model (paging/) is built from. Plain data, as in tlb_geometry.h.
 *
 * Lines are 64 bytes, replacement is least recently used, and each level is looked up by
 * host-physical address. Latencies are prices and stay in the profile.
 */
#pragma once

#include <stdint.h>

#define CACHE_LINE_SHIFT 6
#define CACHE_ARRAY_COUNT 3 /* L1 data, L2, L3 */

struct cache_array {
	uint64_t size_bytes; /* 0: the processor has no such level */
	unsigned ways;	     /* size_bytes / 64 / ways need not be a power of two */
};

struct cache_geometry {
	struct cache_array level[CACHE_ARRAY_COUNT];
};
