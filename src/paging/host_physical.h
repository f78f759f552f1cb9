/*
 * The model's host-physical memory: what nested and shadow tables point into.
 *
 * Guest RAM lies at host-physical HPA_RAM_BASE in the order of its one host mapping, so a GPA and
 * its HPA agree in their low 30 bits and large host pages are possible wherever RAM is whole.
 * Tables that the VMM makes lie in pools above it. Every table entry that nested and shadow paging
 * use holds such an address, and the host pointer of an access is derived from it: HPAs are a
 * model, but the translations that the guest runs on go through them.
 */
#pragma once

#include "memory/memory.h"

typedef struct {
	uint64_t v;
} hpa_t;

static inline hpa_t hpa(uint64_t v)
{
	return (hpa_t){v};
}

#define HPA_RAM_BASE 0ull

/* `a` must be in a slot. */
static inline hpa_t hpa_from_gpa(const struct memory *m, gpa_t a)
{
	return hpa(HPA_RAM_BASE + (uint64_t)(memory_host(m, a, 1) - m->ram));
}

/* `a` must lie in guest RAM. */
static inline uint8_t *hpa_host(const struct memory *m, hpa_t a)
{
	return m->ram + (a.v - HPA_RAM_BASE);
}

/* The shift of the largest page, at most `shift_max` (12, 21 or 30), that can hold `a` within one
 * slot; 0 when `a` is not RAM. */
unsigned host_page_shift_at(const struct memory *m, gpa_t a, unsigned shift_max);

/*
 * Guest pages that serve as page tables, as if the guest had put them elsewhere: for the nested
 * dimension's walks alone, each has a place in a region of guest-physical addresses above RAM,
 * side by side or 2M apart. What it holds stays in RAM where it is.
 *
 * A page gets its place when a walk first uses it and keeps it; after PLACED_TABLES_MAX pages the
 * others stay where they are.
 */
#define PLACED_TABLES_MAX 65536u

struct placed_tables {
	gpa_t base;
	unsigned stride_shift;
	uint32_t count;
	uint64_t *gfns;	  /* by place */
	uint32_t *places; /* open addressing by gfn: place + 1; 0: empty */
};

/* -ENOMEM. */
int placed_tables_init(struct placed_tables *p, gpa_t base, unsigned stride_shift, struct error *e);
void placed_tables_fini(struct placed_tables *p);
/* One past the region. */
gpa_t placed_tables_end(const struct placed_tables *p);
/* Where `a`, in a page table, is for the nested dimension; and back. */
gpa_t placed_tables_place(struct placed_tables *p, gpa_t a);
gpa_t placed_tables_origin(const struct placed_tables *p, gpa_t placed);

static inline bool placed_tables_has(const struct placed_tables *p, gpa_t a)
{
	return p->gfns && a.v >= p->base.v && a.v < placed_tables_end(p).v;
}

/*
 * A pool of 4 KiB table pages at consecutive host-physical addresses, with a limit. Pages are
 * zeroed when allocated.
 */
struct table_pool {
	uint8_t *host; /* the reserved mapping */
	hpa_t base;
	uint32_t page_count;  /* the limit */
	uint32_t fresh;	      /* pages from here on were never used */
	uint32_t *free_pages; /* stack of pages that came back */
	uint32_t free_count;
};

#define TABLE_POOL_NONE UINT32_MAX

/* -ENOMEM. */
int table_pool_init(struct table_pool *p, hpa_t base, uint32_t page_count, struct error *e);
void table_pool_fini(struct table_pool *p);

/* The number of the first of `count` consecutive zeroed pages (more than one only from fresh ones);
 * TABLE_POOL_NONE when the limit is reached. */
uint32_t table_pool_alloc(struct table_pool *p, uint32_t count);
void table_pool_free(struct table_pool *p, uint32_t page);
/* All pages come back. */
void table_pool_clear(struct table_pool *p);

static inline uint64_t *table_pool_entries(const struct table_pool *p, uint32_t page)
{
	return (uint64_t *)(void *)(p->host + ((uint64_t)page << PAGE_SHIFT));
}

static inline hpa_t table_pool_hpa(const struct table_pool *p, uint32_t page)
{
	return hpa(p->base.v + ((uint64_t)page << PAGE_SHIFT));
}

/* Of an entry in the pool. */
static inline hpa_t table_pool_address(const struct table_pool *p, const uint64_t *entry)
{
	return hpa(p->base.v + (uint64_t)((const uint8_t *)entry - p->host));
}

static inline uint32_t table_pool_page(const struct table_pool *p, hpa_t a)
{
	return (uint32_t)((a.v - p->base.v) >> PAGE_SHIFT);
}
