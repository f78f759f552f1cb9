/* CPU models and the CPUID instruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/vcpu.h"

static struct cpu_model parse(const char *spec)
{
	struct cpu_model m = {.vcpu_count = 1, .tsc_hz = 2100000000ull};
	struct error e = {0};

	assert_int_equal(cpu_model_parse(&m, spec, &e), 0);
	return m;
}

static void refuse(const char *spec, const char *part)
{
	struct cpu_model m = {0};
	struct error e = {0};

	assert_true(cpu_model_parse(&m, spec, &e) < 0);
	if (!strstr(e.text, part))
		fail_msg("'%s' does not mention '%s'", e.text, part);
}

static void test_every_model_of_the_catalogue(void **state)
{
	const char *name, *text;
	size_t count = 0;

	for (; (name = cpu_model_name(count, &text)); count++) {
		struct cpu_model m = {0};
		struct error e = {0};
		assert_true(strlen(text) > 0);
		int r = cpu_model_parse(&m, name, &e);
		if (r < 0)
			assert_non_null(strstr(e.text, "lacks"));
		else
			assert_true(cpu_has(&m, FEATURE_LM));
	}
	assert_int_equal(count, 5);
}

static void test_levels_are_nested(void **state)
{
	struct cpu_model v1 = parse("x86-64"), max = parse("max");

	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		if (v1.has[f])
			assert_true(max.has[f]);
	assert_false(v1.has[FEATURE_SSE3]);
	assert_false(v1.has[FEATURE_AVX]);
	assert_false(max.has[FEATURE_LA57]);
	assert_int_equal(max.linear_bits, 48);
	assert_string_equal(max.vendor, "GenuineIntel");
}

static void test_features_on_and_off(void **state)
{
	struct cpu_model m = parse("x86-64,+la57,-pcid,smap=off,movbe=on");

	assert_true(m.has[FEATURE_LA57]);
	assert_int_equal(m.linear_bits, 57);
	assert_false(m.has[FEATURE_PCID]);
	assert_false(m.has[FEATURE_INVPCID]);
	assert_false(m.has[FEATURE_SMAP]);
	assert_true(m.has[FEATURE_MOVBE]);
	assert_false(cpu_cr4_mask(&m) & CR4_SMAP);
	assert_true(cpu_cr4_mask(&m) & CR4_LA57);
}

static void test_dependencies(void **state)
{
	struct cpu_model m = parse("max,-xsave");

	assert_false(m.has[FEATURE_AVX]);
	assert_false(m.has[FEATURE_AVX2]);
	assert_false(m.has[FEATURE_XSAVEC]);
	assert_int_equal(cpu_xcr0_mask(&m), 0);
	refuse("x86-64,+xsaveopt", "needs 'xsave'");
}

static void test_refusals(void **state)
{
	refuse("pentium", "x86-64-v2");
	refuse("", "x86-64-v2");
	refuse("max,+unicorn", "smap");
	refuse("max,sse4_2", "neither");
	refuse("max,avx2=maybe", "neither");
	refuse("max,", "neither");
	refuse("max,-lm", "cannot be without");
	char longest[600];
	memset(longest, 'x', sizeof(longest));
	longest[599] = 0;
	refuse(longest, "longer");
}

static struct vcpu machine(const struct cpu_model *m)
{
	return (struct vcpu){.model = m};
}

static void test_leaf_0_and_limits(void **state)
{
	struct cpu_model m = parse("x86-64");
	struct vcpu v = machine(&m);
	struct cpuid_regs r = cpu_cpuid(&v, 0, 0);

	assert_memory_equal(&r.ebx, "Genu", 4);
	assert_memory_equal(&r.edx, "ineI", 4);
	assert_memory_equal(&r.ecx, "ntel", 4);
	struct cpuid_regs last = cpu_cpuid(&v, r.eax, 0), above = cpu_cpuid(&v, r.eax + 5, 0);
	assert_memory_equal(&last, &above, sizeof(last));
	above = cpu_cpuid(&v, 0x40000000, 0);
	assert_memory_equal(&last, &above, sizeof(last));
	assert_int_equal(cpu_cpuid(&v, 0x80000000u, 0).eax, 0x80000008u);
}

static void test_leaf_1_shows_state(void **state)
{
	struct cpu_model m = parse("max");
	struct vcpu v = machine(&m);

	v.index = 3;
	m.vcpu_count = 4;
	struct cpuid_regs r = cpu_cpuid(&v, 1, 0);
	assert_int_equal(r.ebx >> 24, 3);
	assert_int_equal(r.ebx >> 16 & 0xff, 4);
	assert_false(r.ecx & 1u << 27);
	assert_false(r.ecx & 1u << 31);
	v.state.cr4 = CR4_OSXSAVE;
	m.kvm_leaves = true;
	r = cpu_cpuid(&v, 1, 0);
	assert_true(r.ecx & 1u << 27);
	assert_true(r.ecx & 1u << 31);
	assert_false(r.ecx & 1u << 3); /* MONITOR */
	assert_false(r.ecx & 1u << 5); /* VMX */
}

static void test_topology(void **state)
{
	struct cpu_model m = parse("x86-64");
	struct vcpu v = machine(&m);

	m.vcpu_count = 3;
	v.index = 2;
	struct cpuid_regs smt = cpu_cpuid(&v, 0xb, 0), core = cpu_cpuid(&v, 0xb, 1);
	assert_int_equal(smt.eax, 0);
	assert_int_equal(smt.ecx, 0x100);
	assert_int_equal(core.eax, 2);
	assert_int_equal(core.ebx, 3);
	assert_int_equal(core.ecx, 0x201);
	assert_int_equal(core.edx, 2);
	assert_int_equal(cpu_cpuid(&v, 0xb, 2).ecx, 2);
}

static void test_caches_end(void **state)
{
	struct cpu_model m = parse("x86-64");
	struct vcpu v = machine(&m);

	for (uint32_t i = 0; i < 4; i++)
		assert_true(cpu_cpuid(&v, 4, i).eax & 0x1f);
	assert_int_equal(cpu_cpuid(&v, 4, 4).eax, 0);
	struct cpuid_regs l1 = cpu_cpuid(&v, 4, 0);
	unsigned bytes = ((l1.ebx >> 22) + 1) * ((l1.ebx & 0xfff) + 1) * (l1.ecx + 1);
	assert_int_equal(bytes, 32768);
}

static void test_time_leaves_agree(void **state)
{
	struct cpu_model m = parse("x86-64");
	struct vcpu v = machine(&m);
	static const uint64_t rates[] = {2100000000ull, 2350000000ull, 2599999999ull};

	for (size_t i = 0; i < ARRAY_COUNT(rates); i++) {
		m.tsc_hz = rates[i];
		struct cpuid_regs r = cpu_cpuid(&v, 0x15, 0);
		assert_true(r.eax != 0);
		assert_true((uint64_t)r.ecx * r.ebx / r.eax == rates[i]);
	}
	m.kvm_leaves = true;
	m.tsc_hz = 2350000000ull;
	struct cpuid_regs kvm = cpu_cpuid(&v, 0x40000010, 0);
	assert_int_equal(kvm.eax, 2350000);
	assert_int_equal(kvm.ebx, CPU_CRYSTAL_HZ / 1000);
	kvm = cpu_cpuid(&v, 0x40000000, 0);
	assert_memory_equal(&kvm.ebx, "KVMKVMKVM\0\0\0", 12);
}

static void test_xsave_leaf(void **state)
{
	struct cpu_model m = parse("max");
	struct vcpu v = machine(&m);

	v.state.xcr0 = XCR0_X87;
	assert_int_equal(cpu_cpuid(&v, 0xd, 0).ebx, 576);
	if (m.has[FEATURE_AVX]) {
		assert_int_equal(cpu_cpuid(&v, 0xd, 0).eax, 7);
		assert_int_equal(cpu_cpuid(&v, 0xd, 0).ecx, 832);
		v.state.xcr0 = 7;
		assert_int_equal(cpu_cpuid(&v, 0xd, 0).ebx, 832);
		assert_int_equal(cpu_cpuid(&v, 0xd, 2).eax, 256);
		assert_int_equal(cpu_cpuid(&v, 0xd, 2).ebx, 576);
	}
}

static void test_syscall_shows_in_64_bit_code_only(void **state)
{
	struct cpu_model m = parse("x86-64");
	struct vcpu v = machine(&m);

	assert_false(cpu_cpuid(&v, 0x80000001u, 0).edx & 1u << 11);
	v.state.efer = EFER_LMA;
	v.state.seg[SEG_CS].attributes = ATTR_L;
	assert_true(cpu_cpuid(&v, 0x80000001u, 0).edx & 1u << 11);
}

static void test_brand(void **state)
{
	struct cpu_model m = parse("x86-64");
	struct vcpu v = machine(&m);
	char text[49] = "";

	for (uint32_t i = 0; i < 3; i++) {
		struct cpuid_regs r = cpu_cpuid(&v, 0x80000002u + i, 0);
		memcpy(text + 16 * i, &r, 16);
	}
	assert_string_equal(text, m.brand);
}

static void test_what_a_saved_model_needs(void **state)
{
	struct cpu_model small, large;
	struct error e = {0};
	assert_int_equal(cpu_model_parse(&small, "x86-64-v2,-popcnt", NULL), 0);
	assert_int_equal(cpu_model_parse(&large, "x86-64-v2", NULL), 0);
	assert_int_equal(cpu_model_check_host(&large, &e), 0);
	assert_int_equal(cpu_model_check_covers(&large, &small, &e), 0);
	assert_int_equal(cpu_model_check_covers(&small, &large, &e), -95);
	assert_non_null(strstr(e.text, "popcnt"));
	for (unsigned f = 0; f < FEATURE_COUNT; f++)
		assert_int_equal(cpu_feature_find(cpu_feature_name((enum cpu_feature)f)), f);
	assert_int_equal(cpu_feature_find("no such feature"), FEATURE_COUNT);
	/* Exactly what --cpu would refuse is named. */
	for (unsigned f = 0; f < FEATURE_COUNT; f++) {
		struct cpu_model one = small, m;
		char spec[64];
		snprintf(spec, sizeof(spec), "max,+%s", cpu_feature_name((enum cpu_feature)f));
		bool is_refused = cpu_model_parse(&m, spec, NULL) == -95;
		one.has[f] = true;
		assert_int_equal(cpu_model_check_host(&one, &e), is_refused ? -95 : 0);
		if (is_refused)
			assert_non_null(strstr(e.text, cpu_feature_name((enum cpu_feature)f)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_model_of_the_catalogue),
		cmocka_unit_test(test_levels_are_nested),
		cmocka_unit_test(test_features_on_and_off),
		cmocka_unit_test(test_dependencies),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_leaf_0_and_limits),
		cmocka_unit_test(test_leaf_1_shows_state),
		cmocka_unit_test(test_topology),
		cmocka_unit_test(test_caches_end),
		cmocka_unit_test(test_time_leaves_agree),
		cmocka_unit_test(test_xsave_leaf),
		cmocka_unit_test(test_syscall_shows_in_64_bit_code_only),
		cmocka_unit_test(test_brand),
		cmocka_unit_test(test_what_a_saved_model_needs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
