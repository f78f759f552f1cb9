/*
 * Messages between interrupt sources and local APICs: who is meant by a destination (SDM
 * 3A 10.6.2), and what each delivery mode does there. Of several candidates for a lowest-priority
 * interrupt the one with the lowest task priority gets it, of equals the first, so that runs
 * repeat.
 */
#include "device/lapic_core.h"

#include <string.h>

#include "bus/platform.h"

#define BROADCAST_NARROW 0xffu
#define BROADCAST_WIDE 0xffffffffu

static bool is_logically_meant(const struct lapic *l, uint32_t destination)
{
	uint32_t ldr = l->state.ldr;
	if (lapic_is_x2(l))
		return ldr >> 16 == destination >> 16 && (ldr & destination & 0xffff);
	ldr >>= 24;
	if (l->state.dfr >> 28 == 0xf)
		return ldr & destination & 0xff;
	bool is_cluster = destination >> 4 == 0xf || destination >> 4 == ldr >> 4;
	return destination <= 0xff && is_cluster && (ldr & destination & 0xf);
}

static bool is_meant(const struct lapic *l, const struct apic_message *m)
{
	if (!lapic_is_enabled(l))
		return false;
	if (m->destination == (m->is_wide ? BROADCAST_WIDE : BROADCAST_NARROW))
		return true;
	return m->is_logical ? is_logically_meant(l, m->destination)
			     : l->state.id == m->destination;
}

static bool deliver(struct lapic *l, const struct apic_message *m)
{
	struct vcpu *v = l->vcpu;
	switch (m->mode) {
	case DELIVER_FIXED:
	case DELIVER_LOWEST:
		if (!lapic_is_software_enabled(l))
			return false;
		lapic_accept(l, m->vector, m->is_level);
		return m->vector >= 16;
	case DELIVER_NMI: vcpu_request(v, REQUEST_NMI); return true;
	case DELIVER_INIT:
		vcpu_withdraw(v, REQUEST_SIPI); /* of before: INIT undoes it */
		l->state.is_startup_held = 0;
		vcpu_request(v, REQUEST_INIT);
		return true;
	case DELIVER_STARTUP:
		/* Only a processor that waits for it, or soon will, takes it. */
		if (atomic_load(&v->requests) & REQUEST_INIT) {
			l->state.is_startup_held = 1; /* taking INIT clears the vcpu's */
			l->state.startup_vector = m->vector;
		} else if (v->state.activity != ACTIVITY_WAIT_SIPI) {
			return false;
		}
		v->state.sipi_vector = m->vector;
		vcpu_request(v, REQUEST_SIPI);
		return true;
	default: return false; /* SMI and ExtINT: there is no SMM, and the PIC has its own wire */
	}
}

static bool deliver_lowest(struct apic_hub *h, const struct apic_message *m)
{
	struct lapic *chosen = NULL;
	for (unsigned i = 0; i < h->lapic_count; i++) {
		struct lapic *l = h->lapics[i];
		if (is_meant(l, m) && lapic_is_software_enabled(l) &&
		    (!chosen || lapic_ppr(l) < lapic_ppr(chosen)))
			chosen = l;
	}
	return chosen && deliver(chosen, m);
}

bool apic_hub_send(struct apic_hub *h, const struct apic_message *m)
{
	bool is_taken = false;
	if (m->mode == DELIVER_LOWEST)
		return deliver_lowest(h, m);
	for (unsigned i = 0; i < h->lapic_count; i++)
		if (is_meant(h->lapics[i], m))
			is_taken |= deliver(h->lapics[i], m);
	return is_taken;
}

enum shorthand { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

#define ICR_LOGICAL 0x800u
#define ICR_ASSERT 0x4000u
#define ICR_LEVEL 0x8000u

static void send_to_group(struct lapic *from, const struct apic_message *m, bool is_self_meant)
{
	struct apic_hub *h = from->hub;
	for (unsigned i = 0; i < h->lapic_count; i++)
		if ((h->lapics[i] != from || is_self_meant) && lapic_is_enabled(h->lapics[i]))
			deliver(h->lapics[i], m);
}

void lapic_send_ipi(struct lapic *l, uint32_t command, uint32_t destination)
{
	struct apic_message m = {
		.destination = destination,
		.is_logical = command & ICR_LOGICAL,
		.is_wide = lapic_is_x2(l),
		.mode = (command >> 8) & 7,
		.vector = command & 0xff,
	};
	enum shorthand shorthand = (command >> 18) & 3;
	/* "INIT level de-assert" only synchronised the arbitration ids of a bus that is no more. */
	if (m.mode == DELIVER_INIT && (command & ICR_LEVEL) && !(command & ICR_ASSERT))
		return;
	if (m.mode <= DELIVER_LOWEST && m.vector < 16) {
		lapic_error(l, ESR_ILLEGAL_SENT);
		return;
	}
	switch (shorthand) {
	case SHORTHAND_NONE: apic_hub_send(l->hub, &m); break;
	case SHORTHAND_SELF:
		if (m.mode <= DELIVER_LOWEST || m.mode == DELIVER_NMI)
			deliver(l, &m);
		break;
	case SHORTHAND_ALL: send_to_group(l, &m, true); break;
	case SHORTHAND_OTHERS: send_to_group(l, &m, false); break;
	}
}

/* SDM 3A 10.11. Lowest-priority with a physical destination and the redirection hint are the same
 * to us. */
static void msi_send(void *opaque, uint64_t address, uint32_t data)
{
	if (address >> 20 != PLATFORM_LAPIC_BASE >> 20)
		return;
	struct apic_message m = {
		.destination = (uint32_t)bits(address, 19, 12),
		.is_logical = address & BIT(2),
		.is_level = data & BIT(15),
		.mode = (uint8_t)bits(data, 10, 8),
		.vector = (uint8_t)data,
	};
	apic_hub_send(opaque, &m);
}

struct msi_sink apic_hub_msi_sink(struct apic_hub *h)
{
	return (struct msi_sink){msi_send, h};
}

static void intr_set(void *opaque, unsigned number, bool level)
{
	struct apic_hub *h = opaque;
	for (unsigned i = 0; i < h->lapic_count; i++)
		lapic_set_lint(h->lapics[i], 0, level);
}

struct irq_line apic_hub_intr_line(struct apic_hub *h)
{
	return (struct irq_line){intr_set, h, 0};
}

int apic_hub_init(struct apic_hub *h, struct bus *bus, struct error *e)
{
	memset(h, 0, sizeof(*h));
	return bus_map_mmio(bus, gpa(PLATFORM_LAPIC_BASE), PLATFORM_LAPIC_BYTES, &lapic_bus_ops, h,
			    "local APIC", e);
}
