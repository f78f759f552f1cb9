/*
 * Small kernels made up on the spot, for the loaders' tests and their fuzzer: no kernel is kept in
 * the tree. Each builder fills `out` (IMAGE_BYTES_MAX long) and returns how long the image is.
 * Their code is HLT.
 */
#pragma once

#include <string.h>

#include "base/types.h"

#define IMAGE_BYTES_MAX 16384

struct elf_spec {
	bool is_64bit;
	bool has_linux_note, has_pvh_note, has_multiboot_header;
	uint64_t paddr, vaddr, entry; /* entry: as the header has it */
	uint64_t memory_size;	      /* at least 0x200 */
};

static inline void put_le(uint8_t *p, uint64_t v, unsigned size)
{
	memcpy(p, &v, size);
}

static inline size_t put_note(uint8_t *p, const char *owner, uint32_t type, uint64_t value)
{
	size_t name_size = strlen(owner) + 1, padded = (name_size + 3) & ~3ull;
	put_le(p, name_size, 4);
	put_le(p + 4, 8, 4);
	put_le(p + 8, type, 4);
	memcpy(p + 12, owner, name_size);
	put_le(p + 12 + padded, value, 8);
	return 12 + padded + 8;
}

static inline void put_multiboot_header(uint8_t *p, uint32_t flags)
{
	put_le(p, 0x1badb002, 4);
	put_le(p + 4, flags, 4);
	put_le(p + 8, 0u - (0x1badb002u + flags), 4);
}

/* Headers at 0, a Multiboot header at 0x200, notes at 0x400, the one segment (0x200 bytes of HLT)
 * at 0x1000. */
static inline size_t image_elf(uint8_t *out, const struct elf_spec *s)
{
	memset(out, 0, 0x1200);
	memcpy(out, "\177ELF", 4);
	out[4] = s->is_64bit ? 2 : 1;
	out[5] = out[6] = 1;
	put_le(out + 16, 2, 2);
	put_le(out + 18, s->is_64bit ? 62 : 3, 2);
	put_le(out + 20, 1, 4);
	if (s->has_multiboot_header)
		put_multiboot_header(out + 0x200, 3);
	size_t notes = 0;
	if (s->has_linux_note)
		notes += put_note(out + 0x400, "Linux", 0x101, 0);
	if (s->has_pvh_note)
		notes += put_note(out + 0x400 + notes, "Xen", 18, s->paddr + 0x40);
	memset(out + 0x1000, 0xf4, 0x200);

	uint8_t *load = out + 64, *note = out + 64 + (s->is_64bit ? 56 : 32);
	put_le(load, 1, 4);
	put_le(note, 4, 4);
	if (s->is_64bit) {
		put_le(out + 24, s->entry, 8);
		put_le(out + 32, 64, 8);
		put_le(out + 52, 64, 2);
		put_le(out + 54, 56, 2);
		put_le(out + 56, 2, 2);
		put_le(load + 8, 0x1000, 8);
		put_le(load + 16, s->vaddr, 8);
		put_le(load + 24, s->paddr, 8);
		put_le(load + 32, 0x200, 8);
		put_le(load + 40, s->memory_size, 8);
		put_le(note + 8, 0x400, 8);
		put_le(note + 32, notes, 8);
		put_le(note + 48, 4, 8);
	} else {
		put_le(out + 24, s->entry, 4);
		put_le(out + 28, 64, 4);
		put_le(out + 40, 52, 2);
		put_le(out + 42, 32, 2);
		put_le(out + 44, 2, 2);
		put_le(load + 4, 0x1000, 4);
		put_le(load + 8, s->vaddr, 4);
		put_le(load + 12, s->paddr, 4);
		put_le(load + 16, 0x200, 4);
		put_le(load + 20, s->memory_size, 4);
		put_le(note + 4, 0x400, 4);
		put_le(note + 16, notes, 4);
		put_le(note + 28, 4, 4);
	}
	return 0x1200;
}

#define IMAGE_PAYLOAD_OFFSET 0x240

/* Protocol 2.15, setup of two sectors, the payload IMAGE_PAYLOAD_OFFSET bytes into the
 * protected-mode code, which is HLT. */
static inline size_t image_bzimage(uint8_t *out, const uint8_t *payload, size_t payload_size)
{
	size_t code = 3 * 512, size = code + IMAGE_PAYLOAD_OFFSET + payload_size;
	size = (size + 15) & ~15ull;
	memset(out, 0, code);
	memset(out + code, 0xf4, size - code);
	out[0x1f1] = 2;
	put_le(out + 0x1f4, (size - code) / 16, 4);
	put_le(out + 0x1fe, 0xaa55, 2);
	put_le(out + 0x200, 0x6aeb, 2);
	memcpy(out + 0x202, "HdrS", 4);
	put_le(out + 0x206, 0x20f, 2);
	out[0x211] = 1;
	put_le(out + 0x214, 0x100000, 4);
	put_le(out + 0x22c, 0x7fffffff, 4);
	put_le(out + 0x230, 0x200000, 4);
	out[0x234] = 1;
	put_le(out + 0x236, 1, 2);
	put_le(out + 0x238, 2047, 4);
	put_le(out + 0x248, payload_size ? IMAGE_PAYLOAD_OFFSET : 0, 4);
	put_le(out + 0x24c, payload_size, 4);
	put_le(out + 0x258, 0x1000000, 8);
	put_le(out + 0x260, 0x300000, 4);
	if (payload_size)
		memcpy(out + code + IMAGE_PAYLOAD_OFFSET, payload, payload_size);
	return size;
}

/* Header at 0x100 of the file, loaded at `address`, 0x400 bytes and as much again of .bss. */
static inline size_t image_multiboot_flat(uint8_t *out, uint32_t address)
{
	memset(out, 0xf4, 0x400);
	put_multiboot_header(out + 0x100, 0x10003);
	put_le(out + 0x10c, address + 0x100, 4);
	put_le(out + 0x110, address, 4);
	put_le(out + 0x114, 0, 4);
	put_le(out + 0x118, address + 0x800, 4);
	put_le(out + 0x11c, address + 0x200, 4);
	return 0x400;
}
