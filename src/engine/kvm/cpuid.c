/*
 * What CPUID shows under KVM: the machine's own model, leaf by leaf, given to KVM once; and which
 * models KVM can show at all.
 *
 * KVM itself keeps the parts that move: OSXSAVE, the APIC bit, the size of XSAVE's area. What our
 * own devices and MSRs do (x2APIC, the TSC deadline timer, machine checks) needs nobody's support.
 * The mark's leaf never comes to us: CPUID is answered in the kernel.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cpu/cpuid.h"
#include "engine/kvm/private.h"

#define LEAF_EXTENDED 0x80000000u
#define LEAF_HYPERVISOR 0x40000000u
#define ENTRIES_MAX 80

enum { EAX, EBX, ECX, EDX };

union cpuid_list {
	struct kvm_cpuid2 head;
	char bytes[sizeof(struct kvm_cpuid2) + ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2)];
};

static const struct {
	const char *name;
	uint32_t leaf, subleaf;
	uint8_t reg, bit;
} features[] = {
#define FEATURE(symbol, name, leaf, subleaf, reg, bit) {name, leaf, subleaf, reg, bit},
#include "cpu/features.def"
#undef FEATURE
};

/* This side's: devices and MSRs of ours. */
static bool is_ours(unsigned f)
{
	static const uint8_t ours[] = {
		FEATURE_X2APIC, FEATURE_TSC_DEADLINE, FEATURE_ARAT, FEATURE_APIC,
		FEATURE_MTRR,	FEATURE_MCE,	      FEATURE_MCA,  FEATURE_ARCH_CAPABILITIES,
		FEATURE_INVTSC, FEATURE_TSC_ADJUST,   FEATURE_SS,
	};

	for (size_t i = 0; i < ARRAY_COUNT(ours); i++)
		if (ours[i] == f)
			return true;
	return false;
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *c, uint32_t leaf,
					   uint32_t subleaf)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && c->entries[i].index == subleaf)
			return &c->entries[i];
	return NULL;
}

static bool can_show(const struct kvm_cpuid2 *host, unsigned f)
{
	const struct kvm_cpuid_entry2 *e = find(host, features[f].leaf, features[f].subleaf);

	if (is_ours(f))
		return true;
	if (!e)
		return false;
	const uint32_t regs[] = {e->eax, e->ebx, e->ecx, e->edx};
	return regs[features[f].reg] >> features[f].bit & 1;
}

static int fit(struct cpu_model *m, const struct kvm_cpuid2 *host, bool is_strict, struct error *e)
{
	char missing[400] = "";
	size_t used = 0;

	for (unsigned f = 0; f < FEATURE_COUNT; f++) {
		if (!m->has[f] || can_show(host, f))
			continue;
		if (!is_strict)
			m->has[f] = false;
		else if (used < sizeof(missing))
			used += (size_t)snprintf(missing + used, sizeof(missing) - used, " %s",
						 features[f].name);
	}
	if (used)
		return error_set(
			e, -EOPNOTSUPP,
			"this host's KVM cannot show what '%s' has:%s; --cpu MODEL,-FEATURE "
			"goes without",
			m->name, missing);
	const struct kvm_cpuid_entry2 *sizes = find(host, LEAF_EXTENDED | 8, 0);
	unsigned bits = sizes && sizes->eax & 0xff ? sizes->eax & 0xff : 36;
	if (m->physical_bits > bits && is_strict)
		return error_set(
			e, -EOPNOTSUPP,
			"the guest's processor has %u physical address bits, KVM's here %u",
			m->physical_bits, bits);
	if (m->physical_bits > bits)
		m->physical_bits = bits;
	return 0;
}

int kvm_fit_model(struct cpu_model *m, bool is_strict, struct error *e)
{
	struct kvm_cpuid2 *host = NULL;
	int kvm, r = kvm_host_open(&kvm, e);

	if (r)
		return r;
	r = kvm_host_cpuid(kvm, &host, e);
	if (!r)
		r = fit(m, host, is_strict, e);
	free(host);
	close(kvm);
	return r;
}

static void add(union cpuid_list *l, const struct vcpu *v, uint32_t leaf, uint32_t subleaf,
		bool has_subleaves)
{
	struct cpuid_regs r = cpu_cpuid(v, leaf, subleaf);

	if (l->head.nent == ENTRIES_MAX)
		return;
	l->head.entries[l->head.nent++] = (struct kvm_cpuid_entry2){
		.function = leaf,
		.index = subleaf,
		.flags = has_subleaves ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = r.eax,
		.ebx = r.ebx,
		.ecx = r.ecx,
		.edx = r.edx,
	};
}

static void fill(union cpuid_list *l, const struct vcpu *v)
{
	static const struct {
		uint32_t leaf, count;
	} with_subleaves[] = {{4, 5}, {7, 2}, {0xb, 3}, {0xd, 3}};
	uint32_t last = cpu_cpuid(v, 0, 0).eax, last_extended = cpu_cpuid(v, LEAF_EXTENDED, 0).eax;

	for (uint32_t leaf = 0; leaf <= last; leaf++) {
		uint32_t count = 0;
		for (size_t i = 0; i < ARRAY_COUNT(with_subleaves); i++)
			if (with_subleaves[i].leaf == leaf)
				count = with_subleaves[i].count;
		for (uint32_t s = 0; s < count; s++)
			add(l, v, leaf, s, true);
		if (!count)
			add(l, v, leaf, 0, false);
	}
	for (uint32_t leaf = LEAF_EXTENDED; leaf <= last_extended; leaf++)
		add(l, v, leaf, 0, false);
	if (!v->model->kvm_leaves)
		return;
	uint32_t last_hypervisor = cpu_cpuid(v, LEAF_HYPERVISOR, 0).eax;
	for (uint32_t leaf = LEAF_HYPERVISOR; leaf <= last_hypervisor; leaf++)
		add(l, v, leaf, 0, false);
}

int kvm_cpuid_set(struct kvm_engine *k, struct kvm_vcpu *c, struct error *e)
{
	union cpuid_list list = {.bytes = {0}};
	/* As 64-bit code sees it: SYSCALL shows there only, and KVM's answer is one for all modes.
	 */
	struct vcpu as_seen = {
		.index = c->v->index,
		.model = c->v->model,
		.state = {.efer = EFER_LMA | EFER_LME, .xcr0 = XCR0_X87},
	};

	(void)k;
	as_seen.state.seg[SEG_CS].attributes = ATTR_L;
	fill(&list, &as_seen);
	if (ioctl(c->cpu.fd, KVM_SET_CPUID2, &list) < 0)
		return error_set(e, -errno, "KVM refuses the guest's CPUID: %s", strerror(errno));
	return 0;
}
