/* Checksums and names of what is in a snapshot's file. */
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "snapshot/format.h"

const char *const snapshot_part_names[PART_COUNT] = {
	[PART_MACHINE] = "machine", [PART_STATE] = "state", [PART_PAGES] = "pages",
	[PART_SUMS] = "sums",	    [PART_RAM] = "ram",
};

uint64_t snapshot_checksum(const void *bytes, size_t size_bytes)
{
	return XXH3_64bits(bytes, size_bytes);
}

uint64_t snapshot_header_checksum(const struct snapshot_header *h)
{
	struct snapshot_header copy = *h;
	copy.checksum = 0;
	return snapshot_checksum(&copy, sizeof(copy));
}

void snapshot_header_id(const struct snapshot_header *h, char id[SNAPSHOT_ID_CHARACTERS + 1])
{
	static const char digits[] = "0123456789abcdef";
	XXH128_canonical_t canonical;
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(h, sizeof(*h)));
	for (unsigned i = 0; i < sizeof(canonical.digest); i++) {
		id[2 * i] = digits[canonical.digest[i] >> 4];
		id[2 * i + 1] = digits[canonical.digest[i] & 15];
	}
	id[SNAPSHOT_ID_CHARACTERS] = 0;
}

bool snapshot_is_zero(const uint8_t *bytes, size_t size_bytes)
{
	return !size_bytes || (!bytes[0] && !memcmp(bytes, bytes + 1, size_bytes - 1));
}

uint64_t snapshot_chunk_sum(const uint8_t *bytes, size_t size_bytes)
{
	return snapshot_is_zero(bytes, size_bytes) ? 0 : snapshot_checksum(bytes, size_bytes);
}

uint64_t snapshot_chunk_count(uint64_t ram_bytes)
{
	return (ram_bytes + SNAPSHOT_CHUNK_BYTES - 1) / SNAPSHOT_CHUNK_BYTES;
}
