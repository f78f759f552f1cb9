/*
 * Random instructions one after the other: an engine that translates blocks keeps registers and
 * flags where the next instruction wants them, and must give them up at a fault.
 *
 * A step is a random instruction with what makes it harmless wherever it is reached from: the
 * registers that its addresses depend on are loaded right before it, the word that it loads flags
 * or an address from is stored, and a branch leads some bytes ahead, over instructions that would
 * show. All other registers flow from step to step. Where the processor leaves flags undefined they
 * are given a value, or the next step that reads them would differ legally. Some steps write to
 * code that comes after or, in a loop, came before; some are entered in their middle; some are
 * several accesses off one register, or off several, or of a table, perhaps in a loop of their own.
 * The sequence grows by steps that end without a
 * fault on the host, now and then by a last one that does not; it may be a loop, may cross a page,
 * and may run off the end of the mapped code.
 *
 * Registers used for addresses are never the result of earlier steps, so however wrong a guest runs
 * and whatever the steps compute, on the host nothing is touched outside the sandbox.
 */
#include "sequence.h"

#include <stdio.h>
#include <string.h>

#include "classify.h"
#include "values.h"

#define PREPARATION_BYTES 64 /* before the instruction itself */
#define BRANCH_BYTES 32	     /* from a branch to where it leads */
#define STEP_BYTES 256
#define LOOP_MAX 60 /* times round, so that a loop becomes warm */
#define REX_W 0x48

struct builder {
	struct generator *g;
	struct rng rng;
	struct sequence *s;
	unsigned loop_at; /* offset; 0: no loop */
};

static void put(struct sequence *s, const void *bytes, unsigned count)
{
	memcpy(s->bytes + s->length, bytes, count);
	s->length += count;
}

static void put_byte(struct sequence *s, unsigned byte)
{
	s->bytes[s->length++] = (uint8_t)byte;
}

static void put_word(struct sequence *s, uint64_t value, unsigned size_bytes)
{
	put(s, &value, size_bytes);
}

static void put_load(struct sequence *s, unsigned gpr, uint64_t value)
{
	if (s->mode == 64)
		put_byte(s, REX_W | gpr >> 3);
	put_byte(s, 0xb8 | (gpr & 7));
	put_word(s, value, s->mode == 64 ? 8 : 4);
}

/* The displacement of an operand at a fixed address: relative in 64-bit code, to the end of an
 * instruction with `behind` more bytes. */
static void put_address(struct sequence *s, uint64_t address, unsigned behind)
{
	uint64_t end = s->rip + s->length + 4 + behind;
	put_word(s, s->mode == 64 ? address - end : address, 4);
}

/* mov dword [address], value; no flags, no registers. */
static void put_store(struct sequence *s, uint64_t address, uint32_t value)
{
	put_byte(s, 0xc7);
	put_byte(s, 0x05);
	put_address(s, address, 4);
	put_word(s, value, 4);
}

/* ---- steps --------------------------------------------------------------------------------- */

static uint16_t gpr_bit(ZydisRegister r)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
	if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
		return 0;
	return (uint16_t)(1u << (whole - ZYDIS_REGISTER_RAX));
}

static bool is_loop_instruction(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_JRCXZ:
	case ZYDIS_MNEMONIC_JECXZ: return true;
	default: return false;
	}
}

/* The registers whose value the generator chose for a reason. */
static uint16_t fixed_registers(const struct test_case *t)
{
	uint16_t fixed = 0;
	for (unsigned k = 0; k < t->d.operand_count; k++) {
		const ZydisDecodedOperand *o = &t->operands[k];
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
			fixed |= gpr_bit(o->mem.base) | gpr_bit(o->mem.index);
		/* The count, or how far BT reaches, or where a branch leads. */
		else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && k < 2 &&
			 (t->d.operand_count_visible == 1 ||
			  t->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY) &&
			 (t->d.meta.branch_type || t->d.mnemonic == ZYDIS_MNEMONIC_BT ||
			  t->d.mnemonic == ZYDIS_MNEMONIC_BTS ||
			  t->d.mnemonic == ZYDIS_MNEMONIC_BTR ||
			  t->d.mnemonic == ZYDIS_MNEMONIC_BTC))
			fixed |= gpr_bit(o->reg.value);
	}
	if (t->d.meta.category == ZYDIS_CATEGORY_STRINGOP ||
	    t->d.meta.category == ZYDIS_CATEGORY_IOSTRINGOP || is_loop_instruction(t->d.mnemonic))
		fixed |= 1u << GPR_RCX;
	if (t->d.mnemonic == ZYDIS_MNEMONIC_XLAT)
		fixed |= 1u << GPR_RAX | 1u << GPR_RBX;
	if (t->d.mnemonic == ZYDIS_MNEMONIC_ENTER || t->d.mnemonic == ZYDIS_MNEMONIC_LEAVE)
		fixed |= 1u << GPR_RBP;
	return fixed;
}

/* The word in memory that the generator chose for a reason, or NULL. */
static const ZydisDecodedOperand *fixed_word(const struct test_case *t)
{
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR: break;
	default:
		if (!t->d.meta.branch_type)
			return NULL;
	}
	for (unsigned k = 0; k < t->d.operand_count; k++)
		if (t->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    t->operands[k].actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			return &t->operands[k];
	return NULL;
}

static void put_preparation(struct sequence *s, const struct test_case *t, const uint8_t *data)
{
	uint16_t fixed = fixed_registers(t);
	for (unsigned r = 0; r < 16; r++)
		if (fixed >> r & 1)
			put_load(s, r, t->start.gpr[r]);
	const ZydisDecodedOperand *o = fixed_word(t);
	if (!o)
		return;
	uint64_t address = test_address(t, &o->mem);
	if (address < DATA || address + 8 > DATA_READONLY)
		return;
	for (unsigned k = 0; k < 8; k += 4) {
		uint32_t half;
		memcpy(&half, data + (address + k - DATA), 4);
		put_store(s, address + k, half);
	}
}

static void put_nops(struct sequence *s, unsigned to)
{
	static const uint8_t nops[][4] = {
		{0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}, {0x0f, 0x1f, 0x40}};
	while (s->length < to) {
		unsigned n = to - s->length < 4 ? to - s->length : 4;
		put(s, nops[n - 1], n);
	}
}

/* All arithmetic flags get a value: those of a comparison or, if AF and OF are all that is missing,
 * the present ones without these. */
static void put_definition(struct builder *b, const struct test_case *t)
{
	static const uint8_t compare[] = {0x39, 0xd1}; /* cmp ecx, edx */
	static const uint8_t filter[] = {0x9f, 0x80, 0xe4, 0xef,
					 0x9e}; /* lahf; and ah, ~AF; sahf */
	uint64_t undefined = t->d.cpu_flags ? t->d.cpu_flags->undefined & FLAGS_ARITHMETIC : 0;
	if (!undefined)
		return;
	if (!(undefined & ~(FLAG_AF | FLAG_OF)) && rng_one_in(&b->rng, 2))
		put(b->s, filter, sizeof(filter));
	else
		put(b->s, compare, sizeof(compare));
}

/* Between a branch and where it leads: something that shows if it is executed. */
static void put_filler(struct sequence *s, unsigned to)
{
	static const uint8_t inc_ecx[] = {0xff, 0xc1};
	put(s, inc_ecx, sizeof(inc_ecx));
	put_nops(s, to);
}

static bool put_random(struct builder *b, uint8_t *data)
{
	struct sequence *s = b->s;
	struct test_case t;
	unsigned begin = s->length, at = begin + PREPARATION_BYTES;
	struct placement place = {s->mode, s->rip + at, s->rip + at + BRANCH_BYTES};
	if (!generate_at(b->g, &place, &t, data))
		return false;
	put_preparation(s, &t, data);
	if (s->length > at) {
		s->length = begin;
		return false;
	}
	bool is_branch = t.d.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
	if (is_branch || t.d.attributes & ZYDIS_ATTRIB_IS_RELATIVE)
		put_nops(s, at);
	put(s, t.bytes, t.length);
	if (is_branch)
		put_filler(s, at + BRANCH_BYTES);
	put_definition(b, &t);
	return true;
}

/* A write into the immediate or the opcode of an instruction right behind it or, in a loop, of one
 * that has been executed before. */
static void put_self_modification(struct builder *b)
{
	struct sequence *s = b->s;
	bool is_behind = b->loop_at && rng_one_in(&b->rng, 2);
	bool is_opcode = rng_one_in(&b->rng, 2);
	unsigned gap = rng_below(&b->rng, 12), store = 7;
	uint8_t target[6] = {0x81, (uint8_t)(0xc0 | (rng_one_in(&b->rng, 2) ? GPR_RDX : GPR_RSI))};
	uint32_t random = (uint32_t)rng_next(&b->rng);
	memcpy(target + 2, &random, 4);
	unsigned patched = is_opcode ? 1 : 2 + rng_below(&b->rng, 4);
	/* Opcode: add becomes xor, and xor add if it comes again. */
	uint8_t value = is_opcode ? target[1] ^ 0x30 : (uint8_t)rng_next(&b->rng);
	if (is_behind) {
		put(s, target, sizeof(target));
		put_nops(s, s->length + gap);
	}
	put_byte(s, 0xc6); /* mov byte [target], value */
	put_byte(s, 0x05);
	uint64_t from = s->rip + s->length;
	put_address(s,
		    is_behind ? from - 2 - gap - sizeof(target) + patched
			      : from + store - 2 + gap + patched,
		    1);
	put_byte(s, value);
	if (!is_behind) {
		put_nops(s, s->length + gap);
		put(s, target, sizeof(target));
	}
}

/* A branch into the middle of an instruction whose immediate is instructions, too. */
static void put_overlap(struct builder *b)
{
	static const uint8_t inside[] = {0xff, 0xc1, 0x87, 0xd6, 0xff, 0xc2, 0x90, 0x90};
	struct sequence *s = b->s;
	unsigned head = s->mode == 64 ? 2 : 1;
	put_byte(s, 0x70 | rng_below(&b->rng, 16)); /* jcc to the immediate */
	put_byte(s, head);
	if (s->mode == 64)
		put_byte(s, REX_W);
	put_byte(s, 0xb8 | GPR_RDI);
	put(s, inside, s->mode == 64 ? 8 : 4);
}

/* An instruction with ModRM for [base + disp8], or for a register if `disp` is NULL. */
static void put_modrm(struct sequence *s, unsigned opcode, unsigned reg, unsigned rm,
		      const int8_t *disp)
{
	if (opcode >= 0x100)
		put_byte(s, 0x0f);
	put_byte(s, opcode & 0xff);
	put_byte(s, (disp ? 0x40 : 0xc0) | (reg & 7) << 3 | (rm & 7));
	if (disp && (rm & 7) == GPR_RSP)
		put_byte(s, 0x24);
	if (disp)
		put_byte(s, (uint8_t)*disp);
}

/* Accesses off one register, mostly around a page's end, which an engine may look up together; and
 * between them what uses other registers. The last one may load the register itself. */
static void put_neighbours(struct builder *b)
{
	static const uint16_t opcodes[] = {0x89, 0x8b, 0x01, 0x03, 0x13,  0x29,	 0x3b,
					   0x88, 0x8a, 0x87, 0xff, 0x110, 0x111, 0x1b6};
	struct sequence *s = b->s;
	unsigned count = s->mode == 64 ? 16 : 8, base = rng_below(&b->rng, count);
	uint64_t page = DATA + PAGE_SIZE_BYTES * rng_below(&b->rng, DATA_PAGES + 2);
	put_load(s, base, page + 100 - rng_below(&b->rng, 200));
	for (unsigned k = 2 + rng_below(&b->rng, 8); k > 0; k--) {
		unsigned opcode = opcodes[rng_below(&b->rng, ARRAY_COUNT(opcodes))];
		unsigned reg = rng_below(&b->rng, count), rm = base;
		int8_t disp = (int8_t)(rng_below(&b->rng, 128) - 64u);
		bool is_access = !rng_one_in(&b->rng, 4);
		if (!is_access) {
			opcode = opcodes[rng_below(&b->rng, 7)];
			rm = rng_below(&b->rng, count);
		}
		if (opcode == 0xff)
			reg = reg % 2; /* inc, dec */
		else if ((!is_access || k > 1) && (reg == base || (!is_access && rm == base)))
			continue;
		bool has_rex = s->mode == 64 && (reg > 7 || rm > 7 || rng_one_in(&b->rng, 2));
		if (!has_rex && (opcode == 0x8a || opcode == 0x88) && (reg & 3) == (base & 7))
			continue; /* its high byte */
		if (has_rex)
			put_byte(s, 0x40 | rng_below(&b->rng, 2) << 3 | reg >> 3 << 2 | rm >> 3);
		put_modrm(s, opcode, reg, rm, is_access ? &disp : NULL);
	}
}

/* ---- several bases -------------------------------------------------------------------------- */

/* The registers that a step makes its addresses of: all others are data. */
struct bases {
	unsigned first, second, index;
	unsigned counter; /* of a loop around it; 16: there is none */
	bool is_aligned;  /* so that vectors may be accessed that must be */
};

static bool is_base(const struct bases *s, unsigned gpr)
{
	return gpr == s->first || gpr == s->second || gpr == s->index || gpr == s->counter;
}

static unsigned draw_other(struct builder *b, const struct bases *s)
{
	unsigned gpr;
	do
		gpr = rng_below(&b->rng, 16);
	while (is_base(s, gpr) || gpr == GPR_RSP);
	return gpr;
}

/* Distinct ones; RSP is the first one often, never the index. The second lies on the first's page
 * or the next, or anywhere. */
static struct bases put_bases(struct builder *b)
{
	struct bases s = {.counter = 16};
	uint64_t at = DATA + PAGE_SIZE_BYTES * rng_below(&b->rng, DATA_PAGES + 2) + 200 -
		      rng_below(&b->rng, 400);
	s.is_aligned = rng_one_in(&b->rng, 2);
	if (s.is_aligned)
		at = align_down(at, 16);
	s.first = rng_one_in(&b->rng, 3) ? GPR_RSP : rng_below(&b->rng, 16);
	do
		s.second = rng_below(&b->rng, 16);
	while (s.second == s.first);
	do
		s.index = rng_below(&b->rng, 16);
	while (s.index == s.first || s.index == s.second || s.index == GPR_RSP);
	put_load(b->s, s.first, at);
	put_load(b->s, s.second,
		 rng_one_in(&b->rng, 3)
			 ? DATA + rng_below(&b->rng, DATA_BYTES - 64)
			 : at + rng_below(&b->rng, 2 * PAGE_SIZE_BYTES) - PAGE_SIZE_BYTES);
	put_load(b->s, s.index, rng_below(&b->rng, 40));
	return s;
}

/* An access at [base + disp8], [base + index * scale + disp8] or, with no base, [rip + disp32]. */
static void put_access(struct builder *b, const struct bases *s, unsigned base, bool has_index)
{
	/* movups, movaps and xorps come last */
	static const uint16_t opcodes[] = {0x89, 0x8b,	0x01,  0x03,  0x3b,  0x29,
					   0x87, 0x1b6, 0x110, 0x128, 0x129, 0x157};
	unsigned opcode = opcodes[rng_below(&b->rng, ARRAY_COUNT(opcodes))];
	unsigned reg = draw_other(b, s), rex = REX_W | reg >> 3 << 2;
	struct sequence *to = b->s;
	if (base < 16)
		rex |= base >> 3 | (has_index ? s->index >> 3 << 1 : 0);
	put_byte(to, rex & ~(rng_one_in(&b->rng, 3) ? 8u : 0));
	if (opcode >= 0x100)
		put_byte(to, 0x0f);
	put_byte(to, opcode & 0xff);
	if (base >= 16) {
		put_byte(to, 0x05 | (reg & 7) << 3);
		put_address(to, DATA + rng_below(&b->rng, 2 * PAGE_SIZE_BYTES), 0);
		return;
	}
	bool has_sib = has_index || (base & 7) == GPR_RSP;
	unsigned scale = has_index ? rng_below(&b->rng, 4) : 0;
	put_byte(to, 0x40 | (reg & 7) << 3 | (has_sib ? 4 : base & 7));
	if (has_sib)
		put_byte(to, scale << 6 | (has_index ? s->index & 7 : 4) << 3 | (base & 7));
	unsigned disp = rng_below(&b->rng, 100) - 50u;
	put_byte(to, s->is_aligned && opcode >= 0x110 && opcode < 0x1b0 ? disp & 0xf0 : disp);
}

/* lea, add, sub and inc of an address by a constant, or a copy of one in the other's place. */
static void put_address_change(struct builder *b, struct bases *s)
{
	struct sequence *to = b->s;
	unsigned base = rng_one_in(&b->rng, 2) ? s->first : s->second, rex = REX_W | base >> 3;
	switch (rng_below(&b->rng, 4)) {
	case 0: /* lea base, [base + disp8] */
		put_byte(to, rex | base >> 3 << 2);
		put_byte(to, 0x8d);
		put_byte(to, 0x40 | (base & 7) << 3 | (base & 7));
		if ((base & 7) == GPR_RSP)
			put_byte(to, 0x24);
		put_byte(to, rng_below(&b->rng, 64) - 32u);
		return;
	case 1: /* add or sub base, imm8 */
		put_byte(to, rex);
		put_byte(to, 0x83);
		put_byte(to, (rng_one_in(&b->rng, 2) ? 0xc0 : 0xe8) | (base & 7));
		put_byte(to, rng_below(&b->rng, 64));
		return;
	case 2: /* inc base */
		put_byte(to, rex);
		put_byte(to, 0xff);
		put_byte(to, 0xc0 | (base & 7));
		return;
	default: /* mov second, first */
		put_byte(to, REX_W | s->first >> 3 << 2 | s->second >> 3);
		put_byte(to, 0x89);
		put_byte(to, 0xc0 | (s->first & 7) << 3 | (s->second & 7));
	}
}

/* push or pop of a register that is no base, if RSP is one. */
static void put_push_or_pop(struct builder *b, const struct bases *s)
{
	unsigned gpr = draw_other(b, s);
	if (s->first != GPR_RSP && s->second != GPR_RSP)
		return;
	if (gpr > 7)
		put_byte(b->s, 0x41);
	put_byte(b->s, (rng_one_in(&b->rng, 2) ? 0x50 : 0x58) | (gpr & 7));
}

/* jcc over a nop. */
static void put_skip(struct builder *b)
{
	put_byte(b->s, 0x70 | rng_below(&b->rng, 16));
	put_byte(b->s, 1);
	put_byte(b->s, 0x90);
}

/* Accesses off several bases by turns, which an engine may look up together wherever it knows how
 * far they lie apart: through changes and copies of the bases, pushes, and branches. */
static void put_several_bases(struct builder *b)
{
	struct bases s = put_bases(b);
	for (unsigned k = 4 + rng_below(&b->rng, 8); k > 0; k--) {
		unsigned kind = rng_below(&b->rng, 16);
		if (kind < 4)
			put_access(b, &s, s.first, false);
		else if (kind < 7)
			put_access(b, &s, s.second, false);
		else if (kind < 9)
			put_access(b, &s, s.first, true);
		else if (kind < 10)
			put_access(b, &s, 16, false);
		else if (kind < 12)
			put_address_change(b, &s);
		else if (kind < 15)
			put_push_or_pop(b, &s);
		else
			put_skip(b);
	}
}

/* ---- tables -------------------------------------------------------------------------------- */

/* An instruction with ModRM and two registers, the first one in ModRM.reg or a part of the opcode.
 */
static void put_registers(struct sequence *s, unsigned rex, unsigned opcode, unsigned reg,
			  unsigned rm)
{
	put_byte(s, 0x40 | rex | reg >> 3 << 2 | rm >> 3);
	put_modrm(s, opcode, reg, rm, NULL);
}

/* An instruction with an immediate byte, 32 bits wide. */
static void put_with_byte(struct sequence *s, unsigned opcode, unsigned extension, unsigned rm,
			  unsigned value)
{
	put_registers(s, 0, opcode, extension, rm);
	put_byte(s, value);
}

/* The index becomes small, whatever it was. */
static void put_bound(struct builder *b, const struct bases *t)
{
	static const uint16_t masks[] = {0, 7, 0x3c, 0x7f, 0xff, 0x1ff, 0x3ff};
	struct sequence *s = b->s;
	switch (rng_below(&b->rng, 6)) {
	case 0: put_registers(s, 0, 0x1b6, t->index, t->index); return; /* movzx */
	case 1:								/* and */
		put_registers(s, rng_one_in(&b->rng, 2) ? 8 : 0, 0x81, 4, t->index);
		put_word(s, masks[rng_below(&b->rng, ARRAY_COUNT(masks))], 4);
		return;
	case 2: put_with_byte(s, 0xc1, 5, t->index, 22 + rng_below(&b->rng, 10)); return; /* shr */
	case 3:
		put_registers(s, 8, 0xc1, 5, t->index);
		put_byte(s, 54 + rng_below(&b->rng, 10));
		return;
	case 4: /* xor, setcc */
		put_registers(s, 0, 0x31, t->index, t->index);
		put_registers(s, 0, 0x190 | rng_below(&b->rng, 16), 0, t->index);
		return;
	default: /* xor, mov of a byte */
		put_registers(s, 0, 0x31, t->index, t->index);
		put_registers(s, 0, 0xc6, 0, t->index);
		put_byte(s, (unsigned)rng_next(&b->rng) & 0xff);
	}
}

/* It stays small, or becomes a little less than 0. */
static void put_bound_change(struct builder *b, const struct bases *t)
{
	struct sequence *s = b->s;
	switch (rng_below(&b->rng, 8)) {
	case 0: put_with_byte(s, 0x83, 0, t->index, rng_below(&b->rng, 128)); return; /* add */
	case 1: put_with_byte(s, 0x83, 4, t->index, rng_below(&b->rng, 256)); return; /* and */
	case 2: put_with_byte(s, 0xc1, 4, t->index, rng_below(&b->rng, 3)); return;   /* shl */
	case 3: put_registers(s, 0, 0x89, t->index, t->index); return; /* mov of 32 bits */
	case 4: put_registers(s, 8, 0x63, t->index, t->index); return; /* movsxd */
	case 5: put_with_byte(s, 0x80, 1, t->index, rng_below(&b->rng, 256)); return; /* or of 8 */
	case 6:
		put_registers(s, 8, 0x83, 5, t->index); /* sub of 64 bits */
		put_byte(s, rng_below(&b->rng, 16));
		put_access(b, t, t->first, true);
		put_bound(b, t);
		return;
	default: return;
	}
}

/* Accesses of a table that lies anywhere in a page or in two, by an index that mostly is as large
 * or as small as it can be. */
static void put_table_accesses(struct builder *b, const struct bases *t)
{
	for (unsigned k = 1 + rng_below(&b->rng, 2); k > 0; k--) {
		if (t->counter < 16) /* imul index, counter, imm32 */
			put_registers(b->s, 0, 0x69, t->index, t->counter);
		if (t->counter < 16)
			put_word(b->s, (uint32_t)rng_next(&b->rng) | 1, 4);
		put_bound(b, t);
		put_bound_change(b, t);
		put_access(b, t, t->first, true);
	}
	if (rng_one_in(&b->rng, 2))
		put_access(b, t, t->first, false);
}

static void put_table(struct builder *b)
{
	struct sequence *s = b->s;
	struct bases t = put_bases(b);
	put_load(s, t.first, DATA + rng_below(&b->rng, DATA_BYTES));
	put_load(s, t.index, rng_one_in(&b->rng, 3) ? rng_next(&b->rng) : UINT64_MAX);
	put_table_accesses(b, &t);
	put_table_accesses(b, &t);
	put_registers(s, 0, 0x39, GPR_RDX, GPR_RCX); /* cmp: all flags are defined */
}

/* dec counter; jcc rel32, of which it returns where the distance is */
static unsigned put_count(struct sequence *s, const struct bases *t, unsigned jcc)
{
	put_registers(s, 8, 0xff, 1, t->counter);
	put_byte(s, 0x0f);
	put_byte(s, jcc);
	put_word(s, 0, 4);
	return s->length - 4;
}

static void put_distance(struct sequence *s, unsigned from, unsigned to)
{
	uint32_t distance = to - from - 4;
	memcpy(s->bytes + from, &distance, 4);
}

/* The same in a loop that counts a register down, at its end or where it begins. */
static void put_table_loop(struct builder *b)
{
	struct sequence *s = b->s;
	struct bases t = put_bases(b);
	put_load(s, t.first, DATA + rng_below(&b->rng, DATA_BYTES));
	do
		t.counter = rng_below(&b->rng, 16);
	while (t.counter == t.first || t.counter == t.second || t.counter == t.index ||
	       t.counter == GPR_RSP);
	put_load(s, t.counter, 1 + rng_below(&b->rng, LOOP_MAX));
	unsigned begin = s->length, out = 0;
	bool is_rotated = rng_one_in(&b->rng, 2);
	if (is_rotated)
		out = put_count(s, &t, 0x84); /* jz */
	put_table_accesses(b, &t);
	if (!is_rotated) {
		put_distance(s, put_count(s, &t, 0x85), begin); /* jnz */
		return;
	}
	put_byte(s, 0xe9); /* jmp */
	put_word(s, (uint64_t)begin - s->length - 4, 4);
	put_distance(s, out, s->length);
}

static bool put_step(struct builder *b, uint8_t *data)
{
	bool is_64bit = b->s->mode == 64;
	switch (rng_below(&b->rng, is_64bit ? 29 : 24)) {
	case 0: put_self_modification(b); return true;
	case 1: put_overlap(b); return true;
	case 2:
	case 3: put_neighbours(b); return true;
	case 24:
	case 25: put_several_bases(b); return true;
	case 26: put_table(b); return true;
	case 27:
	case 28: put_table_loop(b); return true;
	default: return put_random(b, data);
	}
}

/* ---- sequences ----------------------------------------------------------------------------- */

/* Mostly anywhere; else across the two pages, or so near the end that it runs off it. */
static uint64_t draw_rip(struct rng *r)
{
	switch (rng_below(r, 6)) {
	case 0: return CODE + PAGE_SIZE_BYTES - rng_below(r, 500);
	case 1: return CODE_END - rng_below(r, 500);
	default: return CODE + 0x100 + rng_below(r, 0x400);
	}
}

static void put_loop_begin(struct builder *b)
{
	put_store(b->s, SCRATCH + 4 * rng_below(&b->rng, 1000), 1 + rng_below(&b->rng, LOOP_MAX));
	b->loop_at = b->s->length;
}

/* dec dword [the store's address]; jnz */
static void put_loop_end(struct builder *b)
{
	struct sequence *s = b->s;
	int32_t disp;
	memcpy(&disp, s->bytes + 2, 4);
	uint64_t counter = s->mode == 64 ? s->rip + 10 + (uint64_t)(int64_t)disp : (uint32_t)disp;
	put_byte(s, 0xff);
	put_byte(s, 0x0d);
	put_address(s, counter, 0);
	put_byte(s, 0x0f);
	put_byte(s, 0x85);
	put_word(s, (uint64_t)b->loop_at - s->length - 4, 4);
}

/* A step that faults makes the end; mostly it is taken back, for sequences would be short. */
static bool is_kept(struct builder *b, const struct test_state *out)
{
	bool is_through = out->vector == NO_FAULT && out->rip == b->s->rip + b->s->length + 1;
	return is_through || rng_one_in(&b->rng, 16);
}

void sequence_generate(struct generator *g, struct sequence *s, uint8_t *data, sequence_trial trial,
		       void *opaque)
{
	struct builder b = {.g = g, .rng.state = generator_random(g), .s = s};
	struct test_state out = {0};
	unsigned mode = rng_one_in(&b.rng, 8) ? 32 : 64, wanted_mode = generator_mode(g);
	*s = (struct sequence){.mode = wanted_mode ? wanted_mode : mode, .rip = draw_rip(&b.rng)};
	generate_state(g, s->mode, &s->start);
	s->start.rip = s->rip;
	if (rng_one_in(&b.rng, 3))
		put_loop_begin(&b);
	unsigned wanted = 2 + rng_below(&b.rng, SEQUENCE_STEPS - 2);
	bool is_through = true;
	while (s->step_count < wanted && is_through && s->length + STEP_BYTES < SEQUENCE_BYTES) {
		unsigned begin = s->length;
		if (!put_step(&b, data))
			continue;
		trial(opaque, s, &out);
		if (!is_kept(&b, &out)) {
			s->length = begin;
			continue;
		}
		s->step_at[s->step_count++] = begin;
		is_through = out.vector == NO_FAULT;
	}
	s->step_at[s->step_count] = s->length;
	if (b.loop_at)
		put_loop_end(&b);
}

void sequence_end(const struct sequence *s, const struct test_state *host, struct test_case *t)
{
	ZydisDecoder decoder;
	uint64_t offset = host->rip - s->rip;
	const uint8_t *bytes = (const uint8_t[]){0x90};
	size_t size_bytes = 1;
	if (host->vector != NO_FAULT && offset < s->length) {
		bytes = s->bytes + offset;
		size_bytes = s->length - offset;
	}
	ZydisDecoderInit(&decoder,
			 s->mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64
				       : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 s->mode == 64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	*t = (struct test_case){.mode = s->mode, .start = s->start};
	t->start.mxcsr = host->mxcsr;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, size_bytes, &t->d, t->operands)))
		ZydisDecoderDecodeFull(&decoder, (const uint8_t[]){0x90}, 1, &t->d, t->operands);
}

void sequence_blank(struct sequence *s, unsigned step)
{
	unsigned length = s->length;
	s->length = s->step_at[step];
	put_nops(s, s->step_at[step + 1]);
	s->length = length;
}

void sequence_print(const struct sequence *s)
{
	ZydisDisassembledInstruction d;
	ZydisMachineMode mode = s->mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64
					      : ZYDIS_MACHINE_MODE_LONG_COMPAT_32;
	for (unsigned at = 0; at < s->length;) {
		bool ok = ZYAN_SUCCESS(ZydisDisassembleIntel(mode, s->rip + at, s->bytes + at,
							     s->length - at, &d));
		unsigned n = ok ? d.info.length : 1;
		if (!ok || d.info.mnemonic != ZYDIS_MNEMONIC_NOP) {
			printf("  %llx  %-40s", (unsigned long long)(s->rip + at),
			       ok ? d.text : "?");
			for (unsigned k = 0; k < n; k++)
				printf(" %02x", s->bytes[at + k]);
			printf("\n");
		}
		at += n;
	}
}
