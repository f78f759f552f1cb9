/*
 * What the differential test cannot ask the host: instructions that the model does not offer,
 * control registers that forbid them, and more stubs than there is room for. Same guest as the
 * differential test.
 */
#include "diff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include "cpu/vcpu.h"

#include <cmocka.h>

struct code {
	uint8_t bytes[16];
	unsigned length;
};

#define CODE_OF(...) ((struct code){{__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})})
#define RIP (CODE + 0x100)

static const char *engine; /* the group's */

static struct test_state initial(void)
{
	struct test_state s = {.rip = RIP, .rflags = 0x202, .mxcsr = 0x1f80, .x87.fcw = 0x37f};
	s.gpr[GPR_RSP] = DATA + 0x800;
	s.gpr[GPR_RSI] = DATA + 0x400;
	return s;
}

static struct test_state run(struct guest *guest, struct code code, struct test_state s)
{
	struct test_state out;
	uint8_t bytes[20];
	memset(bytes, 0xcc, sizeof(bytes));
	memcpy(bytes, code.bytes, code.length);
	guest_set_code(guest, RIP, bytes, sizeof(bytes));
	guest_run(guest, &s, 64, &out);
	return out;
}

static unsigned vector_of(struct guest *guest, struct code code)
{
	return run(guest, code, initial()).vector;
}

static struct guest *guest_of(const char *cpu)
{
	struct guest *guest = NULL;
	assert_int_equal(guest_create(&guest, engine, cpu, 1), 0);
	return guest;
}

static void test_not_offered(void **state)
{
	(void)state;
	struct guest *guest = guest_of("x86-64");
	assert_int_equal(vector_of(guest, CODE_OF(0xf3, 0x0f, 0xb8, 0xc1)), VECTOR_UD); /* popcnt */
	assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x38, 0xf0, 0x06)), VECTOR_UD); /* movbe */
	assert_int_equal(vector_of(guest, CODE_OF(0xc4, 0xe2, 0x70, 0xf2, 0xc1)),
			 VECTOR_UD);							/* andn */
	assert_int_equal(vector_of(guest, CODE_OF(0xc5, 0xf0, 0x58, 0xc1)), VECTOR_UD); /* vaddps */
	assert_int_equal(vector_of(guest, CODE_OF(0x66, 0x0f, 0x38, 0x00, 0xc1)),
			 VECTOR_UD);						 /* pshufb */
	assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x58, 0xc1)), NO_FAULT); /* addps */
	guest_destroy(guest);
}

static void test_never_offered(void **state)
{
	(void)state;
	struct guest *guest = guest_of("max");
	/* AVX-512, XOP, 3DNow!, XBEGIN, VMCALL, RDPKRU, UD2. */
	assert_int_equal(vector_of(guest, CODE_OF(0x62, 0xf1, 0x74, 0x48, 0x58, 0xc1)), VECTOR_UD);
	assert_int_equal(vector_of(guest, CODE_OF(0x8f, 0xe8, 0x78, 0xa2, 0xc1, 0x10)), VECTOR_UD);
	assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x0f, 0xc1, 0x9e)), VECTOR_UD);
	assert_int_equal(vector_of(guest, CODE_OF(0xc7, 0xf8, 0, 0, 0, 0)), VECTOR_UD);
	assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x01, 0xc1)), VECTOR_UD);
	assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x01, 0xee)), VECTOR_UD);
	assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x0b)), VECTOR_UD);
	guest_destroy(guest);
}

static void test_hints(void **state)
{
	(void)state;
	struct guest *guest = guest_of("x86-64");
	/* ENDBR64, RDSSPQ, BNDMK, PREFETCHW, CLDEMOTE: at an address that nobody may touch. */
	struct test_state s = initial();
	s.gpr[GPR_RSI] = 0;
	assert_int_equal(run(guest, CODE_OF(0xf3, 0x0f, 0x1e, 0xfa), s).vector, NO_FAULT);
	assert_int_equal(run(guest, CODE_OF(0xf3, 0x48, 0x0f, 0x1e, 0xc8), s).vector, NO_FAULT);
	assert_int_equal(run(guest, CODE_OF(0xf3, 0x0f, 0x1b, 0x06), s).vector, NO_FAULT);
	assert_int_equal(run(guest, CODE_OF(0x0f, 0x0d, 0x0e), s).vector, NO_FAULT);
	assert_int_equal(run(guest, CODE_OF(0x0f, 0x1c, 0x06), s).vector, NO_FAULT);
	guest_destroy(guest);
}

/* LZCNT and TZCNT are BSR and BSF with a prefix that older processors ignore. */
static void test_prefix_ignored(void **state)
{
	(void)state;
	struct guest *old = guest_of("x86-64");
	struct test_state s = initial();
	s.gpr[GPR_RCX] = 0x50;
	s.gpr[GPR_RAX] = 77;
	assert_int_equal(run(old, CODE_OF(0xf3, 0x0f, 0xbd, 0xc1), s).gpr[GPR_RAX], 6);
	assert_int_equal(run(old, CODE_OF(0xf3, 0x0f, 0xbc, 0xc1), s).gpr[GPR_RAX], 4);
	s.gpr[GPR_RCX] = 0;
	assert_int_equal(run(old, CODE_OF(0xf3, 0x0f, 0xbc, 0xc1), s).gpr[GPR_RAX], 77);
	guest_destroy(old);
}

static void test_control_registers(void **state)
{
	(void)state;
	static const struct {
		uint64_t cr0, cr4_off, xcr0_off;
		unsigned x87, mmx, sse, avx, fwait;
	} rows[] = {
		{0, 0, 0, NO_FAULT, NO_FAULT, NO_FAULT, NO_FAULT, NO_FAULT},
		{CR0_TS, 0, 0, VECTOR_NM, VECTOR_NM, VECTOR_NM, VECTOR_NM, VECTOR_NM},
		{CR0_EM, 0, 0, VECTOR_NM, VECTOR_UD, VECTOR_UD, NO_FAULT, NO_FAULT},
		{0, CR4_OSFXSR, 0, NO_FAULT, NO_FAULT, VECTOR_UD, NO_FAULT, NO_FAULT},
		{0, CR4_OSXSAVE, 0, NO_FAULT, NO_FAULT, NO_FAULT, VECTOR_UD, NO_FAULT},
		{0, 0, XCR0_AVX, NO_FAULT, NO_FAULT, NO_FAULT, VECTOR_UD, NO_FAULT},
	};
	struct guest *guest = guest_of("max");
	struct vcpu_state *s = &guest_vcpu(guest)->state;
	uint64_t cr0 = s->cr0, cr4 = s->cr4, xcr0 = s->xcr0;
	for (unsigned k = 0; k < ARRAY_COUNT(rows); k++) {
		s->cr0 = cr0 | rows[k].cr0;
		s->cr4 = cr4 & ~rows[k].cr4_off;
		s->xcr0 = xcr0 & ~rows[k].xcr0_off;
		assert_int_equal(vector_of(guest, CODE_OF(0xd9, 0xe8)), rows[k].x87);
		assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0xfc, 0xc1)), rows[k].mmx);
		assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x58, 0xc1)), rows[k].sse);
		assert_int_equal(vector_of(guest, CODE_OF(0x0f, 0x28, 0x06)), rows[k].sse);
		assert_int_equal(vector_of(guest, CODE_OF(0x9b)), rows[k].fwait);
		if (xcr0 & XCR0_AVX) {
			assert_int_equal(vector_of(guest, CODE_OF(0xc5, 0xf0, 0x58, 0xc1)),
					 rows[k].avx);
			assert_int_equal(vector_of(guest, CODE_OF(0xc5, 0xf8, 0x10, 0x06)),
					 rows[k].avx);
		}
	}
	guest_destroy(guest);
}

/* #XM needs CR4.OSXMMEXCPT, without it the exception is #UD. */
static void test_xm(void **state)
{
	(void)state;
	struct guest *guest = guest_of("x86-64");
	struct test_state s = initial();
	s.mxcsr = 0x1d80; /* division by zero unmasked */
	memcpy(s.ymm[0], &(float){1}, 4);
	assert_int_equal(run(guest, CODE_OF(0xf3, 0x0f, 0x5e, 0xc1), s).vector, VECTOR_XM);
	guest_vcpu(guest)->state.cr4 &= ~CR4_OSXMMEXCPT;
	struct test_state out = run(guest, CODE_OF(0xf3, 0x0f, 0x5e, 0xc1), s);
	assert_int_equal(out.vector, VECTOR_UD);
	assert_int_equal(out.mxcsr, 0x1d84);
	assert_memory_equal(out.ymm[0], s.ymm[0], 32);
	guest_destroy(guest);
}

/* More distinct instructions than stubs fit: all blocks and stubs are dropped and made again. */
static void test_many_stubs(void **state)
{
	(void)state;
	struct guest *guest = guest_of("x86-64");
	struct test_state s = initial();
	for (unsigned r = 0; r < 16; r++)
		for (unsigned k = 0; k < 16; k++)
			s.ymm[r][k] = (uint8_t)(0x11 * (k / 4) + r);
	for (unsigned n = 0; n < 70000; n++) {
		unsigned imm = n & 255, to = n >> 8 & 15, from = n >> 12 & 15;
		/* pshufd, and pshufhw when those have been through */
		struct code code = {{n < 65536 ? 0x66 : 0xf3,
				     (uint8_t)(0x40 | to >> 3 << 2 | from >> 3), 0x0f, 0x70,
				     (uint8_t)(0xc0 | (to & 7) << 3 | (from & 7)), (uint8_t)imm},
				    6};
		struct test_state out = run(guest, code, s);
		assert_int_equal(out.vector, NO_FAULT);
		for (unsigned k = 0; k < 16 && n < 65536; k++)
			assert_int_equal(out.ymm[to][k], 0x11 * (imm >> 2 * (k / 4) & 3) + from);
	}
	guest_destroy(guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_offered),
		cmocka_unit_test(test_never_offered),
		cmocka_unit_test(test_hints),
		cmocka_unit_test(test_prefix_ignored),
		cmocka_unit_test(test_control_registers),
		cmocka_unit_test(test_xm),
		cmocka_unit_test(test_many_stubs),
	};
	engine = "interp";
	int failed = cmocka_run_group_tests_name("interp", tests, NULL, NULL);
	engine = "trans";
	return failed + cmocka_run_group_tests_name("trans", tests, NULL, NULL);
}
