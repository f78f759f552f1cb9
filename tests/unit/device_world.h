/* A virtual clock of 1 GHz, a bus and watched interrupt lines: all that a platform device needs. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/platform.h"
#include "clock/clock.h"
#include "device/device.h"
#include "state/state.h"

#include <cmocka.h>

#define WORLD_HZ 1000000000ull
#define MS 1000000ull
#define LINES 4

struct device_world {
	struct clock clock;
	struct bus bus;
	bool level[LINES];
	unsigned rises[LINES];
	unsigned signals;
	uint32_t signal_value;
	uint8_t sent[64];
	size_t sent_count;
};

static inline void world_line_set(void *opaque, unsigned number, bool level)
{
	struct device_world *w = opaque;
	w->rises[number] += level && !w->level[number];
	w->level[number] = level;
}

static inline void world_signal(void *opaque, uint32_t value)
{
	struct device_world *w = opaque;
	w->signals++;
	w->signal_value = value;
}

static inline void world_send(void *opaque, const uint8_t *bytes, size_t count)
{
	struct device_world *w = opaque;
	for (size_t i = 0; i < count && w->sent_count < sizeof(w->sent); i++)
		w->sent[w->sent_count++] = bytes[i];
}

static inline void world_init(struct device_world *w)
{
	memset(w, 0, sizeof(*w));
	clock_init(&w->clock, CLOCK_VIRTUAL, WORLD_HZ);
	bus_init(&w->bus);
}

static inline struct irq_line world_line(struct device_world *w, unsigned number)
{
	return (struct irq_line){world_line_set, w, number};
}

/* Time goes on to `cycles`, stopping at each deadline as the run loop does. */
static inline void world_run_to(struct device_world *w, uint64_t cycles)
{
	while (clock_next_deadline(&w->clock) <= cycles) {
		if (clock_next_deadline(&w->clock) > w->clock.now_cycles)
			clock_set(&w->clock, clock_next_deadline(&w->clock));
		clock_run_due(&w->clock);
	}
	clock_set(&w->clock, cycles);
}

static inline void world_run(struct device_world *w, uint64_t cycles)
{
	world_run_to(w, w->clock.now_cycles + cycles);
}

static inline void out8(struct device_world *w, uint16_t port, uint8_t value)
{
	assert_true(bus_port_write(&w->bus, 0, port, 1, value));
}

static inline uint8_t in8(struct device_world *w, uint16_t port)
{
	bool handled;
	uint8_t value = (uint8_t)bus_port_read(&w->bus, 0, port, 1, &handled);
	assert_true(handled);
	return value;
}

/* Save, load into the same device, save: the bytes are equal, and loading is accepted. */
static inline void assert_saves_and_loads(struct device *d)
{
	struct state_writer *first, *second;
	struct state_reader *reader;
	struct error e = {0};
	size_t size, size_after;
	assert_int_equal(state_buffer_create(&first), 0);
	assert_int_equal(state_buffer_create(&second), 0);
	device_save(d, first);
	const uint8_t *bytes = state_buffer_bytes(first, &size);
	assert_int_equal(state_reader_create(&reader, bytes, size, &e), 0);
	assert_int_equal(device_load(d, reader, &e), 0);
	device_save(d, second);
	const uint8_t *after = state_buffer_bytes(second, &size_after);
	assert_int_equal(size, size_after);
	assert_memory_equal(bytes, after, size);
	state_reader_destroy(reader);
	state_writer_destroy(first);
	state_writer_destroy(second);
}
