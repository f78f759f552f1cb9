/*
 * Exits through /dev/kvm, with a guest of a few bytes: one instruction that exits, in a loop, in
 * flat 32-bit mode without paging. CPUID is answered in the kernel, so that the guest runs many
 * before a HLT ends the turn; the others come back to user space each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "calibrate/private.h"

#define GUEST_BYTES 0x4000u
#define CODE_AT 0x1000u
#define DEVICE_AT 0x100000u /* no memory is there */
#define CPUIDS 200

struct guest {
	int kvm, vm, vcpu;
	unsigned char *memory;
	struct kvm_run *run;
	size_t run_bytes;
	unsigned turns;	 /* KVM_RUNs in one go */
	unsigned events; /* exits that one KVM_RUN covers */
	uint32_t reason; /* that each must end with */
};

/* mov ecx, 200; again: push ecx... CPUID clobbers ECX, so the count is in ESI. */
static const unsigned char code_cpuid[] = {
	0xbe, CPUIDS, 0, 0, 0, /* mov esi, 200 */
	0x31, 0xc0,	       /* again: xor eax, eax */
	0x0f, 0xa2,	       /* cpuid */
	0x4e,		       /* dec esi */
	0x75, 0xf9,	       /* jnz again */
	0xf4,		       /* hlt */
	0xeb, 0xf1,	       /* jmp to the start */
};
static const unsigned char code_port[] = {0xe6, 0x80, 0xeb, 0xfc}; /* out 0x80, al; jmp */
static const unsigned char code_mmio[] = {
	0xa2, 0x00, 0x00, 0x10, 0x00, 0xeb, 0xf9 /* mov [0x100000], al; jmp */
};
static const unsigned char code_hlt[] = {0xf4, 0xeb, 0xfd}; /* hlt; jmp */

static double run_once(void *opaque)
{
	struct guest *g = opaque;
	double start = now_seconds();

	for (unsigned i = 0; i < g->turns; i++)
		if (ioctl(g->vcpu, KVM_RUN, 0) < 0 || g->run->exit_reason != g->reason)
			return -1;
	return (now_seconds() - start) / (g->turns * g->events);
}

static int set_flat_mode(struct guest *g)
{
	struct kvm_sregs s;
	struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};

	if (ioctl(g->vcpu, KVM_GET_SREGS, &s) < 0)
		return -errno;
	struct kvm_segment flat = {.limit = 0xffffffff,
				   .selector = 8,
				   .type = 11,
				   .present = 1,
				   .db = 1,
				   .s = 1,
				   .g = 1};
	s.cs = flat;
	flat.type = 3;
	flat.selector = 16;
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cr0 |= 1;
	if (ioctl(g->vcpu, KVM_SET_SREGS, &s) < 0 || ioctl(g->vcpu, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

static int guest_open(struct guest *g)
{
	g->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (g->kvm < 0)
		return -errno;
	if (ioctl(g->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return -ENOSYS;
	g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		return -errno;
	g->memory =
		mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->memory == MAP_FAILED)
		return -errno;
	struct kvm_userspace_memory_region slot = {.memory_size = GUEST_BYTES,
						   .userspace_addr = (uintptr_t)g->memory};
	/* Intel's first VT-x keeps real mode's task segment there. */
	ioctl(g->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return -errno;
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	if (g->vcpu < 0)
		return -errno;
	g->run_bytes = (size_t)ioctl(g->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	g->run = mmap(NULL, g->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	return g->run == MAP_FAILED ? -errno : 0;
}

static void guest_close(struct guest *g)
{
	if (g->run && g->run != MAP_FAILED)
		munmap(g->run, g->run_bytes);
	if (g->memory && g->memory != MAP_FAILED)
		munmap(g->memory, GUEST_BYTES);
	if (g->vcpu >= 0)
		close(g->vcpu);
	if (g->vm >= 0)
		close(g->vm);
	if (g->kvm >= 0)
		close(g->kvm);
}

static const struct exit_row {
	enum measure_id id;
	const unsigned char *code;
	size_t code_bytes;
	unsigned turns, events;
	uint32_t reason;
} rows[] = {
	{MEASURE_EXIT_CPUID, code_cpuid, sizeof(code_cpuid), 1, CPUIDS, KVM_EXIT_HLT},
	{MEASURE_EXIT_PORT, code_port, sizeof(code_port), 100, 1, KVM_EXIT_IO},
	{MEASURE_EXIT_MMIO, code_mmio, sizeof(code_mmio), 100, 1, KVM_EXIT_MMIO},
	{MEASURE_EXIT_HLT, code_hlt, sizeof(code_hlt), 100, 1, KVM_EXIT_HLT},
};

static void note_conditions(const struct host *h, struct measure *m)
{
	if (!h->has_vmx_or_svm)
		snprintf(m->note, sizeof(m->note),
			 "this machine shows neither VT-x nor SVM: its /dev/kvm is a software one");
	else if (h->is_virtualized)
		snprintf(m->note, sizeof(m->note),
			 "nested: this machine is a guest itself, and each exit is several");
}

/* A virtual machine for each: what one leaves behind is not the next one's. */
static int measure_exit(struct run *r, const struct exit_row *row)
{
	struct guest g = {.vm = -1,
			  .vcpu = -1,
			  .turns = row->turns,
			  .events = row->events,
			  .reason = row->reason};
	struct measure *m = &r->out->measure[row->id];
	int rc = guest_open(&g);

	if (!rc) {
		memcpy(g.memory + CODE_AT, row->code, row->code_bytes);
		rc = set_flat_mode(&g);
	}
	if (rc)
		measure_refuse(m, "/dev/kvm: %s", strerror(-rc));
	else if (!sample(&(struct sampler){run_once, &g, run_samples(r), 3}, m))
		measure_refuse(m, "the guest ended with exit reason %u", g.run->exit_reason);
	else
		note_conditions(&r->out->host, m);
	guest_close(&g);
	return rc;
}

void measure_exits(struct run *r)
{
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		run_next(r, rows[i].id);
		measure_exit(r, &rows[i]);
	}
}
