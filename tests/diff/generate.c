/*
 * Random instructions, and states in which they do something.
 *
 * An encoding is drawn at random (map, prefixes, opcode, ModRM) and kept if the decoder knows it,
 * its group is wanted and it is not one of those whose result legally differs (is_excluded()).
 * Shapes that were seen often are drawn less. Then registers are solved so that every memory
 * operand lies in or just beside the sandbox, and branches lead to somewhere known.
 */
#include "diff.h"

#include <stdlib.h>
#include <string.h>

#include "classify.h"
#include "values.h"

#define SHAPE_BITS 16

struct generator {
	struct rng rng;
	struct generator_options options;
	ZydisDecoder decoder, decoder32;
	bool is_amd;
	const struct placement *at;	 /* NULL: anywhere */
	uint16_t seen[1u << SHAPE_BITS]; /* how often a shape came, by hash */
};

struct generator *generator_create(const struct generator_options *options)
{
	struct generator *g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->rng.state = options->seed;
	g->options = *options;
	g->is_amd = native_is_amd();
	ZydisDecoderInit(&g->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&g->decoder32, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	return g;
}

void generator_destroy(struct generator *g)
{
	free(g);
}

uint64_t generator_random(struct generator *g)
{
	return rng_next(&g->rng);
}

unsigned generator_mode(const struct generator *g)
{
	return g->options.mode;
}

/* ---- encodings ----------------------------------------------------------------------------- */

enum map { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A, MAP_X87, MAP_VEX };

static enum map draw_map(struct rng *r, enum group group)
{
	switch (group) {
	case GROUP_STRING:
	case GROUP_STACK:
	case GROUP_BRANCH: return rng_one_in(r, 4) ? MAP_0F : MAP_ONE;
	case GROUP_INTEGER: return rng_one_in(r, 3) ? MAP_0F : MAP_ONE;
	case GROUP_X87: return MAP_X87;
	case GROUP_STATE: return rng_one_in(r, 2) ? MAP_X87 : MAP_0F;
	case GROUP_AVX:
	case GROUP_MASKED: return rng_one_in(r, 20) ? MAP_0F : MAP_VEX;
	case GROUP_BMI: return rng_one_in(r, 2) ? MAP_VEX : rng_one_in(r, 2) ? MAP_0F : MAP_0F38;
	default: return (enum map[]){MAP_0F, MAP_0F38, MAP_0F3A, MAP_0F}[rng_below(r, 4)];
	}
}

static unsigned put_prefixes(struct rng *r, uint8_t *bytes)
{
	static const uint8_t segments[] = {0x2e, 0x36, 0x3e, 0x26, 0x65};
	unsigned n = 0;
	if (rng_one_in(r, 16))
		bytes[n++] = 0x67;
	if (rng_one_in(r, 24))
		bytes[n++] = segments[rng_below(r, sizeof(segments))];
	if (rng_one_in(r, 16))
		bytes[n++] = 0xf0;
	return n;
}

static void draw_bytes(struct rng *r, enum group group, unsigned mode, uint8_t bytes[32])
{
	unsigned n = put_prefixes(r, bytes);
	enum map map = draw_map(r, group);
	uint8_t fixed = mode == 64 ? 0 : 0xc0; /* else they are LES and LDS */
	if (map == MAP_VEX) {
		if (rng_one_in(r, 4)) {
			bytes[n++] = 0xc5;
			bytes[n++] = (uint8_t)rng_next(r) | fixed;
		} else {
			bytes[n++] = 0xc4;
			bytes[n++] =
				(uint8_t)((rng_next(r) & 0xe0) | (1 + rng_below(r, 3)) | fixed);
			bytes[n++] = (uint8_t)rng_next(r);
		}
	} else {
		if (rng_one_in(r, 3))
			bytes[n++] = 0x66;
		if (rng_one_in(r, 3))
			bytes[n++] = rng_one_in(r, 2) ? 0xf2 : 0xf3;
		if (mode == 64 && rng_one_in(r, 2))
			bytes[n++] = (uint8_t)(0x40 | rng_below(r, 16));
		if (map == MAP_0F || map == MAP_0F38 || map == MAP_0F3A)
			bytes[n++] = 0x0f;
		if (map == MAP_0F38 || map == MAP_0F3A)
			bytes[n++] = map == MAP_0F38 ? 0x38 : 0x3a;
	}
	bytes[n++] = map == MAP_X87 ? (uint8_t)(0xd8 + rng_below(r, 8)) : (uint8_t)rng_next(r);
	while (n < 32) {
		uint64_t v = rng_next(r);
		memcpy(bytes + n, &v, 32 - n < 8 ? 32 - n : 8);
		n += 8;
	}
}

/* ---- which are wanted ---------------------------------------------------------------------- */

static bool is_fresh(struct generator *g, const struct test_case *t)
{
	uint32_t h = (uint32_t)test_shape(t);
	uint16_t *seen = &g->seen[h & ((1u << SHAPE_BITS) - 1)];
	if (*seen && !rng_one_in(&g->rng, 1 + *seen / 16u))
		return false;
	if (*seen < 60000)
		++*seen;
	return true;
}

uint64_t test_shape(const struct test_case *t)
{
	uint64_t h = t->d.mnemonic | (uint64_t)(t->mode == 32) << 32;
	for (unsigned k = 0; k < t->d.operand_count_visible; k++) {
		const ZydisDecodedOperand *o = &t->operands[k];
		unsigned class = o->type == ZYDIS_OPERAND_TYPE_REGISTER
					 ? (unsigned)ZydisRegisterGetClass(o->reg.value)
					 : 0;
		h = (h ^ (o->type | class << 4 | (unsigned)o->size << 10)) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	h ^= t->d.attributes & ZYDIS_ATTRIB_HAS_LOCK ? 0x55 : 0;
	h ^= t->d.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE) ? 0xaa00 : 0;
	return h ^ (t->d.attributes & ZYDIS_ATTRIB_HAS_REPNE ? 0x330000 : 0);
}

/* The decoder takes [disp32 + index] with REX.B and a 67 prefix for one with base R13. */
static void mend_operands(struct test_case *t)
{
	if (!(t->d.attributes & ZYDIS_ATTRIB_HAS_SIB) || t->d.raw.modrm.mod ||
	    t->d.raw.sib.base != 5)
		return;
	for (unsigned k = 0; k < t->d.operand_count; k++)
		if (t->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    t->operands[k].mem.base == ZYDIS_REGISTER_R13D) {
			t->operands[k].mem.base = ZYDIS_REGISTER_NONE;
			t->operands[k].mem.disp.has_displacement = true;
			t->operands[k].mem.disp.value = t->d.raw.disp.value;
		}
}

static bool decode(struct generator *g, struct test_case *t, const uint8_t *bytes)
{
	const ZydisDecoder *decoder = t->mode == 64 ? &g->decoder : &g->decoder32;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, 15, &t->d, t->operands)))
		return false;
	mend_operands(t);
	return true;
}

static unsigned draw_mode(struct generator *g)
{
	return g->options.mode ? g->options.mode : rng_one_in(&g->rng, 6) ? 32 : 64;
}

static bool draw(struct generator *g, struct test_case *t, enum group group)
{
	uint8_t bytes[32];
	t->mode = g->at ? g->at->mode : draw_mode(g);
	draw_bytes(&g->rng, group, t->mode, bytes);
	memset(t->bytes, 0xcc, sizeof(t->bytes));
	if (!decode(g, t, bytes))
		return false;
	t->length = t->d.length;
	memcpy(t->bytes, bytes, t->length);
	if (group_of(t) != group || is_excluded(t) || (g->is_amd && is_excluded_on_amd(t)) ||
	    t->d.address_width == 16)
		return false;
	/* IP would be cut to 16 bits, where nothing of ours is. */
	if (group == GROUP_BRANCH && t->mode == 32 && t->d.operand_width == 16)
		return false;
	if (g->options.only && strcmp(ZydisMnemonicGetString(t->d.mnemonic), g->options.only))
		return false;
	return g->options.only || is_fresh(g, t);
}

/* ---- states -------------------------------------------------------------------------------- */

static void draw_x87(struct rng *r, struct x87_image *x)
{
	memset(x, 0, sizeof(*x));
	x->fcw = (uint16_t)((rng_below(r, 4) << 8 | rng_below(r, 4) << 10) | 0x7f);
	x->fsw = (uint16_t)(rng_next(r) & 0x7f00);
	if (rng_one_in(r, 4))
		x->fcw = (uint16_t)((x->fcw & ~0x3fu) | rng_below(r, 64));
	if (rng_one_in(r, 4))
		x->fsw |= (uint16_t)rng_below(r, 128);
	if (x->fsw & ~x->fcw & 0x3f && !rng_one_in(r, 4))
		x->fcw |= 0x3f;
	if (x->fsw & ~x->fcw & 0x3f)
		x->fsw |= 0x8080;
	x->ftw = rng_one_in(r, 2) ? 0xff : (uint8_t)rng_next(r);
	x->fop = (uint16_t)rng_below(r, 0x800);
	x->fip = rng_next(r) >> 20;
	x->fdp = rng_next(r) >> 20;
	for (unsigned k = 0; k < 8; k++)
		value_st(r, x->st[k]);
}

static void draw_state(struct rng *r, struct test_state *s)
{
	memset(s, 0, sizeof(*s));
	for (unsigned k = 0; k < 16; k++) {
		s->gpr[k] = value_integer(r);
		value_fill(r, s->ymm[k], 32);
	}
	s->rflags = FLAG_FIXED1 | FLAG_IF | (rng_next(r) & FLAGS_ARITHMETIC);
	if (rng_one_in(r, 4))
		s->rflags |= FLAG_DF;
	s->mxcsr = 0x1f80 | (rng_below(r, 4) << 13);
	if (rng_one_in(r, 2))
		s->mxcsr |= rng_below(r, 64);
	if (rng_one_in(r, 3))
		s->mxcsr |= rng_one_in(r, 2) ? 0x8000 : 0x40;
	if (rng_one_in(r, 4)) /* an exception raised before does not trap now */
		s->mxcsr = (s->mxcsr & ~0x1f80u) | rng_below(r, 64) << 7;
	draw_x87(r, &s->x87);
}

/* ---- addresses ----------------------------------------------------------------------------- */

static int number_of(ZydisRegister r)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
	if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
		return -1;
	return whole - ZYDIS_REGISTER_RAX;
}

/* Where an operand of `size_bytes` shall be: mostly inside, sometimes across or beside an edge.
 * Mostly aligned, for some insist on it. */
static uint64_t draw_target(struct rng *r, unsigned size_bytes)
{
	uint64_t target = DATA + rng_below(r, (unsigned)(DATA_PAGES * PAGE_SIZE_BYTES - 600)) + 64;
	unsigned unaligned = 8; /* once in so many */
	switch (rng_below(r, 16)) {
	case 0: /* across two pages */
		target = DATA + PAGE_SIZE_BYTES * (1 + rng_below(r, 3)) -
			 rng_below(r, size_bytes + 1);
		unaligned = 2;
		break;
	case 1: target = DATA - rng_below(r, size_bytes + 8); break;
	case 2: target = DATA_READONLY - rng_below(r, size_bytes + 1); break;
	case 3: target = DATA_READONLY + rng_below(r, 2048); break;
	case 4: target = DATA_END - rng_below(r, size_bytes + 8); break;
	default: break;
	}
	return rng_one_in(r, unaligned) ? target : target & ~(uint64_t)(size_bytes > 512 ? 63 : 31);
}

static bool is_in_sandbox(uint64_t address, uint64_t size_bytes)
{
	return address >= DATA - PAGE_SIZE_BYTES + 512 &&
	       address + size_bytes <= DATA_END + PAGE_SIZE_BYTES - 512;
}

uint64_t test_address(const struct test_case *t, const ZydisDecodedOperandMem *m)
{
	uint64_t a = m->disp.has_displacement ? (uint64_t)m->disp.value : 0;
	int base = number_of(m->base), index = number_of(m->index);
	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
		a += t->start.rip + t->length;
	else if (base >= 0)
		a += t->start.gpr[base];
	if (index >= 0)
		a += t->start.gpr[index] * m->scale;
	if (t->d.mnemonic == ZYDIS_MNEMONIC_XLAT)
		a = t->start.gpr[GPR_RBX] + (uint8_t)t->start.gpr[GPR_RAX];
	return t->d.address_width == 64 ? a : (uint32_t)a;
}

static void patch_displacement(struct test_case *t, uint64_t value)
{
	memcpy(t->bytes + t->d.raw.disp.offset, &value, t->d.raw.disp.size / 8);
}

/* Registers or displacement such that the operand lies at `target`. False: no way. */
static bool solve(struct generator *g, struct test_case *t, const ZydisDecodedOperandMem *m,
		  uint64_t target)
{
	struct rng *r = &g->rng;
	int base = number_of(m->base), index = number_of(m->index);
	uint64_t disp = m->disp.has_displacement ? (uint64_t)m->disp.value : 0;
	bool is_rip = m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP;
	if (is_rip || (base < 0 && index < 0)) {
		if (t->d.raw.disp.size < 32)
			return false;
		patch_displacement(t, target - (is_rip ? t->start.rip + t->length : 0));
		return true;
	}
	if (base < 0) {
		t->start.gpr[index] = (target - disp) / m->scale;
	} else if (base == index) {
		t->start.gpr[base] = (target - disp) / (m->scale + 1u);
	} else {
		if (index >= 0)
			t->start.gpr[index] = rng_one_in(r, 2) ? rng_next(r) : rng_below(r, 512);
		t->start.gpr[base] =
			target - disp - (index >= 0 ? t->start.gpr[index] * m->scale : 0);
	}
	/* With 32-bit addresses the upper halves do not count. */
	if (t->d.address_width == 32 && rng_one_in(r, 2) && base != GPR_RSP && base >= 0)
		t->start.gpr[base] ^= rng_next(r) << 32;
	return true;
}

/* A gather's elements, each its own target. */
static bool solve_gather(struct generator *g, struct test_case *t, const ZydisDecodedOperandMem *m)
{
	int base = number_of(m->base), index = ZydisRegisterGetId(m->index);
	uint64_t disp = m->disp.has_displacement ? (uint64_t)m->disp.value : 0;
	bool is_wide = t->d.mnemonic == ZYDIS_MNEMONIC_VGATHERQPS ||
		       t->d.mnemonic == ZYDIS_MNEMONIC_VGATHERQPD ||
		       t->d.mnemonic == ZYDIS_MNEMONIC_VPGATHERQD ||
		       t->d.mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ;
	if (base < 0)
		return false;
	t->start.gpr[base] = DATA + 1024 - disp;
	for (unsigned k = 0; k < 32; k += is_wide ? 8 : 4) {
		int64_t span = (int64_t)(DATA_PAGES * PAGE_SIZE_BYTES / m->scale) - 2048 / m->scale;
		int64_t v = (int64_t)rng_below(&g->rng, (unsigned)span);
		if (rng_one_in(&g->rng, 64))
			v = -(int64_t)(1200 / m->scale);
		memcpy(t->start.ymm[index] + k, &v, is_wide ? 8 : 4);
	}
	return true;
}

/* BT and its kin with a register as offset reach beyond their operand. */
static bool is_bit_string(const struct test_case *t)
{
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return t->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		       t->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
	default: return false;
	}
}

static bool is_memory(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN;
}

static void draw_counts(struct generator *g, struct test_case *t)
{
	if (t->d.meta.category == ZYDIS_CATEGORY_STRINGOP ||
	    t->d.meta.category == ZYDIS_CATEGORY_IOSTRINGOP)
		t->start.gpr[GPR_RCX] = rng_below(&g->rng, 40);
	if (is_bit_string(t)) {
		int64_t bit = (int64_t)rng_below(&g->rng, 4000) - 2000;
		t->start.gpr[number_of(t->operands[1].reg.value)] = (uint64_t)bit;
	}
	if (is_xsave(t->d.mnemonic) || is_xrstor(t->d.mnemonic)) {
		/* The host's XCR0 has more components than the guest's. */
		t->start.gpr[GPR_RAX] = rng_below(&g->rng, 8);
		t->start.gpr[GPR_RDX] = 0;
	}
	if (t->d.mnemonic == ZYDIS_MNEMONIC_ENTER || t->d.mnemonic == ZYDIS_MNEMONIC_LEAVE)
		t->start.gpr[GPR_RBP] = draw_target(&g->rng, 8) + 256;
}

/* Hidden operands first, so that what is named wins; then everything is looked at again. */
static bool place_operands(struct generator *g, struct test_case *t, uint8_t *data)
{
	for (unsigned k = t->d.operand_count; k-- > 0;) {
		const ZydisDecodedOperand *o = &t->operands[k];
		if (!is_memory(o))
			continue;
		if (o->mem.segment == ZYDIS_REGISTER_FS) /* the harness's thread */
			return false;
		if (o->mem.segment == ZYDIS_REGISTER_GS && t->mode == 32) /* null on the host */
			return false;
		unsigned size_bytes = o->size / 8 ? o->size / 8 : 1;
		if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB
			    ? !solve_gather(g, t, &o->mem)
			    : !solve(g, t, &o->mem, draw_target(&g->rng, size_bytes)))
			return false;
	}
	if (!decode(g, t, t->bytes))
		return false;
	for (unsigned k = 0; k < t->d.operand_count; k++) {
		const ZydisDecodedOperand *o = &t->operands[k];
		if (!is_memory(o) || o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			continue;
		uint64_t a = test_address(t, &o->mem);
		if (is_bit_string(t))
			a += (uint64_t)((int64_t)
						t->start.gpr[number_of(t->operands[1].reg.value)] >>
					3);
		if (!is_in_sandbox(a, o->size / 8))
			return false;
		if (a >= DATA && a + 64 <= DATA_READONLY && o->size <= 512)
			value_fill(&g->rng, data + (a - DATA), 64);
	}
	return true;
}

/* ---- branches and other special cares ------------------------------------------------------ */

static uint64_t draw_destination(struct generator *g, const struct test_case *t)
{
	uint64_t a;
	if (g->at)
		return g->at->destination;
	switch (rng_below(&g->rng, 8)) {
	case 0: /* not canonical; in 32-bit code, not mapped */
		return t->mode == 64 ? 0x8000000000000000ull | rng_next(&g->rng) >> 8
				     : 0x30000000ull | (rng_next(&g->rng) & 0xfffffff);
	case 1: return DATA + rng_below(&g->rng, DATA_BYTES);
	default:
		do
			a = CODE + 64 + rng_below(&g->rng, CODE_PAGES * PAGE_SIZE_BYTES - 128);
		while (a + 1 >= t->start.rip && a < t->start.rip + t->length);
		return a;
	}
}

static bool set_operand(struct test_case *t, const ZydisDecodedOperand *o, uint64_t value,
			uint8_t *data)
{
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		int n = number_of(o->reg.value);
		if (n < 0 || n == GPR_RSP) /* the stack must not be where code is */
			return false;
		t->start.gpr[n] = value;
		return true;
	}
	uint64_t a = test_address(t, &o->mem);
	if (a >= DATA && a + 8 <= DATA_READONLY)
		memcpy(data + (a - DATA), &value, 8);
	return a + 8 <= DATA || a >= DATA_END || (a >= DATA && a + 8 <= DATA_READONLY);
}

static bool place_branch(struct generator *g, struct test_case *t, uint8_t *data)
{
	uint64_t to = draw_destination(g, t);
	const ZydisDecodedOperand *o = &t->operands[0];
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative) {
		unsigned size_bytes = t->d.raw.imm[0].size / 8;
		int64_t distance =
			(int64_t)(CODE + 64 +
				  rng_below(&g->rng, CODE_PAGES * PAGE_SIZE_BYTES - 128) -
				  t->start.rip - t->length);
		if (g->at)
			distance = (int64_t)(to - t->start.rip - t->length);
		else if (size_bytes == 1)
			distance = (int8_t)t->bytes[t->d.raw.imm[0].offset];
		if (size_bytes == 2 || (distance < 0 && distance >= -(int64_t)t->length - 1))
			return false;
		memcpy(t->bytes + t->d.raw.imm[0].offset, &distance, size_bytes);
		uint64_t end = t->start.rip + t->length + (uint64_t)distance;
		return end >= CODE && end < CODE + CODE_PAGES * PAGE_SIZE_BYTES - 1;
	}
	if (t->d.meta.category != ZYDIS_CATEGORY_RET)
		return set_operand(t, o, to, data);
	for (unsigned k = 0; k < t->d.operand_count; k++)
		if (is_memory(&t->operands[k]))
			return set_operand(t, &t->operands[k], to, data);
	return false;
}

/* POPF must not set what would stop the harness (TF, NT, AC) or stay set after it (ID). */
static bool place_flags(struct generator *g, struct test_case *t, uint8_t *data)
{
	uint64_t flags = rng_next(&g->rng) & ~(FLAG_TF | FLAG_NT | FLAG_AC | FLAG_ID);
	for (unsigned k = 0; k < t->d.operand_count; k++)
		if (is_memory(&t->operands[k]))
			return set_operand(t, &t->operands[k], flags, data);
	return false;
}

/* An area that XRSTOR mostly accepts. */
static bool place_area(struct generator *g, const struct test_case *t, uint8_t *data)
{
	uint64_t a = test_address(t, &t->operands[0].mem);
	if (a < DATA || a + 832 > DATA_READONLY)
		return true;
	uint8_t *area = data + (a - DATA);
	uint64_t header[8] = {rng_below(&g->rng, 8)};
	memset(area + 26, 0, 2);
	if (rng_one_in(&g->rng, 2))
		header[1] = rng_below(&g->rng, 8) | (rng_one_in(&g->rng, 8) ? 0 : 1ull << 63);
	if (rng_one_in(&g->rng, 8))
		header[rng_below(&g->rng, 8)] ^= 1ull << rng_below(&g->rng, 3);
	memcpy(area + 512, header, sizeof(header));
	return true;
}

static bool place_special(struct generator *g, struct test_case *t, uint8_t *data)
{
	if ((is_xsave(t->d.mnemonic) || is_xrstor(t->d.mnemonic)) &&
	    (t->start.gpr[GPR_RAX] > 7 || t->start.gpr[GPR_RDX]))
		return false; /* they were needed for the address */
	switch (t->d.mnemonic) {
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ: return place_flags(g, t, data);
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
		return rng_one_in(&g->rng, 4) ||
		       set_operand(t, &t->operands[0], rng_next(&g->rng) & 0xffffffff0000ffffull,
				   data);
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64: return rng_one_in(&g->rng, 16) || place_area(g, t, data);
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
	case ZYDIS_MNEMONIC_JRCXZ:
	case ZYDIS_MNEMONIC_JECXZ: t->start.gpr[GPR_RCX] = rng_below(&g->rng, 3); break;
	default: break;
	}
	return group_of(t) != GROUP_BRANCH || place_branch(g, t, data);
}

/* What 32-bit code can see. */
static void narrow(struct test_state *s)
{
	for (unsigned k = 0; k < 16; k++)
		s->gpr[k] &= 0xffffffff;
	s->x87.fip &= 0xffffffff;
	s->x87.fdp &= 0xffffffff;
}

static uint64_t draw_rip(struct rng *r, unsigned length)
{
	if (rng_one_in(r, 16))
		return CODE + PAGE_SIZE_BYTES - rng_below(r, length + 1);
	return CODE + 0x100 + 16 * rng_below(r, 0xe0);
}

/* What depends on registers or memory in ways that sequence.c cannot set right before it. */
static bool is_for_sequence(const struct test_case *t)
{
	if (t->d.mnemonic == ZYDIS_MNEMONIC_SHLD || t->d.mnemonic == ZYDIS_MNEMONIC_SHRD)
		return t->d.operand_width != 16; /* or its result may be undefined */
	return !has_steps(t->d.mnemonic) && !is_xsave(t->d.mnemonic) && !is_xrstor(t->d.mnemonic) &&
	       t->d.meta.isa_ext != ZYDIS_ISA_EXT_AVX2GATHER;
}

static enum group draw_group(struct generator *g)
{
	if (g->options.group)
		for (unsigned k = 0; generator_groups()[k]; k++)
			if (!strcmp(generator_groups()[k], g->options.group))
				return (enum group)k;
	return (enum group)rng_below(&g->rng, GROUP_COUNT);
}

bool generate(struct generator *g, struct test_case *t, uint8_t *data)
{
	enum group group = draw_group(g);
	for (unsigned attempt = 0; attempt < 3000000; attempt++) {
		if (g->options.only && !g->options.group)
			group = draw_group(g);
		if (!draw(g, t, group)) {
			if (attempt % 4096 == 4095 && !g->options.group)
				group = draw_group(g);
			continue;
		}
		draw_state(&g->rng, &t->start);
		if (g->at && !is_for_sequence(t))
			continue;
		if (has_steps(t->d.mnemonic))
			t->start.mxcsr |= 0x1f80;
		t->start.rip = g->at ? g->at->rip : draw_rip(&g->rng, t->length);
		/* The stack pointer is always good for something. */
		t->start.gpr[GPR_RSP] = draw_target(&g->rng, 8);
		draw_counts(g, t);
		if (!place_operands(g, t, data) || !place_special(g, t, data))
			continue;
		if (t->mode == 32)
			narrow(&t->start);
		return true;
	}
	return false;
}

bool generate_at(struct generator *g, const struct placement *at, struct test_case *t,
		 uint8_t *data)
{
	g->at = at;
	bool ok = generate(g, t, data);
	g->at = NULL;
	return ok;
}

void generate_state(struct generator *g, unsigned mode, struct test_state *s)
{
	draw_state(&g->rng, s);
	if (mode == 32)
		narrow(s);
}
