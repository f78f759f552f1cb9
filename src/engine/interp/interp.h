/*
 * The engine `interp`: the exact interpreter, the reference for all semantics.
 *
 * Guest code is decoded once into blocks of `struct insn`, cached by guest-physical address. An
 * insn carries the function that executes it; a function ends by calling the next insn's function
 * (NEXT), the last insn of a block stores state.rip and returns to the run loop (run.c). One insn
 * is one guest instruction, so time and the place of a fault follow from the insn's position in its
 * block.
 *
 * Rules every handler keeps:
 *  - Precise: no architectural state changes before the last access or check that can fault. Faults
 * leave through interp_raise*(), which does not return (longjmp to the run loop); the instruction
 * is then as if never started. REP forms commit whole iterations.
 *  - Accesses with effects outside RAM (device memory, ports, code pages) happen only in a
 * one-instruction block: mem.c unwinds with interp_alone() and the run loop executes the
 * instruction again by itself, so that interrupts and time are exact after it.
 *  - What changes what the fast paths assume (CPL, segments, CR0/3/4, EFER, RFLAGS.AC/TF/IF, DR7,
 * MSRs) ends its block (lowering.ends_block) and calls interp_mode_changed().
 *
 * This header is private to engine/interp, but for interp_ops.
 */
#pragma once

#include <Zydis/Zydis.h>
#include <setjmp.h>

#include "cpu/cpuid.h"
#include "engine/engine.h"
#include "ledger/exit_times.h"
#include "ledger/ledger.h"
#include "paging/mmu.h"

extern const struct engine_ops interp_ops;

struct interp_vcpu;
struct insn;
struct block;
struct decoded;

#define HANDLER_ARGUMENTS struct vcpu_state *s, const struct insn *i, struct interp_vcpu *c
/* Defines a handler: HANDLER(op_nop) { NEXT; } */
#define HANDLER(name) static void name(HANDLER_ARGUMENTS)
#define NEXT return i[1].exec(s, i + 1, c)

/* Pseudo registers behind the 16 real ones in vcpu_state.gpr[]. */
#define REG_ZERO 16  /* always 0: no base, no index */
#define REG_BLOCK 17 /* RIP of the current block's first instruction */

enum insn_flag {
	INSN_PLAIN = 1 << 0, /* memory operand: 64-bit address, segment base 0: base + index * scale
				+ disp is the linear address */
	INSN_REP = 1 << 1,   /* F3 */
	INSN_REPNE = 1 << 2, /* F2 */
	INSN_LOCK = 1 << 3,
	INSN_FLAT = 1 << 5,   /* the same with a 32-bit address through a flat segment (KEY_FLAT) */
	INSN_MEMORY = 1 << 4, /* the operand that rm describes is memory */
	INSN_STUB = 1 << 6,   /* imm is a host stub, which goes when the blocks go */
};

struct insn {
	void (*exec)(HANDLER_ARGUMENTS);
	uint64_t imm; /* immediate, sign-extended; relative branches: displacement from the block's
			 start; what else a handler needs, e.g. a host stub */
	int64_t disp;
	uint16_t offset; /* of this instruction from the block's start */
	uint8_t length;
	uint8_t flags; /* enum insn_flag */
	uint8_t reg; /* register operand; for 8-bit operands a BYTE offset into gpr[] (so that AH is
			1), else an index */
	uint8_t rm;  /* the other register operand, likewise */
	uint8_t base, index, scale; /* memory operand: gpr indices (or REG_*), shift 0..3 */
	uint8_t seg;		    /* enum segment of the memory operand */
	uint8_t op_bytes;	    /* operand size 1, 2, 4, 8 */
	uint8_t address_bytes;	    /* address size 2, 4, 8 */
	uint8_t sub;		    /* small number for handlers that serve several instructions */
	uint8_t mode;		    /* 16, 32 or 64: the code's mode */
	uint8_t note;		    /* a translator's, of its form; 0: none */
};

/* What the handler functions assume about the mode; a block is valid only for its key. */
enum block_key {
	KEY_CODE16 = 1 << 0,
	KEY_CODE32 = 1 << 1,
	KEY_CODE64 = 1 << 2,
	KEY_STACK32 = 1 << 3, /* SS.B (16/32-bit modes) */
	KEY_PROTECTED = 1 << 4,
	KEY_V86 = 1 << 5,
	KEY_FLAT = 1 << 6, /* 32-bit code with CS, SS, DS and ES flat: base 0, limit 4 GiB, readable
			      and writable: no segment check can fail */
	KEY_DEAD = 1 << 7, /* invalidated: matches nothing */
};

#define BLOCK_INSNS_MAX 48
/* gfn2 of a block in a page whose writes nobody watches (block.h): it is compared at each use. */
#define BLOCK_CHECKED (~0ull - 1)

struct block {
	uint64_t gpa;  /* of the first byte */
	uint64_t gfn2; /* second page of a lone page-crossing instruction; BLOCK_CHECKED; else ~0 */
	uint8_t crossing[16]; /* that instruction's bytes: the second page is not watched but
				 compared at each use */
	uint64_t others;      /* granules of its page that it depends on besides its own bytes */
	uint32_t bytes;
	uint16_t count;	      /* guest instructions */
	uint8_t key;	      /* enum block_key bits */
	uint8_t same_page[2]; /* next[k] lies in the same guest-virtual page: no fetch look-up
				 needed */
	uint8_t heat;	      /* how often it ran, as far as a translator wants to know */
	void *translation;    /* the translator's; NULL: none */
	struct block
		*next[2]; /* where [0] falling through and [1] taking the branch led last time */
	struct block *hash_link, *page_link;
	struct code_page *page; /* NULL: not in RAM */
	uint16_t room;		/* instructions that there is room for, of a checked block */
	struct insn insns[]; /* count, and for blocks that do not end in a branch one op_end more */
};

struct fault {
	uint8_t vector;
	bool has_error;
	uint32_t error;
	uint64_t cr2; /* #PF */
};

/* Things that make the run loop look up between blocks, besides vcpu.requests. */
enum attention {
	ATTENTION_SHADOW = 1 << 0, /* an interrupt shadow ends after the next instruction */
	ATTENTION_STEP = 1 << 1,   /* TF, debugger's step, breakpoints: one instruction at a time */
	ATTENTION_INTERRUPT = 1 << 2, /* something may be deliverable now */
	ATTENTION_DEADLINE = 1 << 3,  /* a device may have armed an earlier deadline */
	ATTENTION_EXIT = 1 << 4,      /* c->exit is filled: leave */
	ATTENTION_LOOK = ATTENTION_INTERRUPT | ATTENTION_DEADLINE | ATTENTION_EXIT,
};

enum slow_check {
	CHECK_ALIGNMENT = 1 << 0,   /* CR0.AM, RFLAGS.AC, CPL 3 */
	CHECK_WATCHPOINTS = 1 << 1, /* data breakpoints in DR7 */
};

enum unwind { UNWIND_FAULT = 1, UNWIND_ALONE = 2 };

struct interp; /* per VM: block cache, stubs, config; block.h */

/*
 * What a translator plugs into the interpreter: interp is its cold half. A block that ran
 * `warm_count` times is offered to run(); what run() leaves alone the interpreter runs.
 */
struct interp_translator {
	/* Block `b` starts at RIP, in 64-bit code, with nothing pending, and all of it fits before
	 * c->until. Runs it and as much of what follows as it likes: c->cycles and the ledger say
	 * how much; RIP is where to go on. False: did nothing, and if that is how it will stay,
	 * made the block's heat BLOCK_NEVER_WARM. */
	bool (*run)(void *opaque, struct interp_vcpu *c, struct block *b);
	/* `b` is dead: the guest wrote to its code. Never while it runs. */
	void (*dropped)(void *opaque, struct block *b);
	/* All blocks are about to be forgotten. */
	void (*flushed)(void *opaque);
	/* What insn.note becomes for the form of `x`, which is at `bytes` and not undefined,
	 * whatever its numbers are. */
	uint8_t (*note)(const struct decoded *x, const uint8_t *bytes);
	void *opaque;	    /* borrowed */
	uint8_t warm_count; /* 0 .. BLOCK_NEVER_WARM - 1 */
};
#define BLOCK_NEVER_WARM 255 /* heat of what run() is not to be asked about again */

struct interp_vcpu {
	struct vcpu_state *s;
	struct mmu_fast_entry
		*fast_read; /* the fast map for the present mode, or an always-empty one */
	struct mmu_fast_entry *fast_write;
	struct mmu *mmu;
	uint64_t write_count; /* data writes since the last fold */
	uint64_t fetch_count; /* fetch look-ups since the last fold */
	uint64_t cycles;      /* the clock at the start of the current block */
	uint64_t until;
	uint64_t slack;		/* so many cycles before `until` will do */
	const struct insn *ops; /* first insn of the block that runs */
	uint8_t taken;		/* which next[] the block's last insn chose; 2: indirect */
	uint8_t key;		/* enum block_key bits of the present mode */
	uint8_t mode;		/* enum mmu_mode of explicit data accesses */
	uint8_t fetch_mode;	/* enum mmu_mode of fetches */
	uint32_t attention;	/* enum attention */
	bool is_alone;	    /* running a one-instruction block: effects outside RAM are allowed */
	bool is_delivering; /* in the middle of delivering `delivering_vector` */
	uint8_t delivering_vector;
	struct fault fault; /* filled before an unwinding longjmp */
	jmp_buf unwind;
	_Alignas(16)
		uint8_t bounce[64]; /* read-modify-write of what is not plain RAM within a page */
	struct mmu_page bounce_pages[2]; /* where the bounce buffer's bytes go, as translated when
					    it was filled */
	struct insn scratch[2];		 /* the one-instruction block */
	struct insn single[2];		 /* interp_execute()'s */
	bool went_on;	     /* interp_execute(): the instruction did not leave its block */
	uint64_t *attempt;   /* the count that the instruction which runs is in, unless it faults;
				NULL: nobody's */
	uint16_t count;	     /* guest instructions charged for what runs now */
	uint8_t slow_checks; /* enum slow_check: every access goes through mem.c's slow path */
	struct vcpu *v;
	struct interp *vm;
	struct bus *bus;
	struct memory *memory;
	struct clock *clock;
	struct ledger *ledger;
	struct vm_exit exit;
	uint64_t folded_uses;		  /* mmu->use_clock at the last fold */
	uint64_t pause_first, pause_last; /* cycles: the PAUSE loop that runs, see privileged.c */
	bool step_requested;
	bool drops_step;	/* what runs alone entered a handler: TF traps no more */
	uint32_t settled_db;	/* pending_db before what runs alone */
	uint64_t device_cycles; /* what an access to a device takes */
	bool virtualized;	/* exits are charged */
	struct mmu_fast_entry none[MMU_FAST_COUNT]; /* always empty: forces the slow path (alignment
						       checks, data breakpoints) */
};

/* Leaving an instruction. */

/* Raise an exception at instruction `i` (a fault: state.rip becomes that instruction's address). */
_Noreturn void interp_raise(struct interp_vcpu *c, const struct insn *i, unsigned vector);
_Noreturn void interp_raise_error(struct interp_vcpu *c, const struct insn *i, unsigned vector,
				  uint32_t error);
_Noreturn void interp_raise_pf(struct interp_vcpu *c, const struct insn *i,
			       struct page_fault fault);
/* For a translator: the same, but it returns when the handler's first instruction is the next. What
 * is wrong with the way there unwinds. */
void interp_take_pf(struct interp_vcpu *c, const struct insn *i, struct page_fault fault);
/* Returns if the instruction runs in a one-instruction block already; otherwise unwinds and runs it
 * again in one. Call it before the first effect outside RAM. */
void interp_alone(struct interp_vcpu *c, const struct insn *i);

/* For a translator: executes instruction `index` of block `b` (REG_BLOCK, c->count and charges as
 * in the middle of the block) and nothing after it. True: the block goes on with the next one;
 * false: it was left, and RIP is set. Faults unwind as always. */
bool interp_execute(struct interp_vcpu *c, const struct block *b, unsigned index);
/* Runs `b`, which begins at RIP, charged. Faults unwind. Between blocks only. */
void interp_run_block(struct interp_vcpu *c, const struct block *b);
/* Is it an instruction that this processor does not have? */
bool interp_is_undefined(const struct insn *i);

/* Time, charging, mode. */

/* A handler in the middle of a block that stores state.rip itself and returns (an interrupted REP):
 * uncharges the block's instructions after i. */
void interp_cut(struct interp_vcpu *c, const struct insn *i);

/* Sets the clock to the instant of instruction `i`. Before any look at the clock, the bus, the APIC
 * or an MSR. */
void interp_sync_clock(struct interp_vcpu *c, const struct insn *i);
/*
 * Virtual time: an instruction takes a cycle, and two things take longer, as they do on a
 * processor, so that guests that wait for a device or spin on the clock do not spin a thousand
 * times too often: PAUSE (Skylake: 140 cycles, processors before it about 40) and an access to a
 * device (an uncached read that crosses the chipset).
 */
#define INTERP_PAUSE_CYCLES 64
#define INTERP_DEVICE_NS 250

static inline void interp_spend(struct interp_vcpu *c, uint64_t cycles)
{
	c->cycles += cycles;
}

/* After an effect that may have raised an interrupt or armed a timer: the loop looks before the
 * next instruction. */
static inline void interp_attend(struct interp_vcpu *c)
{
	c->attention |= ATTENTION_INTERRUPT | ATTENTION_DEADLINE;
}

/* Charges an exit if the strategy is virtualized. The moment, for ledger_exit_end(). */
static inline uint64_t interp_charge_exit(struct interp_vcpu *c, enum event e)
{
	if (!c->virtualized)
		return 0;
	uint64_t start = ledger_exit_begin(c->ledger);
	ledger_charge(c->ledger, e);
	mmu_note_engine_exit(c->mmu);
	return start;
}

/* Recomputes everything derived from CPL, segments, control registers, RFLAGS (key, modes, fast
 * maps, ledger ring, attention). */
void interp_mode_changed(struct interp_vcpu *c);

/* Memory (mem.c). */

/* The effective address of i's memory operand, linear, after all segment checks for an access of
 * `size_bytes`. */
uint64_t interp_ea_segmented(struct interp_vcpu *c, const struct insn *i, unsigned size_bytes,
			     enum access_kind kind);
/* Just the offset, for LEA and for instructions that add segments themselves. */
uint64_t interp_ea_offset(const struct interp_vcpu *c, const struct insn *i);
/* A segment-relative address made linear, with limit, type and null checks (#GP or #SS); 64-bit
 * mode: canonical check later, in the access. */
uint64_t interp_linear(struct interp_vcpu *c, const struct insn *i, unsigned seg, uint64_t offset,
		       unsigned size_bytes, enum access_kind kind);

static inline uint64_t interp_ea(struct interp_vcpu *c, const struct insn *i, unsigned size_bytes,
				 enum access_kind kind)
{
	const uint64_t *g = c->s->gpr;
	if (likely(i->flags & INSN_PLAIN))
		return g[i->base] + (g[i->index] << i->scale) + (uint64_t)i->disp;
	if (likely(i->flags & INSN_FLAT))
		return (uint32_t)(g[i->base] + (g[i->index] << i->scale) + (uint64_t)i->disp);
	return interp_ea_segmented(c, i, size_bytes, kind);
}

uint64_t interp_read_slow(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			  unsigned size_bytes);
void interp_write_slow(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		       unsigned size_bytes, uint64_t value);
void *interp_rmw_slow(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		      unsigned size_bytes);
void interp_rmw_commit(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		       unsigned size_bytes);

/* Any number of bytes (at most 4096, crossing at most one page boundary), with the mode's
 * permissions. All of it is checked before any is written. */
void interp_read_bytes(struct interp_vcpu *c, const struct insn *i, uint64_t linear, void *bytes,
		       unsigned size_bytes);
void interp_write_bytes(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			const void *bytes, unsigned size_bytes);
/* Checks that a later write cannot fault (and sets D), without writing. */
void interp_probe_write(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			unsigned size_bytes);
/* The same as supervisor at any CPL: descriptor tables, TSS, interrupt stacks. Linear addresses. */
uint64_t interp_read_system(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			    unsigned size_bytes);
void interp_write_system(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
			 unsigned size_bytes, uint64_t value);

/* The bytes at a linear address if the fast map of the supervisor's accesses has them, for `count`
 * accesses: descriptor tables, the TSS and stacks are touched at every fault. NULL: it has not. */
uint8_t *interp_system_bytes(struct interp_vcpu *c, uint64_t linear, unsigned size_bytes,
			     unsigned count, enum access_kind kind);

/* Sized reads and writes at a linear address: interp_read_1/2/4/8, interp_write_1/2/4/8, and
 * interp_rmw_1/2/4/8: a pointer to the operand with write permission checked; after changing it
 * call interp_rmw_done(). */
#define INTERP_ACCESS(n, type)                                                                  \
	/* Guest operands have no alignment. */                                                 \
	typedef type interp_operand_##n __attribute__((aligned(1), may_alias));                 \
	static inline type interp_read_##n(struct interp_vcpu *c, const struct insn *i,         \
					   uint64_t linear)                                     \
	{                                                                                       \
		struct mmu_fast_entry *e = &c->fast_read[mmu_fast_slot(linear >> PAGE_SHIFT)];  \
		if (unlikely(e->tag != (linear + n - 1) >> PAGE_SHIFT))                         \
			return (type)interp_read_slow(c, i, linear, n);                         \
		mmu_fast_hit(c->mmu, e, linear, n);                                             \
		type value;                                                                     \
		__builtin_memcpy(&value, (const void *)(uintptr_t)(linear + e->addend), n);     \
		return value;                                                                   \
	}                                                                                       \
	static inline void interp_write_##n(struct interp_vcpu *c, const struct insn *i,        \
					    uint64_t linear, type value)                        \
	{                                                                                       \
		struct mmu_fast_entry *e = &c->fast_write[mmu_fast_slot(linear >> PAGE_SHIFT)]; \
		if (unlikely(e->tag != (linear + n - 1) >> PAGE_SHIFT)) {                       \
			interp_write_slow(c, i, linear, n, value);                              \
			return;                                                                 \
		}                                                                               \
		mmu_fast_hit(c->mmu, e, linear, n);                                             \
		c->write_count++;                                                               \
		__builtin_memcpy((void *)(uintptr_t)(linear + e->addend), &value, n);           \
	}                                                                                       \
	static inline interp_operand_##n *interp_rmw_##n(struct interp_vcpu *c,                 \
							 const struct insn *i, uint64_t linear) \
	{                                                                                       \
		struct mmu_fast_entry *e = &c->fast_write[mmu_fast_slot(linear >> PAGE_SHIFT)]; \
		if (unlikely(e->tag != (linear + n - 1) >> PAGE_SHIFT))                         \
			return interp_rmw_slow(c, i, linear, n);                                \
		mmu_fast_hit(c->mmu, e, linear, n);                                             \
		c->write_count++;                                                               \
		return (interp_operand_##n *)(uintptr_t)(linear + e->addend);                   \
	}
INTERP_ACCESS(1, uint8_t)
INTERP_ACCESS(2, uint16_t)
INTERP_ACCESS(4, uint32_t)
INTERP_ACCESS(8, uint64_t)
#undef INTERP_ACCESS

static inline void interp_rmw_done(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
				   void *p, unsigned size_bytes)
{
	if (unlikely(p == c->bounce))
		interp_rmw_commit(c, i, linear, size_bytes);
}

/* The stack. */

/* Mask of the stack pointer's width: 64-bit mode all, else by SS.B. */
static inline uint64_t interp_stack_mask(const struct interp_vcpu *c)
{
	if (c->key & KEY_CODE64)
		return ~0ull;
	return c->key & KEY_STACK32 ? 0xffffffffull : 0xffffull;
}

/* RSP, ESP or SP changed to `value`, the rest of RSP kept as the architecture keeps it (16-bit
 * stack: bits 63:16; 32-bit: zeroed above). */
static inline void interp_set_sp(struct interp_vcpu *c, uint64_t value)
{
	uint64_t mask = interp_stack_mask(c);
	if (mask == 0xffffull)
		c->s->gpr[GPR_RSP] = (c->s->gpr[GPR_RSP] & ~mask) | (value & mask);
	else
		c->s->gpr[GPR_RSP] = value & mask;
}

/* Ends of blocks: store RIP (masked by the mode) and return to the loop. `taken` 0 falls through, 1
 * is a direct branch, 2 indirect. */
static inline uint64_t interp_next_rip(const struct vcpu_state *s, const struct insn *i)
{
	uint64_t rip = s->gpr[REG_BLOCK] + i->offset + i->length;
	return i->mode == 64 ? rip : i->mode == 32 ? (uint32_t)rip : (uint16_t)rip;
}

/* Lowering: from Zydis's decoding to an insn. */

struct lowering {
	const ZydisDecodedInstruction *d;
	const ZydisDecodedOperand *operands;
	const uint8_t *bytes; /* the instruction's own */
	struct interp *vm;
	const struct cpu_model *model;
	struct insn *out; /* zeroed but for offset, length, mode, op_bytes, address_bytes, flags
			     REP/REPNE/LOCK */
	uint8_t key;
	bool ends_block; /* the handler stores RIP (interp_finish) and returns instead of NEXT */
};

/* Each tries its part of the instruction set: true if it filled *l->out. Order: lower_integer,
 * lower_flow, lower_string, lower_system, lower_host; what nobody knows raises #UD when executed.
 */
bool lower_integer(struct lowering *l);
bool lower_flow(struct lowering *l);
bool lower_string(struct lowering *l);
bool lower_system(struct lowering *l);
bool lower_host(struct lowering *l);
/* False when the CPU model does not offer the instruction's set: #UD. (features.c) */
bool lower_is_offered(const struct lowering *l);

/* Fills base, index, scale, disp, seg, INSN_PLAIN, INSN_MEMORY from a memory operand (RIP-relative
 * becomes REG_BLOCK-relative). */
void lower_memory(struct lowering *l, const ZydisDecodedOperand *operand);
/* gpr index of a register operand; 8-bit registers give the byte offset. -1 if it is not a general
 * register. */
int lower_register(ZydisRegister r);

/* The end of a block-ending handler that does not branch: RIP to the next instruction; use as
 * `FINISH;`. */
#define FINISH                                  \
	do {                                    \
		s->rip = interp_next_rip(s, i); \
		c->taken = 2;                   \
		return;                         \
	} while (0)

/* System.c and friends. */

enum event_kind {
	KIND_FAULT,
	KIND_SOFTWARE /* INT n, INT3, INTO */,
	KIND_HARDWARE /* external interrupt, NMI */
};

/* Delivers a vector through the IVT or IDT in the present mode: pushes the frame, loads CS:RIP,
 * clears IF/TF as the gate says. state.rip must be the address to push. May raise (longjmp) with
 * c->is_delivering set; run.c makes double and triple faults of that. Ends with
 * interp_mode_changed(). */
void interp_deliver(struct interp_vcpu *c, unsigned vector, enum event_kind kind, bool has_error,
		    uint32_t error);
/* IRET for software interrupts in debugging etc. is system.c's own business. */

/* Debug traps of DR7's data breakpoints, called by mem.c on slow accesses when any is enabled:
 * records them in state.pending_db. */
void interp_data_breakpoint(struct interp_vcpu *c, uint64_t linear, unsigned size_bytes,
			    enum access_kind kind);
/* Instruction breakpoints of DR7 at state.rip; true if #DB must be raised before the instruction
 * (RF considered). */
bool interp_instruction_breakpoint(struct interp_vcpu *c);
