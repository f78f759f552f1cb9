/*
 * The firmware tables: found where kernels look, checksums right, every processor in them, and the
 * AML such that ACPICA's own disassembler and compiler agree with it (when iasl is installed).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "boot/aml.h"
#include "boot/firmware.h"
#include "boot/load.h"
#include "bus/platform.h"
#include "memory/memory.h"

struct world {
	struct memory *memory;
	struct error error;
	struct boot_config config;
	struct boot_load load;
};

static void open_world(struct world *w, unsigned vcpu_count)
{
	*w = (struct world){
		.config = {.vcpu_count = vcpu_count, .has_acpi = true, .virtio_mmio_count = 2}};
	assert_int_equal(memory_create(&w->memory, 2 << 20, &w->error), 0);
	w->load = (struct boot_load){.config = &w->config, .memory = w->memory, .error = &w->error};
}

static const uint8_t *at(struct world *w, uint64_t address, uint64_t size)
{
	const uint8_t *p = memory_host(w->memory, gpa(address), size);
	assert_non_null(p);
	return p;
}

static uint64_t read_le(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;
	memcpy(&v, p, size);
	return v;
}

/* The table with this signature, its checksum verified; NULL if the XSDT does not list it. Every
 * table must be inside the area that e820 reserves. */
static const uint8_t *find_table(struct world *w, const char *signature)
{
	const uint8_t *rsdp = at(w, w->load.rsdp, 36);
	const uint8_t *xsdt = at(w, read_le(rsdp + 24, 8), 36);
	uint64_t size = read_le(xsdt + 4, 4);
	for (uint64_t i = 36; i < size; i += 8) {
		uint64_t address = read_le(xsdt + i, 8);
		const uint8_t *table = at(w, address, 36);
		uint64_t table_size = read_le(table + 4, 4);
		assert_in_range(address, FIRMWARE_BASE, FIRMWARE_END - table_size);
		assert_int_equal(firmware_checksum(table, table_size), 0);
		if (!memcmp(table, signature, 4))
			return table;
	}
	return NULL;
}

static void test_root_tables(void **unused)
{
	struct world w;
	open_world(&w, 2);
	assert_int_equal(acpi_write_tables(&w.load), 0);
	assert_in_range(w.load.rsdp, 0xe0000, 0xfffff);
	assert_int_equal(w.load.rsdp % 16, 0);
	const uint8_t *rsdp = at(&w, w.load.rsdp, 36);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(firmware_checksum(rsdp, 20), 0);
	assert_int_equal(firmware_checksum(rsdp, 36), 0);
	const uint8_t *rsdt = at(&w, read_le(rsdp + 16, 4), 36);
	const uint8_t *xsdt = at(&w, read_le(rsdp + 24, 8), 36);
	uint64_t count = (read_le(rsdt + 4, 4) - 36) / 4;
	assert_int_equal(firmware_checksum(rsdt, read_le(rsdt + 4, 4)), 0);
	assert_int_equal(firmware_checksum(xsdt, read_le(xsdt + 4, 4)), 0);
	assert_int_equal(count, (read_le(xsdt + 4, 4) - 36) / 8);
	for (uint64_t i = 0; i < count; i++)
		assert_int_equal(read_le(rsdt + 36 + 4 * i, 4), read_le(xsdt + 36 + 8 * i, 8));
	memory_destroy(w.memory);
}

static void test_fixed_tables(void **unused)
{
	struct world w;
	open_world(&w, 1);
	assert_int_equal(acpi_write_tables(&w.load), 0);
	const uint8_t *fadt = find_table(&w, "FACP");
	assert_non_null(fadt);
	assert_int_equal(read_le(fadt + 4, 4), 276);
	assert_int_equal(read_le(fadt + 46, 2), PLATFORM_IRQ_SCI);
	assert_int_equal(read_le(fadt + 56, 4), PLATFORM_PM1A_EVENT_PORT);
	assert_int_equal(read_le(fadt + 152, 8), PLATFORM_PM1A_EVENT_PORT);
	assert_int_equal(read_le(fadt + 64, 4), PLATFORM_PM1A_CONTROL_PORT);
	assert_int_equal(read_le(fadt + 76, 4), PLATFORM_PM_TIMER_PORT);
	assert_int_equal(read_le(fadt + 120, 8), PLATFORM_RESET_PORT);
	assert_int_equal(fadt[128], PLATFORM_RESET_VALUE);
	assert_true(read_le(fadt + 112, 4) & 0x400);
	assert_memory_equal(at(&w, read_le(fadt + 36, 4), 64), "FACS", 4);
	assert_int_equal(read_le(fadt + 36, 4) % 64, 0);
	const uint8_t *dsdt = at(&w, read_le(fadt + 140, 8), 36);
	assert_memory_equal(dsdt, "DSDT", 4);
	assert_int_equal(firmware_checksum(dsdt, read_le(dsdt + 4, 4)), 0);
	assert_non_null(memmem(dsdt, read_le(dsdt + 4, 4), "LNRO0005", 8));
	const uint8_t *mcfg = find_table(&w, "MCFG");
	assert_int_equal(read_le(mcfg + 44, 8), PLATFORM_ECAM_BASE);
	assert_int_equal(mcfg[55], 255);
	assert_int_equal(read_le(find_table(&w, "HPET") + 44, 8), PLATFORM_HPET_BASE);
	memory_destroy(w.memory);
}

static void check_madt(struct world *w, unsigned vcpu_count)
{
	const uint8_t *madt = find_table(w, "APIC");
	uint64_t size = read_le(madt + 4, 4);
	unsigned cpus = 0, io_apics = 0, overrides = 0;
	for (uint64_t i = 44; i < size; i += madt[i + 1]) {
		const uint8_t *entry = madt + i;
		assert_true(entry[1] >= 2);
		if (entry[0] == 0) {
			assert_int_equal(entry[3], cpus++);
			assert_int_equal(read_le(entry + 4, 4), 1);
		} else if (entry[0] == 9) {
			assert_int_equal(read_le(entry + 4, 4), cpus);
			assert_int_equal(read_le(entry + 12, 4), cpus++);
		} else if (entry[0] == 1) {
			io_apics++;
			assert_int_equal(entry[2], PLATFORM_IOAPIC_ID);
			assert_int_equal(read_le(entry + 4, 4), PLATFORM_IOAPIC_BASE);
		} else if (entry[0] == 2) {
			overrides++;
			assert_int_equal(read_le(entry + 4, 4), entry[3] ? entry[3] : 2);
			assert_int_equal(read_le(entry + 8, 2), entry[3] ? 0xd : 0);
		}
	}
	assert_int_equal(cpus, vcpu_count);
	assert_int_equal(io_apics, 1);
	assert_int_equal(overrides, 2);
}

static void test_every_processor_is_there(void **unused)
{
	static const unsigned counts[] = {1, 2, 64, 254, 255, 1024};
	for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
		struct world w;
		open_world(&w, counts[i]);
		assert_int_equal(acpi_write_tables(&w.load), 0);
		check_madt(&w, counts[i]);
		memory_destroy(w.memory);
	}
}

static void test_too_many_processors(void **unused)
{
	struct world w;
	open_world(&w, 100000);
	assert_int_not_equal(acpi_write_tables(&w.load), 0);
	assert_non_null(strstr(w.error.text, "100000 vcpus are more than"));
	memory_destroy(w.memory);
}

static void test_mp_table(void **unused)
{
	static const unsigned counts[] = {1, 4, 300};
	for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
		struct world w;
		open_world(&w, counts[i]);
		assert_int_equal(mp_write_table(&w.load), 0);
		const uint8_t *pointer = at(&w, MP_TABLE_BASE, 16);
		assert_in_range(MP_TABLE_BASE, 0xf0000, 0xffff0); /* where Linux scans */
		assert_memory_equal(pointer, "_MP_", 4);
		assert_int_equal(firmware_checksum(pointer, 16), 0);
		const uint8_t *table = at(&w, read_le(pointer + 4, 4), 44);
		uint64_t size = read_le(table + 4, 2), entries = read_le(table + 34, 2), cpus = 0;
		assert_memory_equal(table, "PCMP", 4);
		assert_int_equal(firmware_checksum(table, size), 0);
		uint64_t offset = 44;
		for (uint64_t n = 0; n < entries; n++) {
			cpus += table[offset] == 0;
			offset += table[offset] == 0 ? 20 : 8;
		}
		assert_int_equal(offset, size);
		assert_int_equal(cpus, counts[i] < 253 ? counts[i] : 253);
		memory_destroy(w.memory);
	}
}

static void test_aml_encodings(void **unused)
{
	uint8_t bytes[8192];
	struct aml a = {.bytes = bytes, .capacity = sizeof(bytes)};
	aml_name(&a, "\\_SB.PCI0.RTC");
	assert_memory_equal(bytes, "\\\x2f\x03_SB_PCI0RTC_", 15);
	a.size = 0;
	aml_eisa_id(&a, "PNP0A03");
	assert_memory_equal(bytes, "\x0c\x41\xd0\x0a\x03", 5);
	static const struct {
		size_t body, length_size;
		const char *length;
	} packages[] = {{61, 1, "\x3e"},
			{62, 1, "\x3f"},
			{63, 2, "\x41\x04"},
			{4093, 2, "\x4f\xff"},
			{4094, 3, "\x81\x00\x01"}};
	for (size_t i = 0; i < ARRAY_COUNT(packages); i++) {
		size_t body = packages[i].body, n = packages[i].length_size;
		a.size = 0;
		struct aml_mark mark = aml_package(&a, 1); /* its count is the body's first byte */
		while (a.size < 1 + 4 + body)
			aml_u8(&a, 0x77);
		aml_end(&a, mark);
		assert_memory_equal(bytes + 1, packages[i].length, n);
		assert_int_equal(a.size, 1 + n + body);
	}
	a.size = sizeof(bytes) - 1;
	aml_u16(&a, 0);
	assert_true(a.overflow);
}

static void save_table(const char *folder, const char *name, const uint8_t *table)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s.aml", folder, name);
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	size_t size = read_le(table + 4, 4);
	assert_int_equal(fwrite(table, 1, size, f), size);
	fclose(f);
}

/* Disassembles the table and compiles the result: no error, no warning. */
static void check_with_iasl(const char *folder, const char *name)
{
	char command[512];
	snprintf(command, sizeof(command),
		 "cd %s && iasl -d %s.aml >log 2>&1 && ! grep -iE 'error|warning' log && "
		 "iasl -p out %s.dsl >log 2>&1 && grep -q '0 Errors, 0 Warnings' log",
		 folder, name, name);
	if (system(command))
		fail_msg("iasl objects to the %s", name);
}

static void test_iasl_agrees(void **unused)
{
	static const char *const names[] = {"FACP", "APIC", "MCFG", "HPET"};
	if (system("command -v iasl >/dev/null")) {
		print_message(
			"iasl (Debian: acpica-tools) is not installed: AML is not cross-checked\n");
		skip();
	}
	struct world w;
	char folder[] = "/tmp/gnomon-acpi-XXXXXX", command[64];
	assert_non_null(mkdtemp(folder));
	open_world(&w, 300);
	assert_int_equal(acpi_write_tables(&w.load), 0);
	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		save_table(folder, names[i], find_table(&w, names[i]));
		check_with_iasl(folder, names[i]);
	}
	save_table(folder, "DSDT", at(&w, read_le(find_table(&w, "FACP") + 140, 8), 36));
	check_with_iasl(folder, "DSDT");
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	assert_int_equal(system(command), 0);
	memory_destroy(w.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_root_tables),
		cmocka_unit_test(test_fixed_tables),
		cmocka_unit_test(test_every_processor_is_there),
		cmocka_unit_test(test_too_many_processors),
		cmocka_unit_test(test_mp_table),
		cmocka_unit_test(test_aml_encodings),
		cmocka_unit_test(test_iasl_agrees),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
