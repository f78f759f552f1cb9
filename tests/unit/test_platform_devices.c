/* The small devices: keyboard controller, ACPI registers, PCI host, legacy ports. */
#include "device_world.h"

#include "device/acpi_pm.h"
#include "device/i8042.h"
#include "device/legacy_ports.h"
#include "device/pci.h"

static struct device_world w;
static struct i8042 i8042;
static struct acpi_pm pm;
static struct pci_host pci;
static struct legacy_ports legacy;

static int set_up(void **state)
{
	struct device_signal signal = {world_signal, &w};
	struct legacy_ports_wires wires = {.reset = signal,
					   .debug_exit = signal,
					   .console = {world_send, &w},
					   .has_debug_exit = true,
					   .has_console = true};
	world_init(&w);
	int r = i8042_init(&i8042, world_line(&w, 0), world_line(&w, 1), true, signal, &w.bus,
			   NULL);
	if (!r)
		r = acpi_pm_init(&pm, &w.clock, 24, world_line(&w, 2), signal, &w.bus, NULL);
	if (!r)
		r = pci_host_init(&pci, signal, &w.bus, NULL);
	if (!r)
		r = legacy_ports_init(&legacy, &wires, &w.bus, NULL);
	return r;
}

static int tear_down(void **state)
{
	device_fini(&i8042.device);
	device_fini(&pm.device);
	device_fini(&pci.device);
	device_fini(&legacy.device);
	return clock_next_deadline(&w.clock) == CLOCK_NEVER ? 0 : -1;
}

static uint64_t in(uint16_t port, unsigned size)
{
	return bus_port_read(&w.bus, 0, port, size, NULL);
}

static void out(uint16_t port, unsigned size, uint64_t value)
{
	bus_port_write(&w.bus, 0, port, size, value);
}

/* ---- i8042 ---- */

static void test_controller(void **state)
{
	out8(&w, 0x64, 0xaa);
	assert_int_equal(in8(&w, 0x64) & 0x21, 1);
	assert_int_equal(in8(&w, 0x60), 0x55);
	assert_int_equal(in8(&w, 0x64) & 1, 0);
	out8(&w, 0x64, 0xa9);
	assert_int_equal(in8(&w, 0x60), 0);
	out8(&w, 0x64, 0x60);
	out8(&w, 0x60, 0x47);
	out8(&w, 0x64, 0x20);
	assert_int_equal(in8(&w, 0x60), 0x47);
	out8(&w, 0x64, 0x65);
	out8(&w, 0x60, 0x99);
	out8(&w, 0x64, 0x25);
	assert_int_equal(in8(&w, 0x60), 0x99);
	out8(&w, 0x64, 0xd3); /* comes back as if from the mouse */
	out8(&w, 0x60, 0x5a);
	assert_int_equal(in8(&w, 0x64) & 0x21, 0x21);
	assert_int_equal(in8(&w, 0x60), 0x5a);
}

static void test_keyboard_and_mouse(void **state)
{
	out8(&w, 0x64, 0x60);
	out8(&w, 0x60, 0x03); /* both interrupts, no translation */
	out8(&w, 0x60, 0xf2);
	assert_true(w.level[0]);
	assert_int_equal(in8(&w, 0x60), 0xfa);
	assert_int_equal(in8(&w, 0x60), 0xab);
	assert_int_equal(in8(&w, 0x60), 0x83);
	assert_false(w.level[0]);
	assert_int_equal(w.rises[0], 3); /* each byte is an edge */
	out8(&w, 0x64, 0xd4);
	out8(&w, 0x60, 0xff);
	assert_true(w.level[1]);
	assert_int_equal(in8(&w, 0x60), 0xfa);
	assert_int_equal(in8(&w, 0x60), 0xaa);
	assert_int_equal(in8(&w, 0x60), 0x00);
	assert_int_equal(in8(&w, 0x64) & 1, 0);
}

static void test_keys_are_all_or_none(void **state)
{
	uint8_t bytes[I8042_QUEUE + 1] = {0x1c};
	out8(&w, 0x64, 0xad);
	assert_true(i8042_key(&i8042, bytes, 3));
	assert_false(i8042_key(&i8042, bytes, I8042_QUEUE - 2));
	assert_true(i8042_key(&i8042, bytes, I8042_QUEUE - 3));
	assert_int_equal(in8(&w, 0x64) & 1, 0); /* its clock is held */
	out8(&w, 0x64, 0xae);
	for (unsigned i = 0; i < I8042_QUEUE; i++) {
		assert_int_equal(in8(&w, 0x64) & 1, 1);
		in8(&w, 0x60);
	}
	assert_int_equal(in8(&w, 0x64) & 1, 0);
	assert_saves_and_loads(&i8042.device);
}

static void test_keyboard_reset_pulse(void **state)
{
	out8(&w, 0x64, 0xff); /* pulses nothing */
	assert_int_equal(w.signals, 0);
	out8(&w, 0x64, 0xfe);
	assert_int_equal(w.signals, 1);
	out8(&w, 0x64, 0xd1);
	out8(&w, 0x60, 0x02);
	assert_int_equal(w.signals, 2);
}

/* ---- ACPI ---- */

static void test_power_off(void **state)
{
	assert_int_equal(in(0x604, 2) & 1, 1); /* ACPI mode, always */
	out(0x604, 2, 3 << 10 | 1 << 13);
	assert_int_equal(w.signals, 0);
	out(0x604, 2, 5 << 10);
	assert_int_equal(w.signals, 0);
	out(0x604, 2, 5 << 10 | 1 << 13);
	assert_int_equal(w.signals, 1);
	assert_int_equal(in(0x604, 2) & 0x2001, 1);
}

static void test_pm_timer(void **state)
{
	world_run(&w, WORLD_HZ);
	assert_int_equal(in(0x608, 4), 3579545);
	world_run(&w, 9 * WORLD_HZ);
	assert_int_equal(in(0x608, 4), 35795450 & 0xffffff);
	assert_int_equal(in(0x60a, 1), 35795450 >> 16 & 0xff);
	assert_int_equal(in(0x600, 2) & 1, 1); /* the highest bit has changed */
	out(0x600, 2, 1);
	assert_int_equal(in(0x600, 2) & 1, 0);
	out(0x602, 2, 1);
	assert_int_equal(clock_next_deadline(&w.clock),
			 clock_cycles_from_ticks(&w.clock, PLATFORM_PM_TIMER_HZ, 5ull << 23));
	world_run_to(&w, clock_next_deadline(&w.clock));
	assert_true(w.level[2]);
	assert_int_equal(in(0x600, 4), 0x10001);
	out(0x600, 1, 1);
	assert_false(w.level[2]);
}

static void test_power_button(void **state)
{
	acpi_pm_press_power_button(&pm);
	assert_false(w.level[2]);
	out(0x602, 2, 0x100);
	assert_true(w.level[2]);
	out(0x601, 1, 1);
	assert_false(w.level[2]);
	assert_saves_and_loads(&pm.device);
}

/* ---- PCI ---- */

static uint64_t config(unsigned devfn, unsigned reg, unsigned size)
{
	out(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & 0xfc));
	return in((uint16_t)(0xcfc + (reg & 3)), size);
}

static void config_set(unsigned devfn, unsigned reg, unsigned size, uint64_t value)
{
	out(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & 0xfc));
	out((uint16_t)(0xcfc + (reg & 3)), size, value);
}

static uint64_t ecam(uint64_t offset, unsigned size)
{
	return bus_mmio_read(&w.bus, 0, gpa(PLATFORM_ECAM_BASE + offset), size, NULL);
}

static void test_pci_bridges(void **state)
{
	assert_int_equal(config(0, 0x0a, 2), 0x0600);
	assert_int_equal(config(0xf8, 0x0a, 2), 0x0601);
	assert_int_equal(config(8, 0, 4), 0xffffffff);
	assert_int_equal(in(0xcf8, 4), 0x80000800);
	assert_int_equal(ecam(0, 4), config(0, 0, 4));
	assert_int_equal(ecam(0xf8000, 8), config(0xf8, 0, 4) | config(0xf8, 4, 4) << 32);
	assert_int_equal(ecam(0x100, 4), 0);
	assert_int_equal(ecam(0x100000, 4), 0xffffffff); /* bus 1 */
	ecam(0xfffffff, 1);
	ecam(0xffd, 8);
	config_set(0, 0, 4, 0);
	assert_int_not_equal(config(0, 0, 2), 0);
	out(0xcf8, 4, 0);
	assert_int_equal(in(0xcfc, 4), 0xffffffff);
}

static uint64_t card_read(void *opaque, struct bus_access access)
{
	return 0x40 + access.offset;
}

static void card_write(void *opaque, struct bus_access access, uint64_t value)
{
}

static const struct bus_ops card_ops = {card_read, card_write};

static uint64_t memory(uint64_t address)
{
	return bus_mmio_read(&w.bus, 0, gpa(address), 1, NULL);
}

static void test_pci_bars(void **state)
{
	static struct pci_device card;
	pci_device_init(&card, "card", 0x1234, 0x5678, 0x020000, 1);
	pci_device_set_bar(
		&card, 0,
		&(struct pci_bar){.size_bytes = 0x1000, .ops = &card_ops, .is_64bit = true});
	pci_device_set_bar(&card, 2,
			   &(struct pci_bar){.size_bytes = 0x20, .ops = &card_ops, .is_io = true});
	pci_device_set_interrupt_pin(&card, 1);
	assert_int_equal(pci_host_add(&pci, &card, 3, 0, NULL), 0);
	assert_int_equal(pci_host_add(&pci, &card, 3, 0, NULL), -EEXIST);
	assert_int_equal(pci_host_assign(&pci, NULL), 0);
	assert_int_equal(pci_device_gsi(&card), 19);
	assert_int_equal(config(0x18, 0x3c, 1), 19);
	uint64_t base = config(0x18, 0x10, 4) & ~15ull;
	uint64_t port = config(0x18, 0x18, 4) & ~3ull;
	assert_int_equal(memory(base + 5), 0x45);
	assert_int_equal(in((uint16_t)(port + 1), 1), 0x41);
	config_set(0x18, 0x10, 4, 0xffffffff);
	assert_int_equal(config(0x18, 0x10, 4), 0xfffff004);
	assert_int_equal(memory(base), 0xff);
	config_set(0x18, 0x10, 4, 0xfee00000); /* over the local APICs: never */
	assert_int_equal(memory(0xfee00000), 0xff);
	config_set(0x18, 0x10, 4, 0xd0000000);
	assert_int_equal(memory(0xd0000005), 0x45);
	config_set(0x18, 0x04, 2, 0);
	assert_int_equal(memory(0xd0000005), 0xff);
	assert_int_equal(in((uint16_t)port, 1), 0xff);
	assert_saves_and_loads(&pci.device);
}

static void test_reset_register(void **state)
{
	out(0xcf9, 1, 2);
	assert_int_equal(w.signals, 0);
	out(0xcf9, 1, PLATFORM_RESET_VALUE);
	assert_int_equal(w.signals, 1);
	assert_int_equal(in(0xcf9, 1), 6);
}

/* ---- legacy ports ---- */

static void test_legacy_ports(void **state)
{
	out8(&w, 0x80, 0x42);
	assert_int_equal(in8(&w, 0x80), 0x42);
	out8(&w, 0xed, 1);
	assert_int_equal(in8(&w, 0xed), 0xff);
	assert_int_equal(in8(&w, 0xe9), 0xe9);
	out8(&w, 0xe9, 'd');
	assert_int_equal(w.sent[0], 'd');
	assert_int_equal(in8(&w, 0x92), 2);
	out8(&w, 0x92, 3);
	assert_int_equal(w.signals, 1);
	out8(&w, 0x92, 3); /* it rises only once */
	assert_int_equal(w.signals, 1);
	out(0xf4, 4, 0x12345678);
	assert_int_equal(w.signals, 2);
	assert_int_equal(w.signal_value, 0x12345678);
	out8(&w, 0xf4, 0x10);
	assert_int_equal(w.signal_value, 0x10);
	assert_saves_and_loads(&legacy.device);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_controller),
		TEST(test_keyboard_and_mouse),
		TEST(test_keys_are_all_or_none),
		TEST(test_keyboard_reset_pulse),
		TEST(test_power_off),
		TEST(test_pm_timer),
		TEST(test_power_button),
		TEST(test_pci_bridges),
		TEST(test_pci_bars),
		TEST(test_reset_register),
		TEST(test_legacy_ports),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
