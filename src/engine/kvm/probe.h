/*
 * A machine of a few pages for one small guest: what the self-test and the timing of exits run.
 *
 *   0x004f0  GDT pointer (real mode's LGDT)     0x10000  32-bit tables (PD, PT)
 *   0x00500  GDT: 8 code32, 16 data, 24 code64  0x14000  64-bit tables: PML4, PDPT, PD: the first
 *   0x01000  the guest                                   GiB, by itself, in 2 MiB pages
 *   0x02000  handlers                           0x18000  IDT
 *   0x08000  the stack's top                    0x20000  TSS
 */
#pragma once

#include "engine/kvm/host.h"

#define PROBE_CODE 0x1000u
#define PROBE_HANDLER 0x2000u
#define PROBE_MMIO 0x10000000u /* in the tables, and no memory behind it */
#define PROBE_TOUCHED 0x200000u
#define PROBE_PAGES_MAX 512u /* from PROBE_TOUCHED on */

/* The guests of guests.S. */
struct kvm_guest_code {
	const uint8_t *start, *end;
};
#define KVM_GUEST(name) ((struct kvm_guest_code){kvm_guest_##name, kvm_guest_##name##_end})
#define KVM_GUEST_DECLARE(name) extern const uint8_t kvm_guest_##name[], kvm_guest_##name##_end[];
KVM_GUEST_DECLARE(real)
KVM_GUEST_DECLARE(protected)
KVM_GUEST_DECLARE(exception)
KVM_GUEST_DECLARE(exception_handler)
KVM_GUEST_DECLARE(paged)
KVM_GUEST_DECLARE(long)
KVM_GUEST_DECLARE(port)
KVM_GUEST_DECLARE(mmio)
KVM_GUEST_DECLARE(hlt)
KVM_GUEST_DECLARE(fault)
KVM_GUEST_DECLARE(fault_handler)
KVM_GUEST_DECLARE(interrupt)
KVM_GUEST_DECLARE(interrupt_handler)
KVM_GUEST_DECLARE(msr)
KVM_GUEST_DECLARE(fpu)
KVM_GUEST_DECLARE(cpuid)
KVM_GUEST_DECLARE(tsc)
KVM_GUEST_DECLARE(time_cpuid)
KVM_GUEST_DECLARE(time_nothing)
KVM_GUEST_DECLARE(time_port)
KVM_GUEST_DECLARE(time_port_in)
KVM_GUEST_DECLARE(time_mmio)
KVM_GUEST_DECLARE(time_mmio_read)
KVM_GUEST_DECLARE(time_hlt)
KVM_GUEST_DECLARE(time_msr_read)
KVM_GUEST_DECLARE(time_msr_kernel)
KVM_GUEST_DECLARE(time_touch)
KVM_GUEST_DECLARE(time_cr3)
KVM_GUEST_DECLARE(time_invlpg)
KVM_GUEST_DECLARE(time_rdtsc)

enum probe_mode { PROBE_REAL, PROBE_FLAT, PROBE_LONG };

struct kvm_probe {
	int kvm, vm;
	struct kvm_cpu cpu;
	uint8_t *memory;
	struct kvm_deadline deadline;
};

#define PROBE_FEATURES (1u << 13) /* CMPXCHG16B alone */

/* Everything up to the guest's first instruction; _close is idempotent. The CPUID is the host's;
 * unless it is NULL, with `vendor` (12 characters) in leaf 0 and ECX of leaf 1 being
 * PROBE_FEATURES. */
int kvm_probe_open(struct kvm_probe *p, const char *vendor, struct error *e);
void kvm_probe_close(struct kvm_probe *p);
int kvm_probe_start(struct kvm_probe *p, enum probe_mode mode, struct kvm_guest_code code,
		    uint64_t rsi, struct error *e);
/* An interrupt gate of the IDT that leads to `code`, one handler a machine. */
void kvm_probe_set_handler(struct kvm_probe *p, enum probe_mode mode, unsigned vector,
			   struct kvm_guest_code code);

/* Runs to the next exit: KVM's reason, or -ETIME if `ns` are over since they were given (0: the
 * ones given before), or -errno. */
int kvm_probe_run(struct kvm_probe *p, uint64_t ns);
/* RAX, or what a guest left elsewhere. */
int kvm_probe_registers(const struct kvm_probe *p, struct kvm_regs *out);
