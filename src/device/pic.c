/*
 * A chip is a priority encoder over IRR & ~IMR against ISR. The slave's INT output is the master's
 * pin 2; the master's is INTR. Wherever a register changes, update() works out both outputs again.
 */
#include "device/pic.h"

#include <errno.h>
#include <string.h>

#include "bus/platform.h"

#define CASCADE_BIT (1u << PLATFORM_IRQ_CASCADE)
#define ELCR_MASTER 0xf8 /* 0, 1 and 2 cannot be level-triggered */
#define ELCR_SLAVE 0xde	 /* nor can 8 and 13 */

#define ICW1_ICW4 0x01
#define ICW1_SINGLE 0x02
#define ICW1_LEVEL 0x08
#define ICW1 0x10
#define ICW4_AUTO_EOI 0x02
#define ICW4_FULLY_NESTED 0x10 /* special */
#define OCW3 0x08

/* 0 for the pin of the highest priority in `pins`, up to 7; 8 if there is none. */
static unsigned priority(const struct pic_chip *c, uint8_t pins)
{
	for (unsigned p = 0; p < 8; p++)
		if (pins & 1u << ((p + c->lowest + 1) & 7))
			return p;
	return 8;
}

/* The pin that the chip requests service for, or -1. */
static int chip_request(const struct pic_state *s, unsigned number)
{
	const struct pic_chip *c = &s->chip[number];
	if (!c->is_ready)
		return -1;
	unsigned wanted = priority(c, c->irr & (uint8_t)~c->imr);
	if (wanted == 8)
		return -1;
	uint8_t serviced = c->isr;
	if (c->special_mask)
		serviced &= (uint8_t)~c->imr;
	/* Special fully nested mode: the slave may interrupt its own handler with a higher one. */
	if (number == 0 && (c->icw4 & ICW4_FULLY_NESTED))
		serviced &= (uint8_t)~CASCADE_BIT;
	if (wanted >= priority(c, serviced))
		return -1;
	return (int)((wanted + c->lowest + 1) & 7);
}

static bool chip_is_level(const struct pic_chip *c, unsigned pin)
{
	return (c->elcr & 1u << pin) || (c->icw1 & ICW1_LEVEL);
}

static void chip_set_pin(struct pic_chip *c, unsigned pin, bool level)
{
	uint8_t bit = (uint8_t)(1u << pin);
	if (chip_is_level(c, pin))
		c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
	else if (level && !(c->levels & bit))
		c->irr |= bit;
	c->levels = level ? c->levels | bit : c->levels & (uint8_t)~bit;
}

static void update(struct pic *p)
{
	struct pic_state *s = &p->state;
	struct pic_chip *master = &s->chip[0];
	/* The cascade pin follows the slave's output; a request that went away leaves nothing
	 * behind. */
	bool slave = chip_request(s, 1) >= 0;
	master->irr = slave ? master->irr | CASCADE_BIT : master->irr & (uint8_t)~CASCADE_BIT;
	master->levels = slave ? master->levels | CASCADE_BIT
			       : master->levels & (uint8_t)~CASCADE_BIT;
	irq_line_set(&p->intr, chip_request(s, 0) >= 0);
}

void pic_set_irq(struct pic *p, unsigned irq, bool level)
{
	if (irq > 15 || irq == PLATFORM_IRQ_CASCADE)
		return;
	chip_set_pin(&p->state.chip[irq >> 3], irq & 7, level);
	update(p);
}

static int vector_of(const struct pic_state *s, unsigned number, int pin)
{
	return (s->chip[number].vector_base & 0xf8) | (pin < 0 ? 7 : pin);
}

int pic_pending(const struct pic *p)
{
	int pin = chip_request(&p->state, 0);
	if (pin < 0)
		return -1;
	if (pin != PLATFORM_IRQ_CASCADE)
		return vector_of(&p->state, 0, pin);
	return vector_of(&p->state, 1, chip_request(&p->state, 1));
}

static void chip_acknowledge(struct pic_chip *c, unsigned pin)
{
	uint8_t bit = (uint8_t)(1u << pin);
	if (!(c->icw4 & ICW4_AUTO_EOI))
		c->isr |= bit;
	else if (c->rotate_on_auto_eoi)
		c->lowest = (uint8_t)pin;
	if (!chip_is_level(c, pin))
		c->irr &= (uint8_t)~bit;
}

int pic_acknowledge(struct pic *p)
{
	struct pic_state *s = &p->state;
	int pin = chip_request(s, 0);
	int vector = vector_of(s, 0, pin);
	if (pin == PLATFORM_IRQ_CASCADE) {
		int slave_pin = chip_request(s, 1);
		vector = vector_of(s, 1, slave_pin);
		if (slave_pin >= 0)
			chip_acknowledge(&s->chip[1], (unsigned)slave_pin);
	}
	if (pin >= 0)
		chip_acknowledge(&s->chip[0], (unsigned)pin);
	update(p);
	return vector;
}

/* ICW1 starts over: edges are forgotten, levels stay. */
static void write_icw1(struct pic_chip *c, uint8_t value)
{
	c->icw1 = value;
	c->imr = c->isr = 0;
	c->irr = c->levels & c->elcr;
	c->lowest = 7;
	c->special_mask = c->read_isr = c->poll = c->rotate_on_auto_eoi = 0;
	c->icw4 = 0;
	c->is_ready = 0;
	c->init_step = 2;
}

static void write_ocw2(struct pic_chip *c, uint8_t value)
{
	unsigned pin = value & 7, highest = priority(c, c->isr);
	unsigned in_service = (highest + c->lowest + 1) & 7;
	switch (value >> 5) {
	case 0: c->rotate_on_auto_eoi = 0; break;
	case 4: c->rotate_on_auto_eoi = 1; break;
	case 1: /* non-specific EOI */
	case 5: /* and rotate */
		if (highest == 8)
			break;
		c->isr &= (uint8_t) ~(1u << in_service);
		if (value >> 5 == 5)
			c->lowest = (uint8_t)in_service;
		break;
	case 3: c->isr &= (uint8_t) ~(1u << pin); break;
	case 7:
		c->isr &= (uint8_t) ~(1u << pin);
		c->lowest = (uint8_t)pin;
		break;
	case 6: c->lowest = (uint8_t)pin; break;
	default: break;
	}
}

static void write_ocw3(struct pic_chip *c, uint8_t value)
{
	if (value & 0x04)
		c->poll = 1;
	if (value & 0x02)
		c->read_isr = value & 1;
	if (value & 0x40)
		c->special_mask = (value >> 5) & 1;
}

/* The odd port: the ICWs that ICW1 announced, in order, then the mask. */
static void write_odd(struct pic_chip *c, uint8_t value)
{
	switch (c->init_step) {
	case 2:
		c->vector_base = value & 0xf8;
		c->init_step = c->icw1 & ICW1_SINGLE ? (c->icw1 & ICW1_ICW4 ? 4 : 0) : 3;
		break;
	case 3:
		c->icw3 = value;
		c->init_step = c->icw1 & ICW1_ICW4 ? 4 : 0;
		break;
	case 4:
		c->icw4 = value;
		c->init_step = 0;
		break;
	default: c->imr = value; return;
	}
	c->is_ready = !c->init_step;
}

static void pic_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pic *p = opaque;
	struct pic_chip *c = &p->state.chip[access.offset >> 7];
	if (access.offset & 1)
		write_odd(c, (uint8_t)value);
	else if (value & ICW1)
		write_icw1(c, (uint8_t)value);
	else if (value & OCW3)
		write_ocw3(c, (uint8_t)value);
	else
		write_ocw2(c, (uint8_t)value);
	update(p);
	if (access.size_bytes > 1 && !(access.offset & 1)) {
		access.offset++;
		access.size_bytes = 1;
		pic_write(opaque, access, value >> 8);
	}
}

/* A poll is an acknowledge cycle of one chip that answers on the data bus. */
static uint8_t poll_chip(struct pic *p, unsigned number)
{
	int pin = chip_request(&p->state, number);
	p->state.chip[number].poll = 0;
	if (pin < 0)
		return 0;
	chip_acknowledge(&p->state.chip[number], (unsigned)pin);
	update(p);
	return (uint8_t)(0x80 | pin);
}

static uint8_t read_byte(struct pic *p, unsigned number, bool is_odd)
{
	struct pic_chip *c = &p->state.chip[number];
	if (c->poll)
		return poll_chip(p, number);
	if (is_odd)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static uint64_t pic_read(void *opaque, struct bus_access access)
{
	unsigned number = (unsigned)(access.offset >> 7);
	uint64_t value = read_byte(opaque, number, access.offset & 1);
	if (access.size_bytes > 1 && !(access.offset & 1))
		value |= (uint64_t)read_byte(opaque, number, true) << 8;
	return value;
}

static uint64_t elcr_read(void *opaque, struct bus_access access)
{
	const struct pic *p = opaque;
	unsigned both = p->state.chip[0].elcr | p->state.chip[1].elcr << 8;
	return both >> (8 * access.offset);
}

static void elcr_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct pic *p = opaque;
	unsigned count = access.size_bytes < 2 ? access.size_bytes : 2;
	for (unsigned i = 0; i < count && access.offset + i < 2; i++) {
		struct pic_chip *c = &p->state.chip[access.offset + i];
		c->elcr = (uint8_t)(value >> (8 * i)) &
			  (access.offset + i ? ELCR_SLAVE : ELCR_MASTER);
		c->irr = (c->irr & (uint8_t)~c->elcr) | (c->levels & c->elcr);
	}
	update(p);
}

/* The slave's ports are offset 0x80 and 0x81 of the master's. */
static uint64_t slave_read(void *opaque, struct bus_access access)
{
	access.offset |= 0x80;
	return pic_read(opaque, access);
}

static void slave_write(void *opaque, struct bus_access access, uint64_t value)
{
	access.offset |= 0x80;
	pic_write(opaque, access, value);
}

static const struct bus_ops master_bus_ops = {pic_read, pic_write};
static const struct bus_ops slave_bus_ops = {slave_read, slave_write};
static const struct bus_ops elcr_bus_ops = {elcr_read, elcr_write};

static void pic_reset(struct device *d)
{
	struct pic *p = (struct pic *)d;
	memset(&p->state, 0, sizeof(p->state));
	p->state.chip[0].lowest = p->state.chip[1].lowest = 7;
	update(p);
}

static int pic_resume(struct device *d, struct error *e)
{
	struct pic *p = (struct pic *)d;
	for (unsigned i = 0; i < 2; i++) {
		const struct pic_chip *c = &p->state.chip[i];
		if (c->lowest > 7 || c->init_step > 4 || c->init_step == 1)
			return error_set(e, -EINVAL, "impossible priority or initialisation step");
	}
	/* An APIC that was loaded before has asked a PIC that was not. */
	update(p);
	return 0;
}

static const struct device_ops pic_ops = {1, pic_reset, pic_resume, NULL};

int pic_init(struct pic *p, struct irq_line intr, struct bus *bus, struct error *e)
{
	*p = (struct pic){.intr = intr};
	device_init(&p->device, &pic_ops, "pic", NULL, &p->state, sizeof(p->state));
	device_reset(&p->device);
	int r = bus_map_ports(bus, PLATFORM_PIC_MASTER_PORT, 2, &master_bus_ops, p, "PIC", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_PIC_SLAVE_PORT, 2, &slave_bus_ops, p, "slave PIC",
				  e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_ELCR_PORT, 2, &elcr_bus_ops, p, "ELCR", e);
	return r;
}
