/*
 * Hostile page tables and control bits under every strategy, with --verify as the judge.
 *
 * The input is a program: control bits, a table image, then operations (access, change an entry,
 * CR3 write, INVLPG, INVPCID, exit, change of controls, watch a page). Nothing may crash, hang or
 * differ from the reference.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "ledger/ledger.h"
#include "memory/memory.h"
#include "paging/mmu.h"
#include "x86/tlb_geometry.h"

#define RAM_BYTES (8ull << 20)
#define OPERATIONS_MAX 200

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes);

struct input {
	const uint8_t *at;
	size_t left;
};

static uint64_t take(struct input *in, unsigned count)
{
	uint64_t v = 0;
	unsigned n = count < in->left ? count : (unsigned)in->left;
	memcpy(&v, in->at, n);
	in->at += n;
	in->left -= n;
	return v;
}

struct machine {
	struct memory *memory;
	struct vcpu vcpu;
	struct cpu_model model;
	struct ledger ledger;
	struct mmu *mmu;
	uint64_t held_pages; /* whose PAGE_TABLE this program holds, as another strategy would */
};

static const struct tlb_geometry geometry = {
	.l1d = {{{"L1 D", 4, 2, TLB_4K}, {"L1 D 2M", 2, 0, TLB_2M | TLB_1G}}, 2},
	.l1i = {{{"L1 I", 3, 0, TLB_4K | TLB_2M}}, 1},
	.l2d = {{{"L2", 16, 4, TLB_4K | TLB_2M | TLB_4M}}, 1},
	.l2_unified = true,
	.pcid = true,
};

static void take_controls(struct machine *m, struct input *in)
{
	struct vcpu_state *s = &m->vcpu.state;
	uint64_t c = take(in, 2);
	s->cr0 = CR0_PE | (c & 1 ? CR0_WP : 0) | ((c & 0x1e) != 2 ? CR0_PG : 0);
	s->cr4 = (c & 0x20 ? CR4_PSE : 0) | (c & 0x40 ? CR4_PAE : 0) | (c & 0x80 ? CR4_PGE : 0) |
		 (c & 0x100 ? CR4_SMEP : 0) | (c & 0x200 ? CR4_SMAP : 0);
	s->efer = c & 0x400 ? EFER_NXE : 0;
	if (c & 0x40 && c & 0x800 && s->cr0 & CR0_PG) {
		s->efer |= EFER_LME | EFER_LMA;
		s->cr4 |= (c & 0x1000 ? CR4_LA57 : 0) | (c & 0x2000 ? CR4_PCIDE : 0);
	}
}

/* Entries whose addresses mostly stay among the first pages, so that walks go deep. */
static uint64_t take_entry(struct machine *m, struct input *in)
{
	uint64_t flags = take(in, 2), page = take(in, 1);
	uint64_t e = (flags & 0xfff) | (page & 31) << 12 | (page & 0xc0 ? 0 : take(in, 4) << 20);
	if (m->vcpu.state.cr4 & CR4_PAE && flags & 0x8000)
		e |= PTE_NX;
	return flags & 0x7000 ? e | PTE_P : e;
}

static gva_t take_address(struct machine *m, struct input *in)
{
	uint64_t choice = take(in, 2), a = 0;
	for (unsigned level = 0; level < 5; level++)
		a |= (choice >> (3 * level) & 7) << (12 + 9 * level);
	a |= take(in, 1) << 4;
	if (choice & 0x8000)
		a = take(in, 8);
	if (!(m->vcpu.state.efer & EFER_LMA))
		return gva((uint32_t)a);
	return gva(sign_extend(a, m->vcpu.state.cr4 & CR4_LA57 ? 57 : 48));
}

static void write_entry(struct machine *m, struct input *in)
{
	uint64_t where = take(in, 2), e = take_entry(m, in);
	unsigned size = m->vcpu.state.cr4 & CR4_PAE ? 8 : 4;
	memory_write(m->memory, gpa((where & 31) << 12 | (where >> 5 & 7) * size), &e, size);
}

static void load_cr3(struct machine *m, struct input *in)
{
	struct vcpu_state *s = &m->vcpu.state;
	uint64_t v = take(in, 2);
	s->cr3 = (v & 31) << 12 | (s->cr4 & CR4_PCIDE ? v >> 5 & 3 : 0);
	if (v & 0x8000)
		s->cr3 = take(in, 4) << 12 & ((1ull << m->model.physical_bits) - 1);
	for (unsigned i = 0; i < 4; i++)
		s->pdpte[i] = take_entry(m, in);
	mmu_cr3_written(m->mmu, v & 0x4000 && s->cr4 & CR4_PCIDE);
}

static void translate(struct machine *m, struct input *in)
{
	struct mmu_page page;
	struct page_fault fault;
	uint64_t how = take(in, 1);
	gva_t a = take_address(m, in);
	enum access_kind kind = (enum access_kind)(how % 3);
	enum mmu_mode mode = (enum mmu_mode)(how / 3 % 3);
	if (mmu_fast_lookup(m->mmu, a.v, a.v, kind, mode))
		return;
	if (!mmu_translate(m->mmu, a, kind, mode, &page, &fault) || !page.host)
		return;
	if (kind != ACCESS_WRITE) {
		*(volatile uint8_t *)page.host;
		return;
	}
	/* The guest stores an entry where it may, perhaps into one of its tables. */
	uint64_t e = take_entry(m, in), room = PAGE_SIZE_BYTES - (page.gpa.v & PAGE_OFFSET_MASK);
	unsigned count = 1u << (how >> 4 & 3);
	count = count < room ? count : (unsigned)room;
	memcpy(page.host, &e, count);
	if (page.flags)
		memory_notify_write(m->memory, page.gpa, count);
}

static void hold_page(struct machine *m, unsigned page, bool hold)
{
	if ((m->held_pages >> page & 1) == hold)
		return;
	m->held_pages ^= BIT(page);
	if (hold)
		memory_hold_table(m->memory, gpa_from_gfn(page));
	else
		memory_release_table(m->memory, gpa_from_gfn(page));
}

static void operate(struct machine *m, struct input *in)
{
	struct vcpu_state *s = &m->vcpu.state;
	uint64_t cr0 = s->cr0, cr4 = s->cr4, efer = s->efer;
	struct mmu_walk_step steps[6];
	gpa_t at;
	switch (take(in, 1) & 15) {
	case 0: load_cr3(m, in); break;
	case 1: mmu_invlpg(m->mmu, take_address(m, in)); break;
	case 2: mmu_invpcid(m->mmu, take(in, 1) & 3, take(in, 1) & 3, take_address(m, in)); break;
	case 3: mmu_note_engine_exit(m->mmu); break;
	case 4:
		take_controls(m, in);
		mmu_controls_changed(m->mmu, cr0, cr4, efer);
		break;
	case 5: hold_page(m, (unsigned)take(in, 1) & 63, true); break;
	case 6: hold_page(m, (unsigned)take(in, 1) & 63, false); break;
	case 7:
		mmu_peek(m->mmu, take_address(m, in), &at);
		mmu_walk_steps(m->mmu, take_address(m, in), steps);
		break;
	case 8:
	case 9: write_entry(m, in); break;
	default: translate(m, in); break;
	}
}

static void judge(const struct mmu *mmu, bool is_thorough)
{
	char why[200];
	if (mmu->difference) {
		fprintf(stderr, "%s\n", mmu->difference);
		abort();
	}
	if (is_thorough && !mmu_audit(mmu, why, sizeof(why))) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
}

static void run(const char *strategy, const uint8_t *bytes, size_t size_bytes)
{
	static const uint8_t widths[] = {36, 39, 46, 52};
	struct input in = {bytes, size_bytes};
	struct machine m = {.memory = NULL};
	uint64_t shape = take(&in, 1);
	struct mmu_config config = {.geometry = &geometry,
				    .verify = true,
				    .host_levels = 3 + (shape & 1) + (shape >> 1 & 1),
				    .host_page_shift = 12 + 9 * (unsigned)((shape >> 2) % 3)};
	if (mmu_parse_strategy(strategy, &config, NULL))
		abort();
	m.model.physical_bits = widths[shape >> 4 & 3];
	m.model.has[FEATURE_PSE36] = m.model.has[FEATURE_PDPE1GB] = shape & 0x40;
	m.vcpu.model = &m.model;
	m.vcpu.ledger = &m.ledger;
	if (memory_create(&m.memory, RAM_BYTES, NULL))
		abort();
	take_controls(&m, &in);
	for (unsigned i = 0; i < 60; i++)
		write_entry(&m, &in);
	if (mmu_create(&m.mmu, &config, &m.vcpu, m.memory, NULL))
		abort();
	for (unsigned i = 0; i < OPERATIONS_MAX && in.left; i++) {
		operate(&m, &in);
		judge(m.mmu, i % 16 == 0);
	}
	judge(m.mmu, true);
	mmu_destroy(m.mmu);
	memory_destroy(m.memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size_bytes)
{
	static const char *const settings[] = {
		"shadow:limit=64K",
		"shadow-sync:pf-filter=on:limit=64K",
		"shadow-prefetch:prefetch=3:pf-filter=on",
		"shadow-cache:prefetch=table:roots=1:cr3-exits=off",
		"shadow-cache:sync=oos:limit=64K",
		"shadow-cache:sync=oos:pf-filter=on:prefetch=8:cr3-exits=off",
	};
	const char *name;
	for (size_t i = 0; (name = mmu_strategy_name(i, NULL)); i++)
		run(name, bytes, size_bytes);
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		run(settings[i], bytes, size_bytes);
	return 0;
}
