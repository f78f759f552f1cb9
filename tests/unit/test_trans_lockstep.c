/*
 * --lockstep finds a translation that is wrong, and nothing where it is right; what is not
 * translated is counted; and the TLB of a space forgets what it must and keeps the rest.
 */
#include "machine.h"

#include "engine/trans/space.h"
#include "engine/trans/trans_private.h"

static void add_and_halt(struct machine *m)
{
	static const uint8_t code[] = {0x83, 0xc0, 0x05, /* add eax, 5 */
				       0xeb, 0x00,	 /* jmp */
				       0xf4};		 /* hlt */
	poke(m, CODE, code, sizeof(code));
	enter_long(m, 0);
	m->v.state.gpr[GPR_RAX] = 1;
	go(m);
}

static void test_a_right_translation_passes(void **state)
{
	struct machine *m = *state;
	add_and_halt(m);
	assert_int_equal(m->exit.reason, EXIT_HALT);
	assert_int_equal(m->v.state.gpr[GPR_RAX], 6);
}

/* Makes the translated ADD add 6. */
static bool spoil(struct trans *trans)
{
	static const uint8_t add[] = {0x83, 0xc0, 0x05};
	for (size_t at = trans->code_fixed; at + 3 < trans->code_used; at++)
		if (!memcmp(trans->writable + at, add, sizeof(add))) {
			trans->writable[at + 2] = 6;
			return true;
		}
	return false;
}

/* What was translated runs again, spoilt and with this in RAX, up to the difference. */
static void run_spoilt(struct machine *m, uint64_t rax)
{
	const struct interp *vm = (const struct interp *)m->engine;
	assert_int_equal(m->exit.reason, EXIT_HALT);
	assert_true(spoil((struct trans *)(uintptr_t)vm->translator));
	m->v.state.activity = ACTIVITY_RUNNING;
	m->v.state.rip = CODE;
	m->v.state.gpr[GPR_RAX] = rax;
	interp_ops.run(m->engine, 0, clock_now(&m->clock) + 1000, &m->exit);
	assert_int_equal(m->exit.reason, EXIT_INTERNAL);
}

static void test_a_wrong_translation_is_found(void **state)
{
	struct machine *m = *state;
	add_and_halt(m);
	run_spoilt(m, 1);
	assert_non_null(strstr(m->exit.text, "registers differ after the block at 10000"));
	assert_non_null(strstr(m->exit.text, "interp 0000000000000006 trans 0000000000000007"));
	assert_non_null(strstr(m->exit.text, "add eax, 0x05"));
	/* The interpreter's outcome is what stays. */
	assert_int_equal(m->v.state.gpr[GPR_RAX], 6);
}

static void test_a_wrong_store_is_found(void **state)
{
	static const uint8_t code[] = {0x83, 0xc0, 0x05, /* add eax, 5 */
				       0x89, 0x04, 0x25, 0,    0,
				       0x06, 0x00,		  /* mov [DATA], eax */
				       0xb8, 0,	   0,	 0,    0, /* mov eax, 0 */
				       0x85, 0xc0, 0xeb, 0x00, 0xf4};
	struct machine *m = *state;
	poke(m, CODE, code, sizeof(code));
	enter_long(m, 0);
	go(m);
	run_spoilt(m, 0);
	assert_non_null(strstr(m->exit.text, "memory differs"));
	assert_int_equal(peek(m, DATA, 4), 5);
}

/* What the interpreter faults at and its translation does not. */
static void test_a_missing_fault_is_found(void **state)
{
	static const uint8_t code[] = {0x83, 0xc0, 0x05, /* add eax, 5 */
				       0x8a, 0x08,	 /* mov cl, [rax] */
				       0xeb, 0x00,	 /* jmp */
				       0xf4};		 /* hlt */
	struct machine *m = *state;
	poke(m, CODE, code, sizeof(code));
	enter_long(m, 0);
	go(m);
	run_spoilt(m, (uint32_t)-6);
	assert_non_null(strstr(m->exit.text, "a fault that only the interpreter meets"));
	assert_non_null(strstr(m->exit.text, "vector 14, error code 0, CR2 00000000ffffffff"));
}

/* What follows from RFLAGS is put back with it: a user's page is readable up to CLAC. */
static void test_a_block_may_end_access_to_user_pages(void **state)
{
	static const uint8_t code[] = {0x0f, 0x01, 0xcb,		   /* stac */
				       0x8b, 0x04, 0x25, 0, 0, 0x26, 0x00, /* mov eax, [...] */
				       0x0f, 0x01, 0xca,		   /* clac */
				       0xf4};				   /* hlt */
	struct machine *m = *state;
	poke(m, CODE, code, sizeof(code));
	poke_value(m, DATA, 7, 4);
	enter_long(m, 0);
	poke_value(m, TABLES + 0x2000, 0x83, 8); /* the kernel's; the same memory, the user's: */
	poke_value(m, TABLES + 0x2008, 0x87, 8);
	m->v.state.cr4 |= CR4_SMAP;
	go(m);
	assert_halted_at(m, sizeof(code));
	assert_int_equal(m->v.state.gpr[GPR_RAX], 7);
}

/* A block that a fault ends leaves no page writable whose next writes nobody would see. */
static void test_writes_behind_a_fault_happen_once(void **state)
{
	static const uint8_t code[] = {0xc7, 0x04, 0x25, 0, 0, 6,    0,
				       7,    0,	   0,	 0,		 /* mov [DATA], 7 */
				       0x8b, 0x04, 0x25, 0, 0, 0x40, 0}; /* mov eax, ... */
	static const uint8_t add[] = {0x83, 0x04, 0x25, 0, 0, 6, 0, 5,	 /* add [DATA], 5 */
				      0xeb, 0x00, 0xf4};
	struct machine *m = *state;
	poke(m, CODE, code, sizeof(code));
	enter_long(m, 0);
	poke(m, handler(VECTOR_PF), add, sizeof(add));
	go(m);
	assert_int_equal(m->exit.reason, EXIT_HALT);
	assert_int_equal(peek(m, DATA, 4), 12);
}

/* Runs to a HLT; what was counted until then. */
static void run_to_halt(struct machine *m, struct trans_statistics *s)
{
	struct error e;
	go(m);
	assert_int_equal(m->exit.reason, EXIT_HALT);
	assert_int_equal(trans_statistics_read(m->engine, s, &e), 0);
}

static void test_what_is_interpreted_is_counted(void **state)
{
	static const uint8_t code[] = {0x0f, 0xa2, 0xff, 0xcf, /* cpuid; dec edi */
				       0x75, 0xfa, 0xf4};      /* jnz; hlt */
	struct machine *m = *state;
	struct trans_statistics s;
	poke(m, CODE, code, sizeof(code));
	enter_long(m, 0);
	m->v.state.gpr[GPR_RDI] = 5;
	run_to_halt(m, &s);
	assert_int_equal(s.executed, 16);
	assert_int_equal(s.translated, 10);
	assert_int_equal(s.count, 2);
	assert_string_equal(s.list[0].name, "cpuid");
	assert_int_equal(s.list[0].why, TRANS_NOT_TRANSLATED);
	assert_int_equal(s.list[0].count, 5);
	assert_string_equal(s.list[1].name, "hlt");
	trans_statistics_fini(&s);
}

/* Each piece of a long REP is an instruction, and what it gave way in front of is not. */
static void test_pieces_are_counted_once(void **state)
{
	static const uint8_t code[] = {0xb9, 0,	   0x30, 0,    0,     /* mov ecx, 12288 */
				       0xf3, 0xaa, 0xff, 0xce,	      /* rep stosb; dec esi */
				       0xff, 0xce, 0xff, 0xce, 0xf4}; /* twice more; hlt */
	struct machine *m = *state;
	struct trans_statistics s;
	poke(m, CODE, code, sizeof(code));
	enter_long(m, 0);
	m->v.state.gpr[GPR_RDI] = DATA;
	run_to_halt(m, &s);
	assert_int_equal(s.executed, 8);
	assert_int_equal(s.translated, 5);
	assert_int_equal(s.count, 2);
	assert_string_equal(s.list[0].name, "stosb");
	assert_int_equal(s.list[0].why, TRANS_RARE);
	assert_int_equal(s.list[0].count, 2);
	assert_string_equal(s.list[1].name, "hlt");
	trans_statistics_fini(&s);
}

/* One that faults was not executed, nor was what is behind it. */
static void test_what_faults_is_not_counted(void **state)
{
	static const uint8_t code[] = {0xff, 0xce, 0x0f, 0x32, 0xff, 0xce, 0xf4}; /* dec; rdmsr */
	static const uint8_t load[] = {0xff, 0xce, 0x8b, 0x04, 0x25, 0,
				       0,    0x40, 0,	 0xff, 0xce, 0xf4}; /* dec; mov eax, ... */
	struct machine *m = *state;
	struct trans_statistics s;
	poke(m, CODE, code, sizeof(code));
	enter_long(m, 0);
	m->v.state.gpr[GPR_RCX] = 0xdead;
	poke(m, handler(VECTOR_GP), load, sizeof(load));
	run_to_halt(m, &s);
	assert_int_equal(m->v.state.rip, handler(VECTOR_PF) + 1);
	assert_int_equal(s.executed, 3);
	assert_int_equal(s.translated, 2);
	assert_int_equal(s.count, 1);
	assert_string_equal(s.list[0].name, "hlt");
	trans_statistics_fini(&s);
}

/* ---- spaces ---- */

static bool holds(const struct space *p, uint64_t address, bool is_write)
{
	const uint64_t *tags = is_write ? p->write : p->read;
	return (tags[space_slot(address)] ^ address) < PAGE_SIZE_BYTES;
}

static void fill(struct space *p, uint64_t address, unsigned shift, bool is_global, bool is_write)
{
	static uint8_t ram[2 * PAGE_SIZE_BYTES];
	struct mmu_page page = {.host = ram + (address & PAGE_OFFSET_MASK),
				.guest_shift = (uint8_t)shift,
				.is_global = is_global};
	space_fill(p, address, &page, is_write);
}

static void test_a_set_of_slots_is_walked_in_order(void **state)
{
	static struct slot_set s;
	static const unsigned slots[] = {0, 63, 64, 4095, 4096, 40000, 65535};
	unsigned slot = 0;
	assert_false(slot_set_next(&s, &slot));
	for (unsigned k = ARRAY_COUNT(slots); k-- > 0;)
		slot_set_add(&s, slots[k]);
	for (unsigned k = 0; k < ARRAY_COUNT(slots); k++, slot++) {
		assert_true(slot_set_next(&s, &slot));
		assert_int_equal(slot, slots[k]);
	}
	assert_false(slot_set_next(&s, &slot));
	slot_set_clear(&s);
	slot = 0;
	assert_false(slot_set_next(&s, &slot));
}

static struct space *make_space(void)
{
	struct space *p = calloc(1, sizeof(*p));
	assert_non_null(p);
	space_init(p);
	return p;
}

/* ---- accesses in two pages ---- */

struct crossing {
	struct frame f;
	struct trans trans;
	struct trans_vcpu t;
	struct site site;
	uint8_t ram[3 * PAGE_SIZE_BYTES];
};

#define LOW 0x7000ull

static struct crossing *make_crossing(unsigned host_page, bool is_write)
{
	struct crossing *x = calloc(1, sizeof(*x));
	assert_non_null(x);
	for (unsigned k = 0; k < sizeof(x->ram); k++)
		x->ram[k] = (uint8_t)(k ^ k >> 8);
	x->site = (struct site){
		.resume = x->ram, .look_up_bytes = 7, .size_bytes = 32, .is_write = is_write};
	x->trans.sites = &x->site;
	x->t = (struct trans_vcpu){.trans = &x->trans, .space = make_space()};
	x->f.t = &x->t;
	struct mmu_page page = {.host = x->ram, .guest_shift = PAGE_SHIFT};
	space_fill(x->t.space, LOW, &page, is_write);
	page.host = x->ram + host_page * PAGE_SIZE_BYTES;
	space_fill(x->t.space, LOW + PAGE_SIZE_BYTES, &page, is_write);
	x->f.linear = LOW + PAGE_SIZE_BYTES - 5;
	return x;
}

static void free_crossing(struct crossing *x)
{
	free(x->t.space);
	free(x);
}

static void test_pages_side_by_side_are_one_operand(void **state)
{
	struct crossing *x = make_crossing(1, true);
	assert_ptr_equal(crossing_find(&x->f), x->ram + 7);
	assert_ptr_equal(x->f.operand_page + x->f.operand_offset, x->ram + PAGE_SIZE_BYTES - 5);
	space_protect(x->t.space, x->ram + PAGE_SIZE_BYTES);
	assert_null(crossing_find(&x->f));
	free_crossing(x);
}

static void test_a_read_of_others_reads_a_copy(void **state)
{
	struct crossing *x = make_crossing(2, false);
	assert_ptr_equal(crossing_find(&x->f), x->ram + 7);
	const uint8_t *operand = x->f.operand_page + x->f.operand_offset;
	assert_memory_equal(operand, x->ram + PAGE_SIZE_BYTES - 5, 5);
	assert_memory_equal(operand + 5, x->ram + 2 * PAGE_SIZE_BYTES, 27);
	x->f.linear = LOW + PAGE_SIZE_BYTES - 32; /* in one page: it is not there */
	assert_null(crossing_find(&x->f));
	x->f.linear = LOW + 2 * PAGE_SIZE_BYTES - 1; /* half of it is not there */
	assert_null(crossing_find(&x->f));
	free_crossing(x);
}

static void test_a_write_to_others_is_the_interpreters(void **state)
{
	struct crossing *x = make_crossing(2, true);
	assert_null(crossing_find(&x->f));
	free_crossing(x);
}

static void test_an_empty_slot_matches_nothing(void **state)
{
	struct space *p = make_space();
	for (uint64_t page = 0; page < 2 * SPACE_TLB_COUNT; page++) {
		assert_false(holds(p, page << PAGE_SHIFT, false));
		assert_false(holds(p, ~(page << PAGE_SHIFT), true));
	}
	free(p);
}

static void test_reading_does_not_grant_writing(void **state)
{
	struct space *p = make_space();
	fill(p, 0x5000, PAGE_SHIFT, false, false);
	assert_true(holds(p, 0x5fff, false));
	assert_false(holds(p, 0x5000, true));
	fill(p, 0x5000, PAGE_SHIFT, false, true);
	assert_true(holds(p, 0x5000, true));
	assert_true(holds(p, 0x5000, false));
	space_drop_page(p, 0x5123, false);
	assert_false(holds(p, 0x5000, false));
	free(p);
}

static void test_a_large_page_goes_as_a_whole(void **state)
{
	struct space *p = make_space();
	fill(p, 0x201000, 21, false, false);
	space_drop_page(p, 0x3fe000, false);
	assert_false(holds(p, 0x201000, false));
	fill(p, 0x401000, 21, false, false);
	space_drop_page(p, 0x3fe000, false);
	assert_true(holds(p, 0x401000, false));
	free(p);
}

static void test_a_cr3_write_leaves_what_is_global(void **state)
{
	struct space *p = make_space();
	fill(p, 0x1000, PAGE_SHIFT, true, false);
	space_drop_local(p, false);
	assert_true(holds(p, 0x1000, false));
	fill(p, 0x1000, PAGE_SHIFT, false, false);
	space_drop_local(p, false);
	assert_false(holds(p, 0x1000, false));
	free(p);
}

static void test_jumps_go_with_their_page(void **state)
{
	struct space *p = make_space();
	const uint8_t *code = (const uint8_t *)p;
	space_remember(p, 0x401000, code);
	space_drop_page(p, 0x402000, false);
	assert_int_equal(p->jumps[space_jump_slot(0x401000)].rip, 0x401000);
	space_drop_page(p, 0x401fff, false);
	assert_int_not_equal(p->jumps[space_jump_slot(0x401000)].rip, 0x401000);
	space_remember(p, 0x401000, code);
	space_drop_page(p, 0x402000, true); /* of one large page */
	assert_int_not_equal(p->jumps[space_jump_slot(0x401000)].rip, 0x401000);
	free(p);
}

/* Not even addresses that RIP cannot be: a branch tries to go there before it faults. */
static void test_no_jump_leads_to_an_empty_slot(void **state)
{
	struct space *p = make_space();
	for (unsigned slot = 0; slot < SPACE_JUMP_COUNT; slot++)
		assert_null(space_recall(p, p->jumps[slot].rip));
	space_remember(p, 0, (const uint8_t *)p);
	space_remember(p, 4, (const uint8_t *)p);
	space_flush_jumps(p);
	assert_null(space_recall(p, 0));
	assert_null(space_recall(p, 4));
	free(p);
}

/* The next address from `rip` on that wants this slot. */
static uint64_t next_in_slot(uint64_t rip, unsigned slot)
{
	while (space_jump_slot(rip) != slot)
		rip++;
	return rip;
}

/* Each is the other's second place, and something is there already. */
static void test_neighbours_keep_their_slots(void **state)
{
	struct space *p = make_space();
	const unsigned slot = space_jump_slot(0x401000);
	uint64_t other = next_in_slot(0x401001, slot);
	uint64_t neighbour = next_in_slot(0x401000, slot ^ 1);
	space_remember(p, 0x401000, (const uint8_t *)p);
	space_remember(p, other, (const uint8_t *)p + 1);
	space_remember(p, neighbour, (const uint8_t *)p + 2);
	assert_ptr_equal(space_recall(p, other), (const uint8_t *)p + 1);
	assert_ptr_equal(space_recall(p, neighbour), (const uint8_t *)p + 2);
	space_flush_jumps(p);
	space_remember(p, other, (const uint8_t *)p + 1);
	space_remember(p, neighbour, (const uint8_t *)p + 2);
	assert_ptr_equal(space_recall(p, other), (const uint8_t *)p + 1);
	assert_ptr_equal(space_recall(p, neighbour), (const uint8_t *)p + 2);
	free(p);
}

/* Two that want one slot find a place each; a third takes one of theirs. */
static void test_two_jumps_share_a_slot(void **state)
{
	struct space *p = make_space();
	uint64_t rip[3] = {0x401000};
	for (unsigned k = 1; k < 3; k++)
		rip[k] = next_in_slot(rip[k - 1] + 1, space_jump_slot(rip[0]));
	for (unsigned k = 0; k < 2; k++)
		space_remember(p, rip[k], (const uint8_t *)p + k);
	assert_ptr_equal(space_recall(p, rip[0]), p);
	assert_ptr_equal(space_recall(p, rip[1]), (const uint8_t *)p + 1);
	space_remember(p, rip[0], (const uint8_t *)p + 5);
	assert_ptr_equal(space_recall(p, rip[0]), (const uint8_t *)p + 5);
	space_remember(p, rip[2], (const uint8_t *)p + 2);
	assert_ptr_equal(space_recall(p, rip[2]), (const uint8_t *)p + 2);
	space_forget(p, rip[0]);
	space_forget(p, rip[1]);
	assert_null(space_recall(p, rip[0]));
	assert_null(space_recall(p, rip[1]));
	space_flush_jumps(p);
	assert_null(space_recall(p, rip[2]));
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_right_translation_passes, machine_create,
						machine_destroy),
		cmocka_unit_test_setup_teardown(test_a_wrong_translation_is_found, machine_create,
						machine_destroy),
		cmocka_unit_test_setup_teardown(test_a_missing_fault_is_found, machine_create,
						machine_destroy),
		cmocka_unit_test_setup_teardown(test_a_block_may_end_access_to_user_pages,
						machine_create, machine_destroy),
		cmocka_unit_test_setup_teardown(test_a_wrong_store_is_found, machine_create,
						machine_destroy),
		cmocka_unit_test_setup_teardown(test_writes_behind_a_fault_happen_once,
						machine_create, machine_destroy),
		cmocka_unit_test_setup_teardown(test_what_is_interpreted_is_counted, machine_create,
						machine_destroy),
		cmocka_unit_test_setup_teardown(test_pieces_are_counted_once, machine_create,
						machine_destroy),
		cmocka_unit_test_setup_teardown(test_what_faults_is_not_counted, machine_create,
						machine_destroy),
		cmocka_unit_test(test_a_set_of_slots_is_walked_in_order),
		cmocka_unit_test(test_pages_side_by_side_are_one_operand),
		cmocka_unit_test(test_a_read_of_others_reads_a_copy),
		cmocka_unit_test(test_a_write_to_others_is_the_interpreters),
		cmocka_unit_test(test_an_empty_slot_matches_nothing),
		cmocka_unit_test(test_reading_does_not_grant_writing),
		cmocka_unit_test(test_a_large_page_goes_as_a_whole),
		cmocka_unit_test(test_a_cr3_write_leaves_what_is_global),
		cmocka_unit_test(test_jumps_go_with_their_page),
		cmocka_unit_test(test_no_jump_leads_to_an_empty_slot),
		cmocka_unit_test(test_neighbours_keep_their_slots),
		cmocka_unit_test(test_two_jumps_share_a_slot),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
