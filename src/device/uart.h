/*
 * The 16550A serial port. Bytes leave through a byte_sink as soon as they are written; bytes come
 * in through uart_receive() as fast as the FIFO has room. National Semiconductor PC16550D data
 * sheet.
 */
#pragma once

#include "bus/bus.h"
#include "clock/clock.h"
#include "device/device.h"

#define UART_FIFO_BYTES 16

struct uart_state {
	uint8_t fifo[UART_FIFO_BYTES];
	uint8_t fifo_head, fifo_count;
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scratch;
	uint8_t divisor_low, divisor_high;
	uint8_t is_thre_pending; /* the transmitter-empty interrupt, until IIR is read or a byte
				    written */
	uint8_t is_timeout;	 /* the character-timeout interrupt */
	uint8_t unused[3];
	uint64_t last_rx_cycles; /* of the last byte in or out of the FIFO */
};

struct uart {
	struct device device;
	struct uart_state state;
	struct clock *clock; /* borrowed */
	struct irq_line irq;
	struct byte_sink output;
	/* Called when the guest has made room for input; may be NULL. */
	void (*has_room)(void *opaque);
	void *room_opaque; /* borrowed */
	struct timer timer;
};

/* `instance` ("com1") names the section. */
int uart_init(struct uart *u, const char *instance, uint16_t port, struct clock *clock,
	      struct irq_line irq, struct byte_sink output, struct bus *bus, struct error *e);

/* Bytes from outside. Takes as many as there is room for and says how many; the rest are to be
 * offered again. */
size_t uart_receive(struct uart *u, const uint8_t *bytes, size_t count);

/* How many bytes uart_receive() would take now. */
size_t uart_room(const struct uart *u);
