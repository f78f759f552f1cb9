#include "device/pvpanic.h"

#define VENDOR 0x1b36
#define DEVICE 0x0011
#define CLASS_SYSTEM_OTHER 0x088000
#define BAR_BYTES 16
#define EVENTS (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

/* What can be said. */
static uint64_t bar_read(void *opaque, struct bus_access access)
{
	(void)opaque;
	return access.offset ? 0 : EVENTS;
}

static void bar_write(void *opaque, struct bus_access access, uint64_t value)
{
	const struct pvpanic *p = opaque;
	if (access.offset == 0 && (value & EVENTS))
		device_signal_raise(&p->event, (uint32_t)value & EVENTS);
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

int pvpanic_init(struct pvpanic *p, struct device_signal event, struct pci_host *host,
		 unsigned slot, struct error *e)
{
	*p = (struct pvpanic){.event = event};
	pci_device_init(&p->pci, "pvpanic", VENDOR, DEVICE, CLASS_SYSTEM_OTHER, 1);
	pci_device_set_bar(
		&p->pci, 0,
		&(struct pci_bar){.size_bytes = BAR_BYTES, .ops = &bar_ops, .opaque = p});
	return pci_host_add(host, &p->pci, slot, 0, e);
}
