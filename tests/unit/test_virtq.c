/* Rings: what well-behaved drivers get, in both formats, and what the others do not get away with,
 * for each device of the catalogue. */
#include "virtio_world.h"

#include "virtio/pci.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SPLIT VIRTIO_F_INDIRECT
#define PACKED (VIRTIO_F_INDIRECT | VIRTIO_F_PACKED)

static const struct world_segment whole = {WORLD_BUFFER, 64, true};

static bool is_zero(const uint8_t *bytes, size_t count)
{
	while (count--)
		if (*bytes++)
			return false;
	return true;
}

/* ---- well behaved ---- */

/* Several rounds of the ring, chains of one to three. */
static void goes_round(uint64_t features)
{
	struct virtio_world w;
	world_open(&w, "rng", "");
	world_start(&w, features);
	for (unsigned i = 0; i < 10 * WORLD_SIZE; i++) {
		unsigned count = 1 + i % 3;
		struct world_segment s[3] = {whole, whole, whole};
		for (unsigned k = 0; k < 3; k++)
			s[k].address += 64 * k;
		uint8_t bytes[192] = {0};
		put(&w, WORLD_BUFFER, bytes, sizeof(bytes));
		uint16_t id = world_add(&w, 0, s, count), used;
		uint32_t written;
		world_kick(&w, 0);
		assert_true(world_used(&w, 0, count, &used, &written));
		assert_int_equal(used, id);
		assert_int_equal(written, 64 * count);
		get(&w, WORLD_BUFFER, bytes, sizeof(bytes));
		assert_false(is_zero(bytes + 64 * (count - 1), 64));
		assert_true(is_zero(bytes + 64 * count, 192 - 64 * count));
		assert_false(world_used(&w, 0, count, &used, &written));
	}
	assert_int_equal(w.interrupts[0], 10 * WORLD_SIZE);
	world_close(&w);
}

static void test_split_goes_round(void **state)
{
	goes_round(SPLIT);
}

static void test_packed_goes_round(void **state)
{
	goes_round(PACKED);
}

static void indirect(uint64_t features)
{
	struct virtio_world w;
	const struct world_segment s[3] = {
		whole, {WORLD_BUFFER + 4096, 8, true}, {WORLD_BUFFER + 8192, 1, true}};
	world_open(&w, "rng", "");
	world_start(&w, features);
	for (unsigned i = 0; i < 3 * WORLD_SIZE; i++) {
		uint16_t id = world_add_indirect(&w, 0, WORLD_TABLE, s, 3), used;
		uint32_t written;
		world_kick(&w, 0);
		assert_true(world_used(&w, 0, 1, &used, &written));
		assert_int_equal(used, id);
		assert_int_equal(written, 73);
	}
	world_close(&w);
}

static void test_indirect(void **state)
{
	indirect(SPLIT);
	indirect(PACKED);
}

/* The driver asks to hear of the third; the first two are silent. */
static void test_event_index(void **state)
{
	struct virtio_world w;
	world_open(&w, "rng", "");
	world_start(&w, SPLIT | VIRTIO_F_EVENT_INDEX);
	put16(&w, ring_base(0, VIRTIO_RING_DRIVER) + 4 + 2 * WORLD_SIZE, 2);
	for (unsigned i = 0; i < 4; i++) {
		world_add(&w, 0, &whole, 1);
		world_kick(&w, 0);
		/* The first time nothing is known yet: the driver is told. */
		assert_int_equal(w.interrupts[0], i < 2 ? 1 : 2);
		/* And the device wants to hear of the next. */
		assert_int_equal(get16(&w, ring_base(0, VIRTIO_RING_DEVICE) + 4 + 8 * WORLD_SIZE),
				 i + 1);
	}
	world_close(&w);
}

static void test_packed_event_index(void **state)
{
	struct virtio_world w;
	world_open(&w, "rng", "");
	world_start(&w, PACKED | VIRTIO_F_EVENT_INDEX);
	uint64_t driver = ring_base(0, VIRTIO_RING_DRIVER);
	put16(&w, driver, 2 | 0x8000);
	put16(&w, driver + 2, 2);
	for (unsigned i = 0; i < 4; i++) {
		world_add(&w, 0, &whole, 1);
		world_kick(&w, 0);
		assert_int_equal(w.interrupts[0], i < 2 ? 1 : 2);
	}
	/* Place 1 of the next round. */
	put16(&w, driver, 1);
	for (unsigned i = 4; i < WORLD_SIZE + 4; i++) {
		world_add(&w, 0, &whole, 1);
		world_kick(&w, 0);
		assert_int_equal(w.interrupts[0], i <= WORLD_SIZE ? 2 : 3);
	}
	put16(&w, driver + 2, 1); /* not at all */
	world_add(&w, 0, &whole, 1);
	world_kick(&w, 0);
	assert_int_equal(w.interrupts[0], 3);
	world_close(&w);
}

static void test_no_interrupt_flag(void **state)
{
	struct virtio_world w;
	world_open(&w, "rng", "");
	world_start(&w, SPLIT);
	put16(&w, ring_base(0, VIRTIO_RING_DRIVER), 1);
	world_add(&w, 0, &whole, 1);
	world_kick(&w, 0);
	assert_int_equal(w.interrupts[0], 0);
	world_close(&w);
}

/* ---- hostile ---- */

#define SPLIT_ONLY 1
#define NO_INDIRECT 2 /* the feature was not agreed on */

struct hostile {
	const char *name;
	void (*act)(struct virtio_world *w, unsigned queue);
	unsigned flags;
};

static void one(struct virtio_world *w, unsigned queue, uint64_t address, uint32_t size_bytes,
		uint16_t flags, uint16_t next)
{
	raw_descriptor(w, queue, 0, address, size_bytes, flags, next);
	raw_offer(w, queue, 0);
}

static void loop_of_one(struct virtio_world *w, unsigned q)
{
	if (!w->is_packed) {
		one(w, q, WORLD_BUFFER, 64, DESC_NEXT, 0);
		return;
	}
	for (uint16_t i = 0; i < WORLD_SIZE; i++)
		raw_descriptor(w, q, i, WORLD_BUFFER, 64, DESC_NEXT, 0);
}

static void loop_of_two(struct virtio_world *w, unsigned q)
{
	raw_descriptor(w, q, 0, WORLD_BUFFER, 64, DESC_NEXT | DESC_WRITE, 1);
	raw_descriptor(w, q, 1, WORLD_BUFFER, 64, DESC_NEXT | DESC_WRITE, 0);
	raw_offer(w, q, 0);
}

static void next_out_of_range(struct virtio_world *w, unsigned q)
{
	one(w, q, WORLD_BUFFER, 64, DESC_NEXT | DESC_WRITE, WORLD_SIZE);
}

static void head_out_of_range(struct virtio_world *w, unsigned q)
{
	raw_offer(w, q, WORLD_SIZE);
}

static void head_far_out(struct virtio_world *w, unsigned q)
{
	raw_offer(w, q, 0xffff);
}

static void length_zero(struct virtio_world *w, unsigned q)
{
	one(w, q, WORLD_BUFFER, 0, DESC_WRITE, 0);
}

static void length_huge(struct virtio_world *w, unsigned q)
{
	one(w, q, WORLD_BUFFER, 0xffffffff, DESC_WRITE, 0);
}

static void address_wraps(struct virtio_world *w, unsigned q)
{
	one(w, q, UINT64_MAX - 31, 64, DESC_WRITE, 0);
}

static void address_in_device(struct virtio_world *w, unsigned q)
{
	one(w, q, 0xfee00000, 64, DESC_WRITE, 0);
}

static void address_in_hole(struct virtio_world *w, unsigned q)
{
	one(w, q, MEMORY_HOLE_START, 64, 0, 0);
}

static void across_the_end(struct virtio_world *w, unsigned q)
{
	one(w, q, WORLD_RAM - 32, 64, DESC_WRITE, 0);
}

static void index_jumps(struct virtio_world *w, unsigned q)
{
	raw_descriptor(w, q, 0, WORLD_BUFFER, 64, DESC_WRITE, 0);
	put16(w, ring_base(q, VIRTIO_RING_DRIVER) + 2, WORLD_SIZE + 1);
}

static void index_goes_back(struct virtio_world *w, unsigned q)
{
	put16(w, ring_base(q, VIRTIO_RING_DRIVER) + 2, 0xffff);
}

static void read_after_write(struct virtio_world *w, unsigned q)
{
	raw_descriptor(w, q, 0, WORLD_BUFFER, 64, DESC_NEXT | DESC_WRITE, 1);
	raw_descriptor(w, q, 1, WORLD_BUFFER, 64, 0, 1);
	raw_offer(w, q, 0);
}

static void indirect_in_indirect(struct virtio_world *w, unsigned q)
{
	put_descriptor(w, WORLD_TABLE, WORLD_TABLE, 16, DESC_INDIRECT, 0);
	one(w, q, WORLD_TABLE, 16, DESC_INDIRECT, 0);
}

static void indirect_with_next(struct virtio_world *w, unsigned q)
{
	put_descriptor(w, WORLD_TABLE, WORLD_BUFFER, 64, DESC_WRITE, 0);
	one(w, q, WORLD_TABLE, 16, DESC_INDIRECT | DESC_NEXT, 1);
}

static void indirect_odd_size(struct virtio_world *w, unsigned q)
{
	put_descriptor(w, WORLD_TABLE, WORLD_BUFFER, 64, DESC_WRITE, 0);
	one(w, q, WORLD_TABLE, 24, DESC_INDIRECT, 0);
}

static void indirect_empty(struct virtio_world *w, unsigned q)
{
	one(w, q, WORLD_TABLE, 0, DESC_INDIRECT, 0);
}

static void indirect_nowhere(struct virtio_world *w, unsigned q)
{
	one(w, q, 0xfee00000, 64, DESC_INDIRECT, 0);
}

static void indirect_across_the_end(struct virtio_world *w, unsigned q)
{
	one(w, q, WORLD_RAM - 16, 32, DESC_INDIRECT, 0);
}

static void indirect_next_out_of_range(struct virtio_world *w, unsigned q)
{
	put_descriptor(w, WORLD_TABLE, WORLD_BUFFER, 64, DESC_WRITE | DESC_NEXT, 1);
	one(w, q, WORLD_TABLE, 16, DESC_INDIRECT, 0);
}

static void indirect_loop(struct virtio_world *w, unsigned q)
{
	for (uint16_t i = 0; i < 4; i++)
		put_descriptor(w, WORLD_TABLE + 16 * i, WORLD_BUFFER, 64, DESC_WRITE | DESC_NEXT,
			       (i + 1) % 4);
	one(w, q, WORLD_TABLE, 64, DESC_INDIRECT, 0);
}

static void indirect_too_long(struct virtio_world *w, unsigned q)
{
	for (uint16_t i = 0; i <= VIRTQ_SIZE_MAX; i++)
		put_descriptor(w, WORLD_TABLE + 16 * i, WORLD_BUFFER, 1, DESC_WRITE | DESC_NEXT,
			       i + 1);
	one(w, q, WORLD_TABLE, 16 * (VIRTQ_SIZE_MAX + 1), DESC_INDIRECT, 0);
}

static void indirect_not_agreed(struct virtio_world *w, unsigned q)
{
	put_descriptor(w, WORLD_TABLE, WORLD_BUFFER, 64, DESC_WRITE, 0);
	one(w, q, WORLD_TABLE, 16, DESC_INDIRECT, 0);
}

static void size_changes(struct virtio_world *w, unsigned q)
{
	virtio_set_queue_size(w->device, q, WORLD_SIZE / 2);
}

static void ring_moves(struct virtio_world *w, unsigned q)
{
	virtio_set_ring(w->device, q, VIRTIO_RING_DESC, false, 0x10000);
}

static void features_change(struct virtio_world *w, unsigned q)
{
	virtio_write_features(w->device, 0, 0x12);
}

static const struct hostile hostiles[] = {
	{"a descriptor names itself", loop_of_one, 0},
	{"two descriptors name each other", loop_of_two, SPLIT_ONLY},
	{"next out of range", next_out_of_range, SPLIT_ONLY},
	{"head out of range", head_out_of_range, SPLIT_ONLY},
	{"head far out of range", head_far_out, SPLIT_ONLY},
	{"length 0", length_zero, 0},
	{"length 2^32-1", length_huge, 0},
	{"address and length wrap", address_wraps, 0},
	{"address of a device", address_in_device, 0},
	{"address in the hole", address_in_hole, 0},
	{"across the end of memory", across_the_end, 0},
	{"the index jumps", index_jumps, SPLIT_ONLY},
	{"the index goes back", index_goes_back, SPLIT_ONLY},
	{"readable after writable", read_after_write, 0},
	{"indirect in indirect", indirect_in_indirect, 0},
	{"indirect with next", indirect_with_next, 0},
	{"indirect of odd size", indirect_odd_size, 0},
	{"indirect and empty", indirect_empty, 0},
	{"indirect table at a device", indirect_nowhere, 0},
	{"indirect table across the end", indirect_across_the_end, 0},
	{"next out of the indirect table", indirect_next_out_of_range, SPLIT_ONLY},
	{"a loop in the indirect table", indirect_loop, SPLIT_ONLY},
	{"indirect table too long", indirect_too_long, 0},
	{"indirect but not agreed on", indirect_not_agreed, NO_INDIRECT},
	{"the size changes in use", size_changes, 0},
	{"the ring moves in use", ring_moves, 0},
	{"features change in use", features_change, 0},
};

/* Each kind, its options (NULL: a disk image; %d: our process), and a queue that it takes chains
 * from when it is kicked. */
static const struct {
	const char *name, *text;
	unsigned queue;
} kinds[] = {
	{"rng", "", 0},
	{"net", "loop", 1},
	{"blk", NULL, 0},
	{"console", "", 1},
	{"balloon", "", 0},
	{"9p", "/etc,readonly=on,server=" SHARE_PROGRAM, 0},
	{"vsock", "path=/tmp/gnomon-virtq-%d", 1},
};

static void is_refused(const struct hostile *h, unsigned kind, uint64_t features)
{
	struct virtio_world w;
	unsigned queue = kinds[kind].queue;
	char text[4200];
	int fd = memfd_create("disk", 0);
	assert_int_equal(ftruncate(fd, 65536), 0);
	if (kinds[kind].text)
		snprintf(text, sizeof(text), kinds[kind].text, (int)getpid());
	else
		snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	world_open(&w, kinds[kind].name, text);
	close(fd);
	world_start(&w, features);
	h->act(&w, queue);
	world_kick(&w, queue);
	if (!world_needs_reset(&w))
		fail_msg("%s, %s, %s: not noticed", kinds[kind].name,
			 w.is_packed ? "packed" : "split", h->name);
	assert_int_equal(w.config_interrupts, 1);
	assert_non_null(w.device->problem);
	/* It is silent from now on, and as good as new after a reset. */
	uint16_t id;
	uint32_t written;
	world_add(&w, queue, &whole, 1);
	world_kick(&w, queue);
	assert_false(world_used(&w, queue, 1, &id, &written));
	world_start(&w, features);
	assert_false(world_needs_reset(&w));
	world_close(&w);
}

static void test_hostile_drivers(void **state)
{
	for (size_t i = 0; i < ARRAY_COUNT(hostiles); i++)
		for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++) {
			const struct hostile *h = &hostiles[i];
			uint64_t mask = h->flags & NO_INDIRECT ? ~VIRTIO_F_INDIRECT : ~0ull;
			is_refused(h, k, SPLIT & mask);
			if (!(h->flags & SPLIT_ONLY))
				is_refused(h, k, PACKED & mask);
		}
}

/* A row of the catalogue that no hostile driver met would be a hole in the table above. */
static void test_every_kind_is_tried(void **state)
{
	for (size_t i = 0; virtio_row(i); i++) {
		bool is_tried = false;
		for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++)
			is_tried |= !strcmp(kinds[k].name, virtio_row(i)->name);
		if (!is_tried)
			fail_msg("'%s' is not in the table", virtio_row(i)->name);
	}
}

/* Used and available rings in one place: nonsense, but nobody else's memory. */
static void test_overlapping_rings(void **state)
{
	struct virtio_world w;
	world_open(&w, "rng", "");
	world_agree(&w, SPLIT | VIRTIO_F_VERSION_1);
	virtio_set_queue_size(w.device, 0, WORLD_SIZE);
	for (int r = VIRTIO_RING_DESC; r <= VIRTIO_RING_DEVICE; r++)
		virtio_set_whole_ring(w.device, 0, (enum virtio_ring)r, 0x1000);
	virtio_enable_queue(w.device, 0);
	virtio_write_status(w.device, 0xf);
	for (unsigned i = 0; i < 200 && !world_needs_reset(&w); i++) {
		put16(&w, 0x1002, (uint16_t)(get16(&w, 0x1002) + 1));
		world_kick(&w, 0);
	}
	uint8_t *ram = memory_host(w.memory, gpa(0), WORLD_RAM);
	assert_true(is_zero(ram, 0x1000));
	assert_true(is_zero(ram + 0x1000 + 16 * WORLD_SIZE, WORLD_RAM - 0x1000 - 16 * WORLD_SIZE));
	world_close(&w);
}

static void test_rings_outside_memory(void **state)
{
	static const uint64_t places[] = {0xfee00000, WORLD_RAM - 16, UINT64_MAX - 15, 0x1001};
	for (size_t i = 0; i < ARRAY_COUNT(places); i++)
		for (int ring = VIRTIO_RING_DESC; ring <= VIRTIO_RING_DEVICE; ring++) {
			struct virtio_world w;
			world_open(&w, "rng", "");
			world_agree(&w, SPLIT | VIRTIO_F_VERSION_1);
			for (int r = VIRTIO_RING_DESC; r <= VIRTIO_RING_DEVICE; r++)
				virtio_set_whole_ring(w.device, 0, (enum virtio_ring)r,
						      r == ring ? places[i] : 0x1000);
			virtio_enable_queue(w.device, 0);
			assert_true(world_needs_reset(&w));
			world_close(&w);
		}
}

static void test_sizes(void **state)
{
	static const uint16_t bad[] = {0, 3, 65, 0x8000, 0xffff};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		struct virtio_world w;
		world_open(&w, "rng", "");
		world_agree(&w, SPLIT | VIRTIO_F_VERSION_1);
		for (int r = VIRTIO_RING_DESC; r <= VIRTIO_RING_DEVICE; r++)
			virtio_set_whole_ring(w.device, 0, (enum virtio_ring)r, 0x1000);
		virtio_set_queue_size(w.device, 0, bad[i]);
		virtio_enable_queue(w.device, 0);
		assert_true(world_needs_reset(&w));
		world_close(&w);
	}
}

static void test_features(void **state)
{
	struct virtio_world w;
	world_open(&w, "rng", "");
	world_agree(&w, SPLIT); /* not without VERSION_1 */
	assert_false(w.device->state.status & VIRTIO_STATUS_FEATURES_OK);
	world_agree(&w, SPLIT | VIRTIO_F_VERSION_1 | 1ull << 63); /* nor what was not offered */
	assert_false(w.device->state.status & VIRTIO_STATUS_FEATURES_OK);
	virtio_write_status(w.device, 0xf); /* nor DRIVER_OK without either */
	assert_false(virtio_is_running(w.device));
	world_kick(&w, 0);
	world_agree(&w, SPLIT | VIRTIO_F_VERSION_1);
	assert_true(w.device->state.status & VIRTIO_STATUS_FEATURES_OK);
	world_close(&w);
}

/* Behind the last register of the PCI transport's page there is nothing. */
static void test_pci_registers_end(void **state)
{
	struct virtio_world w;
	struct bus bus;
	struct pci_host host;
	struct virtio_pci pci;
	world_open(&w, "rng", "");
	bus_init(&bus);
	assert_int_equal(pci_host_init(&host, (struct device_signal){0}, &bus, NULL), 0);
	assert_int_equal(virtio_pci_init(&pci, w.device, 0, &host, 1, NULL), 0);
	assert_int_equal(pci_host_assign(&host, NULL), 0);
	gpa_t base = gpa(PLATFORM_PCI_MMIO_BASE);
	assert_true(bus_mmio_write(&bus, 0, gpa(base.v + 0x20), 8, 0x123000));
	assert_int_equal(virtio_ring(w.device, 0, VIRTIO_RING_DESC), 0x123000);
	for (unsigned offset = 0x38; offset < 0x1000; offset += 4) {
		bus_mmio_write(&bus, 0, gpa(base.v + offset), 4, 0x5a5a5a5a);
		bus_mmio_write(&bus, 0, gpa(base.v + (offset & ~7u) + 8), 8, UINT64_MAX);
	}
	assert_int_equal(virtio_ring(w.device, 0, VIRTIO_RING_DESC), 0x123000);
	assert_int_equal(virtio_ring(w.device, 0, VIRTIO_RING_DRIVER), 0);
	assert_int_equal(virtio_ring(w.device, 0, VIRTIO_RING_DEVICE), 0);
	assert_int_equal(w.device->state.status, 0);
	world_close(&w);
}

/* ---- memory that somebody watches ---- */

struct watched {
	unsigned count;
	gpa_t last;
};

static void written(void *opaque, gpa_t address, unsigned size_bytes)
{
	struct watched *seen = opaque;
	(void)size_bytes;
	seen->count++;
	seen->last = address;
}

/* DMA and the used ring are writes like any others: a page of page tables is seen, and the dirty
 * log has it. */
static void test_dma_is_seen(void **state)
{
	struct virtio_world w;
	struct watched seen = {0};
	world_open(&w, "rng", "");
	world_start(&w, SPLIT);
	memory_add_watcher(w.memory, (struct memory_watcher){written, &seen, PAGE_TABLE});
	memory_hold_table(w.memory, gpa(WORLD_BUFFER));
	world_add(&w, 0, &whole, 1);
	world_kick(&w, 0);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.last.v, WORLD_BUFFER);
	memory_hold_table(w.memory, gpa(ring_base(0, VIRTIO_RING_DEVICE)));
	world_add(&w, 0, &whole, 1);
	world_kick(&w, 0);
	assert_int_equal(seen.count, 4); /* the data, the element, the index */

	uint8_t dirty[WORLD_RAM / PAGE_SIZE_BYTES / 8];
	assert_int_equal(memory_dirty_start(w.memory, NULL), 0);
	world_add(&w, 0, &whole, 1);
	memory_dirty_collect(w.memory, dirty);
	world_kick(&w, 0);
	memory_dirty_collect(w.memory, dirty);
	unsigned page = WORLD_BUFFER / PAGE_SIZE_BYTES;
	assert_true(dirty[page / 8] >> (page % 8) & 1);
	world_close(&w);
}

static void test_read_only_memory(void **state)
{
	struct virtio_world w;
	world_open(&w, "rng", "");
	world_start(&w, SPLIT);
	memory_set_page_flag(w.memory, gpa(WORLD_BUFFER + 4096), PAGE_ROM);
	world_add(&w, 0, &(struct world_segment){WORLD_BUFFER + 4090, 64, true}, 1);
	world_kick(&w, 0);
	assert_true(world_needs_reset(&w));
	world_close(&w);
}

/* ---- saving ---- */

/* With a kick on its way and chains waiting. */
static void test_saves_and_goes_on(void **state)
{
	struct virtio_world w;
	struct state_writer *first, *second;
	struct state_reader *reader;
	struct error e = {0};
	size_t size, again;
	world_open(&w, "rng", "");
	world_start(&w, PACKED | VIRTIO_F_EVENT_INDEX);
	world_add(&w, 0, &whole, 1);
	world_kick(&w, 0);
	world_add(&w, 0, &whole, 1);
	virtio_kick(w.device, 0);
	assert_int_equal(state_buffer_create(&first), 0);
	assert_int_equal(state_buffer_create(&second), 0);
	device_save(&w.device->device, first);
	device_save(&w.device->own, first);
	const uint8_t *bytes = state_buffer_bytes(first, &size);
	device_reset(&w.device->device);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
	assert_int_equal(state_reader_create(&reader, bytes, size, &e), 0);
	assert_int_equal(device_load(&w.device->device, reader, &e), 0);
	assert_int_equal(device_load(&w.device->own, reader, &e), 0);
	device_save(&w.device->device, second);
	device_save(&w.device->own, second);
	const uint8_t *copy = state_buffer_bytes(second, &again);
	assert_int_equal(size, again);
	assert_memory_equal(bytes, copy, size);
	uint16_t id;
	uint32_t count;
	assert_true(world_used(&w, 0, 1, &id, &count));
	assert_false(world_used(&w, 0, 1, &id, &count));
	world_settle(&w);
	assert_true(world_used(&w, 0, 1, &id, &count));
	assert_int_equal(count, 64);
	state_reader_destroy(reader);
	state_writer_destroy(first);
	state_writer_destroy(second);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_goes_round),
		cmocka_unit_test(test_packed_goes_round),
		cmocka_unit_test(test_indirect),
		cmocka_unit_test(test_event_index),
		cmocka_unit_test(test_packed_event_index),
		cmocka_unit_test(test_no_interrupt_flag),
		cmocka_unit_test(test_hostile_drivers),
		cmocka_unit_test(test_every_kind_is_tried),
		cmocka_unit_test(test_overlapping_rings),
		cmocka_unit_test(test_rings_outside_memory),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_pci_registers_end),
		cmocka_unit_test(test_dma_is_seen),
		cmocka_unit_test(test_read_only_memory),
		cmocka_unit_test(test_saves_and_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
