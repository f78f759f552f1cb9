/*
 * The 8254. A running channel is a count and the tick at which it was loaded; its counter, its
 * output and the next edge of its output are functions of those and of now. Only channel 0's rising
 * edges are events: they are IRQ 0.
 */
#include "device/pit.h"

#include <errno.h>
#include <string.h>

#include "bus/platform.h"

#define CONTROL_BCD 0x01
#define STATUS_OUT 0x80
#define STATUS_NULL 0x40
#define SPEAKER_GATE2 0x01
#define SPEAKER_WRITABLE 0x0f
#define SPEAKER_REFRESH 0x10
#define SPEAKER_OUT2 0x20
#define REFRESH_TICKS 18 /* the DRAM refresh request of the AT: every 15 microseconds */

enum { MODE_TERMINAL, MODE_ONE_SHOT, MODE_RATE, MODE_SQUARE, MODE_STROBE, MODE_TRIGGERED_STROBE };

static unsigned mode_of(const struct pit_channel *c)
{
	unsigned mode = (c->control >> 1) & 7;
	return mode > 5 ? mode - 4 : mode;
}

static unsigned rw_of(const struct pit_channel *c)
{
	return (c->control >> 4) & 3;
}

static bool is_triggered_mode(const struct pit_channel *c)
{
	return mode_of(c) == MODE_ONE_SHOT || mode_of(c) == MODE_TRIGGERED_STROBE;
}

static bool is_periodic_mode(const struct pit_channel *c)
{
	return mode_of(c) == MODE_RATE || mode_of(c) == MODE_SQUARE;
}

static uint64_t now_ticks(const struct pit *p)
{
	return clock_ticks_from_cycles(p->clock, PLATFORM_PIT_HZ, clock_now(p->clock));
}

/* Ticks counted since the count was loaded. */
static uint64_t elapsed(const struct pit_channel *c, uint64_t now)
{
	if (!c->gate && !is_triggered_mode(c))
		return is_periodic_mode(c) ? 0 : c->paused_ticks;
	return now > c->start_tick ? now - c->start_tick : 0;
}

/* A count written to a periodic channel takes effect when the period ends. */
static void take_next_count(struct pit_channel *c, uint64_t now)
{
	if (!c->next_count || !c->is_counting || !is_periodic_mode(c) || elapsed(c, now) < c->count)
		return;
	c->start_tick += c->count;
	c->count = c->next_count;
	c->next_count = 0;
	c->is_null = 0;
}

static bool output(const struct pit_channel *c, uint64_t now)
{
	uint64_t e = elapsed(c, now);
	if (!c->is_counting)
		return mode_of(c) != MODE_TERMINAL;
	switch (mode_of(c)) {
	case MODE_TERMINAL:
	case MODE_ONE_SHOT: return e >= c->count;
	case MODE_RATE: return !c->gate || e % c->count != c->count - 1;
	case MODE_SQUARE: return !c->gate || e % c->count < (c->count + 1) / 2;
	default: return e != c->count;
	}
}

static uint16_t to_bcd(uint64_t v)
{
	return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static uint32_t from_bcd(uint16_t v)
{
	return (v & 15u) + (v >> 4 & 15u) * 10 + (v >> 8 & 15u) * 100 + (v >> 12) * 1000u;
}

/* What a read of the counting element gives. */
static uint16_t counter(const struct pit_channel *c, uint64_t now)
{
	uint64_t modulus = c->control & CONTROL_BCD ? 10000 : 65536;
	uint64_t e = c->is_counting ? elapsed(c, now) : 0, value;
	if (!c->count)
		return 0;
	if (mode_of(c) == MODE_RATE) {
		value = c->count - e % c->count;
	} else if (mode_of(c) == MODE_SQUARE) {
		uint64_t p = e % c->count, high = (c->count + 1) / 2;
		value = (c->count & ~1u) - 2 * (p < high ? p : p - high);
	} else {
		value = c->count + modulus - e % modulus;
	}
	value %= modulus;
	return c->control & CONTROL_BCD ? to_bcd(value) : (uint16_t)value;
}

/* The tick of the first rising edge of the output after `now`, or CLOCK_NEVER. */
static uint64_t next_rise(const struct pit_channel *c, uint64_t now)
{
	uint64_t e = elapsed(c, now);
	if (!c->is_counting || (!c->gate && !is_triggered_mode(c)))
		return CLOCK_NEVER;
	switch (mode_of(c)) {
	case MODE_TERMINAL:
	case MODE_ONE_SHOT: return e < c->count ? c->start_tick + c->count : CLOCK_NEVER;
	case MODE_RATE:
	case MODE_SQUARE:
		if (c->next_count)
			return c->start_tick + c->count;
		return c->start_tick + (e / c->count + 1) * c->count;
	default: return e <= c->count ? c->start_tick + c->count + 1 : CLOCK_NEVER;
	}
}

static void arm(struct pit *p)
{
	uint64_t rise = next_rise(&p->state.channel[0], now_ticks(p));
	if (rise == CLOCK_NEVER)
		timer_cancel(p->clock, &p->timer);
	else
		timer_arm(p->clock, &p->timer,
			  clock_cycles_from_ticks(p->clock, PLATFORM_PIT_HZ, rise));
}

static void pit_fire(void *opaque, uint64_t deadline_cycles)
{
	struct pit *p = opaque;
	take_next_count(&p->state.channel[0], now_ticks(p));
	irq_line_set(&p->irq, false);
	irq_line_set(&p->irq, true);
	arm(p);
}

/* What was due before this access happened before it. */
static uint64_t settle(struct pit *p)
{
	if (p->timer.is_armed && p->timer.deadline_cycles <= clock_now(p->clock)) {
		timer_cancel(p->clock, &p->timer);
		pit_fire(p, 0);
	}
	uint64_t now = now_ticks(p);
	for (unsigned i = 0; i < 3; i++)
		take_next_count(&p->state.channel[i], now);
	return now;
}

/* Channel 0 was programmed: its output may have changed at once, and its next edge. */
static void follow(struct pit *p, unsigned number, uint64_t now)
{
	if (number)
		return;
	irq_line_set(&p->irq, output(&p->state.channel[0], now));
	arm(p);
}

static void start(struct pit_channel *c, uint32_t count, uint64_t now)
{
	c->count = count;
	c->next_count = 0;
	c->start_tick = now;
	c->paused_ticks = 0;
	c->is_counting = 1;
	c->is_null = 0;
}

static void load_count(struct pit_channel *c, uint16_t written, uint64_t now)
{
	uint32_t count = c->control & CONTROL_BCD ? from_bcd(written) : written;
	if (!count)
		count = c->control & CONTROL_BCD ? 10000 : 65536;
	if (is_triggered_mode(c)) {
		c->next_count = count;
		c->is_null = 1;
	} else if (is_periodic_mode(c) && c->is_counting && c->gate) {
		c->start_tick += elapsed(c, now) / c->count * c->count;
		c->next_count = count;
		c->is_null = 1;
	} else {
		start(c, count, now);
	}
}

static void set_gate(struct pit_channel *c, bool gate, uint64_t now)
{
	if (c->gate == gate)
		return;
	if (!gate) {
		c->paused_ticks = elapsed(c, now);
		c->gate = 0;
		return;
	}
	c->gate = 1;
	if (is_triggered_mode(c)) {
		if (c->next_count || c->count)
			start(c, c->next_count ? c->next_count : c->count, now);
	} else if (c->is_counting && is_periodic_mode(c)) {
		start(c, c->next_count ? c->next_count : c->count, now);
	} else {
		c->start_tick = now - c->paused_ticks;
	}
}

static void write_count(struct pit *p, unsigned number, uint8_t byte, uint64_t now)
{
	struct pit_channel *c = &p->state.channel[number];
	switch (rw_of(c)) {
	case 1: load_count(c, byte, now); break;
	case 2: load_count(c, (uint16_t)(byte << 8), now); break;
	case 3:
		c->is_write_high = !c->is_write_high;
		if (c->is_write_high) {
			c->write_low = byte;
			/* The first of two bytes stops a terminal count. */
			if (mode_of(c) == MODE_TERMINAL)
				c->is_counting = 0;
		} else {
			load_count(c, (uint16_t)(byte << 8 | c->write_low), now);
		}
		break;
	default: return; /* never programmed */
	}
	follow(p, number, now);
}

static void latch_count(struct pit_channel *c, uint64_t now)
{
	if (c->latched_bytes)
		return;
	c->latched = counter(c, now);
	c->latched_bytes = rw_of(c) == 3 ? 2 : 1;
}

static void latch_status(struct pit_channel *c, uint64_t now)
{
	if (c->is_status_latched)
		return;
	c->latched_status = (output(c, now) ? STATUS_OUT : 0) | (c->is_null ? STATUS_NULL : 0) |
			    (c->control & 0x3f);
	c->is_status_latched = 1;
}

static void write_control(struct pit *p, uint8_t value, uint64_t now)
{
	unsigned number = value >> 6;
	if (number == 3) {
		for (unsigned i = 0; i < 3; i++) {
			if (!(value & 2u << i))
				continue;
			if (!(value & 0x20))
				latch_count(&p->state.channel[i], now);
			if (!(value & 0x10))
				latch_status(&p->state.channel[i], now);
		}
		return;
	}
	struct pit_channel *c = &p->state.channel[number];
	if (!(value & 0x30)) {
		latch_count(c, now);
		return;
	}
	uint8_t gate = c->gate;
	memset(c, 0, sizeof(*c));
	c->gate = gate;
	c->control = value & 0x3f;
	c->is_null = 1;
	follow(p, number, now);
}

static uint8_t read_count(struct pit_channel *c, uint64_t now)
{
	if (c->is_status_latched) {
		c->is_status_latched = 0;
		return c->latched_status;
	}
	uint16_t value = c->latched_bytes ? c->latched : counter(c, now);
	bool is_high = rw_of(c) == 2;
	if (rw_of(c) == 3) {
		is_high = c->is_read_high;
		c->is_read_high = !c->is_read_high;
	}
	if (c->latched_bytes)
		c->latched_bytes--;
	return (uint8_t)(is_high ? value >> 8 : value);
}

static uint64_t pit_read(void *opaque, struct bus_access access)
{
	struct pit *p = opaque;
	uint64_t now = settle(p), value = 0;
	for (unsigned i = 0; i < access.size_bytes; i++) {
		unsigned port = (unsigned)access.offset + i;
		uint8_t byte = port < 3 ? read_count(&p->state.channel[port], now) : 0xff;
		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

static void pit_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pit *p = opaque;
	uint64_t now = settle(p);
	for (unsigned i = 0; i < access.size_bytes; i++) {
		unsigned port = (unsigned)access.offset + i;
		if (port < 3)
			write_count(p, port, (uint8_t)(value >> (8 * i)), now);
		else
			write_control(p, (uint8_t)(value >> (8 * i)), now);
	}
}

static uint64_t speaker_read(void *opaque, struct bus_access access)
{
	struct pit *p = opaque;
	uint64_t now = settle(p);
	uint64_t value = p->state.speaker;
	if (now / REFRESH_TICKS & 1)
		value |= SPEAKER_REFRESH;
	if (output(&p->state.channel[2], now))
		value |= SPEAKER_OUT2;
	return value;
}

static void speaker_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pit *p = opaque;
	uint64_t now = settle(p);
	p->state.speaker = value & SPEAKER_WRITABLE;
	set_gate(&p->state.channel[2], value & SPEAKER_GATE2, now);
}

static const struct bus_ops pit_bus_ops = {pit_read, pit_write};
static const struct bus_ops speaker_bus_ops = {speaker_read, speaker_write};

static void pit_reset(struct device *d)
{
	struct pit *p = (struct pit *)d;
	memset(&p->state, 0, sizeof(p->state));
	p->state.channel[0].gate = p->state.channel[1].gate = 1;
	timer_cancel(p->clock, &p->timer);
	irq_line_set(&p->irq, false);
}

static int pit_resume(struct device *d, struct error *e)
{
	struct pit *p = (struct pit *)d;
	for (unsigned i = 0; i < 3; i++) {
		const struct pit_channel *c = &p->state.channel[i];
		if (c->count > 65536 || c->next_count > 65536 || (c->is_counting && !c->count) ||
		    c->gate > 1 || c->latched_bytes > 2)
			return error_set(e, -EINVAL, "channel %u: impossible count", i);
	}
	arm(p);
	return 0;
}

static void pit_fini(struct device *d)
{
	struct pit *p = (struct pit *)d;
	timer_cancel(p->clock, &p->timer);
}

static const struct device_ops pit_ops = {1, pit_reset, pit_resume, pit_fini};

int pit_init(struct pit *p, struct clock *clock, struct irq_line irq, struct bus *bus,
	     struct error *e)
{
	*p = (struct pit){.clock = clock, .irq = irq};
	p->timer = (struct timer){.fire = pit_fire, .opaque = p};
	device_init(&p->device, &pit_ops, "pit", NULL, &p->state, sizeof(p->state));
	device_reset(&p->device);
	int r = bus_map_ports(bus, PLATFORM_PIT_PORT, 4, &pit_bus_ops, p, "PIT", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_SPEAKER_PORT, 1, &speaker_bus_ops, p, "speaker", e);
	return r;
}
