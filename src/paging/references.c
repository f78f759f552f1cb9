/*
 * What a reference of the walking hardware costs: counted by whose table and which level (walk.*),
 * and by the cache that answered (ref.*).
 *
 * Without a configuration of caches (struct mmu_config) there are no ref.* events: then a price is
 * per level of the tables, or there is none. Tables outside RAM are not cached.
 *
 * Charging comes after the walk that found the answer: the walk caches then say which of its
 * references the hardware makes, in what order they go through the data caches.
 */
#include "paging/host_physical.h"
#include "paging/mmu_private.h"

void mmu_charge_reference(struct mmu *mmu, enum table_kind kind, unsigned level, uint64_t address)
{
	static const enum event by_level[] = {EVENT_WALK_G1, EVENT_WALK_H1, EVENT_WALK_S1};
	static const enum event by_cache[] = {EVENT_REF_GUEST_L1, EVENT_REF_HOST_L1,
					      EVENT_REF_SHADOW_L1};
	struct data_cache *caches = mmu->private->caches;
	ledger_charge(mmu->ledger, (enum event)(by_level[kind] + level - 1));
	if (!caches || mmu->is_unmodelled)
		return;
	unsigned answer = address == MMU_UNCACHED ? CACHE_ARRAY_COUNT
						  : data_cache_access(caches, address);
	ledger_charge(mmu->ledger, (enum event)(by_cache[kind] + answer));
}

static void charge_refs(struct mmu *mmu, enum table_kind kind, const struct walk_path *path,
			unsigned refs)
{
	for (; refs; refs &= refs - 1) {
		unsigned i = (unsigned)__builtin_ctz(refs);
		mmu_charge_reference(mmu, kind, path->ref[i].level, path->ref[i].address);
	}
}

void mmu_charge_path(struct mmu *mmu, enum table_kind kind, gva_t address,
		     const struct walk_path *path, bool has_faulted)
{
	struct mmu_private *p = mmu->private;
	struct walk_plan plan =
		walk_cache_guest(p->walk_cache, tlb_space(p->tlb), address, path, has_faulted);
	if (plan.is_shortened)
		ledger_charge(mmu->ledger, EVENT_WALK_CACHE_HIT);
	charge_refs(mmu, kind, path, plan.refs);
}

/* The entries of a guest walk that are read from memory: all but registers. */
static struct walk_path guest_path(const struct mmu *mmu, const struct walk_result *r)
{
	const struct paging_mode *mode = mmu->private->context.mode;
	struct walk_path path = {.count = 0};
	for (unsigned i = 0; i < r->step_count; i++) {
		const struct walk_step *step = &r->step[i];
		if (mode->level[step->level].is_register)
			continue;
		bool is_ram = memory_slot(mmu->memory, step->address) != NULL;
		walk_path_add(&path, step->level, mode->level[step->level].shift,
			      is_ram ? hpa_from_gpa(mmu->memory, step->address).v : MMU_UNCACHED,
			      step->entry);
	}
	return path;
}

void mmu_charge_walk(struct mmu *mmu, gva_t address, const struct walk_result *r)
{
	if (mmu->is_unmodelled)
		return;
	struct walk_path path = guest_path(mmu, r);
	mmu_charge_path(mmu, TABLE_GUEST, address, &path, r->outcome == WALK_FAULT);
}

static void charge_location(struct mmu *mmu, const struct host_walk *host, bool is_table)
{
	struct walk_cache *c = mmu->private->walk_cache;
	if (!host->path.count)
		return; /* who named the table knew where it is */
	if (is_table && walk_cache_nested_tlb(c, host->address))
		ledger_charge(mmu->ledger, EVENT_NESTED_TLB_HIT);
	else
		charge_refs(mmu, TABLE_HOST, &host->path,
			    walk_cache_host(c, host->address, &host->path));
}

void mmu_charge_nested_path(struct mmu *mmu, gva_t address, const struct walk_path *path,
			    const struct host_walk *host, unsigned host_count, bool has_faulted)
{
	struct mmu_private *p = mmu->private;
	struct walk_plan plan =
		walk_cache_guest(p->walk_cache, tlb_space(p->tlb), address, path, has_faulted);
	if (plan.is_shortened)
		ledger_charge(mmu->ledger, EVENT_WALK_CACHE_HIT);
	for (unsigned i = 0; i < host_count; i++) {
		/* The last one located the page, or nothing. */
		bool is_table = i < path->count;
		if (!is_table || plan.locates >> i & 1)
			charge_location(mmu, &host[i], is_table);
		if (is_table && plan.refs >> i & 1)
			mmu_charge_reference(mmu, TABLE_GUEST, path->ref[i].level,
					     path->ref[i].address);
	}
}

void mmu_charge_nested(struct mmu *mmu, gva_t address, const struct walk_result *r,
		       const struct host_walk *host, unsigned host_count)
{
	struct walk_path path = guest_path(mmu, r);
	mmu_charge_nested_path(mmu, address, &path, host, host_count, r->outcome == WALK_FAULT);
}

void mmu_missed_line(struct mmu *mmu, gpa_t address)
{
	struct mmu_private *p = mmu->private;
	if (p->caches && !mmu->is_unmodelled && !p->is_fed_data &&
	    memory_slot(mmu->memory, address))
		data_cache_access(p->caches, hpa_from_gpa(mmu->memory, address).v);
}

void mmu_data_line(struct mmu *mmu, uint64_t hpa)
{
	if (mmu->private->caches)
		data_cache_access(mmu->private->caches, hpa);
}
