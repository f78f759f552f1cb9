/*
 * The framing of gdb's protocol: `$data#checksum`, acknowledged by `+` or `-`; 0x03 alone is the
 * interrupt key. Pure: bytes in, events out, so that it can be tested and fuzzed without a machine.
 * Private to debug/.
 */
#pragma once

#include "base/types.h"

#define GDB_PACKET_BYTES 16384

enum gdb_event {
	GDB_NOTHING,   /* more bytes are needed */
	GDB_PACKET,    /* `data` holds one, unescaped, with a NUL behind it */
	GDB_DAMAGED,   /* checksum wrong, or too long: ask for it again */
	GDB_INTERRUPT, /* the person pressed Ctrl-C */
	GDB_RESEND,    /* our last answer was damaged */
};

struct gdb_parser {
	enum { GDB_IDLE, GDB_DATA, GDB_ESCAPED, GDB_SUM1, GDB_SUM2 } state;
	uint8_t data[GDB_PACKET_BYTES + 1];
	size_t length;
	uint8_t sum;	    /* of the bytes so far */
	uint8_t stated_sum; /* what the sender says */
	bool is_too_long;
};

enum gdb_event gdb_parse(struct gdb_parser *p, uint8_t byte);

/* An answer that is being written. Too much of it is cut off and marked. */
struct gdb_answer {
	uint8_t data[2 * GDB_PACKET_BYTES + 64];
	size_t length;
	bool is_cut;
};

void gdb_answer_text(struct gdb_answer *a, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void gdb_answer_hex(struct gdb_answer *a, const void *bytes, size_t count);
/* Escaped as binary data. */
void gdb_answer_binary(struct gdb_answer *a, const void *bytes, size_t count);
/* Frames it: `out` takes a->length + 4 bytes. Returns how many. */
size_t gdb_frame(const struct gdb_answer *a, uint8_t *out);

/* Hexadecimal pairs to bytes, at most `max`; -1 if it is malformed, else how many. */
int gdb_unhex(const char *text, uint8_t *bytes, size_t max);
/* A hexadecimal number; *text is moved behind it. False if there is none or it is too large. */
bool gdb_number(const char **text, uint64_t *out);
