/*
 * What all devices have in common, and the folder's contract.
 *
 * A device is `struct X { struct device device; struct X_state state; wires }` in its owner's
 * storage. X_init() puts it into its power-on state, maps it on the bus and connects it; from then
 * on the guest reaches it through the bus, and it reaches the guest through interrupt lines,
 * messages and the callbacks it was given. `struct X_state` is plain, without pointers, and is
 * everything a guest could ever find out: saving is writing it as one section, loading is reading
 * it back and calling `resume`.
 *
 * The board keeps an array of `struct device *` and goes through it for reset, save, load and the
 * end of the machine. Order does not matter: a device's state holds the levels of its inputs, so
 * nothing is driven again after loading.
 *
 * Time is read lazily: no device ticks. A timer is armed only when something the guest can notice
 * without asking (an interrupt) is due, so an idle guest sleeps as far as it can. What the guest
 * writes is hostile; every access of every width at every offset has an answer. No device reads the
 * host's time or randomness.
 *
 * Locking: callers see to it that one thread at a time is in the devices of one machine.
 *
 * Headers: lapic.h (local APICs and their hub), ioapic.h, pic.h, irq_router.h, pit.h, rtc.h,
 * hpet.h, uart.h, i8042.h, acpi_pm.h, pci.h, msix.h, pvpanic.h, i6300esb.h,
 * legacy_ports.h (0x80, 0xed, 0x92, 0xe9, debug exit). The map of the machine is bus/platform.h.
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct device;
struct state_reader;
struct state_writer;

struct device_ops {
	uint32_t version; /* of the section */
	/* To the power-on state (the RESET pin). */
	void (*reset)(struct device *d);
	/* `state` was loaded: -EINVAL if no run could have produced it, otherwise arms timers. May
	 * be NULL. */
	int (*resume)(struct device *d, struct error *e);
	/* Cancels timers, gives back what init took. May be NULL. */
	void (*fini)(struct device *d);
};

struct device {
	const struct device_ops *ops;
	char section[32]; /* "uart.com1": unique in a machine */
	void *state;	  /* borrowed: the X_state of the same struct X */
	size_t state_bytes;
};

/* For X_init() functions. `instance` is NULL or what tells this one from its brothers ("com1"). */
void device_init(struct device *d, const struct device_ops *ops, const char *name,
		 const char *instance, void *state, size_t state_bytes);

static inline void device_reset(struct device *d)
{
	d->ops->reset(d);
}

void device_save(const struct device *d, struct state_writer *w);
/* On any error the device is left in its power-on state. */
int device_load(struct device *d, struct state_reader *r, struct error *e);
/* Idempotent; legal on zeroed storage. */
void device_fini(struct device *d);

/* News for the board: power-off, reset, debug exit, A20. Nobody listening is legal. */
struct device_signal {
	void (*raise)(void *opaque, uint32_t value);
	void *opaque; /* borrowed */
};

static inline void device_signal_raise(const struct device_signal *s, uint32_t value)
{
	if (s->raise)
		s->raise(s->opaque, value);
}

/* Where a serial device's bytes go. Nobody listening is legal. */
struct byte_sink {
	void (*send)(void *opaque, const uint8_t *bytes, size_t count);
	void *opaque; /* borrowed */
};

static inline void byte_sink_send(const struct byte_sink *s, const uint8_t *bytes, size_t count)
{
	if (s->send)
		s->send(s->opaque, bytes, count);
}
