/*
 * One virtual processor: its architectural state, and the wires that tie it to the rest of the
 * machine.
 *
 * `struct vcpu_state` is everything a guest could observe and nothing else; it has no pointers and
 * is what is saved, loaded, hashed and compared between engines. `struct vcpu` adds the wires. All
 * engines work on this one structure, so a vcpu can move between them at any instruction boundary.
 *
 * Arithmetic flags: the six arithmetic flags live in `flags_low` (the low byte of RFLAGS: SF ZF AF
 * PF CF as LAHF has them) and `flags_of` (0 or 1); `rflags` holds all the others and its arithmetic
 * bits are stale. Use vcpu_rflags()/vcpu_set_rflags() unless you are an engine's inner loop.
 */
#pragma once

#include <stdatomic.h>

#include "base/types.h"
#include "x86/arch.h"

/* A segment register with its hidden part, as the manual's descriptor cache (SDM 3A 3.4.3). */
struct segment_register {
	uint64_t base;
	uint32_t limit; /* in bytes, already scaled by G */
	uint16_t selector;
	uint16_t attributes; /* descriptor bits 55:40: type[3:0] S DPL[6:5] P[7] ...; AVL[12] L[13]
				D/B[14] G[15]; ATTR_* below */
};

#define ATTR_TYPE 0x000fu
#define ATTR_ACCESSED 0x0001u
#define ATTR_WRITABLE 0x0002u	 /* data */
#define ATTR_READABLE 0x0002u	 /* code */
#define ATTR_EXPAND_DOWN 0x0004u /* data */
#define ATTR_CONFORMING 0x0004u	 /* code */
#define ATTR_CODE 0x0008u
#define ATTR_S 0x0010u
#define ATTR_DPL_SHIFT 5
#define ATTR_DPL 0x0060u
#define ATTR_P 0x0080u
#define ATTR_AVL 0x1000u
#define ATTR_L 0x2000u
#define ATTR_DB 0x4000u
#define ATTR_G 0x8000u
#define ATTR_UNUSABLE 0x0100u /* not architectural: a null selector was loaded */

struct table_register {
	uint64_t base;
	uint16_t limit;
	uint16_t unused[3];
};

/* x87 and vector state. st[] is in stack order (ST(0) first), as FXSAVE stores it; ftw is FXSAVE's
 * abridged tag byte. */
struct fpu_state {
	_Alignas(32) uint8_t ymm[16][32];
	_Alignas(16) uint8_t st[8][16]; /* 10 bytes each, the rest 0 */
	uint64_t fip;
	uint64_t fdp;
	uint32_t mxcsr;
	uint16_t fcw;
	uint16_t fsw;
	uint16_t fop;
	uint16_t fcs;
	uint16_t fds;
	uint8_t ftw;
	uint8_t unused;
	uint8_t pad[8];
};

enum vcpu_activity {
	ACTIVITY_RUNNING,
	ACTIVITY_HALTED,    /* HLT: waits for an interrupt, NMI, INIT */
	ACTIVITY_WAIT_SIPI, /* an application processor after INIT */
	ACTIVITY_SHUTDOWN,  /* after a triple fault */
};

enum interrupt_shadow { SHADOW_NONE = 0, SHADOW_STI = 1, SHADOW_MOV_SS = 2 };

#define MTRR_VARIABLE_COUNT 8
#define MC_BANK_COUNT 4

struct vcpu_state {
	/* Hot: general registers first, the engine indexes them. gpr[16] is always 0 and gpr[17]
	 * belongs to the engine. */
	uint64_t gpr[18];
	uint64_t rip;
	uint64_t rflags;   /* without the arithmetic flags, see above */
	uint8_t flags_low; /* SF ZF AF PF CF, bit 1 set */
	uint8_t flags_of;  /* 0 or 1 */
	uint8_t cpl;
	uint8_t interrupt_shadow; /* enum interrupt_shadow: holds off interrupts for one instruction
				   */
	uint8_t nmi_blocked;	  /* until IRET */
	uint8_t nmi_pending;
	uint8_t activity; /* enum vcpu_activity */
	uint8_t sipi_vector;
	uint8_t init_pending, sipi_pending;
	uint8_t unused[6];

	struct segment_register seg[SEG_COUNT];
	struct segment_register ldtr, tr;
	struct table_register gdtr, idtr;

	uint64_t cr0, cr2, cr3, cr4, cr8;
	uint64_t xcr0;
	uint64_t pdpte[4]; /* PAE paging: loaded with CR3 (SDM 3A 4.4.1) */
	uint64_t dr[8];	   /* 4 and 5 unused */
	uint32_t pkru;
	uint32_t pending_db; /* DR6 bits of debug traps that wait for the end of the instruction */

	uint64_t efer, star, lstar, cstar, fmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t tsc_offset; /* guest TSC = clock + offset */
	uint64_t tsc_adjust, tsc_aux;
	uint64_t pat, misc_enable, debugctl, xss, spec_ctrl;
	uint64_t mtrr_physbase[MTRR_VARIABLE_COUNT], mtrr_physmask[MTRR_VARIABLE_COUNT];
	uint64_t mtrr_fixed[11], mtrr_def_type;
	uint64_t mcg_status, mcg_ctl, mc_ctl[MC_BANK_COUNT], mc_status[MC_BANK_COUNT];
	uint64_t random_state; /* RDRAND, RDSEED: seeded, so that runs repeat */

	struct fpu_state fpu;
};

/* Requests to a vcpu, set by devices and other vcpus, looked at between instructions. */
enum vcpu_request {
	REQUEST_INTERRUPT = 1 << 0, /* the APIC or PIC has an interrupt: ask apic->pending */
	REQUEST_NMI = 1 << 1,
	REQUEST_INIT = 1 << 2,
	REQUEST_SIPI = 1 << 3,
	REQUEST_STOP = 1 << 4, /* return to the run loop */
};

/* The local APIC as the processor core sees it. The device floor implements it. */
struct apic_ops {
	/* The vector of the highest-priority interrupt that may be delivered now (TPR and PPR
	 * considered; ExtINT from the PIC included), or -1. Does not acknowledge. */
	int (*pending)(void *opaque);
	/* Acknowledges what pending() said and returns its vector (-1 if it went away). */
	int (*acknowledge)(void *opaque);
	uint8_t (*get_tpr)(void *opaque); /* bits 7:4 are CR8 */
	void (*set_tpr)(void *opaque, uint8_t tpr);
	/* MSR_APIC_BASE, MSR_TSC_DEADLINE, x2APIC. False: #GP. */
	bool (*read_msr)(void *opaque, uint32_t index, uint64_t *value);
	bool (*write_msr)(void *opaque, uint32_t index, uint64_t value);
	/* INIT arrived at the core: the APIC resets itself. */
	void (*reset)(void *opaque);
};

/* Model-specific registers that live above this floor (kvmclock and the like). */
struct msr_ops {
	/* Each returns false if the register is not one of theirs. */
	bool (*read)(void *opaque, uint32_t index, uint64_t *value);
	bool (*write)(void *opaque, uint32_t index, uint64_t value);
};

struct cpu_model;
struct clock;
struct ledger;

struct vcpu {
	struct vcpu_state state;

	unsigned index;		       /* 0.. ; also the initial APIC id */
	_Atomic uint32_t requests;     /* enum vcpu_request */
	const struct cpu_model *model; /* borrowed: CPUID and what follows from it */
	struct clock *clock;	       /* borrowed */
	struct ledger *ledger;	       /* borrowed: this vcpu's */
	const struct apic_ops *apic_ops;
	void *apic;		       /* borrowed */
	const struct msr_ops *msr_ops; /* may be NULL */
	void *msr_opaque;	       /* borrowed */
	/* Called when `requests` was set, so that a sleeping or running engine notices. May be
	 * NULL. */
	void (*kick)(void *opaque, struct vcpu *v);
	void *kick_opaque;
};

/* State after power-on or RESET (SDM 3A 9.1). Vcpu 0 is the boot processor and starts running at
 * F000:FFF0; others wait for SIPI. */
void vcpu_reset(struct vcpu *v);
/* State after INIT: like RESET but keeps TSC, MTRRs, FPU, CR0.CD/NW (SDM 3A table 9-1). */
void vcpu_init_signal(struct vcpu *v);
/* Start-up IPI: real mode at vector:0000, if waiting for it. */
void vcpu_sipi(struct vcpu *v, uint8_t vector);

struct error;
/* `state` came from a file: -EINVAL, with the register's name, if no run of a processor of `model`
 * could have produced it. What passes cannot make an engine misbehave. */
int vcpu_state_check(const struct vcpu_state *state, const struct cpu_model *model,
		     struct error *e);

static inline uint64_t vcpu_rflags(const struct vcpu *v)
{
	return (v->state.rflags & ~FLAGS_ARITHMETIC) | (v->state.flags_low & 0xd5u) |
	       ((uint64_t)v->state.flags_of << 11) | FLAG_FIXED1;
}

static inline void vcpu_set_rflags(struct vcpu *v, uint64_t rflags)
{
	v->state.rflags = rflags & ~FLAGS_ARITHMETIC;
	v->state.flags_low = (uint8_t)((rflags & 0xd5u) | 2);
	v->state.flags_of = (rflags >> 11) & 1;
}

/* Thread-safe. */
static inline void vcpu_request(struct vcpu *v, enum vcpu_request r)
{
	atomic_fetch_or_explicit(&v->requests, (uint32_t)r, memory_order_release);
	if (v->kick)
		v->kick(v->kick_opaque, v);
}

static inline void vcpu_withdraw(struct vcpu *v, enum vcpu_request r)
{
	atomic_fetch_and_explicit(&v->requests, ~(uint32_t)r, memory_order_relaxed);
}

/* The guest's time-stamp counter now. */
uint64_t vcpu_tsc(struct vcpu *v);

/* Is code running in 64-bit mode (CS.L with EFER.LMA); in any long mode; with paging. */
static inline bool vcpu_is_64bit(const struct vcpu *v)
{
	return (v->state.efer & EFER_LMA) && (v->state.seg[SEG_CS].attributes & ATTR_L);
}

static inline bool vcpu_is_long_mode(const struct vcpu *v)
{
	return (v->state.efer & EFER_LMA) != 0;
}

static inline bool vcpu_is_protected(const struct vcpu *v)
{
	return (v->state.cr0 & CR0_PE) != 0;
}

static inline bool vcpu_is_v86(const struct vcpu *v)
{
	return (v->state.rflags & FLAG_VM) != 0;
}

/* Does `address` have all bits above the paging mode's width equal (SDM 1 3.3.7.1)? */
static inline bool vcpu_is_canonical(const struct vcpu_state *s, uint64_t address)
{
	return sign_extend(address, s->cr4 & CR4_LA57 ? 57 : 48) == address;
}
