/*
 * Stubs: the host's own instruction executes the guest's.
 *
 * The host is x86-64 too, so an instruction without privilege that touches only registers and at
 * most one memory operand is executed by the same instruction in a small function of generated
 * code (stub.c): it loads the guest's registers that the instruction reads, executes it with its
 * memory operand replaced by a pointer, and stores what it wrote. The result is the
 * processor's, exact by construction; host.c does what the processor does around it: checks,
 * addresses, access rights, MXCSR and x87 exceptions.
 *
 * Stubs are shared by all places that need the same one. Their memory is mapped twice, writable and
 * executable, never both at one address. It does not grow: when host_stubs_is_full() the owner must
 * drop every block and call host_stubs_reset().
 *
 * Private to engine/interp.
 */
#pragma once

#include <Zydis/Zydis.h>

#include "base/error.h"
#include "engine/interp/interp.h"

struct host_stubs;

/* A stub's code: the state, the memory operand (in host memory), and for x87 and MMX the FXSAVE
 * image to run on. */
typedef void host_code(struct vcpu_state *s, void *operand, void *image);

/* What has to be checked before the instruction, in this order of the manual's tables. */
enum host_class {
	HOST_NONE,    /* not one of ours */
	HOST_INTEGER, /* no checks */
	HOST_SSE,
	HOST_AVX,
	HOST_MMX,
	HOST_X87,
};

enum host_stub_flag {
	STUB_READS = 1 << 0,	  /* its memory operand */
	STUB_WRITES = 1 << 1,	  /* its memory operand */
	STUB_FLOAT = 1 << 2,	  /* computes under MXCSR */
	STUB_NO_WAIT = 1 << 3,	  /* x87: does not look at pending exceptions */
	STUB_ARITHMETIC = 1 << 4, /* can underflow: see xm_underflow() */
};

/* What a stub is made from: the instruction in 64-bit form and the registers it touches. */
struct host_shape {
	uint8_t insn[20];
	uint8_t insn_bytes;
	uint16_t gpr_load, gpr_store;	    /* bit n: gpr[n] */
	uint16_t vector_load, vector_store; /* bit n: ymm[n] */
	uint8_t stand_in;		    /* host register that holds the guest's RSP; 4: none */
	uint8_t memory_register;	    /* host register that points at the operand; 4: none */
	uint8_t class;			    /* enum host_class */
	uint8_t flags;			    /* enum host_stub_flag */
	uint8_t memory_bytes;
	uint8_t vector_bytes; /* 16 or 32: how much of a vector register is loaded */
	bool is_vex;
	bool flags_load, flags_store;
	uint16_t fop; /* x87: the 11 opcode bits as the guest encoded them */
};

struct host_stub {
	host_code *code;
	struct host_stub *link; /* same hash */
	uint16_t code_bytes;
	uint16_t vector_load, vector_store;
	uint16_t fop;
	uint8_t insn_offset; /* of the instruction in the code */
	uint8_t memory_bytes;
	uint8_t class;
	uint8_t flags;
	uint8_t vector_bytes;
	bool is_vex;
};

int host_stubs_create(struct host_stubs **out, struct error *e);
void host_stubs_destroy(struct host_stubs *stubs); /* host_stubs_destroy(NULL) is legal */
/* No room for more: drop all blocks, then host_stubs_reset(). Checked before lowering a block: a
 * block's worth of stubs always fits when this is false. */
bool host_stubs_is_full(const struct host_stubs *stubs);
void host_stubs_reset(struct host_stubs *stubs);

/* Finds or makes the stub; NULL if there is no room. */
const struct host_stub *host_stub_get(struct host_stubs *stubs, const struct host_shape *shape);

/* Rewrites l's instruction into 64-bit form and finds its registers: fills insn*, gpr*, vector*,
 * flags_*, stand_in, memory_register, is_vex, vector_bytes. `memory` is the index of the
 * memory operand or -1. False if it cannot be done. (encode.c) */
bool host_shape_encode(const struct lowering *l, int memory, struct host_shape *shape);

/* Lowering of what is written out in C; each true if it was theirs. */
bool lower_fpu_state(struct lowering *l);     /* fpu.c */
bool lower_vector_move(struct lowering *l);   /* moves.c */
bool lower_vector_memory(struct lowering *l); /* vector_memory.c */

/* Checks of a class against the present control registers; raises #UD, #NM or #MF. */
void host_check(struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c,
		enum host_class class, bool waits);

#define HOST_INLINE __attribute__((always_inline)) inline

/* The same for the vector classes, where it mostly passes. */
static HOST_INLINE void host_check_fast(struct vcpu_state *s, const struct insn *i,
					struct interp_vcpu *c, enum host_class class)
{
	if (class == HOST_SSE) {
		if (unlikely((s->cr0 & (CR0_EM | CR0_TS)) || !(s->cr4 & CR4_OSFXSR)))
			host_check(s, i, c, class, false);
	} else if (class == HOST_AVX) {
		if (unlikely((s->cr0 & CR0_TS) || !(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & 6) != 6))
			host_check(s, i, c, class, false);
	}
}

/* The operand in guest RAM, or NULL if it must go through a copy. */
static HOST_INLINE void *host_operand(struct interp_vcpu *c, uint64_t linear, unsigned size_bytes,
				      bool is_write)
{
	struct mmu_fast_entry *map = is_write ? c->fast_write : c->fast_read;
	struct mmu_fast_entry *e = &map[mmu_fast_slot(linear >> PAGE_SHIFT)];
	if (unlikely(e->tag != (linear + size_bytes - 1) >> PAGE_SHIFT))
		return NULL;
	mmu_fast_hit(c->mmu, e, linear, size_bytes);
	c->write_count += is_write;
	return (void *)(uintptr_t)(linear + e->addend);
}

/* The stubs' FXSAVE image. */
struct fx_image {
	_Alignas(64) uint16_t fcw;
	uint16_t fsw;
	uint8_t ftw, unused;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16];
	uint8_t xmm[16][16];
	uint8_t reserved[96];
};

#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_EXCEPTIONS 0x3fu
#define MXCSR_MASKS 0x1f80u
#define MXCSR_VALID 0xffffu
#define FSW_ES 0x80u
#define FSW_B 0x8000u
#define FSW_TOP_SHIFT 11
#define FCW_DEFAULT 0x37fu

/* A control word as the register holds it, and the status word with its summary bits for it. */
static inline uint16_t fpu_control(uint16_t fcw)
{
	return (fcw & 0x1f3fu) | 0x40u;
}

static inline uint16_t fpu_status(uint16_t fsw, uint16_t fcw)
{
	fsw &= (uint16_t) ~(FSW_ES | FSW_B);
	return fsw & ~fcw & 0x3fu ? fsw | FSW_ES | FSW_B : fsw;
}

/* The x87 part of the state as after FNINIT; the registers themselves stay. */
static inline void fpu_initialise(struct fpu_state *f)
{
	f->fcw = FCW_DEFAULT;
	f->fsw = f->fop = f->fcs = f->fds = 0;
	f->fip = f->fdp = 0;
	f->ftw = 0;
}

/* The first 160 bytes of an FXSAVE or XSAVE area, both ways (fpu.c). */
void fpu_x87_to_image(const struct fpu_state *f, struct fx_image *m, bool is_64bit);
void fpu_x87_from_image(struct fpu_state *f, const struct fx_image *m, bool is_64bit);
bool lower_xsave(struct lowering *l); /* xsave.c */
