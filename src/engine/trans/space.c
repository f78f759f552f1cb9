/* The translator's TLBs: filling, and the several ways of forgetting. See space.h. */
#include "engine/trans/space.h"

#include <string.h>
#include <sys/random.h>

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

void space_protect_slot(struct space *p, unsigned slot)
{
	p->write[slot] = space_empty_tag(slot);
	if (space_slot(p->stack.tag) == slot)
		p->stack = p->nothing;
}

bool space_is_sound(const struct space *p)
{
	unsigned slot = space_slot(p->stack.tag);
	return p->stack.page == p->nowhere ||
	       (p->write[slot] == p->stack.tag && p->page[slot] == p->stack.page);
}

static void empty_slot(struct space *p, unsigned slot)
{
	space_protect_slot(p, slot);
	p->read[slot] = space_empty_tag(slot);
}

/* Neither half of the address space begins with these two bits. */
#define NOWHERE_FIRST BIT(63)
#define NOWHERE_BITS (BIT(62) - PAGE_SIZE_BYTES)

static void init_nothing(struct space *p)
{
	uint64_t random = 0;
	(void)!getrandom(&random, sizeof(random), 0);
	p->nothing.tag = NOWHERE_FIRST | (random & NOWHERE_BITS);
	p->nothing.page = p->nowhere;
	p->stack = p->nothing;
}

void space_init(struct space *p)
{
	init_nothing(p);
	/* The others are, and their pages there only once they are used. */
	empty_slot(p, 0);
	for (unsigned slot = 0; slot < 2; slot++)
		p->jumps[slot].rip = space_jump_empty(slot);
}

void space_fill(struct space *p, uint64_t address, const struct mmu_page *page, bool is_write)
{
	unsigned slot = space_slot(address);
	uint64_t number = align_down(address, PAGE_SIZE_BYTES);
	uint8_t *host = page->host - (address & PAGE_OFFSET_MASK);
	if (p->page[slot] != host || p->read[slot] != number)
		empty_slot(p, slot);
	p->page[slot] = host;
	p->guest_shift[slot] = page->guest_shift;
	if (page->guest_shift > PAGE_SHIFT)
		set(p->large_regions, address >> REGION_SHIFT);
	p->has_large[address >> 63] |= page->guest_shift > PAGE_SHIFT;
	p->has_huge[address >> 63] |= page->guest_shift > REGION_SHIFT;
	if (!page->is_global)
		slot_set_add(&p->tlb_local, slot);
	p->read[slot] = number; /* what may be written may be read */
	if (is_write)
		p->write[slot] = number;
	slot_set_add(&p->tlb_used, slot);
}

static void flush_tlb(struct space *p)
{
	for (unsigned slot = 0; slot_set_next(&p->tlb_used, &slot); slot++)
		empty_slot(p, slot);
	slot_set_clear(&p->tlb_used);
	slot_set_clear(&p->tlb_local);
	memset(p->large_regions, 0, sizeof(p->large_regions));
	p->has_large[0] = p->has_large[1] = p->has_huge[0] = p->has_huge[1] = false;
}

void space_flush_jumps(struct space *p)
{
	for (unsigned slot = 0; slot_set_next(&p->jump_used, &slot); slot++)
		p->jumps[slot].rip = space_jump_empty(slot);
	slot_set_clear(&p->jump_used);
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
	for (unsigned slot = 0; slot_set_next(&p->tlb_used, &slot); slot++) {
		unsigned shift = p->guest_shift[slot];
		if (shift > PAGE_SHIFT && !((p->read[slot] ^ address) >> shift))
			empty_slot(p, slot);
	}
}

/* Forgets what lies in the 2^shift bytes around `address`, or reaches into them. */
static void drop_jumps(struct space *p, uint64_t address, unsigned shift)
{
	for (unsigned slot = 0; slot_set_next(&p->jump_used, &slot); slot++) {
		uint64_t rip = p->jumps[slot].rip, last = rip + INSN_BYTES_MAX - 1;
		if (!((rip ^ address) >> shift) || !((last ^ address) >> shift))
			p->jumps[slot].rip = space_jump_empty(slot);
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
	for (unsigned slot = 0; slot_set_next(&p->tlb_local, &slot); slot++)
		empty_slot(p, slot);
	slot_set_clear(&p->tlb_local);
	if (drops_code || p->has_jumps[0])
		space_flush_jumps(p);
}

void space_protect(struct space *p, const uint8_t *host)
{
	for (unsigned slot = 0; slot_set_next(&p->tlb_used, &slot); slot++)
		if (p->page[slot] == host)
			space_protect_slot(p, slot);
}
