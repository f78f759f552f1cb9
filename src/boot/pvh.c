/*
 * PVH: an ELF file with a Xen PHYS32_ENTRY note, entered in flat protected mode with EBX at a
 * struct hvm_start_info. xen/include/public/arch-x86/hvm/start_info.h; docs/misc/pvh.
 */
#include <errno.h>

#include "boot/elf.h"
#include "boot/entry.h"
#include "cpu/vcpu.h"

#define START_MAGIC 0x336ec578u
#define START_INFO_BYTES 56
#define MODULE_BYTES 32
#define MEMORY_MAP_BYTES 24
#define MEMORY_MAP_ADDRESS BOOT_INFO_LISTS
#define MODULE_ADDRESS (BOOT_INFO_LISTS + 0x400)
#define INITRD_LAST 0x7fffffffull

static void write_memory_map(struct boot_load *l, uint8_t *info)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	uint8_t table[MEMORY_RANGES_MAX * MEMORY_MAP_BYTES] = {0};
	unsigned n = load_memory_map(l, map);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *entry = table + i * MEMORY_MAP_BYTES;
		put_u64(entry, map[i].start);
		put_u64(entry + 8, map[i].size);
		put_u32(entry + 16, map[i].type);
	}
	load_write(l, MEMORY_MAP_ADDRESS, table, sizeof(table));
	put_u64(info + 40, MEMORY_MAP_ADDRESS);
	put_u32(info + 48, n);
}

static void write_start_info(struct boot_load *l, uint64_t initrd, uint64_t initrd_size)
{
	uint8_t info[START_INFO_BYTES] = {0};
	put_u32(info, START_MAGIC);
	put_u32(info + 4, 1); /* version: has a memory map */
	if (initrd_size) {
		uint8_t module[MODULE_BYTES] = {0};
		put_u64(module, initrd);
		put_u64(module + 8, initrd_size);
		load_write(l, MODULE_ADDRESS, module, sizeof(module));
		put_u32(info + 12, 1);
		put_u64(info + 16, MODULE_ADDRESS);
	}
	put_u64(info + 24, BOOT_COMMAND_LINE);
	put_u64(info + 32, l->rsdp);
	write_memory_map(l, info);
	load_write(l, BOOT_INFO, info, sizeof(info));
}

int load_pvh(struct boot_load *l)
{
	struct elf_image image;
	int r = elf_open(l->kernel, &image, l->error);
	if (r)
		return r;
	if (!image.has_pvh)
		return error_set(
			l->error, -ENOEXEC,
			"no PVH entry: an ELF note of owner \"Xen\", type 18 (PHYS32_ENTRY) is "
			"missing");
	if (image.pvh_entry < image.lowest || image.pvh_entry >= image.end)
		return error_set(l->error, -ENOEXEC,
				 "the PVH entry 0x%llx is outside the kernel [0x%llx, 0x%llx)",
				 (unsigned long long)image.pvh_entry,
				 (unsigned long long)image.lowest, (unsigned long long)image.end);
	r = elf_load(l, &image);
	if (!r)
		r = load_command_line(l, "", BOOT_COMMAND_LINE_MAX);
	uint64_t initrd, initrd_size;
	if (!r)
		r = load_place_initrd(l, INITRD_LAST, &initrd, &initrd_size);
	if (r)
		return r;
	write_start_info(l, initrd, initrd_size);
	entry_protected(l, image.pvh_entry);
	l->bsp->state.gpr[GPR_RBX] = BOOT_INFO;
	return 0;
}
