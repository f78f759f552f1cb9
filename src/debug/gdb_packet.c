#include "debug/gdb_packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int hex_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static void keep(struct gdb_parser *p, uint8_t byte)
{
	if (p->length < GDB_PACKET_BYTES)
		p->data[p->length++] = byte;
	else
		p->is_too_long = true;
}

static enum gdb_event parse_idle(struct gdb_parser *p, uint8_t byte)
{
	if (byte == 3)
		return GDB_INTERRUPT;
	if (byte == '-')
		return GDB_RESEND;
	if (byte == '$') {
		p->state = GDB_DATA;
		p->length = 0;
		p->sum = 0;
		p->is_too_long = false;
	}
	return GDB_NOTHING;
}

static enum gdb_event parse_sum(struct gdb_parser *p, uint8_t byte)
{
	int digit = hex_digit(byte);
	if (digit < 0) {
		p->state = GDB_IDLE;
		return GDB_DAMAGED;
	}
	p->stated_sum = (uint8_t)(p->stated_sum << 4 | digit);
	if (p->state == GDB_SUM1) {
		p->state = GDB_SUM2;
		return GDB_NOTHING;
	}
	p->state = GDB_IDLE;
	p->data[p->length] = 0;
	return p->stated_sum == p->sum && !p->is_too_long ? GDB_PACKET : GDB_DAMAGED;
}

enum gdb_event gdb_parse(struct gdb_parser *p, uint8_t byte)
{
	switch (p->state) {
	case GDB_IDLE: return parse_idle(p, byte);
	case GDB_SUM1:
	case GDB_SUM2: return parse_sum(p, byte);
	case GDB_DATA:
	case GDB_ESCAPED: break;
	}
	if (p->state == GDB_DATA && byte == '#') {
		p->state = GDB_SUM1;
		p->stated_sum = 0;
		return GDB_NOTHING;
	}
	p->sum = (uint8_t)(p->sum + byte);
	if (p->state == GDB_ESCAPED) {
		keep(p, byte ^ 0x20);
		p->state = GDB_DATA;
	} else if (byte == '}') {
		p->state = GDB_ESCAPED;
	} else {
		keep(p, byte);
	}
	return GDB_NOTHING;
}

/* ---- answers ---- */

static void put(struct gdb_answer *a, uint8_t byte)
{
	if (a->length < sizeof(a->data))
		a->data[a->length++] = byte;
	else
		a->is_cut = true;
}

void gdb_answer_text(struct gdb_answer *a, const char *format, ...)
{
	char text[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	for (const char *p = text; *p; p++)
		put(a, (uint8_t)*p);
}

void gdb_answer_hex(struct gdb_answer *a, const void *bytes, size_t count)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = bytes;
	for (size_t i = 0; i < count; i++) {
		put(a, (uint8_t)digits[p[i] >> 4]);
		put(a, (uint8_t)digits[p[i] & 15]);
	}
}

void gdb_answer_binary(struct gdb_answer *a, const void *bytes, size_t count)
{
	const uint8_t *p = bytes;
	for (size_t i = 0; i < count; i++) {
		if (p[i] && strchr("#$}*", p[i])) {
			put(a, '}');
			put(a, p[i] ^ 0x20);
		} else {
			put(a, p[i]);
		}
	}
}

size_t gdb_frame(const struct gdb_answer *a, uint8_t *out)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t sum = 0;
	for (size_t i = 0; i < a->length; i++)
		sum = (uint8_t)(sum + a->data[i]);
	out[0] = '$';
	memcpy(out + 1, a->data, a->length);
	out[a->length + 1] = '#';
	out[a->length + 2] = (uint8_t)digits[sum >> 4];
	out[a->length + 3] = (uint8_t)digits[sum & 15];
	return a->length + 4;
}

int gdb_unhex(const char *text, uint8_t *bytes, size_t max)
{
	size_t n = 0;
	for (; text[0]; text += 2) {
		int high = hex_digit(text[0]), low = text[1] ? hex_digit(text[1]) : -1;
		if (high < 0 || low < 0 || n == max)
			return -1;
		bytes[n++] = (uint8_t)(high << 4 | low);
	}
	return (int)n;
}

bool gdb_number(const char **text, uint64_t *out)
{
	unsigned digits = 0;
	uint64_t v = 0;
	for (int d; (d = hex_digit(**text)) >= 0; ++*text) {
		if (v >> 60)
			return false;
		v = v << 4 | (uint64_t)d;
		digits++;
	}
	*out = v;
	return digits > 0;
}
