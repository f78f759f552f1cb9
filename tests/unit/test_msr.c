/* RDMSR and WRMSR: what the state keeps, what is checked, who is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>
#include <cmocka.h>

#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/vcpu.h"

struct fixture {
	struct vcpu v;
	struct cpu_model model;
	struct clock clock;
	uint32_t last_index;
	uint64_t last_value;
};

static bool fake_read(void *opaque, uint32_t index, uint64_t *value)
{
	struct fixture *f = opaque;

	f->last_index = index;
	*value = 0x1234;
	return index != 0x8ff && index != 0xdead;
}

static bool fake_write(void *opaque, uint32_t index, uint64_t value)
{
	struct fixture *f = opaque;

	f->last_index = index;
	f->last_value = value;
	return index != 0x8ff && index != 0xdead;
}

static const struct apic_ops fake_apic = {.read_msr = fake_read, .write_msr = fake_write};
static const struct msr_ops fake_msrs = {fake_read, fake_write};

static int set_up(void **state)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;

	memset(f, 0, sizeof(*f));
	assert_int_equal(cpu_model_parse(&f->model, "max", NULL), 0);
	f->model.vcpu_count = 1;
	f->model.tsc_hz = 2350000000ull;
	clock_init(&f->clock, CLOCK_VIRTUAL, f->model.tsc_hz);
	f->v.model = &f->model;
	f->v.clock = &f->clock;
	f->v.apic_ops = &fake_apic;
	f->v.apic = f;
	vcpu_reset(&f->v);
	*state = f;
	return 0;
}

static uint64_t get(struct fixture *f, uint32_t index)
{
	uint64_t value = ~0ull;

	assert_int_equal(msr_read(&f->v, index, &value), MSR_OK);
	return value;
}

static void put(struct fixture *f, uint32_t index, uint64_t value)
{
	assert_int_equal(msr_write(&f->v, index, value), MSR_OK);
	assert_true(get(f, index) == value);
}

static void refuse(struct fixture *f, uint32_t index, uint64_t value)
{
	struct vcpu_state before = f->v.state;

	assert_int_equal(msr_write(&f->v, index, value), MSR_FAULT);
	assert_memory_equal(&before, &f->v.state, sizeof(before));
}

static void test_addresses_are_canonical(void **state)
{
	static const uint32_t msrs[] = {MSR_LSTAR,	 MSR_CSTAR,	     MSR_FS_BASE,
					MSR_GS_BASE,	 MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP,
					MSR_SYSENTER_EIP};

	for (size_t i = 0; i < ARRAY_COUNT(msrs); i++) {
		put(*state, msrs[i], 0xffff800000000000ull);
		put(*state, msrs[i], 0x00007fffffffffffull);
		refuse(*state, msrs[i], 0x0000800000000000ull);
	}
}

static void test_canonical_follows_la57(void **state)
{
	struct fixture *f = *state;

	f->model.linear_bits = 57;
	put(f, MSR_LSTAR, 0x0000800000000000ull);
	refuse(f, MSR_LSTAR, 0x0100000000000000ull);
}

static void test_efer(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(msr_write(&f->v, MSR_EFER, EFER_LME | EFER_NXE), MSR_MODE_CHANGED);
	assert_int_equal(msr_write(&f->v, MSR_EFER, EFER_LME | EFER_NXE), MSR_OK);
	refuse(f, MSR_EFER, EFER_FFXSR);
	f->v.state.cr0 |= CR0_PG;
	f->v.state.efer |= EFER_LMA;
	refuse(f, MSR_EFER, EFER_NXE);
	/* LMA is read-only and stays. */
	assert_int_equal(msr_write(&f->v, MSR_EFER, EFER_LME | EFER_SCE), MSR_MODE_CHANGED);
	assert_true(get(f, MSR_EFER) == (EFER_LME | EFER_SCE | EFER_LMA));
	f->model.has[FEATURE_NX] = false;
	refuse(f, MSR_EFER, EFER_LME | EFER_NXE);
}

static void test_mtrrs(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, MSR_MTRRCAP) & 0xff, MTRR_VARIABLE_COUNT);
	put(f, MSR_MTRR_PHYSBASE0, 0x80000006);
	put(f, MSR_MTRR_PHYSBASE0 + 1, 0x3fff80000800ull);
	put(f, MSR_MTRR_PHYSBASE0 + 15, 0);
	refuse(f, MSR_MTRR_PHYSBASE0, 2);
	refuse(f, MSR_MTRR_PHYSBASE0, 1ull << 46);
	refuse(f, MSR_MTRR_PHYSBASE0 + 1, 0x400);
	put(f, MSR_MTRR_FIX64K_00000, 0x0606060606060606ull);
	put(f, MSR_MTRR_FIX16K_80000 + 1, 0x0001040506000000ull);
	put(f, MSR_MTRR_FIX4K_C0000 + 7, 0x0505050505050505ull);
	refuse(f, MSR_MTRR_FIX4K_C0000, 0x0200000000000000ull);
	put(f, MSR_MTRR_DEF_TYPE, 0xc06);
	refuse(f, MSR_MTRR_DEF_TYPE, 0x1006);
	refuse(f, MSR_MTRRCAP, 0);
}

static void test_pat(void **state)
{
	assert_true(get(*state, MSR_PAT) == 0x0007040600070406ull);
	put(*state, MSR_PAT, 0x0407050600070106ull);
	refuse(*state, MSR_PAT, 0x0407050600070102ull);
}

static void test_tsc_and_adjust_move_together(void **state)
{
	struct fixture *f = *state;

	clock_set(&f->clock, 1000);
	assert_true(get(f, MSR_TSC) == 1000);
	assert_int_equal(msr_write(&f->v, MSR_TSC, 5000), MSR_OK);
	assert_true(get(f, MSR_TSC) == 5000);
	assert_true(get(f, MSR_TSC_ADJUST) == 4000);
	put(f, MSR_TSC_ADJUST, 0);
	assert_true(get(f, MSR_TSC) == 1000);
	clock_set(&f->clock, 1010);
	assert_true(get(f, MSR_TSC) == 1010);
}

static void test_machine_check_banks(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, MSR_MCG_CAP) & 0xff, MC_BANK_COUNT);
	put(f, MSR_MC0_CTL + 4 * (MC_BANK_COUNT - 1), ~0ull);
	put(f, MSR_MC0_CTL + 1, 0);
	refuse(f, MSR_MC0_CTL + 1, 1);
	refuse(f, MSR_MC0_CTL + 2, 1);
	assert_true(get(f, MSR_MC0_CTL + 3) == 0);
	put(f, MSR_MCG_STATUS, 0);
	refuse(f, MSR_MCG_STATUS, 1);
	uint64_t value;
	assert_int_equal(msr_read(&f->v, MSR_MC0_CTL + 4 * MC_BANK_COUNT, &value), MSR_UNHANDLED);
}

static void test_features_gate_registers(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	assert_true(get(f, MSR_ARCH_CAPABILITIES) & 1);
	f->model.has[FEATURE_ARCH_CAPABILITIES] = false;
	assert_int_equal(msr_read(&f->v, MSR_ARCH_CAPABILITIES, &value), MSR_UNHANDLED);
	put(f, MSR_TSC_AUX, 0xffffffff);
	refuse(f, MSR_TSC_AUX, 1ull << 32);
	put(f, MSR_SPEC_CTRL, 1);
	refuse(f, MSR_SPEC_CTRL, 8);
	assert_int_equal(msr_write(&f->v, MSR_PRED_CMD, 1), MSR_OK);
	f->model.has[FEATURE_SPEC_CTRL] = false;
	assert_int_equal(msr_write(&f->v, MSR_SPEC_CTRL, 1), MSR_UNHANDLED);
	assert_int_equal(msr_write(&f->v, MSR_PRED_CMD, 1), MSR_UNHANDLED);
}

static void test_apic_is_asked(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	assert_true(get(f, MSR_APIC_BASE) == 0x1234);
	assert_int_equal(msr_write(&f->v, 0x80b, 7), MSR_OK);
	assert_int_equal(f->last_index, 0x80b);
	assert_int_equal(f->last_value, 7);
	assert_int_equal(msr_read(&f->v, 0x8ff, &value), MSR_FAULT);
	assert_int_equal(msr_write(&f->v, 0x8ff, 0), MSR_FAULT);
	f->model.has[FEATURE_X2APIC] = false;
	assert_int_equal(msr_read(&f->v, 0x80b, &value), MSR_FAULT);
	f->model.has[FEATURE_TSC_DEADLINE] = false;
	assert_int_equal(msr_write(&f->v, MSR_TSC_DEADLINE, 1), MSR_FAULT);
}

static void test_floor_above_is_asked_last(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	assert_int_equal(msr_read(&f->v, 0x4b564d00, &value), MSR_UNHANDLED);
	f->v.msr_ops = &fake_msrs;
	f->v.msr_opaque = f;
	assert_true(get(f, 0x4b564d00) == 0x1234);
	assert_int_equal(msr_write(&f->v, 0x4b564d01, 9), MSR_OK);
	assert_int_equal(f->last_value, 9);
	assert_int_equal(msr_read(&f->v, 0xdead, &value), MSR_UNHANDLED);
	assert_int_equal(msr_write(&f->v, 0xdead, 0), MSR_UNHANDLED);
}

static void test_no_index_crashes(void **state)
{
	struct fixture *f = *state;
	uint64_t value;

	for (uint32_t i = 0; i < 0x2000; i++) {
		msr_read(&f->v, i, &value);
		msr_write(&f->v, i, i * 0x9e3779b97f4a7c15ull);
		msr_read(&f->v, 0xc0000000u + i, &value);
		msr_write(&f->v, 0xc0000000u + i, i * 0x9e3779b97f4a7c15ull);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_addresses_are_canonical, set_up),
		cmocka_unit_test_setup(test_canonical_follows_la57, set_up),
		cmocka_unit_test_setup(test_efer, set_up),
		cmocka_unit_test_setup(test_mtrrs, set_up),
		cmocka_unit_test_setup(test_pat, set_up),
		cmocka_unit_test_setup(test_tsc_and_adjust_move_together, set_up),
		cmocka_unit_test_setup(test_machine_check_banks, set_up),
		cmocka_unit_test_setup(test_features_gate_registers, set_up),
		cmocka_unit_test_setup(test_apic_is_asked, set_up),
		cmocka_unit_test_setup(test_floor_above_is_asked_last, set_up),
		cmocka_unit_test_setup(test_no_index_crashes, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
