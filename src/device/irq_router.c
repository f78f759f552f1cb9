/* Each line is a set of sources; what changes is whether the set is empty. */
#include "device/irq_router.h"

#include <errno.h>
#include <string.h>

#include "device/ioapic.h"
#include "device/pic.h"

#define SOURCE_SHIFT 8
#define OWNER_SOURCE 1u /* bit of source 0: the device that an HPET can replace */

static bool line_level(const struct irq_router *r, unsigned irq)
{
	uint32_t sources = r->state.levels[irq];
	if (r->state.is_legacy_replaced && (irq == PLATFORM_IRQ_TIMER || irq == PLATFORM_IRQ_RTC))
		sources &= ~OWNER_SOURCE;
	return sources != 0;
}

static void drive(struct irq_router *r, unsigned irq)
{
	bool level = line_level(r, irq);
	if (irq < 16 && irq != PLATFORM_IRQ_CASCADE)
		pic_set_irq(r->pic, irq, level);
	if (irq == PLATFORM_IRQ_CASCADE)
		return;
	ioapic_set_pin(r->ioapic, irq == PLATFORM_IRQ_TIMER ? PLATFORM_TIMER_GSI : irq, level);
}

static void router_set(void *opaque, unsigned number, bool level)
{
	struct irq_router *r = opaque;
	unsigned irq = number & 0xff;
	uint32_t bit = 1u << (number >> SOURCE_SHIFT);
	bool before = line_level(r, irq);
	if (level)
		r->state.levels[irq] |= bit;
	else
		r->state.levels[irq] &= ~bit;
	if (line_level(r, irq) != before)
		drive(r, irq);
}

struct irq_line irq_router_line(struct irq_router *r, unsigned irq, unsigned source)
{
	if (irq >= PLATFORM_IOAPIC_PINS || irq == PLATFORM_IRQ_CASCADE || source >= IRQ_SOURCES_MAX)
		return (struct irq_line){0};
	return (struct irq_line){router_set, r, irq | source << SOURCE_SHIFT};
}

void irq_router_replace_legacy(struct irq_router *r, bool is_replaced)
{
	if (r->state.is_legacy_replaced == is_replaced)
		return;
	r->state.is_legacy_replaced = is_replaced;
	drive(r, PLATFORM_IRQ_TIMER);
	drive(r, PLATFORM_IRQ_RTC);
}

static void router_reset(struct device *d)
{
	memset(d->state, 0, d->state_bytes);
}

static int router_resume(struct device *d, struct error *e)
{
	const struct irq_router_state *s = d->state;
	return s->is_legacy_replaced > 1 ? error_set(e, -EINVAL, "legacy replacement is 0 or 1")
					 : 0;
}

static const struct device_ops router_ops = {1, router_reset, router_resume, NULL};

void irq_router_init(struct irq_router *r, struct pic *pic, struct ioapic *ioapic)
{
	*r = (struct irq_router){.pic = pic, .ioapic = ioapic};
	device_init(&r->device, &router_ops, "irq_router", NULL, &r->state, sizeof(r->state));
}
