/*
 * The snapshot reader, and machines made from what it accepts: whatever the bytes, a machine or one
 * message, and a machine runs without harm to us.
 *
 * The first byte of an input says how far it is to come: random bytes end at the first checksum, so
 * edits of a good snapshot are also given good checksums again, over the header, the description of
 * the machine, or its state.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "snapshot/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* cli; l: in al, 40h; out 80h, al; inc word [600h]; sti; hlt; jmp l */
static const uint8_t code[] = {0xfa, 0xe4, 0x40, 0xe6, 0x80, 0xff, 0x06,
			       0x00, 0x06, 0xfb, 0xf4, 0xeb, 0xf4};

static int memory_file(const void *bytes, size_t size_bytes, char path[40])
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || write(fd, bytes, size_bytes) != (ssize_t)size_bytes)
		abort();
	snprintf(path, 40, "/proc/self/fd/%d", fd);
	return fd;
}

static uint8_t *make_good(size_t *size_bytes)
{
	char kernel[40], folder[] = "/tmp/gnomon-fuzz-XXXXXX", path[60];
	struct vm_config c;
	struct vm *vm;
	struct vm_outcome o;
	if (!mkdtemp(folder))
		abort();
	snprintf(path, sizeof(path), "%s/s", folder);
	vm_config_defaults(&c);
	int fd = memory_file(code, sizeof(code), kernel);
	c.kernel = kernel;
	c.kernel_format = BOOT_FORMAT_RAW;
	c.memory_bytes = 2 << 20;
	if (vm_create(&vm, &c, NULL))
		abort();
	vm_run_for(vm, 1000, &o);
	if (snapshot_save(vm, path, NULL, NULL))
		abort();
	vm_destroy(vm);
	close(fd);
	FILE *f = fopen(path, "rb");
	uint8_t *bytes = malloc(4 << 20);
	if (!f || !bytes)
		abort();
	*size_bytes = fread(bytes, 1, 4 << 20, f);
	fclose(f);
	unlink(path);
	rmdir(folder);
	return bytes;
}

static void run(struct snapshot *s)
{
	struct error e = {0};
	struct vm_config c;
	struct vm_outcome o;
	struct vm *vm;
	vm_config_defaults(&c);
	snapshot_configure(s, &c);
	c.clock = CLOCK_VIRTUAL;
	c.paging = "nested";
	c.timeout_ms = 5;
	c.no_reboot = true;
	/* A file may say what it likes of memory that is a hole. */
	if (c.memory_bytes > 64 << 20 || c.cpu_count > 4)
		return;
	if (vm_create(&vm, &c, &e)) {
		if (!e.text[0])
			abort();
		return;
	}
	vm_run_for(vm, 200, &o);
	vm_destroy(vm);
}

static void check(const uint8_t *bytes, size_t size_bytes)
{
	struct error e = {0};
	struct snapshot *s;
	char path[40];
	int fd = memory_file(bytes, size_bytes, path);
	int r = snapshot_open(&s, path, &e);
	if (r && (s || !e.text[0] || e.code != r))
		abort();
	if (!r)
		run(s);
	snapshot_close(s);
	close(fd);
}

/* Edits inside [start, start + length): three bytes of input say where and what. */
static void edit(uint8_t *bytes, uint64_t start, uint64_t length, const uint8_t *data, size_t size)
{
	for (size_t i = 0; length && i + 2 < size && i < 24; i += 3)
		bytes[start + (data[i] | (uint64_t)data[i + 1] << 8) % length] ^= data[i + 2];
}

static void seal(uint8_t *bytes)
{
	struct snapshot_header *h = (struct snapshot_header *)bytes;
	for (unsigned i = 0; i < PART_RAM; i++)
		h->sections[i].checksum =
			snapshot_checksum(bytes + h->sections[i].offset, h->sections[i].size_bytes);
	h->checksum = snapshot_header_checksum(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t *good; /* made once; a fuzz target has no other place for it */
	static size_t good_bytes;
	if (!good)
		good = make_good(&good_bytes);
	if (!size)
		return 0;
	unsigned way = data[0] % 6;
	if (way == 0) {
		check(data + 1, size - 1);
		return 0;
	}
	uint8_t *bytes = malloc(good_bytes);
	if (!bytes)
		return 0;
	memcpy(bytes, good, good_bytes);
	struct snapshot_header *h = (struct snapshot_header *)bytes;
	if (way == 1) {
		edit(bytes, 0, sizeof(*h), data + 1, size - 1);
		h->checksum = snapshot_header_checksum(h);
	} else {
		unsigned part = way == 2 ? PART_MACHINE : PART_STATE;
		edit(bytes, h->sections[part].offset, h->sections[part].size_bytes, data + 1,
		     size - 1);
		seal(bytes);
	}
	check(bytes, good_bytes);
	free(bytes);
	return 0;
}
