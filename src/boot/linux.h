/*
 * Private to boot/: the zero page (struct boot_params) of the Linux x86 boot protocol, shared by
 * bzImage and vmlinux. Documentation/x86/boot.rst and zero-page.rst of the kernel.
 */
#pragma once

#include "boot/load.h"

/* Offsets in a bzImage and in boot_params alike. */
enum setup_header {
	SETUP_SECTS = 0x1f1,
	SETUP_SYSSIZE = 0x1f4,
	SETUP_BOOT_FLAG = 0x1fe,
	SETUP_HEADER_END = 0x201, /* a byte: the header ends at 0x202 + it */
	SETUP_HEADER = 0x202,	  /* "HdrS" */
	SETUP_VERSION = 0x206,
	SETUP_LOADER_TYPE = 0x210,
	SETUP_LOADFLAGS = 0x211,
	SETUP_CODE32_START = 0x214,
	SETUP_RAMDISK_IMAGE = 0x218,
	SETUP_RAMDISK_SIZE = 0x21c,
	SETUP_CMD_LINE_PTR = 0x228,
	SETUP_INITRD_ADDR_MAX = 0x22c,
	SETUP_ALIGNMENT = 0x230,
	SETUP_RELOCATABLE = 0x234,
	SETUP_XLOADFLAGS = 0x236,
	SETUP_CMDLINE_SIZE = 0x238,
	SETUP_PAYLOAD_OFFSET = 0x248,
	SETUP_PAYLOAD_LENGTH = 0x24c,
	SETUP_PREF_ADDRESS = 0x258,
	SETUP_INIT_SIZE = 0x260,
};

#define LOADFLAG_LOADED_HIGH 0x01
#define XLOADFLAG_KERNEL_64 0x01

/* Writes boot_params, command line and initrd for a kernel whose own memory is claimed already.
 * `setup` is the bzImage's file, or empty for a kernel without a setup header. `code32_start` is
 * where the protected-mode code was put. */
int linux_prepare(struct boot_load *l, struct bytes setup, uint64_t code32_start);

/* Enters: RIP or EIP at `entry`, (R)SI at boot_params. */
void linux_enter(struct boot_load *l, uint64_t entry, bool is_64bit);
