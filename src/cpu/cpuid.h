/*
 * CPUID models: what a named processor offers, with single features added and taken away, never
 * more than the host has where the host's own instructions are used to execute. What CPUID does not
 * offer raises #UD: the engine asks cpu_has().
 */
#pragma once

#include "base/error.h"
#include "base/types.h"

struct cpuid_regs {
	uint32_t eax, ebx, ecx, edx;
};

/* Every feature a model can switch: FEATURE(symbol, "name as in /proc/cpuinfo and QEMU", leaf,
 * subleaf, register, bit). */
enum cpu_feature {
#define FEATURE(symbol, name, leaf, subleaf, reg, bit) FEATURE_##symbol,
#include "cpu/features.def"
#undef FEATURE
	FEATURE_COUNT
};

/* Leaf 15h's crystal: what the local APIC's timer counts (its timer_hz). */
#define CPU_CRYSTAL_HZ 25000000ull

struct cpu_model {
	char name[32];
	bool has[FEATURE_COUNT];
	char vendor[13];
	char brand[49];
	uint32_t signature; /* leaf 1 EAX: family, model, stepping */
	unsigned physical_bits, linear_bits;
	unsigned vcpu_count;
	uint64_t tsc_hz; /* leaf 15h and 16h, and KVM's leaf 40000010h */
	bool kvm_leaves; /* 40000000h: "KVMKVMKVM", kvmclock */
};

/* Parses "NAME[,+feature]...[,-feature]..." (also `feature=on|off` as in QEMU). Names: `x86-64`
 * (v1), x86-64-v2, x86-64-v3, max, host's synonym max. Unknown names, and features the host lacks,
 * are errors that list the legal ones. Fills everything but vcpu_count, tsc_hz, kvm_leaves. */
int cpu_model_parse(struct cpu_model *m, const char *spec, struct error *e);

/* Iterates the catalogue of model names, NULL after the last; and feature names. */
const char *cpu_model_name(size_t i, const char **description);
const char *cpu_feature_name(enum cpu_feature f);

/* The feature that has exactly this name; FEATURE_COUNT if none has. */
enum cpu_feature cpu_feature_find(const char *name);
/* Can this host execute for a guest of model `m`, which was made elsewhere? -EOPNOTSUPP, and the
 * message lists the features that are missing. */
int cpu_model_check_host(const struct cpu_model *m, struct error *e);
/* Has `m` every feature of `wanted`? -EOPNOTSUPP as above. */
int cpu_model_check_covers(const struct cpu_model *m, const struct cpu_model *wanted,
			   struct error *e);

static inline bool cpu_has(const struct cpu_model *m, enum cpu_feature f)
{
	return m->has[f];
}

/* What the CPUID instruction returns. `state` bits that show through (OSXSAVE, APIC id, XSAVE size)
 * come from the arguments. */
struct vcpu;
struct cpuid_regs cpu_cpuid(const struct vcpu *v, uint32_t leaf, uint32_t subleaf);

/* XCR0 bits that the model lets a guest set. */
uint64_t cpu_xcr0_mask(const struct cpu_model *m);
/* CR4 bits that the model lets a guest set. */
uint64_t cpu_cr4_mask(const struct cpu_model *m);
/* EFER bits that the model lets a guest set. */
uint64_t cpu_efer_mask(const struct cpu_model *m);
