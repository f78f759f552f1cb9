/*
 * System instructions that kernels execute all the time, and divisions: those whose common case is
 * a few host instructions. What is not common (a privilege that is missing, an interrupt that
 * waits) is the interpreter's.
 *
 * A translation is made for one mode, so that CPL 0 and RFLAGS.AC are known here.
 */
#include "clock/clock.h"
#include "engine/trans/translate_private.h"

static bool is_kernel(const struct work *w)
{
	return w->x->mode != MMU_USER;
}

/* Changes bits of the state's RFLAGS (not the arithmetic ones). */
static void emit_rflags(struct work *w, uint32_t set, uint32_t clear)
{
	struct emitter *e = &w->e;
	flags_to_frame(w);
	emit_load(e, HOST_T0, FRAME(state));
	emit_rm(e, 0, 0x81, set ? 1 : 4, at_t0(offsetof(struct vcpu_state, rflags)));
	emit_word(e, set ? set : ~clear);
	flags_lost(w);
}

void add_rare(struct work *w, unsigned condition)
{
	struct slow *s = add_slow(w, SLOW_INTERPRET, emit_jcc_forward(&w->e, condition));
	s->site = add_site(w, (struct site){.is_rare = true});
}

/*
 * The instruction after STI runs before any interrupt (SDM 2B STI). Where none waits and the budget
 * does not end either before that one, nobody can see whether that was so: nothing can raise one in
 * between.
 */
#define STI_BUDGET 64
static bool translate_sti(struct work *w)
{
	struct emitter *e = &w->e;
	if (!is_kernel(w))
		return false;
	flags_to_frame(w);
	emit_load(e, HOST_T0, FRAME(requests));
	emit_rm(e, 0, 0x83, 7, at_t0(0)); /* cmp dword, 0 */
	emit_byte(e, 0);
	flags_lost(w);
	add_rare(w, CONDITION_NE);
	emit_rm(e, 0, 0x83, 7, FRAME(budget)); /* cmp dword */
	emit_byte(e, STI_BUDGET);
	add_rare(w, CONDITION_L);
	emit_rflags(w, FLAG_IF, 0);
	return true;
}

/* The other supervisor mode: C's view of it, and the space that belongs to it. GS stays. */
static void emit_change_space(struct work *w, bool to_ac)
{
	struct emitter *e = &w->e;
	const int32_t step =
		(int32_t)sizeof(((struct mmu *)0)->fast[0]) * (MMU_SUPERVISOR_AC - MMU_SUPERVISOR);
	emit_load(e, HOST_T0, FRAME(c));
	emit_rm(e, 0, 0xc6, 0, at_t0(offsetof(struct interp_vcpu, mode))); /* mov byte */
	emit_byte(e, to_ac ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR);
	emit_rm(e, EMIT_W, 0x81, to_ac ? 0 : 5, at_t0(offsetof(struct interp_vcpu, fast_read)));
	emit_word(e, (uint32_t)step);
	emit_rm(e, EMIT_W, 0x81, to_ac ? 0 : 5, at_t0(offsetof(struct interp_vcpu, fast_write)));
	emit_word(e, (uint32_t)step);
	emit_load(e, HOST_T0, FRAME(t));
	emit_load(e, HOST_T1,
		  at_t0(to_ac ? offsetof(struct trans_vcpu, kernel_ac)
			      : offsetof(struct trans_vcpu, kernel)));
	emit_store(e, at_t0(offsetof(struct trans_vcpu, space)), HOST_T1);
}

/* STAC, CLAC: the end of a block. */
static bool translate_ac(struct work *w, bool sets)
{
	bool has = w->x->mode == MMU_SUPERVISOR_AC;
	if (!is_kernel(w))
		return false;
	if (sets == has)
		return true;
	emit_rflags(w, sets ? FLAG_AC : 0, sets ? 0 : FLAG_AC);
	emit_change_space(w, sets);
	w->next_mode = sets ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
	return true;
}

static bool translate_pushf(struct work *w)
{
	static const struct guest_address below_top = {
		.base = GPR_RSP, .index = GPR_NONE, .disp = -8, .seg = SEG_SS};
	struct emitter *e = &w->e;
	if (w->g->d.operand_width != 64)
		return false;
	flags_to_frame(w);
	emit_store(e, FRAME(rax), GPR_RAX);
	emit_rm(e, EMIT_0F, 0xb7, GPR_RAX, FRAME(flags)); /* movzx eax, word */
	emit_rr(e, 0, 0x89, GPR_RAX, HOST_T0);		  /* mov r11d, eax */
	emit_rr(e, 0, 0xc1, 5, HOST_T0);		  /* shr r11d, 8 */
	emit_byte(e, 8);
	emit_rr(e, 0, 0x81, 4, HOST_T0); /* and */
	emit_word(e, 0xd5);
	emit_rr(e, 0, 0x83, 4, GPR_RAX); /* and eax, 1 */
	emit_byte(e, 1);
	emit_rr(e, 0, 0xc1, 4, GPR_RAX); /* shl eax, 11 */
	emit_byte(e, 11);
	emit_rr(e, 0, 0x09, HOST_T0, GPR_RAX); /* or eax, r11d */
	emit_load(e, HOST_T0, FRAME(state));
	emit_load(e, HOST_T0, at_t0(offsetof(struct vcpu_state, rflags)));
	emit_rr(e, EMIT_W, 0x81, 4, HOST_T0); /* and */
	emit_word(e, (uint32_t) ~(FLAGS_ARITHMETIC | FLAG_VM | FLAG_RF));
	emit_rr(e, EMIT_W, 0x09, GPR_RAX, HOST_T0); /* or r11, rax */
	emit_rr(e, EMIT_W, 0x83, 1, HOST_T0);	    /* or r11, 2 */
	emit_byte(e, FLAG_FIXED1);
	emit_store(e, FRAME(value), HOST_T0);
	emit_load(e, GPR_RAX, FRAME(rax));
	flags_lost(w);
	struct host_memory at = access_in_t0(w, access_emit(w, &below_top, 8, true));
	emit_load(e, HOST_T1, FRAME(value));
	emit_store(e, at, HOST_T1);
	emit_lea(e, HOST_GUEST_RSP,
		 (struct host_memory){.base = HOST_GUEST_RSP, .index = NO_INDEX, .disp = -8});
	return true;
}

static bool translate_swapgs(struct work *w)
{
	struct emitter *e = &w->e;
	const struct host_memory kernel = at_t0(offsetof(struct vcpu_state, kernel_gs_base));
	const struct host_memory base = at_t0(offsetof(struct vcpu_state, seg[SEG_GS].base));
	if (!is_kernel(w))
		return false;
	emit_load(e, HOST_T0, FRAME(state));
	emit_load(e, HOST_T1, kernel);
	emit_store(e, base, HOST_T1);
	emit_load(e, HOST_T1, FRAME(gs_base));
	emit_store(e, kernel, HOST_T1);
	emit_load(e, HOST_T1, base);
	emit_store(e, FRAME(gs_base), HOST_T1);
	return true;
}

static int segment_of(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_ES: return SEG_ES;
	case ZYDIS_REGISTER_CS: return SEG_CS;
	case ZYDIS_REGISTER_SS: return SEG_SS;
	case ZYDIS_REGISTER_DS: return SEG_DS;
	case ZYDIS_REGISTER_FS: return SEG_FS;
	case ZYDIS_REGISTER_GS: return SEG_GS;
	default: return -1;
	}
}

/* MOV from a segment register to a general one. */
static bool translate_from_segment(struct work *w)
{
	const ZydisDecodedOperand *to = &w->g->operands[0], *from = &w->g->operands[1];
	struct emitter *e = &w->e;
	if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || from->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	int segment = segment_of(from->reg.value);
	int guest = general_register(to->reg.value);
	if (segment < 0 || to->size < 32 || guest < 0 || guest > 15)
		return false;
	int host = host_register(guest);
	emit_load(e, HOST_T0, FRAME(state));
	emit_rm(e, EMIT_0F, 0xb7, host < 0 ? HOST_T0 : (unsigned)host,
		at_t0(offsetof(struct vcpu_state, seg) +
		      (unsigned)segment * sizeof(struct segment_register) +
		      offsetof(struct segment_register, selector)));
	if (host < 0)
		emit_store(e, home_of(guest), HOST_T0);
	return true;
}

/* Where the state has a control register that is just read; 0: it is not one of those. */
static size_t control_offset(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_CR0: return offsetof(struct vcpu_state, cr0);
	case ZYDIS_REGISTER_CR2: return offsetof(struct vcpu_state, cr2);
	case ZYDIS_REGISTER_CR3: return offsetof(struct vcpu_state, cr3);
	case ZYDIS_REGISTER_CR4: return offsetof(struct vcpu_state, cr4);
	default: return 0;
	}
}

/* MOV from a control register. */
static bool translate_from_control(struct work *w)
{
	const ZydisDecodedOperand *to = &w->g->operands[0], *from = &w->g->operands[1];
	struct emitter *e = &w->e;
	if (!is_kernel(w) || to->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    from->type != ZYDIS_OPERAND_TYPE_REGISTER || !control_offset(from->reg.value))
		return false;
	int guest = general_register(to->reg.value), host = host_register(guest);
	emit_load(e, HOST_T0, FRAME(state));
	emit_load_word(w, host < 0 ? HOST_T0 : (unsigned)host,
		       at_t0(control_offset(from->reg.value)));
	if (host < 0)
		emit_store(e, home_of(guest), HOST_T0);
	return true;
}

/* ---- the time-stamp counter ---- */

/* A member of the clock that T0 points to. */
#define AT_CLOCK(member) at_t0(offsetof(struct clock, member))

/*
 * clock_now() in RAX, where the clock's last answer still counts (clock/interpolation.h). RAX and
 * RDX are the instruction's to write; the interpreter, which goes on where the answer is too old,
 * does not read them.
 */
static void emit_now(struct work *w)
{
	struct emitter *e = &w->e;
	emit_constant(e, HOST_T0, (uint64_t)(uintptr_t)w->trans->interp->config.clock);
	emit_byte(e, 0x0f); /* rdtsc */
	emit_byte(e, 0x31);
	emit_rr(e, EMIT_W, 0xc1, 4, GPR_RDX); /* shl */
	emit_byte(e, 32);
	emit_rr(e, EMIT_W, 0x09, GPR_RDX, GPR_RAX);		    /* or */
	emit_rm(e, EMIT_W, 0x2b, GPR_RAX, AT_CLOCK(between.tsc));   /* sub */
	emit_rm(e, EMIT_W, 0x3b, GPR_RAX, AT_CLOCK(between.ticks)); /* cmp */
	add_rare(w, CONDITION_AE);
	emit_rm(e, EMIT_W, 0xf7, 4, AT_CLOCK(between.rate));  /* mul */
	emit_rr(e, EMIT_W | EMIT_0F, 0xac, GPR_RDX, GPR_RAX); /* shrd */
	emit_byte(e, 32);
	emit_rm(e, EMIT_W, 0x03, GPR_RAX, AT_CLOCK(between.cycles));	   /* add */
	emit_rm(e, EMIT_W, 0x3b, GPR_RAX, AT_CLOCK(now_cycles));	   /* cmp */
	emit_rm(e, EMIT_W | EMIT_0F, 0x42, GPR_RAX, AT_CLOCK(now_cycles)); /* cmovb: never back */
	emit_store(e, AT_CLOCK(now_cycles), GPR_RAX);
}

/* RDTSC and RDTSCP where they look at the host's clock and nothing else need be known. */
static bool translate_rdtsc(struct work *w, bool has_aux)
{
	struct emitter *e = &w->e;
	const struct engine_config *config = &w->trans->interp->config;
	if (config->clock->kind != CLOCK_REAL || config->clock->is_tsc || config->lockstep ||
	    config->intercept_rdtsc)
		return false;
	flags_to_frame(w);
	flags_lost(w);
	if (!is_kernel(w)) {
		emit_load(e, HOST_T0, FRAME(state));
		emit_rm(e, 0, 0xf6, 0, at_t0(offsetof(struct vcpu_state, cr4))); /* test byte */
		emit_byte(e, CR4_TSD);
		add_rare(w, CONDITION_NE);
	}
	emit_now(w);
	emit_load(e, HOST_T0, FRAME(state));
	emit_rm(e, EMIT_W, 0x03, GPR_RAX, at_t0(offsetof(struct vcpu_state, tsc_offset)));
	emit_mov(e, GPR_RDX, GPR_RAX);
	emit_rr(e, EMIT_W, 0xc1, 5, GPR_RDX); /* shr */
	emit_byte(e, 32);
	emit_rr(e, 0, 0x89, GPR_RAX, GPR_RAX);
	if (has_aux)
		emit_rm(e, 0, 0x8b, GPR_RCX, at_t0(offsetof(struct vcpu_state, tsc_aux)));
	return true;
}

/* ---- division ---- */

/* The divisor in a host register: a mapped guest's, or T0. */
static bool load_divisor(struct work *w, unsigned *host)
{
	const ZydisDecodedOperand *o = &w->g->operands[0];
	struct guest_address a;
	bool is_wide = o->size == 64;
	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		if (!address_of(w->g, o, &a))
			return false;
		struct host_memory at = access_emit(w, &a, o->size / 8, false);
		emit_rm(&w->e, is_wide ? EMIT_W : 0, 0x8b, HOST_T0, at);
		*host = HOST_T0;
		return true;
	}
	*host = register_or_load(w, general_register(o->reg.value), HOST_T0);
	return true;
}

/* Flags are left as they were, as the interpreter does. */
static bool translate_div(struct work *w, bool is_signed)
{
	struct emitter *e = &w->e;
	unsigned size = w->g->operands[0].size, flags = size == 64 ? EMIT_W : 0, divisor;
	if (size < 32)
		return false;
	flags_to_frame(w);
	if (!load_divisor(w, &divisor))
		return false;
	flags_lost(w);
	if (!is_signed) {
		emit_rr(e, flags, 0x3b, GPR_RDX, divisor); /* cmp: the quotient must fit */
		add_rare(w, CONDITION_AE);
		emit_rr(e, flags, 0xf7, 6, divisor);
		return true;
	}
	/* The dividend is a sign-extended one, and the divisor neither 0 nor -1. */
	emit_rr(e, flags, 0x89, GPR_RAX, HOST_T1);
	emit_rr(e, flags, 0xc1, 7, HOST_T1); /* sar */
	emit_byte(e, size - 1);
	emit_rr(e, flags, 0x3b, HOST_T1, GPR_RDX);
	add_rare(w, CONDITION_NE);
	emit_rm(e, flags, 0x8d, HOST_T1,
		(struct host_memory){.base = (uint8_t)divisor, .index = NO_INDEX, .disp = 1});
	emit_rr(e, flags, 0x83, 7, HOST_T1); /* cmp */
	emit_byte(e, 1);
	add_rare(w, CONDITION_BE);
	emit_rr(e, flags, 0xf7, 7, divisor);
	return true;
}

bool translate_system(struct work *w)
{
	switch (w->g->d.mnemonic) {
	case ZYDIS_MNEMONIC_CLI:
		if (is_kernel(w))
			emit_rflags(w, 0, FLAG_IF);
		return is_kernel(w);
	case ZYDIS_MNEMONIC_CLD: emit_rflags(w, 0, FLAG_DF); return true;
	case ZYDIS_MNEMONIC_STD: emit_rflags(w, FLAG_DF, 0); return true;
	case ZYDIS_MNEMONIC_STI: return translate_sti(w);
	case ZYDIS_MNEMONIC_STAC: return translate_ac(w, true);
	case ZYDIS_MNEMONIC_CLAC: return translate_ac(w, false);
	case ZYDIS_MNEMONIC_PUSHFQ: return translate_pushf(w);
	case ZYDIS_MNEMONIC_SWAPGS: return translate_swapgs(w);
	case ZYDIS_MNEMONIC_MOV: return translate_from_segment(w) || translate_from_control(w);
	case ZYDIS_MNEMONIC_RDTSC: return translate_rdtsc(w, false);
	case ZYDIS_MNEMONIC_RDTSCP: return translate_rdtsc(w, true);
	case ZYDIS_MNEMONIC_DIV: return translate_div(w, false);
	case ZYDIS_MNEMONIC_IDIV: return translate_div(w, true);
	default: return false;
	}
}
