/* The block cache; see block.h for its invariants. Called by run.c between blocks and by memory's
 * write watch. */
#include "engine/interp/block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hard.h"
#include "base/pages.h"
#include "engine/interp/host.h"

/* When a page becomes a checked one, and for how many uses of its code at first. */
#ifdef GNOMON_HARD
#define REWRITES_MAX 2
#define BESIDE_MAX 4
#define CALM 3
#else
#define REWRITES_MAX 8
#define BESIDE_MAX 1024
#define CALM 20000
#endif
#define CALM_MAX (1 << 30)
#define ROOM_MIN 12 /* instructions */
#define BLOCK_HASH_BYTES (sizeof(struct block *) << BLOCK_HASH_BITS)

static size_t hash_block(uint64_t address, uint8_t key)
{
	return ((address + key) * 0x9e3779b97f4a7c15ull) >> (64 - BLOCK_HASH_BITS);
}

static size_t hash_page(uint64_t gfn)
{
	return (gfn * 0x9e3779b97f4a7c15ull) >> (64 - CODE_PAGE_HASH_BITS);
}

static struct code_page *code_page_find(const struct interp *vm, uint64_t gfn)
{
	struct code_page *p = vm->cache.pages[hash_page(gfn)];
	while (p && p->gfn != gfn)
		p = p->link;
	return p;
}

/* The offsets of `b`'s bytes in its (first) page. */
static void block_extent(const struct block *b, unsigned *first, unsigned *last)
{
	*first = b->gpa & PAGE_OFFSET_MASK;
	*last = *first + b->bytes > PAGE_SIZE_BYTES ? PAGE_SIZE_BYTES - 1 : *first + b->bytes - 1;
}

void block_kill(struct interp *vm, struct block *b)
{
	b->key = KEY_DEAD;
	if (b->translation)
		vm->translator->dropped(vm->translator->opaque, b);
}

static void kill_range(struct interp *vm, struct code_page *p, unsigned first, unsigned last)
{
	uint64_t granules = 0, written = block_granules(first, last);
	struct block **link = &p->blocks;
	while (*link) {
		struct block *b = *link;
		unsigned from, to;
		block_extent(b, &from, &to);
		bool is_hit = (from <= last && to >= first) || b->others & written;
		if (b->key != KEY_DEAD && !is_hit) {
			granules |= block_granules(from, to) | b->others;
			link = &b->page_link;
			continue;
		}
		block_kill(vm, b);
		*link = b->page_link;
	}
	p->granules = granules;
	if (!granules)
		memory_clear_page_flag(vm->config.memory, gpa_from_gfn(p->gfn), PAGE_CODE);
}

bool block_covers(const struct interp *vm, uint64_t address, unsigned size_bytes)
{
	const struct code_page *p = code_page_find(vm, address >> PAGE_SHIFT);
	if (!p || !size_bytes)
		return false;
	unsigned first = address & PAGE_OFFSET_MASK;
	return p->granules & block_granules(first, first + size_bytes - 1);
}

void block_depend(struct interp *vm, struct block *b, uint64_t granules)
{
	struct code_page *p = b->page;
	assert(!granules || (p && !p->is_checked));
	if (!granules)
		return;
	b->others |= granules;
	p->granules |= granules;
}

static void code_written(void *opaque, gpa_t address, unsigned size_bytes)
{
	struct interp *vm = opaque;
	struct code_page *p = code_page_find(vm, address.v >> PAGE_SHIFT);
	if (!block_covers(vm, address.v, size_bytes)) {
		if (p && p->granules && ++p->beside_count == BESIDE_MAX)
			vm->cache.restless = p;
		return;
	}
	unsigned first = address.v & PAGE_OFFSET_MASK;
	p->was_hit = true;
	kill_range(vm, p, first, first + size_bytes - 1);
}

/* ---- checked pages ---- */

static void check_page(struct interp *vm, struct code_page *p)
{
	if (p->is_checked || vm->cache.is_always_watched)
		return;
	kill_range(vm, p, 0, PAGE_SIZE_BYTES - 1);
	p->is_checked = true;
	p->calm_full = !p->calm_full ? CALM : p->calm_full < CALM_MAX ? 4 * p->calm_full : CALM_MAX;
	p->calm = p->calm_full;
}

static void watch_page(struct interp *vm, struct code_page *p)
{
	kill_range(vm, p, 0, PAGE_SIZE_BYTES - 1);
	p->is_checked = p->was_hit = false;
	p->rewrite_count = p->beside_count = 0;
}

void block_settle(struct interp *vm)
{
	check_page(vm, vm->cache.restless);
	vm->cache.restless = NULL;
}

/* A block of `p` is about to be decoded. */
static void note_decoding(struct interp *vm, struct code_page *p)
{
	if (!p->was_hit)
		return;
	p->was_hit = false;
	if (++p->rewrite_count == REWRITES_MAX)
		check_page(vm, p);
}

static unsigned checked_bytes(uint64_t address)
{
	unsigned left = (unsigned)(PAGE_SIZE_BYTES - (address & PAGE_OFFSET_MASK));
	return left < CHECKED_BYTES_MAX ? left : CHECKED_BYTES_MAX;
}

static bool is_current(struct interp_vcpu *c, struct block *b)
{
	struct interp *vm = c->vm;
	if (--b->page->calm < 0) {
		watch_page(vm, b->page);
		return false;
	}
	const uint8_t *bytes = memory_host(vm->config.memory, gpa(b->gpa), b->bytes);
	if (!memcmp(bytes, block_copy(b), b->bytes))
		return true;
	b->page->calm = b->page->calm_full;
	if (host_stubs_is_full(vm->stubs)) {
		block_kill(vm, b);
		return false;
	}
	if (b->translation)
		vm->translator->dropped(vm->translator->opaque, b);
	b->heat = 0;
	lower_block(c, b, bytes, checked_bytes(b->gpa), b->room);
	if (!b->count) /* it crosses into the next page now */
		block_kill(vm, b);
	else
		memcpy(block_copy(b), bytes, b->bytes);
	return b->count;
}

int block_cache_init(struct interp *vm, struct error *e)
{
	struct block_cache *cache = &vm->cache;
	cache->hash = pages_map_large(BLOCK_HASH_BYTES);
	cache->pages = calloc(1u << CODE_PAGE_HASH_BITS, sizeof(struct code_page *));
	cache->arena = pages_map_large(BLOCK_ARENA_BYTES);
	if (!cache->arena || !cache->hash || !cache->pages)
		return error_set(e, -ENOMEM, "no memory for the block cache (%u KiB)",
				 BLOCK_ARENA_BYTES >> 10);
	struct memory_watcher watcher = {.written = code_written, .opaque = vm, .flags = PAGE_CODE};
	return memory_add_watcher(vm->config.memory, watcher);
}

void block_cache_fini(struct interp *vm)
{
	pages_unmap(vm->cache.arena, BLOCK_ARENA_BYTES);
	pages_unmap(vm->cache.hash, BLOCK_HASH_BYTES);
	free(vm->cache.pages);
}

void block_flush(struct interp *vm)
{
	struct block_cache *cache = &vm->cache;
	if (vm->translator)
		vm->translator->flushed(vm->translator->opaque);
	for (size_t h = 0; h < 1u << CODE_PAGE_HASH_BITS; h++)
		for (struct code_page *p = cache->pages[h]; p; p = p->link)
			memory_clear_page_flag(vm->config.memory, gpa_from_gfn(p->gfn), PAGE_CODE);
	memset(cache->hash, 0, BLOCK_HASH_BYTES);
	memset(cache->pages, 0, sizeof(struct code_page *) << CODE_PAGE_HASH_BITS);
	memset(cache->jump_cache, 0, sizeof(cache->jump_cache));
	host_stubs_reset(vm->stubs);
	cache->arena_used = 0;
	cache->restless = NULL;
	cache->generation++;
}

static void *arena_take(struct block_cache *cache, size_t size_bytes)
{
	void *p = cache->arena + cache->arena_used;
	cache->arena_used += align_up(size_bytes, 16);
	return p;
}

struct block *block_find(struct interp *vm, uint64_t address, uint8_t key)
{
	struct block **link = &vm->cache.hash[hash_block(address, key)];
	struct block *b;
	while ((b = *link) && (b->gpa != address || b->key != key)) {
		if (b->key ==
		    KEY_DEAD) /* code that is written again and again must not make the list long */
			*link = b->hash_link;
		else
			link = &b->hash_link;
	}
	return b;
}

static void register_page(struct interp *vm, struct block *b)
{
	uint64_t gfn = b->gpa >> PAGE_SHIFT;
	struct code_page *p = code_page_find(vm, gfn);
	if (!p) {
		p = arena_take(&vm->cache, sizeof(*p));
		*p = (struct code_page){.gfn = gfn, .link = vm->cache.pages[hash_page(gfn)]};
		vm->cache.pages[hash_page(gfn)] = p;
	}
	b->page = p;
	b->page_link = p->blocks;
	p->blocks = b;
	if (p->is_checked)
		return;
	unsigned first, last;
	block_extent(b, &first, &last);
	if (!p->granules)
		memory_set_page_flag(vm->config.memory, gpa_from_gfn(gfn), PAGE_CODE);
	p->granules |= block_granules(first, last);
}

static uint64_t block_second_page(struct interp_vcpu *c, uint64_t linear, uint8_t *bytes,
				  unsigned size_bytes)
{
	struct mmu_page page;
	struct page_fault fault;
	c->fetch_count++;
	if (!mmu_translate(c->mmu, gva(linear), ACCESS_FETCH, c->fetch_mode, &page, &fault))
		interp_raise_pf(c, NULL, fault);
	if (page.host)
		memcpy(bytes, page.host, size_bytes);
	else
		memset(bytes, 0xff, size_bytes);
	return gpa_gfn(page.gpa);
}

static uint64_t fetch_linear(const struct interp_vcpu *c)
{
	uint64_t rip = c->s->rip;
	return c->key & KEY_CODE64 ? rip : (uint32_t)(rip + c->s->seg[SEG_CS].base);
}

static bool still_crosses(struct interp_vcpu *c, const struct block *b)
{
	uint64_t second = align_up(fetch_linear(c) + 1, PAGE_SIZE_BYTES);
	unsigned have = (unsigned)(PAGE_SIZE_BYTES - (b->gpa & PAGE_OFFSET_MASK));
	uint8_t bytes[16];
	uint64_t gfn2 = block_second_page(c, second, bytes, 16 - have);
	const uint8_t *first = memory_host(c->memory, gpa(b->gpa), have);
	return gfn2 == b->gfn2 && !memcmp(bytes, b->crossing + have, b->bytes - have) &&
	       (!first || !memcmp(first, b->crossing, have));
}

bool block_is_current(struct interp_vcpu *c, struct block *b)
{
	if (b->gfn2 == BLOCK_CHECKED)
		return is_current(c, b);
	if (still_crosses(c, b))
		return true;
	block_kill(c->vm, b);
	return false;
}

/* Reserves the block's memory. A checked one may become another, and ends with the copy. */
static void keep(struct interp *vm, struct block *b, const uint8_t *bytes)
{
	size_t size_bytes = sizeof(*b) + (b->count + 1) * sizeof(struct insn);
	if (b->gfn2 == BLOCK_CHECKED) {
		b->room = b->count < ROOM_MIN ? ROOM_MIN : b->count;
		memcpy(block_copy(b), bytes, b->bytes);
		size_bytes = (size_t)(block_copy(b) + CHECKED_BYTES_MAX - (uint8_t *)b);
	}
	arena_take(&vm->cache, size_bytes);
}

struct block *block_decode(struct interp_vcpu *c, uint64_t address)
{
	struct interp *vm = c->vm;
	struct block_cache *cache = &vm->cache;
	size_t worst = sizeof(struct block) + (BLOCK_INSNS_MAX + 1) * sizeof(struct insn) +
		       2 * sizeof(struct code_page) + CHECKED_BYTES_MAX + 64;
	uint64_t limit = hard_limit(BLOCK_ARENA_TINY, BLOCK_ARENA_BYTES, cache->full_count,
				    BLOCK_ARENA_PATIENCE);
	if (cache->arena_used + worst > limit || host_stubs_is_full(vm->stubs)) {
		cache->full_count++;
		block_flush(vm);
	}
	struct code_page *p = code_page_find(vm, address >> PAGE_SHIFT);
	if (p)
		note_decoding(vm, p);
	bool is_checked = p && p->is_checked;
	unsigned available = (unsigned)(PAGE_SIZE_BYTES - (address & PAGE_OFFSET_MASK));
	const uint8_t *bytes = memory_host(vm->config.memory, gpa(address), available);
	static const uint8_t nothing[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct block *b = (struct block *)(cache->arena + cache->arena_used);
	memset(b, 0, sizeof(*b));
	b->gpa = address;
	b->gfn2 = is_checked ? BLOCK_CHECKED : ~0ull;
	b->key = c->key;
	bool is_ram = bytes != NULL;
	if (!is_ram) { /* fetching from device memory reads all ones */
		bytes = nothing;
		available = available < 16 ? available : 16;
	}
	lower_block(c, b, bytes, is_checked ? checked_bytes(address) : available, BLOCK_INSNS_MAX);
	if (!b->count && available < 15) {
		b->gfn2 = ~0ull;
		memcpy(b->crossing, bytes, available);
		uint64_t gfn2 = block_second_page(c, fetch_linear(c) + available,
						  b->crossing + available, 16 - available);
		lower_block(c, b, b->crossing, 15, 1);
		if (b->bytes > available)
			b->gfn2 = gfn2;
	}
	keep(vm, b, bytes);
	size_t h = hash_block(address, b->key);
	b->hash_link = cache->hash[h];
	cache->hash[h] = b;
	if (is_ram)
		register_page(vm, b);
	return b;
}
