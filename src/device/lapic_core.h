/*
 * What the files of the local APIC say to each other. Private to lapic*.c.
 *
 *   lapic.c            vectors: accept, prioritise, acknowledge, end; pins; life
 *   lapic_timer.c      the timer in its three modes
 *   lapic_registers.c  registers as the guest reads and writes them: page and MSRs
 *   lapic_hub.c        messages: destinations, ICR, MSI, lines
 */
#pragma once

#include "base/bits.h"
#include "device/lapic.h"

#define BASE_BSP BIT(8)
#define BASE_X2APIC BIT(10)
#define BASE_ENABLED BIT(11)

#define SVR_ENABLED 0x100u

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LVT_VECTOR 0xffu
#define LVT_MODE(entry) ((uint8_t)(((entry) >> 8) & 7))
#define LVT_REMOTE_IRR 0x4000u
#define LVT_LEVEL 0x8000u
#define LVT_MASKED 0x10000u
#define LVT_TIMER_MODE 0x60000u
#define LVT_TIMER_ONE_SHOT 0x00000u
#define LVT_TIMER_PERIODIC 0x20000u
#define LVT_TIMER_DEADLINE 0x40000u

#define ESR_ILLEGAL_SENT 0x20u
#define ESR_ILLEGAL_RECEIVED 0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

static inline bool lapic_is_enabled(const struct lapic *l)
{
	return l->state.base_msr & BASE_ENABLED;
}

static inline bool lapic_is_x2(const struct lapic *l)
{
	return (l->state.base_msr & (BASE_ENABLED | BASE_X2APIC)) == (BASE_ENABLED | BASE_X2APIC);
}

static inline bool lapic_is_software_enabled(const struct lapic *l)
{
	return lapic_is_enabled(l) && (l->state.svr & SVR_ENABLED);
}

/* lapic.c */
/* Puts `vector` into IRR (fixed and lowest-priority messages). */
void lapic_accept(struct lapic *l, uint8_t vector, bool is_level);
void lapic_end_of_interrupt(struct lapic *l);
uint8_t lapic_ppr(const struct lapic *l);
/* The processor's request follows what can be delivered. Call it after every change of state. */
void lapic_update(struct lapic *l);
/* Notes an error and raises the error interrupt. */
void lapic_error(struct lapic *l, uint32_t esr_bit);
/* An LVT entry became due: thermal, performance, error, timer. */
void lapic_local_interrupt(struct lapic *l, enum lvt which);
/* LINT pins and masks may have changed. */
void lapic_evaluate_lints(struct lapic *l);
/* After INIT or a switch through "disabled": all but the id and the base register. */
void lapic_reset_registers(struct lapic *l);
uint32_t lapic_x2_ldr(uint32_t id);

/* lapic_timer.c */
void lapic_timer_init(struct lapic *l);
/* Arms or cancels the clock's timer for the state as it is. */
void lapic_timer_arm(struct lapic *l);
/* What was due before this access happened before it. */
void lapic_timer_settle(struct lapic *l);
uint32_t lapic_timer_current(struct lapic *l);
void lapic_timer_set_initial(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t dcr);
void lapic_timer_set_lvt(struct lapic *l, uint32_t entry);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);

/* lapic_registers.c */
extern const struct bus_ops lapic_bus_ops; /* opaque: the hub */
bool lapic_read_msr(void *opaque, uint32_t index, uint64_t *value);
bool lapic_write_msr(void *opaque, uint32_t index, uint64_t value);

/* lapic_hub.c */
/* The guest wrote the interrupt command register. */
void lapic_send_ipi(struct lapic *l, uint32_t command, uint32_t destination);
