/*
 * Can this /dev/kvm run an unmodified kernel? One small guest for each thing that a kernel does on
 * its way up, each in a machine of its own and with a deadline, because a KVM that lacks something
 * may hang instead of saying so.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <x86intrin.h>

#include "engine/kvm/kvm.h"
#include "engine/kvm/probe.h"

#define DEADLINE_NS 1000000000ull
#define VENDOR "GnomonGnomon"
#define VECTOR_TEST 0x41u
#define PORT_ANSWER 0x5a
#define MMIO_ANSWER 0x12345678u
#define MSR_ANSWER 0x1122334455667788ull
/* OSXSAVE, which follows CR4, and the hypervisor's bit. */
#define FEATURES_THAT_MOVE (1u << 27 | 1u << 31)
#define FAR_AWAY 1000000000000ull /* cycles: no host's TSC is near by chance */

/* Why a check failed; 0 if it did not. */
typedef const char *(*check_function)(struct kvm_probe *p, char text[64]);

static const char *reason_name(int reason)
{
	switch (reason) {
	case KVM_EXIT_IO: return "an exit for a port";
	case KVM_EXIT_MMIO: return "an exit for device memory";
	case KVM_EXIT_HLT: return "a halt";
	case KVM_EXIT_SHUTDOWN: return "a triple fault";
	case KVM_EXIT_FAIL_ENTRY: return "it could not be entered";
	case KVM_EXIT_INTERNAL_ERROR: return "an internal error of KVM";
	case -ETIME: return "nothing within a second";
	default: return "an exit of another kind";
	}
}

static const char *expect(struct kvm_probe *p, int wanted)
{
	int reason = kvm_probe_run(p, DEADLINE_NS);

	return reason == wanted ? NULL : reason_name(reason);
}

/* Runs to a HLT that must leave `rax`. */
static const char *expect_halt(struct kvm_probe *p, uint64_t rax, char text[64])
{
	struct kvm_regs regs;
	const char *why = expect(p, KVM_EXIT_HLT);

	if (why)
		return why;
	if (kvm_probe_registers(p, &regs) || regs.rax == rax)
		return NULL;
	snprintf(text, 64, "a wrong result: %#llx", (unsigned long long)regs.rax);
	return text;
}

static const char *start(struct kvm_probe *p, enum probe_mode mode, struct kvm_guest_code code)
{
	return kvm_probe_start(p, mode, code, 0, NULL) ? "KVM refuses its registers" : NULL;
}

static const char *run_to_halt(struct kvm_probe *p, enum probe_mode mode,
			       struct kvm_guest_code code, uint64_t rax, char text[64])
{
	const char *why = start(p, mode, code);

	return why ? why : expect_halt(p, rax, text);
}

static const char *check_real(struct kvm_probe *p, char text[64])
{
	return run_to_halt(p, PROBE_REAL, KVM_GUEST(real), 0x4241 + 0x1234 + 1, text);
}

static const char *check_protected(struct kvm_probe *p, char text[64])
{
	return run_to_halt(p, PROBE_REAL, KVM_GUEST(protected), 0x50524f54, text);
}

static const char *check_exception(struct kvm_probe *p, char text[64])
{
	kvm_probe_set_handler(p, PROBE_FLAT, VECTOR_UD, KVM_GUEST(exception_handler));
	return run_to_halt(p, PROBE_FLAT, KVM_GUEST(exception), 0x55440001, text);
}

static const char *check_paged(struct kvm_probe *p, char text[64])
{
	return run_to_halt(p, PROBE_FLAT, KVM_GUEST(paged), 0x50414745, text);
}

static const char *check_long(struct kvm_probe *p, char text[64])
{
	return run_to_halt(p, PROBE_FLAT, KVM_GUEST(long), 0x4c4f4e4700000001ull, text);
}

static const char *check_port(struct kvm_probe *p, char text[64])
{
	struct kvm_run *run = p->cpu.run;
	const char *why = start(p, PROBE_LONG, KVM_GUEST(port));

	if (why || (why = expect(p, KVM_EXIT_IO)))
		return why;
	((uint8_t *)run)[run->io.data_offset] = PORT_ANSWER;
	if (run->io.port != 0x71 || run->io.direction != KVM_EXIT_IO_IN)
		return "not the port that was read";
	if ((why = expect(p, KVM_EXIT_IO)))
		return why;
	if (run->io.port != 0x80 || ((uint8_t *)run)[run->io.data_offset] != PORT_ANSWER + 1)
		return "the answer did not reach the guest";
	return expect(p, KVM_EXIT_HLT);
}

static const char *check_mmio(struct kvm_probe *p, char text[64])
{
	struct kvm_run *run = p->cpu.run;
	const uint32_t answer = MMIO_ANSWER, wanted = answer + 1;
	const char *why = start(p, PROBE_LONG, KVM_GUEST(mmio));

	if (why || (why = expect(p, KVM_EXIT_MMIO)))
		return why;
	if (run->mmio.phys_addr != PROBE_MMIO || run->mmio.is_write || run->mmio.len != 4)
		return "not the address that was read";
	memcpy(run->mmio.data, &answer, 4);
	if ((why = expect(p, KVM_EXIT_MMIO)))
		return why;
	if (!run->mmio.is_write || memcmp(run->mmio.data, &wanted, 4))
		return "the answer did not reach the guest";
	return expect(p, KVM_EXIT_HLT);
}

static const char *check_hlt(struct kvm_probe *p, char text[64])
{
	const char *why = run_to_halt(p, PROBE_LONG, KVM_GUEST(hlt), 1, text);

	return why ? why : expect_halt(p, 2, text);
}

/* The handler adds the fault's address and error code (a read of a page that is not there: 0). */
static const char *check_fault(struct kvm_probe *p, char text[64])
{
	const uint64_t value = 0x4641554c54ull;

	memcpy(p->memory + 0x700, &value, 8);
	kvm_probe_set_handler(p, PROBE_LONG, VECTOR_PF, KVM_GUEST(fault_handler));
	return run_to_halt(p, PROBE_LONG, KVM_GUEST(fault), value + 0x1000700, text);
}

static const char *check_interrupt(struct kvm_probe *p, char text[64])
{
	struct kvm_interrupt interrupt = {.irq = VECTOR_TEST};
	const char *why = start(p, PROBE_LONG, KVM_GUEST(interrupt));

	kvm_probe_set_handler(p, PROBE_LONG, VECTOR_TEST, KVM_GUEST(interrupt_handler));
	p->cpu.run->request_interrupt_window = 1;
	if (why || (why = expect(p, KVM_EXIT_IRQ_WINDOW_OPEN)))
		return why;
	p->cpu.run->request_interrupt_window = 0;
	if (ioctl(p->cpu.fd, KVM_INTERRUPT, &interrupt) < 0)
		return "KVM takes no interrupt";
	return expect_halt(p, 0x494e5452, text);
}

static const char *check_msr(struct kvm_probe *p, char text[64])
{
	struct kvm_run *run = p->cpu.run;
	const char *why;

	if (kvm_filter_msrs(p->vm, false, false, NULL))
		return "KVM refuses the filter";
	if ((why = start(p, PROBE_LONG, KVM_GUEST(msr))) || (why = expect(p, KVM_EXIT_X86_RDMSR)))
		return why;
	run->msr.data = MSR_ANSWER;
	run->msr.error = 0;
	if ((why = expect(p, KVM_EXIT_X86_WRMSR)))
		return why;
	if (run->msr.data != MSR_ANSWER + 1)
		return "the answer did not reach the guest";
	run->msr.error = 0;
	return expect(p, KVM_EXIT_HLT);
}

static const char *check_fpu(struct kvm_probe *p, char text[64])
{
	const char *why = start(p, PROBE_LONG, KVM_GUEST(fpu));

	if (why || (why = expect(p, KVM_EXIT_IO)))
		return why;
	return expect_halt(p, 0x4650550000000001ull, text);
}

static const char *check_cpuid(struct kvm_probe *p, char text[64])
{
	struct kvm_regs regs;
	char vendor[13] = "";
	const char *why = start(p, PROBE_LONG, KVM_GUEST(cpuid));

	if (why || (why = expect(p, KVM_EXIT_HLT)))
		return why;
	if (kvm_probe_registers(p, &regs))
		return "KVM tells no registers";
	memcpy(vendor, &regs.rbx, 4);
	memcpy(vendor + 4, &regs.rdx, 4);
	memcpy(vendor + 8, &regs.rcx, 4);
	if (strcmp(vendor, VENDOR)) {
		snprintf(text, 64, "the host's own shows through (%.12s)", vendor);
		return text;
	}
	uint32_t more = (uint32_t)regs.rax & ~PROBE_FEATURES & ~FEATURES_THAT_MOVE;
	if (!more)
		return NULL;
	snprintf(text, 64, "the guest sees what it was not given (leaf 1 ECX %#x)", more);
	return text;
}

static const char *check_tsc(struct kvm_probe *p, char text[64])
{
	uint64_t before = __rdtsc();
	uint64_t offset = FAR_AWAY - before;
	struct kvm_regs regs;
	const char *why = start(p, PROBE_LONG, KVM_GUEST(tsc));

	if (kvm_set_tsc_offset(&p->cpu, offset))
		return "KVM takes no offset";
	if (why || (why = expect(p, KVM_EXIT_HLT)))
		return why;
	if (kvm_probe_registers(p, &regs))
		return "KVM tells no registers";
	bool is_good = regs.rax - FAR_AWAY <= __rdtsc() - before;
	return is_good ? NULL : "the guest reads the host's own counter";
}

static const struct {
	const char *name;
	check_function run;
} checks[KVM_CHECK_COUNT] = {
	[KVM_CHECK_REAL] = {"real mode", check_real},
	[KVM_CHECK_PROTECTED] = {"protected mode", check_protected},
	[KVM_CHECK_EXCEPTION] = {"32-bit exceptions", check_exception},
	[KVM_CHECK_PAGED] = {"32-bit paging", check_paged},
	[KVM_CHECK_LONG] = {"long mode", check_long},
	[KVM_CHECK_PORT] = {"ports", check_port},
	[KVM_CHECK_MMIO] = {"MMIO", check_mmio},
	[KVM_CHECK_HLT] = {"HLT", check_hlt},
	[KVM_CHECK_FAULT] = {"page faults", check_fault},
	[KVM_CHECK_INTERRUPT] = {"interrupts", check_interrupt},
	[KVM_CHECK_MSR] = {"MSRs", check_msr},
	[KVM_CHECK_FPU] = {"x87 and SSE", check_fpu},
	[KVM_CHECK_CPUID] = {"CPUID", check_cpuid},
	[KVM_CHECK_TSC] = {"TSC", check_tsc},
};

const char *kvm_check_name(enum kvm_check c)
{
	return checks[c].name;
}

static void run_check(enum kvm_check c, struct kvm_fitness *out)
{
	struct kvm_probe probe;
	struct error e = {0};
	char text[64] = "";
	int r = kvm_probe_open(&probe, VENDOR, &e);
	const char *why = r ? e.text : checks[c].run(&probe, text);

	kvm_probe_close(&probe);
	out->passed[c] = !why;
	if (why)
		snprintf(out->why[c], sizeof(out->why[c]), "%.63s", why);
}

bool kvm_self_test(struct kvm_fitness *out, bool is_brief)
{
	struct error e = {0};
	int kvm;

	memset(out, 0, sizeof(*out));
	if (kvm_host_open(&kvm, &e)) {
		snprintf(out->reason, sizeof(out->reason), "%.190s", e.text);
		return false;
	}
	close(kvm);
	out->is_open = true;
	size_t used = 0;
	for (int c = 0; c < KVM_CHECK_COUNT && !(is_brief && used); c++) {
		run_check((enum kvm_check)c, out);
		if (out->passed[c] || used >= sizeof(out->reason))
			continue;
		used += (size_t)snprintf(out->reason + used, sizeof(out->reason) - used, "%s%s: %s",
					 used ? "; " : "", checks[c].name, out->why[c]);
	}
	return !used;
}
