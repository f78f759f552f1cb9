/* The one walker against an oracle written from the manual, and the manual's special cases one by
 * one. */
#include "paging_world.h"

#include "paging/walk.h"

static struct walk_context context_of(const struct world *w)
{
	const struct vcpu_state *s = &w->vcpu.state;
	struct walk_context c;
	walk_context_init(&c, s->cr0, s->cr4, s->efer, &w->model);
	return c;
}

static struct walk_result walk_in(struct world *w, uint64_t at, enum access_kind kind,
				  enum mmu_mode mode)
{
	struct walk_context c = context_of(w);
	struct walk_source source = walk_source_of(&c, &w->vcpu.state, w->memory);
	struct walk_result r;
	walk(&c, &source, gva(at), kind, mode, &r);
	return r;
}

static bool same(const struct oracle *o, const struct walk_result *r)
{
	if (o->ok != (r->outcome == WALK_OK))
		return false;
	if (!o->ok)
		return o->error_code == r->error_code;
	return o->gpa == r->gpa.v && o->shift == r->page_shift && o->w == !!(r->flags & WALK_W) &&
	       o->u == !!(r->flags & WALK_U) && o->nx == !!(r->flags & WALK_NX) &&
	       o->g == !!(r->flags & WALK_G);
}

static void random_tables_give_what_the_manual_says(void **state)
{
	struct world w;
	unsigned ok_count = 0, fault_count = 0, large_count = 0;
	world_open(&w);
	for (unsigned round = 0; round < 600; round++) {
		world_random_controls(&w);
		world_random_tables(&w);
		for (unsigned i = 0; i < 100; i++) {
			uint64_t at = world_random_gva(&w);
			enum access_kind kind = (enum access_kind)world_below(&w, 3);
			enum mmu_mode mode = (enum mmu_mode)world_below(&w, 3);
			struct oracle o = oracle_ask(&w, at, kind, mode);
			struct walk_result r = walk_in(&w, at, kind, mode);
			assert_true(same(&o, &r));
			ok_count += o.ok;
			large_count += o.ok && o.shift > 12;
			fault_count += !o.ok;
		}
	}
	world_close(&w);
	assert_true(ok_count > 5000 && fault_count > 5000 && large_count > 2000);
}

static void commit_sets_accessed_and_dirty_as_a_processor(void **state)
{
	struct world w;
	size_t bytes = WORLD_TABLE_PAGES * 4096;
	uint8_t *before = malloc(bytes), *after = malloc(bytes);
	world_open(&w);
	for (unsigned round = 0; round < 300; round++) {
		world_random_controls(&w);
		world_random_tables(&w);
		for (unsigned i = 0; i < 20; i++) {
			uint64_t at = world_random_gva(&w);
			enum access_kind kind = (enum access_kind)world_below(&w, 3);
			struct oracle o = oracle_ask(&w, at, kind, MMU_SUPERVISOR_AC);
			memory_read(w.memory, gpa(WORLD_TABLES), before, bytes);
			oracle_commit(&w, &o, kind);
			memory_read(w.memory, gpa(WORLD_TABLES), after, bytes);
			memory_write(w.memory, gpa(WORLD_TABLES), before, bytes);
			struct walk_context c = context_of(&w);
			struct walk_source source = walk_source_of(&c, &w.vcpu.state, w.memory);
			struct walk_result r;
			walk_and_commit(&c, &source, gva(at), kind, MMU_SUPERVISOR_AC, &r, NULL);
			world_has_tables(&w, after);
		}
	}
	world_close(&w);
	free(before);
	free(after);
}

static void one_mapping(struct world *w, enum world_mode mode, uint64_t at, uint64_t to,
			unsigned shift, uint64_t flags)
{
	uint64_t next = 0x300000;
	world_set_mode(w, mode);
	w->vcpu.state.cr3 = 0x200000;
	memset(memory_host(w->memory, gpa(0x200000), 0x200000), 0, 0x200000);
	for (unsigned i = 0; i < 4; i++)
		w->vcpu.state.pdpte[i] = (0x201000 + i * 4096) | PTE_P;
	world_map(w, at, to, shift, flags, &next);
}

static void references_are_the_levels_in_memory(void **state)
{
	static const unsigned counts[] = {2, 3, 4, 5};
	struct world w;
	world_open(&w);
	for (enum world_mode mode = WORLD_32BIT; mode < WORLD_MODES; mode++) {
		one_mapping(&w, mode, 0x40403000, 0x5000, 12, PTE_P);
		struct walk_result r = walk_in(&w, 0x40403123, ACCESS_READ, MMU_SUPERVISOR);
		assert_int_equal(r.outcome, WALK_OK);
		assert_int_equal(r.gpa.v, 0x5123);
		assert_int_equal(r.step_count, counts[mode]);
	}
	world_close(&w);
}

static void pse36_reaches_above_4g(void **state)
{
	struct world w;
	world_open(&w);
	w.vcpu.state.cr4 = CR4_PSE;
	one_mapping(&w, WORLD_32BIT, 0x400000, 0x800000 | 0x5 << 13, 22, PTE_P);
	struct walk_result r = walk_in(&w, 0x412345, ACCESS_READ, MMU_SUPERVISOR);
	assert_int_equal(r.outcome, WALK_OK);
	assert_true(r.gpa.v == 0x500812345ull);
	w.model.physical_bits = 34; /* now bit 15 of the entry is address bit 34 */
	assert_int_equal(walk_in(&w, 0x412345, ACCESS_READ, MMU_USER).error_code,
			 PF_P | PF_RSVD | PF_U);
	w.vcpu.state.cr4 = 0; /* without PSE bit 7 means nothing: a page table at 0x80a000 */
	r = walk_in(&w, 0x412345, ACCESS_READ, MMU_SUPERVISOR);
	assert_int_equal(r.step_count, 2);
	assert_int_equal(r.step[1].address.v & ~0xfffull, 0x80a000);
	world_close(&w);
}

static void tables_outside_ram_read_as_all_ones(void **state)
{
	struct world w;
	world_open(&w);
	w.vcpu.state.efer = EFER_NXE;
	one_mapping(&w, WORLD_4LEVEL, 0x1000, 0x5000, 12, PTE_P);
	world_table(&w, 0x200000)[0] = 0xfee00000 | PTE_P; /* a table in device memory */
	struct walk_result r = walk_in(&w, 0x1000, ACCESS_READ, MMU_SUPERVISOR);
	assert_int_equal(r.outcome, WALK_FAULT);
	assert_int_equal(r.error_code, PF_P | PF_RSVD);
	assert_null(r.step[1].host);
	w.vcpu.state.cr3 = 0xff00000000ull; /* the root past RAM */
	assert_int_equal(walk_in(&w, 0x1000, ACCESS_WRITE, MMU_USER).error_code,
			 PF_P | PF_RSVD | PF_W | PF_U);
	world_set_mode(
		&w, WORLD_32BIT); /* two-level tables have no reserved bits: mapped, to nowhere */
	w.vcpu.state.cr3 = 0xf0000000;
	r = walk_in(&w, 0x1234, ACCESS_WRITE, MMU_USER);
	assert_int_equal(r.outcome, WALK_OK);
	assert_true(r.gpa.v == 0xfffff234);
	world_close(&w);
}

static void a_root_that_names_itself_is_every_level(void **state)
{
	struct world w;
	world_open(&w);
	one_mapping(&w, WORLD_4LEVEL, 0x1000, 0x5000, 12, PTE_P | PTE_W);
	world_table(&w, 0x200000)[511] = 0x200000 | PTE_P | PTE_W;
	struct walk_context c = context_of(&w);
	struct walk_source source = walk_source_of(&c, &w.vcpu.state, w.memory);
	struct walk_result r;
	unsigned updates = 0;
	assert_int_equal(walk_and_commit(&c, &source, gva(~0xfffull), ACCESS_WRITE, MMU_SUPERVISOR,
					 &r, &updates),
			 WALK_OK);
	assert_true(r.gpa.v == 0x200000);
	assert_true(world_table(&w, 0x200000)[511] == (0x200000 | PTE_P | PTE_W | PTE_A | PTE_D));
	world_close(&w);
}

struct watch_log {
	unsigned count;
	uint64_t address;
	unsigned size_bytes;
};

static void log_write_seen(void *opaque, gpa_t address, unsigned size_bytes)
{
	struct watch_log *log = opaque;
	log->count++;
	log->address = address.v;
	log->size_bytes = size_bytes;
}

/* Watchers of code hear of them; for watchers of tables they change nothing. */
static void watchers_hear_of_accessed_bits(void **state)
{
	struct world w;
	struct watch_log log = {0}, tables = {0};
	world_open(&w);
	memory_add_watcher(w.memory, (struct memory_watcher){log_write_seen, &log, PAGE_CODE});
	memory_add_watcher(w.memory, (struct memory_watcher){log_write_seen, &tables, PAGE_TABLE});
	one_mapping(&w, WORLD_4LEVEL, 0x1000, 0x5000, 12, PTE_P);
	memory_set_page_flag(w.memory, gpa(0x302000), PAGE_CODE); /* the page table */
	memory_set_page_flag(w.memory, gpa(0x302000), PAGE_TABLE);
	struct walk_context c = context_of(&w);
	struct walk_source source = walk_source_of(&c, &w.vcpu.state, w.memory);
	struct walk_result r;
	unsigned updates = 0;
	walk_and_commit(&c, &source, gva(0x1000), ACCESS_READ, MMU_SUPERVISOR, &r, &updates);
	assert_int_equal(updates, 4);
	assert_int_equal(log.count, 1);
	assert_int_equal(tables.count, 0);
	assert_int_equal(log.address, 0x302008);
	assert_int_equal(log.size_bytes, 8);
	world_close(&w);
}

static void a_changed_entry_makes_the_walk_start_again(void **state)
{
	struct world w;
	world_open(&w);
	one_mapping(&w, WORLD_4LEVEL, 0x1000, 0x5000, 12, PTE_P | PTE_W);
	struct walk_context c = context_of(&w);
	struct walk_source source = walk_source_of(&c, &w.vcpu.state, w.memory);
	struct walk_result r;
	assert_int_equal(walk(&c, &source, gva(0x1000), ACCESS_WRITE, MMU_SUPERVISOR, &r), WALK_OK);
	world_table(&w, 0x302000)[1] = 0x6000 | PTE_P; /* another processor */
	assert_false(walk_commit(&c, &source, ACCESS_WRITE, &r, NULL));
	assert_true(world_table(&w, 0x302000)[1] == (0x6000 | PTE_P));
	world_close(&w);
}

static void rom_tables_keep_their_bits(void **state)
{
	struct world w;
	world_open(&w);
	one_mapping(&w, WORLD_4LEVEL, 0x1000, 0x5000, 12, PTE_P | PTE_W);
	memory_set_page_flag(w.memory, gpa(0x302000), PAGE_ROM);
	struct walk_context c = context_of(&w);
	struct walk_source source = walk_source_of(&c, &w.vcpu.state, w.memory);
	struct walk_result r;
	assert_int_equal(
		walk_and_commit(&c, &source, gva(0x1000), ACCESS_WRITE, MMU_SUPERVISOR, &r, NULL),
		WALK_OK);
	assert_true(world_table(&w, 0x302000)[1] == (0x5000 | PTE_P | PTE_W));
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_tables_give_what_the_manual_says),
		cmocka_unit_test(commit_sets_accessed_and_dirty_as_a_processor),
		cmocka_unit_test(references_are_the_levels_in_memory),
		cmocka_unit_test(pse36_reaches_above_4g),
		cmocka_unit_test(tables_outside_ram_read_as_all_ones),
		cmocka_unit_test(a_root_that_names_itself_is_every_level),
		cmocka_unit_test(watchers_hear_of_accessed_bits),
		cmocka_unit_test(a_changed_entry_makes_the_walk_start_again),
		cmocka_unit_test(rom_tables_keep_their_bits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
