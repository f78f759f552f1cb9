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
	for (unsigned at = 0; at < sizeof(struct frame); at += 8) {
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
	emit_byte(e, 0xc3);
}

/* T0: the site, T1: the address that is accessed or gone to. */
static const uint8_t *emit_thunk(struct emitter *e, const uint8_t *(*helper)(struct frame *))
{
	const uint8_t *start = emitter_here(e);
	unsigned host;
	emit_rm(e, 0, 0x89, HOST_T0, FRAME(site));
	emit_store(e, FRAME(linear), HOST_T1);
	emit_load(e, HOST_T0, FRAME(state));
	for (unsigned guest = 0; next_mapped(&guest, &host); guest++)
		emit_store(e, state_gpr(guest), host);
	emit_mov(e, GPR_RDI, GPR_RSP);
	emit_constant(e, GPR_RAX, (uint64_t)(uintptr_t)helper);
	emit_byte(e, 0xff); /* call rax */
	emit_byte(e, 0xd0);
	emit_mov(e, HOST_T1, GPR_RAX);
	emit_go(e);
	return start;
}

void thunk_init(struct trans *trans)
{
	struct emitter e = {trans->writable, trans->running - trans->writable};
	const uint8_t *enter = emitter_here(&e);
	trans->enter = (void (*)(struct trans_vcpu *, const uint8_t *))(uintptr_t)enter;
	emit_enter(&e);
	trans->leave = emitter_here(&e);
	emit_leave(&e);
	trans->to_fill = emit_thunk(&e, helper_fill);
	trans->to_interpret = emit_thunk(&e, helper_interpret);
	trans->to_link = emit_thunk(&e, helper_link);
	trans->to_indirect = emit_thunk(&e, helper_indirect);
	trans->to_budget = emit_thunk(&e, helper_budget);
	trans->code_used = trans->code_fixed = align_up((uint64_t)(e.at - trans->writable), 64);
}
