/* The writer hashes as it goes; a buffer writer also keeps the bytes. The reader trusts nothing:
 * framing is checked first. */
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

/*
 * In memory a section is this header and then the bytes, with no padding between sections:
 *
 *	0        32         36         40        48
 *	| name   | version  | zero     | length  | bytes ...
 */
#define NAME_BYTES 32

struct section_header {
	char name[NAME_BYTES]; /* NUL-terminated, the rest zero */
	uint32_t version;
	uint32_t zero;
	uint64_t size_bytes;
};

_Static_assert(sizeof(struct section_header) == 48, "the header is written as it lies in memory");

struct state_writer {
	XXH3_state_t *hash;
	bool is_buffer;
	bool has_failed; /* out of memory: the bytes are no longer whole */
	uint8_t *bytes;
	size_t size_bytes;
	size_t capacity_bytes;
};

static int writer_create(struct state_writer **out, bool is_buffer)
{
	struct state_writer *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->is_buffer = is_buffer;
	w->hash = XXH3_createState();
	if (!w->hash || XXH3_128bits_reset(w->hash) == XXH_ERROR) {
		state_writer_destroy(w);
		return -ENOMEM;
	}
	*out = w;
	return 0;
}

int state_hasher_create(struct state_writer **out)
{
	return writer_create(out, false);
}

int state_buffer_create(struct state_writer **out)
{
	return writer_create(out, true);
}

void state_writer_destroy(struct state_writer *w)
{
	if (!w)
		return;
	XXH3_freeState(w->hash);
	free(w->bytes);
	free(w);
}

static void append(struct state_writer *w, const void *bytes, size_t size_bytes)
{
	if (!size_bytes)
		return;
	XXH3_128bits_update(w->hash, bytes, size_bytes);
	if (!w->is_buffer || w->has_failed)
		return;
	if (size_bytes > w->capacity_bytes - w->size_bytes) {
		size_t capacity = (w->size_bytes + size_bytes) * 2;
		uint8_t *grown = realloc(w->bytes, capacity);
		if (!grown) {
			w->has_failed = true;
			return;
		}
		w->bytes = grown;
		w->capacity_bytes = capacity;
	}
	memcpy(w->bytes + w->size_bytes, bytes, size_bytes);
	w->size_bytes += size_bytes;
}

void state_put(struct state_writer *w, const char *name, uint32_t version, const void *bytes,
	       size_t size_bytes)
{
	struct section_header h = {.version = version, .size_bytes = size_bytes};
	strncpy(h.name, name, NAME_BYTES - 1);
	append(w, &h, sizeof(h));
	append(w, bytes, size_bytes);
}

void state_hash_text(const struct state_writer *w, char text[33])
{
	static const char digits[] = "0123456789abcdef";
	XXH128_canonical_t canonical;
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(w->hash));
	for (unsigned i = 0; i < 16; i++) {
		text[2 * i] = digits[canonical.digest[i] >> 4];
		text[2 * i + 1] = digits[canonical.digest[i] & 15];
	}
	text[32] = 0;
}

const uint8_t *state_buffer_bytes(const struct state_writer *w, size_t *size_bytes)
{
	*size_bytes = w->has_failed ? 0 : w->size_bytes;
	return w->has_failed ? NULL : w->bytes;
}

struct state_reader {
	const uint8_t *bytes; /* borrowed; framing checked at creation */
	size_t size_bytes;
};

/* Reads the header at `at` and checks that the section lies in the bytes; NULL or what is wrong. */
static const char *frame_problem(const uint8_t *bytes, size_t size_bytes, size_t at,
				 struct section_header *h)
{
	if (size_bytes - at < sizeof(*h))
		return "the bytes end inside a section's header";
	memcpy(h, bytes + at, sizeof(*h));
	if (!h->name[0] || !memchr(h->name, 0, NAME_BYTES))
		return "a section has no name";
	if (h->zero)
		return "a section's header is malformed";
	if (h->size_bytes > size_bytes - at - sizeof(*h))
		return "the bytes end inside a section";
	return NULL;
}

int state_reader_create(struct state_reader **out, const uint8_t *bytes, size_t size_bytes,
			struct error *e)
{
	struct section_header h;
	for (size_t at = 0; at < size_bytes; at += sizeof(h) + h.size_bytes) {
		const char *problem = frame_problem(bytes, size_bytes, at, &h);
		if (problem)
			return error_set(e, -EINVAL, "saved state at byte %zu of %zu: %s", at,
					 size_bytes, problem);
	}
	struct state_reader *r = calloc(1, sizeof(*r));
	if (!r)
		return error_set(e, -ENOMEM, "no memory to read saved state");
	r->bytes = bytes;
	r->size_bytes = size_bytes;
	*out = r;
	return 0;
}

void state_reader_destroy(struct state_reader *r)
{
	free(r);
}

int state_get(struct state_reader *r, const char *name, uint32_t version, void *bytes,
	      size_t size_bytes, struct error *e)
{
	struct section_header h;
	for (size_t at = 0; at < r->size_bytes; at += sizeof(h) + h.size_bytes) {
		memcpy(&h, r->bytes + at, sizeof(h));
		if (strcmp(h.name, name))
			continue;
		if (h.version != version || h.size_bytes != size_bytes)
			return error_set(e, -EINVAL,
					 "saved state: section '%s' has version %u and %llu bytes, "
					 "expected version %u and %zu bytes",
					 name, h.version, (unsigned long long)h.size_bytes, version,
					 size_bytes);
		if (size_bytes)
			memcpy(bytes, r->bytes + at + sizeof(h), size_bytes);
		return 0;
	}
	return error_set(e, -ENOENT, "saved state: section '%s' is missing", name);
}
