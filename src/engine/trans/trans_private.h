/*
 * What the files of the translator share: translated blocks, sites, the frame that generated code
 * runs on.
 *
 * Registers. Guest registers live in the host register of the same number while translated code
 * runs, but for these: guest RSP is in host R15; guest R11, R14 and R15, the ones that compilers
 * reach for last, are at home in the frame; host R11 and R14 (HOST_T0, HOST_T1) are the generated
 * code's own, host RSP is the frame, GS the present space (space.h).
 *
 * Flags. The guest's arithmetic flags are in the frame (`flags`) at every block boundary and
 * wherever an exception may come from; inside a block they are also in the host's flags for as long
 * as the code that looks up addresses leaves them alone.
 *
 * Helpers. Generated code calls C through thunks (thunk.c): all guest registers are put into
 * vcpu_state, the helper may raise (longjmp out of generated code) or return the address where
 * generated code goes on.
 */
#pragma once

#include <Zydis/Zydis.h>
#include <stdio.h>

#include "engine/interp/block.h"
#include "engine/trans/emit.h"
#include "engine/trans/space.h"
#include "engine/trans/trans.h"

#define HOST_T0 11
#define HOST_T1 14
#define HOST_GUEST_RSP 15
#define HOME_COUNT 3
#define WINDOW_SLOTS 8

/* Are the guest's vector registers and MXCSR in the host's, and for which instructions? */
enum vectors { VECTORS_OUT, VECTORS_SSE, VECTORS_AVX };

#define STREAMS_MAX 6

/* Lies on the host's stack at RSP. */
struct frame {
	int32_t budget;			/* instructions left; below 0 at a block's entry: out */
	uint16_t flags;			/* the guest's: OF in the low byte, LAHF's byte above it */
	uint16_t above_flags;		/* generated code stores 4 bytes of EAX */
	uint64_t home[HOME_COUNT];	/* guest R11, R14, R15 */
	uint64_t value;			/* an operand that has to survive a second look-up */
	uint8_t *windows[WINDOW_SLOTS]; /* host addresses that are used again (group.c) */
	uint64_t rax;			/* while flags are moved or a ring is changed */
	uint64_t fs_base, gs_base;
	struct vcpu_state *state;
	struct trans_vcpu *t;
	struct interp_vcpu *c;
	_Atomic uint32_t *requests; /* the vcpu's */
	uint64_t micro_address;	    /* while an entry is taken over (thunk.c) */
	uint64_t linear;	    /* T1 at a helper's call */
	uint32_t site;		    /* T0 at a helper's call */
	uint8_t vectors;	    /* enum vectors */
	bool x87;		    /* the guest's x87 registers are in the host's */
	uint8_t unused2[2];
	uint32_t c_mxcsr; /* what C runs with */
	uint32_t unused3;
	uint64_t fs_bar, gs_bar; /* of 32-bit code (code32.c) */
	/* From here on nothing is set at the entry. An inner loop's (loop.c): */
	uint64_t streams[STREAMS_MAX];
	uint64_t loop_limit;   /* its counter when all iterations that are charged have run */
	uint32_t loop_count;   /* how many, less one */
	int32_t loop_patience; /* iterations that are to be run before the way in */
	/* A string instruction's (string.c): */
	int64_t string_over;  /* bytes that lie behind the source's page */
	uint64_t string_rest; /* elements behind those that run now */
	/* An access's in two pages (crossing.c): T0, T1 and where it goes on. */
	uint8_t *operand_page;
	uint64_t operand_offset;
	const uint8_t *go_on;
	uint64_t halves[2][4]; /* the end of one page and the beginning of the next */
	uint64_t call_rip;     /* where an indirect CALL leads */
	uint64_t rcx;	       /* while a ring is changed (ring_thunk.c), which uses go_on, too */
};

/* What generated code refers to by number when it calls a helper. */
struct site {
	struct translation *from;
	const uint8_t *resume; /* fill: the look-up again */
	const uint8_t *next;   /* after the instruction */
	uint8_t part;	       /* of the translation, that the instruction is in */
	uint8_t index;	       /* of the instruction in its block; of the link for a link */
	bool is_write;
	bool is_aligned; /* must be, or #GP */
	uint8_t size_bytes;
	uint8_t look_up_bytes; /* of code, from `resume` on; 0: it cannot go on behind it with an
				  operand in two pages */
	bool is_rare;	       /* translated, but not for this case */
	uint16_t mnemonic;     /* ZydisMnemonic; 0: it does not decode */
	int32_t undo_sp;       /* indirect branch to nowhere: what to add to RSP to take it back */
};

/* A direct way out of a block. */
struct link {
	uint64_t rip;
	const uint8_t *patch; /* the displacement, where it runs */
	const uint8_t *stub;  /* where it leads while it is not linked */
	struct translation *from, *to;
	struct link *next_in; /* other links to `to` */
};

/* One of the blocks that a translation runs through. */
struct part {
	struct block *block;
	uint64_t rip;
	uint8_t first; /* its first instruction's place in the translation */
	uint8_t rest;  /* instructions of the parts behind it */
};

#define PARTS_MAX 8

/* What of generated code depends on where in the guest or on the host it runs (relocate.c). */
enum place_kind {
	PLACE_ADDRESS, /* 8 bytes: an address that goes with the code's */
	PLACE_TLB,     /* the displacement of such a one's entry in the space's TLB */
	PLACE_JUMP,    /* the displacement in the jump table of the PLACE_ADDRESS before it */
	PLACE_THUNK,   /* the way to a thunk */
	PLACE_HELPER   /* a site's number; SITE_TO_THUNK behind it the way to a thunk */
};
#define SITE_TO_THUNK 5
#define PLACES_MAX 1024u

struct place {
	uint16_t offset; /* in the code */
	uint8_t kind;
};

/* Has one entry, at its first part, and a way out behind each. */
struct translation {
	struct block *block;	     /* the first part's, which it hangs on */
	struct translation *variant; /* of the same block at another address or privilege */
	const uint8_t *code;
	uint64_t rip;
	uint32_t code_bytes;
	uint8_t mode;  /* enum mmu_mode */
	uint8_t count; /* instructions of all parts */
	uint8_t part_count, link_count;
	bool is_bound; /* to its address: it cannot be relocated */
	uint16_t place_count, site_count;
	uint32_t first_site;
	struct place *places; /* shared with copies for other addresses */
	struct part *parts;
	struct link *links; /* room for TRANS_LINKS_MAX */
	struct link *incoming;
	struct slot *slot; /* that it lies in, or NULL */
};

/* Code that takes one short block after the other (rewritten.c); writable addresses. */
struct slot {
	struct translation *x;
	struct slot *next;     /* of the free ones */
	uint8_t *bytes;	       /* the block's */
	uint8_t *count[3];     /* its instructions, as immediates */
	uint8_t *calm, *guest; /* pointers */
	uint8_t *last, *whole; /* comparison of the last word; jump to those of the others */
	uint8_t *body;	       /* behind the comparisons */
	uint8_t *saving_tail, *tail;
};

/* Of one mode. */
struct slot_list {
	struct slot *first, *last; /* free ones, the oldest first */
	unsigned count;		   /* of all */
};

/* One behind each part and at the end; an inner loop has them once more. */
#define TRANS_LINKS_MAX(part_count) (2 * ((part_count) + 1))

struct trans;
struct guest_insn;
struct lockstep;

/* What SYSCALL or SYSRET made of STAR the last time (privilege.c). */
struct ring_gate {
	uint64_t star;
	struct segment_register cs, ss;
	bool is_made;
};

struct trans_vcpu {
	struct frame start; /* copied to the stack by the entry thunk */
	struct interp_vcpu *c;
	struct trans *trans;
	struct space *space;	   /* the present one */
	struct lockstep *lockstep; /* NULL: off */
	uint64_t budget_at;	   /* the frame's budget when cycles were last counted */
	uint64_t uses;
	uint8_t *windows;		  /* SPACE_USER_COUNT (space.h) */
	struct space *kernel, *kernel_ac; /* as the first has them */
	struct space *user[SPACE_USER_COUNT];
	struct space *last_user; /* one of them, or NULL */
	const uint8_t *gs;	 /* the window that GS points to */
	uint8_t kernel_key;	 /* whose jumps the kernel's spaces have */
	struct ring_gate syscall_gate, sysret_gate;
	/* statistics.c: instructions that run() has run, that generated code has, and that the
	 * interpreter executed meanwhile. */
	uint64_t executed, in_code;
	uint64_t interpreted[TRANS_WHY_COUNT][ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

/* Where translations were found last, by guest-physical address: one look instead of a walk along
 * the block cache's list and the block's. */
#ifdef GNOMON_HARD
#define FOUND_BITS 2
#else
#define FOUND_BITS 14
#endif
struct found {
	uint64_t place; /* found_place() */
	uint64_t rip;
	struct translation *x; /* NULL: nothing here */
	uint64_t unused;       /* two to a line of the host's cache */
};

#define TRANS_SITES_MAX (1u << 20)

struct trans {
	struct interp_translator translator; /* what interp sees */
	struct interp *interp;
	struct trans_vcpu **vcpus;
	/* The code cache (cache.c). */
	uint8_t *writable, *running;  /* the same memory, twice */
	size_t code_used, code_fixed; /* fixed: the thunks at its start */
	size_t code_gathered;	      /* in large pages, from the start on */
	uint64_t full_count;	      /* how often it was full */
	uint8_t *records;	      /* translations */
	size_t records_used;
	struct site *sites;
	uint32_t site_count;
	FILE *perf_map; /* NULL: nobody asked for it */
	/* Thunks (thunk.c), running addresses. */
	void (*enter)(struct trans_vcpu *t, const uint8_t *code);
	const uint8_t *leave, *take_micro[MMU_MODE_COUNT];
	const uint8_t *to_fill, *to_interpret, *to_end, *to_syscall, *to_sysret, *to_link,
		*to_indirect[MMU_MODE_COUNT], *to_budget, *to_changed, *to_vectors, *to_x87;
	struct guest_insn *insns; /* BLOCK_INSNS_MAX, of the block that is being translated */
	bool has_avx, has_x87;
	bool exact_flags; /* every exception shows the guest's flags as they were */
	bool has_fsgsbase, has_bmi1;
	struct found *found; /* 1 << FOUND_BITS */
	struct slot_list slots[MMU_MODE_COUNT];
	/* The link that led out last, to be patched when its target runs. */
	struct link *pending;
	uint64_t pending_rip;
};

/* The longest code of one guest instruction, slow paths included, and of a block. */
#define TRANS_INSN_CODE_MAX 740u
#define TRANS_LOOP_CODE_MAX (BLOCK_INSNS_MAX * 48u + (STREAMS_MAX + PARTS_MAX + 2) * 192u)
#define TRANS_BLOCK_CODE_MAX ((BLOCK_INSNS_MAX + 4) * TRANS_INSN_CODE_MAX + TRANS_LOOP_CODE_MAX)
#define TRANS_CODE_BYTES (32u << 20)
/* In hard mode, at first: the longest block, the thunks and one page. */
#define TRANS_CODE_TINY (TRANS_BLOCK_CODE_MAX + 2 * PAGE_SIZE_BYTES)
#define TRANS_CODE_PATIENCE 256u
#define TRANS_RECORD_BYTES (TRANS_CODE_BYTES)

/* cache.c */
int cache_init(struct trans *trans, struct error *e);
void cache_fini(struct trans *trans);
void cache_flush(struct trans *trans);
struct translation *cache_add(struct trans *trans, const struct part *parts, unsigned part_count);
struct slot *cache_take_slot(struct trans *trans, unsigned mode);
/* So many places as it has now. */
void cache_keep_places(struct trans *trans, const struct translation *x);
bool cache_has_room(const struct trans *trans);
/* So many bytes behind those that are in use are code now. */
void cache_take_code(struct trans *trans, uint64_t size_bytes);
uint32_t cache_add_site(struct trans *trans, struct site site);
void cache_link(struct trans *trans, struct link *l, struct translation *to);
/* Lets a link lead to `target`, and nothing else. */
void cache_lead(const struct trans *trans, const struct link *l, const uint8_t *target);
/* Nothing leads to `x` any more, and its own links lead nowhere. */
void cache_forget(struct trans *trans, struct translation *x);
/* The translation for this place, address and mode that was noted last, or NULL. */
struct translation *cache_recall(const struct trans *trans, uint64_t gpa, uint64_t rip,
				 const struct interp_vcpu *c);
void cache_note(struct trans *trans, struct translation *x);
void cache_dropped(void *opaque, struct block *b);
void cache_flushed(void *opaque);

/* relocate.c: the translation of `b` for this address and mode, perhaps made of one for another
 * address. NULL: there is none, or no room. */
struct translation *relocate_find(struct trans *trans, struct block *b, uint64_t rip,
				  unsigned mode);

/* perf_map.c: names for perf; nothing happens unless it was asked for. */
int perf_map_open(struct trans *trans, struct error *e);
void perf_map_close(struct trans *trans);
void perf_map_add(struct trans *trans, const struct translation *x);

/* statistics.c */
void statistics_note(struct trans_vcpu *t, const struct site *site, enum trans_why why);

/* lockstep.c: all but the first do nothing unless it is on. */
int lockstep_create(struct trans_vcpu *t, struct error *e);
void lockstep_destroy(struct trans_vcpu *t);
void lockstep_begin(struct trans_vcpu *t);
/* The block that runs will not be compared. */
void lockstep_void(struct trans_vcpu *t);
/* The page of `linear`, at `host`, may be written from now on. False: not with lockstep. */
bool lockstep_write(struct trans_vcpu *t, uint64_t linear, uint8_t *host);
void lockstep_end(struct trans_vcpu *t, const struct translation *x);

/* thunk.c: writes the thunks to the start of the code cache. */
void thunk_init(struct trans *trans);

/* translate.c: NULL if there is no point in translating it. */
struct translation *translate(struct trans_vcpu *t, struct block *b);

/* rewritten.c */

uint8_t rewritten_note(const struct decoded *x, const uint8_t *bytes);
/* The translation of `b` at RIP, or NULL if it is none of those that are made at once. */
struct translation *rewritten_translate(struct trans_vcpu *t, struct block *b);
/* Nothing leads to `x` any more. */
void rewritten_give_back(struct trans *trans, struct translation *x);

/* helper.c: called by generated code; each returns where to go on. */
const uint8_t *helper_fill(struct frame *f);
const uint8_t *helper_interpret(struct frame *f);
/* The same for a translation's last instruction. */
const uint8_t *helper_end(struct frame *f);
const uint8_t *helper_link(struct frame *f);
const uint8_t *helper_indirect(struct frame *f);
const uint8_t *helper_budget(struct frame *f);
/* A checked block is not what it was. */
const uint8_t *helper_changed(struct frame *f);
/* A block wants the vector registers. */
const uint8_t *helper_vectors(struct frame *f);
/* A block wants the x87 registers. */
const uint8_t *helper_x87(struct frame *f);
/* What generated code keeps for itself goes to the state; what ran since the last time is counted.
 */
void helper_take(struct frame *f);
void helper_count(struct trans_vcpu *t, const struct frame *f);
/* RIP is set and a block is over: generated code that goes on, or the way out. */
const uint8_t *helper_go_on(struct frame *f);
/* May code at this state run translated? */
bool helper_is_translatable(const struct interp_vcpu *c);
/* Chooses the space of the present mode and lets GS point to a window with it. */
void helper_choose_space(struct trans_vcpu *t);
/* Fills the budget from the clock's distance to its end. */
void helper_set_budget(struct trans_vcpu *t, struct frame *f);

/* crossing.c: NULL, or where the access goes on with an operand in two pages. Leaves the vector
 * registers alone. */
const uint8_t *crossing_find(struct frame *f);

/* privilege.c: helpers, as helper_end() for one instruction. */
const uint8_t *privilege_syscall(struct frame *f);
const uint8_t *privilege_sysret(struct frame *f);

/* ring_thunk.c: the way from user mode's SYSCALL, whose next address is in T1, or from the kernel's
 * SYSRET; to_c is the thunk of the helper above. */
const uint8_t *ring_thunk(struct emitter *e, const uint8_t *to_c, bool to_user);

/* code32.c: the frame's segments are the state's. */
void code32_take_segments(struct frame *f);

/* x87.c */

/* Does the processor note FIP, FDP and FOP at every x87 instruction? */
bool x87_notes_pointers(void);
/* Loads the guest's x87 registers. False: its instructions may trap and must be interpreted. */
bool x87_take(struct frame *f);
/* Puts them back into the state if they are loaded. */
void x87_put(struct frame *f);

/* Guest memory of translated code. */
static inline struct host_memory frame_slot(size_t offset)
{
	return (struct host_memory){.base = GPR_RSP, .index = NO_INDEX, .disp = (int32_t)offset};
}
/* A member of what T0 points to. */
static inline struct host_memory at_t0(size_t offset)
{
	return (struct host_memory){.base = HOST_T0, .index = NO_INDEX, .disp = (int32_t)offset};
}

/* A member of the space. */
static inline struct host_memory space_at(size_t member)
{
	return (struct host_memory){.is_gs = true, .is_absolute = true, .disp = (int32_t)member};
}

/* Word T0 of an array in it. */
static inline struct host_memory space_at_t0(size_t array)
{
	return (struct host_memory){.no_base = true,
				    .index = HOST_T0,
				    .shift = 3,
				    .is_gs = true,
				    .disp = (int32_t)array};
}

/* T0 = space_slot(T1). */
static inline void emit_tlb_slot(struct emitter *e)
{
	emit_rr(e, 0, 0x89, HOST_T1, HOST_T0); /* mov r11d, r14d */
	emit_rr(e, 0, 0xc1, 5, HOST_T0);       /* shr */
	emit_byte(e, PAGE_SHIFT);
	emit_rr(e, 0, 0x81, 4, HOST_T0); /* and */
	emit_word(e, SPACE_TLB_COUNT - 1);
}

/* T0 = where the jump table has T1, in words: an entry has two, and an index is scaled by 8 at
 * most.
 */
#define SPACE_JUMP_WORDS 2
static inline void emit_jump_slot(struct emitter *e)
{
	static_assert(sizeof(struct space_jump) == SPACE_JUMP_WORDS * 8, "T0 is scaled by 8");
	emit_rr(e, 0, 0x89, HOST_T1, HOST_T0); /* mov r11d, r14d */
	emit_rr(e, 0, 0xc1, 5, HOST_T0);       /* shr */
	emit_byte(e, SPACE_JUMP_SHIFT);
	emit_rr(e, 0, 0x31, HOST_T1, HOST_T0); /* xor r11d, r14d */
	emit_rr(e, 0, 0x81, 4, HOST_T0);       /* and */
	emit_word(e, SPACE_JUMP_WORDS * (SPACE_JUMP_COUNT - 1));
}

#define FRAME(member) frame_slot(offsetof(struct frame, member))
