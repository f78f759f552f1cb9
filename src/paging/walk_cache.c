/* The walk caches. See walk_cache.h. All arrays are fully associative. */
#include "paging/walk_cache.h"

#include <errno.h>
#include <stdlib.h>

#include "paging/assoc.h"
#include "x86/arch.h"

#define LEVEL_FIRST 2 /* entries that name a page table */
#define LEVEL_COUNT 3
#define LEVEL_BITS 3
#define TAG_SHIFT (ASSOC_SPACE_SHIFT - LEVEL_BITS)
#define HOST_SPACE 0u /* the TLB never gives it out */
#define IGNORED (PTE_A | PTE_D)

/* For a profile that has none, if somebody asks for them. */
#define DEFAULT_PDE 32u
#define DEFAULT_PDPTE 4u
#define DEFAULT_PML4E 4u

/* Table entries under keys of assoc.h. */
struct cache {
	struct assoc assoc;
	uint64_t *entries; /* NULL: this cache does not exist */
};

struct walk_cache {
	bool has_upper, is_split, is_two_dimensional;
	/* Split: by level, the guest's and the host's. Shared: [0][0] for all. */
	struct cache cache[2][LEVEL_COUNT];
	struct assoc nested_tlb;
	bool has_nested_tlb;
	uint64_t now;
	uint64_t epoch; /* of the TLB's space numbers; above these in `space` */
};

enum dimension { GUEST, HOST };

static int init_cache(struct cache *c, unsigned entries, struct error *e)
{
	if (!entries)
		return 0;
	int r = assoc_init(&c->assoc, entries, 0, e);
	if (r == -EINVAL)
		return error_set(e, r, "a walk cache of %u entries: 1 to %u are possible", entries,
				 ASSOC_ENTRIES_MAX);
	if (r)
		return r;
	c->entries = calloc(assoc_slots(&c->assoc), sizeof(*c->entries));
	return c->entries ? 0 : error_set(e, -ENOMEM, "no host memory for a walk cache");
}

static enum mmu_walk_cache choose(const struct mmu_config *config)
{
	const struct walk_cache_geometry *g = &config->geometry->walk_cache;
	if (config->walk_cache != MMU_WALK_CACHE_PROFILE)
		return config->walk_cache;
	if (!g->pde_entries && !g->pdpte_entries && !g->pml4e_entries)
		return MMU_WALK_CACHE_NONE;
	return g->is_two_dimensional ? MMU_WALK_CACHE_2D : MMU_WALK_CACHE_1D;
}

static int init_caches(struct walk_cache *c, const struct walk_cache_geometry *g, struct error *e)
{
	unsigned count[LEVEL_COUNT] = {g->pde_entries, g->pdpte_entries, g->pml4e_entries};
	c->has_upper = true;
	c->is_split = !g->is_shared;
	if (!count[0] && !count[1] && !count[2]) {
		count[0] = DEFAULT_PDE;
		count[1] = DEFAULT_PDPTE;
		count[2] = DEFAULT_PML4E;
	}
	int r = 0;
	for (unsigned i = 0; !r && i < LEVEL_COUNT; i++)
		r = init_cache(&c->cache[GUEST][i], count[i], e);
	for (unsigned i = 0; !r && i < LEVEL_COUNT && c->is_split && c->is_two_dimensional; i++)
		r = init_cache(&c->cache[HOST][i], count[i], e);
	return r;
}

int walk_cache_create(struct walk_cache **out, const struct mmu_config *config, struct error *e)
{
	const struct walk_cache_geometry *g = &config->geometry->walk_cache;
	enum mmu_walk_cache choice = choose(config);
	unsigned nested_tlb = config->has_nested_tlb_entries ? config->nested_tlb_entries
							     : g->nested_tlb_entries;
	/* "No walk caches" means no nested TLB either, unless somebody says so. */
	if (choice == MMU_WALK_CACHE_NONE && !config->has_nested_tlb_entries)
		nested_tlb = 0;
	*out = NULL;
	if (choice == MMU_WALK_CACHE_NONE && !nested_tlb)
		return 0;
	struct walk_cache *c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(e, -ENOMEM, "no host memory for the walk caches");
	c->is_two_dimensional = choice == MMU_WALK_CACHE_2D;
	int r = choice == MMU_WALK_CACHE_NONE ? 0 : init_caches(c, g, e);
	if (!r && nested_tlb) {
		r = assoc_init(&c->nested_tlb, nested_tlb, 0, e);
		c->has_nested_tlb = !r;
		if (r == -EINVAL)
			error_set(e, r, "a nested TLB of %u entries: 0 to %u are possible",
				  nested_tlb, ASSOC_ENTRIES_MAX);
	}
	if (r) {
		walk_cache_destroy(c);
		return r;
	}
	*out = c;
	return 0;
}

void walk_cache_destroy(struct walk_cache *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < 2 * LEVEL_COUNT; i++) {
		struct cache *cache = &c->cache[i / LEVEL_COUNT][i % LEVEL_COUNT];
		assoc_fini(&cache->assoc);
		free(cache->entries);
	}
	assoc_fini(&c->nested_tlb);
	free(c);
}

void walk_cache_flush(struct walk_cache *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < 2 * LEVEL_COUNT; i++)
		if (c->cache[i / LEVEL_COUNT][i % LEVEL_COUNT].entries)
			assoc_clear(&c->cache[i / LEVEL_COUNT][i % LEVEL_COUNT].assoc);
	if (c->has_nested_tlb)
		assoc_clear(&c->nested_tlb);
}

/* The TLB's space numbers begin anew now and then, and an old one must not match a new one. */
static uint32_t current_space(struct walk_cache *c, uint64_t space)
{
	uint64_t epoch = space >> (64 - ASSOC_SPACE_SHIFT);
	if (unlikely(epoch != c->epoch)) {
		walk_cache_flush(c);
		c->epoch = epoch;
	}
	return (uint32_t)space & (BIT(64 - ASSOC_SPACE_SHIFT) - 1);
}

void walk_cache_invalidate(struct walk_cache *c, uint64_t space)
{
	if (!c)
		return;
	uint32_t number = current_space(c, space);
	for (unsigned i = 0; number != HOST_SPACE && i < LEVEL_COUNT; i++) {
		struct assoc *a = &c->cache[GUEST][i].assoc;
		for (uint32_t at = 0; c->cache[GUEST][i].entries && at < assoc_slots(a); at++)
			if (a->keys[at] && assoc_space(a->keys[at]) == number)
				assoc_remove(a, at);
	}
}

/* One look-up of one entry. */
struct question {
	uint32_t space;
	uint64_t rest, entry;
	bool has_faulted; /* nothing is kept */
};

/* True: the cache has the entry as it is now. */
static bool ask(struct walk_cache *c, struct cache *cache, const struct question *q)
{
	uint64_t entry = q->entry & ~(uint64_t)IGNORED;
	uint32_t at = assoc_find(&cache->assoc, q->rest, q->space, q->space);
	bool is_hit = at != ASSOC_NONE && cache->entries[at] == entry;
	if (at == ASSOC_NONE && q->has_faulted)
		return false;
	if (at == ASSOC_NONE)
		at = assoc_victim(&cache->assoc, q->rest);
	assoc_put(&cache->assoc, at, assoc_key(q->space, q->rest), ++c->now);
	cache->entries[at] = entry;
	return is_hit;
}

static void forget(struct cache *cache, const struct question *q)
{
	uint32_t at = assoc_find(&cache->assoc, q->rest, q->space, q->space);
	if (at != ASSOC_NONE)
		assoc_remove(&cache->assoc, at);
}

static unsigned all_refs(const struct walk_path *path)
{
	return (1u << path->count) - 1;
}

/* Split: the references that the deepest entry found leaves to be made. A page fault takes the
 * entries of its address with it (SDM 3A 4.10.4.1). */
static unsigned ask_by_level(struct walk_cache *c, enum dimension d, uint32_t space,
			     uint64_t address, const struct walk_path *path, bool has_faulted)
{
	unsigned refs = all_refs(path);
	bool is_found = false;
	for (unsigned i = path->count; i-- > 0;) {
		unsigned level = path->ref[i].level;
		if (i + 1 == path->count || level < LEVEL_FIRST ||
		    level >= LEVEL_FIRST + LEVEL_COUNT)
			continue;
		struct cache *cache = &c->cache[d][level - LEVEL_FIRST];
		struct question q = {
			.space = space,
			.rest = (uint64_t)level << TAG_SHIFT |
				(address >> path->ref[i].shift & (BIT(TAG_SHIFT) - 1)),
			.entry = path->ref[i].entry,
			.has_faulted = has_faulted,
		};
		if (!cache->entries)
			continue;
		if (!is_found && ask(c, cache, &q)) {
			is_found = true;
			refs &= ~((2u << i) - 1);
		}
		if (has_faulted)
			forget(cache, &q);
		else if (is_found)
			break;
	}
	return refs;
}

/* Shared: which references are not answered by their addresses. */
static unsigned ask_by_address(struct walk_cache *c, uint32_t space, const struct walk_path *path,
			       bool has_faulted)
{
	unsigned refs = all_refs(path);
	for (unsigned i = 0; i + 1 < path->count; i++) {
		uint64_t number = path->ref[i].address >> 2; /* entries have 4 bytes at least */
		struct question q = {space, number | BIT(TAG_SHIFT), path->ref[i].entry,
				     has_faulted};
		if (number >> TAG_SHIFT)
			continue; /* not in RAM */
		if (ask(c, &c->cache[0][0], &q))
			refs &= ~(1u << i);
	}
	return refs;
}

struct walk_plan walk_cache_guest(struct walk_cache *c, uint64_t space, gva_t address,
				  const struct walk_path *path, bool has_faulted)
{
	unsigned all = all_refs(path);
	struct walk_plan plan = {all, all, false};
	if (!c || !c->has_upper)
		return plan;
	uint32_t number = current_space(c, space);
	if (!c->is_split) {
		plan.refs = ask_by_address(c, number, path, has_faulted);
	} else {
		plan.refs = ask_by_level(c, GUEST, number, address.v, path, has_faulted);
		plan.locates = plan.refs;
		if (c->is_two_dimensional && plan.refs != all)
			plan.locates &= plan.locates - 1;
	}
	plan.is_shortened = plan.refs != all;
	return plan;
}

unsigned walk_cache_host(struct walk_cache *c, gpa_t address, const struct walk_path *path)
{
	if (!c || !c->is_two_dimensional)
		return all_refs(path);
	return c->is_split ? ask_by_level(c, HOST, HOST_SPACE, address.v, path, false)
			   : ask_by_address(c, HOST_SPACE, path, false);
}

bool walk_cache_nested_tlb(struct walk_cache *c, gpa_t address)
{
	if (!c || !c->has_nested_tlb)
		return false;
	uint64_t rest = (address.v >> PAGE_SHIFT) + 1; /* 0 is no key */
	uint32_t at = assoc_find(&c->nested_tlb, rest, HOST_SPACE, HOST_SPACE);
	bool is_hit = at != ASSOC_NONE;
	if (!is_hit)
		at = assoc_victim(&c->nested_tlb, rest);
	assoc_put(&c->nested_tlb, at, assoc_key(HOST_SPACE, rest), ++c->now);
	return is_hit;
}
