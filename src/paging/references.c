/*
 * What a reference of the walking hardware costs: counted by whose table and which level (walk.*),
 * and by the cache that answered (ref.*).
 *
 * Without a configuration of caches (struct mmu_config) there are no ref.* events: then a price is
 * per level of the tables, or there is none. Tables outside RAM are not cached.
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

void mmu_charge_walk(struct mmu *mmu, const struct walk_result *r)
{
	for (unsigned i = 0; i < r->step_count; i++) {
		const struct walk_step *step = &r->step[i];
		if (mmu->private->context.mode->level[step->level].is_register)
			continue;
		bool is_ram = memory_slot(mmu->memory, step->address) != NULL;
		mmu_charge_reference(mmu, TABLE_GUEST, step->level,
				     is_ram ? hpa_from_gpa(mmu->memory, step->address).v
					    : MMU_UNCACHED);
	}
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
