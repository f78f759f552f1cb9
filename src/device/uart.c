/*
 * The 16550A. The transmitter is infinitely fast: a byte written has left, so LSR says "empty"
 * always and only the interrupt needs a memory (is_thre_pending). The receiver is a FIFO that the
 * outside fills as far as there is room; nothing overruns but what the guest sends to itself in
 * loopback.
 *
 * Invariant: after each access the line is what update_irq() computes from the state, and the timer
 * is armed only while a character timeout could raise it.
 */
#include "device/uart.h"

#include <errno.h>
#include <string.h>

#define PORTS 8
#define BASE_BAUD 115200u

#define IER_RX 0x01u
#define IER_THRE 0x02u
#define IER_LINE 0x04u
#define IER_MODEM 0x08u

#define IIR_NONE 0x01u
#define IIR_MODEM 0x00u
#define IIR_THRE 0x02u
#define IIR_RX 0x04u
#define IIR_LINE 0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFO 0xc0u

#define FCR_ENABLE 0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_KEPT 0xc9u

#define LCR_DLAB 0x80u

#define MCR_DTR 0x01u
#define MCR_RTS 0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u

#define LSR_READY 0x01u
#define LSR_OVERRUN 0x02u
#define LSR_ERRORS 0x1eu
#define LSR_EMPTY 0x60u

#define MSR_DELTAS 0x0fu
#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI 0x40u
#define MSR_DCD 0x80u
#define MSR_TRAILING_RI 0x04u

/* What the other end shows: it is there, and ready. */
#define MSR_PEER (MSR_CTS | MSR_DSR | MSR_DCD)

static unsigned capacity(const struct uart_state *s)
{
	return s->fcr & FCR_ENABLE ? UART_FIFO_BYTES : 1;
}

static unsigned trigger(const struct uart_state *s)
{
	static const uint8_t levels[4] = {1, 4, 8, 14};
	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

static unsigned pending(const struct uart_state *s)
{
	if (s->ier & IER_LINE && s->lsr & LSR_ERRORS)
		return IIR_LINE;
	if (s->ier & IER_RX && s->fifo_count >= trigger(s))
		return IIR_RX;
	if (s->ier & IER_RX && s->is_timeout && s->fifo_count)
		return IIR_TIMEOUT;
	if (s->ier & IER_THRE && s->is_thre_pending)
		return IIR_THRE;
	if (s->ier & IER_MODEM && s->msr & MSR_DELTAS)
		return IIR_MODEM;
	return IIR_NONE;
}

/* Four characters' time after the last one came or was read. */
static uint64_t timeout_cycles(struct uart *u)
{
	const struct uart_state *s = &u->state;
	uint64_t divisor = s->divisor_low | (uint64_t)s->divisor_high << 8;
	uint64_t frame = 1 + 5 + (s->lcr & 3) + (s->lcr & 4 ? 2 : 1) + (s->lcr & 8 ? 1 : 0);
	return clock_cycles_from_ticks(u->clock, BASE_BAUD, 4 * frame * (divisor ? divisor : 1));
}

static void update_timer(struct uart *u)
{
	const struct uart_state *s = &u->state;
	bool is_waiting = s->ier & IER_RX && !s->is_timeout && s->fifo_count &&
			  s->fifo_count < trigger(s);
	if (!is_waiting) {
		timer_cancel(u->clock, &u->timer);
		return;
	}
	uint64_t deadline = s->last_rx_cycles + timeout_cycles(u);
	if (!u->timer.is_armed || u->timer.deadline_cycles != deadline)
		timer_arm(u->clock, &u->timer, deadline);
}

/* OUT2 is the gate between the chip and the interrupt controller on every PC; loopback cuts it off.
 */
static void update_irq(struct uart *u)
{
	const struct uart_state *s = &u->state;
	bool is_gated = (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
	irq_line_set(&u->irq, is_gated && pending(s) != IIR_NONE);
	update_timer(u);
}

static void timeout_fired(void *opaque, uint64_t deadline_cycles)
{
	struct uart *u = opaque;
	u->state.is_timeout = 1;
	update_irq(u);
}

static void fifo_push(struct uart *u, uint8_t byte)
{
	struct uart_state *s = &u->state;
	s->fifo[(s->fifo_head + s->fifo_count) % UART_FIFO_BYTES] = byte;
	s->fifo_count++;
	s->is_timeout = 0;
	s->last_rx_cycles = clock_now(u->clock);
}

static void tell_room(struct uart *u)
{
	if (u->has_room && uart_room(u))
		u->has_room(u->room_opaque);
}

static uint8_t read_rbr(struct uart *u)
{
	struct uart_state *s = &u->state;
	if (!s->fifo_count)
		return 0;
	uint8_t byte = s->fifo[s->fifo_head];
	s->fifo_head = (s->fifo_head + 1) % UART_FIFO_BYTES;
	s->fifo_count--;
	s->is_timeout = 0;
	s->last_rx_cycles = clock_now(u->clock);
	tell_room(u);
	return byte;
}

static void write_thr(struct uart *u, uint8_t byte)
{
	struct uart_state *s = &u->state;
	s->is_thre_pending = 1; /* the old cause is gone, and the byte has left already */
	if (!(s->mcr & MCR_LOOP))
		byte_sink_send(&u->output, &byte, 1);
	else if (s->fifo_count < capacity(s))
		fifo_push(u, byte);
	else
		s->lsr |= LSR_OVERRUN;
}

static void write_ier(struct uart_state *s, uint8_t value)
{
	/* The empty transmitter interrupts again each time it is asked anew. */
	if (value & IER_THRE && !(s->ier & IER_THRE))
		s->is_thre_pending = 1;
	s->ier = value & 0xf;
}

static void write_fcr(struct uart *u, uint8_t value)
{
	struct uart_state *s = &u->state;
	bool is_switched = (value ^ s->fcr) & FCR_ENABLE;
	/* Without its enable bit, the others are not written. */
	s->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
	if (!is_switched && !(value & FCR_ENABLE && value & FCR_CLEAR_RX))
		return;
	s->fifo_count = 0;
	s->fifo_head = 0;
	s->is_timeout = 0;
	tell_room(u);
}

static uint8_t modem_lines(const struct uart_state *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_PEER;
	return (uint8_t)((s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
			 (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void write_mcr(struct uart *u, uint8_t value)
{
	struct uart_state *s = &u->state;
	bool was_loop = s->mcr & MCR_LOOP;
	s->mcr = value & 0x1f;
	uint8_t lines = modem_lines(s);
	uint8_t changed = (lines ^ s->msr) >> 4;
	if (changed & MSR_TRAILING_RI && lines & MSR_RI)
		changed &= (uint8_t)~MSR_TRAILING_RI; /* only its end counts */
	s->msr = lines | (s->msr & MSR_DELTAS) | changed;
	if (was_loop && !(s->mcr & MCR_LOOP))
		tell_room(u);
}

static uint8_t read_iir(struct uart_state *s)
{
	unsigned cause = pending(s);
	if (cause == IIR_THRE)
		s->is_thre_pending = 0;
	return (uint8_t)(cause | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0));
}

static uint8_t read_lsr(struct uart_state *s)
{
	uint8_t value = (s->lsr & LSR_ERRORS) | LSR_EMPTY | (s->fifo_count ? LSR_READY : 0);
	s->lsr = LSR_EMPTY;
	return value;
}

static uint8_t read_register(struct uart *u, unsigned port)
{
	struct uart_state *s = &u->state;
	uint8_t value;
	switch (port) {
	case 0: return s->lcr & LCR_DLAB ? s->divisor_low : read_rbr(u);
	case 1: return s->lcr & LCR_DLAB ? s->divisor_high : s->ier;
	case 2: return read_iir(s);
	case 3: return s->lcr;
	case 4: return s->mcr;
	case 5: return read_lsr(s);
	case 6:
		value = s->msr;
		s->msr &= (uint8_t)~MSR_DELTAS;
		return value;
	default: return s->scratch;
	}
}

static void write_register(struct uart *u, unsigned port, uint8_t value)
{
	struct uart_state *s = &u->state;
	switch (port) {
	case 0:
		if (s->lcr & LCR_DLAB)
			s->divisor_low = value;
		else
			write_thr(u, value);
		break;
	case 1:
		if (s->lcr & LCR_DLAB)
			s->divisor_high = value;
		else
			write_ier(s, value);
		break;
	case 2: write_fcr(u, value); break;
	case 3: s->lcr = value; break;
	case 4: write_mcr(u, value); break;
	case 7: s->scratch = value; break;
	default: break; /* LSR and MSR are the chip's to write */
	}
}

static uint64_t uart_read(void *opaque, struct bus_access access)
{
	struct uart *u = opaque;
	uint64_t value = 0;
	for (unsigned i = 0; i < access.size_bytes; i++)
		value |= (uint64_t)read_register(u, (unsigned)(access.offset + i) % PORTS)
			 << (8 * i);
	update_irq(u);
	return value;
}

static void uart_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct uart *u = opaque;
	for (unsigned i = 0; i < access.size_bytes; i++)
		write_register(u, (unsigned)(access.offset + i) % PORTS, (uint8_t)(value >> 8 * i));
	update_irq(u);
}

static void uart_reset(struct device *d)
{
	struct uart *u = (struct uart *)d;
	u->state =
		(struct uart_state){.lsr = LSR_EMPTY, .msr = MSR_PEER, .divisor_low = 12, .lcr = 3};
	update_irq(u);
}

static int uart_resume(struct device *d, struct error *e)
{
	struct uart *u = (struct uart *)d;
	const struct uart_state *s = &u->state;
	if (s->fifo_head >= UART_FIFO_BYTES || s->fifo_count > capacity(s))
		return error_set(e, -EINVAL, "the receive FIFO holds %u bytes from %u on",
				 s->fifo_count, s->fifo_head);
	update_timer(u);
	return 0;
}

static void uart_fini(struct device *d)
{
	struct uart *u = (struct uart *)d;
	timer_cancel(u->clock, &u->timer);
}

static const struct device_ops uart_device_ops = {
	.version = 1, .reset = uart_reset, .resume = uart_resume, .fini = uart_fini};
static const struct bus_ops uart_bus_ops = {uart_read, uart_write};

int uart_init(struct uart *u, const char *instance, uint16_t port, struct clock *clock,
	      struct irq_line irq, struct byte_sink output, struct bus *bus, struct error *e)
{
	memset(u, 0, sizeof(*u));
	u->clock = clock;
	u->irq = irq;
	u->output = output;
	u->timer.fire = timeout_fired;
	u->timer.opaque = u;
	device_init(&u->device, &uart_device_ops, "uart", instance, &u->state, sizeof(u->state));
	uart_reset(&u->device);
	return bus_map_ports(bus, port, PORTS, &uart_bus_ops, u, "uart", e);
}

/* In loopback the receiver listens to the transmitter; what comes from outside waits. */
size_t uart_room(const struct uart *u)
{
	const struct uart_state *s = &u->state;
	return s->mcr & MCR_LOOP ? 0 : capacity(s) - s->fifo_count;
}

size_t uart_receive(struct uart *u, const uint8_t *bytes, size_t count)
{
	size_t taken = uart_room(u);
	if (taken > count)
		taken = count;
	for (size_t i = 0; i < taken; i++)
		fifo_push(u, bytes[i]);
	update_irq(u);
	return taken;
}
