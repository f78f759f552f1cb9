/* The two 8259As: priorities, cascade, ends, polls, levels, spurious vectors. */
#include "apic_world.h"

#define BASE 0x30

static int setup(void **state)
{
	static struct world w;
	world_init(&w);
	pic_program(&w, BASE, 1);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	world_fini(*state);
	return 0;
}

static void pulse(struct world *w, unsigned irq)
{
	pic_set_irq(&w->pic, irq, true);
	pic_set_irq(&w->pic, irq, false);
}

static bool intr(struct world *w)
{
	assert_int_equal(w->lapics[0].state.lint_level[0], pic_pending(&w->pic) >= 0);
	return pic_pending(&w->pic) >= 0;
}

static void test_silent_before_initialisation(void **state)
{
	struct world *w = *state;
	device_reset(&w->pic.device);
	pic_set_irq(&w->pic, 0, true);
	assert_false(intr(w));
	out8(w, 0x20, 0x11);
	out8(w, 0x21, BASE);
	assert_false(intr(w));
}

static void test_priority_and_nesting(void **state)
{
	struct world *w = *state;
	pulse(w, 4);
	pulse(w, 1);
	assert_int_equal(pic_pending(&w->pic), BASE + 1);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 1);
	assert_false(intr(w)); /* 4 waits for 1 */
	pulse(w, 0);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 0);
	out8(w, 0x20, 0x0b);
	assert_int_equal(in8(w, 0x20), 0x03);
	out8(w, 0x20, 0x20); /* ends 0 */
	assert_int_equal(in8(w, 0x20), 0x02);
	assert_false(intr(w));
	out8(w, 0x20, 0x61); /* specific: 1 */
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 4);
}

static void test_mask(void **state)
{
	struct world *w = *state;
	out8(w, 0x21, 0x10);
	pulse(w, 4);
	assert_false(intr(w));
	assert_int_equal(in8(w, 0x21), 0x10);
	out8(w, 0x20, 0x0a);
	assert_int_equal(in8(w, 0x20), 0x10); /* IRR has it */
	out8(w, 0x21, 0);
	assert_true(intr(w));
}

static void test_cascade(void **state)
{
	struct world *w = *state;
	pulse(w, 12);
	assert_int_equal(pic_pending(&w->pic), BASE + 12);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 12);
	pulse(w, 8); /* higher on the slave, but the master's pin 2 is busy */
	assert_false(intr(w));
	pulse(w, 1); /* above the cascade */
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 1);
	out8(w, 0x20, 0x20);
	out8(w, 0xa0, 0x20);
	out8(w, 0x20, 0x20);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 8);
}

static void test_special_fully_nested(void **state)
{
	struct world *w = *state;
	pic_program(w, BASE, 0x11);
	pulse(w, 12);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 12);
	pulse(w, 8);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 8);
}

static void test_cascade_pin_cannot_be_driven(void **state)
{
	struct world *w = *state;
	pic_set_irq(&w->pic, 2, true);
	pic_set_irq(&w->pic, 16, true);
	pic_set_irq(&w->pic, ~0u, true);
	assert_false(intr(w));
}

static void test_level(void **state)
{
	struct world *w = *state;
	out8(w, 0x4d0, 0xff);
	out8(w, 0x4d1, 0xff);
	assert_int_equal(in8(w, 0x4d0), 0xf8);
	assert_int_equal(in8(w, 0x4d1), 0xde);
	assert_int_equal(bus_port_read(&w->bus, 0, 0x4d0, 2, NULL), 0xdef8);
	pic_set_irq(&w->pic, 5, true);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 5);
	out8(w, 0x20, 0x20);
	assert_true(intr(w)); /* still high */
	pic_set_irq(&w->pic, 5, false);
	assert_false(intr(w));
	pic_set_irq(&w->pic, 11, true);
	assert_int_equal(pic_pending(&w->pic), BASE + 11);
	pic_set_irq(&w->pic, 11, false);
	assert_false(intr(w));
}

static void test_edge_needs_a_new_edge(void **state)
{
	struct world *w = *state;
	pic_set_irq(&w->pic, 3, true);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 3);
	out8(w, 0x20, 0x20);
	pic_set_irq(&w->pic, 3, true);
	assert_false(intr(w));
	pic_set_irq(&w->pic, 3, false);
	pic_set_irq(&w->pic, 3, true);
	assert_true(intr(w));
}

static void test_spurious(void **state)
{
	struct world *w = *state;
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 7);
	out8(w, 0x20, 0x0b);
	assert_int_equal(in8(w, 0x20), 0); /* a spurious one is not in service */
}

static void test_auto_eoi_and_rotation(void **state)
{
	struct world *w = *state;
	pic_program(w, BASE, 3);
	out8(w, 0x20, 0x80); /* rotate on automatic EOI */
	pulse(w, 0);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 0);
	pulse(w, 0);
	pulse(w, 6);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 6); /* 0 is lowest now */
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 0);
	assert_false(intr(w));
}

static void test_set_priority_and_rotating_eoi(void **state)
{
	struct world *w = *state;
	out8(w, 0x20, 0xc3); /* 3 lowest: 4 highest */
	pulse(w, 0);
	pulse(w, 4);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 4);
	out8(w, 0x20, 0xa0); /* rotate: 4 lowest, 5 highest */
	pulse(w, 4);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 0);
	out8(w, 0x20, 0xe0); /* specific, rotate: 0 lowest */
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 4);
}

static void test_special_mask(void **state)
{
	struct world *w = *state;
	pulse(w, 1);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 1);
	pulse(w, 4);
	assert_false(intr(w));
	out8(w, 0x21, 0x02); /* the handler masks its own level */
	out8(w, 0x20, 0x68);
	assert_int_equal(pic_acknowledge(&w->pic), BASE + 4);
	out8(w, 0x20, 0x48);
}

static void test_poll(void **state)
{
	struct world *w = *state;
	out8(w, 0x20, 0x0c);
	assert_int_equal(in8(w, 0x20) & 0x80, 0);
	pulse(w, 3);
	out8(w, 0x20, 0x0c);
	assert_int_equal(in8(w, 0x20), 0x83);
	assert_false(intr(w));
	out8(w, 0x20, 0x0b);
	assert_int_equal(in8(w, 0x20), 0x08);
}

static void test_extint_reaches_the_core(void **state)
{
	struct world *w = *state;
	pulse(w, 0);
	assert_int_equal(pending(w, 0), -1);
	lapic_set_virtual_wire(&w->lapics[0]);
	assert_int_equal(pending(w, 0), BASE);
	assert_int_equal(pending(w, 1), -1);
	assert_int_equal(acknowledge(w, 0), BASE);
	assert_int_equal(pending(w, 0), -1);
}

static void test_hostile_ports(void **state)
{
	struct world *w = *state;
	static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
	uint64_t seed = 7;
	for (unsigned i = 0; i < 50000; i++) {
		uint64_t r = next_random(&seed);
		uint16_t port = ports[r % ARRAY_COUNT(ports)];
		unsigned size = 1u << (r >> 8) % 3;
		switch ((r >> 16) % 4) {
		case 0: bus_port_read(&w->bus, 0, port, size, NULL); break;
		case 1: bus_port_write(&w->bus, 0, port, size, r >> 24); break;
		case 2: pic_set_irq(&w->pic, (r >> 24) % 20, r >> 40 & 1); break;
		default: pic_acknowledge(&w->pic); break;
		}
		intr(w);
	}
	check_save_load_save(&w->pic.device);
}

static void test_save_refuses_damage(void **state)
{
	struct world *w = *state;
	pulse(w, 12);
	check_save_load_save(&w->pic.device);
	assert_int_equal(pic_pending(&w->pic), BASE + 12);
	w->pic.state.chip[1].lowest = 8;
	assert_int_equal(load_own_state(&w->pic.device), -EINVAL);
	assert_int_equal(pic_pending(&w->pic), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_silent_before_initialisation),
		TEST(test_priority_and_nesting),
		TEST(test_mask),
		TEST(test_cascade),
		TEST(test_special_fully_nested),
		TEST(test_cascade_pin_cannot_be_driven),
		TEST(test_level),
		TEST(test_edge_needs_a_new_edge),
		TEST(test_spurious),
		TEST(test_auto_eoi_and_rotation),
		TEST(test_set_priority_and_rotating_eoi),
		TEST(test_special_mask),
		TEST(test_poll),
		TEST(test_extint_reaches_the_core),
		TEST(test_hostile_ports),
		TEST(test_save_refuses_damage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
