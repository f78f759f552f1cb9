/* The block cache; see block.h for its invariants. Called by run.c between blocks and by memory's
 * write watch. */
#include "engine/interp/block.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/hard.h"
#include "engine/interp/host.h"

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
	struct code_page *p = code_page_find(vm, b->gpa >> PAGE_SHIFT);
	assert(p && p->granules);
	b->others |= granules;
	p->granules |= granules;
}

static void code_written(void *opaque, gpa_t address, unsigned size_bytes)
{
	struct interp *vm = opaque;
	if (!block_covers(vm, address.v, size_bytes))
		return;
	unsigned first = address.v & PAGE_OFFSET_MASK;
	kill_range(vm, code_page_find(vm, address.v >> PAGE_SHIFT), first, first + size_bytes - 1);
}

int block_cache_init(struct interp *vm, struct error *e)
{
	struct block_cache *cache = &vm->cache;
	void *arena = mmap(NULL, BLOCK_ARENA_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	cache->hash = calloc(1u << BLOCK_HASH_BITS, sizeof(struct block *));
	cache->pages = calloc(1u << CODE_PAGE_HASH_BITS, sizeof(struct code_page *));
	cache->arena = arena == MAP_FAILED ? NULL : arena;
	if (!cache->arena || !cache->hash || !cache->pages)
		return error_set(e, -ENOMEM, "no memory for the block cache (%u KiB)",
				 BLOCK_ARENA_BYTES >> 10);
	struct memory_watcher watcher = {.written = code_written, .opaque = vm, .flags = PAGE_CODE};
	return memory_add_watcher(vm->config.memory, watcher);
}

void block_cache_fini(struct interp *vm)
{
	if (vm->cache.arena)
		munmap(vm->cache.arena, BLOCK_ARENA_BYTES);
	free(vm->cache.hash);
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
	memset(cache->hash, 0, sizeof(struct block *) << BLOCK_HASH_BITS);
	memset(cache->pages, 0, sizeof(struct code_page *) << CODE_PAGE_HASH_BITS);
	memset(cache->jump_cache, 0, sizeof(cache->jump_cache));
	host_stubs_reset(vm->stubs);
	cache->arena_used = 0;
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
	unsigned first, last;
	block_extent(b, &first, &last);
	if (!p->granules)
		memory_set_page_flag(vm->config.memory, gpa_from_gfn(gfn), PAGE_CODE);
	p->granules |= block_granules(first, last);
	b->page_link = p->blocks;
	p->blocks = b;
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

bool block_still_crosses(struct interp_vcpu *c, const struct block *b)
{
	uint64_t second = align_up(fetch_linear(c) + 1, PAGE_SIZE_BYTES);
	unsigned have = (unsigned)(PAGE_SIZE_BYTES - (b->gpa & PAGE_OFFSET_MASK));
	uint8_t bytes[16];
	uint64_t gfn2 = block_second_page(c, second, bytes, 16 - have);
	return gfn2 == b->gfn2 && !memcmp(bytes, b->crossing + have, b->bytes - have);
}

struct block *block_decode(struct interp_vcpu *c, uint64_t address)
{
	struct interp *vm = c->vm;
	struct block_cache *cache = &vm->cache;
	size_t worst = sizeof(struct block) + (BLOCK_INSNS_MAX + 1) * sizeof(struct insn) +
		       2 * sizeof(struct code_page) + 64;
	uint64_t limit = hard_limit(BLOCK_ARENA_TINY, BLOCK_ARENA_BYTES, cache->full_count,
				    BLOCK_ARENA_PATIENCE);
	if (cache->arena_used + worst > limit || host_stubs_is_full(vm->stubs)) {
		cache->full_count++;
		block_flush(vm);
	}
	unsigned available = (unsigned)(PAGE_SIZE_BYTES - (address & PAGE_OFFSET_MASK));
	const uint8_t *bytes = memory_host(vm->config.memory, gpa(address), available);
	static const uint8_t nothing[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct block *b = (struct block *)(cache->arena + cache->arena_used);
	memset(b, 0, sizeof(*b));
	b->gpa = address;
	b->gfn2 = ~0ull;
	b->key = c->key;
	bool is_ram = bytes != NULL;
	if (!is_ram) { /* fetching from device memory reads all ones */
		bytes = nothing;
		available = available < 16 ? available : 16;
	}
	lower_block(c, b, bytes, available, BLOCK_INSNS_MAX);
	if (!b->count && available < 15) {
		memcpy(b->crossing, bytes, available);
		uint64_t gfn2 = block_second_page(c, fetch_linear(c) + available,
						  b->crossing + available, 16 - available);
		lower_block(c, b, b->crossing, 15, 1);
		if (b->bytes > available)
			b->gfn2 = gfn2;
	}
	cache->arena_used += align_up(sizeof(*b) + (b->count + 1) * sizeof(struct insn), 16);
	size_t h = hash_block(address, b->key);
	b->hash_link = cache->hash[h];
	cache->hash[h] = b;
	if (is_ram)
		register_page(vm, b);
	return b;
}
