/* The bus: mapping, splitting, and the one path of what nobody answers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "bus/bus.h"

#include <cmocka.h>

/* A device that remembers the last access and reads as base + offset in every byte. */
struct probe {
	struct bus_access last;
	uint64_t value;
	unsigned reads, writes;
	uint8_t base;
};

static uint64_t probe_read(void *opaque, struct bus_access access)
{
	struct probe *p = opaque;
	p->last = access;
	p->reads++;
	uint64_t v = 0;
	for (unsigned i = 0; i < access.size_bytes; i++)
		v |= (uint64_t)(uint8_t)(p->base + access.offset + i) << (8 * i);
	return v;
}

static void probe_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct probe *p = opaque;
	p->last = access;
	p->value = value;
	p->writes++;
}

static const struct bus_ops probe_ops = {probe_read, probe_write};

static void test_whole_accesses(void **state)
{
	static struct bus b;
	struct probe p = {.base = 0x10};
	bool handled;
	bus_init(&b);
	assert_int_equal(bus_map_ports(&b, 0x60, 4, &probe_ops, &p, "probe", NULL), 0);
	assert_int_equal(bus_port_read(&b, 3, 0x61, 2, &handled), 0x1211);
	assert_true(handled);
	assert_int_equal(p.last.vcpu, 3);
	assert_int_equal(p.last.offset, 1);
	assert_true(bus_port_write(&b, 0, 0x60, 4, 0x1122334455667788));
	assert_int_equal(p.value, 0x55667788);
	assert_int_equal(b.unhandled_port_count, 0);
	assert_int_equal(bus_port_read(&b, 0, 0x64, 1, &handled), 0xff);
	assert_false(handled);
	assert_int_equal(b.unhandled_port_count, 1);
}

static void test_straddling(void **state)
{
	static struct bus b;
	struct probe low = {.base = 0x10}, high = {.base = 0x80};
	bool handled;
	bus_init(&b);
	assert_int_equal(bus_map_mmio(&b, gpa(0x2000), 0x1000, &probe_ops, &high, "high", NULL), 0);
	assert_int_equal(bus_map_mmio(&b, gpa(0x1000), 0x1000, &probe_ops, &low, "low", NULL), 0);
	assert_int_equal(bus_mmio_read(&b, 0, gpa(0x1ffe), 4, &handled), 0x81800f0e);
	assert_true(handled);
	assert_int_equal(low.reads, 2);
	assert_int_equal(b.unhandled_mmio_count, 0);
	/* Half of it nobody's: those bytes are ones and it is counted once. */
	assert_true(bus_mmio_read(&b, 0, gpa(0x2ffc), 8, &handled) == 0xffffffff7f7e7d7cull);
	assert_int_equal(b.unhandled_mmio_count, 1);
	assert_true(bus_mmio_write(&b, 0, gpa(0xfff), 2, 0xabcd));
	assert_int_equal(low.value, 0xab);
	/* The ends of both spaces do not wrap to 0. */
	assert_int_equal(bus_port_read(&b, 0, 0xffff, 4, &handled), 0xffffffff);
	assert_false(handled);
	assert_false(bus_mmio_write(&b, 0, gpa(UINT64_MAX), 8, 0));
}

static void test_map_errors(void **state)
{
	static struct bus b;
	struct probe p = {0};
	struct error e = {0};
	bus_init(&b);
	assert_int_equal(bus_map_ports(&b, 0x100, 0x10, &probe_ops, &p, "first", &e), 0);
	assert_int_equal(bus_map_ports(&b, 0x10f, 1, &probe_ops, &p, "second", &e), -EEXIST);
	assert_non_null(strstr(e.text, "first"));
	assert_non_null(strstr(e.text, "second"));
	assert_int_equal(bus_map_ports(&b, 0xf0, 0x100, &probe_ops, &p, "around", NULL), -EEXIST);
	assert_int_equal(bus_map_ports(&b, 0xfff0, 0x11, &probe_ops, &p, "past", NULL), -EINVAL);
	assert_int_equal(bus_map_mmio(&b, gpa(UINT64_MAX), 2, &probe_ops, &p, "past", NULL),
			 -EINVAL);
	assert_int_equal(bus_map_mmio(&b, gpa(0), 0, &probe_ops, &p, "empty", NULL), -EINVAL);
	for (unsigned i = 1; i < BUS_RANGES_MAX; i++)
		assert_int_equal(bus_map_ports(&b, (uint16_t)(0x1000 - 8 * i), 8, &probe_ops, &p,
					       "many", NULL),
				 0);
	assert_int_equal(bus_map_ports(&b, 0x4000, 1, &probe_ops, &p, "more", NULL), -ENOSPC);
	bus_unmap_ports(&b, 0x104); /* not a base: nothing happens */
	bus_unmap_ports(&b, 0x100);
	assert_int_equal(bus_map_ports(&b, 0x4000, 1, &probe_ops, &p, "more", NULL), 0);
	assert_int_equal(b.port_range_count, BUS_RANGES_MAX);
}

static void test_unhandled_stop(void **state)
{
	static struct bus b;
	bus_init(&b);
	b.unhandled = UNHANDLED_STOP;
	assert_false(bus_port_write(&b, 0, 0x1234, 2, 0xbeef));
	assert_true(b.stop_requested);
	assert_non_null(strstr(b.stop_text, "0x1234"));
	assert_non_null(strstr(b.stop_text, "0xbeef"));
	/* The first one is the one that is told. */
	bus_mmio_read(&b, 0, gpa(0x55550000), 4, NULL);
	assert_non_null(strstr(b.stop_text, "0x1234"));
	assert_int_equal(b.unhandled_mmio_count, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_accesses),
		cmocka_unit_test(test_straddling),
		cmocka_unit_test(test_map_errors),
		cmocka_unit_test(test_unhandled_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
