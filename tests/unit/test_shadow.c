/*
 * What a correct shadow cache needs, point by point: each test is named after its point of the list
 * in docs/paging.md. Counts are exact, but for hard mode, where shadows are evicted all the time.
 */
#include "shadow_lab.h"

#include "paging/shadow.h"

/* 1: WP, SMEP and SMAP are part of the key; toggling WP finds the other flavour's pages again. */
static void test_01_role_key(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, PTE_P | PTE_U);
	lab_start(&l, "shadow-cache");
	uint64_t on = l.w.vcpu.state.cr0, off = on & ~CR0_WP, cr4 = l.w.vcpu.state.cr4;
	reads(&l, AT, PAGE);
	faults(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, PF_P | PF_W);
	write_controls(&l, off, cr4);
	assert_true(touch(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	faults(&l, AT, ACCESS_WRITE, MMU_USER, PF_P | PF_W | PF_U);
	write_controls(&l, on, cr4);
	faults(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, PF_P | PF_W);
	mark(&l);
	write_controls(&l, off, cr4);
	assert_true(touch(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	counts(&l, EVENT_SHADOW_TABLE, 0);
	/* Under SMEP a page made writable for the supervisor must not be fetched by it. */
	write_controls(&l, off, cr4 | CR4_SMEP);
	assert_true(touch(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	faults(&l, AT, ACCESS_FETCH, MMU_SUPERVISOR, PF_P | PF_I);
	counts(&l, EVENT_SHADOW_FLUSH, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* 1: the quadrants of two-level tables: both halves of a table, all four of a directory. */
static void test_01_role_key_quadrants(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_32BIT);
	for (unsigned i = 0; i < 8; i++)
		map(&l, i * 0x20200000ull, PAGE + i * 4096, RW);
	lab_start(&l, "shadow-cache");
	for (unsigned n = 0; n < 2; n++)
		for (unsigned i = 0; i < 8; i++)
			reads(&l, i * 0x20200000ull, PAGE + i * 4096);
	uint64_t w = window(&l, 5 * 0x20200000ull, 1);
	store_entry(&l, w, (PAGE + 0x9000) | RW | PTE_A);
	mmu_note_exit(l.mmu);
	mmu_invlpg(l.mmu, gva(5 * 0x20200000ull));
	reads(&l, 5 * 0x20200000ull, PAGE + 0x9000);
	lab_stop(&l);
	world_close(&l.w);
}

/* 2: a page that becomes a table loses all its writable leaves, at once and everywhere. */
static void test_02_rmap_write_protects(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	uint64_t table = 0x700000; /* mapped twice before it is a table */
	map(&l, AT, table, RW);
	map(&l, AT + 0x200000, table, RW);
	lab_start(&l, "shadow-cache");
	uint64_t e = PAGE | RW;
	store(&l, AT, &e, 8);
	store(&l, AT + 0x200000, &e, 8);
	uint64_t pde = window(&l, AT, 2) + 8 * 2;
	store_entry(&l, pde, table | RW); /* now it is */
	mark(&l);
	reads(&l, AT + 0x400000, PAGE);
	counts(&l, EVENT_SHADOW_PROTECT, 1);
	assert_true(memory_page_flags(l.w.memory, gpa(table)) & PAGE_TABLE);
	e = (PAGE + 0x5000) | RW;
	store(&l, AT, &e, 8);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 1);
	e |= PTE_A;
	store(&l, AT + 0x200000, &e, 8);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 2);
	mmu_invlpg(l.mmu, gva(AT + 0x400000));
	reads(&l, AT + 0x400000, PAGE + 0x5000);
	lab_stop(&l);
	world_close(&l.w);
}

/* 3: one table at two places of two spaces has one shadow; a write reaches all. */
static void test_03_sharing(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	share_space(&l);
	lab_start(&l, "shadow-cache");
	reads(&l, AT, PAGE);
	uint64_t w = window(&l, AT, 1);
	write_cr3(&l, ROOT2);
	mark(&l);
	reads(&l, AT, PAGE);
	counts(&l, EVENT_SHADOW_TABLE, 1); /* the root: all below is there */
	counts(&l, EVENT_EXIT_PF_HIDDEN, 1);
	write_cr3(&l, ROOT);
	store_entry(&l, w, (PAGE + 0x3000) | RW | PTE_A);
	mmu_invlpg(l.mmu, gva(AT));
	reads(&l, AT, PAGE + 0x3000);
	mark(&l);
	write_cr3(&l, ROOT2);
	reads(&l, AT, PAGE + 0x3000);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	counts(&l, EVENT_SHADOW_ROOT_HIT, 1);
	lab_stop(&l);
	world_close(&l.w);
}

/* 3: a root that points to itself is root, directory and table at once. */
static void test_03_recursive_maps(void **state)
{
	const char *strategies[] = {"shadow-sync", "shadow-prefetch", "shadow-cache",
				    "shadow-cache:sync=oos"};
	for (unsigned i = 0; i < ARRAY_COUNT(strategies); i++) {
		struct lab l;
		lab_open(&l, WORLD_4LEVEL);
		uint64_t self = 510, e = ROOT | RW;
		memory_write(l.w.memory, gpa(ROOT + self * 8), &e, 8);
		map(&l, AT, PAGE, RW);
		lab_start(&l, strategies[i]);
		reads(&l, AT, PAGE);
		/* The PTE of AT, seen through the recursive slot. */
		uint64_t base = 0xffff000000000000ull | self << 39;
		uint64_t pte = base | (AT >> 9 & 0x7ffffffff8ull);
		uint64_t top = base | self << 30 | self << 21 | self << 12;
		reads(&l, pte, entry_of(&l, AT, 1));
		store_entry(&l, pte, (PAGE + 0x2000) | RW | PTE_A);
		mmu_invlpg(l.mmu, gva(AT));
		reads(&l, AT, PAGE + 0x2000);
		/* And the root's own entries through the same. */
		reads(&l, top, ROOT);
		store_entry(&l, top + (AT >> 39) * 8, 0);
		mmu_invlpg(l.mmu, gva(AT));
		faults(&l, AT, ACCESS_READ, MMU_SUPERVISOR, 0);
		store_entry(&l, top + self * 8, 0); /* it vanishes itself */
		mmu_invlpg(l.mmu, gva(top));
		faults(&l, top, ACCESS_READ, MMU_SUPERVISOR, 0);
		lab_stop(&l);
		world_close(&l.w);
	}
}

/* 4: writes of every shape are seen, entry by entry; one exit for each page they touch. */
static void test_04_table_writes(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	for (unsigned i = 0; i < 8; i++)
		map(&l, AT + i * 4096, PAGE + i * 4096, RW | PTE_A);
	lab_start(&l, "shadow-sync");
	uint64_t w = window(&l, AT, 1), es[8];
	for (unsigned i = 0; i < 8; i++)
		reads(&l, AT + i * 4096, PAGE + i * 4096);
	mark(&l);
	es[0] = (PAGE + 0x10000) | RW | PTE_A;
	es[1] = (PAGE + 0x11000) | RW | PTE_A;
	store(&l, w, es, 16); /* CMPXCHG16B, MOVAPS */
	counts(&l, EVENT_EXIT_TABLE_WRITE, 1);
	counts(&l, EVENT_SHADOW_UPDATE, 2);
	uint32_t half = 0x77;
	store(&l, w + 2 * 8 + 4, &half, 4); /* the upper half of one: no frame there */
	counts(&l, EVENT_SHADOW_UPDATE, 3);
	memset(es, 0, sizeof(es));
	store(&l, w + 3 * 8 + 5, es, 8); /* misaligned: two entries lose bytes that are 0 */
	counts(&l, EVENT_EXIT_TABLE_WRITE, 3);
	store(&l, w + 4 * 8, es, 32); /* REP STOS */
	counts(&l, EVENT_EXIT_TABLE_WRITE, 4);
	mmu_invpcid(l.mmu, 2, 0, gva(0));
	reads(&l, AT, PAGE + 0x10000);
	reads(&l, AT + 4096, PAGE + 0x11000);
	reads(&l, AT + 3 * 4096, PAGE + 3 * 4096);
	faults(&l, AT + 4 * 4096, ACCESS_READ, MMU_SUPERVISOR, 0);
	faults(&l, AT + 7 * 4096, ACCESS_READ, MMU_SUPERVISOR, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* 4: a device's write costs no exit and is seen as well, also across two tables. */
static void test_04_device_writes(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT + 511 * 4096, PAGE, RW);
	map(&l, AT + 512 * 4096, PAGE + 0x1000, RW);
	lab_start(&l, "shadow-cache");
	reads(&l, AT + 511 * 4096, PAGE);
	reads(&l, AT + 512 * 4096, PAGE + 0x1000);
	assert_int_equal(entry_of(&l, AT + 512 * 4096, 1) - entry_of(&l, AT + 511 * 4096, 1), 8);
	uint64_t es[2] = {(PAGE + 0x8000) | RW | PTE_A, (PAGE + 0x9000) | RW | PTE_A};
	mark(&l);
	memory_write(l.w.memory, gpa(entry_of(&l, AT + 511 * 4096, 1)), es, 16);
	is_sound(l.mmu);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 0);
	counts(&l, EVENT_SHADOW_UPDATE, 2);
	mmu_note_exit(l.mmu);
	reads(&l, AT + 511 * 4096, PAGE + 0x8000);
	reads(&l, AT + 512 * 4096, PAGE + 0x9000);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* 4: a table that is written as data is written loses its shadows and its protection. */
static void test_04_write_flood_zaps(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	lab_start(&l, "shadow-cache");
	reads(&l, AT, PAGE);
	uint64_t w = window(&l, AT, 1) & ~0xfffull, table = entry_of(&l, AT, 1) & ~0xfffull;
	mark(&l);
	for (uint64_t i = 0; i < 20; i++)
		store(&l, w + 0x800 + i * 8, &i, 8);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 3);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 1); /* the leaf becomes writable */
	assert_false(memory_page_flags(l.w.memory, gpa(table)) & PAGE_TABLE);
	reads(&l, AT, PAGE);
	assert_true(memory_page_flags(l.w.memory, gpa(table)) & PAGE_TABLE);
	lab_stop(&l);
	world_close(&l.w);
}

/* 4: a table is written for each page that is touched first, and walked through: it is in use. */
static void test_04_first_touches_are_no_flood(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	for (unsigned i = 0; i < 20; i++)
		map(&l, AT + i * 4096, PAGE + i * 4096, i ? 0 : RW | PTE_A);
	lab_start(&l, "shadow-cache");
	reads(&l, AT, PAGE);
	uint64_t w = window(&l, AT, 1);
	mark(&l);
	for (unsigned i = 1; i < 20; i++) {
		store_entry(&l, w + i * 8, (PAGE + i * 4096) | RW | PTE_A);
		reads(&l, AT + i * 4096, PAGE + i * 4096);
	}
	counts(&l, EVENT_EXIT_TABLE_WRITE, 19);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* 5: a last-level table is let go at its first write; each way to invalidate brings it back. */
static void test_05_out_of_sync(void **state)
{
	for (unsigned how = 0; how < 7; how++) {
		struct lab l;
		lab_open(&l, WORLD_4LEVEL);
		for (unsigned i = 0; i < 4; i++)
			map(&l, AT + i * 4096, PAGE + i * 4096, RW | PTE_A);
		lab_start(&l, "shadow-cache:sync=oos");
		for (unsigned i = 0; i < 4; i++)
			reads(&l, AT + i * 4096, PAGE + i * 4096);
		uint64_t w = window(&l, AT, 1);
		mark(&l);
		for (unsigned i = 0; i < 3; i++)
			store_entry(&l, w + i * 8, (PAGE + 0x10000 + i * 4096) | RW | PTE_A);
		counts(&l, EVENT_EXIT_TABLE_WRITE, 1);
		counts(&l, EVENT_SHADOW_UNSYNC, 1);
		mmu_note_exit(l.mmu);
#ifndef GNOMON_HARD
		reads(&l, AT, PAGE); /* as a TLB might */
#endif
		struct vcpu_state *s = &l.w.vcpu.state;
		switch (how) {
		case 0: write_cr3(&l, ROOT); break;
		case 1: mmu_invlpg(l.mmu, gva(AT)); break;
		case 2: mmu_invpcid(l.mmu, 0, 0, gva(AT)); break;
		case 3: mmu_invpcid(l.mmu, 1, 0, gva(0)); break;
		case 4: mmu_invpcid(l.mmu, 3, 0, gva(0)); break;
		case 5: write_controls(&l, s->cr0, s->cr4 ^ CR4_PGE); break;
		default: write_controls(&l, s->cr0, s->cr4 ^ CR4_PCIDE);
		}
		counts(&l, EVENT_SHADOW_SYNC, how == 1 || how == 2 ? 0 : 1);
		counts(&l, EVENT_SHADOW_SYNC_ENTRY, how == 1 || how == 2 ? 1 : 4);
		reads(&l, AT, PAGE + 0x10000);
		lab_stop(&l);
		world_close(&l.w);
	}
}

/* 5: a table out of sync is compared before it is linked to another place. */
static void test_05_sync_before_link(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	lab_start(&l, "shadow-cache:sync=oos");
	reads(&l, AT, PAGE);
	uint64_t table = entry_of(&l, AT, 1) & ~0xfffull, w = window(&l, AT, 1);
	map(&l, TABLE_WINDOW + 4096, entry_of(&l, AT, 2) & ~0xfffull, RW);
	uint64_t pde = TABLE_WINDOW + 4096 + (entry_of(&l, AT, 2) & 0xfff) + 8 * 7;
	store_entry(&l, w, (PAGE + 0x4000) | RW | PTE_A);
	counts(&l, EVENT_SHADOW_UNSYNC, 1);
	store_entry(&l, pde, table | RW); /* the same table 14 MiB further up, never used there */
	mark(&l);
	reads(&l, AT + 7 * 0x200000, PAGE + 0x4000);
	counts(&l, EVENT_SHADOW_SYNC, 1);
	lab_stop(&l);
	world_close(&l.w);
}

/* 5: PCIDs, bit 63 and global pages: what the TLBs may keep, the shadow need not forget. */
static void test_05_pcid_and_global(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	l.w.vcpu.state.cr4 |= CR4_PCIDE | CR4_PGE;
	map(&l, AT, PAGE, RW | PTE_G);
	share_space(&l);
	lab_start(&l, "shadow-cache");
	reads(&l, AT, PAGE);
	write_cr3(&l, ROOT2 | 1);
	reads(&l, AT, PAGE);
	mark(&l);
	l.w.vcpu.state.cr3 = ROOT;
	mmu_cr3_written(l.mmu, true);
	reads(&l, AT, PAGE);
	counts(&l, EVENT_TLB_MISS, 0); /* the tag's entry was kept */
	write_cr3(&l, ROOT | 5);       /* another PCID, the same root and shadow */
	reads(&l, AT, PAGE);
	counts(&l, EVENT_TLB_MISS, 1);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	counts(&l, EVENT_SHADOW_ROOT_HIT, 2);
	lab_stop(&l);
	world_close(&l.w);
}

/* 6: no leaf without A, no writable leaf without D, at every level; a guest that clears them sees
 * them set again. */
static void test_06_accessed_and_dirty(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	lab_start(&l, "shadow-cache");
	uint64_t w = window(&l, AT, 1);
	map(&l, TABLE_WINDOW + 4096, entry_of(&l, AT, 3) & ~0xfffull, RW);
	uint64_t top = TABLE_WINDOW + 4096 + (entry_of(&l, AT, 3) & 0xfff);
	reads(&l, AT, PAGE);
	for (unsigned level = 1; level <= 4; level++)
		assert_true(entry_value(&l, AT, level) & PTE_A);
	assert_false(entry_value(&l, AT, 1) & PTE_D);
	mark(&l);
	assert_true(touch(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	assert_true(entry_value(&l, AT, 1) & PTE_D);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 1);
	store_entry(&l, w, entry_value(&l, AT, 1) & ~(PTE_A | PTE_D));
	mmu_note_exit(l.mmu);
	mmu_invlpg(l.mmu, gva(AT));
	reads(&l, AT, PAGE);
	assert_true(entry_value(&l, AT, 1) & PTE_A);
	assert_false(entry_value(&l, AT, 1) & PTE_D);
	store_entry(&l, top, entry_value(&l, AT, 3) & ~PTE_A);
	mmu_invlpg(l.mmu, gva(AT));
	reads(&l, AT, PAGE);
	assert_true(entry_value(&l, AT, 3) & PTE_A);
	lab_stop(&l);
	world_close(&l.w);
}

/* 6: D of a large page, and reserved bits. */
static void test_06_large_dirty_and_reserved(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	world_map(&l.w, AT, 0x1000000, 21, RW, &l.next);
	lab_start(&l, "shadow-cache:host-page=2M");
	reads(&l, AT + 0x5000, 0x1005000);
	assert_false(entry_value(&l, AT, 2) & PTE_D);
	assert_true(touch(&l, AT + 0x9000, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	assert_true(entry_value(&l, AT, 2) & PTE_D);
	uint64_t w = window(&l, AT, 2);
	store_entry(&l, w, entry_value(&l, AT, 2) | BIT(13));
	mmu_invlpg(l.mmu, gva(AT));
	faults(&l, AT, ACCESS_READ, MMU_SUPERVISOR, PF_P | PF_RSVD);
	lab_stop(&l);
	world_close(&l.w);
}

/* 7: a guest's large page is splintered where a table lies in it, and whole again afterwards. */
static void test_07_splinter_and_merge(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	world_map(&l.w, AT, 0x1000000, 21, RW, &l.next);
	world_map(&l.w, AT + 0x200000, 0x1200000, 21, RW, &l.next);
	uint64_t table = 0x1003000, e = PAGE | RW;
	memory_write(l.w.memory, gpa(table), &e, 8);
	lab_start(&l, "shadow-cache:host-page=2M");
	assert_true(touch(&l, AT + 0x3000, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	mark(&l);
	assert_true(touch(&l, AT + 0x4000, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0); /* one leaf for all */
	uint64_t pde = window(&l, AT, 2) + 8 * 5;
	store_entry(&l, pde, table | RW);
	reads(&l, AT + 5 * 0x200000, PAGE); /* now a table lies in the page */
	mark(&l);
	assert_true(touch(&l, AT + 0x4000, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	assert_true(touch(&l, AT + 0x5000, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	counts(&l, EVENT_EXIT_PF_HIDDEN, 2); /* splinters */
	e = (PAGE + 0x1000) | RW;
	store(&l, AT + 0x3000, &e, 8);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 1);
	/* The table is none any more: written as data. */
	for (uint64_t i = 0; i < 4; i++)
		store(&l, AT + 0x3800 + i * 8, &i, 8);
	mark(&l);
	mmu_note_exit(l.mmu);
	for (unsigned i = 0; i < 512; i += 73)
		assert_true(touch(&l, AT + i * 4096, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	assert_true(counted(&l, EVENT_EXIT_PF_HIDDEN) <= 1);
	lab_stop(&l);
	world_close(&l.w);
}

/* 8: rights are the AND of all levels, NX the OR; one table under two rights has two shadows. */
static void test_08_rights_of_all_levels(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	lab_start(&l, "shadow-cache");
	uint64_t pde = entry_value(&l, AT, 2), at = entry_of(&l, AT, 2);
	uint64_t narrow[3] = {pde & ~PTE_W, pde & ~PTE_U, pde | PTE_NX};
	memory_write(l.w.memory, gpa(at + 8), narrow, sizeof(narrow));
	mark(&l);
	assert_true(touch(&l, AT, ACCESS_WRITE, MMU_USER, NULL));
	assert_true(touch(&l, AT, ACCESS_FETCH, MMU_USER, NULL));
	faults(&l, AT + 0x200000, ACCESS_WRITE, MMU_USER, PF_P | PF_W | PF_U);
	assert_true(touch(&l, AT + 0x200000, ACCESS_READ, MMU_USER, NULL));
	faults(&l, AT + 0x400000, ACCESS_READ, MMU_USER, PF_P | PF_U);
	assert_true(touch(&l, AT + 0x400000, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	faults(&l, AT + 0x600000, ACCESS_FETCH, MMU_USER, PF_P | PF_I | PF_U);
	assert_true(touch(&l, AT + 0x600000, ACCESS_READ, MMU_USER, NULL));
	counts(&l, EVENT_SHADOW_TABLE, 3 + 4); /* one guest table, four roles */
	write_controls(&l, l.w.vcpu.state.cr0, l.w.vcpu.state.cr4 | CR4_SMEP | CR4_SMAP);
	faults(&l, AT, ACCESS_READ, MMU_SUPERVISOR, PF_P);
	faults(&l, AT, ACCESS_FETCH, MMU_SUPERVISOR, PF_P | PF_I);
	assert_true(touch(&l, AT, ACCESS_READ, MMU_SUPERVISOR_AC, NULL));
	lab_stop(&l);
	world_close(&l.w);
}

/* 9: prefetching takes accessed pages of RAM only, and no more rights than a fill. */
static void test_09_prefetch(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	map(&l, AT + 1 * 4096, PAGE + 0x1000, RW | PTE_A);
	map(&l, AT + 2 * 4096, PAGE + 0x2000, RW);			/* never accessed */
	map(&l, AT + 3 * 4096, MEMORY_HOLE_START + 0x1000, RW | PTE_A); /* a device */
	map(&l, AT + 4 * 4096, PAGE + 0x4000, RW | PTE_A | PTE_D);
	map(&l, AT + 9 * 4096, PAGE + 0x9000, RW | PTE_A);
	lab_start(&l, "shadow-prefetch:prefetch=8");
	reads(&l, AT, PAGE);
	counts(&l, EVENT_SHADOW_PREFETCH, 2);
	mark(&l);
	reads(&l, AT + 4096, PAGE + 0x1000);
	assert_true(touch(&l, AT + 4 * 4096, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	assert_true(touch(&l, AT + 4096, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	reads(&l, AT + 9 * 4096, PAGE + 0x9000);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 2);
	lab_stop(&l);
	mark(&l);
	lab_start(&l, "shadow-prefetch");
	reads(&l, AT, PAGE);
	counts(&l, EVENT_SHADOW_PREFETCH, 3);
	lab_stop(&l);
	world_close(&l.w);
}

/* 9: the whole table of a two-level guest is 1024 entries. */
static void test_09_prefetch_1024(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_32BIT);
	for (unsigned i = 0; i < 1024; i++)
		map(&l, AT + i * 4096, PAGE + i * 4096, RW | PTE_A);
	lab_start(&l, "shadow-prefetch");
	reads(&l, AT + 700 * 4096, PAGE + 700 * 4096);
	counts(&l, EVENT_SHADOW_PREFETCH, 1023);
	mark(&l);
	for (unsigned i = 0; i < 1024; i += 31)
		reads(&l, AT + i * 4096, PAGE + i * 4096);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 0);
	/* The prefetched entries are watched. */
	uint64_t e = (PAGE + 0x5000) | RW | PTE_A;
	memory_write(l.w.memory, gpa(entry_of(&l, AT + 100 * 4096, 1)), &e, 4);
	mmu_note_exit(l.mmu);
	mmu_invlpg(l.mmu, gva(AT + 100 * 4096));
	reads(&l, AT + 100 * 4096, PAGE + 0x5000);
	lab_stop(&l);
	world_close(&l.w);
}

/* 9: so are the near parts of a large page that had to be splintered, but for a table's rights. */
static void test_09_prefetch_splinters(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	uint64_t table = 0x1007000, e = PAGE | RW;
	world_map(&l.w, AT, 0x1000000, 21, RW, &l.next);
	memory_write(l.w.memory, gpa(table), &e, 8);
	lab_start(&l, "shadow-prefetch");
	store_entry(&l, window(&l, AT, 2) + 8, table | RW);
	reads(&l, AT + 0x200000, PAGE);
	mark(&l);
	assert_true(touch(&l, AT, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	counts(&l, EVENT_SHADOW_PREFETCH, 7);
	for (unsigned i = 1; i < 7; i++)
		assert_true(touch(&l, AT + i * 4096, ACCESS_WRITE, MMU_SUPERVISOR, NULL));
	reads(&l, AT + 0x7000, table);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 1);
	store_entry(&l, AT + 0x7000, e);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 1);
	lab_stop(&l);
	world_close(&l.w);
}

/* 10: the oldest goes first, the current root never, and nothing dangles. */
static void test_10_eviction(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	for (unsigned i = 0; i < 40; i++)
		map(&l, AT + i * 0x200000ull, PAGE + i * 4096, RW);
	lab_start(&l, "shadow-cache:limit=64K");
	for (unsigned n = 0; n < 3; n++)
		for (unsigned i = 0; i < 40; i++) {
			reads(&l, AT + i * 0x200000ull, PAGE + i * 4096);
			reads(&l, AT, PAGE); /* in use: hardly ever the oldest */
		}
	assert_true(counted(&l, EVENT_SHADOW_EVICT) > 60);
#ifndef GNOMON_HARD
	assert_true(counted(&l, EVENT_EXIT_PF_HIDDEN) < 200);
#endif
	lab_stop(&l);
	world_close(&l.w);
}

/* 10: the list of retained roots has an end; a root that is also a table below another stays. */
static void test_10_retained_roots(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	for (unsigned i = 1; i < 4; i++)
		memcpy(world_table(&l.w, ROOT + i * 4096), world_table(&l.w, ROOT), 4096);
	lab_start(&l, "shadow-cache:roots=2");
	for (unsigned i = 0; i < 12; i++) {
		write_cr3(&l, ROOT + i % 3 * 4096);
		reads(&l, AT, PAGE);
	}
	counts(&l, EVENT_SHADOW_ROOT_HIT, 0); /* three take turns, two are kept */
	counts(&l, EVENT_SHADOW_EVICT, 10);
	mark(&l);
	for (unsigned i = 0; i < 12; i++) {
		write_cr3(&l, ROOT + i % 2 * 4096);
		reads(&l, AT, PAGE);
	}
	counts(&l, EVENT_SHADOW_ROOT_HIT, 10);
	lab_stop(&l);
	mark(&l);
	lab_start(&l, "shadow-cache:cr3-exits=off");
	for (unsigned i = 0; i < 12; i++) {
		write_cr3(&l, ROOT + i % 3 * 4096);
		reads(&l, AT, PAGE);
	}
	counts(&l, EVENT_SHADOW_ROOT_HIT, 9);
	counts(&l, EVENT_EXIT_CR3_WRITE, 3);
	lab_stop(&l);
	world_close(&l.w);
}

/* 11: true faults, hidden ones, devices and table writes are told apart, each in its own event. */
static void test_11_fault_classes(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	map(&l, AT + 0x1000, MEMORY_HOLE_START, RW);
	map(&l, AT + 0x2000, PAGE, PTE_P | PTE_U);
	map(&l, AT + 0x3000, PAGE | BIT(45), RW);
	lab_start(&l, "shadow-cache");
	reads(&l, AT, PAGE);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 1);
	reads(&l, AT + 0x1000, MEMORY_HOLE_START);
	counts(&l, EVENT_EXIT_PF_HIDDEN, 1);
	counts(&l, EVENT_EXIT_PF_TRUE, 0);
	faults(&l, AT + 0x2000, ACCESS_WRITE, MMU_USER, PF_P | PF_W | PF_U);
	faults(&l, AT + 0x3000, ACCESS_READ, MMU_USER, PF_P | PF_RSVD | PF_U);
	faults(&l, AT + 0x9000, ACCESS_READ, MMU_USER, PF_U);
	counts(&l, EVENT_EXIT_PF_TRUE, 3);
	store_entry(&l, window(&l, AT, 1) + 8 * 9, 0);
	counts(&l, EVENT_EXIT_TABLE_WRITE, 1);
	lab_stop(&l);
	world_close(&l.w);
}

/* 11: with the processor's filter, a page that the guest has not mapped faults without an exit;
 * one that became mapped does not. */
static void test_11_fault_filter(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	map(&l, AT + 0x2000, PAGE, PTE_P | PTE_U);
	lab_start(&l, "shadow-cache:sync=oos:pf-filter=on");
	reads(&l, AT, PAGE);
	uint64_t w = window(&l, AT, 1);
	mark(&l);
	faults(&l, AT + 0x1000, ACCESS_READ, MMU_USER, PF_U);
	counts(&l, EVENT_EXIT_PF_TRUE, 0);
	faults(&l, AT + 0x2000, ACCESS_WRITE, MMU_USER, PF_P | PF_W | PF_U);
	counts(&l, EVENT_EXIT_PF_TRUE, 1); /* rights: the filter cannot tell */
	store_entry(&l, w + 8, (PAGE + 0x1000) | RW);
	reads(&l, AT + 0x1000, PAGE + 0x1000); /* no word to the processor is needed */
	faults(&l, AT + 0x3000, ACCESS_READ, MMU_USER, PF_U);
	counts(&l, EVENT_EXIT_PF_TRUE, 2); /* out of sync: the marks are gone */
	write_cr3(&l, ROOT);
	faults(&l, AT + 0x3000, ACCESS_READ, MMU_USER, PF_U);
	counts(&l, EVENT_EXIT_PF_TRUE, 2);
	lab_stop(&l);
	world_close(&l.w);
}

/* 12: with paging off no shadow is used, and tables changed then are seen afterwards. */
static void test_12_paging_off(void **state)
{
	struct lab l;
	lab_open(&l, WORLD_PAE);
	map(&l, AT, PAGE, RW);
	lab_start(&l, "shadow-cache");
	uint64_t on = l.w.vcpu.state.cr0, e = (PAGE + 0x1000) | RW;
	uint64_t at = entry_of(&l, AT, 1);
	reads(&l, AT, PAGE);
	write_controls(&l, on & ~CR0_PG, l.w.vcpu.state.cr4);
	mark(&l);
	reads(&l, PAGE, PAGE);
	store(&l, at, &e, 8);
	for (unsigned i = 0; i < EVENT_COUNT; i++)
		if (event_is_translation((enum event)i))
			assert_int_equal(counted(&l, (enum event)i), 0);
	write_controls(&l, on, l.w.vcpu.state.cr4);
	reads(&l, AT, PAGE + 0x1000);
	/* PAE's registers change without a CR3 write, by MOV to CR0. */
	l.w.vcpu.state.pdpte[1] = 0;
	mmu_note_exit(l.mmu);
	mmu_invlpg(l.mmu, gva(AT));
	faults(&l, AT, ACCESS_READ, MMU_SUPERVISOR, 0);
	lab_stop(&l);
	world_close(&l.w);
}

/* 13: the audit sees what is broken. */
static void test_13_audit(void **state)
{
	struct lab l;
	char why[200];
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	lab_start(&l, "shadow-cache");
	reads(&l, AT, PAGE);
	uint64_t *pte = (uint64_t *)(void *)memory_host(l.w.memory, gpa(entry_of(&l, AT, 1)), 8);
	uint64_t was = *pte;
	*pte = (PAGE + 0x1000) | RW | PTE_A; /* behind everybody's back */
	assert_false(mmu_audit(l.mmu, why, sizeof(why)));
	assert_non_null(strstr(why, "the guest has 0x801027"));
	*pte = was;
	assert_true(mmu_audit(l.mmu, why, sizeof(why)));
	memory_clear_page_flag(l.w.memory, gpa(entry_of(&l, AT, 2)), PAGE_TABLE);
	assert_false(mmu_audit(l.mmu, why, sizeof(why)));
	assert_non_null(strstr(why, "nobody watches it"));
	memory_set_page_flag(l.w.memory, gpa(entry_of(&l, AT, 2)), PAGE_TABLE);
	lab_stop(&l);
	world_close(&l.w);
}

#ifndef GNOMON_HARD /* where a failing audit ends the program */
/* The shadow's entry of level 1 for a page. */
static uint32_t leaf_of(const struct shadow *s, uint64_t address)
{
	uint32_t at = s->root * SHADOW_ENTRIES + shadow_index(s, 4, gva(address));
	for (unsigned level = 3; level; level--)
		at = shadow_child(s, *shadow_entry(s, at)) * SHADOW_ENTRIES +
		     shadow_index(s, level, gva(address));
	return at;
}

/* ... and after each exit the entries that it had to do with, in tables that still are there. */
static void test_13_audit_of_an_exit(void **state)
{
	struct lab l;
	struct mmu_page page;
	struct page_fault fault;
	lab_open(&l, WORLD_4LEVEL);
	map(&l, AT, PAGE, RW);
	map(&l, AT + 0x1000, PAGE + 0x1000, RW);
	lab_start(&l, "shadow-cache");
	reads(&l, AT, PAGE);
	struct shadow *s = &((struct shadow_strategy *)(void *)l.mmu->private->strategy)->core;
	uint64_t *pte = (uint64_t *)(void *)memory_host(l.w.memory, gpa(entry_of(&l, AT, 1)), 8);
	*pte = (PAGE + 0x2000) | RW | PTE_A; /* behind everybody's back */
	shadow_note(s, leaf_of(s, AT));
	assert_true(
		mmu_translate(l.mmu, gva(AT + 0x1000), ACCESS_READ, MMU_SUPERVISOR, &page, &fault));
	assert_non_null(l.mmu->difference);
	assert_non_null(strstr(l.mmu->difference, "the audit of its tables"));
	mmu_destroy(l.mmu);
	world_close(&l.w);
}
#endif

/* 14: two processors, each with its own shadow: what one writes to a table the other's follows, and
 * after the other invalidates nothing old is left. */
static void test_14_remote_shootdown(void **state)
{
	const char *strategies[] = {"shadow-sync", "shadow-cache", "shadow-cache:sync=oos"};
	for (unsigned i = 0; i < ARRAY_COUNT(strategies); i++) {
		struct lab l;
		struct ledger ledger = {0};
		struct mmu *other;
		lab_open(&l, WORLD_4LEVEL);
		map(&l, AT, PAGE, RW);
		lab_start(&l, strategies[i]);
		struct vcpu second = l.w.vcpu;
		struct mmu_config config = {.geometry = &l.g, .verify = true};
		second.ledger = &ledger;
		assert_int_equal(mmu_parse_strategy(strategies[i], &config, NULL), 0);
		assert_int_equal(mmu_create(&other, &config, &second, l.w.memory, NULL), 0);
		uint64_t w = window(&l, AT, 1);
		struct mmu_page page;
		struct page_fault fault;
		for (unsigned n = 0; n < 3; n++) {
			reads(&l, AT, PAGE + n * 4096);
			assert_true(mmu_translate(other, gva(AT), ACCESS_READ, MMU_USER, &page,
						  &fault));
			assert_int_equal(page.gpa.v, PAGE + n * 4096);
			store_entry(&l, w, (PAGE + (n + 1) * 4096) | RW);
			is_sound(other);
			mmu_invlpg(l.mmu, gva(AT));
			mmu_invlpg(other, gva(AT)); /* the interrupt's work */
		}
		is_sound(other);
		mmu_destroy(other);
		/* Whose tables are held still? The first one's alone. */
		assert_true(memory_page_flags(l.w.memory, gpa(ROOT)) & PAGE_TABLE ||
			    ledger_total(&l.w.ledger, EVENT_SHADOW_EVICT));
		lab_stop(&l);
		assert_false(memory_page_flags(l.w.memory, gpa(ROOT)) & PAGE_TABLE);
		world_close(&l.w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_01_role_key),
		cmocka_unit_test(test_01_role_key_quadrants),
		cmocka_unit_test(test_02_rmap_write_protects),
		cmocka_unit_test(test_03_sharing),
		cmocka_unit_test(test_03_recursive_maps),
		cmocka_unit_test(test_04_table_writes),
		cmocka_unit_test(test_04_device_writes),
		cmocka_unit_test(test_04_write_flood_zaps),
		cmocka_unit_test(test_04_first_touches_are_no_flood),
		cmocka_unit_test(test_05_out_of_sync),
		cmocka_unit_test(test_05_sync_before_link),
		cmocka_unit_test(test_05_pcid_and_global),
		cmocka_unit_test(test_06_accessed_and_dirty),
		cmocka_unit_test(test_06_large_dirty_and_reserved),
		cmocka_unit_test(test_07_splinter_and_merge),
		cmocka_unit_test(test_08_rights_of_all_levels),
		cmocka_unit_test(test_09_prefetch),
		cmocka_unit_test(test_09_prefetch_1024),
		cmocka_unit_test(test_09_prefetch_splinters),
		cmocka_unit_test(test_10_eviction),
		cmocka_unit_test(test_10_retained_roots),
		cmocka_unit_test(test_11_fault_classes),
		cmocka_unit_test(test_11_fault_filter),
		cmocka_unit_test(test_12_paging_off),
		cmocka_unit_test(test_13_audit),
#ifndef GNOMON_HARD
		cmocka_unit_test(test_13_audit_of_an_exit),
#endif
		cmocka_unit_test(test_14_remote_shootdown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
