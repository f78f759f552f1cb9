/*
 * Multiboot 1 (specification 0.6.96): ELF files, 32 bits or 64, and flat files whose header carries
 * their addresses. Entered in flat protected mode with EAX the magic and EBX at the information
 * structure.
 */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "boot/elf.h"
#include "boot/entry.h"
#include "cpu/vcpu.h"

#define SEARCH_BYTES 8192
#define HEADER_MAGIC 0x1badb002u
#define ENTRY_MAGIC 0x2badb002u

#define HEADER_WANTS_VIDEO 0x4u
#define HEADER_MUST_UNDERSTAND 0xfff8u /* bits 3..15: features of a later specification */
#define HEADER_HAS_ADDRESSES 0x10000u

#define INFO_BYTES 120
#define INFO_MEMORY 0x1u
#define INFO_COMMAND_LINE 0x4u
#define INFO_MODULES 0x8u
#define INFO_MEMORY_MAP 0x40u
#define INFO_LOADER_NAME 0x200u

#define MAP_ENTRY_BYTES 24 /* with its own size field */
#define MODULE_ENTRY_BYTES 16
#define MAP_ADDRESS BOOT_INFO_LISTS
#define MODULES_ADDRESS (BOOT_INFO_LISTS + 0x200)
#define LOADER_NAME_ADDRESS (BOOT_INFO_LISTS + 0x400)
#define STRINGS_ADDRESS (BOOT_INFO_LISTS + 0x440)
#define STRINGS_END BOOT_COMMAND_LINE

/* The header's offset, or UINT64_MAX. */
static uint64_t find_header(struct bytes f)
{
	for (uint64_t at = 0; at + 12 <= SEARCH_BYTES && bytes_has(f, at, 12); at += 4)
		if (bytes_u32(f, at) == HEADER_MAGIC &&
		    (uint32_t)(HEADER_MAGIC + bytes_u32(f, at + 4) + bytes_u32(f, at + 8)) == 0)
			return at;
	return UINT64_MAX;
}

bool multiboot_is(struct bytes kernel)
{
	return find_header(kernel) != UINT64_MAX;
}

/* By the header's address fields (the "a.out kludge"). */
static int load_flat(struct boot_load *l, uint64_t at, uint64_t *entry)
{
	struct bytes f = l->kernel;
	if (!bytes_has(f, at, 32))
		return error_set(l->error, -ENOEXEC,
				 "a Multiboot header cut off inside its addresses");
	uint64_t header_address = bytes_u32(f, at + 12), load_address = bytes_u32(f, at + 16);
	uint64_t load_end = bytes_u32(f, at + 20), bss_end = bytes_u32(f, at + 24);
	*entry = bytes_u32(f, at + 28);
	if (load_address > header_address || header_address - load_address > at)
		return error_set(
			l->error, -ENOEXEC,
			"a Multiboot header whose addresses contradict each other: header at "
			"0x%llx, "
			"load at 0x%llx, file offset 0x%llx",
			(unsigned long long)header_address, (unsigned long long)load_address,
			(unsigned long long)at);
	uint64_t offset = at - (header_address - load_address);
	uint64_t size = f.size - offset;
	if (load_end) {
		if (load_end < load_address || load_end - load_address > size)
			return error_set(
				l->error, -ENOEXEC,
				"a Multiboot image that loads [0x%llx, 0x%llx) from %llu bytes: "
				"cut off?",
				(unsigned long long)load_address, (unsigned long long)load_end,
				(unsigned long long)size);
		size = load_end - load_address;
	}
	uint64_t memory_size = size;
	if (bss_end > load_address && bss_end - load_address > size)
		memory_size = bss_end - load_address;
	if (*entry < load_address || *entry >= load_address + memory_size)
		return error_set(l->error, -ENOEXEC,
				 "the Multiboot entry 0x%llx is outside the image",
				 (unsigned long long)*entry);
	return load_place(l, load_address, bytes_part(f, offset, size), memory_size, "the kernel");
}

static int load_elf(struct boot_load *l, uint64_t *entry)
{
	struct elf_image image;
	int r = elf_open(l->kernel, &image, l->error);
	if (r)
		return r;
	if (image.entry > UINT32_MAX)
		return error_set(l->error, -ENOEXEC,
				 "the entry 0x%llx is above 4 GiB: Multiboot enters 32-bit code",
				 (unsigned long long)image.entry);
	*entry = image.entry;
	return elf_load(l, &image);
}

static int write_modules(struct boot_load *l, uint8_t *info)
{
	uint64_t text_at = STRINGS_ADDRESS;
	for (unsigned i = 0; i < l->initrd_count; i++) {
		const struct boot_module *m = &l->initrds[i];
		uint64_t size = strlen(m->name) + 1;
		if (size > STRINGS_END - text_at)
			return error_set(l->error, -E2BIG, "the names of the modules are too long");
		load_write(l, text_at, m->name, size);
		uint8_t entry[MODULE_ENTRY_BYTES] = {0};
		put_u32(entry, m->address);
		put_u32(entry + 4, m->address + m->bytes.size);
		put_u32(entry + 8, text_at);
		load_write(l, MODULES_ADDRESS + (uint64_t)i * sizeof(entry), entry, sizeof(entry));
		text_at += size;
	}
	put_u32(info + 20, l->initrd_count);
	put_u32(info + 24, MODULES_ADDRESS);
	return 0;
}

static void write_memory_map(struct boot_load *l, uint8_t *info)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	uint8_t table[MEMORY_RANGES_MAX * MAP_ENTRY_BYTES] = {0};
	unsigned n = load_memory_map(l, map);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *entry = table + i * MAP_ENTRY_BYTES;
		put_u32(entry, MAP_ENTRY_BYTES - 4);
		put_u64(entry + 4, map[i].start);
		put_u64(entry + 12, map[i].size);
		put_u32(entry + 20, map[i].type);
	}
	load_write(l, MAP_ADDRESS, table, sizeof(table));
	put_u32(info + 4, BASE_MEMORY_END / 1024);
	put_u32(info + 8, (load_low_end(l) - HIGH_MEMORY) / 1024);
	put_u32(info + 44, n * MAP_ENTRY_BYTES);
	put_u32(info + 48, MAP_ADDRESS);
}

static int write_info(struct boot_load *l)
{
	static const char loader_name[] = "gnomon";
	uint8_t info[INFO_BYTES] = {0};
	put_u32(info, INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP |
			      INFO_LOADER_NAME);
	write_memory_map(l, info);
	put_u32(info + 16, BOOT_COMMAND_LINE);
	load_write(l, LOADER_NAME_ADDRESS, loader_name, sizeof(loader_name));
	put_u32(info + 64, LOADER_NAME_ADDRESS);
	int r = write_modules(l, info);
	if (!r)
		load_write(l, BOOT_INFO, info, sizeof(info));
	return r;
}

/* As other loaders do: the kernel's file name, then the command line. */
static int write_command_line(struct boot_load *l)
{
	char prefix[1024];
	const char *text = l->config->command_line;
	int n = snprintf(prefix, sizeof(prefix), "%s%s", l->config->kernel,
			 text && *text ? " " : "");
	if (n < 0 || (size_t)n >= sizeof(prefix))
		return error_set(l->error, -E2BIG,
				 "the kernel's path is too long for a command line");
	return load_command_line(l, prefix, BOOT_COMMAND_LINE_MAX);
}

int load_multiboot(struct boot_load *l)
{
	uint64_t at = find_header(l->kernel), entry = 0;
	if (at == UINT64_MAX)
		return error_set(
			l->error, -ENOEXEC,
			"no Multiboot 1 header (magic 0x1badb002 and a right checksum) in the "
			"first "
			"8192 bytes");
	uint32_t flags = bytes_u32(l->kernel, at + 4);
	if (flags & HEADER_MUST_UNDERSTAND)
		return error_set(
			l->error, -ENOEXEC,
			"a Multiboot header that demands features no specification has (flags "
			"0x%x)",
			flags);
	if (flags & HEADER_WANTS_VIDEO)
		log_info("boot: the Multiboot header asks for a video mode; there is no display");
	int r;
	if (flags & HEADER_HAS_ADDRESSES)
		r = load_flat(l, at, &entry);
	else if (elf_is(l->kernel))
		r = load_elf(l, &entry);
	else
		r = error_set(
			l->error, -ENOEXEC,
			"a Multiboot image that is neither ELF nor has addresses in its header "
			"(flag 0x10000)");
	if (!r)
		r = write_command_line(l);
	if (!r)
		r = load_place_modules(l);
	if (!r)
		r = write_info(l);
	if (r)
		return r;
	entry_protected(l, entry);
	l->bsp->state.gpr[GPR_RAX] = ENTRY_MAGIC;
	l->bsp->state.gpr[GPR_RBX] = BOOT_INFO;
	return 0;
}
