/*
 * ACPI's fixed registers. The machine is in ACPI mode from the first instruction on, so SCI_EN is
 * not stored. The timer is the clock, divided; its status bit (the top bit changed) is settled when
 * somebody looks or when the guest has asked for the interrupt.
 *
 *	0  PM1a_STS (write 1 to clear)    4  PM1a_CNT
 *	2  PM1a_EN                        8  PM_TMR
 */
#include "device/acpi_pm.h"

#include <errno.h>
#include <string.h>

#include "bus/platform.h"

#define PORTS 16

#define TIMER_BIT 0x0001u
#define GLOBAL_BIT 0x0020u
#define POWER_BUTTON_BIT 0x0100u
#define STATUS_BITS 0x8731u
#define ENABLE_BITS 0x0721u

#define CONTROL_SCI_EN 0x0001u
#define CONTROL_KEPT 0x1c02u /* SLP_TYP, BM_RLD */
#define CONTROL_SLP_EN 0x2000u
#define CONTROL_SLP_TYP(control) ((control) >> 10 & 7)

static uint64_t ticks_now(struct acpi_pm *a)
{
	return clock_ticks_from_cycles(a->clock, PLATFORM_PM_TIMER_HZ, clock_now(a->clock));
}

/* How often the top bit has changed until `cycles`. */
static uint64_t top_changes(struct acpi_pm *a, uint64_t cycles)
{
	return clock_ticks_from_cycles(a->clock, PLATFORM_PM_TIMER_HZ, cycles) >>
	       (a->timer_bits - 1);
}

static void settle(struct acpi_pm *a)
{
	uint64_t now = clock_now(a->clock);
	if (now <= a->state.settled_cycles)
		return;
	if (top_changes(a, now) != top_changes(a, a->state.settled_cycles))
		a->state.status |= TIMER_BIT;
	a->state.settled_cycles = now;
}

static void update_timer(struct acpi_pm *a)
{
	const struct acpi_pm_state *s = &a->state;
	if (!(s->enable & TIMER_BIT) || s->status & TIMER_BIT) {
		timer_cancel(a->clock, &a->timer);
		return;
	}
	uint64_t change = (top_changes(a, s->settled_cycles) + 1) << (a->timer_bits - 1);
	timer_arm(a->clock, &a->timer,
		  clock_cycles_from_ticks(a->clock, PLATFORM_PM_TIMER_HZ, change));
}

static void update(struct acpi_pm *a)
{
	irq_line_set(&a->sci, a->state.status & a->state.enable & ENABLE_BITS);
	update_timer(a);
}

static void timer_fired(void *opaque, uint64_t deadline_cycles)
{
	struct acpi_pm *a = opaque;
	settle(a);
	update(a);
}

static uint8_t byte_of(struct acpi_pm *a, unsigned port, uint64_t ticks)
{
	const struct acpi_pm_state *s = &a->state;
	unsigned shift = 8 * (port & 1);
	switch (port >> 1) {
	case 0: return (uint8_t)(s->status >> shift);
	case 1: return (uint8_t)(s->enable >> shift);
	case 2: return (uint8_t)((s->control | CONTROL_SCI_EN) >> shift);
	case 4:
	case 5: return (uint8_t)(ticks >> 8 * (port - 8));
	default: return 0;
	}
}

static uint64_t acpi_pm_read(void *opaque, struct bus_access access)
{
	struct acpi_pm *a = opaque;
	settle(a);
	uint64_t ticks = ticks_now(a);
	if (a->timer_bits < 64)
		ticks &= (1ull << a->timer_bits) - 1;
	uint64_t value = 0;
	for (unsigned i = 0; i < access.size_bytes; i++)
		value |= (uint64_t)byte_of(a, (unsigned)(access.offset + i) % PORTS, ticks)
			 << (8 * i);
	if (access.offset < 2)
		update(a); /* settling may have changed the status */
	return value;
}

static void set_byte(uint16_t *word, unsigned port, uint8_t byte, uint16_t kept)
{
	unsigned shift = 8 * (port & 1);
	*word = (uint16_t)((*word & ~(0xffu << shift)) | (unsigned)byte << shift) & kept;
}

static void acpi_pm_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct acpi_pm *a = opaque;
	struct acpi_pm_state *s = &a->state;
	bool is_sleep = false;
	settle(a);
	for (unsigned i = 0; i < access.size_bytes; i++) {
		unsigned port = (unsigned)(access.offset + i) % PORTS;
		uint8_t byte = (uint8_t)(value >> 8 * i);
		switch (port >> 1) {
		case 0: s->status &= (uint16_t) ~((unsigned)byte << 8 * (port & 1)); break;
		case 1: set_byte(&s->enable, port, byte, ENABLE_BITS); break;
		case 2:
			set_byte(&s->control, port, byte, CONTROL_KEPT);
			is_sleep |= port & 1 && byte & CONTROL_SLP_EN >> 8;
			break;
		default: break;
		}
	}
	update(a);
	if (is_sleep && CONTROL_SLP_TYP(s->control) == PLATFORM_SLP_TYP_S5)
		device_signal_raise(&a->power_off, 0);
}

static void acpi_pm_reset(struct device *d)
{
	struct acpi_pm *a = (struct acpi_pm *)d;
	a->state = (struct acpi_pm_state){.settled_cycles = clock_now(a->clock)};
	update(a);
}

static int acpi_pm_resume(struct device *d, struct error *e)
{
	struct acpi_pm *a = (struct acpi_pm *)d;
	const struct acpi_pm_state *s = &a->state;
	if (s->status & ~STATUS_BITS || s->enable & ~ENABLE_BITS || s->control & ~CONTROL_KEPT)
		return error_set(e, -EINVAL, "reserved bits are set in the PM1a registers");
	update_timer(a);
	return 0;
}

static void acpi_pm_fini(struct device *d)
{
	struct acpi_pm *a = (struct acpi_pm *)d;
	timer_cancel(a->clock, &a->timer);
}

int acpi_pm_init(struct acpi_pm *a, struct clock *clock, unsigned timer_bits, struct irq_line sci,
		 struct device_signal power_off, struct bus *bus, struct error *e)
{
	static const struct device_ops ops = {.version = 1,
					      .reset = acpi_pm_reset,
					      .resume = acpi_pm_resume,
					      .fini = acpi_pm_fini};
	static const struct bus_ops bus_ops = {acpi_pm_read, acpi_pm_write};
	if (timer_bits != 24 && timer_bits != 32)
		return error_set(e, -EINVAL, "a PM timer has 24 or 32 bits, not %u", timer_bits);
	memset(a, 0, sizeof(*a));
	a->clock = clock;
	a->sci = sci;
	a->power_off = power_off;
	a->timer_bits = timer_bits;
	a->timer.fire = timer_fired;
	a->timer.opaque = a;
	device_init(&a->device, &ops, "acpi_pm", NULL, &a->state, sizeof(a->state));
	acpi_pm_reset(&a->device);
	return bus_map_ports(bus, PLATFORM_ACPI_PORT, PORTS, &bus_ops, a, "acpi_pm", e);
}

void acpi_pm_press_power_button(struct acpi_pm *a)
{
	settle(a);
	a->state.status |= POWER_BUTTON_BIT;
	update(a);
}
