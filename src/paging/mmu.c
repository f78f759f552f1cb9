/*
 * The mmu of one vcpu: asks the modelled TLBs, then the strategy, keeps the fast map, and charges
 * the ledger.
 *
 * Law (tests/unit/test_mmu.c): first-level misses = second-level hits + misses of every level, also
 * for accesses that fault; an entry that does not grant the access is dropped and the access walks,
 * as hardware does before it faults.
 */
#include "paging/mmu_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "paging/catalogue.h"

static bool is_paging_on(const struct mmu *mmu)
{
	return mmu->private->context.mode->level_count != 0;
}

static unsigned current_pcid(const struct mmu *mmu)
{
	const struct vcpu_state *s = &mmu->vcpu->state;
	return mmu->private->is_pcid_tagged && (s->cr4 & CR4_PCIDE) ? s->cr3 & 0xfff : 0;
}

static void take_controls(struct mmu *mmu)
{
	struct mmu_private *p = mmu->private;
	const struct vcpu_state *s = &mmu->vcpu->state;
	walk_context_init(&p->context, s->cr0, s->cr4, s->efer, mmu->vcpu->model);
	walk_permit_init(p->permit, p->entry->is_wp_forced ? s->cr0 | CR0_WP : s->cr0, s->cr4);
}

const char *mmu_present_strategy(const struct mmu *mmu)
{
	return mmu->private->entry->name;
}

void mmu_use_entry(struct mmu *mmu, const struct strategy_entry *entry)
{
	mmu->private->entry = entry;
	take_controls(mmu);
}

void mmu_flush_tlb(struct mmu *mmu)
{
	ledger_charge(mmu->ledger, EVENT_TLB_FLUSH);
	tlb_flush_all(mmu->private->tlb);
	fast_map_empty(mmu);
	mmu_tell(mmu, MMU_FLUSH_ALL, gva(0));
}

/* Creation */

static int check_config(struct mmu_config *c, struct error *e)
{
	if (!c->host_levels)
		c->host_levels = 4;
	if (!c->host_page_shift)
		c->host_page_shift = PAGE_SHIFT;
	unsigned shift = c->host_page_shift;
	if (c->host_levels > WALK_LEVELS_MAX)
		return error_set(e, -EINVAL, "%u host levels: 1 to 5 are possible", c->host_levels);
	if (shift != 12 && shift != 21 && shift != 30)
		return error_set(e, -EINVAL, "host pages of 2^%u bytes: 4K, 2M or 1G are possible",
				 shift);
	if ((shift - 12) / 9 + 1 > c->host_levels)
		return error_set(e, -EINVAL,
				 "host pages of 2^%u bytes need at least %u host levels", shift,
				 (shift - 12) / 9 + 1);
	return 0;
}

static int add_parts(struct mmu *mmu, const struct mmu_config *c, struct error *e)
{
	struct mmu_private *p = mmu->private;
	int r = tlb_create(&p->tlb, c->geometry, fast_map_drop, mmu, e);
	if (!r && c->caches)
		r = data_cache_create(&p->caches, c->caches, e);
	if (!r && c->caches && c->has_data_caches)
		r = observe_add_data(mmu, c->caches, e);
	if (!r)
		r = walk_cache_create(&p->walk_cache, c, e);
	if (!r)
		r = p->entry->ops->create(&p->strategy, mmu, c, e);
	if (!r && (c->verify || mmu->is_observer))
		r = verify_create(&p->verify, e);
	if (!r && !mmu->is_observer) {
		struct memory_flag_listener listener = {fast_map_page_flagged, mmu};
		r = memory_add_flag_listener(mmu->memory, listener);
		if (r)
			error_set(e, r, "too many listeners to page flags");
	}
	return r;
}

int mmu_create_scheme(struct mmu **out, const struct mmu_config *config, struct vcpu *v,
		      struct memory *m, struct ledger *ledger, struct mmu *primary, struct error *e)
{
	struct mmu_config checked = *config;
	const struct strategy_entry *entry =
		strategy_find(config->strategy, strlen(config->strategy));
	*out = NULL;
	int r = entry ? check_config(&checked, e)
		      : strategy_refuse(config->strategy, strlen(config->strategy), e);
	if (r)
		return r;
	struct mmu *mmu = calloc(1, sizeof(*mmu));
	struct mmu_private *p = calloc(1, sizeof(*p));
	if (!mmu || !p) {
		free(mmu);
		free(p);
		return error_set(e, -ENOMEM, "no host memory for an mmu");
	}
	mmu->vcpu = v;
	mmu->memory = m;
	mmu->ledger = ledger;
	mmu->is_observer = primary != NULL;
	mmu->strategy = entry->ops;
	mmu->private = p;
	p->primary = primary ? primary : mmu;
	p->last_hit = FAST_ENTRIES;
	p->entry = entry;
	p->is_tagged = checked.tlb_tagged == MMU_AS_PROFILE ? config->geometry->tagged
							    : checked.tlb_tagged == MMU_ON;
	p->is_pcid_tagged = config->geometry->pcid;
	if (!primary)
		memset(mmu->fast, 0xff, sizeof(mmu->fast));
	take_controls(mmu);
	r = add_parts(mmu, &checked, e);
	if (r) {
		mmu_destroy(mmu);
		return r;
	}
	tlb_set_pcid(p->tlb, current_pcid(mmu));
	*out = mmu;
	return 0;
}

int mmu_create(struct mmu **out, const struct mmu_config *config, struct vcpu *v, struct memory *m,
	       struct error *e)
{
	return mmu_create_scheme(out, config, v, m, v->ledger, NULL, e);
}

void mmu_destroy(struct mmu *mmu)
{
	if (!mmu)
		return;
	observe_fini(mmu);
	memory_remove_flag_listener(mmu->memory, mmu);
	if (mmu->private->strategy)
		mmu->strategy->destroy(mmu->private->strategy);
	tlb_destroy(mmu->private->tlb);
	data_cache_destroy(mmu->private->caches);
	walk_cache_destroy(mmu->private->walk_cache);
	verify_destroy(mmu->private->verify);
	free(mmu->private);
	free(mmu);
}

const char *mmu_strategy_name(size_t i, const char **text)
{
	if (i >= strategy_count)
		return NULL;
	if (text)
		*text = strategy_catalogue[i].text;
	return strategy_catalogue[i].name;
}

bool mmu_is_virtualized(const struct mmu *mmu)
{
	return mmu->private->entry->is_virtualized;
}

bool mmu_needs_exits(const struct mmu *mmu)
{
	for (; mmu; mmu = mmu->private->next)
		if (mmu_is_virtualized(mmu))
			return true;
	return false;
}

/* Translation */

/* The host side of out->gpa: `host` when the strategy knows it, else what the memory says. */
static void locate(const struct mmu *mmu, uint8_t *host, struct mmu_page *out)
{
	const struct memory *m = mmu->memory;
	const struct memslot *slot = memory_slot(m, out->gpa);
	out->host = NULL;
	out->flags = 0;
	if (!slot)
		return;
	out->host = host ? host : slot->host + (out->gpa.v - slot->base.v);
	out->flags = m->page_flags[(uint64_t)(out->host - m->ram) >> PAGE_SHIFT];
	if (slot->is_rom)
		out->flags |= PAGE_ROM;
}

/* Fills *out for a page that is in the first level, and lets the fast map know. */
static void answer(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct tlb_entry *entry, bool is_held_by_all, struct mmu_page *out)
{
	uint64_t offset = address.v & (BIT(entry->page_shift) - 1);
	out->gpa = gpa(entry->frame + offset);
	out->guest_shift = entry->guest_shift;
	out->is_global = entry->flags & WALK_G;
	locate(mmu, entry->host ? entry->host + offset : NULL, out);
	if (is_held_by_all)
		fast_map_fill(mmu, address, kind, mode, entry, out);
}

static void identity(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		     struct mmu_page *out)
{
	out->gpa = gpa(address.v);
	out->guest_shift = PAGE_SHIFT;
	out->is_global = false;
	locate(mmu, NULL, out);
	fast_map_fill(mmu, address, kind, mode, NULL, out);
}

static bool grants(const struct mmu *mmu, const struct tlb_entry *entry, enum access_kind kind,
		   enum mmu_mode mode)
{
	return walk_permits(mmu->private->permit, entry->flags, kind, mode) &&
	       (kind != ACCESS_WRITE || (entry->flags & WALK_D));
}

static const enum tlb_side_id side_of[ACCESS_KIND_COUNT] = {
	[ACCESS_READ] = TLB_DATA,
	[ACCESS_WRITE] = TLB_STORE,
	[ACCESS_FETCH] = TLB_INSTRUCTION,
};

/* No TLB has it: the strategy decides. */
static bool miss(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		 struct tlb_entry **held, struct translation *t, struct page_fault *fault)
{
	struct mmu_private *p = mmu->private;
	struct walk_result reference;
	ledger_charge(mmu->ledger, EVENT_TLB_MISS);
	if (unlikely(p->verify))
		verify_begin(mmu, address, kind, mode, &reference);
	bool ok = mmu->strategy->fill(p->strategy, address, kind, mode, t, &fault->error_code);
	if (unlikely(p->verify))
		verify_end(mmu, address, kind, mode, &reference, ok ? t : NULL, fault->error_code);
	*held = NULL;
	if (!ok) {
		fault->address = address;
		return false;
	}
	mmu_missed_line(mmu, t->gpa);
	if (t->is_uncached)
		return true;
	enum tlb_side_id side = side_of[kind];
	tlb_insert(p->tlb, 1, side, address, t, mmu->use_clock);
	*held = tlb_insert(p->tlb, 0, side, address, t, mmu->use_clock);
	return true;
}

bool mmu_access(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		struct tlb_entry **held, struct translation *uncached, struct page_fault *fault)
{
	struct mmu_private *p = mmu->private;
	enum tlb_side_id side = side_of[kind];
	struct tlb_entry *entry = tlb_find(p->tlb, 0, side, address);
	if (likely(entry && grants(mmu, entry, kind, mode))) {
		*entry->stamp = mmu->use_clock;
		*held = entry;
		return true;
	}
	ledger_charge(mmu->ledger, side == TLB_INSTRUCTION ? EVENT_ITLB1_MISS : EVENT_DTLB1_MISS);
	if (!entry)
		entry = tlb_find(p->tlb, 1, side, address);
	if (entry && grants(mmu, entry, kind, mode)) {
		ledger_charge(mmu->ledger, EVENT_TLB2_HIT);
		*entry->stamp = mmu->use_clock;
		*held = tlb_promote(p->tlb, side, address, entry, mmu->use_clock);
		return true;
	}
	if (entry)
		tlb_invalidate(p->tlb, current_pcid(mmu), true, address);
	return miss(mmu, address, kind, mode, held, uncached, fault);
}

/* Without TLBs in between. */
static bool translate_unmodelled(struct mmu *mmu, gva_t address, enum access_kind kind,
				 enum mmu_mode mode, struct mmu_page *out, struct page_fault *fault)
{
	struct mmu_private *p = mmu->private;
	struct translation t;
	struct walk_result reference;
	if (kind == ACCESS_WRITE && watched_find(mmu, address, mode, out)) {
		locate(mmu, out->host, out); /* its flags may have changed */
		if (!out->flags)
			fast_map_fill(mmu, address, kind, mode, NULL, out);
		return true;
	}
	ledger_charge(mmu->ledger, EVENT_TLB_MISS);
	if (unlikely(p->verify))
		verify_begin(mmu, address, kind, mode, &reference);
	bool ok = mmu->strategy->fill(p->strategy, address, kind, mode, &t, &fault->error_code);
	if (unlikely(p->verify))
		verify_end(mmu, address, kind, mode, &reference, ok ? &t : NULL, fault->error_code);
	if (!ok) {
		fault->address = address;
		return false;
	}
	out->gpa = t.gpa;
	out->guest_shift = t.is_uncached ? 0 : t.guest_shift;
	out->is_global = t.flags & WALK_G;
	unsigned half = address.v >> 63;
	mmu->has_global[half] |= out->is_global;
	if (kind == ACCESS_FETCH) {
		mmu->has_large_code[half] |= t.guest_shift > PAGE_SHIFT;
		mmu->has_local_code[half] |= !out->is_global;
	}
	locate(mmu, t.host, out);
	if (t.is_uncached)
		return true;
	if (kind == ACCESS_WRITE && out->host && out->flags)
		watched_fill(mmu, address, mode, out);
	else
		fast_map_fill(mmu, address, kind, mode, NULL, out);
	return true;
}

bool mmu_translate(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct mmu_page *out, struct page_fault *fault)
{
	struct tlb_entry *held;
	struct translation uncached;
	mmu->use_clock++;
	if (unlikely(!is_paging_on(mmu))) {
		identity(mmu, address, kind, mode, out);
		return true;
	}
	if (mmu->is_unmodelled)
		return translate_unmodelled(mmu, address, kind, mode, out, fault);
	/* The observers first: A and D are still as the primary will find them. */
	bool is_held_by_all = !mmu->private->next || observe_access(mmu, address, kind, mode);
	if (!mmu_access(mmu, address, kind, mode, &held, &uncached, fault))
		return false;
	if (held) {
		answer(mmu, address, kind, mode, held, is_held_by_all, out);
	} else {
		out->gpa = uncached.gpa;
		out->guest_shift = 0;
		out->is_global = false;
		locate(mmu, uncached.host, out);
	}
	if (unlikely(mmu->private->data_count) && kind != ACCESS_FETCH)
		observe_data(mmu, out);
	return true;
}

bool mmu_peek(const struct mmu *mmu, gva_t address, gpa_t *out)
{
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	struct walk_result r;
	if (!is_paging_on(mmu)) {
		*out = gpa(address.v);
		return true;
	}
	if (!walk_is_canonical(c, address) ||
	    walk(c, &source, address, ACCESS_READ, MMU_SUPERVISOR_AC, &r) != WALK_OK)
		return false;
	*out = r.gpa;
	return true;
}

unsigned mmu_walk_steps(const struct mmu *mmu, gva_t address, struct mmu_walk_step steps[6])
{
	const struct walk_context *c = &mmu->private->context;
	struct walk_source source = mmu_walk_source(mmu);
	struct walk_result r = {.step_count = 0};
	if (!is_paging_on(mmu)) {
		steps[0] = (struct mmu_walk_step){0, gpa(address.v), address.v};
		return 1;
	}
	if (!walk_is_canonical(c, address))
		return 0;
	walk(c, &source, address, ACCESS_READ, MMU_SUPERVISOR_AC, &r);
	unsigned n = 0;
	for (; n < r.step_count; n++)
		steps[n] =
			(struct mmu_walk_step){r.step[n].level, r.step[n].address, r.step[n].entry};
	if (r.outcome == WALK_OK)
		steps[n++] = (struct mmu_walk_step){0, r.gpa, r.gpa.v};
	return n;
}

/* What the guest tells us: each thing goes to the primary and to every observer. */

#define FOR_EACH_SCHEME(m, mmu) for (struct mmu *m = (mmu); m; m = m->private->next)

/* An observer's ledger splits by who runs as the vcpu's does. */
static void follow_ring(struct mmu *mmu)
{
	mmu->ledger->ring = mmu->vcpu->ledger->ring;
}

void mmu_note_exit(struct mmu *mmu)
{
	if (mmu->private->entry->is_virtualized && !mmu->private->is_tagged)
		mmu_flush_tlb(mmu);
}

void mmu_note_engine_exit(struct mmu *mmu)
{
	FOR_EACH_SCHEME(m, mmu)
	{
		follow_ring(m);
		mmu_note_exit(m);
	}
}

static void scheme_cr3_written(struct mmu *mmu, bool no_flush)
{
	struct mmu_private *p = mmu->private;
	follow_ring(mmu);
	bool flush_whole = mmu->strategy->cr3_written(p->strategy, no_flush);
	unsigned pcid = current_pcid(mmu);
	verify_flush(p->verify);
	tlb_set_pcid(p->tlb, pcid);
	if (flush_whole) {
		mmu_flush_tlb(mmu);
	} else if (!no_flush || !p->is_pcid_tagged) {
		ledger_charge(mmu->ledger, EVENT_TLB_FLUSH);
		if (mmu->vcpu->state.cr4 & CR4_PCIDE && p->is_pcid_tagged)
			tlb_flush_pcid(p->tlb, pcid);
		else
			tlb_flush_non_global(p->tlb);
		mmu_tell(mmu, MMU_FLUSH_SPACE, gva(0));
	} else {
		mmu_tell(mmu, MMU_SWITCH_SPACE, gva(0));
	}
}

void mmu_cr3_written(struct mmu *mmu, bool no_flush)
{
	ledger_charge(mmu->ledger, EVENT_GUEST_CR3_WRITE);
	fast_map_empty(mmu);
	FOR_EACH_SCHEME(m, mmu)
	scheme_cr3_written(m, no_flush);
}

void mmu_invlpg(struct mmu *mmu, gva_t address)
{
	ledger_charge(mmu->ledger, EVENT_GUEST_INVLPG);
	FOR_EACH_SCHEME(m, mmu)
	{
		struct mmu_private *p = m->private;
		follow_ring(m);
		m->strategy->invalidate(p->strategy, INVLPG, 0, address);
		ledger_charge(m->ledger, EVENT_TLB_INVALIDATE);
		if (!m->is_unmodelled)
			tlb_invalidate(p->tlb, current_pcid(m), true, address);
		walk_cache_invalidate(p->walk_cache, tlb_space(p->tlb));
		verify_invalidate(p->verify, address);
	}
	if (mmu->is_unmodelled)
		fast_map_drop_page(mmu, address);
	mmu_tell(mmu, MMU_FLUSH_PAGE, address);
}

/* One tag for all PCIDs, when the processor has no more: what is said of one holds for all. */
static unsigned tag_of(const struct mmu *mmu, unsigned pcid)
{
	return mmu->private->is_pcid_tagged ? pcid & 0xfff : 0;
}

static void scheme_invpcid(struct mmu *mmu, unsigned type, unsigned pcid, gva_t address)
{
	struct mmu_private *p = mmu->private;
	follow_ring(mmu);
	mmu->strategy->invalidate(p->strategy, (int)type, pcid, address);
	ledger_charge(mmu->ledger,
		      type == INVPCID_ADDRESS ? EVENT_TLB_INVALIDATE : EVENT_TLB_FLUSH);
	switch (type) {
	case INVPCID_ADDRESS:
		tlb_invalidate(p->tlb, tag_of(mmu, pcid), false, address);
		walk_cache_invalidate(p->walk_cache, tlb_space_of(p->tlb, tag_of(mmu, pcid)));
		verify_invalidate(p->verify, address);
		return;
	case INVPCID_CONTEXT: tlb_flush_pcid(p->tlb, tag_of(mmu, pcid)); break;
	case INVPCID_ALL: tlb_flush_all(p->tlb); break;
	default: tlb_flush_non_global(p->tlb); break;
	}
	verify_flush(p->verify);
}

void mmu_invpcid(struct mmu *mmu, unsigned type, unsigned pcid, gva_t address)
{
	ledger_charge(mmu->ledger, EVENT_GUEST_INVLPG);
	if (type != INVPCID_ADDRESS || mmu->is_unmodelled)
		fast_map_empty(mmu);
	FOR_EACH_SCHEME(m, mmu)
	scheme_invpcid(m, type, pcid, address);
	mmu_tell(mmu, type == INVPCID_ADDRESS ? MMU_FLUSH_ADDRESS : MMU_FLUSH_ALL, address);
}

#define CR4_FLUSHES (CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP)
#define CR4_MATTERS (CR4_FLUSHES | CR4_SMAP)

void mmu_controls_changed(struct mmu *mmu, uint64_t old_cr0, uint64_t old_cr4, uint64_t old_efer)
{
	const struct vcpu_state *s = &mmu->vcpu->state;
	uint64_t cr0 = s->cr0 ^ old_cr0, cr4 = s->cr4 ^ old_cr4, efer = s->efer ^ old_efer;
	if (!(cr0 & (CR0_PG | CR0_WP)) && !(cr4 & CR4_MATTERS) && !(efer & (EFER_NXE | EFER_LMA)))
		return;
	/* WP and SMAP are checked at each use: entries survive them (SDM 3A 4.10.4.1), unless a
	 * strategy's tables do not. */
	bool is_flush = cr0 & CR0_PG || cr4 & CR4_FLUSHES || efer & (EFER_NXE | EFER_LMA);
	fast_map_empty(mmu);
	mmu_tell(mmu, MMU_FLUSH_ALL, gva(0)); /* what it remembers are rights */
	memset(mmu->has_large_code, false, sizeof(mmu->has_large_code));
	memset(mmu->has_local_code, false, sizeof(mmu->has_local_code));
	memset(mmu->has_global, false, sizeof(mmu->has_global));
	FOR_EACH_SCHEME(m, mmu)
	{
		struct mmu_private *p = m->private;
		follow_ring(m);
		take_controls(m);
		verify_flush(p->verify);
		if (m->strategy->controls_changed)
			m->strategy->controls_changed(p->strategy);
		else
			m->strategy->reset(p->strategy);
		tlb_set_pcid(p->tlb, current_pcid(m));
		if (is_flush || p->entry->is_wp_forced)
			mmu_flush_tlb(m);
	}
}

void mmu_reset(struct mmu *mmu)
{
	fast_map_empty(mmu);
	mmu_tell(mmu, MMU_FLUSH_ALL, gva(0));
	FOR_EACH_SCHEME(m, mmu)
	{
		struct mmu_private *p = m->private;
		follow_ring(m);
		take_controls(m);
		m->strategy->reset(p->strategy);
		tlb_set_pcid(p->tlb, current_pcid(m));
		tlb_flush_all(p->tlb);
		verify_flush(p->verify);
	}
}

void mmu_memory_changed(struct mmu *mmu)
{
	fast_map_empty(mmu);
	mmu_tell(mmu, MMU_FLUSH_ALL, gva(0));
	FOR_EACH_SCHEME(m, mmu)
	{
		m->strategy->memory_changed(m->private->strategy);
		walk_cache_flush(m->private->walk_cache);
		tlb_flush_all(m->private->tlb);
		verify_flush(m->private->verify);
	}
}
