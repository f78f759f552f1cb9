/*
 * The state of one block's translation, and what its parts offer each other: access.c finds guest
 * memory, instruction.c copies instructions, branch.c ends blocks, translate.c is the loop.
 */
#pragma once

#include "engine/trans/trans_private.h"

#define GPR_NONE (-1)

/* Where the guest's arithmetic flags are at this point of the code. */
enum flags_place { FLAGS_FRAME, FLAGS_HOST, FLAGS_BOTH };

struct guest_insn {
	ZydisDecodedInstruction d;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	const uint8_t *bytes;
	uint64_t rip;
	uint8_t index; /* in the translation */
	uint8_t part;  /* that it is in */
	bool is_decoded;
	bool goes_on;	  /* a branch to the next part */
	bool is_inverted; /* ... a Jcc, if it is taken */
	uint8_t side;	  /* flags that matter where the other way of such a Jcc leads */
};

struct guest_address {
	int8_t base, index; /* guest registers, or GPR_NONE */
	uint8_t shift;
	bool is_32bit, is_constant;
	bool is_code32;	  /* 32-bit code's: what a segment is added to it has 32 bits, too */
	bool is_relative; /* to RIP: a constant that goes with the code's address */
	uint8_t seg;
	bool is_bit_string;   /* add the 64-bit words that bit_register, a host register, is */
	uint8_t bit_register; /* away */
	int64_t disp;	      /* the whole address if is_constant */
};

/* What a look-up came to: where what fails jumps from, the operand, which is in T0 and T1 if it has
 * an index, and how to come to the address again: T1 is it exclusive-ored with the tag, but for a
 * fixed one. */
struct look_up {
	uint8_t *patch;
	struct host_memory operand, tag;
	bool is_fixed, is_relative;
	uint64_t address; /* of a fixed one */
};

enum slow_kind {
	SLOW_FILL,
	SLOW_LINK,
	SLOW_JUMP,
	SLOW_SIDE,
	SLOW_VECTORS,
	SLOW_X87,
	SLOW_INTERPRET,
	SLOW_GROUP,
	SLOW_LOOP,
	SLOW_CALL
};

/* Code that is written behind the block; so much for one instruction. */
#define SLOW_OF_INSN_MAX 6
struct slow {
	enum slow_kind kind;
	uint8_t *patch; /* the displacement that leads here */
	uint32_t site;
	struct look_up look_up; /* SLOW_FILL */
	uint8_t *after;		/* SLOW_FILL: the end of its instruction */
	bool is_flags_needed;	/* ... where the flags are in the host's */
	uint64_t rip;		/* SLOW_JUMP, SLOW_SIDE, SLOW_LOOP */
	uint8_t rest;		/* SLOW_SIDE, SLOW_LOOP: instructions that do not run */
	bool saves_flags;	/* ... the host has them alone, and they matter */
	uint8_t *second;	/* ... another displacement that leads here, or NULL */
	struct region *region;	/* SLOW_GROUP */
	uint8_t first;		/* SLOW_LOOP, SLOW_CALL: the instruction that leaves */
};

/* Is it 32-bit code's? */
static inline bool is_code32(const struct guest_insn *g)
{
	return g->d.machine_mode != ZYDIS_MACHINE_MODE_LONG_64;
}

/* A look-up that failed in the micro-TLB (micro.c). */
struct miss {
	uint8_t *patch, *after;
	struct guest_address a;
	uint16_t size_bytes;
	bool is_write, is_aligned;
	uint8_t mode; /* whose space it asked */
};
#define MISSES_MAX (2 * BLOCK_INSNS_MAX)

#define SLOW_MAX (SLOW_OF_INSN_MAX * BLOCK_INSNS_MAX + 4 * PARTS_MAX + 8)

/* Accesses in a loop that one look-up serves for many iterations (loop.c). */
struct stream {
	struct guest_address a; /* of the window that holds them, when an iteration begins */
	uint16_t size_bytes;	/* of the window */
	int32_t stride;		/* what an iteration moves it by */
	bool is_write, is_long;
};

#define STREAM_NONE 0xff

struct loop {
	int64_t step[GPR_COUNT]; /* what an iteration adds to each register */
	uint16_t varying;	 /* registers that it changes otherwise */
	int8_t counter;		 /* one with a step */
	uint8_t condition;	 /* under which a last Jcc goes back */
	uint64_t exit;		 /* ... and where it leads otherwise */
	unsigned stream_count;
	struct stream streams[STREAMS_MAX];
	/* By instruction: its access, and what it and those before it add to the counter. */
	uint8_t stream_of[BLOCK_INSNS_MAX];
	int64_t disp_of[BLOCK_INSNS_MAX];
	int32_t counted[BLOCK_INSNS_MAX];
	const uint8_t *body; /* the ordinary one */
	uint8_t *back;	     /* the displacement that leads to the next iteration */
	bool is_inner;	     /* the body without look-ups is being written */
	uint8_t in_t0;	     /* ... and T0 is this stream's slot, or STREAM_NONE's */
};

/* What an instruction does with memory, as the walk through the trace sees it (value.c). */
struct access {
	uint16_t origin; /* where the same is known to be the same address; 0: nothing is known */
	int64_t at;	 /* the first byte's distance from there */
	uint8_t size_bytes; /* 0: it accesses nothing */
	bool is_write, is_aligned;
	/* Of a table: a register of the address is an index, and the first byte lies anywhere from
	 * `at` to `range` bytes on. */
	int8_t bounded;	 /* the register, or GPR_NONE */
	uint8_t shift;	 /* what it is multiplied by */
	uint32_t range;	 /* 0: the address is known as `at` says */
	int32_t skew;	 /* `at` less where it would be if the register were 0 */
	bool is_long;	 /* others may share its look-up though they lie far away in its page */
	bool is_present; /* where the origin lies is known, if the registers stay what they are now
			  */
	uint64_t present;
};

/* A longer window would be in two pages too often, unless it is known where it lies. */
#define WINDOW_BYTES_MAX 256

static inline int64_t access_end(const struct access *i)
{
	return i->at + i->range + i->size_bytes;
}

/* Is what lies from `low` to `high`, distances from its origin, in one page as things are? */
static inline bool access_is_in_page(const struct access *i, int64_t low, int64_t high)
{
	uint64_t first = i->present + (uint64_t)low, last = i->present + (uint64_t)high - 1;
	return i->is_present && first >> PAGE_SHIFT == last >> PAGE_SHIFT;
}

/* Accesses that one look-up serves, and the instructions it is kept for (group.c). */
struct window {
	uint16_t origin;
	int64_t low, high;
	int64_t aligned_at; /* must be a multiple of `align`, if that is not 0 */
	uint8_t align;
	bool is_write, is_long;
	uint8_t first, last, uses;
	uint8_t slot;	 /* of the frame */
	uint8_t left;	 /* uses that are not translated yet */
	bool is_in_slot; /* T0 is elsewhere, or may be */
};
#define WINDOW_NONE 0xff
#define ENTRIES_MAX 2

/* Instructions between which nothing can fault or call C, and their second copy. */
struct region {
	uint8_t first, last;
	uint8_t *after;		/* its end */
	enum flags_place flags; /* ... and where it expects the flags */
};

struct work {
	struct trans *trans;
	struct trans_vcpu *t;
	struct emitter e;
	struct translation *x;
	const uint8_t *page; /* the guest's bytes */
	bool is_checked;     /* nobody watches them */
	bool is_code32;
	uint64_t granules; /* of the page, that the translation depends on besides its block */
	struct part parts[PARTS_MAX];
	unsigned part_count, count; /* instructions of all parts */
	const struct guest_insn *g;
	enum flags_place flags;
	uint8_t live_before[BLOCK_INSNS_MAX]; /* flags (enum live) whose value matters */
	uint8_t live_after[BLOCK_INSNS_MAX];
	struct slow *slow; /* SLOW_MAX; not in here, for it is large and need not be zeroed */
	unsigned slow_count;
	struct miss *misses; /* MISSES_MAX, likewise */
	unsigned miss_count;
	bool is_behind;	    /* slow paths are being written */
	bool is_flags_kept; /* behind the last instruction: whatever comes next may read them */
	unsigned next_mode; /* that the block ends in, enum mmu_mode */
	unsigned asked;	    /* whose space is: the block's mode, or behind its end that one */
	bool is_left;	    /* nothing comes behind the last instruction */
	uint8_t *changed[CHECKED_BYTES_MAX / 4 +
			 4]; /* jumps out: the block's bytes are not what they were */
	unsigned changed_count;
	unsigned slow_of_insn; /* the present instruction's begin here */
	struct access accesses[BLOCK_INSNS_MAX];
	struct window windows[BLOCK_INSNS_MAX];
	uint8_t window_of[BLOCK_INSNS_MAX]; /* or WINDOW_NONE */
	struct region regions[BLOCK_INSNS_MAX / 2];
	unsigned window_count, region_count;
	struct region *region;				/* that is being translated; NULL: none */
	struct window *in_t0;				/* T0 is its host address; NULL: none's */
	bool may_add_later;				/* ... T0 + T1 may be */
	bool adds_later;				/* ... it is */
	int32_t sp_pending;				/* what RSP is still to be moved by */
	uint8_t *entries[BLOCK_INSNS_MAX][ENTRIES_MAX]; /* jumps into a region's second copy */
	struct slow *side_exits[PARTS_MAX];		/* of the branches behind the parts */
	struct loop *loop;				/* NULL: it is none */
};

/* ---- flags.c ---- */

/* What an instruction does with the flags; masks of RFLAGS' low byte, OF as bit 1. */
uint8_t flags_read(const struct guest_insn *g);
/* ... written, whatever they were. */
uint8_t flags_killed(const struct guest_insn *g, bool is_exact);
bool flags_written(const struct guest_insn *g);
#define FLAGS_ALL 0xd7u

/* What is written from now on asks the space of this mode. */
static inline void ask_space(struct work *w, unsigned mode)
{
	w->asked = mode;
	w->e.space_at = space_place(mode);
}

/* Fills w->live_before and w->live_after. */
void flags_find_live(struct work *w);
/* Behind the instruction, on the way out: as flags_to_frame(), if they matter there. */
void flags_leave(struct work *w);
/* The frame takes the host's. Uses T1, so that T0 may go on being a window's address. */
void flags_emit_save(struct emitter *e);
/* The other way. Leaves T0 and T1 alone. */
void flags_emit_load(struct emitter *e);
/* The frame has the flags, whatever becomes of the host's. Uses T1. */
void flags_to_frame(struct work *w);
/* The host has them, too. Leaves T0 and T1 alone. */
void flags_to_host(struct work *w);
/* The host has at least those in the mask for the next instruction: the carry alone, which INC, ADC
 * and their like want, is cheaper than all. Leaves T0 and T1 alone. */
void flags_want(struct work *w, uint8_t wanted);
/* The same for a condition, an opcode's low four bits. Returns the one to ask instead: where the
 * flags are in the frame they may stay there, and the host's say how a test of them came out. */
unsigned flags_want_condition(struct work *w, unsigned condition);
/* The code that follows destroys the host's flags. */
static inline void flags_lost(struct work *w)
{
	w->flags = FLAGS_FRAME;
}

/* ---- access.c ---- */

/* The host register of a guest register, or -1: it is at home in the frame. */
int host_register(int guest);
struct host_memory home_of(int guest);
/* The register itself, or `temporary` with the guest's value loaded. */
unsigned register_or_load(struct work *w, int guest, unsigned temporary);

bool address_of(const struct guest_insn *g, const ZydisDecodedOperand *o,
		struct guest_address *out);
/* Returns where the operand is: at [T0 + T1] or [T0 + constant]. */
struct host_memory access_emit(struct work *w, const struct guest_address *a, unsigned size_bytes,
			       bool is_write);
/* The same for an operand that must be aligned to its size. */
struct host_memory access_emit_aligned(struct work *w, const struct guest_address *a,
				       unsigned size_bytes, bool is_write);
/* Frees T1 of the operand's address. */
struct host_memory access_in_t0(struct work *w, struct host_memory operand);
/* The look-up alone. What fails goes to where its `patch` leads. */
struct look_up access_look_up(struct work *w, const struct guest_address *a, unsigned size_bytes,
			      bool is_write, bool is_aligned);
/* Where it has failed: T1 = the address again. */
void access_emit_again(struct work *w, const struct look_up *l);
/* The address but for a register, which it does not have twice. */
struct guest_address access_without(const struct guest_address *a, int guest);
/* The address alone, in T1. */
void access_address(struct work *w, const struct guest_address *a);
#define AT_OPERAND ((struct host_memory){.base = HOST_T0, .index = HOST_T1})

uint32_t add_site(struct work *w, struct site site);
struct slow *add_slow(struct work *w, enum slow_kind kind, uint8_t *patch);
/* T0 = site; jump to the thunk. */
void emit_call_helper(struct work *w, uint32_t site, const uint8_t *thunk);

/* The tag of the entry that T0 is the number of. */
struct host_memory access_tag(bool is_write);
/* Behind access_address(): the look-up in the TLB. */
struct look_up access_emit_ordinary(struct work *w, unsigned size_bytes, bool is_write,
				    bool is_aligned);
/* Is an access inside the page that T1 was compared with? An aligned one never leaves its page.
 * Returns where what fails jumps. */
uint8_t *access_emit_check(struct emitter *e, unsigned size_bytes, bool is_aligned);

/* ---- micro.c ---- */

/* Does the micro-TLB have an entry for it? */
bool micro_is_for(const struct work *w, const struct guest_address *a);
struct look_up micro_look_up(struct work *w, const struct guest_address *a, unsigned size_bytes,
			     bool is_write, bool is_aligned);
/* Behind all code: what follows where an entry was not the right one. */
void micro_emit_misses(struct work *w);

/* ---- relocate.c ---- */

/* What lies at `at` is such a place. */
void place_add(struct work *w, enum place_kind kind, const uint8_t *at);
/* `to` = an address that goes with the code's. */
void emit_address(struct work *w, unsigned to, uint64_t address);

/* ---- instruction.c: true if it was theirs ---- */

bool translate_copied(struct work *w);

/* What translate_copied() would do with an instruction. False: nothing, or not without calling C.
 */
struct copied {
	bool has_memory, is_write, is_aligned;
	uint8_t size_bytes;
	struct guest_address a;
	uint16_t written; /* general registers */
};
/* Are its bytes the host's, with no register elsewhere and no memory? */
bool copy_is_verbatim(const struct guest_insn *g);
bool copy_describe(const struct work *w, const struct guest_insn *g, struct copied *out);
/* Does it leave T1 alone, but for look-ups? */
bool copy_spares_t1(const struct work *w, const struct guest_insn *g);
/* Does the decoder tell all that it does with the flags? */
bool is_quiet(const struct guest_insn *g);
/* Does it use vector registers, and will translate_copied() have it run on the host's? */
bool is_vector(const struct guest_insn *g);
/* 0..15, 16..19 for AH..BH, or -1. */
int general_register(ZydisRegister r);

/* ---- string.c ---- */

bool translate_string(struct work *w);

/* ---- code32.c ---- */

/* Instructions that are others to 64-bit code, and how they are written there. */
enum code32_form { CODE32_SAME, CODE32_INC, CODE32_MOFFS, CODE32_OTHER };
enum code32_form code32_form_of(const struct guest_insn *g);
/* T1, an address before its segment's base: adds that of FS or GS, which T0 has. */
void code32_add_base(struct work *w, unsigned seg);
/* A load or a store of a register: of 4 bytes in 32-bit code, of 8 in other. */
void emit_load_word(struct work *w, unsigned to, struct host_memory from);
void emit_store_word(struct work *w, struct host_memory to, unsigned from);
static inline unsigned word_flags(const struct work *w)
{
	return w->is_code32 ? 0 : EMIT_W;
}
static inline int word_bytes(const struct work *w)
{
	return w->is_code32 ? 4 : 8;
}

/* ---- stack.c ---- */

/* `disp` bytes above what the register points to. */
struct guest_address stack_address(const struct guest_insn *g, int base, int disp);

bool translate_stack(struct work *w);
/* Moves RSP; in a region not before stack_settle(), so that neighbours move it together. */
void stack_move(struct work *w, int32_t by);
void stack_settle(struct work *w);
/* What does nothing with RSP but to push or pop; a direct CALL pushes, too. */
enum stack_step { STACK_OTHER, STACK_PUSH, STACK_POP, STACK_RETURN };
enum stack_step stack_step_of(const struct guest_insn *g);

/* ---- value.c ---- */

/* What the instructions of the trace do with memory: fills w->accesses. No origin is found on both
 * sides of an instruction that may call C. */
void value_find_accesses(struct work *w);
/* Does the instruction set a register to one, the same or another, and a constant? */
bool value_find_sum(const struct guest_insn *g, int *to, int *from, int64_t *plus);

/* ---- bound.c ---- */

/* `most`, what each general register can be at most, becomes what it is behind the instruction, one
 * that is copied. */
void bound_step(const struct guest_insn *g, uint64_t *most);

/* ---- group.c ---- */

/* Finds the trace's windows and regions. */
void group_plan(struct work *w);
/* Around the translation of w->g. */
void group_begin(struct work *w);
void group_end(struct work *w);
/* The region is over, if there is one: what comes now its second copy leads to, too. */
void group_leave(struct work *w);
/* An access in a region. */
struct host_memory group_access(struct work *w, const struct guest_address *a, unsigned size_bytes,
				bool is_write, bool is_aligned);
/* T0 will be needed for something else. */
void group_free_t0(struct work *w);
/* T1 will be: T0 alone has a window's host address. */
void group_free_t1(struct work *w);
/* The region's second copy: each instruction with its own look-up. */
void group_emit_slow(struct work *w, const struct slow *s);

/* ---- loop.c ---- */

/* Is the translation a loop that can have an inner body? */
bool loop_find(struct work *w, struct loop *l);
/* Where the translation is entered. */
void loop_emit_begin(struct work *w);
/* The way into the inner body, and it. */
void loop_emit(struct work *w);
void loop_emit_exit(struct work *w, const struct slow *s);
/* Where the operand at `a` is in the inner body. */
struct host_memory loop_operand(struct work *w, const struct guest_address *a);

/* ---- translate.c ---- */

void translate_one(struct work *w);
/* Does it do nothing at all? */
bool is_nothing(const struct guest_insn *g);

/* ---- x87.c ---- */

/* Does it run on the host's x87 registers? */
bool is_x87(const struct guest_insn *g);
bool translate_fldcw(struct work *w);

/* ---- system.c: likewise ---- */

/* What is rare goes to the interpreter, and comes back behind the instruction. */
void add_rare(struct work *w, unsigned condition);

bool translate_system(struct work *w);

/* ---- trace.c ---- */

/* Chooses the blocks that the translation of `b` runs through, and decodes them. */
void trace_choose(struct work *w, struct block *b, uint64_t rip);
/* Does `g`, the last instruction, lead back to the start of a trace that is watched? */
bool trace_is_back_edge(const struct work *w, const struct guest_insn *g);
/* Flags that matter where control goes to `rip`. */
uint8_t trace_live_at(struct work *w, uint64_t rip);

/* ---- branch.c ---- */

bool branch_is_jcc(const ZydisDecodedInstruction *d);
static inline uint64_t branch_next(const struct guest_insn *g)
{
	uint64_t next = g->rip + g->d.length;
	return is_code32(g) ? (uint32_t)next : next;
}
/* JMP and CALL to a constant address. */
bool branch_is_direct(const struct guest_insn *g);
/* Where a direct branch leads. */
static inline uint64_t branch_target(const struct guest_insn *g)
{
	uint64_t target = branch_next(g) + g->operands[0].imm.value.u;
	return is_code32(g) ? (uint32_t)target : target;
}

bool translate_branch(struct work *w);
/* A branch to the next part. */
void translate_inner_branch(struct work *w);
/* A CALL or RET but for where it leads; a RET's target is in T1. */
void emit_push_return(struct work *w);
void emit_pop_return(struct work *w);
/* The way out to `rip`. */
void emit_exit(struct work *w, uint64_t rip);
/* The same where nothing is known of the page it lies in. */
void emit_far_exit(struct work *w, uint64_t rip);
/* To the address in T1; `undo_sp` takes the instruction's change of RSP back. */
void emit_indirect(struct work *w, int undo_sp);
void emit_slow(struct work *w);
