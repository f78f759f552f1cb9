/* PCI cards that are not virtio's: the panic notifier and the watchdog. */
#include "device_world.h"

#include "device/i6300esb.h"
#include "device/pvpanic.h"

#define BAR PLATFORM_PCI_MMIO_BASE
#define CONFIG(offset) gpa(PLATFORM_ECAM_BASE + (1u << 15) + (offset))
#define SECOND 1000000000ull

struct cards {
	struct device_world w;
	struct pci_host pci;
	struct pvpanic pvpanic;
	struct i6300esb watchdog;
};

static void open_world(struct cards *c)
{
	struct error e = {0};
	memset(c, 0, sizeof(*c));
	world_init(&c->w);
	assert_int_equal(pci_host_init(&c->pci, (struct device_signal){0}, &c->w.bus, &e), 0);
}

static void write_bar(struct cards *c, uint64_t offset, unsigned size, uint64_t value)
{
	assert_true(bus_mmio_write(&c->w.bus, 0, gpa(BAR + offset), size, value));
}

static uint64_t read_bar(struct cards *c, uint64_t offset, unsigned size)
{
	return bus_mmio_read(&c->w.bus, 0, gpa(BAR + offset), size, NULL);
}

static void test_pvpanic(void **state)
{
	struct cards c;
	open_world(&c);
	assert_int_equal(pvpanic_init(&c.pvpanic, (struct device_signal){world_signal, &c.w},
				      &c.pci, 1, NULL),
			 0);
	assert_int_equal(pci_host_assign(&c.pci, NULL), 0);
	assert_int_equal(bus_mmio_read(&c.w.bus, 0, CONFIG(0), 4, NULL), 0x00111b36);
	assert_int_equal(read_bar(&c, 0, 1), 3);
	write_bar(&c, 0, 1, 4);
	write_bar(&c, 1, 1, 1);
	assert_int_equal(c.w.signals, 0);
	write_bar(&c, 0, 1, PVPANIC_PANICKED);
	assert_int_equal(c.w.signals, 1);
	assert_int_equal(c.w.signal_value, PVPANIC_PANICKED);
}

static void open_watchdog(struct cards *c)
{
	open_world(c);
	assert_int_equal(i6300esb_init(&c->watchdog, &c->w.clock,
				       (struct device_signal){world_signal, &c->w}, &c->pci, 1,
				       NULL),
			 0);
	assert_int_equal(pci_host_assign(&c->pci, NULL), 0);
}

static void unlocked(struct cards *c, uint64_t offset, uint64_t value)
{
	write_bar(c, 0xc, 2, 0x80);
	write_bar(c, 0xc, 2, 0x86);
	write_bar(c, offset, offset == 0xc ? 2 : 4, value);
}

/* As Linux does it for `seconds`: two stages of half of them. */
static void start(struct cards *c, unsigned seconds)
{
	bus_mmio_write(&c->w.bus, 0, CONFIG(0x60), 2, 3);
	unlocked(c, 0, seconds << 9);
	unlocked(c, 4, seconds << 9);
	unlocked(c, 0xc, 0x100);
	bus_mmio_write(&c->w.bus, 0, CONFIG(0x68), 1, 2);
}

static void test_watchdog_bites(void **state)
{
	struct cards c;
	open_watchdog(&c);
	start(&c, 10);
	world_run(&c.w, 9 * SECOND);
	assert_int_equal(c.w.signals, 0);
	assert_int_equal(read_bar(&c, 8, 2), 1); /* the first stage is over */
	world_run(&c.w, 2 * SECOND);
	assert_int_equal(c.w.signals, 1);
	/* A reset stops it, and leaves a note for the driver. */
	device_reset(&c.watchdog.device);
	assert_int_equal(read_bar(&c, 0xc, 2), 0x200);
	world_run(&c.w, 100 * SECOND);
	assert_int_equal(c.w.signals, 1);
	unlocked(&c, 0xc, 0x200);
	assert_int_equal(read_bar(&c, 0xc, 2), 0);
}

static void test_watchdog_is_fed(void **state)
{
	struct cards c;
	open_watchdog(&c);
	start(&c, 10);
	for (unsigned i = 0; i < 5; i++) {
		world_run(&c.w, 9 * SECOND);
		unlocked(&c, 0xc, 0x100);
	}
	assert_int_equal(c.w.signals, 0);
	write_bar(&c, 0xc, 2, 0x100); /* without the key */
	world_run(&c.w, 9 * SECOND);
	write_bar(&c, 0xc, 2, 0x100);
	world_run(&c.w, 2 * SECOND);
	assert_int_equal(c.w.signals, 1);
}

static void test_watchdog_stops_unless_locked(void **state)
{
	struct cards c;
	open_watchdog(&c);
	start(&c, 10);
	bus_mmio_write(&c.w.bus, 0, CONFIG(0x68), 1, 0);
	world_run(&c.w, 100 * SECOND);
	assert_int_equal(c.w.signals, 0);
	bus_mmio_write(&c.w.bus, 0, CONFIG(0x68), 1, 3);
	bus_mmio_write(&c.w.bus, 0, CONFIG(0x68), 1, 0);
	assert_int_equal(bus_mmio_read(&c.w.bus, 0, CONFIG(0x68), 1, NULL), 3);
	assert_saves_and_loads(&c.watchdog.device);
	assert_saves_and_loads(&c.watchdog.pci.device);
	world_run(&c.w, 11 * SECOND);
	assert_int_equal(c.w.signals, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pvpanic),
		cmocka_unit_test(test_watchdog_bites),
		cmocka_unit_test(test_watchdog_is_fed),
		cmocka_unit_test(test_watchdog_stops_unless_locked),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
