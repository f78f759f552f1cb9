/*
 * The file as it lies on disk, and what the files of snapshot/ share; docs/snapshots.md says it in
 * words. All numbers are little-endian.
 *
 *	0         the header: struct snapshot_header
 *	          "machine": JSON, what the machine is built from
 *	          "state":   sections of state/, what vm_save() writes
 *	          "pages":   of a difference: 8 bytes for each page, its number; else empty
 *	          "sums":    8 bytes for each 2 MiB of "ram": XXH3, or 0 if they are all zero
 *	page n    "ram":     the RAM from its first byte to its last, or the pages of "pages" in
 *	          order; pages that are all zero are holes
 *
 * The header's checksum covers the header, and through the others' in it everything but "ram",
 * whose bytes "sums" covers.
 */
#pragma once

#include "cpu/cpuid.h"
#include "snapshot/snapshot.h"
#include "vm/vm.h"

#define SNAPSHOT_MAGIC "GNOMSNAP"
#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_CHUNK_BYTES (2ull << 20)
#define SNAPSHOT_BASES_MAX 16 /* one upon the other */
#define SNAPSHOT_ID_CHARACTERS 32

enum snapshot_part {
	PART_MACHINE,
	PART_STATE,
	PART_PAGES,
	PART_SUMS,
	PART_RAM,
	PART_COUNT,
};

struct snapshot_section {
	char name[16];
	uint64_t offset; /* from the file's start */
	uint64_t size_bytes;
	uint64_t checksum; /* XXH3, 64 bits, of its bytes; of "ram": 0 */
};

struct snapshot_header {
	char magic[8];
	uint32_t version;
	uint32_t section_count; /* PART_COUNT */
	uint64_t file_bytes;
	uint64_t ram_bytes; /* of the machine */
	uint64_t checksum;  /* XXH3, 64 bits, of the header with 0 here */
	struct snapshot_section sections[PART_COUNT];
};

_Static_assert(sizeof(struct snapshot_header) == 40 + 40 * PART_COUNT, "as it lies on disk");

/* The text of "machine", and what it says. Strings belong to `json`. */
struct snapshot_machine {
	void *json; /* json_t */
	struct cpu_model model;
	uint64_t memory_bytes, seed, instructions;
	unsigned vcpu_count;
	enum clock_kind clock;
	uint64_t guest_ns;
	const char *kernel, *append; /* kernel: NULL if there was none */
	const char *initrds[VM_INITRD_MAX];
	unsigned initrd_count;
	struct vm_device devices[VM_DEVICES_MAX];
	unsigned device_count;
	enum boot_format kernel_format;
	const char *base_file, *base_id; /* both or none */
};

struct snapshot {
	int fd;
	char *path;
	struct snapshot_header header;
	char id[SNAPSHOT_ID_CHARACTERS + 1];
	uint8_t *parts[PART_RAM]; /* their bytes, each with a 0 behind */
	struct snapshot_machine machine;
	struct state_reader *state;
	struct snapshot *base; /* NULL: this is a whole one */
	struct vm_saved saved;
	uint64_t disk_bytes;
};

extern const char *const snapshot_part_names[PART_COUNT];

uint64_t snapshot_checksum(const void *bytes, size_t size_bytes);
uint64_t snapshot_header_checksum(const struct snapshot_header *h);
/* What another snapshot names this one by: the hash of its header. */
void snapshot_header_id(const struct snapshot_header *h, char id[SNAPSHOT_ID_CHARACTERS + 1]);
bool snapshot_is_zero(const uint8_t *bytes, size_t size_bytes);
/* 0 for what is all zero. */
uint64_t snapshot_chunk_sum(const uint8_t *bytes, size_t size_bytes);
/* How many sums `ram_bytes` have. */
uint64_t snapshot_chunk_count(uint64_t ram_bytes);

/* machine.c. The text is malloc()ed. */
int snapshot_machine_write(struct vm *vm, const struct snapshot *base, char **text,
			   struct error *e);
int snapshot_machine_read(struct snapshot_machine *m, const char *text, size_t size_bytes,
			  struct error *e);
void snapshot_machine_drop(struct snapshot_machine *m);

/* ram.c. vm_saved's fill_memory; `opaque` is the snapshot. */
int snapshot_fill_memory(void *opaque, struct memory *m, struct error *e);
