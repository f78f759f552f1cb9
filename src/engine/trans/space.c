/* The translator's TLBs: filling, and the several ways of forgetting. See space.h. */
#include "engine/trans/space.h"

static void empty_slot(struct space *p, unsigned slot)
{
	p->tlb[slot] = (struct space_entry){space_empty_tag(slot), space_empty_tag(slot), NULL, 0};
}

void space_init(struct space *p)
{
	for (unsigned slot = 0; slot < SPACE_TLB_COUNT; slot++)
		empty_slot(p, slot);
	for (unsigned slot = 0; slot < SPACE_JUMP_COUNT; slot++)
		p->jump_rip[slot] = SPACE_JUMP_NOWHERE;
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
		p->tlb_used[w] = 0;
	}
}

void space_flush_jumps(struct space *p)
{
	for (unsigned w = 0; w < ARRAY_COUNT(p->jump_used); w++) {
		for (uint64_t used = p->jump_used[w]; used; used &= used - 1)
			p->jump_rip[w * 64 + (unsigned)__builtin_ctzll(used)] = SPACE_JUMP_NOWHERE;
		p->jump_used[w] = 0;
	}
}

void space_flush(struct space *p)
{
	flush_tlb(p);
	space_flush_jumps(p);
}

void space_drop_page(struct space *p, uint64_t address)
{
	unsigned slot = space_slot(address);
	empty_slot(p, slot);
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
