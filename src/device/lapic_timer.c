/*
 * The local APIC's timer. It is a count that started at a known cycle; everything else is
 * arithmetic. The clock's timer is armed only while the LVT entry is unmasked: a masked timer runs
 * and nobody hears of it.
 */
#include "device/lapic_core.h"

/* DCR bits 3, 1, 0: 000 divides by 2 ... 110 by 128, 111 by 1. */
static uint64_t divisor(const struct lapic *l)
{
	unsigned code = (l->state.divide & 3) | ((l->state.divide >> 1) & 4);
	return 1ull << ((code + 1) & 7);
}

static uint32_t timer_mode(const struct lapic *l)
{
	return l->state.lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

/* Another vcpu's turn may have been ahead of this one: time that has not begun is none. */
static uint64_t elapsed_ticks(struct lapic *l, uint64_t now)
{
	uint64_t cycles = now > l->state.timer_start ? now - l->state.timer_start : 0;
	return clock_ticks_from_cycles(l->clock, l->config.timer_hz, cycles) / divisor(l);
}

static uint64_t cycles_of_count(const struct lapic *l, uint64_t count)
{
	uint64_t cycles = clock_cycles_from_ticks(l->clock, l->config.timer_hz, count * divisor(l));
	return cycles < CLOCK_NEVER - l->state.timer_start ? l->state.timer_start + cycles
							   : CLOCK_NEVER - 1;
}

/* The first expiry after `now`. */
static uint64_t next_expiry(struct lapic *l, uint64_t now)
{
	const struct lapic_state *s = &l->state;
	uint64_t ticks = elapsed_ticks(l, now);
	if (ticks < s->timer_first)
		return cycles_of_count(l, s->timer_first);
	uint64_t periods = (ticks - s->timer_first) / s->timer_initial + 1;
	return cycles_of_count(l, s->timer_first + periods * s->timer_initial);
}

static uint64_t guest_tsc(struct lapic *l)
{
	return clock_now(l->clock) + l->vcpu->state.tsc_offset;
}

static void arm_deadline(struct lapic *l)
{
	uint64_t tsc = guest_tsc(l), wait = 0, now = clock_now(l->clock);
	if (l->state.tsc_deadline > tsc)
		wait = l->state.tsc_deadline - tsc;
	timer_arm(l->clock, &l->timer, wait < CLOCK_NEVER - now ? now + wait : CLOCK_NEVER - 1);
}

void lapic_timer_arm(struct lapic *l)
{
	const struct lapic_state *s = &l->state;
	timer_cancel(l->clock, &l->timer);
	if (timer_mode(l) == LVT_TIMER_DEADLINE) {
		/* Masked, too: the MSR reads as 0 afterwards, which a guest may wait for. */
		if (s->tsc_deadline)
			arm_deadline(l);
		return;
	}
	if (!s->is_timer_running || (s->lvt[LVT_TIMER] & LVT_MASKED))
		return;
	uint64_t now = clock_now(l->clock);
	if (timer_mode(l) == LVT_TIMER_PERIODIC)
		timer_arm(l->clock, &l->timer, next_expiry(l, now));
	else if (elapsed_ticks(l, now) < s->timer_first)
		timer_arm(l->clock, &l->timer, cycles_of_count(l, s->timer_first));
}

static void timer_fire(void *opaque, uint64_t deadline_cycles)
{
	struct lapic *l = opaque;
	if (timer_mode(l) == LVT_TIMER_DEADLINE) {
		if (guest_tsc(l) < l->state.tsc_deadline) {
			arm_deadline(l); /* the TSC was set back */
			return;
		}
		l->state.tsc_deadline = 0;
	} else if (timer_mode(l) == LVT_TIMER_PERIODIC) {
		lapic_timer_arm(l);
	} else {
		l->state.is_timer_running = 0;
	}
	lapic_local_interrupt(l, LVT_TIMER);
}

void lapic_timer_init(struct lapic *l)
{
	l->timer = (struct timer){.fire = timer_fire, .opaque = l};
}

void lapic_timer_settle(struct lapic *l)
{
	if (!l->timer.is_armed || l->timer.deadline_cycles > clock_now(l->clock))
		return;
	uint64_t deadline = l->timer.deadline_cycles;
	timer_cancel(l->clock, &l->timer);
	timer_fire(l, deadline);
}

uint32_t lapic_timer_current(struct lapic *l)
{
	const struct lapic_state *s = &l->state;
	if (!s->is_timer_running || timer_mode(l) == LVT_TIMER_DEADLINE)
		return 0;
	uint64_t ticks = elapsed_ticks(l, clock_now(l->clock));
	if (ticks < s->timer_first)
		return (uint32_t)(s->timer_first - ticks);
	if (timer_mode(l) != LVT_TIMER_PERIODIC)
		return 0;
	return (uint32_t)(s->timer_initial - (ticks - s->timer_first) % s->timer_initial);
}

void lapic_timer_set_initial(struct lapic *l, uint32_t count)
{
	if (timer_mode(l) == LVT_TIMER_DEADLINE)
		return;
	l->state.timer_initial = l->state.timer_first = count;
	l->state.timer_start = clock_now(l->clock);
	l->state.is_timer_running = count != 0;
	lapic_timer_arm(l);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t dcr)
{
	uint32_t current = lapic_timer_current(l);
	l->state.divide = dcr & 0xb;
	l->state.timer_first = current;
	l->state.timer_start = clock_now(l->clock);
	l->state.is_timer_running = current != 0;
	lapic_timer_arm(l);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t entry)
{
	uint32_t old_mode = timer_mode(l), current = lapic_timer_current(l);
	l->state.lvt[LVT_TIMER] = entry;
	uint32_t mode = timer_mode(l);
	if (mode != old_mode && (mode == LVT_TIMER_DEADLINE || old_mode == LVT_TIMER_DEADLINE)) {
		/* Passing into or out of deadline mode disarms (SDM 3A 10.5.4.1). */
		l->state.tsc_deadline = 0;
		l->state.timer_initial = l->state.timer_first = 0;
		l->state.is_timer_running = 0;
	} else if (mode != old_mode) {
		l->state.timer_first = current;
		l->state.timer_start = clock_now(l->clock);
		l->state.is_timer_running = current != 0;
	}
	lapic_timer_arm(l);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	if (timer_mode(l) != LVT_TIMER_DEADLINE)
		return;
	l->state.tsc_deadline = tsc;
	lapic_timer_arm(l);
}

void lapic_tsc_changed(struct lapic *l)
{
	if (timer_mode(l) == LVT_TIMER_DEADLINE)
		lapic_timer_arm(l);
}
