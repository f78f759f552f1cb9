/*
 * `agile`: one walk that starts in shadow tables and, below a switching bit in a shadow entry, goes
 * on in two dimensions (Gandhi, Hill, Swift, ISCA 2016). Each guest table is in one of two states;
 * a nested table makes all below it nested.
 *
 *     shadow: as under `shadow-cache`: in sync, write-protected, a write exits
 *     nested: the guest's table itself is walked; writes are free
 *
 *   shadow -> nested  at the second write within an interval
 *   nested -> shadow  after intervals without a write (the VMM scans the host's dirty bits) in
 * which MISSES_MIN walks went through it, twice as many for each time that it fell back
 *
 * Shadows are built when the scan decides on them, with all entries whose pages the guest accessed
 * before, so they cost no exits; a scan is one change of mode, however many tables take part in it.
 *
 * A table that the VMM meets for the first time is nested, so that what lives shortly costs no
 * exits (the paper starts each process in nested mode).
 *
 * The hardware is the idealised one of the paper: it sets A and D in the guest's tables itself,
 * also for pages that a shadow leaf maps (then by a whole two-dimensional walk); CR3 writes do not
 * exit, for a cache of roots maps the guest's to the shadow's, unless the root is in shadow state
 * and not kept; INVLPG does not. So what a TLB holds is as old as the guest lets it be, global
 * pages outlive CR3 writes, and the VMM flushes only to protect a table. Only fills of the shadow
 * and writes to its tables exit. A walk makes one reference for each shadow level above the switch,
 * one for each guest level below, and one for each level of the host's table for each
 * guest-physical address below; the switching entry holds the host's address of the table that it
 * names, a nested root's is looked up.
 *
 * The host's table is dense: level l has one entry for each 2^(12 + 9 (l - 1)) bytes, side by side.
 * Walk caches shorten the part above the switch and the part below it, each for itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "paging/catalogue.h"
#include "paging/shadow.h"

#define INTERVAL_DEFAULT 1000000u   /* instructions */
#define WRITES_MAX 2u		    /* in an interval; then a table is nested */
#define MISSES_MIN 32u		    /* and no write between them: they pay for a shadow */
#define RELAPSES_MAX 6u		    /* each doubles that number */
#define PREFETCH MMU_PREFETCH_TABLE /* a fault fills the whole table, too */
#define IDLE_INTERVALS_MAX 8u	    /* then a nested table is forgotten */

/* Where the host's table is: above RAM and the shadow's pool, each level in a place of its own. */
#define POOL_ROOM BIT(35)
#define LEVEL_ROOM BIT(33)

enum table_state { TABLE_UNKNOWN, TABLE_NESTED, TABLE_SHADOWED };

/* A page of guest RAM that is a table. */
struct agile_table {
	uint8_t state; /* unknown: as nested, but nobody looks at it */
	uint8_t write_count, idle_intervals;
	uint8_t relapse_count;
	bool is_used;	     /* in this interval */
	uint32_t miss_count; /* since the last interval with a write */
	uint32_t interval;   /* that the writes are of, while shadowed */
};

struct agile {
	struct shadow_strategy shadow; /* first */
	struct agile_table *tables;    /* by place in RAM */
	uint64_t *nested;	       /* frame numbers of the nested tables that are looked at */
	uint32_t nested_count, nested_room;
	uint64_t interval_length, interval_end; /* instructions */
	uint32_t interval;
	uint8_t *touched; /* by page of RAM: the host's table has it */
	unsigned host_levels;
};

static struct agile *agile_of(struct strategy *s)
{
	return (struct agile *)s;
}

static struct shadow *core_of(struct agile *a)
{
	return &a->shadow.core;
}

static struct agile_table *table_of(const struct agile *a, uint64_t gfn)
{
	uint64_t index = memory_page_index(a->shadow.base.mmu->memory, gpa_from_gfn(gfn));
	return index == MEMORY_NO_PAGE ? NULL : &a->tables[index];
}

/* The core asks, for tables in RAM. */
static bool is_nested(const void *opaque, uint64_t gfn)
{
	return table_of(opaque, gfn)->state != TABLE_SHADOWED;
}

static bool is_root_nested(const struct agile *a)
{
	struct walk_source source = mmu_walk_source(a->shadow.base.mmu);
	struct agile_table *t = table_of(a, gpa_gfn(source.root));
	/* PAE's registers are as good as a shadow: their tables decide. */
	if (a->shadow.core.context.mode == &paging_modes[PAGING_PAE])
		return false;
	return !t || t->state != TABLE_SHADOWED;
}

/* States */

/* Without memory for the list a table stays unknown: nested, and never shadowed. */
static void look_at(struct agile *a, uint64_t gfn, struct agile_table *t, uint8_t relapse_count)
{
	*t = (struct agile_table){.state = TABLE_UNKNOWN};
	if (a->nested_count == a->nested_room) {
		uint32_t room = a->nested_room ? a->nested_room * 2 : 256;
		uint64_t *more = realloc(a->nested, room * sizeof(*more));
		if (!more)
			return;
		a->nested = more;
		a->nested_room = room;
	}
	a->nested[a->nested_count++] = gfn;
	*t = (struct agile_table){.state = TABLE_NESTED, .relapse_count = relapse_count};
	memory_hold_table(a->shadow.base.mmu->memory, gpa_from_gfn(gfn));
}

static void make_nested(struct agile *a, uint64_t gfn, struct agile_table *t)
{
	struct shadow *s = core_of(a);
	look_at(a, gfn, t, (uint8_t)(t->relapse_count + (t->relapse_count < RELAPSES_MAX)));
	shadow_switch_table(s, gfn);
	ledger_charge(s->mmu->ledger, EVENT_PAGING_SWITCH);
}

/* The interval is over for a nested table: was it clean, and is it worth a shadow? */
static bool take_interval(struct agile_table *t)
{
	if (t->write_count)
		t->miss_count = 0;
	t->idle_intervals = t->is_used ? 0 : (uint8_t)(t->idle_intervals + 1);
	t->write_count = 0;
	t->is_used = false;
	return t->miss_count >= MISSES_MIN << t->relapse_count;
}

static void scan(struct agile *a)
{
	struct shadow *s = core_of(a);
	uint32_t kept = 0, switched_count = 0;
	a->interval++;
	for (uint32_t i = 0; i < a->nested_count; i++) {
		uint64_t gfn = a->nested[i];
		struct agile_table *t = table_of(a, gfn);
		bool is_shadowed = take_interval(t);
		if (!is_shadowed && t->idle_intervals < IDLE_INTERVALS_MAX) {
			a->nested[kept++] = gfn;
			continue;
		}
		memory_release_table(s->mmu->memory, gpa_from_gfn(gfn));
		if (!is_shadowed) {
			*t = (struct agile_table){.state = TABLE_UNKNOWN};
			continue;
		}
		*t = (struct agile_table){.state = TABLE_SHADOWED,
					  .relapse_count = t->relapse_count,
					  .interval = a->interval};
		shadow_unswitch_table(s, gfn);
		switched_count++;
	}
	a->nested_count = kept;
	if (!switched_count)
		return;
	ledger_charge(s->mmu->ledger, EVENT_PAGING_SWITCH);
	shadow_build_unswitched(s);
	if (!is_root_nested(a))
		shadow_build_root(s);
	if (s->is_flush_due)
		mmu_flush_tlb(s->mmu);
	s->is_flush_due = false;
}

static void look(struct agile *a)
{
	uint64_t now = ledger_total(a->shadow.base.mmu->vcpu->ledger, EVENT_INSTRUCTION);
	if (likely(now < a->interval_end))
		return;
	a->interval_end = now + a->interval_length;
	scan(a);
}

/* The memory's watcher, after the core's own. */
static void table_written(void *opaque, gpa_t address, unsigned size_bytes)
{
	struct agile *a = opaque;
	uint64_t gfn = gpa_gfn(address);
	struct agile_table *t = table_of(a, gfn);
	if (!t || t->state == TABLE_UNKNOWN)
		return;
	if (t->state == TABLE_NESTED) {
		t->write_count = 1; /* the host's dirty bit */
		return;
	}
	if (!shadow_is_protected(core_of(a), gfn)) { /* no shadow of it is left */
		*t = (struct agile_table){.state = TABLE_UNKNOWN};
		return;
	}
	if (t->interval != a->interval)
		t->write_count = 0;
	t->interval = a->interval;
	if (++t->write_count >= WRITES_MAX)
		make_nested(a, gfn, t);
}

/* The second dimension */

/* Has the host's table the page of `at`, of size `shift`? NULL for what is not RAM. */
static uint8_t *mapped_mark(const struct agile *a, gpa_t at, unsigned *shift)
{
	const struct shadow *s = &a->shadow.core;
	uint64_t index = memory_page_index(s->mmu->memory, at);
	if (index == MEMORY_NO_PAGE)
		return NULL;
	*shift = shadow_shift_at(s, gpa_gfn(at), s->page_shift_max);
	return &a->touched[index & ~((BIT(*shift) >> PAGE_SHIFT) - 1)];
}

/* Whoever shadows a page finds it host memory, so it enters it into the host's table, too. */
static void mapped(void *opaque, uint64_t gfn)
{
	struct agile *a = opaque;
	unsigned shift;
	uint8_t *mark = mapped_mark(a, gpa_from_gfn(gfn), &shift);
	if (!mark || *mark)
		return;
	*mark = 1;
	ledger_charge(core_of(a)->mmu->ledger, EVENT_NESTED_FILL);
}

/* One location through the host's table. Its first touch is a violation, as under `nested`. */
static void locate(struct agile *a, gpa_t at, struct host_walk *out)
{
	struct shadow *s = core_of(a);
	struct mmu *mmu = s->mmu;
	unsigned shift = PAGE_SHIFT;
	uint8_t *mark = mapped_mark(a, at, &shift);
	if (mark && !*mark) {
		uint64_t start = ledger_exit_begin(mmu->ledger);
		*mark = 1;
		ledger_charge(mmu->ledger, EVENT_EXIT_NESTED_VIOLATION);
		mmu_note_exit(mmu);
		ledger_charge(mmu->ledger, EVENT_NESTED_FILL);
		ledger_exit_end(mmu->ledger, EVENT_EXIT_NESTED_VIOLATION, start);
	}
	uint64_t base = align_up(mmu->memory->ram_bytes, BIT(30)) + POOL_ROOM;
	unsigned last = (shift - PAGE_SHIFT) / 9 + 1;
	*out = (struct host_walk){.address = at};
	for (unsigned level = a->host_levels; level >= last; level--) {
		unsigned level_shift = PAGE_SHIFT + 9 * (level - 1);
		uint64_t place = (at.v >> level_shift) * 8 % LEVEL_ROOM;
		walk_path_add(&out->path, level, level_shift, base + level * LEVEL_ROOM + place, 0);
	}
}

/* The part of walk `r` below `switch_level` (of the entry with the bit; above all: the root is
 * nested). */
static void charge_nested_part(struct agile *a, gva_t address, const struct walk_result *r,
			       unsigned switch_level)
{
	struct mmu *mmu = a->shadow.base.mmu;
	const struct paging_mode *mode = mmu->private->context.mode;
	bool is_located = switch_level <= r->step[0].level;
	struct host_walk host[WALK_LEVELS_MAX + 1] = {0};
	struct walk_path path = {.count = 0};
	for (unsigned i = 0; i < r->step_count; i++) {
		const struct walk_step *step = &r->step[i];
		if (step->level >= switch_level || mode->level[step->level].is_register)
			continue;
		struct agile_table *t = table_of(a, gpa_gfn(step->address));
		if (t && t->state == TABLE_UNKNOWN)
			look_at(a, gpa_gfn(step->address), t, 0);
		if (t && t->miss_count < UINT32_MAX)
			t->miss_count++;
		if (t)
			t->is_used = true;
		if (!is_located)
			locate(a, step->address, &host[path.count]);
		is_located = false;
		walk_path_add(&path, step->level, mode->level[step->level].shift,
			      t ? hpa_from_gpa(mmu->memory, step->address).v : MMU_UNCACHED,
			      step->entry);
	}
	unsigned host_count = path.count;
	if (r->outcome == WALK_OK)
		locate(a, r->gpa, &host[host_count++]);
	mmu_charge_nested_path(mmu, address, &path, host, host_count, r->outcome == WALK_FAULT);
}

/* The answer of a walk that ended in two dimensions. */
static void answer(struct agile *a, const struct walk_result *r, enum access_kind kind,
		   enum mmu_mode mode, struct translation *out)
{
	struct shadow *s = core_of(a);
	struct mmu *mmu = s->mmu;
	bool is_forced = shadow_is_forced(&mmu->private->context, r->flags, kind, mode);
	int flags = shadow_leaf_flags(s->controls, r->flags, is_forced);
	bool is_ram = memory_slot(mmu->memory, r->gpa);
	bool is_protected = is_ram && shadow_is_protected(s, gpa_gfn(r->gpa));
	if (is_protected && kind == ACCESS_WRITE)
		shadow_charge_exit(s, EVENT_EXIT_TABLE_WRITE);
	if (!is_ram || flags < 0 || (is_protected && kind == ACCESS_WRITE)) {
		shadow_emulate(r, out);
		return;
	}
	unsigned shift = shadow_shift_at(s, gpa_gfn(r->gpa), r->page_shift);
	if (is_protected)
		flags &= ~(int)WALK_W;
	*out = (struct translation){
		.gpa = r->gpa,
		.host = memory_host(mmu->memory, r->gpa, 1),
		.page_shift = (uint8_t)shift,
		.guest_shift = r->page_shift,
		.flags = (uint8_t)(flags | (flags & (int)WALK_W ? (int)WALK_D : 0) |
				   (r->flags & WALK_G)),
	};
}

/* One try of the hardware in two dimensions from below `switch_level` on. `is_committed`: the VMM
 * has just set A and D for this access (an observer's does not show). */
static bool walk_nested(struct agile *a, gva_t address, enum access_kind kind, enum mmu_mode mode,
			unsigned switch_level, bool is_committed, struct translation *out,
			uint32_t *error_code)
{
	struct mmu *mmu = a->shadow.base.mmu;
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	struct walk_result r;
	unsigned updates = 0;
	walk_and_commit(c, &source, address, kind, mode, &r, &updates);
	if (!is_committed)
		ledger_charge_many(mmu->ledger, EVENT_AD_UPDATE, updates);
	charge_nested_part(a, address, &r, switch_level);
	*error_code = r.error_code;
	if (r.outcome == WALK_OK)
		answer(a, &r, kind, mode, out);
	return r.outcome == WALK_OK;
}

/* The first dimension */

static unsigned level_of(const struct shadow *s, unsigned shift)
{
	unsigned level = 1;
	while (s->mode->level[level].shift != shift)
		level++;
	return level;
}

/* The shadow has nothing that grants the access. Returns false for a fault of the guest's own. */
static bool fill_shadow(struct agile *a, gva_t address, enum access_kind kind, enum mmu_mode mode,
			const struct shadow_hit *hit, struct translation *out, uint32_t *error_code)
{
	struct shadow *s = core_of(a);
	struct mmu *mmu = s->mmu;
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	struct walk_result r;
	unsigned updates = 0;
	*out = (struct translation){.is_uncached = false};
	shadow_exit_begin(s);
	walk_and_commit(c, &source, address, kind, mode, &r, &updates);
	*error_code = r.error_code;
	if (r.outcome != WALK_OK) {
		shadow_charge_exit(s, EVENT_EXIT_PF_TRUE);
		return false;
	}
	int flags =
		shadow_leaf_flags(s->controls, r.flags, shadow_is_forced(c, r.flags, kind, mode));
	if (!memory_slot(mmu->memory, r.gpa) || flags < 0) {
		shadow_emulate(&r, out);
		return true;
	}
	shadow_reserve(s, SHADOW_FILL_PAGES);
	s->walk = mmu->is_observer ? &r : NULL;
	enum shadow_outcome outcome = shadow_fill(s, address, &r, (unsigned)flags, kind);
	if (hit->entry && updates && outcome == SHADOW_FILLED) { /* D alone: the hardware's work */
		ledger_charge_many(mmu->ledger, EVENT_AD_UPDATE, updates);
		charge_nested_part(a, address, &r, WALK_LEVELS_MAX + 1);
	} else {
		shadow_charge_exit(s, outcome == SHADOW_EMULATE ? EVENT_EXIT_TABLE_WRITE
								: EVENT_EXIT_PF_HIDDEN);
		ledger_charge(mmu->ledger, EVENT_SHADOW_FILL);
		if (outcome == SHADOW_EMULATE)
			shadow_emulate(&r, out);
		else
			shadow_prefetch(s, address);
	}
	s->walk = NULL;
	return true;
}

static bool agile_fill(struct strategy *strategy, gva_t address, enum access_kind kind,
		       enum mmu_mode mode, struct translation *out, uint32_t *error_code)
{
	struct agile *a = agile_of(strategy);
	struct shadow *s = core_of(a);
	look(a);
	if (s->context.mode == &paging_modes[PAGING_PAE])
		shadow_check_registers(s);
	if (is_root_nested(a)) {
		bool ok = walk_nested(a, address, kind, mode, WALK_LEVELS_MAX + 1, false, out,
				      error_code);
		shadow_resume(s);
		return ok;
	}
	for (bool is_committed = false;; is_committed = true) {
		struct shadow_hit hit = shadow_walk(s, address);
		bool ok = true, is_done = true;
		if (hit.entry & SHADOW_SWITCH)
			ok = walk_nested(a, address, kind, mode, level_of(s, hit.page_shift),
					 is_committed, out, error_code);
		else if (!shadow_grants(s, address, kind, mode, &hit, out)) {
			ok = fill_shadow(a, address, kind, mode, &hit, out, error_code);
			is_done = !ok || out->is_uncached;
		}
		shadow_resume(s);
		if (is_done)
			return ok;
	}
}

/* ---- the other hooks ---- */

static bool agile_cr3_written(struct strategy *strategy, bool no_flush)
{
	struct agile *a = agile_of(strategy);
	struct shadow *s = core_of(a);
	uint64_t start = ledger_exit_begin(s->mmu->ledger);
	bool is_exit = !is_root_nested(a) && shadow_find_root(s) == SHADOW_NONE;
	look(a);
	if (is_exit)
		ledger_charge(s->mmu->ledger, EVENT_EXIT_CR3_WRITE);
	shadow_switch_root(s);
	if (is_exit)
		shadow_build_root(s); /* a space that stays in the TLB may never fault */
	bool is_whole = s->is_flush_due || (is_exit && !s->mmu->private->is_tagged);
	s->is_flush_due = false;
	ledger_exit_end(s->mmu->ledger, is_exit ? EVENT_EXIT_CR3_WRITE : EVENT_COUNT, start);
	return is_whole;
}

static void agile_invalidate(struct strategy *s, int type, unsigned pcid, gva_t address)
{
}

/* Every table is unknown again. */
static void forget_all(struct agile *a)
{
	const struct memory *m = a->shadow.base.mmu->memory;
	for (uint32_t i = 0; i < a->nested_count; i++)
		memory_release_table(a->shadow.base.mmu->memory, gpa_from_gfn(a->nested[i]));
	a->nested_count = 0;
	madvise(a->tables, m->page_count * sizeof(*a->tables), MADV_DONTNEED); /* reads as zero */
}

static void agile_reset(struct strategy *s)
{
	shadow_policy_reset(s);
	forget_all(agile_of(s));
}

static void agile_memory_changed(struct strategy *s)
{
	struct agile *a = agile_of(s);
	agile_reset(s);
	madvise(a->touched, s->mmu->memory->page_count, MADV_DONTNEED);
}

static void agile_destroy(struct strategy *s)
{
	struct agile *a = agile_of(s);
	const struct memory *m = s->mmu->memory;
	if (a->tables) {
		forget_all(a);
		munmap(a->tables, m->page_count * sizeof(*a->tables));
	}
	if (a->touched)
		munmap(a->touched, m->page_count);
	shadow_fini(core_of(a));
	memory_remove_watcher(s->mmu->memory, a);
	free(a->nested);
	free(a);
}

static void *map_zeroed(uint64_t size_bytes)
{
	void *p = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int agile_create(struct strategy **out, struct mmu *mmu, const struct mmu_config *config,
			struct error *e)
{
	struct agile *a = calloc(1, sizeof(*a));
	if (!a)
		return error_set(e, -ENOMEM, "no host memory for the paging strategy");
	struct shadow_policy policy = {
		.is_watching = true,
		.is_keeping = true,
		.is_updating = true,
		.is_cr3_exitless = true,
		.is_invlpg_exitless = true,
		.is_global = true,
		.prefetch_count = PREFETCH,
		.root_count = config->root_count,
		.is_nested = is_nested,
		.mapped = mapped,
		.opaque = a,
	};
	a->shadow.base = (struct strategy){&agile_ops, mmu};
	a->host_levels = config->host_levels;
	a->interval_length = config->adaptive_interval ? config->adaptive_interval
						       : INTERVAL_DEFAULT;
	a->tables = map_zeroed(mmu->memory->page_count * sizeof(*a->tables));
	a->touched = map_zeroed(mmu->memory->page_count);
	int r = shadow_init(core_of(a), mmu, config, &policy, e);
	struct memory_watcher watcher = {table_written, a, PAGE_TABLE};
	if (!r && (!a->tables || !a->touched))
		r = error_set(e, -ENOMEM, "no host memory for the states of tables");
	if (!r && memory_add_watcher(mmu->memory, watcher))
		r = error_set(e, -ENOSPC, "too many strategies watch one guest's memory");
	if (r) {
		agile_destroy(&a->shadow.base);
		return r;
	}
	shadow_take_controls(core_of(a));
	*out = &a->shadow.base;
	return 0;
}

const struct strategy_ops agile_ops = {
	.create = agile_create,
	.destroy = agile_destroy,
	.fill = agile_fill,
	.cr3_written = agile_cr3_written,
	.invalidate = agile_invalidate,
	.reset = agile_reset,
	.controls_changed = shadow_keeping_controls_changed,
	.memory_changed = agile_memory_changed,
};
