/*
 * The kernel loaders, on images whose headers were right before the fuzzer changed them. The first
 * bytes choose the image, the format and how much of it there is; the rest is a list of changes. An
 * odd first byte gives the input itself as the kernel. Whatever the file says, the loader writes
 * into guest RAM only and ends.
 */
#include <stdlib.h>
#include <zlib.h>

#include "../unit/boot_images.h"
#include "boot/load.h"
#include "cpu/vcpu.h"
#include "memory/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADER_BYTES 4
#define CHANGE_BYTES 4

static size_t make_bzimage(uint8_t *out, const struct elf_spec *spec)
{
	static uint8_t elf[IMAGE_BYTES_MAX], packed[IMAGE_BYTES_MAX];
	z_stream z = {.next_in = elf, .next_out = packed, .avail_out = sizeof(packed)};
	z.avail_in = (uInt)image_elf(elf, spec);
	deflateInit2(&z, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
	deflate(&z, Z_FINISH);
	deflateEnd(&z);
	return image_bzimage(out, packed, z.total_out);
}

static size_t make_image(uint8_t *out, uint8_t choice)
{
	struct elf_spec spec = {.is_64bit = choice & 1,
				.has_linux_note = choice & 2,
				.has_pvh_note = choice & 4,
				.has_multiboot_header = choice & 8,
				.paddr = 0x200000,
				.vaddr = 0x200000,
				.entry = 0x200010,
				.memory_size = 0x800};
	switch (choice >> 6) {
	case 0: return image_elf(out, &spec);
	case 1: return make_bzimage(out, &spec);
	case 2: return image_multiboot_flat(out, 0x200000);
	default: return image_bzimage(out, NULL, 0);
	}
}

static size_t make_input(uint8_t *image, const uint8_t *data, size_t size)
{
	if (data[0] & 1) {
		memcpy(image, data + 1, size - 1);
		return size - 1;
	}
	size_t image_size = make_image(image, data[1]);
	const uint8_t *change = data + HEADER_BYTES;
	for (size_t left = size - HEADER_BYTES; left >= CHANGE_BYTES; left -= CHANGE_BYTES) {
		/* Most changes go where the headers are. */
		size_t offset = (size_t)change[0] << 8 | change[1];
		offset %= change[2] & 1 ? image_size : image_size < 0x280 ? image_size : 0x280;
		image[offset] = change[3];
		change += CHANGE_BYTES;
	}
	if (data[3] & 1) /* cut off */
		image_size = image_size * data[2] / 255;
	return image_size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t image[IMAGE_BYTES_MAX];
	if (size < HEADER_BYTES || size > IMAGE_BYTES_MAX)
		return 0;
	size_t image_size = make_input(image, data, size);
	uint8_t *kernel = malloc(image_size + !image_size); /* so that a sanitizer sees its end */
	memcpy(kernel, image, image_size);

	struct memory *memory;
	struct vcpu vcpu = {0};
	struct error e = {0};
	struct boot_module initrd = {.name = "initrd", .bytes = {data, size}};
	struct boot_config config = {.kernel = "fuzz",
				     .command_line = "a command line",
				     .format = (data[0] >> 1) % BOOT_FORMAT_COUNT,
				     .vcpu_count = 1 + data[2] % 4,
				     .has_acpi = data[3] & 2};
	if (memory_create(&memory, 8 << 20, &e) == 0)
		load_image(&config, memory, &vcpu, (struct bytes){kernel, image_size}, &initrd,
			   data[3] & 4 ? 1 : 0, &e);
	memory_destroy(memory);
	free(kernel);
	return 0;
}
