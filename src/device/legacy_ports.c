/* Four single ports; all they remember is the POST code and the A20 gate, which gates nothing here.
 */
#include "device/legacy_ports.h"

#include <string.h>

#include "bus/platform.h"

#define A20_RESET 0x01
#define A20_GATE 0x02

static uint64_t post_read(void *opaque, struct bus_access access)
{
	const struct legacy_ports *p = opaque;
	return p->state.post_code;
}

static void post_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	p->state.post_code = (uint8_t)value;
}

static uint64_t delay_read(void *opaque, struct bus_access access)
{
	return UINT64_MAX;
}

static void delay_write(void *opaque, struct bus_access access, uint64_t value)
{
}

static uint64_t a20_read(void *opaque, struct bus_access access)
{
	const struct legacy_ports *p = opaque;
	return p->state.a20;
}

static void a20_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	bool was_reset = p->state.a20 & A20_RESET;
	p->state.a20 = value & (A20_GATE | A20_RESET);
	if (!was_reset && (value & A20_RESET))
		device_signal_raise(&p->wires.reset, 0);
}

static uint64_t console_read(void *opaque, struct bus_access access)
{
	return PLATFORM_DEBUG_CONSOLE_PORT;
}

static void console_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	byte_sink_send(&p->wires.console, &(uint8_t){(uint8_t)value}, 1);
}

static uint64_t exit_read(void *opaque, struct bus_access access)
{
	return 0;
}

/* Only the first port takes a verdict: writes to the others are parts of a wider one that was cut.
 */
static void exit_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct legacy_ports *p = opaque;
	if (!access.offset)
		device_signal_raise(&p->wires.debug_exit, (uint32_t)value);
}

static const struct bus_ops post_ops = {post_read, post_write};
static const struct bus_ops delay_ops = {delay_read, delay_write};
static const struct bus_ops a20_ops = {a20_read, a20_write};
static const struct bus_ops console_ops = {console_read, console_write};
static const struct bus_ops exit_ops = {exit_read, exit_write};

static void legacy_ports_reset(struct device *d)
{
	memset(d->state, 0, d->state_bytes);
	((struct legacy_ports_state *)d->state)->a20 = A20_GATE;
}

static const struct device_ops legacy_ports_ops = {1, legacy_ports_reset, NULL, NULL};

int legacy_ports_init(struct legacy_ports *p, const struct legacy_ports_wires *wires,
		      struct bus *bus, struct error *e)
{
	*p = (struct legacy_ports){.wires = *wires};
	device_init(&p->device, &legacy_ports_ops, "legacy_ports", NULL, &p->state,
		    sizeof(p->state));
	device_reset(&p->device);
	int r = bus_map_ports(bus, PLATFORM_POST_PORT, 1, &post_ops, p, "POST code", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_DELAY_PORT, 1, &delay_ops, p, "delay", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_FAST_A20_PORT, 1, &a20_ops, p, "fast A20", e);
	if (!r && wires->has_console)
		r = bus_map_ports(bus, PLATFORM_DEBUG_CONSOLE_PORT, 1, &console_ops, p,
				  "debug console", e);
	if (!r && wires->has_debug_exit)
		r = bus_map_ports(bus, PLATFORM_DEBUG_EXIT_PORT, PLATFORM_DEBUG_EXIT_PORTS,
				  &exit_ops, p, "isa-debug-exit", e);
	return r;
}
