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
#include <string.h>

#include "paging/data_cache.h"
#include "paging/host_physical.h"

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

/* ---- the guest's data accesses ---- */

int observe_add_data(struct mmu *mmu, const struct cache_geometry *g, struct error *e)
{
	struct mmu *primary = mmu->private->primary;
	struct mmu_private *p = primary->private;
	unsigned shape = 0;
	while (shape < p->data_count && memcmp(&p->data[shape].geometry, g, sizeof(*g)) != 0)
		shape++;
	mmu->private->is_fed_data = true;
	mmu->private->data_shape = shape;
	if (shape < p->data_count)
		return 0;
	struct data_model *data = realloc(p->data, (p->data_count + 1) * sizeof(*data));
	if (!data)
		return error_set(e, -ENOMEM, "no host memory for data caches");
	p->data = data;
	data[p->data_count] = (struct data_model){.geometry = *g, .ledger = mmu->ledger};
	int r = data_cache_create(&data[p->data_count].cache, g, e);
	if (r)
		return r;
	p->data_count++;
	p->last_line = UINT64_MAX;
	primary->is_observed = true;
	return 0;
}

/* A line that the guest's accesses did not have in their first level pushes page tables out of the
 * caches of every scheme of that shape. */
static void push_out(struct mmu *mmu, unsigned shape, uint64_t address)
{
	for (struct mmu *m = mmu; m; m = m->private->next)
		if (m->private->data_shape == shape)
			mmu_data_line(m, address);
}

static void access_line(struct mmu *mmu, uint64_t line)
{
	struct mmu_private *p = mmu->private;
	enum ring ring = mmu->vcpu->ledger->ring;
	uint64_t address = line << CACHE_LINE_SHIFT;
	bool is_again = line == p->last_line; /* the most recent in its set, in every cache */
	p->last_line = line;
	for (unsigned i = 0; i < p->data_count; i++) {
		struct data_model *d = &p->data[i];
		unsigned level = is_again ? 0 : data_cache_access(d->cache, address);
		d->ledger->count[EVENT_REF_DATA_L1 + level][ring]++;
		if (level)
			push_out(mmu, i, address);
	}
}

/* `count` accesses to `size_bytes` bytes at host-physical `address`: each line once, and the others
 * find it in the first level. */
static void access_lines(struct mmu *mmu, uint64_t address, uint64_t size_bytes, uint64_t count)
{
	struct mmu_private *p = mmu->private;
	uint64_t first = address >> CACHE_LINE_SHIFT;
	uint64_t last = (address + size_bytes - 1) >> CACHE_LINE_SHIFT;
	for (uint64_t line = first; line <= last; line++)
		access_line(mmu, line);
	uint64_t lines = last - first + 1;
	for (unsigned i = 0; count > lines && i < p->data_count; i++)
		p->data[i].ledger->count[EVENT_REF_DATA_L1][mmu->vcpu->ledger->ring] +=
			count - lines;
}

void observe_data(struct mmu *mmu, const struct mmu_page *page)
{
	if (page->host)
		access_lines(mmu, hpa_from_gpa(mmu->memory, page->gpa).v, 1, 1);
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
	for (unsigned i = 0; i < mmu->private->data_count; i++)
		data_cache_destroy(mmu->private->data[i].cache);
	free(mmu->private->data);
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
	if (p->data_count && index / MMU_FAST_COUNT % ACCESS_KIND_COUNT != ACCESS_FETCH &&
	    size_bytes) {
		uint64_t host = address + e->addend - (uint64_t)(uintptr_t)mmu->memory->ram;
		access_lines(mmu, HPA_RAM_BASE + host, size_bytes, count);
	}
	if (index == p->last_hit || !p->stamps)
		return;
	p->last_hit = index;
	uint64_t **stamp = p->stamps + index * p->observer_count;
	for (unsigned i = 0; i < p->observer_count; i++)
		*stamp[i] = mmu->use_clock;
}
