/*
 * The data caches of one core, as its loads and its page-table walker see them: L1 data, L2 and L3,
 * any of which may be missing, in front of memory.
 *
 * Lines of 64 bytes by host-physical address, set associative, exactly least recently used, of any
 * size and number of ways. An access is answered by the first level that has the line and leaves
 * it, most recent, in that level and in all before it. Levels neither include nor exclude each
 * other: a victim goes nowhere, and a line that L3 loses may live on in L1. Writes allocate as
 * reads do and cost no write-back; there is no prefetching; an L3 is the core's own.
 *
 * Two uses, on purpose apart (docs/paging.md):
 *   - every scheme (the primary and each observer) has one for its own page-table references;
 *   - where the guest's data accesses are modelled, one more answers these, the same for all
 *     schemes, so that what the guest's work costs without translation is common to them. The lines
 * that miss its first level are put through each scheme's, so that data push page tables out there.
 */
#pragma once

#include "base/error.h"
#include "x86/cache_geometry.h"

struct data_cache;

/* -EINVAL for a shape that cannot be, -ENOMEM. */
int data_cache_create(struct data_cache **out, const struct cache_geometry *g, struct error *e);
void data_cache_destroy(struct data_cache *c);

/* One access. The level that answered: 0 to 2 for L1 to L3, CACHE_ARRAY_COUNT for memory. */
unsigned data_cache_access(struct data_cache *c, uint64_t hpa);
void data_cache_flush(struct data_cache *c);
