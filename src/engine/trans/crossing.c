/*
 * Accesses that lie in two pages: what a look-up's slow path asks first.
 *
 * If both pages are in the TLB there is nothing to raise and nobody to tell, and the instruction
 * can go on as if its look-up had been right: where the pages lie side by side on the host, which
 * those that a guest's kernel hands out one after the other mostly do, it accesses them directly. A
 * read of others reads a copy in the frame. Loops over bytes that are not aligned to the size of
 * their steps meet this in each page. At a multiple of 4 GiB it is the interpreter's, for there
 * 32-bit addresses end.
 *
 * This runs with the guest's values in the vector registers, so it neither uses nor calls anything
 * that does. The thunk (thunk.c) puts back what C may change of the others.
 */
#include "engine/trans/trans_private.h"

#define NO_VECTORS __attribute__((target("general-regs-only")))

#define HALF_BYTES sizeof(((struct frame *)NULL)->halves[0])

NO_VECTORS static bool is_in_tlb(const struct space *p, uint64_t page, bool is_write)
{
	unsigned slot = (unsigned)(page >> PAGE_SHIFT) & (SPACE_TLB_COUNT - 1);
	return (is_write ? p->write : p->read)[slot] == page;
}

/* In words, for a call of memcpy() is one of something that uses vectors. */
NO_VECTORS static void copy_half(uint64_t *to, const uint8_t *from)
{
	const uint64_t *words = (const uint64_t *)(const void *)from;
	for (unsigned k = 0; k < HALF_BYTES / 8; k++)
		to[k] = __atomic_load_n(&words[k], __ATOMIC_RELAXED);
}

NO_VECTORS const uint8_t *crossing_find(struct frame *f)
{
	const struct trans_vcpu *t = f->t;
	const struct site *site = &t->trans->sites[f->site];
	const struct space *p = t->space;
	uint64_t offset = f->linear & PAGE_OFFSET_MASK, first = f->linear - offset;
	uint64_t second = first + PAGE_SIZE_BYTES;
	if (!site->look_up_bytes || site->is_aligned || !(uint32_t)second ||
	    offset + site->size_bytes <= PAGE_SIZE_BYTES || !is_in_tlb(p, first, site->is_write) ||
	    !is_in_tlb(p, second, site->is_write))
		return NULL;
	uint8_t *low = p->page[(first >> PAGE_SHIFT) % SPACE_TLB_COUNT];
	const uint8_t *high = p->page[(second >> PAGE_SHIFT) % SPACE_TLB_COUNT];
	if (high == low + PAGE_SIZE_BYTES) {
		f->operand_page = low;
	} else if (!site->is_write) {
		copy_half(f->halves[0], low + PAGE_SIZE_BYTES - HALF_BYTES);
		copy_half(f->halves[1], high);
		f->operand_page = (uint8_t *)f->halves[1] - PAGE_SIZE_BYTES;
	} else {
		return NULL;
	}
	f->operand_offset = offset;
	return site->resume + site->look_up_bytes;
}
