/*
 * bzImage: the Linux x86 boot protocol, 2.00 and later. Two ways in: unpack the payload here and
 * enter the kernel itself, or (for images without a payload, such as memtest86+, and on request)
 * enter the image's own protected-mode code.
 *
 *   file: boot sector and setup, (setup_sects + 1) * 512 bytes | protected-mode code; the payload
 * is somewhere inside it
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "boot/elf.h"
#include "boot/linux.h"
#include "boot/unpack.h"

#define SECTOR_BYTES 512
#define SETUP_SECTS_DEFAULT 4	 /* what 0 means */
#define HEADER_BYTES_LEAST 0x268 /* so that every field we read is in the file */
#define ENTRY_64_OFFSET 0x200
#define CODE32_DEFAULT 0x100000
#define UNPACKED_BYTES_MAX (1ull << 30)

bool bzimage_is(struct bytes kernel)
{
	return bytes_match(kernel, SETUP_HEADER, "HdrS", 4);
}

static uint16_t version_of(struct bytes f)
{
	return bytes_u16(f, SETUP_VERSION);
}

/* Finds the protected-mode part. */
static int open_image(struct boot_load *l, struct bytes *code)
{
	struct bytes f = l->kernel;
	if (!bzimage_is(f))
		return error_set(l->error, -ENOEXEC, "not a bzImage: no \"HdrS\" at 0x202");
	if (!bytes_has(f, 0, HEADER_BYTES_LEAST))
		return error_set(l->error, -ENOEXEC,
				 "a bzImage cut off inside its setup header (%llu bytes)",
				 (unsigned long long)f.size);
	if (version_of(f) < 0x200 || !(bytes_u8(f, SETUP_LOADFLAGS) & LOADFLAG_LOADED_HIGH))
		return error_set(l->error, -ENOEXEC,
				 "a zImage, or a bzImage of boot protocol %u.%02u: gnomon needs a "
				 "bzImage of "
				 "protocol 2.00 or later (Linux 1.3.73 and up)",
				 version_of(f) >> 8, version_of(f) & 0xff);
	uint64_t sectors = bytes_u8(f, SETUP_SECTS);
	uint64_t start = ((sectors ? sectors : SETUP_SECTS_DEFAULT) + 1) * SECTOR_BYTES;
	/* The header counts 16-byte units, rounded up. Before 2.04 the field is 16 bits wide. */
	uint64_t units = version_of(f) >= 0x204 ? bytes_u32(f, SETUP_SYSSIZE)
						: bytes_u16(f, SETUP_SYSSIZE);
	uint64_t expected = start + units * 16;
	if (f.size <= start || expected > f.size + 15)
		return error_set(
			l->error, -ENOEXEC,
			"a bzImage cut off: its header speaks of %llu bytes, the file has %llu",
			(unsigned long long)expected, (unsigned long long)f.size);
	*code = bytes_part(f, start, f.size - start);
	return 0;
}

static int load_through_stub(struct boot_load *l, struct bytes code)
{
	struct bytes f = l->kernel;
	unsigned version = version_of(f);
	uint64_t start = CODE32_DEFAULT, memory_size = code.size;
	if (version >= 0x20a) {
		if (bytes_u8(f, SETUP_RELOCATABLE))
			start = bytes_u64(f, SETUP_PREF_ADDRESS);
		if (bytes_u32(f, SETUP_INIT_SIZE) > memory_size)
			memory_size = bytes_u32(f, SETUP_INIT_SIZE);
	}
	bool is_64bit = version >= 0x20c && (bytes_u16(f, SETUP_XLOADFLAGS) & XLOADFLAG_KERNEL_64);
	if (is_64bit && code.size <= ENTRY_64_OFFSET)
		return error_set(l->error, -ENOEXEC, "a bzImage too short for its 64-bit entry");
	log_debug("boot: bzImage protocol %u.%02u, its own %s-bit entry at 0x%llx", version >> 8,
		  version & 0xff, is_64bit ? "64" : "32", (unsigned long long)start);
	int r = load_place(l, start, code, memory_size, "the kernel");
	if (!r)
		r = linux_prepare(l, f, start);
	if (!r)
		linux_enter(l, is_64bit ? start + ENTRY_64_OFFSET : start, is_64bit);
	return r;
}

static int load_unpacked(struct boot_load *l, struct bytes packed)
{
	uint8_t *elf = NULL;
	uint64_t size = 0;
	if (!unpack_method(packed))
		return error_set(
			l->error, -ENOEXEC,
			"the payload is compressed in a way gnomon does not unpack (it knows "
			"gzip, xz, "
			"lzma, zstd, lz4, lzo and bzip2): --kernel-format bzimage-stub lets the "
			"image "
			"unpack itself");
	int r = unpack(packed, UNPACKED_BYTES_MAX, &elf, &size, l->error);
	if (r) {
		error_prefix(l->error, "the bzImage's payload");
		return r;
	}
	log_debug("boot: bzImage, %s payload of %llu bytes, %llu unpacked", unpack_method(packed),
		  (unsigned long long)packed.size, (unsigned long long)size);
	struct bytes unpacked = {elf, size};
	if (!elf_is(unpacked))
		r = error_set(l->error, -ENOEXEC, "the bzImage's payload is no ELF file");
	else
		r = load_linux_elf(l, unpacked, l->kernel);
	free(elf);
	return r;
}

int load_bzimage(struct boot_load *l, bool through_stub)
{
	struct bytes code;
	int r = open_image(l, &code);
	if (r)
		return r;
	uint64_t offset = 0, length = 0;
	if (version_of(l->kernel) >= 0x208) {
		offset = bytes_u32(l->kernel, SETUP_PAYLOAD_OFFSET);
		length = bytes_u32(l->kernel, SETUP_PAYLOAD_LENGTH);
	}
	if (through_stub || length == 0)
		return load_through_stub(l, code);
	if (!bytes_has(code, offset, length))
		return error_set(l->error, -ENOEXEC,
				 "a bzImage cut off: its payload is bytes 0x%llx+0x%llx of 0x%llx",
				 (unsigned long long)offset, (unsigned long long)length,
				 (unsigned long long)code.size);
	return load_unpacked(l, bytes_part(code, offset, length));
}
