/*
 * One instruction in the engine: user mode of a small 64-bit guest.
 *
 * The guest has no program of its own. Its interrupt table leads each vector to a HLT of its own,
 * so that whatever ends the test (the INT3 behind the instruction, or a fault of it) ends the run,
 * and the kernel stack holds the frame that the processor pushed.
 *
 * Guest-physical layout: tables and handlers below 64 KiB, code at CODE_GPA, the sandbox at
 * DATA_GPA. The pages of both lie in reverse order, so that an access that crosses a page and goes
 * on in host memory instead of translating the second page finds something else.
 */
#include "diff.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "engine/trans/trans_private.h"
#include "ledger/ledger.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "x86/tlb_geometry.h"

extern const struct engine_ops trans_ops;

#define RAM_BYTES (4ull << 20)
#define PML4 0x1000ull
#define PDPT 0x2000ull
#define PD 0x3000ull
#define PT_LOW 0x4000ull
#define PT_CODE 0x5000ull
#define PT_DATA 0x6000ull
#define PT_SCRATCH 0x7000ull
#define IDT 0x8000ull
#define GDT 0x9000ull
#define TSS 0xa000ull
#define HANDLERS 0xb000ull
#define STACK_TOP 0xe000ull
#define CODE_GPA 0x200000ull
#define DATA_GPA 0x210000ull
#define SCRATCH_GPA 0x220000ull

#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define USER_CS 0x33
#define USER_CS32 0x23
#define USER_DS 0x2b
#define TSS_SELECTOR 0x40

static const struct engine_entry engines[] = {
	{"interp", NULL, &interp_ops},
	{"trans", NULL, &trans_ops},
};

struct guest {
	const struct engine_ops *ops;
	struct memory *memory;
	struct bus bus;
	struct clock clock;
	struct ledger ledger;
	struct cpu_model model;
	struct vcpu *vcpu;
	struct mmu *mmu;
	struct engine *engine;
	uint8_t *ram;
};

static const struct tlb_geometry geometry = {
	.l1d = {.array = {{"D", 64, 4, TLB_ALL_SIZES}}, .array_count = 1},
	.l1i = {.array = {{"I", 64, 4, TLB_ALL_SIZES}}, .array_count = 1},
};

static void put64(struct guest *guest, uint64_t address, uint64_t value)
{
	memcpy(guest->ram + address, &value, 8);
}

static uint64_t code_gpa(uint64_t address)
{
	uint64_t page = (address - CODE) >> PAGE_SHIFT;
	return CODE_GPA + ((CODE_PAGES - 1 - page) << PAGE_SHIFT) + (address & PAGE_OFFSET_MASK);
}

static uint64_t data_gpa(uint64_t address)
{
	uint64_t page = (address - DATA) >> PAGE_SHIFT;
	return DATA_GPA + ((DATA_PAGES - page) << PAGE_SHIFT) + (address & PAGE_OFFSET_MASK);
}

static void fill_tables(struct guest *guest)
{
	const uint64_t upper = PTE_P | PTE_W | PTE_U;
	put64(guest, PML4, PDPT | upper);
	put64(guest, PDPT, PD | upper);
	put64(guest, PD, PT_LOW | upper);
	put64(guest, PD + 8 * (CODE >> 21), PT_CODE | upper);
	put64(guest, PD + 8 * (DATA >> 21), PT_DATA | upper);
	for (uint64_t k = 0; k < 16; k++)
		put64(guest, PT_LOW + 8 * k, k << PAGE_SHIFT | PTE_P | PTE_W);
	put64(guest, PD + 8 * (SCRATCH >> 21), PT_SCRATCH | upper);
	for (uint64_t a = CODE; a < CODE_END; a += PAGE_SIZE_BYTES)
		put64(guest, PT_CODE + 8 * ((a - CODE) >> PAGE_SHIFT), code_gpa(a) | upper);
	for (uint64_t a = DATA; a < DATA_READONLY; a += PAGE_SIZE_BYTES)
		put64(guest, PT_DATA + 8 * ((a - DATA) >> PAGE_SHIFT),
		      data_gpa(a) | upper | PTE_NX);
	put64(guest, PT_DATA + 8 * DATA_PAGES, data_gpa(DATA_READONLY) | PTE_P | PTE_U | PTE_NX);
	put64(guest, PT_SCRATCH, SCRATCH_GPA | upper | PTE_NX);
}

static void fill_descriptors(struct guest *guest)
{
	put64(guest, GDT + KERNEL_CS, 0x00af9b000000ffffull);
	put64(guest, GDT + KERNEL_DS, 0x00cf93000000ffffull);
	put64(guest, GDT + (USER_DS & ~3), 0x00cff3000000ffffull);
	put64(guest, GDT + (USER_CS32 & ~3), 0x00cffb000000ffffull);
	put64(guest, GDT + (USER_CS & ~3), 0x00affb000000ffffull);
	put64(guest, TSS + 4, STACK_TOP);
	put64(guest, TSS + 0x60, 0xffffull << 48); /* no I/O bitmap */
	for (uint64_t vector = 0; vector < 32; vector++) {
		uint64_t handler = HANDLERS + 16 * vector;
		uint64_t type = vector == 3 || vector == 4 ? 0xee00 : 0x8e00;
		put64(guest, IDT + 16 * vector,
		      (handler & 0xffff) | KERNEL_CS << 16 | type << 32 | (handler >> 16 << 48));
		put64(guest, IDT + 16 * vector + 8, 0);
		guest->ram[handler] = 0xf4; /* hlt */
	}
}

static struct segment_register segment(unsigned selector, unsigned attributes)
{
	return (struct segment_register){.limit = 0xffffffff,
					 .selector = (uint16_t)selector,
					 .attributes = (uint16_t)attributes};
}

static void set_system_state(struct vcpu_state *s)
{
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = PML4;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->gdtr = (struct table_register){.base = GDT, .limit = 0x4f};
	s->idtr = (struct table_register){.base = IDT, .limit = 0x1ff};
	s->tr = (struct segment_register){
		.base = TSS, .limit = 0x67, .selector = TSS_SELECTOR, .attributes = 0x8b};
}

static const struct engine_ops *find_engine(const char *name)
{
	for (unsigned k = 0; k < ARRAY_COUNT(engines); k++)
		if (!strcmp(engines[k].name, name))
			return engines[k].ops;
	return NULL;
}

static int create(struct guest *guest, const char *engine, const char *cpu, uint8_t warm_count,
		  struct error *e)
{
	guest->ops = find_engine(engine);
	if (!guest->ops)
		return error_set(e, -EINVAL, "no engine '%s'", engine);
	int error = memory_create(&guest->memory, RAM_BYTES, e);
	if (error)
		return error;
	guest->ram = memory_host(guest->memory, gpa(0), RAM_BYTES);
	bus_init(&guest->bus);
	clock_init(&guest->clock, CLOCK_VIRTUAL, 1000000000);
	error = cpu_model_parse(&guest->model, cpu, e);
	if (error)
		return error;
	guest->model.vcpu_count = 1;
	guest->model.tsc_hz = 1000000000;
	guest->vcpu = aligned_alloc(64, align_up(sizeof(*guest->vcpu), 64));
	if (!guest->vcpu)
		return error_set(e, -ENOMEM, "no memory");
	memset(guest->vcpu, 0, sizeof(*guest->vcpu));
	guest->vcpu->model = &guest->model;
	guest->vcpu->clock = &guest->clock;
	guest->vcpu->ledger = &guest->ledger;
	vcpu_reset(guest->vcpu);
	const struct mmu_config paging = {.strategy = "native", .geometry = &geometry};
	error = mmu_create(&guest->mmu, &paging, guest->vcpu, guest->memory, e);
	if (error)
		return error;
	const struct engine_config config = {.memory = guest->memory,
					     .bus = &guest->bus,
					     .clock = &guest->clock,
					     .vcpu_count = 1,
					     .warm_count = warm_count};
	error = guest->ops->create(&guest->engine, &config, e);
	if (error)
		return error;
	return guest->ops->add_vcpu(guest->engine, guest->vcpu, guest->mmu, e);
}

int guest_create(struct guest **out, const char *engine, const char *cpu, uint8_t warm_count)
{
	struct guest *guest = calloc(1, sizeof(*guest));
	struct error e = {0};
	if (!guest)
		return -ENOMEM;
	int error = create(guest, engine, cpu, warm_count, &e);
	if (error) {
		fprintf(stderr, "diff: %s\n", e.text);
		guest_destroy(guest);
		return error;
	}
	fill_tables(guest);
	fill_descriptors(guest);
	set_system_state(&guest->vcpu->state);
	guest->vcpu->state.xcr0 = cpu_xcr0_mask(&guest->model);
	*out = guest;
	return 0;
}

void guest_let_flags_go(struct guest *guest)
{
	struct interp *vm = (struct interp *)guest->engine;
	if (guest->ops == &trans_ops)
		((struct trans *)(uintptr_t)vm->translator)->exact_flags = false;
}

void guest_watch_always(struct guest *guest)
{
	((struct interp *)guest->engine)->cache.is_always_watched = true;
}

void guest_destroy(struct guest *guest)
{
	if (!guest)
		return;
	if (guest->engine)
		guest->ops->destroy(guest->engine);
	mmu_destroy(guest->mmu);
	memory_destroy(guest->memory);
	free(guest->vcpu);
	free(guest);
}

void guest_set_data(struct guest *guest, const uint8_t *data)
{
	for (unsigned k = 0; k < DATA_BYTES; k += PAGE_SIZE_BYTES)
		memcpy(guest->ram + data_gpa(DATA + k), data + k, PAGE_SIZE_BYTES);
}

void guest_get_data(struct guest *guest, uint8_t *data)
{
	for (unsigned k = 0; k < DATA_BYTES; k += PAGE_SIZE_BYTES)
		memcpy(data + k, guest->ram + data_gpa(DATA + k), PAGE_SIZE_BYTES);
}

struct engine *guest_engine(struct guest *guest)
{
	return guest->engine;
}

struct vcpu *guest_vcpu(struct guest *guest)
{
	return guest->vcpu;
}

void guest_set_code(struct guest *guest, uint64_t address, const uint8_t *bytes, unsigned count)
{
	/* Page by page, as a program's own writes would come. */
	while (count) {
		unsigned part = PAGE_SIZE_BYTES - (address & PAGE_OFFSET_MASK);
		part = part < count ? part : count;
		memory_write(guest->memory, gpa(code_gpa(address)), bytes, part);
		address += part;
		bytes += part;
		count -= part;
	}
}

void guest_get_code(struct guest *guest, uint64_t address, uint8_t *bytes, unsigned count)
{
	for (unsigned k = 0; k < count; k++)
		bytes[k] = guest->ram[code_gpa(address + k)];
}

static void put_state(struct guest *guest, const struct test_state *t, unsigned mode)
{
	struct vcpu_state *s = &guest->vcpu->state;
	memcpy(s->gpr, t->gpr, sizeof(t->gpr));
	s->rip = t->rip;
	vcpu_set_rflags(guest->vcpu, t->rflags);
	memcpy(s->fpu.ymm, t->ymm, sizeof(t->ymm));
	memcpy(s->fpu.st, t->x87.st, sizeof(t->x87.st));
	s->fpu.fcw = t->x87.fcw;
	s->fpu.fsw = t->x87.fsw;
	s->fpu.ftw = t->x87.ftw;
	s->fpu.fop = t->x87.fop;
	s->fpu.fip = t->x87.fip;
	s->fpu.fdp = t->x87.fdp;
	s->fpu.mxcsr = t->mxcsr;
	s->seg[SEG_CS] = mode == 64 ? segment(USER_CS, 0xa0fb) : segment(USER_CS32, 0xc0fb);
	s->seg[SEG_SS] = s->seg[SEG_DS] = s->seg[SEG_ES] = segment(USER_DS, 0xc0f3);
	s->seg[SEG_FS] = s->seg[SEG_GS] = segment(USER_DS, 0xc0f3);
	s->cpl = 3;
	s->cr2 = 0;
	s->activity = ACTIVITY_RUNNING;
	s->interrupt_shadow = SHADOW_NONE;
}

static void take_state(struct guest *guest, struct test_state *t)
{
	const struct vcpu_state *s = &guest->vcpu->state;
	uint64_t frame[5];
	memset(t, 0, sizeof(*t));
	t->vector = (unsigned)((s->rip - HANDLERS) / 16);
	bool has_error = t->vector < 32 && (0x27d00u >> t->vector & 1);
	uint64_t at = s->gpr[GPR_RSP];
	if (at < STACK_TOP - 64 || at >= STACK_TOP || t->vector >= 32) {
		t->vector = 255; /* the guest is lost */
		t->rip = s->rip;
		return;
	}
	if (has_error) {
		memcpy(&t->error, guest->ram + at, 4);
		at += 8;
	}
	memcpy(frame, guest->ram + at, sizeof(frame));
	memcpy(t->gpr, s->gpr, sizeof(t->gpr));
	t->gpr[GPR_RSP] = frame[3];
	t->rip = frame[0];
	t->rflags = frame[2];
	t->address = s->cr2;
	memcpy(t->ymm, s->fpu.ymm, sizeof(t->ymm));
	memcpy(t->x87.st, s->fpu.st, sizeof(t->x87.st));
	t->x87.fcw = s->fpu.fcw;
	t->x87.fsw = s->fpu.fsw;
	t->x87.ftw = s->fpu.ftw;
	t->x87.fop = s->fpu.fop;
	t->x87.fip = s->fpu.fip;
	t->x87.fdp = s->fpu.fdp;
	t->mxcsr = s->fpu.mxcsr;
}

void guest_run(struct guest *guest, const struct test_state *start, unsigned mode,
	       struct test_state *out)
{
	put_state(guest, start, mode);
	guest->ops->state_changed(guest->engine, 0);
	struct vm_exit exit = {.reason = EXIT_BUDGET};
	guest->ops->run(guest->engine, 0, clock_now(&guest->clock) + 100000, &exit);
	take_state(guest, out);
	if (exit.reason != EXIT_HALT)
		out->vector = 256 + exit.reason;
}
