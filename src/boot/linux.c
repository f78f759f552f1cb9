/*
 * The zero page, and Linux kernels that are plain ELF files (a vmlinux, or what was in a bzImage).
 *
 * A kernel unpacked on the host is entered where the decompressor would have jumped to: at the
 * start of its text, at the physical address it was linked for, unrelocated. That is what `nokaslr`
 * gives on a PC.
 */
#include "boot/linux.h"

#include "base/bits.h"
#include "boot/elf.h"
#include "boot/entry.h"
#include "cpu/vcpu.h"

enum boot_params_offset {
	PARAMS_EXT_MEM_K = 0x002,
	PARAMS_ACPI_RSDP = 0x070,
	PARAMS_ALT_MEM_K = 0x1e0,
	PARAMS_E820_COUNT = 0x1e8,
	PARAMS_SETUP_END = 0x290,
	PARAMS_E820_TABLE = 0x2d0,
};

#define E820_ENTRY_BYTES 20
#define LOADER_TYPE_UNDEFINED 0xff
#define COMMAND_LINE_DEFAULT 255 /* before protocol 2.06 */
#define COMMAND_LINE_PLAIN_ELF 2047
/* Kernels claim their initrd limit in the header; none asks for more than this below 4 GiB. */
#define INITRD_LAST_MAX 0x7fffffffull
#define INITRD_LAST_OLD 0x37ffffffull /* before protocol 2.03 */

static void fill_header(uint8_t *params, struct bytes setup)
{
	if (setup.size == 0) {
		put_u16(params + SETUP_BOOT_FLAG, 0xaa55);
		memcpy(params + SETUP_HEADER, "HdrS", 4);
		put_u16(params + SETUP_VERSION, 0x20f);
		put_u32(params + SETUP_ALIGNMENT, 0x1000000);
		put_u32(params + SETUP_CMDLINE_SIZE, COMMAND_LINE_PLAIN_ELF);
		put_u32(params + SETUP_INITRD_ADDR_MAX, INITRD_LAST_MAX);
	} else {
		uint64_t end = SETUP_HEADER + bytes_u8(setup, SETUP_HEADER_END);
		if (end > PARAMS_SETUP_END)
			end = PARAMS_SETUP_END;
		if (end > setup.size)
			end = setup.size;
		memcpy(params + SETUP_SECTS, setup.data + SETUP_SECTS, end - SETUP_SECTS);
	}
	params[SETUP_LOADER_TYPE] = LOADER_TYPE_UNDEFINED;
	params[SETUP_LOADFLAGS] |= LOADFLAG_LOADED_HIGH;
}

static uint32_t param_u32(const uint8_t *params, unsigned offset)
{
	uint32_t v;
	memcpy(&v, params + offset, 4);
	return v;
}

static void fill_memory(struct boot_load *l, uint8_t *params)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned n = load_memory_map(l, map);
	params[PARAMS_E820_COUNT] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *entry = params + PARAMS_E820_TABLE + i * E820_ENTRY_BYTES;
		put_u64(entry, map[i].start);
		put_u64(entry + 8, map[i].size);
		put_u32(entry + 16, map[i].type);
	}
	uint64_t extended_kib = (load_low_end(l) - HIGH_MEMORY) / 1024;
	put_u16(params + PARAMS_EXT_MEM_K, extended_kib < 0xffff ? extended_kib : 0xffff);
	put_u32(params + PARAMS_ALT_MEM_K, extended_kib);
	put_u64(params + PARAMS_ACPI_RSDP, l->rsdp);
}

int linux_prepare(struct boot_load *l, struct bytes setup, uint64_t code32_start)
{
	uint8_t params[PAGE_SIZE_BYTES] = {0};
	fill_header(params, setup);
	uint16_t version;
	memcpy(&version, params + SETUP_VERSION, 2);

	uint64_t command_line_max = COMMAND_LINE_DEFAULT;
	if (version >= 0x206 && param_u32(params, SETUP_CMDLINE_SIZE))
		command_line_max = param_u32(params, SETUP_CMDLINE_SIZE);
	int r = load_command_line(l, "", command_line_max);
	if (r)
		return r;
	put_u32(params + SETUP_CMD_LINE_PTR, BOOT_COMMAND_LINE);

	uint64_t last = INITRD_LAST_OLD;
	if (version >= 0x203 && param_u32(params, SETUP_INITRD_ADDR_MAX))
		last = param_u32(params, SETUP_INITRD_ADDR_MAX);
	uint64_t start, size;
	r = load_place_initrd(l, last < INITRD_LAST_MAX ? last : INITRD_LAST_MAX, &start, &size);
	if (r)
		return r;
	put_u32(params + SETUP_RAMDISK_IMAGE, start);
	put_u32(params + SETUP_RAMDISK_SIZE, size);
	put_u32(params + SETUP_CODE32_START, code32_start);
	fill_memory(l, params);
	load_write(l, BOOT_INFO, params, sizeof(params));
	return 0;
}

void linux_enter(struct boot_load *l, uint64_t entry, bool is_64bit)
{
	if (is_64bit)
		entry_long(l, entry);
	else
		entry_protected(l, entry);
	l->bsp->state.gpr[GPR_RSI] = BOOT_INFO;
}

int load_linux_elf(struct boot_load *l, struct bytes elf, struct bytes setup_header)
{
	struct elf_image image;
	int r = elf_open(elf, &image, l->error);
	if (!r)
		r = elf_load(l, &image);
	if (!r)
		r = linux_prepare(l, setup_header, image.lowest);
	if (!r)
		linux_enter(l, image.entry, image.is_64bit);
	return r;
}
