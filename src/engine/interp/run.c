/*
 * The run loop of one vcpu: finds blocks and runs them, looks at requests between them, and turns
 * faults into deliveries.
 *
 * Everything that is not straight-line execution comes here: handlers unwind to interp_run() with a
 * fault or with the wish to be run alone; devices and other vcpus leave requests, handlers leave
 * attention bits, and the loop looks at both before every block. Time is counted here: a block's
 * instructions are charged before it runs, and uncharged when it is left early.
 */
#include "engine/interp/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "clock/clock.h"
#include "engine/interp/host.h"
#include "engine/interp/ring.h"

/* ---- charging ---- */

static void charge_block(struct interp_vcpu *c, uint16_t count)
{
	c->count = count;
	ledger_charge_many(c->ledger, EVENT_INSTRUCTION, count);
}

/* Gives back the instructions of the running block from the one at position `done` on. */
static void uncharge_from(struct interp_vcpu *c, uint64_t done)
{
	uint64_t back = c->count - done;
	ledger_charge_many(c->ledger, EVENT_INSTRUCTION, -back);
	c->cycles -= back;
	c->count = (uint16_t)done;
}

void interp_cut(struct interp_vcpu *c, const struct insn *i)
{
	uncharge_from(c, (uint64_t)(i - c->ops) + 1);
}

void interp_sync_clock(struct interp_vcpu *c, const struct insn *i)
{
	if (c->clock->kind == CLOCK_VIRTUAL)
		clock_set(c->clock, c->cycles - c->count + (i ? (uint64_t)(i - c->ops) : 0));
}

/* ---- unwinding ---- */

static void rewind_to(struct interp_vcpu *c, const struct insn *i)
{
	if (!i)
		return;
	uint64_t rip = c->s->gpr[REG_BLOCK] + i->offset;
	c->s->rip = i->mode == 64 ? rip : (uint32_t)rip;
	uncharge_from(c, (uint64_t)(i - c->ops));
}

static _Noreturn void raise_fault(struct interp_vcpu *c, const struct insn *i, struct fault fault)
{
	c->fault = fault;
	rewind_to(c, i);
	if (i && c->attempt)
		--*c->attempt;
	longjmp(c->unwind, UNWIND_FAULT);
}

_Noreturn void interp_raise(struct interp_vcpu *c, const struct insn *i, unsigned vector)
{
	raise_fault(c, i, (struct fault){.vector = (uint8_t)vector});
}

_Noreturn void interp_raise_error(struct interp_vcpu *c, const struct insn *i, unsigned vector,
				  uint32_t error)
{
	raise_fault(c, i,
		    (struct fault){.vector = (uint8_t)vector, .has_error = true, .error = error});
}

static struct fault page_fault(struct page_fault fault)
{
	return (struct fault){.vector = VECTOR_PF,
			      .has_error = true,
			      .error = fault.error_code,
			      .cr2 = fault.address.v};
}

_Noreturn void interp_raise_pf(struct interp_vcpu *c, const struct insn *i, struct page_fault fault)
{
	raise_fault(c, i, page_fault(fault));
}

void interp_alone(struct interp_vcpu *c, const struct insn *i)
{
	if (c->is_alone || !i)
		return;
	rewind_to(c, i);
	c->scratch[0] = *i;
	longjmp(c->unwind, UNWIND_ALONE);
}

/* ---- mode ---- */

static bool is_flat(const struct segment_register *r, uint16_t needed)
{
	uint16_t mask = ATTR_P | ATTR_S | ATTR_CODE | ATTR_UNUSABLE;
	bool expands_down = !(r->attributes & ATTR_CODE) && r->attributes & ATTR_EXPAND_DOWN;
	return !r->base && r->limit == UINT32_MAX && (r->attributes & mask) == (needed & mask) &&
	       (r->attributes & needed) == needed && !expands_down;
}

static bool is_flat_mode(const struct vcpu_state *s)
{
	const uint16_t data = ATTR_P | ATTR_S | ATTR_WRITABLE;
	return is_flat(&s->seg[SEG_CS], ATTR_P | ATTR_S | ATTR_CODE | ATTR_DB) &&
	       is_flat(&s->seg[SEG_SS], data | ATTR_DB) && is_flat(&s->seg[SEG_DS], data) &&
	       is_flat(&s->seg[SEG_ES], data);
}

static uint8_t mode_key(const struct vcpu *v)
{
	const struct vcpu_state *s = &v->state;
	uint8_t key = s->seg[SEG_CS].attributes & ATTR_DB ? KEY_CODE32 : KEY_CODE16;
	/* Whatever SS is (null in a handler, flat in a system call): one key, so that a kernel's
	 * code is decoded once. */
	if (vcpu_is_64bit(v))
		return KEY_CODE64 | KEY_PROTECTED;
	if (s->seg[SEG_SS].attributes & ATTR_DB)
		key |= KEY_STACK32;
	if (vcpu_is_protected(v))
		key |= KEY_PROTECTED;
	if (vcpu_is_v86(v))
		key |= KEY_V86;
	if ((key & (KEY_PROTECTED | KEY_V86 | KEY_CODE32)) == (KEY_PROTECTED | KEY_CODE32) &&
	    is_flat_mode(s))
		key |= KEY_FLAT;
	return key;
}

#define DR7_ENABLED 0xffu /* any of the four */

static uint8_t needed_checks(const struct vcpu_state *s)
{
	uint8_t checks = 0;
	if (s->cpl == 3 && s->cr0 & CR0_AM && s->rflags & FLAG_AC)
		checks |= CHECK_ALIGNMENT;
	for (unsigned n = 0; s->dr[7] & DR7_ENABLED && n < 4; n++) {
		bool is_data = bits(s->dr[7], 17 + 4 * n, 16 + 4 * n) != 0;
		if (s->dr[7] >> (2 * n) & 3 && is_data)
			checks |= CHECK_WATCHPOINTS;
	}
	return checks;
}

static bool has_instruction_breakpoints(const struct vcpu_state *s)
{
	for (unsigned n = 0; s->dr[7] & DR7_ENABLED && n < 4; n++)
		if (s->dr[7] >> (2 * n) & 3 && !bits(s->dr[7], 17 + 4 * n, 16 + 4 * n))
			return true;
	return false;
}

void interp_mode_changed(struct interp_vcpu *c)
{
	struct vcpu_state *s = c->s;
	c->key = mode_key(c->v);
	ring_changed(c);
	c->slow_checks = needed_checks(s);
	if (c->slow_checks)
		c->fast_read = c->fast_write = c->none;
	bool step = s->rflags & FLAG_TF || has_instruction_breakpoints(s) ||
		    c->vm->breakpoint_count || c->step_requested ||
		    c->slow_checks & CHECK_WATCHPOINTS;
	c->attention = (c->attention & ~(uint32_t)ATTENTION_STEP) | (step ? ATTENTION_STEP : 0) |
		       ATTENTION_INTERRUPT;
	if (s->interrupt_shadow)
		c->attention |= ATTENTION_SHADOW;
}

/* ---- delivery ---- */

static void shut_down(struct interp_vcpu *c)
{
	ledger_charge(c->ledger, EVENT_EXIT_TRIPLE_FAULT);
	c->s->activity = ACTIVITY_SHUTDOWN;
	c->exit = (struct vm_exit){.reason = EXIT_SHUTDOWN};
	c->attention |= ATTENTION_EXIT;
	c->is_delivering = false;
}

static bool is_contributory(unsigned vector)
{
	return vector == VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP);
}

/* SDM 3A table 6-5: what a fault during the delivery of another becomes. */
static bool makes_double_fault(unsigned first, unsigned second)
{
	if (first == VECTOR_PF)
		return second == VECTOR_PF || is_contributory(second);
	return is_contributory(first) && is_contributory(second);
}

static void deliver(struct interp_vcpu *c, unsigned vector, enum event_kind kind, bool has_error,
		    uint32_t error)
{
	c->is_delivering = true;
	c->delivering_vector = (uint8_t)vector;
	c->ops = NULL;
	c->count = 0;
	c->is_alone = true; /* what delivery touches may be device memory */
	c->cycles++;	    /* so that endless faults use up the budget */
	interp_deliver(c, vector, kind, has_error, error);
	c->is_delivering = false;
	c->is_alone = false;
}

static void deliver_fault(struct interp_vcpu *c)
{
	struct fault f = c->fault;
	if (f.vector == VECTOR_PF)
		c->s->cr2 = f.cr2;
	if (c->is_delivering) {
		unsigned first = c->delivering_vector;
		if (first == VECTOR_DF && (f.vector == VECTOR_PF || is_contributory(f.vector))) {
			shut_down(c);
			return;
		}
		if (makes_double_fault(first, f.vector))
			f = (struct fault){.vector = VECTOR_DF, .has_error = true};
	}
	c->s->interrupt_shadow = 0;
	deliver(c, f.vector, KIND_FAULT, f.has_error, f.error);
}

void interp_take_pf(struct interp_vcpu *c, const struct insn *i, struct page_fault fault)
{
	c->fault = page_fault(fault);
	rewind_to(c, i);
	deliver_fault(c);
}

/* #DB traps that wait for the end of the instruction (single step, data breakpoints, task switch).
 */
static void deliver_debug_trap(struct interp_vcpu *c)
{
	c->s->dr[6] |= c->s->pending_db;
	c->s->pending_db = 0;
	c->s->dr[7] &= ~BIT(13); /* GD */
	deliver(c, VECTOR_DB, KIND_FAULT, false, 0);
}

/* ---- what the loop looks at between blocks ---- */

static void take_init(struct interp_vcpu *c)
{
	vcpu_withdraw(c->v, REQUEST_INIT);
	vcpu_init_signal(c->v);
	mmu_reset(c->mmu);
	interp_mode_changed(c);
}

static void take_sipi(struct interp_vcpu *c)
{
	vcpu_withdraw(c->v, REQUEST_SIPI);
	vcpu_sipi(c->v, c->s->sipi_vector);
	mmu_reset(c->mmu);
	interp_mode_changed(c);
}

static bool can_take_nmi(const struct interp_vcpu *c, uint32_t requests)
{
	return requests & REQUEST_NMI && !c->s->nmi_blocked && !c->s->interrupt_shadow;
}

static bool can_take_interrupt(const struct interp_vcpu *c, uint32_t requests)
{
	return requests & REQUEST_INTERRUPT && c->s->rflags & FLAG_IF && !c->s->interrupt_shadow &&
	       c->v->apic_ops && c->v->apic_ops->pending(c->v->apic) >= 0;
}

static void take_nmi(struct interp_vcpu *c)
{
	vcpu_withdraw(c->v, REQUEST_NMI);
	ledger_halt_end(c->ledger);
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_NMI);
	c->s->nmi_blocked = 1;
	c->s->activity = ACTIVITY_RUNNING;
	deliver(c, VECTOR_NMI, KIND_HARDWARE, false, 0);
	ledger_exit_end(c->ledger, EVENT_EXIT_NMI, start);
}

static void take_interrupt(struct interp_vcpu *c)
{
	uint64_t start = interp_charge_exit(c, EVENT_EXIT_INTERRUPT);
	int vector = c->v->apic_ops->acknowledge(c->v->apic);
	if (vector < 0)
		return;
	ledger_halt_end(c->ledger);
	c->s->activity = ACTIVITY_RUNNING;
	deliver(c, (unsigned)vector, KIND_HARDWARE, false, 0);
	ledger_exit_end(c->ledger, EVENT_EXIT_INTERRUPT, start);
}

static bool leave(struct interp_vcpu *c, enum exit_reason reason)
{
	c->exit = (struct vm_exit){.reason = reason};
	return false;
}

static uint64_t time_now(struct interp_vcpu *c)
{
	return c->clock->kind == CLOCK_VIRTUAL ? c->cycles : clock_now(c->clock);
}

/* A timer may have been armed for a moment before the end of this stretch: end it there. */
static void shorten_stretch(struct interp_vcpu *c)
{
	c->attention &= ~(uint32_t)ATTENTION_DEADLINE;
	uint64_t next = clock_next_deadline(c->clock);
	if (c->clock->kind == CLOCK_REAL)
		next = next <= clock_now(c->clock) ? c->cycles : CLOCK_NEVER;
	if (next < c->until)
		c->until = next;
	if (c->bus->stop_requested) {
		c->exit = (struct vm_exit){.reason = EXIT_UNHANDLED, .text = c->bus->stop_text};
		c->attention |= ATTENTION_EXIT;
	}
}

/* False: leave run() with c->exit. */
static bool attend(struct interp_vcpu *c)
{
	struct vcpu_state *s = c->s;
	if (c->attention & ATTENTION_DEADLINE)
		shorten_stretch(c);
	if (c->attention & ATTENTION_EXIT) {
		c->attention &= ~(uint32_t)ATTENTION_EXIT;
		return false;
	}
	uint32_t requests = atomic_load_explicit(&c->v->requests, memory_order_acquire);
	if (requests & REQUEST_STOP) {
		vcpu_withdraw(c->v, REQUEST_STOP);
		return leave(c, EXIT_STOP);
	}
	c->attention &= ~(uint32_t)ATTENTION_INTERRUPT;
	if (s->activity == ACTIVITY_SHUTDOWN)
		return leave(c, EXIT_SHUTDOWN);
	if (requests & REQUEST_INIT)
		take_init(c);
	else if (requests & REQUEST_SIPI)
		take_sipi(c);
	else if (s->pending_db && s->activity == ACTIVITY_RUNNING &&
		 s->interrupt_shadow != SHADOW_MOV_SS)
		deliver_debug_trap(c);
	else if (can_take_nmi(c, requests) && s->activity != ACTIVITY_WAIT_SIPI)
		take_nmi(c);
	else if (can_take_interrupt(c, requests) && s->activity != ACTIVITY_WAIT_SIPI)
		take_interrupt(c);
	if (s->activity != ACTIVITY_RUNNING)
		return leave(c, s->activity == ACTIVITY_SHUTDOWN ? EXIT_SHUTDOWN : EXIT_HALT);
	return true;
}

static bool is_breakpoint(const struct interp *vm, uint64_t rip)
{
	for (unsigned n = 0; n < vm->breakpoint_count; n++)
		if (vm->breakpoints[n] == rip)
			return true;
	return false;
}

/* ---- blocks ---- */

/* Where the instruction at RIP lies in guest-physical memory; raises what fetching raises. */
static uint64_t fetch_address(struct interp_vcpu *c)
{
	uint64_t linear = c->s->rip;
	if (!(c->key & KEY_CODE64)) {
		if (unlikely(linear > c->s->seg[SEG_CS].limit))
			interp_raise_error(c, NULL, VECTOR_GP, 0);
		linear = (uint32_t)(linear + c->s->seg[SEG_CS].base);
	}
	c->fetch_count++;
	struct mmu_fast_entry *e =
		mmu_fast_lookup(c->mmu, linear, linear, ACCESS_FETCH, c->fetch_mode);
	if (likely(e != NULL)) {
		mmu_fast_hit(c->mmu, e, linear, 1);
		return e->gfn << PAGE_SHIFT | (linear & PAGE_OFFSET_MASK);
	}
	if (unlikely(c->key & KEY_CODE64 && !vcpu_is_canonical(c->s, linear)))
		interp_raise_error(c, NULL, VECTOR_GP, 0);
	struct mmu_page page;
	struct page_fault fault;
	if (!mmu_translate(c->mmu, gva(linear), ACCESS_FETCH, c->fetch_mode, &page, &fault))
		interp_raise_pf(c, NULL, fault);
	if (unlikely(c->mmu->difference)) {
		c->exit = (struct vm_exit){.reason = EXIT_DIFFERENCE, .text = c->mmu->difference};
		c->attention |= ATTENTION_EXIT;
	}
	return page.gpa.v;
}

static struct block *find_or_decode(struct interp_vcpu *c, uint64_t address)
{
	struct block *b = block_find(c->vm, address, c->key);
	if (b && (likely(b->gfn2 == ~0ull) || block_is_current(c, b)))
		return b;
	return block_decode(c, address);
}

/* Remembers that `from` led to `to`. In one page of 64-bit code the way needs no fetch look-up: the
 * page's translation cannot have changed since `from` was fetched, or the block would have ended.
 */
static void chain(struct interp_vcpu *c, struct block *from, uint64_t from_rip, struct block *to)
{
	unsigned way = c->taken;
	from->next[way] = to;
	from->same_page[way] = c->key & (KEY_CODE64 | KEY_FLAT) && to->gfn2 == ~0ull &&
			       from->gfn2 == ~0ull &&
			       from_rip >> PAGE_SHIFT == c->s->rip >> PAGE_SHIFT;
}

/* The block at RIP; `from` is the one that led here, or NULL. */
static struct block *next_block(struct interp_vcpu *c, struct block *from, uint64_t from_rip)
{
	struct block *guess;
	struct block **jump = NULL;
	if (from && c->taken < 2) {
		guess = from->next[c->taken];
		if (likely(guess && from->same_page[c->taken] && guess->key == c->key))
			return guess;
	} else {
		jump = &c->vm->cache.jump_cache[block_jump_slot(c->s->rip)];
		guess = *jump;
	}
	uint64_t address = fetch_address(c);
	if (likely(guess && guess->gpa == address && guess->key == c->key && guess->gfn2 == ~0ull))
		return guess;
	uint32_t generation = c->vm->cache.generation;
	struct block *b = find_or_decode(c, address);
	if (jump)
		*jump = b;
	else if (generation == c->vm->cache.generation && from)
		chain(c, from, from_rip, b);
	return b;
}

/* Runs scratch[0] as a block of its own. REG_BLOCK is what it was when the instruction was in its
 * block. */
static void run_alone(struct interp_vcpu *c)
{
	struct vcpu_state *s = c->s;
	bool traps = s->rflags & FLAG_TF;
	uint8_t shadow = s->interrupt_shadow;
	s->interrupt_shadow = 0;
	lower_end(&c->scratch[1], (unsigned)(c->scratch[0].offset + c->scratch[0].length),
		  c->scratch[0].mode);
	c->is_alone = true;
	c->ops = c->scratch;
	charge_block(c, 1);
	c->cycles += 1;
	s->rflags &= ~FLAG_RF; /* before it runs, for IRET may set it */
	c->settled_db = s->pending_db;
	c->drops_step = false;
	c->scratch[0].exec(s, c->scratch, c);
	c->is_alone = false;
	if (shadow)
		c->attention |= ATTENTION_INTERRUPT;
	if (s->interrupt_shadow)
		c->attention |= ATTENTION_SHADOW;
	else
		c->attention &= ~(uint32_t)ATTENTION_SHADOW;
	if (traps && !c->drops_step)
		s->pending_db |= BIT(14);
	if (c->step_requested) {
		c->step_requested = false;
		interp_mode_changed(c);
		c->exit = (struct vm_exit){.reason = EXIT_STEPPED};
		c->attention |= ATTENTION_EXIT;
	}
}

/* Blocks know nothing of CS's limit, for they are found by physical address. */
static inline bool is_within_cs(const struct interp_vcpu *c, uint32_t size_bytes)
{
	return c->key & KEY_CODE64 || c->s->rip + size_bytes - 1 <= c->s->seg[SEG_CS].limit;
}

/* The first instruction of `b`, which begins at RIP. */
static void run_first_alone(struct interp_vcpu *c, const struct block *b)
{
	if (unlikely(!is_within_cs(c, b->insns[0].length)))
		interp_raise_error(c, NULL, VECTOR_GP, 0);
	c->s->gpr[REG_BLOCK] = c->s->rip;
	c->scratch[0] = b->insns[0];
	run_alone(c);
}

/* One instruction from RIP. False: a debugger's breakpoint is here. */
static bool step(struct interp_vcpu *c, bool *first)
{
	if (c->vm->breakpoint_count && !*first && is_breakpoint(c->vm, c->s->rip))
		return leave(c, EXIT_BREAKPOINT);
	*first = false;
	if (c->attention & ATTENTION_STEP && interp_instruction_breakpoint(c))
		interp_raise(c, NULL, VECTOR_DB);
	run_first_alone(c, next_block(c, NULL, 0));
	return true;
}

static void op_stop(HANDLER_ARGUMENTS)
{
	(void)s;
	(void)i;
	c->went_on = true;
}

bool interp_execute(struct interp_vcpu *c, const struct block *b, unsigned index)
{
	const struct insn *i = &b->insns[index];
	if (index + 1u == b->count) { /* nothing comes after it */
		c->ops = b->insns;
		i->exec(c->s, i, c);
		return false;
	}
	c->single[0] = *i;
	/* So that the instruction's position in its block is right; in integers, for the array does
	 * not begin there. */
	c->ops = (struct insn *)((uintptr_t)c->single - index * sizeof(*c->single));
	c->went_on = false;
	c->single[0].exec(c->s, c->single, c);
	return c->went_on;
}

/* True: the translator ran it, and perhaps more. */
static inline bool run_translated(struct interp_vcpu *c, struct block *b)
{
	const struct interp_translator *t = c->vm->translator;
	if (!t || b->heat == BLOCK_NEVER_WARM)
		return false;
	if (b->heat < t->warm_count) {
		b->heat++;
		return false;
	}
	return t->run(t->opaque, c, b);
}

void interp_run_block(struct interp_vcpu *c, const struct block *b)
{
	struct vcpu_state *s = c->s;
	s->gpr[REG_BLOCK] = s->rip;
	c->ops = b->insns;
	charge_block(c, b->count);
	c->cycles += b->count;
	c->taken = 2;
	s->rflags &= ~FLAG_RF;
	b->insns[0].exec(s, b->insns, c);
}

static void run_blocks(struct interp_vcpu *c, bool *first)
{
	struct vcpu_state *s = c->s;
	struct block *from = NULL;
	uint64_t from_rip = 0;
	for (;;) {
		if (unlikely(c->attention |
			     atomic_load_explicit(&c->v->requests, memory_order_relaxed))) {
			c->count = 0;
			if (!attend(c))
				return;
			from = NULL;
		}
		if (unlikely(c->cycles + c->slack >= c->until)) {
			leave(c, EXIT_BUDGET);
			return;
		}
		/* A delivery leaves something to look at: the next run would, so this one does. */
		if (unlikely(c->attention & ATTENTION_LOOK))
			continue;
		if (unlikely(c->attention & (ATTENTION_STEP | ATTENTION_SHADOW))) {
			c->count = 0;
			if (!step(c, first))
				return;
			from = NULL;
			continue;
		}
		c->count = 0;
		if (unlikely(c->vm->cache.restless))
			block_settle(c->vm);
		uint32_t generation = c->vm->cache.generation;
		struct block *b = next_block(c, from, from_rip);
		if (unlikely(c->until - c->cycles < b->count || !is_within_cs(c, b->bytes))) {
			run_first_alone(c, b);
			from = NULL;
			continue;
		}
		if (run_translated(c, b)) {
			from = NULL;
			continue;
		}
		from_rip = s->rip;
		interp_run_block(c, b);
		from = likely(generation == c->vm->cache.generation) ? b : NULL;
	}
}

/* Real time passes by itself: come back soon and look. How soon nobody has to count, so that the
 * end need not fall between two instructions of a block, which would run one by one. */
#define SLICE_REAL 100000u

static void interp_run(struct engine *engine, unsigned index, uint64_t until_cycles,
		       struct vm_exit *exit)
{
	struct interp *vm = (struct interp *)engine;
	struct interp_vcpu *c = vm->vcpus[index];
	c->cycles = clock_now(c->clock);
	c->until = until_cycles;
	c->slack = 0;
	if (c->clock->kind == CLOCK_REAL && until_cycles - c->cycles > SLICE_REAL) {
		c->until = c->cycles + SLICE_REAL;
		c->slack = BLOCK_INSNS_MAX;
	}
	c->is_alone = c->is_delivering = false;
	c->count = 0;
	interp_mode_changed(c);
	/* Who was told of a breakpoint, or steps, goes on from it; everybody else stops there. */
	bool first = c->exit.reason == EXIT_BREAKPOINT || c->step_requested;
	switch (setjmp(c->unwind)) {
	case UNWIND_FAULT:
		if (c->is_alone && !c->is_delivering) /* data breakpoints of what never was */
			c->s->pending_db = c->settled_db;
		c->is_alone = false;
		c->count = 0;
		deliver_fault(c);
		break;
	case UNWIND_ALONE: run_alone(c); break;
	default: break;
	}
	c->attempt = NULL;
	run_blocks(c, &first);
	ring_fold_accesses(c);
	if (c->clock->kind == CLOCK_VIRTUAL)
		clock_set(c->clock, time_now(c));
	*exit = c->exit;
}

/* ---- the contract ---- */

static void interp_destroy(struct engine *engine)
{
	struct interp *vm = (struct interp *)engine;
	if (!vm)
		return;
	for (unsigned n = 0; n < vm->vcpu_count; n++)
		free(vm->vcpus[n]);
	free(vm->vcpus);
	decoder_destroy(vm->decoder);
	host_stubs_destroy(vm->stubs);
	block_cache_fini(vm);
	free(vm);
}

static int interp_create(struct engine **out, const struct engine_config *config, struct error *e)
{
	struct interp *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_set(e, -ENOMEM, "no memory for the interpreter");
	vm->engine.ops = &interp_ops;
	vm->config = *config;
	vm->vcpus = calloc(config->vcpu_count, sizeof(struct interp_vcpu *));
	int err = vm->vcpus ? block_cache_init(vm, e)
			    : error_set(e, -ENOMEM, "no memory for the interpreter");
	if (!err)
		err = host_stubs_create(&vm->stubs, e);
	if (!err)
		err = decoder_create(&vm->decoder, e);
	if (err) {
		interp_destroy(&vm->engine);
		return err;
	}
	*out = &vm->engine;
	return 0;
}

static int interp_add_vcpu(struct engine *engine, struct vcpu *v, struct mmu *mmu, struct error *e)
{
	struct interp *vm = (struct interp *)engine;
	if (v->index >= vm->config.vcpu_count)
		return error_set(e, -EINVAL, "vcpu %u: the engine was made for %u", v->index,
				 vm->config.vcpu_count);
	struct interp_vcpu *c = aligned_alloc(64, align_up(sizeof(*c), 64));
	if (!c)
		return error_set(e, -ENOMEM, "no memory for vcpu %u", v->index);
	memset(c, 0, sizeof(*c));
	for (unsigned n = 0; n < MMU_FAST_COUNT; n++)
		c->none[n].tag = MMU_FAST_EMPTY;
	c->v = v;
	c->s = &v->state;
	c->mmu = mmu;
	c->vm = vm;
	c->bus = vm->config.bus;
	c->memory = vm->config.memory;
	c->clock = vm->config.clock;
	c->ledger = v->ledger;
	c->virtualized = mmu_needs_exits(mmu);
	c->single[1] = (struct insn){.exec = op_stop};
	c->device_cycles = clock_cycles_from_ns(c->clock, INTERP_DEVICE_NS);
	c->folded_uses = mmu->use_clock;
	vm->vcpus[v->index] = c;
	vm->vcpu_count = v->index + 1 > vm->vcpu_count ? v->index + 1 : vm->vcpu_count;
	interp_mode_changed(c);
	return 0;
}

static void interp_state_changed(struct engine *engine, unsigned index)
{
	struct interp *vm = (struct interp *)engine;
	mmu_reset(vm->vcpus[index]->mmu);
	interp_mode_changed(vm->vcpus[index]);
}

static int interp_set_breakpoint(struct engine *engine, gva_t address, bool on)
{
	struct interp *vm = (struct interp *)engine;
	for (unsigned n = 0; n < vm->breakpoint_count; n++)
		if (vm->breakpoints[n] == address.v) {
			if (!on)
				vm->breakpoints[n] = vm->breakpoints[--vm->breakpoint_count];
			return 0;
		}
	if (!on)
		return 0;
	if (vm->breakpoint_count == BREAKPOINTS_MAX)
		return -ENOSPC;
	vm->breakpoints[vm->breakpoint_count++] = address.v;
	return 0;
}

static void interp_single_step(struct engine *engine, unsigned index)
{
	struct interp *vm = (struct interp *)engine;
	vm->vcpus[index]->step_requested = true;
}

const struct engine_ops interp_ops = {
	.create = interp_create,
	.destroy = interp_destroy,
	.add_vcpu = interp_add_vcpu,
	.run = interp_run,
	.state_changed = interp_state_changed,
	.set_breakpoint = interp_set_breakpoint,
	.single_step = interp_single_step,
};
