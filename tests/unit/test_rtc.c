/* The RTC: the date in each of its encodings, setting it, its three interrupts, CMOS memory. */
#include "device_world.h"

#include "device/rtc.h"

#define SECOND WORLD_HZ

static struct device_world w;
static struct rtc rtc;

static int set_up(void **state)
{
	world_init(&w);
	w.clock.wall_start_s = 951868798; /* 2000-02-29 23:59:58, a Tuesday */
	return rtc_init(&rtc, &w.clock, world_line(&w, 0), 5ull << 30, 4, &w.bus, NULL);
}

static int tear_down(void **state)
{
	device_fini(&rtc.device);
	return clock_next_deadline(&w.clock) == CLOCK_NEVER ? 0 : -1;
}

static uint8_t get(uint8_t index)
{
	out8(&w, 0x70, index);
	return in8(&w, 0x71);
}

static void set(uint8_t index, uint8_t value)
{
	out8(&w, 0x70, index);
	out8(&w, 0x71, value);
}

static void assert_date(const char *text)
{
	char now[32];
	snprintf(now, sizeof(now), "%02x%02x-%02x-%02x %02x:%02x:%02x %x", get(0x32), get(9),
		 get(8), get(7), get(4), get(2), get(0), get(6));
	assert_string_equal(now, text);
}

static void test_date_goes_on(void **state)
{
	assert_date("2000-02-29 23:59:58 3");
	world_run(&w, 2 * SECOND - 1);
	assert_date("2000-02-29 23:59:59 3");
	world_run(&w, 1);
	assert_date("2000-03-01 00:00:00 4");
	world_run(&w, 86400 * SECOND * 365);
	assert_date("2001-03-01 00:00:00 5");
}

static void test_encodings(void **state)
{
	set(0x0b, 0x06);
	assert_int_equal(get(0), 58);
	assert_int_equal(get(4), 23);
	set(0x0b, 0x04);
	assert_int_equal(get(4), 0x80 | 11);
	set(0x0b, 0x00);
	assert_int_equal(get(4), 0x80 | 0x11);
	world_run(&w, 2 * SECOND);
	assert_int_equal(get(4), 0x12); /* midnight is 12 AM */
}

static void test_setting(void **state)
{
	set(0x0b, 0x82);
	world_run(&w, 10 * SECOND);
	assert_int_equal(get(0), 0x58); /* it stands */
	static const uint8_t date[][2] = {{0, 0x30}, {2, 0x15}, {4, 0x07}, {6, 1},
					  {7, 0x25}, {8, 0x12}, {9, 0x23}, {0x32, 0x20}};
	for (size_t i = 0; i < ARRAY_COUNT(date); i++)
		set(date[i][0], date[i][1]);
	set(0x0b, 0x02);
	assert_date("2023-12-25 07:15:30 2"); /* the weekday is worked out */
	world_run(&w, SECOND);
	assert_int_equal(get(0), 0x31);
	set(0, 0x59); /* also while it runs */
	assert_date("2023-12-25 07:15:59 2");
}

/* As Linux does it: SET, divider reset, write, back; half a second later the first update comes. */
static void test_divider_reset(void **state)
{
	set(0x0b, 0x82);
	set(0x0a, 0x76);
	set(0, 0);
	set(0x0b, 0x02);
	world_run(&w, 3 * SECOND);
	assert_int_equal(get(0), 0);
	set(0x0a, 0x26);
	world_run(&w, SECOND / 2 - 1);
	assert_int_equal(get(0), 0);
	world_run(&w, 1);
	assert_int_equal(get(0), 1);
}

static void test_update_in_progress(void **state)
{
	assert_int_equal(get(0x0a), 0x26);
	world_run_to(&w, SECOND - 245000);
	assert_int_equal(get(0x0a), 0x26);
	world_run_to(&w, SECOND - 100000);
	assert_int_equal(get(0x0a), 0xa6);
	world_run_to(&w, SECOND);
	assert_int_equal(get(0x0a), 0x26);
}

static void test_update_interrupt(void **state)
{
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
	set(0x0b, 0x12);
	assert_int_equal(clock_next_deadline(&w.clock), SECOND);
	world_run(&w, 5 * SECOND);
	assert_int_equal(w.rises[0], 1); /* until it is acknowledged */
	assert_int_equal(get(0x0c) & 0x90, 0x90);
	assert_false(w.level[0]);
	assert_int_equal(get(0x0c), 0);
	world_run(&w, SECOND);
	assert_int_equal(w.rises[0], 2);
}

static void test_periodic_never_drifts(void **state)
{
	set(0x0a, 0x26); /* 1024 Hz */
	set(0x0b, 0x42);
	uint64_t start = w.clock.now_cycles;
	for (unsigned i = 1; i <= 10240; i++) {
		world_run_to(&w, start + clock_cycles_from_ticks(&w.clock, 1024, i));
		assert_int_equal(w.rises[0], i);
		assert_int_equal(get(0x0c) & 0xc0, 0xc0);
	}
	assert_int_equal(w.clock.now_cycles - start, 10 * SECOND);
}

static void test_alarm(void **state)
{
	set(5, 0xff); /* any hour */
	set(3, 0x00);
	set(1, 0x05);
	set(0x0b, 0x22);
	assert_int_equal(clock_next_deadline(&w.clock), 7 * SECOND);
	world_run(&w, 7 * SECOND);
	assert_true(w.level[0]);
	assert_int_equal(get(0x0c) & 0xa0, 0xa0);
	assert_int_equal(clock_next_deadline(&w.clock), (7 + 3600) * SECOND);
	set(5, 0x45); /* an hour that never comes */
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
}

static void test_flags_are_polled(void **state)
{
	world_run(&w, 10 * SECOND);
	assert_int_equal(get(0x0c), 0x70); /* midnight was the alarm; no request, none enabled */
	assert_int_equal(w.rises[0], 0);
}

static void test_memory(void **state)
{
	assert_int_equal(get(0x0d) & 0x80, 0x80);
	assert_int_equal(get(0x15) | get(0x16) << 8, 640);
	assert_int_equal(get(0x34) | get(0x35) << 8, (0xc0000000 - 0x1000000) >> 16);
	assert_int_equal(get(0x5b) | get(0x5c) << 8, (5ull * 1024 - 3072) * 16);
	assert_int_equal(get(0x5f), 3);
	set(0x80 | 0x7f, 0xa5); /* bit 7 is the NMI mask */
	assert_int_equal(get(0x7f), 0xa5);
	device_reset(&rtc.device);
	assert_int_equal(get(0x7f), 0xa5);
	assert_date("2000-02-29 23:59:58 3");
}

static void test_nonsense_is_survived(void **state)
{
	for (unsigned value = 0; value < 256; value += 5)
		for (uint8_t index = 0; index < 0x40; index++) {
			set(index, (uint8_t)value);
			world_run(&w, SECOND / 3);
			get(index);
		}
	assert_saves_and_loads(&rtc.device);
}

static void test_save_and_load(void **state)
{
	set(0x0b, 0x52);
	world_run(&w, SECOND / 3);
	get(0x0c);
	uint64_t deadline = clock_next_deadline(&w.clock);
	assert_saves_and_loads(&rtc.device);
	assert_int_equal(clock_next_deadline(&w.clock), deadline);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_date_goes_on),
		TEST(test_encodings),
		TEST(test_setting),
		TEST(test_divider_reset),
		TEST(test_update_in_progress),
		TEST(test_update_interrupt),
		TEST(test_periodic_never_drifts),
		TEST(test_alarm),
		TEST(test_flags_are_polled),
		TEST(test_memory),
		TEST(test_nonsense_is_survived),
		TEST(test_save_and_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
