/*
 * The thunks between C and generated code: entry, exit, and calls of helpers.
 *
 * The frame lies on the ordinary stack, so that helpers run on the stack that they would have
 * anyway and a fault may leave with longjmp(). A helper's call stores the guest's registers to
 * vcpu_state and loads them again afterwards, for helpers change them.
 */
#include <stddef.h>

#include "engine/trans/trans_private.h"

#define FRAME_BYTES align_up(sizeof(struct frame), 16) + 8 /* RSP is aligned again at calls */

static const uint8_t callee_saved[] = {GPR_RBX, GPR_RBP, GPR_R12, GPR_R13, GPR_R14, GPR_R15};

/* The host register of each guest register that has one. */
static bool next_mapped(unsigned *guest, unsigned *host)
{
	for (; *guest < GPR_COUNT; ++*guest) {
		if (*guest == GPR_R11 || *guest == GPR_R14 || *guest == GPR_R15)
			continue;
		*host = *guest == GPR_RSP ? HOST_GUEST_RSP : *guest;
		return true;
	}
	return false;
}

static struct host_memory state_gpr(unsigned guest)
{
	return (struct host_memory){
		.base = HOST_T0, .index = NO_INDEX, .disp = (int32_t)(8 * guest)};
}

static void emit_load_guest(struct emitter *e)
{
	unsigned host;
	emit_load(e, HOST_T0, FRAME(state));
	for (unsigned guest = 0; next_mapped(&guest, &host); guest++)
		emit_load(e, host, state_gpr(guest));
}

/* The middle byte of VEX where the base is T0, which is above 7. */
static unsigned vex_map(unsigned reg, unsigned map)
{
	return (reg < 8) << 7 | 0x40 | map;
}

/* vmovdqu or movdqu between all vector registers and the state; opcode 6F loads, 7F stores. T0 has
 * the state. */
static void emit_vectors(struct emitter *e, unsigned opcode, bool is_avx)
{
	for (unsigned reg = 0; reg < 16; reg++) {
		struct host_memory m = at_t0(offsetof(struct vcpu_state, fpu.ymm) + 32 * reg);
		if (!is_avx) {
			emit_rm(e, EMIT_F3 | EMIT_0F, opcode, reg, m);
			continue;
		}
		emit_byte(e, 0xc4);
		emit_byte(e, vex_map(reg, 1));
		emit_byte(e, 0x7e);
		emit_byte(e, opcode);
		emit_modrm(e, reg, m);
	}
}

/*
 * Sets ZF if the upper halves of all vector registers in the state are 0. T0 has the state.
 *
 * They are while nothing uses AVX, and then the host's registers must be loaded by SSE behind a
 * VZEROUPPER: while the processor takes upper halves to be in use, each SSE instruction keeps that
 * of its destination and waits for whoever wrote it last.
 */
static void emit_test_uppers(struct emitter *e)
{
	for (unsigned reg = 0; reg < 16; reg++) {
		emit_byte(e, 0xc4); /* vmovdqu xmm0, m; vpor xmm0, xmm0, m */
		emit_byte(e, vex_map(0, 1));
		emit_byte(e, reg ? 0x79 : 0x7a);
		emit_byte(e, reg ? 0xeb : 0x6f);
		emit_modrm(e, 0, at_t0(offsetof(struct vcpu_state, fpu.ymm) + 32 * reg + 16));
	}
	emit_byte(e, 0xc4); /* vptest xmm0, xmm0 */
	emit_byte(e, 0xe2);
	emit_byte(e, 0x79);
	emit_byte(e, 0x17);
	emit_byte(e, 0xc0);
}

static void emit_vzeroupper(struct emitter *e)
{
	emit_byte(e, 0xc5);
	emit_byte(e, 0xf8);
	emit_byte(e, 0x77);
}

static void emit_mxcsr(struct emitter *e, unsigned extension, struct host_memory m)
{
	emit_rm(e, EMIT_0F, 0xae, extension, m);
}

#define RETURN 0xc3

/* What the thunks have in common, to be called with the state in T0. */
struct shared {
	const uint8_t *put_vectors, *take_vectors;
};

/* The guest's vector registers go to the state; C runs with its own MXCSR. */
static const uint8_t *emit_put_vectors(struct trans *trans, struct emitter *e)
{
	const uint8_t *start = emitter_here(e);
	emit_vectors(e, 0x7f, trans->has_avx);
	emit_mxcsr(e, 3, at_t0(offsetof(struct vcpu_state, fpu.mxcsr)));
	emit_mxcsr(e, 2, frame_slot(8 + offsetof(struct frame, c_mxcsr))); /* behind the return */
	if (trans->has_avx)
		emit_vzeroupper(e);
	emit_byte(e, RETURN);
	return start;
}

static const uint8_t *emit_take_vectors(struct trans *trans, struct emitter *e)
{
	const uint8_t *start = emitter_here(e);
	if (trans->has_avx) {
		emit_test_uppers(e);
		uint8_t *are_used = emit_jcc_forward(e, CONDITION_NE);
		emit_vzeroupper(e);
		emit_vectors(e, 0x6f, false);
		uint8_t *done = emit_jmp_forward(e);
		emit_patch(are_used, e->at);
		emit_vectors(e, 0x6f, true);
		emit_patch(done, e->at);
	} else {
		emit_vectors(e, 0x6f, false);
	}
	emit_mxcsr(e, 2, at_t0(offsetof(struct vcpu_state, fpu.mxcsr)));
	emit_byte(e, RETURN);
	return start;
}

static void emit_if_vectors(struct emitter *e, const uint8_t *routine)
{
	emit_rm(e, 0, 0x80, 7, FRAME(vectors)); /* cmp byte, 0 */
	emit_byte(e, 0);
	uint8_t *skip = emit_jcc_forward(e, CONDITION_E);
	emit_byte(e, 0xe8); /* call */
	emit_word(e, (uint32_t)(routine - emitter_here(e) - 4));
	emit_patch(skip, e->at);
}

/* T1 has the address to go on at. */
static void emit_go(struct emitter *e)
{
	emit_load_guest(e);
	emit_byte(e, 0x41); /* jmp r14 */
	emit_byte(e, 0xff);
	emit_byte(e, 0xe0 | (HOST_T1 & 7));
}

static void emit_enter(struct emitter *e)
{
	for (unsigned k = 0; k < ARRAY_COUNT(callee_saved); k++) {
		if (callee_saved[k] >= 8)
			emit_byte(e, 0x41);
		emit_byte(e, 0x50 | (callee_saved[k] & 7));
	}
	emit_lea(e, GPR_RSP, frame_slot(-(size_t)(FRAME_BYTES)));
	for (unsigned at = 0; at < offsetof(struct frame, streams); at += 8) {
		emit_load(e, GPR_RAX,
			  (struct host_memory){
				  .base = GPR_RDI, .index = NO_INDEX, .disp = (int32_t)at});
		emit_store(e, frame_slot(at), GPR_RAX);
	}
	emit_mov(e, HOST_T1, GPR_RSI);
	emit_go(e);
}

static void emit_leave(struct emitter *e)
{
	emit_lea(e, GPR_RSP, frame_slot(FRAME_BYTES));
	for (unsigned k = ARRAY_COUNT(callee_saved); k-- > 0;) {
		if (callee_saved[k] >= 8)
			emit_byte(e, 0x41);
		emit_byte(e, 0x58 | (callee_saved[k] & 7));
	}
	emit_byte(e, RETURN);
}

/* The second place that the jump table has for T1; destroys T0. */
static void emit_second_place(struct emitter *e)
{
	emit_jump_slot(e);
	emit_rr(e, 0, 0x83, 6, HOST_T0); /* xor */
	emit_byte(e, SPACE_JUMP_WORDS);
	emit_rm(e, EMIT_W, 0x3b, HOST_T1, space_at_t0(offsetof(struct space, jumps[0].rip)));
	uint8_t *miss = emit_jcc_forward(e, CONDITION_NE);
	emit_rm(e, 0, 0xff, 4, space_at_t0(offsetof(struct space, jumps[0].code))); /* jmp */
	emit_patch(miss, e->at);
}

/* Calls a function of the frame. */
static void emit_call(struct emitter *e, uint64_t function)
{
	emit_mov(e, GPR_RDI, GPR_RSP);
	emit_constant(e, GPR_RAX, function);
	emit_byte(e, 0xff); /* call rax */
	emit_byte(e, 0xd0);
}

/* An access in two pages may go on at once; the registers are in the state. */
static void emit_crossing(struct emitter *e)
{
	static const uint8_t caller_saved[] = {GPR_RAX, GPR_RCX, GPR_RDX, GPR_RSI,
					       GPR_RDI, GPR_R8,	 GPR_R9,  GPR_R10};
	emit_call(e, (uint64_t)(uintptr_t)crossing_find);
	emit_rr(e, EMIT_W, 0x85, GPR_RAX, GPR_RAX); /* test */
	uint8_t *none = emit_jcc_forward(e, CONDITION_E);
	emit_store(e, FRAME(go_on), GPR_RAX);
	emit_load(e, HOST_T0, FRAME(state));
	for (unsigned k = 0; k < ARRAY_COUNT(caller_saved); k++)
		emit_load(e, caller_saved[k], state_gpr(caller_saved[k]));
	emit_load(e, HOST_T0, FRAME(operand_page));
	emit_load(e, HOST_T1, FRAME(operand_offset));
	emit_rm(e, 0, 0xff, 4, FRAME(go_on)); /* jmp */
	emit_patch(none, e->at);
	emit_load(e, HOST_T0, FRAME(state));
}

/* T0: the site, T1: the address that is accessed or gone to. */
static const uint8_t *emit_thunk(struct emitter *e, const struct shared *shared,
				 const uint8_t *(*helper)(struct frame *))
{
	const uint8_t *start = emitter_here(e);
	unsigned host;
	emit_rm(e, 0, 0x89, HOST_T0, FRAME(site));
	if (helper == helper_indirect)
		emit_second_place(e);
	emit_store(e, FRAME(linear), HOST_T1);
	emit_load(e, HOST_T0, FRAME(state));
	for (unsigned guest = 0; next_mapped(&guest, &host); guest++)
		emit_store(e, state_gpr(guest), host);
	if (helper == helper_fill)
		emit_crossing(e);
	emit_if_vectors(e, shared->put_vectors);
	emit_call(e, (uint64_t)(uintptr_t)helper);
	emit_mov(e, HOST_T1, GPR_RAX);
	emit_load(e, HOST_T0, FRAME(state));
	emit_if_vectors(e, shared->take_vectors);
	emit_go(e);
	return start;
}

/*
 * A routine: the micro-TLB takes over what the TLB has of T1's page if that may be written. Keeps
 * T1.
 */
static const uint8_t *emit_take_micro(struct emitter *e)
{
	const uint8_t *start = emitter_here(e);
	const struct host_memory address = frame_slot(8 + offsetof(struct frame, micro_address));
	emit_store(e, address, HOST_T1);
	emit_tlb_slot(e);
	emit_rm(e, EMIT_W, 0x33, HOST_T1, space_at_t0(offsetof(struct space, write))); /* xor */
	emit_rr(e, EMIT_W, 0x81, 7, HOST_T1);					       /* cmp */
	emit_word(e, PAGE_SIZE_BYTES);
	uint8_t *none = emit_jcc_forward(e, CONDITION_AE);
	emit_load(e, HOST_T0, space_at_t0(offsetof(struct space, page)));
	emit_store(e, space_at(offsetof(struct space, stack.page)), HOST_T0);
	emit_rm(e, EMIT_W, 0x33, HOST_T1, address); /* xor: the page's number */
	emit_store(e, space_at(offsetof(struct space, stack.tag)), HOST_T1);
	emit_patch(none, e->at);
	emit_load(e, HOST_T1, address);
	emit_byte(e, RETURN);
	return start;
}

void thunk_init(struct trans *trans)
{
	struct emitter e = {trans->writable, trans->running - trans->writable, 0};
	const uint8_t *enter = emitter_here(&e);
	trans->enter = (void (*)(struct trans_vcpu *, const uint8_t *))(uintptr_t)enter;
	emit_enter(&e);
	trans->leave = emitter_here(&e);
	emit_leave(&e);
	struct shared shared = {emit_put_vectors(trans, &e), emit_take_vectors(trans, &e)};
	trans->to_fill = emit_thunk(&e, &shared, helper_fill);
	trans->to_interpret = emit_thunk(&e, &shared, helper_interpret);
	trans->to_end = emit_thunk(&e, &shared, helper_end);
	const uint8_t *syscall = emit_thunk(&e, &shared, privilege_syscall),
		      *sysret = emit_thunk(&e, &shared, privilege_sysret);
	trans->to_syscall = ring_thunk(&e, syscall, false);
	trans->to_sysret = ring_thunk(&e, sysret, true);
	trans->to_link = emit_thunk(&e, &shared, helper_link);
	for (unsigned mode = 0; mode < MMU_MODE_COUNT; mode++) {
		e.space_at = space_place(mode);
		trans->to_indirect[mode] = emit_thunk(&e, &shared, helper_indirect);
		trans->take_micro[mode] = emit_take_micro(&e);
	}
	trans->to_budget = emit_thunk(&e, &shared, helper_budget);
	trans->to_changed = emit_thunk(&e, &shared, helper_changed);
	trans->to_vectors = emit_thunk(&e, &shared, helper_vectors);
	trans->to_x87 = emit_thunk(&e, &shared, helper_x87);
	trans->code_used = trans->code_fixed = align_up((uint64_t)(e.at - trans->writable), 64);
}
