/*
 * The 16550A. The transmitter is infinitely fast: a byte written has left before the next
 * instruction, so the holding register is always empty and the interrupt says so at once. The
 * receiver is as fast as somebody offers bytes.
 */
#include "device/uart.h"

#include <errno.h>
#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };

#define IER_RX 0x01
#define IER_THRE 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08

#define IIR_NONE 0x01
#define IIR_MODEM 0x00
#define IIR_THRE 0x02
#define IIR_RX 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0

#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_KEPT 0xc9

#define LCR_DLAB 0x80

#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_READY 0x01
#define LSR_OVERRUN 0x02
#define LSR_ERRORS 0x1e
#define LSR_THRE 0x20
#define LSR_IDLE 0x40

#define MSR_CHANGES 0x0f
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

#define UART_HZ 115200u /* characters' bits per second at divisor 1 */
#define BITS_PER_CHARACTER 10
#define TIMEOUT_CHARACTERS 4

static unsigned fifo_size(const struct uart_state *s)
{
	return s->fcr & FCR_ENABLE ? UART_FIFO_BYTES : 1;
}

static unsigned trigger_level(const struct uart_state *s)
{
	static const uint8_t levels[] = {1, 4, 8, 14};
	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* What the IIR says, by priority. */
static uint8_t interrupt_id(const struct uart_state *s)
{
	if ((s->ier & IER_LINE) && (s->lsr & LSR_ERRORS))
		return IIR_LINE;
	if ((s->ier & IER_RX) && s->fifo_count >= trigger_level(s))
		return IIR_RX;
	if ((s->ier & IER_RX) && s->is_timeout)
		return IIR_TIMEOUT;
	if ((s->ier & IER_THRE) && s->is_thre_pending)
		return IIR_THRE;
	if ((s->ier & IER_MODEM) && (s->msr & MSR_CHANGES))
		return IIR_MODEM;
	return IIR_NONE;
}

static uint64_t timeout_cycles(const struct uart *u)
{
	unsigned divisor = u->state.divisor_low | u->state.divisor_high << 8;
	uint64_t bits = (uint64_t)TIMEOUT_CHARACTERS * BITS_PER_CHARACTER * (divisor ? divisor : 1);
	return clock_cycles_from_ticks(u->clock, UART_HZ, bits);
}

/* The timer of bytes that lie below the trigger level. */
static void arm(struct uart *u)
{
	const struct uart_state *s = &u->state;
	bool is_waiting = (s->fcr & FCR_ENABLE) && (s->ier & IER_RX) && s->fifo_count &&
			  s->fifo_count < trigger_level(s) && !s->is_timeout;
	if (is_waiting)
		timer_arm(u->clock, &u->timer, s->last_rx_cycles + timeout_cycles(u));
	else
		timer_cancel(u->clock, &u->timer);
}

/* The line, and what is due next. OUT2 gates the line on a PC. */
static void update(struct uart *u)
{
	const struct uart_state *s = &u->state;
	arm(u);
	bool is_gated = (s->mcr & MCR_OUT2) && !(s->mcr & MCR_LOOP);
	irq_line_set(&u->irq, is_gated && interrupt_id(s) != IIR_NONE);
}

static void uart_fire(void *opaque, uint64_t deadline_cycles)
{
	struct uart *u = opaque;
	u->state.is_timeout = 1;
	update(u);
}

static void push(struct uart *u, uint8_t byte)
{
	struct uart_state *s = &u->state;
	if (s->fifo_count >= fifo_size(s)) {
		s->lsr |= LSR_OVERRUN;
		return;
	}
	s->fifo[(s->fifo_head + s->fifo_count) % UART_FIFO_BYTES] = byte;
	s->fifo_count++;
	s->lsr |= LSR_READY;
	s->last_rx_cycles = clock_now(u->clock);
}

size_t uart_room(const struct uart *u)
{
	const struct uart_state *s = &u->state;
	if (s->mcr & MCR_LOOP)
		return 0;
	unsigned size = fifo_size(s);
	return s->fifo_count < size ? size - s->fifo_count : 0;
}

size_t uart_receive(struct uart *u, const uint8_t *bytes, size_t count)
{
	size_t room = uart_room(u), taken = count < room ? count : room;
	for (size_t i = 0; i < taken; i++)
		push(u, bytes[i]);
	if (taken)
		update(u);
	return taken;
}

static uint8_t read_data(struct uart *u)
{
	struct uart_state *s = &u->state;
	if (!s->fifo_count)
		return 0;
	uint8_t byte = s->fifo[s->fifo_head];
	s->fifo_head = (s->fifo_head + 1) % UART_FIFO_BYTES;
	s->fifo_count--;
	s->is_timeout = 0;
	s->last_rx_cycles = clock_now(u->clock);
	if (!s->fifo_count) {
		s->lsr &= (uint8_t)~LSR_READY;
		if (u->has_room)
			u->has_room(u->room_opaque);
	}
	update(u);
	return byte;
}

static uint8_t read_iir(struct uart *u)
{
	struct uart_state *s = &u->state;
	uint8_t id = interrupt_id(s);
	if (id == IIR_THRE) {
		s->is_thre_pending = 0;
		update(u);
	}
	return id | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct uart *u)
{
	uint8_t value = u->state.lsr;
	u->state.lsr &= (uint8_t)~LSR_ERRORS;
	update(u);
	return value;
}

static uint8_t read_msr(struct uart *u)
{
	uint8_t value = u->state.msr;
	u->state.msr &= (uint8_t)~MSR_CHANGES;
	update(u);
	return value;
}

static uint8_t read_register(struct uart *u, unsigned reg)
{
	const struct uart_state *s = &u->state;
	bool is_dlab = s->lcr & LCR_DLAB;
	switch (reg) {
	case REG_DATA: return is_dlab ? s->divisor_low : read_data(u);
	case REG_IER: return is_dlab ? s->divisor_high : s->ier;
	case REG_IIR_FCR: return read_iir(u);
	case REG_LCR: return s->lcr;
	case REG_MCR: return s->mcr;
	case REG_LSR: return read_lsr(u);
	case REG_MSR: return read_msr(u);
	default: return s->scratch;
	}
}

static void write_data(struct uart *u, uint8_t byte)
{
	struct uart_state *s = &u->state;
	if (s->mcr & MCR_LOOP)
		push(u, byte);
	else
		byte_sink_send(&u->output, &byte, 1);
	s->is_thre_pending = 1;
	update(u);
}

static void write_ier(struct uart *u, uint8_t value)
{
	struct uart_state *s = &u->state;
	/* Enabling it while the transmitter is empty, as it always is, raises it. */
	if ((value & IER_THRE) && !(s->ier & IER_THRE))
		s->is_thre_pending = 1;
	s->ier = value & 0x0f;
	update(u);
}

static void write_fcr(struct uart *u, uint8_t value)
{
	struct uart_state *s = &u->state;
	bool is_switched = (s->fcr ^ value) & FCR_ENABLE;
	if (is_switched || (value & FCR_CLEAR_RX)) {
		s->fifo_head = s->fifo_count = s->is_timeout = 0;
		s->lsr &= (uint8_t)~LSR_READY;
	}
	s->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
	update(u);
	if (u->has_room && uart_room(u))
		u->has_room(u->room_opaque);
}

/* Without a modem the lines are those of a terminal that is there. In loopback they are the
 * outputs'. */
static uint8_t modem_lines(uint8_t mcr)
{
	if (!(mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
	       (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void write_mcr(struct uart *u, uint8_t value)
{
	struct uart_state *s = &u->state;
	s->mcr = value & 0x1f;
	uint8_t lines = modem_lines(s->mcr), changed = (s->msr ^ lines) & 0xf0;
	/* The ring indicator's change bit is for its trailing edge only. */
	if ((changed & MSR_RI) && (lines & MSR_RI))
		changed &= (uint8_t)~MSR_RI;
	s->msr = lines | (s->msr & MSR_CHANGES) | changed >> 4;
	update(u);
	if (u->has_room && uart_room(u))
		u->has_room(u->room_opaque);
}

static void write_register(struct uart *u, unsigned reg, uint8_t value)
{
	struct uart_state *s = &u->state;
	bool is_dlab = s->lcr & LCR_DLAB;
	switch (reg) {
	case REG_DATA:
		if (is_dlab)
			s->divisor_low = value;
		else
			write_data(u, value);
		break;
	case REG_IER:
		if (is_dlab)
			s->divisor_high = value;
		else
			write_ier(u, value);
		break;
	case REG_IIR_FCR: write_fcr(u, value); break;
	case REG_LCR: s->lcr = value; break;
	case REG_MCR: write_mcr(u, value); break;
	case REG_SCRATCH: s->scratch = value; break;
	default: break; /* LSR and MSR: factory test only */
	}
}

static void settle(struct uart *u)
{
	if (u->timer.is_armed && u->timer.deadline_cycles <= clock_now(u->clock)) {
		timer_cancel(u->clock, &u->timer);
		uart_fire(u, 0);
	}
}

static uint64_t uart_read(void *opaque, struct bus_access access)
{
	struct uart *u = opaque;
	uint64_t value = 0;
	settle(u);
	for (unsigned i = 0; i < access.size_bytes; i++)
		value |= (uint64_t)read_register(u, (unsigned)access.offset + i) << (8 * i);
	return value;
}

static void uart_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct uart *u = opaque;
	settle(u);
	for (unsigned i = 0; i < access.size_bytes; i++)
		write_register(u, (unsigned)access.offset + i, (uint8_t)(value >> (8 * i)));
}

static const struct bus_ops uart_bus_ops = {uart_read, uart_write};

static void uart_reset(struct device *d)
{
	struct uart *u = (struct uart *)d;
	memset(&u->state, 0, sizeof(u->state));
	u->state.lsr = LSR_THRE | LSR_IDLE;
	u->state.msr = modem_lines(0);
	u->state.divisor_low = 12; /* 9600 baud */
	update(u);
}

static int uart_resume(struct device *d, struct error *e)
{
	struct uart *u = (struct uart *)d;
	if (u->state.fifo_head >= UART_FIFO_BYTES || u->state.fifo_count > UART_FIFO_BYTES)
		return error_set(e, -EINVAL, "impossible FIFO");
	arm(u);
	return 0;
}

static void uart_fini(struct device *d)
{
	struct uart *u = (struct uart *)d;
	timer_cancel(u->clock, &u->timer);
}

static const struct device_ops uart_ops = {1, uart_reset, uart_resume, uart_fini};

int uart_init(struct uart *u, const char *instance, uint16_t port, struct clock *clock,
	      struct irq_line irq, struct byte_sink output, struct bus *bus, struct error *e)
{
	*u = (struct uart){.clock = clock, .irq = irq, .output = output};
	u->timer = (struct timer){.fire = uart_fire, .opaque = u};
	device_init(&u->device, &uart_ops, "uart", instance, &u->state, sizeof(u->state));
	device_reset(&u->device);
	return bus_map_ports(bus, port, 8, &uart_bus_ops, u, "UART", e);
}
