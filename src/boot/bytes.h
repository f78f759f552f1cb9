/*
 * A bounded view of bytes from a file, and little-endian access. Whoever reads from untrusted bytes
 * asks bytes_has() first, with 64-bit offsets that cannot wrap; the loads assert it.
 */
#pragma once

#include <assert.h>
#include <string.h>

#include "base/types.h"

struct bytes {
	const uint8_t *data;
	uint64_t size;
};

static inline bool bytes_has(struct bytes b, uint64_t offset, uint64_t size)
{
	return offset <= b.size && size <= b.size - offset;
}

static inline uint64_t bytes_load(struct bytes b, uint64_t offset, unsigned size_bytes)
{
	uint64_t v = 0;
	assert(bytes_has(b, offset, size_bytes));
	memcpy(&v, b.data + offset, size_bytes);
	return v;
}

static inline uint8_t bytes_u8(struct bytes b, uint64_t offset)
{
	return (uint8_t)bytes_load(b, offset, 1);
}

static inline uint16_t bytes_u16(struct bytes b, uint64_t offset)
{
	return (uint16_t)bytes_load(b, offset, 2);
}

static inline uint32_t bytes_u32(struct bytes b, uint64_t offset)
{
	return (uint32_t)bytes_load(b, offset, 4);
}

static inline uint64_t bytes_u64(struct bytes b, uint64_t offset)
{
	return bytes_load(b, offset, 8);
}

static inline bool bytes_match(struct bytes b, uint64_t offset, const char *what, uint64_t size)
{
	return bytes_has(b, offset, size) && !memcmp(b.data + offset, what, size);
}

/* The part from `offset`, `size` long; the caller checked. */
static inline struct bytes bytes_part(struct bytes b, uint64_t offset, uint64_t size)
{
	assert(bytes_has(b, offset, size));
	return (struct bytes){b.data + offset, size};
}

static inline void put_u16(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, 2);
}

static inline void put_u32(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, 4);
}

static inline void put_u64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, 8);
}
