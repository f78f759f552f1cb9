/*
 * What generated code calls: fills of its TLB, instructions that are the interpreter's, and ways
 * out of a block that are not linked yet.
 *
 * A helper begins by making vcpu_state and the interpreter's vcpu look as if the interpreter were
 * in the middle of the block (enter_block), so that a fault raised here is precise: RIP, time and
 * counts follow from the instruction's index as always. It ends by giving the frame what may have
 * changed.
 */
#include "base/hard.h"
#include "engine/trans/host_cpu.h"
#include "engine/trans/trans_private.h"
#include "ledger/ledger.h"

/* ---- the state, both ways ---- */

/* Counts what ran since the last time. */
void helper_count(struct trans_vcpu *t, const struct frame *f)
{
	uint64_t spent = t->budget_at - (uint64_t)(int64_t)f->budget;
	t->budget_at = (uint64_t)(int64_t)f->budget;
	t->c->cycles += spent;
	t->in_code += spent;
	ledger_charge_many(t->c->ledger, EVENT_INSTRUCTION, spent);
}

void helper_set_budget(struct trans_vcpu *t, struct frame *f)
{
	struct interp_vcpu *c = t->c;
	uint64_t left = c->until > c->cycles ? c->until - c->cycles : 0;
	f->budget = left > INT32_MAX / 2 ? INT32_MAX / 2 : (int32_t)left;
	t->budget_at = (uint64_t)f->budget;
}

void helper_take(struct frame *f)
{
	struct vcpu_state *s = f->state;
	s->gpr[GPR_R11] = f->home[0];
	s->gpr[GPR_R14] = f->home[1];
	s->gpr[GPR_R15] = f->home[2];
	s->flags_of = (uint8_t)(f->flags & 1);
	s->flags_low = (uint8_t)(f->flags >> 8);
}

static void give_registers(struct frame *f)
{
	const struct vcpu_state *s = f->state;
	f->home[0] = s->gpr[GPR_R11];
	f->home[1] = s->gpr[GPR_R14];
	f->home[2] = s->gpr[GPR_R15];
	f->flags = (uint16_t)(s->flags_low << 8 | s->flags_of);
	code32_take_segments(f);
}

static const struct part *part_of(const struct site *site)
{
	return &site->from->parts[site->part];
}

/* As if the interpreter were in the middle of the site's block, at instruction `index`, which
 * translated code has not run: the parts behind it are not charged any more. */
static void enter_block(struct frame *f, const struct part *part, unsigned index)
{
	struct interp_vcpu *c = f->t->c;
	helper_take(f);
	f->budget += part->rest;
	helper_count(f->t, f);
	f->t->in_code -= part->block->count - index;
	c->ops = part->block->insns;
	c->count = part->block->count;
	c->s->gpr[REG_BLOCK] = part->rip;
}

/* Back into the middle, to instruction `index`: they are charged again. */
static void reenter_block(struct frame *f, const struct part *part, unsigned index)
{
	f->t->in_code += part->block->count - index;
	f->budget -= part->rest;
}

static const uint8_t *leave(struct frame *f)
{
	f->vectors = VECTORS_OUT;
	x87_put(f);
	return f->t->trans->leave;
}

/* ---- spaces ---- */

static bool is_space_of(const struct space *p, uint64_t cr3, uint8_t key)
{
	return p->is_valid && p->cr3 == cr3 && p->key == key;
}

/* Code of two modes at one address is not the same code. */
static struct space *user_space(struct trans_vcpu *t, uint64_t cr3, uint8_t key)
{
	struct space *oldest = t->user[0];
	if (t->last_user && is_space_of(t->last_user, cr3, key))
		return t->last_user;
	for (unsigned k = 0; k < SPACE_USER_COUNT; k++) {
		struct space *p = t->user[k];
		if (is_space_of(p, cr3, key))
			return p;
		if (!p->is_valid || p->last_use < oldest->last_use)
			oldest = p;
	}
	if (oldest->is_valid)
		space_flush(oldest);
	else /* nobody was there before, so it has no memory yet */
		space_init(oldest);
	oldest->is_valid = true;
	oldest->cr3 = cr3;
	oldest->key = key;
	return oldest;
}

/* A kernel hardly ever has code of two modes. */
static void change_kernel_key(struct trans_vcpu *t)
{
	space_flush_jumps(t->kernel);
	space_flush_jumps(t->kernel_ac);
	t->kernel_key = t->c->key;
}

static void set_gs(struct trans_vcpu *t, const uint8_t *window)
{
	if (t->gs == window)
		return;
	t->gs = window;
	if (t->trans->has_fsgsbase)
		__asm__ volatile("wrgsbase %0" : : "r"(window));
	else
		host_set_gs_base((uint64_t)(uintptr_t)window);
}

void helper_choose_space(struct trans_vcpu *t)
{
	hard_audit(!t->space || space_is_sound(t->space));
	if (unlikely(t->kernel_key != t->c->key) && t->c->mode != MMU_USER)
		change_kernel_key(t);
	if (t->c->mode == MMU_SUPERVISOR)
		t->space = t->kernel;
	else if (t->c->mode == MMU_SUPERVISOR_AC)
		t->space = t->kernel_ac;
	else
		t->space = t->last_user = user_space(t, t->c->s->cr3, t->c->key);
	t->space->last_use = ++t->uses;
	if (t->c->mode == MMU_USER)
		set_gs(t, (const uint8_t *)t->space - space_place(MMU_USER));
	else if (unlikely(!t->gs)) /* any of them has the kernel's */
		set_gs(t, t->windows);
}

/* ---- going on ---- */

bool helper_is_translatable(const struct interp_vcpu *c)
{
	return c->key & (KEY_CODE64 | KEY_FLAT) && (c->s->cpl == 0 || c->s->cpl == 3) &&
	       !c->slow_checks && !c->mmu->is_observed;
}

/* Where a fetch from `rip` leads. False: a fault. */
static bool fetch(struct trans_vcpu *t, uint64_t rip, uint64_t *address)
{
	struct interp_vcpu *c = t->c;
	struct mmu_fast_entry *e = mmu_fast_lookup(c->mmu, rip, rip, ACCESS_FETCH, c->fetch_mode);
	struct mmu_page page;
	struct page_fault fault;
	if (e) {
		*address = e->gfn << PAGE_SHIFT | (rip & PAGE_OFFSET_MASK);
		return true;
	}
	if (!vcpu_is_canonical(c->s, rip) ||
	    !mmu_translate(c->mmu, gva(rip), ACCESS_FETCH, c->fetch_mode, &page, &fault))
		return false;
	*address = page.gpa.v;
	return true;
}

/* Does `b` lie in the pages that it was found in? That its bytes, or the second page's, are still
 * the same its translation asks itself (translate.c). */
static bool still_crosses(struct trans_vcpu *t, const struct block *b)
{
	uint64_t second;
	if (b->gfn2 == BLOCK_CHECKED)
		return true;
	return fetch(t, align_up(t->c->s->rip + 1, PAGE_SIZE_BYTES), &second) &&
	       second >> PAGE_SHIFT == b->gfn2;
}

/* The translation at RIP, or NULL and perhaps the block that has none yet. A fault is left to the
 * loop, which fetches again. */
static struct translation *find_translation(struct trans_vcpu *t, struct block **cold)
{
	struct interp_vcpu *c = t->c;
	uint64_t rip = c->s->rip, address;
	*cold = NULL;
	if (!fetch(t, rip, &address))
		return NULL;
	struct translation *x = cache_recall(t->trans, address, rip, c);
	if (x)
		return x;
	struct block **guess = &c->vm->cache.jump_cache[block_jump_slot(rip)], *b = *guess;
	if (b && b->gpa == address && b->key == c->key && b->gfn2 >= BLOCK_CHECKED &&
	    !b->translation) {
		*cold = b;
		return NULL;
	}
	b = block_find(c->vm, address, c->key);
	if (!b || (unlikely(b->gfn2 != ~0ull) && !still_crosses(t, b)))
		return NULL;
	x = relocate_find(t->trans, b, rip, c->mode);
	if (b->gfn2 < BLOCK_CHECKED)
		return x;
	if (x) /* the other page has to be looked at each time */
		cache_note(t->trans, x);
	else
		*cold = *guess = b;
	return x;
}

/* Has the interpreter run what is not worth leaving for. False: it is the loop's. */
static bool run_cold(struct frame *f, struct block *b)
{
	struct interp_vcpu *c = f->t->c;
	if (c->until - c->cycles < b->count || b->heat >= f->t->trans->translator.warm_count)
		return false;
	b->heat++;
	x87_put(f);
	interp_run_block(c, b);
	c->count = 0;
	return true;
}

/* Nothing wants to be looked at between blocks. */
static bool may_go_on(struct interp_vcpu *c)
{
	/* A change of mode wants a look at what may be delivered now. */
	if (c->attention == ATTENTION_INTERRUPT && !c->s->pending_db &&
	    c->s->activity == ACTIVITY_RUNNING &&
	    !atomic_load_explicit(&c->v->requests, memory_order_relaxed))
		c->attention = 0;
	return !c->attention && c->cycles < c->until &&
	       !atomic_load_explicit(&c->v->requests, memory_order_relaxed) &&
	       helper_is_translatable(c);
}

static const uint8_t *remember(struct trans_vcpu *t, const struct translation *x)
{
	space_remember(t->space, x->rip, x->code);
	return x->code;
}

/* Where generated code goes on at RIP, or NULL and perhaps the block that it goes on with. */
static const uint8_t *code_at(struct trans_vcpu *t, struct block **cold)
{
	helper_choose_space(t);
	const uint8_t *code = space_recall(t->space, t->c->s->rip);
	*cold = NULL;
	if (code)
		return code;
	struct translation *x = find_translation(t, cold);
	return x ? remember(t, x) : NULL;
}

/* `b` at RIP has no translation. It gets one at once, or is run; NULL: that is the loop's. What ran
 * once since it was written will do so again. */
static const uint8_t *enter_cold(struct frame *f, struct block *b)
{
	struct trans_vcpu *t = f->t;
	if (t->c->vm->cache.restless || (b->gfn2 == BLOCK_CHECKED && !block_is_current(t->c, b)))
		return NULL;
	struct translation *x = b->heat ? rewritten_translate(t, b) : NULL;
	if (x)
		return remember(t, x);
	return run_cold(f, b) && may_go_on(t->c) ? code_at(t, &b) : NULL;
}

/* One block that is not translated is run on the way, for what comes behind it mostly is. */
const uint8_t *helper_go_on(struct frame *f)
{
	struct trans_vcpu *t = f->t;
	struct interp_vcpu *c = t->c;
	struct block *cold;
	if (!may_go_on(c) || t->lockstep)
		return leave(f);
	const uint8_t *code = code_at(t, &cold);
	if (!code && cold)
		code = enter_cold(f, cold);
	if (!code)
		return leave(f);
	f->vectors = VECTORS_OUT; /* the next block that wants them asks, and is checked */
	c->s->rflags &= ~FLAG_RF;
	give_registers(f);
	helper_set_budget(t, f);
	return code;
}

const uint8_t *helper_budget(struct frame *f)
{
	const struct translation *x = f->t->trans->sites[f->site].from;
	lockstep_void(f->t);
	helper_take(f);
	helper_count(f->t, f);
	f->state->rip = x->rip;
	return leave(f);
}

const uint8_t *helper_changed(struct frame *f)
{
	const struct translation *x = f->t->trans->sites[f->site].from;
	helper_take(f);
	helper_count(f->t, f);
	f->state->rip = x->rip;
	if (f->t->lockstep)
		return leave(f);
	block_is_current(f->c, x->block); /* which drops the translation */
	return helper_go_on(f);
}

const uint8_t *helper_link(struct frame *f)
{
	struct trans *trans = f->t->trans;
	const struct site *site = &trans->sites[f->site];
	struct link *l = &site->from->links[site->index];
	helper_take(f);
	helper_count(f->t, f);
	f->state->rip = l->rip;
	if (f->t->lockstep)
		return leave(f);
	struct block *cold;
	struct translation *to = find_translation(f->t, &cold);
	if (to) {
		cache_link(trans, l, to);
	} else {
		trans->pending = l;
		trans->pending_rip = l->rip;
	}
	return helper_go_on(f);
}

/* An indirect branch to where nobody may go: it never happened, and the interpreter raises what it
 * must. */
static const uint8_t *undo_branch(struct frame *f, const struct site *site)
{
	struct interp_vcpu *c = f->t->c;
	x87_put(f);
	lockstep_void(f->t);
	enter_block(f, part_of(site), site->index);
	f->state->gpr[GPR_RSP] += (uint64_t)(int64_t)site->undo_sp;
	interp_execute(c, part_of(site)->block, site->index);
	return leave(f);
}

const uint8_t *helper_indirect(struct frame *f)
{
	if (unlikely(!vcpu_is_canonical(f->state, f->linear)))
		return undo_branch(f, &f->t->trans->sites[f->site]);
	helper_take(f);
	helper_count(f->t, f);
	f->state->rip = f->linear;
	return helper_go_on(f);
}

/* ---- vectors ---- */

#define MXCSR_MASKS 0x1f80u

/* May vector instructions run on the host's registers? Not where they must raise something. */
static bool may_use_vectors(const struct interp_vcpu *c, bool is_avx)
{
	const struct vcpu_state *s = c->s;
	if (s->cr0 & (CR0_EM | CR0_TS) || !(s->cr4 & CR4_OSFXSR))
		return false;
	if (is_avx && (!(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & 6) != 6))
		return false;
	return (s->fpu.mxcsr & MXCSR_MASKS) == MXCSR_MASKS;
}

/* The interpreter runs the block from instruction `index` on. */
static const uint8_t *finish_block(struct frame *f, const struct part *part, unsigned index)
{
	const struct insn *i = &part->block->insns[index];
	lockstep_void(f->t);
	x87_put(f);
	f->t->c->ops = part->block->insns;
	f->vectors = VECTORS_OUT;
	i->exec(f->state, i, f->t->c);
	return helper_go_on(f);
}

/* The site's `size_bytes` says whether it is AVX that is wanted. */
const uint8_t *helper_vectors(struct frame *f)
{
	const struct site *site = &f->t->trans->sites[f->site];
	bool is_avx = may_use_vectors(f->t->c, true);
	if (is_avx || (!site->size_bytes && may_use_vectors(f->t->c, false))) {
		f->vectors = is_avx ? VECTORS_AVX : VECTORS_SSE;
		return site->resume;
	}
	enter_block(f, site->from->parts, 0);
	return finish_block(f, site->from->parts, 0);
}

const uint8_t *helper_x87(struct frame *f)
{
	const struct site *site = &f->t->trans->sites[f->site];
	if (x87_take(f))
		return site->resume;
	enter_block(f, site->from->parts, 0);
	return finish_block(f, site->from->parts, 0);
}

/* ---- instructions that are the interpreter's ---- */

static const uint8_t *interpret(struct frame *f, const struct site *site, enum trans_why why)
{
	struct interp_vcpu *c = f->t->c;
	const struct part *part = part_of(site);
	bool had_x87 = f->x87;
	statistics_note(f->t, site, why);
	lockstep_void(f->t);
	x87_put(f);
	unsigned end = site->index + 1u;
	bool went_on = interp_execute(c, part->block, site->index);
	c->attempt = NULL;
	if (!went_on)
		return helper_go_on(f);
	if ((f->vectors && !may_use_vectors(c, false)) || (had_x87 && !x87_take(f)))
		return finish_block(f, part, end);
	helper_set_budget(f->t, f);
	/* What has to be looked at is looked at when the block is over. */
	if (c->attention) {
		f->budget = 0;
		f->t->budget_at = 0;
	}
	if (f->budget < part->rest)
		return finish_block(f, part, end);
	give_registers(f);
	reenter_block(f, part, end);
	return site->next;
}

const uint8_t *helper_interpret(struct frame *f)
{
	const struct site *site = &f->t->trans->sites[f->site];
	enter_block(f, part_of(site), site->index);
	return interpret(f, site, site->is_rare ? TRANS_RARE : TRANS_NOT_TRANSLATED);
}

const uint8_t *helper_end(struct frame *f)
{
	struct interp_vcpu *c = f->c;
	const struct site *site = &f->t->trans->sites[f->site];
	const struct part *part = part_of(site);
	const struct block *b = part->block;
	const struct insn *last = &b->insns[b->count - 1];
	statistics_note(f->t, site, TRANS_NOT_TRANSLATED);
	lockstep_void(f->t);
	x87_put(f);
	enter_block(f, part, b->count - 1u);
	last->exec(c->s, last, c);
	c->attempt = NULL;
	return helper_go_on(f);
}

/* ---- fills ---- */

static const uint8_t *take_fault(struct frame *f, const struct site *site, struct page_fault fault)
{
	const struct insn *i = &part_of(site)->block->insns[site->index];
	x87_put(f);
	if (f->t->lockstep)
		interp_raise_pf(f->c, i, fault);
	interp_take_pf(f->c, i, fault);
	return helper_go_on(f);
}

const uint8_t *helper_fill(struct frame *f)
{
	struct trans_vcpu *t = f->t;
	struct interp_vcpu *c = t->c;
	const struct site *site = &t->trans->sites[f->site];
	uint64_t linear = f->linear;
	enum access_kind kind = site->is_write ? ACCESS_WRITE : ACCESS_READ;
	struct mmu_page page;
	struct page_fault fault;
	hard_audit(space_is_sound(t->space));
	enter_block(f, part_of(site), site->index);
	bool crosses = (linear & PAGE_OFFSET_MASK) + site->size_bytes > PAGE_SIZE_BYTES;
	bool is_bad = site->is_aligned && linear & (site->size_bytes - 1u);
	if (crosses || is_bad || !vcpu_is_canonical(c->s, linear))
		return interpret(f, site, TRANS_ACCESS);
	if (!mmu_translate(c->mmu, gva(linear), kind, c->mode, &page, &fault)) {
		/* A branch's target may be worse than its operand: the interpreter knows it. */
		if (!site->next)
			return interpret(f, site, TRANS_ACCESS);
		return take_fault(f, site, fault);
	}
	if (!page.host || (site->is_write && page.flags) || !page.guest_shift || c->mmu->difference)
		return interpret(f, site, TRANS_ACCESS);
	if (site->is_write && !lockstep_write(t, linear, page.host))
		return interpret(f, site, TRANS_ACCESS);
	space_fill(t->space, linear, &page, site->is_write);
	reenter_block(f, part_of(site), site->index);
	return site->resume;
}
