#include "device/i6300esb.h"

#include <errno.h>
#include <string.h>

#define VENDOR 0x8086
#define DEVICE 0x25ab
#define CLASS_SYSTEM_OTHER 0x088000
#define BAR_BYTES 16

/* Configuration space. */
#define CONFIG_WDT 0x60
#define WDT_FAST 0x04u	    /* ticks of 1 us, not 1 ms */
#define WDT_NO_REBOOT 0x20u /* the output is off */
#define WDT_WRITABLE 0x27u
#define CONFIG_LOCK 0x68
#define LOCK_LOCKED 0x01u
#define LOCK_ENABLE 0x02u
#define LOCK_FREE_RUN 0x04u
#define LOCK_WRITABLE 0x07u

/* The BAR. */
enum { REG_TIMER1 = 0x0, REG_TIMER2 = 0x4, REG_INTERRUPT = 0x8, REG_RELOAD = 0xc };
#define PRELOAD_MASK 0xfffffu
#define RELOAD_NOW 0x100u
#define RELOAD_TIMEOUT 0x200u
#define UNLOCK_FIRST 0x80u
#define UNLOCK_SECOND 0x86u

/* The PCI clock of 33 MHz, divided by 2^15 or 2^5. */
#define PCI_HZ 33333333ull
#define SHIFT_SLOW 15
#define SHIFT_FAST 5

static struct i6300esb *from_device(struct device *d)
{
	return (struct i6300esb *)d;
}

/* ---- time ---- */

static void run_stage(struct i6300esb *w, unsigned stage)
{
	struct i6300esb_state *s = &w->state;
	unsigned shift = w->pci.config[CONFIG_WDT] & WDT_FAST ? SHIFT_FAST : SHIFT_SLOW;
	uint64_t ticks = (uint64_t)(s->preload[stage - 1] + 1) << shift;
	s->stage = (uint8_t)stage;
	s->deadline = clock_now(w->clock) + clock_cycles_from_ticks(w->clock, PCI_HZ, ticks);
	timer_arm(w->clock, &w->timer, s->deadline);
}

static void stop(struct i6300esb *w)
{
	w->state.stage = 0;
	w->state.deadline = 0;
	timer_cancel(w->clock, &w->timer);
}

static void fire(void *opaque, uint64_t deadline_cycles)
{
	struct i6300esb *w = opaque;
	(void)deadline_cycles;
	if (w->state.stage == 1) {
		w->state.is_first_expired = 1;
		run_stage(w, 2);
		return;
	}
	stop(w);
	if (w->state.lock & LOCK_FREE_RUN)
		run_stage(w, 1);
	if (w->pci.config[CONFIG_WDT] & WDT_NO_REBOOT)
		return;
	w->state.has_bitten = 1;
	device_signal_raise(&w->bite, 0);
}

/* ---- registers ---- */

static uint64_t bar_read(void *opaque, struct bus_access access)
{
	const struct i6300esb_state *s = &((struct i6300esb *)opaque)->state;
	uint32_t value = 0;
	if ((access.offset & ~3ull) == REG_INTERRUPT)
		value = s->is_first_expired;
	else if ((access.offset & ~3ull) == REG_RELOAD)
		value = s->has_bitten ? RELOAD_TIMEOUT : 0;
	return value >> (8 * (access.offset & 3));
}

static void write_reload(struct i6300esb *w, uint32_t value)
{
	if (value & RELOAD_TIMEOUT)
		w->state.has_bitten = 0;
	if ((value & RELOAD_NOW) && w->state.stage)
		run_stage(w, 1);
}

/* The sequence: 0x80, then 0x86, both to the reload register; then one write counts. */
static bool is_unlock(struct i6300esb *w, uint64_t offset, uint64_t value)
{
	struct i6300esb_state *s = &w->state;
	if (offset == REG_RELOAD && value == UNLOCK_FIRST)
		s->unlocked = 1;
	else if (offset == REG_RELOAD && value == UNLOCK_SECOND && s->unlocked == 1)
		s->unlocked = 2;
	else
		return false;
	return true;
}

static void bar_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct i6300esb *w = opaque;
	struct i6300esb_state *s = &w->state;
	if (is_unlock(w, access.offset, value))
		return;
	if (access.offset == REG_INTERRUPT) {
		s->is_first_expired &= (uint8_t)~value;
		return;
	}
	if (s->unlocked != 2)
		return;
	s->unlocked = 0;
	if (access.offset == REG_TIMER1)
		s->preload[0] = (uint32_t)value & PRELOAD_MASK;
	else if (access.offset == REG_TIMER2)
		s->preload[1] = (uint32_t)value & PRELOAD_MASK;
	else if (access.offset == REG_RELOAD)
		write_reload(w, (uint32_t)value);
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

/* The lock register starts and stops it, until it locks itself. */
static void config_written(void *opaque, unsigned offset, unsigned size_bytes)
{
	struct i6300esb *w = opaque;
	if (offset > CONFIG_LOCK || CONFIG_LOCK - offset >= size_bytes)
		return;
	uint8_t *lock_register = &w->pci.config[CONFIG_LOCK];
	if (w->state.lock & LOCK_LOCKED)
		*lock_register = w->state.lock;
	uint8_t lock = w->state.lock = *lock_register;
	if ((lock & LOCK_ENABLE) && !w->state.stage)
		run_stage(w, 1);
	else if (!(lock & LOCK_ENABLE))
		stop(w);
}

/* ---- life ---- */

/* That it has bitten is what a driver wants to know after the reset. */
static void watchdog_reset(struct device *d)
{
	struct i6300esb *w = from_device(d);
	timer_cancel(w->clock, &w->timer);
	w->state = (struct i6300esb_state){.preload = {PRELOAD_MASK, PRELOAD_MASK},
					   .has_bitten = w->state.has_bitten == 1};
}

static int watchdog_resume(struct device *d, struct error *e)
{
	struct i6300esb *w = from_device(d);
	const struct i6300esb_state *s = &w->state;
	if (s->stage > 2 || s->unlocked > 2 || s->is_first_expired > 1 || s->has_bitten > 1 ||
	    (s->lock & ~LOCK_WRITABLE) || ((s->preload[0] | s->preload[1]) & ~PRELOAD_MASK))
		return error_set(e, -EINVAL, "a watchdog that no run could have left");
	if (s->stage)
		timer_arm(w->clock, &w->timer, s->deadline);
	return 0;
}

static void watchdog_fini(struct device *d)
{
	struct i6300esb *w = from_device(d);
	timer_cancel(w->clock, &w->timer);
}

static const struct device_ops watchdog_ops = {1, watchdog_reset, watchdog_resume, watchdog_fini};

int i6300esb_init(struct i6300esb *w, struct clock *clock, struct device_signal bite,
		  struct pci_host *host, unsigned slot, struct error *e)
{
	*w = (struct i6300esb){.clock = clock, .bite = bite};
	w->timer = (struct timer){.fire = fire, .opaque = w};
	device_init(&w->device, &watchdog_ops, "i6300esb", NULL, &w->state, sizeof(w->state));
	pci_device_init(&w->pci, "i6300esb", VENDOR, DEVICE, CLASS_SYSTEM_OTHER, 0);
	pci_device_set_bar(
		&w->pci, 0,
		&(struct pci_bar){.size_bytes = BAR_BYTES, .ops = &bar_ops, .opaque = w});
	w->pci.writable[CONFIG_WDT] = WDT_WRITABLE;
	w->pci.writable[CONFIG_LOCK] = LOCK_WRITABLE;
	w->pci.config_written = config_written;
	w->pci.opaque = w;
	watchdog_reset(&w->device);
	return pci_host_add(host, &w->pci, slot, 0, e);
}
