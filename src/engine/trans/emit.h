/*
 * Writing host code: the few instructions that the translator makes of its own, and the operands
 * they have. Guest instructions that are copied are instruction.c's business.
 *
 * Code is written through one mapping and runs in another (cache.h); an emitter knows both, and
 * `emitter_here()` is the address that the processor will see. Running out of room is not an error
 * here: who starts a block makes sure that the longest one fits.
 */
#pragma once

#include <string.h>

#include "base/types.h"
#include "x86/arch.h"

struct emitter {
	uint8_t *at;	      /* the next byte, writable */
	ptrdiff_t to_running; /* running address - writable address */
	int32_t space_at;     /* the space, behind where GS points to */
};

/* A host memory operand. */
struct host_memory {
	uint8_t base;	  /* host register */
	int8_t index;	  /* -1: none */
	uint8_t shift;	  /* of the index */
	bool is_gs;	  /* relative to the space */
	bool is_absolute; /* gs:[disp] alone */
	bool no_base;	  /* index and displacement */
	int32_t disp;
};

#define NO_INDEX (-1)

enum emit_flag {
	EMIT_W = 1 << 0,  /* 64-bit */
	EMIT_66 = 1 << 1, /* 16-bit */
	EMIT_0F = 1 << 2, /* two-byte opcode */
	EMIT_F3 = 1 << 3,
	EMIT_REX = 1 << 4, /* SPL..DIL */
};

static inline uint8_t *emitter_here(const struct emitter *e)
{
	return e->at + e->to_running;
}

static inline void emit_byte(struct emitter *e, unsigned byte)
{
	*e->at++ = (uint8_t)byte;
}

static inline void emit_word(struct emitter *e, uint32_t value)
{
	memcpy(e->at, &value, 4);
	e->at += 4;
}

static inline void emit_quad(struct emitter *e, uint64_t value)
{
	memcpy(e->at, &value, 8);
	e->at += 8;
}

/* ModRM, SIB and displacement of `m`; `reg` is the other operand or an opcode extension. */
static inline void emit_modrm(struct emitter *e, unsigned reg, struct host_memory m)
{
	unsigned r = (reg & 7) << 3;
	if (m.is_gs)
		m.disp += e->space_at;
	if (m.is_absolute) {
		emit_byte(e, r | 4);
		emit_byte(e, 0x25);
		emit_word(e, (uint32_t)m.disp);
		return;
	}
	if (m.no_base) {
		emit_byte(e, r | 4);
		emit_byte(e, (unsigned)m.shift << 6 | ((unsigned)m.index & 7) << 3 | 5);
		emit_word(e, (uint32_t)m.disp);
		return;
	}
	bool needs_sib = m.index != NO_INDEX || (m.base & 7) == 4;
	bool no_disp = !m.disp && (m.base & 7) != 5;
	unsigned mod = no_disp ? 0 : m.disp == (int8_t)m.disp ? 0x40 : 0x80;
	emit_byte(e, mod | r | (needs_sib ? 4 : m.base & 7));
	if (needs_sib) {
		unsigned index = m.index == NO_INDEX ? 4 : (unsigned)m.index & 7;
		emit_byte(e, (unsigned)m.shift << 6 | index << 3 | (m.base & 7));
	}
	if (mod == 0x40)
		emit_byte(e, (uint8_t)m.disp);
	else if (mod == 0x80)
		emit_word(e, (uint32_t)m.disp);
}

static inline unsigned emit_rex_bits(unsigned reg, struct host_memory m)
{
	unsigned bits = reg >> 3 << 2;
	if (m.is_absolute)
		return bits;
	if (m.index != NO_INDEX)
		bits |= (unsigned)m.index >> 3 << 1;
	return m.no_base ? bits : bits | m.base >> 3;
}

static inline void emit_opcode(struct emitter *e, unsigned flags, unsigned opcode, unsigned rex,
			       bool is_gs)
{
	if (is_gs)
		emit_byte(e, 0x65);
	if (flags & EMIT_66)
		emit_byte(e, 0x66);
	if (flags & EMIT_F3)
		emit_byte(e, 0xf3);
	rex |= flags & EMIT_W ? 8 : 0;
	if (rex || flags & EMIT_REX)
		emit_byte(e, 0x40 | rex);
	if (flags & EMIT_0F)
		emit_byte(e, 0x0f);
	emit_byte(e, opcode);
}

/* An instruction with a register and a memory operand. */
static inline void emit_rm(struct emitter *e, unsigned flags, unsigned opcode, unsigned reg,
			   struct host_memory m)
{
	emit_opcode(e, flags, opcode, emit_rex_bits(reg, m), m.is_gs);
	emit_modrm(e, reg, m);
}

/* With two registers; `rm` is the ModRM.rm one. */
static inline void emit_rr(struct emitter *e, unsigned flags, unsigned opcode, unsigned reg,
			   unsigned rm)
{
	emit_opcode(e, flags, opcode, reg >> 3 << 2 | rm >> 3, false);
	emit_byte(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void emit_mov(struct emitter *e, unsigned to, unsigned from)
{
	emit_rr(e, EMIT_W, 0x89, from, to);
}

static inline void emit_load(struct emitter *e, unsigned to, struct host_memory from)
{
	emit_rm(e, EMIT_W, 0x8b, to, from);
}

static inline void emit_store(struct emitter *e, struct host_memory to, unsigned from)
{
	emit_rm(e, EMIT_W, 0x89, from, to);
}

static inline void emit_lea(struct emitter *e, unsigned to, struct host_memory m)
{
	emit_rm(e, EMIT_W, 0x8d, to, m);
}

/* The shortest move of a constant; the longest has EMIT_QUAD_BYTES, and ends with all of it. */
#define EMIT_QUAD_BYTES 10
static inline void emit_constant(struct emitter *e, unsigned to, uint64_t value)
{
	if (value == (uint32_t)value) {
		if (to >= 8)
			emit_byte(e, 0x41);
		emit_byte(e, 0xb8 | (to & 7));
		emit_word(e, (uint32_t)value);
	} else if (value == (uint64_t)(int32_t)value) {
		emit_rr(e, EMIT_W, 0xc7, 0, to);
		emit_word(e, (uint32_t)value);
	} else {
		emit_byte(e, 0x48 | to >> 3);
		emit_byte(e, 0xb8 | (to & 7));
		emit_quad(e, value);
	}
}

/* Jumps to a running address. */
static inline void emit_rel32(struct emitter *e, const uint8_t *target)
{
	emit_word(e, (uint32_t)(target - (emitter_here(e) + 4)));
}

static inline void emit_jmp(struct emitter *e, const uint8_t *target)
{
	emit_byte(e, 0xe9);
	emit_rel32(e, target);
}

/* Jcc whose target is not known yet; returns where its displacement is. */
static inline uint8_t *emit_jcc_forward(struct emitter *e, unsigned condition)
{
	emit_byte(e, 0x0f);
	emit_byte(e, 0x80 | condition);
	emit_word(e, 0);
	return e->at - 4;
}

static inline uint8_t *emit_jmp_forward(struct emitter *e)
{
	emit_byte(e, 0xe9);
	emit_word(e, 0);
	return e->at - 4;
}

/* Lets the displacement at `where` lead to `target`, both writable addresses. */
static inline void emit_patch(uint8_t *where, const uint8_t *target)
{
	uint32_t distance = (uint32_t)(target - (where + 4));
	memcpy(where, &distance, 4);
}

/* Where the displacement at `where` leads. */
static inline const uint8_t *emit_target_of(const uint8_t *where)
{
	int32_t distance;
	memcpy(&distance, where, 4);
	return where + 4 + distance;
}

enum condition {
	CONDITION_O = 0,
	CONDITION_B = 2,
	CONDITION_AE = 3,
	CONDITION_E = 4,
	CONDITION_NE = 5,
	CONDITION_BE = 6,
	CONDITION_A = 7,
	CONDITION_L = 12,
	CONDITION_LE = 14,
	CONDITION_G = 15
};
