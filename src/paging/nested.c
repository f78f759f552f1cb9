/*
 * `nested`: two-dimensional paging (AMD's NPT, Intel's EPT).
 *
 * The VMM keeps one radix table from guest-physical to host-physical addresses, filled at first
 * touch by an exit (a nested violation) and never changed by what the guest does to its own tables.
 * The hardware walks the guest's tables and translates the address of each entry, and of the page,
 * through that table: (g + 1) * (n + 1) - 1 references for g guest and n host levels.
 *
 * The host table has 1 to 5 levels of 9 bits; the highest takes all address bits that are left
 * over, so that one level is a flat array indexed by the frame number (Ahn, Jin, Huh, ISCA 2012).
 * Host pages of 2M or 1G end the walk one or two levels early, where RAM is whole. Entry: bit 0
 * present, bit 7 large, the rest an HPA. A and D of host entries are not modelled.
 *
 * Where a guest puts its tables decides how many different host entries locate them (Dong et al.,
 * section 4.B). `tables=confined` and `scattered` locate them as if the guest had put them side by
 * side, or each into a 2M region of its own (host_physical.h); `as-is` where they are.
 *
 * After a violation the processor starts the instruction anew, so the references of the walk that
 * failed are charged and then those of the one that succeeds. Device memory has no entry: each
 * access walks and exits (the engine charges that exit).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "paging/catalogue.h"
#include "paging/host_physical.h"
#include "paging/mmu_private.h"

#define NESTED_P BIT(0)
#define NESTED_LARGE BIT(7)
#define NESTED_ADDRESS 0x000ffffffffff000ull
#define NESTED_INDEX_BITS 9
#define GIB (1ull << 30)
#define LARGE_SHIFT 21

struct nested {
	struct strategy base;
	struct table_pool pool;
	unsigned level_count, page_shift_max;
	uint32_t root; /* first of root_pages */
	uint64_t root_entries;
	uint32_t root_pages;
	enum mmu_table_placement placement;
	struct placed_tables placed; /* unless they are as they are */
	hpa_t placed_hpa;	     /* of its region */
	/* The walk that goes on: the host's part of it, and whether it ended at a missing entry. */
	struct host_walk host[WALK_LEVELS_MAX + 1];
	unsigned host_count;
	bool has_violated;
};

struct nested_result {
	hpa_t hpa;
	unsigned page_shift;
};

static unsigned level_shift(unsigned level)
{
	return PAGE_SHIFT + NESTED_INDEX_BITS * (level - 1);
}

/* One past the highest guest-physical address of RAM. */
static uint64_t guest_end(const struct memory *m)
{
	uint64_t end = 0;
	for (unsigned i = 0; i < m->slot_count; i++) {
		uint64_t slot_end = m->slots[i].base.v + m->slots[i].size_bytes;
		if (slot_end > end)
			end = slot_end;
	}
	return end;
}

static int init_tables(struct nested *n, struct error *e)
{
	const struct memory *m = n->base.mmu->memory;
	unsigned top = level_shift(n->level_count);
	uint64_t end = guest_end(m);
	int r = 0;
	if (n->placement != MMU_TABLES_AS_IS) {
		bool is_confined = n->placement == MMU_TABLES_CONFINED;
		r = placed_tables_init(&n->placed, gpa(align_up(end, GIB)),
				       is_confined ? PAGE_SHIFT : LARGE_SHIFT, e);
		if (r)
			return r;
		end = placed_tables_end(&n->placed).v;
	}
	n->root_entries = (end + (1ull << top) - 1) >> top;
	n->root_pages = (uint32_t)((n->root_entries * 8 + PAGE_SIZE_BYTES - 1) >> PAGE_SHIFT);
	uint64_t count = n->root_pages;
	for (unsigned level = 1; level < n->level_count; level++)
		count += (end >> level_shift(level + 1)) + 1;
	r = table_pool_init(&n->pool, hpa(align_up(m->ram_bytes, GIB)), (uint32_t)count, e);
	if (r)
		return r;
	n->root = table_pool_alloc(&n->pool, n->root_pages);
	n->placed_hpa = hpa(align_up(n->pool.base.v + (count << PAGE_SHIFT), GIB));
	return 0;
}

static void drop_tables(struct nested *n)
{
	table_pool_fini(&n->pool);
	placed_tables_fini(&n->placed);
}

static void nested_destroy(struct strategy *s)
{
	struct nested *n = (struct nested *)s;
	drop_tables(n);
	free(n);
}

static int nested_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			 struct error *e)
{
	struct nested *n = calloc(1, sizeof(*n));
	if (!n)
		return error_set(e, -ENOMEM, "no host memory for the paging strategy");
	n->base = (struct strategy){&nested_ops, mmu};
	n->level_count = config->host_levels;
	n->page_shift_max = config->host_page_shift;
	n->placement = config->table_placement;
	int r = init_tables(n, e);
	if (r) {
		nested_destroy(&n->base);
		return r;
	}
	*out = &n->base;
	return 0;
}

static uint64_t *entry_of(const struct nested *n, uint32_t table, unsigned level, gpa_t a)
{
	uint64_t index = a.v >> level_shift(level);
	if (level < n->level_count)
		index &= (1u << NESTED_INDEX_BITS) - 1;
	return table_pool_entries(&n->pool, table) + index;
}

/* Is `a` in the region of placed tables, where nothing is for a guest that names it itself? */
static bool is_placed(const struct nested *n, gpa_t a)
{
	return n->placement != MMU_TABLES_AS_IS && placed_tables_has(&n->placed, a);
}

/* The hardware's walk, with what it referred to. False: no entry. */
static bool nested_walk(const struct nested *n, gpa_t a, bool is_table, struct nested_result *r,
			struct walk_path *path)
{
	uint32_t table = n->root;
	path->count = 0;
	if (a.v >> level_shift(n->level_count) >= n->root_entries ||
	    (!is_table && is_placed(n, a))) {
		walk_path_add(path, n->level_count, level_shift(n->level_count),
			      table_pool_hpa(&n->pool, n->root).v, 0);
		return false;
	}
	for (unsigned level = n->level_count;; level--) {
		const uint64_t *at = entry_of(n, table, level, a);
		uint64_t entry = *at;
		walk_path_add(path, level, level_shift(level), table_pool_address(&n->pool, at).v,
			      entry);
		if (!(entry & NESTED_P))
			return false;
		uint64_t address = entry & NESTED_ADDRESS;
		if (level == 1 || (entry & NESTED_LARGE)) {
			r->page_shift = level_shift(level);
			r->hpa = hpa(address | (a.v & ((1ull << r->page_shift) - 1)));
			return true;
		}
		table = table_pool_page(&n->pool, hpa(address));
	}
}

/* The VMM's handler of a violation: builds the entry for RAM at `a`. The pool holds all tables that
 * RAM can need. */
static void nested_map(struct nested *n, gpa_t a, unsigned page_shift)
{
	uint64_t *entry;
	uint32_t table = n->root;
	for (unsigned level = n->level_count;; level--) {
		entry = entry_of(n, table, level, a);
		if (level_shift(level) == page_shift)
			break;
		if (!(*entry & NESTED_P)) {
			table = table_pool_alloc(&n->pool, 1);
			*entry = table_pool_hpa(&n->pool, table).v | NESTED_P;
		} else {
			table = table_pool_page(&n->pool, hpa(*entry & NESTED_ADDRESS));
		}
	}
	gpa_t first = gpa(align_down(a.v, 1ull << page_shift));
	hpa_t to = is_placed(n, a) ? hpa(n->placed_hpa.v + (first.v - n->placed.base.v))
				   : hpa_from_gpa(n->base.mmu->memory, first);
	*entry = to.v | NESTED_P | (page_shift > PAGE_SHIFT ? NESTED_LARGE : 0);
}

/* One more location of the walk that goes on: of a table that may have been placed, or of anything.
 * True: *r. False: `a` is not RAM, or (has_violated) the walk ends here. */
static bool nested_translate(struct nested *n, gpa_t a, bool is_table, struct nested_result *r)
{
	struct host_walk *host = &n->host[n->host_count++];
	host->address = a;
	if (likely(nested_walk(n, a, is_table, r, &host->path)))
		return true;
	n->has_violated = memory_slot(n->base.mmu->memory, a) || (is_table && is_placed(n, a));
	return false;
}

/* The exit: the last location found no entry for RAM. */
static void handle_violation(struct nested *n)
{
	struct mmu *mmu = n->base.mmu;
	gpa_t a = n->host[n->host_count - 1].address;
	uint64_t start = ledger_exit_begin(mmu->ledger);
	ledger_charge(mmu->ledger, EVENT_EXIT_NESTED_VIOLATION);
	ledger_charge(mmu->ledger, EVENT_NESTED_FILL);
	nested_map(n, a,
		   is_placed(n, a) ? n->page_shift_max
				   : host_page_shift_at(mmu->memory, a, n->page_shift_max));
	mmu_note_exit(mmu);
	ledger_exit_end(mmu->ledger, EVENT_EXIT_NESTED_VIOLATION, start);
}

/* The second dimension of the guest walk: where is the guest's entry? */
static bool nested_locate(void *opaque, gpa_t a, unsigned size_bytes, uint8_t **host)
{
	struct nested *n = opaque;
	struct memory *m = n->base.mmu->memory;
	struct nested_result r;
	bool has_place = n->placement != MMU_TABLES_AS_IS && memory_slot(m, a);
	if (has_place)
		a = placed_tables_place(&n->placed, a);
	if (!nested_translate(n, a, has_place, &r))
		return !n->has_violated;
	if (has_place && is_placed(n, a)) {
		gpa_t placed = gpa(n->placed.base.v + (r.hpa.v - n->placed_hpa.v));
		*host = memory_host(m, placed_tables_origin(&n->placed, placed), size_bytes);
	} else {
		*host = hpa_host(m, r.hpa);
	}
	return true;
}

/* One attempt of the hardware. WALK_ABORTED: it ended in a violation. */
static enum walk_outcome attempt(struct nested *n, gva_t address, enum access_kind kind,
				 enum mmu_mode mode, struct walk_result *r, struct translation *out)
{
	struct mmu *mmu = n->base.mmu;
	struct walk_source source = mmu_walk_source(mmu);
	struct nested_result page;
	unsigned updates = 0;
	bool is_ram = false;
	source.locate = nested_locate;
	source.opaque = n;
	do {
		n->has_violated = false;
		n->host_count = 0;
		if (walk(&mmu->private->context, &source, address, kind, mode, r) == WALK_OK)
			is_ram = nested_translate(n, r->gpa, false, &page);
		mmu_charge_nested(mmu, address, r, n->host, n->host_count);
	} while (r->outcome == WALK_OK && !n->has_violated &&
		 !walk_commit(&mmu->private->context, &source, kind, r, &updates));
	ledger_charge_many(mmu->ledger, EVENT_AD_UPDATE, updates);
	if (n->has_violated)
		return WALK_ABORTED;
	if (r->outcome != WALK_OK)
		return r->outcome;
	*out = (struct translation){.gpa = r->gpa, .guest_shift = r->page_shift, .flags = r->flags};
	if (is_ram) {
		out->host = hpa_host(mmu->memory, page.hpa);
		out->page_shift = (uint8_t)(page.page_shift < r->page_shift ? page.page_shift
									    : r->page_shift);
	} else {
		out->page_shift = PAGE_SHIFT;
		out->is_uncached = true;
	}
	return WALK_OK;
}

static bool nested_fill(struct strategy *s, gva_t address, enum access_kind kind,
			enum mmu_mode mode, struct translation *out, uint32_t *error_code)
{
	struct nested *n = (struct nested *)s;
	struct walk_result r;
	enum walk_outcome outcome;
	while ((outcome = attempt(n, address, kind, mode, &r, out)) == WALK_ABORTED)
		handle_violation(n);
	*error_code = r.error_code;
	return outcome == WALK_OK;
}

static bool nested_cr3_written(struct strategy *s, bool no_flush)
{
	return false;
}

static void nested_invalidate(struct strategy *s, int type, unsigned pcid, gva_t address)
{
}

/* Nothing here depends on the guest's tables or controls. */
static void nested_reset(struct strategy *s)
{
}

static void nested_memory_changed(struct strategy *s)
{
	struct nested *n = (struct nested *)s;
	drop_tables(n);
	int r = init_tables(n, NULL);
	assert(!r);
	(void)r;
}

const struct strategy_ops nested_ops = {
	.create = nested_create,
	.destroy = nested_destroy,
	.fill = nested_fill,
	.cr3_written = nested_cr3_written,
	.invalidate = nested_invalidate,
	.reset = nested_reset,
	.memory_changed = nested_memory_changed,
};
