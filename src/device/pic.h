/*
 * The two cascaded 8259A interrupt controllers and their edge/level registers. Intel 8259A data
 * sheet, ICH9 for the ELCR.
 */
#pragma once

#include "bus/bus.h"
#include "device/device.h"

struct pic_chip {
	uint8_t irr, isr, imr;
	uint8_t levels; /* of the pins */
	uint8_t elcr;	/* 1 = level-triggered */
	uint8_t vector_base;
	uint8_t lowest;	   /* the pin of lowest priority, 7 unless rotated */
	uint8_t init_step; /* which ICW is expected at the odd port: 0 none, 2, 3, 4 */
	uint8_t icw1, icw3, icw4;
	uint8_t read_isr; /* OCW3: a read of the even port gives ISR, else IRR */
	uint8_t poll;	  /* OCW3: the next read is a poll */
	uint8_t special_mask;
	uint8_t rotate_on_auto_eoi;
	uint8_t is_ready; /* ICW sequence complete */
};

struct pic_state {
	struct pic_chip chip[2]; /* master, slave */
};

struct pic {
	struct device device;
	struct pic_state state;
	struct irq_line intr; /* to the processors' LINT0 */
};

int pic_init(struct pic *p, struct irq_line intr, struct bus *bus, struct error *e);

/* irq 0..15. Pin 2 is the slave and cannot be driven. */
void pic_set_irq(struct pic *p, unsigned irq, bool level);

/* The vector that an interrupt-acknowledge cycle would return now; -1 if INTR is low. */
int pic_pending(const struct pic *p);
/* The interrupt-acknowledge cycle; a spurious vector (IRQ 7 or 15) if the request went away. */
int pic_acknowledge(struct pic *p);
