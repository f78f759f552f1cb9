/*
 * Descriptors in the tables of guest memory, segment registers made from them, and stacks that are
 * used before they are switched to.
 *
 * Called by everything that loads a segment register or changes privilege. Reads of tables and of
 * the TSS are supervisor accesses at any CPL (SDM 3A 4.6.1).
 */
#include "engine/interp/system.h"

#define REAL_ATTRIBUTES (ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED)
#define DESCRIPTOR_ACCESSED (1u << 8)
#define DESCRIPTOR_BUSY (1u << 9)

uint64_t system_read(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		     unsigned size_bytes)
{
	return interp_read_system(c, i, wrap_linear(c->s, linear), size_bytes);
}

/* The table a selector points into; false if there is none. */
static bool find_table(const struct vcpu_state *s, unsigned selector, uint64_t *base,
		       uint64_t *limit)
{
	if (!(selector & 4)) {
		*base = s->gdtr.base;
		*limit = s->gdtr.limit;
		return true;
	}
	*base = s->ldtr.base;
	*limit = s->ldtr.limit;
	return (s->ldtr.attributes & ATTR_P) && !(s->ldtr.attributes & ATTR_UNUSABLE);
}

bool descriptor_read(struct interp_vcpu *c, const struct insn *i, unsigned selector,
		     struct descriptor *out)
{
	uint64_t base, limit;

	if (!find_table(c->s, selector, &base, &limit) || (selector | 7u) > limit)
		return false;
	out->address = wrap_linear(c->s, base + (selector & 0xfff8u));
	uint64_t v = interp_read_system(c, i, out->address, 8);
	out->low = (uint32_t)v;
	out->high = (uint32_t)(v >> 32);
	return true;
}

bool descriptor_read_upper(struct interp_vcpu *c, const struct insn *i, unsigned selector,
			   const struct descriptor *d, uint64_t *upper)
{
	uint64_t base, limit;

	if (!find_table(c->s, selector, &base, &limit) || (selector | 7u) + 8 > limit)
		return false;
	*upper = system_read(c, i, d->address + 8, 8);
	return true;
}

uint32_t descriptor_limit(const struct descriptor *d)
{
	uint32_t limit = (d->low & 0xffff) | (d->high & 0xf0000);

	return d->high & 1u << 23 ? limit << 12 | 0xfff : limit;
}

uint32_t descriptor_base(const struct descriptor *d)
{
	return d->low >> 16 | (d->high & 0xff) << 16 | (d->high & 0xff000000u);
}

struct segment_register descriptor_segment(const struct descriptor *d, unsigned selector)
{
	return (struct segment_register){
		.base = descriptor_base(d),
		.limit = descriptor_limit(d),
		.selector = (uint16_t)selector,
		.attributes = (uint16_t)(d->high >> 8 & 0xf0ff),
	};
}

void descriptor_mark_accessed(struct interp_vcpu *c, const struct insn *i, struct descriptor *d)
{
	if (d->high & DESCRIPTOR_ACCESSED)
		return;
	d->high |= DESCRIPTOR_ACCESSED;
	interp_write_system(c, i, wrap_linear(c->s, d->address + 5), 1, d->high >> 8 & 0xff);
}

void descriptor_set_busy(struct interp_vcpu *c, const struct insn *i, unsigned selector, bool busy)
{
	struct descriptor d;

	if (!descriptor_read(c, i, selector, &d))
		return;
	d.high = busy ? d.high | DESCRIPTOR_BUSY : d.high & ~DESCRIPTOR_BUSY;
	interp_write_system(c, i, wrap_linear(c->s, d.address + 5), 1, d.high >> 8 & 0xff);
}

bool segment_covers(const struct segment_register *g, uint64_t offset, unsigned size_bytes)
{
	uint64_t last = offset + size_bytes - 1;

	if (g->attributes & ATTR_UNUSABLE)
		return false;
	if ((g->attributes & (ATTR_CODE | ATTR_EXPAND_DOWN)) != ATTR_EXPAND_DOWN)
		return last <= g->limit && last >= offset;
	return offset > g->limit && last >= offset &&
	       last <= (g->attributes & ATTR_DB ? 0xffffffffull : 0xffffull);
}

struct segment_register segment_null(unsigned selector, unsigned dpl)
{
	return (struct segment_register){
		.selector = (uint16_t)selector,
		.attributes = (uint16_t)(ATTR_UNUSABLE | dpl << ATTR_DPL_SHIFT),
	};
}

/* Real mode changes base and rights and leaves the limit and the size as they were, which is what
 * "unreal mode" lives on; virtual-8086 mode fixes all of it. */
struct segment_register segment_real(const struct vcpu_state *s, unsigned seg, unsigned selector)
{
	struct segment_register g = s->seg[seg];
	bool was_usable = !(g.attributes & ATTR_UNUSABLE);

	g.selector = (uint16_t)selector;
	g.base = (uint64_t)(uint16_t)selector << 4;
	if (is_v86(s)) {
		g.limit = 0xffff;
		g.attributes = REAL_ATTRIBUTES | ATTR_DPL;
		return g;
	}
	if (!was_usable || g.limit < 0xffff)
		g.limit = 0xffff;
	g.attributes =
		(uint16_t)(REAL_ATTRIBUTES | (was_usable ? g.attributes & (ATTR_DB | ATTR_G) : 0));
	return g;
}

struct segment_register segment_check_stack(struct interp_vcpu *c, const struct insn *i,
					    unsigned selector, unsigned cpl, unsigned vector)
{
	struct descriptor d;

	if (is_null_selector(selector))
		raise_selector(c, i, vector, 0);
	if (!descriptor_read(c, i, selector, &d) || (selector & 3) != cpl ||
	    !descriptor_is_writable_data(&d) || descriptor_dpl(&d) != cpl)
		raise_selector(c, i, vector, selector);
	if (!descriptor_is_present(&d))
		raise_selector(c, i, VECTOR_SS, selector);
	descriptor_mark_accessed(c, i, &d);
	return descriptor_segment(&d, selector);
}

/* ---- stacks ---- */

static uint64_t stack_mask(const struct segment_register *ss, bool is_flat)
{
	if (is_flat)
		return ~0ull;
	return ss->attributes & ATTR_DB ? 0xffffffffull : 0xffffull;
}

struct stack stack_current(const struct interp_vcpu *c)
{
	const struct vcpu_state *s = c->s;
	bool is_flat = is_long(s) && (s->seg[SEG_CS].attributes & ATTR_L);

	return (struct stack){
		.ss = s->seg[SEG_SS],
		.sp = s->gpr[GPR_RSP],
		.mask = stack_mask(&s->seg[SEG_SS], is_flat),
		.is_flat = is_flat,
		.error = c->is_delivering ? 1 : 0,
	};
}

struct stack stack_new(const struct interp_vcpu *c, struct segment_register ss, uint64_t sp,
		       bool is_flat)
{
	return (struct stack){
		.ss = ss,
		.sp = sp,
		.mask = stack_mask(&ss, is_flat),
		.is_flat = is_flat,
		.is_system = true,
		.error = is_flat ? (c->is_delivering ? 1 : 0) : selector_error(c, ss.selector),
	};
}

static uint64_t stack_linear(struct interp_vcpu *c, const struct insn *i, const struct stack *k,
			     uint64_t sp, unsigned size_bytes)
{
	uint64_t offset = sp & k->mask;

	if (k->is_flat) {
		if (!vcpu_is_canonical(c->s, offset))
			interp_raise_error(c, i, VECTOR_SS, k->error);
		return offset;
	}
	if (!segment_covers(&k->ss, offset, size_bytes))
		interp_raise_error(c, i, VECTOR_SS, k->error);
	return (uint32_t)(k->ss.base + offset);
}

static uint64_t moved(const struct stack *k, uint64_t sp)
{
	return k->mask == 0xffff ? (k->sp & ~k->mask) | (sp & k->mask) : sp & k->mask;
}

void stack_push(struct interp_vcpu *c, const struct insn *i, struct stack *k, uint64_t value,
		unsigned size_bytes)
{
	uint64_t sp = moved(k, k->sp - size_bytes);
	uint64_t linear = stack_linear(c, i, k, sp, size_bytes);

	value &= mask_bytes(size_bytes);
	if (k->is_system)
		interp_write_system(c, i, linear, size_bytes, value);
	else
		data_write(c, i, linear, value, size_bytes);
	k->sp = sp;
}

uint64_t stack_pop(struct interp_vcpu *c, const struct insn *i, struct stack *k,
		   unsigned size_bytes)
{
	uint64_t linear = stack_linear(c, i, k, k->sp, size_bytes);
	uint64_t value = k->is_system ? interp_read_system(c, i, linear, size_bytes)
				      : data_read(c, i, linear, size_bytes);

	k->sp = moved(k, k->sp + size_bytes);
	return value;
}

void stack_pop_many(struct interp_vcpu *c, const struct insn *i, struct stack *k, uint64_t *values,
		    unsigned count, unsigned size_bytes)
{
	uint64_t last = k->sp + 8 * count - 1;
	struct mmu_fast_entry *e = &c->fast_read[mmu_fast_slot(k->sp >> PAGE_SHIFT)];

	if (!k->is_flat || k->is_system || size_bytes != 8 || e->tag != last >> PAGE_SHIFT ||
	    c->mmu->is_observed) {
		for (unsigned n = 0; n < count; n++)
			values[n] = stack_pop(c, i, k, size_bytes);
		return;
	}
	mmu_fast_hits(c->mmu, e, k->sp, 8 * count, count);
	for (unsigned n = 0; n < count; n++)
		__builtin_memcpy(&values[n], (uint8_t *)(uintptr_t)(k->sp + e->addend) + 8 * n, 8);
	k->sp += 8 * count;
}

void tss_inner_stack(struct interp_vcpu *c, const struct insn *i, unsigned cpl, unsigned ist,
		     unsigned *ss, uint64_t *sp)
{
	const struct segment_register *tr = &c->s->tr;
	bool is_wide = (tr->attributes & ATTR_TYPE & 8) != 0;
	unsigned width = is_long(c->s) ? 8 : is_wide ? 4 : 2;
	unsigned offset = is_long(c->s) ? (ist ? 28 + ist * 8 : 4 + cpl * 8)
					: width + cpl * 2 * width;
	unsigned last = offset + width - 1 + (is_long(c->s) ? 0 : 2);

	if ((tr->attributes & ATTR_UNUSABLE) || last > tr->limit)
		raise_selector(c, i, VECTOR_TS, tr->selector);
	*sp = system_read(c, i, tr->base + offset, width);
	*ss = 0;
	if (!is_long(c->s))
		*ss = (unsigned)system_read(c, i, tr->base + offset + width, 2);
}

/* ---- operands and targets ---- */

uint64_t data_read(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		   unsigned size_bytes)
{
	switch (size_bytes) {
	case 1: return interp_read_1(c, i, linear);
	case 2: return interp_read_2(c, i, linear);
	case 4: return interp_read_4(c, i, linear);
	default: return interp_read_8(c, i, linear);
	}
}

void data_write(struct interp_vcpu *c, const struct insn *i, uint64_t linear, uint64_t value,
		unsigned size_bytes)
{
	switch (size_bytes) {
	case 1: interp_write_1(c, i, linear, (uint8_t)value); break;
	case 2: interp_write_2(c, i, linear, (uint16_t)value); break;
	case 4: interp_write_4(c, i, linear, (uint32_t)value); break;
	default: interp_write_8(c, i, linear, value); break;
	}
}

void register_write(struct vcpu_state *s, unsigned reg, uint64_t value, unsigned size_bytes)
{
	if (size_bytes >= 4)
		s->gpr[reg] = value & mask_bytes(size_bytes);
	else
		s->gpr[reg] = (s->gpr[reg] & ~mask_bytes(size_bytes)) |
			      (value & mask_bytes(size_bytes));
}

void check_target(struct interp_vcpu *c, const struct insn *i, const struct segment_register *cs,
		  uint64_t rip)
{
	bool is_64 = is_long(c->s) && (cs->attributes & ATTR_L);

	if (is_64 ? !vcpu_is_canonical(c->s, rip) : rip > cs->limit)
		interp_raise_error(c, i, VECTOR_GP, c->is_delivering ? 1 : 0);
}

void load_code_segment(struct interp_vcpu *c, struct segment_register cs, uint64_t rip)
{
	struct vcpu_state *s = c->s;

	s->seg[SEG_CS] = cs;
	if (is_protected(s))
		s->cpl = cs.selector & 3;
	s->rip = is_long(s) && (cs.attributes & ATTR_L) ? rip : (uint32_t)rip;
	c->taken = 2;
}

void arrive(struct interp_vcpu *c, const struct stack *k, struct segment_register cs, uint64_t rip)
{
	if (k)
		c->s->gpr[GPR_RSP] = k->sp;
	load_code_segment(c, cs, rip);
	interp_mode_changed(c);
}
