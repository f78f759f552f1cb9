/* The HPET: the counter, one-shot and periodic comparators of both widths, levels, messages. */
#include "device_world.h"

#include "device/hpet.h"

#define PIN 20
#define TICK 10 /* cycles: 100 MHz in a world of 1 GHz */
#define TIMER(n) (0x100u + 0x20u * (n))
#define ENABLED 0x4u
#define LEVEL 0x2u
#define PERIODIC 0x8u
#define SET_VALUE 0x40u
#define NARROW 0x100u
#define ROUTE ((uint64_t)PIN << 9)

enum { LINE_PIN, LINE_IRQ0, LINE_IRQ8 };

static struct device_world w;
static struct hpet hpet;
static bool is_replaced;
static uint64_t msi_address;
static uint32_t msi_data;

static void replace(void *opaque, bool replaced)
{
	is_replaced = replaced;
}

static void msi(void *opaque, uint64_t address, uint32_t data)
{
	msi_address = address;
	msi_data = data;
}

static int set_up(void **state)
{
	world_init(&w);
	w.bus.msi = (struct msi_sink){msi, NULL};
	is_replaced = false;
	struct hpet_wires wires = {
		.replace_legacy = replace,
		.route_mask = 1u << PIN,
		.has_fsb = true,
		.legacy = {world_line(&w, LINE_IRQ0), world_line(&w, LINE_IRQ8)}};
	wires.lines[PIN] = world_line(&w, LINE_PIN);
	return hpet_init(&hpet, &w.clock, &wires, &w.bus, NULL);
}

static int tear_down(void **state)
{
	device_fini(&hpet.device);
	return clock_next_deadline(&w.clock) == CLOCK_NEVER ? 0 : -1;
}

static uint64_t get(unsigned offset, unsigned size)
{
	return bus_mmio_read(&w.bus, 0, gpa(PLATFORM_HPET_BASE + offset), size, NULL);
}

static void set(unsigned offset, unsigned size, uint64_t value)
{
	bus_mmio_write(&w.bus, 0, gpa(PLATFORM_HPET_BASE + offset), size, value);
}

static void test_capabilities(void **state)
{
	assert_int_equal(get(0, 8), 10000000ull << 32 | 0x8086a201);
	assert_int_equal(get(4, 4), 10000000);
	set(0, 8, 0);
	assert_int_equal(get(0, 4), 0x8086a201);
	assert_int_equal(get(TIMER(0) + 4, 4), 1u << PIN);
	assert_int_equal(get(TIMER(7), 8), 0);
}

static void test_counter(void **state)
{
	world_run(&w, 1000);
	assert_int_equal(get(0xf0, 8), 0);
	set(0x10, 4, 1);
	world_run(&w, 12345);
	assert_int_equal(get(0xf0, 8), 1234);
	set(0x10, 4, 0);
	world_run(&w, 12345);
	assert_int_equal(get(0xf0, 8), 1234);
	set(0xf0, 8, 0xfffffff0);
	set(0x10, 4, 1);
	world_run(&w, 0x20 * TICK);
	assert_int_equal(get(0xf0, 8), 0x100000010);
	assert_int_equal(get(0xf4, 4), 1);
	assert_int_equal(get(0xf0, 2), 0x10);
}

static void test_one_shot(void **state)
{
	set(0x10, 4, 1);
	set(TIMER(1), 4, ENABLED | ROUTE);
	set(TIMER(1) + 8, 8, 500);
	assert_int_equal(clock_next_deadline(&w.clock), 500 * TICK);
	world_run_to(&w, 500 * TICK - 1);
	assert_int_equal(w.rises[LINE_PIN], 0);
	world_run(&w, 1);
	assert_int_equal(w.rises[LINE_PIN], 1);
	assert_int_equal(get(0x20, 4), 0); /* edges leave no status */
	world_run(&w, MS);
	assert_int_equal(w.rises[LINE_PIN], 1);
	set(TIMER(1) + 8, 8, 1000); /* too late: not before the counter comes round */
	world_run(&w, 1000 * MS);
	assert_int_equal(w.rises[LINE_PIN], 1);
}

/* The sequence of Linux: VAL_SET, the first match, then the period. */
static void test_periodic_never_drifts(void **state)
{
	set(0x10, 4, 3);
	assert_true(is_replaced);
	set(TIMER(0), 4, ENABLED | PERIODIC | SET_VALUE | NARROW);
	set(TIMER(0) + 8, 4, 100);
	set(TIMER(0) + 8, 4, 333);
	assert_int_equal(get(TIMER(0), 4) & SET_VALUE, 0);
	world_run_to(&w, (100 + 333 * 99999ull) * TICK - 1);
	assert_int_equal(w.rises[LINE_IRQ0], 99999);
	world_run(&w, 1);
	assert_int_equal(w.rises[LINE_IRQ0], 100000);
	clock_set(&w.clock, w.clock.now_cycles + 3330 * TICK); /* ten missed ones are one */
	clock_run_due(&w.clock);
	assert_int_equal(w.rises[LINE_IRQ0], 100001);
	set(0x10, 4, 1);
	assert_false(is_replaced);
}

static void test_narrow_wraps(void **state)
{
	set(0xf0, 8, 0xffffff00);
	set(TIMER(2), 4, ENABLED | NARROW | ROUTE);
	set(TIMER(2) + 8, 4, 0x10);
	set(0x10, 4, 1);
	assert_int_equal(clock_next_deadline(&w.clock), 0x110 * TICK);
	world_run(&w, 0x110 * TICK);
	assert_int_equal(w.rises[LINE_PIN], 1);
	world_run(&w, (1ull << 32) * TICK);
	assert_int_equal(w.rises[LINE_PIN], 2);
}

static void test_level(void **state)
{
	set(0x10, 4, 1);
	set(TIMER(0), 4, ENABLED | LEVEL | ROUTE);
	set(TIMER(0) + 8, 8, 100);
	world_run(&w, 200 * TICK);
	assert_true(w.level[LINE_PIN]);
	assert_int_equal(get(0x20, 4), 1);
	set(0x20, 4, 2);
	assert_true(w.level[LINE_PIN]);
	set(0x20, 4, 1);
	assert_false(w.level[LINE_PIN]);
	assert_int_equal(get(0x20, 4), 0);
}

static void test_disabled_timer_arms_nothing(void **state)
{
	set(TIMER(0) + 8, 8, 100);
	set(TIMER(0), 4, ENABLED | ROUTE);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER); /* the counter stands */
	set(0x10, 4, 1);
	assert_int_not_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
	set(TIMER(0), 4, ROUTE);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
}

static void test_message(void **state)
{
	set(TIMER(0) + 0x10, 8, 0xfee01000ull << 32 | 0x4031);
	set(TIMER(0), 4, ENABLED | 0x4000);
	set(TIMER(0) + 8, 8, 100);
	set(0x10, 4, 1);
	world_run(&w, 100 * TICK);
	assert_int_equal(msi_address, 0xfee01000);
	assert_int_equal(msi_data, 0x4031);
}

static void test_save_and_load(void **state)
{
	set(0x10, 4, 1);
	set(TIMER(0), 4, ENABLED | PERIODIC | SET_VALUE | ROUTE);
	set(TIMER(0) + 8, 8, 1000);
	world_run(&w, 2500 * TICK);
	uint64_t deadline = clock_next_deadline(&w.clock);
	assert_saves_and_loads(&hpet.device);
	assert_int_equal(clock_next_deadline(&w.clock), deadline);
	device_reset(&hpet.device);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
	assert_int_equal(get(0xf0, 8), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_capabilities),
		TEST(test_counter),
		TEST(test_one_shot),
		TEST(test_periodic_never_drifts),
		TEST(test_narrow_wraps),
		TEST(test_level),
		TEST(test_disabled_timer_arms_nothing),
		TEST(test_message),
		TEST(test_save_and_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
