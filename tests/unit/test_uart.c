/* The 16550A: bytes both ways, the FIFO and its timeout, interrupts by priority, loopback. */
#include "device_world.h"

#include "device/uart.h"

#define BASE PLATFORM_COM1_PORT
enum { DATA = BASE, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH };

static struct device_world w;
static struct uart uart;
static unsigned room_calls;

static void has_room(void *opaque)
{
	room_calls++;
}

static int set_up(void **state)
{
	world_init(&w);
	room_calls = 0;
	int r = uart_init(&uart, "com1", BASE, &w.clock, world_line(&w, 0),
			  (struct byte_sink){world_send, &w}, &w.bus, NULL);
	uart.has_room = has_room;
	return r;
}

static int tear_down(void **state)
{
	device_fini(&uart.device);
	return clock_next_deadline(&w.clock) == CLOCK_NEVER ? 0 : -1;
}

static size_t receive(const char *text)
{
	return uart_receive(&uart, (const uint8_t *)text, strlen(text));
}

static void test_output(void **state)
{
	out8(&w, DATA, 'h');
	out8(&w, DATA, 'i');
	assert_int_equal(w.sent_count, 2);
	assert_memory_equal(w.sent, "hi", 2);
	assert_int_equal(in8(&w, LSR), 0x60);
	assert_false(w.level[0]);
}

static void test_divisor_and_scratch(void **state)
{
	out8(&w, LCR, 0x83);
	out8(&w, DATA, 1);
	out8(&w, IER, 2);
	assert_int_equal(in8(&w, DATA), 1);
	assert_int_equal(in8(&w, IER), 2);
	out8(&w, LCR, 3);
	assert_int_equal(in8(&w, IER), 0);
	assert_int_equal(w.sent_count, 0);
	out8(&w, SCRATCH, 0x5a);
	assert_int_equal(in8(&w, SCRATCH), 0x5a);
	assert_int_equal(bus_port_read(&w.bus, 0, LCR, 2, NULL), 3);
}

/* Linux looks for a 16550A by this, and for chips that forget the interrupt by the second half. */
static void test_probing(void **state)
{
	out8(&w, IIR, 1);
	assert_int_equal(in8(&w, IIR), 0xc1);
	out8(&w, IIR, 0);
	assert_int_equal(in8(&w, IIR), 0x01);
	out8(&w, IER, 0xff);
	assert_int_equal(in8(&w, IER), 0x0f);
	for (unsigned i = 0; i < 2; i++) {
		out8(&w, IER, 0);
		out8(&w, IER, 2);
		assert_int_equal(in8(&w, IIR) & 0xf, 0x2);
		assert_int_equal(in8(&w, IIR) & 0xf, 0x1);
	}
}

static void test_transmitter_interrupt(void **state)
{
	out8(&w, IER, 2);
	assert_false(w.level[0]); /* OUT2 is the gate */
	out8(&w, MCR, 8);
	assert_true(w.level[0]);
	assert_int_equal(in8(&w, IIR), 2);
	assert_false(w.level[0]);
	out8(&w, DATA, 'x');
	assert_true(w.level[0]);
}

static void test_receiver_without_fifo(void **state)
{
	out8(&w, MCR, 8);
	out8(&w, IER, 1);
	assert_int_equal(receive("ab"), 1);
	assert_true(w.level[0]);
	assert_int_equal(in8(&w, IIR), 4);
	assert_int_equal(in8(&w, LSR) & 1, 1);
	assert_int_equal(in8(&w, DATA), 'a');
	assert_false(w.level[0]);
	assert_int_equal(room_calls > 0, 1);
	assert_int_equal(in8(&w, DATA), 0);
}

static void test_trigger_and_timeout(void **state)
{
	out8(&w, LCR, 0x83);
	out8(&w, DATA, 1); /* 115200 baud: a character takes 87 us */
	out8(&w, LCR, 3);
	out8(&w, MCR, 8);
	out8(&w, IIR, 0x81); /* FIFO, 8 bytes */
	out8(&w, IER, 1);
	assert_int_equal(receive("1234567"), 7);
	assert_false(w.level[0]);
	world_run(&w, MS / 5);
	assert_false(w.level[0]);
	world_run(&w, MS / 5);
	assert_true(w.level[0]);
	assert_int_equal(in8(&w, IIR), 0xcc);
	assert_int_equal(in8(&w, DATA), '1');
	assert_false(w.level[0]);
	assert_int_equal(receive("89"), 2);
	assert_int_equal(in8(&w, IIR), 0xc4);
	assert_true(w.level[0]);
	for (char c = '2'; c <= '9'; c++)
		assert_int_equal(in8(&w, DATA), c);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
}

static void test_fifo_is_bounded(void **state)
{
	out8(&w, IIR, 0xc1);
	assert_int_equal(uart_room(&uart), 16);
	assert_int_equal(receive("0123456789abcdefghij"), 16);
	assert_int_equal(uart_room(&uart), 0);
	assert_int_equal(receive("x"), 0);
	out8(&w, IIR, 0xc3); /* clear */
	assert_int_equal(uart_room(&uart), 16);
	assert_int_equal(in8(&w, LSR) & 1, 0);
	receive("0123456789");
	out8(&w, IIR, 0); /* switching it off empties it too */
	assert_int_equal(uart_room(&uart), 1);
}

static void test_loopback(void **state)
{
	out8(&w, MCR, 0x1f);
	assert_int_equal(in8(&w, MSR) & 0xf0, 0xf0);
	out8(&w, MCR, 0x10);
	assert_int_equal(in8(&w, MSR), 0x0f); /* all fell, the ring's end among them */
	assert_int_equal(in8(&w, MSR), 0);
	out8(&w, DATA, 'q');
	assert_int_equal(w.sent_count, 0);
	assert_int_equal(receive("z"), 0); /* the outside waits */
	out8(&w, DATA, 'r');
	assert_int_equal(in8(&w, LSR) & 3, 3); /* ready, overrun */
	assert_int_equal(in8(&w, LSR) & 3, 1);
	in8(&w, DATA);
	out8(&w, MCR, 0);
	assert_int_equal(in8(&w, MSR) & 0xf0, 0xb0);
	assert_int_equal(receive("z"), 1);
}

static void test_line_status_comes_first(void **state)
{
	out8(&w, MCR, 8);
	out8(&w, IER, 0xf);
	uart.state.lsr |= 0x10; /* a break, as the board sends it */
	receive("\1");
	assert_int_equal(in8(&w, IIR), 6);
	assert_int_equal(in8(&w, LSR) & 0x11, 0x11);
	assert_int_equal(in8(&w, IIR), 4);
	in8(&w, DATA);
	assert_int_equal(in8(&w, IIR), 2);
	assert_int_equal(in8(&w, IIR), 1);
}

static void test_save_and_load(void **state)
{
	out8(&w, IIR, 0x81);
	out8(&w, IER, 3);
	out8(&w, MCR, 8);
	receive("abc");
	uint64_t deadline = clock_next_deadline(&w.clock);
	assert_int_not_equal(deadline, CLOCK_NEVER);
	assert_saves_and_loads(&uart.device);
	assert_int_equal(clock_next_deadline(&w.clock), deadline);
	device_reset(&uart.device);
	assert_false(w.level[0]);
	assert_int_equal(in8(&w, LSR), 0x60);
	assert_int_equal(clock_next_deadline(&w.clock), CLOCK_NEVER);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_output),
		TEST(test_divisor_and_scratch),
		TEST(test_probing),
		TEST(test_transmitter_interrupt),
		TEST(test_receiver_without_fifo),
		TEST(test_trigger_and_timeout),
		TEST(test_fifo_is_bounded),
		TEST(test_loopback),
		TEST(test_line_status_comes_first),
		TEST(test_save_and_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
