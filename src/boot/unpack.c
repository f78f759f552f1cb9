/*
 * Unpacking kernel payloads with the libraries that keep each format. One growing, bounded output;
 * each method reads a bounded input and stops at its own end marker, as the formats appended to a
 * bzImage do (a 4-byte size follows most of them).
 */
#include "boot/unpack.h"

#include <bzlib.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define LZ4_BLOCK_BYTES (8u << 20)
#define LZ4_MAGIC 0x184c2102u
#define XZ_MEMORY_MAX (512ull << 20)
#define ONE_CALL_MAX (1u << 30) /* what fits every library's counters */

struct output {
	uint8_t *bytes;
	uint64_t size, capacity, max;
};

/* Room for at least `more` bytes behind what is there. */
static int output_grow(struct output *o, uint64_t more)
{
	if (more > o->max - o->size)
		return -EFBIG;
	if (o->capacity - o->size >= more)
		return 0;
	uint64_t capacity = o->capacity ? 2 * o->capacity : 8ull << 20;
	while (capacity - o->size < more)
		capacity *= 2;
	if (capacity > o->max)
		capacity = o->max;
	uint8_t *bytes = realloc(o->bytes, capacity);
	if (!bytes)
		return -ENOMEM;
	o->bytes = bytes;
	o->capacity = capacity;
	return 0;
}

static unsigned output_room(const struct output *o)
{
	uint64_t room = o->capacity - o->size;
	return room < ONE_CALL_MAX ? (unsigned)room : ONE_CALL_MAX;
}

static int unpack_gzip(struct bytes in, struct output *o)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)in.data, .avail_in = (uInt)in.size};
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	int r = 0, status = Z_OK;
	while (status == Z_OK && !(r = output_grow(o, 1))) {
		z.next_out = o->bytes + o->size;
		z.avail_out = output_room(o);
		unsigned room = z.avail_out;
		status = inflate(&z, Z_NO_FLUSH);
		o->size += room - z.avail_out;
	}
	inflateEnd(&z);
	return r ? r : status == Z_STREAM_END ? 0 : -EILSEQ;
}

static int unpack_bzip2(struct bytes in, struct output *o)
{
	bz_stream z = {.next_in = (char *)(uintptr_t)in.data, .avail_in = (unsigned)in.size};
	if (BZ2_bzDecompressInit(&z, 0, 0) != BZ_OK)
		return -ENOMEM;
	int r = 0, status = BZ_OK;
	while (status == BZ_OK && !(r = output_grow(o, 1))) {
		z.next_out = (char *)o->bytes + o->size;
		z.avail_out = output_room(o);
		unsigned room = z.avail_out, left = z.avail_in;
		status = BZ2_bzDecompress(&z);
		o->size += room - z.avail_out;
		if (status == BZ_OK && z.avail_out == room && z.avail_in == left)
			break; /* cut off: it would ask for more for ever */
	}
	BZ2_bzDecompressEnd(&z);
	return r ? r : status == BZ_STREAM_END ? 0 : -EILSEQ;
}

/* Both .xz and .lzma. */
static int unpack_xz(struct bytes in, struct output *o)
{
	lzma_stream z = LZMA_STREAM_INIT;
	if (lzma_auto_decoder(&z, XZ_MEMORY_MAX, 0) != LZMA_OK)
		return -ENOMEM;
	z.next_in = in.data;
	z.avail_in = in.size;
	int r = 0;
	lzma_ret status = LZMA_OK;
	while (status == LZMA_OK && !(r = output_grow(o, 1))) {
		z.next_out = o->bytes + o->size;
		z.avail_out = output_room(o);
		size_t room = z.avail_out;
		status = lzma_code(&z, LZMA_RUN);
		o->size += room - z.avail_out;
	}
	lzma_end(&z);
	return r ? r : status == LZMA_STREAM_END ? 0 : -EILSEQ;
}

static int unpack_zstd(struct bytes in, struct output *o)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	if (!z)
		return -ENOMEM;
	ZSTD_inBuffer from = {in.data, in.size, 0};
	int r;
	size_t status = 1;
	while (!(r = output_grow(o, 1))) {
		ZSTD_outBuffer to = {o->bytes + o->size, output_room(o), 0};
		size_t consumed = from.pos;
		status = ZSTD_decompressStream(z, &to, &from);
		o->size += to.pos;
		if (status == 0 || ZSTD_isError(status) || (to.pos == 0 && from.pos == consumed))
			break;
	}
	ZSTD_freeDStream(z);
	return r ? r : status == 0 ? 0 : -EILSEQ;
}

/* The legacy frame that the kernel uses: magic, then blocks of at most 8 MiB, each behind its
 * packed size. No end marker: the payload's end is the end, or the 4-byte size behind it. */
static int unpack_lz4(struct bytes in, struct output *o)
{
	uint64_t at = 4;
	while (bytes_has(in, at, 5)) {
		uint32_t size = bytes_u32(in, at);
		at += 4;
		if (size == LZ4_MAGIC)
			continue;
		if (!bytes_has(in, at, size) || size > (uint32_t)LZ4_COMPRESSBOUND(LZ4_BLOCK_BYTES))
			return -EILSEQ;
		int r = output_grow(o, LZ4_BLOCK_BYTES);
		if (r)
			return r;
		int n = LZ4_decompress_safe((const char *)in.data + at, (char *)o->bytes + o->size,
					    (int)size, LZ4_BLOCK_BYTES);
		if (n < 0)
			return -EILSEQ;
		o->size += (unsigned)n;
		at += size;
	}
	return o->size ? 0 : -EILSEQ;
}

static uint32_t bytes_be32(struct bytes b, uint64_t at)
{
	return __builtin_bswap32(bytes_u32(b, at));
}

#define LZOP_ADLER32_D 0x1u
#define LZOP_ADLER32_C 0x2u
#define LZOP_EXTRA 0x40u
#define LZOP_CRC32_D 0x100u
#define LZOP_CRC32_C 0x200u
#define LZOP_FILTER 0x800u

/* The offset behind an lzop header, and its flags; 0 if it is damaged. */
static uint64_t skip_lzop_header(struct bytes in, uint32_t *flags)
{
	if (!bytes_has(in, 0, 64))
		return 0;
	bool is_new = __builtin_bswap16(bytes_u16(in, 9)) >= 0x940;
	uint64_t at = 9 + 4 + (is_new ? 2 : 0) + 1 + (is_new ? 1 : 0);
	*flags = bytes_be32(in, at);
	at += 4 + (*flags & LZOP_FILTER ? 4 : 0) + 4 + 4 + (is_new ? 4 : 0);
	at += 1 + bytes_u8(in, at); /* file name */
	at += 4;		    /* checksum */
	if (*flags & LZOP_EXTRA) {
		if (!bytes_has(in, at, 4))
			return 0;
		at += 8 + (uint64_t)bytes_be32(in, at);
	}
	return at;
}

static int unpack_lzo_block(struct bytes packed, uint32_t size, struct output *o)
{
	int r = output_grow(o, size);
	if (r)
		return r;
	if (packed.size == size) {
		memcpy(o->bytes + o->size, packed.data, size);
	} else {
		lzo_uint n = size;
		if (lzo1x_decompress_safe(packed.data, packed.size, o->bytes + o->size, &n, NULL) !=
			    LZO_E_OK ||
		    n != size)
			return -EILSEQ;
	}
	o->size += size;
	return 0;
}

static int unpack_lzo(struct bytes in, struct output *o)
{
	uint32_t flags;
	uint64_t at = skip_lzop_header(in, &flags);
	if (at == 0 || lzo_init() != LZO_E_OK)
		return -EILSEQ;
	for (;;) {
		if (!bytes_has(in, at, 4))
			return -EILSEQ;
		uint32_t size = bytes_be32(in, at);
		if (size == 0)
			return 0;
		if (!bytes_has(in, at, 8))
			return -EILSEQ;
		uint32_t packed_size = bytes_be32(in, at + 4);
		at += 8 + (flags & LZOP_ADLER32_D ? 4 : 0) + (flags & LZOP_CRC32_D ? 4 : 0);
		if (packed_size < size)
			at += (flags & LZOP_ADLER32_C ? 4 : 0) + (flags & LZOP_CRC32_C ? 4 : 0);
		if (packed_size > size || !bytes_has(in, at, packed_size))
			return -EILSEQ;
		int r = unpack_lzo_block(bytes_part(in, at, packed_size), size, o);
		if (r)
			return r;
		at += packed_size;
	}
}

struct method {
	const char *name;
	const char *magic;
	unsigned magic_size;
	int (*unpack)(struct bytes in, struct output *o);
};

static const struct method methods[] = {
	{"gzip", "\x1f\x8b", 2, unpack_gzip},
	{"xz",
	 "\xfd"
	 "7zXZ",
	 6, unpack_xz},
	{"lzma", "\x5d\0\0", 3, unpack_xz},
	{"zstd", "\x28\xb5\x2f\xfd", 4, unpack_zstd},
	{"lz4", "\x02\x21\x4c\x18", 4, unpack_lz4},
	{"lzo", "\x89LZO\0\r\n\x1a\n", 9, unpack_lzo},
	{"bzip2", "BZh", 3, unpack_bzip2},
};

static const struct method *find_method(struct bytes packed)
{
	for (unsigned i = 0; i < ARRAY_COUNT(methods); i++)
		if (bytes_match(packed, 0, methods[i].magic, methods[i].magic_size))
			return &methods[i];
	return NULL;
}

const char *unpack_method(struct bytes packed)
{
	const struct method *m = find_method(packed);
	return m ? m->name : NULL;
}

int unpack(struct bytes packed, uint64_t max, uint8_t **out, uint64_t *out_size, struct error *e)
{
	*out = NULL;
	*out_size = 0;
	const struct method *m = find_method(packed);
	if (!m)
		return error_set(
			e, -ENOEXEC,
			"compressed in a way gnomon does not know: it knows gzip, xz, lzma, zstd, "
			"lz4, lzo and bzip2");
	if (packed.size > ONE_CALL_MAX)
		return error_set(e, -EFBIG, "%llu bytes of %s data are more than any kernel has",
				 (unsigned long long)packed.size, m->name);
	struct output o = {.max = max};
	int r = m->unpack(packed, &o);
	if (r == 0) {
		*out = o.bytes;
		*out_size = o.size;
		return 0;
	}
	free(o.bytes);
	if (r == -EFBIG)
		return error_set(e, r, "the %s data unpacks to more than %llu MiB", m->name,
				 (unsigned long long)(max >> 20));
	if (r == -ENOMEM)
		return error_set(e, r, "no host memory to unpack %s data into", m->name);
	return error_set(e, -ENOEXEC, "the %s data is damaged or cut off", m->name);
}
