/* The balloon: what is given is zero and the host's, what is nonsense is nobody's; statistics go
 * round. */
#include "virtio_world.h"

#define INFLATE 0
#define STATS 2
#define REPORTING 3
#define FEATURES (VIRTIO_F_INDIRECT | 1u << 1 | 1u << 5)

static void fill(struct virtio_world *w, uint64_t at, uint64_t count)
{
	memset(memory_host(w->memory, gpa(at), count), 0xa5, count);
}

static bool is_all(struct virtio_world *w, uint64_t at, uint64_t count, uint8_t value)
{
	const uint8_t *p = memory_host(w->memory, gpa(at), count);
	while (count--)
		if (*p++ != value)
			return false;
	return true;
}

static void test_inflate(void **state)
{
	struct virtio_world w;
	const uint32_t pages[] = {0x90, 0x92, 0x100, UINT32_MAX, 0xfee00};
	world_open(&w, "balloon", "");
	world_start(&w, FEATURES);
	fill(&w, 0x90000, 0x4000);
	put(&w, WORLD_BUFFER, pages, sizeof(pages));
	world_add(&w, INFLATE, &(struct world_segment){WORLD_BUFFER, sizeof(pages), false}, 1);
	world_kick(&w, INFLATE);
	assert_false(world_needs_reset(&w));
	assert_true(is_all(&w, 0x90000, 0x1000, 0));
	assert_true(is_all(&w, 0x91000, 0x1000, 0xa5));
	assert_true(is_all(&w, 0x92000, 0x1000, 0));
	assert_true(is_all(&w, 0x93000, 0x1000, 0xa5));
	assert_int_equal(w.interrupts[INFLATE], 1);
	world_close(&w);
}

/* Whole pages of what is reported, no more. */
static void test_reporting(void **state)
{
	struct virtio_world w;
	world_open(&w, "balloon", "");
	world_start(&w, FEATURES);
	fill(&w, 0x90000, 0x5000);
	world_add(&w, REPORTING, &(struct world_segment){0x90800, 0x3000, true}, 1);
	world_kick(&w, REPORTING);
	assert_true(is_all(&w, 0x90000, 0x1000, 0xa5));
	assert_true(is_all(&w, 0x91000, 0x2000, 0));
	assert_true(is_all(&w, 0x93000, 0x2000, 0xa5));
	world_close(&w);
}

static void written(void *opaque, gpa_t address, unsigned size_bytes)
{
	uint64_t *last = opaque;
	(void)size_bytes;
	*last = address.v;
}

/* A given page may have held a table: who watches it hears. */
static void test_is_seen(void **state)
{
	struct virtio_world w;
	const uint32_t page = 0x90;
	uint64_t last = 0;
	world_open(&w, "balloon", "");
	world_start(&w, FEATURES);
	memory_add_watcher(w.memory, (struct memory_watcher){written, &last, PAGE_TABLE});
	memory_hold_table(w.memory, gpa(0x90000));
	put(&w, WORLD_BUFFER, &page, sizeof(page));
	world_add(&w, INFLATE, &(struct world_segment){WORLD_BUFFER, 4, false}, 1);
	world_kick(&w, INFLATE);
	assert_int_equal(last, 0x90000);
	world_close(&w);
}

static void give_stats(struct virtio_world *w, uint16_t tag, uint64_t value)
{
	put(w, WORLD_BUFFER, &tag, 2);
	put(w, WORLD_BUFFER + 2, &value, 8);
	world_add(w, STATS, &(struct world_segment){WORLD_BUFFER, 10, false}, 1);
	world_kick(w, STATS);
}

static void test_statistics(void **state)
{
	struct virtio_world w;
	struct virtio_balloon_info info;
	uint16_t id;
	uint32_t count;
	world_open(&w, "balloon", "");
	world_start(&w, FEATURES);
	virtio_balloon_ask(w.device, &info);
	assert_false(info.has_stats);
	give_stats(&w, 4, 12345);
	assert_false(world_used(&w, STATS, 1, &id, &count)); /* kept */
	virtio_balloon_ask(w.device, &info);
	assert_true(info.has_stats);
	assert_int_equal(info.stats[4], 12345);
	assert_true(world_used(&w, STATS, 1, &id, &count)); /* asked for the next */
	give_stats(&w, 4, 7);
	virtio_balloon_ask(w.device, &info);
	assert_int_equal(info.stats[4], 7);
	give_stats(&w, 999, 8);
	assert_false(world_needs_reset(&w));
	give_stats(&w, 4, 9); /* a second one, while the first is here */
	assert_true(world_needs_reset(&w));
	world_close(&w);
}

/* Linux puts the first statistics there before it is ready. */
static void test_statistics_before_the_driver_is_ready(void **state)
{
	struct virtio_world w;
	struct virtio_balloon_info info;
	world_open(&w, "balloon", "");
	world_start(&w, FEATURES);
	w.device->state.status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
	give_stats(&w, 4, 5);
	virtio_write_status(w.device, w.device->state.status | VIRTIO_STATUS_DRIVER_OK);
	world_settle(&w);
	virtio_balloon_ask(w.device, &info);
	assert_int_equal(info.stats[4], 5);
	world_close(&w);
}

static void test_target(void **state)
{
	struct virtio_world w;
	struct virtio_balloon_info info;
	world_open(&w, "balloon", "size=64K");
	world_start(&w, FEATURES);
	assert_int_equal(virtio_read_config(w.device, 0, 4), 16);
	virtio_balloon_set(w.device, 5);
	assert_int_equal(w.config_interrupts, 1);
	assert_int_equal(virtio_read_config(w.device, 0, 4), 5);
	virtio_write_config(w.device, 0, 4, 99); /* not the driver's */
	assert_int_equal(virtio_read_config(w.device, 0, 4), 5);
	virtio_write_config(w.device, 4, 4, 3);
	assert_int_equal(virtio_read_config(w.device, 4, 4), 3);
	virtio_balloon_ask(w.device, &info);
	assert_int_equal(info.actual_pages, 3);
	virtio_write_status(w.device, 0);
	assert_int_equal(virtio_read_config(w.device, 0, 4), 5);
	assert_int_equal(virtio_read_config(w.device, 4, 4), 0);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inflate),
		cmocka_unit_test(test_reporting),
		cmocka_unit_test(test_is_seen),
		cmocka_unit_test(test_statistics),
		cmocka_unit_test(test_statistics_before_the_driver_is_ready),
		cmocka_unit_test(test_target),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
