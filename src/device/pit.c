/*
 * The 8254. No channel ticks: a channel is the moment its count was loaded and what it counts from,
 * and everything that can be read follows from those and the clock. Time is in PIT ticks since
 * cycle 0, so nothing accumulates rounding.
 *
 * Invariant: the timer is armed at channel 0's next rising edge after settled_tick, if there is
 * one. Edges that passed while nobody could look are one edge, as they are to a processor that had
 * interrupts off.
 *
 * A virtual clock may be set back within a turn; time before a start counts as the start.
 */
#include "device/pit.h"

#include <errno.h>
#include <string.h>

#include "bus/platform.h"

#define NEVER UINT64_MAX

#define CONTROL_BCD 0x01u
#define CONTROL_BITS 0x3fu
#define ACCESS_LOW 1u
#define ACCESS_HIGH 2u
#define ACCESS_BOTH 3u

#define STATUS_OUT 0x80u
#define STATUS_NULL 0x40u

#define SPEAKER_GATE 0x01u
#define SPEAKER_BITS 0x03u
#define SPEAKER_REFRESH 0x10u
#define SPEAKER_OUT 0x20u
#define REFRESH_TICKS 18 /* 15 us */

static unsigned mode_of(const struct pit_channel *c)
{
	unsigned mode = c->control >> 1 & 7;
	return mode > 5 ? mode - 4 : mode; /* 6 and 7 are 2 and 3 */
}

static unsigned access_of(const struct pit_channel *c)
{
	return c->control >> 4 & 3;
}

static bool is_periodic(const struct pit_channel *c)
{
	return mode_of(c) == 2 || mode_of(c) == 3;
}

/* Modes 1 and 5 wait for the gate's rise; in 0 and 4 a low gate holds the count. */
static bool is_triggered(const struct pit_channel *c)
{
	return mode_of(c) == 1 || mode_of(c) == 5;
}

static uint64_t tick_now(struct pit *p)
{
	return clock_ticks_from_cycles(p->clock, PLATFORM_PIT_HZ, clock_now(p->clock));
}

static uint32_t binary_from_bcd(uint32_t v)
{
	uint32_t n = (v >> 12 & 15) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
	return n % 10000; /* digits above 9 are the guest's business */
}

static uint32_t bcd_from_binary(uint32_t n)
{
	return (n / 1000 % 10) << 12 | (n / 100 % 10) << 8 | (n / 10 % 10) << 4 | n % 10;
}

static uint32_t modulus(const struct pit_channel *c)
{
	return c->control & CONTROL_BCD ? 10000 : 65536;
}

/* Ticks since the count was loaded. */
static uint64_t elapsed(const struct pit_channel *c, uint64_t now)
{
	if (!c->gate && !is_triggered(c))
		return is_periodic(c) ? 0 : c->paused_ticks;
	return now > c->start_tick ? now - c->start_tick : 0;
}

/* A count that was written while another ran takes over at the end of the period. */
static void settle(struct pit_channel *c, uint64_t now)
{
	if (!c->next_count || !c->is_counting || !is_periodic(c) || !c->gate ||
	    elapsed(c, now) < c->count)
		return;
	c->start_tick += c->count;
	c->count = c->next_count;
	c->next_count = 0;
}

static bool output(const struct pit_channel *c, uint64_t now)
{
	if (!c->is_counting)
		return mode_of(c) != 0;
	uint64_t e = elapsed(c, now);
	switch (mode_of(c)) {
	case 0: return e >= c->count;
	case 1: return now < c->start_tick || e >= c->count;
	case 2: return !c->gate || c->count == 1 || e % c->count != c->count - 1;
	case 3: return !c->gate || e % c->count < (c->count + 1) / 2;
	default: return e != c->count;
	}
}

/* The first tick after `after` at which the output rises. The channel is settled. */
static uint64_t next_rise(const struct pit_channel *c, uint64_t after)
{
	if (!c->is_counting || !c->gate || is_triggered(c))
		return NEVER;
	uint64_t first = c->start_tick + c->count + (mode_of(c) == 4 ? 1 : 0);
	if (first > after)
		return first;
	if (!is_periodic(c))
		return NEVER;
	uint64_t period = c->next_count ? c->next_count : c->count;
	return first + ((after - first) / period + 1) * period;
}

static uint16_t counter(const struct pit_channel *c, uint64_t now)
{
	uint32_t n = c->count;
	uint64_t e = c->is_counting ? elapsed(c, now) : 0;
	if (!n)
		return 0;
	uint32_t value;
	if (mode_of(c) == 2) {
		value = n - (uint32_t)(e % n);
	} else if (mode_of(c) == 3) {
		uint32_t at = (uint32_t)(e % n), half = (n + 1) / 2;
		value = (n & ~1u) - 2 * (at < half ? at : at - half);
	} else {
		value = (n + modulus(c) - (uint32_t)(e % modulus(c)));
	}
	value %= modulus(c);
	return (uint16_t)(c->control & CONTROL_BCD ? bcd_from_binary(value) : value);
}

static void update_timer(struct pit *p)
{
	struct pit_channel *c = &p->state.channel[0];
	uint64_t tick = next_rise(c, p->state.settled_tick);
	if (tick == NEVER)
		timer_cancel(p->clock, &p->timer);
	else
		timer_arm(p->clock, &p->timer,
			  clock_cycles_from_ticks(p->clock, PLATFORM_PIT_HZ, tick));
}

static void timer_fired(void *opaque, uint64_t deadline_cycles)
{
	struct pit *p = opaque;
	struct pit_channel *c = &p->state.channel[0];
	uint64_t now = tick_now(p);
	settle(c, now);
	if (now > p->state.settled_tick)
		p->state.settled_tick = now;
	irq_line_set(&p->irq, false); /* the low part of the period ends here */
	irq_line_set(&p->irq, true);
	update_timer(p);
}

static void channel_changed(struct pit *p, unsigned number, uint64_t now)
{
	if (number)
		return;
	p->state.settled_tick = now;
	irq_line_set(&p->irq, output(&p->state.channel[0], now));
	update_timer(p);
}

/* The clock pulse after the one that wrote it loads the count. */
static void start(struct pit_channel *c, uint32_t count, uint64_t now)
{
	c->count = count;
	c->next_count = 0;
	c->start_tick = now + 1;
	c->paused_ticks = 0;
	c->is_counting = 1;
}

static void load(struct pit_channel *c, uint32_t written, uint64_t now)
{
	uint32_t count = c->control & CONTROL_BCD ? binary_from_bcd(written) : written;
	if (!count)
		count = modulus(c);
	settle(c, now);
	c->is_null = 0;
	if (is_triggered(c) || (is_periodic(c) && c->is_counting))
		c->next_count = count;
	else
		start(c, count, now);
}

static void write_count(struct pit *p, unsigned number, uint8_t byte)
{
	struct pit_channel *c = &p->state.channel[number];
	uint64_t now = tick_now(p);
	switch (access_of(c)) {
	case ACCESS_LOW: load(c, byte, now); break;
	case ACCESS_HIGH: load(c, (uint32_t)byte << 8, now); break;
	case ACCESS_BOTH:
		c->is_write_high ^= 1;
		if (c->is_write_high) {
			c->write_low = byte;
			if (!mode_of(c))
				c->is_counting = 0; /* the first byte stops mode 0 */
		} else {
			load(c, c->write_low | (uint32_t)byte << 8, now);
		}
		break;
	default: return; /* no control word yet */
	}
	channel_changed(p, number, now);
}

static void latch_count(struct pit_channel *c, uint64_t now)
{
	if (c->latched_bytes)
		return;
	c->latched = counter(c, now);
	c->latched_bytes = access_of(c) == ACCESS_BOTH ? 2 : 1;
	if (access_of(c) == ACCESS_HIGH)
		c->latched >>= 8;
}

static void latch_status(struct pit_channel *c, uint64_t now)
{
	if (c->is_status_latched)
		return;
	bool is_null = c->is_null || c->next_count || (c->is_counting && now < c->start_tick);
	c->latched_status = (uint8_t)((output(c, now) ? STATUS_OUT : 0) |
				      (is_null ? STATUS_NULL : 0) | c->control);
	c->is_status_latched = 1;
}

static void read_back(struct pit *p, uint8_t command)
{
	uint64_t now = tick_now(p);
	for (unsigned i = 0; i < 3; i++) {
		struct pit_channel *c = &p->state.channel[i];
		if (!(command & 2u << i))
			continue;
		settle(c, now);
		if (!(command & 0x20))
			latch_count(c, now);
		if (!(command & 0x10))
			latch_status(c, now);
	}
}

static void write_control(struct pit *p, uint8_t value)
{
	unsigned number = value >> 6;
	if (number == 3) {
		read_back(p, value);
		return;
	}
	struct pit_channel *c = &p->state.channel[number];
	uint64_t now = tick_now(p);
	if (!(value & 0x30)) {
		settle(c, now);
		latch_count(c, now);
		return;
	}
	*c = (struct pit_channel){
		.control = value & CONTROL_BITS, .is_null = 1, .gate = c->gate, .count = c->count};
	channel_changed(p, number, now);
}

static uint8_t read_count(struct pit *p, unsigned number)
{
	struct pit_channel *c = &p->state.channel[number];
	uint64_t now = tick_now(p);
	if (c->is_status_latched) {
		c->is_status_latched = 0;
		return c->latched_status;
	}
	if (c->latched_bytes) {
		uint8_t byte = (uint8_t)c->latched;
		c->latched >>= 8;
		c->latched_bytes--;
		return byte;
	}
	settle(c, now);
	uint16_t value = counter(c, now);
	bool is_high = access_of(c) == ACCESS_HIGH;
	if (access_of(c) == ACCESS_BOTH) {
		is_high = c->is_read_high;
		c->is_read_high ^= 1;
	}
	return (uint8_t)(is_high ? value >> 8 : value);
}

static void set_gate(struct pit_channel *c, bool gate, uint64_t now)
{
	if (gate == (bool)c->gate)
		return;
	settle(c, now);
	if (!gate) {
		c->paused_ticks = elapsed(c, now);
		c->gate = 0;
		return;
	}
	c->gate = 1;
	uint32_t count = c->next_count ? c->next_count : c->count;
	if (is_triggered(c) ? count && !c->is_null : is_periodic(c) && c->is_counting)
		start(c, count, now);
	else if (c->is_counting)
		c->start_tick = now > c->paused_ticks ? now - c->paused_ticks : 0;
}

static uint64_t pit_read(void *opaque, struct bus_access access)
{
	struct pit *p = opaque;
	uint64_t value = 0;
	for (unsigned i = 0; i < access.size_bytes; i++) {
		unsigned port = (unsigned)(access.offset + i) % 4;
		uint64_t byte = port < 3 ? read_count(p, port) : 0xff; /* control is write-only */
		value |= byte << (8 * i);
	}
	return value;
}

static void pit_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pit *p = opaque;
	for (unsigned i = 0; i < access.size_bytes; i++) {
		unsigned port = (unsigned)(access.offset + i) % 4;
		uint8_t byte = (uint8_t)(value >> 8 * i);
		if (port < 3)
			write_count(p, port, byte);
		else
			write_control(p, byte);
	}
}

static uint64_t speaker_read(void *opaque, struct bus_access access)
{
	struct pit *p = opaque;
	uint64_t now = tick_now(p);
	settle(&p->state.channel[2], now);
	return p->state.speaker | (now / REFRESH_TICKS & 1 ? SPEAKER_REFRESH : 0) |
	       (output(&p->state.channel[2], now) ? SPEAKER_OUT : 0);
}

static void speaker_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pit *p = opaque;
	p->state.speaker = (uint8_t)(value & SPEAKER_BITS);
	set_gate(&p->state.channel[2], value & SPEAKER_GATE, tick_now(p));
}

static void pit_reset(struct device *d)
{
	struct pit *p = (struct pit *)d;
	p->state = (struct pit_state){.channel = {{.gate = 1}, {.gate = 1}, {.gate = 0}}};
	channel_changed(p, 0, tick_now(p));
}

static int pit_resume(struct device *d, struct error *e)
{
	struct pit *p = (struct pit *)d;
	for (unsigned i = 0; i < 3; i++) {
		const struct pit_channel *c = &p->state.channel[i];
		if (c->count > 65536 || c->next_count > 65536 || (c->is_counting && !c->count))
			return error_set(e, -EINVAL, "channel %u counts from %u, then %u", i,
					 c->count, c->next_count);
		if (c->latched_bytes > 2 || c->gate > 1 || c->is_read_high > 1 ||
		    c->is_write_high > 1 || c->control > CONTROL_BITS)
			return error_set(e, -EINVAL, "channel %u is in no state it can be in", i);
	}
	if (p->state.speaker > SPEAKER_BITS)
		return error_set(e, -EINVAL, "the speaker's bits are %#x", p->state.speaker);
	update_timer(p);
	return 0;
}

static void pit_fini(struct device *d)
{
	struct pit *p = (struct pit *)d;
	timer_cancel(p->clock, &p->timer);
}

int pit_init(struct pit *p, struct clock *clock, struct irq_line irq, struct bus *bus,
	     struct error *e)
{
	static const struct device_ops ops = {
		.version = 1, .reset = pit_reset, .resume = pit_resume, .fini = pit_fini};
	static const struct bus_ops counters = {pit_read, pit_write},
				    speaker = {speaker_read, speaker_write};
	memset(p, 0, sizeof(*p));
	p->clock = clock;
	p->irq = irq;
	p->timer.fire = timer_fired;
	p->timer.opaque = p;
	device_init(&p->device, &ops, "pit", NULL, &p->state, sizeof(p->state));
	pit_reset(&p->device);
	int r = bus_map_ports(bus, PLATFORM_PIT_PORT, 4, &counters, p, "pit", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_SPEAKER_PORT, 1, &speaker, p, "speaker", e);
	return r;
}
