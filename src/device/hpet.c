/*
 * The HPET. The main counter is a number at a cycle. Each comparator remembers up to which counter
 * value its matches were dealt with
 * (`settled`), so "the next match" is always well defined, also across wraps, and a periodic
 * comparator advances by division instead of by ticking.
 */
#include "device/hpet.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "device/irq_router.h"

#define PERIOD_FS (1000000000000000ull / PLATFORM_HPET_HZ)

#define REG_CAPABILITIES 0x00
#define REG_CONFIG 0x10
#define REG_STATUS 0x20
#define REG_COUNTER 0xf0
#define REG_TIMERS 0x100 /* 0x20 each: config, comparator, FSB route */
#define TIMER_BYTES 0x20

#define CONFIG_ENABLED BIT(0)
#define CONFIG_LEGACY BIT(1)

#define TIMER_LEVEL BIT(1)
#define TIMER_INTERRUPT BIT(2)
#define TIMER_PERIODIC BIT(3)
#define TIMER_PERIODIC_CAP BIT(4)
#define TIMER_64BIT_CAP BIT(5)
#define TIMER_SET_VALUE BIT(6)
#define TIMER_32BIT BIT(8)
#define TIMER_ROUTE(config) ((unsigned)bits(config, 13, 9))
#define TIMER_FSB BIT(14)
#define TIMER_FSB_CAP BIT(15)
#define TIMER_WRITABLE 0x7f4eull /* with FSB enable and VAL_SET */

static bool is_enabled(const struct hpet *h)
{
	return h->state.config & CONFIG_ENABLED;
}

static uint64_t counter_at(const struct hpet *h, uint64_t cycles)
{
	if (!is_enabled(h) || cycles <= h->state.start_cycles)
		return h->state.counter;
	return h->state.counter +
	       clock_ticks_from_cycles(h->clock, PLATFORM_HPET_HZ, cycles - h->state.start_cycles);
}

static uint64_t timer_mask(const struct hpet_timer_state *t)
{
	return t->config & TIMER_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* How far the counter has to go from `settled` until it next equals the comparator; 0 stands for
 * 2^64. */
static uint64_t distance(const struct hpet_timer_state *t)
{
	return ((t->comparator - t->settled - 1) & timer_mask(t)) + 1;
}

static bool is_legacy(const struct hpet *h, unsigned n)
{
	return (h->state.config & CONFIG_LEGACY) && n < 2;
}

/* The wire that timer n drives now; one without receiver if it sends messages or is routed nowhere.
 */
static struct irq_line line_of(const struct hpet *h, unsigned n)
{
	uint64_t config = h->state.timer[n].config;
	unsigned route = TIMER_ROUTE(config);
	if (is_legacy(h, n))
		return h->wires.legacy[n];
	if ((config & TIMER_FSB) || route >= PLATFORM_IOAPIC_PINS ||
	    !(h->wires.route_mask & 1u << route))
		return (struct irq_line){0};
	return h->wires.lines[route];
}

static bool is_line_high(const struct hpet *h, unsigned n)
{
	uint64_t config = h->state.timer[n].config;
	return (config & TIMER_LEVEL) && (config & TIMER_INTERRUPT) && (h->state.status & BIT(n));
}

static void deliver(struct hpet *h, unsigned n)
{
	const struct hpet_timer_state *t = &h->state.timer[n];
	struct irq_line line = line_of(h, n);
	if (t->config & TIMER_LEVEL)
		h->state.status |= BIT(n);
	if (!(t->config & TIMER_INTERRUPT))
		return;
	if ((t->config & TIMER_FSB) && !is_legacy(h, n))
		bus_msi_send(h->bus, t->fsb >> 32, (uint32_t)t->fsb);
	else if (t->config & TIMER_LEVEL)
		irq_line_set(&line, true);
	else
		irq_line_pulse(&line);
}

/* Deals with the matches of timer n up to the counter value `now`. */
static void settle_timer(struct hpet *h, unsigned n, uint64_t now)
{
	struct hpet_timer_state *t = &h->state.timer[n];
	uint64_t passed = now - t->settled, to_match = distance(t);
	if (passed >> 63) /* another vcpu's turn was ahead of this one */
		return;
	t->settled = now;
	if (!to_match || passed < to_match)
		return;
	uint64_t mask = timer_mask(t), period = t->period & mask;
	if ((t->config & TIMER_PERIODIC) && period)
		t->comparator = (t->comparator + ((passed - to_match) / period + 1) * period) &
				mask;
	deliver(h, n);
}

static void arm_timer(struct hpet *h, unsigned n)
{
	const struct hpet_timer_state *t = &h->state.timer[n];
	struct timer *timer = &h->timers[n].timer;
	uint64_t to_match = distance(t);
	timer_cancel(h->clock, timer);
	if (!is_enabled(h) || !(t->config & TIMER_INTERRUPT) || !to_match)
		return;
	uint64_t ticks = t->settled - h->state.counter + to_match;
	if (ticks < to_match)
		return;
	uint64_t cycles = clock_cycles_from_ticks(h->clock, PLATFORM_HPET_HZ, ticks);
	if (cycles < CLOCK_NEVER - h->state.start_cycles)
		timer_arm(h->clock, timer, h->state.start_cycles + cycles);
}

static void settle(struct hpet *h)
{
	uint64_t now = counter_at(h, clock_now(h->clock));
	if (!is_enabled(h))
		return;
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		settle_timer(h, n, now);
		arm_timer(h, n);
	}
}

static void hpet_fire(void *opaque, uint64_t deadline_cycles)
{
	struct hpet_timer *t = opaque;
	settle_timer(t->hpet, t->number, counter_at(t->hpet, clock_now(t->hpet->clock)));
	arm_timer(t->hpet, t->number);
}

/* ---- registers, always as 64 bits ---- */

static uint64_t timer_config(const struct hpet *h, unsigned n)
{
	return (uint64_t)h->wires.route_mask << 32 | TIMER_PERIODIC_CAP | TIMER_64BIT_CAP |
	       (h->wires.has_fsb ? TIMER_FSB_CAP : 0) | h->state.timer[n].config;
}

static uint64_t read_register(struct hpet *h, unsigned offset)
{
	if (offset >= REG_TIMERS) {
		unsigned n = (offset - REG_TIMERS) / TIMER_BYTES;
		if (n >= HPET_TIMERS)
			return 0;
		switch (offset % TIMER_BYTES) {
		case 0x00: return timer_config(h, n);
		case 0x08: return h->state.timer[n].comparator;
		case 0x10: return h->state.timer[n].fsb;
		default: return 0;
		}
	}
	switch (offset) {
	case REG_CAPABILITIES:
		/* Period, Intel, legacy replacement, 64 bits, number of timers less one,
		 * revision 1. */
		return PERIOD_FS << 32 | 0x8086u << 16 | BIT(15) | BIT(13) |
		       (HPET_TIMERS - 1) << 8 | 1;
	case REG_CONFIG: return h->state.config;
	case REG_STATUS: return h->state.status;
	case REG_COUNTER: return counter_at(h, clock_now(h->clock));
	default: return 0;
	}
}

static void restart_counter(struct hpet *h, uint64_t value)
{
	h->state.counter = value;
	h->state.start_cycles = clock_now(h->clock);
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		h->state.timer[n].settled = value;
}

/* Level-triggered lines follow status, enables and routes. */
static void drive_lines(struct hpet *h, bool level)
{
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		struct irq_line line = line_of(h, n);
		if (is_line_high(h, n))
			irq_line_set(&line, level);
	}
}

static void write_config(struct hpet *h, uint64_t value)
{
	uint64_t old = h->state.config;
	drive_lines(h, false);
	restart_counter(h, counter_at(h, clock_now(h->clock)));
	h->state.config = value & (CONFIG_ENABLED | CONFIG_LEGACY);
	if (((old ^ value) & CONFIG_LEGACY) && h->wires.replace_legacy)
		h->wires.replace_legacy(h->wires.opaque, value & CONFIG_LEGACY);
	drive_lines(h, true);
}

static void write_timer_config(struct hpet *h, unsigned n, uint64_t value)
{
	struct hpet_timer_state *t = &h->state.timer[n];
	uint64_t writable = TIMER_WRITABLE & ~(h->wires.has_fsb ? 0 : TIMER_FSB);
	drive_lines(h, false);
	t->config = value & writable;
	if (t->config & TIMER_32BIT) {
		t->comparator &= UINT32_MAX;
		t->period &= UINT32_MAX;
	}
	if (!(t->config & TIMER_LEVEL))
		h->state.status &= ~BIT(n);
	drive_lines(h, true);
}

/* In periodic mode a write sets the period; with VAL_SET it also sets the comparator itself, once.
 */
static void write_comparator(struct hpet *h, unsigned n, uint64_t value, uint64_t written)
{
	struct hpet_timer_state *t = &h->state.timer[n];
	uint64_t mask = timer_mask(t) & written;
	bool is_periodic = t->config & TIMER_PERIODIC;
	if (!is_periodic || (t->config & TIMER_SET_VALUE))
		t->comparator = (t->comparator & ~mask & timer_mask(t)) | (value & mask);
	if (is_periodic)
		t->period = (t->period & ~mask & timer_mask(t)) | (value & mask);
	/* Two 32-bit writes make one of 64: the second ends VAL_SET. */
	if ((t->config & TIMER_32BIT) || written >> 32)
		t->config &= ~TIMER_SET_VALUE;
}

static void write_timer_register(struct hpet *h, unsigned offset, uint64_t value, uint64_t written)
{
	unsigned n = (offset - REG_TIMERS) / TIMER_BYTES;
	if (n >= HPET_TIMERS)
		return;
	struct hpet_timer_state *t = &h->state.timer[n];
	switch (offset % TIMER_BYTES) {
	case 0x00: write_timer_config(h, n, (t->config & ~written) | (value & written)); break;
	case 0x08: write_comparator(h, n, value, written); break;
	case 0x10: t->fsb = (t->fsb & ~written) | (value & written); break;
	default: break;
	}
}

/* Writing 1 clears; the line falls. */
static void write_status(struct hpet *h, uint64_t value)
{
	drive_lines(h, false);
	h->state.status &= ~value;
	drive_lines(h, true);
}

static uint64_t hpet_read(void *opaque, struct bus_access access)
{
	struct hpet *h = opaque;
	settle(h);
	unsigned byte = (unsigned)access.offset & 7;
	uint64_t value = read_register(h, (unsigned)access.offset & ~7u) >> (8 * byte);
	if (byte && byte + access.size_bytes > 8)
		value |= read_register(h, ((unsigned)access.offset & ~7u) + 8) << (64 - 8 * byte);
	return value;
}

/* A write that crosses into the next register loses the part beyond: registers are written alone.
 */
static void hpet_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct hpet *h = opaque;
	unsigned offset = (unsigned)access.offset & ~7u, shift = 8 * ((unsigned)access.offset & 7);
	uint64_t written = mask_bytes(access.size_bytes) << shift;
	value <<= shift;
	settle(h);
	if (offset >= REG_TIMERS)
		write_timer_register(h, offset, value, written);
	else if (offset == REG_CONFIG)
		write_config(h, (h->state.config & ~written) | (value & written));
	else if (offset == REG_STATUS)
		write_status(h, value & written);
	else if (offset == REG_COUNTER)
		restart_counter(h, (counter_at(h, clock_now(h->clock)) & ~written) |
					   (value & written));
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		arm_timer(h, n);
}

static const struct bus_ops hpet_bus_ops = {hpet_read, hpet_write};

static void hpet_fini(struct device *d)
{
	struct hpet *h = (struct hpet *)d;
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		timer_cancel(h->clock, &h->timers[n].timer);
}

static void hpet_reset(struct device *d)
{
	struct hpet *h = (struct hpet *)d;
	hpet_fini(d);
	drive_lines(h, false);
	if ((h->state.config & CONFIG_LEGACY) && h->wires.replace_legacy)
		h->wires.replace_legacy(h->wires.opaque, false);
	memset(&h->state, 0, sizeof(h->state));
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		h->state.timer[n].comparator = UINT64_MAX;
}

static int hpet_resume(struct device *d, struct error *e)
{
	struct hpet *h = (struct hpet *)d;
	if (h->state.config & ~(CONFIG_ENABLED | CONFIG_LEGACY))
		return error_set(e, -EINVAL, "a register has bits that do not exist");
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		if (h->state.timer[n].config & ~TIMER_WRITABLE)
			return error_set(e, -EINVAL, "timer %u has bits that do not exist", n);
		arm_timer(h, n);
	}
	return 0;
}

static const struct device_ops hpet_ops = {1, hpet_reset, hpet_resume, hpet_fini};

static void replace_legacy(void *opaque, bool is_replaced)
{
	irq_router_replace_legacy(opaque, is_replaced);
}

struct hpet_wires hpet_wires_from_router(struct irq_router *r)
{
	struct hpet_wires w = {
		.replace_legacy = replace_legacy, .opaque = r, .route_mask = 0x00f00000};
	for (unsigned pin = 20; pin < PLATFORM_IOAPIC_PINS; pin++)
		w.lines[pin] = irq_router_line(r, pin, 1);
	w.legacy[0] = irq_router_line(r, PLATFORM_IRQ_TIMER, 1);
	w.legacy[1] = irq_router_line(r, PLATFORM_IRQ_RTC, 1);
	return w;
}

int hpet_init(struct hpet *h, struct clock *clock, const struct hpet_wires *wires, struct bus *bus,
	      struct error *e)
{
	*h = (struct hpet){.clock = clock, .bus = bus, .wires = *wires};
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		h->timers[n] = (struct hpet_timer){.hpet = h, .number = n};
		h->timers[n].timer = (struct timer){.fire = hpet_fire, .opaque = &h->timers[n]};
	}
	device_init(&h->device, &hpet_ops, "hpet", NULL, &h->state, sizeof(h->state));
	device_reset(&h->device);
	return bus_map_mmio(bus, gpa(PLATFORM_HPET_BASE), PLATFORM_HPET_BYTES, &hpet_bus_ops, h,
			    "HPET", e);
}
