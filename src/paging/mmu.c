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

void mmu_flush_tlb(struct mmu *mmu)
{
	ledger_charge(mmu->ledger, EVENT_TLB_FLUSH);
	tlb_flush_all(mmu->private->tlb);
	fast_map_empty(mmu);
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

int mmu_create(struct mmu **out, const struct mmu_config *config, struct vcpu *v, struct memory *m,
	       struct error *e)
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
	memset(mmu->fast, 0xff, sizeof(mmu->fast));
	mmu->vcpu = v;
	mmu->memory = m;
	mmu->ledger = v->ledger;
	mmu->strategy = entry->ops;
	mmu->private = p;
	p->entry = entry;
	p->is_tagged = config->geometry->tagged;
	p->is_pcid_tagged = config->geometry->pcid;
	take_controls(mmu);
	r = tlb_create(&p->tlb, config->geometry, fast_map_drop, mmu, e);
	if (!r)
		r = entry->ops->create(&p->strategy, mmu, &checked, e);
	if (!r && config->verify)
		r = verify_create(&p->verify, e);
	if (!r) {
		struct memory_flag_listener listener = {fast_map_page_flagged, mmu};
		r = memory_add_flag_listener(m, listener);
		if (r)
			error_set(e, r, "too many listeners to page flags");
	}
	if (r) {
		mmu_destroy(mmu);
		return r;
	}
	tlb_set_pcid(p->tlb, current_pcid(mmu));
	*out = mmu;
	return 0;
}

void mmu_destroy(struct mmu *mmu)
{
	if (!mmu)
		return;
	memory_remove_flag_listener(mmu->memory, mmu);
	if (mmu->private->strategy)
		mmu->strategy->destroy(mmu->private->strategy);
	tlb_destroy(mmu->private->tlb);
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
		   struct tlb_entry *entry, struct mmu_page *out)
{
	uint64_t offset = address.v & (BIT(entry->page_shift) - 1);
	out->gpa = gpa(entry->frame + offset);
	locate(mmu, entry->host ? entry->host + offset : NULL, out);
	fast_map_fill(mmu, address, kind, mode, entry, out);
}

static void identity(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		     struct mmu_page *out)
{
	out->gpa = gpa(address.v);
	locate(mmu, NULL, out);
	fast_map_fill(mmu, address, kind, mode, NULL, out);
}

static bool grants(const struct mmu *mmu, const struct tlb_entry *entry, enum access_kind kind,
		   enum mmu_mode mode)
{
	return walk_permits(mmu->private->permit, entry->flags, kind, mode) &&
	       (kind != ACCESS_WRITE || (entry->flags & WALK_D));
}

/* No TLB has it: the strategy decides. */
static bool miss(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		 struct mmu_page *out, struct page_fault *fault)
{
	struct mmu_private *p = mmu->private;
	struct translation t;
	struct walk_result reference;
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
	if (t.is_uncached) {
		out->gpa = t.gpa;
		locate(mmu, t.host, out);
		return true;
	}
	enum tlb_side_id side = kind == ACCESS_FETCH ? TLB_INSTRUCTION : TLB_DATA;
	tlb_insert(p->tlb, 1, side, address, &t, mmu->use_clock);
	answer(mmu, address, kind, mode, tlb_insert(p->tlb, 0, side, address, &t, mmu->use_clock),
	       out);
	return true;
}

bool mmu_translate(struct mmu *mmu, gva_t address, enum access_kind kind, enum mmu_mode mode,
		   struct mmu_page *out, struct page_fault *fault)
{
	struct mmu_private *p = mmu->private;
	enum tlb_side_id side = kind == ACCESS_FETCH ? TLB_INSTRUCTION : TLB_DATA;
	uint64_t now = ++mmu->use_clock;
	if (unlikely(!is_paging_on(mmu))) {
		identity(mmu, address, kind, mode, out);
		return true;
	}
	struct tlb_entry *entry = tlb_find(p->tlb, 0, side, address);
	if (likely(entry && grants(mmu, entry, kind, mode))) {
		*entry->stamp = now;
		answer(mmu, address, kind, mode, entry, out);
		return true;
	}
	ledger_charge(mmu->ledger, side == TLB_DATA ? EVENT_DTLB1_MISS : EVENT_ITLB1_MISS);
	if (!entry)
		entry = tlb_find(p->tlb, 1, side, address);
	if (entry && grants(mmu, entry, kind, mode)) {
		ledger_charge(mmu->ledger, EVENT_TLB2_HIT);
		*entry->stamp = now;
		answer(mmu, address, kind, mode, tlb_promote(p->tlb, side, address, entry, now),
		       out);
		return true;
	}
	if (entry)
		tlb_invalidate(p->tlb, current_pcid(mmu), true, address);
	return miss(mmu, address, kind, mode, out, fault);
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

void mmu_charge_reference(struct mmu *mmu, enum table_kind kind, unsigned level, uint64_t address)
{
	static const enum event first[] = {EVENT_WALK_G1, EVENT_WALK_H1, EVENT_WALK_S1};
	ledger_charge(mmu->ledger, (enum event)(first[kind] + level - 1));
}

void mmu_charge_walk(struct mmu *mmu, const struct walk_result *r)
{
	for (unsigned i = 0; i < r->step_count; i++)
		if (!mmu->private->context.mode->level[r->step[i].level].is_register)
			mmu_charge_reference(mmu, TABLE_GUEST, r->step[i].level,
					     r->step[i].address.v);
}

/* What the guest tells us */

void mmu_note_exit(struct mmu *mmu)
{
	if (mmu->private->entry->is_virtualized && !mmu->private->is_tagged)
		mmu_flush_tlb(mmu);
}

void mmu_cr3_written(struct mmu *mmu, bool no_flush)
{
	struct mmu_private *p = mmu->private;
	ledger_charge(mmu->ledger, EVENT_GUEST_CR3_WRITE);
	bool flush_whole = mmu->strategy->cr3_written(p->strategy, no_flush);
	unsigned pcid = current_pcid(mmu);
	fast_map_empty(mmu);
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
	}
}

void mmu_invlpg(struct mmu *mmu, gva_t address)
{
	struct mmu_private *p = mmu->private;
	ledger_charge(mmu->ledger, EVENT_GUEST_INVLPG);
	mmu->strategy->invalidate(p->strategy, INVLPG, 0, address);
	ledger_charge(mmu->ledger, EVENT_TLB_INVALIDATE);
	tlb_invalidate(p->tlb, current_pcid(mmu), true, address);
	verify_invalidate(p->verify, address);
}

/* One tag for all PCIDs, when the processor has no more: what is said of one holds for all. */
static unsigned tag_of(const struct mmu *mmu, unsigned pcid)
{
	return mmu->private->is_pcid_tagged ? pcid & 0xfff : 0;
}

void mmu_invpcid(struct mmu *mmu, unsigned type, unsigned pcid, gva_t address)
{
	struct mmu_private *p = mmu->private;
	ledger_charge(mmu->ledger, EVENT_GUEST_INVLPG);
	mmu->strategy->invalidate(p->strategy, (int)type, pcid, address);
	ledger_charge(mmu->ledger,
		      type == INVPCID_ADDRESS ? EVENT_TLB_INVALIDATE : EVENT_TLB_FLUSH);
	switch (type) {
	case INVPCID_ADDRESS:
		tlb_invalidate(p->tlb, tag_of(mmu, pcid), false, address);
		verify_invalidate(p->verify, address);
		return;
	case INVPCID_CONTEXT: tlb_flush_pcid(p->tlb, tag_of(mmu, pcid)); break;
	case INVPCID_ALL: tlb_flush_all(p->tlb); break;
	default: tlb_flush_non_global(p->tlb); break;
	}
	fast_map_empty(mmu);
	verify_flush(p->verify);
}

#define CR4_FLUSHES (CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP)
#define CR4_MATTERS (CR4_FLUSHES | CR4_SMAP)

void mmu_controls_changed(struct mmu *mmu, uint64_t old_cr0, uint64_t old_cr4, uint64_t old_efer)
{
	struct mmu_private *p = mmu->private;
	const struct vcpu_state *s = &mmu->vcpu->state;
	uint64_t cr0 = s->cr0 ^ old_cr0, cr4 = s->cr4 ^ old_cr4, efer = s->efer ^ old_efer;
	if (!(cr0 & (CR0_PG | CR0_WP)) && !(cr4 & CR4_MATTERS) && !(efer & (EFER_NXE | EFER_LMA)))
		return;
	take_controls(mmu);
	fast_map_empty(mmu);
	verify_flush(p->verify);
	mmu->strategy->reset(p->strategy);
	tlb_set_pcid(p->tlb, current_pcid(mmu));
	/* WP and SMAP are checked at each use: entries survive them (SDM 3A 4.10.4.1), unless a
	 * strategy's tables do not. */
	bool is_flush = cr0 & CR0_PG || cr4 & CR4_FLUSHES || efer & (EFER_NXE | EFER_LMA);
	if (is_flush || p->entry->is_wp_forced)
		mmu_flush_tlb(mmu);
}

void mmu_reset(struct mmu *mmu)
{
	take_controls(mmu);
	mmu->strategy->reset(mmu->private->strategy);
	tlb_set_pcid(mmu->private->tlb, current_pcid(mmu));
	tlb_flush_all(mmu->private->tlb);
	fast_map_empty(mmu);
	verify_flush(mmu->private->verify);
}

void mmu_memory_changed(struct mmu *mmu)
{
	mmu->strategy->memory_changed(mmu->private->strategy);
	tlb_flush_all(mmu->private->tlb);
	fast_map_empty(mmu);
	verify_flush(mmu->private->verify);
}
