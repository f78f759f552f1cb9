#include "engine/kvm/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "x86/arch.h"

#define MEMORY_BYTES (PROBE_TOUCHED + PROBE_PAGES_MAX * 4096u)
#define GDT_POINTER 0x4f0u
#define GDT 0x500u
#define STACK 0x8000u
#define TABLES32 0x10000u
#define TABLES64 0x14000u
#define IDT 0x18000u
#define TSS 0x20000u
#define TABLE_BITS (PTE_P | PTE_W)

static const uint64_t gdt[] = {
	0, 0x00cf9b000000ffffull, /* 32-bit code */
	0x00cf93000000ffffull,	  /* data */
	0x00af9b000000ffffull,	  /* 64-bit code */
};

static void put32(uint8_t *memory, uint32_t at, uint32_t value)
{
	memcpy(memory + at, &value, 4);
}

static void put64(uint8_t *memory, uint32_t at, uint64_t value)
{
	memcpy(memory + at, &value, 8);
}

/* The 32-bit tables map the first 4 MiB twice, the second time shifted so that guests can tell. */
static void fill_memory(uint8_t *m)
{
	uint16_t limit = sizeof(gdt) - 1;

	memcpy(m + GDT, gdt, sizeof(gdt));
	memcpy(m + GDT_POINTER, &limit, 2);
	put32(m, GDT_POINTER + 2, GDT);
	for (uint32_t i = 0; i < 2; i++)
		put32(m, TABLES32 + 4 * i, (TABLES32 + 0x1000) | TABLE_BITS);
	for (uint32_t i = 0; i < 1024; i++)
		put32(m, TABLES32 + 0x1000 + 4 * i, i << 12 | TABLE_BITS);
	put64(m, TABLES64, (TABLES64 + 0x1000) | TABLE_BITS);
	put64(m, TABLES64 + 0x1000, (TABLES64 + 0x2000) | TABLE_BITS);
	/* All of the first GiB but the page at 16 MiB. */
	for (uint32_t i = 0; i < 512; i++)
		put64(m, TABLES64 + 0x2000 + 8 * i,
		      i == 8 ? 0 : (uint64_t)i << 21 | PTE_PS | TABLE_BITS);
}

static int make_memory(struct kvm_probe *p, struct error *e)
{
	void *m = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (m == MAP_FAILED)
		return error_set(e, -errno, "no memory for a small guest");
	p->memory = m;
	/* A hidden fault shall bring one page. */
	madvise(m, MEMORY_BYTES, MADV_NOHUGEPAGE);
	fill_memory(p->memory);
	struct kvm_userspace_memory_region slot = {.memory_size = MEMORY_BYTES,
						   .userspace_addr = (uintptr_t)p->memory};
	if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return error_set(e, -errno, "KVM takes no memory: %s", strerror(errno));
	return 0;
}

static int set_cpuid(struct kvm_probe *p, const char *vendor, struct error *e)
{
	struct kvm_cpuid2 *c = NULL;
	int r = kvm_host_cpuid(p->kvm, &c, e);

	if (r)
		return r;
	for (uint32_t i = 0; vendor && i < c->nent; i++)
		if (c->entries[i].function == 0) {
			memcpy(&c->entries[i].ebx, vendor, 4);
			memcpy(&c->entries[i].edx, vendor + 4, 4);
			memcpy(&c->entries[i].ecx, vendor + 8, 4);
		} else if (c->entries[i].function == 1) {
			c->entries[i].ecx = PROBE_FEATURES;
		}
	if (ioctl(p->cpu.fd, KVM_SET_CPUID2, c) < 0)
		r = error_set(e, -errno, "KVM refuses its own CPUID: %s", strerror(errno));
	free(c);
	return r;
}

int kvm_probe_open(struct kvm_probe *p, const char *vendor, struct error *e)
{
	*p = (struct kvm_probe){.kvm = -1, .vm = -1, .cpu = {.fd = -1}};
	int r = kvm_host_open(&p->kvm, e);

	if (r || (r = kvm_host_create_vm(p->kvm, &p->vm, e)) || (r = make_memory(p, e)) ||
	    (r = kvm_cpu_open(&p->cpu, p->kvm, p->vm, 0, e)) || (r = set_cpuid(p, vendor, e)) ||
	    (r = kvm_deadline_open(&p->deadline, e)))
		return r;
	r = kvm_deadline_attach(&p->deadline, &p->cpu);
	return r ? error_set(e, r, "KVM takes no signal mask: %s", strerror(-r)) : 0;
}

void kvm_probe_close(struct kvm_probe *p)
{
	kvm_deadline_close(&p->deadline);
	kvm_cpu_close(&p->cpu);
	if (p->memory)
		munmap(p->memory, MEMORY_BYTES);
	if (p->vm >= 0)
		close(p->vm);
	if (p->kvm >= 0)
		close(p->kvm);
	*p = (struct kvm_probe){.kvm = -1, .vm = -1, .cpu = {.fd = -1}};
}

static void set_mode(struct kvm_sregs *s, enum probe_mode mode)
{
	struct kvm_segment code = {.limit = 0xffffffff,
				   .selector = 8,
				   .type = 11,
				   .present = 1,
				   .db = 1,
				   .s = 1,
				   .g = 1};
	struct kvm_segment data = {.limit = 0xffffffff,
				   .selector = 16,
				   .type = 3,
				   .present = 1,
				   .db = 1,
				   .s = 1,
				   .g = 1};

	if (mode == PROBE_REAL) {
		s->cs.base = s->cs.selector = 0;
		return;
	}
	if (mode == PROBE_LONG) {
		code.selector = 24;
		code.db = 0;
		code.l = 1;
		s->cr3 = TABLES64;
		s->cr4 |= CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
		s->cr0 |= CR0_PG | CR0_MP | CR0_NE;
		s->efer |= EFER_LME | EFER_LMA;
		s->tr = (struct kvm_segment){
			.base = TSS, .limit = 0x67, .selector = 32, .type = 11, .present = 1};
	}
	s->cr0 |= CR0_PE;
	s->cs = code;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->idt = (struct kvm_dtable){.base = IDT, .limit = 0xfff};
	s->gdt = (struct kvm_dtable){.base = GDT, .limit = sizeof(gdt) - 1};
}

int kvm_probe_start(struct kvm_probe *p, enum probe_mode mode, struct kvm_guest_code code,
		    uint64_t rsi, struct error *e)
{
	struct kvm_sregs s;
	struct kvm_regs regs = {.rip = PROBE_CODE, .rsp = STACK, .rsi = rsi, .rflags = FLAG_FIXED1};

	memcpy(p->memory + PROBE_CODE, code.start, (size_t)(code.end - code.start));
	if (ioctl(p->cpu.fd, KVM_GET_SREGS, &s) < 0)
		return error_set(e, -errno, "KVM tells no registers: %s", strerror(errno));
	set_mode(&s, mode);
	if (ioctl(p->cpu.fd, KVM_SET_SREGS, &s) < 0 || ioctl(p->cpu.fd, KVM_SET_REGS, &regs) < 0)
		return error_set(e, -errno, "KVM refuses registers: %s", strerror(errno));
	return 0;
}

void kvm_probe_set_handler(struct kvm_probe *p, enum probe_mode mode, unsigned vector,
			   struct kvm_guest_code code)
{
	bool is_long = mode == PROBE_LONG;
	unsigned selector = is_long ? 24 : 8;

	memcpy(p->memory + PROBE_HANDLER, code.start, (size_t)(code.end - code.start));
	/* Offset 15:0, selector, present interrupt gate; the rest of the offset is 0. */
	put64(p->memory, IDT + (is_long ? 16 : 8) * vector,
	      PROBE_HANDLER | selector << 16 | 0x8e00ull << 32);
}

int kvm_probe_run(struct kvm_probe *p, uint64_t ns)
{
	if (ns)
		kvm_deadline_set(&p->deadline, ns);
	int r = ioctl(p->cpu.fd, KVM_RUN, 0) < 0 ? -errno : (int)p->cpu.run->exit_reason;
	if (r == -EINTR)
		kvm_deadline_clear(&p->deadline);
	return r == -EINTR ? -ETIME : r;
}

int kvm_probe_registers(const struct kvm_probe *p, struct kvm_regs *out)
{
	return ioctl(p->cpu.fd, KVM_GET_REGS, out) < 0 ? -errno : 0;
}
