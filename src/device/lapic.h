/*
 * Local APICs, in xAPIC and x2APIC mode, and the hub that carries messages between them, the I/O
 * APIC, MSIs and the PIC. SDM volume 3A chapter 10 (2016: 10, later editions: 11).
 *
 * The processor core reaches its APIC through struct apic_ops (cpu/vcpu.h), the guest through the
 * page at 0xfee00000 (mapped once, the access says which vcpu) or MSRs 0x800... The APIC keeps
 * REQUEST_INTERRUPT of its vcpu equal to "pending() would give a vector".
 */
#pragma once

#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/vcpu.h"
#include "device/device.h"

struct pic;

#define APIC_VCPUS_MAX 255

enum delivery_mode {
	DELIVER_FIXED = 0,
	DELIVER_LOWEST = 1,
	DELIVER_SMI = 2,
	DELIVER_NMI = 4,
	DELIVER_INIT = 5,
	DELIVER_STARTUP = 6,
	DELIVER_EXTINT = 7,
};

/* One interrupt message on its way to local APICs. */
struct apic_message {
	uint32_t destination;
	bool is_logical;
	bool is_wide;  /* `destination` is an x2APIC's 32 bits, else an xAPIC's 8 */
	bool is_level; /* trigger mode */
	uint8_t mode;  /* enum delivery_mode */
	uint8_t vector;
};

struct lapic_state {
	uint64_t base_msr; /* MSR_APIC_BASE */
	uint32_t irr[8], isr[8], tmr[8];
	uint32_t id; /* all 32 bits, whatever the mode */
	uint32_t tpr, ldr, dfr, svr;
	uint32_t esr, esr_pending; /* what a read shows; what the next write will latch */
	uint32_t icr_low, icr_high;
	uint32_t lvt[6]; /* timer, thermal, performance, LINT0, LINT1, error */
	uint32_t divide; /* DCR */
	uint32_t timer_initial;
	uint32_t timer_first;	  /* what is left of the current count at timer_start: differs from
				     initial after a DCR write */
	uint64_t timer_start;	  /* cycles */
	uint64_t tsc_deadline;	  /* the MSR; 0 = disarmed */
	uint8_t lint_level[2];	  /* the pins */
	uint8_t is_timer_running; /* one-shot: not expired yet */
	uint8_t is_startup_held;  /* a SIPI came while INIT waits to be taken: it is for after that
				   */
	uint8_t startup_vector;
	uint8_t unused[3];
};

struct apic_hub;

struct lapic_config {
	unsigned index;	   /* of the vcpu: also the APIC id */
	uint64_t timer_hz; /* must agree with CPUID leaf 15h's crystal, if that is offered */
	bool has_x2apic;   /* as CPUID says */
	bool has_tsc_deadline;
};

struct lapic {
	struct device device;
	struct lapic_state state;
	struct lapic_config config;
	struct apic_hub *hub; /* borrowed */
	struct vcpu *vcpu;    /* borrowed */
	struct clock *clock;  /* borrowed */
	struct timer timer;
};

struct apic_hub {
	struct lapic *lapics[APIC_VCPUS_MAX]; /* borrowed */
	unsigned lapic_count;
	struct pic *pic; /* borrowed: where ExtINT vectors come from; may be NULL */
	/* Level-triggered interrupts that were ended: the I/O APIC listens. */
	void (*end_of_interrupt)(void *opaque, uint8_t vector);
	void *eoi_opaque; /* borrowed */
};

/* Empties the hub and maps the APIC page. */
int apic_hub_init(struct apic_hub *h, struct bus *bus, struct error *e);

/* Makes vcpu `v`'s APIC: sets v->apic_ops and v->apic, joins the hub. v->clock must be set. The
 * boot processor is index 0. */
int lapic_init(struct lapic *l, struct apic_hub *h, struct vcpu *v,
	       const struct lapic_config *config, struct error *e);

/* What firmware leaves behind on the boot processor: APIC enabled, LINT0 = ExtINT (virtual wire),
 * LINT1 = NMI. Call it after power-on and after each reset, for vcpu 0. */
void lapic_set_virtual_wire(struct lapic *l);

/* Delivers to all (or for DELIVER_LOWEST: one) that the destination names. False: nobody took it.
 */
bool apic_hub_send(struct apic_hub *h, const struct apic_message *m);

/* For bus.msi. An address outside 0xfeexxxxx is ignored. */
struct msi_sink apic_hub_msi_sink(struct apic_hub *h);

/* The wire from the PIC's INTR output to LINT0 of every APIC. */
struct irq_line apic_hub_intr_line(struct apic_hub *h);

/* Drives a pin: 0 = LINT0, 1 = LINT1 (NMI button). */
void lapic_set_lint(struct lapic *l, unsigned pin, bool level);

/* The TSC of this vcpu was written (its tsc_offset changed): the deadline timer moves with it. */
void lapic_tsc_changed(struct lapic *l);
