/*
 * The network card: frames through a plug that leads them back, with and without merged buffers,
 * checksums, a peer that does not read, one that goes away, and what drivers do wrong.
 */
#include "virtio_world.h"

#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/net.h"
#include "net/switch.h"

#define F_CSUM (1ull << 0)
#define F_MRG_RXBUF (1ull << 15)
#define F_CTRL (1ull << 17 | 1ull << 23)
#define RX 0
#define TX 1
#define CONTROL 2
#define HEADER 12
#define OUT (WORLD_BUFFER + 0x40000)

/* A buffer to receive into. */
static void give(struct virtio_world *w, unsigned number, uint32_t bytes)
{
	const struct world_segment s = {WORLD_BUFFER + 0x4000 * number, bytes, true};
	world_add(w, RX, &s, 1);
	world_kick(w, RX);
}

/* Sends `bytes` of a frame with this header's flags; true if the device has taken it. */
static bool transmit(struct virtio_world *w, uint32_t bytes, uint8_t flags, uint16_t csum_start,
		     uint16_t csum_offset)
{
	uint8_t header[HEADER] = {flags};
	uint16_t id;
	uint32_t written;
	memcpy(header + 6, &csum_start, 2);
	memcpy(header + 8, &csum_offset, 2);
	put(w, OUT, header, sizeof(header));
	for (uint32_t i = 0; i < bytes; i++)
		put(w, OUT + HEADER + i, &(uint8_t){(uint8_t)i}, 1);
	const struct world_segment s[2] = {{OUT, HEADER + 6, false},
					   {OUT + HEADER + 6, bytes > 6 ? bytes - 6 : 1, false}};
	world_add(w, TX, s, 2);
	virtio_kick(w->device, TX);
	clock_set(&w->clock, clock_next_deadline(&w->clock));
	clock_run_due(&w->clock);
	return world_used(w, TX, 2, &id, &written);
}

/* The next received buffer's bytes, -1 if there is none. */
static int received(struct virtio_world *w)
{
	uint16_t id;
	uint32_t written;
	return world_used(w, RX, 1, &id, &written) ? (int)written : -1;
}

static void check_bytes(struct virtio_world *w, uint64_t at, uint32_t from, uint32_t count)
{
	uint8_t *bytes = malloc(count);
	get(w, at, bytes, count);
	for (uint32_t i = 0; i < count; i++)
		if (bytes[i] != (uint8_t)(from + i))
			fail_msg("byte %u is %u", from + i, bytes[i]);
	free(bytes);
}

static void goes_round(uint64_t features)
{
	struct virtio_world w;
	world_open(&w, "net", "loop,mac=52:54:00:00:00:01");
	world_start(&w, features);
	assert_int_equal(w.device->config[5], 1);
	assert_int_equal(w.device->config[6], 1); /* the link is up */
	for (unsigned i = 0; i < 5 * WORLD_SIZE; i++) {
		give(&w, 0, 4096);
		assert_true(transmit(&w, 60 + i, 0, 0, 0));
		assert_int_equal(received(&w), HEADER + 60 + i);
		assert_int_equal(get16(&w, WORLD_BUFFER + 10), 1);
		check_bytes(&w, WORLD_BUFFER + HEADER, 0, 60 + i);
	}
	assert_false(world_needs_reset(&w));
	world_close(&w);
}

static void test_goes_round(void **state)
{
	goes_round(0);
	goes_round(F_MRG_RXBUF);
	goes_round(F_MRG_RXBUF | VIRTIO_F_PACKED);
	goes_round(VIRTIO_F_EVENT_INDEX);
}

/* A frame over several buffers; and one for which there are too few yet. */
static void merges(uint64_t features)
{
	struct virtio_world w;
	world_open(&w, "net", "loop");
	world_start(&w, features);
	for (unsigned round = 0; round < 2 * WORLD_SIZE; round++) {
		give(&w, 0, 1000);
		give(&w, 1, 300);
		assert_true(transmit(&w, 2000, 0, 0, 0));
		assert_int_equal(received(&w), -1);
		assert_int_equal(w.watched_fd, -1); /* nothing to read into */
		give(&w, 2, 1000);
		assert_int_equal(received(&w), 1000);
		assert_int_equal(received(&w), 300);
		assert_int_equal(received(&w), HEADER + 2000 - 1300);
		assert_int_equal(received(&w), -1);
		assert_int_equal(get16(&w, WORLD_BUFFER + 10), 3);
		check_bytes(&w, WORLD_BUFFER + HEADER, 0, 988);
		check_bytes(&w, WORLD_BUFFER + 0x4000, 988, 300);
		check_bytes(&w, WORLD_BUFFER + 0x8000, 1288, 712);
		assert_true(w.watched_fd >= 0);
	}
	world_close(&w);
}

static void test_merges(void **state)
{
	merges(F_MRG_RXBUF);
	merges(F_MRG_RXBUF | VIRTIO_F_PACKED);
}

/* Without merging, a frame that is too long for its buffer is lost, and the next one is not. */
static void test_too_long(void **state)
{
	struct virtio_world w;
	world_open(&w, "net", "loop");
	world_start(&w, 0);
	give(&w, 0, 200);
	assert_true(transmit(&w, 400, 0, 0, 0));
	assert_int_equal(received(&w), -1);
	assert_true(transmit(&w, 100, 0, 0, 0));
	assert_int_equal(received(&w), HEADER + 100);
	/* A buffer that has no room for the header breaks the rules. */
	give(&w, 0, HEADER);
	transmit(&w, 100, 0, 0, 0);
	assert_true(world_needs_reset(&w));
	world_close(&w);
}

static void test_checksum(void **state)
{
	struct virtio_world w;
	world_open(&w, "net", "loop");
	world_start(&w, F_CSUM);
	give(&w, 0, 2048);
	/* The bytes 20 to 60; the sum's own place (36, 37) holds what is already in it. */
	assert_true(transmit(&w, 61, 1, 20, 16));
	assert_int_equal(received(&w), HEADER + 61);
	uint32_t sum = 0;
	for (unsigned i = 20; i < 61; i++)
		sum += i % 2 ? i : i << 8;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
	uint8_t bytes[2];
	get(&w, WORLD_BUFFER + HEADER + 36, bytes, 2);
	assert_int_equal(bytes[0] << 8 | bytes[1], sum);
	/* Places that are not in the frame: it is lost. */
	give(&w, 0, 2048);
	assert_true(transmit(&w, 60, 1, 59, 0));
	assert_true(transmit(&w, 60, 1, 61, 0));
	assert_true(transmit(&w, 60, 1, 0xffff, 0xffff));
	assert_true(transmit(&w, 60, 1, 20, 0xffff));
	assert_true(transmit(&w, 8, 0, 0, 0)); /* too short to be one */
	assert_int_equal(received(&w), -1);
	assert_true(transmit(&w, 60, 1, 58, 0));
	assert_int_equal(received(&w), HEADER + 60);
	assert_false(world_needs_reset(&w));
	world_close(&w);
}

static void test_control(void **state)
{
	struct virtio_world w;
	const struct world_segment s[2] = {{WORLD_BUFFER, 8, false}, {WORLD_BUFFER + 64, 1, true}};
	uint8_t command[8] = {1, 1, 2, 3, 4, 5, 6, 7}, answer = 9;
	uint16_t id;
	uint32_t written;
	world_open(&w, "net", "loop");
	world_start(&w, F_CTRL);
	put(&w, WORLD_BUFFER, command, sizeof(command));
	world_add(&w, CONTROL, s, 2);
	world_kick(&w, CONTROL);
	assert_true(world_used(&w, CONTROL, 2, &id, &written));
	get(&w, WORLD_BUFFER + 64, &answer, 1);
	assert_int_equal(answer, 0);
	assert_memory_equal(w.device->config, command + 2, 6);
	command[0] = 4; /* of what was not offered */
	put(&w, WORLD_BUFFER, command, sizeof(command));
	world_add(&w, CONTROL, s, 2);
	world_kick(&w, CONTROL);
	get(&w, WORLD_BUFFER + 64, &answer, 1);
	assert_int_equal(answer, 1);
	/* A reset brings the address back. */
	virtio_write_status(w.device, 0);
	assert_int_equal(w.device->config[0], 0x52);
	world_close(&w);
}

/* ---- the other side ---- */

/* So much time: what asks again and again never settles. */
static void pass(struct virtio_world *w, uint64_t ns)
{
	uint64_t end = w->clock.now_cycles + ns;
	while (clock_next_deadline(&w->clock) <= end) {
		clock_set(&w->clock, clock_next_deadline(&w->clock));
		clock_run_due(&w->clock);
	}
	clock_set(&w->clock, end);
}

/* A machine at a switch that nobody turns: its queue fills. */
static void test_stuck_peer(void **state)
{
	struct virtio_world w;
	struct net_switch *hub;
	char path[64], text[100];
	unsigned taken = 0;
	snprintf(path, sizeof(path), "/tmp/gnomon-test-net-%d", (int)getpid());
	snprintf(text, sizeof(text), "switch,path=%s", path);
	assert_int_equal(net_switch_open(&hub, path, NULL), 0);
	world_open(&w, "net", text);
	world_start(&w, 0);
	while (taken < 10000 && transmit(&w, 1514, 0, 0, 0))
		taken++;
	assert_in_range(taken, 10, 9999);
	/* It waits for the peer a while, asking again; then frames are lost, one after the other.
	 */
	uint16_t id;
	uint32_t written;
	pass(&w, WORLD_HZ / 20);
	assert_false(world_used(&w, TX, 2, &id, &written));
	pass(&w, WORLD_HZ / 10);
	assert_true(world_used(&w, TX, 2, &id, &written));
	assert_true(transmit(&w, 1514, 0, 0, 0));
	/* The peer reads again: nothing is lost. */
	for (unsigned i = 0; i < 100; i++)
		net_switch_turn(hub, -1, 0);
	assert_true(transmit(&w, 1514, 0, 0, 0));
	for (unsigned i = 0; i < 100; i++) {
		net_switch_turn(hub, -1, 0);
		pass(&w, WORLD_HZ / 100);
	}
	assert_in_range(net_switch_counts(hub).frames, taken, taken + 1);
	/* And it goes away: the link is down, and sending is of no use but does no harm. */
	net_switch_close(hub);
	unsigned before = w.config_interrupts;
	w.ready(w.device, w.watched_fd);
	assert_int_equal(w.config_interrupts, before + 1);
	assert_int_equal(w.device->config[6], 0);
	assert_int_equal(w.watched_fd, -1);
	assert_true(transmit(&w, 100, 0, 0, 0));
	give(&w, 0, 2048);
	assert_false(world_needs_reset(&w));
	world_close(&w);
}

/* Saved with a frame that could not be sent and one that could not be received, it goes on. */
static void test_saved(void **state)
{
	struct virtio_world w;
	world_open(&w, "net", "loop");
	world_start(&w, F_MRG_RXBUF);
	give(&w, 0, 600);
	assert_true(transmit(&w, 1000, 0, 0, 0));
	assert_int_equal(w.device->queues[RX].state->in_flight, 0);
	virtio_drain(w.device);
	struct error e = {0};
	assert_int_equal(w.device->device.ops->resume(&w.device->device, &e), 0);
	assert_int_equal(w.device->ops->resume(w.device, &e), 0);
	give(&w, 1, 600);
	assert_int_equal(received(&w), 600);
	assert_int_equal(received(&w), HEADER + 400);
	check_bytes(&w, WORLD_BUFFER + 0x4000, 588, 412);
	world_close(&w);
}

static void test_options(void **state)
{
	const struct virtio_row *row = virtio_find("virtio-net-pci", 14);
	struct error e = {0};
	assert_non_null(row);
	assert_int_equal(row->check("user,transport=mmio,packed=off,hostfwd=tcp::1-:2", &e), 0);
	assert_int_equal(row->check("transport=mmio,loop", &e), 0);
	assert_int_equal(row->check("", &e), -EINVAL);
	assert_int_equal(row->check("loop,transport=isa", &e), -EINVAL);
	assert_non_null(strstr(e.text, "pci"));
	struct virtio_world w;
	world_open(&w, "net", "none");
	assert_int_equal(w.device->config[6], 0);
	/* The text makes the same card again. */
	assert_string_equal(w.device->text, "none,mac=52:54:00:12:34:56");
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_round), cmocka_unit_test(test_merges),
		cmocka_unit_test(test_too_long),   cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_control),	   cmocka_unit_test(test_stuck_peer),
		cmocka_unit_test(test_saved),	   cmocka_unit_test(test_options),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
