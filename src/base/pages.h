/*
 * Memory by the page, straight from the host: zeroed, and there only once it is touched.
 *
 * What is large and looked up at random (a guest's RAM, tables of translations) asks for large
 * pages: it is spread over more small ones than the processor's TLB has entries for. A host that
 * has none to give, or is told not to, maps small ones.
 */
#pragma once

#include <stddef.h>

/* NULL if the host has no room. */
void *pages_map(size_t size_bytes);
/* At the boundary of a large page, and in large ones if the host gives them. */
void *pages_map_large(size_t size_bytes);
/* `size_bytes` as it was mapped with. pages_unmap(NULL, ...) is legal. */
void pages_unmap(void *p, size_t size_bytes);
