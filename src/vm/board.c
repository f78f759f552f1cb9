/*
 * The board: which devices the machine has, and the wires between them.
 *
 * One row a component, in the order of making: what a row's wires need stands above it. Reset, save
 * and the end go through the list of devices that the rows have filled. Ports, addresses and
 * interrupt numbers are those of bus/platform.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/platform.h"
#include "device/acpi_pm.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/ioapic.h"
#include "device/irq_router.h"
#include "device/lapic.h"
#include "device/legacy_ports.h"
#include "device/pci.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/rtc.h"
#include "device/uart.h"
#include "vm/kvmclock.h"
#include "vm/machine.h"

#define UART_LSR_BREAK 0x10u /* BI */
#define DEVICES_MAX (16 + 2 * VM_CPUS_MAX + 5 * VM_DEVICES_MAX)

/* One serial port and the way back to it from its callbacks. */
struct port {
	struct uart uart;
	struct vm *vm;
	unsigned number;
};

struct board {
	struct apic_hub hub;
	struct lapic *lapics;
	struct kvmclock *kvmclocks; /* NULL without KVM's leaves */
	struct pic pic;
	struct ioapic ioapic;
	struct irq_router router;
	struct pit pit;
	struct rtc rtc;
	struct hpet hpet;
	struct port ports[VM_UART_MAX];
	struct i8042 i8042;
	struct acpi_pm acpi_pm;
	struct pci_host pci;
	struct legacy_ports legacy;
	struct device *devices[DEVICES_MAX]; /* what there is, for reset, save and the end */
	unsigned device_count;
};

static void add(struct board *b, struct device *d)
{
	b->devices[b->device_count++] = d;
}

/* ---- what devices tell the machine ---- */

static void power_off(void *opaque, uint32_t value)
{
	(void)value;
	vm_end_with(opaque, 0, VM_END_POWER_OFF, 0, "the guest powered off");
}

static void guest_reset(void *opaque, uint32_t value)
{
	(void)value;
	vm_guest_reset(opaque);
}

static void debug_exit(void *opaque, uint32_t value)
{
	vm_end_with(opaque, 0, VM_END_DEBUG_EXIT, value, "the guest wrote %#x to isa-debug-exit",
		    value);
}

static void port_output(void *opaque, const uint8_t *bytes, size_t count)
{
	const struct port *p = opaque;
	vm_console_printed(p->vm, p->number, bytes, count);
}

static void debug_console_output(void *opaque, const uint8_t *bytes, size_t count)
{
	vm_console_printed(opaque, 0, bytes, count);
}

/* ---- what the host's side sends in ---- */

static size_t port_input(void *opaque, const uint8_t *bytes, size_t count)
{
	struct port *p = opaque;
	return uart_receive(&p->uart, bytes, count);
}

/* A break arrives as a NUL with the line status's break bit; a reader sees both together. */
static void port_break(void *opaque)
{
	struct port *p = opaque;
	p->uart.state.lsr |= UART_LSR_BREAK;
	uart_receive(&p->uart, (const uint8_t[]){0}, 1);
}

/* Waiting input is offered between turns; the next one shall be soon. */
static void port_has_room(void *opaque)
{
	struct vm *vm = opaque;
	vm->next_poll_ns = 0;
}

/* ---- the components ---- */

static int make_processors(struct vm *vm, struct board *b, struct error *e)
{
	int r = apic_hub_init(&b->hub, &vm->bus, e);
	if (r)
		return r;
	vm->bus.msi = apic_hub_msi_sink(&b->hub);
	b->lapics = calloc(vm->config.cpu_count, sizeof(*b->lapics));
	if (!b->lapics)
		return error_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		struct lapic_config config = {
			.index = i,
			.timer_hz = CPU_CRYSTAL_HZ,
			.has_x2apic = cpu_has(&vm->model, FEATURE_X2APIC),
			.has_tsc_deadline = cpu_has(&vm->model, FEATURE_TSC_DEADLINE),
		};
		r = lapic_init(&b->lapics[i], &b->hub, &vm->vcpus[i], &config, e);
		if (r)
			return r;
		add(b, &b->lapics[i].device);
	}
	return 0;
}

static int make_kvmclock(struct vm *vm, struct board *b, struct error *e)
{
	if (!vm->config.kvm_leaves)
		return 0;
	b->kvmclocks = calloc(vm->config.cpu_count, sizeof(*b->kvmclocks));
	if (!b->kvmclocks)
		return error_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		char instance[12];
		snprintf(instance, sizeof(instance), "%u", i);
		kvmclock_init(&b->kvmclocks[i], instance, &vm->vcpus[i], vm->memory,
			      vm->config.cpu_count == 1);
		add(b, &b->kvmclocks[i].device);
	}
	return 0;
}

static int make_interrupts(struct vm *vm, struct board *b, struct error *e)
{
	int r = pic_init(&b->pic, apic_hub_intr_line(&b->hub), &vm->bus, e);
	if (r)
		return r;
	add(b, &b->pic.device);
	b->hub.pic = &b->pic;
	r = ioapic_init(&b->ioapic, &b->hub, true, &vm->bus, e);
	if (r)
		return r;
	add(b, &b->ioapic.device);
	irq_router_init(&b->router, &b->pic, &b->ioapic);
	add(b, &b->router.device);
	return 0;
}

static int make_timers(struct vm *vm, struct board *b, struct error *e)
{
	int r = pit_init(&b->pit, &vm->clock, irq_router_line(&b->router, PLATFORM_IRQ_TIMER, 0),
			 &vm->bus, e);
	if (r)
		return r;
	add(b, &b->pit.device);
	r = rtc_init(&b->rtc, &vm->clock, irq_router_line(&b->router, PLATFORM_IRQ_RTC, 0),
		     vm->config.memory_bytes, vm->config.cpu_count, &vm->bus, e);
	if (r)
		return r;
	add(b, &b->rtc.device);
	struct hpet_wires wires = hpet_wires_from_router(&b->router);
	r = hpet_init(&b->hpet, &vm->clock, &wires, &vm->bus, e);
	if (r)
		return r;
	add(b, &b->hpet.device);
	return 0;
}

static int make_serial_ports(struct vm *vm, struct board *b, struct error *e)
{
	static const struct {
		const char *name;
		uint16_t port;
		unsigned irq;
	} com[VM_UART_MAX] = {{"com1", PLATFORM_COM1_PORT, PLATFORM_IRQ_COM1},
			      {"com2", PLATFORM_COM2_PORT, PLATFORM_IRQ_COM2}};
	for (unsigned i = 0; i < VM_UART_MAX; i++) {
		struct port *p = &b->ports[i];
		p->vm = vm;
		p->number = i;
		int r = uart_init(&p->uart, com[i].name, com[i].port, &vm->clock,
				  irq_router_line(&b->router, com[i].irq, 0),
				  (struct byte_sink){port_output, p}, &vm->bus, e);
		if (r)
			return r;
		p->uart.has_room = port_has_room;
		p->uart.room_opaque = vm;
		add(b, &p->uart.device);
	}
	return 0;
}

static int make_keyboard(struct vm *vm, struct board *b, struct error *e)
{
	int r = i8042_init(&b->i8042, irq_router_line(&b->router, PLATFORM_IRQ_KEYBOARD, 0),
			   irq_router_line(&b->router, PLATFORM_IRQ_MOUSE, 0), false,
			   (struct device_signal){guest_reset, vm}, &vm->bus, e);
	if (!r)
		add(b, &b->i8042.device);
	return r;
}

static int make_power(struct vm *vm, struct board *b, struct error *e)
{
	int r = acpi_pm_init(&b->acpi_pm, &vm->clock, 32,
			     irq_router_line(&b->router, PLATFORM_IRQ_SCI, 0),
			     (struct device_signal){power_off, vm}, &vm->bus, e);
	if (!r)
		add(b, &b->acpi_pm.device);
	return r;
}

static void add_to(void *opaque, struct device *d)
{
	add(opaque, d);
}

static int make_pci(struct vm *vm, struct board *b, struct error *e)
{
	int r = pci_host_init(&b->pci, (struct device_signal){guest_reset, vm}, &vm->bus, e);
	if (r)
		return r;
	add(b, &b->pci.device);
	add(b, &b->pci.bridge.device);
	add(b, &b->pci.isa.device);
	struct device_wires wires = {&b->pci, &b->router, add_to, b};
	r = devices_create(vm, &wires, e);
	if (!r)
		r = pci_host_assign(&b->pci, e);
	if (!r)
		devices_connect(vm, &b->router);
	return r;
}

static int make_legacy_ports(struct vm *vm, struct board *b, struct error *e)
{
	struct legacy_ports_wires wires = {
		.reset = {guest_reset, vm},
		.debug_exit = {debug_exit, vm},
		.console = {debug_console_output, vm},
		.has_debug_exit = true,
		.has_console = true,
	};
	int r = legacy_ports_init(&b->legacy, &wires, &vm->bus, e);
	if (!r)
		add(b, &b->legacy.device);
	return r;
}

static const struct {
	const char *name;
	int (*make)(struct vm *vm, struct board *b, struct error *e);
} rows[] = {
	{"local APICs", make_processors},
	{"kvmclock", make_kvmclock},
	{"PIC, I/O APIC and their lines", make_interrupts},
	{"PIT, RTC, HPET", make_timers},
	{"serial ports", make_serial_ports},
	{"keyboard controller", make_keyboard},
	{"ACPI power management", make_power},
	{"PCI and its devices", make_pci},
	{"legacy ports", make_legacy_ports},
};

int board_create(struct vm *vm, struct error *e)
{
	vm->board = calloc(1, sizeof(*vm->board));
	if (!vm->board)
		return error_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		int r = rows[i].make(vm, vm->board, e);
		if (r) {
			if (!e || strncmp(e->text, "--", 2))
				error_prefix(e, "%s", rows[i].name);
			return r;
		}
	}
	return 0;
}

void board_destroy(struct vm *vm)
{
	struct board *b = vm->board;
	if (!b)
		return;
	for (unsigned i = 0; i < b->device_count; i++)
		device_fini(b->devices[i]);
	devices_destroy(vm);
	free(b->lapics);
	free(b->kvmclocks);
	free(b);
	vm->board = NULL;
}

void board_reset(struct vm *vm)
{
	struct board *b = vm->board;
	for (unsigned i = 0; i < b->device_count; i++)
		device_reset(b->devices[i]);
	lapic_set_virtual_wire(&b->lapics[0]);
}

bool board_power_button(struct vm *vm)
{
	return acpi_pm_press_power_button(&vm->board->acpi_pm);
}

void board_save(const struct vm *vm, struct state_writer *w)
{
	for (unsigned i = 0; i < vm->board->device_count; i++)
		device_save(vm->board->devices[i], w);
}

int board_load(struct vm *vm, struct state_reader *r, struct error *e)
{
	for (unsigned i = 0; i < vm->board->device_count; i++) {
		int result = device_load(vm->board->devices[i], r, e);
		if (result)
			return result;
	}
	return 0;
}

void board_connect_serials(struct vm *vm)
{
	devices_connect_console(vm);
	for (unsigned i = 0; i < VM_UART_MAX; i++) {
		struct serial_sink sink = {.receive = port_input,
					   .send_break = port_break,
					   .opaque = &vm->board->ports[i]};
		if (vm->serials[i])
			serial_set_sink(vm->serials[i], sink);
	}
}

void board_pump(struct vm *vm)
{
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		if (vm->serials[i])
			serial_pump(vm->serials[i]);
}
