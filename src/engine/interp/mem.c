/*
 * Memory accesses that miss the fast map: translation, page crossings, device memory, watched
 * pages, and the checks that need every access (alignment, data breakpoints). interp.h holds the
 * fast halves.
 *
 * Invariant: everything that can fault is done before the first byte is written, and an effect
 * outside RAM happens only alone (interp_alone).
 */
#include "engine/interp/block.h"

#include <string.h>

#include "bus/bus.h"

static _Noreturn void raise_address(struct interp_vcpu *c, const struct insn *i)
{
	interp_raise_error(c, i, i && i->seg == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

static void checks_before(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			  unsigned size_bytes, enum access_kind kind)
{
	if (c->slow_checks & CHECK_ALIGNMENT && size_bytes <= 8 && linear & (size_bytes - 1))
		interp_raise_error(c, i, VECTOR_AC, 0);
	if (c->slow_checks & CHECK_WATCHPOINTS)
		interp_data_breakpoint(c, linear, size_bytes, kind);
}

static struct mmu_page translate(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
				 enum access_kind kind, enum mmu_mode mode)
{
	if (vcpu_is_long_mode(c->v) && unlikely(!vcpu_is_canonical(c->s, linear)))
		raise_address(c, i);
	struct mmu_page page;
	struct page_fault fault;
	bool ok = mmu_translate(c->mmu, gva(linear), kind, mode, &page, &fault);
	if (unlikely(c->mmu->difference)) {
		c->exit = (struct vm_exit){.reason = EXIT_DIFFERENCE, .text = c->mmu->difference};
		c->attention |= ATTENTION_EXIT;
	}
	if (!ok)
		interp_raise_pf(c, i, fault);
	return page;
}

/* One or two pages of an access. */
struct span {
	struct mmu_page page[2];
	unsigned first_bytes; /* on page[0]; the rest is on page[1] */
};

static struct span translate_span(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
				  unsigned size_bytes, enum access_kind kind, enum mmu_mode mode)
{
	struct span span = {.first_bytes = size_bytes};
	unsigned room = (unsigned)(PAGE_SIZE_BYTES - (linear & PAGE_OFFSET_MASK));
	if (!vcpu_is_long_mode(c->v))
		linear = (uint32_t)linear;
	span.page[0] = translate(c, i, linear, kind, mode);
	if (size_bytes > room) {
		span.first_bytes = room;
		uint64_t second = linear + room;
		if (!vcpu_is_long_mode(c->v))
			second = (uint32_t)second;
		span.page[1] = translate(c, i, second, kind, mode);
	}
	if (kind == ACCESS_WRITE)
		c->write_count += 1 + (size_bytes > room);
	return span;
}

static void read_device(struct interp_vcpu *c, const struct insn *i, gpa_t address, uint8_t *bytes,
			unsigned size_bytes)
{
	interp_alone(c, i);
	interp_sync_clock(c, i);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_MMIO_READ);
	while (size_bytes) {
		unsigned n = size_bytes >= 8 ? 8 : size_bytes >= 4 ? 4 : size_bytes >= 2 ? 2 : 1;
		bool handled;
		uint64_t value = bus_mmio_read(c->bus, c->v->index, address, n, &handled);
		interp_spend(c, c->device_cycles);
		if (!handled)
			ledger_charge(c->ledger, EVENT_UNHANDLED_MMIO);
		memcpy(bytes, &value, n);
		address.v += n;
		bytes += n;
		size_bytes -= n;
	}
	interp_attend(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_MMIO_READ, start);
}

static void write_device(struct interp_vcpu *c, const struct insn *i, gpa_t address,
			 const uint8_t *bytes, unsigned size_bytes)
{
	interp_sync_clock(c, i);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_MMIO_WRITE);
	while (size_bytes) {
		unsigned n = size_bytes >= 8 ? 8 : size_bytes >= 4 ? 4 : size_bytes >= 2 ? 2 : 1;
		uint64_t value = 0;
		memcpy(&value, bytes, n);
		if (!bus_mmio_write(c->bus, c->v->index, address, n, value))
			ledger_charge(c->ledger, EVENT_UNHANDLED_MMIO);
		interp_spend(c, c->device_cycles);
		address.v += n;
		bytes += n;
		size_bytes -= n;
	}
	interp_attend(c);
	ledger_exit_end(c->ledger, EVENT_EXIT_MMIO_WRITE, start);
}

static void read_page(struct interp_vcpu *c, const struct insn *i, const struct mmu_page *page,
		      uint8_t *bytes, unsigned size_bytes)
{
	if (likely(page->host != NULL))
		memcpy(bytes, page->host, size_bytes);
	else
		read_device(c, i, page->gpa, bytes, size_bytes);
}

/* Must a write to the page happen alone? Device memory, and bytes that cached blocks were made of.
 */
static bool is_write_special(const struct interp_vcpu *c, const struct mmu_page *page,
			     unsigned size_bytes)
{
	if (!page->host)
		return true;
	return page->flags & PAGE_CODE && block_covers(c->vm, page->gpa.v, size_bytes);
}

static void write_page(struct interp_vcpu *c, const struct insn *i, const struct mmu_page *page,
		       const uint8_t *bytes, unsigned size_bytes)
{
	if (!page->host) {
		write_device(c, i, page->gpa, bytes, size_bytes);
		return;
	}
	if (page->flags & PAGE_ROM)
		return;
	memcpy(page->host, bytes, size_bytes);
	if (page->flags)
		memory_notify_write(c->memory, page->gpa, size_bytes);
}

static void write_span(struct interp_vcpu *c, const struct insn *i, const struct span *span,
		       const uint8_t *bytes, unsigned size_bytes)
{
	unsigned rest = size_bytes - span->first_bytes;
	if (is_write_special(c, &span->page[0], span->first_bytes) ||
	    (rest && is_write_special(c, &span->page[1], rest)))
		interp_alone(c, i);
	write_page(c, i, &span->page[0], bytes, span->first_bytes);
	if (rest)
		write_page(c, i, &span->page[1], bytes + span->first_bytes, rest);
}

uint64_t interp_read_slow(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			  unsigned size_bytes)
{
	uint64_t value = 0;
	interp_read_bytes(c, i, linear, &value, size_bytes);
	return value;
}

void interp_write_slow(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		       unsigned size_bytes, uint64_t value)
{
	interp_write_bytes(c, i, linear, &value, size_bytes);
}

void interp_read_bytes(struct interp_vcpu *c, const struct insn *i, uint64_t linear, void *bytes,
		       unsigned size_bytes)
{
	if (unlikely(c->slow_checks))
		checks_before(c, i, linear, size_bytes, ACCESS_READ);
	struct span span = translate_span(c, i, linear, size_bytes, ACCESS_READ, c->mode);
	read_page(c, i, &span.page[0], bytes, span.first_bytes);
	if (size_bytes > span.first_bytes)
		read_page(c, i, &span.page[1], (uint8_t *)bytes + span.first_bytes,
			  size_bytes - span.first_bytes);
}

void interp_write_bytes(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			const void *bytes, unsigned size_bytes)
{
	if (unlikely(c->slow_checks))
		checks_before(c, i, linear, size_bytes, ACCESS_WRITE);
	struct span span = translate_span(c, i, linear, size_bytes, ACCESS_WRITE, c->mode);
	write_span(c, i, &span, bytes, size_bytes);
}

void interp_probe_write(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			unsigned size_bytes)
{
	struct span span = translate_span(c, i, linear, size_bytes, ACCESS_WRITE, c->mode);
	unsigned rest = size_bytes - span.first_bytes;
	if (is_write_special(c, &span.page[0], span.first_bytes) ||
	    (rest && is_write_special(c, &span.page[1], rest)))
		interp_alone(c, i);
}

void *interp_rmw_slow(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		      unsigned size_bytes)
{
	if (unlikely(c->slow_checks))
		checks_before(c, i, linear, size_bytes, ACCESS_WRITE);
	struct span span = translate_span(c, i, linear, size_bytes, ACCESS_WRITE, c->mode);
	unsigned rest = size_bytes - span.first_bytes;
	if (!rest && span.page[0].host && !span.page[0].flags)
		return span.page[0].host;
	if (is_write_special(c, &span.page[0], span.first_bytes) ||
	    (rest && is_write_special(c, &span.page[1], rest)))
		interp_alone(c, i);
	read_page(c, i, &span.page[0], c->bounce, span.first_bytes);
	if (rest)
		read_page(c, i, &span.page[1], c->bounce + span.first_bytes, rest);
	c->bounce_pages[0] = span.page[0];
	c->bounce_pages[1] = span.page[1];
	return c->bounce;
}

void interp_rmw_commit(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		       unsigned size_bytes)
{
	unsigned room = (unsigned)(PAGE_SIZE_BYTES - (linear & PAGE_OFFSET_MASK));
	struct span span = {{c->bounce_pages[0], c->bounce_pages[1]},
			    room < size_bytes ? room : size_bytes};
	write_span(c, i, &span, c->bounce, size_bytes);
}

uint8_t *interp_system_bytes(struct interp_vcpu *c, uint64_t linear, unsigned size_bytes,
			     unsigned count, enum access_kind kind)
{
	struct mmu_fast_entry *e =
		mmu_fast_lookup(c->mmu, linear, linear + size_bytes - 1, kind, MMU_SUPERVISOR);
	if (!e)
		return NULL;
	mmu_fast_hits(c->mmu, e, linear, size_bytes, count);
	if (kind == ACCESS_WRITE)
		c->write_count += count;
	return (uint8_t *)(uintptr_t)(linear + e->addend);
}

/* memcpy() of a size that the compiler does not know is a call. */
static uint64_t load(const uint8_t *bytes, unsigned size_bytes)
{
	uint64_t value = 0;
	if (likely(size_bytes == 8))
		memcpy(&value, bytes, 8);
	else if (size_bytes == 4)
		memcpy(&value, bytes, 4);
	else if (size_bytes == 2)
		memcpy(&value, bytes, 2);
	else
		value = *bytes;
	return value;
}

uint64_t interp_read_system(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			    unsigned size_bytes)
{
	uint64_t value = 0;
	const uint8_t *bytes = interp_system_bytes(c, linear, size_bytes, 1, ACCESS_READ);
	if (likely(bytes != NULL))
		return load(bytes, size_bytes);
	struct span span = translate_span(c, i, linear, size_bytes, ACCESS_READ, MMU_SUPERVISOR);
	read_page(c, i, &span.page[0], (uint8_t *)&value, span.first_bytes);
	if (size_bytes > span.first_bytes)
		read_page(c, i, &span.page[1], (uint8_t *)&value + span.first_bytes,
			  size_bytes - span.first_bytes);
	return value;
}

void interp_write_system(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			 unsigned size_bytes, uint64_t value)
{
	uint8_t *bytes = interp_system_bytes(c, linear, size_bytes, 1, ACCESS_WRITE);
	if (likely(bytes != NULL)) {
		memcpy(bytes, &value, size_bytes);
		return;
	}
	struct span span = translate_span(c, i, linear, size_bytes, ACCESS_WRITE, MMU_SUPERVISOR);
	write_span(c, i, &span, (const uint8_t *)&value, size_bytes);
}

/* ---- effective addresses ---- */

uint64_t interp_ea_offset(const struct interp_vcpu *c, const struct insn *i)
{
	const uint64_t *g = c->s->gpr;
	uint64_t offset = g[i->base] + (g[i->index] << i->scale) + (uint64_t)i->disp;
	return i->address_bytes == 8   ? offset
	       : i->address_bytes == 4 ? (uint32_t)offset
				       : (uint16_t)offset;
}

uint64_t interp_ea_segmented(struct interp_vcpu *c, const struct insn *i, unsigned size_bytes,
			     enum access_kind kind)
{
	return interp_linear(c, i, i->seg, interp_ea_offset(c, i), size_bytes, kind);
}

static _Noreturn void raise_segment(struct interp_vcpu *c, const struct insn *i, unsigned seg)
{
	interp_raise_error(c, i, seg == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

/* SDM 3A 5.3: the offsets a segment lets through. */
static bool is_within_limit(const struct segment_register *r, uint64_t offset, unsigned size_bytes)
{
	uint64_t last = offset + size_bytes - 1;
	bool expands_down = (r->attributes & (ATTR_CODE | ATTR_EXPAND_DOWN)) == ATTR_EXPAND_DOWN;
	if (!expands_down)
		return last <= r->limit;
	uint64_t top = r->attributes & ATTR_DB ? 0xffffffffull : 0xffffull;
	return offset > r->limit && last <= top;
}

uint64_t interp_linear(struct interp_vcpu *c, const struct insn *i, unsigned seg, uint64_t offset,
		       unsigned size_bytes, enum access_kind kind)
{
	const struct segment_register *r = &c->s->seg[seg];
	if (c->key & KEY_CODE64)
		return seg == SEG_FS || seg == SEG_GS ? r->base + offset : offset;
	if (unlikely(!is_within_limit(r, offset, size_bytes)))
		raise_segment(c, i, seg);
	if (c->key & KEY_PROTECTED && !(c->key & KEY_V86)) {
		bool is_code = r->attributes & ATTR_CODE;
		bool denied = kind == ACCESS_WRITE ? is_code || !(r->attributes & ATTR_WRITABLE)
						   : is_code && !(r->attributes & ATTR_READABLE);
		if (unlikely(denied || r->attributes & ATTR_UNUSABLE))
			raise_segment(c, i, seg);
	}
	return (uint32_t)(r->base + offset);
}
