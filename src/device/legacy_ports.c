/*
 * Ports of one byte each. See the header; nothing here has behaviour in time.
 */
#include "device/legacy_ports.h"

#include <string.h>

#include "base/bits.h"
#include "bus/platform.h"

#define A20_RESET 0x01u
#define A20_GATE 0x02u

static uint64_t post_read(void *opaque, struct bus_access access)
{
	struct legacy_ports *p = opaque;
	return p->state.post_code;
}

static void post_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	p->state.post_code = (uint8_t)value;
}

static uint64_t delay_read(void *opaque, struct bus_access access)
{
	return mask_bytes(access.size_bytes);
}

static void delay_write(void *opaque, struct bus_access access, uint64_t value)
{
}

static uint64_t a20_read(void *opaque, struct bus_access access)
{
	struct legacy_ports *p = opaque;
	return p->state.a20;
}

/* Bit 0 resets when it rises. A20 itself is never masked: nothing that boots here wants that. */
static void a20_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	bool is_reset = value & A20_RESET && !(p->state.a20 & A20_RESET);
	p->state.a20 = (uint8_t)(value & (A20_GATE | A20_RESET));
	if (is_reset)
		device_signal_raise(&p->wires.reset, 0);
}

static uint64_t console_read(void *opaque, struct bus_access access)
{
	return PLATFORM_DEBUG_CONSOLE_PORT;
}

static void console_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	uint8_t byte = (uint8_t)value;
	byte_sink_send(&p->wires.console, &byte, 1);
}

static uint64_t exit_read(void *opaque, struct bus_access access)
{
	return 0;
}

static void exit_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	device_signal_raise(&p->wires.debug_exit,
			    (uint32_t)(value & mask_bytes(access.size_bytes)));
}

static void legacy_ports_reset(struct device *d)
{
	struct legacy_ports *p = (struct legacy_ports *)d;
	p->state = (struct legacy_ports_state){.a20 = A20_GATE};
}

static const struct device_ops legacy_ports_ops = {.version = 1, .reset = legacy_ports_reset};

int legacy_ports_init(struct legacy_ports *p, const struct legacy_ports_wires *wires,
		      struct bus *bus, struct error *e)
{
	static const struct bus_ops post = {post_read, post_write},
				    delay = {delay_read, delay_write}, a20 = {a20_read, a20_write},
				    console = {console_read, console_write},
				    debug_exit = {exit_read, exit_write};
	memset(p, 0, sizeof(*p));
	p->wires = *wires;
	device_init(&p->device, &legacy_ports_ops, "legacy_ports", NULL, &p->state,
		    sizeof(p->state));
	legacy_ports_reset(&p->device);
	int r = bus_map_ports(bus, PLATFORM_POST_PORT, 1, &post, p, "post code", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_DELAY_PORT, 1, &delay, p, "delay", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_FAST_A20_PORT, 1, &a20, p, "fast A20", e);
	if (!r && wires->has_console)
		r = bus_map_ports(bus, PLATFORM_DEBUG_CONSOLE_PORT, 1, &console, p, "debug console",
				  e);
	if (!r && wires->has_debug_exit)
		r = bus_map_ports(bus, PLATFORM_DEBUG_EXIT_PORT, PLATFORM_DEBUG_EXIT_PORTS,
				  &debug_exit, p, "isa-debug-exit", e);
	return r;
}
