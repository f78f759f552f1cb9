/*
 * Private to boot/: one load in progress, and what the loaders share.
 *
 * Invariant: every byte that boot/ writes to the guest lies in a region that load_claim() granted,
 * regions are in RAM and never overlap. So a kernel cannot be laid over its own command line, nor
 * an initrd over a kernel.
 */
#pragma once

#include "boot/boot.h"
#include "boot/bytes.h"

#define BOOT_REGIONS_MAX 96
#define BOOT_INITRDS_MAX 32

/* The page frames of the boot data, all inside one claimed region below the EBDA. */
#define BOOT_DATA_BASE 0x90000ull
#define BOOT_DATA_END 0x9f000ull
#define BOOT_GDT 0x90000ull
#define BOOT_INFO 0x91000ull	    /* boot_params, hvm_start_info or multiboot_info */
#define BOOT_PAGE_TABLES 0x92000ull /* 6 pages: PML4, PDPT, 4 x PD */
#define BOOT_INFO_LISTS 0x98000ull  /* memory map, modules, their strings */
#define BOOT_COMMAND_LINE 0x9a000ull
#define BOOT_COMMAND_LINE_MAX (BOOT_DATA_END - BOOT_COMMAND_LINE) /* with the final 0 */

#define BASE_MEMORY_END 0x9fc00ull
#define FIRMWARE_BASE 0xe0000ull
#define FIRMWARE_END 0x100000ull
#define HIGH_MEMORY 0x100000ull

struct boot_region {
	uint64_t start, end;
	const char *what; /* literal */
};

struct boot_module {
	const char *name;
	struct bytes bytes;
	uint64_t address; /* once placed */
};

struct boot_load {
	const struct boot_config *config;
	struct memory *memory;
	struct vcpu *bsp;
	struct error *error;
	struct bytes kernel;
	struct boot_module initrds[BOOT_INITRDS_MAX];
	unsigned initrd_count;
	struct boot_region regions[BOOT_REGIONS_MAX];
	unsigned region_count;
	uint64_t rsdp; /* 0: no ACPI */
};

/* One range as e820, PVH and Multiboot give it. */
struct memory_range {
	uint64_t start, size;
	uint32_t type; /* 1 usable, 2 reserved */
};

#define MEMORY_RANGES_MAX 8
#define RANGE_USABLE 1
#define RANGE_RESERVED 2

unsigned load_memory_map(const struct boot_load *l, struct memory_range out[MEMORY_RANGES_MAX]);

/* The end of RAM below the PC hole. */
uint64_t load_low_end(const struct boot_load *l);

/* 0 if [start, start + size) is RAM; else -EFBIG, and the message says how much memory would do. */
int load_check_fits(struct boot_load *l, uint64_t start, uint64_t size, const char *what);
/* Claims [start, start + size) for `what`. -EFBIG as above, -ENOEXEC when something else is there.
 * An empty range is granted and forgotten. */
int load_claim(struct boot_load *l, uint64_t start, uint64_t size, const char *what);
/* Claims memory_size and writes `bytes` followed by zeros. */
int load_place(struct boot_load *l, uint64_t start, struct bytes bytes, uint64_t memory_size,
	       const char *what);
/* Writes inside a claimed region. */
void load_write(struct boot_load *l, uint64_t start, const void *bytes, uint64_t size);
void load_zero(struct boot_load *l, uint64_t start, uint64_t size);

/* Puts all initrds, concatenated and padded to 4 bytes each, as high as possible with no byte above
 * `last`. *start and *size are 0 when there is none. */
int load_place_initrd(struct boot_load *l, uint64_t last, uint64_t *start, uint64_t *size);
/* Puts each initrd on pages of its own, upwards from the kernel's end (Multiboot). */
int load_place_modules(struct boot_load *l);

/* Writes config->command_line at BOOT_COMMAND_LINE behind `prefix` (may be ""); refuses more than
 * `max` bytes. */
int load_command_line(struct boot_load *l, const char *prefix, uint64_t max);

/* Loaders. Each claims, writes and sets the processor; the format was recognised already or is
 * forced. */
int load_bzimage(struct boot_load *l, bool through_stub);
int load_linux_elf(struct boot_load *l, struct bytes elf, struct bytes setup_header);
int load_pvh(struct boot_load *l);
int load_multiboot(struct boot_load *l);
int load_raw(struct boot_load *l);

/* Recognition. */
bool bzimage_is(struct bytes kernel);
bool multiboot_is(struct bytes kernel);

/* Everything boot_load() does once the files are read; also what tests and the fuzzer call. */
int load_image(const struct boot_config *config, struct memory *memory, struct vcpu *bsp,
	       struct bytes kernel, const struct boot_module *initrds, unsigned initrd_count,
	       struct error *e);
