/*
 * What the system instructions share: descriptors, stacks of another privilege, task switches, and
 * the handlers that the lowering names.
 *
 * Private to the system half of engine/interp (deliver, descriptor, segments, far, return, task,
 * control, privileged, flags, port). Everything here follows one rule: look and check everything
 * first, write memory next, change registers last, so that a fault on the way leaves the
 * instruction as if it had never started.
 */
#pragma once

#include "engine/interp/interp.h"

/* ---- the mode ---- */

static inline bool is_protected(const struct vcpu_state *s)
{
	return (s->cr0 & CR0_PE) && !(s->rflags & FLAG_VM);
}

static inline bool is_v86(const struct vcpu_state *s)
{
	return (s->rflags & FLAG_VM) != 0;
}

static inline bool is_long(const struct vcpu_state *s)
{
	return (s->efer & EFER_LMA) != 0;
}

static inline unsigned iopl(const struct vcpu_state *s)
{
	return (unsigned)bits(s->rflags, 13, 12);
}

/* A linear address outside 64-bit mode wraps at 4 GiB. */
static inline uint64_t wrap_linear(const struct vcpu_state *s, uint64_t linear)
{
	return is_long(s) ? linear : (uint32_t)linear;
}

/* ---- raising ---- */

static inline _Noreturn void raise_gp0(struct interp_vcpu *c, const struct insn *i)
{
	interp_raise_error(c, i, VECTOR_GP, 0);
}

/* The error code that names a selector, with EXT while an event from outside the program is being
 * delivered (SDM 3A 6.13). */
static inline uint32_t selector_error(const struct interp_vcpu *c, unsigned selector)
{
	return (selector & 0xfffcu) | (c->is_delivering ? 1 : 0);
}

static inline _Noreturn void raise_selector(struct interp_vcpu *c, const struct insn *i,
					    unsigned vector, unsigned selector)
{
	interp_raise_error(c, i, vector, selector_error(c, selector));
}

static inline void require_cpl0(struct interp_vcpu *c, const struct insn *i)
{
	if (c->s->cpl)
		raise_gp0(c, i);
}

/* ---- descriptors (descriptor.c) ---- */

struct descriptor {
	uint32_t low, high;
	uint64_t address; /* linear, of the table's entry */
};

/* Types of system descriptors (SDM 3A table 3-2). */
enum system_type {
	TYPE_TSS16 = 1,
	TYPE_LDT = 2,
	TYPE_TSS16_BUSY = 3,
	TYPE_CALL_GATE16 = 4,
	TYPE_TASK_GATE = 5,
	TYPE_INTERRUPT_GATE16 = 6,
	TYPE_TRAP_GATE16 = 7,
	TYPE_TSS32 = 9, /* in long mode: 64 */
	TYPE_TSS32_BUSY = 11,
	TYPE_CALL_GATE32 = 12,
	TYPE_INTERRUPT_GATE32 = 14,
	TYPE_TRAP_GATE32 = 15,
};

static inline unsigned descriptor_type(const struct descriptor *d)
{
	return d->high >> 8 & 0xf;
}

static inline unsigned descriptor_dpl(const struct descriptor *d)
{
	return d->high >> 13 & 3;
}

static inline bool descriptor_is_present(const struct descriptor *d)
{
	return (d->high & 1u << 15) != 0;
}

/* Code or data, not system. */
static inline bool descriptor_is_segment(const struct descriptor *d)
{
	return (d->high & 1u << 12) != 0;
}

static inline bool descriptor_is_code(const struct descriptor *d)
{
	return (d->high & 0x1800u) == 0x1800u;
}

static inline bool descriptor_is_conforming_code(const struct descriptor *d)
{
	return (d->high & 0x1c00u) == 0x1c00u;
}

static inline bool descriptor_is_writable_data(const struct descriptor *d)
{
	return (d->high & 0x1a00u) == 0x1200u;
}

static inline bool is_null_selector(unsigned selector)
{
	return (selector & 0xfffcu) == 0;
}

/* Reads the descriptor that `selector` names from the GDT or LDT; false if it lies outside the
 * table. */
bool descriptor_read(struct interp_vcpu *c, const struct insn *i, unsigned selector,
		     struct descriptor *out);
/* The upper half of a 16-byte descriptor of long mode; false if it lies outside the table. */
bool descriptor_read_upper(struct interp_vcpu *c, const struct insn *i, unsigned selector,
			   const struct descriptor *d, uint64_t *upper);
uint32_t descriptor_limit(const struct descriptor *d);
uint32_t descriptor_base(const struct descriptor *d);
struct segment_register descriptor_segment(const struct descriptor *d, unsigned selector);
/* Sets the accessed bit in the table if it is clear. */
void descriptor_mark_accessed(struct interp_vcpu *c, const struct insn *i, struct descriptor *d);
/* Sets or clears the busy bit of a TSS descriptor. */
void descriptor_set_busy(struct interp_vcpu *c, const struct insn *i, unsigned selector, bool busy);

/* Are `size_bytes` at `offset` inside the segment (limit, expand-down; not for 64-bit code)? */
bool segment_covers(const struct segment_register *g, uint64_t offset, unsigned size_bytes);
/* A segment register as a null selector leaves it. */
struct segment_register segment_null(unsigned selector, unsigned dpl);
/* As real and virtual-8086 mode load it. */
struct segment_register segment_real(const struct vcpu_state *s, unsigned seg, unsigned selector);

/* Loads SS, DS, ES, FS or GS with all checks of the present mode (segments.c). */
void segment_load(struct interp_vcpu *c, const struct insn *i, unsigned seg, unsigned selector);
/* The descriptor checks for SS at privilege `cpl`, raising `vector` (#GP or #TS) or #SS; returns
 * what to put into SS. */
struct segment_register segment_check_stack(struct interp_vcpu *c, const struct insn *i,
					    unsigned selector, unsigned cpl, unsigned vector);

/* ---- stacks (descriptor.c) ---- */

/* A stack that is pushed to or popped from before any register changes. */
struct stack {
	struct segment_register ss;
	uint64_t sp; /* whole RSP; only the bits of `mask` move */
	uint64_t mask;
	bool is_flat;	/* 64-bit: no base, no limit */
	bool is_system; /* written as supervisor whatever CPL is: the stack of an inner privilege */
	uint32_t error; /* #SS error code of a violation */
};

struct stack stack_current(const struct interp_vcpu *c);
/* A stack that is about to be switched to. */
struct stack stack_new(const struct interp_vcpu *c, struct segment_register ss, uint64_t sp,
		       bool is_flat);
void stack_push(struct interp_vcpu *c, const struct insn *i, struct stack *k, uint64_t value,
		unsigned size_bytes);
uint64_t stack_pop(struct interp_vcpu *c, const struct insn *i, struct stack *k,
		   unsigned size_bytes);
/* `count` of them, of 8 bytes at once if that may be. */
void stack_pop_many(struct interp_vcpu *c, const struct insn *i, struct stack *k, uint64_t *values,
		    unsigned count, unsigned size_bytes);
/* Reads inner stack pointer number `cpl` of the TSS into *ss (selector, 0 in long mode) and *sp;
 * `ist` 1..7 instead in long mode. #TS. */
void tss_inner_stack(struct interp_vcpu *c, const struct insn *i, unsigned cpl, unsigned ist,
		     unsigned *ss, uint64_t *sp);

uint64_t system_read(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		     unsigned size_bytes);
/* Explicit accesses with the mode's own rights, by size. */
uint64_t data_read(struct interp_vcpu *c, const struct insn *i, uint64_t linear,
		   unsigned size_bytes);
void data_write(struct interp_vcpu *c, const struct insn *i, uint64_t linear, uint64_t value,
		unsigned size_bytes);
/* A general register by operand size, as instructions write it. */
void register_write(struct vcpu_state *s, unsigned reg, uint64_t value, unsigned size_bytes);

/* Sets the registers that a transfer to another code segment sets, CPL (the selector's RPL) among
 * them. RIP is cut to the mode's width. */
void load_code_segment(struct interp_vcpu *c, struct segment_register cs, uint64_t rip);
/* Raises #GP(0) unless `rip` is a legal target in the segment `cs`. */
void check_target(struct interp_vcpu *c, const struct insn *i, const struct segment_register *cs,
		  uint64_t rip);

/* What every far transfer ends with: RSP from the stack if there is one, CS and RIP. */
void arrive(struct interp_vcpu *c, const struct stack *k, struct segment_register cs, uint64_t rip);
/* In long mode a code segment cannot be both 64-bit and 32-bit. */
static inline void require_valid_code(struct interp_vcpu *c, const struct insn *i,
				      const struct descriptor *d, unsigned selector)
{
	if (is_long(c->s) && (d->high & 0x600000u) == 0x600000u)
		raise_selector(c, i, VECTOR_GP, selector);
}

/* ---- tasks (task.c) ---- */

enum task_reason { TASK_JUMP, TASK_CALL, TASK_EVENT, TASK_RETURN };

/* Switches to the task whose TSS descriptor is `d` (SDM 3A 7.3). The caller has checked type, busy
 * bit and privilege. `return_rip` is what the old task continues at. Ends with
 * interp_mode_changed(); a fault after the commit is raised in the new task. */
void task_switch(struct interp_vcpu *c, const struct insn *i, enum task_reason reason,
		 unsigned selector, const struct descriptor *d, uint64_t return_rip);
/* Through a task gate: checks the TSS selector in it. `vector` of selector errors is #GP. */
void task_gate(struct interp_vcpu *c, const struct insn *i, enum task_reason reason,
	       const struct descriptor *gate, uint64_t return_rip);

/* ---- delivery (deliver.c) ---- */

/* INT n, INT3, INTO, INT1 at instruction `i`. Charges GUEST_SOFTINT. */
void deliver_software(struct interp_vcpu *c, const struct insn *i, unsigned vector,
		      bool checks_iopl);

/* Breakpoints on ports, which CR4.DE allows. */
void debug_port_access(struct interp_vcpu *c, unsigned port, unsigned size_bytes);

/* ---- control registers (control.c) ---- */

/* Loads the PAE page-directory-pointer registers from `cr3`; raises #GP(0) on reserved bits and
 * changes nothing then. */
void load_pdptes(struct interp_vcpu *c, const struct insn *i, uint64_t cr3);
static inline bool uses_pdptes(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LME);
}

/* RFLAGS bits that `mask` names become those of `value`. */
void write_rflags(struct interp_vcpu *c, uint64_t value, uint64_t mask);

/* After the bus was used: leaves the engine if --unhandled=stop met something. */
void attend_bus(struct interp_vcpu *c);

/* ---- the parts of the lowering, one a file ---- */

bool lower_segments(struct lowering *l);
bool lower_far(struct lowering *l);
bool lower_returns(struct lowering *l);
bool lower_control(struct lowering *l);
bool lower_privileged(struct lowering *l);
bool lower_flags(struct lowering *l);
bool lower_port(struct lowering *l);
