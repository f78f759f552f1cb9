/*
 * String instructions: MOVS, STOS, LODS, CMPS, SCAS, with and without REP.
 *
 * An iteration commits as a whole, so a fault in the middle of a REP leaves the registers at the
 * iteration that faulted and the instruction can be restarted (SDM 2B REP). Runs of MOVS and STOS
 * that stay within a page of plain RAM are done in one piece. A long REP gives way to the run loop
 * whenever the count left is a multiple of REP_PIECE, so that interrupts and time get their turn:
 * the pieces depend on the count alone, and are the same when an instruction starts again in the
 * middle of one.
 */
#include <string.h>

#include "engine/interp/interp.h"

#define REP_PIECE 4096u

static uint64_t address_mask(const struct insn *i)
{
	return mask_bytes(i->address_bytes);
}

/* Adds to a register within the address size: 16-bit keeps the upper bits, 32-bit clears them. */
static void advance(struct vcpu_state *s, const struct insn *i, unsigned r, uint64_t delta)
{
	uint64_t mask = address_mask(i);
	uint64_t value = (s->gpr[r] + delta) & mask;
	s->gpr[r] = mask == 0xffff ? (s->gpr[r] & ~mask) | value : value;
}

static uint64_t step_of(const struct vcpu_state *s, const struct insn *i)
{
	return s->rflags & FLAG_DF ? -(uint64_t)i->op_bytes : i->op_bytes;
}

static uint64_t source(struct interp_vcpu *c, const struct insn *i, enum access_kind kind)
{
	return interp_linear(c, i, i->seg, c->s->gpr[GPR_RSI] & address_mask(i), i->op_bytes, kind);
}

static uint64_t destination(struct interp_vcpu *c, const struct insn *i, enum access_kind kind)
{
	return interp_linear(c, i, SEG_ES, c->s->gpr[GPR_RDI] & address_mask(i), i->op_bytes, kind);
}

static uint64_t read_element(struct interp_vcpu *c, const struct insn *i, uint64_t linear)
{
	switch (i->op_bytes) {
	case 1: return interp_read_1(c, i, linear);
	case 2: return interp_read_2(c, i, linear);
	case 4: return interp_read_4(c, i, linear);
	default: return interp_read_8(c, i, linear);
	}
}

static void write_element(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			  uint64_t value)
{
	switch (i->op_bytes) {
	case 1: interp_write_1(c, i, linear, (uint8_t)value); break;
	case 2: interp_write_2(c, i, linear, (uint16_t)value); break;
	case 4: interp_write_4(c, i, linear, (uint32_t)value); break;
	default: interp_write_8(c, i, linear, value); break;
	}
}

static void set_accumulator(struct vcpu_state *s, const struct insn *i, uint64_t value)
{
	if (i->op_bytes >= 4)
		s->gpr[GPR_RAX] = value;
	else
		memcpy(&s->gpr[GPR_RAX], &value, i->op_bytes);
}

/* ---- one iteration each ---- */

static void one_movs(struct interp_vcpu *c, const struct insn *i)
{
	struct vcpu_state *s = c->s;
	uint64_t from = source(c, i, ACCESS_READ);
	uint64_t to = destination(c, i, ACCESS_WRITE);
	write_element(c, i, to, read_element(c, i, from));
	advance(s, i, GPR_RSI, step_of(s, i));
	advance(s, i, GPR_RDI, step_of(s, i));
}

static void one_stos(struct interp_vcpu *c, const struct insn *i)
{
	write_element(c, i, destination(c, i, ACCESS_WRITE), c->s->gpr[GPR_RAX]);
	advance(c->s, i, GPR_RDI, step_of(c->s, i));
}

static void one_lods(struct interp_vcpu *c, const struct insn *i)
{
	set_accumulator(c->s, i, read_element(c, i, source(c, i, ACCESS_READ)));
	advance(c->s, i, GPR_RSI, step_of(c->s, i));
}

/* Flags of a - b at the operand size, by the host's own comparison of the operands moved to the top
 * of a register: AF needs the low nibble, so the sizes are compared as they are. */
static void compare(struct vcpu_state *s, uint64_t a, uint64_t b, unsigned size_bytes)
{
	uint32_t ax;
	switch (size_bytes) {
	case 1:
		__asm__("cmpb %b2, %b1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc");
		break;
	case 2:
		__asm__("cmpw %w2, %w1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc");
		break;
	case 4:
		__asm__("cmpl %k2, %k1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc");
		break;
	default:
		__asm__("cmpq %2, %1\n\tlahf\n\tseto %%al" : "=&a"(ax) : "r"(a), "r"(b) : "cc");
		break;
	}
	s->flags_low = (uint8_t)(ax >> 8);
	s->flags_of = (uint8_t)ax;
}

static void one_cmps(struct interp_vcpu *c, const struct insn *i)
{
	struct vcpu_state *s = c->s;
	uint64_t a = read_element(c, i, source(c, i, ACCESS_READ));
	uint64_t b = read_element(c, i, destination(c, i, ACCESS_READ));
	compare(s, a, b, i->op_bytes);
	advance(s, i, GPR_RSI, step_of(s, i));
	advance(s, i, GPR_RDI, step_of(s, i));
}

static void one_scas(struct interp_vcpu *c, const struct insn *i)
{
	uint64_t b = read_element(c, i, destination(c, i, ACCESS_READ));
	compare(c->s, c->s->gpr[GPR_RAX], b, i->op_bytes);
	advance(c->s, i, GPR_RDI, step_of(c->s, i));
}

/* ---- many iterations at once ---- */

/* How many elements fit from `linear` to the end of its page, at most `count`. */
static uint64_t room(uint64_t linear, unsigned size_bytes, uint64_t count)
{
	uint64_t fit = (PAGE_SIZE_BYTES - (linear & PAGE_OFFSET_MASK)) / size_bytes;
	return fit < count ? fit : count;
}

static struct mmu_fast_entry *fast(struct mmu_fast_entry *map, uint64_t linear)
{
	struct mmu_fast_entry *e = &map[mmu_fast_slot(linear >> PAGE_SHIFT)];
	return e->tag == linear >> PAGE_SHIFT ? e : NULL;
}

/* Counts `count` accesses from `linear` on, in the entry's page, as single ones would. */
static void count_uses(struct interp_vcpu *c, const struct insn *i, struct mmu_fast_entry *e,
		       uint64_t linear, uint64_t count, bool is_write)
{
	mmu_fast_hits(c->mmu, e, linear, count * i->op_bytes, count);
	if (is_write)
		c->write_count += count;
}

/* Forward, and with addresses that do not wrap inside a page. */
static bool can_bulk(const struct interp_vcpu *c, const struct insn *i)
{
	bool is_simple = c->key & KEY_FLAT ? i->address_bytes == 4
					   : i->mode == 64 && i->address_bytes == 8;
	return is_simple && !(c->s->rflags & FLAG_DF);
}

/* Forward copies in 64-bit code, or flat segments, that stay in two pages of plain RAM; returns the
 * elements copied, 0 if it cannot. */
static uint64_t bulk_movs(struct interp_vcpu *c, const struct insn *i, uint64_t count)
{
	struct vcpu_state *s = c->s;
	if (!can_bulk(c, i))
		return 0;
	uint64_t from = source(c, i, ACCESS_READ), to = destination(c, i, ACCESS_WRITE);
	struct mmu_fast_entry *r = fast(c->fast_read, from), *w = fast(c->fast_write, to);
	if (!r || !w)
		return 0;
	count = room(from, i->op_bytes, room(to, i->op_bytes, count));
	uint8_t *target = (uint8_t *)(uintptr_t)(to + w->addend);
	const uint8_t *origin = (const uint8_t *)(uintptr_t)(from + r->addend);
	uint64_t size = count * i->op_bytes;
	if (target > origin && target < origin + size)
		return 0; /* overlapping forward: a pattern fill, element by element */
	memmove(target, origin, size);
	count_uses(c, i, r, from, count, false);
	count_uses(c, i, w, to, count, true);
	advance(s, i, GPR_RSI, size);
	advance(s, i, GPR_RDI, size);
	return count;
}

/* By the host's own instruction. */
static void fill(uint8_t *target, uint64_t value, uint64_t count, unsigned size_bytes)
{
	switch (size_bytes) {
	case 1:
		__asm__ volatile("rep stosb" : "+D"(target), "+c"(count) : "a"(value) : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw" : "+D"(target), "+c"(count) : "a"(value) : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl" : "+D"(target), "+c"(count) : "a"(value) : "memory");
		break;
	default: __asm__ volatile("rep stosq" : "+D"(target), "+c"(count) : "a"(value) : "memory");
	}
}

static uint64_t bulk_stos(struct interp_vcpu *c, const struct insn *i, uint64_t count)
{
	struct vcpu_state *s = c->s;
	if (!can_bulk(c, i))
		return 0;
	uint64_t to = destination(c, i, ACCESS_WRITE);
	struct mmu_fast_entry *w = fast(c->fast_write, to);
	if (!w)
		return 0;
	count = room(to, i->op_bytes, count);
	fill((uint8_t *)(uintptr_t)(to + w->addend), s->gpr[GPR_RAX], count, i->op_bytes);
	count_uses(c, i, w, to, count, true);
	advance(s, i, GPR_RDI, count * i->op_bytes);
	return count;
}

/* ---- REP ---- */

enum string_kind { STRING_MOVS, STRING_STOS, STRING_LODS, STRING_CMPS, STRING_SCAS };

static void iterate(struct interp_vcpu *c, const struct insn *i)
{
	switch (i->sub) {
	case STRING_MOVS: one_movs(c, i); break;
	case STRING_STOS: one_stos(c, i); break;
	case STRING_LODS: one_lods(c, i); break;
	case STRING_CMPS: one_cmps(c, i); break;
	default: one_scas(c, i); break;
	}
}

/* Does REPE or REPNE end after this comparison? */
static bool ends_early(const struct vcpu_state *s, const struct insn *i)
{
	if (i->sub != STRING_CMPS && i->sub != STRING_SCAS)
		return false;
	bool zero = s->flags_low & 0x40;
	return i->flags & INSN_REPNE ? zero : !zero;
}

static uint64_t remaining(const struct vcpu_state *s, const struct insn *i)
{
	return s->gpr[GPR_RCX] & address_mask(i);
}

HANDLER(string_once)
{
	iterate(c, i);
	NEXT;
}

HANDLER(string_rep)
{
	/* Single steps trap after each iteration. */
	uint64_t piece = s->rflags & FLAG_TF ? 1 : (remaining(s, i) - 1) % REP_PIECE + 1;
	/* A fault of REP CMPS or SCAS finds the flags as they were before the instruction (SDM 2B
	 * REP). */
	const uint8_t flags_low = s->flags_low, flags_of = s->flags_of;
	while (remaining(s, i) && piece) {
		uint64_t count = remaining(s, i) < piece ? remaining(s, i) : piece, done = 0;
		if (i->sub == STRING_MOVS)
			done = bulk_movs(c, i, count);
		else if (i->sub == STRING_STOS)
			done = bulk_stos(c, i, count);
		if (!done) {
			s->flags_low = flags_low;
			s->flags_of = flags_of;
			iterate(c, i);
			done = 1;
		}
		advance(s, i, GPR_RCX, -done);
		piece -= done;
		if (ends_early(s, i))
			NEXT;
		if (unlikely(s->pending_db))
			break;
		/* What an effect outside RAM may have raised is looked at between iterations. */
		if (unlikely(c->is_alone && c->attention & (ATTENTION_INTERRUPT | ATTENTION_EXIT)))
			break;
	}
	if (likely(!remaining(s, i)))
		NEXT;
	uint64_t rip = s->gpr[REG_BLOCK] + i->offset;
	s->rip = i->mode == 64 ? rip : (uint32_t)rip;
	s->rflags |= FLAG_RF; /* what comes between finds the instruction begun (SDM 3B 17.3.1.1) */
	c->taken = 2;
	interp_cut(c, i);
}

/* ---- lowering ---- */

static bool string(struct lowering *l, enum string_kind kind, unsigned size_bytes)
{
	struct insn *out = l->out;
	out->op_bytes = (uint8_t)size_bytes;
	out->sub = (uint8_t)kind;
	out->seg = SEG_DS;
	for (unsigned n = 0; n < l->d->operand_count; n++) {
		const ZydisDecodedOperand *o = &l->operands[n];
		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		ZydisRegister base = o->mem.base;
		bool is_source = base == ZYDIS_REGISTER_RSI || base == ZYDIS_REGISTER_ESI ||
				 base == ZYDIS_REGISTER_SI;
		if (is_source)
			lower_memory(l, o);
	}
	out->flags &= (uint8_t) ~(INSN_MEMORY | INSN_PLAIN | INSN_FLAT);
	out->exec = out->flags & (INSN_REP | INSN_REPNE) ? string_rep : string_once;
	return true;
}

bool lower_string(struct lowering *l)
{
	/* MOVSD and CMPSD are names of SSE instructions too. */
	if (l->d->meta.category != ZYDIS_CATEGORY_STRINGOP)
		return false;
	switch (l->d->mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB: return string(l, STRING_MOVS, 1);
	case ZYDIS_MNEMONIC_MOVSW: return string(l, STRING_MOVS, 2);
	case ZYDIS_MNEMONIC_MOVSD: return string(l, STRING_MOVS, 4);
	case ZYDIS_MNEMONIC_MOVSQ: return string(l, STRING_MOVS, 8);
	case ZYDIS_MNEMONIC_STOSB: return string(l, STRING_STOS, 1);
	case ZYDIS_MNEMONIC_STOSW: return string(l, STRING_STOS, 2);
	case ZYDIS_MNEMONIC_STOSD: return string(l, STRING_STOS, 4);
	case ZYDIS_MNEMONIC_STOSQ: return string(l, STRING_STOS, 8);
	case ZYDIS_MNEMONIC_LODSB: return string(l, STRING_LODS, 1);
	case ZYDIS_MNEMONIC_LODSW: return string(l, STRING_LODS, 2);
	case ZYDIS_MNEMONIC_LODSD: return string(l, STRING_LODS, 4);
	case ZYDIS_MNEMONIC_LODSQ: return string(l, STRING_LODS, 8);
	case ZYDIS_MNEMONIC_CMPSB: return string(l, STRING_CMPS, 1);
	case ZYDIS_MNEMONIC_CMPSW: return string(l, STRING_CMPS, 2);
	case ZYDIS_MNEMONIC_CMPSD: return string(l, STRING_CMPS, 4);
	case ZYDIS_MNEMONIC_CMPSQ: return string(l, STRING_CMPS, 8);
	case ZYDIS_MNEMONIC_SCASB: return string(l, STRING_SCAS, 1);
	case ZYDIS_MNEMONIC_SCASW: return string(l, STRING_SCAS, 2);
	case ZYDIS_MNEMONIC_SCASD: return string(l, STRING_SCAS, 4);
	case ZYDIS_MNEMONIC_SCASQ: return string(l, STRING_SCAS, 8);
	default: return false;
	}
}
