/*
 * The boot loader: puts a guest's kernel into memory and the boot processor at its first
 * instruction, as a firmware and a loader together would have. Nothing of it runs in the guest:
 * compressed kernels are unpacked on the host, tables are built here, and the processor starts in
 * the mode that the kernel's boot protocol asks for.
 *
 * Who calls it: vm/, once at creation and once at each guest reset. Loading twice into the same
 * memory is legal; everything that the first boot left where the second one loads is overwritten.
 *
 * What is in low memory after boot_load():
 *
 *   0x00000400  BIOS data area: serial ports, base memory, EBDA
 *   0x00007c00  a raw image (format `raw`)
 *   0x00090000  GDT, boot information, page tables, command line (BOOT_DATA_*)
 *   0x0009fc00  end of what e820 calls usable
 *   0x000e0000  RSDP, ACPI tables, MP table; reserved in e820 (RAM all the same)
 *   0x00100000  kernel, by its own addresses; initrd as high as the protocol and the memory let it
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct memory;
struct vcpu;

enum boot_format {
	BOOT_FORMAT_AUTO,
	BOOT_FORMAT_BZIMAGE,	  /* Linux image; its payload is unpacked on the host and entered
				     directly */
	BOOT_FORMAT_BZIMAGE_STUB, /* Linux image, entered at its own decompressor */
	BOOT_FORMAT_LINUX_ELF, /* vmlinux by the Linux boot protocol, 64-bit or 32-bit as the file
				  is */
	BOOT_FORMAT_PVH,       /* ELF with a Xen PHYS32_ENTRY note */
	BOOT_FORMAT_MULTIBOOT, /* Multiboot 1, ELF or flat */
	BOOT_FORMAT_RAW,       /* flat, at 0x7c00 in real mode */
	BOOT_FORMAT_COUNT
};

/* "auto", "bzimage", "bzimage-stub", "vmlinux", "pvh", "multiboot", "raw"; NULL past the end. */
const char *boot_format_name(enum boot_format format);
/* What --help says about it. */
const char *boot_format_description(enum boot_format format);
/* -EINVAL with the legal names. */
int boot_format_parse(const char *name, enum boot_format *out, struct error *e);

struct boot_config {
	const char *kernel; /* path */
	const char *const
		*initrds; /* paths: concatenated (Linux, PVH), or one module each (Multiboot) */
	unsigned initrd_count;
	const char *command_line; /* NULL is the empty one */
	enum boot_format format;
	unsigned vcpu_count;
	unsigned virtio_mmio_count; /* devices at PLATFORM_VIRTIO_MMIO_BASE */
	bool has_acpi;
	bool has_mp_table;
};

/* Loads and enters: `bsp` is vcpu 0, already reset. On failure *e names the file and says what
 * would be right; guest memory may then be partly written. -ENOENT and the like for files, -ENOEXEC
 * for what is no kernel, -EFBIG for what does not fit. */
int boot_load(const struct boot_config *config, struct memory *memory, struct vcpu *bsp,
	      struct error *e);
