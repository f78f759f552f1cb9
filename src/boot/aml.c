/*
 * AML: opcodes, package lengths, resource descriptors.
 */
#include "boot/aml.h"

#include <assert.h>
#include <string.h>

#define OP_ZERO 0x00
#define OP_ONE 0x01
#define OP_NAME 0x08
#define OP_BYTE 0x0a
#define OP_WORD 0x0b
#define OP_DWORD 0x0c
#define OP_STRING 0x0d
#define OP_QWORD 0x0e
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_DUAL_NAME 0x2e
#define OP_MULTI_NAME 0x2f
#define OP_EXTENDED 0x5b
#define OP_DEVICE 0x82

#define PACKAGE_LENGTH_MAX 4

void aml_put(struct aml *a, const void *bytes, size_t size)
{
	if (size > a->capacity - a->size) {
		a->overflow = true;
		return;
	}
	memcpy(a->bytes + a->size, bytes, size);
	a->size += size;
}

void aml_u8(struct aml *a, unsigned v)
{
	uint8_t b = (uint8_t)v;
	aml_put(a, &b, 1);
}

void aml_u16(struct aml *a, unsigned v)
{
	uint16_t b = (uint16_t)v;
	aml_put(a, &b, 2);
}

void aml_u32(struct aml *a, uint32_t v)
{
	aml_put(a, &v, 4);
}

void aml_u64(struct aml *a, uint64_t v)
{
	aml_put(a, &v, 8);
}

void aml_name(struct aml *a, const char *name)
{
	if (*name == '\\') {
		aml_u8(a, '\\');
		name++;
	}
	unsigned segments = *name ? 1 : 0;
	for (const char *p = name; *p; p++)
		segments += *p == '.';
	if (segments == 0)
		aml_u8(a, 0);
	else if (segments == 2)
		aml_u8(a, OP_DUAL_NAME);
	else if (segments > 2) {
		aml_u8(a, OP_MULTI_NAME);
		aml_u8(a, segments);
	}
	while (*name) {
		char segment[4] = {'_', '_', '_', '_'};
		for (unsigned i = 0; *name && *name != '.'; i++, name++) {
			assert(i < 4);
			segment[i] = *name;
		}
		aml_put(a, segment, 4);
		if (*name == '.')
			name++;
	}
}

void aml_integer(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		aml_u8(a, v ? OP_ONE : OP_ZERO);
	} else if (v <= 0xff) {
		aml_u8(a, OP_BYTE);
		aml_u8(a, (unsigned)v);
	} else if (v <= 0xffff) {
		aml_u8(a, OP_WORD);
		aml_u16(a, (unsigned)v);
	} else if (v <= 0xffffffff) {
		aml_u8(a, OP_DWORD);
		aml_u32(a, (uint32_t)v);
	} else {
		aml_u8(a, OP_QWORD);
		aml_u64(a, v);
	}
}

void aml_string(struct aml *a, const char *text)
{
	aml_u8(a, OP_STRING);
	aml_put(a, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void aml_eisa_id(struct aml *a, const char *id)
{
	assert(strlen(id) == 7);
	/* Three 5-bit letters and four digits, big-endian (ACPI 6.4, 19.6.37). */
	uint32_t v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
		     (uint32_t)(id[2] - '@') << 16 | hex_digit(id[3]) << 12 |
		     hex_digit(id[4]) << 8 | hex_digit(id[5]) << 4 | hex_digit(id[6]);
	aml_u8(a, OP_DWORD);
	aml_u32(a, __builtin_bswap32(v));
}

void aml_name_integer(struct aml *a, const char *name, uint64_t v)
{
	aml_u8(a, OP_NAME);
	aml_name(a, name);
	aml_integer(a, v);
}

void aml_name_eisa_id(struct aml *a, const char *name, const char *id)
{
	aml_u8(a, OP_NAME);
	aml_name(a, name);
	aml_eisa_id(a, id);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
	aml_u8(a, OP_NAME);
	aml_name(a, name);
	aml_string(a, text);
}

/* Leaves room for the longest length; aml_end() closes the gap. */
static struct aml_mark begin(struct aml *a)
{
	struct aml_mark mark = {a->size};
	aml_u32(a, 0);
	return mark;
}

struct aml_mark aml_scope(struct aml *a, const char *name)
{
	aml_u8(a, OP_SCOPE);
	struct aml_mark mark = begin(a);
	aml_name(a, name);
	return mark;
}

struct aml_mark aml_device(struct aml *a, const char *name)
{
	aml_u8(a, OP_EXTENDED);
	aml_u8(a, OP_DEVICE);
	struct aml_mark mark = begin(a);
	aml_name(a, name);
	return mark;
}

struct aml_mark aml_package(struct aml *a, unsigned count)
{
	assert(count <= 0xff);
	aml_u8(a, OP_PACKAGE);
	struct aml_mark mark = begin(a);
	aml_u8(a, count);
	return mark;
}

/* The length counts its own bytes: 1 byte up to 63, else 4 low bits in the first and 8 in each of
 * up to three more (20.2.4). */
void aml_end(struct aml *a, struct aml_mark mark)
{
	if (a->overflow)
		return;
	size_t body = a->size - mark.at - PACKAGE_LENGTH_MAX;
	unsigned n = body + 1 <= 0x3f ? 1 : body + 2 <= 0xfff ? 2 : body + 3 <= 0xfffff ? 3 : 4;
	size_t length = body + n;
	uint8_t *p = a->bytes + mark.at;
	memmove(p + n, p + PACKAGE_LENGTH_MAX, body);
	a->size -= PACKAGE_LENGTH_MAX - n;
	if (n == 1) {
		p[0] = (uint8_t)length;
		return;
	}
	p[0] = (uint8_t)((n - 1) << 6 | (length & 0xf));
	for (unsigned i = 1; i < n; i++)
		p[i] = (uint8_t)(length >> (4 + 8 * (i - 1)));
}

struct aml_resources aml_resources(struct aml *a)
{
	struct aml_resources r;
	aml_u8(a, OP_NAME);
	aml_name(a, "_CRS");
	aml_u8(a, OP_BUFFER);
	r.package = begin(a);
	aml_u8(a, OP_WORD);
	r.size_at = a->size;
	aml_u16(a, 0);
	return r;
}

void aml_resources_end(struct aml *a, struct aml_resources r)
{
	aml_u16(a, 0x0079); /* end tag, checksum 0: not used */
	if (a->overflow)
		return;
	uint16_t size = (uint16_t)(a->size - r.size_at - 2);
	memcpy(a->bytes + r.size_at, &size, 2);
	aml_end(a, r.package);
}

void aml_io(struct aml *a, uint16_t base, uint8_t count)
{
	aml_u8(a, 0x47);
	aml_u8(a, 1); /* decodes 16 bits */
	aml_u16(a, base);
	aml_u16(a, base);
	aml_u8(a, 1);
	aml_u8(a, count);
}

void aml_irq(struct aml *a, unsigned irq)
{
	aml_u8(a, 0x22);
	aml_u16(a, 1u << irq);
}

void aml_gsi(struct aml *a, unsigned gsi)
{
	aml_u8(a, 0x89);
	aml_u16(a, 6);
	aml_u8(a, 0x09); /* consumer, shared */
	aml_u8(a, 1);
	aml_u32(a, gsi);
}

void aml_memory32(struct aml *a, uint32_t base, uint32_t size_bytes)
{
	aml_u8(a, 0x86);
	aml_u16(a, 9);
	aml_u8(a, 1); /* writable */
	aml_u32(a, base);
	aml_u32(a, size_bytes);
}

static void word_window(struct aml *a, unsigned type, unsigned flags, uint16_t first, uint16_t last)
{
	aml_u8(a, 0x88);
	aml_u16(a, 13);
	aml_u8(a, type);
	aml_u8(a, 0x0c); /* first and last are fixed */
	aml_u8(a, flags);
	aml_u16(a, 0);
	aml_u16(a, first);
	aml_u16(a, last);
	aml_u16(a, 0);
	aml_u16(a, (unsigned)last - first + 1);
}

void aml_bus_window(struct aml *a, uint16_t first, uint16_t last)
{
	word_window(a, 2, 0, first, last);
}

void aml_io_window(struct aml *a, uint16_t first, uint16_t last)
{
	word_window(a, 1, 3, first, last); /* 3: the whole range, not only ISA's */
}

void aml_memory_window(struct aml *a, uint32_t first, uint32_t last)
{
	aml_u8(a, 0x87);
	aml_u16(a, 23);
	aml_u8(a, 0);
	aml_u8(a, 0x0c);
	aml_u8(a, 1); /* writable, not cacheable */
	aml_u32(a, 0);
	aml_u32(a, first);
	aml_u32(a, last);
	aml_u32(a, 0);
	aml_u32(a, last - first + 1);
}
