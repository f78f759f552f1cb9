/*
 * The engine's contract: an interpreter with a translator plugged in.
 *
 * run() of the contract is the interpreter's own; it offers warm blocks to run_translated() below,
 * which enters generated code. A fault raised in generated code unwinds to the interpreter's loop
 * like any other.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/hard.h"
#include "base/pages.h"
#include "clock/clock.h"
#include "engine/trans/host_cpu.h"
#include "engine/trans/trans.h"
#include "engine/trans/translate_private.h"
#include "ledger/ledger.h"

#ifdef GNOMON_HARD
#define WARM_COUNT 2
#else
#define WARM_COUNT 24
#endif
#define HARD_ENTRIES 65536u

static void fill_frame(struct trans_vcpu *t)
{
	struct frame *f = &t->start;
	const struct vcpu_state *s = t->c->s;
	f->home[0] = s->gpr[GPR_R11];
	f->home[1] = s->gpr[GPR_R14];
	f->home[2] = s->gpr[GPR_R15];
	f->flags = (uint16_t)(s->flags_low << 8 | s->flags_of);
	code32_take_segments(f);
	f->c_mxcsr = 0x1f80;
	helper_set_budget(t, f);
}

/* Hard mode: no look-up outlives an entry into generated code, no translated address every other.
 */
static void make_hard(struct space *p)
{
	if (!hard_is_due(p->last_use / 2, HARD_ENTRIES))
		return;
	space_flush_jumps(p);
	if (p->last_use % 2)
		space_flush(p);
}

static bool refuse(struct block *b)
{
	b->heat = BLOCK_NEVER_WARM;
	return false;
}

static bool run_translated(void *opaque, struct interp_vcpu *c, struct block *b)
{
	struct trans *trans = opaque;
	struct trans_vcpu *t = trans->vcpus[c->v->index];
	struct vcpu_state *s = c->s;
	if (!helper_is_translatable(c))
		return refuse(b);
	struct translation *x = relocate_find(trans, b, s->rip, c->mode);
	if (unlikely(!x))
		x = rewritten_translate(t, b);
	if (unlikely(!x)) {
		if (!cache_has_room(trans)) {
			trans->full_count++;
			cache_flush(trans);
			return true; /* `b` is gone: look again */
		}
		x = translate(t, b);
		if (!x)
			return refuse(b);
	}
	if (c->until - c->cycles < x->count)
		return false; /* its first block fits, the rest does not */
	struct link *l = trans->pending;
	if (l && !t->lockstep && trans->pending_rip == s->rip && l->from->mode == x->mode &&
	    gpa_gfn(gpa(l->from->block->gpa)) == gpa_gfn(gpa(b->gpa)))
		cache_link(trans, l, x);
	trans->pending = NULL;
	helper_choose_space(t);
	make_hard(t->space);
	if (!t->lockstep)
		space_remember(t->space, s->rip, x->code);
	s->rflags &= ~FLAG_RF;
	fill_frame(t);
	lockstep_begin(t);
	trans->enter(t, x->code);
	lockstep_end(t, x);
	return true;
}

#define WINDOWS_BYTES (SPACE_USER_COUNT * SPACE_WINDOW_BYTES)

static void trans_destroy(struct engine *engine)
{
	struct interp *vm = (struct interp *)engine;
	if (!vm)
		return;
	struct trans *trans = (struct trans *)(uintptr_t)vm->translator;
	struct memory *memory = vm->config.memory;
	interp_ops.destroy(engine);
	if (!trans)
		return;
	for (unsigned n = 0; trans->vcpus && trans->vcpus[n]; n++) {
		memory_remove_flag_listener(memory, trans->vcpus[n]);
		pages_unmap(trans->vcpus[n]->windows, WINDOWS_BYTES);
		lockstep_destroy(trans->vcpus[n]);
		free(trans->vcpus[n]);
	}
	free(trans->vcpus);
	free(trans->insns);
	perf_map_close(trans);
	cache_fini(trans);
	free(trans);
}

static int trans_create(struct engine **out, const struct engine_config *config, struct error *e)
{
	int r = interp_ops.create(out, config, e);
	if (r)
		return r;
	struct interp *vm = (struct interp *)*out;
	struct trans *trans = calloc(1, sizeof(*trans));
	if (trans) {
		trans->vcpus = calloc(config->vcpu_count + 1, sizeof(struct trans_vcpu *));
		trans->insns = calloc(BLOCK_INSNS_MAX, sizeof(struct guest_insn));
	}
	if (!trans || !trans->vcpus || !trans->insns) {
		if (trans) {
			free(trans->vcpus);
			free(trans->insns);
		}
		free(trans);
		interp_ops.destroy(*out);
		*out = NULL;
		return error_set(e, -ENOMEM, "no memory for the translator");
	}
	uint8_t warm = config->warm_count ? config->warm_count : WARM_COUNT;
	trans->interp = vm;
	trans->translator = (struct interp_translator){.run = run_translated,
						       .dropped = cache_dropped,
						       .flushed = cache_flushed,
						       .note = rewritten_note,
						       .opaque = trans,
						       .warm_count = (uint8_t)(warm - 1)};
	vm->translator = &trans->translator;
	vm->engine.ops = &trans_ops;
	trans->has_fsgsbase = host_has_fsgsbase();
	trans->has_avx = __builtin_cpu_supports("avx");
	trans->exact_flags = config->clock->kind == CLOCK_VIRTUAL || config->lockstep;
	trans->has_x87 = !x87_notes_pointers() || config->clock->kind == CLOCK_REAL;
	trans->has_bmi1 = __builtin_cpu_supports("bmi");
	r = cache_init(trans, e);
	if (!r && config->perf_map)
		r = perf_map_open(trans, e);
	if (r) {
		trans_destroy(*out);
		*out = NULL;
		return r;
	}
	thunk_init(trans);
	return 0;
}

static bool make_spaces(struct trans_vcpu *t)
{
	uint8_t *windows = pages_map_large(WINDOWS_BYTES);
	if (!windows)
		return false;
	t->windows = windows;
	if (!pages_share(windows + SPACE_USER_BYTES, SPACE_SHARED_BYTES, SPACE_WINDOW_BYTES,
			 SPACE_USER_COUNT))
		return false;
	t->kernel = (struct space *)(void *)(windows + space_place(MMU_SUPERVISOR));
	t->kernel_ac = (struct space *)(void *)(windows + space_place(MMU_SUPERVISOR_AC));
	space_init(t->kernel);
	space_init(t->kernel_ac);
	for (unsigned k = 0; k < SPACE_USER_COUNT; k++)
		t->user[k] = (struct space *)(void *)(windows + k * SPACE_WINDOW_BYTES +
						      space_place(MMU_USER));
	return true;
}

/* Do loading CR3 and invalidating one page mean this user space, too? They are told apart by all of
 * CR3; what has the present one's PCID is of the present address space, and without PCIDs another's
 * is flushed when it is loaded. */
static bool is_present(const struct vcpu_state *s, const struct space *p)
{
	return s->cr4 & CR4_PCIDE ? !((p->cr3 ^ s->cr3) & 0xfff) : p->cr3 == s->cr3;
}

static void drop_page(struct trans_vcpu *t, uint64_t address, bool is_everywhere)
{
	bool is_large_code = t->c->mmu->has_large_code[address >> 63];
	space_drop_page(t->kernel, address, is_large_code);
	space_drop_page(t->kernel_ac, address, is_large_code);
	for (unsigned k = 0; k < SPACE_USER_COUNT; k++)
		if (t->user[k]->is_valid && (is_everywhere || is_present(t->c->s, t->user[k])))
			space_drop_page(t->user[k], address, is_large_code);
}

static void switch_space(struct trans_vcpu *t, bool is_flush)
{
	const struct vcpu_state *s = t->c->s;
	bool is_local = t->c->mmu->has_local_code[1];
	space_drop_local(t->kernel, is_local);
	space_drop_local(t->kernel_ac, is_local);
	for (unsigned k = 0; is_flush && k < SPACE_USER_COUNT; k++) {
		struct space *p = t->user[k];
		if (p->is_valid && is_present(s, p))
			space_flush(p);
	}
}

static void mmu_flushed(void *opaque, enum mmu_flush what, gva_t address)
{
	struct trans_vcpu *t = opaque;
	switch (what) {
	case MMU_FLUSH_PAGE:
		drop_page(t, address.v, t->c->mmu->has_global[address.v >> 63]);
		return;
	case MMU_FLUSH_ADDRESS: drop_page(t, address.v, true); return;
	case MMU_FLUSH_SPACE:
	case MMU_SWITCH_SPACE: switch_space(t, what == MMU_FLUSH_SPACE); return;
	case MMU_FLUSH_ALL: break;
	}
	space_flush(t->kernel);
	space_flush(t->kernel_ac);
	for (unsigned k = 0; k < SPACE_USER_COUNT; k++)
		if (t->user[k]->is_valid)
			space_flush(t->user[k]);
}

static void page_flagged(void *opaque, gpa_t page)
{
	struct trans_vcpu *t = opaque;
	const uint8_t *host = memory_host(t->c->memory, page, PAGE_SIZE_BYTES);
	space_protect(t->kernel, host);
	space_protect(t->kernel_ac, host);
	for (unsigned k = 0; k < SPACE_USER_COUNT; k++)
		space_protect(t->user[k], host);
}

static int trans_add_vcpu(struct engine *engine, struct vcpu *v, struct mmu *mmu, struct error *e)
{
	struct interp *vm = (struct interp *)engine;
	struct trans *trans = (struct trans *)(uintptr_t)vm->translator;
	int r = interp_ops.add_vcpu(engine, v, mmu, e);
	if (r)
		return r;
	struct trans_vcpu *t = calloc(1, sizeof(*t));
	if (!t || !make_spaces(t)) {
		if (t)
			pages_unmap(t->windows, WINDOWS_BYTES);
		free(t);
		return error_set(e, -ENOMEM, "no memory for vcpu %u's translations", v->index);
	}
	t->c = vm->vcpus[v->index];
	t->trans = trans;
	t->start.state = &v->state;
	t->start.t = t;
	t->start.c = t->c;
	t->start.requests = &v->requests;
	trans->vcpus[v->index] = t;
	if (vm->config.lockstep && lockstep_create(t, e))
		return -ENOMEM;
	mmu->listener = (struct mmu_listener){mmu_flushed, t};
	mmu->is_unmodelled = true;
	return memory_add_flag_listener(vm->config.memory,
					(struct memory_flag_listener){page_flagged, t});
}

static void trans_run(struct engine *engine, unsigned index, uint64_t until_cycles,
		      struct vm_exit *exit)
{
	struct trans *trans = (struct trans *)(uintptr_t)((struct interp *)engine)->translator;
	struct trans_vcpu *t = trans->vcpus[index];
	uint64_t before = ledger_total(t->c->ledger, EVENT_INSTRUCTION);
	t->gs = NULL; /* another thread, or another machine on this one */
	uint64_t own = host_gs_base();
	interp_ops.run(engine, index, until_cycles, exit);
	t->executed += ledger_total(t->c->ledger, EVENT_INSTRUCTION) - before;
	host_set_gs_base(own);
}

static void trans_state_changed(struct engine *engine, unsigned index)
{
	interp_ops.state_changed(engine, index);
}

static int trans_set_breakpoint(struct engine *engine, gva_t address, bool on)
{
	return interp_ops.set_breakpoint(engine, address, on);
}

static void trans_single_step(struct engine *engine, unsigned index)
{
	interp_ops.single_step(engine, index);
}

const struct engine_ops trans_ops = {
	.create = trans_create,
	.destroy = trans_destroy,
	.add_vcpu = trans_add_vcpu,
	.run = trans_run,
	.state_changed = trans_state_changed,
	.set_breakpoint = trans_set_breakpoint,
	.single_step = trans_single_step,
};
