/*
 * `agile`: which tables are walked how, what a walk refers to by the level of its switch, and that
 * writes to tables in flux cost no exits.
 */
#include "shadow_lab.h"

#define INTERVAL 10000u

static void agile_start(struct lab *l)
{
	map(l, AT, PAGE, RW);
	share_space(l);
	lab_start(l, "agile:interval=10000");
}

/* Time passes. */
static void pass(struct lab *l)
{
	ledger_charge_many(&l->w.ledger, EVENT_INSTRUCTION, INTERVAL);
}

/* One miss of AT's page; its references. */
static void refers(struct lab *l, uint64_t shadow, uint64_t guest, uint64_t host)
{
	uint64_t s = 0, g = 0, h = 0;
	mmu_invlpg(l->mmu, gva(AT));
	mark(l);
	assert_true(touch(l, AT, ACCESS_READ, MMU_SUPERVISOR, NULL));
	for (unsigned level = 0; level < 5; level++) {
		s += counted(l, (enum event)(EVENT_WALK_S1 + level));
		g += counted(l, (enum event)(EVENT_WALK_G1 + level));
		h += counted(l, (enum event)(EVENT_WALK_H1 + level));
	}
#ifndef GNOMON_HARD
	if (s != shadow || g != guest || h != host)
		fail_msg("%llu shadow, %llu guest, %llu host references", (unsigned long long)s,
			 (unsigned long long)g, (unsigned long long)h);
#endif
}

/* Enough misses that a clean table is worth a shadow. */
static void use(struct lab *l)
{
	for (unsigned i = 0; i < 40; i++) {
		mmu_invlpg(l->mmu, gva(AT));
		assert_true(touch(l, AT, ACCESS_READ, MMU_SUPERVISOR, NULL));
	}
	pass(l);
	mmu_invlpg(l->mmu, gva(AT)); /* the next miss looks at the time */
	assert_true(touch(l, AT, ACCESS_READ, MMU_SUPERVISOR, NULL));
}

static void new_tables_are_nested(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	agile_start(&l);
	reads(&l, AT, PAGE);
	refers(&l, 0, 4, 20);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	faults(&l, AT + 0x1000, ACCESS_READ, MMU_USER, PF_U);
	counts(&l, EVENT_EXIT_PF_TRUE, 0);
	write_cr3(&l, ROOT2);
	counts(&l, EVENT_EXIT_CR3_WRITE, 0);
	lab_stop(&l);
	world_close(&l.w);
}

static void clean_tables_get_shadows(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	agile_start(&l);
	use(&l);
	mmu_invlpg(l.mmu, gva(AT));
	mark(&l);
	reads(&l, AT, PAGE);
	refers(&l, 4, 0, 0);
	/* D is the hardware's to set, without an exit. */
	mark(&l);
	assert_true(touch(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	assert_true(entry_value(&l, AT, 1) & PTE_D);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	counts(&l, EVENT_AD_UPDATE, 1);
	lab_stop(&l);
	world_close(&l.w);
}

static void written_tables_are_nested_again(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	agile_start(&l);
	uint64_t w = window(&l, AT, 1);
	use(&l);
	reads(&l, AT, PAGE);
	refers(&l, 4, 0, 0);
	mark(&l);
	for (uint64_t i = 1; i < 20; i++)
		store_entry(&l, w + i * 8, PAGE | RW);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 2);
	counts(&l, EVENT_PAGING_SWITCH, 1);
	refers(&l, 3, 1, 4);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0); /* the switch was made where the pointer was */
	reads(&l, AT + 5 * 4096, PAGE);
	/* Use without a write brings the shadow back, but not as little of it as the first time. */
	pass(&l);
	reads(&l, AT, PAGE);
	use(&l);
	refers(&l, 3, 1, 4);
	use(&l);
	reads(&l, AT, PAGE);
	refers(&l, 4, 0, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* A shadow is built with what the guest has accessed, by no exit, and its pages are in the host's
 * table, too. */
static void a_shadow_comes_without_faults(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	for (uint64_t at = 0; at < 0x20000; at += 0x1000)
		map(&l, AT + at, PAGE + at, RW | (at < 0x10000 ? PTE_A | PTE_D : 0));
	agile_start(&l);
	uint64_t w = window(&l, AT, 1);
	mark(&l);
	use(&l);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	counts(&l, EVENT_PAGING_SWITCH, 1);
	for (uint64_t at = 0x1000; at < 0x10000; at += 0x1000)
		reads(&l, AT + at, PAGE + at);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	for (uint64_t i = 0x100; i < 0x102; i++)
		store_entry(&l, w + i * 8, 0);
	refers(&l, 3, 1, 4);
	mark(&l);
	mmu_invlpg(l.mmu, gva(AT + 0xf000));
	reads(&l, AT + 0xf000, PAGE + 0xf000);
	counts(&l, EVENT_EXIT_NESTED_VIOLATION, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* CR3 writes leave global pages in the TLB, whether a table is walked or its shadow, unless CR4.PGE
 * is off. */
static void global_pages_survive_cr3_writes(void **state)
{
	for (unsigned is_shadowed = 0; is_shadowed < 2; is_shadowed++) {
		struct lab l;
		lab_open(&l, WORLD_4LEVEL);
		map(&l, AT, PAGE, RW | PTE_G);
		map(&l, AT + 0x1000, PAGE + 0x1000, RW);
		share_space(&l);
		lab_start(&l, "agile:interval=10000");
		write_controls(&l, l.w.vcpu.state.cr0, l.w.vcpu.state.cr4 | CR4_PGE);
		if (is_shadowed)
			use(&l);
		reads(&l, AT, PAGE);
		reads(&l, AT + 0x1000, PAGE + 0x1000);
		write_cr3(&l, ROOT2);
		mark(&l);
		reads(&l, AT, PAGE);
		counts(&l, EVENT_TLB_MISS, 0);
		reads(&l, AT + 0x1000, PAGE + 0x1000);
		counts(&l, EVENT_TLB_MISS, 1);
		write_controls(&l, l.w.vcpu.state.cr0, l.w.vcpu.state.cr4 & ~CR4_PGE);
		reads(&l, AT, PAGE);
		write_cr3(&l, ROOT2);
		mark(&l);
		reads(&l, AT, PAGE);
		counts(&l, EVENT_TLB_MISS, 1);
		lab_stop(&l);
		world_close(&l.w);
	}
}

/* A page that a shadow's exit mapped is in the host's table when its table becomes nested. */
static void what_was_shadowed_is_no_first_touch(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT + 0x30000, PAGE + 0x30000, RW);
	agile_start(&l);
	uint64_t w = window(&l, AT, 1);
	use(&l);
	reads(&l, AT, PAGE);
	mark(&l);
	reads(&l, AT + 0x30000, PAGE + 0x30000);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 1);
	counts(&l, EVENT_NESTED_FILL, 1);
	for (uint64_t i = 1; i < 3; i++)
		store_entry(&l, w + i * 8, PAGE | RW);
	counts(&l, EVENT_PAGING_SWITCH, 1);
	mmu_invlpg(l.mmu, gva(AT + 0x30000));
	mark(&l);
	reads(&l, AT + 0x30000, PAGE + 0x30000);
	counts(&l, EVENT_EXIT_NESTED_VIOLATION, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* A written directory takes all below it along; each level of the switch has its number. */
static void the_switch_may_be_at_any_level(void **state)
{
	static const struct {
		unsigned level;
		uint64_t shadow, guest, host;
	} rows[] = {{1, 3, 1, 4}, {2, 2, 2, 8}, {3, 1, 3, 12}, {4, 0, 4, 20}};
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct lab l;
		lab_open(&l, WORLD_4LEVEL);
		agile_start(&l);
		uint64_t unused = (entry_of(&l, AT, rows[i].level) & ~0xfffull) + 0x900, e = 0;
		use(&l);
		reads(&l, AT, PAGE);
		for (unsigned n = 0; n < 2; n++)
			memory_write(l.w.memory, gpa(unused), &e, 8);
		is_sound(l.mmu);
		refers(&l, rows[i].shadow, rows[i].guest, rows[i].host);
		lab_stop(&l);
		world_close(&l.w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_tables_are_nested),
		cmocka_unit_test(clean_tables_get_shadows),
		cmocka_unit_test(written_tables_are_nested_again),
		cmocka_unit_test(a_shadow_comes_without_faults),
		cmocka_unit_test(global_pages_survive_cr3_writes),
		cmocka_unit_test(what_was_shadowed_is_no_first_touch),
		cmocka_unit_test(the_switch_may_be_at_any_level),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
