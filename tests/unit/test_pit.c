/* The 8254: each mode's output and count, latches, read-back, gates, interrupts without drift. */
#include "device_world.h"

#include "device/pit.h"

static struct device_world w;
static struct pit pit;

/* The first cycle at which so many PIT ticks have passed. */
static uint64_t at_tick(uint64_t tick)
{
	return clock_cycles_from_ticks(&w.clock, PLATFORM_PIT_HZ, tick);
}

static int set_up(void **state)
{
	world_init(&w);
	return pit_init(&pit, &w.clock, world_line(&w, 0), &w.bus, NULL);
}

static int tear_down(void **state)
{
	device_fini(&pit.device);
	return clock_next_deadline(&w.clock) == CLOCK_NEVER ? 0 : -1;
}

static void program(unsigned channel, unsigned mode, uint16_t count)
{
	out8(&w, 0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
	out8(&w, (uint16_t)(0x40 + channel), (uint8_t)count);
	out8(&w, (uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static uint16_t read_count(unsigned channel)
{
	uint16_t port = (uint16_t)(0x40 + channel), low = in8(&w, port);
	return (uint16_t)(low | in8(&w, port) << 8);
}

static uint16_t latch(unsigned channel)
{
	out8(&w, 0x43, (uint8_t)(channel << 6));
	return read_count(channel);
}

static uint8_t status_of(unsigned channel)
{
	out8(&w, 0x43, (uint8_t)(0xe0 | 2u << channel));
	return in8(&w, (uint16_t)(0x40 + channel));
}

/* A count written at tick 0 is loaded at tick 1. */
static void test_mode_0(void **state)
{
	program(0, 0, 1000);
	assert_false(w.level[0]);
	assert_int_equal(clock_next_deadline(&w.clock), at_tick(1001));
	world_run_to(&w, at_tick(1001) - 1);
	assert_int_equal(latch(0), 1);
	assert_int_equal(w.rises[0], 0);
	world_run_to(&w, at_tick(1001));
	assert_int_equal(w.rises[0], 1);
	assert_true(w.level[0]);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
	world_run_to(&w, at_tick(1003));
	assert_int_equal(latch(0), 0xfffe);
	out8(&w, 0x40, 5); /* the first byte stops it and takes the output down */
	assert_false(w.level[0]);
	world_run_to(&w, at_tick(5000));
	assert_int_equal(w.rises[0], 1);
	out8(&w, 0x40, 0);
	world_run_to(&w, at_tick(5006));
	assert_int_equal(w.rises[0], 2);
}

static void test_mode_2_never_drifts(void **state)
{
	program(0, 2, 1193);
	unsigned before = w.rises[0];
	world_run_to(&w, at_tick(1 + 1193ull * 100000) - 1);
	assert_int_equal(w.rises[0] - before, 99999);
	world_run(&w, 1);
	assert_int_equal(w.rises[0] - before, 100000);
	assert_int_equal(latch(0), 1193);
	world_run_to(&w, at_tick(1193ull * 100000 + 11));
	assert_int_equal(latch(0), 1183);
	world_run_to(&w, at_tick(1193ull * 100001));
	assert_int_equal(latch(0), 1);
	assert_int_equal(status_of(0) & 0xc0, 0); /* the last tick of a period is the low one */
}

/* Edges nobody could take are one edge. */
static void test_missed_periods_coalesce(void **state)
{
	program(0, 2, 1193);
	unsigned before = w.rises[0];
	clock_set(&w.clock, at_tick(1193 * 50 + 600));
	clock_run_due(&w.clock);
	assert_int_equal(w.rises[0], before + 1);
	assert_int_equal(clock_next_deadline(&w.clock), at_tick(1 + 1193 * 51));
}

static void test_new_count_waits_for_the_period(void **state)
{
	program(0, 2, 1000);
	unsigned before = w.rises[0];
	world_run_to(&w, at_tick(301));
	out8(&w, 0x40, 200);
	out8(&w, 0x40, 0);
	assert_int_equal(status_of(0) & 0x40, 0x40); /* null count */
	assert_int_equal(latch(0), 700);
	world_run_to(&w, at_tick(1001));
	assert_int_equal(w.rises[0], before + 1);
	assert_int_equal(status_of(0) & 0x40, 0);
	world_run_to(&w, at_tick(1201));
	assert_int_equal(w.rises[0], before + 2);
	assert_int_equal(latch(0), 200);
}

static void test_mode_3(void **state)
{
	program(0, 3, 10);
	world_run_to(&w, at_tick(1));
	assert_int_equal(latch(0), 10);
	assert_int_equal(status_of(0) & 0x80, 0x80);
	world_run_to(&w, at_tick(5));
	assert_int_equal(latch(0), 2);
	world_run_to(&w, at_tick(6));
	assert_int_equal(latch(0), 10);
	assert_int_equal(status_of(0) & 0x80, 0);
	unsigned before = w.rises[0];
	world_run_to(&w, at_tick(1 + 10 * 7));
	assert_int_equal(w.rises[0] - before, 7);
	program(0, 3, 5); /* odd: the high half is the longer one */
	uint64_t start = 1 + 10 * 7 + 1;
	world_run_to(&w, at_tick(start + 2));
	assert_int_equal(status_of(0) & 0x80, 0x80);
	world_run_to(&w, at_tick(start + 3));
	assert_int_equal(status_of(0) & 0x80, 0);
}

static void test_modes_4_and_gate(void **state)
{
	out8(&w, 0x61, 0);
	program(2, 4, 100);
	world_run_to(&w, at_tick(500));
	assert_int_equal(latch(2), 100); /* the gate is low */
	out8(&w, 0x61, 1);
	world_run_to(&w, at_tick(560));
	assert_int_equal(latch(2), 40);
	out8(&w, 0x61, 0);
	world_run_to(&w, at_tick(900));
	assert_int_equal(latch(2), 40);
	out8(&w, 0x61, 1);
	world_run_to(&w, at_tick(939));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0x20);
	world_run_to(&w, at_tick(940));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0);
	world_run_to(&w, at_tick(941));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0x20);
}

static void test_mode_1_is_triggered(void **state)
{
	program(2, 1, 50);
	world_run_to(&w, at_tick(1000));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0x20);
	out8(&w, 0x61, 1);
	world_run_to(&w, at_tick(1001));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0);
	world_run_to(&w, at_tick(1050));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0);
	world_run_to(&w, at_tick(1051));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0x20);
	out8(&w, 0x61, 0);
	out8(&w, 0x61, 1); /* again */
	world_run_to(&w, at_tick(1100));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0);
}

/* What Linux does to find the processor's speed: channel 2, mode 0, and port 0x61's bit 5. */
static void test_calibration(void **state)
{
	out8(&w, 0x61, 1);
	program(2, 0, 0xe90b); /* 50 ms */
	assert_int_equal(in8(&w, 0x61) & 0x20, 0);
	world_run_to(&w, at_tick(0xe90b));
	assert_int_equal(in8(&w, 0x61) & 0x20, 0);
	world_run_to(&w, at_tick(0xe90c));
	assert_int_equal(in8(&w, 0x61) & 0x21, 0x21);
	assert_true(w.clock.now_cycles / MS == 50);
}

static void test_bcd(void **state)
{
	out8(&w, 0x43, 0x35); /* channel 0, mode 2, BCD */
	out8(&w, 0x40, 0x34);
	out8(&w, 0x40, 0x12);
	world_run_to(&w, at_tick(1));
	assert_int_equal(latch(0), 0x1234);
	world_run_to(&w, at_tick(36));
	assert_int_equal(latch(0), 0x1199);
	out8(&w, 0x43, 0x31); /* digits that are none */
	out8(&w, 0x40, 0xff);
	out8(&w, 0x40, 0xff);
	world_run(&w, MS);
	latch(0);
	assert_saves_and_loads(&pit.device);
}

static void test_latches_hold(void **state)
{
	program(0, 2, 1000);
	world_run_to(&w, at_tick(101));
	out8(&w, 0x43, 0xc2); /* read-back: status and count of channel 0 */
	world_run_to(&w, at_tick(501));
	out8(&w, 0x43, 0xc2); /* does nothing before the first was read */
	assert_int_equal(in8(&w, 0x40), 0xb4);
	assert_int_equal(read_count(0), 900);
	assert_int_equal(read_count(0), 500);
	assert_int_equal(in8(&w, 0x43), 0xff);
}

static void test_single_byte_access(void **state)
{
	out8(&w, 0x43, 0x14); /* low byte only */
	out8(&w, 0x40, 200);
	world_run_to(&w, at_tick(11));
	assert_int_equal(in8(&w, 0x40), 190);
	out8(&w, 0x43, 0x24); /* high byte only */
	out8(&w, 0x40, 2);
	world_run_to(&w, at_tick(12));
	assert_int_equal(in8(&w, 0x40), 2);
}

static void test_refresh_toggles(void **state)
{
	uint8_t first = in8(&w, 0x61) & 0x10;
	world_run_to(&w, at_tick(18));
	assert_int_not_equal(in8(&w, 0x61) & 0x10, first);
	world_run_to(&w, at_tick(36));
	assert_int_equal(in8(&w, 0x61) & 0x10, first);
}

static void test_time_set_back(void **state)
{
	clock_set(&w.clock, at_tick(100));
	program(0, 2, 1000);
	clock_set(&w.clock, at_tick(50));
	assert_int_equal(latch(0), 1000);
}

static void test_save_and_load(void **state)
{
	program(0, 2, 1193);
	world_run_to(&w, at_tick(5000));
	uint64_t deadline = clock_next_deadline(&w.clock);
	assert_saves_and_loads(&pit.device);
	assert_int_equal(clock_next_deadline(&w.clock), deadline);
	device_reset(&pit.device);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
	assert_false(w.level[0]);
}

static void test_impossible_state_is_refused(void **state)
{
	struct state_writer *writer;
	struct state_reader *reader;
	struct error e = {0};
	size_t size;
	program(0, 2, 100);
	pit.state.channel[0].count = 0;
	assert_int_equal(state_buffer_create(&writer), 0);
	device_save(&pit.device, writer);
	const uint8_t *bytes = state_buffer_bytes(writer, &size);
	assert_int_equal(state_reader_create(&reader, bytes, size, &e), 0);
	assert_int_equal(device_load(&pit.device, reader, &e), -EINVAL);
	assert_non_null(strstr(e.text, "channel 0"));
	assert_int_equal(pit.state.channel[0].is_counting, 0);
	state_reader_destroy(reader);
	state_writer_destroy(writer);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_mode_0),
		TEST(test_mode_2_never_drifts),
		TEST(test_missed_periods_coalesce),
		TEST(test_new_count_waits_for_the_period),
		TEST(test_mode_3),
		TEST(test_modes_4_and_gate),
		TEST(test_mode_1_is_triggered),
		TEST(test_calibration),
		TEST(test_bcd),
		TEST(test_latches_hold),
		TEST(test_single_byte_access),
		TEST(test_refresh_toggles),
		TEST(test_time_set_back),
		TEST(test_save_and_load),
		TEST(test_impossible_state_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
