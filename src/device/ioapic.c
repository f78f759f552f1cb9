/*
 * Pins, entries and messages. An edge is sent when it arrives and is lost while the entry is
 * masked, as the data sheet has it; a level is sent when it is high, unmasked and not already being
 * handled (remote IRR), and again at the end of its handling.
 */
#include "device/ioapic.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "device/lapic.h"

#define REGISTER_SELECT 0x00
#define REGISTER_WINDOW 0x10
#define REGISTER_EOI 0x40

#define INDEX_ID 0x00
#define INDEX_VERSION 0x01
#define INDEX_ARBITRATION 0x02
#define INDEX_REDIRECTION 0x10

#define ENTRY_VECTOR 0xffull
#define ENTRY_LOGICAL BIT(11)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_WRITABLE \
	0xff0000000001afffull /* all but the reserved, delivery status and remote IRR */
#define ENTRY_MODE(entry) ((uint8_t)bits(entry, 10, 8))
#define ENTRY_DESTINATION(entry) ((uint32_t)bits(entry, 63, 56))

static void send_message(struct ioapic *a, unsigned pin)
{
	uint64_t entry = a->state.redirection[pin];
	struct apic_message m = {
		.destination = ENTRY_DESTINATION(entry),
		.is_logical = entry & ENTRY_LOGICAL,
		.is_level = entry & ENTRY_LEVEL,
		.mode = ENTRY_MODE(entry),
		.vector = entry & ENTRY_VECTOR,
	};
	/* Before sending: the receiver may end the interrupt while it is told of it. */
	if (m.is_level)
		a->state.redirection[pin] |= ENTRY_REMOTE_IRR;
	bool is_taken = apic_hub_send(a->hub, &m);
	/* Only fixed and lowest-priority interrupts are ended with an EOI. */
	if (m.is_level && (!is_taken || m.mode > DELIVER_LOWEST))
		a->state.redirection[pin] &= ~ENTRY_REMOTE_IRR;
}

static void service_level(struct ioapic *a, unsigned pin)
{
	uint64_t entry = a->state.redirection[pin];
	if ((entry & ENTRY_LEVEL) && !(entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) &&
	    (a->state.levels & 1u << pin))
		send_message(a, pin);
}

void ioapic_set_pin(struct ioapic *a, unsigned pin, bool level)
{
	if (pin >= PLATFORM_IOAPIC_PINS)
		return;
	bool was_high = a->state.levels & 1u << pin;
	if (level)
		a->state.levels |= 1u << pin;
	else
		a->state.levels &= ~(1u << pin);
	uint64_t entry = a->state.redirection[pin];
	if (entry & ENTRY_LEVEL)
		service_level(a, pin);
	else if (level && !was_high && !(entry & ENTRY_MASKED))
		send_message(a, pin);
}

static void ioapic_end_of_interrupt(void *opaque, uint8_t vector)
{
	struct ioapic *a = opaque;
	for (unsigned pin = 0; pin < PLATFORM_IOAPIC_PINS; pin++) {
		uint64_t entry = a->state.redirection[pin];
		if ((entry & ENTRY_VECTOR) != vector || !(entry & ENTRY_REMOTE_IRR))
			continue;
		a->state.redirection[pin] &= ~ENTRY_REMOTE_IRR;
		service_level(a, pin);
	}
}

static uint32_t window_read(const struct ioapic *a)
{
	unsigned index = a->state.select;
	if (index == INDEX_ID || index == INDEX_ARBITRATION)
		return a->state.id;
	if (index == INDEX_VERSION)
		return (PLATFORM_IOAPIC_PINS - 1) << 16 | (a->has_eoi_register ? 0x20 : 0x11);
	if (index < INDEX_REDIRECTION || index >= INDEX_REDIRECTION + 2 * PLATFORM_IOAPIC_PINS)
		return 0;
	uint64_t entry = a->state.redirection[(index - INDEX_REDIRECTION) / 2];
	return (uint32_t)(index & 1 ? entry >> 32 : entry);
}

static void window_write(struct ioapic *a, uint32_t value)
{
	unsigned index = a->state.select;
	if (index == INDEX_ID)
		a->state.id = value & 0x0f000000u;
	if (index < INDEX_REDIRECTION || index >= INDEX_REDIRECTION + 2 * PLATFORM_IOAPIC_PINS)
		return;
	unsigned pin = (index - INDEX_REDIRECTION) / 2;
	uint64_t *entry = &a->state.redirection[pin];
	uint64_t half = index & 1 ? 0xffffffff00000000ull : 0xffffffffull;
	uint64_t writable = ENTRY_WRITABLE & half;
	*entry = (*entry & ~writable) | ((index & 1 ? (uint64_t)value << 32 : value) & writable);
	/* Software clears a stuck remote IRR by making the entry edge-triggered and level-triggered
	 * again. */
	if (!(*entry & ENTRY_LEVEL))
		*entry &= ~ENTRY_REMOTE_IRR;
	service_level(a, pin);
}

static uint64_t ioapic_read(void *opaque, struct bus_access access)
{
	const struct ioapic *a = opaque;
	unsigned shift = 8 * (access.offset & 3);
	switch (access.offset & ~3ull) {
	case REGISTER_SELECT: return (uint64_t)a->state.select >> shift;
	case REGISTER_WINDOW: return (uint64_t)window_read(a) >> shift;
	default: return 0;
	}
}

static void ioapic_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct ioapic *a = opaque;
	switch (access.offset) {
	case REGISTER_SELECT: a->state.select = value & 0xff; break;
	case REGISTER_WINDOW: window_write(a, (uint32_t)value); break;
	case REGISTER_EOI:
		if (a->has_eoi_register)
			ioapic_end_of_interrupt(a, (uint8_t)value);
		break;
	default: break;
	}
}

static const struct bus_ops ioapic_bus_ops = {ioapic_read, ioapic_write};

/* The pins' levels belong to the other devices, which are reset too. */
static void ioapic_reset(struct device *d)
{
	struct ioapic_state *s = d->state;
	memset(s, 0, sizeof(*s));
	for (unsigned pin = 0; pin < PLATFORM_IOAPIC_PINS; pin++)
		s->redirection[pin] = ENTRY_MASKED;
}

static int ioapic_resume(struct device *d, struct error *e)
{
	const struct ioapic_state *s = d->state;
	if (s->select > 0xff || s->levels >> PLATFORM_IOAPIC_PINS)
		return error_set(e, -EINVAL, "a register has bits that do not exist");
	for (unsigned pin = 0; pin < PLATFORM_IOAPIC_PINS; pin++)
		if (s->redirection[pin] & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR))
			return error_set(e, -EINVAL, "redirection entry %u has reserved bits", pin);
	return 0;
}

static const struct device_ops ioapic_ops = {1, ioapic_reset, ioapic_resume, NULL};

int ioapic_init(struct ioapic *a, struct apic_hub *hub, bool has_eoi_register, struct bus *bus,
		struct error *e)
{
	*a = (struct ioapic){.hub = hub, .has_eoi_register = has_eoi_register};
	device_init(&a->device, &ioapic_ops, "ioapic", NULL, &a->state, sizeof(a->state));
	device_reset(&a->device);
	hub->end_of_interrupt = ioapic_end_of_interrupt;
	hub->eoi_opaque = a;
	return bus_map_mmio(bus, gpa(PLATFORM_IOAPIC_BASE), PLATFORM_IOAPIC_BYTES, &ioapic_bus_ops,
			    a, "I/O APIC", e);
}
