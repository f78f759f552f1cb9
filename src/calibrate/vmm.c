/*
 * What the software of a VMM takes, measured on our own: the strategies of paging/ on a small
 * machine whose tables lie here.
 *
 * Each figure is a difference: the same accesses with and without the work, so that the modelled
 * TLBs, which a VMM does not have, drop out. (Of a nested fill too little would be left: the
 * modelled hardware walks twice for it.)
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/private.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "ledger/ledger.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "x86/arch.h"
#include "x86/tlb_geometry.h"

#define RAM_BYTES (64ull << 20)
#define TABLES_AT 0x100000ull
#define FRAMES_AT 0x1000000ull /* 16 MB */
/* Guest tables: a root and a PDPT; a PD for a dense and one for a sparse region; their tables.
 */
#define ROOT_AT TABLES_AT
#define PDPT_AT (TABLES_AT + 0x2000)
#define PD_AT(i) (TABLES_AT + 0x3000 + 0x1000ull * (i))
#define DENSE_TABLES 16u   /* every page of them is mapped: 32 MB */
#define SPARSE_TABLES 256u /* one page of each */
#define DENSE_TABLE_AT(i) (TABLES_AT + 0x10000 + 0x1000ull * (i))
#define SPARSE_TABLE_AT(i) (TABLES_AT + 0x100000 + 0x1000ull * (i))
#define DENSE_PAGES (DENSE_TABLES * 512u)
#define SPARSE_BASE (1ull << 30)
#define LEAF (PTE_P | PTE_W | PTE_U | PTE_A | PTE_D)

struct bench {
	struct memory *memory;
	struct cpu_model model;
	struct vcpu vcpu;
	struct ledger ledger;
	struct tlb_geometry geometry;
	struct mmu *mmu;
	unsigned turn;
};

static void put_entry(struct bench *b, uint64_t table, unsigned index, uint64_t entry)
{
	memcpy(memory_host(b->memory, gpa(table + 8ull * index), 8), &entry, 8);
}

static void make_tables(struct bench *b)
{
	put_entry(b, ROOT_AT, 0, PDPT_AT | LEAF);
	for (unsigned i = 0; i < 2; i++)
		put_entry(b, PDPT_AT, i, PD_AT(i) | LEAF);
	for (unsigned t = 0; t < DENSE_TABLES; t++) {
		put_entry(b, PD_AT(0), t, DENSE_TABLE_AT(t) | LEAF);
		for (unsigned i = 0; i < 512; i++)
			put_entry(b, DENSE_TABLE_AT(t), i,
				  (FRAMES_AT + ((uint64_t)t * 512 + i) * PAGE_SIZE_BYTES) | LEAF);
	}
	for (unsigned t = 0; t < SPARSE_TABLES; t++) {
		put_entry(b, PD_AT(1), t, SPARSE_TABLE_AT(t) | LEAF);
		put_entry(b, SPARSE_TABLE_AT(t), t, (FRAMES_AT + t * PAGE_SIZE_BYTES) | LEAF);
	}
}

static int bench_open(struct bench *b, const char *strategy, struct error *e)
{
	/* A TLB far smaller than what is touched: every access is a miss. */
	static const struct tlb_geometry small = {.l1d = {{{"L1 D", 16, 4, TLB_4K}}, 1},
						  .l1i = {{{"L1 I", 16, 4, TLB_4K}}, 1},
						  .tagged = true};
	struct mmu_config config = {.geometry = &b->geometry};
	int rc;

	memset(b, 0, sizeof(*b));
	b->geometry = small;
	rc = mmu_parse_strategy(strategy, &config, e);
	if (!rc)
		rc = memory_create(&b->memory, RAM_BYTES, e);
	if (rc)
		return rc;
	b->model.physical_bits = 40;
	b->model.linear_bits = 48;
	b->vcpu.model = &b->model;
	b->vcpu.ledger = &b->ledger;
	b->vcpu.state.cr0 = CR0_PE | CR0_PG | CR0_WP;
	b->vcpu.state.cr4 = CR4_PAE;
	b->vcpu.state.efer = EFER_LMA | EFER_LME;
	b->vcpu.state.cr3 = ROOT_AT;
	make_tables(b);
	return mmu_create(&b->mmu, &config, &b->vcpu, b->memory, e);
}

static void bench_close(struct bench *b)
{
	if (b->mmu)
		mmu_destroy(b->mmu);
	memory_destroy(b->memory);
}

static bool touch(struct mmu *mmu, uint64_t address)
{
	struct page_fault fault;
	struct mmu_page page;

	return mmu_translate(mmu, gva(address), ACCESS_READ, MMU_SUPERVISOR, &page, &fault);
}

static bool touch_many(struct mmu *mmu, uint64_t base, uint64_t stride, unsigned count)
{
	bool is_good = true;

	for (unsigned i = 0; i < count; i++)
		is_good &= touch(mmu, base + stride * i);
	return is_good;
}

static double walk_many(struct mmu *mmu, uint64_t base, uint64_t stride, unsigned count)
{
	double start = now_seconds();
	gpa_t page;

	for (unsigned i = 0; i < count; i++)
		if (!mmu_peek(mmu, gva(base + stride * i), &page))
			return 1;
	return now_seconds() - start;
}

/*
 * Seconds that each touch takes more when nothing is there yet, the walk of the guest's tables not
 * counted (the exit's handling has it): the best of a few first passes less the best of the passes
 * after them.
 */
static double first_touches(struct bench *b, uint64_t base, uint64_t stride, unsigned count)
{
	double first = 1, later = 1, walk = 1;

	for (unsigned i = 0; i < 5; i++) {
		mmu_reset(b->mmu);
		mmu_memory_changed(b->mmu);

		double start = now_seconds();
		bool is_good = touch_many(b->mmu, base, stride, count);
		double middle = now_seconds();

		is_good &= touch_many(b->mmu, base, stride, count);
		if (!is_good)
			return -1;
		first = fmin(first, middle - start);
		later = fmin(later, now_seconds() - middle);
		walk = fmin(walk, walk_many(b->mmu, base, stride, count));
	}
	return first > later + walk ? (first - later - walk) / count : -1;
}

static double dense_once(void *opaque)
{
	return first_touches(opaque, 0, PAGE_SIZE_BYTES, DENSE_PAGES / 4);
}

static double sparse_once(void *opaque)
{
	return first_touches(opaque, SPARSE_BASE, (512 + 1) * PAGE_SIZE_BYTES, SPARSE_TABLES);
}

/* One touch of each dense table, which brings all its entries. */
static double group_once(void *opaque)
{
	return first_touches(opaque, 0, 512 * PAGE_SIZE_BYTES, DENSE_TABLES);
}

/* A write to one entry of each dense table, which is used in between. */
static double update_once(void *opaque)
{
	enum { rounds = 64 };
	struct bench *b = opaque;
	double took = 0;

	for (unsigned r = 0; r < rounds; r++) {
		unsigned index = b->turn++ % 512;

		if (!touch_many(b->mmu, index * PAGE_SIZE_BYTES, 512 * PAGE_SIZE_BYTES,
				DENSE_TABLES))
			return -1;
		double start = now_seconds();
		for (unsigned t = 0; t < DENSE_TABLES; t++) {
			uint64_t frame = (uint64_t)t * 512 + index;
			uint64_t entry = (FRAMES_AT + frame * PAGE_SIZE_BYTES) | LEAF;

			memory_write(b->memory, gpa(DENSE_TABLE_AT(t) + 8ull * index), &entry, 8);
		}
		took += now_seconds() - start;
	}
	return took / (rounds * DENSE_TABLES);
}

static const struct vmm_row {
	enum measure_id id;
	const char *strategy;
	double (*once)(void *opaque);
} rows[] = {
	{MEASURE_VMM_FILL, "shadow", dense_once},
	{MEASURE_VMM_TABLE, "shadow", sparse_once},
	{MEASURE_VMM_PREFETCH, "shadow-prefetch", group_once},
	{MEASURE_VMM_UPDATE, "shadow-cache:sync=strict", update_once},
};

static void measure_row(struct run *r, const struct vmm_row *row, struct bench *b)
{
	struct measure *m = &r->out->measure[row->id];
	struct error e = {0};

	run_next(r, row->id);
	if (bench_open(b, row->strategy, &e))
		measure_refuse(m, "%.110s", e.text);
	else if (!sample(&(struct sampler){row->once, b, run_samples(r), 3}, m))
		measure_refuse(m, "too short to tell from the modelled TLBs");
	bench_close(b);
}

/* `m` holds the time of one such event and of `whole`; leaves the former's, of one in `parts`. */
static void take_off(struct measure *m, const struct measure *whole, double parts)
{
	if (!m->is_available)
		return;
	if (!whole->is_available || m->value <= whole->value) {
		measure_refuse(m, "too short to tell from the fill beside it");
		return;
	}
	m->nanoseconds = (m->nanoseconds - whole->nanoseconds) / parts;
	m->value = (m->value - whole->value) / parts;
	m->lowest = m->lowest > whole->lowest ? (m->lowest - whole->lowest) / parts : 0;
}

int measure_vmm(struct run *r, struct error *e)
{
	struct measure *m = r->out->measure;
	struct bench *b = malloc(sizeof(*b));

	if (!b)
		return error_set(e, -ENOMEM, "no memory to measure with");
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		measure_row(r, &rows[i], b);
	free(b);
	/* A first touch of a sparse table makes a table and fills one entry; with prefetch it makes
	 * a table and fills 512. */
	take_off(&m[MEASURE_VMM_PREFETCH], &m[MEASURE_VMM_TABLE], 511);
	take_off(&m[MEASURE_VMM_TABLE], &m[MEASURE_VMM_FILL], 1);
	return 0;
}
