/*
 * ACPI's fixed registers. The PM timer is a function of the clock; its status bit is set when its
 * highest bit changed since the bit was last looked at. Timer and power button raise the SCI while
 * enabled.
 */
#include "device/acpi_pm.h"

#include <string.h>

#include "bus/platform.h"

#define PORTS 16
#define OFFSET_STATUS 0
#define OFFSET_ENABLE 2
#define OFFSET_CONTROL 4
#define OFFSET_TIMER 8

#define PM1_TIMER 0x0001u
#define PM1_GLOBAL 0x0020u
#define PM1_POWER_BUTTON 0x0100u
#define PM1_SLEEP_BUTTON 0x0200u
#define PM1_RTC 0x0400u
#define PM1_WAKE 0x8000u
#define PM1_STATUS_BITS 0x8731u
#define PM1_ENABLE_BITS 0x4721u

#define CONTROL_SCI_ENABLED 0x0001u
#define CONTROL_KEPT 0x1c03u /* SCI_EN, BM_RLD, SLP_TYP; GBL_RLS and SLP_EN are write-only */
#define CONTROL_SLEEP 0x2000u
#define CONTROL_SLEEP_TYPE(v) (((v) >> 10) & 7)

static uint64_t ticks_at(const struct acpi_pm *a, uint64_t cycles)
{
	return clock_ticks_from_cycles(a->clock, PLATFORM_PM_TIMER_HZ, cycles);
}

/* How often the timer's highest bit has changed until then. */
static uint64_t toggles_at(const struct acpi_pm *a, uint64_t cycles)
{
	return ticks_at(a, cycles) >> (a->timer_bits - 1);
}

static void settle(struct acpi_pm *a)
{
	uint64_t now = clock_now(a->clock);
	if (now <= a->state.settled_cycles)
		return;
	if (toggles_at(a, now) != toggles_at(a, a->state.settled_cycles))
		a->state.status |= PM1_TIMER;
	a->state.settled_cycles = now;
}

static void arm(struct acpi_pm *a)
{
	const struct acpi_pm_state *s = &a->state;
	if ((s->enable & PM1_TIMER) && !(s->status & PM1_TIMER)) {
		uint64_t next = (toggles_at(a, s->settled_cycles) + 1) << (a->timer_bits - 1);
		timer_arm(a->clock, &a->timer,
			  clock_cycles_from_ticks(a->clock, PLATFORM_PM_TIMER_HZ, next));
	} else {
		timer_cancel(a->clock, &a->timer);
	}
}

/* The SCI, and what is due next. */
static void update(struct acpi_pm *a)
{
	const struct acpi_pm_state *s = &a->state;
	uint16_t sources = PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC;
	irq_line_set(&a->sci, s->status & s->enable & sources);
	arm(a);
}

static void acpi_pm_fire(void *opaque, uint64_t deadline_cycles)
{
	struct acpi_pm *a = opaque;
	settle(a);
	update(a);
}

bool acpi_pm_press_power_button(struct acpi_pm *a)
{
	a->state.status |= PM1_POWER_BUTTON;
	update(a);
	return a->state.enable & PM1_POWER_BUTTON;
}

static uint8_t read_byte(struct acpi_pm *a, unsigned offset)
{
	const struct acpi_pm_state *s = &a->state;
	unsigned shift = 8 * (offset & 1);
	if (offset >= OFFSET_TIMER && offset < OFFSET_TIMER + 4) {
		uint64_t ticks = ticks_at(a, clock_now(a->clock)) & ((1ull << a->timer_bits) - 1);
		return (uint8_t)(ticks >> (8 * (offset - OFFSET_TIMER)));
	}
	switch (offset & ~1u) {
	case OFFSET_STATUS: return (uint8_t)(s->status >> shift);
	case OFFSET_ENABLE: return (uint8_t)(s->enable >> shift);
	case OFFSET_CONTROL: return (uint8_t)(s->control >> shift);
	default: return 0;
	}
}

static uint64_t acpi_pm_read(void *opaque, struct bus_access access)
{
	struct acpi_pm *a = opaque;
	uint64_t value = 0;
	settle(a);
	update(a);
	for (unsigned i = 0; i < access.size_bytes; i++)
		value |= (uint64_t)read_byte(a, (unsigned)access.offset + i) << (8 * i);
	return value;
}

/* S5 ends the machine; every other state would be one that the tables do not offer, and wakes at
 * once. */
static void sleep_now(struct acpi_pm *a)
{
	if (CONTROL_SLEEP_TYPE(a->state.control) == PLATFORM_SLP_TYP_S5)
		device_signal_raise(&a->power_off, 0);
	else
		a->state.status |= PM1_WAKE;
}

static void write_byte(struct acpi_pm *a, unsigned offset, uint8_t value)
{
	struct acpi_pm_state *s = &a->state;
	unsigned shift = 8 * (offset & 1);
	uint16_t word = (uint16_t)(value << shift), written = (uint16_t)(0xff << shift);
	switch (offset & ~1u) {
	case OFFSET_STATUS: s->status &= (uint16_t) ~(word & PM1_STATUS_BITS); break;
	case OFFSET_ENABLE:
		s->enable = (uint16_t)((s->enable & ~written) | word) & PM1_ENABLE_BITS;
		break;
	case OFFSET_CONTROL:
		s->control = (uint16_t)((s->control & ~written) | word) & CONTROL_KEPT;
		s->control |= CONTROL_SCI_ENABLED;
		if (word & CONTROL_SLEEP)
			sleep_now(a);
		break;
	default: break;
	}
}

static void acpi_pm_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct acpi_pm *a = opaque;
	settle(a);
	for (unsigned i = 0; i < access.size_bytes; i++)
		write_byte(a, (unsigned)access.offset + i, (uint8_t)(value >> (8 * i)));
	update(a);
}

static const struct bus_ops acpi_pm_bus_ops = {acpi_pm_read, acpi_pm_write};

static void acpi_pm_reset(struct device *d)
{
	struct acpi_pm *a = (struct acpi_pm *)d;
	memset(&a->state, 0, sizeof(a->state));
	a->state.control = CONTROL_SCI_ENABLED;
	a->state.settled_cycles = clock_now(a->clock);
	update(a);
}

static int acpi_pm_resume(struct device *d, struct error *e)
{
	arm((struct acpi_pm *)d);
	return 0;
}

static void acpi_pm_fini(struct device *d)
{
	struct acpi_pm *a = (struct acpi_pm *)d;
	timer_cancel(a->clock, &a->timer);
}

static const struct device_ops acpi_pm_ops = {1, acpi_pm_reset, acpi_pm_resume, acpi_pm_fini};

int acpi_pm_init(struct acpi_pm *a, struct clock *clock, unsigned timer_bits, struct irq_line sci,
		 struct device_signal power_off, struct bus *bus, struct error *e)
{
	*a = (struct acpi_pm){.clock = clock,
			      .timer_bits = timer_bits == 24 ? 24 : 32,
			      .sci = sci,
			      .power_off = power_off};
	a->timer = (struct timer){.fire = acpi_pm_fire, .opaque = a};
	device_init(&a->device, &acpi_pm_ops, "acpi_pm", NULL, &a->state, sizeof(a->state));
	device_reset(&a->device);
	return bus_map_ports(bus, PLATFORM_ACPI_PORT, PORTS, &acpi_pm_bus_ops, a, "ACPI PM", e);
}
