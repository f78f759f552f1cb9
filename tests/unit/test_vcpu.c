/* RESET, INIT and start-up IPIs (SDM 3A table 9-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>
#include <cmocka.h>

#include "base/bits.h"
#include "base/error.h"
#include "clock/clock.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"

static unsigned apic_resets;

static void count_reset(void *opaque)
{
	apic_resets++;
}

static const struct apic_ops fake_apic = {.reset = count_reset};

static struct vcpu fresh(unsigned index, struct clock *clock, struct cpu_model *model)
{
	struct vcpu v = {.index = index, .clock = clock, .model = model};

	assert_int_equal(cpu_model_parse(model, "x86-64", NULL), 0);
	clock_init(clock, CLOCK_VIRTUAL, 1000000000);
	clock_set(clock, 500);
	memset(&v.state, 0xa5, sizeof(v.state));
	v.state.random_state = 42;
	vcpu_reset(&v);
	return v;
}

static void test_reset(void **state)
{
	struct clock clock;
	struct cpu_model model = {0};
	struct vcpu v = fresh(0, &clock, &model);
	const struct vcpu_state *s = &v.state;

	assert_true(s->seg[SEG_CS].base + s->rip == 0xfffffff0);
	assert_int_equal(s->seg[SEG_CS].selector, 0xf000);
	assert_true(vcpu_rflags(&v) == 2);
	assert_true(s->cr0 == 0x60000010);
	assert_true(s->gpr[GPR_RDX] == model.signature);
	assert_int_equal(s->gdtr.limit, 0xffff);
	assert_int_equal(s->tr.attributes & ATTR_TYPE, 0xb);
	assert_true(s->dr[6] == 0xffff0ff0 && s->dr[7] == 0x400);
	assert_int_equal(s->fpu.mxcsr, 0x1f80);
	assert_int_equal(s->fpu.fcw, 0x40);
	assert_int_equal(s->activity, ACTIVITY_RUNNING);
	assert_true(vcpu_tsc(&v) == 0);
	clock_set(&clock, 530);
	assert_true(vcpu_tsc(&v) == 30);
	assert_true(s->random_state == 42);
	assert_true(s->xcr0 == 1);
}

static void test_init_keeps_what_it_must(void **state)
{
	struct clock clock;
	struct cpu_model model = {0};
	struct vcpu v = fresh(0, &clock, &model);

	v.apic_ops = &fake_apic;
	v.state.mtrr_def_type = 0xc06;
	v.state.fpu.mxcsr = 0x1fa0;
	v.state.tsc_offset = 77;
	v.state.cr0 = CR0_PE | CR0_PG | CR0_CD;
	v.state.efer = EFER_LME | EFER_LMA;
	v.state.cr4 = CR4_PAE;
	v.state.gpr[GPR_RAX] = 1;
	v.state.rflags |= FLAG_IF;
	apic_resets = 0;
	vcpu_init_signal(&v);
	assert_int_equal(apic_resets, 1);
	assert_true(v.state.mtrr_def_type == 0xc06);
	assert_int_equal(v.state.fpu.mxcsr, 0x1fa0);
	assert_true(v.state.tsc_offset == 77);
	assert_true(v.state.cr0 == (CR0_CD | CR0_ET));
	assert_true(v.state.efer == 0 && v.state.cr4 == 0);
	assert_true(v.state.gpr[GPR_RAX] == 0);
	assert_true(vcpu_rflags(&v) == 2);
	assert_true(v.state.rip == 0xfff0);
	assert_int_equal(v.state.activity, ACTIVITY_RUNNING);
}

static void test_application_processor(void **state)
{
	struct clock clock;
	struct cpu_model model = {0};
	struct vcpu v = fresh(1, &clock, &model);

	assert_int_equal(v.state.activity, ACTIVITY_WAIT_SIPI);
	vcpu_sipi(&v, 0x9a);
	assert_int_equal(v.state.activity, ACTIVITY_RUNNING);
	assert_int_equal(v.state.seg[SEG_CS].selector, 0x9a00);
	assert_true(v.state.seg[SEG_CS].base == 0x9a000);
	assert_true(v.state.rip == 0);
	v.state.rip = 5;
	vcpu_sipi(&v, 0x10); /* already running: ignored */
	assert_true(v.state.rip == 5);
	vcpu_init_signal(&v);
	assert_int_equal(v.state.activity, ACTIVITY_WAIT_SIPI);
}

static void test_flags_are_kept_apart(void **state)
{
	struct vcpu v = {0};

	vcpu_set_rflags(&v, 0xffffffff);
	assert_int_equal(v.state.flags_of, 1);
	assert_int_equal(v.state.flags_low, 0xd7);
	assert_true(vcpu_rflags(&v) == 0xffffffff);
	vcpu_set_rflags(&v, 0);
	assert_true(vcpu_rflags(&v) == 2);
}

static void test_requests(void **state)
{
	struct vcpu v = {0};

	vcpu_request(&v, REQUEST_NMI);
	vcpu_request(&v, REQUEST_INTERRUPT);
	vcpu_withdraw(&v, REQUEST_NMI);
	assert_int_equal(v.requests, REQUEST_INTERRUPT);
}

/* What reset and INIT make passes; each broken rule is named. */
static void test_states_that_cannot_be(void **state)
{
	struct clock clock;
	struct cpu_model model = {0};
	struct vcpu v = fresh(0, &clock, &model);
	const struct vcpu_state good = v.state;
	struct vcpu_state *s = &v.state;
	struct error e = {0};
	assert_int_equal(vcpu_state_check(s, &model, &e), 0);

#define REFUSED(what, ...)                                              \
	do {                                                            \
		*s = good;                                              \
		__VA_ARGS__;                                            \
		assert_int_equal(vcpu_state_check(s, &model, &e), -22); \
		assert_non_null(strstr(e.text, what));                  \
	} while (0)
	REFUSED("CPL", s->cpl = 4);
	REFUSED("CPL", s->cpl = 1); /* in real mode */
	REFUSED("activity", s->activity = ACTIVITY_SHUTDOWN + 1);
	REFUSED("shadow", s->interrupt_shadow = 3);
	REFUSED("OF", s->flags_of = 2);
	REFUSED("pending", s->nmi_pending = 2);
	REFUSED("always 0", s->gpr[16] = 1);
	REFUSED("MXCSR", s->fpu.mxcsr = 0x10000);
	REFUSED("CR0", s->cr0 = CR0_PG);
	REFUSED("CR0", s->cr0 |= BIT(6));
	REFUSED("CR3", s->cr3 = BIT(model.physical_bits));
	REFUSED("CR4", s->cr4 = CR4_LA57); /* the model lacks it */
	REFUSED("EFER", s->efer = BIT(3));
	REFUSED("XCR0", s->xcr0 = XCR0_X87 | XCR0_AVX);
	REFUSED("XCR0", s->xcr0 = 0);
	REFUSED("long mode", s->efer = EFER_LME | EFER_LMA);
	REFUSED("8086", s->rflags |= FLAG_VM);
#undef REFUSED
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_init_keeps_what_it_must),
		cmocka_unit_test(test_application_processor),
		cmocka_unit_test(test_flags_are_kept_apart),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_states_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
