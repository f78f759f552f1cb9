/*
 * Where addresses come from: a walk through the trace that knows of each general register what it
 * is made of, a value that nothing is known of (its root) and a constant.
 *
 * Two accesses whose addresses come from the same roots, added up in the same way, lie a known
 * distance apart, whichever registers their instructions name: that is their origin. The walk knows
 * what moves RSP, copies of registers, and additions of constants; all other results are new
 * roots. An instruction that may call C ends what is known, so that no origin is found on both
 * sides of one.
 *
 * Of a root the walk knows how large it can be, too (bound.c). An access whose address is a sum of
 * something and of what is small, the index of a table, is one of the table: it begins anywhere in
 * a range, and its origin is that of the table, if that lies in one page.
 */
#include "engine/trans/translate_private.h"

struct value {
	unsigned root;
	int64_t plus;
	uint64_t most; /* that the root can be */
};

struct origin {
	unsigned base, index; /* roots; 0: none */
	uint8_t shift, seg;
	bool is_relative; /* constant, but it goes with the code's address */
	uint64_t page;	  /* of a constant address */
};

struct values {
	struct value gpr[GPR_COUNT];
	unsigned root_count;
	struct origin origins[BLOCK_INSNS_MAX + 1]; /* 0 is none */
	unsigned origin_first, origin_count;
	const uint64_t *present; /* of the roots 1 to GPR_COUNT: what the registers are now */
};

static void forget(struct values *v, int guest, uint64_t most)
{
	v->gpr[guest] = (struct value){.root = ++v->root_count, .most = most};
}

static void forget_all(struct values *v)
{
	for (int guest = 0; guest < GPR_COUNT; guest++)
		forget(v, guest, UINT64_MAX);
	v->origin_first = v->origin_count;
}

static unsigned find_origin(struct values *v, const struct origin *p)
{
	for (unsigned k = v->origin_first; k < v->origin_count; k++) {
		const struct origin *o = &v->origins[k];
		if (o->base == p->base && o->index == p->index && o->shift == p->shift &&
		    o->seg == p->seg && o->page == p->page && o->is_relative == p->is_relative)
			return k;
	}
	v->origins[v->origin_count] = *p;
	return v->origin_count++;
}

/* A displacement that still is one a window's length further on. */
#define DISP_MAX (INT32_MAX - 2 * (int64_t)PAGE_SIZE_BYTES)
/* No table is longer. */
#define RANGE_MAX (int64_t) PAGE_SIZE_BYTES

/* What the origin is now, if that is known. */
static bool find_present(const struct values *v, const struct origin *p, uint64_t *out)
{
	*out = 0;
	if (p->base > GPR_COUNT || p->index > GPR_COUNT || p->seg != SEG_DS)
		return false;
	if (p->base)
		*out += v->present[p->base - 1];
	if (p->index)
		*out += v->present[p->index - 1] << p->shift;
	return true;
}

/* The origin of an access that begins in the range from `a` on. False: nothing is known of it. */
static bool describe(const struct values *v, const struct guest_address *a, struct access *out,
		     struct origin *p)
{
	bool has_base = a->seg == SEG_FS || a->seg == SEG_GS;
	int64_t at = a->disp + out->skew;
	*p = (struct origin){.seg = has_base ? a->seg : SEG_DS,
			     .shift = a->shift,
			     .is_relative = a->is_relative};
	if (a->is_constant && !has_base) {
		p->page = (uint64_t)at >> PAGE_SHIFT;
		if ((uint64_t)(at + out->range + out->size_bytes - 1) >> PAGE_SHIFT != p->page)
			return false;
	} else if (at > DISP_MAX || at < -DISP_MAX) {
		return false;
	}
	if (a->base != GPR_NONE) {
		p->base = v->gpr[a->base].root;
		at += v->gpr[a->base].plus;
	}
	if (a->index != GPR_NONE) {
		p->index = v->gpr[a->index].root;
		at += (int64_t)((uint64_t)v->gpr[a->index].plus << a->shift);
	}
	out->at = at;
	out->is_long = out->range || (!p->base && !p->index && !has_base);
	out->is_present = find_present(v, p, &out->present);
	return true;
}

static bool is_bounded(const struct values *v, int guest, const struct guest_address *a)
{
	if (guest == GPR_NONE || guest == GPR_RSP) /* which may still be to be moved */
		return false;
	const struct value *r = &v->gpr[guest];
	return r->most < PAGE_SIZE_BYTES && r->plus > -RANGE_MAX && r->plus < RANGE_MAX &&
	       (!r->plus || !a->is_code32); /* where a register would not be below 0 */
}

/* An access of a table. False: none that is known to lie in one page. */
static bool describe_range(const struct values *v, const struct guest_address *a,
			   struct access *out, struct origin *p)
{
	int bounded = is_bounded(v, a->index, a) ? a->index : a->base;
	if (a->base == a->index || a->seg == SEG_FS || a->seg == SEG_GS || out->is_aligned ||
	    !is_bounded(v, bounded, a))
		return false;
	const struct value *r = &v->gpr[bounded];
	unsigned shift = bounded == a->index ? a->shift : 0;
	struct guest_address table = access_without(a, bounded);
	out->bounded = (int8_t)bounded;
	out->shift = (uint8_t)shift;
	out->range = (uint32_t)r->most << shift;
	out->skew = (int32_t)(r->plus * (1 << shift));
	if (describe(v, &table, out, p) && (out->range + out->size_bytes <= WINDOW_BYTES_MAX ||
					    access_is_in_page(out, out->at, access_end(out))))
		return true;
	out->bounded = GPR_NONE;
	out->range = 0;
	out->skew = 0;
	return false;
}

static void note_access(struct values *v, const struct copied *i, struct access *out)
{
	struct origin p;
	*out = (struct access){.size_bytes = i->size_bytes,
			       .is_write = i->is_write,
			       .is_aligned = i->is_aligned,
			       .bounded = GPR_NONE};
	if (i->a.is_32bit && !i->a.is_code32)
		return;
	if (i->is_aligned && i->a.is_constant && i->a.disp & (i->size_bytes - 1))
		return; /* it faults */
	if (describe_range(v, &i->a, out, &p) || describe(v, &i->a, out, &p))
		out->origin = (uint16_t)find_origin(v, &p);
}

static bool is_register(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/* As value_find_sum(), for a sum of so many bits. */
static bool find_sum(const struct guest_insn *g, unsigned bits, int *to, int *from, int64_t *plus)
{
	const ZydisDecodedOperand *o = g->operands;
	struct guest_address a;
	if (!is_register(&o[0]) || o[0].size != bits)
		return false;
	*to = *from = general_register(o[0].reg.value);
	if (*to < 0)
		return false;
	*plus = 1;
	switch (g->d.mnemonic) {
	case ZYDIS_MNEMONIC_INC: return true;
	case ZYDIS_MNEMONIC_DEC: *plus = -1; return true;
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
		*plus = g->d.mnemonic == ZYDIS_MNEMONIC_ADD ? o[1].imm.value.s : -o[1].imm.value.s;
		return o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	case ZYDIS_MNEMONIC_MOV:
		*plus = 0;
		*from = is_register(&o[1]) ? general_register(o[1].reg.value) : GPR_NONE;
		return *from >= 0;
	case ZYDIS_MNEMONIC_LEA:
		if (!address_of(g, &o[1], &a) || (a.is_32bit && !a.is_code32))
			return false;
		*plus = a.disp;
		*from = a.base;
		return a.base != GPR_NONE && a.index == GPR_NONE;
	default: return false;
	}
}

bool value_find_sum(const struct guest_insn *g, int *to, int *from, int64_t *plus)
{
	return find_sum(g, is_code32(g) ? 32 : 64, to, from, plus);
}

static uint64_t most_of(const struct value *r)
{
	return r->plus < 0 || r->most > INT64_MAX ? UINT64_MAX : r->most + (uint64_t)r->plus;
}

/* A sum of 32 bits in 64-bit code is one of 64 if it cannot be larger; CDQE's kin likewise. */
static bool find_narrow_sum(const struct values *v, const struct guest_insn *g, int *to, int *from,
			    int64_t *plus)
{
	const ZydisDecodedOperand *o = g->operands;
	uint64_t limit = UINT32_MAX;
	if (is_code32(g))
		return false;
	*plus = 0;
	if (g->d.mnemonic == ZYDIS_MNEMONIC_CDQE) {
		*to = *from = GPR_RAX;
		limit = INT32_MAX;
	} else if (g->d.mnemonic == ZYDIS_MNEMONIC_MOVSXD && o[0].size == 64 &&
		   is_register(&o[1])) {
		*to = general_register(o[0].reg.value);
		*from = general_register(o[1].reg.value);
		limit = INT32_MAX;
	} else if (!find_sum(g, 32, to, from, plus)) {
		return false;
	}
	struct value sum = v->gpr[*from];
	sum.plus += *plus;
	return most_of(&sum) <= limit;
}

/* What the instruction leaves in the registers. */
static void step_registers(struct values *v, const struct guest_insn *g, unsigned written)
{
	int to = 0, from = 0;
	int64_t plus = 0;
	uint64_t most[GPR_COUNT];
	bool is_sum = value_find_sum(g, &to, &from, &plus) ||
		      find_narrow_sum(v, g, &to, &from, &plus);
	struct value sum = v->gpr[is_sum ? from : 0];
	for (int guest = 0; guest < GPR_COUNT; guest++)
		most[guest] = most_of(&v->gpr[guest]);
	bound_step(g, most);
	for (int guest = 0; guest < GPR_COUNT; guest++)
		if (written & 1u << guest)
			forget(v, guest, most[guest]);
	if (!is_sum)
		return;
	sum.plus += plus;
	v->gpr[to] = sum;
}

/* What is pushed or popped, and where RSP goes. */
static bool step_stack(struct values *v, const struct guest_insn *g, struct access *out)
{
	int bytes = is_code32(g) ? 4 : 8;
	enum stack_step kind = stack_step_of(g);
	bool is_leave = g->d.mnemonic == ZYDIS_MNEMONIC_LEAVE && g->d.operand_width == 8 * bytes;
	struct copied i = {.size_bytes = (uint8_t)bytes,
			   .is_write = kind == STACK_PUSH,
			   .a = stack_address(g, is_leave ? GPR_RBP : GPR_RSP,
					      kind == STACK_PUSH ? -bytes : 0)};
	if (kind == STACK_OTHER && !is_leave)
		return false;
	note_access(v, &i, out);
	if (kind == STACK_PUSH) {
		v->gpr[GPR_RSP].plus -= bytes;
		return true;
	}
	v->gpr[GPR_RSP] = v->gpr[i.a.base];
	v->gpr[GPR_RSP].plus += bytes;
	if (is_leave)
		forget(v, GPR_RBP, UINT64_MAX);
	else if (kind == STACK_POP)
		forget(v, general_register(g->operands[0].reg.value), UINT64_MAX);
	return true;
}

/* A branch in the middle of a block: the bytes of a checked page are not those any more that the
 * block was made of, which its translation will find when it is entered. */
static bool is_stray_branch(const struct work *w, const struct guest_insn *g)
{
	return g->d.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && !g->goes_on &&
	       g->index + 1u != w->count;
}

/* False: it may call C. */
static bool step(struct values *v, const struct work *w, const struct guest_insn *g,
		 struct access *out)
{
	struct copied i = {0};
	*out = (struct access){0};
	if (!g->is_decoded)
		return false;
	if (is_stray_branch(w, g))
		return false;
	if (is_nothing(g) || step_stack(v, g, out))
		return true;
	if (g->goes_on)
		return branch_is_jcc(&g->d) || branch_is_direct(g);
	if (!copy_describe(w, g, &i))
		return false;
	if (i.has_memory)
		note_access(v, &i, out);
	step_registers(v, g, i.written);
	return true;
}

void value_find_accesses(struct work *w)
{
	struct values v = {.origin_count = 1, .present = w->t->c->s->gpr};
	forget_all(&v);
	for (unsigned k = 0; k < w->count; k++)
		if (!step(&v, w, &w->trans->insns[k], &w->accesses[k]))
			forget_all(&v);
}
