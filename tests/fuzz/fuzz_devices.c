/*
 * Every device of the board on one bus under a guest that writes anything anywhere: random accesses
 * of every width, steps of time, input from outside, interrupts taken and ended, resets, and now
 * and then a save whose load must save the same bytes.
 *
 * An input is a list of 8-byte operations: what, where, and six bytes of value.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/platform.h"
#include "cpu/vcpu.h"
#include "device/acpi_pm.h"
#include "device/hpet.h"
#include "device/i6300esb.h"
#include "device/i8042.h"
#include "device/ioapic.h"
#include "device/irq_router.h"
#include "device/lapic.h"
#include "device/legacy_ports.h"
#include "device/pci.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/pvpanic.h"
#include "device/rtc.h"
#include "device/uart.h"

#include "devices.h"

#define VCPUS 2
#define DEVICES_MAX 32
#define OPERATIONS_MAX 256
#define FIRES_MAX 64 /* a periodic timer of one tick must not make an input endless */

struct machine {
	struct clock clock;
	struct bus bus;
	struct vcpu vcpus[VCPUS];
	struct apic_hub hub;
	struct lapic lapics[VCPUS];
	struct pic pic;
	struct ioapic ioapic;
	struct irq_router router;
	struct pit pit;
	struct rtc rtc;
	struct hpet hpet;
	struct uart uart;
	struct i8042 i8042;
	struct acpi_pm acpi_pm;
	struct pci_host pci;
	struct pci_device card;
	struct pvpanic pvpanic;
	struct i6300esb watchdog;
	uint8_t card_memory[256];
	struct legacy_ports legacy;
	struct device *devices[DEVICES_MAX];
	unsigned device_count;
	unsigned bytes_out;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void count_bytes(void *opaque, const uint8_t *bytes, size_t count)
{
	((struct machine *)opaque)->bytes_out += (unsigned)count;
}

static uint64_t card_read(void *opaque, struct bus_access access)
{
	const struct machine *m = opaque;
	uint64_t value = 0;
	must(access.offset + access.size_bytes <= sizeof(m->card_memory));
	memcpy(&value, m->card_memory + access.offset, access.size_bytes);
	return value;
}

static void card_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct machine *m = opaque;
	must(access.offset + access.size_bytes <= sizeof(m->card_memory));
	memcpy(m->card_memory + access.offset, &value, access.size_bytes);
}

static const struct bus_ops card_ops = {card_read, card_write};

static void add(struct machine *m, struct device *d)
{
	m->devices[m->device_count++] = d;
}

static void make_controllers(struct machine *m)
{
	must(!apic_hub_init(&m->hub, &m->bus, NULL));
	m->bus.msi = apic_hub_msi_sink(&m->hub);
	for (unsigned i = 0; i < VCPUS; i++) {
		struct lapic_config config = {.index = i,
					      .timer_hz = 25000000,
					      .has_x2apic = true,
					      .has_tsc_deadline = true};
		m->vcpus[i].index = i;
		m->vcpus[i].clock = &m->clock;
		must(!lapic_init(&m->lapics[i], &m->hub, &m->vcpus[i], &config, NULL));
		add(m, &m->lapics[i].device);
	}
	lapic_set_virtual_wire(&m->lapics[0]);
	must(!pic_init(&m->pic, apic_hub_intr_line(&m->hub), &m->bus, NULL));
	m->hub.pic = &m->pic;
	must(!ioapic_init(&m->ioapic, &m->hub, true, &m->bus, NULL));
	irq_router_init(&m->router, &m->pic, &m->ioapic);
	add(m, &m->pic.device);
	add(m, &m->ioapic.device);
	add(m, &m->router.device);
}

static void make_card(struct machine *m)
{
	struct pci_bar io = {.size_bytes = 16, .ops = &card_ops, .opaque = m, .is_io = true};
	struct pci_bar memory = {.size_bytes = 256, .ops = &card_ops, .opaque = m};
	struct pci_bar wide = {.size_bytes = 128, .ops = &card_ops, .opaque = m, .is_64bit = true};
	must(!pci_host_init(&m->pci, (struct device_signal){0}, &m->bus, NULL));
	pci_device_init(&m->card, "card", 0x1af4, 0x1000, 0x020000, 1);
	pci_device_set_bar(&m->card, 0, &io);
	pci_device_set_bar(&m->card, 1, &memory);
	pci_device_set_bar(&m->card, 2, &wide);
	pci_device_set_interrupt_pin(&m->card, 1);
	must(!pci_host_add(&m->pci, &m->card, 2, 0, NULL));
	must(!pvpanic_init(&m->pvpanic, (struct device_signal){0}, &m->pci, 3, NULL));
	must(!i6300esb_init(&m->watchdog, &m->clock, (struct device_signal){0}, &m->pci, 4, NULL));
	must(!pci_host_assign(&m->pci, NULL));
	add(m, &m->pci.device);
	add(m, &m->pci.bridge.device);
	add(m, &m->pci.isa.device);
	add(m, &m->card.device);
	add(m, &m->pvpanic.pci.device);
	add(m, &m->watchdog.pci.device);
	add(m, &m->watchdog.device);
}

static void make_machine(struct machine *m)
{
	struct irq_router *r = &m->router;
	clock_init(&m->clock, CLOCK_VIRTUAL, 2350000000u);
	bus_init(&m->bus);
	make_controllers(m);
	must(!pit_init(&m->pit, &m->clock, irq_router_line(r, 0, 0), &m->bus, NULL));
	must(!rtc_init(&m->rtc, &m->clock, irq_router_line(r, 8, 0), 6ull << 30, VCPUS, &m->bus,
		       NULL));
	struct hpet_wires wires = hpet_wires_from_router(r);
	wires.has_fsb = true;
	must(!hpet_init(&m->hpet, &m->clock, &wires, &m->bus, NULL));
	must(!uart_init(&m->uart, "com1", PLATFORM_COM1_PORT, &m->clock, irq_router_line(r, 4, 0),
			(struct byte_sink){count_bytes, m}, &m->bus, NULL));
	must(!i8042_init(&m->i8042, irq_router_line(r, 1, 0), irq_router_line(r, 12, 0), true,
			 (struct device_signal){0}, &m->bus, NULL));
	must(!acpi_pm_init(&m->acpi_pm, &m->clock, 24, irq_router_line(r, 9, 0),
			   (struct device_signal){0}, &m->bus, NULL));
	struct legacy_ports_wires legacy = {
		.console = {count_bytes, m}, .has_debug_exit = true, .has_console = true};
	must(!legacy_ports_init(&m->legacy, &legacy, &m->bus, NULL));
	add(m, &m->pit.device);
	add(m, &m->rtc.device);
	add(m, &m->hpet.device);
	add(m, &m->uart.device);
	add(m, &m->i8042.device);
	add(m, &m->acpi_pm.device);
	add(m, &m->legacy.device);
	make_card(m);
}

static const uint64_t mmio_bases[] = {PLATFORM_LAPIC_BASE,	   PLATFORM_IOAPIC_BASE,
				      PLATFORM_HPET_BASE,	   PLATFORM_ECAM_BASE,
				      PLATFORM_PCI_MMIO_BASE,	   PLATFORM_ECAM_BASE + 0x10000,
				      PLATFORM_ECAM_BASE + 0x20000};
static const uint16_t port_bases[] = {0x20,  0xa0,  0x40,   0x60, 0x70, 0x3f8, 0x600,
				      0xcf8, 0x4d0, 0x1000, 0x80, 0xe8, 0xf4,  0x90};

static void access_mmio(struct machine *m, const uint8_t *op, uint64_t value)
{
	uint64_t base = mmio_bases[op[1] % ARRAY_COUNT(mmio_bases)];
	gpa_t a = gpa(base + ((op[2] | op[3] << 8) & 0xfff) - (op[3] == 0xff ? 0x1004 : 0));
	unsigned bytes = 1u << (op[1] >> 6), vcpu = op[1] >> 5 & 1;
	if (op[0] & 0x80)
		bus_mmio_write(&m->bus, vcpu, a, bytes, value);
	else
		bus_mmio_read(&m->bus, vcpu, a, bytes, NULL);
}

static void access_port(struct machine *m, const uint8_t *op, uint64_t value)
{
	uint16_t port = port_bases[op[1] % ARRAY_COUNT(port_bases)] + (op[2] & 15);
	unsigned bytes = 1u << (op[1] >> 6) % 3;
	if (op[0] & 0x80)
		bus_port_write(&m->bus, 0, port, bytes, value);
	else
		bus_port_read(&m->bus, 0, port, bytes, NULL);
}

static void access_msr(struct machine *m, const uint8_t *op, uint64_t value)
{
	static const uint32_t others[] = {MSR_APIC_BASE, MSR_TSC_DEADLINE};
	struct vcpu *v = &m->vcpus[op[1] & 1];
	uint32_t index = op[1] & 2 ? others[op[2] & 1]
				   : (uint32_t)MSR_X2APIC_FIRST + (op[2] & 0x3f);
	uint64_t unused;
	if (index == MSR_APIC_BASE && !(op[1] & 4))
		value = (v->index ? 0 : 0x100) | PLATFORM_LAPIC_BASE | (value & 0xc00);
	if (op[0] & 0x80)
		v->apic_ops->write_msr(v->apic, index, value);
	else
		v->apic_ops->read_msr(v->apic, index, &unused);
}

/* Backwards too, as the run loop does between two vcpus' turns. */
static void pass_time(struct machine *m, const uint8_t *op, uint64_t value)
{
	uint64_t step = value >> (op[1] & 31);
	if ((op[1] & 0xe0) == 0xe0)
		clock_set(&m->clock, m->clock.now_cycles > 5000 ? m->clock.now_cycles - 5000 : 0);
	else if (op[1] & 0x40 && clock_next_deadline(&m->clock) != CLOCK_NEVER &&
		 clock_next_deadline(&m->clock) > m->clock.now_cycles)
		clock_set(&m->clock, clock_next_deadline(&m->clock));
	else if (m->clock.now_cycles + step > m->clock.now_cycles)
		clock_set(&m->clock, m->clock.now_cycles + step);
	clock_run_due(&m->clock);
}

static void take_interrupts(struct machine *m, const uint8_t *op)
{
	struct vcpu *v = &m->vcpus[op[1] & 1];
	for (unsigned i = 0; i < 4; i++) {
		int pending = v->apic_ops->pending(v->apic);
		must(pending >= -1 && pending < 256);
		must((pending >= 0) == !!(atomic_load(&v->requests) & REQUEST_INTERRUPT));
		if (pending < 0)
			break;
		must(v->apic_ops->acknowledge(v->apic) == pending);
	}
	if (op[1] & 2)
		bus_mmio_write(&m->bus, v->index, gpa(PLATFORM_LAPIC_BASE + 0xb0), 4, 0);
	if (op[1] & 4)
		bus_port_write(&m->bus, 0, PLATFORM_PIC_MASTER_PORT, 1, 0x20);
	if (op[1] & 8)
		v->apic_ops->set_tpr(v->apic, op[2]);
	if (op[1] & 16)
		v->apic_ops->reset(v->apic);
}

static void from_outside(struct machine *m, const uint8_t *op)
{
	switch (op[1] % 4) {
	case 0: uart_receive(&m->uart, op + 2, 6); break;
	case 1: i8042_key(&m->i8042, op + 2, 6); break;
	case 2: acpi_pm_press_power_button(&m->acpi_pm); break;
	default: device_reset(m->devices[op[2] % m->device_count]); break;
	}
}

static void run_operation(struct machine *m, const uint8_t *op)
{
	uint64_t value = 0;
	memcpy(&value, op + 2, 6);
	switch (op[0] & 15) {
	case 0:
	case 1:
	case 2:
	case 3: access_mmio(m, op, value >> 16); break;
	case 4:
	case 5:
	case 6:
	case 7:
	case 8: access_port(m, op, value >> 8); break;
	case 9: access_msr(m, op, value >> 8); break;
	case 10:
	case 11: pass_time(m, op, value); break;
	case 12: take_interrupts(m, op); break;
	case 13: from_outside(m, op); break;
	case 14: bus_msi_send(&m->bus, PLATFORM_LAPIC_BASE + op[2], op[3] | op[4] << 8); break;
	default:
		if (op[1] & 1)
			devices_save_load_save(m->devices, m->device_count);
		else
			devices_load_damaged(m->devices, m->device_count, value >> 8, op[1]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine *m = calloc(1, sizeof(*m));
	must(m != NULL);
	make_machine(m);
	for (size_t at = 0; at + 8 <= size && at < 8 * OPERATIONS_MAX; at += 8)
		run_operation(m, data + at);
	devices_save_load_save(m->devices, m->device_count);
	for (unsigned i = 0; i < FIRES_MAX && clock_next_deadline(&m->clock) != CLOCK_NEVER; i++) {
		if (clock_next_deadline(&m->clock) > m->clock.now_cycles)
			clock_set(&m->clock, clock_next_deadline(&m->clock));
		clock_run_due(&m->clock);
	}
	for (unsigned i = 0; i < m->device_count; i++)
		device_fini(m->devices[i]);
	must(clock_next_deadline(&m->clock) == CLOCK_NEVER);
	free(m);
	return 0;
}
