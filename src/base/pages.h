/*
 * Memory by the page, straight from the host: zeroed, and there only once it is touched.
 *
 * What is large and looked up at random (a guest's RAM, tables of translations) asks for large
 * pages: it is spread over more small ones than the processor's TLB has entries for. A host that
 * has none to give, or is told not to, maps small ones.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define LARGE_PAGE_BYTES (2u << 20)

/* NULL if the host has no room. */
void *pages_map(size_t size_bytes);
/* At the boundary of a large page, and in large ones if the host gives them. */
void *pages_map_large(size_t size_bytes);
/*
 * The same pages at two addresses, for code: one to write it, one to run it, so that nothing can be
 * both. Both begin at the boundary of a large page. Whole pages; each is unmapped by itself. No
 * memfd, whose mappings perf takes for a file's and looks for no /tmp/perf-PID.map. False, with
 * errno: nothing is mapped.
 */
bool pages_map_twice(size_t size_bytes, void **writable, void **running);
/*
 * Makes the first `size_bytes` at `p`, at p + step_bytes and so on `count` times the same memory,
 * all in a mapping that is there already and is unmapped as before; in large pages, as
 * pages_gather() does. False, with errno: not all of them are.
 */
bool pages_share(void *p, size_t size_bytes, size_t step_bytes, unsigned count);
/* What lies at the places of large pages in such a mapping comes to lie in large pages. By itself
 * Linux gives none to shared memory unless it is set to. Milliseconds each. */
void pages_gather(void *p, size_t size_bytes);
/* `size_bytes` as it was mapped with. pages_unmap(NULL, ...) is legal. */
void pages_unmap(void *p, size_t size_bytes);
