/*
 * The loaders: what each boot protocol promises a kernel at its first instruction, and what bad
 * files are told.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "boot/load.h"
#include "boot_images.h"
#include "cpu/vcpu.h"
#include "memory/memory.h"

#define MIB (1ull << 20)

struct world {
	struct memory *memory;
	struct vcpu vcpu;
	struct error error;
	struct boot_config config;
	uint8_t image[IMAGE_BYTES_MAX];
	size_t size;
};

static int open_world_of(void **state, uint64_t ram_bytes)
{
	struct world *w = aligned_alloc(64, (sizeof(*w) + 63) & ~63ull);
	assert_non_null(w);
	memset(w, 0, sizeof(*w));
	assert_int_equal(memory_create(&w->memory, ram_bytes, &w->error), 0);
	w->config = (struct boot_config){.kernel = "test-kernel",
					 .command_line = "console=ttyS0",
					 .vcpu_count = 1,
					 .has_acpi = true,
					 .has_mp_table = true};
	*state = w;
	return 0;
}

static int open_world(void **state)
{
	return open_world_of(state, 64 * MIB);
}

static int close_world(void **state)
{
	struct world *w = *state;
	memory_destroy(w->memory);
	free(w);
	return 0;
}

static int load_with(struct world *w, const struct boot_module *initrds, unsigned count)
{
	return load_image(&w->config, w->memory, &w->vcpu, (struct bytes){w->image, w->size},
			  initrds, count, &w->error);
}

static int load(struct world *w)
{
	return load_with(w, NULL, 0);
}

#define assert_loads(w)                                  \
	do {                                             \
		int loads_r = load(w);                   \
		if (loads_r)                             \
			fail_msg("%s", (w)->error.text); \
	} while (0)

#define assert_refused(w, code, part)                                    \
	do {                                                             \
		assert_int_equal(load(w), code);                         \
		if (!strstr((w)->error.text, part) ||                    \
		    strncmp((w)->error.text, "test-kernel: ", 13))       \
			fail_msg("the message is: %s", (w)->error.text); \
	} while (0)

static uint64_t guest(struct world *w, uint64_t address, unsigned size)
{
	uint64_t v = 0;
	assert_int_equal(memory_read(w->memory, gpa(address), &v, size), 0);
	return v;
}

static const char *guest_text(struct world *w, uint64_t address)
{
	return (const char *)memory_host(w->memory, gpa(address), 1);
}

static const struct elf_spec linux_64 = {.is_64bit = true,
					 .has_linux_note = true,
					 .has_pvh_note = true,
					 .paddr = 0x1000000,
					 .vaddr = 0xffffffff81000000,
					 .entry = 0x1000010,
					 .memory_size = 0x3000};

static void make_elf(struct world *w, struct elf_spec spec)
{
	w->size = image_elf(w->image, &spec);
}

/* A bzImage of `spec`, gzipped as the kernel's build does: the size is appended by gzip itself. */
static void make_bzimage(struct world *w, struct elf_spec spec)
{
	uint8_t elf[IMAGE_BYTES_MAX], packed[IMAGE_BYTES_MAX];
	z_stream z = {.next_in = elf, .next_out = packed, .avail_out = sizeof(packed)};
	z.avail_in = (uInt)image_elf(elf, &spec);
	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	w->size = image_bzimage(w->image, packed, z.total_out);
	deflateEnd(&z);
}

static uint64_t walk_identity(struct world *w, uint64_t address)
{
	uint64_t entry = w->vcpu.state.cr3;
	for (unsigned shift = 39; shift >= 21; shift -= 9) {
		entry = guest(w, (entry & ~0xfffull) + ((address >> shift) & 511) * 8, 8);
		assert_true(entry & PTE_P);
		if (entry & PTE_PS)
			return (entry & ~0x1fffffull) | (address & 0x1fffff);
	}
	return UINT64_MAX;
}

static void check_long_mode(struct world *w)
{
	const struct vcpu_state *s = &w->vcpu.state;
	assert_true(vcpu_is_64bit(&w->vcpu));
	assert_true(vcpu_is_long_mode(&w->vcpu));
	assert_int_equal(s->cr0, CR0_PE | CR0_ET | CR0_PG);
	assert_int_equal(s->cr4, CR4_PAE);
	assert_int_equal(s->efer, EFER_LME | EFER_LMA);
	assert_int_equal(vcpu_rflags(&w->vcpu), FLAG_FIXED1);
	assert_int_equal(s->seg[SEG_CS].selector, 0x10);
	assert_int_equal(s->seg[SEG_SS].selector, 0x18);
	assert_int_equal(s->seg[SEG_CS].attributes & (ATTR_L | ATTR_DB | ATTR_P), ATTR_L | ATTR_P);
	/* The descriptors in memory are those in the registers. */
	assert_int_equal(guest(w, s->gdtr.base + 0x10, 8), 0x00af9b000000ffff);
	assert_int_equal(guest(w, s->gdtr.base + 0x18, 8), 0x00cf93000000ffff);
	static const uint64_t addresses[] = {0,		 0x91000,    0x1000123,
					     0xbfffffff, 0xfee00030, 0xffffffff};
	for (size_t i = 0; i < ARRAY_COUNT(addresses); i++)
		assert_int_equal(walk_identity(w, addresses[i]), addresses[i]);
}

static void check_flat_mode(struct world *w)
{
	const struct vcpu_state *s = &w->vcpu.state;
	assert_int_equal(s->cr0, CR0_PE | CR0_ET);
	assert_int_equal(s->cr4, 0);
	assert_int_equal(s->efer, 0);
	assert_int_equal(vcpu_rflags(&w->vcpu), FLAG_FIXED1);
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		assert_int_equal(s->seg[i].base, 0);
		assert_int_equal(s->seg[i].limit, 0xffffffff);
		assert_true(s->seg[i].attributes & ATTR_DB);
	}
	assert_true(s->seg[SEG_CS].attributes & ATTR_CODE);
	assert_true(s->seg[SEG_DS].attributes & ATTR_WRITABLE);
	assert_int_equal(guest(w, s->gdtr.base + 0x10, 8), 0x00cf9b000000ffff);
}

/* The e820 entry that holds `address`, or 0. */
static uint32_t e820_type(struct world *w, uint64_t params, uint64_t address)
{
	uint64_t count = guest(w, params + 0x1e8, 1);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t at = params + 0x2d0 + i * 20;
		if (address - guest(w, at, 8) < guest(w, at + 8, 8))
			return (uint32_t)guest(w, at + 16, 4);
	}
	return 0;
}

static void check_zero_page(struct world *w)
{
	uint64_t params = w->vcpu.state.gpr[GPR_RSI];
	assert_int_equal(guest(w, params + 0x1fe, 2), 0xaa55);
	assert_int_equal(guest(w, params + 0x202, 4), 0x53726448);
	assert_int_equal(guest(w, params + 0x210, 1), 0xff);
	assert_int_equal(guest(w, params + 0x1ef, 1), 0); /* sentinel */
	assert_string_equal(guest_text(w, guest(w, params + 0x228, 4)), "console=ttyS0");
	assert_int_equal(e820_type(w, params, 0), 1);
	assert_int_equal(e820_type(w, params, 0x9fbff), 1);
	assert_int_equal(e820_type(w, params, 0x9fc00), 2);
	assert_int_equal(e820_type(w, params, 0xb8000), 0);
	assert_int_equal(e820_type(w, params, 0xfffff), 2);
	assert_int_equal(e820_type(w, params, 0x100000), 1);
	assert_int_equal(e820_type(w, params, w->memory->ram_bytes - 1), 1);
	assert_int_equal(e820_type(w, params, w->memory->ram_bytes), 0);
	assert_int_equal(e820_type(w, params, 0xe0000000), 2);
	uint64_t rsdp = guest(w, params + 0x70, 8);
	assert_memory_equal(guest_text(w, rsdp), "RSD PTR ", 8);
}

static void test_vmlinux_64(void **state)
{
	struct world *w = *state;
	make_elf(w, linux_64);
	uint64_t dirt = ~0ull; /* what an earlier boot left in .bss */
	memory_write(w->memory, gpa(0x1002ff8), &dirt, 8);
	memory_write(w->memory, gpa(0x1000200), &dirt, 8);
	memory_write(w->memory, gpa(0x1003000), &dirt, 8);
	assert_loads(w);
	check_long_mode(w);
	check_zero_page(w);
	assert_int_equal(w->vcpu.state.rip, 0x1000010);
	assert_int_equal(guest(w, 0x10001ff, 1), 0xf4);
	assert_int_equal(guest(w, 0x1000200, 8), 0);
	assert_int_equal(guest(w, 0x1002ff8, 8), 0);
	assert_int_equal(guest(w, 0x1003000, 8), dirt);
}

static void test_virtual_entry_becomes_physical(void **state)
{
	struct world *w = *state;
	struct elf_spec spec = linux_64;
	spec.entry = spec.vaddr + 0x20;
	make_elf(w, spec);
	assert_loads(w);
	assert_int_equal(w->vcpu.state.rip, 0x1000020);
	spec.entry = 0x55;
	make_elf(w, spec);
	assert_refused(w, -ENOEXEC, "entry 0x55 is in none");
}

static void test_vmlinux_32(void **state)
{
	struct world *w = *state;
	struct elf_spec spec = linux_64;
	spec.is_64bit = false;
	spec.vaddr = 0xc1000000;
	make_elf(w, spec);
	assert_loads(w);
	check_flat_mode(w);
	check_zero_page(w);
	assert_int_equal(w->vcpu.state.rip, 0x1000010);
}

static void test_bzimage_is_unpacked(void **state)
{
	struct world *w = *state;
	make_bzimage(w, linux_64);
	assert_loads(w);
	check_long_mode(w);
	check_zero_page(w);
	assert_int_equal(w->vcpu.state.rip, 0x1000010);
	/* The header came from the file. */
	uint64_t params = w->vcpu.state.gpr[GPR_RSI];
	assert_int_equal(guest(w, params + 0x206, 2), 0x20f);
	assert_int_equal(guest(w, params + 0x238, 4), 2047);

	struct elf_spec spec = linux_64;
	spec.is_64bit = false;
	make_bzimage(w, spec);
	assert_loads(w);
	check_flat_mode(w);
}

static void test_bzimage_through_its_stub(void **state)
{
	struct world *w = *state;
	make_bzimage(w, linux_64);
	w->config.format = BOOT_FORMAT_BZIMAGE_STUB;
	assert_loads(w);
	check_long_mode(w);
	assert_int_equal(w->vcpu.state.rip, 0x1000200); /* preferred address, 64-bit entry */
	check_zero_page(w);
	assert_int_equal(guest(w, w->vcpu.state.gpr[GPR_RSI] + 0x214, 4), 0x1000000);

	w->config.format = BOOT_FORMAT_AUTO;
	w->size = image_bzimage(w->image, NULL, 0); /* memtest86+ is like this */
	w->image[0x234] = 0;			    /* not relocatable: at 1 MiB */
	assert_loads(w);
	assert_int_equal(w->vcpu.state.rip, 0x100200);
	put_le(w->image + 0x236, 0, 2); /* no 64-bit entry */
	assert_loads(w);
	check_flat_mode(w);
	assert_int_equal(w->vcpu.state.rip, 0x100000);
}

static void test_pvh(void **state)
{
	struct world *w = *state;
	struct elf_spec spec = linux_64;
	spec.has_linux_note = false;
	make_elf(w, spec);
	static const uint8_t initrd[] = "an initrd";
	struct boot_module m = {.name = "i", .bytes = {initrd, sizeof(initrd)}};
	assert_int_equal(load_with(w, &m, 1), 0);
	check_flat_mode(w);
	assert_int_equal(w->vcpu.state.rip, 0x1000040);
	uint64_t info = w->vcpu.state.gpr[GPR_RBX];
	assert_int_equal(guest(w, info, 4), 0x336ec578);
	assert_int_equal(guest(w, info + 4, 4), 1);
	assert_int_equal(guest(w, info + 12, 4), 1);
	uint64_t module = guest(w, info + 16, 8);
	assert_string_equal(guest_text(w, guest(w, module, 8)), "an initrd");
	assert_int_equal(guest(w, module + 8, 8), 12); /* padded */
	assert_string_equal(guest_text(w, guest(w, info + 24, 8)), "console=ttyS0");
	assert_memory_equal(guest_text(w, guest(w, info + 32, 8)), "RSD PTR ", 8);
	uint64_t map = guest(w, info + 40, 8);
	assert_int_equal(guest(w, info + 48, 4), 5);
	assert_int_equal(guest(w, map + 8, 8), 0x9fc00);

	spec.has_pvh_note = false;
	make_elf(w, spec);
	w->config.format = BOOT_FORMAT_PVH;
	assert_refused(w, -ENOEXEC, "PHYS32_ENTRY");
}

static void test_multiboot_elf(void **state)
{
	struct world *w = *state;
	for (unsigned is_64bit = 0; is_64bit < 2; is_64bit++) {
		make_elf(w, (struct elf_spec){.is_64bit = is_64bit,
					      .has_multiboot_header = true,
					      .paddr = 0x400000,
					      .vaddr = 0x400000,
					      .entry = 0x400008,
					      .memory_size = 0x1234});
		struct boot_module m[2] = {{.name = "one", .bytes = {(const uint8_t *)"111", 4}},
					   {.name = "two", .bytes = {(const uint8_t *)"22222", 6}}};
		assert_int_equal(load_with(w, m, 2), 0);
		check_flat_mode(w);
		assert_int_equal(w->vcpu.state.rip, 0x400008);
		assert_int_equal(w->vcpu.state.gpr[GPR_RAX], 0x2badb002);
		uint64_t info = w->vcpu.state.gpr[GPR_RBX];
		assert_int_equal(guest(w, info, 4) & 0x4d, 0x4d);
		assert_int_equal(guest(w, info + 4, 4), 639);
		assert_int_equal(guest(w, info + 8, 4), 63 * 1024);
		assert_string_equal(guest_text(w, guest(w, info + 16, 4)),
				    "test-kernel console=ttyS0");
		assert_int_equal(guest(w, info + 20, 4), 2);
		uint64_t modules = guest(w, info + 24, 4);
		assert_int_equal(guest(w, modules, 4), 0x402000); /* the page behind the kernel */
		assert_int_equal(guest(w, modules + 4, 4), 0x402004);
		assert_string_equal(guest_text(w, guest(w, modules + 8, 4)), "one");
		assert_string_equal(guest_text(w, guest(w, modules + 16, 4)), "22222");
		assert_string_equal(guest_text(w, guest(w, modules + 24, 4)), "two");
		assert_int_equal(guest(w, info + 44, 4), 5 * 24);
	}
}

static void test_multiboot_flat(void **state)
{
	struct world *w = *state;
	w->size = image_multiboot_flat(w->image, 0x200000);
	assert_loads(w);
	check_flat_mode(w);
	assert_int_equal(w->vcpu.state.rip, 0x200200);
	assert_int_equal(guest(w, 0x200102, 2), 0x1bad);

	put_le(w->image + 0x114, 0x200401, 4); /* one byte past the file */
	assert_refused(w, -ENOEXEC, "cut off");
	image_multiboot_flat(w->image, 0x200000);
	put_le(w->image + 0x110, 0x100000, 4);
	assert_refused(w, -ENOEXEC, "contradict");
	image_multiboot_flat(w->image, 0x200000);
	put_le(w->image + 0x11c, 0x300000, 4);
	assert_refused(w, -ENOEXEC, "outside the image");
	put_multiboot_header(w->image + 0x100, 0x10013);
	assert_refused(w, -ENOEXEC, "demands features");
	put_multiboot_header(w->image + 0x100, 3);
	assert_refused(w, -ENOEXEC, "neither ELF nor has addresses");
}

static void test_boot_sector(void **state)
{
	struct world *w = *state;
	memset(w->image, 0x90, 512);
	put_le(w->image + 510, 0xaa55, 2);
	w->size = 512;
	assert_loads(w);
	const struct vcpu_state *s = &w->vcpu.state;
	assert_int_equal(s->cr0, CR0_ET);
	assert_int_equal(s->rip, 0x7c00);
	assert_int_equal(s->seg[SEG_CS].base, 0);
	assert_int_equal(s->seg[SEG_SS].limit, 0xffff);
	assert_int_equal(guest(w, 0x7dfe, 2), 0xaa55);

	w->size = 100; /* any bytes, when asked for */
	assert_refused(w, -ENOEXEC, "not a kernel that gnomon knows");
	w->config.format = BOOT_FORMAT_RAW;
	assert_loads(w);
}

static void test_initrds_are_joined_as_high_as_possible(void **state)
{
	struct world *w = *state;
	make_elf(w, linux_64);
	struct boot_module m[2] = {{.name = "a", .bytes = {(const uint8_t *)"AAAAA", 5}},
				   {.name = "b", .bytes = {(const uint8_t *)"BBB", 3}}};
	assert_int_equal(load_with(w, m, 2), 0);
	uint64_t params = w->vcpu.state.gpr[GPR_RSI];
	uint64_t start = guest(w, params + 0x218, 4);
	assert_int_equal(start, 64 * MIB - 4096);
	assert_int_equal(guest(w, params + 0x21c, 4), 12);
	assert_memory_equal(guest_text(w, start), "AAAAA\0\0\0BBB\0", 12);

	/* A header that wants it lower gets it lower. */
	w->size = image_bzimage(w->image, NULL, 0);
	put_le(w->image + 0x22c, 0x1ffffff, 4);
	assert_int_equal(load_with(w, m, 1), 0);
	assert_int_equal(guest(w, w->vcpu.state.gpr[GPR_RSI] + 0x218, 4), 0x1fff000);
	/* And one whose limit is inside the kernel (16..19 MiB) gets it below the kernel. */
	put_le(w->image + 0x22c, 0x12fffff, 4);
	assert_int_equal(load_with(w, m, 1), 0);
	assert_int_equal(guest(w, w->vcpu.state.gpr[GPR_RSI] + 0x218, 4), 0xfff000);
}

static void test_initrd_too_big(void **state)
{
	struct world *w = *state;
	make_elf(w, linux_64);
	uint8_t *big = calloc(1, 60 * MIB);
	struct boot_module m = {.name = "big", .bytes = {big, 60 * MIB}};
	assert_int_equal(load_with(w, &m, 1), -EFBIG);
	assert_non_null(strstr(w->error.text, "62914560 bytes"));
	assert_non_null(strstr(w->error.text, "64 MiB"));
	assert_non_null(strstr(w->error.text, "--memory 77M")); /* 16 MiB + 12 KiB + 60 MiB */
	free(big);
}

static void test_least_memory_is_right(void **unused)
{
	void *state;
	uint8_t *big = calloc(1, 60 * MIB);
	struct boot_module m = {.name = "big", .bytes = {big, 60 * MIB}};
	open_world_of(&state, 77 * MIB);
	struct world *w = state;
	make_elf(w, linux_64);
	assert_int_equal(load_with(w, &m, 1), 0);
	close_world(&state);
	free(big);
}

static void test_high_memory_is_in_the_map(void **unused)
{
	void *state;
	open_world_of(&state, MEMORY_HOLE_START + 512 * MIB);
	struct world *w = state;
	make_elf(w, linux_64);
	struct boot_module m = {.name = "a", .bytes = {(const uint8_t *)"AAAA", 4}};
	assert_int_equal(load_with(w, &m, 1), 0);
	uint64_t params = w->vcpu.state.gpr[GPR_RSI];
	assert_int_equal(e820_type(w, params, 0xbfffffff), 1);
	assert_int_equal(e820_type(w, params, 0xc0000000), 0);
	assert_int_equal(e820_type(w, params, 0x100000000), 1);
	assert_int_equal(e820_type(w, params, 0x11fffffff), 1);
	assert_int_equal(e820_type(w, params, 0x120000000), 0);
	assert_int_equal(guest(w, params + 0x218, 4), 0x7ffff000); /* below 2 GiB */
	close_world(&state);
}

static void test_too_little_memory(void **unused)
{
	void *state;
	open_world_of(&state, 640 * 1024);
	make_elf(state, linux_64);
	assert_refused((struct world *)state, -EFBIG, "--memory 1M is the least");
	close_world(&state);
	open_world_of(&state, 16 * MIB);
	make_elf(state, linux_64);
	assert_refused((struct world *)state, -EFBIG, "--memory 17M is the least");
	close_world(&state);
}

static void test_command_line_too_long(void **state)
{
	struct world *w = *state;
	char *text = calloc(1, 2049);
	memset(text, 'x', 2048);
	w->config.command_line = text;
	make_bzimage(w, linux_64);
	assert_refused(w, -E2BIG, "2048 characters, and this kernel takes 2047");
	text[2047] = 0;
	assert_loads(w);
	w->config.command_line = NULL;
	assert_loads(w);
	assert_string_equal(guest_text(w, guest(w, w->vcpu.state.gpr[GPR_RSI] + 0x228, 4)), "");
	free(text);
}

static void test_overlaps_are_refused(void **state)
{
	struct world *w = *state;
	struct elf_spec spec = linux_64;
	spec.paddr = 0x8f000;
	spec.entry = 0x8f000;
	make_elf(w, spec);
	assert_refused(w, -ENOEXEC, "would lie over the boot data");
	spec.paddr = spec.entry = 0xe8000;
	make_elf(w, spec);
	assert_refused(w, -ENOEXEC, "would lie over the ACPI tables");
	w->config.has_acpi = w->config.has_mp_table = false;
	assert_loads(w);
	assert_int_equal(guest(w, w->vcpu.state.gpr[GPR_RSI] + 0x70, 8), 0);
}

static void test_addresses_that_cannot_be(void **state)
{
	struct world *w = *state;
	struct elf_spec spec = linux_64;
	spec.paddr = spec.entry = 0xfffffffffffff000;
	make_elf(w, spec);
	assert_refused(w, -ENOEXEC, "impossible sizes");
	spec.memory_size = 0x300;
	make_elf(w, spec);
	assert_refused(w, -EFBIG, "no RAM can be there");
	spec.paddr = spec.entry = 0xc0000000;
	make_elf(w, spec);
	assert_refused(w, -EFBIG, "no RAM can be there");
	spec = linux_64;
	spec.memory_size = 0x100; /* less than the file's part */
	make_elf(w, spec);
	assert_refused(w, -ENOEXEC, "impossible sizes");
	spec.memory_size = 0;
	make_elf(w, spec);
	assert_refused(w, -ENOEXEC, "impossible sizes");
	spec.memory_size = 1ull << 62;
	make_elf(w, spec);
	assert_refused(w, -EFBIG, "no RAM can be there");
}

static void test_elf_files_that_are_no_kernels(void **state)
{
	struct world *w = *state;
	make_elf(w, linux_64);
	w->image[18] = 40;
	assert_refused(w, -ENOEXEC, "machine 40");
	make_elf(w, linux_64);
	w->image[16] = 1;
	assert_refused(w, -ENOEXEC, "type 1");
	make_elf(w, linux_64);
	w->image[5] = 2;
	assert_refused(w, -ENOEXEC, "little-endian");
	make_elf(w, linux_64);
	put_le(w->image + 32, 0xffffffffffffffe0, 8);
	assert_refused(w, -ENOEXEC, "past the end of the file");
	make_elf(w, linux_64);
	put_le(w->image + 56, 0, 2);
	assert_refused(w, -ENOEXEC, "0 program headers");
	make_elf(w, linux_64);
	put_le(w->image + 64, 2, 4);
	assert_refused(w, -ENOEXEC, "0 loadable segments");
	make_elf(w, linux_64);
	w->size = 0x1100;
	assert_refused(w, -ENOEXEC, "cut off?");
	w->size = 40;
	assert_refused(w, -ENOEXEC, "cut off after 40 bytes");
}

static void test_damaged_bzimages(void **state)
{
	struct world *w = *state;
	make_bzimage(w, linux_64);
	w->size -= 16;
	assert_refused(w, -ENOEXEC, "cut off: its header speaks of");
	w->size = 0x220;
	assert_refused(w, -ENOEXEC, "cut off inside its setup header");
	make_bzimage(w, linux_64);
	put_le(w->image + 0x24c, 0xffffffff, 4);
	assert_refused(w, -ENOEXEC, "its payload is bytes");
	make_bzimage(w, linux_64);
	put_le(w->image + 0x206, 0x105, 2);
	assert_refused(w, -ENOEXEC, "zImage");
	make_bzimage(w, linux_64);
	w->image[3 * 512 + IMAGE_PAYLOAD_OFFSET + 40] ^= 0x10;
	assert_refused(w, -ENOEXEC, "gzip data is damaged");
	w->image[3 * 512 + IMAGE_PAYLOAD_OFFSET] = 'x';
	assert_refused(w, -ENOEXEC, "bzimage-stub");
	w->config.format = BOOT_FORMAT_BZIMAGE;
	make_elf(w, linux_64);
	assert_refused(w, -ENOEXEC, "no \"HdrS\"");
}

static void test_wrong_files_are_guessed(void **state)
{
	static const struct {
		const char *bytes, *says;
	} files[] = {
		{"070701000000", "initrd?"},
		{"MZ............", "EFI program"},
		{"#!/bin/sh", "a script"},
		{"\x1f\x8b\x08.........", "compressed data"},
		{"hello", "a multiple of 512 bytes"},
	};
	struct world *w = *state;
	for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
		w->size = strlen(files[i].bytes);
		memcpy(w->image, files[i].bytes, w->size);
		assert_refused(w, -ENOEXEC, files[i].says);
	}
}

/* No prefix of a good image may crash the loader, whatever it says of it. */
static void test_every_truncation(void **state)
{
	struct world *w = *state;
	for (unsigned kind = 0; kind < 4; kind++) {
		struct elf_spec spec = linux_64;
		spec.has_linux_note = kind == 0;
		if (kind == 1)
			make_bzimage(w, spec);
		else if (kind == 2)
			w->size = image_multiboot_flat(w->image, 0x200000);
		else
			make_elf(w, spec);
		size_t whole = w->size;
		for (w->size = 0; w->size < whole; w->size += w->size < 800 ? 1 : 37) {
			/* Its own allocation, so that a sanitizer sees a read past the end. */
			uint8_t *copy = malloc(w->size + !w->size);
			memcpy(copy, w->image, w->size);
			load_image(&w->config, w->memory, &w->vcpu, (struct bytes){copy, w->size},
				   NULL, 0, &w->error);
			free(copy);
		}
	}
}

static void test_format_names(void **unused)
{
	struct error e;
	enum boot_format f;
	for (unsigned i = 0; i < BOOT_FORMAT_COUNT; i++) {
		assert_int_equal(boot_format_parse(boot_format_name(i), &f, &e), 0);
		assert_int_equal(f, i);
		assert_non_null(boot_format_description(i));
	}
	assert_null(boot_format_name(BOOT_FORMAT_COUNT));
	assert_int_equal(boot_format_parse("coff", &f, &e), -EINVAL);
	for (unsigned i = 0; i < BOOT_FORMAT_COUNT; i++)
		assert_non_null(strstr(e.text, boot_format_name(i)));
}

static void write_file(char *path, const void *bytes, size_t size)
{
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), size);
	close(fd);
}

static void test_files(void **state)
{
	struct world *w = *state;
	char kernel[] = "/tmp/gnomon-kernel-XXXXXX", initrd[] = "/tmp/gnomon-initrd-XXXXXX";
	make_elf(w, linux_64);
	write_file(kernel, w->image, w->size);
	write_file(initrd, "INITRD", 6);
	const char *initrds[] = {initrd, initrd};
	w->config.kernel = kernel;
	w->config.initrds = initrds;
	w->config.initrd_count = 2;
	assert_int_equal(boot_load(&w->config, w->memory, &w->vcpu, &w->error), 0);
	assert_memory_equal(guest_text(w, 64 * MIB - 4096), "INITRD\0\0INITRD\0\0", 16);

	initrds[1] = "/nonexistent/initrd";
	assert_int_equal(boot_load(&w->config, w->memory, &w->vcpu, &w->error), -ENOENT);
	assert_non_null(strstr(w->error.text, "/nonexistent/initrd: cannot read the initrd"));
	initrds[1] = "/dev/null";
	assert_int_equal(boot_load(&w->config, w->memory, &w->vcpu, &w->error), -ENOEXEC);
	assert_non_null(strstr(w->error.text, "/dev/null: the initrd is an empty file"));
	w->config.kernel = "/tmp";
	assert_int_equal(boot_load(&w->config, w->memory, &w->vcpu, &w->error), -EISDIR);
	w->config.kernel = kernel;
	w->config.initrd_count = BOOT_INITRDS_MAX + 1;
	assert_int_equal(boot_load(&w->config, w->memory, &w->vcpu, &w->error), -EINVAL);
	unlink(kernel);
	unlink(initrd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_vmlinux_64),
		TEST(test_virtual_entry_becomes_physical),
		TEST(test_vmlinux_32),
		TEST(test_bzimage_is_unpacked),
		TEST(test_bzimage_through_its_stub),
		TEST(test_pvh),
		TEST(test_multiboot_elf),
		TEST(test_multiboot_flat),
		TEST(test_boot_sector),
		TEST(test_initrds_are_joined_as_high_as_possible),
		TEST(test_initrd_too_big),
		cmocka_unit_test(test_least_memory_is_right),
		cmocka_unit_test(test_high_memory_is_in_the_map),
		cmocka_unit_test(test_too_little_memory),
		TEST(test_command_line_too_long),
		TEST(test_overlaps_are_refused),
		TEST(test_addresses_that_cannot_be),
		TEST(test_elf_files_that_are_no_kernels),
		TEST(test_damaged_bzimages),
		TEST(test_wrong_files_are_guessed),
		TEST(test_every_truncation),
		cmocka_unit_test(test_format_names),
		TEST(test_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
