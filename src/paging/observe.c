/*
 * Observers: strategies that ride along on one run.
 *
 * Translation is invisible to the guest, so any number of strategies can watch one stream of
 * accesses and events, each as if it were alone. The primary serves the guest; before it does an
 * access that the fast map cannot answer, every observer does the same access in its own model, on
 * the same guest tables, which it only reads. What the guest tells the mmu (CR3, INVLPG, controls)
 * goes to all of them (mmu.c), and writes to page tables reach their watchers.
 *
 * The fast map is the filter that makes this affordable, and it is exact: an access that hits there
 * hits in the first-level TLB of the primary and of every observer (fast_map.c keeps it so), and
 * all that such a hit changes in any model is recency. So a hit stores the use clock through one
 * pointer for each scheme; and a hit on the entry that was used last stores nothing, for nothing
 * else was stamped in between and the order of entries is as it was.
 *
 * Every miss of an observer is checked against the reference walk.
 */
#include "paging/mmu_private.h"

#include <errno.h>
#include <stdlib.h>

int mmu_add_observer(struct mmu *mmu, const struct mmu_config *config, struct ledger *ledger,
		     struct error *e)
{
	struct mmu_private *p = mmu->private;
	struct mmu *observer, **end = &p->next;
	size_t count = p->observer_count + 1;
	uint64_t **stamps = realloc(p->stamps, FAST_ENTRIES * count * sizeof(*stamps));
	if (!stamps)
		return error_set(e, -ENOMEM, "no host memory for observer %zu", count);
	p->stamps = stamps;
	int r = mmu_create_scheme(&observer, config, mmu->vcpu, mmu->memory, ledger, mmu, e);
	if (r)
		return r;
	while (*end)
		end = &(*end)->private->next;
	*end = observer;
	p->observer_count++;
	mmu->is_observed = true;
	fast_map_empty(mmu);
	return 0;
}

const struct mmu *mmu_observer(const struct mmu *mmu, unsigned i)
{
	const struct mmu *o = mmu->private->next;
	while (o && i--)
		o = o->private->next;
	return o;
}

void observe_fini(struct mmu *mmu)
{
	if (mmu->is_observer)
		return;
	while (mmu->private->next) {
		struct mmu *o = mmu->private->next;
		mmu->private->next = o->private->next;
		mmu_destroy(o);
	}
	free(mmu->private->stamps);
}

bool observe_access(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode)
{
	bool is_held_by_all = true;
	mmu->private->last_hit = FAST_ENTRIES;
	for (struct mmu *o = mmu->private->next; o; o = o->private->next) {
		struct translation uncached;
		struct page_fault fault;
		o->use_clock = mmu->use_clock;
		o->ledger->ring = mmu->vcpu->ledger->ring;
		mmu_access(o, address, kind, mode, &o->private->held, &uncached, &fault);
		is_held_by_all &= o->private->held != NULL;
		if (unlikely(o->difference && !mmu->difference))
			mmu->difference = o->difference;
	}
	return is_held_by_all;
}

void mmu_observe_hit(struct mmu *mmu, const struct mmu_fast_entry *e, uint64_t address,
		     uint64_t size_bytes, uint64_t count)
{
	struct mmu_private *p = mmu->private;
	uint64_t index = (uint64_t)(e - &mmu->fast[0][0][0]);
	if (index == p->last_hit)
		return;
	p->last_hit = index;
	uint64_t **stamp = p->stamps + index * p->observer_count;
	for (unsigned i = 0; i < p->observer_count; i++)
		*stamp[i] = mmu->use_clock;
}
