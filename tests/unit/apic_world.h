/*
 * A board of interrupt controllers for tests: three processors without an engine, their local
 * APICs, the I/O APIC, the PICs and the router. The clock makes 4 cycles of one tick of the APIC
 * timer.
 */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/platform.h"
#include "clock/clock.h"
#include "cpu/vcpu.h"
#include "device/ioapic.h"
#include "device/irq_router.h"
#include "device/lapic.h"
#include "device/pic.h"
#include "state/state.h"

#include <cmocka.h>

#define WORLD_VCPUS 3
#define WORLD_TIMER_HZ 25000000u
#define CYCLES_PER_TICK 4u

struct world {
	struct clock clock;
	struct bus bus;
	struct apic_hub hub;
	struct vcpu vcpus[WORLD_VCPUS];
	struct lapic lapics[WORLD_VCPUS];
	struct pic pic;
	struct ioapic ioapic;
	struct irq_router router;
};

/* All zero, vcpus in their power-on state, no firmware has run. */
static inline void world_init(struct world *w)
{
	struct error e = {0};
	memset(w, 0, sizeof(*w));
	clock_init(&w->clock, CLOCK_VIRTUAL, (uint64_t)WORLD_TIMER_HZ * CYCLES_PER_TICK);
	clock_set(&w->clock, 1000);
	bus_init(&w->bus);
	assert_int_equal(apic_hub_init(&w->hub, &w->bus, &e), 0);
	w->bus.msi = apic_hub_msi_sink(&w->hub);
	for (unsigned i = 0; i < WORLD_VCPUS; i++) {
		struct lapic_config config = {.index = i,
					      .timer_hz = WORLD_TIMER_HZ,
					      .has_x2apic = true,
					      .has_tsc_deadline = true};
		w->vcpus[i].index = i;
		w->vcpus[i].clock = &w->clock;
		vcpu_reset(&w->vcpus[i]);
		assert_int_equal(lapic_init(&w->lapics[i], &w->hub, &w->vcpus[i], &config, &e), 0);
	}
	assert_int_equal(pic_init(&w->pic, apic_hub_intr_line(&w->hub), &w->bus, &e), 0);
	w->hub.pic = &w->pic;
	assert_int_equal(ioapic_init(&w->ioapic, &w->hub, true, &w->bus, &e), 0);
	irq_router_init(&w->router, &w->pic, &w->ioapic);
}

static inline void world_fini(struct world *w)
{
	for (unsigned i = 0; i < WORLD_VCPUS; i++)
		device_fini(&w->lapics[i].device);
	device_fini(&w->pic.device);
	device_fini(&w->ioapic.device);
	device_fini(&w->router.device);
}

static inline void advance_to(struct world *w, uint64_t cycles)
{
	clock_set(&w->clock, cycles);
	clock_run_due(&w->clock);
}

/* ---- a vcpu's view ---- */

static inline uint32_t apic_read(struct world *w, unsigned cpu, unsigned offset)
{
	return (uint32_t)bus_mmio_read(&w->bus, cpu, gpa(PLATFORM_LAPIC_BASE + offset), 4, NULL);
}

static inline void apic_write(struct world *w, unsigned cpu, unsigned offset, uint32_t value)
{
	bus_mmio_write(&w->bus, cpu, gpa(PLATFORM_LAPIC_BASE + offset), 4, value);
}

static inline bool msr_get(struct world *w, unsigned cpu, uint32_t index, uint64_t *value)
{
	return w->vcpus[cpu].apic_ops->read_msr(w->vcpus[cpu].apic, index, value);
}

static inline bool msr_set(struct world *w, unsigned cpu, uint32_t index, uint64_t value)
{
	return w->vcpus[cpu].apic_ops->write_msr(w->vcpus[cpu].apic, index, value);
}

static inline bool has_request(struct world *w, unsigned cpu, enum vcpu_request r)
{
	return atomic_load(&w->vcpus[cpu].requests) & r;
}

/* pending(), after checking that REQUEST_INTERRUPT says the same. */
static inline int pending(struct world *w, unsigned cpu)
{
	int vector = w->vcpus[cpu].apic_ops->pending(w->vcpus[cpu].apic);
	assert_int_equal(has_request(w, cpu, REQUEST_INTERRUPT), vector >= 0);
	return vector;
}

static inline int acknowledge(struct world *w, unsigned cpu)
{
	int vector = w->vcpus[cpu].apic_ops->acknowledge(w->vcpus[cpu].apic);
	pending(w, cpu);
	return vector;
}

static inline void end_interrupt(struct world *w, unsigned cpu)
{
	apic_write(w, cpu, 0xb0, 0);
}

static inline void software_enable(struct world *w, unsigned cpu)
{
	apic_write(w, cpu, 0xf0, 0x1ff);
}

static inline void enter_x2apic(struct world *w, unsigned cpu)
{
	uint64_t base;
	assert_true(msr_get(w, cpu, MSR_APIC_BASE, &base));
	assert_true(msr_set(w, cpu, MSR_APIC_BASE, base | BIT(10)));
	assert_true(msr_set(w, cpu, 0x80f, 0x1ff));
}

static inline void out8(struct world *w, uint16_t port, uint8_t value)
{
	bus_port_write(&w->bus, 0, port, 1, value);
}

static inline uint8_t in8(struct world *w, uint16_t port)
{
	return (uint8_t)bus_port_read(&w->bus, 0, port, 1, NULL);
}

/* The initialisation that every operating system does: vectors `base` and `base` + 8, no masks. */
static inline void pic_program(struct world *w, uint8_t base, uint8_t icw4)
{
	static const uint8_t icw3[2] = {4, 2};
	static const uint16_t port[2] = {PLATFORM_PIC_MASTER_PORT, PLATFORM_PIC_SLAVE_PORT};
	for (unsigned i = 0; i < 2; i++) {
		out8(w, port[i], 0x11);
		out8(w, port[i] + 1, (uint8_t)(base + 8 * i));
		out8(w, port[i] + 1, icw3[i]);
		out8(w, port[i] + 1, icw4);
		out8(w, port[i] + 1, 0);
	}
}

static inline uint32_t ioapic_get(struct world *w, uint8_t index)
{
	bus_mmio_write(&w->bus, 0, gpa(PLATFORM_IOAPIC_BASE), 4, index);
	return (uint32_t)bus_mmio_read(&w->bus, 0, gpa(PLATFORM_IOAPIC_BASE + 0x10), 4, NULL);
}

static inline void ioapic_put(struct world *w, uint8_t index, uint32_t value)
{
	bus_mmio_write(&w->bus, 0, gpa(PLATFORM_IOAPIC_BASE), 4, index);
	bus_mmio_write(&w->bus, 0, gpa(PLATFORM_IOAPIC_BASE + 0x10), 4, value);
}

static inline void ioapic_program(struct world *w, unsigned pin, uint64_t entry)
{
	ioapic_put(w, (uint8_t)(0x11 + 2 * pin), (uint32_t)(entry >> 32));
	ioapic_put(w, (uint8_t)(0x10 + 2 * pin), (uint32_t)entry);
}

/* ---- saving ---- */

/* Saves `d`, loads the bytes into it again and checks that a second save gives the same ones. */
static inline void check_save_load_save(struct device *d)
{
	struct error e = {0};
	struct state_writer *first, *second;
	struct state_reader *r;
	size_t size, size2;
	assert_int_equal(state_buffer_create(&first), 0);
	assert_int_equal(state_buffer_create(&second), 0);
	device_save(d, first);
	const uint8_t *bytes = state_buffer_bytes(first, &size);
	assert_int_equal(state_reader_create(&r, bytes, size, &e), 0);
	assert_int_equal(device_load(d, r, &e), 0);
	device_save(d, second);
	const uint8_t *bytes2 = state_buffer_bytes(second, &size2);
	assert_int_equal(size, size2);
	assert_memory_equal(bytes, bytes2, size);
	state_reader_destroy(r);
	state_writer_destroy(first);
	state_writer_destroy(second);
}

/* Loads what `d` holds now; returns device_load()'s result. */
static inline int load_own_state(struct device *d)
{
	struct error e = {0};
	struct state_writer *w;
	struct state_reader *r;
	size_t size;
	assert_int_equal(state_buffer_create(&w), 0);
	device_save(d, w);
	const uint8_t *bytes = state_buffer_bytes(w, &size);
	assert_int_equal(state_reader_create(&r, bytes, size, &e), 0);
	int result = device_load(d, r, &e);
	state_reader_destroy(r);
	state_writer_destroy(w);
	return result;
}

/* A repeatable stream of numbers for hostile accesses. */
static inline uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return *state >> 29 ^ *state << 20;
}
