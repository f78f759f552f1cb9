/*
 * Versioned, named sections of architectural state.
 *
 * Each stateful part of the machine keeps what a guest could observe in a plain struct without
 * pointers ("architectural state apart from plumbing") and writes it as one section. The same walk
 * over the sections serves the final-state hash, and save and load. A section is: name, version,
 * length, bytes; the bytes are the struct as it lies in memory, so a struct that is written must
 * have no padding holes or be zero-initialised (all of ours are zeroed at creation).
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct state_writer;

/* A writer that only hashes (XXH3, 128 bits). */
int state_hasher_create(struct state_writer **out);
/* A writer that collects the sections in memory. */
int state_buffer_create(struct state_writer **out);
void state_writer_destroy(struct state_writer *w);

/* Appends one section. `name` is at most 31 characters. */
void state_put(struct state_writer *w, const char *name, uint32_t version, const void *bytes,
	       size_t size_bytes);

/* The 128-bit hash of everything put so far, as 32 hexadecimal digits and a NUL. */
void state_hash_text(const struct state_writer *w, char text[33]);

/* The collected bytes of a buffer writer; borrowed, valid until the next put. */
const uint8_t *state_buffer_bytes(const struct state_writer *w, size_t *size_bytes);

struct state_reader;

/* Reads sections from memory that stays valid while the reader lives. Checks the framing of every
 * section first: -EINVAL with the offset in the message if the bytes are truncated or malformed. */
int state_reader_create(struct state_reader **out, const uint8_t *bytes, size_t size_bytes,
			struct error *e);
void state_reader_destroy(struct state_reader *r);

/* Copies the section `name` to `bytes`. -ENOENT if it is missing, -EINVAL if version or size
 * differ. */
int state_get(struct state_reader *r, const char *name, uint32_t version, void *bytes,
	      size_t size_bytes, struct error *e);
