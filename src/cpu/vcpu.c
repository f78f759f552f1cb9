/*
 * A vcpu's state after RESET, INIT and a start-up IPI (SDM 3A 9.1.1, table 9-1), and its time-stamp
 * counter.
 *
 * Called by the board at power-on and by the engines when a signal arrives. What is set here is all
 * that a processor defines; the caller tells the MMU and the engine that the state changed.
 */
#include "cpu/vcpu.h"

#include <string.h>

#include "clock/clock.h"
#include "cpu/cpuid.h"

#define PAT_RESET 0x0007040600070406ull
#define DR6_RESET 0xffff0ff0ull
#define DR7_RESET 0x400ull
#define CR0_RESET (CR0_CD | CR0_NW | CR0_ET)
/* Fast strings; no branch trace store, no precise event sampling. */
#define MISC_ENABLE_RESET (BIT(0) | BIT(11) | BIT(12))

/* Present, read-write, accessed: what every segment register holds after RESET, CS too. */
#define REAL_MODE_ATTRIBUTES (ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED)

uint64_t vcpu_tsc(struct vcpu *v)
{
	return clock_now(v->clock) + v->state.tsc_offset;
}

/* The part of the state that RESET and INIT set alike. */
static void enter_reset_vector(struct vcpu *v)
{
	struct vcpu_state *s = &v->state;

	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[GPR_RDX] = v->model ? v->model->signature : 0;
	s->rip = 0xfff0;
	vcpu_set_rflags(v, FLAG_FIXED1);
	s->cpl = 0;
	s->interrupt_shadow = SHADOW_NONE;
	s->nmi_blocked = s->nmi_pending = 0;
	s->init_pending = s->sipi_pending = s->sipi_vector = 0;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct segment_register){.limit = 0xffff,
						      .attributes = REAL_MODE_ATTRIBUTES};
	s->seg[SEG_CS].selector = 0xf000;
	s->seg[SEG_CS].base = 0xffff0000;
	s->ldtr = (struct segment_register){.limit = 0xffff, .attributes = ATTR_P | 2};
	s->tr = (struct segment_register){.limit = 0xffff, .attributes = ATTR_P | 0xb};
	s->gdtr = s->idtr = (struct table_register){.limit = 0xffff};
	s->cr2 = s->cr3 = s->cr4 = s->cr8 = 0;
	memset(s->pdpte, 0, sizeof(s->pdpte));
	memset(s->dr, 0, sizeof(s->dr));
	s->dr[6] = DR6_RESET;
	s->dr[7] = DR7_RESET;
	s->pending_db = 0;
	s->efer = 0;
	s->spec_ctrl = 0;
	s->activity = v->index == 0 ? ACTIVITY_RUNNING : ACTIVITY_WAIT_SIPI;
}

void vcpu_reset(struct vcpu *v)
{
	struct vcpu_state *s = &v->state;
	uint64_t random_state = s->random_state; /* not the processor's: the run's seed */

	memset(s, 0, sizeof(*s));
	s->random_state = random_state;
	enter_reset_vector(v);
	s->cr0 = CR0_RESET;
	s->xcr0 = XCR0_X87;
	s->tsc_offset = v->clock ? 0 - clock_now(v->clock) : 0;
	s->pat = PAT_RESET;
	s->misc_enable = MISC_ENABLE_RESET;
	s->fpu.fcw = 0x40;
	s->fpu.ftw = 0xff; /* tag word 5555H: nothing is empty */
	s->fpu.mxcsr = 0x1f80;
}

void vcpu_init_signal(struct vcpu *v)
{
	uint64_t cache_bits = v->state.cr0 & (CR0_CD | CR0_NW);

	enter_reset_vector(v);
	v->state.cr0 = cache_bits | CR0_ET;
	if (v->apic_ops && v->apic_ops->reset)
		v->apic_ops->reset(v->apic);
}

void vcpu_sipi(struct vcpu *v, uint8_t vector)
{
	struct vcpu_state *s = &v->state;

	if (s->activity != ACTIVITY_WAIT_SIPI)
		return;
	s->seg[SEG_CS].selector = (uint16_t)(vector << 8);
	s->seg[SEG_CS].base = (uint64_t)vector << 12;
	s->rip = 0;
	s->activity = ACTIVITY_RUNNING;
}
