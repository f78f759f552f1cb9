/*
 * The entrance: reads the files, recognises the kernel's format, lays out low memory, hands over to
 * the format's loader.
 *
 * Recognition asks the surest sign first: ELF magic (then what the ELF file says of itself), the
 * bzImage's "HdrS", a Multiboot header, a boot sector's signature. An ELF file with a Multiboot
 * header that is not Linux is Multiboot; one with a PVH note is PVH; any other is entered by the
 * Linux protocol.
 */
#include "boot/boot.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "boot/elf.h"
#include "boot/entry.h"
#include "boot/file.h"
#include "boot/firmware.h"
#include "boot/load.h"
#include "boot/unpack.h"
#include "bus/platform.h"
#include "memory/memory.h"

#define KERNEL_BYTES_MAX (1ull << 30)
#define INITRD_BYTES_MAX (2ull << 30)
#define RAW_ADDRESS 0x7c00
#define SECTOR_BYTES 512
#define BIOS_DATA_ADDRESS 0x400ull
#define BIOS_DATA_BYTES 0x100

static const struct {
	const char *name, *description;
} formats[BOOT_FORMAT_COUNT] = {
	[BOOT_FORMAT_AUTO] = {"auto", "what the file looks like"},
	[BOOT_FORMAT_BZIMAGE] = {"bzimage", "Linux bzImage, unpacked on the host"},
	[BOOT_FORMAT_BZIMAGE_STUB] = {"bzimage-stub",
				      "Linux bzImage, which unpacks itself in the guest"},
	[BOOT_FORMAT_LINUX_ELF] = {"vmlinux", "ELF, entered by the Linux boot protocol"},
	[BOOT_FORMAT_PVH] = {"pvh", "ELF with a PVH entry note"},
	[BOOT_FORMAT_MULTIBOOT] = {"multiboot", "Multiboot 1, ELF or flat"},
	[BOOT_FORMAT_RAW] = {"raw", "flat binary at 0x7c00, real mode"},
};

const char *boot_format_name(enum boot_format format)
{
	return (unsigned)format < BOOT_FORMAT_COUNT ? formats[format].name : NULL;
}

const char *boot_format_description(enum boot_format format)
{
	return (unsigned)format < BOOT_FORMAT_COUNT ? formats[format].description : NULL;
}

int boot_format_parse(const char *name, enum boot_format *out, struct error *e)
{
	for (unsigned i = 0; i < BOOT_FORMAT_COUNT; i++)
		if (!strcmp(name, formats[i].name)) {
			*out = (enum boot_format)i;
			return 0;
		}
	return error_set(
		e, -EINVAL,
		"kernel format \"%s\" is not known; it is one of auto, bzimage, bzimage-stub, "
		"vmlinux, pvh, multiboot, raw",
		name);
}

/* A guess at what was meant, for the person who gave the wrong file; "" if there is none. */
static const char *guess(struct bytes f)
{
	if (bytes_match(f, 0, "0707", 4))
		return " (it is a cpio archive: an initrd?)";
	if (bytes_match(f, 0x38, "ARMd", 4))
		return " (it is an arm64 kernel)";
	if (bytes_match(f, 0, "MZ", 2))
		return " (it is an EFI program without a Linux setup header)";
	if (bytes_match(f, 0, "#!", 2))
		return " (it is a script)";
	if (unpack_method(f))
		return " (it is compressed data: an initrd, or a kernel to unpack first?)";
	return "";
}

static int unknown_format(struct boot_load *l)
{
	return error_set(
		l->error, -ENOEXEC,
		"not a kernel that gnomon knows%s: expected a bzImage (\"HdrS\" at 0x202), an ELF "
		"file, a Multiboot 1 header in the first 8192 bytes, or a boot sector (a "
		"multiple of "
		"512 bytes with 0x55 0xaa at 510); the file has %llu bytes",
		guess(l->kernel), (unsigned long long)l->kernel.size);
}

static bool is_boot_sector(struct bytes f)
{
	return f.size >= SECTOR_BYTES && f.size % SECTOR_BYTES == 0 &&
	       bytes_match(f, 510, "\x55\xaa", 2);
}

/* BOOT_FORMAT_AUTO for what is none; a damaged ELF file is an error at once. */
static int recognise(struct boot_load *l, enum boot_format *out)
{
	*out = BOOT_FORMAT_AUTO;
	if (elf_is(l->kernel)) {
		struct elf_image image;
		int r = elf_open(l->kernel, &image, l->error);
		if (r)
			return r;
		*out = image.is_linux		 ? BOOT_FORMAT_LINUX_ELF
		       : multiboot_is(l->kernel) ? BOOT_FORMAT_MULTIBOOT
		       : image.has_pvh		 ? BOOT_FORMAT_PVH
						 : BOOT_FORMAT_LINUX_ELF;
	} else if (bzimage_is(l->kernel)) {
		*out = BOOT_FORMAT_BZIMAGE;
	} else if (multiboot_is(l->kernel)) {
		*out = BOOT_FORMAT_MULTIBOOT;
	} else if (is_boot_sector(l->kernel)) {
		*out = BOOT_FORMAT_RAW;
	} else {
		return unknown_format(l);
	}
	return 0;
}

int load_raw(struct boot_load *l)
{
	if (l->kernel.size > BOOT_DATA_BASE - RAW_ADDRESS)
		return error_set(
			l->error, -EFBIG,
			"a raw image of %llu bytes: at most %llu fit between 0x7c00 and 0x90000",
			(unsigned long long)l->kernel.size,
			(unsigned long long)(BOOT_DATA_BASE - RAW_ADDRESS));
	int r = load_place(l, RAW_ADDRESS, l->kernel, l->kernel.size, "the kernel");
	if (!r)
		entry_real(l, RAW_ADDRESS);
	return r;
}

static int load_format(struct boot_load *l, enum boot_format format)
{
	switch (format) {
	case BOOT_FORMAT_BZIMAGE: return load_bzimage(l, false);
	case BOOT_FORMAT_BZIMAGE_STUB: return load_bzimage(l, true);
	case BOOT_FORMAT_LINUX_ELF: return load_linux_elf(l, l->kernel, (struct bytes){NULL, 0});
	case BOOT_FORMAT_PVH: return load_pvh(l);
	case BOOT_FORMAT_MULTIBOOT: return load_multiboot(l);
	case BOOT_FORMAT_RAW: return load_raw(l);
	default: return unknown_format(l);
	}
}

/* The parts of the BIOS data area that kernels look at without asking. */
static int write_bios_data(struct boot_load *l)
{
	uint8_t data[BIOS_DATA_BYTES] = {0};
	put_u16(data + 0x00, PLATFORM_COM1_PORT);
	put_u16(data + 0x02, PLATFORM_COM2_PORT);
	put_u16(data + 0x0e, BASE_MEMORY_END >> 4); /* EBDA segment */
	put_u16(data + 0x13, BASE_MEMORY_END / 1024);
	return load_place(l, BIOS_DATA_ADDRESS, (struct bytes){data, sizeof(data)}, sizeof(data),
			  "the BIOS data area");
}

static int lay_out_low_memory(struct boot_load *l)
{
	if (load_low_end(l) < HIGH_MEMORY)
		return error_set(
			l->error, -EFBIG,
			"guest memory of %llu KiB is too small to boot anything: --memory 1M is "
			"the "
			"least",
			(unsigned long long)(load_low_end(l) / 1024));
	int r = write_bios_data(l);
	if (!r)
		r = load_claim(l, BOOT_DATA_BASE, BOOT_DATA_END - BOOT_DATA_BASE, "the boot data");
	if (r)
		return r;
	load_zero(l, BOOT_DATA_BASE, BOOT_DATA_END - BOOT_DATA_BASE);
	load_zero(l, BASE_MEMORY_END, 0xa0000 - BASE_MEMORY_END);
	load_zero(l, FIRMWARE_BASE, FIRMWARE_END - FIRMWARE_BASE);
	if (l->config->has_acpi)
		r = acpi_write_tables(l);
	if (!r && l->config->has_mp_table)
		r = mp_write_table(l);
	return r;
}

int load_image(const struct boot_config *config, struct memory *memory, struct vcpu *bsp,
	       struct bytes kernel, const struct boot_module *initrds, unsigned initrd_count,
	       struct error *e)
{
	struct boot_load l = {
		.config = config, .memory = memory, .bsp = bsp, .error = e, .kernel = kernel};
	if (initrd_count > BOOT_INITRDS_MAX)
		return error_set(e, -EINVAL, "%u initrds: at most %d can be given", initrd_count,
				 BOOT_INITRDS_MAX);
	for (unsigned i = 0; i < initrd_count; i++)
		l.initrds[i] = initrds[i];
	l.initrd_count = initrd_count;

	enum boot_format format = config->format;
	int r = 0;
	if (format == BOOT_FORMAT_AUTO)
		r = recognise(&l, &format);
	if (!r)
		r = lay_out_low_memory(&l);
	if (!r)
		r = load_format(&l, format);
	if (r) {
		error_prefix(e, "%s", config->kernel);
		return r;
	}
	for (unsigned i = 0; i < l.region_count; i++)
		log_debug("boot: [0x%09llx, 0x%09llx) %s", (unsigned long long)l.regions[i].start,
			  (unsigned long long)l.regions[i].end, l.regions[i].what);
	return 0;
}

int boot_load(const struct boot_config *config, struct memory *memory, struct vcpu *bsp,
	      struct error *e)
{
	uint8_t *kernel = NULL, *initrds[BOOT_INITRDS_MAX] = {0};
	struct boot_module modules[BOOT_INITRDS_MAX] = {0};
	uint64_t kernel_size = 0;
	unsigned read_count = 0;

	int r = file_read(config->kernel, "kernel", KERNEL_BYTES_MAX, &kernel, &kernel_size, e);
	if (!r && config->initrd_count > BOOT_INITRDS_MAX)
		r = error_set(e, -EINVAL, "%u initrds: at most %d can be given",
			      config->initrd_count, BOOT_INITRDS_MAX);
	for (; !r && read_count < config->initrd_count; read_count++) {
		uint64_t size;
		const char *path = config->initrds[read_count];
		r = file_read(path, "initrd", INITRD_BYTES_MAX, &initrds[read_count], &size, e);
		modules[read_count].name = path;
		modules[read_count].bytes = (struct bytes){initrds[read_count], r ? 0 : size};
	}
	if (!r)
		r = load_image(config, memory, bsp, (struct bytes){kernel, kernel_size}, modules,
			       config->initrd_count, e);
	free(kernel);
	for (unsigned i = 0; i < BOOT_INITRDS_MAX; i++)
		free(initrds[i]);
	return r;
}
