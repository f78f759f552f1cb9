/*
 * A small machine for tests of the interpreter: 2 MiB of RAM, one vcpu, tables at known places, and
 * a handler for every vector that is one HLT, so that a test runs a few bytes of code and asks
 * which handler they ended in and with which frame.
 *
 *   0x00000 IVT    0x01000 GDT    0x02000 IDT    0x03000 TSS    0x03800 second TSS    0x08000 page
 * tables 0x10000 code   0x20000 handlers, 16 bytes each   0x40000 top of the kernel's stack 0x50000
 * of the user's
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#ifdef MACHINE_WITHOUT_CMOCKA
#include <assert.h>
#define assert_int_equal(a, b) assert((a) == (b))
#else
#include <cmocka.h>
#endif

#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "engine/interp/interp.h"
#include "ledger/ledger.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "x86/tlb_geometry.h"

#define GDT 0x1000u
#define IDT 0x2000u
#define TSS 0x3000u
#define TSS_B 0x3800u
#define TABLES 0x8000u
#define CODE 0x10000u
#define HANDLERS 0x20000u
#define KERNEL_STACK 0x40000u
#define USER_STACK 0x50000u
#define DATA 0x60000u

enum selector {
	KERNEL_CS = 0x08,
	KERNEL_DS = 0x10,
	USER_CS = 0x1b,
	USER_DS = 0x23,
	TSS_SELECTOR = 0x28,
	TSS_B_SELECTOR = 0x30,
	SPARE = 0x38,
	KERNEL_CS64 = 0x40,
	USER_DS64 = 0x4b, /* after it the code, as SYSRET wants */
	USER_CS64 = 0x53,
	TSS64_SELECTOR = 0x58, /* and 0x60 */
	SPARE64 = 0x68,	       /* and 0x70 */
	GDT_BYTES = 0x80,
};

struct machine {
	struct memory *memory;
	struct mmu *mmu;
	struct bus bus;
	struct clock clock;
	struct ledger ledger;
	struct cpu_model model;
	struct tlb_geometry geometry;
	struct vcpu v;
	struct engine *engine;
	struct vm_exit exit;
	int pending; /* vector that the fake APIC offers, or -1 */
	uint8_t tpr;
	uint8_t last_port_value;
};

static inline void poke(struct machine *m, uint64_t at, const void *bytes, size_t n)
{
	assert_int_equal(memory_write(m->memory, gpa(at), bytes, n), 0);
}

static inline uint64_t peek(struct machine *m, uint64_t at, unsigned n)
{
	uint64_t v = 0;

	assert_int_equal(memory_read(m->memory, gpa(at), &v, n), 0);
	return v;
}

static inline void poke_value(struct machine *m, uint64_t at, uint64_t value, unsigned n)
{
	poke(m, at, &value, n);
}

/* `access` is descriptor byte 5, `flags` the high nibble of byte 6. */
static inline void set_descriptor(struct machine *m, unsigned selector, uint32_t base,
				  uint32_t limit, unsigned access, unsigned flags)
{
	uint64_t d = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
		     (uint64_t)(limit >> 16 & 0xf) << 48 | (uint64_t)flags << 52 |
		     (uint64_t)(base >> 24) << 56;

	poke_value(m, GDT + (selector & 0xfff8), d, 8);
}

/* A call, interrupt, trap or task gate in the GDT or IDT at `at`. */
static inline void set_gate(struct machine *m, uint64_t at, unsigned selector, uint32_t offset,
			    unsigned access, unsigned count)
{
	uint64_t d = (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)count << 32 |
		     (uint64_t)access << 40 | (uint64_t)(offset >> 16) << 48;

	poke_value(m, at, d, 8);
}

static inline uint32_t handler(unsigned vector)
{
	return HANDLERS + vector * 16;
}

static inline void set_idt32(struct machine *m, unsigned vector, unsigned selector, uint32_t offset,
			     unsigned access)
{
	set_gate(m, IDT + vector * 8, selector, offset, access, 0);
}

static inline void set_idt64(struct machine *m, unsigned vector, unsigned selector, uint64_t offset,
			     unsigned access, unsigned ist)
{
	set_gate(m, IDT + vector * 16, selector, (uint32_t)offset, access, ist);
	poke_value(m, IDT + vector * 16 + 8, offset >> 32, 8);
}

static int machine_pending(void *opaque)
{
	return ((struct machine *)opaque)->pending;
}

static int machine_acknowledge(void *opaque)
{
	struct machine *m = opaque;
	int vector = m->pending;

	m->pending = -1;
	return vector;
}

static uint8_t machine_get_tpr(void *opaque)
{
	return ((struct machine *)opaque)->tpr;
}

static void machine_set_tpr(void *opaque, uint8_t tpr)
{
	((struct machine *)opaque)->tpr = tpr;
}

static bool machine_apic_read(void *opaque, uint32_t index, uint64_t *value)
{
	*value = 0;
	return true;
}

static bool machine_apic_write(void *opaque, uint32_t index, uint64_t value)
{
	return true;
}

static void machine_apic_reset(void *opaque)
{
}

static uint64_t machine_port_read(void *opaque, struct bus_access access)
{
	return 0x11223344u + access.offset;
}

static void machine_port_write(void *opaque, struct bus_access access, uint64_t value)
{
	((struct machine *)opaque)->last_port_value = (uint8_t)value;
}

static inline void machine_fill_tables(struct machine *m)
{
	set_descriptor(m, KERNEL_CS, 0, 0xfffff, 0x9b, 0xc);
	set_descriptor(m, KERNEL_DS, 0, 0xfffff, 0x93, 0xc);
	set_descriptor(m, USER_CS, 0, 0xfffff, 0xfb, 0xc);
	set_descriptor(m, USER_DS, 0, 0xfffff, 0xf3, 0xc);
	set_descriptor(m, TSS_SELECTOR, TSS, 0x68 + 32, 0x8b, 0);
	set_descriptor(m, TSS_B_SELECTOR, TSS_B, 0x67, 0x89, 0);
	set_descriptor(m, KERNEL_CS64, 0, 0xfffff, 0x9b, 0xa);
	set_descriptor(m, USER_CS64, 0, 0xfffff, 0xfb, 0xa);
	set_descriptor(m, USER_DS64, 0, 0xfffff, 0xf3, 0xc);
	set_descriptor(m, TSS64_SELECTOR, TSS, 0x67, 0x8b, 0);
	for (unsigned vector = 0; vector < 256; vector++)
		poke_value(m, handler(vector), 0xf4, 1);
}

static inline int machine_create_with(void **state, const char *strategy)
{
	static const struct apic_ops apic = {
		machine_pending,   machine_acknowledge, machine_get_tpr,   machine_set_tpr,
		machine_apic_read, machine_apic_write,	machine_apic_reset};
	static const struct bus_ops ports = {machine_port_read, machine_port_write};
	struct machine *m = calloc(1, sizeof(*m));
	const struct tlb_array array = {"all", 64, 4, TLB_ALL_SIZES};

	assert_int_equal(memory_create(&m->memory, 2 << 20, NULL), 0);
	assert_int_equal(cpu_model_parse(&m->model, "max", NULL), 0);
	m->model.vcpu_count = 1;
	m->model.tsc_hz = 1000000000;
	clock_init(&m->clock, CLOCK_VIRTUAL, 1000000000);
	bus_init(&m->bus);
	assert_int_equal(bus_map_ports(&m->bus, 0x80, 8, &ports, m, "test", NULL), 0);
	m->pending = -1;
	m->v.model = &m->model;
	m->v.clock = &m->clock;
	m->v.ledger = &m->ledger;
	m->v.apic_ops = &apic;
	m->v.apic = m;
	vcpu_reset(&m->v);
	m->geometry.l1d = m->geometry.l1i = (struct tlb_side){.array = {array}, .array_count = 1};
	struct mmu_config mmu = {.strategy = strategy, .geometry = &m->geometry};
	assert_int_equal(mmu_create(&m->mmu, &mmu, &m->v, m->memory, NULL), 0);
	struct engine_config config = {.memory = m->memory,
				       .bus = &m->bus,
				       .clock = &m->clock,
				       .vcpu_count = 1,
#ifdef MACHINE_LOCKSTEP
				       .lockstep = true,
#endif
				       .warm_count = 1};
	assert_int_equal(interp_ops.create(&m->engine, &config, NULL), 0);
	assert_int_equal(interp_ops.add_vcpu(m->engine, &m->v, m->mmu, NULL), 0);
	machine_fill_tables(m);
	*state = m;
	return 0;
}

static inline int machine_create(void **state)
{
	return machine_create_with(state, "native");
}

static inline int machine_create_nested(void **state)
{
	return machine_create_with(state, "nested");
}

static inline int machine_destroy(void **state)
{
	struct machine *m = *state;

	interp_ops.destroy(m->engine);
	mmu_destroy(m->mmu);
	memory_destroy(m->memory);
	free(m);
	return 0;
}

static inline struct segment_register flat(unsigned selector, unsigned attributes)
{
	return (struct segment_register){.limit = 0xffffffff,
					 .selector = (uint16_t)selector,
					 .attributes = (uint16_t)attributes};
}

/* Every vector goes to its handler through the IVT. */
static inline void enter_real(struct machine *m)
{
	vcpu_reset(&m->v);
	for (unsigned vector = 0; vector < 256; vector++)
		poke_value(m, vector * 4, (HANDLERS / 16 + vector) << 16, 4);
	m->v.state.seg[SEG_CS].selector = CODE / 16;
	m->v.state.seg[SEG_CS].base = CODE;
	m->v.state.rip = 0;
	m->v.state.gpr[GPR_RSP] = 0x8000;
	m->v.state.idtr.limit = 0x3ff;
}

static inline void enter_common(struct machine *m, unsigned cpl)
{
	struct vcpu_state *s = &m->v.state;

	vcpu_reset(&m->v);
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
	s->gdtr = (struct table_register){.base = GDT, .limit = GDT_BYTES - 1};
	s->idtr = (struct table_register){.base = IDT, .limit = 0xfff};
	s->cpl = (uint8_t)cpl;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = cpl ? flat(USER_DS, 0xc0f3) : flat(KERNEL_DS, 0xc093);
	s->gpr[GPR_RSP] = cpl ? USER_STACK : KERNEL_STACK;
	s->rip = CODE;
	s->ldtr = (struct segment_register){.attributes = ATTR_UNUSABLE};
}

/* 32-bit protected mode without paging. Gates 3, 4 and 0x80 are open to ring 3. */
static inline void enter_protected(struct machine *m, unsigned cpl)
{
	struct vcpu_state *s = &m->v.state;

	enter_common(m, cpl);
	s->seg[SEG_CS] = cpl ? flat(USER_CS, 0xc0fb) : flat(KERNEL_CS, 0xc09b);
	s->tr = (struct segment_register){TSS, 0x68 + 32, TSS_SELECTOR, 0x8b};
	for (unsigned vector = 0; vector < 256; vector++)
		set_idt32(m, vector, KERNEL_CS, handler(vector),
			  vector == 3 || vector == 4 || vector == 0x80 ? 0xee : 0x8e);
	poke_value(m, TSS + 4, KERNEL_STACK, 4);
	poke_value(m, TSS + 8, KERNEL_DS, 4);
	poke_value(m, TSS + 0x66, 0x68, 2);
	for (unsigned n = 0; n < 32; n++)
		poke_value(m, TSS + 0x68 + n, 0xff, 1);
}

/* Four-level paging, the first 2 MiB identical, for user and kernel alike. */
static inline void enter_long(struct machine *m, unsigned cpl)
{
	struct vcpu_state *s = &m->v.state;

	enter_common(m, cpl);
	poke_value(m, TABLES, (TABLES + 0x1000) | 7, 8);
	poke_value(m, TABLES + 0x1000, (TABLES + 0x2000) | 7, 8);
	poke_value(m, TABLES + 0x2000, 0x87, 8);
	s->cr3 = TABLES;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
	s->cr0 |= CR0_PG | CR0_WP;
	s->seg[SEG_CS] = cpl ? flat(USER_CS64, 0xa0fb) : flat(KERNEL_CS64, 0xa09b);
	s->seg[SEG_SS] = cpl ? flat(USER_DS64, 0xc0f3) : flat(KERNEL_DS, 0xc093);
	s->tr = (struct segment_register){TSS, 0x67, TSS64_SELECTOR, 0x8b};
	for (unsigned vector = 0; vector < 256; vector++)
		set_idt64(m, vector, KERNEL_CS64, handler(vector),
			  vector == 3 || vector == 0x80 ? 0xee : 0x8e, 0);
	poke_value(m, TSS + 4, KERNEL_STACK, 8);
}

/* Runs from the state as it stands until HLT, shutdown or 20000 cycles. */
static inline void go(struct machine *m)
{
	mmu_reset(m->mmu);
	interp_ops.state_changed(m->engine, 0);
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 20000, &m->exit);
}

#define run_code(m, ...)                                                             \
	do {                                                                         \
		static const uint8_t code_bytes[] = {__VA_ARGS__};                   \
		uint64_t code_at = (m)->v.state.seg[SEG_CS].base + (m)->v.state.rip; \
		poke((m), code_at, code_bytes, sizeof(code_bytes));                  \
		go(m);                                                               \
	} while (0)

/* The vector whose handler halted, or -1. */
static inline int ended_in(struct machine *m)
{
	const struct vcpu_state *s = &m->v.state;
	uint64_t at = s->seg[SEG_CS].base + s->rip;

	if (s->activity != ACTIVITY_HALTED || at < HANDLERS || at >= HANDLERS + 256 * 16 ||
	    at % 16 != 1)
		return -1;
	return (int)((at - HANDLERS) / 16);
}

#define assert_vector(m, vector) assert_int_equal(ended_in(m), vector)
/* Did the code itself halt, `offset` bytes after CODE being the next instruction? */
#define assert_halted_at(m, offset)                                                \
	do {                                                                       \
		assert_int_equal((m)->v.state.activity, ACTIVITY_HALTED);          \
		assert_int_equal((m)->v.state.seg[SEG_CS].base + (m)->v.state.rip, \
				 CODE + (offset));                                 \
	} while (0)

/* Slot `n` of the stack, in units of `bytes`. */
static inline uint64_t slot(struct machine *m, unsigned n, unsigned bytes)
{
	const struct vcpu_state *s = &m->v.state;

	return peek(m, s->seg[SEG_SS].base + s->gpr[GPR_RSP] + n * bytes, bytes);
}
