#include "hw/lint.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct findings {
	struct finding *out;
	size_t count;
};

static void add(struct findings *f, const char *place, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void add(struct findings *f, const char *place, const char *format, ...)
{
	va_list arguments;

	if (f->count < FINDINGS_MAX) {
		struct finding *n = &f->out[f->count];

		snprintf(n->place, sizeof(n->place), "%s", place);
		va_start(arguments, format);
		vsnprintf(n->text, sizeof(n->text), format, arguments);
		va_end(arguments);
	}
	f->count++;
}

static unsigned entries(const struct tlb_side *side, uint8_t size)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < side->array_count; i++)
		if (side->array[i].sizes & size)
			sum += side->array[i].entries;
	return sum;
}

static void check_second_level(struct findings *f, const char *place, const struct tlb_side *first,
			       const struct tlb_side *second)
{
	unsigned inner = entries(first, TLB_4K), outer = entries(second, TLB_4K);

	if (outer && outer <= inner)
		add(f, place, "%u entries for 4K pages behind %u in the first level", outer, inner);
}

static void check_tlb(struct findings *f, const struct profile *p)
{
	const struct tlb_geometry *g = &p->tlb;
	const struct walk_cache_geometry *w = &g->walk_cache;

	check_second_level(f, ".tlb.l2d", &g->l1d, &g->l2d);
	check_second_level(f, g->l2_unified ? ".tlb.l2d" : ".tlb.l2i", &g->l1i,
			   g->l2_unified ? &g->l2d : &g->l2i);
	if (g->pcid && !g->tagged)
		add(f, ".tlb.pcid", "PCIDs on a processor whose TLB is not tagged by VM");
	if (!p->has_nested_paging && (w->nested_tlb_entries || w->is_two_dimensional))
		add(f, ".tlb.walk_cache",
		    "caches of the nested dimension on a processor without nested paging");
	if (w->pml4e_entries > w->pdpte_entries && w->pdpte_entries)
		add(f, ".tlb.walk_cache.pml4e", "more entries for a higher level than for a lower");
}

static void check_caches(struct findings *f, const struct profile *p)
{
	char place[32];

	for (int i = CACHE_L2; i < CACHE_DRAM; i++) {
		const struct cache_array *a = &p->caches.level[i];

		snprintf(place, sizeof(place), ".caches.%s.array",
			 cache_level_name((enum cache_level)i));
		if (a->size_bytes && a->size_bytes <= p->caches.level[i - 1].size_bytes)
			add(f, place, "not larger than the level before it");
	}
	for (int i = CACHE_L2, inner = CACHE_L1D; i <= CACHE_DRAM; i++) {
		if (i < CACHE_DRAM && !p->caches.level[i].size_bytes)
			continue;
		snprintf(place, sizeof(place), ".caches.%s.latency",
			 cache_level_name((enum cache_level)i));
		if (p->latency[i].millis == p->latency[inner].millis)
			add(f, place, "as fast as the level before it");
		inner = i;
	}
}

static void check_prices(struct findings *f, const struct profile *p)
{
	char place[64];

	for (int e = 0; e < EVENT_COUNT; e++) {
		const struct price *price = &p->price[e];

		if (!price->is_priced || price->is_derived)
			continue;
		snprintf(place, sizeof(place), ".prices[\"%s\"]", event_name((enum event)e));
		if (event_must_be_priced((enum event)e) && !price_millis(price))
			add(f, place, "costs nothing");
		else if (event_is_exit((enum event)e) && price->part[PRICE_HARDWARE].millis < 50000)
			add(f, place, "a transition of less than 50 cycles: no processor has one");
	}
	if (price_millis(&p->price[EVENT_TLB2_HIT]) > p->latency[CACHE_DRAM].millis)
		add(f, ".prices[\"tlb.l2_hit\"]", "dearer than an access to memory");
}

/* Words by which a source says that nobody measured this, whatever the mark claims. */
static void check_marks(struct findings *f, const struct profile *p)
{
	static const char *const admissions[] = {"not measured", "no source", "taken over",
						 "no measurement", "no published measurement"};

	for (size_t i = 0; i < p->fact_count; i++) {
		const struct fact *fact = &p->facts[i];

		if (strlen(fact->source) < 8)
			add(f, fact->path, "the source is too short to be found: \"%s\"",
			    fact->source);
		for (size_t k = 0; fact->mark != MARK_ESTIMATE && k < ARRAY_COUNT(admissions); k++)
			if (strstr(fact->source, admissions[k]))
				add(f, fact->path,
				    "class %c, but the source says \"%s\": that is class E",
				    mark_letter(fact->mark), admissions[k]);
	}
}

size_t profile_lint(const struct profile *p, struct finding out[FINDINGS_MAX])
{
	struct findings f = {.out = out};

	if (p->frequency_hz < 100000000 || p->frequency_hz > 10000000000)
		add(&f, ".frequency", "not between 0.1 and 10 GHz");
	check_tlb(&f, p);
	check_caches(&f, p);
	check_prices(&f, p);
	check_marks(&f, p);
	return f.count;
}
