/*
 * The RTC. While it runs, the date is base_s plus the seconds since base_cycles; while it is
 * stopped (SET, or the divider held in reset) the date is what lies in the time bytes. Flags are
 * worked out for the stretch since they were last looked at, so a guest may also poll them with all
 * interrupts off.
 */
#include "device/rtc.h"

#include <errno.h>
#include <string.h>

#include "bus/platform.h"

enum {
	REG_SECONDS = 0x00,
	REG_SECONDS_ALARM = 0x01,
	REG_MINUTES = 0x02,
	REG_MINUTES_ALARM = 0x03,
	REG_HOURS = 0x04,
	REG_HOURS_ALARM = 0x05,
	REG_WEEKDAY = 0x06,
	REG_DAY = 0x07,
	REG_MONTH = 0x08,
	REG_YEAR = 0x09,
	REG_A = 0x0a,
	REG_B = 0x0b,
	REG_C = 0x0c,
	REG_D = 0x0d,
	REG_CENTURY = 0x32,
};

#define A_UIP 0x80
#define A_DIVIDER 0x70
#define A_DIVIDER_RUNS 0x20
#define A_RATE 0x0f
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQF 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10
#define D_VALID 0x80
#define ALARM_ANY 0xc0 /* both bits set: do not care */
#define UIP_NS 244000
#define DAY_S 86400

static bool is_running(const struct rtc_state *s)
{
	return !(s->cmos[REG_B] & B_SET) && (s->cmos[REG_A] & A_DIVIDER) == A_DIVIDER_RUNS;
}

static uint64_t cycles_since(uint64_t base, uint64_t now)
{
	return now > base ? now - base : 0;
}

/* Whole seconds since base_cycles. */
static uint64_t seconds_passed(const struct rtc *r, uint64_t now)
{
	return cycles_since(r->state.base_cycles, now) / r->clock->hz;
}

/* ---- dates ---- */

struct date {
	int64_t year;
	unsigned month, day, weekday, hours, minutes,
		seconds; /* month, day, weekday from 1; Sunday is 1 */
};

/* Days since 1970-01-01 of the proleptic Gregorian calendar, counted in years that begin in March.
 */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
	year -= month <= 2;
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t year_of_era = year - era * 400;
	int64_t day_of_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
	       day_of_year - 719468;
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static struct date date_from_seconds(int64_t s)
{
	int64_t days = floor_div(s, DAY_S), rest = s - days * DAY_S;
	int64_t z = days + 719468, era = floor_div(z, 146097), doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	struct date d = {
		.month = (unsigned)(mp < 10 ? mp + 3 : mp - 9),
		.day = (unsigned)(doy - (153 * mp + 2) / 5 + 1),
		.weekday = (unsigned)(((days + 4) % 7 + 7) % 7 + 1),
		.hours = (unsigned)(rest / 3600),
		.minutes = (unsigned)(rest / 60 % 60),
		.seconds = (unsigned)(rest % 60),
	};
	d.year = yoe + era * 400 + (d.month <= 2);
	return d;
}

static uint8_t encode(const struct rtc_state *s, unsigned v)
{
	return (uint8_t)(s->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc_state *s, uint8_t v)
{
	return s->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15u);
}

static uint8_t encode_hours(const struct rtc_state *s, unsigned hours)
{
	if (s->cmos[REG_B] & B_24H)
		return encode(s, hours);
	return encode(s, hours % 12 ? hours % 12 : 12) | (hours >= 12 ? 0x80 : 0);
}

static unsigned decode_hours(const struct rtc_state *s, uint8_t v)
{
	if (s->cmos[REG_B] & B_24H)
		return decode(s, v);
	return decode(s, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static void store_date(struct rtc_state *s, int64_t seconds)
{
	struct date d = date_from_seconds(seconds);
	unsigned year = (unsigned)((d.year % 10000 + 10000) % 10000);
	s->cmos[REG_SECONDS] = encode(s, d.seconds);
	s->cmos[REG_MINUTES] = encode(s, d.minutes);
	s->cmos[REG_HOURS] = encode_hours(s, d.hours);
	s->cmos[REG_WEEKDAY] = encode(s, d.weekday);
	s->cmos[REG_DAY] = encode(s, d.day);
	s->cmos[REG_MONTH] = encode(s, d.month);
	s->cmos[REG_YEAR] = encode(s, year % 100);
	s->cmos[REG_CENTURY] = encode(s, year / 100);
}

/* Out-of-range values, which only a confused guest stores, carry over into the next unit. */
static int64_t load_date(const struct rtc_state *s)
{
	unsigned month = decode(s, s->cmos[REG_MONTH]);
	unsigned year = decode(s, s->cmos[REG_CENTURY]) * 100 + decode(s, s->cmos[REG_YEAR]);
	int64_t days = days_from_date(year, (month + 11) % 12 + 1, 1) +
		       (int64_t)decode(s, s->cmos[REG_DAY]) - 1;
	return days * DAY_S + (int64_t)decode_hours(s, s->cmos[REG_HOURS]) * 3600 +
	       (int64_t)decode(s, s->cmos[REG_MINUTES]) * 60 + decode(s, s->cmos[REG_SECONDS]);
}

static int64_t time_now(const struct rtc *r, uint64_t now)
{
	return r->state.base_s + (int64_t)seconds_passed(r, now);
}

/* ---- alarm and periodic ---- */

static bool alarm_matches(const struct rtc_state *s, unsigned reg, unsigned value)
{
	uint8_t alarm = s->cmos[reg];
	if ((alarm & ALARM_ANY) == ALARM_ANY)
		return true;
	return (reg == REG_HOURS_ALARM ? decode_hours(s, alarm) : decode(s, alarm)) == value;
}

/* The first second at or after `from` that the alarm matches; -1: none within a day, so none ever.
 */
static int64_t next_alarm(const struct rtc_state *s, int64_t from)
{
	for (int64_t t = from; t <= from + DAY_S;) {
		int64_t of_day = t - floor_div(t, DAY_S) * DAY_S;
		if (!alarm_matches(s, REG_HOURS_ALARM, (unsigned)(of_day / 3600)))
			t += 3600 - of_day % 3600;
		else if (!alarm_matches(s, REG_MINUTES_ALARM, (unsigned)(of_day / 60 % 60)))
			t += 60 - of_day % 60;
		else if (!alarm_matches(s, REG_SECONDS_ALARM, (unsigned)(of_day % 60)))
			t++;
		else
			return t;
	}
	return -1;
}

/* 0: no periodic interrupt is selected. */
static uint64_t periodic_hz(const struct rtc_state *s)
{
	unsigned rate = s->cmos[REG_A] & A_RATE;
	if (!rate || (s->cmos[REG_A] & A_DIVIDER) != A_DIVIDER_RUNS)
		return 0;
	return rate < 3 ? 512u >> rate : 65536u >> rate;
}

static uint64_t periodic_ticks(const struct rtc *r, uint64_t now)
{
	return clock_ticks_from_cycles(r->clock, periodic_hz(&r->state),
				       cycles_since(r->state.periodic_base_cycles, now));
}

/* ---- flags, line and timer ---- */

static void drive(struct rtc *r)
{
	struct rtc_state *s = &r->state;
	if (s->cmos[REG_C] & s->cmos[REG_B] & (C_PF | C_AF | C_UF))
		s->cmos[REG_C] |= C_IRQF;
	else
		s->cmos[REG_C] &= (uint8_t)~C_IRQF;
	irq_line_set(&r->irq, s->cmos[REG_C] & C_IRQF);
}

/* Sets the flags of what happened in (settled, now]. */
static void settle(struct rtc *r, uint64_t now)
{
	struct rtc_state *s = &r->state;
	if (now <= s->settled_cycles)
		return;
	if (periodic_hz(s) && periodic_ticks(r, now) > periodic_ticks(r, s->settled_cycles))
		s->cmos[REG_C] |= C_PF;
	if (is_running(s)) {
		int64_t before = time_now(r, s->settled_cycles), after = time_now(r, now);
		if (after > before) {
			s->cmos[REG_C] |= C_UF;
			int64_t alarm = next_alarm(s, before + 1);
			if (alarm >= 0 && alarm <= after)
				s->cmos[REG_C] |= C_AF;
		}
	}
	s->settled_cycles = now;
	drive(r);
}

static uint64_t cycles_of_second(const struct rtc *r, int64_t second)
{
	return r->state.base_cycles + (uint64_t)(second - r->state.base_s) * r->clock->hz;
}

/* While the line is high nothing more can be noticed: the guest reads register C first. */
static void arm(struct rtc *r)
{
	const struct rtc_state *s = &r->state;
	uint64_t now = s->settled_cycles, due = CLOCK_NEVER;
	uint8_t enabled = s->cmos[REG_B];
	if (!(s->cmos[REG_C] & C_IRQF)) {
		if ((enabled & B_PIE) && periodic_hz(s))
			due = s->periodic_base_cycles +
			      clock_cycles_from_ticks(r->clock, periodic_hz(s),
						      periodic_ticks(r, now) + 1);
		int64_t next = -1;
		if ((enabled & B_UIE) && is_running(s))
			next = time_now(r, now) + 1;
		else if ((enabled & B_AIE) && is_running(s))
			next = next_alarm(s, time_now(r, now) + 1);
		if (next >= s->base_s && cycles_of_second(r, next) < due)
			due = cycles_of_second(r, next);
	}
	if (due == CLOCK_NEVER)
		timer_cancel(r->clock, &r->timer);
	else
		timer_arm(r->clock, &r->timer, due);
}

static void rtc_fire(void *opaque, uint64_t deadline_cycles)
{
	struct rtc *r = opaque;
	settle(r, clock_now(r->clock));
	arm(r);
}

/* ---- registers ---- */

/* Registers A or B changed from `old`: does that stop or start the clock? */
static void stop_or_start(struct rtc *r, const struct rtc_state *old, uint64_t now)
{
	struct rtc_state *s = &r->state;
	bool was_running = is_running(old), runs = is_running(s);
	if (was_running && !runs)
		store_date(s, time_now(r, now));
	if (!was_running && runs) {
		uint64_t into_second = cycles_since(s->base_cycles, now) % r->clock->hz;
		/* A divider that leaves reset begins with half a second; SET keeps the phase. */
		if ((old->cmos[REG_A] & A_DIVIDER) != A_DIVIDER_RUNS)
			into_second = r->clock->hz / 2;
		s->base_s = load_date(s);
		s->base_cycles = now > into_second ? now - into_second : 0;
	}
}

static void write_a(struct rtc *r, uint8_t value, uint64_t now)
{
	struct rtc_state old = r->state;
	r->state.cmos[REG_A] = value & 0x7f;
	if ((old.cmos[REG_A] ^ value) & (A_DIVIDER | A_RATE))
		r->state.periodic_base_cycles = now;
	stop_or_start(r, &old, now);
}

static void write_b(struct rtc *r, uint8_t value, uint64_t now)
{
	struct rtc_state old = r->state;
	if (value & B_SET)
		value &= (uint8_t)~B_UIE;
	/* The date is kept over a change of its encoding: read in the old one, stored in the new
	 * one. */
	bool is_stopped = !is_running(&old);
	int64_t date = is_stopped ? load_date(&old) : 0;
	r->state.cmos[REG_B] = value;
	if (is_stopped && ((old.cmos[REG_B] ^ value) & (B_BINARY | B_24H)))
		store_date(&r->state, date);
	stop_or_start(r, &old, now);
	drive(r);
}

static bool is_time_register(unsigned index)
{
	return index == REG_SECONDS || index == REG_MINUTES || index == REG_HOURS ||
	       (index >= REG_WEEKDAY && index <= REG_YEAR) || index == REG_CENTURY;
}

/* A byte of the date is written while the clock runs: the others are what they are now. */
static void write_running_date(struct rtc *r, unsigned index, uint8_t value, uint64_t now)
{
	struct rtc_state *s = &r->state;
	uint64_t into_second = cycles_since(s->base_cycles, now) % r->clock->hz;
	store_date(s, time_now(r, now));
	s->cmos[index] = value;
	s->base_s = load_date(s);
	s->base_cycles = now > into_second ? now - into_second : 0;
}

static void write_byte(struct rtc *r, unsigned index, uint8_t value)
{
	uint64_t now = clock_now(r->clock);
	settle(r, now);
	switch (index) {
	case REG_A: write_a(r, value, now); break;
	case REG_B: write_b(r, value, now); break;
	case REG_C:
	case REG_D: break;
	default:
		if (is_time_register(index) && is_running(&r->state))
			write_running_date(r, index, value, now);
		else
			r->state.cmos[index] = value;
	}
	arm(r);
}

static bool is_updating(const struct rtc *r, uint64_t now)
{
	uint64_t into_second = cycles_since(r->state.base_cycles, now) % r->clock->hz;
	return is_running(&r->state) &&
	       r->clock->hz - into_second <= clock_cycles_from_ns(r->clock, UIP_NS);
}

static uint8_t read_byte(struct rtc *r, unsigned index)
{
	struct rtc_state *s = &r->state;
	uint64_t now = clock_now(r->clock);
	settle(r, now);
	if (index == REG_A)
		return s->cmos[REG_A] | (is_updating(r, now) ? A_UIP : 0);
	if (index == REG_C) {
		uint8_t flags = s->cmos[REG_C];
		s->cmos[REG_C] = 0;
		drive(r);
		arm(r);
		return flags;
	}
	if (is_time_register(index) && is_running(s)) {
		struct rtc_state shown = *s;
		store_date(&shown, time_now(r, now));
		return shown.cmos[index];
	}
	return s->cmos[index];
}

/* The index port cannot be read on a PC. */
static uint64_t rtc_read(void *opaque, struct bus_access access)
{
	struct rtc *r = opaque;
	uint64_t value = UINT64_MAX;
	for (unsigned i = 0; i < access.size_bytes; i++)
		if (access.offset + i == 1)
			value = (value & ~(0xffull << (8 * i))) |
				(uint64_t)read_byte(r, r->state.index & 0x7f) << (8 * i);
	return value;
}

static void rtc_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct rtc *r = opaque;
	for (unsigned i = 0; i < access.size_bytes; i++) {
		uint8_t byte = (uint8_t)(value >> (8 * i));
		if (access.offset + i == 0)
			r->state.index = byte; /* bit 7 masks NMI, which nothing raises */
		else
			write_byte(r, r->state.index & 0x7f, byte);
	}
}

static const struct bus_ops rtc_bus_ops = {rtc_read, rtc_write};

static void store_word(struct rtc_state *s, unsigned index, uint64_t value, uint64_t limit)
{
	if (value > limit)
		value = limit;
	s->cmos[index] = (uint8_t)value;
	s->cmos[index + 1] = (uint8_t)(value >> 8);
}

/* Where PC BIOSes say how much memory there is, and what else is installed. */
static void store_configuration(struct rtc *r)
{
	struct rtc_state *s = &r->state;
	uint64_t low = r->ram_bytes < PLATFORM_PCI_MMIO_BASE ? r->ram_bytes
							     : PLATFORM_PCI_MMIO_BASE;
	uint64_t high = (r->ram_bytes - low) >> 16;
	s->cmos[0x14] = 0x06; /* coprocessor, mouse port */
	store_word(s, 0x15, 640, 640);
	uint64_t extended_kib = low > 0x100000 ? (low - 0x100000) >> 10 : 0;
	store_word(s, 0x17, extended_kib, 0xffff);
	store_word(s, 0x30, extended_kib, 0xffff);
	store_word(s, 0x34, low > 0x1000000 ? (low - 0x1000000) >> 16 : 0, 0xffff);
	if (high > 0xffffff)
		high = 0xffffff;
	s->cmos[0x5b] = (uint8_t)high;
	s->cmos[0x5c] = (uint8_t)(high >> 8);
	s->cmos[0x5d] = (uint8_t)(high >> 16);
	s->cmos[0x5f] = (uint8_t)(r->vcpu_count - 1);
}

/* RESET leaves the date and the memory alone: there is a battery. */
static void rtc_reset(struct device *d)
{
	struct rtc *r = (struct rtc *)d;
	r->state.cmos[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE);
	r->state.cmos[REG_C] = 0;
	r->state.index = 0;
	timer_cancel(r->clock, &r->timer);
	irq_line_set(&r->irq, false);
}

static int rtc_resume(struct device *d, struct error *e)
{
	struct rtc *r = (struct rtc *)d;
	/* Far beyond what date bytes can say, and as far from overflow. */
	if (r->state.base_s > 1000000000000000 || r->state.base_s < -1000000000000000) {
		r->state.base_s =
			(int64_t)r->clock->wall_start_s; /* a reset leaves the date alone */
		return error_set(e, -EINVAL, "an impossible date");
	}
	arm(r);
	return 0;
}

static void rtc_fini(struct device *d)
{
	struct rtc *r = (struct rtc *)d;
	timer_cancel(r->clock, &r->timer);
}

static const struct device_ops rtc_ops = {1, rtc_reset, rtc_resume, rtc_fini};

int rtc_init(struct rtc *r, struct clock *clock, struct irq_line irq, uint64_t ram_bytes,
	     unsigned vcpu_count, struct bus *bus, struct error *e)
{
	*r = (struct rtc){
		.clock = clock, .irq = irq, .ram_bytes = ram_bytes, .vcpu_count = vcpu_count};
	r->timer = (struct timer){.fire = rtc_fire, .opaque = r};
	r->state.cmos[REG_A] = A_DIVIDER_RUNS | 6;
	r->state.cmos[REG_B] = B_24H;
	r->state.cmos[REG_D] = D_VALID;
	r->state.base_s = (int64_t)clock->wall_start_s;
	store_configuration(r);
	device_init(&r->device, &rtc_ops, "rtc", NULL, &r->state, sizeof(r->state));
	device_reset(&r->device);
	return bus_map_ports(bus, PLATFORM_RTC_PORT, 2, &rtc_bus_ops, r, "RTC", e);
}
