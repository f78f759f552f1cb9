/*
 * SYSCALL from ring 3 and SYSRET to it without C: what privilege.c does, where nothing is unusual.
 *
 * Every check comes first, and whatever fails it goes on to the way through C with all registers as
 * they were. Then come the effects, in the order of privilege.c: what ran is counted for the ring
 * that it ran in, the state and the interpreter's view of it change ring, and generated code goes
 * on where the jump table of the other ring's space leads. The registers stay where they are, the
 * vector registers, too.
 *
 * What SYSCALL and SYSRET make of STAR is copied from what C made of it the last time
 * (privilege.c's gates).
 */
#include <stddef.h>

#include "engine/interp/ring.h"
#include "engine/trans/trans_private.h"
#include "ledger/ledger.h"

/* Bits that FMASK must clear, so that the kernel's flags are a constant; Linux clears more. */
#define CLEARED (FLAGS_ARITHMETIC | FLAG_TF | FLAG_RF | FLAG_AC)
#define NO_FLAGS (2u << 8) /* as the frame has them */
#define WAYS_TO_C 20u

struct way {
	struct emitter *e;
	uint8_t *to_c[WAYS_TO_C];
	unsigned count;
	bool to_user;
};

static struct host_memory at(unsigned base, size_t offset)
{
	return (struct host_memory){
		.base = (uint8_t)base, .index = NO_INDEX, .disp = (int32_t)offset};
}

#define STATE(member) offsetof(struct vcpu_state, member)
#define INTERP(member) offsetof(struct interp_vcpu, member)
#define TRANS(member) offsetof(struct trans_vcpu, member)

static void leave_if(struct way *y, unsigned condition)
{
	y->to_c[y->count++] = emit_jcc_forward(y->e, condition);
}

/* cmp with an immediate byte; opcode 80 for a byte, 83 for more. */
static void compare(struct way *y, unsigned flags, unsigned opcode, struct host_memory m,
		    unsigned byte)
{
	emit_rm(y->e, flags, opcode, 7, m);
	emit_byte(y->e, byte);
}

static void compare_word(struct way *y, unsigned reg, struct host_memory m)
{
	emit_rm(y->e, EMIT_W, 0x3b, reg, m);
}

static void put_word(struct way *y, unsigned flags, struct host_memory m, uint32_t value)
{
	emit_rm(y->e, flags, 0xc7, 0, m);
	emit_word(y->e, value);
}

static void put_byte(struct way *y, struct host_memory m, unsigned byte)
{
	emit_rm(y->e, 0, 0xc6, 0, m);
	emit_byte(y->e, byte);
}

/* op reg, imm32: `extension` 4 is AND, 1 OR, 0 ADD. */
static void with_constant(struct way *y, unsigned flags, unsigned extension, unsigned reg,
			  uint32_t value)
{
	emit_rr(y->e, flags, 0x81, extension, reg);
	emit_word(y->e, value);
}

static size_t gate_offset(const struct way *y)
{
	return y->to_user ? TRANS(sysret_gate) : TRANS(syscall_gate);
}

/* ---- checks ---- */

/* As privilege.c's is_plain(); RAX becomes the vcpu's, RCX is free. T0: trans_vcpu, T1: state. */
static void check_plain(struct way *y)
{
	struct emitter *e = y->e;
	emit_load(e, HOST_T0, FRAME(requests));
	compare(y, 0, 0x83, at_t0(0), 0);
	leave_if(y, CONDITION_NE);
	emit_load(e, HOST_T0, FRAME(t));
	emit_load(e, HOST_T1, FRAME(state));
	emit_load(e, GPR_RAX, FRAME(c));
	compare(y, 0, 0x83, at(GPR_RAX, INTERP(attention)), 0);
	leave_if(y, CONDITION_NE);
	compare(y, EMIT_W, 0x83, at_t0(TRANS(lockstep)), 0);
	leave_if(y, CONDITION_NE);
	emit_rm(e, 0, 0xf6, 0, at(HOST_T1, STATE(efer))); /* test byte */
	emit_byte(e, EFER_SCE);
	leave_if(y, CONDITION_E);
	/* The gate is of this STAR. */
	compare(y, 0, 0x80, at_t0(gate_offset(y) + offsetof(struct ring_gate, is_made)), 0);
	leave_if(y, CONDITION_E);
	emit_load(e, GPR_RCX, at(HOST_T1, STATE(star)));
	compare_word(y, GPR_RCX, at_t0(gate_offset(y) + offsetof(struct ring_gate, star)));
	leave_if(y, CONDITION_NE);
}

/* No access of C's has to be counted for the ring that is left (ring_fold_accesses). */
static void check_accesses(struct way *y)
{
	struct emitter *e = y->e;
	emit_load(e, GPR_RCX, at(GPR_RAX, INTERP(mmu)));
	emit_load(e, GPR_RCX, at(GPR_RCX, offsetof(struct mmu, use_clock)));
	compare_word(y, GPR_RCX, at(GPR_RAX, INTERP(folded_uses)));
	leave_if(y, CONDITION_NE);
	emit_load(e, GPR_RCX, at(GPR_RAX, INTERP(write_count)));
	emit_rm(e, EMIT_W, 0x0b, GPR_RCX, at(GPR_RAX, INTERP(fetch_count))); /* or */
	leave_if(y, CONDITION_NE);
}

/* The kernel's jumps are of the present mode of code, and its flags what they always are. */
static void check_kernel(struct way *y)
{
	struct emitter *e = y->e;
	emit_rm(e, EMIT_0F, 0xb6, GPR_RCX, at(GPR_RAX, INTERP(key))); /* movzx */
	emit_rm(e, 0, 0x3a, GPR_RCX, at_t0(TRANS(kernel_key)));	      /* cmp cl, byte */
	leave_if(y, CONDITION_NE);
	emit_load(e, GPR_RCX, at(HOST_T1, STATE(fmask)));
	emit_rr(e, 0, 0xf7, 2, GPR_RCX); /* not */
	emit_rr(e, 0, 0xf7, 0, GPR_RCX); /* test */
	emit_word(e, CLEARED);
	leave_if(y, CONDITION_NE);
}

/* The user's space is the one that GS has, its address one of 48 bits, and no flag of those that C
 * has to look at is asked for. */
static void check_user(struct way *y)
{
	struct emitter *e = y->e;
	emit_load(e, GPR_RCX, FRAME(rcx));
	emit_rr(e, EMIT_W, 0xc1, 4, GPR_RCX); /* shl, sar: the sign of 48 bits */
	emit_byte(e, 16);
	emit_rr(e, EMIT_W, 0xc1, 7, GPR_RCX);
	emit_byte(e, 16);
	compare_word(y, GPR_RCX, FRAME(rcx));
	leave_if(y, CONDITION_NE);
	emit_rm(e, 0, 0xf7, 0, FRAME(home)); /* test dword */
	emit_word(e, FLAG_TF | FLAG_AC);
	leave_if(y, CONDITION_NE);
	emit_load(e, GPR_RCX, at_t0(TRANS(last_user)));
	compare_word(y, GPR_RCX, at_t0(TRANS(gs)));
	leave_if(y, CONDITION_NE);
	emit_rr(e, EMIT_W, 0x85, GPR_RCX, GPR_RCX); /* test */
	leave_if(y, CONDITION_E);
	compare(y, 0, 0x80, at(GPR_RCX, offsetof(struct space, is_valid)), 0);
	leave_if(y, CONDITION_E);
	emit_rm(e, EMIT_0F, 0xb6, GPR_RAX, at(GPR_RAX, INTERP(key)));		/* movzx */
	emit_rm(e, 0, 0x3a, GPR_RAX, at(GPR_RCX, offsetof(struct space, key))); /* cmp al, byte */
	leave_if(y, CONDITION_NE);
	emit_load(e, GPR_RAX, at(HOST_T1, STATE(cr3)));
	compare_word(y, GPR_RAX, at(GPR_RCX, offsetof(struct space, cr3)));
	leave_if(y, CONDITION_NE);
}

/* Where the jump table leads from T1, into the frame. Both of its places may have it. */
static void find_target(struct way *y)
{
	struct emitter *e = y->e;
	const struct host_memory rip = space_at_t0(offsetof(struct space, jumps[0].rip));
	e->space_at = space_place(y->to_user ? MMU_USER : MMU_SUPERVISOR);
	emit_jump_slot(e);
	compare_word(y, HOST_T1, rip);
	uint8_t *found = emit_jcc_forward(e, CONDITION_E);
	emit_rr(e, 0, 0x83, 6, HOST_T0); /* xor */
	emit_byte(e, SPACE_JUMP_WORDS);
	compare_word(y, HOST_T1, rip);
	leave_if(y, CONDITION_NE);
	emit_patch(found, e->at);
	emit_load(e, GPR_RCX, space_at_t0(offsetof(struct space, jumps[0].code)));
	emit_store(e, FRAME(go_on), GPR_RCX);
}

/* ---- effects; T0: trans_vcpu, T1: state, RAX: the interpreter's vcpu ---- */

/* helper_count(), for the ring that is left. */
static void count(struct way *y)
{
	struct emitter *e = y->e;
	enum ring ring = y->to_user ? RING_KERNEL : RING_USER;
	const size_t row = sizeof(((struct ledger *)NULL)->count[0]), of_ring = ring * 8;
	emit_rm(e, EMIT_W, 0x63, GPR_RCX, FRAME(budget)); /* movsxd */
	emit_load(e, HOST_T1, at_t0(TRANS(budget_at)));
	emit_store(e, at_t0(TRANS(budget_at)), GPR_RCX);
	emit_rr(e, EMIT_W, 0x29, GPR_RCX, HOST_T1); /* sub */
	emit_rm(e, EMIT_W, 0x01, HOST_T1, at_t0(TRANS(in_code)));
	emit_rm(e, EMIT_W, 0x01, HOST_T1, at(GPR_RAX, INTERP(cycles)));
	emit_load(e, GPR_RCX, at(GPR_RAX, INTERP(ledger)));
	emit_rm(e, EMIT_W, 0x01, HOST_T1,
		at(GPR_RCX, offsetof(struct ledger, count) + EVENT_INSTRUCTION * row + of_ring));
	if (!y->to_user) {
		emit_rm(e, EMIT_W, 0x83, 0, /* add */
			at(GPR_RCX,
			   offsetof(struct ledger, count) + EVENT_GUEST_SYSCALL * row + of_ring));
		emit_byte(e, 1);
	}
	put_word(y, 0, at(GPR_RCX, offsetof(struct ledger, ring)),
		 y->to_user ? RING_USER : RING_KERNEL);
	emit_load(e, HOST_T1, FRAME(state));
}

/* ring_changed() and helper_choose_space(). */
static void change_mode(struct way *y)
{
	struct emitter *e = y->e;
	const uint32_t step =
		(uint32_t)sizeof(((struct mmu *)0)->fast[0]) * (MMU_USER - MMU_SUPERVISOR);
	unsigned mode = y->to_user ? MMU_USER : MMU_SUPERVISOR;
	put_byte(y, at(GPR_RAX, INTERP(mode)), mode);
	put_byte(y, at(GPR_RAX, INTERP(fetch_mode)), mode);
	emit_rm(e, EMIT_W, 0x81, y->to_user ? 0 : 5, at(GPR_RAX, INTERP(fast_read)));
	emit_word(e, step);
	emit_rm(e, EMIT_W, 0x81, y->to_user ? 0 : 5, at(GPR_RAX, INTERP(fast_write)));
	emit_word(e, step);
	emit_load(e, GPR_RCX, at_t0(y->to_user ? TRANS(last_user) : TRANS(kernel)));
	emit_store(e, at_t0(TRANS(space)), GPR_RCX);
}

static void put_segment(struct way *y, unsigned segment, size_t from)
{
	struct emitter *e = y->e;
	size_t to = STATE(seg) + segment * sizeof(struct segment_register);
	static_assert(offsetof(struct segment_register, limit) == 8, "two words");
	put_word(y, EMIT_W, at(HOST_T1, to), 0);
	emit_load(e, GPR_RCX, at_t0(gate_offset(y) + from + 8));
	emit_store(e, at(HOST_T1, to + 8), GPR_RCX);
}

static void change_segments(struct way *y)
{
	put_segment(y, SEG_CS, offsetof(struct ring_gate, cs));
	put_segment(y, SEG_SS, offsetof(struct ring_gate, ss));
	put_byte(y, at(HOST_T1, STATE(cpl)), y->to_user ? 3 : 0);
}

/* RFLAGS goes to R11; RAX and RCX are free now. */
static void mask_flags(struct way *y)
{
	struct emitter *e = y->e;
	emit_rm(e, EMIT_0F, 0xb7, GPR_RAX, FRAME(flags)); /* movzx eax, word */
	emit_rr(e, 0, 0x89, GPR_RAX, GPR_RCX);		  /* mov ecx, eax */
	emit_rr(e, 0, 0xc1, 5, GPR_RCX);		  /* shr */
	emit_byte(e, 8);
	with_constant(y, 0, 4, GPR_RCX, 0xd5);
	with_constant(y, 0, 4, GPR_RAX, 1);
	emit_rr(e, 0, 0xc1, 4, GPR_RAX); /* shl */
	emit_byte(e, 11);
	emit_rr(e, 0, 0x09, GPR_RAX, GPR_RCX); /* or */
	emit_load(e, GPR_RAX, at(HOST_T1, STATE(rflags)));
	with_constant(y, EMIT_W, 4, GPR_RAX, (uint32_t) ~(FLAGS_ARITHMETIC | FLAG_RF));
	emit_rr(e, EMIT_W, 0x09, GPR_RCX, GPR_RAX);
	with_constant(y, EMIT_W, 1, GPR_RAX, FLAG_FIXED1);
	emit_store(e, FRAME(home), GPR_RAX);
	emit_load(e, GPR_RCX, at(HOST_T1, STATE(fmask)));
	emit_rr(e, EMIT_W, 0xf7, 2, GPR_RCX); /* not */
	emit_rr(e, EMIT_W, 0x21, GPR_RCX, GPR_RAX);
	emit_store(e, at(HOST_T1, STATE(rflags)), GPR_RAX);
	put_word(y, 0, FRAME(flags), NO_FLAGS); /* and the two bytes above, which are nobody's */
}

/* R11 goes to RFLAGS. */
static void take_flags(struct way *y)
{
	struct emitter *e = y->e;
	emit_load(e, GPR_RAX, FRAME(home));
	emit_rr(e, 0, 0x89, GPR_RAX, GPR_RCX);
	with_constant(y, 0, 4, GPR_RCX, (uint32_t)RING_SYSRET_FLAGS & (uint32_t)~FLAGS_ARITHMETIC);
	with_constant(y, 0, 1, GPR_RCX, FLAG_FIXED1);
	emit_store(e, at(HOST_T1, STATE(rflags)), GPR_RCX);
	emit_rr(e, 0, 0x89, GPR_RAX, GPR_RCX);
	with_constant(y, 0, 4, GPR_RAX, 0xd5);
	with_constant(y, 0, 1, GPR_RAX, FLAG_FIXED1);
	emit_rr(e, 0, 0xc1, 4, GPR_RAX); /* shl */
	emit_byte(e, 8);
	emit_rr(e, 0, 0xc1, 5, GPR_RCX); /* shr */
	emit_byte(e, 11);
	with_constant(y, 0, 4, GPR_RCX, 1);
	emit_rr(e, 0, 0x09, GPR_RCX, GPR_RAX);
	emit_rm(e, 0, 0x89, GPR_RAX, FRAME(flags));
}

static void emit_effects(struct way *y)
{
	struct emitter *e = y->e;
	emit_load(e, GPR_RCX, y->to_user ? FRAME(rcx) : at(HOST_T1, STATE(lstar)));
	emit_store(e, at(HOST_T1, STATE(rip)), GPR_RCX);
	emit_load(e, HOST_T0, FRAME(t));
	emit_load(e, GPR_RAX, FRAME(c));
	count(y);
	change_mode(y);
	change_segments(y);
	if (y->to_user)
		take_flags(y);
	else
		mask_flags(y);
	emit_load(e, GPR_RAX, FRAME(rax));
	emit_load(e, GPR_RCX, y->to_user ? FRAME(rcx) : FRAME(linear));
	emit_rm(e, 0, 0xff, 4, FRAME(go_on)); /* jmp */
}

const uint8_t *ring_thunk(struct emitter *e, const uint8_t *to_c, bool to_user)
{
	const uint8_t *start = emitter_here(e);
	struct way y = {.e = e, .to_user = to_user};
	emit_rm(e, 0, 0x89, HOST_T0, FRAME(site));
	emit_store(e, FRAME(linear), HOST_T1);
	emit_store(e, FRAME(rax), GPR_RAX);
	emit_store(e, FRAME(rcx), GPR_RCX);
	check_plain(&y);
	check_accesses(&y);
	if (to_user)
		check_user(&y);
	else
		check_kernel(&y);
	if (to_user)
		emit_load(e, HOST_T1, FRAME(rcx));
	else
		emit_load(e, HOST_T1, at(HOST_T1, STATE(lstar)));
	find_target(&y);
	emit_load(e, HOST_T1, FRAME(state));
	emit_effects(&y);
	for (unsigned k = 0; k < y.count; k++)
		emit_patch(y.to_c[k], e->at);
	emit_rm(e, 0, 0x8b, HOST_T0, FRAME(site)); /* mov r11d, */
	emit_load(e, HOST_T1, FRAME(linear));
	emit_load(e, GPR_RAX, FRAME(rax));
	emit_load(e, GPR_RCX, FRAME(rcx));
	emit_jmp(e, to_c);
	return start;
}
