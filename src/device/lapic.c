/*
 * One local APIC's vectors. IRR holds what was accepted, ISR what the processor is handling, TMR
 * which of them were level- triggered and must be told to the I/O APIC when they end (SDM 3A 10.8).
 */
#include "device/lapic_core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bus/platform.h"
#include "device/pic.h"

static bool test_vector(const uint32_t *set, uint8_t vector)
{
	return set[vector >> 5] & 1u << (vector & 31);
}

static void set_vector(uint32_t *set, uint8_t vector, bool value)
{
	uint32_t bit = 1u << (vector & 31);
	set[vector >> 5] = value ? set[vector >> 5] | bit : set[vector >> 5] & ~bit;
}

/* The highest vector in the set, or -1. */
static int highest_vector(const uint32_t *set)
{
	for (int i = 7; i >= 0; i--)
		if (set[i])
			return 32 * i + 31 - __builtin_clz(set[i]);
	return -1;
}

/* SDM 3A 10.8.3.1. */
uint8_t lapic_ppr(const struct lapic *l)
{
	int serviced = highest_vector(l->state.isr);
	uint8_t class = serviced < 0 ? 0 : (uint8_t)serviced & 0xf0;
	return (l->state.tpr & 0xf0) >= class ? (uint8_t)l->state.tpr : class;
}

/* Does the PIC's INTR reach the core: through LINT0 as ExtINT, or because there is no APIC in
 * between? */
static bool has_extint(const struct lapic *l)
{
	if (!l->state.lint_level[0] || !l->hub->pic)
		return false;
	if (!lapic_is_enabled(l))
		return true;
	uint32_t lint0 = l->state.lvt[LVT_LINT0];
	return !(lint0 & LVT_MASKED) && LVT_MODE(lint0) == DELIVER_EXTINT;
}

/* The vector in IRR that beats the processor's priority, or -1. */
static int deliverable_vector(const struct lapic *l)
{
	if (!lapic_is_software_enabled(l))
		return -1;
	int vector = highest_vector(l->state.irr);
	return vector >= 0 && (vector & 0xf0) > (lapic_ppr(l) & 0xf0) ? vector : -1;
}

static int lapic_pending(void *opaque)
{
	struct lapic *l = opaque;
	int vector = has_extint(l) ? pic_pending(l->hub->pic) : -1;
	return vector >= 0 ? vector : deliverable_vector(l);
}

static int lapic_acknowledge(void *opaque)
{
	struct lapic *l = opaque;
	if (has_extint(l) && pic_pending(l->hub->pic) >= 0) {
		int extint = pic_acknowledge(l->hub->pic);
		lapic_update(l);
		return extint;
	}
	int vector = deliverable_vector(l);
	if (vector >= 0) {
		set_vector(l->state.irr, (uint8_t)vector, false);
		set_vector(l->state.isr, (uint8_t)vector, true);
	}
	lapic_update(l);
	return vector;
}

void lapic_update(struct lapic *l)
{
	if (lapic_pending(l) >= 0)
		vcpu_request(l->vcpu, REQUEST_INTERRUPT);
	else
		vcpu_withdraw(l->vcpu, REQUEST_INTERRUPT);
}

void lapic_accept(struct lapic *l, uint8_t vector, bool is_level)
{
	if (!lapic_is_software_enabled(l))
		return;
	if (vector < 16) {
		lapic_error(l, ESR_ILLEGAL_RECEIVED);
		return;
	}
	set_vector(l->state.irr, vector, true);
	set_vector(l->state.tmr, vector, is_level);
	lapic_update(l);
}

static void end_lint(struct lapic *l, uint8_t vector)
{
	for (unsigned i = LVT_LINT0; i <= LVT_LINT1; i++)
		if ((l->state.lvt[i] & LVT_REMOTE_IRR) && (l->state.lvt[i] & LVT_VECTOR) == vector)
			l->state.lvt[i] &= ~LVT_REMOTE_IRR;
	lapic_evaluate_lints(l);
}

void lapic_end_of_interrupt(struct lapic *l)
{
	int vector = highest_vector(l->state.isr);
	if (vector < 0)
		return;
	set_vector(l->state.isr, (uint8_t)vector, false);
	if (test_vector(l->state.tmr, (uint8_t)vector)) {
		end_lint(l, (uint8_t)vector);
		if (l->hub->end_of_interrupt)
			l->hub->end_of_interrupt(l->hub->eoi_opaque, (uint8_t)vector);
	}
	lapic_update(l);
}

void lapic_error(struct lapic *l, uint32_t esr_bit)
{
	bool is_news = !(l->state.esr_pending & esr_bit);
	l->state.esr_pending |= esr_bit;
	uint8_t vector = l->state.lvt[LVT_ERROR] & LVT_VECTOR;
	/* An illegal vector for the error interrupt itself must not go round. */
	if (is_news && vector >= 16)
		lapic_local_interrupt(l, LVT_ERROR);
}

void lapic_local_interrupt(struct lapic *l, enum lvt which)
{
	uint32_t entry = l->state.lvt[which];
	if ((entry & LVT_MASKED) || !lapic_is_enabled(l))
		return;
	/* Timer and error entries have no delivery mode; the others may also send an NMI. */
	uint8_t mode = which == LVT_TIMER || which == LVT_ERROR ? DELIVER_FIXED : LVT_MODE(entry);
	if (mode == DELIVER_FIXED)
		lapic_accept(l, (uint8_t)(entry & LVT_VECTOR), false);
	else if (mode == DELIVER_NMI)
		vcpu_request(l->vcpu, REQUEST_NMI);
}

/* Level-triggered pins in fixed mode deliver as long as they are high and the last one was ended.
 */
void lapic_evaluate_lints(struct lapic *l)
{
	for (unsigned pin = 0; pin < 2; pin++) {
		uint32_t *entry = &l->state.lvt[LVT_LINT0 + pin];
		if (!l->state.lint_level[pin] || !lapic_is_software_enabled(l) ||
		    (*entry & (LVT_MASKED | LVT_REMOTE_IRR)) || !(*entry & LVT_LEVEL) ||
		    LVT_MODE(*entry) != DELIVER_FIXED)
			continue;
		if ((*entry & LVT_VECTOR) >= 16)
			*entry |= LVT_REMOTE_IRR;
		lapic_accept(l, (uint8_t)(*entry & LVT_VECTOR), true);
	}
	lapic_update(l);
}

void lapic_set_lint(struct lapic *l, unsigned pin, bool level)
{
	if (pin > 1)
		return;
	bool is_rising = level && !l->state.lint_level[pin];
	l->state.lint_level[pin] = level;
	uint32_t entry = l->state.lvt[LVT_LINT0 + pin];
	uint8_t mode = LVT_MODE(entry);
	if (is_rising && pin == 1 && !lapic_is_enabled(l)) {
		vcpu_request(l->vcpu, REQUEST_NMI); /* the pin is NMI itself */
	} else if (is_rising && !(entry & LVT_MASKED) && lapic_is_enabled(l)) {
		if (mode == DELIVER_NMI)
			vcpu_request(l->vcpu, REQUEST_NMI);
		else if (mode == DELIVER_INIT)
			vcpu_request(l->vcpu, REQUEST_INIT);
		else if (mode == DELIVER_FIXED && !(entry & LVT_LEVEL))
			lapic_accept(l, (uint8_t)(entry & LVT_VECTOR), false);
	}
	lapic_evaluate_lints(l);
}

static uint8_t lapic_get_tpr(void *opaque)
{
	const struct lapic *l = opaque;
	return (uint8_t)l->state.tpr;
}

static void lapic_set_tpr(void *opaque, uint8_t tpr)
{
	struct lapic *l = opaque;
	l->state.tpr = tpr;
	lapic_update(l);
}

uint32_t lapic_x2_ldr(uint32_t id)
{
	return (id >> 4) << 16 | 1u << (id & 15);
}

void lapic_reset_registers(struct lapic *l)
{
	struct lapic_state old = l->state;
	memset(&l->state, 0, sizeof(l->state));
	l->state.base_msr = old.base_msr;
	l->state.id = l->config.index;
	for (unsigned pin = 0; pin < 2; pin++)
		l->state.lint_level[pin] = old.lint_level[pin] ==
					   1; /* damaged state ends here, too */
	l->state.dfr = 0xffffffffu;
	l->state.svr = 0xff;
	if (lapic_is_x2(l))
		l->state.ldr = lapic_x2_ldr(l->state.id);
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->state.lvt[i] = LVT_MASKED;
	lapic_timer_arm(l);
	lapic_update(l);
}

static void lapic_init_signal(void *opaque)
{
	struct lapic *l = opaque;
	bool is_startup_held = l->state.is_startup_held;
	uint8_t startup_vector = l->state.startup_vector;
	lapic_reset_registers(l);
	if (is_startup_held) {
		l->vcpu->state.sipi_vector = startup_vector;
		vcpu_request(l->vcpu, REQUEST_SIPI);
	}
}

static const struct apic_ops lapic_apic_ops = {
	.pending = lapic_pending,
	.acknowledge = lapic_acknowledge,
	.get_tpr = lapic_get_tpr,
	.set_tpr = lapic_set_tpr,
	.read_msr = lapic_read_msr,
	.write_msr = lapic_write_msr,
	.reset = lapic_init_signal,
};

void lapic_set_virtual_wire(struct lapic *l)
{
	l->state.svr |= SVR_ENABLED;
	l->state.lvt[LVT_LINT0] = DELIVER_EXTINT << 8;
	l->state.lvt[LVT_LINT1] = DELIVER_NMI << 8;
	lapic_update(l);
}

static void lapic_reset(struct device *d)
{
	struct lapic *l = (struct lapic *)d;
	l->state.base_msr = PLATFORM_LAPIC_BASE | BASE_ENABLED | (l->config.index ? 0 : BASE_BSP);
	lapic_reset_registers(l);
}

static int lapic_resume(struct device *d, struct error *e)
{
	struct lapic *l = (struct lapic *)d;
	const struct lapic_state *s = &l->state;
	if (s->id != l->config.index)
		return error_set(e, -EINVAL, "APIC id %u, expected %u", s->id, l->config.index);
	if (s->lint_level[0] > 1 || s->lint_level[1] > 1 || s->tpr > 0xff)
		return error_set(e, -EINVAL, "a register has bits that do not exist");
	if (s->is_timer_running && (!s->timer_initial || !s->timer_first))
		return error_set(e, -EINVAL, "a timer that runs without a count");
	lapic_timer_arm(l);
	lapic_update(l);
	return 0;
}

static void lapic_fini(struct device *d)
{
	struct lapic *l = (struct lapic *)d;
	timer_cancel(l->clock, &l->timer);
}

static const struct device_ops lapic_ops = {1, lapic_reset, lapic_resume, lapic_fini};

int lapic_init(struct lapic *l, struct apic_hub *h, struct vcpu *v,
	       const struct lapic_config *config, struct error *e)
{
	char instance[16];
	if (config->index != h->lapic_count || h->lapic_count == APIC_VCPUS_MAX)
		return error_set(e, -ENOSPC, "local APIC %u: at most %d, made in order",
				 config->index, APIC_VCPUS_MAX);
	*l = (struct lapic){.config = *config, .hub = h, .vcpu = v, .clock = v->clock};
	snprintf(instance, sizeof(instance), "%u", config->index);
	device_init(&l->device, &lapic_ops, "lapic", instance, &l->state, sizeof(l->state));
	lapic_timer_init(l);
	v->apic_ops = &lapic_apic_ops;
	v->apic = l;
	h->lapics[h->lapic_count++] = l;
	device_reset(&l->device);
	return 0;
}
