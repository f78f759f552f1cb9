/*
 * The machine as a whole, with guests of a few bytes in real mode: how runs end, that time and
 * turns repeat, that two machines in one process do not know of each other.
 */
#include <gnomon/mark.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/host_time.h"
#include "cpu/exit.h"
#include "cpu/vcpu.h"
#include "hw/hw.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "vm/vm.h"

#include <cmocka.h>

#define PROGRAM_BYTES 512

struct guest {
	struct vm *vm;
	char file[32];
};

/* A raw image at 7c00. */
static void write_program(char file[32], const uint8_t *code, size_t size)
{
	uint8_t image[PROGRAM_BYTES] = {0};
	memcpy(image, code, size);
	image[510] = 0x55;
	image[511] = 0xaa;
	strcpy(file, "/tmp/gnomon-vm-XXXXXX");
	int fd = mkstemp(file);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, image, sizeof(image)), sizeof(image));
	close(fd);
}

static void configure(struct guest *g, struct vm_config *c)
{
	vm_config_defaults(c);
	c->kernel = g->file;
	c->kernel_format = BOOT_FORMAT_RAW;
	c->memory_bytes = 4 << 20;
	c->timeout_ms = 60000;
}

static void make(struct guest *g, const struct vm_config *c)
{
	struct error e = {0};
	if (vm_create(&g->vm, c, &e))
		fail_msg("%s", e.text);
}

static void finish(struct guest *g)
{
	vm_destroy(g->vm);
	unlink(g->file);
}

/* Makes, runs, takes down. */
static struct vm_outcome run_program(const uint8_t *code, size_t size,
				     void (*change)(struct vm_config *))
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o;
	write_program(g.file, code, size);
	configure(&g, &c);
	if (change)
		change(&c);
	make(&g, &c);
	vm_run(g.vm, &o);
	finish(&g);
	return o;
}

#define RUN(code, change) run_program(code, sizeof(code), change)

/* ---- how runs end ---- */

static const uint8_t code_debug_exit[] = {
	0xba, 0xf4, 0x00, 0xb0, 0x2a, 0xee, 0xf4}; /* mov dx, f4h; mov al, 2ah; out dx, al */
static const uint8_t code_halt[] = {0xfa, 0xf4, 0xeb, 0xfd}; /* cli; hlt; jmp -1 */
static const uint8_t code_spin[] = {0xfa, 0xeb, 0xfe};	     /* cli; jmp $ */
static const uint8_t code_triple[] = {0x0f, 0x01, 0x1e,
				      0x00, 0x7d, 0xcc}; /* lidt [7d00h] (zeroes); int3 */
static const uint8_t code_reset[] = {0xb0, 0xfe, 0xe6, 0x64, 0xf4}; /* mov al, feh; out 64h, al */
static const uint8_t code_power_off[] = {
	0xba, 0x04, 0x06, 0xb8,
	0x00, 0x34, 0xef, 0xf4}; /* mov dx, 604h; mov ax, 3400h; out dx, ax */
static const uint8_t code_print[] = {0xba, 0xf8, 0x03, 0xb0, 'o', 0xee,
				     0xb0, 'k',	 0xee, 0xeb, 0xfe};

static void no_reboot(struct vm_config *c)
{
	c->no_reboot = true;
}

static void limit_instructions(struct vm_config *c)
{
	c->max_instructions = 12345;
}

static void limit_time(struct vm_config *c)
{
	c->timeout_ms = 50;
}

static void limit_time_real(struct vm_config *c)
{
	c->timeout_ms = 50;
	c->clock = CLOCK_REAL;
}

static void stop_at_ok(struct vm_config *c)
{
	c->stop_at = "ok";
}

static void stop_unhandled(struct vm_config *c)
{
	c->unhandled = UNHANDLED_STOP;
}

static void test_ends(void **state)
{
	static const uint8_t code_unknown_port[] = {0xba, 0x34, 0x92, 0xec,
						    0xeb, 0xfe}; /* mov dx, 9234h; in al, dx */
	struct vm_outcome o = RUN(code_debug_exit, NULL);
	assert_int_equal(o.end, VM_END_DEBUG_EXIT);
	assert_int_equal(o.detail, 0x2a);
	assert_int_equal(RUN(code_halt, NULL).end, VM_END_HALTED);
	assert_int_equal(RUN(code_triple, NULL).end, VM_END_TRIPLE_FAULT);
	assert_int_equal(RUN(code_reset, no_reboot).end, VM_END_RESET);
	assert_int_equal(RUN(code_power_off, NULL).end, VM_END_POWER_OFF);
	assert_int_equal(RUN(code_spin, limit_instructions).end, VM_END_INSTRUCTIONS);
	assert_int_equal(RUN(code_spin, limit_time).end, VM_END_TIMEOUT);
	assert_int_equal(RUN(code_spin, limit_time_real).end, VM_END_TIMEOUT);
	assert_int_equal(RUN(code_reset, limit_time).end,
			 VM_END_TIMEOUT); /* boots again and again */
	assert_int_equal(RUN(code_print, stop_at_ok).end, VM_END_STOP_AT);
	assert_int_equal(RUN(code_unknown_port, stop_unhandled).end, VM_END_UNHANDLED);
	assert_int_equal(RUN(code_unknown_port, limit_instructions).end, VM_END_INSTRUCTIONS);
}

static void test_instruction_limit_is_exact(void **state)
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o;
	write_program(g.file, code_spin, sizeof(code_spin));
	configure(&g, &c);
	c.max_instructions = 1000003;
	make(&g, &c);
	vm_run(g.vm, &o);
	assert_int_equal(o.end, VM_END_INSTRUCTIONS);
	assert_int_equal(vm_instructions(g.vm), 1000003);
	finish(&g);
}

/* ---- time ---- */

/*
 * Counts timer interrupts of the PIT (mode 2, 65536 ticks) in the word at 8000h; debug exit
 *after 5.
 *
 *	cli; xor ax, ax; mov ds, ax; mov [8000h], ax
 *	mov word [20h], handler; mov [22h], ax		vector 8
 *	mov al, 11h; out 20h, al; mov al, 8; out 21h, al; mov al, 4; out 21h, al; mov al, 1; out
 *21h, al mov al, feh; out 21h, al			only IRQ 0 mov al, 34h; out 43h, al; xor al,
 *al; out 40h, al; out 40h, al sti; wait: hlt; jmp wait handler: inc word [8000h]; mov al, 20h; out
 *20h, al; cmp word [8000h], 5; jb done; mov al, 7; mov dx, f4h; out dx, al done:	iret
 */
static const uint8_t code_timer[] = {
	0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xa3, 0x00, 0x80, 0xc7, 0x06, 0x20, 0x00, 0x33, 0x7c, 0xa3,
	0x22, 0x00, 0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21, 0xb0, 0x04, 0xe6, 0x21, 0xb0,
	0x01, 0xe6, 0x21, 0xb0, 0xfe, 0xe6, 0x21, 0xb0, 0x34, 0xe6, 0x43, 0x30, 0xc0, 0xe6, 0x40,
	0xe6, 0x40, 0xfb, 0xf4, 0xeb, 0xfd, 0xff, 0x06, 0x00, 0x80, 0xb0, 0x20, 0xe6, 0x20, 0x83,
	0x3e, 0x00, 0x80, 0x05, 0x72, 0x06, 0xb0, 0x07, 0xba, 0xf4, 0x00, 0xee, 0xcf,
};

static void test_idle_time_is_skipped(void **state)
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o;
	write_program(g.file, code_timer, sizeof(code_timer));
	configure(&g, &c);
	make(&g, &c);
	vm_run(g.vm, &o);
	assert_int_equal(o.end, VM_END_DEBUG_EXIT);
	assert_int_equal(o.detail, 7);
	/* The output rises when the mode is set: the first interrupt. Then four periods of 54.9 ms.
	 */
	uint64_t ns = clock_ns_from_cycles(vm_clock(g.vm), clock_now(vm_clock(g.vm)));
	assert_in_range(ns, 219000000, 221000000);
	assert_in_range(vm_instructions(g.vm), 20, 200);
	finish(&g);
}

static uint64_t cpu_time_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* In real time a processor that waits in HLT sleeps until the timer's interrupt is due. */
static void test_idle_sleeps_in_real_time(void **state)
{
	static const char *const engines[] = {"interp", "trans"};
	for (unsigned k = 0; k < 2; k++) {
		struct guest g;
		struct vm_config c;
		struct vm_outcome o;
		write_program(g.file, code_timer, sizeof(code_timer));
		configure(&g, &c);
		c.engine = engines[k];
		c.clock = CLOCK_REAL;
		make(&g, &c);
		uint64_t start_ns = host_time_ns(), cpu_ns = cpu_time_ns();
		vm_run(g.vm, &o);
		uint64_t took_ns = host_time_ns() - start_ns;
		cpu_ns = cpu_time_ns() - cpu_ns;
		assert_int_equal(o.end, VM_END_DEBUG_EXIT);
		assert_true(took_ns > 219000000);
		assert_true(cpu_ns < took_ns / 10);
		assert_in_range(vm_instructions(g.vm), 20, 200);
		finish(&g);
	}
}

static void run_hashed(const char *paging, unsigned cpus, uint64_t pieces, char hash[33])
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o = {.end = VM_END_NONE};
	struct error e = {0};
	write_program(g.file, code_timer, sizeof(code_timer));
	configure(&g, &c);
	c.paging = paging;
	c.cpu_count = cpus;
	make(&g, &c);
	while (pieces && o.end == VM_END_NONE)
		vm_run_for(g.vm, pieces, &o);
	if (!pieces)
		vm_run(g.vm, &o);
	assert_int_equal(o.end, VM_END_DEBUG_EXIT);
	assert_int_equal(vm_state_hash(g.vm, hash, &e), 0);
	finish(&g);
}

static void test_runs_repeat(void **state)
{
	char first[33], other[33];
	run_hashed("native", 1, 0, first);
	run_hashed("native", 1, 0, other);
	assert_string_equal(first, other);
	/* n and then m instructions are n + m. */
	for (uint64_t pieces = 1; pieces < 12; pieces += 5) {
		run_hashed("native", 1, pieces, other);
		assert_string_equal(first, other);
	}
	run_hashed("nested", 1, 0, other);
	assert_string_equal(first, other);
	run_hashed("shadow", 1, 0, other);
	assert_string_equal(first, other);
	run_hashed("native", 3, 0, first);
	run_hashed("native", 3, 0, other);
	assert_string_equal(first, other);
}

/* ---- two machines ---- */

static void test_two_machines(void **state)
{
	struct guest a, b;
	struct vm_config c;
	struct vm_outcome oa, ob;
	char alone[33], beside[33];
	struct error e = {0};
	run_hashed("nested", 1, 0, alone);
	write_program(a.file, code_timer, sizeof(code_timer));
	write_program(b.file, code_print, sizeof(code_print));
	configure(&a, &c);
	make(&a, &c);
	struct vm_config c2;
	configure(&b, &c2);
	c2.stop_at = "ok";
	c2.cpu_count = 2;
	make(&b, &c2);
	do {
		vm_run_for(a.vm, 7, &oa);
		vm_run_for(b.vm, 1, &ob);
	} while (oa.end == VM_END_NONE);
	assert_int_equal(oa.end, VM_END_DEBUG_EXIT);
	assert_int_equal(ob.end, VM_END_STOP_AT);
	assert_int_equal(vm_console_bytes(a.vm), 0);
	assert_int_equal(vm_console_bytes(b.vm), 2);
	assert_int_equal(vm_state_hash(a.vm, beside, &e), 0);
	assert_string_equal(alone, beside);
	finish(&a);
	finish(&b);
}

/* ---- regions and traces ---- */

/* mark 1; port read; mark 2; port read; debug exit. A mark is CPUID with EAX = 474E4F4Dh and ECX.
 */
static const uint8_t code_marks[] = {
	0x66, 0xb9, 1,	  0,	0,    0,    0x66, 0xb8, 0x4d, 0x4f, 0x4e, 0x47, 0x0f,
	0xa2, 0xe4, 0x80, 0x66, 0xb9, 2,    0,	  0,	0,    0x66, 0xb8, 0x4d, 0x4f,
	0x4e, 0x47, 0x0f, 0xa2, 0xe4, 0x80, 0xba, 0xf4, 0x00, 0xb0, 0x01, 0xee, 0xf4,
};

/* The header that guest programs include says what the machine listens to. */
_Static_assert(GNOMON_MARK_LEAF == MARK_LEAF, "the leaf");
_Static_assert(GNOMON_MARK_BEGIN == VM_MARK_BEGIN, "what begins a region");
_Static_assert(GNOMON_MARK_END == VM_MARK_END, "what ends a region");

static void test_marks_are_harmless_elsewhere(void **state)
{
	assert_false(gnomon_mark(GNOMON_MARK_BEGIN));
	assert_false(gnomon_mark(7));
	gnomon_region_begin();
	gnomon_region_end();
}

static void test_regions(void **state)
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o;
	struct ledger inside;
	write_program(g.file, code_marks, sizeof(code_marks));
	configure(&g, &c);
	c.trace_exits = 4;
	make(&g, &c);
	assert_false(vm_region_ledger(g.vm, 0, &inside));
	vm_run(g.vm, &o);
	assert_int_equal(o.end, VM_END_DEBUG_EXIT);
	assert_true(vm_region_ledger(g.vm, 0, &inside));
	assert_int_equal(ledger_total(&inside, EVENT_EXIT_PORT_READ), 1);
	assert_int_equal(ledger_total(vm_ledger(g.vm, 0), EVENT_EXIT_PORT_READ), 2);
	struct vm_traced_exit t;
	assert_true(vm_trace(g.vm, 0, 0, &t));
	assert_int_equal(t.event, EVENT_EXIT_PORT_WRITE);
	assert_false(vm_trace(g.vm, 0, 4, &t));
	finish(&g);
}

static void region_by_count(struct vm_config *c)
{
	c->region_from = 1000;
	c->region_to = 3500;
	c->ends_with_region = true;
}

static void test_region_by_instructions(void **state)
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o;
	struct ledger inside;
	write_program(g.file, code_spin, sizeof(code_spin));
	configure(&g, &c);
	region_by_count(&c);
	make(&g, &c);
	vm_run(g.vm, &o);
	assert_int_equal(o.end, VM_END_REGION);
	assert_int_equal(vm_instructions(g.vm), 3500);
	assert_true(vm_region_ledger(g.vm, 0, &inside));
	assert_int_equal(ledger_total(&inside, EVENT_INSTRUCTION), 2500);
	finish(&g);
}

static void test_region_by_text(void **state)
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o;
	struct ledger inside;
	write_program(g.file, code_print, sizeof(code_print));
	configure(&g, &c);
	c.region_from_text = "o";
	c.region_to_text = "k";
	c.ends_with_region = true;
	make(&g, &c);
	vm_run(g.vm, &o);
	assert_int_equal(o.end, VM_END_REGION);
	assert_true(vm_region_ledger(g.vm, 0, &inside));
	assert_int_equal(ledger_total(&inside, EVENT_EXIT_PORT_WRITE), 1);
	finish(&g);
}

/* Schemes that differ in nothing that happens share a simulation, and each has its own bill. */
static void test_schemes(void **state)
{
	struct guest g;
	struct vm_config c;
	struct vm_outcome o;
	struct ledger l;
	write_program(g.file, code_marks, sizeof(code_marks));
	configure(&g, &c);
	c.paging = "native";
	c.observers[c.observer_count++] = (struct vm_scheme){"nested", c.profile};
	c.observers[c.observer_count++] = (struct vm_scheme){"nested:host-page=4K", c.profile};
	c.observers[c.observer_count++] = (struct vm_scheme){"shadow", "k10-2350"};
	make(&g, &c);
	assert_int_equal(vm_scheme_count(g.vm), 4);
	assert_string_equal(vm_scheme_paging(g.vm, 2), "nested");
	assert_string_equal(vm_scheme_profile(g.vm, 3)->name, "k10-2350");
	assert_false(vm_scheme_is_virtualized(g.vm, 0));
	assert_true(vm_scheme_is_virtualized(g.vm, 3));
	assert_null(mmu_observer(vm_mmu(g.vm, 0), 2));
	assert_false(vm_scheme_ledger(g.vm, 1, 0, true, &l));
	vm_run(g.vm, &o);
	assert_int_equal(o.end, VM_END_DEBUG_EXIT);
	for (unsigned i = 0; i < vm_scheme_count(g.vm); i++) {
		assert_true(vm_scheme_ledger(g.vm, i, 0, true, &l));
		assert_int_equal(ledger_total(&l, EVENT_EXIT_PORT_READ), 1);
		assert_true(vm_scheme_ledger(g.vm, i, 0, false, &l));
		assert_int_equal(ledger_total(&l, EVENT_EXIT_PORT_READ), 2);
	}
	finish(&g);
}

/* ---- bad configurations leave nothing behind ---- */

static void test_refusals(void **state)
{
	struct guest g;
	struct vm_config c;
	struct error e = {0};
	write_program(g.file, code_halt, sizeof(code_halt));
	configure(&g, &c);
	c.kernel = "/no/such/kernel";
	assert_int_not_equal(vm_create(&g.vm, &c, &e), 0);
	assert_non_null(strstr(e.text, "/no/such/kernel"));
	c.kernel = g.file;
	c.paging = "origami";
	assert_int_not_equal(vm_create(&g.vm, &c, &e), 0);
	assert_non_null(strstr(e.text, "origami"));
	c.paging = "native";
	c.profile = "abacus";
	assert_int_not_equal(vm_create(&g.vm, &c, &e), 0);
	assert_non_null(strstr(e.text, "abacus"));
	c.profile = "skylake-sp";
	c.cpu = "z80";
	assert_int_not_equal(vm_create(&g.vm, &c, &e), 0);
	assert_non_null(strstr(e.text, "z80"));
	vm_destroy(NULL);
	unlink(g.file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_instruction_limit_is_exact),
		cmocka_unit_test(test_idle_time_is_skipped),
		cmocka_unit_test(test_idle_sleeps_in_real_time),
		cmocka_unit_test(test_runs_repeat),
		cmocka_unit_test(test_two_machines),
		cmocka_unit_test(test_marks_are_harmless_elsewhere),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_region_by_instructions),
		cmocka_unit_test(test_region_by_text),
		cmocka_unit_test(test_schemes),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
