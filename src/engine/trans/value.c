/*
 * Where addresses come from: a walk through the trace that knows of each general register what it
 * is made of, a value that nothing is known of (its root) and a constant.
 *
 * Two accesses whose addresses come from the same roots, added up in the same way, lie a known
 * distance apart, whichever registers their instructions name: that is their origin. The walk knows
 * what moves RSP, copies of registers, and additions of constants; all other results are new
 * roots. An instruction that may call C ends what is known, so that no origin is found on both
 * sides of one.
 */
#include "engine/trans/translate_private.h"

struct value {
	unsigned root;
	int64_t plus;
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
};

static void forget(struct values *v, int guest)
{
	v->gpr[guest] = (struct value){.root = ++v->root_count};
}

static void forget_all(struct values *v)
{
	for (int guest = 0; guest < GPR_COUNT; guest++)
		forget(v, guest);
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
#define DISP_MAX (INT32_MAX - (int64_t)PAGE_SIZE_BYTES)

static void note_access(struct values *v, const struct guest_address *a, unsigned size_bytes,
			bool is_write, struct access *out)
{
	bool has_base = a->seg == SEG_FS || a->seg == SEG_GS;
	struct origin p = {.seg = has_base ? a->seg : SEG_DS,
			   .shift = a->shift,
			   .is_relative = a->is_relative};
	int64_t at = a->disp;
	*out = (struct access){.size_bytes = (uint8_t)size_bytes, .is_write = is_write};
	if (a->is_32bit && !a->is_code32)
		return;
	if (a->is_constant && !has_base) {
		p.page = (uint64_t)at >> PAGE_SHIFT;
		if ((uint64_t)(at + size_bytes - 1) >> PAGE_SHIFT != p.page)
			return;
	} else if (at > DISP_MAX || at < -DISP_MAX) {
		return;
	}
	if (a->base != GPR_NONE) {
		p.base = v->gpr[a->base].root;
		at += v->gpr[a->base].plus;
	}
	if (a->index != GPR_NONE) {
		p.index = v->gpr[a->index].root;
		at += (int64_t)((uint64_t)v->gpr[a->index].plus << a->shift);
	}
	out->origin = (uint16_t)find_origin(v, &p);
	out->at = at;
}

static bool is_register(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER;
}

bool value_find_sum(const struct guest_insn *g, int *to, int *from, int64_t *plus)
{
	const ZydisDecodedOperand *o = g->operands;
	struct guest_address a;
	if (!is_register(&o[0]) || o[0].size != (is_code32(g) ? 32 : 64))
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

/* What the instruction leaves in the registers. */
static void step_registers(struct values *v, const struct guest_insn *g, unsigned written)
{
	int to = 0, from = 0;
	int64_t plus = 0;
	bool is_sum = value_find_sum(g, &to, &from, &plus);
	struct value sum = v->gpr[is_sum ? from : 0];
	for (int guest = 0; guest < GPR_COUNT; guest++)
		if (written & 1u << guest)
			forget(v, guest);
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
	struct guest_address a =
		stack_address(g, is_leave ? GPR_RBP : GPR_RSP, kind == STACK_PUSH ? -bytes : 0);
	if (kind == STACK_OTHER && !is_leave)
		return false;
	note_access(v, &a, (unsigned)bytes, kind == STACK_PUSH, out);
	if (kind == STACK_PUSH) {
		v->gpr[GPR_RSP].plus -= bytes;
		return true;
	}
	v->gpr[GPR_RSP] = v->gpr[a.base];
	v->gpr[GPR_RSP].plus += bytes;
	if (is_leave)
		forget(v, GPR_RBP);
	else if (kind == STACK_POP)
		forget(v, general_register(g->operands[0].reg.value));
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
	if (i.has_memory) {
		note_access(v, &i.a, i.size_bytes, i.is_write, out);
		out->is_aligned = i.is_aligned;
		if (i.is_aligned && i.a.is_constant && i.a.disp & (i.size_bytes - 1))
			out->origin = 0; /* it faults */
	}
	step_registers(v, g, i.written);
	return true;
}

void value_find_accesses(struct work *w)
{
	struct values v = {.origin_count = 1};
	forget_all(&v);
	for (unsigned k = 0; k < w->count; k++)
		if (!step(&v, w, &w->trans->insns[k], &w->accesses[k]))
			forget_all(&v);
}
