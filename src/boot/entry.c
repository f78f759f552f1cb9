/*
 * Processor states at a kernel's first instruction. Segment registers get their hidden parts set
 * directly, and the GDT in guest memory holds the same descriptors, so that a kernel may reload
 * them.
 */
#include "boot/entry.h"

#include "cpu/vcpu.h"
#include "memory/memory.h"

#define SELECTOR_CODE 0x10 /* __BOOT_CS */
#define SELECTOR_DATA 0x18 /* __BOOT_DS */
#define SELECTOR_TSS 0x20

#define CODE_32 (ATTR_P | ATTR_S | ATTR_CODE | ATTR_READABLE | ATTR_ACCESSED | ATTR_DB | ATTR_G)
#define CODE_64 (ATTR_P | ATTR_S | ATTR_CODE | ATTR_READABLE | ATTR_ACCESSED | ATTR_L | ATTR_G)
#define CODE_16 (ATTR_P | ATTR_S | ATTR_CODE | ATTR_READABLE | ATTR_ACCESSED)
#define DATA_32 (ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_DB | ATTR_G)
#define DATA_16 (ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED)
#define TSS_BUSY (ATTR_P | 0xb)
#define LDT_EMPTY (ATTR_P | 0x2)

/* A descriptor with base 0 as it lies in memory. `limit` is the 20-bit field. */
static uint64_t descriptor(uint64_t limit, uint64_t attributes)
{
	return (limit & 0xffff) | (limit & 0xf0000) << 32 | (attributes & 0xff) << 40 |
	       (attributes & 0xf000) << 40;
}

static void set_gdt(struct boot_load *l, uint64_t code_attributes)
{
	uint64_t gdt[6] = {
		[SELECTOR_CODE / 8] = descriptor(0xfffff, code_attributes),
		[SELECTOR_DATA / 8] = descriptor(0xfffff, DATA_32),
		[SELECTOR_TSS / 8] = descriptor(0x67, TSS_BUSY), /* 16 bytes in long mode */
	};
	load_write(l, BOOT_GDT, gdt, sizeof(gdt));
	l->bsp->state.gdtr = (struct table_register){.base = BOOT_GDT, .limit = sizeof(gdt) - 1};
}

static void set_common(struct vcpu *v, uint64_t rip)
{
	struct vcpu_state *s = &v->state;
	for (unsigned i = 0; i < GPR_COUNT; i++)
		s->gpr[i] = 0;
	s->rip = rip;
	s->cpl = 0;
	s->interrupt_shadow = SHADOW_NONE;
	s->activity = ACTIVITY_RUNNING;
	s->cr2 = 0;
	s->cr3 = 0;
	s->cr4 = 0;
	s->cr8 = 0;
	s->efer = 0;
	vcpu_set_rflags(v, FLAG_FIXED1);
}

static void set_flat_segments(struct vcpu *v, uint16_t code_attributes)
{
	struct vcpu_state *s = &v->state;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct segment_register){
			.base = 0,
			.limit = 0xffffffff,
			.selector = i == SEG_CS ? SELECTOR_CODE : SELECTOR_DATA,
			.attributes = i == SEG_CS ? code_attributes : DATA_32,
		};
	s->tr = (struct segment_register){
		.limit = 0x67, .selector = SELECTOR_TSS, .attributes = TSS_BUSY};
	s->ldtr = (struct segment_register){.limit = 0, .attributes = LDT_EMPTY};
	s->idtr = (struct table_register){.base = 0, .limit = 0};
}

void entry_protected(struct boot_load *l, uint64_t eip)
{
	set_common(l->bsp, eip);
	set_gdt(l, CODE_32);
	set_flat_segments(l->bsp, CODE_32);
	l->bsp->state.cr0 = CR0_PE | CR0_ET;
}

/* PML4[0] -> PDPT[0..3] -> four directories of 2 MiB pages. */
static void write_identity_tables(struct boot_load *l)
{
	uint64_t table[512] = {BOOT_PAGE_TABLES + PAGE_SIZE_BYTES + (PTE_P | PTE_W)};
	load_write(l, BOOT_PAGE_TABLES, table, sizeof(table));
	table[0] = 0;
	for (unsigned i = 0; i < 4; i++)
		table[i] = (BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE_BYTES) | PTE_P | PTE_W;
	load_write(l, BOOT_PAGE_TABLES + PAGE_SIZE_BYTES, table, sizeof(table));
	for (unsigned i = 0; i < 4; i++) {
		for (uint64_t j = 0; j < 512; j++)
			table[j] = (i * 512 + j) << 21 | PTE_P | PTE_W | PTE_PS;
		load_write(l, BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE_BYTES, table, sizeof(table));
	}
}

void entry_long(struct boot_load *l, uint64_t rip)
{
	struct vcpu_state *s = &l->bsp->state;
	write_identity_tables(l);
	set_common(l->bsp, rip);
	set_gdt(l, CODE_64);
	set_flat_segments(l->bsp, CODE_64);
	s->cr3 = BOOT_PAGE_TABLES;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->cr0 = CR0_PE | CR0_ET | CR0_PG;
}

void entry_real(struct boot_load *l, uint16_t ip)
{
	struct vcpu_state *s = &l->bsp->state;
	set_common(l->bsp, ip);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct segment_register){
			.limit = 0xffff,
			.attributes = i == SEG_CS ? CODE_16 : DATA_16,
		};
	s->cr0 = CR0_ET;
	s->gdtr = s->idtr = (struct table_register){.limit = 0xffff};
	s->idtr.limit = 0x3ff;
	s->gpr[GPR_RSP] = ip;
	s->gpr[GPR_RDX] = 0x80; /* what a BIOS says: booted from the first hard disk */
}
