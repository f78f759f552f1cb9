/* Fields of 9P messages: little-endian numbers, strings with their length in 16 bits. Reading past
 * the end gives zeros and is remembered; so is writing. Private to share/. */
#pragma once

#include <string.h>

#include "base/types.h"

#define NAME_BYTES 256

struct reader {
	const uint8_t *at, *end;
	bool is_short;
};

struct writer {
	uint8_t *at, *end;
	bool is_full;
};

static inline uint64_t get(struct reader *r, unsigned bytes)
{
	uint64_t v = 0;
	if ((size_t)(r->end - r->at) < bytes) {
		r->is_short = true;
		r->at = r->end;
		return 0;
	}
	memcpy(&v, r->at, bytes);
	r->at += bytes;
	return v;
}

static inline void put(struct writer *w, unsigned bytes, uint64_t v)
{
	if ((size_t)(w->end - w->at) < bytes) {
		w->is_full = true;
		return;
	}
	memcpy(w->at, &v, bytes);
	w->at += bytes;
}

/* A string, with a NUL behind it. False if it is longer than `room` - 1 or has a NUL inside. */
static inline bool get_text(struct reader *r, char *text, size_t room)
{
	size_t length = get(r, 2);
	text[0] = 0;
	if (length > (size_t)(r->end - r->at)) {
		r->is_short = true;
		return false;
	}
	const uint8_t *from = r->at;
	r->at += length;
	if (length >= room || memchr(from, 0, length))
		return false;
	memcpy(text, from, length);
	text[length] = 0;
	return true;
}

static inline void put_text(struct writer *w, const char *text, size_t length)
{
	put(w, 2, length);
	if (w->is_full || (size_t)(w->end - w->at) < length) {
		w->is_full = true;
		return;
	}
	memcpy(w->at, text, length);
	w->at += length;
}
