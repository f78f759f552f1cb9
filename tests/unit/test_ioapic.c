/* The I/O APIC's pins and entries, and the router that feeds it and the PICs. */
#include "apic_world.h"

#define LEVEL 0x8000ull
#define MASKED 0x10000ull
#define REMOTE_IRR 0x4000u
#define TO_CPU(n) ((uint64_t)(n) << 56)

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

static uint32_t entry_low(struct world *w, unsigned pin)
{
	return ioapic_get(w, (uint8_t)(0x10 + 2 * pin));
}

static void test_registers(void **state)
{
	struct world *w = *state;
	assert_int_equal(ioapic_get(w, 1), 0x170020);
	assert_int_equal(entry_low(w, 0), MASKED);
	ioapic_put(w, 0, 0xffffffff);
	assert_int_equal(ioapic_get(w, 0), 0x0f000000);
	ioapic_program(w, 23, ~0ull);
	assert_int_equal(entry_low(w, 23), 0x1afff);
	assert_int_equal(ioapic_get(w, 0x3f), 0xff000000);
	ioapic_put(w, 0x40, ~0u);
	assert_int_equal(ioapic_get(w, 0x40), 0);
	assert_int_equal(ioapic_get(w, 0xff), 0);
}

static void test_edge(void **state)
{
	struct world *w = *state;
	ioapic_program(w, 4, 0x51 | TO_CPU(1));
	ioapic_set_pin(&w->ioapic, 4, true);
	assert_int_equal(pending(w, 0), -1);
	assert_int_equal(acknowledge(w, 1), 0x51);
	end_interrupt(w, 1);
	ioapic_set_pin(&w->ioapic, 4, true);
	assert_int_equal(pending(w, 1), -1);
	ioapic_set_pin(&w->ioapic, 4, false);
	ioapic_set_pin(&w->ioapic, 4, true);
	assert_int_equal(pending(w, 1), 0x51);
}

static void test_masked_edge_is_lost(void **state)
{
	struct world *w = *state;
	ioapic_program(w, 4, 0x51 | MASKED);
	ioapic_set_pin(&w->ioapic, 4, true);
	ioapic_set_pin(&w->ioapic, 4, false);
	ioapic_program(w, 4, 0x51);
	assert_int_equal(pending(w, 0), -1);
}

static void test_level(void **state)
{
	struct world *w = *state;
	ioapic_program(w, 16, 0x61 | LEVEL | MASKED);
	ioapic_set_pin(&w->ioapic, 16, true);
	assert_int_equal(pending(w, 0), -1);
	ioapic_program(w, 16, 0x61 | LEVEL);
	assert_int_equal(entry_low(w, 16) & REMOTE_IRR, REMOTE_IRR);
	assert_int_equal(acknowledge(w, 0), 0x61);
	assert_int_equal(pending(w, 0), -1);
	end_interrupt(w, 0); /* still high: again */
	assert_int_equal(acknowledge(w, 0), 0x61);
	ioapic_set_pin(&w->ioapic, 16, false);
	assert_int_equal(entry_low(w, 16) & REMOTE_IRR, REMOTE_IRR);
	end_interrupt(w, 0);
	assert_int_equal(entry_low(w, 16) & REMOTE_IRR, 0);
	assert_int_equal(pending(w, 0), -1);
}

static void test_eoi_register_and_edge_trick(void **state)
{
	struct world *w = *state;
	ioapic_program(w, 17, 0x62 | LEVEL);
	ioapic_set_pin(&w->ioapic, 17, true);
	ioapic_set_pin(&w->ioapic, 17, false);
	bus_mmio_write(&w->bus, 0, gpa(PLATFORM_IOAPIC_BASE + 0x40), 4, 0x61);
	assert_int_equal(entry_low(w, 17) & REMOTE_IRR, REMOTE_IRR);
	bus_mmio_write(&w->bus, 0, gpa(PLATFORM_IOAPIC_BASE + 0x40), 4, 0x62);
	assert_int_equal(entry_low(w, 17) & REMOTE_IRR, 0);
	ioapic_set_pin(&w->ioapic, 17, true);
	ioapic_set_pin(&w->ioapic, 17, false);
	ioapic_program(w, 17, 0x62 | MASKED);
	ioapic_program(w, 17, 0x62 | MASKED | LEVEL);
	assert_int_equal(entry_low(w, 17) & REMOTE_IRR, 0);
}

static void test_nobody_there(void **state)
{
	struct world *w = *state;
	ioapic_program(w, 18, 0x63 | LEVEL | TO_CPU(77));
	ioapic_set_pin(&w->ioapic, 18, true);
	assert_int_equal(entry_low(w, 18) & REMOTE_IRR, 0);
}

static void test_nmi_and_lowest(void **state)
{
	struct world *w = *state;
	ioapic_program(w, 3, 0x400 | TO_CPU(2));
	ioapic_set_pin(&w->ioapic, 3, true);
	assert_true(has_request(w, 2, REQUEST_NMI));
	assert_false(has_request(w, 0, REQUEST_NMI));
	apic_write(w, 0, 0x80, 0x20);
	apic_write(w, 1, 0x80, 0x10);
	apic_write(w, 2, 0x80, 0x30);
	ioapic_program(w, 5, 0x71 | 0x100 | TO_CPU(0xff));
	ioapic_set_pin(&w->ioapic, 5, true);
	assert_int_equal(pending(w, 0), -1);
	assert_int_equal(pending(w, 1), 0x71);
	assert_int_equal(pending(w, 2), -1);
}

static void test_pins_out_of_range(void **state)
{
	struct world *w = *state;
	ioapic_set_pin(&w->ioapic, 24, true);
	ioapic_set_pin(&w->ioapic, ~0u, true);
	assert_int_equal(w->ioapic.state.levels, 0);
}

static void test_router(void **state)
{
	struct world *w = *state;
	pic_program(w, 0x30, 1);
	struct irq_line a = irq_router_line(&w->router, 5, 0);
	struct irq_line b = irq_router_line(&w->router, 5, 3);
	irq_line_set(&a, true);
	irq_line_set(&b, true);
	irq_line_set(&a, false);
	assert_int_equal(w->ioapic.state.levels, 1u << 5);
	assert_int_equal(pic_pending(&w->pic), 0x35);
	irq_line_set(&b, false);
	assert_int_equal(w->ioapic.state.levels, 0);
	struct irq_line timer = irq_router_line(&w->router, 0, 0);
	irq_line_set(&timer, true);
	assert_int_equal(w->ioapic.state.levels, 1u << 2);
	assert_int_equal(pic_pending(&w->pic), 0x30);
	irq_line_set(&timer, false);
	struct irq_line pci = irq_router_line(&w->router, 20, 0);
	irq_line_set(&pci, true);
	assert_int_equal(w->ioapic.state.levels, 1u << 20);
	assert_null(irq_router_line(&w->router, 24, 0).set);
	assert_null(irq_router_line(&w->router, 0, IRQ_SOURCES_MAX).set);
	check_save_load_save(&w->router.device);
}

static void test_legacy_replacement(void **state)
{
	struct world *w = *state;
	struct irq_line pit = irq_router_line(&w->router, 0, 0);
	struct irq_line hpet = irq_router_line(&w->router, 0, 1);
	irq_line_set(&pit, true);
	irq_router_replace_legacy(&w->router, true);
	assert_int_equal(w->ioapic.state.levels, 0);
	irq_line_set(&hpet, true);
	assert_int_equal(w->ioapic.state.levels, 4);
	irq_line_set(&hpet, false);
	irq_router_replace_legacy(&w->router, false);
	assert_int_equal(w->ioapic.state.levels, 4);
}

static void test_hostile_registers(void **state)
{
	struct world *w = *state;
	uint64_t seed = 11;
	for (unsigned i = 0; i < 50000; i++) {
		uint64_t r = next_random(&seed);
		gpa_t at = gpa(PLATFORM_IOAPIC_BASE +
			       ((r >> 4) & 1 ? (r >> 8) % 0x60 : (r >> 8) % 2 * 0x10));
		unsigned size = 1u << (r >> 24) % 4;
		switch (r % 4) {
		case 0: bus_mmio_read(&w->bus, 0, at, size, NULL); break;
		case 1: bus_mmio_write(&w->bus, 0, at, size, next_random(&seed)); break;
		case 2: ioapic_set_pin(&w->ioapic, (r >> 32) % 26, r >> 40 & 1); break;
		default: end_interrupt(w, (r >> 32) % WORLD_VCPUS); break;
		}
	}
	check_save_load_save(&w->ioapic.device);
}

static void test_save(void **state)
{
	struct world *w = *state;
	ioapic_program(w, 16, 0x61 | LEVEL);
	ioapic_set_pin(&w->ioapic, 16, true);
	check_save_load_save(&w->ioapic.device);
	acknowledge(w, 0);
	end_interrupt(w, 0);
	assert_int_equal(pending(w, 0), 0x61);
	w->ioapic.state.redirection[3] = BIT(40);
	assert_int_equal(load_own_state(&w->ioapic.device), -EINVAL);
	assert_int_equal(entry_low(w, 3), MASKED);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_registers),
		TEST(test_edge),
		TEST(test_masked_edge_is_lost),
		TEST(test_level),
		TEST(test_eoi_register_and_edge_trick),
		TEST(test_nobody_there),
		TEST(test_nmi_and_lowest),
		TEST(test_pins_out_of_range),
		TEST(test_router),
		TEST(test_legacy_replacement),
		TEST(test_hostile_registers),
		TEST(test_save),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
