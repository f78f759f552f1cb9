/*
 * ELF: headers, notes, loadable segments. System V ABI (gABI) chapter 4 and 5. Every number in the
 * file is hostile: offsets and sizes are checked in 64 bits before they are used, and elf_open() is
 * the only place that lets an image through.
 */
#include "boot/elf.h"

#include <errno.h>

#include "base/bits.h"

#define EM_386 3
#define EM_X86_64 62
#define PT_LOAD 1
#define PT_NOTE 4
#define NOTE_XEN_PHYS32_ENTRY 18
#define SEGMENTS_MAX 32
#define PROGRAM_HEADERS_MAX 128

struct segment {
	uint32_t type;
	uint64_t offset, vaddr, paddr, file_size, memory_size, align;
};

/* Is there anything to load? A segment with bytes but no memory is for check_load() to refuse. */
static bool is_loaded(const struct segment *s)
{
	return s->type == PT_LOAD && (s->memory_size || s->file_size);
}

bool elf_is(struct bytes file)
{
	return bytes_match(file, 0, "\177ELF", 4);
}

static struct segment read_segment(const struct elf_image *image, unsigned i)
{
	struct bytes f = image->file;
	uint64_t at = image->phoff + (uint64_t)i * image->phentsize;
	if (image->is_64bit)
		return (struct segment){.type = bytes_u32(f, at),
					.offset = bytes_u64(f, at + 8),
					.vaddr = bytes_u64(f, at + 16),
					.paddr = bytes_u64(f, at + 24),
					.file_size = bytes_u64(f, at + 32),
					.memory_size = bytes_u64(f, at + 40),
					.align = bytes_u64(f, at + 48)};
	return (struct segment){.type = bytes_u32(f, at),
				.offset = bytes_u32(f, at + 4),
				.vaddr = bytes_u32(f, at + 8),
				.paddr = bytes_u32(f, at + 12),
				.file_size = bytes_u32(f, at + 16),
				.memory_size = bytes_u32(f, at + 20),
				.align = bytes_u32(f, at + 28)};
}

static int check_header(struct bytes f, struct elf_image *image, struct error *e)
{
	if (!bytes_has(f, 0, 52))
		return error_set(e, -ENOEXEC, "an ELF header cut off after %llu bytes",
				 (unsigned long long)f.size);
	image->is_64bit = bytes_u8(f, 4) == 2;
	if ((bytes_u8(f, 4) != 1 && bytes_u8(f, 4) != 2) || bytes_u8(f, 5) != 1)
		return error_set(e, -ENOEXEC,
				 "an ELF file that is not little-endian, 32 or 64 bits");
	if (image->is_64bit && !bytes_has(f, 0, 64))
		return error_set(e, -ENOEXEC, "an ELF header cut off after %llu bytes",
				 (unsigned long long)f.size);
	unsigned machine = bytes_u16(f, 18);
	if (machine != EM_386 && machine != EM_X86_64)
		return error_set(e, -ENOEXEC,
				 "an ELF file for machine %u: gnomon runs x86 (3) and x86-64 (62)",
				 machine);
	unsigned type = bytes_u16(f, 16);
	if (type != 2 && type != 3)
		return error_set(
			e, -ENOEXEC,
			"an ELF file of type %u: a kernel is an executable (type 2), linked", type);
	image->entry = image->is_64bit ? bytes_u64(f, 24) : bytes_u32(f, 24);
	image->phoff = image->is_64bit ? bytes_u64(f, 32) : bytes_u32(f, 28);
	image->phentsize = bytes_u16(f, image->is_64bit ? 54 : 42);
	image->phnum = bytes_u16(f, image->is_64bit ? 56 : 44);
	unsigned least = image->is_64bit ? 56 : 32;
	if (image->phnum == 0 || image->phnum > PROGRAM_HEADERS_MAX || image->phentsize < least)
		return error_set(
			e, -ENOEXEC,
			"an ELF file with %u program headers of %u bytes: a kernel has 1 to %u "
			"of at least %u",
			image->phnum, image->phentsize, PROGRAM_HEADERS_MAX, least);
	if (!bytes_has(f, image->phoff, (uint64_t)image->phnum * image->phentsize))
		return error_set(
			e, -ENOEXEC,
			"the ELF program headers lie past the end of the file (%llu bytes): cut "
			"off?",
			(unsigned long long)f.size);
	return 0;
}

static void read_note(struct elf_image *image, struct bytes owner, uint32_t type,
		      struct bytes value)
{
	if (bytes_match(owner, 0, "Linux", 6))
		image->is_linux = true;
	if (bytes_match(owner, 0, "Xen", 4) && type == NOTE_XEN_PHYS32_ENTRY && value.size >= 4) {
		image->has_pvh = true;
		image->pvh_entry = bytes_load(value, 0, value.size >= 8 ? 8 : 4);
	}
}

/* Damaged notes end the search and are no error: a loader does not need them. */
static void read_notes(struct elf_image *image, struct bytes notes, uint64_t alignment)
{
	uint64_t at = 0;
	while (bytes_has(notes, at, 12)) {
		uint64_t name_size = bytes_u32(notes, at), value_size = bytes_u32(notes, at + 4);
		uint32_t type = bytes_u32(notes, at + 8);
		uint64_t value_at = at + 12 + align_up(name_size, alignment);
		if (!bytes_has(notes, at + 12, name_size) ||
		    !bytes_has(notes, value_at, value_size))
			return;
		read_note(image, bytes_part(notes, at + 12, name_size), type,
			  bytes_part(notes, value_at, value_size));
		at = value_at + align_up(value_size, alignment);
	}
}

static int check_load(struct elf_image *image, unsigned i, const struct segment *s, struct error *e)
{
	if (!bytes_has(image->file, s->offset, s->file_size))
		return error_set(
			e, -ENOEXEC,
			"ELF segment %u is bytes 0x%llx+0x%llx of a file of 0x%llx: cut off?", i,
			(unsigned long long)s->offset, (unsigned long long)s->file_size,
			(unsigned long long)image->file.size);
	if (s->memory_size < s->file_size || s->memory_size > UINT64_MAX - s->paddr)
		return error_set(
			e, -ENOEXEC,
			"ELF segment %u has impossible sizes: 0x%llx in the file, 0x%llx at 0x%llx",
			i, (unsigned long long)s->file_size, (unsigned long long)s->memory_size,
			(unsigned long long)s->paddr);
	if (s->paddr < image->lowest)
		image->lowest = s->paddr;
	if (s->paddr + s->memory_size > image->end)
		image->end = s->paddr + s->memory_size;
	return 0;
}

static int read_segments(struct elf_image *image, struct error *e)
{
	unsigned loads = 0;
	image->lowest = UINT64_MAX;
	for (unsigned i = 0; i < image->phnum; i++) {
		struct segment s = read_segment(image, i);
		if (s.type == PT_NOTE && bytes_has(image->file, s.offset, s.file_size))
			read_notes(image, bytes_part(image->file, s.offset, s.file_size),
				   s.align == 8 ? 8 : 4);
		if (!is_loaded(&s))
			continue;
		int r = check_load(image, i, &s, e);
		if (r)
			return r;
		loads++;
	}
	if (loads == 0 || loads > SEGMENTS_MAX)
		return error_set(e, -ENOEXEC,
				 "an ELF file with %u loadable segments: a kernel has 1 to %u",
				 loads, SEGMENTS_MAX);
	return 0;
}

/* Linkers write the entry as a virtual address unless told otherwise; before paging only the
 * physical one is of use. */
static int make_entry_physical(struct elf_image *image, struct error *e)
{
	uint64_t virtual_match = 0;
	bool is_virtual = false;
	for (unsigned i = 0; i < image->phnum; i++) {
		struct segment s = read_segment(image, i);
		if (!is_loaded(&s))
			continue;
		if (image->entry - s.paddr < s.memory_size)
			return 0;
		if (image->entry - s.vaddr < s.memory_size) {
			is_virtual = true;
			virtual_match = image->entry - s.vaddr + s.paddr;
		}
	}
	if (!is_virtual)
		return error_set(e, -ENOEXEC, "the ELF entry 0x%llx is in none of its segments",
				 (unsigned long long)image->entry);
	image->entry = virtual_match;
	return 0;
}

int elf_open(struct bytes file, struct elf_image *out, struct error *e)
{
	*out = (struct elf_image){.file = file};
	int r = check_header(file, out, e);
	if (!r)
		r = read_segments(out, e);
	if (!r)
		r = make_entry_physical(out, e);
	return r;
}

int elf_load(struct boot_load *l, const struct elf_image *image)
{
	/* All at once, so that the message says what the whole kernel needs. */
	int fits = load_check_fits(l, image->lowest, image->end - image->lowest, "the kernel");
	if (fits)
		return fits;
	for (unsigned i = 0; i < image->phnum; i++) {
		struct segment s = read_segment(image, i);
		if (!is_loaded(&s))
			continue;
		int r = load_place(l, s.paddr, bytes_part(image->file, s.offset, s.file_size),
				   s.memory_size, "the kernel");
		if (r)
			return r;
	}
	return 0;
}
