/*
 * The CPUID instruction, leaf by leaf (SDM 2A, CPUID; the hypervisor leaves as KVM documents them).
 *
 * Feature words come from features.def through the model; everything else is identity, topology and
 * time. Called by the engines for the instruction and by nobody else.
 */
#include "cpu/cpuid.h"

#include <string.h>

#include "cpu/vcpu.h"
#include "x86/arch.h"

#define LEAF_MAX 0x16u
#define LEAF_EXTENDED_MAX 0x80000008u
#define LEAF_KVM 0x40000000u
#define LEAF_KVM_MAX 0x40000010u

#define XSAVE_LEGACY_BYTES 576u
#define XSAVE_AVX_BYTES 256u

enum { EAX, EBX, ECX, EDX };

static uint32_t *word(struct cpuid_regs *r, unsigned reg)
{
	switch (reg) {
	case EAX: return &r->eax;
	case EBX: return &r->ebx;
	case ECX: return &r->ecx;
	default: return &r->edx;
	}
}

static void add_features(const struct cpu_model *m, uint32_t leaf, uint32_t subleaf,
			 struct cpuid_regs *out)
{
	static const struct {
		uint32_t leaf;
		uint8_t subleaf, reg, bit;
	} rows[FEATURE_COUNT] = {
#define FEATURE(symbol, name, leaf, subleaf, reg, bit) \
	[FEATURE_##symbol] = {leaf, subleaf, reg, bit},
#include "cpu/features.def"
#undef FEATURE
	};

	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (m->has[f] && rows[f].leaf == leaf && rows[f].subleaf == subleaf)
			*word(out, rows[f].reg) |= 1u << rows[f].bit;
}

/* Bits needed to number `count` things. */
static unsigned width(unsigned count)
{
	unsigned bits_needed = 0;

	while ((1u << bits_needed) < count)
		bits_needed++;
	return bits_needed;
}

static void leaf_1(const struct vcpu *v, struct cpuid_regs *r)
{
	const struct cpu_model *m = v->model;

	r->eax = m->signature;
	r->ebx = (v->index & 0xff) << 24 | 8 << 8; /* CLFLUSH line: 8 quadwords */
	if (m->vcpu_count > 1) {
		r->ebx |= (1u << width(m->vcpu_count) & 0xff) << 16;
		r->edx |= 1u << 28; /* HTT: the count above means something */
	}
	add_features(m, 1, 0, r);
	if (v->state.cr4 & CR4_OSXSAVE)
		r->ecx |= 1u << 27;
	if (m->kvm_leaves)
		r->ecx |= 1u << 31;
}

/* Deterministic cache parameters: 32K L1, 1M L2 a processor, 16M L3 for all. */
static void leaf_4(const struct cpu_model *m, uint32_t subleaf, struct cpuid_regs *r)
{
	static const struct {
		uint8_t type, level, ways;
		uint16_t sets;
	} caches[] = {{1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 16, 1024}, {3, 3, 16, 16384}};

	if (subleaf >= ARRAY_COUNT(caches))
		return;
	unsigned all = (1u << width(m->vcpu_count ? m->vcpu_count : 1)) - 1;
	unsigned sharing = caches[subleaf].level == 3 ? all : 0;
	r->eax = caches[subleaf].type | (uint32_t)caches[subleaf].level << 5 | 1u << 8 |
		 (sharing & 0xfff) << 14 | (all & 0x3f) << 26;
	r->ebx = 63 | (caches[subleaf].ways - 1u) << 22;
	r->ecx = caches[subleaf].sets - 1u;
	r->edx = caches[subleaf].level == 3 ? 2 : 0; /* inclusive */
}

static void leaf_topology(const struct vcpu *v, uint32_t subleaf, struct cpuid_regs *r)
{
	unsigned count = v->model->vcpu_count ? v->model->vcpu_count : 1;

	r->ecx = subleaf & 0xff;
	r->edx = v->index;
	if (subleaf == 0) {
		r->ebx = 1;
		r->ecx |= 1 << 8; /* threads */
	} else if (subleaf == 1) {
		r->eax = width(count);
		r->ebx = count;
		r->ecx |= 2 << 8; /* cores */
	}
}

static void leaf_xsave(const struct vcpu *v, uint32_t subleaf, struct cpuid_regs *r)
{
	uint64_t mask = cpu_xcr0_mask(v->model);

	if (!mask)
		return;
	uint32_t current = XSAVE_LEGACY_BYTES + (v->state.xcr0 & XCR0_AVX ? XSAVE_AVX_BYTES : 0);
	if (subleaf == 0) {
		r->eax = (uint32_t)mask;
		r->ebx = current;
		r->ecx = XSAVE_LEGACY_BYTES + (mask & XCR0_AVX ? XSAVE_AVX_BYTES : 0);
	} else if (subleaf == 1) {
		add_features(v->model, 0xd, 1, r);
		if (cpu_has(v->model, FEATURE_XSAVEC) || cpu_has(v->model, FEATURE_XSAVES))
			r->ebx = current;
	} else if (subleaf == 2 && (mask & XCR0_AVX)) {
		r->eax = XSAVE_AVX_BYTES;
		r->ebx = XSAVE_LEGACY_BYTES;
	}
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

/* TSC frequency = crystal * EBX / EAX. */
static void leaf_tsc(const struct cpu_model *m, struct cpuid_regs *r)
{
	uint64_t divisor = gcd(m->tsc_hz, CPU_CRYSTAL_HZ);

	if (!m->tsc_hz || m->tsc_hz / divisor > UINT32_MAX)
		return;
	r->eax = (uint32_t)(CPU_CRYSTAL_HZ / divisor);
	r->ebx = (uint32_t)(m->tsc_hz / divisor);
	r->ecx = CPU_CRYSTAL_HZ;
}

static void leaf_basic(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, struct cpuid_regs *r)
{
	const struct cpu_model *m = v->model;

	switch (leaf) {
	case 0:
		r->eax = LEAF_MAX;
		memcpy(&r->ebx, m->vendor, 4);
		memcpy(&r->edx, m->vendor + 4, 4);
		memcpy(&r->ecx, m->vendor + 8, 4);
		break;
	case 1: leaf_1(v, r); break;
	case 2: r->eax = 0x00ff0301; break; /* leaf 4 has the caches */
	case 4: leaf_4(m, subleaf, r); break;
	case 6: add_features(m, leaf, 0, r); break;
	case 7: add_features(m, leaf, subleaf, r); break;
	case 0xb: leaf_topology(v, subleaf, r); break;
	case 0xd: leaf_xsave(v, subleaf, r); break;
	case 0x15: leaf_tsc(m, r); break;
	case 0x16:
		r->eax = r->ebx = (uint32_t)((m->tsc_hz + 500000) / 1000000);
		r->ecx = 100;
		break;
	default: break;
	}
}

static void leaf_extended(const struct vcpu *v, uint32_t leaf, struct cpuid_regs *r)
{
	const struct cpu_model *m = v->model;

	switch (leaf) {
	case 0x80000000u: r->eax = LEAF_EXTENDED_MAX; break;
	case 0x80000002u:
	case 0x80000003u:
	case 0x80000004u: memcpy(r, m->brand + (leaf - 0x80000002u) * 16, 16); break;
	case 0x80000006u: r->ecx = 1024u << 16 | 8u << 12 | 64; break; /* 1M, 16 ways */
	case 0x80000008u: r->eax = m->physical_bits | m->linear_bits << 8; break;
	default: break;
	}
	add_features(m, leaf, 0, r);
	/* A processor of this vendor shows SYSCALL only to 64-bit code. */
	if (leaf == 0x80000001u && !vcpu_is_64bit(v))
		r->edx &= ~(1u << 11);
}

/* "KVMKVMKVM": kvmclock (new registers) that is stable across vcpus, and no need for I/O delays. */
static void leaf_kvm(const struct cpu_model *m, uint32_t leaf, struct cpuid_regs *r)
{
	if (leaf == LEAF_KVM) {
		*r = (struct cpuid_regs){LEAF_KVM_MAX, 0x4b4d564bu, 0x564b4d56u, 0x4du};
	} else if (leaf == LEAF_KVM + 1) {
		r->eax = 1u << 1 | 1u << 3 | 1u << 24;
	} else if (leaf == LEAF_KVM_MAX) {
		r->eax = (uint32_t)(m->tsc_hz / 1000);
		r->ebx = (uint32_t)(CPU_CRYSTAL_HZ / 1000);
	}
}

struct cpuid_regs cpu_cpuid(const struct vcpu *v, uint32_t leaf, uint32_t subleaf)
{
	struct cpuid_regs r = {0};

	if (leaf >= 0x80000000u && leaf <= LEAF_EXTENDED_MAX) {
		leaf_extended(v, leaf, &r);
	} else if (v->model->kvm_leaves && leaf >= LEAF_KVM && leaf <= LEAF_KVM_MAX) {
		leaf_kvm(v->model, leaf, &r);
	} else {
		/* Above the last leaf a processor answers with the last one. */
		leaf_basic(v, leaf > LEAF_MAX ? LEAF_MAX : leaf, subleaf, &r);
	}
	return r;
}
