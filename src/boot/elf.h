/*
 * Private to boot/: ELF executables, 32 and 64 bits, as far as a kernel loader needs them.
 */
#pragma once

#include "boot/load.h"

struct elf_image {
	struct bytes file;
	bool is_64bit;
	uint64_t entry; /* physical */
	uint64_t phoff;
	unsigned phnum, phentsize;
	uint64_t lowest, end; /* of all loadable segments, physical */
	bool is_linux;	      /* has a note of owner "Linux" */
	bool has_pvh;	      /* has a Xen PHYS32_ENTRY note */
	uint64_t pvh_entry;
};

bool elf_is(struct bytes file);
/* Checks everything that elf_load() uses. -ENOEXEC with a message. */
int elf_open(struct bytes file, struct elf_image *out, struct error *e);
/* Places every loadable segment at its physical address. */
int elf_load(struct boot_load *l, const struct elf_image *image);
