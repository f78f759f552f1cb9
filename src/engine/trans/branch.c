/*
 * The ends of blocks: near jumps, calls and returns, and the code behind a block.
 *
 * A direct way inside the page is a jump that is patched once its target is translated (a link). A
 * way to another page or to an instruction that may lie in two, and every indirect one, goes
 * through the space's jump table: the page it leads to may be another one tomorrow, and then the
 * table is emptied.
 */
#include "engine/trans/translate_private.h"

/* In the block's page, and not an instruction that may reach beyond its end: that one's other page
 * is looked at on every way to it. */
static bool is_linkable(const struct work *w, uint64_t rip)
{
	return rip >> PAGE_SHIFT == w->x->rip >> PAGE_SHIFT &&
	       (rip & PAGE_OFFSET_MASK) + INSN_BYTES_MAX <= PAGE_SIZE_BYTES;
}

/* The displacement at `patch` is a link to `rip`. */
static void add_link(struct work *w, uint64_t rip, uint8_t *patch)
{
	unsigned n = w->x->link_count++;
	w->x->links[n] = (struct link){.rip = rip, .patch = patch + w->e.to_running, .from = w->x};
	struct slow *s = add_slow(w, SLOW_LINK, patch);
	s->site = add_site(w, (struct site){0});
	w->trans->sites[s->site].index = (uint8_t)n;
}

static struct host_memory jump_table(size_t member, unsigned slot)
{
	return space_at(member + sizeof(struct space_jump) * slot);
}

/* T1 is where to go. */
static void emit_table_miss(struct work *w, int undo_sp)
{
	uint32_t site = add_site(w, (struct site){.undo_sp = undo_sp});
	emit_call_helper(w, site, w->trans->to_indirect[w->asked]);
}

/* To a constant address in another page. */
void emit_far_exit(struct work *w, uint64_t rip)
{
	struct emitter *e = &w->e;
	unsigned slot = space_jump_slot(rip);
	emit_address(w, HOST_T1, rip);
	emit_rm(e, EMIT_W, 0x3b, HOST_T1, jump_table(offsetof(struct space, jumps[0].rip), slot));
	place_add(w, PLACE_JUMP, e->at - 4);
	uint8_t *miss = emit_jcc_forward(e, CONDITION_NE);
	emit_rm(e, 0, 0xff, 4, jump_table(offsetof(struct space, jumps[0].code), slot));
	place_add(w, PLACE_JUMP, e->at - 4);
	emit_patch(miss, e->at);
	emit_table_miss(w, 0);
}

/* T0 = T1's slot. Returns the jump that is taken where the table does not have T1. */
static uint8_t *emit_find_slot(struct emitter *e)
{
	emit_jump_slot(e);
	emit_rm(e, EMIT_W, 0x3b, HOST_T1, space_at_t0(offsetof(struct space, jumps[0].rip)));
	return emit_jcc_forward(e, CONDITION_NE);
}

void emit_indirect(struct work *w, int undo_sp)
{
	struct emitter *e = &w->e;
	uint8_t *miss = emit_find_slot(e);
	emit_rm(e, 0, 0xff, 4, space_at_t0(offsetof(struct space, jumps[0].code)));
	emit_patch(miss, e->at);
	emit_table_miss(w, undo_sp);
}

void emit_exit(struct work *w, uint64_t rip)
{
	if (is_linkable(w, rip))
		add_link(w, rip, emit_jmp_forward(&w->e));
	else
		emit_far_exit(w, rip);
}

/* ---- the instructions ---- */

/* To the next iteration, where the flags are rarely needed, or on. */
static void translate_back_edge(struct work *w)
{
	unsigned condition = flags_want_condition(w, w->loop->condition);
	if (w->live_before[0])
		flags_leave(w);
	w->loop->back = emit_jcc_forward(&w->e, condition);
	flags_leave(w);
	emit_exit(w, w->loop->exit);
}

static void translate_jcc(struct work *w)
{
	uint64_t target = branch_target(w->g);
	unsigned condition = flags_want_condition(w, w->g->d.opcode & 15);
	flags_leave(w);
	uint8_t *taken = emit_jcc_forward(&w->e, condition);
	emit_exit(w, branch_next(w->g));
	if (is_linkable(w, target))
		add_link(w, target, taken);
	else
		add_slow(w, SLOW_JUMP, taken)->rip = target;
}

void emit_push_return(struct work *w)
{
	struct emitter *e = &w->e;
	uint64_t rip = branch_next(w->g);
	int bytes = word_bytes(w);
	struct guest_address below_top = stack_address(w->g, GPR_RSP, -bytes);
	struct host_memory at = access_emit(w, &below_top, (unsigned)bytes, true);
	if (w->is_code32 || rip == (uint64_t)(int64_t)(int32_t)rip) {
		emit_rm(e, word_flags(w), 0xc7, 0, at);
		emit_word(e, (uint32_t)rip);
		w->x->is_bound = true;
	} else {
		at = access_in_t0(w, at);
		emit_address(w, HOST_T1, rip);
		emit_store(e, at, HOST_T1);
	}
	stack_move(w, -bytes);
}

/* T1 = where the operand leads. */
static bool emit_target(struct work *w)
{
	const ZydisDecodedOperand *o = &w->g->operands[0];
	struct guest_address a;
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		int guest = general_register(o->reg.value);
		flags_to_frame(w);
		if (host_register(guest) >= 0)
			emit_rr(&w->e, word_flags(w), 0x89, (unsigned)host_register(guest),
				HOST_T1);
		else
			emit_load(&w->e, HOST_T1, home_of(guest));
		return true;
	}
	if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || !address_of(w->g, o, &a))
		return false;
	emit_load_word(w, HOST_T1, access_emit(w, &a, (unsigned)word_bytes(w), false));
	return true;
}

/* A CALL to where nobody may go pushes nothing: the interpreter raises what it must. With five
 * levels more addresses are legal; those are rare. */
static void emit_check_target(struct work *w)
{
	struct emitter *e = &w->e;
	if (w->is_code32) /* CS reaches everywhere */
		return;
	flags_lost(w);
	emit_mov(e, HOST_T0, HOST_T1);
	emit_rr(e, EMIT_W, 0xc1, 7, HOST_T0); /* sar */
	emit_byte(e, 47);
	emit_rr(e, EMIT_W, 0x83, 0, HOST_T0); /* add: 0 and -1 become 1 and 0 */
	emit_byte(e, 1);
	emit_rr(e, EMIT_W, 0x83, 7, HOST_T0); /* cmp */
	emit_byte(e, 1);
	add_rare(w, CONDITION_A);
}

/*
 * The jump table is asked before the return address is pushed: what it has is an address that one
 * may go to, and where it leads is known early. A helper that fills the push's look-up may change
 * the table, so behind that it goes on as if the table had not had the target: reading that again
 * could drive out the stack's page, if they are of one slot, and so on for ever.
 */
static bool translate_indirect_call(struct work *w)
{
	struct emitter *e = &w->e;
	flags_to_frame(w);
	if (!emit_target(w))
		return false;
	flags_lost(w);
	emit_store(e, FRAME(call_rip), HOST_T1);
	struct slow *s = add_slow(w, SLOW_CALL, emit_find_slot(e));
	s->first = w->g->index;
	emit_load(e, HOST_T1, space_at_t0(offsetof(struct space, jumps[0].code)));
	emit_store(e, FRAME(value), HOST_T1);
	s->site = w->trans->site_count; /* the push's, which goes on there */
	emit_push_return(w);
	emit_rm(e, 0, 0xff, 4, FRAME(value)); /* jmp */
	return true;
}

/* The table does not have T1, or perhaps not any more. */
static void emit_unknown_call(struct work *w, const struct slow *s)
{
	w->g = &w->trans->insns[s->first];
	w->flags = FLAGS_FRAME;
	emit_check_target(w);
	w->trans->sites[s->site].resume = emitter_here(&w->e);
	w->trans->sites[s->site].look_up_bytes = 0; /* another's lie there */
	emit_push_return(w);
	emit_load(&w->e, HOST_T1, FRAME(call_rip));
	emit_table_miss(w, word_bytes(w));
	w->g = NULL;
}

static bool translate_call(struct work *w)
{
	if (w->g->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		flags_leave(w);
		emit_push_return(w);
		group_leave(w);
		emit_exit(w, branch_target(w->g));
		return true;
	}
	return translate_indirect_call(w);
}

static bool translate_jmp(struct work *w)
{
	if (w->g->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		flags_leave(w);
		if (w->loop)
			w->loop->back = emit_jmp_forward(&w->e);
		else
			emit_exit(w, branch_target(w->g));
		return true;
	}
	if (!emit_target(w))
		return false;
	emit_indirect(w, 0);
	return true;
}

static int return_drop(const struct work *w)
{
	const ZydisDecodedOperand *o = &w->g->operands[0];
	return word_bytes(w) +
	       (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (int)(o->imm.value.u & 0xffff) : 0);
}

void emit_pop_return(struct work *w)
{
	struct guest_address top = stack_address(w->g, GPR_RSP, 0);
	flags_to_frame(w);
	emit_load_word(w, HOST_T1, access_emit(w, &top, (unsigned)word_bytes(w), false));
	stack_move(w, return_drop(w));
}

static void translate_ret(struct work *w)
{
	emit_pop_return(w);
	group_leave(w);
	emit_indirect(w, -return_drop(w));
}

bool branch_is_jcc(const ZydisDecodedInstruction *d)
{
	if (d->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	return (d->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (d->opcode & 0xf0) == 0x70) ||
	       (d->opcode_map == ZYDIS_OPCODE_MAP_0F && (d->opcode & 0xf0) == 0x80);
}

bool branch_is_direct(const struct guest_insn *g)
{
	return g->d.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR &&
	       !(g->d.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) &&
	       g->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	       (g->d.mnemonic == ZYDIS_MNEMONIC_JMP || g->d.mnemonic == ZYDIS_MNEMONIC_CALL);
}

bool translate_branch(struct work *w)
{
	const ZydisDecodedInstruction *d = &w->g->d;
	if (d->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
	    d->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
		return false;
	if (branch_is_jcc(d)) {
		if (w->loop)
			translate_back_edge(w);
		else
			translate_jcc(w);
		return true;
	}
	switch (d->mnemonic) {
	case ZYDIS_MNEMONIC_JMP: return translate_jmp(w);
	case ZYDIS_MNEMONIC_CALL: return translate_call(w);
	case ZYDIS_MNEMONIC_RET: translate_ret(w); return true;
	default: return false;
	}
}

/* In a region's second copy: the other way out is there already. */
static void repeat_inner_jcc(struct work *w, struct slow *s)
{
	const struct guest_insn *g = w->g;
	if (s->saves_flags)
		flags_to_host(w);
	else if (g->side)
		flags_to_frame(w);
	unsigned condition = flags_want_condition(w, (g->d.opcode & 15) ^ g->is_inverted);
	s->second = emit_jcc_forward(&w->e, condition);
}

/* The other way out is behind the code, with what it takes: the flags, and the budget of what does
 * not run. */
static void translate_inner_jcc(struct work *w)
{
	const struct guest_insn *g = w->g;
	if (w->side_exits[g->part]) {
		repeat_inner_jcc(w, w->side_exits[g->part]);
		return;
	}
	unsigned condition = flags_want_condition(w, (g->d.opcode & 15) ^ g->is_inverted);
	struct slow *s = add_slow(w, SLOW_SIDE, emit_jcc_forward(&w->e, condition));
	w->side_exits[g->part] = s;
	s->rip = g->is_inverted ? branch_next(g) : branch_target(g);
	s->rest = w->x->parts[g->part].rest;
	s->saves_flags = g->side && w->flags == FLAGS_HOST;
}

void translate_inner_branch(struct work *w)
{
	if (branch_is_jcc(&w->g->d))
		translate_inner_jcc(w);
	else if (w->g->d.mnemonic == ZYDIS_MNEMONIC_CALL)
		emit_push_return(w);
}

/* ---- behind the block ---- */

static void emit_side_exit(struct work *w, const struct slow *s)
{
	if (s->second)
		emit_patch(s->second, w->e.at);
	if (s->saves_flags)
		flags_emit_save(&w->e);
	emit_rm(&w->e, 0, 0x83, 0, FRAME(budget)); /* add */
	emit_byte(&w->e, s->rest);
	emit_exit(w, s->rip);
}

static void emit_slow_insn(struct work *w, const struct slow *s)
{
	struct site *site = &w->trans->sites[s->site];
	if (s->kind == SLOW_FILL)
		access_emit_again(w, &s->look_up);
	emit_call_helper(w, s->site,
			 s->kind == SLOW_FILL ? w->trans->to_fill : w->trans->to_interpret);
	if (!s->after)
		return; /* a branch: nothing comes behind it */
	site->next = s->after + w->e.to_running;
	if (!s->is_flags_needed)
		return;
	site->next = emitter_here(&w->e);
	w->flags = FLAGS_FRAME;
	flags_to_host(w);
	emit_jmp(&w->e, s->after + w->e.to_running);
}

void emit_slow(struct work *w)
{
	w->g = NULL;
	w->is_behind = true;
	for (unsigned k = 0; k < w->slow_count; k++) { /* more may be added meanwhile */
		const struct slow *s = &w->slow[k];
		if (s->patch)
			emit_patch(s->patch, w->e.at);
		if (s->kind == SLOW_FILL || s->kind == SLOW_INTERPRET) {
			emit_slow_insn(w, s);
		} else if (s->kind == SLOW_GROUP) {
			group_emit_slow(w, s);
		} else if (s->kind == SLOW_LOOP) {
			loop_emit_exit(w, s);
		} else if (s->kind == SLOW_CALL) {
			emit_unknown_call(w, s);
		} else if (s->kind == SLOW_SIDE) {
			emit_side_exit(w, s);
		} else if (s->kind == SLOW_LINK) {
			w->x->links[w->trans->sites[s->site].index].stub = emitter_here(&w->e);
			emit_call_helper(w, s->site, w->trans->to_link);
		} else if (s->kind == SLOW_VECTORS || s->kind == SLOW_X87) {
			emit_call_helper(w, s->site,
					 s->kind == SLOW_X87 ? w->trans->to_x87
							     : w->trans->to_vectors);
		} else {
			emit_far_exit(w, s->rip);
		}
	}
	micro_emit_misses(w);
}
