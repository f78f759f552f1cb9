/* Local APICs: priorities, ends, interprocessor messages, the timer, pins, modes, saving. */
#include "apic_world.h"

#define ICR 0x300
#define ICR_HIGH 0x310
#define LVT_TIMER_OFFSET 0x320
#define LVT_LINT0_OFFSET 0x350
#define LVT_LINT1_OFFSET 0x360
#define LVT_ERROR_OFFSET 0x370
#define INITIAL 0x380
#define CURRENT 0x390
#define DIVIDE 0x3e0
#define DIVIDE_BY_1 0xbu
#define PERIODIC 0x20000u
#define DEADLINE 0x40000u
#define MASKED 0x10000u

static int setup(void **state)
{
	static struct world w;
	world_init(&w);
	for (unsigned i = 0; i < WORLD_VCPUS; i++)
		software_enable(&w, i);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	world_fini(*state);
	return 0;
}

static void send_fixed(struct world *w, unsigned cpu, uint8_t vector)
{
	struct apic_message m = {.destination = cpu, .vector = vector};
	assert_true(apic_hub_send(&w->hub, &m));
}

static void send_ipi(struct world *w, unsigned from, uint32_t destination, uint32_t command)
{
	apic_write(w, from, ICR_HIGH, destination << 24);
	apic_write(w, from, ICR, command);
}

/* ---- power-on and modes ---- */

static void test_power_on(void **state)
{
	struct world *w = *state;
	uint64_t base;
	for (unsigned i = 0; i < WORLD_VCPUS; i++) {
		device_reset(&w->lapics[i].device);
		assert_true(msr_get(w, i, MSR_APIC_BASE, &base));
		assert_int_equal(base, i ? 0xfee00800 : 0xfee00900);
		assert_int_equal(apic_read(w, i, 0x20), i << 24);
		assert_int_equal(apic_read(w, i, 0x30), 0x50014);
		assert_int_equal(apic_read(w, i, 0xf0), 0xff);
		assert_int_equal(apic_read(w, i, 0xe0), 0xffffffff);
		for (unsigned lvt = 0x320; lvt <= 0x370; lvt += 16)
			assert_int_equal(apic_read(w, i, lvt), MASKED);
	}
	/* Software-disabled: masks cannot be cleared, fixed interrupts are not taken. */
	apic_write(w, 0, LVT_LINT0_OFFSET, 0x700);
	assert_int_equal(apic_read(w, 0, LVT_LINT0_OFFSET), MASKED | 0x700);
	struct apic_message m = {.vector = 0x40};
	assert_false(apic_hub_send(&w->hub, &m));
}

static void test_base_msr(void **state)
{
	struct world *w = *state;
	static const struct {
		uint64_t value;
		bool is_legal;
	} steps[] = {
		{0xfee00801, false}, /* reserved */
		{0xfee00a00, false}, /* reserved */
		{1ull << 60, false}, /* beyond any address */
		{0xfee00500, false}, /* x2APIC without "enabled" */
		{0xfee00d00, true},  /* to x2APIC */
		{0xfee00900, false}, /* x2APIC to xAPIC */
		{0xfee00100, true},  /* off */
		{0xfee00d00, false}, /* off to x2APIC */
		{0xfee00900, true},  /* off to xAPIC */
	};
	for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
		uint64_t before, after;
		msr_get(w, 0, MSR_APIC_BASE, &before);
		assert_int_equal(msr_set(w, 0, MSR_APIC_BASE, steps[i].value), steps[i].is_legal);
		msr_get(w, 0, MSR_APIC_BASE, &after);
		assert_int_equal(after, steps[i].is_legal ? steps[i].value : before);
	}
	assert_int_equal(apic_read(w, 0, 0xf0), 0xff); /* switching off has reset it */
}

static void test_globally_disabled(void **state)
{
	struct world *w = *state;
	pic_program(w, 0x30, 1);
	pic_set_irq(&w->pic, 0, true);
	assert_int_equal(pending(w, 0), -1); /* LINT0 is masked */
	assert_true(msr_set(w, 0, MSR_APIC_BASE, 0xfee00100));
	assert_int_equal(pending(w, 0), 0x30); /* and is INTR itself now */
	assert_int_equal(apic_read(w, 0, 0x20), 0xffffffff);
	struct apic_message m = {.vector = 0x40};
	assert_false(apic_hub_send(&w->hub, &m));
	lapic_set_lint(&w->lapics[0], 1, true);
	assert_true(has_request(w, 0, REQUEST_NMI));
	assert_int_equal(acknowledge(w, 0), 0x30);
}

static void test_x2apic_registers(void **state)
{
	struct world *w = *state;
	uint64_t value;
	assert_false(msr_get(w, 2, 0x802, &value)); /* not in x2APIC mode */
	enter_x2apic(w, 2);
	assert_int_equal(apic_read(w, 2, 0x20), 0xffffffff);
	assert_true(msr_get(w, 2, 0x802, &value));
	assert_int_equal(value, 2);
	assert_true(msr_get(w, 2, 0x80d, &value));
	assert_int_equal(value, 4);
	static const uint32_t unreadable[] = {0x80b, 0x80e, 0x831, 0x83f, 0x800, 0x83a, 0x8ff};
	for (size_t i = 0; i < ARRAY_COUNT(unreadable); i++)
		assert_false(msr_get(w, 2, unreadable[i], &value));
	static const uint32_t unwritable[] = {0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810,
					      0x820, 0x831, 0x839, 0x800, 0x8ff};
	for (size_t i = 0; i < ARRAY_COUNT(unwritable); i++)
		assert_false(msr_set(w, 2, unwritable[i], 0));
	assert_false(msr_set(w, 2, 0x80b, 1));
	assert_false(msr_set(w, 2, 0x828, 1));
	assert_false(msr_set(w, 2, 0x808, 0x100));
	assert_false(msr_set(w, 2, 0x838, 1ull << 32));
	assert_false(msr_set(w, 2, 0x83e, 4));
	assert_false(msr_set(w, 2, 0x832, 0x80000));
	assert_true(msr_set(w, 2, 0x83f, 0x55));
	assert_int_equal(acknowledge(w, 2), 0x55);
	assert_true(msr_set(w, 2, 0x80b, 0));
}

/* ---- priorities ---- */

static void test_priorities(void **state)
{
	struct world *w = *state;
	send_fixed(w, 0, 0x41);
	send_fixed(w, 0, 0x52);
	assert_int_equal(acknowledge(w, 0), 0x52);
	assert_int_equal(pending(w, 0), -1);
	send_fixed(w, 0, 0x5f); /* same class: waits */
	assert_int_equal(pending(w, 0), -1);
	assert_int_equal(apic_read(w, 0, 0xa0), 0x50);
	send_fixed(w, 0, 0x60);
	assert_int_equal(acknowledge(w, 0), 0x60);
	end_interrupt(w, 0);
	assert_int_equal(pending(w, 0), -1);
	end_interrupt(w, 0);
	assert_int_equal(acknowledge(w, 0), 0x5f);
	end_interrupt(w, 0);
	assert_int_equal(acknowledge(w, 0), 0x41);
	end_interrupt(w, 0);
	end_interrupt(w, 0); /* of nothing */
	assert_int_equal(apic_read(w, 0, 0xa0), 0);
}

static void test_tpr(void **state)
{
	struct world *w = *state;
	const struct apic_ops *ops = w->vcpus[0].apic_ops;
	ops->set_tpr(w->vcpus[0].apic, 0x40);
	send_fixed(w, 0, 0x4f);
	assert_int_equal(pending(w, 0), -1);
	assert_int_equal(apic_read(w, 0, 0x80), 0x40);
	ops->set_tpr(w->vcpus[0].apic, 0x30);
	assert_int_equal(pending(w, 0), 0x4f);
	apic_write(w, 0, 0x80, 0xf5);
	assert_int_equal(ops->get_tpr(w->vcpus[0].apic), 0xf5);
	assert_int_equal(pending(w, 0), -1);
	assert_int_equal(apic_read(w, 0, 0xa0), 0xf5);
	assert_int_equal(acknowledge(w, 0), -1);
}

static void test_vector_registers(void **state)
{
	struct world *w = *state;
	struct apic_message m = {.vector = 0xef, .is_level = true};
	apic_hub_send(&w->hub, &m);
	assert_int_equal(apic_read(w, 0, 0x270), 1u << 15);
	assert_int_equal(apic_read(w, 0, 0x1f0), 1u << 15);
	acknowledge(w, 0);
	assert_int_equal(apic_read(w, 0, 0x270), 0);
	assert_int_equal(apic_read(w, 0, 0x170), 1u << 15);
	m.is_level = false;
	apic_hub_send(&w->hub, &m);
	assert_int_equal(apic_read(w, 0, 0x1f0), 0);
}

static void test_access_widths(void **state)
{
	struct world *w = *state;
	uint64_t at = PLATFORM_LAPIC_BASE + 0x30;
	assert_int_equal(bus_mmio_read(&w->bus, 0, gpa(at + 2), 1, NULL), 0x05);
	assert_int_equal(bus_mmio_read(&w->bus, 0, gpa(at + 2), 2, NULL), 0x0005);
	assert_int_equal(bus_mmio_read(&w->bus, 0, gpa(at + 4), 4, NULL), 0);
	assert_int_equal(bus_mmio_read(&w->bus, 99, gpa(at), 4, NULL), 0xffffffff);
	bus_mmio_write(&w->bus, 0, gpa(PLATFORM_LAPIC_BASE + 0x80), 1, 0x50);
	assert_int_equal(apic_read(w, 0, 0x80), 0);
}

/* ---- errors ---- */

static void test_errors(void **state)
{
	struct world *w = *state;
	apic_write(w, 0, LVT_ERROR_OFFSET, 0xfe);
	send_ipi(w, 0, 1, 0x0f); /* illegal vector */
	assert_int_equal(pending(w, 1), -1);
	assert_int_equal(acknowledge(w, 0), 0xfe);
	assert_int_equal(apic_read(w, 0, 0x280), 0);
	apic_write(w, 0, 0x280, 0);
	assert_int_equal(apic_read(w, 0, 0x280), 0x20);
	apic_write(w, 0, 0x280, 0);
	assert_int_equal(apic_read(w, 0, 0x280), 0);
	end_interrupt(w, 0);
	apic_read(w, 0, 0x40); /* no such register */
	assert_int_equal(acknowledge(w, 0), 0xfe);
	/* An error interrupt that is itself illegal does not go round. */
	apic_write(w, 1, LVT_ERROR_OFFSET, 0x03);
	struct apic_message m = {.destination = 1, .vector = 2};
	assert_false(apic_hub_send(&w->hub, &m));
	apic_write(w, 1, 0x280, 0);
	assert_int_equal(apic_read(w, 1, 0x280), 0x40);
}

/* ---- messages ---- */

static unsigned who_has(struct world *w, int vector)
{
	unsigned set = 0;
	for (unsigned i = 0; i < WORLD_VCPUS; i++)
		if (pending(w, i) == vector) {
			set |= 1u << i;
			acknowledge(w, i);
			w->lapics[i].state.isr[vector >> 5] = 0;
			lapic_set_lint(&w->lapics[i], 1, false);
		}
	return set;
}

static void test_shorthands(void **state)
{
	struct world *w = *state;
	send_ipi(w, 1, 2, 0x70);
	assert_int_equal(who_has(w, 0x70), 4);
	send_ipi(w, 1, 0, 0x40071);
	assert_int_equal(who_has(w, 0x71), 2);
	send_ipi(w, 1, 0, 0x80072);
	assert_int_equal(who_has(w, 0x72), 7);
	send_ipi(w, 1, 0, 0xc0073);
	assert_int_equal(who_has(w, 0x73), 5);
	send_ipi(w, 1, 0xff, 0x74);
	assert_int_equal(who_has(w, 0x74), 7);
	send_ipi(w, 1, 9, 0x75);
	assert_int_equal(who_has(w, 0x75), 0);
	assert_int_equal(apic_read(w, 1, ICR) & 0x1000, 0);
	send_ipi(w, 0, 0, 0xc0400);
	assert_false(has_request(w, 0, REQUEST_NMI));
	assert_true(has_request(w, 1, REQUEST_NMI));
	assert_true(has_request(w, 2, REQUEST_NMI));
}

static void test_logical_flat_and_cluster(void **state)
{
	struct world *w = *state;
	for (unsigned i = 0; i < WORLD_VCPUS; i++)
		apic_write(w, i, 0xd0, 1u << (24 + i));
	send_ipi(w, 0, 0x05, 0x870);
	assert_int_equal(who_has(w, 0x70), 5);
	send_ipi(w, 0, 0xff, 0x871);
	assert_int_equal(who_has(w, 0x71), 7);
	for (unsigned i = 0; i < WORLD_VCPUS; i++) {
		apic_write(w, i, 0xe0, 0x0fffffff);
		apic_write(w, i, 0xd0, (i == 2 ? 0x21u : 0x11u << i) << 24);
	}
	apic_write(w, 1, 0xd0, 0x12u << 24);
	send_ipi(w, 0, 0x13, 0x872);
	assert_int_equal(who_has(w, 0x72), 3);
	send_ipi(w, 0, 0x21, 0x873);
	assert_int_equal(who_has(w, 0x73), 4);
	send_ipi(w, 0, 0xf1, 0x874);
	assert_int_equal(who_has(w, 0x74), 5);
}

static void test_x2apic_messages(void **state)
{
	struct world *w = *state;
	for (unsigned i = 0; i < WORLD_VCPUS; i++)
		enter_x2apic(w, i);
	assert_true(msr_set(w, 0, 0x830, 2ull << 32 | 0x70));
	assert_int_equal(who_has(w, 0x70), 4);
	assert_true(msr_set(w, 0, 0x830, 0x6ull << 32 | 0x871));
	assert_int_equal(who_has(w, 0x71), 6);
	assert_true(msr_set(w, 0, 0x830, 0xffffffffull << 32 | 0x72));
	assert_int_equal(who_has(w, 0x72), 7);
	assert_true(msr_set(w, 0, 0x830, 0xffull << 32 | 0x73)); /* no broadcast here */
	assert_int_equal(who_has(w, 0x73), 0);
	assert_true(msr_set(w, 0, 0x830, 0x10001ull << 32 | 0x874)); /* another cluster */
	assert_int_equal(who_has(w, 0x74), 0);
	assert_false(msr_set(w, 0, 0x830, 0x100000));
	uint64_t value;
	assert_true(msr_get(w, 0, 0x830, &value));
	assert_int_equal(value, 0x10001ull << 32 | 0x874);
}

static void test_msi(void **state)
{
	struct world *w = *state;
	bus_msi_send(&w->bus, 0xfee01000, 0x70);
	assert_int_equal(who_has(w, 0x70), 2);
	bus_msi_send(&w->bus, 0xfeeff000, 0x71);
	assert_int_equal(who_has(w, 0x71), 7);
	bus_msi_send(&w->bus, 0xfed01000, 0x72);
	bus_msi_send(&w->bus, 0x1fee01000ull, 0x72);
	assert_int_equal(who_has(w, 0x72), 0);
	bus_msi_send(&w->bus, 0xfee02000, 0x400);
	assert_true(has_request(w, 2, REQUEST_NMI));
	apic_write(w, 0, 0x80, 0x20);
	apic_write(w, 2, 0x80, 0x20);
	bus_msi_send(&w->bus, 0xfeeff008, 0x173);
	assert_int_equal(who_has(w, 0x73), 2);
}

static void take_init(struct vcpu *v)
{
	assert_true(atomic_load(&v->requests) & REQUEST_INIT);
	vcpu_withdraw(v, REQUEST_INIT);
	vcpu_init_signal(v);
}

static void take_sipi(struct vcpu *v)
{
	assert_true(atomic_load(&v->requests) & REQUEST_SIPI);
	vcpu_withdraw(v, REQUEST_SIPI);
	vcpu_sipi(v, v->state.sipi_vector);
}

static void test_init_and_startup(void **state)
{
	struct world *w = *state;
	struct vcpu *v = &w->vcpus[1];
	send_fixed(w, 1, 0x40);
	send_ipi(w, 0, 1, 0xc500);
	take_init(v);
	assert_int_equal(pending(w, 1), -1);
	assert_int_equal(apic_read(w, 1, 0xf0), 0xff);
	send_ipi(w, 0, 1, 0x8500); /* de-assert: nothing */
	assert_false(has_request(w, 1, REQUEST_INIT));
	send_ipi(w, 0, 1, 0x699);
	take_sipi(v);
	assert_int_equal(v->state.activity, ACTIVITY_RUNNING);
	assert_int_equal(v->state.seg[SEG_CS].base, 0x99000);
	send_ipi(w, 0, 1, 0x612); /* the second one comes too late */
	assert_false(has_request(w, 1, REQUEST_SIPI));
}

/* A sender that does not wait between the two: both arrive before the receiver runs. */
static void test_init_and_startup_at_once(void **state)
{
	struct world *w = *state;
	struct vcpu *v = &w->vcpus[1];
	v->state.activity = ACTIVITY_RUNNING;
	send_ipi(w, 0, 1, 0xc500);
	send_ipi(w, 0, 1, 0x8500);
	send_ipi(w, 0, 1, 0x699);
	take_init(v);
	take_sipi(v);
	assert_int_equal(v->state.activity, ACTIVITY_RUNNING);
	assert_int_equal(v->state.seg[SEG_CS].base, 0x99000);
}

/* ---- pins ---- */

static void test_lints(void **state)
{
	struct world *w = *state;
	apic_write(w, 1, LVT_LINT1_OFFSET, 0x400);
	lapic_set_lint(&w->lapics[1], 1, true);
	assert_true(has_request(w, 1, REQUEST_NMI));
	apic_write(w, 2, LVT_LINT1_OFFSET, 0x45);
	lapic_set_lint(&w->lapics[2], 1, true);
	assert_int_equal(acknowledge(w, 2), 0x45);
	lapic_set_lint(&w->lapics[2], 1, true);
	assert_int_equal(pending(w, 2), -1);
	lapic_set_lint(&w->lapics[2], 2, true);
	lapic_set_lint(&w->lapics[2], ~0u, true);
	/* Fixed, level: again after each end while it is high. */
	lapic_set_lint(&w->lapics[0], 0, true);
	apic_write(w, 0, LVT_LINT0_OFFSET, 0x8046);
	assert_int_equal(acknowledge(w, 0), 0x46);
	assert_int_equal(apic_read(w, 0, LVT_LINT0_OFFSET) & 0x4000, 0x4000);
	end_interrupt(w, 0);
	assert_int_equal(acknowledge(w, 0), 0x46);
	lapic_set_lint(&w->lapics[0], 0, false);
	end_interrupt(w, 0);
	assert_int_equal(pending(w, 0), -1);
}

static void test_extint_comes_first_and_needs_no_eoi(void **state)
{
	struct world *w = *state;
	lapic_set_virtual_wire(&w->lapics[0]);
	pic_program(w, 0x30, 1);
	w->vcpus[0].apic_ops->set_tpr(w->vcpus[0].apic, 0xf0);
	pic_set_irq(&w->pic, 1, true);
	assert_int_equal(acknowledge(w, 0), 0x31);
	assert_int_equal(apic_read(w, 0, 0x110), 0);
	apic_write(w, 0, LVT_LINT0_OFFSET, 0x10700);
	out8(w, 0x20, 0x20);
	pic_set_irq(&w->pic, 0, true);
	assert_int_equal(pending(w, 0), -1);
}

/* ---- the timer ---- */

static void test_one_shot(void **state)
{
	struct world *w = *state;
	apic_write(w, 0, DIVIDE, DIVIDE_BY_1);
	apic_write(w, 0, LVT_TIMER_OFFSET, 0x40);
	apic_write(w, 0, INITIAL, 100);
	assert_int_equal(clock_next_deadline(&w->clock), 1000 + 100 * CYCLES_PER_TICK);
	advance_to(w, 1000 + 40 * CYCLES_PER_TICK);
	assert_int_equal(apic_read(w, 0, CURRENT), 60);
	advance_to(w, 1399);
	assert_int_equal(apic_read(w, 0, CURRENT), 1);
	assert_int_equal(pending(w, 0), -1);
	advance_to(w, 1400);
	assert_int_equal(apic_read(w, 0, CURRENT), 0);
	assert_int_equal(acknowledge(w, 0), 0x40);
	assert_int_equal(clock_next_deadline(&w->clock), CLOCK_NEVER);
	apic_write(w, 0, INITIAL, 5);
	apic_write(w, 0, INITIAL, 0);
	assert_int_equal(clock_next_deadline(&w->clock), CLOCK_NEVER);
}

static void test_divide(void **state)
{
	struct world *w = *state;
	static const uint32_t codes[] = {0xb, 0, 1, 2, 3, 8, 9, 0xa};
	for (unsigned i = 0; i < ARRAY_COUNT(codes); i++) {
		apic_write(w, 0, DIVIDE, codes[i]);
		apic_write(w, 0, LVT_TIMER_OFFSET, 0x40);
		apic_write(w, 0, INITIAL, 3);
		assert_int_equal(clock_next_deadline(&w->clock),
				 1000 + (3u << i) * CYCLES_PER_TICK);
	}
	/* Changing it while it counts keeps the count. */
	apic_write(w, 0, DIVIDE, DIVIDE_BY_1);
	apic_write(w, 0, INITIAL, 100);
	advance_to(w, 1000 + 30 * CYCLES_PER_TICK);
	apic_write(w, 0, DIVIDE, 0);
	assert_int_equal(apic_read(w, 0, CURRENT), 70);
	assert_int_equal(clock_next_deadline(&w->clock), 1000 + (30 + 140) * CYCLES_PER_TICK);
}

static void test_periodic(void **state)
{
	struct world *w = *state;
	apic_write(w, 0, DIVIDE, DIVIDE_BY_1);
	apic_write(w, 0, LVT_TIMER_OFFSET, PERIODIC | 0x40);
	apic_write(w, 0, INITIAL, 10);
	for (unsigned n = 1; n < 50; n++) {
		assert_int_equal(clock_next_deadline(&w->clock), 1000 + n * 40);
		advance_to(w, 1000 + n * 40);
		assert_int_equal(acknowledge(w, 0), 0x40);
		end_interrupt(w, 0);
		assert_int_equal(apic_read(w, 0, CURRENT), 10);
	}
	advance_to(w, 1000 + 500 * 40 + 20); /* late by many: one interrupt, and in step again */
	assert_int_equal(acknowledge(w, 0), 0x40);
	assert_int_equal(clock_next_deadline(&w->clock), 1000 + 501 * 40);
	assert_int_equal(apic_read(w, 0, CURRENT), 5);
	apic_write(w, 0, LVT_TIMER_OFFSET, PERIODIC | MASKED | 0x40);
	assert_int_equal(clock_next_deadline(&w->clock), CLOCK_NEVER);
	apic_write(w, 0, LVT_TIMER_OFFSET, PERIODIC | 0x40);
	assert_int_equal(clock_next_deadline(&w->clock), 1000 + 501 * 40);
}

static void test_tsc_deadline(void **state)
{
	struct world *w = *state;
	uint64_t value, tsc = vcpu_tsc(&w->vcpus[0]);
	assert_true(msr_set(w, 0, MSR_TSC_DEADLINE, tsc + 100)); /* not the mode: ignored */
	assert_true(msr_get(w, 0, MSR_TSC_DEADLINE, &value));
	assert_int_equal(value, 0);
	apic_write(w, 0, LVT_TIMER_OFFSET, DEADLINE | 0x40);
	apic_write(w, 0, INITIAL, 5);
	assert_int_equal(clock_next_deadline(&w->clock), CLOCK_NEVER);
	assert_true(msr_set(w, 0, MSR_TSC_DEADLINE, tsc + 100));
	assert_int_equal(clock_next_deadline(&w->clock), 1100);
	advance_to(w, 1099);
	assert_int_equal(pending(w, 0), -1);
	advance_to(w, 1100);
	assert_int_equal(acknowledge(w, 0), 0x40);
	end_interrupt(w, 0);
	assert_true(msr_get(w, 0, MSR_TSC_DEADLINE, &value));
	assert_int_equal(value, 0);
	assert_true(msr_set(w, 0, MSR_TSC_DEADLINE, 1)); /* past: at once */
	advance_to(w, 1100);
	assert_int_equal(acknowledge(w, 0), 0x40);
	assert_true(msr_set(w, 0, MSR_TSC_DEADLINE, UINT64_MAX));
	assert_true(msr_set(w, 0, MSR_TSC_DEADLINE, 0));
	assert_int_equal(clock_next_deadline(&w->clock), CLOCK_NEVER);
	assert_true(msr_set(w, 0, MSR_TSC_DEADLINE, tsc + 900));
	apic_write(w, 0, LVT_TIMER_OFFSET, 0x40); /* another mode disarms */
	assert_int_equal(clock_next_deadline(&w->clock), CLOCK_NEVER);
}

static void test_tsc_moves_the_deadline(void **state)
{
	struct world *w = *state;
	apic_write(w, 0, LVT_TIMER_OFFSET, DEADLINE | 0x40);
	assert_true(msr_set(w, 0, MSR_TSC_DEADLINE, vcpu_tsc(&w->vcpus[0]) + 1000));
	w->vcpus[0].state.tsc_offset += 400;
	lapic_tsc_changed(&w->lapics[0]);
	assert_int_equal(clock_next_deadline(&w->clock), 1600);
	w->vcpus[0].state.tsc_offset -= 400; /* set back, and nobody says so */
	advance_to(w, 1600);
	assert_int_equal(pending(w, 0), -1);
	assert_int_equal(clock_next_deadline(&w->clock), 2000);
}

/* ---- saving, hostility ---- */

static void test_save(void **state)
{
	struct world *w = *state;
	send_fixed(w, 0, 0x41);
	apic_write(w, 0, DIVIDE, DIVIDE_BY_1);
	apic_write(w, 0, LVT_TIMER_OFFSET, PERIODIC | 0x52);
	apic_write(w, 0, INITIAL, 10);
	advance_to(w, 1012);
	check_save_load_save(&w->lapics[0].device);
	assert_int_equal(pending(w, 0), 0x41);
	assert_int_equal(clock_next_deadline(&w->clock), 1040);
	assert_int_equal(apic_read(w, 0, CURRENT), 7);
}

static void test_load_refuses_damage(void **state)
{
	struct world *w = *state;
	struct lapic_state *s = &w->lapics[1].state;
	s->id = 0;
	assert_int_equal(load_own_state(&w->lapics[1].device), -EINVAL);
	s->tpr = 0x100;
	assert_int_equal(load_own_state(&w->lapics[1].device), -EINVAL);
	/* A period of nothing would divide by zero. */
	s->lvt[0] = PERIODIC | 0x40;
	s->is_timer_running = 1;
	s->timer_initial = s->timer_first = 0;
	assert_int_equal(load_own_state(&w->lapics[1].device), -EINVAL);
	assert_int_equal(s->is_timer_running, 0);
}

static void hostile_step(struct world *w, uint64_t *seed)
{
	uint64_t r = next_random(seed), value = next_random(seed);
	unsigned cpu = (r >> 8) % WORLD_VCPUS;
	gpa_t at = gpa(PLATFORM_LAPIC_BASE + ((r >> 16) & 0xff0) + (r & 0x80 ? (r >> 32) % 16 : 0));
	switch (r % 8) {
	case 0: bus_mmio_read(&w->bus, cpu, at, 1u << (r >> 40) % 4, NULL); break;
	case 1: bus_mmio_write(&w->bus, cpu, at, 1u << (r >> 40) % 4, value); break;
	case 2: msr_set(w, cpu, 0x800 + ((r >> 16) & 0x3f), value & 0xff0007ffffull); break;
	case 3: msr_get(w, cpu, 0x800 + ((r >> 16) & 0xff), &value); break;
	case 4: acknowledge(w, cpu); break;
	case 5: advance_to(w, w->clock.now_cycles + value % 1000); break;
	case 6:
		bus_msi_send(&w->bus, 0xfee00000 | (value & 0xffffc), (uint32_t)(value >> 32));
		break;
	default:
		if ((r >> 40) % 32 == 0)
			msr_set(w, cpu, MSR_APIC_BASE,
				(PLATFORM_LAPIC_BASE | (cpu ? 0 : BIT(8))) + (value & 0xc00));
		else
			msr_set(w, cpu, MSR_TSC_DEADLINE, vcpu_tsc(&w->vcpus[cpu]) + value % 500);
		break;
	}
	pending(w, cpu);
}

static void test_hostile_guest(void **state)
{
	struct world *w = *state;
	uint64_t seed = 3;
	for (unsigned i = 0; i < 100000; i++)
		hostile_step(w, &seed);
	for (unsigned i = 0; i < WORLD_VCPUS; i++)
		check_save_load_save(&w->lapics[i].device);
}

static void test_too_many(void **state)
{
	struct world *w = *state;
	struct lapic spare;
	struct error e = {0};
	struct lapic_config config = {.index = 7, .timer_hz = WORLD_TIMER_HZ};
	memset(&spare, 0, sizeof(spare));
	assert_true(lapic_init(&spare, &w->hub, &w->vcpus[0], &config, &e) < 0);
	device_fini(&spare.device);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_power_on),
		TEST(test_base_msr),
		TEST(test_globally_disabled),
		TEST(test_x2apic_registers),
		TEST(test_priorities),
		TEST(test_tpr),
		TEST(test_vector_registers),
		TEST(test_access_widths),
		TEST(test_errors),
		TEST(test_shorthands),
		TEST(test_logical_flat_and_cluster),
		TEST(test_x2apic_messages),
		TEST(test_msi),
		TEST(test_init_and_startup),
		TEST(test_init_and_startup_at_once),
		TEST(test_lints),
		TEST(test_extint_comes_first_and_needs_no_eoi),
		TEST(test_one_shot),
		TEST(test_divide),
		TEST(test_periodic),
		TEST(test_tsc_deadline),
		TEST(test_tsc_moves_the_deadline),
		TEST(test_save),
		TEST(test_load_refuses_damage),
		TEST(test_hostile_guest),
		TEST(test_too_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
