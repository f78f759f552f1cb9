/*
 * Unpacking: every method gives back what its own library packed, with the size that the kernel's
 * build appends behind it; damaged and cut-off data is refused, and a bomb stops at the limit.
 */
#include <bzlib.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include <cmocka.h>

#include "base/types.h"
#include "boot/unpack.h"

#define PLAIN_BYTES (300 * 1024)
#define LIMIT_BYTES (32ull << 20)
#define PACKED_BYTES (PLAIN_BYTES + 64 * 1024)

/* Half of it compresses, half does not, so that both kinds of block occur. */
static uint8_t *make_plain(void)
{
	uint8_t *plain = malloc(PLAIN_BYTES);
	uint32_t x = 1;
	for (size_t i = 0; i < PLAIN_BYTES; i++) {
		x = x * 1664525 + 1013904223;
		plain[i] = (uint8_t)(i < PLAIN_BYTES / 2 ? i / 1000 : x >> 24);
	}
	return plain;
}

static size_t pack_gzip(const uint8_t *plain, uint8_t *out)
{
	z_stream z = {.next_in = (uint8_t *)(uintptr_t)plain,
		      .avail_in = PLAIN_BYTES,
		      .next_out = out,
		      .avail_out = PACKED_BYTES};
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static size_t pack_xz(const uint8_t *plain, uint8_t *out)
{
	/* As Linux does it: the x86 filter, CRC32. */
	lzma_options_lzma options;
	assert_false(lzma_lzma_preset(&options, 6));
	lzma_filter filters[] = {
		{LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
	size_t size = 0;
	assert_int_equal(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, plain,
						   PLAIN_BYTES, out, &size, PACKED_BYTES),
			 LZMA_OK);
	return size;
}

static size_t pack_lzma(const uint8_t *plain, uint8_t *out)
{
	lzma_options_lzma options;
	lzma_stream z = LZMA_STREAM_INIT;
	assert_false(lzma_lzma_preset(&options, 6));
	assert_int_equal(lzma_alone_encoder(&z, &options), LZMA_OK);
	z.next_in = plain;
	z.avail_in = PLAIN_BYTES;
	z.next_out = out;
	z.avail_out = PACKED_BYTES;
	assert_int_equal(lzma_code(&z, LZMA_FINISH), LZMA_STREAM_END);
	size_t size = z.total_out;
	lzma_end(&z);
	return size;
}

static size_t pack_zstd(const uint8_t *plain, uint8_t *out)
{
	size_t size = ZSTD_compress(out, PACKED_BYTES, plain, PLAIN_BYTES, 3);
	assert_false(ZSTD_isError(size));
	return size;
}

static size_t pack_bzip2(const uint8_t *plain, uint8_t *out)
{
	unsigned size = PACKED_BYTES;
	assert_int_equal(BZ2_bzBuffToBuffCompress((char *)out, &size, (char *)(uintptr_t)plain,
						  PLAIN_BYTES, 9, 0, 0),
			 BZ_OK);
	return size;
}

/* Two blocks behind one magic, as the lz4 tool's legacy format has them. */
static size_t pack_lz4(const uint8_t *plain, uint8_t *out)
{
	size_t at = 4, half = PLAIN_BYTES / 2;
	memcpy(out, "\x02\x21\x4c\x18", 4);
	for (unsigned i = 0; i < 2; i++) {
		int n = LZ4_compress_default((const char *)plain + i * half, (char *)out + at + 4,
					     (int)half, (int)(PACKED_BYTES - at - 4));
		assert_true(n > 0);
		put_u32(out + at, (uint32_t)n);
		at += 4 + (size_t)n;
	}
	return at;
}

static void put_be32(uint8_t *p, size_t v)
{
	put_u32(p, __builtin_bswap32((uint32_t)v));
}

static size_t pack_lzo(const uint8_t *plain, uint8_t *out)
{
	static const uint8_t header[] = {0x89, 'L',  'Z',  'O',	 0,    '\r', '\n', 0x1a, '\n', 0x10,
					 0x30, 0x20, 0x80, 0x09, 0x40, 1,    5,	   0,	 0,    0,
					 1, /* method, level, flags: adler32 of the plain data */
					 0,    0,    0x81, 0xa4, 0,    0,    0,	   0,	 0,    0,
					 0,    0,    3,	   'a',	 '.',  'o',  1,	   2,	 3,    4};
	uint8_t *work = malloc(LZO1X_1_MEM_COMPRESS);
	size_t at = sizeof(header), half = PLAIN_BYTES / 2;
	memcpy(out, header, sizeof(header));
	assert_int_equal(lzo_init(), LZO_E_OK);
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *block = plain + i * half;
		lzo_uint n = 0;
		assert_int_equal(lzo1x_1_compress(block, half, out + at + 12, &n, work), LZO_E_OK);
		if (n >= half) { /* stored */
			n = half;
			memcpy(out + at + 12, block, half);
		}
		put_be32(out + at, half);
		put_be32(out + at + 4, n);
		put_be32(out + at + 8, lzo_adler32(1, block, half));
		at += 12 + n;
	}
	put_be32(out + at, 0);
	free(work);
	return at + 4;
}

static const struct {
	const char *name;
	size_t (*pack)(const uint8_t *plain, uint8_t *out);
	bool has_end; /* cut off is always noticed */
} methods[] = {
	{"gzip", pack_gzip, true},   {"xz", pack_xz, true},    {"lzma", pack_lzma, true},
	{"zstd", pack_zstd, true},   {"lz4", pack_lz4, false}, {"lzo", pack_lzo, true},
	{"bzip2", pack_bzip2, true},
};

static int try_unpack(const uint8_t *packed, size_t size, uint8_t **out, uint64_t *out_size,
		      struct error *e)
{
	/* Its own allocation, so that a sanitizer sees a read past the end. */
	uint8_t *copy = malloc(size + !size);
	memcpy(copy, packed, size);
	int r = unpack((struct bytes){copy, size}, LIMIT_BYTES, out, out_size, e);
	free(copy);
	return r;
}

static void test_every_method_round_trips(void **unused)
{
	uint8_t *plain = make_plain(), *packed = malloc(PACKED_BYTES + 4);
	for (size_t i = 0; i < ARRAY_COUNT(methods); i++) {
		size_t size = methods[i].pack(plain, packed);
		put_u32(packed + size, PLAIN_BYTES);
		for (unsigned tail = 0; tail <= 4; tail += 4) {
			uint8_t *out;
			uint64_t out_size;
			struct error e = {0};
			assert_string_equal(unpack_method((struct bytes){packed, size}),
					    methods[i].name);
			if (try_unpack(packed, size + tail, &out, &out_size, &e))
				fail_msg("%s: %s", methods[i].name, e.text);
			assert_int_equal(out_size, PLAIN_BYTES);
			assert_memory_equal(out, plain, PLAIN_BYTES);
			free(out);
		}
	}
	free(plain);
	free(packed);
}

static void test_cut_off_data_is_refused(void **unused)
{
	uint8_t *plain = make_plain(), *packed = malloc(PACKED_BYTES);
	for (size_t i = 0; i < ARRAY_COUNT(methods); i++) {
		size_t size = methods[i].pack(plain, packed);
		for (size_t cut = 0; cut < size; cut = cut < 64 ? cut + 1 : cut + size / 7) {
			uint8_t *out;
			uint64_t out_size;
			struct error e = {0};
			int r = try_unpack(packed, cut, &out, &out_size, &e);
			assert_true(r < 0 || !methods[i].has_end);
			assert_true(r == 0 || (out == NULL && e.text[0]));
			free(out);
		}
	}
	free(plain);
	free(packed);
}

/* Whatever comes out, nothing is read or written where it must not be: the sanitizers judge. */
static void test_flipped_bits(void **unused)
{
	uint8_t *plain = make_plain(), *packed = malloc(PACKED_BYTES);
	for (size_t i = 0; i < ARRAY_COUNT(methods); i++) {
		size_t size = methods[i].pack(plain, packed);
		for (unsigned n = 0; n < 40; n++) {
			size_t at = n < 20 ? n : (size_t)n * size / 41;
			uint8_t *out;
			uint64_t out_size;
			packed[at] ^= (uint8_t)(1 << n % 8);
			try_unpack(packed, size, &out, &out_size, NULL);
			free(out);
			packed[at] ^= (uint8_t)(1 << n % 8);
		}
	}
	free(plain);
	free(packed);
}

static void test_a_bomb_stops_at_the_limit(void **unused)
{
	/* zstd packs more than the limit of zeros into some kilobytes. */
	ZSTD_CStream *z = ZSTD_createCStream();
	ZSTD_initCStream(z, 1);
	uint8_t *packed = malloc(1 << 20), *zeros = calloc(1, 1 << 20);
	ZSTD_outBuffer to = {packed, 1 << 20, 0};
	for (unsigned i = 0; i <= LIMIT_BYTES >> 20; i++) {
		ZSTD_inBuffer from = {zeros, 1 << 20, 0};
		while (from.pos < from.size)
			assert_false(ZSTD_isError(ZSTD_compressStream(z, &to, &from)));
	}
	assert_int_equal(ZSTD_endStream(z, &to), 0);
	ZSTD_freeCStream(z);
	uint8_t *out;
	uint64_t out_size;
	struct error e = {0};
	assert_int_equal(try_unpack(packed, to.pos, &out, &out_size, &e), -EFBIG);
	assert_non_null(strstr(e.text, "more than 32 MiB"));
	free(packed);
	free(zeros);
}

static void test_unknown_data(void **unused)
{
	uint8_t *out;
	uint64_t out_size;
	struct error e = {0};
	assert_null(unpack_method((struct bytes){(const uint8_t *)"plain", 5}));
	assert_int_equal(try_unpack((const uint8_t *)"plain", 5, &out, &out_size, &e), -ENOEXEC);
	assert_non_null(strstr(e.text, "gzip, xz, lzma, zstd"));
	assert_int_equal(try_unpack((const uint8_t *)"", 0, &out, &out_size, &e), -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_method_round_trips),
		cmocka_unit_test(test_cut_off_data_is_refused),
		cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_a_bomb_stops_at_the_limit),
		cmocka_unit_test(test_unknown_data),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
