/*
 * `adaptive`: nested paging and a shadow strategy behind one face, one of them in use.
 *
 * This file is the mechanism; when to change is adaptive_policy.c's. After each interval of guest
 * instructions the policy is shown what the interval counted. A change empties the TLB, and the
 * shadow's tables when they go out of use: from then on nobody keeps them right. They are filled
 * again as any shadow is, and that is charged as it happens; the nested tables stay, for no guest
 * can change what they say.
 *
 * The new shadow is built a table at a time: the first fault in a table fills every entry whose
 * page the guest accessed before, so that it takes an exit for each table in use, not each page.
 *
 * A VMM sees CR3 writes (counted where they do not exit, too) and TLB misses (performance counters)
 * in both modes. What a shadow would cost is not to be seen under nested paging; samples say it:
 *   - One page table in TABLES_ONE_IN, chosen by its frame number, is write-protected in the host's
 *     table; a write to one exits, charged, and stands for as many. After TABLE_EXITS exits the
 *     interval knows enough and lets the rest through. Only while the policy wants to know.
 *   - Misses on one page in PAGES_ONE_IN are looked at (processors report the addresses of sampled
 *     misses: Intel's PEBS, AMD's IBS): was the page missed before, so that a shadow would hold it?
 *     And how many tables would that shadow have, with how many entries? The samples are few enough
 *     to be taken as free.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "paging/adaptive_policy.h"
#include "paging/catalogue.h"
#include "paging/mmu_private.h"

#define SHADOW_DEFAULT "shadow-cache"
#define INTERVAL_DEFAULT 200000u
#define TABLES_ONE_IN 16u
#define TABLE_EXITS 2u
#define TABLES_MAX 1024u
#define PAGES_ONE_IN 16u
#define SPANS_ONE_IN 4u
#define SPAN_SHIFT 9u /* pages of a last-level table */
#define LIVE_INTERVALS 32u
#define SEEN_MAX 8192u /* a power of two */
#define SEEN_WAYS 8u   /* of a set, the one that was not missed for longest is written over */

/* A sample of numbers that were missed, and in which interval the last time. 0: none. */
struct seen {
	uint64_t number[SEEN_MAX];
	uint32_t used[SEEN_MAX];
	uint16_t weight[SEEN_MAX]; /* spans: entries that a fault there would fill */
	bool has_any;
};

struct adaptive {
	struct strategy base;
	struct strategy *mode[ADAPTIVE_MODE_COUNT];
	const struct strategy_entry *entry[ADAPTIVE_MODE_COUNT];
	struct adaptive_policy policy;
	uint64_t interval, interval_start; /* instructions */
	struct ledger before;		   /* at its start */
	uint64_t cr3_writes, invlpgs;	   /* since its start */
	bool is_emptied_by_cr3;		   /* the shadow strategy keeps nothing over a CR3 write */
	/* Nested mode: sampled page tables, frame numbers in no order. */
	uint64_t tables[TABLES_MAX];
	unsigned table_count;
	unsigned table_exits; /* in this interval */
	uint64_t tables_end;  /* instruction at which it knew enough; 0: not yet */
	bool is_watching;     /* it asks, since its start */
	/* What a shadow would hold: pages, and what a last-level table spans. */
	struct seen pages, spans;
	uint32_t interval_count;
	unsigned new_faults;	 /* of a shadow in this interval, estimated */
	unsigned prefetch_count; /* entries that a fault of the shadow fills at most */
};

static struct strategy *current(const struct adaptive *a)
{
	return a->mode[a->policy.mode];
}

static uint64_t instructions(const struct adaptive *a)
{
	return ledger_total(a->base.mmu->vcpu->ledger, EVENT_INSTRUCTION);
}

/* Neighbours must not meet in a set, so one multiplication is not enough. */
static uint64_t scatter(uint64_t number)
{
	number *= 0x9e3779b97f4a7c15ull;
	number = (number ^ number >> 29) * 0xbf58476d1ce4e5b9ull;
	return number >> 32;
}

static void forget_tables(struct adaptive *a)
{
	for (unsigned i = 0; i < a->table_count; i++)
		memory_release_table(a->base.mmu->memory, gpa(a->tables[i] << PAGE_SHIFT));
	a->table_count = 0;
}

static void forget_pages(struct adaptive *a)
{
	if (a->pages.has_any)
		memset(&a->pages, 0, sizeof(a->pages));
	if (a->spans.has_any)
		memset(&a->spans, 0, sizeof(a->spans));
}

/* The last-level table that maps `address` joins the sample if its number says so. */
static void sample_table(struct adaptive *a, gva_t address, enum access_kind kind,
			 enum mmu_mode mode)
{
	struct mmu *mmu = a->base.mmu;
	struct walk_source source = mmu_walk_source(mmu);
	struct walk_result r;
	if (a->table_count == TABLES_MAX)
		return;
	walk(&mmu->private->context, &source, address, kind, mode, &r);
	const struct walk_step *leaf = &r.step[r.step_count - 1];
	if (!r.step_count || leaf->level != 1 || scatter(gpa_gfn(leaf->address)) % TABLES_ONE_IN)
		return;
	uint64_t gfn = gpa_gfn(leaf->address);
	for (unsigned i = 0; i < a->table_count; i++)
		if (a->tables[i] == gfn)
			return;
	a->tables[a->table_count++] = gfn;
	memory_hold_table(mmu->memory, gpa(gfn << PAGE_SHIFT));
}

/* True if it was not there. `number` is not 0 and stands for `one_in`. *at is its place; *is_first:
 * this interval did not see it before. */
static bool see(struct seen *s, uint64_t number, unsigned one_in, uint32_t now, uint64_t *at,
		bool *is_first)
{
	uint64_t first = scatter(number) / one_in * SEEN_WAYS % SEEN_MAX, slot = first;
	for (uint64_t i = first; i < first + SEEN_WAYS; i++) {
		if (s->number[i] == number) {
			*is_first = s->used[i] != now;
			*at = i;
			s->used[i] = now;
			return false;
		}
		if (!s->number[i] || s->used[i] < s->used[slot])
			slot = i;
	}
	s->has_any = true;
	s->number[slot] = number;
	s->used[slot] = now;
	s->weight[slot] = 0;
	*is_first = true;
	*at = slot;
	return true;
}

/* Has the guest accessed the page before? Then its entry was filled ahead with its table's. */
static bool was_accessed(const struct walk_result *r)
{
	return r->step_count && r->step[r->step_count - 1].entry & PTE_A;
}

/* The entries of the last-level table that such a fault would fill. */
static uint16_t count_accessed(const struct adaptive *a, const struct walk_result *r)
{
	unsigned entry_bytes = a->base.mmu->private->context.mode->entry_bytes;
	uint16_t count = 0;
	if (!r->step_count)
		return 0;
	const struct walk_step *leaf = &r->step[r->step_count - 1];
	if (leaf->level != 1 || !leaf->host)
		return 0;
	const uint8_t *table = leaf->host - (leaf->address.v & PAGE_OFFSET_MASK);
	for (unsigned at = 0; at < PAGE_SIZE_BYTES; at += entry_bytes)
		count += (table[at] & (PTE_P | PTE_A)) == (PTE_P | PTE_A);
	return count;
}

static void sample_page(struct adaptive *a, gva_t address, enum access_kind kind,
			enum mmu_mode mode)
{
	uint64_t root = a->is_emptied_by_cr3 ? 0 : a->base.mmu->vcpu->state.cr3 & ~0xfffull;
	uint64_t page = (address.v >> PAGE_SHIFT) + (root << 12) + 1;
	uint64_t span = (address.v >> (PAGE_SHIFT + SPAN_SHIFT)) + (root << 12) + 1;
	bool is_page = !(scatter(page) % PAGES_ONE_IN), is_span = !(scatter(span) % SPANS_ONE_IN);
	bool is_first = false, is_new_page, is_new_span;
	uint64_t at;
	is_new_page = is_page &&
		      see(&a->pages, page, PAGES_ONE_IN, a->interval_count, &at, &is_first);
	is_first = false;
	is_new_span = is_span &&
		      see(&a->spans, span, SPANS_ONE_IN, a->interval_count, &at, &is_first);
	if (!is_new_page && !is_first)
		return;
	struct walk_result r;
	struct walk_source source = mmu_walk_source(a->base.mmu);
	walk(&a->base.mmu->private->context, &source, address, kind, mode, &r);
	if (is_new_page && (a->prefetch_count == 1 || !was_accessed(&r)))
		a->new_faults += PAGES_ONE_IN;
	if (is_new_span && a->prefetch_count > 1)
		a->new_faults += SPANS_ONE_IN;
	if (is_first)
		a->spans.weight[at] = count_accessed(a, &r);
}

/* The memory's watcher. Other strategies' tables come here too. */
static void table_written(void *opaque, gpa_t address, unsigned size_bytes)
{
	struct adaptive *a = opaque;
	struct mmu *mmu = a->base.mmu;
	uint64_t gfn = gpa_gfn(address);
	if (!a->is_watching || a->tables_end || scatter(gfn) % TABLES_ONE_IN)
		return;
	for (unsigned i = 0; i < a->table_count; i++) {
		if (a->tables[i] != gfn)
			continue;
		ledger_charge(mmu->ledger, EVENT_EXIT_TABLE_WRITE);
		mmu_note_exit(mmu);
		if (++a->table_exits == TABLE_EXITS)
			a->tables_end = instructions(a);
		return;
	}
}

/* Those missed of late, the rest of a shadow would not be built again soon; and what they weigh. */
static unsigned count_live(const struct seen *s, uint32_t now, unsigned *weight)
{
	unsigned count = 0;
	*weight = 0;
	for (unsigned i = 0; s->has_any && i < SEEN_MAX; i++) {
		bool is_live = s->number[i] && now - s->used[i] <= LIVE_INTERVALS;
		count += is_live;
		*weight += is_live ? s->weight[i] : 0;
	}
	return count;
}

static uint64_t since(const struct adaptive *a, enum event e)
{
	return ledger_total(a->base.mmu->ledger, e) - ledger_total(&a->before, e);
}

/* A fault for each table or group of entries, the entries beside it ahead. */
static void estimate_build(const struct adaptive *a, struct adaptive_sample *s)
{
	unsigned weight, none;
	uint64_t pages = (uint64_t)count_live(&a->pages, a->interval_count, &none) * PAGES_ONE_IN;
	uint64_t spans = (uint64_t)count_live(&a->spans, a->interval_count, &weight) * SPANS_ONE_IN;
	uint64_t entries = (uint64_t)weight * SPANS_ONE_IN;
	s->build_faults = pages / a->prefetch_count;
	if (s->build_faults < spans)
		s->build_faults = spans < pages ? spans : pages;
	if (entries > spans * a->prefetch_count)
		entries = spans * a->prefetch_count;
	if (entries < pages)
		entries = pages;
	s->build_prefetches = entries - s->build_faults;
}

static struct adaptive_sample sample_shadow(const struct adaptive *a, uint64_t now)
{
	return (struct adaptive_sample){
		.instructions = now - a->interval_start,
		.tlb_misses = since(a, EVENT_TLB_MISS),
		.cr3_writes = since(a, EVENT_EXIT_CR3_WRITE),
		.invlpgs = since(a, EVENT_EXIT_INVLPG),
		.table_writes = since(a, EVENT_EXIT_TABLE_WRITE),
		.hidden_faults = since(a, EVENT_EXIT_PF_HIDDEN),
		.prefetches = since(a, EVENT_SHADOW_PREFETCH),
		.true_faults = since(a, EVENT_EXIT_PF_TRUE),
	};
}

static struct adaptive_sample sample_nested(const struct adaptive *a, uint64_t now)
{
	struct adaptive_sample s = {
		.instructions = now - a->interval_start,
		.tlb_misses = since(a, EVENT_TLB_MISS),
		.cr3_writes = a->cr3_writes,
		.invlpgs = a->invlpgs,
		.hidden_faults = a->new_faults,
	};
	for (unsigned i = 0; i < ARRAY_COUNT(a->policy.prices.reference); i++)
		s.host_cycles += since(a, (enum event)(EVENT_REF_HOST_L1 + i)) *
				 a->policy.prices.reference[i];
	uint64_t all = now - a->interval_start;
	uint64_t watched = a->tables_end ? a->tables_end - a->interval_start : all;
	s.table_writes = a->table_exits * TABLES_ONE_IN * all / (watched ? watched : 1);
	s.has_table_writes = a->is_watching;
	estimate_build(a, &s);
	return s;
}

static void begin_interval(struct adaptive *a, uint64_t now)
{
	a->interval_start = now;
	a->interval_count++;
	a->before = *a->base.mmu->ledger;
	a->cr3_writes = a->invlpgs = 0;
	a->table_exits = 0;
	a->tables_end = 0;
	a->new_faults = 0;
	if (a->is_watching && !a->policy.wants_table_writes)
		forget_tables(a);
	a->is_watching = a->policy.wants_table_writes;
}

static const uint8_t *adaptive_old_table(const struct strategy *s, gpa_t at)
{
	const struct strategy *c = current((const struct adaptive *)(const void *)s);
	return c->old_table ? c->old_table(c, at) : NULL;
}

/* What --verify may expect. */
static void take_age(struct adaptive *a)
{
	a->base.is_retaining = current(a)->is_retaining;
	a->base.old_table = adaptive_old_table;
}

static void change_mode(struct adaptive *a, enum adaptive_mode from)
{
	struct mmu *mmu = a->base.mmu;
	if (from == ADAPTIVE_SHADOW)
		a->mode[from]->ops->reset(a->mode[from]);
	ledger_charge(mmu->ledger, EVENT_PAGING_SWITCH);
	mmu_use_entry(mmu, a->entry[a->policy.mode]);
	take_age(a);
	mmu_flush_tlb(mmu);
}

/* At a boundary between accesses: is the interval over, or the shadow no longer worth it? */
static void look(struct adaptive *a)
{
	uint64_t now = instructions(a);
	enum adaptive_mode from = a->policy.mode;
	bool is_over = now - a->interval_start >= a->interval;
	if (likely(!is_over && from == ADAPTIVE_NESTED))
		return;
	struct adaptive_sample s = from == ADAPTIVE_NESTED ? sample_nested(a, now)
							   : sample_shadow(a, now);
	if (!is_over && !adaptive_is_overdue(&a->policy, &s))
		return;
	if (adaptive_decide(&a->policy, &s) != from)
		change_mode(a, from);
	begin_interval(a, now);
}

/* ---- the hooks ---- */

static void adaptive_destroy(struct strategy *s)
{
	struct adaptive *a = (struct adaptive *)s;
	forget_tables(a);
	memory_remove_watcher(s->mmu->memory, a);
	for (unsigned m = 0; m < ADAPTIVE_MODE_COUNT; m++)
		if (a->mode[m])
			a->mode[m]->ops->destroy(a->mode[m]);
	free(a);
}

static const char *shadow_name(const struct mmu_config *config)
{
	return config->adaptive_shadow ? config->adaptive_shadow : SHADOW_DEFAULT;
}

static int create_modes(struct adaptive *a, struct mmu *mmu, const struct mmu_config *config,
			struct error *e)
{
	const char *names[ADAPTIVE_MODE_COUNT] = {"nested", shadow_name(config)};
	for (unsigned m = 0; m < ADAPTIVE_MODE_COUNT; m++) {
		a->entry[m] = strategy_find(names[m], strlen(names[m]));
		if (!a->entry[m])
			return strategy_refuse(names[m], strlen(names[m]), e);
		int r = a->entry[m]->ops->create(&a->mode[m], mmu, config, e);
		if (r)
			return r;
	}
	return 0;
}

static int adaptive_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			   struct error *e)
{
	struct adaptive *a = calloc(1, sizeof(*a));
	if (!a)
		return error_set(e, -ENOMEM, "no host memory for the paging strategy");
	a->base = (struct strategy){&adaptive_ops, mmu};
	a->interval = config->adaptive_interval ? config->adaptive_interval : INTERVAL_DEFAULT;
	adaptive_policy_init(&a->policy, config->adaptive_prices,
			     config->is_adaptive_by_rates ? ADAPTIVE_BY_RATES : ADAPTIVE_BY_COST);
	a->is_emptied_by_cr3 = strcmp(shadow_name(config), "shadow-cache") != 0;
	struct mmu_config own = *config;
	if (!own.prefetch_count)
		own.prefetch_count = MMU_PREFETCH_TABLE;
	bool has_prefetch = !a->is_emptied_by_cr3 ||
			    !strcmp(shadow_name(config), "shadow-prefetch");
	a->prefetch_count = has_prefetch ? own.prefetch_count : 1;
	struct memory_watcher watcher = {table_written, a, PAGE_TABLE};
	int r = create_modes(a, mmu, &own, e);
	if (!r && (r = memory_add_watcher(mmu->memory, watcher)))
		error_set(e, r, "too many strategies watch one guest's memory");
	if (r) {
		adaptive_destroy(&a->base);
		return r;
	}
	mmu_use_entry(mmu, a->entry[ADAPTIVE_NESTED]);
	take_age(a);
	*out = &a->base;
	return 0;
}

static bool adaptive_fill(struct strategy *s, gva_t address, enum access_kind kind,
			  enum mmu_mode mode, struct translation *out, uint32_t *error_code)
{
	struct adaptive *a = (struct adaptive *)s;
	look(a);
	if (a->policy.mode == ADAPTIVE_NESTED) {
		if (a->is_watching)
			sample_table(a, address, kind, mode);
		sample_page(a, address, kind, mode);
	}
	return current(a)->ops->fill(current(a), address, kind, mode, out, error_code);
}

static bool adaptive_cr3_written(struct strategy *s, bool no_flush)
{
	struct adaptive *a = (struct adaptive *)s;
	a->cr3_writes++;
	if (a->is_emptied_by_cr3)
		forget_pages(a);
	look(a);
	return current(a)->ops->cr3_written(current(a), no_flush);
}

static void adaptive_invalidate(struct strategy *s, int type, unsigned pcid, gva_t address)
{
	struct adaptive *a = (struct adaptive *)s;
	a->invlpgs++;
	look(a);
	current(a)->ops->invalidate(current(a), type, pcid, address);
}

static void adaptive_reset(struct strategy *s)
{
	struct adaptive *a = (struct adaptive *)s;
	for (unsigned m = 0; m < ADAPTIVE_MODE_COUNT; m++)
		a->mode[m]->ops->reset(a->mode[m]);
	forget_tables(a);
	forget_pages(a);
}

static void adaptive_memory_changed(struct strategy *s)
{
	struct adaptive *a = (struct adaptive *)s;
	for (unsigned m = 0; m < ADAPTIVE_MODE_COUNT; m++)
		a->mode[m]->ops->memory_changed(a->mode[m]);
	forget_tables(a);
	forget_pages(a);
}

const struct strategy_ops adaptive_ops = {
	.create = adaptive_create,
	.destroy = adaptive_destroy,
	.fill = adaptive_fill,
	.cr3_written = adaptive_cr3_written,
	.invalidate = adaptive_invalidate,
	.reset = adaptive_reset,
	.memory_changed = adaptive_memory_changed,
};
