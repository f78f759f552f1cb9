/*
 * Schemes: the ways of virtualizing that one run carries. Scheme 0 is the primary, which serves the
 * guest; the others are its observers (paging/observe.c).
 *
 * A scheme is a strategy with its settings on a profile's hardware. What happens depends on the
 * shape of the hardware, never on prices, so schemes whose profiles differ in prices alone share
 * one simulation; the guest's own data references are common to all that have the same caches. A
 * simulation's ledger holds translation events; all others are the vcpu's own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/machine.h"

static int load_profile(struct vm *vm, const char *name, const struct profile **out,
			struct error *e)
{
	for (unsigned i = 0; i < vm->profile_count; i++)
		if (!strcmp(vm->profile_names[i], name)) {
			*out = vm->profiles[i];
			return 0;
		}
	int r = profile_load(name, &vm->profiles[vm->profile_count], e);
	if (r)
		return error_prefix(e, "--profile");
	vm->profile_names[vm->profile_count] = name;
	*out = vm->profiles[vm->profile_count++];
	return 0;
}

static uint64_t cycles(const struct profile *p, enum event e)
{
	return price_millis(profile_price(p, e)) / MILLIS_PER_CYCLE;
}

/* What `adaptive` weighs its counts with: the profile's exits, and for a nested miss the references
 * to the host's tables that a two-dimensional walk of four levels adds when the walk caches hold
 * the upper ones: one to each dimension's last level for the page, found in the second-level cache.
 */
static struct adaptive_prices adaptive_prices(const struct profile *p)
{
	struct adaptive_prices prices = {
		.nested_miss = 2 * cycles(p, EVENT_REF_HOST_L2) + 2 * cycles(p, EVENT_REF_HOST_L1),
		.cr3_exit = cycles(p, EVENT_EXIT_CR3_WRITE),
		.invlpg_exit = cycles(p, EVENT_EXIT_INVLPG),
		.hidden_fault = cycles(p, EVENT_EXIT_PF_HIDDEN) + cycles(p, EVENT_SHADOW_FILL),
		.true_fault = cycles(p, EVENT_EXIT_PF_TRUE),
		.table_write = cycles(p, EVENT_EXIT_TABLE_WRITE) + cycles(p, EVENT_SHADOW_UPDATE),
		.prefetch = cycles(p, EVENT_SHADOW_PREFETCH),
		.change = cycles(p, EVENT_PAGING_SWITCH),
	};
	for (unsigned i = 0; i < ARRAY_COUNT(prices.reference); i++)
		prices.reference[i] = cycles(p, (enum event)(EVENT_REF_HOST_L1 + i));
	return prices;
}

/* What the options that are not part of the strategy's own text say. */
static int parse(struct vm *vm, const struct vm_scheme *from, struct scheme *s, struct error *e)
{
	s->config = (struct mmu_config){.verify = vm->config.verify};
	int r = load_profile(vm, from->profile, &s->profile, e);
	if (!r && (r = mmu_parse_strategy(from->paging, &s->config, e)))
		return error_prefix(e, "--paging");
	if (r)
		return r;
	s->adaptive_prices = adaptive_prices(s->profile);
	s->config.adaptive_prices = &s->adaptive_prices;
	s->config.geometry = &s->profile->tlb;
	s->config.caches = &s->profile->caches;
	s->config.has_data_caches = vm->config.has_data_caches;
	mmu_format_strategy(&s->config, s->text);
	return 0;
}

static bool has_same_caches(const struct scheme *a, const struct scheme *b)
{
	return !memcmp(a->config.caches, b->config.caches, sizeof(*a->config.caches));
}

static bool is_same_simulation(const struct scheme *a, const struct scheme *b)
{
	bool is_priced = !strcmp(a->config.strategy, "adaptive"); /* its decisions are */
	return !strcmp(a->text, b->text) && has_same_caches(a, b) &&
	       (!is_priced ||
		!memcmp(&a->adaptive_prices, &b->adaptive_prices, sizeof(a->adaptive_prices))) &&
	       !memcmp(a->config.geometry, b->config.geometry, sizeof(*a->config.geometry));
}

/* Who counts the guest's data references for it: the first with the same caches. */
static unsigned data_simulation(const struct vm *vm, unsigned scheme)
{
	unsigned i = 0;
	while (!has_same_caches(&vm->schemes[i], &vm->schemes[scheme]))
		i++;
	return vm->schemes[i].simulation;
}

int schemes_create(struct vm *vm, struct error *e)
{
	const struct vm_config *c = &vm->config;
	vm->scheme_count = 1 + c->observer_count;
	vm->schemes = calloc(vm->scheme_count, sizeof(*vm->schemes));
	vm->profiles = calloc(vm->scheme_count, sizeof(struct profile *));
	vm->profile_names = calloc(vm->scheme_count, sizeof(char *));
	if (!vm->schemes || !vm->profiles || !vm->profile_names)
		return error_set(e, -ENOMEM, "out of memory");
	const struct vm_scheme primary = {c->paging, c->profile};
	for (unsigned i = 0; i < vm->scheme_count; i++) {
		struct scheme *s = &vm->schemes[i];
		int r = parse(vm, i ? &c->observers[i - 1] : &primary, s, e);
		if (r)
			return r;
		if (!i && c->host_levels)
			s->config.host_levels = c->host_levels;
		if (!i && c->host_page_shift)
			s->config.host_page_shift = c->host_page_shift;
		mmu_format_strategy(&s->config, s->text);
		s->simulation = i ? vm->simulation_count : 0;
		for (unsigned k = 0; k < i; k++)
			if (is_same_simulation(s, &vm->schemes[k]))
				s->simulation = vm->schemes[k].simulation;
		if (s->simulation == vm->simulation_count)
			vm->simulation_count++;
	}
	vm->ledgers = calloc((size_t)c->cpu_count * vm->simulation_count, sizeof(*vm->ledgers));
	return vm->ledgers ? 0 : error_set(e, -ENOMEM, "out of memory");
}

void schemes_destroy(struct vm *vm)
{
	for (unsigned i = 0; i < vm->profile_count; i++)
		profile_destroy(vm->profiles[i]);
	free(vm->profiles);
	free(vm->profile_names);
	free(vm->schemes);
	free(vm->ledgers);
}

int schemes_make_mmu(struct vm *vm, unsigned vcpu, struct error *e)
{
	unsigned made = 1;
	int r = mmu_create(&vm->mmus[vcpu], &vm->schemes[0].config, &vm->vcpus[vcpu], vm->memory,
			   e);
	for (unsigned i = 1; !r && i < vm->scheme_count; i++)
		if (vm->schemes[i].simulation == made)
			r = mmu_add_observer(vm->mmus[vcpu], &vm->schemes[i].config,
					     vm_simulation_ledger(vm, made++, vcpu), e);
	return r;
}

/* ---- for the floors above ---- */

unsigned vm_scheme_count(const struct vm *vm)
{
	return vm->scheme_count;
}

const struct profile *vm_scheme_profile(const struct vm *vm, unsigned scheme)
{
	return vm->schemes[scheme].profile;
}

const char *vm_scheme_paging(const struct vm *vm, unsigned scheme)
{
	return vm->schemes[scheme].text;
}

bool vm_scheme_is_virtualized(const struct vm *vm, unsigned scheme)
{
	unsigned simulation = vm->schemes[scheme].simulation;
	const struct mmu *mmu = vm->mmus[0];
	return mmu_is_virtualized(simulation ? mmu_observer(mmu, simulation - 1) : mmu);
}

static bool simulation_ledger(const struct vm *vm, unsigned simulation, unsigned vcpu,
			      bool is_region, struct ledger *out)
{
	if (is_region)
		return region_ledger(vm, simulation, vcpu, out);
	*out = *vm_simulation_ledger(vm, simulation, vcpu);
	return true;
}

bool vm_scheme_ledger(const struct vm *vm, unsigned scheme, unsigned vcpu, bool is_region,
		      struct ledger *out)
{
	struct ledger own, data;
	if (!simulation_ledger(vm, 0, vcpu, is_region, out))
		return false;
	simulation_ledger(vm, vm->schemes[scheme].simulation, vcpu, is_region, &own);
	simulation_ledger(vm, data_simulation(vm, scheme), vcpu, is_region, &data);
	for (unsigned e = 0; e < EVENT_COUNT; e++) {
		if (event_is_translation((enum event)e))
			memcpy(out->count[e], own.count[e], sizeof(own.count[e]));
		else if (e >= EVENT_REF_DATA_L1 && e <= EVENT_REF_DATA_DRAM)
			memcpy(out->count[e], data.count[e], sizeof(data.count[e]));
	}
	return true;
}
