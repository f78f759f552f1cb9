/* The translator's TLBs: filling, and the several ways of forgetting. See space.h. */
#include "engine/trans/space.h"

#include <string.h>

#define REGION_SHIFT 21

static void set(uint64_t *bits, uint64_t n)
{
	n %= SPACE_CODE_BITS;
	bits[n / 64] |= BIT(n % 64);
}

static bool is_set(const uint64_t *bits, uint64_t n)
{
	n %= SPACE_CODE_BITS;
	return bits[n / 64] >> (n % 64) & 1;
}

static void empty_slot(struct space *p, unsigned slot)
{
	p->tlb[slot] =
		(struct space_entry){.read = space_empty_tag(slot), .write = space_empty_tag(slot)};
}

void space_init(struct space *p)
{
	for (unsigned slot = 0; slot < SPACE_TLB_COUNT; slot++)
		empty_slot(p, slot);
	for (unsigned slot = 0; slot < SPACE_JUMP_COUNT; slot++)
		p->jump_rip[slot] = space_jump_empty(slot);
}

void space_fill(struct space *p, uint64_t address, const struct mmu_page *page, bool is_write)
{
	unsigned slot = space_slot(address);
	struct space_entry *e = &p->tlb[slot];
	uint64_t number = align_down(address, PAGE_SIZE_BYTES);
	uint8_t *host = page->host - (address & PAGE_OFFSET_MASK);
	if (e->page != host || e->read != number)
		empty_slot(p, slot);
	e->page = host;
	e->guest_shift = page->guest_shift;
	if (page->guest_shift > PAGE_SHIFT)
		set(p->large_regions, address >> REGION_SHIFT);
	p->has_large[address >> 63] |= page->guest_shift > PAGE_SHIFT;
	p->has_huge[address >> 63] |= page->guest_shift > REGION_SHIFT;
	if (!page->is_global)
		p->tlb_local[slot / 64] |= BIT(slot % 64);
	e->read = number; /* what may be written may be read */
	if (is_write)
		e->write = number;
	p->tlb_used[slot / 64] |= BIT(slot % 64);
}

static void flush_tlb(struct space *p)
{
	for (unsigned w = 0; w < ARRAY_COUNT(p->tlb_used); w++) {
		for (uint64_t used = p->tlb_used[w]; used; used &= used - 1)
			empty_slot(p, w * 64 + (unsigned)__builtin_ctzll(used));
		p->tlb_used[w] = p->tlb_local[w] = 0;
	}
	memset(p->large_regions, 0, sizeof(p->large_regions));
	p->has_large[0] = p->has_large[1] = p->has_huge[0] = p->has_huge[1] = false;
}

void space_flush_jumps(struct space *p)
{
	for (unsigned w = 0; w < ARRAY_COUNT(p->jump_used); w++) {
		for (uint64_t used = p->jump_used[w]; used; used &= used - 1) {
			unsigned slot = w * 64 + (unsigned)__builtin_ctzll(used);
			p->jump_rip[slot] = space_jump_empty(slot);
		}
		p->jump_used[w] = 0;
	}
	memset(p->code_pages, 0, sizeof(p->code_pages));
	memset(p->code_regions, 0, sizeof(p->code_regions));
	p->has_jumps[0] = p->has_jumps[1] = false;
}

void space_flush(struct space *p)
{
	flush_tlb(p);
	space_flush_jumps(p);
}

/* Entries of the large page that `address` lies in. */
static void drop_large(struct space *p, uint64_t address)
{
	for (unsigned w = 0; w < ARRAY_COUNT(p->tlb_used); w++)
		for (uint64_t used = p->tlb_used[w]; used; used &= used - 1) {
			unsigned slot = w * 64 + (unsigned)__builtin_ctzll(used);
			const struct space_entry *e = &p->tlb[slot];
			if (e->guest_shift > PAGE_SHIFT && !((e->read ^ address) >> e->guest_shift))
				empty_slot(p, slot);
		}
}

/* Forgets what lies in the 2^shift bytes around `address`, or reaches into them. */
static void drop_jumps(struct space *p, uint64_t address, unsigned shift)
{
	for (unsigned w = 0; w < ARRAY_COUNT(p->jump_used); w++)
		for (uint64_t used = p->jump_used[w]; used; used &= used - 1) {
			unsigned slot = w * 64 + (unsigned)__builtin_ctzll(used);
			uint64_t rip = p->jump_rip[slot], last = rip + INSN_BYTES_MAX - 1;
			if (!((rip ^ address) >> shift) || !((last ^ address) >> shift))
				p->jump_rip[slot] = space_jump_empty(slot);
		}
}

void space_drop_page(struct space *p, uint64_t address, bool is_large_code)
{
	unsigned half = address >> 63;
	if (p->has_large[half] &&
	    (is_set(p->large_regions, address >> REGION_SHIFT) || p->has_huge[half]))
		drop_large(p, address);
	empty_slot(p, space_slot(address));
	if (!p->has_jumps[half])
		return;
	if (is_large_code ? is_set(p->code_regions, address >> REGION_SHIFT)
			  : is_set(p->code_pages, address >> PAGE_SHIFT))
		drop_jumps(p, address, is_large_code ? REGION_SHIFT : PAGE_SHIFT);
}

void space_drop_local(struct space *p, bool drops_code)
{
	for (unsigned w = 0; w < ARRAY_COUNT(p->tlb_local); w++) {
		for (uint64_t local = p->tlb_local[w]; local; local &= local - 1)
			empty_slot(p, w * 64 + (unsigned)__builtin_ctzll(local));
		p->tlb_local[w] = 0;
	}
	if (drops_code || p->has_jumps[0])
		space_flush_jumps(p);
}

void space_protect(struct space *p, const uint8_t *host)
{
	for (unsigned w = 0; w < ARRAY_COUNT(p->tlb_used); w++)
		for (uint64_t used = p->tlb_used[w]; used; used &= used - 1) {
			unsigned slot = w * 64 + (unsigned)__builtin_ctzll(used);
			if (p->tlb[slot].page == host)
				p->tlb[slot].write = space_empty_tag(slot);
		}
}
