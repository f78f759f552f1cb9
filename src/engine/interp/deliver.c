/*
 * Delivery of exceptions and interrupts through the IVT or the IDT (SDM 3A chapter 6, volume 2 INT
 * n), and the debug registers' matches.
 *
 * The run loop calls interp_deliver() between instructions; INT n and its like come through
 * deliver_software(). A fault met on the way unwinds with is_delivering set (not for software
 * interrupts, which are instructions that fault), and the run loop makes a double or triple fault
 * of it. Nothing of the registers has changed then.
 */
#include "engine/interp/system.h"

#define GATE_BYTES 8u
#define GATE_BYTES_LONG 16u
#define DR7_GENERAL_DETECT BIT(13)
/* Vectors above this that are external are benign for the double-fault table; NMI's number stands
 * for all of them. */
#define BENIGN_VECTOR VECTOR_NMI

/* One delivery. */
struct delivery {
	const struct insn *i;
	unsigned vector;
	enum event_kind kind;
	bool has_error;
	uint32_t error;
	uint64_t return_rip;
	uint64_t flags; /* as pushed */
	bool is_int1;
	/* from the gate: */
	struct descriptor gate;
	unsigned selector;
	uint64_t target;
	bool clears_if;
};

static uint32_t gate_error(const struct interp_vcpu *c, const struct delivery *d)
{
	return d->vector << 3 | 2 | (c->is_delivering ? 1 : 0);
}

static void count(struct interp_vcpu *c, const struct delivery *d)
{
	enum event e = EVENT_GUEST_EXCEPTION;

	if (d->kind == KIND_HARDWARE)
		e = EVENT_GUEST_INTERRUPT;
	else if (d->kind == KIND_SOFTWARE)
		e = EVENT_GUEST_SOFTINT;
	else if (d->vector == VECTOR_PF)
		e = EVENT_GUEST_PAGE_FAULT;
	ledger_charge(c->ledger, e);
}

/* What every delivery does last. `clear` names more flags than TF, NT, RF, VM. */
static void finish(struct interp_vcpu *c, const struct delivery *d, uint64_t clear)
{
	struct vcpu_state *s = c->s;

	s->rflags &= ~(FLAG_TF | FLAG_RF | FLAG_VM | clear);
	s->interrupt_shadow = SHADOW_NONE;
	if (d->vector == VECTOR_DB && d->kind == KIND_FAULT)
		s->dr[7] &= ~DR7_GENERAL_DETECT;
	c->is_delivering = false;
	interp_mode_changed(c);
}

/* ---- real mode, and virtual-8086 mode with redirection ---- */

static void push_real_frame(struct interp_vcpu *c, const struct delivery *d, struct stack *k)
{
	stack_push(c, d->i, k, d->flags, 2);
	stack_push(c, d->i, k, c->s->seg[SEG_CS].selector, 2);
	stack_push(c, d->i, k, d->return_rip, 2);
}

static void enter_real_handler(struct interp_vcpu *c, const struct delivery *d, uint32_t entry,
			       uint64_t clear)
{
	struct vcpu_state *s = c->s;
	struct stack k = stack_current(c);

	push_real_frame(c, d, &k);
	count(c, d);
	s->gpr[GPR_RSP] = k.sp;
	load_code_segment(c, segment_real(s, SEG_CS, entry >> 16), entry & 0xffff);
	s->rflags &= ~clear;
	s->interrupt_shadow = SHADOW_NONE;
	c->is_delivering = false;
	interp_mode_changed(c);
}

static void deliver_real(struct interp_vcpu *c, struct delivery *d)
{
	struct vcpu_state *s = c->s;

	if (d->vector * 4 + 3 > s->idtr.limit)
		interp_raise_error(c, d->i, VECTOR_GP, gate_error(c, d));
	uint32_t entry = (uint32_t)system_read(c, d->i, s->idtr.base + d->vector * 4, 4);
	enter_real_handler(c, d, entry, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/* INT n of virtual-8086 mode with CR4.VME (SDM 3B 20.3): is its bit of the TSS's redirection map
 * clear? */
static bool is_redirected(struct interp_vcpu *c, const struct insn *i, unsigned vector)
{
	const struct segment_register *tr = &c->s->tr;

	if (!(c->s->cr4 & CR4_VME) || tr->limit < 0x67)
		return false;
	unsigned at = (unsigned)system_read(c, i, tr->base + 0x66, 2) - 32 + vector / 8;
	if (at > tr->limit)
		return false;
	return !(system_read(c, i, tr->base + at, 1) >> (vector % 8) & 1);
}

static void deliver_redirected(struct interp_vcpu *c, struct delivery *d)
{
	struct vcpu_state *s = c->s;
	uint32_t entry = (uint32_t)data_read(c, d->i, d->vector * 4, 4);

	if (iopl(s) == 3) {
		enter_real_handler(c, d, entry, FLAG_IF | FLAG_TF);
		return;
	}
	d->flags = (d->flags & ~FLAG_IF) | FLAG_IOPL | (s->rflags & FLAG_VIF ? FLAG_IF : 0);
	enter_real_handler(c, d, entry, FLAG_VIF | FLAG_TF);
}

/* ---- protected mode ---- */

static void read_gate(struct interp_vcpu *c, struct delivery *d)
{
	struct vcpu_state *s = c->s;
	unsigned bytes = is_long(s) ? GATE_BYTES_LONG : GATE_BYTES;
	uint64_t at = s->idtr.base + d->vector * bytes;

	if (d->vector * bytes + bytes - 1 > s->idtr.limit)
		interp_raise_error(c, d->i, VECTOR_GP, gate_error(c, d));
	uint64_t v = system_read(c, d->i, at, 8);
	d->gate = (struct descriptor){(uint32_t)v, (uint32_t)(v >> 32), at};
	d->selector = d->gate.low >> 16;
	d->target = (d->gate.low & 0xffff) | (d->gate.high & 0xffff0000u);
	unsigned type = descriptor_type(&d->gate);
	bool is_gate = is_long(s)
			       ? type >= TYPE_INTERRUPT_GATE32
			       : type >= TYPE_INTERRUPT_GATE32 || type == TYPE_TASK_GATE ||
					 type == TYPE_INTERRUPT_GATE16 || type == TYPE_TRAP_GATE16;
	if (descriptor_is_segment(&d->gate) || !is_gate)
		interp_raise_error(c, d->i, VECTOR_GP, gate_error(c, d));
	/* INT1 may go where only events may (SDM 2A, INT n). */
	if (d->kind == KIND_SOFTWARE && !d->is_int1 && descriptor_dpl(&d->gate) < s->cpl)
		interp_raise_error(c, d->i, VECTOR_GP, gate_error(c, d));
	if (!descriptor_is_present(&d->gate))
		interp_raise_error(c, d->i, VECTOR_NP, gate_error(c, d));
	if (is_long(s))
		d->target |= system_read(c, d->i, at + 8, 4) << 32;
	else if (!(type & 8))
		d->target &= 0xffff;
	d->clears_if = !(type & 1);
}

/* The handler's code segment; *cpl becomes the privilege it runs at. */
static struct segment_register handler_segment(struct interp_vcpu *c, const struct delivery *d,
					       unsigned *cpl)
{
	struct vcpu_state *s = c->s;
	struct descriptor code;

	if (is_null_selector(d->selector))
		raise_selector(c, d->i, VECTOR_GP, 0);
	if (!descriptor_read(c, d->i, d->selector, &code) || !descriptor_is_code(&code) ||
	    descriptor_dpl(&code) > s->cpl)
		raise_selector(c, d->i, VECTOR_GP, d->selector);
	bool is_inner = !descriptor_is_conforming_code(&code) && descriptor_dpl(&code) < s->cpl;
	if (is_v86(s) && (!is_inner || descriptor_dpl(&code)))
		raise_selector(c, d->i, VECTOR_GP, d->selector);
	if (is_long(s) && (code.high & 0x600000u) != 0x200000u)
		raise_selector(c, d->i, VECTOR_GP, d->selector);
	if (!descriptor_is_present(&code))
		raise_selector(c, d->i, VECTOR_NP, d->selector);
	*cpl = is_inner ? descriptor_dpl(&code) : s->cpl;
	descriptor_mark_accessed(c, d->i, &code);
	return descriptor_segment(&code, (d->selector & ~3u) | *cpl);
}

/* At once if it may: who looks at single accesses (observers) sees each. */
static void push_long_frame(struct interp_vcpu *c, const struct delivery *d, struct stack *k)
{
	const struct vcpu_state *s = c->s;
	const uint64_t frame[] = {d->error, d->return_rip,   s->seg[SEG_CS].selector,
				  d->flags, s->gpr[GPR_RSP], s->seg[SEG_SS].selector};
	unsigned first = d->has_error ? 0 : 1, count = (unsigned)ARRAY_COUNT(frame) - first;
	uint64_t sp = k->sp - 8 * count;
	uint8_t *at = NULL;

	if (k->is_system && !c->mmu->is_observed)
		at = interp_system_bytes(c, sp, 8 * count, count, ACCESS_WRITE);
	for (unsigned n = ARRAY_COUNT(frame); n-- > first;) {
		if (at)
			__builtin_memcpy(at + 8 * (n - first), &frame[n], 8);
		else
			stack_push(c, d->i, k, frame[n], 8);
	}
	k->sp = sp;
}

/* RIP, CS, RFLAGS, RSP, SS in 64-bit pushes on a stack aligned to 16 bytes. */
static void deliver_long(struct interp_vcpu *c, struct delivery *d)
{
	struct vcpu_state *s = c->s;
	unsigned cpl, ss, ist = (unsigned)system_read(c, d->i, d->gate.address + 4, 1) & 7;
	struct segment_register cs = handler_segment(c, d, &cpl);
	uint64_t sp = s->gpr[GPR_RSP];

	if (cpl < s->cpl || ist)
		tss_inner_stack(c, d->i, cpl, ist, &ss, &sp);
	struct segment_register new_ss = cpl < s->cpl ? segment_null(cpl, cpl) : s->seg[SEG_SS];
	struct stack k = stack_new(c, new_ss, sp & ~15ull, true);
	k.is_system = cpl < 3;
	check_target(c, d->i, &cs, d->target);
	push_long_frame(c, d, &k);
	count(c, d);
	s->seg[SEG_SS] = new_ss;
	s->gpr[GPR_RSP] = k.sp;
	load_code_segment(c, cs, d->target);
	finish(c, d, FLAG_NT | (d->clears_if ? FLAG_IF : 0));
}

/* Flags, CS, EIP and the error code: the part that all frames of protected mode end with. */
static void push_frame(struct interp_vcpu *c, const struct delivery *d, struct stack *k,
		       unsigned size_bytes)
{
	stack_push(c, d->i, k, d->flags, size_bytes);
	stack_push(c, d->i, k, c->s->seg[SEG_CS].selector, size_bytes);
	stack_push(c, d->i, k, d->return_rip, size_bytes);
	if (d->has_error)
		stack_push(c, d->i, k, d->error, size_bytes);
}

static void deliver_inner(struct interp_vcpu *c, struct delivery *d, struct segment_register cs,
			  unsigned cpl, unsigned size_bytes)
{
	static const uint8_t v86_order[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
	struct vcpu_state *s = c->s;
	bool was_v86 = is_v86(s);
	unsigned selector;
	uint64_t sp;

	tss_inner_stack(c, d->i, cpl, 0, &selector, &sp);
	struct segment_register ss = segment_check_stack(c, d->i, selector, cpl, VECTOR_TS);
	struct stack k = stack_new(c, ss, sp, false);
	check_target(c, d->i, &cs, d->target);
	for (unsigned n = 0; was_v86 && n < ARRAY_COUNT(v86_order); n++)
		stack_push(c, d->i, &k, s->seg[v86_order[n]].selector, size_bytes);
	stack_push(c, d->i, &k, s->seg[SEG_SS].selector, size_bytes);
	stack_push(c, d->i, &k, s->gpr[GPR_RSP], size_bytes);
	push_frame(c, d, &k, size_bytes);
	count(c, d);
	s->rflags &= ~FLAG_VM;
	for (unsigned n = 0; was_v86 && n < ARRAY_COUNT(v86_order); n++)
		s->seg[v86_order[n]] = segment_null(0, 0);
	s->seg[SEG_SS] = ss;
	s->gpr[GPR_RSP] = k.sp;
	load_code_segment(c, cs, d->target);
	finish(c, d, FLAG_NT | (d->clears_if ? FLAG_IF : 0));
}

static void deliver_same(struct interp_vcpu *c, struct delivery *d, struct segment_register cs,
			 unsigned size_bytes)
{
	struct stack k = stack_current(c);

	check_target(c, d->i, &cs, d->target);
	push_frame(c, d, &k, size_bytes);
	count(c, d);
	c->s->gpr[GPR_RSP] = k.sp;
	load_code_segment(c, cs, d->target);
	finish(c, d, FLAG_NT | (d->clears_if ? FLAG_IF : 0));
}

/* The handler is a task: the error code goes onto its stack. */
static void deliver_task(struct interp_vcpu *c, struct delivery *d)
{
	count(c, d);
	task_gate(c, d->i, TASK_EVENT, &d->gate, d->return_rip);
	if (d->has_error) {
		struct stack k = stack_current(c);
		stack_push(c, d->i, &k, d->error, c->s->tr.attributes & 8 ? 4 : 2);
		c->s->gpr[GPR_RSP] = k.sp;
	}
	c->s->interrupt_shadow = SHADOW_NONE;
	c->is_delivering = false;
	interp_mode_changed(c);
}

static void deliver_protected(struct interp_vcpu *c, struct delivery *d)
{
	unsigned cpl;

	read_gate(c, d);
	if (is_long(c->s)) {
		deliver_long(c, d);
		return;
	}
	if (descriptor_type(&d->gate) == TYPE_TASK_GATE) {
		deliver_task(c, d);
		return;
	}
	unsigned size_bytes = descriptor_type(&d->gate) & 8 ? 4 : 2;
	struct segment_register cs = handler_segment(c, d, &cpl);
	if (cpl < c->s->cpl)
		deliver_inner(c, d, cs, cpl, size_bytes);
	else
		deliver_same(c, d, cs, size_bytes);
}

static void deliver(struct interp_vcpu *c, struct delivery *d)
{
	d->flags = vcpu_rflags(c->v);
	if (c->s->cr0 & CR0_PE)
		deliver_protected(c, d);
	else
		deliver_real(c, d);
}

void interp_deliver(struct interp_vcpu *c, unsigned vector, enum event_kind kind, bool has_error,
		    uint32_t error)
{
	/* Stands for an instruction at RIP, so that a fault on the way leaves RIP alone. */
	static const struct insn here = {.mode = 64};
	struct vcpu_state *s = c->s;
	struct delivery d = {
		.i = &here,
		.vector = vector,
		.kind = kind,
		.has_error = has_error,
		.error = error,
		.return_rip = s->rip,
	};

	if (s->activity == ACTIVITY_HALTED)
		s->activity = ACTIVITY_RUNNING;
	s->gpr[REG_BLOCK] = s->rip;
	c->ops = &here;
	c->is_alone = true; /* there is nothing to start again */
	c->is_delivering = kind != KIND_SOFTWARE;
	c->delivering_vector = (uint8_t)(kind == KIND_HARDWARE ? BENIGN_VECTOR : vector);
	/* A fault's image has RF set, so that its instruction's breakpoint is not met twice. #DB is
	 * the exception: who handles it sets RF. */
	if (kind == KIND_FAULT && vector != VECTOR_DB)
		s->rflags |= FLAG_RF;
	deliver(c, &d);
}

void deliver_software(struct interp_vcpu *c, const struct insn *i, unsigned vector,
		      bool checks_iopl)
{
	struct vcpu_state *s = c->s;
	struct delivery d = {
		.i = i,
		.vector = vector,
		.kind = KIND_SOFTWARE,
		.return_rip = interp_next_rip(s, i),
	};

	c->is_delivering = false;
	d.is_int1 = vector == VECTOR_DB && !checks_iopl;
	d.flags = vcpu_rflags(c->v) & ~FLAG_RF;
	if (is_v86(s) && checks_iopl) {
		if (is_redirected(c, i, vector)) {
			deliver_redirected(c, &d);
			return;
		}
		if (iopl(s) < 3)
			raise_gp0(c, i);
	}
	s->rflags &= ~FLAG_RF;
	deliver(c, &d);
	c->drops_step = true;
}

/* ---- debug registers (SDM 3B 17.2) ---- */

static unsigned breakpoint_bytes(uint64_t dr7, unsigned n)
{
	static const uint8_t lengths[] = {1, 2, 8, 4};

	return lengths[bits(dr7, 19 + n * 4, 18 + n * 4)];
}

static bool breakpoint_is_enabled(uint64_t dr7, unsigned n)
{
	return (dr7 >> (n * 2) & 3) != 0;
}

void interp_data_breakpoint(struct interp_vcpu *c, uint64_t linear, unsigned size_bytes,
			    enum access_kind kind)
{
	struct vcpu_state *s = c->s;

	for (unsigned n = 0; n < 4; n++) {
		unsigned condition = (unsigned)bits(s->dr[7], 17 + n * 4, 16 + n * 4);
		if (!breakpoint_is_enabled(s->dr[7], n) ||
		    !(condition == 3 || (condition == 1 && kind == ACCESS_WRITE)))
			continue;
		unsigned bytes = breakpoint_bytes(s->dr[7], n);
		uint64_t first = s->dr[n] & ~(uint64_t)(bytes - 1);
		if (linear < first + bytes && first < linear + size_bytes) {
			s->pending_db |= 1u << n;
			c->attention |= ATTENTION_STEP;
		}
	}
}

void debug_port_access(struct interp_vcpu *c, unsigned port, unsigned size_bytes)
{
	struct vcpu_state *s = c->s;

	for (unsigned n = 0; (s->cr4 & CR4_DE) && n < 4; n++) {
		unsigned bytes = breakpoint_bytes(s->dr[7], n);
		uint64_t first = s->dr[n] & ~(uint64_t)(bytes - 1);
		if (breakpoint_is_enabled(s->dr[7], n) &&
		    bits(s->dr[7], 17 + n * 4, 16 + n * 4) == 2 && port < first + bytes &&
		    first < port + size_bytes) {
			s->pending_db |= 1u << n;
			c->attention |= ATTENTION_STEP;
		}
	}
}

bool interp_instruction_breakpoint(struct interp_vcpu *c)
{
	struct vcpu_state *s = c->s;
	uint64_t linear = wrap_linear(s, s->seg[SEG_CS].base + s->rip);
	unsigned hits = 0;

	if (s->rflags & FLAG_RF)
		return false;
	if (is_long(s) && (s->seg[SEG_CS].attributes & ATTR_L))
		linear = s->rip;
	for (unsigned n = 0; n < 4; n++)
		if (breakpoint_is_enabled(s->dr[7], n) && !bits(s->dr[7], 17 + n * 4, 16 + n * 4) &&
		    s->dr[n] == linear)
			hits |= 1u << n;
	if (!hits)
		return false;
	s->dr[6] = (s->dr[6] & ~0xfull) | hits;
	return true;
}
