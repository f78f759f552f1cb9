/*
 * The keyboard controller. Two devices queue bytes; the controller moves one at a time into its
 * output buffer, from where the guest reads it at port 0x60; that the buffer is full is what raises
 * IRQ 1 or 12.
 */
#include "device/i8042.h"

#include <errno.h>
#include <string.h>

#include "bus/platform.h"

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_MOUSE 0x20

#define CONTROL_KEYBOARD_IRQ 0x01
#define CONTROL_MOUSE_IRQ 0x02
#define CONTROL_SYSTEM 0x04
#define CONTROL_KEYBOARD_OFF 0x10
#define CONTROL_MOUSE_OFF 0x20
#define CONTROL_TRANSLATE 0x40

#define OUTPUT_NOT_RESET 0x01
#define OUTPUT_A20 0x02

#define ACK 0xfa
#define RESEND 0xfe

static void update(struct i8042 *k)
{
	const struct i8042_state *s = &k->state;
	irq_line_set(&k->keyboard_irq,
		     s->is_full && !s->is_from_mouse && (s->control & CONTROL_KEYBOARD_IRQ));
	irq_line_set(&k->mouse_irq,
		     s->is_full && s->is_from_mouse && (s->control & CONTROL_MOUSE_IRQ));
}

static void fill(struct i8042 *k, uint8_t byte, bool is_from_mouse, bool is_reply)
{
	struct i8042_state *s = &k->state;
	s->data = byte;
	s->is_full = 1;
	s->is_from_mouse = is_from_mouse;
	s->is_reply = is_reply;
}

static uint8_t take(struct i8042_queue *q)
{
	uint8_t byte = q->bytes[q->head];
	q->head = (q->head + 1) % I8042_QUEUE;
	q->count--;
	return byte;
}

static bool put(struct i8042_queue *q, const uint8_t *bytes, size_t count)
{
	if (count > (size_t)(I8042_QUEUE - q->count))
		return false;
	for (size_t i = 0; i < count; i++)
		q->bytes[(q->head + q->count++) % I8042_QUEUE] = bytes[i];
	return true;
}

static void put_byte(struct i8042_queue *q, uint8_t byte)
{
	put(q, &byte, 1);
}

/* An empty output buffer takes the next byte of a device whose interface is on. */
static void pump(struct i8042 *k)
{
	struct i8042_state *s = &k->state;
	if (!s->is_full && s->keyboard.count && !(s->control & CONTROL_KEYBOARD_OFF))
		fill(k, take(&s->keyboard), false, false);
	if (!s->is_full && s->mouse.count && !(s->control & CONTROL_MOUSE_OFF))
		fill(k, take(&s->mouse), true, false);
	update(k);
}

/* The controller's own answer replaces what was not read yet. */
static void reply(struct i8042 *k, uint8_t byte)
{
	fill(k, byte, false, true);
}

/* ---- the devices ---- */

static void keyboard_parameter(struct i8042 *k, uint8_t value)
{
	struct i8042_queue *q = &k->state.keyboard;
	put_byte(q, ACK);
	if (q->command == 0xf0) {
		if (value)
			k->state.scancode_set = value;
		else
			put_byte(q, k->state.scancode_set);
	}
	q->command = 0;
}

static void keyboard_command(struct i8042 *k, uint8_t value)
{
	struct i8042_queue *q = &k->state.keyboard;
	if (q->command && value < 0xed) {
		keyboard_parameter(k, value);
		return;
	}
	q->command = 0;
	switch (value) {
	case 0xed: /* LEDs */
	case 0xf0: /* scan code set */
	case 0xf3: /* repeat rate */
		q->command = value;
		put_byte(q, ACK);
		break;
	case 0xee: put_byte(q, 0xee); break; /* echo */
	case 0xf2: put(q, (const uint8_t[]){ACK, 0xab, 0x83}, 3); break;
	case 0xf4:
		q->is_enabled = 1;
		put_byte(q, ACK);
		break;
	case 0xf5:
		q->is_enabled = 0;
		put_byte(q, ACK);
		break;
	case 0xf6:
		q->is_enabled = 1;
		k->state.scancode_set = 2;
		put_byte(q, ACK);
		break;
	case 0xff:
		q->head = q->count = 0;
		q->is_enabled = 1;
		k->state.scancode_set = 2;
		put(q, (const uint8_t[]){ACK, 0xaa}, 2);
		break;
	default: put_byte(q, RESEND); break;
	}
}

static void mouse_command(struct i8042 *k, uint8_t value)
{
	struct i8042_queue *q = &k->state.mouse;
	if (q->command) {
		q->command = 0;
		put_byte(q, ACK);
		return;
	}
	switch (value) {
	case 0xe8: /* resolution */
	case 0xf3: /* sample rate */
		q->command = value;
		put_byte(q, ACK);
		break;
	case 0xe6:
	case 0xe7:
	case 0xea:
	case 0xf0: put_byte(q, ACK); break;
	case 0xe9: put(q, (const uint8_t[]){ACK, q->is_enabled ? 0x20 : 0, 2, 100}, 4); break;
	case 0xeb: put(q, (const uint8_t[]){ACK, 0x08, 0, 0}, 4); break;
	case 0xf2: put(q, (const uint8_t[]){ACK, 0}, 2); break;
	case 0xf4:
		q->is_enabled = 1;
		put_byte(q, ACK);
		break;
	case 0xf5:
	case 0xf6:
		q->is_enabled = 0;
		put_byte(q, ACK);
		break;
	case 0xff:
		q->head = q->count = q->is_enabled = 0;
		put(q, (const uint8_t[]){ACK, 0xaa, 0}, 3);
		break;
	default: put_byte(q, RESEND); break;
	}
}

bool i8042_key(struct i8042 *k, const uint8_t *bytes, size_t count)
{
	if (!k->state.keyboard.is_enabled || !put(&k->state.keyboard, bytes, count))
		return false;
	pump(k);
	return true;
}

/* ---- the controller ---- */

static void write_output_port(struct i8042 *k, uint8_t value)
{
	k->state.output_port = value | OUTPUT_NOT_RESET;
	if (!(value & OUTPUT_NOT_RESET))
		device_signal_raise(&k->reset, 0);
}

static void controller_command(struct i8042 *k, uint8_t value)
{
	struct i8042_state *s = &k->state;
	s->command = 0;
	if (value == 0x20) {
		reply(k, s->control);
	} else if (value > 0x20 && value < 0x40) {
		reply(k, s->ram[value & 31]);
	} else if ((value >= 0x60 && value < 0x80) || (value >= 0xd1 && value <= 0xd4)) {
		s->command = value;
	} else if (value >= 0xf0) {
		if (!(value & OUTPUT_NOT_RESET))
			device_signal_raise(&k->reset, 0);
	} else {
		switch (value) {
		case 0xa7: s->control |= CONTROL_MOUSE_OFF; break;
		case 0xa8: s->control &= (uint8_t)~CONTROL_MOUSE_OFF; break;
		case 0xa9:
			reply(k, k->has_mouse ? 0x00 : 0x01);
			break; /* 1: its clock line is stuck */
		case 0xaa:
			s->control |= CONTROL_SYSTEM;
			reply(k, 0x55);
			break;
		case 0xab: reply(k, 0x00); break;
		case 0xad: s->control |= CONTROL_KEYBOARD_OFF; break;
		case 0xae: s->control &= (uint8_t)~CONTROL_KEYBOARD_OFF; break;
		case 0xc0: reply(k, 0x80); break; /* input port: keyboard not locked */
		case 0xd0: reply(k, s->output_port); break;
		default: break;
		}
	}
}

static void command_parameter(struct i8042 *k, uint8_t command, uint8_t value)
{
	struct i8042_state *s = &k->state;
	switch (command) {
	case 0x60: s->control = value; break;
	case 0xd1: write_output_port(k, value); break;
	case 0xd2: fill(k, value, false, true); break;
	case 0xd3: /* comes back as from the mouse; without one the command does not exist */
		if (k->has_mouse)
			fill(k, value, true, true);
		break;
	case 0xd4:
		if (k->has_mouse) {
			s->control &= (uint8_t)~CONTROL_MOUSE_OFF;
			mouse_command(k, value);
		} else {
			fill(k, RESEND, true, true);
		}
		break;
	default: s->ram[command & 31] = value; break;
	}
}

static uint64_t data_read(void *opaque, struct bus_access access)
{
	struct i8042 *k = opaque;
	uint8_t byte = k->state.data;
	k->state.is_full = 0;
	update(k); /* the line falls between two bytes: each is an edge */
	pump(k);
	return byte;
}

static void data_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct i8042 *k = opaque;
	uint8_t command = k->state.command;
	k->state.status &= (uint8_t)~STATUS_COMMAND;
	k->state.command = 0;
	if (command) {
		command_parameter(k, command, (uint8_t)value);
	} else {
		k->state.control &= (uint8_t)~CONTROL_KEYBOARD_OFF;
		keyboard_command(k, (uint8_t)value);
	}
	pump(k);
}

static uint64_t status_read(void *opaque, struct bus_access access)
{
	const struct i8042_state *s = &((struct i8042 *)opaque)->state;
	return s->status | STATUS_UNLOCKED | (s->control & CONTROL_SYSTEM ? STATUS_SYSTEM : 0) |
	       (s->is_full ? STATUS_OUTPUT_FULL : 0) |
	       (s->is_full && s->is_from_mouse ? STATUS_MOUSE : 0);
}

static void command_write(void *opaque, struct bus_access access, uint64_t value)
{
	struct i8042 *k = opaque;
	k->state.status |= STATUS_COMMAND;
	controller_command(k, (uint8_t)value);
	pump(k);
}

static const struct bus_ops data_bus_ops = {data_read, data_write};
static const struct bus_ops command_bus_ops = {status_read, command_write};

static void i8042_reset(struct device *d)
{
	struct i8042 *k = (struct i8042 *)d;
	memset(&k->state, 0, sizeof(k->state));
	k->state.control = CONTROL_TRANSLATE | CONTROL_SYSTEM | CONTROL_MOUSE_OFF;
	k->state.output_port = OUTPUT_NOT_RESET | OUTPUT_A20;
	k->state.scancode_set = 2;
	k->state.keyboard.is_enabled = 1;
	update(k);
}

static int i8042_resume(struct device *d, struct error *e)
{
	const struct i8042_state *s = d->state;
	if (s->keyboard.head >= I8042_QUEUE || s->keyboard.count > I8042_QUEUE ||
	    s->mouse.head >= I8042_QUEUE || s->mouse.count > I8042_QUEUE)
		return error_set(e, -EINVAL, "impossible queue");
	return 0;
}

static const struct device_ops i8042_ops = {1, i8042_reset, i8042_resume, NULL};

int i8042_init(struct i8042 *k, struct irq_line keyboard_irq, struct irq_line mouse_irq,
	       bool has_mouse, struct device_signal reset, struct bus *bus, struct error *e)
{
	*k = (struct i8042){.keyboard_irq = keyboard_irq,
			    .mouse_irq = mouse_irq,
			    .has_mouse = has_mouse,
			    .reset = reset};
	device_init(&k->device, &i8042_ops, "i8042", NULL, &k->state, sizeof(k->state));
	device_reset(&k->device);
	int r = bus_map_ports(bus, PLATFORM_I8042_DATA_PORT, 1, &data_bus_ops, k, "i8042 data", e);
	if (!r)
		r = bus_map_ports(bus, PLATFORM_I8042_COMMAND_PORT, 1, &command_bus_ops, k,
				  "i8042 command", e);
	return r;
}
