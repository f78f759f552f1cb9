/* Which instructions are charged as exits of a hardware-assisted VMM, and that nothing is without
 * one. */
#include "cpu/msr.h"
#include "machine.h"

struct exit_case {
	const char *name;
	uint8_t bytes[24];
	uint8_t length;
	uint64_t rax, rcx, rdx;
	enum event event;
	unsigned count;
};

static const struct exit_case cases[] = {
	{"cpuid", {0x0f, 0xa2}, 2, 0, 0, 0, EVENT_EXIT_CPUID, 1},
	{"mark", {0x0f, 0xa2}, 2, MARK_LEAF, 1, 0, EVENT_EXIT_CPUID, 0},
	{"hlt", {0x90}, 1, 0, 0, 0, EVENT_EXIT_HLT, 1},
	{"rdmsr pat", {0x0f, 0x32}, 2, 0, MSR_PAT, 0, EVENT_EXIT_MSR_READ, 1},
	{"rdmsr lstar", {0x0f, 0x32}, 2, 0, MSR_LSTAR, 0, EVENT_EXIT_MSR_READ, 0},
	{"rdmsr tsc", {0x0f, 0x32}, 2, 0, MSR_TSC, 0, EVENT_EXIT_MSR_READ, 0},
	{"wrmsr tsc", {0x0f, 0x30}, 2, 0, MSR_TSC, 0, EVENT_EXIT_MSR_WRITE, 1},
	{"wrmsr gs", {0x0f, 0x30}, 2, 0, MSR_KERNEL_GS_BASE, 0, EVENT_EXIT_MSR_WRITE, 0},
	{"wrmsr efer", {0x0f, 0x30}, 2, 0xd01, MSR_EFER, 0, EVENT_EXIT_MSR_WRITE, 1},
	{"clts", {0x0f, 0x06}, 2, 0, 0, 0, EVENT_EXIT_CR0_WRITE, 1},
	{"mov cr0", {0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0}, 6, 0, 0, 0, EVENT_EXIT_CR0_WRITE, 1},
	{"read cr0", {0x0f, 0x20, 0xc0}, 3, 0, 0, 0, EVENT_EXIT_CR_READ, 0},
	{"mov cr4", {0x0f, 0x22, 0xe0}, 3, CR4_PAE, 0, 0, EVENT_EXIT_CR4_WRITE, 1},
	{"mov cr8", {0x44, 0x0f, 0x22, 0xc0}, 4, 3, 0, 0, EVENT_EXIT_CR8_WRITE, 1},
	{"dr7", {0x0f, 0x21, 0xf8}, 3, 0, 0, 0, EVENT_EXIT_DR, 1},
	{"in", {0xe4, 0x80}, 2, 0, 0, 0, EVENT_EXIT_PORT_READ, 1},
	{"out", {0xe6, 0x80}, 2, 0, 0, 0, EVENT_EXIT_PORT_WRITE, 1},
	{"rep outsb", {0xf3, 0x6e}, 2, 0, 5, 0x80, EVENT_EXIT_PORT_WRITE, 5},
	{"wbinvd", {0x0f, 0x09}, 2, 0, 0, 0, EVENT_EXIT_WBINVD, 1},
	{"rdtsc", {0x0f, 0x31}, 2, 0, 0, 0, EVENT_EXIT_RDTSC, 0},
	{"vmcall", {0x0f, 0x01, 0xc1}, 3, 0, 0, 0, EVENT_EXIT_VMCALL, 1},
	{"one pause", {0xf3, 0x90}, 2, 0, 0, 0, EVENT_EXIT_PAUSE, 0},
};

static uint64_t run_case(struct machine *m, const struct exit_case *e)
{
	uint64_t before = ledger_total(&m->ledger, e->event);

	m->model.kvm_leaves = true;
	enter_long(m, 0);
	m->v.state.gpr[GPR_RAX] = e->rax;
	m->v.state.gpr[GPR_RCX] = e->rcx;
	m->v.state.gpr[GPR_RDX] = e->rdx;
	m->v.state.gpr[GPR_RSI] = DATA;
	poke(m, CODE, e->bytes, e->length);
	poke_value(m, CODE + e->length, 0xf4, 1);
	go(m);
	if (e->rax == MARK_LEAF)
		assert_int_equal(m->exit.reason, EXIT_MARK);
	else if (m->v.state.rip != CODE + e->length + 1)
		fail_msg("%s: stopped at %#llx", e->name, (unsigned long long)m->v.state.rip);
	return ledger_total(&m->ledger, e->event) - before;
}

static void test_charges(void **state)
{
	for (size_t n = 0; n < ARRAY_COUNT(cases); n++) {
		uint64_t count = run_case(*state, &cases[n]);
		if (count != cases[n].count)
			fail_msg("%s: %llu exits", cases[n].name, (unsigned long long)count);
	}
}

static void test_nothing_without_a_vmm(void **state)
{
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_COUNT(cases); n++)
		run_case(m, &cases[n]);
	assert_int_equal(ledger_group_total(&m->ledger, GROUP_EXIT), 0);
}

static void test_pause_loop(void **state)
{
	struct machine *m = *state;

	/* pause; dec rcx; jnz: 66 cycles a turn, so a window of 4096 is passed after 63 turns. */
	static const uint8_t loop[] = {0xf3, 0x90, 0x48, 0xff, 0xc9, 0x75, 0xf9, 0xf4};

	enter_long(m, 0);
	poke(m, CODE, loop, sizeof(loop));
	m->v.state.gpr[GPR_RCX] = 200;
	go(m);
	assert_halted_at(m, sizeof(loop));
	assert_int_equal(ledger_total(&m->ledger, EVENT_EXIT_PAUSE), 3);
	enter_long(m, 3); /* not ring 3's */
	poke(m, CODE, loop, sizeof(loop));
	m->v.state.gpr[GPR_RCX] = 200;
	go(m);
	assert_vector(m, VECTOR_GP);
	assert_int_equal(ledger_total(&m->ledger, EVENT_EXIT_PAUSE), 3);
}

static void test_hypercalls_without_kvm_leaves(void **state)
{
	struct machine *m = *state;

	enter_long(m, 0);
	run_code(m, 0x0f, 0x01, 0xc1);
	assert_vector(m, VECTOR_UD);
}

#define T(name) cmocka_unit_test_setup_teardown(name, machine_create_nested, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_charges),
		cmocka_unit_test_setup_teardown(test_nothing_without_a_vmm, machine_create,
						machine_destroy),
		T(test_pause_loop),
		T(test_hypercalls_without_kvm_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
