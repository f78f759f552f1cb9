/*
 * A device writes into a page that the guest uses as a page table, while another space runs: every
 * strategy that keeps shadows must know when the space comes back, as it does for a guest's own
 * writes. The control is the same write behind everybody's back: the strategies that watch are then
 * wrong, so the test can fail. (Not in hard mode, which throws shadows away too soon to be stale.)
 */
#include "paging_world.h"

#include "paging/mmu_private.h"
#include "virtio/queue.h"

#define ROOT 0x100000ull /* four tables, one behind the other */
#define OTHER_ROOT 0x104000ull
#define LEAF (ROOT + 0x3000)
#define PAGE_A 0x200000ull
#define PAGE_B 0x300000ull
#define PRESENT 0x27ull /* accessed, user, writable */

static void map(struct world *w, uint64_t root, uint64_t page)
{
	for (unsigned level = 0; level < 3; level++)
		world_table(w, root + 4096 * level)[0] = (root + 4096 * (level + 1)) | PRESENT;
	world_table(w, root + 4096 * 3)[0] = page | PRESENT | 0x40;
}

static uint64_t translate(struct mmu *mmu)
{
	struct mmu_page page;
	struct page_fault fault;
	if (!mmu_translate(mmu, gva(0), ACCESS_READ, MMU_SUPERVISOR, &page, &fault))
		fail_msg("no translation");
	return page.gpa.v;
}

static void switch_to(struct world *w, struct mmu *mmu, uint64_t root)
{
	w->vcpu.state.cr3 = root;
	mmu_cr3_written(mmu, false);
}

/* What a device does with a buffer that its driver gave it. */
static void dma(struct world *w, uint64_t at, uint64_t value)
{
	struct virtq_state state;
	struct virtq q;
	struct virtq_chain c = {.in_count = 1, .in_bytes = sizeof(value)};
	c.segments[0] = (struct virtq_segment){gpa(at), memory_host(w->memory, gpa(at), 8), 8};
	virtq_init(&q, &state, w->memory, 8);
	assert_int_equal(virtq_write(&q, &c, 0, &value, sizeof(value)), sizeof(value));
}

/* Where the page is after the table was changed while another space ran. */
static uint64_t after_change(const char *strategy, bool is_told)
{
	struct tlb_geometry g = geometry_intel();
	struct world w;
	struct mmu *mmu;
	world_open(&w);
	world_set_mode(&w, WORLD_4LEVEL);
	struct mmu_config config = {.geometry = &g};
	assert_int_equal(mmu_parse_strategy(strategy, &config, NULL), 0);
	map(&w, ROOT, PAGE_A);
	map(&w, OTHER_ROOT, PAGE_A);
	w.vcpu.state.cr3 = ROOT;
	assert_int_equal(mmu_create(&mmu, &config, &w.vcpu, w.memory, NULL), 0);
	assert_int_equal(translate(mmu), PAGE_A);
	switch_to(&w, mmu, OTHER_ROOT);
	assert_int_equal(translate(mmu), PAGE_A);
	if (is_told)
		dma(&w, LEAF, PAGE_B | PRESENT | 0x40);
	else
		world_table(&w, LEAF)[0] = PAGE_B | PRESENT | 0x40;
	switch_to(&w, mmu, ROOT);
	uint64_t page = translate(mmu);
	mmu_destroy(mmu);
	world_close(&w);
	return page;
}

static void test_dma_into_a_table(void **state)
{
	static const char *const strategies[] = {"native",
						 "nested",
						 "shadow",
						 "shadow-sync",
						 "shadow-prefetch",
						 "shadow-cache",
						 "shadow-cache:sync=oos",
						 "agile",
						 "adaptive"};
	unsigned wrong_when_not_told = 0;
	for (size_t i = 0; i < ARRAY_COUNT(strategies); i++) {
		if (after_change(strategies[i], true) != PAGE_B)
			fail_msg("%s did not see the device's write", strategies[i]);
		wrong_when_not_told += after_change(strategies[i], false) != PAGE_B;
	}
#ifdef GNOMON_HARD
	(void)wrong_when_not_told;
#else
	assert_true(wrong_when_not_told > 0);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_dma_into_a_table)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
