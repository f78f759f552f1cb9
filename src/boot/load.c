/*
 * Placing things in guest memory: claims, memory map, initrds, command line.
 */
#include "boot/load.h"

#include <errno.h>
#include <stdio.h>

#include "base/bits.h"
#include "bus/platform.h"
#include "memory/memory.h"

#define MIB (1ull << 20)

uint64_t load_low_end(const struct boot_load *l)
{
	return l->memory->slots[0].size_bytes;
}

unsigned load_memory_map(const struct boot_load *l, struct memory_range out[MEMORY_RANGES_MAX])
{
	const struct memory *m = l->memory;
	unsigned n = 0;
	out[n++] = (struct memory_range){0, BASE_MEMORY_END, RANGE_USABLE};
	out[n++] =
		(struct memory_range){BASE_MEMORY_END, 0xa0000 - BASE_MEMORY_END, RANGE_RESERVED};
	out[n++] =
		(struct memory_range){FIRMWARE_BASE, FIRMWARE_END - FIRMWARE_BASE, RANGE_RESERVED};
	if (load_low_end(l) > HIGH_MEMORY)
		out[n++] = (struct memory_range){HIGH_MEMORY, load_low_end(l) - HIGH_MEMORY,
						 RANGE_USABLE};
	/* Linux trusts the MCFG table only if the memory map reserves what it names. */
	out[n++] = (struct memory_range){PLATFORM_ECAM_BASE, PLATFORM_ECAM_BYTES, RANGE_RESERVED};
	for (unsigned i = 1; i < m->slot_count; i++)
		out[n++] = (struct memory_range){m->slots[i].base.v, m->slots[i].size_bytes,
						 RANGE_USABLE};
	return n;
}

int load_check_fits(struct boot_load *l, uint64_t start, uint64_t size, const char *what)
{
	if (memory_host(l->memory, gpa(start), size))
		return 0;
	unsigned long long last = start + size - 1;
	if (size - 1 > UINT64_MAX - start || last >= MEMORY_HOLE_START)
		return error_set(
			l->error, -EFBIG,
			"%s wants %llu bytes at 0x%llx: no RAM can be there (RAM ends at 0x%llx "
			"and goes on at 4 GiB)",
			what, (unsigned long long)size, (unsigned long long)start,
			(unsigned long long)load_low_end(l));
	return error_set(
		l->error, -EFBIG,
		"%s wants memory up to 0x%llx, and guest memory ends at 0x%llx: --memory %lluM "
		"is the least that holds it",
		what, last + 1, (unsigned long long)load_low_end(l), last / MIB + 1);
}

static const struct boot_region *find_overlap(const struct boot_load *l, uint64_t start,
					      uint64_t end)
{
	for (unsigned i = 0; i < l->region_count; i++)
		if (start < l->regions[i].end && l->regions[i].start < end)
			return &l->regions[i];
	return NULL;
}

int load_claim(struct boot_load *l, uint64_t start, uint64_t size, const char *what)
{
	if (size == 0)
		return 0;
	int r = load_check_fits(l, start, size, what);
	if (r)
		return r;
	uint64_t end = start + size;
	const struct boot_region *other = find_overlap(l, start, end);
	if (other)
		return error_set(l->error, -ENOEXEC,
				 "%s at [0x%llx, 0x%llx) would lie over %s at [0x%llx, 0x%llx)",
				 what, (unsigned long long)start, (unsigned long long)end,
				 other->what, (unsigned long long)other->start,
				 (unsigned long long)other->end);
	if (l->region_count == BOOT_REGIONS_MAX)
		return error_set(l->error, -ENOEXEC, "more than %d pieces to load",
				 BOOT_REGIONS_MAX);
	l->regions[l->region_count++] = (struct boot_region){start, end, what};
	return 0;
}

void load_write(struct boot_load *l, uint64_t start, const void *bytes, uint64_t size)
{
	int r = memory_write(l->memory, gpa(start), bytes, size);
	assert(r == 0); /* claimed, so it is RAM */
	(void)r;
}

/* Touches only pages that are not zero yet, so that a big .bss costs the host nothing on the first
 * boot. */
void load_zero(struct boot_load *l, uint64_t start, uint64_t size)
{
	static const uint8_t zeros[PAGE_SIZE_BYTES];
	while (size) {
		uint64_t n = PAGE_SIZE_BYTES - (start & PAGE_OFFSET_MASK);
		if (n > size)
			n = size;
		if (memcmp(memory_host(l->memory, gpa(start), n), zeros, n))
			load_write(l, start, zeros, n);
		start += n;
		size -= n;
	}
}

int load_place(struct boot_load *l, uint64_t start, struct bytes bytes, uint64_t memory_size,
	       const char *what)
{
	int r = load_claim(l, start, memory_size, what);
	if (r)
		return r;
	assert(bytes.size <= memory_size);
	load_write(l, start, bytes.data, bytes.size);
	load_zero(l, start + bytes.size, memory_size - bytes.size);
	return 0;
}

static uint64_t initrd_bytes(const struct boot_load *l)
{
	uint64_t total = 0;
	for (unsigned i = 0; i < l->initrd_count; i++)
		total += align_up(l->initrds[i].bytes.size, 4);
	return total;
}

/* The highest page-aligned start of `size` bytes with no byte above `last` and over nothing
 * claimed; 0 if there is none. */
static uint64_t find_room_below(const struct boot_load *l, uint64_t last, uint64_t size)
{
	uint64_t top = load_low_end(l);
	if (last < top)
		top = last + 1;
	while (top >= HIGH_MEMORY && top - HIGH_MEMORY >= size) {
		uint64_t start = align_down(top - size, PAGE_SIZE_BYTES);
		const struct boot_region *in_the_way = find_overlap(l, start, start + size);
		if (!in_the_way)
			return start;
		top = in_the_way->start;
	}
	return 0;
}

static int no_room_for_initrd(struct boot_load *l, uint64_t last, uint64_t size)
{
	uint64_t kernel_end = HIGH_MEMORY;
	for (unsigned i = 0; i < l->region_count; i++)
		if (l->regions[i].end > kernel_end)
			kernel_end = l->regions[i].end;
	uint64_t least = align_up(kernel_end, PAGE_SIZE_BYTES) + align_up(size, PAGE_SIZE_BYTES);
	if (least - 1 > last || least > MEMORY_HOLE_START)
		return error_set(
			l->error, -EFBIG,
			"the initrd (%llu bytes) is too big: behind the kernel, which ends at "
			"0x%llx, "
			"it may reach up to 0x%llx only",
			(unsigned long long)size, (unsigned long long)kernel_end,
			(unsigned long long)last);
	return error_set(
		l->error, -EFBIG,
		"the initrd (%llu bytes) does not fit into guest memory of %llu MiB beside the "
		"kernel, which ends at 0x%llx: --memory %lluM is the least that holds both",
		(unsigned long long)size, (unsigned long long)(l->memory->ram_bytes / MIB),
		(unsigned long long)kernel_end, (unsigned long long)(align_up(least, MIB) / MIB));
}

int load_place_initrd(struct boot_load *l, uint64_t last, uint64_t *start, uint64_t *size)
{
	*start = 0;
	*size = initrd_bytes(l);
	if (*size == 0)
		return 0;
	*start = find_room_below(l, last, *size);
	if (*start == 0)
		return no_room_for_initrd(l, last, *size);
	int r = load_claim(l, *start, *size, "the initrd");
	if (r)
		return r;
	uint64_t at = *start;
	for (unsigned i = 0; i < l->initrd_count; i++) {
		struct boot_module *m = &l->initrds[i];
		uint64_t padded = align_up(m->bytes.size, 4);
		m->address = at;
		load_write(l, at, m->bytes.data, m->bytes.size);
		load_zero(l, at + m->bytes.size, padded - m->bytes.size);
		at += padded;
	}
	return 0;
}

int load_place_modules(struct boot_load *l)
{
	uint64_t at = HIGH_MEMORY;
	for (unsigned i = 0; i < l->region_count; i++)
		if (l->regions[i].end > at)
			at = l->regions[i].end;
	for (unsigned i = 0; i < l->initrd_count; i++) {
		struct boot_module *m = &l->initrds[i];
		at = align_up(at, PAGE_SIZE_BYTES);
		int r = load_place(l, at, m->bytes, m->bytes.size, "a module");
		if (r)
			return error_prefix(l->error, "%s", m->name), r;
		m->address = at;
		at += m->bytes.size;
	}
	return 0;
}

int load_command_line(struct boot_load *l, const char *prefix, uint64_t max)
{
	const char *text = l->config->command_line ? l->config->command_line : "";
	uint64_t size = strlen(prefix) + strlen(text);
	if (max > BOOT_COMMAND_LINE_MAX - 1)
		max = BOOT_COMMAND_LINE_MAX - 1;
	if (size > max)
		return error_set(
			l->error, -E2BIG,
			"the command line has %llu characters, and this kernel takes %llu at most",
			(unsigned long long)size, (unsigned long long)max);
	load_write(l, BOOT_COMMAND_LINE, prefix, strlen(prefix));
	load_write(l, BOOT_COMMAND_LINE + strlen(prefix), text, strlen(text) + 1);
	return 0;
}
